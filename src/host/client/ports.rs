//! The ports of a process's clients: one to each leader's address, whichever managers go there.
//!
//! So what many managers send at one time leaves together, and is received together.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    host::net::{
        bell::Slept,
        client_keys::ClientKeys,
        quic::{CloseCode, Port, PortEvent},
    },
    proto::{
        ConnectionId,
        numbered::Numbered,
        wire::{ClientMessage, LeaderMessage},
    },
};

/// Which link a connection is of.
pub(super) type LinkKey = u64;

#[derive(Default)]
pub(super) struct Ports {
    ports: Vec<LeaderPort>,
    /// Connections that a link is interested in.
    users: Numbered<ConnectionId, PortUser>,
    /// The last number of a connection or a port.
    last: u64,
    has_unread: bool,
}

/// A port to one leader.
struct LeaderPort {
    number: u64,
    remote: SocketAddr,
    port: Port,
    /// How many connections links are interested in.
    users: usize,
    heard_at: Instant,
    /// One of its connections has ended otherwise than by its link.
    is_stale: bool,
}

struct PortUser {
    link: LinkKey,
    port: u64,
}

/// A port that hears nothing for longer takes no more connections: several times what a connection that
/// stands is silent for, which asks for a sign of life three times in at most 10 s.
const HEARD_WITHIN: Duration = Duration::from_secs(4);

impl LeaderPort {
    /// Whether one more connection is to go over it. Perhaps this machine is in another network by now, and
    /// nothing comes to this port any more: links that try again in turn would keep it for ever.
    fn takes(&self, remote: SocketAddr) -> bool {
        self.remote == remote && !self.is_stale && self.heard_at.elapsed() < HEARD_WITHIN
    }
}

const NOT_NEEDED: &str = "not needed any more";

impl Ports {
    /// Begins a connection of this link.
    pub(super) fn connect(
        &mut self,
        link: LinkKey,
        remote: SocketAddr,
        keys: &ClientKeys,
        silence: Duration,
    ) -> io::Result<ConnectionId> {
        self.last += 1;
        let (number, id) = (self.last, ConnectionId(self.last));
        let known = self.ports.iter_mut().find(|port| port.takes(remote));
        let port = match known {
            Some(known) => {
                known.port.begin(id, remote, keys, silence)?;
                known.users += 1;
                known.number
            }
            None => {
                let port = Port::connect(id, remote, keys, silence)?;
                let heard_at = Instant::now();
                let port = LeaderPort { number, remote, port, users: 1, heard_at, is_stale: false };
                self.ports.push(port);
                number
            }
        };
        self.users.insert(id, PortUser { link, port });
        Ok(id)
    }

    /// Reads what the sockets have; whether anything happened. That a leader's address is refused is said
    /// in the place of a datagram, and once.
    pub(super) fn receive(&mut self) -> bool {
        let mut has_news = false;
        self.has_unread = false;
        for LeaderPort { port, heard_at, .. } in &mut self.ports {
            self.has_unread |= port.receive();
            if port.has_heard() {
                *heard_at = Instant::now();
            }
            has_news |= port.has_news();
        }
        has_news
    }

    /// Whether a socket may have had more than was read at the last time.
    pub(super) fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// The next thing that happened on a connection that its link is interested in.
    pub(super) fn poll_event(&mut self) -> Option<(LinkKey, ConnectionId, PortEvent)> {
        for LeaderPort { port, users, is_stale, .. } in &mut self.ports {
            while let Some(event) = port.poll_event() {
                let id = match event {
                    PortEvent::Connected(id, _) | PortEvent::Readable(id) => id,
                    PortEvent::Ended(id, _) => id,
                    PortEvent::TurnedAway(..) | PortEvent::Unaccepted(..) => continue, // of a leader's port
                };
                let is_end = matches!(event, PortEvent::Ended(..));
                let Some(user) = self.users.get(&id) else {
                    if is_end {
                        port.forget(id);
                    }
                    continue;
                };
                let link = user.link;
                if is_end {
                    self.users.remove(&id);
                    *users -= 1;
                    *is_stale = true;
                    port.forget(id);
                }
                return Some((link, id, event));
            }
        }
        None
    }

    /// The next message of a connection, if a whole one is here.
    pub(super) fn read(&mut self, id: ConnectionId) -> Option<LeaderMessage> {
        self.port_of(id)?.port.read(id)
    }

    /// Queues a message for the next [`transmit`](Ports::transmit).
    pub(super) fn write(&mut self, id: ConnectionId, message: &ClientMessage) {
        if let Some(LeaderPort { port, .. }) = self.port_of(id) {
            port.write(id, message);
        }
    }

    /// Sends what was written and closes the connection; no end of it is reported.
    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(LeaderPort { port, users, .. }) = self.port_of(id) {
            port.close(id, CloseCode::Done, NOT_NEEDED);
            *users -= 1;
        }
        self.users.remove(&id);
    }

    /// Sends everything that is ready, and closes the ports that no link needs.
    pub(super) fn transmit(&mut self) {
        self.ports.iter_mut().for_each(|LeaderPort { port, .. }| port.transmit());
        // The last word of each connection has left.
        self.ports.retain(|port| port.users > 0);
    }

    /// When [`transmit`](Ports::transmit) is next due without anything having happened.
    pub(super) fn timeout(&mut self) -> Option<Instant> {
        self.ports.iter_mut().filter_map(|LeaderPort { port, .. }| port.timeout()).min()
    }

    /// Adds what to sleep on.
    pub(super) fn sockets(&self, sockets: &mut Vec<Slept>) {
        let slept =
            |LeaderPort { port, .. }: &LeaderPort| (port.socket().clone(), port.is_blocked());
        sockets.extend(self.ports.iter().map(slept));
    }

    fn port_of(&mut self, id: ConnectionId) -> Option<&mut LeaderPort> {
        let number = self.users.get(&id)?.port;
        self.ports.iter_mut().find(|port| port.number == number)
    }
}

#[cfg(test)]
mod tests;
