//! Which connections a leader admits: there is a bounded number of them, and one client alone never
//! takes all.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::proto::{ClientId, shares::Shares};

/// From so many handshakes under way on a leader has clients prove their address before it spends
/// memory on them.
const HANDSHAKES_TRUSTED: usize = 64;

/// What the ports of one leader admit together.
#[derive(Clone)]
pub(super) struct Admission(Arc<Mutex<Rooms>>);

struct Rooms {
    connections: Shares,
    handshakes: Shares,
}

/// A connection that was admitted. It counts as long as this lives.
pub(super) struct Admitted {
    admission: Admission,
    client: ClientId,
    is_handshaking: bool,
}

impl Admission {
    pub(super) fn new(connections_max: usize, handshakes_max: usize) -> Admission {
        let (connections, handshakes) = (Shares::new(connections_max), Shares::new(handshakes_max));
        Admission(Arc::new(Mutex::new(Rooms { connections, handshakes })))
    }

    /// Whether one more connection of this client may begin.
    pub(super) fn admits(&self, client: ClientId) -> bool {
        let rooms = self.0.lock();
        rooms.connections.has_room_for(client) && rooms.handshakes.has_room_for(client)
    }

    /// Whether an address is believed that may be forged.
    pub(super) fn trusts_addresses(&self) -> bool {
        self.0.lock().handshakes.taken() < HANDSHAKES_TRUSTED
    }

    /// A connection of this client begins, with its handshake.
    pub(super) fn admit(&self, client: ClientId) -> Admitted {
        let mut rooms = self.0.lock();
        rooms.connections.take(client);
        rooms.handshakes.take(client);
        Admitted { admission: self.clone(), client, is_handshaking: true }
    }

    /// How many connections there are, and how many of them are in their handshake.
    #[cfg(test)]
    pub(super) fn taken(&self) -> (usize, usize) {
        let rooms = self.0.lock();
        (rooms.connections.taken(), rooms.handshakes.taken())
    }
}

impl Admitted {
    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.is_handshaking
    }

    /// Counts its handshake out, once; whether it was still under way.
    pub(super) fn end_handshake(&mut self) -> bool {
        if self.is_handshaking {
            self.admission.0.lock().handshakes.give_back(self.client);
        }
        std::mem::take(&mut self.is_handshaking)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.end_handshake();
        self.admission.0.lock().connections.give_back(self.client);
    }
}

/// What counts as one client while one secret serves all: an address, or with IPv6 the network that
/// a machine is given.
pub(super) fn client_at(remote: SocketAddr) -> ClientId {
    let bits = match remote.ip().to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << 64),
    };
    ClientId(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> ClientId {
        client_at(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_ipv6() {
        assert_eq!(at("192.0.2.1:7420"), at("192.0.2.1:7"));
        assert_ne!(at("192.0.2.1:7420"), at("192.0.2.2:7420"));
        assert_eq!(at("[2001:db8::1]:1"), at("[2001:db8::2]:9"));
        assert_ne!(at("[2001:db8::1]:1"), at("[2001:db8:0:1::1]:1"));
        assert_eq!(at("[::ffff:192.0.2.1]:1"), at("192.0.2.1:7420"));
    }

    /// As many as are admitted of a client.
    fn fill(admission: &Admission, client: ClientId) -> Vec<Admitted> {
        let mut all = Vec::new();
        while admission.admits(client) {
            all.push(admission.admit(client));
        }
        all
    }

    #[test]
    fn one_client_takes_half_of_what_is_free_and_the_next_half_of_the_rest() {
        let admission = Admission::new(100, 100);
        let [one, other, third] = ["127.0.0.2:1", "127.0.0.3:1", "127.0.0.4:1"].map(at);
        let of_one = fill(&admission, one);
        let of_other = fill(&admission, other);
        assert_eq!((of_one.len(), of_other.len()), (50, 25));
        assert!(admission.admits(third));
        assert_eq!(admission.taken(), (75, 75));
        drop(of_one);
        assert!(admission.admits(one) && admission.admits(other));
        drop(of_other);
        assert_eq!(admission.taken(), (0, 0));
    }

    #[test]
    fn handshakes_and_connections_are_limited_apart() {
        let admission = Admission::new(100, 8);
        let client = at("127.0.0.2:1");
        let mut stalled = fill(&admission, client);
        assert_eq!(stalled.len(), 4);
        assert!(stalled[0].end_handshake() && !stalled[0].end_handshake());
        assert_eq!(admission.taken(), (4, 3));
        assert_eq!(fill(&admission, client).len(), 1);
    }
}
