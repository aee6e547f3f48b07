//! What `serve --http` answers: a page that shows the locks, metrics, health. It reads, and changes
//! nothing.
//!
//! It has a thread of its own, and at most 64 connections, each for one request and for
//! [`CONNECTION_LIMIT`] at most (`house`). The leader's thread is asked one question of a kind at a
//! time, and an answer is shown to all for a while: however many look, the leader has little to do.
//!
//! Names are for holders of the token. A page of another site gets nothing: it may neither read the
//! answers (no CORS), nor frame them, nor reach them under a name of its own (`Host`).

mod access;
mod house;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, oneshot},
};

use self::{
    access::HttpToken,
    house::{HttpHouse, HttpPlace},
};
use super::{metrics, page};
use crate::{
    cli::{
        args::ServeTelling,
        failure::{Failure, exit},
    },
    host::{LeaderHealth, LeaderView, LeaderWindow, ListenAddress},
    proto::wire::LeaderRank,
};

/// How long a connection may take, from its beginning to its end.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long the leader's thread may take for an answer.
const LEADER_LIMIT: Duration = Duration::from_secs(1);

/// For how long its counts are shown to all without another look; and its locks, for which the page asks twice
/// a second: it is less than a second behind.
const SHOWN: Duration = Duration::from_secs(1);
const LOCKS_SHOWN: Duration = Duration::from_millis(400);

/// How long the system is given to find room for another connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The sockets, before there is a leader.
pub(super) struct HttpSockets {
    listeners: Vec<TcpListener>,
    hosts: Vec<String>,
    token: Option<HttpToken>,
}

/// Opens what the command line says; `None` if it says nothing.
pub(super) fn open(
    telling: &ServeTelling,
    secret_file: &Path,
) -> Result<Option<HttpSockets>, Failure> {
    let Some(address) = &telling.http else { return Ok(None) };
    let token = telling.http_token_file.as_deref();
    let token = token.map(|file| HttpToken::read(file, secret_file)).transpose()?;
    let listen: ListenAddress = address.parse()?;
    let cannot = |error: io::Error| {
        Failure::new(exit::CONFIG, format_args!("cannot serve HTTP at {address}: {error}"))
    };
    let addresses = listen.resolve().map_err(cannot)?;
    let is_local = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
    if token.is_none() && !is_local {
        let line = format!(
            "--http {address} shows the names of locks and clients to every machine that reaches it: \
             give --http-token-file (`tierlock secret new FILE` makes one), or listen on loopback, as \
             127.0.0.1:7420"
        );
        return Err(Failure::new(exit::CONFIG, line));
    }
    let mut listeners: Vec<TcpListener> = Vec::new();
    for mut address in addresses {
        if let (0, Some(first)) = (address.port(), listeners.first()) {
            address.set_port(first.local_addr().map_err(cannot)?.port());
        }
        let listener = TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        listeners.push(listener);
    }
    Ok(Some(HttpSockets { listeners, hosts: telling.http_host.clone(), token }))
}

impl HttpSockets {
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers from now on, on a thread of its own, until the process ends. A leader may take a while to
    /// start, for what its secret and its journal are read from: until there is one, that is the answer.
    pub(super) fn serve(self) -> Result<HttpPages, Failure> {
        let failed = |error: io::Error| Failure::internal("cannot serve HTTP", error);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(failed)?;
        let HttpSockets { listeners, hosts, token } = self;
        let responder = Arc::new(HttpResponder::new(hosts, token));
        let house = Arc::<HttpHouse>::default();
        for listener in listeners {
            let entered = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            drop(entered);
            runtime.spawn(accept(listener, house.clone(), responder.clone()));
        }
        let serve = move || {
            runtime.block_on(std::future::pending::<()>());
        };
        thread::Builder::new().name("tierlock-http".into()).spawn(serve).map_err(failed)?;
        Ok(HttpPages(responder))
    }
}

/// What is answered.
pub(super) struct HttpPages(Arc<HttpResponder>);

impl HttpPages {
    /// From now on there is a leader, which is asked.
    pub(super) fn show(&self, window: LeaderWindow) {
        let is_first = self.0.window.set(window).is_ok();
        assert!(is_first, "a process serves one leader");
    }
}

