//! True time, and clocks that are up to 1 % off it.

use std::time::Duration;

use tierlock::Time;

use crate::dice::Dice;

/// True time in nanoseconds since the world began. No node ever sees it.
pub(crate) type Truth = u64;

pub(crate) const MS: Truth = 1_000_000;
pub(crate) const SECOND: Truth = 1000 * MS;

const SLOWEST: u64 = 990_000;
const FASTEST: u64 = 1_010_000;

/// How a clock goes, compared with true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Any,
    Slow,
    Fast,
}

/// A clock with a rate and an origin of its own.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    origin: u64,
    rate: u64, // in millionths
}

impl Clock {
    pub(crate) fn new(dice: &mut Dice, pace: Pace) -> Clock {
        let rate = match dice.below(3) {
            _ if pace == Pace::Slow => SLOWEST,
            _ if pace == Pace::Fast => FASTEST,
            0 => SLOWEST,
            1 => FASTEST,
            _ => SLOWEST + dice.below(FASTEST - SLOWEST + 1),
        };
        Clock { origin: dice.below(1000) * SECOND, rate }
    }

    pub(crate) fn read(&self, truth: Truth) -> Time {
        let own = u128::from(truth) * u128::from(self.rate) / 1_000_000;
        Time::from_nanos(self.origin + own as u64)
    }

    /// The true time at which it shows `time`, or a little later.
    pub(crate) fn when(&self, time: Time) -> Truth {
        let own = u128::from(time.as_nanos().saturating_sub(self.origin));
        u64::try_from(own * 1_000_000 / u128::from(self.rate) + 1).unwrap_or(u64::MAX)
    }
}

pub(crate) fn shown(truth: Truth) -> Duration {
    Duration::from_nanos(truth)
}
