//! The read-write lock users hold, at every scope.

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

pub use self::builder::RwLockBuilder;
use super::{
    guard::{
        Anchor, GuardMode, Keeper, LockGuard, Read, RwLockReadGuard, RwLockUpgradableReadGuard,
        RwLockWriteGuard, UpgradableRead, Write,
    },
    mutex::inside,
};
use crate::{
    cooperate,
    error::{LockError, Result},
    path::{self, Core, Held, Patience, Plain},
    scope::Scope,
};

/// Data that several readers may use at a time, or one writer, in the scope that the lock was built
/// with.
///
/// [`RwLock::new`] makes an unnamed one of thread scope, with nothing to set up, also in a `static`.
/// [`LockManager::rw_lock`](crate::LockManager::rw_lock) makes named ones of every scope.
/// A [`Mutex`](crate::Mutex) of the same name is a writer of it. The data is memory of this `RwLock`
/// value in every scope.
///
/// **What it does not do.** Below host scope a reader has the token of the last writer: it orders
/// readers after that writer, and not among each other. At host scope the readers inside together have
/// one token, above the last writer's; that of a guard that becomes another grows a little later, when
/// the leader has answered. A reader can lose its lock there as a writer can. Over a service that grants no
/// upgradable leases (see the guide's page [`engines`](crate::guide::engines)) an upgradable reader has the
/// name for itself, and so has the reader that a writer becomes. The child of a fork has copies of its parent's readers, which it must not use.
///
/// # Modes
/// | | beside readers | beside an upgradable reader | beside a writer |
/// |---|---|---|---|
/// | [`read`](Self::read) | yes | yes | no |
/// | [`upgradable_read`](Self::upgradable_read) | yes | no | no |
/// | [`write`](Self::write) | no | no | no |
///
/// An upgradable reader becomes a writer, and a writer a reader, without another writer in between.
///
/// # Fairness
/// Readers and writers that have to wait stand in one order, as described at
/// [`Mutex`](crate::Mutex) and [`Engine`](crate::Engine). A writer that has its turn waits for the
/// readers inside and lets no new ones in, so readers starve no writer. Only beside an upgradable
/// reader do readers come in past waiters, while none of those is a writer; at host scope they wait behind
/// an upgradable reader that waits. A reader that was killed
/// holds up no writer; after a writer that was killed, readers and the next writer are told
/// [`Died`](crate::Predecessor::Died), until a writer has left in good order. With
/// [`Engine::FileLock`](crate::Engine::FileLock) the order between processes is the kernel's.
///
/// # Cancel safety
/// The async forms may be dropped at any point: what they were about to receive is given back. A
/// writer's future that has its turn and waits for readers holds new ones up; one that is leaked, or
/// not polled for 200 ms, loses its turn. At host scope an upgrade's future that is leaked holds new readers
/// up until its session ends.
///
/// # Not reentrant
/// A thread that reads and reads again waits for ever if a writer came in between.
///
/// # Example
/// ```
/// use tierlock::RwLock;
///
/// let prices = RwLock::new(vec![3, 4]);
/// {
///     let (one, other) = (prices.read()?, prices.read()?);
///     assert_eq!(one.len(), other.len());
/// }
/// prices.write()?.push(5);
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct RwLock<T: ?Sized> {
    anchor: Anchor,
    value: UnsafeCell<T>,
}

// SAFETY: the data is reached through guards only: by one thread at a time with `&mut T`, which
// takes Send, or by several with `&T`, which takes Sync. The anchor is Sync by itself.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

// A writer that panicked is told to the next ones (`Predecessor::Panicked`).
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

impl<T: Send + Sync> Keeper for RwLock<T> {}

impl<T> RwLock<T> {
    /// An unnamed one of thread scope.
    #[cfg(not(tierlock_loom))]
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { anchor: Anchor::new(Core::Plain(Plain::new())), value: UnsafeCell::new(value) }
    }

    /// The same; the model checker's locks are no constants.
    #[cfg(tierlock_loom)]
    pub fn new(value: T) -> RwLock<T> {
        RwLock { anchor: Anchor::new(Core::Plain(Plain::new())), value: UnsafeCell::new(value) }
    }

    /// The data, without the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// How a guard of this mode comes to be.
trait Family: GuardMode {
    const MODE: path::LockMode;

