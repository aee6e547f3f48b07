//! Files that are whole or not there, whenever their maker was killed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// An empty file at a path where a file is made that gets its name once it is whole. One that was
/// left unfinished there before is dropped.
pub(super) fn begin_aside(unfinished: &Path) -> io::Result<File> {
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).open(unfinished)
}

/// Gives the whole file its name in its directory, durably: a file that is found under that name is
/// a whole one, whenever its maker was killed.
pub(super) fn put_in_place(unfinished: &Path, name: &str) -> io::Result<()> {
    let directory = unfinished.parent().expect("a file is in a directory");
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, directory.join(name))?;
    sync_directory(directory)
}

/// The names of files are durable only with their directory.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
