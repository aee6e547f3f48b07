//! Figures that are no row: what something costs by how many there are of it.

use std::time::Duration;

use serde::Serialize;

use crate::bench::{
    failure::Result,
    human,
    run::{Contender, Quiet},
    stats::{Pace, RowTally},
};

/// Names at which grants are timed; and at the most there are to be.
pub(crate) const SIZES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
/// How long names may take to be made before the larger sizes are given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One figure, and with how many of what it was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Measure {
    pub(crate) what: &'static str,
    pub(crate) at: u64,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Bytes,
    Ns,
    /// Of one processor.
    Percent,
    PerSecond,
}

/// The figure of this word, if it was measured.
pub(crate) fn value(measures: &[Measure], what: &str) -> Option<f64> {
    Some(measures.iter().find(|measure| measure.what == what)?.value)
}

pub(crate) fn sizes(names: u64) -> impl Iterator<Item = u64> {
    SIZES.into_iter().filter(move |&size| size < names).chain([names])
}

/// A size for people: `143 B`, `38 kB`, `1.2 GB`.
pub(crate) fn bytes(number: f64) -> String {
    human::scaled(number, &["B", "kB", "MB", "GB"])
}

/// 16 bytes.
pub(crate) fn name(number: u64) -> String {
    format!("name/{number:011}")
}

/// Visits all numbers below a size, in an order that no cache likes.
pub(crate) struct Walk {
    at: u64,
    size: u64,
    step: u64,
}

impl Walk {
    pub(crate) fn over(size: u64) -> Walk {
        // A prime that no power of ten has as a factor.
        Walk { at: 0, size, step: 618_033_989 % size.max(1) }
    }

    /// The same, begun elsewhere.
    pub(crate) fn from(self, at: u64) -> Walk {
        Walk { at: at % self.size.max(1), ..self }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.at = (self.at + self.step) % self.size;
        self.at
    }
}

/// What one cycle costs in the middle.
pub(crate) fn median_ns(each: Duration, cycle: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut quiet = Quiet(cycle);
    let mut warm_up = RowTally::new(Pace::OneByOne);
    quiet.run(each.min(Duration::from_millis(50)), &mut warm_up)?;
    let mut tally = RowTally::new(warm_up.suited_pace());
    quiet.run(each, &mut tally)?;
    Ok(tally.summary().p50_ns)
}

#[cfg(test)]
mod tests;
