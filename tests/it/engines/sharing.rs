//! Holders and waiters while everything works.

use std::{thread, time::Duration};

use tierlock::{LockErrorKind, LockManager, MutexGuard};

use super::{
    on,
    rig::{ENDLESS, EngineRig, SHORT, give, hold, mutex, told_of_holder, try_hold},
};
use crate::setting::{Hand, LONG, Unprotected, until};

on!(all_and_own, processes_and_threads_lose_no_count);
fn processes_and_threads_lose_no_count(rig: &EngineRig) {
    let rounds = if rig.has_tokens() { 60 } else { 15 };
    let folder = rig.folder().to_str().unwrap().to_owned();
    let mut helpers: Vec<_> = (0..3).map(|_| rig.helper(ENDLESS)).collect();
    for helper in &mut helpers {
        helper.say(&format!("count\thost\tcounter\t{folder}\t{rounds}"));
    }
    let here = Unprotected::default();
    let crowd: Vec<LockManager> = (0..2).map(|_| rig.locks()).collect();
    thread::scope(|scope| {
        for locks in &crowd {
            let (mutex, here) = (mutex(locks, "here"), &here);
            scope.spawn(move || {
                for _ in 0..rounds {
                    let guard = mutex.lock().unwrap();
                    here.add();
                    give(guard);
                }
            });
        }
    });
    assert_eq!(here.get(), 2 * rounds);
    for helper in &mut helpers {
        assert_eq!(helper.hear(), "ok");
    }
    let counted = std::fs::read_to_string(rig.folder().join("counter")).unwrap();
    assert_eq!(counted, (3 * rounds).to_string());
}

on!(all_and_own, two_managers_of_one_process_exclude_each_other);
fn two_managers_of_one_process_exclude_each_other(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let guard = hold(&one, "a");
    assert!(MutexGuard::is_valid(&guard));
    let refused = mutex(&another, "a").try_lock().unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::WouldBlock);
    assert!(mutex(&another, "b").try_lock().is_ok());
    give(guard);
    let guard = try_hold(&another, "a");
    assert!(mutex(&one, "a").try_lock().unwrap_err().is_contended());
    drop(guard);
}

on!(all_and_own, a_limited_wait_ends_and_the_next_wait_is_served);
fn a_limited_wait_ends_and_the_next_wait_is_served(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let guard = hold(&one, "a");
    let waiter = mutex(&another, "a");
    let late = waiter.try_lock_for(Duration::from_millis(150)).unwrap_err();
    assert_eq!(late.kind(), LockErrorKind::TimedOut, "{late}");
    assert!(late.waited().unwrap() >= Duration::from_millis(150));
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    drop(guard);
    assert!(MutexGuard::is_valid(&wait.finish().unwrap()));
}

on!(with_tokens_and_own, tokens_grow_with_every_grant_and_exceed_what_the_machine_knows);
fn tokens_grow_with_every_grant_and_exceed_what_the_machine_knows(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let mut last = 0;
    for locks in [&one, &another, &one, &one, &another] {
        let token = MutexGuard::token(&mutex(locks, "a").lock().unwrap()).get();
        assert!(token > last);
        last = token;
    }
}

on!(with_tokens_and_own, the_holder_is_shown_and_its_token_checked);
fn the_holder_is_shown_and_its_token_checked(rig: &EngineRig) {
    let one = rig.builder().label("checkout").time_to_live(ENDLESS).open().unwrap();
    let another = rig.locks();
    let guard = hold(&one, "a");
    let token = MutexGuard::token(&guard);
    // A first connection takes its time.
    give(hold(&another, "warm"));
    let holder = told_of_holder(&mutex(&another, "a"));
    assert_eq!((&*holder.label, holder.pid), ("checkout", Some(std::process::id())));
    another.check_token("a", token).unwrap();
    assert!(another.check_token("a", token.next().unwrap()).unwrap_err().is_lost());
    give(guard);
    assert!(another.check_token("a", token).unwrap_err().is_lost());
}

on!(all_and_own, a_released_lock_is_renewed_no_more);
/// redisson#7272: a renewal that races a release brings the lock back.
fn a_released_lock_is_renewed_no_more(rig: &EngineRig) {
    let [one, another] = [rig.short_locks(), rig.locks()];
    for _ in 0..30 {
        let guard = hold(&one, "a");
        let other = hold(&one, "b");
        thread::sleep(Duration::from_millis(20));
        give(guard);
        give(mutex(&another, "a").try_lock_for(LONG).unwrap());
        drop(other);
    }
    // Longer than what a renewal would have given it.
    let guard = hold(&another, "a");
    assert!(MutexGuard::is_valid(&guard));
}

