//! No spans: nothing is compiled of them.

use crate::{
    error::{Predecessor, Result},
    path::{LockMode, named::Named, right::Held},
};

#[inline]
pub(in crate::path) const fn are_wanted() -> bool {
    false
}

pub(in crate::path) struct AcquireSpan;

impl AcquireSpan {
    #[inline]
    pub(in crate::path) fn begin(_: &Named, _: LockMode) -> AcquireSpan {
        AcquireSpan
    }

    #[inline]
    pub(in crate::path) fn end(self, _: &Named, won: Result<Held>) -> Result<Held> {
        won
    }
}

pub(in crate::path) struct ReleaseSpan;

impl ReleaseSpan {
    #[inline]
    pub(in crate::path) fn begin(_: &Named, _: &Held, _: Predecessor) -> ReleaseSpan {
        ReleaseSpan
    }

    #[inline]
    pub(in crate::path) fn end(self) {}
}

#[inline]
pub(in crate::path) fn hold(_: &Named, _: &mut Held) {}
