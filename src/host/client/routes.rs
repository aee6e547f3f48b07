//! The connections of one client: tried address by address, read, written, closed.
//!
//! It decides nothing: the protocol client orders connections, messages and closes, and is told
//! what happened. It sleeps on nothing. The system's resolver and the disk of a secret file take the time
//! that they take: a thread for each connection that is opened waits for them, and nothing else does.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::ports::{LinkKey, Ports};
use crate::{
    host::net::{address::Address, bell::LONGEST_SLEEP, client_keys::ClientKeys, quic::PortEvent},
    proto::{
        ConnectionId,
        client::{Client, Ended},
        rights::Rights,
        wire::{ClientMessage, LeaderMessage},
    },
    time::Time,
};

/// How long one address of a name that has several may take before the next one is tried, and the reading
/// of the secret file before it is tried with what that had before.
const NEXT_ADDRESS: Duration = Duration::from_millis(500);
/// So many threads of one client may wait for a secret file: its disk may have gone.
const READINGS_MAX: usize = 8;

/// Where a client's connections go, and how.
pub(in crate::host) struct Map {
    pub(in crate::host) addresses: Vec<Address>,
    pub(in crate::host) keys: ClientKeys,
    /// How long a connection may be silent.
    pub(in crate::host) silence: Duration,
}

pub(in crate::host) struct Routes {
    map: Map,
    link: LinkKey,
    routes: Vec<Route>,
    /// What happened and was not told to the client yet.
    news: Vec<(ConnectionId, RouteNews)>,
    orders: Orders,
    has_moved: bool,
    /// What the threads have found that open connections.
    found: mpsc::Receiver<(ConnectionId, FoundOut)>,
    finder: mpsc::Sender<(ConnectionId, FoundOut)>,
    /// How many of them read the secret file.
    readings: usize,
    /// Makes what such a thread calls once it has found it.
    wake: Box<dyn Fn() -> Box<dyn FnOnce() + Send> + Send>,
}

/// What a connection needs to be opened.
enum FoundOut {
    /// Where it goes. With `reads` it waits for the keys.
    Addresses { addresses: io::Result<Vec<SocketAddr>>, reads: bool },
    /// What the secret file has by now, if it could be read.
    Keys(Option<ClientKeys>),
}

enum RouteNews {
    /// With keys that permit this.
    Connected(Arc<Rights>),
    Message(LeaderMessage),
    Ended(Ended),
}

/// A connection of the client: made, or being made to one of a name's addresses.
struct Route {
    id: ConnectionId,
    /// Its number among the ports' connections, once it has one.
    at: Option<ConnectionId>,
    /// A thread finds out what it needs to be opened.
    is_opening: bool,
    /// Of the keys that were presented.
    rights: Arc<Rights>,
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
    /// No routes yet. `wake` makes what a thread calls once it has found how to open one.
    pub(in crate::host) fn new(
        map: Map,
        wake: impl Fn() -> Box<dyn FnOnce() + Send> + Send + 'static,
    ) -> Routes {
        let (finder, found) = mpsc::channel();
        Routes {
            map,
            link: 0,
            routes: Vec::new(),
            news: Vec::new(),
            orders: Orders::default(),
            has_moved: false,
            found,
            finder,
            readings: 0,
            wake: Box::new(wake),
        }
    }

    /// Whether none is open or being opened.
    pub(in crate::host) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The ports take its connections for those of this link.
    pub(super) fn are_of(&mut self, link: LinkKey) {
        self.link = link;
    }

    /// Collects what happened on a connection.
    pub(super) fn hear(&mut self, at: ConnectionId, event: PortEvent, ports: &mut Ports) {
        let Some(index) = self.routes.iter().position(|route| route.at == Some(at)) else { return };
        let route = &mut self.routes[index];
        match event {
            PortEvent::Connected(..) => {
                route.untried.clear();
                route.patience = None;
                self.news.push((route.id, RouteNews::Connected(route.rights.clone())));
            }
            PortEvent::Readable(_) => {
                while let Some(message) = ports.read(at) {
                    self.news.push((route.id, RouteNews::Message(message)));
                }
            }
            PortEvent::TurnedAway(..) | PortEvent::Unaccepted(..) => {} // of a leader's port
            PortEvent::Ended(_, ended) => self.go_on(index, ended, ports),
        }
    }

    /// Collects what was found out, and gives up the addresses that take too long.
    pub(super) fn listen(&mut self, ports: &mut Ports) {
        while let Ok((id, found)) = self.found.try_recv() {
            self.found(id, found, ports);
        }
        if self.routes.iter().all(|route| route.patience.is_none()) {
            return;
        }
        let now = Instant::now();
        let is_late = |route: &Route| route.patience.is_some_and(|at| at <= now);
        while let Some(index) = self.routes.iter().position(is_late) {
            if let Some(at) = self.routes[index].at.take() {
                ports.close(at);
            }
            self.go_on(index, Ended::Disconnected("no answer in time".into()), ports);
        }
    }

