//! The certificate that a client presents, and what a leader makes of it.
//!
//! A client proves what it may do by an X.509 certificate with one URI, which names its role. An
//! issuer key signs it, and every owner of the secret has that key: so a client with the secret
//! signs a certificate of its own, in memory, and no file of certificates need be kept. A leader
//! trusts the issuer keys of all its secrets. The members of a group sign theirs in the same way, and
//! their role is good for the group's own protocol and for no other.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use webpki::EndEntityCert;

/// What a credential is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum PeerRole {
    /// A client that may do everything.
    Admin,
    /// A member of a group, towards the other members.
    Member,
}

impl PeerRole {
    fn uri(self) -> &'static str {
        match self {
            PeerRole::Admin => "tierlock:admin",
            PeerRole::Member => "tierlock:member",
        }
    }
}

/// What certifies clients of one secret.
pub(in crate::host) struct IssuerKey(Issuer<'static, KeyPair>);

impl IssuerKey {
    /// The issuer with this Ed25519 key. All of one key are the same.
    pub(in crate::host) fn new(key: &PrivatePkcs8KeyDer<'_>) -> IssuerKey {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ED25519)
            .expect("every seed is an Ed25519 key");
        IssuerKey(Issuer::new(IssuerKey::about(), key))
    }

    fn about() -> CertificateParams {
        let mut about = certificate("tierlock issuer");
        about.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        about.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        about
    }

    /// The certificate by which leaders trust it.
    fn certificate(&self) -> CertificateDer<'static> {
        let signed = IssuerKey::about().self_signed(self.0.key());
        signed.expect("an issuer's certificate has nothing that cannot be written").into()
    }

    /// A new key, with a certificate for this role.
    pub(in crate::host) fn certify(
        &self,
        role: PeerRole,
        provider: &CryptoProvider,
    ) -> Arc<CertifiedKey> {
        Arc::new(self.certify_as(role.uri(), provider))
    }

    fn certify_as(&self, role: &str, provider: &CryptoProvider) -> CertifiedKey {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("the system has random numbers");
        let mut about = certificate("tierlock client");
        let role = role.try_into().expect("a role is written in ASCII");
        about.subject_alt_names = vec![SanType::URI(role)];
        about.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        about.use_authority_key_identifier_extension = true;
        let signed = about.signed_by(&key, &self.0);
        let signed = signed.expect("a client's certificate has nothing that cannot be written");
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let signer = provider.key_provider.load_private_key(private.into());
        let signer = signer.expect("ring has Ed25519");
        CertifiedKey::new(vec![signed.der().clone()], signer)
    }
}

/// Valid at any time: the wall clocks of leader and client differ, and neither is trusted.
fn certificate(subject: &str) -> CertificateParams {
    let mut about = CertificateParams::default();
    about.distinguished_name.push(DnType::CommonName, subject);
    (about.not_before, about.not_after) = (date_time_ymd(1975, 1, 1), date_time_ymd(4096, 1, 1));
    about
}

/// Accepts the clients that one of some issuers certified.
#[derive(Debug)]
pub(in crate::host) struct AcceptedIssuers(Arc<dyn ClientCertVerifier>);

impl AcceptedIssuers {
    pub(in crate::host) fn new(
        issuers: &[IssuerKey],
        provider: Arc<CryptoProvider>,
    ) -> AcceptedIssuers {
        let mut roots = RootCertStore::empty();
        for issuer in issuers {
            let added = roots.add(issuer.certificate());
            added.expect("an issuer's certificate is a trust anchor");
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        AcceptedIssuers(verifier.build().expect("there is at least one issuer"))
    }

    /// The role of a peer with this certificate, if it is accepted. That it has the key is proved in
    /// the handshake.
    pub(in crate::host) fn accept(
        &self,
        presented: &CertificateDer<'_>,
    ) -> Result<PeerRole, rustls::Error> {
        self.verify_client_cert(presented, &[], UnixTime::now())?;
        read_role(presented)
    }
}

/// Refuses a role that is not known, and one with parameters: skipped, it would be another role.
fn read_role(presented: &CertificateDer<'_>) -> Result<PeerRole, rustls::Error> {
    let refused = || CertificateError::ApplicationVerificationFailure;
    let certificate = EndEntityCert::try_from(presented).map_err(|_| refused())?;
    let mut roles = certificate.valid_uri_names();
    let known = [PeerRole::Admin, PeerRole::Member];
    match (roles.next(), roles.next()) {
        (Some(said), None) => {
            let role = known.into_iter().find(|role| role.uri() == said);
            Ok(role.ok_or_else(refused)?)
        }
        _ => Err(refused().into()),
    }
}

impl ClientCertVerifier for AcceptedIssuers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A client has one certificate and needs no hint which to choose.
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(presented, intermediates, now)?;
        read_role(presented)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
