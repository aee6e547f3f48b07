//! Locks that are lost while a guard holds them.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tierlock::{LockManager, LostReason, MutexGuard, Scope};

use crate::setting::{Hand, LONG, SHORT_LIFE, Setting, at};

/// A manager; `lose` can take away its lock of any name.
fn loser(setting: &Setting) -> LockManager {
    match setting.is_in_memory() {
        true => setting.locks(),
        false => setting.remote_with(|builder| builder.time_to_live(SHORT_LIFE)),
    }
}

/// Takes the lock "a" away from its holder, and says what it is to hear.
fn lose(setting: &Setting) -> LostReason {
    match setting.is_in_memory() {
        true => {
            assert!(setting.locks().lose_lock("a"));
            LostReason::Provoked
        }
        false => {
            setting.stop_leader();
            LostReason::Expired
        }
    }
}

at!(with_leader, loss_ends_the_right_and_not_the_borrow);
fn loss_ends_the_right_and_not_the_borrow(setting: &Setting) {
    let locks = loser(setting);
    let mutex = Arc::new(setting.mutex(&locks, "a", vec![1]));
    let sibling = setting.mutex(&locks, "a", ());
    let mut guard = mutex.lock_arc().unwrap();
    let token = MutexGuard::token(&guard);
    assert_eq!(MutexGuard::check(&guard).unwrap(), token);
    let (tell, told) = mpsc::channel();
    let tell_again = tell.clone();
    MutexGuard::on_lost(&guard, move |reason| tell.send(reason).unwrap());
    let lost = MutexGuard::lost(&guard);

    let reason = lose(setting);
    assert_eq!(Hand::new(lost.clone()).finish(), reason);
    assert_eq!(Hand::new(lost).finish(), reason);
    assert!(!MutexGuard::is_valid(&guard));
    let error = MutexGuard::check(&guard).unwrap_err();
    assert!(error.is_lost() && !error.is_contended() && !error.is_unreachable());
    assert_eq!((error.name(), error.scope()), (Some("a"), Some(Scope::Host)));
    assert!(error.to_string().contains("lost"), "{error}");
    assert_eq!(MutexGuard::token(&guard), token);

    // The data is still this guard's alone.
    guard.push(2);
    assert!(mutex.try_lock().unwrap_err().is_contended());
    assert!(sibling.try_lock().unwrap_err().is_contended());
    assert!(mutex.try_lock_for(Duration::from_millis(5)).unwrap_err().is_timeout());
    let mut wait = Hand::new(mutex.lock_async());
    assert!(wait.poll().is_pending());
    drop(wait);
    assert_eq!(*guard, [1, 2]);

    // It is told once, also to those that ask late.
    assert_eq!(told.recv_timeout(LONG).unwrap(), reason);
    MutexGuard::on_lost(&guard, move |reason| tell_again.send(reason).unwrap());
    assert_eq!(told.recv_timeout(LONG).unwrap(), reason);
    assert!(MutexGuard::unlock(guard).unwrap_err().is_lost());
    assert_eq!(told.recv(), Err(mpsc::RecvError), "told more than once");

    if !setting.is_in_memory() {
        setting.start_leader();
    }
    let again = mutex.try_lock_for(LONG).unwrap();
    assert!(MutexGuard::token(&again) > token);
    assert!(MutexGuard::is_valid(&again));
}

