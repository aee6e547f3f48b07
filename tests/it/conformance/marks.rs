//! The mark of how a holder left: it is told to the next one that uses the lock, once, and no other
//! that only looks takes it away.

use std::thread;

use tierlock::{LockManager, Mutex, MutexGuard, Predecessor, Scope};

use crate::setting::{Hand, LONG, Setting, at};

fn panic_with<T: Send>(guard: T) {
    thread::scope(|scope| {
        let holder = scope.spawn(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(holder.join().is_err());
    });
}

/// What the next holder hears that takes the lock to use it.
fn heard(mutex: &Mutex<()>) -> Predecessor {
    let guard = mutex.try_lock_for(LONG).unwrap();
    let heard = MutexGuard::predecessor(&guard);
    MutexGuard::unlock_blocking(guard).unwrap();
    heard
}

at!(everywhere, a_lock_handed_on_tells_the_next_holder_what_was_told);
fn a_lock_handed_on_tells_the_next_holder_what_was_told(setting: &Setting) {
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let (here, there) =
            (setting.mutex(&setting.locks(), "a", ()), setting.mutex(&locks, "a", ()));
        panic_with(here.try_lock_for(LONG).unwrap());
        for probe in [&there, &here, &there] {
            let guard = probe.try_lock_for(LONG).unwrap();
            assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Panicked);
            MutexGuard::hand_on(guard).unwrap();
        }
        assert_eq!(heard(&here), Predecessor::Panicked);
        assert_eq!([&there, &here].map(heard), [Predecessor::Clean; 2]);
        // What was clean stays so.
        MutexGuard::hand_on(there.try_lock_for(LONG).unwrap()).unwrap();
        assert_eq!(heard(&here), Predecessor::Clean);
    }
}

at!(across_processes, a_probe_after_a_kill_takes_no_mark_away);
/// named-lock's own tests: the first try after a kill swallowed what the job was to hear.
fn a_probe_after_a_kill_takes_no_mark_away(setting: &Setting) {
    let told = match setting.scope {
        Scope::Host => Predecessor::Expired,
        _ => Predecessor::Died,
    };
    let mutex = setting.mutex(&setting.locks(), "a", ());
    for mut holder in [setting.near_helper(), setting.far_helper()] {
        holder.lock(setting.scope, "a");
        holder.kill();
        MutexGuard::hand_on(mutex.try_lock_for(LONG).unwrap()).unwrap();
        assert_eq!(heard(&mutex), told);
        assert_eq!(heard(&mutex), Predecessor::Clean);
    }
}

at!(across_processes, a_lock_after_a_kill_is_of_its_scope_and_alone_in_its_process);
fn a_lock_after_a_kill_is_of_its_scope_and_alone_in_its_process(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", 0);
    drop(mutex.lock().unwrap());
    let mut holder = setting.near_helper();
    holder.lock(setting.scope, "a");
    holder.kill();
    let guard = mutex.try_lock_for(LONG).unwrap();
    assert_eq!(MutexGuard::scope(&guard), setting.scope);
    assert!(mutex.try_lock().is_err());
    assert!(format!("{mutex:?}").contains("<locked>"), "{mutex:?}");
}

at!(across_processes, a_future_dropped_with_the_lock_takes_no_mark_away);
fn a_future_dropped_with_the_lock_takes_no_mark_away(setting: &Setting) {
    let told = match setting.scope {
        Scope::Host => Predecessor::Expired,
        _ => Predecessor::Died,
    };
    let waiter = setting.mutex(&setting.locks(), "a", ());
    let mut holder = setting.near_helper();
    holder.lock(setting.scope, "a");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    holder.kill();
    // Polled where that is what looks, and never when the lock is here.
    assert!(wait.woken_within(LONG));
    drop(wait);
    assert_eq!(heard(&waiter), told);
}

at!(across_processes, a_panic_is_told_once_and_to_whichever_process_comes_next);
fn a_panic_is_told_once_and_to_whichever_process_comes_next(setting: &Setting) {
    let here = setting.mutex(&setting.locks(), "a", ());
    for mut there in [setting.helper(), setting.far_helper()] {
        panic_with(here.try_lock_for(LONG).unwrap());
        assert_eq!(there.lock(setting.scope, "a").predecessor, "panicked");
        assert_eq!(there.ask("unlock\ta"), "ok");
        assert_eq!(heard(&here), Predecessor::Clean);
        // And the other way.
        there.lock(setting.scope, "a");
        assert_eq!(there.ask("panic\ta"), "ok");
        assert_eq!(heard(&here), Predecessor::Panicked);
        assert_eq!(there.lock(setting.scope, "a").predecessor, "clean");
        assert_eq!(there.ask("unlock\ta"), "ok");
    }
}

at!([process process_file host_with_directory host_with_file_directory memory_host]
    widening_a_name_takes_no_mark_away);
fn widening_a_name_takes_no_mark_away(setting: &Setting) {
    let narrow = |locks: &LockManager| locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    let mutex = narrow(&setting.locks());
    panic_with(mutex.lock().unwrap());
    mutex.escalate(Scope::Process).unwrap();
    mutex.escalate(setting.scope).unwrap();
    assert_eq!(heard(&mutex), Predecessor::Panicked);
    assert_eq!(heard(&mutex), Predecessor::Clean);
}

at!(everywhere, a_forgotten_guard_holds_its_lock_until_its_mutex_is_dropped);
fn a_forgotten_guard_holds_its_lock_until_its_mutex_is_dropped(setting: &Setting) {
    for locks in [setting.locks(), setting.neighbour(), setting.remote()] {
        let next = setting.mutex(&setting.locks(), "a", ());
        for leaks in [false, true] {
            let mut mutex = setting.mutex(&locks, "a", 1);
            match mutex.try_lock_for(LONG).unwrap() {
                guard if leaks => *MutexGuard::leak(guard) += 1,
                guard => std::mem::forget(guard),
            }
            assert!(mutex.try_lock().unwrap_err().is_contended());
            assert!(next.try_lock().unwrap_err().is_contended());
            assert_eq!(*mutex.get_mut(), if leaks { 2 } else { 1 });
            drop(mutex);
            assert_eq!(heard(&next), Predecessor::Died);
            assert_eq!(heard(&next), Predecessor::Clean);
        }
    }
}

at!(everywhere, a_forgotten_guard_that_owns_its_mutex_holds_the_lock_for_good);
fn a_forgotten_guard_that_owns_its_mutex_holds_the_lock_for_good(setting: &Setting) {
    let locks = setting.remote();
    std::mem::forget(setting.hold(&locks, "a"));
    drop(locks);
    let next = setting.mutex(&setting.locks(), "a", ());
    assert!(next.try_lock().unwrap_err().is_contended());
    assert!(next.try_lock_for(std::time::Duration::from_millis(20)).unwrap_err().is_contended());
}
