//! Sessions: who they are, what they hold and wait for, and their deadlines.
//!
//! Sends nothing and writes nothing; the leader decides what follows from a deadline.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ConnectionId, Proof, RequestId, SessionId, TIME_TO_LIVE, count_long,
    record::Opened,
    slab::Slab,
    table::{LockKey, PackedId, SessionKey, WaiterKey},
    timers::Timers,
    wire::{Identity, Refusal},
};
use crate::time::Time;

pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) proof: Proof,
    /// Fixed at its opening.
    pub(super) time_to_live: Duration,
    pub(super) identity: Identity,
    /// Of the newest connection whose report was whole.
    pub(super) count: u64,
    /// That connection, while it lasts.
    pub(super) connection: Option<ConnectionId>,
    pub(super) standing: Standing,
    /// Why its requests are refused, whatever they ask.
    pub(super) refusal: Option<Refusal>,
    pub(super) last_request: RequestId,
    deadline: Time,
    leases: BTreeMap<PackedId, LockKey>,
    waiting: BTreeMap<RequestId, WaiterKey>,
    busy: bool,
}

/// How far a session has come with the journal. It only moves down this list.
pub(super) enum Standing {
    /// It asked for no lock yet: nothing is written about it.
    New,
    /// Its opening is on its way to the disk.
    Opening,
    Open(Opened),
    /// Its end is on its way to the disk, and final.
    Ending,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        proof: Proof,
        time_to_live: Duration,
        time_to_live_max: Duration,
        identity: Identity,
    ) -> Session {
        let longest = time_to_live_max.clamp(*TIME_TO_LIVE.start(), *TIME_TO_LIVE.end());
        let fits = (*TIME_TO_LIVE.start()..=longest).contains(&time_to_live);
        Session {
            id,
            proof,
            time_to_live: time_to_live.clamp(*TIME_TO_LIVE.start(), longest),
            identity,
            count: 0,
            connection: None,
            standing: Standing::New,
            refusal: (!fits).then_some(Refusal::TimeToLive),
            last_request: RequestId(0),
            deadline: Time::ZERO,
            leases: BTreeMap::new(),
            waiting: BTreeMap::new(),
            busy: false,
        }
    }

    /// Until when its leases are promised, counted long.
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) fn leases(&self) -> &BTreeMap<PackedId, LockKey> {
        &self.leases
    }

    pub(super) fn waiting(&self) -> &BTreeMap<RequestId, WaiterKey> {
        &self.waiting
    }
}

pub(super) struct Sessions {
    sessions: Slab<Session>,
    by_id: BTreeMap<SessionId, SessionKey>,
    deadlines: Timers<SessionKey>,
    /// How many hold or wait.
    busy: u32,
    /// How many the journal knows or is about to.
    written: usize,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions {
            sessions: Slab::new(),
            by_id: BTreeMap::new(),
            deadlines: Timers::new(),
            busy: 0,
            written: 0,
        }
    }

    pub(super) fn find(&self, id: SessionId) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, key: SessionKey) -> &Session {
        &self.sessions[key.0]
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.sessions[key.0]
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }

    pub(super) fn add(&mut self, session: Session) -> SessionKey {
        let id = session.id;
        let key = SessionKey(self.sessions.insert(session));
        let before = self.by_id.insert(id, key);
        assert!(before.is_none(), "{id:?} is added once");
        key
    }

    /// Its end is done, or there was nothing to end.
    pub(super) fn remove(&mut self, key: SessionKey) -> Session {
        let session = self.sessions.remove(key.0);
        assert!(session.leases.is_empty() && session.waiting.is_empty());
        self.by_id.remove(&session.id);
        self.deadlines.clear(key);
        if !matches!(session.standing, Standing::New) {
            self.written -= 1;
        }
        session
    }

    pub(super) fn opening(&mut self, key: SessionKey) {
        self.get_mut(key).standing = Standing::Opening;
        self.written += 1;
    }

    pub(super) fn ending(&mut self, key: SessionKey) {
        self.get_mut(key).standing = Standing::Ending;
        self.deadlines.clear(key);
    }

    /// Promises one more time to live from `now`: the only door through which a deadline moves.
    pub(super) fn promise(&mut self, key: SessionKey, now: Time) {
        let session = &mut self.sessions[key.0];
        assert!(!matches!(session.standing, Standing::Ending), "an end is final");
        session.deadline = session.deadline.max(now + count_long(session.time_to_live));
        self.deadlines.set(key, session.deadline);
    }

    pub(super) fn pop_expired(&mut self, now: Time) -> Option<SessionKey> {
        self.deadlines.pop_due(now)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    pub(super) fn add_lease(&mut self, key: SessionKey, lease: PackedId, lock: LockKey) {
        self.change(key, |session| assert!(session.leases.insert(lease, lock).is_none()));
    }

    pub(super) fn remove_lease(&mut self, key: SessionKey, lease: PackedId) {
        self.change(key, |session| assert!(session.leases.remove(&lease).is_some()));
    }

    pub(super) fn add_waiter(&mut self, key: SessionKey, request: RequestId, waiter: WaiterKey) {
        self.change(key, |session| assert!(session.waiting.insert(request, waiter).is_none()));
    }

    pub(super) fn remove_waiter(&mut self, key: SessionKey, request: RequestId) {
        self.change(key, |session| assert!(session.waiting.remove(&request).is_some()));
    }

    /// How often this session is to renew: those that hold or wait notice a lost leader at the
    /// next packet, so the fewer they are the more often; idle ones only to stay alive.
    pub(super) fn renew_every(&self, key: SessionKey) -> Duration {
        let session = self.get(key);
        let longest = session.time_to_live / 3;
        if !session.busy {
            return longest;
        }
        (RENEWAL_COST * self.busy).max(RENEW_EVERY_MIN).min(longest)
    }

    fn change(&mut self, key: SessionKey, change: impl FnOnce(&mut Session)) {
        let session = &mut self.sessions[key.0];
        change(session);
        let busy = !session.leases.is_empty() || !session.waiting.is_empty();
        if busy != session.busy {
            session.busy = busy;
            if busy { self.busy += 1 } else { self.busy -= 1 }
        }
    }
}

/// The most often that a session renews.
const RENEW_EVERY_MIN: Duration = Duration::from_millis(100);

/// With many sessions all renewals together are one per this time.
const RENEWAL_COST: Duration = Duration::from_millis(1);
