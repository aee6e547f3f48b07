//! The readers of a name: a second file of it, which a process with readers has locked shared.
//!
//! A reader wins the gate, takes the second file, and releases the gate; a writer wins the gate and
//! then takes the second file exclusively. So readers and writers stand in one queue, the kernel's.
//! Beside an upgradable reader, which has the gate and not the second file, readers come in by a mark
//! in the name's file: they take the second file, and then look at the mark again; an upgrade clears
//! the mark, and then takes the second file.
//!
//! No lock is ever converted: flock(2) releases it in between.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};
#[cfg(feature = "cli")]
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use fs4::{FileExt, TryLockError};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::super::{
    Drain, Drainer, Taken,
    dir::{
        files::{FileFailure, FileIdentity, cannot_open},
        home::{SAFELY, failed},
        record,
    },
    sys::{retried, unless_interrupted},
};
use super::{FileDirectory, FileSlot, FileState, LONGEST_PAUSE};
use crate::{
    error::{LockError, LockErrorKind, LostReason, Predecessor},
    fork::lock_file::LockFile,
    token::Token,
};

/// How long what a killed writer has left is waited for, and how often it is looked at.
const LEFT_OVER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where the second files are.
pub(in super::super) const READERS: &str = "readers";

/// What one process has of a name's second file.
#[derive(Default)]
pub(super) struct SharedFile {
    /// So many threads and tasks of this process are inside as readers.
    count: u32,
    /// Locked shared while there are any.
    shared: Option<LockFile>,
    /// Its descriptor was given to a child, which goes on reading by it.
    #[cfg(feature = "cli")]
    proof_given: bool,
    /// Locked exclusively, by a writer.
    excluded: Option<LockFile>,
}

impl SharedFile {
    /// The writer leaves.
    pub(super) fn end_exclusion(&mut self) {
        self.excluded.take().into_iter().for_each(unlock);
    }

    /// The last reader leaves.
    fn end_sharing(&mut self) {
        let shared = self.shared.take();
        #[cfg(feature = "cli")]
        if std::mem::take(&mut self.proof_given) {
            return; // closing our descriptor leaves the lock to the others
        }
        shared.into_iter().for_each(unlock);
    }
}

/// Before it is closed: a child made by `vfork` has a copy of the descriptor until it executes another program, and
/// with it the lock would last until then.
fn unlock(file: LockFile) {
    // Closed, it is unlocked soon in any case.
    let _ = retried(|| FileExt::unlock(file.file()));
}

impl FileDirectory {
    /// Which file the readers of a name lock, if there is one.
    pub(super) fn reader_proof(&self, file_name: &str) -> Option<FileIdentity> {
        let path = format!("{READERS}/{file_name}");
        let found = rustix::fs::statat(&self.home.fd, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileIdentity::of(&found))
    }
}

impl FileSlot {
    /// The descriptor by which this process reads, for others to inherit: they read then, too.
    #[cfg(feature = "cli")]
    pub(in super::super) fn proof_of_sharing(&self) -> io::Result<OwnedFd> {
        let mut state = self.state();
        let shared = state.readers.shared.as_ref();
        let shared = shared.ok_or_else(|| io::Error::other("the lock is not read"))?;
        let proof = shared.file().as_fd().try_clone_to_owned()?;
        state.readers.proof_given = true;
        Ok(proof)
    }

    /// Has the directory for the second files.
    pub(in super::super) fn prepare_to_read(&self) -> Result<(), LockError> {
        self.directory.home.make_inside(READERS).map(drop).map_err(|error| self.named(error))
    }

    /// See `process::FileSlot::read_under_the_word`.
    pub(in super::super) fn read_under_the_word(
        &self,
        taken: &Taken,
        is_first: bool,
    ) -> Result<Token, LockError> {
        let mut state = self.state();
        self.share(&mut state)?;
        let last = taken.token.get().checked_sub(1).and_then(Token::new).filter(|_| !is_first);
        let token = last.unwrap_or(taken.token);
        if let Some(open) = &state.open {
            record::set_token(&open.words, token);
        }
        Ok(token)
    }

    /// Comes in as a reader, for the holder.
    pub(in super::super) fn share_beside(&self) -> Result<(), LockError> {
        self.share(&mut self.state())
    }

    /// Comes in beside an upgradable reader, if one is inside.
    pub(in super::super) fn read_beside(&self) -> Option<(Token, Predecessor)> {
        let open = self.opened(self.life()).ok()?;
        if !record::is_readable(&open.words) {
            return None;
        }
        let mut state = self.state();
        if state.readers.count == 0 {
            let file = self.second_file().ok()?;
            if !self.is_shared(&file).ok()? {
                return None;
            }
            state.readers.shared = Some(file);
        }
        state.readers.count += 1;
        if !record::is_readable(&open.words) {
            self.uncount(&mut state);
            return None;
        }
        Some((record::token(&open.words).unwrap_or_default(), record::before(&open.words)))
    }

