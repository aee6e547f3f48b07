//! A directory of lock files: what is in it, and how its files are made.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{
    FORMAT, FileSlot, LOCKS, Life, MOST_TURNS,
    life::{is_alive, no_token, regular_length},
};
use crate::{
    error::LockError,
    fork::PerFork,
    mode::Usage,
    name::Name,
    process::{
        DirectoryKey, NameStatus, Options,
        dir::{
            files::{FileIdentity, cannot_open},
            home::{Home, Made, SAFELY, damaged, failed},
            names, record,
            wide::WideNames,
        },
        sys::BYTES,
    },
    scope::Scope,
};

/// A directory in this engine's format.
pub(in crate::process) struct FileDirectory {
    pub(super) home: Home,
    pub(super) locks: OwnedFd,
    pub(super) locks_path: PathBuf,
    pub(super) label: String,
    /// What of `DIR/wide` was read.
    pub(super) wide: WideNames,
}

impl FileDirectory {
    pub(in crate::process) fn open(
        home: Home,
        options: &Options,
    ) -> Result<FileDirectory, LockError> {
        home.settle(FORMAT, || prepare(&home))?;
        let locks = open_locks(&home)?;
        let directory = FileDirectory {
            locks_path: home.path.join(LOCKS),
            home,
            locks,
            label: options.label.clone(),
            wide: WideNames::default(),
        };
        directory.home.make_wide(|| directory.wide_names())?;
        Ok(directory)
    }

    /// The names of host scope of a directory from before they were noted.
    fn wide_names(&self) -> Result<Vec<(Name, String)>, LockError> {
        let all = self.inspect()?.into_iter().flatten();
        Ok(all.filter_map(|status| Some((status.name, status.widened_by?))).collect())
    }

    pub(in crate::process) fn home(&self) -> &Home {
        &self.home
    }

    pub(in crate::process) fn key(&self) -> DirectoryKey {
        self.home.key
    }

    /// The lock of this name; an error for permits.
    pub(in crate::process) fn slot_for(
        self: &Arc<Self>,
        name: &Name,
        usage: Usage,
    ) -> Result<FileSlot, LockError> {
        if usage != Usage::Lock {
            return Err(no_permits().with_name(name).with_scope(Scope::Process));
        }
        let file_name = names::file_name(name);
        let slot = FileSlot {
            path: self.locks_path.join(&file_name),
            file_name,
            name: name.clone(),
            directory: self.clone(),
            life: PerFork::new(Life::new()),
        };
        // If the file is not in place any more, taking it will tell; here only the directory counts.
        let in_place = slot.opened(slot.life()).and_then(|open| slot.is_in_place(&open));
        in_place.map_err(|error| slot.about(error))?;
        Ok(slot)
    }

