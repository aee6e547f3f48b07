//! The mutex users hold, over every scope.

mod builder;

use std::{
    cell::UnsafeCell,
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::builder::MutexBuilder;
use super::guard::{Anchor, Keeper, MutexGuard, OwnedMutexGuard};
use crate::{
    cooperate,
    error::{LockError, Result},
    path::{Core, Held, Named, Patience, Plain, QuietCaller, Won},
    scope::Scope,
};

/// Data that one holder at a time may use, in the scope that the mutex was built with.
///
/// [`Mutex::new`] makes an unnamed one of thread scope, with nothing to set up, also in a
/// `static`. [`LockManager::mutex`](crate::LockManager::mutex) makes named ones of any scope.
/// The data is memory of this `Mutex` value in every scope: the scope says which callers wait, not
/// which see the data.
///
/// # Fairness
/// Inside a process, blocking and async waiters each are served in order of arrival. A newcomer
/// may overtake a waiter of less than 0.5 ms; a waiter of more gets a direct hand-over, and when
/// both kinds wait, hand-overs alternate. Between processes see
/// [`Engine`](crate::Engine); between hosts the leader's queue is first come, first served.
///
/// # Cancel safety
/// The async forms may be dropped at any point: what they were about to receive is given back.
///
/// # Not reentrant
/// Locking twice from one thread waits, as with std; so do guards of two mutexes of one name.
///
/// # Blocking in async code
/// The blocking forms block the thread, on any runtime, and never panic.
///
/// # Example
/// ```
/// static HITS: tierlock::Mutex<u64> = tierlock::Mutex::new(0);
///
/// *HITS.lock()? += 1;
/// assert_eq!(*HITS.lock()?, 1);
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct Mutex<T: ?Sized> {
    anchor: Anchor,
    value: UnsafeCell<T>,
}

// SAFETY: the data is reached through a guard only, by one thread at a time, so that sharing the
// mutex lends the data to other threads one after another: that takes Send, not Sync. The anchor
// is Sync by itself.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

// A holder that panicked is told to the next one (`Predecessor::Panicked`), as std does by
// poisoning.
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

impl<T> Mutex<T> {
    /// An unnamed mutex of thread scope.
    #[cfg(not(tierlock_loom))]
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { anchor: Anchor::new(Core::Plain(Plain::new())), value: UnsafeCell::new(value) }
    }

    /// The same; the model checker's locks are no constants.
    #[cfg(tierlock_loom)]
    pub fn new(value: T) -> Mutex<T> {
        Mutex { anchor: Anchor::new(Core::Plain(Plain::new())), value: UnsafeCell::new(value) }
    }

    /// The data, without the mutex.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Lets waiters go first, and takes the lock again; without waiters the guard stays what it is, with
    /// its token. As parking_lot's `bump`, for a long job in small pieces.
    ///
    /// The mutex is named beside the guard, which may be of a part of the data: what comes back is of all of
    /// it, and borrows the mutex. Where this process cannot know of waiters it takes the lock again in any
    /// case: with the file-lock engine, and at host scope if the lease is not kept.
    ///
    /// # Fairness
    /// At thread scope the first in line has the lock in between, however shortly it has waited. At the
    /// wider scopes see [`unlock_fair`](MutexGuard::unlock_fair).
    ///
    /// # Errors
    /// `Lost`, if the lock was lost before; `Config`, if the guard is another mutex's; those of
    /// [`lock`](Self::lock). The lock is released then.
    ///
    /// # Example
    /// ```
    /// use tierlock::Mutex;
    ///
    /// let ledger = Mutex::new(0);
    /// let mut guard = ledger.lock()?;
    /// for amount in 1..=100 {
    ///     *guard += amount;
    ///     guard = ledger.bump(guard)?; // a thread that waits need not wait for all of them
    /// }
    /// assert_eq!(*guard, 5050);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn bump<'a>(&'a self, guard: MutexGuard<'a, T>) -> Result<MutexGuard<'a, T>> {
        // SAFETY: the data is this mutex's, which is borrowed for that long.
        match unsafe { MutexGuard::step_back(guard, inside(&self.value), &self.anchor) }? {
            Some(guard) => Ok(guard),
            None => self.lock(),
        }
    }

    /// As [`bump`](Self::bump), blocking no thread.
    ///
    /// # Cancel safety
    /// The future has the guard: dropped early, it releases the lock.
    ///
    /// # Errors
    /// As [`bump`](Self::bump).
    pub async fn bump_async<'a>(&'a self, guard: MutexGuard<'a, T>) -> Result<MutexGuard<'a, T>> {
        // SAFETY: the data is this mutex's, which is borrowed for that long.
        match unsafe { MutexGuard::step_back(guard, inside(&self.value), &self.anchor) }? {
            Some(guard) => Ok(guard),
            None => self.lock_async().await,
        }
    }

    /// Whether this is the mutex of the guard.
    pub(crate) fn is_locked_by(&self, guard: &MutexGuard<'_, T>) -> bool {
        MutexGuard::is_of(guard, &self.anchor)
    }

    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    /// At thread scope none. Above: `Damaged` or `Io` from the directory, `Unreachable` when no
    /// leader acknowledged the request within `connect_timeout`, `Refused` by the leader, `Config`
    /// when the name is locked at a wider scope than this manager reaches.
    ///
    /// # Example
    /// ```
    /// let hits = tierlock::Mutex::new(0);
    /// *hits.lock()? += 1;
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>> {
        match &self.anchor.core {
            Core::Plain(Plain { lock, .. }) => {
                lock.take();
                Ok(self.plain_guard())
            }
            Core::Named(named) if self.anchor.lock_straight(named) => Ok(self.straight_guard()),
            Core::Named(named) => self.lock_named(named),
        }
    }

    /// Takes the lock if it is free. At host scope it asks the leader, and waits for its answer.
    ///
    /// # Errors
    /// `WouldBlock`, if another holder has it; else as [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// use tierlock::Mutex;
    ///
    /// let job = Mutex::new(());
    /// let _guard = job.lock()?;
    /// match job.try_lock() {
    ///     Ok(_guard) => unreachable!("it is held"),
    ///     Err(error) if error.is_contended() => {} // the job runs already
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>> {
        match &self.anchor.core {
            Core::Plain(Plain { lock, .. }) => match lock.try_take() {
                Some(_) => Ok(self.plain_guard()),
                None => Err(LockError::WOULD_BLOCK),
            },
            Core::Named(named) if self.anchor.lock_straight(named) => Ok(self.straight_guard()),
            Core::Named(named) => self.try_lock_named(named),
        }
    }

    /// Waits at most for `wait`.
    ///
    /// # Errors
    /// `TimedOut`, with the holder where known; else as [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::time::Duration;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory();
    /// let elsewhere = locks.in_memory_peer(); // another machine
    /// let _guard = elsewhere.mutex("job", ()).lock()?;
    /// let job = locks.mutex("job", ()).build()?;
    /// let error = job.try_lock_for(Duration::from_millis(20)).unwrap_err();
    /// assert!(error.is_timeout());
    /// println!("gave up after {:?}: {error}", error.waited());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_lock_for(&self, wait: Duration) -> Result<MutexGuard<'_, T>> {
        self.anchor.core.lock(Patience::for_at_most(wait)).and_then(|held| self.guard(held))
    }

    /// Waits at most until `until`.
    ///
    /// # Errors
    /// As [`try_lock_for`](Self::try_lock_for).
    ///
    /// # Example
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tierlock::Mutex;
    ///
    /// let (one, two) = (Mutex::new(1), Mutex::new(2));
    /// let until = Instant::now() + Duration::from_secs(1); // for both together
    /// let sum = *one.try_lock_until(until)? + *two.try_lock_until(until)?;
    /// assert_eq!(sum, 3);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_lock_until(&self, until: Instant) -> Result<MutexGuard<'_, T>> {
        self.try_lock_for(until.saturating_duration_since(Instant::now()))
    }

    /// As [`lock`](Self::lock), blocking no thread. Works on every executor.
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it was about to receive, and its place in the queue. At host
    /// scope the leader may have granted it meanwhile: a try at once after that can still find it held.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let hits = tierlock::Mutex::new(0);
    /// *hits.lock_async().await? += 1;
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub async fn lock_async(&self) -> Result<MutexGuard<'_, T>> {
        cooperate::proceed().await;
        if let Some(guard) = self.lock_quietly() {
            return guard;
        }
        self.anchor.core.lock_async(Patience::Forever).await.and_then(|held| self.guard(held))
    }

    /// As [`try_lock`](Self::try_lock), blocking no thread. At host scope it waits for the leader's
    /// answer.
    ///
    /// # Cancel safety
    /// As [`lock_async`](Self::lock_async).
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    pub async fn try_lock_async(&self) -> Result<MutexGuard<'_, T>> {
        cooperate::proceed().await;
        self.anchor.core.lock_async(Patience::No).await.and_then(|held| self.guard(held))
    }

    /// As [`try_lock_for`](Self::try_lock_for), blocking no thread. The time begins at the first
    /// poll.
    ///
    /// # Cancel safety
    /// As [`lock_async`](Self::lock_async).
    ///
    /// # Errors
    /// As [`try_lock_for`](Self::try_lock_for).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tierlock::Mutex;
    ///
    /// let job = Mutex::new(());
    /// let _running = job.lock_async().await?;
    /// let error = job.try_lock_for_async(Duration::from_millis(5)).await.unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub async fn try_lock_for_async(&self, wait: Duration) -> Result<MutexGuard<'_, T>> {
        let patience = Patience::for_at_most(wait);
        cooperate::proceed().await;
        self.anchor.core.lock_async(patience).await.and_then(|held| self.guard(held))
    }

    /// Widens the scope to `to`, for this mutex and for its name, for good.
    ///
    /// It acquires the lock at the wider scope, marks the name and releases it, so that at no moment
    /// a narrow and a wide holder exist. From then on the name is locked at that scope, in this
    /// process and by every process that locks it in the same directory. Asking for a narrower
    /// scope, or the same, does nothing.
    ///
    /// It waits for the lock: a thread that holds a guard of this name waits for ever.
    ///
    /// # Errors
    /// `Config`, if the mutex is unnamed or its manager cannot reach `to`; else as
    /// [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard, Scope};
    ///
    /// let locks = LockManager::in_memory();
    /// let stock = locks.mutex("stock", 7).scope(Scope::Thread).build()?;
    /// stock.escalate(Scope::Host)?; // a second machine joins
    /// assert_eq!(MutexGuard::scope(&stock.lock()?), Scope::Host);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn escalate(&self, to: Scope) -> Result<()> {
        self.named(to)?.escalate(to)
    }

    /// As [`escalate`](Self::escalate), blocking no thread.
    ///
    /// # Cancel safety
    /// Dropped early, it has either widened the name or not; the lock is given back.
    ///
    /// # Errors
    /// As [`escalate`](Self::escalate).
    pub async fn escalate_async(&self, to: Scope) -> Result<()> {
        self.named(to)?.escalate_async(to).await
    }

    #[inline(never)]
    fn lock_named(&self, named: &Named) -> Result<MutexGuard<'_, T>> {
        match named.lock_roundabout(QuietCaller::Thread) {
            Some(won) => self.guard_of(won),
            None => named.lock_slow(Patience::Forever).and_then(|held| self.guard(held)),
        }
    }

    #[inline(never)]
    fn try_lock_named(&self, named: &Named) -> Result<MutexGuard<'_, T>> {
        match named.lock_roundabout(QuietCaller::Thread) {
            Some(won) => self.guard_of(won),
            None => named.lock_slow(Patience::No).and_then(|held| self.guard(held)),
        }
    }

    fn named(&self, to: Scope) -> Result<&Named> {
        match &self.anchor.core {
            Core::Named(named) => Ok(named),
            Core::Plain(_) => Err(LockError::config(
                "an unnamed mutex cannot be widened: build it with LockManager::mutex(name, value)",
            )
            .with_scope(to)),
        }
    }

    /// Whether the lock is held just now: by this process, or by another one of its directory. It asks
    /// no leader.
    ///
    /// It may have changed when this returns: good for people and for tests, not for decisions.
    ///
    /// # Example
    /// ```
    /// let job = tierlock::Mutex::new(());
    /// let guard = job.lock()?;
    /// assert!(job.is_locked());
    /// drop(guard);
    /// assert!(!job.is_locked());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn is_locked(&self) -> bool {
        self.anchor.core.is_locked()
    }

    /// The data, without locking: `&mut self` proves that no guard exists.
    ///
    /// # Example
    /// ```
    /// let mut hits = tierlock::Mutex::new(1);
    /// *hits.get_mut() += 1;
    /// assert_eq!(hits.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The scope it was built with, or was widened to.
    pub fn scope(&self) -> Scope {
        self.anchor.core.scope()
    }

    /// Its name; `None` for one made by [`Mutex::new`].
    pub fn name(&self) -> Option<&str> {
        self.anchor.core.name()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.anchor.core
    }

    /// Takes the lock if nothing stands in the way, in no more than that takes.
    #[inline]
    fn lock_quietly(&self) -> Option<Result<MutexGuard<'_, T>>> {
        match &self.anchor.core {
            Core::Plain(Plain { lock, .. }) => lock.take_quietly().map(|_| Ok(self.plain_guard())),
            Core::Named(named) if self.anchor.lock_straight(named) => {
                Some(Ok(self.straight_guard()))
            }
            Core::Named(named) => {
                named.lock_roundabout(QuietCaller::Task).map(|won| self.guard_of(won))
            }
        }
    }

    /// The guard of a quiet lock of an unnamed mutex.
    #[inline]
    fn plain_guard(&self) -> MutexGuard<'_, T> {
        // SAFETY: the lock was just won.
        unsafe { self.anchor.install_plain() };
        // SAFETY: likewise, and the borrow keeps the mutex alive.
        unsafe { MutexGuard::new(inside(&self.value), NonNull::from(&self.anchor)) }
    }

    /// The guard of a lock that the anchor has won straight.
    #[inline]
    fn straight_guard(&self) -> MutexGuard<'_, T> {
        // SAFETY: it was just won, and stands in the anchor; and the borrow keeps the mutex alive.
        unsafe { MutexGuard::new(inside(&self.value), NonNull::from(&self.anchor)) }
    }

    /// The guard of a quiet lock of a named mutex.
    #[inline]
    fn guard_of(&self, won: Won) -> Result<MutexGuard<'_, T>> {
        // SAFETY: it was just won from this mutex's core.
        unsafe { self.anchor.install_won(won) }?;
        // SAFETY: likewise, and the borrow keeps the mutex alive.
        Ok(unsafe { MutexGuard::new(inside(&self.value), NonNull::from(&self.anchor)) })
    }

    #[inline]
    fn guard(&self, held: Held) -> Result<MutexGuard<'_, T>> {
        // SAFETY: `held` was just won from this mutex's core.
        unsafe { self.anchor.install(held, None) }?;
        // SAFETY: likewise, and the borrow keeps the mutex alive.
        Ok(unsafe { MutexGuard::new(inside(&self.value), NonNull::from(&self.anchor)) })
    }
}

