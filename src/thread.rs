//! The thread tier: a lock between the threads and tasks of one process.
//!
//! It protects no data and knows no owner: the taker calls `release` once, from any thread.
//! It is not reentrant and keeps no list of holders.
//!
//! # Fairness
//!
//! Threads (blocking waiters) and tasks (async waiters) wait in two queues, each in order of
//! arrival. At a release
//!
//! - the longest waiter of a kind that has waited over [`PATIENCE`] is handed the lock, which is
//!   never free in between; if that is so for both kinds, they take turns;
//! - otherwise the lock becomes free and the first of each kind is woken to try for it. A newcomer
//!   may be quicker (that is what makes a lock fast under load); the woken
//!   waiter then goes back to sleep at the place it had.
//!
//! Hence no waiter at the head of a queue waits longer than [`PATIENCE`], the hold running then, and
//! one hand-over to the other kind.
//!
//! A task that was handed the lock must be polled to take it up, and a task may well not be: its
//! executor's thread blocks, perhaps on this very lock, it is set aside in a `select!`, or leaked. A
//! hand-over that was left lying for [`LAPSE`] goes to the next waiter, thread or task; the task
//! stands at the head of its queue again once it is polled, and not before.
//!
//! # As a turnstile
//!
//! Above thread scope the lock only orders the waiters of a process: its holder waits at a wider
//! gate. A task that does so sits down ([`sit_down`](ThreadLock::sit_down)), so that its turn
//! lapses, too, when it was woken and is not polled.
//!
//! # Why a word of our own
//!
//! parking_lot's `RawMutex` is not the word that excludes:
//!
//! - a guard may be dropped on another thread than the one that took the lock, and a hand-over
//!   always is. Its `RawMutex` allows that only with the feature `send_guard`, which changes
//!   every user's guards in the whole build and excludes `deadlock_detection`;
//! - its bit for "a waiter is queued" is private. A flag beside it needs a full fence between unlock
//!   and looking at the flag, lest a waiter be overlooked, and costs 1.26 times a parking_lot
//!   `Mutex` (measured beside this lock's 1.10);
//! - a woken thread that finds it taken queues anew at the end.
//!
//! Here "taken" and "a waiter is queued" are bits of one word, so that the quiet way is the same
//! compare-and-exchange in and out as parking_lot's.

#![forbid(unsafe_code)]

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{error::Predecessor, time::Time, token::Token};

mod in_force;
mod queue;
mod seat;
mod shares;
mod sync;

#[cfg(all(test, tierlock_loom))]
mod model;
#[cfg(all(test, not(tierlock_loom)))]
mod tests;

pub(crate) use in_force::InForce;
use queue::{Call, Queue, Ticket, WaiterKind};
pub(crate) use seat::InSeat;
pub(crate) use shares::{InFront, ThreadShares, WaitingWriter};
pub(crate) use sync::BellListener;
use sync::{
    AtomicU8, AtomicU64, Condvar, Mutex, MutexGuard, Ordering::*, Queues, SpinWait, generation, now,
};

/// The longest waiter of a kind is handed the lock at the next release if it has waited longer.
const PATIENCE: Duration = Duration::from_micros(500);

/// How long a hand-over to a task stands before the next waiter may take it back. Long against
/// any sane time between two polls of a runnable task: it resolves lock-ups and is no scheduler.
const LAPSE: Duration = Duration::from_millis(100);

/// No sleep exceeds this: the clock that threads sleep on stops while a machine is suspended and
/// ours does not. It is also how soon a thread notices a hand-over to take back.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// How often a thread looks for a free lock before it queues, each time twice as far apart. It
/// does not yield in between: a holder that takes again at once, on the same CPU, would run for
/// milliseconds and know of no waiter (measured: 60 holds of 200 µs).
const SPINS: u32 = if cfg!(tierlock_loom) { 1 } else { 6 };

/// In [`ThreadLock::word`]: a holder has the lock, or has been handed it.
const LOCKED: u8 = 0b001;
/// In [`ThreadLock::word`]: a waiter is queued.
const WAITERS: u8 = 0b010;
/// In [`ThreadLock::word`]: the first in line, of each kind, is awake and will look.
const CALLED: u8 = 0b100;

