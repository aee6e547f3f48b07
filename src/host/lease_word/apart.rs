//! The lease of one guard that stands *apart*: an upgradable reader, the writer that it becomes, and the
//! reader that either becomes.
//!
//! It stands beside readers of its own process, which share the name's word, so its lease has a word of
//! its own: opened like that of readers, with this guard as the only one, recalled from the start, and
//! of whatever mode its lease is just then. Its token changes with the mode, also while the guard looks
//! on: the service tells it here.
//!
//! A writer comes in by the name's word. When it becomes a reader its lease moves apart, and the name's
//! word is free for a lease that the readers of this process share.

use super::{
    COUNT, Claim, IN_USE, LOST, LeaseWord, Opening, SHARED, Used, WATCHED, words::Ordering::*,
};
use crate::{error::Predecessor, time::Time, token::Token};

impl LeaseWord {
    /// The token of the guard that has it apart.
    pub(crate) fn borne(&self) -> Token {
        super::token(self.borne.load(Relaxed))
    }

    /// Whether there is no lease in it.
    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Acquire) == 0
    }

    /// The same for the service, under its lock: another one.
    pub(crate) fn bear(&self, token: Token) {
        self.borne.store(token.get(), Relaxed);
    }

    /// For the service, under its lock: moves the guard with this token, which is in, and its lease to
    /// `apart`, a closed word that no thread knows yet. What was used of the lease here; `None` if the
    /// guard is not in, or its lease is lost.
    pub(crate) fn move_apart(&self, token: Token, apart: &LeaseWord) -> Option<Used> {
        let count = token.get() & COUNT;
        let mut word = self.word.load(Acquire);
        loop {
            if word & (IN_USE | SHARED | LOST) != IN_USE || word & COUNT != count {
                return None;
            }
            let used = self.used(word, count, Predecessor::Clean);
            let end = Some(self.end()).filter(|end| *end != Time::NEVER);
            match self.word.compare_exchange(word, 0, AcqRel, Acquire) {
                Ok(_) => {
                    apart.open_apart(used, token, end);
                    self.move_watch(word, apart);
                    return Some(used);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Opens it, and has its guard in it.
    fn open_apart(&self, used: Used, token: Token, at_most: Option<Time>) {
        self.open(Opening {
            lease: used.lease,
            first: token,
            last: token,
            predecessor: Predecessor::Clean,
            at_most,
            keeps: false,
            is_shared: true,
        });
        let claim = self.claim_shared(false);
        debug_assert!(matches!(claim, Claim::Entered(_)), "it was opened just now");
    }

    /// What the guard was promised to be told it is told by the other word.
    fn move_watch(&self, word: u64, apart: &LeaseWord) {
        let watch = self.watch.lock().take();
        if let Some(watch) = watch {
            debug_assert!(word & WATCHED != 0, "one that asks to be told sets the flag");
            apart.reader_watches.lock().push(watch);
            apart.word.fetch_or(WATCHED, AcqRel);
        }
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
