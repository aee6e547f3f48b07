//! Trying, waiting, giving up, and what the error says.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use tierlock::{Keep, LockError, LockErrorKind, MutexGuard, OwnedMutexGuard, Scope};
use tokio::runtime::{Builder, Runtime};

use crate::setting::{Hand, LONG, Setting, at, until};

const SOON: Duration = Duration::from_millis(30);

fn in_vain<T>(wait: impl FnOnce(Duration) -> tierlock::Result<T>) -> LockError {
    let start = Instant::now();
    let error = wait(SOON).map(drop).unwrap_err();
    let took = start.elapsed();
    assert!(took >= SOON);
    // It counts from where the wait begins, to which a thread may come late on a busy machine.
    assert!(
        error.waited().is_none_or(|waited| waited > Duration::ZERO && waited <= took),
        "{error}"
    );
    error
}

/// Limits that are over before an answer can be here, and one that is not.
const LIMITS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_micros(1),
    Duration::from_micros(20),
    Duration::from_millis(1),
    Duration::from_millis(100),
];

at!(everywhere, a_wait_of_any_length_gets_a_free_lock);
fn a_wait_of_any_length_gets_a_free_lock(setting: &Setting) {
    for limit in LIMITS {
        let locks = setting.remote();
        // At first it has to reach its leader; then it knows the way.
        for name in ["a", "b"] {
            let mutex = setting.mutex(&locks, name, ());
            drop(mutex.try_lock_for(limit).unwrap_or_else(|error| panic!("{limit:?}: {error}")));
            drop(block_on(mutex.try_lock_for_async(limit)).unwrap());
        }
        setting.until_heard(&locks);
    }
}

at!(with_leader, a_wait_of_any_length_gets_a_lease_that_lies_unused);
fn a_wait_of_any_length_gets_a_lease_that_lies_unused(setting: &Setting) {
    for limit in LIMITS {
        let keeper = setting.locks().mutex("a", ()).keep(Keep::Always).build().unwrap();
        drop(keeper.lock().unwrap());
        let other = setting.mutex(&setting.remote(), "a", ());
        drop(other.try_lock_for(limit).unwrap_or_else(|error| panic!("{limit:?}: {error}")));
    }
}

at!(everywhere, a_wait_of_any_length_ends_behind_a_holder);
fn a_wait_of_any_length_ends_behind_a_holder(setting: &Setting) {
    let _guard = setting.hold(&setting.locks(), "a");
    for limit in LIMITS {
        let mutex = setting.mutex(&setting.remote(), "a", ());
        for error in [
            mutex.try_lock_for(limit).unwrap_err(),
            block_on(mutex.try_lock_for_async(limit)).unwrap_err(),
        ] {
            assert!(error.is_timeout() && error.is_contended(), "{limit:?}: {error}");
            assert!(error.holder().is_some(), "{limit:?}: {error}");
        }
    }
}

at!(everywhere, a_free_lock_is_taken_in_every_way);
fn a_free_lock_is_taken_in_every_way(setting: &Setting) {
    for locks in setting.crowd(3) {
        let mutex = std::sync::Arc::new(setting.mutex(&locks, "a", ()));
        let named = || locks.mutex("a", ()).scope(setting.scope);
        let free = |guard: tierlock::Result<MutexGuard<'_, ()>>| {
            let guard = guard.unwrap();
            assert_eq!(MutexGuard::scope(&guard), setting.scope);
            MutexGuard::unlock(guard).unwrap();
        };
        free(mutex.lock());
        free(mutex.try_lock());
        free(mutex.try_lock_for(LONG));
        free(mutex.try_lock_for(Duration::MAX));
        free(mutex.try_lock_for(Duration::ZERO));
        free(mutex.try_lock_until(Instant::now() + LONG));
        free(mutex.lock_arc());
        free(mutex.try_lock_arc());
        free(mutex.try_lock_arc_for(LONG));
        free(named().lock());
        free(named().try_lock());
        free(named().try_lock_for(LONG));
        block_on(async {
            free(mutex.lock_async().await);
            free(mutex.try_lock_async().await);
            free(mutex.try_lock_for_async(LONG).await);
            free(mutex.lock_arc_async().await);
            free(mutex.try_lock_arc_async().await);
            free(mutex.try_lock_arc_for_async(LONG).await);
            free(named().lock_async().await);
            free(named().try_lock_async().await);
            free(named().try_lock_for_async(LONG).await);
        });
        block_on(MutexGuard::unlock_async(mutex.lock().unwrap())).unwrap();
    }
}

