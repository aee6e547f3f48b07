//! What observers of an election are told.

use std::{fmt, future::Future, pin::pin, task::Poll, time::Duration};

use crate::{
    blocking,
    elected::ElectedLeader,
    error::{LockError, Result},
    path::Observation,
    time::Time,
};

/// Tells the present leader of an [`Election`](crate::Election), and each change in order; made by
/// [`Election::observe`](crate::Election::observe).
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
    pub(super) fn new(observation: Observation) -> Observer {
        Observer { observation }
    }

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
                let text = "the leader did not change within the wait";
                // Nothing is in its way: a leader that stays is no holder that it waits for.
                let error = LockError::new(crate::error::LockErrorKind::TimedOut, text);
                Err(error.without_holder(true))
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
