//! What members of a group say to each other.
//!
//! # Versions
//!
//! While a group is upgraded, one member after the other, members of neighbouring releases are in it, so
//! they understand each other. What may change without a new
//! [`MEMBER_VERSION`](crate::proto::wire::MEMBER_VERSION), because every reader is ready for it:
//!
//! - **A field behind the last one** of a frame's head or of its body, which stands last. A reader skips
//!   what it does not know.
//! - **A body of a kind behind the last one.** To a reader that does not know it the frame is lost, which
//!   frames may be.
//!
//! Either is for what a member may do without. Everything else is for members of a later version alone, and
//! that is what each says first of itself: entries and snapshots of the log above all, which no member may
//! skip, and which go to disks ([`GroupWrite`](super::GroupWrite)) that the release before may have to read
//! again. As long as one member has the older version, all are spoken to in that.

use bincode::{Decode, Encode, error::DecodeError};

use super::entry::{DiskId, GroupEntry, LogPlace};
use crate::proto::{ClusterId, wire::WireError};

/// The longest frame between members, in bytes: a little less than a message of the wire may have.
pub const GROUP_FRAME_BYTES_MAX: usize = 60 * 1024;

/// A frame between two members. It may be lost, come twice, or come late.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupFrame {
    /// The group that its sender belongs to, once it does.
    pub cluster: Option<ClusterId>,
    /// The sender's disk.
    pub from: DiskId,
    /// The disk that it is for, if its sender knows it. Another disk at the same member ignores it: one
    /// that has forgotten its votes gives none.
    pub to: Option<DiskId>,
    /// The sender's disk is full but for what was set aside: another does better as leader.
    pub is_low: bool,
    pub body: GroupBody,
}

/// What stands before a frame's body, behind its length.
#[derive(Encode, Decode)]
struct GroupFrameHead {
    cluster: Option<ClusterId>,
    from: DiskId,
    to: Option<DiskId>,
    is_low: bool,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum GroupBody {
    /// Its sender does not belong to a group, or does not know whether it does.
    Hello {
        is_empty: bool,
        init: bool,
    },
    /// The group does not know the disk that this is sent to.
    UnknownDisk,
    /// Whether its sender would have the vote, in a term that has not begun. It changes nothing at the
    /// member that it is sent to.
    AskPreVote {
        term: u64,
        last: LogPlace,
        is_leader_gone: bool,
    },
    PreVote {
        term: u64,
    },
    AskVote {
        term: u64,
        last: LogPlace,
        is_transfer: bool,
    },
    Vote {
        term: u64,
        is_granted: bool,
    },
    /// Entries, or none, behind a place: from the leader of the log, and a sign that it leads.
    Append {
        term: u64,
        commit: u64,
        after: LogPlace,
        entries: Vec<GroupEntry>,
    },
    Appended {
        term: u64,
        last: LogPlace,
    },
    /// The leader has all up to `last`, and up to `commit` it is committed. It wants no answer.
    Commit {
        term: u64,
        commit: u64,
        last: LogPlace,
    },
    /// A leader without a quorum's answers looks for one. It counts as no heartbeat.
    Probe {
        term: u64,
    },
    /// A heartbeat or a probe was heard. Says nothing of what is durable.
    Heard {
        term: u64,
    },
    /// A piece of a snapshot, which has that many bytes.
    Piece {
        term: u64,
        place: LogPlace,
        whole: u64,
        at: u64,
        bytes: Vec<u8>,
    },
    /// So much of that snapshot has come.
    HasPieces {
        term: u64,
        place: LogPlace,
        bytes: u64,
    },
    /// The log's lead is handed over: stand at once.
    Stand {
        term: u64,
    },
    /// What its sender's disk has confirmed is to be told to it.
    AskConfirmed,
    /// The disk that this is sent to has confirmed that it has this term, and the log up to there. It has
    /// them, or was put back to an earlier state.
    Confirmed {
        term: u64,
        /// Committed.
        place: LogPlace,
        /// Not committed, and its sender, which leads in that term, counts the disk for it. 0: there is none.
        acknowledged: LogPlace,
    },
}

impl GroupBody {
    /// Whether no member can come to such a term or place: what follows them could not be counted.
    pub(super) fn is_beyond(&self, own_term: u64) -> bool {
        let (term, index) = match self {
            GroupBody::Hello { .. } | GroupBody::UnknownDisk | GroupBody::AskConfirmed => (0, 0),
            GroupBody::Confirmed { term, place, acknowledged } => {
                let term = (*term).max(place.term).max(acknowledged.term);
                (term, place.index.max(acknowledged.index))
            }
            GroupBody::AskPreVote { term, last, .. }
            | GroupBody::AskVote { term, last, .. }
            | GroupBody::Appended { term, last } => (*term, last.index),
            GroupBody::PreVote { term }
            | GroupBody::Vote { term, .. }
            | GroupBody::Probe { term }
            | GroupBody::Heard { term }
            | GroupBody::Stand { term } => (*term, 0),
            GroupBody::Append { term, commit, after, .. } => (*term, after.index.max(*commit)),
            GroupBody::Commit { term, commit, last } => (*term, last.index.max(*commit)),
            GroupBody::Piece { term, place, .. } | GroupBody::HasPieces { term, place, .. } => {
                (*term, place.index)
            }
        };
        term.saturating_sub(own_term) > TERMS_AHEAD_MAX || index > INDEX_MAX
    }
}

impl GroupFrame {
    /// As it is sent; at most [`GROUP_FRAME_BYTES_MAX`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let GroupFrame { cluster, from, to, is_low, ref body } = *self;
        let head = spelled(GroupFrameHead { cluster, from, to, is_low });
        spelled((head, body))
    }

    /// The frame that these bytes are; none if its body is of a kind that only a later release knows.
    ///
    /// # Errors
    ///
    /// They are none, or too many.
    pub fn decode(bytes: &[u8]) -> Result<Option<GroupFrame>, WireError> {
        if bytes.len() > GROUP_FRAME_BYTES_MAX {
            return Err(WireError::TooLong { bytes: bytes.len() as u64 });
        }
        let malformed = |error: DecodeError| WireError::Malformed(error.to_string());
        let (head, read) =
            bincode::borrow_decode_from_slice::<&[u8], _>(bytes, CONFIG).map_err(malformed)?;
        let (head, _) = bincode::decode_from_slice(head, CONFIG).map_err(malformed)?;
        let (kind, _) =
            bincode::decode_from_slice::<u32, _>(&bytes[read..], CONFIG).map_err(malformed)?;
        if kind >= KINDS {
            return Ok(None);
        }
        let (body, _) = bincode::decode_from_slice(&bytes[read..], CONFIG).map_err(malformed)?;
        let GroupFrameHead { cluster, from, to, is_low } = head;
        Ok(Some(GroupFrame { cluster, from, to, is_low, body }))
    }
}

fn spelled(what: impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(what, CONFIG).expect("a frame has nothing that cannot be encoded")
}

/// How many kinds of body there are: one from here on is of a later release.
const KINDS: u32 = 16;

/// More terms than there are elections in a group's life, and a longer log.
const TERMS_AHEAD_MAX: u64 = 1 << 32;
const INDEX_MAX: u64 = 1 << 62;

/// bincode counts what it reads at the size it has in memory; no entry is that much larger there.
const DECODED_BYTES_MAX: usize = 16 * GROUP_FRAME_BYTES_MAX;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODED_BYTES_MAX>,
> = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();

#[cfg(test)]
mod tests;
