//! Waiting for names without a thread for each: a few threads sleep for all futures of this
//! process, look at words and presences, and wake a future when it is to be polled.
//!
//! Every name has at most one waiter here per process, its representative. So what these threads
//! sleep on is names, however many tasks wait for each.
//!
//! | the kernel | a thread sleeps on | threads |
//! |---|---|---|
//! | has `futex_waitv` (Linux 5.16) | up to 127 words at once | one in 127 names |
//! | has not, or a sandbox forbids it | one word | one for each of 64 names |
//! | | nothing: it looks every millisecond | one for all other names |
//!
//! **Nothing is taken for a future.** A thread here takes the wait's record when its time has come,
//! marks the word before it sleeps, passes over a late wait and proves a death, like any waiter.
//! But where another waiter would take the word, it reserves it for the future's wait, or, without
//! a record, makes it free and wakes another sleeper; and it wakes the future. The future's poll
//! then claims the word, or takes it, or waits on. Until that poll the thread does nothing more for
//! it: a future that is never polled again is passed over as a stopped process is, and marks no
//! word. A poll that wins gives its future the lock at once; a future that is dropped has nothing
//! but its record and what is reserved for it, and hands both on.
//!
//! A thread that had nothing to do for a second ends. A forked child inherits none and starts its
//! own; futures of its parent are none of its business.
//!
//! **Wakes.** A thread that sleeps on many words learns of one that it was woken on, and may have
//! been woken on others too. A wake may be for one sleeper only, so it must not get lost: for each
//! name that may have been woken it is looked again, and if the future is gone by then, another
//! sleeper is woken. A dropped future gives up at once, in its own thread: when the drop returns,
//! nothing here touches the name's word any more.
//!
//! A waker is foreign code. It is cloned, called and dropped only while no lock of this file is
//! held.

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering::*},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use rustix::io::Errno;

use crate::{
    alarm::contain,
    clock,
    error::{LockError, LockErrorKind, LostReason},
    fork::{Mutex, MutexGuard, PerFork},
    process::SlotWish,
    time::Time,
};

use super::{
    super::sys::futex,
    lock::{Seeker, SeekerTurn, SlotAt, SlotWon, Stop, cannot_sleep, wake_another},
    map::Cell,
    member::Member,
    protocol::Slept,
    slot::MappedSlot,
    word::{SlotState as WordState, Word},
};

/// The names that a thread without `futex_waitv` looks at, it looks at so often.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// So many threads sleep on one name each where there is no `futex_waitv`.
const SINGLES_MAX: usize = 64;
/// A thread that looks at one name because its time has come also looks at names due so soon.
const SLACK: Duration = Duration::from_millis(1);
/// How long a thread without names stays.
const LINGER: Duration = Duration::from_secs(1);

/// How a wait ended: what its winner is told, or why the lock is not held.
pub(super) type End = Result<SlotWon, Stop>;

/// A lock that is being taken without blocking a thread. The word is this process's when it is
/// ready with an [`SlotWon`]; dropped before, it hands on what was reserved for it.
pub(super) struct SlotWait<'a> {
    slot: &'a Cell<MappedSlot>,
    number: u32,
    member: &'a Arc<Member>,
    generation: u32,
    until: Time,
    wish: SlotWish,
    sleepers: &'static Sleepers,
    asked: Option<Arc<Asked>>,
}

/// Takes a slot for this member, waiting until `until`.
pub(super) fn take<'a>(
    slot: &'a Cell<MappedSlot>,
    number: u32,
    member: &'a Arc<Member>,
    generation: u32,
    until: Time,
) -> SlotWait<'a> {
    let (wish, sleepers) = (SlotWish::default(), Sleepers::here());
    SlotWait { slot, number, member, generation, until, wish, sleepers, asked: None }
}

impl SlotWait<'_> {
    /// The same, as a representative that waits so.
    pub(super) fn with(self, wish: SlotWish) -> Self {
        let mut wait = self;
        wait.wish = wish;
        wait
    }
}

