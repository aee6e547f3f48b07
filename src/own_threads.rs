//! Threads of this library's own, and whether the calling thread is the only other one of its process.
//!
//! A guard may be sent to another thread, which may drop it while the thread that locked it waits. So what
//! a thread that waits has locked comes back only after its wait if there is no other thread. Those that are
//! started here are none: they run nothing of the user's but wakers, which wake a task that some other thread
//! would have to poll. One that is started otherwise counts as the user's, whatever it does.

use std::{
    io,
    sync::atomic::{
        AtomicI64, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    thread::{self, JoinHandle},
};

use crate::fork::PerFork;

/// Those that run: a child of a fork has none of its parent's.
static RUNNING: PerFork<OwnThreads> = PerFork::unset();

#[derive(Default)]
struct OwnThreads {
    /// Never more than there are.
    running: AtomicI64,
    /// How often one has begun or ended.
    changes: AtomicU64,
}

/// Starts a thread that runs nothing of the user's but wakers.
pub(crate) fn spawn(
    name: &str,
    serve: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let own = RUNNING.here(OwnThreads::default);
    let started = thread::Builder::new().name(name.to_owned()).spawn(|| {
        let _ending = EndingThread(own);
        serve();
    })?;
    // It is there by now, or has been counted down already.
    own.count(1);
    Ok(started)
}

impl OwnThreads {
    fn count(&self, more: i64) {
        self.running.fetch_add(more, SeqCst);
        self.changes.fetch_add(1, SeqCst);
    }
}

/// Counts its thread down some time before that is gone.
struct EndingThread(&'static OwnThreads);

impl Drop for EndingThread {
    fn drop(&mut self) {
        self.0.count(-1);
    }
}

/// The calling thread's number, which no other thread of the process ever has.
pub(crate) fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = LAST.fetch_add(1, Relaxed) + 1;
    }
    // A thread that is ending is known by none.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// Whether the calling thread, which is none of our own, is surely the only one of that kind. No other can
/// come while it waits: there is none to start it. False where the system does not tell.
#[cfg_attr(
    not(any(feature = "host", feature = "testing")),
    allow(dead_code, reason = "what is asked of a leader says it")
)]
pub(crate) fn is_only_one_of_users() -> bool {
    // So many are there if none began or ended meanwhile, and were among those that the system lists.
    let own = RUNNING.here(OwnThreads::default);
    let (running, changes) = (own.running.load(SeqCst), own.changes.load(SeqCst));
    let all = all_threads();
    own.changes.load(Relaxed) == changes && all == Some(running + 1)
}

/// How many threads the process has.
fn all_threads() -> Option<i64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    tasks.map(|task| task.ok()).try_fold(0, |all, task| task.map(|_| all + 1))
}
