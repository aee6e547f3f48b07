//! What a caller that waits says that nothing gives back before its wait is over: for the leader, which looks
//! for deadlocks.
//!
//! **A wrong pin is an error to a healthy program, so nothing is pinned that another could give back.** The
//! thread that locked a guard need not have it any more: guards may be sent, a borrowed one to a scoped
//! thread, one of a mutex that lives for ever to any. Nothing tells where a guard is, since it is but two
//! words that are moved by copying. (For that reason parking_lot has either guards that may be sent or a
//! search for deadlocks, and not both.) A thread that is the only one of its process is no proof either:
//! callbacks and wakers of this library's own threads may drop guards. So what a thread's session holds is
//! pinned while it waits
//!
//! - if the manager is known to be used by one at a time: the program's `run`, `hold` and `elect` say so; or
//! - as far as the thread has locked it itself, if its user promises that guards stay with their threads: each
//!   blocking call notes its thread beside the token in the lease word.
//!
//! A task that waits pins nothing: others run meanwhile. A lease that is kept without a guard goes back
//! when it is asked for, and one with `at_most` by itself; while a guard of such a one is there nothing is
//! pinned at all, since its loss may call what gives others back.
//!
//! What processes have that wait for this one to end, as a `tierlock run` for its command, is pinned by what
//! it was told of them when it was opened.

use crate::{
    host::lease_word::HeldWord,
    proto::{LeaseId, wire::HeldAbove},
    thread_number::thread_number,
};

use super::{Link, LinkState};

/// What this link knows of its callers.
#[derive(Default)]
pub(super) struct CallerPins {
    above: Vec<HeldAbove>,
    is_used_by_one: bool,
    guards_stay: bool,
}

/// What goes into a request.
#[derive(Default)]
pub(super) struct PinsMade {
    pub(super) holds: Vec<LeaseId>,
    pub(super) above: Vec<HeldAbove>,
}

impl Link {
    /// One caller at a time uses it, which gives nothing back while it waits; and these are held by processes
    /// that wait for this one to end.
    #[cfg(feature = "cli")]
    pub(crate) fn is_used_by_one(&self, above: Vec<HeldAbove>) {
        self.state.lock().pins = CallerPins { above, is_used_by_one: true, guards_stay: false };
    }

    /// Whether threads are promised to have what they have locked.
    #[cfg(feature = "host")]
    pub(crate) fn guards_stay(&self, stay: bool) {
        self.state.lock().pins.guards_stay = stay;
    }

    /// What the calling thread may pin, which is about to wait for an answer of the leader.
    pub(super) fn pins(&self) -> PinsMade {
        let state = self.state.lock();
        let above = state.pins.above.clone();
        if state.leases.is_empty() || state.leases.len() > LOOKED_AT_MAX {
            return PinsMade { holds: Vec::new(), above };
        }
        let thread = match (state.pins.is_used_by_one, state.pins.guards_stay) {
            (true, _) => None,
            (false, true) => match thread_number() {
                Some(number) => Some(number),
                None => return PinsMade { holds: Vec::new(), above },
            },
            (false, false) => return PinsMade { holds: Vec::new(), above },
        };
        PinsMade { holds: state.held_until_left(thread), above }
    }
}

impl LinkState {
    /// The leases that guards have for as long as they want, all or those that stay with this thread; none if
    /// one is had for a time.
    fn held_until_left(&self, thread: Option<u64>) -> Vec<LeaseId> {
        let mut held = Vec::new();
        for (&lease, state) in &self.leases {
            let Some(word) = state.open_word(lease) else { continue };
            match word.is_held() {
                Some(HeldWord::ForATime) => return Vec::new(),
                Some(HeldWord::UntilLeft) if thread.is_none_or(|own| word.is_with(own)) => {
                    held.push(lease);
                }
                _ => {}
            }
        }
        // The youngest first: a leader believes so many.
        held.sort_unstable_by(|one, other| other.cmp(one));
        held
    }
}

/// With more leases than this, most of which are kept, nothing is pinned.
const LOOKED_AT_MAX: usize = 1_024;
