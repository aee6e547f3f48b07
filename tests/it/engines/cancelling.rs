//! Waits that are given up, wherever they stand.

use std::{thread, time::Duration};

use tierlock::MutexGuard;

use super::{
    on,
    rig::{ENDLESS, EngineRig, give, hold, mutex},
};
use crate::setting::{Hand, LONG, until};

on!(all_and_own, a_dropped_future_leaves_nothing_behind);
/// Whatever was granted to a future that is gone goes back: else it would stand in the way for as
/// long as the endless time to live.
fn a_dropped_future_leaves_nothing_behind(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    // The first connection takes its time.
    drop(mutex(&one, "warm").lock().unwrap());
    let wanted = mutex(&one, "a");
    for pause in 0..40 {
        let mut wait = Hand::new(wanted.lock_async());
        let is_over = wait.poll().is_ready();
        thread::sleep(Duration::from_micros(pause * 50));
        if pause % 2 == 0 && !is_over {
            let _ = wait.poll();
        }
        drop(wait);
        if pause % 8 == 0 {
            drop(mutex(&another, "a").try_lock_for(LONG).unwrap());
        }
    }
    drop(mutex(&another, "a").try_lock_for(LONG).unwrap());
}

on!(all_and_own, a_waiter_that_gives_up_behind_a_holder_stands_in_no_way);
fn a_waiter_that_gives_up_behind_a_holder_stands_in_no_way(rig: &EngineRig) {
    let [one, another, third] = [rig.locks(), rig.locks(), rig.locks()];
    let guard = hold(&one, "a");
    let (second, third) = (mutex(&another, "a"), mutex(&third, "a"));
    let mut given_up = Hand::new(second.lock_async());
    assert!(given_up.poll().is_pending());
    thread::sleep(Duration::from_millis(30));
    let mut wait = Hand::new(third.lock_async());
    assert!(wait.poll().is_pending());
    thread::sleep(Duration::from_millis(30));
    drop(given_up);
    drop(guard);
    drop(wait.finish().unwrap());
    drop(second.try_lock_for(LONG).unwrap());
}

on!(all_and_kept, a_grant_whose_answer_is_lost_is_given_back);
/// The server has done it and its answer is lost: the lock that nothing holds is given back.
fn a_grant_whose_answer_is_lost_is_given_back(rig: &EngineRig) {
    let proxies = rig.proxies();
    let (behind, direct) = (rig.proxied(&proxies, ENDLESS), rig.locks());
    give(hold(&behind, "a"));
    proxies.iter().for_each(|proxy| proxy.deafen(true));
    let wanted = mutex(&behind, "a");
    let mut wait = Hand::new(wanted.lock_async());
    assert!(wait.poll().is_pending());
    until("a grant at the server", || rig.is_taken("a"));
    proxies.iter().for_each(Proxy::cut);
    proxies.iter().for_each(|proxy| proxy.deafen(false));
    // Either it comes to have the lock after all, or another has it.
    let guard = wait.finish().unwrap();
    assert!(MutexGuard::is_valid(&guard));
    give(guard);
    drop(mutex(&direct, "a").try_lock_for(LONG).unwrap());
}

use super::proxy::Proxy;
