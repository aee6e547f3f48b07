//! Carries one link's frames to a leader: makes the connections that the protocol client asks for
//! and moves what is ready, in both directions.
//!
//! It decides nothing about locks, and touches no network before something is wanted. A thread of
//! its own sleeps on the sockets, so that the caller needs no runtime; it is started by the first
//! request and ends with the link.

use std::{
    io, mem,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::*},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    address::Address,
    bell::{Bell, LONGEST_SLEEP},
    link::{Drive, Link},
    quic::{CloseCode, Event, Port},
    tls::Secret,
};
use crate::{
    clock,
    error::{LockError, LockErrorKind},
    proto::{
        ConnectionId,
        client::{Client, Config, Ended},
        wire::{ClientMessage, LeaderMessage},
    },
    time::Time,
};

/// How long one address of a name that has several may take before the next one is tried.
const NEXT_ADDRESS: Duration = Duration::from_millis(500);
/// How long the goodbye may take to be answered before the thread ends regardless.
const GOODBYE: Duration = Duration::from_secs(1);

/// A link to the leader at one of these addresses (`HOST:PORT`, or `HOST` for port 7420). Nothing
/// is looked up and nothing is sent before something is wanted.
///
/// # Errors
///
/// `Config` for an address that is none, or none at all; `Io` if the system gives no pipe.
pub(crate) fn connect(
    addresses: &[String],
    secret: Secret,
    mut config: Config,
) -> Result<Arc<Link>, LockError> {
    let addresses = addresses.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(LockError::config("host scope needs the address of a leader"));
    }
    config.addresses = addresses.len();
    let bell = Bell::new().map_err(|error| {
        LockError::new(LockErrorKind::Io, format!("cannot make a pipe: {error}")).with_source(error)
    })?;
    // A dead path is noticed while there is time to find another before the leases run out.
    let silence = (config.time_to_live / 2).clamp(Duration::from_secs(1), Duration::from_secs(10));
    let client = Client::new(config, Box::new(random), clock::now());
    Ok(Link::new(client, |link| {
        Arc::new_cyclic(|carrier| Carrier {
            carrier: carrier.clone(),
            link,
            addresses,
            secret,
            silence,
            bell,
            hands: Mutex::new(Hands::new()),
            is_started: AtomicBool::new(false),
            is_running: Mutex::new(false),
            stopped: Condvar::new(),
        })
    }))
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    u128::from_le_bytes(bytes)
}

struct Carrier {
    carrier: Weak<Carrier>,
    link: Weak<Link>,
    addresses: Vec<Address>,
    secret: Secret,
    silence: Duration,
    bell: Bell,
    hands: Mutex<Hands>,
    is_started: AtomicBool,
    is_running: Mutex<bool>,
    stopped: Condvar,
}

/// What moves frames. Whoever has it may carry them.
struct Hands {
    routes: Vec<Route>,
    /// What happened and was not told to the client yet.
    news: Vec<(ConnectionId, News)>,
    /// Addresses that a name was found to have.
    found: mpsc::Receiver<(ConnectionId, io::Result<Vec<SocketAddr>>)>,
    finder: mpsc::Sender<(ConnectionId, io::Result<Vec<SocketAddr>>)>,
    orders: Orders,
    closed_at: Option<Instant>,
}

enum News {
    Connected,
    Message(LeaderMessage),
    Ended(Ended),
}

/// A connection of the client: made, or being made to one of a name's addresses.
struct Route {
    id: ConnectionId,
    /// Where nothing is open yet, the name is being looked up.
    port: Option<Port>,
    /// Addresses that were not tried yet, the next one last.
    untried: Vec<SocketAddr>,
    /// When the next address is tried.
    patience: Option<Instant>,
}

/// What the client wants done.
#[derive(Default)]
struct Orders {
    connects: Vec<(ConnectionId, usize)>,
    messages: Vec<(ConnectionId, ClientMessage)>,
    closes: Vec<ConnectionId>,
}

impl Drive for Carrier {
    fn start(&self) -> Result<(), LockError> {
        if self.is_started.load(Acquire) {
            return Ok(());
        }
        let mut is_running = self.is_running.lock();
        if self.is_started.load(Acquire) {
            return Ok(());
        }
        let carrier = self.carrier.upgrade().expect("whoever calls holds it");
        let spawned =
            thread::Builder::new().name("tierlock-client".into()).spawn(move || carrier.run());
        spawned.map_err(|error| {
            let text = format!("cannot start a thread: {error}");
            LockError::new(LockErrorKind::Io, text).with_source(error)
        })?;
        *is_running = true;
        self.is_started.store(true, Release);
        Ok(())
    }

