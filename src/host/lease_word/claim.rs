//! The side of those that wait for a lease: claims, reservations, and the one that is woken.

use super::{
    COUNT, Claim, HOW, HUNGRY, IN_USE, LeaseWord, Left, OPEN, RECALLED, RESERVED, SHARED, Used,
    WAITERS, how, is_occupied,
    waiter::WordWaiter,
    words,
    words::Ordering::*,
    words::{Flaw, flawed},
};
use crate::{error::LostReason, time::Time};

/// For the representative: the one thread or task that has won the process's turnstile.
impl LeaseWord {
    /// Takes what is reserved, or the next token of an idle word.
    pub fn claim(&self) -> Claim {
        loop {
            let word = self.word.load(Acquire);
            if word & OPEN == 0 {
                return Claim::Closed(LostReason::from_u8(self.ended.load(Relaxed)));
            }
            if word & (IN_USE | SHARED) != 0 {
                return Claim::Held;
            }
            let is_reserved = word & RESERVED != 0;
            // Behind the last count of an epoch comes none.
            let is_over = !is_reserved && word & COUNT == COUNT;
            let count = (word & COUNT) + u64::from(!is_reserved && !is_over);
            let in_use = OPEN | IN_USE | word & RECALLED | count;
            if self.word.compare_exchange(word, in_use, AcqRel, Relaxed).is_err() {
                continue;
            }
            self.get_up();
            if is_over {
                let Left::GivesBack(used) = self.leave_slow(count, how(word), true) else {
                    unreachable!("it is in, and nothing stays");
                };
                return Claim::UsedUp(used);
            }
            return match self.entered(count, how(word)) {
                Some(entered) => Claim::Entered(entered),
                None => Claim::UsedUp(self.leave_used_up(count, how(word))),
            };
        }
    }

    /// Marks a word that is in use, so that its guard wakes the representative; a hungry one is
    /// handed the word. Whether it is in use: else there is something to claim or to ask for. Readers
    /// are joined by no others.
    fn mark_waiting(&self, is_hungry: bool) -> bool {
        let mark = if is_hungry { WAITERS | HUNGRY } else { WAITERS };
        let mut word = self.word.load(Acquire);
        while is_occupied(word) {
            let mark = if word & SHARED != 0 { WAITERS | RECALLED } else { mark };
            if word & mark == mark || flawed(Flaw::SleptUnmarked) {
                return true;
            }
            match self.word.compare_exchange(word, word | mark, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Sleeps while a guard is in, at most until `until`; it may end sooner. The representative
    /// claims again afterwards.
    ///
    /// The place to be woken at is put up first, then the word is looked at and marked in one step:
    /// a guard that leaves before the mark leaves something to claim, one that leaves after it wakes.
    pub(crate) fn sleep(&self, is_hungry: bool, until: Time) {
        let is_marked = flawed(Flaw::SeatedAfterMark) && self.mark_waiting(is_hungry);
        drop(self.seat.sit_down(WordWaiter::this_thread()));
        if is_marked || self.mark_waiting(is_hungry) {
            words::park(until);
        }
        self.get_up();
    }

    /// As [`sleep`](LeaseWord::sleep), for a task: whether this waker will be woken. Else there is
    /// something to claim or to ask for.
    pub(crate) fn register(&self, is_hungry: bool, waker: &std::task::Waker) -> bool {
        drop(self.seat.sit_down(WordWaiter::Task(waker.clone())));
        let is_marked = self.mark_waiting(is_hungry);
        if !is_marked {
            self.get_up();
        }
        is_marked
    }

    /// Nothing sleeps here any more. A waker is foreign code, and dropped when nothing is locked.
    pub(super) fn get_up(&self) {
        drop(self.take_waiter());
    }

    /// The representative goes without having claimed: it leaves no mark and no reservation behind.
    /// What was reserved is idle again, or was not to stay and is returned, to be given back.
    pub fn give_up(&self) -> Option<Used> {
        self.get_up();
        self.word.fetch_and(!(WAITERS | HUNGRY), AcqRel);
        self.give_up_reserved()
    }

    /// The same of a reservation alone, for a request that ends when its grant is there: by then
    /// another representative may wait.
    pub(crate) fn give_up_reserved(&self) -> Option<Used> {
        let mut word = self.word.load(Acquire);
        while word & RESERVED != 0 {
            let (count, predecessor) = (word & COUNT, how(word));
            // An idle word's count is one that was used; before the first of an epoch is none.
            let is_closed = word & RECALLED != 0 || count == 0;
            let used = self.used(word, count, predecessor);
            let idle = OPEN | word & HOW | count.saturating_sub(1);
            let next = if is_closed { 0 } else { idle };
            match self.word.compare_exchange(word, next, AcqRel, Acquire) {
                Ok(_) => return is_closed.then_some(used),
                Err(now) => word = now,
            }
        }
        None
    }

    /// What is reserved is of no use to the representative, which wants to read and has it for itself
    /// alone, or the other way round: closes it, to be given back.
    pub fn refuse_reserved(&self) -> Option<Used> {
        let mut word = self.word.load(Acquire);
        while word & RESERVED != 0 {
            let used = self.used(word, word & COUNT, how(word));
            match self.word.compare_exchange(word, 0, AcqRel, Acquire) {
                Ok(_) => return Some(used),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Wakes the representative, if it sleeps here. Wakers are foreign code: no lock may be held.
    pub fn wake(&self) {
        if let Some(waiter) = self.take_waiter() {
            waiter.wake();
        }
    }

    /// What [`wake`](LeaseWord::wake) would wake, for a caller that holds a lock: to be woken once
    /// it holds none.
    pub(crate) fn take_waiter(&self) -> Option<WordWaiter> {
        self.seat.get_up()
    }
}
