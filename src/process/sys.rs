//! The process tier's only `unsafe` code: words in a shared mapping, descriptors that a forked
//! child does not inherit, locks on single bytes.
//!
//! It knows nothing of names, tokens or holders.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use memmap2::{MmapOptions, MmapRaw};

/// How many words a lock file has.
pub(super) const WORDS: usize = 512;
/// How many bytes that is.
pub(super) const BYTES: usize = WORDS * size_of::<u64>();

/// The words of a lock file, shared with every process that has it mapped.
///
/// Other processes write them at any time, so they are atomics and nothing else ever points into
/// the mapping. Whoever may write the file can also truncate it, and then the next access ends
/// this process with SIGBUS; nothing prevents that.
pub(super) struct Words(MmapRaw);

impl Words {
    /// Maps `file`, whose length the caller has found to be [`BYTES`].
    ///
    /// The mapping keeps the open file description of `file` alive, also in forked children, so
    /// it must not be a description that is ever locked.
    pub(super) fn map(file: &File) -> io::Result<Words> {
        MmapOptions::new().len(BYTES).map_raw(file).map(Words)
    }

    pub(super) fn load(&self, at: usize) -> u64 {
        self.all()[at].load(Ordering::Acquire)
    }

    pub(super) fn store(&self, at: usize, value: u64) {
        self.all()[at].store(value, Ordering::Release);
    }

    fn all(&self) -> &[AtomicU64; WORDS] {
        let first = self.0.as_ptr().cast::<[AtomicU64; WORDS]>();
        // SAFETY: `map` made the mapping readable, writable and BYTES long, it starts at a page
        // and `self` keeps it for as long as the reference lives; any bits are an AtomicU64, and
        // this reference is the only way in which this process ever touches the memory.
        unsafe { &*first }
    }
}

/// A file whose open file description may be locked, and which forked children therefore do not
/// inherit: a child finds a harmless descriptor under its number.
///
/// A child made by a bare `clone`, past `pthread_atfork`, has it until it uses a lock or a lock file
/// for the first time; for good, if another thread was just opening one. A child made by `vfork` has
/// it until it executes another program.
pub(super) struct LockFile(File);

impl LockFile {
    /// Keeps what `open` opens out of every fork, also of one that happens right now.
    pub(super) fn open<E: From<io::Error>>(
        mut open: impl FnMut() -> Result<File, E>,
    ) -> Result<LockFile, E> {
        watch_forks()?;
        // A child that no handler was told of closes its parent's before it has any of its own.
        generation();
        loop {
            let begun = quiet_since()?;
            let file = LockFile(open()?);
            guarded_bits(file.0.as_raw_fd(), |bits, bit| bits.fetch_or(bit, Ordering::SeqCst));
            // A fork in between may have copied the descriptor and not the bit. Nobody has locked
            // that description yet, and nobody will.
            if FORKS_BEGUN.load(Ordering::SeqCst) == begun {
                return Ok(file);
            }
        }
    }

