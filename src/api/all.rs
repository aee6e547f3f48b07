//! Several locks at once, all or none, in one guard.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    guard::{LockGuard, MutexGuard, RwLockReadGuard},
    mutex::{Mutex, MutexBuilder},
    rwlock::{RwLock, RwLockBuilder},
};
use crate::{
    blocking, cooperate,
    error::{LockError, LostReason, Predecessor, Result},
    fork,
    name::Name,
    path::{Held, LockMode, Patience, WantedPart, ground::Reach, lock_all, lock_all_async},
    scope::Scope,
    token::Token,
    watch::Lost,
};

/// A name that is wanted with others, and how: alone, or beside readers.
///
/// A text is a name that is wanted alone.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::{AllRequest, LockManager};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let wanted = [AllRequest::shared("prices"), "report".into()]; // a text is wanted alone
/// let report = locks.lock_all(wanted)?;
/// assert!(locks.rw_lock("prices", ()).build()?.try_read().is_ok()); // beside other readers
/// assert!(locks.mutex("report", ()).try_lock().is_err());
/// # drop(report);
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllRequest {
    name: String,
    is_shared: bool,
}

impl AllRequest {
    /// Alone, as by a [`Mutex`](crate::Mutex) or a writer.
    pub fn exclusive(name: impl Into<String>) -> AllRequest {
        AllRequest { name: name.into(), is_shared: false }
    }

    /// Beside others that share it, as by a reader of an [`RwLock`](crate::RwLock).
    pub fn shared(name: impl Into<String>) -> AllRequest {
        AllRequest { name: name.into(), is_shared: true }
    }
}

impl<T: Into<String>> From<T> for AllRequest {
    fn from(name: T) -> AllRequest {
        AllRequest::exclusive(name)
    }
}

/// Several locks about to be taken at once; made by [`LockManager::all`](crate::LockManager::all).
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use std::time::Duration;
/// use tierlock::{LockManager, Scope};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let both = locks
///     .all(["accounts/7", "accounts/3"])
///     .scope(Scope::Host)
///     .at_most(Duration::from_secs(30))
///     .try_lock_for(Duration::from_secs(1))?; // for all of them together
/// assert!(both.remaining().unwrap() <= Duration::from_secs(30));
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "nothing is locked before `lock` is called"]
#[derive(Clone, Debug)]
pub struct AllBuilder {
    reach: Arc<Reach>,
    requests: Vec<AllRequest>,
    scope: Option<Scope>,
    at_most: Option<Duration>,
    at_least: Option<Duration>,
}

impl AllBuilder {
    pub(crate) fn new(reach: Arc<Reach>, requests: Vec<AllRequest>) -> AllBuilder {
        AllBuilder { reach, requests, scope: None, at_most: None, at_least: None }
    }

    /// Which other callers they exclude. Default: the widest scope that the manager reaches.
    pub fn scope(self, scope: Scope) -> Self {
        AllBuilder { scope: Some(scope), ..self }
    }

    /// The longest that they may be held: as [`MutexBuilder::at_most`], of each.
    pub fn at_most(self, at_most: Duration) -> Self {
        AllBuilder { at_most: Some(at_most), ..self }
    }

    /// The shortest time that each stays taken, as [`MutexBuilder::at_least`]. Those that are shared
    /// have none.
    pub fn at_least(self, at_least: Duration) -> Self {
        AllBuilder { at_least: Some(at_least), ..self }
    }

    /// Waits until it has them all.
    ///
    /// # Errors
    /// As described at [`AllGuard`].
    pub fn lock(self) -> Result<AllGuard> {
        self.lock_with(Patience::Forever)
    }

    /// Takes them all if it need not wait for any.
    ///
    /// # Errors
    /// `WouldBlock`, with the name of one that another holder has; else as [`lock`](Self::lock).
    pub fn try_lock(self) -> Result<AllGuard> {
        self.lock_with(Patience::No)
    }

    /// As [`lock`](Self::lock), waiting for all of them together at most for `wait`.
    ///
    /// # Errors
    /// `TimedOut`, with the name of the one that was waited for last.
    pub fn try_lock_for(self, wait: Duration) -> Result<AllGuard> {
        self.lock_with(Patience::for_at_most(wait))
    }

