//! No spans: nothing is compiled of them.

use crate::{
    error::{Predecessor, Result},
    path::{LockMode, named::Named, right::Held},
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
    pub(in crate::path) fn end(self, _: &Named, won: Result<Held>) -> Result<Held> {
        won
    }
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
