//! Until when what hangs on a session at a server is good.

use std::{
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::margin;
use crate::{clock, time::Time};

/// The life of one session. Once it is over it stays so: the next session is another.
pub(super) struct SessionLife {
    /// As the server keeps it.
    time_to_live: Duration,
    deadline: Mutex<Time>,
    is_ended: AtomicBool,
    /// The last renewal was answered.
    is_confirmed: AtomicBool,
}

impl SessionLife {
    /// Of a session that was asked for then.
    pub(super) fn new(sent: Time, time_to_live: Duration) -> SessionLife {
        SessionLife {
            time_to_live,
            deadline: Mutex::new(until(sent, time_to_live)),
            is_ended: AtomicBool::new(false),
            is_confirmed: AtomicBool::new(true),
        }
    }

    /// Until when what hangs on it is there, if nothing takes it away.
    pub(super) fn deadline(&self) -> Time {
        *self.deadline.lock()
    }

    /// Its end is known, and not only its deadline past.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Acquire)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_ended() || clock::now() >= self.deadline()
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.is_confirmed.load(Acquire)
    }

    /// It is good for long enough to begin something.
    pub(super) fn is_fresh(&self) -> bool {
        !self.is_ended() && self.deadline().since(clock::now()) >= self.time_to_live / 2
    }

    pub(super) fn end(&self) {
        self.is_ended.store(true, Release);
    }

    /// A renewal that was sent then was answered. What is over stays over.
    pub(super) fn renewed(&self, sent: Time) {
        let mut deadline = self.deadline.lock();
        if clock::now() < *deadline {
            *deadline = (*deadline).max(until(sent, self.time_to_live));
        }
        drop(deadline);
        self.is_confirmed.store(true, Release);
    }

    /// A renewal was not answered.
    pub(super) fn missed(&self) {
        self.is_confirmed.store(false, Release);
    }

    /// For a session on which nothing hangs that was believed in: its deadline counts from this
    /// request on, whatever it was before.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn begin_anew(&self, sent: Time) {
        *self.deadline.lock() = until(sent, self.time_to_live);
        self.is_confirmed.store(true, Release);
    }
}

fn until(sent: Time, time_to_live: Duration) -> Time {
    sent + time_to_live.saturating_sub(margin(time_to_live))
}
