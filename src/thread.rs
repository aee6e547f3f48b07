//! The thread tier: a lock between the threads and tasks of one process.
//!
//! It protects no data and knows no owner: whoever took it calls `release` once, from any thread.
//! It is not reentrant and keeps no list of who holds it.
//!
//! # Fairness
//!
//! Threads (blocking waiters) and tasks (async waiters) wait in two queues, each in order of
//! arrival. At a release
//!
//! - the longest waiter of a kind that has waited over [`PATIENCE`] is handed the lock, which is
//!   never free in between; if that is so for both kinds, they take turns;
//! - otherwise the lock becomes free and the first of each kind is woken to try for it. Somebody
//!   who just came by may be quicker (that is what makes a lock fast under load); the woken
//!   waiter then goes back to sleep at the place it had.
//!
//! Hence nobody at the head of a queue waits longer than [`PATIENCE`], the hold running then, and
//! one hand-over to the other kind.
//!
//! A task that was handed the lock must be polled to take it up, and a task may well not be: its
//! executor's thread blocks, perhaps on this very lock, or it is set aside in a `select!`. A
//! blocked thread therefore takes a hand-over back that was left lying for [`LAPSE`]; the task
//! keeps its place at the head of its queue. Among tasks alone nobody can do so: there, as in
//! every async mutex, a future that is neither polled nor dropped holds up those behind it.
//!
//! # Why a word of our own
//!
//! parking_lot's `RawMutex` guards the queues, but is not the word that excludes:
//!
//! - a guard may be dropped on another thread than the one that took the lock, and a hand-over
//!   always is. Its `RawMutex` allows that only with the feature `send_guard`, which changes
//!   every user's guards in the whole build and excludes `deadlock_detection`;
//! - its bit for "somebody waits" is private. A flag beside it needs a full fence between unlock
//!   and looking at the flag, lest a waiter be overlooked, and costs 1.26 times a parking_lot
//!   `Mutex` (measured beside this lock's 1.10);
//! - a woken thread that finds it taken queues anew at the end.
//!
//! Here "taken" and "somebody waits" are bits of one word, so that the quiet way is the same
//! compare-and-exchange in and out as parking_lot's.
//!
//! # Letting go behind a wider tier
//!
//! A lock of a wider scope lets go of that tier first, by a read-modify-write of its own, and a
//! processor does nothing else meanwhile. [`release_behind`](ThreadLock::release_behind) has that
//! one order plain accesses of this tier's word, which then takes no read-modify-write itself: see
//! [`overwriting`](crate::overwriting). The mark that who joins the queues puts into it is WAITERS
//! (`win_or_wait`). One who holds the lock while the one before has yet to clear its flag lets go by
//! an exchange.

#![forbid(unsafe_code)]

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    error::Predecessor,
    overwriting::{self, LetGo, Overwriting},
    time::Time,
    token::Token,
};

mod queue;
mod sync;

#[cfg(all(test, tierlock_loom))]
mod model;
#[cfg(all(test, not(tierlock_loom)))]
mod tests;

use queue::{Call, Kind, Queue, Ticket};
use sync::{AtomicU8, AtomicU64, Condvar, Mutex, MutexGuard, Ordering::*, SpinWait, now};

/// A waiter that has waited longer is handed the lock at the next release.
const PATIENCE: Duration = Duration::from_micros(500);

/// How long a hand-over to a task stands before a waiting thread may take it back. Long against
/// any sane time between two polls of a runnable task: it resolves lock-ups and is no scheduler.
const LAPSE: Duration = Duration::from_millis(100);

/// No sleep exceeds this: the clock that threads sleep on stops while a machine is suspended and
/// ours does not. It is also how soon a thread notices a hand-over to take back.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// How often a thread looks for a free lock before it queues, each time twice as far apart. It
/// does not yield in between: a holder that takes again at once, on the same CPU, would run for
/// milliseconds and know of no waiter (measured: 60 holds of 200 µs).
const SPINS: u32 = if cfg!(tierlock_loom) { 1 } else { 6 };

