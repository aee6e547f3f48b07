//! How a reign comes to a higher epoch than it began with.
//!
//! An `above` that no token of this reign explains asks for one, and so does what a client has seen
//! of another history of this cluster, which a state directory restored from a copy does not know.
//! Clients could use up all epochs that way, so together they lift the epoch by no more than
//! [`LIFTED_MAX`] in a day.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{LeaderMachine, Notice};
use crate::{
    proto::{
        TIME_TO_LIVE, count_long,
        history::{Notary, Seen},
        mistake::{Mistake, planted},
        record::Record,
        wire::{LeaderMessage, Refusal},
    },
    time::Time,
    token::Token,
};

/// By how much the epoch was lifted of late, and when.
#[derive(Default)]
pub(super) struct Raises {
    lifts: VecDeque<(Time, u32)>,
    lifted: u32,
}

impl Raises {
    /// By how much it may be lifted now.
    fn left(&mut self, now: Time) -> u32 {
        while let Some(&(at, lift)) = self.lifts.front()
            && at + count_long(LIFTED_WITHIN) <= now
        {
            self.lifted -= lift;
            self.lifts.pop_front();
        }
        LIFTED_MAX - self.lifted
    }

    fn lift(&mut self, by: u32, now: Time) {
        self.lifts.push_back((now, by));
        self.lifted += by;
        assert!(self.lifted <= LIFTED_MAX, "what is left was looked at before");
    }

    /// When more of it may be lifted than now.
    fn next(&self) -> Option<Time> {
        self.lifts.front().map(|&(at, _)| at + count_long(LIFTED_WITHIN))
    }
}

/// Another history of this cluster, as its clients tell of it.
pub(super) struct OtherHistory {
    /// The highest epoch that was seen there.
    seen: u32,
    /// When the next step is due: the end of the pause, or the day on which more may be lifted.
    due: Option<Time>,
    /// Nothing new is granted, to any client.
    pauses: bool,
    /// The epoch above it, once that is on its way to the disk.
    asked: Option<u32>,
}

// What the machines of clients know.
impl LeaderMachine {
    /// From now on this one attests to the leader's history, and confirms what clients say of it.
    pub fn change_notary(&mut self, notary: Arc<dyn Notary>) {
        self.config.notary = notary;
    }

    /// The epoch with a first token that exceeds `above`, if the tokens that this reign gave do not
    /// explain it.
    pub(super) fn raise_for(&self, above: Token, epoch: u32) -> Option<u32> {
        let known = self.given.max(Token::first_of(epoch));
        let explained = above <= known || planted(Mistake::AboveBeyondEpoch);
        (!explained).then(|| above.epoch().max(epoch) + 1)
    }

    /// Asks for this epoch to be made durable, unless a request has asked for it already.
    pub(super) fn ask_raise(&mut self, epoch: u32, now: Time) -> Result<(), Refusal> {
        if epoch > Token::MAX_EPOCH {
            return Err(Refusal::Tokens);
        }
        let lift = epoch.saturating_sub(self.epoch_asked);
        if lift > self.raises.left(now) && !planted(Mistake::RaisesUnbounded) {
            return Err(Refusal::TooFarAbove);
        }
        if lift > 0 {
            self.raise(epoch, false, now);
        }
        Ok(())
    }

    fn raise(&mut self, epoch: u32, starts_above: bool, now: Time) {
        if !planted(Mistake::RaisesUnbounded) {
            self.raises.lift(epoch - self.epoch_asked, now);
        }
        self.epoch_asked = epoch;
        self.write(Record::EpochRaised { epoch, starts_above });
    }

    /// The epoch was raised: all served sessions hear of it before they hear of a grant in it.
    pub(super) fn tell_raised(&mut self) {
        let epoch = self.epoch();
        let attestation = self.attest(epoch);
        let keys: Vec<_> = self.sessions.all().collect();
        for key in keys {
            self.tell(key, LeaderMessage::Raised { epoch, attestation });
        }
    }
}

