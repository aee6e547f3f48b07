//! The one error, and the words for how a lock was lost or left.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write as _},
    io,
    sync::Arc,
    time::Duration,
};

use crate::{
    name::Name,
    printable::{Escaping, Printable, in_words, shortened},
    scope::Scope,
    token::Token,
};

/// Why a lock could not be taken, built, checked or given back.
///
/// Callers branch on [`kind`](LockError::kind) or on the predicates; people read the text, which
/// names the holder where it is known, and says what to do next. It is one pointer wide, and the
/// error of a plain failed `try_lock` allocates nothing.
///
/// # Example
/// ```
/// use tierlock::{LockErrorKind, Mutex};
///
/// let job = Mutex::new(());
/// let _running = job.lock()?;
/// let error = job.try_lock().unwrap_err();
/// assert_eq!(error.kind(), LockErrorKind::WouldBlock);
/// assert!(error.is_contended() && error.is_retryable());
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone)]
pub struct LockError(Option<Box<ErrorParts>>);

/// The result of a lock operation.
pub type Result<T, E = LockError> = std::result::Result<T, E>;

#[derive(Clone)]
struct ErrorParts {
    kind: LockErrorKind,
    message: Cow<'static, str>,
    name: Option<Name>,
    scope: Option<Scope>,
    waited: Option<Duration>,
    contention: Contention,
    holder: Option<Box<Holder>>,
    ahead: Option<u32>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What is known of a holder in the way, if the kind says that one may have been.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contention {
    Named,
    /// It was waited for what may come to be free without a holder that was in the way: for reports that a
    /// leader waits for, or for another caller's question.
    Possible,
    /// No leader had answered.
    Unanswered,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockErrorKind {
    /// Another holder has it, and the call was not to wait.
    WouldBlock,
    /// The time to wait was over: another holder had it all the time, or no leader answered in
    /// time ([`is_contended`](LockError::is_contended) tells which).
    TimedOut,
    /// It waited for what cannot come: the holders wait, one for the next, for what this caller holds. The
    /// text names them. Give up what is held, and begin anew. Only leaders find deadlocks: see the guide's
    /// [page on guarantees](crate::guide::guarantees#deadlocks).
    Deadlock,
    /// No leader answered within `connect_timeout`; or within the call's own limit, if by then
    /// nothing listened at any leader's address or no leader was heard for 1 s. A try that another caller
    /// of its process is before, with a question of which that is so, is told at once.
    Unreachable,
    /// It was held, and is no longer: see [`LostReason`].
    Lost,
    /// The leader or the system refused it: a wrong secret, a limit, a permission.
    Refused,
    /// What was asked for does not fit the settings: an invalid name, a scope out of reach.
    Config,
    /// Files are not what they should be: foreign, broken, replaced, removed.
    Damaged,
    /// The operating system failed a call.
    Io,
}

impl LockError {
    /// Another holder has it: the error that allocates nothing.
    pub(crate) const WOULD_BLOCK: LockError = LockError(None);

    pub(crate) fn new(kind: LockErrorKind, message: impl Into<Cow<'static, str>>) -> LockError {
        LockError(Some(Box::new(ErrorParts {
            kind,
            message: message.into(),
            name: None,
            scope: None,
            waited: None,
            contention: Contention::Named,
            holder: None,
            ahead: None,
            source: None,
        })))
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> LockError {
        LockError::new(LockErrorKind::Config, message)
    }

    /// Another holder had the lock for as long as the call was to wait.
    pub(crate) fn timed_out(waited: Duration) -> LockError {
        LockError::new(LockErrorKind::TimedOut, TIMED_OUT).with_waited(waited)
    }

    /// It is taken, and perhaps by no other holder: why, in words.
    pub(crate) fn perhaps_taken(why: &'static str) -> LockError {
        LockError::new(LockErrorKind::WouldBlock, why).without_holder(true)
    }

    /// Another caller was before it with the same question, and nothing is known of a holder; `answered` if
    /// the lock service had answered that.
    pub(crate) fn timed_out_behind(waited: Duration, answered: bool) -> LockError {
        let text = if answered { BEHIND_CALLER } else { BEHIND_UNANSWERED };
        LockError::new(LockErrorKind::TimedOut, text).with_waited(waited).without_holder(answered)
    }

    /// Another caller of this process was before it, and is about to have the lock.
    pub(crate) fn timed_out_beside(waited: Duration) -> LockError {
        LockError::new(LockErrorKind::TimedOut, ASKED_IN_PROCESS).with_waited(waited)
    }

    /// The same; the holder is in this process, and `is_own` says that it is the calling thread.
    pub(crate) fn timed_out_here(waited: Duration, is_own: bool) -> LockError {
        let text = if is_own { HELD_BY_CALLER } else { HELD_IN_PROCESS };
        LockError::new(LockErrorKind::TimedOut, text).with_waited(waited)
    }

    pub(crate) fn lost(reason: LostReason) -> LockError {
        LockError::new(LockErrorKind::Lost, reason.as_str())
    }

    fn inner_mut(&mut self) -> &mut ErrorParts {
        self.0.get_or_insert_with(|| {
            Box::new(ErrorParts {
                kind: LockErrorKind::WouldBlock,
                message: Cow::Borrowed(WOULD_BLOCK),
                name: None,
                scope: None,
                waited: None,
                contention: Contention::Named,
                holder: None,
                ahead: None,
                source: None,
            })
        })
    }

    /// Adds the name, unless one is there.
    pub(crate) fn with_name(mut self, name: &Name) -> LockError {
        self.inner_mut().name.get_or_insert_with(|| name.clone());
        self
    }

    /// Adds the scope, unless one is there.
    pub(crate) fn with_scope(mut self, scope: Scope) -> LockError {
        self.inner_mut().scope.get_or_insert(scope);
        self
    }

    pub(crate) fn with_waited(mut self, waited: Duration) -> LockError {
        self.inner_mut().waited = Some(waited);
        self
    }

    /// Nothing says that another has it: the time was over, and no leader had named a holder; `answered` if
    /// one had answered.
    pub(crate) fn without_holder(mut self, answered: bool) -> LockError {
        let contention = if answered { Contention::Possible } else { Contention::Unanswered };
        self.inner_mut().contention = contention;
        self
    }

    /// The time was over before a leader answered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.contention == Contention::Unanswered)
    }

    /// Adds the holder, unless that is known already.
    pub(crate) fn with_holder(mut self, holder: Option<Holder>) -> LockError {
        if let Some(holder) = holder {
            self.inner_mut().holder.get_or_insert_with(|| Box::new(holder));
        }
        self
    }

    /// Adds how many waiters stood before it, if that is known.
    pub(crate) fn with_waiters_ahead(mut self, ahead: Option<usize>) -> LockError {
        if let Some(ahead) = ahead {
            let most = AHEAD_MAX as usize;
            self.inner_mut().ahead.get_or_insert(ahead.min(most) as u32);
        }
        self
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> LockError {
        self.inner_mut().source = Some(Arc::from(source.into()));
        self
    }

    /// Adds what may be behind it.
    pub(crate) fn with_hint(mut self, hint: &str) -> LockError {
        let inner = self.inner_mut();
        inner.message = Cow::Owned(format!("{}; {hint}", inner.message));
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> LockErrorKind {
        self.0.as_ref().map_or(LockErrorKind::WouldBlock, |inner| inner.kind)
    }

    /// The lock's name, where one is concerned and known.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref()?.name.as_deref()
    }

    /// The scope at which it went wrong, where known.
    pub fn scope(&self) -> Option<Scope> {
        self.0.as_ref()?.scope
    }

    /// How long the call had waited, where it did.
    pub fn waited(&self) -> Option<Duration> {
        self.0.as_ref()?.waited
    }

    /// The holder of the lock, where known.
    ///
    /// # Example
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use std::time::Duration;
    /// use tierlock::LockManager;
    ///
    /// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    /// let elsewhere = locks.in_memory_peer();
    /// let running = elsewhere.mutex("job", ()).lock()?;
    /// let error = locks.mutex("job", ()).try_lock_for(Duration::from_millis(20)).unwrap_err();
    /// if let Some(holder) = error.holder() {
    ///     println!("{} on {} has it", holder.label, holder.host);
    /// }
    /// # drop(running);
    /// # }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn holder(&self) -> Option<&Holder> {
        self.0.as_ref()?.holder.as_deref()
    }

    /// How many waiters stood before the call when its time was over; 0: it was the next. At most 100 are
    /// counted.
    ///
    /// It is known of what ends with [`TimedOut`](LockErrorKind::TimedOut), as far as what it waited at
    /// can tell:
    ///
    /// - at thread scope, the threads and tasks that came before it;
    /// - at process scope, besides those of its own process the processes that came before it; not with
    ///   the file-lock engine, where the kernel orders them;
    /// - at host scope, the requests that its leader had before it. A call that stood behind others of its
    ///   own process counts those alone, for only the first of them has asked the leader. Lock services of
    ///   other kinds do not tell.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use tierlock::Mutex;
    ///
    /// let job = Mutex::new(());
    /// let _running = job.lock()?;
    /// let error = job.try_lock_for(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error.waiters_ahead(), Some(0)); // with more time it would have been the next
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn waiters_ahead(&self) -> Option<u32> {
        self.0.as_ref()?.ahead
    }

    /// Another holder has the lock: `Deadlock`; `TimedOut`, unless the time was over before a leader named
    /// the holder; and `WouldBlock`, unless a leader has yet to find out whether there is one.
    ///
    /// A caller that stands behind another of its own process is told what that one's question has brought.
    /// If no leader answers that, nothing says that the lock is held, and this is false; after a second of
    /// silence the error is [`Unreachable`](LockErrorKind::Unreachable), also of a try. Beside a question
    /// that is on its way it is true: that caller is about to have the lock.
    pub fn is_contended(&self) -> bool {
        let is_known = self.0.as_ref().is_none_or(|inner| inner.contention == Contention::Named);
        let is_taken = matches!(
            self.kind(),
            LockErrorKind::WouldBlock | LockErrorKind::TimedOut | LockErrorKind::Deadlock
        );
        is_known && is_taken
    }

    /// The time to wait was over.
    pub fn is_timeout(&self) -> bool {
        self.kind() == LockErrorKind::TimedOut
    }

    /// The lock was held and is lost.
    pub fn is_lost(&self) -> bool {
        self.kind() == LockErrorKind::Lost
    }

    /// No leader answered; the lock may be free or held.
    pub fn is_unreachable(&self) -> bool {
        self.kind() == LockErrorKind::Unreachable
    }

    /// Trying again later may succeed without a change of settings: after `Deadlock` once what this caller
    /// holds is given back, and not before.
    ///
    /// # Example
    /// ```
    /// use tierlock::Mutex;
    ///
    /// let job = Mutex::new(());
    /// let running = job.lock()?;
    /// assert!(job.try_lock().unwrap_err().is_retryable());
    /// drop(running);
    /// let error = job.escalate(tierlock::Scope::Host).unwrap_err(); // `Config`: it has no name
    /// assert!(!error.is_retryable());
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            LockErrorKind::WouldBlock
                | LockErrorKind::TimedOut
                | LockErrorKind::Deadlock
                | LockErrorKind::Unreachable
                | LockErrorKind::Lost
        )
    }
}