    /// As [`lock`](Self::lock), waiting at most until `until`.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn try_lock_until(self, until: Instant) -> Result<AllGuard> {
        self.try_lock_for(until.saturating_duration_since(Instant::now()))
    }

    /// As [`lock`](Self::lock), blocking no thread.
    ///
    /// # Cancel safety, errors
    /// As described at [`AllGuard`]; as [`lock`](Self::lock).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    ///
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.all(["accounts/7", "accounts/3"]).at_most(Duration::from_secs(30));
    /// let both = both.lock_async().await?;
    /// assert_eq!(both.len(), 2);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub async fn lock_async(self) -> Result<AllGuard> {
        self.lock_with_async(Patience::Forever).await
    }

    /// As [`try_lock`](Self::try_lock), blocking no thread.
    ///
    /// # Cancel safety, errors
    /// As described at [`AllGuard`]; as [`try_lock`](Self::try_lock).
    pub async fn try_lock_async(self) -> Result<AllGuard> {
        self.lock_with_async(Patience::No).await
    }

    /// As [`try_lock_for`](Self::try_lock_for), blocking no thread.
    ///
    /// # Cancel safety, errors
    /// As described at [`AllGuard`]; as [`try_lock_for`](Self::try_lock_for).
    pub async fn try_lock_for_async(self, wait: Duration) -> Result<AllGuard> {
        self.lock_with_async(Patience::for_at_most(wait)).await
    }

    fn lock_with(self, patience: Patience) -> Result<AllGuard> {
        let locks = self.build()?;
        let parts: Vec<_> = locks.iter().map(AllLock::part).collect();
        let held = lock_all(&parts, patience)?;
        AllGuard::of(&locks, held)
    }

    async fn lock_with_async(self, patience: Patience) -> Result<AllGuard> {
        cooperate::proceed().await;
        let locks = self.build()?;
        let held = {
            let parts: Vec<_> = locks.iter().map(AllLock::part).collect();
            lock_all_async(&parts, patience).await?
        };
        AllGuard::of(&locks, held)
    }

    /// The locks, in the order of their names.
    fn build(self) -> Result<Vec<AllLock>> {
        let AllBuilder { reach, requests, scope, at_most, at_least } = self;
        if requests.is_empty() {
            return Err(LockError::config("no name was given: name at least one lock"));
        }
        let one = |(place, request): (usize, AllRequest)| {
            let AllRequest { name, is_shared } = request;
            let lock = match is_shared {
                true => {
                    let mut lock = RwLockBuilder::new(reach.clone(), &name, ());
                    if let Some(scope) = scope {
                        lock = lock.scope(scope);
                    }
                    if let Some(at_most) = at_most {
                        lock = lock.at_most(at_most);
                    }
                    EitherLock::Shared(Arc::new(lock.build()?))
                }
                false => {
                    let mut lock = MutexBuilder::new(reach.clone(), &name, ());
                    if let Some(scope) = scope {
                        lock = lock.scope(scope);
                    }
                    if let Some(at_most) = at_most {
                        lock = lock.at_most(at_most);
                    }
                    if let Some(at_least) = at_least {
                        lock = lock.at_least(at_least);
                    }
                    EitherLock::Exclusive(Arc::new(lock.build()?))
                }
            };
            let name = Name::new(&name).expect("a lock was made of it");
            Ok(AllLock { name, place, lock })
        };
        let locks: Result<Vec<_>> = requests.into_iter().enumerate().map(one).collect();
        let mut locks = locks?;
        locks.sort_by(|one, other| one.name.cmp(&other.name));
        match locks.windows(2).find(|pair| pair[0].name == pair[1].name) {
            None => Ok(locks),
            Some(twice) => Err(LockError::config(
                "it is named twice and would wait for itself: name each lock once",
            )
            .with_name(&twice[0].name)),
        }
    }
}

/// One of several locks.
struct AllLock {
    name: Name,
    /// Where it was named, among the others.
    place: usize,
    lock: EitherLock,
}

enum EitherLock {
    Exclusive(Arc<Mutex<()>>),
    Shared(Arc<RwLock<()>>),
}