/// In [`ThreadLock::word`]: somebody holds the lock, or has been handed it.
const LOCKED: u8 = 0b001;
/// In [`ThreadLock::word`]: somebody is queued.
const WAITERS: u8 = 0b010;
/// In [`ThreadLock::word`]: whoever is first in line, of each kind, is awake and will look.
const CALLED: u8 = 0b100;

/// The thread tier's lock: a word, a token, two queues. The caller pairs every taking with one
/// `release`.
pub(crate) struct ThreadLock {
    /// Who may go, and who has to be told.
    ///
    /// CALLED | WAITERS | LOCKED | meaning
    /// -------+---------+--------+----------------------------------------------------------
    ///    0   |    0    |   0    | Free, nobody is queued.
    ///    0   |    0    |   1    | Held, nobody is queued: the release is one exchange and
    ///        |         |        | looks at nothing else.
    ///   0/1  |    1    |   0    | Free, and somebody is queued: the first of each kind has
    ///        |         |        | been woken since it last looked, and will look. Anybody
    ///        |         |        | may take it meanwhile.
    ///    0   |    1    |   1    | Held, or handed to `Queue::heir`, and somebody is queued:
    ///        |         |        | the release must look at the queues.
    ///    1   |    1    |   1    | Held by somebody who was quicker than those who were woken,
    ///        |         |        | and who will look still: the release is one exchange.
    ///
    /// - LOCKED is set by whoever finds it clear and cleared by whoever holds the lock: under the
    ///   queues' mutex while WAITERS is set without CALLED, else without it.
    /// - WAITERS and CALLED change only under the queues' mutex. While nobody has that mutex,
    ///   WAITERS is set if and only if a queue has an entry, and CALLED only if the first of each
    ///   queue that has one was woken since it last looked.
    /// - An entry is made, and a waiter that was woken sleeps again, only in one step with finding
    ///   LOCKED set and clearing CALLED (`win_or_wait`): that holder's release fails its exchange
    ///   and comes to the queues. This is why no waiter is overlooked and why it takes no fence:
    ///   both sides decide by read-modify-writes of the same word, which have one order.
    ///
    /// Orderings. Setting LOCKED acquires and clearing it releases; every other change is a
    /// read-modify-write and so continues the release sequence of the last clearing. What goes
    /// past the word, a hand-over, goes under the queues' mutex on both sides.
    ///
    /// One store besides clears it, all of it: that of a holder who lets go behind a wider tier,
    /// of which [`overwriting`](crate::overwriting) says why it overlooks nobody.
    word: AtomicU8,
    /// For who lets go behind a wider tier.
    overwriting: Overwriting,
    /// How the last holder left, as `Predecessor as u8`. Under the lock, so `Relaxed`.
    left: AtomicU8,
    /// The last token granted. Under the lock, so `Relaxed`.
    token: AtomicU64,
    /// `None` until somebody first had to wait, so that a lock stays small.
    queue: Mutex<Option<Box<Queue>>>,
}

/// What the winner is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
}

impl ThreadLock {
    overwriting::const_fn! {
        pub(crate) fn new() -> ThreadLock {
            ThreadLock {
                word: AtomicU8::new(0),
                overwriting: Overwriting::new(),
                left: AtomicU8::new(Predecessor::Clean as u8),
                token: AtomicU64::new(0),
                queue: Mutex::new(None),
            }
        }
    }

