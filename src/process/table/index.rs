//! Names: found without a lock, entered and forgotten under the structural one.
//!
//! A name's hash picks a chain. Its head stands in the index, and it runs through the slots
//! (`next`). Every change that a reader may be looking at is one store that leaves all names
//! reachable:
//!
//! * **Entering** fills a slot that no chain reaches, and then makes it the head of its chain.
//! * **Doubling** gives chain `c + n` the head of chain `c`, for all of them, and then says that
//!   there are `2n`. Both chains of such a pair run through the names of both, until an entry
//!   **parts** them, link by link, each link skipping a run of the other's names. Each entry
//!   parts a few pairs, so no caller waits for all of them.
//! * **Forgetting** wins the name's word, raises the floor, then the generation, and unlinks. A name
//!   that was ever shared has a chain of share records and is not forgotten: it counts against the
//!   limit of names until the table starts anew.
//!
//! A look without the lock may be led astray by all that, into a chain that is not its own or
//! to its end. So a miss is final only under the lock, and a hit only if the whole name is the
//! same and, once the word is won, the generation.
//!
//! A process that dies with the structural lock leaves in the header what it was about
//! ([`Intent`]), and the next one to take that lock finishes or undoes it. Growth and parting
//! need no intent: at every step all is well, and the next process goes on.

use std::sync::atomic::{AtomicU32, Ordering::*, fence};

use crate::{
    error::{
        LockError,
        LockErrorKind::{self, Damaged},
    },
    identity::cut,
    mode::Usage,
    name::Name,
    token::Token,
};

use super::super::dir::home::damaged;
use super::{
    layout::{FIRST_HEADS, HEAD_PARTS, HEADS, NAMES, UNITS_MAX, place},
    map::Loads,
    marks::Marks,
    records::STRUCTURE,
    slot::MappedSlot,
    step::step,
    store::MappedTable,
};

/// How many pairs of chains an entry parts: more than one, so that all are parted long before
/// the next doubling.
const PARTED_AT_ONCE: u32 = 4;
/// An average chain may have so many names before their number is doubled.
const NAMES_PER_CHAIN: u64 = 1;
/// The longest text that is kept with a name, in bytes.
const TEXT_MAX: usize = 256;
/// How many slots an entry looks at in search of idle names.
const SWEPT_AT_ONCE: u32 = 64;

/// Where a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) number: u32,
    /// The name stands there as long as this is the slot's generation.
    pub(super) generation: u32,
}

impl MappedTable {
    /// Looks a name up. Without the structural lock a miss says nothing.
    pub(super) fn find(&self, name: &Name, hash: u64) -> Result<Option<Found>, LockError> {
        let mut next = self.head(hash & (self.chains()? - 1))?.seen();
        let most = self.header().slots_used.load(Relaxed);
        for _ in 0..=most {
            let Some(number) = next.checked_sub(1) else { return Ok(None) };
            let slot = self.slot(number)?;
            // Before the name: if both are of different times, the generation is the old one.
            let generation = slot.generation.seen();
            if slot.hash.load(Relaxed) == hash && self.is_named(slot, name)? {
                return Ok(Some(Found { number, generation }));
            }
            next = slot.next.seen();
        }
        // Led in a circle, by a slot that moved to another chain. Or by one that is damaged.
        Ok(None)
    }

    fn is_named(&self, slot: &MappedSlot, name: &Name) -> Result<bool, LockError> {
        let marks = Marks::of(slot);
        let same_length = marks.is_live() && marks.name_length() == name.len();
        Ok(same_length && self.name_is(slot.name_offset.load(Relaxed), name.as_bytes())?)
    }

    /// What the name of a slot is used for.
    pub(super) fn usage_of(&self, slot: &MappedSlot) -> Usage {
        match Marks::of(slot).counts_permits() {
            true => Usage::Permits(slot.limit.seen()),
            false => Usage::Lock,
        }
    }

