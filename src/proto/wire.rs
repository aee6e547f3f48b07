//! What crosses the wire and what reaches the disk: messages, frames, bytes.
//!
//! One long-lived bidirectional stream per session carries frames of at most 64 KiB: a length, a
//! kind, a body in bincode. This is the only file that knows bincode. Golden bytes and golden
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

use std::{mem::size_of, ops::Deref, sync::Arc, time::Duration};

use bincode::{
    Decode, Encode,
    de::{
        Decoder, DecoderImpl,
        read::{Reader, SliceReader},
    },
    enc::{
        Encoder, EncoderImpl,
        write::{SizeWriter, Writer},
    },
    error::{DecodeError, EncodeError},
};

use super::{
    ClusterId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId, SessionId,
    history::{Attestation, Seen},
    record::{Record, Reservation},
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
pub const CAPABILITIES: u64 = SHARES;

/// Leases other than exclusive ones: it grants them, or knows what is answered to them.
pub const SHARES: u64 = 1;

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

    const KINDS: u32 = 15;

    fn not_understood(UnknownKind { kind, request }: UnknownKind) -> Option<LeaderMessage> {
        Some(LeaderMessage::NotUnderstood { kind, request })
    }
}

impl Message for LeaderMessage {
    type Answer = ClientMessage;

    const KINDS: u32 = 16;

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

/// A record as it reaches the disk: one byte of version, then bincode.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let mut bytes = vec![RECORD_VERSION];
    bincode::encode_into_writer(record, Append(&mut bytes), CONFIG)
        .expect("a record has nothing that cannot be encoded");
    bytes
}

/// The record that these bytes are.
pub fn decode_record(bytes: &[u8]) -> Result<Record, WireError> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, record)) => decode_exactly(record),
        other => Err(WireError::RecordVersion(other.map(|(version, _)| *version))),
    }
}

/// A report's leases in as few messages as frames allow; none for none.
pub fn held_messages(leases: Vec<HeldLease>) -> impl Iterator<Item = ClientMessage> {
    split(leases, |held| size_of::<HeldLease>() + held.name.len() + held.value.len() + MARGIN)
        .map(|leases| ClientMessage::Held { leases })
}

/// A report's requests in as few messages as frames allow; none for none.
pub fn waiting_messages(requests: Vec<WaitingRequest>) -> impl Iterator<Item = ClientMessage> {
    split(requests, |WaitingRequest { acquire, .. }| {
        let extras = acquire.weight_of_extras();
        size_of::<WaitingRequest>() + acquire.name.len() + extras + 2 * MARGIN
    })
    .map(|requests| ClientMessage::Waiting { requests })
}

/// Collects the locks of one `Listed` until its frame is full.
#[derive(Debug, Default)]
pub struct Page {
    locks: Vec<LockInfo>,
    weight: usize,
}

impl Page {
    /// Adds `lock`, or answers `false` if it does not fit any more.
    pub fn add(&mut self, mut lock: LockInfo) -> bool {
        lock.waiters.truncate(LISTED_WAITERS_MAX);
        lock.others.truncate(LISTED_HOLDERS_MAX - 1);
        let weight = size_of::<LockInfo>()
            + lock.name.len()
            + lock
                .holder
                .iter()
                .chain(&lock.others)
                .chain(&lock.waiters)
                .map(weight_of_holder)
                .sum::<usize>();
        if self.weight + weight > WEIGHT_MAX {
            return false;
        }
        self.weight += weight;
        self.locks.push(lock);
        true
    }

    /// What it collected.
    pub fn into_locks(self) -> Vec<LockInfo> {
        self.locks
    }
}

/// How many of a lock's waiters a `Listed` names.
pub const LISTED_WAITERS_MAX: usize = 16;

