//! A client that says whatever it wants to a leader: the handshake as documented and nothing of
//! the library's own client.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use ring::hkdf;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
};
use tierlock::{
    Name, Token,
    proto::{
        ProcessMark, Proof, RequestId, SessionId,
        wire::{
            Acquire, ClientMessage, FrameReader, HeldLease, Identity, LeaderMessage, VERSION, Wait,
            WaitingRequest, encode_frame, held_messages, waiting_messages,
        },
    },
};
use tokio::runtime::{Builder, Runtime};

use crate::setting::LONG;

/// Where intruders come from: another address than all others'.
pub(crate) const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A third address, for clients that mean no harm.
pub(crate) const VICTIM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));

/// Intruders of one place, which share a socket.
pub(crate) struct Gang {
    runtime: Runtime,
    endpoint: Endpoint,
    leader: SocketAddr,
    config: ClientConfig,
}

/// One connection of theirs.
pub(crate) struct Intruder<'a> {
    gang: &'a Gang,
    connection: Connection,
    to: SendStream,
    from: RecvStream,
    reader: FrameReader,
    session: u128,
}

impl Gang {
    /// With the secret of this file, which may be the leader's or not.
    pub(crate) fn new(leader: &str, secret: &Path) -> Gang {
        Gang::at(ELSEWHERE, leader, secret)
    }

    /// The same at this address.
    pub(crate) fn at(address: IpAddr, leader: &str, secret: &Path) -> Gang {
        Gang::with(address, leader, Papers::signed(secret, "tierlock client", "tierlock:admin"))
    }

    /// With these papers.
    pub(crate) fn with(address: IpAddr, leader: &str, papers: Papers) -> Gang {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::client((address, 0).into()).unwrap()
        };
        let mut config = ClientConfig::new(papers.handshake());
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(Duration::from_secs(60).try_into().unwrap()));
        transport.keep_alive_interval(Some(Duration::from_secs(10)));
        config.transport_config(Arc::new(transport));
        Gang { runtime, endpoint, leader: leader.parse().unwrap(), config }
    }

    /// Begins a handshake and does not wait for it.
    pub(crate) fn knock(&self) -> quinn::Connecting {
        let _inside = self.runtime.enter();
        self.endpoint.connect_with(self.config.clone(), self.leader, "tierlock").unwrap()
    }

    /// One that got past the handshake and has said nothing yet.
    pub(crate) fn enter(&self) -> Result<Intruder<'_>, String> {
        let connecting = self.knock();
        let connection = self.runtime.block_on(connecting).map_err(|error| error.to_string())?;
        let opened = self.runtime.block_on(connection.open_bi());
        let (to, from) = opened.map_err(|error| error.to_string())?;
        let session = u128::from_le_bytes(std::array::from_fn(|_| random_byte()));
        Ok(Intruder { gang: self, connection, to, from, reader: FrameReader::new(), session })
    }

    /// The same as often as it takes: handshakes that are slow are given up, to be tried again.
    pub(crate) fn enter_at_last(&self) -> Intruder<'_> {
        let begin = Instant::now();
        loop {
            match self.enter() {
                Ok(intruder) => return intruder,
                Err(why) => assert!(begin.elapsed() < LONG, "{why}"),
            }
        }
    }

    /// One with a session that the leader has welcomed.
    pub(crate) fn welcome(&self) -> Intruder<'_> {
        let mut intruder = self.enter().unwrap();
        intruder.hello();
        let answer = intruder.hear();
        assert!(matches!(answer, LeaderMessage::Welcome { .. }), "{answer:?}");
        intruder
    }
}

