//! What a leader says of its part in the succession, to an operator that asks.

use std::time::Duration;

use bincode::{Decode, Encode};

use crate::proto::{ClusterId, ReignId};

/// A leader's part in the succession, as it knows that itself. Durations are of its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderStanding {
    pub rank: LeaderRank,
    /// A standby that has not read the journal yet knows none.
    pub cluster: Option<ClusterId>,
    /// The reign that the journal is in, its own or another leader's; none, if the last has resigned.
    pub reign: Option<ReignId>,
    pub epoch: u32,
    /// L of that reign; none where the leader has its journal for itself.
    pub lasts: Option<Duration>,
    /// Where clients find the leader of that reign.
    pub address: Option<String>,
    /// Reigning: since it sent what proved its reign last. Standing by: since it has read of the
    /// last proof.
    pub proven: Option<Duration>,
    /// From the sending of the last operation that the journal has answered to that answer.
    pub journal_took: Option<Duration>,
    /// How old is what it knows of the journal; none of a leader that reigns, which writes it.
    pub lag: Option<Duration>,
}

/// What a leader is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LeaderRank {
    Reigns,
    StandsBy,
    /// Its journal failed, or is no journal that it can go on with.
    Ended,
}

/// Why a leader that was asked to does not step down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StepDownRefusal {
    /// It has its journal for itself, so that no other leader can follow it.
    HasOwnJournal,
    /// It does not reign, or no longer in the reign that was named.
    OtherReign,
}
