//! Where named mutexes come from: the directory, the leaders, and the label shown to others.

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

#[cfg(feature = "host")]
use crate::host::service_url::{ServiceKind, ServiceUrl};
use crate::{
    api::{
        all::{AllBuilder, AllGuard, AllRequest},
        mutex::MutexBuilder,
        question::TokenQuestion,
        rwlock::RwLockBuilder,
        semaphore::SemaphoreBuilder,
    },
    error::{LockError, Result},
    path::ground::{BelowHost, Ground, Reach},
    scope::Scope,
    time::TIME_TO_LIVE,
    token::Token,
};

/// Makes named mutexes, and holds what they share: a directory for process scope, a session with
/// a leader for host scope.
///
/// Cloning it is cheap, and clones are one manager. Managers of one directory, in one process or
/// in many, exclude each other at process scope; managers of one leader at host scope; clones of
/// one manager at every scope. When the last handle, mutex and guard is gone it says goodbye to
/// its leader, waiting at most 100 ms for that to be sent.
///
/// # Example
/// ```
/// # #[cfg(feature = "process")] {
/// use tierlock::{LockManager, MutexGuard, Scope};
///
/// let directory = std::env::temp_dir().join(format!("tierlock-doc-{}", std::process::id()));
/// let locks = LockManager::builder().directory(&directory).label("checkout").open()?;
/// let guard = locks.mutex("ledger/eu", ()).lock()?;
/// assert_eq!(MutexGuard::scope(&guard), Scope::Process);
/// # drop((guard, locks));
/// # std::fs::remove_dir_all(directory).unwrap();
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone)]
pub struct LockManager {
    reach: Arc<Reach>,
    /// The leader in this process that it talks to, if it is one of `in_memory`.
    #[cfg(feature = "testing")]
    memory: Option<crate::host::memory::MemoryLeader>,
}

/// Which engine serves process scope in a directory. `DIR/format` says which one a directory
/// uses; another is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// One file per name, locked by the kernel (`flock`). Portable.
    ///
    /// Fairness: none between processes. A waiter without a limit sleeps in the kernel's queue;
    /// one with a limit, or an async one, looks at most 2 ms apart.
    FileLock,
    /// One shared-memory table for all names; a file lock proves that each process lives. The
    /// default where it exists: on little-endian 64-bit Linux.
    ///
    /// Fairness: FIFO for waiters older than 1 ms; a stopped one is passed over. No waiter polls.
    ///
    /// Tokens survive crashes, reboots and loss of power, except on tmpfs, where nothing
    /// survives a reboot. On copy-on-write file systems (btrfs, zfs, bcachefs) space cannot be
    /// set aside, so a full disk can end a process that locks there. At process scope others are
    /// told the label of the first manager that a process opened on the directory.
    Table,
}

// What it shares is guarded by locks of its own, and no user's code runs under one.
impl UnwindSafe for LockManager {}
impl RefUnwindSafe for LockManager {}

impl LockManager {
    fn new(reach: Reach) -> LockManager {
        LockManager {
            reach: Arc::new(reach),
            #[cfg(feature = "testing")]
            memory: None,
        }
    }

    /// Settings of a new manager; see [`LockManagerBuilder`].
    pub fn builder() -> LockManagerBuilder {
        LockManagerBuilder::default()
    }

    /// A manager with the settings of the environment: `TIERLOCK_DIR`, `TIERLOCK_LEADERS`
    /// (comma-separated) or `TIERLOCK_SERVICE`, `TIERLOCK_SECRET_FILE`, `TIERLOCK_LABEL`.
    ///
    /// # Errors
    /// `Config`, if neither a directory nor a leader nor a service is set: never a narrower lock; or if
    /// both leaders and a service are. Else as
    /// [`LockManagerBuilder::open`].
    pub fn from_env() -> Result<LockManager> {
        LockManagerBuilder::from_env()?.open()
    }

    /// A mutex of this name, about to be built. The default scope is the widest that this manager
    /// reaches. Errors in the name surface when it is built.
    pub fn mutex<T>(&self, name: impl AsRef<str>, value: T) -> MutexBuilder<T> {
        MutexBuilder::new(self.reach.clone(), name.as_ref(), value)
    }