impl Future for SlotWait<'_> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        if !self.member.is_here() {
            // The right to wait here is that of the process this one was forked from.
            return Poll::Ready(Err(Stop::Failed(LockError::lost(LostReason::Forked))));
        }
        let Some(asked) = &self.asked else { return self.begin(cx) };
        let polled = asked.poll(cx);
        match polled {
            Polled::Waits => Poll::Pending,
            Polled::Again => match self.sleepers.add(asked) {
                Ok(()) => Poll::Pending,
                Err(error) => {
                    asked.give_up();
                    self.asked = None;
                    Poll::Ready(Err(Stop::Failed(cannot_start(error))))
                }
            },
            Polled::Ended(end) => {
                self.asked = None;
                Poll::Ready(end)
            }
        }
    }
}

impl SlotWait<'_> {
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let seeker = Seeker::for_task(self.member.id, self.generation).with(self.wish);
        let member = self.member.clone();
        let mut search = Search { seeker, number: self.number, member, until: self.until };
        let nap = match search.go_on_polled(self.slot) {
            Ok(nap) => nap,
            Err(end) => return Poll::Ready(end),
        };
        let waiting = WaitingPolled { search, nap, slept: false, waker: cx.waker().clone() };
        let state = Mutex::new(WaitState::Waiting(waiting));
        let asked = Arc::new(Asked { slot: self.slot.clone(), state });
        match self.sleepers.add(&asked) {
            Ok(()) => {
                self.asked = Some(asked);
                Poll::Pending
            }
            Err(error) => {
                asked.give_up();
                Poll::Ready(Err(Stop::Failed(cannot_start(error))))
            }
        }
    }
}

impl Drop for SlotWait<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take().filter(|_| self.member.is_here()) {
            asked.give_up();
        }
    }
}

#[cold]
fn cannot_start(error: io::Error) -> LockError {
    LockError::new(LockErrorKind::Io, "cannot start a thread to wait for the lock")
        .with_source(error)
}

// ---- one name that is waited for -----------------------------------------------------------

/// A name that a future waits for, as the future and a thread here share it.
struct Asked {
    slot: Cell<MappedSlot>,
    /// Locked for as long as a look takes, never during a sleep.
    state: Mutex<WaitState>,
}

enum WaitState {
    /// A thread here waits for it.
    Waiting(WaitingPolled),
    /// The future was woken, and goes on when it is polled.
    Parked(Search),
    /// It failed, for the future to pick up.
    Failed(Stop),
    /// The future has picked it up, or is gone.
    Over,
}

/// What came of a poll.
enum Polled {
    Waits,
    /// A thread is to wait for it again.
    Again,
    Ended(End),
}

struct WaitingPolled {
    search: Search,
    nap: Nap,
    /// It slept since `search` asked for it.
    slept: bool,
    waker: Waker,
}

/// What is to be slept on, and until when.
#[derive(Clone, Copy)]
struct Nap {
    seen: Word,
    ends: Time,
}

/// Whether a thread was woken on a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    No,
    /// On one of several.
    Perhaps,
    Yes,
}

impl Asked {
    fn poll(&self, cx: &mut Context<'_>) -> Polled {
        // Foreign code, so before the state is locked; and the old one is dropped afterwards.
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        if let WaitState::Waiting(waiting) = &mut *state {
            let old = std::mem::replace(&mut waiting.waker, waker);
            drop(state);
            drop(old);
            return Polled::Waits;
        }
        match std::mem::replace(&mut *state, WaitState::Over) {
            WaitState::Failed(stop) => Polled::Ended(Err(stop)),
            WaitState::Parked(mut search) => {
                search.seeker.polled();
                match search.go_on_polled(&self.slot) {
                    Err(end) => Polled::Ended(end),
                    Ok(nap) => {
                        *state =
                            WaitState::Waiting(WaitingPolled { search, nap, slept: false, waker });
                        Polled::Again
                    }
                }
            }
            _ => panic!("polled after it was ready"),
        }
    }

