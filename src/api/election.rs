//! Elections: one leader of many candidates, which all may observe, over all scopes.

mod leadership;
mod observer;

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    leadership::{Leadership, LeadershipEnded},
    observer::Observer,
};
use super::{
    guard::{MutexGuard, OwnedMutexGuard},
    mutex::MutexBuilder,
};
use crate::{
    elected::{ElectedLeader, VALUE_BYTES_MAX},
    error::{LockError, Result},
    mode::Usage,
    path::{Keep, Named, Observation, Patience, ground::Reach},
    scope::Scope,
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
/// observers. Of lock services of another kind etcd and ZooKeeper carry values; with the others
/// [`build`](ElectionBuilder::build) ends with `Config`. The guide's page
/// [`engines`](crate::guide::engines) says what an observer there may miss.
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
        Ok(Observer::new(Observation::new(self.named.clone())))
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
                "the value has {} bytes, and at most {VALUE_BYTES_MAX} are told to observers; \
                 campaign with a reference to where the rest is found",
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
        Ok(Leadership::begin(guard, announced, self))
    }
}

async fn campaign_soon(candidate: Result<Candidate>, patience: Patience) -> Result<Leadership> {
    candidate?.campaign_async(patience).await
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
    /// As [`MutexBuilder::build`](crate::MutexBuilder::build); `Config` also, if the lock service of host
    /// scope carries no values: tierlock's own leaders, etcd and ZooKeeper do.
    pub fn build(self) -> Result<Election> {
        let carries = self.candidate.carries_values();
        let (named, ()) = self.candidate.clone().build_named(Usage::Lock, |scope, _| {
            match scope == Scope::Host && !carries {
                true => Err(LockError::config(
                    "this manager's lock service carries no values, so there are no elections at \
                     host scope: use etcd, ZooKeeper, tierlock's own leaders, or .scope(Scope::Process)",
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
