//! What a climb is told that gives up in this process: at the turnstile, at the lease word, or in front, where it has the gate and waits for readers.
//!
//! It names the process that has the lock, which is this one only if a guard of this one has it: the
//! representative that stands before the climb may itself wait for another process or machine. Nothing of
//! this is looked at before the time is over.

use super::{At, Climb};
use crate::{
    clock,
    error::{Holder, LockError},
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
}

impl Climb<'_> {
    /// It has waited in vain.
    #[cold]
    pub(super) fn held_here(&self) -> LockError {
        let named = self.named;
        let start = self.since.unwrap_or_else(clock::now);
        let error = match self.mode {
            LockMode::Permits(permits) => permits.timed_out(start, named.scope()),
            _ => {
                let waited = clock::now().since(start);
                match self.in_the_way() {
                    InTheWay::Here { holder, is_caller } => {
                        LockError::timed_out_here(waited, is_caller).with_holder(Some(holder))
                    }
                    InTheWay::Elsewhere(holder) => LockError::timed_out(waited).with_holder(holder),
                }
            }
        };
        let error = error.with_scope(named.scope()).with_name(named.name());
        error.with_waiters_ahead(self.waiters_ahead(start))
    }

    fn in_the_way(&self) -> InTheWay {
        let named = self.named;
        let here = |holder, is_caller| InTheWay::Here { holder, is_caller };
        let scope = named.entry.scope_in_front();
        if matches!(self.at, At::Readers | At::Widened { .. }) && scope > Scope::Thread {
            // It has the gate itself.
            return InTheWay::Elsewhere(named.reader_in_the_way());
        }
        match (scope, named.host_tier()) {
            (Scope::Thread, _) => here(named.reach.myself(), false),
            (Scope::Process, _) => self.at_the_slot(),
            (Scope::Host, Some(tier)) if !tier.word.is_closed() => {
                let is_caller = named.reach.guards_stay
                    && thread_number().is_some_and(|number| tier.word.is_with(number));
                here(named.reach.myself(), is_caller)
            }
            // The slot is won on the way to the service, so its holder is a waiter too. The
            // representative may have been told which other session has the lease.
            (Scope::Host, Some(tier)) => {
                InTheWay::Elsewhere(tier.service.holder_told(named.name()))
            }
            (Scope::Host, None) => InTheWay::Elsewhere(None),
        }
    }

    fn at_the_slot(&self) -> InTheWay {
        #[cfg(feature = "process")]
        if let Some(slot) = self.named.entry.slot() {
            // Without a holder it is reserved just now, for the next in line of whatever process.
            let (is_here, holder) = (slot.is_held_here(), slot.holder());
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
