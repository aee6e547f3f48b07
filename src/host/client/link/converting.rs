//! Leases of guards that stand apart, which change their mode: see
//! [`ConvertsLeases`](crate::host::service::ConvertsLeases).

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Link, LinkState,
    errors::error_of,
    waiter::AnswerWaiter,
    waiting::{Awaited, Waiting},
};
use crate::{
    clock,
    error::{LockError, LostReason},
    host::{
        lease_word::LeaseWord,
        service::{ConvertsLeases, PendingUpgrade, ReaderMode},
    },
    proto::{LeaseId, RequestId, client::RequestFailure, numbered::Numbered, wire::Mode},
    scope::Scope,
    time::Time,
    token::Token,
};

/// An upgrade, and the lease that it is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UpgradeId {
    request: RequestId,
    lease: LeaseId,
}

/// Upgrades; one that is not waited for any more is given up, also where it has just been answered.
impl Awaited for UpgradeId {
    type Output = Token;

    fn waiters(state: &mut LinkState) -> &mut Numbered<UpgradeId, AnswerWaiter<Token>> {
        &mut state.upgrades
    }

    fn give_up(self, waiter: &mut AnswerWaiter<Token>, state: &mut LinkState) {
        if !matches!(waiter.outcome, Some(Err(_))) {
            let used = Token::ZERO; // of what it may have been granted by now
            state.client.downgrade(self.lease, Mode::Upgradable, used, clock::now());
        }
    }
}

struct Upgrading(Waiting<UpgradeId>);

impl Future for Upgrading {
    type Output = Result<Token, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl PendingUpgrade for Upgrading {
    fn wait_until(&mut self, until: Time) -> Option<Result<Token, LockError>> {
        self.0.wait_until(until)
    }
}

impl ConvertsLeases for Link {
    fn upgrade(self: Arc<Self>, word: &LeaseWord, tries: bool) -> Box<dyn PendingUpgrade> {
        if let Err(error) = self.ready() {
            return Box::new(Upgrading(Waiting::failed(error)));
        }
        let (now, lease) = (clock::now(), word.lease().into());
        let mut state = self.state.lock();
        let asked = state.client.upgrade(lease, tries, now);
        if let Some(request) = asked {
            let name = state.leases.get(&lease).map(|held| held.name.clone());
            state.upgrades.insert(UpgradeId { request, lease }, AnswerWaiter::new(name, now));
            state.unanswered += 1;
        }
        self.settle(state);
        Box::new(Upgrading(match asked {
            Some(request) => Waiting::new(&self, UpgradeId { request, lease }),
            None => {
                let why = word.lost().unwrap_or(LostReason::Expired);
                Waiting::failed(LockError::lost(why).with_scope(Scope::Host))
            }
        }))
    }

    fn downgrade(&self, word: &LeaseWord, to: ReaderMode, last_used: Token) {
        if self.forked() {
            return;
        }
        let mut state = self.state.lock();
        state.client.downgrade(word.lease().into(), to.into(), last_used, clock::now());
        self.settle(state);
        self.drive.wake_for_release(true);
    }

    fn set_apart(&self, word: &LeaseWord, to: ReaderMode, token: Token) -> Option<Arc<LeaseWord>> {
        if self.forked() {
            return None;
        }
        let apart = Arc::new(LeaseWord::of(self.deadline.clone(), self.made_in));
        let mut state = self.state.lock();
        let used = word.move_apart(token, &apart)?;
        let lease = used.lease.into();
        if let Some(held) = state.leases.get_mut(&lease) {
            held.word = apart.clone();
        }
        // If it ends just now, the guard finds that at the word that it has.
        state.client.downgrade(lease, to.into(), token, clock::now());
        state.aftermath.waiters.extend(word.take_waiter());
        self.settle(state);
        word.gone(&used);
        self.drive.wake_for_release(true);
        Some(apart)
    }
}

impl LinkState {
    /// A lease has another token, which an upgrade of it may wait for.
    pub(super) fn converted(&mut self, request: RequestId, lease: LeaseId, token: Token) {
        if let Some(word) = self.open_word(lease) {
            word.bear(token);
        }
        if let Some(waiter) = self.upgrades.get_mut(&UpgradeId { request, lease }) {
            waiter.finish(Ok(token), &mut self.aftermath);
        }
    }

    pub(super) fn not_converted(
        &mut self,
        request: RequestId,
        lease: LeaseId,
        failure: RequestFailure,
    ) {
        if let Some(waiter) = self.upgrades.get_mut(&UpgradeId { request, lease }) {
            let error = waiter.error(failure, None);
            waiter.finish(Err(error), &mut self.aftermath);
        }
    }

    /// The upgrade of a lease that is lost ends, if it waits for one.
    pub(super) fn end_upgrade(&mut self, lost: LeaseId, why: LostReason) {
        let LinkState { upgrades, aftermath, .. } = self;
        for (_, waiter) in upgrades.iter_mut().filter(|(upgrade, _)| upgrade.lease == lost) {
            waiter.finish(Err(LockError::lost(why).with_scope(Scope::Host)), aftermath);
        }
    }

    /// All upgrades end: the manager is closed. Those that were asked for are given up: their guards stay,
    /// and others read beside them.
    pub(super) fn close_upgrades(&mut self) {
        let now = clock::now();
        let LinkState { upgrades, aftermath, client, .. } = self;
        for (upgrade, waiter) in upgrades.iter_mut().filter(|(_, waiter)| waiter.outcome.is_none())
        {
            let error = error_of(RequestFailure::Closed, now.since(waiter.since));
            waiter.finish(Err(error.with_scope(Scope::Host)), aftermath);
            client.downgrade(upgrade.lease, Mode::Upgradable, Token::ZERO, now);
        }
    }
}

impl From<ReaderMode> for Mode {
    fn from(mode: ReaderMode) -> Mode {
        match mode {
            ReaderMode::Upgradable => Mode::Upgradable,
            ReaderMode::Shared => Mode::Shared,
        }
    }
}
