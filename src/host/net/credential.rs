//! The certificate that a client presents, and what a leader makes of it.
//!
//! A client proves what it may do by an X.509 certificate with one URI, which names its role, the names
//! that it is for and the limit of its times to live: `tierlock:lock?names=orders%2F&ttl-max-ms=5000`. An
//! issuer key signs it, and every owner of the secret has that key. So a client with the secret
//! signs a certificate of its own, in memory, and no file of certificates need be kept; one that is
//! issued, for a client without the secret, has that client's label as its subject, and a serial by
//! which it is revoked. A leader
//! trusts the issuer keys of all its secrets. The members of a group sign theirs in the same way, and
//! their role is good for the group's own protocol and for no other.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber, date_time_ymd,
};
use ring::digest;
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
use x509_cert::der::{Decode as _, asn1::Utf8StringRef, oid::db::rfc4519::CN};

use super::serials::CredentialSerial;
use crate::{
    name::Name,
    proto::{
        Proof,
        rights::{Rights, Role},
    },
};

/// What a credential is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) enum CredentialPurpose {
    /// For a client with these rights.
    Client(Rights),
    /// For a member of a group, towards the other members.
    Member,
}

impl CredentialPurpose {
    /// Of a client with the secret: everything.
    pub(in crate::host) fn admin() -> CredentialPurpose {
        CredentialPurpose::Client(Rights::everything())
    }

    pub(super) fn uri(&self) -> String {
        let rights = match self {
            CredentialPurpose::Member => return "tierlock:member".to_owned(),
            CredentialPurpose::Client(rights) => rights,
        };
        let names = rights.names().iter().map(|name| {
            format!("{NAMES}={}", utf8_percent_encode(name.as_str(), NON_ALPHANUMERIC))
        });
        let limit = rights.time_to_live_max();
        let limit = limit.map(|limit| format!("{TTL_MAX_MS}={}", limit.as_millis()));
        let parameters: Vec<_> = names.chain(limit).collect();
        let question = if parameters.is_empty() { "" } else { "?" };
        format!("tierlock:{}{question}{}", rights.role(), parameters.join("&"))
    }

    /// `None` for a role or a parameter that is not known: skipped, it would be another.
    fn of_uri(uri: &str) -> Option<CredentialPurpose> {
        let said = uri.strip_prefix("tierlock:")?;
        let (role, parameters) = match said.split_once('?') {
            Some((role, parameters)) => (role, Some(parameters)),
            None => (said, None),
        };
        if role == "member" {
            return parameters.is_none().then_some(CredentialPurpose::Member);
        }
        let role: Role = role.parse().ok()?;
        let (mut names, mut limit) = (Vec::new(), None);
        for parameter in parameters.into_iter().flat_map(|all| all.split('&')) {
            match parameter.split_once('=')? {
                (NAMES, encoded) => {
                    let name = percent_decode_str(encoded).decode_utf8().ok()?;
                    names.push(Name::new(&name).ok()?);
                }
                (TTL_MAX_MS, digits) if limit.is_none() => {
                    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
                    let millis = is_number.then(|| digits.parse().ok()).flatten()?;
                    limit = Some(Duration::from_millis(millis));
                }
                _ => return None,
            }
        }
        Some(CredentialPurpose::Client(Rights::new(role, names, limit)))
    }
}

const NAMES: &str = "names";
const TTL_MAX_MS: &str = "ttl-max-ms";

/// The subject of a certificate that an owner of the secret signs for itself: no label.
pub(in crate::host) const OWN_SUBJECT: &str = "tierlock client";

/// What an issued certificate is to say.
pub(in crate::host) struct CertificateTerms {
    pub(in crate::host) purpose: CredentialPurpose,
    pub(in crate::host) label: String,
    pub(in crate::host) serial: CredentialSerial,
    /// Since the Unix epoch; none: it has no end.
    pub(in crate::host) until: Option<Duration>,
}