/// How many of its holders.
pub const LISTED_HOLDERS_MAX: usize = 16;

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
}

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
    /// The leases of its session that the waiting thread has: a cycle of these is a deadlock.
    pub holds: Vec<LeaseId>,
    /// What its holder says of itself to observers of the name.
    pub value: Vec<u8>,
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
        let are_supported = |extras: &Extras| extras.value.is_empty();
        let is_mode_supported = match self.mode {
            Mode::Exclusive => true,
            // What is reserved is reserved for one.
            mode => mode.is_granted() && self.at_least.is_none(),
        };
        is_mode_supported && self.extras.as_deref().is_none_or(are_supported)
    }

    /// The bytes that it takes besides its own and its name's.
    pub(super) fn weight_of_extras(&self) -> usize {
        self.extras.as_deref().map_or(0, |extras| {
            size_of::<Extras>() + size_of_val(&extras.holds[..]) + extras.value.len()
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
            Mode::Exclusive | Mode::Shared => true,
            Mode::Upgradable => false,
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
    pub(super) fn spread(self) -> u32 {
        self.permits().saturating_sub(1)
    }

    /// The same of a semaphore with so many permits, of which no more than those of `self` are left.
    pub(super) fn lowered(self, left: u32) -> Mode {
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
    pub value: Box<[u8]>,
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
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub label: String,
    pub host: String,
    pub pid: u32,
    pub command: String,
}

impl Identity {
    /// The longest of each text, in bytes.
    pub const TEXT_BYTES_MAX: usize = 128;

    /// An identity with its texts cut at a character to what crosses the wire.
    pub fn new(label: &str, host: &str, pid: u32, command: &str) -> Identity {
        let cut = |text| cut(text, Identity::TEXT_BYTES_MAX).to_owned();
        let [label, host, command] = [label, host, command].map(cut);
        Identity(Arc::new(Texts { label, host, pid, command }))
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
}

fn weight_of_holder(holder: &HolderInfo) -> usize {
    let Texts { label, host, command, .. } = &*holder.identity;
    size_of::<HolderInfo>() + size_of::<Texts>() + label.len() + host.len() + command.len() + MARGIN
}

/// Groups `items` so that no group weighs more than a frame carries.
fn split<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut group = Vec::new();
        let mut total = 0;
        while let Some(item) =
            items.next_if(|item| group.is_empty() || total + weight(item) <= WEIGHT_MAX)
        {
            total += weight(&item);
            group.push(item);
        }
        (!group.is_empty()).then_some(group)
    })
}

const LENGTH_BYTES: usize = size_of::<u32>();

/// bincode counts what it reads at the size it has in memory, so a frame's limit is its own
/// decode limit as well. The weights above are upper bounds of that count.
const CONFIG: Config = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<FRAME_BYTES_MAX>,
>;

/// What a list in a frame may weigh; the rest is for what stands beside it.
const WEIGHT_MAX: usize = 60_000;

/// What an entry's lengths and tags may add to its size in memory.
const MARGIN: usize = 16;

const RECORD_VERSION: u8 = 1;

/// The message of a frame. What stands behind its last known field is a later release's.
fn receive<M: Message>(payload: &[u8]) -> Result<Received<M>, WireError> {
    let malformed = |error: DecodeError| WireError::Malformed(error.to_string());
    let (kind, body) = bincode::decode_from_slice::<u32, _>(payload, CONFIG).map_err(malformed)?;
    if kind >= M::KINDS {
        let first = bincode::decode_from_slice::<u64, _>(&payload[body..], CONFIG);
        let request = first.ok().map(|(number, _)| RequestId(number));
        return Ok(Received::Unknown(UnknownKind { kind, request }));
    }
    let (message, _) = bincode::decode_from_slice(payload, CONFIG).map_err(malformed)?;
    Ok(Received::Message(message))
}

/// Decodes, and refuses every spelling but our own: what was read must encode to the very bytes
/// it came from. So nothing passes that bincode tolerates (a duration with 10^9 nanoseconds, a
/// number longer than it need be, bytes left over).
fn decode_exactly<T: Encode + Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    let malformed = |text: &dyn ToString| WireError::Malformed(text.to_string());
    let (value, _) =
        bincode::decode_from_slice::<T, _>(bytes, CONFIG).map_err(|e| malformed(&e))?;
    let mut rest = Expect(bytes);
    bincode::encode_into_writer(&value, &mut rest, CONFIG)
        .map_err(|_| malformed(&"it is spelled otherwise than we spell it"))?;
    if !rest.0.is_empty() {
        return Err(malformed(&"bytes are left over"));
    }
    Ok(value)
}

