//! Files that root or the user that runs this has written for it: secrets, credentials, what is revoked.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// Opens what may be a named pipe: otherwise the open of one waits for its writer.
pub(super) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Whether a file is root's, or of the user that runs this: another could replace it.
pub(super) fn is_ours(about: &Metadata) -> bool {
    [rustix::process::geteuid().as_raw(), 0].contains(&about.uid())
}
