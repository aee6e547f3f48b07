//! Futures dropped before they are done, leaked, or never polled again.

use std::{task::Poll, time::Duration};

use tierlock::{MutexGuard, Predecessor};

use crate::setting::{Hand, LONG, Setting, at};

/// As many polls as any wait survives without a new wake-up, and some more.
const POLLS: usize = 6;
const PAUSE: Duration = Duration::from_millis(3);

at!(everywhere, a_wait_dropped_after_any_number_of_polls_leaves_nothing);
/// rustfs#2795: a dropped waiter leaves counters or bits behind; matrixone#25790: it is served
/// all the same.
fn a_wait_dropped_after_any_number_of_polls_leaves_nothing(setting: &Setting) {
    let holder = setting.mutex(&setting.locks(), "a", ());
    let third = setting.mutex(&setting.remote(), "a", ());
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let waiter = setting.mutex(&locks, "a", ());
        for polls in 0..POLLS {
            let guard = holder.lock().unwrap();
            let mut wait = Hand::new(waiter.lock_async());
            let mut timed = Hand::new(waiter.try_lock_for_async(LONG));
            for _ in 0..polls {
                assert!(wait.poll().is_pending());
                assert!(timed.poll().is_pending());
                wait.woken_within(PAUSE);
            }
            drop(wait);
            drop(timed);
            drop(guard);
            drop(third.try_lock_for(LONG).unwrap());
            drop(waiter.try_lock_for(LONG).unwrap());
        }
    }
}

at!(everywhere, a_wait_dropped_at_the_moment_of_hand_over_passes_the_lock_on);
/// atlasdb#4933: a grant goes to a waiter that gave up.
fn a_wait_dropped_at_the_moment_of_hand_over_passes_the_lock_on(setting: &Setting) {
    let holder = setting.mutex(&setting.locks(), "a", ());
    let third = setting.mutex(&setting.remote(), "a", ());
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let waiter = setting.mutex(&locks, "a", ());
        for _ in 0..5 {
            let guard = holder.lock().unwrap();
            let mut wait = Hand::new(waiter.lock_async());
            assert!(wait.poll().is_pending());
            setting.until_heard(&locks);
            drop(guard);
            assert!(wait.woken_within(LONG));
            // It may be the owner already, and does not know.
            drop(wait);
            drop(third.try_lock_for(LONG).unwrap());
        }
    }
}

at!(everywhere, of_many_waits_dropped_at_hand_over_the_last_one_is_served);
fn of_many_waits_dropped_at_hand_over_the_last_one_is_served(setting: &Setting) {
    let guard = setting.hold(&setting.locks(), "a");
    let managers = setting.crowd(6);
    let mutexes: Vec<_> = managers.iter().map(|locks| setting.mutex(locks, "a", ())).collect();
    let mut waits: Vec<_> = mutexes.iter().map(|mutex| Hand::new(mutex.lock_async())).collect();
    for (wait, locks) in waits.iter_mut().zip(&managers) {
        assert!(wait.poll().is_pending());
        setting.until_heard(locks);
    }
    drop(guard);
    let last = waits.pop().unwrap();
    for wait in waits {
        drop(wait);
    }
    drop(last.finish().unwrap());
}

at!(everywhere, a_lock_dropped_while_it_is_being_taken_is_free_again);
/// The same without a holder in the way: at host scope it is dropped while it connects, while it
/// asks, and when it is granted.
fn a_lock_dropped_while_it_is_being_taken_is_free_again(setting: &Setting) {
    let third = setting.mutex(&setting.locks(), "a", ());
    for pause in [0, 1, 5] {
        for polls in 0..4 {
            let locks = setting.remote();
            let mutex = setting.mutex(&locks, "a", ());
            let mut wait = Hand::new(mutex.lock_async());
            for _ in 0..polls {
                if let Poll::Ready(guard) = wait.poll() {
                    drop(guard.unwrap());
                    break;
                }
                wait.woken_within(Duration::from_millis(pause));
            }
            drop(wait);
            drop(third.try_lock_for(LONG).unwrap());
        }
    }
}

at!(across_processes, a_wait_for_another_process_dropped_leaves_nothing);
/// Here the widest tier is the one that is contended.
fn a_wait_for_another_process_dropped_leaves_nothing(setting: &Setting) {
    let mut holder = setting.helper();
    let mut third = setting.far_helper();
    let waiter = setting.mutex(&setting.locks(), "a", ());
    for polls in 0..POLLS {
        holder.lock(setting.scope, "a");
        let mut wait = Hand::new(waiter.lock_async());
        for _ in 0..polls {
            assert!(wait.poll().is_pending());
            wait.woken_within(PAUSE);
        }
        if polls % 2 == 0 {
            drop(wait);
            assert_eq!(holder.ask("unlock\ta"), "ok");
        } else {
            assert_eq!(holder.ask("unlock\ta"), "ok");
            wait.woken_within(LONG);
            drop(wait);
        }
        third.lock(setting.scope, "a");
        assert_eq!(third.ask("unlock\ta"), "ok");
    }
}

at!(everywhere, an_escalation_dropped_early_gives_the_lock_back);
fn an_escalation_dropped_early_gives_the_lock_back(setting: &Setting) {
    let locks = setting.locks();
    for polls in 0..POLLS {
        let mutex =
            locks.mutex(format!("a{polls}"), ()).scope(tierlock::Scope::Thread).build().unwrap();
        let mut widening = Hand::new(mutex.escalate_async(setting.scope));
        for _ in 0..polls {
            if widening.poll().is_ready() {
                break;
            }
            widening.woken_within(PAUSE);
        }
        drop(widening);
        drop(mutex.try_lock_for(LONG).unwrap());
        let third = setting.mutex(&setting.remote(), &format!("a{polls}"), ());
        drop(third.try_lock_for(LONG).unwrap());
    }
}