impl Intruder<'_> {
    pub(crate) fn hello(&mut self) {
        self.try_hello().unwrap();
    }

    pub(crate) fn try_hello(&mut self) -> Result<(), String> {
        let hello = self.hello_with(1, self.session);
        self.try_say([hello, ClientMessage::Ready])
    }

    /// The session's next connection, which says what it waits for.
    pub(crate) fn come_back_as(&mut self, earlier: Intruder<'_>, waiting: Vec<WaitingRequest>) {
        self.session = earlier.session;
        let hello = self.hello_with(2, self.session);
        self.say(
            [hello].into_iter().chain(waiting_messages(waiting)).chain([ClientMessage::Ready]),
        );
    }

    /// The session of another connection, of whatever client, comes here: by its own proof, as its next
    /// connection, and holding these.
    pub(crate) fn come_back_with(&mut self, other: &Intruder<'_>, leases: Vec<HeldLease>) {
        self.session = other.session;
        let hello = self.hello_with(2, self.session);
        self.say([hello].into_iter().chain(held_messages(leases)).chain([ClientMessage::Ready]));
    }

    /// A first report with all of this.
    pub(crate) fn report(&mut self, waiting: Vec<WaitingRequest>) {
        let hello = self.hello_with(1, self.session);
        self.say(
            [hello].into_iter().chain(waiting_messages(waiting)).chain([ClientMessage::Ready]),
        );
    }

    /// Says all of this and not that it was all, as long as it is heard.
    pub(crate) fn report_without_end(&mut self, waiting: Vec<WaitingRequest>) {
        let hello = self.hello_with(1, self.session);
        let _ = self.try_say([hello].into_iter().chain(waiting_messages(waiting)));
    }

    /// Pretends to be another's next connection.
    pub(crate) fn hello_as(&mut self, other: &Intruder<'_>) {
        let proof = std::mem::replace(&mut self.session, other.session);
        let hello = self.hello_with(2, proof);
        self.say([hello, ClientMessage::Ready]);
    }

    fn hello_with(&self, count: u64, proof: u128) -> ClientMessage {
        ClientMessage::Hello {
            version: VERSION,
            capabilities: 0,
            session: SessionId(self.session),
            proof: Proof(proof),
            count,
            cluster: None,
            seen: None,
            time_to_live: Duration::from_secs(60),
            identity: Identity::new("intruder", "elsewhere", 1, "test"),
            process: ProcessMark(0),
        }
    }

    /// A lock's name that no other has.
    pub(crate) fn name(&self) -> String {
        format!("{:032x}", self.session)
    }

    /// Says all of it, as fast as the leader reads.
    pub(crate) fn say(&mut self, messages: impl IntoIterator<Item = ClientMessage>) {
        self.try_say(messages).unwrap();
    }

    pub(crate) fn try_say(
        &mut self,
        messages: impl IntoIterator<Item = ClientMessage>,
    ) -> Result<(), String> {
        let mut bytes = Vec::new();
        for message in messages {
            encode_frame(&message, &mut bytes).unwrap();
            if bytes.len() > 64 << 10 {
                self.try_say_bytes(&bytes)?;
                bytes.clear();
            }
        }
        self.try_say_bytes(&bytes)
    }

    pub(crate) fn try_say_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.gang.runtime.block_on(self.to.write_all(bytes)).map_err(|error| error.to_string())
    }

    /// As much as the leader takes without a pause of this length.
    pub(crate) fn say_within(&mut self, bytes: &[u8], pause: Duration) -> bool {
        let write = async { tokio::time::timeout(pause, self.to.write_all(bytes)).await.is_ok() };
        self.gang.runtime.block_on(write)
    }

    /// The answers to so many requests, in whatever order: granted or refused.
    pub(crate) fn answers(&mut self, count: usize) -> Vec<LeaderMessage> {
        let is_answer = |message: &LeaderMessage| {
            matches!(message, LeaderMessage::Granted { .. } | LeaderMessage::Refused { .. })
        };
        std::iter::repeat_with(|| self.hear()).filter(is_answer).take(count).collect()
    }

    pub(crate) fn answer(&mut self) -> LeaderMessage {
        self.answers(1).pop().unwrap()
    }

    pub(crate) fn hear(&mut self) -> LeaderMessage {
        self.try_hear().unwrap_or_else(|why| panic!("the connection ended: {why}"))
    }

    /// The next message, or why there will be none.
    pub(crate) fn try_hear(&mut self) -> Result<LeaderMessage, String> {
        loop {
            if let Some(received) = self.reader.next().unwrap() {
                return Ok(received.known().expect("the leader is of this release"));
            }
            let chunk =
                async { tokio::time::timeout(LONG, self.from.read_chunk(1 << 16, true)).await };
            match self.gang.runtime.block_on(chunk).expect("an answer of the leader") {
                Ok(Some(chunk)) => self.reader.extend(&chunk.bytes),
                Ok(None) => return Err("the stream was closed".into()),
                Err(_) => return Err(self.end()),
            }
        }
    }

    /// Waits for the end of the connection, and says why it ended.
    pub(crate) fn end(&self) -> String {
        let closed = async { tokio::time::timeout(LONG, self.connection.closed()).await };
        self.gang.runtime.block_on(closed).expect("an end of the connection").to_string()
    }
}