/// So many waiters are counted that stood before one that gave up. Counting holds up the queue, and a crowd
/// that gives up at once counts once for each of it.
pub(crate) const AHEAD_MAX: u32 = 100;

const WOULD_BLOCK: &str = "another holder has it";
const TIMED_OUT: &str = "another holder had it all the time";
const HELD_IN_PROCESS: &str = "a thread or task of this process had it all the time";
const BEHIND_CALLER: &str = "another caller of this machine was before it, and no holder is known";
const BEHIND_UNANSWERED: &str =
    "another caller of this process was before it, and the lock service has not answered that";
const ASKED_IN_PROCESS: &str =
    "another caller of this process was before it, on its way to the lock";
const HELD_BY_CALLER: &str = "the calling thread itself has it, and a lock is not reentrant";

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(inner) = &self.0 else {
            return write!(f, "the lock is taken: {WOULD_BLOCK}");
        };
        let has_subject = inner.scope.is_some() || inner.name.is_some();
        match (inner.scope, &inner.name) {
            (Some(scope), Some(name)) => write!(f, "{scope} lock {name:?}")?,
            (None, Some(name)) => write!(f, "lock {name:?}")?,
            (Some(scope), None) => write!(f, "{scope} lock")?,
            (None, None) => {}
        }
        // Its holder says all that these do.
        let holder_says_it = [WOULD_BLOCK, TIMED_OUT].contains(&&*inner.message);
        match inner.holder.as_deref().filter(|_| holder_says_it && has_subject) {
            Some(holder) => write!(f, " is held by {holder}")?,
            None => {
                f.write_str(if has_subject { ": " } else { "" })?;
                // A message may quote what another process calls itself, and what a caller gave.
                Escaping(&mut *f).write_str(&shortened(&inner.message))?;
                if let Some(holder) = &inner.holder {
                    write!(f, "; held by {holder}")?;
                }
            }
        }
        if let Some(waited) = inner.waited {
            write!(f, "; gave up after {}", in_words(waited))?;
        }
        match inner.ahead {
            None => Ok(()),
            Some(0) => f.write_str("; no waiter stood before it"),
            Some(1) => f.write_str("; 1 waiter stood before it"),
            Some(AHEAD_MAX) => write!(f, "; {AHEAD_MAX} waiters or more stood before it"),
            Some(ahead) => write!(f, "; {ahead} waiters stood before it"),
        }
    }
}

