//! Share records' words: how many threads and tasks of a process share a name as readers, or how many
//! permits of a semaphore it has.
//!
//! ```text
//! u64   [63:24] id of a process   [23] WANTED   [22:0] count
//! ```
//! One record per process and name, in a cache line of its own. The process, the count, and whether
//! a writer waits for the count stand in *one* word, so that the record of a dead process is struck
//! by an exchange of exactly the word that was judged. Every change is a compare-and-swap of a word
//! that bears the changer's own id: a process that was taken for dead while it lived finds another
//! word there, and its readers are `LostHold` instead of being counted for another process.
//!
//! A reader adds 1 and then looks at the gate; a writer wins the gate and then looks at the counts.
//! All four are SeqCst: in their one order one of the two comes second, and sees the other.

use std::sync::atomic::{AtomicU64, Ordering::*};

use crate::mode::Share;

use super::word::OwnerId;

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

    /// The holder of the gate waits until less is counted.
    pub(super) const fn is_wanted(self) -> bool {
        self.0 & WANTED != 0
    }

    // ---- transitions ------------------------------------------------------------------------

    /// So much more; `None` if that cannot be counted.
    #[inline]
    pub(super) const fn added(self, share: Share) -> Option<ShareWord> {
        match COUNT - (self.0 & COUNT) >= share.count() as u64 {
            true => Some(ShareWord(self.0 + share.count() as u64)),
            false => None,
        }
    }

    /// So much less, of a word that counts it. A subtraction that [rings](ShareWord::rings) takes
    /// WANTED out.
    #[inline]
    pub(super) const fn subtracted(self, share: Share) -> Option<ShareWord> {
        let before = self.count();
        if before < share.count() {
            return None;
        }
        let rest = self.0 - share.count() as u64;
        Some(ShareWord(if share.wakes(before) { rest & !WANTED } else { rest }))
    }

    /// Whether the subtraction from this word has to wake the holder of the gate.
    #[inline]
    pub(super) const fn rings(self, share: Share) -> bool {
        self.is_wanted() && share.wakes(self.count())
    }

    /// The same, of another owner.
    #[cfg(feature = "cli")]
    pub(super) const fn moved(self, to: OwnerId) -> ShareWord {
        ShareWord(to.get() << ID_SHIFT | self.0 & (COUNT | WANTED))
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
        Generation::head_in(self.with_head())
    }

    /// The word itself, for loads of a mapping that is not writable.
    pub(super) fn word(&self) -> &AtomicU64 {
        &self.0
    }

    #[inline]
    pub(super) fn head_in(with_head: u64) -> Option<u32> {
        number_of((with_head >> HEAD_SHIFT) as u32)
    }

    pub(super) fn link(&self, number: u32) {
        let with = |old: u64| Some(old & u64::from(u32::MAX) | u64::from(number) << HEAD_SHIFT);
        let _ = self.0.fetch_update(SeqCst, SeqCst, with);
    }
}

/// The record that a stored number stands for: 0 is none.
#[inline]
pub(super) fn number_of(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests;
