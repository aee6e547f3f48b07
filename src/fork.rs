//! What differs between a process and the children forked from it. An island of `unsafe`.
//!
//! **One scheme for everything that a child must not inherit locked or alive**: the fork generation
//! tells a process from each of its children ([`generation`]), and what belongs to one process hangs
//! on it ([`PerFork`]): the grounds and their names, the queues of the thread tier, alarms, sleepers,
//! presences. A child finds none of that and makes its own; what it inherited it neither locks nor
//! drops.
//!
//! A thread of the parent that was in the middle of something at the fork is not there to end it. So
//! nothing here waits for another thread: what is made once is made by an exchange ([`FirstMade`]),
//! and the waiting of [`Mutex`] and [`Condvar`] lives in their words, where a table of parked threads,
//! as parking_lot's, would be inherited with its locks held.
//!
//! A lock file is not inherited at all: see [`LockFile`](lock_file::LockFile).

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
    thread,
};

#[cfg_attr(tierlock_loom, allow(unused_imports, reason = "the models have their own"))]
pub(crate) use crate::latches::{
    Latch as Mutex, LatchCondvar as Condvar, LatchGuard as MutexGuard,
};

#[cfg(any(
    test,
    all(
        feature = "process",
        target_os = "linux",
        target_pointer_width = "64",
        target_endian = "little",
        not(tierlock_no_table)
    )
))]
pub(crate) mod latest;
#[cfg(any(feature = "process", test))]
pub(crate) mod lock_file;
#[cfg(all(test, not(tierlock_loom)))]
mod tests;

/// A number that differs between a process and every process forked from it.
///
/// One load, of a page that the kernel wipes in every child, also in one that was made by a bare
/// `clone`.
#[inline]
pub(crate) fn generation() -> u64 {
    match mark().load(Ordering::Relaxed) {
        UNKNOWN | BEING_FOUND => find_generation(),
        mark => mark - 1,
    }
}

/// The mark of this process: its generation plus one, or one of these.
#[inline]
fn mark() -> &'static AtomicU64 {
    let mark = MARK.load(Ordering::Acquire);
    // SAFETY: it points to `FIRST_MARK`, or into a page that `wiped_in_children` mapped for good.
    unsafe { &*mark }
}

/// What the kernel leaves in a child's page.
const UNKNOWN: u64 = 0;
const BEING_FOUND: u64 = u64::MAX;

/// Where the mark is until forks are watched, and where no page can be wiped.
static FIRST_MARK: AtomicU64 = AtomicU64::new(1);
static MARK: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::from_ref(&FIRST_MARK).cast_mut());

/// This is a child of which no handler was told.
#[cold]
fn find_generation() -> u64 {
    let first = mark().compare_exchange(UNKNOWN, BEING_FOUND, Ordering::SeqCst, Ordering::SeqCst);
    if first.is_ok() {
        after_fork_in_child();
    }
    loop {
        match mark().load(Ordering::Acquire) {
            BEING_FOUND => thread::yield_now(),
            mark => return mark - 1,
        }
    }
}

