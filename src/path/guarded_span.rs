//! A span that ends with what bears it, whatever a subscriber does.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tracing::Span;

/// A span that a subscriber wants.
pub(super) struct GuardedSpan(Span);

impl GuardedSpan {
    /// `None` if no subscriber wants it.
    // Made in its place: one that is handed on is copied at each step.
    #[inline]
    pub(super) fn begin(begin: impl FnOnce() -> Span) -> Option<GuardedSpan> {
        let mut span = GuardedSpan(Span::none());
        guarded(|| span.0 = begin());
        (!span.0.is_disabled()).then_some(span)
    }

    /// Ends it once this is recorded.
    #[inline]
    pub(super) fn end(mut self, record: impl FnOnce(&Span)) {
        guarded(|| {
            record(&self.0);
            drop(mem::replace(&mut self.0, Span::none()));
        });
    }
}

impl Drop for GuardedSpan {
    #[inline]
    fn drop(&mut self) {
        // Else it has ended.
        if !self.0.is_disabled() {
            let span = mem::replace(&mut self.0, Span::none());
            guarded(|| drop(span));
        }
    }
}

/// What a subscriber does; `None` if it panics, of which the panic hook has told.
#[inline]
pub(super) fn guarded<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(foreign)) {
        Ok(result) => Some(result),
        Err(panic) => {
            mem::forget(panic); // dropping it could panic again
            None
        }
    }
}
