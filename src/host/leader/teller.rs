//! Hands a leader's events to the callbacks of its operator, one after the other.
//!
//! A callback may block for as long as it likes, and clients decide how many events there are. So they
//! wait in a bounded queue, one thread at a time hands them over, and of each kind that clients can cause
//! only so many are told in a while. What is left out is counted, and told.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::events::{LeaderEvent, LeaderEventKind};
use crate::{alarm, callbacks, watch::Tell};

/// What is called with each event.
pub(super) type OnEvent = Arc<dyn Fn(&LeaderEvent) + Send + Sync>;

/// What an operator wants to be told.
#[derive(Clone)]
pub(super) struct EventCallbacks {
    /// Each change of reign, in words.
    pub(super) on_change: Tell,
    pub(super) on_event: Option<OnEvent>,
}

impl fmt::Debug for EventCallbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventCallbacks")
    }
}

#[derive(Debug)]
pub(super) struct Teller {
    callbacks: EventCallbacks,
    /// Runs work where it may block.
    run: fn(Box<dyn FnOnce() + Send>),
    untold: Mutex<Untold>,
    told: Condvar,
    /// Some were left out that nothing says yet.
    has_left_out: AtomicBool,
}

#[derive(Debug, Default)]
struct Untold {
    queue: VecDeque<LeaderEvent>,
    /// A thread hands them over.
    is_telling: bool,
    windows: BTreeMap<EventSource, EventWindow>,
}

/// What is bounded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EventSource {
    Kind(LeaderEventKind),
    /// Peers that have not shown that they know the secret: they are of the kind `SessionRefused`, and must not
    /// hide that a client was refused.
    Unauthenticated,
}

impl EventSource {
    fn kind(self) -> LeaderEventKind {
        match self {
            EventSource::Kind(kind) => kind,
            EventSource::Unauthenticated => LeaderEventKind::SessionRefused,
        }
    }

    fn told_max(self) -> u64 {
        match self {
            EventSource::Kind(_) => TOLD_MAX,
            EventSource::Unauthenticated => UNAUTHENTICATED_TOLD_MAX,
        }
    }
}

/// How many events of one kind there were since a time.
#[derive(Debug)]
struct EventWindow {
    since: Instant,
    told: u64,
    left_out: u64,
}

/// How many events of one kind are told in [`WINDOW`], and how many that peers without the secret cause.
pub(super) const TOLD_MAX: u64 = 1000;
const UNAUTHENTICATED_TOLD_MAX: u64 = 100;

const WINDOW: Duration = Duration::from_secs(10);

/// How many may wait for a callback that blocks.
const QUEUE_MAX: usize = 4096;

impl Teller {
    pub(super) fn new(callbacks: EventCallbacks) -> Teller {
        let (untold, told) = Default::default();
        let run = |work: Box<dyn FnOnce() + Send>| callbacks::run(work);
        Teller { callbacks, run, untold, told, has_left_out: AtomicBool::new(false) }
    }

    /// Whether all events are wanted, and not only changes of reign.
    pub(super) fn wants_events(&self) -> bool {
        self.callbacks.on_event.is_some()
    }

    /// Has it told on a thread where that may block, behind those before it.
    pub(super) fn tell(self: &Arc<Self>, event: LeaderEvent) {
        if self.wants_events() || event.is_change {
            let source = EventSource::Kind(event.kind());
            self.tell_at(source, || event, Instant::now());
        }
    }

    /// Has an event told that is put into words only if it is.
    pub(super) fn tell_if_wanted(
        self: &Arc<Self>,
        source: EventSource,
        event: impl FnOnce() -> LeaderEvent,
    ) {
        if self.wants_events() {
            self.tell_at(source, event, Instant::now());
        }
    }

    fn tell_at(
        self: &Arc<Self>,
        source: EventSource,
        event: impl FnOnce() -> LeaderEvent,
        now: Instant,
    ) {
        let mut untold = self.untold.lock();
        if source.kind() != LeaderEventKind::Reign {
            untold.close_windows(now);
            let is_full = untold.queue.len() >= QUEUE_MAX;
            let window = untold.windows.entry(source).or_insert(EventWindow {
                since: now,
                told: 0,
                left_out: 0,
            });
            // An operator needs each alarm, as long as there is room.
            let is_bounded = source.kind() != LeaderEventKind::Alarm;
            if is_full || (is_bounded && window.told >= source.told_max()) {
                window.left_out += 1;
                self.has_left_out.store(true, Relaxed);
                return;
            }
            window.told += 1;
        }
        untold.queue.push_back(event());
        self.hand_over(untold);
    }

    /// Tells what was left out, once its time is over. Asked now and then.
    #[inline]
    pub(super) fn look(self: &Arc<Self>) {
        if self.has_left_out.load(Relaxed) {
            self.look_at(Instant::now());
        }
    }

    #[cold]
    fn look_at(self: &Arc<Self>, now: Instant) {
        let mut untold = self.untold.lock();
        untold.close_windows(now);
        self.has_left_out.store(untold.has_left_out(), Relaxed);
        self.hand_over(untold);
    }

    /// Waits until all are told, for so long at most.
    pub(super) fn finish(self: &Arc<Self>, limit: Duration) {
        let mut untold = self.untold.lock();
        let until = Instant::now() + limit;
        while untold.is_telling && !self.told.wait_until(&mut untold, until).timed_out() {}
    }

    /// The lock is released first: where the system gives no thread, the callbacks run on this one.
    fn hand_over(self: &Arc<Self>, mut untold: MutexGuard<'_, Untold>) {
        let is_due = !untold.is_telling && !untold.queue.is_empty();
        untold.is_telling |= is_due;
        drop(untold);
        if is_due {
            let teller = self.clone();
            (self.run)(Box::new(move || teller.tell_all()));
        }
    }

    fn tell_all(&self) {
        loop {
            let mut untold = self.untold.lock();
            let Some(event) = untold.queue.pop_front() else {
                untold.is_telling = false;
                self.told.notify_all();
                return;
            };
            drop(untold);
            let EventCallbacks { on_change, on_event } = &self.callbacks;
            if event.is_change {
                alarm::contain(|| on_change(&event.to_string()));
            }
            if let Some(on_event) = on_event {
                alarm::contain(|| on_event(&event));
            }
        }
    }
}

impl Untold {
    /// What was left out of a kind is told behind its time.
    fn close_windows(&mut self, now: Instant) {
        let Untold { queue, windows, .. } = self;
        windows.retain(|source, window| {
            let is_open = now.saturating_duration_since(window.since) < WINDOW;
            if !is_open && window.left_out > 0 {
                queue.push_back(LeaderEvent::left_out(source.kind(), window.left_out));
            }
            is_open
        });
    }

    fn has_left_out(&self) -> bool {
        self.windows.values().any(|window| window.left_out > 0)
    }
}

#[cfg(test)]
mod tests;
