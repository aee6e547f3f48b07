//! Process tier: exclusion between the processes of one machine that use the same directory.
//!
//! This page is the interface; behind it stands an engine, which the directory's `format` names.
//! There are no mutexes here and no threads that wait in line: at most one thread of a process
//! comes down from the thread tier per name.

mod checkup;
mod file;
mod files;
mod filesystem;
mod forked;
mod home;
mod leader;
mod names;
mod record;
mod sys;
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
))]
mod table;
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
)))]
#[path = "no_table.rs"]
mod table;
#[cfg(test)]
mod tests;
mod turns;

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    error::{Holder, LockError, Predecessor},
    name::Name,
    time::Time,
    token::Token,
    watch::Watch,
};

#[cfg(feature = "cli")]
pub(crate) use self::checkup::{Finding, Level, examine};
use self::home::Home;
#[cfg(feature = "testing")]
pub use self::table::parts;
pub(crate) use forked::PerFork;
#[cfg(test)]
pub(crate) use sys::testing::fork;
pub(crate) use turns::{Turn, TurnFile};

/// How many forks lie between the first process that opened a directory and this one.
#[inline]
pub(crate) fn fork_generation() -> u64 {
    sys::generation()
}

/// How to open a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Which engine is to be used. `None`: the one that the directory is in, or the best one of
    /// this system.
    pub(crate) engine: Option<EngineKind>,
    /// File systems accepted although they are not on the list, by the name the system gives
    /// them (`nfs`, `fuse`).
    pub(crate) accept_file_systems: Vec<String>,
    /// What others are told about this process, where a taker says nothing.
    pub(crate) label: String,
}

/// The engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    File,
    Table,
}

/// A directory of locks, as this process has it open.
#[derive(Clone)]
pub(crate) struct Directory(Engine<Arc<file::Directory>, Arc<table::Directory>>);

/// Which engine it is, and what it has here.
#[derive(Clone)]
enum Engine<File, Table> {
    File(File),
    Table(Table),
}

/// What tells one directory from another: device, inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DirectoryKey {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Directory {
    /// Opens the directory, making it (not the one above it) if it is missing.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Directory, LockError> {
        let home = Home::open(path, &options.accept_file_systems)?;
        let engine = match options.engine {
            Some(engine) => engine,
            None => engine_of(&home)?,
        };
        Ok(Directory(match engine {
            EngineKind::File => Engine::File(Arc::new(file::Directory::open(home, options)?)),
            EngineKind::Table => Engine::Table(Arc::new(table::Directory::open(home, options)?)),
        }))
    }

    pub(crate) fn key(&self) -> DirectoryKey {
        match &self.0 {
            Engine::File(directory) => directory.key(),
            Engine::Table(directory) => directory.key(),
        }
    }

    /// What its processes have seen of their leader, in the words of whoever wrote it.
    pub(crate) fn read_leader(&self) -> Option<String> {
        self.home().read_leader()
    }

    /// Has that said to those who come later. Best effort.
    pub(crate) fn write_leader(&self, line: &str) {
        let _ = self.home().write_leader(line);
    }

    /// What locks in it cannot promise, in words for people.
    pub(crate) fn caveat(&self) -> Option<String> {
        self.home().caveat()
    }

    fn home(&self) -> &Home {
        match &self.0 {
            Engine::File(directory) => directory.home(),
            Engine::Table(directory) => directory.home(),
        }
    }

    /// The lock of a name. Fails here, not later, when the disk is full or the file is damaged.
    pub(crate) fn slot(&self, name: &Name) -> Result<Slot, LockError> {
        Ok(Slot(match &self.0 {
            Engine::File(directory) => Engine::File(directory.slot(name)?),
            Engine::Table(directory) => Engine::Table(directory.slot(name)?),
        }))
    }

    /// Takes the name away from the holder of exactly this token, who is told: the next one can
    /// have it at once, with a larger token.
    pub(crate) fn break_lock(&self, name: &Name, token: Token) -> Result<(), Unbroken> {
        match &self.0 {
            Engine::File(directory) => directory.break_lock(name, token),
            Engine::Table(directory) => directory.break_lock(name, token),
        }
    }

    /// Every name in the directory, without disturbing anyone. Leaves out what
    /// [`inspect`](Directory::inspect) finds fault with.
    pub(crate) fn survey(&self) -> Result<Vec<NameStatus>, LockError> {
        Ok(self.inspect()?.into_iter().flatten().collect())
    }

    /// Every name in the directory or what is wrong with it, without disturbing anyone.
    pub(crate) fn inspect(&self) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
        match &self.0 {
            Engine::File(directory) => directory.inspect(),
            Engine::Table(directory) => directory.inspect(),
        }
    }
}

