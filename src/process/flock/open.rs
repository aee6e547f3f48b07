//! An open lock file, and the thread that waits at the kernel's queue for one.

use std::{io, mem, sync::Arc, thread};

use fs4::{FileExt, TryLockError};

use super::{
    LOOK_EVERY, MOST_TURNS,
    directory::FileDirectory,
    life::{allocate, begin_life},
};
use crate::{
    error::LockError,
    fork::{Condvar, Mutex, lock_file::LockFile},
    name::Name,
    process::{
        dir::{
            files::{FileFailure, FileIdentity},
            home::{damaged, failed},
            record,
        },
        sys::{Words, retried, unless_interrupted},
    },
};

/// A file that a thread of its own waits for in the kernel's queue.
pub(super) struct Queued {
    pub(super) state: Mutex<QueuedState>,
    changed: Condvar,
}

pub(super) enum QueuedState {
    Waiting,
    Ended(io::Result<Open>),
    /// The caller does not want it any more.
    Left,
}

impl Queued {
    pub(super) fn start(open: Open) -> Result<Arc<Queued>, LockError> {
        let queued =
            Arc::new(Queued { state: Mutex::new(QueuedState::Waiting), changed: Condvar::new() });
        let waiting = queued.clone();
        let thread = thread::Builder::new().name("tierlock-flock".into());
        let started = thread.spawn(move || {
            let locked = open.lock().map(|()| open);
            let mut state = waiting.state.lock();
            if let QueuedState::Waiting = *state {
                *state = QueuedState::Ended(locked);
                waiting.changed.notify_one();
            }
        });
        started.map_err(|e| failed("cannot start a thread to wait for it", e))?;
        Ok(queued)
    }

    /// The locked file; `None` once the wait `is_over`.
    pub(super) fn wait(&self, is_over: &dyn Fn() -> bool) -> Result<Option<Open>, LockError> {
        let mut state = self.state.lock();
        while let QueuedState::Waiting = *state
            && !is_over()
        {
            self.changed.wait_for(&mut state, LOOK_EVERY);
        }
        match mem::replace(&mut *state, QueuedState::Left) {
            QueuedState::Ended(Ok(open)) => Ok(Some(open)),
            QueuedState::Ended(Err(e)) => Err(failed("cannot lock its file", e)),
            QueuedState::Waiting | QueuedState::Left => Ok(None),
        }
    }
}

/// A lock file as this process has it open.
pub(super) struct Open {
    pub(super) lock: LockFile,
    pub(super) words: Words,
    pub(super) identity: FileIdentity,
    /// The byte that is locked for as long as `lock` or a copy of it is open.
    pub(super) life: u64,
}

impl Open {
    pub(super) fn new(
        directory: &FileDirectory,
        file_name: &str,
        name: &Name,
    ) -> Result<Open, LockError> {
        for _ in 0..MOST_TURNS {
            let lock = LockFile::open(|| directory.open_file(file_name).map_err(FileFailure))
                .map_err(|FileFailure(error)| error)?;
            let mapped = directory.open_file(file_name)?;
            let unseen = |e| failed("cannot look at it", e);
            let identity = FileIdentity::of_file(&mapped).map_err(unseen)?;
            if FileIdentity::of_file(lock.file()).map_err(unseen)? != identity {
                continue;
            }
            allocate(&mapped)?;
            let words = Words::map(&mapped).map_err(|e| failed("cannot map it", e))?;
            record::settle(&words, name).map_err(|what| {
                damaged(format!(
                    "{what}; stop every process that uses the directory and remove the file"
                ))
            })?;
            // The mark in the file may have been lost with the power.
            if let Some(by) = directory.wide.read(&directory.home)?.names.get(name) {
                record::widen(&words, by);
            }
            let life = begin_life(lock.file(), directory.home.trust);
            return Ok(Open { lock, words, identity, life });
        }
        Err(damaged("another program replaces it as often as it is opened: stop that"))
    }

    pub(super) fn try_lock(&self) -> io::Result<bool> {
        loop {
            // By its path: `file.try_lock()` would be std's method since Rust 1.89.
            match FileExt::try_lock(self.lock.file()) {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(e)) => unless_interrupted(e)?,
            }
        }
    }

    pub(super) fn lock(&self) -> io::Result<()> {
        // By its path: `file.lock()` would be std's method since Rust 1.89.
        retried(|| FileExt::lock(self.lock.file()))
    }

    pub(super) fn unlock(&self) -> io::Result<()> {
        retried(|| FileExt::unlock(self.lock.file()))
    }
}

/// A lock that is given back unless it is kept.
pub(super) struct Locked<'a>(pub(super) Option<&'a Open>);

impl Locked<'_> {
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.0 {
            let _ = open.unlock();
        }
    }
}
