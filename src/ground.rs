//! The ground that names stand on: what all locks of one name in this process share, and how far
//! a manager reaches from it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering::*},
    },
    time::Duration,
};

use parking_lot::Mutex;

#[cfg(feature = "process")]
pub(crate) use crate::process::Place;
#[cfg(feature = "process")]
use crate::process::{Directory, DirectoryKey, PerFork, Slot, fork_generation};
use crate::{
    alarm,
    error::{Holder, LockError, Predecessor, Result},
    host::{
        lease_word::LeaseWord,
        service::{LeaseService, ReleaseOrder},
    },
    identity::{cut, this_process},
    name::Name,
    scope::Scope,
    thread::ThreadLock,
    token::Token,
};

/// The names of one directory, or of one manager without a directory, in this process.
///
/// Managers of one directory share it, so that one process is one competitor there, however many
/// managers it opens.
pub(crate) struct Ground {
    pub(crate) below_host: BelowHost,
    names: Mutex<Names>,
}

/// What stands between the thread tier and the lease.
pub(crate) enum BelowHost {
    /// Nothing: process scope is out of reach.
    Nothing,
    #[cfg(feature = "process")]
    Directory(Directory),
    /// A process of its own, pretended in memory: the thread tier is enough.
    #[cfg(feature = "testing")]
    Memory,
}

#[derive(Default)]
struct Names {
    entries: HashMap<Name, Weak<Entry>>,
    /// The highest token of forgotten names: a name seen anew starts above it.
    floor: Token,
    /// How forgotten names were left, where that was not `Clean`.
    unclean: HashMap<Name, Predecessor>,
    /// Names that this process widened, which holds for good.
    widened: HashMap<Name, Scope>,
}

/// How many names left uncleanly are remembered when nobody uses them any more.
const UNCLEAN_MAX: usize = 65_536;

/// One name in this process: its thread tier, and its slot in the directory.
pub(crate) struct Entry {
    pub(crate) name: Name,
    thread: ThreadLock,
    /// The thread tiers of forked children: each generation has one of its own, since a thread of
    /// the parent may have held this one at the fork and will never let it go in the child.
    #[cfg(feature = "process")]
    after_fork: AfterFork,
    /// The widest scope at which this process has locked it.
    widest: AtomicU8,
    #[cfg(feature = "process")]
    slot: std::sync::OnceLock<Slot>,
    /// The name's lease words, one for each manager that has built a mutex of it.
    words: Mutex<Vec<WordOf>>,
    ground: Arc<Ground>,
}

/// A service, and the word of the name's leases of it.
type WordOf = (Weak<dyn LeaseService>, Arc<LeaseWord>);

/// The thread tier of one generation, and those of its children's.
#[cfg(feature = "process")]
#[derive(Default)]
struct AfterFork {
    /// The generation that made the entry, or this link.
    generation: u64,
    next: std::sync::OnceLock<Box<(ThreadLock, AfterFork)>>,
}

/// There are no slots where there is no process scope.
#[cfg(not(feature = "process"))]
#[derive(Clone, Copy)]
pub(crate) struct Place<'a>(&'a std::convert::Infallible);

#[cfg(not(feature = "process"))]
impl Place<'_> {
    pub(crate) fn take(self, _: Token, _: bool) -> Option<Token> {
        match *self.0 {}
    }

    pub(crate) fn release(self, _: bool) {
        match *self.0 {}
    }

    pub(crate) fn release_if_quiet(self, _: bool) -> bool {
        match *self.0 {}
    }
}

/// The grounds of this process. A child has a list of its own: a thread of its parent may have held
/// this one's lock at the fork, and is not there to let go.
#[cfg(feature = "process")]
static GROUNDS: PerFork<Mutex<Grounds>> = PerFork::of_the_first(Mutex::new(Vec::new()));

#[cfg(feature = "process")]
type Grounds = Vec<(DirectoryKey, Weak<Ground>)>;

impl Ground {
    pub(crate) fn new(below_host: BelowHost) -> Arc<Ground> {
        Arc::new(Ground { below_host, names: Mutex::default() })
    }

    /// The one ground of this directory in this process.
    #[cfg(feature = "process")]
    pub(crate) fn of(directory: Directory) -> Arc<Ground> {
        let key = directory.key();
        let mut grounds = GROUNDS.here(Mutex::default).lock();
        grounds.retain(|(_, ground)| ground.strong_count() > 0);
        let known = grounds.iter().find(|(known, _)| *known == key);
        if let Some(ground) = known.and_then(|(_, ground)| ground.upgrade()) {
            return ground;
        }
        let ground = Ground::new(BelowHost::Directory(directory));
        grounds.push((key, Arc::downgrade(&ground)));
        ground
    }

