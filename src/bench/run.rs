//! The loop around every measurement: heats of contenders, in slices taken in turn.

use std::time::Duration;

use super::{
    case::{Case, Label},
    failure::Result,
    grounds::Grounds,
    progress::Progress,
    report::Row,
    stats::{Pace, Tally},
};
use crate::Scope;

/// Something that can be measured for a while, again and again.
pub(crate) trait Contender {
    /// Works for about this long and takes down what it saw.
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()>;

    /// Says whether the work that was measured was done right.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A contender under its label.
pub(crate) struct Entry {
    pub(crate) label: Label,
    pub(crate) contender: Box<dyn Contender>,
}

impl Entry {
    pub(crate) fn new(label: Label, contender: impl Contender + 'static) -> Entry {
        Entry { label, contender: Box::new(contender) }
    }
}

/// One case in one scope, and who is measured in it.
pub(crate) struct Heat {
    pub(crate) scope: Scope,
    pub(crate) case: Case,
    /// Its part of the time; about one per contender.
    pub(crate) weight: f64,
    /// What the comparisons add to that.
    pub(crate) weight_of_peers: f64,
    /// Makes the contenders ready.
    pub(crate) enter: fn(&mut Grounds) -> Result<Vec<Entry>>,
}

impl Heat {
    pub(crate) fn weight(&self, peers: bool) -> f64 {
        if peers { self.weight + self.weight_of_peers } else { self.weight }
    }

    /// Measures every contender of this heat, in `budget` all together.
    pub(crate) fn run(
        &self,
        grounds: &mut Grounds,
        budget: Duration,
        progress: &Progress,
    ) -> Result<Vec<Row>> {
        progress.preparing(self.scope, self.case);
        let mut entries = (self.enter)(grounds)?;
        let slice = budget / (ROUNDS * entries.len().max(1) as u32);
        let slice = slice.max(SHORTEST_SLICE);

        let mut tallies = Vec::new();
        for entry in &mut entries {
            let mut warm_up = Tally::new(Pace::OneByOne);
            entry.contender.run(slice.min(WARM_UP), &mut warm_up)?;
            tallies.push(Tally::new(warm_up.suited_pace()));
        }
        // In turn, so that whatever else the machine does meets all alike.
        for _ in 0..ROUNDS {
            for (entry, tally) in entries.iter_mut().zip(&mut tallies) {
                progress.measuring(&entry.label);
                entry.contender.run(slice, tally)?;
            }
            progress.advance(budget / ROUNDS);
        }
        for entry in &mut entries {
            entry.contender.check()?;
        }
        Ok(entries
            .iter()
            .zip(&tallies)
            .map(|(entry, tally)| Row::new(&entry.label, &tally.summary()))
            .collect())
    }
}

/// Slices per contender.
const ROUNDS: u32 = 8;
const SHORTEST_SLICE: Duration = Duration::from_millis(2);
const WARM_UP: Duration = Duration::from_millis(20);
