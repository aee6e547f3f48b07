//! What is remembered of pins and circles, each part of it bounded: what is beyond a bound is believed of
//! none, so that a deadlock may go unseen there, and none is seen that is not there.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    name::Name,
    proto::{
        SessionId,
        lock::{HoldKey, PackedId, WaiterKey},
        wire::HeldAbove,
    },
    time::Time,
};

/// What waiting requests pin, and the circles that are suspected.
#[derive(Default)]
pub(in crate::proto::leader) struct Deadlocks {
    pins: BTreeMap<WaiterKey, RequestPins>,
    by_lease: BTreeMap<PackedId, Pinners>,
    by_name: BTreeMap<Name, Pinners>,
    /// A circle may have formed with these.
    unlooked: BTreeSet<WaiterKey>,
    circles: BTreeMap<u64, SuspectedCircle>,
    next_number: u64,
    circle_of: BTreeMap<WaiterKey, u64>,
    circles_of: BTreeMap<SessionId, BTreeSet<u64>>,
    /// Circles with a session that has renewed since.
    heard: BTreeSet<u64>,
}

struct RequestPins {
    leases: Vec<PackedId>,
    above: Vec<HeldAbove>,
}

/// The requests that pin one lease, or leases of one name.
#[derive(Default)]
struct Pinners {
    known: Vec<WaiterKey>,
    /// So many besides. As long as there are any, none is believed.
    unknown: u32,
}

/// A circle that counts if it is still there when its sessions have been heard.
pub(super) struct SuspectedCircle {
    /// Each request, and the lease that it waits for, which the next one pins.
    pub(super) steps: Vec<(WaiterKey, HoldKey, PackedId)>,
    /// The sessions of these requests and leases, and when each has to have sent a renewal.
    pub(super) sessions: Vec<SessionId>,
    pub(super) since: Time,
}

/// So many requests pin anything at a time.
const PINS_MAX: usize = 65_536;
/// So many leases of its ancestors a request can pin.
pub(super) const ABOVE_MAX: usize = 8;
/// So many requests are remembered of each lease and name.
const PINNERS_MAX: usize = 8;
/// So many circles are suspected with each session.
const CIRCLES_MAX: usize = 64;

impl Pinners {
    fn add(&mut self, waiter: WaiterKey) {
        match self.known.len() < PINNERS_MAX {
            true => self.known.push(waiter),
            false => self.unknown += 1,
        }
    }

    /// Takes one out that was added. Whether none is left.
    fn remove(&mut self, waiter: WaiterKey) -> bool {
        match self.known.iter().position(|&known| known == waiter) {
            Some(at) => drop(self.known.swap_remove(at)),
            None => self.unknown -= 1,
        }
        self.known.is_empty() && self.unknown == 0
    }

    fn believed(&self) -> Option<&[WaiterKey]> {
        (self.unknown == 0).then_some(&*self.known)
    }
}

impl Deadlocks {
    pub(super) fn add(&mut self, waiter: WaiterKey, leases: Vec<PackedId>, above: Vec<HeldAbove>) {
        let is_none = leases.is_empty() && above.is_empty();
        if is_none || self.pins.len() >= PINS_MAX || self.pins.contains_key(&waiter) {
            return;
        }
        for &lease in &leases {
            self.by_lease.entry(lease).or_default().add(waiter);
        }
        for held in &above {
            self.by_name.entry(held.name.clone()).or_default().add(waiter);
        }
        self.pins.insert(waiter, RequestPins { leases, above });
        self.unlooked.insert(waiter);
    }

    /// The request waits no more: what another pins besides may be its alone now, and in the place of a
    /// circle that it was in others may have another.
    pub(in crate::proto::leader) fn forget(&mut self, waiter: WaiterKey) {
        let Some(RequestPins { leases, above }) = self.pins.remove(&waiter) else { return };
        self.unlooked.remove(&waiter);
        for lease in leases {
            let Some(pinners) = self.by_lease.get_mut(&lease) else { continue };
            if pinners.remove(waiter) {
                self.by_lease.remove(&lease);
            } else if let Some(&[last]) = pinners.believed() {
                self.unlooked.insert(last);
            }
        }
        for HeldAbove { name, .. } in above {
            let Some(pinners) = self.by_name.get_mut(&name) else { continue };
            if pinners.remove(waiter) {
                self.by_name.remove(&name);
            } else {
                // Of several leases of that name perhaps.
                self.unlooked.extend(pinners.believed().into_iter().flatten());
            }
        }
        if let Some(&number) = self.circle_of.get(&waiter) {
            for (other, ..) in self.take_circle(number).steps {
                self.look_again(other);
            }
        }
    }

