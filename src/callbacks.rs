//! Threads that run the callbacks of users.
//!
//! A callback may block, for as long as it likes. So none runs on a thread that has anything else
//! to do, and each that finds no idle thread gets a new one: up to [`THREADS_MAX`] callbacks that
//! block at the same time delay no other. Those beyond that wait in order of arrival. A thread
//! without work ends after [`LINGER`].

use std::{
    collections::VecDeque,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    alarm::{self, contain},
    clock,
    fork::PerFork,
};

/// How many callbacks run at the same time at most.
const THREADS_MAX: usize = 64;
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(1);
/// How soon a thread is tried for again after the system gave none.
const RETRY: Duration = Duration::from_millis(10);

type Work = Box<dyn FnOnce() + Send>;

static CALLBACKS: PerFork<Callbacks> = PerFork::unset();

struct Callbacks {
    state: Mutex<CallbackState>,
    changed: Condvar,
}

struct CallbackState {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

/// Runs `work` on a thread where it may block. It holds up no other callback, no alarm and no
/// renewal. Its panic ends nothing but itself.
///
/// Where the system gives no thread at all it runs at once; see [`alarm::ready`].
pub(crate) fn run(work: impl FnOnce() + Send + 'static) {
    let callbacks = CALLBACKS.here(Callbacks::new);
    lock(&callbacks.state).queue.push_back(Box::new(work));
    callbacks.serve_queue();
}

impl Callbacks {
    const fn new() -> Callbacks {
        let state = CallbackState { queue: VecDeque::new(), threads: 0, idle: 0 };
        Callbacks { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Makes sure that a thread comes to what is queued.
    fn serve_queue(&'static self) {
        let mut state = lock(&self.state);
        if state.queue.len() <= state.idle || state.threads == THREADS_MAX {
            return self.changed.notify_one();
        }
        let thread = thread::Builder::new().name("tierlock-callback".into());
        if thread.spawn(|| self.serve()).is_ok() {
            state.threads += 1;
            return;
        }
        if state.threads > 0 {
            return; // one that runs comes to it
        }
        if alarm::ready().is_ok() {
            drop(state);
            return alarm::call_at(clock::now() + RETRY, || self.serve_queue()).detach();
        }
        let queue = mem::take(&mut state.queue);
        drop(state);
        queue.into_iter().for_each(contain);
    }

    fn serve(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                contain(work);
                state = lock(&self.state);
                continue;
            }
            state.idle += 1;
            let waited = self.changed.wait_timeout(state, LINGER);
            let (woken, wait) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if wait.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Nothing panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
