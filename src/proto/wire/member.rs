//! What goes over a connection between two members of a group, in one direction: its frames spell
//! themselves.

use bincode::{Decode, Encode};

use super::{Message, UnknownKind};

/// What one member says to another, on a connection that it has begun.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MemberMessage {
    /// The first: which member says it, and which it takes the other for.
    Introduce { version: u32, from: String, to: String },
    /// A [`GroupFrame`](crate::proto::group::GroupFrame), as that spells itself.
    Frame(Vec<u8>),
}

/// The version of what members say to each other, and have on their disks: what changes it says
/// [`GroupFrame`](crate::proto::group::GroupFrame). A member speaks to each other one in the older of their
/// versions.
pub const MEMBER_VERSION: u32 = 1;

/// The oldest version that it still speaks.
pub const MEMBER_VERSION_OLDEST: u32 = 1;

impl Message for MemberMessage {
    type Answer = MemberMessage;

    const KINDS: u32 = 2;

    fn not_understood(_: UnknownKind) -> Option<MemberMessage> {
        None
    }
}
