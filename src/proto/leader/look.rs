//! What the simulator looks at.

use super::{Connection, LeaderMachine, Standing};
use crate::{
    name::Name,
    proto::{
        ConnectionId, LeaseId, RequestId, SessionId,
        lock::{HoldKey, Right, SessionKey},
        look::{AtLeader, LeaderSubject, Phase},
        wire::ClientMessage,
    },
    token::Token,
};

impl LeaderMachine {
    /// Each name, the leases of its holders, and how many wait.
    pub fn locks(&self) -> impl Iterator<Item = (&Name, Vec<LeaseId>, usize)> {
        self.table.all().map(|key| {
            let waiters = self.table.first_waiters(key, usize::MAX).len();
            let leases = self.table.holds(key).map(|hold| self.holding(hold).lease.lease());
            (&self.table.lock(key).name, leases.collect(), waiters)
        })
    }

    pub fn phase(&self) -> Phase {
        match (&self.over, &self.reign) {
            (Some(_), _) => Phase::Over,
            (None, None) => Phase::Starting,
            (None, Some(_)) if self.in_grace => Phase::Grace,
            (None, Some(_)) => Phase::Open,
        }
    }

    pub fn connection_state(&self, connection: ConnectionId) -> AtLeader {
        match self.connections.get(&connection) {
            None => AtLeader::Unknown,
            Some(Connection::New) => AtLeader::New,
            Some(Connection::Reporting(_)) => AtLeader::Reporting,
            Some(Connection::Sessionless) => AtLeader::Sessionless,
            Some(Connection::Refused(_)) => AtLeader::Refused,
            Some(Connection::Serving(key)) => match self.sessions.get(*key).standing {
                Standing::New => AtLeader::ServingNew,
                Standing::Opening(_) => AtLeader::ServingOpening,
                Standing::Open(_) => AtLeader::ServingOpen,
                Standing::Idling(_) => AtLeader::ServingIdling,
                Standing::Ending(_) => unreachable!("an ending session has no connection"),
            },
        }
    }

    /// What a message is about that this connection says.
    pub fn subject(&self, connection: ConnectionId, message: &ClientMessage) -> LeaderSubject {
        let serving = match self.connections.get(&connection) {
            Some(Connection::Serving(key)) => Some(*key),
            _ => None,
        };
        match (message, serving) {
            (ClientMessage::Hello { session, .. }, _) => self.session_subject(*session),
            (ClientMessage::Acquire { request, acquire }, Some(key)) => {
                if *request <= self.sessions.get(key).last_request {
                    return LeaderSubject::RequestRead;
                }
                self.lock_subject(&acquire.name)
            }
            (ClientMessage::Cancel { request }, Some(key)) => self.request_subject(key, *request),
            (
                ClientMessage::Release { lease, .. }
                | ClientMessage::Use { lease, .. }
                | ClientMessage::TopUp { lease }
                | ClientMessage::Upgrade { lease, .. }
                | ClientMessage::Downgrade { lease, .. }
                | ClientMessage::Lower { lease, .. },
                Some(key),
            ) => self.lease_subject(key, *lease),
            (
                ClientMessage::Check { name, token, .. } | ClientMessage::Break { name, token, .. },
                _,
            ) => self.token_subject(name, *token),
            _ => LeaderSubject::None,
        }
    }

    fn session_subject(&self, session: SessionId) -> LeaderSubject {
        match self.sessions.find(session).map(|key| self.sessions.get(key)) {
            None => LeaderSubject::SessionUnknown,
            Some(session) => match session.standing {
                Standing::Ending(_) => LeaderSubject::SessionEnding,
                _ if session.is_awaited() => LeaderSubject::SessionAwaited,
                _ => LeaderSubject::SessionKnown,
            },
        }
    }

    fn lock_subject(&self, name: &Name) -> LeaderSubject {
        let Some(lock) = self.table.find(name) else { return LeaderSubject::LockUnknown };
        match self.table.holds(lock).next() {
            None => LeaderSubject::LockFree,
            Some(hold) => match self.holding(hold).right {
                Right::Whole => LeaderSubject::LockHeld,
                Right::Ending | Right::Ended(..) => LeaderSubject::LockBeingLost,
            },
        }
    }

    fn request_subject(&self, key: SessionKey, request: RequestId) -> LeaderSubject {
        let session = self.sessions.get(key);
        let mut held = session.leases().values();
        if session.waiting().contains_key(&request) {
            LeaderSubject::RequestWaiting
        } else if held.any(|&hold| self.holding(hold).request == request) {
            LeaderSubject::RequestGranted
        } else {
            LeaderSubject::RequestUnknown
        }
    }

    fn lease_subject(&self, key: SessionKey, lease: LeaseId) -> LeaderSubject {
        self.right_subject(self.hold_of_lease(key, lease))
    }

    fn token_subject(&self, name: &Name, token: Token) -> LeaderSubject {
        self.right_subject(self.holds_of(name, token).next())
    }

    fn right_subject(&self, hold: Option<HoldKey>) -> LeaderSubject {
        match hold.map(|hold| self.holding(hold).right) {
            None => LeaderSubject::LeaseStale,
            Some(Right::Whole) => LeaderSubject::LeaseHeld,
            Some(Right::Ending) => LeaderSubject::LeaseBeingRevoked,
            Some(Right::Ended(..)) => LeaderSubject::LeaseRevoked,
        }
    }
}
