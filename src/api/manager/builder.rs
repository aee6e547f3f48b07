//! How a manager is opened.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use super::{Engine, LockManager};
use crate::{
    error::{LockError, Result},
    host::{
        opening::{self, WantedService},
        settings::{SeenLeader, ServiceSettings},
    },
    path::ground::{BelowHost, Ground, Reach},
    time::TIME_TO_LIVE,
};

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
    pub(super) directory: Option<PathBuf>,
    leaders: Vec<String>,
    pub(super) service: Option<String>,
    secret_file: Option<PathBuf>,
    pub(super) label: String,
    pub(super) time_to_live: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) engine: Option<Engine>,
    accept_file_systems: Vec<String>,
    guards_stay: bool,
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
            guards_stay: false,
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
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use tierlock::LockManagerBuilder;
    ///
    /// // the site says where the locks are, and the program how it uses them
    /// let locks = LockManagerBuilder::from_env()?
    ///     .label("checkout")
    ///     .time_to_live(Duration::from_secs(10))
    ///     .open()?;
    /// # drop(locks);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
                "TIERLOCK_LEADERS and TIERLOCK_SERVICE are both set, but locks are granted by \
                 one service: unset one",
            )),
            (false, false, false) => Err(LockError::config(
                "none of TIERLOCK_DIR, TIERLOCK_LEADERS and TIERLOCK_SERVICE is set: set one to say \
                 which processes share the locks",
            )),
            _ => Ok(builder),
        }
    }

    /// Makes [`Scope::Process`](crate::Scope::Process) reachable: the directory that all processes
    /// sharing these locks are given. It is made if it is missing. It must be on a local file system.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Promises that while a thread waits for a lock of this manager, no other thread drops an exclusive guard
    /// that a blocking call of its own returned, nor an [`AllGuard`](crate::AllGuard) with exclusive locks; `false`
    /// unless it is set.
    ///
    /// With that a leader finds deadlocks of threads: see
    /// [the page on guarantees](crate::guide::guarantees#deadlocks). Without it they take no part in
    /// that, since guards may be sent to other threads, and nothing tells where one is. A promise that is not
    /// kept makes a [`Deadlock`](crate::LockErrorKind::Deadlock) of what would have come free.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::{LockErrorKind, LockManager};
    ///
    /// let locks = LockManager::builder()
    ///     .leaders(["10.0.0.1:7420"])
    ///     .secret_file("/etc/shop/tierlock.key")
    ///     .guards_stay(true)
    ///     .open()?;
    /// let (from, to) = (locks.mutex("account/1", ()).build()?, locks.mutex("account/2", ()).build()?);
    /// loop {
    ///     let from = from.lock()?;
    ///     match to.lock() {
    ///         Ok(to) => break drop((from, to)), // … the transfer …
    ///         Err(error) if error.kind() == LockErrorKind::Deadlock => drop(from), // begins anew
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn guards_stay(mut self, stay: bool) -> Self {
        self.guards_stay = stay;
        self
    }

    /// Makes [`Scope::Host`](crate::Scope::Host) reachable: the address of one leader, or of all that
    /// stand in for one another, as `host:port` (port 7420 when left out).
    pub fn leaders<A: Into<String>>(mut self, leaders: impl IntoIterator<Item = A>) -> Self {
        self.leaders = leaders.into_iter().map(Into::into).collect();
        self
    }

    /// Makes [`Scope::Host`](crate::Scope::Host) reachable by a lock service that runs already, instead
    /// of leaders of our own: `redis://HOST`, `redlock://HOST,HOST,HOST`, `etcd://HOST,HOST,HOST`,
    /// `zookeeper://HOST,HOST,HOST/CHROOT`, `postgres://HOST/DATABASE`, `mysql://HOST/DATABASE`, and
    /// ShedLock's table by `shedlock+` before the latter two; each in a feature of its own. `tierlock://HOST,HOST` are leaders of our own, as
    /// [`leaders`](Self::leaders). What each promises, and its options, are in the guide's page
    /// [`engines`](crate::guide::engines).
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
    ///
    /// # Example
    /// ```no_run
    /// let locks = tierlock::LockManager::builder()
    ///     .leaders(["10.0.0.1:7420", "10.0.0.2:7420"])
    ///     .secret_file("/etc/shop/tierlock.key") // or a credential that `tierlock secret issue` has made
    ///     .open()?;
    /// # drop(locks);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::builder()
    ///     .directory("/var/lib/shop/locks")
    ///     .on_warning(|text| eprintln!("tierlock: {text}"))
    ///     .open()?;
    /// # drop(locks);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_warning(mut self, warn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Arc::new(warn));
        self
    }

    /// Which engine the directory uses. Default: the one that it was made with, and for a new
    /// directory the best one of this system. A directory of another engine is an error that says
    /// what to do.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::{Engine, LockManager};
    ///
    /// let locks = LockManager::builder()
    ///     .directory("/var/lib/shop/locks")
    ///     .engine(Engine::FileLock) // as a system without the table engine has it
    ///     .open()?;
    /// # drop(locks);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Accepts a directory on a file system that is refused otherwise, by the name that the error
    /// gives it (`nfs`, `fuse`). Whether file locks and shared mappings work between all
    /// its users there is then yours to know: on most network file systems they do not.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::builder()
    ///     .directory("/mnt/shared/locks")
    ///     .accept_file_system("fuse") // tried out: its file locks and mappings work between its users
    ///     .open()?;
    /// # drop(locks);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
    ///
    /// # Example
    /// ```
    /// # #[cfg(all(feature = "process", unix))] {
    /// use tierlock::{LockErrorKind, LockManager};
    ///
    /// # let place = std::env::temp_dir().join(format!("tierlock-doc-open-{}", std::process::id()));
    /// let locks = LockManager::builder().directory(&place).label("checkout").open()?; // once per process
    /// let guard = locks.mutex("ledger/eu", ()).lock()?;
    ///
    /// let mistaken = LockManager::builder().directory(&place).leaders(["10.0.0.1:7420"]).open();
    /// assert_eq!(mistaken.err().unwrap().kind(), LockErrorKind::Config); // leaders need a secret
    /// # drop((guard, locks));
    /// # std::fs::remove_dir_all(place).unwrap();
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn open(mut self) -> Result<LockManager> {
        if !TIME_TO_LIVE.contains(&self.time_to_live) {
            return Err(LockError::config(format!(
                "a time to live of {:?} is out of range: it is 1 s to 60 s",
                self.time_to_live
            )));
        }
        let leaders = std::mem::take(&mut self.leaders);
        let wanted = WantedService::of(leaders, self.service.as_deref())?;
        let ground = self.open_ground()?;
        #[cfg(feature = "process")]
        let caveat = ground.directory().and_then(crate::process::Directory::caveat);
        let opened = wanted.open(ServiceSettings {
            secret_file: self.secret_file,
            label: self.label.clone(),
            time_to_live: self.time_to_live,
            connect_timeout: self.connect_timeout,
            guards_stay: self.guards_stay,
            on_warning: self.on_warning.clone(),
            seen: seen_in(&ground),
            #[cfg(feature = "tokio")]
            runtime: self.runtime,
        })?;
        #[cfg(feature = "process")]
        if let (Some(warn), Some(caveat)) = (&self.on_warning, caveat) {
            warn(&caveat);
        }
        let (service, questions) = opened.map(|opened| (opened.leases, opened.questions)).unzip();
        let reach = Reach {
            ground,
            label: self.label,
            service,
            questions,
            connect_timeout: self.connect_timeout,
            guards_stay: self.guards_stay,
            closed: AtomicBool::new(false),
            closing: event_listener::Event::new(),
            #[cfg(feature = "process")]
            owns_directory: AtomicBool::new(false),
        };
        Ok(LockManager::new(reach))
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
                "a directory is set, but this build of tierlock lacks the feature `process`: \
                 enable it in Cargo.toml",
            )),
        }
    }
}

/// Where the processes of this directory write down what they have seen of their leader.
#[cfg(feature = "process")]
fn seen_in(ground: &Arc<Ground>) -> Option<SeenLeader> {
    ground.directory()?;
    let (read_of, write_of) = (Arc::downgrade(ground), Arc::downgrade(ground));
    Some(SeenLeader {
        read: Box::new(move || read_of.upgrade()?.directory()?.read_leader()),
        write: Box::new(move |line| {
            if let Some(ground) = write_of.upgrade()
                && let Some(directory) = ground.directory()
            {
                directory.write_leader(line);
            }
        }),
    })
}

#[cfg(not(feature = "process"))]
fn seen_in(_: &Arc<Ground>) -> Option<SeenLeader> {
    None
}

impl LockManagerBuilder {
    /// Without its secrets.
    fn shown_service(&self) -> Option<String> {
        self.service.as_deref().map(opening::shown)
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
