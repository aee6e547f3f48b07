//! The loop around every measurement: heats of contenders, in slices taken in turn.

use std::{collections::BTreeMap, time::Duration};

use tierlock::Scope;

use super::{
    case::{Case, Label},
    failure::{BenchFailure, Result},
    progress::Progress,
    report::Row,
    stats::{Pace, RowTally},
};

/// Something that can be measured for a while, again and again.
pub(crate) trait Contender {
    /// Works for about this long and takes down what it saw.
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()>;

    /// What else than times it counted, by the word of the JSON.
    fn facts(&self) -> BTreeMap<&'static str, f64> {
        BTreeMap::new()
    }

    /// Says whether the work that was measured was done right.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One caller: a closure that locks and unlocks once.
pub(crate) struct Quiet<F>(pub(crate) F);

impl<F: FnMut() -> Result<()>> Contender for Quiet<F> {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        tally.repeat(slice, &mut self.0).map(drop)
    }
}

/// A contender under its label.
pub(crate) struct Entrant {
    pub(crate) label: Label,
    pub(crate) contender: Box<dyn Contender>,
}

impl Entrant {
    pub(crate) fn new(label: Label, contender: impl Contender + 'static) -> Entrant {
        Entrant { label, contender: Box::new(contender) }
    }
}

/// One case in one scope, and its contenders, which are made of `G`.
pub(crate) struct Heat<G> {
    pub(crate) scope: Scope,
    pub(crate) case: Case,
    /// Its part of the time; about one per contender.
    pub(crate) weight: f64,
    /// Makes the contenders ready.
    pub(crate) enter: fn(&mut G) -> Result<Vec<Entrant>>,
}

impl<G> Heat<G> {
    pub(crate) const fn new(
        scope: Scope,
        case: Case,
        weight: f64,
        enter: fn(&mut G) -> Result<Vec<Entrant>>,
    ) -> Heat<G> {
        Heat { scope, case, weight, enter }
    }
}

/// What becomes of a run when a contender fails.
pub(crate) type OnFailure<G> = fn(&mut G, &Label, BenchFailure) -> Result<()>;

/// The heats of a scope and a case, if one is named.
pub(crate) fn chosen<'a, G>(
    heats: &'a [Heat<G>],
    scope: Option<Scope>,
    case: Option<&str>,
) -> Result<Vec<&'a Heat<G>>> {
    let chosen: Vec<&Heat<G>> = heats
        .iter()
        .filter(|heat| scope.is_none_or(|scope| heat.scope == scope))
        .filter(|heat| case.is_none_or(|case| heat.case.word == case))
        .collect();
    if chosen.is_empty() {
        return Err(BenchFailure::Usage(
            "no such case here; the table's JSON has the words".into(),
        ));
    }
    Ok(chosen)
}

/// Reads how long heats are to take in all.
pub(crate) fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("a number of seconds above 0, at most 86400".into()),
    }
}

/// How long heats take in all, if nothing else is said.
pub(crate) fn usual_seconds<G>(heats: &[&Heat<G>]) -> f64 {
    const SECONDS_PER_WEIGHT: f64 = 1.3;
    heats.iter().map(|heat| heat.weight).sum::<f64>() * SECONDS_PER_WEIGHT
}

/// Measures every contender of these heats, in so many seconds all together.
pub(crate) fn measure<G>(
    heats: &[&Heat<G>],
    grounds: &mut G,
    seconds: f64,
    on_failure: OnFailure<G>,
) -> Result<Vec<Row>> {
    let weights: f64 = heats.iter().map(|heat| heat.weight).sum();
    let mut progress = Progress::new(Duration::from_secs_f64(seconds));
    let mut rows = Vec::new();
    for heat in heats {
        progress.says(&format!("{}: preparing {}", heat.scope, heat.case.word));
        let entries = (heat.enter)(grounds)?;
        let budget = Duration::from_secs_f64(seconds * heat.weight / weights);
        rows.extend(race(entries, budget, &mut progress, |label, failure| {
            on_failure(grounds, label, failure)
        })?);
    }
    Ok(rows)
}

/// Measures all of them, in `budget` all together. A contender that fails without ending the run is
/// out from then on.
pub(crate) fn race(
    entries: Vec<Entrant>,
    budget: Duration,
    progress: &mut Progress,
    mut on_failure: impl FnMut(&Label, BenchFailure) -> Result<()>,
) -> Result<Vec<Row>> {
    let slice = budget / (RUNS * entries.len().max(1) as u32);
    let slice = slice.max(SHORTEST_SLICE);

    let mut racers: Vec<Racer> = entries.into_iter().map(Racer::new).collect();
    let mut each = |racers: &mut Vec<Racer>, step: &dyn Fn(&mut Racer) -> Result<()>| {
        let mut failed = Ok(());
        racers.retain_mut(|racer| {
            if failed.is_err() {
                return false;
            }
            match step(racer) {
                Ok(()) => true,
                Err(failure) => {
                    failed = on_failure(&racer.entry.label, failure);
                    false
                }
            }
        });
        failed
    };
    each(&mut racers, &|racer| racer.warm_up(slice))?;
    // In turn, so that whatever else the machine does meets all alike.
    for _ in 0..RUNS {
        each(&mut racers, &|racer| {
            progress.measuring(&racer.entry.label);
            racer.run(slice)
        })?;
        progress.advance(budget / RUNS);
    }
    each(&mut racers, &|racer| racer.entry.contender.check())?;
    // Those of one mode side by side.
    racers.sort_by_key(|racer| racer.entry.label.mode);
    Ok(racers.iter().map(Racer::row).collect())
}

/// A contender on its way through a heat.
struct Racer {
    entry: Entrant,
    tally: RowTally,
}

impl Racer {
    fn new(entry: Entrant) -> Racer {
        Racer { entry, tally: RowTally::new(Pace::OneByOne) }
    }

    fn warm_up(&mut self, slice: Duration) -> Result<()> {
        if self.entry.label.case.is_staged {
            // Each event stands by itself.
            return Ok(());
        }
        self.entry.contender.run(slice.min(WARM_UP), &mut self.tally)?;
        self.tally = RowTally::new(self.tally.suited_pace());
        Ok(())
    }

    fn run(&mut self, slice: Duration) -> Result<()> {
        self.entry.contender.run(slice, &mut self.tally)?;
        self.tally.end_run();
        Ok(())
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

#[cfg(test)]
mod tests;
