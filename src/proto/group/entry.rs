//! What stands in the log of a group, and where.

use std::{fmt, sync::Arc, time::Duration};

use bincode::{Decode, Encode};

use crate::proto::{
    ClusterId,
    journal::{JournalOperation, ReignAttempt, ReignKey, Stamp},
    record::Record,
};

/// A member of a group: the name that the command line gives it, such as `a`. Its disk may be replaced.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct MemberName(String);

impl MemberName {
    /// A member of this name.
    pub fn new(name: impl Into<String>) -> MemberName {
        MemberName(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {}", self.0)
    }
}

/// A member's disk: random, made with it. The disk is what votes, and not the name: one that was
/// emptied has forgotten its votes, and is another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DiskId(pub u128);

impl DiskId {
    /// The disk as a voter.
    pub(super) fn voter(self) -> VoterId {
        VoterId(self.0 as u64)
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {:032x}", self.0)
    }
}

/// A disk, as short as votes are counted by: half of its random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct VoterId(pub u64);

/// A place in the log. Two logs that have the same place agree up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct LogPlace {
    pub term: u64,
    pub index: u64,
}

/// A member's place in the group: the disk that it has there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct GroupSeat {
    pub member: MemberName,
    pub disk: DiskId,
}

/// The members of a group. While the voters change, a majority of both sets decides.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupMembers {
    pub cluster: ClusterId,
    pub voters: Vec<GroupSeat>,
    /// The voters that there will be, while they change.
    pub new_voters: Vec<GroupSeat>,
    /// Disks that are told everything, and vote only once they have caught up.
    pub learners: Vec<GroupSeat>,
}

impl GroupMembers {
    /// Every seat, each disk once.
    pub fn seats(&self) -> impl Iterator<Item = &GroupSeat> {
        let new = self.new_voters.iter().filter(|seat| !self.voters.contains(seat));
        self.voters.iter().chain(new).chain(&self.learners)
    }

    /// The seat of this disk.
    pub fn seat_of(&self, disk: DiskId) -> Option<&GroupSeat> {
        self.seats().find(|seat| seat.disk == disk)
    }

    /// The disks that this member has: two while one of them is replaced.
    pub fn disks_of<'a>(&'a self, member: &'a MemberName) -> impl Iterator<Item = DiskId> + 'a {
        self.seats().filter(move |seat| seat.member == *member).map(|seat| seat.disk)
    }

    /// Whether the disk votes.
    pub fn is_voter(&self, disk: DiskId) -> bool {
        self.voters.iter().chain(&self.new_voters).any(|seat| seat.disk == disk)
    }

    /// Whether these are a majority of the voters, and of those that there will be.
    pub(super) fn is_quorum(&self, mut has: impl FnMut(DiskId) -> bool) -> bool {
        let mut is_majority = |seats: &[GroupSeat]| {
            let count = seats.iter().filter(|seat| has(seat.disk)).count();
            seats.is_empty() || count > seats.len() / 2
        };
        is_majority(&self.voters) && is_majority(&self.new_voters)
    }
}

/// An operation of the journal that writes, as an entry of the log. Its condition is evaluated when it
/// is applied.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupCommand {
    TakeOver(Arc<ReignAttempt>),
    Renew(ReignKey),
    Append {
        reign: ReignKey,
        number: u64,
        records: Arc<[Record]>,
    },
    Resign(ReignKey),
    /// Every member has the log: from here on the journal can be used.
    Made,
}

impl GroupCommand {
    /// `None` for one that writes nothing.
    pub(super) fn of(operation: JournalOperation) -> Option<GroupCommand> {
        match operation {
            JournalOperation::Read => None,
            JournalOperation::TakeOver(attempt) => Some(GroupCommand::TakeOver(attempt)),
            JournalOperation::Renew(reign) => Some(GroupCommand::Renew(reign)),
            JournalOperation::Append { reign, number, records } => {
                Some(GroupCommand::Append { reign, number, records })
            }
            JournalOperation::Resign(reign) => Some(GroupCommand::Resign(reign)),
        }
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum GroupEntry {
    /// From here on entries are of this term.
    Term(u64),
    /// From here on, committed or not, these are the members.
    Members(GroupMembers),
    Command(GroupCommand),
}

impl GroupEntry {
    /// As it is stored and sent.
    pub(super) fn encode(&self) -> Vec<u8> {
        let config = bincode::config::standard();
        bincode::encode_to_vec(self, config).expect("an entry has nothing that cannot be encoded")
    }
}

macro_rules! by_way_of {
    ($($type:ty: $way:ty, $there:expr, $back:expr;)*) => {$(
        impl Encode for $type {
            fn encode<E: bincode::enc::Encoder>(
                &self,
                encoder: &mut E,
            ) -> Result<(), bincode::error::EncodeError> {
                let there: fn(&$type) -> $way = $there;
                there(self).encode(encoder)
            }
        }
        impl<C> Decode<C> for $type {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let back: fn($way) -> $type = $back;
                Ok(back(Decode::<C>::decode(decoder)?))
            }
        }
        bincode::impl_borrow_decode!($type);
    )*};
}

type AttemptFields = (u64, ReignKey, Duration, Option<String>, Option<u32>, Record);

by_way_of! {
    ReignKey: u128, |key| key.0, ReignKey;
    Stamp: u64, |stamp| stamp.0, Stamp;
    ReignAttempt: AttemptFields,
        |attempt| {
            let ReignAttempt { seen, reign, lasts, address, epoch_above, took_over } = attempt.clone();
            (seen.0, reign, lasts, address, epoch_above, took_over)
        },
        |(seen, reign, lasts, address, epoch_above, took_over)| {
            ReignAttempt { seen: Stamp(seen), reign, lasts, address, epoch_above, took_over }
        };
    GroupCommand: CommandWay, |command| match command {
            GroupCommand::TakeOver(attempt) => CommandWay::TakeOver((**attempt).clone()),
            GroupCommand::Renew(reign) => CommandWay::Renew(*reign),
            GroupCommand::Append { reign, number, records } => {
                CommandWay::Append(*reign, *number, records.to_vec())
            }
            GroupCommand::Resign(reign) => CommandWay::Resign(*reign),
            GroupCommand::Made => CommandWay::Made,
        },
        |way| match way {
            CommandWay::TakeOver(attempt) => GroupCommand::TakeOver(Arc::new(attempt)),
            CommandWay::Renew(reign) => GroupCommand::Renew(reign),
            CommandWay::Append(reign, number, records) => {
                GroupCommand::Append { reign, number, records: records.into() }
            }
            CommandWay::Resign(reign) => GroupCommand::Resign(reign),
            CommandWay::Made => GroupCommand::Made,
        };
}

/// A command, as it is spelled.
#[derive(Encode, Decode)]
enum CommandWay {
    TakeOver(ReignAttempt),
    Renew(ReignKey),
    Append(ReignKey, u64, Vec<Record>),
    Resign(ReignKey),
    Made,
}
