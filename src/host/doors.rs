//! A leader's ports, one for each address that it listens at, as if they were one.

use std::{io, net::SocketAddr, time::Instant};

use rustix::io::Errno;

use super::{
    bell::Slept,
    quic::{CloseCode, Entrance, Event, Ids, Port},
    tls::Secret,
};
use crate::proto::{ConnectionId, wire::Message};

/// How often a port number that the system chose is tried at the other addresses.
const CHOICES: usize = 16;

pub(super) struct Doors {
    /// At least one.
    ports: Vec<Port>,
    /// A connection's number, divided by this, leaves the index of its port.
    step: u64,
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
            _ => Ok(Doors { ports, step }),
        }
    }

    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.ports.iter().map(|port| port.socket().local_addr()).collect()
    }

    pub(super) fn receive(&mut self) {
        for port in &mut self.ports {
            port.receive();
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.ports.iter_mut().find_map(Port::poll_event)
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

    /// See [`Port::accept_secret`].
    pub(super) fn accept_secret(&mut self, secret: &Secret) {
        self.ports.iter_mut().for_each(|port| port.accept_secret(secret));
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
mod tests {
    use std::{collections::BTreeSet, net::UdpSocket, time::Duration};

    use super::{
        super::{admission::Admission, own_id::OwnId},
        *,
    };

    fn entrance() -> Entrance {
        let secret = Secret::from_secrets(&[[1; 32]]);
        Entrance { secret, own: OwnId::random(), admission: Admission::new(100, 100) }
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_leader_is_reached_at_every_address_of_its_name_under_one_port_number() {
        let entrance = entrance();
        // The second is of a network for documentation: no machine has it.
        let all = addresses(&["127.0.0.1:0", "192.0.2.1:0", "127.0.0.2:0"]);
        let mut doors = Doors::open(&all, &entrance).unwrap();
        let opened = doors.addresses().unwrap();
        let port = opened[0].port();
        assert_ne!(port, 0);
        let expected = ["127.0.0.1", "127.0.0.2"].map(|host| format!("{host}:{port}"));
        assert_eq!(opened, addresses(&[&expected[0], &expected[1]]));
        let connect = |number: usize, address| {
            let id = ConnectionId(number as u64);
            Port::connect(id, address, &entrance.secret, Duration::from_secs(30)).unwrap()
        };
        let mut clients: Vec<_> = (0..4).map(|n| connect(n, opened[n % 2])).collect();
        let mut connected = BTreeSet::new();
        let begin = Instant::now();
        while connected.len() < clients.len() {
            assert!(begin.elapsed() < Duration::from_secs(30), "{connected:?}");
            doors.receive();
            while let Some(event) = doors.poll_event() {
                let Event::Connected(id, _) = event else { panic!("{event:?}") };
                assert!(connected.insert(id), "{id:?} is a number of two");
                // Each port knows its own.
                assert!(
                    doors.unsent(id) == 0
                        && doors.read::<crate::proto::wire::ClientMessage>(id).is_none()
                );
            }
            doors.transmit();
            for client in &mut clients {
                client.receive();
                client.transmit();
            }
        }
        assert_eq!(connected.iter().map(|id| id.0 % 3).collect::<BTreeSet<_>>(), [0, 1].into());
    }

    #[test]
    fn an_address_that_is_in_use_or_nowhere_is_an_error() {
        let entrance = entrance();
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        let error = Doors::open(&[taken], &entrance).map(drop).unwrap_err();
        assert!(error.kind() == io::ErrorKind::AddrInUse, "{error}");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        let error = Doors::open(&addresses(&["192.0.2.1:0"]), &entrance).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
