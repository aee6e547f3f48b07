//! Several servers of one service, some of which end.

use std::{fs, thread, time::Instant};

use tierlock::{LockManager, MutexGuard};

use super::{
    mysql, on,
    proxy::Proxy,
    rig::{ENDLESS, EngineRig, SHORT, give, hold, mutex},
};
use crate::setting::{Hand, LONG, until};

/// A time to live that is over within a test.
const LIVES: std::time::Duration = std::time::Duration::from_secs(8);

fn locks(rig: &EngineRig) -> LockManager {
    rig.builder().time_to_live(LIVES).open().unwrap()
}

/// Waits for longer than an answer from before is good for.
fn outlives_its_time(guard: &MutexGuard<'_, ()>) {
    let begun = Instant::now();
    until("a renewal", || begun.elapsed() > LIVES || !MutexGuard::is_valid(guard));
    assert!(MutexGuard::is_valid(guard));
}

on!([etcd_three zookeeper_three] a_lock_outlives_the_end_of_each_server);
fn a_lock_outlives_the_end_of_each_server(rig: &EngineRig) {
    let [one, another, third] = [locks(rig), locks(rig), locks(rig)];
    let held = hold(&one, "held");
    let waiter = mutex(&another, "held");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    let mut token = MutexGuard::token(&hold(&third, "other"));
    for server in &rig.servers {
        server.kill();
        // Two of three elect a leader, if the one that has ended was it.
        let next = hold(&third, "other");
        assert!(MutexGuard::token(&next) > token);
        token = MutexGuard::token(&next);
        give(next);
        assert!(MutexGuard::is_valid(&held));
        assert!(wait.poll().is_pending(), "the waiter has a lock that is held");
        server.start();
    }
    outlives_its_time(&held);
    assert!(wait.poll().is_pending(), "the waiter has a lock that is held");
    let before = MutexGuard::token(&held);
    give(held);
    assert!(MutexGuard::token(&wait.finish().unwrap()) > before);
}

on!([etcd_three zookeeper_three] no_count_is_lost_while_servers_end_in_turn);
fn no_count_is_lost_while_servers_end_in_turn(rig: &EngineRig) {
    const ROUNDS: usize = 80;
    let folder = rig.folder().to_str().unwrap().to_owned();
    let mut helpers: Vec<_> = (0..3).map(|_| rig.helper(ENDLESS)).collect();
    for helper in &mut helpers {
        helper.say(&format!("count\thost\tcounter\t{folder}\t{ROUNDS}"));
    }
    let counted = || {
        let text = fs::read_to_string(rig.folder().join("counter")).unwrap_or_default();
        text.parse::<usize>().unwrap_or(0)
    };
    for server in rig.servers.iter().chain(&rig.servers) {
        let before = counted();
        server.kill();
        until("a count without it", || counted() > before || counted() == 3 * ROUNDS);
        server.start();
    }
    for helper in &mut helpers {
        assert_eq!(helper.hear(), "ok");
    }
    assert_eq!(counted(), 3 * ROUNDS);
}

/// Managers by way of one proxy, which leads to the first server.
fn by_proxy(rig: &EngineRig) -> (Proxy, LockManager) {
    let proxy = Proxy::start(rig.servers[0].port);
    let url = rig.url_of([proxy.port()].into_iter());
    (proxy, LockManager::builder().service(url).time_to_live(LIVES).open().unwrap())
}

on!([redis_two] a_lock_that_a_replica_has_outlives_its_promotion_and_another_is_lost);
/// redisson#4822: the holder of a lock that a fail-over has forgotten is told.
fn a_lock_that_a_replica_has_outlives_its_promotion_and_another_is_lost(rig: &EngineRig) {
    let [primary, replica] = &rig.servers[..] else { unreachable!("there are two") };
    let way = Proxy::start(primary.port);
    replica.cli(&["REPLICAOF", "127.0.0.1", &way.port().to_string()]);
    let (proxy, locks) = by_proxy(rig);
    let known = hold(&locks, "known");
    until("a replica that has it", || replica.cli(&["EXISTS", "known"]) == "1");
    way.stall(true);
    let forgotten = hold(&locks, "forgotten");
    primary.kill();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(replica.cli(&["EXISTS", "forgotten"]), "0");
    proxy.lead_to(replica.port);
    until("the loss", || !MutexGuard::is_valid(&forgotten));
    outlives_its_time(&known);
    let before = MutexGuard::token(&known);
    give(known);
    assert!(MutexGuard::token(&hold(&locks, "known")) > before);
    drop(forgotten);
    drop(hold(&locks, "forgotten"));
}

on!([postgres_replicated] a_promoted_standby_has_no_holder_and_higher_tokens);
/// pg_auto_failover#1028: the fail-over forgets session locks, and the holder is told.
fn a_promoted_standby_has_no_holder_and_higher_tokens(rig: &EngineRig) {
    let [primary, standby] = &rig.servers[..] else { unreachable!("there are two") };
    let [one, another] = [locks(rig), locks(rig)];
    let held = hold(&one, "held");
    let token = MutexGuard::token(&held);
    thread::scope(|scope| {
        let next = scope.spawn(|| {
            let guard = hold(&another, "held");
            (MutexGuard::token(&guard), MutexGuard::is_valid(&guard))
        });
        until("a standby that has its token", || {
            let drawn = standby.cli(&["SELECT last_value FROM tierlock_token"]);
            drawn.parse::<u64>().unwrap() >= token.get()
        });
        primary.kill();
        until("the loss", || !MutexGuard::is_valid(&held));
        standby.cli(&["SELECT pg_promote()"]);
        let (next, is_valid) = next.join().unwrap();
        assert!(next > token && is_valid);
    });
    drop(held);
    assert!(mutex(&one, "held").try_lock_for(LONG).is_ok());
}

on!([mysql_replicated] a_promoted_replica_has_no_holder_and_higher_tokens);
/// pg_auto_failover#1028, on MariaDB: named locks are not replicated, and the holder is told.
fn a_promoted_replica_has_no_holder_and_higher_tokens(rig: &EngineRig) {
    let [primary, replica] = &rig.servers[..] else { unreachable!("there are two") };
    let [(way, one), (other_way, another)] = [by_proxy(rig), by_proxy(rig)];
    let held = hold(&one, "held");
    let token = MutexGuard::token(&held);
    until("a replica that has its token", || {
        let tokens = "SELECT COALESCE(MAX(token), 0) FROM tierlock_locks WHERE name = 'held'";
        let is_made = !replica.cli(&["SHOW TABLES LIKE 'tierlock_locks'"]).is_empty();
        is_made && replica.cli(&[tokens]).parse::<u64>().unwrap() >= token.get()
    });
    let waiter = mutex(&another, "held");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    // The way leads to the replica before that is one that takes writes.
    way.lead_to(replica.port);
    other_way.lead_to(replica.port);
    primary.kill();
    until("the loss", || !MutexGuard::is_valid(&held));
    drop(held);
    let early = mutex(&one, "held").try_lock_for(SHORT).unwrap_err();
    assert!(!early.is_contended() && !early.is_lost(), "{early}");
    assert!(wait.poll().is_pending(), "a lock of a server that takes no writes");
    mysql::promote(replica);
    let next = wait.finish().unwrap();
    assert!(MutexGuard::token(&next) > token && MutexGuard::is_valid(&next));
    assert!(mutex(&one, "held").try_lock().unwrap_err().is_contended());
    give(next);
    assert!(mutex(&one, "held").try_lock_for(LONG).is_ok());
}
