//! A lease that is kept between local locks: the word that they take their tokens from.
//!
//! Keeping a lease while nobody else wants it is what file systems do (GFS2's glocks, NFSv4's
//! delegations, Frangipani), and cohort locks within one machine. Here whoever has won the tiers
//! below the lease takes the next token of the lease's block with one compare-and-swap, and lets go
//! with another. Giving the lease back is one as well, on the same word, and needs no tier: a local
//! waiter behind a sibling process does not keep the lease from going where it is wanted.

// The simulator takes its tokens from here as well; nobody else sees it from outside.
#![allow(missing_docs)]
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

use std::sync::Arc;
#[cfg(not(tierlock_loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

#[cfg(tierlock_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use parking_lot::Mutex;

use crate::{
    error::{LostReason, Predecessor},
    overwriting::{self, LetGo, Overwriting},
    proto::{
        LeaseId,
        mistake::{Mistake, planted},
    },
    time::Time,
    token::Token,
    watch::Watch,
};

/// The kept lease of one name in one manager, if there is one.
///
/// | word | means | next |
/// |---|---|---|
/// | 0 | closed: nothing is kept | opened for the first holder of a lease |
/// | `OPEN`, how | idle: no guard; the count is the last one used | a holder enters; to be given back: `CLOSING` |
/// | `CLOSING` | nobody enters any more, but a guard may be about to | that enters, or else 0 |
/// | `OPEN IN_USE` | a guard holds the count's token | it leaves: idle |
/// | `OPEN IN_USE RECALLED` | the same, and somebody else waits | it leaves: 0, and gives the lease back |
/// | `OPEN IN_USE RECALLED LOST` | the same, and the lease is lost | likewise |
///
/// `WATCHED` beside `IN_USE`: the guard was asked to tell its loss.
///
/// Only whoever has won the tiers below enters, leaves, opens; whoever drives the link recalls and
/// loses, at any time. It opens and meets under the link's lock, and what is given back passes that
/// as well: whoever meets a lease meets no later one.
pub struct Kept {
    word: AtomicU64,
    /// For a guard that enters and leaves behind the tier below.
    overwriting: Overwriting,
    /// The lease's number: the epoch that made it, and its count in that.
    epoch: AtomicU64,
    number: AtomicU64,
    /// It is kept until somebody else asks for it, however long nobody uses it.
    is_for_good: AtomicBool,
    /// The epoch's part of the block's tokens, which all lie in one epoch.
    base: AtomicU64,
    /// The last count of the block.
    last: AtomicU64,
    /// The first count, and the one at which the next block is asked for.
    first: AtomicU64,
    half: AtomicU64,
    /// Tells the loss to the guard that asked for it.
    watch: Mutex<Option<Arc<Watch>>>,
    policy: Mutex<Policy>,
}

const COUNT: u64 = (1 << Token::COUNT_BITS) - 1;
const OPEN: u64 = 1 << 40;
const IN_USE: u64 = 1 << 41;
const RECALLED: u64 = 1 << 42;
const WATCHED: u64 = 1 << 43;
const LOST_SHIFT: u32 = 44;
const LOST: u64 = 0xf << LOST_SHIFT;
const HOW_SHIFT: u32 = 48;
const HOW: u64 = 0x7 << HOW_SHIFT;
/// On its way from idle to 0, by whoever waits for a guard that may be entering. Beside the count:
/// no other closing of the same lease looks like this one.
const CLOSING: u64 = 1 << 51;

/// A kept lease was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    pub token: Token,
    /// How the last local holder left.
    pub predecessor: Predecessor,
    /// Half of the block is used.
    pub is_running_short: bool,
}

/// What was used of a lease that is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub last: Token,
    /// How the last holder left.
    pub how: Predecessor,
    /// Locks that cost the leader nothing.
    pub local_grants: u64,
    /// It was recalled, not given back of one's own accord.
    pub is_recalled: bool,
}

