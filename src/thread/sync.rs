//! What the lock is made of: the real thing, or its stand-ins under the model checker.

#[cfg(not(tierlock_loom))]
pub(crate) use self::real::BellListener;
#[cfg(not(tierlock_loom))]
pub(super) use self::real::*;

#[cfg(tierlock_loom)]
pub(crate) use self::modelled::BellListener;
#[cfg(tierlock_loom)]
pub(super) use self::modelled::*;

#[cfg(not(tierlock_loom))]
mod real {
    pub(in super::super) use std::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering,
    };

    pub(in super::super) use parking_lot_core::SpinWait;

    use std::sync::Arc;

    use event_listener::{Event, EventListener};

    use crate::{
        alarm,
        fork::{self, FirstMade, PerFork},
        time::Time,
    };
    pub(in super::super) use crate::{
        clock::now,
        fork::{Condvar, Mutex, MutexGuard, generation},
    };

    /// Calls it at this time, on the alarms' thread.
    pub(in super::super) fn call_at(at: Time, call: impl FnOnce() + Send + 'static) {
        alarm::call_at(at, call).detach();
    }

    /// Passes a `const fn` through.
    macro_rules! const_fn {
        ($vis:vis fn $($rest:tt)*) => { $vis const fn $($rest)* };
    }
    pub(in super::super) use const_fn;

    /// What one waits for until it is rung.
    pub(crate) type BellListener = EventListener;

    /// Rung for all that listen in this process.
    pub(in super::super) struct GateBell(PerFork<Event>);

    impl GateBell {
        pub(in super::super) const fn new() -> GateBell {
            GateBell(PerFork::unset())
        }

        pub(in super::super) fn listen(&self) -> BellListener {
            self.0.here(Event::new).listen()
        }

        pub(in super::super) fn ring(&self) {
            self.0.here(Event::new).notify(usize::MAX);
        }
    }

    /// The queues of a lock, in each process that was forked from the one that made it.
    ///
    /// Those of a parent stand in its child as they were, perhaps half changed, with waiters that
    /// are not there: the child never looks at them.
    pub(in super::super) struct Queues<T>(FirstMade<PerFork<Arc<Mutex<T>>>>);

    impl<T: Default> Queues<T> {
        pub(in super::super) const fn new() -> Queues<T> {
            Queues(FirstMade::new())
        }

        /// Those of this process.
        pub(in super::super) fn here(&self) -> &Arc<Mutex<T>> {
            let all = self.0.get_or_make(|| {
                // Where forks cannot be noticed, nothing differs from any other mutex.
                let _ = fork::watch();
                PerFork::unset()
            });
            all.here(Default::default)
        }

        /// The same, if this process has any yet.
        pub(in super::super) fn so_far(&self) -> Option<&Arc<Mutex<T>>> {
            self.0.get()?.so_far()
        }
    }
}

/// loom's types in parking_lot's shape, and a clock of the model's own: loom knows no time, and its
/// atomics are no constants.
#[cfg(tierlock_loom)]
mod modelled {
    use std::{
        cell::Cell,
        future::Future,
        ops::{Deref, DerefMut},
        pin::Pin,
        task::{Context, Poll},
        time::Duration,
    };

    pub(in super::super) use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering,
    };

    use crate::time::Time;

    /// What time does while a model runs.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(in super::super) enum Clock {
        /// It stands still: no waiter is ever due.
        Still,
        /// Between two readings every waiter has become due.
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

    /// Counts its rings. A listener waits until there is another one, and no nap's end hides that there
    /// is none.
    pub(in super::super) struct GateBell(
        std::sync::Arc<(loom::sync::Mutex<u32>, loom::sync::Condvar)>,
    );

    impl GateBell {
        pub(in super::super) fn new() -> GateBell {
            GateBell(std::sync::Arc::new((loom::sync::Mutex::new(0), loom::sync::Condvar::new())))
        }

        pub(in super::super) fn listen(&self) -> BellListener {
            BellListener { seen: *self.0.0.lock().unwrap(), bell: self.0.clone() }
        }

        pub(in super::super) fn ring(&self) {
            *self.0.0.lock().unwrap() += 1;
            self.0.1.notify_all();
        }
    }

    pub(crate) struct BellListener {
        bell: std::sync::Arc<(loom::sync::Mutex<u32>, loom::sync::Condvar)>,
        seen: u32,
    }

    impl BellListener {
        pub(crate) fn wait_timeout(self, _: Duration) -> Option<()> {
            let mut rings = self.bell.0.lock().unwrap();
            while *rings == self.seen {
                rings = self.bell.1.wait(rings).unwrap();
            }
            Some(())
        }
    }

    /// No model polls it.
    impl Future for BellListener {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if *self.bell.0.lock().unwrap() != self.seen {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
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

    pub(in super::super) struct Queues<T>(std::sync::OnceLock<std::sync::Arc<ModelMutex<T>>>);

    impl<T: Default> Queues<T> {
        pub(in super::super) fn new() -> Queues<T> {
            Queues(std::sync::OnceLock::new())
        }

        pub(in super::super) fn here(&self) -> &std::sync::Arc<ModelMutex<T>> {
            self.0.get_or_init(Default::default)
        }

        pub(in super::super) fn so_far(&self) -> Option<&std::sync::Arc<ModelMutex<T>>> {
            self.0.get()
        }
    }

    pub(in super::super) use self::{
        ModelCondvar as Condvar, ModelMutex as Mutex, ModelMutexGuard as MutexGuard,
    };

    pub(in super::super) struct ModelMutex<T>(loom::sync::Mutex<T>);

    impl<T> ModelMutex<T> {
        pub(in super::super) fn new(value: T) -> ModelMutex<T> {
            ModelMutex(loom::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> ModelMutexGuard<'_, T> {
            ModelMutexGuard { guard: Some(self.0.lock().unwrap()), mutex: self }
        }
    }

    impl<T: Default> Default for ModelMutex<T> {
        fn default() -> ModelMutex<T> {
            ModelMutex::new(T::default())
        }
    }

    pub(in super::super) struct ModelMutexGuard<'a, T> {
        guard: Option<loom::sync::MutexGuard<'a, T>>,
        mutex: &'a ModelMutex<T>,
    }

    impl<T> Deref for ModelMutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.guard.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for ModelMutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().unwrap()
        }
    }

    pub(in super::super) struct ModelCondvar(loom::sync::Condvar);

    impl ModelCondvar {
        pub(in super::super) fn new() -> ModelCondvar {
            ModelCondvar(loom::sync::Condvar::new())
        }

        pub(in super::super) fn notify_one(&self) {
            self.0.notify_one();
        }

        /// The longest nap is slept until a notification: loom then finds the missing wake-up
        /// that a nap's end would hide. A shorter one means a deadline and ends of itself, with
        /// the deadline, whenever others have run.
        pub(in super::super) fn wait_for<T>(
            &self,
            guard: &mut ModelMutexGuard<'_, T>,
            nap: Duration,
        ) {
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

    /// The model has no alarms: a turn that lapses is found by the thread that waits behind it.
    pub(in super::super) fn call_at(_: Time, _: impl FnOnce() + Send + 'static) {}

    /// The model checker's atomics are no constants.
    macro_rules! const_fn {
        ($vis:vis fn $($rest:tt)*) => { $vis fn $($rest)* };
    }
    pub(in super::super) use const_fn;
}
