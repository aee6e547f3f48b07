//! What the table says about its names, to people: without a lock, and without disturbing anyone.

use std::{sync::atomic::Ordering::*, time::Duration};

use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind, Predecessor},
    token::Token,
};

use super::{
    super::{
        NameStatus, WaiterStatus,
        home::{Home, damaged},
    },
    map::{Access, Seen},
    marks::Marks,
    presence::Presences,
    protocol::Verdict,
    slot::Slot,
    store::{self, Table},
    word::{Heir, OwnerId, State, Word},
};

/// Every name: its status, or what is wrong with its slot.
pub(super) fn inspect(home: &Home) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
    home.check()?;
    // Who may only read may look all the same.
    let opened = match Table::open(home, Access::Full) {
        Err(error) if error.kind() == LockErrorKind::Refused => Table::open(home, Access::Look),
        opened => opened,
    };
    let Some(table) = opened? else {
        return Err(home.about(damaged("its table was removed")));
    };
    let survey = Survey { presences: Presences::open(home)?, table };
    let used = survey.table.header().slots_used.seen();
    let mut found = Vec::new();
    for number in 0..used {
        let status = match survey.table.slot(number) {
            Ok(slot) => survey.status(slot),
            Err(error) => return Err(store::about(home, error)),
        };
        let about = |error| store::about(home, error);
        found.extend(status.map_err(about).transpose());
    }
    Ok(found)
}

pub(super) struct Survey {
    pub(super) table: Table,
    pub(super) presences: Presences,
}

impl Survey {
    /// `None`: no name is in the slot.
    pub(super) fn status(&self, slot: &Slot) -> Result<Option<NameStatus>, LockError> {
        let generation = slot.generation.seen();
        let name = self.table.name_of(slot);
        let (word, token) = (Word::from_bits(slot.word.seen()), slot.token.load(Relaxed));
        let (marks, heir) = (Marks::of(slot), Heir::from_bits(slot.heir.load(Relaxed)));
        let widened_by = word.is_wide().then(|| self.table.widened_by(slot));
        if slot.generation.seen() != generation {
            // Forgotten meanwhile.
            return Ok(None);
        }
        let Some(name) = name? else { return Ok(None) };
        let about = |error: LockError| error.with_name(&name);
        let token_of_slot = Token::new(token)
            .ok_or_else(|| about(damaged(format!("{token} is no token: it is 2^63 or more"))))?;
        let state = word.state().ok_or_else(|| {
            about(damaged(format!("its word is {:#x}, which no lock wrote", word.bits())))
        })?;
        let (holder, predecessor) = match state {
            State::Free | State::Reserved => (None, word.left()),
            State::Held(owner) => match self.living(owner) {
                Some(holder) => {
                    if self.table.may_write() {
                        note_seen(slot, token, clock::now().as_nanos());
                    }
                    (Some(held(holder, slot, token)), marks.before(token))
                }
                None => (None, marks.told(Predecessor::Died, token)),
            },
            State::Retiring(_) => (None, Predecessor::Clean),
        };
        Ok(Some(NameStatus {
            name,
            token: token_of_slot,
            holder,
            predecessor,
            widened_by,
            waiters: self.waiters(word, heir),
        }))
    }

    /// Whoever stands first in line says so; of the others one bit says that there may be some.
    fn waiters(&self, word: Word, heir: Heir) -> Vec<WaiterStatus> {
        let first = heir.id().and_then(|id| self.living(id));
        let first = first.map(|who| WaiterStatus { who, waiting: heir.waiting(clock::now()) });
        match first {
            Some(first) if word.has_waiters() => vec![first],
            _ => Vec::new(),
        }
    }

    fn living(&self, owner: OwnerId) -> Option<Holder> {
        match self.presences.verdict(owner, &mut None).0 {
            Verdict::Dead | Verdict::Missing => None,
            Verdict::Alive | Verdict::Unknown => {
                Some(self.presences.holder(owner).unwrap_or_default())
            }
        }
    }
}

/// A holder, with what the slot says about its lock.
pub(super) fn held(holder: Holder, slot: &Slot, token: u64) -> Holder {
    Holder { held: Some(seen_for(slot, token)), token: Token::new(token), ..holder }
}

/// Notes that somebody holds this token, unless that is known already. A hint: a clock is too
/// slow for whoever takes a lock, so the time is that of the first one who looked.
pub(super) fn note_seen(slot: &Slot, token: u64, nanos: u64) {
    let [_, seen, since] = &slot.spare;
    if seen.load(Relaxed) != token as u32 {
        since.store(milliseconds(nanos), Relaxed);
        seen.store(token as u32, Relaxed);
    }
}

/// For how long somebody is known to hold this token.
fn seen_for(slot: &Slot, token: u64) -> Duration {
    let [_, seen, since] = &slot.spare;
    if seen.load(Relaxed) != token as u32 {
        return Duration::ZERO;
    }
    let now = milliseconds(clock::now().as_nanos());
    // Another clock's time may lie ahead of ours (time namespaces).
    let past = now.wrapping_sub(since.load(Relaxed)) as i32;
    Duration::from_millis(past.max(0) as u64)
}

fn milliseconds(nanos: u64) -> u32 {
    (nanos / 1_000_000) as u32
}