/// What a recall or a loss met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Nothing: it is given back, or about to be.
    Closed,
    /// Nobody used it, and nobody will: whoever met it gives it back.
    Idle(Used),
    /// A guard, which gives it back when it leaves. Whether that guard has a watch to be told.
    InUse { is_watched: bool },
}

#[allow(clippy::new_without_default, reason = "it is made closed, not by default")]
impl Kept {
    pub fn new() -> Kept {
        Kept {
            word: AtomicU64::new(0),
            overwriting: Overwriting::new(),
            epoch: AtomicU64::new(0),
            number: AtomicU64::new(0),
            is_for_good: AtomicBool::new(false),
            base: AtomicU64::new(0),
            last: AtomicU64::new(0),
            first: AtomicU64::new(0),
            half: AtomicU64::new(0),
            watch: Mutex::new(None),
            policy: Mutex::new(Policy::default()),
        }
    }

    /// A lease was granted with this block, to a holder who has its first token.
    pub fn open(&self, lease: LeaseId, first: Token, last: Token) {
        assert_eq!(first.epoch(), last.epoch(), "a block lies in one epoch");
        self.epoch.store(lease.epoch.into(), Relaxed);
        self.number.store(lease.count, Relaxed);
        let (first, last) = (first.get(), last.get());
        self.base.store(first & !COUNT, Relaxed);
        self.last.store(last & COUNT, Relaxed);
        self.first.store(first & COUNT, Relaxed);
        self.half.store(half(first & COUNT, last & COUNT), Relaxed);
        let before = self.word.swap(OPEN | IN_USE | first & COUNT, AcqRel);
        assert_eq!(before, 0, "one lease of a name is kept at a time");
    }

    /// The lease that whoever is in has, or whoever was last in had.
    pub fn lease(&self) -> LeaseId {
        let epoch = self.epoch.load(Relaxed).try_into().expect("it was an epoch");
        LeaseId { epoch, count: self.number.load(Relaxed) }
    }

    /// The block goes on to `last`.
    pub fn extend(&self, last: Token) {
        let (used, last) = (self.word.load(Relaxed) & COUNT, last.get() & COUNT);
        self.half.store(half(used, last), Relaxed);
        self.last.store(last, Relaxed);
    }

    /// Takes the next token, not below `at_least`. `None` if nothing is kept, it is recalled, or
    /// the block has no such token; what is left is then to be [`taken`](Kept::take_idle) and given
    /// back. The lease's deadline is the caller's to check, *afterwards*.
    #[inline]
    pub fn enter(&self, at_least: Token) -> Option<Entered> {
        self.enter_as_seen(self.word.load(Acquire), at_least)
    }

    /// As [`enter`](Kept::enter), if the word is as it was `seen`, however long ago. The block is
    /// read now: only whoever has won the tiers below opens another.
    #[inline]
    pub fn enter_as_seen(&self, word: u64, at_least: Token) -> Option<Entered> {
        let entered = self.next(word, at_least)?;
        let in_use = OPEN | IN_USE | entered.token.get() & COUNT;
        self.word.compare_exchange(word, in_use, AcqRel, Relaxed).is_ok().then_some(entered)
    }

    /// Wins the tier below, and enters behind that by a plain store (see
    /// [`overwriting`](crate::overwriting)) if the word is as it was seen. `below` wins that tier by
    /// one read-modify-write, and says at which token to begin. What came of both.
    #[inline]
    pub(crate) fn enter_behind(
        &self,
        word: u64,
        below: impl FnOnce() -> Option<Token>,
    ) -> (Option<Token>, Option<Entered>) {
        self.overwriting.behind(below, |at_least| {
            let entered = at_least.and_then(|at_least| self.next(word, at_least));
            let is_same = || self.word.load(Relaxed) == word;
            let entered = entered.filter(|_| is_same());
            if let Some(entered) = &entered {
                overwriting::store(&self.word, OPEN | IN_USE | entered.token.get() & COUNT);
            }
            (at_least, entered)
        })
    }

