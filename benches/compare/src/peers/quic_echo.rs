//! The floor under host scope: a bare QUIC echo of frames as long as tierlock's, with nothing
//! behind it. One cycle is one round trip (an acquire's frame, answered by a grant's) and one
//! frame without an answer (a release's).

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig,
    rustls::{RootCertStore, pki_types::PrivatePkcs8KeyDer},
};
use tierlock::{
    Predecessor, Token,
    proto::{
        LeaseId, RequestId,
        wire::{self, Acquire, ClientMessage, LeaderMessage, Wait},
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, oneshot},
};

use super::service::of_peer;
use crate::bench::{
    failure::{BenchFailure, Result},
    tasks::AsyncCaller,
};

pub(crate) const NOTE: &str = "the floor: frames of the same length, nothing behind them";

const SUBJECT: &str = "quic-echo";
const HOST: &str = "localhost";

/// An echo on a thread of its own; it ends when this is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    /// How clients reach it: they accept no other server.
    client: ClientConfig,
    thread: Option<thread::JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    pub(crate) fn start() -> Result<Server> {
        let (config, client) = configurations().map_err(of_peer(SUBJECT))?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BenchFailure::io("cannot start a runtime"))?;
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())
                .map_err(BenchFailure::io("cannot open a QUIC endpoint"))?
        };
        let address = endpoint
            .local_addr()
            .map_err(BenchFailure::io("cannot read a QUIC endpoint's address"))?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("bench-echo".into())
            .spawn(move || {
                runtime.block_on(async {
                    let serve = async {
                        while let Some(incoming) = endpoint.accept().await {
                            tokio::spawn(async move {
                                let connection = incoming.await.ok()?;
                                let (send, receive) = connection.accept_bi().await.ok()?;
                                echo(send, receive).await
                            });
                        }
                    };
                    tokio::select! {
                        () = serve => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(BenchFailure::io("cannot start a thread"))?;
        Ok(Server { address, client, thread: Some(thread), stop: Some(stop) })
    }

    async fn connect(&self) -> Result<Stream, String> {
        let endpoint =
            Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(|error| error.to_string())?;
        let connection = endpoint
            .connect_with(self.client.clone(), self.address, HOST)
            .map_err(|error| error.to_string())?
            .await
            .map_err(|error| error.to_string())?;
        let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        Ok(Stream { send, receive, connection, endpoint })
    }

    /// A caller that has a connection to itself.
    pub(crate) fn quiet(&self, runtime: &Runtime) -> Result<Quiet> {
        let stream = runtime.block_on(self.connect()).map_err(of_peer(SUBJECT))?;
        Ok(Quiet { stream, frames: Frames::new() })
    }

    /// Callers that share one connection and one stream.
    pub(crate) fn sharing(&self, runtime: &Runtime, callers: u32) -> Result<Vec<Sharing>> {
        let stream = runtime.block_on(self.connect()).map_err(of_peer(SUBJECT))?;
        let Stream { send, receive, connection, endpoint } = stream;
        let shared = Arc::new(Shared {
            outgoing: Mutex::default(),
            to_write: Notify::new(),
            answered: (0..callers).map(|_| Notify::new()).collect(),
            closed: AtomicBool::new(false),
        });
        let writer = shared.clone();
        runtime.spawn(async move {
            write(&writer, send).await;
            connection.close(0_u8.into(), b"");
            drop(endpoint);
        });
        runtime.spawn(read(shared.clone(), receive));
        let callers_side = Arc::new(CallersSide(shared));
        let frames = Arc::new(Frames::new());
        Ok((0..callers)
            .map(|caller| Sharing { caller, frames: frames.clone(), shared: callers_side.clone() })
            .collect())
    }
}

/// The two sides of a connection, with a certificate made for it.
fn configurations() -> Result<(ServerConfig, ClientConfig), Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let server = ServerConfig::with_single_cert(vec![certificate], key.into())?;
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    client.transport_config(Arc::new(transport));
    Ok((server, client))
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Stream {
    send: SendStream,
    receive: RecvStream,
    connection: Connection,
    endpoint: Endpoint,
}

/// Frames as long as tierlock's: a length, what it is, which caller's, and filling.
struct Frames {
    acquire: Vec<u8>,
    release: Vec<u8>,
}

const ACQUIRE: u8 = 1;
const RELEASE: u8 = 2;
/// Length, kind, caller.
const HEADER: usize = 4 + 1 + 4;

impl Frames {
    fn new() -> Frames {
        let name = "quiet/async".parse().expect("a name");
        let wait = Wait::Forever;
        let above = Token::ZERO;
        let acquire = Acquire { above, ..Acquire::exclusive(name, wait) };
        let acquire = ClientMessage::Acquire { request: RequestId(1_000_000), acquire };
        let (lease, last_used) = (lease(), token());
        let release = ClientMessage::Release { lease, last_used, how: Predecessor::Clean };
        Frames { acquire: frame(ACQUIRE, &acquire), release: frame(RELEASE, &release) }
    }
}

fn granted() -> Vec<u8> {
    let granted = LeaderMessage::Granted {
        request: RequestId(1_000_000),
        lease: lease(),
        first: token(),
        last: token(),
        predecessor: Predecessor::Clean,
        at_most: None,
    };
    frame(ACQUIRE, &granted)
}

fn lease() -> LeaseId {
    LeaseId { epoch: 1, count: 1_000_000 }
}

fn token() -> Token {
    Token::new((1 << Token::COUNT_BITS) + 1_000_000).expect("a small number")
}

/// A frame of that message's length.
fn frame<M: wire::Message>(kind: u8, message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode_frame(message, &mut bytes).expect("a short message");
    let mut frame = vec![0; bytes.len().max(HEADER)];
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4] = kind;
    frame
}

/// Takes whole frames off the front of `bytes`: kind and caller of each.
fn take_frames(bytes: &mut Vec<u8>, mut each: impl FnMut(u8, [u8; 4])) {
    let mut rest = bytes.as_slice();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(payload) = after.get(..length) else { break };
        each(payload[0], payload[1..5].try_into().expect("four bytes"));
        rest = &after[length..];
    }
    let taken = bytes.len() - rest.len();
    bytes.drain(..taken);
}

/// The server's side of one connection; everything that is ready goes out in one write.
async fn echo(mut send: SendStream, mut receive: RecvStream) -> Option<()> {
    let granted = granted();
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await.ok()? {
        incoming.extend_from_slice(&chunk.bytes);
        take_frames(&mut incoming, |kind, caller| {
            if kind == ACQUIRE {
                let start = outgoing.len();
                outgoing.extend_from_slice(&granted);
                outgoing[start + 5..start + HEADER].copy_from_slice(&caller);
            }
        });
        send.write_all(&outgoing).await.ok()?;
        outgoing.clear();
    }
    Some(())
}

/// One caller alone on its connection.
pub(crate) struct Quiet {
    stream: Stream,
    frames: Frames,
}

impl Quiet {
    async fn round_trip(&mut self) -> Result<(), String> {
        let Stream { send, receive, .. } = &mut self.stream;
        send.write_all(&self.frames.acquire).await.map_err(|error| error.to_string())?;
        let mut length = [0; 4];
        receive.read_exact(&mut length).await.map_err(|error| error.to_string())?;
        let mut granted = [0; 256];
        let granted = &mut granted[..u32::from_le_bytes(length) as usize];
        receive.read_exact(granted).await.map_err(|error| error.to_string())?;
        send.write_all(&self.frames.release).await.map_err(|error| error.to_string())
    }
}

impl AsyncCaller for Quiet {
    async fn cycle(&mut self) -> Result<()> {
        self.round_trip().await.map_err(of_peer(SUBJECT))
    }
}

/// One of many callers on a connection.
pub(crate) struct Sharing {
    caller: u32,
    frames: Arc<Frames>,
    shared: Arc<CallersSide>,
}

struct Shared {
    outgoing: Mutex<Vec<u8>>,
    to_write: Notify,
    answered: Vec<Notify>,
    closed: AtomicBool,
}

/// Closes the connection with the last caller.
struct CallersSide(Arc<Shared>);

impl Drop for CallersSide {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.to_write.notify_one();
    }
}