/// A mark that children do not inherit, if there can be one.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn wiped_in_children() -> Option<&'static AtomicU64> {
    const LENGTH: usize = size_of::<AtomicU64>();
    let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: new memory, wherever the kernel likes; no other code knows of it.
    let page = unsafe { libc::mmap(ptr::null_mut(), LENGTH, rights, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: `page` is the mapping made above, and nothing stands in it yet.
    let refused = unsafe { libc::madvise(page, LENGTH, libc::MADV_WIPEONFORK) };
    if refused != 0 {
        return None;
    }
    // SAFETY: readable, writable, aligned to a page and never unmapped; zeros are an AtomicU64.
    Some(unsafe { &*page.cast::<AtomicU64>() })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wiped_in_children() -> Option<&'static AtomicU64> {
    None
}

/// That of a process that was not forked from one that uses this library.
const FIRST_GENERATION: u64 = 0;

static GENERATION: AtomicU64 = AtomicU64::new(FIRST_GENERATION);
static FORKS_BEGUN: AtomicU64 = AtomicU64::new(0);
static FORKS_ENDED: AtomicU64 = AtomicU64::new(0);

/// Has forks noticed from now on, in this process and all that are forked from it.
///
/// To be called before anything is made that a child must not inherit.
pub(crate) fn watch() -> io::Result<()> {
    static WATCHED: FirstMade<()> = FirstMade::new();
    if WATCHED.get().is_none() {
        // Two threads at once set the handlers twice, which is as good as once.
        set_handlers()?;
        let _ = WATCHED.set(());
    }
    Ok(())
}

fn set_handlers() -> io::Result<()> {
    #[cfg(any(feature = "process", test))]
    lock_file::prepare()?;
    let before: unsafe extern "C" fn() = before_fork;
    let parent: unsafe extern "C" fn() = after_fork_in_parent;
    let child: unsafe extern "C" fn() = after_fork_in_child;
    // SAFETY: the handlers are functions that live as long as the program, never unwind, and do
    // only what is allowed after a fork: atomics, `dup3`, `close`.
    let refused = unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused));
    }
    if let Some(mark) = wiped_in_children() {
        mark.store(GENERATION.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
        MARK.store(ptr::from_ref(mark).cast_mut(), Ordering::SeqCst);
    }
    Ok(())
}

extern "C" fn before_fork() {
    FORKS_BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_fork_in_parent() {
    FORKS_ENDED.fetch_add(1, Ordering::SeqCst);
}

/// hermes-agent#100108, skhd#83: a child that keeps the descriptor keeps a dead parent's lock.
extern "C" fn after_fork_in_child() {
    FORKS_ENDED.store(FORKS_BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
    #[cfg(any(feature = "process", test))]
    lock_file::replace_all();
    mark().store(generation + 1, Ordering::Release);
}

/// A value for each of the processes that were forked from each other since the first one was
/// made: a child touches nothing that it inherited, not even a mutex, and has its own beside it.
pub(crate) struct PerFork<T> {
    /// Which process the value belongs to; [`NO_PROCESS`]: there is none.
    generation: u64,
    value: MaybeUninit<T>,
    child: FirstMade<PerFork<T>>,
}

const NO_PROCESS: u64 = u64::MAX;

impl<T> PerFork<T> {
    /// With this process's value.
    #[cfg(any(feature = "process", test))]
    pub(crate) fn new(value: T) -> PerFork<T> {
        PerFork::of(generation(), value)
    }

    /// Without any value yet.
    pub(crate) const fn unset() -> PerFork<T> {
        PerFork { generation: NO_PROCESS, value: MaybeUninit::uninit(), child: FirstMade::new() }
    }

    fn of(generation: u64, value: T) -> PerFork<T> {
        PerFork { generation, value: MaybeUninit::new(value), child: FirstMade::new() }
    }

    /// This process's value, if it has one.
    #[inline]
    pub(crate) fn so_far(&self) -> Option<&T> {
        self.so_far_in(generation())
    }

    /// The same, for a caller that knows in which generation this process is.
    #[inline]
    pub(crate) fn so_far_in(&self, generation: u64) -> Option<&T> {
        if self.generation == generation {
            // SAFETY: a value stands beside every generation but `NO_PROCESS`, which is none.
            return Some(unsafe { self.value.assume_init_ref() });
        }
        self.child.get()?.so_far_in(generation)
    }

    /// This process's value, made if need be.
    pub(crate) fn here(&self, make: impl FnOnce() -> T) -> &T {
        match self.try_here(|| Ok::<T, std::convert::Infallible>(make())) {
            Ok(value) => value,
        }
    }

    /// The same with a value that may fail to be made.
    #[inline]
    pub(crate) fn try_here<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let generation = generation();
        match self.so_far_in(generation) {
            Some(value) => Ok(value),
            None => self.try_child(generation, make),
        }
    }

    #[cold]
    fn try_child<E>(&self, generation: u64, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        // Two threads at once may make it, and one of them in vain.
        let mut new = PerFork::of(generation, make()?);
        let mut last = self;
        loop {
            let put = last.child.set(new);
            last = last.child.get().expect("one was there or was put there");
            match put {
                Err(in_vain) if last.generation != generation => new = in_vain,
                _ => return Ok(last.so_far_in(generation).expect("it is this generation's")),
            }
        }
    }
}

impl<T> Drop for PerFork<T> {
    /// What was inherited stays as it is: a thread of the parent may have been in the middle of it.
    fn drop(&mut self) {
        if self.generation == generation() {
            // SAFETY: there is a value, as for `so_far_in`, and nothing drops it elsewhere.
            unsafe { self.value.assume_init_drop() };
        }
    }
}

/// A value that is made once, by whichever thread is first. None waits for another: two may make
/// it, and one of them in vain.
pub(crate) struct FirstMade<T> {
    at: AtomicPtr<T>,
    /// It is shared and dropped as such a cell is.
    shape: PhantomData<OnceLock<T>>,
}

impl<T> FirstMade<T> {
    pub(crate) const fn new() -> FirstMade<T> {
        FirstMade { at: AtomicPtr::new(ptr::null_mut()), shape: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        let at = self.at.load(Ordering::Acquire);
        // SAFETY: null, or out of `Box::into_raw` in `set`, which publishes it for as long as `self`
        // lives.
        unsafe { at.as_ref() }
    }

    /// Fails with the value if there is one.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let (none, new) = (ptr::null_mut(), Box::into_raw(Box::new(value)));
        match self.at.compare_exchange(none, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            // SAFETY: it came out of `Box::into_raw` above and was not published.
            Err(_) => Err(*unsafe { Box::from_raw(new) }),
        }
    }

    #[inline]
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _ = self.set(make());
        self.get().expect("there is one now")
    }
}

