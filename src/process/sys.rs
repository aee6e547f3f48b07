//! The process tier's `unsafe` code: words in a shared mapping, locks on single bytes, futexes.
//!
//! It knows nothing of names, tokens or holders.

use std::{
    fs::File,
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

/// How many words a lock file has.
pub(super) const WORDS: usize = 512;
/// How many bytes that is.
pub(super) const BYTES: usize = WORDS * size_of::<u64>();

/// The words of a lock file, shared with every process that has it mapped.
///
/// Other processes write them at any time, so they are atomics and nothing else ever points into
/// the mapping. A user that may write the file can also truncate it, and then the next access
/// ends this process with SIGBUS; nothing prevents that.
pub(super) struct Words(MmapRaw);

impl Words {
    /// Maps `file`. The caller has checked that its length is [`BYTES`].
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

/// uv#15996: an interrupted call has not failed.
pub(super) fn retried(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(e) => unless_interrupted(e)?,
        }
    }
}

pub(super) fn unless_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
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
    use std::{
        os::fd::{AsFd, AsRawFd},
        ptr,
    };

    use super::*;

    /// Locks the byte at `at`; `false` if another description has it locked.
    pub(in super::super) fn hold(file: &File, at: i64) -> io::Result<bool> {
        let mut byte = exclusive(at);
        match control(file.as_fd(), libc::F_OFD_SETLK, &mut byte) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether another description has the byte at `at` locked. Takes no lock.
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

/// Sleeping on the low half of a word that processes share, and waking the sleepers there.
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
))]
pub(super) mod futex {
    use std::{iter, num::NonZeroU32, ptr, sync::atomic::AtomicU32, time::Duration};

    use rustix::{
        io::Errno,
        thread::futex::{
            Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags, wait, wait_bitset, waitv,
            wake_bitset,
        },
        time::ClockId,
    };

    use super::*;
    use crate::system;

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

    /// Wakes up to `most` sleepers on `word` that share one of `bits`; whether there was one.
    pub(in super::super) fn wake(word: &AtomicU64, bits: NonZeroU32, most: u32) -> bool {
        // It fails only where the memory is gone, and then each sleeper finds out by itself.
        wake_bitset(low_half(word), Flags::empty(), most, bits).is_ok_and(|woken| woken > 0)
    }

    /// Sleeps for at most `longest` while `word` is `seen`; fails as [`sleep`] does.
    pub(in super::super) fn sleep_on(
        word: &AtomicU32,
        seen: u32,
        longest: Duration,
    ) -> Result<(), Errno> {
        wait_bitset(word, Flags::empty(), seen, Some(&after(longest)), ALL)
    }

    /// Wakes all that sleep on `word`.
    pub(in super::super) fn wake_all_on(word: &AtomicU32) {
        // As in `wake`.
        let _ = wake_bitset(word, Flags::empty(), u32::MAX >> 1, ALL);
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
        sleep_on_any(own, others.map(|(word, seen)| (low_half(word), seen)), longest)
    }

    /// The same, of whole words.
    pub(in super::super) fn sleep_on_any<'a>(
        own: (&'a AtomicU32, u32),
        others: impl Iterator<Item = (&'a AtomicU32, u32)>,
        longest: Duration,
    ) -> Result<Option<usize>, Errno> {
        let others = others.map(|(word, seen)| (word, seen, WaitFlags::SIZE_U32));
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
        let _ = wait(word, Flags::PRIVATE, seen, Some(&timespec(longest)));
    }

    fn after(wait: Duration) -> Timespec {
        timespec(Duration::from_nanos(system::monotonic()).saturating_add(wait))
    }

    fn timespec(time: Duration) -> Timespec {
        let longest = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        Timespec::try_from(time).unwrap_or(longest)
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

/// What only tests need of the system.
#[cfg(test)]
pub(super) mod testing {
    use std::ptr;

    use super::*;
    pub(crate) use crate::fork::testing::*;

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
        // SAFETY: it only sends a signal, and the caller wants its effect.
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
            std::thread::yield_now();
        }
    }
}