    /// The next token, not below `at_least`, if the word is this one.
    #[inline]
    fn next(&self, word: u64, at_least: Token) -> Option<Entered> {
        if word & (OPEN | IN_USE | RECALLED | LOST) != OPEN {
            return None;
        }
        let base = self.base.load(Relaxed);
        let mut count = (word & COUNT) + 1;
        if at_least.get() > base + count {
            if at_least.get() & !COUNT != base {
                return None;
            }
            count = at_least.get() & COUNT;
        }
        if count > self.last.load(Relaxed) {
            return None;
        }
        Some(Entered {
            token: token(base | count),
            predecessor: Predecessor::from_u8(((word & HOW) >> HOW_SHIFT) as u8),
            is_running_short: count == self.half.load(Relaxed),
        })
    }

    /// Whether whoever has entered may go on. The deadline is to be read before the clock: what has
    /// ended at a deadline is marked before that moves.
    #[inline]
    pub fn is_good(&self, deadline: Time, now: Time) -> bool {
        let is_over = now >= deadline && !planted(Mistake::KeptPastDeadline);
        !is_over && self.lost().is_none()
    }

    /// The guard leaves. The lease stays, unless it is recalled or lost: then what was used of it
    /// is returned, to be given back.
    #[inline]
    pub fn leave(&self, how: Predecessor) -> Option<Used> {
        let word = self.word.load(Relaxed);
        if word & (RECALLED | WATCHED | LOST) == 0 {
            let idle = OPEN | word & COUNT | (how as u64) << HOW_SHIFT;
            if self.word.compare_exchange(word, idle, Release, Relaxed).is_ok() {
                return None;
            }
        }
        self.leave_slow(how)
    }

    /// As [`leave`](Kept::leave), for who knows its token, leaving clean.
    #[inline]
    pub fn leave_quietly(&self, token: Token) -> Option<Used> {
        if self.leave_if_quiet(token) { None } else { self.leave_slow(Predecessor::Clean) }
    }

    /// The same, by one compare-and-swap and nothing else, if nobody wants the lease or is to be
    /// told of its loss; whether it did.
    #[inline]
    pub fn leave_if_quiet(&self, token: Token) -> bool {
        let idle = OPEN | token.get() & COUNT | (Predecessor::Clean as u64) << HOW_SHIFT;
        let in_use = OPEN | IN_USE | token.get() & COUNT;
        self.word.compare_exchange(in_use, idle, Release, Relaxed).is_ok()
    }

    /// Lets go of the tier below, and leaves behind that by a plain store. `below` lets go of it by
    /// one read-modify-write, and says whether it did. If somebody wants the lease or is to be told
    /// of its loss, that is all that is let go of: the guard is still in.
    #[inline]
    pub(crate) fn leave_behind(&self, token: Token, below: impl FnOnce() -> bool) -> LetGo {
        let count = token.get() & COUNT;
        self.overwriting.behind(below, |is_let_go| {
            if !is_let_go {
                return LetGo::Nothing;
            }
            if self.word.load(Relaxed) != OPEN | IN_USE | count {
                return LetGo::Some;
            }
            overwriting::store(&self.word, OPEN | count | (Predecessor::Clean as u64) << HOW_SHIFT);
            LetGo::All
        })
    }

    #[cold]
    fn leave_slow(&self, how: Predecessor) -> Option<Used> {
        loop {
            let word = self.word.load(Acquire);
            debug_assert!(word & IN_USE != 0, "only a holder leaves");
            if word & WATCHED != 0 {
                self.end_watch();
            }
            let mut gives_back = word & (RECALLED | LOST) != 0;
            if planted(Mistake::HandOverWithoutEnd) {
                gives_back = word & LOST != 0;
            }
            let idle = OPEN | word & COUNT | (how as u64) << HOW_SHIFT;
            let next = if gives_back { 0 } else { idle };
            let used = self.used(word, how);
            if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_ok() {
                return gives_back.then_some(used);
            }
        }
    }

    /// The guard goes: what it did not hear of a loss by now it is told, and nothing more.
    pub(crate) fn end_watch(&self) {
        let watch = self.watch.lock().take();
        if let Some(watch) = watch {
            watch.end(self.lost());
        }
    }

