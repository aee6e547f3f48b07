//! The lease protocol: both sides as state machines without I/O.
//!
//! No networking, no clock, no file, no thread lives here. Events go in (`handle_*`, with `now`),
//! actions come out (`poll_*`), each side names its one next deadline (`poll_timeout`), and
//! calling early is harmless. The drivers in `host/` and the simulator run exactly this code.
//!
//! Public but hidden, and outside semver.

#![allow(missing_docs)] // hidden: the guide's page `protocol` tells what is not said here

mod absence;
pub mod bound;
mod circle;
pub mod client;
pub mod group;
pub mod history;
pub mod journal;
pub mod leader;
mod lock;
#[cfg(feature = "testing")]
pub mod look;
mod names;
pub(crate) mod numbered;
pub mod record;
pub mod reign;
pub mod rights;
mod sessions;
pub(crate) mod shares;
mod slab;
pub mod successor;
mod table;
#[cfg(test)]
mod tests;
mod timers;
pub mod wire;

use std::{fmt, time::Duration};

pub use crate::mistake;
use crate::mistake::{Mistake, planted};

/// A connection, as its driver numbers it; a number is never used twice by one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What counts as one client where limits are shared out, as the driver knows it: the holders of one
/// credential, or one address where all have the same credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

/// Every clock is within 1 % of true time: a side that must not act too late counts this much of a
/// duration, rounded down …
pub fn count_short(duration: Duration) -> Duration {
    if planted(Mistake::NoDriftAllowance) {
        return duration;
    }
    duration.saturating_sub(duration / 100).saturating_sub(Duration::from_nanos(1))
}

/// … and a side that must not act too early counts this much of it, rounded up. Saturates, since a
/// peer may name any duration.
pub fn count_long(duration: Duration) -> Duration {
    if planted(Mistake::NoDriftAllowance) || planted(Mistake::OneSidedDrift) {
        return duration;
    }
    duration.saturating_add(duration / 100).saturating_add(Duration::from_nanos(1))
}

pub(crate) use crate::time::TIME_TO_LIVE;

/// A lease id: the granting epoch and a sequence number within it. It is unique over all names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    /// The epoch that made it.
    pub epoch: u32,
    /// Its count in that epoch.
    pub count: u64,
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}.{}", self.epoch, self.count)
    }
}

/// A waiter's rank in a name's queue, told to it and repeated by it, so that it survives a
/// change of reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The epoch that gave it.
    pub epoch: u32,
    /// Its count in that epoch.
    pub count: u64,
}

/// A request of one session; the client numbers them from 1 and uses none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A session: random, chosen by its client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {:032x}", self.0)
    }
}

/// What only the owner of a session knows, and must show with the session's id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(pub u128);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("proof")
    }
}

/// What a leader's state directory, or a group, calls itself: random, made once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {:032x}", self.0)
    }
}

/// A leader, from its start to its end: random. It tells reigns apart that have the same epochs;
/// see [`history`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReignId(pub u64);

/// A process, for as long as it runs: random, drawn by itself. An embedded leader knows the
/// sessions of its own process by it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProcessMark(pub u128);

impl fmt::Debug for ProcessMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("process")
    }
}
