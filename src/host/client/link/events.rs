//! What the protocol client tells, handed to the callers and leases that it is of.

use std::{mem, sync::Arc, time::Duration};

use super::{
    LinkState, QueryAnswer,
    aftermath::Aftermath,
    errors::{error_of, warning},
    settling::{NewGrant, SettlingEnd},
    waiter::Opens,
    waiting::QueryId,
};
use crate::{
    clock,
    error::{LockError, LostReason, Predecessor},
    host::{
        lease_word::{LeaseKey, LeaseWord, Met, Opening, Used},
        service::{LeaseGranted, Settlement},
    },
    name::Name,
    proto::{
        LeaseId, RequestId,
        client::{Event, RequestFailure},
    },
    scope::Scope,
    time::Time,
    token::Token,
    watch::Watch,
};

pub(super) struct LinkLease {
    pub(super) name: Name,
    /// It is open with this lease, or was until a guard left it for good that has yet to give the
    /// lease back. Then it may be open with another.
    pub(super) word: Arc<LeaseWord>,
    /// Another session had it when it was asked for, or a process of the directory before: more may
    /// wait.
    pub(super) is_wanted_by_others: bool,
}

impl LinkLease {
    /// The word, if it is open with this lease.
    pub(super) fn open_word(&self, lease: LeaseId) -> Option<&Arc<LeaseWord>> {
        self.word.is_of(lease.into()).then_some(&self.word)
    }

    pub(super) fn lose(&self, lease: LeaseId, why: LostReason) -> Losing {
        let Some(word) = self.open_word(lease) else { return Losing::Unwatched { is_new: false } };
        match word.lose(why) {
            Met::Idle(used) => Losing::Idle(word.clone(), used),
            Met::InUse { is_watched: true, is_lost } => match word.watched() {
                // Its guard is leaving, and has the watch in hand.
                watches if watches.is_empty() => Losing::Unwatched { is_new: !is_lost },
                watches => Losing::Watched(watches),
            },
            Met::InUse { is_lost, .. } => Losing::Unwatched { is_new: !is_lost },
            Met::Reserved | Met::Closed => Losing::Unwatched { is_new: false },
        }
    }
}

/// What the loss of a lease meets.
pub(super) enum Losing {
    /// A guard that is told by this watch, or several readers, each by its own.
    Watched(Vec<Arc<Watch>>),
    /// A guard that asks for itself, or that has left for good just now. It is told by nothing else.
    Unwatched {
        #[cfg_attr(
            not(feature = "testing"),
            expect(dead_code, reason = "only a loss that a test provokes is answered")
        )]
        is_new: bool,
    },
    /// No guard, and none follows: the word is closed.
    Idle(Arc<LeaseWord>, Used),
}

impl From<LeaseId> for LeaseKey {
    fn from(lease: LeaseId) -> LeaseKey {
        LeaseKey { high: lease.epoch.into(), low: lease.count }
    }
}

impl From<LeaseKey> for LeaseId {
    fn from(lease: LeaseKey) -> LeaseId {
        let epoch = lease.high.try_into().expect("it was an epoch");
        LeaseId { epoch, count: lease.low }
    }
}

impl LinkState {
    pub(super) fn drain(&mut self) {
        while let Some(event) = self.client.take_event() {
            self.distribute(event);
        }
        self.give_up_releases();
        self.unanswered -= mem::take(&mut self.aftermath.answered);
    }

    /// What is to be done once the state is unlocked, if there is anything.
    pub(super) fn take_aftermath(&mut self) -> Option<Aftermath> {
        let is_any = !self.aftermath.is_empty();
        is_any.then(|| mem::take(&mut self.aftermath))
    }

    /// Tells the callers of releases that no leader answered in time. The driver looks in at least
    /// every 100 ms.
    fn give_up_releases(&mut self) {
        while let Some((limit, lease)) = self.release_limits.front() {
            if let Some(waiter) = self.releases.get_mut(lease)
                && waiter.outcome.is_none()
            {
                if clock::now() < *limit {
                    return;
                }
                waiter.leave_unanswered(&mut self.aftermath);
            }
            self.release_limits.pop_front();
        }
    }

