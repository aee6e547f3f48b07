//! Managers for tests, of a leader in memory.

use std::sync::{Arc, atomic::AtomicBool};

use super::{LockManager, builder::LockManagerBuilder};
use crate::{
    host::identity_of,
    path::ground::{BelowHost, Ground, Reach},
};

/// For users' own tests (feature `testing`).
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
    ///
    /// # Example
    /// ```
    /// use tierlock::LockManager;
    ///
    /// let here = LockManager::in_memory();
    /// let elsewhere = here.in_memory_peer();
    /// let guard = here.mutex("job", ()).lock()?;
    /// assert!(elsewhere.mutex("job", ()).try_lock().is_err());
    /// drop(guard);
    /// assert!(elsewhere.mutex("job", ()).lock().is_ok());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn in_memory_peer(&self) -> LockManager {
        LockManager::on_memory(Ground::new(BelowHost::Memory), self.memory().clone())
    }

    /// Takes the lock of this name away from its holder at host scope: its guards are told
    /// [`LostReason::Provoked`](crate::LostReason::Provoked). Answers whether it was held.
    ///
    /// # Panics
    /// If this manager is not one of [`in_memory`](Self::in_memory), or the name is invalid.
    ///
    /// # Example
    /// ```
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("import", ()).lock()?;
    /// assert!(locks.lose_lock("import"));
    /// assert!(MutexGuard::unlock(guard).unwrap_err().is_lost());
    /// assert!(!locks.lose_lock("import")); // no guard holds it any more
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn lose_lock(&self, name: impl AsRef<str>) -> bool {
        let name = crate::name::Name::new(name.as_ref()).expect("a lock's name");
        self.memory().lose(&name)
    }

    /// Stops the leader, as a crash would: what is held stays good until its deadline, nothing new
    /// is granted.
    ///
    /// # Panics
    /// If this manager is not one of [`in_memory`](Self::in_memory).
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use tierlock::{LockManager, MutexGuard};
    ///
    /// let locks = LockManager::in_memory();
    /// let guard = locks.mutex("import", ()).lock()?;
    /// locks.stop_leader();
    /// assert!(MutexGuard::is_valid(&guard)); // until its deadline
    /// let wait = Duration::from_millis(5);
    /// assert!(locks.mutex("other", ()).try_lock_for(wait).is_err()); // nothing new is granted
    /// locks.start_leader();
    /// assert!(locks.mutex("other", ()).lock().is_ok());
    /// MutexGuard::unlock(guard)?; // it was held through the restart
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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

    pub(super) fn memory(&self) -> &crate::host::memory::MemoryLeader {
        self.memory.as_ref().expect("only a manager made by LockManager::in_memory can do that")
    }

    pub(super) fn on_memory(
        ground: Arc<Ground>,
        memory: crate::host::memory::MemoryLeader,
    ) -> LockManager {
        let settings = LockManagerBuilder::default();
        let label = "in-memory".to_owned();
        let link = memory.connect(
            identity_of(&label),
            settings.time_to_live,
            settings.connect_timeout,
            crate::fork::generation,
        );
        let reach = Reach {
            ground,
            label,
            service: Some(link.clone()),
            questions: Some(link),
            connect_timeout: settings.connect_timeout,
            guards_stay: false,
            closed: AtomicBool::new(false),
            closing: event_listener::Event::new(),
            #[cfg(feature = "process")]
            owns_directory: AtomicBool::new(false),
        };
        LockManager { memory: Some(memory), ..LockManager::new(reach) }
    }
}
