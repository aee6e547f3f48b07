//! What a guard holds, from the grant to the giving back.

use std::{
    cell::UnsafeCell,
    future::Future,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull,
    sync::{Arc, OnceLock},
};

use super::{
    Anchor, GuardHold, GuardState, Keeper,
    mode::{Exclusive, GuardMode, UpgradableRead},
};
use crate::{
    error::{LockError, LostReason, Predecessor, Result},
    fork,
    path::{Aside, Core, Held, Named, SlotPlace, Straight, Won},
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

    /// Locks by the shortcut of a lock that is `named`, this one's, for a guard that borrows, which the caller
    /// makes then: what was won stands here. False leaves everything as it was, and the slower ways find out
    /// what it is.
    #[inline]
    pub(crate) fn lock_straight(&self, named: &Named) -> bool {
        !std::thread::panicking() && self.lock_straight_named(named)
    }

    // One call, and one bit that comes back. Each rare branch ends in a call with no more than registers
    // hold, so that this saves none of them.
    #[inline(never)]
    fn lock_straight_named(&self, named: &Named) -> bool {
        match named.lock_straight() {
            Straight::Won(won) => self.put_straight(won),
            Straight::Refused => false,
            Straight::Aside(place, Aside::Beside) => self.go_on(named, place, Aside::Beside),
            Straight::Aside(place, Aside::Uncounted) => self.go_on(named, place, Aside::Uncounted),
            Straight::Aside(place, Aside::Occupied(token)) => {
                self.go_on(named, place, Aside::Occupied(token))
            }
        }
    }

    #[inline]
    fn put_straight(&self, won: Won) -> bool {
        // SAFETY: the state belongs to the holder of the lock, and that is the caller; an inherited
        // guard in a forked child only reads it.
        let is_new = unsafe { &*self.state.get() }.held.is_nothing();
        if !is_new {
            return self.put_slowly(won);
        }
        // SAFETY: the same, and there is no inherited guard.
        unsafe { &mut *self.state.get() }.held.put(won);
        true
    }

    #[inline(never)]
    fn go_on(&self, named: &Named, place: SlotPlace<'_>, aside: Aside) -> bool {
        named.go_on(place, aside).is_some_and(|won| self.put_straight(won))
    }

    /// The same where something stands in the state: a guard that was inherited, and what was won is
    /// released. A slower way says so to the caller.
    #[cold]
    fn put_slowly(&self, won: Won) -> bool {
        // SAFETY: it was just won, and no guard was made of it.
        unsafe { self.install(won.into(), None) }.is_ok()
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
        // SAFETY: alive as long as the guard: borrowed for `'a`, or kept by the state's keeper.
        match unsafe { &self.anchor.as_ref().core } {
            Core::Plain(plain) if !M::READS && self.state().is_quiet() => {
                plain.lock.release(Predecessor::Clean);
            }
            // SAFETY: this is the holder, which goes.
            Core::Named(_) if !M::READS && !std::thread::panicking() => unsafe {
                release_named(self.anchor);
            },
            // SAFETY: the same.
            Core::Named(_) if !M::READS => unsafe { release_roundabout(self.anchor) },
            _ if M::SHARES => self.release(),
            // By its anchor, not by a reference to the guard: so that lies in registers until here.
            // SAFETY: the same.
            _ => unsafe { release_sole(self.anchor, M::READS) },
        }
    }
}

impl GuardState {
    /// Whether releasing it takes no more than to release what is held, left clean.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.keeper.is_none() && !self.was_panicking && !std::thread::panicking()
    }
}

/// Releases a named lock whose holder may have changed what it protects, and does not panic.
///
/// # Safety
/// The caller is the holder, whose guard goes, and no other reference to the state exists. The anchor is
/// alive as long as the guard.
#[inline(never)]
unsafe fn release_named(anchor: NonNull<Anchor>) {
    // SAFETY: the contract.
    let at = unsafe { anchor.as_ref() };
    if let Core::Named(named) = &at.core
        // SAFETY: the contract. The reference ends before the lock is released.
        && let Some((place, token)) = named.take_straight(unsafe { &mut (*at.state.get()).held })
    {
        return named.release_straight(place, token);
    }
    // SAFETY: the contract.
    unsafe { release_roundabout(anchor) }
}

/// The same where it was not won straight, or has something besides.
///
/// # Safety
/// As of [`release_named`].
#[inline(never)]
unsafe fn release_roundabout(anchor: NonNull<Anchor>) {
    let generation = fork::generation();
    // SAFETY: the contract.
    let at = unsafe { anchor.as_ref() };
    // SAFETY: the contract.
    let state = unsafe { &mut *at.state.get() };
    match &at.core {
        Core::Named(named) if state.is_quiet() && state.held.is_quiet_in(generation) => {
            let (won, told) = (state.held.take_won(), state.held.take_hold_span());
            match told {
                None => named.release_quietly(won, generation),
                Some(told) => named.release_told(won, told, generation),
            }
        }
        // SAFETY: the contract.
        _ => unsafe { release_sole(anchor, false) },
    }
}

/// Releases a lock that only one guard has, whatever it is; `reads`: in a mode that changes nothing.
///
/// # Safety
/// As of [`release_named`].
#[inline(never)]
unsafe fn release_sole(anchor: NonNull<Anchor>, reads: bool) {
    match reads {
        true => GuardHold::<UpgradableRead>::of(anchor).release(),
        false => GuardHold::<Exclusive>::of(anchor).release(),
    }
}

impl<M: GuardMode<Own = ()>> GuardHold<'_, M> {
    /// That of a guard which goes.
    fn of(anchor: NonNull<Anchor>) -> ManuallyDrop<Self> {
        ManuallyDrop::new(GuardHold { anchor, own: (), marker: PhantomData })
    }
}