    pub(super) fn file(&self) -> &File {
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

/// A number that differs between a process and every process forked from it.
///
/// One load, of a page that the kernel wipes in every child, also in one that was made by a bare
/// `clone`.
#[inline]
pub(super) fn generation() -> u64 {
    match mark().load(Ordering::Relaxed) {
        UNKNOWN | BEING_FOUND => find_generation(),
        mark => mark - 1,
    }
}

/// The mark of this process: its generation plus one, or one of these.
fn mark() -> &'static AtomicU64 {
    let mark = MARK.load(Ordering::Acquire);
    // SAFETY: it points to `FIRST_MARK`, or into a page that `wiped_in_children` mapped for good.
    unsafe { &*mark }
}

/// What the kernel leaves in a child's page.
const UNKNOWN: u64 = 0;
const BEING_FOUND: u64 = u64::MAX;

/// Where the mark is until somebody watches forks, and where no page can be wiped.
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
    // SAFETY: new memory, wherever the kernel likes; nobody else knows of it.
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
pub(super) const FIRST_GENERATION: u64 = 0;

static GENERATION: AtomicU64 = AtomicU64::new(FIRST_GENERATION);
static FORKS_BEGUN: AtomicU64 = AtomicU64::new(0);
static FORKS_ENDED: AtomicU64 = AtomicU64::new(0);
/// Takes the place of a lock descriptor in a child. Opened beforehand, never closed.
static HARMLESS: AtomicI32 = AtomicI32::new(-1);

/// Sets the fork handlers, once for this process and all that are forked from it.
pub(super) fn watch_forks() -> io::Result<()> {
    static WATCHED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    WATCHED.get_or_init(|| set_fork_handlers().map_err(|e| e.kind())).map_err(io::Error::from)
}

fn set_fork_handlers() -> io::Result<()> {
    let harmless: OwnedFd = match File::open("/dev/null") {
        Ok(null) => null.into(),
        // No /dev here: the end of a pipe does nothing either.
        Err(_) => io::pipe()?.0.into(),
    };
    HARMLESS.store(harmless.as_raw_fd(), Ordering::SeqCst);
    std::mem::forget(harmless);
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
        // The numbers are nobody's lock descriptors any more, nor in this child's own children.
        let mut bits = word.swap(0, Ordering::SeqCst);
        while bits != 0 {
            replace_by_harmless((number * 64) as RawFd + bits.trailing_zeros() as RawFd);
            bits &= bits - 1;
        }
    }
    mark().store(generation + 1, Ordering::Release);
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
        // Any other failure means that somebody closed descriptors that were not theirs.
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
    next: AtomicPtr<Guarded>,
}

const GUARDED_WORDS: usize = 64;
static GUARDED: Guarded = Guarded::new();

impl Guarded {
    const fn new() -> Guarded {
        Guarded {
            words: [const { AtomicU64::new(0) }; GUARDED_WORDS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Guarded> {
        let next = self.next.load(Ordering::SeqCst);
        // SAFETY: `next` is null or came out of `Box::into_raw` in `next_or_new`, which alone
        // stores it and gives it up for good.
        unsafe { next.as_ref() }
    }

    fn next_or_new(&self) -> &'static Guarded {
        loop {
            if let Some(next) = self.next() {
                return next;
            }
            let new = Box::new(Guarded::new());
            let new = Box::into_raw(new);
            let old = ptr::null_mut();
            if self.next.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                // SAFETY: `new` came out of `Box::into_raw` above and was not published.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
}

fn guarded_bits(fd: RawFd, change: impl FnOnce(&AtomicU64, u64) -> u64) {
    let fd = usize::try_from(fd).expect("a descriptor is not negative");
    let mut chunk = &GUARDED;
    for _ in 0..fd / (GUARDED_WORDS * 64) {
        chunk = chunk.next_or_new();
    }
    change(&chunk.words[fd / 64 % GUARDED_WORDS], 1 << (fd % 64));
}

fn guarded_words() -> impl Iterator<Item = (usize, &'static AtomicU64)> {
    std::iter::successors(Some(&GUARDED), |chunk| chunk.next())
        .flat_map(|chunk| chunk.words.iter())
        .enumerate()
}

/// A lock on one byte of a file, held by an open file description for as long as it is open
/// (`F_OFD_SETLK`). Unlike a whole-file lock it can be looked at without being touched.
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "powerpc64",
        target_arch = "s390x",
        target_arch = "loongarch64"
    )
))]
pub(super) mod byte_lock {
    use super::*;

    /// Locks the byte at `at`; whether nobody else has it.
    pub(in super::super) fn hold(file: &File, at: i64) -> io::Result<bool> {
        let mut byte = exclusive(at);
        match control(file.as_fd(), libc::F_OFD_SETLK, &mut byte) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether another description has the byte at `at` locked. Disturbs nobody.
    pub(in super::super) fn is_held(file: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
        let mut byte = exclusive(at);
        control(file, libc::F_OFD_GETLK, &mut byte)?;
        Ok(byte.l_type != libc::F_UNLCK as libc::c_short)
    }

    fn exclusive(at: i64) -> libc::flock {
        libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: at,
            l_len: 1,
            l_pid: 0,
        }
    }

