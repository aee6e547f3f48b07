//! The word of a slot: who owns it, and what is known about it. All of exclusion rests on it.
//!
//! ```text
//! u64   [63:56] 0   [55:16] owner id (40 bits, never reused)   [15:0] flags
//! flags WAITERS · HUNGRY · RESERVED · LEFT (3 bits) · WIDE · RETIRE · 0…
//! ```
//! The futex is the low half: flags and the low 16 bits of the owner.
//!
//! LEFT is how the last owner left, a [`Predecessor`]; it stands only while nobody owns the word.
//! WIDE (the name was locked at host scope) stays through every row of this table, and a LEFT
//! that is not clean through every row without an owner.
//!
//! | owner | flags | means | next |
//! |---|---|---|---|
//! | 0 | none | free | anyone → me; a forgetter → me RETIRE |
//! | 0 | LEFT ≠ clean | free; the last one left so | anyone (slow path) → me, told as `predecessor` |
//! | 0 | WAITERS | free; an heir gave up, or had gone | anyone (slow path) → me WAITERS |
//! | 0 | RESERVED WAITERS | let go for the heir | heir → me WAITERS; anyone, if there is no heir or it is older than 3 ms → me WAITERS; heir giving up, or A that finds no heir → WAITERS, wakes one |
//! | A | none | held, nobody sleeps | A → 0; a waiter → A WAITERS |
//! | A | WAITERS | held, somebody may sleep | A → 0, wakes one; who is hungry → A WAITERS HUNGRY |
//! | A | WAITERS HUNGRY | held, an heir stands | A → RESERVED WAITERS, then reads heir, wakes it, else one other |
//! | A | not RETIRE | held | A → A′, another id of the same process; the flags stay |
//! | A | RETIRE | being forgotten | A → 0; a waiter → A RETIRE WAITERS; if A died, finished under the structural lock |
//! | A | RETIRE WAITERS | being forgotten, somebody may sleep | A → 0, wakes one, who looks the name up again |
//! | A, dead | not RETIRE | | whoever proved it: CAS of exactly the word judged → me WAITERS, told `Died`; a sweeper → 0 with LEFT = died, wakes one |
//!
//! Whoever slept takes with WAITERS: the unlock that woke it cleared the bit, and others may
//! still sleep. A recovery given back unused leaves LEFT as it was told. Every change is a
//! compare-and-swap; whoever finds another owner than itself in its own word has lost it.
//!
//! Every other combination is damage. `protocol` says who makes which step when, and the model
//! checks exactly these functions.
//!
//! **Orderings.** Taking is Acquire and letting go Release, so that a holder sees what the one
//! before it wrote, in the slot (token, generation: Relaxed under the word) and in what the lock
//! protects. Off the quiet path all is SeqCst, which costs nothing beside a compare-and-swap, and
//! is needed where two words decide together: an heir stands (writes the heir's place) and then
//! looks at the word; an owner lets go (writes the word) and then reads the heir's place. In the
//! one order of SeqCst one of them comes second and sees the other, so either the heir finds its
//! reservation or it is woken. The same holds between an heir that leaves its place and then
//! looks for a reservation to clear. Between a sleeper and its waker the futex is what orders:
//! it compares the low half under a lock that the waker takes after changing the word.

use std::{fmt, num::NonZeroU64};

use crate::error::Predecessor;

/// Who may own a word: a process, for as long as its presence lasts. Never reused.
///
/// Its low 16 bits are never all 0: to the futex, which sees no more of it, a word that such an
/// owner holds would look like one that nobody does, and a sleeper would miss its wake.
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

/// A value of a slot's word.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Word(u64);

const OWNER_SHIFT: u32 = 16;
const WAITERS: u64 = 1 << 0;
const HUNGRY: u64 = 1 << 1;
const RESERVED: u64 = 1 << 2;
const LEFT_SHIFT: u32 = 3;
const LEFT: u64 = 0b111 << LEFT_SHIFT;
const WIDE: u64 = 1 << 6;
const RETIRE: u64 = 1 << 7;

const AN_HEIR_STANDS: u64 = WAITERS | HUNGRY;
const RETIRE_AND_WAITERS: u64 = WAITERS | RETIRE;
const LET_GO_FOR_THE_HEIR: u64 = WAITERS | RESERVED;
/// The largest LEFT that is a [`Predecessor`].
const LAST_LEFT: u64 = (Predecessor::Broken as u64) << LEFT_SHIFT;

