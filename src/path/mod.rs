//! The path to a lock: from a mutex through the tiers to the word that decides.
//!
//! **A name has exactly one gate at a time: the word that says which holder has it.** Changing that
//! word by one exchange acquires the lock; changing it back by one exchange releases it. Nothing
//! else is won on the fast path.
//!
//! | scope in force | gate | lies in |
//! |---|---|---|
//! | thread | the thread lock's word | this process |
//! | process | the slot's word | the directory's table |
//! | host | the lease's word | this process; the lease excludes all other sessions |
//!
//! Below the gate stands a *turnstile*: the thread lock. It orders the waiters of this process and
//! decides nothing about which of them holds the lock. A thread or task that finds the gate taken
//! wins the turnstile and waits at the gate as its process's one *representative*. So a hundred
//! threads are one waiter at the table, and a machine is one waiter at the leader.
//!
//! The scope in force of a name only grows. Below it nothing is exclusive any more: a mutex of a
//! narrower scope follows.
//!
//! - [`right`]: what a guard has won
//! - [`named`]: what a named mutex is
//! - [`ground`]: what the locks of one name share in this process
//! - [`quiet`]: the fast paths
//! - [`climb`]: the slow path, one machine with two drivers
//! - [`lock`]: the ways in
//! - [`all`]: several locks at once
//! - [`release`]: giving back
//! - [`lapse`]: the turn of a task that waits for readers
//! - [`sharing`]: readers, and a writer's wait for them
//! - [`permits`]: permits of a semaphore, and the wait for them
//! - [`stage`]: the leader of an election in this process
//! - [`observing`]: what a leader says of itself, and what observers are told
//! - [`spans`], `guarded_span`: what a `tracing` subscriber is told
//! - [`terms`]: `at_most`, `at_least`, and how a loss is told
//!
//! The file-lock engine has no word: there the gate is the file lock, won and kept together with
//! the thread lock.

mod all;
mod climb;
pub(crate) mod ground;
#[cfg(feature = "tracing")]
mod guarded_span;
mod lapse;
mod lock;
#[cfg(all(test, tierlock_loom, feature = "testing"))]
mod model;
mod named;
mod observing;
mod permits;
mod quiet;
mod release;
mod right;
mod sharing;
mod spans;
mod stage;
mod terms;

use std::{future::Future, task::Poll, time::Duration};

pub use self::named::Keep;
pub(crate) use self::{
    all::{WantedPart, lock_all, lock_all_async},
    ground::SlotPlace,
    named::{Named, QuietCaller},
    observing::{Announced, Observation},
    permits::{check_limit, permits_at_host_scope},
    quiet::{Aside, Straight},
    right::{Held, Won},
};
use crate::{
    alarm, clock,
    error::{LockError, Predecessor, Result},
    mode::Room,
    scope::Scope,
    thread::{ThreadLock, ThreadShares},
    time::Time,
};

/// How long a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It only tries.
    No,
    Forever,
    Until(Time),
}

impl Patience {
    pub(crate) fn for_at_most(wait: Duration) -> Patience {
        Patience::Until(clock::now() + wait)
    }

    fn until(self) -> Time {
        match self {
            Patience::No => Time::ZERO,
            Patience::Forever => Time::NEVER,
            Patience::Until(time) => time,
        }
    }
}

/// What a mutex is besides its data.
pub(crate) enum Core {
    /// Unnamed: its thread lock is its gate for good.
    Plain(Plain),
    Named(Named),
}

/// A lock without a name, and its readers: a `Mutex` has none.
pub(crate) struct Plain {
    pub(crate) lock: ThreadLock,
    shares: ThreadShares,
}

impl Plain {
    #[cfg(not(tierlock_loom))]
    pub(crate) const fn new() -> Plain {
        Plain { lock: ThreadLock::new(), shares: ThreadShares::new() }
    }

    /// The same; the model checker's locks are no constants.
    #[cfg(tierlock_loom)]
    pub(crate) fn new() -> Plain {
        Plain { lock: ThreadLock::new(), shares: ThreadShares::new() }
    }

    /// What a caller is told that gives up at the lock, where it has waited since `start`.
    fn timed_out(&self, start: Time) -> LockError {
        let ahead = waiters_before(&self.lock, &self.shares, start);
        timed_out(start, Scope::Thread).with_waiters_ahead(Some(ahead))
    }
}

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockMode {
    /// A writer, or a `Mutex`.
    Exclusive,
    Upgradable,
    Shared,
    Permits(Permits),
}

/// So many permits of as many as there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Permits {
    pub(crate) count: u32,
    pub(crate) limit: u32,
}

impl LockMode {
    /// Whether it stands beside readers.
    fn shares(self) -> bool {
        matches!(self, LockMode::Shared | LockMode::Upgradable)
    }

    /// What its holder of the gate waits for.
    fn room(self) -> Room {
        match self {
            LockMode::Permits(permits) => permits.room(),
            _ => Room::Alone,
        }
    }
}

