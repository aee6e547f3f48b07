//! Taking a name away from a holder who lives: it moves to a fresh slot.
//!
//! The holder's word cannot be taken from it, since it would let go of whatever stands there by
//! then. So the slot stays with it, without the name, until it lets go or dies; the name goes on in
//! another one, with a larger token and with its widened mark. In this order:
//!
//! 1. The holder's word is marked as moved. From here on nobody else takes it, so what is seen now
//!    is the hold that is meant: if its token is another one, all is taken back.
//! 2. The fresh slot is filled, in sight of nobody.
//! 3. The old one loses its name, and then its generation: **from here on its holder is told**,
//!    who compares it whenever it is asked whether it still has the lock.
//! 4. The old slot is unlinked, the fresh one takes on what the holder wrote up to here (its
//!    token, the widened mark), and is linked: only now anybody can take it.
//! 5. Everybody who sleeps on the old slot is woken. It is put aside, into a list of its own, from
//!    which it comes back among the free ones once nobody owns its word.
//!
//! Who has just won a word has yet to write down its token, so the one that stands there is its
//! predecessor's. It has a millisecond for that before it is taken for the holder of that token. If
//! it was stopped just there, it is what everybody sees as its holder; it is told like any other.
//! The token that it then writes is one more than it found, or if it knew of larger ones it looks
//! again afterwards whether the slot is still its name's. So the fresh slot begins one above.

use std::{
    sync::atomic::{AtomicU32, Ordering::*, fence},
    thread,
    time::Duration,
};

use crate::{
    error::{LockError, Predecessor},
    name::Name,
    token::Token,
};

use super::{
    super::{
        super::home::damaged,
        lock,
        marks::Marks,
        slot::Slot,
        step::step,
        word::{OwnerId, State, Word},
    },
    Changing, Entering, Found, Intent, circle,
};

/// So long may one take who has won a word to write down its token.
const TIME_TO_WRITE: Duration = Duration::from_millis(1);

/// What became of the wish to break a lock.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Broken {
    Yes,
    /// Nobody alive holds it.
    Free,
    /// Somebody does, with this token.
    HeldWith(OwnerId, u64),
}

/// A name on its way from one slot to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moving {
    pub(super) from: u32,
    /// That of the slot it leaves.
    pub(super) generation: u32,
    pub(super) to: u32,
    pub(super) unit: u32,
    pub(super) units: usize,
}

