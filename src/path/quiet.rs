//! The fast paths: a lock that nothing stands in the way of, and its release.

use crate::{
    error::Predecessor,
    ground::{self, Place},
    scope::Scope,
    thread::ThreadLock,
    token::Token,
};
#[cfg(any(feature = "host", feature = "testing"))]
use crate::{
    clock,
    host::{
        kept::{Entered, Kept, Used},
        link::Link,
    },
    overwriting::LetGo,
    thread::Taken,
    time::Time,
};

use super::{
    named::Named,
    right::{INSIDE, KEPT, SLOT, THREAD, Won, short},
};

impl Named {
    /// A lock that nothing stands in the way of: its gate is open, and no guard of this process is
    /// inside. `None` leaves everything as it was, and the climb finds out what it is.
    #[inline]
    pub(crate) fn lock_quietly(&self) -> Option<Won> {
        let in_force = self.entry.scope_in_force();
        if self.scope() > in_force {
            return None; // the first lock at this scope widens the name
        }
        self.lock_quietly_at(in_force)
    }

    /// The same, after a look at the scope in force. It may have grown since: that shows in the
    /// word of the narrower gate, or once the narrower gate is won.
    #[inline]
    pub(crate) fn lock_quietly_at(&self, in_force: Scope) -> Option<Won> {
        if self.has_terms {
            return None;
        }
        let generation = ground::generation();
        match in_force {
            Scope::Thread => self.enter_thread(Scope::Thread, generation),
            _ if self.reach.is_closed() => None,
            Scope::Process => match self.entry.place(generation)? {
                Some(place) => self.enter_slot(place, generation),
                // No other process has this ground: the thread lock is the gate.
                None => self.enter_thread(Scope::Process, generation),
            },
            Scope::Host => self.enter_lease(generation),
        }
    }

    #[inline]
    fn enter_thread(&self, scope: Scope, generation: u64) -> Option<Won> {
        let thread = self.entry.thread_in(generation);
        let taken = thread.take_quietly()?;
        if self.entry.scope_in_force() != scope {
            // A turnstile was won, and no gate.
            thread.step_out();
            return None;
        }
        Some(Won::new(taken.token, taken.predecessor, scope, THREAD, generation))
    }

    #[inline]
    fn enter_slot(&self, place: Place<'_>, generation: u64) -> Option<Won> {
        // A word without WIDE is expected, so the scope in force has not grown.
        let token = place.take(Token::ZERO, false)?;
        if !self.entry.cell.enter(short(generation)) {
            place.release(token, false);
            return None;
        }
        Some(Won::new(token, Predecessor::Clean, Scope::Process, SLOT | INSIDE, generation))
    }

    /// Releases what [`is_quiet`](super::Held::is_quiet), left clean.
    #[inline]
    pub(crate) fn release_quietly(&self, won: Won) {
        let generation = ground::generation();
        if won.has(INSIDE) {
            self.entry.cell.leave();
        }
        if !won.has(THREAD) {
            return match self.entry.place(generation).flatten() {
                Some(place) => place.release(won.token, false),
                None => self.entry.release_slot(won.token),
            };
        }
        let thread = self.entry.thread_in(generation);
        #[cfg(any(feature = "host", feature = "testing"))]
        if won.has(KEPT) {
            return self.leave_kept_quietly(won, thread, generation);
        }
        if won.has(SLOT) {
            self.entry.release_slot(won.token);
        }
        thread.release(Predecessor::Clean);
    }
}

// ---- host scope ----------------------------------------------------------------------------

/// A lease that was kept and not in use when it was looked at.
#[cfg(any(feature = "host", feature = "testing"))]
#[derive(Clone, Copy)]
struct Idle<'a> {
    kept: &'a Kept,
    link: &'a Link,
    seen: u64,
    deadline: Time,
}

/// The token that was won below, and what [`Idle::enter`] says.
#[cfg(any(feature = "host", feature = "testing"))]
type Behind = (Option<Token>, Option<(Token, Predecessor)>);

