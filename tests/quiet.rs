//! What a quiet lock does not do: it allocates nothing and makes no system call.
//!
//! A program of its own, without the test harness: its allocator counts, and `strace` counts its
//! system calls. By hand:
//! `strace -f -c target/debug/deps/quiet-… cycles DIRECTORY 1000000`

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tierlock::{Engine, LockManager, Mutex, Scope};

/// So many system calls a million quiet cycles may make: a look now and then whether the directory
/// is still there.
const CALLS_MAX: usize = 100;
const MILLION: u64 = 1_000_000;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: it hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory came from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, directory, cycles] = &arguments[..]
        && word == "cycles"
    {
        return cycle(&counter(Path::new(directory)), cycles.parse().unwrap());
    }
    // The table is on little-endian 64-bit Linux only.
    if cfg!(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")) {
        a_quiet_lock_allocates_nothing();
        a_million_quiet_locks_make_no_system_calls_to_speak_of();
    }
}

fn counter(directory: &Path) -> Mutex<u64> {
    let locks = LockManager::builder().directory(directory).engine(Engine::Table).open().unwrap();
    locks.mutex("counter", 0).scope(Scope::Process).build().unwrap()
}

fn cycle(counter: &Mutex<u64>, cycles: u64) {
    let before = *counter.lock().unwrap();
    for _ in 0..cycles / 2 {
        *counter.lock().unwrap() += 1;
        *counter.try_lock().unwrap() += 1;
    }
    assert_eq!(*counter.lock().unwrap(), before + cycles);
}

fn a_quiet_lock_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let counter = counter(directory.path());
    // The first one maps and finds what the others use; later ones look for the directory, once
    // in 65,536.
    cycle(&counter, 2);
    let before = ALLOCATIONS.load(Relaxed);
    cycle(&counter, 50_000);
    assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "allocations in 50,000 quiet cycles");
    drop(Box::new(before));
    assert_eq!(ALLOCATIONS.load(Relaxed) - before, 1, "allocations are counted");
    println!("quiet situation a_quiet_lock_allocates_nothing ... ok");
}

fn a_million_quiet_locks_make_no_system_calls_to_speak_of() {
    let (Some(few), Some(many)) = (calls_of(0), calls_of(MILLION)) else {
        return println!("SKIPPED: strace is not here, or may not trace");
    };
    let calls = many.saturating_sub(few);
    assert!(few > 10, "the trace shows what a program needs to start: {few}");
    assert!(calls < CALLS_MAX, "{calls} system calls in a million quiet cycles");
    println!("quiet situation a_million_quiet_locks … ({calls} system calls) ... ok");
}

/// How many system calls a process makes that locks so often, its start and its end with them.
fn calls_of(cycles: u64) -> Option<usize> {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let locks = directory.path().join("locks");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace).arg(std::env::current_exe().unwrap());
    strace.arg("cycles").arg(&locks).arg(cycles.to_string());
    let ended = strace.status().ok()?;
    let lines = std::fs::read_to_string(&trace).ok()?;
    let traced = lines.contains("execve(");
    assert!(ended.success() || !traced, "the traced process failed");
    traced.then(|| lines.lines().filter(|line| line.contains('(')).count())
}