    /// Takes it if it is free, even past those who wait.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Taken> {
        let won = self.win_quiet() || self.win();
        won.then(|| self.taken())
    }

    /// Takes it if it is free and nobody waits for it.
    #[inline]
    pub(crate) fn take_quietly(&self) -> Option<Taken> {
        self.win_quiet().then(|| self.taken())
    }

    /// The same, for one who goes on to wider tiers: `further` finds a token above the last one
    /// there, and how the one before left them; or it gives up, and this tier is as it was.
    #[inline]
    pub(crate) fn take_further(
        &self,
        further: impl FnOnce(Token) -> Option<(Token, Predecessor)>,
    ) -> Option<Taken> {
        if !self.win_quiet() {
            return None;
        }
        let Some((token, told)) = further(self.last_token()) else {
            self.let_go();
            return None;
        };
        self.token.store(token.get(), Relaxed);
        // The widest tier that has something to tell tells it.
        let predecessor = if told == Predecessor::Clean { self.predecessor() } else { told };
        Some(Taken { token, predecessor })
    }

    /// Blocks until taken.
    #[inline]
    pub(crate) fn take(&self) -> Taken {
        if !self.win_quiet() {
            self.take_slow(Time::NEVER);
        }
        self.taken()
    }

    /// Blocks until taken or until the time has come; then `None`.
    #[inline]
    pub(crate) fn take_until(&self, until: Time) -> Option<Taken> {
        let won = self.win_quiet() || self.take_slow(until);
        won.then(|| self.taken())
    }

    /// Waits without blocking a thread. Dropping the future gives back what it was about to
    /// receive.
    pub(crate) async fn take_async(&self) -> Taken {
        // Between winning and the return there is no await, so nothing is lost in between.
        if !self.win_quiet() {
            Waiting { lock: self, ticket: None }.await;
        }
        self.taken()
    }

    /// Whether somebody is queued just now.
    pub(crate) fn has_waiters(&self) -> bool {
        self.word.load(Relaxed) & WAITERS != 0
    }

    /// The last token granted, as far as this thread can know without the lock.
    #[inline]
    pub(crate) fn last_token(&self) -> Token {
        Token::new(self.token.load(Relaxed)).expect("only tokens are stored")
    }

    /// How the holder's predecessor left. Only for whoever holds it.
    #[inline]
    pub(crate) fn predecessor(&self) -> Predecessor {
        Predecessor::from_u8(self.left.load(Relaxed))
    }

    /// Raises the token to at least this. Only for whoever holds it.
    pub(crate) fn raise_token(&self, token: Token) {
        assert!(self.word.load(Relaxed) & LOCKED != 0, "nobody holds the lock whose token rises");
        if self.token.load(Relaxed) < token.get() {
            self.token.store(token.get(), Relaxed);
        }
    }

    /// Lets go. Only for whoever holds it, once.
    #[inline]
    pub(crate) fn release(&self, how: Predecessor) {
        // Nearly always it says so already: a store less that the exchange has to wait for.
        if self.left.load(Relaxed) != how as u8 {
            self.left.store(how as u8, Relaxed);
        }
        self.let_go();
    }

    /// Lets go of a wider tier and then of this one, clean. Only for whoever holds both, once.
    ///
    /// `wider` lets go of that tier by one read-modify-write, and does little else: others may wait
    /// for it. What it says was let go of before this tier is what the caller hears: this one
    /// goes with [`LetGo::All`] and with nothing else.
    #[inline]
    pub(crate) fn release_behind(&self, wider: impl FnOnce() -> LetGo) -> LetGo {
        if self.left.load(Relaxed) != Predecessor::Clean as u8 {
            self.left.store(Predecessor::Clean as u8, Relaxed);
        }
        let (let_go, is_over) = if self.overwriting.is_under_way() {
            // The one before is not done with it.
            (wider(), false)
        } else {
            self.overwriting.behind(wider, |let_go| {
                let is_quiet = let_go == LetGo::All && self.word.load(Relaxed) == LOCKED;
                if is_quiet {
                    overwriting::store_byte(&self.word, 0);
                }
                (let_go, is_quiet)
            })
        };
        if let_go == LetGo::All && !is_over {
            self.let_go();
        }
        let_go
    }

    /// `release`, by somebody who was handed the lock and never had it.
    #[inline]
    fn let_go(&self) {
        // After this exchange the lock may be somebody else's: nothing of it is touched.
        if self.word.compare_exchange(LOCKED, 0, Release, Relaxed).is_err() {
            self.let_go_slow();
        }
    }

    /// Wins a lock that is free and has no queue.
    #[inline]
    fn win_quiet(&self) -> bool {
        self.word.compare_exchange(0, LOCKED, Acquire, Relaxed).is_ok()
    }

    /// Wins the lock if it is free.
    fn win(&self) -> bool {
        // The load spares the holder's cache line a write by everybody who comes by.
        self.word.load(Relaxed) & LOCKED == 0 && self.word.fetch_or(LOCKED, Acquire) & LOCKED == 0
    }

    /// What the winner does with the lock before anything else.
    #[inline]
    fn taken(&self) -> Taken {
        let last = self.token.load(Relaxed);
        if last >= Token::MAX.get() {
            self.out_of_tokens();
        }
        self.token.store(last + 1, Relaxed);
        Taken {
            token: Token::new(last + 1).expect("it is not past the largest"),
            predecessor: Predecessor::from_u8(self.left.load(Relaxed)),
        }
    }

    #[cold]
    fn out_of_tokens(&self) -> ! {
        self.let_go();
        panic!("the tokens of this lock are exhausted");
    }

    /// Queues as a thread. False if the time came first.
    #[cold]
    fn take_slow(&self, until: Time) -> bool {
        // Others are queued, perhaps, and it is free.
        if self.win() {
            return true;
        }
        let arrived = now();
        let mut spin = SpinWait::new();
        for _ in 0..SPINS {
            if self.win() {
                return true;
            }
            // Only the first in line may gamble on a short hold.
            if self.word.load(Relaxed) & WAITERS != 0 {
                break;
            }
            spin.spin_no_yield();
        }
        if now() >= until {
            return false;
        }

        let bell = Arc::new(Condvar::new());
        let mut guard = self.queue.lock();
        let queue = guard.get_or_insert_default();
        if self.win_or_wait() {
            self.clear_marks(queue);
            return true;
        }
        let ticket = queue.push(Kind::Thread, arrived, Call::Bell(bell.clone()));
        loop {
            bell.wait_for(&mut guard, until.since(now()).min(LONGEST_NAP));
            let queue = guard.as_mut().expect("a queue with an entry exists");
            if self.look(queue, Kind::Thread, ticket) {
                return true;
            }
            if now() >= until {
                queue.remove(Kind::Thread, ticket);
                let call = self.left_queue(queue);
                ring(guard, call);
                return false;
            }
        }
    }

    /// Either wins, or has ensured that the holder's release looks at the queues: then the caller
    /// has an entry by when it lets go of their mutex.
    fn win_or_wait(&self) -> bool {
        let mut before = self.word.load(Relaxed);
        loop {
            let is_free = before & LOCKED == 0;
            let after = if is_free { before | LOCKED } else { before & !CALLED | WAITERS };
            match self.word.compare_exchange(before, after, Acquire, Relaxed) {
                Ok(_) if is_free => return true,
                Ok(_) => {
                    self.overwriting.wait_behind_mark();
                    before = self.word.load(Relaxed);
                    if before & WAITERS != 0 {
                        return false;
                    }
                }
                Err(found) => before = found,
            }
        }
    }

    /// After an entry is gone from the queues: clears WAITERS if nobody is queued, and CALLED since
    /// somebody else may be first now. What the word was.
    fn clear_marks(&self, queue: &Queue) -> u8 {
        let marks = if queue.is_empty() { WAITERS | CALLED } else { CALLED };
        self.word.fetch_and(!marks, Relaxed)
    }

    /// What a queued waiter does whenever it wakes. True if it has the lock; its entry is gone.
    fn look(&self, queue: &mut Queue, kind: Kind, ticket: Ticket) -> bool {
        if queue.claim(ticket) {
            return true;
        }
        // Whoever is not first looks because of a nap's end or a poll of somebody else's making.
        if queue.is_first(kind, ticket)
            && (self.win_or_wait() || (kind == Kind::Thread && queue.take_back(now())))
        {
            queue.remove(kind, ticket);
            self.clear_marks(queue);
            return true;
        }
        queue.fall_asleep(kind, ticket);
        false
    }

    /// After an entry was removed whose owner goes without the lock: whatever wake-up it had been
    /// given is passed on.
    fn left_queue(&self, queue: &mut Queue) -> Option<Waker> {
        // If it is held, its release will see to those who wait.
        let is_held = self.clear_marks(queue) & LOCKED != 0;
        if is_held { None } else { queue.wake_first_of_each() }
    }

    #[cold]
    fn let_go_slow(&self) {
        let mut before = self.word.load(Relaxed);
        assert!(before & LOCKED != 0, "a lock was released that nobody holds");
        while before & CALLED != 0 {
            match self.word.compare_exchange(before, before & !LOCKED, Release, Relaxed) {
                Ok(_) => return,
                Err(found) => before = found,
            }
        }
        let mut guard = self.queue.lock();
        let queue = guard.get_or_insert_default();
        let call = self.pass_on(queue);
        ring(guard, call);
    }

    /// Gives up the lock, which is held: to an heir, or to whoever is quickest.
    fn pass_on(&self, queue: &mut Queue) -> Option<Waker> {
        // Those who had marked the word may all have left since.
        if !queue.is_empty() {
            let now = now();
            if let Some(kind) = queue.who_is_due(now, PATIENCE) {
                let call = queue.hand_over(kind, now);
                self.clear_marks(queue);
                return call;
            }
            // Nobody else has the queues: whoever is first is woken before anybody can see that.
            self.word.swap(WAITERS | CALLED, Release);
            return queue.wake_first_of_each();
        }
        self.word.fetch_and(!LOCKED, Release);
        None
    }
}

