//! The one guard: the right to the data, its token, and how its loss is told.
//!
//! What differs between a mutex's guard and those of readers and writers is their [`GuardMode`]: what
//! access it gives, and where what it holds stands.
//!
//! Loss ends the right, not the borrow: a lost guard still derefs, and until it is dropped no
//! other guard of its `Mutex` exists. `is_valid`, `check` and `unlock` tell the truth.

mod change;
mod hold;
mod mode;

use std::{
    cell::UnsafeCell,
    fmt,
    future::Future,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub(crate) use self::mode::{
    Excludes, Exclusive, GuardMode, PermitMode, Read, UpgradableRead, Write,
};
pub use self::mode::{
    OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockUpgradableReadGuard, OwnedRwLockWriteGuard,
};
use crate::{
    blocking, clock,
    error::{LostReason, Predecessor, Result},
    path::{Core, Held, Named},
    scope::Scope,
    time::Time,
    token::Token,
    watch::{Lost, Watch},
};

/// A held lock: access to the data of its [`Mutex`](crate::Mutex) or [`RwLock`](crate::RwLock), until
/// it is dropped.
///
/// The *right* can end earlier: `at_most` is reached, an operator breaks the lock, or at host scope
/// the session's deadline passes before the leader confirms a renewal. Then [`is_valid`](Self::is_valid)
/// is false, [`check`](Self::check) and [`unlock`](Self::unlock) answer `Lost`, and
/// [`lost`](Self::lost) is ready. The borrow does not end: the guard still derefs, and no second
/// guard of the same `Mutex` exists until it is dropped. So give the [`token`](Self::token) to
/// whatever the lock protects outside this process, and let that refuse a smaller one.
///
/// Everything besides `Deref` is an associated function, as `MutexGuard::token(&guard)`.
///
/// There is one type of guard for all modes: [`MutexGuard`], [`RwLockReadGuard`],
/// [`RwLockUpgradableReadGuard`] and [`RwLockWriteGuard`] are names for it.
///
/// # Fairness, cancel safety
/// Dropping never blocks and never fails: it queues the release, and hands over inside the
/// process at once.
///
/// # Forgetting
/// A guard that is not dropped ([`mem::forget`](std::mem::forget), [`leak`](Self::leak)) holds its
/// lock, at every scope, until its mutex is dropped; the next holder is told
/// [`Died`](Predecessor::Died). Forgotten with its share of the mutex ([`OwnedMutexGuard`]), it
/// holds the lock for as long as the process lives.
///
/// # Example
/// ```
/// use tierlock::{Mutex, MutexGuard, Scope};
///
/// let hits = Mutex::new(0_u64);
/// let mut guard = hits.lock()?;
/// *guard += 1;
/// assert_eq!(MutexGuard::scope(&guard), Scope::Thread);
/// assert!(MutexGuard::is_valid(&guard));
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "if unused, the lock is released at once"]
pub struct LockGuard<'a, T: ?Sized + 'a, M: GuardMode> {
    value: NonNull<T>,
    hold: GuardHold<'a, M>,
    /// Invariant, as `&mut T` is: a guard may become a writer's.
    marker: PhantomData<&'a mut T>,
}

/// A held [`Mutex`](crate::Mutex).
pub type MutexGuard<'a, T> = LockGuard<'a, T, Exclusive>;

/// A reader of a [`RwLock`](crate::RwLock): others may be inside beside it.
pub type RwLockReadGuard<'a, T> = LockGuard<'a, T, Read>;

/// A reader of a [`RwLock`](crate::RwLock) that may become a writer: one at a time, beside plain
/// readers.
pub type RwLockUpgradableReadGuard<'a, T> = LockGuard<'a, T, UpgradableRead>;

/// The writer of a [`RwLock`](crate::RwLock), alone inside.
pub type RwLockWriteGuard<'a, T> = LockGuard<'a, T, Write>;

