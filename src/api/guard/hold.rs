//! What a guard holds, from the grant to the giving back.

use std::{
    cell::UnsafeCell,
    future::Future,
    mem::ManuallyDrop,
    sync::{Arc, OnceLock},
};

use super::{Anchor, GuardHold, GuardState, Keeper, mode::GuardMode};
use crate::{
    error::{LockError, LostReason, Predecessor, Result},
    fork,
    path::{Core, Held, Won},
    scope::Scope,
    time::Time,
    token::Token,
    watch::Watch,
};

impl Anchor {
    pub(crate) const fn new(core: Core) -> Anchor {
        let state = GuardState {
            held: Held::NOTHING,
            keeper: None,
            was_panicking: false,
            told: OnceLock::new(),
        };
        Anchor { core, state: UnsafeCell::new(state) }
    }

    /// Keeps what was won until the guard is dropped.
    ///
    /// # Errors
    /// `Config` in a forked child, if a guard of this very mutex existed at the fork: the child has
    /// inherited that guard, and a second one of its own would be a second way to the same data.
    /// What was won is released.
    ///
    /// # Safety
    /// The lock was just won by this call's thread or task, and no guard was made of it yet.
    #[inline]
    pub(crate) unsafe fn install(&self, held: Held, keeper: Option<Arc<dyn Keeper>>) -> Result<()> {
        // SAFETY: the state belongs to the holder of the lock, and that is the caller; an inherited
        // guard in a forked child only reads it, and then no thread writes it.
        if unsafe { &*self.state.get() }.held.is_inherited() {
            return self.refuse(held);
        }
        // SAFETY: the same, and there is no inherited guard.
        let state = unsafe { &mut *self.state.get() };
        state.keeper = keeper;
        state.was_panicking = std::thread::panicking();
        // Of an unnamed mutex it is nothing that its release needs; of a lock with readers it is.
        if matches!(self.core, Core::Named(_)) || held.is_readable() {
            state.held = held;
        }
        Ok(())
    }

    /// What `install` does for what was won quietly, for a guard that borrows: what stands in the
    /// state while there is no guard stays as it is.
    ///
    /// # Errors, safety
    /// As [`install`](Self::install).
    #[inline]
    pub(crate) unsafe fn install_won(&self, won: Won) -> Result<()> {
        // SAFETY: the same contract.
        let is_new = unsafe { &*self.state.get() }.held.is_nothing();
        if !is_new || std::thread::panicking() {
            // SAFETY: the same contract.
            return unsafe { self.install(won.into(), None) };
        }
        // SAFETY: the same contract, and there is no inherited guard.
        unsafe { &mut *self.state.get() }.held.put(won);
        Ok(())
    }

    /// Runs `look` while no other thread or task has the data, if no guard exists just now and none
    /// was inherited by a fork.
    pub(crate) fn look<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        self.core.look(|| {
            // SAFETY: the state belongs to the holder of the lock, and an inherited guard in a forked
            // child only reads it.
            let is_inherited = unsafe { &*self.state.get() }.held.is_inherited();
            (!is_inherited).then(look)
        })?
    }

    #[cold]
    fn refuse(&self, mut held: Held) -> Result<()> {
        let how = held.predecessor();
        self.core.release(&mut held, how);
        let error = LockError::config(
            "a guard of this mutex existed when this process was forked: build another mutex of \
             this name in the child",
        );
        Err(match &self.core {
            Core::Plain(_) => error,
            Core::Named(named) => error.with_name(named.name()),
        })
    }

    /// What `install` does for a quiet lock of an unnamed mutex that a guard borrows: nothing,
    /// unless a panic is under way.
    ///
    /// # Safety
    /// As [`install`](Self::install).
    #[inline]
    pub(crate) unsafe fn install_plain(&self) {
        if std::thread::panicking() {
            // SAFETY: the same contract.
            let installed = unsafe { self.install(Held::NOTHING, None) };
            debug_assert!(installed.is_ok(), "an unnamed mutex knows no forks");
        }
    }
}