/// In [`ThreadLock::word`]: readers may be inside, or may have been.
const SHARED: u8 = 0b1000;

/// The thread tier's lock: a word, a token, two queues. The caller pairs every taking with one
/// `release`.
pub(crate) struct ThreadLock {
    /// Whether the lock is held, and whether a waiter has to be told.
    ///
    /// CALLED | WAITERS | LOCKED | meaning
    /// -------+---------+--------+----------------------------------------------------------
    ///    0   |    0    |   0    | Free, no waiter is queued.
    ///    0   |    0    |   1    | Held, no waiter is queued: the release is one exchange and
    ///        |         |        | looks at nothing else.
    ///   0/1  |    1    |   0    | Free, and a waiter is queued: the first of each kind has
    ///        |         |        | been woken since it last looked, and will look. Any thread
    ///        |         |        | may take it meanwhile.
    ///    0   |    1    |   1    | Held, or handed to `Queue::heir`, and a waiter is queued:
    ///        |         |        | the release must look at the queues.
    ///    1   |    1    |   1    | Held by a newcomer that was quicker than the woken waiters,
    ///        |         |        | which will look still: the release is one exchange.
    ///
    /// SHARED stands beside each of these. A reader sets it before it comes in, so that a lock which
    /// expects no reader fails its one exchange, and then looks at the [count](ThreadShares).
    ///
    /// - LOCKED is set by a taker that finds it clear and cleared by the holder: under the
    ///   queues' mutex while WAITERS is set without CALLED, else without it.
    /// - WAITERS and CALLED change only under the queues' mutex. While no thread has that mutex,
    ///   WAITERS is set if and only if a queue has an entry, and CALLED only if the first of each
    ///   queue that has one was woken since it last looked.
    /// - An entry is made, and a waiter that was woken sleeps again, only in one step with finding
    ///   LOCKED set and clearing CALLED (`win_or_wait`): that holder's release fails its exchange
    ///   and comes to the queues. This is why no waiter is overlooked and why it takes no fence:
    ///   both sides decide by read-modify-writes of the same word, which have one order.
    ///
    /// Orderings. Setting LOCKED acquires, SeqCst for the sake of readers, and clearing it releases; every other change is a
    /// read-modify-write and so continues the release sequence of the last clearing. What goes
    /// past the word, a hand-over, goes under the queues' mutex on both sides.
    word: AtomicU8,
    /// How the last holder left, as `Predecessor as u8`. Under the lock, so `Relaxed`.
    left: AtomicU8,
    /// The last token granted. Under the lock, so `Relaxed`.
    token: AtomicU64,
    /// Made when a waiter of this process first has to wait, so that a lock stays small. Alarms look
    /// at it, too.
    queue: Queues<Queue>,
}

/// Which waiter a release hands the lock to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handing {
    /// To one that has waited over [`PATIENCE`]; else the quickest taker has it.
    ToTheQuickest,
    /// To the first in line.
    ToTheFirst,
}

/// What the winner is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadTaken {
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
}

impl ThreadLock {
    sync::const_fn! {
        pub(crate) fn new() -> ThreadLock {
            ThreadLock {
                word: AtomicU8::new(0),
                left: AtomicU8::new(Predecessor::Clean as u8),
                token: AtomicU64::new(0),
                queue: Queues::new(),
            }
        }
    }

