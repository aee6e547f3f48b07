//! Runs a leader: moves frames between its port and the protocol, and records to the journal.
//!
//! It decides nothing about locks. One thread serves all connections (`court`); others wait for the
//! journal (`lanes`), so that no renewal of a client's ever does. `members` and `in_group` are about the
//! group that a leader may be of. `builder` sets all up.

mod builder;
mod court;
mod doors;
mod events;
mod in_group;
mod lanes;
mod members;
mod reload;
mod stepping;
mod teller;
#[cfg(feature = "cli")]
mod window;

#[cfg(feature = "cli")]
use std::task::Waker;
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

#[cfg(feature = "cli")]
pub(crate) use self::events::EventClient;
#[cfg(feature = "cli")]
pub(crate) use self::window::{LeaderHealth, LeaderView, LeaderWindow};
pub use self::{
    builder::LeaderBuilder,
    events::{LeaderEvent, LeaderEventKind},
};
use self::{
    members::GroupHandle,
    reload::{LookedFile, News, Reloader},
    stepping::StepDowns,
    teller::Teller,
};
#[cfg(feature = "cli")]
pub(crate) use self::{members::refusal, stepping::HAS_OWN_JOURNAL};
use super::net::{acceptance::Acceptance, bell::Bell, tls::Secret};
use crate::{
    callbacks,
    error::{LockError, LockErrorKind},
    name::Name,
    proto::{ConnectionId, wire::LeaderMessage},
    token::Token,
    watch::Tell,
};

/// A leader running in this process: it grants the locks of [`Scope::Host`](crate::Scope::Host).
///
/// It has a thread of its own and stops when it is dropped. Its clients keep what they hold for
/// their time to live; a leader that is started again on the same state directory lets them
/// report it. How it is operated: the guide's page [`leaders`](crate::guide::leaders).
///
/// # Example
/// ```no_run
/// use tierlock::Leader;
///
/// let leader = Leader::builder()
///     .listen("0.0.0.0:7420")
///     .state_dir("/var/lib/tierlock")
///     .secret_file("/etc/tierlock.key")
///     .start()?; // the first time, in a set-up step of its own: `.init(true)`
/// println!("listening on {}", leader.local_addr());
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Debug)]
pub struct Leader {
    addresses: Vec<SocketAddr>,
    reloader: Reloader,
    shared: Arc<LeaderShared>,
    /// The group that it is a member of.
    group: Option<GroupHandle>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct LeaderShared {
    bell: Bell,
    stop: AtomicBool,
    on_alarm: OnAlarm,
    /// Hands over changes of reign, and all events.
    teller: Arc<Teller>,
    /// Threads that want to see what it does.
    #[cfg(feature = "cli")]
    looks: window::Looks,
    /// Of the thread that waits for its end, and for other things.
    #[cfg(feature = "cli")]
    end_waker: Mutex<Option<Waker>>,
    /// What the secret file has been changed to.
    new_secret: Mutex<Option<Secret>>,
    /// What was found at the last look at the files of what is accepted, each minute.
    accepted_anew: Mutex<Option<Acceptance>>,
    /// Callers that want it to step down.
    step_downs: StepDowns,
    /// The journal has changed, and is to be read before the next read is due.
    is_to_look: AtomicBool,
    /// What operators are to be answered about the group.
    group_answers: Mutex<Vec<(ConnectionId, LeaderMessage)>>,
    end: Mutex<Option<ReignEnd>>,
    ended: Condvar,
    #[cfg(test)]
    disk_fails: AtomicBool,
}

impl LeaderShared {
    /// Before its leader serves.
    fn new(bell: Bell, teller: Arc<Teller>, on_alarm: OnAlarm) -> LeaderShared {
        LeaderShared {
            bell,
            stop: AtomicBool::new(false),
            on_alarm,
            teller,
            #[cfg(feature = "cli")]
            looks: window::Looks::default(),
            #[cfg(feature = "cli")]
            end_waker: Mutex::new(None),
            new_secret: Mutex::new(None),
            accepted_anew: Mutex::new(None),
            step_downs: StepDowns::default(),
            is_to_look: AtomicBool::new(false),
            group_answers: Mutex::default(),
            end: Mutex::new(None),
            ended: Condvar::new(),
            #[cfg(test)]
            disk_fails: AtomicBool::new(false),
        }
    }
}

/// What is called with words for an operator.
#[derive(Clone)]
struct OnAlarm(Tell);

impl OnAlarm {
    /// On a thread where it may block.
    fn tell(&self, text: String) {
        let OnAlarm(tell) = self.clone();
        callbacks::run(move || tell(&text));
    }
}

impl fmt::Debug for OnAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnAlarm")
    }
}

