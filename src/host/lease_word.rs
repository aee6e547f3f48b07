//! The lease word: which guard of this process holds a host-scope lock, and what becomes of its
//! lease.
//!
//! Every lease of a manager goes through the word of its name, kept or not. The word is the gate of
//! the name at host scope: the lease excludes all other sessions, and the one exchange that takes an
//! open word decides between the threads of this one. Keeping a lease while no other session wants it
//! is what file systems do (GFS2's glocks, NFSv4's delegations, Frangipani), and cohort locks within
//! one machine: the next local lock then takes the next token of the lease's block and needs no
//! message.
//!
//! Three roles change the word:
//!
//! - any thread **enters** an open idle word and, as its guard, **leaves** it;
//! - the **representative**, the one thread or task of the process that has won its turnstile,
//!   waits at a word that is in use, claims what is reserved for it, and alone asks the service for
//!   a lease while the word is 0;
//! - the **service**, under its own lock, opens the word, recalls, loses and closes it.

// The simulator takes its tokens from here as well; nothing else sees it from outside.
#![allow(missing_docs)]
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

use std::sync::Arc;

use crate::{
    error::{LostReason, Predecessor},
    mistake::{Mistake, planted},
    time::Time,
    token::Token,
    watch::{Deadline, Watch},
};

mod apart;
mod claim;
#[cfg(any(feature = "host", feature = "testing", test))]
mod granting;
mod keeping;
#[cfg(all(test, tierlock_loom))]
mod model;
mod shared;
mod staying;
#[cfg(all(test, not(tierlock_loom)))]
mod tests;
mod waiter;
mod words;

#[cfg(any(feature = "host", feature = "testing", test))]
pub use self::granting::Opening;
use self::{
    keeping::KeepPolicy,
    waiter::WaiterSeat,
    words::{AtomicBool, AtomicU8, AtomicU64, Flaw, Mutex, Ordering::*, flawed},
};
#[cfg(any(feature = "host", feature = "testing"))]
pub(crate) use self::{staying::HeldWord, waiter::WordWaiter};

/// Names a lease among all that its service ever grants. What the two numbers mean is the service's
/// business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseKey {
    pub high: u64,
    pub low: u64,
}

