//! Readers of one process beside its lock, where that lock is the gate.
//!
//! A reader adds 1 to the count and *then* looks at the lock; a writer wins the lock and *then*
//! looks at the count. All four are SeqCst: in their one order one of the two comes second, and sees
//! the other. A reader that is not let in takes its 1 back as one that leaves does, so that a writer
//! which saw it is woken.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::*},
    time::Duration,
};

use event_listener::{Event, EventListener, Listener};

use super::ThreadLock;
use crate::{clock::now, fork::PerFork, time::Time};

/// The readers of a lock, and what a writer waits for.
pub(crate) struct ThreadShares {
    /// How many readers are inside, or looking whether they may be; [`WANTED`] above.
    word: AtomicU32,
    /// An upgradable reader is inside: it holds the lock, and readers come in beside it.
    readable: AtomicBool,
    /// So many threads and tasks wait to be writers.
    writers: AtomicU32,
    /// Rung by the last reader that a writer waits for.
    bell: PerFork<Event>,
}

/// A writer waits until no reader is counted.
const WANTED: u32 = 1 << 31;

/// No sleep exceeds this; see `LONGEST_NAP` of the lock.
const LONGEST_NAP: Duration = Duration::from_millis(100);

impl ThreadShares {
    pub(crate) const fn new() -> ThreadShares {
        ThreadShares {
            word: AtomicU32::new(0),
            readable: AtomicBool::new(false),
            writers: AtomicU32::new(0),
            bell: PerFork::unset(),
        }
    }

    /// Comes in as a reader, if this lock is free, or held by an upgradable reader and no writer
    /// waits. If not, everything is as it was.
    #[inline]
    pub(crate) fn read(&self, lock: &ThreadLock) -> bool {
        self.add();
        let is_in = !lock.is_locked_beside_readers() || self.may_read_beside();
        if !is_in {
            self.leave();
        }
        is_in
    }

    /// Comes in as a reader, for the holder of the lock, which then releases it.
    pub(crate) fn read_under(&self, lock: &ThreadLock) {
        self.add();
        lock.is_locked_beside_readers();
    }

    /// Whether an upgradable reader is inside and no writer waits in this process.
    pub(crate) fn may_read_beside(&self) -> bool {
        self.is_readable() && self.writers.load(SeqCst) == 0
    }

    /// Whether readers are inside, or just looking whether they may be. For the holder of the lock.
    #[inline]
    pub(crate) fn has_readers(&self) -> bool {
        self.word.load(SeqCst) != 0
    }

    #[cfg(feature = "process")]
    pub(crate) fn has_waiting_writers(&self) -> bool {
        self.writers.load(SeqCst) > 0
    }

    #[inline]
    fn add(&self) {
        let before = self.word.fetch_add(1, SeqCst);
        assert!(before & !WANTED < WANTED - 1, "there are 2^31 readers");
    }

    /// A reader leaves.
    #[inline]
    pub(crate) fn leave(&self) {
        let mut before = self.word.load(Relaxed);
        loop {
            assert!(before & !WANTED != 0, "a reader left that never came");
            let after = if before == WANTED | 1 { 0 } else { before - 1 };
            match self.word.compare_exchange(before, after, SeqCst, Relaxed) {
                Ok(_) if before == WANTED | 1 => return self.ring(),
                Ok(_) => return,
                Err(found) => before = found,
            }
        }
    }

    #[cold]
    fn ring(&self) {
        self.bell.here(Event::new).notify(usize::MAX);
    }

    /// For a writer that has the lock: what to wait for, if readers are inside.
    pub(crate) fn listen(&self) -> Option<EventListener> {
        if self.word.load(SeqCst) == 0 {
            return None;
        }
        // Before the count is read again: a reader that leaves then is heard.
        let listener = self.bell.here(Event::new).listen();
        let want = |word: u32| (word & !WANTED != 0).then_some(word | WANTED);
        self.word.fetch_update(SeqCst, SeqCst, want).is_ok().then_some(listener)
    }

    /// Blocks until no reader is inside, for a writer that has the lock. False if the time came
    /// first.
    pub(crate) fn drain(&self, until: Time) -> bool {
        while let Some(listener) = self.listen() {
            let left = until.since(now());
            if left.is_zero() {
                return false;
            }
            listener.wait_timeout(left.min(LONGEST_NAP));
        }
        true
    }

    /// The same without limit, blocking no thread.
    pub(crate) async fn drain_async(&self) {
        while let Some(listener) = self.listen() {
            listener.await;
        }
    }

    /// Whether an upgradable reader is inside.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable.load(SeqCst)
    }

    /// An upgradable reader comes in, for good or until it is a writer. For the holder of the gate.
    pub(crate) fn set_readable(&self, readable: bool) {
        self.readable.store(readable, SeqCst);
    }

    /// A thread or task waits to be a writer; not any more when what is returned is dropped.
    pub(crate) fn count_writer(&self) -> WaitingWriter<'_> {
        self.writers.fetch_add(1, SeqCst);
        WaitingWriter(self)
    }
}

/// A thread or task that waits to be a writer.
pub(crate) struct WaitingWriter<'a>(&'a ThreadShares);

impl Drop for WaitingWriter<'_> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, SeqCst);
    }
}
