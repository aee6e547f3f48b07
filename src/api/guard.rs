//! The one guard: the right to the data, its token, and how its loss is told.
//!
//! What differs between a mutex's guard and those of readers and writers is their [`GuardMode`]: what
//! access it gives, and where what it holds stands.
//!
//! Loss ends the right, not the borrow: a lost guard still derefs, and until it is dropped no
//! other guard of its `Mutex` exists. `is_valid`, `check` and `unlock` tell the truth.

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

use crate::{
    blocking, clock,
    error::{LockError, LostReason, Predecessor, Result},
    fork,
    path::{Core, Held, Patience, Won},
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
pub type Permit<'a> = LockGuard<'a, (), PermitMode>;

/// A permit that owns its share of the semaphore.
pub type OwnedPermit = Permit<'static>;

/// How a guard has its lock.
///
/// Not for implementation outside this crate.
#[doc(hidden)]
pub trait GuardMode: Sized {
    /// What the guard itself keeps of what it holds: nothing, if it is the only one of its lock, for
    /// then that stands in the lock.
    type Own;
    /// Whether others may be inside beside it, so that it keeps what it holds.
    #[doc(hidden)]
    const SHARES: bool = false;
    /// Whether it leaves a lock as it found it: it has changed nothing.
    #[doc(hidden)]
    const READS: bool = false;

    #[doc(hidden)]
    fn own(own: &Self::Own) -> Option<&GuardState>;
    #[doc(hidden)]
    fn own_mut(own: &mut Self::Own) -> Option<&mut GuardState>;
}

/// The only guard of its lock, with the only access to the data.
#[doc(hidden)]
pub trait Excludes: GuardMode {}

macro_rules! sole_guards {
    ($($(#[$doc:meta])* $name:ident reads $reads:literal,)+) => {$(
        $(#[$doc])*
        #[doc(hidden)]
        pub struct $name;

        impl GuardMode for $name {
            type Own = ();
            const READS: bool = $reads;

            #[inline]
            fn own(&(): &()) -> Option<&GuardState> {
                None
            }

            #[inline]
            fn own_mut((): &mut ()) -> Option<&mut GuardState> {
                None
            }
        }
    )+};
}

sole_guards! {
    /// A mutex's.
    Exclusive reads false,
    /// A writer's.
    Write reads false,
    /// An upgradable reader's: readers may be inside beside it.
    UpgradableRead reads true,
}

impl Excludes for Exclusive {}
impl Excludes for Write {}

macro_rules! sharing_guards {
    ($($(#[$doc:meta])* $name:ident,)+) => {$(
        $(#[$doc])*
        #[doc(hidden)]
        pub struct $name;

        impl GuardMode for $name {
            type Own = GuardState;
            const SHARES: bool = true;
            const READS: bool = true;

            #[inline]
            fn own(own: &GuardState) -> Option<&GuardState> {
                Some(own)
            }

            #[inline]
            fn own_mut(own: &mut GuardState) -> Option<&mut GuardState> {
                Some(own)
            }
        }
    )+};
}

sharing_guards! {
    /// A reader's: it keeps what it holds.
    Read,
    /// That of permits of a semaphore: it keeps what it holds.
    PermitMode,
}

/// A guard that owns its share of the mutex, or all of it: made by
/// [`Mutex::lock_arc`](crate::Mutex::lock_arc), [`Mutex::lock_owned`](crate::Mutex::lock_owned) and
/// by [`MutexBuilder`](crate::MutexBuilder).
pub type OwnedMutexGuard<T> = MutexGuard<'static, T>;

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

impl<'a, T: ?Sized, M: GuardMode<Own = ()>> LockGuard<'a, T, M> {
    /// # Safety
    /// The lock of `anchor` was just won in this mode, what was won is installed in it, and `value` is
    /// the data that it protects. Both stay alive for `'a`, or as long as the keeper in the state.
    #[inline]
    pub(crate) unsafe fn new(value: NonNull<T>, anchor: NonNull<Anchor>) -> Self {
        LockGuard {
            value,
            hold: GuardHold { anchor, own: (), marker: PhantomData },
            marker: PhantomData,
        }
    }

    /// The same lock in another mode, where what is held stands as it did.
    fn into_mode<N: GuardMode<Own = ()>>(guard: Self) -> LockGuard<'a, T, N> {
        let guard = ManuallyDrop::new(guard);
        let hold = GuardHold { anchor: guard.hold.anchor, own: (), marker: PhantomData };
        LockGuard { value: guard.value, hold, marker: PhantomData }
    }

    /// Changes what is held, of the core that it is held of.
    fn change<R>(guard: &mut Self, change: impl FnOnce(&Core, &mut Held) -> R) -> R {
        let anchor = guard.hold.anchor();
        // SAFETY: this is the holder, and no other reference to the state exists.
        let state = unsafe { &mut *anchor.state.get() };
        change(&anchor.core, &mut state.held)
    }

    /// Becomes a reader. Failed, the lock is released.
    fn into_reader(guard: Self) -> Result<RwLockReadGuard<'a, T>> {
        guard.hold.check()?;
        let how = match M::READS {
            true => guard.hold.predecessor(),
            false => Predecessor::Clean,
        };
        let anchor = guard.hold.anchor();
        // SAFETY: this is the holder, and no other reference to the state exists. It is not touched
        // any more once the lock is released.
        let state = unsafe { &mut *anchor.state.get() };
        // The keeper keeps the lock alive meanwhile, whichever way this ends.
        let (mut sole, keeper) = (state.held.take(), state.keeper.take());
        let held = match anchor.core.downgrade(&mut sole, how) {
            Ok(held) => held,
            Err(error) => {
                (state.held, state.keeper) = (sole, keeper);
                return Err(error);
            }
        };
        let guard = ManuallyDrop::new(guard);
        let anchor = guard.hold.anchor;
        let own = GuardState { held, keeper, was_panicking: false, told: OnceLock::new() };
        let hold = GuardHold { anchor, own, marker: PhantomData };
        Ok(LockGuard { value: guard.value, hold, marker: PhantomData })
    }
}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// # Safety
    /// `held` is a reader's right to the lock of `anchor`, and `value` is the data that it protects.
    /// Both stay alive for `'a`, or as long as the keeper.
    #[inline]
    pub(crate) unsafe fn of_reader(
        value: NonNull<T>,
        anchor: NonNull<Anchor>,
        held: Held,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Self {
        let own = GuardState { held, keeper, was_panicking: false, told: OnceLock::new() };
        LockGuard {
            value,
            hold: GuardHold { anchor, own, marker: PhantomData },
            marker: PhantomData,
        }
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Becomes a reader, and lets other readers in; no writer comes in between.
    ///
    /// # Errors
    /// `Lost`, if the lock is lost; at process scope `Io` or `Damaged` in a forked child that uses the
    /// lock for the first time. The lock is released then.
    pub fn downgrade(guard: Self) -> Result<RwLockReadGuard<'a, T>> {
        Self::into_reader(guard)
    }

    /// Becomes an upgradable reader, and lets other readers in; no writer comes in between.
    ///
    /// # Errors
    /// `Lost`, if the lock is lost. The lock is released then.
    pub fn downgrade_to_upgradable(mut guard: Self) -> Result<RwLockUpgradableReadGuard<'a, T>> {
        guard.hold.check()?;
        Self::change(&mut guard, Core::downgrade_to_upgradable)?;
        Ok(Self::into_mode(guard))
    }
}

impl<'a, T: ?Sized> RwLockUpgradableReadGuard<'a, T> {
    /// Waits until no other reader is inside, and becomes the writer; none comes in between. It has
    /// a token of its own then.
    ///
    /// # Errors
    /// `Lost`, if the lock is lost; `Io` or `Damaged` from the directory. The lock is released then.
    ///
    /// # Example
    /// ```
    /// use tierlock::{RwLock, RwLockUpgradableReadGuard};
    ///
    /// let stock = RwLock::new(7);
    /// let seen = stock.upgradable_read()?;
    /// if *seen > 0 {
    ///     *RwLockUpgradableReadGuard::upgrade(seen)? -= 1;
    /// }
    /// assert_eq!(*stock.read()?, 6);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn upgrade(mut guard: Self) -> Result<RwLockWriteGuard<'a, T>> {
        guard.hold.check()?;
        Self::change(&mut guard, |core, held| core.upgrade(held, Patience::Forever))?;
        Ok(Self::into_mode(guard))
    }

    /// As [`upgrade`](Self::upgrade), if no other reader is inside.
    ///
    /// # Errors
    /// The guard, if another reader is inside, or the lock is lost.
    pub fn try_upgrade(guard: Self) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgrade_within(guard, Patience::No)
    }

    /// As [`upgrade`](Self::upgrade), waiting at most for `wait`.
    ///
    /// # Errors
    /// The guard, if another reader is inside all the time, or the lock is lost.
    pub fn try_upgrade_for(
        guard: Self,
        wait: Duration,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgrade_within(guard, Patience::for_at_most(wait))
    }

    fn upgrade_within(
        mut guard: Self,
        patience: Patience,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        let upgraded = guard.hold.check();
        let upgraded = upgraded
            .and_then(|()| Self::change(&mut guard, |core, held| core.upgrade(held, patience)));
        match upgraded {
            Ok(()) => Ok(Self::into_mode(guard)),
            Err(_) => Err(guard),
        }
    }

    /// As [`upgrade`](Self::upgrade), blocking no thread.
    ///
    /// # Cancel safety
    /// The future has the guard: dropped early, it releases the lock.
    pub async fn upgrade_async(guard: Self) -> Result<RwLockWriteGuard<'a, T>> {
        guard.hold.check()?;
        let anchor = guard.hold.anchor();
        {
            // SAFETY: this is the holder, and no other reference to the state exists.
            let held = unsafe { &mut (*anchor.state.get()).held };
            anchor.core.upgrade_async(held).await?;
        }
        Ok(Self::into_mode(guard))
    }

    /// Becomes a plain reader; another upgradable one, or a writer, may come next.
    ///
    /// # Errors
    /// As [`RwLockWriteGuard::downgrade`].
    pub fn downgrade(guard: Self) -> Result<RwLockReadGuard<'a, T>> {
        Self::into_reader(guard)
    }
}

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
    pub fn scope(guard: &Self) -> Scope {
        guard.hold.scope()
    }

    /// Whether the lock is still held: not taken away, and its deadline not passed.
    ///
    /// True is a statement about this moment only; what must not be written twice needs the
    /// token checked by the store.
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
        let answer = guard.hold.let_go_answered();
        async move {
            let answered = answer.await;
            checked.and(answered)
        }
    }

    /// As [`unlock_async`](Self::unlock_async), blocking the calling thread.
    ///
    /// # Errors
    /// As [`unlock_async`](Self::unlock_async).
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
        guard.hold.let_go_answered_as(Some(how))
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

