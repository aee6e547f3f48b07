//! Process tier.
use crate::{
    error::{Holder, LockError, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};
use std::{path::Path, sync::Arc};

/// How to open a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// File systems accepted although they are not on the list, by the name the system gives them (`nfs`, `fuse`).
    pub(crate) accept_file_systems: Vec<String>,
    /// What others are told about this process.
    pub(crate) label: String,
}

/// A directory of locks, as this process has it open.
#[derive(Clone)]
pub(crate) struct Directory(Arc<()>);

/// What tells one directory from another: device, inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DirectoryKey {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Directory {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Directory, LockError> {
        let _ = (path, options);
        todo!()
    }
    pub(crate) fn key(&self) -> DirectoryKey {
        todo!()
    }
    /// The lock of a name. Fails here, not later, when the disk is full or the file is damaged.
    pub(crate) fn slot(&self, name: &Name) -> Result<Slot, LockError> {
        let _ = name;
        todo!()
    }
    /// Every name in the directory, without disturbing anyone.
    pub(crate) fn survey(&self) -> Result<Vec<NameStatus>, LockError> {
        todo!()
    }
}

/// One name in a directory. This process uses at most one `Slot` per name, and only whoever won the name's thread
/// tier calls the methods that take and let go.
pub(crate) struct Slot {}

/// What the winner is told.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Larger than every token of this name before, and than `above`.
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
    /// The name was locked at host scope by somebody: who, in words. Then the caller must climb too.
    pub(crate) widened_by: Option<String>,
}

impl Slot {
    /// `label` is what others are told about the holder.
    pub(crate) fn try_take(&self, above: Token, label: &str) -> Result<Option<Taken>, LockError> {
        let _ = (above, label);
        todo!()
    }
    /// Blocks; `TimedOut` with the holder at `until`.
    pub(crate) fn take(&self, above: Token, label: &str, until: Time) -> Result<Taken, LockError> {
        let _ = (above, label, until);
        todo!()
    }
    /// Waits without blocking a thread. Dropping the future gives back what it was about to receive.
    pub(crate) async fn take_async(
        &self,
        above: Token,
        label: &str,
        until: Time,
    ) -> Result<Taken, LockError> {
        let _ = (above, label, until);
        todo!()
    }
    /// Raises the stored token to at least this (a host-scope token is written back). Only for the holder.
    pub(crate) fn raise_token(&self, token: Token) {
        let _ = token;
        todo!()
    }
    /// Marks the name as locked at host scope, for good. Only for the holder.
    pub(crate) fn widen(&self, by: &str) {
        let _ = by;
        todo!()
    }
    /// Lets go. In a forked child it touches nothing of the parent's.
    pub(crate) fn release(&self, how: Predecessor) {
        let _ = how;
        todo!()
    }
    /// Who holds it, as far as published.
    pub(crate) fn holder(&self) -> Option<Holder> {
        todo!()
    }
    /// The proof of life of the lock that is held, for a command that is to inherit it (`tierlock run`): a
    /// descriptor without close-on-exec semantics of its own; the lock stays taken until every copy is closed.
    pub(crate) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        todo!()
    }
}

/// A name as `status` shows it.
#[derive(Clone, Debug)]
pub(crate) struct NameStatus {
    pub(crate) name: Name,
    pub(crate) token: Token,
    /// `None`: free.
    pub(crate) holder: Option<Holder>,
    pub(crate) predecessor: Predecessor,
    pub(crate) widened_by: Option<String>,
}
