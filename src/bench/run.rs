//! The loop around every measurement: heats of contenders, in slices taken in turn.

use std::{collections::BTreeMap, time::Duration};

use super::{
    case::{Case, Label, TIERLOCK},
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

    /// What else than times it counted, by the word of the JSON.
    fn facts(&self) -> BTreeMap<&'static str, f64> {
        BTreeMap::new()
    }

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
        let entries = (self.enter)(grounds)?;
        race(entries, grounds, budget, progress)
    }
}

/// Measures all of them, in `budget` all together.
pub(crate) fn race(
    entries: Vec<Entry>,
    grounds: &mut Grounds,
    budget: Duration,
    progress: &Progress,
) -> Result<Vec<Row>> {
    let slice = budget / (RUNS * entries.len().max(1) as u32);
    let slice = slice.max(SHORTEST_SLICE);

    let mut racers: Vec<Racer> = entries.into_iter().map(Racer::new).collect();
    for racer in &mut racers {
        racer.does(grounds, Racer::warm_up(slice))?;
    }
    // In turn, so that whatever else the machine does meets all alike.
    for _ in 0..RUNS {
        for racer in &mut racers {
            progress.measuring(&racer.entry.label);
            racer.does(grounds, |entry, tally| {
                entry.contender.run(slice, tally)?;
                tally.end_run();
                Ok(())
            })?;
        }
        progress.advance(budget / RUNS);
    }
    for racer in &mut racers {
        racer.does(grounds, |entry, _| entry.contender.check())?;
    }
    // Those of one mode side by side.
    racers.sort_by_key(|racer| racer.entry.label.mode);
    Ok(racers.iter().filter(|racer| !racer.is_out).map(Racer::row).collect())
}

/// A contender on its way through a heat.
struct Racer {
    entry: Entry,
    tally: Tally,
    is_out: bool,
}

impl Racer {
    fn new(entry: Entry) -> Racer {
        Racer { entry, tally: Tally::new(Pace::OneByOne), is_out: false }
    }

    fn warm_up(slice: Duration) -> impl FnOnce(&mut Entry, &mut Tally) -> Result<()> {
        move |entry, tally| {
            if entry.label.case.is_staged() {
                // Each event stands by itself.
                return Ok(());
            }
            entry.contender.run(slice.min(WARM_UP), tally)?;
            *tally = Tally::new(tally.suited_pace());
            Ok(())
        }
    }

    /// Does it, unless this one is out. Something that is only compared with and fails is out
    /// from then on, and does not end the bench.
    fn does(
        &mut self,
        grounds: &mut Grounds,
        step: impl FnOnce(&mut Entry, &mut Tally) -> Result<()>,
    ) -> Result<()> {
        if self.is_out {
            return Ok(());
        }
        match step(&mut self.entry, &mut self.tally) {
            Err(failure) if self.entry.label.subject != TIERLOCK && failure.is_a_peers() => {
                self.is_out = true;
                grounds.peers.dropped_out(&self.entry.label, &failure);
                Ok(())
            }
            done => done,
        }
    }

    fn row(&self) -> Row {
        Row {
            facts: self.entry.contender.facts(),
            ..Row::new(&self.entry.label, &self.tally.summary())
        }
    }
}

/// Slices per contender: worst waits are the median over so many runs of each run's worst.
const RUNS: u32 = 5;
const SHORTEST_SLICE: Duration = Duration::from_millis(2);
const WARM_UP: Duration = Duration::from_millis(20);

#[cfg(all(test, feature = "peers"))]
mod tests {
    use super::*;
    use crate::bench::failure::Failure;

    struct Steady;

    impl Contender for Steady {
        fn run(&mut self, _: Duration, tally: &mut Tally) -> Result<()> {
            tally.wait(Duration::from_micros(5));
            tally.stretch(1, Duration::from_micros(5));
            Ok(())
        }
    }

    struct FailsLater(u32);

    impl Contender for FailsLater {
        fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
            self.0 += 1;
            if self.0 > 2 {
                return Err(Failure::peer("etcd")("its server is gone"));
            }
            Steady.run(slice, tally)
        }
    }

    fn heat(enter: fn(&mut Grounds) -> Result<Vec<Entry>>) -> (Result<Vec<Row>>, Grounds) {
        let mut grounds = Grounds::new(true).unwrap();
        let heat = Heat {
            scope: Scope::Host,
            case: Case::Quiet,
            weight: 1.0,
            weight_of_peers: 1.0,
            enter,
        };
        let progress = Progress::new(Duration::ZERO);
        (heat.run(&mut grounds, Duration::ZERO, &progress), grounds)
    }

    fn label(subject: &'static str) -> Label {
        Label { subject, ..Label::new(Scope::Host, Case::Quiet) }
    }

    #[test]
    fn peer_that_fails_is_out_and_named_and_the_others_go_on() {
        let (rows, grounds) = heat(|_| {
            Ok(vec![Entry::new(label("etcd"), FailsLater(0)), Entry::new(label(TIERLOCK), Steady)])
        });
        let rows = rows.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].label.subject, TIERLOCK);
        assert_eq!(rows[0].figures.operations, u64::from(RUNS));
        let missing = grounds.missing();
        assert!(missing[0].to_string().contains("its server is gone"), "{missing:?}");
    }

    #[test]
    fn own_failure_ends_the_bench() {
        let (rows, _) = heat(|_| Ok(vec![Entry::new(label(TIERLOCK), FailsLater(0))]));
        assert!(rows.is_err());
    }
}
