//! The span of what is held, which ends with it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tracing::Span;

pub(super) struct HoldSpan(Span);

impl HoldSpan {
    pub(super) fn new(span: Span) -> HoldSpan {
        HoldSpan(span)
    }
}

impl Drop for HoldSpan {
    fn drop(&mut self) {
        let span = mem::replace(&mut self.0, Span::none());
        guarded(|| drop(span));
    }
}

/// What a subscriber does; `None` if it panics, of which the panic hook has told.
pub(super) fn guarded<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(foreign)).ok()
}
