//! The scope in force of a name in this process: which gate decides about it.

use crate::scope::Scope;

use super::sync::{AtomicU8, Ordering::*};

/// The widest scope at which this process has locked a name. It only grows.
///
/// It is read before the gate is tried, and again once the narrower gate is won: if it has grown
/// meanwhile, a turnstile was won and no gate. It is raised under the narrower gate and the wider one.
/// Acquire and Release: a lock at the wider gate sees what the last holder at the narrower one wrote.
pub(crate) struct InForce(AtomicU8);

impl InForce {
    pub(crate) fn new(scope: Scope) -> InForce {
        InForce(AtomicU8::new(scope as u8))
    }

    #[inline]
    pub(crate) fn get(&self) -> Scope {
        Scope::from_u8(self.0.load(Acquire))
    }

    /// From now on the name is locked at `scope`, or at a wider one that it is locked at already.
    /// For the holder; or where no lock of the name has been tried yet.
    #[inline]
    pub(crate) fn raise(&self, scope: Scope) {
        if self.0.load(Relaxed) < scope as u8 {
            self.0.fetch_max(scope as u8, Release);
        }
    }
}
