//! What an acquire asks for, and how much of a name that is.

use std::{mem::size_of, sync::Arc, time::Duration};

use bincode::{Decode, Encode};

use crate::{
    name::Name,
    proto::{ClusterId, LeaseId, RequestId},
    token::Token,
};

/// What an `Acquire` asks for. It stands last in what carries it: a later field comes behind it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Acquire {
    pub name: Name,
    pub wait: Wait,
    /// The longest it may be held.
    pub at_most: Option<Duration>,
    /// Whether the lease may be kept after the last local unlock (kept leases).
    pub keep: bool,
    /// The highest token the client's machine knows for the name; the grant exceeds it.
    pub above: Token,
    /// For how long the name stays taken from the telling of the grant on, however its holder ends.
    pub at_least: Option<Duration>,
    pub mode: Mode,
    pub extras: Option<Box<Extras>>,
}

/// What few requests have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    /// A request of the same session: if that is not granted when this one is read, this one is
    /// refused as a try. So a session that asks for several names at once waits for one with those
    /// before it in hand, and with none behind it.
    pub after: Option<RequestId>,
    /// The leases of its session that nothing gives back while it waits: a circle of these is a deadlock.
    pub holds: Vec<LeaseId>,
    /// What its holder says of itself to observers of the name.
    pub value: Option<Arc<[u8]>>,
    /// The same of other sessions: those of processes that wait for this one to end.
    pub above: Vec<HeldAbove>,
}

/// What a process holds that waits for the one that asks to end. A holder that is another client than the
/// asker, or on another machine, is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAbove {
    /// A name and token of another cluster mean another lock.
    pub cluster: ClusterId,
    pub name: Name,
    pub token: Token,
    /// The holder's.
    pub pid: u32,
}

impl Acquire {
    /// The name for itself alone, and nothing besides.
    pub fn exclusive(name: Name, wait: Wait) -> Acquire {
        Acquire {
            name,
            wait,
            at_most: None,
            keep: false,
            above: Token::ZERO,
            at_least: None,
            mode: Mode::Exclusive,
            extras: None,
        }
    }

    /// Whether this release grants such requests.
    pub fn is_supported(&self) -> bool {
        let is_said = self.extras.as_deref().is_some_and(|extras| extras.value.is_some());
        match self.mode {
            Mode::Exclusive => true,
            // What is reserved is reserved for one, and one leads.
            mode => mode.is_granted() && self.at_least.is_none() && !is_said,
        }
    }

    /// The bytes that it takes besides its own and its name's.
    pub(in crate::proto) fn weight_of_extras(&self) -> usize {
        self.extras.as_deref().map_or(0, |extras| {
            let value = extras.value.as_ref().map_or(0, |value| value.len());
            let names: usize = extras.above.iter().map(|held| held.name.len() + 32).sum();
            let above = size_of_val(&extras.above[..]) + names;
            size_of::<Extras>() + size_of_val(&extras.holds[..]) + above + value
        })
    }
}

/// How much of a name is asked for or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Mode {
    /// All of it: there is no other holder.
    Exclusive,
    /// There may be other shared holders.
    Shared,
    /// As shared, and the one of them that may become exclusive.
    Upgradable,
    /// So many of a limited number.
    Permits { count: u32, limit: u32 },
}

impl Mode {
    /// Whether this release grants leases of this mode.
    pub fn is_granted(self) -> bool {
        match self {
            Mode::Exclusive | Mode::Shared | Mode::Upgradable => true,
            Mode::Permits { count, limit } => (1..=limit).contains(&count) && limit <= PERMITS_MAX,
        }
    }

    /// How many permits such a lease has.
    pub fn permits(self) -> u32 {
        match self {
            Mode::Permits { count, .. } => count,
            _ => 0,
        }
    }

    /// How many tokens come before the last one of such a lease, which is not kept: each permit has its
    /// own.
    pub(in crate::proto) fn spread(self) -> u32 {
        self.permits().saturating_sub(1)
    }

    /// The same of a semaphore with so many permits, of which no more than those of `self` are left.
    pub(in crate::proto) fn lowered(self, left: u32) -> Mode {
        match self {
            Mode::Permits { count, limit } => Mode::Permits { count: left.clamp(1, count), limit },
            other => other,
        }
    }

    /// What a name is used as by such a lease.
    pub fn name_use(self) -> NameUse {
        match self {
            Mode::Exclusive | Mode::Shared | Mode::Upgradable => NameUse::Lock,
            Mode::Permits { limit, .. } => NameUse::Permits { limit },
        }
    }
}

/// The most permits that a name can have.
pub const PERMITS_MAX: u32 = (1 << 23) - 1;

/// What a name is used as, by all its holders and waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum NameUse {
    /// A mutex or a read-write lock.
    Lock,
    /// A semaphore with so many permits.
    Permits { limit: u32 },
}

/// How long an acquire waits in the leader's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Wait {
    No,
    For(Duration),
    Forever,
}
