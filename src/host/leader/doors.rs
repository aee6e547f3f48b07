//! A leader's ports, one for each address that it listens at, as if they were one.

use std::{io, mem, net::SocketAddr, time::Instant};

use rustix::io::Errno;

use crate::{
    host::net::{
        acceptance::Acceptance,
        bell::Slept,
        quic::{CloseCode, Entrance, Ids, Port, PortEvent},
    },
    proto::{ConnectionId, wire::Message},
};

/// How often a port number that the system chose is tried at the other addresses.
const CHOICES: usize = 16;

pub(super) struct Doors {
    /// At least one.
    ports: Vec<Port>,
    /// A connection's number, divided by this, leaves the index of its port.
    step: u64,
    /// All that had come was read while it was waited for.
    is_heard: bool,
}

impl Doors {
    /// Listens at all of these addresses that this machine has. Where port 0 is asked for, all get
    /// the same that is free.
    pub(super) fn open(addresses: &[SocketAddr], entrance: &Entrance) -> io::Result<Doors> {
        let chooses = addresses.iter().any(|address| address.port() == 0);
        let mut tries = if chooses { CHOICES } else { 1 };
        loop {
            tries -= 1;
            match Doors::open_once(addresses, entrance) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                opened => return opened,
            }
        }
    }

    fn open_once(addresses: &[SocketAddr], entrance: &Entrance) -> io::Result<Doors> {
        let step = addresses.len() as u64;
        let mut ports: Vec<Port> = Vec::new();
        let mut elsewhere = None;
        for address in addresses {
            let mut address = *address;
            if let (0, Some(first)) = (address.port(), ports.first()) {
                address.set_port(first.socket().local_addr()?.port());
            }
            let ids = Ids { next: ports.len() as u64, step };
            match Port::listen(address, entrance, ids) {
                Ok(port) => ports.push(port),
                Err(error) if is_elsewhere(&error) => elsewhere = Some(error),
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{address}: {error}")));
                }
            }
        }
        match elsewhere {
            Some(error) if ports.is_empty() => Err(error),
            _ => Ok(Doors { ports, step, is_heard: false }),
        }
    }

    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.ports.iter().map(|port| port.socket().local_addr()).collect()
    }

    /// Reads what has come, unless that was [heard](Doors::hear) just now.
    pub(super) fn receive(&mut self) {
        if !mem::take(&mut self.is_heard) {
            for port in &mut self.ports {
                port.receive();
            }
        }
    }

    /// Reads what has come; whether anything has.
    pub(super) fn hear(&mut self) -> bool {
        let (mut has_heard, mut has_more) = (false, false);
        for port in &mut self.ports {
            has_more |= port.receive();
            has_heard |= port.has_heard();
        }
        self.is_heard = has_heard && !has_more;
        has_heard
    }

    pub(super) fn poll_event(&mut self) -> Option<PortEvent> {
        self.ports.iter_mut().find_map(Port::poll_event)
    }

    /// See [`Port::poll_member_event`].
    pub(super) fn poll_member_event(&mut self) -> Option<PortEvent> {
        self.ports.iter_mut().find_map(Port::poll_member_event)
    }

    pub(super) fn read<M: Message>(&mut self, id: ConnectionId) -> Option<M> {
        self.port_of(id).read(id)
    }

    pub(super) fn write<M: Message>(&mut self, id: ConnectionId, message: &M) {
        self.port_of(id).write(id, message);
    }

    pub(super) fn unsent(&self, id: ConnectionId) -> usize {
        self.ports[self.index_of(id)].unsent(id)
    }

    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.port_of(id).forget(id);
    }

    pub(super) fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        self.port_of(id).close(id, code, reason);
    }

    pub(super) fn close_all(&mut self, code: CloseCode, reason: &str) {
        self.ports.iter_mut().for_each(|port| port.close_all(code, reason));
    }

    /// See [`Port::close_clients`].
    pub(super) fn close_clients(&mut self, code: CloseCode, reason: &str) {
        self.ports.iter_mut().for_each(|port| port.close_clients(code, reason));
    }

    /// See [`Port::accept_credentials`].
    pub(super) fn accept(&mut self, accepted: &Acceptance) {
        self.ports.iter_mut().for_each(|port| port.accept_credentials(accepted.clone()));
    }

    pub(super) fn transmit(&mut self) {
        self.ports.iter_mut().for_each(Port::transmit);
    }

    pub(super) fn timeout(&mut self) -> Option<Instant> {
        self.ports.iter_mut().filter_map(Port::timeout).min()
    }

    /// What to sleep on.
    pub(super) fn sockets(&self, sockets: &mut Vec<Slept>) {
        sockets.clear();
        sockets.extend(self.ports.iter().map(|port| (port.socket().clone(), port.is_blocked())));
    }

    fn index_of(&self, id: ConnectionId) -> usize {
        (id.0 % self.step) as usize
    }

    fn port_of(&mut self, id: ConnectionId) -> &mut Port {
        let index = self.index_of(id);
        &mut self.ports[index]
    }
}

/// Whether it is an address of another machine, or of a kind that this one has none of: a name may
/// have such addresses besides ours.
fn is_elsewhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests;