/// Lets go of the queues, then wakes a task: a waker may do anything, even come back here.
fn ring(guard: MutexGuard<'_, Option<Box<Queue>>>, call: Option<Waker>) {
    drop(guard);
    if let Some(waker) = call {
        waker.wake();
    }
}

// No panic leaves it half changed: what may panic, a waker, is called when all is done.
impl UnwindSafe for ThreadLock {}
impl RefUnwindSafe for ThreadLock {}

impl fmt::Debug for ThreadLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Relaxed);
        f.debug_struct("ThreadLock")
            .field("locked", &(word & LOCKED != 0))
            .field("waiters", &(word & WAITERS != 0))
            .finish_non_exhaustive()
    }
}

/// A task's wait for the lock. Ready once the task has it.
struct Waiting<'a> {
    lock: &'a ThreadLock,
    /// Its entry, from the first poll that finds the lock taken until it is ready.
    ticket: Option<Ticket>,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let lock = self.lock;
        // Wakers are cloned before and dropped after the queues' mutex is held: both may do
        // anything.
        let waker = cx.waker().clone();
        let mut guard = lock.queue.lock();
        let queue = guard.get_or_insert_default();
        let old = match self.ticket {
            None if lock.win_or_wait() => {
                lock.clear_marks(queue);
                drop(guard);
                return Poll::Ready(());
            }
            None => {
                self.ticket = Some(queue.push(Kind::Task, now(), Call::Waker(Some(waker))));
                None
            }
            Some(ticket) if lock.look(queue, Kind::Task, ticket) => {
                self.ticket = None;
                drop(guard);
                return Poll::Ready(());
            }
            Some(ticket) => queue.replace_waker(ticket, waker),
        };
        drop(guard);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut guard = self.lock.queue.lock();
        let queue = guard.as_mut().expect("a queue with an entry exists");
        let (entry, call) = if queue.claim(ticket) {
            (None, self.lock.pass_on(queue))
        } else {
            let entry = queue.remove(Kind::Task, ticket);
            (Some(entry), self.lock.left_queue(queue))
        };
        ring(guard, call);
        drop(entry);
    }
}