    /// The guard leaves, and nothing stays: what was used is to be given back.
    pub fn leave_for_good(&self, how: Predecessor) -> Used {
        loop {
            match self.word.load(Acquire) {
                word if word & RECALLED != 0 => {
                    return self.leave_slow(how).expect("it is recalled");
                }
                word => {
                    let recalled = word | RECALLED;
                    let _ = self.word.compare_exchange(word, recalled, AcqRel, Relaxed);
                }
            }
        }
    }

    /// Closes it, if nobody uses it, and returns what was used, to be given back.
    pub fn take_idle(&self) -> Option<Used> {
        self.close(self.word.load(Acquire), false)
    }

    /// As [`take_idle`](Kept::take_idle), if nobody has used it since it looked like `seen`.
    pub fn take_unused(&self, seen: u64) -> Option<Used> {
        self.close(seen, false)
    }

    /// How it looks while nobody uses it; every use changes that.
    pub fn idle(&self) -> Option<u64> {
        let word = self.word.load(Relaxed);
        (word & (OPEN | IN_USE) == OPEN).then_some(word)
    }

    fn close(&self, word: u64, is_recalled: bool) -> Option<Used> {
        if word & (OPEN | IN_USE) != OPEN {
            return None;
        }
        let how = Predecessor::from_u8(((word & HOW) >> HOW_SHIFT) as u8);
        let used = Used { is_recalled, ..self.used(word, how) };
        if is_recalled && planted(Mistake::BlockUsedAfterRecall) {
            return Some(used);
        }
        let closing = CLOSING | word & COUNT;
        self.word.compare_exchange(word, closing, AcqRel, Relaxed).ok()?;
        self.overwriting.wait_behind_mark();
        // Else a guard entered and overwrote it: it was used, and may be closed by others since.
        self.word.compare_exchange(closing, 0, AcqRel, Relaxed).ok().map(|_| used)
    }

    fn used(&self, word: u64, how: Predecessor) -> Used {
        let count = word & COUNT;
        Used {
            last: token(self.base.load(Relaxed) | count),
            how,
            local_grants: count.saturating_sub(self.first.load(Relaxed)),
            is_recalled: word & RECALLED != 0,
        }
    }

    /// Somebody else waits for the lease.
    pub fn recall(&self) -> Met {
        self.meet(RECALLED)
    }

    /// The lease is lost. Only the first reason counts.
    pub fn lose(&self, why: LostReason) -> Met {
        self.meet(RECALLED | (why as u64) << LOST_SHIFT)
    }

    /// Its holder has found its deadline passed. Whoever asked to be told is told: the driver, which
    /// has yet to look, may find a later deadline then.
    pub(crate) fn expire(&self) {
        if let Met::InUse { is_watched: true } = self.lose(LostReason::Expired)
            && let (Some(watch), Some(why)) = (self.watched(), self.lost())
        {
            watch.lose(why);
        }
    }

    fn meet(&self, mark: u64) -> Met {
        loop {
            let word = self.word.load(Acquire);
            if word & OPEN == 0 {
                return Met::Closed;
            }
            if word & IN_USE == 0 {
                match self.close(word, true) {
                    Some(used) => return Met::Idle(used),
                    None => continue,
                }
            }
            let mark = if word & LOST != 0 { mark & !LOST } else { mark };
            if self.word.compare_exchange(word, word | mark, AcqRel, Relaxed).is_ok() {
                self.overwriting.wait_behind_mark();
                // Overwritten by a guard that left, or seen by it already.
                if self.word.load(Acquire) & RECALLED != 0 {
                    return Met::InUse { is_watched: word & WATCHED != 0 };
                }
            }
        }
    }

    /// Why the lease of the guard that is in is lost, as far as told.
    pub fn lost(&self) -> Option<LostReason> {
        lost(self.word.load(Acquire))
    }

