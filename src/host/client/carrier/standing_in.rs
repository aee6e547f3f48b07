//! A thread that stands in for the carrier's thread while foreign code keeps that.
//!
//! A waker is to return at once, and a directory's file to be written at once. One that does neither
//! keeps the thread that told it, beside a connection that is free; but then no thread sees to what is due
//! and what no caller carries, of any manager: renewals first of all. So an alarm looks at a thread that
//! tells, and one that is still at the same at the next look is replaced. It ends once it is let go.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use super::Carrier;
use crate::{alarm, clock};

/// A thread that tells one thing for longer, twice that at most, is replaced. Leases are renewed long
/// before their end compared with this.
const KEPT_MAX: Duration = Duration::from_millis(20);

/// What one thread of a carrier says of its telling.
#[derive(Default)]
pub(super) struct ThreadTelling {
    me: Weak<ThreadTelling>,
    /// Grows as it begins to tell, and as it ends: odd meanwhile.
    told: AtomicU64,
    /// An alarm is set that looks. Set by the thread after `told` has grown; an alarm that is about to
    /// find nothing to look at clears it first and looks at `told` then.
    is_watched: AtomicBool,
    is_replaced: AtomicBool,
}

impl ThreadTelling {
    pub(super) fn new() -> Arc<ThreadTelling> {
        Arc::new_cyclic(|me| ThreadTelling { me: me.clone(), ..ThreadTelling::default() })
    }

    /// Whether another thread has its part now.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(SeqCst)
    }

    /// Another thread has its part, unless the system gives none; whether it has.
    pub(super) fn replace<E>(&self, start: impl FnOnce() -> Result<(), E>) -> bool {
        let is_replaced = start().is_ok();
        self.is_replaced.store(is_replaced, SeqCst);
        is_replaced
    }

    /// Does `work`, which runs foreign code and does not panic.
    pub(super) fn tells(&self, carrier: &Carrier, work: impl FnOnce()) {
        let told = self.told.fetch_add(1, SeqCst) + 1;
        if !self.is_watched.swap(true, SeqCst) {
            self.look_later(carrier.me.clone(), told);
        }
        work();
        self.told.fetch_add(1, SeqCst);
    }

    fn look_later(&self, carrier: Weak<Carrier>, seen: u64) {
        let me = self.me.clone();
        let look = move || {
            if let (Some(telling), Some(carrier)) = (me.upgrade(), carrier.upgrade()) {
                telling.look(&carrier, seen);
            }
        };
        alarm::call_at(clock::now() + KEPT_MAX, look).detach();
    }

    /// On the alarm thread, after `seen` was seen.
    fn look(self: &Arc<Self>, carrier: &Carrier, seen: u64) {
        let told = self.told.load(SeqCst);
        if told == seen {
            let is_kept = told % 2 == 1;
            if is_kept && carrier.stand_in(self) {
                return;
            }
            if !is_kept {
                self.is_watched.store(false, SeqCst);
                if self.told.load(SeqCst) == told || self.is_watched.swap(true, SeqCst) {
                    return;
                }
            }
        }
        self.look_later(carrier.me.clone(), told);
    }
}
