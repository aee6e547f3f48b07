//! Where a name stands, as this process found it: the fast ways in and out, and leaving.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::{
    error::Predecessor,
    fork::{
        FirstMade, Mutex, MutexGuard,
        latest::{ForkStamp, Shortcut},
    },
    mode::Share,
    token::Token,
};

use super::{
    TableSlot, begins_a_stretch,
    lock::{self, Exit, SlotAt, WordWon},
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
// What the fast paths read and write comes first, in one cache line.
#[repr(C, align(64))]
pub(super) struct NamePlace {
    pub(super) slot: Cell<slot::MappedSlot>,
    /// The member's id.
    pub(super) me: OwnerId,
    pub(super) member: Arc<Member>,
    /// The token of the hold that this process took through this value.
    pub(super) held: AtomicU64,
    /// Which process this is.
    pub(super) stamp: ForkStamp,
    /// The name stands there as long as this is the slot's generation.
    pub(super) generation: u32,
    pub(super) number: u32,
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

/// The slot of a name where this process found it.
#[derive(Clone, Copy)]
pub(in crate::process) struct FoundSlot<'a>(&'a NamePlace);

impl TableSlot {
    /// Where the name stands, as far as the process of this fork generation knows.
    #[inline]
    pub(in crate::process) fn found(&self, fork_generation: u64) -> Option<FoundSlot<'_>> {
        self.places.so_far_in(fork_generation).map(|place| place.get().found())
    }
}

/// A way straight to where a name stands.
pub(in crate::process) struct PlaceShortcut(Shortcut<NamePlace>);

impl PlaceShortcut {
    pub(in crate::process) const fn new() -> PlaceShortcut {
        PlaceShortcut(Shortcut::new())
    }

    /// Where the name stands, if it leads there and this process is the one that found it.
    #[inline]
    pub(in crate::process) fn here(&self) -> Option<FoundSlot<'_>> {
        self.0.get().filter(|place| place.stamp.is_here()).map(NamePlace::found)
    }

    /// Leads to where the process of this fork generation found it, if it has.
    pub(in crate::process) fn lead_to(&self, slot: &TableSlot, fork_generation: u64) {
        if let Some(places) = slot.places.so_far_in(fork_generation) {
            self.0.lead_to(places.shared());
        }
    }
}

impl FoundSlot<'_> {
    /// Takes it where nothing stands in the way: its token. `None` leaves it as it was, and what it
    /// is that does [`take_unless`](Slot::take_unless) finds out.
    #[inline]
    pub(in crate::process) fn take(self) -> Option<Token> {
        let is_alone = match self.take_word() {
            Some(WordWon::Alone) => true,
            Some(WordWon::Beside) => self.is_alone(),
            None => false,
        };
        if !is_alone {
            return None;
        }
        self.count().or_else(|| {
            self.leave_uncounted();
            None
        })
    }

    /// The first part of it: the word. `None`: another has it, or is to have it.
    #[inline]
    pub(in crate::process) fn take_word(self) -> Option<WordWon> {
        let NamePlace { slot, me, generation, .. } = self.0;
        lock::take_word(slot, *me, *generation)
    }

    /// The second part, where the name was shared once: whether no reader is inside, and the name is
    /// here. If not, the word is given back.
    pub(in crate::process) fn is_alone(self) -> bool {
        self.0.stays_shared()
    }

    /// The third part: the next token. `None`: the reserve or the directory is to be looked at before.
    #[inline]
    pub(in crate::process) fn count(self) -> Option<Token> {
        step!(TakeEntered);
        let NamePlace { slot, member, held, .. } = self.0;
        // What it wraps to begins a stretch.
        let token = slot.token.load(Relaxed).wrapping_add(1);
        if !member.has_reserved(token) || begins_a_stretch(token) {
            return None;
        }
        slot.token.store(token, Relaxed);
        held.store(token, Relaxed);
        Some(Token::of_reserve(token))
    }

    /// Gives the word back where no token was counted.
    #[cold]
    pub(in crate::process) fn leave_uncounted(self) {
        self.0.leave_unused(self.0.slot.token.load(Relaxed));
    }

    /// Comes in as a reader where nothing stands in the way: the token that it reads under, and how
    /// the last holder left. `beside`: past waiters that are no writers, too.
    #[inline]
    pub(in crate::process) fn read(self, beside: bool) -> Option<(Token, Predecessor)> {
        let place = self.0;
        let own = place.own.get()?;
        let way = if beside { Way::Beside } else { Way::Quiet };
        let left = sharing::read(place.at(), own, place.me, way)?;
        let stands = place.slot.generation.load(Relaxed) == place.generation;
        match Token::new(place.slot.token.load(Relaxed)) {
            Some(token) if stands => Some((token, left)),
            _ => {
                let _ = sharing::unshare(place.at(), own, place.me, Share::Reader);
                None
            }
        }
    }

    /// A reader leaves.
    #[inline]
    pub(in crate::process) fn unread(self) {
        self.0.unshare(Share::Reader);
    }

    /// Releases it, clean, if it still bears this token. For a holder that has written no end of
    /// `at_least` for its hold.
    #[inline]
    pub(in crate::process) fn release(self, token: Token) {
        let NamePlace { slot, me, held, .. } = self.0;
        if slot.token.load(Relaxed) != token.get() {
            return;
        }
        held.store(NOT_HELD, Relaxed);
        if let Err(found) = lock::leave_unasked(slot, *me, Predecessor::Clean) {
            self.0.release_contended(token, found);
        }
    }

    /// Whether they are the same place.
    pub(in crate::process) fn is(self, other: FoundSlot<'_>) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    /// The fork generation of the process that found it.
    #[inline]
    pub(in crate::process) fn fork_generation(self) -> u64 {
        self.0.stamp.generation()
    }
}

impl NamePlace {
    #[inline]
    pub(super) fn found(&self) -> FoundSlot<'_> {
        FoundSlot(self)
    }

    pub(super) fn at(&self) -> SlotAt<'_> {
        let (number, table) = (self.number, &self.member.table);
        SlotAt { slot: &self.slot, number, table, kept: Some(&self.slot) }
    }

    /// Whether what was won here is this name's, which was shared once, and no reader is inside.
    #[inline]
    fn stays_shared(&self) -> bool {
        let with_head = self.slot.generation.with_head();
        let is_own = |own: &Arc<Own>| own.is_alone(self.me, with_head);
        with_head as u32 == self.generation && self.own.get().is_some_and(is_own)
            || self.stays_shared_by_others()
    }

    fn stays_shared_by_others(&self) -> bool {
        let is_counted = || self.own().is_none_or(|own| own.is_of(self.me));
        lock::stays_shared(self.at(), self.me, self.generation, is_counted)
    }

    /// Gives back what was won and not used: the token stays this one.
    fn leave_unused(&self, last: u64) {
        // If it is lost, nothing was done under it.
        let _ = lock::release(self.at(), self.me, Exit::new(last, Predecessor::Clean));
    }

    /// Releases the hold with this token, clean, where the word was found to be more than held.
    #[cold]
    #[inline(never)]
    fn release_contended(&self, token: Token, found: Word) {
        self.release_slow(self.me, Exit::new(token.get(), Predecessor::Clean), found);
    }

    /// Releases what is held here.
    #[inline]
    pub(super) fn leave(&self, how: Predecessor) {
        let (me, exit) = (self.me, self.exit(how));
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