impl fmt::Debug for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockError")
            .field("kind", &self.kind())
            .field("text", &format_args!("{self}"))
            .field("source", &self.source().map(ToString::to_string))
            .finish()
    }
}

/// Equal if they say the same, their sources included.
impl PartialEq for LockError {
    fn eq(&self, other: &LockError) -> bool {
        let (Some(own), Some(others)) = (&self.0, &other.0) else {
            return self.kind() == other.kind() && self.to_string() == other.to_string();
        };
        let texts = |inner: &ErrorParts| inner.source.as_ref().map(ToString::to_string);
        let ErrorParts { kind, message, name, scope, waited, contention, holder, ahead, source: _ } =
            &**own;
        *kind == others.kind
            && *message == others.message
            && *name == others.name
            && *scope == others.scope
            && *waited == others.waited
            && *contention == others.contention
            && *holder == others.holder
            && *ahead == others.ahead
            && texts(own) == texts(others)
    }
}

impl From<LockError> for io::Error {
    /// With the kind that is nearest; what the operating system said keeps its own. The
    /// `LockError` is the source.
    fn from(error: LockError) -> io::Error {
        let kind = match error.kind() {
            LockErrorKind::WouldBlock => io::ErrorKind::WouldBlock,
            LockErrorKind::TimedOut => io::ErrorKind::TimedOut,
            LockErrorKind::Deadlock => io::ErrorKind::Deadlock,
            LockErrorKind::Unreachable => io::ErrorKind::NotConnected,
            LockErrorKind::Refused => io::ErrorKind::PermissionDenied,
            LockErrorKind::Config => io::ErrorKind::InvalidInput,
            LockErrorKind::Damaged => io::ErrorKind::InvalidData,
            LockErrorKind::Lost => io::ErrorKind::Other,
            LockErrorKind::Io => {
                let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
                source.map_or(io::ErrorKind::Other, io::Error::kind)
            }
        };
        io::Error::new(kind, error)
    }
}

