//! How a guard has its lock: alone, as a reader, as the one reader that may become a writer, by permits.

use std::mem::ManuallyDrop;

use super::{GuardState, MutexGuard, RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard};

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
            // Nothing is in it that is to be dropped once the guard is released.
            type Own = ManuallyDrop<GuardState>;
            const SHARES: bool = true;
            const READS: bool = true;

            #[inline]
            fn own(own: &ManuallyDrop<GuardState>) -> Option<&GuardState> {
                Some(own)
            }

            #[inline]
            fn own_mut(own: &mut ManuallyDrop<GuardState>) -> Option<&mut GuardState> {
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

/// A reader that owns its share of the lock: made by [`RwLock::read_arc`](crate::RwLock::read_arc),
/// [`RwLock::read_owned`](crate::RwLock::read_owned) and by [`RwLockBuilder`](crate::RwLockBuilder).
pub type OwnedRwLockReadGuard<T> = RwLockReadGuard<'static, T>;

/// The same of the reader that may become a writer.
pub type OwnedRwLockUpgradableReadGuard<T> = RwLockUpgradableReadGuard<'static, T>;

/// The same of the writer.
pub type OwnedRwLockWriteGuard<T> = RwLockWriteGuard<'static, T>;
