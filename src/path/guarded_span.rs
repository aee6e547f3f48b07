//! A span that ends with what bears it, whatever a subscriber does.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tracing::Span;

pub(super) struct GuardedSpan(Span);

impl GuardedSpan {
    pub(super) fn begin(begin: impl FnOnce() -> Span) -> Option<GuardedSpan> {
        guarded(begin).map(GuardedSpan)
    }

    pub(super) fn record(&self, record: impl FnOnce(&Span)) {
        guarded(|| record(&self.0));
    }
}

impl Drop for GuardedSpan {
    fn drop(&mut self) {
        let span = mem::replace(&mut self.0, Span::none());
        guarded(|| drop(span));
    }
}

/// What a subscriber does; `None` if it panics, of which the panic hook has told.
fn guarded<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(foreign)).ok()
}
