//! When a session's renewals were sent, by the leader's clock.

use std::time::Duration;

use crate::time::Time;

/// Tells of the latest renewal when it was sent at the earliest, but for the fastest way of the last
/// minutes: a renewal that took longer than that one was sent earlier by so much.
///
/// It tells nothing before it knows [`KNOWN_MIN`] renewals: a network that holds up a session's first ones, all
/// of them, does so for longer than the session's time to live, which ends it.
///
/// The two clocks have origins of their own and need not run alike, so that an old comparison means
/// nothing: of the fastest way two windows are remembered. A session that is silent for as long has ended.
#[derive(Default)]
pub(in crate::proto) struct RenewalClock {
    /// What the leader's clock showed at an arrival, less what the client's showed at the sending, at the
    /// fastest in this window and in the one before, as wrapping nanoseconds.
    fastest: [Option<i64>; 2],
    /// When this window began.
    since: Time,
    sent_after: Time,
    /// How many it knows, up to as many as it needs.
    known: u8,
}

/// Renewals in a time to live, and one.
const KNOWN_MIN: u8 = 4;
const WINDOW: Duration = Duration::from_secs(120);

impl RenewalClock {
    /// A renewal is read now that was sent at that time of the client's clock.
    pub(in crate::proto) fn add(&mut self, sent_at: Time, now: Time) {
        let took = now.as_nanos().wrapping_sub(sent_at.as_nanos()) as i64;
        if self.fastest[0].is_none() || now.since(self.since) >= WINDOW {
            (self.fastest, self.since) = ([Some(took), self.fastest[0]], now);
        }
        self.fastest[0] = self.fastest[0].map(|fastest| fastest.min(took));
        let fastest = self.fastest.iter().flatten().copied().min().unwrap_or(took);
        self.known = KNOWN_MIN.min(self.known + 1);
        self.sent_after = now - Duration::from_nanos(took.wrapping_sub(fastest).max(0) as u64);
    }

    /// The latest renewal was sent then or later, less the time of the fastest way.
    pub(in crate::proto) fn sent_after(&self) -> Time {
        if self.known < KNOWN_MIN { Time::ZERO } else { self.sent_after }
    }
}

#[cfg(test)]
mod tests;
