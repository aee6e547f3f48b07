//! Readers of a forked child.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::{LockManager, RwLock, RwLockUpgradableReadGuard, Scope, fork::testing::fork};

const LONG: Duration = Duration::from_secs(30);

/// Whether the child of a fork says yes, and within some time.
fn child_says(ask: impl FnOnce() -> bool) -> bool {
    let Some(child) = fork() else {
        let says = ask();
        // Nothing of the parent's is dropped.
        match says {
            true => std::process::exit(0),
            false => std::process::abort(),
        }
    };
    let child = Pid::from_raw(child).unwrap();
    let begin = Instant::now();
    loop {
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
            return status.exit_status() == Some(0);
        }
        if begin.elapsed() > LONG {
            let _ = kill_process(child, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The child has no share record yet: a reader that finds the gate open makes it first.
#[test]
fn a_forked_child_reads_beside_an_upgradable_reader_of_its_parent() {
    let files = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(files.path()).open().unwrap();
    let lock: RwLock<u8> = locks.rw_lock("a", 7).scope(Scope::Process).build().unwrap();
    drop(lock.read().unwrap());
    let seen = lock.upgradable_read().unwrap();
    let tries = || lock.try_read().is_ok_and(|read| *read == 7);
    assert!(child_says(tries), "a try");
    assert!(child_says(|| tries() && lock.try_read_for(LONG).is_ok_and(|read| *read == 7)));
    assert!(child_says(|| lock.try_read_for(LONG).is_ok()), "a wait");
    assert!(child_says(|| {
        let read = futures::executor::block_on(lock.read_async());
        read.is_ok()
    }));
    let written = RwLockUpgradableReadGuard::upgrade(seen).unwrap();
    assert!(!child_says(tries));
    drop(written);
}
