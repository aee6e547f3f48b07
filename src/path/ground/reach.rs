//! What a manager reaches: the ground below, and the service above it.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use super::Ground;
use crate::{
    alarm,
    error::{Holder, LockError, Result},
    host::{questions::LockQuestions, service::LeaseService},
    identity::{cut, this_process},
    scope::Scope,
};

/// How far a manager reaches, and how it describes itself.
pub(crate) struct Reach {
    pub(crate) ground: Arc<Ground>,
    pub(crate) label: String,
    /// What grants its leases, if it reaches other hosts.
    pub(crate) service: Option<Arc<dyn LeaseService>>,
    /// The same, for questions about locks that others hold.
    pub(crate) questions: Option<Arc<dyn LockQuestions>>,
    pub(crate) connect_timeout: Duration,
    /// What a thread has locked it gives back itself, as is promised.
    pub(crate) guards_stay: bool,
    pub(crate) closed: AtomicBool,
    /// Told to the tasks that wait.
    pub(crate) closing: event_listener::Event,
    /// Its directory was found to belong to its leader's cluster.
    #[cfg(feature = "process")]
    pub(crate) owns_directory: AtomicBool,
}

impl Reach {
    pub(crate) fn has_leader(&self) -> bool {
        self.service.is_some()
    }

    /// The widest scope that can be reached.
    pub(crate) fn widest(&self) -> Scope {
        if self.has_leader() {
            Scope::Host
        } else if self.ground.reaches_processes() {
            Scope::Process
        } else {
            Scope::Thread
        }
    }

    /// Whether `scope` can be reached.
    pub(crate) fn check(&self, scope: Scope) -> Result<()> {
        if scope > Scope::Thread {
            self.check_open()?;
        }
        let missing = match scope {
            Scope::Thread => return Ok(()),
            Scope::Process if self.ground.reaches_processes() => return Ok(()),
            Scope::Host if self.has_leader() => return Ok(()),
            Scope::Process => {
                "this manager reaches no other process: give it a directory \
                 (LockManager::builder().directory(…), or TIERLOCK_DIR)"
            }
            Scope::Host => {
                "this manager reaches no other host: give it a leader \
                 (LockManager::builder().leaders([…]).secret_file(…), or TIERLOCK_LEADERS and \
                 TIERLOCK_SECRET_FILE), or a lock service (service(…), or TIERLOCK_SERVICE)"
            }
        };
        Err(LockError::config(missing).with_scope(scope))
    }

    /// Whether locks above thread scope may not be taken any more.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// The same, as an error.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.is_closed() {
            false => Ok(()),
            true => Err(LockError::config("its manager was closed: open another one")),
        }
    }

    pub(crate) fn service(&self) -> Result<&Arc<dyn LeaseService>> {
        self.check(Scope::Host)?;
        self.service.as_ref().ok_or_else(|| LockError::config("this manager has no leader"))
    }

    /// Has its directory belong to its leader's cluster, durably, or fails if it is another's. Before
    /// the cluster is known nothing is done; it is known with the first grant.
    #[cfg(feature = "process")]
    pub(crate) fn claim_directory(&self) -> Result<()> {
        if self.owns_directory.load(Relaxed) {
            return Ok(());
        }
        if let Some((directory, place)) = self.ground.directory().zip(self.place()) {
            directory.claim_for(&place)?;
            self.owns_directory.store(true, Relaxed);
        }
        Ok(())
    }

    /// Which locks its service's are, wherever they are reached from, as far as it is known yet.
    #[cfg(feature = "process")]
    pub(crate) fn place(&self) -> Option<String> {
        self.questions.as_ref()?.place()
    }

    /// This process, as others see it.
    pub(crate) fn myself(&self) -> Holder {
        let identity = this_process();
        Holder {
            label: self.label.clone(),
            label_is_proved: false,
            claims_label: false,
            host: identity.host.clone(),
            pid: Some(std::process::id()),
            command: cut(&identity.command, COMMAND_MAX).to_owned(),
            held: None,
            held_since_grant: false,
            token: None,
        }
    }

    /// This process in words, as the one that widened a name.
    #[cfg(feature = "process")]
    pub(crate) fn described(&self) -> String {
        self.myself().to_string()
    }

    /// Takes no more locks above thread scope, says goodbye to the leader, and waits until that is
    /// sent, at most for [`GOODBYE`].
    ///
    /// The waiters for a lock above thread scope are told.
    pub(crate) fn close(&self) {
        self.close_within(GOODBYE);
    }

    pub(crate) fn close_within(&self, wait: Duration) {
        self.closed.store(true, SeqCst);
        self.closing.notify(usize::MAX);
        self.ground.wake_all();
        self.end_service(wait);
    }

    fn end_service(&self, wait: Duration) {
        if let Some(service) = &self.service {
            service.close(crate::clock::now() + wait);
        }
    }
}

/// As much of a command line as an error shows of this process's own, in bytes.
const COMMAND_MAX: usize = 128;

/// How long a goodbye is waited for.
const GOODBYE: Duration = Duration::from_millis(100);

impl Drop for Reach {
    fn drop(&mut self) {
        // A lock that `at_least` kept may have been the last to need it.
        self.end_service(if alarm::is_here() { Duration::ZERO } else { GOODBYE });
    }
}
