//! What a lock does without: a quiet one allocates nothing and makes no system call, one that many
//! tasks wait for needs no thread for each, and neither does a manager that goes to a leader.
//!
//! A program of its own, without the test harness: its allocator counts, `strace` counts its
//! system calls, and it has no threads but those of the library. By hand:
//! `strace -f -c target/debug/deps/quiet-… cycles DIRECTORY 1000000`

mod counting;

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    task::{Context, Waker},
};

use counting::allocations;
use futures::{
    executor::block_on,
    stream::{FuturesUnordered, StreamExt},
};
use tierlock::{Engine, LockManager, Mutex, Scope};
#[cfg(feature = "host")]
use tierlock::{Leader, Secret};

/// So many system calls a million quiet cycles may make: to open the directory, to start the thread
/// of the alarms, and a look now and then whether the directory is still there.
const CALLS_MAX: usize = 200;
const MILLION: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, directory, number] = &arguments[..] {
        let (directory, number) = (Path::new(directory), number.parse().unwrap());
        return match word.as_str() {
            "cycles" => cycle(&counter(directory, 0), number),
            "in-turn" => lock_in_turn(directory, number),
            "hold" => hold(directory, number),
            _ => panic!("what is {word}?"),
        };
    }
    // The table is on little-endian 64-bit Linux only.
    if cfg!(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")) {
        a_quiet_lock_allocates_nothing();
        a_failed_try_behind_another_process_allocates_nothing();
        a_million_quiet_locks_make_no_system_calls_to_speak_of();
        names_locked_in_turn_make_few_system_calls();
        ten_thousand_tasks_that_wait_for_few_names_need_few_threads();
        #[cfg(feature = "host")]
        sixteen_managers_need_one_thread_and_leave_none();
    }
}

fn counter(directory: &Path, number: u64) -> Mutex<u64> {
    let locks = LockManager::builder().directory(directory).engine(Engine::Table).open().unwrap();
    locks.mutex(format!("counter/{number}"), 0).scope(Scope::Process).build().unwrap()
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
    let counter = counter(directory.path(), 0);
    // The first one maps and finds what the others use, and starts the thread by which later ones
    // look for the directory, once a second or in 65,536.
    cycle(&counter, 2);
    let made = allocations(|| cycle(&counter, 10_000));
    assert_eq!(made, 0, "allocations in 10,000 quiet cycles");
    assert_eq!(allocations(|| drop(Box::new(made))), 1, "allocations are counted");
    println!("quiet situation a_quiet_lock_allocates_nothing ... ok");
}

fn a_failed_try_behind_another_process_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut holder = Holder::of(directory.path(), 1);
    let counter = counter(directory.path(), 0);
    let fail = || assert!(counter.try_lock().unwrap_err().is_contended());
    fail();
    let made = allocations(|| (0..1_000).for_each(|_| fail()));
    assert_eq!(made, 0, "allocations in 1,000 failed tries");
    holder.tell();
    holder.join();
    println!("quiet situation a_failed_try_behind_another_process … ... ok");
}

fn a_million_quiet_locks_make_no_system_calls_to_speak_of() {
    let (Some(few), Some(many)) = (calls_of("cycles", 0), calls_of("cycles", MILLION)) else {
        return println!("SKIPPED: strace is not here, or may not trace");
    };
    let calls = many.saturating_sub(few);
    assert!(few > 10, "the trace shows what a program needs to start: {few}");
    assert!(calls < CALLS_MAX, "{calls} system calls in a million quiet cycles");
    println!("quiet situation a_million_quiet_locks … ({calls} system calls) ... ok");
}

/// Names that are made at run time begin above the tokens of those forgotten before them, so that
/// each of them comes by the token at which the directory is looked at: one look is for all.
fn names_locked_in_turn_make_few_system_calls() {
    const NAMES: u64 = 1_000;
    let (Some(few), Some(many)) = (calls_of("in-turn", 0), calls_of("in-turn", NAMES)) else {
        return println!("SKIPPED: strace is not here, or may not trace");
    };
    let calls = many.saturating_sub(few);
    assert!(calls < NAMES as usize / 4, "{calls} system calls to lock {NAMES} names in turn");
    println!("quiet situation names_locked_in_turn … ({calls} system calls) ... ok");
}

