//! Times at which something is due. Reads no clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Time;

/// At most one time per key.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_time: BTreeSet<(Time, K)>,
    by_key: BTreeMap<K, Time>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(super) fn new() -> Timers<K> {
        Timers { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }

    /// Sets the key's time, in place of the one it had.
    pub(super) fn set(&mut self, key: K, time: Time) {
        if let Some(old) = self.by_key.insert(key, time) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((time, key));
    }

    /// Forgets the key's time, if it has one.
    pub(super) fn clear(&mut self, key: K) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
    }

    pub(super) fn get(&self, key: K) -> Option<Time> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|&(time, _)| time)
    }

    /// Takes the first key whose time has come.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<K> {
        let &(time, key) = self.by_time.first()?;
        if time > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }
}
