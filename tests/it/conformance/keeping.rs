//! Leases that are kept between local locks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tierlock::{Keep, LockManager, LostReason, Mutex, MutexGuard, Predecessor, Scope, Token};

use crate::setting::{Hand, LONG, SHORT_LIFE, Setting, Unprotected, at};

fn kept(locks: &LockManager, name: &str) -> Mutex<()> {
    locks.mutex(name, ()).scope(Scope::Host).keep(Keep::Always).build().unwrap()
}

fn token(mutex: &Mutex<()>) -> Token {
    MutexGuard::token(&mutex.try_lock_for(LONG).unwrap())
}

at!(with_leader, a_kept_lease_serves_locks_while_the_leader_is_away);
fn a_kept_lease_serves_locks_while_the_leader_is_away(setting: &Setting) {
    let mutex = kept(&setting.locks(), "a");
    let mut last = token(&mutex);
    setting.stop_leader();
    for _ in 0..1000 {
        let guard = mutex.lock().unwrap();
        assert_eq!(MutexGuard::scope(&guard), Scope::Host);
        assert!(MutexGuard::token(&guard) > last);
        assert!(MutexGuard::is_valid(&guard));
        assert!(MutexGuard::remaining(&guard).unwrap() > Duration::ZERO);
        last = MutexGuard::check(&guard).unwrap();
        assert!(MutexGuard::unlock(guard).is_ok());
    }
    let guard = futures::executor::block_on(mutex.lock_async()).unwrap();
    assert!(MutexGuard::token(&guard) > last);
    futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
}

at!(with_leader, threads_and_tasks_hand_a_kept_lease_on_while_the_leader_is_away);
fn threads_and_tasks_hand_a_kept_lease_on_while_the_leader_is_away(setting: &Setting) {
    const ROUNDS: u64 = 50;
    const THREADS: u64 = 4;
    const TASKS: u64 = 4;
    let mutex = kept(&setting.locks(), "a");
    let count = Unprotected::default();
    let last = parking_lot::Mutex::new(token(&mutex));
    setting.stop_leader();
    let enter = |guard: &MutexGuard<'_, ()>| {
        assert_eq!(MutexGuard::scope(guard), Scope::Host);
        let mut last = last.try_lock().expect("two are inside");
        assert!(MutexGuard::check(guard).unwrap() > *last);
        *last = MutexGuard::token(guard);
    };
    let task = async || {
        for _ in 0..ROUNDS {
            let guard = mutex.lock_async().await.unwrap();
            enter(&guard);
            count.add_async().await;
        }
    };
    let about_to_lock = Barrier::new(THREADS as usize + 2);
    thread::scope(|scope| {
        // None begins alone.
        let guard = mutex.lock().unwrap();
        for _ in 0..THREADS {
            scope.spawn(|| {
                about_to_lock.wait();
                for _ in 0..ROUNDS {
                    let guard = mutex.lock().unwrap();
                    enter(&guard);
                    count.add();
                }
            });
        }
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            about_to_lock.wait();
            runtime.block_on(futures::future::join_all((0..TASKS).map(|_| task())));
        });
        about_to_lock.wait();
        drop(guard);
    });
    assert_eq!(count.get(), (THREADS + TASKS) * ROUNDS);
}

at!(with_leader, a_local_waiter_gets_a_held_lease_while_the_leader_is_away);
fn a_local_waiter_gets_a_held_lease_while_the_leader_is_away(setting: &Setting) {
    let mutex = setting.locks().mutex("a", ()).scope(Scope::Host).build().unwrap();
    let first = mutex.lock().unwrap();
    let mut waiting: Vec<_> = (0..4).map(|_| Hand::new(mutex.lock_async())).collect();
    assert!(waiting.iter_mut().all(|hand| hand.poll().is_pending()));
    drop(first);
    let mut waiting = waiting.into_iter();
    let mut guard = waiting.next().unwrap().finish().unwrap();
    // Nothing was kept before, and the leader was asked for this one.
    setting.stop_leader();
    for next in waiting {
        let token = MutexGuard::token(&guard);
        drop(guard);
        guard = next.finish().unwrap();
        assert!(MutexGuard::check(&guard).unwrap() > token);
    }
}

at!(with_leader, an_idle_lease_goes_to_the_session_that_asks);
fn an_idle_lease_goes_to_the_session_that_asks(setting: &Setting) {
    let (here, there) = (kept(&setting.locks(), "a"), kept(&setting.remote(), "a"));
    let mut last = token(&here);
    for _ in 0..10 {
        for mutex in [&there, &here] {
            let next = token(mutex);
            assert!(next > last);
            last = next;
        }
    }
}

