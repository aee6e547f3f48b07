//! What a leader tells of itself: rare events for a log, counts for metrics, and a look at its locks.
//!
//! Each is made only where the config asks for it. Nothing here changes what the leader does.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    LeaderMachine,
    tally::{LeaderTally, RECALL_LATE},
};
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        ClientId, ConnectionId, SessionId,
        lock::{HoldKey, Holding, PackedId, Recall, SessionKey},
        sessions::Standing,
        wire::{Identity, LockInfo, Refusal},
    },
    time::Time,
    token::Token,
};

/// What of itself a leader tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaderTells {
    /// [`MachineEvent`]s.
    pub events: bool,
    /// A [`LeaderTally`].
    pub counts: bool,
}

/// A rare event, for an operator's log.
#[derive(Clone, Debug, PartialEq)]
pub enum MachineEvent {
    /// The first request of a session that the journal did not know is durable.
    SessionOpened { session: SessionNote, time_to_live: Duration },
    /// It said goodbye.
    SessionEnded { session: SessionNote },
    /// It was silent for its time to live.
    SessionExpired { session: SessionNote, lost: LostNames },
    /// It was told which leader this is, and no more.
    SessionRefused { session: SessionNote, why: Refusal },
    /// A request was refused for want of room, or for what no request may ask.
    RequestRefused { session: SessionNote, why: Refusal },
    /// A lock was taken away from its holder because this session asked for that.
    Broken { name: Name, token: Token, holder: Option<SessionNote>, by: SessionNote },
    /// A lock was held for as long as its `at_most` allows.
    HeldTooLong { name: Name, token: Token, holder: SessionNote },
    /// A session that was asked for a lease that it may keep has not answered for so long.
    RecallLate { name: Name, holder: SessionNote, waits: Duration },
    /// Every session of earlier reigns has come back or ended.
    GraceOver { lasted: Duration },
}

/// A session, as it is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionNote {
    pub session: SessionId,
    /// As it describes itself; empty of one that has not come back since an earlier reign.
    pub identity: Identity,
    /// Where it is.
    pub client: ClientId,
    /// Its label is what it claims, where clients of other sessions have proved theirs.
    pub claims_label: bool,
}

/// The locks that a session held at its end: some of their names, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostNames {
    pub some: Vec<Name>,
    pub count: usize,
}

/// How many names are told at most.
const NAMES_MAX: usize = 3;

/// What a leader is told to tell, and what of that waits to be taken.
#[derive(Default)]
pub(super) struct LeaderTelling {
    pub(super) tells: LeaderTells,
    events: Vec<MachineEvent>,
    pub(super) tally: Option<Box<LeaderTally>>,
    /// Leases that were asked back in the last [`RECALL_LATE`], and when, the first first. Some have
    /// been answered for since, or are over.
    recalls: VecDeque<(Time, HoldKey, PackedId)>,
}

impl LeaderTelling {
    pub(super) fn new(tells: LeaderTells) -> LeaderTelling {
        let tally = tells.counts.then(Box::default);
        LeaderTelling { tells, tally, ..LeaderTelling::default() }
    }

    fn is_on(&self) -> bool {
        self.tells.events || self.tells.counts
    }

    #[inline]
    pub(super) fn count(&mut self, count: impl FnOnce(&mut LeaderTally)) {
        if let Some(tally) = &mut self.tally {
            count(tally);
        }
    }
}

/// What there is just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineCounts {
    /// Those that the journal knows or is about to, and what may be.
    pub sessions: usize,
    pub sessions_max: usize,
    /// Those of earlier reigns that have not come back yet.
    pub sessions_awaited: usize,
    pub leases: usize,
    pub waiters: usize,
    /// Names that `at_least` keeps taken.
    pub reservations: usize,
    /// Leases, waiters and reservations together, and what may be.
    pub claims: usize,
    pub claims_max: usize,
    /// Names that are held, waited for, or remembered for their next holder.
    pub names: usize,
    pub connections: usize,
    pub in_grace: bool,
    /// By how much the leader's lateness has moved deadlines, in this reign.
    pub missed: Duration,
}

/// Locks, those that most wait for first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockSurvey {
    /// Each with the number of its waiters.
    pub locks: Vec<(LockInfo, usize)>,
    /// How many names there are.
    pub names: usize,
}

/// How many waiters are looked at to find the longest queues: a millisecond or so.
const QUEUED_MAX: usize = 16_384;

impl LeaderMachine {
    /// Whether clients see an end of what an earlier reign may have granted.
    pub fn is_in_grace(&self) -> bool {
        self.in_grace
    }

    /// A rare event, if there is one.
    pub fn take_events(&mut self) -> Vec<MachineEvent> {
        std::mem::take(&mut self.telling.events)
    }

