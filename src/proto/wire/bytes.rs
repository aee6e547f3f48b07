//! How messages and records are spelled in bytes: with the derives beside it, all that knows bincode.

use std::{mem::size_of, sync::Arc};

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
    DeadlockStep, FRAME_BYTES_MAX, GroupReport, HeldLease, HolderInfo, Identity, LeaderStanding,
    LockInfo, MemberReport, Message, Received, Texts, UnknownKind, WaitingRequest, WireError,
    request::{Extras, HeldAbove},
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    proto::{
        ClusterId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId, SessionId,
        bound::Bound,
        history::{Attestation, Seen},
        record::{Record, Reservation},
    },
    time::Time,
    token::Token,
};

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

pub(super) const LENGTH_BYTES: usize = size_of::<u32>();

/// bincode counts what it reads at the size it has in memory, so a frame's limit is its own
/// decode limit as well. The weights above are upper bounds of that count.
pub(super) const CONFIG: Config = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<FRAME_BYTES_MAX>,
>;

const RECORD_VERSION: u8 = 1;

/// The message of a frame. What stands behind its last known field is a later release's.
pub(super) fn receive<M: Message>(payload: &[u8]) -> Result<Received<M>, WireError> {
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
    HeldAbove { cluster, name, token, pid }
    DeadlockStep { identity, has, waits_for }
    LeaderStanding {
        rank, cluster, reign, epoch, lasts, address, proven, journal_took, lag
    }
    GroupReport { own, leader, is_made, own_disk_waits, members }
    MemberReport { member, address, votes, is_heard, lag, disk_waits }
}

// What is known of the label comes behind the rest, and only from leaders that know of proved ones: clusters
// without credentials say no more than before there were any. How many waiters stood before a request comes
// behind that, where it is told.
impl Encode for HolderInfo {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let HolderInfo { identity, since, token, mode, claims_label, ahead } = self;
        let all = (identity, since, token, mode);
        let label = match (identity.label_is_proved, claims_label) {
            (true, _) => LABEL_PROVED,
            (false, true) => LABEL_CLAIMED,
            (false, false) => LABEL_UNTOLD,
        };
        match (label, ahead) {
            (LABEL_UNTOLD, None) => encode_with_length(encoder, &all),
            (label, None) => encode_with_length(encoder, &(all, label)),
            (label, Some(ahead)) => encode_with_length(encoder, &(all, label, ahead)),
        }
    }
}

/// What is told of a holder's label.
const LABEL_CLAIMED: u8 = 0;
const LABEL_PROVED: u8 = 1;
const LABEL_UNTOLD: u8 = 2;

impl<C> Decode<C> for HolderInfo {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        decode_with_length(decoder, |within| {
            let identity: Identity = Decode::<()>::decode(within)?;
            let since = Decode::<()>::decode(within)?;
            let token = Decode::<()>::decode(within)?;
            let mode = Decode::<()>::decode(within)?;
            let tells_label = within.reader().peek_read(1).is_some();
            let label: u8 = if tells_label { Decode::<()>::decode(within)? } else { LABEL_UNTOLD };
            let counts = within.reader().peek_read(1).is_some();
            let ahead = counts.then(|| Decode::<()>::decode(within)).transpose()?;
            Ok(HolderInfo {
                identity: identity.marked(label == LABEL_PROVED),
                since,
                token,
                mode,
                claims_label: label == LABEL_CLAIMED,
                ahead,
            })
        })
    }
}
bincode::impl_borrow_decode!(HolderInfo);

// What few of them have comes behind the rest, and is left out where there is none of it.
impl Encode for Extras {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Extras { after, holds, value, above } = self;
        match above.is_empty() {
            true => encode_with_length(encoder, &(after, holds, value)),
            false => encode_with_length(encoder, &(after, holds, value, above)),
        }
    }
}

impl<C> Decode<C> for Extras {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        decode_with_length(decoder, |within| {
            let mut extras = Extras {
                after: Decode::<()>::decode(within)?,
                holds: Decode::<()>::decode(within)?,
                value: Decode::<()>::decode(within)?,
                above: Vec::new(),
            };
            if within.reader().peek_read(1).is_some() {
                extras.above = Decode::<()>::decode(within)?;
            }
            Ok(extras)
        })
    }
}
bincode::impl_borrow_decode!(Extras);

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

pub(super) struct Append<'a>(pub(super) &'a mut Vec<u8>);

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
            label_is_proved: false, // what a session says of itself proves nothing
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
            // As before there were bounds: then it may have asked for anything.
            Record::SessionOpened { session, proof, time_to_live, embedded, bound }
                if bound.is_everything() =>
            {
                (1_u8, session, proof, time_to_live, embedded).encode(encoder)
            }
            Record::SessionOpened { session, proof, time_to_live, embedded, bound } => {
                (8_u8, session, proof, time_to_live, embedded, bound.hashes()).encode(encoder)
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
                bound: Bound::EVERYTHING,
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
            8 => Ok(Record::SessionOpened {
                session: Decode::<C>::decode(decoder)?,
                proof: Decode::<C>::decode(decoder)?,
                time_to_live: Decode::<C>::decode(decoder)?,
                embedded: Decode::<C>::decode(decoder)?,
                bound: {
                    let names: Vec<u32> = Decode::<C>::decode(decoder)?;
                    let parents: Vec<u32> = Decode::<C>::decode(decoder)?;
                    let bound = Bound::read(&names, &parents);
                    bound.ok_or(DecodeError::Other("no such bound"))?
                },
            }),
            _ => Err(DecodeError::Other("no such record")),
        }
    }
}
bincode::impl_borrow_decode!(Record);
