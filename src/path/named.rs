//! What a named mutex is besides its data: its entry, its manager's reach, its terms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::*},
    },
    time::Duration,
};

use crate::{
    clock,
    error::{LockError, Result},
    ground::{Entry, Reach},
    host::lease_word::LeaseWord,
    name::Name,
    scope::Scope,
};

use super::{Patience, climb::Climb, right::Held};

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
        // The next holder hears what this one would have heard.
        let how = held.predecessor();
        self.release_now(&mut held, how);
    }

    fn climb(&self, patience: Patience, at_least: Scope) -> Result<Held> {
        let start = matches!(patience, Patience::Until(_)).then(clock::now);
        let held = Climb::new(self, patience, at_least).run();
        held.map_err(|error| error.with_wait_since(start))
    }

    async fn climb_async(&self, patience: Patience, at_least: Scope) -> Result<Held> {
        let start = matches!(patience, Patience::Until(_)).then(clock::now);
        let held = Climb::new(self, patience, at_least).run_async().await;
        held.map_err(|error| error.with_wait_since(start))
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