    /// The next leader of this process goes on with it.
    pub(in crate::proto) fn take_tally(&mut self) -> Option<Box<LeaderTally>> {
        let missed = self.clock.missed();
        self.telling.count(|tally| tally.late_before += missed);
        self.telling.tally.take()
    }

    pub(in crate::proto) fn resume_tally(&mut self, tally: Option<Box<LeaderTally>>) {
        if tally.is_some() && self.telling.tells.counts {
            self.telling.tally = tally;
        }
    }

    pub fn tally(&self) -> Option<&LeaderTally> {
        self.telling.tally.as_deref()
    }

    pub fn counts(&self) -> MachineCounts {
        let waiters = self.table.waiters();
        MachineCounts {
            sessions: self.sessions.written(),
            sessions_max: self.config.sessions_max,
            sessions_awaited: self.sessions.awaited(),
            leases: self.sessions.claims() - waiters,
            waiters,
            reservations: self.reservations.len(),
            claims: self.claims(),
            claims_max: self.config.claims_max,
            names: self.table.len(),
            connections: self.connections.len(),
            in_grace: self.in_grace,
            missed: self.clock.missed(),
        }
    }

    /// Waiters of the name that most wait for, among the first 16,384 waiters.
    pub fn longest_queue(&self) -> usize {
        let queues = self.table.queues(QUEUED_MAX);
        queues.into_iter().map(|(_, queued)| queued).max().unwrap_or(0)
    }

    /// The first locks to look at, at most `limit`: those that are waited for, the longest queue first,
    /// then others that are held, or that `at_least` keeps taken.
    pub fn survey(&self, limit: usize) -> LockSurvey {
        let now = self.clock.now();
        let mut queues = self.table.queues(QUEUED_MAX);
        if queues.len() > limit {
            queues.select_nth_unstable_by_key(limit, |(_, waiting)| Reverse(*waiting));
            queues.truncate(limit);
        }
        queues.sort_by(|(a, waiting), (b, more)| {
            let name = |lock| &self.table.lock(lock).name;
            more.cmp(waiting).then_with(|| name(*a).cmp(name(*b)))
        });
        let shown: BTreeSet<_> = queues.iter().map(|(lock, _)| *lock).collect();
        let held = self.table.all().filter(|lock| !shown.contains(lock));
        let is_taken = |lock| self.table.is_held(lock) || self.reserved_for(lock).is_some();
        let held = held.take(SURVEYED_MAX).filter(|&lock| is_taken(lock));
        let held: Vec<_> = held.take(limit - queues.len()).map(|lock| (lock, 0)).collect();
        let locks = queues.into_iter().chain(held);
        LockSurvey {
            locks: locks.map(|(lock, waiting)| (self.describe(lock, now), waiting)).collect(),
            names: self.table.len(),
        }
    }

    /// Whether people are told of this label that it is a claim: where clients of other sessions have proved
    /// theirs, a reader would take it for a proved one.
    pub(super) fn claims_label(&self, identity: &Identity) -> bool {
        self.proves_labels && !identity.label_is_proved && !identity.label.is_empty()
    }

    fn note_of(&self, key: SessionKey) -> SessionNote {
        let session = self.sessions.get(key);
        SessionNote {
            session: session.id,
            identity: session.identity.clone(),
            client: session.at,
            claims_label: self.claims_label(&session.identity),
        }
    }

    fn tell_event(&mut self, event: impl FnOnce(&LeaderMachine) -> MachineEvent) {
        if self.telling.tells.events {
            let event = event(self);
            self.telling.events.push(event);
        }
    }
}

/// How many locks are looked at to find held ones.
const SURVEYED_MAX: usize = 65_536;

// What is told of sessions.
impl LeaderMachine {
    /// Its opening is durable. One that was idle for long may open again, which is no news.
    pub(super) fn tell_opened(&mut self, key: SessionKey) {
        if !self.telling.is_on() || std::mem::replace(&mut self.sessions.get_mut(key).is_told, true)
        {
            return;
        }
        self.telling.count(|tally| tally.sessions.opened += 1);
        self.tell_event(|leader| MachineEvent::SessionOpened {
            session: leader.note_of(key),
            time_to_live: leader.sessions.get(key).time_to_live,
        });
    }

    pub(super) fn tell_goodbye(&mut self, key: SessionKey) {
        if self.telling.is_on() && self.sessions.get(key).is_told {
            self.telling.count(|tally| tally.sessions.ended += 1);
            self.tell_event(|leader| MachineEvent::SessionEnded { session: leader.note_of(key) });
        }
    }

