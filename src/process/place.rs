//! Where a slot is, and the shortest way to it: what the fast paths use.

use crate::{error::Predecessor, token::Token};

use super::{
    EitherEngine, Slot,
    table::{self, WordWon},
};

/// A way from a lock straight to its slot, once this process has found that.
pub(crate) struct SlotShortcut(table::PlaceShortcut);

impl SlotShortcut {
    pub(crate) const fn new() -> SlotShortcut {
        SlotShortcut(table::PlaceShortcut::new())
    }

    /// Where the slot is, if it leads there and this very process has found it: not in a forked child.
    #[inline]
    pub(crate) fn here(&self) -> Option<SlotPlace<'_>> {
        self.0.here().map(SlotPlace)
    }

    /// Leads to where the process of this fork generation found it, if it has and the engine has a fast
    /// path.
    pub(crate) fn lead_to(&self, slot: &Slot, generation: u64) {
        if let EitherEngine::Table(slot) = &slot.0 {
            self.0.lead_to(slot, generation);
        }
    }
}

/// Where a slot is: a quiet lock there is one compare-and-swap and a quiet release another, with nothing to
/// look up in between.
#[derive(Clone, Copy)]
pub(crate) struct SlotPlace<'a>(pub(super) table::FoundSlot<'a>);

impl SlotPlace<'_> {
    /// Whether they are the same place.
    pub(crate) fn is(self, other: SlotPlace<'_>) -> bool {
        self.0.is(other.0)
    }

    /// The fork generation of the process that found it.
    #[inline]
    pub(crate) fn generation(self) -> u64 {
        self.0.fork_generation()
    }

    /// Takes the slot where nothing stands in the way: its token. `None` leaves it as it was. A word
    /// with WIDE is in the way.
    #[inline]
    pub(crate) fn take(self) -> Option<Token> {
        self.0.take()
    }

    /// The first part of taking it: its word.
    #[inline]
    pub(crate) fn take_word(self) -> Option<WordWon> {
        self.0.take_word()
    }

    /// The second part, where the word was won [beside](WordWon::Beside) others: whether none is inside. If
    /// one is, the word is given back.
    pub(crate) fn is_alone(self) -> bool {
        self.0.is_alone()
    }

    /// The last part: the token. `None`: it takes more than a count, and the word is to be
    /// [given back](Self::leave_uncounted).
    #[inline]
    pub(crate) fn count(self) -> Option<Token> {
        self.0.count()
    }

    /// Gives the word back where no token was counted.
    pub(crate) fn leave_uncounted(self) {
        self.0.leave_uncounted();
    }

    /// Releases it, clean, if it still bears this token. For a holder that has written no end of
    /// `at_least` for its hold.
    #[inline]
    pub(crate) fn release(self, token: Token) {
        self.0.release(token);
    }

    /// Comes in as a reader where nothing stands in the way: its token, and how the last holder left.
    #[inline]
    pub(crate) fn read(self) -> Option<(Token, Predecessor)> {
        self.0.read(false)
    }

    /// A reader leaves.
    #[inline]
    pub(crate) fn unread(self) {
        self.0.unread();
    }
}
