//! What stands beside the length of a slot's name.
//!
//! ```text
//! [7:0] name length in bytes   [14:8] units of the name's place   [15] LIVE   [16] TEXT
//! [17] SWEPT   [18] PERMITS   [19] 0   [22:20] before: what the holder of a token was told
//! [31:23] that token's low bits
//! ```
//! LIVE: the slot has a name. PERMITS: it is a semaphore's, whose limit the slot has; fixed when the
//! name is entered. TEXT: behind the name stands what widened it. SWEPT: `since` has the low half of
//! the token as the last sweep saw it. `before` and `since` are hints for people, and mean nothing
//! once the token has moved. Values of `before` above the predecessors say how that holder itself
//! left, while processes that inherited its proof of life keep the lock.

use std::{sync::atomic::Ordering::*, time::Duration};

use crate::{error::Predecessor, mode::Usage, time::Time};

use super::{map::Loads, slot::MappedSlot};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks(u32);

const UNITS_SHIFT: u32 = 8;
const LIVE: u32 = 1 << 15;
const TEXT: u32 = 1 << 16;
const SWEPT: u32 = 1 << 17;
const PERMITS: u32 = 1 << 18;
const BEFORE_SHIFT: u32 = 20;
const BEFORE: u32 = 0b111 << BEFORE_SHIFT;
const TOKEN_SHIFT: u32 = 23;
/// From here on `before` says how the holder itself left: so many above are one of these.
const LEFT_SO: u8 = 5;
const LEFT_TO_HEIRS: [Predecessor; 3] =
    [Predecessor::Clean, Predecessor::Panicked, Predecessor::Expired];

impl Marks {
    pub(super) fn of(slot: &MappedSlot) -> Marks {
        Marks(slot.name_length.seen())
    }

    /// Of a slot that gets a name.
    pub(super) fn live(name_length: usize, units: usize, usage: Usage) -> Marks {
        let permits = if usage == Usage::Lock { 0 } else { PERMITS };
        Marks(LIVE | permits | name_length as u32 | (units as u32) << UNITS_SHIFT)
    }

    /// Of a slot without a name, where one with so many units may come.
    pub(super) fn free(units: usize) -> Marks {
        Marks((units as u32) << UNITS_SHIFT)
    }

    /// For the one process that may change the slot.
    pub(super) fn store(self, slot: &MappedSlot) {
        slot.name_length.store(self.0, Release);
    }

    pub(super) fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    pub(super) fn name_length(self) -> usize {
        (self.0 & 0xff) as usize
    }

    pub(super) fn units(self) -> usize {
        (self.0 >> UNITS_SHIFT & 0x7f) as usize
    }

    /// Whether its name is a semaphore.
    pub(super) fn counts_permits(self) -> bool {
        self.0 & PERMITS != 0
    }

    pub(super) fn has_text(self) -> bool {
        self.0 & TEXT != 0
    }

    /// The same with a place of so many units, which has a text behind the name.
    pub(super) fn note_text(slot: &MappedSlot, units: usize) {
        let with = |marks| marks & !(0x7f << UNITS_SHIFT) | (units as u32) << UNITS_SHIFT | TEXT;
        change(slot, with);
    }

    /// Notes what the holder of this token was told, and that it holds the lock from now on.
    pub(super) fn note_before(slot: &MappedSlot, token: u64, before: Predecessor, now: Time) {
        slot.since.store(milliseconds(now), Relaxed);
        Marks::note(slot, token, before as u8);
    }

    /// Notes that the holder of this token holds the lock by now, unless it is known since when.
    /// A clock is too slow for a taker, so the time is that of the first waiter or looker.
    pub(super) fn note_held(slot: &MappedSlot, token: u64, now: Time) {
        if Marks::of(slot).about(token).is_none() {
            Marks::note_before(slot, token, Predecessor::Clean, now);
        }
    }

    /// For how long the holder of this token is known to hold the lock.
    pub(super) fn held_for(self, slot: &MappedSlot, token: u64, now: Time) -> Option<Duration> {
        self.about(token)?;
        // Another clock's time may lie ahead of ours (time namespaces).
        let past = milliseconds(now).wrapping_sub(slot.since.load(Relaxed)) as i32;
        Some(Duration::from_millis(past.max(0) as u64))
    }

    /// What the holder of this token was told.
    pub(super) fn before(self, token: u64) -> Predecessor {
        match self.about(token) {
            Some(before) if before < LEFT_SO => Predecessor::from_u8(before),
            _ => Predecessor::Clean,
        }
    }

    /// Notes how the holder of this token left, while processes that inherited its proof of life
    /// keep the lock.
    pub(super) fn note_left(slot: &MappedSlot, token: u64, how: Predecessor) {
        if let Some(at) = LEFT_TO_HEIRS.iter().position(|left| *left == how) {
            Marks::note(slot, token, LEFT_SO + at as u8);
        }
    }

    /// How the holder of this token left. One that is found dead may have released before.
    pub(super) fn told(self, left: Predecessor, token: u64) -> Predecessor {
        match self.about(token) {
            Some(so) if so >= LEFT_SO && left == Predecessor::Died => {
                LEFT_TO_HEIRS[usize::from(so - LEFT_SO)]
            }
            _ => left,
        }
    }

    /// What is noted about this token.
    fn about(self, token: u64) -> Option<u8> {
        let same = self.0 >> TOKEN_SHIFT == token as u32 & (u32::MAX >> TOKEN_SHIFT);
        same.then_some(((self.0 & BEFORE) >> BEFORE_SHIFT) as u8)
    }

    fn note(slot: &MappedSlot, token: u64, what: u8) {
        let with = |marks| {
            let others = marks & ((1 << BEFORE_SHIFT) - 1);
            others | u32::from(what) << BEFORE_SHIFT | (token as u32) << TOKEN_SHIFT
        };
        change(slot, with);
    }

    /// Notes that a sweep saw this token; whether the last one saw it too.
    pub(super) fn note_swept(slot: &MappedSlot, token: u64) -> bool {
        let seen = token as u32;
        if Marks::of(slot).0 & SWEPT != 0 && slot.since.load(Relaxed) == seen {
            return true;
        }
        slot.since.store(seen, Relaxed);
        change(slot, |marks| marks | SWEPT);
        false
    }
}

/// A time as the table keeps hints, in milliseconds that wrap.
pub(super) fn milliseconds(time: Time) -> u32 {
    time.as_millis() as u32
}

/// The holder and a change of the structure may be at it together.
fn change(slot: &MappedSlot, with: impl Fn(u32) -> u32) {
    let _ = slot.name_length.fetch_update(AcqRel, Acquire, |marks| Some(with(marks)));
}

#[cfg(test)]
mod tests;
