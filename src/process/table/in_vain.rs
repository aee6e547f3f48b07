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
    fork::LatestMade,
    time::Time,
};

impl TableSlot {
    pub(super) fn timed_out(&self, begin: Option<Begin>) -> LockError {
        let (mut trouble, mut waited, mut ahead) = (None, Duration::ZERO, None);
        let mut is_wide = false;
        if let Ok(place) = self.place() {
            trouble = place.member.trouble();
            let word = Word::from_bits(place.slot.word.load(Relaxed));
            is_wide = word.is_wide();
            if let Some(begin) = begin {
                if word.owner().is_some() && place.slot.token.load(Relaxed) == begin.token {
                    Marks::note_held(&place.slot, begin.token, begin.time);
                }
                waited = clock::now().since(begin.time);
                ahead = Some(waiters_before(place, begin.time));
            }
        }
        let error = match trouble {
            None => LockError::timed_out(waited),
            Some(trouble) => {
                let text = format!("another holder had it all the time; {trouble}");
                LockError::new(LockErrorKind::TimedOut, text).with_waited(waited)
            }
        };
        // What has the slot of a wide name is on its way to a lease: it waits like this one.
        let holder = if is_wide { None } else { self.holder() };
        self.named(error).with_holder(holder).with_waiters_ahead(ahead)
    }

    /// Whether this process has the word.
    pub(in super::super) fn is_held_here(&self) -> bool {
        self.held().is_some()
    }

    /// A living process that shares it: another before this one.
    pub(in super::super) fn sharer(&self) -> Option<Holder> {
        let place = self.places.so_far()?.get();
        let shares = place.member.table.shares_of(&place.slot).ok()?;
        let its = shares.into_iter().filter(|share| share.count() > 0);
        let owners = its.filter_map(|share| share.owner());
        let (own, others): (Vec<_>, Vec<_>) = owners.partition(|owner| *owner == place.member.id);
        others.into_iter().chain(own).find_map(|owner| place.member.living(owner))
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
    let waits = member.table.waits_before(place.number, since).filter(is_alive);
    let waits = waits.take(AHEAD_MAX as usize).count();
    // What has the word may wait itself: for permits, where this process may be the one; or for its lease,
    // where this process's own is its representative, which is counted by its turnstile.
    let word = Word::from_bits(place.slot.word.load(Relaxed));
    let waits_inside = word.owner().is_some_and(|owner| match word.drains() {
        true => owner == member.id || is_alive(&owner),
        false => word.is_wide() && is_alive(&owner),
    });
    waits + usize::from(waits_inside)
}
