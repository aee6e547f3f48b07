//! What the lock is made of: the real thing, or its stand-ins under the model checker.

#[cfg(not(tierlock_loom))]
pub(super) use self::real::*;

#[cfg(tierlock_loom)]
pub(super) use self::modelled::*;

#[cfg(not(tierlock_loom))]
mod real {
    pub(in super::super) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    pub(in super::super) use parking_lot_core::SpinWait;

    use crate::fork::{self, FirstMade, PerFork};

    pub(in super::super) use crate::{
        clock::now,
        fork::{Condvar, MutexGuard, generation},
    };

    /// The queues of a lock, in each process that was forked from the one that made it.
    ///
    /// Those of a parent stand in its child as they were, perhaps half changed, with waiters that
    /// are not there: the child never looks at them.
    pub(in super::super) struct Queues<T>(FirstMade<PerFork<fork::Mutex<Option<T>>>>);

    impl<T> Queues<T> {
        pub(in super::super) const fn new() -> Queues<T> {
            Queues(FirstMade::new())
        }

        /// `None` until this process first put something there.
        pub(in super::super) fn lock(&self) -> MutexGuard<'_, Option<T>> {
            let all = self.0.get_or_make(|| {
                // Where forks cannot be noticed, nothing differs from any other mutex.
                let _ = fork::watch();
                PerFork::unset()
            });
            all.here(|| fork::Mutex::new(None)).lock()
        }
    }
}

/// loom's types in parking_lot's shape, and a clock of the model's own: loom knows no time, and its
/// atomics are no constants.
#[cfg(tierlock_loom)]
mod modelled {
    use std::{
        cell::Cell,
        ops::{Deref, DerefMut},
        time::Duration,
    };

    pub(in super::super) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    use crate::time::Time;

    /// What time does while a model runs.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(in super::super) enum Clock {
        /// It stands still: no waiter is ever due.
        Still,
        /// Between two readings everybody who waits has become due.
        Hurry,
        /// Between two readings a hand-over has lapsed, and the first few naps end of themselves.
        Restless,
    }

    thread_local! {
        // loom runs all threads of a model on one thread of the system.
        static CLOCK: Cell<Clock> = const { Cell::new(Clock::Still) };
        static NOW: Cell<Time> = const { Cell::new(Time::ZERO) };
        static NAPS_THAT_END: Cell<u32> = const { Cell::new(0) };
    }

    pub(in super::super) fn start(clock: Clock) {
        CLOCK.set(clock);
        NOW.set(Time::ZERO);
        NAPS_THAT_END.set(if clock == Clock::Restless { 2 } else { 0 });
    }

    pub(in super::super) fn now() -> Time {
        let step = match CLOCK.get() {
            Clock::Still => Duration::ZERO,
            Clock::Hurry => 2 * super::super::PATIENCE,
            Clock::Restless => 2 * super::super::LAPSE,
        };
        NOW.set(NOW.get() + step);
        NOW.get()
    }

    pub(in super::super) struct SpinWait;

    impl SpinWait {
        pub(in super::super) fn new() -> SpinWait {
            SpinWait
        }

        pub(in super::super) fn spin_no_yield(&mut self) {}
    }

    /// No model forks.
    pub(in super::super) fn generation() -> u64 {
        0
    }

    pub(in super::super) struct Queues<T>(Mutex<Option<T>>);

    impl<T> Queues<T> {
        pub(in super::super) fn new() -> Queues<T> {
            Queues(Mutex::new(None))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, Option<T>> {
            self.0.lock()
        }
    }

    struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { guard: Some(self.0.lock().unwrap()), mutex: self }
        }
    }

    pub(in super::super) struct MutexGuard<'a, T> {
        guard: Option<loom::sync::MutexGuard<'a, T>>,
        mutex: &'a Mutex<T>,
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.guard.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().unwrap()
        }
    }

    pub(in super::super) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(in super::super) fn new() -> Condvar {
            Condvar(loom::sync::Condvar::new())
        }

        pub(in super::super) fn notify_one(&self) {
            self.0.notify_one();
        }

        /// The longest nap is slept until somebody notifies: loom then finds the missing wake-up
        /// that a nap's end would hide. A shorter one means a deadline and ends of itself, with
        /// the deadline, whenever others have run.
        pub(in super::super) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, nap: Duration) {
            let inner = guard.guard.take().unwrap();
            let ends = nap < super::super::LONGEST_NAP || NAPS_THAT_END.get() > 0;
            if !ends {
                guard.guard = Some(self.0.wait(inner).unwrap());
            } else {
                NAPS_THAT_END.set(NAPS_THAT_END.get().saturating_sub(1));
                drop(inner);
                loom::thread::yield_now();
                NOW.set(NOW.get() + nap);
                guard.guard = Some(guard.mutex.0.lock().unwrap());
            }
        }
    }
}
