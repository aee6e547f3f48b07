//! Certificates of servers that are reached by TLS.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// What signs certificates.
pub(super) struct TestCa(Issuer<'static, KeyPair>, String);

impl TestCa {
    pub(super) fn new() -> TestCa {
        let mut about = CertificateParams::default();
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes what has its issuer's name for signed by itself.
        about.distinguished_name.push(DnType::CommonName, "a CA of tests");
        let key = KeyPair::generate().unwrap();
        let own = about.self_signed(&key).unwrap().pem();
        TestCa(Issuer::new(about, key), own)
    }

    /// Its own certificate.
    pub(super) fn own(&self) -> &str {
        &self.1
    }

    /// A certificate for this address, and its key.
    pub(super) fn certify(&self, address: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let about = CertificateParams::new([address.to_owned()]).unwrap();
        [about.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem()]
    }
}
