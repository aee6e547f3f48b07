//! Which guards of a name are inside in this process, whatever became of their rights.

#[cfg(tierlock_loom)]
use loom::sync::atomic::{AtomicU64, Ordering::*};
#[cfg(not(tierlock_loom))]
use std::sync::atomic::{AtomicU64, Ordering::*};

/// Says whether a guard of this name is inside in this process.
///
/// The gate decides. But a right can be lost while its guard exists, and then another thread of
/// this process can win the gate: it finds the cell occupied, gives the gate back, and waits. The
/// data and the anchor's state are plain memory, and nothing else protects them then.
///
/// | cell | inside |
/// |---|---|
/// | 0, or another fork generation | no guard of this process |
/// | generation | one that excludes all others |
/// | generation, readers | so many readers that stand *apart*: each has a lease of its own, in a word of its own, so that no other word shows them; or the upgradable reader that has the gate, which no word shows once that is lost |
///
/// Readers that come in past the gate are counted elsewhere and leave no mark here.
///
/// **What it does not exclude.** A writer looks and then stores, in two plain steps. They are one step as
/// long as the gate is held from the exchange that won it to the store, since only its holder enters. A
/// right that is lost between these two, a few instructions apart, is that of a process that was stopped right
/// there for longer than its lease, or was judged to be dead there though it lived. If then another
/// thread wins the gate, and looks and stores in the same nanoseconds in which the stopped one goes on, both
/// are inside. An exchange here would leave the first part, a thread between the gate and the cell, and close
/// the second; it takes as long as a third of a quiet lock and unlock.
pub(crate) struct GuardCell(AtomicU64);

/// One reader that stands apart.
const APART: u64 = 1 << 32;

impl GuardCell {
    pub(in crate::path) fn new() -> GuardCell {
        GuardCell(AtomicU64::new(0))
    }

    /// Occupies it, for the holder of the gate; false if a guard is inside. `generation` is the
    /// fork generation, not 0: a guard that existed at a fork is not inside in the child.
    #[inline]
    pub(crate) fn enter(&self, generation: u32) -> bool {
        // Plain accesses: it changes under the gate, but for a guard that has lost its right, and such a
        // guard only leaves.
        let is_free = !self.is_occupied(generation);
        if is_free {
            self.0.store(generation.into(), Relaxed);
        }
        is_free
    }

    /// Whether a guard is inside that a writer cannot stand beside.
    #[inline]
    pub(crate) fn is_occupied(&self, generation: u32) -> bool {
        self.0.load(Acquire) as u32 == generation
    }

    /// Whether a guard is inside that a reader cannot stand beside.
    #[inline]
    pub(crate) fn has_writer(&self, generation: u32) -> bool {
        self.0.load(SeqCst) == u64::from(generation)
    }

    /// The guard goes; to be called before its gate is released.
    #[inline]
    pub(crate) fn leave(&self) {
        self.0.store(0, Release);
    }

    /// A reader comes in apart, under the gate, and so beside no writer that is about to enter; false
    /// if a writer is inside.
    pub(crate) fn enter_apart(&self, generation: u32) -> bool {
        let beside = |cell: u64| match cell as u32 == generation {
            true if cell < APART => None,
            true => Some(cell + APART),
            false => Some(APART | u64::from(generation)),
        };
        self.0.fetch_update(AcqRel, Acquire, beside).is_ok()
    }

    /// A guard goes that stands apart, a reader, or the writer that one became.
    pub(crate) fn leave_apart(&self, generation: u32) {
        let without = |cell: u64| {
            (cell as u32 == generation).then(|| match cell.saturating_sub(APART) {
                left if left < APART => 0,
                left => left,
            })
        };
        let left = self.0.fetch_update(AcqRel, Acquire, without);
        debug_assert!(left.is_ok(), "it was inside");
    }

    /// The only reader that stands apart becomes a writer; false if another does, too. It looks for readers
    /// that are counted elsewhere next, and they look here once they are counted: in one order for all.
    pub(crate) fn upgrade(&self, generation: u32) -> bool {
        let (reader, writer) = (APART | u64::from(generation), generation.into());
        self.0.compare_exchange(reader, writer, SeqCst, Acquire).is_ok()
    }

    /// The writer that is inside becomes a reader that stands apart.
    pub(crate) fn downgrade(&self, generation: u32) {
        self.0.store(APART | u64::from(generation), Release);
    }
}

#[cfg(all(test, not(tierlock_loom)))]
mod tests;
