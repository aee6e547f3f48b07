//! Named read-write locks, about to be built.

use std::{cell::UnsafeCell, sync::Arc, time::Duration};

use super::{
    super::{
        guard::{Anchor, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard},
        mutex::MutexBuilder,
    },
    RwLock,
};
use crate::{
    error::Result,
    mode::Usage,
    path::{Core, Keep, ground::Reach},
    scope::Scope,
};

/// A named read-write lock about to be built; made by
/// [`LockManager::rw_lock`](crate::LockManager::rw_lock).
///
/// [`build`](Self::build) makes the lock, once and for many guards. `read`, `write` and the other ways in make
/// it and come in at once, for a name made at run time: the guard owns everything.
///
/// # Example
/// ```
/// use tierlock::{LockManager, RwLockReadGuard, Scope};
///
/// # let directory = tempfile::tempdir().unwrap();
/// let locks = LockManager::builder().directory(directory.path()).open()?;
/// let customer = 7;
/// let reader = locks.rw_lock(format!("customers/{customer}"), ()).scope(Scope::Process).read()?;
/// assert!(RwLockReadGuard::is_valid(&reader));
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "nothing is made before `build` is called"]
#[derive(Debug)]
pub struct RwLockBuilder<T>(MutexBuilder<T>);

impl<T> RwLockBuilder<T> {
    pub(crate) fn new(reach: Arc<Reach>, name: &str, value: T) -> Self {
        RwLockBuilder(MutexBuilder::new(reach, name, value))
    }

    /// Which other callers it excludes. Default: the widest scope that the manager reaches.
    pub fn scope(self, scope: Scope) -> Self {
        RwLockBuilder(self.0.scope(scope))
    }

    /// The longest that one guard may hold it: then the guard is told that its right is lost, and
    /// others wait until it is dropped. A guard that becomes a reader has no such end any more below host
    /// scope; at host scope it keeps that of its lease.
    pub fn at_most(self, at_most: Duration) -> Self {
        RwLockBuilder(self.0.at_most(at_most))
    }

    /// Whether leases of host scope are kept after the last local guard; see [`Keep`]. Those of readers are
    /// kept with both [`Adaptive`](Keep::Adaptive) and [`Always`](Keep::Always), until a writer asks for
    /// them. Below host scope it says nothing.
    pub fn keep(self, keep: Keep) -> Self {
        RwLockBuilder(self.0.keep(keep))
    }

    /// Makes the lock. At process scope it opens the name's place in the directory.
    ///
    /// # Errors
    /// `Config` for an invalid name and a scope out of the manager's reach; `Io` or `Damaged` from the
    /// directory, a full disk among them.
    pub fn build(self) -> Result<RwLock<T>> {
        let (named, value) = self.0.build_named(Usage::Lock, |scope, entry| match scope {
            Scope::Host => entry.prepare_to_read(),
            Scope::Process => {
                entry.prepare_to_read()?;
                entry.begin_at_process_scope();
                Ok(())
            }
            Scope::Thread => Ok(()),
        })?;
        Ok(RwLock { anchor: Anchor::new(Core::Named(named)), value: UnsafeCell::new(value) })
    }
}

/// The ways in, for each mode the same.
macro_rules! builds_and_comes_in {
    (
        $guard:ident,
        $lock:ident $try_lock:ident $try_lock_for:ident
        $lock_async:ident $try_lock_async:ident $try_lock_for_async:ident
        by $lock_arc:ident $try_lock_arc:ident $try_lock_arc_for:ident
        $lock_arc_async:ident $try_lock_arc_async:ident $try_lock_arc_for_async:ident
    ) => {
        impl<T: Send + Sync + 'static> RwLockBuilder<T> {
            #[doc = concat!("Builds it and comes in; see [`RwLock::", stringify!($lock), "`].")]
            pub fn $lock(self) -> Result<$guard<'static, T>> {
                Arc::new(self.build()?).$lock_arc()
            }

            #[doc = concat!("Builds it and comes in if it need not wait; see [`RwLock::", stringify!($try_lock), "`].")]
            pub fn $try_lock(self) -> Result<$guard<'static, T>> {
                Arc::new(self.build()?).$try_lock_arc()
            }

            #[doc = concat!("Builds it and waits at most for `wait`; see [`RwLock::", stringify!($try_lock_for), "`].")]
            pub fn $try_lock_for(self, wait: Duration) -> Result<$guard<'static, T>> {
                Arc::new(self.build()?).$try_lock_arc_for(wait)
            }

            #[doc = concat!("Builds it and comes in, blocking no thread; see [`RwLock::", stringify!($lock_async), "`].")]
            pub async fn $lock_async(self) -> Result<$guard<'static, T>> {
                Arc::new(self.build()?).$lock_arc_async().await
            }

            #[doc = concat!("Builds it and comes in if it need not wait, blocking no thread; see [`RwLock::", stringify!($try_lock_async), "`].")]
            pub async fn $try_lock_async(self) -> Result<$guard<'static, T>> {
                Arc::new(self.build()?).$try_lock_arc_async().await
            }

            #[doc = concat!("Builds it and waits at most for `wait`, blocking no thread; see [`RwLock::", stringify!($try_lock_for_async), "`].")]
            pub async fn $try_lock_for_async(
                self,
                wait: Duration,
            ) -> Result<$guard<'static, T>> {
                Arc::new(self.build()?).$try_lock_arc_for_async(wait).await
            }
        }
    };
}

builds_and_comes_in! {
    RwLockReadGuard, read try_read try_read_for read_async try_read_async try_read_for_async
    by read_arc try_read_arc try_read_arc_for
    read_arc_async try_read_arc_async try_read_arc_for_async
}

builds_and_comes_in! {
    RwLockUpgradableReadGuard,
    upgradable_read try_upgradable_read try_upgradable_read_for
    upgradable_read_async try_upgradable_read_async try_upgradable_read_for_async
    by upgradable_read_arc try_upgradable_read_arc try_upgradable_read_arc_for
    upgradable_read_arc_async try_upgradable_read_arc_async try_upgradable_read_arc_for_async
}

builds_and_comes_in! {
    RwLockWriteGuard, write try_write try_write_for write_async try_write_async try_write_for_async
    by write_arc try_write_arc try_write_arc_for
    write_arc_async try_write_arc_async try_write_arc_for_async
}