/// Permits of a [`Semaphore`](crate::Semaphore), which come back when it is dropped.
///
/// Its [`token`](Self::token) is the last one of its permits, and larger than that of every permit
/// given out before. It names them and orders nothing: a resource must not refuse a smaller one, whose
/// permits may be held as well. What must know whether a permit holds still asks
/// [`check`](Self::check). Its [`predecessor`](Self::predecessor) is `Clean` always.
///
/// At host scope permits that were taken together are of one lease, also once they are
/// [split](Self::split): they are lost together, a break by the token of one takes all that are left,
/// and [`check_token`](crate::LockManager::check_token) calls the token of each good until the last of
/// them is given back. The leader answers [`unlock_async`](Self::unlock_async) of the last one only.
///
/// # Example
/// ```
/// use tierlock::{Permit, Semaphore};
///
/// let seats = Semaphore::new(3);
/// let two = seats.acquire_many(2)?;
/// assert_eq!((Permit::count(&two), seats.available()?), (2, 1));
/// drop(two); // both come back
/// assert_eq!(seats.available()?, 3);
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub type Permit<'a> = LockGuard<'a, (), PermitMode>;

/// A permit that owns its share of the semaphore.
pub type OwnedPermit = Permit<'static>;
/// Everything of a mutex but its data: what a guard needs to give back what it holds.
///
/// What the guard holds stands here and not in the guard, of which there is one at a time: so a
/// guard is two words, and is moved in registers. (At six words, moved through memory, a quiet
/// lock and unlock took twice as long.)
pub(crate) struct Anchor {
    pub(crate) core: Core,
    state: UnsafeCell<GuardState>,
}

/// What a guard holds. It stands in the anchor of its lock and belongs to its holder; a reader's
/// stands in its guard.
#[doc(hidden)]
pub struct GuardState {
    /// Of a named mutex; an unnamed one holds its thread tier, and no more.
    held: Held,
    /// Keeps the mutex alive while an owned guard exists.
    keeper: Option<Arc<dyn Keeper>>,
    /// Its thread was panicking already when it took the lock.
    was_panicking: bool,
    /// What tells the loss to this guard, of several that share a lease.
    told: OnceLock<Arc<Watch>>,
}

/// The right itself; gives back what it holds when it is dropped.
struct GuardHold<'a, M: GuardMode> {
    anchor: NonNull<Anchor>,
    own: M::Own,
    marker: PhantomData<&'a Anchor>,
}

/// A mutex of any value: what keeps it alive while an owned guard exists.
pub(crate) trait Keeper: Send + Sync {}

// SAFETY: `state` is reached by the holder of the lock only, and the lock hands it from thread to
// thread; all it consists of is Send and Sync (asserted below).
unsafe impl Sync for Anchor {}
// SAFETY: it stands for a right to an `Anchor`, which is Sync and has a state that may be changed
// on any thread; a state of its own is Send.
unsafe impl<M: GuardMode> Send for GuardHold<'_, M> {}
// SAFETY: a shared `GuardHold` only reads the state, which only an owned one changes.
unsafe impl<M: GuardMode> Sync for GuardHold<'_, M> {}
// SAFETY: a guard gives `&mut T` to one thread at a time, so it may move to another thread if a
// `&mut T` may. Everything else in it is Send.
unsafe impl<T: ?Sized + Send> Send for LockGuard<'_, T, Exclusive> {}
// SAFETY: the same; and it may become a reader's guard, beside others.
unsafe impl<T: ?Sized + Send + Sync> Send for LockGuard<'_, T, Write> {}
// SAFETY: it gives `&T` beside others, so it may move to another thread if `&T` may.
unsafe impl<T: ?Sized + Sync> Send for LockGuard<'_, T, Read> {}
// SAFETY: there is no data.
unsafe impl Send for LockGuard<'_, (), PermitMode> {}
// SAFETY: as a reader's; and it may become a writer's guard.
unsafe impl<T: ?Sized + Send + Sync> Send for LockGuard<'_, T, UpgradableRead> {}
// SAFETY: a shared guard gives `&T` only, and `&GuardHold`, which is Sync.
unsafe impl<T: ?Sized + Sync, M: GuardMode> Sync for LockGuard<'_, T, M> {}

const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Core>();
    is_send_and_sync::<GuardState>();
};