    /// Takes it if it is free, even past the waiters.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<ThreadTaken> {
        let won = self.win_quiet() || self.win();
        won.then(|| self.taken())
    }

    /// Takes it if it is free and no waiter is queued.
    #[inline]
    pub(crate) fn take_quietly(&self) -> Option<ThreadTaken> {
        self.win_quiet().then(|| self.taken())
    }

    /// Wins it if it is free and has no queue, without counting a token: a gate is counted with
    /// [`count`](ThreadLock::count), a turnstile is not.
    #[inline]
    pub(crate) fn win_quietly(&self) -> bool {
        self.win_quiet()
    }

    /// Wins it if it is free, even past those that wait, without counting a token.
    pub(crate) fn try_win(&self) -> bool {
        self.win_quiet() || self.win()
    }

    /// Blocks until it is won, the time has come or the wait `is_over`; whether it is won. Counts no
    /// token. It looks whether it is over whenever it wakes: after [`wake_all`](ThreadLock::wake_all) at
    /// once.
    pub(crate) fn wait(&self, until: Time, is_over: impl Fn() -> bool) -> bool {
        self.win_quiet() || self.take_slow(until, is_over)
    }

    /// As [`wait`](ThreadLock::wait) without limit, blocking no thread. Dropping the future gives
    /// back what it was about to receive.
    pub(crate) async fn wait_async(&self) {
        // Between winning and the return there is no await, so nothing is lost in between.
        if !self.win_quiet() {
            ThreadWaiting { lock: self, ticket: None }.await;
        }
    }

    /// Counts a token. Only for its holder, once after it has won, and if a panic here has the holder
    /// release it.
    #[inline]
    pub(crate) fn count(&self) -> ThreadTaken {
        self.counted().unwrap_or_else(|| out_of_tokens())
    }

    /// The same for a holder that nothing releases it for yet: a panic leaves it free.
    #[inline]
    pub(crate) fn count_or_unlock(&self) -> ThreadTaken {
        self.taken()
    }

    /// Blocks until taken.
    #[inline]
    pub(crate) fn take(&self) -> ThreadTaken {
        if !self.win_quiet() {
            self.take_slow(Time::NEVER, || false);
        }
        self.taken()
    }

    /// Blocks until taken or until the time has come; then `None`.
    #[inline]
    pub(crate) fn take_until(&self, until: Time) -> Option<ThreadTaken> {
        self.take_unless(until, || false)
    }

    /// The same, for a wait that may be over before that. It looks whether it is whenever it
    /// wakes: after [`wake_all`](ThreadLock::wake_all) at once.
    #[inline]
    pub(crate) fn take_unless(
        &self,
        until: Time,
        is_over: impl Fn() -> bool,
    ) -> Option<ThreadTaken> {
        let won = self.win_quiet() || self.take_slow(until, is_over);
        won.then(|| self.taken())
    }

    /// Has every thread that waits look around.
    pub(crate) fn wake_all(&self) {
        if let Some(queue) = self.queue.so_far() {
            queue.lock().wake_all();
        }
    }

    /// Waits without blocking a thread. Dropping the future gives back what it was about to
    /// receive.
    #[cfg(test)]
    pub(crate) async fn take_async(&self) -> ThreadTaken {
        self.wait_async().await;
        self.taken()
    }

    /// How many waiters are queued that came before this time. For a caller whose own wait is over.
    #[cold]
    pub(crate) fn waiters_before(&self, since: Time) -> usize {
        self.queue.so_far().map_or(0, |queue| queue.lock().waiters_before(since))
    }

    /// Whether a waiter is queued just now.
    pub(crate) fn has_waiters(&self) -> bool {
        self.word.load(Relaxed) & WAITERS != 0
    }

    /// Whether it is held just now, or handed over.
    pub(crate) fn is_locked(&self) -> bool {
        self.word.load(Relaxed) & LOCKED != 0
    }

    /// Says in the word that readers may be inside. Whether it was held then.
    #[inline]
    pub(crate) fn is_locked_beside_readers(&self) -> bool {
        let mut word = self.word.load(SeqCst);
        if word & SHARED == 0 {
            word = self.word.fetch_or(SHARED, SeqCst);
        }
        word & LOCKED != 0
    }

    /// No reader is inside, nor can come in meanwhile. Only for the holder.
    pub(crate) fn has_no_readers(&self) {
        if self.word.load(Relaxed) & SHARED != 0 {
            self.word.fetch_and(!SHARED, Relaxed);
        }
    }

    /// The last token granted, as far as this thread can know without the lock.
    #[inline]
    pub(crate) fn last_token(&self) -> Token {
        Token::new(self.token.load(Relaxed)).expect("only tokens are stored")
    }

    /// How the holder's predecessor left. Only for the holder.
    #[inline]
    pub(crate) fn predecessor(&self) -> Predecessor {
        Predecessor::from_u8(self.left.load(Relaxed))
    }

    /// Raises the token to at least this. Only for the holder.
    pub(crate) fn raise_token(&self, token: Token) {
        assert!(
            self.word.load(Relaxed) & LOCKED != 0,
            "no holder has the lock that is to raise its token"
        );
        if self.token.load(Relaxed) < token.get() {
            self.token.store(token.get(), Relaxed);
        }
    }

    /// Releases it. Only for the holder, once.
    #[inline]
    pub(crate) fn release(&self, how: Predecessor) {
        // Nearly always it says so already: a store less that the exchange has to wait for.
        if self.left.load(Relaxed) != how as u8 {
            self.left.store(how as u8, Relaxed);
        }
        self.unlock();
    }

    /// The same, to the first in line, however shortly that has waited. Only for the holder, once.
    pub(crate) fn release_fairly(&self, how: Predecessor) {
        if self.left.load(Relaxed) != how as u8 {
            self.left.store(how as u8, Relaxed);
        }
        if self.word.compare_exchange(LOCKED, 0, Release, Relaxed).is_err() {
            self.unlock_slow(Handing::ToTheFirst);
        }
    }

    /// Releases what was won as a turnstile only, leaving it as it was found.
    #[inline]
    pub(crate) fn step_out(&self) {
        self.unlock();
    }

    /// `release`, by a waiter that was handed the lock and never had it.
    #[inline]
    fn unlock(&self) {
        // After this exchange the lock may be another holder's: nothing of it is touched.
        if self.word.compare_exchange(LOCKED, 0, Release, Relaxed).is_err() {
            self.unlock_slow(Handing::ToTheQuickest);
        }
    }

    /// Wins a lock that is free and has no queue.
    #[inline]
    fn win_quiet(&self) -> bool {
        self.word.compare_exchange(0, LOCKED, SeqCst, Relaxed).is_ok()
    }

    /// Wins the lock if it is free.
    fn win(&self) -> bool {
        // The load spares the holder's cache line a write by every newcomer.
        self.word.load(Relaxed) & LOCKED == 0 && self.word.fetch_or(LOCKED, SeqCst) & LOCKED == 0
    }

    /// What the winner does with the lock before anything else.
    #[inline]
    fn taken(&self) -> ThreadTaken {
        self.counted().unwrap_or_else(|| self.unlock_without_tokens())
    }

    /// `None`: its tokens are exhausted.
    #[inline]
    fn counted(&self) -> Option<ThreadTaken> {
        let last = self.token.load(Relaxed);
        if last >= Token::MAX.get() {
            return None;
        }
        self.token.store(last + 1, Relaxed);
        Some(ThreadTaken {
            token: Token::new(last + 1).expect("it is not past the largest"),
            predecessor: Predecessor::from_u8(self.left.load(Relaxed)),
        })
    }

    #[cold]
    fn unlock_without_tokens(&self) -> ! {
        self.unlock();
        out_of_tokens();
    }

    /// Queues as a thread. False if the time came first, or the wait is over.
    #[cold]
    fn take_slow(&self, until: Time, is_over: impl Fn() -> bool) -> bool {
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
        let mut queue = self.queue();
        if self.win_or_wait() {
            self.clear_marks(&queue);
            return true;
        }
        let ticket = queue.push(WaiterKind::Thread, arrived, Call::Bell(bell.clone()));
        loop {
            // Looked for while it is queued, and so heard by a caller of `wake_all`.
            if !is_over() {
                bell.wait_for(&mut queue, until.since(now()).min(LONGEST_NAP));
            }
            if self.look(&mut queue, WaiterKind::Thread, ticket) {
                return true;
            }
            if now() >= until || is_over() {
                queue.remove(WaiterKind::Thread, ticket);
                let call = self.left_queue(&mut queue);
                let watch = queue.watch();
                ring(queue, call);
                self.look_at(watch);
                return false;
            }
        }
    }

    /// Either wins, or has ensured that the holder's release looks at the queues: then the caller
    /// has an entry by when the holder releases the mutex of the queues.
    fn win_or_wait(&self) -> bool {
        let mut before = self.word.load(Relaxed);
        loop {
            let is_free = before & LOCKED == 0;
            let after = if is_free { before | LOCKED } else { before & !CALLED | WAITERS };
            match self.word.compare_exchange(before, after, SeqCst, Relaxed) {
                Ok(_) if is_free => return true,
                Ok(_) => return false,
                Err(found) => before = found,
            }
        }
    }

    /// After an entry is gone from the queues: clears WAITERS if no waiter is queued, and CALLED since
    /// another may be first now. What the word was.
    fn clear_marks(&self, queue: &Queue) -> u8 {
        let marks = if queue.is_empty() { WAITERS | CALLED } else { CALLED };
        self.word.fetch_and(!marks, Relaxed)
    }

    /// What a queued waiter does whenever it wakes. True if it has the lock; its entry is gone.
    fn look(&self, queue: &mut Queue, kind: WaiterKind, ticket: Ticket) -> bool {
        if queue.claim(ticket) {
            return true;
        }
        queue.come_back(ticket);
        // A waiter that is not first looks because of a nap's end or a poll of another's making.
        if queue.is_first(kind, ticket) && (self.win_or_wait() || queue.lapse(now())) {
            queue.remove(kind, ticket);
            self.clear_marks(queue);
            return true;
        }
        queue.fall_asleep(kind, ticket);
        false
    }

    /// After an entry was removed and its owner goes without the lock: whatever wake-up it had been
    /// given is passed on.
    fn left_queue(&self, queue: &mut Queue) -> Option<Waker> {
        // If it is held, its release will see to the waiters.
        let is_held = self.clear_marks(queue) & LOCKED != 0;
        if is_held { None } else { queue.wake_first_of_each(now()) }
    }

    #[cold]
    fn unlock_slow(&self, handing: Handing) {
        let mut before = self.word.load(Relaxed);
        assert!(before & LOCKED != 0, "a lock was released without a holder");
        let is_left_to_called = handing == Handing::ToTheQuickest;
        // Without waiters it is here for its readers.
        while is_left_to_called && before & CALLED != 0 || before & WAITERS == 0 {
            match self.word.compare_exchange(before, before & !LOCKED, Release, Relaxed) {
                Ok(_) => return,
                Err(found) => before = found,
            }
        }
        let mut queue = self.queue();
        let call = self.pass_on(&mut queue, handing);
        let watch = queue.watch();
        ring(queue, call);
        self.look_at(watch);
    }

    /// The queues of this process. Where there were none, marks in the word are of the waiters of
    /// the process that this one was forked from, which wait there: here they are forgotten.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue.here().lock();
        if queue.is_new() {
            self.word.fetch_and(!(WAITERS | CALLED), Relaxed);
        }
        queue
    }

    /// Has an alarm look at this time whether a task's turn has lapsed.
    fn look_at(&self, at: Option<Time>) {
        if let Some(at) = at {
            look_at(at, Arc::downgrade(self.queue.here()));
        }
    }

    /// Gives up the lock, which is held: to an heir, or to the quickest taker.
    fn pass_on(&self, queue: &mut Queue, handing: Handing) -> Option<Waker> {
        // The waiters that had marked the word may all have left since.
        if !queue.is_empty() {
            let now = now();
            let patience = (handing == Handing::ToTheQuickest).then_some(PATIENCE);
            if let Some(kind) = queue.kind_due(now, patience) {
                let call = queue.hand_over(kind, now);
                self.clear_marks(queue);
                return call;
            }
            // No other thread has the queues: the first waiter is woken before any can see that.
            let left = |word: u8| Some(word & SHARED | WAITERS | CALLED);
            let _ = self.word.fetch_update(Release, Relaxed, left);
            return queue.wake_first_of_each(now);
        }
        self.word.fetch_and(!(LOCKED | WAITERS | CALLED), Release);
        None
    }
}

