//! Telling guards that their lock is lost.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::*},
    },
    task::{Context, Poll},
};

use event_listener::{Event, EventListener};

use crate::{callbacks, clock, error::LostReason, fork::Mutex, time::Time};

/// What is called with words for people.
pub(crate) type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// A deadline shared by all leases of a session (or of one lock with `at_most`), moved by
/// the session that renews it.
#[derive(Debug)]
pub(crate) struct Deadline(AtomicU64);

impl Deadline {
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) fn new(at: Time) -> Deadline {
        Deadline(AtomicU64::new(at.as_nanos()))
    }

    pub(crate) fn get(&self) -> Time {
        Time::from_nanos(self.0.load(Acquire))
    }

    /// Moves it. Whatever is lost at the old deadline is marked as lost *before* this is called:
    /// a guard that sees the new deadline then sees the mark.
    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(crate) fn set(&self, at: Time) {
        self.0.store(at.as_nanos(), Release);
    }
}

/// One grant's standing: whether it is lost, and until when it is good without a further word.
pub(crate) struct Watch {
    /// A `LostReason`, 0, or `RELEASED`.
    lost: AtomicU8,
    session: Option<Arc<Deadline>>,
    /// This grant's own deadline, from `at_most`.
    own: Time,
    event: Event,
    callbacks: Mutex<Vec<Callback>>,
}

/// In `Watch::lost`: released in good order, so that no loss can follow.
const RELEASED: u8 = u8::MAX;

pub(crate) type Callback = Box<dyn FnOnce(LostReason) + Send>;

impl Watch {
    pub(crate) fn new(session: Option<Arc<Deadline>>, own: Option<Time>) -> Watch {
        Watch {
            lost: AtomicU8::new(0),
            session,
            own: own.unwrap_or(Time::NEVER),
            event: Event::new(),
            callbacks: Mutex::new(Vec::new()),
        }
    }

    /// Until when the lock is good; [`Time::NEVER`] without a deadline.
    pub(crate) fn deadline(&self) -> Time {
        self.session.as_ref().map_or(self.own, |session| session.get().min(self.own))
    }

    /// Why it is lost, if it is: told, or its deadline has passed. Once lost it stays lost.
    pub(crate) fn lost(&self) -> Option<LostReason> {
        // The deadline is read first: see `Deadline::set`.
        let session = self.session.as_ref().map_or(Time::NEVER, |session| session.get());
        if let Some(reason) = self.told() {
            return Some(reason);
        }
        if session == Time::NEVER && self.own == Time::NEVER {
            return None;
        }
        let now = clock::now();
        if now < session && now < self.own {
            return None;
        }
        self.lose(if now >= session { LostReason::Expired } else { LostReason::HeldTooLong });
        self.told()
    }

    /// Marks it lost and has that told.
    pub(crate) fn lose(&self, reason: LostReason) {
        if self.mark(reason) {
            self.tell(reason);
        }
    }

    pub(crate) fn told(&self) -> Option<LostReason> {
        match self.lost.load(Acquire) {
            RELEASED => None,
            told => LostReason::from_u8(told),
        }
    }

    /// Marks it lost; only the first reason counts. Whether this was it, and so
    /// [`tell`](Watch::tell) is to follow, once no lock is held.
    #[must_use]
    pub(crate) fn mark(&self, reason: LostReason) -> bool {
        self.lost.compare_exchange(0, reason as u8, AcqRel, Acquire).is_ok()
    }

    /// Wakes the futures that asked, then has the callbacks called on threads where they hold up
    /// nothing else: neither each other nor what follows from the loss.
    pub(crate) fn tell(&self, reason: LostReason) {
        self.event.notify(usize::MAX);
        for callback in std::mem::take(&mut *self.callbacks.lock()) {
            callbacks::run(move || callback(reason));
        }
    }

    /// Runs `callback` once it is lost: at once if it is already.
    pub(crate) fn on_lost(&self, callback: Callback) {
        let mut callbacks = self.callbacks.lock();
        match self.told() {
            None => callbacks.push(callback),
            Some(reason) => {
                drop(callbacks);
                callback(reason);
            }
        }
    }

    /// The guard releases the lock: unless that was lost before, no loss is told any more. What was
    /// to be called is foreign code, to be dropped when no lock is held.
    #[must_use]
    pub(crate) fn release(&self) -> Vec<Callback> {
        match self.lost.compare_exchange(0, RELEASED, AcqRel, Acquire) {
            Ok(_) => std::mem::take(&mut *self.callbacks.lock()),
            // The thread that marked it lost calls them.
            Err(_) => Vec::new(),
        }
    }

    /// The guard releases the lock, perhaps while other locks are held: it is told of a loss that it
    /// was not told of yet, and of nothing more.
    pub(crate) fn end(&self, lost: Option<LostReason>) {
        if let Some(why) = lost {
            self.lose(why);
        }
        let callbacks = self.release();
        if !callbacks.is_empty() {
            // Foreign code may hang on them: dropped where nothing is held.
            callbacks::run(move || drop(callbacks));
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("lost", &self.told())
            .field("deadline", &self.deadline())
            .finish()
    }
}

/// A future of the reason why a lock was lost; see [`MutexGuard::lost`](crate::MutexGuard::lost).
///
/// It does not borrow the guard. After a release in good order it pends for ever.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tierlock::{LockManager, MutexGuard};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let guard = locks.mutex("import", ()).lock_async().await?;
/// let lost = MutexGuard::lost(&guard);
/// let watching = tokio::spawn(async move { println!("stop: {}", lost.await) });
/// locks.lose_lock("import");
/// watching.await.unwrap();
/// # Ok::<(), tierlock::LockError>(())
/// # }).unwrap();
/// # }
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct Lost {
    watch: Option<Arc<Watch>>,
    listener: Option<Pin<Box<EventListener>>>,
}

impl Lost {
    pub(crate) fn new(watch: Option<Arc<Watch>>) -> Lost {
        Lost { watch, listener: None }
    }
}

impl Future for Lost {
    type Output = LostReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LostReason> {
        let Some(watch) = self.watch.clone() else { return Poll::Pending };
        loop {
            if let Some(reason) = watch.told() {
                return Poll::Ready(reason);
            }
            match &mut self.listener {
                None => self.listener = Some(Box::pin(watch.event.listen())),
                Some(listener) => match listener.as_mut().poll(cx) {
                    Poll::Ready(()) => self.listener = None,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

impl Clone for Lost {
    fn clone(&self) -> Lost {
        Lost::new(self.watch.clone())
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost").field("watch", &self.watch).finish()
    }
}