/// The word of one name in one manager.
///
/// | word | means | next |
/// |---|---|---|
/// | 0 | closed: there is no lease | the service opens it, for the representative that has asked |
/// | `OPEN RESERVED`, how | the representative's; the count is the token it will have | it claims: in use; it gives up: idle; a loss: 0 |
/// | `OPEN RESERVED RECALLED`, how | the same, of a lease that is not kept any longer | it claims: in use and recalled; it gives up, or a loss: 0 |
/// | `OPEN`, how | idle: no guard; the count is the last one used | a thread enters; a recall, a loss, the service closing it: 0 |
/// | `OPEN IN_USE` | a guard holds the count's token, and nothing waits | it leaves by one exchange: idle |
/// | `OPEN IN_USE WAITERS` | the representative waits | the guard leaves: idle, and wakes it |
/// | `OPEN IN_USE WAITERS HUNGRY` | it has waited for long | the guard leaves: reserved with the next count, and wakes it; 0 if the block has no such token |
/// | `OPEN IN_USE RECALLED` | another session waits, or the lease is not to be kept | the guard leaves: 0, and gives the lease back |
/// | `OPEN IN_USE RECALLED LOST` | the lease is over | likewise |
///
/// `WATCHED` beside `IN_USE`: the guard was asked to tell its loss. `WAITERS` and `HUNGRY` stand
/// beside `IN_USE` alone, in all of these states; a recall goes before them. With `SHARED` it is open
/// for readers, and counts them: see `shared`.
///
/// - Only the service opens, and only from 0, while it holds its lock: a recall or a loss that is
///   told under the same lock meets the word before or after, never in between. A lease is opened as
///   `RESERVED`.
/// - An idle word is closed under the service's lock alone. What closes a word otherwise is in it (a
///   guard) or has it reserved (the representative), so that no other lease can be there by then.
/// - Block, lease and end are read **after** the exchange that enters, since the word may have been
///   closed and opened with an equal count before it, and **before** the exchange that closes, since
///   the next lease may be there right after it.
/// - A guard leaves with its own count: the word stays as it is under a guard that is not in it.
/// - A lost lease that is in use keeps the word from 0 until its guard leaves. So no two guards of
///   one process exist, whatever becomes of their leases.
pub struct LeaseWord {
    word: AtomicU64,
    /// The lease's name.
    lease: [AtomicU64; 2],
    /// The epoch's part of the block's tokens, which all lie in one epoch.
    base: AtomicU64,
    /// The last count of the block.
    last: AtomicU64,
    /// The first count, and the one at which the next block is asked for.
    first: AtomicU64,
    half: AtomicU64,
    /// The lease's own end, by `at_most`.
    end: AtomicU64,
    /// The token of the guard that has it apart: see `apart`.
    borne: AtomicU64,
    /// The token of the last guard that stays with the thread that locked it, and that thread's number.
    stays: [AtomicU64; 2],
    /// It was opened to be kept.
    keeps: AtomicBool,
    /// Why the lease before ended that was lost while it was reserved or idle.
    ended: AtomicU8,
    /// No mutex of the name is left in the process.
    #[cfg(any(feature = "host", feature = "testing", test))]
    is_retired: AtomicBool,
    /// It is kept until another session asks for it, however long it is idle.
    is_kept_always: AtomicBool,
    /// The session's.
    deadline: Arc<Deadline>,
    /// The fork generation of the process that has the session.
    made_in: u64,
    /// Tells the loss to the guard that asked for it.
    watch: Mutex<Option<Arc<Watch>>>,
    /// The same of readers that asked for it.
    reader_watches: Mutex<Vec<Arc<Watch>>>,
    /// Where the representative sleeps.
    seat: WaiterSeat,
    policy: Mutex<KeepPolicy>,
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
const RESERVED: u64 = 1 << 51;
const WAITERS: u64 = 1 << 52;
const HUNGRY: u64 = 1 << 53;
const SHARED: u64 = 1 << 54;
/// All but the count and how the last holder left.
const STATE: u64 = !(COUNT | HOW);

/// A word was entered: a guard has this token now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    pub token: Token,
    /// How the last holder left.
    pub predecessor: Predecessor,
    /// Half of the block is used: it is time to ask for more.
    pub is_running_short: bool,
}

/// What came of a thread's attempt to enter an idle word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entering {
    /// It is in. It looks at the deadline next, then at the clock.
    Entered(Entered),
    /// It was in, found no token left in the block, and has closed the word: the lease is to be
    /// given back.
    UsedUp(Used),
    /// The word is as it was.
    Refused,
}

/// What came of the representative's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is in. It looks at the deadline next, then at the clock.
    Entered(Entered),
    /// As [`Entering::UsedUp`].
    UsedUp(Used),
    /// There is no lease: the representative may ask for one. If it was granted one just now, that
    /// was lost before it was claimed, for this reason.
    Closed(Option<LostReason>),
    /// A guard is in, which the representative may wait for.
    Held,
}

/// What a guard leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The lease stays, and any thread may enter.
    Kept,
    /// The lease stays. The representative waits: it is to be [woken](LeaseWord::wake).
    Wakes,
    /// The word is closed: the lease is to be given back, and then the representative woken.
    GivesBack(Used),
    /// The guard was not in, and nothing has changed.
    Stale,
}

/// What was used of a lease that is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub lease: LeaseKey,
    /// Below the block's first token, if none was used.
    pub last: Token,
    /// How the last holder left.
    pub how: Predecessor,
    /// Locks that cost the leader nothing.
    pub local_grants: u64,
    /// Another session asked for it; it was not given back of one's own accord.
    pub is_recalled: bool,
    /// It was opened to be kept.
    pub keeps: bool,
    /// Why it was lost before its guard left, if it was.
    pub lost: Option<LostReason>,
}

impl Used {
    /// The same of a guard that had this token and did nothing under it.
    pub(crate) fn without(self, token: Token) -> Used {
        if self.last == token { Used { last: before(token), ..self } } else { self }
    }
}

/// What a recall or a loss met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The lease is given back, or about to be.
    Closed,
    /// No guard, and none follows: the service gives it back, and wakes the representative.
    #[cfg(any(feature = "host", feature = "testing", test))]
    Idle(Used),
    /// It is reserved for the representative, which gives it back when it has used it, or unused.
    #[cfg(any(feature = "host", feature = "testing", test))]
    Reserved,
    /// A guard, which gives it back when it leaves.
    InUse {
        /// It has a watch to be told.
        is_watched: bool,
        /// It was lost before.
        is_lost: bool,
    },
}