/// What certifies clients of one secret.
pub(in crate::host) struct IssuerKey(Issuer<'static, KeyPair>);

/// Which issuer certified a credential: its public key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IssuerId(Arc<[u8]>);

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

    fn id(&self) -> IssuerId {
        IssuerId(self.0.key().public_key_raw().into())
    }

    /// The certificate by which leaders trust it.
    fn certificate(&self) -> CertificateDer<'static> {
        let signed = IssuerKey::about().self_signed(self.0.key());
        signed.expect("an issuer's certificate has nothing that cannot be written").into()
    }

    /// A new key, with a certificate for this, for an owner of the secret.
    pub(in crate::host) fn certify(
        &self,
        purpose: &CredentialPurpose,
        provider: &CryptoProvider,
    ) -> Arc<CertifiedKey> {
        Arc::new(self.certify_as(&purpose.uri(), provider))
    }

    fn certify_as(&self, uri: &str, provider: &CryptoProvider) -> CertifiedKey {
        let (signed, private) = self.sign(certificate(OWN_SUBJECT), uri);
        let signer = provider.key_provider.load_private_key(private.into());
        CertifiedKey::new(vec![signed], signer.expect("ring has Ed25519"))
    }

    /// A new key, with a certificate of these terms, for a client without the secret.
    pub(in crate::host) fn issue(
        &self,
        terms: &CertificateTerms,
    ) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
        let mut about = certificate(&terms.label);
        about.serial_number = Some(SerialNumber::from_slice(terms.serial.as_bytes()));
        if let Some(until) = terms.until {
            about.not_after = date_time_ymd(1970, 1, 1) + until;
        }
        self.sign(about, &terms.purpose.uri())
    }

    fn sign(
        &self,
        mut about: CertificateParams,
        uri: &str,
    ) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("the system has random numbers");
        let uri = uri.try_into().expect("a role and its parameters are written in ASCII");
        about.subject_alt_names = vec![SanType::URI(uri)];
        about.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        about.use_authority_key_identifier_extension = true;
        let signed = about.signed_by(&key, &self.0);
        let signed = signed.expect("a client's certificate has nothing that cannot be written");
        (signed.into(), PrivatePkcs8KeyDer::from(key.serialize_der()))
    }
}

/// Valid at any time: the wall clocks of leader and client differ, and neither is trusted.
fn certificate(subject: &str) -> CertificateParams {
    let mut about = CertificateParams::default();
    about.distinguished_name.push(DnType::CommonName, subject);
    (about.not_before, about.not_after) = (date_time_ymd(BEGIN, 1, 1), date_time_ymd(NO_END, 1, 1));
    about
}

/// The year in which all certificates begin: no clock that is behind refuses them.
const BEGIN: i32 = 1975;

/// The year in which certificates without an end end.
const NO_END: i32 = 4096;

/// The proof that the session of a client with this label is known by, made of the one that it shows.
pub(in crate::host) fn bind_proof(label: &str, proof: Proof) -> Proof {
    let mut text = Vec::from(b"tierlock session 1\0");
    text.extend_from_slice(&proof.0.to_le_bytes());
    text.extend_from_slice(label.as_bytes());
    let digest = digest::digest(&digest::SHA256, &text);
    let half = digest.as_ref().first_chunk().expect("a digest has 32 bytes");
    Proof(u128::from_le_bytes(*half))
}

/// From then on, since the Unix epoch, an end is none.
pub(in crate::host) fn no_end() -> Duration {
    since_epoch(NO_END)
}

/// When this year begins.
fn since_epoch(year: i32) -> Duration {
    let years = date_time_ymd(year, 1, 1) - date_time_ymd(1970, 1, 1);
    years.try_into().expect("it is after the epoch")
}

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct CredentialTerms {
    pub(in crate::host) purpose: CredentialPurpose,
    /// None of one that an owner of the secret signed for itself.
    pub(in crate::host) label: Option<Arc<str>>,
    pub(in crate::host) serial: CredentialSerial,
    /// Since the Unix epoch; none: it has no end.
    pub(in crate::host) until: Option<Duration>,
}

