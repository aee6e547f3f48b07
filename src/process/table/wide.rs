//! Names of host scope, from an old table to the one in its place.
//!
//! A name that was ever locked at host scope stays one: a process without a leader that locked it
//! in this directory alone would be inside together with a holder on another machine, which a
//! reboot of this one does not end. So a table that starts anew has the old one's wide names.
//!
//! The table is not synced, since that would cost each new name of host scope some 20 ms: what it
//! may have lost with the power stands in `DIR/wide` too, see `process::wide`.

use std::{io, sync::atomic::Ordering::*};

use crate::{error::LockError, mode::Usage, name::Name};

use super::{
    index::{Changing, Retiring},
    map::Loads,
    slot::MappedSlot,
    store::MappedTable,
    word::Word,
};

/// A wide name, and what widened it.
pub(super) type Wide = (Name, String);

/// The wide names of a table that no process uses any more. What cannot be read is left out: there
/// are as many as the file has room for.
pub(super) fn of(old: &MappedTable) -> Vec<Wide> {
    let used = old.header().slots_used.seen();
    let slots = (0..used).map_while(|number| old.slot(number).ok());
    slots.filter_map(|slot| wide_name(old, slot)).collect()
}

fn wide_name(old: &MappedTable, slot: &MappedSlot) -> Option<Wide> {
    let word = Word::from_bits(slot.word.load(Relaxed));
    // A word that no lock wrote says nothing.
    word.state().filter(|_| word.is_wide())?;
    let name = old.name_of(slot).ok()??;
    Some((name, old.widened_by(slot)))
}

/// Has them in a new table, which no other process knows yet.
pub(super) fn enter(new: &MappedTable, wide: &[Wide]) -> io::Result<()> {
    wide.iter().try_for_each(|wide| enter_one(new, wide)).map_err(io::Error::other)
}

fn enter_one(new: &MappedTable, (name, by): &Wide) -> Result<(), LockError> {
    let changing = Changing { table: new };
    let found = changing.find_or_enter(name, Usage::Lock, &RetiresNone)?;
    new.slot(found.number)?.word.store(Word::FREE.widened().bits(), Relaxed);
    changing.keep_text(found.number, by)
}

/// Forgets nothing.
struct RetiresNone;

impl Retiring for RetiresNone {
    fn retire(&self, _: &MappedSlot) -> bool {
        false
    }

    fn give_back(&self, _: &MappedSlot) {}

    fn finish(&self, _: &MappedSlot) {}
}
