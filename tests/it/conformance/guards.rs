//! Guards: owned, moved, mapped, released; and the end of managers.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tierlock::{LockErrorKind, LockManager, MutexGuard, Result, Scope};

use crate::setting::{BlockedThread, Hand, LONG, Setting, at};

at!(everywhere, an_owned_guard_outlives_its_mutex_and_its_manager);
fn an_owned_guard_outlives_its_mutex_and_its_manager(setting: &Setting) {
    let other = setting.mutex(&setting.locks(), "a", ());
    let locks = setting.remote();
    let mutex = Arc::new(setting.mutex(&locks, "a", vec![1]));
    let mut guard = mutex.lock_arc().unwrap();
    drop((mutex, locks));
    assert!(other.try_lock().unwrap_err().is_contended());
    guard.push(2);
    assert_eq!(*guard, [1, 2]);
    assert!(MutexGuard::is_valid(&guard));
    thread::spawn(move || drop(guard)).join().unwrap();
    drop(other.try_lock_for(LONG).unwrap());
}

at!(everywhere, a_name_made_at_run_time_is_locked_by_a_helper_function);
fn a_name_made_at_run_time_is_locked_by_a_helper_function(setting: &Setting) {
    fn lock_order(locks: &LockManager, id: u64, scope: Scope) -> Result<MutexGuard<'static, u64>> {
        locks.mutex(format!("orders/{id}"), id).scope(scope).lock()
    }
    let locks = setting.locks();
    let guards: Vec<_> = (0..20).map(|id| lock_order(&locks, id, setting.scope).unwrap()).collect();
    for (id, guard) in guards.iter().enumerate() {
        assert_eq!(**guard, id as u64);
        let order = setting.mutex(&setting.locks(), &format!("orders/{id}"), ());
        assert!(order.try_lock().unwrap_err().is_contended());
    }
    drop(guards);
    let far = setting.remote();
    for id in 0..20 {
        let order = far.mutex(format!("orders/{id}"), ()).scope(setting.scope);
        drop(order.try_lock_for(LONG).unwrap());
    }
}

at!(everywhere, a_part_of_the_data_is_guarded_across_threads);
fn a_part_of_the_data_is_guarded_across_threads(setting: &Setting) {
    let mutex = Arc::new(setting.mutex(&setting.locks(), "a", (1, "one".to_owned())));
    let whole = mutex.lock_arc().unwrap();
    let token = MutexGuard::token(&whole);
    let mut part = MutexGuard::map(whole, |pair| &mut pair.1);
    let part = thread::spawn(move || {
        part.push('!');
        part
    });
    let part = part.join().unwrap();
    assert_eq!(MutexGuard::token(&part), token);
    assert!(mutex.try_lock().unwrap_err().is_contended());
    let part = MutexGuard::try_map(part, |text| text.get_mut(9..)).map(drop).unwrap_err();
    assert!(mutex.try_lock().unwrap_err().is_contended());
    let letter = MutexGuard::try_map(part, |text| text.get_mut(3..4)).unwrap();
    thread::spawn(move || assert_eq!(&*letter, "!")).join().unwrap();
    assert_eq!(mutex.try_lock().unwrap().1, "one!");
}

at!(everywhere, an_unlock_that_was_answered_has_happened);
/// curator#1193: the outcome of a release is unknown.
fn an_unlock_that_was_answered_has_happened(setting: &Setting) {
    let mine = setting.mutex(&setting.locks(), "a", ());
    let theirs = setting.mutex(&setting.remote(), "a", ());
    for _ in 0..20 {
        for (one, other) in [(&mine, &theirs), (&theirs, &mine)] {
            let guard = one.lock().unwrap();
            futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
            let guard = other.try_lock().unwrap();
            futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
        }
    }
}

at!(everywhere, an_unlock_under_way_outlives_its_mutex);
fn an_unlock_under_way_outlives_its_mutex(setting: &Setting) {
    let unlock = {
        let mutex = setting.mutex(&setting.remote(), "a", String::new());
        MutexGuard::unlock_async(mutex.lock().unwrap())
    };
    Hand::new(unlock).finish().unwrap();
    let other = setting.mutex(&setting.locks(), "a", ());
    drop(other.try_lock_for(LONG).unwrap());
    if setting.scope > Scope::Thread && !setting.is_in_memory() {
        let locks = setting.remote();
        let unlock = MutexGuard::unlock_async(setting.hold(&locks, "a"));
        locks.close();
        Hand::new(unlock).finish().unwrap();
        drop(other.try_lock_for(LONG).unwrap());
    }
}

at!(everywhere, nothing_is_told_after_a_release_in_good_order);
fn nothing_is_told_after_a_release_in_good_order(setting: &Setting) {
    let (tell, told) = mpsc::channel();
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let guard = mutex.lock().unwrap();
    let mut early = Hand::new(MutexGuard::lost(&guard));
    let late = MutexGuard::lost(&guard);
    assert!(early.poll().is_pending());
    MutexGuard::on_lost(&guard, move |reason| tell.send(reason).unwrap());
    MutexGuard::unlock(guard).unwrap();
    // Another holder's loss is none of theirs.
    if setting.scope == Scope::Host && setting.is_in_memory() {
        let guard = mutex.lock().unwrap();
        assert!(setting.locks().lose_lock("a"));
        drop(guard);
    }
    assert!(early.poll().is_pending());
    assert!(Hand::new(late).poll().is_pending());
    // The callback is gone with its guard.
    assert_eq!(told.recv(), Err(mpsc::RecvError));
}