impl AllLock {
    fn part(&self) -> WantedPart<'_> {
        match &self.lock {
            EitherLock::Exclusive(mutex) => {
                WantedPart { core: mutex.core(), mode: LockMode::Exclusive }
            }
            EitherLock::Shared(lock) => WantedPart { core: lock.core(), mode: LockMode::Shared },
        }
    }

    /// The guard of what was won; what was not made a guard goes back.
    fn guard(&self, held: Held) -> Result<EitherGuard> {
        Ok(match &self.lock {
            EitherLock::Exclusive(mutex) => EitherGuard::Exclusive(mutex.owned_guard(held)?),
            EitherLock::Shared(lock) => EitherGuard::Shared(lock.owned_reader(held)?),
        })
    }
}

enum EitherGuard {
    Exclusive(MutexGuard<'static, ()>),
    Shared(RwLockReadGuard<'static, ()>),
}

/// The same of either.
macro_rules! of_either {
    ($guard:expr, $held:ident => $what:expr) => {
        match $guard {
            EitherGuard::Exclusive($held) => $what,
            EitherGuard::Shared($held) => $what,
        }
    };
}

/// Several locks, held together: made by [`LockManager::lock_all`](crate::LockManager::lock_all) and
/// [`LockManager::all`](crate::LockManager::all).
///
/// It has all of them or none. They are taken in the order of their names, whichever order they were
/// given in, so callers of it never wait for each other in a circle; nor does a caller that takes
/// single locks in that order. Where nothing stands in the way they cost one round trip to the leader
/// together. Behind one that another holder has it waits for that, holding those before it.
///
/// **The loss of one is the loss of all**: [`check`](Self::check), [`is_valid`](Self::is_valid),
/// [`lost`](Self::lost) and [`on_lost`](Self::on_lost) speak for all of them. What is not lost stays
/// held until the guard is dropped.
///
/// # Fairness
/// For each name as described at [`Mutex`](crate::Mutex).
///
/// # Cancel safety
/// The async forms may be dropped at any point: what was taken by then is given back.
///
/// # Errors
/// `Config`, if a name is given twice or none at all; else as [`Mutex::lock`](crate::Mutex::lock), with
/// the name that it is about. Then none of them is held.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::{AllRequest, LockManager};
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let both = locks.lock_all(["accounts/7", "accounts/3"])?;
/// let (from, to) = (both.token("accounts/7").unwrap(), both.token("accounts/3").unwrap());
/// # let _ = (from, to); // go with the writes to each
/// assert!(locks.mutex("accounts/3", ()).try_lock().is_err());
/// both.unlock()?; // says if one of them was lost meanwhile
///
/// let report = locks.lock_all([AllRequest::shared("prices"), AllRequest::exclusive("report")])?;
/// # drop(report);
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[must_use = "if unused, the locks are released at once"]
pub struct AllGuard {
    /// In the order in which they were named. Dropped from the last one of that order.
    guards: Vec<(Name, EitherGuard)>,
}

impl AllGuard {
    fn of(locks: &[AllLock], held: Vec<Held>) -> Result<AllGuard> {
        // All of them become guards, also behind one that cannot: so all of them go back.
        let guards: Vec<_> =
            locks.iter().zip(held).map(|(lock, held)| (lock, lock.guard(held))).collect();
        let mut guards: Vec<_> = guards
            .into_iter()
            .map(|(lock, guard)| Ok((lock.place, (lock.name.clone(), guard?))))
            .collect::<Result<_>>()?;
        guards.sort_by_key(|(place, _)| *place);
        Ok(AllGuard { guards: guards.into_iter().map(|(_, named)| named).collect() })
    }

    fn find(&self, name: &str) -> Option<&EitherGuard> {
        self.guards.iter().find(|(own, _)| own.as_str() == name).map(|(_, guard)| guard)
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "there is one at least")]
    pub fn len(&self) -> usize {
        self.guards.len()
    }

    /// The names with the fencing token of each, in the order in which they were given.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.lock_all(["b", "a"])?;
    /// for (name, token) in both.tokens() {
    ///     println!("{name} under token {token}"); // b, then a
    /// }
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn tokens(&self) -> impl Iterator<Item = (&str, Token)> + '_ {
        let token = |guard: &EitherGuard| of_either!(guard, held => LockGuard::token(held));
        self.guards.iter().map(move |(name, guard)| (name.as_str(), token(guard)))
    }

