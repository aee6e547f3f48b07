//! Waiting until other threads of this process have changed what a mutex protects.

use std::{
    fmt, mem,
    time::{Duration, Instant},
};

use event_listener::{Event, EventListener, Listener};

use super::{guard::MutexGuard, mutex::Mutex};
use crate::{
    error::{LockError, Result},
    fork::PerFork,
};

/// A condition variable: a holder releases its [`Mutex`], waits to be notified, and takes it again.
///
/// It notifies threads and tasks of its own process, at every scope of the mutex: what they wait for is in
/// the mutex's data, which is memory of this process. Between the release and the next grant any holder may
/// have the lock, so the guard that comes back has a larger [token](MutexGuard::token), and the condition is
/// to be looked at again: [`wait_while`](Self::wait_while) does both.
///
/// The mutex is named beside the guard, and not found by it: a guard may be [mapped](MutexGuard::map), to a
/// part of the data that another holder moves meanwhile.
///
/// # Fairness, cancel safety
/// First come, first notified. A waiter that was notified and goes without the lock, because its future is
/// dropped or the lock cannot be had, passes its notification on.
///
/// # Example
/// ```
/// use std::thread;
///
/// use tierlock::{Condvar, Mutex};
///
/// static JOBS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// static CHANGED: Condvar = Condvar::new();
///
/// let worker = thread::spawn(|| -> Result<u32, tierlock::LockError> {
///     let mut jobs = CHANGED.wait_while(&JOBS, JOBS.lock()?, |jobs| jobs.is_empty())?;
///     Ok(jobs.pop().expect("it was looked at under the lock"))
/// });
/// JOBS.lock()?.push(7);
/// CHANGED.notify_one();
/// assert_eq!(worker.join().unwrap()?, 7);
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct Condvar {
    /// A child of a fork has no waiters.
    notified: PerFork<Event>,
}

impl Condvar {
    /// One that no thread waits for.
    pub const fn new() -> Condvar {
        Condvar { notified: PerFork::unset() }
    }

