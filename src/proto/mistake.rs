//! Mistakes that others made, to be planted by whoever wants to see the simulator find them.
//!
//! Each stands behind a question in the code that would be wrong with it. Without the feature
//! `mistakes`, which the program is never built with, the answer is a constant `false` and no
//! trace of the question is left.

/// One mistake, in the words of what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// Nobody allows for clocks that run at different rates.
    NoDriftAllowance,
    /// Only the client allows for them.
    OneSidedDrift,
    /// The client's deadline counts from the answer, not from its own sending.
    DeadlineFromReply,
    /// An answer that comes after the deadline brings the leases back.
    RevivedLease,
}

#[cfg(feature = "mistakes")]
mod planting {
    use std::cell::Cell;

    use super::Mistake;

    // One world is one thread, and beside it others run without mistakes.
    thread_local! {
        static PLANTED: Cell<u64> = const { Cell::new(0) };
    }

    /// From now on this thread makes these mistakes, and no others.
    pub fn plant(mistakes: &[Mistake]) {
        PLANTED.set(mistakes.iter().fold(0, |all, mistake| all | 1 << *mistake as u8));
    }

    /// Whether this thread makes that mistake.
    pub fn planted(mistake: Mistake) -> bool {
        PLANTED.get() >> mistake as u8 & 1 == 1
    }
}

#[cfg(feature = "mistakes")]
pub use planting::{plant, planted};

/// Whether that mistake is to be made: never.
#[cfg(not(feature = "mistakes"))]
#[inline(always)]
pub(super) const fn planted(_: Mistake) -> bool {
    false
}
