//! The one place that reads a clock.

use crate::{system, time::Time};

/// Now, on a clock that never goes back and counts suspend (`CLOCK_BOOTTIME` on Linux).
pub(crate) fn now() -> Time {
    Time::from_nanos(system::clock())
}
