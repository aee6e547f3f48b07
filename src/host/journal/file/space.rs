//! Room on the disk: set aside for what a leader has to write however full the disk is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
};

use redb::{BackendError, StorageBackend};

/// A file: its blocks go to the journal when the disk has no others.
pub(in crate::host::journal) struct Spare {
    path: PathBuf,
    bytes: u64,
}

/// What is set aside at least.
pub(in crate::host::journal) const SPARE_BYTES_MIN: u64 = 1 << 20;

impl Spare {
    /// With what was set aside there before. Of a copy without some of its blocks that is only as much as it has.
    pub(in crate::host::journal) fn new(path: PathBuf) -> Spare {
        let there = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file);
        let bytes = there.map_or(0, |there| there.len().min(there.blocks() * 512));
        Spare { path, bytes }
    }

    pub(in crate::host::journal) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets so much aside, unless it is already.
    pub(in crate::host::journal) fn set_aside(&mut self, bytes: u64) -> io::Result<()> {
        if self.bytes >= bytes {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.path)?;
        let filled = match allocate(&file, 0, bytes) {
            Err(error) if is_unknown(&error) => write_noise(&file, self.bytes, bytes),
            other => other,
        };
        match filled {
            Ok(()) => self.bytes = bytes,
            // What was got of it would be missing elsewhere; what was there before stays.
            Err(_) => file.set_len(self.bytes)?,
        }
        filled
    }

    /// Keeps no more than this.
    pub(in crate::host::journal) fn reduce(&mut self, bytes: u64) -> io::Result<()> {
        if self.bytes > bytes {
            OpenOptions::new().write(true).open(&self.path)?.set_len(bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Gives it to whatever is written next.
    pub(in crate::host::journal) fn release(&mut self) {
        self.bytes = 0;
        // If it cannot be removed, the next write finds no more room than this one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Blocks for this part of the file, which has no holes from then on.
fn allocate(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, bytes)?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (file, from, bytes);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The file system sets nothing aside, or the system does not know how.
fn is_unknown(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error())
}

/// Bytes that no file system stores as less than they are, between these places.
fn write_noise(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut block = [0; 4096];
    let mut at = from;
    while at < to {
        let some = &mut block[..(to - at).min(4096) as usize];
        getrandom::fill(some)?;
        file.write_all_at(some, at)?;
        at += some.len() as u64;
    }
    file.sync_data()
}

/// Whether the disk has no room, whatever says so.
pub(in crate::host::journal) fn is_full(error: &io::Error) -> bool {
    let kinds =
        [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    kinds.contains(&error.kind())
}

/// What is known of a journal's file beside its content.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// A sync has failed: nothing is known of what was written before.
    pub(super) has_lost: AtomicBool,
    pub(super) bytes: AtomicU64,
}

/// A journal's file that grows by whole blocks, so that the disk is full before anything is
/// written, and not in the middle.
#[derive(Debug)]
pub(super) struct Watched<B> {
    inner: B,
    /// The same file, if it is one.
    file: Option<File>,
    health: Arc<Health>,
}

impl<B: StorageBackend> Watched<B> {
    pub(super) fn new(inner: B, file: Option<File>, health: Arc<Health>) -> Watched<B> {
        Watched { inner, file, health }
    }
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> io::Result<u64> {
        let bytes = self.inner.len()?;
        self.health.bytes.store(bytes, Relaxed);
        Ok(bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let before = self.inner.len()?;
        if let Some(file) = &self.file
            && bytes > before
            && let Err(error) = allocate(file, before, bytes - before)
            && !is_unknown(&error)
        {
            file.set_len(before)?;
            return Err(error);
        }
        self.inner.set_len(bytes)?;
        self.health.bytes.store(bytes, Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.inner.sync_data();
        if synced.is_err() {
            self.health.has_lost.store(true, Relaxed);
        }
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