/// As a turnstile.
impl ThreadLock {
    /// For a task that has won it as a turnstile and is about to wait at the gate: its seat. From
    /// the moment that it is [woken](ThreadLock::wake_seat) its turn can lapse.
    pub(crate) fn sit_down(&self) -> Seat {
        Seat(self.queue().sit_down())
    }

    /// The same, for one that is woken without the lock at hand.
    fn take_seat(&self) -> Seat {
        let mut queue = self.queue();
        // A release that finds it set does not look at the queues, also after the turn was handed on.
        // It is not set again before a release.
        self.word.fetch_and(!CALLED, Relaxed);
        Seat(queue.sit_down())
    }

    fn weak_queue(&self) -> Weak<Mutex<Queue>> {
        Arc::downgrade(self.queue.here())
    }

    /// Takes it from a task in its seat whose turn has lapsed, if no other waits; whether it did.
    pub(crate) fn take_lapsed(&self) -> bool {
        let Some(queue) = self.queue.so_far() else { return false };
        let mut queue = queue.lock();
        queue.is_empty() && queue.lapse(now())
    }

    /// The task in this seat is about to be woken.
    pub(crate) fn wake_seat(&self, seat: Seat) {
        let mut queue = self.queue();
        if queue.wake_seat(seat.0, now()) {
            // A release that finds it set does not look at the queues, also after the turn was
            // handed on.
            self.word.fetch_and(!CALLED, Relaxed);
            let watch = queue.watch();
            drop(queue);
            self.look_at(watch);
        }
    }

