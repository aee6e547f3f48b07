//! What crosses the wire and what reaches the disk: messages, frames, bytes.
//!
//! One long-lived bidirectional stream per session carries frames of at most 64 KiB: a length, a
//! kind, a body in bincode. Only this file and `bytes` know bincode. Golden bytes and golden
//! conversations hold the format.
//!
//! It decides nothing: a frame that decodes may still be nonsense to the leader.
//!
//! # Versions
//!
//! Neighbouring releases understand each other. `Hello` and `Welcome` carry the protocol's version
//! and a set of capability bits; both sides go on in the older of their versions. What may change
//! without a new version, because every reader is ready for it:
//!
//! - **A field behind the last one** of a message, of an element of a list, of a [`HolderInfo`] or
//!   of [`Extras`]. The frame and each of these carry their own length, and a reader skips what
//!   it does not know.
//! - **A kind of message behind the last one.** A leader answers a kind that it does not know with
//!   [`LeaderMessage::NotUnderstood`], and a client skips it; a client's kind that wants an answer
//!   begins with its [`RequestId`]. A leader sends a new kind to clients only that have the
//!   capability for it.
//!
//! A new value of a mode, a refusal or a reason is for a peer that knows it, by its version or
//! capabilities. An [`Acquire`] stands last in what carries it, so that it can grow too.

mod bytes;
mod group;
mod member;
mod pages;
mod request;
mod standing;

use std::{ops::Deref, sync::Arc, time::Duration};

use bincode::{Decode, Encode};

use self::bytes::{Append, CONFIG, LENGTH_BYTES, receive};
pub use self::{
    bytes::{decode_record, encode_record},
    group::{DiskReplacement, GroupReport, MemberReport},
    member::{MEMBER_VERSION, MEMBER_VERSION_OLDEST, MemberMessage},
    pages::{LISTED_HOLDERS_MAX, LISTED_WAITERS_MAX, Page, held_messages, waiting_messages},
    request::{Acquire, Extras, HeldAbove, Mode, NameUse, PERMITS_MAX, Wait},
    standing::{LeaderRank, LeaderStanding, StepDownRefusal},
};
use super::{
    ClusterId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId, SessionId,
    history::{Attestation, Seen},
};
use crate::{
    error::{LostReason, Predecessor},
    identity::cut,
    name::Name,
    time::Time,
    token::Token,
};

/// The longest payload of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// The version of the protocol that this release speaks.
pub const VERSION: u32 = 1;

/// The oldest version that it still speaks.
pub const VERSION_OLDEST: u32 = 1;

/// What this release can do beyond its version, a bit each.
pub const CAPABILITIES: u64 = SHARES | DEADLOCKS;

/// Leases other than exclusive ones: it grants them, or knows what is answered to them.
pub const SHARES: u64 = 1;

/// It says what only a request that waits can give back, and knows what it is told of a deadlock.
pub const DEADLOCKS: u64 = 2;

/// What stands in a frame: [`ClientMessage`] or [`LeaderMessage`].
pub trait Message: Encode + Decode<()> {
    /// What its reader says.
    type Answer: Message;

    /// How many kinds there are: a kind from here on is of a later release.
    const KINDS: u32;

    /// What is said to a message of a kind that is not known.
    fn not_understood(unknown: UnknownKind) -> Option<Self::Answer>;
}

impl Message for ClientMessage {
    type Answer = LeaderMessage;

    const KINDS: u32 = 23;

    fn not_understood(UnknownKind { kind, request }: UnknownKind) -> Option<LeaderMessage> {
        Some(LeaderMessage::NotUnderstood { kind, request })
    }
}

impl Message for LeaderMessage {
    type Answer = ClientMessage;

    const KINDS: u32 = 23;

    fn not_understood(_: UnknownKind) -> Option<ClientMessage> {
        None
    }
}

/// What a frame has.
#[derive(Clone, Debug, PartialEq)]
pub enum Received<M> {
    /// A message, as far as this release knows its fields.
    Message(M),
    /// A message that only a later release knows.
    Unknown(UnknownKind),
}