    /// # Safety
    /// `held` was just won in this mode of the lock of `anchor`, and `value` is the data that it
    /// protects. Both stay alive for `'a`, or as long as the keeper.
    unsafe fn guard<'a, T: ?Sized>(
        value: NonNull<T>,
        anchor: NonNull<Anchor>,
        held: Held,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Result<LockGuard<'a, T, Self>>;

    /// The same of what stands in the anchor already, in a mode that has it there.
    ///
    /// # Safety
    /// As of [`guard`](Self::guard).
    unsafe fn standing<'a, T: ?Sized>(
        value: NonNull<T>,
        anchor: NonNull<Anchor>,
    ) -> LockGuard<'a, T, Self>;
}

impl Family for Read {
    const MODE: path::LockMode = path::LockMode::Shared;

    #[inline]
    unsafe fn guard<'a, T: ?Sized>(
        value: NonNull<T>,
        anchor: NonNull<Anchor>,
        held: Held,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Result<RwLockReadGuard<'a, T>> {
        // SAFETY: the same contract.
        Ok(unsafe { LockGuard::of_reader(value, anchor, held, keeper) })
    }

    unsafe fn standing<'a, T: ?Sized>(_: NonNull<T>, _: NonNull<Anchor>) -> RwLockReadGuard<'a, T> {
        unreachable!("a reader keeps what it holds in its guard")
    }
}

macro_rules! sole_families {
    ($($name:ident $mode:ident,)+) => {$(
        impl Family for $name {
            const MODE: path::LockMode = path::LockMode::$mode;

            #[inline]
            unsafe fn guard<'a, T: ?Sized>(
                value: NonNull<T>,
                anchor: NonNull<Anchor>,
                held: Held,
                keeper: Option<Arc<dyn Keeper>>,
            ) -> Result<LockGuard<'a, T, $name>> {
                // SAFETY: the caller keeps it alive.
                let at = unsafe { anchor.as_ref() };
                // SAFETY: `held` was just won, and no guard was made of it.
                unsafe { at.install(held, keeper) }?;
                // SAFETY: the same contract.
                Ok(unsafe { LockGuard::new(value, anchor) })
            }

            #[inline]
            unsafe fn standing<'a, T: ?Sized>(
                value: NonNull<T>,
                anchor: NonNull<Anchor>,
            ) -> LockGuard<'a, T, $name> {
                // SAFETY: the same contract.
                unsafe { LockGuard::new(value, anchor) }
            }
        }
    )+};
}

sole_families! {
    Write Exclusive,
    UpgradableRead Upgradable,
}

/// A reader that waited in vain may be a thread that reads already.
fn explained<M: Family>(error: LockError) -> LockError {
    match M::MODE {
        path::LockMode::Shared if error.is_timeout() && !error.is_unanswered() => error.with_hint(
            "if this thread or task reads it already, that is why: read locks are not reentrant, and a \
             writer waits in between",
        ),
        _ => error,
    }
}

