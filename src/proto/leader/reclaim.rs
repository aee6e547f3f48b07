//! What a reign takes over from those before it: their sessions, and what these bring back.
//!
//! The journal tells which sessions were open and what was taken away from them, and nothing of
//! what each holds. That the holders tell themselves, each with its session's first whole report
//! of the reign. Until every session has come back, or its end is durable, nothing new is granted
//! that one of the others may hold (*grace*): no session is granted what another still holds, and with
//! all alive it is over in milliseconds. What each may hold, its bound says (see `bound`).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use super::{LeaderMachine, Notice, RECALL_LIMIT, after, report::Report};
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        RequestId,
        absence::AbsentBounds,
        bound::NameHashes,
        count_long,
        lock::{HoldKey, Holding, LockKey, PackedId, Recall, Right, SessionKey, Waiter},
        mistake::{Mistake, planted},
        record::{Record, Recovered},
        sessions::{Session, Standing},
        wire::{HeldLease, Mode, NameUse},
    },
    time::Time,
    token::Token,
};

// Sessions.
impl LeaderMachine {
    /// Every session of earlier reigns that may live.
    pub(super) fn take_over(&mut self, recovered: &Recovered) {
        for (&id, open) in &recovered.sessions {
            let key = self.sessions.add(Session::recovered(id, open));
            if open.embedded {
                // We have the state directory's lock file, so the process that it belonged to
                // is dead.
                self.end_session(key);
            }
        }
    }

    /// The reign is durable: each of them has one full time to live to come back.
    pub(super) fn begin_grace(&mut self, now: Time) {
        self.date_recovered_reservations();
        let keys: Vec<_> = self.sessions.all().collect();
        for key in keys {
            if let Standing::Open(_) = self.sessions.get(key).standing {
                self.sessions.promise(key, now);
            }
        }
    }

    pub(super) fn end_grace_if_over(&mut self, now: Time) {
        if self.reign.is_none() || self.waits_until.is_some() || self.sessions.awaits_any() {
            return;
        }
        self.in_grace = false;
        self.deadlocks.look_at_all();
        self.tell_grace_over();
        self.sessions.absent = AbsentBounds::default();
        self.table.grace_is_over();
        self.raise_reserved_tokens();
        for waiter in self.table.impatient() {
            self.limits.set(waiter, now + RECALL_LIMIT);
        }
        self.unsettled.extend(self.table.all());
        self.observers_may_be_told();
        self.answer_questions(now);
    }

    /// No absent session is in the way of those that only try: from now on they wait for recalls.
    pub(super) fn give_time_to_recall(&mut self, lock: LockKey, now: Time) {
        for waiter in self.table.impatient_of(lock) {
            self.limits.set(waiter, now + RECALL_LIMIT);
        }
    }
}

// Leases.
impl LeaderMachine {
    /// Takes in what a session says it holds. Answers `false` if some of that is not confirmed:
    /// once this is durable the session is told, with its next report. With too much that no session
    /// has answered for it is told nothing, and runs out.
    pub(super) fn reclaim(&mut self, key: SessionKey, report: &Report, now: Time) -> bool {
        let unconfirmed = self.unconfirmed(key, report);
        if !unconfirmed.is_empty() {
            let owed = self.sessions.owed() + self.refused_claims + unconfirmed.len();
            if let Standing::Opening(_) | Standing::Open(_) = self.sessions.get(key).standing
                && owed <= self.config.claims_max
            {
                unconfirmed.into_iter().for_each(|held| self.refuse_claim(key, held));
            }
            return false;
        }
        if self.sessions.get(key).is_awaited() {
            assert!(self.in_grace, "every awaited session is awaited by the grace");
            for held in report.held.values() {
                self.take_in(key, held, now);
            }
            self.sessions.returned(key);
            // While every bound counts as everything, what is confirmed may lie outside the session's: of a
            // journal that was restored, say.
            for (_, hold) in self.sessions.get(key).leases_in_order() {
                self.ask_for(key, NameHashes::of(&self.table.lock(hold.lock).name));
            }
        }
        true
    }

    /// The leases of the report that the leader does not know and cannot take in: only with its
    /// first report of the reign does a session tell anything new, and only of earlier reigns.
    fn unconfirmed(&self, key: SessionKey, report: &Report) -> Vec<HeldLease> {
        let session = self.sessions.get(key);
        let is_unknown = |held: &&HeldLease| {
            let id = packed(held);
            held.leaving.is_none()
                && !session.leases().contains_key(&id)
                && session.revoked(id).is_none()
        };
        let mut claims: Vec<_> = report.held.values().filter(is_unknown).collect();
        if session.is_awaited() {
            claims.sort_by_key(|held| Reverse(held.last));
            let mut names = BTreeMap::new();
            claims.retain(|held| {
                let is_good = self.is_of_before(held)
                    && self.may_be_held(held)
                    && self.has_asked_for(session, held);
                !(is_good && fits_beside(names.entry(&held.name), held.mode))
            });
        }
        claims.into_iter().cloned().collect()
    }

