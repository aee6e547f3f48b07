//! Requests under way, to be waited for or polled.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread::{self},
    time::Duration,
};

use super::{Lent, Link, LinkState, QueryAnswer, aftermath::Wake, waiter::AnswerWaiter};
use crate::{
    clock,
    error::LockError,
    host::service::{LeaseGranted, PendingLease},
    proto::{LeaseId, RequestId, numbered::Numbered},
    scope::Scope,
    time::Time,
};

/// An acquire under way: wait for it, or poll it.
///
/// Dropping it takes the request back, and a grant that is or comes in is handed straight back.
#[must_use = "an acquire that is dropped is taken back"]
pub(crate) struct Acquiring(pub(super) Waiting<RequestId>);

impl Acquiring {
    /// Blocks the calling thread. Works in and outside any async runtime.
    pub(crate) fn wait(mut self) -> Result<LeaseGranted, LockError> {
        self.0.wait()
    }
}

impl Future for Acquiring {
    type Output = Result<LeaseGranted, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl PendingLease for Acquiring {
    fn number(&self) -> Option<u64> {
        self.0.asked.as_ref().map(|(_, request)| request.0)
    }

    fn wait(self: Box<Self>) -> Result<LeaseGranted, LockError> {
        Acquiring::wait(*self)
    }
}

/// A release under way. Dropping it does not take it back.
#[must_use = "only its answer tells whether the lease was still good"]
pub(crate) struct Releasing(pub(super) Waiting<LeaseId>);

impl Future for Releasing {
    type Output = Result<(), LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

/// A query under way.
#[must_use = "only its answer tells anything"]
pub(super) struct Asking(pub(super) Waiting<QueryId>);

impl Asking {
    pub(super) fn wait(mut self) -> Result<QueryAnswer, LockError> {
        self.0.wait()
    }
}

impl Future for Asking {
    type Output = Result<QueryAnswer, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

/// A query that is answered by yes or no.
#[must_use = "only its answer tells anything"]
pub(crate) struct Questioning(pub(super) Asking);

impl Questioning {
    /// Blocks the calling thread. Works in and outside any async runtime.
    pub(crate) fn wait(self) -> Result<bool, LockError> {
        self.0.wait().map(QueryAnswer::yes)
    }
}

impl Future for Questioning {
    type Output = Result<bool, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(QueryAnswer::yes)
    }
}

impl QueryAnswer {
    fn yes(self) -> bool {
        match self {
            QueryAnswer::Checked { good: yes } | QueryAnswer::Broke { found: yes } => yes,
            QueryAnswer::Listed { .. } => unreachable!("it was asked for yes or no"),
        }
    }
}

/// The one state machine behind the futures above.
pub(super) struct Waiting<K: Awaited> {
    /// What waits at the link; `None` once its outcome was read, or if it never got there.
    pub(super) asked: Option<(Arc<Link>, K)>,
    carried: bool,
    pub(super) lent: Option<Lent>,
    pub(super) failed: Option<LockError>,
}

/// What can be waited for: where its waiter stands, and what to do if it is not wanted any more.
pub(super) trait Awaited: Copy + Eq + std::hash::Hash + Unpin {
    type Output;
    fn waiters(state: &mut LinkState) -> &mut Numbered<Self, AnswerWaiter<Self::Output>>;
    /// Its waiter is gone.
    fn give_up(self, waiter: &mut AnswerWaiter<Self::Output>, state: &mut LinkState) {
        let _ = (waiter, state);
    }
}

/// Acquires.
impl Awaited for RequestId {
    type Output = LeaseGranted;

    fn waiters(state: &mut LinkState) -> &mut Numbered<RequestId, AnswerWaiter<LeaseGranted>> {
        &mut state.acquires
    }

    fn give_up(self, waiter: &mut AnswerWaiter<LeaseGranted>, state: &mut LinkState) {
        // Taken out of the table under its lock, and settled by that; what may block is the caller's own to
        // wait for, once it has unlocked.
        waiter.opens.take_if(|opens| !opens.settlement.may_block(None));
        match waiter.granted.take() {
            None => state.client.cancel(self, clock::now()),
            // The grant is here: what is still reserved is given up.
            Some((lease, word)) if word.is_of(lease.into()) => {
                if let Some(used) = word.give_up_reserved() {
                    state.give_back_closed(lease, word, used);
                }
            }
            Some(_) => {}
        }
    }
}

/// Releases; one that was asked for goes on without its waiter.
impl Awaited for LeaseId {
    type Output = ();

    fn waiters(state: &mut LinkState) -> &mut Numbered<LeaseId, AnswerWaiter<()>> {
        &mut state.releases
    }
}

/// The number of a query, which is no acquire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct QueryId(pub(super) RequestId);

/// Queries; an answer that no caller waits for is ignored.
impl Awaited for QueryId {
    type Output = QueryAnswer;

