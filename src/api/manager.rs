//! Where named mutexes come from: the directory, the leaders, and the label shown to others.

mod builder;
#[cfg(feature = "testing")]
mod memory;

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

pub use self::builder::LockManagerBuilder;
use crate::{
    api::{
        all::{AllBuilder, AllGuard, AllRequest},
        election::ElectionBuilder,
        mutex::MutexBuilder,
        question::TokenQuestion,
        rwlock::RwLockBuilder,
        semaphore::SemaphoreBuilder,
    },
    error::Result,
    path::ground::Reach,
    scope::Scope,
    token::Token,
};
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
use crate::{
    api::{
        status::{self, LockStatus},
        why::Explanation,
    },
    error::Holder,
    name::Name,
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
    ///
    /// # Example
    /// ```
    /// use tierlock::{LockManager, Scope};
    ///
    /// let threads = LockManager::builder().open()?; // nothing is set: names, at thread scope
    /// assert_eq!(threads.widest_scope(), Scope::Thread);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
    ///
    /// # Example
    /// ```no_run
    /// // TIERLOCK_DIR=/var/lib/shop/locks TIERLOCK_LABEL=checkout
    /// let locks = tierlock::LockManager::from_env()?;
    /// let _turn = locks.mutex("reindex", ()).lock()?;
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn from_env() -> Result<LockManager> {
        LockManagerBuilder::from_env()?.open()
    }

    /// A mutex of this name, about to be built. The default scope is the widest that this manager
    /// reaches. Errors in the name surface when it is built.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let stock = locks.mutex("stock/12", 7).build()?; // a mutex, to be locked again and again
    /// *stock.lock()? -= 1;
    /// let order = locks.mutex(format!("orders/{}", 42), ()).lock()?; // or at once: the guard owns it
    /// # drop(order);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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

    /// An election of this name, about to be built. The default scope is the widest that this manager
    /// reaches.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let leadership = locks.election("primary").campaign("10.0.0.7:8080")?;
    /// let leader = locks.election("primary").build()?.leader()?.expect("one leads");
    /// assert_eq!(leader.value_text(), "10.0.0.7:8080");
    /// # drop(leadership);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn election(&self, name: impl AsRef<str>) -> ElectionBuilder {
        ElectionBuilder::new(self.reach.clone(), name.as_ref())
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
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let one = locks.mutex("accounts/3", ()).lock()?;
    /// let error = locks.try_lock_all(["accounts/7", "accounts/3"]).unwrap_err();
    /// assert!(error.is_contended() && error.name() == Some("accounts/3"));
    /// assert!(locks.mutex("accounts/7", ()).try_lock().is_ok()); // none of them is held
    /// # drop(one);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
    ///
    /// # Cancel safety, errors
    /// As described at [`AllGuard`].
    pub fn lock_all_async<R: Into<AllRequest>>(
        &self,
        requests: impl IntoIterator<Item = R>,
    ) -> impl Future<Output = Result<AllGuard>> + Send + 'static {
        self.all(requests).lock_async()
    }

    /// Several locks about to be taken together, with terms.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::time::Duration;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let both = locks.all(["a", "b"]).at_most(Duration::from_secs(60)).lock()?;
    /// assert_eq!(both.len(), 2);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockErrorKind, LockManager};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// locks.close(); // at the end of a program, before `std::process::exit`
    /// let error = locks.mutex("reindex", ()).lock().unwrap_err();
    /// assert_eq!(error.kind(), LockErrorKind::Config);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn close(&self) {
        self.reach.close();
    }

    /// As [`close`](Self::close), blocking no thread.
    ///
    /// # Cancel safety
    /// Dropped early, the manager is closed all the same; only the goodbye is not waited for.
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

/// What is known of locks: what `tierlock status` and `tierlock why` show, as data.
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
impl LockManager {
    /// Every lock that this manager's directory and its leader or lock service know, in the order of
    /// names. Names without a holder are forgotten after a while, but for a directory's names that were ever
    /// read or had permits taken; locks of thread scope are never there.
    ///
    /// It reads files, and it asks and waits for the leader: from async code, call it where it may block
    /// (`tokio::task::spawn_blocking`). A waiter at process scope is shown once it has waited for about a
    /// millisecond.
    ///
    /// # Errors
    /// `Unreachable`, if no leader answered within `connect_timeout`; `Io` or `Damaged`, if the directory
    /// cannot be read.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{LockManager, LockState};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("orders/7", ()).lock()?;
    /// for lock in locks.status()? {
    ///     println!("{} {} {:?}", lock.name, lock.state.as_str(), lock.holder);
    /// #   assert_eq!(lock.state, LockState::Held);
    /// }
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn status(&self) -> Result<Vec<LockStatus>> {
        self.look(None)
    }