    /// The watch of the guard that is in, made by `make` at the first call.
    pub(crate) fn watch(&self, make: impl FnOnce() -> Watch) -> Arc<Watch> {
        let mut slot = self.watch.lock();
        if let Some(watch) = &*slot {
            return watch.clone();
        }
        let watch = Arc::new(make());
        *slot = Some(watch.clone());
        drop(slot);
        // Who loses it later sees the flag, and tells the watch.
        let before = self.word.fetch_or(WATCHED, AcqRel);
        if let Some(why) = lost(before) {
            watch.lose(why);
        }
        watch
    }

    /// The watch of the guard that is in, if it was asked for.
    pub(crate) fn watched(&self) -> Option<Arc<Watch>> {
        self.watch.lock().clone()
    }

    /// Whether to ask for a lease that may be kept; `for_good` regardless of whether that pays.
    pub fn is_wanted(&self, for_good: bool) -> bool {
        self.is_for_good.store(for_good, Relaxed);
        for_good || self.policy.lock().is_wanted()
    }

    pub fn is_for_good(&self) -> bool {
        self.is_for_good.load(Relaxed)
    }

    /// The leader granted the name, to be kept or not; `had_to_queue` if somebody else had it.
    pub fn granted(&self, had_to_queue: bool) {
        self.policy.lock().granted(had_to_queue);
    }

    /// A kept lease went back; whether that was too soon to have paid.
    pub fn gone(&self, used: &Used) -> bool {
        self.policy.lock().gone(used)
    }
}

fn lost(word: u64) -> Option<LostReason> {
    LostReason::from_u8(((word & LOST) >> LOST_SHIFT) as u8)
}

fn half(first: u64, last: u64) -> u64 {
    first + (last - first) / 2
}

fn token(number: u64) -> Token {
    Token::new(number).expect("a block lies below the highest token")
}

/// When keeping pays: a lease is kept after a few grants in a row for which nobody else stood in the
/// way, after one that has paid at once, and after a recall that came too soon only after many more.
///
/// Whether somebody else had the name in between is not asked: tokens do not tell, since a name that
/// was forgotten goes on above all others. Where two take turns a lease is kept now and then, and
/// ever more seldom.
#[derive(Debug)]
struct Policy {
    /// Grants in a row that nobody stood in the way of.
    streak: u32,
    /// How many it takes.
    needed: u32,
}

/// Grants in a row before a lease is kept, at first and at most.
const STREAK_MIN: u32 = 3;
const STREAK_MAX: u32 = 192;
/// So many local locks pay for a recall.
const WORTH_IT: u64 = 16;

impl Default for Policy {
    fn default() -> Self {
        Policy { streak: 0, needed: STREAK_MIN }
    }
}

impl Policy {
    fn is_wanted(&self) -> bool {
        self.streak >= self.needed
    }

    fn granted(&mut self, had_to_queue: bool) {
        self.streak = if had_to_queue { 0 } else { self.streak.saturating_add(1) };
    }

    fn gone(&mut self, used: &Used) -> bool {
        let has_paid = used.local_grants >= WORTH_IT;
        let is_too_soon = used.is_recalled && !has_paid;
        self.needed = if is_too_soon { (self.needed * 4).min(STREAK_MAX) } else { STREAK_MIN };
        self.streak = if has_paid { self.needed } else { 0 };
        is_too_soon
    }
}

#[cfg(all(test, tierlock_loom))]
mod model;