    /// The task in this seat is polled; whether it still has the turnstile.
    pub(crate) fn poll_seat(&self, seat: Seat) -> bool {
        self.queue().poll_seat(seat.0)
    }

    /// The task in this seat waits no longer; whether it still has the turnstile.
    pub(crate) fn get_up(&self, seat: Seat) -> bool {
        let (has_it, left) = self.queue().get_up(seat.0);
        drop(left);
        has_it
    }

    /// For a task that is polled after its turn has lapsed: waits at the head of the queue.
    pub(crate) async fn come_back(&self, seat: Seat) {
        ThreadWaiting { lock: self, ticket: Some((seat.0, generation())) }.await;
    }
}

#[cold]
fn out_of_tokens() -> ! {
    panic!("the tokens of this lock are exhausted");
}

/// A task's seat at a turnstile, which it takes to wait at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(Ticket);

/// Looks at this time whether a task's turn has lapsed, and again for as long as one can.
fn look_at(at: Time, queue: Weak<Mutex<Queue>>) {
    sync::call_at(at, move || {
        let Some(shared) = queue.upgrade() else { return };
        let mut guard = shared.lock();
        let (call, next) = guard.look(now());
        ring(guard, call);
        if let Some(next) = next {
            look_at(next, queue);
        }
    });
}

