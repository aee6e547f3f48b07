//! Guards that become other guards: upgrades and downgrades.

use std::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use super::{
    Anchor, GuardHold, GuardState, Keeper, LockGuard, RwLockReadGuard, RwLockUpgradableReadGuard,
    RwLockWriteGuard, mode::GuardMode,
};
use crate::{
    error::{LockError, Predecessor, Result},
    path::{Core, Held, Patience},
};

impl<'a, T: ?Sized, M: GuardMode> LockGuard<'a, T, M> {
    pub(crate) fn is_of(guard: &Self, anchor: &Anchor) -> bool {
        std::ptr::eq(guard.hold.anchor.as_ptr(), anchor)
    }

    /// Lets waiters of the lock of `anchor` go first. The guard itself, now of all of the `value` that the
    /// lock protects, if none may wait; else it is released.
    ///
    /// # Errors
    /// `Lost`, if the lock was lost, which is released then; `Config`, if it is another lock's guard.
    ///
    /// # Safety
    /// `value` is the data that the lock of `anchor` protects. Both stay alive for `'a`.
    pub(crate) unsafe fn step_back(
        guard: Self,
        value: NonNull<T>,
        anchor: &'a Anchor,
    ) -> Result<Option<Self>> {
        guard.hold.check()?;
        if !LockGuard::is_of(&guard, anchor) {
            let error = LockError::config("a lock was to be bumped with another lock's guard");
            return Err(error.with_scope(LockGuard::scope(&guard)));
        }
        let LockGuard { hold, .. } = guard;
        if !hold.may_be_waited_for() {
            return Ok(Some(LockGuard { value, hold, marker: PhantomData }));
        }
        hold.release_fairly();
        Ok(None)
    }
}

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
        // From here on it is not dropped: what it would release may be another's by then, and the keeper below goes
        // first if anything panics.
        let guard = ManuallyDrop::new(guard);
        let anchor = guard.hold.anchor();
        // SAFETY: this is the holder, and no other reference to the state exists. It is not touched
        // any more once the lock is released.
        let state = unsafe { &mut *anchor.state.get() };
        // The keeper keeps the lock alive meanwhile, whichever way this ends.
        let (mut sole, keeper) = (state.held.take(), state.keeper.take());
        let told = std::mem::take(&mut state.told);
        let held = match anchor.core.downgrade(&mut sole, how) {
            Ok(held) => held,
            Err(error) => {
                (state.held, state.keeper, state.told) = (sole, keeper, told);
                drop(ManuallyDrop::into_inner(guard));
                return Err(error);
            }
        };
        let anchor = guard.hold.anchor;
        let own = ManuallyDrop::new(GuardState { held, keeper, was_panicking: false, told });
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
        let own = ManuallyDrop::new(own);
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
    ///
    /// # Example
    /// ```
    /// use tierlock::{RwLock, RwLockWriteGuard};
    ///
    /// let prices = RwLock::new(vec![3]);
    /// let mut writing = prices.write()?;
    /// writing.push(4);
    /// let reading = RwLockWriteGuard::downgrade(writing)?;
    /// assert_eq!(prices.read()?.len(), reading.len()); // other readers are in
    /// assert!(prices.try_write().is_err());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn downgrade(guard: Self) -> Result<RwLockReadGuard<'a, T>> {
        Self::into_reader(guard)
    }

    /// Becomes an upgradable reader, and lets other readers in; no writer comes in between.
    ///
    /// # Errors
    /// `Lost`, if the lock is lost. The lock is released then.
    ///
    /// # Example
    /// ```
    /// use tierlock::{RwLock, RwLockUpgradableReadGuard, RwLockWriteGuard};
    ///
    /// let prices = RwLock::new(vec![3]);
    /// let seen = RwLockWriteGuard::downgrade_to_upgradable(prices.write()?)?;
    /// assert_eq!(*prices.read()?, *seen);
    /// RwLockUpgradableReadGuard::upgrade(seen)?.push(4); // no writer came in between
    /// assert_eq!(*prices.read()?, [3, 4]);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn downgrade_to_upgradable(mut guard: Self) -> Result<RwLockUpgradableReadGuard<'a, T>> {
        guard.hold.check()?;
        Self::change(&mut guard, Core::downgrade_to_upgradable)?;
        Ok(Self::into_mode(guard))
    }
}

impl<'a, T: ?Sized> RwLockUpgradableReadGuard<'a, T> {
    /// Waits until no other reader is inside, and becomes the writer; none comes in between. It has
    /// a token of its own then. At host scope it asks the leader, before all that wait there.
    ///
    /// # Errors
    /// `Lost`, if the lock is lost, also while it waits; `Io` or `Damaged` from the directory; `Config`, if
    /// the manager is closed meanwhile. The lock is released then.
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

