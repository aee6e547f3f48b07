//! How locks change hands: whether a waiter may be granted a free lock ([`judge`](LeaderMachine::judge)), the
//! grant, and the end of a hold. Every grant comes from here, to a newcomer that need not queue and to the
//! first of a queue.

use std::time::Duration;

use super::{GrantVerdict, LeaderMachine, after};
use crate::{
    error::{LostReason, Predecessor},
    proto::{
        LeaseId, RequestId, count_long,
        lock::{HoldKey, Holding, LockKey, PackedId, Recall, Right, SessionKey, Waiter, WaiterKey},
        mistake::{Mistake, planted},
        record::{Record, Reserved, TakenAway},
        sessions::Standing,
        table::Next,
        wire::{HolderInfo, LeaderMessage, Mode, NameUse, Refusal, SHARES},
    },
    time::Time,
    token::Token,
};

impl LeaderMachine {
    /// Gives every lock that may have become free to the next in its queue, and tells those that
    /// go on waiting their places.
    pub(super) fn settle(&mut self, now: Time) {
        if self.in_grace {
            self.end_grace_if_over(now);
            self.look_at_freed(now);
        }
        self.tell_late_recalls(now);
        self.step_raise(now);
        self.judge_deadlocks();
        while let Some(lock) = self.unsettled.pop() {
            self.settle_lock(lock, now);
        }
        self.look_for_deadlocks(now);
        self.tell_observers();
        let mut unacknowledged = std::mem::take(&mut self.unacknowledged);
        for (key, request) in unacknowledged.drain(..) {
            // One that is not durable yet is told its place then.
            if let Some(&waiter) = self.sessions.get(key).waiting().get(&request)
                && (self.is_asked_for(waiter) || planted(Mistake::QueuedBeforeBound))
            {
                let Waiter { lock, place, .. } = *self.table.waiter(waiter);
                let (place, holder) = (place.place(), self.holder(lock, now));
                self.tell(key, LeaderMessage::Queued { request, place, holder });
            }
        }
        self.unacknowledged = unacknowledged; // its room is used again
    }

    fn settle_lock(&mut self, lock: LockKey, now: Time) {
        if self.table.get(lock).is_none() {
            return; // forgotten meanwhile
        }
        self.hold_up_if_awaited(lock);
        let is_open = self.convert_if_due(lock, now);
        while is_open
            && let Some(waiter) = self.next_waiter(lock)
            && self.table.has_room(lock, self.table.waiter(waiter).mode)
            && self.try_grant(waiter, now)
        {
            if planted(Mistake::OneGrantPerEvent) && self.table.is_held(lock) {
                break;
            }
        }
        self.recall_if_wanted(lock);
        self.refuse_impatient_upgrade(lock);
        self.refuse_impatient(lock, now);
        if self.disputes.get(lock).is_none() {
            self.table.forget_if_unused(lock);
        }
    }

    /// Tells those that only try that it is held, as soon as that is sure.
    fn refuse_impatient(&mut self, lock: LockKey, now: Time) {
        let mut impatient: Vec<_> = self.table.impatient_of(lock).collect();
        impatient.retain(|&waiter| {
            let Waiter { mode, .. } = *self.table.waiter(waiter);
            self.is_surely_held(lock, mode, None)
        });
        for waiter in impatient {
            self.refuse_waiter(waiter, Refusal::WouldBlock, now);
        }
    }

    /// Another session waits: a lease that may be kept and is in its way is asked back, once per
    /// connection of its session for as long as that is so.
    fn recall_if_wanted(&mut self, lock: LockKey) {
        let first = self.table.first_present(lock).map(|waiter| self.table.waiter(waiter).mode);
        // An upgrade stands before the queue.
        let upgrades = self.conversions.upgrading(lock).map(|_| Mode::Exclusive);
        let Some(mode) = upgrades.or(first) else { return };
        let in_the_way: Vec<_> = self.table.in_the_way(lock, mode).collect();
        for hold in in_the_way {
            let holding = *self.holding(hold);
            if self.table.is_keepable(hold)
                && matches!(holding.recall, Recall::No | Recall::Kept)
                && self.sessions.get(holding.session).connection.is_some()
                && !(planted(Mistake::SharedNotRecalled)
                    && mode == Mode::Exclusive
                    && hold.joint_key().is_some())
            {
                self.table.recalled(hold, Recall::Asked);
                self.tell_recalled(hold);
                let lease = holding.lease.lease();
                self.tell(holding.session, LeaderMessage::Recall { lease });
                if planted(Mistake::OneKeeperRecalled) {
                    break;
                }
            }
        }
    }