impl Anchor {
    pub(crate) const fn new(core: Core) -> Anchor {
        let state = GuardState {
            held: Held::NOTHING,
            keeper: None,
            was_panicking: false,
            told: OnceLock::new(),
        };
        Anchor { core, state: UnsafeCell::new(state) }
    }

    /// Keeps what was won until the guard is dropped.
    ///
    /// # Errors
    /// `Config` in a forked child, if a guard of this very mutex existed at the fork: the child has
    /// inherited that guard, and a second one of its own would be a second way to the same data.
    /// What was won is released.
    ///
    /// # Safety
    /// The lock was just won by this call's thread or task, and no guard was made of it yet.
    #[inline]
    pub(crate) unsafe fn install(&self, held: Held, keeper: Option<Arc<dyn Keeper>>) -> Result<()> {
        // SAFETY: the state belongs to the holder of the lock, and that is the caller; an inherited
        // guard in a forked child only reads it, and then no thread writes it.
        if unsafe { &*self.state.get() }.held.is_inherited() {
            return self.refuse(held);
        }
        // SAFETY: the same, and there is no inherited guard.
        let state = unsafe { &mut *self.state.get() };
        state.keeper = keeper;
        state.was_panicking = std::thread::panicking();
        // Of an unnamed mutex it is nothing that its release needs; of a lock with readers it is.
        if matches!(self.core, Core::Named(_)) || held.is_readable() {
            state.held = held;
        }
        Ok(())
    }