    fn control(file: BorrowedFd<'_>, what: libc::c_int, byte: &mut libc::flock) -> io::Result<()> {
        loop {
            // SAFETY: `file` is open for the length of the call; the kernel reads and writes one
            // `flock`, which `byte` borrows exclusively.
            let result = unsafe { libc::fcntl(file.as_raw_fd(), what, ptr::from_mut(byte)) };
            if result >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Where there are no such locks.
#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "powerpc64",
        target_arch = "s390x",
        target_arch = "loongarch64"
    )
)))]
pub(super) mod byte_lock {
    use super::*;

    pub(in super::super) fn hold(_: &File, _: i64) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn is_held(_: BorrowedFd<'_>, _: i64) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Sleeping on the low half of a word that processes share, and waking who sleeps there.
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
))]
pub(super) mod futex {
    use std::{iter, num::NonZeroU32, sync::atomic::AtomicU32};

    use rustix::{
        io::Errno,
        thread::futex::{
            Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags, wait, wait_bitset, waitv,
            wake_bitset,
        },
        time::{ClockId, clock_gettime},
    };

    use super::*;

    /// Every sleeper, and a sleeper that every wake reaches.
    pub(in super::super) const ALL: NonZeroU32 = NonZeroU32::MAX;

    /// The sleepers with this number, and every thirty-second other one.
    pub(in super::super) const fn bit(number: u16) -> NonZeroU32 {
        NonZeroU32::new(1 << (number % 32)).expect("one bit is set")
    }

    /// Sleeps for at most `longest` while the low half of `word` is `seen`. Fails with `AGAIN` if
    /// it is not, with `TIMEDOUT`, with `INTR`, and with `FAULT` where the memory is gone.
    pub(in super::super) fn sleep(
        word: &AtomicU64,
        seen: u32,
        bits: NonZeroU32,
        longest: Duration,
    ) -> Result<(), Errno> {
        wait_bitset(low_half(word), Flags::empty(), seen, Some(&after(longest)), bits)
    }

    /// Wakes up to `most` of those who sleep on `word` as one of `bits`; whether there was one.
    pub(in super::super) fn wake(word: &AtomicU64, bits: NonZeroU32, most: u32) -> bool {
        // It fails only where the memory is gone, and then whoever sleeps finds out by itself.
        wake_bitset(low_half(word), Flags::empty(), most, bits).is_ok_and(|woken| woken > 0)
    }

    /// On so many words one thread can sleep.
    pub(in super::super) const MANY: usize = 128;

    /// Whether the system lets it (Linux 5.16; some sandboxes do not know of it).
    pub(in super::super) fn can_sleep_on_many() -> bool {
        // No words at all are an error of their own where the call is known.
        let none = waitv(&[], WaitvFlags::empty(), None, ClockId::Monotonic);
        none.is_err_and(|error| error == Errno::INVAL)
    }

