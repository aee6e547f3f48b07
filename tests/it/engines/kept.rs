//! Leases that stay while no guard has the lock, on etcd.

use std::time::{Duration, Instant};

use tierlock::{Keep, LockErrorKind, LockManager, Mutex, MutexGuard};

use super::{
    foreign::{Etcdctl, keys},
    on,
    rig::{ENDLESS, EngineRig, SHORT, give, hold, mutex},
};
use crate::setting::{Hand, LONG, until};

fn kept(locks: &LockManager, name: &str) -> Mutex<()> {
    locks.mutex(name, ()).keep(Keep::Always).build().unwrap()
}

/// How many changes the server has seen.
fn revision(rig: &EngineRig) -> u64 {
    let found = rig.servers[0].cli(&["get", "x", "-w", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    found["header"]["revision"].as_u64().unwrap()
}

on!([etcd_kept] a_kept_lease_is_locked_again_without_the_server);
fn a_kept_lease_is_locked_again_without_the_server(rig: &EngineRig) {
    let locks = rig.locks();
    let ours = kept(&locks, "job");
    let first = MutexGuard::token(&ours.lock().unwrap());
    let key = keys(rig, "job");
    let (before, begin) = (revision(rig), Instant::now());
    let mut last = first;
    const ROUNDS: u32 = 100_000;
    for _ in 0..ROUNDS {
        let token = MutexGuard::token(&ours.lock().unwrap());
        assert!(token > last);
        last = token;
    }
    println!("{:?} for each lock and unlock", begin.elapsed() / ROUNDS);
    assert_eq!((keys(rig, "job"), revision(rig)), (key, before));
    assert_eq!(first.get() >> 20, last.get() >> 20, "the tokens of one revision");
    let guard = ours.lock().unwrap();
    locks.check_token("job", MutexGuard::token(&guard)).unwrap();
}

on!([etcd_kept] the_tokens_of_a_block_end_and_the_next_ones_are_larger);
fn the_tokens_of_a_block_end_and_the_next_ones_are_larger(rig: &EngineRig) {
    let locks = rig.locks();
    let ours = kept(&locks, "job");
    let first = MutexGuard::token(&ours.lock().unwrap());
    let mut last = first;
    while last.get() >> 20 == first.get() >> 20 {
        let token = MutexGuard::token(&ours.lock().unwrap());
        assert!(token > last);
        last = token;
    }
    assert!(last.get() - first.get() >= 1 << 20);
    assert_eq!(keys(rig, "job").len(), 1);
}

on!([etcd_kept] another_clients_key_is_the_recall_of_an_idle_lease);
/// `etcdctl lock`, which knows nothing of kept leases, waits no longer than for a lock that is free.
fn another_clients_key_is_the_recall_of_an_idle_lease(rig: &EngineRig) {
    let locks = rig.locks();
    let ours = kept(&locks, "job");
    let mut last = MutexGuard::token(&ours.lock().unwrap());
    for _ in 0..3 {
        assert_eq!(keys(rig, "job").len(), 1, "it is kept");
        let mut theirs = Etcdctl::lock(rig, "job");
        assert!(theirs.key().starts_with("job/"));
        assert!(ours.try_lock().unwrap_err().is_contended());
        let mut wait = Hand::new(ours.lock_async());
        assert!(wait.poll().is_pending());
        theirs.unlock();
        let token = MutexGuard::token(&wait.finish().unwrap());
        assert!(token > last);
        last = token;
    }
}

on!([etcd_kept] a_recall_of_a_lease_in_use_waits_for_its_guard);
fn a_recall_of_a_lease_in_use_waits_for_its_guard(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let ours = kept(&one, "job");
    let guard = ours.lock().unwrap();
    let mut theirs = Etcdctl::lock(rig, "job");
    until("a queue of two", || keys(rig, "job").len() == 2);
    let third = mutex(&another, "job");
    let mut wait = Hand::new(third.lock_async());
    assert!(wait.poll().is_pending());
    assert!(MutexGuard::is_valid(&guard));
    drop(guard);
    assert!(theirs.key().starts_with("job/"));
    assert!(wait.poll().is_pending());
    theirs.unlock();
    drop(wait.finish().unwrap());
}

on!([etcd_kept] two_keepers_take_turns_and_lose_no_count);
fn two_keepers_take_turns_and_lose_no_count(rig: &EngineRig) {
    let managers = [rig.locks(), rig.locks(), rig.locks()];
    let count = crate::setting::Unprotected::default();
    std::thread::scope(|scope| {
        for locks in &managers {
            let (ours, count) = (kept(locks, "job"), &count);
            scope.spawn(move || {
                for _ in 0..200 {
                    let _guard = ours.lock().unwrap();
                    count.add();
                }
            });
        }
    });
    assert_eq!(count.get(), 600);
}

on!([etcd_kept] an_idle_lease_goes_back_by_itself_unless_it_is_kept_always);
fn an_idle_lease_goes_back_by_itself_unless_it_is_kept_always(rig: &EngineRig) {
    let locks = rig.locks();
    let (adaptive, always) = (mutex(&locks, "a"), kept(&locks, "b"));
    drop(always.lock().unwrap());
    // It is kept after a few locks in a row.
    until("a kept lease", || {
        drop(adaptive.lock().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        keys(rig, "a").len() == 1
    });
    until("the end of an idle lease", || keys(rig, "a").is_empty());
    assert_eq!(keys(rig, "b").len(), 1);
    locks.close();
    until("the end of all", || keys(rig, "b").is_empty());
}

on!([etcd_kept] a_keeper_that_was_cut_off_hears_of_others_again);
fn a_keeper_that_was_cut_off_hears_of_others_again(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.proxied(&proxies, ENDLESS);
    let ours = kept(&locks, "job");
    drop(ours.lock().unwrap());
    // What is put while nothing can be heard is found afterwards.
    proxies[0].stall(true);
    proxies[0].cut();
    let mut theirs = Etcdctl::lock(rig, "job");
    until("a queue of two", || keys(rig, "job").len() == 2);
    drop(ours.lock().unwrap());
    proxies[0].stall(false);
    assert!(theirs.key().starts_with("job/"));
    theirs.unlock();
    drop(ours.try_lock_for(LONG).unwrap());
}

on!([etcd_kept] a_kept_lease_that_has_run_out_is_not_used);
fn a_kept_lease_that_has_run_out_is_not_used(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.proxied(&proxies, SHORT);
    let ours = kept(&locks, "job");
    let first = MutexGuard::token(&ours.lock().unwrap());
    proxies[0].stall(true);
    let others = rig.locks();
    let next = mutex(&others, "job");
    let guard = next.try_lock_for(LONG).unwrap();
    assert!(ours.try_lock().is_err(), "two holders at once");
    assert!(MutexGuard::token(&guard) > first);
    proxies[0].stall(false);
    assert!(ours.try_lock().is_err());
    drop(guard);
    drop(ours.try_lock_for(LONG).unwrap());
}

on!([etcd_kept] managers_that_count_tokens_otherwise_are_refused);
fn managers_that_count_tokens_otherwise_are_refused(rig: &EngineRig) {
    give(hold(&rig.locks(), "job"));
    let plain = rig.url().replace("?keep=1", "");
    let locks = LockManager::builder().service(&plain).open().unwrap();
    let error = mutex(&locks, "job").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("?keep=1"), "{error}");
    // Under a prefix of its own it is no matter.
    let apart = LockManager::builder().service(plain + "?prefix=other/").open().unwrap();
    give(hold(&apart, "job"));
}
