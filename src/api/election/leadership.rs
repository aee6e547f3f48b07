//! The right to lead an election, and how its end is told.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    task::{Context, Poll},
    time::Duration,
};

use event_listener::Event;

use super::Candidate;
use crate::{
    api::guard::{MutexGuard, OwnedMutexGuard},
    blocking,
    error::{LockError, LostReason, Predecessor, Result},
    path::{Announced, Patience},
    scope::Scope,
    token::Token,
    watch::Lost,
};

/// The right to lead an [`Election`](crate::Election), until it is dropped or lost.
///
/// It is lost as a guard is, see [`MutexGuard`](crate::MutexGuard): at host scope when the session's
/// deadline passes before the leader of the locks confirms a renewal, or when an operator breaks it. The
/// lost leader stops, and then campaigns again with [`regain`](Self::regain);
/// [`Election::lead`](crate::Election::lead) does both by itself.
///
/// # Fairness, cancel safety
/// Dropping it resigns, and never blocks.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::LockManager;
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let mut leadership = locks.election("primary").campaign("10.0.0.7:8080")?;
/// let first = leadership.check()?; // goes with each write of the leader's
/// locks.lose_lock("primary");
/// assert!(leadership.check().unwrap_err().is_lost());
/// leadership.regain()?; // waits until it leads again
/// assert!(leadership.token() > first);
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "if unused, it resigns at once"]
pub struct Leadership {
    /// `None` only where it failed to be regained.
    term: Option<Term>,
    candidate: Candidate,
}

/// One time of leading.
struct Term {
    guard: OwnedMutexGuard<()>,
    announced: Option<Announced>,
    end: Arc<TermEnd>,
}

/// Whether its leader has resigned.
#[derive(Default)]
struct TermEnd {
    is_resigned: AtomicBool,
    event: Event,
}

impl Term {
    /// The leader stops leading: those that asked are told first, observers next; then the lock can be
    /// released.
    fn end(self) -> OwnedMutexGuard<()> {
        self.end.is_resigned.store(true, Release);
        self.end.event.notify(usize::MAX);
        if let Some(announced) = self.announced {
            announced.end();
        }
        self.guard
    }
}

impl Leadership {
    /// The candidate has the lock, and has said so where observers look.
    pub(super) fn begin(
        guard: OwnedMutexGuard<()>,
        announced: Option<Announced>,
        candidate: Candidate,
    ) -> Leadership {
        Leadership { term: Some(Term { guard, announced, end: Arc::default() }), candidate }
    }

    /// The token of this term: larger than that of every leader before.
    ///
    /// # Panics
    /// After a [`regain`](Self::regain) that failed.
    pub fn token(&self) -> Token {
        MutexGuard::token(self.guard())
    }

    /// Which other candidates it excludes.
    ///
    /// # Panics
    /// As [`token`](Self::token).
    pub fn scope(&self) -> Scope {
        MutexGuard::scope(self.guard())
    }

    /// What it campaigned with.
    pub fn value(&self) -> &[u8] {
        &self.candidate.value
    }

    /// Whether it still leads: a statement about this moment only.
    pub fn is_valid(&self) -> bool {
        self.term.as_ref().is_some_and(|term| MutexGuard::is_valid(&term.guard))
    }