impl CredentialTerms {
    /// Believes what it says: whether that is signed is another question. `None` if it says what is not
    /// known here.
    pub(in crate::host) fn read(presented: &CertificateDer<'_>) -> Option<CredentialTerms> {
        let of_roles = EndEntityCert::try_from(presented).ok()?;
        let mut uris = of_roles.valid_uri_names();
        let (Some(uri), None) = (uris.next(), uris.next()) else { return None };
        let purpose = CredentialPurpose::of_uri(uri)?;
        let all = x509_cert::Certificate::from_der(presented).ok()?.tbs_certificate;
        let mut subjects =
            all.subject.0.iter().flat_map(|part| part.0.iter()).filter(|part| part.oid == CN);
        let (Some(subject), None) = (subjects.next(), subjects.next()) else { return None };
        let subject = subject.value.decode_as::<Utf8StringRef<'_>>().ok()?;
        let ends = all.validity.not_after.to_unix_duration();
        Some(CredentialTerms {
            purpose,
            label: Some(subject.as_str()).filter(|subject| *subject != OWN_SUBJECT).map(Into::into),
            serial: CredentialSerial::new(all.serial_number.as_bytes()),
            until: Some(ends).filter(|ends| *ends < no_end()),
        })
    }
}

/// A credential that was presented and is accepted.
#[derive(Clone, Debug)]
pub(in crate::host) struct AcceptedCredential {
    pub(in crate::host) terms: CredentialTerms,
    issuer: IssuerId,
}

impl AcceptedCredential {
    /// Whether it is past its end, by this machine's wall clock: the only use of that.
    pub(in crate::host) fn has_ended(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.terms.until.is_some_and(|until| until <= now)
    }
}

/// Accepts the clients that one of some issuers certified.
#[derive(Debug)]
pub(in crate::host) struct AcceptedIssuers(Vec<(IssuerId, Arc<dyn ClientCertVerifier>)>);

impl AcceptedIssuers {
    /// There is at least one.
    pub(in crate::host) fn new(
        issuers: &[IssuerKey],
        provider: &Arc<CryptoProvider>,
    ) -> AcceptedIssuers {
        assert!(!issuers.is_empty(), "a secret has an issuer");
        let verifiers = issuers.iter().map(|issuer| {
            let mut roots = RootCertStore::empty();
            let added = roots.add(issuer.certificate());
            added.expect("an issuer's certificate is a trust anchor");
            let provider = provider.clone();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier: Arc<dyn ClientCertVerifier> =
                verifier.build().expect("there is an issuer");
            (issuer.id(), verifier)
        });
        AcceptedIssuers(verifiers.collect())
    }

    /// What a peer with this certificate has, if it is accepted. That it has the key is proved in
    /// the handshake.
    pub(in crate::host) fn accept(
        &self,
        presented: &CertificateDer<'_>,
    ) -> Result<AcceptedCredential, rustls::Error> {
        let (issuer, _) = self.verify(presented, &[], UnixTime::now())?;
        let terms = CredentialTerms::read(presented)
            .ok_or(CertificateError::ApplicationVerificationFailure)?;
        Ok(AcceptedCredential { terms, issuer: issuer.clone() })
    }

    /// Whether one that was accepted by others has an issuer of these.
    pub(in crate::host) fn know(&self, credential: &AcceptedCredential) -> bool {
        self.0.iter().any(|(issuer, _)| *issuer == credential.issuer)
    }

    /// Which of them certified it.
    fn verify(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(&IssuerId, ClientCertVerified), rustls::Error> {
        let mut refused = CertificateError::UnknownIssuer.into();
        for (issuer, verifier) in &self.0 {
            match verifier.verify_client_cert(presented, intermediates, now) {
                Ok(verified) => return Ok((issuer, verified)),
                // The time is looked at before the signature, so any certificate says that it is over.
                // It is if this issuer has signed that: then it was good at its beginning.
                Err(error) if is_of_time(&error) => {
                    let begins = UnixTime::since_unix_epoch(since_epoch(BEGIN));
                    if verifier.verify_client_cert(presented, intermediates, begins).is_ok() {
                        return Err(error);
                    }
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn any(&self) -> &dyn ClientCertVerifier {
        &*self.0[0].1
    }
}

/// Whether it says that the time is not within that of the certificate. A peer is told of all alike.
fn is_of_time(error: &rustls::Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let rustls::Error::InvalidCertificate(why) = error else { return false };
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
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
        let (_, verified) = self.verify(presented, intermediates, now)?;
        match CredentialTerms::read(presented) {
            Some(_) => Ok(verified),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
