//! The connections of one client: tried address by address, read, written, closed.
//!
//! It decides nothing: the protocol client orders connections, messages and closes, and is told
//! what happened. It sleeps on nothing and starts no thread but those that look up names.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{
    host::net::{
        address::Address,
        bell::LONGEST_SLEEP,
        client_keys::ClientKeys,
        quic::{CloseCode, Port, PortEvent},
    },
    proto::{
        ConnectionId,
        client::{Client, Ended},
        wire::{ClientMessage, LeaderMessage},
    },
    time::Time,
};

/// How long one address of a name that has several may take before the next one is tried.
const NEXT_ADDRESS: Duration = Duration::from_millis(500);

/// Where a client's connections go, and how.
pub(in crate::host) struct Map {
    pub(in crate::host) addresses: Vec<Address>,
    pub(in crate::host) keys: ClientKeys,
    /// How long a connection may be silent.
    pub(in crate::host) silence: Duration,
}

pub(in crate::host) struct Routes {
    map: Map,
    routes: Vec<Route>,
    /// What happened and was not told to the client yet.
    news: Vec<(ConnectionId, RouteNews)>,
    orders: Orders,
    has_moved: bool,
    /// A socket may have had more than was read at the last time.
    has_unread: bool,
    /// Addresses that a name was found to have, from the threads that look them up.
    found: mpsc::Receiver<(ConnectionId, io::Result<Vec<SocketAddr>>)>,
    finder: mpsc::Sender<(ConnectionId, io::Result<Vec<SocketAddr>>)>,
    /// Rung when a name was looked up.
    wake: Box<dyn Fn() -> Box<dyn FnOnce() + Send> + Send>,
}

enum RouteNews {
    Connected,
    Message(LeaderMessage),
    Ended(Ended),
}

/// A connection of the client: made, or being made to one of a name's addresses.
struct Route {
    id: ConnectionId,
    /// Nothing is open yet while the name is being looked up.
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

impl Routes {
    /// No routes yet. `wake` makes what a thread calls once it has looked up a name.
    pub(in crate::host) fn new(
        map: Map,
        wake: impl Fn() -> Box<dyn FnOnce() + Send> + Send + 'static,
    ) -> Routes {
        let (finder, found) = mpsc::channel();
        Routes {
            map,
            routes: Vec::new(),
            news: Vec::new(),
            orders: Orders::default(),
            has_moved: false,
            has_unread: false,
            found,
            finder,
            wake: Box::new(wake),
        }
    }

    /// Whether none is open or being opened.
    pub(in crate::host) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Collects what happened; with `read`, what the sockets have as well.
    pub(in crate::host) fn listen(&mut self, read: bool) {
        while let Ok((id, found)) = self.found.try_recv() {
            self.found(id, found);
        }
        self.has_unread &= !read;
        let Routes { map, routes, news, has_unread, .. } = self;
        routes.retain_mut(|route| {
            let Some(port) = &mut route.port else { return true };
            if read {
                *has_unread |= port.receive();
            }
            let mut end = None;
            while let Some(event) = port.poll_event() {
                match event {
                    PortEvent::Connected(id, _) => {
                        route.untried.clear();
                        route.patience = None;
                        news.push((id, RouteNews::Connected));
                    }
                    PortEvent::Readable(id) => {
                        while let Some(message) = port.read(id) {
                            news.push((id, RouteNews::Message(message)));
                        }
                    }
                    PortEvent::TurnedAway(..) | PortEvent::Unaccepted(..) => {} // of a leader's port
                    PortEvent::Ended(_, ended) => end = Some(ended),
                }
            }
            if end.is_some() {
                // The leader hears why, and does not wait for the rest of a handshake.
                port.transmit();
            }
            if route.patience.is_some_and(|at| at <= Instant::now()) {
                end.get_or_insert_with(|| Ended::Disconnected("no answer in time".into()));
            }
            match end {
                None => true,
                Some(end) => route.next_address(end, map, news),
            }
        });
    }

    /// Whether a socket may have had more than was read at the last time.
    pub(in crate::host) fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Whether anything is collected that the client was not told.
    pub(in crate::host) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Whether anything was told or ordered since this was last asked.
    pub(in crate::host) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Tells the client what was collected.
    pub(in crate::host) fn tell(&mut self, client: &mut Client, now: Time) {
        self.has_moved |= self.has_news();
        for (id, news) in self.news.drain(..) {
            match news {
                RouteNews::Connected => {
                    // What its report may say, by the credential that its file had at the connecting.
                    client.change_rights(self.map.keys.rights(), now);
                    client.handle_connected(id, now);
                }
                RouteNews::Message(message) => {
                    let hint = hint_in(&message, &self.map);
                    client.handle_message(id, message, now);
                    if let Some(address) = hint {
                        client.handle_hint(address, now);
                    }
                }
                RouteNews::Ended(ended) => client.handle_ended(id, ended, now),
            }
        }
    }