    /// Tries the next address of a route, or reports its end.
    fn go_on(&mut self, index: usize, ended: Ended, ports: &mut Ports) {
        let Routes { map, link, routes, news, .. } = self;
        if !routes[index].next_address(ended, (&*map, *link), news, ports) {
            routes.swap_remove(index);
        }
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
                RouteNews::Connected(rights) => {
                    // What its report may say, by the credential that its file had at the connecting.
                    client.change_rights(rights, now);
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

    /// Does it; what is to be sent leaves with the ports' next transmission.
    pub(super) fn obey(&mut self, ports: &mut Ports) {
        let mut orders = std::mem::take(&mut self.orders);
        for (id, message) in orders.messages.drain(..) {
            let route = self.routes.iter().find(|route| route.id == id);
            if let Some(at) = route.and_then(|route| route.at) {
                ports.write(at, &message);
            }
        }
        for id in orders.closes.drain(..) {
            if let Some(index) = self.routes.iter().position(|route| route.id == id)
                && let Some(at) = self.routes.swap_remove(index).at
            {
                ports.close(at);
            }
        }
        for (id, index) in orders.connects.drain(..) {
            let address = self.map.addresses[index].clone();
            self.open(id, address, ports);
        }
        self.orders = orders;
    }

    /// How long to sleep at most, as far as the next address is concerned.
    pub(super) fn limit(&self) -> Duration {
        let next = self.routes.iter().filter_map(|route| route.patience).min();
        next.map_or(LONGEST_SLEEP, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Closes everything that is open.
    pub(super) fn close(&mut self, ports: &mut Ports) {
        self.routes.drain(..).filter_map(|route| route.at).for_each(|at| ports.close(at));
    }

    /// Opens a connection, once a thread has found out what that needs if it takes one.
    fn open(&mut self, id: ConnectionId, address: Address, ports: &mut Ports) {
        let (literal, rights) = (address.literal(), self.map.keys.rights());
        let untried = Vec::new();
        self.routes.push(Route { id, at: None, is_opening: true, rights, untried, patience: None });
        let known = |literal| FoundOut::Addresses { addresses: Ok(vec![literal]), reads: false };
        // The file may have another secret by now, while the leader exchanges its own.
        let reads = self.map.keys.file().is_some() && self.readings < READINGS_MAX;
        if let Some(literal) = literal.filter(|_| !reads) {
            return self.found(id, known(literal), ports);
        }
        let (finder, wake) = (self.finder.clone(), (self.wake)());
        let keys = reads.then(|| self.map.keys.clone());
        let spawned = thread::Builder::new().name("tierlock-opening".into()).spawn(move || {
            let addresses = address.resolve().map_err(|error| {
                io::Error::new(error.kind(), format!("cannot look up {address}: {error}"))
            });
            let _ = finder.send((id, FoundOut::Addresses { addresses, reads }));
            if let Some(keys) = keys {
                // Whatever has become of the disk, the addresses are known by now.
                let _ = finder.send((id, FoundOut::Keys(keys.read_again())));
            }
            wake();
        });
        match (spawned, literal) {
            (Ok(_), _) => self.readings += usize::from(reads),
            (Err(_), Some(literal)) => self.found(id, known(literal), ports),
            (Err(error), None) => {
                let addresses = Err(error);
                self.found(id, FoundOut::Addresses { addresses, reads: false }, ports);
            }
        }
    }

    fn found(&mut self, id: ConnectionId, found: FoundOut, ports: &mut Ports) {
        let is_it = |route: &Route| route.id == id && route.is_opening;
        let index = self.routes.iter().position(is_it);
        let end = match found {
            FoundOut::Addresses { addresses: Ok(addresses), reads } => {
                let Some(index) = index else { return };
                let route = &mut self.routes[index];
                route.untried = addresses;
                route.untried.reverse();
                if reads {
                    route.patience = Some(Instant::now() + NEXT_ADDRESS);
                    return;
                }
                "the name has no address".to_owned()
            }
            FoundOut::Addresses { addresses: Err(error), .. } => error.to_string(),
            FoundOut::Keys(keys) => {
                self.readings -= 1;
                if let Some(keys) = keys {
                    self.map.keys = keys;
                }
                "the name has no address".to_owned()
            }
        };
        if let Some(index) = index {
            self.go_on(index, Ended::Disconnected(end), ports);
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
        (map, link): (&Map, LinkKey),
        news: &mut Vec<(ConnectionId, RouteNews)>,
        ports: &mut Ports,
    ) -> bool {
        (self.at, self.is_opening, self.patience) = (None, false, None);
        while matches!(end, Ended::Disconnected(_) | Ended::NotThere(_))
            && let Some(address) = self.untried.pop()
        {
            match ports.connect(link, address, &map.keys, map.silence) {
                Ok(at) => {
                    (self.at, self.rights) = (Some(at), map.keys.rights());
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
