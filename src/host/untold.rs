//! What an observer of an election was told and has not taken yet.

use std::{collections::VecDeque, mem, task::Waker};

use crate::{elected::ElectedLeader, error::Result};

/// The present leader, none, or why nothing more is told.
pub(super) type LeaderChange = Result<Option<ElectedLeader>>;

/// The changes that one observer has not taken yet, oldest first.
#[derive(Default)]
pub(super) struct UntoldChanges {
    untold: VecDeque<LeaderChange>,
    waker: Option<Waker>,
}

/// An observer that is so many changes behind misses the oldest of them.
const UNTOLD_MAX: usize = 256;

impl UntoldChanges {
    /// A change. What it returns is to be woken where nothing is locked.
    #[must_use]
    pub(super) fn add(&mut self, change: LeaderChange) -> Option<Waker> {
        if self.untold.len() == UNTOLD_MAX {
            self.untold.pop_front();
        }
        self.untold.push_back(change);
        self.waker.take()
    }

    /// The next change; without one the waker is taken, and called at the next. Beside it, the waker of an
    /// earlier look. Wakers are foreign code: made, and dropped if they are left, where nothing is locked.
    pub(super) fn take(
        &mut self,
        waker: &mut Option<Waker>,
    ) -> (Option<LeaderChange>, Option<Waker>) {
        let change = self.untold.pop_front();
        let next = waker.take_if(|_| change.is_none());
        (change, mem::replace(&mut self.waker, next))
    }
}
