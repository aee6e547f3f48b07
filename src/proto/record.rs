//! What a leader makes durable, and the ticket that proves it did.
//!
//! Nothing here writes. A journal takes a [`Pending`], writes its record and hands back
//! [`Committed`]; what may be done only then needs a proof that is made of nothing else.

use std::time::Duration;

use super::{ClusterId, LeaseId, SessionId};
use crate::{error::LostReason, name::Name, token::Token};

/// One durable fact. Rare: grants and releases are never written.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A reign began. Whoever begins the next one waits for a session of this time to live, if
    /// this one had to, since it may have ended before it had waited.
    TookOver { epoch: u32, longest_time_to_live: Option<Duration> },
    /// A reign took a higher epoch.
    EpochRaised { epoch: u32 },
    /// A session asked for its first lock.
    SessionOpened {
        session: SessionId,
        proof: super::Proof,
        time_to_live: Duration,
        embedded: bool,
    },
    /// A session said goodbye or ran out.
    SessionEnded { session: SessionId },
    /// A lease was taken away from a live session.
    LeaseRevoked { session: SessionId, lease: LeaseId, name: Name, token: Token, why: LostReason },
}

/// A record on its way to the disk. The driver writes it and hands back [`Committed`].
#[derive(Debug)]
#[must_use = "a record that is never handed back as committed blocks what depends on it"]
pub struct Pending {
    pub(super) number: u64,
    pub(super) record: Record,
}

impl Pending {
    /// What is to be written.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The journal's word that the record is on the disk. Only a journal calls this, after its
    /// commit (or its fsync) has returned.
    pub fn committed(self) -> Committed {
        Committed { number: self.number, record: self.record }
    }
}

/// Proof that a record is durable: what the replies that depend on it are made from.
#[derive(Debug)]
pub struct Committed {
    pub(super) number: u64,
    pub(super) record: Record,
}

impl Committed {
    /// What this record, being durable, allows.
    pub(super) fn allows(self) -> Allows {
        match self.record {
            Record::TookOver { epoch, .. } | Record::EpochRaised { epoch } => {
                Allows::Reigning(Reign { epoch })
            }
            Record::SessionOpened { session, .. } => Allows::Granting(session, Opened(())),
            Record::SessionEnded { session } => Allows::Freeing(session, TakenAway(())),
            Record::LeaseRevoked { session, lease, why, .. } => {
                Allows::Telling(session, lease, why, TakenAway(()))
            }
        }
    }
}

/// What a durable record allows. The proofs in it are made here and nowhere else, so whoever
/// shows one has been to the disk.
pub(super) enum Allows {
    Reigning(Reign),
    Granting(SessionId, Opened),
    Freeing(SessionId, TakenAway),
    Telling(SessionId, LeaseId, LostReason, TakenAway),
}

/// A durable epoch: without it nothing is granted.
#[derive(Debug)]
pub(super) struct Reign {
    epoch: u32,
}

impl Reign {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// A session's opening is durable: without it nothing is granted to the session.
#[derive(Debug)]
pub(super) struct Opened(());

/// A loss is durable: without it no lease is taken from anybody.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenAway(());

/// What a journal found when it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    pub cluster: ClusterId,
    /// The highest durable epoch; 0 in a new directory.
    pub epoch: u32,
    /// The longest time to live of any session ever opened there, or that a reign had to wait for.
    pub longest_time_to_live: Option<Duration>,
    // Open sessions and revoked leases join this when reclaim does.
}