    /// What `install` does for what was won quietly, for a guard that borrows: what stands in the
    /// state while there is no guard stays as it is.
    ///
    /// # Errors, safety
    /// As [`install`](Self::install).
    #[inline]
    pub(crate) unsafe fn install_won(&self, won: Won) -> Result<()> {
        // SAFETY: the same contract.
        let is_new = unsafe { &*self.state.get() }.held.is_nothing();
        if !is_new || std::thread::panicking() {
            // SAFETY: the same contract.
            return unsafe { self.install(won.into(), None) };
        }
        // SAFETY: the same contract, and there is no inherited guard.
        unsafe { &mut *self.state.get() }.held.put(won);
        Ok(())
    }

    /// Runs `look` while no other thread or task has the data, if no guard exists just now and none
    /// was inherited by a fork.
    pub(crate) fn look<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        self.core.look(|| {
            // SAFETY: the state belongs to the holder of the lock, and an inherited guard in a forked
            // child only reads it.
            let is_inherited = unsafe { &*self.state.get() }.held.is_inherited();
            (!is_inherited).then(look)
        })?
    }

    #[cold]
    fn refuse(&self, mut held: Held) -> Result<()> {
        let how = held.predecessor();
        self.core.release(&mut held, how);
        let error = LockError::config(
            "a guard of this mutex existed when this process was forked: build another mutex of \
             this name in the child",
        );
        Err(match &self.core {
            Core::Plain(_) => error,
            Core::Named(named) => error.with_name(named.name()),
        })
    }

    /// What `install` does for a quiet lock of an unnamed mutex that a guard borrows: nothing,
    /// unless a panic is under way.
    ///
    /// # Safety
    /// As [`install`](Self::install).
    #[inline]
    pub(crate) unsafe fn install_plain(&self) {
        if std::thread::panicking() {
            // SAFETY: the same contract.
            let installed = unsafe { self.install(Held::NOTHING, None) };
            debug_assert!(installed.is_ok(), "an unnamed mutex knows no forks");
        }
    }
}