#[allow(clippy::new_without_default, reason = "it is made closed, not by default")]
impl LeaseWord {
    /// A closed word of a session without a deadline.
    #[cfg(any(feature = "testing", test))]
    pub fn new() -> LeaseWord {
        LeaseWord::of(Arc::new(Deadline::new(Time::NEVER)), 0)
    }

    /// A closed word of the session with this deadline, in the process of this fork generation.
    pub(crate) fn of(deadline: Arc<Deadline>, made_in: u64) -> LeaseWord {
        LeaseWord {
            word: AtomicU64::new(0),
            lease: [AtomicU64::new(0), AtomicU64::new(0)],
            base: AtomicU64::new(0),
            last: AtomicU64::new(0),
            first: AtomicU64::new(0),
            half: AtomicU64::new(0),
            end: AtomicU64::new(Time::NEVER.as_nanos()),
            borne: AtomicU64::new(0),
            stays: [AtomicU64::new(0), AtomicU64::new(0)],
            keeps: AtomicBool::new(false),
            ended: AtomicU8::new(0),
            #[cfg(any(feature = "host", feature = "testing", test))]
            is_retired: AtomicBool::new(false),
            is_kept_always: AtomicBool::new(false),
            deadline,
            made_in,
            watch: Mutex::new(None),
            reader_watches: Mutex::new(Vec::new()),
            seat: WaiterSeat::new(),
            policy: Mutex::new(KeepPolicy::default()),
        }
    }

    /// The fork generation of the process that may use it. A child's copy is closed to the child.
    #[inline]
    pub(crate) fn made_in(&self) -> u64 {
        self.made_in
    }
}

/// For threads, and the guards that they become.
impl LeaseWord {
    /// Takes the next token, if the word is open and idle.
    #[inline]
    pub fn enter(&self) -> Entering {
        let word = self.word.load(Relaxed);
        let is_idle = word & STATE == OPEN
            || flawed(Flaw::EnteredUnreserved) && word & STATE == OPEN | RESERVED;
        if !is_idle || word & COUNT == COUNT {
            return Entering::Refused;
        }
        let in_use = OPEN | IN_USE | ((word & COUNT) + 1);
        if self.word.compare_exchange(word, in_use, Acquire, Relaxed).is_err() {
            return Entering::Refused;
        }
        match self.entered(in_use & COUNT, how(word)) {
            Some(entered) => Entering::Entered(entered),
            None => Entering::UsedUp(self.leave_used_up(in_use & COUNT, how(word))),
        }
    }

    /// What the guard has that took this count; `None` if that is beyond the block, which is read
    /// only now.
    #[inline]
    fn entered(&self, count: u64, predecessor: Predecessor) -> Option<Entered> {
        (count <= self.last.load(Relaxed)).then(|| Entered {
            token: token(self.base.load(Relaxed) | count),
            predecessor,
            is_running_short: count == self.half.load(Relaxed),
        })
    }

    /// Whether the guard that has entered may go on. The deadline is to be read before the clock:
    /// what has ended at a deadline is marked before that moves.
    #[inline]
    pub fn is_good(&self, deadline: Time, now: Time) -> bool {
        let is_over = now >= deadline && !planted(Mistake::KeptPastDeadline);
        !is_over && self.lost().is_none()
    }

    /// Until when the session's leases are good without a further word.
    #[inline]
    pub(crate) fn session_deadline(&self) -> Time {
        self.deadline.get()
    }

    /// Moves the deadline of a word that has one of its own. For the service, under its lock: what
    /// ended at the old deadline is marked before.
    #[cfg(feature = "service")]
    pub(crate) fn set_deadline(&self, at: Time) {
        self.deadline.set(at);
    }

    /// Until when the lease of the guard that is in is good without a further word.
    pub(crate) fn deadline(&self) -> Time {
        self.session_deadline().min(self.end())
    }

    /// The lease's own end.
    fn end(&self) -> Time {
        Time::from_nanos(self.end.load(Relaxed))
    }