/// What a word means to somebody who looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Whoever comes first may take it.
    Free,
    /// Let go for the heir.
    Reserved,
    Held(OwnerId),
    /// Its owner is forgetting the name.
    Retiring(OwnerId),
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
    pub(super) fn state(self) -> Option<State> {
        let flags = self.0 & 0xffff & !WIDE;
        match self.owner() {
            Some(owner) => match flags {
                0 | WAITERS | AN_HEIR_STANDS => Some(State::Held(owner)),
                RETIRE | RETIRE_AND_WAITERS => Some(State::Retiring(owner)),
                _ => None,
            },
            None if self.0 >> OWNER_SHIFT != 0 || flags & LEFT > LAST_LEFT => None,
            None => match flags & !LEFT {
                0 | WAITERS => Some(State::Free),
                LET_GO_FOR_THE_HEIR => Some(State::Reserved),
                _ => None,
            },
        }
    }

    /// Who owns it, if anybody does.
    pub(super) fn owner(self) -> Option<OwnerId> {
        OwnerId::new(self.0 >> OWNER_SHIFT)
    }

    pub(super) const fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    pub(super) const fn is_hungry(self) -> bool {
        self.0 & HUNGRY != 0
    }

    /// Nobody has it, waits for it or has something to tell; the name may be wide.
    #[inline]
    pub(super) const fn quiet(is_wide: bool) -> Word {
        if is_wide { Word::FREE.widened() } else { Word::FREE }
    }

    /// The same, wide if `other` is.
    #[inline]
    pub(super) const fn as_wide_as(self, other: Word) -> Word {
        Word(self.0 | other.0 & WIDE)
    }

    pub(super) const fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    /// How the last owner left.
    pub(super) const fn left(self) -> Predecessor {
        Predecessor::from_u8(((self.0 & LEFT) >> LEFT_SHIFT) as u8)
    }

    // ---- transitions: each from the rows above, each checked by the model --------------------

    /// Held by `owner`, quietly.
    pub(super) const fn held(owner: OwnerId) -> Word {
        Word(owner.get() << OWNER_SHIFT)
    }

    /// Nobody's, as one who so left leaves it quietly.
    pub(super) const fn left_so(how: Predecessor) -> Word {
        Word((how as u64) << LEFT_SHIFT)
    }

    /// Owned by `owner` who is forgetting the name. Only ever in place of [`FREE`](Word::FREE).
    pub(super) const fn retiring(owner: OwnerId) -> Word {
        Word(owner.get() << OWNER_SHIFT | RETIRE)
    }

    /// A word without an owner, taken: free, or reserved for the taker or lapsed.
    pub(super) fn taken(self, me: OwnerId, slept: bool) -> Word {
        let waiters = if slept { WAITERS } else { 0 };
        Word(Word::held(me).0 | self.0 & (WIDE | WAITERS) | waiters)
    }

    /// An owned word that a waiter is about to sleep on.
    pub(super) const fn waited_for(self) -> Word {
        Word(self.0 | WAITERS)
    }

    /// A held word for which an heir stands.
    pub(super) const fn hungered_for(self) -> Word {
        Word(self.0 | AN_HEIR_STANDS)
    }

    /// A held word, held by the same process under another id of its own. Who sleeps on it is not
    /// woken: the flags stand, so whoever lets go under the new id wakes as under the old one.
    pub(super) const fn renamed(self, to: OwnerId) -> Word {
        Word(self.0 & 0xffff | to.get() << OWNER_SHIFT)
    }

    /// A held word, marked as locked at host scope.
    pub(super) const fn widened(self) -> Word {
        Word(self.0 | WIDE)
    }

    /// An owned word, let go: for the heir, if one stands.
    pub(super) fn let_go(self, how: Predecessor) -> Word {
        let reserved = if self.is_hungry() { LET_GO_FOR_THE_HEIR } else { 0 };
        Word(self.0 & WIDE | Word::left_so(how).0 | reserved)
    }

    /// A reserved word whose heir gave up.
    pub(super) const fn given_up(self) -> Word {
        Word(self.0 & !RESERVED)
    }

    /// A held word whose owner is dead, taken by whoever proved that.
    pub(super) fn recovered(self, me: OwnerId) -> Word {
        Word(Word::held(me).0 | self.0 & WIDE | WAITERS)
    }

    /// An owned word whose owner is dead, freed: by a sweeper who proved it (`Died`), or under the
    /// structural lock, of a name that was forgotten (`Clean`).
    pub(super) fn buried(self, how: Predecessor) -> Word {
        Word(self.0 & WIDE | Word::left_so(how).0)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state() {
            None => return write!(f, "{:#x}", self.0),
            Some(State::Free) => f.write_str("free")?,
            Some(State::Reserved) => f.write_str("reserved")?,
            Some(State::Held(owner)) => write!(f, "held by {}", owner.get())?,
            Some(State::Retiring(owner)) => write!(f, "being forgotten by {}", owner.get())?,
        }
        let flags = [("waiters", WAITERS), ("hungry", HUNGRY), ("wide", WIDE)];
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
    /// The rows of the table: whether somebody owns it, and the flags without LEFT and WIDE.
    pub(super) fn rows() -> std::collections::BTreeSet<(bool, u64)> {
        let free = [0, WAITERS, LET_GO_FOR_THE_HEIR].map(|flags| (false, flags));
        let owned = [0, WAITERS, AN_HEIR_STANDS, RETIRE, RETIRE_AND_WAITERS];
        free.into_iter().chain(owned.map(|flags| (true, flags))).collect()
    }

    pub(super) fn row(self) -> (bool, u64) {
        (self.owner().is_some(), self.0 & 0xffff & !(LEFT | WIDE))
    }
}

/// Who stands first in line, and since when: a hint, which costs no exclusion if it is wrong.
///
/// ```text
/// u64   [63:40] since, in units of 2^24 ns (wraps after 3 days)   [39:0] owner id
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Heir(u64);

const SINCE_UNIT: u32 = 24;

impl Heir {
    pub(super) const NONE: Heir = Heir(0);

    pub(super) const fn new(id: OwnerId, since: crate::time::Time) -> Heir {
        Heir(since.as_nanos() >> SINCE_UNIT << OwnerId::BITS | id.get())
    }

    pub(super) const fn from_bits(bits: u64) -> Heir {
        Heir(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn id(self) -> Option<OwnerId> {
        OwnerId::new(self.0 & ((1 << OwnerId::BITS) - 1))
    }

    /// How long it has stood there at `now`, about.
    pub(super) const fn waiting(self, now: crate::time::Time) -> std::time::Duration {
        let units = (now.as_nanos() >> SINCE_UNIT).wrapping_sub(self.0 >> OwnerId::BITS);
        std::time::Duration::from_nanos((units & 0xff_ffff) << SINCE_UNIT)
    }
}
