//! Where no allocation is promised, none is made.

mod counting;

use counting::allocations;
use tierlock::Mutex;

const CYCLES: u64 = 1_000;

/// `cycle` once, for what is made at the first use, and then as often as it may not allocate.
fn assert_allocates_nothing(mut cycle: impl FnMut()) {
    cycle();
    assert_eq!(allocations(|| (0..CYCLES).for_each(|_| cycle())), 0, "in {CYCLES} cycles");
}

#[test]
fn what_allocates_is_counted() {
    let made = allocations(|| (0..CYCLES).for_each(|cycle| drop(Box::new(cycle))));
    assert_eq!(made, CYCLES);
}

#[test]
fn quiet_lock_and_unlock_at_thread_scope_allocate_nothing() {
    let mutex = Mutex::new(0_u64);
    assert_allocates_nothing(|| *mutex.lock().unwrap() += 1);
    assert_eq!(mutex.into_inner(), CYCLES + 1);
}

#[test]
fn quiet_async_lock_at_thread_scope_allocates_nothing() {
    let mutex = Mutex::new(0_u64);
    assert_allocates_nothing(|| {
        *futures::executor::block_on(mutex.lock_async()).unwrap() += 1;
    });
}

#[test]
fn failed_try_at_thread_scope_allocates_nothing() {
    let mutex = Mutex::new(());
    let _guard = mutex.lock().unwrap();
    assert_allocates_nothing(|| assert!(mutex.try_lock().unwrap_err().is_contended()));
}

#[cfg(feature = "process")]
mod process {
    use tierlock::{LockManager, Scope};

    use super::*;

    #[test]
    fn quiet_lock_and_unlock_at_process_scope_allocate_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let locks = LockManager::builder().directory(directory.path()).open().unwrap();
        let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Process).build().unwrap();
        assert_allocates_nothing(|| *mutex.lock().unwrap() += 1);
    }

    #[test]
    fn quiet_async_lock_at_process_scope_allocates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let locks = LockManager::builder().directory(directory.path()).open().unwrap();
        let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Process).build().unwrap();
        assert_allocates_nothing(|| {
            *futures::executor::block_on(mutex.lock_async()).unwrap() += 1;
        });
    }
}