/// Whether anybody has used the directory yet. Makes nothing; a directory that is not there is an
/// error.
#[cfg(feature = "cli")]
pub(crate) fn is_in_use(path: &Path) -> Result<bool, LockError> {
    Ok(Home::find(path)?.read_format()?.is_some())
}

/// The engine of a directory that nobody chose one for.
fn engine_of(home: &Home) -> Result<EngineKind, LockError> {
    let format = home.read_format()?;
    let is_file = format.is_some_and(|format| format.trim_end() == file::FORMAT);
    Ok(if is_file || !table::IS_HERE { EngineKind::File } else { EngineKind::Table })
}

/// One name in a directory. This process uses at most one `Slot` per name, and only whoever won
/// the name's thread tier calls the methods that take and let go.
pub(crate) struct Slot(Engine<file::Slot, table::Slot>);

/// What the winner is told.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Larger than every token of this name before, and than `above`.
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
    /// The name was locked at host scope by somebody: who, in words. Then the caller must climb
    /// too.
    pub(crate) widened_by: Option<String>,
}

/// Why nothing was taken from anybody.
#[derive(Debug)]
pub(crate) enum Unbroken {
    /// Nobody holds it.
    Free,
    /// Its holder has another token.
    HeldBy(Holder),
    /// The engine cannot: its holder's process is to be ended instead.
    NotHere(Holder),
    Failed(LockError),
}

impl Slot {
    /// `label` is what others are told about the holder, where the engine tells it by lock and
    /// not by process.
    #[inline]
    pub(crate) fn try_take(&self, above: Token, label: &str) -> Result<Option<Taken>, LockError> {
        match &self.0 {
            Engine::File(slot) => slot.try_take(above, label),
            Engine::Table(slot) => slot.try_take(above),
        }
    }

    /// Blocks; `TimedOut` with the holder at `until`.
    #[inline]
    pub(crate) fn take(&self, above: Token, label: &str, until: Time) -> Result<Taken, LockError> {
        match &self.0 {
            Engine::File(slot) => slot.take(above, label, until),
            Engine::Table(slot) => slot.take(above, until),
        }
    }

    /// Waits without blocking a thread. Dropping the future gives back what it was about to
    /// receive.
    pub(crate) async fn take_async(
        &self,
        above: Token,
        label: &str,
        until: Time,
    ) -> Result<Taken, LockError> {
        match &self.0 {
            Engine::File(slot) => slot.take_async(above, label, until).await,
            Engine::Table(slot) => slot.take_async(above, until).await,
        }
    }