    /// The token, if it still leads.
    ///
    /// # Errors
    /// `Lost`, with the reason.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # struct Store; impl Store { fn write(&self, _: tierlock::Token, _: &str) {} }
    /// # let store = Store;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let leadership = locks.election("primary").campaign("10.0.0.7:8080")?;
    /// store.write(leadership.check()?, "a row"); // the store refuses the token of a leader before
    /// locks.lose_lock("primary");
    /// assert!(leadership.check().unwrap_err().is_lost());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn check(&self) -> Result<Token> {
        match &self.term {
            Some(term) => MutexGuard::check(&term.guard),
            None => Err(LockError::lost(LostReason::Expired)),
        }
    }

    /// The time that is left until its deadline; `None` without one. Each renewal moves the lease's end.
    ///
    /// # Panics
    /// As [`token`](Self::token).
    pub fn remaining(&self) -> Option<Duration> {
        MutexGuard::remaining(self.guard())
    }

    /// A future of the reason why it is lost; it pends for ever after a resignation.
    ///
    /// # Panics
    /// As [`token`](Self::token).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{LockManager, LostReason};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let leadership = locks.election("primary").campaign_async("10.0.0.7:8080").await?;
    /// let lost = leadership.lost(); // for `select!` beside the work
    /// locks.lose_lock("primary");
    /// assert_eq!(lost.await, LostReason::Provoked);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn lost(&self) -> Lost {
        MutexGuard::lost(self.guard())
    }

    /// A future of the end of this term: `Some` reason if it was lost, `None` if it resigned or was
    /// dropped. It is ready before another candidate is elected: what leads here is to stop by it. It can
    /// be cloned, and borrows nothing.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Panics
    /// As [`token`](Self::token).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{LockManager, LostReason};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let primary = locks.election("primary").build()?;
    /// let leadership = primary.campaign_async("10.0.0.7:8080").await?;
    /// let ended = leadership.ended(); // what serves stops by it, in a task of its own
    /// locks.lose_lock("primary");
    /// assert_eq!(ended.await, Some(LostReason::Provoked));
    /// drop(leadership); // it has stopped serving
    ///
    /// let leadership = primary.campaign_async("10.0.0.7:8080").await?;
    /// let ended = leadership.ended();
    /// leadership.resign_async().await?;
    /// assert_eq!(ended.await, None);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn ended(&self) -> LeadershipEnded {
        let term = self.term.as_ref().expect(REGAINED);
        LeadershipEnded { lost: MutexGuard::lost(&term.guard), end: term.end.clone(), told: None }
    }

    /// Calls `callback` once, if and when it is lost; see
    /// [`MutexGuard::on_lost`](crate::MutexGuard::on_lost).
    ///
    /// # Panics
    /// As [`token`](Self::token).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::sync::mpsc;
    ///
    /// use tierlock::{LockManager, LostReason};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let leadership = locks.election("primary").campaign("10.0.0.7:8080")?;
    /// let (tell, told) = mpsc::channel();
    /// leadership.on_lost(move |reason| tell.send(reason).unwrap()); // on a thread of the library's
    /// locks.lose_lock("primary");
    /// assert_eq!(told.recv(), Ok(LostReason::Provoked));
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_lost(&self, callback: impl FnOnce(LostReason) + Send + 'static) {
        MutexGuard::on_lost(self.guard(), callback);
    }

    /// How the leader before it left.
    ///
    /// # Panics
    /// As [`token`](Self::token).
    pub fn predecessor(&self) -> Predecessor {
        MutexGuard::predecessor(self.guard())
    }

    /// Stops leading: [`ended`](Self::ended) is told, then the lock is released. At host scope it waits
    /// for the answer: then no observer of a leader is told of this one any more.
    ///
    /// # Errors
    /// `Lost`, with the reason, if it did not lead to the end; `Unreachable`, if no leader of the locks
    /// answers within the manager's `connect_timeout`: then others are elected once the lease has run
    /// out, or the release, which is repeated, has come through. It does not lead in any case.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let primary = locks.election("primary").build()?;
    /// let leadership = primary.campaign("10.0.0.7:8080")?;
    /// leadership.resign()?; // the next candidate is elected at once
    /// assert_eq!(primary.leader()?, None);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn resign(self) -> Result<()> {
        blocking::wait_for(self.resign_async())
    }

    /// As [`resign`](Self::resign), blocking no thread.
    ///
    /// # Cancel safety
    /// It resigns at the call, not at the first poll.
    pub fn resign_async(mut self) -> impl Future<Output = Result<()>> + Send + 'static {
        let answer = self.term.take().map(|term| MutexGuard::unlock_async(term.end()));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(()),
            }
        }
    }

    /// Campaigns again with the same value, if it is lost, and waits until it leads; at once, if it still
    /// leads. By this call its holder says that it has stopped leading.
    ///
    /// # Errors
    /// As [`Election::campaign`](crate::Election::campaign). It does not lead then, and may be regained again.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let mut leadership = locks.election("primary").campaign("10.0.0.7:8080")?;
    /// loop {
    ///     leadership.regain()?; // at once while it leads
    ///     while leadership.is_valid() {
    ///         // … a piece of the leader's work, under `leadership.check()?` …
    ///         # locks.lose_lock("primary");
    ///     }
    ///     // lost: this process has stopped leading, and campaigns again
    ///     # break;
    /// }
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn regain(&mut self) -> Result<()> {
        self.regain_within(Patience::Forever)
    }

    /// As [`regain`](Self::regain), waiting at most for `wait`.
    ///
    /// # Errors
    /// As [`Election::try_campaign_for`](crate::Election::try_campaign_for).
    pub fn try_regain_for(&mut self, wait: Duration) -> Result<()> {
        self.regain_within(Patience::for_at_most(wait))
    }

    /// As [`regain`](Self::regain), blocking no thread.
    ///
    /// # Cancel safety
    /// Dropped early it is no candidate any more, and may be regained again.
    pub async fn regain_async(&mut self) -> Result<()> {
        if self.is_valid() {
            return Ok(());
        }
        self.stop();
        let mut again = self.candidate.clone().campaign_async(Patience::Forever).await?;
        self.term = again.term.take();
        Ok(())
    }

    fn regain_within(&mut self, patience: Patience) -> Result<()> {
        if self.is_valid() {
            return Ok(());
        }
        self.stop();
        self.term = self.candidate.clone().campaign(patience)?.term.take();
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(term) = self.term.take() {
            drop(term.end());
        }
    }

    /// The guard of its lock.
    pub(crate) fn guard(&self) -> &OwnedMutexGuard<()> {
        &self.term.as_ref().expect(REGAINED).guard
    }

    /// The same, of a leader that stops.
    #[cfg(feature = "cli")]
    pub(crate) fn into_guard(mut self) -> OwnedMutexGuard<()> {
        self.term.take().expect(REGAINED).end()
    }
}