    #[cfg(feature = "process")]
    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.below_host {
            BelowHost::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn reaches_processes(&self) -> bool {
        !matches!(self.below_host, BelowHost::Nothing)
    }

    /// The entry of a name, made if nobody in this process uses the name just now.
    pub(crate) fn entry(self: &Arc<Self>, name: &Name) -> Arc<Entry> {
        let mut names = loop {
            let names = self.names.lock();
            match names.entries.get(name).map(Weak::upgrade) {
                Some(Some(entry)) => return entry,
                None => break names,
                // Another thread is dropping it, and has yet to note its tokens and how it was
                // left: whoever made the name anew now would begin below them.
                Some(None) => drop(names),
            }
            std::thread::yield_now();
        };
        let thread = ThreadLock::new();
        let left = names.unclean.remove(name).unwrap_or_default();
        if names.floor > Token::ZERO || left != Predecessor::Clean {
            raise(&thread, names.floor, left);
        }
        let entry = Arc::new(Entry {
            name: name.clone(),
            thread,
            #[cfg(feature = "process")]
            after_fork: AfterFork { generation: fork_generation(), ..AfterFork::default() },
            widest: AtomicU8::new(names.widened.get(name).map_or(0, |scope| *scope as u8)),
            #[cfg(feature = "process")]
            slot: std::sync::OnceLock::new(),
            words: Mutex::default(),
            ground: self.clone(),
        });
        names.entries.insert(name.clone(), Arc::downgrade(&entry));
        entry
    }
}

impl Drop for Entry {
    /// Forgets the name without forgetting its tokens, nor how it was left.
    fn drop(&mut self) {
        self.give_leases_back();
        // A guard that was forgotten holds it still; its token counts all the same.
        let token = self.thread().last_token();
        let left = self.thread().try_take();
        let mut names = self.ground.names.lock();
        // Nobody makes the name anew before this.
        names.entries.remove(&self.name);
        names.floor = names.floor.max(token);
        if let Some(left) = left
            && left.predecessor != Predecessor::Clean
            // A slot tells it, to whichever process comes next.
            && !self.has_slot()
            && names.unclean.len() < UNCLEAN_MAX
        {
            names.unclean.insert(self.name.clone(), left.predecessor);
        }
    }
}

impl Entry {
    /// This process's thread tier of the name.
    #[inline]
    pub(crate) fn thread(&self) -> &ThreadLock {
        self.thread_in(generation())
    }

    /// The same, for who knows in which fork generation this process is.
    #[inline]
    pub(crate) fn thread_in(&self, generation: u64) -> &ThreadLock {
        #[cfg(feature = "process")]
        if self.after_fork.generation != generation {
            return self.thread_after_fork();
        }
        let _ = generation;
        &self.thread
    }

    #[cfg(feature = "process")]
    #[cold]
    fn thread_after_fork(&self) -> &ThreadLock {
        let generation = fork_generation();
        let (mut thread, mut link) = (&self.thread, &self.after_fork);
        while link.generation != generation {
            let floor = thread.last_token();
            let next = link.next.get_or_init(|| {
                let thread = ThreadLock::new();
                raise(&thread, floor, Predecessor::Clean);
                Box::new((thread, AfterFork { generation, ..AfterFork::default() }))
            });
            (thread, link) = (&next.0, &next.1);
        }
        thread
    }

    /// Opens what a lock at this scope needs, so that a full disk or a damaged file is an error
    /// now and not at the first lock.
    pub(crate) fn prepare(&self, scope: Scope) -> Result<()> {
        #[cfg(feature = "process")]
        if scope > Scope::Thread
            && let Some(directory) = self.ground.directory()
            && self.slot.get().is_none()
        {
            // Two at once would open it twice; the second is closed again, unused.
            let _ = self.slot.set(directory.slot(&self.name)?);
        }
        let _ = scope;
        Ok(())
    }

    #[cfg(feature = "process")]
    #[inline]
    pub(crate) fn slot(&self) -> Option<&Slot> {
        self.slot.get()
    }

    /// Where its slot is for the process of this fork generation, the caller's, if it has one.
    /// `None`: it has one, which is to be looked up.
    #[cfg(feature = "process")]
    #[inline]
    pub(crate) fn place(&self, generation: u64) -> Option<Option<Place<'_>>> {
        match self.slot() {
            Some(slot) => slot.place(generation).map(Some),
            None => Some(None),
        }
    }

