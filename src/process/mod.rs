//! Process tier: exclusion between the processes of one machine that use the same directory.
//!
//! This page is the interface; behind it stands an engine, which the directory's `format` names.
//! There are no mutexes here and no threads that wait in line: at most one thread of a process
//! comes down from the thread tier per name.

mod file;
mod files;
mod filesystem;
mod home;
mod names;
mod record;
mod sys;
#[cfg(all(target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
mod table;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use crate::{
    error::{Holder, LockError, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

/// How many forks lie between the first process that opened a directory and this one.
#[inline]
pub(crate) fn fork_generation() -> u64 {
    sys::generation()
}

/// How to open a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// File systems accepted although they are not on the list, by the name the system gives
    /// them (`nfs`, `fuse`).
    pub(crate) accept_file_systems: Vec<String>,
    /// What others are told about this process, where a taker says nothing.
    pub(crate) label: String,
}

/// A directory of locks, as this process has it open.
#[derive(Clone)]
pub(crate) struct Directory(Engine<Arc<file::Directory>>);

/// Which engine it is, and what it has here.
#[derive(Clone)]
enum Engine<File> {
    File(File),
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
        let directory = file::Directory::open(path, options)?;
        Ok(Directory(Engine::File(Arc::new(directory))))
    }

    pub(crate) fn key(&self) -> DirectoryKey {
        let Engine::File(directory) = &self.0;
        directory.key()
    }

    /// The lock of a name. Fails here, not later, when the disk is full or the file is damaged.
    pub(crate) fn slot(&self, name: &Name) -> Result<Slot, LockError> {
        let Engine::File(directory) = &self.0;
        Ok(Slot(Engine::File(directory.slot(name)?)))
    }

    /// Every name in the directory, without disturbing anyone. Leaves out what
    /// [`inspect`](Directory::inspect) finds fault with.
    pub(crate) fn survey(&self) -> Result<Vec<NameStatus>, LockError> {
        Ok(self.inspect()?.into_iter().flatten().collect())
    }

    /// Every name in the directory or what is wrong with it, without disturbing anyone.
    pub(crate) fn inspect(&self) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
        let Engine::File(directory) = &self.0;
        directory.inspect()
    }
}

/// One name in a directory. This process uses at most one `Slot` per name, and only whoever won
/// the name's thread tier calls the methods that take and let go.
pub(crate) struct Slot(Engine<file::Slot>);

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

impl Slot {
    /// `label` is what others are told about the holder.
    pub(crate) fn try_take(&self, above: Token, label: &str) -> Result<Option<Taken>, LockError> {
        let Engine::File(slot) = &self.0;
        slot.try_take(above, label)
    }

    /// Blocks; `TimedOut` with the holder at `until`.
    pub(crate) fn take(&self, above: Token, label: &str, until: Time) -> Result<Taken, LockError> {
        let Engine::File(slot) = &self.0;
        slot.take(above, label, until)
    }

    /// Waits without blocking a thread. Dropping the future gives back what it was about to
    /// receive.
    pub(crate) async fn take_async(
        &self,
        above: Token,
        label: &str,
        until: Time,
    ) -> Result<Taken, LockError> {
        let Engine::File(slot) = &self.0;
        slot.take_async(above, label, until).await
    }

    /// Raises the stored token to at least this (a host-scope token is written back). Only for
    /// the holder.
    pub(crate) fn raise_token(&self, token: Token) {
        let Engine::File(slot) = &self.0;
        slot.raise_token(token);
    }

    /// Marks the name as locked at host scope, for good. Only for the holder.
    pub(crate) fn widen(&self, by: &str) {
        let Engine::File(slot) = &self.0;
        slot.widen(by);
    }

    /// Lets go. In a forked child it touches nothing of the parent's.
    pub(crate) fn release(&self, how: Predecessor) {
        let Engine::File(slot) = &self.0;
        slot.release(how);
    }

    /// Who holds it, as far as published.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let Engine::File(slot) = &self.0;
        slot.holder()
    }

    /// The proof of life of the lock that is held, for a command that is to inherit it
    /// (`tierlock run`): the lock stays taken until every copy of the descriptor is closed, also
    /// after `release` and after this process.
    ///
    /// It has close-on-exec set, which the caller clears in the child only, between fork and
    /// exec; any other fork while the caller has it keeps a copy too.
    pub(crate) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        let Engine::File(slot) = &self.0;
        slot.proof_of_life()
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
}
