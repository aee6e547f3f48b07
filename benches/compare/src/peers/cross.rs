//! Locks between processes that need no server.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use fd_lock::RwLock;
use named_lock::NamedLock;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{
    service::of_peer,
    sys::{self, RobustMutex, Semaphore},
};
use crate::bench::{
    case::Case,
    failure::{BenchFailure, Result},
    jobs::{OpenLock, SharedLock, Visitor},
    process::Subject,
};

/// Another maker's lock, and the file that it stands on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerLock {
    kind: Kind,
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    RobustPthread,
    PosixSemaphore,
    Flock,
    Ofd,
    NamedLock,
    FdLock,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::RobustPthread,
        Kind::PosixSemaphore,
        Kind::Flock,
        Kind::Ofd,
        Kind::NamedLock,
        Kind::FdLock,
    ];

    const fn subject(self) -> &'static str {
        match self {
            Kind::RobustPthread => "robust-pthread",
            Kind::PosixSemaphore => "posix-semaphore",
            Kind::Flock => "flock",
            Kind::Ofd => "ofd",
            Kind::NamedLock => "named-lock",
            Kind::FdLock => "fd-lock",
        }
    }

    /// What a reader must know to compare it: `guarantees.txt` says more.
    const fn note(self) -> &'static str {
        match self {
            Kind::RobustPthread => "no order, no token; tells that its last holder died",
            Kind::PosixSemaphore => {
                "no order, no token; once its holder is killed, locked for ever"
            }
            Kind::Flock | Kind::Ofd | Kind::NamedLock | Kind::FdLock => {
                "no order, no token; freed when its holder dies, and the next one is not told"
            }
        }
    }

    /// A semaphore knows no holder: one that is killed takes it along for ever.
    const fn survives_its_holder(self) -> bool {
        !matches!(self, Kind::PosixSemaphore)
    }
}

/// Every lock that makes sense in this case, with files of its own in `directory`.
pub(crate) fn locks(directory: &Path, case: Case) -> Result<Vec<Subject<PeerLock>>> {
    Kind::ALL
        .into_iter()
        .filter(|kind| case != Case::HOLDER_KILLED || kind.survives_its_holder())
        .map(|kind| {
            let file = directory.join(format!("{}.{}", case.word, kind.subject()));
            let lock = PeerLock { kind, file };
            lock.create()?;
            Ok(Subject { name: kind.subject(), note: kind.note(), lock })
        })
        .collect()
}

impl PeerLock {
    /// Before a process opens it.
    fn create(&self) -> Result<()> {
        let file = self.open_file()?;
        match self.kind {
            Kind::RobustPthread => RobustMutex::create(&file),
            Kind::PosixSemaphore => Semaphore::create(&file),
            Kind::Flock | Kind::Ofd | Kind::NamedLock | Kind::FdLock => Ok(()),
        }
        .map_err(self.failed("cannot make"))
    }

    fn open_file(&self) -> Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file)
            .map_err(self.failed("cannot open"))
    }

    fn failed(&self, what: &str) -> impl FnOnce(std::io::Error) -> BenchFailure + use<> {
        BenchFailure::io(format!("{what} {}", self.file.display()))
    }
}

impl SharedLock for PeerLock {
    fn open<V: Visitor>(&self, visitor: V) -> Result<V::Output> {
        let file = self.open_file()?;
        match self.kind {
            Kind::RobustPthread => {
                visitor.visit(RobustMutex::open(&file).map_err(self.failed("cannot map"))?)
            }
            Kind::PosixSemaphore => {
                visitor.visit(Semaphore::open(&file).map_err(self.failed("cannot map"))?)
            }
            Kind::Flock => visitor.visit(Flock(file)),
            Kind::Ofd => visitor.visit(Ofd(file)),
            Kind::NamedLock => {
                visitor.visit(NamedLock::with_path(&self.file).map_err(of_peer("named-lock"))?)
            }
            Kind::FdLock => visitor.visit(RwLock::new(file)),
        }
    }
}

impl OpenLock for RobustMutex {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        self.lock().map_err(BenchFailure::io("pthread_mutex_lock"))?;
        let locked = Locked(self);
        let result = section();
        std::mem::forget(locked);
        self.unlock().map_err(BenchFailure::io("pthread_mutex_unlock"))?;
        Ok(result)
    }
}

/// Unlocks it if the section panics. The C library keeps a list of the robust mutexes that a thread
/// holds, in the mutexes themselves: one that was unmapped would leave a hole in it.
struct Locked<'a>(&'a RobustMutex);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl OpenLock for Semaphore {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        self.wait().map_err(BenchFailure::io("sem_wait"))?;
        let result = section();
        self.post().map_err(BenchFailure::io("sem_post"))?;
        Ok(result)
    }
}

/// `flock(2)` on a file that stays open.
struct Flock(File);

impl OpenLock for Flock {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let failed = |error: rustix::io::Errno| BenchFailure::io("flock")(error.into());
        rustix::io::retry_on_intr(|| flock(&self.0, FlockOperation::LockExclusive))
            .map_err(failed)?;
        let result = section();
        flock(&self.0, FlockOperation::Unlock).map_err(failed)?;
        Ok(result)
    }
}

/// `fcntl(2)` with `F_OFD_SETLKW` on a file that stays open.
struct Ofd(File);

impl OpenLock for Ofd {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        sys::ofd_lock(&self.0).map_err(BenchFailure::io("fcntl"))?;
        let result = section();
        sys::ofd_unlock(&self.0).map_err(BenchFailure::io("fcntl"))?;
        Ok(result)
    }
}

impl OpenLock for NamedLock {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let _guard = self.lock().map_err(of_peer("named-lock"))?;
        Ok(section())
    }
}

impl OpenLock for RwLock<File> {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let _guard = self.write().map_err(BenchFailure::io("fd-lock"))?;
        Ok(section())
    }
}

#[cfg(test)]
mod tests;
