//! The directory itself: found or made, judged, and told apart from another under its path.
//!
//! It holds `format`, one line of text that says which engine and version may use it, and
//! whatever the engine puts beside. Nothing in it is opened through a symbolic link, and nothing
//! is ever truncated (dpibreak#16, CVE-2025-68146).

use std::{
    ffi::CStr,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs4::FileExt;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};

use crate::{
    error::{LockError, LockErrorKind},
    filesystem::{self, OWNERS_RIGHTS, Trust},
    fork::lock_file::LockFile,
};

use crate::process::{DirectoryKey, sys};

/// An open directory of locks.
pub(in crate::process) struct Home {
    /// Absolute, its symbolic links not resolved: where others will look for the directory.
    pub(in crate::process) path: PathBuf,
    pub(in crate::process) fd: OwnedFd,
    pub(in crate::process) key: DirectoryKey,
    pub(in crate::process) trust: Trust,
    /// Which users may use the directory, and so every file in it.
    pub(in crate::process) mode: u32,
    pub(in crate::process) group: u32,
}

/// What every opening of a file here has: no symlink is followed, no child inherits it, no FIFO
/// blocks it, no terminal becomes the controlling one.
pub(in crate::process) const SAFELY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Home {
    /// Opens the directory, making it if it is missing: only the last component, for this user
    /// alone, whatever the umask (0700). A directory that is there stays as its maker made it, and
    /// decides which users may use the locks: files in it get its mode without the execute bits.
    pub(in crate::process) fn open(path: &Path, accepted: &[String]) -> Result<Home, LockError> {
        let path = std::path::absolute(path)
            .map_err(|e| failed("the lock directory's path is invalid", e))?;
        let about = |error: LockError| about(&path, error);
        let fd = open_or_make(&path).map_err(about)?;
        let trust = filesystem::judge(filesystem::kind_of(&fd), accepted).map_err(about)?;
        Home::of(path, fd, trust)
    }

    /// Opens a directory that is there, wherever it lies, to be looked at.
    #[cfg(any(feature = "cli", test))]
    pub(in crate::process) fn find(path: &Path) -> Result<Home, LockError> {
        let path = std::path::absolute(path)
            .map_err(|e| failed("the lock directory's path is invalid", e))?;
        let fd = open_directory(&path).map_err(|e| {
            about(
                &path,
                match e {
                    Errno::NOENT => LockError::config(
                        "it does not exist; the first process that opens it makes it, if the \
                         directory above it is there",
                    ),
                    Errno::NOTDIR => LockError::config("it is not a directory"),
                    e => failed("cannot open it", e.into()),
                },
            )
        })?;
        let trust = filesystem::judge(filesystem::kind_of(&fd), &[]).unwrap_or(Trust::OnRequest);
        Home::of(path, fd, trust)
    }

    fn of(path: PathBuf, fd: OwnedFd, trust: Trust) -> Result<Home, LockError> {
        let found = File::from(fd);
        let metadata = found.metadata();
        let metadata = metadata.map_err(|e| about(&path, failed("cannot look at it", e)))?;
        Ok(Home {
            trust,
            key: DirectoryKey { device: metadata.dev(), inode: metadata.ino() },
            mode: metadata.mode() & 0o7777,
            group: metadata.gid(),
            fd: found.into(),
            path,
        })
    }

    /// What locks on its file system cannot promise, if that is accepted without being asked for.
    pub(in crate::process) fn caveat(&self) -> Option<String> {
        let kind = filesystem::kind_of(&self.fd);
        let caveat = filesystem::caveat(kind)?;
        let (path, name) = (self.path.display(), filesystem::name_of(kind));
        Some(format!("lock directory {path} is on {name}: {caveat}"))
    }

    /// Makes sure that the directory is in `format`, calling `prepare` first if it is in none yet.
    pub(in crate::process) fn settle(
        &self,
        format: &str,
        prepare: impl FnOnce() -> Result<(), LockError>,
    ) -> Result<(), LockError> {
        if let Some(found) = self.read_format()? {
            return judge_format(&found, format).map_err(|error| self.about(error));
        }
        prepare()?;
        if let Some(found) = self.read_format()? {
            return judge_format(&found, format).map_err(|error| self.about(error));
        }
        let line = format!("{format}\n");
        self.write_aside(&self.fd, "format", Replace::No, |mut file| {
            file.write_all(line.as_bytes())
        })
        .map_err(|e| self.failed("cannot write format", e))?;
        let found = self.read_format()?.ok_or_else(|| self.vanished())?;
        judge_format(&found, format).map_err(|error| self.about(error))
    }

    /// That the path still leads to this directory.
    pub(in crate::process) fn check(&self) -> Result<(), LockError> {
        match fs::metadata(&self.path) {
            Ok(found) if found.dev() == self.key.device && found.ino() == self.key.inode => Ok(()),
            Ok(_) => Err(self.about(damaged(
                "it was replaced by another directory while this process used it: a process that \
                 opens it now does not exclude this one; restart every process that uses it",
            ))),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Err(self.vanished())
            }
            // Out of our sight, perhaps since privileges were dropped: that says nothing.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(e) => Err(self.failed("cannot look at it", e)),
        }
    }

    /// Gives a file that this process made to the users of the directory.
    pub(in crate::process) fn share(&self, file: &File, mode: u32) -> io::Result<()> {
        if file.metadata()?.gid() != self.group {
            // Only for members of the group; others have done what they could.
            let _ = rustix::fs::fchown(file, None, Some(rustix::fs::Gid::from_raw(self.group)));
        }
        // Not left to the umask, which would take the group's bits.
        Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode as _))?)
    }

    pub(in crate::process) fn file_mode(&self) -> u32 {
        self.mode & 0o666
    }

    /// `what` failed in this directory.
    pub(in crate::process) fn failed(&self, what: &str, error: io::Error) -> LockError {
        self.about(failed(what, error))
    }

    /// `error` is about this directory.
    pub(in crate::process) fn about(&self, error: LockError) -> LockError {
        about(&self.path, error)
    }

    /// Makes a directory in it, for all of its users.
    pub(in crate::process) fn make_inside(&self, name: &str) -> Result<Made, LockError> {
        let mode = Mode::from_raw_mode(self.mode as _);
        let made = match rustix::fs::mkdirat(&self.fd, name, mode) {
            Ok(()) => {
                // The umask may have taken even the maker's right to open it.
                let given = rustix::fs::chmodat(&self.fd, name, mode, AtFlags::empty());
                given.map_err(|e| self.failed("cannot set the mode of what is in it", e.into()))?;
                Made::Now
            }
            Err(Errno::EXIST) => Made::Before,
            Err(e) => return Err(self.failed("cannot make a directory in it", e.into())),
        };
        let inside = File::from(self.open_inside(name, name)?);
        match self.share(&inside, self.mode) {
            // Another user's, and that user's process does the same.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            done => done.map_err(|e| self.failed(&format!("cannot set the mode of {name}"), e))?,
        }
        Ok(made)
    }

    /// Opens a directory in it, the one of its `what`.
    pub(in crate::process) fn open_inside(
        &self,
        name: &str,
        what: &str,
    ) -> Result<OwnedFd, LockError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        let look = || rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        opened_once_made(open, look).map_err(|e| match e {
            Errno::NOENT => self.about(damaged(format!("its directory of {what} was removed"))),
            Errno::LOOP | Errno::NOTDIR => {
                self.about(damaged(format!("where its {what} belong there is no directory")))
            }
            e => self.failed(&format!("cannot open its {what}"), e.into()),
        })
    }

    /// Whether there is nothing in a directory of it.
    pub(in crate::process) fn is_empty_inside(
        &self,
        directory: &OwnedFd,
    ) -> Result<bool, LockError> {
        let mut entries = rustix::fs::Dir::read_from(directory)
            .map_err(|e| self.failed("cannot list a directory in it", e.into()))?;
        Ok(entries.all(|entry| entry.is_ok_and(|entry| [c".", c".."].contains(&entry.file_name()))))
    }

    /// Waits for its turn to open, make or replace what the processes of the directory share. It
    /// ends with the value.
    pub(in crate::process) fn gate(&self, gate: CreationGate) -> Result<LockFile, LockError> {
        let flags = OFlags::RDONLY | SAFELY;
        let opened = LockFile::open(|| {
            let fd = rustix::fs::openat(&self.fd, "format", flags, Mode::empty());
            fd.map(File::from).map_err(io::Error::from)
        });
        let locked = opened.and_then(|file| {
            // By their paths: `file.lock()` would be std's method since Rust 1.89.
            sys::retried(|| match gate {
                CreationGate::Alone => FileExt::lock(file.file()),
                CreationGate::Together => FileExt::lock_shared(file.file()),
            })?;
            Ok(file)
        });
        locked.map_err(|e| self.failed("cannot lock its file format", e))
    }

    /// `error` is about this file of the directory.
    pub(in crate::process) fn about_file(&self, file: &str, error: LockError) -> LockError {
        let text = format!("lock file {}: {error}", self.path.join(file).display());
        LockError::new(error.kind(), text).with_source(error)
    }

    pub(in crate::process) fn vanished(&self) -> LockError {
        self.about(damaged(
            "it was removed while this process used it: a process that makes it again does not \
             exclude this one; restart every process that uses it",
        ))
    }

    /// What `format` says, if it is there.
    pub(in crate::process) fn read_format(&self) -> Result<Option<String>, LockError> {
        self.read_line("format")
    }

    /// What a file of one line says, if it is there.
    pub(in crate::process) fn read_line(&self, name: &str) -> Result<Option<String>, LockError> {
        const LONGEST: u64 = 128;
        let flags = OFlags::RDONLY | SAFELY;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(self.about(damaged(format!("its file {name} is a symbolic link"))));
            }
            Err(e) => return Err(self.failed(&format!("cannot open its file {name}"), e.into())),
        };
        let mut bytes = Vec::new();
        let read = file.take(LONGEST).read_to_end(&mut bytes);
        read.map_err(|e| self.failed(&format!("cannot read its file {name}"), e))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Makes a file and puts it in place under `name`, whole and on the disk or not at all. Not
    /// over another one, unless that is to be replaced: if another process was faster, its file
    /// stays.
    pub(in crate::process) fn write_aside(
        &self,
        directory: &OwnedFd,
        name: &str,
        replace: Replace,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (temporary, file) = self.make_aside(directory, name)?;
        let written = fill(&file).and_then(|()| file.sync_all()).and_then(|()| match replace {
            Replace::Yes => Ok(rustix::fs::renameat(directory, &temporary, directory, name)?),
            Replace::No => match rename_without_replacing(directory, &temporary, name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                done => done,
            },
        });
        let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
        written?;
        Ok(rustix::fs::fsync(directory)?)
    }

    /// Puts a file with these bytes in the place of another, whole or not at all. It is not waited for to
    /// be on the disk.
    pub(in crate::process) fn replace(
        &self,
        directory: &OwnedFd,
        name: &str,
        bytes: &[u8],
    ) -> io::Result<File> {
        let (temporary, mut file) = self.make_aside(directory, name)?;
        file.write_all(bytes)
            .and_then(|()| Ok(rustix::fs::renameat(directory, &temporary, directory, name)?))
            .inspect_err(|_| {
                let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
            })?;
        Ok(file)
    }

    /// Removes files that a process died in the middle of making: they are a day old.
    #[cfg_attr(
        not(all(
            target_os = "linux",
            target_pointer_width = "64",
            target_endian = "little",
            not(tierlock_no_table)
        )),
        expect(dead_code, reason = "the table engine alone has it")
    )]
    pub(in crate::process) fn sweep_aside(&self, directory: &OwnedFd) {
        let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return };
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name();
            if is_aside(&name.to_string_lossy()) && is_old(directory, name) {
                let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
            }
        }
    }

    /// A new empty file under a name that no process looks for, and with the mode of all files
    /// here.
    pub(in crate::process) fn make_aside(
        &self,
        directory: &OwnedFd,
        name: &str,
    ) -> io::Result<(String, File)> {
        let temporary = format!(".{name}-{:016x}", random());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | SAFELY;
        let mode = self.file_mode();
        let fd = rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(mode as _))?;
        let file = File::from(fd);
        if let Err(e) = self.share(&file, mode) {
            let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
            return Err(e);
        }
        Ok((temporary, file))
    }
}

