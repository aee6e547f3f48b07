//! The seam between the ladder and host scope: a service is whatever grants leases.
//!
//! What climbs the ladder asks a service for a lease and hears whether it was granted. Everything
//! else goes through the [lease word](super::lease_word) of the name: the service opens it with a
//! grant, and tells recalls and losses by changing it. No frame, no protocol and no address passes
//! here. A build without host scope has this interface, and the world in memory of the feature
//! `testing` as its only implementation: any other manager has no service there, as one that was given
//! no leader.

mod converting;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

#[cfg(any(feature = "host", feature = "testing"))]
pub(crate) use self::converting::PendingUpgrade;
pub(crate) use self::converting::{ConvertsLeases, ReaderMode};
#[cfg(any(feature = "host", feature = "testing", test))]
use super::lease_word::Opening;
use super::lease_word::{LeaseWord, Used};
use crate::{
    elected::ElectedLeader,
    error::{Holder, LockError, Result},
    name::Name,
    time::Time,
    token::Token,
    watch::Deadline,
};

#[cfg(any(feature = "host", feature = "testing", test))]
use crate::mode::Usage;

/// Grants leases, and tells what becomes of them.
///
/// # What an implementation keeps to
///
/// It has one lock of its own, under which it
///
/// - takes a request out of its table, and by that its [`Settlement`]: at the grant, at a failure,
///   when the request is dropped. So each is settled once;
/// - opens a word, by [`Settlement::grant`], recalls it, loses it, closes it while it is idle. It
///   changes a word for a lease only while the word [is of](LeaseWord::is_of) that lease: what a
///   guard closed may be open with the next one before the guard has given the first back.
///
/// Wakers and callbacks run once that lock is free, wakers of closed words among them
/// ([`LeaseWord::take_waiter`]). A grant that crosses the end of its request is given back by the
/// service. What ended at the session's deadline is lost before the deadline moves.
pub(crate) trait LeaseService: Send + Sync {
    /// Asks for a lease; touches no network by itself and never blocks. The request is carried once
    /// it is waited for or polled. The word of the request is closed, and stays so until the grant.
    fn ask(self: Arc<Self>, request: LeaseRequest) -> Box<dyn PendingLease>;

    /// Whether it grants [shared](LeaseMode::Shared) leases.
    fn shares(&self) -> bool {
        false
    }

    /// What changes the mode of its leases, if it grants [upgradable](LeaseMode::Upgradable) ones.
    fn conversions(self: Arc<Self>) -> Option<Arc<dyn ConvertsLeases>> {
        None
    }

    /// Whether it grants [permits](LeaseMode::Permits).
    fn counts(&self) -> bool {
        false
    }

    /// Whether a lease [carries a value](LeaseRequest::value), which observers are told.
    fn carries_values(&self) -> bool {
        false
    }

    /// Tells which holder of the name leads, as far as holders say values: the present one first. Touches
    /// no network by itself and never blocks.
    fn observe(self: Arc<Self>, name: &Name) -> Result<Box<dyn LeaderNews>> {
        let _ = name;
        Err(LockError::config(
            "this manager's lock service has no elections: use etcd, ZooKeeper or tierlock's own leaders",
        ))
    }

    /// Of the permits of a word's lease so many are left. Never blocks, never fails.
    fn lower(&self, word: &LeaseWord, left: u32) {
        let _ = (word, left);
    }

    /// Takes back the lease of a word that was closed. Never blocks, never fails.
    fn give_back(&self, word: &LeaseWord, used: &Used);

    /// The same, with an answer: `Lost` if the lease was over before, `Unreachable` if there is none
    /// in time.
    fn give_back_answered(self: Arc<Self>, word: &LeaseWord, used: &Used) -> PendingRelease;

    /// Closes a word that is idle, under the service's lock. What it returns is to be given back.
    fn close_idle(&self, word: &LeaseWord) -> Option<Used>;

    /// No mutex of the name is left: [retires](LeaseWord::retire) the word, under the service's lock. What
    /// it returns is to be given back. A grant for a request of that word goes back by itself.
    fn retire(&self, word: &LeaseWord) -> Option<Used>;

    /// Half of the block is used: asks for the next.
    fn top_up(&self, word: &LeaseWord);

    /// Until when the leases of a new word are good without a further word: the session's deadline, or
    /// one of the word's own where each lease is renewed by itself.
    fn word_deadline(&self) -> Arc<Deadline>;

