//! The fast paths: a lock that nothing stands in the way of, and its release.

use super::ground::{GatePlace, NameEntry, SlotPlace, WordWon};
use crate::{
    clock,
    error::Predecessor,
    fork,
    host::{
        lease_word::{Entered, Entering, LeaseWord, Left, Used},
        service::LeaseService,
    },
    scope::Scope,
    token::Token,
};

use super::{
    named::{Keep, Named, QuietCaller},
    right::{Held, INSIDE, LEASE, LeasedPermits, SLOT, THREAD, Won, short},
    spans,
};

impl Named {
    /// A lock that nothing stands in the way of: its gate is open, and no guard of this process is
    /// inside. `None` leaves everything as it was, and the climb finds out what it is.
    #[inline]
    pub(crate) fn lock_quietly(&self, caller: QuietCaller) -> Option<Won> {
        let won = match self.lock_straight() {
            Straight::Won(won) => Some(won),
            Straight::Refused => None,
            Straight::Aside(place, aside) => self.go_on(place, aside),
        };
        won.or_else(|| self.lock_roundabout(caller))
    }

    /// The same by the [shortcut](Named::shortcut), and no further than it goes straight on.
    ///
    /// What it does not ask does not change once the shortcut leads anywhere, but for the scope in force,
    /// which is host scope by now or what it was. That is asked; and grown since then, it shows in the word,
    /// which has WIDE.
    #[inline]
    pub(crate) fn lock_straight(&self) -> Straight<'_> {
        if spans::are_wanted() {
            return Straight::Refused; // the climb has them
        }
        let Some(place) = self.shortcut.here() else { return Straight::Refused };
        let entry = &*self.entry;
        if self.reach.is_closed() || entry.is_at_host_scope() {
            return Straight::Refused;
        }
        match place.take_word() {
            None => Straight::Refused,
            Some(WordWon::Beside) => Straight::Aside(place, Aside::Beside),
            Some(WordWon::Alone) => enter_straight(entry, place),
        }
    }

    /// Goes on from there.
    #[inline]
    pub(crate) fn go_on(&self, place: SlotPlace<'_>, aside: Aside) -> Option<Won> {
        match aside {
            Aside::Beside if place.is_alone() => match enter_straight(&self.entry, place) {
                Straight::Won(won) => Some(won),
                Straight::Refused => None,
                Straight::Aside(place, aside) => {
                    step_aside(place, aside);
                    None
                }
            },
            Aside::Beside => None,
            aside => {
                step_aside(place, aside);
                None
            }
        }
    }

    /// The same without it: every gate is looked up. Where it leads to the gate, that was in vain.
    #[inline(never)]
    pub(crate) fn lock_roundabout(&self, caller: QuietCaller) -> Option<Won> {
        if caller != QuietCaller::Look && spans::are_wanted() {
            return None; // the climb has them
        }
        let generation = fork::generation();
        let in_force = self.entry.scope_in_force_in(generation);
        if self.scope() > in_force {
            return None; // the first lock at this scope widens the name
        }
        if caller != QuietCaller::Look && in_force == Scope::Process && self.is_short(generation) {
            return None; // once more would only take the word's cache line from its holder
        }
        let won = self.enter_gate(in_force, generation)?;
        if !self.reach.guards_stay && won.parts() == SLOT | INSIDE {
            self.entry.shorten(&self.shortcut, generation);
        }
        if caller == QuietCaller::Thread && self.reach.guards_stay {
            self.stays_here(won.token);
        }
        Some(won)
    }

    /// The gate of the scope in force, which may have grown since it was read: that shows in the word of
    /// the narrower gate, or once the narrower gate is won.
    #[inline]
    pub(crate) fn enter_gate(&self, in_force: Scope, generation: u64) -> Option<Won> {
        if self.has_terms {
            return None;
        }
        match in_force {
            Scope::Thread => self.enter_thread(Scope::Thread, generation),
            _ if self.reach.is_closed() => None,
            Scope::Process => match self.entry.place(generation) {
                GatePlace::Slot(place) => self.enter_slot(place, generation),
                GatePlace::Unknown => None,
                GatePlace::NoSlot => self.enter_thread(Scope::Process, generation),
            },
            Scope::Host => self.enter_lease(generation),
        }
    }

    /// Whether the shortcut leads to the slot. Else the name has moved, perhaps.
    fn is_short(&self, generation: u64) -> bool {
        match (self.shortcut.here(), self.entry.place(generation)) {
            (Some(known), GatePlace::Slot(place)) => known.is(place),
            _ => false,
        }
    }

    #[inline]
    fn enter_thread(&self, scope: Scope, generation: u64) -> Option<Won> {
        let thread = self.entry.thread_in(generation);
        if !thread.win_quietly() {
            return None;
        }
        if self.entry.scope_in_force_in(generation) != scope {
            // A turnstile was won, and no gate.
            thread.step_out();
            return None;
        }
        let taken = thread.count_or_unlock();
        Some(Won::new(taken.token, taken.predecessor, scope, THREAD, generation))
    }

    #[inline]
    fn enter_slot(&self, place: SlotPlace<'_>, generation: u64) -> Option<Won> {
        // A word without WIDE is expected, so the scope in force has not grown.
        let token = place.take()?;
        if !self.entry.cell.enter(short(generation)) {
            place.release(token);
            return None;
        }
        Some(Won::new(token, Predecessor::Clean, Scope::Process, SLOT | INSIDE, generation))
    }

    #[inline]
    fn enter_lease(&self, generation: u64) -> Option<Won> {
        let tier = self.host_tier_in(generation).filter(|_| self.enters_kept())?;
        let (token, predecessor) = tier.enter()?;
        if !self.entry.cell.enter(short(generation)) {
            tier.leave(token, predecessor);
            return None;
        }
        Some(Won::new(token, predecessor, Scope::Host, LEASE | INSIDE, generation))
    }

    /// What the straight way has won, if that is all that is held, and where it is; nothing of it is left
    /// there. To be released by [`release_straight`](Named::release_straight).
    #[inline]
    pub(crate) fn take_straight(&self, held: &mut Held) -> Option<(SlotPlace<'_>, Token)> {
        let place = self.shortcut.here()?;
        let token = held.take_bare_slot(place.generation())?;
        Some((place, token))
    }

    /// Releases it, left clean.
    #[inline]
    pub(crate) fn release_straight(&self, place: SlotPlace<'_>, token: Token) {
        self.entry.cell.leave();
        place.release(token);
    }

    /// Releases what [`is_quiet_in`](super::Held::is_quiet_in) this fork generation, the caller's, left
    /// clean.
    #[inline]
    pub(crate) fn release_quietly(&self, won: Won, generation: u64) {
        match won.parts() {
            // What the fast paths win.
            parts if parts == SLOT | INSIDE => match self.entry.place(generation) {
                GatePlace::Slot(place) => {
                    self.entry.cell.leave();
                    place.release(won.token);
                }
                _ => self.release_parts(won, generation),
            },
            THREAD => self.entry.thread_in(generation).release(Predecessor::Clean),
            _ => self.release_parts(won, generation),
        }
    }

    fn release_parts(&self, won: Won, generation: u64) {
        if won.has(INSIDE) {
            self.entry.cell.leave();
        }
        if won.has(SLOT) {
            self.entry.release_slot(won.token, Predecessor::Clean);
        }
        if won.has(LEASE)
            && let Some(tier) = self.host_tier_in(generation)
        {
            tier.leave(won.token, Predecessor::Clean);
        }
        if won.has(THREAD) {
            self.entry.thread_in(generation).release(Predecessor::Clean);
        }
    }

    /// Its lease word and service, if the manager reaches other hosts and is this process's.
    pub(super) fn host_tier(&self) -> Option<HostTier<'_>> {
        self.host_tier_in(fork::generation())
    }

    /// The same, for a caller that knows in which fork generation this process is.
    #[inline]
    pub(super) fn host_tier_in(&self, generation: u64) -> Option<HostTier<'_>> {
        let (word, service) = self.word.as_ref().zip(self.reach.service.as_ref())?;
        let is_ours = match cfg!(feature = "process") {
            true => word.made_in() == generation,
            false => !service.is_forked(),
        };
        is_ours.then_some(HostTier { word, service })
    }

    /// Whether it may take a token of a lease that is kept: a lock that is to end with its lease has
    /// a lease of its own.
    #[inline]
    pub(super) fn enters_kept(&self) -> bool {
        self.keep != Keep::Never && !self.has_terms
    }
}

