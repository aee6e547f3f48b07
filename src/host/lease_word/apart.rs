//! The lease of one guard that stands *apart*: an upgradable reader, the writer that it becomes, and the
//! reader that either becomes.
//!
//! It stands beside readers of its own process, which share the name's word, so its lease has a word of
//! its own: opened like that of readers, with this guard as the only one, recalled from the start, and
//! of whatever mode its lease is just then. Its token changes with the mode, also while the guard looks
//! on: the service tells it, in `granting`.
//!
//! A writer comes in by the name's word. When it becomes a reader its lease moves apart, and the name's
//! word is free for a lease that the readers of this process share.

use super::{LeaseWord, Used, words::Ordering::*};
use crate::{error::Predecessor, token::Token};

impl LeaseWord {
    /// The token of the guard that has it apart.
    pub(crate) fn borne(&self) -> Token {
        super::token(self.borne.load(Relaxed))
    }

    /// Whether there is no lease in it.
    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Acquire) == 0
    }

    /// The guard that has it apart leaves: what of a loss it did not hear by now it is told, and nothing
    /// more. What is returned is to be given back, as that of a holder that left like this.
    pub(crate) fn leave_apart(&self, how: Predecessor) -> Option<Used> {
        let watches = std::mem::take(&mut *self.reader_watches.lock());
        let lost = self.lost();
        watches.into_iter().for_each(|watch| watch.end(lost));
        let token = self.borne();
        let used = self.leave_shared_and_close()?;
        Some(Used { last: token, how, ..used })
    }
}
