//! What a caller that waits may know of the guards of its process: for how long they have a word, and which of
//! them stay with their threads.

use super::{COUNT, IN_USE, LeaseWord, OPEN, SHARED, words::Ordering::*};
#[cfg(any(feature = "host", feature = "testing"))]
use super::{LOST, shared};
#[cfg(any(feature = "host", feature = "testing"))]
use crate::time::Time;
use crate::token::Token;

/// For how long guards have an open word.
#[cfg(any(feature = "host", feature = "testing"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldWord {
    UntilLeft,
    /// At most until the lease's own end.
    ForATime,
}

impl LeaseWord {
    /// The guard with this token stays with the calling thread, which has that number.
    pub(crate) fn stays_with(&self, token: Token, thread: u64) {
        // Where another has written meanwhile, its token is seen with no thread's number but its own.
        self.stays[1].store(thread, Relaxed);
        self.stays[0].store(token.get(), Release);
    }

    /// Whether the guard that is in stays with the calling thread, which has this number.
    pub(crate) fn is_with(&self, thread: u64) -> bool {
        let word = self.word.load(Acquire);
        let is_alone = word & (OPEN | IN_USE | SHARED) == OPEN | IN_USE;
        let token = self.base.load(Relaxed) | word & COUNT;
        is_alone && self.stays[0].load(Acquire) == token && self.stays[1].load(Relaxed) == thread
    }

    /// For how long the guards have it that are in, if there are any and their lease is whole.
    #[cfg(any(feature = "host", feature = "testing"))]
    pub(crate) fn is_held(&self) -> Option<HeldWord> {
        let word = self.word.load(Acquire);
        let is_in_use = word & IN_USE != 0 || shared::has_readers(word);
        (word & OPEN != 0 && is_in_use && word & LOST == 0).then(|| match self.end() {
            Time::NEVER => HeldWord::UntilLeft,
            _ => HeldWord::ForATime,
        })
    }
}
