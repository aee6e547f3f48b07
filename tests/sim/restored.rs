//! A state directory that is restored from a copy and started again, once or several times before
//! anybody comes, and an operator who reads why the leader then stops.
//!
//! Such a leader does not know what was promised after the copy was made. Until somebody tells
//! it, it may grant what somebody has and count tokens that were counted before: only the resource
//! behind the lock helps. So between that reign and the lost ones nothing is held against the
//! protocol; but once it has read the report of a client of a lost reign it grants nothing, and
//! started above all of them it keeps every rule as before, with whoever they left behind.

use std::collections::BTreeMap;

use tierlock::{
    Token,
    proto::{ReignId, history::Seen},
};

use crate::{
    clock::{MS, SECOND},
    leader::End,
    net::Wire,
    world::{Step, World, note},
};

/// The courses of a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Branch {
    #[default]
    First,
    /// From a copy, and nobody has noticed, or nobody has acted on it.
    Restored,
    /// Started above whatever was lost.
    Above,
}

/// What the world knows of its reigns, and no leader does.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) branch: Branch,
    /// The epochs that were lost, and whose they were.
    lost: Vec<(u32, ReignId)>,
    /// The highest of those, and the highest tokens.
    epoch: u32,
    tokens: Vec<Token>,
    /// No leader has to stop for what was seen of these epochs, since it was started above them.
    forgiven: u32,
    /// The operator starts it above this epoch, as long as the durable one is not above this.
    above: Option<(u32, u32)>,
    /// The highest epoch that a client has told of.
    told: u32,
    /// What has been seen on each client's machine.
    seen: BTreeMap<usize, Seen>,
}

impl Past {
    /// What the operator says at a start.
    pub(crate) fn above(&mut self, durable: u32) -> Option<u32> {
        let (above, _) = self.above.filter(|(_, before)| durable <= *before)?;
        self.forgiven = above.max(durable);
        Some(above)
    }

    /// Whether a leader that is told of this has to stop.
    pub(crate) fn is_lost(&self, seen: Seen) -> bool {
        seen.epoch > self.forgiven && self.lost.contains(&(seen.epoch, seen.reign))
    }
}

/// Whether two grants are of two courses that knew nothing of each other.
pub(crate) fn is_forgiven(one: Branch, other: Branch) -> bool {
    one != other && one.max(other) == Branch::Restored
}

impl World {
    pub(crate) fn is_to_be_restored(&self) -> bool {
        self.plan.restores && self.past.branch == Branch::First && self.truth > 6 * SECOND
    }

    pub(crate) fn restore(&mut self) {
        note!(self, "the state directory is restored");
        self.tally.restores += 1;
        let none = vec![Token::ZERO; self.names.len()];
        let past = &mut self.past;
        past.branch = Branch::Restored;
        past.epoch = self.disk.known.epoch;
        past.tokens = std::mem::replace(&mut self.highest, none);
        past.lost = self.disk.known.epochs.clone();
        let World { disk, dice, past, .. } = self;
        disk.restore(dice);
        past.lost.retain(|lost| !disk.known.epochs.contains(lost));
        if dice.percent(50) {
            // Up to the epochs that were lost, and past them.
            let behind = u64::from(past.epoch - disk.known.epoch);
            (0..dice.below(behind + 3)).for_each(|_| disk.start_unseen(dice));
        }
        note!(self, "it is in epoch {}, and was in {}", self.disk.known.epoch, self.past.epoch);
    }

    /// The leader has stopped and said why.
    pub(crate) fn read_why(&mut self, seen: u32) {
        self.past.told = self.past.told.max(seen);
        let later = self.dice.below(300 * MS);
        self.after(later, Step::StartAbove(self.reign));
    }

    /// The leader is started above what it said; or above all that was lost, as its logs show.
    pub(crate) fn start_above(&mut self) {
        self.tally.starts_above += 1;
        self.end_leader(End::InOrder);
        let all = self.past.epoch.max(self.past.told);
        let is_first = self.tally.starts_above == 1;
        let above = if is_first && self.dice.percent(50) { self.past.told } else { all };
        note!(self, "the operator starts the leader above epoch {above}");
        let before = self.disk.known.epoch;
        let past = &mut self.past;
        past.above = Some((above, before));
        if above.max(before) < past.epoch {
            return; // somebody has seen more, and is to tell
        }
        past.branch = Branch::Above;
        for (highest, lost) in self.highest.iter_mut().zip(&past.tokens) {
            *highest = (*highest).max(*lost);
        }
    }

    /// The highest token that a machine's own table may know of a name. No copy of the leader's
    /// directory takes it back.
    pub(crate) fn remembered(&mut self, name: usize) -> Token {
        let highest = self.highest[name];
        match self.past.tokens.get(name) {
            Some(&lost) if self.dice.percent(50) => highest.max(lost),
            _ => highest,
        }
    }

    /// What others have seen before on a client's machine, as their directory says. Now and then
    /// there is none that both use.
    pub(crate) fn seen_on_machine(&mut self, client: usize) -> Option<Seen> {
        let seen = *self.past.seen.get(&client)?;
        (!self.plan.restores || self.dice.percent(70)).then_some(seen)
    }

    pub(crate) fn remember_seen(&mut self, client: usize, seen: Seen) {
        let known = self.past.seen.get(&client).copied();
        if seen.is_news_to(known) {
            self.past.seen.insert(client, seen);
        }
    }

    /// Whether a leader has to stop that reads the report on this connection.
    pub(crate) fn tells_of_lost(&self, wire: usize, told: Option<Seen>) -> bool {
        let Wire { client, life, .. } = self.wires[wire];
        let manager = self.managers[client].as_ref().filter(|_| self.lives[client] == life);
        let known = manager.and_then(|manager| manager.seen_before);
        told.into_iter().chain(known).any(|seen| self.past.is_lost(seen))
    }

    /// A keeper goes on with a lease of a lost reign.
    pub(crate) fn took_before_restore(&mut self, name: usize, token: Token) {
        if let Some(highest) = self.past.tokens.get_mut(name) {
            *highest = (*highest).max(token);
        }
    }
}
