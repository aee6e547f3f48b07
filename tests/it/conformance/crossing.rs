//! What crosses a lock between machines on its way: turns that lapse, waits that are given up, losses of what
//! stands beside it.

use std::{sync::Arc, thread, time::Duration};

use tierlock::{
    Keep, LockErrorKind, LockManager, RwLock, RwLockReadGuard as Read,
    RwLockUpgradableReadGuard as Upgradable,
};

use crate::setting::{BlockedThread, Hand, LONG, Setting, at, until};

const SHORT: Duration = Duration::from_millis(20);

fn lock_of<T>(setting: &Setting, locks: &LockManager, value: T) -> RwLock<T> {
    locks.rw_lock("a", value).scope(setting.scope).build().unwrap()
}

fn lock_that_keeps_nothing(setting: &Setting, locks: &LockManager) -> RwLock<u64> {
    locks.rw_lock("a", 0).scope(setting.scope).keep(Keep::Never).build().unwrap()
}

at!(with_leader, an_upgradable_reader_that_waits_holds_up_those_that_ask_behind_it_and_no_others);
/// parking_lot#101, between machines: a second upgradable reader that waits shuts out plain readers. Here all
/// that ask the leader stand in one order, behind it; a machine that reads already goes on, and those
/// behind it come in beside it.
fn an_upgradable_reader_that_waits_holds_up_those_that_ask_behind_it_and_no_others(
    setting: &Setting,
) {
    let lock = lock_of(setting, &setting.locks(), 0);
    let [second, reading, new] = [(); 3].map(|()| setting.remote());
    let (second, reading) = (lock_of(setting, &second, 0), lock_of(setting, &reading, 0));
    let new = lock_that_keeps_nothing(setting, &new);
    drop(reading.read().unwrap()); // it keeps the lease
    let seen = lock.upgradable_read().unwrap();
    drop(new.try_read_for(LONG).unwrap());
    thread::scope(|scope| {
        let waits = scope.spawn(|| second.upgradable_read().unwrap());
        until("another upgradable reader waits", || new.try_read().is_err());
        for _ in 0..3 {
            drop(reading.try_read().unwrap());
        }
        assert!(new.try_read_for(SHORT).unwrap_err().is_timeout());
        drop(seen);
        let seen = waits.join().unwrap();
        drop(new.try_read_for(LONG).unwrap());
        drop(seen);
    });
}

at!(with_leader, a_task_whose_turn_has_lapsed_asks_anew_for_a_lease_of_its_own);
/// tokio#6450, of a wait for a lease in a word of its own.
fn a_task_whose_turn_has_lapsed_asks_anew_for_a_lease_of_its_own(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), 0);
    let far = lock_of(setting, &setting.remote(), 0);
    let writing = far.write().unwrap();
    let mut task = Hand::new(lock.upgradable_read_async());
    assert!(task.poll().is_pending());
    let waiting = BlockedThread::default();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            waiting.is_this();
            drop(lock.write().unwrap());
        });
        waiting.until_blocked();
        drop(writing);
        assert!(task.woken_within(LONG));
        // It is not polled: the other one of this process has its turn.
        other.join().unwrap();
    });
    let seen = task.finish().unwrap();
    assert!(lock.try_upgradable_read().is_err());
    drop(far.try_read_for(LONG).unwrap());
    drop(Upgradable::upgrade(seen).unwrap());
    drop(far.try_write_for(LONG).unwrap());
}

at!(with_leader, an_upgradable_reader_that_gives_up_behind_a_guard_leaves_nothing_reserved);
fn an_upgradable_reader_that_gives_up_behind_a_guard_leaves_nothing_reserved(setting: &Setting) {
    let locks = setting.locks();
    let lock = locks.rw_lock("a", 0).scope(setting.scope).keep(Keep::Always).build().unwrap();
    let far = lock_of(setting, &setting.remote(), 0);
    let writing = lock.write().unwrap();
    // It waits for long enough to be handed the word next.
    assert!(lock.try_upgradable_read_for(SHORT).unwrap_err().is_timeout());
    drop(writing);
    // What another machine asks for is not reserved for one that has gone.
    drop(far.try_write_for(LONG).unwrap());
    drop(lock.try_upgradable_read_for(LONG).unwrap());
}

at!([memory_host] an_upgrade_that_was_granted_sees_that_its_manager_is_closed);
fn an_upgrade_that_was_granted_sees_that_its_manager_is_closed(setting: &Setting) {
    for closes in [false, true] {
        let locks = setting.neighbour();
        let lock = Arc::new(lock_of(setting, &locks, 0));
        let stale = lock.read().unwrap();
        assert!(locks.lose_lock("a"));
        assert!(!Read::is_valid(&stale));
        let seen = lock.upgradable_read_arc().unwrap();
        let mut upgrade = Hand::new(Upgradable::upgrade_async(seen));
        assert!(upgrade.poll().is_pending());
        // The leader has granted it by then; the guard that lost its lease is inside.
        let far = lock_of(setting, &setting.remote(), 0);
        until("it is granted", || {
            let _ = upgrade.poll();
            far.try_read().is_err()
        });
        assert!(upgrade.poll().is_pending());
        let expected = match closes {
            true => {
                locks.close();
                LockErrorKind::Config
            }
            false => {
                assert!(locks.lose_lock("a"));
                LockErrorKind::Lost
            }
        };
        assert_eq!(upgrade.finish().unwrap_err().kind(), expected);
        drop(stale);
        drop(far.try_write_for(LONG).unwrap());
    }
}
