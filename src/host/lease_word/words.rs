//! What the lease word is made of: the real thing, or its stand-ins under the model checker.

pub(super) use self::these::*;

/// Mistakes that the model plants, to see that it finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Any thread enters a word that is reserved.
    EnteredUnreserved,
    /// What is given back is read after the exchange that closes the word.
    LeaseReadAfterClosing,
    /// The representative sleeps at a word that it has not marked.
    SleptUnmarked,
    /// The representative puts up where it is to be woken once it has marked the word.
    SeatedAfterMark,
    /// A guard leaves whatever the word's count is.
    LeftWithoutOwnCount,
}

#[cfg(not(tierlock_loom))]
mod these {
    use std::time::Duration;

    pub(in super::super) use std::{
        sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        thread::{Thread, current},
    };

    pub(in super::super) use parking_lot::Mutex;

    use super::Flaw;
    use crate::{clock, time::Time};

    /// No sleep exceeds this: the clock that threads sleep on stops while a machine is suspended.
    const LONGEST_NAP: Duration = Duration::from_millis(100);

    /// Until this thread is unparked, or until then; it may end sooner.
    pub(in super::super) fn park(until: Time) {
        std::thread::park_timeout(until.since(clock::now()).min(LONGEST_NAP));
    }

    #[inline(always)]
    pub(in super::super) const fn flawed(_: Flaw) -> bool {
        false
    }
}

#[cfg(tierlock_loom)]
mod these {
    use std::cell::Cell;

    pub(in super::super) use loom::{
        sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        thread::{Thread, current},
    };

    use super::Flaw;
    use crate::time::Time;

    thread_local! {
        // loom runs all threads of a model on one thread of the system.
        static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
    }

    /// From now on models on this thread of the system have this flaw.
    #[cfg(test)]
    pub(in super::super) fn plant(flaw: Option<Flaw>) {
        PLANTED.set(flaw);
    }

    pub(in super::super) fn flawed(flaw: Flaw) -> bool {
        PLANTED.get() == Some(flaw)
    }

    /// Until this thread is unparked: a sleep that nothing ends is found that way.
    pub(in super::super) fn park(_: Time) {
        loom::thread::park();
    }

    pub(in super::super) use self::ModelSeatMutex as Mutex;

    /// loom's in parking_lot's shape.
    pub(in super::super) struct ModelSeatMutex<T>(loom::sync::Mutex<T>);

    impl<T> ModelSeatMutex<T> {
        pub(in super::super) fn new(value: T) -> ModelSeatMutex<T> {
            ModelSeatMutex(loom::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}