    /// Whether a try in this mode can be told that it is held. Of a lease that may be kept that
    /// is known once its session has answered a recall, or cannot.
    /// Of a reserved name that is so for all but the request that has never heard of its grant.
    pub(super) fn is_surely_held(
        &self,
        lock: LockKey,
        mode: Mode,
        by: Option<(SessionKey, RequestId)>,
    ) -> bool {
        if self.is_awaited(lock) {
            return false;
        }
        let mut in_the_way = self.table.in_the_way(lock, mode).peekable();
        if in_the_way.peek().is_some() {
            return in_the_way.any(|hold| !self.may_come(hold));
        }
        if !self.table.is_held(lock) {
            return self.is_reserved_from(lock, by);
        }
        // There is room beside its holders. It is held by the first that waits for them to leave.
        if let Some(upgrading) = self.conversions.upgrading(lock) {
            let mut others = self.table.holds(lock).filter(|&hold| hold != upgrading);
            return others.any(|hold| !self.may_come(hold));
        }
        let Some(first) = self.table.first_present(lock) else { return false };
        let Waiter { mode, session, request, .. } = *self.table.waiter(first);
        by != Some((session, request))
            && self.table.in_the_way(lock, mode).any(|hold| !self.may_come(hold))
    }

    /// Whether a lease may be kept without a guard, so that its session gives it back when asked.
    fn may_come(&self, hold: HoldKey) -> bool {
        let holding = self.holding(hold);
        self.table.is_keepable(hold)
            && holding.recall != Recall::InUse
            && self.sessions.get(holding.session).connection.is_some()
    }

    /// Whether a waiter stands behind holders or other waiters, not only behind the disk.
    pub(super) fn is_passed_over(&self, waiter: WaiterKey) -> bool {
        let Waiter { lock, mode, .. } = *self.table.waiter(waiter);
        let is_next = self.table.first_present(lock) == Some(waiter);
        let is_upgraded = self.conversions.upgrading(lock).is_some();
        let has_room = is_next && !is_upgraded && self.table.has_room(lock, mode);
        let is_free = !self.table.is_held(lock) || has_room;
        !is_free && !self.is_awaited(lock)
    }

    /// What a session is told of a name that others use in another way.
    pub(super) fn used_as(&self, key: SessionKey, in_force: NameUse) -> Refusal {
        match self.sessions.get(key).capabilities & SHARES {
            0 => Refusal::NotSupported,
            _ => Refusal::UsedAs(in_force),
        }
    }

    /// Grants a free lock to the first in its queue, or refuses a first that may not have it.
    /// Answers `false` if both have to wait for something durable.
    fn try_grant(&mut self, key: WaiterKey, now: Time) -> bool {
        let waiter = self.table.waiter(key);
        let (lock, session) = (waiter.lock, waiter.session);
        match self.judge(waiter, now) {
            GrantVerdict::Granted(lease, token) => match waiter.at_least {
                None => {
                    let waiter = self.take_waiter(key);
                    self.grant(&waiter, lease, token, now);
                }
                Some(at_least) => match self.may_reserve(lock, session) {
                    Ok(()) => {
                        self.reserve(key, at_least, token);
                        return false;
                    }
                    Err(why) => self.refuse_waiter(key, why, now),
                },
            },
            GrantVerdict::Waits => return false,
            GrantVerdict::NeedsEpoch(needed) if self.ask_epoch(needed) => {
                self.awaiting_epoch.insert(lock);
                return false;
            }
            GrantVerdict::NeedsEpoch(_) => self.refuse_waiter(key, Refusal::Tokens, now),
            GrantVerdict::NeedsRaise(needed) => match self.ask_raise(needed, now) {
                Ok(()) => {
                    self.awaiting_epoch.insert(lock);
                    return false;
                }
                Err(why) => self.refuse_waiter(key, why, now),
            },
            GrantVerdict::Refused(why) => self.refuse_waiter(key, why, now),
            GrantVerdict::Expired => self.expire(session),
        }
        true
    }