    /// The fencing token of this name; `None` if it is none of them.
    pub fn token(&self, name: impl AsRef<str>) -> Option<Token> {
        self.find(name.as_ref()).map(|guard| of_either!(guard, held => LockGuard::token(held)))
    }

    /// How the holder of this name before left; `None` if it is none of them.
    pub fn predecessor(&self, name: impl AsRef<str>) -> Option<Predecessor> {
        let guard = self.find(name.as_ref())?;
        Some(of_either!(guard, held => LockGuard::predecessor(held)))
    }

    /// Which other callers the lock of this name excludes; `None` if it is none of them.
    pub fn scope(&self, name: impl AsRef<str>) -> Option<Scope> {
        self.find(name.as_ref()).map(|guard| of_either!(guard, held => LockGuard::scope(held)))
    }

    /// Whether all of them are still held: none taken away, and the deadline of none passed.
    pub fn is_valid(&self) -> bool {
        self.guards.iter().all(|(_, guard)| of_either!(guard, held => LockGuard::is_valid(held)))
    }

    /// Whether all of them are still held.
    ///
    /// # Errors
    /// `Lost`, with the reason and the name of one that is not.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.lock_all(["accounts/7", "accounts/3"])?;
    /// locks.lose_lock("accounts/3"); // as an expired lease would
    /// let error = both.check().unwrap_err();
    /// assert!(error.is_lost() && error.name() == Some("accounts/3"));
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn check(&self) -> Result<()> {
        let checked = self.guards.iter().map(|(name, guard)| {
            let checked = of_either!(guard, held => LockGuard::check(held));
            checked.map(drop).map_err(|error| error.with_name(name))
        });
        checked.collect()
    }

    /// The time that is left until the first deadline of them all; `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        let all = self.guards.iter();
        all.filter_map(|(_, guard)| of_either!(guard, held => LockGuard::remaining(held))).min()
    }

    /// A future of the reason why the first of them is lost.
    ///
    /// It does not borrow the guard, can be cloned and sent, and pends for ever once the guard
    /// was dropped in good order.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::{LockManager, LostReason};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.lock_all_async(["accounts/7", "accounts/3"]).await?;
    /// let lost = both.lost(); // for `select!` beside the work
    /// locks.lose_lock("accounts/3");
    /// assert_eq!(lost.await, LostReason::Provoked);
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn lost(&self) -> AllLost {
        let lost = |guard: &EitherGuard| of_either!(guard, held => LockGuard::lost(held));
        AllLost(self.guards.iter().map(|(_, guard)| lost(guard)).collect())
    }

    /// Calls `callback` once, if and when the first of them is lost while the guard exists; else as
    /// [`MutexGuard::on_lost`](crate::MutexGuard::on_lost).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::sync::mpsc;
    /// use tierlock::{LockManager, LostReason};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.lock_all(["accounts/7", "accounts/3"])?;
    /// let (tell, told) = mpsc::channel();
    /// both.on_lost(move |why| tell.send(why).unwrap());
    /// locks.lose_lock("accounts/3");
    /// assert_eq!(told.recv().unwrap(), LostReason::Provoked);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_lost(&self, callback: impl FnOnce(LostReason) + Send + 'static) {
        let callback = Arc::new(fork::Mutex::new(Some(callback)));
        for (_, guard) in &self.guards {
            let callback = callback.clone();
            let tell = move |why| {
                let first = callback.lock().take();
                if let Some(callback) = first {
                    callback(why);
                }
            };
            of_either!(guard, held => LockGuard::on_lost(held, tell));
        }
    }

    /// Releases them, and says whether all were held to the end.
    ///
    /// # Errors
    /// `Lost`, as [`check`](Self::check) says. They are released in any case.
    pub fn unlock(self) -> Result<()> {
        let checked = self.check();
        drop(self);
        checked
    }

    /// Releases them, and at host scope waits for the leader's answers.
    ///
    /// # Cancel safety
    /// The releases are queued at the call, and are not taken back when the future is dropped.
    ///
    /// # Errors
    /// As [`MutexGuard::unlock_async`](crate::MutexGuard::unlock_async), of the first that fails.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.lock_all_async(["accounts/7", "accounts/3"]).await?;
    /// both.unlock_async().await?; // from here on the leader has read both releases
    /// # Ok::<(), tierlock::LockError>(())
    /// # }).unwrap();
    /// # }
    /// ```
    pub fn unlock_async(mut self) -> impl Future<Output = Result<()>> + Send + 'static {
        type Answer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
        let guards = std::mem::take(&mut self.guards);
        let answers: Vec<(Name, Answer)> = guards
            .into_iter()
            .map(|(name, guard)| {
                let answer: Answer =
                    of_either!(guard, held => Box::pin(LockGuard::unlock_async(held)));
                (name, answer)
            })
            .collect();
        async move {
            let mut all = Ok(());
            for (name, answer) in answers {
                let answered = answer.await.map_err(|error| error.with_name(&name));
                all = all.and(answered);
            }
            all
        }
    }

    /// As [`unlock_async`](Self::unlock_async), blocking the calling thread.
    ///
    /// # Errors
    /// As [`unlock_async`](Self::unlock_async).
    pub fn unlock_blocking(self) -> Result<()> {
        blocking::wait_for(self.unlock_async())
    }

    /// Releases them unused: the next holder of each is told of the same predecessor as this one.
    ///
    /// # Errors
    /// `Lost`, as [`check`](Self::check) says. They are released in any case.
    pub fn hand_on(mut self) -> Result<()> {
        let checked = self.check();
        for (_, guard) in self.guards.drain(..).rev() {
            let _ = of_either!(guard, held => LockGuard::hand_on(held));
        }
        checked
    }
}

