//! Times at which something is due. Reads no clock.

use std::{cmp::Reverse, collections::BinaryHeap, hash::Hash};

use super::numbered::Numbered;
use crate::time::Time;

/// At most one time per key.
///
/// Most times are cleared long before they come. So their entries stay where they are until they
/// are the first, or are thrown out all together once they are the most of all.
#[derive(Debug)]
pub(super) struct Timers<K> {
    /// What was set, the soonest first. An entry counts if it is what `times` says of its key; the
    /// first one does.
    entries: BinaryHeap<Reverse<(Time, K)>>,
    times: Numbered<K, Time>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(super) fn new() -> Timers<K> {
        Timers { entries: BinaryHeap::new(), times: Numbered::default() }
    }

    /// Sets the key's time, in place of the one it had.
    pub(super) fn set(&mut self, key: K, time: Time) {
        let before = self.times.insert(key, time);
        if before == Some(time) {
            return; // its entry is there
        }
        if self.entries.len() > 2 * self.times.len() + STALE_MIN {
            let Timers { entries, times } = self;
            entries.retain(|Reverse((time, key))| times.get(key) == Some(time));
        }
        self.entries.push(Reverse((time, key)));
        if before.is_some() {
            self.drop_stale();
        }
    }

    /// Forgets the key's time, if it has one.
    pub(super) fn clear(&mut self, key: K) {
        if self.times.remove(&key).is_some() {
            self.drop_stale();
        }
    }

    pub(super) fn get(&self, key: K) -> Option<Time> {
        self.times.get(&key).copied()
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.entries.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes the first key that is due.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<K> {
        let &Reverse((time, key)) = self.entries.peek()?;
        if time > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }

    /// Sees to it that the first entry counts.
    fn drop_stale(&mut self) {
        while let Some(Reverse((time, key))) = self.entries.peek()
            && self.times.get(key) != Some(time)
        {
            self.entries.pop();
        }
    }
}

/// So many entries without a meaning are borne, however few have one.
const STALE_MIN: usize = 64;

#[cfg(test)]
mod tests;