    pub(super) fn tell_expired(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        let is_known = session.is_told || session.is_awaited();
        if !self.telling.is_on() || !is_known || matches!(session.standing, Standing::Ending(_)) {
            return;
        }
        self.telling.count(|tally| tally.sessions.expired += 1);
        self.tell_event(|leader| {
            let held = leader.sessions.get(key).leases_in_order();
            let names = held.iter().take(NAMES_MAX);
            let names = names.map(|(_, hold)| leader.table.lock(hold.lock).name.clone());
            let lost = LostNames { some: names.collect(), count: held.len() };
            MachineEvent::SessionExpired { session: leader.note_of(key), lost }
        });
    }

    pub(super) fn tell_returned(&mut self, key: SessionKey, leases: usize) {
        if self.telling.is_on() {
            self.sessions.get_mut(key).is_told = true;
            self.telling.count(|tally| {
                tally.sessions.returned += 1;
                tally.leases_reclaimed += leases as u64;
            });
        }
    }

    /// A connection was told which leader this is, and no more.
    pub(super) fn tell_turned_away(
        &mut self,
        connection: ConnectionId,
        (session, identity): (SessionId, &Identity),
        why: Refusal,
    ) {
        self.telling.count(|tally| tally.refused.add(why));
        self.tell_event(|leader| {
            let (identity, client) = (identity.clone(), leader.address_of(connection));
            let claims_label = leader.claims_label(&identity);
            let session = SessionNote { session, identity, client, claims_label };
            MachineEvent::SessionRefused { session, why }
        });
    }

    pub(super) fn tell_refused(&mut self, key: SessionKey, why: Refusal) {
        self.telling.count(|tally| tally.refused.add(why));
        // That another session holds it is an answer like any other.
        let is_answer = matches!(why, Refusal::WouldBlock | Refusal::TimedOut | Refusal::UsedAs(_));
        if !is_answer {
            self.tell_event(|leader| MachineEvent::RequestRefused {
                session: leader.note_of(key),
                why,
            });
        }
    }

    pub(super) fn tell_grace_over(&mut self) {
        self.tell_event(|leader| MachineEvent::GraceOver {
            lasted: leader.clock.now().since(leader.began),
        });
    }
}

// What is told of locks.
impl LeaderMachine {
    pub(super) fn tell_taken_away(&mut self, hold: HoldKey, why: LostReason) {
        self.telling.count(|tally| tally.taken_away(why));
        if why == LostReason::HeldTooLong {
            self.tell_event(|leader| MachineEvent::HeldTooLong {
                name: leader.table.lock(hold.lock).name.clone(),
                token: leader.table.tokens(hold).1,
                holder: leader.note_of(leader.holding(hold).session),
            });
        }
    }

    pub(super) fn tell_broken(
        &mut self,
        name: &Name,
        token: Token,
        hold: Option<HoldKey>,
        by: SessionKey,
    ) {
        self.tell_event(|leader| MachineEvent::Broken {
            name: name.clone(),
            token,
            holder: hold.map(|hold| leader.note_of(leader.holding(hold).session)),
            by: leader.note_of(by),
        });
    }

    pub(super) fn tell_recalled(&mut self, hold: HoldKey) {
        if self.telling.is_on() {
            self.telling.count(|tally| tally.recalls += 1);
            let lease = self.holding(hold).lease;
            self.telling.recalls.push_back((self.clock.now(), hold, lease));
        }
    }

    /// A lease is over, and was this.
    #[inline]
    pub(super) fn tell_vacated(&mut self, holding: &Holding) {
        let held = self.clock.now().since(holding.since);
        self.telling.count(|tally| tally.holds.add(held));
    }

    /// Each recall is told once, when it is late. Asked at every event, so that a busy leader tells them
    /// as an idle one does; few at a time, so that no event waits for it.
    #[inline]
    pub(super) fn tell_late_recalls(&mut self, now: Time) {
        for _ in 0..LATE_AT_ONCE {
            match self.telling.recalls.front() {
                Some((since, ..)) if now.since(*since) >= RECALL_LATE => self.tell_late_recall(now),
                _ => return,
            }
        }
    }

    #[cold]
    fn tell_late_recall(&mut self, now: Time) {
        let Some((since, hold, lease)) = self.telling.recalls.pop_front() else { return };
        // The place of a lease that is over may be another one's by now.
        let holding = self.table.find_holding(hold).filter(|holding| holding.lease == lease);
        let Some(&Holding { recall: Recall::Asked, session, .. }) = holding else { return };
        self.telling.count(|tally| tally.recalls_late += 1);
        self.tell_event(|leader| MachineEvent::RecallLate {
            name: leader.table.lock(hold.lock).name.clone(),
            holder: leader.note_of(session),
            waits: now.since(since),
        });
    }
}

const LATE_AT_ONCE: usize = 64;
