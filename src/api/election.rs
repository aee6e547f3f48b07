//! Elections: one leader of many candidates, which all may observe, over all scopes.

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use event_listener::Event;

use super::{
    guard::{MutexGuard, OwnedMutexGuard},
    mutex::MutexBuilder,
};
use crate::{
    blocking,
    elected::{ElectedLeader, VALUE_BYTES_MAX},
    error::{LockError, LostReason, Predecessor, Result},
    mode::Usage,
    path::{Announced, Keep, Named, Observation, Patience, ground::Reach},
    scope::Scope,
    time::Time,
    token::Token,
    watch::Lost,
};

/// One leader among many candidates, in the scope that it was built with; made by
/// [`LockManager::election`](crate::LockManager::election).
///
/// A candidate [campaigns](Self::campaign) with a value of at most 1 KiB, such as the address where it
/// serves, and waits until it leads. An [observer](Self::observe) is told the present leader's value and
/// token, and each change. The value stands with the lock: at host scope the leader of the locks keeps it
/// with the lease, and learns of it again after a restart; at process scope the directory has it; at
/// thread scope this process.
///
/// **What it does not do.** It promises what a [`Mutex`](crate::Mutex) promises: a leader that lost its
/// lease may not have noticed yet. So give the [token](Leadership::token) to what the leader changes, and
/// let that refuse a smaller one. A `Mutex` of the same name holds up the candidates, and is no leader to
/// observers. No lock service of another kind than our leaders carries values: there
/// [`build`](ElectionBuilder::build) ends with `Config`.
///
/// # Fairness
/// Candidates are elected in the order described at [`Mutex`](crate::Mutex) and
/// [`Engine`](crate::Engine): first come, first served.
///
/// # Cancel safety
/// The async forms may be dropped at any point: a candidate whose future is dropped is none any more.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::LockManager;
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let primary = locks.election("primary").build()?;
/// let mut observer = primary.observe()?;
/// assert_eq!(observer.next()?, None); // none leads
///
/// let leadership = primary.campaign("10.0.0.7:8080")?;
/// let leader = observer.next()?.expect("one leads");
/// assert_eq!(leader.value(), b"10.0.0.7:8080");
/// assert_eq!(leader.token(), leadership.token());
///
/// leadership.resign()?;
/// assert_eq!(observer.next()?, None);
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct Election {
    named: Arc<Named>,
    candidate: MutexBuilder<()>,
}

impl Election {
    /// The longest value that a candidate may campaign with, in bytes: 1024.
    pub const VALUE_BYTES_MAX: usize = VALUE_BYTES_MAX;

