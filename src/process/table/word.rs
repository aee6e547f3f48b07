//! The word of a slot: its holder, and what is known about the lock. All of exclusion rests on it.
//!
//! ```text
//! u64   [63:56] 0   [55:16] owner   [15:0] flags
//! flags WAITERS · HUNGRY · RESERVED · LEFT (2 bits) · WIDE · RETIRE · READABLE · DRAINS · STAYS · 0…
//! ```
//! The owner field holds the 40-bit id of a process, or, in a RESERVED word, the [wait](WaitId)
//! that may claim it: the number of a wait record in the low 16 bits, its use above. In a STAYS
//! word it holds the [end](StayEnd) of `at_least`, so that no exchange of such a word meets a
//! later stay that looks the same. The futex is the low half of the word: the flags and the low 16
//! bits of the owner field, which differ between free, held, and reserved for each record.
//!
//! | flag | meaning |
//! |---|---|
//! | WAITERS | a waiter may sleep on the word |
//! | HUNGRY | a wait record may stand: the holder scans the records before it releases |
//! | RESERVED | released for one wait; the owner field names its record |
//! | LEFT | how the last holder left: clean, panicked, died, expired. Until the next one is told |
//! | WIDE | the name was locked at host scope; stays for good, through every row |
//! | RETIRE | the owner is forgetting the name |
//! | READABLE | held by an upgradable reader: other readers come in beside it |
//! | DRAINS | held by a process that waits for permits: a try need not wait for it |
//! | STAYS | released, and still taken for every process until its end (`at_least`) |
//!
//! `r` is a wait record; `A` a process; "me" the process that makes the step.
//!
//! | owner | flags | state | next |
//! |---|---|---|---|
//! | 0 | none | free | any thread → me; one that slept → me WAITERS; one with a record → me WAITERS HUNGRY; a forgetter → me RETIRE |
//! | 0 | LEFT ≠ clean | free; the last holder left so | as above, told as `predecessor` (slow path) |
//! | 0 | WAITERS | free, a waiter may sleep | any thread → me WAITERS HUNGRY; a releaser that finds r in its second scan → r RESERVED WAITERS, or none → 0 |
//! | r | RESERVED WAITERS | released for r | r's waiter → me WAITERS HUNGRY; if r is late or gone, any looker → r′ RESERVED WAITERS, or, if no other stands, → me WAITERS HUNGRY; r giving up → r′, or → WAITERS and wakes one |
//! | A | none | held, no sleeper | A → 0; a waiter → A WAITERS; a waiter with a record → A WAITERS HUNGRY |
//! | A | WAITERS | held, a waiter may sleep | A → 0, wakes one; a waiter with a record → A WAITERS HUNGRY |
//! | A | WAITERS HUNGRY | held, records may stand | A scans: → oldest r RESERVED WAITERS, wakes r; none → WAITERS, scans again |
//! | A | READABLE, with or without WAITERS HUNGRY | held by an upgradable reader | as held; A → the same without READABLE, and back |
//! | A | DRAINS, with or without WAITERS HUNGRY | held in front of permits that are taken | as held; A → the same with DRAINS, before it sleeps; its release takes DRAINS out |
//! | A | not RETIRE | held | A → A′, another id of the same process; the flags stay |
//! | A | RETIRE | being forgotten | A → 0; a waiter → A RETIRE WAITERS; if A died, finished under the structural lock |
//! | A | RETIRE WAITERS | being forgotten, a waiter may sleep | A → 0, wakes one, which looks the name up again |
//! | A | not RETIRE, before the end of `at_least` | held | A leaving, or the prover of A's death → STAYS, with LEFT, and WAITERS and HUNGRY as they stood; wakes none. This row goes before every other |
//! | end | STAYS, with or without WAITERS HUNGRY | no process holds it, and it is taken for every process | a waiter → STAYS WAITERS or STAYS WAITERS HUNGRY; after the end any looker: as from a dead owner's word, told LEFT |
//! | A, dead | not RETIRE | | its prover, if no older wait stands (a try or a waiter without a record: if none stands) → me WAITERS HUNGRY, told `Died`; else, and a sweeper → oldest r RESERVED WAITERS LEFT = died; a sweeper that finds none → WAITERS LEFT = died, wakes one |
//!
//! Every other combination is damage. Every change is a compare-and-swap; a holder that finds
//! another owner in its word has lost it. `protocol` says which machine makes which step when, and
//! the model checks exactly these functions.
//!
//! **A thread that claims, recovers, or takes a word with WAITERS takes it with HUNGRY.** So from
//! the moment a waiter with a record has seen HUNGRY in the word, each release scans, until two
//! scans in a row, one before and one after the releasing exchange, found no record.
//!
//! **Orderings.** Taking is SeqCst and releasing quietly is Release, so that a holder sees what
//! the one before it wrote, in the slot (token, generation, end: Relaxed under the word) and in
//! what the lock protects; taking is SeqCst and not Acquire because shared modes decide between
//! the taking exchange and a load after it. Off the quiet path every access to a word or a record
//! is SeqCst, since two locations decide together:
//! - a waiter publishes its record and then looks at the word; a releaser exchanges the word and
//!   then reads the records again. In the one order of SeqCst one of them comes second and sees
//!   the other: so a waiter that sleeps on a HUNGRY word is found by the scan after the exchange.
//! - a waiter that gives up erases its record and then looks for its reservation; an appointer
//!   writes the reservation and then reads the record. So one of them hands the reservation on.
//!
//! A quiet release needs no SeqCst: its exchange expects a word without HUNGRY, so a waiter that
//! marked the word makes it fail, and one that marks it later sees it released. Between a sleeper
//! and its waker the futex orders: it compares the low half under a lock that the waker takes
//! after changing the word.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU64},
};

