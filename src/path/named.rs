//! What a named mutex is besides its data: its entry, its manager's reach, its terms.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::*},
    },
    task::Poll,
    time::Duration,
};

use crate::{
    clock,
    error::{LockError, Result},
    ground::{self, Entry, Reach},
    host::lease_word::LeaseWord,
    name::Name,
    scope::Scope,
};

use super::{
    Looked, Patience,
    climb::Climb,
    right::{Held, short},
};

/// Whether the lease of a host-scope lock is kept after the last local unlock, so that the next
/// local lock needs no message.
///
/// Keeping pays when this machine takes the lock again before another one wants it. If the keeper
/// crashes, others wait until its lease has run out.
///
/// Each manager of a process has a session of its own, and keeps its leases for itself: two of them
/// take turns like two machines. So let a process have one manager, and clone it. Processes of one
/// directory do not share a lease either: the leader recalls it from one for the other.
///
/// What is not kept goes back at once if a waiter is known, and else with whatever is sent next,
/// within a millisecond: a client that asks right then waits that much longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keep {
    /// Keep it while that pays: if others of this process waited for it when it was asked for, who
    /// then get it from each other; else after a few locks in a row in whose way nobody else stood.
    /// It stays until somebody else asks or nobody here has used it for a second. While two take
    /// turns it is kept ever more seldom, at last once in some 200 locks.
    #[default]
    Adaptive,
    /// Keep it from the first lock on, until another client asks, however long it is not used, or
    /// until the name's last mutex here is dropped. Each counts among the 65,536 leases that a
    /// session may have: with more mutexes than that, a lock that would need another is
    /// `Refused`. [`Adaptive`](Keep::Adaptive) gives idle ones back.
    Always,
    /// Give it back at every unlock.
    Never,
}

/// A named mutex: which tiers it climbs, and its terms.
pub(crate) struct Named {
    pub(crate) entry: Arc<Entry>,
    pub(crate) reach: Arc<Reach>,
    /// The scope asked for; `escalate` raises it.
    pub(crate) scope: AtomicU8,
    pub(crate) at_most: Option<Duration>,
    pub(crate) at_least: Option<Duration>,
    /// Whether there is either of them.
    pub(crate) has_terms: bool,
    pub(crate) keep: Keep,
    /// The word of its leases, if the manager reaches other hosts.
    pub(crate) word: Option<Arc<LeaseWord>>,
}

impl Named {
    pub(crate) fn name(&self) -> &Name {
        &self.entry.name
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::from_u8(self.scope.load(Relaxed))
    }

    pub(crate) fn lock(&self, patience: Patience) -> Result<Held> {
        match self.lock_quietly() {
            Some(won) => Ok(won.into()),
            None => self.lock_slow(patience),
        }
    }

    /// After [`lock_quietly`](Named::lock_quietly) in vain.
    #[cold]
    pub(crate) fn lock_slow(&self, patience: Patience) -> Result<Held> {
        self.climb(patience, Scope::Thread)
    }

    /// Dropping the future gives back what it was to receive.
    pub(crate) async fn lock_async(&self, patience: Patience) -> Result<Held> {
        match self.lock_quietly() {
            Some(won) => Ok(won.into()),
            None => self.climb_async(patience, Scope::Thread).await,
        }
    }

    /// Widens the name to `to`: acquires it there, which marks it, and gives it back. So at no
    /// moment do a narrow and a wide holder exist.
    pub(crate) fn escalate(&self, to: Scope) -> Result<()> {
        if self.must_widen(to)? {
            let held = self.climb(Patience::Forever, to)?;
            self.has_widened(held, to);
        }
        Ok(())
    }

    pub(crate) async fn escalate_async(&self, to: Scope) -> Result<()> {
        if self.must_widen(to)? {
            let held = self.climb_async(Patience::Forever, to).await?;
            self.has_widened(held, to);
        }
        Ok(())
    }