    /// The lock is not wanted any more.
    fn give_up(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), WaitState::Over);
        let (mut search, waker) = match state {
            WaitState::Waiting(WaitingPolled { search, waker, .. }) => (search, Some(waker)),
            WaitState::Parked(search) => (search, None),
            WaitState::Failed(_) | WaitState::Over => return,
        };
        search.give_up(&self.slot);
        drop(waker);
    }

    /// Goes on, if there is a reason to. What to sleep on then; `None` when no thread waits for it
    /// any more.
    fn go_on(&self, woken: Woken, slept: bool, due: Time) -> Option<Nap> {
        let mut state = self.state.lock();
        let WaitState::Waiting(waiting) = &mut *state else {
            drop(state);
            if woken != Woken::No {
                wake_another(&self.slot);
            }
            return None;
        };
        waiting.slept |= slept;
        let Some(slept) = waiting.what_became(&self.slot, woken, due) else {
            return Some(waiting.nap);
        };
        match waiting.go_on(&self.slot, slept) {
            NextLook::Sleep(nap) => return Some(nap),
            NextLook::Park => self.stop(state, WaitState::Parked),
            NextLook::End(end) => {
                let stop = end.expect_err("nothing is taken for a future");
                self.stop(state, |_| WaitState::Failed(stop));
            }
        }
        None
    }

    /// Ends with this error.
    fn fail(&self, error: LockError) {
        let state = self.state.lock();
        if let WaitState::Waiting(_) = &*state {
            self.stop(state, |mut search| {
                search.give_up(&self.slot);
                WaitState::Failed(Stop::Failed(error))
            });
        }
    }

    /// Stops waiting for the future, which is to be polled.
    fn stop(&self, mut state: MutexGuard<'_, WaitState>, to: impl FnOnce(Search) -> WaitState) {
        let WaitState::Waiting(WaitingPolled { search, waker, .. }) =
            std::mem::replace(&mut *state, WaitState::Over)
        else {
            unreachable!("only what waits stops");
        };
        *state = to(search);
        drop(state);
        // The others wait for this thread all the same.
        contain(|| waker.wake());
    }
}

impl WaitingPolled {
    /// How its sleep ended, if it did.
    fn what_became(&self, slot: &MappedSlot, woken: Woken, due: Time) -> Option<Slept> {
        let word = Word::from_bits(slot.word.load(SeqCst));
        let is_other = word != self.nap.seen;
        // An unchanged word that is held promises a wake as it did before, unless its holder is said
        // to have ended. One that is reserved does not.
        let reserved = matches!(word.state(), Some(WordState::Reserved(_)));
        let is_its_own = reserved || self.search.seeker.is_hinted();
        let passes_on = woken == Woken::Perhaps && is_its_own;
        if woken == Woken::Yes || passes_on || is_other {
            // A waiter that may have slept takes the word as one that did.
            let never = woken == Woken::No && !self.slept;
            Some(if never { Slept::Changed } else { Slept::Woken })
        } else {
            (self.nap.ends <= due).then_some(Slept::ByItself)
        }
    }

    fn go_on(&mut self, slot: &Cell<MappedSlot>, slept: Slept) -> NextLook {
        self.search.seeker.slept(slept);
        let next = self.search.go_on(slot);
        if let NextLook::Sleep(mut nap) = next {
            if slept != Slept::ByItself {
                // However often it is woken, in time it looks whether the owner lives.
                nap.ends = nap.ends.min(self.nap.ends);
            }
            self.nap = nap;
            self.slept = false;
            return NextLook::Sleep(nap);
        }
        next
    }
}

/// A seeker, and for which process and how long it seeks.
struct Search {
    seeker: Seeker,
    number: u32,
    member: Arc<Member>,
    until: Time,
}

enum NextLook {
    Sleep(Nap),
    /// The future is to be polled.
    Park,
    End(End),
}

