//! Where an engine tells of leaders, and their observer reads it.

use std::{sync::Arc, task::Waker};

use parking_lot::Mutex;

use crate::{
    alarm::contain,
    elected::{ElectedLeader, LeaderTold},
    error::LockError,
    host::untold::{LeaderChange, UntoldChanges},
};

/// Where an engine tells of leaders.
#[derive(Clone, Default)]
pub(super) struct LeaderTeller(Arc<Mutex<ToldLeaders>>);

#[derive(Default)]
struct ToldLeaders {
    changes: UntoldChanges,
    /// What was told last.
    last: LeaderTold,
}

impl LeaderTeller {
    /// The leader as it is now, if that is another than it was.
    pub(super) fn leads(&self, leader: Option<ElectedLeader>) {
        let mut told = self.0.lock();
        let now = LeaderTold::Now(leader.clone());
        if told.last == now {
            return;
        }
        told.last = now;
        let waker = told.changes.add(Ok(leader));
        drop(told);
        waker.into_iter().for_each(|waker| contain(|| waker.wake()));
    }

    /// Nothing more is told.
    pub(super) fn fail(&self, error: LockError) {
        let waker = self.0.lock().changes.add(Err(error));
        waker.into_iter().for_each(|waker| contain(|| waker.wake()));
    }

    pub(super) fn has_told(&self) -> bool {
        self.0.lock().last != LeaderTold::Nothing
    }

    /// As [`UntoldChanges::take`].
    pub(super) fn take(&self, waker: &mut Option<Waker>) -> (Option<LeaderChange>, Option<Waker>) {
        self.0.lock().changes.take(waker)
    }
}