at!(everywhere, a_taken_lock_is_refused_in_every_way);
fn a_taken_lock_is_refused_in_every_way(setting: &Setting) {
    let _guard = setting.hold(&setting.locks(), "a");
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let mutex = std::sync::Arc::new(setting.mutex(&locks, "a", ()));
        let named = || locks.mutex("a", ()).scope(setting.scope);
        let refused = |kind: LockErrorKind, error: LockError| {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.is_contended() && error.is_retryable(), "{error}");
            assert!(!error.is_lost() && !error.is_unreachable(), "{error}");
        };
        let now = |guard: tierlock::Result<MutexGuard<'_, ()>>| {
            refused(LockErrorKind::WouldBlock, guard.unwrap_err());
        };
        assert!(mutex.try_lock_for(Duration::ZERO).unwrap_err().is_contended());
        now(mutex.try_lock());
        now(mutex.try_lock_arc());
        now(named().try_lock());
        block_on(async {
            now(mutex.try_lock_async().await);
            now(mutex.try_lock_arc_async().await);
            now(named().try_lock_async().await);
        });
        for error in [
            in_vain(|wait| mutex.try_lock_for(wait)),
            in_vain(|wait| mutex.try_lock_until(Instant::now() + wait)),
            in_vain(|wait| mutex.try_lock_arc_for(wait)),
            in_vain(|wait| named().try_lock_for(wait)),
            in_vain(|wait| block_on(mutex.try_lock_for_async(wait))),
            in_vain(|wait| block_on(mutex.try_lock_arc_for_async(wait))),
            in_vain(|wait| block_on(named().try_lock_for_async(wait))),
        ] {
            refused(LockErrorKind::TimedOut, error);
        }
    }
}

at!(everywhere, a_wait_in_vain_names_the_holder);
/// hazelcast#1055, cargo#15094: the holder of a lock cannot be seen.
fn a_wait_in_vain_names_the_holder(setting: &Setting) {
    let guard = setting.hold(&setting.locks(), "orders/42");
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let mutex = setting.mutex(&locks, "orders/42", ());
        let blocking = in_vain(|wait| mutex.try_lock_for(wait));
        let async_ = in_vain(|wait| block_on(mutex.try_lock_for_async(wait)));
        for error in [blocking, async_] {
            assert!(error.is_timeout());
            assert_eq!(error.name(), Some("orders/42"));
            assert_eq!(error.scope(), Some(setting.scope), "{error}");
            assert!(error.waited().is_some());
            let holder = error.holder().expect("a holder");
            let label = if setting.is_in_memory() { "in-memory" } else { "first" };
            assert_eq!(holder.label, label, "{error}");
            assert_eq!(holder.pid, Some(std::process::id()));
            let text = error.to_string();
            assert!(text.contains("orders/42") && text.contains(label), "{text}");
        }
    }
    drop(guard);
}

at!(with_leader, a_try_in_vain_names_the_holder);
/// The leader's refusal says it, so that not even a wait is needed.
fn a_try_in_vain_names_the_holder(setting: &Setting) {
    let guard = setting.hold(&setting.locks(), "a");
    let mutex = setting.mutex(&setting.remote(), "a", ());
    for error in [mutex.try_lock().unwrap_err(), block_on(mutex.try_lock_async()).unwrap_err()] {
        assert_eq!(error.kind(), LockErrorKind::WouldBlock);
        assert_eq!((error.name(), error.scope()), (Some("a"), Some(Scope::Host)));
        let holder = error.holder().expect("a holder");
        assert_eq!(holder.pid, Some(std::process::id()));
        assert_eq!(holder.token, Some(MutexGuard::token(&guard)));
    }
}

at!(across_processes, a_wait_in_vain_for_another_process_says_which);
fn a_wait_in_vain_for_another_process_says_which(setting: &Setting) {
    for mut helper in [setting.helper(), setting.far_helper()] {
        helper.lock(setting.scope, "a");
        let mutex = setting.mutex(&setting.locks(), "a", ());
        let error = in_vain(|wait| mutex.try_lock_for(wait));
        assert!(error.is_timeout());
        let holder = error.holder().expect("a holder");
        assert_eq!((holder.label.as_str(), holder.pid), ("helper", Some(helper.id())));
        assert!(setting.mutex(&setting.locks(), "a", ()).try_lock().unwrap_err().is_contended());
        assert_eq!(helper.ask("unlock\ta"), "ok");
    }
}

