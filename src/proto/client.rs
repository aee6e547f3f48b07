//! The client: one manager's session, its requests and its leases.
use super::{
    ConnectionId, LeaseId, Place, RequestId,
    wire::{Acquire, ClientMessage, HolderInfo, Identity, LeaderMessage, LockInfo, Refusal},
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub time_to_live: Duration,
    pub connect_timeout: Duration,
    pub identity: Identity,
    /// How many addresses the driver knows; the client names them by index.
    pub addresses: usize,
}

/// Random numbers, passed in, so that a run can be repeated.
pub type Random = Box<dyn FnMut() -> u128 + Send>;

/// What the driver reports when a connection attempt or a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Lost, reset, timed out, could not be made: to be tried again.
    Disconnected(String),
    /// The handshake was refused: another secret, no tierlock leader. Requests fail at once.
    Refused(String),
}

/// Why a request ended without a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused {
        why: Refusal,
    },
    /// Nobody acknowledged it in time; the last trouble in words.
    Unreachable(String),
    /// The wrong secret, and the like.
    NotAccepted(String),
    /// The addresses are not one group, or the cluster is another than before.
    Config(String),
    /// The manager was closed.
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A leader has it in its queue.
    Queued {
        request: RequestId,
        place: Place,
    },
    Granted {
        request: RequestId,
        lease: LeaseId,
        first: Token,
        last: Token,
        predecessor: Predecessor,
        /// The client's own deadline from `at_most`, if one was set.
        at_most: Option<Time>,
    },
    Failed {
        request: RequestId,
        failure: Failure,
        holder: Option<HolderInfo>,
    },
    /// The release was answered (or its session is over, which releases as well).
    Released {
        lease: LeaseId,
    },
    /// The lease is over; its guards are to be told before `DeadlineMoved` is passed on.
    LeaseLost {
        lease: LeaseId,
        why: LostReason,
    },
    /// The session's deadline: until when its leases are good without a further word.
    DeadlineMoved {
        deadline: Time,
    },
    Checked {
        query: RequestId,
        good: bool,
    },
    Listed {
        query: RequestId,
        locks: Vec<LockInfo>,
        more: bool,
    },
    Broke {
        query: RequestId,
        found: bool,
    },
    /// A query ended without an answer.
    QueryFailed {
        query: RequestId,
        failure: Failure,
    },
    /// The goodbye is on its way or was not needed: the driver may end once it is sent.
    Closed,
}

pub struct Client {}

impl Client {
    pub fn new(config: Config, random: Random, now: Time) -> Client {
        let _ = (config, random, now);
        todo!()
    }
    /// Asks for a lock. `limit` is the caller's own: when it passes without an acknowledgement the request fails
    /// as `Unreachable`, afterwards as `Refusal::TimedOut`. `acquire.wait` is derived from it here.
    pub fn acquire(&mut self, acquire: Acquire, limit: Option<Time>, now: Time) -> RequestId {
        let _ = (acquire, limit, now);
        todo!()
    }
    /// The caller gave up. If the grant is already here or arrives later it is handed straight back. No event follows.
    pub fn cancel(&mut self, request: RequestId, now: Time) {
        let _ = (request, now);
        todo!()
    }
    /// Gives a lease back. Repeated over reconnects until answered. A lost one too: it tells the leader.
    pub fn release(&mut self, lease: LeaseId, last_used: Token, how: Predecessor, now: Time) {
        let _ = (lease, last_used, how, now);
        todo!()
    }
    pub fn check(&mut self, name: Name, token: Token, limit: Option<Time>, now: Time) -> RequestId {
        let _ = (name, token, limit, now);
        todo!()
    }
    pub fn list(
        &mut self,
        after: Option<Name>,
        count: u32,
        limit: Option<Time>,
        now: Time,
    ) -> RequestId {
        let _ = (after, count, limit, now);
        todo!()
    }
    pub fn break_lock(
        &mut self,
        name: Name,
        token: Token,
        limit: Option<Time>,
        now: Time,
    ) -> RequestId {
        let _ = (name, token, limit, now);
        todo!()
    }
    /// No more requests; says goodbye once no lease is held.
    pub fn close(&mut self, now: Time) {
        let _ = now;
        todo!()
    }
    /// Forgets the outside world as a kill would, without a word (tests).
    pub fn handle_connected(&mut self, connection: ConnectionId, now: Time) {
        let _ = (connection, now);
        todo!()
    }
    pub fn handle_message(&mut self, connection: ConnectionId, message: LeaderMessage, now: Time) {
        let _ = (connection, message, now);
        todo!()
    }
    /// A connection, or the attempt to make it, ended.
    pub fn handle_ended(&mut self, connection: ConnectionId, ended: Ended, now: Time) {
        let _ = (connection, ended, now);
        todo!()
    }
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
        todo!()
    }
    /// A connection to make: to the address with this index.
    pub fn poll_connect(&mut self) -> Option<(ConnectionId, usize)> {
        todo!()
    }
    /// A connection to close: superseded, or not needed any more.
    pub fn poll_close(&mut self) -> Option<ConnectionId> {
        todo!()
    }
    pub fn poll_message(&mut self, now: Time) -> Option<(ConnectionId, ClientMessage)> {
        let _ = now;
        todo!()
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }
    /// Until when the session's leases are good without a further word; `None` before the first.
    pub fn deadline(&self) -> Option<Time> {
        todo!()
    }
}
