//! Holders, servers and the ways between them that die, stop or go silent.

use std::{
    thread,
    time::{Duration, Instant},
};

use tierlock::{LockErrorKind, LostReason, MutexGuard, Predecessor, Scope, fence::Gate};

use super::{
    on,
    proxy::Proxy,
    rig::{ENDLESS, EngineRig, EngineServer, SHORT, give, hold, mutex},
};
use crate::setting::{Hand, LONG, stamp, until};

on!(all_and_own, a_killed_holder_is_succeeded_after_its_time_to_live);
/// DistributedLock#230: a PostgreSQL keeps the lock of a process that crashed for a minute.
fn a_killed_holder_is_succeeded_after_its_time_to_live(rig: &EngineRig) {
    let mut holder = rig.helper(SHORT);
    let got = holder.lock(Scope::Host, "a");
    let locks = rig.locks();
    assert!(mutex(&locks, "a").try_lock().unwrap_err().is_contended());
    holder.kill();
    let next = mutex(&locks, "a");
    let guard = next.try_lock_for(LONG).unwrap();
    assert!(!rig.has_tokens() || MutexGuard::token(&guard).get() > got.token);
    let told = if rig.kind == "tierlock" { Predecessor::Expired } else { Predecessor::Clean };
    assert_eq!(MutexGuard::predecessor(&guard), told);
}

on!(all_and_own, a_holder_stopped_past_its_time_to_live_finds_its_lock_lost);
/// What every lease of a machine that pauses comes to: the holder goes on, and is told at its first look.
fn a_holder_stopped_past_its_time_to_live_finds_its_lock_lost(rig: &EngineRig) {
    for how in ["check", "is_valid"] {
        let mut holder = rig.helper(SHORT);
        let got = holder.lock(Scope::Host, "a");
        assert_eq!(holder.ask(&format!("look-after-stop\t{how}\ta")), "waiting");
        holder.stop();
        let locks = rig.locks();
        let next = mutex(&locks, "a");
        let guard = next.try_lock_for(LONG).unwrap();
        assert!(!rig.has_tokens() || MutexGuard::token(&guard).get() > got.token);
        holder.resume();
        assert_eq!(holder.hear(), "lost\ttrue");
        // Its release is of a lock that another has by now.
        assert!(holder.ask("unlock\ta").starts_with("error\tLost"));
        assert!(MutexGuard::is_valid(&guard));
        assert!(mutex(&rig.locks(), "a").try_lock().unwrap_err().is_contended());
    }
}

on!(alone, a_stopped_server_costs_the_lock_at_its_deadline_and_not_later);
/// redisson#6510 of a renewal that fails in silence.
fn a_stopped_server_costs_the_lock_at_its_deadline_and_not_later(rig: &EngineRig) {
    let mut holder = rig.helper(SHORT);
    holder.lock(Scope::Host, "a");
    rig.each(EngineServer::stop);
    let stopped = stamp();
    let told = holder.ask("until-lost\ta");
    rig.each(EngineServer::resume);
    let mut words = told.split('\t');
    assert_eq!(words.next(), Some("lost"));
    let last: u64 = words.next().unwrap().parse().unwrap();
    // At no moment did it believe in the lock for longer than the server keeps it.
    assert!(last < stopped + SHORT.as_nanos() as u64);
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
}

on!(alone, a_loss_is_told_though_the_guard_is_not_looked_at);
fn a_loss_is_told_though_the_guard_is_not_looked_at(rig: &EngineRig) {
    let locks = rig.short_locks();
    let guard = hold(&locks, "a");
    let lost = MutexGuard::lost(&guard);
    rig.each(EngineServer::kill);
    // Where a lock ends with its connection, that is told at once.
    let why = if matches!(rig.kind, "postgres" | "mysql") {
        LostReason::Forgotten
    } else {
        LostReason::Expired
    };
    assert_eq!(futures::executor::block_on(lost), why);
    assert!(!MutexGuard::is_valid(&guard));
    assert!(futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap_err().is_lost());
}

