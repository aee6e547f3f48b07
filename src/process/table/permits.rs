//! Permits of a slot: its share records count them, under its word. And what a holder asks of the word.
//!
//! A caller that wants some takes the word, looks whether there is room, counts its own, and releases the
//! word. So what is looked at only falls meanwhile, and permits come back past the word.

use std::sync::atomic::Ordering::*;

use crate::{
    error::{LockError, LockErrorKind, LostReason},
    token::Token,
};

use super::{LatestMade, TableSlot, sharing, word::Word};

impl TableSlot {
    /// Counts so many, for the holder of the word, which has found room for them and releases it then:
    /// the token of the last one. Each has one of its own.
    pub(in super::super) fn count_permits(&self, count: u32) -> Result<Token, LockError> {
        self.prepare_to_read()?;
        let lost = || self.named(LockError::lost(LostReason::Broken));
        let place = self.held().ok_or_else(lost)?;
        let first = place.held.load(Relaxed);
        let last = first.saturating_add(u64::from(count).saturating_sub(1));
        let last = Token::new(last).ok_or_else(|| self.named(exhausted()))?;
        let own = place.own.get().expect("it was prepared");
        if !sharing::count_permits(place.at(), own, place.member.id, count) {
            return Err(self.named(sharing::uncounted()));
        }
        self.raise_token(last);
        Ok(last)
    }

    /// Whether what this process shares is counted: it was not taken for dead while it lived.
    pub(in super::super) fn is_counted(&self) -> bool {
        let Some(place) = self.places.so_far().map(LatestMade::get) else { return false };
        place.own().is_some_and(|own| own.is_of(place.member.id))
            || place.heirloom_of_reader().is_some()
    }

    /// Whether a waiter sleeps for it. `shares`: or a writer has it, which waits for this reader.
    pub(in super::super) fn may_be_waited_for(&self, shares: bool) -> bool {
        let Some(place) = self.places.so_far().map(LatestMade::get) else { return false };
        let word = Word::from_bits(place.slot.word.load(Relaxed));
        let is_drained = shares && word.owner().is_some() && !word.is_readable();
        word.has_waiters() || word.reserved_for().is_some() || is_drained
    }

    /// Whether its holder is not about to leave: it waits in front of permits that are taken.
    pub(in super::super) fn is_draining(&self) -> bool {
        let place = self.places.so_far().map(LatestMade::get);
        place.is_some_and(|place| Word::from_bits(place.slot.word.load(Relaxed)).drains())
    }

    /// How many permits are taken, those of the dead too until they are missed.
    pub(in super::super) fn permits_taken(&self) -> Result<u32, LockError> {
        let place = self.place()?;
        let shares =
            place.member.table.shares_of(&place.slot).map_err(|error| self.named(error))?;
        let counts = shares.into_iter().map(|share| share.count());
        Ok(counts.fold(0, u32::saturating_add))
    }
}

fn exhausted() -> LockError {
    LockError::new(
        LockErrorKind::Refused,
        "its tokens are exhausted: all below 2^63 were granted; choose another name",
    )
}