/// How far the straight way in has led.
pub(crate) enum Straight<'a> {
    Won(Won),
    /// Nowhere: everything is as it was.
    Refused,
    /// The slot's word is won, and to go on takes more than a few steps: that is for
    /// [`go_on`](Named::go_on), so that the few are compiled without what a call needs.
    Aside(SlotPlace<'a>, Aside),
}

/// Why.
#[derive(Clone, Copy)]
pub(crate) enum Aside {
    /// Readers may be inside.
    Beside,
    /// The token takes more than a count.
    Uncounted,
    /// A guard of this process is inside, which has lost its right. This is the token of the new hold.
    Occupied(Token),
}

/// The word is won, and no reader is inside.
#[inline]
fn enter_straight<'a>(entry: &NameEntry, place: SlotPlace<'a>) -> Straight<'a> {
    let Some(token) = place.count() else {
        return Straight::Aside(place, Aside::Uncounted);
    };
    let generation = place.generation();
    if !entry.cell.enter(short(generation)) {
        return Straight::Aside(place, Aside::Occupied(token));
    }
    let (scope, left) = (Scope::Process, Predecessor::Clean);
    Straight::Won(Won::new(token, left, scope, SLOT | INSIDE, generation))
}

/// Gives back what was won so far.
fn step_aside(place: SlotPlace<'_>, aside: Aside) {
    match aside {
        Aside::Beside | Aside::Uncounted => place.leave_uncounted(),
        Aside::Occupied(token) => place.release(token),
    }
}