impl<M> Received<M> {
    /// The message, if its kind is known.
    pub fn known(self) -> Option<M> {
        match self {
            Received::Message(message) => Some(message),
            Received::Unknown(_) => None,
        }
    }
}

/// A message of a later release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind {
    pub kind: u32,
    /// The number that its body begins with: that of the request, if it is one.
    pub request: Option<RequestId>,
}

/// Appends `message` as one frame; on error `out` is as before.
pub fn encode_frame<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    if let Err(error) = bincode::encode_into_writer(message, Append(out), CONFIG) {
        out.truncate(start);
        return Err(WireError::Unencodable(error.to_string()));
    }
    let length = out.len() - start - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(WireError::TooLong { bytes: length as u64 });
    }
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// Finds the frames in a stream of bytes. Holds what was fed and not yet taken out, so feed it
/// what one read brought and take out every message before the next read.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// Where the next frame starts in `bytes`.
    start: usize,
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> FrameReader {
        FrameReader::default()
    }

    /// Feeds what was read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes were fed and not yet taken out.
    pub fn buffered(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The next whole message, if it is here. After an error the stream is of no more use.
    // Not an iterator: the type of message is chosen per call and errors are to be seen.
    #[allow(clippy::should_implement_trait)]
    pub fn next<M: Message>(&mut self) -> Result<Option<Received<M>>, WireError> {
        let rest = &self.bytes[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            return Err(WireError::Empty);
        }
        if length > FRAME_BYTES_MAX {
            return Err(WireError::TooLong { bytes: length as u64 });
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let received = receive(payload)?;
        self.start += LENGTH_BYTES + length;
        Ok(Some(received))
    }
}

/// Why bytes are no message, or a message fits no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a frame of {bytes} bytes; at most 65536 are allowed")]
    TooLong { bytes: u64 },
    #[error("a frame without content")]
    Empty,
    #[error("not a tierlock message: {0}")]
    Malformed(String),
    #[error("not a tierlock record: its first byte, the version, is {0:?}")]
    RecordVersion(Option<u8>),
    #[error("a message could not be written: {0}")]
    Unencodable(String),
}

/// What a client says to a leader.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ClientMessage {
    /// Opens the report of a connection. The report ends with `Ready` and counts only whole.
    Hello {
        version: u32,
        capabilities: u64,
        session: SessionId,
        proof: Proof,
        /// Grows with each connection of the session; only the highest counts.
        count: u64,
        /// The cluster this manager has spoken to, once it has.
        cluster: Option<ClusterId>,
        /// What this manager has seen last, or before it the others of its directory.
        seen: Option<Box<Seen>>,
        /// Fixed at the session's opening.
        time_to_live: Duration,
        identity: Identity,
        /// A leader knows its own process by it.
        process: ProcessMark,
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
    /// Whether a lease that may be kept is kept just now, without a guard. That a guard has it is
    /// also the answer to `Recall`: then it is given back when the guard leaves.
    Use {
        lease: LeaseId,
        kept: bool,
    },
    /// Half of the lease's block is used (kept leases).
    TopUp {
        lease: LeaseId,
    },
    /// So many of the lease's permits are left; the others are given back. A later report says so, too.
    Lower {
        lease: LeaseId,
        count: u32,
    },
    /// Which holder leads this name, as far as holders say values: told at once and at each change, until
    /// `StopObserving` or the connection's end.
    Observe {
        query: RequestId,
        name: Name,
    },
    StopObserving {
        query: RequestId,
    },
    /// The lease is to be exclusive: an upgradable one, before all that wait. One that only `tries` is
    /// refused if another session surely shares it.
    Upgrade {
        request: RequestId,
        lease: LeaseId,
        tries: bool,
    },
    /// The lease is to be upgradable or shared; of an exclusive one no more than this was used. From now on
    /// its session sees it as that.
    Downgrade {
        request: RequestId,
        lease: LeaseId,
        last_used: Token,
        to: Mode,
    },
    /// What is this leader's part in the succession? Needs no report before it, and a standby answers too.
    AskStanding {
        query: RequestId,
    },
    /// Have another leader follow, as on its end in good order, if it is still in this reign, and stand by
    /// then. Needs no report before it.
    StepDown {
        query: RequestId,
        reign: ReignId,
    },
    /// How does the group stand that keeps this leader's journal? Needs no report before it.
    AskGroup {
        query: RequestId,
    },
    /// This member has another disk: let it into the group in the place of the one that the group knows.
    /// Needs no report before it.
    Replace {
        query: RequestId,
        member: String,
    },
}

