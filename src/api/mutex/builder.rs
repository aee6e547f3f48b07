//! Named mutexes, and how they are held.

use std::{
    cell::UnsafeCell,
    fmt,
    sync::{Arc, atomic::AtomicU8},
    time::Duration,
};

use super::Mutex;
use crate::{
    alarm,
    api::guard::{Anchor, MutexGuard},
    error::{LockError, LockErrorKind, Result},
    host::service::AskedTerms,
    mode::Usage,
    name::Name,
    path::{
        Core, Keep, Named,
        ground::{NameEntry, Reach, SlotShortcut},
    },
    scope::Scope,
    time::AT_LEAST_MAX,
};

/// A named mutex about to be built; made by [`LockManager::mutex`](crate::LockManager::mutex).
///
/// [`build`](Self::build) makes the mutex; the `lock` forms build it and lock it in one step, with
/// a guard that owns everything:
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::{LockManager, MutexGuard, Result};
///
/// fn lock_order(locks: &LockManager, id: u64) -> Result<MutexGuard<'static, ()>> {
///     locks.mutex(format!("orders/{id}"), ()).lock()
/// }
///
/// let locks = LockManager::in_memory();
/// let order = lock_order(&locks, 42)?;
/// assert!(locks.mutex("orders/42", ()).try_lock().is_err());
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "nothing is locked before `build` or `lock` is called"]
#[derive(Clone, Debug)]
pub struct MutexBuilder<T> {
    reach: Arc<Reach>,
    pub(super) name: String,
    pub(super) value: T,
    pub(super) scope: Option<Scope>,
    at_most: Option<Duration>,
    at_least: Option<Duration>,
    keep: Keep,
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManager")
            .field("label", &self.label)
            .field("widest", &self.widest())
            .finish_non_exhaustive()
    }
}

impl<T> MutexBuilder<T> {
    pub(crate) fn new(reach: Arc<Reach>, name: &str, value: T) -> Self {
        MutexBuilder {
            reach,
            name: name.to_owned(),
            value,
            scope: None,
            at_most: None,
            at_least: None,
            keep: Keep::default(),
        }
    }

    /// Which other callers it excludes. Default: the widest scope that the manager reaches.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, Scope};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let ledger = locks.mutex("ledger/eu", ()).scope(Scope::Host).build()?;
    /// assert_eq!(ledger.scope(), Scope::Host);
    ///
    /// let threads_only = LockManager::builder().open()?;
    /// let error = threads_only.mutex("ledger/eu", ()).scope(Scope::Host).build().unwrap_err();
    /// println!("{error}"); // never a narrower lock
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// The longest that one holder may hold it: then the lock is lost, with
    /// [`LostReason::HeldTooLong`](crate::LostReason::HeldTooLong).
    ///
    /// At host scope the next waiter is granted the lock once the holder's manager has confirmed the
    /// loss. Below host scope the guard is told, and other callers wait until it is dropped.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tierlock::{LockManager, LostReason, MutexGuard};
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("report", ()).at_most(Duration::from_millis(20)).lock_async().await?;
    /// assert_eq!(MutexGuard::lost(&guard).await, LostReason::HeldTooLong);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn at_most(mut self, at_most: Duration) -> Self {
        self.at_most = Some(at_most);
        self
    }

    /// The shortest time that the lock stays taken, also if the guard is dropped before: so that a
    /// short job is not run again by a machine with a clock that is a little behind. At most 31
    /// days: more is an error at [`build`](Self::build).
    ///
    /// At host scope the leader remembers it: the name stays taken however the holder ends, also if
    /// it is killed, and through a restart of the leader. Such a lock costs the leader a write to its
    /// disk. At process scope the directory remembers it, until the machine is started anew; at
    /// thread scope it ends with this process.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::time::Duration;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory();
    /// let job = || locks.mutex("nightly", ()).at_least(Duration::from_secs(300)).try_lock();
    /// drop(job()?);              // done at once
    /// assert!(job().is_err());   // and not done again within five minutes
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn at_least(mut self, at_least: Duration) -> Self {
        self.at_least = Some(at_least);
        self
    }

    /// Whether the lease of a host-scope lock is kept after the last local unlock; see [`Keep`] and
    /// the guide's page [`kept_leases`](crate::guide::kept_leases). Below host scope it says nothing.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Makes the mutex. It touches no network; at process scope it opens the name's place in the
    /// directory.
    ///
    /// # Errors
    /// `Config` for an invalid name, a scope out of the manager's reach, or terms that
    /// contradict each other; `Io` or `Damaged` from the directory, a full disk among them.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockErrorKind, LockManager};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let hits = locks.mutex("hits", 0_u64).build()?; // build once, lock often
    /// *hits.lock()? += 1;
    /// *hits.lock()? += 1;
    /// assert_eq!(*hits.lock()?, 2);
    ///
    /// let error = locks.mutex("a\nb", ()).build().unwrap_err(); // errors in the name surface here
    /// assert_eq!(error.kind(), LockErrorKind::Config);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn build(self) -> Result<Mutex<T>> {
        let (named, value) = self.build_named(Usage::Lock, |_, _| Ok(()))?;
        Ok(Mutex { anchor: Anchor::new(Core::Named(named)), value: UnsafeCell::new(value) })
    }

    /// The same of which something is said of its holder.
    pub(crate) fn build_with_value(self, said: Arc<[u8]>) -> Result<Mutex<T>> {
        let (mut named, value) = self.build_named(Usage::Lock, |_, _| Ok(()))?;
        named.value = Some(said);
        Ok(Mutex { anchor: Anchor::new(Core::Named(named)), value: UnsafeCell::new(value) })
    }

    /// Whether what grants its manager's leases carries values.
    pub(crate) fn carries_values(&self) -> bool {
        self.reach.service.as_ref().is_some_and(|service| service.carries_values())
    }

    /// Whether what grants its manager's leases grants permits.
    pub(crate) fn is_counted_by_its_service(&self) -> bool {
        self.reach.service.as_ref().is_some_and(|service| service.counts())
    }

    /// Everything but the lock that is made of it. `check` has a last word on its scope and what it
    /// shares in this process.
    pub(crate) fn build_named(
        self,
        usage: Usage,
        check: impl FnOnce(Scope, &NameEntry) -> Result<()>,
    ) -> Result<(Named, T)> {
        let scope = self.scope.unwrap_or_else(|| self.reach.widest());
        let name = Name::new(&self.name).map_err(|error| {
            LockError::config(error.to_string()).with_scope(scope).with_source(error)
        })?;
        let about = |error: LockError| error.with_name(&name).with_scope(scope);
        self.reach.check(scope).map_err(about)?;
        check_terms(self.at_most, self.at_least).map_err(about)?;
        if scope == Scope::Host
            && let Some(service) = &self.reach.service
        {
            let (has_at_least, has_at_most) = (self.at_least.is_some(), self.at_most.is_some());
            let keeps_always = self.keep == Keep::Always;
            let terms = AskedTerms { has_at_least, has_at_most, keeps_always };
            service.accepts(&terms).map_err(about)?;
        }
        if self.at_most.is_some() || self.at_least.is_some() {
            alarm::ready().map_err(|error| {
                let what = "the system cannot start the thread for at_most and at_least";
                about(LockError::new(LockErrorKind::Io, what).with_source(error))
            })?;
        }
        let entry = self.reach.ground.entry(&name);
        entry.claim(usage).map_err(about)?;
        if scope == Scope::Thread {
            entry.may_be_narrow();
        }
        entry.prepare(scope.max(entry.scope_in_force())).map_err(about)?;
        check(scope, &entry).map_err(about)?;
        let named = Named {
            shortcut: SlotShortcut::new(),
            word: self.reach.service.as_ref().map(|service| entry.lease_word(service)),
            entry,
            reach: self.reach,
            scope: AtomicU8::new(scope as u8),
            at_most: self.at_most,
            at_least: self.at_least,
            has_terms: self.at_most.is_some() || self.at_least.is_some(),
            keep: self.keep,
            value: None,
        };
        Ok((named, self.value))
    }
}

