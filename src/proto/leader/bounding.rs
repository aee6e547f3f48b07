//! What absent sessions hold up: the names that they have asked for, as the journal knows (see `bound`).
//!
//! A session's first name is written with its opening. Each later one that its bound does not cover is
//! written before the session is granted it, or told its place in the queue. So after a take-over a name
//! that no absent session has asked for is granted at once.

use super::LeaderMachine;
use crate::{
    name::Name,
    proto::{
        absence::HeldUp,
        bound::{Bound, NameHashes},
        lock::{LockKey, SessionKey, Waiter, WaiterKey},
        mistake::{Mistake, planted},
        record::{Opened, Record},
        sessions::{Session, Standing},
        wire::{HeldLease, Refusal},
    },
    time::Time,
};

// Before a grant or a place is told.
impl LeaderMachine {
    /// Writes that the session has asked for this name, unless the journal knows or is about to. So its
    /// opening is written with its first request, not before: what only looks around leaves no session
    /// to wait for after a restart.
    pub(super) fn ask_for(&mut self, key: SessionKey, name: NameHashes) {
        let size = self.config.bound;
        let session = self.sessions.get_mut(key);
        session.idle_since = None;
        let is_known = !matches!(session.standing, Standing::New | Standing::Idling(_));
        if !is_known {
            (session.bound, session.bound_since) = Default::default();
        } else if session.bound.handed().covers(name) {
            return;
        }
        let bound = match planted(Mistake::FirstNameNotWritten) && !is_known {
            true => Bound::NOTHING,
            false => session.bound.handed().with(name, size),
        };
        let number = self.write_bound(key, bound);
        if !is_known {
            self.sessions.stand(key, Standing::Opening(number));
        }
    }

    fn write_bound(&mut self, key: SessionKey, bound: Bound) -> u64 {
        let session = self.sessions.get(key);
        let record = Record::SessionOpened {
            session: session.id,
            proof: session.proof,
            time_to_live: session.time_to_live,
            embedded: self.config.process == Some(session.process),
            bound,
        };
        let number = self.write(record);
        self.sessions.get_mut(key).bound.hand_over(number, bound);
        number
    }

    /// Whether the journal knows that the waiter's session has asked for its name.
    pub(super) fn is_asked_for(&self, waiter: WaiterKey) -> bool {
        let Waiter { session, lock, .. } = *self.table.waiter(waiter);
        let bound = &self.sessions.get(session).bound;
        bound.covers(NameHashes::of(&self.table.lock(lock).name))
    }

    /// The same of one that may stand in no queue yet, before it is granted.
    pub(super) fn is_covered(&self, waiter: &Waiter) -> bool {
        let is_unasked = planted(Mistake::GrantedBeforeBound)
            || planted(Mistake::ReplyBeforeRecord)
            || planted(Mistake::FirstNameNotWritten);
        let bound = &self.sessions.get(waiter.session).bound;
        is_unasked || bound.covers(NameHashes::of(&self.table.lock(waiter.lock).name))
    }

    /// A session's entry is durable: what waited for that goes on.
    pub(super) fn bound_is_durable(&mut self, key: SessionKey, number: u64, opened: Opened) {
        let waiting: Vec<_> =
            self.sessions.get(key).waiting().iter().map(|(&r, &w)| (r, w)).collect();
        let uncovered: Vec<_> =
            waiting.into_iter().filter(|(_, waiter)| !self.is_asked_for(*waiter)).collect();
        self.sessions.get_mut(key).bound.arrived(number);
        if matches!(self.sessions.get(key).standing, Standing::Opening(n) if n == number) {
            self.sessions.stand(key, Standing::Open(opened));
            self.tell_opened(key);
            self.unsettle_waiting(key);
        }
        for (request, waiter) in uncovered {
            if self.is_asked_for(waiter) {
                self.unsettled.push(self.table.waiter(waiter).lock);
                self.unacknowledged.push((key, request));
            }
        }
    }