    /// Whether an earlier reign of this history can have granted it.
    fn is_of_before(&self, held: &HeldLease) -> bool {
        (Token::ZERO < held.first && held.first <= held.last)
            && held.lease.epoch <= self.epoch_before
            && held.last.epoch() <= self.epoch_before
            && self.is_of_this_history(held)
    }

    fn is_of_this_history(&self, held: &HeldLease) -> bool {
        self.history.granted(held.lease.epoch, held.reign)
            || planted(Mistake::ForeignLeasesConfirmed)
    }

    /// Whether no session has reported a later grant of this name that leaves no room for this one.
    fn may_be_held(&self, held: &HeldLease) -> bool {
        let Some(lock) = self.table.find(&held.name) else { return true };
        let is_latest = self.table.lock(lock).token < highest(held);
        let is_used_otherwise = self.table.is_held(lock)
            && self.table.name_use(lock).is_some_and(|in_force| in_force != held.mode.name_use());
        match held.mode {
            Mode::Exclusive => is_latest,
            _ if planted(Mistake::SharesConflict) => is_latest,
            _ if is_used_otherwise => is_latest,
            // Those that share it do not come one after the other.
            Mode::Shared => self.table.known_exclusive(lock) < held.first,
            // Of these there is one at a time.
            Mode::Upgradable => {
                let later = |hold: &HoldKey| {
                    let (mode, token) = (self.table.mode(*hold), self.table.tokens(*hold).1);
                    mode == Mode::Upgradable && token > highest(held)
                };
                let is_latest = !self.table.holds(lock).any(|hold| later(&hold));
                is_latest && self.table.known_exclusive(lock) < held.first
            }
            Mode::Permits { count, limit } => {
                let later = |hold: &HoldKey| self.table.tokens(*hold).0 > held.first;
                let later = self.table.holds(lock).filter(later);
                let taken: u32 = later.map(|hold| self.table.mode(hold).permits()).sum();
                taken + count <= limit
            }
        }
    }

    /// One lease of a first report.
    fn take_in(&mut self, key: SessionKey, held: &HeldLease, now: Time) {
        if !self.is_of_before(held) || !self.has_asked_for(self.sessions.get(key), held) {
            return; // one that was refused before, and is told as lost
        }
        let lock = self.table.find_or_add(held.name.clone());
        self.unsettled.push(lock);
        if !self.may_be_held(held) {
            return; // one given back or taken away: another came after it
        }
        let (id, session) = (packed(held), self.sessions.get(key));
        let revoked = session.revoked(id);
        let (right, end) = match revoked {
            // What is promised later is promised after `Lost`.
            Some((why, proof)) => (Right::Ended(why, proof), Some(session.deadline())),
            None => (Right::Whole, held.at_most.map(|left| now + count_long(left))),
        };
        if let Some(how) = held.leaving {
            if held.mode.name_use() == NameUse::Lock {
                self.displace(lock, held);
            }
            if held.mode == Mode::Exclusive {
                let how = revoked.map_or(how, |(why, _)| after(why));
                self.table.left(lock, highest(held), how);
            } else {
                self.table.raise(lock, highest(held));
            }
            self.claim_reservation(lock, key, held.first, id);
            if held.last_used < held.first {
                self.was_not_used(lock, id);
            }
            return;
        }
        self.displace(lock, held);
        self.use_as_reported(lock, held.mode, now);
        let holding = Holding {
            lease: id,
            request: RequestId(0), // it was granted long ago: no report waits for it
            place: PackedId::ZERO,
            since: now - held.since,
            session: key,
            right,
            spread: 0, // as the table finds it
            recall: if held.kept { Recall::Kept } else { Recall::No },
        };
        // Else it is the token of the writer that it was.
        let mode = (held.mode, held.last_used >= held.first);
        let hold = self.table.confirm(lock, holding, mode, (held.first, held.last));
        self.sessions.add_lease(key, id, hold);
        if let Ok(Some(value)) = self.state_value(key, held.value.as_deref(), false) {
            self.values.lead(id, value);
        }
        self.claim_reservation(lock, key, held.first, id);
        if let Some(end) = end {
            self.ends.set(hold, end);
        }
    }

