//! The rungs of the own process and directory: turnstile, then the slot.

use super::{At, Climb};
use crate::{
    error::{Predecessor, Result},
    path::{
        LockMode,
        permits::past_others,
        right::{INSIDE, THREAD},
    },
    scope::Scope,
};

#[cfg(feature = "process")]
use crate::{
    error::LockError,
    path::{Patience, right::SLOT},
    process::{Slot, Taken},
    token::Token,
};

impl<'a> Climb<'a> {
    /// A try at the thread lock.
    pub(super) fn try_turnstile(&self) -> bool {
        let (thread, shares) = (self.named.entry.thread(), self.named.entry.shares());
        match self.mode {
            LockMode::Permits(_) => past_others(|| thread.try_win(), || shares.is_draining()),
            _ => thread.try_win(),
        }
    }

    /// A try at the slot.
    #[cfg(feature = "process")]
    pub(super) fn try_slot(&self, slot: &Slot, known: Token) -> Result<Option<Taken>> {
        let take = || slot.try_take(known, self.label()).transpose();
        match self.mode {
            LockMode::Permits(_) => past_others(take, || slot.is_draining()),
            _ => take(),
        }
        .transpose()
    }

    // ---- to the gate -------------------------------------------------------------------------

    /// A try at the slot's word where that is the gate: any thread may make it, turnstile or not.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.at = At::Turnstile;
        #[cfg(feature = "process")]
        if self.goal <= Scope::Process
            && self.named.entry.scope_in_force() == Scope::Process
            && let Some(slot) = self.named.entry.slot()
            && slot.is_gate()
        {
            self.goal = Scope::Process;
            self.held.set_scope(Scope::Process);
            self.named.check_open(Scope::Process)?;
            match self.try_slot(slot, Token::ZERO) {
                Ok(None) if self.patience == Patience::No => return Err(LockError::WOULD_BLOCK),
                Ok(None) => {}
                Ok(Some(taken)) if taken.widened_by.is_none() => self.slot(Ok(taken))?,
                // Host scope is reached through the turnstile.
                Ok(Some(taken)) => slot.release(taken.predecessor),
                Err(error) => self.slot(Err(error))?,
            }
        }
        Ok(())
    }

    /// What came of the wait for the turnstile.
    pub(super) fn turnstile(&mut self, is_won: bool) -> Result<()> {
        if !is_won && self.looks_again() && !self.named.is_over(self.goal) {
            self.begin_again();
            return Ok(());
        }
        if !is_won {
            return Err(match self.named.is_over(self.goal) {
                true => self.named.closed(),
                false => self.held_here(),
            });
        }
        self.held.add(THREAD);
        self.at = At::Below;
        Ok(())
    }

    /// The scope in force may have grown while it waited: it shows now.
    pub(super) fn look_up(&mut self) -> Result<()> {
        let entry = &self.named.entry;
        self.goal = self.goal.max(entry.scope_in_force());
        self.is_ahead = self.goal > entry.scope_in_force();
        // Also where it goes no further: the one before may have lost the turnstile on its way.
        entry.climbs_to(if self.is_ahead { self.goal } else { Scope::Thread });
        if self.goal > Scope::Thread {
            self.named.check_open(self.goal)?;
        }
        self.found_thread = self.found(entry.thread().predecessor());
        self.tell(self.found_thread);
        self.known = entry.thread().last_token().max(entry.highest_token());
        self.held.set_scope(Scope::Process.min(self.goal));
        self.at = match self.goal {
            // Without a service it is the slot that tells which process widened the name.
            Scope::Host if self.named.reach.has_leader() || !self.named.entry.has_slot() => {
                At::Word
            }
            Scope::Host | Scope::Process if self.named.entry.has_slot() => At::Slot,
            _ => {
                // The thread lock is the gate. A reader counts no token.
                self.held.token = match self.mode {
                    LockMode::Shared => entry.thread().last_token(),
                    _ => entry.thread().count().token,
                };
                At::Gate
            }
        };
        Ok(())
    }

    #[cfg(feature = "process")]
    pub(super) fn slot(&mut self, taken: Result<Taken>) -> Result<()> {
        let named = self.named;
        let about = named.about(Scope::Process);
        let is_timeout = taken.as_ref().is_err_and(LockError::is_timeout);
        if is_timeout && self.looks_again() && !named.reach.is_closed() {
            self.begin_again();
            return Ok(());
        }
        let taken = taken.map_err(|error| match error.is_timeout() && named.reach.is_closed() {
            true => named.closed(),
            false => about(error),
        })?;
        self.held.add(SLOT);
        self.found_slot = self.found(taken.predecessor);
        self.tell(self.found_slot);
        self.held.token = taken.token;
        if let Some(by) = &taken.widened_by {
            if !named.reach.has_leader() {
                return Err(about(LockError::config(format!(
                    "it is locked at host scope by {by}, and this manager has no leaders: give it \
                     the same leaders"
                ))));
            }
            self.goal = Scope::Host;
        }
        self.taken = Some(taken);
        self.at = if self.goal == Scope::Host { At::Word } else { At::Gate };
        Ok(())
    }

    /// How a gate was left. What a holder of permits does is told to none: they stand for no data.
    pub(super) fn found(&self, left: Predecessor) -> Predecessor {
        match self.mode {
            LockMode::Permits(_) => Predecessor::Clean,
            _ => left,
        }
    }

    /// At most one guard of a name is inside in this process, also after its right was lost, but for
    /// readers beside each other.
    pub(super) fn enter_cell(&mut self) -> bool {
        if self.held.scope() == Scope::Thread {
            return true; // a name is widened under the thread lock, which this one has
        }
        if self.mode != LockMode::Exclusive || self.is_cell_taken() {
            let is_free = !self.is_cell_taken();
            return is_free && (!self.held.is_apart() || self.named.enter_apart(&mut self.held));
        }
        let is_free = self.named.entry.cell.enter(self.generation());
        if is_free {
            self.held.add(INSIDE);
        }
        is_free
    }
}
