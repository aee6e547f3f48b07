//! The file-lock engine: one file per name, a `flock` for exclusion, a mapped counter for tokens.
//!
//! The kernel's lock on the open file description decides, and nothing else does: it ends with
//! the process, however that ends, and stopping a process does not end it. Everything written in
//! the file is either protected by that lock (token, how the last holder left, the widened mark)
//! or a hint for people (its holder). There is no hand-over here and no fairness beyond the
//! kernel's: waits with a limit, and async ones, look every 2 ms.
//!
//! **Two descriptions per file.** The one that is locked is never mapped: a mapping would keep
//! it, and so the lock, alive in every forked child, whatever becomes of the descriptor.
//!
//! **A look disturbs no holder and no waiter.** A probe with a `flock`, even a shared one, makes
//! another process's try fail, and a prober stopped at the wrong moment does so for ever. So each
//! locked description also has a byte of its own, far behind the file's end, locked with
//! `F_OFD_SETLK` for as long as it is open. The holder writes that byte's number into the file; a
//! prober that wants to know whether the holder lives asks `F_OFD_GETLK`, which takes nothing. File
//! systems that were accepted on request get no such byte (NFS makes both kinds of lock one) and
//! nor do other systems than Linux: there the file is believed, and a killed holder is shown
//! until the next holder.
//!
//! **Tokens** survive crashes of processes, not of the machine: the mapping is not synced.

#[cfg(any(feature = "cli", test))]
mod checkup;
mod directory;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod holding;
mod life;
mod open;
mod readers;

use std::{fs::File, path::PathBuf, sync::Arc, thread, time::Duration};

use rustix::io::Errno;

use crate::{
    alarm, clock,
    error::{Holder, LockError, LockErrorKind, Predecessor},
    filesystem::Trust,
    fork::{Mutex, MutexGuard, PerFork},
    name::Name,
    scope::Scope,
    time::Time,
    token::Token,
};

pub(super) use self::directory::{FileDirectory, no_permits};
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(super) use self::holding::holding;
#[cfg(test)]
pub(super) use self::life::allocate;
#[cfg(any(feature = "cli", test))]
pub(super) use self::{checkup::examine, readers::READERS};
use self::{
    directory::open_locks,
    life::{is_alive, no_token},
    open::{Locked, Open, Queued},
    readers::SharedFile,
};
use super::{
    Taken,
    dir::{
        births::Birth,
        files::FileIdentity,
        home::{damaged, failed},
        record,
    },
};

/// What `DIR/format` says.
pub(super) const FORMAT: &str = "tierlock file-lock 1";
pub(super) const LOCKS: &str = "locks";
/// The longest pause between two looks.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_micros(1_900);
const FIRST_PAUSE: Duration = Duration::from_micros(50);
/// A wait without limit that has lasted so long goes on in the kernel's queue.
const QUEUE_AFTER: Duration = Duration::from_millis(10);
/// How often such a wait looks whether it is over, and any wait at a lock that has no holder and
/// that `at_least` keeps taken.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often a file may vanish under a caller before it is an error.
const MOST_TURNS: u32 = 100;
/// Life bytes lie at and above this, where no file has any.
const FIRST_LIFE: u64 = 1 << 62;
/// Stands for a holder that has no life byte.
const NO_LIFE: u64 = 1;

/// The lock of one name.
pub(super) struct FileSlot {
    directory: Arc<FileDirectory>,
    name: Name,
    file_name: String,
    path: PathBuf,
    life: PerFork<Life>,
}

/// A slot's descriptors in one process.
struct Life {
    pid: u32,
    birth: Option<Birth>,
    state: Mutex<FileState>,
}

#[derive(Default)]
struct FileState {
    open: Option<Arc<Open>>,
    held: bool,
    /// A descriptor of the lock was given out: each process that has it keeps the lock.
    proof_given: bool,
    readers: SharedFile,
    /// What a file knew that was deleted under us.
    known: Token,
    known_widened: Option<String>,
}

impl Life {
    fn new() -> Life {
        let (pid, birth) = (std::process::id(), Birth::of_this_process());
        Life { pid, birth, state: Mutex::default() }
    }
}

impl FileSlot {
    pub(super) fn try_take(&self, above: Token, label: &str) -> Result<Option<Taken>, LockError> {
        self.try_take_unnamed(above, label).map_err(|error| self.about(error))
    }

