//! Numbers of threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The calling thread's number, which no other thread of the process ever has; `None` while it ends.
pub(crate) fn thread_number() -> Option<u64> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = LAST.fetch_add(1, Relaxed) + 1;
    }
    NUMBER.try_with(|number| *number).ok()
}
