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
//! A lock file is not inherited at all: see [`LockFile`].

use std::{
    fs::File,
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[cfg_attr(tierlock_loom, allow(unused_imports, reason = "the models have their own"))]
pub(crate) use crate::latches::{
    Latch as Mutex, LatchCondvar as Condvar, LatchGuard as MutexGuard,
};

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
/// Takes the place of a lock descriptor in a child. Opened beforehand, never closed.
static HARMLESS: AtomicI32 = AtomicI32::new(-1);

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
    if HARMLESS.load(Ordering::SeqCst) < 0 {
        let harmless: OwnedFd = match File::open("/dev/null") {
            Ok(null) => null.into(),
            // No /dev here: the end of a pipe does nothing either.
            Err(_) => io::pipe()?.0.into(),
        };
        let (none, order) = (-1, Ordering::SeqCst);
        if HARMLESS.compare_exchange(none, harmless.as_raw_fd(), order, order).is_ok() {
            // Never closed.
            let _ = harmless.into_raw_fd();
        }
    }
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
    for (number, word) in guarded_words() {
        // The numbers are no lock descriptors any more, nor in this child's own children.
        let mut bits = word.swap(0, Ordering::SeqCst);
        while bits != 0 {
            replace_by_harmless((number * 64) as RawFd + bits.trailing_zeros() as RawFd);
            bits &= bits - 1;
        }
    }
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

/// A value that is replaced now and then. What was replaced stays where it is for as long as this lives:
/// another thread may be about to use it.
pub(crate) struct LatestMade<T> {
    first: T,
    /// Null while the first one is.
    latest: AtomicPtr<Replacement<T>>,
    /// It is shared and dropped as such a cell is.
    shape: PhantomData<OnceLock<T>>,
}

struct Replacement<T> {
    value: T,
    /// What was the latest before: null for the first.
    before: *mut Replacement<T>,
}

impl<T> LatestMade<T> {
    pub(crate) fn new(first: T) -> LatestMade<T> {
        LatestMade { first, latest: AtomicPtr::new(ptr::null_mut()), shape: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> &T {
        let latest = self.latest.load(Ordering::Acquire);
        // SAFETY: null, or out of `Box::into_raw` in `replace`, which publishes it for as long as `self`
        // lives.
        match unsafe { latest.as_ref() } {
            None => &self.first,
            Some(replacement) => &replacement.value,
        }
    }

    /// From now on it is this one, unless another thread has replaced what was `seen`.
    pub(crate) fn replace(&self, seen: &T, value: T) {
        let before = self.latest.load(Ordering::Acquire);
        // SAFETY: as in `get`.
        let latest = unsafe { before.as_ref() }.map_or(&self.first, |latest| &latest.value);
        if !ptr::eq(latest, seen) {
            return;
        }
        let new = Box::into_raw(Box::new(Replacement { value, before }));
        if self.latest.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: it came out of `Box::into_raw` above and was not published.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

impl<T> Drop for LatestMade<T> {
    fn drop(&mut self) {
        let mut latest = *self.latest.get_mut();
        while !latest.is_null() {
            // SAFETY: out of `Box::into_raw` in `replace`, once in this list, and borrowed from a `self`
            // that is no more.
            let replacement = unsafe { Box::from_raw(latest) };
            latest = replacement.before;
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

// ---- lock descriptors ------------------------------------------------------------------------

/// A file with an open file description that may be locked, and which forked children therefore do not
/// inherit: a child finds a harmless descriptor under its number.
///
/// A child made by a bare `clone`, past `pthread_atfork`, has it until it uses a lock or a lock file
/// for the first time; for good, if another thread was just opening one. A child made by `vfork` has
/// it until it executes another program.
pub(crate) struct LockFile(File);

impl LockFile {
    /// Keeps what `open` opens out of every fork, also of one that happens right now.
    pub(crate) fn open<E: From<io::Error>>(
        mut open: impl FnMut() -> Result<File, E>,
    ) -> Result<LockFile, E> {
        watch()?;
        // A child that no handler was told of closes its parent's before it has any of its own.
        generation();
        loop {
            let begun = quiet_since()?;
            let file = LockFile(open()?);
            guarded_bits(file.0.as_raw_fd(), |bits, bit| bits.fetch_or(bit, Ordering::SeqCst));
            // A fork in between may have copied the descriptor and not the bit. No thread has locked
            // that description yet, and none will.
            if FORKS_BEGUN.load(Ordering::SeqCst) == begun {
                return Ok(file);
            }
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // The description goes before the bit, so that no fork copies it unnoticed, and the
        // number after the bit, so that no fork disturbs its next user.
        replace_by_harmless(self.0.as_raw_fd());
        guarded_bits(self.0.as_raw_fd(), |bits, bit| bits.fetch_and(!bit, Ordering::SeqCst));
    }
}

/// How many forks have begun, at a moment when each of them has ended.
fn quiet_since() -> io::Result<u64> {
    const LONGEST: Duration = Duration::from_secs(10);
    let start = Instant::now();
    loop {
        let begun = FORKS_BEGUN.load(Ordering::SeqCst);
        if FORKS_ENDED.load(Ordering::SeqCst) == begun {
            return Ok(begun);
        }
        if start.elapsed() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a fork does not come to its end"));
        }
        thread::sleep(Duration::from_micros(100));
    }
}

fn replace_by_harmless(fd: RawFd) {
    let harmless = HARMLESS.load(Ordering::SeqCst);
    loop {
        #[cfg(not(target_vendor = "apple"))]
        // SAFETY: `fd` is a lock descriptor, which `LockFile` owns and alone uses; its number
        // stays taken and is closed by its owner.
        let result = unsafe { libc::dup3(harmless, fd, libc::O_CLOEXEC) };
        #[cfg(target_vendor = "apple")]
        // SAFETY: as above.
        let result = unsafe { libc::dup2(harmless, fd) };
        // Any other failure means that other code closed descriptors that were not its own.
        let again = [Some(libc::EINTR), Some(libc::EBUSY)];
        if result >= 0 || !again.contains(&io::Error::last_os_error().raw_os_error()) {
            return;
        }
    }
}

/// Which descriptors are lock descriptors: a bit each, in chunks that are never freed, so that a
/// forked child can read them without a lock whatever its parent's threads were doing.
struct Guarded {
    words: [AtomicU64; GUARDED_WORDS],
    next: FirstMade<Guarded>,
}

const GUARDED_WORDS: usize = 64;
static GUARDED: Guarded = Guarded::new();

impl Guarded {
    const fn new() -> Guarded {
        Guarded { words: [const { AtomicU64::new(0) }; GUARDED_WORDS], next: FirstMade::new() }
    }
}

fn guarded_bits(fd: RawFd, change: impl FnOnce(&AtomicU64, u64) -> u64) {
    let fd = usize::try_from(fd).expect("a descriptor is not negative");
    let mut chunk = &GUARDED;
    for _ in 0..fd / (GUARDED_WORDS * 64) {
        chunk = chunk.next.get_or_make(Guarded::new);
    }
    change(&chunk.words[fd / 64 % GUARDED_WORDS], 1 << (fd % 64));
}

fn guarded_words() -> impl Iterator<Item = (usize, &'static AtomicU64)> {
    std::iter::successors(Some(&GUARDED), |chunk| chunk.next.get())
        .flat_map(|chunk| chunk.words.iter())
        .enumerate()
}

/// What tests need of the system and nothing else does.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

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
