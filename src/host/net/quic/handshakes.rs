//! Steps of handshakes that wait for their turn.
//!
//! A step costs a signature or the checking of two, as much as hundreds of other datagrams. When all
//! clients come back at once, what connections say that stand (a client's renewal, a group's heartbeat)
//! must not wait behind that: it would be late, and what is late ends sessions and reigns, and has all
//! clients come back again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use quinn_proto::{ConnectionEvent, ConnectionHandle, Incoming};

use crate::proto::{ClientId, ConnectionId, shares::Shares};

/// How many may wait; more are as if the network had lost them. One client alone has half of them.
const WAITING_MAX: usize = 4096;
/// A peer that has waited for so long has given up, or has said it again.
const STALE: Duration = Duration::from_secs(2);

/// One step of a handshake.
pub(super) enum HandshakeStep {
    Begin(Box<Incoming>),
    /// A datagram for this connection.
    Next(ConnectionHandle, ConnectionId, Box<ConnectionEvent>),
}

/// The steps that wait, the first first.
pub(super) struct HandshakeQueue {
    steps: VecDeque<(Instant, ClientId, HandshakeStep)>,
    shares: Shares,
}

impl HandshakeQueue {
    pub(super) fn new() -> HandshakeQueue {
        HandshakeQueue { steps: VecDeque::new(), shares: Shares::new(WAITING_MAX) }
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Has it wait; hands it back if there is no room for it.
    pub(super) fn push(
        &mut self,
        client: ClientId,
        step: HandshakeStep,
        now: Instant,
    ) -> Option<HandshakeStep> {
        if !self.shares.has_room_for(client) {
            return Some(step);
        }
        self.shares.take(client);
        self.steps.push_back((now, client, step));
        None
    }

    /// The next, and whether it has waited too long.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(HandshakeStep, bool)> {
        let (since, client, step) = self.steps.pop_front()?;
        self.shares.give_back(client);
        Some((step, now.saturating_duration_since(since) > STALE))
    }
}
