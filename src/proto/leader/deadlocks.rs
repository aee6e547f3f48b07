//! Deadlocks: requests that wait for each other, each for what only the next can give back.
//!
//! A request that waits may *pin* leases: nothing gives them back before it is granted or given up. Then a
//! circle of requests, each of which waits for a lease that the next one pins, never ends by itself, and
//! one of them is told so. A wrong word is worse than none: it is an error to a healthy program. So
//!
//! - **a pin is believed of leases of its own session only**, or, of a process that waits for the asker to
//!   end, if that is the same client on the same machine: a client can hurt no others by pins;
//! - **a lease that two requests pin counts for none**: one of them is wrong;
//! - **only a lease in the way counts as waited for**: no request is granted beside it, so that any one of
//!   several is enough. What stands before it in the queue may leave, and permits come back from any
//!   holder, so neither counts;
//! - **a lease that comes back by itself counts for none**: one with `at_most`, or that is being taken away;
//! - **a session that waits by itself is no circle**: to lock a name twice waits, as with std;
//! - **a circle counts once each of its sessions has sent a renewal after it was found**, which is known of
//!   one that was sent [`ON_ITS_WAY`] later by the fastest way of the last minutes (`sessions::RenewalClock`): by the
//!   time of its arrival alone, one that a lost network held up for seconds counted. A session that is dead or
//!   stopped by then does not renew, and what it has comes back with it. When that renewal was sent all of
//!   these requests waited already, and what its session had said before it, a cancel or a release for
//!   instance, was read before it. So at that moment all of the circle was true at once, and what is true of
//!   it then stays true;
//! - **of limits the first one decides.** Without a limit the youngest request is told. With one, that of the
//!   first limit: until then none of the others can move, so that it is the one which is sure to wait
//!   in vain. Any other may well be granted what the first leaves behind.
//!
//! What is not found: circles that pass through another leader, service or directory, through threads that
//! wait inside one process for its own lease, through more than [`LOOKED_AT_MAX`] requests and leases, or beyond
//! the limits of what is remembered (`index`).

mod index;

use std::{collections::BTreeSet, time::Duration};

pub(super) use self::index::Deadlocks;
use self::index::{ABOVE_MAX, SuspectedCircle};
use super::LeaderMachine;
use crate::{
    name::Name,
    proto::{
        circle::circle_from,
        lock::{HoldKey, LockKey, PackedId, RequestPatience, Right, SessionKey, WaiterKey},
        mistake::{Mistake, planted},
        sessions::Standing,
        wire::{
            DEADLOCK_STEPS_MAX, DEADLOCKS, DeadlockCircle, DeadlockStep, Extras, HeldAbove,
            LeaderMessage, Mode,
        },
    },
    time::Time,
};

impl LeaderMachine {
    /// A request begins to wait that may pin something: leases that its session has, and leases of others
    /// that wait for it, as far as they are known. After a change of reign those may be reported later.
    pub(super) fn pin(&mut self, waiter: WaiterKey, extras: Option<Box<Extras>>) {
        let session = self.table.waiter(waiter).session;
        let Some(extras) = extras else { return };
        if self.sessions.get(session).capabilities & DEADLOCKS == 0 {
            return;
        }
        let Extras { holds, above, .. } = *extras;
        let leases = holds.into_iter().take(PINNED_MAX).filter_map(PackedId::of_lease);
        let own = self.sessions.get(session).leases();
        let leases = leases.filter(|lease| own.get(lease).is_some()).collect();
        let above = above.into_iter().take(ABOVE_MAX);
        let above = above.filter(|held| self.in_grace || self.is_held_above(held, session));
        let above = above.collect();
        self.deadlocks.add(waiter, leases, above);
    }