/// Writes `fields` behind their length.
fn encode_with_length<E: Encoder>(
    encoder: &mut E,
    fields: &impl Encode,
) -> Result<(), EncodeError> {
    let mut size = EncoderImpl::new(SizeWriter::default(), CONFIG);
    fields.encode(&mut size)?;
    (size.into_writer().bytes_written as u64).encode(encoder)?;
    fields.encode(encoder)
}

/// Reads with `read` what stands behind a length, and skips what it leaves of that.
fn decode_with_length<D: Decoder, T>(
    decoder: &mut D,
    read: impl FnOnce(&mut Within<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let length = <u64 as Decode<D::Context>>::decode(decoder)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    decoder.claim_bytes_read(length)?;
    let reader = decoder.reader();
    let bytes =
        reader.peek_read(length).ok_or(DecodeError::UnexpectedEnd { additional: length })?;
    let value = read(&mut DecoderImpl::new(SliceReader::new(bytes), CONFIG, ()))?;
    reader.consume(length);
    Ok(value)
}

type Within<'a> = DecoderImpl<SliceReader<'a>, Config, ()>;

/// `Encode` and `Decode` for what later releases may add fields to.
macro_rules! with_length {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                encode_with_length(encoder, &($(&self.$field,)*))
            }
        }
        impl<C> Decode<C> for $type {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                decode_with_length(decoder, |within| {
                    Ok($type { $($field: Decode::<()>::decode(within)?),* })
                })
            }
        }
        bincode::impl_borrow_decode!($type);
    )*};
}

with_length! {
    HeldLease {
        lease, name, first, last, last_used, at_most, kept, since, leaving, reign, mode, value
    }
    WaitingRequest { request, place, acquire }
    Extras { after, holds, value }
    HolderInfo { identity, since, token, mode }
}

// What only locks with several holders have, and what only semaphores have, comes behind the rest, and
// is left out where there is none of it.
impl Encode for LockInfo {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let LockInfo {
            name,
            token,
            holder,
            kept,
            remaining,
            predecessor,
            waiters,
            reserved,
            others,
            holders,
            permits,
        } = self;
        let all = (name, token, holder, kept, remaining, predecessor, waiters, reserved);
        match (self.has_several_holders(), *permits) {
            (true, 0) => encode_with_length(encoder, &(all, others, holders)),
            (false, 0) => encode_with_length(encoder, &all),
            (_, permits) => encode_with_length(encoder, &(all, others, holders, permits)),
        }
    }
}

impl<C> Decode<C> for LockInfo {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        decode_with_length(decoder, |within| {
            let mut lock = LockInfo {
                name: Decode::<()>::decode(within)?,
                token: Decode::<()>::decode(within)?,
                holder: Decode::<()>::decode(within)?,
                kept: Decode::<()>::decode(within)?,
                remaining: Decode::<()>::decode(within)?,
                predecessor: Decode::<()>::decode(within)?,
                waiters: Decode::<()>::decode(within)?,
                reserved: Decode::<()>::decode(within)?,
                others: Vec::new(),
                holders: 0,
                permits: 0,
            };
            lock.holders = u32::from(lock.holder.is_some());
            if within.reader().peek_read(1).is_some() {
                lock.others = Decode::<()>::decode(within)?;
                lock.holders = Decode::<()>::decode(within)?;
            }
            if within.reader().peek_read(1).is_some() {
                lock.permits = Decode::<()>::decode(within)?;
            }
            Ok(lock)
        })
    }
}
bincode::impl_borrow_decode!(LockInfo);