    fn must_widen(&self, to: Scope) -> Result<bool> {
        if to <= self.scope() {
            return Ok(false);
        }
        self.reach.check(to).map_err(|error| error.with_name(self.name()))?;
        self.entry.prepare(to).map_err(|error| error.with_name(self.name()))?;
        Ok(true)
    }

    fn has_widened(&self, mut held: Held, to: Scope) {
        self.scope.fetch_max(to as u8, Relaxed);
        self.entry.stay_wide();
        self.give_back(&mut held);
    }

    pub(super) fn is_locked(&self) -> bool {
        #[cfg(feature = "process")]
        if self.entry.slot().and_then(|slot| slot.holder()).is_some() {
            return true;
        }
        let is_inside = self.entry.cell.is_occupied(short(ground::generation()));
        is_inside || self.entry.scope_in_force() == Scope::Thread && self.entry.thread().is_locked()
    }

    /// Runs `look` while no guard of this process is inside; `None` if one is.
    ///
    /// The cell keeps others out meanwhile: a lock that comes waits as for a guard. At thread scope
    /// it is the thread lock that does.
    pub(super) fn look<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        self.entry.thread().try_win().then_some(())?;
        let _looked = Looked(self.entry.thread());
        let generation = short(ground::generation());
        match self.entry.scope_in_force() {
            Scope::Thread => Some(look()),
            _ => self.entry.cell.look(generation, look),
        }
    }

    fn climb(&self, patience: Patience, at_least: Scope) -> Result<Held> {
        let start = matches!(patience, Patience::Until(_)).then(clock::now);
        let held = Climb::new(self, patience, at_least).run();
        held.map_err(|error| error.with_wait_since(start))
    }

    async fn climb_async(&self, patience: Patience, at_least: Scope) -> Result<Held> {
        let start = matches!(patience, Patience::Until(_)).then(clock::now);
        let mut climb = pin!(Climb::new(self, patience, at_least).run_async());
        let held = match poll_fn(|cx| Poll::Ready(climb.as_mut().poll(cx))).await {
            Poll::Ready(held) => held,
            // It waits: until it arrives, or its manager is closed.
            Poll::Pending => self.until_closed(at_least, climb).await,
        };
        held.map_err(|error| error.with_wait_since(start))
    }

    /// Ends a wait early if the manager is closed meanwhile. Dropped then, the climb goes back down.
    async fn until_closed(
        &self,
        at_least: Scope,
        mut climb: Pin<&mut impl Future<Output = Result<Held>>>,
    ) -> Result<Held> {
        event_listener::listener!(self.reach.closing => closing);
        let (mut is_new, mut is_told) = (true, false);
        poll_fn(|cx| {
            // It was polled just now, and may have been closed before there was a listener.
            if !mem::take(&mut is_new)
                && let Poll::Ready(held) = climb.as_mut().poll(cx)
            {
                return Poll::Ready(held);
            }
            is_told = is_told || Pin::new(&mut closing).poll(cx).is_ready();
            match self.is_over(at_least) {
                true => Poll::Ready(Err(self.closed())),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Whether a wait ends because its manager was closed.
    pub(super) fn is_over(&self, at_least: Scope) -> bool {
        let goal = self.scope().max(self.entry.scope_in_force()).max(at_least);
        self.reach.is_closed() && goal > Scope::Thread
    }

    #[cold]
    pub(super) fn closed(&self) -> LockError {
        let error = self.reach.check_open().expect_err("a wait ended early");
        error.with_name(self.name()).with_scope(self.scope())
    }

    /// Whether locks above thread scope may be acquired.
    pub(super) fn check_open(&self, goal: Scope) -> Result<()> {
        let checked = self.reach.check_open();
        checked.map_err(|error| error.with_name(self.name()).with_scope(goal))
    }
}

impl LockError {
    /// A tier knows only how long its own wait took.
    #[cold]
    fn with_wait_since(self, start: Option<crate::time::Time>) -> LockError {
        match (start, self.waited()) {
            (Some(start), Some(_)) => self.with_waited(clock::now().since(start)),
            _ => self,
        }
    }
}