/// How the reign ended.
#[derive(Clone, Debug)]
enum ReignEnd {
    Stopped,
    Failed(LockErrorKind, String),
}

impl Leader {
    /// Begins to set up a leader; `listen`, `secret_file` and one of `state_dir` and `journal` are
    /// needed, and for a member of a group `group` and `state_dir`.
    pub fn builder() -> LeaderBuilder {
        LeaderBuilder::new()
    }

    /// Where it listens, or the first such address; the port is the real one if port 0 was asked
    /// for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All the addresses where it listens.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads the secret file and the revocation file again now; it does so every minute in any case. A
    /// client with a
    /// secret that is not among those of the file any more, with a credential that is revoked or has
    /// ended, loses its connection, and its locks as
    /// if it were silent. A file that is missing or damaged leaves in force what was read
    /// before, and is told as an alarm.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// # let builder = Leader::builder();
    /// let leader = builder.listen(":7420").state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key").start()?;
    /// // … another secret was renamed to /etc/tierlock.key; or wait a minute
    /// leader.reload();
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn reload(&self) {
        self.reloader.ask();
        if !self.reloader.has_secret_file() {
            self.shared.sound(
                "the secret came through a pipe, which is read once: restart the leader to give \
                 it another"
                    .to_owned(),
            );
        }
    }

    /// Stops it in good order: its clients are told, so that they look for another at once. The
    /// same as dropping it.
    pub fn shutdown(self) {}

    /// Why it stopped by itself, if it did: its disk failed, or its state is older than what its
    /// clients have seen.
    pub fn failure(&self) -> Option<LockError> {
        match &*self.shared.end.lock() {
            Some(ReignEnd::Failed(kind, text)) => Some(LockError::new(*kind, text.clone())),
            _ => None,
        }
    }

    /// Wakes its program once it has stopped by itself.
    #[cfg(feature = "cli")]
    pub(crate) fn wake_at_end(&self, waker: Waker) {
        *self.shared.end_waker.lock() = Some(waker);
        // It may have ended before that.
        if self.shared.end.lock().is_some() {
            self.shared.wake_at_end();
        }
    }

    #[cfg(test)]
    pub(super) fn fail_the_disk(&self) {
        self.shared.disk_fails.store(true, Release);
    }

    /// Blocks until it stops by itself, and says why.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .start()?;
    /// eprintln!("{}", leader.wait()); // a program that does nothing else
    /// std::process::exit(74);
    /// # #[allow(unreachable_code)]
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn wait(&self) -> LockError {
        let mut end = self.shared.end.lock();
        while end.is_none() {
            self.shared.ended.wait(&mut end);
        }
        drop(end);
        self.failure().unwrap_or_else(|| LockError::config("the leader was stopped"))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported as the failure that it is.
            let _ = thread.join();
        }
        // The process may end now: what is to be told is told before.
        self.shared.teller.finish(TELLING_LIMIT);
    }
}

impl AsRef<Bell> for LeaderShared {
    fn as_ref(&self) -> &Bell {
        &self.bell
    }
}

impl LeaderShared {
    /// Tells of something that an operator has to look at.
    fn sound(&self, text: String) {
        self.sound_about(text, None);
    }

    /// The same of a lock, as the client had it that has lost it.
    fn sound_about(&self, text: String, lock: Option<(Name, Token)>) {
        self.teller.tell(LeaderEvent::alarm(&text, lock));
        self.on_alarm.tell(text);
    }

    /// Tells of a change of reign, on a thread where that may block.
    fn note(&self, text: String, epoch: Option<u32>) {
        self.teller.tell(LeaderEvent::reign(text, epoch));
    }

    /// The secret file was looked at again.
    fn reloaded(&self, news: News) {
        match news {
            News::Accepted { accepted, is_new_secret } => {
                if is_new_secret {
                    *self.new_secret.lock() = Some(accepted.secret.clone());
                }
                *self.accepted_anew.lock() = Some(accepted);
                self.bell.ring();
            }
            News::Trouble(LookedFile::Secret, trouble) => self.sound(format!(
                "ALARM: the secret file cannot be read again, and the secrets that were read \
                 before stay in force: {trouble}"
            )),
            News::Trouble(LookedFile::Revoked, trouble) => self.sound(format!(
                "ALARM: the revocation file cannot be read again, and what was revoked before \
                 stays so: {trouble}"
            )),
        }
    }

    fn end(&self, end: ReignEnd) {
        self.end.lock().get_or_insert(end);
        self.ended.notify_all();
        self.step_downs.drop_all();
        #[cfg(feature = "cli")]
        {
            self.looks.drop_all();
            self.wake_at_end();
        }
    }

    #[cfg(feature = "cli")]
    fn wake_at_end(&self) {
        let waker = self.end_waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// For how long a leader that ends waits for callbacks that block.
const TELLING_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