    /// Waits until it leads, with this value.
    ///
    /// # Errors
    /// `Config`, if the value is longer than [`VALUE_BYTES_MAX`](Self::VALUE_BYTES_MAX); else as
    /// [`Mutex::lock`](crate::Mutex::lock), and at process scope `Io` where the value cannot be written.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let primary = locks.election("primary").build()?;
    /// let leadership = primary.campaign("10.0.0.7:8080")?; // waits until it leads
    /// assert!(primary.try_campaign("10.0.0.8:8080").unwrap_err().is_contended());
    /// # drop(leadership);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn campaign(&self, value: impl AsRef<[u8]>) -> Result<Leadership> {
        self.candidate(value.as_ref())?.campaign(Patience::Forever)
    }

    /// Leads, if that takes no waiting.
    ///
    /// # Errors
    /// `WouldBlock`; else as [`campaign`](Self::campaign).
    pub fn try_campaign(&self, value: impl AsRef<[u8]>) -> Result<Leadership> {
        self.candidate(value.as_ref())?.campaign(Patience::No)
    }

    /// As [`campaign`](Self::campaign), waiting at most for `wait`.
    ///
    /// # Errors
    /// `TimedOut`, with the leader as the holder; else as [`campaign`](Self::campaign).
    pub fn try_campaign_for(&self, value: impl AsRef<[u8]>, wait: Duration) -> Result<Leadership> {
        self.candidate(value.as_ref())?.campaign(Patience::for_at_most(wait))
    }

    /// As [`campaign`](Self::campaign), waiting at most until `until`.
    ///
    /// # Errors
    /// As [`try_campaign_for`](Self::try_campaign_for).
    pub fn try_campaign_until(
        &self,
        value: impl AsRef<[u8]>,
        until: Instant,
    ) -> Result<Leadership> {
        self.try_campaign_for(value, until.saturating_duration_since(Instant::now()))
    }

    /// As [`campaign`](Self::campaign), blocking no thread. The future owns what it needs and can be
    /// spawned.
    ///
    /// # Cancel safety
    /// Dropping the future ends the candidacy; if it was just elected, the next candidate is.
    ///
    /// # Errors
    /// As [`campaign`](Self::campaign).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let primary = locks.election("primary").build()?;
    /// let campaign = tokio::spawn(primary.campaign_async("10.0.0.7:8080"));
    /// let leadership = campaign.await.unwrap()?;
    /// assert!(leadership.is_valid());
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn campaign_async<V: AsRef<[u8]>>(
        &self,
        value: V,
    ) -> impl Future<Output = Result<Leadership>> + Send + 'static + use<V> {
        campaign_soon(self.candidate(value.as_ref()), Patience::Forever)
    }

    /// As [`try_campaign`](Self::try_campaign), blocking no thread.
    ///
    /// # Cancel safety, errors
    /// As [`campaign_async`](Self::campaign_async); as [`try_campaign`](Self::try_campaign).
    pub fn try_campaign_async<V: AsRef<[u8]>>(
        &self,
        value: V,
    ) -> impl Future<Output = Result<Leadership>> + Send + 'static + use<V> {
        campaign_soon(self.candidate(value.as_ref()), Patience::No)
    }

    /// As [`try_campaign_for`](Self::try_campaign_for), blocking no thread. The time begins at the call.
    ///
    /// # Cancel safety, errors
    /// As [`campaign_async`](Self::campaign_async); as [`try_campaign_for`](Self::try_campaign_for).
    pub fn try_campaign_for_async<V: AsRef<[u8]>>(
        &self,
        value: V,
        wait: Duration,
    ) -> impl Future<Output = Result<Leadership>> + Send + 'static + use<V> {
        campaign_soon(self.candidate(value.as_ref()), Patience::for_at_most(wait))
    }

    /// Leads again and again, with this value: calls `work` each time that it is elected, and campaigns
    /// again by itself once that returns [`ControlFlow::Continue`], after a loss or otherwise. Ends, and
    /// resigns, when it returns [`ControlFlow::Break`].
    ///
    /// `work` returns when its leadership is lost; see [`Leadership::is_valid`] and
    /// [`Leadership::ended`]. Until then this process does not campaign.
    ///
    /// # Errors
    /// As [`campaign`](Self::campaign). That a leadership was lost is none.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::ops::ControlFlow;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let mut terms = 0;
    /// locks.election("primary").build()?.lead("10.0.0.7:8080", |leadership| {
    ///     terms += 1;
    ///     if terms == 1 {
    ///         locks.lose_lock("primary"); // as an expired lease would
    ///     }
    ///     match leadership.is_valid() {
    ///         false => ControlFlow::Continue(()), // campaigns again
    ///         true => ControlFlow::Break(()),
    ///     }
    /// })?;
    /// assert_eq!(terms, 2);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn lead<R>(
        &self,
        value: impl AsRef<[u8]>,
        mut work: impl FnMut(&Leadership) -> ControlFlow<R>,
    ) -> Result<R> {
        let candidate = self.candidate(value.as_ref())?;
        loop {
            let leadership = candidate.clone().campaign(Patience::Forever)?;
            if let ControlFlow::Break(done) = work(&leadership) {
                // One that is lost is over as well.
                let _ = leadership.resign();
                return Ok(done);
            }
        }
    }

    /// Observes it: see [`Observer`].
    ///
    /// # Errors
    /// None by itself; what there is to say the first [`next`](Observer::next) says.
    pub fn observe(&self) -> Result<Observer> {
        Ok(Observer { observation: Observation::new(self.named.clone()) })
    }

    /// The present leader, if one leads. It may be another when this returns.
    ///
    /// # Errors
    /// As [`Observer::next`].
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let primary = locks.election("primary").build()?;
    /// assert_eq!(primary.leader()?, None);
    /// let leadership = primary.campaign("10.0.0.7:8080")?;
    /// let leader = primary.leader()?.expect("one leads");
    /// println!("connect to {}, and send token {} along", leader.value_text(), leader.token());
    /// # drop(leadership);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn leader(&self) -> Result<Option<ElectedLeader>> {
        self.observe()?.next()
    }

    /// As [`leader`](Self::leader), blocking no thread.
    ///
    /// # Cancel safety, errors
    /// It may be dropped at any point; as [`leader`](Self::leader).
    pub async fn leader_async(&self) -> Result<Option<ElectedLeader>> {
        self.observe()?.next_async().await
    }

    /// The scope it was built with.
    pub fn scope(&self) -> Scope {
        self.named.scope()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.named.name()
    }

    fn candidate(&self, value: &[u8]) -> Result<Candidate> {
        if value.len() > VALUE_BYTES_MAX {
            let text = format!(
                "a value of {} bytes is longer than the {VALUE_BYTES_MAX} that a leader may say of \
                 itself; campaign with where it is found",
                value.len()
            );
            return Err(self.named.about(self.scope())(LockError::config(text)));
        }
        Ok(Candidate { mutex: self.candidate.clone(), value: value.into() })
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election")
            .field("name", &self.name())
            .field("scope", &self.scope())
            .finish_non_exhaustive()
    }
}