impl Drop for Anchor {
    /// No guard borrows the mutex any more, and none owns a share of it: what is still held is that
    /// of a guard which was forgotten.
    fn drop(&mut self) {
        let held = &mut self.state.get_mut().held;
        if !held.is_nothing() {
            let mut held = held.take();
            self.core.release(&mut held, Predecessor::Died);
        }
    }
}

impl<M: GuardMode> GuardHold<'_, M> {
    #[inline]
    pub(super) fn anchor(&self) -> &Anchor {
        // SAFETY: alive as long as the guard: borrowed for `'a`, or kept by the state's keeper.
        unsafe { self.anchor.as_ref() }
    }

    #[inline]
    pub(super) fn state(&self) -> &GuardState {
        match M::own(&self.own) {
            Some(own) => own,
            // SAFETY: this is the holder, and changing the state takes the `GuardHold` itself.
            None => unsafe { &*self.anchor().state.get() },
        }
    }

    pub(super) fn held(&self) -> &Held {
        &self.state().held
    }

    pub(super) fn token(&self) -> Token {
        match &self.anchor().core {
            Core::Plain(plain) if !M::SHARES => plain.lock.last_token(),
            _ => self.held().present_token(),
        }
    }

    pub(super) fn predecessor(&self) -> Predecessor {
        match &self.anchor().core {
            Core::Plain(plain) if !M::SHARES => plain.lock.predecessor(),
            _ => self.held().predecessor(),
        }
    }

    pub(super) fn scope(&self) -> Scope {
        // Of an unnamed mutex it is `NOTHING`, of thread scope.
        self.held().scope()
    }

    pub(super) fn watch(&self) -> Option<Arc<Watch>> {
        match &self.anchor().core {
            Core::Plain(_) => None,
            Core::Named(named) if named.has_own_watch(self.held()) => {
                let told = &self.state().told;
                if let Some(watch) = told.get() {
                    return Some(watch.clone());
                }
                let watch = named.watch(self.held())?;
                let kept = told.get_or_init(|| watch.clone());
                if !Arc::ptr_eq(kept, &watch) {
                    named.end_reader_watch(self.held(), &watch); // another thread was first
                }
                Some(kept.clone())
            }
            Core::Named(named) => named.watch(self.held()),
        }
    }

    pub(super) fn deadline(&self) -> Time {
        match &self.anchor().core {
            Core::Plain(_) => Time::NEVER,
            Core::Named(named) => named.deadline(self.held()),
        }
    }

    pub(super) fn lost(&self) -> Option<LostReason> {
        if self.held().is_forked() {
            return Some(LostReason::Forked);
        }
        match &self.anchor().core {
            Core::Plain(_) => None,
            Core::Named(named) => named.lost(self.held()),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.lost() {
            None => Ok(()),
            Some(reason) => Err(self.describe(LockError::lost(reason))),
        }
    }

    #[cold]
    fn describe(&self, error: LockError) -> LockError {
        let error = error.with_scope(self.scope());
        match &self.anchor().core {
            Core::Plain(_) => error,
            Core::Named(named) => error.with_name(named.name()),
        }
    }

    /// Whether releasing it takes no more than to release the thread lock, left clean.
    #[inline]
    fn is_quiet(&self) -> bool {
        let state = self.state();
        state.keeper.is_none() && !state.was_panicking && !std::thread::panicking()
    }

    #[inline(never)]
    fn release(&mut self) {
        if self.held().is_forked() {
            // The parent's guard, of which the child has but a copy: it stays as it is for good.
            return;
        }
        let (mut held, keeper, how) = self.take();
        self.anchor().core.release(&mut held, how);
        drop(keeper);
    }

    /// Gives back what nothing was done under.
    pub(super) fn give_back(self) {
        let mut hold = ManuallyDrop::new(self);
        if hold.held().is_forked() {
            return;
        }
        let (mut held, keeper, _) = hold.take();
        hold.anchor().core.give_back(&mut held);
        drop(keeper);
    }

    /// Releases it to the first in line.
    pub(super) fn release_fairly(self) {
        let mut hold = ManuallyDrop::new(self);
        if hold.held().is_forked() {
            return;
        }
        let (mut held, keeper, how) = hold.take();
        hold.anchor().core.release_fairly(&mut held, how);
        drop(keeper);
    }

    /// Whether a waiter may stand behind it.
    pub(super) fn may_be_waited_for(&self) -> bool {
        self.anchor().core.may_be_waited_for(self.held(), M::SHARES)
    }

    pub(super) fn release_answered(self) -> impl Future<Output = Result<()>> + Send + 'static {
        self.release_answered_as(None)
    }

    /// The same, with another word on how it is left.
    pub(super) fn release_answered_as(
        self,
        said: Option<Predecessor>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let mut hold = ManuallyDrop::new(self);
        let answer = (!hold.held().is_forked()).then(|| {
            let (mut held, keeper, how) = hold.take();
            let is_unused = said.is_some();
            let core = &hold.anchor().core;
            let answer = core.release_answered(&mut held, said.unwrap_or(how), is_unused);
            drop(keeper);
            answer
        });
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(()),
            }
        }
    }

    /// Empties the state, for the next holder. The keeper is to be dropped last.
    pub(super) fn take(&mut self) -> (Held, Option<Arc<dyn Keeper>>, Predecessor) {
        let before = self.predecessor();
        let anchor = self.anchor;
        // SAFETY: alive as long as the guard: borrowed for `'a`, or kept by the state's keeper.
        let anchor = unsafe { anchor.as_ref() };
        let state = match M::own_mut(&mut self.own) {
            Some(own) => own,
            // SAFETY: this is the holder, and no other reference to the state exists.
            None => unsafe { &mut *anchor.state.get() },
        };
        if let Some(watch) = state.told.take()
            && let Core::Named(named) = &anchor.core
        {
            named.end_reader_watch(&state.held, &watch);
        }
        let panicked = std::thread::panicking() && !state.was_panicking;
        let how = match (M::READS, panicked) {
            (true, _) => before,
            (false, true) => Predecessor::Panicked,
            (false, false) => Predecessor::Clean,
        };
        state.was_panicking = false;
        (state.held.take(), state.keeper.take(), how)
    }
}

