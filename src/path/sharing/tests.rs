//! Readers of a forked child, upgradable readers that have lost their right, and tokens that are exhausted.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Named;
use crate::{
    LockManager, Mutex, Predecessor, RwLock, RwLockUpgradableReadGuard, Scope, Token,
    fork::testing::fork,
    path::{Core, Plain},
};

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

fn named_of<T>(lock: &RwLock<T>) -> &Named {
    match lock.core() {
        Core::Named(named) => named,
        Core::Plain(_) => unreachable!("it was built with a name"),
    }
}

/// As another process does that takes this one for dead, locks the name and unlocks it.
fn lose<T>(lock: &RwLock<T>) {
    named_of(lock).entry.slot().expect("the name has a slot").release(Predecessor::Clean);
}

/// Its gate is free then, and the next thread of this process wins it by the fast path.
#[test]
fn beside_an_upgradable_reader_that_has_lost_its_right_no_writer_comes_in() {
    let files = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(files.path()).open().unwrap();
    let lock: RwLock<u8> = locks.rw_lock("a", 7).scope(Scope::Process).build().unwrap();
    let mutex: Mutex<()> = locks.mutex("a", ()).scope(Scope::Process).build().unwrap();
    let is_free = || {
        let to_write = lock.try_write().is_ok();
        (to_write, mutex.try_lock().is_ok())
    };
    assert_eq!(is_free(), (true, true));

    let seen = lock.upgradable_read().unwrap();
    lose(&lock);
    assert_eq!(is_free(), (false, false), "beside one that reads");
    drop(seen);
    assert_eq!(is_free(), (true, true));

    let seen = RwLockUpgradableReadGuard::upgrade(lock.upgradable_read().unwrap()).unwrap();
    lose(&lock);
    assert_eq!(is_free(), (false, false), "beside the writer that it became");
    drop(seen);
    assert_eq!(is_free(), (true, true));

    let (seen, read) = (lock.upgradable_read().unwrap(), lock.read().unwrap());
    let seen = RwLockUpgradableReadGuard::try_upgrade(seen).unwrap_err();
    drop(read);
    lose(&lock);
    assert_eq!(is_free(), (false, false), "after an upgrade in vain");
    drop(seen);
    assert_eq!(is_free(), (true, true));
}

/// A holder that unwinds gives back what it has won: released before that, it would release another's hold.
#[test]
fn of_exhausted_tokens_a_lock_is_released_once() {
    let last = Token::new(Token::MAX.get() - 1).unwrap();
    let plain = RwLock::new(0);
    let named: RwLock<u8> = LockManager::builder()
        .directory(tempfile::tempdir().unwrap().path())
        .open()
        .unwrap()
        .rw_lock("a", 0)
        .scope(Scope::Thread)
        .build()
        .unwrap();
    for lock in [&plain, &named] {
        let thread = match lock.core() {
            Core::Plain(Plain { lock, .. }) => lock,
            Core::Named(named) => named.entry.thread(),
        };
        thread.take();
        thread.raise_token(last);
        thread.release(Predecessor::Clean);
        let seen = lock.upgradable_read().unwrap();
        assert_eq!(RwLockUpgradableReadGuard::token(&seen), Token::MAX);
        let upgrading = catch_unwind(AssertUnwindSafe(|| RwLockUpgradableReadGuard::upgrade(seen)));
        assert!(upgrading.is_err(), "there is no token for the writer");
        assert!(!lock.is_locked());
        assert!(catch_unwind(|| lock.upgradable_read()).is_err(), "nor for a reader");
        assert!(!lock.is_locked());
    }
}