/// The ways in, for each mode the same.
macro_rules! ways_in {
    (
        $mode:ident, $guard:ident, $what:literal, $example:literal,
        $lock:ident $try_lock:ident $try_lock_for:ident $try_lock_until:ident
        $lock_async:ident $try_lock_async:ident $try_lock_for_async:ident
        $lock_arc:ident $try_lock_arc:ident $try_lock_arc_for:ident
        $lock_arc_async:ident $try_lock_arc_async:ident $try_lock_arc_for_async:ident
        $try_lock_arc_until:ident $bump:ident $bump_async:ident
    ) => {
        impl<T: ?Sized> RwLock<T> {
            #[doc = concat!("Waits until it may come in as ", $what, ".")]
            ///
            /// # Errors
            /// At thread scope none. Above: `Damaged` or `Io` from the directory, `Config` when the
            /// name is locked at host scope and the manager has no leaders; at host scope what
            /// [`Mutex::lock`](crate::Mutex::lock) says of leaders.
            ///
            /// # Example
            #[doc = $example]
            #[inline]
            pub fn $lock(&self) -> Result<$guard<'_, T>> {
                self.enter::<$mode>(Patience::Forever)
            }

            #[doc = concat!("Comes in as ", $what, " if it need not wait.")]
            ///
            /// # Errors
            /// `WouldBlock`, also at a moment when another reader of the name is just entering; else as
            #[doc = concat!("[`", stringify!($lock), "`](Self::", stringify!($lock), ").")]
            #[inline]
            pub fn $try_lock(&self) -> Result<$guard<'_, T>> {
                self.enter::<$mode>(Patience::No)
            }

            #[doc = concat!("As [`", stringify!($lock), "`](Self::", stringify!($lock), "), waiting at most for `wait`.")]
            ///
            /// # Errors
            /// `TimedOut`, with the holder where known.
            pub fn $try_lock_for(&self, wait: Duration) -> Result<$guard<'_, T>> {
                self.enter::<$mode>(Patience::for_at_most(wait))
            }

            #[doc = concat!("As [`", stringify!($lock), "`](Self::", stringify!($lock), "), waiting at most until `until`.")]
            ///
            /// # Errors
            /// `TimedOut`, with the holder where known.
            pub fn $try_lock_until(&self, until: Instant) -> Result<$guard<'_, T>> {
                self.$try_lock_for(until.saturating_duration_since(Instant::now()))
            }

            #[doc = concat!("As [`", stringify!($lock), "`](Self::", stringify!($lock), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// As described at [`RwLock`].
            pub async fn $lock_async(&self) -> Result<$guard<'_, T>> {
                self.enter_async::<$mode>(Patience::Forever).await
            }

            #[doc = concat!("As [`", stringify!($try_lock), "`](Self::", stringify!($try_lock), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// As described at [`RwLock`].
            pub async fn $try_lock_async(&self) -> Result<$guard<'_, T>> {
                self.enter_async::<$mode>(Patience::No).await
            }

            #[doc = concat!("As [`", stringify!($try_lock_for), "`](Self::", stringify!($try_lock_for), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// As described at [`RwLock`].
            pub async fn $try_lock_for_async(&self, wait: Duration) -> Result<$guard<'_, T>> {
                self.enter_async::<$mode>(Patience::for_at_most(wait)).await
            }

            #[doc = concat!("Lets waiters go before ", $what, ", and comes in again, as described at [`Mutex::bump`](crate::Mutex::bump).")]
            ///
            /// # Errors
            /// `Lost`, if the lock was lost before; `Config`, if the guard is another lock's; those of
            #[doc = concat!("[`", stringify!($lock), "`](Self::", stringify!($lock), "). The lock is released then.")]
            pub fn $bump<'a>(&'a self, guard: $guard<'a, T>) -> Result<$guard<'a, T>> {
                match self.step_back(guard)? {
                    Some(guard) => Ok(guard),
                    None => self.enter::<$mode>(Patience::Forever),
                }
            }

            #[doc = concat!("As [`", stringify!($bump), "`](Self::", stringify!($bump), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// The future has the guard: dropped early, it releases the lock.
            pub async fn $bump_async<'a>(&'a self, guard: $guard<'a, T>) -> Result<$guard<'a, T>> {
                match self.step_back(guard)? {
                    Some(guard) => Ok(guard),
                    None => self.enter_async::<$mode>(Patience::Forever).await,
                }
            }
        }

        impl<T: Send + Sync + 'static> RwLock<T> {
            #[doc = concat!("As [`", stringify!($lock), "`](Self::", stringify!($lock), "), with a guard that owns its share of the lock.")]
            pub fn $lock_arc(self: &Arc<Self>) -> Result<$guard<'static, T>> {
                self.enter_owned::<$mode>(Patience::Forever)
            }

            #[doc = concat!("As [`", stringify!($try_lock), "`](Self::", stringify!($try_lock), "), with a guard that owns its share of the lock.")]
            pub fn $try_lock_arc(self: &Arc<Self>) -> Result<$guard<'static, T>> {
                self.enter_owned::<$mode>(Patience::No)
            }

            #[doc = concat!("As [`", stringify!($try_lock_for), "`](Self::", stringify!($try_lock_for), "), with a guard that owns its share of the lock.")]
            pub fn $try_lock_arc_for(
                self: &Arc<Self>,
                wait: Duration,
            ) -> Result<$guard<'static, T>> {
                self.enter_owned::<$mode>(Patience::for_at_most(wait))
            }

            #[doc = concat!("As [`", stringify!($try_lock_until), "`](Self::", stringify!($try_lock_until), "), with a guard that owns its share of the lock.")]
            pub fn $try_lock_arc_until(
                self: &Arc<Self>,
                until: Instant,
            ) -> Result<$guard<'static, T>> {
                self.$try_lock_arc_for(until.saturating_duration_since(Instant::now()))
            }

            #[doc = concat!("As [`", stringify!($lock_async), "`](Self::", stringify!($lock_async), "), with a guard and a future that own their share of the lock.")]
            ///
            /// # Cancel safety
            /// As described at [`RwLock`].
            pub fn $lock_arc_async(
                self: &Arc<Self>,
            ) -> impl Future<Output = Result<$guard<'static, T>>> + Send + use<T> {
                Arc::clone(self).enter_owned_async::<$mode>(Patience::Forever)
            }

            #[doc = concat!("As [`", stringify!($try_lock_async), "`](Self::", stringify!($try_lock_async), "), with a guard and a future that own their share of the lock.")]
            ///
            /// # Cancel safety
            /// As described at [`RwLock`].
            pub fn $try_lock_arc_async(
                self: &Arc<Self>,
            ) -> impl Future<Output = Result<$guard<'static, T>>> + Send + use<T> {
                Arc::clone(self).enter_owned_async::<$mode>(Patience::No)
            }

            #[doc = concat!("As [`", stringify!($try_lock_for_async), "`](Self::", stringify!($try_lock_for_async), "), with a guard and a future that own their share of the lock. The time begins at the call.")]
            ///
            /// # Cancel safety
            /// As described at [`RwLock`].
            pub fn $try_lock_arc_for_async(
                self: &Arc<Self>,
                wait: Duration,
            ) -> impl Future<Output = Result<$guard<'static, T>>> + Send + use<T> {
                Arc::clone(self).enter_owned_async::<$mode>(Patience::for_at_most(wait))
            }
        }
    };
}