at!([host_with_directory host_with_file_directory] managers_of_one_directory_take_kept_leases_in_turns);
fn managers_of_one_directory_take_kept_leases_in_turns(setting: &Setting) {
    let first = setting.neighbour();
    let second = setting.neighbour();
    let (one, two) = (kept(&first, "a"), kept(&second, "a"));
    let mut last = token(&one);
    for _ in 0..10 {
        for mutex in [&two, &one] {
            let next = token(mutex);
            assert!(next > last);
            last = next;
        }
    }
    // The first one keeps it, for as long as it lasts; then the next one does.
    let guard = two.lock().unwrap();
    assert!(one.try_lock().unwrap_err().is_contended());
    drop(guard);
    drop((one, first));
    let again = kept(&second, "a");
    last = token(&again).max(last);
    setting.stop_leader();
    for _ in 0..10 {
        let next = token(&again);
        assert!(next > last);
        last = next;
    }
}

at!(with_leader, a_try_gets_what_is_kept_and_not_what_is_held);
fn a_try_gets_what_is_kept_and_not_what_is_held(setting: &Setting) {
    let (here, there) = (kept(&setting.locks(), "a"), kept(&setting.remote(), "a"));
    drop(here.lock().unwrap());
    drop(there.try_lock().expect("it is free"));
    let guard = here.lock().unwrap();
    assert!(there.try_lock().unwrap_err().is_contended());
    drop(guard);
    drop(there.try_lock_for(LONG).unwrap());
}

at!(with_leader, a_lease_that_is_held_is_given_back_by_its_guard);
fn a_lease_that_is_held_is_given_back_by_its_guard(setting: &Setting) {
    let (here, there) = (kept(&setting.locks(), "a"), kept(&setting.remote(), "a"));
    drop(here.lock().unwrap());
    let guard = here.lock().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| token(&there));
        // What waits there is not overtaken here for ever.
        let until = Instant::now() + LONG;
        drop(guard);
        while !waiting.is_finished() {
            assert!(Instant::now() < until, "a waiter elsewhere is never served");
            drop(here.lock().unwrap());
        }
    });
}

at!(with_leader, every_session_is_served_where_many_keep_one_name);
fn every_session_is_served_where_many_keep_one_name(setting: &Setting) {
    const ROUNDS: u64 = 100;
    let count = parking_lot::Mutex::new((0_u64, Token::ZERO));
    thread::scope(|scope| {
        for (number, locks) in setting.crowd(4).into_iter().enumerate() {
            let count = &count;
            scope.spawn(move || {
                let keep = if number % 2 == 0 { Keep::Always } else { Keep::Adaptive };
                let mutex = locks.mutex("a", ()).scope(Scope::Host).keep(keep).build().unwrap();
                for _ in 0..ROUNDS {
                    let guard = mutex.try_lock_for(LONG).unwrap();
                    let mut held = count.try_lock().expect("two are inside");
                    assert!(MutexGuard::token(&guard) > held.1);
                    *held = (held.0 + 1, MutexGuard::token(&guard));
                }
            });
        }
    });
    assert_eq!(count.into_inner().0, 4 * ROUNDS);
}

// Its quiet path changes the kept lease's word by plain stores while others recall it.
at!(with_leader, a_keeper_that_never_pauses_is_recalled_whenever_others_ask);
fn a_keeper_that_never_pauses_is_recalled_whenever_others_ask(setting: &Setting) {
    const ROUNDS: usize = 100;
    let near = kept(&setting.locks(), "a");
    let far = setting.remote().mutex("a", ()).scope(Scope::Host).keep(Keep::Never).build();
    let far = far.unwrap();
    let last = parking_lot::Mutex::new(Token::ZERO);
    let enter = |guard: &MutexGuard<'_, ()>| {
        let mut last = last.try_lock().expect("two are inside");
        assert!(MutexGuard::token(guard) > *last);
        *last = MutexGuard::token(guard);
    };
    let (kept_locks, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                enter(&near.try_lock_for(LONG).unwrap());
                kept_locks.fetch_add(1, Relaxed);
            }
        });
        for round in 0..ROUNDS {
            // At a different place of the keeper's path each time.
            let wanted = kept_locks.load(Relaxed) + 1 + round % 64;
            while kept_locks.load(Relaxed) < wanted {
                thread::yield_now();
            }
            enter(&far.try_lock_for(LONG).expect("the recall is overlooked"));
        }
        is_over.store(true, Relaxed);
    });
}

at!(with_leader, a_panic_is_told_once_to_the_next_holder_near_or_far);
fn a_panic_is_told_once_to_the_next_holder_near_or_far(setting: &Setting) {
    let (here, there) = (kept(&setting.locks(), "a"), kept(&setting.remote(), "a"));
    let panic_in = |mutex: &Mutex<()>| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            std::panic::resume_unwind(Box::new("while it was held"));
        }));
        assert!(panicked.is_err());
    };
    let predecessor = |mutex: &Mutex<()>| MutexGuard::predecessor(&mutex.lock().unwrap());
    panic_in(&here);
    assert_eq!(predecessor(&here), Predecessor::Panicked);
    assert_eq!(predecessor(&here), Predecessor::Clean);
    panic_in(&here);
    assert_eq!(predecessor(&there), Predecessor::Panicked);
    assert_eq!(predecessor(&here), Predecessor::Clean);
}