pub(crate) fn acquire(request: u64, name: &str, wait: Wait) -> ClientMessage {
    acquire_above(request, name, wait, Token::ZERO)
}

pub(crate) fn acquire_above(request: u64, name: &str, wait: Wait, above: Token) -> ClientMessage {
    ClientMessage::Acquire { request: RequestId(request), acquire: wish(name, wait, above) }
}

/// What an acquire asks for.
pub(crate) fn wish(name: &str, wait: Wait, above: Token) -> Acquire {
    let name = Name::new(name).unwrap();
    Acquire { above, ..Acquire::exclusive(name, wait) }
}

/// It is not guessed, and need not be.
fn random_byte() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u8
}

/// What a client presents, and what it says that the connection is for.
pub(crate) struct Papers {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    protocol: &'static str,
}

impl Papers {
    /// What the file of a credential has.
    pub(crate) fn issued(file: &Path) -> Papers {
        let parts = pem::parse_many(std::fs::read(file).unwrap()).unwrap();
        let part = |tag| parts.iter().find(|part| part.tag() == tag).unwrap().contents().to_vec();
        Papers {
            certificate: CertificateDer::from(part("CERTIFICATE")),
            key: PrivatePkcs8KeyDer::from(part("PRIVATE KEY")),
            protocol: "tierlock/1",
        }
    }

    /// A certificate of this subject and URI that the secret's issuer key signs.
    pub(crate) fn signed(secret: &Path, subject: &str, uri: &str) -> Papers {
        let (certificate, key) = sign(secret, subject, uri);
        Papers { certificate, key, protocol: "tierlock/1" }
    }

    /// The same, shown to what speaks this.
    pub(crate) fn for_protocol(self, protocol: &'static str) -> Papers {
        Papers { protocol, ..self }
    }

    /// TLS 1.3 with them, believing whatever answers.
    fn handshake(self) -> Arc<quinn::crypto::rustls::QuicClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible))
            .with_client_auth_cert(vec![self.certificate], self.key.into())
            .unwrap();
        config.alpn_protocols = vec![self.protocol.as_bytes().to_vec()];
        Arc::new(config.try_into().unwrap())
    }
}

fn sign(
    secret: &Path,
    subject: &str,
    uri: &str,
) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
    let text = std::fs::read_to_string(secret).unwrap();
    let digits = text.lines().next().unwrap().as_bytes().chunks(2);
    let root: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tierlock secret 1").extract(&root);
    let mut seed = [0; 32];
    root.expand(&[b"issuer ed25519"], hkdf::HKDF_SHA256).unwrap().fill(&mut seed).unwrap();
    let issuer =
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8_of_seed(&seed), &rcgen::PKCS_ED25519)
            .unwrap();
    let mut about = rcgen::CertificateParams::default();
    about.distinguished_name.push(rcgen::DnType::CommonName, "tierlock issuer");
    let issuer = rcgen::Issuer::new(about, issuer);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut about = rcgen::CertificateParams::default();
    about.distinguished_name.push(rcgen::DnType::CommonName, subject);
    about.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    about.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = about.signed_by(&key, &issuer).unwrap();
    (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn pkcs8_of_seed(seed: &[u8; 32]) -> PrivatePkcs8KeyDer<'static> {
    // RFC 8410: an Ed25519 private key in PKCS #8 is this header and the seed.
    let header = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    PrivatePkcs8KeyDer::from([&header[..], seed].concat())
}

fn key_of_seed(seed: &[u8; 32]) -> Arc<CertifiedKey> {
    let key = pkcs8_of_seed(seed);
    let signer = rustls::crypto::ring::sign::any_eddsa_type(&key).unwrap();
    let public = CertificateDer::from(signer.public_key().unwrap().to_vec());
    Arc::new(CertifiedKey::new(vec![public], signer))
}

/// A server of some other protocol over QUIC, for as long as its runtime lives. It closes the
/// connections of clients that speak ours, before it has shown any key.
pub(crate) fn foreign_server() -> (SocketAddr, Runtime) {
    let key = key_of_seed(&[7; 32]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![b"h3".to_vec()];
    let config: quinn::crypto::rustls::QuicServerConfig = config.try_into().unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = {
        let _inside = runtime.enter();
        Endpoint::server(config, (std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    };
    let address = endpoint.local_addr().unwrap();
    runtime.spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    });
    (address, runtime)
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("QUIC has TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