/// Whether a file under construction is older than any process takes to make one.
pub(in crate::process) fn is_old(directory: &OwnedFd, name: &CStr) -> bool {
    const OLD: Duration = Duration::from_secs(24 * 60 * 60);
    let long_ago = SystemTime::now().checked_sub(OLD).unwrap_or(SystemTime::UNIX_EPOCH);
    let flags = OFlags::RDONLY | SAFELY;
    let found = rustix::fs::openat(directory, name, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|fd| File::from(fd).metadata());
    found.and_then(|found| found.modified()).is_ok_and(|made| made < long_ago)
}

/// Whether [`Home::make_aside`] gives such names.
pub(in crate::process) fn is_aside(name: &str) -> bool {
    name.strip_prefix('.').and_then(|name| name.rsplit_once('-')).is_some_and(|(_, number)| {
        number.len() == 16 && number.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// Whether something was there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum Made {
    Now,
    Before,
}

/// How one passes the gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum CreationGate {
    /// Beside others that only come in.
    #[cfg_attr(
        not(all(
            target_os = "linux",
            target_pointer_width = "64",
            target_endian = "little",
            not(tierlock_no_table)
        )),
        expect(dead_code, reason = "the table engine alone has it")
    )]
    Together,
    Alone,
}

/// Whether a file may take the place of another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum Replace {
    #[cfg_attr(
        not(all(
            target_os = "linux",
            target_pointer_width = "64",
            target_endian = "little",
            not(tierlock_no_table)
        )),
        expect(dead_code, reason = "the table engine alone has it")
    )]
    Yes,
    No,
}