at!(with_leader, what_is_lost_stays_lost_when_the_leader_is_back);
/// redlock-rb#36, RedLock.net#48: a renewal revives an expired lease.
/// etcd#22082, live-mutex#131: a stale release frees another holder's lock.
fn what_is_lost_stays_lost_when_the_leader_is_back(setting: &Setting) {
    let locks = loser(setting);
    let mutex = setting.mutex(&locks, "a", ());
    let guard = mutex.lock().unwrap();
    let reason = lose(setting);
    assert_eq!(Hand::new(MutexGuard::lost(&guard)).finish(), reason);
    if !setting.is_in_memory() {
        setting.start_leader();
    }
    // The manager has its leader again, and the lock is another's.
    let next = setting.mutex(&short_lived_remote(setting), "a", ());
    let next = next.try_lock_for(LONG).unwrap();
    drop(locks.mutex("other", ()).try_lock_for(LONG).unwrap());
    assert!(!MutexGuard::is_valid(&guard));
    assert!(MutexGuard::check(&guard).unwrap_err().is_lost());
    assert!(MutexGuard::token(&next) > MutexGuard::token(&guard));
    let unlocked = futures::executor::block_on(MutexGuard::unlock_async(guard));
    assert!(unlocked.unwrap_err().is_lost());
    setting.until_heard(&locks);
    let third = setting.mutex(&setting.remote(), "a", ());
    assert!(third.try_lock().unwrap_err().is_contended());
    assert!(MutexGuard::is_valid(&next));
    drop(next);
    drop(mutex.try_lock_for(LONG).unwrap());
}

fn short_lived_remote(setting: &Setting) -> LockManager {
    setting.remote_with(|builder| builder.time_to_live(SHORT_LIFE))
}

at!(with_leader, a_deadline_is_moved_by_renewals);
fn a_deadline_is_moved_by_renewals(setting: &Setting) {
    let locks = match setting.is_in_memory() {
        true => setting.locks(),
        false => loser(setting),
    };
    let mutex = setting.mutex(&locks, "a", ());
    let guard = mutex.lock().unwrap();
    let first = MutexGuard::remaining(&guard).unwrap();
    // Renewals come at the latest after a third of the time to live: what is left grows again.
    let mut least = first;
    crate::setting::until("a renewal", || {
        let left = MutexGuard::remaining(&guard).unwrap();
        let is_moved = left > least;
        least = least.min(left);
        is_moved
    });
    assert!(MutexGuard::is_valid(&guard));
}

at!(with_leader, at_most_is_told_before_the_next_waiter_is_served);
fn at_most_is_told_before_the_next_waiter_is_served(setting: &Setting) {
    let at_most = Duration::from_millis(100);
    let locks = setting.locks();
    let mutex = locks.mutex("a", ()).at_most(at_most).build().unwrap();
    let next = setting.mutex(&setting.remote(), "a", ());
    for _ in 0..3 {
        let guard = mutex.lock().unwrap();
        assert!(MutexGuard::remaining(&guard).unwrap() <= at_most);
        // Woken by the notice itself, and by no look at the guard.
        let mut lost = Hand::new(MutexGuard::lost(&guard));
        assert!(lost.poll().is_pending());
        // The guard stays: the right alone moves on.
        let other = next.try_lock_for(LONG).unwrap();
        let told = lost.poll();
        assert!(told.is_ready(), "the next holder was served before the loss was told");
        assert!(!MutexGuard::is_valid(&guard));
        assert!(MutexGuard::token(&other) > MutexGuard::token(&guard));
        assert_eq!(MutexGuard::predecessor(&other), tierlock::Predecessor::Expired);
        let error = MutexGuard::unlock(guard).unwrap_err();
        assert!(error.is_lost() && error.to_string().contains("at_most"), "{error}");
        // What is given back late is not the other's.
        assert!(MutexGuard::is_valid(&other));
        assert!(mutex.try_lock().unwrap_err().is_contended());
        drop(other);
    }
}

at!(everywhere, a_callback_that_blocks_holds_up_nothing_else);
fn a_callback_that_blocks_holds_up_nothing_else(setting: &Setting) {
    let locks = setting.locks();
    let build = |name| {
        let mutex = locks.mutex(name, ()).scope(setting.scope);
        mutex.at_most(Duration::from_millis(20)).build().unwrap()
    };
    let (first, second) = (build("a"), build("b"));
    let (end, blocked) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let guard = first.lock().unwrap();
    let (began, begun) = mpsc::channel();
    let tell_first = tell.clone();
    MutexGuard::on_lost(&guard, move |_| {
        began.send(()).unwrap();
        let _ = blocked.recv();
        tell_first.send("a").unwrap();
    });
    let tell_beside = tell.clone();
    MutexGuard::on_lost(&guard, move |_| tell_beside.send("beside a").unwrap());
    begun.recv_timeout(LONG).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok("beside a"));

    let other = second.lock().unwrap();
    MutexGuard::on_lost(&other, move |_| tell.send("b").unwrap());
    assert_eq!(Hand::new(MutexGuard::lost(&other)).finish(), LostReason::HeldTooLong);
    assert_eq!(told.recv_timeout(LONG), Ok("b"));
    if setting.scope == Scope::Host {
        // The leader has heard of it, too.
        drop(setting.mutex(&setting.remote(), "a", ()).try_lock_for(LONG).unwrap());
    }
    end.send(()).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok("a"));
}