impl Error for LockError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.0.as_ref()?.source.as_deref() {
            Some(source) => Some(source),
            None => None,
        }
    }
}

/// The holder of a lock, as far as it described itself: for people, never for decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The label of its manager; empty if it gave none.
    pub label: String,
    /// Its manager has proved the label to the leader, by a `Credential`; else it is what the manager
    /// claims.
    pub label_is_proved: bool,
    /// It is what the manager claims, at a leader that knows proved ones: people are told so.
    pub(crate) claims_label: bool,
    /// The name of its machine.
    pub host: String,
    /// Its process id on that machine (in its own PID namespace).
    pub pid: Option<u32>,
    /// What it runs: its program's name, or the whole command where `tierlock run --show-command` was
    /// to show it.
    pub command: String,
    /// For how long it has held the lock, at least.
    pub held: Option<Duration>,
    /// `held` counts from the grant, and not from when the holder was first seen.
    pub(crate) held_since_grant: bool,
    /// Its token, where the caller may know it.
    pub token: Option<Token>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [self.label.as_str(), self.command.as_str()];
        let name = names.into_iter().find(|text| !text.is_empty()).unwrap_or("a process");
        write!(f, "{}", Printable(name))?;
        if self.claims_label && !self.label.is_empty() {
            f.write_str(", as it claims,")?;
        }
        if !self.host.is_empty() {
            write!(f, " on {}", Printable(&self.host))?;
        }
        let pid = self.pid.map(|pid| format!("pid {pid}"));
        let details: Vec<String> = pid.into_iter().chain(self.held_in_words()).collect();
        if !details.is_empty() {
            write!(f, " ({})", details.join(", "))?;
        }
        Ok(())
    }
}