on!([redis redis_plain etcd zookeeper_alone] a_server_killed_and_restarted_keeps_locks_and_tokens);
/// etcd#17780, redisson#5256: a restart takes tokens back, or gives a held lock away.
fn a_server_killed_and_restarted_keeps_locks_and_tokens(rig: &EngineRig) {
    // Longer than any server takes to come back: what it remembers is asked for here, and not how fast
    // it is.
    let lives = Duration::from_secs(if rig.kind == "zookeeper" { 24 } else { 8 });
    let locks = || rig.builder().time_to_live(lives).open().unwrap();
    let [one, another] = [locks(), locks()];
    let held = hold(&one, "held");
    let token = MutexGuard::token(&mutex(&one, "a").lock().unwrap());
    let waiter = mutex(&another, "held");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    until("a waiter that the server has answered", || {
        let _ = wait.poll();
        another.check_token("held", MutexGuard::token(&held)).is_ok()
    });
    rig.each(EngineServer::kill);
    rig.each(EngineServer::start);
    let renewed = Instant::now();
    until("a renewal after the restart", || {
        renewed.elapsed() > lives || !MutexGuard::is_valid(&held)
    });
    assert!(MutexGuard::is_valid(&held));
    assert!(wait.poll().is_pending(), "the waiter has a lock that is held");
    let before = MutexGuard::token(&held);
    give(held);
    assert!(MutexGuard::token(&wait.finish().unwrap()) > before);
    assert!(MutexGuard::token(&mutex(&another, "a").lock().unwrap()) > token);
}

on!(alone, a_server_that_is_not_there_is_unreachable_and_found_again);
fn a_server_that_is_not_there_is_unreachable_and_found_again(rig: &EngineRig) {
    let patience = Duration::from_millis(700);
    let locks = rig.builder().connect_timeout(patience).open().unwrap();
    rig.each(EngineServer::kill);
    let error = mutex(&locks, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unreachable, "{error}");
    assert!(error.waited().unwrap() >= patience);
    let error = mutex(&locks, "a").try_lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unreachable, "{error}");
    rig.each(EngineServer::start);
    drop(mutex(&locks, "a").lock().unwrap());
}

on!(with_sessions, a_cut_connection_costs_no_lock);
/// The reconnected manager is the same holder, and renews what it has.
fn a_cut_connection_costs_no_lock(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.proxied(&proxies, SHORT);
    let guard = hold(&locks, "a");
    let begin = Instant::now();
    while begin.elapsed() < SHORT * 2 {
        proxies.iter().for_each(Proxy::cut);
        thread::sleep(Duration::from_millis(300));
        assert!(MutexGuard::is_valid(&guard));
    }
    give(guard);
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
}

on!(all_and_kept, a_lock_that_expires_in_flight_stays_lost);
/// Half open: what is sent goes nowhere and nothing says so. The lock expires in flight, and what comes
/// through later neither brings it back nor frees the next holder (redsync#147, etcd#22082).
fn a_lock_that_expires_in_flight_stays_lost(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.proxied(&proxies, SHORT);
    let guard = hold(&locks, "a");
    let fence = Gate::new(0_u64);
    let token = MutexGuard::token(&guard);
    proxies.iter().for_each(|proxy| proxy.stall(true));
    let others = rig.locks();
    let next = mutex(&others, "a");
    let next = next.try_lock_for(LONG).unwrap();
    assert!(!MutexGuard::is_valid(&guard), "two holders at once");
    assert!(MutexGuard::check(&guard).unwrap_err().is_lost());
    if rig.has_tokens() {
        // The store that checks tokens never loses an update.
        *fence.enter(MutexGuard::token(&next)).unwrap() += 1;
        assert!(fence.enter(token).is_err());
    }
    proxies.iter().for_each(|proxy| proxy.stall(false));
    assert!(futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap_err().is_lost());
    // The manager is back, and has a lock of its own again.
    drop(mutex(&locks, "b").lock().unwrap());
    assert!(MutexGuard::is_valid(&next));
    let refused = mutex(&locks, "a").try_lock().unwrap_err();
    assert!(refused.is_contended(), "a stale release freed the next holder");
    give(next);
    assert!(MutexGuard::is_valid(&mutex(&locks, "a").try_lock_for(LONG).unwrap()));
}

