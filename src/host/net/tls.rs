//! The keys that come out of a secret, and the handshake that proves that both sides have it.
//!
//! One secret of 32 random bytes gives two Ed25519 keys. A leader presents the one of its first
//! secret as a TLS 1.3 raw public key (RFC 7250); a client presents a certificate that it signed
//! with the other, see [`credential`](super::credential). Each side accepts the keys of all its
//! secrets. So without the secret file, or a credential that an owner of it has issued, no peer gets
//! past the handshake, and with the secret a peer may do everything. What a connection is for both sides say in the handshake, and its role has to fit that.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::{hkdf, hmac};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};

use super::credential::{AcceptedCredential, AcceptedIssuers, CredentialPurpose, IssuerKey};
use crate::{
    host::net::own_id::OwnId,
    proto::{
        ClusterId, ReignId,
        history::{Attestation, Notary, Seen},
    },
};

/// What a connection is for: both sides say so, and a side that has another answer ends the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Dialect {
    /// Locks, between a client and a leader.
    Locks,
    /// The log of a group, between two of its members.
    Group,
}

impl Dialect {
    pub(in crate::host) const ALL: [Dialect; 2] = [Dialect::Locks, Dialect::Group];

    /// Its name in the handshake (ALPN).
    pub(in crate::host) fn name(self) -> &'static [u8] {
        match self {
            Dialect::Locks => b"tierlock/1",
            Dialect::Group => b"tierlock-group/1",
        }
    }

    /// Whether a peer with such a credential may speak it. A member is no client, and no client is a
    /// member.
    pub(in crate::host) fn is_for(self, purpose: &CredentialPurpose) -> bool {
        (self == Dialect::Group) == (*purpose == CredentialPurpose::Member)
    }
}

/// The client's side of a handshake.
pub(in crate::host) type ClientHandshake = Arc<QuicClientConfig>;

pub(in crate::host) const SECRET_BYTES: usize = 32;

/// The secret that a leader and its clients share: 32 random bytes.
///
/// It lives in a file of one line, 64 hexadecimal digits. Every key is derived from it, so the same
/// file on both sides is all the setting up there is. While a secret is exchanged for another the
/// file holds both, one a line: the first is presented to peers, all are accepted of them.
#[derive(Clone)]
pub struct Secret {
    /// At least one.
    roots: Vec<hkdf::Prk>,
    /// The public keys that leaders with one of them present.
    publics: Vec<Vec<u8>>,
    /// Those that certify its clients, once it is asked.
    issuers: Arc<OnceLock<Arc<AcceptedIssuers>>>,
    /// Where it was read, if it can be read again.
    file: Option<Arc<Path>>,
}

impl Secret {
    pub(in crate::host) fn from_secrets(secrets: &[[u8; SECRET_BYTES]]) -> Secret {
        assert!(!secrets.is_empty(), "a secret file has at least one");
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tierlock secret 1");
        let roots: Vec<_> = secrets.iter().map(|bytes| salt.extract(bytes)).collect();
        let publics = roots.iter().map(|root| public_half(&*leader_key(root))).collect();
        Secret { roots, publics, issuers: Arc::default(), file: None }
    }

    pub(in crate::host) fn of_file(self, file: &Path) -> Secret {
        Secret { file: Some(file.into()), ..self }
    }

    /// The file that it was read from, if that can be read again.
    pub(in crate::host) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// How many secrets the file has.
    #[cfg(feature = "cli")]
    pub(crate) fn count(&self) -> usize {
        self.roots.len()
    }

    /// A key of the secret that is presented, for one purpose; see [`derive`].
    fn derive<const N: usize>(&self, info: &[&[u8]]) -> [u8; N] {
        derive(&self.roots[0], info)
    }