    /// Every lock file: the name's status, or what is wrong with the file.
    pub(in crate::process) fn inspect(
        &self,
    ) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
        let unreadable = |e: Errno| self.home.failed("cannot list its locks", e.into());
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.locks).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let file_name = entry.file_name().to_string_lossy();
            if !file_name.starts_with('.') {
                found.extend(self.inspect_one(&file_name).transpose());
            }
        }
        Ok(found)
    }

    fn inspect_one(&self, file_name: &str) -> Result<Option<NameStatus>, LockError> {
        let about = |error| self.about_file(file_name, error);
        let flags = OFlags::RDONLY | SAFELY;
        let file = match rustix::fs::openat(&self.locks, file_name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(about(cannot_open(e))),
        };
        if regular_length(&file).map_err(about)? == 0 {
            return Ok(None);
        }
        let mut bytes = Box::new([0; BYTES]);
        let read = file.read_exact_at(bytes.as_mut_slice(), 0);
        read.map_err(|e| about(failed("cannot read it", e)))?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let copy = record::Copy::new(bytes);
        let name = copy.name().filter(|name| names::file_name(name) == file_name);
        let name = name.ok_or_else(|| about(damaged("it does not say which lock it is")))?;
        self.status(&file, &copy, name).map(Some)
    }

    pub(super) fn status(
        &self,
        file: &File,
        copy: &record::Copy,
        name: Name,
    ) -> Result<NameStatus, LockError> {
        let file_name = names::file_name(&name);
        let token = record::token(copy).ok_or_else(|| no_token().with_name(&name))?;
        let held = record::held_by(copy).is_some_and(|life| is_alive(file, life));
        let sequence_now = || {
            let mut bytes = [0; 8];
            match file.read_exact_at(&mut bytes, record::SEQUENCE_OFFSET) {
                Ok(()) => u64::from_ne_bytes(bytes),
                Err(_) => u64::MAX,
            }
        };
        Ok(NameStatus {
            name,
            token,
            holder: held.then(|| record::holder(copy, sequence_now)),
            stays_for: (!held).then(|| record::stays_for(copy)).flatten(),
            predecessor: if held { record::before(copy) } else { record::left(copy) },
            widened_by: record::widened_by(copy),
            limit: None,
            // The kernel does not say which processes share a lock.
            sharers: Vec::new(),
            share_proofs: self.reader_proof(&file_name).into_iter().collect(),
            waiters: Vec::new(),
            proof: rustix::fs::fstat(file).ok().as_ref().map(FileIdentity::of),
            survivors: Vec::new(),
        })
    }

    pub(super) fn about_file(&self, file_name: &str, error: LockError) -> LockError {
        self.home.about_file(&format!("{LOCKS}/{file_name}"), error)
    }

    /// Opens the file of that name, making it if it is missing.
    pub(super) fn open_file(&self, file_name: &str) -> Result<File, LockError> {
        for turn in 0..MOST_TURNS {
            // Without O_CREAT first: in a sticky directory it would fail on others' files.
            let flags = OFlags::RDWR | SAFELY;
            match rustix::fs::openat(&self.locks, file_name, flags, Mode::empty()) {
                Ok(fd) => return self.finish_making(fd.into()),
                Err(Errno::NOENT) => {}
                Err(Errno::ACCESS) if turn < MOST_TURNS / 2 && self.is_being_made(file_name) => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Err(e) => return Err(cannot_open(e)),
            }
            if turn > 0 {
                self.home.check()?;
            }
            if let Some(file) = self.make_file(file_name)? {
                return Ok(file);
            }
        }
        Err(damaged("another program removes it as often as it is made: stop that"))
    }

    /// `None` if another process was faster.
    fn make_file(&self, file_name: &str) -> Result<Option<File>, LockError> {
        let mode = self.home.file_mode();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | SAFELY;
        match rustix::fs::openat(&self.locks, file_name, flags, Mode::from_raw_mode(mode as _)) {
            Ok(fd) => {
                let file = File::from(fd);
                let shared = self.home.share(&file, mode);
                shared.map_err(|e| failed("cannot set its mode", e))?;
                Ok(Some(file))
            }
            Err(Errno::EXIST) => Ok(None),
            Err(Errno::NOENT) => {
                self.home.check()?;
                Err(damaged("the directory above it was removed"))
            }
            Err(e) => Err(failed("cannot make it", e.into())),
        }
    }

    /// Gives a file its mode if its maker was killed before that.
    fn finish_making(&self, file: File) -> Result<File, LockError> {
        if regular_length(&file)? == 0 {
            // Only its owner can.
            let _ = self.home.share(&file, self.home.file_mode());
        }
        Ok(file)
    }

    /// Whether another user has made the file and not yet given it its mode and size.
    fn is_being_made(&self, file_name: &str) -> bool {
        let found =
            rustix::fs::statat(&self.locks, file_name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| found.st_size == 0)
    }
}

/// The kernel's locks count no permits.
pub(in crate::process) fn no_permits() -> LockError {
    LockError::config(
        "the file-lock engine has no semaphores: use a directory of the table engine \
         (Engine::Table), which needs a little-endian 64-bit Linux",
    )
}

/// Makes the directory for the lock files, before `format` says that it is there.
fn prepare(home: &Home) -> Result<(), LockError> {
    if home.make_inside(LOCKS)? == Made::Before && !home.is_empty_inside(&open_locks(home)?)? {
        // Another process may be just as far, and further now.
        if home.read_format()?.is_none() {
            return Err(home.about(damaged(
                "its file format is missing although there are lock files; stop every process \
                 that uses the directory and remove it, or choose another",
            )));
        }
    }
    Ok(())
}

pub(super) fn open_locks(home: &Home) -> Result<OwnedFd, LockError> {
    home.open_inside(LOCKS, "lock files")
}
