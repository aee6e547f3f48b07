//! Where a process's representative sleeps until the lease word changes.

use std::task::Waker;

use super::words::{Mutex, Thread, current};

/// A representative that sleeps, a thread or a task.
pub(crate) enum WordWaiter {
    Thread(Thread),
    Task(Waker),
}

impl WordWaiter {
    pub(super) fn this_thread() -> WordWaiter {
        WordWaiter::Thread(current())
    }

    /// A task's waker is foreign code: no lock may be held.
    pub(crate) fn wake(self) {
        match self {
            WordWaiter::Thread(thread) => thread.unpark(),
            WordWaiter::Task(waker) => waker.wake(),
        }
    }
}

/// The place of the one representative. Wakers go in and come out, and are neither woken nor dropped
/// under its lock.
pub(super) struct WaiterSeat(Mutex<Option<WordWaiter>>);

impl WaiterSeat {
    pub(super) fn new() -> WaiterSeat {
        WaiterSeat(Mutex::new(None))
    }

    /// The one that was there before is for the caller to drop.
    pub(super) fn sit_down(&self, waiter: WordWaiter) -> Option<WordWaiter> {
        self.0.lock().replace(waiter)
    }

    pub(super) fn get_up(&self) -> Option<WordWaiter> {
        self.0.lock().take()
    }
}
