//! What a member's disk has of the log, and each write to it.

use bincode::{Decode, Encode};

use super::{
    entry::{GroupEntry, GroupMembers, LogPlace, VoterId},
    state::GroupState,
};
use crate::proto::{ClusterId, wire::WireError};

/// What a disk has: its vote, and the log from the last snapshot on.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct StoredGroup {
    pub term: u64,
    pub voted_for: Option<VoterId>,
    pub snapshot: Option<GroupSnapshot>,
    /// The entries behind the snapshot, the first of them at the index behind its own.
    pub entries: Vec<GroupEntry>,
}

/// The state at a place of the log, with everything before it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct GroupSnapshot {
    pub place: LogPlace,
    pub members: GroupMembers,
    pub state: GroupState,
}

/// One write to a member's disk. They are written in the order in which they come, and each is durable
/// before [`handle_stored`](super::GroupMachine::handle_stored) names it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum GroupWrite {
    /// The term, and which candidate has this disk's vote in it.
    Vote { term: u64, voted_for: Option<VoterId> },
    /// These entries stand behind the place of this index, and nothing else does.
    Entries { after: u64, entries: Vec<GroupEntry> },
    /// Everything that the disk is to have: what it had before is of no more use. A file begins anew with
    /// it.
    Whole(Box<StoredGroup>),
}

impl StoredGroup {
    /// The group that the disk belongs to, once it does.
    pub fn cluster(&self) -> Option<ClusterId> {
        let of = |entry: &GroupEntry| match entry {
            GroupEntry::Members(members) => Some(members.cluster),
            _ => None,
        };
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.members.cluster);
        snapshot.or_else(|| self.entries.iter().find_map(of))
    }

    /// Whether it belongs to one.
    pub fn is_made(&self) -> bool {
        self.cluster().is_some()
    }

    /// The place that the entries stand behind.
    pub fn snapshot_place(&self) -> LogPlace {
        self.snapshot.as_ref().map(|snapshot| snapshot.place).unwrap_or_default()
    }

    /// One more write is on the disk. A disk that has all writes in their order, from the first or from
    /// the last [`GroupWrite::Whole`] on, is read by this.
    ///
    /// # Errors
    ///
    /// The entries leave a gap, or replace what a snapshot has: writes are missing.
    pub fn remember(&mut self, write: GroupWrite) -> Result<(), WireError> {
        match write {
            GroupWrite::Vote { term, voted_for } => {
                (self.term, self.voted_for) = (term, voted_for);
            }
            GroupWrite::Entries { after, entries } => {
                let kept = after.checked_sub(self.snapshot_place().index);
                let kept = kept.and_then(|kept| usize::try_from(kept).ok());
                let Some(kept) = kept.filter(|kept| *kept <= self.entries.len()) else {
                    return Err(WireError::Malformed("entries of the log are missing".into()));
                };
                self.entries.truncate(kept);
                self.entries.extend(entries);
            }
            GroupWrite::Whole(whole) => *self = *whole,
        }
        Ok(())
    }
}

impl GroupWrite {
    /// As it is written.
    pub fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, CONFIG).expect("a write has nothing that cannot be encoded")
    }

    /// The write that these bytes are.
    ///
    /// # Errors
    ///
    /// They are none, or there are more of them.
    pub fn decode(bytes: &[u8]) -> Result<GroupWrite, WireError> {
        decode_whole(bytes)
    }
}

impl GroupSnapshot {
    pub(super) fn encode(&self) -> Vec<u8> {
        bincode::encode_to_vec(self, CONFIG).expect("a snapshot has nothing that cannot be encoded")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<GroupSnapshot, WireError> {
        decode_whole(bytes)
    }
}

fn decode_whole<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    match bincode::decode_from_slice::<T, _>(bytes, CONFIG) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok(_) => Err(WireError::Malformed("bytes are left over".into())),
        Err(error) => Err(WireError::Malformed(error.to_string())),
    }
}

/// What bincode counts of a value is its size in memory: some four times the bytes of the largest journal.
const DECODED_BYTES_MAX: usize = 1 << 30;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODED_BYTES_MAX>,
> = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();

#[cfg(test)]
mod tests;
