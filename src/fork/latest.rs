//! What is replaced while others look at it.

use std::{
    marker::PhantomData,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, Ordering},
    },
};

/// A value that is replaced now and then. What was replaced stays where it is for as long as this lives:
/// another thread may be about to use it.
pub(crate) struct LatestMade<T> {
    first: T,
    /// Null while the first one is.
    latest: AtomicPtr<Replacement<T>>,
    /// It is shared and dropped as such a cell is.
    shape: PhantomData<OnceLock<T>>,
}

struct Replacement<T> {
    value: T,
    /// What was the latest before: null for the first.
    before: *mut Replacement<T>,
}

impl<T> LatestMade<T> {
    pub(crate) fn new(first: T) -> LatestMade<T> {
        LatestMade { first, latest: AtomicPtr::new(ptr::null_mut()), shape: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
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
        if !ptr::eq(latest, seen) {
            return;
        }
        let new = Box::into_raw(Box::new(Replacement { value, before }));
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
