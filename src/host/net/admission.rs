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
pub(in crate::host) struct Admission(Arc<Mutex<Rooms>>);

struct Rooms {
    connections: Shares,
    handshakes: Shares,
}

/// A connection that was admitted. It counts as long as this lives.
pub(in crate::host) struct Admitted {
    admission: Admission,
    client: ClientId,
    is_handshaking: bool,
}

impl Admission {
    pub(in crate::host) fn new(connections_max: usize, handshakes_max: usize) -> Admission {
        let (connections, handshakes) = (Shares::new(connections_max), Shares::new(handshakes_max));
        Admission(Arc::new(Mutex::new(Rooms { connections, handshakes })))
    }

    /// Whether one more connection of this client may begin.
    pub(in crate::host) fn admits(&self, client: ClientId) -> bool {
        let rooms = self.0.lock();
        rooms.connections.has_room_for(client) && rooms.handshakes.has_room_for(client)
    }

    /// Whether an address is believed that may be forged.
    pub(in crate::host) fn trusts_addresses(&self) -> bool {
        self.0.lock().handshakes.taken() < HANDSHAKES_TRUSTED
    }

    /// A connection of this client begins, with its handshake.
    pub(in crate::host) fn admit(&self, client: ClientId) -> Admitted {
        let mut rooms = self.0.lock();
        rooms.connections.take(client);
        rooms.handshakes.take(client);
        Admitted { admission: self.clone(), client, is_handshaking: true }
    }

    /// How many connections there are, and how many of them are in their handshake.
    #[cfg(test)]
    pub(in crate::host) fn taken(&self) -> (usize, usize) {
        let rooms = self.0.lock();
        (rooms.connections.taken(), rooms.handshakes.taken())
    }
}

impl Admitted {
    pub(in crate::host) fn client(&self) -> ClientId {
        self.client
    }

    /// Its handshake is over, and from now on it counts as this client's, if there is room for one more
    /// of that.
    pub(in crate::host) fn count_as(&mut self, client: ClientId) -> bool {
        // It was counted with the client of before.
        self.end_handshake();
        let mut rooms = self.admission.0.lock();
        // It is not counted beside itself.
        rooms.connections.give_back(self.client);
        let has_room = rooms.connections.has_room_for(client);
        if has_room {
            self.client = client;
        }
        rooms.connections.take(self.client);
        has_room
    }

    pub(in crate::host) fn is_handshaking(&self) -> bool {
        self.is_handshaking
    }

    /// Counts its handshake out, once; whether it was still under way.
    pub(in crate::host) fn end_handshake(&mut self) -> bool {
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

/// What counts as one client before it has shown a credential of its own: an address, or with IPv6 the network that
/// a machine is given.
pub(in crate::host) fn client_at(remote: SocketAddr) -> ClientId {
    let bits = match remote.ip().to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << 64),
    };
    ClientId(bits)
}

#[cfg(test)]
mod tests;