at!([thread process memory_below_host] at_most_below_host_scope_waits_for_the_guard);
fn at_most_below_host_scope_waits_for_the_guard(setting: &Setting) {
    let locks = setting.locks();
    let mutex = locks.mutex("a", 1).scope(setting.scope).at_most(Duration::from_millis(20));
    let mutex = mutex.build().unwrap();
    let next = setting.mutex(&setting.remote(), "a", ());
    let mut guard = mutex.lock().unwrap();
    assert_eq!(Hand::new(MutexGuard::lost(&guard)).finish(), LostReason::HeldTooLong);
    assert!(!MutexGuard::is_valid(&guard));
    *guard += 1;
    assert!(next.try_lock().unwrap_err().is_contended());
    assert!(MutexGuard::unlock(guard).unwrap_err().is_lost());
    drop(next.try_lock().unwrap());
}

at!(with_leader, a_leader_that_is_gone_is_unreachable_and_not_a_loss);
/// dynamodb-lock-client#6: "backend down" looks like "lock lost".
fn a_leader_that_is_gone_is_unreachable_and_not_a_loss(setting: &Setting) {
    let locks = setting.locks();
    let held = locks.mutex("a", ()).lock().unwrap();
    setting.stop_leader();
    let error = locks.mutex("b", ()).try_lock_for(Duration::from_millis(50)).unwrap_err();
    assert!(error.is_unreachable() && error.is_retryable(), "{error}");
    assert!(!error.is_lost() && !error.is_contended(), "{error}");
    assert_eq!((error.name(), error.scope()), (Some("b"), Some(Scope::Host)));
    // What is held stays good until its deadline.
    assert!(MutexGuard::is_valid(&held));
    assert!(MutexGuard::remaining(&held).unwrap() > Duration::ZERO);
}

at!([host host_with_directory] an_unanswered_unlock_says_that_no_leader_answered);
fn an_unanswered_unlock_says_that_no_leader_answered(setting: &Setting) {
    let short = Duration::from_millis(200);
    let locks = setting.remote_with(|builder| builder.connect_timeout(short));
    // On a busy machine the first connection may take longer than that.
    let guard = loop {
        match locks.mutex("a", ()).lock() {
            Ok(guard) => break guard,
            Err(error) => assert!(error.is_unreachable(), "{error}"),
        }
    };
    setting.stop_leader();
    let error = futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert_eq!((error.name(), error.scope()), (Some("a"), Some(Scope::Host)));
}

at!(with_leader, a_waiter_survives_an_outage_and_gets_the_lock);
/// redisson#4216, runlore#250: a candidate stops after a restart of the server.
fn a_waiter_survives_an_outage_and_gets_the_lock(setting: &Setting) {
    let (holder, waiting) = (loser(setting), short_lived_remote(setting));
    let guard = holder.mutex("a", ()).lock().unwrap();
    let token = MutexGuard::token(&guard);
    let mutex = setting.mutex(&waiting, "a", ());
    let mut wait = Hand::new(mutex.lock_async());
    assert!(wait.poll().is_pending());
    setting.until_heard(&waiting);
    setting.stop_leader();
    setting.start_leader();
    drop(guard);
    let guard = wait.finish().unwrap();
    assert!(MutexGuard::is_valid(&guard));
    assert!(MutexGuard::token(&guard) > token);
}
