//! A thread that wakes others at a given time, started when first needed.
//!
//! It serves what has no driver of its own: `at_most` below host scope, `at_least`, timed async
//! waits, the file-lock engine's polling. No sleep exceeds 100 ms, because the clock that threads
//! sleep on stops while a machine is suspended and ours does not.
//!
//! What rings is mostly foreign in the end: the waker of a task, or what a guard asked to be told by. It is to
//! return at once. One that does not keeps the thread, and with it every other alarm of the process, those
//! among them that look after threads which foreign code keeps elsewhere. So a second thread watches while
//! anything rings, and serves in the place of a first that is kept; that ends once it is let go.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::BinaryHeap,
    future::Future,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use crate::{
    clock,
    fork::{self, Condvar, Mutex, PerFork},
    time::Time,
};

const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// So many alarms that were taken back may stay in the heap, however few others there are.
const TAKEN_BACK_MAX: usize = 64;

/// A thread that one alarm keeps for longer, twice that at most, is replaced.
const KEPT_MAX: Duration = Duration::from_millis(50);

/// So many threads may be kept at a time before no other takes their place.
const KEPT_THREADS_MAX: usize = 64;

/// The alarms of this process.
///
/// A child touches nothing that it inherited, not even a lock: a thread of its parent may have held
/// it at the fork, and is not there to release it.
static ALARMS: PerFork<Alarms> = PerFork::unset();

thread_local! {
    static IS_ALARM_THREAD: Cell<bool> = const { Cell::new(false) };
}

struct Alarms {
    /// The process that they ring in. Not told by its pid, which a grandchild may have again.
    generation: u64,
    set: Mutex<Set>,
    changed: Condvar,
    /// There is something to watch.
    rings: Condvar,
}

struct Set {
    /// The number of the thread that serves them; zero before there is one.
    server: u64,
    /// Threads that do no longer, and have yet to come back.
    kept: usize,
    /// How many have rung, and whether one does just now.
    rung: u64,
    is_ringing: bool,
    has_watchman: bool,
    /// It watches, or is about to.
    is_watched: bool,
    heap: BinaryHeap<Reverse<AlarmEntry>>,
    next: u64,
    /// How many entries of the heap were taken back, about.
    taken_back: usize,
}

struct AlarmEntry {
    at: Time,
    number: u64,
    alarm: Arc<Mutex<Option<Action>>>,
}

