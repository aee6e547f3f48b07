//! The holder of a name, for a caller that is to end that process. See `process::ending`.

use std::sync::atomic::Ordering::*;

use crate::{
    error::{Holder, LockError},
    name::Name,
    token::Token,
};

use super::super::dir::{
    ending::{HolderProcess, HolderState},
    home::Home,
};
use super::{
    lock,
    map::Loads,
    presence::Presences,
    store::{self, MappedTable},
    word::{OwnerId, SlotState, Word},
};

/// How often what others may just be changing is looked at.
const LOOKS: usize = 100;

/// The hold of this name, if a living process has it.
pub(in super::super) fn holding(home: &Home, name: &Name) -> Result<HolderState, LockError> {
    // No name was locked yet.
    let Some(table) = MappedTable::open_to_look(home)? else { return Ok(HolderState::default()) };
    let presences = Presences::open(home)?;
    let found = find(&table, &presences, name);
    found.map_err(|error| store::about(home, error))
}

/// Without a lock: what is seen only belongs together if it is seen again.
fn find(table: &MappedTable, presences: &Presences, name: &Name) -> Result<HolderState, LockError> {
    for _ in 0..LOOKS {
        // A miss may be one of a name that is on its way into another chain.
        let Some(found) = table.find(name, table.hash(name))? else { continue };
        let slot = table.slot(found.number)?;
        let seen = || (slot.word.seen_in_order(), slot.token.seen_in_order());
        let (word, token) = seen();
        let word_now = Word::from_bits(word);
        let widened_by = word_now.is_wide().then(|| table.widened_by(slot));
        let may_live = |owner: &OwnerId| presences.verdict(*owner, &mut None).0.may_live();
        let Some(owner) = word_now.owner().filter(may_live) else {
            if slot.generation.load(Relaxed) != found.generation {
                continue;
            }
            let stay = match word_now.state() {
                Some(SlotState::Staying(end)) => Some(end),
                Some(SlotState::Held(_)) => lock::stay_ahead(slot),
                _ => None,
            };
            let stays = stay.and_then(lock::time_ahead).and(Token::new(token));
            return Ok(HolderState { hold: None, widened_by, stays });
        };
        let Some((text, birth, proof)) = presences.described(owner) else { continue };
        let is_whole = Word::from_bits(slot.word.seen_in_order()).owner() == Some(owner)
            && slot.token.seen_in_order() == token
            && slot.generation.load(Relaxed) == found.generation;
        if is_whole {
            let holder = Holder { token: Token::new(token), ..text };
            let hold = Some(HolderProcess { holder, birth, proof });
            return Ok(HolderState { hold, widened_by, stays: None });
        }
    }
    Ok(HolderState::default())
}
