//! The semaphore users hold, over all scopes.

use std::{
    fmt,
    future::Future,
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    guard::{Anchor, Keeper, OwnedPermit, Permit},
    mutex::MutexBuilder,
};
use crate::{
    cooperate,
    error::Result,
    mode::{PERMITS_MAX, Usage},
    path::{
        self, Core, Held, LockMode, Patience, Permits, Plain, ground::Reach, permits_at_host_scope,
    },
    scope::Scope,
};

/// So many permits, of which each holder has one or some, in the scope that it was built with.
///
/// [`Semaphore::new`] makes an unnamed one of thread scope, with nothing to set up, also in a `static`.
/// [`LockManager::semaphore`](crate::LockManager::semaphore) makes named ones of every scope. A permit is
/// given back by dropping it, on whichever thread.
///
/// At process scope the number of permits stands with the name, and so does that it is a semaphore: a
/// caller that asks with another number, or for a lock of that name, gets an error that says what is
/// in force. The number can be another once no living process has built a semaphore of the name. At
/// thread scope both last for as long as this process has the name in use. At host scope the leader has
/// them for as long as any session holds or waits for the name, so it is the acquire that fails.
///
/// At host scope each acquire costs a round trip to the leader: permits are not kept. They are lost with
/// their session, and come back with it: see [`Permit`].
///
/// **What it does not do.** Permits protect no data: there is no `T`. A directory of
/// [`Engine::FileLock`](crate::Engine::FileLock) has none, and no lock service of another kind than our
/// leaders. Permits cannot be added, or given back by other than their holder.
///
/// # Fairness
/// Takers that have to wait stand in one order, as described at [`Mutex`](crate::Mutex) and
/// [`Engine`](crate::Engine), however many permits each asks for: a small request does not pass a large
/// one. One that gives up or dies in front lets the next try. The permits of a process that died come
/// back when they are missed, at host scope after its time to live.
///
/// # Cancel safety
/// The async forms may be dropped at any point: what they were about to receive is given back, never a
/// part of it is kept. A future that has its turn, or was granted permits by a leader, and is not polled
/// loses it, after 100 ms to 200 ms.
///
/// # Errors
/// All forms end with `Config`, if no permit or more than there are were asked for, or the name is
/// used for something else; at host scope as [`Mutex::lock`](crate::Mutex::lock).
///
/// # Example
/// ```
/// use tierlock::Semaphore;
///
/// static DOWNLOADS: Semaphore = Semaphore::new(2);
///
/// let (one, two) = (DOWNLOADS.acquire()?, DOWNLOADS.acquire()?);
/// assert!(DOWNLOADS.try_acquire().unwrap_err().is_contended());
/// drop(one);
/// let three = DOWNLOADS.try_acquire()?;
/// # drop((two, three));
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct Semaphore {
    anchor: Anchor,
    limit: u32,
}

impl Keeper for Semaphore {}

impl Semaphore {
    /// The most permits that a semaphore can have: 2^23 − 1.
    pub const PERMITS_MAX: u32 = PERMITS_MAX;

    /// An unnamed one of thread scope with so many permits.
    ///
    /// # Panics
    /// If `permits` is 0 or above [`PERMITS_MAX`](Self::PERMITS_MAX); in a `static` that is an error of
    /// the compiler.
    #[cfg(not(tierlock_loom))]
    pub const fn new(permits: u32) -> Semaphore {
        assert!(permits > 0, "a semaphore without permits lets none in");
        assert!(permits <= PERMITS_MAX, "more permits than can be counted");
        Semaphore { anchor: Anchor::new(Core::Plain(Plain::new())), limit: permits }
    }

    /// The same; the model checker's locks are no constants.
    #[cfg(tierlock_loom)]
    pub fn new(permits: u32) -> Semaphore {
        Semaphore { anchor: Anchor::new(Core::Plain(Plain::new())), limit: permits }
    }

    /// How many permits there are.
    pub fn permits(&self) -> u32 {
        self.limit
    }

