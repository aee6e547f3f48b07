//! What a member of a group says of it to an operator, and what becomes of a disk that is to be replaced.

use bincode::{Decode, Encode};

/// A group, as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The member that says so.
    pub own: String,
    /// Which member leads the log, as far as it knows.
    pub leader: Option<String>,
    /// All members have met, so that there is a journal.
    pub is_made: bool,
    /// The group does not know the disk of the member that says so.
    pub own_disk_waits: bool,
    pub members: Vec<MemberReport>,
}

/// One member of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    pub member: String,
    pub address: String,
    /// Its disk has a vote.
    pub votes: bool,
    /// It was heard of within the time that an election takes.
    pub is_heard: bool,
    /// By how many entries of the log it is behind, if the member that says so leads that.
    pub lag: Option<u64>,
    /// It has a disk that the group does not know.
    pub disk_waits: bool,
}

/// What became of a disk that was to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum DiskReplacement {
    /// The old one is out of the group, and the new one votes once it has caught up.
    Replaced,
    /// The leader is no member of a group.
    NoGroup,
    /// Only the member that leads the log replaces disks: this one, if it is known.
    NotLeading(Option<String>),
    NotMade,
    NoSuchMember,
    /// The member has the disk that the group knows, or was not heard of since it has another.
    NoDiskWaits,
    /// Another change of the members is not committed yet.
    Changing,
    /// It may have happened, or may yet happen.
    Unknown(String),
}