    /// A read-write lock of this name, about to be built. The default scope is the widest that this
    /// manager reaches.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, Scope};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let prices = locks.rw_lock("prices", vec![3]).build()?;
    /// assert_eq!(prices.scope(), Scope::Host);
    /// assert_eq!(prices.read()?.len(), 1);
    /// prices.write()?.push(4);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn rw_lock<T>(&self, name: impl AsRef<str>, value: T) -> RwLockBuilder<T> {
        RwLockBuilder::new(self.reach.clone(), name.as_ref(), value)
    }

    /// A semaphore of this name with so many permits, about to be built. The default scope is the widest
    /// that this manager reaches.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, Permit, Scope};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let workers = locks.semaphore("thumbnails", 4).build()?; // of all machines together
    /// assert_eq!(workers.scope(), Scope::Host);
    /// let permit = workers.acquire()?;
    /// println!("at work under permit {}", Permit::token(&permit));
    /// assert_eq!(workers.available()?, 3);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> SemaphoreBuilder {
        SemaphoreBuilder::new(self.reach.clone(), name.as_ref(), permits)
    }

    /// Takes several locks, all or none, and waits until it has them; see [`AllGuard`].
    ///
    /// # Errors
    /// As described at [`AllGuard`].
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.lock_all(["accounts/7", "accounts/3"])?;
    /// assert!(both.token("accounts/3").is_some());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn lock_all<R: Into<AllRequest>>(
        &self,
        requests: impl IntoIterator<Item = R>,
    ) -> Result<AllGuard> {
        self.all(requests).lock()
    }

    /// As [`lock_all`](Self::lock_all), if it need not wait for any of them.
    ///
    /// # Errors
    /// `WouldBlock`; else as [`lock_all`](Self::lock_all).
    pub fn try_lock_all<R: Into<AllRequest>>(
        &self,
        requests: impl IntoIterator<Item = R>,
    ) -> Result<AllGuard> {
        self.all(requests).try_lock()
    }

    /// As [`lock_all`](Self::lock_all), waiting for all of them together at most for `wait`.
    ///
    /// # Errors
    /// `TimedOut`; else as [`lock_all`](Self::lock_all).
    pub fn try_lock_all_for<R: Into<AllRequest>>(
        &self,
        requests: impl IntoIterator<Item = R>,
        wait: Duration,
    ) -> Result<AllGuard> {
        self.all(requests).try_lock_for(wait)
    }

    /// As [`lock_all`](Self::lock_all), blocking no thread.
    pub fn lock_all_async<R: Into<AllRequest>>(
        &self,
        requests: impl IntoIterator<Item = R>,
    ) -> impl Future<Output = Result<AllGuard>> + Send + 'static {
        self.all(requests).lock_async()
    }

    /// Several locks about to be taken together, with terms.
    pub fn all<R: Into<AllRequest>>(&self, requests: impl IntoIterator<Item = R>) -> AllBuilder {
        let requests = requests.into_iter().map(Into::into).collect();
        AllBuilder::new(self.reach.clone(), requests)
    }

    /// The widest scope that this manager reaches: the default scope of its mutexes.
    pub fn widest_scope(&self) -> Scope {
        self.reach.widest()
    }

    /// Takes no more locks above thread scope, and says goodbye to the leader: at once if no
    /// guard is held, else when the last one is dropped. Waits at most 100 ms for it to be sent.
    /// Calls and tasks that wait for a lock above thread scope end with `Config`.
    pub fn close(&self) {
        self.reach.close();
    }

    /// As [`close`](Self::close), blocking no thread.
    pub async fn close_async(&self) {
        let reach = self.reach.clone();
        let done = Arc::new((AtomicBool::new(false), event_listener::Event::new()));
        let tell = done.clone();
        let closing = std::thread::Builder::new().name("tierlock-close".into()).spawn(move || {
            reach.close();
            drop(reach);
            tell.0.store(true, std::sync::atomic::Ordering::Release);
            tell.1.notify(usize::MAX);
        });
        if closing.is_err() {
            // No thread to be had: the goodbye is queued all the same, and not waited for.
            return self.reach.close_within(Duration::ZERO);
        }
        while !done.0.load(std::sync::atomic::Ordering::Acquire) {
            let listener = done.1.listen();
            if !done.0.load(std::sync::atomic::Ordering::Acquire) {
                listener.await;
            }
        }
    }
}