    /// What has come so far of this process's requests for the name: for a caller that stood behind one of
    /// them and gives up.
    fn news(&self, name: &Name) -> RequestNews;

    /// Whether it can carry a lock with these terms; else what is to be used instead.
    fn accepts(&self, terms: &AskedTerms) -> Result<()> {
        let _ = terms;
        Ok(())
    }

    /// The fork generation of the process that it serves.
    fn made_in(&self) -> u64;

    /// Whether this is a forked child of that process. It asks for nothing and gives nothing back.
    fn is_forked(&self) -> bool;

    /// Takes no more requests, fails those that wait, wakes the waiters at its words, and keeps no
    /// lease beyond this: what guards have is given back when they go. Says goodbye once nothing is
    /// held, and waits until that is sent, at most until `until`.
    fn close(&self, until: Time);
}

/// What has come so far of a request that waits.
#[cfg_attr(
    not(any(feature = "host", feature = "testing")),
    allow(dead_code, reason = "no request is made without a service")
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestNews {
    /// No request of the name waits.
    NotAsked,
    /// There is no answer yet, and no reason to think that none comes.
    OnItsWay,
    /// There is no answer yet, nor a way to the service.
    Unanswered,
    /// The service does not answer: why, in words.
    Silent(String),
    /// It has answered: the request waits for this holder, or for what it has not told.
    Waits(Option<Holder>),
}

impl RequestNews {
    /// Of the news of several requests the heaviest say most.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            RequestNews::NotAsked => 0,
            RequestNews::OnItsWay | RequestNews::Unanswered | RequestNews::Silent(_) => 1,
            RequestNews::Waits(None) => 2,
            RequestNews::Waits(Some(_)) => 3,
        }
    }
}

/// What an observer is told.
pub(crate) trait LeaderNews: Send {
    /// The next change; the present leader first. After an error it begins anew.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ElectedLeader>>>;
}

/// The terms of a lock that not every service can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AskedTerms {
    pub(crate) has_at_least: bool,
    pub(crate) has_at_most: bool,
    /// Its lease is to be kept however long it is idle.
    pub(crate) keeps_always: bool,
}

/// What is asked for.
#[cfg_attr(
    not(any(feature = "host", feature = "testing")),
    expect(dead_code, reason = "no service is there to read it")
)]
pub(crate) struct LeaseRequest {
    pub(crate) name: Name,
    pub(crate) patience: LeasePatience,
    pub(crate) mode: LeaseMode,
    /// What is said of the holder, if the service [carries values](LeaseService::carries_values).
    pub(crate) value: Option<Arc<[u8]>>,
    /// A thread waits for it, and does nothing else meanwhile.
    pub(crate) blocks: bool,
    /// It is a task's, which may never be polled again: a grant that is not claimed within
    /// [`CLAIM_LIMIT`] goes back.
    pub(crate) lapses: bool,
    /// Another request of the same service: this one is granted only if that was, and else fails as a
    /// try at once. So a caller that asks for several names together has those before it in hand, and
    /// none behind it while it waits.
    pub(crate) after: Option<u64>,
    /// Until when a try waits for an answer, if that is limited.
    pub(crate) answer_by: Option<Time>,
    /// The grant's tokens exceed this one.
    pub(crate) above: Token,
    /// The lease ends by itself after this time. Such a lease is not kept.
    pub(crate) at_most: Option<Duration>,
    /// For how long the service keeps the name taken from the grant on, however its holder ends. Such
    /// a lease is not kept.
    pub(crate) at_least: Option<Duration>,
    /// Whether the lease may stay after its first guard.
    pub(crate) keep: bool,
    /// The word to open.
    pub(crate) word: Arc<LeaseWord>,
    /// A process of the caller's directory has had the lock since the caller's last had it: more may
    /// want it than the service knows of.
    pub(crate) has_moved: bool,
    pub(crate) settlement: Settlement,
}

/// How much of a name is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseMode {
    Exclusive,
    /// Others may have it, too, for as long as all of them share it.
    Shared,
    /// The same, and one at a time that may become exclusive. Its word is one of its own, and opened as a
    /// shared one.
    Upgradable,
    /// So many of a limited number. Its word is one of its own, and opened as a shared one.
    Permits {
        count: u32,
        limit: u32,
    },
}

