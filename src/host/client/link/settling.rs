//! Requests whose end is settled beside the link's lock, since their directory may block.
//!
//! At its end a request lets go of the slot that its caller won in the directory, and before that a grant
//! raises the slot's token: see [`Settlement`]. That is mostly memory. But a token beyond the directory's
//! reserve has two files synced, by one process at a time, which may have been stopped at it; and on a network
//! file system each release asks a server. The link's lock is taken by the owner of the connection, which
//! carries all managers of the process: one whose disk hangs would keep the others from their renewals.
//!
//! So such an end is settled by a thread of the link's own, one after the other, in the order of any other:
//!
//! | | the link is locked | the lease |
//! |---|---|---|
//! | the token is raised | no | what becomes of it is noted |
//! | the word is opened | yes | what was noted meets the open word |
//! | the slot is released | no | as any |
//! | the caller is told | yes | as any |
//!
//! - *A lease that is lost meanwhile is never good.* Its word is opened and closed again under one hold of
//!   the lock: the caller finds the reason there, as after any loss between a grant and its claim. The leader
//!   hears of the loss at once, since no guard believes in the lease.
//! - *No lease is left behind.* A caller that goes meanwhile has its request cancelled, and the lease goes
//!   back at once; the slot is released once the directory lets it. One that stays is told in any case.
//! - *The caller is told last*, so that what it asks next finds the slot free.

#[cfg(all(test, feature = "host", not(tierlock_loom)))]
mod tests;

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::{Link, LinkState, errors::error_of};
use crate::{
    alarm::contain,
    callbacks, clock,
    error::{LockError, LockErrorKind, LostReason},
    host::{
        lease_word::{LeaseWord, Opening},
        service::{LeaseGranted, Settlement},
    },
    proto::{LeaseId, RequestId, client::RequestFailure},
    scope::Scope,
    token::Token,
};

/// How a request ended that is being settled.
pub(super) enum SettlingEnd {
    /// Its word is not open yet.
    Granted(NewGrant),
    Opened {
        had_to_queue: bool,
    },
    Failed(LockError),
}

/// A grant whose word is to be opened.
pub(super) struct NewGrant {
    pub(super) word: Arc<LeaseWord>,
    pub(super) opening: Opening,
    pub(super) had_to_queue: bool,
    /// As [`LeaseRequest::lapses`](crate::host::service::LeaseRequest::lapses).
    pub(super) lapses: bool,
    /// As [`LeaseRequest::has_moved`](crate::host::service::LeaseRequest::has_moved).
    pub(super) has_moved: bool,
    /// What became of the lease meanwhile.
    pub(super) lost: Option<LostReason>,
    pub(super) is_recalled: bool,
}

/// A settlement that may block.
pub(super) struct SettleJob {
    /// Whose, unless its caller has gone or is told already.
    pub(super) request: Option<RequestId>,
    /// Of a grant.
    pub(super) raises_to: Option<Token>,
    pub(super) settlement: Settlement,
}

/// Settles what may block, on a thread that it has for as long as there is something. It outlives its link:
/// whichever thread has that last is not to wait for a directory.
pub(super) struct Settler {
    link: Weak<Link>,
    state: Mutex<SettlerState>,
}

#[derive(Default)]
struct SettlerState {
    queue: VecDeque<SettleJob>,
    has_thread: bool,
}

impl Settler {
    pub(super) fn new(link: Weak<Link>) -> Arc<Settler> {
        Arc::new(Settler { link, state: Mutex::default() })
    }

    /// Never blocks.
    pub(super) fn settle(self: &Arc<Self>, jobs: Vec<SettleJob>) {
        if jobs.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        state.queue.extend(jobs);
        if mem::replace(&mut state.has_thread, true) {
            return;
        }
        drop(state);
        let (me, again) = (self.clone(), self.clone());
        let thread = thread::Builder::new().name("tierlock-settling".into());
        if thread.spawn(move || me.serve()).is_err() {
            // It is tried again there.
            callbacks::run(move || again.serve());
        }
    }

    fn serve(&self) {
        loop {
            let mut state = self.state.lock();
            let Some(job) = state.queue.pop_front() else {
                state.has_thread = false;
                return;
            };
            drop(state);
            let request = job.request;
            contain(|| self.serve_one(job));
            if let (Some(link), Some(request)) = (self.link.upgrade(), request) {
                contain(|| link.is_settled(request));
            }
        }
    }

    /// Nothing of the link is kept meanwhile.
    fn serve_one(&self, SettleJob { request, raises_to, mut settlement }: SettleJob) {
        let is_wanted = |request| self.link.upgrade().is_some_and(|link| link.settles(request));
        if let (Some(request), Some(last)) = (request, raises_to)
            && is_wanted(request)
        {
            settlement.raise(last);
            if let Some(link) = self.link.upgrade() {
                link.open_settling(request, &mut settlement);
            }
        }
        drop(settlement);
    }
}

