//! Files whose locks no forked child inherits.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{FORKS_BEGUN, FORKS_ENDED, FirstMade, generation, watch};

/// Takes the place of a lock descriptor in a child. Opened beforehand, never closed.
static HARMLESS: AtomicI32 = AtomicI32::new(-1);

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

/// Has it at hand what takes a lock descriptor's place. To be called before any is opened.
pub(super) fn prepare() -> io::Result<()> {
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
    Ok(())
}

/// In a child: the numbers of its parent's lock descriptors are harmless descriptors from now on. It does only
/// what is allowed after a fork: atomics and `dup3`.
pub(super) fn replace_all() {
    for (number, word) in guarded_words() {
        // The numbers are no lock descriptors any more, nor in this child's own children.
        let mut bits = word.swap(0, Ordering::SeqCst);
        while bits != 0 {
            replace_by_harmless((number * 64) as RawFd + bits.trailing_zeros() as RawFd);
            bits &= bits - 1;
        }
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
