//! Looking for the leader of an election in a directory, now and then.

use std::{collections::VecDeque, time::Duration};

use crate::{
    elected::{ElectedLeader, LeaderTold},
    error::Result,
    path::named::Named,
    process::{Directory, Slot},
    scope::Scope,
    token::Token,
};

/// What was seen in a directory.
#[derive(Default)]
pub(super) struct DirectoryNews {
    /// The highest token that was announced at the last look.
    highest: Option<Token>,
    untold: VecDeque<Option<ElectedLeader>>,
    nap: Duration,
}

impl DirectoryNews {
    /// The next change since what was `told` last.
    pub(super) fn look(
        &mut self,
        named: &Named,
        (directory, slot): (&Directory, &Slot),
        told: &LeaderTold,
    ) -> Result<LeaderTold> {
        if let Some(untold) = self.untold.pop_front() {
            return Ok(LeaderTold::Now(untold));
        }
        let read = directory.read_announced(named.name());
        let read = read.map_err(named.about(Scope::Process))?;
        let last = read.all.last().cloned();
        // After the file: its writer has the slot, with this token, for as long as it leads.
        let leads = |token, process| read.is_in_force && slot.is_held_under(token, process);
        let leads = last.clone().filter(|last| leads(last.token, last.process));
        let leader = leads.map(|leads| ElectedLeader::new(leads.token, leads.value));
        if let Some(known) = self.highest {
            // Those in between led since the last look, and left.
            let present = leader.as_ref().map(ElectedLeader::token);
            let is_between = |token| token > known && Some(token) != present;
            let between = read.all.into_iter().filter(|other| is_between(other.token));
            let told = between.map(|other| Some(ElectedLeader::new(other.token, other.value)));
            self.untold.extend(told);
        }
        self.highest = last.map(|last| last.token).max(self.highest).or(Some(Token::ZERO));
        let is_known = match self.untold.back() {
            Some(last) => *last == leader,
            None => *told == LeaderTold::Now(leader.clone()),
        };
        if !is_known {
            self.untold.push_back(leader);
        }
        let Some(next) = self.untold.pop_front() else { return Ok(LeaderTold::Nothing) };
        self.nap = Duration::ZERO;
        Ok(LeaderTold::Now(next))
    }

    /// How long to wait before the next look.
    pub(super) fn nap(&mut self) -> Duration {
        self.nap = (self.nap * 2).clamp(FIRST_NAP, super::LONGEST_NAP);
        self.nap
    }
}

const FIRST_NAP: Duration = Duration::from_millis(1);
