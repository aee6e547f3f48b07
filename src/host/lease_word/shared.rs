//! A shared lease in its word: any number of guards of this process read under it together.
//!
//! The word bears `SHARED` and counts its readers where an exclusive lease has its token's count, so
//! one exchange decides here as well: a word that is recalled, lost or closed lets no reader in, and
//! the last reader to leave such a word closes it. All of them bear the lease's one token.
//!
//! | word | means | next |
//! |---|---|---|
//! | `OPEN SHARED RESERVED`, how | the representative's, which reads | it claims: one reader; it gives up, or a loss: 0 |
//! | `OPEN SHARED`, how, no reader | idle | a thread reads; a recall, a loss, the service closing it: 0 |
//! | `OPEN SHARED`, how, readers | so many guards are in | one more reads; one leaves |
//! | `OPEN SHARED RECALLED`, readers | a writer waits, in this process or at the leader | the last one leaves: 0, and gives the lease back |
//! | `OPEN SHARED RECALLED LOST`, readers | the lease is over | likewise |
//!
//! The lease of permits that were taken together has a word of its own, which is opened like this and
//! never idle. Each guard that has some of them counts as a reader. So has the lease of a guard that
//! stands apart: see `apart`.
//!
//! `WATCHED`: one of the readers or more asked to be told of a loss. A writer that waits here sets
//! `WAITERS` and `RECALLED`: of those that come none passes it.

use std::sync::Arc;

use super::{
    COUNT, Claim, Entered, HOW, LeaseWord, Left, OPEN, RECALLED, RESERVED, SHARED, STATE, Used,
    WAITERS, WATCHED, how, lost, words::Ordering::*,
};
use crate::{
    error::{LostReason, Predecessor},
    token::Token,
    watch::Watch,
};

/// How many readers are in.
const READERS: u64 = (1 << 24) - 1;
/// How often it was read under, so that an idle word shows that it was used since; it wraps.
const USED_ONCE: u64 = 1 << 24;
const USES: u64 = COUNT & !READERS;

/// Whether guards read under it.
pub(super) fn has_readers(word: u64) -> bool {
    word & SHARED != 0 && word & READERS != 0
}

/// The same with one more reader; `None` if there are as many as it counts.
fn with_reader(word: u64) -> Option<u64> {
    let uses = word.wrapping_add(USED_ONCE) & USES;
    (word & READERS < READERS).then_some((word & !USES | uses) + 1)
}

impl LeaseWord {
    /// Whether it is open with a shared lease.
    pub(crate) fn is_shared(&self) -> bool {
        self.word.load(Acquire) & (OPEN | SHARED) == OPEN | SHARED
    }

    /// Reads, if the word is open for readers. The reader looks at the deadline next, then at the
    /// clock.
    #[inline]
    pub fn read(&self) -> Option<(Token, Predecessor)> {
        let mut word = self.word.load(Relaxed);
        while word & STATE & !WATCHED == OPEN | SHARED {
            let next = with_reader(word)?;
            // A writer that looks for readers has said so in the cell before: in one order for all.
            match self.word.compare_exchange_weak(word, next, SeqCst, Relaxed) {
                Ok(_) => return Some((self.first_token(), how(word))),
                Err(now) => word = now,
            }
        }
        None
    }

    /// For the representative, which wants to read: takes what is reserved, or, if it `joins` others,
    /// one more share of what is open.
    pub fn claim_shared(&self, joins: bool) -> Claim {
        loop {
            let word = self.word.load(Acquire);
            if word & OPEN == 0 {
                return Claim::Closed(LostReason::from_u8(self.ended.load(Relaxed)));
            }
            let is_for_it =
                word & RESERVED != 0 || joins && word & STATE & !WATCHED == OPEN | SHARED;
            let next = with_reader(word & !RESERVED).filter(|_| word & SHARED != 0 && is_for_it);
            let Some(next) = next else { return Claim::Held };
            if self.word.compare_exchange(word, next, SeqCst, Relaxed).is_err() {
                continue;
            }
            self.get_up();
            let (token, predecessor) = (self.first_token(), how(word));
            return Claim::Entered(Entered { token, predecessor, is_running_short: false });
        }
    }

