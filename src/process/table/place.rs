//! Where a name stands, as this process found it: the fast ways in and out, and leaving.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::{
    error::Predecessor,
    fork::{FirstMade, Mutex, MutexGuard},
    mode::Share,
    token::Token,
};

use super::{
    TableSlot, is_to_look,
    lock::{self, Exit, SlotAt},
    map::Cell,
    marks::Marks,
    member::Member,
    presence::Presence,
    protocol::Way,
    sharing::{self, Own},
    slot,
    step::step,
    word::{OwnerId, Word},
};

/// Where a name stands, as this process found it.
pub(super) struct NamePlace {
    pub(super) slot: Cell<slot::MappedSlot>,
    /// The name stands there as long as this is the slot's generation.
    pub(super) generation: u32,
    pub(super) number: u32,
    pub(super) member: Arc<Member>,
    /// The token of the hold that this process took through this value.
    pub(super) held: AtomicU64,
    /// An end of `at_least` was written for that hold.
    pub(super) stays: AtomicBool,
    /// The presence under which the lock is held, where others are to inherit it.
    pub(super) heirloom: Mutex<Option<Heirloom>>,
    /// The presence under which this process's only reader is counted, where others are to inherit it.
    pub(super) reader_heirloom: Mutex<Option<Heirloom>>,
    /// This process's share record of it, once it has one.
    pub(super) own: FirstMade<Arc<Own>>,
}

/// What `NamePlace::held` says of a lock that is not held. No hold has this token.
pub(super) const NOT_HELD: u64 = 0;

pub(super) struct Heirloom {
    pub(super) presence: Presence,
    /// A descriptor was given out: each process that has it keeps the lock.
    pub(super) given: bool,
}

/// The slot of a name where this process found it, with what taking and releasing it needs read out.
#[derive(Clone, Copy)]
pub(in crate::process) struct FoundSlot<'a> {
    place: &'a NamePlace,
    slot: &'a slot::MappedSlot,
    member: &'a Member,
    me: OwnerId,
    generation: u32,
}

impl TableSlot {
    /// Where the name stands, as far as the process of this fork generation knows.
    #[inline]
    pub(in crate::process) fn found(&self, fork_generation: u64) -> Option<FoundSlot<'_>> {
        self.places.so_far_in(fork_generation).map(|place| place.get().found())
    }
}

impl FoundSlot<'_> {
    /// Takes it where nothing stands in the way: its token. `None` leaves it as it was, and what it
    /// is that does [`take_unless`](Slot::take_unless) finds out.
    #[inline]
    pub(in crate::process) fn take(self) -> Option<Token> {
        let FoundSlot { place, slot, member, me, generation } = self;
        if !lock::take_unraised(slot, me, generation, || place.stays_shared(me, generation)) {
            return None;
        }
        step!(TakeEntered);
        let last = slot.token.load(Relaxed);
        let token = last.saturating_add(1);
        if !member.has_reserved(token) || is_to_look(last, token) {
            place.leave_unused(me, last);
            return None;
        }
        slot.token.store(token, Relaxed);
        place.held.store(token, Relaxed);
        Some(Token::new(token).expect("the reserve has only tokens"))
    }

    /// Comes in as a reader where nothing stands in the way: the token that it reads under, and how
    /// the last holder left. `beside`: past waiters that are no writers, too.
    #[inline]
    pub(in crate::process) fn read(self, beside: bool) -> Option<(Token, Predecessor)> {
        let FoundSlot { place, slot, me, generation, .. } = self;
        let own = place.own.get()?;
        let way = if beside { Way::Beside } else { Way::Quiet };
        let left = sharing::read(place.at(), own, me, way)?;
        let stands = slot.generation.load(Relaxed) == generation;
        match Token::new(slot.token.load(Relaxed)) {
            Some(token) if stands => Some((token, left)),
            _ => {
                let _ = sharing::unshare(place.at(), own, me, Share::Reader);
                None
            }
        }
    }

    /// A reader leaves.
    #[inline]
    pub(in crate::process) fn unread(self) {
        self.place.unshare(Share::Reader);
    }

    /// Releases it, clean, if it still bears this token.
    #[inline]
    pub(in crate::process) fn release(self, token: Token) {
        if self.slot.token.load(Relaxed) == token.get() {
            self.place.leave(Predecessor::Clean);
        }
    }
}