#[cfg(any(feature = "host", feature = "testing", test))]
impl LeaseMode {
    /// Whether its word is opened for several guards.
    pub(crate) fn is_shared(self) -> bool {
        self != LeaseMode::Exclusive
    }

    /// What the name is used for.
    pub(crate) fn usage(self) -> Usage {
        match self {
            LeaseMode::Exclusive | LeaseMode::Shared | LeaseMode::Upgradable => Usage::Lock,
            LeaseMode::Permits { limit, .. } => Usage::Permits(limit),
        }
    }
}

/// For so long a granted lease waits to be claimed by a task.
#[cfg(any(feature = "host", feature = "testing", test))]
pub(crate) const CLAIM_LIMIT: Duration = Duration::from_millis(200);

/// How long a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeasePatience {
    /// Not at all for another holder; for an unreachable service as long as the manager allows.
    No,
    /// Until this time; [`Time::NEVER`] waits without limit.
    Until(Time),
}

/// A request under way: wait for it, or poll it.
///
/// Dropping it takes it back. If it was granted by then and the word is still reserved, the
/// reservation is [given up](LeaseWord::give_up_reserved).
#[must_use = "a request that is dropped is taken back"]
pub(crate) trait PendingLease: Future<Output = Result<LeaseGranted>> + Send + Unpin {
    /// Blocks the calling thread. Works in and outside any async runtime.
    fn wait(self: Box<Self>) -> Result<LeaseGranted>;

    /// What a request that comes [after](LeaseRequest::after) it calls it, where there is that.
    fn number(&self) -> Option<u64> {
        None
    }
}

/// A lease was granted, and its word opened: the representative claims it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseGranted {
    /// Another session had the name when it was asked for.
    pub(crate) had_to_queue: bool,
}

/// The answer to a release.
pub(crate) type PendingRelease = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// What the caller holds of its directory while it asks.
#[cfg_attr(
    not(any(feature = "host", feature = "testing")),
    expect(dead_code, reason = "no service is there to grant")
)]
pub(crate) trait Settle: Send {
    /// Whether it may take longer than memory does to [raise](Settle::raise) the token this far, or to
    /// release the slot: it waits for a disk, for a file server, or for another process.
    fn may_block(&self, block_end: Option<Token>) -> bool;

    /// Tokens up to this one were granted: the slot's rises to it.
    fn raise(&mut self, block_end: Token);

    /// The word was opened: what the slot had to tell to its next holder is the asker's to tell.
    fn pass_on(&mut self);

    /// The slot is released.
    fn release(self: Box<Self>);
}

/// What is to be settled when a request ends, however it ends. It belongs to the request: whatever
/// takes that out of the service's table, under its lock, settles it, and so that happens once.
///
/// At a grant the order is that of [`grant`](Settlement::grant): token raised, word opened, slot
/// released. A process of the directory that wins the slot next finds both as they are. At any other end
/// the slot is released as it is.
///
/// One that [may block](Settlement::may_block) is settled beside the service's lock, in the same order; the
/// word is opened under it.
#[derive(Default)]
#[must_use = "dropping it releases the slot"]
pub(crate) struct Settlement(Option<Box<dyn Settle>>);

impl Settlement {
    #[cfg(any(feature = "process", test))]
    pub(crate) fn new(settle: Box<dyn Settle>) -> Settlement {
        Settlement(Some(settle))
    }

    /// Whether it may block to raise the token this far, or to release the slot.
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) fn may_block(&self, block_end: Option<Token>) -> bool {
        self.0.as_ref().is_some_and(|settle| settle.may_block(block_end))
    }

    /// A lease was granted.
    #[cfg(any(feature = "service", test))]
    pub(crate) fn grant(mut self, word: &LeaseWord, opening: Opening) {
        self.raise(opening.last);
        self.open(word, opening);
    }

    /// The first step of [`grant`](Settlement::grant).
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) fn raise(&mut self, block_end: Token) {
        if let Some(settle) = &mut self.0 {
            settle.raise(block_end);
        }
    }

    /// The second, for the service under its lock. The third is that it is dropped.
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) fn open(&mut self, word: &LeaseWord, opening: Opening) {
        word.open(opening);
        if let Some(settle) = &mut self.0 {
            settle.pass_on();
        }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if let Some(settle) = self.0.take() {
            settle.release();
        }
    }
}

#[cfg(all(test, tierlock_loom))]
mod model;
#[cfg(all(test, not(tierlock_loom)))]
mod tests;
