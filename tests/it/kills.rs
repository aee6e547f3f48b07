//! Holders that are killed or stopped, at every scope that has other processes.

use std::time::Duration;

use tierlock::{MutexGuard, Predecessor, Scope};

use crate::{
    helper::Helper,
    setting::{Hand, LONG, Setting, at},
};

/// What the next holder is told of one that was killed.
fn told(setting: &Setting) -> Predecessor {
    match setting.scope {
        Scope::Host => Predecessor::Expired,
        _ => Predecessor::Died,
    }
}

at!(across_processes, a_killed_holder_is_succeeded);
/// boost interprocess#56: a crash leaves the shared lock locked.
fn a_killed_holder_is_succeeded(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    for mut holder in [setting.near_helper(), setting.far_helper()] {
        let got = holder.lock(setting.scope, "a");
        assert!(mutex.try_lock().unwrap_err().is_contended());
        holder.kill();
        let guard = mutex.try_lock_for(LONG).unwrap();
        assert_eq!(MutexGuard::predecessor(&guard), told(setting));
        assert!(MutexGuard::token(&guard).get() > got.token);
        assert!(MutexGuard::is_valid(&guard));
        drop(guard);
        assert_eq!(MutexGuard::predecessor(&mutex.lock().unwrap()), Predecessor::Clean);
    }
}

at!(across_processes, a_holder_killed_while_two_wait_is_succeeded_by_each_in_turn);
fn a_holder_killed_while_two_wait_is_succeeded_by_each_in_turn(setting: &Setting) {
    let mut holder = setting.far_helper();
    let [mut near, mut far] = [setting.helper(), setting.far_helper()];
    let first = holder.lock(setting.scope, "a");
    near.say_lock(setting.scope, "a");
    far.say_lock(setting.scope, "a");
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let mut wait = Hand::new(mutex.lock_async());
    assert!(wait.poll().is_pending());
    holder.kill();
    let (mut predecessors, mut wait, mut left) = (Vec::new(), Some(wait), vec![near, far]);
    // The next one says so; the others wait for it.
    crate::setting::until("three successors", || {
        if let Some(std::task::Poll::Ready(guard)) = wait.as_mut().map(Hand::poll) {
            let guard = guard.unwrap();
            let how = MutexGuard::predecessor(&guard).to_string();
            predecessors.push((MutexGuard::token(&guard).get(), how));
            wait = None;
        }
        if let Some(at) = left.iter_mut().position(Helper::has_spoken) {
            let mut helper = left.remove(at);
            let got = helper.hear_lock();
            predecessors.push((got.token, got.predecessor));
            assert_eq!(helper.ask("unlock\ta"), "ok");
        }
        predecessors.len() == 3
    });
    assert!(predecessors.is_sorted_by(|one, next| one.0 < next.0), "{predecessors:?}");
    assert!(predecessors[0].0 > first.token);
    // Only the first one hears of the death.
    let heard: Vec<_> = predecessors.iter().map(|(_, how)| how.as_str()).collect();
    assert_eq!(heard, [told(setting).as_str(), "clean", "clean"]);
}

at!(across_processes, a_waiter_killed_in_the_queue_blocks_no_other);
/// redisson#3004, #6150: a dead waiter blocks the fair queue.
fn a_waiter_killed_in_the_queue_blocks_no_other(setting: &Setting) {
    drop(setting.hold(&setting.locks(), "a"));
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let guard = mutex.lock().unwrap();
    let [mut near, mut far] = [setting.near_helper(), setting.far_helper()];
    for helper in [&mut near, &mut far] {
        // Once connected, its request is sent at once.
        helper.lock(setting.scope, "warm-up");
        assert_eq!(helper.ask("unlock\twarm-up"), "ok");
        helper.say_lock(setting.scope, "a");
    }
    assert!(!near.has_spoken() && !far.has_spoken());
    near.kill();
    far.kill();
    drop(guard);
    let guard = setting.mutex(&setting.remote(), "a", ());
    let guard = guard.try_lock_for(LONG).unwrap();
    assert!(MutexGuard::is_valid(&guard));
}

#[test]
fn a_holder_killed_over_and_over_loses_no_lock_and_no_token() {
    let setting = Setting::process();
    let mut last = 0;
    for _ in 0..10 {
        let mut holder = setting.helper();
        let got = holder.lock(setting.scope, "a");
        assert!(got.token > last, "{} after {last}", got.token);
        assert_eq!(got.predecessor, if last == 0 { "clean" } else { "died" });
        last = got.token;
        holder.kill();
    }
}