impl NamePlace {
    #[inline]
    pub(super) fn found(&self) -> FoundSlot<'_> {
        let (slot, member) = (&*self.slot, &*self.member);
        FoundSlot { place: self, slot, member, me: member.id, generation: self.generation }
    }

    pub(super) fn at(&self) -> SlotAt<'_> {
        let (number, table) = (self.number, &self.member.table);
        SlotAt { slot: &self.slot, number, table, kept: Some(&self.slot) }
    }

    /// Whether what was won here is this name's, which was shared once, and no reader is inside.
    #[cold]
    pub(super) fn stays_shared(&self, me: OwnerId, generation: u32) -> bool {
        let is_counted = || self.own().is_none_or(|own| own.is_of(me));
        lock::stays_shared(self.at(), me, generation, is_counted)
    }

    /// Gives back what was won and not used: the token stays this one.
    #[cold]
    pub(super) fn leave_unused(&self, me: OwnerId, last: u64) {
        // If it is lost, nothing was done under it.
        let _ = lock::release(self.at(), me, Exit::new(last, Predecessor::Clean));
    }

    /// Releases what is held here.
    #[inline]
    pub(super) fn leave(&self, how: Predecessor) {
        let (me, exit) = (self.member.id, self.exit(how));
        if let Err(found) = lock::leave_quietly(&self.slot, me, exit) {
            self.release_slow(me, exit, found);
        }
    }

    #[cold]
    pub(super) fn release_slow(&self, me: OwnerId, exit: Exit, found: Word) {
        if lock::release_slow(self.at(), me, exit, found).is_err() {
            self.release_heirloom(exit);
        }
    }

    /// This process's share record of the slot, through whichever place it was made.
    pub(super) fn own(&self) -> Option<Arc<Own>> {
        self.own.get().cloned().or_else(|| self.member.share_of(self.number))
    }

    /// A reader leaves, or permits come back.
    #[inline]
    pub(super) fn unshare(&self, share: Share) {
        match self.own.get() {
            Some(own) => {
                if sharing::unshare(self.at(), own, self.member.id, share).is_err() {
                    self.end_sharing(own);
                }
            }
            None => self.unshare_elsewhere(share),
        }
    }

    #[cold]
    pub(super) fn unshare_elsewhere(&self, share: Share) {
        if let Some(own) = self.own() {
            let _ = sharing::unshare(self.at(), &own, self.member.id, share);
        }
    }

    /// How the holder leaves, which from now on is none.
    #[inline]
    pub(super) fn exit(&self, how: Predecessor) -> Exit {
        let may_stay = self.stays.load(Relaxed);
        let exit = Exit { may_stay, ..Exit::new(self.held.load(Relaxed), how) };
        self.held.store(NOT_HELD, Relaxed);
        if may_stay {
            self.stays.store(false, Relaxed);
        }
        exit
    }

    /// The presence of its only reader, where others are to inherit it.
    pub(super) fn heirloom_of_reader(&self) -> MutexGuard<'_, Option<Heirloom>> {
        self.reader_heirloom.lock()
    }

    /// Under which id this process holds it, if it does.
    pub(super) fn owner(&self) -> OwnerId {
        self.heirloom.lock().as_ref().map_or(self.member.id, |heirloom| heirloom.presence.id)
    }

    /// Releases what is held under an id that others may have inherited.
    #[cold]
    pub(super) fn release_heirloom(&self, exit: Exit) {
        let Some(Heirloom { presence, given }) = self.heirloom.lock().take() else { return };
        // If heirs keep the lock, the process that proves their end reads here how it was left.
        Marks::note_left(&self.slot, self.slot.token.load(Relaxed), exit.how);
        self.member.end_presence(presence, given, |id| {
            // If it is lost, then to a process that proved that none has it any more.
            let _ = lock::release(self.at(), id, exit);
        });
    }
}

impl Drop for NamePlace {
    fn drop(&mut self) {
        if let Some(own) = self.own.get().filter(|_| self.member.is_here()) {
            // Guards of readers were forgotten, if any are counted still.
            own.forget_readers(&self.slot, self.member.id);
        }
        if *self.held.get_mut() == NOT_HELD || !self.member.is_here() {
            return;
        }
        // Its guard was forgotten: it can never be released by it.
        let exit = self.exit(Predecessor::Died);
        let _ = lock::release(self.at(), self.member.id, exit);
        self.release_heirloom(exit);
    }
}
