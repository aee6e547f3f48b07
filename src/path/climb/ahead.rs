//! A climb that only tries, and leaves its question to a service unanswered for a while: so that
//! several locks are asked for at once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{Ask, Climb, Seated};
use crate::{
    error::{LockError, Result},
    host::service::{LeaseGranted, PendingLease},
    path::{LockMode, Patience, named::Named, right::Held},
    scope::Scope,
    time::Time,
};

/// How far a climb came without waiting.
pub(in crate::path) enum AheadClimb<'a> {
    Arrived(Held),
    /// It has asked for a lease, and waits for the answer.
    Asked(Box<AskedClimb<'a>>),
}

/// A climb that has asked a service. Dropped, it gives everything back.
pub(in crate::path) struct AskedClimb<'a> {
    // Dropped first: a grant that is not claimed goes back.
    request: AskedRequest<'a>,
    climb: Climb<'a>,
}

enum AskedRequest<'a> {
    OfThread(Box<dyn PendingLease>),
    OfTask(Seated<'a, Box<dyn PendingLease>>, TaskAnswer),
}

/// What has come of a task's question.
enum TaskAnswer {
    /// It waits.
    NotYet,
    /// Its turn has lapsed.
    Lapsed,
    Here(Result<LeaseGranted>),
}

impl<'a> Climb<'a> {
    /// Comes as far as it can without waiting. What it asks of a service is granted only if the
    /// request `after` was granted before.
    pub(in crate::path) fn ahead(
        named: &'a Named,
        mode: LockMode,
        after: Option<u64>,
        until: Option<Time>,
        is_task: bool,
    ) -> Result<AheadClimb<'a>> {
        let mut climb = Climb::new(named, Patience::No, Scope::Thread, mode);
        (climb.after, climb.answer_by, climb.is_task) = (after, until, is_task);
        let request = match climb.next()? {
            Ask::Nothing => return Ok(AheadClimb::Arrived(climb.arrive())),
            Ask::Lease(request) => request,
            _ => return Err(LockError::WOULD_BLOCK),
        };
        let request = match is_task {
            false => AskedRequest::OfThread(request),
            true => {
                let seat = climb.sit_down();
                AskedRequest::OfTask(Seated::new(&named.entry, seat, request), TaskAnswer::NotYet)
            }
        };
        Ok(AheadClimb::Asked(Box::new(AskedClimb { request, climb })))
    }
}

impl AskedClimb<'_> {
    /// What its service calls the request, if others can come after it.
    pub(in crate::path) fn number(&self) -> Option<u64> {
        match &self.request {
            AskedRequest::OfThread(request) => request.number(),
            AskedRequest::OfTask(seated, _) => seated.wait.number(),
        }
    }

    /// Blocks until it is answered, and goes on as a try.
    pub(in crate::path) fn run(self) -> Result<Held> {
        let AskedClimb { mut climb, request } = self;
        let AskedRequest::OfThread(request) = request else { unreachable!("it was a thread's") };
        climb.answered(request.wait())?;
        climb.run()
    }

    /// Whether the answer for a task is here, or its turn has lapsed.
    pub(in crate::path) fn is_answered(&mut self, cx: &mut Context<'_>) -> bool {
        let AskedRequest::OfTask(seated, answer) = &mut self.request else {
            unreachable!("it was a task's")
        };
        if let TaskAnswer::NotYet = answer
            && let Poll::Ready(found) = Pin::new(seated).poll(cx)
        {
            *answer = found.map_or(TaskAnswer::Lapsed, TaskAnswer::Here);
        }
        !matches!(answer, TaskAnswer::NotYet)
    }

    /// Goes on as a try, once it is answered.
    pub(in crate::path) async fn finish(self) -> Result<Held> {
        let AskedClimb { mut climb, request } = self;
        let AskedRequest::OfTask(seated, answer) = request else { unreachable!("it was a task's") };
        drop(seated);
        match answer {
            TaskAnswer::Here(granted) => climb.answered(granted)?,
            TaskAnswer::Lapsed => return Err(LockError::WOULD_BLOCK),
            TaskAnswer::NotYet => unreachable!("it is answered"),
        }
        climb.run_async().await
    }
}
