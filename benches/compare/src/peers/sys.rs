//! The comparisons' only `unsafe` code: locks and a clock that libc alone offers, and a program under
//! another user that still dies with the bench.

use std::{
    fs::File,
    io,
    mem::size_of,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    time::Duration,
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

/// A `pthread_mutex_t`, shared between processes and robust, at the start of a mapped file.
pub(super) struct RobustMutex(MmapRaw);

impl RobustMutex {
    /// Makes a file of a mutex without a holder. No process may have it mapped yet.
    pub(super) fn create(file: &File) -> io::Result<()> {
        let mutex = RobustMutex::open(file)?;
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: it initialises the attributes that it is given.
        check(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call before.
        let mut attributes = unsafe { attributes.assume_init() };
        // SAFETY: the attributes are initialised.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: the attributes are initialised.
        check(unsafe {
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        // SAFETY: the mapping is writable, long enough and starts at a page, and no thread uses the
        // mutex yet.
        check(unsafe { libc::pthread_mutex_init(mutex.raw(), &attributes) })?;
        // SAFETY: the attributes are initialised, and not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(&mut attributes) })
    }

    /// The mutex of a file that [`create`](Self::create) has made.
    pub(super) fn open(file: &File) -> io::Result<RobustMutex> {
        map(file, size_of::<libc::pthread_mutex_t>()).map(RobustMutex)
    }

    #[inline]
    pub(super) fn lock(&self) -> io::Result<()> {
        // SAFETY: `create` has initialised the mutex, and `self` keeps it mapped.
        match unsafe { libc::pthread_mutex_lock(self.raw()) } {
            libc::EOWNERDEAD => {
                // SAFETY: as above; this thread holds the mutex after the death of its last owner.
                check(unsafe { libc::pthread_mutex_consistent(self.raw()) })
            }
            code => check(code),
        }
    }

    /// Only its holder may call this.
    #[inline]
    pub(super) fn unlock(&self) -> io::Result<()> {
        // SAFETY: `create` has initialised the mutex, and `self` keeps it mapped. A robust mutex
        // answers EPERM to a thread that does not hold it.
        check(unsafe { libc::pthread_mutex_unlock(self.raw()) })
    }

    fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.0.as_mut_ptr().cast()
    }
}

/// A `sem_t`, shared between processes, at the start of a mapped file.
pub(super) struct Semaphore(MmapRaw);

impl Semaphore {
    /// Makes a file of a semaphore that one process may pass. No process may have it mapped yet.
    pub(super) fn create(file: &File) -> io::Result<()> {
        Semaphore::create_with(file, 1)
    }

    /// The same for so many processes.
    pub(super) fn create_with(file: &File, permits: u32) -> io::Result<()> {
        let semaphore = Semaphore::open(file)?;
        // SAFETY: the mapping is writable, long enough and starts at a page, and no thread uses the
        // semaphore yet.
        check_errno(unsafe { libc::sem_init(semaphore.raw(), 1, permits) })
    }

    /// The semaphore of a file that [`create`](Self::create) has made.
    pub(super) fn open(file: &File) -> io::Result<Semaphore> {
        map(file, size_of::<libc::sem_t>()).map(Semaphore)
    }

    #[inline]
    pub(super) fn wait(&self) -> io::Result<()> {
        loop {
            // SAFETY: `create` has initialised the semaphore, and `self` keeps it mapped.
            match check_errno(unsafe { libc::sem_wait(self.raw()) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    #[inline]
    pub(super) fn post(&self) -> io::Result<()> {
        // SAFETY: `create` has initialised the semaphore, and `self` keeps it mapped.
        check_errno(unsafe { libc::sem_post(self.raw()) })
    }

    fn raw(&self) -> *mut libc::sem_t {
        self.0.as_mut_ptr().cast()
    }
}

/// A `pthread_rwlock_t`, shared between processes, at the start of a mapped file. There are no robust ones.
pub(super) struct RwLock(MmapRaw);

impl RwLock {
    /// Makes a file of a lock without a holder. No process may have it mapped yet.
    pub(super) fn create(file: &File) -> io::Result<()> {
        let lock = RwLock::open(file)?;
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: it initialises the attributes that it is given.
        check(unsafe { libc::pthread_rwlockattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call before.
        let mut attributes = unsafe { attributes.assume_init() };
        // SAFETY: the attributes are initialised.
        check(unsafe {
            libc::pthread_rwlockattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: the mapping is writable, long enough and starts at a page, and no thread uses the
        // lock yet.
        check(unsafe { libc::pthread_rwlock_init(lock.raw(), &attributes) })?;
        // SAFETY: the attributes are initialised, and not used again.
        check(unsafe { libc::pthread_rwlockattr_destroy(&mut attributes) })
    }

    /// The lock of a file that [`create`](Self::create) has made.
    pub(super) fn open(file: &File) -> io::Result<RwLock> {
        map(file, size_of::<libc::pthread_rwlock_t>()).map(RwLock)
    }

    #[inline]
    pub(super) fn read(&self) -> io::Result<()> {
        // SAFETY: `create` has initialised the lock, and `self` keeps it mapped.
        check(unsafe { libc::pthread_rwlock_rdlock(self.raw()) })
    }

    /// Whether it is this thread's, as a writer.
    #[inline]
    pub(super) fn try_write(&self) -> io::Result<bool> {
        // SAFETY: `create` has initialised the lock, and `self` keeps it mapped.
        match unsafe { libc::pthread_rwlock_trywrlock(self.raw()) } {
            libc::EBUSY => Ok(false),
            code => check(code).map(|()| true),
        }
    }

    /// Only one of its holders may call this.
    #[inline]
    pub(super) fn unlock(&self) -> io::Result<()> {
        // SAFETY: `create` has initialised the lock, `self` keeps it mapped, and this thread has just
        // acquired it.
        check(unsafe { libc::pthread_rwlock_unlock(self.raw()) })
    }

    fn raw(&self) -> *mut libc::pthread_rwlock_t {
        self.0.as_mut_ptr().cast()
    }
}

/// Waits for a lock on the whole file that belongs to its open file description.
#[inline]
pub(super) fn ofd_lock(file: &File) -> io::Result<()> {
    loop {
        match ofd(file, libc::F_WRLCK) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[inline]
pub(super) fn ofd_unlock(file: &File) -> io::Result<()> {
    ofd(file, libc::F_UNLCK)
}

#[inline]
fn ofd(file: &File, kind: i32) -> io::Result<()> {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for as long as the file, and the kernel only reads `whole`.
    check_errno(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &whole) })
}

/// Becomes another program that gets `signal` at its parent's death; returns only on failure.
///
/// Changing the user forgets the request of a process for that signal, so it is made after it.
pub(crate) fn exec(command: &mut Command, signal: Signal) -> io::Error {
    let ask = move || set_parent_process_death_signal(Some(signal)).map_err(io::Error::from);
    // SAFETY: the closure makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
    command.exec()
}

fn map(file: &File, length: usize) -> io::Result<MmapRaw> {
    file.set_len(length as u64)?;
    MmapOptions::new().len(length).map_raw(file)
}

fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn check_errno(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The processor time of a process so far, of its threads that have ended, too.
pub(crate) fn processor_time(pid: Pid) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: it writes a number.
    check(unsafe { libc::clock_getcpuclockid(pid.as_raw_nonzero().get(), &mut clock) })?;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes a time.
    check_errno(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
