//! What members of a group say to each other.

use bincode::{Decode, Encode};

use super::entry::{DiskId, GroupEntry, LogPlace};
use crate::proto::{ClusterId, wire::WireError};

/// The longest frame between members, in bytes: a little less than a message of the wire may have.
pub const GROUP_FRAME_BYTES_MAX: usize = 60 * 1024;

/// A frame between two members. It may be lost, come twice, or come late.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
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
        place: LogPlace,
    },
}

impl GroupBody {
    /// Whether no member can come to such a term or place: what follows them could not be counted.
    pub(super) fn is_beyond(&self, own_term: u64) -> bool {
        let (term, index) = match self {
            GroupBody::Hello { .. } | GroupBody::UnknownDisk | GroupBody::AskConfirmed => (0, 0),
            GroupBody::Confirmed { term, place } => ((*term).max(place.term), place.index),
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
        bincode::encode_to_vec(self, CONFIG).expect("a frame has nothing that cannot be encoded")
    }

    /// The frame that these bytes are.
    ///
    /// # Errors
    ///
    /// They are none, more than that, or too many.
    pub fn decode(bytes: &[u8]) -> Result<GroupFrame, WireError> {
        if bytes.len() > GROUP_FRAME_BYTES_MAX {
            return Err(WireError::TooLong { bytes: bytes.len() as u64 });
        }
        match bincode::decode_from_slice::<GroupFrame, _>(bytes, CONFIG) {
            Ok((frame, read)) if read == bytes.len() => Ok(frame),
            Ok(_) => Err(WireError::Malformed("bytes are left over".into())),
            Err(error) => Err(WireError::Malformed(error.to_string())),
        }
    }
}

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