ways_in! {
    Read, RwLockReadGuard, "a reader",
    "```
use tierlock::RwLock;

let prices = RwLock::new(vec![3, 4]);
let (one, other) = (prices.read()?, prices.read()?); // both are inside
assert_eq!(one.len(), other.len());
# drop((one, other));
# Ok::<(), tierlock::LockError>(())
```",
    read try_read try_read_for try_read_until
    read_async try_read_async try_read_for_async
    read_arc try_read_arc try_read_arc_for
    read_arc_async try_read_arc_async try_read_arc_for_async
    try_read_arc_until bump_read bump_read_async
}

ways_in! {
    UpgradableRead, RwLockUpgradableReadGuard, "an upgradable reader",
    "```
use tierlock::RwLock;

let stock = RwLock::new(7);
let seen = stock.upgradable_read()?; // may become the writer: see `upgrade`
assert_eq!(*stock.read()?, *seen);
assert!(stock.try_upgradable_read().is_err()); // one at a time
# drop(seen);
# Ok::<(), tierlock::LockError>(())
```",
    upgradable_read try_upgradable_read try_upgradable_read_for try_upgradable_read_until
    upgradable_read_async try_upgradable_read_async try_upgradable_read_for_async
    upgradable_read_arc try_upgradable_read_arc try_upgradable_read_arc_for
    upgradable_read_arc_async try_upgradable_read_arc_async try_upgradable_read_arc_for_async
    try_upgradable_read_arc_until bump_upgradable_read bump_upgradable_read_async
}

ways_in! {
    Write, RwLockWriteGuard, "the writer",
    "```
use tierlock::RwLock;

let prices = RwLock::new(vec![3, 4]);
prices.write()?.push(5);
assert_eq!(prices.read()?.len(), 3);
# Ok::<(), tierlock::LockError>(())
```",
    write try_write try_write_for try_write_until
    write_async try_write_async try_write_for_async
    write_arc try_write_arc try_write_arc_for
    write_arc_async try_write_arc_async try_write_arc_for_async
    try_write_arc_until bump_write bump_write_async
}

impl<T: Send + Sync + 'static> RwLock<T> {
    /// [`read_arc_async`](Self::read_arc_async), as tokio names and takes it.
    pub fn read_owned(
        self: Arc<Self>,
    ) -> impl Future<Output = Result<RwLockReadGuard<'static, T>>> + Send + use<T> {
        self.enter_owned_async::<Read>(Patience::Forever)
    }

    /// [`write_arc_async`](Self::write_arc_async), as tokio names and takes it.
    pub fn write_owned(
        self: Arc<Self>,
    ) -> impl Future<Output = Result<RwLockWriteGuard<'static, T>>> + Send + use<T> {
        self.enter_owned_async::<Write>(Patience::Forever)
    }

    /// [`try_read_arc`](Self::try_read_arc), as tokio names and takes it: no future.
    pub fn try_read_owned(self: Arc<Self>) -> Result<RwLockReadGuard<'static, T>> {
        self.try_read_arc()
    }

    /// [`try_write_arc`](Self::try_write_arc), as tokio names and takes it: no future.
    pub fn try_write_owned(self: Arc<Self>) -> Result<RwLockWriteGuard<'static, T>> {
        self.try_write_arc()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// The data, without locking: `&mut self` proves that no guard exists.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The scope it was built with, or was widened to.
    pub fn scope(&self) -> Scope {
        self.anchor.core.scope()
    }

    /// Its name; `None` for one made by [`RwLock::new`].
    pub fn name(&self) -> Option<&str> {
        self.anchor.core.name()
    }

    /// Whether a reader or a writer is inside just now: of this process, or, with the table engine, of
    /// another one of its directory. It asks no leader.
    ///
    /// It may have changed when this returns: good for people and for tests, not for decisions.
    ///
    /// # Example
    /// ```
    /// let prices = tierlock::RwLock::new(vec![3, 4]);
    /// let reader = prices.read()?;
    /// assert!(prices.is_locked());
    /// drop(reader);
    /// assert!(!prices.is_locked());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn is_locked(&self) -> bool {
        self.anchor.core.is_locked() || self.anchor.core.is_read()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.anchor.core
    }

    fn step_back<'a, M: Family>(
        &'a self,
        guard: LockGuard<'a, T, M>,
    ) -> Result<Option<LockGuard<'a, T, M>>> {
        // SAFETY: the data is this lock's, which is borrowed for that long.
        unsafe { LockGuard::step_back(guard, inside(&self.value), &self.anchor) }
    }

    #[inline]
    fn enter<M: Family>(&self, patience: Patience) -> Result<LockGuard<'_, T, M>> {
        if M::MODE == path::LockMode::Exclusive
            && let Core::Named(named) = &self.anchor.core
            && self.anchor.lock_straight(named)
        {
            // SAFETY: it was just won of this lock, and stands in the anchor; the borrow keeps it alive.
            return Ok(unsafe { M::standing(inside(&self.value), NonNull::from(&self.anchor)) });
        }
        let held = self.anchor.core.enter(M::MODE, patience).map_err(explained::<M>)?;
        // SAFETY: it was just won of this lock in that mode, and the borrow keeps the lock alive.
        unsafe { M::guard(inside(&self.value), NonNull::from(&self.anchor), held, None) }
    }

    async fn enter_async<M: Family>(&self, patience: Patience) -> Result<LockGuard<'_, T, M>> {
        cooperate::proceed().await;
        let held = self.anchor.core.enter_async(M::MODE, patience).await.map_err(explained::<M>)?;
        // SAFETY: it was just won of this lock in that mode, and the borrow keeps the lock alive.
        unsafe { M::guard(inside(&self.value), NonNull::from(&self.anchor), held, None) }
    }
}