/// Questions about locks that others hold.
impl LockManager {
    /// Whether the lease of this token still holds: for a resource server that was sent a token
    /// with a request. Chubby calls it `CheckSequencer`.
    ///
    /// A [`fence`](crate::fence) refuses a holder once a later one has been there; this refuses it
    /// as soon as its lock is over, for the price of a round trip. It says what was true when the
    /// leader answered, so it does not replace the gate: the lease may end before the protected
    /// action is done. After a restart the leader answers when it grants again.
    ///
    /// # Errors
    /// `Lost`, if the lease is over or was never granted. `Unreachable`, if no leader answered
    /// within `connect_timeout`: then it is not known. `Config`, for an invalid name, or if this
    /// manager has no leaders: below host scope only the holder knows
    /// ([`MutexGuard::check`](crate::MutexGuard::check)).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("ledger/eu", ()).lock()?;
    /// let token = MutexGuard::token(&guard);
    /// locks.check_token("ledger/eu", token)?;
    /// MutexGuard::unlock(guard)?;
    /// assert!(locks.check_token("ledger/eu", token).unwrap_err().is_lost());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn check_token(&self, name: impl AsRef<str>, token: Token) -> Result<()> {
        TokenQuestion::new(&self.reach, name.as_ref(), token)?.check()
    }

    /// As [`check_token`](Self::check_token), blocking no thread.
    ///
    /// # Cancel safety
    /// It may be dropped at any point.
    ///
    /// # Errors
    /// As [`check_token`](Self::check_token).
    pub async fn check_token_async(&self, name: impl AsRef<str>, token: Token) -> Result<()> {
        TokenQuestion::new(&self.reach, name.as_ref(), token)?.check_async().await
    }

    /// Takes a host-scope lock away from the holder of exactly this token: for operators, when a
    /// holder is alive and does not release it. Its guard is told
    /// [`LostReason::Broken`](crate::LostReason::Broken), and the next holder that its
    /// predecessor was [`Broken`](crate::Predecessor::Broken). In the loser's process no other thread
    /// has the lock before that guard is dropped: its `&mut T` stays the only one. Nor has another
    /// process of the loser's directory.
    ///
    /// The loss is on the leader's disk when this returns. The lock is free once its holder has
    /// confirmed the loss, or, if it is silent, once the deadline that it was promised has passed.
    ///
    /// Below host scope nothing is taken from a living process: there a lock ends with its holder's
    /// process, which `tierlock break --dir` ends for an operator, after it has compared the token.
    ///
    /// # Errors
    /// `Refused`, with the holder, if this token is not the holder's: nothing was taken from any
    /// holder. `Unreachable`, if no leader answered within `connect_timeout`; the lock may or may
    /// not be broken. `Config`, for an invalid name, or if this manager has no leader.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let operator = locks.in_memory_peer();
    /// let stuck = locks.mutex("import", ()).lock()?;
    /// operator.break_lock("import", MutexGuard::token(&stuck))?; // exactly this holder
    /// # while MutexGuard::is_valid(&stuck) { std::thread::yield_now() }
    /// assert!(MutexGuard::check(&stuck).unwrap_err().is_lost());
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn break_lock(&self, name: impl AsRef<str>, token: Token) -> Result<()> {
        TokenQuestion::new(&self.reach, name.as_ref(), token)?.break_lock()
    }

    /// As [`break_lock`](Self::break_lock), blocking no thread.
    ///
    /// # Cancel safety
    /// Dropping it takes nothing back: the lock may or may not be broken.
    ///
    /// # Errors
    /// As [`break_lock`](Self::break_lock).
    pub async fn break_lock_async(&self, name: impl AsRef<str>, token: Token) -> Result<()> {
        TokenQuestion::new(&self.reach, name.as_ref(), token)?.break_lock_async().await
    }
}