    /// How many are free, as far as one look shows. Those of a process that died count as taken until
    /// they are missed. At host scope it blocks until the leader has answered.
    ///
    /// It may be otherwise when this returns: good for people and for tests, not for decisions.
    ///
    /// # Errors
    /// At process scope `Damaged` or `Io` from the directory; at host scope `Unreachable`, if no leader
    /// answers within `connect_timeout`.
    ///
    /// # Example
    /// ```
    /// use tierlock::Semaphore;
    ///
    /// let seats = Semaphore::new(3);
    /// let two = seats.acquire_many(2)?;
    /// println!("{} of {} are free", seats.available()?, seats.permits());
    /// # assert_eq!(seats.available()?, 1);
    /// # drop(two);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn available(&self) -> Result<u32> {
        Ok(self.limit.saturating_sub(self.anchor.core.permits_taken()?))
    }

    /// As [`available`](Self::available), blocking no thread.
    ///
    /// # Cancel safety
    /// It may be dropped at any point.
    ///
    /// # Errors
    /// As [`available`](Self::available).
    pub async fn available_async(&self) -> Result<u32> {
        Ok(self.limit.saturating_sub(self.anchor.core.permits_taken_async().await?))
    }

    /// The scope it was built with.
    pub fn scope(&self) -> Scope {
        self.anchor.core.scope()
    }

    /// Its name; `None` for one made by [`Semaphore::new`].
    pub fn name(&self) -> Option<&str> {
        self.anchor.core.name()
    }

    fn mode(&self, count: u32) -> LockMode {
        LockMode::Permits(Permits { count, limit: self.limit })
    }

    fn take(&self, count: u32, patience: Patience) -> Result<Permit<'_>> {
        let held = self.anchor.core.enter(self.mode(count), patience)?;
        // SAFETY: it was just won of this semaphore, and the borrow keeps that alive.
        Ok(unsafe { Permit::of_permits(NonNull::from(&self.anchor), held, None) })
    }

    async fn take_async(&self, count: u32, patience: Patience) -> Result<Permit<'_>> {
        cooperate::proceed().await;
        let held = self.anchor.core.enter_async(self.mode(count), patience).await?;
        // SAFETY: it was just won of this semaphore, and the borrow keeps that alive.
        Ok(unsafe { Permit::of_permits(NonNull::from(&self.anchor), held, None) })
    }

    fn take_owned(self: &Arc<Self>, count: u32, patience: Patience) -> Result<OwnedPermit> {
        let held = self.anchor.core.enter(self.mode(count), patience)?;
        Ok(self.owned(held))
    }

    async fn take_owned_async(
        self: Arc<Self>,
        count: u32,
        patience: Patience,
    ) -> Result<OwnedPermit> {
        cooperate::proceed().await;
        let held = self.anchor.core.enter_async(self.mode(count), patience).await?;
        Ok(self.owned(held))
    }

    fn owned(self: &Arc<Self>, held: Held) -> OwnedPermit {
        // SAFETY: it was just won of this semaphore, and the guard keeps this share of it.
        unsafe { Permit::of_permits(NonNull::from(&self.anchor), held, Some(self.clone())) }
    }
}