// Another history.
impl LeaderMachine {
    /// What was seen, if a leader of this cluster said it and it was not in this history as the
    /// journal tells it.
    pub(super) fn of_another_history(&self, seen: Option<Seen>) -> Option<Seen> {
        let seen = seen.filter(|seen| seen.cluster == self.cluster)?;
        let Seen { epoch, reign, .. } = seen;
        let is_later = epoch > self.epoch();
        let is_anothers = if planted(Mistake::DeposedLeaderServes) {
            false
        } else if planted(Mistake::SameEpochUnnoticed) {
            is_later
        } else if planted(Mistake::EarlierReignsUnknown) {
            epoch > self.epoch_before && reign != self.config.reign
        } else {
            is_later || !self.history.agrees(epoch, reign)
        };
        (is_anothers && self.config.notary.confirms(&seen)).then_some(seen)
    }

    /// A client has seen this in another history. The leader goes on serving those that have not:
    /// this state is what there is. But until its own reign is as old as the longest promise, a
    /// client of that history may hold anything, so nothing new is granted; and before that
    /// client is served, tokens exceed those that it may have been given there.
    pub(super) fn meet_history(&mut self, seen: u32, now: Time) {
        if self.other_history.as_ref().is_some_and(|other| other.seen >= seen) {
            return;
        }
        let ends = self.began + count_long(*TIME_TO_LIVE.end());
        let pauses = ends > now && !planted(Mistake::NoPauseForHistory);
        let due = Some(if pauses { ends } else { now });
        self.other_history = Some(OtherHistory { seen, due, pauses, asked: None });
        let target = self.above_history(seen);
        let takes = (target - self.epoch_asked <= self.raises.left(now)).then_some(target);
        let pauses = if pauses { ends.since(now) } else { Duration::ZERO };
        self.notices.push_back(Notice::OtherHistory { seen, own: self.epoch(), pauses, takes });
    }

    /// The epoch to take above another history: above what was seen of it, and as much as it may
    /// have been raised or restarted unseen.
    fn above_history(&self, seen: u32) -> u32 {
        let unseen = if planted(Mistake::RaisedByOne) { 1 } else { UNSEEN };
        seen.saturating_add(unseen).max(self.epoch_asked + 1).min(Token::MAX_EPOCH)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.other_history.as_ref().is_some_and(|other| other.pauses)
    }

    pub(super) fn next_raise(&self) -> Option<Time> {
        self.other_history.as_ref()?.due
    }

    /// Goes on towards the epoch above another history, as far as it is time.
    pub(super) fn step_raise(&mut self, now: Time) {
        let Some(other) = &self.other_history else { return };
        if self.over.is_some() {
            return;
        }
        if other.asked.is_some_and(|asked| asked <= self.epoch()) {
            self.other_history = None;
            return self.unsettled.extend(self.table.all());
        }
        if other.due.is_none_or(|due| due > now) {
            return;
        }
        let (seen, pauses) = (other.seen, other.pauses);
        let target = self.above_history(seen);
        let left = self.raises.left(now);
        let next = if target <= self.epoch_asked {
            // No epoch is left above it: its clients are never served here.
            OtherHistory { seen, due: None, pauses: false, asked: None }
        } else if target - self.epoch_asked <= left {
            self.raise(target, true, now);
            OtherHistory { seen, due: None, pauses, asked: Some(target) }
        } else {
            // As far as may be today; clients that do not know that history are served meanwhile.
            let part = seen.min(self.epoch_asked + left);
            if part > self.epoch_asked {
                self.raise(part, false, now);
            }
            OtherHistory { seen, due: self.raises.next(), pauses: false, asked: None }
        };
        let ends = pauses && !next.pauses;
        self.other_history = Some(next);
        if ends {
            self.unsettled.extend(self.table.all());
        }
    }
}

/// By how much clients may have the epoch lifted within [`LIFTED_WITHIN`]: of eight million epochs
/// they use up the last after twenty years.
const LIFTED_MAX: u32 = 1 << 10;
const LIFTED_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// How many epochs another history may have had behind the last that a client has seen.
const UNSEEN: u32 = 16;
