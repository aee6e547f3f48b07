//! What a taker of a slot is told that gives up: which process has it, and how many waiters stood
//! before. Nothing of this is looked at before.

use std::{sync::atomic::Ordering::*, time::Duration};

use super::{
    Begin, TableSlot,
    lock::PresenceView as _,
    marks::Marks,
    place::NamePlace,
    word::{OwnerId, Word},
};
use crate::{
    clock,
    error::{AHEAD_MAX, Holder, LockError, LockErrorKind},
    fork::latest::LatestMade,
    time::Time,
};

impl TableSlot {
    pub(super) fn timed_out(&self, begin: Option<Begin>) -> LockError {
        let (mut trouble, mut waited, mut ahead) = (None, Duration::ZERO, None);
        let (mut is_wide, mut waits_for_readers) = (false, false);
        if let Ok(place) = self.place() {
            let word = Word::from_bits(place.slot.word.load(Relaxed));
            trouble = word.owner().and_then(|owner| place.member.why_unknown(owner));
            is_wide = word.is_wide();
            waits_for_readers = word.owner() == Some(place.member.id) && !word.is_readable();
            if let Some(begin) = begin {
                if word.owner().is_some() && place.slot.token.load(Relaxed) == begin.token {
                    Marks::note_held(&place.slot, begin.token, begin.time);
                }
                waited = clock::now().since(begin.time);
                ahead = Some(waiters_before(place, begin.time));
            }
        }
        let error = match trouble {
            // What has the slot of a wide name is on its way to a lease: it waits like this one, and nothing
            // says that the lease is another's.
            None if is_wide => LockError::timed_out_behind(waited, true),
            None => LockError::timed_out(waited),
            Some(trouble) => {
                let text = format!("another holder had it all the time; {trouble}");
                let error = LockError::new(LockErrorKind::TimedOut, text).with_waited(waited);
                if is_wide { error.without_holder(true) } else { error }
            }
        };
        let holder = match is_wide {
            true => None,
            // This process's own writer may have it, and wait for readers of another.
            false if waits_for_readers => self.sharer_elsewhere().or_else(|| self.holder()),
            false => self.holder(),
        };
        self.named(error).with_holder(holder).with_waiters_ahead(ahead)
    }

    /// Whether this process has the word.
    pub(in super::super) fn is_held_here(&self) -> bool {
        self.held().is_some()
    }

    /// A living process that shares it: another before this one.
    pub(in super::super) fn sharer(&self) -> Option<Holder> {
        self.sharer_elsewhere().or_else(|| self.living_sharer(|is_own| is_own))
    }

    /// Another living process that shares it.
    pub(in super::super) fn sharer_elsewhere(&self) -> Option<Holder> {
        self.living_sharer(|is_own| !is_own)
    }

    fn living_sharer(&self, wanted: impl Fn(bool) -> bool) -> Option<Holder> {
        let place = self.places.so_far()?.get();
        let shares = place.member.table.shares_of(&place.slot).ok()?;
        let its = shares.into_iter().filter(|share| share.count() > 0);
        let mut owners = its.filter_map(|share| share.owner());
        owners.find_map(|owner| match wanted(owner == place.member.id) {
            true => place.member.living(owner),
            false => None,
        })
    }

    /// How many waiters of other processes stand before this process's own wait, or before one that it
    /// would begin now.
    pub(in super::super) fn waiters_before_own(&self) -> usize {
        let place = self.places.so_far().map(LatestMade::get);
        place.map_or(0, |place| {
            let own = place.member.table.wait_of(place.number, place.member.id);
            waiters_before(place, own.unwrap_or(Time::NEVER))
        })
    }
}

/// How many waiters of other processes stand that came before this time.
fn waiters_before(place: &NamePlace, since: Time) -> usize {
    let member = &*place.member;
    let is_alive =
        |owner: &OwnerId| *owner != member.id && member.verdict(*owner, &mut None).may_live();
    // As many are looked at as are counted at most: each costs a look at a presence, and a crowd that gives
    // up at once looks once for each of it.
    let waits = member.table.waits_before(place.number, since).take(AHEAD_MAX as usize);
    let waits = waits.filter(is_alive).count();
    // What has the word may wait itself: for permits, where this process may be the one; or for its lease,
    // where this process's own is its representative, which is counted by its turnstile.
    let word = Word::from_bits(place.slot.word.load(Relaxed));
    let waits_inside = word.owner().is_some_and(|owner| match word.drains() {
        true => owner == member.id || is_alive(&owner),
        false => word.is_wide() && is_alive(&owner),
    });
    waits + usize::from(waits_inside)
}
