//! The network: connections that carry bytes in order, or lose them from some point on.

use std::collections::VecDeque;

use tierlock::proto::ConnectionId;

use crate::clock::Truth;

/// One attempt of a client's to reach the leader, and the connection that it may become.
pub(crate) struct Wire {
    pub(crate) client: usize,
    /// Which life of that client made it.
    pub(crate) life: u32,
    /// As that client numbers it; the leader numbers it by its index.
    pub(crate) number: ConnectionId,
    /// The leader's seat that it goes to.
    pub(crate) seat: usize,
    /// The reign that accepted it. Packets of another's connections mean nothing to a leader.
    pub(crate) reign: Option<u32>,
    /// How long its client tries before the network says that nothing is there.
    pub(crate) tried_until: Truth,
    /// The first words on it take a detour.
    pub(crate) strays: bool,
    pub(crate) to_leader: Direction,
    pub(crate) to_client: Direction,
}

/// One direction: bytes arrive in order, in pieces.
pub(crate) struct Direction {
    under_way: VecDeque<(Truth, Piece)>,
    last: Truth,
    /// What would arrive later is lost.
    cut: Truth,
    /// Nothing arrives before this: a silent network.
    held: Truth,
    /// The receiver has heard, or shall never hear, of the end.
    ended: bool,
}

pub(crate) enum Piece {
    /// The handshake is done.
    Opened,
    Bytes(Vec<u8>),
    /// The receiver learns that it is over.
    End,
}

impl Wire {
    pub(crate) fn new(client: usize, life: u32, number: ConnectionId, tried_until: Truth) -> Wire {
        Wire {
            client,
            life,
            number,
            seat: 0,
            reign: None,
            tried_until,
            strays: false,
            to_leader: Direction::new(),
            to_client: Direction::new(),
        }
    }

    /// Whether its client still waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.to_client.ended
    }
}

impl Direction {
    fn new() -> Direction {
        Direction { under_way: VecDeque::new(), last: 0, cut: Truth::MAX, held: 0, ended: false }
    }

    /// Sends what would arrive at `at`, or behind what is under way; answers when.
    pub(crate) fn send(&mut self, at: Truth, piece: Piece) -> Option<Truth> {
        self.last = self.last.max(at);
        if self.last > self.cut || self.ended {
            return None;
        }
        self.under_way.push_back((self.last, piece));
        Some(self.last)
    }

    /// Loses what has not arrived by `at`.
    pub(crate) fn cut(&mut self, at: Truth) {
        self.cut = self.cut.min(at);
        let cut = self.cut;
        self.under_way.retain(|(at, piece)| *at <= cut || matches!(piece, Piece::End));
    }

    /// The receiver learns at `at` that it is over; what arrives later does so all the same.
    pub(crate) fn end(&mut self, at: Truth) -> Option<Truth> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let before = self.under_way.iter().take_while(|(arrival, _)| *arrival <= at).count();
        self.under_way.insert(before, (at, Piece::End));
        Some(at)
    }

    /// Whether more is to come.
    pub(crate) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Nothing is to be received any more, not even an end.
    pub(crate) fn close(&mut self) {
        self.under_way.clear();
        self.ended = true;
    }

    /// Silence until `until`: what is under way comes then.
    pub(crate) fn hold(&mut self, until: Truth) {
        self.held = self.held.max(until);
    }

    pub(crate) fn held(&self) -> Truth {
        self.held
    }

    /// What has arrived by now; or when to look again. An end does not wait for a silent network.
    pub(crate) fn receive(&mut self, now: Truth) -> Result<Option<Piece>, Truth> {
        let arrived = |(at, piece): &(Truth, Piece)| {
            *at <= now && (self.held <= now || matches!(piece, Piece::End))
        };
        if let Some(first) = self.under_way.iter().position(arrived) {
            return Ok(self.under_way.remove(first).map(|(_, piece)| piece));
        }
        match self.under_way.front() {
            Some((at, _)) if *at <= now => Err(self.held),
            _ => Ok(None),
        }
    }
}
