//! A ratio of two sides, from many starts of both: what it is, and how sure that is.

use serde::Serialize;

/// A ratio, and the bounds that it is within in nineteen of twenty runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// How often the starts are drawn anew.
const DRAWS: usize = 2_000;

impl Estimate {
    /// From the ratio of each start: starts are drawn from them again and again, as many as there are, and how
    /// far that moves the result is how far another run would.
    pub(super) fn of(ratios: &[f64]) -> Estimate {
        // Twice as fast and half as fast are equally far from the same.
        let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        let mut lots = Lots(1);
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| middle(logs.iter().map(|_| logs[lots.below(logs.len())]).collect()))
            .collect();
        drawn.sort_by(f64::total_cmp);
        let bound = |at: usize| drawn[at].exp();
        Estimate {
            value: middle(logs).exp(),
            low: bound(DRAWS / 40),
            high: bound(DRAWS - 1 - DRAWS / 40),
        }
    }

    /// The same of the turned ratio.
    pub(super) fn inverse(self) -> Estimate {
        let Estimate { value, low, high } = self;
        Estimate { value: value.recip(), low: high.recip(), high: low.recip() }
    }

    /// `0.981 [0.974 0.989]`
    pub(super) fn text(self) -> String {
        let Estimate { value, low, high } = self;
        format!("{value:.3} [{low:.3} {high:.3}]")
    }
}

/// The mean of the middle half: a start that a neighbour on the machine has spoilt counts for nothing, and yet
/// most starts count.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let half = &values[quarter..values.len() - quarter];
    half.iter().sum::<f64>() / half.len() as f64
}

/// Numbers that look as if they were drawn, the same in each run: the same starts have the same bounds.
struct Lots(u64);

impl Lots {
    fn below(&mut self, bound: usize) -> usize {
        // Steele's splitmix.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests;