impl LockInfo {
    fn has_several_holders(&self) -> bool {
        !self.others.is_empty() || self.holders > 1
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        match bytes {
            // Most of what is written: tags and small numbers.
            [byte] => self.0.push(*byte),
            bytes => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// Writes nothing: checks that the bytes written are the ones it holds.
struct Expect<'a>(&'a [u8]);

impl Writer for Expect<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let rest = match (bytes, self.0) {
            // Most of what is written: tags and small numbers.
            ([byte], [first, rest @ ..]) if byte == first => Some(rest),
            (bytes, left) => left.strip_prefix(bytes),
        };
        match rest {
            Some(rest) => {
                self.0 = rest;
                Ok(())
            }
            None => Err(EncodeError::UnexpectedEnd),
        }
    }
}

/// What `make` makes of a text of at most `MAX` bytes, of which nothing is allocated before its
/// length is known to be allowed.
fn short_text<const MAX: usize, T, D: Decoder>(
    decoder: &mut D,
    make: impl FnOnce(&str) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let length = <u64 as Decode<D::Context>>::decode(decoder)?;
    if length > MAX as u64 {
        return Err(DecodeError::Other("a text is too long"));
    }
    let length = length as usize;
    decoder.claim_bytes_read(length)?;
    let reader = decoder.reader();
    // What is decoded is a slice, which shows all that is left of it.
    let bytes =
        reader.peek_read(length).ok_or(DecodeError::UnexpectedEnd { additional: length })?;
    let text = str::from_utf8(bytes).map_err(|_| DecodeError::Other("a text is not UTF-8"))?;
    let made = make(text)?;
    reader.consume(length);
    Ok(made)
}

fn identity_text<D: Decoder>(decoder: &mut D) -> Result<String, DecodeError> {
    short_text::<{ Identity::TEXT_BYTES_MAX }, _, _>(decoder, |text| Ok(text.to_owned()))
}

/// `Encode` and `Decode` for a type of another module, by way of one that has them.
macro_rules! by_way_of {
    ($($type:ty: $way:ty, $there:expr, $back:expr;)*) => {$(
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                let there: fn(&$type) -> $way = $there;
                there(self).encode(encoder)
            }
        }
        impl<C> Decode<C> for $type {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                let back: fn($way) -> Result<$type, DecodeError> = $back;
                back(Decode::<C>::decode(decoder)?)
            }
        }
        bincode::impl_borrow_decode!($type);
    )*};
}

by_way_of! {
    SessionId: u128, |id| id.0, |way| Ok(SessionId(way));
    Proof: u128, |proof| proof.0, |way| Ok(Proof(way));
    ClusterId: u128, |id| id.0, |way| Ok(ClusterId(way));
    ReignId: u64, |id| id.0, |way| Ok(ReignId(way));
    ProcessMark: u128, |mark| mark.0, |way| Ok(ProcessMark(way));
    RequestId: u64, |id| id.0, |way| Ok(RequestId(way));
    LeaseId: (u32, u64), |id| (id.epoch, id.count), |(epoch, count)| Ok(LeaseId { epoch, count });
    Place: (u32, u64), |at| (at.epoch, at.count), |(epoch, count)| Ok(Place { epoch, count });
    Attestation: u128, |code| code.0, |way| Ok(Attestation(way));
    Seen: (ClusterId, u32, ReignId, Attestation),
        |seen| (seen.cluster, seen.epoch, seen.reign, seen.attestation),
        |(cluster, epoch, reign, attestation)| Ok(Seen { cluster, epoch, reign, attestation });
    Time: u64, |time| time.as_nanos(), |way| Ok(Time::from_nanos(way));
    Token: u64, |token| token.get(), |way| {
        Token::new(way).ok_or(DecodeError::Other("a token is 2^63 or more"))
    };
    LostReason: u8, |why| *why as u8, |way| {
        [
            LostReason::Expired,
            LostReason::HeldTooLong,
            LostReason::Broken,
            LostReason::Forgotten,
            LostReason::Provoked,
        ]
        .into_iter()
        .find(|why| *why as u8 == way)
        .ok_or(DecodeError::Other("no such reason for a loss"))
    };
    Predecessor: u8, |how| *how as u8, |way| {
        let how = Predecessor::from_u8(way);
        if how as u8 == way { Ok(how) } else { Err(DecodeError::Other("no such predecessor")) }
    };
}