    #[cfg(not(feature = "process"))]
    pub(crate) fn place(&self, _: u64) -> Option<Option<Place<'_>>> {
        Some(None)
    }

    /// Raises its slot's token, if it has a slot. Only for whoever holds that.
    #[cold]
    pub(crate) fn raise_slot(&self, token: Token) {
        #[cfg(feature = "process")]
        if let Some(slot) = self.slot() {
            slot.raise_token(token);
        }
        let _ = token;
    }

    /// Lets go of its slot, clean, if it has one.
    #[cold]
    pub(crate) fn release_slot(&self) {
        #[cfg(feature = "process")]
        if let Some(slot) = self.slot() {
            slot.release(Predecessor::Clean);
        }
    }

    fn has_slot(&self) -> bool {
        #[cfg(feature = "process")]
        return self.slot.get().is_some();
        #[cfg(not(feature = "process"))]
        false
    }

    /// The word of this name's leases of that service. Each manager has its own, and the service
    /// excludes between them.
    pub(crate) fn lease_word(&self, service: &Arc<dyn LeaseService>) -> Arc<LeaseWord> {
        let mut words = self.words.lock();
        words.retain(|(service, _)| service.strong_count() > 0);
        let is_its = |known: &Weak<_>| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(service));
        if let Some((_, word)) = words.iter().find(|(known, _)| is_its(known)) {
            return word.clone();
        }
        let word = Arc::new(LeaseWord::of(service.deadline().clone(), service.made_in()));
        words.push((Arc::downgrade(service), word.clone()));
        word
    }

    /// No mutex of the name is left in this process: its leases go back.
    fn give_leases_back(&mut self) {
        for (service, word) in self.words.get_mut() {
            if let Some(service) = service.upgrade()
                && let Some(used) = service.retire(word)
            {
                service.give_back(word, &used, ReleaseOrder::Usual);
            }
        }
    }

    /// The widest scope at which this process has locked the name.
    #[inline]
    pub(crate) fn widest(&self) -> Scope {
        Scope::from_u8(self.widest.load(Relaxed))
    }

    /// Keeps the name as wide as it is, also when nobody in this process uses it any more. Only
    /// for whoever holds it.
    pub(crate) fn stay_wide(&self) {
        self.ground.names.lock().widened.insert(self.name.clone(), self.widest());
    }

    /// Marks the name as locked at `scope`. Only for whoever holds it.
    #[inline]
    pub(crate) fn widen(&self, scope: Scope) {
        if self.widest.load(Relaxed) < scope as u8 {
            self.widest.store(scope as u8, Relaxed);
        }
    }
}

/// In which fork generation this process is: a forked child has a higher one.
#[inline]
pub(crate) fn generation() -> u64 {
    #[cfg(feature = "process")]
    return fork_generation();
    #[cfg(not(feature = "process"))]
    0
}

/// What differs between a process and its forked child: the generation where that is known.
#[cfg(any(feature = "host", feature = "testing"))]
pub(crate) fn fork_mark() -> u64 {
    #[cfg(feature = "process")]
    return fork_generation();
    #[cfg(not(feature = "process"))]
    std::process::id().into()
}

/// Has a new thread tier begin above `floor`, as if somebody had left it so.
fn raise(thread: &ThreadLock, floor: Token, left: Predecessor) {
    let _ = thread.try_take();
    thread.raise_token(floor);
    thread.release(left);
}

/// How far a manager reaches, and who it says it is.
pub(crate) struct Reach {
    pub(crate) ground: Arc<Ground>,
    pub(crate) label: String,
    /// What grants its leases, if it reaches other hosts.
    pub(crate) service: Option<Arc<dyn LeaseService>>,
    /// The same, for questions about locks that others hold.
    #[cfg(any(feature = "host", feature = "testing"))]
    pub(crate) link: Option<Arc<crate::host::link::Link>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) closed: AtomicBool,
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
                 TIERLOCK_SECRET_FILE)"
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
            true => Err(LockError::config("its manager was closed")),
        }
    }

    pub(crate) fn service(&self) -> Result<&Arc<dyn LeaseService>> {
        self.check(Scope::Host)?;
        self.service.as_ref().ok_or_else(|| LockError::config("this manager has no leader"))
    }

    /// This process, as others see it.
    pub(crate) fn myself(&self) -> Holder {
        let identity = this_process();
        Holder {
            label: self.label.clone(),
            host: identity.host.clone(),
            pid: Some(std::process::id()),
            command: cut(&identity.command, COMMAND_MAX).to_owned(),
            held: None,
            token: None,
        }
    }

    /// This process in words, as somebody who widened a name.
    #[cfg(feature = "process")]
    pub(crate) fn described(&self) -> String {
        self.myself().to_string()
    }

    /// Takes no more locks above thread scope, says goodbye to the leader, and waits until that is
    /// sent, at most for [`GOODBYE`].
    pub(crate) fn close(&self) {
        self.close_within(GOODBYE);
    }

    pub(crate) fn close_within(&self, wait: Duration) {
        self.closed.store(true, Relaxed);
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
        self.close_within(if alarm::is_here() { Duration::ZERO } else { GOODBYE });
    }
}

#[cfg(all(test, feature = "process"))]
mod tests {
    use std::time::Instant;

    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    use super::*;
    use crate::process::{Options, fork};

    #[test]
    fn a_child_forked_while_a_thread_looks_for_a_ground_finds_its_own() {
        let files = tempfile::tempdir().unwrap();
        let directory = Directory::open(files.path(), &Options::default()).unwrap();
        let looking = GROUNDS.here(Mutex::default).lock();
        let Some(child) = fork() else {
            std::mem::forget(Ground::of(directory));
            std::process::exit(0);
        };
        let child = Pid::from_raw(child).unwrap();
        let begin = Instant::now();
        let status = loop {
            if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
                break status;
            }
            if begin.elapsed() > Duration::from_secs(60) {
                kill_process(child, Signal::KILL).unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        drop(looking);
        assert_eq!(status.exit_status(), Some(0), "{status:?}");
    }
}