impl Drop for Anchor {
    /// No guard borrows the mutex any more, and none owns a share of it: what is still held is that
    /// of a guard which was forgotten.
    fn drop(&mut self) {
        let held = &mut self.state.get_mut().held;
        if !held.is_nothing() {
            let mut held = held.take();
            self.core.release(&mut held, Predecessor::Died);
        }
    }
}

impl<M: GuardMode> GuardHold<'_, M> {
    #[inline]
    fn anchor(&self) -> &Anchor {
        // SAFETY: alive as long as the guard: borrowed for `'a`, or kept by the state's keeper.
        unsafe { self.anchor.as_ref() }
    }

    #[inline]
    fn state(&self) -> &GuardState {
        match M::own(&self.own) {
            Some(own) => own,
            // SAFETY: this is the holder, and changing the state takes the `GuardHold` itself.
            None => unsafe { &*self.anchor().state.get() },
        }
    }

    fn held(&self) -> &Held {
        &self.state().held
    }

    fn token(&self) -> Token {
        match &self.anchor().core {
            Core::Plain(plain) if !M::SHARES => plain.lock.last_token(),
            _ => self.held().token,
        }
    }

    fn predecessor(&self) -> Predecessor {
        match &self.anchor().core {
            Core::Plain(plain) if !M::SHARES => plain.lock.predecessor(),
            _ => self.held().predecessor(),
        }
    }

    fn scope(&self) -> Scope {
        // Of an unnamed mutex it is `NOTHING`, of thread scope.
        self.held().scope()
    }

    fn watch(&self) -> Option<Arc<Watch>> {
        match &self.anchor().core {
            Core::Plain(_) => None,
            Core::Named(named) if named.has_own_watch(self.held()) => {
                let told = &self.state().told;
                if let Some(watch) = told.get() {
                    return Some(watch.clone());
                }
                let watch = named.watch(self.held())?;
                let kept = told.get_or_init(|| watch.clone());
                if !Arc::ptr_eq(kept, &watch) {
                    named.end_reader_watch(self.held(), &watch); // another thread was first
                }
                Some(kept.clone())
            }
            Core::Named(named) => named.watch(self.held()),
        }
    }

    fn deadline(&self) -> Time {
        match &self.anchor().core {
            Core::Plain(_) => Time::NEVER,
            Core::Named(named) => named.deadline(self.held()),
        }
    }

    fn lost(&self) -> Option<LostReason> {
        if self.held().is_forked() {
            return Some(LostReason::Forked);
        }
        match &self.anchor().core {
            Core::Plain(_) => None,
            Core::Named(named) => named.lost(self.held()),
        }
    }

    fn check(&self) -> Result<()> {
        match self.lost() {
            None => Ok(()),
            Some(reason) => Err(self.describe(LockError::lost(reason))),
        }
    }

    #[cold]
    fn describe(&self, error: LockError) -> LockError {
        let error = error.with_scope(self.scope());
        match &self.anchor().core {
            Core::Plain(_) => error,
            Core::Named(named) => error.with_name(named.name()),
        }
    }

    /// Whether releasing it takes no more than to release the thread lock, left clean.
    #[inline]
    fn is_quiet(&self) -> bool {
        let state = self.state();
        state.keeper.is_none() && !state.was_panicking && !std::thread::panicking()
    }

    #[inline(never)]
    fn let_go(&mut self) {
        if self.held().is_forked() {
            // The parent's guard, of which the child has but a copy: it stays as it is for good.
            return;
        }
        let (mut held, keeper, how) = self.take();
        self.anchor().core.release(&mut held, how);
        drop(keeper);
    }

    /// Gives back what nothing was done under.
    fn give_back(self) {
        let mut hold = ManuallyDrop::new(self);
        if hold.held().is_forked() {
            return;
        }
        let (mut held, keeper, _) = hold.take();
        hold.anchor().core.give_back(&mut held);
        drop(keeper);
    }

    fn let_go_answered(self) -> impl Future<Output = Result<()>> + Send + 'static {
        self.let_go_answered_as(None)
    }

    /// The same, with another word on how it is left.
    fn let_go_answered_as(
        self,
        said: Option<Predecessor>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let mut hold = ManuallyDrop::new(self);
        let answer = (!hold.held().is_forked()).then(|| {
            let (mut held, keeper, how) = hold.take();
            let is_unused = said.is_some();
            let core = &hold.anchor().core;
            let answer = core.release_answered(&mut held, said.unwrap_or(how), is_unused);
            drop(keeper);
            answer
        });
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(()),
            }
        }
    }

    /// Empties the state, for the next holder. The keeper is to be dropped last.
    fn take(&mut self) -> (Held, Option<Arc<dyn Keeper>>, Predecessor) {
        let before = self.predecessor();
        let anchor = self.anchor;
        // SAFETY: alive as long as the guard: borrowed for `'a`, or kept by the state's keeper.
        let anchor = unsafe { anchor.as_ref() };
        let state = match M::own_mut(&mut self.own) {
            Some(own) => own,
            // SAFETY: this is the holder, and no other reference to the state exists.
            None => unsafe { &mut *anchor.state.get() },
        };
        if let Some(watch) = state.told.take()
            && let Core::Named(named) = &anchor.core
        {
            named.end_reader_watch(&state.held, &watch);
        }
        let panicked = std::thread::panicking() && !state.was_panicking;
        let how = match (M::READS, panicked) {
            (true, _) => before,
            (false, true) => Predecessor::Panicked,
            (false, false) => Predecessor::Clean,
        };
        state.was_panicking = false;
        (state.held.take(), state.keeper.take(), how)
    }
}