    /// As [`upgrade`](Self::upgrade), if no other reader is inside. At host scope the leader says that, once
    /// it has asked for what other machines keep without a reader.
    ///
    /// # Errors
    /// The guard, if another reader is inside, or the lock is lost.
    ///
    /// # Example
    /// ```
    /// use tierlock::{RwLock, RwLockUpgradableReadGuard};
    ///
    /// let stock = RwLock::new(7);
    /// let seen = stock.upgradable_read()?;
    /// let other = stock.read()?;
    /// let seen = RwLockUpgradableReadGuard::try_upgrade(seen).unwrap_err(); // it goes on reading
    /// drop(other);
    /// *RwLockUpgradableReadGuard::try_upgrade(seen).expect("no other reader is inside") -= 1;
    /// assert_eq!(*stock.read()?, 6);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_upgrade(guard: Self) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgrade_within(guard, Patience::No)
    }

    /// As [`upgrade`](Self::upgrade), waiting at most for `wait`.
    ///
    /// # Errors
    /// The guard, if another reader is inside all the time, or the lock is lost. It is upgradable as before,
    /// and readers come in beside it again.
    pub fn try_upgrade_for(
        guard: Self,
        wait: Duration,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgrade_within(guard, Patience::for_at_most(wait))
    }

    /// As [`upgrade`](Self::upgrade), waiting at most until `until`.
    ///
    /// # Errors
    /// As [`try_upgrade_for`](Self::try_upgrade_for).
    pub fn try_upgrade_until(
        guard: Self,
        until: Instant,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::try_upgrade_for(guard, until.saturating_duration_since(Instant::now()))
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
    ///
    /// # Errors
    /// As [`upgrade`](Self::upgrade).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{RwLock, RwLockUpgradableReadGuard};
    ///
    /// let stock = RwLock::new(7);
    /// let seen = stock.upgradable_read_async().await?;
    /// if *seen > 0 {
    ///     *RwLockUpgradableReadGuard::upgrade_async(seen).await? -= 1;
    /// }
    /// assert_eq!(*stock.read_async().await?, 6);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub async fn upgrade_async(guard: Self) -> Result<RwLockWriteGuard<'a, T>> {
        Self::upgrade_by_async(&guard, Patience::Forever).await?;
        Ok(Self::into_mode(guard))
    }

    /// As [`try_upgrade`](Self::try_upgrade), blocking no thread.
    ///
    /// # Cancel safety
    /// As [`upgrade_async`](Self::upgrade_async).
    ///
    /// # Errors
    /// As [`try_upgrade`](Self::try_upgrade).
    pub async fn try_upgrade_async(
        guard: Self,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgrade_within_async(guard, Patience::No).await
    }

    /// As [`try_upgrade_for`](Self::try_upgrade_for), blocking no thread. The time begins at the first
    /// poll.
    ///
    /// # Cancel safety
    /// As [`upgrade_async`](Self::upgrade_async).
    ///
    /// # Errors
    /// As [`try_upgrade_for`](Self::try_upgrade_for).
    ///
    /// # Example
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tierlock::{RwLock, RwLockUpgradableReadGuard};
    ///
    /// let stock = RwLock::new(7);
    /// let other = stock.read_async().await?;
    /// let seen = stock.upgradable_read_async().await?;
    /// let wait = Duration::from_millis(5);
    /// let seen = RwLockUpgradableReadGuard::try_upgrade_for_async(seen, wait).await.unwrap_err();
    /// assert_eq!(*seen, *other); // both go on reading
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// ```
    pub async fn try_upgrade_for_async(
        guard: Self,
        wait: Duration,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        Self::upgrade_within_async(guard, Patience::for_at_most(wait)).await
    }

    async fn upgrade_within_async(
        guard: Self,
        patience: Patience,
    ) -> std::result::Result<RwLockWriteGuard<'a, T>, Self> {
        match Self::upgrade_by_async(&guard, patience).await {
            Ok(()) => Ok(Self::into_mode(guard)),
            Err(_) => Err(guard),
        }
    }

    /// The guard is not used meanwhile: the future of the caller owns it.
    async fn upgrade_by_async(guard: &Self, patience: Patience) -> Result<()> {
        guard.hold.check()?;
        let anchor = guard.hold.anchor();
        // SAFETY: this is the holder, and no other reference to the state exists.
        let held = unsafe { &mut (*anchor.state.get()).held };
        anchor.core.upgrade_async(held, patience).await
    }

    /// Becomes a plain reader; another upgradable one, or a writer, may come next.
    ///
    /// # Errors
    /// As [`RwLockWriteGuard::downgrade`].
    pub fn downgrade(guard: Self) -> Result<RwLockReadGuard<'a, T>> {
        Self::into_reader(guard)
    }
}
