use super::*;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn issuer() -> IssuerKey {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    IssuerKey::new(&PrivatePkcs8KeyDer::from(key.serialize_der()))
}

#[test]
fn a_client_is_accepted_by_a_leader_that_trusts_its_issuer() {
    let (one, other) = (issuer(), issuer());
    let certified = one.certify(PeerRole::Admin, &provider());
    let accepted = |issuers: &[IssuerKey]| {
        AcceptedIssuers::new(issuers, provider()).accept(&certified.cert[0]).is_ok()
    };
    assert!(!accepted(std::slice::from_ref(&other)));
    assert!(accepted(&[other, one]));
}

#[test]
fn what_is_no_certificate_of_the_issuer_is_refused() {
    let one = issuer();
    let certified = one.certify(PeerRole::Admin, &provider());
    let mut bent = certified.cert[0].to_vec();
    let own = one.certificate();
    let accepted = AcceptedIssuers::new(&[one], provider());
    for at in 0..bent.len() {
        bent[at] ^= 1;
        assert!(accepted.accept(&CertificateDer::from(&bent[..])).is_err(), "byte {at}");
        bent[at] ^= 1;
    }
    assert!(accepted.accept(&CertificateDer::from(&bent[..])).is_ok());
    assert!(accepted.accept(&own).is_err(), "an issuer is no client");
    assert!(accepted.accept(&CertificateDer::from(&b""[..])).is_err());
}

#[test]
fn a_role_that_is_not_known_is_refused_and_so_is_a_parameter() {
    let one = issuer();
    let roles =
        ["tierlock:member?group=a", "tierlock:admin?names=a", "tierlock:", "tierlock:ADMIN"];
    let certified = roles.map(|role| (role, one.certify_as(role, &provider())));
    let accepted = AcceptedIssuers::new(&[one], provider());
    for (role, certified) in certified {
        assert!(accepted.accept(&certified.cert[0]).is_err(), "{role}");
    }
}

#[test]
fn a_credential_says_which_role_it_is_good_for() {
    let one = issuer();
    let roles = [PeerRole::Admin, PeerRole::Member];
    let certified = roles.map(|role| (role, one.certify(role, &provider())));
    let accepted = AcceptedIssuers::new(&[one], provider());
    for (role, certified) in certified {
        assert_eq!(accepted.accept(&certified.cert[0]).unwrap(), role);
    }
}
