//! From when on a session's end may be counted.
//!
//! The leader of an ensemble ends sessions, and a client is mostly connected to a follower. That tells
//! the leader which sessions have spoken when the leader asks it, every half tick. So an answer of
//! the leader's, to a transaction, proves that the session was alive, and not from when on its time runs: the follower
//! may be cut off right behind the answer, and with it what it has yet to tell. What the session said
//! at least half a tick earlier was told by then, and its time counts from that.

use std::{collections::VecDeque, time::Duration};

use crate::time::Time;

/// What a session has said that the leader answered.
pub(super) struct Touches {
    /// As long as a follower may keep what it has heard.
    lag: Duration,
    /// What is known to have reached the leader: when it was sent.
    proven: Time,
    /// What may not have reached it yet: when it was sent, and when it was answered.
    recent: VecDeque<(Time, Time)>,
}

impl Touches {
    /// Of a session that was asked for then. The leader itself begins it.
    pub(super) fn new(sent: Time, time_to_live: Duration) -> Touches {
        // Without a minimum of its own a server grants no less than two ticks.
        Touches { lag: time_to_live / 4, proven: sent, recent: VecDeque::new() }
    }

    /// The leader has answered what was sent then: from when on the session's time runs, at the latest.
    pub(super) fn answered(&mut self, sent: Time, now: Time) -> Time {
        while let Some((earlier, heard)) = self.recent.front()
            && *heard + self.lag <= sent
        {
            self.proven = self.proven.max(*earlier);
            self.recent.pop_front();
        }
        self.recent.push_back((sent, now));
        self.proven
    }
}

#[cfg(test)]
mod tests;
