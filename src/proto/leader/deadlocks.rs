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
//! - **a circle counts once a renewal of each of its sessions was read [`ON_ITS_WAY`] after it was found.** A
//!   session that is dead or stopped by then does not renew, and what it has comes back with it. A renewal
//!   that is read later than the longest way was sent when all of these requests waited already, and what its
//!   session had said before it, a cancel or a release for instance, was read before it. So at that moment
//!   all of the circle was true at once, and what is true of it then stays true;
//! - **of limits the first one decides.** Without a limit the youngest request is told. With one, that of the
//!   first limit: until then none of the others can move, so that it is the one which is sure to wait
//!   in vain. Any other may well be granted what the first leaves behind.
//!
//! What is not found: circles that pass through another leader, service or directory, through threads that
//! wait inside one process for its own lease, or through more than [`LOOKED_AT_MAX`] requests and leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use super::LeaderMachine;
use crate::{
    name::Name,
    proto::{
        SessionId,
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

/// What waiting requests pin, and the circles that are suspected.
#[derive(Default)]
pub(super) struct Deadlocks {
    pins: BTreeMap<WaiterKey, RequestPins>,
    by_lease: BTreeMap<PackedId, BTreeSet<WaiterKey>>,
    by_name: BTreeMap<Name, BTreeSet<WaiterKey>>,
    /// A circle may have formed with these.
    unlooked: BTreeSet<WaiterKey>,
    suspected: Vec<SuspectedCircle>,
    /// A session has renewed that a suspected circle may be waited for.
    is_heard: bool,
}

struct RequestPins {
    leases: Vec<PackedId>,
    above: Vec<HeldAbove>,
}

/// A circle that counts if it is still there when its sessions have been heard.
struct SuspectedCircle {
    /// Each request, and the lease that it waits for, which the next one pins.
    steps: Vec<(WaiterKey, HoldKey, PackedId)>,
    /// The sessions of these requests and leases, and since when a renewal of each is waited for.
    sessions: Vec<SessionId>,
    since: Time,
}

impl Deadlocks {
    fn add(&mut self, waiter: WaiterKey, extras: Extras) {
        let leases = extras.holds.into_iter().take(PINNED_MAX).filter_map(PackedId::of_lease);
        let leases: Vec<_> = leases.collect();
        let above: Vec<_> = extras.above.into_iter().take(PINNED_MAX).collect();
        if leases.is_empty() && above.is_empty() {
            return;
        }
        for &lease in &leases {
            self.by_lease.entry(lease).or_default().insert(waiter);
        }
        for held in &above {
            self.by_name.entry(held.name.clone()).or_default().insert(waiter);
        }
        self.pins.insert(waiter, RequestPins { leases, above });
        self.unlooked.insert(waiter);
    }

    /// The request waits no more: what others pin besides may be theirs alone now, and in the place of a
    /// circle that it was in others may have another.
    pub(super) fn forget(&mut self, waiter: WaiterKey) {
        let Some(RequestPins { leases, above }) = self.pins.remove(&waiter) else { return };
        self.unlooked.remove(&waiter);
        for lease in leases {
            if let Some(others) = self.by_lease.get_mut(&lease) {
                others.remove(&waiter);
                self.unlooked.extend(&*others);
                if others.is_empty() {
                    self.by_lease.remove(&lease);
                }
            }
        }
        for HeldAbove { name, .. } in above {
            if let Some(others) = self.by_name.get_mut(&name) {
                others.remove(&waiter);
                self.unlooked.extend(&*others);
                if others.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        let is_in = |circle: &mut SuspectedCircle| circle.requests().any(|own| own == waiter);
        let over: Vec<_> = self.suspected.extract_if(.., is_in).collect();
        for circle in over {
            self.unlooked.extend(circle.requests().filter(|&other| other != waiter));
        }
    }

    /// The request may wait for the first time in this way, or again.
    pub(super) fn look_again(&mut self, waiter: WaiterKey) {
        if self.pins.contains_key(&waiter) {
            self.unlooked.insert(waiter);
        }
    }

    pub(super) fn has_renewed(&mut self) {
        self.is_heard = !self.suspected.is_empty();
    }

    /// How many requests pin anything, and how many circles are suspected.
    #[cfg(test)]
    pub(in crate::proto) fn counts(&self) -> (usize, usize) {
        (self.pins.len(), self.suspected.len())
    }
}

impl SuspectedCircle {
    fn requests(&self) -> impl Iterator<Item = WaiterKey> {
        self.steps.iter().map(|&(waiter, ..)| waiter)
    }
}

impl LeaderMachine {
    /// A request begins to wait that may pin something.
    pub(super) fn pin(&mut self, waiter: WaiterKey, extras: Option<Box<Extras>>) {
        let session = self.table.waiter(waiter).session;
        if let Some(extras) = extras
            && self.sessions.get(session).capabilities & DEADLOCKS != 0
        {
            self.deadlocks.add(waiter, *extras);
        }
    }

    /// Looks for circles with the requests that have begun to wait.
    pub(super) fn look_for_deadlocks(&mut self, now: Time) {
        for start in mem::take(&mut self.deadlocks.unlooked) {
            let is_in = |circle: &SuspectedCircle| circle.requests().any(|own| own == start);
            if self.deadlocks.suspected.iter().any(is_in) {
                continue; // it is looked at again when that is over
            }
            let mut left = LOOKED_AT_MAX;
            let next = |waiter| self.waits_for(waiter, &mut left).map(|(_, to)| to).collect();
            let Some(circle) = circle_from(start, LOOKED_AT_MAX, next) else { continue };
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
            self.deadlocks.suspected.push(SuspectedCircle { steps, sessions, since });
            self.deadlocks.is_heard |= is_believed;
        }
    }

    /// Tells one request of each circle that is still there once its sessions have been heard.
    pub(super) fn judge_deadlocks(&mut self) {
        if !mem::take(&mut self.deadlocks.is_heard) || self.over.is_some() {
            return;
        }
        let mut open = mem::take(&mut self.deadlocks.suspected);
        // A session that is gone took its requests, and this circle, with it.
        let is_heard = |circle: &mut SuspectedCircle| {
            let known = circle.sessions.iter().filter_map(|&id| self.sessions.find(id));
            known.into_iter().all(|key| self.sessions.get(key).renewed_at >= circle.since)
        };
        let heard: Vec<_> = open.extract_if(.., is_heard).collect();
        self.deadlocks.suspected = open;
        for SuspectedCircle { steps, .. } in heard {
            // One that was told before may have been in this circle, too: then it is none any more.
            let ahead = steps.iter().cycle().skip(1);
            let stands = steps.iter().zip(ahead).all(|(&(waiter, hold, lease), &(to, ..))| {
                let is_there = |key| self.deadlocks.pins.contains_key(&key);
                is_there(waiter)
                    && is_there(to)
                    && self.hold_between(waiter, to) == Some(hold)
                    && self.holding(hold).lease == lease
            });
            let requests = steps.iter().map(|&(waiter, ..)| waiter);
            self.deadlocks
                .unlooked
                .extend(requests.clone().filter(|waiter| self.deadlocks.pins.contains_key(waiter)));
            if stands {
                let told = self.waits_in_vain(requests);
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
        let is_counted = self.deadlocks.pins.contains_key(&waiter)
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
        let by_lease = self.deadlocks.by_lease.get(&holding.lease).into_iter().flatten();
        let own = by_lease.filter(|&&waiter| self.table.waiter(waiter).session == holding.session);
        let name = &self.table.lock(hold.lock).name;
        let by_name = self.deadlocks.by_name.get(name).into_iter().flatten();
        let below = by_name.filter(|&&waiter| self.is_above(hold, waiter));
        let mut pinners = own.chain(below).copied();
        let first = pinners.next()?;
        pinners.all(|other| other == first).then_some(first)
    }

    /// Whether the holder waits for the asker's process to end, as that says.
    fn is_above(&self, hold: HoldKey, waiter: WaiterKey) -> bool {
        let Some(pins) = self.deadlocks.pins.get(&waiter) else { return false };
        let [holder, asker] = [self.holding(hold).session, self.table.waiter(waiter).session];
        if !self.is_akin(holder, asker) {
            return false;
        }
        let holder = &self.sessions.get(holder).identity;
        let (first, last) = self.table.tokens(hold);
        let name = &self.table.lock(hold.lock).name;
        let is_it = |held: &HeldAbove| {
            held.name == *name
                && (first..=last).contains(&held.token)
                && held.cluster == self.cluster
                && held.pid == holder.pid
        };
        pins.above.iter().any(is_it)
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
        let circle = Box::new(DeadlockCircle { steps: told_steps, left_out });
        self.sessions.get_mut(session).last_refused = request;
        self.tell(session, LeaderMessage::Deadlocked { request, circle });
    }

    /// A name, as this session is told it in a circle: every name passes here that it did not ask for
    /// itself.
    fn name_for(&self, _session: SessionKey, lock: LockKey) -> Option<Name> {
        Some(self.table.lock(lock).name.clone())
    }
}

/// So many leases of its session, and of others, a request can pin.
pub(super) const PINNED_MAX: usize = 64;

/// For so long at most what a process has sent before its end is on its way, or waits to be read.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// One look goes no further than this many requests or leases.
const LOOKED_AT_MAX: usize = 4_096;
