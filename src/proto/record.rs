//! What a leader makes durable, and the ticket that proves it did.
//!
//! Nothing here writes. A journal takes a [`Pending`], writes its record and hands back
//! [`Committed`]; what may be done only then needs a proof that is made of nothing else.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ClusterId, LeaseId, Proof, ReignId, RequestId, SessionId, TIME_TO_LIVE,
    bound::Bound,
    history::History,
    mistake::{Mistake, planted},
};
use crate::{error::LostReason, name::Name, token::Token};

/// One durable fact. Rare: of grants and releases only those with `at_least` are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A reign began.
    TookOver {
        epoch: u32,
        reign: ReignId,
        /// It has to wait for clients that the journal does not know, for as long as this time to
        /// live; then so has the next one until `Waited` is written.
        waits_for: Option<Duration>,
        /// It was started above whatever another history may have come to; see
        /// [`History::begin`].
        starts_above: bool,
    },
    /// What the last `TookOver` had to wait for has passed.
    Waited,
    /// A reign took a higher epoch.
    EpochRaised {
        epoch: u32,
        /// It lies above what another history has come to; see [`History::raise`].
        starts_above: bool,
    },
    /// A session asked for its first lock, or its bound is another. Replaces the session's entry, and
    /// nothing of what was taken away from it.
    SessionOpened {
        session: SessionId,
        proof: Proof,
        time_to_live: Duration,
        /// It belongs to the leader's own process, and dies with it.
        embedded: bool,
        /// The names that it has asked for.
        bound: Bound,
    },
    /// A session said goodbye, ran out, or had nothing to be remembered for.
    SessionEnded { session: SessionId },
    /// A lease was taken away from a live session, or was not confirmed when it was reported.
    LeaseRevoked { session: SessionId, lease: LeaseId, name: Name, token: Token, why: LostReason },
    /// A name is granted with `at_least`, or less is left of that. Replaces the name's entry.
    Reserved { name: Name, reservation: Reservation },
    /// `at_least` has run out, was broken, or was never made use of.
    ReservationEnded { name: Name, token: Token },
}

impl Record {
    /// How a reign begins behind what the journal has of those before it: in the next epoch, or above
    /// `epoch_above`, which another history may have come to. `None`: the epochs are used up.
    pub fn take_over(
        (epoch, waits_for): (u32, Option<Duration>),
        reign: ReignId,
        epoch_above: Option<u32>,
    ) -> Option<Record> {
        let longest = *TIME_TO_LIVE.end();
        let above = epoch_above.filter(|_| !planted(Mistake::NoWaitAbove)).map(|_| longest);
        let waits_for = waits_for.map(|waits| waits.min(longest)).max(above);
        let epoch = epoch.max(epoch_above.unwrap_or(0)).saturating_add(1);
        let starts_above = epoch_above.is_some() && !planted(Mistake::JudgedAbove);
        let took_over = Record::TookOver { epoch, reign, waits_for, starts_above };
        (epoch <= Token::MAX_EPOCH).then_some(took_over)
    }

    /// The epoch and the reign that begin with it, if it is a reign's first record.
    pub fn begins(&self) -> Option<(u32, ReignId)> {
        match self {
            Record::TookOver { epoch, reign, .. } => Some((*epoch, *reign)),
            _ => None,
        }
    }

    /// Whether a journal without room refuses it, and the reign goes on: what clients add to it, a
    /// session's opening and its bound, and the first entry of an `at_least`.
    pub fn may_be_refused(&self) -> bool {
        match self {
            Record::SessionOpened { .. } => true,
            Record::Reserved { reservation, .. } => reservation.left == reservation.at_least,
            _ => false,
        }
    }
}

/// A grant with `at_least`: its name stays taken for as long as is left, however its holder ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The token of the grant.
    pub token: Token,
    pub session: SessionId,
    /// The request that was granted.
    pub request: RequestId,
    pub at_least: Duration,
    /// What was left of it when this was written. A new reign counts this, and a hundredth more,
    /// from its take-over.
    pub left: Duration,
}

/// A record on its way to the disk. The driver writes it and hands back [`Committed`].
#[derive(Debug)]
#[must_use = "a record that is never handed back as committed blocks what depends on it"]
pub struct Pending {
    pub(super) number: u64,
    pub(super) record: Record,
}

impl Pending {
    /// One that no leader asked for.
    #[cfg(test)]
    pub(crate) fn for_tests(number: u64, record: Record) -> Pending {
        Pending { number, record }
    }

    /// What is to be written.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The journal's word that the record is on the disk. Only a journal calls this, after its
    /// commit (or its fsync) has returned.
    pub fn committed(self) -> Committed {
        Committed { number: self.number, record: self.record }
    }

    /// The journal's word that it has no room for this one, and that it is not on the disk.
    ///
    /// # Panics
    ///
    /// Unless it [may be refused](Record::may_be_refused): of other records an error ends the reign.
    pub fn unwritten(self) -> Unwritten {
        let Pending { number, record } = self;
        assert!(record.may_be_refused(), "a journal writes this or fails: {record:?}");
        Unwritten { number, record }
    }
}

/// A journal's word on a batch of records: all of them are durable, but for those that clients add
/// and that it had no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a batch that is never answered blocks what depends on it"]
pub struct Written {
    refused: Vec<usize>,
}

impl Written {
    /// All of them are durable but these, by their places in the batch. Of a record that was not
    /// refused only a journal says so, after its commit (or its fsync) has returned.
    pub fn committed(refused: Vec<usize>) -> Written {
        Written { refused }
    }