at!(everywhere, a_guard_without_a_deadline_has_none);
fn a_guard_without_a_deadline_has_none(setting: &Setting) {
    drop(setting.hold(&setting.locks(), "a"));
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let guard = mutex.lock().unwrap();
    match MutexGuard::remaining(&guard) {
        None => assert!(setting.scope < Scope::Host),
        Some(left) => {
            assert_eq!(setting.scope, Scope::Host);
            assert!(left <= Duration::from_secs(5));
        }
    }
    assert!(MutexGuard::is_valid(&guard));
    assert_eq!(MutexGuard::check(&guard).unwrap(), MutexGuard::token(&guard));
}

at!(above_threads, a_closed_manager_takes_no_more_locks);
fn a_closed_manager_takes_no_more_locks(setting: &Setting) {
    let locks = match setting.is_in_memory() {
        true => setting.locks().in_memory_peer(),
        false => setting.remote(),
    };
    let mutex = Arc::new(setting.mutex(&locks, "a", ()));
    let held = mutex.lock_arc().unwrap();
    let free = setting.mutex(&locks, "b", ());
    locks.close();
    // What is held stays good.
    assert!(MutexGuard::is_valid(&held));
    let refused = |error: tierlock::LockError| {
        assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
        assert!(error.to_string().contains("closed"), "{error}");
    };
    refused(free.try_lock().map(drop).unwrap_err());
    refused(free.lock().map(drop).unwrap_err());
    refused(futures::executor::block_on(free.lock_async()).map(drop).unwrap_err());
    refused(locks.mutex("c", ()).scope(setting.scope).build().map(drop).unwrap_err());
    drop(held);
    refused(mutex.lock().map(drop).unwrap_err());
    if !setting.is_in_memory() {
        let other = setting.mutex(&setting.locks(), "a", ());
        drop(other.try_lock_for(LONG).unwrap());
    }
    // Threads still exclude each other.
    drop(locks.mutex("d", ()).scope(Scope::Thread).lock().unwrap());
}

at!(above_threads, no_waiter_waits_for_a_manager_that_is_gone);
/// Its goodbye frees its locks at once, although its leases would live for a minute.
fn no_waiter_waits_for_a_manager_that_is_gone(setting: &Setting) {
    let minute = Duration::from_secs(60);
    let other = setting.mutex(&setting.locks(), "a", ());
    let far = || setting.remote_with(|builder| builder.time_to_live(minute));
    // Dropped with everything.
    drop(setting.hold(&far(), "a"));
    drop(other.try_lock_for(LONG).unwrap());
    // Closed, then dropped.
    let locks = far();
    let guard = locks.mutex("a", ()).scope(setting.scope).lock().unwrap();
    if !setting.is_in_memory() {
        futures::executor::block_on(locks.close_async());
    }
    drop((guard, locks));
    drop(other.try_lock_for(LONG).unwrap());
    // Dropped while a guard is left.
    let guard = far().mutex("a", ()).scope(setting.scope).lock().unwrap();
    assert!(other.try_lock().unwrap_err().is_contended());
    drop(guard);
    drop(other.try_lock_for(LONG).unwrap());
}

at!(above_threads, closing_a_manager_ends_every_wait);
/// Waits behind another process or machine, behind a guard of the same manager, and behind each
/// other; blocking and async, with a limit and without.
fn closing_a_manager_ends_every_wait(setting: &Setting) {
    for is_held_here in [false, true] {
        let locks = match setting.is_in_memory() {
            // One manager is all there is of its machine.
            true => LockManager::in_memory(),
            false => setting.remote(),
        };
        let holder = match (is_held_here, setting.is_in_memory()) {
            (true, _) => locks.clone(),
            (false, true) if setting.scope == Scope::Host => locks.in_memory_peer(),
            (false, true) => continue,
            (false, false) => setting.locks(),
        };
        let guard = setting.hold(&holder, "a");
        let mutex = setting.mutex(&locks, "a", ());
        let mut tasks: Vec<_> = (0..2).map(|_| Hand::new(mutex.lock_async())).collect();
        tasks.push(Hand::new(mutex.try_lock_for_async(10 * LONG)));
        tasks.iter_mut().for_each(|task| assert!(task.poll().is_pending()));
        let (tell, told) = mpsc::channel();
        let threads: [BlockedThread; 3] = Default::default();
        thread::scope(|scope| {
            for (thread, has_limit) in threads.iter().zip([false, true, false]) {
                let (tell, mutex) = (tell.clone(), &mutex);
                scope.spawn(move || {
                    thread.is_this();
                    let taken = match has_limit {
                        true => mutex.try_lock_for(10 * LONG),
                        false => mutex.lock(),
                    };
                    tell.send(taken.map(drop)).unwrap();
                });
            }
            threads.iter().for_each(BlockedThread::until_blocked);
            locks.close();
            let ends = (0..3).map(|_| told.recv_timeout(LONG).expect("a blocked thread"));
            let ends = ends.collect::<Vec<_>>().into_iter();
            for end in ends.chain(tasks.into_iter().map(|task| task.finish().map(drop))) {
                let error = end.unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
                assert!(error.to_string().contains("closed"), "{error}");
                assert_eq!(error.name(), Some("a"));
            }
        });
        drop(guard);
        // Nothing is left behind in the way of others.
        let next = match setting.is_in_memory() {
            true if setting.scope == Scope::Host => locks.in_memory_peer(),
            true => continue,
            false => setting.locks(),
        };
        drop(setting.mutex(&next, "a", ()).try_lock_for(LONG).unwrap());
    }
}