/// The lease word of a name, and what grants its leases.
#[derive(Clone, Copy)]
pub(super) struct HostTier<'a> {
    pub(super) word: &'a std::sync::Arc<LeaseWord>,
    pub(super) service: &'a std::sync::Arc<dyn LeaseService>,
}

impl HostTier<'_> {
    /// Reads under a shared lease, if it is good: its token, and how the last writer left.
    #[inline]
    pub(super) fn read(self) -> Option<(Token, Predecessor)> {
        let (token, predecessor) = self.word.read()?;
        self.check_shared(token, predecessor)
    }

    /// Whether the reader that has come in may go on; else the lease is given back.
    #[inline]
    pub(super) fn check_shared(
        self,
        token: Token,
        predecessor: Predecessor,
    ) -> Option<(Token, Predecessor)> {
        // What has ended at a deadline is marked before the deadline moves.
        let deadline = self.word.session_deadline();
        if !self.word.is_good(deadline, clock::now()) {
            if let Some(used) = self.word.leave_shared_and_close() {
                self.give_back(&used);
            }
            return None;
        }
        Some((token, predecessor))
    }

    /// A reader leaves. The lease stays, unless a writer waits for it and no reader is left.
    #[inline]
    pub(super) fn leave_shared(self) {
        match self.word.leave_shared() {
            Left::Kept | Left::Stale => {}
            left => self.left(left, None),
        }
    }

    /// Permits go back: a part of those of their lease, or the last of them.
    pub(super) fn leave_permits(self, leased: &LeasedPermits, count: u32) {
        if let Some(used) = self.leave_permits_and_close(leased, count) {
            self.service.give_back(&leased.word, &used);
        }
    }

    /// The same; answers the lease that is to be given back, if that were the last of its permits.
    pub(super) fn leave_permits_and_close(
        self,
        leased: &LeasedPermits,
        count: u32,
    ) -> Option<Used> {
        let left = leased.leave(count);
        if left > 0 {
            self.service.lower(&leased.word, left);
        }
        leased.word.leave_shared_and_close()
    }

    /// Takes the next token of a lease that is kept, if it is good: that, and how the last local
    /// holder left.
    #[inline]
    fn enter(self) -> Option<(Token, Predecessor)> {
        match self.word.enter() {
            Entering::Entered(entered) => self.check(entered),
            Entering::UsedUp(used) => {
                self.give_back(&used);
                None
            }
            Entering::Refused => None,
        }
    }

    /// Whether the guard that has entered may go on; else the lease is given back.
    #[inline]
    pub(super) fn check(self, entered: Entered) -> Option<(Token, Predecessor)> {
        let Entered { token, predecessor, is_running_short } = entered;
        // What has ended at a deadline is marked before the deadline moves.
        let deadline = self.word.session_deadline();
        if !self.word.is_good(deadline, clock::now()) {
            if let Some(used) = self.word.leave_and_close(token, predecessor) {
                self.give_back(&used);
            }
            return None;
        }
        if is_running_short {
            self.service.top_up(self.word);
        }
        Some((token, predecessor))
    }

    /// A guard leaves. The lease stays, unless another session waits for it.
    #[inline]
    pub(super) fn leave(self, token: Token, how: Predecessor) {
        match self.word.leave(token, how) {
            Left::Kept | Left::Stale => {}
            left => self.left(left, None),
        }
    }

    /// The same, of a guard that did nothing under it: a service that hears of no token used
    /// reserves nothing for it.
    pub(super) fn leave_unused(self, token: Token, how: Predecessor) {
        self.left(self.word.leave(token, how), Some(token));
    }

    #[cold]
    fn left(self, left: Left, unused: Option<Token>) {
        if let Left::GivesBack(used) = left {
            self.give_back(&unused.map_or(used, |token| used.without(token)));
        }
        self.word.wake();
    }

    #[cold]
    pub(super) fn give_back(self, used: &Used) {
        self.service.give_back(self.word, used);
    }
}