    /// Looks for circles with the requests that have begun to wait: for so many at a time, and for the
    /// rest at the next message.
    pub(super) fn look_for_deadlocks(&mut self, now: Time) {
        let mut budget = LOOKED_AT_MAX;
        while budget > 0
            && let Some(start) = self.deadlocks.next_unlooked()
        {
            budget -= 1;
            if self.deadlocks.is_suspected(start) {
                continue; // it is looked at again when that is over
            }
            let mut left = LOOKED_AT_MAX;
            let next = |waiter| self.waits_for(waiter, &mut left).map(|(_, to)| to).collect();
            let circle = circle_from(start, LOOKED_AT_MAX, next);
            budget = budget.saturating_sub(LOOKED_AT_MAX - left);
            let Some(circle) = circle else { continue };
            let ahead = circle.iter().skip(1).chain([&start]);
            let pairs: Vec<_> = circle.iter().copied().zip(ahead.copied()).collect();
            let steps = pairs.into_iter().filter_map(|(waiter, to)| {
                let hold = self.hold_between(waiter, to)?;
                Some((waiter, hold, self.holding(hold).lease))
            });
            let steps: Vec<_> = steps.collect();
            let sessions: BTreeSet<SessionKey> = (steps.iter())
                .flat_map(|&(waiter, hold, _)| {
                    [self.table.waiter(waiter).session, self.holding(hold).session]
                })
                .collect();
            let sessions = sessions.into_iter().map(|key| self.sessions.get(key).id).collect();
            let is_believed = planted(Mistake::DeadlockOfTheDead);
            let since = if is_believed { Time::ZERO } else { now + ON_ITS_WAY };
            self.deadlocks.suspect(SuspectedCircle { steps, sessions, since }, is_believed);
        }
    }

    /// Tells one request of each circle that is still there once its sessions have been heard.
    pub(super) fn judge_deadlocks(&mut self) {
        if self.over.is_some() {
            return;
        }
        while let Some((number, circle)) = self.deadlocks.next_heard() {
            // A session that is gone took its requests, and this circle, with it.
            let known = circle.sessions.iter().filter_map(|&id| self.sessions.find(id));
            let is_heard = |key| self.sessions.get(key).renewals.sent_after() >= circle.since;
            if !known.into_iter().all(is_heard) {
                continue;
            }
            let SuspectedCircle { steps, .. } = self.deadlocks.take_circle(number);
            // One that was told before may have been in this circle, too: then it is none any more.
            let ahead = steps.iter().cycle().skip(1);
            let stands = steps.iter().zip(ahead).all(|(&(waiter, hold, lease), &(to, ..))| {
                self.deadlocks.pins(waiter)
                    && self.deadlocks.pins(to)
                    && self.hold_between(waiter, to) == Some(hold)
                    && self.holding(hold).lease == lease
            });
            for &(waiter, ..) in &steps {
                self.deadlocks.look_again(waiter);
            }
            if stands {
                let told = self.waits_in_vain(steps.iter().map(|&(waiter, ..)| waiter));
                self.tell_deadlock(told, &steps);
            }
        }
    }

