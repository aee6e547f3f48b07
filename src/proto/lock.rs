//! What the table keeps of one lock and of one waiter, and the keys that they have there.

use std::{
    collections::BTreeSet,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use super::{LeaseId, Place, RequestId, record::TakenAway, wire::Mode};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionKey(pub(super) u32);

/// A lock's place in the table; used again once its name is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LockKey(pub(super) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WaiterKey(pub(super) u32);

/// A lease's place in the table: it is the lock's only one, or one of several that are held together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HoldKey {
    pub(super) lock: LockKey,
    /// 0 for the only one.
    joint: u32,
}

impl HoldKey {
    /// The lock's exclusive lease.
    pub(super) fn exclusive(lock: LockKey) -> HoldKey {
        HoldKey { lock, joint: 0 }
    }

    /// The one of several that has this key among all such leases.
    pub(super) fn joint(lock: LockKey, key: u32) -> HoldKey {
        HoldKey { lock, joint: key + 1 }
    }

    /// Its key, if it is one of several.
    pub(super) fn joint_key(self) -> Option<u32> {
        self.joint.checked_sub(1)
    }
}

/// A [`LeaseId`] or a [`Place`] in 8 bytes, in the order of the original: epoch above count, as
/// in a token. In halves, the upper one first, so that beside a key it takes 12 bytes and not 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackedId([u32; 2]);

impl Hash for PackedId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.bits());
    }
}

impl PackedId {
    /// No leader ever made it.
    pub(super) const ZERO: PackedId = PackedId([0; 2]);
    /// Above all that are ever made.
    pub(super) const MAX: PackedId = PackedId([u32::MAX; 2]);

    /// `None` where no leader ever made such a one.
    pub(super) fn new(epoch: u32, count: u64) -> Option<PackedId> {
        let fits = epoch <= Token::MAX_EPOCH && count < 1 << Token::COUNT_BITS;
        fits.then(|| {
            let bits = Token::first_of(epoch).get() | count;
            PackedId([(bits >> 32) as u32, bits as u32])
        })
    }

    fn bits(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }

    pub(super) fn of_lease(lease: LeaseId) -> Option<PackedId> {
        PackedId::new(lease.epoch, lease.count)
    }

    pub(super) fn of_place(place: Place) -> Option<PackedId> {
        PackedId::new(place.epoch, place.count)
    }

    fn epoch(self) -> u32 {
        (self.bits() >> Token::COUNT_BITS) as u32
    }

    fn count(self) -> u64 {
        self.bits() & ((1 << Token::COUNT_BITS) - 1)
    }

    pub(super) fn lease(self) -> LeaseId {
        LeaseId { epoch: self.epoch(), count: self.count() }
    }

    pub(super) fn place(self) -> Place {
        Place { epoch: self.epoch(), count: self.count() }
    }
}

impl fmt::Debug for PackedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.count())
    }
}

/// A name that is held, waited for, or left otherwise than in good order.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) name: Name,
    /// The highest token granted; while it is held, the last one of its holder's block.
    pub(super) token: Token,
    /// Its exclusive lease.
    pub(super) holding: Option<Holding>,
    /// How the last holder left.
    pub(super) predecessor: Predecessor,
    /// An `at_least` keeps it taken, or is about to or has just done: it is not forgotten.
    pub(super) is_reserved: bool,
    /// The table has [`JointLeases`] of it.
    pub(super) is_joint: bool,
}

impl Lock {
    /// The first token of the block that is held exclusively; the highest granted, if none is.
    pub(super) fn first(&self) -> Token {
        let spread = self.holding.as_ref().map_or(0, |holding| holding.spread);
        Token::new(self.token.get() - u64::from(spread)).expect("below a token are tokens")
    }

    /// Whether its holder was granted more than one token.
    pub(super) fn is_block(&self) -> bool {
        self.holding.as_ref().is_some_and(|holding| holding.spread > 0)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    pub(super) lease: PackedId,
    pub(super) request: RequestId,
    pub(super) place: PackedId,
    pub(super) since: Time,
    pub(super) session: SessionKey,
    pub(super) right: Right,
    /// How many tokens of its block come before the last, the lock's.
    pub(super) spread: u32,
    pub(super) recall: Recall,
}

/// The leases of one lock that are held together, or the limit of those that will be.
#[derive(Debug)]
pub(super) struct JointLeases {
    /// How many permits there are, as the first that asked has named it; 0 where leases are shared.
    pub(super) limit: u32,
    /// How many permits are held.
    pub(super) taken: u32,
    /// The first granted first, with their keys among all such leases.
    pub(super) leases: BTreeSet<(PackedId, u32)>,
}

/// One of several leases of a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct JointLease {
    pub(super) holding: Holding,
    pub(super) token: Token,
    pub(super) mode: Mode,
    /// It may be kept.
    pub(super) keeps: bool,
    /// Readers that enter bear its token too: it was counted up for a reader.
    pub(super) is_borne: bool,
}

/// How far the recall of a lease has come on its session's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    No,
    /// It was not asked for, and its session says that no guard has it.
    Kept,
    Asked,
    /// A guard has it, and gives it back when it leaves.
    InUse,
}

/// How far the taking away of a lease has come. It only moves down this list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right {
    Whole,
    /// On its way to the disk; its holder does not know yet.
    Ending,
    /// Durable; free when its holder has answered or its last promise has passed.
    Ended(LostReason, #[allow(dead_code)] TakenAway),
}

/// What a holder says of itself, as long as a request or a lease has it.
#[derive(Debug)]
pub(super) struct StatedValue {
    pub(super) bytes: Arc<[u8]>,
    /// Counts it for its client, and for all.
    pub(super) _counted: [Arc<()>; 2],
}

#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) lock: LockKey,
    pub(super) session: SessionKey,
    pub(super) request: RequestId,
    pub(super) place: PackedId,
    pub(super) since: Time,
    pub(super) mode: Mode,
    pub(super) patience: RequestPatience,
    pub(super) at_most: Option<Duration>,
    pub(super) at_least: Option<Duration>,
    pub(super) above: Token,
    /// Its lease may be kept.
    pub(super) keep: bool,
    /// Its session's connection is up. Otherwise it keeps its place and is passed over.
    pub(super) present: bool,
    /// What its holder will say of itself.
    pub(super) value: Option<Arc<StatedValue>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPatience {
    /// To be refused as soon as another session has it.
    None,
    Some,
}
