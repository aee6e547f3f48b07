//! What a caller that waits says that nothing gives back before its wait is over: for the leader, which looks
//! for deadlocks.
//!
//! **A wrong claim is an error to a healthy program, so nothing is claimed that another could give back.** The
//! thread that locked a guard need not have it any more: guards may be sent, a borrowed one to a scoped
//! thread, one of a mutex that lives for ever to any. Nothing tells where a guard is, since it is but two
//! words that are moved by copying. (For that reason parking_lot has either guards that may be sent or a
//! search for deadlocks, and not both.) So of a thread that waits it is claimed what its session holds
//!
//! - if the process has no other thread but this library's own: then no code runs that could drop a guard,
//!   wherever that is, in a task or in a collection; or
//! - if the manager is known to be used by one at a time: the program's `run`, `hold` and `elect` say so.
//!
//! A task that waits claims nothing: others run meanwhile. A lease that is kept without a guard goes back
//! when it is asked for, and one with `at_most` by itself; while a guard of such a one is there nothing is
//! claimed at all, since its loss may call what gives others back.
//!
//! What processes have that wait for this one to end, as a `tierlock run` for its command, is claimed by what
//! it was told of them when it was opened.

use crate::{
    host::lease_word::HeldWord,
    own_threads,
    proto::{LeaseId, wire::HeldAbove},
};

use super::{Link, LinkState};

/// What this link knows of its callers.
#[derive(Default)]
pub(super) struct CallerClaims {
    above: Vec<HeldAbove>,
    is_used_by_one: bool,
}

/// What goes into a request.
#[derive(Default)]
pub(super) struct ClaimsMade {
    pub(super) holds: Vec<LeaseId>,
    pub(super) above: Vec<HeldAbove>,
}

impl Link {
    /// One caller at a time uses it, which gives nothing back while it waits; and these are held by processes
    /// that wait for this one to end.
    #[cfg(feature = "cli")]
    pub(crate) fn is_used_by_one(&self, above: Vec<HeldAbove>) {
        self.state.lock().claims = CallerClaims { above, is_used_by_one: true };
    }

    /// What the calling thread may claim, which is about to wait for an answer of the leader.
    pub(super) fn claims(&self) -> ClaimsMade {
        let state = self.state.lock();
        let above = state.claims.above.clone();
        if state.leases.is_empty() || state.leases.len() > LOOKED_AT_MAX {
            return ClaimsMade { holds: Vec::new(), above };
        }
        let state = match state.claims.is_used_by_one {
            true => state,
            false => {
                // The system is asked, which takes a while.
                drop(state);
                if !own_threads::is_only_one_of_users() {
                    return ClaimsMade { holds: Vec::new(), above };
                }
                self.state.lock()
            }
        };
        ClaimsMade { holds: state.held_until_left().unwrap_or_default(), above }
    }
}

impl LinkState {
    /// The leases that guards have for as long as they want; `None` if one is had for a time.
    fn held_until_left(&self) -> Option<Vec<LeaseId>> {
        let mut held = Vec::new();
        for (&lease, state) in &self.leases {
            match state.open_word(lease).and_then(|word| word.is_held()) {
                Some(HeldWord::UntilLeft) => held.push(lease),
                Some(HeldWord::ForATime) => return None,
                None => {}
            }
        }
        held.sort_unstable();
        Some(held)
    }
}

/// With more leases than this, most of which are kept, nothing is claimed.
const LOOKED_AT_MAX: usize = 1_024;