impl Holder {
    /// `1.0 s so far`, if anything is known of that.
    fn held_in_words(&self) -> Option<String> {
        let held = self.held?;
        match self.held_since_grant {
            true => Some(format!("{} so far", in_words(held))),
            // It is seen for the first time.
            false if held.is_zero() => None,
            false => Some(format!("at least {}", in_words(held))),
        }
    }
}

/// How a lock was lost while a guard held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum LostReason {
    /// The lease's deadline passed before the leader confirmed a renewal.
    Expired = 1,
    /// The lock was held for as long as its `at_most` allows.
    HeldTooLong = 2,
    /// An operator took it away.
    Broken = 3,
    /// The leader does not know this holder (any more): it restarted without its memory, or
    /// ended the session.
    Forgotten = 4,
    /// A test asked for it (feature `testing`).
    Provoked = 5,
    /// This process is a fork of the one that holds it: the lock stayed with the parent.
    Forked = 6,
}

impl LostReason {
    /// The one stored as `reason as u8`; `None` for 0.
    pub(crate) const fn from_u8(value: u8) -> Option<LostReason> {
        match value {
            0 => None,
            1 => Some(LostReason::Expired),
            2 => Some(LostReason::HeldTooLong),
            3 => Some(LostReason::Broken),
            4 => Some(LostReason::Forgotten),
            6 => Some(LostReason::Forked),
            _ => Some(LostReason::Provoked),
        }
    }

    /// What happened, in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            LostReason::Expired => "lost: its deadline passed without a confirmed renewal",
            LostReason::HeldTooLong => "lost: it was held for as long as at_most allows",
            LostReason::Broken => "lost: an operator broke it",
            LostReason::Forgotten => "lost: the leader does not know this holder any more",
            LostReason::Provoked => "lost: a test asked for it",
            LostReason::Forked => {
                "lost: this process is a fork, and the lock stayed with its parent"
            }
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How the previous holder of a lock left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Predecessor {
    /// It released the lock in good order, or there was none.
    #[default]
    Clean = 0,
    /// It released the lock while panicking: what the lock protects may be half done.
    Panicked = 1,
    /// Its process died while holding.
    Died = 2,
    /// Its lease ran out, or it held for longer than its `at_most`.
    Expired = 3,
    /// An operator took the lock away from it.
    Broken = 4,
}

impl Predecessor {
    /// The lower-case word, as the command line and the JSON use it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Predecessor::Clean => "clean",
            Predecessor::Panicked => "panicked",
            Predecessor::Died => "died",
            Predecessor::Expired => "expired",
            Predecessor::Broken => "broken",
        }
    }

    /// The one stored as `predecessor as u8`; anything unknown counts as `Died`.
    pub(crate) const fn from_u8(value: u8) -> Predecessor {
        match value {
            0 => Predecessor::Clean,
            1 => Predecessor::Panicked,
            3 => Predecessor::Expired,
            4 => Predecessor::Broken,
            _ => Predecessor::Died,
        }
    }
}

impl fmt::Display for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests;