/// For users' own tests (feature `testing`).
#[cfg(feature = "testing")]
impl LockManager {
    /// A manager that reaches every scope inside this process: no directory, no network, no
    /// leader to start. The lease protocol is the real one, with a leader in memory.
    ///
    /// # Example
    /// A unit test of how a program takes the loss of its lock:
    /// ```
    /// use tierlock::{LockManager, LostReason, MutexGuard};
    ///
    /// fn publish(locks: &LockManager, mut step: impl FnMut(usize)) -> tierlock::Result<usize> {
    ///     let guard = locks.mutex("publish", ()).lock()?;
    ///     for done in 0..3 {
    ///         MutexGuard::check(&guard)?; // stops as soon as the lock is lost
    ///         step(done);
    ///     }
    ///     Ok(3)
    /// }
    ///
    /// let locks = LockManager::in_memory();
    /// assert_eq!(publish(&locks, |_| ())?, 3);
    ///
    /// let saboteur = locks.clone();
    /// let mut steps = 0;
    /// let outcome = publish(&locks, |_| {
    ///     steps += 1;
    ///     saboteur.lose_lock("publish");
    /// });
    /// assert!(outcome.unwrap_err().is_lost());
    /// assert_eq!(steps, 1);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn in_memory() -> LockManager {
        let ground = Ground::new(BelowHost::Memory);
        LockManager::on_memory(ground, crate::host::memory::MemoryLeader::new())
    }

    /// Another manager of the same leader, which shares nothing else with this one: to its locks it
    /// is another machine.
    ///
    /// # Panics
    /// If this manager is not one of [`in_memory`](Self::in_memory).
    pub fn in_memory_peer(&self) -> LockManager {
        LockManager::on_memory(Ground::new(BelowHost::Memory), self.memory().clone())
    }

    /// Takes the lock of this name away from its holder at host scope: its guards are told
    /// [`LostReason::Provoked`](crate::LostReason::Provoked). Answers whether it was held.
    ///
    /// # Panics
    /// If this manager is not one of [`in_memory`](Self::in_memory), or the name is invalid.
    pub fn lose_lock(&self, name: impl AsRef<str>) -> bool {
        let name = crate::name::Name::new(name.as_ref()).expect("a lock's name");
        self.memory().lose(&name)
    }

    /// Stops the leader, as a crash would: what is held stays good until its deadline, nothing new
    /// is granted.
    ///
    /// # Panics
    /// If this manager is not one of [`in_memory`](Self::in_memory).
    pub fn stop_leader(&self) {
        self.memory().stop();
    }

    /// Starts the leader again after [`stop_leader`](Self::stop_leader), by the rules of a real
    /// one: what is held stays held once its manager has come back, which is at once. A manager
    /// that was dropped without [`close`](Self::close) meanwhile is waited for.
    ///
    /// # Panics
    /// If this manager is not one of [`in_memory`](Self::in_memory).
    pub fn start_leader(&self) {
        self.memory().start();
    }

    fn memory(&self) -> &crate::host::memory::MemoryLeader {
        self.memory.as_ref().expect("only a manager made by LockManager::in_memory can do that")
    }

    fn on_memory(ground: Arc<Ground>, memory: crate::host::memory::MemoryLeader) -> LockManager {
        let settings = LockManagerBuilder::default();
        let label = "in-memory".to_owned();
        let link = memory.connect(
            identity(&label),
            settings.time_to_live,
            settings.connect_timeout,
            crate::fork::generation,
        );
        let reach = Reach {
            ground,
            label,
            service: Some(link.clone()),
            link: Some(link),
            #[cfg(feature = "service")]
            engine: None,
            connect_timeout: settings.connect_timeout,
            closed: AtomicBool::new(false),
            closing: event_listener::Event::new(),
            #[cfg(all(feature = "process", any(feature = "host", feature = "testing")))]
            owns_directory: AtomicBool::new(false),
        };
        LockManager { memory: Some(memory), ..LockManager::new(reach) }
    }
}

/// For the program.
#[cfg(feature = "cli")]
impl LockManager {
    /// The names of this manager's directory and leader, or only one.
    pub(crate) fn status(
        &self,
        only: Option<&crate::name::Name>,
    ) -> Result<Vec<crate::api::status::LockStatus>> {
        crate::api::status::look(&self.reach, only)
    }

    /// The same of this manager's directory alone.
    pub(crate) fn status_here(
        &self,
        only: Option<&crate::name::Name>,
    ) -> Result<Vec<crate::api::status::LockStatus>> {
        crate::api::status::here(&self.reach, only)
    }

    /// The same of this manager's leader alone.
    pub(crate) fn status_there(
        &self,
        only: Option<&crate::name::Name>,
    ) -> Result<Vec<crate::api::status::LockStatus>> {
        crate::api::status::there(&self.reach, only)
    }

    /// Which directory this is, wherever it lies.
    pub(crate) fn directory_key(&self) -> Option<crate::process::DirectoryKey> {
        self.reach.ground.directory().map(crate::process::Directory::key)
    }

    /// Which cluster's leader has answered, if one has.
    pub(crate) fn cluster(&self) -> Option<u128> {
        #[cfg(feature = "service")]
        if let Some(engine) = &self.reach.engine {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(engine.place()?);
            return digest.first_chunk().copied().map(u128::from_le_bytes);
        }
        Some(self.reach.link.as_ref()?.cluster()?.0)
    }