    fn waiters(state: &mut LinkState) -> &mut Numbered<QueryId, AnswerWaiter<QueryAnswer>> {
        &mut state.queries
    }
}

impl<K: Awaited> Waiting<K> {
    /// Blocks until the outcome is here.
    pub(super) fn wait(&mut self) -> Result<K::Output, LockError> {
        self.wait_until(Time::NEVER).expect("it waits for ever")
    }

    /// The same, at most until then: `None` if it is not here by that time.
    pub(super) fn wait_until(&mut self, until: Time) -> Option<Result<K::Output, LockError>> {
        /// No caller waits longer for a driver that is gone, however that came about.
        const LONGEST_SLEEP: Duration = Duration::from_millis(100);
        if let Some(error) = self.is_inherited() {
            return Some(Err(error));
        }
        loop {
            if let Some(outcome) = self.fetch(Wake::Thread(thread::current())) {
                return Some(outcome);
            }
            if self.carry_once(|link, key| link.drive.carry(&|| link.has_outcome(key))) {
                continue;
            }
            if let Some(error) = self.abandoned() {
                // It may have been answered just before.
                return Some(self.fetch(Wake::Nothing).unwrap_or(Err(error)));
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left.min(LONGEST_SLEEP));
        }
    }

    /// Why it is none of this process's, a forked child's, if so. The child neither locks nor drops what it
    /// has inherited: a thread of its parent may have had that locked, or half changed.
    fn is_inherited(&mut self) -> Option<LockError> {
        let (link, _) = self.asked.as_ref()?;
        let error = link.check_fork().err()?;
        mem::forget(self.asked.take());
        Some(error.with_scope(Scope::Host))
    }

    fn abandoned(&self) -> Option<LockError> {
        let (link, _) = self.asked.as_ref()?;
        if link.state.lock().is_leaving {
            return None;
        }
        link.drive.attend().err().map(|error| error.with_scope(Scope::Host))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<K::Output, LockError>> {
        if let Some(error) = self.is_inherited() {
            return Poll::Ready(Err(error));
        }
        // Before a waker is left: no thread need wake a task that has its answer by then.
        let mut lent = None;
        let carry = |link: &Link, key| {
            lent = link.drive.carry_for_task(&|| link.has_outcome(key));
        };
        let is_carried = self.carry_once(carry);
        self.lent = self.lent.or(lent);
        if let Some(outcome) = self.fetch(Wake::Task(cx.waker().clone())) {
            return Poll::Ready(outcome);
        }
        if is_carried && let Some(error) = self.abandoned() {
            // It may have been answered just before.
            return Poll::Ready(self.fetch(Wake::Nothing).unwrap_or(Err(error)));
        }
        Poll::Pending
    }

    /// The outcome, if it is here; else `wake` is used once it is.
    fn fetch(&mut self, wake: Wake) -> Option<Result<K::Output, LockError>> {
        let Some((link, key)) = &self.asked else {
            return Some(Err(self.failed.take().expect("not polled after its end")));
        };
        let mut state = link.state.lock();
        let waiters = K::waiters(&mut state);
        let waiter = waiters.get_mut(key).expect("a waiter stays until its outcome is read");
        if waiter.outcome.is_none() {
            let earlier = mem::replace(&mut waiter.wake, wake);
            drop(state);
            // A waker is foreign code: it may be its task's last, and that task may own a lock.
            drop(earlier);
            return None;
        }
        let waiter = waiters.remove(key);
        drop(state);
        if let (Some((link, _)), Some(lent)) = (self.asked.take(), self.lent.take()) {
            link.drive.answered(lent);
        }
        waiter.and_then(|waiter| waiter.outcome)
    }

    /// Has the request carried, the first time; whether it was.
    fn carry_once(&mut self, carry: impl FnOnce(&Link, K)) -> bool {
        match &self.asked {
            Some((link, key)) if !self.carried => {
                self.carried = true;
                carry(link, *key);
                true
            }
            _ => false,
        }
    }

    pub(super) fn new(link: &Arc<Link>, key: K) -> Waiting<K> {
        Waiting { asked: Some((link.clone(), key)), carried: false, lent: None, failed: None }
    }

    pub(super) fn failed(error: LockError) -> Waiting<K> {
        Waiting { asked: None, carried: true, lent: None, failed: Some(error) }
    }
}

impl<K: Awaited> Drop for Waiting<K> {
    fn drop(&mut self) {
        let Some((link, key)) = &self.asked else { return };
        if link.forked() {
            return;
        }
        let mut state = link.state.lock();
        // What is removed is dropped once the state is unlocked: it may own foreign code.
        let mut waiter = K::waiters(&mut state).remove(key);
        if let Some(waiter) = &mut waiter {
            state.unanswered -= usize::from(waiter.outcome.is_none());
            key.give_up(waiter, &mut state);
        }
        link.settle(state);
        link.drive.wake_for_release(true);
        drop(waiter);
    }
}

impl Link {
    fn has_outcome<K: Awaited>(&self, key: K) -> bool {
        let mut state = self.state.lock();
        K::waiters(&mut state).get(&key).is_none_or(|waiter| waiter.outcome.is_some())
    }
}