    /// A session holds the name like this: those that wait for it otherwise are refused, since they
    /// could not know.
    fn use_as_reported(&mut self, lock: LockKey, mode: Mode, now: Time) {
        let in_force = mode.name_use();
        if self.table.name_use(lock).is_some_and(|known| known != in_force) {
            let mistaken: Vec<_> = self.table.first_waiters(lock, usize::MAX);
            for waiter in mistaken {
                let Waiter { session, mode, .. } = *self.table.waiter(waiter);
                if mode.name_use() != in_force {
                    let why = self.used_as(session, in_force);
                    self.refuse_waiter(waiter, why, now);
                }
            }
        }
        if !self.table.is_held(lock) {
            self.table.use_as(lock, mode);
        }
    }

    /// What is confirmed of a lock and leaves no room for this later grant, the oldest first.
    fn displace(&mut self, lock: LockKey, held: &HeldLease) {
        let winner = highest(held);
        let mut in_the_way: Vec<_> = self.table.in_the_way(lock, held.mode).collect();
        in_the_way.sort_by_key(|&hold| (self.is_whole(hold), self.table.tokens(hold).1));
        for hold in in_the_way {
            if self.table.has_room(lock, held.mode) {
                return;
            }
            let loser = self.table.tokens(hold).1;
            let Holding { lease, session, right, .. } = self.vacate(hold, None);
            // One that was taken away may come back with its successor.
            if let Right::Whole | Right::Ending = right {
                self.conflict(lock, winner, loser, session);
                self.revoke(session, lease, self.table.lock(lock).name.clone(), loser);
            }
        }
    }

    fn is_whole(&self, hold: HoldKey) -> bool {
        matches!(self.holding(hold).right, Right::Whole)
    }

    /// A session reports what it cannot have.
    fn refuse_claim(&mut self, key: SessionKey, held: HeldLease) {
        let id = packed(&held);
        if self.sessions.get(key).is_awaited() {
            let lock = self.table.find_or_add(held.name.clone());
            self.unsettled.push(lock);
            if !self.is_of_this_history(&held) {
                self.dispute(lock, key);
            } else if self.has_asked_for(self.sessions.get(key), &held) {
                self.conflict(lock, self.table.lock(lock).token, held.last, key);
            } else {
                let (name, token) = (held.name.clone(), held.last);
                self.notices.push_back(Notice::NotAskedFor { name, token });
                self.dispute(lock, key);
            }
        }
        self.revoke(key, id, held.name, held.last);
    }

    /// Two hold one lock, by their own words: a state was restored, or there is a bug.
    fn conflict(&mut self, lock: LockKey, winner: Token, loser: Token, session: SessionKey) {
        let name = self.table.lock(lock).name.clone();
        self.notices.push_back(Notice::Conflict { name, winner, loser });
        self.dispute(lock, session);
    }

    /// Until what the loser of a conflict was promised last has passed, the lock is not granted
    /// again.
    fn dispute(&mut self, lock: LockKey, session: SessionKey) {
        let deadline = self.sessions.get(session).deadline();
        let until = self.disputes.get(lock).map_or(deadline, |until| until.max(deadline));
        self.disputes.set(lock, until);
    }

    fn revoke(&mut self, session: SessionKey, lease: PackedId, name: Name, token: Token) {
        let session = self.sessions.get(session).id;
        let (lease, why) = (lease.lease(), LostReason::Forgotten);
        self.refused_claims += 1;
        self.telling.count(|tally| tally.taken_away(why));
        self.write(Record::LeaseRevoked { session, lease, name, token, why });
    }
}

/// Whether one report can name a lease of this mode beside what it has named of the same name before.
fn fits_beside(named: Entry<'_, &Name, (Mode, u32)>, mode: Mode) -> bool {
    match named {
        Entry::Vacant(none) => {
            none.insert((mode, mode.permits()));
            true
        }
        Entry::Occupied(mut before) => {
            let (first, taken) = before.get_mut();
            *taken += mode.permits();
            match (*first, mode) {
                (Mode::Shared, Mode::Shared) | (Mode::Upgradable, Mode::Shared) => true,
                (Mode::Shared, Mode::Upgradable) => {
                    *first = mode; // of those there is one
                    true
                }
                (Mode::Permits { limit, .. }, Mode::Permits { .. }) => {
                    first.name_use() == mode.name_use() && *taken <= limit
                }
                _ => false,
            }
        }
    }
}

/// The highest token that its holder can have used: what is left of a block that is being given back
/// may be another holder's by now.
fn highest(held: &HeldLease) -> Token {
    match held.leaving {
        Some(_) if !planted(Mistake::RestOfBlockClaims) => {
            held.last_used.max(held.first).min(held.last)
        }
        _ => held.last,
    }
}

fn packed(held: &HeldLease) -> PackedId {
    PackedId::of_lease(held.lease).expect("a report has no others")
}