    /// Signs a leader's stateless resets: restarted, it can tell its old clients that it forgot
    /// them. No other leader of the secret has it, and no client: what one of them signs for a
    /// connection of another would end that.
    pub(in crate::host) fn reset_key(&self, own: &OwnId) -> Arc<hmac::Key> {
        let key = self.derive::<32>(&[b"quic stateless reset 2", own.as_bytes()]);
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// Marks connection ids as a leader's: restarted, it recognises those that it once gave.
    pub(in crate::host) fn connection_id_key(&self, own: &OwnId) -> u64 {
        u64::from_le_bytes(self.derive(&[b"quic connection id 2", own.as_bytes()]))
    }

    /// Signs address-validation tokens, which so outlive a restart.
    pub(in crate::host) fn token_key(&self) -> Arc<hkdf::Prk> {
        let key = self.derive::<32>(&[b"quic handshake token"]);
        Arc::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &key))
    }

    /// Vouches for what the leaders of this secret say of their history.
    pub(in crate::host) fn notary(&self) -> SecretNotary {
        let key = |root| derive::<32>(root, &[b"leader history"]);
        let keys = self.roots.iter().map(|root| hmac::Key::new(hmac::HMAC_SHA256, &key(root)));
        SecretNotary(keys.collect())
    }

    /// The leader's side of the handshake, for these.
    pub(in crate::host) fn server(&self, dialects: &[Dialect]) -> Arc<QuicServerConfig> {
        let public = CertificateDer::from(self.publics[0].clone());
        let key = CertifiedKey::new(vec![public], leader_key(&self.roots[0]));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(self.accepted_issuers().clone())
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.into())));
        config.alpn_protocols = dialects.iter().map(|dialect| dialect.name().to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Arc::new(config.try_into().expect("ring has QUIC's initial cipher suite"))
    }

    /// The client's side of the handshake.
    pub(crate) fn client(&self) -> ClientHandshake {
        self.client_that_trusts(self)
    }

    /// The side of a member that turns to another member.
    pub(in crate::host) fn member(&self) -> ClientHandshake {
        self.handshake(&CredentialPurpose::Member, Dialect::Group, self)
    }

    /// A client of this secret that accepts the leaders of another one.
    pub(in crate::host) fn client_that_trusts(&self, leaders: &Secret) -> ClientHandshake {
        self.handshake(&CredentialPurpose::admin(), Dialect::Locks, leaders)
    }

    /// A handshake begun with a credential for this, which it signs for itself.
    pub(in crate::host) fn handshake(
        &self,
        purpose: &CredentialPurpose,
        dialect: Dialect,
        leaders: &Secret,
    ) -> ClientHandshake {
        let certified = self.issuer().certify(purpose, &provider());
        client_handshake(certified, dialect, leaders.accepted_leaders())
    }

    /// What certifies the clients of the secret that is presented.
    fn issuer(&self) -> IssuerKey {
        issuer_of(&self.roots[0])
    }

    fn accepted_issuers(&self) -> &Arc<AcceptedIssuers> {
        self.issuers.get_or_init(|| {
            let issuers: Vec<_> = self.roots.iter().map(issuer_of).collect();
            Arc::new(AcceptedIssuers::new(&issuers, &provider()))
        })
    }

    fn accepted_leaders(&self) -> AcceptedLeaders {
        AcceptedLeaders::new(self.publics.clone())
    }

    /// What a peer has that proved to have the key of this certificate, if an owner of one of these
    /// secrets has certified it.
    pub(in crate::host) fn accept(
        &self,
        presented: &CertificateDer<'_>,
    ) -> Result<AcceptedCredential, rustls::Error> {
        self.accepted_issuers().accept(presented)
    }

    /// Whether one that was accepted before was certified by an owner of one of these secrets.
    pub(in crate::host) fn knows_issuer_of(&self, credential: &AcceptedCredential) -> bool {
        self.accepted_issuers().know(credential)
    }

    /// What certifies clients that are issued a credential: of several secrets the last, which is the
    /// new one while they are exchanged.
    pub(super) fn last_issuer(&self) -> IssuerKey {
        issuer_of(self.roots.last().expect("there is at least one"))
    }

    /// The public keys that leaders with one of these secrets present.
    pub(super) fn leaders(&self) -> &[Vec<u8>] {
        &self.publics
    }
}

