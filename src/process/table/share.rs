//! Share records: how many threads and tasks of a process share a name as readers.
//!
//! ```text
//! u64   [63:24] id of a process   [23] WANTED   [22:0] count
//! ```
//! One record per process and name, in a cache line of its own. The process, the count, and whether
//! a writer waits for the count stand in *one* word, so that the record of a dead process is struck
//! by an exchange of exactly the word that was judged. Every change is a compare-and-swap of a word
//! that bears the changer's own id: a process that was taken for dead while it lived finds another
//! word there, and its readers are `Lost` instead of being counted for another process.
//!
//! The records of a name form a chain, whose head stands beside the slot's generation. A record is
//! linked under the structural lock and under no gate, and stays in its chain; a name with a chain
//! is not forgotten. A record whose process left or died is free, and taken by the next process that
//! reads the name.
//!
//! A reader adds 1 and then looks at the gate; a writer wins the gate and then looks at the counts.
//! All four are SeqCst: in their one order one of the two comes second, and sees the other.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use crate::error::LockError;

use super::{
    super::home::damaged, index::Changing, layout::ShareRecord, map::Seen, slot::Slot, step::step,
    store::Table, word::OwnerId,
};

/// The word of a share record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ShareWord(u64);

const COUNT: u64 = (1 << 23) - 1;
const WANTED: u64 = 1 << 23;
const ID_SHIFT: u32 = 24;

impl ShareWord {
    pub(super) const FREE: ShareWord = ShareWord(0);

    pub(super) const fn from_bits(bits: u64) -> ShareWord {
        ShareWord(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The record of `owner`, which shares nothing yet.
    pub(super) const fn of(owner: OwnerId) -> ShareWord {
        ShareWord(owner.get() << ID_SHIFT)
    }

    /// The process that shares. `None` if the record is free, or holds what no lock wrote.
    #[inline]
    pub(super) const fn owner(self) -> Option<OwnerId> {
        OwnerId::new(self.0 >> ID_SHIFT)
    }

    #[inline]
    pub(super) const fn is_of(self, owner: OwnerId) -> bool {
        self.0 >> ID_SHIFT == owner.get()
    }

    #[inline]
    pub(super) const fn count(self) -> u32 {
        (self.0 & COUNT) as u32
    }

    /// A writer waits until nothing is counted.
    pub(super) const fn is_wanted(self) -> bool {
        self.0 & WANTED != 0
    }

    // ---- transitions ------------------------------------------------------------------------

    /// One more; `None` if there are as many as can be counted.
    #[inline]
    pub(super) const fn added(self) -> Option<ShareWord> {
        match self.0 & COUNT == COUNT {
            true => None,
            false => Some(ShareWord(self.0 + 1)),
        }
    }

    /// One less, of a word that counts any. The last one takes WANTED out: it
    /// [rings](ShareWord::rings).
    #[inline]
    pub(super) const fn subtracted(self) -> Option<ShareWord> {
        match self.count() {
            0 => None,
            1 => Some(ShareWord((self.0 - 1) & !WANTED)),
            _ => Some(ShareWord(self.0 - 1)),
        }
    }

    /// Whether the subtraction from this word has to wake a writer.
    #[inline]
    pub(super) const fn rings(self) -> bool {
        self.is_wanted() && self.count() == 1
    }

    pub(super) const fn wanted(self) -> ShareWord {
        ShareWord(self.0 | WANTED)
    }
}

impl std::fmt::Debug for ShareWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wanted = if self.is_wanted() { ", wanted" } else { "" };
        write!(f, "{} of {}{wanted}", self.count(), self.0 >> ID_SHIFT)
    }
}

/// A slot's generation, and beside it the head of its chain of share records: the number of one,
/// 0 if the name was never shared. One load shows both, so that a lock of a name that was never
/// shared compares no more than its generation.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct Generation(AtomicU64);

const HEAD_SHIFT: u32 = 32;

impl Generation {
    /// The generation, with the head above it.
    #[inline]
    pub(super) fn with_head(&self) -> u64 {
        self.0.load(SeqCst)
    }

    #[inline]
    pub(super) fn load(&self, order: std::sync::atomic::Ordering) -> u32 {
        self.0.load(order) as u32
    }

    /// The head stays.
    pub(super) fn store(&self, generation: u32, order: std::sync::atomic::Ordering) {
        let with = |old: u64| Some(old >> HEAD_SHIFT << HEAD_SHIFT | u64::from(generation));
        let _ = self.0.fetch_update(order, Relaxed, with);
    }

    #[cfg(test)]
    pub(super) fn fetch_add(&self, more: u32, order: std::sync::atomic::Ordering) {
        self.0.fetch_add(more.into(), order);
    }

    /// The number of the chain's first record, if there is one.
    pub(super) fn head(&self) -> Option<u32> {
        some((self.with_head() >> HEAD_SHIFT) as u32)
    }

    fn link(&self, number: u32) {
        let with = |old: u64| Some(old & u64::from(u32::MAX) | u64::from(number) << HEAD_SHIFT);
        let _ = self.0.fetch_update(SeqCst, SeqCst, with);
    }
}