    fn distribute(&mut self, event: Event) {
        match event {
            Event::Queued { request, .. } => {
                if let Some(waiter) = self.acquires.get_mut(&request) {
                    waiter.is_queued = true;
                    waiter.expecting = None;
                }
            }
            Event::Granted { request, lease, first, last, predecessor, at_most } => {
                self.granted(request, lease, (first, last), predecessor, at_most);
            }
            Event::Failed { failure: RequestFailure::Closed, .. }
            | Event::QueryFailed { failure: RequestFailure::Closed, .. }
                if self.is_leaving => {}
            Event::Failed { request, failure, holder } => {
                let Some(waiter) = self.acquires.get(&request) else { return };
                let error = waiter.error(failure, holder);
                self.fail(request, error);
            }
            Event::Released { lease } => {
                if let Some(waiter) = self.releases.get_mut(&lease) {
                    waiter.finish(Ok(()), &mut self.aftermath);
                }
            }
            Event::LeaseLost { lease, why } => self.lost(lease, why),
            Event::Recalled { lease } => self.recalled(lease),
            Event::ToppedUp { lease, last } => {
                if let Some(word) = self.open_word(lease) {
                    word.extend(last);
                }
            }
            Event::AtRisk { deadline, held, trouble } => {
                if let Some(warn) = &self.on_warning {
                    let text = warning(deadline.since(clock::now()), held, &trouble);
                    self.aftermath.warnings.push((warn.clone(), text));
                }
            }
            Event::DeadlineMoved { deadline } => {
                // Whatever ended at the old deadline is marked by now: `LeaseLost` came first.
                self.deadline.set(deadline);
            }
            Event::Listed { query, locks, more } => {
                self.answer(query, QueryAnswer::Listed { locks, more });
            }
            Event::Checked { query, good } => self.answer(query, QueryAnswer::Checked { good }),
            Event::Broke { query, found } => self.answer(query, QueryAnswer::Broke { found }),
            Event::Leads { query, leader } => self.leads(query, leader),
            Event::Converted { request, lease, token } => self.converted(request, lease, token),
            Event::NotConverted { request, lease, why } => {
                self.not_converted(request, lease, RequestFailure::Refused { why });
            }
            Event::QueryFailed { query, failure } => {
                let Some(failure) = self.observation_failed(query, failure) else { return };
                let Some(waiter) = self.queries.get_mut(&QueryId(query)) else { return };
                let error = waiter.error(failure, None);
                waiter.finish(Err(error), &mut self.aftermath);
            }
            Event::Saw { seen } => {
                self.aftermath.saw = self.remember.clone().map(|remember| (remember, seen));
            }
            Event::Closed => {
                self.closed = true;
                if !self.is_leaving {
                    // No driver looks after these any more.
                    let unanswered = self.releases.values_mut();
                    unanswered.for_each(|waiter| waiter.leave_unanswered(&mut self.aftermath));
                }
            }
        }
    }

    /// Opens the word that the lease was asked for, and tells the caller.
    fn granted(
        &mut self,
        request: RequestId,
        lease: LeaseId,
        (first, last): (Token, Token),
        predecessor: Predecessor,
        at_most: Option<Time>,
    ) {
        let Some(waiter) = self.acquires.get_mut(&request) else {
            return self.client.cancel(request, clock::now()); // its caller is gone
        };
        let opens = waiter.opens.as_ref().expect("a request is granted once");
        if opens.word.is_retired() {
            // Its future was leaked, and what it was for is gone.
            self.client.cancel(request, clock::now());
            return self.fail(request, error_of(RequestFailure::Closed, Duration::ZERO));
        }
        let Opens { word, keep, mode, lapses, has_moved, mut settlement } =
            waiter.opens.take().expect("it was there just now");
        let is_shared = mode.is_shared();
        let had_to_queue = waiter.is_queued;
        // Those that share a lease bear one token.
        let keeps = keep && (first < last || is_shared);
        let opening =
            Opening { lease: lease.into(), first, last, predecessor, at_most, keeps, is_shared };
        let (lost, is_recalled) = (None, false);
        let grant = NewGrant { word, opening, had_to_queue, lapses, has_moved, lost, is_recalled };
        if settlement.may_block(Some(last)) {
            return self.settle_later(request, SettlingEnd::Granted(grant), settlement);
        }
        settlement.raise(last);
        self.open(request, grant, &mut settlement);
        drop(settlement);
        let waiter = self.acquires.get_mut(&request).expect("it waits");
        waiter.finish(Ok(LeaseGranted { had_to_queue }), &mut self.aftermath);
    }