    /// The guard with this token leaves: by one exchange, if the lease is kept and nothing else is
    /// to be done.
    #[inline]
    pub fn leave(&self, token: Token, how: Predecessor) -> Left {
        let count = token.get() & COUNT;
        let (in_use, idle) = (OPEN | IN_USE | count, OPEN | count | told(how));
        if self.word.compare_exchange(in_use, idle, Release, Relaxed).is_ok() {
            return Left::Kept;
        }
        self.leave_slow(count, how, false)
    }

    #[cold]
    fn leave_slow(&self, count: u64, how: Predecessor, closes: bool) -> Left {
        loop {
            let word = self.word.load(Acquire);
            let is_own = word & COUNT == count || flawed(Flaw::LeftWithoutOwnCount);
            if word & IN_USE == 0 || !is_own {
                return Left::Stale;
            }
            if word & WATCHED != 0 {
                self.end_watch();
            }
            let mut gives_back = word & (RECALLED | LOST) != 0;
            if planted(Mistake::HandOverWithoutEnd) && self.keeps.load(Relaxed) {
                gives_back = word & LOST != 0;
            }
            gives_back |= closes;
            let wakes = word & (WAITERS | HUNGRY) != 0;
            let is_hungry = word & HUNGRY != 0;
            // The guard is in: the block can only grow.
            let next = match (gives_back, is_hungry) {
                (true, _) => 0,
                (false, true) if count < self.last.load(Relaxed) => OPEN | RESERVED | (count + 1),
                (false, true) => 0,
                (false, false) => OPEN | count,
            };
            let next = if next == 0 { 0 } else { next | told(how) };
            let used = self.used(word, count, how);
            if self.word.compare_exchange(word, next, AcqRel, Relaxed).is_err() {
                continue;
            }
            return match next {
                0 if flawed(Flaw::LeaseReadAfterClosing) => {
                    Left::GivesBack(self.used(word, count, how))
                }
                0 => Left::GivesBack(used),
                _ if wakes => Left::Wakes,
                _ => Left::Kept,
            };
        }
    }

    /// The guard leaves, and the lease does not stay, which counts as a recall. `None` if the guard
    /// was not in. The representative is woken here: the lease is the caller's to give back.
    pub fn leave_and_close(&self, token: Token, how: Predecessor) -> Option<Used> {
        let Left::GivesBack(used) = self.leave_slow(token.get() & COUNT, how, true) else {
            return None;
        };
        self.wake();
        Some(Used { is_recalled: used.keeps, ..used })
    }

    /// As [`leave_and_close`](LeaseWord::leave_and_close), for a thread that took a count beyond the
    /// block, and so none of its tokens.
    #[cold]
    fn leave_used_up(&self, count: u64, how: Predecessor) -> Used {
        let Left::GivesBack(used) = self.leave_slow(count, how, true) else {
            unreachable!("it is in, and nothing stays");
        };
        self.wake();
        Used { last: before(used.last), local_grants: used.local_grants.saturating_sub(1), ..used }
    }

    /// The guard goes: what it did not hear of a loss by now it is told, and nothing more.
    pub(crate) fn end_watch(&self) {
        let watch = self.watch.lock().take();
        if let Some(watch) = watch {
            watch.end(self.lost());
        }
    }

    /// Why the lease of the guard that is in is lost, as far as told.
    pub fn lost(&self) -> Option<LostReason> {
        lost(self.word.load(Acquire))
    }

    /// Why the lease of the guard that is in is lost, by the clock as well, which `now` reads. Once
    /// lost it stays lost. A guard that asked to be told of a loss is told then: the driver, which
    /// has yet to look, may find a later deadline.
    pub(crate) fn lost_by(&self, now: impl FnOnce() -> Time) -> Option<LostReason> {
        // The deadline is read first: what ended at an earlier one is marked before it moves.
        let (session, end) = (self.session_deadline(), self.end());
        let lost = self.lost();
        if lost.is_some() || session == Time::NEVER && end == Time::NEVER {
            return lost;
        }
        let now = now();
        if now < session && now < end {
            return None;
        }
        let why = if now >= session { LostReason::Expired } else { LostReason::HeldTooLong };
        if let Met::InUse { is_watched: true, .. } = self.mark(RECALLED, Some(why))
            && let Some(why) = self.lost()
        {
            self.watched().into_iter().for_each(|watch| watch.lose(why));
        }
        self.lost()
    }