on!(all_and_kept, a_waiter_on_a_silent_connection_is_served_once_it_is_cut);
/// etcd-client#48: a waiter on a dead connection hangs.
fn a_waiter_on_a_silent_connection_is_served_once_it_is_cut(rig: &EngineRig) {
    let proxies = rig.proxies();
    let (behind, direct) = (rig.proxied(&proxies, ENDLESS), rig.locks());
    let guard = hold(&direct, "a");
    let waiter = mutex(&behind, "a");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    let sent = proxies[0].sent();
    until("a waiter that has asked", || proxies[0].sent() > sent || sent > 0);
    proxies.iter().for_each(|proxy| proxy.stall(true));
    drop(guard);
    proxies.iter().for_each(Proxy::cut);
    proxies.iter().for_each(|proxy| proxy.stall(false));
    assert!(MutexGuard::is_valid(&wait.finish().unwrap()));
}

on!(all_and_kept, a_release_through_an_outage_is_done_after_it);
/// curator#1193: the outcome of a release is unknown; it is repeated until it is known.
fn a_release_through_an_outage_is_done_after_it(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.proxied(&proxies, ENDLESS);
    let guard = hold(&locks, "a");
    proxies.iter().for_each(|proxy| proxy.stall(true));
    drop(guard);
    proxies.iter().for_each(Proxy::cut);
    proxies.iter().for_each(|proxy| proxy.stall(false));
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
}

on!([redlock] a_minority_of_servers_may_be_away);
fn a_minority_of_servers_may_be_away(rig: &EngineRig) {
    let locks = rig.short_locks();
    let guard = hold(&locks, "a");
    rig.servers[0].kill();
    let late = mutex(&rig.locks(), "a").try_lock_for(SHORT * 2).unwrap_err();
    assert!(late.is_timeout(), "{late}");
    assert!(MutexGuard::is_valid(&guard));
    give(guard);
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
    rig.servers[1].kill();
    let patience = Duration::from_millis(700);
    let locks = rig.builder().connect_timeout(patience).open().unwrap();
    let error = mutex(&locks, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unreachable, "{error}");
}

on!(alone, a_limit_is_kept_while_the_server_is_silent);
/// And what the server does for it later goes back.
fn a_limit_is_kept_while_the_server_is_silent(rig: &EngineRig) {
    let [locks, others] = [rig.locks(), rig.locks()];
    give(hold(&locks, "warm"));
    give(hold(&others, "warm"));
    rig.each(EngineServer::stop);
    let begin = Instant::now();
    let error = mutex(&locks, "a").try_lock_for(Duration::from_millis(200)).unwrap_err();
    let waited = begin.elapsed();
    rig.each(EngineServer::resume);
    assert!(error.is_timeout() || error.is_unreachable(), "{error}");
    // A server may take 2 s to answer.
    assert!(waited < Duration::from_secs(2), "it has waited for the server: {waited:?}");
    drop(hold(&others, "a"));
}

on!(with_tokens, a_deadline_counts_from_the_sending_of_the_request);
/// delta-rs#153, node-redlock#167: it counts from the arrival of the answer.
fn a_deadline_counts_from_the_sending_of_the_request(rig: &EngineRig) {
    let proxies = rig.proxies();
    let behind = rig.proxied(&proxies, ENDLESS);
    give(hold(&behind, "a"));
    let wanted = mutex(&behind, "a");
    // Before what is granted in silence, where one session carries all.
    proxies.iter().for_each(|proxy| proxy.deafen(true));
    let begin = Instant::now();
    let mut wait = Hand::new(wanted.lock_async());
    assert!(wait.poll().is_pending());
    until("a grant at the server", || rig.is_taken("a"));
    // More than the margin that a deadline keeps of so long a time to live.
    thread::sleep(Duration::from_secs(1));
    let silence = begin.elapsed();
    proxies.iter().for_each(|proxy| proxy.deafen(false));
    let guard = wait.finish().unwrap();
    let left = MutexGuard::remaining(&guard).unwrap();
    assert!(left <= ENDLESS - silence, "{left:?} after {silence:?}");
}