    /// Takes what the client wants done.
    pub(in crate::host) fn take_orders(&mut self, client: &mut Client, now: Time) {
        let Orders { connects, messages, closes } = &mut self.orders;
        messages.extend(std::iter::from_fn(|| client.poll_message(now)));
        closes.extend(std::iter::from_fn(|| client.poll_close()));
        connects.extend(std::iter::from_fn(|| client.poll_connect()));
        self.has_moved |= !(connects.is_empty() && messages.is_empty() && closes.is_empty());
    }

    /// Does it, and sends everything that is ready.
    pub(in crate::host) fn obey(&mut self) {
        let mut orders = std::mem::take(&mut self.orders);
        for (id, message) in orders.messages.drain(..) {
            if let Some(port) = self.port(id) {
                port.write(id, &message);
            }
        }
        for id in orders.closes.drain(..) {
            if let Some(at) = self.routes.iter().position(|route| route.id == id)
                && let Some(mut port) = self.routes.swap_remove(at).port
            {
                port.close(id, CloseCode::Done, "not needed any more");
                port.transmit();
            }
        }
        for (id, index) in orders.connects.drain(..) {
            let address = self.map.addresses[index].clone();
            self.routes.push(Route { id, port: None, untried: Vec::new(), patience: None });
            match address.literal() {
                Some(literal) => self.found(id, Ok(vec![literal])),
                None => self.look_up(id, address),
            }
        }
        self.orders = orders;
        for port in self.routes.iter_mut().filter_map(|route| route.port.as_mut()) {
            port.transmit();
        }
    }

    /// What to sleep on, and whether for room to write as well.
    pub(in crate::host) fn sockets(&self, sockets: &mut Vec<(Arc<UdpSocket>, bool)>) {
        sockets.clear();
        let ports = self.routes.iter().filter_map(|route| route.port.as_ref());
        sockets.extend(ports.map(|port| (port.socket().clone(), port.is_blocked())));
    }

    /// How long to sleep at most, as far as the routes are concerned.
    pub(in crate::host) fn limit(&mut self) -> Duration {
        let now = Instant::now();
        let timeouts = self.routes.iter_mut().flat_map(|route| {
            [route.port.as_mut().and_then(Port::timeout), route.patience].into_iter().flatten()
        });
        let limits = timeouts.map(|at| at.saturating_duration_since(now));
        limits.min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    /// Closes everything that is open.
    pub(in crate::host) fn close(&mut self) {
        for port in self.routes.iter_mut().filter_map(|route| route.port.as_mut()) {
            port.close_all(CloseCode::Done, "not needed any more");
            port.transmit();
        }
        self.routes.clear();
    }

    fn port(&mut self, id: ConnectionId) -> Option<&mut Port> {
        self.routes.iter_mut().find(|route| route.id == id)?.port.as_mut()
    }

    /// The system's resolver takes its time; renewals over other connections do not wait for it.
    fn look_up(&mut self, id: ConnectionId, address: Address) {
        let (finder, wake) = (self.finder.clone(), (self.wake)());
        let spawned = thread::Builder::new().name("tierlock-lookup".into()).spawn(move || {
            let found = address.resolve();
            let found = found.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot look up {address}: {error}"))
            });
            let _ = finder.send((id, found));
            wake();
        });
        if let Err(error) = spawned {
            self.found(id, Err(error));
        }
    }

    fn found(&mut self, id: ConnectionId, found: io::Result<Vec<SocketAddr>>) {
        let Some(at) = self.routes.iter().position(|route| route.id == id) else { return };
        let end = match found {
            Ok(mut addresses) => {
                addresses.reverse();
                self.routes[at].untried = addresses;
                "the name has no address".to_owned()
            }
            Err(error) => error.to_string(),
        };
        let end = Ended::Disconnected(end);
        if !self.routes[at].next_address(end, &mut self.map, &mut self.news) {
            self.routes.swap_remove(at);
        }
    }
}

/// Which of the addresses a leader that does not reign says to try. Others are none of ours: a
/// manager goes to no address that it was not given.
fn hint_in(message: &LeaderMessage, map: &Map) -> Option<usize> {
    let LeaderMessage::NotLeader { try_next: Some(hint), .. } = message else { return None };
    let hint: Address = hint.parse().ok()?;
    map.addresses.iter().position(|address| *address == hint)
}

impl Route {
    /// Tries the next address, or reports `end` if there is none; whether the route goes on.
    fn next_address(
        &mut self,
        mut end: Ended,
        map: &mut Map,
        news: &mut Vec<(ConnectionId, RouteNews)>,
    ) -> bool {
        self.port = None;
        while matches!(end, Ended::Disconnected(_) | Ended::NotThere(_))
            && let Some(address) = self.untried.pop()
        {
            // The file may have another secret by now, while the leader exchanges its own.
            map.keys.refresh();
            match Port::connect(self.id, address, &map.keys, map.silence) {
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
        news.push((self.id, RouteNews::Ended(end)));
        false
    }
}