impl<'a, T: ?Sized, M: GuardMode> LockGuard<'a, T, M> {
    /// The fencing token of this grant: larger than every token of this name before.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// let ledger = Mutex::new(());
    /// let first = MutexGuard::token(&ledger.lock()?);
    /// let second = MutexGuard::token(&ledger.lock()?);
    /// assert!(second > first); // a resource that has seen `second` refuses `first`
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn token(guard: &Self) -> Token {
        guard.hold.token()
    }

    /// Which other callers this lock excludes: the scope of the mutex, or the wider one at which its
    /// name is locked.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard, Scope};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let narrow = locks.mutex("stock", 7).scope(Scope::Thread).build()?;
    /// let wide = locks.mutex("stock", 7).scope(Scope::Host).build()?;
    /// drop(wide.lock()?); // from now on the name is locked at host scope
    /// assert_eq!(MutexGuard::scope(&narrow.lock()?), Scope::Host);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn scope(guard: &Self) -> Scope {
        guard.hold.scope()
    }

    /// Whether the lock is still held: not taken away, and its deadline not passed.
    ///
    /// True is a statement about this moment only; what must not be written twice needs the
    /// token checked by the store.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("import", ()).lock()?;
    /// let mut imported = 0;
    /// while imported < 10 && MutexGuard::is_valid(&guard) {
    ///     imported += 1; // … a small piece of work …
    ///     # if imported == 3 { locks.lose_lock("import"); }
    /// }
    /// assert_eq!(imported, 3); // the lock was lost after the third
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn is_valid(guard: &Self) -> bool {
        guard.hold.lost().is_none()
    }

    /// The token, if the lock is still held.
    ///
    /// # Errors
    /// `Lost`, with the reason.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("ledger/eu", ()).lock()?;
    /// let token = MutexGuard::check(&guard)?; // goes with the write
    /// # let _ = token;
    /// locks.lose_lock("ledger/eu");
    /// assert!(MutexGuard::check(&guard).unwrap_err().is_lost());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn check(guard: &Self) -> Result<Token> {
        guard.hold.check().map(|()| guard.hold.token())
    }

    /// The time that is left until the lock's deadline: the end of its lease or of `at_most`,
    /// whichever comes first. `None` without a deadline. Each renewal moves the lease's end.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::time::Duration;
    /// use tierlock::{LockManager, Mutex, MutexGuard};
    ///
    /// assert_eq!(MutexGuard::remaining(&Mutex::new(()).lock()?), None);
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("report", ()).at_most(Duration::from_secs(60)).lock()?;
    /// assert!(MutexGuard::remaining(&guard).unwrap() <= Duration::from_secs(60));
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn remaining(guard: &Self) -> Option<Duration> {
        let deadline = guard.hold.deadline();
        (deadline != Time::NEVER).then(|| deadline.since(clock::now()))
    }

    /// A future of the reason why the lock is lost.
    ///
    /// It does not borrow the guard, can be cloned and sent, and pends for ever once the guard
    /// was dropped in good order.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{LockManager, LostReason, MutexGuard};
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("import", ()).lock_async().await?;
    /// let lost = MutexGuard::lost(&guard); // for `select!` beside the work
    /// locks.lose_lock("import");
    /// assert_eq!(lost.await, LostReason::Provoked);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn lost(guard: &Self) -> Lost {
        Lost::new(guard.hold.watch())
    }

    /// Why the lock is lost, if it is.
    #[cfg(feature = "cli")]
    pub(crate) fn why_lost(guard: &Self) -> Option<LostReason> {
        guard.hold.lost()
    }

    /// Calls `callback` once, if and when the lock is lost while the guard exists; at once and on
    /// this thread, if it is lost already.
    ///
    /// It runs on a thread that tierlock starts for it, after the futures of [`lost`](Self::lost)
    /// were woken, and may block: up to 64 callbacks run at the same time and hold up neither each
    /// other nor any renewal or release. Those beyond that wait until one returns. A panic in it
    /// is caught, and reported by the panic hook alone.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::sync::mpsc;
    /// use tierlock::{LockManager, LostReason, MutexGuard};
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("import", ()).lock()?;
    /// let (tell, told) = mpsc::channel();
    /// MutexGuard::on_lost(&guard, move |why| tell.send(why).unwrap());
    /// locks.lose_lock("import");
    /// assert_eq!(told.recv().unwrap(), LostReason::Provoked);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_lost(guard: &Self, callback: impl FnOnce(LostReason) + Send + 'static) {
        if let Some(watch) = guard.hold.watch() {
            watch.on_lost(Box::new(callback));
        }
    }

    /// How the previous holder left. After anything but `Clean` the protected data outside this
    /// process may be half done.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard, Predecessor};
    ///
    /// let stock = Mutex::new(vec![1, 2, 3]);
    /// let guard = stock.lock()?;
    /// match MutexGuard::predecessor(&guard) {
    ///     Predecessor::Clean => {}
    ///     left => println!("the last holder left so: {left:?}; look for half a job"),
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn predecessor(guard: &Self) -> Predecessor {
        guard.hold.predecessor()
    }

    /// Releases the lock, and says whether it was held to the end.
    ///
    /// It does not wait for the leader; see [`unlock_async`](Self::unlock_async).
    ///
    /// # Errors
    /// `Lost`, with the reason. The lock is released in any case.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// let ledger = Mutex::new(vec![1]);
    /// let mut guard = ledger.lock()?;
    /// guard.push(2);
    /// MutexGuard::unlock(guard)?; // unlike `drop`, says if the lock was lost meanwhile
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn unlock(guard: Self) -> Result<()> {
        let checked = guard.hold.check();
        drop(guard);
        checked
    }

    /// Releases the lock to the first in line, as parking_lot's does.
    ///
    /// At thread scope a release hands the lock over to a waiter of more than 0.5 ms, and else leaves it
    /// to the quickest; this one hands it over however shortly the first has waited. The wider scopes
    /// keep an order of their own, which [`unlock`](Self::unlock) keeps as well: between processes a
    /// waiter of more than 1 ms comes first, a leader serves in order of arrival. Readers and permits
    /// hold no waiter up that could be overtaken.
    ///
    /// # Errors
    /// `Lost`, with the reason. The lock is released in any case.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// let queue = Mutex::new(vec![1, 2, 3]);
    /// loop {
    ///     let mut guard = queue.lock()?;
    ///     if guard.pop().is_none() {
    ///         break;
    ///     }
    ///     MutexGuard::unlock_fair(guard)?; // a thread that waits comes before the next round
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn unlock_fair(guard: Self) -> Result<()> {
        let checked = guard.hold.check();
        guard.hold.release_fairly();
        checked
    }

    /// Releases the lock, and at host scope waits for the leader's answer.
    ///
    /// # Cancel safety
    /// The release is queued at the call, not at the first poll, and is not taken back when the
    /// future is dropped.
    ///
    /// # Errors
    /// `Lost`, with the reason, if the lock was not held to the end; `Unreachable`, if no leader
    /// answers within the manager's `connect_timeout`: then the lease ends at its deadline. The
    /// lock is released in any case.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("import", ()).lock_async().await?;
    /// MutexGuard::unlock_async(guard).await?; // from here on the leader has read the release
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn unlock_async(guard: Self) -> impl Future<Output = Result<()>> + Send + 'static {
        let checked = guard.hold.check();
        let answer = guard.hold.release_answered();
        async move {
            let answered = answer.await;
            checked.and(answered)
        }
    }

    /// As [`unlock_async`](Self::unlock_async), blocking the calling thread.
    ///
    /// # Errors
    /// As [`unlock_async`](Self::unlock_async).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("import", ()).lock()?;
    /// MutexGuard::unlock_blocking(guard)?; // from here on the leader has read the release
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn unlock_blocking(guard: Self) -> Result<()> {
        blocking::wait_for(Self::unlock_async(guard))
    }

    /// Releases the lock unused: the next holder is told of the same predecessor as this one.
    ///
    /// So a holder that only looked whether the lock is free does not hide that the one before it
    /// died. An `at_least` does not keep the lock.
    ///
    /// # Errors
    /// `Lost`, with the reason. The lock is released in any case.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard, Predecessor};
    ///
    /// let mutex = Mutex::new(());
    /// std::thread::scope(|scope| {
    ///     let holder = scope.spawn(|| {
    ///         let _guard = mutex.lock().unwrap();
    ///         panic!("half done");
    ///     });
    ///     assert!(holder.join().is_err());
    /// });
    /// MutexGuard::hand_on(mutex.lock()?)?; // only looked
    /// assert_eq!(MutexGuard::predecessor(&mutex.lock()?), Predecessor::Panicked);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn hand_on(guard: Self) -> Result<()> {
        let checked = guard.hold.check();
        guard.hold.give_back();
        checked
    }

    /// As [`hand_on`](Self::hand_on), with the leader's answer to wait for.
    #[cfg(feature = "cli")]
    pub(crate) fn hand_on_answered(
        guard: Self,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let how = guard.hold.predecessor();
        guard.hold.release_answered_as(Some(how))
    }

    /// What its lock is, if that has a name.
    pub(crate) fn named(guard: &Self) -> Option<&Named> {
        match &guard.hold.anchor().core {
            Core::Plain(_) => None,
            Core::Named(named) => Some(named),
        }
    }

    /// A descriptor that proves this lock is held, for a command that is to inherit it.
    #[cfg(feature = "cli")]
    pub(crate) fn proof_of_life(guard: &Self) -> Option<std::io::Result<std::os::fd::OwnedFd>> {
        match &guard.hold.anchor().core {
            Core::Plain(_) => None,
            Core::Named(named) => named.proof_of_life(guard.hold.held()),
        }
    }
}