    pub(super) fn take(
        &self,
        above: Token,
        label: &str,
        until: Time,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Taken, LockError> {
        let begin = clock::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(taken) = self.try_take(above, label)? {
                return Ok(taken);
            }
            let now = clock::now();
            if now >= until || is_over() {
                return Err(self.timed_out(begin, now));
            }
            let stays_for = self.stays_for();
            if until == Time::NEVER && now.since(begin) >= QUEUE_AFTER && stays_for.is_none() {
                let taken = self.take_in_queue(above, label, is_over);
                if let Some(taken) = taken.map_err(|error| self.about(error))? {
                    return Ok(taken);
                }
            } else {
                thread::sleep(pause_of(pause, stays_for).min(until.since(now)));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Waits in the kernel's queue; `None` once the wait `is_over`, and if the lock stays taken
    /// without a holder.
    ///
    /// Nothing ends a sleep there but the lock. So it is a thread's that has nothing else to do,
    /// on a description of its own: left behind it closes that as soon as it has the lock.
    fn take_in_queue(
        &self,
        above: Token,
        label: &str,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Option<Taken>, LockError> {
        let life = self.life();
        for _ in 0..MOST_TURNS {
            let open = Open::new(&self.directory, &self.file_name, &self.name)?;
            let Some(open) = Queued::start(open)?.wait(is_over)? else { return Ok(None) };
            let open = Arc::new(open);
            life.state.lock().open = Some(open.clone());
            match self.enter_locked(life, &open, above, label)? {
                FileLocking::Entered(taken) => return Ok(Some(taken)),
                FileLocking::Stays => return Ok(None),
                FileLocking::Moved => {}
            }
        }
        Err(damaged("another program replaces its file as often as it is opened: stop that"))
    }

    /// Takes the lock and returns in one poll, so that a dropped future never has it.
    pub(super) async fn take_async(
        &self,
        above: Token,
        label: &str,
        until: Time,
    ) -> Result<Taken, LockError> {
        let begin = clock::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(taken) = self.try_take(above, label)? {
                return Ok(taken);
            }
            let now = clock::now();
            if now >= until {
                return Err(self.timed_out(begin, now));
            }
            alarm::sleep_until((now + pause_of(pause, self.stays_for())).min(until)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A file lock of a network file system is released by its server, as far as is known.
    pub(super) fn may_block(&self) -> bool {
        self.directory.home.trust != Trust::Known
    }

    pub(super) fn raise_token(&self, token: Token) {
        self.if_held(|open| {
            if record::token(&open.words).is_some_and(|stored| stored < token) {
                record::set_token(&open.words, token);
            }
        });
    }

    /// Has the lock stay taken until then, whatever becomes of its holder.
    pub(super) fn keep_until(&self, end: Option<Time>) {
        self.if_held(|open| record::keep_until(&open.words, end));
    }

    /// Ends the stay of `at_least` that the hold with this token left; whether there was one.
    #[cfg(all(feature = "cli", target_os = "linux"))]
    pub(super) fn end_stay(&self, token: Token) -> Result<bool, LockError> {
        let open = self.opened(self.life())?;
        let mut looks = 0;
        while !open.try_lock().map_err(|e| self.about(failed("cannot lock its file", e)))? {
            // A process that only tries has it for a moment.
            looks += 1;
            if looks > MOST_TURNS {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _locked = Locked(Some(&open));
        let is_its = self.is_in_place(&open)?
            && record::stays_for(&open.words).is_some()
            && record::token(&open.words) == Some(token);
        if is_its {
            record::keep_until(&open.words, None);
        }
        Ok(is_its)
    }

    /// For how long `at_least` keeps it taken, as far as the file that is open says.
    fn stays_for(&self) -> Option<Duration> {
        let open = self.life.so_far()?.state.lock().open.clone()?;
        record::stays_for(&open.words)
    }

    /// The last token that was granted. Only for the holder.
    pub(super) fn last_token(&self) -> Token {
        let mut last = Token::ZERO;
        self.if_held(|open| last = record::token(&open.words).unwrap_or_default());
        last
    }

    pub(super) fn widen(&self, by: &str) -> Result<(), LockError> {
        let mut noted = Ok(());
        self.if_held(|open| {
            if record::widened_by(&open.words).is_none() {
                noted = self.directory.home.append_wide(&self.name, by);
                if noted.is_ok() {
                    record::widen(&open.words, by);
                }
            }
        });
        noted.map_err(|error| self.named(error))
    }

    pub(super) fn release(&self, how: Predecessor) {
        let Some(life) = self.life.so_far() else { return };
        let mut state = life.state.lock();
        if !std::mem::take(&mut state.held) {
            return;
        }
        let Some(open) = state.open.clone() else { return };
        let proof_given = std::mem::take(&mut state.proof_given);
        record::set_readable(&open.words, false);
        state.readers.end_exclusion();
        record::leave(&open.words, how, proof_given);
        if proof_given || open.unlock().is_err() {
            // Closing our descriptor leaves the lock to the others, if there are any.
            state.open = None;
        }
    }

    pub(super) fn is_wide(&self) -> bool {
        self.opened(self.life()).is_ok_and(|open| record::widened_by(&open.words).is_some())
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        let open = self.opened(self.life()).ok()?;
        let life = record::held_by(&open.words)?;
        let mine = life == open.life && life != NO_LIFE;
        let held = mine || is_alive(open.lock.file(), life);
        held.then(|| record::holder(&open.words, || record::sequence(&open.words)))
    }

    pub(super) fn is_held_here(&self) -> bool {
        self.life.so_far().is_some_and(|life| life.state.lock().held)
    }

    /// The descriptor has close-on-exec set; a caller that passes it on clears that in the child.
    #[cfg(any(feature = "cli", test))]
    pub(super) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        use std::{io, os::fd::AsFd};
        let not_held = || io::Error::other("the lock is not held");
        let life = self.life.so_far().ok_or_else(not_held)?;
        let mut state = life.state.lock();
        let open = state.open.as_ref().filter(|_| state.held).ok_or_else(not_held)?;
        let proof = open.lock.file().as_fd().try_clone_to_owned()?;
        state.proof_given = true;
        Ok(proof)
    }

    fn try_take_unnamed(&self, above: Token, label: &str) -> Result<Option<Taken>, LockError> {
        let life = self.life();
        for _ in 0..MOST_TURNS {
            let open = self.opened(life)?;
            // Where it stays, a try in vain makes none fail that comes right after the end.
            if record::stays_for(&open.words).is_some() && self.is_in_place(&open)? {
                return Ok(None);
            }
            let locked = open.try_lock();
            if !locked.map_err(|e| failed("cannot lock its file", e))? {
                return Ok(None);
            }
            match self.enter_locked(life, &open, above, label)? {
                FileLocking::Entered(taken) => return Ok(Some(taken)),
                FileLocking::Stays => return Ok(None),
                FileLocking::Moved => {}
            }
        }
        Err(damaged("another program replaces its file as often as it is opened: stop that"))
    }

    /// Enters with the locked file, or releases it.
    fn enter_locked(
        &self,
        life: &Life,
        open: &Arc<Open>,
        above: Token,
        label: &str,
    ) -> Result<FileLocking, LockError> {
        let locked = Locked(Some(open));
        if self.is_in_place(open)? {
            if record::stays_for(&open.words).is_some() {
                return Ok(FileLocking::Stays);
            }
            let taken = self.enter(life, open, above, label)?;
            locked.keep();
            return Ok(FileLocking::Entered(taken));
        }
        // filelock#574, jj#8729: the lock of a deleted file excludes no process.
        let mut state = life.state.lock();
        state.known = state.known.max(record::token(&open.words).unwrap_or_default());
        state.known_widened = record::widened_by(&open.words).or(state.known_widened.take());
        state.open = None;
        Ok(FileLocking::Moved)
    }

    fn enter(
        &self,
        life: &Life,
        open: &Open,
        above: Token,
        label: &str,
    ) -> Result<Taken, LockError> {
        let mut state = life.state.lock();
        let stored = record::token(&open.words).ok_or_else(no_token)?;
        if let Some(by) = state.known_widened.take() {
            record::widen(&open.words, &by);
        }
        let widened_by = record::widened_by(&open.words);
        let last = stored.max(state.known);
        let exhausted = || {
            LockError::new(
                LockErrorKind::Refused,
                "its tokens are exhausted: all below 2^63 were granted; choose another name",
            )
        };
        // Of a wide name the service counts the tokens.
        let token = match widened_by {
            Some(_) => last,
            None => last.max(above).next().ok_or_else(exhausted)?,
        };
        let predecessor = record::left(&open.words);
        let label = if label.is_empty() { &self.directory.label } else { label };
        let taker = record::Taker { pid: life.pid, birth: life.birth, label };
        // Of a holder that died, perhaps: a writer looks for readers after this.
        record::set_readable(&open.words, false);
        record::enter(&open.words, token, open.life, taker);
        state.held = true;
        Ok(Taken { token, predecessor, widened_by })
    }

    /// Whether the path still leads to the file that is locked.
    fn is_in_place(&self, open: &Open) -> Result<bool, LockError> {
        let found = match rustix::fs::lstat(&self.path) {
            Err(Errno::ACCESS) => rustix::fs::statat(
                &self.directory.locks,
                &self.file_name,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            ),
            found => found,
        };
        match found {
            Ok(found) if FileIdentity::of(&found) == open.identity => Ok(true),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => self.check_directory().map(|()| false),
            Err(e) => Err(failed("cannot look at its file", e.into())),
        }
    }

    fn check_directory(&self) -> Result<(), LockError> {
        self.directory.home.check()?;
        let now = FileIdentity::of_file(&File::from(open_locks(&self.directory.home)?));
        let ours = rustix::fs::fstat(&self.directory.locks).map(|found| FileIdentity::of(&found));
        match (now, ours) {
            (Ok(now), Ok(ours)) if now == ours => Ok(()),
            (Err(e), _) => Err(self.directory.home.failed("cannot look at its locks", e)),
            (_, Err(e)) => Err(self.directory.home.failed("cannot look at its locks", e.into())),
            _ => Err(self.directory.home.about(damaged(
                "its directory of lock files was replaced while this process used it; restart \
                 every process that uses it",
            ))),
        }
    }

    fn timed_out(&self, begin: Time, now: Time) -> LockError {
        let waited = now.since(begin);
        match self.is_wide() {
            // What has the file of a wide name is on its way to a lease: it waits like this one, and nothing
            // says that the lease is another's.
            true => self.named(LockError::timed_out_behind(waited, true)),
            false => self.named(LockError::timed_out(waited)).with_holder(self.holder()),
        }
    }

    /// `error` is about this lock; where the text does not say so, about its file.
    fn about(&self, error: LockError) -> LockError {
        use std::error::Error;
        let about_directory = error.source().is_some_and(|source| source.is::<LockError>());
        let about_name = error.kind() == LockErrorKind::Refused && error.source().is_none();
        if about_directory || about_name {
            return self.named(error);
        }
        self.named(self.directory.about_file(&self.file_name, error))
    }

    fn named(&self, error: LockError) -> LockError {
        error.with_name(&self.name).with_scope(Scope::Process)
    }

    fn if_held(&self, act: impl FnOnce(&Open)) {
        let Some(life) = self.life.so_far() else { return };
        let state = life.state.lock();
        if let (true, Some(open)) = (state.held, &state.open) {
            act(open);
        }
    }

    /// What this process has of it.
    fn state(&self) -> MutexGuard<'_, FileState> {
        self.life().state.lock()
    }

    /// The life of this process, begun if need be.
    fn life(&self) -> &Life {
        self.life.here(Life::new)
    }

    fn opened(&self, life: &Life) -> Result<Arc<Open>, LockError> {
        let mut state = life.state.lock();
        if let Some(open) = &state.open {
            return Ok(open.clone());
        }
        let open = Arc::new(Open::new(&self.directory, &self.file_name, &self.name)?);
        state.open = Some(open.clone());
        Ok(open)
    }
}

/// What came of locking a name's file.
enum FileLocking {
    Entered(Taken),
    /// `at_least` keeps the lock taken, though it has no holder.
    Stays,
    /// The file is not in place any more.
    Moved,
}

/// How long to wait for the next look, at a lock that has a holder or that `at_least` keeps.
fn pause_of(pause: Duration, stays_for: Option<Duration>) -> Duration {
    stays_for.map_or(pause, |left| left.min(LOOK_EVERY))
}
