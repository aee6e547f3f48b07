//! What sessions have asked for, as the leader follows it: of each what the journal knows and is about to
//! know, and of all that are absent after a take-over what they hold up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    bound::{Bound, BoundSize, NameHashes},
    lock::LockKey,
    mistake::{Mistake, planted},
};

/// A session's bound, as far as it is durable and as it is on its way there.
#[derive(Default)]
pub(super) struct SessionBound {
    durable: Bound,
    /// Each whole, by the number of its record.
    on_its_way: VecDeque<(u64, Bound)>,
}

impl SessionBound {
    /// What the journal has.
    pub(super) fn durable(bound: Bound) -> SessionBound {
        SessionBound { durable: bound, on_its_way: VecDeque::new() }
    }

    /// The one that was handed to the journal last: the next is made from it.
    pub(super) fn handed(&self) -> Bound {
        match self.on_its_way.back() {
            Some((_, last)) if !planted(Mistake::BoundFromCommitted) => *last,
            _ => self.durable,
        }
    }

    /// Whether the journal has the name, and will go on having it whatever is on its way. So one that is
    /// narrowed is narrow from the moment it is handed over.
    pub(super) fn covers(&self, name: NameHashes) -> bool {
        let covers_later = |(_, bound): &(u64, Bound)| bound.covers(name);
        let is_kept = self.on_its_way.iter().all(covers_later);
        self.durable.covers(name) && (is_kept || planted(Mistake::NarrowCountsLate))
    }

    pub(super) fn is_on_its_way(&self) -> bool {
        !self.on_its_way.is_empty()
    }

    /// The number of the record that is written next.
    pub(super) fn next_number(&self) -> Option<u64> {
        self.on_its_way.front().map(|(number, _)| *number)
    }

    pub(super) fn hand_over(&mut self, number: u64, bound: Bound) {
        self.on_its_way.push_back((number, bound));
    }

    /// The record of that number is durable.
    pub(super) fn arrived(&mut self, number: u64) {
        if self.next_number() == Some(number)
            && let Some((_, bound)) = self.on_its_way.pop_front()
        {
            self.durable = bound;
        }
    }

    /// There is no room for the record of that number. Answers whether it was one of these.
    pub(super) fn refused(&mut self, number: u64) -> bool {
        let before = self.on_its_way.len();
        self.on_its_way.retain(|(known, _)| *known != number);
        self.on_its_way.len() < before
    }

    /// What to narrow it to, if that is less.
    pub(super) fn narrowed(
        &self,
        names: impl Iterator<Item = NameHashes>,
        size: BoundSize,
    ) -> Option<Bound> {
        let mut bound = Bound::NOTHING;
        for name in names {
            bound = bound.with(name, size);
            if bound.is_everything() {
                break;
            }
        }
        (bound.weight() < self.handed().weight()).then_some(bound)
    }
}

/// What waits for absent sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HeldUp {
    Lock(LockKey),
    /// A question, by its number.
    Question(u64),
}

/// The bounds of all absent sessions, and what they hold up.
#[derive(Default)]
pub(super) struct AbsentBounds {
    names: BTreeMap<u32, usize>,
    parents: BTreeMap<u32, usize>,
    everything: usize,
    by_name: BTreeSet<(u32, HeldUp)>,
    by_parent: BTreeSet<(u32, HeldUp)>,
    /// What is held up no more, or less.
    freed: Vec<HeldUp>,
}

impl AbsentBounds {
    pub(super) fn covers(&self, name: NameHashes) -> bool {
        self.everything > 0
            || self.names.contains_key(&name.of_name())
            || self.parents.contains_key(&name.of_parent())
    }

    pub(super) fn add(&mut self, bound: &Bound) {
        let (names, parents) = bound.hashes();
        names.iter().for_each(|hash| *self.names.entry(*hash).or_default() += 1);
        parents.iter().for_each(|hash| *self.parents.entry(*hash).or_default() += 1);
        self.everything += usize::from(bound.is_everything());
    }

    /// Its session has come back, or its end is durable.
    pub(super) fn remove(&mut self, bound: &Bound) {
        let (names, parents) = bound.hashes();
        for &hash in names {
            if count_down(&mut self.names, hash) {
                free(&mut self.by_name, hash, &mut self.freed);
            }
        }
        for &hash in parents {
            if count_down(&mut self.parents, hash) {
                free(&mut self.by_parent, hash, &mut self.freed);
            }
        }
        if bound.is_everything() {
            self.everything -= 1;
            if self.everything == 0 {
                self.free_all();
            }
        }
    }

    /// This waits for the sessions that cover the name.
    pub(super) fn hold_up(&mut self, name: NameHashes, what: HeldUp) {
        self.by_name.insert((name.of_name(), what));
        self.by_parent.insert((name.of_parent(), what));
    }

    /// It waits no longer.
    pub(super) fn forget(&mut self, name: NameHashes, what: HeldUp) {
        self.by_name.remove(&(name.of_name(), what));
        self.by_parent.remove(&(name.of_parent(), what));
    }

    /// All is to be looked at again.
    pub(super) fn free_all(&mut self) {
        self.by_parent.clear();
        let all = std::mem::take(&mut self.by_name);
        self.freed.extend(all.into_iter().map(|(_, what)| what));
    }

    /// The next that may be held up no more: it is to be looked at again.
    pub(super) fn pop_freed(&mut self) -> Option<HeldUp> {
        self.freed.pop()
    }
}

fn count_down(counts: &mut BTreeMap<u32, usize>, hash: u32) -> bool {
    let count = counts.get_mut(&hash).expect("it was counted");
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(&hash);
    }
    is_last
}

fn free(held: &mut BTreeSet<(u32, HeldUp)>, hash: u32, freed: &mut Vec<HeldUp>) {
    let of_hash = (hash, HeldUp::Lock(LockKey(0)))..=(hash, HeldUp::Question(u64::MAX));
    let found: Vec<_> = held.range(of_hash).copied().collect();
    for entry in found {
        held.remove(&entry);
        freed.push(entry.1);
    }
}

#[cfg(test)]
mod tests;