const REGAINED: &str = "it leads, or did until it was lost";

impl Drop for Leadership {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership")
            .field("token", &self.term.as_ref().map(|term| MutexGuard::token(&term.guard)))
            .field("is_valid", &self.is_valid())
            .finish_non_exhaustive()
    }
}

/// A future of the end of a [`Leadership`]; see [`Leadership::ended`].
#[must_use = "a future does nothing unless it is polled"]
pub struct LeadershipEnded {
    lost: Lost,
    end: Arc<TermEnd>,
    told: Option<Pin<Box<event_listener::EventListener>>>,
}

impl Future for LeadershipEnded {
    type Output = Option<LostReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LostReason>> {
        // A loss comes first: a lost leadership that is dropped was lost.
        if let Poll::Ready(why) = Pin::new(&mut self.lost).poll(cx) {
            return Poll::Ready(Some(why));
        }
        loop {
            if self.end.is_resigned.load(Acquire) {
                return Poll::Ready(None);
            }
            let LeadershipEnded { end, told, .. } = &mut *self;
            let listener = told.get_or_insert_with(|| Box::pin(end.event.listen()));
            if end.is_resigned.load(Acquire) {
                return Poll::Ready(None);
            }
            if listener.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            *told = None;
        }
    }
}

impl Clone for LeadershipEnded {
    fn clone(&self) -> LeadershipEnded {
        LeadershipEnded { lost: self.lost.clone(), end: self.end.clone(), told: None }
    }
}

impl fmt::Debug for LeadershipEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_resigned = self.end.is_resigned.load(Acquire);
        f.debug_struct("LeadershipEnded").field("is_resigned", &is_resigned).finish_non_exhaustive()
    }
}