impl Encode for Name {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}

impl<C> Decode<C> for Name {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        short_text::<{ Name::MAX_BYTES }, _, _>(decoder, |text| {
            Name::new(text).map_err(|_| DecodeError::Other("no valid name"))
        })
    }
}
bincode::impl_borrow_decode!(Name);

impl Encode for Identity {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.label.encode(encoder)?;
        self.host.encode(encoder)?;
        self.pid.encode(encoder)?;
        self.command.encode(encoder)
    }
}

impl<C> Decode<C> for Identity {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Identity(Arc::new(Texts {
            label: identity_text(decoder)?,
            host: identity_text(decoder)?,
            pid: Decode::<C>::decode(decoder)?,
            command: identity_text(decoder)?,
        })))
    }
}
bincode::impl_borrow_decode!(Identity);

impl Encode for Record {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Record::TookOver { epoch, reign, waits_for, starts_above } => {
                (0_u8, epoch, reign, waits_for, starts_above).encode(encoder)
            }
            Record::SessionOpened { session, proof, time_to_live, embedded } => {
                (1_u8, session, proof, time_to_live, embedded).encode(encoder)
            }
            Record::SessionEnded { session } => (2_u8, session).encode(encoder),
            Record::LeaseRevoked { session, lease, name, token, why } => {
                (3_u8, session, lease, name, token, why).encode(encoder)
            }
            Record::EpochRaised { epoch, starts_above } => {
                (4_u8, epoch, starts_above).encode(encoder)
            }
            Record::Waited => 5_u8.encode(encoder),
            Record::Reserved { name, reservation } => {
                let Reservation { token, session, request, at_least, left } = reservation;
                (6_u8, name, token, session, request, at_least, left).encode(encoder)
            }
            Record::ReservationEnded { name, token } => (7_u8, name, token).encode(encoder),
        }
    }
}

impl<C> Decode<C> for Record {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match <u8 as Decode<C>>::decode(decoder)? {
            0 => Ok(Record::TookOver {
                epoch: Decode::<C>::decode(decoder)?,
                reign: Decode::<C>::decode(decoder)?,
                waits_for: Decode::<C>::decode(decoder)?,
                starts_above: Decode::<C>::decode(decoder)?,
            }),
            1 => Ok(Record::SessionOpened {
                session: Decode::<C>::decode(decoder)?,
                proof: Decode::<C>::decode(decoder)?,
                time_to_live: Decode::<C>::decode(decoder)?,
                embedded: Decode::<C>::decode(decoder)?,
            }),
            2 => Ok(Record::SessionEnded { session: Decode::<C>::decode(decoder)? }),
            3 => Ok(Record::LeaseRevoked {
                session: Decode::<C>::decode(decoder)?,
                lease: Decode::<C>::decode(decoder)?,
                name: Decode::<C>::decode(decoder)?,
                token: Decode::<C>::decode(decoder)?,
                why: Decode::<C>::decode(decoder)?,
            }),
            4 => Ok(Record::EpochRaised {
                epoch: Decode::<C>::decode(decoder)?,
                starts_above: Decode::<C>::decode(decoder)?,
            }),
            5 => Ok(Record::Waited),
            6 => Ok(Record::Reserved {
                name: Decode::<C>::decode(decoder)?,
                reservation: Reservation {
                    token: Decode::<C>::decode(decoder)?,
                    session: Decode::<C>::decode(decoder)?,
                    request: Decode::<C>::decode(decoder)?,
                    at_least: Decode::<C>::decode(decoder)?,
                    left: Decode::<C>::decode(decoder)?,
                },
            }),
            7 => Ok(Record::ReservationEnded {
                name: Decode::<C>::decode(decoder)?,
                token: Decode::<C>::decode(decoder)?,
            }),
            _ => Err(DecodeError::Other("no such record")),
        }
    }
}
bincode::impl_borrow_decode!(Record);