    /// Sleeps until one of the words is woken, for at most `longest`, while they are what was
    /// seen: the low halves of `others`, fewer than [`MANY`], and `own`, which only this process
    /// has. Which of the others it was; also those before that one may have been woken.
    pub(in super::super) fn sleep_on_many<'a>(
        own: (&'a AtomicU32, u32),
        others: impl Iterator<Item = (&'a AtomicU64, u32)>,
        longest: Duration,
    ) -> Result<Option<usize>, Errno> {
        let others = others.map(|(word, seen)| (low_half(word), seen, WaitFlags::SIZE_U32));
        let own = (own.0, own.1, WaitFlags::SIZE_U32 | WaitFlags::PRIVATE);
        let mut words = [Wait::new(); MANY];
        let mut count = 0;
        for (place, (word, seen, flags)) in words.iter_mut().zip(iter::once(own).chain(others)) {
            place.val = seen.into();
            place.uaddr = WaitPtr::new(word.as_ptr().cast());
            place.flags = flags;
            count += 1;
        }
        let until = after(longest);
        let words = &words[..count];
        // The kernel answers with the last one that was woken.
        let woken = waitv(words, WaitvFlags::empty(), Some(&until), ClockId::Monotonic)?;
        Ok(woken.checked_sub(1))
    }

    /// Wakes the thread that sleeps on this word, which only this process has.
    pub(in super::super) fn poke(word: &AtomicU32) {
        let _ = rustix::thread::futex::wake(word, Flags::PRIVATE, 1);
    }

    /// Sleeps for about as long, or until it is poked, while `word` is `seen`.
    pub(in super::super) fn sleep_until_poked(word: &AtomicU32, seen: u32, longest: Duration) {
        let longest =
            Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
        let _ = wait(word, Flags::PRIVATE, seen, Some(&longest));
    }

    fn after(wait: Duration) -> Timespec {
        let now = clock_gettime(ClockId::Monotonic);
        let nanos = now.tv_nsec + i64::from(wait.subsec_nanos());
        let seconds = wait.as_secs() as i64 + nanos / 1_000_000_000;
        Timespec { tv_sec: now.tv_sec + seconds, tv_nsec: nanos % 1_000_000_000 }
    }

    /// Only the kernel ever looks through it.
    fn low_half(word: &AtomicU64) -> &AtomicU32 {
        let first = ptr::from_ref(word).cast::<AtomicU32>();
        // SAFETY: the first four bytes of the eight that the reference keeps valid, aligned
        // better than they need be, inside an UnsafeCell as every atomic is; this program only
        // passes their address on and never reads or writes them in this size.
        unsafe { &*first }
    }
}

/// What tests need of the system and nobody else does.
#[cfg(test)]
pub(super) mod testing {
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
    pub(in super::super) fn clone() -> Option<i32> {
        let none = ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; with no flag but the signal it is a fork.
        let child = unsafe {
            libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, none, none, none, none)
        };
        assert!(child >= 0, "{}", io::Error::last_os_error());
        Some(child as i32).filter(|child| *child != 0)
    }

    /// How far a fork is, that begins before an open, when the open opens.
    pub(in super::super) fn open_beside_a_fork() -> &'static str {
        watch_forks().unwrap();
        before_fork();
        let opener = thread::spawn(|| {
            let mut seen = "";
            let file = LockFile::open(|| {
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

    /// Does nothing until a signal ends the process, at the latest its own alarm.
    pub(in super::super) fn linger() -> ! {
        // SAFETY: it only arms this process's alarm.
        unsafe { libc::alarm(120) };
        loop {
            // SAFETY: it only waits.
            unsafe { libc::pause() };
        }
    }

    /// Ends the process without any of its own code.
    pub(in super::super) fn exit_at_once() -> ! {
        // SAFETY: it does not return, and runs nothing of this process.
        unsafe { libc::_exit(0) }
    }

    /// Sends this very thread a signal, and returns when it has been acted upon. One that is sent
    /// to the process may be taken by another thread, while this one still runs on.
    pub(in super::super) fn signal_this_thread(signal: i32) {
        // SAFETY: it only sends a signal, whose effect the caller wants.
        let failed = unsafe { libc::raise(signal) };
        assert_eq!(failed, 0);
    }

    static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

    /// Makes SIGUSR1 interrupt system calls.
    pub(in super::super) fn let_signals_interrupt() {
        extern "C" fn count(_: libc::c_int) {
            INTERRUPTIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: all zeros are a valid `sigaction`: no flags, so no SA_RESTART, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as usize;
        // SAFETY: both pointers are valid for the call; the handler only counts.
        let result = unsafe { libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()) };
        assert_eq!(result, 0);
    }

    /// Sends SIGUSR1 to a thread of this process that is still running, and waits until it is
    /// out of the system call it was in.
    pub(in super::super) fn interrupt(thread: &std::thread::JoinHandle<()>) {
        use std::os::unix::thread::JoinHandleExt;
        let before = INTERRUPTIONS.load(Ordering::SeqCst);
        // SAFETY: the thread is not joined, so its handle is valid.
        let result = unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
        assert_eq!(result, 0);
        while INTERRUPTIONS.load(Ordering::SeqCst) == before {
            thread::yield_now();
        }
    }
}
