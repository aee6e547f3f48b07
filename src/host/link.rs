//! Between callers and one manager's protocol client: requests in, leases out, whatever carries
//! the frames.
use crate::{
    error::{LockError, Predecessor},
    name::Name,
    proto::{LeaseId, wire::LockInfo},
    time::Time,
    token::Token,
    watch::Watch,
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// One manager's way to its leader.
pub(crate) struct Link {}

/// How long a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    No,
    Until(Time),
}

/// What a caller asks for.
pub(crate) struct Want {
    pub(crate) name: Name,
    pub(crate) at_most: Option<Duration>,
    pub(crate) keep: bool,
    pub(crate) above: Token,
    pub(crate) patience: Patience,
}

/// A lease that was granted. Giving it back is the owner's duty ([`Link::release`]).
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
    pub(crate) watch: Arc<Watch>,
}

impl Link {
    /// Asks for a lease; touches no network by itself and never blocks.
    pub(crate) fn acquire(self: &Arc<Self>, want: Want) -> Acquiring {
        let _ = want;
        todo!()
    }
    /// Queues the release. Never blocks, never fails.
    pub(crate) fn release(&self, lease: LeaseId, last_used: Token, how: Predecessor) {
        let _ = (lease, last_used, how);
        todo!()
    }
    /// Queues the release; the answer can be awaited.
    pub(crate) fn release_answered(
        self: &Arc<Self>,
        lease: LeaseId,
        last_used: Token,
        how: Predecessor,
    ) -> Releasing {
        let _ = (lease, last_used, how);
        todo!()
    }
    /// All names the leader knows (pages are joined), or one.
    pub(crate) fn list(
        self: &Arc<Self>,
        only: Option<&Name>,
        limit: Option<Time>,
    ) -> Result<Vec<LockInfo>, LockError> {
        let _ = (only, limit);
        todo!()
    }
    /// Says goodbye once no lease is held, and waits until it is sent, at most until `until`.
    pub(crate) fn close(&self, until: Time) {
        let _ = until;
        todo!()
    }
}

/// An acquire under way: wait for it, or poll it. Dropping it takes the request back, and a grant that is or
/// comes in is handed straight back.
pub(crate) struct Acquiring {}
impl Acquiring {
    /// Blocks the calling thread. Works in and outside any async runtime.
    pub(crate) fn wait(self) -> Result<Lease, LockError> {
        todo!()
    }
}
impl Future for Acquiring {
    type Output = Result<Lease, LockError>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

/// A release under way.
pub(crate) struct Releasing {}
impl Releasing {
    /// Blocks until the leader answered; `Lost` if the lease was over before, `Unreachable` at `until`.
    pub(crate) fn wait(self, until: Time) -> Result<(), LockError> {
        let _ = until;
        todo!()
    }
}
impl Future for Releasing {
    type Output = Result<(), LockError>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}