impl<M: GuardMode> Drop for GuardHold<'_, M> {
    // So little that it is compiled into the caller: a call costs a fifteenth of a quiet lock.
    #[inline]
    fn drop(&mut self) {
        if let Some(own) = M::own_mut(&mut self.own)
            && own.keeper.is_none()
            && own.told.get().is_none()
        {
            // SAFETY: alive as long as the guard: borrowed for `'a`.
            let core = unsafe { &self.anchor.as_ref().core };
            if core.leave_quietly(&mut own.held) {
                return;
            }
        }
        match &self.anchor().core {
            Core::Plain(plain) if !M::READS && self.is_quiet() => {
                plain.lock.release(Predecessor::Clean);
            }
            _ => self.release_more(),
        }
    }
}

impl<M: GuardMode> GuardHold<'_, M> {
    /// Releases a named lock, or of one with something besides.
    #[inline(never)]
    fn release_more(&mut self) {
        let generation = fork::generation();
        match &self.anchor().core {
            Core::Named(named)
                if !M::READS && self.is_quiet() && self.held().is_quiet_in(generation) =>
            {
                // SAFETY: this is the holder, and no other reference to it exists.
                let held = unsafe { &mut (*self.anchor().state.get()).held };
                let (won, told) = (held.take_won(), held.take_hold_span());
                match told {
                    None => named.release_quietly(won, generation),
                    Some(told) => named.release_told(won, told, generation),
                }
            }
            _ => self.release(),
        }
    }
}
