//! The time during which a leader was there to hear its clients. Reads no clock.

use std::time::Duration;

use crate::time::Time;

/// A clock that stands still while its owner is late: between two events it advances by no more
/// than [`WAKE_EVERY`] and some slack. Deadlines kept in its time are extended by every lateness
/// before anything expires, so a stalled leader does not believe that its clients died.
pub(super) struct Attended {
    last: Time,
    /// How much was missed so far.
    missed: Duration,
}

impl Attended {
    pub(super) fn new(now: Time) -> Attended {
        Attended { last: now, missed: Duration::ZERO }
    }

    /// An event at `now`, on the driver's clock; answers the attended time.
    pub(super) fn attend(&mut self, now: Time) -> Time {
        self.missed += now.since(self.last).saturating_sub(WAKE_EVERY + SLACK);
        self.last = self.last.max(now);
        self.now()
    }

    /// No event was let in for so long before `now`, and none of that counts.
    pub(super) fn skip(&mut self, lapsed: Duration, now: Time) {
        let lapsed = lapsed.min(now.since(self.last));
        self.missed += lapsed;
        self.last = self.last + lapsed;
    }

    /// The attended time of the last event.
    pub(super) fn now(&self) -> Time {
        self.last - self.missed
    }

    /// How much was missed so far.
    pub(super) fn missed(&self) -> Duration {
        self.missed
    }

    /// The driver's own time of the last event.
    pub(super) fn raw(&self) -> Time {
        self.last
    }

    /// When to wake for something due at this time of the driver's own.
    pub(super) fn wake_at_raw(&self, due: Time) -> Time {
        due.min(self.last + WAKE_EVERY)
    }

    /// When to wake, on the driver's clock, for something due at this attended time.
    pub(super) fn wake_at(&self, due: Time) -> Time {
        (due + self.missed).min(self.last + WAKE_EVERY)
    }
}

const WAKE_EVERY: Duration = Duration::from_millis(100);
const SLACK: Duration = Duration::from_millis(20);