    /// Whether a free lock can be granted to its first waiter.
    pub(super) fn judge(&self, waiter: &Waiter, now: Time) -> GrantVerdict {
        let Some(reign) = &self.reign else { return GrantVerdict::Waits };
        let in_grace = self.is_awaited(waiter.lock) && !planted(Mistake::NoGrace);
        let waits = in_grace || self.is_paused() || self.disputes.get(waiter.lock).is_some();
        if self.over.is_some() || waits {
            return GrantVerdict::Waits;
        }
        let epoch = reign.epoch();
        let session = self.sessions.get(waiter.session);
        match &session.standing {
            Standing::Open(_opened) => {}
            Standing::Opening(_) if planted(Mistake::ReplyBeforeRecord) => {}
            _ => return GrantVerdict::Waits,
        }
        if !self.is_covered(waiter) {
            return GrantVerdict::Waits;
        }
        if session.deadline() <= now {
            // Nothing is granted on a session that is over: etcd#11456.
            return GrantVerdict::Expired;
        }
        if session.answerable_for() >= self.config.leases_per_session_max {
            return GrantVerdict::Refused(Refusal::TooManyLeases);
        }
        if let Some(needed) = self.raise_for(waiter.above, epoch) {
            return GrantVerdict::NeedsRaise(needed);
        }
        let lease = PackedId::new(epoch, self.leases_made + 1);
        match (self.table.next_token(waiter.lock, waiter.mode, waiter.above, epoch), lease) {
            (Some(Next::Token(token)), Some(lease)) => GrantVerdict::Granted(lease, token),
            (Some(Next::Token(_)), None) => GrantVerdict::NeedsEpoch(epoch + 1),
            (Some(Next::Epoch(needed)), _) => GrantVerdict::NeedsEpoch(needed),
            (None, _) => GrantVerdict::Refused(Refusal::Tokens),
        }
    }

    /// As `grant`, with `at_least`.
    pub(super) fn grant_reserved(
        &mut self,
        waiter: &Waiter,
        lease: PackedId,
        token: Token,
        now: Time,
        _proof: &Reserved,
    ) {
        self.give(waiter, lease, token, now);
    }

    pub(super) fn grant(&mut self, waiter: &Waiter, lease: PackedId, token: Token, now: Time) {
        assert!(waiter.at_least.is_none(), "its entry is to be durable first");
        self.give(waiter, lease, token, now);
    }

    fn give(&mut self, waiter: &Waiter, lease: PackedId, token: Token, now: Time) {
        self.leases_made += 1;
        let hold = self.table.grant(waiter, lease, token, now);
        // The last minute is shown by the driver's clock, which lateness does not stop.
        let at = self.clock.raw();
        self.telling.count(|tally| tally.granted(waiter.mode, now.since(waiter.since), at));
        self.given = self.given.max(self.table.tokens(hold).1);
        self.sessions.add_lease(waiter.session, lease, hold);
        if let Some(value) = &waiter.value {
            self.values.lead(lease, value.clone());
        }
        self.may_lead_otherwise(hold);
        if let Some(at_most) = waiter.at_most {
            self.ends.set(hold, now + count_long(at_most));
        }
        self.tell_granted(hold, waiter.at_most);
    }

    pub(super) fn tell_granted(&mut self, hold: HoldKey, at_most: Option<Duration>) {
        let Holding { lease, request, session, .. } = *self.holding(hold);
        let predecessor = self.table.lock(hold.lock).predecessor;
        let (first, last) = self.table.tokens(hold);
        let granted = LeaderMessage::Granted {
            request,
            lease: lease.lease(),
            first,
            last,
            predecessor,
            at_most,
        };
        self.tell(session, granted);
    }