impl AsyncCaller for Sharing {
    async fn cycle(&mut self) -> Result<()> {
        self.queue(&self.frames.acquire);
        self.shared.0.answered[self.caller as usize].notified().await;
        self.queue(&self.frames.release);
        Ok(())
    }
}

impl Sharing {
    fn queue(&self, frame: &[u8]) {
        let mut outgoing = self.shared.0.outgoing.lock();
        let start = outgoing.len();
        outgoing.extend_from_slice(frame);
        outgoing[start + 5..start + HEADER].copy_from_slice(&self.caller.to_le_bytes());
        drop(outgoing);
        self.shared.0.to_write.notify_one();
    }
}

async fn write(shared: &Shared, mut send: SendStream) {
    let mut bytes = Vec::new();
    while !shared.closed.load(Ordering::Acquire) {
        shared.to_write.notified().await;
        std::mem::swap(&mut bytes, &mut shared.outgoing.lock());
        if send.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
}

async fn read(shared: Arc<Shared>, mut receive: RecvStream) {
    let mut incoming = Vec::new();
    while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
        incoming.extend_from_slice(&chunk.bytes);
        take_frames(&mut incoming, |_, caller| {
            shared.answered[u32::from_le_bytes(caller) as usize].notify_one();
        });
    }
}

#[cfg(test)]
mod tests;
