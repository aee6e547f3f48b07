//! What an engine has to know.

use std::{future::Future, time::Duration};

pub(super) use crate::host::questions::EngineFinding;

use super::{fault::EngineFault, teller::LeaderTeller, wish::Wish};
use crate::{
    error::{Holder, Result},
    name::Name,
    time::Time,
    token::Token,
};

/// A lock service of another kind than our leaders: how its locks are taken, renewed and given up.
///
/// No future of these is dropped before it is ready: whatever a server may have done for a request
/// is seen to its end. A request that is not wanted any longer tells that by its [`Wish`].
pub(super) trait LockEngine: Send + Sync + Sized + 'static {
    /// What is held at the server: names it so exactly that no later holder is meant by it.
    type Hold: Clone + Send + Sync + 'static;

    /// What it can do.
    fn abilities(&self) -> EngineAbilities;

    /// The service in words, without secrets.
    fn shown(&self) -> String;

    /// How long its locks outlive a silence.
    fn time_to_live(&self) -> Duration;

    /// Waits for the lock. An error leaves nothing at the server, or what ends there by itself.
    fn acquire(&self, wish: &Wish) -> impl Future<Output = Result<EngineGrant<Self::Hold>>> + Send;

    /// Renews all that is held; one answer for each, in their order.
    fn renew(&self, holds: &[Self::Hold]) -> impl Future<Output = Vec<Renewal>> + Send;

    /// For each of these, which are shared or kept: whether another session waits for it to end. `None`:
    /// that cannot be told, and is to be asked again.
    fn are_wanted(&self, holds: &[Self::Hold]) -> impl Future<Output = Option<Vec<bool>>> + Send {
        std::future::ready(Some(vec![false; holds.len()]))
    }

    /// Whether a lease may stay after its guard: others can be heard to want it.
    fn keeps(&self) -> bool {
        false
    }

    /// The last token of a grant's block, which a lease that is kept goes through.
    fn block_end(&self, token: Token) -> Token {
        token
    }

    /// Ready when another session may want what is kept: [`are_wanted`](Self::are_wanted) tells. It may be
    /// dropped.
    fn wanted(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Tells the present leader of an election and then each change, for as long as it can; why it cannot
    /// any longer. It may be dropped, and is asked again after a [`EngineFault::Trouble`].
    fn observe(
        &self,
        name: &Name,
        tell: &LeaderTeller,
    ) -> impl Future<Output = EngineFault> + Send {
        let _ = (name, tell);
        let shown = self.shown();
        std::future::ready(EngineFault::config(format!("{shown} has no elections")))
    }

    /// Gives one up; whether it was still held. `is_unused`: nothing was done under it.
    fn release(
        &self,
        hold: &Self::Hold,
        is_unused: bool,
    ) -> impl Future<Output = Result<bool, EngineFault>> + Send;

    /// The locks that the server knows, or one.
    fn look(
        &self,
        only: Option<&Name>,
    ) -> impl Future<Output = Result<Vec<EngineLock>, EngineFault>> + Send;

    /// What an operator should know of the server.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program alone examines"))]
    fn examine(&self) -> impl Future<Output = Result<Vec<EngineFinding>, EngineFault>> + Send;

    /// Ready when something that is held may have ended: it is renewed at once, which tells. It may be
    /// dropped.
    fn heard(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Nothing is held any more, and nothing will be.
    fn part(&self) -> impl Future<Output = ()> + Send;

    /// Which locks these are, wherever they are reached from, as far as it is known yet.
    fn place(&self) -> Option<String>;

    /// The server's own way to take a lock away from its holder.
    fn break_advice(&self, name: &Name) -> String;
}

/// What an engine can do beyond excluding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EngineAbilities {
    /// Its grants have tokens that grow; else the manager has to say that it can do without.
    pub(super) has_tokens: bool,
    /// It remembers `at_least`.
    pub(super) reserves: bool,
    /// It takes a lock for a time that is said beforehand.
    pub(super) needs_at_most: bool,
    /// It grants locks that several sessions share.
    pub(super) shares: bool,
    /// A lock of it carries a value, which observers are told.
    pub(super) carries_values: bool,
}

/// A lock was granted.
#[derive(Debug)]
pub(super) struct EngineGrant<H> {
    pub(super) hold: H,
    pub(super) token: Token,
    /// When the request that it answers was sent.
    pub(super) sent: Time,
    /// Until when it is good without a further word.
    pub(super) deadline: Time,
    pub(super) had_to_queue: bool,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It is good until then.
    Until(Time),
    /// It is not held any more.
    Gone,
    /// There is no answer.
    Unknown,
}

/// One lock as its server knows it.
#[derive(Clone, Debug)]
pub(super) struct EngineLock {
    pub(crate) name: Name,
    pub(crate) token: Token,
    pub(crate) holder: Option<Holder>,
    /// It has no holder, and `at_least` keeps it taken.
    pub(crate) is_reserved: bool,
    pub(crate) remaining: Option<Duration>,
    /// The queue, where the server has one.
    pub(crate) waiters: Vec<Holder>,
}