impl Drop for AllGuard {
    fn drop(&mut self) {
        while let Some(guard) = self.guards.pop() {
            drop(guard);
        }
    }
}

impl fmt::Debug for AllGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.tokens()).finish()
    }
}

/// For the program.
#[cfg(feature = "cli")]
impl AllGuard {
    /// The scope of each, in the order in which the names were given.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        self.guards.iter().map(|(_, guard)| of_either!(guard, held => LockGuard::scope(held)))
    }

    pub(crate) fn widest_scope(&self) -> Scope {
        self.scopes().max().unwrap_or(Scope::Thread)
    }

    /// How the holder of each before left, in that order.
    pub(crate) fn predecessors(&self) -> impl Iterator<Item = Predecessor> + '_ {
        self.guards.iter().map(|(_, guard)| of_either!(guard, held => LockGuard::predecessor(held)))
    }

    /// Why one of them is lost, if it is.
    pub(crate) fn why_lost(&self) -> Option<LostReason> {
        let mut all = self.guards.iter();
        all.find_map(|(_, guard)| of_either!(guard, held => LockGuard::why_lost(held)))
    }

    /// Descriptors that prove that they are held, for a command that is to inherit them.
    pub(crate) fn proofs_of_life(&self) -> std::io::Result<Vec<std::os::fd::OwnedFd>> {
        let proof = |guard: &EitherGuard| of_either!(guard, held => LockGuard::proof_of_life(held));
        self.guards.iter().filter_map(|(_, guard)| proof(guard)).collect()
    }

    /// As [`hand_on`](Self::hand_on), with the leader's answers to wait for.
    pub(crate) async fn hand_on_answered(mut self) {
        let guards = std::mem::take(&mut self.guards);
        let answers: Vec<_> = guards.into_iter().rev().map(|(_, guard)| hand_on(guard)).collect();
        for answer in answers {
            answer.await;
        }
    }
}

/// Gives one back unused; what it would say is for none any more.
#[cfg(feature = "cli")]
fn hand_on(guard: EitherGuard) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    of_either!(guard, held => {
        let answer = LockGuard::hand_on_answered(held);
        Box::pin(async move { drop(answer.await) })
    })
}

/// A future of the reason why the first of several locks was lost; see [`AllGuard::lost`].
#[derive(Clone, Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct AllLost(Vec<Lost>);

impl Future for AllLost {
    type Output = LostReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LostReason> {
        let ready = self.0.iter_mut().find_map(|lost| match Pin::new(lost).poll(cx) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    }
}