at!(across_processes, a_second_waiter_of_a_process_is_told_of_the_holder_elsewhere);
/// The first one waits for another process or machine. The second stands behind it, and was told that this
/// process has the lock.
fn a_second_waiter_of_a_process_is_told_of_the_holder_elsewhere(setting: &Setting) {
    let mut helper = setting.far_helper();
    helper.lock(setting.scope, "a");
    let locks = setting.locks();
    let mutex = setting.mutex(&locks, "a", ());
    let mut first = Hand::new(mutex.lock_async());
    assert!(first.poll().is_pending());
    if setting.scope == Scope::Host {
        // This manager's own question is answered after its request.
        until("the first one waits", || locks.status_of("a").unwrap().waiters.len() == 1);
    }
    until("the first one is told of the holder", || {
        assert!(first.poll().is_pending());
        mutex.try_lock_for(SOON).unwrap_err().holder().is_some()
    });
    for is_async in [false, true] {
        // Else its turn would lapse some time.
        assert!(first.poll().is_pending());
        let error = in_vain(|wait| match is_async {
            false => mutex.try_lock_for(wait),
            true => block_on(mutex.try_lock_for_async(wait)),
        });
        assert!(error.is_timeout() && error.is_contended(), "{error}");
        let holder = error.holder().expect("a holder");
        assert_eq!((holder.label.as_str(), holder.pid), ("helper", Some(helper.id())), "{error}");
        let text = error.to_string();
        assert!(!text.contains("this process") && !text.contains("first"), "{text}");
        let ahead = (!setting.has_no_order()).then_some(1);
        assert_eq!(error.waiters_ahead(), ahead, "{error}");
    }
    assert_eq!(helper.ask("unlock\ta"), "ok");
    drop(first.finish().unwrap());
}

at!(with_leader, a_caller_behind_an_unanswered_one_is_not_told_that_the_lock_is_held);
/// A job that is skipped because another has it would not run at all in an outage.
fn a_caller_behind_an_unanswered_one_is_not_told_that_the_lock_is_held(setting: &Setting) {
    let locks = setting.locks();
    let (mutex, beside) = (setting.mutex(&locks, "a", ()), setting.neighbour());
    setting.until_heard(&locks);
    setting.stop_leader();
    let mut first = Hand::new(mutex.lock_async());
    assert!(first.poll().is_pending());
    // That it is dead is not known at once.
    until("a wait hears that no leader answers", || {
        assert!(first.poll().is_pending());
        mutex.try_lock_for(SOON).unwrap_err().is_unreachable()
    });
    assert!(mutex.try_lock().unwrap_err().is_unreachable());
    // And another manager, where there is a directory at the same turnstile.
    let error = setting.mutex(&beside, "a", ()).try_lock_for(SOON).unwrap_err();
    assert!(!error.is_contended() && error.is_retryable(), "{error}");
    assert_eq!(error.holder(), None, "{error}");
    for error in [
        mutex.try_lock_for(SOON).unwrap_err(),
        block_on(mutex.try_lock_for_async(SOON)).unwrap_err(),
        block_on(mutex.try_lock_async()).unwrap_err(),
        locks.try_lock_all(["a", "b"]).unwrap_err(),
    ] {
        assert!(error.is_unreachable() && !error.is_contended(), "{error}");
        assert_eq!((error.name(), error.scope()), (Some("a"), Some(Scope::Host)));
    }
    setting.start_leader();
    drop(first.finish().unwrap());
    drop(mutex.try_lock_for(LONG).unwrap());
}

at!(everywhere, a_wait_in_vain_says_how_many_stood_before_it);
fn a_wait_in_vain_says_how_many_stood_before_it(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let guard = mutex.lock().unwrap();
    let mut waits: Vec<Hand<_>> = Vec::new();
    for stood in 0..3 {
        for is_async in [false, true] {
            // Else their turns would lapse some time.
            assert!(waits.iter_mut().all(|wait| wait.poll().is_pending()));
            let error = in_vain(|wait| match is_async {
                false => mutex.try_lock_for(wait),
                true => block_on(mutex.try_lock_for_async(wait)),
            });
            let ahead = (!setting.has_no_order()).then_some(stood);
            assert_eq!(error.waiters_ahead(), ahead, "{error}");
            let text = error.to_string();
            assert_eq!(text.contains("stood before it"), ahead.is_some(), "{text}");
        }
        let mut wait = Hand::new(mutex.lock_async());
        assert!(wait.poll().is_pending());
        waits.push(wait);
    }
    assert_eq!(mutex.try_lock().unwrap_err().waiters_ahead(), None, "a try waits behind none");
    drop(guard);
    for wait in waits {
        drop(wait.finish().unwrap());
    }
}