impl Seen for Generation {
    type Value = u32;

    #[inline]
    fn seen(&self) -> u32 {
        self.0.seen() as u32
    }

    fn seen_in_order(&self) -> u32 {
        self.0.seen_in_order() as u32
    }
}

fn some(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

impl Table {
    /// The record behind this one in its chain.
    pub(super) fn next_share(&self, number: u32) -> Result<Option<u32>, LockError> {
        // Linked in front of those that stood before, so that a chain runs to ever lower numbers.
        match some(self.share(number)?.next.load(SeqCst)) {
            Some(next) if next >= number => Err(damaged("a chain of share records is a circle")),
            next => Ok(next),
        }
    }

    /// Whether no process shares the name of this slot, as far as one look shows. For its holder.
    #[cold]
    pub(super) fn is_unshared(&self, slot: &Slot) -> bool {
        let mut next = slot.generation.head();
        while let Some(number) = next {
            let Ok(record) = self.share(number) else { return false };
            if ShareWord::from_bits(record.word.load(SeqCst)).count() > 0 {
                return false;
            }
            let Ok(following) = self.next_share(number) else { return false };
            next = following;
        }
        true
    }

    /// What the records of a slot's chain say, to people. Makes only such loads as a mapping that is
    /// not writable allows.
    pub(super) fn shares_of(&self, slot: &Slot) -> Result<Vec<ShareWord>, LockError> {
        let mut words = Vec::new();
        let mut next = some((slot.generation.0.seen() >> HEAD_SHIFT) as u32);
        while let Some(number) = next {
            let record = self.share(number)?;
            words.push(ShareWord::from_bits(record.word.seen()));
            next = some(record.next.seen()).filter(|next| *next < number);
        }
        Ok(words)
    }

    /// Strikes the records of these processes, which are dead. `dead` is sorted.
    pub(super) fn strike_dead(&self, dead: &[OwnerId]) {
        for number in 1..=self.header().shares_used.load(SeqCst) {
            let Ok(record) = self.share(number) else { return };
            let found = ShareWord::from_bits(record.word.load(SeqCst));
            if found.owner().is_some_and(|owner| dead.binary_search(&owner).is_ok()) {
                // If it fails, another process has struck it, and perhaps taken it.
                swap_share(record, found, ShareWord::FREE);
            }
        }
    }
}

/// What the record's word was; `from` if it is `to` now.
#[inline]
pub(super) fn swap_share(record: &ShareRecord, from: ShareWord, to: ShareWord) -> ShareWord {
    let swapped = record.word.compare_exchange(from.bits(), to.bits(), SeqCst, SeqCst);
    ShareWord::from_bits(swapped.unwrap_or_else(|found| found))
}

impl Changing<'_> {
    /// The number of a record for `me` in the chain of this slot, whose name stands there: a free one of the
    /// chain, or a new one. Killed at any step it leaves at most a record that no chain has.
    pub(super) fn make_share(&self, slot: &Slot, me: OwnerId) -> Result<u32, LockError> {
        let table = self.table;
        let mut next = slot.generation.head();
        while let Some(number) = next {
            let free = ShareWord::FREE;
            if swap_share(table.share(number)?, free, ShareWord::of(me)) == free {
                return Ok(number);
            }
            next = table.next_share(number)?;
        }
        let used = &table.header().shares_used;
        let number = used.load(SeqCst).checked_add(1).ok_or_else(|| damaged("it has too many"))?;
        table.grow_shares(number)?;
        step!(ShareReserved);
        used.store(number, SeqCst);
        let record = table.share(number)?;
        record.word.store(ShareWord::of(me).bits(), SeqCst);
        record.next.store(slot.generation.head().unwrap_or(0), SeqCst);
        step!(ShareFilled);
        slot.generation.link(number);
        step!(ShareLinked);
        Ok(number)
    }
}

/// The bell of a slot, on which a writer sleeps until readers are gone.
pub(super) fn ring(bell: &AtomicU32) {
    bell.fetch_add(1, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_and_tells_the_last_one() {
        let me = OwnerId::new(7).unwrap();
        let one = ShareWord::of(me).added().unwrap();
        let two = one.added().unwrap().wanted();
        assert_eq!((two.count(), two.owner(), two.rings()), (2, Some(me), false));
        let last = two.subtracted().unwrap();
        assert!(last.rings() && last.is_wanted());
        assert_eq!(last.subtracted(), Some(ShareWord::of(me)));
        assert_eq!(ShareWord::of(me).subtracted(), None);
        assert_eq!(ShareWord::from_bits(ShareWord::of(me).bits() | COUNT).added(), None);
    }

    #[test]
    fn a_generation_and_the_head_beside_it_do_not_disturb_each_other() {
        let generation = Generation::default();
        generation.store(3, SeqCst);
        assert_eq!((generation.with_head(), generation.head()), (3, None));
        generation.link(9);
        generation.store(4, SeqCst);
        assert_eq!((generation.load(SeqCst), generation.head()), (4, Some(9)));
    }
}