    /// What an operator should know of its lock service, if that is of another kind than our leaders.
    #[cfg(feature = "service")]
    pub(crate) fn examine_service(
        &self,
    ) -> Option<Result<Vec<crate::host::engines::EngineFinding>>> {
        let engine = self.reach.engine.as_ref()?;
        Some(crate::blocking::wait_for(engine.examine()))
    }
}

/// Settings of a [`LockManager`]; made by [`LockManager::builder`].
///
/// # Example
/// ```no_run
/// use std::time::Duration;
/// use tierlock::LockManager;
///
/// let locks = LockManager::builder()
///     .directory("/var/lib/shop/locks")           // makes process scope reachable
///     .leaders(["10.0.0.1:7420"])                 // makes host scope reachable
///     .secret_file("/etc/shop/tierlock.key")
///     .label("checkout")
///     .time_to_live(Duration::from_secs(10))
///     .on_warning(|text| eprintln!("{text}"))
///     .open()?;
/// # drop(locks);
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing happens before `open` is called"]
pub struct LockManagerBuilder {
    directory: Option<PathBuf>,
    leaders: Vec<String>,
    service: Option<String>,
    secret_file: Option<PathBuf>,
    label: String,
    time_to_live: Duration,
    connect_timeout: Duration,
    engine: Option<Engine>,
    accept_file_systems: Vec<String>,
    #[cfg(feature = "tokio")]
    runtime: Option<tokio::runtime::Handle>,
    on_warning: Option<crate::watch::Tell>,
}

impl Default for LockManagerBuilder {
    fn default() -> Self {
        LockManagerBuilder {
            directory: None,
            leaders: Vec::new(),
            service: None,
            secret_file: None,
            label: String::new(),
            time_to_live: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            engine: None,
            accept_file_systems: Vec::new(),
            #[cfg(feature = "tokio")]
            runtime: None,
            on_warning: None,
        }
    }
}

impl LockManagerBuilder {
    /// The settings of the environment; see [`LockManager::from_env`].
    ///
    /// # Errors
    /// `Config`, if neither a directory nor a leader nor a service is set, if both of the latter are, or
    /// a value is not UTF-8.
    pub fn from_env() -> Result<LockManagerBuilder> {
        let mut builder = LockManagerBuilder::default();
        if let Some(directory) = std::env::var_os("TIERLOCK_DIR").filter(|dir| !dir.is_empty()) {
            builder = builder.directory(directory);
        }
        if let Some(leaders) = text_from_env("TIERLOCK_LEADERS")? {
            builder = builder.leaders(leaders.split(',').map(str::trim).filter(|l| !l.is_empty()));
        }
        if let Some(service) = text_from_env("TIERLOCK_SERVICE")? {
            builder = builder.service(service);
        }
        if let Some(file) = std::env::var_os("TIERLOCK_SECRET_FILE").filter(|f| !f.is_empty()) {
            builder = builder.secret_file(file);
        }
        if let Some(label) = text_from_env("TIERLOCK_LABEL")? {
            builder = builder.label(label);
        }
        let has_leaders = !builder.leaders.is_empty();
        match (has_leaders, builder.service.is_some(), builder.directory.is_some()) {
            (true, true, _) => Err(LockError::config(
                "TIERLOCK_LEADERS and TIERLOCK_SERVICE are both set, and a lock is one service's: unset \
                 one",
            )),
            (false, false, false) => Err(LockError::config(
                "none of TIERLOCK_DIR, TIERLOCK_LEADERS and TIERLOCK_SERVICE is set: set one to say \
                 which processes share the locks",
            )),
            _ => Ok(builder),
        }
    }

    /// Makes [`Scope::Process`] reachable: the directory that all processes sharing these locks
    /// are given. It is made if it is missing. It must be on a local file system.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Makes [`Scope::Host`] reachable: the address of one leader, or of all members of one
    /// group, as `host:port` (port 7420 when left out).
    pub fn leaders<A: Into<String>>(mut self, leaders: impl IntoIterator<Item = A>) -> Self {
        self.leaders = leaders.into_iter().map(Into::into).collect();
        self
    }