    /// Where it is for the process of this fork generation, which must be the caller's. `None`:
    /// it has to be looked up, or the engine has no quiet way.
    #[inline]
    pub(crate) fn place(&self, generation: u64) -> Option<Place<'_>> {
        match &self.0 {
            Engine::Table(slot) => slot.near(generation).map(Place),
            // A system call costs more than a second attempt.
            Engine::File(_) => None,
        }
    }

    /// Raises the stored token to at least this (a host-scope token is written back). Only for
    /// the holder.
    pub(crate) fn raise_token(&self, token: Token) {
        match &self.0 {
            Engine::File(slot) => slot.raise_token(token),
            Engine::Table(slot) => slot.raise_token(token),
        }
    }

    /// Marks the name as locked at host scope, for good. Only for the holder.
    pub(crate) fn widen(&self, by: &str) {
        match &self.0 {
            Engine::File(slot) => slot.widen(by),
            Engine::Table(slot) => slot.widen(by),
        }
    }

    /// Has the lock stay taken until then, also when its holder leaves or dies before; `None` ends
    /// that. Only for the holder, before its caller runs. The file-lock engine remembers nothing.
    pub(crate) fn keep_until(&self, end: Option<Time>) {
        match &self.0 {
            Engine::File(_) => {}
            Engine::Table(slot) => slot.keep_until(end),
        }
    }

    /// Whether another process waits for it, as far as that is known. Only for the holder.
    #[inline]
    pub(crate) fn is_waited_for(&self) -> bool {
        match &self.0 {
            // The kernel's queue is not to be seen.
            Engine::File(_) => false,
            Engine::Table(slot) => slot.is_waited_for(),
        }
    }

    /// Whether a wait may stand that it goes to when it is let go of, before any newcomer. Only for
    /// the holder.
    #[inline]
    pub(crate) fn has_heir(&self) -> bool {
        match &self.0 {
            Engine::File(_) => false,
            Engine::Table(slot) => slot.has_heir(),
        }
    }

    /// Whether the lock that is held was taken away. Only for the holder.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        match &self.0 {
            Engine::File(_) => false,
            Engine::Table(_) => false,
        }
    }

    /// What tells the holder that the lock is taken away, until it lets go: `known`, if that tells
    /// of other losses. `None` if it cannot be. Only for the holder.
    pub(crate) fn watch(&self, known: Option<Arc<Watch>>) -> Option<Arc<Watch>> {
        match &self.0 {
            Engine::File(_) => known,
            Engine::Table(_) => known,
        }
    }

    /// Lets go. In a forked child it touches nothing of the parent's.
    #[inline]
    pub(crate) fn release(&self, how: Predecessor) {
        match &self.0 {
            Engine::File(slot) => slot.release(how),
            Engine::Table(slot) => slot.release(how),
        }
    }

    /// Who holds it, as far as published.
    pub(crate) fn holder(&self) -> Option<Holder> {
        match &self.0 {
            Engine::File(slot) => slot.holder(),
            Engine::Table(slot) => slot.holder(),
        }
    }

    /// The proof of life of the lock that is held, for a command that is to inherit it
    /// (`tierlock run`): the lock stays taken until every copy of the descriptor is closed, also
    /// after `release` and after this process.
    ///
    /// It has close-on-exec set, which the caller clears in the child only, between fork and
    /// exec; any other fork while the caller has it keeps a copy too.
    pub(crate) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        match &self.0 {
            Engine::File(slot) => slot.proof_of_life(),
            Engine::Table(slot) => slot.proof_of_life(),
        }
    }
}

/// Where a slot is, found before the tier below is won: a quiet lock then is one compare-and-swap
/// and a quiet release another, with nothing to look up in between.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a>(table::Near<'a>);

impl Place<'_> {
    /// Takes the slot where nothing stands in the way and the name `is_wide`, locked at host scope,
    /// as said: its token. `None` leaves it as it was.
    #[inline]
    pub(crate) fn take(self, above: Token, is_wide: bool) -> Option<Token> {
        self.0.take(above, is_wide)
    }

    /// Lets go of it, clean. Whether the name `is_wide` is only a guess.
    #[inline]
    pub(crate) fn release(self, is_wide: bool) {
        self.0.release(is_wide);
    }

    /// The same, by one read-modify-write and nothing else, if nobody waits or wants to be told;
    /// whether it did.
    #[inline]
    pub(crate) fn release_if_quiet(self, is_wide: bool) -> bool {
        self.0.release_if_quiet(is_wide)
    }
}

/// A name as `status` shows it.
#[derive(Clone, Debug)]
pub(crate) struct NameStatus {
    pub(crate) name: Name,
    pub(crate) token: Token,
    /// `None`: free.
    pub(crate) holder: Option<Holder>,
    /// While it is held, how the one before the holder left.
    pub(crate) predecessor: Predecessor,
    pub(crate) widened_by: Option<String>,
    /// Who waits, as far as they say so.
    pub(crate) waiters: Vec<WaiterStatus>,
}

/// Somebody who waits for a name.
#[derive(Clone, Debug)]
pub(crate) struct WaiterStatus {
    pub(crate) who: Holder,
    pub(crate) waiting: Duration,
}