/// Makes a thousand names, lets another one have more tokens than are granted between two looks at
/// the directory, and locks so many of the thousand.
fn lock_in_turn(directory: &Path, number: u64) {
    let locks = LockManager::builder().directory(directory).engine(Engine::Table).open().unwrap();
    let lock = |name: u64| {
        let name = format!("in turn/{name}");
        drop(locks.mutex(name, ()).scope(Scope::Process).lock().unwrap());
    };
    (0..1_000).for_each(lock);
    cycle(&counter(directory, 0), 70_000);
    (0..number).for_each(lock);
}

/// How many system calls a process makes that does so much, its start and its end with them.
fn calls_of(what: &str, number: u64) -> Option<usize> {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let locks = directory.path().join("locks");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace).arg(std::env::current_exe().unwrap());
    strace.arg(what).arg(&locks).arg(number.to_string());
    let ended = strace.status().ok()?;
    let lines = std::fs::read_to_string(&trace).ok()?;
    let traced = lines.contains("execve(");
    assert!(ended.success() || !traced, "the traced process failed");
    traced.then(|| lines.lines().filter(|line| line.contains('(')).count())
}

/// Holds so many counters, says so, and lets them go when it is told.
fn hold(directory: &Path, counters: u64) {
    let counters: Vec<_> = (0..counters).map(|number| counter(directory, number)).collect();
    let guards: Vec<_> = counters.iter().map(|counter| counter.lock().unwrap()).collect();
    std::io::stdout().write_all(b"!").unwrap();
    std::io::stdout().flush().unwrap();
    let told = std::io::stdin().read(&mut [0]).unwrap();
    assert_eq!(told, 1, "the waiter for these locks has ended");
    drop(guards);
}

/// Another process, which holds counters.
struct Holder(Child);

impl Holder {
    /// It holds so many of them by now.
    fn of(directory: &Path, counters: u64) -> Holder {
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .arg("hold")
            .arg(directory)
            .arg(counters.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Holder(holder)
    }

    /// Tells it to release.
    fn tell(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }

    fn join(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

fn ten_thousand_tasks_that_wait_for_few_names_need_few_threads() {
    const TASKS: u64 = 10_000;
    const NAMES: u64 = 5;
    let directory = tempfile::tempdir().unwrap();
    let mut holder = Holder::of(directory.path(), NAMES);
    let counters: Vec<_> = (0..NAMES).map(|number| counter(directory.path(), number)).collect();
    let count = |counter| async move { *Mutex::lock_async(counter).await.unwrap() += 1 };
    let tasks = (0..TASKS).map(|task| count(&counters[(task % NAMES) as usize]));
    let mut tasks: FuturesUnordered<_> = tasks.collect();
    assert!(tasks.poll_next_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    // This one, and at least one that waits.
    assert!((2..10).contains(&threads), "{threads} threads for {TASKS} tasks on {NAMES} names");
    holder.tell();
    assert_eq!(block_on(tasks.count()), TASKS as usize);
    holder.join();
    let counts: Vec<_> = counters.iter().map(|counter| *counter.lock().unwrap()).collect();
    assert_eq!(counts, [TASKS / NAMES; NAMES as usize]);
    println!("quiet situation ten_thousand_tasks … ({threads} threads) ... ok");
}

#[cfg(feature = "host")]
fn sixteen_managers_need_one_thread_and_leave_none() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    Secret::create(&key).unwrap();
    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(directory.path().join("state"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(&key)
        .start()
        .unwrap();
    let address = leader.local_addr().to_string();
    let manager = |_| LockManager::builder().leaders([&address]).secret_file(&key).open().unwrap();
    let managers: Vec<_> = (0..16).map(manager).collect();
    let mutexes: Vec<_> = managers
        .iter()
        .map(|locks| locks.mutex("name", 0_u64).scope(Scope::Host).build().unwrap())
        .collect();
    std::thread::scope(|scope| {
        for mutex in &mutexes {
            scope.spawn(|| (0..10).for_each(|_| *mutex.lock().unwrap() += 1));
        }
    });
    let carry = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("tierlock-client")).count()
    };
    assert_eq!(carry(), 1);
    for locks in managers.into_iter().skip(1) {
        locks.close();
    }
    assert_eq!(*mutexes[0].lock().unwrap(), 10, "the others are none of its business");
    assert_eq!(carry(), 1);
    drop(mutexes);
    let begin = std::time::Instant::now();
    while carry() > 0 {
        assert!(begin.elapsed().as_secs() < 20, "a thread is left");
        std::thread::yield_now();
    }
    println!("quiet situation sixteen_managers_need_one_thread_and_leave_none ... ok");
}
