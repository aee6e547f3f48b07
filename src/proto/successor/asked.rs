//! What operators ask of a leader, whether it reigns or stands by: they open no session for it.

use super::Successor;
use crate::{
    proto::{
        ConnectionId,
        wire::{
            ClientMessage, DiskReplacement, LeaderMessage, LeaderRank, LeaderStanding,
            StepDownRefusal,
        },
    },
    time::Time,
};

impl Successor {
    /// Its part in the succession.
    pub fn standing(&self, now: Time) -> LeaderStanding {
        let mut standing = self.reign.standing(now);
        standing.cluster = standing.cluster.or(self.cluster);
        if let (LeaderRank::Reigns, Some(leader)) = (standing.rank, &self.leader) {
            standing.epoch = leader.epoch();
        }
        standing
    }

    /// Whether it is to step down and can. It does so at [`step_down_if_asked`](Self::step_down_if_asked),
    /// after the turn in which this was heard.
    pub fn ask_to_step_down(&mut self) -> Option<StepDownRefusal> {
        if self.reign.terms().is_exclusive {
            return Some(StepDownRefusal::HasOwnJournal);
        }
        if self.leader.is_none() || self.reign.reigning().is_none() {
            return Some(StepDownRefusal::OtherReign);
        }
        self.is_to_step_down = true;
        None
    }

    /// Hands over, if it was asked to and still reigns. Not within a turn: what was let in is heard first.
    pub fn step_down_if_asked(&mut self, now: Time) {
        if std::mem::take(&mut self.is_to_step_down) {
            self.hand_over(now);
        }
    }

    /// Whether that was an operator's question, which is answered.
    pub(super) fn answers_operator(
        &mut self,
        connection: ConnectionId,
        message: &ClientMessage,
        now: Time,
    ) -> bool {
        let answer = match *message {
            ClientMessage::AskStanding { query } => {
                LeaderMessage::Standing { query, standing: Box::new(self.standing(now)) }
            }
            ClientMessage::StepDown { query, reign } => {
                let own = self.reign.reigning().map(|own| own.id());
                let refused = match own == Some(reign) {
                    true => self.ask_to_step_down(),
                    false => Some(StepDownRefusal::OtherReign),
                };
                LeaderMessage::StepsDown { query, refused }
            }
            // What drives a member of a group answers these before they come here.
            ClientMessage::AskGroup { query } => LeaderMessage::Group { query, report: None },
            ClientMessage::Replace { query, .. } => {
                LeaderMessage::Replaced { query, outcome: DiskReplacement::NoGroup }
            }
            _ => return false,
        };
        if self.connections.contains_key(&connection) {
            self.messages.push_back((connection, answer));
        }
        true
    }
}