/// Unlocks the queues, then wakes a task: a waker may do anything, even come back here.
fn ring(queue: MutexGuard<'_, Queue>, call: Option<Waker>) {
    drop(queue);
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
struct ThreadWaiting<'a> {
    lock: &'a ThreadLock,
    /// Its entry, from the first poll that finds the lock taken until it is ready, and in which
    /// process that stands.
    ticket: Option<(Ticket, u64)>,
}

impl ThreadWaiting<'_> {
    /// Its entry in the queues of this process.
    fn ticket_here(&self) -> Option<Ticket> {
        self.ticket.filter(|(_, made_in)| *made_in == generation()).map(|(ticket, _)| ticket)
    }
}

impl Future for ThreadWaiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let lock = self.lock;
        // Wakers are cloned before and dropped after the queues' mutex is held: both may do
        // anything.
        let waker = cx.waker().clone();
        let mut queue = lock.queue();
        // A ticket that was inherited by a fork stands in no queue of this process.
        let old = match self.ticket_here() {
            None if lock.win_or_wait() => {
                lock.clear_marks(&queue);
                return Poll::Ready(());
            }
            None => {
                let ticket = queue.push(WaiterKind::Task, now(), Call::Waker(Some(waker)));
                self.ticket = Some((ticket, generation()));
                None
            }
            Some(ticket) if lock.look(&mut queue, WaiterKind::Task, ticket) => {
                self.ticket = None;
                return Poll::Ready(());
            }
            Some(ticket) => queue.replace_waker(ticket, waker),
        };
        let watch = queue.watch();
        drop(queue);
        drop(old);
        lock.look_at(watch);
        Poll::Pending
    }
}

impl Drop for ThreadWaiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket_here() else { return };
        let mut queue = self.lock.queue();
        let (entry, call) = if queue.claim(ticket) {
            (None, self.lock.pass_on(&mut queue, Handing::ToTheQuickest))
        } else {
            let entry = queue.remove(WaiterKind::Task, ticket);
            (Some(entry), self.lock.left_queue(&mut queue))
        };
        let watch = queue.watch();
        ring(queue, call);
        drop(entry);
        self.lock.look_at(watch);
    }
}