impl Changing<'_> {
    /// Takes the name away from the holder of exactly this token.
    pub(in super::super) fn take_away(
        &self,
        name: &Name,
        token: Token,
        is_alive: impl Fn(OwnerId) -> bool,
    ) -> Result<Broken, LockError> {
        let Some(found) = self.table.find(name, self.table.hash(name))? else {
            return Ok(Broken::Free);
        };
        let slot = self.table.slot(found.number)?;
        let held = |slot: &Slot| held_with(slot, token, &is_alive);
        if let Err(answer) = held(slot)? {
            return Ok(answer);
        }
        let moving = self.begin_moving(found)?;
        loop {
            match held(slot)? {
                Err(answer) => {
                    self.take_back(&moving)?;
                    self.write_intent(Intent::Nothing);
                    return Ok(answer);
                }
                Ok(word) if !lock::move_away(slot, word) => {}
                Ok(word) if held_so(slot, word, token) => {
                    thread::sleep(TIME_TO_WRITE);
                    if held_so(slot, word, token) {
                        break;
                    }
                    lock::stay(slot);
                }
                // It let go, and perhaps took it again, before it was marked.
                Ok(_) => lock::stay(slot),
            }
        }
        self.move_name(&moving)?;
        self.write_intent(Intent::Nothing);
        step!(BreakDone);
        Ok(Broken::Yes)
    }

    /// Has a slot for the name, and says what for.
    fn begin_moving(&self, Found { number: from, generation }: Found) -> Result<Moving, LockError> {
        self.free_what_was_left()?;
        let slot = self.table.slot(from)?;
        let (marks, hash) = (Marks::of(slot), slot.hash.load(Relaxed));
        let entering = self.reserve(units_of(marks), hash)?;
        let Entering { number: to, unit, units, .. } = entering;
        let moving = Moving { from, generation, to, unit, units };
        self.write_intent(Intent::Move(moving));
        step!(BreakIntended);
        self.take_reserved(&entering)?;
        step!(BreakReserved);
        Ok(moving)
    }

    /// Every step can be made twice.
    fn move_name(&self, moving: &Moving) -> Result<(), LockError> {
        let (old, new) = (self.table.slot(moving.from)?, self.table.slot(moving.to)?);
        if Marks::of(old).is_live() {
            self.copy_name(moving)?;
            step!(BreakCopied);
            // First here, then there: so whoever starts the table anew finds it in one of them.
            Marks::of(old).moved(moving.units).store(new);
            Marks::free(Marks::of(old).units()).store(old);
        }
        step!(BreakUnnamed);
        old.generation.store(moving.generation.wrapping_add(1), SeqCst);
        // Who finds the old generation after this fence has written before it.
        fence(SeqCst);
        step!(BreakTold);
        let hash = old.hash.load(Relaxed);
        self.unlink(moving.from, hash)?;
        step!(BreakUnlinked);
        if self.link_before(hash, moving.to)?.is_none() {
            new.token.store(above(old.token.load(SeqCst)), Relaxed);
            let word = Word::from_bits(old.word.load(SeqCst));
            new.word.store(broken().as_wide_as(word).bits(), SeqCst);
            self.link(moving.to, hash)?;
        }
        step!(BreakLinked);
        lock::wake_all(old);
        step!(BreakWoken);
        self.put_aside(moving.from)?;
        step!(BreakPutAside);
        Ok(())
    }

    /// All of the fresh slot but its marks, so that it has no name yet.
    fn copy_name(&self, moving: &Moving) -> Result<(), LockError> {
        let (old, new) = (self.table.slot(moving.from)?, self.table.slot(moving.to)?);
        let length = units_of(Marks::of(old)) * 4;
        let text = self.table.name_bytes(old.name_offset.load(Relaxed), length)?;
        let text = text.ok_or_else(|| damaged("a name crosses the end of its part"))?;
        self.table.write_name(moving.unit, &text)?;
        // Whoever still has a name that was in this slot long ago finds another generation.
        new.generation.fetch_add(1, Release);
        new.name_offset.store(moving.unit, Relaxed);
        new.hash.store(old.hash.load(Relaxed), Relaxed);
        new.token.store(old.token.load(Relaxed), Relaxed);
        let word = Word::from_bits(old.word.load(Relaxed));
        new.word.store(broken().as_wide_as(word).bits(), SeqCst);
        Ok(())
    }

    /// The name stays where it is.
    fn take_back(&self, moving: &Moving) -> Result<(), LockError> {
        lock::stay(self.table.slot(moving.from)?);
        self.table.slot(moving.to)?.word.store(Word::FREE.bits(), SeqCst);
        let Moving { to: number, unit, units, .. } = *moving;
        self.take_reserved(&Entering { number, hash: 0, unit, units })?;
        self.put_free(number, unit, units)?;
        step!(BreakTakenBack);
        Ok(())
    }

    /// Somebody died while moving a name: if its holder may have been told, it is moved.
    pub(super) fn finish_moving(&self, moving: &Moving) -> Result<(), LockError> {
        self.check_fits(moving.unit, moving.units)?;
        let old = self.table.slot(moving.from)?;
        let same = old.generation.load(Relaxed) == moving.generation;
        if same && Marks::of(old).is_live() {
            self.take_back(moving)
        } else {
            self.move_name(moving)
        }
    }

    // ---- what holders keep of the slots that names left ----------------------------------------

    fn put_aside(&self, number: u32) -> Result<(), LockError> {
        if self.aside(number)?.is_none() {
            let left = &self.table.header().left;
            self.table.slot(number)?.next.store(left.load(Relaxed), Relaxed);
            left.store(number + 1, Relaxed);
        }
        Ok(())
    }

    /// Frees the slots that names were moved away from, and whose holders have let go.
    pub(super) fn free_what_was_left(&self) -> Result<(), LockError> {
        let mut link = &self.table.header().left;
        for _ in 0..=self.table.header().slots_used.load(Relaxed) {
            let Some(number) = link.load(Relaxed).checked_sub(1) else { return Ok(()) };
            let slot = self.table.slot(number)?;
            if lock::clear(slot) {
                self.write_intent(Intent::Free { number });
                step!(FreeIntended);
                self.finish_freeing(number)?;
                self.write_intent(Intent::Nothing);
                step!(FreeDone);
            } else {
                link = &slot.next;
            }
        }
        Err(circle())
    }

    /// Every step can be made twice.
    pub(super) fn finish_freeing(&self, number: u32) -> Result<(), LockError> {
        let slot = self.table.slot(number)?;
        if let Some(link) = self.aside(number)? {
            link.store(slot.next.load(Relaxed), Relaxed);
        }
        step!(FreeUnlinked);
        self.put_free(number, slot.name_offset.load(Relaxed), Marks::of(slot).units())
    }

    /// The link that leads to this slot among those put aside.
    fn aside(&self, number: u32) -> Result<Option<&AtomicU32>, LockError> {
        self.link_to(&self.table.header().left, number)
    }
}

/// Whether somebody alive holds it with this token: by which word.
fn held_with(
    slot: &Slot,
    token: Token,
    is_alive: impl Fn(OwnerId) -> bool,
) -> Result<Result<Word, Broken>, LockError> {
    let word = Word::from_bits(slot.word.load(SeqCst));
    let held = slot.token.load(SeqCst);
    match word.state() {
        None => Err(damaged(format!("a word of it is {:#x}, which no lock wrote", word.bits()))),
        Some(State::Held(owner)) if is_alive(owner) => Ok(match held == token.get() {
            true => Ok(word),
            false => Err(Broken::HeldWith(owner, held)),
        }),
        Some(_) => Ok(Err(Broken::Free)),
    }
}

/// Whether the word that was just marked is that of the hold with this token, and still is.
fn held_so(slot: &Slot, word: Word, token: Token) -> bool {
    let now = Word::from_bits(slot.word.load(SeqCst));
    slot.token.load(SeqCst) == token.get() && now.owner() == word.owner()
}

/// The word of a name that was taken away from its holder.
fn broken() -> Word {
    Word::left_so(Predecessor::Broken)
}

/// How many units a name needs, with what is kept with it.
fn units_of(marks: Marks) -> usize {
    if marks.has_text() { marks.units() } else { marks.name_length().div_ceil(4) }
}

/// The last token of all has none above it: then there is no next holder.
fn above(token: u64) -> u64 {
    if token < Token::MAX.get() { token + 1 } else { token }
}
