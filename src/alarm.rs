//! One thread that wakes others at a given time, started when first needed.
//!
//! It serves what has no driver of its own: `at_most` below host scope, `at_least`, timed async
//! waits, the file-lock engine's polling. No sleep exceeds 100 ms, because the clock that threads
//! sleep on stops while a machine is suspended and ours does not.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{clock, time::Time};

const LONGEST_SLEEP: Duration = Duration::from_millis(100);

static ALARMS: Mutex<Alarms> = Mutex::new(Alarms { process: 0, heap: BinaryHeap::new(), next: 0 });
static CHANGED: Condvar = Condvar::new();

struct Alarms {
    /// The process whose thread serves the heap; another number means a fork came between.
    process: u32,
    heap: BinaryHeap<Reverse<Entry>>,
    next: u64,
}

struct Entry {
    at: Time,
    number: u64,
    alarm: Arc<Mutex<Option<Action>>>,
}

enum Action {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// An alarm that is set; dropping it takes it back.
#[must_use = "an alarm is taken back when it is dropped"]
pub(crate) struct Alarm(Option<Arc<Mutex<Option<Action>>>>);

impl Alarm {
    /// Lets it ring though nobody keeps it.
    pub(crate) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(action) = &self.0 {
            let taken_back = action.lock().take();
            drop(taken_back);
        }
    }
}

/// Calls `call` on the alarm thread at `at`. It must be short and must not block.
pub(crate) fn call_at(at: Time, call: impl FnOnce() + Send + 'static) -> Alarm {
    set(at, Action::Call(Box::new(call)))
}

fn set(at: Time, action: Action) -> Alarm {
    let alarm = Arc::new(Mutex::new(Some(action)));
    let mut alarms = ALARMS.lock();
    let process = std::process::id();
    if alarms.process != process {
        // A new process, perhaps forked: the parent's alarms are not ours.
        std::mem::forget(std::mem::take(&mut alarms.heap));
        alarms.process = process;
        std::thread::Builder::new()
            .name("tierlock-alarm".into())
            .spawn(serve)
            .expect("the system refuses a thread for timers");
    }
    let number = alarms.next;
    alarms.next += 1;
    let first = alarms.heap.peek().is_none_or(|Reverse(next)| at < next.at);
    alarms.heap.push(Reverse(Entry { at, number, alarm: alarm.clone() }));
    drop(alarms);
    if first {
        CHANGED.notify_one();
    }
    Alarm(Some(alarm))
}

fn serve() {
    let mut due = Vec::new();
    let mut alarms = ALARMS.lock();
    loop {
        let now = clock::now();
        while alarms.heap.peek().is_some_and(|Reverse(entry)| entry.at <= now) {
            due.extend(alarms.heap.pop());
        }
        if !due.is_empty() {
            parking_lot::MutexGuard::unlocked(&mut alarms, || {
                for Reverse(entry) in due.drain(..) {
                    let action = entry.alarm.lock().take();
                    match action {
                        None => {}
                        Some(Action::Wake(waker)) => waker.wake(),
                        Some(Action::Call(call)) => call(),
                    }
                }
            });
            continue;
        }
        match alarms.heap.peek() {
            None => CHANGED.wait(&mut alarms),
            Some(Reverse(entry)) => {
                let sleep = entry.at.since(now).min(LONGEST_SLEEP);
                CHANGED.wait_for(&mut alarms, sleep);
            }
        }
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
        let set_for_us = self.alarm.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker()));
        if !set_for_us {
            let alarm = set(self.at, Action::Wake(cx.waker().clone()));
            self.alarm = Some((alarm, cx.waker().clone()));
        }
        Poll::Pending
    }
}
