//! The calls of the C library that this library needs everywhere and that nothing safe wraps.

/// Nanoseconds on a clock that never goes back and, on Linux, counts the time of a suspended
/// machine.
///
/// Through the C library, which falls back on a system call where the kernel's page of code cannot
/// be read: under valgrind 3.19 rustix, which reads that page itself, jumps to nowhere.
pub(crate) fn clock() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    read(CLOCK)
}

/// Nanoseconds on the clock that the kernel's sleeps are given in.
#[cfg(all(
    feature = "process",
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
))]
pub(crate) fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that this call alone has.
    let result = unsafe { libc::clock_gettime(clock, &raw mut now) };
    assert_eq!(result, 0, "the system has no such clock");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Has `hook` called when the process ends by `exit` or by returning from `main`, on the thread
/// that ends it, while all others still run. It must not panic. Whether it will be called.
#[cfg(feature = "host")]
pub(crate) fn at_exit(hook: extern "C" fn()) -> bool {
    // SAFETY: a function that takes nothing may be called at any time, and `hook` is there for as
    // long as this library is: glibc calls it before it unloads that.
    unsafe { libc::atexit(hook) == 0 }
}