/// A pointer to what the cell holds.
pub(crate) fn inside<T: ?Sized>(cell: &UnsafeCell<T>) -> NonNull<T> {
    NonNull::new(cell.get()).expect("made from a reference")
}

impl<T: Send + 'static> Mutex<T> {
    /// As [`lock`](Self::lock), with a guard that owns its share of the mutex.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// use std::sync::Arc;
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// struct Session { cart: MutexGuard<'static, Vec<u32>> }
    ///
    /// let cart = Arc::new(Mutex::new(vec![1]));
    /// let mut session = Session { cart: cart.lock_arc()? };
    /// session.cart.push(2);
    /// assert!(cart.try_lock().is_err());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn lock_arc(self: &Arc<Self>) -> Result<MutexGuard<'static, T>> {
        self.anchor.core.lock(Patience::Forever).and_then(|held| self.owned_guard(held))
    }

    /// As [`try_lock`](Self::try_lock), with a guard that owns its share of the mutex.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    pub fn try_lock_arc(self: &Arc<Self>) -> Result<MutexGuard<'static, T>> {
        self.anchor.core.lock(Patience::No).and_then(|held| self.owned_guard(held))
    }

    /// As [`try_lock_for`](Self::try_lock_for), with a guard that owns its share of the mutex.
    ///
    /// # Errors
    /// As [`try_lock_for`](Self::try_lock_for).
    pub fn try_lock_arc_for(self: &Arc<Self>, wait: Duration) -> Result<MutexGuard<'static, T>> {
        self.anchor.core.lock(Patience::for_at_most(wait)).and_then(|held| self.owned_guard(held))
    }

    /// As [`try_lock_until`](Self::try_lock_until), with a guard that owns its share of the mutex.
    ///
    /// # Errors
    /// As [`try_lock_for`](Self::try_lock_for).
    pub fn try_lock_arc_until(self: &Arc<Self>, until: Instant) -> Result<MutexGuard<'static, T>> {
        self.try_lock_arc_for(until.saturating_duration_since(Instant::now()))
    }

    /// As [`lock_async`](Self::lock_async), with a guard that owns its share of the mutex. So does
    /// the future: it borrows nothing and can be spawned.
    ///
    /// # Cancel safety, errors
    /// As [`lock_async`](Self::lock_async); as [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::sync::Arc;
    /// use tierlock::Mutex;
    ///
    /// let hits = Arc::new(Mutex::new(0));
    /// let mut guard = tokio::spawn(hits.lock_arc_async()).await.unwrap()?;
    /// *guard += 1;
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub fn lock_arc_async(
        self: &Arc<Self>,
    ) -> impl Future<Output = Result<MutexGuard<'static, T>>> + Send + use<T> {
        Arc::clone(self).lock_owned_with(Patience::Forever)
    }

    /// As [`try_lock_async`](Self::try_lock_async), with a guard and a future that own their share
    /// of the mutex.
    ///
    /// # Cancel safety, errors
    /// As [`lock_async`](Self::lock_async); as [`try_lock`](Self::try_lock).
    pub fn try_lock_arc_async(
        self: &Arc<Self>,
    ) -> impl Future<Output = Result<MutexGuard<'static, T>>> + Send + use<T> {
        Arc::clone(self).lock_owned_with(Patience::No)
    }

    /// As [`try_lock_for_async`](Self::try_lock_for_async), with a guard and a future that own
    /// their share of the mutex. The time begins at the call.
    ///
    /// # Cancel safety, errors
    /// As [`lock_async`](Self::lock_async); as [`try_lock_for`](Self::try_lock_for).
    pub fn try_lock_arc_for_async(
        self: &Arc<Self>,
        wait: Duration,
    ) -> impl Future<Output = Result<MutexGuard<'static, T>>> + Send + use<T> {
        Arc::clone(self).lock_owned_with(Patience::for_at_most(wait))
    }

    /// [`lock_arc_async`](Self::lock_arc_async), as tokio names and takes it.
    ///
    /// # Cancel safety, errors
    /// As [`lock_async`](Self::lock_async); as [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::sync::Arc;
    /// use tierlock::{Mutex, OwnedMutexGuard};
    ///
    /// let hits = Arc::new(Mutex::new(0));
    /// let mut guard: OwnedMutexGuard<i32> = hits.clone().lock_owned().await?;
    /// *guard += 1;
    /// tokio::spawn(async move { drop(guard) }).await.unwrap(); // it borrows nothing
    /// assert!(!hits.is_locked());
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub fn lock_owned(
        self: Arc<Self>,
    ) -> impl Future<Output = Result<OwnedMutexGuard<T>>> + Send + use<T> {
        self.lock_owned_with(Patience::Forever)
    }

    /// [`try_lock_arc`](Self::try_lock_arc), as tokio names and takes it: no future.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    pub fn try_lock_owned(self: Arc<Self>) -> Result<OwnedMutexGuard<T>> {
        self.try_lock_arc()
    }

    /// [`try_lock_arc_for_async`](Self::try_lock_arc_for_async), as tokio would name and take it.
    ///
    /// # Cancel safety, errors
    /// As [`lock_async`](Self::lock_async); as [`try_lock_for`](Self::try_lock_for).
    pub fn try_lock_owned_for(
        self: Arc<Self>,
        wait: Duration,
    ) -> impl Future<Output = Result<OwnedMutexGuard<T>>> + Send + use<T> {
        self.lock_owned_with(Patience::for_at_most(wait))
    }

    pub(crate) async fn lock_owned_with(
        self: Arc<Self>,
        patience: Patience,
    ) -> Result<MutexGuard<'static, T>> {
        cooperate::proceed().await;
        self.anchor.core.lock_async(patience).await.and_then(|held| self.owned_guard(held))
    }

    pub(crate) fn owned_guard(self: &Arc<Self>, held: Held) -> Result<MutexGuard<'static, T>> {
        // SAFETY: `held` was just won from this mutex's core.
        unsafe { self.anchor.install(held, Some(self.clone())) }?;
        // SAFETY: likewise, and the share that was installed keeps the mutex alive.
        Ok(unsafe { MutexGuard::new(inside(&self.value), NonNull::from(&self.anchor)) })
    }
}

impl<T: Send> Keeper for Mutex<T> {}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    /// Shows what it is, and its data if no guard has that just now.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        debug.field("name", &self.name()).field("scope", &self.scope());
        let looked = self.anchor.look(|| {
            // SAFETY: while `look` runs this no guard exists, and none is made.
            debug.field("data", &unsafe { &*self.value.get() });
        });
        if looked.is_none() {
            debug.field("data", &format_args!("<locked>"));
        }
        debug.finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "process"))]
mod tests;
