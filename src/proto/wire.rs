//! What crosses the wire and what reaches the disk: messages, frames, bytes.
//!
//! One long-lived bidirectional stream per session carries length-prefixed bincode frames of at
//! most 64 KiB. This is the only file that knows bincode. Golden bytes hold the format.

use std::time::Duration;

use super::{ClusterId, LeaseId, Place, Proof, RequestId, SessionId};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

/// What a client says to a leader.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// Opens the report of a connection. The report ends with `Ready` and counts only whole.
    Hello {
        session: SessionId,
        proof: Proof,
        /// Grows with each connection of the session; only the highest counts.
        count: u64,
        /// The cluster this manager has spoken to, once it has.
        cluster: Option<ClusterId>,
        /// The highest epoch this manager has seen.
        epoch_seen: u32,
        /// Fixed at the session's opening.
        time_to_live: Duration,
        identity: Identity,
    },
    /// Leases this session holds (part of the report).
    Held {
        leases: Vec<HeldLease>,
    },
    /// Requests this session waits with (part of the report).
    Waiting {
        requests: Vec<WaitingRequest>,
    },
    /// The report is whole.
    Ready,
    Acquire {
        request: RequestId,
        acquire: Acquire,
    },
    /// This request is no longer wanted. A grant that crossed it is handed straight back.
    Cancel {
        request: RequestId,
    },
    /// Gives a lease back; stale ones are answered and ignored.
    Release {
        lease: LeaseId,
        /// The highest token used of the lease's block.
        last_used: Token,
        how: Predecessor,
    },
    /// Moves the session's deadline.
    Renew {
        sent_at: Time,
    },
    /// The session ends in good order; only said when no guard is left.
    Goodbye,
    /// Is this token's lease still good? For resource servers, as Chubby's CheckSequencer.
    Check {
        query: RequestId,
        name: Name,
        token: Token,
    },
    /// Lists names after `after` (or from the first), at most `limit`.
    List {
        query: RequestId,
        after: Option<Name>,
        limit: u32,
    },
    /// Takes the lock away from exactly the holder of this token.
    Break {
        query: RequestId,
        name: Name,
        token: Token,
    },
}

/// What a leader says to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum LeaderMessage {
    /// The report was whole and is believed.
    Welcome {
        session: SessionId,
        time_to_live: Duration,
        epoch: u32,
        cluster: ClusterId,
        /// The addresses of the group's members; empty for a single leader.
        members: Vec<String>,
        /// How often to renew.
        renew_every: Duration,
    },
    /// Somebody else leads; `try_next` says who, where known.
    NotLeader {
        try_next: Option<String>,
    },
    /// The session is not known (any more): drop its leases, take a new id, repeat the requests.
    Gone {
        session: SessionId,
    },
    /// The request waits at this place.
    Queued {
        request: RequestId,
        place: Place,
        holder: Option<HolderInfo>,
    },
    Granted {
        request: RequestId,
        lease: LeaseId,
        /// The first token of the block; the grant's own.
        first: Token,
        /// The last token of the block; equal to `first` unless the lease may be kept.
        last: Token,
        predecessor: Predecessor,
        /// What is left of `at_most`.
        at_most: Option<Duration>,
    },
    Refused {
        request: RequestId,
        why: Refusal,
        holder: Option<HolderInfo>,
    },
    /// The release of this lease has been read (whether or not it was stale).
    Released {
        lease: LeaseId,
    },
    /// Somebody else waits: give it back (sticky leases).
    Recall {
        lease: LeaseId,
    },
    /// This lease was taken away; answer with `Release`.
    Lost {
        lease: LeaseId,
        why: LostReason,
    },
    /// The session's deadline has moved.
    Renewed {
        /// The client's own time, echoed.
        sent_at: Time,
        renew_every: Duration,
        /// Token blocks topped up (sticky leases): lease and its new last token.
        blocks: Vec<(LeaseId, Token)>,
    },
    Checked {
        query: RequestId,
        good: bool,
    },
    Listed {
        query: RequestId,
        locks: Vec<LockInfo>,
        more: bool,
    },
    /// What became of a `Break`: the names's holder had that token and is being stopped, or not.
    Broke {
        query: RequestId,
        found: bool,
    },
}

/// What an `Acquire` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Acquire {
    pub name: Name,
    pub wait: Wait,
    /// The longest it may be held.
    pub at_most: Option<Duration>,
    /// Whether the lease may be kept after the last local unlock (sticky leases).
    pub keep: bool,
    /// The highest token the client's machine knows for the name; the grant exceeds it.
    pub above: Token,
}

/// How long an acquire waits in the leader's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    No,
    For(Duration),
    Forever,
}

/// A lease in a client's report.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldLease {
    pub lease: LeaseId,
    pub name: Name,
    /// The block it was given.
    pub first: Token,
    pub last: Token,
    /// The highest token used.
    pub last_used: Token,
    /// What is left of `at_most`.
    pub at_most: Option<Duration>,
    /// Kept without a guard (sticky leases).
    pub kept: bool,
}

/// A request in a client's report.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingRequest {
    pub request: RequestId,
    pub acquire: Acquire,
    /// The place it was told, if it ever was.
    pub place: Option<Place>,
}

/// Who a session is, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub label: String,
    pub host: String,
    pub pid: u32,
    pub command: String,
}

/// Who holds or waits, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderInfo {
    pub identity: Identity,
    pub since: Duration,
    pub token: Token,
}

/// A name, as `List` tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct LockInfo {
    pub name: Name,
    /// The highest token granted.
    pub token: Token,
    pub holder: Option<HolderInfo>,
    /// Kept, not held (sticky leases).
    pub kept: bool,
    /// What its holder was promised, at most.
    pub remaining: Option<Duration>,
    pub predecessor: Predecessor,
    /// Who waits, first come first, cut to what a frame holds.
    pub waiters: Vec<HolderInfo>,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It was not to wait, and somebody else holds it.
    WouldBlock,
    /// It waited for as long as it was to.
    TimedOut,
    /// A limit of the leader is reached.
    TooManySessions,
    TooManyLeases,
    TooManyWaiters,
    /// The time to live is outside what this leader accepts.
    TimeToLive,
    /// The cluster id is another than the client has spoken to.
    OtherCluster,
    /// This leader's state is older than what the client has seen.
    OldState,
    /// The `above` is absurdly high, or tokens are exhausted.
    Tokens,
    /// The leader could not write what the grant depends on.
    Storage,
}