    /// The name in a slot; `None` if there is none, or if it was forgotten while it was read.
    pub(super) fn name_of(&self, slot: &MappedSlot) -> Result<Option<Name>, LockError> {
        let generation = slot.generation.seen();
        let marks = Marks::of(slot);
        if !marks.is_live() {
            return Ok(None);
        }
        step!(NameSeen);
        let bytes = self.name_bytes(slot.name_offset.load(Relaxed), marks.name_length())?;
        // A byte of the next name in this slot is stored after the generation was raised.
        fence(Acquire);
        if slot.generation.seen() != generation {
            return Ok(None);
        }
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.map(|text| Name::new(&text)) {
            Some(Ok(name)) => Ok(Some(name)),
            _ => Err(damaged("a slot says that it has a name, and there is none")),
        }
    }
}

// ---- changes, under the structural lock ------------------------------------------------------

/// What the holder of the structural lock is about, as the header has it. Written before the first
/// step, the kind last; cleared after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Nothing,
    /// To give a slot to a name of this hash.
    Enter(ReservedPlace),
    /// To forget the name of a slot of this generation.
    Forget {
        number: u32,
        generation: u32,
        token: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReservedPlace {
    number: u32,
    hash: u64,
    /// Where the slot's name is to stand, and how many units it may have.
    unit: u32,
    units: usize,
}

const ENTER: u64 = 1;
const FORGET: u64 = 2;

impl Intent {
    fn to_words(self) -> [u64; 4] {
        match self {
            Intent::Nothing => [0; 4],
            Intent::Enter(ReservedPlace { number, hash, unit, units }) => {
                [ENTER, u64::from(number) | (unit as u64) << 32, hash, units as u64]
            }
            Intent::Forget { number, generation, token } => {
                [FORGET, u64::from(number) | (generation as u64) << 32, token, 0]
            }
        }
    }

    fn of_words([kind, numbers, third, fourth]: [u64; 4]) -> Option<Intent> {
        let (number, upper) = (numbers as u32, (numbers >> 32) as u32);
        let units = usize::try_from(fourth).ok().filter(|units| *units <= UNITS_MAX);
        match (kind, units) {
            (0, _) => Some(Intent::Nothing),
            (ENTER, Some(units)) => {
                Some(Intent::Enter(ReservedPlace { number, hash: third, unit: upper, units }))
            }
            (FORGET, _) => Some(Intent::Forget { number, generation: upper, token: third }),
            _ => None,
        }
    }
}

/// The table, for the holder of the structural lock, or for its maker before it is in place.
pub(super) struct Changing<'a> {
    pub(super) table: &'a MappedTable,
}

/// How a name's word is won and given back in order to forget the name.
pub(super) trait Retiring {
    /// Wins the word, if it has no owner and the next holder is to be told nothing.
    fn retire(&self, slot: &MappedSlot) -> bool;
    /// Gives it back.
    fn give_back(&self, slot: &MappedSlot);
    /// Gives it back in place of a process that died.
    fn finish(&self, slot: &MappedSlot);
}