    /// What it says of each record of its batch.
    pub fn of(&self, batch: Vec<Pending>) -> Vec<CommitAnswer> {
        let answer = |(place, pending): (usize, Pending)| match self.refused.contains(&place) {
            true => CommitAnswer::Unwritten(pending.unwritten()),
            false => CommitAnswer::Committed(pending.committed()),
        };
        batch.into_iter().enumerate().map(answer).collect()
    }
}

/// What became of a record.
#[derive(Debug)]
pub enum CommitAnswer {
    Committed(Committed),
    Unwritten(Unwritten),
}

/// A record for which the journal has no room.
#[derive(Debug)]
pub struct Unwritten {
    pub(super) number: u64,
    pub(super) record: Record,
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
        let number = self.number;
        match self.record {
            Record::TookOver { epoch, starts_above, .. }
            | Record::EpochRaised { epoch, starts_above } => {
                Allows::Reigning(DurableEpoch { epoch, starts_above })
            }
            Record::Waited => Allows::Nothing,
            Record::SessionOpened { session, .. } => {
                Allows::Granting { session, number, opened: Opened(()) }
            }
            Record::SessionEnded { session } => {
                Allows::Freeing { session, number, proof: TakenAway(()) }
            }
            Record::LeaseRevoked { session, lease, why, .. } => {
                Allows::Telling { session, lease, why, proof: TakenAway(()) }
            }
            Record::Reserved { name, .. } => {
                Allows::TellingReserved { name, number, proof: Reserved(()) }
            }
            Record::ReservationEnded { .. } => Allows::Unreserving { number },
        }
    }
}

/// What a durable record allows. The proofs in it are made here and of what a journal recovered,
/// so a caller that shows one has been to the disk.
pub(super) enum Allows {
    Nothing,
    Reigning(DurableEpoch),
    Granting { session: SessionId, number: u64, opened: Opened },
    Freeing { session: SessionId, number: u64, proof: TakenAway },
    Telling { session: SessionId, lease: LeaseId, why: LostReason, proof: TakenAway },
    TellingReserved { name: Name, number: u64, proof: Reserved },
    Unreserving { number: u64 },
}

/// A durable epoch: without it nothing is granted.
#[derive(Debug)]
pub(super) struct DurableEpoch {
    epoch: u32,
    starts_above: bool,
}

impl DurableEpoch {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// It lies above what another history has come to.
    pub(super) fn starts_above(&self) -> bool {
        self.starts_above
    }
}

/// A session's opening is durable: without it nothing is granted to the session.
#[derive(Debug)]
pub(super) struct Opened(());

/// A loss is durable: without it no lease is taken from any session.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenAway(());

/// What is reserved is durable: without it no grant with `at_least` is told.
#[derive(Debug)]
pub(super) struct Reserved(());

/// What a journal found when it was opened: all that a new reign knows of those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    pub cluster: ClusterId,
    /// The highest durable epoch; 0 in a new directory.
    pub epoch: u32,
    /// How long to wait for clients that the journal does not know; see [`Record::TookOver`].
    pub waits_for: Option<Duration>,
    /// The reigns of the epochs.
    pub history: History,
    /// The open sessions: a reign waits for each of them to come back or to run out.
    pub sessions: BTreeMap<SessionId, OpenSession>,
    /// The names that `at_least` keeps taken.
    pub reservations: BTreeMap<Name, Reservation>,
}

/// A session that was opened and not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSession {
    pub proof: Proof,
    pub time_to_live: Duration,
    /// It died with the process of the leader that wrote this.
    pub embedded: bool,
    /// The names that it can hold or wait for.
    pub bound: Bound,
    /// What was taken away from it. It may not have heard of it.
    pub revoked: BTreeMap<LeaseId, LostReason>,
}

impl Recovered {
    /// What is found in a new directory.
    pub fn new(cluster: ClusterId) -> Recovered {
        Recovered {
            cluster,
            epoch: 0,
            waits_for: None,
            history: History::default(),
            sessions: BTreeMap::new(),
            reservations: BTreeMap::new(),
        }
    }

    /// One more record is durable: what a later reign is to find in the journal. The contract
    /// of every journal, and for one that keeps nothing but this, all of it.
    pub fn remember(&mut self, record: &Record) {
        match *record {
            Record::Reserved { ref name, reservation } => {
                self.reservations.insert(name.clone(), reservation);
            }
            Record::ReservationEnded { ref name, .. } => drop(self.reservations.remove(name)),
            Record::TookOver { epoch, reign, waits_for, starts_above } => {
                (self.epoch, self.waits_for) = (epoch, waits_for);
                self.history.begin(epoch, reign, starts_above);
            }
            Record::Waited => self.waits_for = None,
            Record::EpochRaised { epoch, starts_above } => {
                self.epoch = epoch;
                self.history.raise(epoch, starts_above);
            }
            Record::SessionOpened { session, proof, time_to_live, embedded, bound } => {
                let before = self.sessions.remove(&session);
                let revoked = before.map_or_else(BTreeMap::new, |before| before.revoked);
                let open = OpenSession { proof, time_to_live, embedded, bound, revoked };
                self.sessions.insert(session, open);
            }
            Record::SessionEnded { session } => drop(self.sessions.remove(&session)),
            Record::LeaseRevoked { session, lease, why, .. } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.revoked.insert(lease, why);
                }
            }
        }
    }
}

impl OpenSession {
    /// Its opening was found on the disk.
    pub(super) fn opened(&self) -> Opened {
        Opened(())
    }

    /// Each loss was found on the disk.
    pub(super) fn revoked(&self) -> impl Iterator<Item = (LeaseId, LostReason, TakenAway)> {
        self.revoked.iter().map(|(&lease, &why)| (lease, why, TakenAway(())))
    }
}
