//! A mutex and a condition that a forked child can use whatever its parent's threads were doing,
//! if it does not use its parent's own.
//!
//! They are std's: their waiting lives in the word itself. No code of ours panics while it holds one.

use std::{
    ops::{Deref, DerefMut},
    sync::{self, PoisonError, TryLockError},
    time::Duration,
};

#[derive(Debug, Default)]
pub(crate) struct Latch<T>(sync::Mutex<T>);

pub(crate) struct LatchGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

impl<T> Latch<T> {
    pub(crate) const fn new(value: T) -> Latch<T> {
        Latch(sync::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> LatchGuard<'_, T> {
        LatchGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// `None` if another thread has it.
    pub(crate) fn try_lock(&self) -> Option<LatchGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(LatchGuard(Some(guard))),
            Err(TryLockError::Poisoned(guard)) => Some(LatchGuard(Some(guard.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for LatchGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("only a wait takes it, and gives it back")
    }
}

impl<T> DerefMut for LatchGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("only a wait takes it, and gives it back")
    }
}

#[derive(Debug, Default)]
pub(crate) struct LatchCondvar(sync::Condvar);

impl LatchCondvar {
    pub(crate) const fn new() -> LatchCondvar {
        LatchCondvar(sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn wait<T>(&self, guard: &mut LatchGuard<'_, T>) {
        let held = guard.0.take().expect("a guard that does not wait holds it");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for at most `longest`.
    pub(crate) fn wait_for<T>(&self, guard: &mut LatchGuard<'_, T>, longest: Duration) {
        let held = guard.0.take().expect("a guard that does not wait holds it");
        let waited = self.0.wait_timeout(held, longest);
        guard.0 = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
    }
}