at!(everywhere, an_unlock_cannot_be_cancelled);
/// ncps#913, blnk#355: cancelling the task cancels the release.
fn an_unlock_cannot_be_cancelled(setting: &Setting) {
    let third = setting.mutex(&setting.remote(), "a", ());
    for polls in 0..3 {
        let mutex = setting.mutex(&setting.locks(), "a", ());
        let mut unlock = Hand::new(MutexGuard::unlock_async(mutex.lock().unwrap()));
        for _ in 0..polls {
            if unlock.poll().is_ready() {
                break;
            }
        }
        drop(unlock);
        drop(third.try_lock_for(LONG).unwrap());
    }
}

at!(everywhere, a_wait_given_up_does_not_hide_how_the_last_holder_left);
fn a_wait_given_up_does_not_hide_how_the_last_holder_left(setting: &Setting) {
    let locks = setting.locks();
    let mutex = setting.mutex(&locks, "a", ());
    for given_up_at_hand_over in [false, true] {
        for waiting in [setting.locks(), setting.remote()] {
            let waiter = setting.mutex(&waiting, "a", ());
            let guard = mutex.lock().unwrap();
            let mut wait = Hand::new(waiter.lock_async());
            assert!(wait.poll().is_pending());
            setting.until_heard(&waiting);
            std::thread::scope(|scope| {
                let panicked = scope.spawn(move || {
                    let _guard = guard;
                    std::panic::resume_unwind(Box::new("on purpose"));
                });
                assert!(panicked.join().is_err());
            });
            if given_up_at_hand_over {
                assert!(wait.woken_within(LONG));
            }
            drop(wait);
            let next = waiter.try_lock_for(LONG).unwrap();
            assert_eq!(MutexGuard::predecessor(&next), Predecessor::Panicked);
            drop(next);
            // Heard by the next one everywhere.
            drop(mutex.try_lock_for(LONG).unwrap());
        }
    }
}

at!(everywhere, a_leaked_wait_holds_no_waiter_up_for_ever);
/// tokio#6450, tokio#7892: a wait that is neither polled nor dropped keeps out all others. Here it is
/// the process's representative when it is leaked, and its turn lapses once it was woken.
fn a_leaked_wait_holds_no_waiter_up_for_ever(setting: &Setting) {
    let holder = setting.mutex(&setting.remote(), "a", ());
    let locks = setting.locks();
    let mutex = setting.mutex(&locks, "a", ());
    let guard = holder.lock().unwrap();
    let mut leaked = Hand::new(mutex.lock_async());
    assert!(leaked.poll().is_pending());
    setting.until_heard(&locks);
    let mut behind = Hand::new(mutex.lock_async());
    assert!(behind.poll().is_pending());
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| drop(mutex.lock().unwrap()));
        drop(guard);
        assert!(leaked.woken_within(LONG));
        std::mem::forget(leaked);
        blocked.join().unwrap();
    });
    drop(behind.finish().unwrap());
    // Neither this process nor another one is held up from now on.
    drop(mutex.try_lock_for(LONG).unwrap());
    drop(holder.try_lock_for(LONG).unwrap());
}

at!(everywhere, of_tasks_alone_a_leaked_wait_holds_up_none);
fn of_tasks_alone_a_leaked_wait_holds_up_none(setting: &Setting) {
    let holder = setting.mutex(&setting.remote(), "a", ());
    let locks = setting.locks();
    let mutex = setting.mutex(&locks, "a", ());
    let guard = holder.lock().unwrap();
    let mut waits: Vec<_> = (0..3).map(|_| Hand::new(mutex.lock_async())).collect();
    for wait in &mut waits {
        assert!(wait.poll().is_pending());
    }
    setting.until_heard(&locks);
    let last = waits.pop().unwrap();
    for wait in waits {
        std::mem::forget(wait);
    }
    drop(guard);
    drop(last.finish().unwrap());
    drop(holder.try_lock_for(LONG).unwrap());
}

at!(everywhere, a_blocking_lock_beside_a_pending_future_of_its_thread_ends);
/// The thread that would poll the future blocks on the same lock.
fn a_blocking_lock_beside_a_pending_future_of_its_thread_ends(setting: &Setting) {
    let holder = setting.mutex(&setting.remote(), "a", ());
    let locks = setting.locks();
    let mutex = setting.mutex(&locks, "a", ());
    let guard = holder.lock().unwrap();
    let mut pending = Hand::new(mutex.lock_async());
    assert!(pending.poll().is_pending());
    setting.until_heard(&locks);
    drop(guard);
    assert!(pending.woken_within(LONG));
    drop(mutex.lock().unwrap());
    // It stands at the head again once it is polled.
    drop(pending.finish().unwrap());
}

at!(everywhere, a_future_that_is_never_polled_waits_for_nothing);
fn a_future_that_is_never_polled_waits_for_nothing(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let never = mutex.lock_async();
    drop(mutex.try_lock_for(LONG).unwrap());
    std::mem::forget(mutex.lock_async());
    drop(never);
    drop(mutex.try_lock().unwrap());
}
