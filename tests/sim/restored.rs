//! A state directory that is restored from a copy and started again, once or several times before
//! a client comes, and an operator that reads the alarm, or does not.
//!
//! Such a leader does not know what was promised after the copy was made. Until a client tells
//! it, it may grant what is held and count tokens that were counted before: only the resource
//! behind the lock helps. So between that reign and the lost ones nothing is held against the
//! protocol. But once it has read the report of a client of a lost reign it grants nothing before
//! its own reign is older than every promise, and then in an epoch that is sixteen above what that
//! client has seen. From there on it keeps every rule as before, with all that the lost reigns left
//! behind, and so does one that is started above all of them.

use std::collections::BTreeMap;

use tierlock::{
    Token,
    proto::{ReignId, history::Seen},
};

use crate::{
    clock::{MS, SECOND},
    leader::End,
    net::Wire,
    rules::Rule,
    world::{Step, World, note},
};

/// The courses of a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Branch {
    #[default]
    First,
    /// From a copy, and it was not noticed, or not acted on.
    Restored,
    /// In an epoch above whatever was lost, by its operator or by what clients told.
    Above,
}

/// What the world knows of its reigns, and no leader does.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) branch: Branch,
    /// The epochs that were lost, and their reigns.
    lost: Vec<(u32, ReignId)>,
    /// The highest of those, and the highest tokens.
    epoch: u32,
    tokens: Vec<Token>,
    /// No leader has to stop for what was seen of these epochs, since it was started above them.
    forgiven: u32,
    /// The operator starts it above this epoch, as long as the durable one is not above this.
    above: Option<(u32, u32)>,
    /// The highest epoch that an alarm has told the operator of.
    told: u32,
    /// The highest lost epoch that a client has told a leader of.
    met: u32,
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

    /// Whether a leader that is told of this has met another history.
    fn is_lost(&self, seen: Seen) -> bool {
        seen.epoch > self.forgiven && self.is_of_lost(&(seen.epoch, seen.reign))
    }

    /// Whether this epoch was had by a reign that was lost.
    pub(crate) fn is_of_lost(&self, reign: &(u32, ReignId)) -> bool {
        self.lost.contains(reign)
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

    /// The leader has sounded the alarm. Its operator reads it half the time.
    pub(crate) fn read_alarm(&mut self, seen: u32) {
        self.past.told = self.past.told.max(seen);
        if self.dice.percent(50) {
            let later = self.dice.below(300 * MS);
            self.after(later, Step::StartAbove(self.reign));
        }
    }

    /// What the leader has made durable of higher epochs.
    pub(crate) fn look_at_raises(&mut self) {
        let known = &self.disk.known;
        if known.lifted > LIFTED_MAX {
            let text = format!("clients have lifted the epoch by {}", known.lifted);
            return self.violate(Rule::Property, text);
        }
        let raised_above = known.raised_above;
        let past = &mut self.past;
        if past.branch != Branch::Restored || raised_above <= past.forgiven.max(past.met) {
            return;
        }
        past.forgiven = raised_above - 1;
        if past.epoch >= past.met + UNSEEN {
            return; // a client has seen much more, and is to tell
        }
        note!(self, "the leader is in epoch {raised_above}, above all that was lost");
        self.tally.raised_above += 1;
        self.begin_above();
    }

    /// From now on every rule holds again.
    fn begin_above(&mut self) {
        let past = &mut self.past;
        past.branch = Branch::Above;
        for (highest, lost) in self.highest.iter_mut().zip(&past.tokens) {
            *highest = (*highest).max(*lost);
        }
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
            return; // a client has seen more, and is to tell
        }
        self.begin_above();
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

    /// The highest lost epoch that the report on this connection tells of, or is to tell of.
    pub(crate) fn tells_of_lost(&mut self, wire: usize, told: Option<Seen>) -> Option<u32> {
        let Wire { client, life, .. } = self.wires[wire];
        let manager = self.managers[client].as_ref().filter(|_| self.lives[client] == life);
        let known = manager.and_then(|manager| manager.seen_before);
        let lost = told.into_iter().chain(known).filter(|seen| self.past.is_lost(*seen));
        let met = lost.map(|seen| seen.epoch).max();
        self.past.met = self.past.met.max(met.unwrap_or(0));
        met
    }

    /// A keeper goes on with a lease of a lost reign.
    pub(crate) fn took_before_restore(&mut self, name: usize, token: Token) {
        if let Some(highest) = self.past.tokens.get_mut(name) {
            *highest = (*highest).max(token);
        }
    }
}

/// By how much clients may lift a leader's epoch in a day, and no world is that long.
const LIFTED_MAX: u32 = 1 << 10;

/// How far above what a client has seen a leader goes, for what it has not.
pub(crate) const UNSEEN: u32 = 16;