/// One connection more, as long as there is room.
async fn accept(
    listener: tokio::net::TcpListener,
    house: Arc<HttpHouse>,
    responder: Arc<HttpResponder>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = house.place().await;
                let number = place.number();
                // It begins to run after the next line: there is one thread.
                let task = tokio::spawn(serve_one(stream, place, responder.clone()));
                house.may_end(number, task.abort_handle());
            }
            // It is too busy, or the peer has gone already.
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: HttpPlace,
    responder: Arc<HttpResponder>,
) {
    let place = &place;
    let answer = service_fn(move |request| {
        place.is_asked();
        let responder = responder.clone();
        async move {
            let answer = responder.answer(&request).await;
            place.is_answered();
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new();
    connection.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    let connection = connection.serve_connection(TokioIo::new(stream), answer);
    // What the peer does wrong is its own affair.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
}

/// Answers all requests.
struct HttpResponder {
    /// Once the leader has started.
    window: OnceLock<LeaderWindow>,
    hosts: Vec<String>,
    token: Option<HttpToken>,
    health: Shown<Arc<LeaderHealth>>,
    view: Shown<Arc<LeaderView>>,
    locks: Shown<Bytes>,
}

/// What the leader has shown last, or that it has not, and when. Held while it is asked, so that it is asked
/// once at a time.
type Shown<T> = Mutex<Option<(Instant, Option<T>)>>;

/// What was shown a while ago at most, or else what it shows now.
async fn shown<T: Clone>(
    last: &Shown<T>,
    lasts: Duration,
    ask: impl Future<Output = Option<T>>,
) -> Result<T, NoLeader> {
    let mut last = last.lock().await;
    if let Some((at, view)) = &*last
        && at.elapsed() < lasts
    {
        return view.clone().ok_or(NoLeader::Silent);
    }
    let view = ask.await;
    // Its silence, too: else each that waits here would wait for another answer.
    *last = Some((Instant::now(), view.clone()));
    view.ok_or(NoLeader::Silent)
}

type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";

impl HttpResponder {
    fn new(hosts: Vec<String>, token: Option<HttpToken>) -> HttpResponder {
        let (window, health, view, locks) = Default::default();
        HttpResponder { window, hosts, token, health, view, locks }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !access::is_own_host(request, &self.hosts) {
            let words = "this is not served under that name: use an IP address or localhost, or start \
                         the leader with --http-host\n";
            return answer(StatusCode::MISDIRECTED_REQUEST, TEXT, words);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            return with(answer, header::ALLOW, "GET, HEAD");
        }
        match request.uri().path() {
            "/" => answer(StatusCode::OK, "text/html; charset=utf-8", page::HTML),
            "/page.js" => answer(StatusCode::OK, "text/javascript; charset=utf-8", page::SCRIPT),
            "/page.css" => answer(StatusCode::OK, "text/css; charset=utf-8", page::STYLE),
            "/locks.json" => self.locks(request).await,
            "/metrics" => match self.view().await {
                Ok(view) => answer(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(view)),
                Err(no_leader) => no_leader.answer(),
            },
            "/healthz" => match self.health().await {
                Ok(_) => answer(StatusCode::OK, TEXT, "the leader answers\n"),
                Err(no_leader) => no_leader.answer(),
            },
            "/readyz" => match self.health().await {
                Ok(health) => readiness(&health),
                Err(no_leader) => no_leader.answer(),
            },
            _ => answer(StatusCode::NOT_FOUND, TEXT, "there is no such page\n"),
        }
    }

    async fn locks(&self, request: &Request<Incoming>) -> Answer {
        if let Some(token) = &self.token
            && !token.is_in(request)
        {
            let answer =
                answer(StatusCode::UNAUTHORIZED, TEXT, "names are for holders of the token\n");
            return with(answer, header::WWW_AUTHENTICATE, "Bearer");
        }
        let locks = async {
            let window = self.window()?;
            let ask =
                async { Some(Bytes::from(page::json(&look(window, page::LOCKS_MAX).await?))) };
            shown(&self.locks, LOCKS_SHOWN, ask).await
        };
        match locks.await {
            Ok(text) => answer(StatusCode::OK, "application/json", text),
            Err(no_leader) => no_leader.answer(),
        }
    }

    /// The leader's counts, of this moment or one shortly before.
    async fn view(&self) -> Result<Arc<LeaderView>, NoLeader> {
        let window = self.window()?;
        shown(&self.view, SHOWN, async { look(window, 0).await.map(Arc::new) }).await
    }

    /// What the leader is. It has no more to do for that than to answer: no token is asked for.
    async fn health(&self) -> Result<Arc<LeaderHealth>, NoLeader> {
        let window = self.window()?;
        let ask = async {
            let (show, answer) = oneshot::channel();
            window.look_at_health(move |health| drop(show.send(health)));
            within_limit(answer).await.map(Arc::new)
        };
        shown(&self.health, SHOWN, ask).await
    }

    fn window(&self) -> Result<&LeaderWindow, NoLeader> {
        self.window.get().ok_or(NoLeader::NotStarted)
    }
}

async fn look(window: &LeaderWindow, locks: usize) -> Option<LeaderView> {
    let (show, answer) = oneshot::channel();
    window.look(locks, move |view| drop(show.send(view)));
    within_limit(answer).await
}

async fn within_limit<T>(answer: oneshot::Receiver<T>) -> Option<T> {
    tokio::time::timeout(LEADER_LIMIT, answer).await.ok()?.ok()
}

/// Why no leader has answered.
#[derive(Clone, Copy)]
enum NoLeader {
    /// It still reads its secret and its journal.
    NotStarted,
    /// Its thread has not answered in time.
    Silent,
}

impl NoLeader {
    fn answer(self) -> Answer {
        let words = match self {
            NoLeader::NotStarted => "the leader has not started yet\n",
            NoLeader::Silent => "the leader does not answer\n",
        };
        answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, words)
    }
}

/// Whether clients may be sent to it: also to one in grace, which needs them back, and to one that stands
/// by and tells them which leader reigns.
fn readiness(health: &LeaderHealth) -> Answer {
    let (status, words) = match health.standing.rank {
        LeaderRank::Reigns if !health.has_proof => {
            (StatusCode::SERVICE_UNAVAILABLE, "without proof of its reign\n")
        }
        LeaderRank::Reigns if health.in_grace => (StatusCode::OK, "in grace\n"),
        LeaderRank::Reigns => (StatusCode::OK, "reigning\n"),
        LeaderRank::StandsBy if health.standing.cluster.is_some() => {
            (StatusCode::OK, "standing by\n")
        }
        LeaderRank::StandsBy => (StatusCode::SERVICE_UNAVAILABLE, "it has not read its journal\n"),
        LeaderRank::Ended => (StatusCode::SERVICE_UNAVAILABLE, "ended\n"),
    };
    answer(status, TEXT, words)
}

/// Nothing but this leader's own files; never framed, kept, or guessed at. What is no request of HTTP, or is
/// too long for one, hyper answers itself, with a status (400, 414, 431) and nothing else.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

#[cfg(test)]
mod tests;