impl<T: Send + Sync + 'static> RwLock<T> {
    fn enter_owned<M: Family>(
        self: &Arc<Self>,
        patience: Patience,
    ) -> Result<LockGuard<'static, T, M>> {
        let held = self.anchor.core.enter(M::MODE, patience).map_err(explained::<M>)?;
        self.owned_guard(held)
    }

    async fn enter_owned_async<M: Family>(
        self: Arc<Self>,
        patience: Patience,
    ) -> Result<LockGuard<'static, T, M>> {
        cooperate::proceed().await;
        let held = self.anchor.core.enter_async(M::MODE, patience).await.map_err(explained::<M>)?;
        self.owned_guard(held)
    }

    /// The guard of a reader that came in.
    pub(crate) fn owned_reader(
        self: &Arc<Self>,
        held: Held,
    ) -> Result<RwLockReadGuard<'static, T>> {
        self.owned_guard(held)
    }

    fn owned_guard<M: Family>(self: &Arc<Self>, held: Held) -> Result<LockGuard<'static, T, M>> {
        let (value, anchor) = (inside(&self.value), NonNull::from(&self.anchor));
        // SAFETY: it was just won of this lock in that mode, and the guard keeps this share of it.
        unsafe { M::guard(value, anchor, held, Some(self.clone())) }
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    /// Shows what it is, and its data if it may be read just now.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RwLock");
        debug.field("name", &self.name()).field("scope", &self.scope());
        match self.enter::<Read>(Patience::No) {
            Ok(reading) => debug.field("data", &&*reading),
            Err(_) => debug.field("data", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}