impl<'a, T: ?Sized, M: Excludes> LockGuard<'a, T, M> {
    /// A guard of a part of the data.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// let pair = Mutex::new((1, "one"));
    /// let mut number = MutexGuard::map(pair.lock()?, |pair| &mut pair.0);
    /// *number += 1;
    /// drop(number);
    /// assert_eq!(pair.lock()?.0, 2);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn map<U: ?Sized>(guard: Self, part: impl FnOnce(&mut T) -> &mut U) -> LockGuard<'a, U, M> {
        let LockGuard { mut value, hold, .. } = guard;
        // SAFETY: the guard had the only access to the value, and `hold` still has it.
        let value = NonNull::from(part(unsafe { value.as_mut() }));
        LockGuard { value, hold, marker: PhantomData }
    }

    /// A guard of a part of the data, if there is that part; else the guard itself.
    ///
    /// # Errors
    /// The guard, when `part` returns `None`.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// let queue = Mutex::new(vec![1, 2]);
    /// match MutexGuard::try_map(queue.lock()?, |queue| queue.first_mut()) {
    ///     Ok(mut first) => *first = 7,
    ///     Err(empty) => drop(empty), // the lock is still held here
    /// }
    /// assert_eq!(*queue.lock()?, [7, 2]);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_map<U: ?Sized>(
        guard: Self,
        part: impl FnOnce(&mut T) -> Option<&mut U>,
    ) -> std::result::Result<LockGuard<'a, U, M>, Self> {
        let LockGuard { mut value, hold, .. } = guard;
        // SAFETY: the guard had the only access to the value, and `hold` still has it.
        match part(unsafe { value.as_mut() }) {
            Some(part) => Ok(LockGuard { value: NonNull::from(part), hold, marker: PhantomData }),
            None => Err(LockGuard { value, hold, marker: PhantomData }),
        }
    }

    /// Gives up the guard and keeps the data: the lock is held until its mutex is dropped.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Mutex, MutexGuard};
    ///
    /// let settings = Mutex::new(String::from("eu"));
    /// let forever: &mut String = MutexGuard::leak(settings.lock()?);
    /// forever.push('1');
    /// assert!(settings.is_locked());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn leak(guard: Self) -> &'a mut T {
        let mut guard = ManuallyDrop::new(guard);
        // SAFETY: the guard had the only access to the value, and never gives it back. Its mutex
        // outlives `'a`: it is borrowed for that long, or owned by a share that is leaked as well.
        unsafe { guard.value.as_mut() }
    }
}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// A guard of a part of the data.
    ///
    /// # Example
    /// ```
    /// use tierlock::{RwLock, RwLockReadGuard};
    ///
    /// let pair = RwLock::new((1, "one"));
    /// let word = RwLockReadGuard::map(pair.read()?, |pair| &pair.1);
    /// assert_eq!(*word, "one");
    /// assert!(pair.try_write().is_err()); // it still reads
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn map<U: ?Sized>(guard: Self, part: impl FnOnce(&T) -> &U) -> RwLockReadGuard<'a, U> {
        let LockGuard { value, hold, .. } = guard;
        // SAFETY: the guard may read the value, and `hold` still may.
        let value = NonNull::from(part(unsafe { value.as_ref() }));
        LockGuard { value, hold, marker: PhantomData }
    }

    /// A guard of a part of the data, if there is that part; else the guard itself.
    ///
    /// # Errors
    /// The guard, when `part` returns `None`.
    ///
    /// # Example
    /// ```
    /// use tierlock::{RwLock, RwLockReadGuard};
    ///
    /// let queue = RwLock::new(vec![1, 2]);
    /// let last = RwLockReadGuard::try_map(queue.read()?, |queue| queue.last());
    /// assert_eq!(*last.expect("it is not empty"), 2);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_map<U: ?Sized>(
        guard: Self,
        part: impl FnOnce(&T) -> Option<&U>,
    ) -> std::result::Result<RwLockReadGuard<'a, U>, Self> {
        let LockGuard { value, hold, .. } = guard;
        // SAFETY: the guard may read the value, and `hold` still may.
        match part(unsafe { value.as_ref() }) {
            Some(part) => Ok(LockGuard { value: NonNull::from(part), hold, marker: PhantomData }),
            None => Err(LockGuard { value, hold, marker: PhantomData }),
        }
    }
}

