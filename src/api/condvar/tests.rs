use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::*},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use super::*;
use crate::error::LockErrorKind;

const LONG: Duration = Duration::from_secs(30);

struct Silent;

impl Wake for Silent {
    fn wake(self: Arc<Self>) {}
}

/// Locks until the one that was to wait has released it.
fn until_it_waits(lock: &Mutex<u32>, waiting: u32) {
    while *lock.lock().unwrap() < waiting {
        thread::yield_now();
    }
}

#[test]
fn each_notification_wakes_one_waiter_and_the_last_wakes_all() {
    let (lock, changed) = (Mutex::new(0), Condvar::new());
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..4 {
            let tell = tell.clone();
            scope.spawn(|| {
                let tell = tell;
                let mut guard = lock.lock().unwrap();
                *guard += 1;
                drop(changed.wait(&lock, guard).unwrap());
                tell.send(()).unwrap();
            });
        }
        until_it_waits(&lock, 4);
        // Two at once are two, though none has been heard yet.
        changed.notify_one();
        changed.notify_one();
        for _ in 0..2 {
            told.recv_timeout(LONG).unwrap();
        }
        assert!(told.recv_timeout(Duration::from_millis(20)).is_err());
        changed.notify_all();
        for _ in 0..2 {
            told.recv_timeout(LONG).unwrap();
        }
    });
}

#[test]
fn a_waiter_that_goes_passes_its_notification_on() {
    let (lock, changed) = (Mutex::new(0), Condvar::new());
    let waker = Waker::from(Arc::new(Silent));
    let cx = &mut Context::from_waker(&waker);
    let mut first = Box::pin(changed.wait_async(&lock, lock.lock().unwrap()));
    assert!(first.as_mut().poll(cx).is_pending());
    let mut second = Box::pin(changed.wait_async(&lock, lock.lock().unwrap()));
    assert!(second.as_mut().poll(cx).is_pending());
    let held = lock.lock().unwrap();
    changed.notify_one();
    // It has heard it, and waits for the lock.
    assert!(first.as_mut().poll(cx).is_pending());
    assert!(second.as_mut().poll(cx).is_pending());
    drop(first);
    assert!(second.as_mut().poll(cx).is_pending());
    drop(held);
    let Poll::Ready(guard) = second.as_mut().poll(cx) else { panic!("it was passed on") };
    drop(guard.unwrap());
}

#[test]
fn a_condition_is_looked_at_under_the_lock_and_a_time_ends_the_wait() {
    let (lock, changed) = (Mutex::new(0), Condvar::new());
    let looks = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let is_small = |value: &mut u32| {
                looks.fetch_add(1, SeqCst);
                *value < 3
            };
            let guard = changed.wait_while(&lock, lock.lock().unwrap(), is_small).unwrap();
            assert_eq!(*guard, 3);
        });
        for _ in 0..3 {
            *lock.lock().unwrap() += 1;
            changed.notify_all();
        }
    });
    assert!((1..=4).contains(&looks.load(SeqCst)));
    let wait = Duration::from_millis(2);
    let (guard, was_notified) = changed.wait_for(&lock, lock.lock().unwrap(), wait).unwrap();
    assert!(!was_notified);
    let (guard, is_so) = changed.wait_while_for(&lock, guard, wait, |value| *value == 3).unwrap();
    assert!(!is_so);
    let (_guard, is_so) = changed.wait_while_for(&lock, guard, wait, |value| *value == 4).unwrap();
    assert!(is_so);
}

#[test]
fn another_mutexs_guard_is_refused_and_released() {
    let (lock, other, changed) = (Mutex::new(0), Mutex::new(0), Condvar::new());
    let error = changed.wait(&lock, other.lock().unwrap()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("another mutex's guard"), "{error}");
    drop(other.try_lock().unwrap());
}
