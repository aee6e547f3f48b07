//! What an operator may want to know of a group.

use super::entry::{DiskId, MemberName};
use crate::proto::ClusterId;

/// A change that an operator may want to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupNotice {
    /// All members have met, and the group is made.
    Made { cluster: ClusterId },
    /// This member leads the log.
    Leads { term: u64 },
    /// Another leads it.
    Follows { leader: MemberName },
    /// For longer than an election takes no leader of the log was heard of.
    Leaderless,
    /// This member leads the log and has no majority of the group, or its disk does not write: it leads
    /// on only if that passes before another is elected.
    Quiet,
    /// This member's disk is low, this process reigns, and another member could: the reign is to be handed
    /// over, and then the log. Said again as long as it is so.
    StepsAside,
    /// As far as this member has applied the log the journal is in another reign than before, or in none; or
    /// it is in none, and this member can write by now. Its process's own leader does well to
    /// [look](crate::proto::reign::Reign::look_again) before its next read is due.
    ReignChanged,
    /// The group does not know the disk of this member: it waits for
    /// [`handle_replace`](super::GroupMachine::handle_replace).
    OwnDiskWaits { cluster: ClusterId },
    /// The group does not know the disk that another member has now.
    DiskWaits { member: MemberName, disk: DiskId },
    /// A member's new disk is in the group; it does not vote yet.
    Replaced { member: MemberName, disk: DiskId },
    /// A member's new disk has caught up, and votes.
    Admitted { member: MemberName, disk: DiskId },
    /// This member's disk is another member's.
    DiskOfAnother { member: MemberName },
    /// This member's disk has less than others know that it has confirmed: it was put back to an earlier
    /// state, and takes no part any more. Another one, empty, may be admitted in its place. Given as term
    /// and last entry.
    OwnDiskPutBack { had: (u64, u64), has: (u64, u64) },
    /// A member is of another group.
    OtherCluster { member: MemberName, cluster: ClusterId },
    /// What is on the disk, or what a leader sent, cannot be: this member takes no part any more.
    Failed(String),
}

/// What became of [`handle_replace`](super::GroupMachine::handle_replace).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAnswer {
    /// The old disk is out of the group and the new one in it; it votes once it has caught up.
    Replaced {
        disk: DiskId,
    },
    Refused(ReplaceRefusal),
    /// It may have happened, or may yet happen.
    Unknown(String),
}

/// Why a disk is not replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplaceRefusal {
    /// Only the member that leads the log can do it: this one, if it is known.
    NotLeading(Option<MemberName>),
    /// The group is not made yet.
    NotMade,
    /// There is no such member.
    NoSuchMember,
    /// The member has the disk that the group knows, or was not heard of since it has another.
    NoDiskWaits,
    /// Another change of the members is not committed yet.
    Changing,
}

/// How a group stands, as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStanding {
    pub own: MemberName,
    pub cluster: Option<ClusterId>,
    /// Which member leads the log.
    pub leader: Option<MemberName>,
    /// This one leads it, and a majority answers.
    pub is_leading: bool,
    /// The members were all there once, so that the journal can be used.
    pub is_made: bool,
    /// This member's disk is not of the group, and waits for `replace`.
    pub own_disk_waits: bool,
    pub term: u64,
    /// The last entry that this member has applied, and its last.
    pub applied: u64,
    pub last: u64,
    pub members: Vec<MemberStanding>,
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStanding {
    pub member: MemberName,
    /// Its disk in the group.
    pub disk: Option<DiskId>,
    /// That disk votes.
    pub votes: bool,
    /// It was heard of within the time that an election takes.
    pub is_heard: bool,
    /// By how many entries it is behind, if this member leads the log.
    pub lag: Option<u64>,
    /// A disk that the group does not know, and that the member has now.
    pub waiting_disk: Option<DiskId>,
}