use crate::error::Predecessor;

/// What may own a word: a process, for as long as its presence lasts. Never reused.
///
/// Its low 16 bits are never all 0: to the futex, which sees no more of it, a word that such an
/// owner holds would look like a free one, and a sleeper would miss its wake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct OwnerId(NonZeroU64);

impl OwnerId {
    const BITS: u32 = 40;

    /// `None` for what has more than 40 bits, and for what ends in 16 zeros.
    pub(super) const fn new(id: u64) -> Option<OwnerId> {
        match NonZeroU64::new(id) {
            Some(sound) if id >> OwnerId::BITS == 0 && id & 0xffff != 0 => Some(OwnerId(sound)),
            _ => None,
        }
    }

    /// The first id after `last`, which need not be one; `None` when all are used up.
    pub(super) const fn after(last: u64) -> Option<OwnerId> {
        let next = last.saturating_add(1);
        OwnerId::new(if next & 0xffff == 0 { next.saturating_add(1) } else { next })
    }

    pub(super) const fn get(self) -> u64 {
        self.0.get()
    }
}

/// One wait: the number of its record, and which use of that record it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct WaitId {
    number: NonZeroU16,
    use_count: u32,
}

/// Uses of one record are counted in so many bits, and wrap: a reservation would have to be 2^23
/// waits old to be taken for a later one.
const USE_BITS: u32 = 23;
const USE_MASK: u32 = (1 << USE_BITS) - 1;

impl WaitId {
    /// `None` for the number 0, which no record has.
    pub(super) const fn new(number: u16, use_count: u32) -> Option<WaitId> {
        match NonZeroU16::new(number) {
            Some(number) => Some(WaitId { number, use_count: use_count & USE_MASK }),
            None => None,
        }
    }

    pub(super) const fn number(self) -> u16 {
        self.number.get()
    }

    /// What stands in the owner field of a word reserved for it.
    const fn field(self) -> u64 {
        self.number.get() as u64 | (self.use_count as u64) << 16
    }

    const fn of_field(field: u64) -> Option<WaitId> {
        if field >> (16 + USE_BITS) != 0 {
            return None;
        }
        WaitId::new(field as u16, (field >> 16) as u32)
    }
}

/// When a word that stays after its holder left may be taken: milliseconds since boot, below 2^40.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct StayEnd(NonZeroU64);

