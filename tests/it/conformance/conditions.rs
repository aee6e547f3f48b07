//! Conditions: a holder releases its lock, waits to be notified, and takes it again.

use std::{sync::mpsc, thread};

use tierlock::{Condvar, LockErrorKind, MutexGuard};

use crate::setting::{Hand, LONG, Setting, at};

at!(everywhere, a_lock_whose_holder_waits_for_a_condition_is_free);
fn a_lock_whose_holder_waits_for_a_condition_is_free(setting: &Setting) {
    let (lock, changed) = (setting.mutex(&setting.locks(), "a", 0), Condvar::new());
    let far = setting.mutex(&setting.remote(), "a", ());
    thread::scope(|scope| {
        let (tell, looks) = mpsc::channel();
        let (lock, changed) = (&lock, &changed);
        let waiter = scope.spawn(move || {
            let guard = lock.lock().unwrap();
            let token = MutexGuard::token(&guard);
            let is_none = |value: &mut u32| {
                tell.send(()).unwrap();
                *value == 0
            };
            let guard = changed.wait_while(lock, guard, is_none).unwrap();
            (MutexGuard::token(&guard) > token, *guard)
        });
        looks.recv_timeout(LONG).unwrap();
        // Free for any other while it waits.
        drop(far.try_lock_for(LONG).unwrap());
        *lock.try_lock_for(LONG).unwrap() = 7;
        changed.notify_all();
        assert_eq!(looks.recv_timeout(LONG), Ok(()));
        assert_eq!(waiter.join().unwrap(), (true, 7));
    });
    let mut task = Hand::new(changed.wait_async(&lock, lock.lock().unwrap()));
    assert!(task.poll().is_pending());
    drop(far.try_lock_for(LONG).unwrap());
    changed.notify_one();
    assert_eq!(*task.finish().unwrap(), 7);
}

at!([memory_host] a_lost_lock_waits_for_no_condition);
fn a_lost_lock_waits_for_no_condition(setting: &Setting) {
    let (locks, changed) = (setting.locks(), Condvar::new());
    let lock = setting.mutex(&locks, "a", ());
    let guard = lock.lock().unwrap();
    assert!(locks.lose_lock("a"));
    let error = changed.wait(&lock, guard).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
    drop(lock.try_lock_for(LONG).unwrap());
}