impl Link {
    /// Whether the caller of a request that is being settled still waits.
    fn settles(&self, request: RequestId) -> bool {
        self.state.lock().acquires.get(&request).is_some_and(|waiter| waiter.settling.is_some())
    }

    /// The token is raised: opens the word, if its caller still waits.
    fn open_settling(&self, request: RequestId, settlement: &mut Settlement) {
        let mut state = self.state.lock();
        state.open_settling(request, settlement);
        self.settle(state);
        self.drive.wake_for_release(true);
    }

    /// The slot is released: the caller is told.
    fn is_settled(&self, request: RequestId) {
        let mut state = self.state.lock();
        state.is_settled(request);
        self.settle(state);
        self.drive.wake_for_release(true);
    }
}

impl LinkState {
    /// The request has ended; what its caller waits for is settled beside this state's lock.
    pub(super) fn settle_later(
        &mut self,
        request: RequestId,
        end: SettlingEnd,
        settlement: Settlement,
    ) {
        let raises_to = match &end {
            SettlingEnd::Granted(grant) => Some(grant.opening.last),
            SettlingEnd::Opened { .. } | SettlingEnd::Failed(_) => None,
        };
        let waiter = self.acquires.get_mut(&request).expect("its caller waits");
        waiter.settling = Some(end);
        waiter.expecting = None;
        self.settling.push(request);
        let request = Some(request);
        self.aftermath.to_settle.push(SettleJob { request, raises_to, settlement });
    }

    /// The grant of this lease whose word is not open yet.
    pub(super) fn settling_grant(&mut self, lease: LeaseId) -> Option<&mut NewGrant> {
        let request = *self.settling.iter().find(|request| {
            let waiter = self.acquires.get(request);
            let settling = waiter.and_then(|waiter| waiter.settling.as_ref());
            matches!(settling, Some(SettlingEnd::Granted(grant)) if grant.is_of(lease))
        })?;
        match &mut self.acquires.get_mut(&request)?.settling {
            Some(SettlingEnd::Granted(grant)) => Some(grant),
            _ => None,
        }
    }

    /// The manager is closed: what is granted now is not kept.
    pub(super) fn recall_settling(&mut self) {
        for request in &self.settling {
            let waiter = self.acquires.get_mut(request);
            if let Some(SettlingEnd::Granted(grant)) = waiter.and_then(|w| w.settling.as_mut()) {
                grant.is_recalled = true;
            }
        }
    }

    fn open_settling(&mut self, request: RequestId, settlement: &mut Settlement) {
        let Some(waiter) = self.acquires.get_mut(&request) else { return };
        let Some(SettlingEnd::Granted(grant)) =
            waiter.settling.take_if(|end| matches!(end, SettlingEnd::Granted(_)))
        else {
            return;
        };
        if grant.word.is_retired() {
            // Its future was leaked, and what it was for is gone.
            let error = error_of(RequestFailure::Closed, Duration::ZERO);
            waiter.settling = Some(SettlingEnd::Failed(error));
            return self.client.cancel(request, clock::now());
        }
        waiter.settling = Some(SettlingEnd::Opened { had_to_queue: grant.had_to_queue });
        let lease = grant.opening.lease.into();
        let (lost, is_recalled) = (grant.lost, grant.is_recalled);
        self.open(request, grant, settlement);
        match lost {
            Some(why) => self.lost(lease, why),
            None if is_recalled => self.recalled(lease),
            None => {}
        }
    }

    fn is_settled(&mut self, request: RequestId) {
        self.settling.retain(|settling| *settling != request);
        let Some(waiter) = self.acquires.get_mut(&request) else { return };
        let outcome = match waiter.settling.take() {
            None => return, // it was told otherwise
            Some(SettlingEnd::Opened { had_to_queue }) => Ok(LeaseGranted { had_to_queue }),
            Some(SettlingEnd::Failed(error)) => Err(error),
            Some(SettlingEnd::Granted(_)) => {
                self.client.cancel(request, clock::now());
                let text = "what was granted could not be written down in the lock directory, which is a bug \
                            in tierlock; report what was printed";
                Err(LockError::new(LockErrorKind::Io, text).with_scope(Scope::Host))
            }
        };
        waiter.finish(outcome, &mut self.aftermath);
    }
}

impl NewGrant {
    fn is_of(&self, lease: LeaseId) -> bool {
        LeaseId::from(self.opening.lease) == lease
    }
}
