//! The secret file, the keys that come out of it, and the handshake that proves both sides have it.
//!
//! There are no certificates and no names here. One secret of 32 random bytes gives an Ed25519 key;
//! both sides present it as a TLS 1.3 raw public key (RFC 7250) and accept exactly that key, so
//! nobody without the file gets past the handshake, and whoever has the file may do everything.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::{hkdf, hmac};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use crate::{
    error::{LockError, LockErrorKind},
    proto::{
        ClusterId, ReignId,
        history::{Attestation, Notary},
    },
};

/// What both sides say they speak; another answer ends the handshake.
const ALPN: &[u8] = b"tierlock/1";
const SECRET_BYTES: usize = 32;

/// The secret that a leader and its clients share: 32 random bytes.
///
/// It lives in a file of one line, 64 hexadecimal digits, that only its owner may read. Every key
/// is derived from it, so the same file on both sides is all the setting up there is.
#[derive(Clone)]
pub struct Secret {
    root: hkdf::Prk,
}

impl Secret {
    /// Reads a secret file.
    ///
    /// # Errors
    ///
    /// `Config` if the file is missing, is not one line of 64 hexadecimal digits, or may be read or
    /// written by others than its owner; `Io` if it cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Secret, LockError> {
        let path = path.as_ref();
        let shown = path.display();
        let mut file = File::open(path).map_err(|error| {
            let (kind, what) = match error.kind() {
                io::ErrorKind::NotFound => (
                    LockErrorKind::Config,
                    format!(
                        "there is no secret file {shown}; `tierlock secret new {shown}` makes one"
                    ),
                ),
                _ => (LockErrorKind::Io, format!("cannot read the secret file {shown}: {error}")),
            };
            LockError::new(kind, what).with_source(error)
        })?;
        let read = |error: io::Error| {
            let what = format!("cannot read the secret file {shown}: {error}");
            LockError::new(LockErrorKind::Io, what).with_source(error)
        };
        let about = file.metadata().map_err(read)?;
        if !about.is_file() {
            return Err(LockError::config(format!("the secret file {shown} is no regular file")));
        }
        if about.mode() & 0o077 != 0 {
            return Err(LockError::config(format!(
                "the secret file {shown} may be used by others (mode {:03o}); run `chmod 600 {shown}`",
                about.mode() & 0o777,
            )));
        }
        let mut text = Vec::new();
        (&mut file).take(1024).read_to_end(&mut text).map_err(read)?;
        let bytes = decode(&text).ok_or_else(|| {
            LockError::config(format!(
                "the secret file {shown} is not one line of 64 hexadecimal digits; \
                 `tierlock secret new FILE` makes a good one"
            ))
        })?;
        Ok(Secret::from_bytes(&bytes))
    }

    /// Writes a new random secret to a file that must not exist yet, readable by its owner only.
    ///
    /// # Errors
    ///
    /// `Config` if the file exists (it is never overwritten), `Io` if it cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Secret, LockError> {
        let path = path.as_ref();
        let shown = path.display();
        let write = |error: io::Error| {
            let what = format!("cannot write the secret file {shown}: {error}");
            LockError::new(LockErrorKind::Io, what).with_source(error)
        };
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| {
            LockError::new(LockErrorKind::Io, "the system gives no random bytes")
                .with_source(io::Error::from(error))
        })?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                LockError::config(format!("{shown} exists already, and is never overwritten"))
                    .with_source(error)
            }
            _ => write(error),
        })?;
        let written = file.write_all(encode(&bytes).as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Half a secret is worse than none.
            let _ = std::fs::remove_file(path);
            return Err(write(error));
        }
        Ok(Secret::from_bytes(&bytes))
    }

    fn from_bytes(bytes: &[u8; SECRET_BYTES]) -> Secret {
        Secret { root: hkdf::Salt::new(hkdf::HKDF_SHA256, b"tierlock secret 1").extract(bytes) }
    }

    /// A key for one purpose; different labels give keys that tell nothing about each other.
    fn derive<const N: usize>(&self, label: &'static str) -> [u8; N] {
        let mut key = [0; N];
        self.root
            .expand(&[label.as_bytes()], Length(N))
            .and_then(|made| made.fill(&mut key))
            .expect("a key is shorter than 255 hashes");
        key
    }

    /// Signs stateless resets: a restarted leader can tell its old clients that it forgot them.
    pub(super) fn reset_key(&self) -> Arc<hmac::Key> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.derive::<32>("quic stateless reset")))
    }

    /// Marks connection ids as this secret's: a restarted leader recognises those it once gave.
    pub(super) fn connection_id_key(&self) -> u64 {
        u64::from_le_bytes(self.derive("quic connection id"))
    }

    /// Signs address-validation tokens, which so outlive a restart.
    pub(super) fn token_key(&self) -> Arc<hkdf::Prk> {
        let key = self.derive::<32>("quic handshake token");
        Arc::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &key))
    }

    /// Vouches for what the leaders of this secret say of their history.
    pub(super) fn notary(&self) -> SecretNotary {
        let key = self.derive::<32>("leader history");
        SecretNotary(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The leader's side of the handshake.
    pub(crate) fn server(&self) -> Arc<QuicServerConfig> {
        let (provider, key, peer) = self.identity();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(Arc::new(peer))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Arc::new(config.try_into().expect("ring has QUIC's initial cipher suite"))
    }

    /// The client's side of the handshake.
    pub(crate) fn client(&self) -> Arc<QuicClientConfig> {
        let (provider, key, peer) = self.identity();
        Secret::client_with(provider, key, peer)
    }

    /// A client with this key that accepts another leader's.
    #[cfg(test)]
    pub(super) fn client_that_trusts(&self, leader: &Secret) -> Arc<QuicClientConfig> {
        let (provider, key, _) = self.identity();
        let (_, _, peer) = leader.identity();
        Secret::client_with(provider, key, peer)
    }

    fn client_with(
        provider: Arc<CryptoProvider>,
        key: Arc<CertifiedKey>,
        peer: SameKey,
    ) -> Arc<QuicClientConfig> {
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(peer))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Arc::new(config.try_into().expect("ring has QUIC's initial cipher suite"))
    }

    fn identity(&self) -> (Arc<CryptoProvider>, Arc<CertifiedKey>, SameKey) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // RFC 8410: an Ed25519 private key in PKCS #8 is this header and the seed.
        let mut pkcs8 = hex(b"302e020100300506032b657004220420");
        pkcs8.extend_from_slice(&self.derive::<32>("ed25519 seed"));
        let signer = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))
            .expect("every seed is an Ed25519 key");
        let public = signer.public_key().expect("an Ed25519 key has a public half").to_vec();
        let peer = SameKey {
            public: public.clone(),
            algorithms: provider.signature_verification_algorithms,
        };
        let key = CertifiedKey::new(vec![CertificateDer::from(public)], signer);
        (provider, Arc::new(key), peer)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Signs with a key of the secret, so that a client repeats what a leader said, and makes up nothing
