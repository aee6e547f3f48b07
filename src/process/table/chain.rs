//! The chain of a name's share records. Its head stands beside the slot's generation.
//!
//! A record is linked under the structural lock and under no gate, and stays in its chain; a name
//! with a chain is not forgotten. A record is free once its process has left or died, and the next
//! process that reads the name takes it.

use std::sync::atomic::{AtomicU32, Ordering::*};

use crate::{error::LockError, process::sys::futex};

use super::super::dir::home::damaged;
use super::{
    index::{Changing, Found},
    layout::ShareRecord,
    map::Loads,
    protocol::{Answer, ShareAnswer, ShareOp},
    share::{Generation, ShareWord, number_of},
    slot::MappedSlot,
    step::step,
    store::MappedTable,
    word::OwnerId,
};

impl MappedTable {
    /// The record behind this one in its chain.
    pub(super) fn next_share(&self, number: u32) -> Result<Option<u32>, LockError> {
        // Linked in front of those that stood before, so that a chain runs to ever lower numbers.
        match number_of(self.share(number)?.next.load(SeqCst)) {
            Some(next) if next >= number => Err(damaged("a chain of share records is a circle")),
            next => Ok(next),
        }
    }

    /// Whether no process shares the name of this slot, as far as one look shows. For its holder.
    #[cold]
    pub(super) fn is_unshared(&self, slot: &MappedSlot) -> bool {
        let mut next = slot.generation.head();
        while let Some(number) = next {
            let Ok(record) = self.share(number) else { return false };
            if ShareWord::from_bits(record.word.load(SeqCst)).count() > 0 {
                return false;
            }
            let Ok(following) = self.next_share(number) else { return false };
            next = following;
        }
        true
    }

    /// What the records of a slot's chain say, to people. Makes only such loads as a mapping that is
    /// not writable allows.
    pub(super) fn shares_of(&self, slot: &MappedSlot) -> Result<Vec<ShareWord>, LockError> {
        let mut words = Vec::new();
        let mut next = Generation::head_in(slot.generation.word().seen());
        while let Some(number) = next {
            let record = self.share(number)?;
            words.push(ShareWord::from_bits(record.word.seen()));
            next = number_of(record.next.seen()).filter(|next| *next < number);
        }
        Ok(words)
    }

    /// Strikes the records of these processes, which are dead. `dead` is sorted.
    pub(super) fn strike_dead(&self, dead: &[OwnerId]) {
        for number in 1..=self.header().shares_used.load(SeqCst) {
            let Ok(record) = self.share(number) else { return };
            let found = ShareWord::from_bits(record.word.load(SeqCst));
            if found.owner().is_some_and(|owner| dead.binary_search(&owner).is_ok()) {
                // If it fails, another process has struck it, and perhaps taken it.
                swap_share(record, found, ShareWord::FREE);
            }
        }
    }
}

/// What the record's word was; `from` if it is `to` now.
#[inline]
pub(super) fn swap_share(record: &ShareRecord, from: ShareWord, to: ShareWord) -> ShareWord {
    let swapped = record.word.compare_exchange(from.bits(), to.bits(), SeqCst, SeqCst);
    ShareWord::from_bits(swapped.unwrap_or_else(|found| found))
}

impl Changing<'_> {
    /// Has the name that was found in this slot be a semaphore of so many permits, unless a living
    /// process uses it as one of another number. Whether it is.
    pub(super) fn set_limit(
        &self,
        slot: &MappedSlot,
        found: Found,
        limit: u32,
        may_live: &dyn Fn(OwnerId) -> bool,
    ) -> Result<bool, LockError> {
        if slot.generation.load(SeqCst) != found.generation {
            return Ok(true); // it is another name's by now, which its next user finds out
        }
        let mut next = slot.generation.head();
        while let Some(number) = next {
            let record = ShareWord::from_bits(self.table.share(number)?.word.load(SeqCst));
            if record.owner().is_some_and(may_live) {
                return Ok(slot.limit.load(Relaxed) == limit);
            }
            next = self.table.next_share(number)?;
        }
        slot.limit.store(limit, Release);
        Ok(true)
    }

    /// The number of a record for `me` in the chain of this slot, which has the name: a free one of
    /// the chain, or a new one. Killed at any step it leaves at most a record that no chain has.
    pub(super) fn make_share(&self, slot: &MappedSlot, me: OwnerId) -> Result<u32, LockError> {
        let table = self.table;
        let mut next = slot.generation.head();
        while let Some(number) = next {
            let free = ShareWord::FREE;
            if swap_share(table.share(number)?, free, ShareWord::of(me)) == free {
                return Ok(number);
            }
            next = table.next_share(number)?;
        }
        let used = &table.header().shares_used;
        let number = used.load(SeqCst).checked_add(1).ok_or_else(|| damaged("it has too many"))?;
        table.grow_shares(number)?;
        step!(ShareReserved);
        used.store(number, SeqCst);
        let record = table.share(number)?;
        record.word.store(ShareWord::of(me).bits(), SeqCst);
        record.next.store(slot.generation.head().unwrap_or(0), SeqCst);
        step!(ShareFilled);
        slot.generation.link(number);
        step!(ShareLinked);
        Ok(number)
    }
}

/// The bell of a slot, on which a writer sleeps until readers are gone.
pub(super) fn ring(bell: &AtomicU32) {
    bell.fetch_add(1, SeqCst);
}

/// Does what a machine asks for about share records; if that is to sleep, the bell to sleep on.
pub(super) fn perform(table: &MappedTable, slot: &MappedSlot, op: ShareOp) -> Result<Answer, u32> {
    let found = match op {
        ShareOp::Load(number) => {
            let record = table.share(number);
            record.map(|record| ShareAnswer::Word(ShareWord::from_bits(record.word.load(SeqCst))))
        }
        ShareOp::Swap { number, from, to } => {
            table.share(number).map(|record| ShareAnswer::Word(swap_share(record, from, to)))
        }
        ShareOp::Next(None) => Ok(ShareAnswer::Next(slot.generation.head())),
        ShareOp::Next(Some(after)) => table.next_share(after).map(ShareAnswer::Next),
        ShareOp::LoadBell => Ok(ShareAnswer::Bell(slot.bell.load(SeqCst))),
        ShareOp::Ring => {
            ring(&slot.bell);
            return Ok(Answer::Done);
        }
        ShareOp::WakeBell => {
            futex::wake_all_on(&slot.bell);
            return Ok(Answer::Done);
        }
        ShareOp::SleepOnBell(bell) => return Err(bell),
    };
    Ok(Answer::Share(found.unwrap_or(ShareAnswer::Broken)))
}