    /// The request may wait for the first time in this way, or again.
    pub(in crate::proto::leader) fn look_again(&mut self, waiter: WaiterKey) {
        if self.pins.contains_key(&waiter) {
            self.unlooked.insert(waiter);
        }
    }

    /// All that is pinned may be of circles that nothing has looked for: leases of an earlier reign are back.
    pub(in crate::proto::leader) fn look_at_all(&mut self) {
        self.unlooked.extend(self.pins.keys());
    }

    pub(super) fn next_unlooked(&mut self) -> Option<WaiterKey> {
        self.unlooked.pop_first()
    }

    /// A session has renewed.
    pub(in crate::proto::leader) fn has_renewed(&mut self, session: SessionId) {
        self.heard.extend(self.circles_of.get(&session).into_iter().flatten());
    }

    pub(super) fn is_suspected(&self, waiter: WaiterKey) -> bool {
        self.circle_of.contains_key(&waiter)
    }

    /// Remembers a circle, unless a request of it is in another, or one of its sessions in too many.
    pub(super) fn suspect(&mut self, circle: SuspectedCircle, is_heard: bool) {
        let known = |id| self.circles_of.get(id).map_or(0, BTreeSet::len);
        if circle.steps.iter().any(|(waiter, ..)| self.circle_of.contains_key(waiter))
            || circle.sessions.iter().any(|id| known(id) >= CIRCLES_MAX)
        {
            return;
        }
        self.next_number += 1;
        let number = self.next_number;
        self.circle_of.extend(circle.steps.iter().map(|&(waiter, ..)| (waiter, number)));
        for &id in &circle.sessions {
            self.circles_of.entry(id).or_default().insert(number);
        }
        self.circles.insert(number, circle);
        if is_heard {
            self.heard.insert(number);
        }
    }

    /// A circle that may have been heard of.
    pub(super) fn next_heard(&mut self) -> Option<(u64, &SuspectedCircle)> {
        let number = self.heard.pop_first()?;
        self.circles.get(&number).map(|circle| (number, circle))
    }

    /// Suspects it no longer.
    pub(super) fn take_circle(&mut self, number: u64) -> SuspectedCircle {
        let circle = self.circles.remove(&number).expect("it was found there");
        for (waiter, ..) in &circle.steps {
            self.circle_of.remove(waiter);
        }
        for id in &circle.sessions {
            if let Some(numbers) = self.circles_of.get_mut(id) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.circles_of.remove(id);
                }
            }
        }
        self.heard.remove(&number);
        circle
    }

    /// Whether a request pins anything.
    pub(super) fn pins(&self, waiter: WaiterKey) -> bool {
        self.pins.contains_key(&waiter)
    }

    pub(super) fn above(&self, waiter: WaiterKey) -> &[HeldAbove] {
        self.pins.get(&waiter).map_or(&[], |pins| &pins.above)
    }

    /// The requests that pin a lease of their own session; `None` if there are too many to tell.
    pub(super) fn pinners_of(&self, lease: PackedId) -> Option<&[WaiterKey]> {
        self.by_lease.get(&lease).map_or(Some(&[]), Pinners::believed)
    }

    /// The requests that pin leases of this name, which others hold.
    pub(super) fn pinners_above(&self, name: &Name) -> Option<&[WaiterKey]> {
        self.by_name.get(name).map_or(Some(&[]), Pinners::believed)
    }

    /// How many requests pin anything, and how many circles are suspected.
    #[cfg(test)]
    pub(in crate::proto) fn counts(&self) -> (usize, usize) {
        (self.pins.len(), self.circles.len())
    }
}
