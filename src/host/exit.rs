//! What a process that ends by `exit` still owes its leaders.
//!
//! A manager in a `static` is never dropped. So at exit each link that is still there sends what is
//! queued, gives back what it keeps and says goodbye, at most [`LIMIT`] for all of them. What a
//! guard still holds ends with its session, as after a kill.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{alarm::contain, clock, fork::PerFork, system, time::Time};

/// What has something to say to a leader or another lock service when the process ends.
pub(super) trait LeavesAtExit: Send + Sync {
    /// Sends what is queued and gives back what no guard has; calls that wait are not told. Whether
    /// there is something to [finish](LeavesAtExit::finish_leaving).
    fn leave(&self, until: Time) -> bool;

    /// Waits until all of it is sent, at most until `until`.
    fn finish_leaving(&self, until: Time);
}

/// How long the process stays at most for the sake of its leaders.
const LIMIT: Duration = Duration::from_millis(100);

/// The links that may have something to say. A forked child has its own: none of its parent's.
static LINKS: PerFork<Mutex<Vec<Weak<dyn LeavesAtExit>>>> = PerFork::unset();

/// From now on this link is looked after at exit.
pub(super) fn look_after(link: &Weak<dyn LeavesAtExit>) {
    // Children inherit it.
    static IS_HOOKED: OnceLock<bool> = OnceLock::new();
    IS_HOOKED.get_or_init(|| system::at_exit(leave));
    let mut links = LINKS.here(Mutex::default).lock();
    links.retain(|link| link.strong_count() > 0);
    links.push(link.clone());
}

extern "C" fn leave() {
    // The process ends all the same.
    contain(|| {
        let until = clock::now() + LIMIT;
        let links = LINKS.here(Mutex::default).try_lock_for(LIMIT);
        let links: Vec<Arc<dyn LeavesAtExit>> =
            links.iter().flat_map(|links| links.iter().filter_map(Weak::upgrade)).collect();
        let closing = links.iter().filter(|link| link.leave(until)).collect::<Vec<_>>();
        for link in closing {
            link.finish_leaving(until);
        }
        // Their drops would wait once more.
        std::mem::forget(links);
    });
}