    /// Opens the word of a grant, whose settlement has raised the token.
    pub(super) fn open(
        &mut self,
        request: RequestId,
        grant: NewGrant,
        settlement: &mut Settlement,
    ) {
        let NewGrant { word, opening, had_to_queue, lapses, has_moved, .. } = grant;
        let lease = opening.lease.into();
        settlement.open(&word, opening);
        if opening.keeps {
            self.aftermath.opened.push(lease);
        }
        if lapses {
            self.aftermath.unclaimed.push(lease);
        }
        self.aftermath.waiters.extend(word.take_waiter());
        let waiter = self.acquires.get_mut(&request).expect("it waits");
        let name = waiter.name.clone().expect("an acquire has a name");
        let is_wanted_by_others = had_to_queue || has_moved;
        waiter.granted = Some((lease, word.clone()));
        self.leases.insert(lease, LinkLease { name, word, is_wanted_by_others });
    }

    /// The request has failed: its caller is told, once it is settled.
    pub(super) fn fail(&mut self, request: RequestId, error: LockError) {
        let Some(waiter) = self.acquires.get_mut(&request) else { return };
        match waiter.opens.take_if(|opens| opens.settlement.may_block(None)) {
            Some(Opens { settlement, .. }) => {
                self.settle_later(request, SettlingEnd::Failed(error), settlement);
            }
            None => waiter.finish(Err(error), &mut self.aftermath),
        }
    }

    /// The lease has ended: its guards are told, or its word is closed.
    pub(super) fn lost(&mut self, lease: LeaseId, why: LostReason) {
        if let Some(grant) = self.settling_grant(lease) {
            grant.lost.get_or_insert(why);
            return self.client.loss_is_told(lease); // there is no guard yet
        }
        self.end_upgrade(lease, why);
        if let Some(waiter) = self.releases.get_mut(&lease) {
            let error = LockError::lost(why).with_scope(Scope::Host);
            waiter.finish(Err(error), &mut self.aftermath);
        }
        match self.leases.get(&lease).map(|held| held.lose(lease, why)) {
            Some(Losing::Watched(watches)) => {
                self.aftermath.lose(lease, &watches, why);
            }
            Some(Losing::Idle(word, used)) => {
                self.leases.remove(&lease);
                self.aftermath.close(word, &used);
                self.client.loss_is_told(lease);
            }
            Some(Losing::Unwatched { .. }) | None => self.client.loss_is_told(lease),
        }
    }

    /// Others want the lease: it goes back, at once if no guard has it.
    pub(super) fn recalled(&mut self, lease: LeaseId) {
        if let Some(grant) = self.settling_grant(lease) {
            grant.is_recalled = true;
            return;
        }
        let Some(word) = self.open_word(lease) else {
            return; // on its way back
        };
        match word.recall() {
            Met::Idle(used) => self.give_back_closed(lease, word, used),
            Met::InUse { .. } | Met::Reserved => self.client.is_kept(lease, false),
            Met::Closed => {} // on its way back
        }
    }

    /// Gives a lease back after its word was closed with no guard in it.
    pub(super) fn give_back_closed(&mut self, lease: LeaseId, word: Arc<LeaseWord>, used: Used) {
        self.leases.remove(&lease);
        self.client.release(lease, used.last, used.how, clock::now());
        self.aftermath.close(word, &used);
    }

    /// The word that is open with this lease.
    pub(super) fn open_word(&self, lease: LeaseId) -> Option<Arc<LeaseWord>> {
        self.leases.get(&lease)?.open_word(lease).cloned()
    }

    pub(super) fn answer(&mut self, query: RequestId, answer: QueryAnswer) {
        if let Some(waiter) = self.queries.get_mut(&QueryId(query)) {
            waiter.finish(Ok(answer), &mut self.aftermath);
        }
    }
}