impl Changing<'_> {
    /// Finishes or undoes the change that a process died in the middle of.
    pub(super) fn recover(&self, retiring: &impl Retiring) -> Result<(), LockError> {
        match self.read_intent()? {
            Intent::Nothing => {}
            Intent::Enter(entering) => self.finish_entering(entering)?,
            Intent::Forget { number, generation, token } => {
                self.finish_forgetting(number, generation, token)?;
                retiring.finish(self.table.slot(number)?);
            }
        }
        self.write_intent(Intent::Nothing);
        Ok(())
    }

    /// The slot of a name, which is entered for this if it is missing.
    pub(super) fn find_or_enter(
        &self,
        name: &Name,
        usage: Usage,
        retiring: &impl Retiring,
    ) -> Result<Found, LockError> {
        let hash = self.table.hash(name);
        if let Some(found) = self.table.find(name, hash)? {
            return Ok(found);
        }
        let header = self.table.header();
        if header.names.load(Relaxed) >= header.names_max.load(Relaxed) {
            self.sweep(SWEPT_AT_ONCE, retiring)?;
        }
        loop {
            match self.enter(name, usage, hash) {
                // No room: the place of an idle name will do.
                Err(error) if error.kind() != Damaged && self.forget_some(retiring)? => {}
                entered => return entered,
            }
        }
    }

    // ---- entering ------------------------------------------------------------------------------

    fn enter(&self, name: &Name, usage: Usage, hash: u64) -> Result<Found, LockError> {
        self.grow_index()?;
        let entering = self.reserve(name.len().div_ceil(4), hash)?;
        self.write_intent(Intent::Enter(entering));
        step!(EnterIntended);
        self.take_reserved(&entering)?;
        step!(EnterReserved);
        let generation = self.fill(&entering, name, usage)?;
        step!(EnterFilled);
        self.link(entering.number, hash)?;
        step!(EnterLinked);
        self.write_intent(Intent::Nothing);
        Ok(Found { number: entering.number, generation })
    }

    /// Finds a slot, and a place for a name of so many units, growing what is too small. Changes
    /// nothing else.
    fn reserve(&self, needed: usize, hash: u64) -> Result<ReservedPlace, LockError> {
        let header = self.table.header();
        for units in needed..=UNITS_MAX {
            if let Some(number) = header.free[units].load(Relaxed).checked_sub(1) {
                let unit = self.table.slot(number)?.name_offset.load(Relaxed);
                return Ok(ReservedPlace { number, hash, unit, units });
            }
        }
        let number = header.slots_used.load(Relaxed);
        // That number is the structural lock's among the wait records.
        if number == STRUCTURE {
            return Err(full());
        }
        self.table.grow_slots(number)?;
        let unit = self.reserve_units(needed)?;
        Ok(ReservedPlace { number, hash, unit, units: needed })
    }

    /// A place for that many units, behind all others.
    fn reserve_units(&self, count: usize) -> Result<u32, LockError> {
        let used = self.table.header().units_used.load(Relaxed);
        let (part, at) = place(&NAMES, used.into());
        let end = NAMES[part + 1];
        // None crosses the end of a part.
        let unit = if end - (NAMES[part] + at as u64) < count as u64 { end } else { used.into() };
        let last = u32::try_from(unit + count as u64).map_err(|_| full())? - 1;
        self.table.grow_names(last)?;
        Ok(unit as u32)
    }

    /// Takes slot and place away from where the next one would find them.
    fn take_reserved(&self, entering: &ReservedPlace) -> Result<(), LockError> {
        let header = self.table.header();
        let ReservedPlace { number, unit, units, .. } = *entering;
        if header.free[units].load(Relaxed) == number + 1 {
            let next = self.table.slot(number)?.next.load(Relaxed);
            header.free[units].store(next, Relaxed);
        } else {
            header.slots_used.fetch_max(number + 1, Relaxed);
            header.units_used.fetch_max(unit + units as u32, Relaxed);
        }
        Ok(())
    }

    fn fill(&self, entering: &ReservedPlace, name: &Name, usage: Usage) -> Result<u32, LockError> {
        let slot = self.table.slot(entering.number)?;
        self.table.write_name(entering.unit, name.as_bytes())?;
        let generation = slot.generation.load(Relaxed).wrapping_add(1);
        slot.generation.store(generation, Release);
        slot.name_offset.store(entering.unit, Relaxed);
        slot.hash.store(entering.hash, Relaxed);
        slot.token.store(self.table.header().floor.load(Relaxed), Relaxed);
        let limit = match usage {
            Usage::Lock => 0,
            Usage::Permits(limit) => limit,
        };
        slot.limit.store(limit, Relaxed);
        Marks::live(name.len(), entering.units, usage).store(slot);
        Ok(generation)
    }

    /// Makes a filled slot the head of its chain.
    fn link(&self, number: u32, hash: u64) -> Result<(), LockError> {
        let slot = self.table.slot(number)?;
        let head = self.table.head(hash & (self.table.chains()? - 1))?;
        slot.next.store(head.load(Relaxed), Relaxed);
        head.store(number + 1, Release);
        self.table.header().names.fetch_add(1, Relaxed);
        Ok(())
    }

    /// A process died while entering: a slot that has its name is entered, everything else is free. A
    /// look that was led to the slot before may have found the name there, under this generation,
    /// though no chain reaches it yet.
    fn finish_entering(&self, entering: ReservedPlace) -> Result<(), LockError> {
        let ReservedPlace { number, hash, unit, units } = entering;
        self.check_fits(unit, units)?;
        if self.link_before(hash, number)?.is_some() {
            return Ok(());
        }
        if Marks::of(self.table.slot(number)?).is_live() {
            return self.link(number, hash);
        }
        self.take_reserved(&entering)?;
        self.put_free(number, unit, units)
    }

    fn check_fits(&self, unit: u32, units: usize) -> Result<(), LockError> {
        let (part, at) = place(&NAMES, unit.into());
        if units > super::layout::size(&NAMES, part) - at {
            return Err(damaged("what was being entered does not fit"));
        }
        Ok(())
    }

    fn put_free(&self, number: u32, unit: u32, units: usize) -> Result<(), LockError> {
        let (slot, free) = (self.table.slot(number)?, &self.table.header().free[units]);
        Marks::free(units).store(slot);
        if free.load(Relaxed) == number + 1 {
            return Ok(());
        }
        slot.name_offset.store(unit, Relaxed);
        slot.next.store(free.load(Relaxed), Relaxed);
        free.store(number + 1, Relaxed);
        Ok(())
    }

    /// Keeps a text about a name, behind the name. The name must not be forgotten meanwhile.
    pub(super) fn keep_text(&self, number: u32, text: &str) -> Result<(), LockError> {
        let slot = self.table.slot(number)?;
        let Some(name) = self.table.name_of(slot)? else { return Ok(()) };
        let units = name.len().div_ceil(4);
        let text = cut(text, TEXT_MAX.min((UNITS_MAX - units - 1) * 4)).as_bytes();
        let (all, header) = (units + 1 + text.len().div_ceil(4), self.table.header());
        let unit = self.reserve_units(all)?;
        header.units_used.store(unit + all as u32, Relaxed);
        self.table.write_name(unit, name.as_bytes())?;
        self.table.write_name(unit + units as u32, &(text.len() as u32).to_le_bytes())?;
        self.table.write_name(unit + units as u32 + 1, text)?;
        // First the place, where the name stands too, then what more there is.
        slot.name_offset.store(unit, Release);
        step!(TextPlaced);
        Marks::note_text(slot, all);
        Ok(())
    }

    // ---- forgetting ----------------------------------------------------------------------------

    /// Looks at the next slots for names that are not used: their token has not moved since the
    /// last time. Answers how many were forgotten.
    fn sweep(&self, slots: u32, retiring: &impl Retiring) -> Result<u32, LockError> {
        let header = self.table.header();
        let used = header.slots_used.load(Relaxed);
        let (mut at, mut forgotten) = (header.sweep.load(Relaxed), 0);
        for _ in 0..slots.min(used) {
            at = if at < used { at } else { 0 };
            forgotten += u32::from(self.forget_if_idle(at, retiring)?);
            at += 1;
        }
        header.sweep.store(at, Relaxed);
        Ok(forgotten)
    }

    /// Sweeps twice over all names, until some are forgotten.
    fn forget_some(&self, retiring: &impl Retiring) -> Result<bool, LockError> {
        let used = self.table.header().slots_used.load(Relaxed);
        for _ in 0..(used / SWEPT_AT_ONCE + 1) * 2 {
            if self.sweep(SWEPT_AT_ONCE, retiring)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn forget_if_idle(&self, number: u32, retiring: &impl Retiring) -> Result<bool, LockError> {
        let slot = self.table.slot(number)?;
        if !Marks::of(slot).is_live() || slot.word.load(Relaxed) != 0 {
            return Ok(false);
        }
        let token = slot.token.load(Relaxed);
        if !Marks::note_swept(slot, token) {
            return Ok(false);
        }
        self.forget(number, retiring)
    }

    /// Forgets a name that is not held and of which the next holder is to be told nothing.
    pub(super) fn forget(&self, number: u32, retiring: &impl Retiring) -> Result<bool, LockError> {
        let slot = self.table.slot(number)?;
        // A process may count its readers there at any time. None is linked meanwhile.
        if slot.generation.head().is_some() || !retiring.retire(slot) {
            return Ok(false);
        }
        step!(ForgetWon);
        let (generation, token) = (slot.generation.load(Relaxed), slot.token.load(Relaxed));
        self.write_intent(Intent::Forget { number, generation, token });
        step!(ForgetIntended);
        self.finish_forgetting(number, generation, token)?;
        self.write_intent(Intent::Nothing);
        step!(ForgetDone);
        retiring.give_back(slot);
        Ok(true)
    }

    /// Every step can be made twice.
    fn finish_forgetting(&self, number: u32, generation: u32, token: u64) -> Result<(), LockError> {
        let (slot, header) = (self.table.slot(number)?, self.table.header());
        let marks = Marks::of(slot);
        if token > Token::MAX.get() {
            return Err(damaged("the token of a name being forgotten is none"));
        }
        header.floor.fetch_max(token, Relaxed);
        step!(ForgetFloor);
        // Before the generation: a reader of the new one no longer finds the name here.
        Marks::free(marks.units()).store(slot);
        step!(ForgetUnnamed);
        slot.generation.store(generation.wrapping_add(1), Release);
        step!(ForgetGeneration);
        self.unlink(number, slot.hash.load(Relaxed))?;
        step!(ForgetUnlinked);
        self.put_free(number, slot.name_offset.load(Relaxed), marks.units())
    }

    // ---- chains --------------------------------------------------------------------------------

    /// Takes a slot out of the chain of this hash.
    fn unlink(&self, number: u32, hash: u64) -> Result<(), LockError> {
        self.part_chain(hash)?;
        if let Some(before) = self.link_before(hash, number)? {
            let (slot, header) = (self.table.slot(number)?, self.table.header());
            before.store(slot.next.load(Relaxed), Release);
            let names = header.names.load(Relaxed);
            header.names.store(names.saturating_sub(1), Relaxed);
        }
        Ok(())
    }

    /// The link that leads to this slot in the chain of this hash.
    fn link_before(&self, hash: u64, number: u32) -> Result<Option<&AtomicU32>, LockError> {
        self.link_to(self.table.head(hash & (self.table.chains()? - 1))?, number)
    }

    /// The link that leads to this slot in the list that begins here.
    fn link_to<'t>(
        &'t self,
        first: &'t AtomicU32,
        number: u32,
    ) -> Result<Option<&'t AtomicU32>, LockError> {
        let mut link = first;
        for _ in 0..=self.table.header().slots_used.load(Relaxed) {
            match link.load(Relaxed).checked_sub(1) {
                None => return Ok(None),
                Some(next) if next == number => return Ok(Some(link)),
                Some(next) => link = &self.table.slot(next)?.next,
            }
        }
        Err(circle())
    }

    /// Doubles the number of chains when they are long, and parts a few that were doubled.
    fn grow_index(&self) -> Result<(), LockError> {
        let header = self.table.header();
        let chains = self.table.chains()?;
        if u64::from(header.names.load(Relaxed)) >= chains * NAMES_PER_CHAIN {
            // Long since done, unless the entering processes died again and again.
            self.part_some(u32::MAX)?;
            self.double(chains)?;
        }
        self.part_some(PARTED_AT_ONCE)
    }

    fn double(&self, chains: u64) -> Result<(), LockError> {
        let part = place(&HEADS, chains).0;
        if part >= HEAD_PARTS {
            // Longer chains it is.
            return Ok(());
        }
        self.table.grow_heads(part)?;
        for chain in 0..chains {
            let head = self.table.head(chain)?.load(Relaxed);
            self.table.head(chains + chain)?.store(head, Relaxed);
        }
        step!(DoubleFilled);
        let header = self.table.header();
        header.parted.store(0, Relaxed);
        header.doublings.store((chains * 2 / FIRST_HEADS).ilog2(), Release);
        step!(DoubleDone);
        Ok(())
    }

    /// Parts the next pairs of chains, at most so many.
    fn part_some(&self, pairs: u32) -> Result<(), LockError> {
        let (header, half) = (self.table.header(), self.lower_half()?);
        let from = header.parted.load(Relaxed);
        for pair in (u64::from(from)..half).take(pairs as usize) {
            self.part_pair(pair, half)?;
            header.parted.store(pair as u32 + 1, Relaxed);
        }
        Ok(())
    }

    /// Parts the chain of this hash from the one that it was doubled with.
    fn part_chain(&self, hash: u64) -> Result<(), LockError> {
        match self.lower_half()? {
            0 => Ok(()),
            half => self.part_pair(hash & (half - 1), half),
        }
    }

    /// How many chains there were before the last doubling; 0 if there was none.
    fn lower_half(&self) -> Result<u64, LockError> {
        let chains = self.table.chains()?;
        Ok(if chains == FIRST_HEADS { 0 } else { chains / 2 })
    }

    /// Parts chains `pair` and `pair + half`. Every store leaves both complete, so that it can be
    /// given up and begun again at any time.
    fn part_pair(&self, pair: u64, half: u64) -> Result<(), LockError> {
        let most = self.table.header().slots_used.load(Relaxed);
        let heads = [self.table.head(pair)?, self.table.head(pair + half)?];
        for _ in 0..=most {
            // Of each chain, the link that leads to the first name of the other.
            let [lower, upper] = [0, 1].map(|side| self.first_foreign(heads[side], side, half));
            let (lower, upper) = (lower?, upper?);
            let side = match (lower, upper) {
                (None, None) => return Ok(()),
                (Some(_), None) => 0,
                (None, Some(_)) => 1,
                // One of them may be on the way of the other chain, which needs it as it is.
                (Some(lower), Some(_)) if self.is_on_the_way(heads[1], lower)? => 1,
                _ => 0,
            };
            let link = [lower, upper][side].expect("the side was picked for having one");
            let next = self.next_own(link.load(Relaxed), side, half)?;
            link.store(next, Release);
            step!(PartedOne);
        }
        Err(circle())
    }

    /// The first link of a chain that leads to a slot of the other side.
    fn first_foreign<'t>(
        &'t self,
        head: &'t AtomicU32,
        side: usize,
        half: u64,
    ) -> Result<Option<&'t AtomicU32>, LockError> {
        let mut link = head;
        for _ in 0..=self.table.header().slots_used.load(Relaxed) {
            let Some(number) = link.load(Relaxed).checked_sub(1) else { return Ok(None) };
            let slot = self.table.slot(number)?;
            if side_of(slot, half) != side {
                return Ok(Some(link));
            }
            link = &slot.next;
        }
        Err(circle())
    }

    /// The first slot from `next` on that is of this side, plus one; 0 if there is none.
    fn next_own(&self, mut next: u32, side: usize, half: u64) -> Result<u32, LockError> {
        for _ in 0..=self.table.header().slots_used.load(Relaxed) {
            let Some(number) = next.checked_sub(1) else { return Ok(0) };
            let slot = self.table.slot(number)?;
            if side_of(slot, half) == side {
                return Ok(next);
            }
            next = slot.next.load(Relaxed);
        }
        Err(circle())
    }

    /// Whether a chain runs through this link.
    fn is_on_the_way(&self, head: &AtomicU32, wanted: &AtomicU32) -> Result<bool, LockError> {
        let mut link = head;
        for _ in 0..=self.table.header().slots_used.load(Relaxed) {
            if std::ptr::eq(link, wanted) {
                return Ok(true);
            }
            let Some(number) = link.load(Relaxed).checked_sub(1) else { return Ok(false) };
            link = &self.table.slot(number)?.next;
        }
        Err(circle())
    }

    // ---- intents -------------------------------------------------------------------------------

    fn write_intent(&self, intent: Intent) {
        let words = &self.table.header().intent;
        let [kind, rest @ ..] = intent.to_words();
        if intent != Intent::Nothing {
            rest.iter().zip(&words[1..]).for_each(|(value, word)| word.store(*value, Relaxed));
        }
        words[0].store(kind, Release);
    }

    fn read_intent(&self) -> Result<Intent, LockError> {
        let words = self.table.header().intent.each_ref().map(|word| word.load(Acquire));
        Intent::of_words(words)
            .ok_or_else(|| damaged("a process that died while changing it left an unknown intent"))
    }
}

/// To which chain of a pair a slot belongs.
fn side_of(slot: &MappedSlot, half: u64) -> usize {
    usize::from(slot.hash.load(Relaxed) & half != 0)
}

fn circle() -> LockError {
    damaged("a chain of its names leads in a circle")
}

fn full() -> LockError {
    LockError::new(
        LockErrorKind::Refused,
        "it has as many names as a table can have, and none is idle; use another directory too",
    )
}