/// What an error of the system or of a library means here: a caller without the right is refused.
pub(in crate::process) fn failed(what: &str, error: io::Error) -> LockError {
    let (kind, advice) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            LockErrorKind::Refused,
            "; every user of the locks needs to read, write and search the directory and to read \
             and write its files: change owner, group or mode, or choose another directory",
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            (LockErrorKind::Refused, "; choose a directory on a file system that can be written")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (LockErrorKind::Io, "; make room or choose another directory")
        }
        _ => (LockErrorKind::Io, ""),
    };
    LockError::new(kind, format!("{what}: {error}{advice}")).with_source(error)
}

pub(in crate::process) fn damaged(what: impl Into<std::borrow::Cow<'static, str>>) -> LockError {
    LockError::new(LockErrorKind::Damaged, what)
}

/// A number that no other process has.
pub(in crate::process) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn about(path: &Path, error: LockError) -> LockError {
    let text = format!("lock directory {}: {error}", path.display());
    LockError::new(error.kind(), text).with_source(error)
}

fn open_or_make(path: &Path) -> Result<OwnedFd, LockError> {
    match open_directory(path) {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR) => return Err(LockError::config("it is not a directory")),
        found => return found.map_err(|e| failed("cannot open it", e.into())),
    }
    filesystem::make_private_directory(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            LockError::config("the directory above it does not exist; make that one first")
        }
        _ => failed("cannot make it", e),
    })?;
    open_directory(path).map_err(|e| match e {
        Errno::NOENT => LockError::config("it is a symbolic link that leads nowhere"),
        e => failed("cannot open it", e.into()),
    })
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(CWD, path, flags, Mode::empty());
    opened_once_made(open, || rustix::fs::stat(path))
}