on!(all_and_own, a_lock_outlives_its_time_to_live_while_its_holder_does);
/// redisson#4822: a holder's lock ends although it is renewed.
fn a_lock_outlives_its_time_to_live_while_its_holder_does(rig: &EngineRig) {
    let [one, another] = [rig.short_locks(), rig.locks()];
    let guard = hold(&one, "a");
    let waiter = mutex(&another, "a");
    let late = waiter.try_lock_for(SHORT * 2).unwrap_err();
    assert!(late.is_timeout());
    assert!(MutexGuard::is_valid(&guard));
    // On a busy machine one renewal may be late, not all.
    until("a renewal", || MutexGuard::remaining(&guard).unwrap() > SHORT / 2);
    give(guard);
}

on!(all_and_own, at_most_ends_the_lock_for_its_guard_and_for_others);
fn at_most_ends_the_lock_for_its_guard_and_for_others(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let limit = Duration::from_millis(300);
    let guard = one.mutex("a", ()).at_most(limit).lock().unwrap();
    let lost = futures::executor::block_on(MutexGuard::lost(&guard));
    assert_eq!(lost, tierlock::LostReason::HeldTooLong);
    let next = hold(&another, "a");
    // The first guard is still there: in its process no other gets in.
    assert!(mutex(&one, "a").try_lock().unwrap_err().is_contended());
    assert!(futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap_err().is_lost());
    assert!(MutexGuard::is_valid(&next), "a stale release freed the next holder");
    assert!(mutex(&one, "a").try_lock().unwrap_err().is_contended());
    drop(next);
    drop(mutex(&one, "a").try_lock_for(LONG).unwrap());
}

on!([redis redis_plain] at_least_keeps_the_lock_though_its_holder_is_killed);
fn at_least_keeps_the_lock_though_its_holder_is_killed(rig: &EngineRig) {
    let [one, another] = [rig.short_locks(), rig.locks()];
    let at_least = SHORT * 2;
    let begin = std::time::Instant::now();
    drop(one.mutex("a", ()).at_least(at_least).lock().unwrap());
    drop(one);
    let refused = mutex(&another, "a").try_lock().unwrap_err();
    assert!(refused.is_contended());
    let guard = hold(&another, "a");
    assert!(begin.elapsed() >= at_least);
    drop(guard);
    // What was given back unused is kept by nothing.
    let guard = another.mutex("a", ()).at_least(at_least).lock().unwrap();
    MutexGuard::hand_on(guard).unwrap();
    drop(mutex(&another, "a").try_lock_for(at_least / 2).unwrap());
}

on!([redlock] terms_that_it_cannot_carry_are_refused);
fn terms_that_it_cannot_carry_are_refused(rig: &EngineRig) {
    let locks = rig.locks();
    let refused = locks.mutex("a", ()).at_least(SHORT).build().unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Config);
    assert!(refused.to_string().contains("at_least"), "{refused}");
    let fenced = rig.url().replace("?unfenced=1", "");
    let fenced = LockManager::builder().service(fenced).open().unwrap();
    let refused = fenced.mutex("a", ()).build().unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Config);
    assert!(refused.to_string().contains("unfenced"), "{refused}");
}

on!(all, a_lock_that_is_to_be_kept_always_is_refused);
fn a_lock_that_is_to_be_kept_always_is_refused(rig: &EngineRig) {
    let refused = rig.locks().mutex("a", ()).keep(tierlock::Keep::Always).build().unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Config);
    let broken = rig.locks().break_lock("a", tierlock::Token::ZERO).unwrap_err();
    assert_eq!(broken.kind(), LockErrorKind::Config);
    let text = broken.to_string();
    assert!(
        ["redis-cli", "etcdctl", "psql", "mysql -e", "zkCli.sh"]
            .iter()
            .any(|tool| text.contains(tool)),
        "{text}"
    );
}

on!(all_and_own, a_manager_that_is_closed_gives_back_what_its_guards_had);
fn a_manager_that_is_closed_gives_back_what_its_guards_had(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let guard = hold(&one, "a");
    let other = hold(&another, "b");
    let waiter = mutex(&one, "b");
    thread::scope(|scope| {
        let wait = scope.spawn(|| waiter.lock().map(|_| ()).unwrap_err().kind());
        let error = mutex(&another, "a").try_lock_for(Duration::from_millis(100)).unwrap_err();
        assert!(error.is_timeout());
        one.close();
        assert_eq!(wait.join().unwrap(), LockErrorKind::Config);
    });
    drop((guard, other));
    drop(mutex(&another, "a").try_lock_for(LONG).unwrap());
    drop(mutex(&another, "b").try_lock_for(LONG).unwrap());
    until("an end of new locks", || mutex_fails(&one));
}

fn mutex_fails(locks: &LockManager) -> bool {
    locks.mutex("c", ()).build().is_err()
}
