//! Where the locks of a table are by name: one of them quickly, and all of them in order.
//!
//! Clients choose the names, so they are found by a keyed hash that no client knows. Their order is
//! for lists only, and most are forgotten within a round trip: a name is put in order once many
//! others have come after it, or when a session lists. From then on it is found there: to be in both
//! would cost a held lock some 12 bytes more.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    ops::Bound,
};

use hashbrown::HashTable;

use super::{
    lock::{Lock, LockKey},
    rights::reaches,
    slab::Slab,
};
use crate::name::Name;

pub(super) struct Names {
    /// Those that are not in order. Only looked up in, never gone through: its hash is another in
    /// every process.
    index: HashTable<Indexed>,
    hash: RandomState,
    order: BTreeMap<Name, LockKey>,
    /// Keys that may have to be put in order, each once, the longest here first. Some were
    /// forgotten since, and perhaps used again.
    fresh: VecDeque<LockKey>,
    /// Of each key that was ever in here.
    marks: Vec<Mark>,
}

struct Indexed {
    /// What growing needs; and most other names are told apart by it without a look at them.
    hash: u32,
    key: LockKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Nowhere,
    Fresh,
    InOrder,
}

impl Names {
    pub(super) fn new() -> Names {
        Names {
            index: HashTable::new(),
            hash: RandomState::new(),
            order: BTreeMap::new(),
            fresh: VecDeque::new(),
            marks: Vec::new(),
        }
    }

    pub(super) fn find(&self, name: &Name, locks: &Slab<Lock>) -> Option<LockKey> {
        self.find_hashed(self.hash_of(name), name, locks)
    }

    /// As [`find`](Names::find), for a caller that knows the name's hash.
    pub(super) fn find_hashed(
        &self,
        hash: u32,
        name: &Name,
        locks: &Slab<Lock>,
    ) -> Option<LockKey> {
        let is_it = |found: &Indexed| found.hash == hash && locks[found.key.0].name == *name;
        let fresh = self.index.find(spread(hash), is_it).map(|found| found.key);
        fresh.or_else(|| self.order.get(name).copied())
    }

    /// Takes in a lock under a name that is not in here, and has this hash.
    pub(super) fn add(&mut self, key: LockKey, hash: u32, locks: &Slab<Lock>) {
        self.index.insert_unique(spread(hash), Indexed { hash, key }, |other| spread(other.hash));
        let at = key.0 as usize;
        if self.marks.len() <= at {
            self.marks.resize(at + 1, Mark::Nowhere);
        }
        if self.marks[at] == Mark::Nowhere {
            self.marks[at] = Mark::Fresh;
            self.fresh.push_back(key);
        }
        if self.fresh.len() > FRESH_MAX {
            self.put_first_in_order(locks);
        }
    }

    /// Forgets the name of a lock that is no more.
    pub(super) fn remove(&mut self, key: LockKey, name: &Name) {
        let mark = &mut self.marks[key.0 as usize];
        if *mark == Mark::InOrder {
            *mark = Mark::Nowhere;
            self.order.remove(name);
        } else {
            self.remove_fresh(key, name);
        }
    }

    fn remove_fresh(&mut self, key: LockKey, name: &Name) {
        let hash = self.hash_of(name);
        let found = self.index.find_entry(spread(hash), |found| found.key == key);
        found.ok().expect("a lock is found by its name").remove();
    }

    /// Puts all of them in order.
    pub(super) fn put_in_order(&mut self, locks: &Slab<Lock>) {
        while !self.fresh.is_empty() {
            self.put_first_in_order(locks);
        }
    }

    /// Those that are in order, from the one after `after`.
    pub(super) fn after(&self, after: Option<&Name>) -> impl Iterator<Item = LockKey> + use<'_> {
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        self.order.range((from, Bound::Unbounded)).map(|(_, &key)| key)
    }

    /// Those that are in order and that `known`, of a credential, stands for, from the one after `after`.
    pub(super) fn reached_by<'a>(
        &'a self,
        known: &'a Name,
        after: Option<&Name>,
    ) -> impl Iterator<Item = LockKey> + use<'a> {
        let from = match after {
            Some(after) if after >= known => Bound::Excluded(after.clone()),
            _ => Bound::Included(known.clone()),
        };
        // The names that one stands for have no other between them.
        let names = self.order.range((from, Bound::Unbounded));
        names.take_while(move |(name, _)| reaches(known, name)).map(|(_, &key)| key)
    }

    fn put_first_in_order(&mut self, locks: &Slab<Lock>) {
        let Some(key) = self.fresh.pop_front() else { return };
        self.marks[key.0 as usize] = match locks.get(key.0) {
            Some(lock) => {
                self.remove_fresh(key, &lock.name);
                self.order.insert(lock.name.clone(), key);
                Mark::InOrder
            }
            None => Mark::Nowhere,
        };
    }

    pub(super) fn hash_of(&self, name: &Name) -> u32 {
        self.hash.hash_one(name.as_str()) as u32
    }
}

/// The table wants its bits at both ends.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// So many names may be out of order: what a list has to do before it begins.
const FRESH_MAX: usize = 1024;

#[cfg(test)]
mod tests;
