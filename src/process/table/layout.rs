//! What stands where in `DIR/table`.
//!
//! The header comes first. Behind it lie parts in the order in which they were needed: slots,
//! names, the heads of the index's chains, and wait records. A part never moves and never changes
//! its size; the header says where each begins, and its size follows from how many of its kind
//! come before it ([`SLOTS`], [`NAMES`], [`HEADS`], [`RECORDS`]). So no size that stands in the
//! file has to be believed.
//!
//! Share records are made when a name is first shared. Slots are counted from 0; where a number may
//! be missing (a chain's end), it is stored plus one.
//! Names are counted in units of four bytes, and none crosses the end of a part. Wait records are
//! counted from 1; of a part of them the slot numbers come first, 16 to a cache line, so that a
//! scan for one slot touches no other record.

use std::sync::atomic::{AtomicU32, AtomicU64};

use super::slot::MappedSlot;

/// The engine and the version of everything described here, as `DIR/format` says it.
pub(in super::super) const FORMAT: &str = "tierlock table 3";
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"tierlokT");
/// Where the first part begins.
pub(super) const PARTS_BEGIN: u64 = 8192;

/// The most parts of slots, and of names.
pub(super) const PARTS: usize = 176;
/// The most parts of heads.
pub(super) const HEAD_PARTS: usize = 22;
/// The most parts of wait records, and of share records.
pub(super) const RECORD_PARTS: usize = 7;
pub(super) const SHARE_PARTS: usize = 24;
/// The first part of share records has as many; each further one doubles their number.
const FIRST_SHARES: u64 = 64;
/// The first part of wait records has as many; each further one doubles their number.
const FIRST_RECORDS: u64 = 1024;
/// There is one for each number that a reserved word can name.
pub(super) const RECORDS_MAX: u16 = u16::MAX;
/// What a wait record takes, with its slot number.
pub(super) const RECORD_BYTES: u64 = (size_of::<AtomicU32>() + size_of::<WaitRecord>()) as u64;

/// The first part of heads has as many; each further one doubles their number.
pub(super) const FIRST_HEADS: u64 = 1024;
/// So many of the dead a round of the sweep is about.
pub(super) const REAPED_AT_ONCE: usize = 32;
/// Names have at most 255 bytes, and what is kept with one has no more.
pub(super) const UNITS_MAX: usize = 127;

/// Where each part of slots begins, by number of slots.
pub(super) static SLOTS: [u64; PARTS + 1] = eighths(256, 64);
/// Where each part of names begins, by number of units.
pub(super) static NAMES: [u64; PARTS + 1] = eighths(2048, 1024);
/// Where each part of heads begins, by number of heads.
pub(super) static HEADS: [u64; HEAD_PARTS + 1] = doubled(FIRST_HEADS);
/// Where each part of wait records begins, by number.
pub(super) static RECORDS: [u64; RECORD_PARTS + 1] = doubled(FIRST_RECORDS);
/// Where each part of share records begins, by number.
pub(super) static SHARES: [u64; SHARE_PARTS + 1] = doubled(FIRST_SHARES);

/// A wait for a slot. Beside it, among the slot numbers, stands which slot.
///
/// All zeros are a free one.
#[repr(C, align(16))]
pub(super) struct WaitRecord {
    /// A [`RecordWord`](super::word::RecordWord).
    pub(super) word: AtomicU64,
    /// [`Began`](super::records::Began), of the waiter's alone.
    pub(super) began: AtomicU64,
}

/// How a process shares one name with others. See [`share`](super::share).
///
/// All zeros are a free one.
#[repr(C, align(64))]
pub(super) struct ShareRecord {
    /// A [`ShareWord`](super::share::ShareWord).
    pub(super) word: AtomicU64,
    /// The number of the next record of its chain; 0 ends it.
    pub(super) next: AtomicU32,
    spare: [AtomicU32; 13],
}

const _: () = assert!(size_of::<ShareRecord>() == 64);
const _: () = assert!(size_of::<WaitRecord>() == 16);
const _: () = assert!(RECORDS[RECORD_PARTS] == RECORDS_MAX as u64 + 1);

