//! The leader of an election where its name is locked in one process: that, and each change of it in
//! order.

use std::collections::VecDeque;

use event_listener::{Event, EventListener};

use crate::{elected::ElectedLeader, fork::Mutex, token::Token};

/// What observers of one name see in this process.
pub(crate) struct ElectionStage {
    seen: Mutex<StageState>,
    changed: Event,
}

#[derive(Default)]
struct StageState {
    leader: Option<ElectedLeader>,
    /// The last changes, the oldest first.
    changes: VecDeque<Option<ElectedLeader>>,
    /// How many came before them.
    before: u64,
}

/// An observer that is so many changes behind misses the oldest of them.
pub(crate) const CHANGES_KEPT: usize = 256;

impl ElectionStage {
    pub(super) fn new() -> ElectionStage {
        ElectionStage { seen: Mutex::new(StageState::default()), changed: Event::new() }
    }

    /// The holder of the lock leads from now on.
    pub(super) fn enter(&self, leader: ElectedLeader) {
        self.seen.lock().change(Some(leader));
        self.wake_all();
    }

    /// The leader with this token leaves; to be called before it releases the lock.
    pub(super) fn leave(&self, token: Token) {
        let mut seen = self.seen.lock();
        if seen.leader.as_ref().is_some_and(|leader| leader.token() == token) {
            seen.change(None);
        }
        drop(seen);
        self.wake_all();
    }

    /// Has observers of this process look.
    pub(super) fn wake_all(&self) {
        self.changed.notify(usize::MAX);
    }

    /// Told by each change. To be made before the look.
    pub(super) fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    /// The present leader, and the number of the change that comes next.
    pub(super) fn present(&self) -> (Option<ElectedLeader>, u64) {
        let seen = self.seen.lock();
        (seen.leader.clone(), seen.before + seen.changes.len() as u64)
    }

    /// The change with this number, or the oldest that is still known, and its number.
    pub(super) fn change(&self, number: u64) -> Option<(Option<ElectedLeader>, u64)> {
        let seen = self.seen.lock();
        let number = number.max(seen.before);
        let change = seen.changes.get((number - seen.before) as usize)?;
        Some((change.clone(), number))
    }
}

impl StageState {
    fn change(&mut self, leader: Option<ElectedLeader>) {
        self.leader = leader.clone();
        self.changes.push_back(leader);
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
            self.before += 1;
        }
    }
}

#[cfg(all(test, not(tierlock_loom)))]
mod tests;