    /// The leases that this request waits for and another request pins, each with that.
    fn waits_for<'a>(
        &'a self,
        waiter: WaiterKey,
        left: &'a mut usize,
    ) -> impl Iterator<Item = (HoldKey, WaiterKey)> + 'a {
        let asked = self.table.waiter(waiter);
        let is_counted = self.deadlocks.pins(waiter)
            && asked.present
            && asked.patience == RequestPatience::Some
            && !matches!(asked.mode, Mode::Permits { .. });
        let holds = is_counted.then(|| self.table.in_the_way(asked.lock, asked.mode));
        let holds = holds.into_iter().flatten().take_while(move |_| {
            *left = left.saturating_sub(1);
            *left > 0
        });
        holds.filter_map(|hold| Some((hold, self.pinner(hold)?)))
    }

    /// The lease by which one request waits for another.
    fn hold_between(&self, waiter: WaiterKey, to: WaiterKey) -> Option<HoldKey> {
        let mut left = LOOKED_AT_MAX;
        let mut holds = self.waits_for(waiter, &mut left);
        holds.find(|&(_, pinner)| pinner == to).map(|(hold, _)| hold)
    }

    /// The one request that nothing but its end gives this lease back before.
    fn pinner(&self, hold: HoldKey) -> Option<WaiterKey> {
        let holding = self.holding(hold);
        let comes_back = self.ends.get(hold).is_some()
            || !matches!(holding.right, Right::Whole)
            || !matches!(self.sessions.get(holding.session).standing, Standing::Open(_));
        if comes_back {
            return None;
        }
        let name = &self.table.lock(hold.lock).name;
        let own = self.deadlocks.pinners_of(holding.lease)?;
        let below = self.deadlocks.pinners_above(name)?;
        let below = below.iter().filter(|&&waiter| self.is_above(hold, waiter));
        let mut pinners = own.iter().chain(below).copied();
        let first = pinners.next()?;
        pinners.all(|other| other == first).then_some(first)
    }

    /// Whether a lease is known that an asker of this session says to be its ancestor's.
    fn is_held_above(&self, held: &HeldAbove, asker: SessionKey) -> bool {
        let lock = self.table.find(&held.name);
        let mut holds = lock.into_iter().flat_map(|lock| self.table.holds(lock));
        holds.any(|hold| self.is_it(hold, held, asker))
    }

    /// Whether the holder waits for the asker's process to end, as that says.
    fn is_above(&self, hold: HoldKey, waiter: WaiterKey) -> bool {
        let asker = self.table.waiter(waiter).session;
        self.deadlocks.above(waiter).iter().any(|held| self.is_it(hold, held, asker))
    }

    /// Whether that lease is the one which the asker names, and of a process that may wait for it.
    fn is_it(&self, hold: HoldKey, held: &HeldAbove, asker: SessionKey) -> bool {
        let holder = self.holding(hold).session;
        let (first, last) = self.table.tokens(hold);
        held.name == self.table.lock(hold.lock).name
            && (first..=last).contains(&held.token)
            && held.cluster == self.cluster
            && held.pid == self.sessions.get(holder).identity.pid
            && self.is_akin(holder, asker)
    }

    /// Whether two sessions are of one client, that is of one credential or address, and say that they are on
    /// one machine. Their labels tell nothing: `tierlock run` is called as its command is.
    fn is_akin(&self, one: SessionKey, other: SessionKey) -> bool {
        let [client, others] = [one, other].map(|key| self.sessions.client_of(key));
        let [host, other_host] = [one, other].map(|key| &self.sessions.get(key).identity.host);
        client == others && host == other_host
    }

    /// The request of a circle that is sure to wait in vain.
    fn waits_in_vain(&self, requests: impl Iterator<Item = WaiterKey>) -> WaiterKey {
        let order = |&waiter: &WaiterKey| {
            let youngest_first = std::cmp::Reverse(self.table.waiter(waiter).place);
            (self.limits.get(waiter).unwrap_or(Time::NEVER), youngest_first)
        };
        requests.min_by_key(order).expect("a circle has requests")
    }

    fn tell_deadlock(&mut self, told: WaiterKey, steps: &[(WaiterKey, HoldKey, PackedId)]) {
        let waiter = self.table.waiter(told);
        let (session, request) = (waiter.session, waiter.request);
        let at = steps.iter().position(|&(waiter, ..)| waiter == told).expect("it is in it");
        let before = steps[(at + steps.len() - 1) % steps.len()];
        let in_turn = steps.iter().cycle().skip(at).take(steps.len());
        let mut has = before.1;
        let all = in_turn.map(|&(waiter, hold, _)| {
            let asked = self.table.waiter(waiter);
            let step = DeadlockStep {
                identity: self.sessions.get(asked.session).identity.clone(),
                has: self.name_for(session, has.lock),
                waits_for: self.name_for(session, asked.lock),
            };
            has = hold;
            step
        });
        let told_steps: Vec<_> = all.take(DEADLOCK_STEPS_MAX).collect();
        let left_out = (steps.len() - told_steps.len()) as u32;
        self.drop_waiter(told);
        self.telling.count(|tally| tally.deadlocks += 1);
        let circle = Box::new(DeadlockCircle { steps: told_steps, left_out });
        self.sessions.get_mut(session).last_refused = request;
        self.tell(session, LeaderMessage::Deadlocked { request, circle });
    }

    /// A name, as this session is told it in a circle: if its credential may see it.
    fn name_for(&self, session: SessionKey, lock: LockKey) -> Option<Name> {
        let name = &self.table.lock(lock).name;
        let connection = self.sessions.get(session).connection?;
        self.rights_of(connection)?.may_see(name).then(|| name.clone())
    }
}

/// So many leases of its session, and of others, a request can pin.
pub(super) const PINNED_MAX: usize = 64;

/// For so long at most what a process has sent before its end is on its way, or waits to be read.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// One look goes no further than this many requests or leases, and after one message not much more than
/// these are looked at.
const LOOKED_AT_MAX: usize = 1_024;