    /// As [`status`](Self::status), of one lock. One that was never used, or is forgotten, is free.
    ///
    /// # Errors
    /// As [`status`](Self::status), and `Config` for an invalid name.
    pub fn status_of(&self, name: impl AsRef<str>) -> Result<LockStatus> {
        let name = crate::api::question::checked_name(name.as_ref())?;
        let known = self.look(Some(&name))?.into_iter().next();
        Ok(known.unwrap_or_else(|| LockStatus::free(name, self.reach.widest())))
    }

    /// Which process holds a lock exclusively, if one does: [`status_of`](Self::status_of) tells of all
    /// that share it. Whether it still does when this returns is not known; for a decision,
    /// [`try_lock`](crate::Mutex::try_lock).
    ///
    /// # Errors
    /// As [`status_of`](Self::status_of).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("nightly", ()).lock()?;
    /// let holder = locks.holder("nightly")?.expect("it is held");
    /// assert_eq!(holder.pid, Some(std::process::id()));
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn holder(&self, name: impl AsRef<str>) -> Result<Option<Holder>> {
        Ok(self.status_of(name)?.holder)
    }

    /// Why a lock is not free: which process has it, what will free it and by when, which callers wait.
    /// It prints in sentences.
    ///
    /// # Errors
    /// As [`status_of`](Self::status_of).
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use tierlock::{FreedBy, LockManager};
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let guard = locks.mutex("nightly", ()).lock()?;
    /// let why = locks.why("nightly")?;
    /// println!("{why}"); // nightly is held by … It comes free when its holder releases it. …
    /// assert_eq!(why.freed_by(), FreedBy::Holder);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn why(&self, name: impl AsRef<str>) -> Result<Explanation> {
        let status = self.status_of(name)?;
        // Nothing waits for each other where nothing waits for this one.
        let all = match status.waiters.is_empty() {
            true => Vec::new(),
            false => self.look(None)?,
        };
        Ok(Explanation::new(status, &all))
    }

    /// The names of this manager's directory and leader, or only one.
    pub(crate) fn look(&self, only: Option<&Name>) -> Result<Vec<LockStatus>> {
        status::look(&self.reach, only)
    }
}

/// For the program.
#[cfg(feature = "cli")]
impl LockManager {
    /// What [`look`](Self::look) finds in this manager's directory alone.
    pub(crate) fn look_here(&self, only: Option<&Name>) -> Result<Vec<LockStatus>> {
        status::here(&self.reach, only)
    }

    /// The same of this manager's leader alone.
    pub(crate) fn look_there(&self, only: Option<&Name>) -> Result<Vec<LockStatus>> {
        status::there(&self.reach, only)
    }

    /// Which directory this is, wherever it lies.
    pub(crate) fn directory_key(&self) -> Option<crate::process::DirectoryKey> {
        self.reach.ground.directory().map(crate::process::Directory::key)
    }

    /// Which cluster's leader has answered, if one has.
    pub(crate) fn cluster(&self) -> Option<u128> {
        self.reach.questions.as_ref()?.cluster()
    }

    /// One caller at a time uses this manager, which gives nothing back while it waits; and these locks of
    /// this cluster are held, with these tokens, by processes that wait for this one to end. Its leader looks
    /// for deadlocks with that.
    pub(crate) fn is_used_by_one(&self, above: Vec<(u128, Name, Token, u32)>) {
        if let Some(questions) = &self.reach.questions {
            questions.is_used_by_one(above);
        }
    }

    /// What an operator should know of its lock service, if that is of another kind than our leaders.
    #[cfg(feature = "service")]
    pub(crate) fn examine_service(
        &self,
    ) -> Option<Result<Vec<crate::host::engines::EngineFinding>>> {
        Some(crate::blocking::wait_for(self.reach.questions.as_ref()?.examine()?))
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.reach, f)
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