impl Search {
    /// Goes on until it is to sleep, to be polled, or at its end.
    fn go_on(&mut self, slot: &Cell<MappedSlot>) -> NextLook {
        let table = &self.member.table;
        let at = SlotAt { slot, number: self.number, table, kept: Some(slot) };
        loop {
            return NextLook::End(match self.seeker.go_on(at, &*self.member) {
                Ok(SeekerTurn::Sleep { seen, longest, .. }) => {
                    let now = clock::now();
                    if now < self.until && self.seeker.is_in_place(slot) {
                        return NextLook::Sleep(Nap {
                            seen,
                            ends: (now + longest).min(self.until),
                        });
                    }
                    self.seeker.slept(Slept::GiveUp);
                    continue;
                }
                Ok(SeekerTurn::Park) => return NextLook::Park,
                Ok(SeekerTurn::Won(admission)) => Ok(admission),
                Ok(SeekerTurn::GaveUp) => Err(Stop::TimedOut),
                Ok(SeekerTurn::WouldBlock) => unreachable!("it waits"),
                Err(stop) => Err(stop),
            });
        }
    }

    /// The same in a poll, which takes what the word's own thread would only reserve: what to
    /// sleep on, or its end.
    fn go_on_polled(&mut self, slot: &Cell<MappedSlot>) -> Result<Nap, End> {
        loop {
            match self.go_on(slot) {
                NextLook::Sleep(nap) => return Ok(nap),
                NextLook::End(end) => return Err(end),
                // It looked once more after it had made up its mind to sleep.
                NextLook::Park => self.seeker.polled(),
            }
        }
    }

    /// Leaves nothing behind.
    fn give_up(&mut self, slot: &Cell<MappedSlot>) {
        let table = &self.member.table;
        self.seeker.abandon(SlotAt { slot, number: self.number, table, kept: None });
    }
}

// ---- the threads ---------------------------------------------------------------------------

/// The threads of this process that sleep for others.
struct Sleepers {
    /// Whether there is `futex_waitv`.
    many: OnceLock<bool>,
    threads: Mutex<Vec<Arc<Sleeper>>>,
}

/// A thread that sleeps for others.
struct Sleeper {
    how: How,
    /// Names that it has not seen yet.
    new: Mutex<Vec<Arc<Asked>>>,
    /// How many names it has, with the new ones.
    names: AtomicUsize,
    /// Counts what is new. It sleeps on this, too.
    poked: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// On many words at once.
    OnMany,
    /// On one word.
    OnOne,
    /// On no word: it looks at them.
    Looking,
}

impl How {
    fn names_max(self) -> usize {
        match self {
            How::OnMany => futex::MANY - 1,
            How::OnOne => 1,
            How::Looking => usize::MAX,
        }
    }
}

static SLEEPERS: PerFork<Sleepers> = PerFork::unset();

impl Sleepers {
    const fn new() -> Sleepers {
        Sleepers { many: OnceLock::new(), threads: Mutex::new(Vec::new()) }
    }

    fn here() -> &'static Sleepers {
        SLEEPERS.here(Sleepers::new)
    }

    /// Has one of the threads wait for this name.
    fn add(&'static self, asked: &Arc<Asked>) -> io::Result<()> {
        let mut threads = self.threads.lock();
        let with_room = threads.iter().find(|sleeper| {
            let how = sleeper.how;
            how != How::Looking && sleeper.names.load(Relaxed) < how.names_max()
        });
        let sleeper = match with_room {
            Some(sleeper) => sleeper.clone(),
            None => self.another(&mut threads)?,
        };
        sleeper.names.fetch_add(1, Relaxed);
        sleeper.new.lock().push(asked.clone());
        drop(threads);
        sleeper.poked.fetch_add(1, SeqCst);
        futex::poke(&sleeper.poked);
        Ok(())
    }

    /// One more thread, or the one that has room for all.
    fn another(&'static self, threads: &mut Vec<Arc<Sleeper>>) -> io::Result<Arc<Sleeper>> {
        let how = match self.many.get_or_init(futex::can_sleep_on_many) {
            true => How::OnMany,
            false if threads.len() < SINGLES_MAX => How::OnOne,
            false => How::Looking,
        };
        let looking = threads.iter().find(|sleeper| sleeper.how == How::Looking);
        if let Some(looking) = looking.filter(|_| how == How::Looking) {
            return Ok(looking.clone());
        }
        let sleeper = Arc::new(Sleeper {
            how,
            new: Mutex::default(),
            names: AtomicUsize::new(0),
            poked: AtomicU32::new(0),
        });
        let served = sleeper.clone();
        thread::Builder::new().name("tierlock-wait".into()).spawn(move || served.serve(self))?;
        threads.push(sleeper.clone());
        Ok(sleeper)
    }

    /// Whether this thread may end. No waiter finds it any more then.
    fn retire(&self, sleeper: &Arc<Sleeper>) -> bool {
        let mut threads = self.threads.lock();
        let idle = sleeper.names.load(Relaxed) == 0;
        if idle {
            threads.retain(|other| !Arc::ptr_eq(other, sleeper));
        }
        idle
    }
}