    /// A reader that is in has another beside it.
    pub(crate) fn read_beside(&self) {
        let before = self.word.fetch_add(1, Relaxed);
        assert!(has_readers(before) && before & READERS < READERS, "a reader is in");
    }

    /// A reader leaves. The last one to leave a word that is recalled or lost closes it.
    #[inline]
    pub fn leave_shared(&self) -> Left {
        let word = self.word.load(Relaxed);
        let is_plain = word & STATE == OPEN | SHARED && has_readers(word);
        if is_plain && self.word.compare_exchange(word, word - 1, Release, Relaxed).is_ok() {
            return Left::Kept;
        }
        self.leave_shared_slow(false)
    }

    /// The same; the lease does not stay once no reader is in.
    #[cold]
    pub fn leave_shared_and_close(&self) -> Option<Used> {
        match self.leave_shared_slow(true) {
            Left::GivesBack(used) => {
                self.wake();
                Some(used)
            }
            Left::Kept | Left::Wakes | Left::Stale => None,
        }
    }

    #[cold]
    fn leave_shared_slow(&self, closes: bool) -> Left {
        loop {
            let word = self.word.load(Acquire);
            assert!(has_readers(word), "a reader is in until it leaves");
            let is_last = word & READERS == 1;
            let is_over = closes || word & RECALLED != 0 || lost(word).is_some();
            let next = match (is_last, is_over) {
                (true, true) => 0,
                (true, false) => (word - 1) & !(WATCHED | WAITERS),
                (false, true) => (word - 1) | RECALLED,
                (false, false) => word - 1,
            };
            let used = self.used_shared(word);
            if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_ok() {
                return if next == 0 { Left::GivesBack(used) } else { Left::Kept };
            }
        }
    }

    /// What there is to give back of a shared lease, read before the word is closed.
    pub(super) fn used_shared(&self, word: u64) -> Used {
        let token = self.first_token();
        Used {
            lease: self.lease(),
            last: if word & RESERVED != 0 { super::before(token) } else { token },
            how: how(word & HOW),
            // Whether keeping it pays is not counted: readers elsewhere are not in its way.
            local_grants: 0,
            is_recalled: false,
            keeps: false,
            lost: lost(word),
        }
    }

    fn first_token(&self) -> Token {
        super::token(self.base.load(Relaxed) | self.first.load(Relaxed))
    }

    /// A watch for one of the readers that are in, which [ends](LeaseWord::end_reader_watch) it when it
    /// leaves.
    pub(crate) fn watch_for_reader(&self) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(Some(self.deadline.clone()), Some(self.end())));
        self.reader_watches.lock().push(watch.clone());
        // A later loss sees the flag, and tells the watch.
        let before = self.word.fetch_or(WATCHED, AcqRel);
        if let Some(why) = lost(before) {
            watch.lose(why);
        }
        watch
    }

    /// The reader goes, and is still in: what it did not hear of a loss by now it is told, and nothing
    /// more.
    pub(crate) fn end_reader_watch(&self, watch: &Arc<Watch>) {
        self.reader_watches.lock().retain(|other| !Arc::ptr_eq(other, watch));
        watch.end(self.lost());
    }

    /// Whether guards read under it though it was asked back: none comes in beside them.
    pub(crate) fn is_asked_back(&self) -> bool {
        let word = self.word.load(Acquire);
        has_readers(word) && word & RECALLED != 0
    }

    /// Whether a waiter of this process stands at it, or it goes back once no guard is in.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.word.load(Acquire) & (RECALLED | WAITERS) != 0
    }

    /// Whether guards read under it, lost or not.
    pub(crate) fn is_read(&self) -> bool {
        has_readers(self.word.load(SeqCst))
    }

    /// The watches of all readers that are in.
    pub(crate) fn reader_watches(&self) -> Vec<Arc<Watch>> {
        self.reader_watches.lock().clone()
    }
}