/// The ways to permits: one, and several.
macro_rules! ways_to {
    (
        $what:literal, ($($count:ident)?), $number:expr, $example:literal,
        $acquire:ident $try_acquire:ident $try_acquire_for:ident $try_acquire_until:ident
        $acquire_async:ident $try_acquire_async:ident $try_acquire_for_async:ident
        $acquire_arc:ident $try_acquire_arc:ident $try_acquire_arc_for:ident
        $acquire_arc_async:ident $try_acquire_arc_async:ident $try_acquire_arc_for_async:ident
        $acquire_owned:ident $try_acquire_owned:ident $try_acquire_arc_until:ident
    ) => {
        impl Semaphore {
            #[doc = concat!("Waits until it gets ", $what, ".")]
            ///
            /// # Errors
            /// As described at [`Semaphore`]; at process scope `Damaged` or `Io` from the directory.
            ///
            /// # Example
            #[doc = $example]
            pub fn $acquire(&self $(, $count: u32)?) -> Result<Permit<'_>> {
                self.take($number, Patience::Forever)
            }

            #[doc = concat!("Takes ", $what, " if it need not wait.")]
            ///
            /// # Errors
            /// `WouldBlock`, also while another taker waits in front; else as
            #[doc = concat!("[`", stringify!($acquire), "`](Self::", stringify!($acquire), ").")]
            pub fn $try_acquire(&self $(, $count: u32)?) -> Result<Permit<'_>> {
                self.take($number, Patience::No)
            }

            #[doc = concat!("As [`", stringify!($acquire), "`](Self::", stringify!($acquire), "), waiting at most for `wait`.")]
            ///
            /// # Errors
            /// `TimedOut`.
            pub fn $try_acquire_for(&self $(, $count: u32)?, wait: Duration) -> Result<Permit<'_>> {
                self.take($number, Patience::for_at_most(wait))
            }

            #[doc = concat!("As [`", stringify!($acquire), "`](Self::", stringify!($acquire), "), waiting at most until `until`.")]
            ///
            /// # Errors
            /// `TimedOut`.
            pub fn $try_acquire_until(
                &self,
                $($count: u32,)?
                until: Instant,
            ) -> Result<Permit<'_>> {
                let wait = until.saturating_duration_since(Instant::now());
                self.take($number, Patience::for_at_most(wait))
            }

            #[doc = concat!("As [`", stringify!($acquire), "`](Self::", stringify!($acquire), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// As described at [`Semaphore`].
            pub async fn $acquire_async(&self $(, $count: u32)?) -> Result<Permit<'_>> {
                self.take_async($number, Patience::Forever).await
            }

            #[doc = concat!("As [`", stringify!($try_acquire), "`](Self::", stringify!($try_acquire), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// As described at [`Semaphore`].
            pub async fn $try_acquire_async(&self $(, $count: u32)?) -> Result<Permit<'_>> {
                self.take_async($number, Patience::No).await
            }

            #[doc = concat!("As [`", stringify!($try_acquire_for), "`](Self::", stringify!($try_acquire_for), "), blocking no thread.")]
            ///
            /// # Cancel safety
            /// As described at [`Semaphore`].
            pub async fn $try_acquire_for_async(
                &self,
                $($count: u32,)?
                wait: Duration,
            ) -> Result<Permit<'_>> {
                self.take_async($number, Patience::for_at_most(wait)).await
            }

            #[doc = concat!("As [`", stringify!($acquire), "`](Self::", stringify!($acquire), "), with a guard that owns its share of the semaphore.")]
            pub fn $acquire_arc(self: &Arc<Self> $(, $count: u32)?) -> Result<OwnedPermit> {
                self.take_owned($number, Patience::Forever)
            }

            #[doc = concat!("As [`", stringify!($try_acquire), "`](Self::", stringify!($try_acquire), "), with a guard that owns its share of the semaphore.")]
            pub fn $try_acquire_arc(self: &Arc<Self> $(, $count: u32)?) -> Result<OwnedPermit> {
                self.take_owned($number, Patience::No)
            }

            #[doc = concat!("As [`", stringify!($try_acquire_for), "`](Self::", stringify!($try_acquire_for), "), with a guard that owns its share of the semaphore.")]
            pub fn $try_acquire_arc_for(
                self: &Arc<Self>,
                $($count: u32,)?
                wait: Duration,
            ) -> Result<OwnedPermit> {
                self.take_owned($number, Patience::for_at_most(wait))
            }

            #[doc = concat!("As [`", stringify!($try_acquire_until), "`](Self::", stringify!($try_acquire_until), "), with a guard that owns its share of the semaphore.")]
            pub fn $try_acquire_arc_until(
                self: &Arc<Self>,
                $($count: u32,)?
                until: Instant,
            ) -> Result<OwnedPermit> {
                let wait = until.saturating_duration_since(Instant::now());
                self.take_owned($number, Patience::for_at_most(wait))
            }

            #[doc = concat!("As [`", stringify!($acquire_async), "`](Self::", stringify!($acquire_async), "), with a guard and a future that own their share of the semaphore.")]
            ///
            /// # Cancel safety
            /// As described at [`Semaphore`].
            pub fn $acquire_arc_async(
                self: &Arc<Self>
                $(, $count: u32)?
            ) -> impl Future<Output = Result<OwnedPermit>> + Send + use<> {
                Arc::clone(self).take_owned_async($number, Patience::Forever)
            }

            #[doc = concat!("As [`", stringify!($try_acquire_async), "`](Self::", stringify!($try_acquire_async), "), with a guard and a future that own their share of the semaphore.")]
            ///
            /// # Cancel safety
            /// As described at [`Semaphore`].
            pub fn $try_acquire_arc_async(
                self: &Arc<Self>
                $(, $count: u32)?
            ) -> impl Future<Output = Result<OwnedPermit>> + Send + use<> {
                Arc::clone(self).take_owned_async($number, Patience::No)
            }

            #[doc = concat!("As [`", stringify!($try_acquire_for_async), "`](Self::", stringify!($try_acquire_for_async), "), with a guard and a future that own their share of the semaphore. The time begins at the call.")]
            ///
            /// # Cancel safety
            /// As described at [`Semaphore`].
            pub fn $try_acquire_arc_for_async(
                self: &Arc<Self>,
                $($count: u32,)?
                wait: Duration,
            ) -> impl Future<Output = Result<OwnedPermit>> + Send + use<> {
                Arc::clone(self).take_owned_async($number, Patience::for_at_most(wait))
            }

            #[doc = concat!("[`", stringify!($acquire_arc_async), "`](Self::", stringify!($acquire_arc_async), "), as tokio names and takes it.")]
            pub fn $acquire_owned(
                self: Arc<Self>
                $(, $count: u32)?
            ) -> impl Future<Output = Result<OwnedPermit>> + Send + use<> {
                self.take_owned_async($number, Patience::Forever)
            }

            #[doc = concat!("[`", stringify!($try_acquire_arc), "`](Self::", stringify!($try_acquire_arc), "), as tokio names and takes it: no future.")]
            pub fn $try_acquire_owned(self: Arc<Self> $(, $count: u32)?) -> Result<OwnedPermit> {
                self.take_owned($number, Patience::No)
            }
        }
    };
}