enum Action {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

impl PartialEq for AlarmEntry {
    fn eq(&self, other: &AlarmEntry) -> bool {
        self.number == other.number
    }
}
impl Eq for AlarmEntry {}
impl PartialOrd for AlarmEntry {
    fn partial_cmp(&self, other: &AlarmEntry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for AlarmEntry {
    fn cmp(&self, other: &AlarmEntry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Action {
    fn run(self) {
        match self {
            Action::Wake(waker) => waker.wake(),
            Action::Call(call) => call(),
        }
    }
}

/// An alarm that is set; dropping it takes it back.
#[must_use = "an alarm is taken back when it is dropped"]
pub(crate) struct Alarm(Option<(&'static Alarms, Arc<Mutex<Option<Action>>>)>);

impl Alarm {
    /// Whether it rings in this process. One that rang at once, for want of a thread, does.
    fn rings_here(&self) -> bool {
        self.0.as_ref().is_none_or(|(alarms, _)| alarms.are_ours())
    }

    /// Lets it ring though it is not kept.
    pub(crate) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let Some((alarms, alarm)) = self.0.take() else { return };
        if !alarms.are_ours() {
            // The parent's are not ours to take back, nor to drop.
            return mem::forget(alarm);
        }
        let taken_back = alarm.lock().take();
        if taken_back.is_some() {
            alarms.forget_one();
        }
    }
}

/// Makes sure that alarms ring: starts their thread, if it is not running.
pub(crate) fn ready() -> io::Result<()> {
    let alarms = Alarms::here();
    alarms.set.lock().ready(alarms)
}

/// Whether this is a thread on which alarms ring: it is not to be kept waiting.
pub(crate) fn is_here() -> bool {
    IS_ALARM_THREAD.get()
}

/// Calls `call` on the alarm thread at `at`. It must be short and must not block. Where no thread
/// can be had it is called at once; see [`ready`].
pub(crate) fn call_at(at: Time, call: impl FnOnce() + Send + 'static) -> Alarm {
    set(at, Action::Call(Box::new(call)))
}

fn set(at: Time, action: Action) -> Alarm {
    let alarms = Alarms::here();
    let mut set = alarms.set.lock();
    if set.ready(alarms).is_err() {
        drop(set);
        action.run();
        return Alarm(None);
    }
    let alarm = Arc::new(Mutex::new(Some(action)));
    let number = set.next;
    set.next += 1;
    let first = set.heap.peek().is_none_or(|Reverse(next)| at < next.at);
    set.heap.push(Reverse(AlarmEntry { at, number, alarm: alarm.clone() }));
    drop(set);
    if first {
        alarms.changed.notify_one();
    }
    Alarm(Some((alarms, alarm)))
}

impl Set {
    fn ready(&mut self, alarms: &'static Alarms) -> io::Result<()> {
        if self.server == 0 {
            spawn(|| alarms.serve(1))?;
            self.server = 1;
        }
        Ok(())
    }

    /// One is about to ring: from now on it is watched, unless the system gives no thread.
    fn begin_ringing(&mut self, alarms: &'static Alarms) {
        self.rung += 1;
        self.is_ringing = true;
        if self.is_watched || self.kept >= KEPT_THREADS_MAX {
            return;
        }
        if !self.has_watchman {
            self.has_watchman = spawn(|| alarms.watch()).is_ok();
        }
        self.is_watched = self.has_watchman;
        alarms.rings.notify_one();
    }
}

impl Alarms {
    fn new() -> Alarms {
        let set = Set {
            server: 0,
            kept: 0,
            rung: 0,
            is_ringing: false,
            has_watchman: false,
            is_watched: false,
            heap: BinaryHeap::new(),
            next: 0,
            taken_back: 0,
        };
        Alarms {
            generation: fork::generation(),
            set: Mutex::new(set),
            changed: Condvar::new(),
            rings: Condvar::new(),
        }
    }

    /// Those of this process.
    fn here() -> &'static Alarms {
        // Unnoticed, a child would wait for its parent's thread; there is none to notice forks with
        // only where nothing could be opened either.
        let _ = fork::watch();
        ALARMS.here(Alarms::new)
    }

    fn are_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Counts one more that was taken back, and throws them out when they are most of the heap.
    fn forget_one(&self) {
        let mut set = self.set.lock();
        set.taken_back += 1;
        if set.taken_back <= TAKEN_BACK_MAX.max(set.heap.len() / 2) {
            return;
        }
        set.taken_back = 0;
        set.heap.retain(|Reverse(entry)| entry.alarm.lock().is_some());
    }

    /// Rings them, one after the other, until the thread is replaced.
    fn serve(&'static self, number: u64) {
        IS_ALARM_THREAD.set(true);
        let mut set = self.set.lock();
        while set.server == number {
            let now = clock::now();
            let first = set.heap.peek().map(|Reverse(first)| first.at);
            match first {
                None => self.changed.wait(&mut set),
                Some(at) if at > now => {
                    self.changed.wait_for(&mut set, at.since(now).min(LONGEST_SLEEP));
                }
                Some(_) => {
                    let Some(Reverse(due)) = set.heap.pop() else { continue };
                    set.begin_ringing(self);
                    drop(set);
                    self.ring(&due);
                    set = self.set.lock();
                    if set.server == number {
                        set.is_ringing = false;
                    }
                }
            }
        }
        set.kept -= 1;
    }

    /// Looks, while there is something to watch, whether one alarm keeps the thread that serves them; then
    /// serves in its place.
    fn watch(&'static self) {
        let mut set = self.set.lock();
        loop {
            while !set.is_watched {
                self.rings.wait(&mut set);
            }
            let (seen, until) = (set.rung, clock::now() + KEPT_MAX);
            loop {
                let left = until.since(clock::now());
                if left.is_zero() {
                    break;
                }
                self.rings.wait_for(&mut set, left);
            }
            if set.rung != seen {
                continue;
            }
            set.is_watched = false;
            if set.is_ringing {
                break;
            }
        }
        set.server += 1;
        set.kept += 1;
        (set.is_ringing, set.has_watchman) = (false, false);
        let number = set.server;
        drop(set);
        self.serve(number);
    }

    fn ring(&self, due: &AlarmEntry) {
        let action = due.alarm.lock().take();
        match action {
            // The other alarms ring all the same.
            Some(action) => contain(|| action.run()),
            None => {
                let mut set = self.set.lock();
                set.taken_back = set.taken_back.saturating_sub(1);
            }
        }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("tierlock-alarm".into()).spawn(run).map(drop)
}

/// Runs foreign code. Its panic is its own: the panic hook has reported it, and it ends nothing else.
pub(crate) fn contain(work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        mem::forget(panic); // dropping it could panic again
    }
}

/// A future that is ready at a time.
pub(crate) struct Sleep {
    at: Time,
    alarm: Option<(Alarm, Waker)>,
}

/// Ready at `at`; never, if that is [`Time::NEVER`].
pub(crate) fn sleep_until(at: Time) -> Sleep {
    Sleep { at, alarm: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.at == Time::NEVER {
            return Poll::Pending;
        }
        if clock::now() >= self.at {
            self.alarm = None;
            return Poll::Ready(());
        }
        // One that was set in the parent of this process rings there.
        let set_for_us = self
            .alarm
            .as_ref()
            .is_some_and(|(alarm, waker)| alarm.rings_here() && waker.will_wake(cx.waker()));
        if !set_for_us {
            let alarm = set(self.at, Action::Wake(cx.waker().clone()));
            self.alarm = Some((alarm, cx.waker().clone()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