/// What campaigns: the lock of the election, and what is said of its holder.
#[derive(Clone)]
struct Candidate {
    mutex: MutexBuilder<()>,
    value: Arc<[u8]>,
}

impl Candidate {
    fn campaign(self, patience: Patience) -> Result<Leadership> {
        let mutex = Arc::new(self.mutex.clone().build_with_value(self.value.clone())?);
        let held = mutex.core().lock(patience)?;
        let guard = mutex.owned_guard(held)?;
        self.lead(guard)
    }

    async fn campaign_async(self, patience: Patience) -> Result<Leadership> {
        let mutex = Arc::new(self.mutex.clone().build_with_value(self.value.clone())?);
        let guard = mutex.lock_owned_with(patience).await?;
        self.lead(guard)
    }

    /// It has the lock: from now on it is the leader, to others too.
    fn lead(self, guard: OwnedMutexGuard<()>) -> Result<Leadership> {
        let (scope, token) = (MutexGuard::scope(&guard), MutexGuard::token(&guard));
        let named = MutexGuard::named(&guard).expect("an election has a name");
        let announced = match named.announce(scope, token, &self.value) {
            Ok(announced) => announced,
            Err(error) => {
                let _ = MutexGuard::hand_on(guard);
                return Err(error);
            }
        };
        let term = Some(Term { guard, announced, end: Arc::default() });
        Ok(Leadership { term, candidate: self })
    }
}

async fn campaign_soon(candidate: Result<Candidate>, patience: Patience) -> Result<Leadership> {
    candidate?.campaign_async(patience).await
}

/// The right to lead an [`Election`], until it is dropped or lost.
///
/// It is lost as a guard is, see [`MutexGuard`](crate::MutexGuard): at host scope when the session's
/// deadline passes before the leader of the locks confirms a renewal, or when an operator breaks it. The
/// lost leader stops, and then campaigns again with [`regain`](Self::regain);
/// [`Election::lead`] does both by itself.
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
    /// As [`Election::campaign`]. It does not lead then, and may be regained again.
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
    /// As [`Election::try_campaign_for`].
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

/// Tells the present leader of an [`Election`], and each change in order; made by
/// [`Election::observe`].
///
/// The first answer is the present leader, `None` if none leads. Then each is a change: another leader,
/// or `None`. A leader is never told again once another, or none, was told after it. At host scope the
/// leader of the locks tells each change as it happens; while it is restarted, and where an observer does
/// not read for long (some 256 changes), the oldest changes are left out. At process scope it looks every
/// 50 ms at least, and is told of those that led in between, of the last 16. Where one leader follows on
/// another at once, that none led in between may not be told.
///
/// It is good for finding the leader; what depends on who leads needs the
/// [token](ElectedLeader::token).
///
/// # Cancel safety
/// The future of [`next_async`](Self::next_async) may be dropped at any point: nothing is missed by it.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::LockManager;
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let primary = locks.election("primary").build()?;
/// let mut observer = primary.observe()?;
/// let mut seen = vec![observer.next()?]; // the present state: none leads
/// let first = primary.campaign("10.0.0.7:8080")?;
/// seen.push(observer.next()?); // then each change
/// first.resign()?;
/// seen.push(observer.next()?);
/// let addresses: Vec<_> =
///     seen.iter().map(|leader| leader.as_ref().map(|leader| leader.value_text())).collect();
/// assert_eq!(addresses, [None, Some("10.0.0.7:8080".into()), None]);
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct Observer {
    observation: Observation,
}