at!(with_leader, a_wait_in_vain_counts_the_sessions_before_it);
fn a_wait_in_vain_counts_the_sessions_before_it(setting: &Setting) {
    let locks = setting.locks();
    let guard = setting.hold(&locks, "a");
    let others = [setting.remote(), setting.remote()];
    let mutexes = others.each_ref().map(|others| setting.mutex(others, "a", ()));
    let last = setting.mutex(&setting.remote(), "a", ());
    let mut waits = Vec::new();
    for (stood, mutex) in (0..).zip(&mutexes) {
        // Where the leader's word comes later than the time is over, it is not known.
        let mut told = None;
        until("the leader tells how many stood before", || {
            told = Some(in_vain(|wait| last.try_lock_for(wait)));
            told.as_ref().is_some_and(|error| error.waiters_ahead().is_some())
        });
        let error = told.expect("it was told");
        assert_eq!((error.waiters_ahead(), error.is_contended()), (Some(stood), true), "{error}");
        let mut wait = Hand::new(mutex.lock_async());
        assert!(wait.poll().is_pending());
        until("it stands in the queue", || {
            locks.status_of("a").unwrap().waiters.len() > stood as usize
        });
        waits.push(wait);
    }
    drop(guard);
    for wait in waits {
        drop(wait.finish().unwrap());
    }
}

at!([host_with_directory] what_was_waited_counts_all_tiers);
/// A call that waits for a thread of its own machine first and for another machine then says how
/// long it waited in all.
fn what_was_waited_counts_all_tiers(setting: &Setting) {
    let near = setting.mutex(&setting.locks(), "a", ());
    let far = setting.mutex(&setting.remote(), "a", ());
    let (limit, half) = (Duration::from_millis(300), Duration::from_millis(150));
    for is_async in [false, true] {
        let first = near.lock().unwrap();
        let error = thread::scope(|scope| {
            let waiting = scope.spawn(|| match is_async {
                false => near.try_lock_for(limit).map(drop).unwrap_err(),
                true => {
                    let wait = near.try_lock_for_async(limit);
                    block_on(wait).map(drop).unwrap_err()
                }
            });
            let mut far_wait = Hand::new(far.lock_async());
            assert!(far_wait.poll().is_pending());
            thread::sleep(half);
            drop(first);
            let _far = far_wait.finish().unwrap();
            waiting.join().unwrap()
        });
        assert!(error.is_timeout());
        assert!(error.waited().unwrap() >= limit.mul_f32(0.9), "{error}");
    }
}

at!(everywhere, a_waiter_gets_the_lock_when_it_is_released);
fn a_waiter_gets_the_lock_when_it_is_released(setting: &Setting) {
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let first = setting.mutex(&setting.locks(), "a", ());
        let second = setting.mutex(&locks, "a", ());
        let guard = first.lock().unwrap();
        let mut wait = Hand::new(second.lock_async());
        assert!(wait.poll().is_pending());
        drop(guard);
        drop(wait.finish().unwrap());
        thread::scope(|scope| {
            let guard = first.lock().unwrap();
            let waiting = scope.spawn(|| drop(second.lock().unwrap()));
            drop(guard);
            waiting.join().unwrap();
        });
    }
}

at!(everywhere, blocking_inside_a_current_thread_runtime_does_not_panic);
fn blocking_inside_a_current_thread_runtime_does_not_panic(setting: &Setting) {
    block_inside(setting, &Builder::new_current_thread().enable_all().build().unwrap());
}

at!(everywhere, blocking_inside_a_multi_thread_runtime_does_not_panic);
fn blocking_inside_a_multi_thread_runtime_does_not_panic(setting: &Setting) {
    let mut runtime = Builder::new_multi_thread();
    block_inside(setting, &runtime.worker_threads(1).enable_all().build().unwrap());
}