#[cfg(any(feature = "host", feature = "testing"))]
impl Idle<'_> {
    /// Takes its next token, if it is good: that, and how the last local holder left.
    #[inline(always)]
    fn enter(self, at_least: Token) -> Option<(Token, Predecessor)> {
        self.check(self.kept.enter_as_seen(self.seen, at_least)?)
    }

    /// The same, once the tier below is won; what came of both.
    #[inline(always)]
    fn enter_behind(self, below: impl FnOnce() -> Option<Token>) -> Behind {
        let (next, entered) = self.kept.enter_behind(self.seen, below);
        (next, entered.and_then(|entered| self.check(entered)))
    }

    /// Whether the holder that has entered may go on; else the lease is given back.
    #[inline(always)]
    fn check(self, entered: Entered) -> Option<(Token, Predecessor)> {
        // What has ended at a deadline is marked before the deadline moves. One that was the same
        // before and after has not moved, and when it was entered nothing was marked.
        let deadline = self.link.deadline();
        let is_lost = || deadline != self.deadline && self.kept.lost().is_some();
        if clock::now() >= deadline || is_lost() {
            self.link.give_back(self.kept, &self.kept.leave_for_good(entered.predecessor));
            return None;
        }
        if entered.is_running_short {
            self.link.top_up(self.kept);
        }
        Some((entered.token, entered.predecessor))
    }
}

#[cfg(not(any(feature = "host", feature = "testing")))]
impl Named {
    fn enter_lease(&self, _: u64) -> Option<Won> {
        None
    }
}

#[cfg(any(feature = "host", feature = "testing"))]
impl Named {
    fn enter_lease(&self, generation: u64) -> Option<Won> {
        let idle = self.idle(generation)?;
        let thread = self.entry.thread_in(generation);
        let mut won = THREAD | KEPT | INSIDE;
        let taken = match self.entry.place(generation)? {
            None => self.enter_behind_thread(thread, |last: Token| idle.enter(last.next()?))?,
            Some(place) => {
                won |= SLOT;
                self.enter_behind_thread(thread, |last| {
                    let (next, entered) = idle.enter_behind(|| place.take(last, true));
                    let next = next?;
                    match entered {
                        None => place.release(next, true),
                        Some((token, _)) if token != next => self.entry.raise_slot(token),
                        Some(_) => {}
                    }
                    entered
                })?
            }
        };
        let Taken { token, predecessor } = taken;
        let won = Won::new(token, predecessor, Scope::Host, won, generation);
        if !self.entry.cell.enter(short(generation)) {
            self.leave_kept_quietly(won, thread, generation);
            return None;
        }
        Some(won)
    }

    /// Wins the thread lock and goes `further`, if host scope is still in force then.
    #[inline(always)]
    fn enter_behind_thread(
        &self,
        thread: &ThreadLock,
        further: impl FnOnce(Token) -> Option<(Token, Predecessor)>,
    ) -> Option<Taken> {
        let is_wide = || self.entry.scope_in_force() == Scope::Host;
        thread.take_further(|last| if is_wide() { further(last) } else { None })
    }

    /// Its lease, if that is kept and idle just now.
    #[inline]
    fn idle(&self, generation: u64) -> Option<Idle<'_>> {
        let (Some(kept), Some(link)) = (&self.kept, &self.reach.link) else { return None };
        let seen = kept.idle()?;
        let is_ours = !link.is_forked_in(generation);
        is_ours.then(|| Idle { kept, link, seen, deadline: link.deadline() })
    }

    /// Leaves the kept lease and releases all below it.
    #[inline]
    fn leave_kept_quietly(&self, won: Won, thread: &ThreadLock, generation: u64) {
        let kept = self.kept.as_ref().expect("what was entered is there");
        let place = match won.has(SLOT) {
            true => self.entry.place(generation).flatten(),
            false => None,
        };
        let let_go = thread.release_behind(|| match place {
            Some(place) => kept.leave_behind(won.token, || place.release_if_quiet(true)),
            None if !won.has(SLOT) => LetGo::all(kept.leave_if_quiet(won.token)),
            None => LetGo::Nothing,
        });
        if let_go == LetGo::All {
            return;
        }
        if let Some(used) = kept.leave_quietly(won.token) {
            self.give_used_back(kept, &used);
        }
        if let_go == LetGo::Nothing && won.has(SLOT) {
            self.make_way();
            match place {
                Some(place) => place.release(won.token, true),
                None => self.entry.release_slot(won.token),
            }
        }
        thread.release(Predecessor::Clean);
    }

    #[cold]
    pub(super) fn give_used_back(&self, kept: &Kept, used: &Used) {
        if let Some(link) = &self.reach.link {
            link.give_back(kept, used);
        }
    }

    /// Gives back what was just left to be kept, if a sibling process is sure to get the slot now:
    /// it would only have it recalled.
    #[cold]
    pub(super) fn make_way(&self) {
        #[cfg(feature = "process")]
        if self.entry.slot().is_some_and(crate::process::Slot::has_heir)
            && let (Some(kept), Some(link)) = (&self.kept, &self.reach.link)
            && let Some(used) = kept.take_idle()
        {
            link.give_back_ahead(kept, &Used { is_recalled: true, ..used });
        }
    }
}
