//! No spans: nothing is compiled of them.

use crate::{
    error::{Predecessor, Result},
    path::{
        LockMode,
        named::Named,
        right::{Held, More, Won},
    },
};

#[inline]
pub(in crate::path) const fn are_wanted() -> bool {
    false
}

pub(in crate::path) struct NoAcquireSpan;

impl NoAcquireSpan {
    #[inline]
    pub(in crate::path) fn begin(_: &Named, _: LockMode) -> NoAcquireSpan {
        NoAcquireSpan
    }

    #[inline]
    pub(in crate::path) fn end(&mut self, _: &Named, _: &mut Result<Held>) {}
}

pub(in crate::path) struct NoReleaseSpan;

impl NoReleaseSpan {
    #[inline]
    pub(in crate::path) fn begin(_: &Named, _: &Held, _: Predecessor) -> NoReleaseSpan {
        NoReleaseSpan
    }
}

#[inline]
pub(in crate::path) fn hold(_: &Named, _: &mut Held) {}

pub(crate) enum NoHoldSpan {}

impl Held {
    #[inline]
    pub(crate) const fn take_hold_span(&mut self) -> Option<NoHoldSpan> {
        None
    }
}

impl Named {
    #[inline]
    pub(crate) const fn release_told(&self, _: Won, told: NoHoldSpan, _: u64) {
        match told {}
    }
}

impl More {
    #[inline]
    pub(in crate::path) const fn is_only_told(&self) -> bool {
        false
    }
}