impl<M: GuardMode> Drop for GuardHold<'_, M> {
    // So little that it is compiled into the caller: a call costs a fifteenth of a quiet lock.
    #[inline]
    fn drop(&mut self) {
        if let Some(own) = M::own_mut(&mut self.own)
            && own.keeper.is_none()
            && own.told.get().is_none()
        {
            // SAFETY: alive as long as the guard: borrowed for `'a`.
            let core = unsafe { &self.anchor.as_ref().core };
            if core.leave_quietly(&mut own.held) {
                return;
            }
        }
        match &self.anchor().core {
            Core::Plain(plain) if !M::READS && self.is_quiet() => {
                plain.lock.release(Predecessor::Clean);
            }
            _ => self.let_go_of_more(),
        }
    }
}

impl<M: GuardMode> GuardHold<'_, M> {
    /// Lets go of a named lock, or of one with something besides.
    #[inline(never)]
    fn let_go_of_more(&mut self) {
        let generation = fork::generation();
        match &self.anchor().core {
            Core::Named(named)
                if !M::READS && self.is_quiet() && self.held().is_quiet_in(generation) =>
            {
                // SAFETY: this is the holder, and no other reference to it exists.
                let won = unsafe { &mut *self.anchor().state.get() }.held.take_won();
                named.release_quietly(won, generation);
            }
            _ => self.let_go(),
        }
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
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
        sync::mpsc,
    };

    use super::*;
    use crate::Mutex;

    /// Locks while its thread panics, and hands the guard out of that.
    struct Rescuer<'a>(&'a Mutex<()>, mpsc::Sender<MutexGuard<'a, ()>>);

    impl Drop for Rescuer<'_> {
        fn drop(&mut self) {
            self.1.send(self.0.lock().unwrap()).unwrap();
        }
    }

    fn panic_with<T>(held: T) {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = held;
            resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
    }

    #[test]
    fn a_lock_taken_in_a_panic_hides_no_later_one() {
        let mutex = Mutex::new(());
        let (send, rescued) = mpsc::channel();
        panic_with(Rescuer(&mutex, send));
        drop(rescued.recv().unwrap());
        panic_with(mutex.lock().unwrap());
        assert_eq!(MutexGuard::predecessor(&mutex.lock().unwrap()), Predecessor::Panicked);
    }
}