fn check_terms(at_most: Option<Duration>, at_least: Option<Duration>) -> Result<()> {
    if at_most == Some(Duration::ZERO) {
        return Err(LockError::config("at_most is zero: give the holder some time"));
    }
    match (at_most, at_least) {
        (_, Some(at_least)) if at_least > AT_LEAST_MAX => Err(LockError::config(format!(
            "at_least ({at_least:?}) is longer than the 31 days that are remembered"
        ))),
        (Some(at_most), Some(at_least)) if at_least > at_most => Err(LockError::config(format!(
            "at_least ({at_least:?}) is longer than at_most ({at_most:?})"
        ))),
        _ => Ok(()),
    }
}

impl<T: Send + 'static> MutexBuilder<T> {
    /// Builds it and locks it; see [`Mutex::lock`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Mutex::lock`].
    pub fn lock(self) -> Result<MutexGuard<'static, T>> {
        Arc::new(self.build()?).lock_arc()
    }

    /// Builds it and tries to lock it; see [`Mutex::try_lock`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Mutex::try_lock`].
    pub fn try_lock(self) -> Result<MutexGuard<'static, T>> {
        Arc::new(self.build()?).try_lock_arc()
    }

    /// Builds it and waits at most for `wait`; see [`Mutex::try_lock_for`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Mutex::try_lock_for`].
    pub fn try_lock_for(self, wait: Duration) -> Result<MutexGuard<'static, T>> {
        Arc::new(self.build()?).try_lock_arc_for(wait)
    }

    /// Builds it and locks it, blocking no thread; see [`Mutex::lock_async`].
    ///
    /// # Cancel safety, errors
    /// As [`Mutex::lock_async`]; as [`build`](Self::build) and [`Mutex::lock`].
    pub async fn lock_async(self) -> Result<MutexGuard<'static, T>> {
        Arc::new(self.build()?).lock_arc_async().await
    }

    /// Builds it and tries to lock it, blocking no thread; see [`Mutex::try_lock_async`].
    ///
    /// # Cancel safety, errors
    /// As [`Mutex::lock_async`]; as [`build`](Self::build) and [`Mutex::try_lock`].
    pub async fn try_lock_async(self) -> Result<MutexGuard<'static, T>> {
        Arc::new(self.build()?).try_lock_arc_async().await
    }

    /// Builds it and waits at most for `wait`, blocking no thread; see
    /// [`Mutex::try_lock_for_async`].
    ///
    /// # Cancel safety, errors
    /// As [`Mutex::lock_async`]; as [`build`](Self::build) and [`Mutex::try_lock_for`].
    pub async fn try_lock_for_async(self, wait: Duration) -> Result<MutexGuard<'static, T>> {
        Arc::new(self.build()?).try_lock_arc_for_async(wait).await
    }
}