impl StayEnd {
    /// `None` for 0, and for what has more than 40 bits.
    pub(super) const fn new(milliseconds: u64) -> Option<StayEnd> {
        match NonZeroU64::new(milliseconds) {
            Some(end) if milliseconds >> OwnerId::BITS == 0 => Some(StayEnd(end)),
            _ => None,
        }
    }

    pub(super) const fn milliseconds(self) -> u64 {
        self.0.get()
    }
}

/// The first word of a wait record: the process that waits, which use of the record it is, and
/// whether it was passed over. `[63:24] id · [23:1] use · [0] passed`; without an id the record is
/// free.
///
/// A wait is marked as passed over before the word is exchanged that is reserved for it. If that exchange
/// fails, the mark stays, also where the word names the wait still: it is cleared by the wait alone, at its
/// own next look. Taken back by the one that set it, the mark would race with that look.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct RecordWord(u64);

const PASSED: u64 = 1;
const RECORD_USE_SHIFT: u32 = 1;
const RECORD_ID_SHIFT: u32 = 24;

impl RecordWord {
    pub(super) const fn from_bits(bits: u64) -> RecordWord {
        RecordWord(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The process that waits. `None` if the record is free, or holds what no waiter wrote.
    pub(super) const fn owner(self) -> Option<OwnerId> {
        OwnerId::new(self.0 >> RECORD_ID_SHIFT)
    }

    pub(super) const fn is_free(self) -> bool {
        self.0 >> RECORD_ID_SHIFT == 0
    }

    pub(super) const fn use_count(self) -> u32 {
        (self.0 >> RECORD_USE_SHIFT) as u32 & USE_MASK
    }

    pub(super) const fn is_passed(self) -> bool {
        self.0 & PASSED != 0
    }

    /// Whether this is the word of exactly this wait, of whichever process, passed or not.
    pub(super) fn is_of(self, wait: WaitId) -> bool {
        self.owner().is_some() && self.use_count() == wait.use_count
    }

    /// The wait that it is of, in the record of this number.
    pub(super) const fn wait(self, number: u16) -> Option<WaitId> {
        match self.owner() {
            Some(_) => WaitId::new(number, self.use_count()),
            None => None,
        }
    }

    // ---- transitions ------------------------------------------------------------------------

    /// The next use of a free record, or of a dead process's record. Not to be believed yet.
    pub(super) const fn taken(self, me: OwnerId) -> RecordWord {
        let next = self.use_count().wrapping_add(1) & USE_MASK;
        RecordWord(me.get() << RECORD_ID_SHIFT | (next as u64) << RECORD_USE_SHIFT | PASSED)
    }

    /// The word of a wait of `me` that is not to be believed yet.
    pub(super) const fn enlisted(me: OwnerId, wait: WaitId) -> RecordWord {
        let use_count = (wait.use_count as u64) << RECORD_USE_SHIFT;
        RecordWord(me.get() << RECORD_ID_SHIFT | use_count | PASSED)
    }

    pub(super) const fn passed(self) -> RecordWord {
        RecordWord(self.0 | PASSED)
    }

    /// Filled in and to be believed.
    pub(super) const fn standing(self) -> RecordWord {
        RecordWord(self.0 & !PASSED)
    }

    /// Passed over, and standing again: as the next use, so that no reservation is like an earlier
    /// one. A looker that was stopped while it passed over that one does not pass over this one.
    pub(super) const fn returned(self) -> RecordWord {
        let next = self.use_count().wrapping_add(1) & USE_MASK;
        let others = self.0 & !(PASSED | (USE_MASK as u64) << RECORD_USE_SHIFT);
        RecordWord(others | (next as u64) << RECORD_USE_SHIFT)
    }

    /// Free again. The use stays, so that the next one is another.
    pub(super) const fn erased(self) -> RecordWord {
        RecordWord((self.use_count() as u64) << RECORD_USE_SHIFT)
    }
}

/// A value of a slot's word.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Word(u64);

const OWNER_SHIFT: u32 = 16;
const WAITERS: u64 = 1 << 0;
const HUNGRY: u64 = 1 << 1;
const RESERVED: u64 = 1 << 2;
const LEFT_SHIFT: u32 = 3;
const LEFT: u64 = 0b11 << LEFT_SHIFT;
const WIDE: u64 = 1 << 5;
const RETIRE: u64 = 1 << 6;
const READABLE: u64 = 1 << 7;
const DRAINS: u64 = 1 << 8;
const STAYS: u64 = 1 << 9;

const RECORDS_STAND: u64 = WAITERS | HUNGRY;
const RETIRE_AND_WAITERS: u64 = WAITERS | RETIRE;
const RESERVED_AND_WAITERS: u64 = WAITERS | RESERVED;
const READABLE_AND_WAITERS: u64 = READABLE | WAITERS;
const READABLE_AND_RECORDS: u64 = READABLE | RECORDS_STAND;
const DRAINS_AND_WAITERS: u64 = DRAINS | WAITERS;
const DRAINS_AND_RECORDS: u64 = DRAINS | RECORDS_STAND;
const STAYS_AND_WAITERS: u64 = STAYS | WAITERS;
const STAYS_AND_RECORDS: u64 = STAYS | RECORDS_STAND;

/// What a word means to a process that looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SlotState {
    /// The first to exchange it has it.
    Free,
    /// Released for this wait.
    Reserved(WaitId),
    Held(OwnerId),
    /// Its owner is forgetting the name.
    Retiring(OwnerId),
    /// Without a holder, and taken for every process until this end.
    Staying(StayEnd),
}

impl Word {
    /// The word of a new slot, and of every quiet lock.
    pub(super) const FREE: Word = Word(0);

