//! What a named mutex is besides its data: its entry, its manager's reach, its terms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::*},
    },
    time::Duration,
};

use super::ground::{NameEntry, Reach, SlotShortcut};
use crate::{
    error::{LockError, Result},
    fork,
    host::lease_word::LeaseWord,
    name::Name,
    scope::Scope,
};

#[cfg(feature = "process")]
use super::right::SLOT;
use super::{
    StepsOutAfterLook,
    right::{Held, THREAD, short},
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
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::{Keep, LockManager};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// // one machine uses it nearly always: it asks the leader once
/// let cache = locks.mutex("cache/7", ()).keep(Keep::Always).build()?;
/// // a crash of its last holder must not make others wait for a lock that is not held
/// let job = locks.mutex("nightly", ()).keep(Keep::Never).build()?;
/// # drop((cache.lock()?, job.lock()?));
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keep {
    /// Keep it while that pays: if other callers of this process waited for it when it was asked for,
    /// which then get it from each other; else after a few locks in a row that met no other session.
    /// It stays until another client asks, or it was not used here for a second. While two take
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
    /// To the entry's slot, once the scope in force is process scope and a lock has been won there. It
    /// leads nowhere where locks have something besides: terms, or guards that stay with their threads.
    pub(crate) shortcut: SlotShortcut,
    pub(crate) entry: Arc<NameEntry>,
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
    /// What is said of its holder at host scope: an election's. A lease is then its own, with this
    /// value, and no other's.
    pub(crate) value: Option<Arc<[u8]>>,
}

/// What takes a lock quietly. A constant wherever it is passed, so that the fast path asks nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuietCaller {
    /// A thread that blocks: a manager may have promised that its guards stay with their threads.
    Thread,
    /// A task, which other threads may poll.
    Task,
    /// A look at the data, which makes no guard, and no span.
    Look,
}

impl Named {
    pub(crate) fn name(&self) -> &Name {
        &self.entry.name
    }

    #[inline]
    pub(crate) fn scope(&self) -> Scope {
        Scope::from_u8(self.scope.load(Relaxed))
    }

    pub(super) fn is_locked(&self) -> bool {
        #[cfg(feature = "process")]
        if self.entry.slot().and_then(|slot| slot.holder()).is_some() {
            return true;
        }
        let is_inside = self.entry.cell.is_occupied(short(fork::generation()));
        // Without a slot the thread lock is the gate of process scope, too.
        let is_gate = match self.entry.scope_in_force() {
            Scope::Thread => true,
            Scope::Process => !self.entry.has_slot(),
            Scope::Host => false,
        };
        is_inside || is_gate && self.entry.thread().is_locked()
    }

    /// Whether a waiter may stand behind what is held; true where this process cannot know.
    pub(super) fn may_be_waited_for(&self, held: &Held) -> bool {
        let (thread, is_drained) = (self.entry.thread(), !self.entry.shares().is_readable());
        // The turnstile is another's, which waits at the gate, or that is the gate, and is drained.
        let is_taken = !held.has(THREAD) && thread.is_locked() && is_drained;
        if is_taken || thread.has_waiters() {
            return true;
        }
        match held.scope() {
            Scope::Thread => false,
            #[cfg(feature = "process")]
            Scope::Process => {
                let shares = !held.has(SLOT);
                self.entry.slot().is_some_and(|slot| slot.may_be_waited_for(shares))
            }
            #[cfg(not(feature = "process"))]
            Scope::Process => false,
            // A lease of its own goes back to the service, which says so to none.
            Scope::Host if held.leased().is_some() => true,
            Scope::Host => self.host_tier().is_none_or(|tier| tier.word.is_asked_for()),
        }
    }

    pub(super) fn is_read(&self) -> bool {
        #[cfg(feature = "process")]
        if self.entry.slot().is_some_and(|slot| slot.is_read()) {
            return true;
        }
        let is_leased = self.host_tier().is_some_and(|tier| tier.word.is_read());
        let shares = self.entry.shares();
        is_leased || shares.counted() > 0 || shares.is_readable()
    }

    /// Runs `look` while no guard of this process is inside; `None` if one is.
    ///
    /// The cell keeps others out meanwhile: a lock that comes waits as for a guard. At thread scope
    /// it is the thread lock that does.
    pub(super) fn look<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        /// Gives back what was won to look, however the look ends.
        struct Looking<'a>(&'a Named, Held);

        impl Drop for Looking<'_> {
            fn drop(&mut self) {
                self.0.give_back(&mut self.1);
            }
        }

        if self.entry.scope_in_force() == Scope::Thread {
            self.entry.thread().try_win().then_some(())?;
            let _looked = StepsOutAfterLook(self.entry.thread());
            // A name is widened under the thread lock.
            return (self.entry.scope_in_force() == Scope::Thread).then(look);
        }
        let _looking = Looking(self, self.lock_quietly(QuietCaller::Look)?.into());
        Some(look())
    }

    /// Whether a wait ends because its manager was closed.
    pub(super) fn is_over(&self, at_least: Scope) -> bool {
        let goal = self.scope().max(self.entry.scope_in_force()).max(at_least);
        self.reach.is_closed() && goal > Scope::Thread
    }

    #[cold]
    pub(super) fn closed(&self) -> LockError {
        let error = self.reach.check_open().expect_err("a wait ended early");
        self.about(self.scope())(error)
    }

    /// Whether locks above thread scope may be acquired.
    pub(super) fn check_open(&self, goal: Scope) -> Result<()> {
        self.reach.check_open().map_err(self.about(goal))
    }

    /// What an error is about: this name, at this scope.
    pub(crate) fn about(&self, scope: Scope) -> impl Fn(LockError) -> LockError {
        move |error| error.with_name(self.name()).with_scope(scope)
    }
}
