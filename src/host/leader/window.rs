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
use crate::{
    host::net::quic::TurnedAway,
    proto::{
        leader::{
            LockSurvey, MachineCounts,
            tally::{LeaderTally, Spread, WaitSecond},
        },
        wire::LeaderStanding,
    },
};

/// What a leader is at a moment.
pub(crate) struct LeaderHealth {
    pub(crate) standing: LeaderStanding,
    /// Its reign is proven.
    pub(crate) has_proof: bool,
    /// It waits for clients of earlier reigns.
    pub(crate) in_grace: bool,
}

/// What a leader shows of itself.
pub(crate) struct LeaderView {
    pub(crate) health: LeaderHealth,
    /// What there is; none where it does not reign.
    pub(crate) counts: Option<MachineCounts>,
    /// Waiters of the name that most wait for, where no locks were asked for.
    pub(crate) longest_queue: usize,
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
    /// Peers that did not get through their handshake, by the reason.
    turned_away: [u64; TurnedAway::ALL.len()],
}

impl TurnTally {
    pub(super) fn count_turned_away(&mut self, why: TurnedAway) {
        self.turned_away[why as usize] += 1;
    }

    /// Peers that did not get through their handshake, by the reason.
    pub(crate) fn turned_away(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TurnedAway::ALL.into_iter().map(|why| (why.as_str(), self.turned_away[why as usize]))
    }
}

/// Asks a running leader.
#[derive(Clone)]
pub(crate) struct LeaderWindow(Arc<LeaderShared>);

/// What is done with an answer, on the leader's thread.
type AnswerView<T> = Box<dyn FnOnce(T) + Send>;

/// A caller that looks.
pub(super) enum ViewRequest {
    /// It costs the leader next to nothing, however much there is.
    Health(AnswerView<LeaderHealth>),
    /// With so many locks at most.
    View(usize, AnswerView<LeaderView>),
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
            true => match self.asked.try_lock() {
                Some(mut asked) => std::mem::take(&mut *asked),
                // A caller has it just now: it says so, and rings, once it has unlocked it.
                None => Vec::new(),
            },
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
        self.ask(ViewRequest::View(locks, Box::new(answer)));
    }

    /// Has the leader say what it is, as [`look`](Self::look) has it show itself.
    pub(crate) fn look_at_health(&self, answer: impl FnOnce(LeaderHealth) + Send + 'static) {
        self.ask(ViewRequest::Health(Box::new(answer)));
    }

    fn ask(&self, request: ViewRequest) {
        let LeaderWindow(shared) = self;
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
