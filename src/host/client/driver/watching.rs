//! What watches for the thread while it rests.

use std::sync::atomic::Ordering::SeqCst;

use super::{CALLER, ClientDriver, READER, SOON, THREAD};
use crate::{alarm, clock, time::Time};

impl ClientDriver {
    /// Sees to it that an alarm is set.
    pub(super) fn watch(&self) {
        if !self.is_watched.swap(true, SeqCst) {
            self.set_alarm(Looked::default());
        }
    }

    /// At the same times for all, so that one thread is woken once for all of them.
    fn set_alarm(&self, looked: Looked) {
        let driver = self.me.clone();
        let tick = SOON.as_nanos() as u64;
        let next = Time::from_nanos((clock::now().as_nanos() / tick + 1) * tick);
        alarm::call_at(next, move || {
            if let Some(driver) = driver.upgrade() {
                driver.look_for_thread(looked);
            }
        })
        .detach();
    }

    /// Wakes the thread if something waits for it, or nothing has happened since it was `looked`.
    fn look_for_thread(&self, mut looked: Looked) {
        let Some(link) = self.link.upgrade() else { return };
        let poller = self.poller.load(SeqCst);
        // A caller that has left reads nothing any more; a runtime has other things to do, too.
        let patience = if poller == READER { READER_MAY_PAUSE } else { 1 };
        let is_idle = looked.activity.is_same(self.activity.load(SeqCst), patience);
        let is_unread =
            looked.turns.is_same(self.turns.load(SeqCst), patience) && link.unanswered() > 0;
        match poller {
            THREAD => {
                self.is_watched.store(false, SeqCst);
                if self.is_left_to_watch.swap(false, SeqCst) {
                    self.bell.ring();
                }
                if self.poller.load(SeqCst) != THREAD {
                    // It went to rest just now, and found an alarm set.
                    self.watch();
                }
                return;
            }
            CALLER => {}
            _ => {
                if is_idle {
                    self.is_idle.store(true, SeqCst);
                }
                if self.is_left_to_watch.swap(false, SeqCst) || is_idle || is_unread {
                    self.have_thread_look();
                }
            }
        }
        self.set_alarm(looked);
    }

    /// Leaves something to be sent to the watch; whether there is one.
    pub(super) fn is_left_to_watch(&self) -> bool {
        self.is_left_to_watch.store(true, SeqCst);
        self.is_watched.load(SeqCst)
    }

    /// Has the thread look around, whichever is the poller.
    fn have_thread_look(&self) {
        self.thread.lock().is_to_look = true;
        self.changed.notify_all();
        // It may poll again by itself.
        self.bell.ring();
    }

    /// The thread looks after what is due, though it rests.
    pub(super) fn wake_for_what_is_due(&self) {
        if self.due().as_nanos() < self.rests_until.load(SeqCst) {
            self.have_thread_look();
        }
    }

    pub(super) fn due(&self) -> Time {
        Time::from_nanos(self.due.load(SeqCst))
    }
}

/// So many alarms in a row may find that a runtime has neither read nor sent.
const READER_MAY_PAUSE: u32 = 8;

/// What alarms saw.
#[derive(Clone, Copy, Default)]
struct Looked {
    pub(super) activity: Still,
    pub(super) turns: Still,
}

/// A count, and how many looks in a row found it unchanged.
#[derive(Clone, Copy, Default)]
struct Still {
    count: Option<u64>,
    pub(super) looks: u32,
}

impl Still {
    /// Whether it is as it was, for so many looks.
    pub(super) fn is_same(&mut self, count: u64, looks: u32) -> bool {
        self.looks = if self.count.replace(count) == Some(count) { self.looks + 1 } else { 0 };
        self.looks >= looks
    }
}