    /// The watch of the guard that is in, made at the first call.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        let mut slot = self.watch.lock();
        if let Some(watch) = &*slot {
            return watch.clone();
        }
        let watch = Arc::new(Watch::new(Some(self.deadline.clone()), Some(self.end())));
        *slot = Some(watch.clone());
        drop(slot);
        // A later loss sees the flag, and tells the watch.
        let before = self.word.fetch_or(WATCHED, AcqRel);
        if let Some(why) = lost(before) {
            watch.lose(why);
        }
        watch
    }

    /// The watches of the guards that are in, as far as they were asked for.
    pub(crate) fn watched(&self) -> Vec<Arc<Watch>> {
        match self.is_shared() {
            true => self.reader_watches(),
            false => self.watch.lock().clone().into_iter().collect(),
        }
    }

    /// The lease of the guard that is in.
    pub fn lease(&self) -> LeaseKey {
        let [high, low] = [0, 1].map(|at: usize| self.lease[at].load(Relaxed));
        LeaseKey { high, low }
    }
}

impl LeaseWord {
    /// The end of the last block that it was opened with, which is above every token used of it.
    pub(crate) fn block_end(&self) -> Token {
        token(self.base.load(Relaxed) | self.last.load(Relaxed))
    }

    /// Marks a word that is in use; [`Met::Closed`] if it is not.
    fn mark(&self, mark: u64, lost: Option<LostReason>) -> Met {
        let mut word = self.word.load(Acquire);
        while is_occupied(word) {
            let is_lost = word & LOST != 0;
            let why = lost.filter(|_| !is_lost).map_or(0, |why| (why as u64) << LOST_SHIFT);
            match self.word.compare_exchange(word, word | mark | why, AcqRel, Acquire) {
                Ok(_) => return Met::InUse { is_watched: word & WATCHED != 0, is_lost },
                Err(now) => word = now,
            }
        }
        Met::Closed
    }

    /// What there is to give back of the lease that is open, read before the word is closed.
    fn used(&self, word: u64, count: u64, how: Predecessor) -> Used {
        if word & SHARED != 0 {
            return self.used_shared(word);
        }
        let counted = token(self.base.load(Relaxed) | count);
        let last = if word & RESERVED != 0 { before(counted) } else { counted };
        let keeps = self.keeps.load(Relaxed);
        Used {
            lease: self.lease(),
            last,
            how,
            local_grants: (last.get() & COUNT).saturating_sub(self.first.load(Relaxed)),
            is_recalled: keeps && word & RECALLED != 0,
            keeps,
            lost: lost(word),
        }
    }
}

/// Whether keeping pays.
impl LeaseWord {
    /// Whether to ask for a lease that may be kept; `always` regardless of whether that pays.
    pub fn is_wanted(&self, always: bool) -> bool {
        self.is_kept_always.store(always, Relaxed);
        always || self.policy.lock().is_wanted()
    }

    #[cfg(any(feature = "host", feature = "testing", test))]
    pub fn is_kept_always(&self) -> bool {
        self.is_kept_always.load(Relaxed)
    }

    /// The leader granted the name, to be kept or not; `had_to_queue` if another session had it.
    pub fn granted(&self, had_to_queue: bool) {
        self.policy.lock().granted(had_to_queue);
    }

    /// The lease went back. Answers whether it was kept, and that too short to have paid.
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub fn gone(&self, used: &Used) -> bool {
        used.keeps && self.policy.lock().gone(used)
    }
}

/// Whether guards are in.
fn is_occupied(word: u64) -> bool {
    word & IN_USE != 0 || shared::has_readers(word)
}

fn how(word: u64) -> Predecessor {
    Predecessor::from_u8(((word & HOW) >> HOW_SHIFT) as u8)
}

fn told(how: Predecessor) -> u64 {
    (how as u64) << HOW_SHIFT
}

fn lost(word: u64) -> Option<LostReason> {
    LostReason::from_u8(((word & LOST) >> LOST_SHIFT) as u8)
}

fn token(number: u64) -> Token {
    Token::new(number).expect("a block lies below the highest token")
}

fn before(token: Token) -> Token {
    Token::new(token.get().saturating_sub(1)).unwrap_or(Token::ZERO)
}