ways_to! {
    "a permit", (), 1,
    "```
use tierlock::Semaphore;

static DOWNLOADS: Semaphore = Semaphore::new(2);

let permit = DOWNLOADS.acquire()?; // at most two downloads at a time
# drop(permit);
# Ok::<(), tierlock::LockError>(())
```",
    acquire try_acquire try_acquire_for try_acquire_until
    acquire_async try_acquire_async try_acquire_for_async
    acquire_arc try_acquire_arc try_acquire_arc_for
    acquire_arc_async try_acquire_arc_async try_acquire_arc_for_async
    acquire_owned try_acquire_owned try_acquire_arc_until
}

ways_to! {
    "`count` permits, all at once", (count), count,
    "```
use tierlock::Semaphore;

let megabytes = Semaphore::new(512);
let large = megabytes.acquire_many(300)?; // never a part of them
assert!(megabytes.try_acquire_many(300).is_err());
assert!(megabytes.try_acquire_many(200).is_ok());
# drop(large);
# Ok::<(), tierlock::LockError>(())
```",
    acquire_many try_acquire_many try_acquire_many_for try_acquire_many_until
    acquire_many_async try_acquire_many_async try_acquire_many_for_async
    acquire_many_arc try_acquire_many_arc try_acquire_many_arc_for
    acquire_many_arc_async try_acquire_many_arc_async try_acquire_many_arc_for_async
    acquire_many_owned try_acquire_many_owned try_acquire_many_arc_until
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Semaphore");
        debug.field("name", &self.name()).field("scope", &self.scope());
        debug.field("permits", &self.limit);
        if self.anchor.core.knows_permits_taken()
            && let Ok(available) = self.available()
        {
            debug.field("available", &available);
        }
        debug.finish_non_exhaustive()
    }
}

/// A named semaphore about to be built; made by
/// [`LockManager::semaphore`](crate::LockManager::semaphore).
///
/// [`build`](Self::build) makes it; the `acquire` forms build it and take one permit in one step, with
/// a guard that owns everything.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use std::time::Duration;
/// use tierlock::{LockManager, Scope};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let workers = locks
///     .semaphore("thumbnails", 4)
///     .scope(Scope::Host)
///     .at_most(Duration::from_secs(600))
///     .build()?;
/// let permits = workers.try_acquire_many_for(2, Duration::from_secs(1))?;
/// # drop(permits);
/// let one = locks.semaphore("thumbnails", 4).acquire()?; // or at once: the guard owns it
/// # drop(one);
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "nothing is made before `build` or `acquire` is called"]
#[derive(Debug)]
pub struct SemaphoreBuilder {
    builder: MutexBuilder<()>,
    permits: u32,
}

impl SemaphoreBuilder {
    pub(crate) fn new(reach: Arc<Reach>, name: &str, permits: u32) -> Self {
        SemaphoreBuilder { builder: MutexBuilder::new(reach, name, ()), permits }
    }

    /// Which other callers it counts. Default: the widest scope that the manager reaches.
    pub fn scope(self, scope: Scope) -> Self {
        SemaphoreBuilder { builder: self.builder.scope(scope), ..self }
    }

    /// The longest that one holder may have a permit: then its guard is told that the right is lost.
    /// Below host scope others wait until it is dropped.
    pub fn at_most(self, at_most: Duration) -> Self {
        SemaphoreBuilder { builder: self.builder.at_most(at_most), ..self }
    }

    /// Makes the semaphore. With a directory it opens the name's place there. It touches no network.
    ///
    /// # Errors
    /// `Config` for an invalid name, no permits or more than
    /// [`PERMITS_MAX`](Semaphore::PERMITS_MAX), a name that is used otherwise in this process or
    /// directory, a directory of the file-lock engine, host scope with a lock service that grants no
    /// permits, and a scope out of the manager's reach; `Io` or `Damaged` from the directory, a full disk among them.
    pub fn build(self) -> Result<Semaphore> {
        let limit = self.permits;
        path::check_limit(limit)?;
        let counts = self.builder.is_counted_by_its_service();
        let (named, ()) =
            self.builder.build_named(Usage::Permits(limit), |scope, entry| match scope {
                Scope::Host if !counts => Err(permits_at_host_scope()),
                // The leader has the limit.
                Scope::Host => Ok(()),
                // What counts them in the directory: with it the limit stays in force there.
                Scope::Process => entry.prepare_to_read(),
                Scope::Thread => Ok(()),
            })?;
        Ok(Semaphore { anchor: Anchor::new(Core::Named(named)), limit })
    }

    /// Builds it and takes a permit; see [`Semaphore::acquire`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Semaphore::acquire`].
    pub fn acquire(self) -> Result<OwnedPermit> {
        Arc::new(self.build()?).acquire_arc()
    }

    /// Builds it and tries for a permit; see [`Semaphore::try_acquire`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Semaphore::try_acquire`].
    pub fn try_acquire(self) -> Result<OwnedPermit> {
        Arc::new(self.build()?).try_acquire_arc()
    }

    /// Builds it and waits at most for `wait`; see [`Semaphore::try_acquire_for`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Semaphore::try_acquire_for`].
    pub fn try_acquire_for(self, wait: Duration) -> Result<OwnedPermit> {
        Arc::new(self.build()?).try_acquire_arc_for(wait)
    }

    /// Builds it and takes a permit, blocking no thread; see [`Semaphore::acquire_async`].
    ///
    /// # Cancel safety, errors
    /// As described at [`Semaphore`]; as [`build`](Self::build) and [`Semaphore::acquire`].
    pub async fn acquire_async(self) -> Result<OwnedPermit> {
        Arc::new(self.build()?).acquire_arc_async().await
    }

    /// Builds it and tries for a permit, blocking no thread; see [`Semaphore::try_acquire_async`].
    ///
    /// # Cancel safety, errors
    /// As described at [`Semaphore`]; as [`build`](Self::build) and [`Semaphore::try_acquire`].
    pub async fn try_acquire_async(self) -> Result<OwnedPermit> {
        Arc::new(self.build()?).try_acquire_arc_async().await
    }

    /// Builds it and waits at most for `wait`, blocking no thread; see
    /// [`Semaphore::try_acquire_for_async`].
    ///
    /// # Cancel safety, errors
    /// As described at [`Semaphore`]; as [`build`](Self::build) and [`Semaphore::try_acquire_for`].
    pub async fn try_acquire_for_async(self, wait: Duration) -> Result<OwnedPermit> {
        Arc::new(self.build()?).try_acquire_arc_for_async(wait).await
    }
}