/// unless it takes the trouble to derive the same key.
#[derive(Debug)]
pub(super) struct SecretNotary(hmac::Key);

impl Notary for SecretNotary {
    fn attest(&self, cluster: ClusterId, epoch: u32, reign: ReignId) -> Attestation {
        let mut text = Vec::from(b"tierlock history 1\0");
        text.extend_from_slice(&cluster.0.to_le_bytes());
        text.extend_from_slice(&epoch.to_le_bytes());
        text.extend_from_slice(&reign.0.to_le_bytes());
        let tag = hmac::sign(&self.0, &text);
        let half = tag.as_ref().first_chunk().expect("a tag has 32 bytes");
        Attestation(u128::from_le_bytes(*half))
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Accepts the peer that presents our own key and proves that it owns it.
#[derive(Debug)]
struct SameKey {
    public: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SameKey {
    fn compare(&self, presented: &[u8]) -> Result<(), rustls::Error> {
        let different = presented.len() != self.public.len()
            || presented.iter().zip(&self.public).fold(0, |all, (a, b)| all | (a ^ b)) != 0;
        if different {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
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

impl ServerCertVerifier for SameKey {
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

impl ClientCertVerifier for SameKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.compare(presented)?;
        Ok(ClientCertVerified::assertion())
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

fn encode(bytes: &[u8; SECRET_BYTES]) -> String {
    let mut line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    line.push('\n');
    line
}

fn decode(text: &[u8]) -> Option<[u8; SECRET_BYTES]> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() != 2 * SECRET_BYTES || !line.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    hex(line).try_into().ok()
}

/// The bytes that an even number of hexadecimal digits stands for.
fn hex(digits: &[u8]) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hexadecimal digit") as u8;
    digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_new_secret_is_one_line_for_its_owner_only_and_is_read_back() {
        let directory = directory();
        let path = directory.path().join("key");
        let made = Secret::create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 65);
        assert!(text.ends_with('\n'));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = Secret::read(&path).unwrap();
        assert_eq!(made.derive::<32>("x"), read.derive::<32>("x"));
        assert_ne!(made.derive::<32>("x"), read.derive::<32>("y"));
    }

    #[test]
    fn a_secret_is_never_overwritten() {
        let directory = directory();
        let path = directory.path().join("key");
        std::fs::write(&path, "precious").unwrap();
        let error = Secret::create(&path).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_the_command_to_run() {
        let directory = directory();
        let path = directory.path().join("key");
        Secret::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Secret::read(&path).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Config);
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_missing_or_malformed_secret_is_a_matter_of_settings() {
        let directory = directory();
        let path = directory.path().join("key");
        assert_eq!(Secret::read(&path).unwrap_err().kind(), LockErrorKind::Config);
        assert_eq!(Secret::read(directory.path()).unwrap_err().kind(), LockErrorKind::Config);
        Secret::create(&path).unwrap();
        let good = "ab".repeat(32);
        for bad in [
            "",
            "\n",
            &good[1..],
            &format!("{good}0"),
            &good.replace('a', "g"),
            &format!("{good}\n\n"),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Secret::read(&path).unwrap_err().kind(), LockErrorKind::Config, "{bad:?}");
        }
        for fine in [good.clone(), format!("{good}\n"), good.to_uppercase()] {
            std::fs::write(&path, &fine).unwrap();
            Secret::read(&path).unwrap();
        }
    }

    #[test]
    fn one_secret_always_gives_the_same_keys() {
        let secret = Secret::from_bytes(&[7; 32]);
        let again = Secret::from_bytes(&[7; 32]);
        let other = Secret::from_bytes(&[8; 32]);
        assert_eq!(secret.connection_id_key(), again.connection_id_key());
        assert_ne!(secret.connection_id_key(), other.connection_id_key());
        let (_, key, _) = secret.identity();
        let (_, _, peer) = again.identity();
        let (_, _, stranger) = other.identity();
        assert!(peer.compare(&key.cert[0]).is_ok());
        assert!(stranger.compare(&key.cert[0]).is_err());
    }
}