impl Permit<'_> {
    /// How many permits it has.
    pub fn count(permit: &Self) -> u32 {
        permit.hold.held().permits()
    }
}

impl<'a> Permit<'a> {
    /// # Safety
    /// `held` is what was just won of the semaphore of `anchor`, which stays alive for `'a`, or as long
    /// as the keeper.
    #[inline]
    pub(crate) unsafe fn of_permits(
        anchor: NonNull<Anchor>,
        held: Held,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Self {
        let own = GuardState { held, keeper, was_panicking: false, told: OnceLock::new() };
        let own = ManuallyDrop::new(own);
        let hold = GuardHold { anchor, own, marker: PhantomData };
        LockGuard { value: NonNull::dangling(), hold, marker: PhantomData }
    }

    /// Parts so many of its permits from the others: a guard of their own. `None`, if it has no more
    /// than that, or `count` is 0.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Permit, Semaphore};
    ///
    /// let seats = Semaphore::new(3);
    /// let mut both = seats.acquire_many(2)?;
    /// let one = Permit::split(&mut both, 1).unwrap();
    /// drop(both);
    /// assert_eq!(seats.available()?, 2);
    /// # drop(one);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn split(permit: &mut Self, count: u32) -> Option<Permit<'a>> {
        let is_here = !permit.hold.held().is_forked();
        if count == 0 || count >= Permit::count(permit) || !is_here {
            return None;
        }
        let anchor = permit.hold.anchor;
        // SAFETY: alive as long as the guard: borrowed for `'a`, or kept by the state's keeper.
        let core = unsafe { &anchor.as_ref().core };
        let own = &mut permit.hold.own;
        let (held, keeper) = (core.split(&mut own.held, count), own.keeper.clone());
        // SAFETY: they are of the same semaphore, and the guard has a keeper if the other has one.
        Some(unsafe { Permit::of_permits(anchor, held, keeper) })
    }
}

impl<T: ?Sized, M: GuardMode> Deref for LockGuard<'_, T, M> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard may read the value until it is dropped.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized, M: Excludes> DerefMut for LockGuard<'_, T, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard has the only access to the value until it is dropped.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized + fmt::Debug, M: GuardMode> fmt::Debug for LockGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display, M: GuardMode> fmt::Display for LockGuard<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

// A failed or successful lock moves a guard; keep it small.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<MutexGuard<'static, ()>>() == 16);

#[cfg(all(test, not(tierlock_loom)))]
mod tests;