/// What each process that opens the table reads first.
#[repr(C, align(64))]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    /// Which boot of the machine made it.
    pub(super) boot: [AtomicU64; 2],
    /// Keys the hash of names.
    pub(super) key: [AtomicU64; 2],
    /// The highest token of forgotten names: a name seen anew starts above it.
    pub(super) floor: AtomicU64,
    /// No token above this was ever granted, and `DIR/tokens` says so.
    pub(super) limit: AtomicU64,
    spare: AtomicU64,

    /// The presence id given out last.
    pub(super) last_id: AtomicU64,
    /// How often the table was joined.
    pub(super) joined: AtomicU64,
    /// Slots that were ever in use.
    pub(super) slots_used: AtomicU32,
    /// Units of names that were ever in use.
    pub(super) units_used: AtomicU32,
    /// Names there are, about.
    pub(super) names: AtomicU32,
    /// From this number of names on, idle ones are forgotten.
    pub(super) names_max: AtomicU32,
    /// The index has `FIRST_HEADS << doublings` chains.
    pub(super) doublings: AtomicU32,
    /// So many chains of the lower half have been parted from those of the upper half.
    pub(super) parted: AtomicU32,
    /// Where the next sweep for idle names goes on.
    pub(super) sweep: AtomicU32,
    /// The highest number of a wait record that was ever taken.
    pub(super) records_used: AtomicU32,
    /// The same of share records.
    pub(super) shares_used: AtomicU32,
    /// Where the next sweep for the dead goes on, and how many of them its round is about.
    pub(super) reap_at: AtomicU32,
    pub(super) reaped_ids: AtomicU32,
    spare_2: AtomicU32,

    /// Guards every structural change: the same word protocol as for names.
    pub(super) structure: MappedSlot,

    /// What the holder of `structure` is about: see `index::Intent`.
    pub(super) intent: [AtomicU64; 4],
    spare_3: [AtomicU64; 4],

    /// The dead that the round of the sweep is about.
    pub(super) reaping: [AtomicU64; REAPED_AT_ONCE],

    /// Free slots by the units that their names can have, the first of each plus one.
    pub(super) free: [AtomicU32; UNITS_MAX + 1],
    pub(super) slot_parts: [AtomicU64; PARTS],
    pub(super) name_parts: [AtomicU64; PARTS],
    pub(super) head_parts: [AtomicU64; HEAD_PARTS],
    pub(super) record_parts: [AtomicU64; RECORD_PARTS],
    pub(super) share_parts: [AtomicU64; SHARE_PARTS],
    spare_4: [AtomicU64; 3],
}

const _: () = {
    let fields = 64
        + 64
        + 64
        + 64
        + REAPED_AT_ONCE * 8
        + (UNITS_MAX + 1) * 4
        + (2 * PARTS + HEAD_PARTS + RECORD_PARTS + SHARE_PARTS + 3) * 8;
    assert!(size_of::<Header>() == fields, "the header has padding");
    assert!(size_of::<Header>() as u64 <= PARTS_BEGIN);
    assert!(SLOTS[PARTS] > u32::MAX as u64 && NAMES[PARTS] > u32::MAX as u64);
};

/// In which part `number` lies, and where in it.
pub(super) fn place(starts: &[u64], number: u64) -> (usize, usize) {
    let part = starts.partition_point(|start| *start <= number) - 1;
    (part, (number - starts[part]) as usize)
}

/// How many there are in a part.
pub(super) fn size(starts: &[u64], part: usize) -> usize {
    (starts[part + 1] - starts[part]) as usize
}

/// Parts that each add an eighth, in multiples of `step`.
const fn eighths(first: u64, step: u64) -> [u64; PARTS + 1] {
    let mut starts = [0; PARTS + 1];
    let mut part = 1;
    starts[part] = first;
    while part < PARTS {
        let more = starts[part] / 8 / step * step;
        starts[part + 1] = starts[part] + if more > step { more } else { step };
        part += 1;
    }
    starts
}

/// Parts that each double the number; `N` is one more than there are.
const fn doubled<const N: usize>(first: u64) -> [u64; N] {
    let mut starts = [0; N];
    let mut part = 0;
    while part + 1 < N {
        starts[part + 1] = first << part;
        part += 1;
    }
    starts
}

#[cfg(test)]
mod tests;