/// Opens a directory that another process of this user may just be making: under some umasks its
/// maker has no right to it for a moment.
fn opened_once_made(
    open: impl Fn() -> Result<OwnedFd, Errno>,
    look: impl Fn() -> Result<rustix::fs::Stat, Errno>,
) -> Result<OwnedFd, Errno> {
    const LONGEST: u32 = 100;
    // Its type differs between systems.
    #[allow(clippy::useless_conversion)]
    let is_being_made = |found: rustix::fs::Stat| {
        found.st_uid == rustix::process::geteuid().as_raw()
            && u32::from(found.st_mode) & OWNERS_RIGHTS != OWNERS_RIGHTS
    };
    for _ in 0..LONGEST {
        match open() {
            Err(Errno::ACCESS) if look().is_ok_and(is_being_made) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
    open()
}

pub(in crate::process) fn judge_format(found: &str, ours: &str) -> Result<(), LockError> {
    let found = found.strip_suffix('\n').unwrap_or(found);
    if found == ours {
        return Ok(());
    }
    let words: Vec<&str> = found.split(' ').collect();
    let whole = matches!(words[..], ["tierlock", engine, version]
        if !engine.is_empty() && version.parse::<u32>().is_ok());
    if whole {
        return Err(LockError::config(format!(
            "it is in the format {found:?}, and this program was to use {ours:?}; use the same \
             engine and version everywhere, or choose another directory, or stop every process \
             that uses this one, remove it and start them again"
        )));
    }
    Err(damaged(format!(
        "its file format says {found:?} instead of {ours:?}; stop every process that uses the \
         directory and remove it, or choose another"
    )))
}

pub(in crate::process) fn rename_without_replacing(
    directory: &OwnedFd,
    from: &str,
    to: &str,
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match rustix::fs::renameat_with(
        directory,
        from,
        directory,
        to,
        rustix::fs::RenameFlags::NOREPLACE,
    ) {
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    Ok(rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())?)
}
