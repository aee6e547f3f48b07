//! Wait records: which process waits for which slot, and since when.
//!
//! They order waiters and show them. Exclusion does not rest on them: a record that is wrong costs
//! a wait its place, or all waiters a few milliseconds.
//!
//! A record is taken by an exchange of its word, marked as passed over so that it is not believed;
//! then it is filled in, and published by clearing the mark. Its slot number stands apart, among
//! others of their kind, so that a scan reads one cache line for sixteen records and touches only
//! those of its own slot. A scan reads slot number, word, slot number again, and only then the
//! time: so it never takes the word of one wait beside the slot of another. All these accesses are
//! SeqCst; see `word`.

use std::{
    sync::atomic::{AtomicU32, Ordering::*},
    time::Duration,
};

use crate::{process::SlotWish, time::Time};

use super::{
    layout::{RECORDS, RECORDS_MAX, WaitRecord, place},
    map::Loads,
    protocol::ReadRecord,
    step::step,
    store::MappedTable,
    word::{OwnerId, RecordWord, WaitId},
};

/// The number by which records name the structural lock. No slot has it: see `index`.
pub(super) const STRUCTURE: u32 = u32::MAX;

/// A wait, as people are shown it.
pub(super) struct ShownWait {
    pub(super) slot: u32,
    pub(super) owner: OwnerId,
    pub(super) since: Time,
    pub(super) shares: bool,
    pub(super) permits: u32,
}

/// When a wait began, and how often it was passed over and stood again.
///
/// `[63:16] since boot, in units of 1024 ns · [15:12] passes · [11] waits to share · [10:0] how many
/// permits it wants`, at most [`PERMITS_SHOWN_MAX`]
#[derive(Clone, Copy)]
pub(super) struct Began(u64);

const BEGAN_SHIFT: u32 = 16;
const UNIT_SHIFT: u32 = 10;
const PASSES_SHIFT: u32 = 12;
const PASSES_MAX: u64 = 0xf;
const SHARES: u64 = 1 << 11;
const PERMITS: u64 = SHARES - 1;

/// A wait that wants as many permits or more shows so many.
pub(super) const PERMITS_SHOWN_MAX: u32 = PERMITS as u32;

impl Began {
    fn at(since: Time, wish: SlotWish) -> Began {
        let shares = if wish.shares { SHARES } else { 0 };
        let permits = u64::from(wish.permits.min(PERMITS_SHOWN_MAX));
        Began(since.as_nanos() >> UNIT_SHIFT << BEGAN_SHIFT | shares | permits)
    }

    /// It waits for so many permits; 0: it waits for a lock.
    fn permits(self) -> u32 {
        (self.0 & PERMITS) as u32
    }

    /// It waits to be a reader, upgradable or not.
    fn shares(self) -> bool {
        self.0 & SHARES != 0
    }

    fn time(self) -> Time {
        Time::from_nanos(self.0 >> BEGAN_SHIFT << UNIT_SHIFT)
    }

    /// How often the wait was passed over and stood again.
    fn passes(self) -> u32 {
        (self.0 >> PASSES_SHIFT & PASSES_MAX) as u32
    }

    fn passed(self) -> Began {
        let more = self.passes() < PASSES_MAX as u32;
        Began(self.0 + (u64::from(more) << PASSES_SHIFT))
    }
}

impl MappedTable {
    /// The record of this number, and where its slot number stands. `None` if there is no such
    /// record, or if the table is damaged there: no wait is believed then.
    fn record(&self, number: u16) -> Option<(&AtomicU32, &WaitRecord)> {
        let (part, at) = place(&RECORDS, number.into());
        let part = self.record_part(part).ok()?;
        Some((&part.slots[at], &part.records[at]))
    }

    /// The highest number ever taken.
    fn records_used(&self) -> u16 {
        self.header().records_used.load(SeqCst).min(RECORDS_MAX.into()) as u16
    }

    /// Takes a free record, a low one first, not to be believed yet. `None`: all that there is room
    /// for are taken.
    pub(super) fn enlist(&self, me: OwnerId) -> Option<WaitId> {
        let used = self.records_used();
        let number = (1..=used).chain(used.checked_add(1));
        number.map_while(|number| self.record(number).map(|(_, record)| (number, record))).find_map(
            |(number, record)| {
                let free = RecordWord::from_bits(record.word.load(SeqCst));
                free.is_free().then(|| self.take_record(number, record, free, me)).flatten()
            },
        )
    }

    /// The same with records of processes that are dead.
    pub(super) fn enlist_after_dead(
        &self,
        me: OwnerId,
        is_dead: &mut dyn FnMut(OwnerId) -> bool,
    ) -> Option<WaitId> {
        (1..=self.records_used()).find_map(|number| {
            let (_, record) = self.record(number)?;
            let found = RecordWord::from_bits(record.word.load(SeqCst));
            let owner = found.owner().filter(|owner| *owner != me)?;
            is_dead(owner).then(|| self.take_record(number, record, found, me)).flatten()
        })
    }

    fn take_record(
        &self,
        number: u16,
        record: &WaitRecord,
        found: RecordWord,
        me: OwnerId,
    ) -> Option<WaitId> {
        // Before it is taken: a scan ends there.
        self.header().records_used.fetch_max(number.into(), SeqCst);
        let taken = found.taken(me);
        step!(EnlistRaised);
        let swapped = record.word.compare_exchange(found.bits(), taken.bits(), SeqCst, SeqCst);
        step!(EnlistTaken);
        swapped.ok().and_then(|_| taken.wait(number))
    }