    pub(super) const fn from_bits(bits: u64) -> Word {
        Word(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// What the futex compares.
    pub(super) const fn low_half(self) -> u32 {
        self.0 as u32
    }

    /// `None`: no lock ever wrote this.
    pub(super) fn state(self) -> Option<SlotState> {
        let flags = self.0 & 0xffff & !WIDE;
        let (field, told) = (self.0 >> OWNER_SHIFT, flags & LEFT);
        match flags & !LEFT {
            0 | WAITERS if field == 0 => Some(SlotState::Free),
            STAYS | STAYS_AND_WAITERS | STAYS_AND_RECORDS => {
                StayEnd::new(field).map(SlotState::Staying)
            }
            RESERVED_AND_WAITERS => WaitId::of_field(field).map(SlotState::Reserved),
            0 | WAITERS | RECORDS_STAND if told == 0 => OwnerId::new(field).map(SlotState::Held),
            DRAINS | DRAINS_AND_WAITERS | DRAINS_AND_RECORDS if told == 0 => {
                OwnerId::new(field).map(SlotState::Held)
            }
            // The last writer's way is for the readers that come in.
            READABLE | READABLE_AND_WAITERS | READABLE_AND_RECORDS => {
                OwnerId::new(field).map(SlotState::Held)
            }
            RETIRE | RETIRE_AND_WAITERS if told == 0 => {
                OwnerId::new(field).map(SlotState::Retiring)
            }
            _ => None,
        }
    }

    /// The process that owns it, if one does.
    pub(super) fn owner(self) -> Option<OwnerId> {
        match self.0 & (RESERVED | STAYS) {
            0 => OwnerId::new(self.0 >> OWNER_SHIFT),
            _ => None,
        }
    }

    /// The wait that it is reserved for.
    pub(super) fn reserved_for(self) -> Option<WaitId> {
        match self.state() {
            Some(SlotState::Reserved(wait)) => Some(wait),
            _ => None,
        }
    }

    pub(super) const fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    /// Whether a reader that has added its 1 and looks now is inside. `beside`: also past a waiter
    /// that has waited for long.
    #[inline]
    pub(super) const fn admits_readers(self, beside: bool) -> bool {
        let owner = self.0 >> OWNER_SHIFT;
        if owner == 0 {
            self.0 & WIDE == 0
        } else {
            self.0 & (READABLE | WIDE) == READABLE && (beside || !self.is_hungry())
        }
    }

    pub(super) const fn is_readable(self) -> bool {
        self.0 & READABLE != 0
    }

    /// Whether its holder waits for permits.
    pub(super) const fn drains(self) -> bool {
        self.0 & DRAINS != 0
    }

    pub(super) const fn is_hungry(self) -> bool {
        self.0 & HUNGRY != 0
    }

    pub(super) const fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    /// How the last owner left.
    pub(super) const fn left(self) -> Predecessor {
        match (self.0 & LEFT) >> LEFT_SHIFT {
            0 => Predecessor::Clean,
            1 => Predecessor::Panicked,
            2 => Predecessor::Died,
            _ => Predecessor::Expired,
        }
    }

    // ---- transitions: each from the rows above, each checked by the model --------------------

    /// The fast path in: what it exchanges for what.
    #[inline]
    pub(super) const fn taken_quietly(me: OwnerId) -> (Word, Word) {
        (Word::FREE, Word::held(me))
    }

    /// The fast path out: what it exchanges for what.
    #[inline]
    pub(super) const fn left_quietly(me: OwnerId, how: Predecessor) -> (Word, Word) {
        (Word::held(me), Word::left_so(how))
    }

    /// Held by `owner`, quietly.
    pub(super) const fn held(owner: OwnerId) -> Word {
        Word(owner.get() << OWNER_SHIFT)
    }

    /// Free, as a holder that so left leaves it quietly.
    pub(super) const fn left_so(how: Predecessor) -> Word {
        let left = match how {
            Predecessor::Clean => 0,
            Predecessor::Panicked => 1,
            Predecessor::Died => 2,
            // A loss that the leader tells of itself.
            Predecessor::Expired | Predecessor::Broken => 3,
        };
        Word(left << LEFT_SHIFT)
    }

    /// Owned by `owner`, which is forgetting the name. Only ever in place of [`FREE`](Word::FREE).
    pub(super) const fn retiring(owner: OwnerId) -> Word {
        Word(owner.get() << OWNER_SHIFT | RETIRE)
    }

    /// A free word, taken by a thread that slept, or has a record that stands, or neither.
    pub(super) fn taken(self, me: OwnerId, slept: bool, stands: bool) -> Word {
        let flags = match (self.has_waiters() || stands, slept) {
            (true, _) => RECORDS_STAND,
            (false, true) => WAITERS,
            (false, false) => 0,
        };
        Word(Word::held(me).0 | self.0 & WIDE | flags)
    }

    /// Any word that is not held by the living, taken: claimed, recovered, passed over, or after
    /// the end of its stay.
    pub(super) fn seized(self, me: OwnerId) -> Word {
        Word(Word::held(me).0 | self.0 & WIDE | RECORDS_STAND)
    }

    /// The same, reserved for a wait.
    pub(super) fn appointed(self, wait: WaitId, how: Predecessor) -> Word {
        let kept = self.0 & WIDE | Word::left_so(how).0;
        Word(wait.field() << OWNER_SHIFT | kept | RESERVED_AND_WAITERS)
    }

    /// A held or staying word that a waiter without a record is about to sleep on.
    pub(super) const fn waited_for(self) -> Word {
        Word(self.0 | WAITERS)
    }

    /// The same, for a waiter with a record.
    pub(super) const fn hungered_for(self) -> Word {
        Word(self.0 | RECORDS_STAND)
    }

    /// A held word, held by the same process under another id of its own. Its sleepers are not
    /// woken: the flags stand, so the release under the new id wakes as one under the old one.
    #[cfg(any(feature = "cli", test))]
    pub(super) const fn renamed(self, to: OwnerId) -> Word {
        Word(self.0 & 0xffff | to.get() << OWNER_SHIFT)
    }

    /// A held word, marked as locked at host scope.
    pub(super) const fn widened(self) -> Word {
        Word(self.0 | WIDE)
    }

    /// A mistake: as if the name was never locked at host scope.
    #[cfg(test)]
    pub(super) const fn narrowed(self) -> Word {
        Word(self.0 & !WIDE)
    }

    /// A held word of which readers may come in beside the holder, told how the last writer left.
    pub(super) fn readable(self, how: Predecessor) -> Word {
        Word(self.0 | READABLE | Word::left_so(how).0)
    }

    /// The same, held for its holder alone.
    pub(super) const fn unreadable(self) -> Word {
        Word(self.0 & !(READABLE | LEFT))
    }

    /// A held word, whose holder waits for permits.
    pub(super) const fn draining(self) -> Word {
        Word(self.0 | DRAINS)
    }

    /// An owned word, released to no wait. One with HUNGRY keeps WAITERS until a second scan.
    pub(super) fn released(self, how: Predecessor) -> Word {
        let waiters = if self.is_hungry() { WAITERS } else { 0 };
        Word(self.0 & WIDE | Word::left_so(how).0 | waiters)
    }

    /// A word without a living owner, released to whichever thread comes first, while waiters may
    /// sleep.
    pub(super) fn freed(self, how: Predecessor) -> Word {
        Word(self.0 & WIDE | Word::left_so(how).0 | WAITERS)
    }

    /// A free word after two scans without a record.
    pub(super) const fn cleared(self) -> Word {
        Word(self.0 & !WAITERS)
    }

    /// An owned word, left before the end of `at_least`.
    pub(super) fn staying(self, how: Predecessor, end: StayEnd) -> Word {
        let kept = self.0 & (WIDE | RECORDS_STAND) | Word::left_so(how).0;
        Word(end.milliseconds() << OWNER_SHIFT | kept | STAYS)
    }

    /// The word of an owner that died while forgetting the name, freed under the structural lock.
    pub(super) fn settled(self) -> Word {
        Word(self.0 & WIDE)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state() {
            None => return write!(f, "{:#x}", self.0),
            Some(SlotState::Free) => f.write_str("free")?,
            Some(SlotState::Staying(end)) => write!(f, "staying until {}", end.milliseconds())?,
            Some(SlotState::Reserved(wait)) => {
                write!(f, "reserved for wait {}.{}", wait.number, wait.use_count)?;
            }
            Some(SlotState::Held(owner)) => write!(f, "held by {}", owner.get())?,
            Some(SlotState::Retiring(owner)) => write!(f, "being forgotten by {}", owner.get())?,
        }
        let flags = [
            ("waiters", WAITERS),
            ("hungry", HUNGRY),
            ("wide", WIDE),
            ("readable", READABLE),
            ("drains", DRAINS),
        ];
        for (name, _) in flags.iter().filter(|(_, flag)| self.0 & flag != 0) {
            write!(f, ", {name}")?;
        }
        match self.left() {
            Predecessor::Clean => Ok(()),
            how => write!(f, ", left {how}"),
        }
    }
}

#[cfg(test)]
impl Word {
    /// The same, wide if `other` is.
    pub(super) const fn as_wide_as(self, other: Word) -> Word {
        Word(self.0 | other.0 & WIDE)
    }

    /// The rows of the table: whether the owner field is set, and the flags without LEFT and WIDE.
    pub(super) fn rows() -> std::collections::BTreeSet<(bool, u64)> {
        let owned = [
            0,
            WAITERS,
            RECORDS_STAND,
            RETIRE,
            RETIRE_AND_WAITERS,
            RESERVED_AND_WAITERS,
            READABLE,
            READABLE_AND_WAITERS,
            READABLE_AND_RECORDS,
            DRAINS,
            DRAINS_AND_WAITERS,
            DRAINS_AND_RECORDS,
            STAYS,
            STAYS_AND_WAITERS,
            STAYS_AND_RECORDS,
        ];
        let free = [0, WAITERS].into_iter().map(|flags| (false, flags));
        free.chain(owned.into_iter().map(|flags| (true, flags))).collect()
    }

    pub(super) fn row(self) -> (bool, u64) {
        (self.0 >> OWNER_SHIFT != 0, self.0 & 0xffff & !(LEFT | WIDE))
    }
}