    pub(in super::super) fn may_read_beside(&self) -> bool {
        self.opened(self.life()).is_ok_and(|open| record::is_readable(&open.words))
    }

    /// Whether readers of this process are inside.
    pub(in super::super) fn is_read(&self) -> bool {
        self.life.so_far().is_some() && self.state().readers.count > 0
    }

    /// A reader leaves.
    pub(in super::super) fn unread(&self) {
        if self.life.so_far().is_some() {
            self.uncount(&mut self.state());
        }
    }

    /// Lets readers in beside the holder, or no more of them.
    pub(in super::super) fn set_readable(&self, readable: bool) -> Result<(), LockError> {
        let mut state = self.state();
        if readable {
            // A writer that becomes an upgradable reader, which has the gate alone.
            state.readers.end_exclusion();
        }
        let open = self.held(&state)?;
        if readable {
            // Before any reader comes in by it: a writer looks for them.
            record::share(&open.words);
        }
        record::set_readable(&open.words, readable);
        Ok(())
    }

    /// For the holder: whether readers are inside.
    pub(in super::super) fn drain(&self, _: &mut Drainer) -> Result<Drain, LockError> {
        let mut state = self.state();
        let was_shared = record::was_shared(&self.held(&state)?.words);
        if !was_shared || state.readers.excluded.is_some() {
            return Ok(Drain::Drained);
        }
        let later = Drain::Sleep { bell: 0, longest: LONGEST_PAUSE };
        if state.readers.count > 0 {
            return Ok(later);
        }
        let file = self.second_file()?;
        if !self.locked(FileExt::try_lock(file.file()))? {
            return Ok(later);
        }
        state.readers.excluded = Some(file);
        Ok(Drain::Drained)
    }

    fn share(&self, state: &mut FileState) -> Result<(), LockError> {
        record::share(&self.held(state)?.words);
        // The gate is held, so no reader or writer comes in between.
        state.readers.end_exclusion();
        if state.readers.count == 0 {
            state.readers.shared = Some(self.file_for_readers()?);
        }
        state.readers.count += 1;
        Ok(())
    }

    /// The second file, for the holder of the gate, which keeps every writer out. What a writer that was killed has
    /// of the file yet is gone in a moment: its process is ending, or a child of it is about to execute
    /// another program.
    fn file_for_readers(&self) -> Result<LockFile, LockError> {
        let file = self.second_file()?;
        let begun = Instant::now();
        while !self.is_shared(&file)? {
            if begun.elapsed() > LEFT_OVER {
                return Err(self.named(LockError::new(
                    LockErrorKind::Io,
                    "a writer that was killed has left the file of its readers locked, to a process that \
                     it had just started; end that process",
                )));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(file)
    }

    fn is_shared(&self, file: &LockFile) -> Result<bool, LockError> {
        self.locked(FileExt::try_lock_shared(file.file()))
    }

    fn uncount(&self, state: &mut FileState) {
        let Some(count) = state.readers.count.checked_sub(1) else { return };
        state.readers.count = count;
        if count == 0 {
            state.readers.end_sharing();
        }
    }

    fn held<'a>(&self, state: &'a FileState) -> Result<&'a super::Open, LockError> {
        let open = state.open.as_deref().filter(|_| state.held);
        open.ok_or_else(|| self.named(LockError::lost(LostReason::Broken)))
    }

    fn locked(&self, tried: Result<(), TryLockError>) -> Result<bool, LockError> {
        match tried {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => match unless_interrupted(e) {
                // It is tried again.
                Ok(()) => Ok(false),
                Err(e) => Err(self.named(failed("cannot lock the file of its readers", e))),
            },
        }
    }

    fn second_file(&self) -> Result<LockFile, LockError> {
        let home = &self.directory.home;
        let open = || -> Result<File, FileFailure> {
            let directory = home.open_inside(READERS, "readers").map_err(FileFailure)?;
            let (flags, mode) = (OFlags::RDWR | SAFELY, home.file_mode());
            let made = OFlags::CREATE | OFlags::EXCL;
            let mut tried = 0;
            loop {
                match rustix::fs::openat(&directory, &self.file_name, flags, Mode::empty()) {
                    Ok(fd) => return Ok(fd.into()),
                    Err(Errno::NOENT) => {}
                    Err(e) => return Err(FileFailure(cannot_open(e))),
                }
                let raw = Mode::from_raw_mode(mode as _);
                match rustix::fs::openat(&directory, &self.file_name, flags | made, raw) {
                    Ok(fd) => {
                        let file = File::from(fd);
                        home.share(&file, mode)?;
                        return Ok(file);
                    }
                    Err(Errno::EXIST) if tried < super::MOST_TURNS => tried += 1,
                    Err(e) => return Err(FileFailure(cannot_open(e))),
                }
            }
        };
        LockFile::open(open).map_err(|FileFailure(error)| self.named(error))
    }
}
