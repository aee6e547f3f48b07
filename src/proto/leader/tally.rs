//! Counts of what leaders do, for metrics: kept only where the config asks for them.
//!
//! They are of all reigns of one process: the next leader goes on with the last one's. Counting is a few
//! additions where something happens anyway, without a lock, so a look at them costs the leader one copy.

use std::time::Duration;

use crate::{
    error::LostReason,
    proto::wire::{Mode, Refusal},
    time::Time,
};

/// What leaders of one process have done.
#[derive(Clone, Debug, Default)]
pub struct LeaderTally {
    /// Grants, by mode: exclusive, shared, upgradable, permits.
    pub grants: [u64; 4],
    /// From a request's arrival to its grant.
    pub waits: Spread,
    /// From a grant to its end, however that came.
    pub holds: Spread,
    pub refused: Refusals,
    /// How often a session said that it keeps a lease without a guard.
    pub kept: u64,
    /// How often a lease was asked back.
    pub recalls: u64,
    /// How many of these were not answered within [`RECALL_LATE`].
    pub recalls_late: u64,
    pub sessions: SessionsTally,
    /// Leases that came back with their holders after a change of reign.
    pub leases_reclaimed: u64,
    pub taken_away: TakenAwayTally,
    /// How often a request was told that it waits in a circle.
    pub deadlocks: u64,
    /// By how much the lateness of the leaders before this one has moved deadlines.
    pub late_before: Duration,
    pub minute: WaitMinute,
}

/// What became of sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionsTally {
    /// Their openings are durable.
    pub opened: u64,
    /// They said goodbye.
    pub ended: u64,
    /// They were silent for their time to live.
    pub expired: u64,
    /// An earlier reign opened them, and they have come back.
    pub returned: u64,
}

/// Leases that were taken away from sessions that lived, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct TakenAwayTally {
    pub broken: u64,
    pub held_too_long: u64,
    /// They were reported, and were no leases of their sessions.
    pub forgotten: u64,
}

impl LeaderTally {
    pub(super) fn granted(&mut self, mode: Mode, waited: Duration, now: Time) {
        let at = match mode {
            Mode::Exclusive => 0,
            Mode::Shared => 1,
            Mode::Upgradable => 2,
            Mode::Permits { .. } => 3,
        };
        self.grants[at] += 1;
        self.waits.add(waited);
        self.minute.add(waited, now);
    }

    pub(super) fn taken_away(&mut self, why: LostReason) {
        match why {
            LostReason::Broken => self.taken_away.broken += 1,
            LostReason::HeldTooLong => self.taken_away.held_too_long += 1,
            _ => self.taken_away.forgotten += 1,
        }
    }
}

/// How durations are spread: how many were at most as long as each of [`Spread::BOUNDS`].
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// Each counts those above the bound before it; the last those above all.
    counts: [u64; Spread::BOUNDS.len() + 1],
    /// Of all, in nanoseconds: a million leases held for a year are more than 64 bits.
    sum: u128,
}

impl Spread {
    /// In seconds: from the round trip of a store to the longest of holds.
    pub const BOUNDS: [f64; 14] =
        [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0];

    pub fn add(&mut self, duration: Duration) {
        let nanos = duration.as_nanos();
        let at = BOUNDS_NANOS.iter().position(|&bound| nanos <= bound);
        self.counts[at.unwrap_or(BOUNDS_NANOS.len())] += 1;
        self.sum += nanos;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// The bound of each part, infinite at last, and how many there are.
    pub fn parts(&self) -> impl Iterator<Item = (f64, u64)> + use<'_> {
        let bounds = Spread::BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied())
    }
}

const BOUNDS_NANOS: [u128; Spread::BOUNDS.len()] = {
    let mut nanos = [0; Spread::BOUNDS.len()];
    let mut at = 0;
    while at < nanos.len() {
        nanos[at] = (Spread::BOUNDS[at] * 1e9 + 0.5) as u128;
        at += 1;
    }
    nanos
};

/// Requests that were refused, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals([u64; REASONS.len()]);

/// The reasons, as metrics and logs name them.
const REASONS: [&str; 18] = [
    "would_block",
    "timed_out",
    "too_many_sessions",
    "too_many_leases",
    "too_many_waiters",
    "too_many_claims",
    "too_many_reservations",
    "time_to_live",
    "at_least_too_long",
    "disk_full",
    "too_far_above",
    "tokens_used_up",
    "storage_failed",
    "other_cluster",
    "not_supported",
    "too_old",
    "used_otherwise",
    "not_permitted",
];

/// The reason's word.
pub fn reason_of(why: Refusal) -> &'static str {
    REASONS[place_of(why)]
}

fn place_of(why: Refusal) -> usize {
    match why {
        Refusal::WouldBlock => 0,
        Refusal::TimedOut => 1,
        Refusal::TooManySessions => 2,
        Refusal::TooManyLeases => 3,
        Refusal::TooManyWaiters => 4,
        Refusal::TooManyClaims => 5,
        Refusal::TooManyReservations => 6,
        Refusal::TimeToLive => 7,
        Refusal::AtLeastTooLong => 8,
        Refusal::DiskFull => 9,
        Refusal::TooFarAbove => 10,
        Refusal::Tokens => 11,
        Refusal::Storage => 12,
        Refusal::OtherCluster => 13,
        Refusal::NotSupported => 14,
        Refusal::TooOld => 15,
        Refusal::UsedAs(_) => 16,
        Refusal::NotPermitted => 17,
    }
}

impl Refusals {
    pub(super) fn add(&mut self, why: Refusal) {
        self.0[place_of(why)] += 1;
    }

    /// Each reason, and how many there were.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<'_> {
        REASONS.into_iter().zip(self.0.iter().copied())
    }
}

/// What was waited for grants in each second of the last minute.
#[derive(Clone, Debug)]
pub struct WaitMinute([WaitSecond; WaitMinute::SECONDS]);

/// What was waited for the grants of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitSecond {
    /// Counted from the start of the leader's clock.
    second: u64,
    pub grants: u32,
    pub longest: Duration,
}

impl Default for WaitMinute {
    fn default() -> WaitMinute {
        WaitMinute([WaitSecond::default(); WaitMinute::SECONDS])
    }
}

impl WaitMinute {
    pub const SECONDS: usize = 60;

    fn add(&mut self, waited: Duration, now: Time) {
        let second = now.since(Time::ZERO).as_secs();
        let entry = &mut self.0[second as usize % WaitMinute::SECONDS];
        if entry.second != second {
            *entry = WaitSecond { second, ..WaitSecond::default() };
        }
        entry.grants = entry.grants.saturating_add(1);
        entry.longest = entry.longest.max(waited);
    }

    /// The last minute's seconds up to now, the oldest first.
    pub fn seconds(&self, now: Time) -> impl Iterator<Item = WaitSecond> + use<'_> {
        let last = now.since(Time::ZERO).as_secs();
        let first = (last + 1).saturating_sub(WaitMinute::SECONDS as u64);
        (first..=last).map(|second| {
            let entry = self.0[second as usize % WaitMinute::SECONDS];
            let is_it = entry.second == second;
            if is_it { entry } else { WaitSecond { second, ..WaitSecond::default() } }
        })
    }
}

/// A recall that is not answered for so long is late: its session's driver answers at once.
pub const RECALL_LATE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
