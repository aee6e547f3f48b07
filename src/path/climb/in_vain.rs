//! What a climb is told that gives up in this process: at the turnstile, at the lease word, or in front, where it has the gate and waits for readers.
//!
//! It names the process that has the lock, which is this one only if a guard of this one has it: the
//! representative that stands before the climb may itself wait for another process or machine. Where it
//! waits for a service's answer, nothing says that the lock is held, and the climb is told what its own
//! question would have come to. Nothing of this is looked at before the time is over.

use std::{sync::Arc, time::Duration};

use super::{At, Climb};
use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind},
    host::{
        lease_word::LeaseWord,
        service::{LeaseService, RequestNews},
    },
    path::{LockMode, waiters_before},
    scope::Scope,
    thread_number::thread_number,
    time::Time,
};

/// Which process has what the climb waited for.
enum InTheWay {
    /// This one; or even the calling thread.
    Here { holder: Holder, is_caller: bool },
    /// Another one, as far as it is known.
    Elsewhere(Option<Holder>),
    /// A caller of this process, on its way to the lock.
    Beside,
    /// Whatever the service finds that another caller has asked. So much has come of that.
    Asked(RequestNews),
}

impl Climb<'_> {
    /// It has waited in vain.
    #[cold]
    pub(super) fn held_here(&self) -> LockError {
        let named = self.named;
        let start = self.since.unwrap_or_else(clock::now);
        let waited = clock::now().since(start);
        let behind = match self.in_the_way() {
            InTheWay::Here { holder, is_caller } => {
                LockError::timed_out_here(waited, is_caller).with_holder(Some(holder))
            }
            InTheWay::Elsewhere(holder) | InTheWay::Asked(RequestNews::Waits(holder @ Some(_))) => {
                LockError::timed_out(waited).with_holder(holder)
            }
            InTheWay::Asked(RequestNews::Silent(trouble)) => unreachable_by(trouble, waited),
            InTheWay::Asked(RequestNews::Unanswered) => LockError::timed_out_behind(waited, false),
            InTheWay::Beside | InTheWay::Asked(RequestNews::OnItsWay | RequestNews::NotAsked) => {
                LockError::timed_out_beside(waited)
            }
            // It waits for reports of other sessions, say; or is another process's.
            InTheWay::Asked(RequestNews::Waits(None)) => LockError::timed_out_behind(waited, true),
        };
        let error = match self.mode {
            // Whatever has permits, or the gate, is in the way: the count says it.
            LockMode::Permits(permits) if behind.is_contended() => {
                permits.timed_out(start, named.scope())
            }
            _ => behind,
        };
        let error = error.with_scope(named.scope()).with_name(named.name());
        error.with_waiters_ahead(self.waiters_ahead(start))
    }

    /// A try is refused at the turnstile or the slot. What has that may only be on its way to a service: if
    /// that does not answer, so this one would have been told.
    #[cold]
    pub(super) fn refused(&self) -> LockError {
        let named = self.named;
        if named.entry.scope_in_front() < Scope::Host {
            return LockError::WOULD_BLOCK;
        }
        let leases = named.entry.leases();
        if leases.iter().any(|(_, word)| !word.is_closed()) {
            return LockError::WOULD_BLOCK;
        }
        match self.news_of(leases) {
            RequestNews::Silent(trouble) => {
                let error = unreachable_by(trouble, Duration::ZERO);
                error.with_scope(Scope::Host).with_name(named.name())
            }
            RequestNews::Unanswered => LockError::perhaps_taken(
                "another caller of this process is before it, and the lock service has not answered that",
            ),
            RequestNews::Waits(None) => LockError::perhaps_taken(
                "another caller of this process is before it, its request has to wait, and no holder is \
                 known",
            ),
            // That one is about to have it, or another holder has.
            RequestNews::Waits(Some(_)) | RequestNews::OnItsWay | RequestNews::NotAsked => {
                LockError::WOULD_BLOCK
            }
        }
    }

    /// What has come of the request, of whichever manager of this process, that waits for the name.
    fn news_of(&self, leases: Vec<(Arc<dyn LeaseService>, Arc<LeaseWord>)>) -> RequestNews {
        let news = leases.iter().map(|(service, _)| service.news(self.named.name()));
        news.max_by_key(RequestNews::weight).unwrap_or(RequestNews::NotAsked)
    }

    fn in_the_way(&self) -> InTheWay {
        let named = self.named;
        let here = |holder, is_caller| InTheWay::Here { holder, is_caller };
        let scope = named.entry.scope_in_front();
        match self.at {
            // It has the gate itself.
            At::Readers | At::Widened { .. } if scope > Scope::Thread => {
                return InTheWay::Elsewhere(named.reader_in_the_way());
            }
            // A guard of this process, whatever has the gate by now.
            At::Cell { .. } => return here(named.reach.myself(), false),
            _ => {}
        }
        match scope {
            Scope::Thread => here(named.reach.myself(), false),
            Scope::Process => self.at_the_slot(),
            Scope::Host => self.at_the_service(),
        }
    }

    fn at_the_service(&self) -> InTheWay {
        let named = self.named;
        let leases = named.entry.leases();
        if leases.iter().any(|(_, word)| !word.is_closed()) {
            let is_with = |number| leases.iter().any(|(_, word)| word.is_with(number));
            let is_caller = named.reach.guards_stay && thread_number().is_some_and(is_with);
            return InTheWay::Here { holder: named.reach.myself(), is_caller };
        }
        // The representative may have been told which other session has the lease.
        let news = self.news_of(leases);
        if news != RequestNews::NotAsked {
            return InTheWay::Asked(news);
        }
        // It has yet to come to the service. The slot is won on the way there, so the holder of a wide one
        // is a waiter too.
        #[cfg(feature = "process")]
        if let Some(slot) = named.entry.slot()
            && !slot.is_held_here()
            && let Some(holder) = slot.holder()
        {
            return match slot.is_wide() {
                true => InTheWay::Asked(RequestNews::Waits(None)),
                false => InTheWay::Elsewhere(Some(holder)),
            };
        }
        // Or it waits for readers that came in more narrowly.
        match named.reader_in_the_way() {
            Some(reader) => InTheWay::Elsewhere(Some(reader)),
            None => InTheWay::Beside,
        }
    }

    fn at_the_slot(&self) -> InTheWay {
        #[cfg(feature = "process")]
        if let Some(slot) = self.named.entry.slot() {
            if slot.is_wide() {
                // What has it is on its way to a lease, in whatever process.
                return InTheWay::Asked(RequestNews::Waits(None));
            }
            // Without a holder it is reserved just now, for the next in line of whatever process.
            let (is_here, holder) = (slot.is_held_here(), slot.holder());
            // What has it here may be a writer that waits for readers of other processes.
            if is_here
                && !self.named.entry.shares().is_readable()
                && let Some(reader) = slot.sharer_elsewhere()
            {
                return InTheWay::Elsewhere(Some(reader));
            }
            return match is_here {
                true => InTheWay::Here {
                    holder: holder.unwrap_or_else(|| self.named.reach.myself()),
                    is_caller: false,
                },
                false => InTheWay::Elsewhere(holder),
            };
        }
        // Without a directory the thread lock is the gate.
        InTheWay::Here { holder: self.named.reach.myself(), is_caller: false }
    }

    /// How many waiters stood before it, as far as this process can know.
    fn waiters_ahead(&self, start: Time) -> Option<usize> {
        match self.at {
            // It has been in front, or is.
            At::Word | At::Readers | At::Widened { .. } => return Some(0),
            // Which come in before it once the guard goes, no order says.
            At::Cell { .. } => return None,
            _ => {}
        }
        let entry = &self.named.entry;
        let thread = entry.thread();
        // Above thread scope the holder of the turnstile is a waiter.
        let here = || thread.waiters_before(start) + usize::from(thread.is_locked());
        #[cfg(feature = "process")]
        if entry.scope_in_front() == Scope::Process
            && let Some(slot) = entry.slot()
        {
            return slot.waiters_before_own().map(|before| before + here());
        }
        match entry.scope_in_front() {
            Scope::Thread | Scope::Process => Some(waiters_before(thread, entry.shares(), start)),
            Scope::Host => Some(here()),
        }
    }
}

/// The service does not answer, as the caller is told that has asked.
fn unreachable_by(trouble: String, waited: Duration) -> LockError {
    let error = LockError::new(LockErrorKind::Unreachable, trouble);
    if waited.is_zero() { error } else { error.with_waited(waited) }
}