#[test]
fn a_stopped_holder_keeps_a_process_scope_lock() {
    let setting = Setting::process();
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let mut holder = setting.helper();
    holder.lock(Scope::Process, "a");
    holder.stop();
    for _ in 0..20 {
        assert!(mutex.try_lock().unwrap_err().is_contended());
        let error = mutex.try_lock_for(Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.holder().unwrap().pid, Some(holder.id()));
    }
    holder.resume();
    assert!(holder.ask("look\ta").starts_with("true\tOk"));
    assert_eq!(holder.ask("unlock\ta"), "ok");
    let guard = mutex.try_lock_for(LONG).unwrap();
    assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Clean);
}

at!([host host_with_directory] a_stopped_holder_knows_at_its_first_look_that_it_lost_the_lock);
/// etcd#10811, redisson#2665, curator#727: a holder pauses past its lease and goes on.
fn a_stopped_holder_knows_at_its_first_look_that_it_lost_the_lock(setting: &Setting) {
    let mut holder = setting.near_helper();
    let old = [holder.lock(Scope::Host, "a"), holder.lock(Scope::Host, "b")];
    assert_eq!(holder.ask("look-after-stop\tcheck\ta"), "waiting");
    holder.stop();
    let locks = setting.remote();
    let guards = ["a", "b"].map(|name| {
        let mutex = std::sync::Arc::new(setting.mutex(&locks, name, ()));
        mutex.try_lock_arc_for(LONG).unwrap()
    });
    for (guard, old) in guards.iter().zip(&old) {
        assert_eq!(MutexGuard::predecessor(guard), Predecessor::Expired);
        assert!(MutexGuard::token(guard).get() > old.token);
    }
    holder.resume();
    assert_eq!(holder.hear(), "lost\ttrue");
    assert_eq!(holder.ask("look\tb"), "false\tErr(Lost)");
    // etcd#22082: its late release does not free the new owner.
    let answer = holder.ask("unlock\ta");
    assert!(answer.starts_with("error\tLost\t"), "{answer}");
    let third = setting.mutex(&setting.remote(), "a", ());
    assert!(third.try_lock().unwrap_err().is_contended());
    assert!(guards.iter().all(MutexGuard::is_valid));
    drop(guards);
    // And it can go on with a new token.
    let new = holder.lock(Scope::Host, "a");
    assert!(new.token > old[0].token);
}

#[test]
fn is_valid_is_false_at_the_first_look_after_a_stop() {
    let setting = Setting::host();
    let mut holder = setting.near_helper();
    holder.lock(Scope::Host, "a");
    assert_eq!(holder.ask("look-after-stop\tis_valid\ta"), "waiting");
    holder.stop();
    drop(setting.mutex(&setting.remote(), "a", ()).try_lock_for(LONG).unwrap());
    holder.resume();
    assert_eq!(holder.hear(), "lost\ttrue");
}

/// etcd#10811, redisson#2665: the holder is not told when it goes on.
#[test]
fn a_stopped_holder_that_waits_to_hear_of_a_loss_hears_of_it_when_it_goes_on() {
    let setting = Setting::host();
    let mut holder = setting.near_helper();
    holder.lock(Scope::Host, "a");
    holder.say("hear-lost\ta");
    holder.stop();
    drop(setting.mutex(&setting.remote(), "a", ()).try_lock_for(LONG).unwrap());
    assert!(!holder.has_spoken());
    holder.resume();
    assert_eq!(holder.hear(), "lost\tExpired");
}

at!(across_processes, what_was_released_before_an_exit_is_free_and_clean);
/// atlasdb#3162, rslock#30. The manager stands in a `static`, which is never dropped; the helper's
/// leases would outlive it by more than this test waits.
fn what_was_released_before_an_exit_is_free_and_clean(setting: &Setting) {
    for count in [1, 8] {
        for round in 0..4 {
            let mut helper = setting.helper_with_long_life();
            let held = setting.mutex(&setting.remote(), &format!("held by {count}"), ());
            if round > 0 && setting.scope == Scope::Host {
                // The guard that there was at the exit still has its lock.
                assert!(held.try_lock().unwrap_err().is_contended());
                break;
            }
            helper.say(&format!("exit-with-a-static-manager\t{}\t{count}", setting.scope));
            assert!(helper.ended().success());
            for number in 0..count {
                let next = setting.mutex(&setting.remote(), &format!("lock {number}"), ());
                let next = next.try_lock_for(LONG).unwrap();
                assert_eq!(MutexGuard::predecessor(&next), Predecessor::Clean);
            }
        }
    }
}