    /// Releases the lock, waits until it is notified, and takes the lock again. It may return without a
    /// notification.
    ///
    /// # Errors
    /// `Lost`, if the lock was lost before; `Config`, if the guard is another mutex's. Those of
    /// [`Mutex::lock`], once it was notified. The lock is released then.
    pub fn wait<'a, T: ?Sized>(
        &self,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'_, T>,
    ) -> Result<MutexGuard<'a, T>> {
        self.release(mutex, guard)?.wait();
        PassedOn(self).unless_taken(mutex.lock())
    }

    /// As [`wait`](Self::wait), at most for `wait`; taking the lock again comes on top. With the guard comes
    /// whether it was notified.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for<'a, T: ?Sized>(
        &self,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'_, T>,
        wait: Duration,
    ) -> Result<(MutexGuard<'a, T>, bool)> {
        match self.release(mutex, guard)?.wait_timeout(wait) {
            Some(()) => Ok((PassedOn(self).unless_taken(mutex.lock())?, true)),
            None => Ok((mutex.lock()?, false)),
        }
    }

    /// Waits for as long as the condition is true, which it looks at under the lock: first of all, and
    /// whenever it was notified.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Example
    /// ```
    /// use tierlock::{Condvar, Mutex};
    ///
    /// static JOBS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    /// static CHANGED: Condvar = Condvar::new();
    ///
    /// let worker = std::thread::spawn(|| -> tierlock::Result<Option<u32>> {
    ///     let mut jobs = CHANGED.wait_while(&JOBS, JOBS.lock()?, |jobs| jobs.is_empty())?;
    ///     Ok(jobs.pop())
    /// });
    /// JOBS.lock()?.push(7);
    /// CHANGED.notify_one(); // before or after the worker waits: it looks first
    /// assert_eq!(worker.join().unwrap()?, Some(7));
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mutex: &'a Mutex<T>,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(mutex, guard)?;
        }
        Ok(guard)
    }

    /// The same, at most for `wait`. With the guard comes whether the condition is false now.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    ///
    /// use tierlock::{Condvar, Mutex};
    ///
    /// let (ready, changed) = (Mutex::new(false), Condvar::new());
    /// let wait = Duration::from_millis(1);
    /// let (guard, is_ready) = changed.wait_while_for(&ready, ready.lock()?, wait, |ready| !*ready)?;
    /// assert_eq!((*guard, is_ready), (false, false)); // no thread has notified it
    /// # drop(guard);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn wait_while_for<'a, T: ?Sized>(
        &self,
        mutex: &'a Mutex<T>,
        mut guard: MutexGuard<'a, T>,
        wait: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<(MutexGuard<'a, T>, bool)> {
        let until = Instant::now().checked_add(wait);
        while condition(&mut guard) {
            let left = until.map_or(wait, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok((guard, false));
            }
            guard = self.wait_for(mutex, guard, left)?.0;
        }
        Ok((guard, true))
    }

    /// As [`wait`](Self::wait), blocking no thread.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{Condvar, Mutex};
    ///
    /// let (jobs, changed) = (Mutex::new(Vec::new()), Condvar::new());
    /// let worker = async {
    ///     let mut guard = jobs.lock_async().await?;
    ///     while guard.is_empty() {
    ///         guard = changed.wait_async(&jobs, guard).await?;
    ///     }
    ///     Ok::<_, tierlock::LockError>(guard.pop())
    /// };
    /// let client = async {
    ///     jobs.lock_async().await?.push(7);
    ///     changed.notify_one();
    ///     Ok::<_, tierlock::LockError>(())
    /// };
    /// let (job, asked) = tokio::join!(worker, client);
    /// asked?;
    /// assert_eq!(job?, Some(7));
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub async fn wait_async<'a, T: ?Sized>(
        &self,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'_, T>,
    ) -> Result<MutexGuard<'a, T>> {
        self.release(mutex, guard)?.await;
        let passed_on = PassedOn(self);
        passed_on.unless_taken(mutex.lock_async().await)
    }

    /// As [`wait_while`](Self::wait_while), blocking no thread.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{Condvar, Mutex};
    ///
    /// let (jobs, changed) = (Mutex::new(Vec::new()), Condvar::new());
    /// let worker = async {
    ///     let mut jobs =
    ///         changed.wait_while_async(&jobs, jobs.lock_async().await?, |jobs| jobs.is_empty()).await?;
    ///     Ok::<_, tierlock::LockError>(jobs.pop())
    /// };
    /// let client = async {
    ///     jobs.lock_async().await?.push(7);
    ///     changed.notify_one();
    ///     Ok::<_, tierlock::LockError>(())
    /// };
    /// let (job, asked) = tokio::join!(worker, client);
    /// asked?;
    /// assert_eq!(job?, Some(7));
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub async fn wait_while_async<'a, T: ?Sized>(
        &self,
        mutex: &'a Mutex<T>,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait_async(mutex, guard).await?;
        }
        Ok(guard)
    }

    /// Notifies the one that has waited for longest, if one waits.
    pub fn notify_one(&self) {
        self.notified().notify_additional(1);
    }

    /// Notifies all that wait.
    pub fn notify_all(&self) {
        self.notified().notify(usize::MAX);
    }

    fn notified(&self) -> &Event {
        self.notified.here(Event::new)
    }

    /// Waits from now on, and not under the lock.
    fn release<T: ?Sized>(
        &self,
        mutex: &Mutex<T>,
        guard: MutexGuard<'_, T>,
    ) -> Result<EventListener> {
        MutexGuard::check(&guard)?;
        if !mutex.is_locked_by(&guard) {
            let scope = MutexGuard::scope(&guard);
            let error = LockError::config("a condition was waited for with another mutex's guard");
            return Err(error.with_scope(scope));
        }
        let listener = self.notified().listen();
        drop(guard);
        Ok(listener)
    }
}

/// A notification that was heard and not acted on: dropped, it is the next waiter's.
struct PassedOn<'a>(&'a Condvar);

impl PassedOn<'_> {
    fn unless_taken<R>(self, taken: Result<R>) -> Result<R> {
        if taken.is_ok() {
            mem::forget(self);
        }
        taken
    }
}

impl Drop for PassedOn<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(tierlock_loom)))]
mod tests;
