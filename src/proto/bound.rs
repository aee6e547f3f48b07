//! The bound: what an absent session may hold, or have a place in the queue of.
//!
//! An entry of the journal says which names its session has asked for: the hashes of the first few, then
//! those of the parents of a few more, then that it may be any. It is durable before a grant or a place
//! is told, so after a take-over a name is open as soon as no absent session's bound covers it: a client that
//! died with the leader holds up its own names only. A hash that two names share holds up both, which
//! is safe.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    lock::LockKey,
    mistake::{Mistake, planted},
};
use crate::name::Name;

/// How many names and parents a bound has before it covers more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundSize {
    pub names: usize,
    pub parents: usize,
}

impl BoundSize {
    /// The most that an entry has room for: with the last step, at most nine writes until it is narrowed.
    pub const LARGEST: BoundSize = BoundSize { names: FEW, parents: FEW };
}

/// What bounds know of a name. Part of the journal's format: the same in every process and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHashes {
    name: u32,
    parent: u32,
}

impl NameHashes {
    pub fn of(name: &Name) -> NameHashes {
        let text = name.as_str();
        // With its `/`, so that the parent of names without one covers only those.
        let parent = text.rfind('/').map_or("", |last| &text[..=last]);
        NameHashes { name: fnv_1a(text), parent: fnv_1a(parent) }
    }
}

fn fnv_1a(text: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    text.bytes().fold(0x811c_9dc5, step)
}

const FEW: usize = 4;

/// Some hashes, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FewHashes {
    count: u8,
    all: [u32; FEW],
}

impl FewHashes {
    fn as_slice(&self) -> &[u32] {
        &self.all[..usize::from(self.count)]
    }

    fn contains(&self, hash: u32) -> bool {
        self.as_slice().contains(&hash)
    }

    fn insert(&mut self, hash: u32) {
        let at = self.as_slice().partition_point(|known| *known < hash);
        self.all.copy_within(at..usize::from(self.count), at + 1);
        self.all[at] = hash;
        self.count += 1;
    }

    /// `None` unless there are few, each once and in order.
    fn read(hashes: &[u32]) -> Option<FewHashes> {
        let is_ordered = hashes.is_sorted_by(|one, next| one < next);
        if hashes.len() > FEW || !is_ordered {
            return None;
        }
        let mut few = FewHashes { count: hashes.len() as u8, ..FewHashes::default() };
        few.all[..hashes.len()].copy_from_slice(hashes);
        Some(few)
    }
}

/// The names that a session has asked for, and perhaps more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    names: FewHashes,
    parents: FewHashes,
    is_everything: bool,
}

impl Bound {
    /// It has asked for nothing.
    pub const NOTHING: Bound = Bound {
        names: FewHashes { count: 0, all: [0; FEW] },
        parents: FewHashes { count: 0, all: [0; FEW] },
        is_everything: false,
    };

    /// It may have asked for any name, as every session of an older release may.
    pub const EVERYTHING: Bound = Bound { is_everything: true, ..Bound::NOTHING };

    pub fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Whether the session may have asked for this name.
    pub fn covers(&self, name: NameHashes) -> bool {
        self.is_everything || self.names.contains(name.name) || self.parents.contains(name.parent)
    }

    /// The same with one more name.
    pub fn with(mut self, name: NameHashes, size: BoundSize) -> Bound {
        let has_room = |few: &FewHashes, most: usize| few.as_slice().len() < most.min(FEW);
        if self.covers(name) {
            return self;
        }
        if has_room(&self.names, size.names) {
            self.names.insert(name.name);
            self
        } else if has_room(&self.parents, size.parents) {
            self.parents.insert(name.parent);
            self
        } else {
            Bound::EVERYTHING
        }
    }

    /// The more it has, the more names it holds up.
    fn weight(&self) -> usize {
        let parents = self.parents.as_slice().len();
        self.names.as_slice().len() + (FEW + 1) * parents + usize::from(self.is_everything) * 1000
    }

    /// The hashes of its names and of its parents, in order.
    pub(super) fn hashes(&self) -> (&[u32], &[u32]) {
        (self.names.as_slice(), self.parents.as_slice())
    }

    /// One that does not cover everything, as it was written.
    pub(super) fn read(names: &[u32], parents: &[u32]) -> Option<Bound> {
        let (names, parents) = (FewHashes::read(names)?, FewHashes::read(parents)?);
        Some(Bound { names, parents, is_everything: false })
    }
}

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
    pub(super) fn committed(&mut self, number: u64) {
        if self.next_number() == Some(number)
            && let Some((_, bound)) = self.on_its_way.pop_front()
        {
            self.durable = bound;
        }
    }

    /// There is no room for the record of that number. Answers whether it was one of these.
    pub(super) fn unwritten(&mut self, number: u64) -> bool {
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
            if bound.is_everything {
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
    let_go: Vec<HeldUp>,
}

impl AbsentBounds {
    pub(super) fn covers(&self, name: NameHashes) -> bool {
        self.everything > 0
            || self.names.contains_key(&name.name)
            || self.parents.contains_key(&name.parent)
    }

    pub(super) fn add(&mut self, bound: &Bound) {
        let (names, parents) = bound.hashes();
        names.iter().for_each(|hash| *self.names.entry(*hash).or_default() += 1);
        parents.iter().for_each(|hash| *self.parents.entry(*hash).or_default() += 1);
        self.everything += usize::from(bound.is_everything);
    }

    /// Its session has come back, or its end is durable.
    pub(super) fn remove(&mut self, bound: &Bound) {
        let (names, parents) = bound.hashes();
        for &hash in names {
            if count_down(&mut self.names, hash) {
                let_go(&mut self.by_name, hash, &mut self.let_go);
            }
        }
        for &hash in parents {
            if count_down(&mut self.parents, hash) {
                let_go(&mut self.by_parent, hash, &mut self.let_go);
            }
        }
        if bound.is_everything {
            self.everything -= 1;
            if self.everything == 0 {
                self.let_go_all();
            }
        }
    }

    /// This waits for the sessions that cover the name.
    pub(super) fn hold_up(&mut self, name: NameHashes, what: HeldUp) {
        self.by_name.insert((name.name, what));
        self.by_parent.insert((name.parent, what));
    }

    /// All is to be looked at again.
    pub(super) fn let_go_all(&mut self) {
        self.by_parent.clear();
        let all = std::mem::take(&mut self.by_name);
        self.let_go.extend(all.into_iter().map(|(_, what)| what));
    }

    /// The next that may be held up no more: it is to be looked at again.
    pub(super) fn pop_let_go(&mut self) -> Option<HeldUp> {
        self.let_go.pop()
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

fn let_go(held: &mut BTreeSet<(u32, HeldUp)>, hash: u32, freed: &mut Vec<HeldUp>) {
    let of_hash = (hash, HeldUp::Lock(LockKey(0)))..=(hash, HeldUp::Question(u64::MAX));
    let found: Vec<_> = held.range(of_hash).copied().collect();
    for entry in found {
        held.remove(&entry);
        freed.push(entry.1);
    }
}

#[cfg(test)]
mod tests;