impl Observer {
    /// Waits for the next change; the first time for the present leader.
    ///
    /// # Errors
    /// `Unreachable`, if no leader of the locks answers within `connect_timeout` the first time; it may be
    /// asked again. `Config`, if the manager is closed, or what grants its locks tells of no leaders. `Io`
    /// or `Damaged` from the directory.
    // Not an iterator: it does not end, and each answer may be an error.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<ElectedLeader>> {
        blocking::wait_for(self.next_async())
    }

    /// As [`next`](Self::next), waiting at most for `wait`: `TimedOut` if nothing changes.
    ///
    /// # Errors
    /// `TimedOut`; else as [`next`](Self::next).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::time::Duration;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let mut observer = locks.election("primary").observe()?;
    /// observer.next()?; // the present leader, or that none leads
    /// let quiet = observer.next_within(Duration::from_millis(5)).unwrap_err();
    /// assert!(quiet.is_timeout());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<ElectedLeader>> {
        let until = crate::clock::now() + wait;
        blocking::wait_for(self.next_until(until))
    }

    /// As [`next`](Self::next), blocking no thread.
    ///
    /// # Cancel safety
    /// Dropping it misses no change.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let mut observer = locks.election("primary").observe()?;
    /// assert_eq!(observer.next_async().await?, None);
    /// let _leadership = locks.election("primary").campaign_async("10.0.0.7:8080").await?;
    /// let leader = observer.next_async().await?.expect("one leads");
    /// assert_eq!(leader.value(), b"10.0.0.7:8080");
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn next_async(&mut self) -> Result<Option<ElectedLeader>> {
        self.observation.next().await
    }

    async fn next_until(&mut self, until: Time) -> Result<Option<ElectedLeader>> {
        let mut next = pin!(self.observation.next());
        let mut sleep = pin!(crate::alarm::sleep_until(until));
        std::future::poll_fn(|cx| match next.as_mut().poll(cx) {
            Poll::Ready(news) => Poll::Ready(news),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| {
                let text = "nothing has changed in that time";
                Err(LockError::new(crate::error::LockErrorKind::TimedOut, text))
            }),
        })
        .await
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// An election about to be built; made by [`LockManager::election`](crate::LockManager::election).
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use std::time::Duration;
/// use tierlock::{LockManager, Scope};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let primary = locks
///     .election("primary")
///     .scope(Scope::Host)
///     .at_most(Duration::from_secs(3600)) // then another candidate has its turn
///     .build()?;
/// let leadership = primary.campaign("10.0.0.7:8080")?;
/// assert!(leadership.remaining().unwrap() <= Duration::from_secs(3600));
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "nothing happens before `build`, `campaign` or `observe` is called"]
#[derive(Clone, Debug)]
pub struct ElectionBuilder {
    candidate: MutexBuilder<()>,
}

impl ElectionBuilder {
    pub(crate) fn new(reach: Arc<Reach>, name: &str) -> ElectionBuilder {
        // A lease that is kept would be the next candidate's, with another value.
        ElectionBuilder { candidate: MutexBuilder::new(reach, name, ()).keep(Keep::Never) }
    }

    /// Which candidates there are: those of this process, this directory, or of all machines. Default:
    /// the widest scope that the manager reaches.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.candidate = self.candidate.scope(scope);
        self
    }

    /// The longest that one may lead: then it is lost; see
    /// [`MutexBuilder::at_most`](crate::MutexBuilder::at_most).
    pub fn at_most(mut self, at_most: Duration) -> Self {
        self.candidate = self.candidate.at_most(at_most);
        self
    }

    /// The shortest time until the next is elected, however this one ends; see
    /// [`MutexBuilder::at_least`](crate::MutexBuilder::at_least).
    pub fn at_least(mut self, at_least: Duration) -> Self {
        self.candidate = self.candidate.at_least(at_least);
        self
    }

    /// Makes the election. It touches no network.
    ///
    /// # Errors
    /// As [`MutexBuilder::build`](crate::MutexBuilder::build); `Config` also, if what grants the locks of
    /// host scope is no leader of ours: other services carry no values.
    pub fn build(self) -> Result<Election> {
        let carries = self.candidate.carries_values();
        let (named, ()) = self.candidate.clone().build_named(Usage::Lock, |scope, _| {
            match scope == Scope::Host && !carries {
                true => Err(LockError::config(
                    "what grants its locks carries no values, so it has no elections at host scope: \
                     use leaders of our own, or .scope(Scope::Process)",
                )),
                false => Ok(()),
            }
        })?;
        Ok(Election { named: Arc::new(named), candidate: self.candidate })
    }

    /// Builds it and campaigns; see [`Election::campaign`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Election::campaign`].
    pub fn campaign(self, value: impl AsRef<[u8]>) -> Result<Leadership> {
        self.build()?.campaign(value)
    }

    /// Builds it and campaigns, blocking no thread; see [`Election::campaign_async`].
    ///
    /// # Cancel safety, errors
    /// As [`Election::campaign_async`]; as [`build`](Self::build) and [`Election::campaign`].
    pub fn campaign_async<V: AsRef<[u8]>>(
        self,
        value: V,
    ) -> impl Future<Output = Result<Leadership>> + Send + 'static + use<V> {
        let candidate = self.build().and_then(|election| election.candidate(value.as_ref()));
        campaign_soon(candidate, Patience::Forever)
    }

    /// Builds it and observes it; see [`Election::observe`].
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Election::observe`].
    pub fn observe(self) -> Result<Observer> {
        self.build()?.observe()
    }
}
