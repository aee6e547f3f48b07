//! The turn of a task that has won a gate and waits there for readers.
//!
//! A task may be leaked, or never polled again, and must not hold a name up for ever. So its turn
//! lapses when it was not polled for [`LAPSE`]: the gate goes back as it was found, and the task, if
//! it is polled again, begins anew.

use std::sync::{Arc, Weak};

use crate::{
    alarm, clock, error::Predecessor, fork::Mutex, scope::Scope, time::Time, token::Token,
};

use super::{
    named::Named,
    right::{Held, INSIDE, LEASE, SLOT, THREAD},
};

/// A task that waits for readers is woken more often than that.
const LAPSE: std::time::Duration = std::time::Duration::from_millis(200);

/// One turn of a task. Whichever ends it first, the task or the alarm, has what was won.
pub(super) struct GateTurn {
    named: Named,
    won: u8,
    /// Of the lease, if that was won: its token, and how the holder before left.
    token: Token,
    predecessor: Predecessor,
    found_slot: Predecessor,
    found_thread: Predecessor,
    state: Mutex<LapseState>,
}

struct LapseState {
    polled: Time,
    is_over: bool,
}

impl GateTurn {
    /// Begins when the task first waits; `held` is what it has won.
    pub(super) fn begin(
        named: &Named,
        held: &Held,
        found_slot: Predecessor,
        found_thread: Predecessor,
    ) -> Arc<GateTurn> {
        let now = clock::now();
        let state = Mutex::new(LapseState { polled: now, is_over: false });
        let turn = Arc::new(GateTurn {
            named: named.later(),
            won: held.won(),
            token: held.token,
            predecessor: held.predecessor(),
            found_slot,
            found_thread,
            state,
        });
        GateTurn::watch(Arc::downgrade(&turn), now + LAPSE);
        turn
    }

    fn watch(turn: Weak<GateTurn>, at: Time) {
        let look = move || {
            if let Some(next) = turn.upgrade().and_then(|turn| turn.look()) {
                GateTurn::watch(turn, next);
            }
        };
        alarm::call_at(at, look).detach();
    }

    /// When to look again, if at all.
    fn look(&self) -> Option<Time> {
        let mut state = self.state.lock();
        let end = state.polled + LAPSE;
        if state.is_over || clock::now() < end {
            return (!state.is_over).then_some(end);
        }
        state.is_over = true;
        // What is given back wakes waiters, whose wakers may poll or drop this very task.
        drop(state);
        self.give_back();
        None
    }

    /// For the alarm that has ended the turn.
    fn give_back(&self) {
        let entry = &self.named.entry;
        if self.won & INSIDE != 0 {
            entry.cell.leave();
        }
        if self.won & LEASE != 0
            && let Some(tier) = self.named.host_tier()
        {
            tier.leave_unused(self.token, self.predecessor);
        }
        #[cfg(feature = "process")]
        if self.won & SLOT != 0
            && let Some(slot) = entry.slot()
        {
            slot.release(self.found_slot);
        }
        let _ = (SLOT, self.found_slot);
        if self.won & THREAD != 0 {
            // What it has noted there goes with the turnstile.
            entry.climbs_to(Scope::Thread);
            entry.thread().release(self.found_thread);
        }
    }

    /// The task is polled; whether it still has its turn.
    pub(super) fn is_polled(&self) -> bool {
        let mut state = self.state.lock();
        state.polled = clock::now();
        !state.is_over
    }

    /// The task goes on without waiting; whether it still had its turn.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state.lock();
        !std::mem::replace(&mut state.is_over, true)
    }
}

#[cfg(all(test, feature = "testing", not(tierlock_loom)))]
mod tests;
