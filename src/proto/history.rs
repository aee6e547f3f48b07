//! The reign of each epoch.
//!
//! Epochs tell the reigns of one history apart. A state directory that is restored from a copy
//! begins another history, which counts on from the copy: it comes to the epochs of the lost one
//! again, and past them. So every reign has a random id beside its epochs, a client remembers the
//! last pair that it has seen, and a leader knows all pairs of its own history.
//!
//! A leader acts on what a client says it has seen, so each pair comes with a code that only a
//! leader of the same secret can have made: what no leader ever said counts for nothing.

use std::{collections::BTreeMap, fmt};

use super::{ClusterId, ReignId};
use crate::token::Token;

/// What a client has seen of a cluster last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub cluster: ClusterId,
    /// The highest epoch.
    pub epoch: u32,
    /// The reign of that epoch.
    pub reign: ReignId,
    /// The code with which the leader of that reign said so.
    pub attestation: Attestation,
}

/// A leader's code under what it says of its history; see [`Notary`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attestation(pub u128);

impl fmt::Debug for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attestation")
    }
}

/// Makes and compares the codes of a cluster's leaders: a keyed hash, the key of which its clients may
/// know and others do not.
pub trait Notary: fmt::Debug + Send + Sync {
    /// The code of this epoch and reign.
    fn attest(&self, cluster: ClusterId, epoch: u32, reign: ReignId) -> Attestation;

    /// Whether a leader made this.
    fn confirms(&self, seen: &Seen) -> bool {
        let Seen { cluster, epoch, reign, attestation } = *seen;
        // One operation on whole words: its time tells nothing of where they differ.
        (self.attest(cluster, epoch, reign).0 ^ attestation.0) == 0
    }
}

/// Believes every client: for a leader with all its clients in its own process.
#[derive(Debug)]
pub struct TrustingNotary;

impl Notary for TrustingNotary {
    fn attest(&self, _: ClusterId, _: u32, _: ReignId) -> Attestation {
        Attestation(0)
    }
}

impl Seen {
    /// Whether a process that knew only `known` is to know this instead. Of one epoch and two reigns the
    /// first counts: if they are two histories, the leader is to be told of that.
    pub fn is_news_to(&self, known: Option<Seen>) -> bool {
        known.is_none_or(|known| known.cluster != self.cluster || known.epoch < self.epoch)
    }

    /// As one line of text, and back.
    pub fn to_line(&self) -> String {
        let Seen { cluster, epoch, reign, attestation } = self;
        format!("{:032x} {epoch} {:016x} {:032x}", cluster.0, reign.0, attestation.0)
    }

    /// `None` if the line is none of [`to_line`](Seen::to_line).
    pub fn from_line(line: &str) -> Option<Seen> {
        let mut words = line.split_whitespace();
        let cluster = ClusterId(u128::from_str_radix(words.next()?, 16).ok()?);
        let epoch = words.next()?.parse().ok().filter(|epoch| *epoch <= Token::MAX_EPOCH)?;
        let reign = ReignId(u64::from_str_radix(words.next()?, 16).ok()?);
        let attestation = Attestation(u128::from_str_radix(words.next()?, 16).ok()?);
        let seen = Seen { cluster, epoch, reign, attestation };
        (seen.to_line() == line.trim_end()).then_some(seen)
    }
}

/// The reigns of one history, by the first epoch of each. A reign has all epochs up to the next.
///
/// What lies before the first of them is not judged: more than [`REIGNS_MAX`] reigns back, a client
/// that has seen nothing since knows no token that is not far exceeded by now. Nor is what lies
/// before an epoch that was begun above another history: that history is over by then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    reigns: BTreeMap<u32, ReignId>,
    /// No epoch before this one is judged.
    judged_from: u32,
}

/// How many reigns are remembered; some 12 bytes each.
pub const REIGNS_MAX: usize = 65_536;

impl History {
    /// What a journal found: reigns by their first epochs, and from where on epochs are judged.
    pub fn found(reigns: impl IntoIterator<Item = (u32, ReignId)>, judged_from: u32) -> History {
        let mut history = History { judged_from, ..History::default() };
        for (epoch, reign) in reigns {
            history.begin(epoch, reign, false);
        }
        history
    }

    /// One more reign begins. If it `starts_above` whatever another history may have come to,
    /// nothing before it is judged any more.
    pub fn begin(&mut self, epoch: u32, reign: ReignId, starts_above: bool) {
        self.reigns.insert(epoch, reign);
        while self.reigns.len() > REIGNS_MAX {
            self.reigns.pop_first();
        }
        self.raise(epoch, starts_above);
    }

    /// The last reign takes a higher epoch.
    pub fn raise(&mut self, epoch: u32, starts_above: bool) {
        if starts_above {
            self.judged_from = epoch;
        }
    }

    /// The reigns, by their first epochs.
    pub fn reigns(&self) -> impl Iterator<Item = (u32, ReignId)> {
        self.reigns.iter().map(|(&epoch, &reign)| (epoch, reign))
    }

    /// No epoch before this one is judged.
    pub fn judged_from(&self) -> u32 {
        self.judged_from
    }

    /// Whether this epoch, which is none of the future, can have been seen in that reign.
    pub(super) fn agrees(&self, epoch: u32, reign: ReignId) -> bool {
        epoch < self.judged_from || self.of(epoch).is_none_or(|own| own == reign)
    }

    /// Whether a lease of this epoch and reign was granted in this history.
    pub(super) fn granted(&self, epoch: u32, reign: ReignId) -> bool {
        self.of(epoch) == Some(reign)
    }

    fn of(&self, epoch: u32) -> Option<ReignId> {
        self.reigns.range(..=epoch).next_back().map(|(_, reign)| *reign)
    }
}
