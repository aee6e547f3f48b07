//! Tokens only grow, and the next holder hears how the last one left.

use std::{
    sync::atomic::{AtomicU64, Ordering::*},
    thread,
    time::Duration,
};

use tierlock::{LockManager, MutexGuard, Predecessor, Scope, Token};

use crate::setting::{Hand, LONG, SHORT_LIFE, Setting, at};

at!(everywhere, tokens_grow_across_guards_and_managers);
fn tokens_grow_across_guards_and_managers(setting: &Setting) {
    let mut last = Token::ZERO;
    let managers = setting.crowd(6);
    for _ in 0..5 {
        for locks in &managers {
            let mutex = setting.mutex(locks, "a", ());
            let guard = mutex.lock().unwrap();
            let token = MutexGuard::token(&guard);
            assert!(token > last, "{token} after {last}");
            assert!(token.as_i64() > 0);
            last = token;
            drop(guard);
            let guard = futures::executor::block_on(mutex.lock_async()).unwrap();
            assert!(MutexGuard::token(&guard) > last);
            last = MutexGuard::token(&guard);
        }
    }
}

at!(everywhere, tokens_grow_when_waits_are_given_up);
fn tokens_grow_when_waits_are_given_up(setting: &Setting) {
    let (near, far) = (setting.locks(), setting.remote());
    let (mine, theirs) = (setting.mutex(&near, "a", ()), setting.mutex(&far, "a", ()));
    let mut last = Token::ZERO;
    for _ in 0..10 {
        let guard = mine.lock().unwrap();
        assert!(MutexGuard::token(&guard) > last);
        last = MutexGuard::token(&guard);
        let mut wait = Hand::new(theirs.lock_async());
        assert!(wait.poll().is_pending());
        drop(guard);
        assert!(wait.woken_within(LONG));
        drop(wait);
    }
}

at!(everywhere, tokens_of_a_name_that_comes_and_goes_grow);
/// In each thread the name's only mutex goes away each time, so that the name is forgotten and
/// seen anew all the time.
fn tokens_of_a_name_that_comes_and_goes_grow(setting: &Setting) {
    let last = AtomicU64::new(0);
    let rounds = setting.rounds();
    let once = |locks: &LockManager| {
        let guard = locks.mutex("a", ()).scope(setting.scope).lock().unwrap();
        let token = MutexGuard::token(&guard).get();
        let before = last.swap(token, Relaxed);
        assert!(token > before, "{token} after {before}");
    };
    thread::scope(|scope| {
        for locks in setting.crowd(3) {
            let once = &once;
            scope.spawn(move || (0..rounds).for_each(|_| once(&locks)));
        }
    });
}

at!(everywhere, many_names_that_are_forgotten_keep_their_tokens);
/// redisson#6510: a token is kept per name for ever, or goes back.
fn many_names_that_are_forgotten_keep_their_tokens(setting: &Setting) {
    let locks = setting.locks();
    let all = |names: std::ops::Range<u32>| -> Vec<Token> {
        names
            .map(|number| {
                let mutex = locks.mutex(format!("n{number}"), ()).scope(setting.scope);
                MutexGuard::token(&mutex.lock().unwrap())
            })
            .collect()
    };
    let first = all(0..50);
    let second = all(0..50);
    assert!(first.iter().zip(&second).all(|(first, second)| first < second));
}

at!(across_processes, tokens_grow_across_processes);
fn tokens_grow_across_processes(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let mut last = 0;
    let mut larger = |token: u64| {
        assert!(token > last, "{token} after {last}");
        last = token;
    };
    let mut staying = setting.far_helper();
    for round in 0..6 {
        larger(MutexGuard::token(&mutex.lock().unwrap()).get());
        larger(staying.lock(setting.scope, "a").token);
        assert_eq!(staying.ask("unlock\ta"), "ok");
        // One that ends after each lock, with and without a goodbye.
        let mut passing = setting.near_helper();
        larger(passing.lock(setting.scope, "a").token);
        if round % 2 == 0 {
            assert_eq!(passing.ask("unlock\ta"), "ok");
            assert_eq!(passing.ask("close"), "ok");
        }
        passing.kill();
        if setting.scope == Scope::Host && round == 1 {
            break; // a second's wait is enough
        }
    }
}

at!([host host_with_directory] tokens_grow_across_restarts_of_the_leader);
/// etcd#17780: revisions go back after a restart; live-mutex: seeded from the clock.
fn tokens_grow_across_restarts_of_the_leader(setting: &Setting) {
    let short = || setting.remote_with(|builder| builder.time_to_live(SHORT_LIFE));
    let (old, mut last) = (short(), Token::ZERO);
    for round in 0..3 {
        for locks in [&old, &short()] {
            // One that was never locked before, too: it could be one that was forgotten.
            for name in ["a", "b", &format!("new in {round}")] {
                let guard = locks.mutex(name, ()).lock().unwrap();
                assert!(MutexGuard::token(&guard) > last);
            }
        }
        let guard = old.mutex("a", ()).lock().unwrap();
        last = MutexGuard::token(&guard);
        MutexGuard::unlock(guard).unwrap();
        if round == 2 {
            break;
        }
        setting.stop_leader();
        setting.start_leader();
    }
}

at!(everywhere, a_clean_release_and_a_first_use_are_told_as_clean);
fn a_clean_release_and_a_first_use_are_told_as_clean(setting: &Setting) {
    for locks in setting.crowd(3) {
        let mutex = setting.mutex(&locks, "a", ());
        for _ in 0..2 {
            assert_eq!(MutexGuard::predecessor(&mutex.lock().unwrap()), Predecessor::Clean);
        }
    }
}

at!(everywhere, a_panic_is_told_to_the_next_holder_wherever_it_is);
fn a_panic_is_told_to_the_next_holder_wherever_it_is(setting: &Setting) {
    for next in [setting.locks(), setting.neighbour(), setting.remote()] {
        let mutex = setting.mutex(&setting.locks(), "a", ());
        let next = setting.mutex(&next, "a", ());
        thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _guard = mutex.lock().unwrap();
                std::panic::resume_unwind(Box::new("on purpose"));
            });
            assert!(panicked.join().is_err());
        });
        let guard = next.try_lock_for(LONG).unwrap();
        assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Panicked);
        MutexGuard::unlock(guard).unwrap();
        // And to none after.
        let guard = next.try_lock_for(LONG).unwrap();
        assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Clean);
        drop(guard);
        drop(mutex.try_lock_for(LONG).unwrap());
    }
}

at!(across_processes, a_panic_is_told_to_another_process);
fn a_panic_is_told_to_another_process(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let [mut near, mut far] = [setting.helper(), setting.far_helper()];
    for helper in [&mut near, &mut far] {
        helper.lock(setting.scope, "a");
        assert_eq!(helper.ask("panic\ta"), "ok");
        let guard = mutex.try_lock_for(LONG).unwrap();
        assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Panicked);
    }
    assert_eq!(near.lock(setting.scope, "a").predecessor, "clean");
}

at!(everywhere, at_most_told_as_expired_to_the_next);
fn at_most_told_as_expired_to_the_next(setting: &Setting) {
    let at_most = Duration::from_millis(30);
    let short = setting.locks().mutex("a", ()).scope(setting.scope).at_most(at_most);
    let guard = short.lock().unwrap();
    Hand::new(MutexGuard::lost(&guard)).finish();
    drop(guard);
    let next = setting
        .mutex(&setting.remote(), "a", ())
        .lock()
        .map(|guard| MutexGuard::predecessor(&guard));
    assert_eq!(next.unwrap(), Predecessor::Expired);
}
