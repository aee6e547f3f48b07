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
mod tests {
    use super::*;

    #[test]
    fn an_answer_proves_what_was_said_half_a_tick_before_and_not_itself() {
        let second = Duration::from_secs(1);
        let at = |tenths: u32| Time::ZERO + second * tenths / 10;
        let mut touches = Touches::new(at(10), second * 4);
        assert_eq!(touches.answered(at(15), at(16)), at(10));
        assert_eq!(touches.answered(at(25), at(26)), at(10), "9 tenths after the answer");
        assert_eq!(touches.answered(at(26), at(27)), at(15));
        assert_eq!(touches.answered(at(36), at(37)), at(25));
        assert_eq!(touches.answered(at(90), at(91)), at(36), "of what was sent before the silence");
    }

    #[test]
    fn a_follower_that_is_cut_off_after_an_answer_gives_no_more_than_the_leader_does() {
        // The leader asks each half tick, and counts from then; it hears nothing after the cut.
        let life = Duration::from_millis(4_000);
        let tick = Duration::from_millis(2_000);
        let step = life / 6;
        for cut in (0..8_000).map(Duration::from_millis).step_by(7) {
            let (cut, begun) = (Time::ZERO + cut, Time::ZERO);
            let mut touches = Touches::new(begun, life);
            let (mut proven, mut said, mut heard) = (begun, Vec::new(), begun);
            let mut now = begun;
            while now < cut {
                said.push(now);
                proven = touches.answered(now, now);
                now = now + step;
            }
            let mut asked = begun;
            while asked < cut {
                if said.iter().any(|at| *at <= asked && *at + tick / 2 > asked) {
                    heard = asked;
                }
                asked = asked + tick / 2;
            }
            assert!(
                proven <= heard,
                "cut at {cut:?}: counted from {proven:?}, the leader {heard:?}"
            );
        }
    }
}