    /// Makes [`Scope::Host`] reachable by a lock service that runs already, instead of leaders of our
    /// own: `redis://HOST`, `redlock://HOST,HOST,HOST`, `etcd://HOST,HOST,HOST`,
    /// `postgres://HOST/DATABASE`, `mysql://HOST/DATABASE`, and ShedLock's table by `shedlock+` before the
    /// latter two; each in a feature of its own. `tierlock://HOST,HOST` are leaders of our own, as [`leaders`](Self::leaders). What each
    /// promises, and its options, are in the guide's page [`engines`](crate::guide::engines).
    ///
    /// A URL may hold a password, `redis://USER:PASSWORD@HOST`, which nothing shows; a file that holds
    /// it is named by `?password_file=FILE`.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::builder()
    ///     .service("redis://10.0.0.1:6379?password_file=/etc/shop/redis.pw")
    ///     .label("checkout")
    ///     .open()?;
    /// let guard = locks.mutex("ledger/eu", ()).lock()?;
    /// # drop(guard);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn service(mut self, url: impl Into<String>) -> Self {
        self.service = Some(url.into());
        self
    }

    /// The file with the secret that the leader and all its clients share, made by
    /// `tierlock secret new FILE`. Needed with leaders. It is read again whenever a connection is
    /// made, so that a secret can be exchanged while the manager is open.
    pub fn secret_file(mut self, file: impl AsRef<Path>) -> Self {
        self.secret_file = Some(file.as_ref().to_owned());
        self
    }

    /// How a holder is shown to other callers, in errors and in `tierlock status`. Default: nothing.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// How long this manager's leases outlive its silence: 1 s to 60 s, 5 s unless set. Shorter
    /// means that others wait less for the locks of a crashed process; longer means that a
    /// longer pause or cut costs no lock.
    pub fn time_to_live(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = time_to_live;
        self
    }

    /// How long a lock waits for a leader to acknowledge it before it fails as `Unreachable`;
    /// 10 s unless set. An acknowledged one waits on through outages.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Is called with a message for people when
    ///
    /// - the leader has not answered for half of the time to live while something is held. The
    ///   message says how long the locks stay valid. Renewals go on, so they may all be kept; else
    ///   guards are told at the deadline
    ///   ([`MutexGuard::on_lost`](crate::MutexGuard::on_lost)). It runs on a thread of its own.
    /// - the manager is [opened](Self::open) with a directory on a file system that cannot promise
    ///   all that others do: tokens on tmpfs begin anew after a reboot, and on one that copies
    ///   what is written (btrfs, bcachefs, zfs, overlay) a full disk can end a process that locks.
    ///   It runs before `open` returns, on the same thread, each time.
    ///
    /// Default: nothing.
    pub fn on_warning(mut self, warn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Arc::new(warn));
        self
    }

    /// Which engine the directory uses. Default: the one that it was made with, and for a new
    /// directory the best one of this system. A directory of another engine is an error that says
    /// what to do.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Accepts a directory on a file system that is refused otherwise, by the name that the error
    /// gives it (`nfs`, `fuse`). Whether file locks and shared mappings work between all
    /// its users there is then yours to know: on most network file systems they do not.
    pub fn accept_file_system(mut self, name: impl Into<String>) -> Self {
        self.accept_file_systems.push(name.into());
        self
    }

    /// Lends the manager a tokio runtime (feature `tokio`), for async callers at host scope: while
    /// they wait, the runtime reads the leader's answers itself, which saves waking it from
    /// another thread. That is most of what an uncontended lock costs them on a fast network.
    ///
    /// It matters where an answer takes longer than 50 µs. A leader that lately answered sooner, to
    /// a task that asked alone, is waited for on the task's own thread, at most for that long and
    /// with or without a runtime lent; its worker serves no other task meanwhile.
    ///
    /// Nothing depends on the runtime: a thread of the manager keeps leases alive, serves callers
    /// of other runtimes and takes over within 1 ms where the runtime is blocked or gone. The
    /// runtime needs its I/O driver (`enable_io`; `#[tokio::main]` has it), else
    /// [`open`](Self::open) fails as `Config`.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example() -> tierlock::Result<()> {
    /// let locks = tierlock::LockManager::builder()
    ///     .leaders(["10.0.0.1:7420"])
    ///     .secret_file("/etc/shop/tierlock.key")
    ///     .runtime(tokio::runtime::Handle::current())
    ///     .open()?;
    /// let guard = locks.mutex("ledger/eu", ()).lock_async().await?;
    /// # drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Opens the manager. It opens the directory, reads the secret, and touches no network.
    ///
    /// # Errors
    /// `Config`: a time to live out of range, leaders without a secret, an address that is none,
    /// a directory that another engine or version uses or that is not on a local file system, a
    /// secret file that is missing, malformed or readable by others. `Refused` or `Io`: a
    /// directory that cannot be made, read or written. `Damaged`: its files are not ours.
    pub fn open(mut self) -> Result<LockManager> {
        if !TIME_TO_LIVE.contains(&self.time_to_live) {
            return Err(LockError::config(format!(
                "a time to live of {:?} is out of range: it is 1 s to 60 s",
                self.time_to_live
            )));
        }
        #[cfg(feature = "service")]
        let service = self.parse_service()?;
        #[cfg(not(feature = "service"))]
        self.parse_service()?;
        let ground = self.open_ground()?;
        #[cfg(feature = "process")]
        let caveat = ground.directory().and_then(crate::process::Directory::caveat);
        #[cfg(feature = "host")]
        let link = self.open_link(&ground)?;
        #[cfg(feature = "service")]
        let engine = service.map(|url| self.open_engine(url)).transpose()?;
        #[cfg(all(feature = "testing", not(feature = "host")))]
        let link = None::<Arc<crate::host::client::link::Link>>;
        #[cfg(not(feature = "host"))]
        if !self.leaders.is_empty() {
            return Err(LockError::config(
                "leaders are set, and this build of tierlock lacks the feature `host`",
            ));
        }
        #[cfg(feature = "process")]
        if let (Some(warn), Some(caveat)) = (&self.on_warning, caveat) {
            warn(&caveat);
        }
        let reach = Reach {
            ground,
            label: self.label,
            #[cfg(feature = "service")]
            service: match &engine {
                Some(engine) => Some(engine.service.clone()),
                None => link.clone().map(|link| link as _),
            },
            #[cfg(all(any(feature = "host", feature = "testing"), not(feature = "service")))]
            service: link.clone().map(|link| link as _),
            #[cfg(not(any(feature = "host", feature = "testing")))]
            service: None,
            #[cfg(any(feature = "host", feature = "testing"))]
            link,
            #[cfg(feature = "service")]
            engine: engine.map(|engine| engine.questions),
            connect_timeout: self.connect_timeout,
            closed: AtomicBool::new(false),
            closing: event_listener::Event::new(),
            #[cfg(all(feature = "process", any(feature = "host", feature = "testing")))]
            owns_directory: AtomicBool::new(false),
        };
        Ok(LockManager::new(reach))
    }

    /// The service, unless it is our own leaders: those are taken over here.
    #[cfg(feature = "host")]
    fn parse_service(&mut self) -> Result<Option<ServiceUrl>> {
        let Some(text) = &self.service else { return Ok(None) };
        if !self.leaders.is_empty() {
            return Err(LockError::config(
                "both leaders and a service are set, and a lock is one service's: leave one out",
            ));
        }
        let url = ServiceUrl::parse(text)?;
        match (url.kind, url.kind.feature()) {
            (ServiceKind::Tierlock, _) => {
                url.finish("none: leaders have no options, and secret_file names their secret")?;
                if url.user.is_some() || url.password.is_some() || !url.path.is_empty() {
                    return Err(
                        url.refuse("leaders are addresses alone; secret_file names their secret")
                    );
                }
                self.leaders = url.addresses;
                Ok(None)
            }
            (_, (_, true)) => Ok(Some(url)),
            (_, (feature, false)) => {
                Err(url
                    .refuse(format_args!("this build of tierlock lacks the feature `{feature}`")))
            }
        }
    }

    #[cfg(not(feature = "host"))]
    fn parse_service(&mut self) -> Result<()> {
        match &self.service {
            None => Ok(()),
            Some(_) => Err(LockError::config(
                "a service is set, and this build of tierlock lacks the feature `host`",
            )),
        }
    }

    #[cfg(feature = "service")]
    fn open_engine(&self, url: ServiceUrl) -> Result<crate::host::engines::OpenedEngine> {
        let settings = crate::host::engines::EngineSettings {
            time_to_live: self.time_to_live,
            connect_timeout: self.connect_timeout,
            identity: identity(&self.label),
            on_warning: self.on_warning.clone(),
        };
        crate::host::engines::open(url, settings)
    }

    #[cfg(feature = "process")]
    fn open_ground(&self) -> Result<Arc<Ground>> {
        use crate::process::{Directory, EngineKind, Options};
        let Some(path) = &self.directory else {
            return Ok(Ground::new(BelowHost::Nothing));
        };
        let engine = self.engine.map(|engine| match engine {
            Engine::FileLock => EngineKind::File,
            Engine::Table => EngineKind::Table,
        });
        let options = Options {
            engine,
            accept_file_systems: self.accept_file_systems.clone(),
            label: self.label.clone(),
        };
        Ok(Ground::of(Directory::open(path, &options)?))
    }

    #[cfg(not(feature = "process"))]
    fn open_ground(&self) -> Result<Arc<Ground>> {
        match &self.directory {
            None => Ok(Ground::new(BelowHost::Nothing)),
            Some(_) => Err(LockError::config(
                "a directory is set, and this build of tierlock lacks the feature `process`",
            )),
        }
    }

    #[cfg(feature = "host")]
    fn open_link(
        &self,
        ground: &Arc<Ground>,
    ) -> Result<Option<Arc<crate::host::client::link::Link>>> {
        if self.leaders.is_empty() {
            return Ok(None);
        }
        let Some(secret_file) = &self.secret_file else {
            return Err(LockError::config(
                "leaders are set without a secret file: make one with `tierlock secret new FILE` \
                 and give it to the leader and to all clients",
            ));
        };
        let secret = crate::host::Secret::read(secret_file)?;
        let config = crate::proto::client::Config {
            time_to_live: self.time_to_live,
            connect_timeout: self.connect_timeout,
            identity: identity(&self.label),
            addresses: self.leaders.len(),
            process: crate::host::process_mark(),
            seen: seen_in(ground),
        };
        #[cfg(feature = "tokio")]
        let reader = self.runtime.clone().map(crate::host::Reader::new).transpose()?;
        #[cfg(not(feature = "tokio"))]
        let reader = None;
        let generation = crate::fork::generation;
        let link = crate::host::connect(&self.leaders, secret, config, reader, generation)?;
        remember_in(ground, &link);
        if let Some(warn) = &self.on_warning {
            link.on_warning(warn.clone());
        }
        Ok(Some(link))
    }
}

