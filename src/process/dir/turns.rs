//! One file that the processes of a machine use in turn.
//!
//! It is locked whole by the kernel, so a turn ends with its process, however that ends. It knows
//! nothing of what stands in the file.
//!
//! Each turn opens the file anew: so threads of one process exclude each other as processes do, a
//! forked child inherits no turn, and a file that was deleted or replaced is noticed.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use fs4::{FileExt, TryLockError};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};

use super::{
    files::{FileIdentity, cannot_open},
    home::{SAFELY, damaged, failed},
};
use crate::{
    error::LockError,
    filesystem,
    fork::lock_file::LockFile,
    process::sys::{retried, unless_interrupted},
};

/// The file, as this process found it.
pub(crate) struct TurnFile {
    /// Absolute, its symbolic links not resolved.
    path: PathBuf,
    identity: FileIdentity,
}

/// The file's lock: while this exists, no other process has it.
pub(crate) struct FileTurn(LockFile);

/// How often a file may come and go under a caller before that is an error.
const MOST_TRIES: u32 = 100;

impl TurnFile {
    /// Opens the file; makes it, empty and for this user alone (0600), if it is missing. One that
    /// is there keeps its mode, which says which users may use it.
    pub(crate) fn open(path: &Path) -> Result<TurnFile, LockError> {
        let path = std::path::absolute(path).map_err(|e| failed("its path is invalid", e))?;
        let file = open_or_make(&path)?;
        let metadata = file.metadata().map_err(|e| failed("cannot look at it", e))?;
        if !metadata.is_file() {
            return Err(damaged("it is not a regular file"));
        }
        if let Err(names) = filesystem::known(filesystem::kind_of(&file)) {
            return Err(LockError::config(format!(
                "it is on the file system {:?}, which is not trusted with locks; choose a place \
                 on a local one (ext4, xfs, btrfs, f2fs, bcachefs, zfs, tmpfs, overlay)",
                names[0]
            )));
        }
        let identity = FileIdentity::of_file(&file).map_err(|e| failed("cannot look at it", e))?;
        Ok(TurnFile { path, identity })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for its turn, without limit.
    pub(crate) fn take(&self) -> Result<FileTurn, LockError> {
        let lock = self.lock_file()?;
        // By its path: `file.lock()` would be std's method since Rust 1.89.
        retried(|| FileExt::lock(lock.file())).map_err(cannot_lock)?;
        self.found_in_place(lock)
    }

    /// `None` if it is another process's turn.
    pub(crate) fn try_take(&self) -> Result<Option<FileTurn>, LockError> {
        let lock = self.lock_file()?;
        loop {
            match FileExt::try_lock(lock.file()) {
                Ok(()) => return self.found_in_place(lock).map(Some),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => unless_interrupted(e).map_err(cannot_lock)?,
            }
        }
    }

    fn lock_file(&self) -> Result<LockFile, LockError> {
        let opened = LockFile::open(|| Ok::<_, io::Error>(File::from(open(&self.path)?)));
        opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => self.removed(),
            Some(errno) => cannot_open(errno),
            None => failed("cannot guard it against forks", error),
        })
    }

    /// filelock#574: the lock of a file that lost its name excludes no process.
    fn found_in_place(&self, lock: LockFile) -> Result<FileTurn, LockError> {
        let ours =
            FileIdentity::of_file(lock.file()).map_err(|e| failed("cannot look at it", e))?;
        let there = match rustix::fs::lstat(&self.path) {
            Ok(found) => FileIdentity::of(&found),
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(self.removed()),
            Err(e) => return Err(failed("cannot look at it", e.into())),
        };
        if ours != self.identity || there != self.identity {
            return Err(damaged(
                "it was replaced by another file while this process used it; a process that opens \
                 it now knows nothing of what went before: restart every process that uses it",
            ));
        }
        Ok(FileTurn(lock))
    }

    fn removed(&self) -> LockError {
        damaged(
            "it was removed while this process used it; a process that makes it again knows \
             nothing of what went before: restart every process that uses it",
        )
    }
}

impl Drop for FileTurn {
    fn drop(&mut self) {
        // A child made by `vfork` has a copy of the descriptor until it executes another program: closing ours
        // would leave the turn to it until then.
        let _ = retried(|| FileExt::unlock(self.0.file()));
    }
}

impl FileTurn {
    pub(crate) fn file(&self) -> &File {
        self.0.file()
    }
}

fn open_or_make(path: &Path) -> Result<File, LockError> {
    for _ in 0..MOST_TRIES {
        match open(path) {
            Ok(file) => return Ok(file.into()),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(cannot_open(error)),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | SAFELY;
        match rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(made) => {
                sync_directory(path)?;
                return Ok(made.into());
            }
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => {
                return Err(LockError::config(
                    "the directory above it does not exist; make that one first",
                ));
            }
            Err(error) => return Err(failed("cannot make it", error.into())),
        }
    }
    Err(damaged("another program removes it as often as it is made: stop that"))
}

fn open(path: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::RDWR | SAFELY, Mode::empty())
}

/// The name of a file that was made is to survive a power failure, too.
fn sync_directory(path: &Path) -> Result<(), LockError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, directory, flags, Mode::empty());
    let synced = opened.and_then(|directory| rustix::fs::fsync(directory.as_fd()));
    synced.map_err(|e| failed("cannot sync the directory that it is in", e.into()))
}

fn cannot_lock(error: io::Error) -> LockError {
    failed("cannot lock it", error)
}