/// What a leader says to a client.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum LeaderMessage {
    /// The report was whole and is believed.
    Welcome {
        /// The one that both go on in.
        version: u32,
        /// What both can do beyond that.
        capabilities: u64,
        session: SessionId,
        time_to_live: Duration,
        epoch: u32,
        reign: ReignId,
        cluster: ClusterId,
        /// The addresses of the group's members; empty for a single leader.
        members: Vec<String>,
        /// How often to renew.
        renew_every: Duration,
        /// The leader's code under cluster, epoch and reign, to be shown with them.
        attestation: Attestation,
    },
    /// This leader serves no such client now.
    NotLeader {
        /// The leader to try instead, where known.
        try_next: Option<String>,
        cluster: ClusterId,
        /// It leads, in this epoch, and the client has seen a history that it does not know: it
        /// serves the client once its epoch is above that.
        epoch: Option<u32>,
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
        /// The last token of the block; equal to `first` unless the lease may be kept, or has several
        /// permits, a token each.
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
    /// Another session waits for a lease that may be kept. It is answered with `Release`, or with
    /// `Use` if a guard has it.
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
    /// The lease's block goes on to `last` (kept leases).
    ToppedUp {
        lease: LeaseId,
        last: Token,
    },
    /// The reign has taken a higher epoch. Told before any grant in it.
    Raised {
        epoch: u32,
        attestation: Attestation,
    },
    /// The leader does not know this kind of message: it is of an earlier release.
    NotUnderstood {
        kind: u32,
        request: Option<RequestId>,
    },
    /// The holder that leads what is observed; none.
    Leads {
        query: RequestId,
        leader: Option<PresentLeader>,
    },
    /// The lease is of the mode that was asked for, with this token.
    Converted {
        request: RequestId,
        lease: LeaseId,
        token: Token,
    },
    Standing {
        query: RequestId,
        standing: Box<LeaderStanding>,
    },
    /// It serves no client from now on, and resigns; or why it does not.
    StepsDown {
        query: RequestId,
        refused: Option<StepDownRefusal>,
    },
    /// None from a leader whose journal no group keeps.
    Group {
        query: RequestId,
        report: Option<Box<GroupReport>>,
    },
    /// What became of a `Replace`.
    Replaced {
        query: RequestId,
        outcome: DiskReplacement,
    },
    /// As `Refused`: the request is one of a circle, each of which waits for what only the next can give
    /// back. Told to sessions with [`DEADLOCKS`] only.
    Deadlocked {
        request: RequestId,
        circle: Box<DeadlockCircle>,
    },
}

/// Requests that wait for each other, the one that is told first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeadlockCircle {
    /// Each waits for what the next has, the last for what the first has.
    pub steps: Vec<DeadlockStep>,
    /// How many behind them are left out, since a frame has an end.
    pub left_out: u32,
}

/// The most steps that are told of a circle.
pub const DEADLOCK_STEPS_MAX: usize = 16;

/// One request of a circle. A name that the session may not see is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlockStep {
    pub identity: Identity,
    /// The name that it has, and the one before waits for.
    pub has: Option<Name>,
    pub waits_for: Option<Name>,
}

/// The holder of an election's name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PresentLeader {
    pub token: Token,
    pub value: Arc<[u8]>,
}

/// The longest value that a holder may say of itself.
pub const VALUE_BYTES_MAX: usize = crate::elected::VALUE_BYTES_MAX;

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
    /// Kept without a guard (kept leases).
    pub kept: bool,
    /// Since its grant.
    pub since: Duration,
    /// It is being given back, in this way: it is held no more, but its release is unanswered.
    pub leaving: Option<Predecessor>,
    /// The reign that granted it.
    pub reign: ReignId,
    pub mode: Mode,
    /// What its holder says of itself to observers of the name.
    pub value: Option<Arc<[u8]>>,
}