    /// A lease is over: its holder says so, or a durable record allows it.
    pub(super) fn vacate(&mut self, hold: HoldKey, how: Option<Predecessor>) -> Holding {
        self.conversions.forget(hold);
        self.may_lead_otherwise(hold);
        let holding = self.table.vacate(hold, how);
        self.tell_vacated(&holding);
        self.values.leave(holding.lease);
        self.sessions.remove_lease(holding.session, holding.lease);
        self.ends.clear(hold);
        if planted(Mistake::LeaseIdReused)
            && holding.lease.lease() == (LeaseId { epoch: self.epoch(), count: self.leases_made })
        {
            self.leases_made -= 1;
        }
        if !(planted(Mistake::LostWakeUp) && how == Some(Predecessor::Panicked)) {
            self.unsettled.push(hold.lock);
        }
        holding
    }

    /// The time of a hold is over: it reached its `at_most`, or the last promise its loser had.
    pub(super) fn end_hold(&mut self, hold: HoldKey) {
        match self.holding(hold).right {
            Right::Whole => self.take_away(hold, LostReason::HeldTooLong),
            Right::Ending => unreachable!("it waits for the disk, not for a time"),
            Right::Ended(why, _) => drop(self.vacate(hold, Some(after(why)))),
        }
    }

    /// Begins to take a lease away. Its holder is told once that is durable.
    pub(super) fn take_away(&mut self, hold: HoldKey, why: LostReason) {
        let Holding { lease, session, .. } = *self.holding(hold);
        if let Standing::Ending(_) = self.sessions.get(session).standing {
            return; // it is being taken away with all the others
        }
        let record = Record::LeaseRevoked {
            session: self.sessions.get(session).id,
            lease: lease.lease(),
            name: self.table.lock(hold.lock).name.clone(),
            token: self.table.tokens(hold).1,
            why,
        };
        self.tell_taken_away(hold, why);
        self.ends.clear(hold);
        self.conversions.forget(hold);
        self.table.take_away(hold);
        self.write(record);
    }

    /// The loss is durable: its holder is told. The name is free when the holder has answered,
    /// or when what the holder was promised last has passed.
    pub(super) fn lease_is_lost(
        &mut self,
        key: SessionKey,
        lease: LeaseId,
        why: LostReason,
        proof: TakenAway,
    ) {
        let id = PackedId::of_lease(lease).expect("one of ours");
        let Some(&hold) = self.sessions.get(key).leases().get(&id) else {
            // Given back meanwhile, or one that was never confirmed.
            if why == LostReason::Forgotten {
                self.sessions.revoke(key, id, why, proof);
                self.tell(key, LeaderMessage::Lost { lease, why });
            }
            return;
        };
        self.sessions.revoke(key, id, why, proof);
        self.table.taken_away(hold, why, proof);
        if planted(Mistake::BreakAtOnce) {
            self.vacate(hold, Some(after(why)));
            return self.tell(key, LeaderMessage::Lost { lease, why });
        }
        // What is promised later is promised after `Lost`, on the same connection or the next.
        self.ends.set(hold, self.sessions.get(key).deadline());
        self.tell(key, LeaderMessage::Lost { lease, why });
    }

    pub(super) fn take_waiter(&mut self, key: WaiterKey) -> Waiter {
        self.deadlocks.forget(key);
        let waiter = self.table.dequeue(key);
        self.limits.clear(key);
        self.sessions.remove_waiter(waiter.session, waiter.request);
        waiter
    }

    pub(super) fn drop_waiter(&mut self, key: WaiterKey) -> Waiter {
        let waiter = self.take_waiter(key);
        self.unsettled.push(waiter.lock);
        // One that is over without having heard of its grant has nothing reserved.
        self.request_is_over(waiter.session, waiter.request);
        waiter
    }

    pub(super) fn refuse_waiter(&mut self, waiter: WaiterKey, why: Refusal, now: Time) {
        let is_contended = matches!(why, Refusal::TimedOut | Refusal::WouldBlock);
        let ahead = is_contended.then(|| self.table.waiters_before(waiter));
        let waiter = self.drop_waiter(waiter);
        let holder = self.holder(waiter.lock, now).map(|holder| HolderInfo { ahead, ..holder });
        self.refuse(waiter.session, waiter.request, why, holder);
    }

    pub(super) fn unsettle_waiting(&mut self, key: SessionKey) {
        for &waiter in self.sessions.get(key).waiting().values() {
            self.unsettled.push(self.table.waiter(waiter).lock);
        }
    }
}