    /// Writes down what is waited for, before the record is published.
    pub(super) fn fill_in(&self, wait: WaitId, slot: u32, since: Time, wish: SlotWish) {
        let Some((place, record)) = self.record(wait.number()) else { return };
        place.store(slot, SeqCst);
        record.began.store(Began::at(since, wish).0, SeqCst);
    }

    /// The waiter was passed over: it has twice the time from now on.
    pub(super) fn note_passed(&self, number: u16) {
        if let Some((_, record)) = self.record(number) {
            // Of the waiter's alone.
            let began = Began(record.began.load(Relaxed));
            record.began.store(began.passed().0, SeqCst);
        }
    }

    /// Frees the record, if it still is this wait's.
    pub(super) fn erase(&self, wait: WaitId) {
        let mut found = self.record_word(wait.number());
        while found.is_of(wait) {
            match self.swap_record(wait.number(), found, found.erased()) {
                done if done == found => return,
                // It was just passed over, or not any more.
                other => found = other,
            }
        }
    }

    /// Frees the records of these processes, which are dead.
    pub(super) fn erase_dead(&self, dead: &[OwnerId]) {
        for number in 1..=self.records_used() {
            let found = self.record_word(number);
            if found.owner().is_some_and(|owner| dead.contains(&owner)) {
                // If it fails, a waiter has taken it.
                self.swap_record(number, found, found.erased());
            }
        }
    }

    /// What the record's word was; `from` if it is `to` now.
    pub(super) fn swap_record(&self, number: u16, from: RecordWord, to: RecordWord) -> RecordWord {
        let Some((_, record)) = self.record(number) else { return RecordWord::from_bits(0) };
        let swapped = record.word.compare_exchange(from.bits(), to.bits(), SeqCst, SeqCst);
        RecordWord::from_bits(swapped.unwrap_or_else(|found| found))
    }

    pub(super) fn record_word(&self, number: u16) -> RecordWord {
        let word = self.record(number).map_or(0, |(_, record)| record.word.load(SeqCst));
        RecordWord::from_bits(word)
    }

    /// What the record says to a scan of this slot.
    pub(super) fn read_record(&self, number: u16, slot: u32) -> ReadRecord {
        let used = self.records_used();
        let Some((place, record)) = self.record(number).filter(|_| number <= used) else {
            return ReadRecord::Beyond;
        };
        if place.load(SeqCst) != slot {
            return ReadRecord::Nothing;
        }
        let word = RecordWord::from_bits(record.word.load(SeqCst));
        let wait = word.wait(number).filter(|_| !word.is_passed());
        match wait {
            Some(wait) if place.load(SeqCst) == slot => {
                let began = record.began.load(SeqCst);
                ReadRecord::Stands { since: began >> BEGAN_SHIFT, wait }
            }
            _ => ReadRecord::Nothing,
        }
    }

    /// Whether a wait stands for this slot that is a writer's.
    pub(super) fn has_writer_waiting(&self, slot: u32) -> bool {
        (1..=self.records_used()).any(|number| {
            let Some((place, record)) = self.record(number) else { return false };
            let stands = place.load(SeqCst) == slot
                && !RecordWord::from_bits(record.word.load(SeqCst)).is_free();
            stands && !Began(record.began.load(SeqCst)).shares() && place.load(SeqCst) == slot
        })
    }

    /// How long the wait in this record has lasted, and how often it was passed over.
    pub(super) fn wait_so_far(&self, number: u16, now: Time) -> (Duration, u32) {
        self.record(number).map_or((Duration::ZERO, 0), |(_, record)| {
            let began = Began(record.began.load(Relaxed));
            (now.since(began.time()), began.passes())
        })
    }

    /// The owners of the waits for this slot that began before this time. A hint, like all that records
    /// say.
    pub(super) fn waits_before(
        &self,
        slot: u32,
        since: Time,
    ) -> impl Iterator<Item = OwnerId> + use<'_> {
        self.waits_for(slot).filter(move |(_, began)| *began < since).map(|(owner, _)| owner)
    }

    /// Since when this owner waits for this slot.
    pub(super) fn wait_of(&self, slot: u32, me: OwnerId) -> Option<Time> {
        self.waits_for(slot).find(|(owner, _)| *owner == me).map(|(_, began)| began)
    }

    fn waits_for(&self, slot: u32) -> impl Iterator<Item = (OwnerId, Time)> + use<'_> {
        (1..=self.records_used()).filter_map(move |number| {
            let (place, record) = self.record(number)?;
            // First: so the records of other slots, each a line of its own, are not touched.
            if place.load(SeqCst) != slot {
                return None;
            }
            let owner = RecordWord::from_bits(record.word.load(SeqCst)).owner()?;
            let began = Began(record.began.load(SeqCst)).time();
            (place.load(SeqCst) == slot).then_some((owner, began))
        })
    }

    /// Every wait, in order. Makes only such loads as a mapping that is not writable allows.
    pub(super) fn shown_waits(&self) -> Vec<ShownWait> {
        let used = self.header().records_used.seen().min(RECORDS_MAX.into()) as u16;
        let shown = |number| {
            let (place, record) = self.record(number)?;
            let before = record.word.seen();
            let (slot, began) = (place.seen(), Began(record.began.seen()));
            let owner = RecordWord::from_bits(before).owner()?;
            // Of two waits that follow on each other none is shown as the other.
            let same = RecordWord::from_bits(before).standing()
                == RecordWord::from_bits(record.word.seen()).standing();
            let (shares, permits) = (began.shares(), began.permits());
            same.then_some(ShownWait { slot, owner, since: began.time(), shares, permits })
        };
        let mut waits: Vec<ShownWait> = (1..=used).filter_map(shown).collect();
        waits.sort_by_key(|wait| wait.since);
        waits
    }
}