    fn wake(&self) {
        self.bell.ring();
    }

    fn finish(&self, until: Time) {
        self.bell.ring();
        let mut is_running = self.is_running.lock();
        while *is_running {
            let now = clock::now();
            if now >= until {
                return;
            }
            self.stopped.wait_for(&mut is_running, until.since(now).min(LONGEST_SLEEP));
        }
    }

    #[cfg(test)]
    fn while_stalled(&self, work: &mut dyn FnMut()) {
        let _hands = self.hands.lock();
        work();
    }
}

impl Carrier {
    /// The thread: moves what is ready, then sleeps.
    fn run(&self) {
        let _report = Report(self);
        let mut sockets = Vec::new();
        while let Some(link) = self.link.upgrade() {
            let mut hands = self.hands.lock();
            let limit = self.carry(&mut hands, &link);
            let is_done = hands.is_done(&link);
            sockets.clear();
            hands.routes.iter().filter_map(|route| route.port.as_ref()).for_each(|port| {
                sockets.push((port.socket().clone(), port.is_blocked()));
            });
            drop(hands);
            // Perhaps the last of it: the next look finds it gone.
            drop(link);
            if is_done {
                break;
            }
            let sockets = sockets.iter().map(|(socket, blocked)| (&**socket, *blocked));
            self.bell.sleep(sockets, limit);
        }
        for port in self.hands.lock().routes.iter_mut().filter_map(|route| route.port.as_mut()) {
            port.close_all(CloseCode::Done, "not needed any more");
            port.transmit();
        }
    }

    /// Moves everything that is ready; how long nothing will be without a sign.
    fn carry(&self, hands: &mut Hands, link: &Link) -> Duration {
        loop {
            hands.listen(&self.secret, self.silence);
            let next = link.drive(|client| {
                // The clock is read after what it dates.
                let now = clock::now();
                for (id, news) in hands.news.drain(..) {
                    match news {
                        News::Connected => client.handle_connected(id, now),
                        News::Message(message) => client.handle_message(id, message, now),
                        News::Ended(ended) => client.handle_ended(id, ended, now),
                    }
                }
                if client.poll_timeout().is_some_and(|at| at <= now) {
                    client.handle_timeout(now);
                }
                hands.orders.take(client, now);
                client.poll_timeout().map(|at| at.since(now))
            });
            self.obey(hands);
            if hands.news.is_empty() {
                return hands.limit().min(next.unwrap_or(LONGEST_SLEEP));
            }
        }
    }

    fn obey(&self, hands: &mut Hands) {
        let mut orders = mem::take(&mut hands.orders);
        for (id, index) in orders.connects.drain(..) {
            let address = &self.addresses[index];
            hands.routes.push(Route { id, port: None, untried: Vec::new(), patience: None });
            match address.literal() {
                Some(literal) => hands.found(id, Ok(vec![literal]), &self.secret, self.silence),
                None => self.look_up(hands, id, address),
            }
        }
        for (id, message) in orders.messages.drain(..) {
            if let Some(port) = hands.port(id) {
                port.write(id, &message);
            }
        }
        for id in orders.closes.drain(..) {
            if let Some(at) = hands.routes.iter().position(|route| route.id == id) {
                let route = hands.routes.swap_remove(at);
                if let Some(mut port) = route.port {
                    port.close(id, CloseCode::Done, "not needed any more");
                    port.transmit();
                }
            }
        }
        hands.orders = orders;
        for port in hands.routes.iter_mut().filter_map(|route| route.port.as_mut()) {
            port.transmit();
        }
    }

    /// The system's resolver takes its time; renewals over other connections do not wait for it.
    fn look_up(&self, hands: &mut Hands, id: ConnectionId, address: &Address) {
        let carrier = self.carrier.upgrade().expect("whoever calls holds it");
        let (address, finder) = (address.clone(), hands.finder.clone());
        let spawned = thread::Builder::new().name("tierlock-lookup".into()).spawn(move || {
            let found = address.resolve();
            let found = found.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot look up {address}: {error}"))
            });
            let _ = finder.send((id, found));
            carrier.bell.ring();
        });
        if let Err(error) = spawned {
            let _ = hands.finder.send((id, Err(error)));
            self.bell.ring();
        }
    }
}