impl<T> Drop for FirstMade<T> {
    fn drop(&mut self) {
        let at = *self.at.get_mut();
        if !at.is_null() {
            // SAFETY: it came out of `Box::into_raw` in `set`, and `self` alone owns it.
            drop(unsafe { Box::from_raw(at) });
        }
    }
}

impl<T> Default for FirstMade<T> {
    fn default() -> FirstMade<T> {
        FirstMade::new()
    }
}

/// What tests need of the system and nothing else does.
#[cfg(test)]
pub(crate) mod testing {
    use std::{fs::File, time::Duration};

    use super::{lock_file::LockFile, *};

    /// Forks; the child's number in the parent, `None` in the child.
    pub(crate) fn fork() -> Option<i32> {
        // SAFETY: only helper processes call this; their other threads, if any, sleep or are
        // themselves in this function, and the C library keeps its allocator usable.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "{}", io::Error::last_os_error());
        Some(child).filter(|child| *child != 0)
    }

    /// The same past the C library and its handlers.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(crate) fn clone() -> Option<i32> {
        let none = ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; with no flag but the signal it is a fork.
        let child = unsafe {
            libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, none, none, none, none)
        };
        assert!(child >= 0, "{}", io::Error::last_os_error());
        Some(child as i32).filter(|child| *child != 0)
    }

    /// How far a fork is, that begins before an open, when the open opens.
    pub(crate) fn open_beside_a_fork() -> &'static str {
        watch().unwrap();
        before_fork();
        let opener = thread::spawn(|| {
            let mut seen = "";
            let file = LockFile::open::<io::Error>(|| {
                let ended = FORKS_ENDED.load(Ordering::SeqCst) == 1;
                seen = if ended { "ended" } else { "begun" };
                File::open("/dev/null")
            });
            file.map(|_| seen).unwrap()
        });
        // Too short a sleep hides a fault, and makes none.
        thread::sleep(Duration::from_millis(50));
        after_fork_in_parent();
        opener.join().unwrap()
    }
}