/// Every blocking call, of managers that are new and used nowhere else, with and without a holder
/// in the way.
fn block_inside(setting: &Setting, runtime: &Runtime) {
    for locks in [setting.locks(), setting.remote()] {
        let in_the_way = setting.mutex(&setting.remote(), "a", ());
        let ((start, started), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let (go, gone) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                started.recv().unwrap();
                let guard = in_the_way.lock().unwrap();
                tell.send(()).unwrap();
                gone.recv().unwrap();
                drop(guard);
            });
            runtime.block_on(async {
                let mutex = setting.mutex(&locks, "a", ());
                drop(mutex.lock().unwrap());
                drop(mutex.try_lock().unwrap());
                let guard = mutex.try_lock_for(LONG).unwrap();
                assert!(mutex.try_lock_for(Duration::from_millis(1)).is_err());
                block_on(MutexGuard::unlock_async(guard)).unwrap();
                mutex.escalate(setting.scope).unwrap();
                start.send(()).unwrap();
                told.recv().unwrap();
                assert!(in_vain(|wait| mutex.try_lock_for(wait)).is_timeout());
                go.send(()).unwrap();
                drop(mutex.lock().unwrap());
                drop(mutex.lock_async().await.unwrap());
            });
        });
        // Opened, closed and dropped inside.
        runtime.block_on(async {
            let locks = setting.remote();
            drop(setting.hold(&locks, "a"));
            if setting.is_in_memory() || setting.scope == Scope::Thread {
                return; // it is the manager of all
            }
            locks.close();
            let locks = setting.remote();
            drop(setting.hold(&locks, "a"));
            locks.close_async().await;
        });
    }
}

at!(everywhere, a_task_that_finds_its_lock_free_again_and_again_lets_timers_fire);
/// tokio's cooperation: without it this task would never come to an end.
fn a_task_that_finds_its_lock_free_again_and_again_lets_timers_fire(setting: &Setting) {
    let mutex = std::sync::Arc::new(setting.mutex(&setting.locks(), "a", ()));
    let owned = mutex.clone();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let forever = async {
                loop {
                    drop(owned.lock_async().await.unwrap());
                }
            };
            let elapsed = tokio::time::timeout(SOON, forever).await.is_err();
            // The acquire that was cancelled may have been granted meanwhile. A wait sees that grant
            // come back; a try would find it in its way.
            let forever = async {
                loop {
                    MutexGuard::unlock_async(owned.lock_arc_async().await.unwrap()).await.unwrap();
                    drop(owned.try_lock_arc_async().await.unwrap());
                }
            };
            let also = tokio::time::timeout(SOON, forever).await.is_err();
            tell.send(elapsed && also).unwrap();
        });
    });
    assert!(told.recv_timeout(LONG).expect("the timer never fired"));
}

at!(everywhere, a_future_that_owns_its_mutex_is_spawned);
fn a_future_that_owns_its_mutex_is_spawned(setting: &Setting) {
    let mutex = std::sync::Arc::new(setting.mutex(&setting.locks(), "a", 0));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        *tokio::spawn(mutex.clone().lock_arc_async()).await.unwrap().unwrap() += 1;
        *tokio::spawn(mutex.clone().try_lock_arc_async()).await.unwrap().unwrap() += 1;
        *tokio::spawn(mutex.clone().try_lock_arc_for_async(LONG)).await.unwrap().unwrap() += 1;
        *tokio::spawn(mutex.clone().lock_owned()).await.unwrap().unwrap() += 1;
        *tokio::spawn(mutex.clone().try_lock_owned_for(LONG)).await.unwrap().unwrap() += 1;
    });
    *mutex.clone().try_lock_owned().unwrap() += 1;
    let guard: OwnedMutexGuard<u64> = mutex.clone().lock_arc().unwrap();
    assert_eq!(*guard, 6);
}

at!(everywhere, a_release_that_is_waited_for_hands_over_for_sure);
fn a_release_that_is_waited_for_hands_over_for_sure(setting: &Setting) {
    let (here, there) =
        (setting.mutex(&setting.locks(), "a", ()), setting.mutex(&setting.remote(), "a", ()));
    for _ in 0..10 {
        MutexGuard::unlock_blocking(here.try_lock().unwrap()).unwrap();
        MutexGuard::unlock_blocking(there.try_lock().unwrap()).unwrap();
    }
}

at!(everywhere, whether_it_is_locked_is_seen_without_locking);
fn whether_it_is_locked_is_seen_without_locking(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", 7);
    assert!(!mutex.is_locked());
    let shown = format!("{mutex:?}");
    assert!(shown.contains("data: 7") && shown.contains("\"a\""), "{shown}");
    let guard = mutex.lock().unwrap();
    assert!(mutex.is_locked());
    assert!(
        setting.mutex(&setting.neighbour(), "a", 0).is_locked() || setting.scope == Scope::Host
    );
    let shown = format!("{mutex:?}");
    assert!(shown.contains("<locked>") && !shown.contains('7'), "{shown}");
    MutexGuard::unlock_blocking(guard).unwrap();
    assert!(!mutex.is_locked());
    // The look took nothing away from the next holder.
    assert_eq!(*mutex.try_lock().unwrap(), 7);
}