impl Core {
    /// The scope in force.
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Core::Plain(_) => Scope::Thread,
            Core::Named(named) => named.scope(),
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Core::Plain(_) => None,
            Core::Named(named) => Some(named.name()),
        }
    }

    pub(crate) fn lock(&self, patience: Patience) -> Result<Held> {
        match self {
            Core::Plain(plain) => lock_plain(plain, patience),
            Core::Named(named) => named.lock(patience),
        }
    }

    /// Dropping the future gives back what it was to receive.
    pub(crate) async fn lock_async(&self, patience: Patience) -> Result<Held> {
        match self {
            Core::Plain(plain) => match patience {
                Patience::No => lock_plain(plain, patience),
                _ => {
                    let start = clock::now();
                    let is_won = wait_until_async(&plain.lock, patience.until()).await;
                    let taken = is_won.then(|| Held::plain(plain.lock.count_or_unlock()));
                    taken.ok_or_else(|| plain.timed_out(start))
                }
            },
            Core::Named(named) => named.lock_async(patience).await,
        }
    }

    /// Gives everything back, the gate first. Never blocks, never fails.
    #[inline]
    pub(crate) fn release(&self, held: &mut Held, how: Predecessor) {
        match self {
            Core::Plain(plain) => plain.release(held, how),
            Core::Named(named) => named.release(held, how),
        }
    }

    /// Gives back what was not used: the next holder hears what this one heard.
    pub(crate) fn give_back(&self, held: &mut Held) {
        match self {
            Core::Plain(plain) => plain.release(held, plain.lock.predecessor()),
            Core::Named(named) => named.give_back(held),
        }
    }

    /// As [`release`](Core::release), to the first in line at thread scope, however shortly that has
    /// waited.
    pub(crate) fn release_fairly(&self, held: &mut Held, how: Predecessor) {
        match self {
            Core::Plain(plain) => plain.release_as(held, how, ThreadLock::release_fairly),
            Core::Named(named) => named.release_fairly(held, how),
        }
    }

    /// Whether a waiter may stand behind what is held, a reader's or permits if it `shares`. True where
    /// this process cannot know.
    pub(crate) fn may_be_waited_for(&self, held: &Held, shares: bool) -> bool {
        match self {
            Core::Plain(plain) => plain.may_be_waited_for(shares),
            Core::Named(named) => named.may_be_waited_for(held),
        }
    }

    /// Whether the lock is held, as far as this process knows without asking a service.
    pub(crate) fn is_locked(&self) -> bool {
        match self {
            Core::Plain(plain) => plain.lock.is_locked(),
            Core::Named(named) => named.is_locked(),
        }
    }

    /// Whether readers are inside, as far as this process knows without asking a service.
    pub(crate) fn is_read(&self) -> bool {
        match self {
            Core::Plain(plain) => plain.shares.counted() > 0,
            Core::Named(named) => named.is_read(),
        }
    }

    /// Runs `look` while no guard of this process is inside; `None` if one is.
    pub(crate) fn look<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        match self {
            Core::Plain(Plain { lock, .. }) => {
                lock.try_win().then_some(())?;
                let _looked = StepsOutAfterLook(lock);
                Some(look())
            }
            Core::Named(named) => named.look(look),
        }
    }

    /// The same, with an answer to wait for: the leader's, and the end of `at_least`. `is_unused`:
    /// nothing was done under it.
    pub(crate) fn release_answered(
        &self,
        held: &mut Held,
        how: Predecessor,
        is_unused: bool,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let answer = match self {
            Core::Plain(_) => {
                self.release(held, how);
                None
            }
            Core::Named(named) => named.release_answered(held, how, is_unused),
        };
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(()),
            }
        }
    }
}

/// Steps out of a thread lock, however a look ends.
struct StepsOutAfterLook<'a>(&'a ThreadLock);

impl Drop for StepsOutAfterLook<'_> {
    fn drop(&mut self) {
        self.0.step_out();
    }
}

fn lock_plain(plain: &Plain, patience: Patience) -> Result<Held> {
    let lock = &plain.lock;
    match patience {
        Patience::No => lock.try_take().map(Held::plain).ok_or(LockError::WOULD_BLOCK),
        Patience::Forever => Ok(Held::plain(lock.take())),
        Patience::Until(until) => {
            let start = clock::now();
            let taken = lock.take_until(until).map(Held::plain);
            taken.ok_or_else(|| plain.timed_out(start))
        }
    }
}

/// Where a wait was when its time came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum InVain {
    /// It waited for the lock.
    AtLock,
    /// It had the lock, and waited for room.
    InFront,
}

/// How many waiters stand before a caller that has waited at the lock since `start`, and waits no longer:
/// those that are queued, and one that has won it and waits for readers or permits.
fn waiters_before(lock: &ThreadLock, shares: &ThreadShares, start: Time) -> usize {
    let waits_inside = lock.is_locked() && shares.counted() > 0 && !shares.is_readable();
    lock.waiters_before(start) + usize::from(waits_inside)
}

/// A lock of thread scope is held in this process.
fn timed_out(start: Time, scope: Scope) -> LockError {
    let waited = clock::now().since(start);
    let error = match scope {
        Scope::Thread => LockError::timed_out_here(waited, false),
        _ => LockError::timed_out(waited),
    };
    error.with_scope(scope)
}

/// The same of a caller that had the gate and waited for readers: no waiter stands before it.
fn timed_out_in_front(start: Time, scope: Scope) -> LockError {
    timed_out(start, scope).with_waiters_ahead(Some(0))
}

/// Waits for a thread lock until `until`, blocking no thread; whether it is won.
async fn wait_until_async(lock: &ThreadLock, until: Time) -> bool {
    by(until, lock.wait_async()).await
}

/// Waits until the future is ready, or the time has come; whether it is ready.
async fn by(until: Time, wait: impl Future<Output = ()>) -> bool {
    if until == Time::NEVER {
        wait.await;
        return true;
    }
    let mut wait = std::pin::pin!(wait);
    let mut sleep = std::pin::pin!(alarm::sleep_until(until));
    std::future::poll_fn(|cx| {
        if wait.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        sleep.as_mut().poll(cx).map(|()| false)
    })
    .await
}