    /// There is no room for a session's entry: what waits for it is refused, unless one that is on its
    /// way behind it says as much.
    pub(super) fn bound_is_unwritten(&mut self, key: SessionKey, number: u64, now: Time) {
        let session = self.sessions.get_mut(key);
        if !session.bound.refused(number) {
            return;
        }
        let is_opening = matches!(session.standing, Standing::Opening(n) if n == number);
        let next = session.bound.next_number();
        if let (true, Some(next)) = (is_opening, next) {
            return self.sessions.stand(key, Standing::Opening(next));
        }
        let handed = session.bound.handed();
        let waiters: Vec<_> = session.waiting().values().copied().collect();
        for waiter in waiters {
            let lock = self.table.waiter(waiter).lock;
            if is_opening || !handed.covers(NameHashes::of(&self.table.lock(lock).name)) {
                self.refuse_waiter(waiter, Refusal::DiskFull, now);
            }
        }
        if is_opening {
            self.sessions.stand(key, Standing::New);
            if self.sessions.get(key).connection.is_none() {
                self.sessions.remove(key);
            }
        }
    }

    /// Now and then a session's bound is narrowed to what it still has: what it holds and waits for.
    /// Not while a loss is unanswered, which a later reign waits for likewise.
    pub(super) fn narrow_if_due(&mut self, key: SessionKey, now: Time) {
        let session = self.sessions.get_mut(key);
        let since = *session.bound_since.get_or_insert(now);
        let is_open = matches!(session.standing, Standing::Open(_));
        if now.since(since) < self.config.narrows_every || !is_open {
            return;
        }
        session.bound_since = Some(now);
        if session.bound.is_on_its_way() || session.has_lost() {
            return;
        }
        let session = self.sessions.get(key);
        let name_of = |lock: LockKey| NameHashes::of(&self.table.lock(lock).name);
        // In their order: what a bound becomes hangs on it.
        let held = session.leases_in_order().into_iter().map(|(_, hold)| name_of(hold.lock));
        let waiting = session.waiting().values().map(|&waiter| self.table.waiter(waiter).lock);
        let waiting = waiting.filter(|_| !planted(Mistake::NarrowedBelowWaiting)).map(name_of);
        if let Some(bound) = session.bound.narrowed(held.chain(waiting), self.config.bound) {
            self.write_bound(key, bound);
        }
    }
}

// After a take-over.
impl LeaderMachine {
    /// Whether an absent session may hold this name, or stand in its queue.
    pub(super) fn is_awaited(&self, lock: LockKey) -> bool {
        self.in_grace && self.is_awaited_for(&self.table.lock(lock).name)
    }

    /// The same of a name that may be unknown.
    pub(super) fn is_awaited_for(&self, name: &Name) -> bool {
        if !self.in_grace {
            return false;
        }
        let is_any = self.waits_until.is_some() && !planted(Mistake::BoundsBeforeWaited);
        if self.reign.is_none() || is_any {
            return true;
        }
        let name = NameHashes::of(name);
        if planted(Mistake::SilentNotAwaited) {
            return self.sessions.all().any(|key| {
                let session = self.sessions.get(key);
                let silent_from = session.deadline().since(self.clock.now());
                session.is_awaited()
                    && session.bound.covers(name)
                    && silent_from > session.time_to_live / 2
            });
        }
        self.sessions.absent.covers(name)
    }

    /// A lock with waiters that an absent session may hold is looked at again when that has come back
    /// or ended.
    pub(super) fn hold_up_if_awaited(&mut self, lock: LockKey) {
        if !self.in_grace {
            return;
        }
        let waits = self.table.is_waited_for(lock) || self.conversions.upgrading(lock).is_some();
        let name = NameHashes::of(&self.table.lock(lock).name);
        match waits && self.is_awaited(lock) {
            true => self.sessions.absent.hold_up(name, HeldUp::Lock(lock)),
            false => self.sessions.absent.forget(name, HeldUp::Lock(lock)),
        }
    }

    /// Looks again at what an absent session has held up.
    pub(super) fn look_at_freed(&mut self, now: Time) {
        while let Some(what) = self.sessions.absent.pop_freed() {
            match what {
                HeldUp::Question(number) => self.answer_question(number, now),
                HeldUp::Lock(lock) => {
                    if self.table.get(lock).is_some() && !self.is_awaited(lock) {
                        self.give_time_to_recall(lock, now);
                    }
                    self.unsettled.push(lock);
                }
            }
        }
    }

    /// Whether the journal knows that this session has asked for what it reports to hold.
    pub(super) fn has_asked_for(&self, session: &Session, held: &HeldLease) -> bool {
        self.waits_until.is_some() || session.bound.covers(NameHashes::of(&held.name))
    }
}
