//! Callers that wait for an answer of the leader's, and how each is woken.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    aftermath::{Aftermath, Wake},
    errors::{UNANSWERED, error_of, holder_of, usage_of},
    settling::{SettleJob, SettlingEnd},
};
use crate::{
    clock,
    error::{LockError, LockErrorKind},
    host::{
        lease_word::LeaseWord,
        service::{LeaseMode, Settlement},
    },
    mode::too_few_permits,
    name::Name,
    proto::{
        LeaseId,
        client::RequestFailure,
        wire::{HolderInfo, Refusal},
    },
    scope::Scope,
    time::Time,
};

/// A caller that waits for an answer. Its outcome stays here until it is fetched.
pub(super) struct AnswerWaiter<T> {
    pub(super) name: Option<Name>,
    /// What a grant opens.
    pub(super) opens: Option<Opens>,
    /// It has ended, and is being settled.
    pub(super) settling: Option<SettlingEnd>,
    pub(super) since: Time,
    pub(super) is_queued: bool,
    /// Until it is answered or queued.
    pub(super) expecting: Option<Expecting>,
    pub(super) outcome: Option<Result<T, LockError>>,
    /// The lease that was granted, and the word that it opened.
    pub(super) granted: Option<(LeaseId, Arc<LeaseWord>)>,
    pub(super) wake: Wake,
}

/// What a grant opens, and settles.
pub(super) struct Opens {
    pub(super) word: Arc<LeaseWord>,
    pub(super) keep: bool,
    pub(super) mode: LeaseMode,
    /// As [`LeaseRequest::lapses`].
    pub(super) lapses: bool,
    /// As [`LeaseRequest::has_moved`].
    pub(super) has_moved: bool,
    pub(super) settlement: Settlement,
}

/// One answer that a caller of this process waits for and that is on its way: not behind another
/// holder.
pub(super) struct Expecting;

/// All of them, of all links. A forked child starts with its parent's, and is the less eager to look
/// for answers before it sleeps.
static EXPECTING: AtomicUsize = AtomicUsize::new(0);

impl Expecting {
    fn begin() -> Option<Expecting> {
        EXPECTING.fetch_add(1, Relaxed);
        Some(Expecting)
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        EXPECTING.fetch_sub(1, Relaxed);
    }
}

/// How many answers this whole process waits for that are on their way.
#[cfg(feature = "host")]
pub(in crate::host) fn expecting() -> usize {
    EXPECTING.load(Relaxed)
}

impl<T> AnswerWaiter<T> {
    pub(super) fn new(name: Option<Name>, since: Time) -> AnswerWaiter<T> {
        AnswerWaiter {
            name,
            opens: None,
            settling: None,
            since,
            is_queued: false,
            expecting: Expecting::begin(),
            outcome: None,
            granted: None,
            wake: Wake::Nothing,
        }
    }

    /// The first outcome counts.
    pub(super) fn finish(&mut self, outcome: Result<T, LockError>, aftermath: &mut Aftermath) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(outcome);
        self.expecting = None;
        self.settling = None;
        // What was not granted is settled here, unless it may block.
        if let Some(Opens { settlement, .. }) = self.opens.take()
            && settlement.may_block(None)
        {
            let (request, raises_to) = (None, None);
            aftermath.to_settle.push(SettleJob { request, raises_to, settlement });
        }
        aftermath.answered += 1;
        match mem::replace(&mut self.wake, Wake::Nothing) {
            Wake::Nothing => {}
            wake => aftermath.wakes.push(wake),
        }
    }

    #[cfg(feature = "host")]
    pub(super) fn abandon(&mut self, why: &impl Fn() -> LockError, aftermath: &mut Aftermath) {
        let error = why().with_scope(Scope::Host);
        let error = match &self.name {
            Some(name) => error.with_name(name),
            None => error,
        };
        self.finish(Err(error), aftermath);
    }

    pub(super) fn error(&self, failure: RequestFailure, holder: Option<HolderInfo>) -> LockError {
        let waited = clock::now().since(self.since);
        let is_answered = !matches!(failure, RequestFailure::Unanswered(_));
        let error = match (failure, self.opens.as_ref().map(|opens| opens.mode)) {
            (RequestFailure::Refused { why: Refusal::UsedAs(in_force) }, Some(mode)) => {
                LockError::config(usage_of(in_force).refusal(mode.usage()))
            }
            (
                RequestFailure::Refused { why: Refusal::TimedOut },
                Some(LeaseMode::Permits { count, limit }),
            ) => LockError::new(LockErrorKind::TimedOut, too_few_permits(count, limit))
                .with_waited(waited),
            (failure, _) => error_of(failure, waited),
        };
        let error = error.with_scope(Scope::Host);
        // Without a name it may be free: the leader waited for others to report, or did not answer.
        let error = match holder {
            None if error.kind() == LockErrorKind::TimedOut => error.without_holder(is_answered),
            holder => {
                // A try waits behind none.
                let is_timeout = error.is_timeout();
                let ahead = holder.as_ref().filter(|_| is_timeout).and_then(|holder| holder.ahead);
                let error = error.with_holder(holder.map(holder_of));
                error.with_waiters_ahead(ahead.map(|ahead| ahead as usize))
            }
        };
        match &self.name {
            Some(name) => error.with_name(name),
            None => error,
        }
    }
}

impl AnswerWaiter<()> {
    /// No answer to this release came, and none is waited for any longer.
    pub(super) fn leave_unanswered(&mut self, aftermath: &mut Aftermath) {
        let error = LockError::new(LockErrorKind::Unreachable, UNANSWERED);
        let error = error.with_waited(clock::now().since(self.since)).with_scope(Scope::Host);
        self.finish(Err(error), aftermath);
    }
}
