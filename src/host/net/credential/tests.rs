use super::*;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn issuer() -> IssuerKey {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    IssuerKey::new(&PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn accepting(issuers: &[IssuerKey]) -> AcceptedIssuers {
    AcceptedIssuers::new(issuers, &provider())
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn terms(purpose: CredentialPurpose, until: Option<Duration>) -> CertificateTerms {
    let serial = CredentialSerial::of_random([7; 16]);
    CertificateTerms { purpose, label: "checkout".to_owned(), serial, until }
}

#[test]
fn a_client_is_accepted_by_a_leader_that_trusts_its_issuer() {
    let (one, other) = (issuer(), issuer());
    let certified = one.certify(&CredentialPurpose::admin(), &provider());
    let accepted = |issuers: &[IssuerKey]| accepting(issuers).accept(&certified.cert[0]).ok();
    let of_other = std::slice::from_ref(&other);
    assert!(accepted(of_other).is_none());
    let of_one = accepted(std::slice::from_ref(&one)).unwrap();
    assert!(!accepting(of_other).know(&of_one));
    let both = [other, one];
    assert!(accepted(&both).is_some() && accepting(&both).know(&of_one));
}

#[test]
fn what_is_no_certificate_of_the_issuer_is_refused() {
    let one = issuer();
    let certified = one.certify(&CredentialPurpose::admin(), &provider());
    let mut bent = certified.cert[0].to_vec();
    let own = one.certificate();
    let accepted = accepting(&[one]);
    for at in 0..bent.len() {
        bent[at] ^= 1;
        assert!(accepted.accept(&CertificateDer::from(&bent[..])).is_err(), "byte {at}");
        bent[at] ^= 1;
    }
    assert!(accepted.accept(&CertificateDer::from(&bent[..])).is_ok());
    assert!(accepted.accept(&own).is_err(), "an issuer is no client");
    assert!(accepted.accept(&CertificateDer::from(&b""[..])).is_err());
}

/// Which alert a peer gets, and what its operator is told, goes by this: of a certificate that no issuer
/// of its own has signed it is not to be believed that its time is over.
#[test]
fn an_end_is_believed_of_a_signed_certificate_alone() {
    let (one, other) = (issuer(), issuer());
    let past = since_epoch(2001);
    let (ended, _) = one.issue(&terms(CredentialPurpose::admin(), Some(past)));
    let refused = |issuers: &[IssuerKey]| accepting(issuers).accept(&ended).unwrap_err();
    assert!(!is_of_time(&refused(std::slice::from_ref(&other))));
    assert!(is_of_time(&refused(std::slice::from_ref(&one))));
    assert!(is_of_time(&refused(&[other, one])), "whichever is asked first");
}

#[test]
fn a_role_or_parameter_that_is_not_known_is_refused() {
    let one = issuer();
    let roles = [
        "tierlock:member?group=a",
        "tierlock:admin?group=a",
        "tierlock:",
        "tierlock:ADMIN",
        "tierlock:write",
        "other:admin",
        "tierlock:lock?",
        "tierlock:lock?names",
        "tierlock:lock?names=",
        "tierlock:lock?names=a&",
        "tierlock:lock?names=a%0Ab",
        "tierlock:lock?names=%ff",
        "tierlock:lock?ttl-max-ms=",
        "tierlock:lock?ttl-max-ms=-1",
        "tierlock:lock?ttl-max-ms=+5",
        "tierlock:lock?ttl-max-ms=5&ttl-max-ms=6",
        "tierlock:lock?names=a&until=2027",
    ];
    let certified = roles.map(|role| (role, one.certify_as(role, &provider())));
    let accepted = accepting(&[one]);
    for (role, certified) in certified {
        assert!(accepted.accept(&certified.cert[0]).is_err(), "{role}");
    }
}

#[test]
fn a_credential_says_what_it_is_good_for() {
    let one = issuer();
    let names = ["orders/", "a b&c=d%/é", "users"].map(name);
    let life = Some(Duration::from_millis(1_500));
    let purposes = [
        CredentialPurpose::admin(),
        CredentialPurpose::Member,
        CredentialPurpose::Client(Rights::new(Role::Read, Vec::new(), None)),
        CredentialPurpose::Client(Rights::new(Role::Lock, names.to_vec(), None)),
        CredentialPurpose::Client(Rights::new(Role::Admin, names.to_vec(), life)),
    ];
    let lock = &purposes[3];
    assert_eq!(
        lock.uri(),
        "tierlock:lock?names=a%20b%26c%3Dd%25%2F%C3%A9&names=orders%2F&names=users"
    );
    let certified = purposes.map(|purpose| (one.certify(&purpose, &provider()), purpose));
    let accepted = accepting(&[one]);
    for (certified, purpose) in certified {
        let credential = accepted.accept(&certified.cert[0]).unwrap();
        assert_eq!(credential.terms.purpose, purpose);
        assert_eq!((credential.terms.label, credential.terms.until), (None, None));
    }
}

#[test]
fn an_issued_credential_bears_its_label_its_serial_and_its_end() {
    let one = issuer();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let soon = Duration::from_secs(now.as_secs() + 3_600);
    let purpose =
        || CredentialPurpose::Client(Rights::new(Role::Lock, vec![name("orders/")], None));
    let (certificate, _) = one.issue(&terms(purpose(), Some(soon)));
    let (endless, _) = one.issue(&terms(purpose(), None));
    let (ended, _) = one.issue(&terms(purpose(), Some(Duration::from_secs(now.as_secs() - 1))));
    let accepted = accepting(&[one]);
    let credential = accepted.accept(&certificate).unwrap();
    let read = CredentialTerms {
        purpose: purpose(),
        label: Some("checkout".into()),
        serial: CredentialSerial::of_random([7; 16]),
        until: Some(soon),
    };
    assert_eq!(credential.terms, read);
    assert!(!credential.has_ended());
    assert_eq!(accepted.accept(&endless).unwrap().terms.until, None);
    assert!(is_of_time(&accepted.accept(&ended).unwrap_err()));
    let later = AcceptedCredential {
        terms: CredentialTerms { until: Some(now), ..read },
        issuer: credential.issuer,
    };
    assert!(later.has_ended());
}

#[test]
fn a_proof_is_bound_to_its_label() {
    let bound = bind_proof("checkout", Proof(7));
    assert_eq!(bound, bind_proof("checkout", Proof(7)));
    for (label, proof) in [("checkout", Proof(8)), ("checkouts", Proof(7)), ("", Proof(7))] {
        assert_ne!(bound, bind_proof(label, proof));
    }
    assert_ne!(bound, Proof(7));
}
