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

use super::{HANDSHAKE_LIMIT, Port, PortEvent, TurnedAway};
use crate::{
    host::net::admission::client_at,
    proto::{ClientId, ConnectionId, shares::Shares},
};

/// For how long a leader goes on with handshakes before it looks at anything else.
const HANDSHAKES_AT_ONCE: Duration = Duration::from_millis(1);

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

impl Port {
    /// Takes the next steps of handshakes, for a while.
    pub(super) fn go_on_with_handshakes(&mut self) {
        let begun = Instant::now();
        let mut now = begun;
        while now - begun < HANDSHAKES_AT_ONCE
            && let Some((step, is_stale)) = self.waiting.pop(now)
        {
            match step {
                HandshakeStep::Begin(incoming) if is_stale => self.endpoint.ignore(*incoming),
                HandshakeStep::Begin(incoming) => self.accept(*incoming, now),
                HandshakeStep::Next(handle, id, event) => {
                    if let Some(connection) = self.connections[handle.0].as_mut()
                        && connection.id == id
                    {
                        connection.inner.handle_event(*event);
                        self.mark_busy(handle);
                        self.listen_to(handle);
                    }
                }
            }
            now = Instant::now();
        }
    }

    /// Has a step of a leader's handshake wait.
    pub(super) fn postpone(&mut self, client: ClientId, step: HandshakeStep, now: Instant) {
        // As if the network had lost it.
        if let Some(HandshakeStep::Begin(incoming)) = self.waiting.push(client, step, now) {
            self.endpoint.ignore(*incoming);
        }
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let mut response = Vec::new();
        let remote = incoming.remote_address();
        let client = client_at(remote);
        let transmit = if !self.admission.admits(client) {
            Some(self.endpoint.refuse(incoming, &mut response))
        } else if !self.admission.trusts_addresses() && !incoming.remote_address_validated() {
            self.endpoint.retry(incoming, &mut response).ok()
        } else {
            match self.endpoint.accept(incoming, now, &mut response, None) {
                Ok((handle, inner)) => {
                    let id = ConnectionId(self.ids.next);
                    self.ids.next += self.ids.step;
                    self.insert(handle, inner, id, remote);
                    self.stalls.push_back((now + HANDSHAKE_LIMIT, id));
                    None
                }
                Err(error) => {
                    // A fault of its first words, before there is a connection.
                    if let Some(why) = TurnedAway::of(&error.cause) {
                        self.shared.events.push_back(PortEvent::TurnedAway(client, why));
                    }
                    error.response
                }
            }
        };
        if let Some(transmit) = transmit {
            self.respond(&transmit, &response);
        }
    }
}
