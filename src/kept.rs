//! A lease that is kept between local locks: the word that they take their tokens from.
//!
//! Keeping a lease while nobody else wants it is what file systems do (GFS2's glocks, NFSv4's
//! delegations, Frangipani), and cohort locks within one machine. Here whoever has won the tiers
//! below the lease takes the next token of the lease's block with one compare-and-swap, and lets go
//! with another. Giving the lease back is one as well, on the same word, and needs no tier: a local
//! waiter behind a sibling process does not keep the lease from going where it is wanted.

#[cfg(not(tierlock_loom))]
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::Arc;

#[cfg(tierlock_loom)]
use loom::sync::atomic::{AtomicU64, Ordering::*};
use parking_lot::Mutex;

use crate::{
    error::{LostReason, Predecessor},
    token::Token,
    watch::Watch,
};

/// The kept lease of one name in one manager, if there is one.
///
/// | word | means | next |
/// |---|---|---|
/// | 0 | closed: nothing is kept | opened for the first holder of a lease |
/// | `OPEN`, how | idle: no guard; the count is the last one used | a holder enters; given back: 0 |
/// | `OPEN IN_USE` | a guard holds the count's token | it leaves: idle |
/// | `OPEN IN_USE RECALLED` | the same, and somebody else waits | it leaves: 0, and gives the lease back |
/// | `OPEN IN_USE RECALLED LOST` | the same, and the lease is lost | likewise |
///
/// `WATCHED` beside `IN_USE`: the guard was asked to tell its loss.
///
/// Only whoever has won the tiers below enters, leaves, opens; whoever drives the link recalls and
/// loses, at any time.
pub(crate) struct Kept {
    word: AtomicU64,
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

/// A kept lease was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) token: Token,
    /// How the last local holder left.
    pub(crate) predecessor: Predecessor,
    /// Half of the block is used.
    pub(crate) is_running_short: bool,
}

/// What was used of a lease that is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) last: Token,
    /// How the last holder left.
    pub(crate) how: Predecessor,
    /// Locks that cost the leader nothing.
    pub(crate) local_grants: u64,
    /// It was recalled, not given back of one's own accord.
    pub(crate) is_recalled: bool,
}

/// What a recall or a loss met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// Nothing: it is given back, or about to be.
    Closed,
    /// Nobody used it, and nobody will: whoever met it gives it back.
    Idle(Used),
    /// A guard, which gives it back when it leaves. Whether that guard has a watch to be told.
    InUse { is_watched: bool },
}

impl Kept {
    pub(crate) fn new() -> Kept {
        Kept {
            word: AtomicU64::new(0),
            base: AtomicU64::new(0),
            last: AtomicU64::new(0),
            first: AtomicU64::new(0),
            half: AtomicU64::new(0),
            watch: Mutex::new(None),
            policy: Mutex::new(Policy::default()),
        }
    }

    /// A lease was granted with this block, to a holder who has its first token.
    pub(crate) fn open(&self, first: Token, last: Token) {
        assert_eq!(first.epoch(), last.epoch(), "a block lies in one epoch");
        let (first, last) = (first.get(), last.get());
        self.base.store(first & !COUNT, Relaxed);
        self.last.store(last & COUNT, Relaxed);
        self.first.store(first & COUNT, Relaxed);
        self.half.store(half(first & COUNT, last & COUNT), Relaxed);
        let before = self.word.swap(OPEN | IN_USE | first & COUNT, AcqRel);
        assert_eq!(before, 0, "one lease of a name is kept at a time");
    }

    /// The block goes on to `last`.
    pub(crate) fn extend(&self, last: Token) {
        let (used, last) = (self.word.load(Relaxed) & COUNT, last.get() & COUNT);
        self.half.store(half(used, last), Relaxed);
        self.last.store(last, Relaxed);
    }

    /// Takes the next token, not below `at_least`. `None` if nothing is kept, it is recalled, or
    /// the block has no such token; what is left is then to be [`taken`](Kept::take_idle) and given
    /// back. The lease's deadline is the caller's to check, *afterwards*.
    #[inline]
    pub(crate) fn enter(&self, at_least: Token) -> Option<Entered> {
        let word = self.word.load(Acquire);
        if word & (OPEN | IN_USE | RECALLED | LOST) != OPEN {
            return None;
        }
        let base = self.base.load(Relaxed);
        let mut count = (word & COUNT) + 1;
        if at_least.get() > base | count {
            if at_least.get() & !COUNT != base {
                return None;
            }
            count = at_least.get() & COUNT;
        }
        if count > self.last.load(Relaxed) {
            return None;
        }
        let entered = OPEN | IN_USE | count;
        self.word.compare_exchange(word, entered, AcqRel, Relaxed).ok()?;
        Some(Entered {
            token: token(base | count),
            predecessor: Predecessor::from_u8(((word & HOW) >> HOW_SHIFT) as u8),
            is_running_short: count == self.half.load(Relaxed),
        })
    }

    /// The guard leaves. The lease stays, unless it is recalled or lost: then what was used of it
    /// is returned, to be given back.
    #[inline]
    pub(crate) fn leave(&self, how: Predecessor) -> Option<Used> {
        let word = self.word.load(Relaxed);
        if word & (RECALLED | WATCHED | LOST) == 0 {
            let idle = OPEN | word & COUNT | (how as u64) << HOW_SHIFT;
            if self.word.compare_exchange(word, idle, Release, Relaxed).is_ok() {
                return None;
            }
        }
        self.leave_slow(how)
    }

