use super::*;

fn accepts(judge: &Secret, presented: &CertificateDer<'_>, dialect: Dialect) -> bool {
    judge.accept(presented).is_ok_and(|credential| dialect.is_for(&credential.terms.purpose))
}

fn secret(bytes: &[u8]) -> Secret {
    Secret::from_secrets(&bytes.iter().map(|byte| [*byte; 32]).collect::<Vec<_>>())
}

#[test]
fn one_secret_always_gives_the_same_keys() {
    let (one, again, other) = (secret(&[7]), secret(&[7]), secret(&[8]));
    let own = OwnId::random();
    assert_eq!(one.connection_id_key(&own), again.connection_id_key(&own));
    assert_ne!(one.connection_id_key(&own), other.connection_id_key(&own));
    assert!(again.accepted_leaders().compare(&one.publics[0]).is_ok());
    assert!(other.accepted_leaders().compare(&one.publics[0]).is_err());
    let certified = one.issuer().certify(&CredentialPurpose::admin(), &provider());
    let is_accepted = |judge| accepts(judge, &certified.cert[0], Dialect::Locks);
    assert!(is_accepted(&again) && !is_accepted(&other));
}

#[test]
fn leaders_of_one_secret_have_keys_of_their_own_for_their_connections() {
    let one = secret(&[7]);
    let [own, others] = [(); 2].map(|()| OwnId::random());
    assert_ne!(one.connection_id_key(&own), one.connection_id_key(&others));
    let signed = |own| hmac::sign(&one.reset_key(own), b"a connection id");
    assert_eq!(signed(&own).as_ref(), signed(&own).as_ref());
    assert_ne!(signed(&own).as_ref(), signed(&others).as_ref());
}

#[test]
fn of_several_secrets_the_first_is_presented_and_all_are_accepted() {
    let presents = |presenter: &Secret, judge: &Secret| {
        let as_client = presenter.issuer().certify(&CredentialPurpose::admin(), &provider());
        let is_accepted = judge.accepted_leaders().compare(&presenter.publics[0]).is_ok();
        assert_eq!(accepts(judge, &as_client.cert[0], Dialect::Locks), is_accepted);
        is_accepted
    };
    let (old, both, turned, new) = (secret(&[1]), secret(&[1, 2]), secret(&[2, 1]), secret(&[2]));
    // Each step of an exchange, each side before and after it.
    for (one, other) in [(&old, &both), (&both, &both), (&both, &turned), (&turned, &new)] {
        assert!(presents(one, other) && presents(other, one));
    }
    assert!(!presents(&old, &new) && !presents(&new, &old) && !presents(&turned, &old));
}

#[test]
fn a_member_is_no_client_and_no_client_is_a_member() {
    let one = secret(&[7]);
    let of_client = (CredentialPurpose::admin(), Dialect::Locks);
    for (role, dialect) in [of_client, (CredentialPurpose::Member, Dialect::Group)] {
        let certified = one.issuer().certify(&role, &provider());
        for said in Dialect::ALL {
            assert_eq!(
                accepts(&one, &certified.cert[0], said),
                said == dialect,
                "{role:?}, {said:?}"
            );
        }
    }
}
