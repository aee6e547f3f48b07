//! Guards that let waiters go first, and upgrades that wait for some time without blocking.

use std::{
    sync::atomic::{AtomicBool, Ordering::*},
    thread,
    time::{Duration, Instant},
};

use tierlock::{
    LockErrorKind, LockManager, MutexGuard, Result, RwLock, RwLockReadGuard,
    RwLockUpgradableReadGuard, RwLockWriteGuard,
};

use crate::setting::{Hand, LONG, Setting, at};

fn lock_of<T>(setting: &Setting, locks: &LockManager, value: T) -> RwLock<T> {
    locks.rw_lock("a", value).scope(setting.scope).build().unwrap()
}

/// Bumps until the waiter, which is about to wait, has had the lock.
fn bumped_until_passed<G>(
    mut guard: G,
    bump: impl Fn(G) -> Result<G>,
    wait: impl FnOnce() + Send,
) -> G {
    let (went, start) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            wait();
            went.store(true, SeqCst);
        });
        while !went.load(SeqCst) {
            assert!(start.elapsed() < LONG, "the waiter is passed for ever");
            guard = bump(guard).unwrap();
        }
        guard
    })
}

at!(everywhere, a_long_job_lets_a_waiter_go_first);
fn a_long_job_lets_a_waiter_go_first(setting: &Setting) {
    let lock = setting.mutex(&setting.locks(), "a", 0);
    for far in [setting.locks(), setting.remote()] {
        let far = setting.mutex(&far, "a", ());
        let guard = lock.lock().unwrap();
        let first = MutexGuard::token(&guard);
        let mut guard = bumped_until_passed(
            guard,
            |guard| lock.bump(guard),
            || {
                drop(far.lock().unwrap());
            },
        );
        assert!(MutexGuard::token(&guard) > first);
        *guard += 1;
        assert!(far.try_lock().unwrap_err().is_contended());
        MutexGuard::unlock_fair(guard).unwrap();
        drop(far.try_lock_for(LONG).unwrap());
    }
    let guard = Hand::new(lock.bump_async(lock.lock().unwrap())).finish().unwrap();
    assert_eq!(*guard, 2);
}

at!([thread process host memory_below_host memory_host] a_bump_that_none_waits_for_keeps_the_token);
fn a_bump_that_none_waits_for_keeps_the_token(setting: &Setting) {
    let keep = tierlock::Keep::Always;
    let lock = setting.locks().mutex("a", [1, 2]).scope(setting.scope).keep(keep).build().unwrap();
    let guard = lock.lock().unwrap();
    let first = MutexGuard::token(&guard);
    let guard = lock.bump(guard).unwrap();
    assert_eq!((MutexGuard::token(&guard), *guard), (first, [1, 2]));
}

/// A node of a list, whose part is of its own type.
struct Node {
    id: u32,
    next: Option<Box<Node>>,
}

at!(everywhere, a_bumped_guard_of_a_part_comes_back_whole);
fn a_bumped_guard_of_a_part_comes_back_whole(setting: &Setting) {
    let list = Node { id: 1, next: Some(Box::new(Node { id: 2, next: None })) };
    let lock = setting.mutex(&setting.locks(), "a", list);
    let guard = lock.lock().unwrap();
    let part = MutexGuard::map(guard, |node| &mut **node.next.as_mut().unwrap());
    assert_eq!(part.id, 2);
    let whole = lock.bump(part).unwrap();
    assert_eq!(whole.id, 1);
    drop(whole);
    let other = setting.mutex(&setting.locks(), "b", Node { id: 3, next: None });
    let error = other.bump(lock.lock().unwrap()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    drop(lock.try_lock_for(LONG).unwrap());
}

at!([memory_host] a_lost_lock_is_not_bumped);
fn a_lost_lock_is_not_bumped(setting: &Setting) {
    let locks = setting.locks();
    let lock = setting.mutex(&locks, "a", ());
    let guard = lock.lock().unwrap();
    assert!(locks.lose_lock("a"));
    assert!(lock.bump(guard).unwrap_err().is_lost());
    let guard = lock.try_lock_for(LONG).unwrap();
    assert!(locks.lose_lock("a"));
    assert!(MutexGuard::unlock_fair(guard).unwrap_err().is_lost());
    drop(lock.try_lock_for(LONG).unwrap());
}

at!(everywhere, readers_and_writers_let_each_other_go_first);
fn readers_and_writers_let_each_other_go_first(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), 0);
    for far in [setting.locks(), setting.remote()] {
        let far = lock_of(setting, &far, ());
        let write = || drop(far.write().unwrap());
        let reading =
            bumped_until_passed(lock.read().unwrap(), |guard| lock.bump_read(guard), write);
        assert!(far.try_write().is_err());
        RwLockReadGuard::unlock_fair(reading).unwrap();
        let seen = lock.upgradable_read().unwrap();
        let seen = bumped_until_passed(seen, |guard| lock.bump_upgradable_read(guard), write);
        assert!(far.try_write().is_err());
        RwLockUpgradableReadGuard::unlock_fair(seen).unwrap();
        let read = || drop(far.read().unwrap());
        let writing =
            bumped_until_passed(lock.write().unwrap(), |guard| lock.bump_write(guard), read);
        assert!(far.try_read().is_err());
        RwLockWriteGuard::unlock_fair(writing).unwrap();
        drop(far.try_write_for(LONG).unwrap());
    }
    let reading = Hand::new(lock.bump_read_async(lock.read().unwrap())).finish().unwrap();
    assert_eq!(*reading, 0);
}

at!(everywhere, an_upgrade_that_blocks_no_thread_ends_in_time);
fn an_upgrade_that_blocks_no_thread_ends_in_time(setting: &Setting) {
    const SHORT: Duration = Duration::from_millis(20);
    let lock = lock_of(setting, &setting.locks(), 7);
    let far = lock_of(setting, &setting.remote(), ());
    let readers = match far.try_read_for(LONG) {
        Ok(reader) => reader,
        Err(error) => panic!("none is inside: {error}"),
    };
    let seen = lock.upgradable_read().unwrap();
    let seen = Hand::new(RwLockUpgradableReadGuard::try_upgrade_async(seen)).finish().unwrap_err();
    let upgrade = RwLockUpgradableReadGuard::try_upgrade_for_async(seen, SHORT);
    let seen = Hand::new(upgrade).finish().unwrap_err();
    // It reads as before: one that may upgrade, beside others.
    assert_eq!(*seen, 7);
    assert!(far.try_upgradable_read().is_err());
    drop(readers);
    let upgrade = RwLockUpgradableReadGuard::try_upgrade_for_async(seen, LONG);
    let mut writing = Hand::new(upgrade).finish().expect("the other reader is gone");
    *writing += 1;
    assert!(far.try_read().is_err());
    drop(writing);
    let seen = far.try_upgradable_read_for(LONG).unwrap();
    // Dropped while it waits, it has released the lock.
    let reader = lock.try_read_for(LONG).unwrap();
    let mut upgrade = Hand::new(RwLockUpgradableReadGuard::upgrade_async(seen));
    assert!(upgrade.poll().is_pending(), "a reader is inside");
    drop((upgrade, reader));
    assert_eq!(*lock.try_write_for(LONG).unwrap(), 8);
}
