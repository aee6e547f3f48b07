//! A program that uses this crate runs under valgrind, where that is installed.

use std::{process::Command, time::Duration};

use tierlock::{LockManager, Mutex, MutexGuard, Scope};

use crate::setting::LONG;

/// Tells the binary that it is the program.
const PROGRAM: &str = "TIERLOCK_TEST_VALGRIND";

/// A part of the test below, which starts it: everything that reads the clock.
#[test]
fn program() {
    let Some(directory) = std::env::var_os(PROGRAM) else { return };
    let plain = Mutex::new(0);
    *plain.try_lock_for(LONG).unwrap() += 1;
    let locks = LockManager::builder().directory(directory).open().unwrap();
    let guard = locks.mutex("a", ()).at_most(LONG).scope(Scope::Process).try_lock_for(LONG);
    let guard = guard.unwrap();
    assert!(MutexGuard::remaining(&guard).unwrap() <= LONG);
    drop(guard);
    // The process that started this one has it. A task's wait sleeps on many words at once.
    let held = locks.mutex("held", ()).build().unwrap();
    let wait = held.try_lock_for_async(Duration::from_millis(20));
    assert!(futures::executor::block_on(wait).unwrap_err().is_timeout());
    let memory = LockManager::in_memory();
    memory.mutex("a", ()).try_lock_for(LONG).map(MutexGuard::unlock).unwrap().unwrap();
}

#[test]
fn a_program_runs_under_valgrind() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: valgrind is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(directory.path()).open().unwrap();
    let _held = locks.mutex("held", ()).lock().unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=none", "--error-exitcode=99"]).arg(std::env::current_exe().unwrap());
    valgrind.args(["valgrind::program", "--exact", "--test-threads=1"]);
    let output = valgrind.env(PROGRAM, directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}
