//! What is asked about locks that other callers hold. The answers come from whatever grants the leases, and
//! the questions are the same to all of it, in every build: without a service there is none to ask.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    blocking,
    error::{Holder, LockError, Predecessor, Result},
    mode::WaiterMode,
    name::Name,
    time::Time,
    token::Token,
};

/// Answers questions about the locks of a service. Each waits for an answer until its limit, and is
/// `Unreachable` then.
pub(crate) trait LockQuestions: Send + Sync {
    /// The locks that the service knows, or one.
    fn list(self: Arc<Self>, only: Option<&Name>, limit: Time) -> Box<dyn PendingList>;

    /// Whether this token is of the grant that the lock is held by.
    fn is_good(self: Arc<Self>, name: &Name, token: Token, limit: Time) -> Box<dyn PendingYes>;

    /// Why locks of this service are not broken from here, if they are not.
    fn why_unbroken(&self, name: &Name) -> Option<LockError> {
        let _ = name;
        None
    }

    /// Has the lock taken away from the holder of this token; whether it had that. Asked only where nothing
    /// [says why not](Self::why_unbroken).
    fn take_away(self: Arc<Self>, name: &Name, token: Token, limit: Time) -> Box<dyn PendingYes>;

    /// Which locks its service's are, wherever they are reached from, as far as it is known yet.
    #[cfg_attr(not(feature = "process"), expect(dead_code, reason = "directories alone ask it"))]
    fn place(&self) -> Option<String>;

    /// The same as a number: that of our own leaders' cluster is its id.
    #[cfg(feature = "cli")]
    fn cluster(&self) -> Option<u128>;

    /// One caller at a time uses this manager, which gives nothing back while it waits; and these locks are
    /// held, of this cluster, with this token, by this process, which waits for this one to end.
    #[cfg(feature = "cli")]
    fn is_used_by_one(&self, above: Vec<(u128, Name, Token, u32)>) {
        let _ = above;
    }

    /// What an operator should know of the service, if it is of another kind than our leaders.
    #[cfg(all(feature = "service", feature = "cli"))]
    fn examine(&self) -> Option<AnswerInTime<Vec<EngineFinding>>> {
        None
    }
}

/// An answer under way: wait for it, or poll it.
pub(crate) trait PendingAnswer<T>: Future<Output = Result<T>> + Send + Unpin {
    /// Blocks the calling thread. Works in and outside any async runtime.
    fn wait(self: Box<Self>) -> Result<T>;
}

/// An answer to [`list`](LockQuestions::list).
pub(crate) trait PendingList: PendingAnswer<Vec<ServedLock>> {}

impl<P: PendingAnswer<Vec<ServedLock>>> PendingList for P {}

/// An answer that is yes or no.
pub(crate) trait PendingYes: PendingAnswer<bool> {}

impl<P: PendingAnswer<bool>> PendingYes for P {}

/// An answer that other threads work on: to wait for it is to sleep.
#[cfg_attr(
    not(any(feature = "host", feature = "testing")),
    expect(dead_code, reason = "no service is there to answer")
)]
pub(crate) struct AnswerInTime<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T> AnswerInTime<T> {
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) fn new(answer: impl Future<Output = Result<T>> + Send + 'static) -> AnswerInTime<T> {
        AnswerInTime(Box::pin(answer))
    }
}

impl<T> Future for AnswerInTime<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> PendingAnswer<T> for AnswerInTime<T> {
    fn wait(self: Box<Self>) -> Result<T> {
        blocking::wait_for(*self)
    }
}

/// One lock as its service knows it.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "process", feature = "host", feature = "testing")),
    expect(dead_code, reason = "no service is there to tell it")
)]
pub(crate) struct ServedLock {
    pub(crate) name: Name,
    pub(crate) token: Token,
    /// The one that holds it exclusively, or as an upgradable reader.
    pub(crate) holder: Option<Holder>,
    /// Those that share it, and how many permits each of them has; a reader has one.
    pub(crate) sharers: Vec<(Holder, u32)>,
    /// Its lease is kept, and no guard is there.
    pub(crate) is_kept: bool,
    /// It has no holder, and `at_least` keeps it taken.
    pub(crate) is_reserved: bool,
    /// Of a semaphore.
    pub(crate) limit: Option<u32>,
    pub(crate) permits_taken: u32,
    pub(crate) remaining: Option<Duration>,
    pub(crate) predecessor: Predecessor,
    /// The queue, as far as it is told; each with its time there as the time that it `held`.
    pub(crate) waiters: Vec<ServedWaiter>,
}

/// A waiter as its service knows it.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "process", feature = "host", feature = "testing")),
    expect(dead_code, reason = "no service is there to tell it")
)]
pub(crate) struct ServedWaiter {
    pub(crate) waiter: Holder,
    pub(crate) mode: Option<WaiterMode>,
}

impl ServedLock {
    /// Of several holders the one that has been there the longest.
    pub(crate) fn first_holder(self) -> Option<Holder> {
        self.holder.or_else(|| self.sharers.into_iter().next().map(|(holder, _)| holder))
    }
}

/// What is to be said about a service.
#[cfg(feature = "service")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineFinding {
    pub(crate) kind: FindingKind,
    pub(crate) text: String,
}

/// How bad a finding is.
#[cfg(feature = "service")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FindingKind {
    Fine,
    Note,
    Trouble,
}

#[cfg(feature = "service")]
impl EngineFinding {
    pub(in crate::host) fn fine(text: impl Into<String>) -> EngineFinding {
        EngineFinding { kind: FindingKind::Fine, text: text.into() }
    }

    pub(in crate::host) fn note(text: impl Into<String>) -> EngineFinding {
        EngineFinding { kind: FindingKind::Note, text: text.into() }
    }

    pub(in crate::host) fn trouble(text: impl Into<String>) -> EngineFinding {
        EngineFinding { kind: FindingKind::Trouble, text: text.into() }
    }
}