at!([memory_host] a_kept_lease_that_is_lost_is_not_used);
fn a_kept_lease_that_is_lost_is_not_used(setting: &Setting) {
    let locks = setting.locks();
    let mutex = kept(&locks, "a");
    let first = token(&mutex);
    assert!(locks.lose_lock("a"));
    assert!(token(&mutex) > first);

    // While it is held, its guard is told; the one before and the one after are not.
    let before = mutex.lock().unwrap();
    let not_told = MutexGuard::lost(&before);
    drop(before);
    let guard = mutex.lock().unwrap();
    let (tell, told) = mpsc::channel();
    MutexGuard::on_lost(&guard, move |reason| tell.send(reason).unwrap());
    let lost = MutexGuard::lost(&guard);
    assert!(locks.lose_lock("a"));
    assert_eq!(Hand::new(lost).finish(), LostReason::Provoked);
    assert_eq!(told.recv_timeout(LONG).unwrap(), LostReason::Provoked);
    assert!(!MutexGuard::is_valid(&guard));
    assert!(MutexGuard::unlock(guard).unwrap_err().is_lost());
    let after = mutex.lock().unwrap();
    assert!(MutexGuard::is_valid(&after));
    assert!(Hand::new(not_told).poll().is_pending());
}

at!([host host_with_directory] a_kept_lease_past_its_deadline_is_not_used);
fn a_kept_lease_past_its_deadline_is_not_used(setting: &Setting) {
    let locks = setting.remote_with(|builder| {
        builder.time_to_live(SHORT_LIFE).connect_timeout(Duration::from_millis(200))
    });
    let mutex = kept(&locks, "a");
    // A busy machine may not connect within the timeout.
    let lock = || loop {
        match mutex.try_lock_for(LONG) {
            Err(error) if error.is_unreachable() => {}
            locked => break locked.unwrap(),
        }
    };
    let guard = lock();
    let lost = MutexGuard::lost(&guard);
    setting.stop_leader();
    assert_eq!(Hand::new(lost).finish(), LostReason::Expired);
    drop(guard);
    assert!(mutex.lock().unwrap_err().is_unreachable());
    setting.start_leader();
    drop(lock());
}

at!([memory_host] a_kept_lease_that_ran_out_unheard_is_not_used);
/// As after a pause: the first look at the clock shows it, whatever the driver knows.
fn a_kept_lease_that_ran_out_unheard_is_not_used(setting: &Setting) {
    let mutex = kept(&setting.locks(), "a");
    let guard = mutex.lock().unwrap();
    setting.stop_leader();
    while MutexGuard::remaining(&guard).unwrap() > Duration::ZERO {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(MutexGuard::check(&guard).unwrap_err().is_lost());
    drop(guard);
    let wait = Duration::from_millis(50);
    let error = mutex.try_lock_for(wait).unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}

at!([host_with_directory] siblings_behind_one_directory_never_wait_for_each_other_for_ever);
/// One process keeps the lease; a sibling has the process tier and waits for the leader; a thread
/// of the first waits for the process tier. The lease comes back though that thread is in line.
fn siblings_behind_one_directory_never_wait_for_each_other_for_ever(setting: &Setting) {
    let here = kept(&setting.locks(), "a");
    let mut sibling = setting.helper();
    for _ in 0..20 {
        drop(here.try_lock_for(LONG).unwrap());
        sibling.say_lock(Scope::Host, "a");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| token(&here));
            sibling.hear_lock();
            assert_eq!(sibling.ask("unlock\ta"), "ok");
            waiting.join().unwrap();
        });
    }
}

at!([memory_host] a_kept_lease_is_given_back_when_no_mutex_uses_the_name_any_more);
fn a_kept_lease_is_given_back_when_no_mutex_uses_the_name_any_more(setting: &Setting) {
    let (locks, other) = (setting.locks(), setting.remote());
    let mutex = kept(&locks, "a");
    drop(mutex.lock().unwrap());
    drop(mutex);
    setting.stop_leader();
    setting.start_leader();
    // No session is there to be asked for it.
    locks.close();
    drop(kept(&other, "a").try_lock_for(LONG).unwrap());
}

at!(with_leader, a_closed_manager_keeps_nothing);
fn a_closed_manager_keeps_nothing(setting: &Setting) {
    let locks = setting.remote();
    let mutex = kept(&locks, "a");
    drop(mutex.lock().unwrap());
    locks.close();
    assert!(mutex.lock().is_err());
    drop(kept(&setting.locks(), "a").try_lock_for(LONG).unwrap());
}
