//! What an operator is told of a reign, or of a standby, and clients of which one follows.

use std::time::Duration;

use super::{OperationId, PROOF, Reign, ReignState, Sight};
use crate::{
    proto::{
        journal::{JournalAnswer, JournalHead, ReignKey},
        wire::{LeaderRank, LeaderStanding},
    },
    time::Time,
};

impl Reign {
    /// What it has read of the journal last, if that is in the reign of another process.
    pub fn follower(&self) -> Option<&JournalHead> {
        let is_other = |reign: &ReignKey| !self.own.contains(reign);
        self.head().filter(|head| head.reign.as_ref().is_some_and(is_other))
    }

    /// Whether a reign is to begin: there is none, or the one that there is has not been renewed twice.
    pub fn awaits_follower(&self, now: Time) -> bool {
        let Some(Sight { head, since }) = &self.watch.seen else { return false };
        self.is_standby()
            && (head.reign.is_none() || *since + head.lasts / 3 + head.lasts / 8 <= now)
    }

    fn is_standby(&self) -> bool {
        matches!(self.state, ReignState::Standby | ReignState::Taking { .. })
    }

    /// Its part in the succession. Of its own reign the successor knows the rest.
    pub fn standing(&self, now: Time) -> LeaderStanding {
        let mut standing = LeaderStanding {
            rank: LeaderRank::StandsBy,
            cluster: None,
            reign: None,
            epoch: 0,
            lasts: self.lasts(),
            address: None,
            proven: None,
            journal_took: self.journal_took,
            lag: None,
        };
        match &self.state {
            ReignState::Over => standing.rank = LeaderRank::Ended,
            ReignState::Reigning(tenure) => {
                standing.rank = LeaderRank::Reigns;
                standing.reign = Some(tenure.reign.id());
                standing.address = self.config.address.clone();
                standing.proven = standing.lasts.map(|lasts| {
                    let whole = lasts * PROOF / 100;
                    let left = tenure.proven_until.since(now);
                    whole.saturating_sub(left) + now.since(tenure.proven_until)
                });
            }
            _ => {
                let Some(sight) = &self.watch.seen else { return standing };
                let head = &sight.head;
                standing.cluster = Some(head.cluster);
                standing.reign = head.reign.map(|reign| reign.id());
                standing.epoch = head.epoch;
                standing.lasts = head.reign.map(|_| head.lasts);
                standing.address = head.address.clone();
                standing.proven = head.reign.map(|_| now.since(sight.since));
                standing.lag = Some(now.since(self.watch.answered));
            }
        }
        standing
    }

    /// How long the journal took for this, if it has answered what is waited for.
    pub(super) fn time_answer(&mut self, id: OperationId, answer: &JournalAnswer, now: Time) {
        if matches!(answer, JournalAnswer::Trouble(_)) {
            return;
        }
        let own = match &self.state {
            ReignState::Taking { flight, .. } => [Some(*flight), None],
            ReignState::Reigning(tenure) => {
                [tenure.renewing, tenure.batch.as_ref().and_then(|batch| batch.flight)]
            }
            ReignState::Resigning { flight, .. } => [*flight, None],
            ReignState::Standby | ReignState::Over => [None, None],
        };
        let mut flights = own.into_iter().chain([self.watch.flight]).flatten();
        if let Some(flight) = flights.find(|flight| flight.id == id) {
            let took: Duration = now.since(flight.sent);
            self.journal_took = Some(took);
        }
    }
}