impl HeldLease {
    /// The bytes of its value.
    pub(super) fn weight_of_value(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// A request in a client's report.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingRequest {
    pub request: RequestId,
    /// The place it was told, if it ever was.
    pub place: Option<Place>,
    pub acquire: Acquire,
}

/// How a session describes itself, for people. Shared, not copied: messages that are moved from hand
/// to hand are as long as the longest of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(Arc<Texts>);

/// What an [`Identity`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub label: String,
    pub host: String,
    pub pid: u32,
    pub command: String,
    /// The label is its credential's; else it is what the session claims.
    pub label_is_proved: bool,
}

impl Identity {
    /// The longest of each text, in bytes.
    pub const TEXT_BYTES_MAX: usize = 128;

    /// An identity with its texts cut at a character to what crosses the wire.
    pub fn new(label: &str, host: &str, pid: u32, command: &str) -> Identity {
        let cut = |text| cut(text, Identity::TEXT_BYTES_MAX).to_owned();
        let [label, host, command] = [label, host, command].map(cut);
        Identity(Arc::new(Texts { label, host, pid, command, label_is_proved: false }))
    }

    /// The same with the label of its credential in the place of the one that it claims.
    pub fn with_proved_label(&self, label: &str) -> Identity {
        let Texts { host, pid, command, .. } = &**self;
        let proved = Identity::new(label, host, *pid, command);
        proved.marked(true)
    }

    /// The same, of which is known whether its label is proved.
    pub(super) fn marked(self, label_is_proved: bool) -> Identity {
        if self.label_is_proved == label_is_proved {
            return self;
        }
        let Texts { label, host, pid, command, .. } = (*self).clone();
        Identity(Arc::new(Texts { label, host, pid, command, label_is_proved }))
    }
}

impl Deref for Identity {
    type Target = Texts;

    fn deref(&self) -> &Texts {
        &self.0
    }
}

/// A holder or waiter, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderInfo {
    pub identity: Identity,
    pub since: Duration,
    pub token: Token,
    pub mode: Mode,
    /// Its label is what it claims, at a leader that knows clients which have proved theirs.
    pub claims_label: bool,
    /// Told with it to a request whose time is over: how many waiters stood before that, or
    /// 100 where there were more.
    pub ahead: Option<u32>,
}

/// A name, as `List` tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct LockInfo {
    pub name: Name,
    /// The highest token granted.
    pub token: Token,
    /// Of several holders the one that has been there the longest.
    pub holder: Option<HolderInfo>,
    /// Kept, not held (kept leases).
    pub kept: bool,
    /// What its holder was promised, at most.
    pub remaining: Option<Duration>,
    pub predecessor: Predecessor,
    /// The waiters, first come first, cut to what a frame holds.
    pub waiters: Vec<HolderInfo>,
    /// Without a holder, and kept taken by the `at_least` of its last one; `remaining` says for how
    /// long.
    pub reserved: bool,
    /// Its holders besides `holder`, the first granted first, cut to what a frame holds.
    pub others: Vec<HolderInfo>,
    /// How many holders it has.
    pub holders: u32,
    /// How many permits all of them have.
    pub permits: u32,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Refusal {
    /// It was not to wait, and another session holds it.
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
    /// The `above` is further past every token that this leader gave than it raises its epoch.
    TooFarAbove,
    /// Tokens are exhausted.
    Tokens,
    /// The leader could not write what the grant depends on.
    Storage,
    /// The leases and waiters of all sessions together are as many as the leader allows.
    TooManyClaims,
    /// The leader's disk has no room for one more session, or name that is reserved.
    DiskFull,
    /// As many names are reserved by `at_least` as the leader allows.
    TooManyReservations,
    /// Its `at_least` is longer than any leader remembers.
    AtLeastTooLong,
    /// It asks for something that only a later release grants.
    NotSupported,
    /// The client's release is too old for this leader.
    TooOld,
    /// Other sessions use the name as this.
    UsedAs(NameUse),
    /// The client's credential is not for that: by its role, or by the name. Told only to clients with a
    /// credential, which know it.
    NotPermitted,
}
