//! Readers of one process beside its lock, where that lock is the gate; or the permits that are taken
//! of a semaphore.
//!
//! A reader adds 1 to the count and *then* looks at the lock; a writer wins the lock and *then*
//! looks at the count. All four are SeqCst: in their one order one of the two comes second, and sees
//! the other. A reader that is not let in takes its 1 back as one that leaves does, so that a writer
//! which saw it is woken.
//!
//! Permits are counted by the holder of the lock, which then releases it, and come back past the lock.

use std::time::Duration;

#[cfg(not(tierlock_loom))]
use event_listener::Listener;

use super::{
    ThreadLock,
    sync::{self, AtomicBool, AtomicU32, BellListener, GateBell, Ordering::*, now},
};
use crate::{
    mode::{Room, Share},
    time::Time,
};

/// The readers of a lock, and what a writer waits for.
pub(crate) struct ThreadShares {
    /// How many readers are inside, or looking whether they may be; or how many permits are taken.
    /// [`WANTED`] above.
    word: AtomicU32,
    /// An upgradable reader is inside: it holds the lock, and readers come in beside it.
    readable: AtomicBool,
    /// The holder of the lock waits for permits: a try need not wait for it.
    drains: AtomicBool,
    /// So many threads and tasks wait to be writers.
    writers: AtomicU32,
    /// Rung by the last reader that a writer waits for, and by permits that come back.
    bell: GateBell,
}

/// The holder of the lock waits until less is counted.
const WANTED: u32 = 1 << 31;

/// No sleep exceeds this; see `LONGEST_NAP` of the lock.
const LONGEST_NAP: Duration = Duration::from_millis(100);

impl ThreadShares {
    sync::const_fn! {
        pub(crate) fn new() -> ThreadShares {
            ThreadShares {
                word: AtomicU32::new(0),
                readable: AtomicBool::new(false),
                drains: AtomicBool::new(false),
                writers: AtomicU32::new(0),
                bell: GateBell::new(),
            }
        }
    }

    /// Comes in as a reader, if this lock is free, or held by an upgradable reader and no writer
    /// waits. If not, everything is as it was.
    #[inline]
    pub(crate) fn read(&self, lock: &ThreadLock) -> bool {
        self.add(Share::Reader);
        let is_in = !lock.is_locked_beside_readers() || self.may_read_beside();
        if !is_in {
            self.leave(Share::Reader);
        }
        is_in
    }

    /// Comes in as a reader, for the holder of the lock, which then releases it.
    pub(crate) fn read_under(&self, lock: &ThreadLock) {
        self.add(Share::Reader);
        lock.is_locked_beside_readers();
    }

    /// Whether an upgradable reader is inside and no writer waits in this process.
    pub(crate) fn may_read_beside(&self) -> bool {
        self.is_readable() && self.writers.load(SeqCst) == 0
    }

    /// Counts permits, for the holder of the lock, which has found room for them and then releases it.
    #[inline]
    pub(crate) fn count_permits(&self, count: u32) {
        self.add(Share::Permits(count));
    }

    /// Whether there is no such room. For the holder of the lock.
    #[inline]
    pub(crate) fn is_full(&self, room: Room) -> bool {
        self.counted() > room.most()
    }

    /// How many readers are inside, or looking whether they may be; or how many permits are taken.
    #[inline]
    pub(crate) fn counted(&self) -> u32 {
        self.word.load(SeqCst) & !WANTED
    }

    #[cfg(feature = "process")]
    pub(crate) fn has_waiting_writers(&self) -> bool {
        self.writers.load(SeqCst) > 0
    }

    #[inline]
    fn add(&self, share: Share) {
        let before = self.word.fetch_add(share.count(), SeqCst);
        assert!(before & !WANTED < WANTED - share.count(), "there are 2^31 readers");
    }

    /// A reader leaves, or permits come back.
    #[inline]
    pub(crate) fn leave(&self, share: Share) {
        let mut before = self.word.load(Relaxed);
        loop {
            assert!(before & !WANTED >= share.count(), "a reader left that never came");
            let rings = before & WANTED != 0 && share.wakes(before & !WANTED);
            let after = (if rings { before & !WANTED } else { before }) - share.count();
            match self.word.compare_exchange(before, after, SeqCst, Relaxed) {
                Ok(_) if rings => return self.ring(),
                Ok(_) => return,
                Err(found) => before = found,
            }
        }
    }

    #[cold]
    fn ring(&self) {
        self.bell.ring();
    }

    /// For the holder of the lock: what to wait for, if there is no such room.
    pub(crate) fn listen(&self, room: Room) -> Option<BellListener> {
        if !self.is_full(room) {
            return None;
        }
        // Before the count is read again: a reader that leaves then is heard.
        let listener = self.bell.listen();
        let want = |word: u32| (word & !WANTED > room.most()).then_some(word | WANTED);
        self.word.fetch_update(SeqCst, SeqCst, want).is_ok().then_some(listener)
    }

    /// Blocks until there is such room, for the holder of the lock. False if the time came first.
    pub(crate) fn drain(&self, room: Room, until: Time) -> bool {
        while self.is_full(room) {
            let left = until.since(now());
            if left.is_zero() {
                return false;
            }
            if let Some(listener) = self.listen(room) {
                listener.wait_timeout(left.min(LONGEST_NAP));
            }
        }
        true
    }

    /// The same without limit, blocking no thread.
    pub(crate) async fn drain_async(&self, room: Room) {
        while let Some(listener) = self.listen(room) {
            listener.await;
        }
    }

    /// Whether the holder of the lock waits for permits.
    pub(crate) fn is_draining(&self) -> bool {
        self.drains.load(Relaxed)
    }

    /// The holder of the lock waits for permits, and not any more when what is returned is dropped. A
    /// hint: it says whether a try that finds the lock taken may expect it to be free at once.
    pub(crate) fn stand_in_front(&self) -> InFront<'_> {
        self.drains.store(true, Relaxed);
        InFront(self)
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

/// A holder of the lock that waits for permits.
pub(crate) struct InFront<'a>(&'a ThreadShares);

impl Drop for InFront<'_> {
    fn drop(&mut self) {
        self.0.drains.store(false, Relaxed);
    }
}

/// A thread or task that waits to be a writer.
pub(crate) struct WaitingWriter<'a>(&'a ThreadShares);

impl Drop for WaitingWriter<'_> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, SeqCst);
    }
}
