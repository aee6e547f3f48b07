//! Small things that both engines do with files.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
};

use rustix::io::Errno;

use crate::error::LockError;

use super::home::{damaged, failed};

/// Which file it is: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileIdentity(u64, u64);

impl FileIdentity {
    // Their types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    pub(in crate::process) fn of(found: &rustix::fs::Stat) -> FileIdentity {
        FileIdentity(found.st_dev as u64, found.st_ino as u64)
    }

    pub(in crate::process) fn of_file(file: &File) -> io::Result<FileIdentity> {
        file.metadata().map(|found| FileIdentity::of_metadata(&found))
    }

    pub(in crate::process) fn of_metadata(found: &Metadata) -> FileIdentity {
        FileIdentity(found.dev(), found.ino())
    }

    /// Of no file that there is.
    #[cfg(all(test, feature = "cli", target_os = "linux"))]
    pub(in crate::process) fn made_up(number: u64) -> FileIdentity {
        FileIdentity(u64::MAX, number)
    }
}

/// A lock error, for a caller that may also meet the system's.
pub(in crate::process) struct FileFailure(pub(in crate::process) LockError);

impl From<io::Error> for FileFailure {
    fn from(error: io::Error) -> FileFailure {
        FileFailure(failed("cannot guard it against forks", error))
    }
}

/// Gives a range of the file its space on the disk, so that no later write to a mapping of it
/// finds the disk full (mongo-c-driver#1244: SIGBUS). Not by fs4: its `allocate` can return `Ok`
/// without having done so; and never by writing, for others may have it mapped. Copy-on-write
/// file systems cannot promise it.
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd", target_os = "dragonfly")))]
pub(in crate::process) fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    loop {
        let whole = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file, whole, offset, length) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => return extend(file, offset + length),
            done => return Ok(done?),
        }
    }
}

#[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "dragonfly"))]
pub(in crate::process) fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    extend(file, offset + length)
}

/// Where space cannot be reserved, the size must do.
fn extend(file: &File, end: u64) -> io::Result<()> {
    if file.metadata()?.len() < end { file.set_len(end) } else { Ok(()) }
}

pub(in crate::process) fn cannot_open(error: Errno) -> LockError {
    match error {
        Errno::LOOP => damaged("it is a symbolic link; remove it"),
        Errno::ISDIR => damaged("it is a directory; remove it"),
        error => failed("cannot open it", error.into()),
    }
}
