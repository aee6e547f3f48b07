//! Whose each epoch was.
//!
//! Epochs tell the reigns of one history apart. A state directory that is restored from a copy
//! begins another history, which counts on from the copy: it comes to the epochs of the lost one
//! again, and past them. So every reign has a random id beside its epochs, a client remembers the
//! last pair that it has seen, and a leader knows all pairs of its own history.

use std::collections::BTreeMap;

use super::{ClusterId, ReignId};
use crate::token::Token;

/// What somebody has seen of a cluster last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub cluster: ClusterId,
    /// The highest epoch.
    pub epoch: u32,
    /// Whose epoch that was.
    pub reign: ReignId,
}

impl Seen {
    /// Whether whoever knew only `known` is to know this instead. Of one epoch and two reigns the
    /// first counts: if they are two histories, the leader is to be told of that.
    pub fn is_news_to(&self, known: Option<Seen>) -> bool {
        known.is_none_or(|known| known.cluster != self.cluster || known.epoch < self.epoch)
    }

    /// As one line of text, and back.
    pub fn to_line(&self) -> String {
        let Seen { cluster, epoch, reign } = self;
        format!("{:032x} {epoch} {:016x}", cluster.0, reign.0)
    }

    /// `None` if the line is none of [`to_line`](Seen::to_line).
    pub fn from_line(line: &str) -> Option<Seen> {
        let mut words = line.split_whitespace();
        let cluster = ClusterId(u128::from_str_radix(words.next()?, 16).ok()?);
        let epoch = words.next()?.parse().ok().filter(|epoch| *epoch <= Token::MAX_EPOCH)?;
        let reign = ReignId(u64::from_str_radix(words.next()?, 16).ok()?);
        let seen = Seen { cluster, epoch, reign };
        (seen.to_line() == line.trim_end()).then_some(seen)
    }
}

/// The reigns of one history, by the first epoch of each. A reign has all epochs up to the next.
///
/// What lies before the first of them is not judged. That is so for what was lost when a leader
/// was started above it, and for what lies more than [`REIGNS_MAX`] reigns back: whoever has seen
/// nothing since knows no token that is not far exceeded by now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    reigns: BTreeMap<u32, ReignId>,
}

/// How many reigns are remembered; some 12 bytes each.
pub const REIGNS_MAX: usize = 65_536;

impl History {
    /// One more reign begins. If it `starts_above` whatever another history may have come to,
    /// nothing before it is judged any more.
    pub fn begin(&mut self, epoch: u32, reign: ReignId, starts_above: bool) {
        if starts_above {
            self.reigns.clear();
        }
        self.reigns.insert(epoch, reign);
        while self.reigns.len() > REIGNS_MAX {
            self.reigns.pop_first();
        }
    }

    /// Whether this epoch, which is none of the future, can have been seen in that reign.
    pub(super) fn agrees(&self, epoch: u32, reign: ReignId) -> bool {
        let own = self.reigns.range(..=epoch).next_back();
        own.is_none_or(|(_, own)| *own == reign)
    }
}