/// The client's side of a handshake: with this credential, to speak this, with one of these leaders.
pub(super) fn client_handshake(
    certified: Arc<CertifiedKey>,
    dialect: Dialect,
    leaders: AcceptedLeaders,
) -> ClientHandshake {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(leaders))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![dialect.name().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Arc::new(config.try_into().expect("ring has QUIC's initial cipher suite"))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A key of a secret for one purpose; different labels give keys that tell nothing about each other.
fn derive<const N: usize>(root: &hkdf::Prk, info: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    root.expand(info, Length(N))
        .and_then(|made| made.fill(&mut key))
        .expect("a key is shorter than 255 hashes");
    key
}

/// An Ed25519 key of a secret for one purpose.
fn ed25519_key(root: &hkdf::Prk, purpose: &[u8]) -> PrivatePkcs8KeyDer<'static> {
    // RFC 8410: an Ed25519 private key in PKCS #8 is this header and the seed.
    const HEADER: [u8; 16] = 0x302e_0201_0030_0506_032b_6570_0422_0420_u128.to_be_bytes();
    let mut pkcs8 = Vec::from(HEADER);
    pkcs8.extend_from_slice(&derive::<32>(root, &[purpose]));
    PrivatePkcs8KeyDer::from(pkcs8)
}

fn leader_key(root: &hkdf::Prk) -> Arc<dyn SigningKey> {
    rustls::crypto::ring::sign::any_eddsa_type(&ed25519_key(root, b"leader ed25519"))
        .expect("every seed is an Ed25519 key")
}

fn issuer_of(root: &hkdf::Prk) -> IssuerKey {
    IssuerKey::new(&ed25519_key(root, b"issuer ed25519"))
}

fn public_half(signer: &dyn SigningKey) -> Vec<u8> {
    signer.public_key().expect("an Ed25519 key has a public half").to_vec()
}

fn is_same_key(known: &[u8], presented: &[u8]) -> bool {
    presented.len() == known.len()
        && presented.iter().zip(known).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// The same secrets in the same order: a public key belongs to one secret.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.publics == other.publics
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Signs with a key of the secret, so that a client repeats what a leader said, and makes up nothing
/// unless it takes the trouble to derive the same key.
#[derive(Debug)]
pub(in crate::host) struct SecretNotary(Vec<hmac::Key>);

impl SecretNotary {
    fn attest_with(key: &hmac::Key, cluster: ClusterId, epoch: u32, reign: ReignId) -> Attestation {
        let mut text = Vec::from(b"tierlock history 1\0");
        text.extend_from_slice(&cluster.0.to_le_bytes());
        text.extend_from_slice(&epoch.to_le_bytes());
        text.extend_from_slice(&reign.0.to_le_bytes());
        let tag = hmac::sign(key, &text);
        let half = tag.as_ref().first_chunk().expect("a tag has 32 bytes");
        Attestation(u128::from_le_bytes(*half))
    }
}

impl Notary for SecretNotary {
    /// With the secret that is presented.
    fn attest(&self, cluster: ClusterId, epoch: u32, reign: ReignId) -> Attestation {
        SecretNotary::attest_with(&self.0[0], cluster, epoch, reign)
    }

    /// With any secret that is accepted.
    fn confirms(&self, seen: &Seen) -> bool {
        let Seen { cluster, epoch, reign, attestation } = *seen;
        let is_of = |key| SecretNotary::attest_with(key, cluster, epoch, reign).0 ^ attestation.0;
        self.0.iter().fold(false, |any, key| any | (is_of(key) == 0))
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Accepts the leader that presents a key of one of our secrets and proves that it owns it.
#[derive(Debug)]
pub(super) struct AcceptedLeaders {
    publics: Vec<Vec<u8>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AcceptedLeaders {
    /// Those that present one of these public keys.
    pub(super) fn new(publics: Vec<Vec<u8>>) -> AcceptedLeaders {
        AcceptedLeaders { publics, algorithms: provider().signature_verification_algorithms }
    }

    fn compare(&self, presented: &[u8]) -> Result<(), rustls::Error> {
        match self.publics.iter().any(|public| is_same_key(public, presented)) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
}

impl ServerCertVerifier for AcceptedLeaders {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.compare(presented)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