    #[cold]
    fn leave_slow(&self, how: Predecessor) -> Option<Used> {
        // Foreign code may hang on it: dropped last.
        let mut watch = None;
        loop {
            let word = self.word.load(Acquire);
            debug_assert!(word & IN_USE != 0, "only a holder leaves");
            if word & WATCHED != 0 && watch.is_none() {
                watch = self.watch.lock().take().map(|watch| watch.release());
            }
            let gives_back = word & (RECALLED | LOST) != 0;
            let idle = OPEN | word & COUNT | (how as u64) << HOW_SHIFT;
            let next = if gives_back { 0 } else { idle };
            let used = self.used(word, how);
            if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_ok() {
                return gives_back.then_some(used);
            }
        }
    }

    /// The guard leaves, and nothing stays: what was used is to be given back.
    pub(crate) fn leave_for_good(&self, how: Predecessor) -> Used {
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
    pub(crate) fn take_idle(&self) -> Option<Used> {
        self.close(self.word.load(Acquire), false)
    }

    /// As [`take_idle`](Kept::take_idle), if nobody has used it since it looked like `seen`.
    pub(crate) fn take_unused(&self, seen: u64) -> Option<Used> {
        self.close(seen, false)
    }

    /// How it looks while nobody uses it; every use changes that.
    pub(crate) fn idle(&self) -> Option<u64> {
        let word = self.word.load(Relaxed);
        (word & (OPEN | IN_USE) == OPEN).then_some(word)
    }

    fn close(&self, word: u64, is_recalled: bool) -> Option<Used> {
        if word & (OPEN | IN_USE) != OPEN {
            return None;
        }
        let how = Predecessor::from_u8(((word & HOW) >> HOW_SHIFT) as u8);
        let used = Used { is_recalled, ..self.used(word, how) };
        self.word.compare_exchange(word, 0, AcqRel, Relaxed).ok().map(|_| used)
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
    pub(crate) fn recall(&self) -> Met {
        self.meet(RECALLED)
    }

    /// The lease is lost. Only the first reason counts.
    pub(crate) fn lose(&self, why: LostReason) -> Met {
        self.meet(RECALLED | (why as u64) << LOST_SHIFT)
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
                return Met::InUse { is_watched: word & WATCHED != 0 };
            }
        }
    }

    /// Why the lease of the guard that is in is lost, as far as told.
    pub(crate) fn lost(&self) -> Option<LostReason> {
        let word = self.word.load(Acquire);
        LostReason::from_u8(((word & LOST) >> LOST_SHIFT) as u8)
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
        let lost = LostReason::from_u8(((before & LOST) >> LOST_SHIFT) as u8);
        if let Some(why) = lost {
            let _ = watch.mark(why);
        }
        watch
    }

    /// The watch of the guard that is in, if it was asked for.
    pub(crate) fn watched(&self) -> Option<Arc<Watch>> {
        self.watch.lock().clone()
    }

    /// Whether to ask for a lease that may be kept.
    pub(crate) fn is_wanted(&self, always: bool) -> bool {
        always || self.policy.lock().is_wanted()
    }

    /// The leader granted the name, this time or another.
    pub(crate) fn granted(&self, first: Token) {
        self.policy.lock().granted(first);
    }

    /// A kept lease went back; whether that was too soon to have paid.
    pub(crate) fn gone(&self, used: &Used) -> bool {
        self.policy.lock().gone(used)
    }
}

fn half(first: u64, last: u64) -> u64 {
    first + (last - first) / 2
}

fn token(number: u64) -> Token {
    Token::new(number).expect("a block lies below the highest token")
}

/// When keeping pays: a lease is kept after a few grants in a row between which nobody else had the
/// name, and after a recall that came too soon only after many more.
#[derive(Debug)]
struct Policy {
    /// Grants in a row that followed each other.
    streak: u32,
    /// How many it takes.
    needed: u32,
    /// The last token that was used here.
    last: Token,
}

/// Grants in a row before a lease is kept, at first and at most.
const STREAK_MIN: u32 = 3;
const STREAK_MAX: u32 = 192;
/// So many local locks pay for a recall.
const WORTH_IT: u64 = 16;

impl Default for Policy {
    fn default() -> Self {
        Policy { streak: 0, needed: STREAK_MIN, last: Token::ZERO }
    }
}

impl Policy {
    fn is_wanted(&self) -> bool {
        self.streak >= self.needed
    }

    fn granted(&mut self, first: Token) {
        let is_next = first.get() == self.last.get() + 1;
        self.streak = if is_next { self.streak.saturating_add(1) } else { 0 };
        self.last = first;
    }

    fn gone(&mut self, used: &Used) -> bool {
        self.last = used.last;
        let is_too_soon = used.is_recalled && used.local_grants < WORTH_IT;
        if is_too_soon {
            self.streak = 0;
            self.needed = (self.needed * 4).min(STREAK_MAX);
        } else {
            self.needed = STREAK_MIN;
        }
        is_too_soon
    }
}
