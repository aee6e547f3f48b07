//! What the service does with a word, under its own lock: it opens, recalls, loses and closes it, and moves
//! the lease of a writer apart. Whatever these close may be slept at: see
//! [`take_waiter`](LeaseWord::take_waiter).

use super::{
    COUNT, Claim, IN_USE, LOST, LeaseKey, LeaseWord, Met, OPEN, RECALLED, RESERVED, SHARED, Used,
    WATCHED, how, is_occupied, told, words::Ordering::*,
};
use crate::{
    error::{LostReason, Predecessor},
    mistake::{Mistake, planted},
    time::Time,
    token::Token,
};

/// What a service opens a word with.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub lease: LeaseKey,
    /// The block of tokens.
    pub first: Token,
    pub last: Token,
    /// How the last holder left.
    pub predecessor: Predecessor,
    /// The lease's own end.
    pub at_most: Option<Time>,
    /// Whether the lease stays after its first guard; else it is recalled from the start.
    pub keeps: bool,
    /// The lease is shared: for readers, which bear its one token.
    pub is_shared: bool,
}

impl LeaseWord {
    /// A lease was granted: the word is open for the representative.
    pub fn open(&self, opening: Opening) {
        let Opening { lease, first, last, predecessor, at_most, keeps, is_shared } = opening;
        assert_eq!(first.epoch(), last.epoch(), "a block lies in one epoch");
        assert_eq!(self.word.load(Acquire), 0, "one lease of a name is open at a time");
        self.lease[0].store(lease.high, Relaxed);
        self.lease[1].store(lease.low, Relaxed);
        self.end.store(at_most.unwrap_or(Time::NEVER).as_nanos(), Relaxed);
        self.keeps.store(keeps, Relaxed);
        self.ended.store(0, Relaxed);
        let (first, last) = (first.get(), last.get());
        self.borne.store(last, Relaxed);
        self.base.store(first & !COUNT, Relaxed);
        self.last.store(last & COUNT, Relaxed);
        self.first.store(first & COUNT, Relaxed);
        // A lease that goes with its guard needs no further block.
        let half = if keeps && !is_shared { half(first & COUNT, last & COUNT) } else { COUNT + 1 };
        self.half.store(half, Relaxed);
        let recalled = if keeps { 0 } else { RECALLED };
        let opened = OPEN | RESERVED | recalled | told(predecessor);
        // Readers are counted where the count of tokens stands else.
        let opened = if is_shared { opened | SHARED } else { opened | first & COUNT };
        let before = self.word.swap(opened, AcqRel);
        assert_eq!(before, 0, "only the service opens");
    }

    /// Whether it is open with this lease.
    pub(crate) fn is_of(&self, lease: LeaseKey) -> bool {
        self.word.load(Acquire) & OPEN != 0 && self.lease() == lease
    }

    /// The block goes on to `last`.
    pub fn extend(&self, last: Token) {
        let (used, last) = (self.word.load(Relaxed) & COUNT, last.get() & COUNT);
        self.half.store(half(used, last), Relaxed);
        self.last.store(last, Relaxed);
    }

    /// Another session waits for the lease.
    pub fn recall(&self) -> Met {
        self.meet(None)
    }

    /// The lease is lost. Only the first reason counts.
    pub fn lose(&self, why: LostReason) -> Met {
        self.meet(Some(why))
    }

    fn meet(&self, lost: Option<LostReason>) -> Met {
        loop {
            match self.word.load(Acquire) {
                word if word & OPEN == 0 => return Met::Closed,
                word if is_occupied(word) => match self.mark(RECALLED, lost) {
                    Met::Closed => {}
                    met => return met,
                },
                word if word & RESERVED != 0 && lost.is_none() => {
                    let next = word | RECALLED;
                    if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_ok() {
                        return Met::Reserved;
                    }
                }
                word => {
                    self.ended.store(lost.map_or(0, |why| why as u8), Relaxed);
                    if let Some(used) = self.close(word, true) {
                        return Met::Idle(used);
                    }
                    self.ended.store(0, Relaxed);
                }
            }
        }
    }

    /// Closes it, if it is idle, and returns what was used, to be given back.
    pub fn close_idle(&self) -> Option<Used> {
        let word = self.word.load(Acquire);
        let is_idle = word & RESERVED == 0 && !is_occupied(word);
        is_idle.then(|| self.close(word, false)).flatten()
    }

    /// No mutex of the name is left, and no guard: closes it, idle or reserved for a future that was
    /// leaked. A grant that comes for such a future later is to be given back unopened.
    pub(crate) fn retire(&self) -> Option<Used> {
        self.is_retired.store(true, Relaxed);
        self.give_up_reserved().or_else(|| self.close_idle())
    }

    /// Whether it was [retired](LeaseWord::retire).
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed)
    }

    /// As [`close_idle`](LeaseWord::close_idle), if it was not entered since it looked like `seen`.
    pub fn close_unused(&self, seen: u64) -> Option<Used> {
        self.close(seen, false)
    }

    /// How it looks while it is idle; every use changes that.
    pub fn idle(&self) -> Option<u64> {
        let word = self.word.load(Relaxed);
        (word & (OPEN | RESERVED) == OPEN && !is_occupied(word)).then_some(word)
    }

    fn close(&self, word: u64, is_recalled: bool) -> Option<Used> {
        if word & OPEN == 0 || is_occupied(word) {
            return None;
        }
        let used = Used { is_recalled, ..self.used(word, word & COUNT, how(word)) };
        if is_recalled && planted(Mistake::BlockUsedAfterRecall) {
            return Some(used);
        }
        self.word.compare_exchange(word, 0, AcqRel, Relaxed).ok().map(|_| used)
    }
}

/// The lease of one guard that stands [apart](super::apart).
impl LeaseWord {
    /// The guard that has it [apart](super::apart) has another token.
    pub(crate) fn bear(&self, token: Token) {
        self.borne.store(token.get(), Relaxed);
    }

    /// Moves the guard with this token, which is in, and its lease to
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
}

fn half(first: u64, last: u64) -> u64 {
    first + (last - first) / 2
}