/// How a thread's sleep on its names ended.
struct Rest {
    /// So many of its names, the first ones, it slept on.
    slept: usize,
    /// It was woken on this one, and perhaps on those before it.
    woken: Option<usize>,
}

impl Rest {
    const NONE: Rest = Rest { slept: 0, woken: None };

    fn woken(&self, at: usize) -> Woken {
        match self.woken {
            Some(last) if at == last => Woken::Yes,
            Some(last) if at < last => Woken::Perhaps,
            _ => Woken::No,
        }
    }
}

impl Sleeper {
    fn serve(self: &Arc<Self>, all: &Sleepers) {
        let mut names: Vec<Arc<Asked>> = Vec::new();
        let mut naps: Vec<Nap> = Vec::new();
        let mut rest = Rest::NONE;
        loop {
            // Before looking for what is new: what comes after that changes it.
            let poked = self.poked.load(SeqCst);
            names.append(&mut self.new.lock());
            self.look(&mut names, &mut naps, &rest);
            rest = Rest::NONE;
            if names.is_empty() {
                futex::sleep_until_poked(&self.poked, poked, LINGER);
                if self.poked.load(SeqCst) == poked && all.retire(self) {
                    return;
                }
                continue;
            }
            match self.sleep(poked, &names, &naps) {
                Ok(slept) => rest = slept,
                Err(error) => {
                    names.iter().for_each(|asked| asked.fail(cannot_sleep(error)));
                    self.names.fetch_sub(names.len(), Relaxed);
                    names.clear();
                }
            }
        }
    }

    /// Has each name go on, and finds out what to sleep on next.
    fn look(&self, names: &mut Vec<Arc<Asked>>, naps: &mut Vec<Nap>, rest: &Rest) {
        let now = clock::now();
        let is_time = naps.iter().any(|nap| nap.ends <= now);
        let due = if is_time { now + SLACK } else { now };
        naps.clear();
        let (before, mut at) = (names.len(), 0);
        names.retain(|asked| {
            let (woken, slept) = (rest.woken(at), at < rest.slept);
            at += 1;
            let nap = asked.go_on(woken, slept, due);
            naps.extend(nap);
            nap.is_some()
        });
        self.names.fetch_sub(before - names.len(), Relaxed);
    }

    fn sleep(&self, poked: u32, names: &[Arc<Asked>], naps: &[Nap]) -> Result<Rest, Errno> {
        let ends = naps.iter().map(|nap| nap.ends).min().expect("a thread with names has a nap");
        let longest = ends.since(clock::now());
        let woken = match self.how {
            How::Looking => {
                futex::sleep_until_poked(&self.poked, poked, longest.min(LOOK_EVERY));
                return Ok(Rest::NONE);
            }
            How::OnOne => {
                let (word, seen) = (&names[0].slot.word, naps[0].seen.low_half());
                futex::sleep(word, seen, futex::ALL, longest).map(|()| Some(0))
            }
            How::OnMany => {
                let words = names.iter().zip(naps);
                let words = words.map(|(asked, nap)| (&asked.slot.word, nap.seen.low_half()));
                futex::sleep_on_many((&self.poked, poked), words, longest)
            }
        };
        match woken {
            Ok(woken) => Ok(Rest { slept: names.len(), woken }),
            Err(Errno::AGAIN) => Ok(Rest::NONE),
            Err(Errno::TIMEDOUT | Errno::INTR) => Ok(Rest { slept: names.len(), woken: None }),
            Err(error) => Err(error),
        }
    }
}