#[cfg(all(test, not(tierlock_loom)))]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId { epoch: 2, count: 9 };

    fn number(count: u64) -> Token {
        Token::new(Token::first_of(2).get() + count).unwrap()
    }

    fn opened(first: u64, last: u64) -> Kept {
        let kept = Kept::new();
        kept.open(LEASE, number(first), number(last));
        kept
    }

    #[test]
    fn tokens_of_a_block_are_taken_one_after_the_other() {
        let kept = opened(10, 13);
        assert_eq!(kept.enter(Token::ZERO), None, "its first holder is in");
        assert_eq!(kept.leave(Predecessor::Panicked), None);
        let entered = kept.enter(Token::ZERO).unwrap();
        assert_eq!((entered.token, entered.predecessor), (number(11), Predecessor::Panicked));
        assert_eq!(kept.leave(Predecessor::Clean), None);
        let entered = kept.enter(number(13)).unwrap();
        assert_eq!((entered.token, entered.predecessor), (number(13), Predecessor::Clean));
        assert_eq!(kept.leave(Predecessor::Clean), None);
        assert_eq!(kept.enter(Token::ZERO), None, "the block is used up");
        let used = kept.take_idle().unwrap();
        assert_eq!((used.last, used.local_grants, used.is_recalled), (number(13), 3, false));
        assert_eq!((kept.enter(Token::ZERO), kept.take_idle()), (None, None));
        assert_eq!(kept.lease(), LEASE);
    }

    #[test]
    fn a_block_that_goes_on_is_used_on_and_half_of_it_asks_for_more() {
        let kept = opened(10, 14);
        kept.leave(Predecessor::Clean);
        let short: Vec<_> = (11..=14)
            .map(|_| {
                let entered = kept.enter(Token::ZERO).unwrap();
                kept.leave(Predecessor::Clean);
                entered.is_running_short
            })
            .collect();
        assert_eq!(short, [false, true, false, false]);
        kept.extend(number(20));
        let entered = kept.enter(Token::ZERO).unwrap();
        assert_eq!((entered.token, entered.is_running_short), (number(15), false));
    }

    #[test]
    fn a_token_that_must_exceed_another_epoch_is_not_in_the_block() {
        let kept = opened(10, 100);
        kept.leave(Predecessor::Clean);
        assert_eq!(kept.enter(Token::first_of(3)), None);
        assert_eq!(kept.enter(number(101)), None);
        assert_eq!(kept.enter(number(50)).unwrap().token, number(50));
    }

    /// Seed 1132 of the simulator: the count after the last of an epoch is no token of it.
    #[test]
    fn a_block_at_the_end_of_its_epoch_ends_there() {
        let kept = opened(COUNT - 1, COUNT);
        kept.leave(Predecessor::Clean);
        assert_eq!(kept.enter(Token::ZERO).unwrap().token, number(COUNT));
        kept.leave(Predecessor::Clean);
        assert_eq!(kept.enter(number(COUNT - 5)), None);
        assert_eq!(kept.take_idle().unwrap().last, number(COUNT));
    }

    #[test]
    fn a_recall_meets_nobody_or_a_guard_that_gives_back() {
        let kept = opened(10, 100);
        assert_eq!(kept.recall(), Met::InUse { is_watched: false });
        let used = kept.leave(Predecessor::Panicked).unwrap();
        assert_eq!(
            (used.last, used.how, used.is_recalled),
            (number(10), Predecessor::Panicked, true)
        );
        assert_eq!((kept.enter(Token::ZERO), kept.recall()), (None, Met::Closed));

        kept.open(LEASE, number(200), number(300));
        kept.leave(Predecessor::Clean);
        let Met::Idle(used) = kept.recall() else { panic!("nobody is in") };
        assert_eq!((used.last, used.is_recalled), (number(200), true));
        assert_eq!((kept.enter(Token::ZERO), kept.recall()), (None, Met::Closed));
    }

    #[test]
    fn who_enters_behind_the_tier_below_finds_what_was_closed_meanwhile() {
        let kept = opened(10, 100);
        kept.leave(Predecessor::Panicked);
        let seen = kept.idle().unwrap();
        assert_eq!(kept.enter_behind(seen, || None), (None, None));
        let (won, entered) = kept.enter_behind(seen, || Some(number(12)));
        let entered = entered.unwrap();
        assert_eq!((won, entered.token), (Some(number(12)), number(12)));
        assert_eq!(entered.predecessor, Predecessor::Panicked);
        assert_eq!(kept.recall(), Met::InUse { is_watched: false });
        assert!(kept.leave(Predecessor::Clean).is_some());

        let kept = opened(10, 100);
        kept.leave(Predecessor::Clean);
        let seen = kept.idle().unwrap();
        let close = || {
            kept.word.store(0, Release);
            Some(number(1))
        };
        assert_eq!(kept.enter_behind(seen, close), (Some(number(1)), None));
        assert_eq!(kept.idle(), None);
    }

    #[test]
    fn a_guard_that_leaves_behind_the_tier_below_is_seen_by_a_recall_and_sees_it() {
        let kept = opened(10, 100);
        assert_eq!(kept.leave_behind(number(10), || false), LetGo::Nothing);
        assert_eq!(kept.idle(), None, "it is in as long as the tier below is held");
        assert_eq!(kept.leave_behind(number(10), || true), LetGo::All);
        assert_eq!(kept.enter(Token::ZERO).map(|entered| entered.token), Some(number(11)));
        let let_go = kept.leave_behind(number(11), || {
            // Whoever recalls waits for the outcome; here it has just put its mark.
            kept.word.fetch_or(RECALLED, AcqRel);
            true
        });
        assert_eq!(let_go, LetGo::Some);
        assert!(kept.leave(Predecessor::Clean).is_some_and(|used| used.is_recalled));
    }

    /// The guard was about to enter when the recall met an idle word, and all that it did, up to
    /// closing the word itself, was done before the recall looked again.
    #[test]
    fn what_a_guard_closed_that_a_recall_waited_for_is_given_back_by_that_guard() {
        let kept = opened(10, 100);
        kept.leave(Predecessor::Clean);
        let seen = kept.idle().unwrap();
        std::thread::scope(|scope| {
            let recall = kept.overwriting.behind(
                || {
                    let recall = scope.spawn(|| kept.recall());
                    while kept.idle() == Some(seen) {
                        std::thread::yield_now();
                    }
                    recall
                },
                |recall| {
                    overwriting::store(&kept.word, OPEN | IN_USE | 11);
                    recall
                },
            );
            let mine = match kept.leave(Predecessor::Panicked) {
                Some(used) => Some(used),
                None => kept.take_idle(),
            };
            let given_back = match (mine, recall.join().unwrap()) {
                (Some(used), Met::Closed | Met::InUse { .. }) | (None, Met::Idle(used)) => used,
                both => panic!("given back twice, or not at all: {both:?}"),
            };
            assert_eq!((given_back.last, given_back.how), (number(11), Predecessor::Panicked));
        });
    }

    #[test]
    fn recalls_that_meet_guards_who_leave_behind_the_tier_below_are_never_overlooked() {
        const LEASES: u64 = 2_000;
        let (kept, below) = (Kept::new(), AtomicBool::new(false));
        let (open, opened) = std::sync::mpsc::channel();
        let (back, given_back) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for token in opened {
                    let mut token: Token = token;
                    let used = loop {
                        let let_go = kept.leave_behind(token, || below.swap(false, AcqRel));
                        if let_go == LetGo::Some
                            && let Some(used) = kept.leave(Predecessor::Clean)
                        {
                            break Some(used);
                        }
                        let entered = kept.idle().and_then(|seen| {
                            let win = || (!below.swap(true, AcqRel)).then_some(Token::ZERO);
                            kept.enter_behind(seen, win).1
                        });
                        match entered {
                            Some(entered) => token = entered.token,
                            None => break None,
                        }
                    };
                    back.send((token, used)).unwrap();
                }
            });
            for count in 1..=LEASES {
                let first = number(count << 24);
                kept.open(LEASE, first, number((count << 24) + (1 << 24) - 1));
                below.store(true, Release);
                open.send(first).unwrap();
                (0..count % 128).for_each(|_| std::hint::spin_loop());
                let met = kept.recall();
                let (last, used) = given_back.recv().unwrap();
                let used = match met {
                    Met::Idle(theirs) => {
                        assert_eq!(used, None, "given back twice");
                        theirs
                    }
                    _ => used.expect("it was recalled from a guard"),
                };
                assert_eq!(used.last, last);
            }
            drop(open);
        });
    }

    #[test]
    fn a_guard_hears_of_its_loss_once_and_by_its_first_reason() {
        let kept = opened(10, 100);
        assert_eq!(kept.lost(), None);
        let watch = kept.watch(|| Watch::new(None, None));
        assert!(!watch.is_told());
        assert_eq!(kept.lose(LostReason::Broken), Met::InUse { is_watched: true });
        assert_eq!(kept.lose(LostReason::Expired), Met::InUse { is_watched: true });
        assert_eq!(kept.lost(), Some(LostReason::Broken));
        assert!(kept.leave(Predecessor::Clean).is_some());
        assert_eq!(kept.lost(), None, "there is no guard");

        kept.open(LEASE, number(200), number(300));
        kept.lose(LostReason::Expired);
        // Asked for afterwards, it knows.
        assert_eq!(kept.watch(|| Watch::new(None, None)).lost(), Some(LostReason::Expired));
    }

    #[test]
    fn a_guard_that_finds_its_deadline_passed_is_told_at_once() {
        let kept = opened(10, 100);
        let watch = kept.watch(|| Watch::new(None, None));
        kept.expire();
        assert_eq!((kept.lost(), watch.told()), (Some(LostReason::Expired), watch.lost()));
        assert_eq!(watch.told(), Some(LostReason::Expired));
    }

    /// By the guard's own look at the clock, say, before whoever drives the link looked at its own.
    #[test]
    fn a_loss_that_nobody_told_yet_is_told_when_the_guard_leaves() {
        let kept = opened(10, 13);
        let (tell, told) = std::sync::mpsc::channel();
        let watch = kept.watch(|| Watch::new(None, None));
        watch.on_lost(Box::new(move |why| tell.send(why).unwrap()));
        kept.lose(LostReason::Expired);
        assert!(kept.leave(Predecessor::Clean).is_some());
        assert_eq!(told.recv(), Ok(LostReason::Expired));
    }

    #[test]
    fn a_watch_ends_with_its_guard() {
        let kept = opened(10, 100);
        let watch = kept.watch(|| Watch::new(None, None));
        kept.leave(Predecessor::Clean);
        assert!(kept.watched().is_none());
        kept.enter(Token::ZERO).unwrap();
        kept.lose(LostReason::Broken);
        assert_eq!(watch.lost(), None, "it was let go in good order");
    }

    #[test]
    fn what_was_used_since_is_not_taken_as_unused() {
        let kept = opened(10, 100);
        kept.leave(Predecessor::Clean);
        let seen = kept.idle().unwrap();
        kept.enter(Token::ZERO).unwrap();
        assert_eq!((kept.idle(), kept.take_unused(seen)), (None, None));
        kept.leave(Predecessor::Clean);
        assert_eq!(kept.take_unused(seen), None);
        assert!(kept.take_unused(kept.idle().unwrap()).is_some());
    }

    #[test]
    fn a_lease_is_wanted_for_keeping_after_some_grants_in_a_row() {
        let kept = Kept::new();
        (0..2).for_each(|_| kept.granted(false));
        assert!(!kept.is_wanted(false));
        assert!(kept.is_wanted(true));
        kept.granted(false);
        assert!(kept.is_wanted(false));
        // Somebody else had it.
        kept.granted(true);
        assert!(!kept.is_wanted(false));
    }

    #[test]
    fn after_a_recall_that_paid_a_lease_is_kept_again_and_while_two_take_turns_ever_more_seldom() {
        let kept = Kept::new();
        let recalled_after = |local_grants| Used {
            last: number(local_grants),
            how: Predecessor::Clean,
            local_grants,
            is_recalled: true,
        };
        let grants_until_wanted = || {
            let grants = 0..1_000;
            let mut grants = grants.take_while(|_| {
                let is_wanted = kept.is_wanted(false);
                kept.granted(false);
                !is_wanted
            });
            grants.by_ref().count()
        };
        kept.granted(true);
        assert!(!kept.gone(&recalled_after(4995)), "it paid");
        assert!(kept.is_wanted(false));
        // Whoever asked for it has it just now.
        kept.granted(true);
        for expected in [12, 48, 192, 192] {
            assert!(kept.gone(&recalled_after(2)), "it did not");
            assert_eq!(grants_until_wanted(), expected);
        }
        assert!(!kept.gone(&recalled_after(16)));
        assert_eq!(grants_until_wanted(), 0);
    }
}