/// What the processes of this directory have seen of their leader.
#[cfg(all(feature = "host", feature = "process"))]
fn seen_in(ground: &Ground) -> Option<crate::proto::history::Seen> {
    crate::proto::history::Seen::from_line(&ground.directory()?.read_leader()?)
}

/// From now on what this link sees of its leader is known to the directory, too.
#[cfg(all(feature = "host", feature = "process"))]
fn remember_in(ground: &Arc<Ground>, link: &crate::host::client::link::Link) {
    let ground = Arc::downgrade(ground);
    link.remember(Arc::new(move |seen| {
        if let Some(ground) = ground.upgrade()
            && let Some(directory) = ground.directory()
            && seen.is_news_to(seen_in(&ground))
        {
            directory.write_leader(&seen.to_line());
        }
    }));
}

#[cfg(all(feature = "host", not(feature = "process")))]
fn seen_in(_: &Ground) -> Option<crate::proto::history::Seen> {
    None
}

#[cfg(all(feature = "host", not(feature = "process")))]
fn remember_in(_: &Arc<Ground>, _: &crate::host::client::link::Link) {}

#[cfg(any(feature = "host", feature = "testing"))]
fn identity(label: &str) -> crate::proto::wire::Identity {
    let process = crate::identity::this_process();
    crate::proto::wire::Identity::new(label, &process.host, std::process::id(), &process.command)
}

impl LockManagerBuilder {
    /// Without its secrets.
    fn shown_service(&self) -> Option<String> {
        let text = self.service.as_ref()?;
        #[cfg(feature = "host")]
        if let Ok(url) = ServiceUrl::parse(text) {
            return Some(url.shown());
        }
        let _ = text;
        Some("…".to_owned())
    }
}

fn text_from_env(variable: &str) -> Result<Option<String>> {
    match std::env::var(variable) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(LockError::config(format!("{variable}: {error}")).with_source(error)),
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.reach, f)
    }
}

impl fmt::Debug for LockManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManagerBuilder")
            .field("directory", &self.directory)
            .field("leaders", &self.leaders)
            .field("service", &self.shown_service())
            .field("secret_file", &self.secret_file)
            .field("label", &self.label)
            .field("time_to_live", &self.time_to_live)
            .field("connect_timeout", &self.connect_timeout)
            .field("engine", &self.engine)
            .field("accept_file_systems", &self.accept_file_systems)
            .finish()
    }
}

#[cfg(all(
    test,
    feature = "process",
    feature = "testing",
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little"
))]
mod tests;
