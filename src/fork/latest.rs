//! What is replaced while others look at it, and the shortest way to it.

use std::{
    marker::PhantomData,
    ptr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicPtr, Ordering},
    },
};

use super::{Mutex, mark};

/// A value that is replaced now and then. What was replaced stays where it is for as long as this lives:
/// another thread may be about to use it.
pub(crate) struct LatestMade<T> {
    first: Arc<T>,
    /// Null while the first one is.
    latest: AtomicPtr<Replacement<T>>,
    /// It is shared and dropped as such a cell is.
    shape: PhantomData<OnceLock<T>>,
}

struct Replacement<T> {
    value: Arc<T>,
    /// What was the latest before: null for the first.
    before: *mut Replacement<T>,
}

impl<T> LatestMade<T> {
    pub(crate) fn new(first: T) -> LatestMade<T> {
        let first = Arc::new(first);
        LatestMade { first, latest: AtomicPtr::new(ptr::null_mut()), shape: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
        self.shared()
    }

    /// The same, for a [`Shortcut`].
    #[inline]
    pub(crate) fn shared(&self) -> &Arc<T> {
        let latest = self.latest.load(Ordering::Acquire);
        // SAFETY: null, or out of `Box::into_raw` in `replace`, which publishes it for as long as `self`
        // lives.
        match unsafe { latest.as_ref() } {
            None => &self.first,
            Some(replacement) => &replacement.value,
        }
    }

    /// From now on it is this one, unless another thread has replaced what was `seen`.
    pub(crate) fn replace(&self, seen: &T, value: T) {
        let before = self.latest.load(Ordering::Acquire);
        // SAFETY: as in `get`.
        let latest = unsafe { before.as_ref() }.map_or(&self.first, |latest| &latest.value);
        if !ptr::eq(&raw const **latest, seen) {
            return;
        }
        let new = Box::into_raw(Box::new(Replacement { value: Arc::new(value), before }));
        if self.latest.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: it came out of `Box::into_raw` above and was not published.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

impl<T> Drop for LatestMade<T> {
    fn drop(&mut self) {
        let mut latest = *self.latest.get_mut();
        while !latest.is_null() {
            // SAFETY: out of `Box::into_raw` in `replace`, once in this list, and borrowed from a `self`
            // that is no more.
            let replacement = unsafe { Box::from_raw(latest) };
            latest = replacement.before;
        }
    }
}

/// A way straight to a value that stands elsewhere: one load, for those that come often. It keeps alive
/// whatever it led to, since another thread may be about to use that.
pub(crate) struct Shortcut<T> {
    /// Null where it leads nowhere yet.
    at: AtomicPtr<T>,
    kept: Mutex<ShortcutEnds<T>>,
}

/// What a shortcut has led to. Nearly always that is one thing for good, which takes no allocation.
struct ShortcutEnds<T> {
    first: Option<Arc<T>>,
    others: Vec<Arc<T>>,
}

impl<T> Shortcut<T> {
    pub(crate) const fn new() -> Shortcut<T> {
        Shortcut {
            at: AtomicPtr::new(ptr::null_mut()),
            kept: Mutex::new(ShortcutEnds { first: None, others: Vec::new() }),
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        let at = self.at.load(Ordering::Acquire);
        // SAFETY: null, or where one of `kept` points to, which keeps that for as long as `self` lives:
        // `lead_to` only adds to it.
        unsafe { at.as_ref() }
    }

    /// From now on it leads to this. It may go on leading to what it did, where another thread changes it
    /// just now, or did at the fork that this process comes from.
    #[cold]
    pub(crate) fn lead_to(&self, to: &Arc<T>) {
        let Some(mut kept) = self.kept.try_lock() else { return };
        let ShortcutEnds { first, others } = &mut *kept;
        let is_first = Arc::ptr_eq(first.get_or_insert_with(|| to.clone()), to);
        if !is_first && !others.iter().any(|known| Arc::ptr_eq(known, to)) {
            others.push(to.clone());
        }
        self.at.store(Arc::as_ptr(to).cast_mut(), Ordering::Release);
    }
}

/// To which process something belongs, of those that were forked from each other.
#[derive(Clone, Copy)]
pub(crate) struct ForkStamp(u64);

impl ForkStamp {
    pub(crate) fn of(generation: u64) -> ForkStamp {
        ForkStamp(generation + 1)
    }

    /// Whether it is this process. A child that has yet to find its generation has a mark that is no
    /// stamp's.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        mark().load(Ordering::Relaxed) == self.0
    }

    #[inline]
    pub(crate) fn generation(self) -> u64 {
        self.0 - 1
    }
}
