//! Observers of elections: each has what it was told and did not take yet.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Link, LinkState,
    aftermath::{Aftermath, Wake},
    errors::error_of,
};
use crate::{
    clock,
    elected::ElectedLeader,
    error::Result,
    host::{
        service::LeaderNews,
        untold::{LeaderChange, UntoldChanges},
    },
    name::Name,
    proto::{RequestId, client::RequestFailure, wire::PresentLeader},
    scope::Scope,
    time::Time,
};

/// What one observer was told.
pub(super) struct ObserverState {
    since: Time,
    changes: UntoldChanges,
}

impl ObserverState {
    fn add(&mut self, change: LeaderChange, aftermath: &mut Aftermath) {
        aftermath.wakes.extend(self.changes.add(change).map(Wake::Task));
    }

    /// No driver will ever tell it anything again.
    #[cfg(feature = "host")]
    pub(super) fn abandon(&mut self, why: crate::error::LockError, aftermath: &mut Aftermath) {
        self.add(Err(why), aftermath);
    }
}

impl LinkState {
    /// Which holder leads.
    pub(super) fn leads(&mut self, query: RequestId, leader: Option<PresentLeader>) {
        if let Some(observer) = self.observers.get_mut(&query) {
            let leader = leader.map(|leader| ElectedLeader::new(leader.token, leader.value));
            observer.add(Ok(leader), &mut self.aftermath);
        }
    }

    /// Nothing is told any more. Answers what is left if this is no observation.
    pub(super) fn observation_failed(
        &mut self,
        query: RequestId,
        failure: RequestFailure,
    ) -> Option<RequestFailure> {
        let Some(observer) = self.observers.get_mut(&query) else { return Some(failure) };
        let error = error_of(failure, clock::now().since(observer.since));
        observer.add(Err(error), &mut self.aftermath);
        None
    }
}

/// An observation under way. Dropped, it ends.
struct ObservingLeaders {
    link: Arc<Link>,
    name: Name,
    /// `None` before it is asked for, and after a failure.
    query: Option<RequestId>,
}

impl Link {
    /// See [`LeaseService::observe`](crate::host::service::LeaseService::observe).
    pub(super) fn observe_leader(self: Arc<Self>, name: &Name) -> Result<Box<dyn LeaderNews>> {
        self.ready()?;
        Ok(Box::new(ObservingLeaders { link: self, name: name.clone(), query: None }))
    }

    fn stop_observing(&self, query: Option<RequestId>) {
        let Some(query) = query else { return };
        let mut state = self.state.lock();
        // What is removed is dropped once the state is unlocked: it may own foreign code.
        let removed = state.observers.remove(&query);
        state.client.stop_observing(query);
        self.settle(state);
        drop(removed);
        self.drive.wake_for_release(false);
    }
}

impl LeaderNews for ObservingLeaders {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ElectedLeader>>> {
        let link = &self.link;
        // What a child inherits is not touched, nor locked.
        link.check_fork()?;
        let query = match self.query {
            Some(query) => query,
            None => {
                link.ready()?;
                let since = clock::now();
                let mut state = link.state.lock();
                let query = state.client.observe_leader(self.name.clone(), None, since);
                let new = ObserverState { since, changes: UntoldChanges::default() };
                state.observers.insert(query, new);
                link.settle(state);
                link.drive.wake();
                self.query = Some(query);
                // A link that was abandoned before has told its observers, and not this one.
                if let Err(error) = link.drive.attend() {
                    link.stop_observing(self.query.take());
                    return Poll::Ready(Err(error.with_scope(Scope::Host)));
                }
                query
            }
        };
        // A waker is foreign code: made and dropped where nothing is locked.
        let mut waker = Some(cx.waker().clone());
        let mut state = link.state.lock();
        let observer = state.observers.get_mut(&query).expect("it stays until it is dropped");
        let (news, earlier) = observer.changes.take(&mut waker);
        if matches!(news, Some(Err(_))) {
            state.observers.remove(&query);
            self.query = None;
        }
        drop(state);
        drop((earlier, waker));
        news.map_or(Poll::Pending, |news| {
            Poll::Ready(news.map_err(|error| error.with_scope(Scope::Host)))
        })
    }
}

impl Drop for ObservingLeaders {
    fn drop(&mut self) {
        if !self.link.forked() {
            self.link.stop_observing(self.query);
        }
    }
}