impl Orders {
    fn take(&mut self, client: &mut Client, now: Time) {
        self.messages.extend(std::iter::from_fn(|| client.poll_message(now)));
        self.closes.extend(std::iter::from_fn(|| client.poll_close()));
        self.connects.extend(std::iter::from_fn(|| client.poll_connect()));
    }
}

impl Hands {
    fn new() -> Hands {
        let (finder, found) = mpsc::channel();
        Hands {
            routes: Vec::new(),
            news: Vec::new(),
            found,
            finder,
            orders: Orders::default(),
            closed_at: None,
        }
    }

    fn port(&mut self, id: ConnectionId) -> Option<&mut Port> {
        self.routes.iter_mut().find(|route| route.id == id)?.port.as_mut()
    }

    /// Collects what happened on all routes.
    fn listen(&mut self, secret: &Secret, silence: Duration) {
        while let Ok((id, found)) = self.found.try_recv() {
            self.found(id, found, secret, silence);
        }
        let Hands { routes, news, .. } = self;
        routes.retain_mut(|route| {
            let Some(port) = &mut route.port else { return true };
            port.receive();
            let mut end = None;
            while let Some(event) = port.poll_event() {
                match event {
                    Event::Connected(id) => {
                        route.untried.clear();
                        route.patience = None;
                        news.push((id, News::Connected));
                    }
                    Event::Readable(id) => {
                        while let Some(message) = port.read(id) {
                            news.push((id, News::Message(message)));
                        }
                    }
                    Event::Ended(_, ended) => end = Some(ended),
                }
            }
            if route.patience.is_some_and(|at| at <= Instant::now()) {
                end.get_or_insert_with(|| Ended::Disconnected("no answer in time".into()));
            }
            match end {
                None => true,
                Some(end) => route.next_address(end, secret, silence, news),
            }
        });
    }

    fn found(
        &mut self,
        id: ConnectionId,
        found: io::Result<Vec<SocketAddr>>,
        secret: &Secret,
        silence: Duration,
    ) {
        let Some(at) = self.routes.iter().position(|route| route.id == id) else { return };
        let end = match found {
            Ok(mut addresses) => {
                addresses.reverse();
                self.routes[at].untried = addresses;
                Ended::Disconnected("the name has no address".into())
            }
            Err(error) => Ended::Disconnected(error.to_string()),
        };
        if !self.routes[at].next_address(end, secret, silence, &mut self.news) {
            self.routes.swap_remove(at);
        }
    }

    /// How long to sleep at most, as far as the routes are concerned.
    fn limit(&self) -> Duration {
        let now = Instant::now();
        let timeouts = self.routes.iter().flat_map(|route| {
            [route.port.as_ref().and_then(Port::timeout), route.patience].into_iter().flatten()
        });
        let limits = timeouts.map(|at| at.saturating_duration_since(now));
        limits.min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    /// Whether the client was closed, and its goodbye was answered or had its time.
    fn is_done(&mut self, link: &Link) -> bool {
        if !link.is_closed() {
            return false;
        }
        let since = self.closed_at.get_or_insert_with(Instant::now);
        self.routes.is_empty() || since.elapsed() >= GOODBYE
    }
}

impl Route {
    /// Tries the next address, or reports `end` if there is none; whether the route goes on.
    fn next_address(
        &mut self,
        mut end: Ended,
        secret: &Secret,
        silence: Duration,
        news: &mut Vec<(ConnectionId, News)>,
    ) -> bool {
        self.port = None;
        while matches!(end, Ended::Disconnected(_))
            && let Some(address) = self.untried.pop()
        {
            match Port::connect(self.id, address, secret, silence) {
                Ok(port) => {
                    self.port = Some(port);
                    let others = !self.untried.is_empty();
                    self.patience = others.then(|| Instant::now() + NEXT_ADDRESS);
                    return true;
                }
                Err(error) => {
                    end = Ended::Disconnected(format!("cannot reach {address}: {error}"));
                }
            }
        }
        news.push((self.id, News::Ended(end)));
        false
    }
}

/// Says that the thread has ended, however it did.
struct Report<'a>(&'a Carrier);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        *self.0.is_running.lock() = false;
        self.0.stopped.notify_all();
    }
}
