//! What the lock is made of: the real thing, or its stand-ins under the model checker.

#[cfg(not(tierlock_loom))]
pub(super) use self::real::*;

#[cfg(tierlock_loom)]
pub(super) use self::modelled::*;

#[cfg(not(tierlock_loom))]
mod real {
    use std::{
        sync::atomic::{compiler_fence, fence},
        time::Duration,
    };

    pub(in super::super) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

    pub(in super::super) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(in super::super) use parking_lot_core::SpinWait;

    pub(in super::super) use crate::clock::now;

    /// A full fence, right behind a read-modify-write. On x86 that is one already, and only the
    /// compiler has to be kept from moving what comes after it; the fence itself would cost more
    /// than the exchange that it is to spare.
    #[inline(always)]
    pub(in super::super) fn fence_behind_exchange() {
        if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Lets go by a plain store.
    #[inline(always)]
    pub(in super::super) fn clear(word: &AtomicU8) {
        word.store(0, Ordering::Release);
    }

    /// Waits a little, and longer the next time. It ends up asleep: who is waited for may need the
    /// very CPU, and have less of a right to it.
    pub(in super::super) fn pause(spin: &mut SpinWait) {
        if !spin.spin() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Passes a `const fn` through.
    macro_rules! const_fn {
        ($vis:vis fn $($rest:tt)*) => { $vis const fn $($rest)* };
    }
    pub(in super::super) use const_fn;
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

    pub(in super::super) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

    use crate::time::Time;

    macro_rules! const_fn {
        ($vis:vis fn $($rest:tt)*) => { $vis fn $($rest)* };
    }
    pub(in super::super) use const_fn;

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

    /// loom has no exchange that is a fence.
    pub(in super::super) fn fence_behind_exchange() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    /// By an exchange, whose result nobody looks at: loom may order a store before an exchange that
    /// read an older value, which no memory does.
    pub(in super::super) fn clear(word: &AtomicU8) {
        word.swap(0, Ordering::Release);
    }

    pub(in super::super) fn pause(_: &mut SpinWait) {
        loom::thread::yield_now();
    }

    pub(in super::super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
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
