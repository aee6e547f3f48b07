//! The number of the journal's last commit, in a file of its own.
//!
//! Of the two states that a journal's file holds, one bit says which is the last. If that bit turns,
//! the state before the last commit is there again, whole. The number tells: it is written after
//! each commit and waited for by nothing, so after a loss of power it may be too low, which harms
//! nothing, and never too high.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

pub(in crate::host::journal) struct Commits(File);

impl Commits {
    /// A file that says 0, durable once its directory is synced.
    pub(in crate::host::journal) fn make(path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let commits = Commits(options.open(path)?);
        commits.note(0)?;
        commits.0.sync_all()
    }

    /// The number that the file says; `None` if it says none.
    pub(in crate::host::journal) fn open(path: &Path) -> io::Result<(Commits, Option<u64>)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = [0; 16];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        let both = u128::from_le_bytes(bytes);
        let (number, check) = (both as u64, (both >> 64) as u64);
        Ok((Commits(file), (check == check_of(number)).then_some(number)))
    }

    pub(in crate::host::journal) fn note(&self, number: u64) -> io::Result<()> {
        let both = u128::from(check_of(number)) << 64 | u128::from(number);
        self.0.write_all_at(&both.to_le_bytes(), 0)
    }
}

/// A file of zeros says nothing, and no bit turns alone.
fn check_of(number: u64) -> u64 {
    !number
}
