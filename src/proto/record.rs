//! What a leader makes durable, and the ticket that proves it did.

use std::time::Duration;

use super::{ClusterId, LeaseId, SessionId};
use crate::{error::LostReason, name::Name, token::Token};

/// One durable fact. Rare: grants and releases are never written.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A reign began, or took a higher epoch.
    TookOver { epoch: u32 },
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
    #[allow(dead_code)]
    pub(super) number: u64,
    #[allow(dead_code)]
    pub(super) record: Record,
}

/// What a journal found when it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    pub cluster: ClusterId,
    /// The highest durable epoch; 0 in a new directory.
    pub epoch: u32,
    /// The longest time to live of any session ever opened there.
    pub longest_time_to_live: Option<Duration>,
    // Open sessions and revoked leases join this when reclaim does.
}
