//! A look at a running leader from another thread: what metrics and the page show.
//!
//! The leader's thread answers between two turns and never waits for the caller.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
};

use parking_lot::Mutex;

use super::{Leader, LeaderShared};
use crate::proto::{
    leader::{
        LockSurvey, MachineCounts,
        tally::{LeaderTally, Spread, WaitSecond},
    },
    wire::LeaderStanding,
};

/// What a leader shows of itself.
pub(crate) struct LeaderView {
    pub(crate) standing: LeaderStanding,
    /// Its reign is proven at this moment.
    pub(crate) has_proof: bool,
    /// What there is; none where it does not reign.
    pub(crate) counts: Option<MachineCounts>,
    pub(crate) tally: LeaderTally,
    /// What was waited for in each second of the last minute, the oldest first.
    pub(crate) minute: Vec<WaitSecond>,
    pub(crate) turns: TurnTally,
    /// The locks that were asked for.
    pub(crate) locks: Option<LockSurvey>,
}

/// What the leader's thread counts of itself and of its journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct TurnTally {
    /// From a wake-up of the leader's thread to its next sleep.
    pub(crate) turns: Spread,
    /// How long the journal took, by operation.
    pub(crate) journal: BTreeMap<&'static str, Spread>,
    /// How often it had no answer.
    pub(crate) journal_troubles: u64,
    /// Attempts to connect by clients with another secret.
    pub(crate) other_secret: u64,
}

/// Asks a running leader.
#[derive(Clone)]
pub(crate) struct LeaderWindow(Arc<LeaderShared>);

type Answer = Box<dyn FnOnce(LeaderView) + Send>;

/// A caller that looks, and how many locks it wants.
pub(super) struct ViewRequest {
    pub(super) locks: usize,
    pub(super) answer: Answer,
}

/// What the leader's thread has not answered yet.
#[derive(Default)]
pub(super) struct Looks {
    is_asked: AtomicBool,
    asked: Mutex<Vec<ViewRequest>>,
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Looks")
    }
}

/// So many looks wait at most: a caller asks one after the other.
const LOOKS_MAX: usize = 4;

impl Looks {
    pub(super) fn take(&self) -> Vec<ViewRequest> {
        // A plain load at each turn of a leader that is not asked.
        match self.is_asked.load(Acquire) && self.is_asked.swap(false, AcqRel) {
            true => std::mem::take(&mut *self.asked.lock()),
            false => Vec::new(),
        }
    }

    /// The leader has ended: none of them is answered.
    pub(super) fn drop_all(&self) {
        self.asked.lock().clear();
    }
}

impl Leader {
    pub(crate) fn window(&self) -> LeaderWindow {
        LeaderWindow(self.shared.clone())
    }
}

impl LeaderWindow {
    /// Has the leader show itself, with as many locks at most; none for 0. `answer` is called on the
    /// leader's thread, and is dropped uncalled where the leader has ended.
    pub(crate) fn look(&self, locks: usize, answer: impl FnOnce(LeaderView) + Send + 'static) {
        let LeaderWindow(shared) = self;
        let request = ViewRequest { locks, answer: Box::new(answer) };
        let mut asked = shared.looks.asked.lock();
        if asked.len() < LOOKS_MAX {
            asked.push(request);
        }
        drop(asked);
        shared.looks.is_asked.store(true, Release);
        shared.bell.ring();
        if shared.end.lock().is_some() {
            shared.looks.drop_all();
        }
    }
}
