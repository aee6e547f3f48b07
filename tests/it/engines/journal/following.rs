//! Leaders that die, stop, are cut off or hand over, and what follows.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use rustix::process::Signal;
use tierlock::{LockManager, MutexGuard, fence::Gate};

use super::{JournalRig, SLOWLY, SOON, Served, first_to_reign};
use crate::{
    engines::{
        on,
        proxy::Proxy,
        rig::{EngineRig, give, hold, mutex},
    },
    setting::{Hand, until},
};

on!([etcd postgres] a_reign_killed_under_load_is_followed_and_no_update_is_lost);
/// ceph#14267: a new leader took times of renewal from the journal and evicted the living. Here all
/// that hold something are treated as just renewed.
fn a_reign_killed_under_load_is_followed_and_no_update_is_lost(store: &EngineRig) {
    const KILLS: usize = 4;
    let rig = JournalRig::new(store);
    let mut leaders: Vec<Served> = Vec::new();
    for number in 0..2 + KILLS {
        leaders.push(rig.leader(SOON));
        if number == 0 {
            leaders[0].reigns();
        }
    }
    let all: Vec<&Served> = leaders.iter().collect();
    let idle = rig.locks(&all);
    let kept = hold(&idle, "held throughout");
    let counters: Vec<LockManager> = (0..3).map(|_| rig.locks(&all)).collect();
    let (store, is_over, counted) = (Gate::new(0_u64), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for locks in &counters {
            scope.spawn(|| {
                let counter = mutex(locks, "counter");
                while !is_over.load(SeqCst) {
                    let guard = counter.lock().unwrap();
                    let token = MutexGuard::token(&guard);
                    let read = store.enter(token).map(|value| *value);
                    let written =
                        read.and_then(|read| store.enter(token).map(|mut value| *value = read + 1));
                    counted.fetch_add(written.is_ok().into(), SeqCst);
                }
            });
        }
        let mut reigning = 0;
        for _ in 0..KILLS {
            let before = counted.load(SeqCst);
            until("more that is counted", || counted.load(SeqCst) > before + 5);
            leaders.remove(reigning).kill();
            reigning = first_to_reign(&leaders);
        }
        let before = counted.load(SeqCst);
        until("more that is counted", || counted.load(SeqCst) > before + 5);
        is_over.store(true, SeqCst);
    });
    let held = store.into_inner();
    assert_eq!(held, counted.load(SeqCst), "updates were lost");
    MutexGuard::check(&kept).unwrap();
    assert_eq!(MutexGuard::token(&kept).epoch(), 1);
    give(kept);
    // A busy machine may have moved it once more.
    assert!(rig.epoch() > KILLS as u32);
}

on!([etcd postgres] a_leader_stopped_past_its_proof_is_followed_and_stands_by_when_it_goes_on);
fn a_leader_stopped_past_its_proof_is_followed_and_stands_by_when_it_goes_on(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let first = rig.leader(SOON);
    first.reigns();
    let second = rig.leader(SOON);
    let (locks, others) = (rig.locks(&[&first, &second]), rig.locks(&[&first, &second]));
    let held = hold(&locks, "a");
    let waiting_for = mutex(&others, "a");
    let mut waiting = Hand::new(waiting_for.lock_async());
    assert!(waiting.poll().is_pending());
    first.signal(Signal::STOP);
    second.reigns();
    // The second leader knows the holder, and the waiter.
    MutexGuard::check(&held).unwrap();
    let token = MutexGuard::token(&held);
    first.signal(Signal::CONT);
    first.says("its reign is over");
    first.says("it stands by");
    give(held);
    let next = waiting.finish().unwrap();
    // A busy machine may have moved the reign once more.
    assert!(MutexGuard::token(&next) > token && MutexGuard::token(&next).epoch() >= 2);
    give(next);
}

on!([etcd postgres] a_leader_cut_off_from_its_journal_is_followed);
/// One way or both: what it sends does not arrive, or the answers do not.
fn a_leader_cut_off_from_its_journal_is_followed(store: &EngineRig) {
    for cut in [Proxy::mute, Proxy::deafen, Proxy::stall] {
        let rig = JournalRig::new(store);
        let proxies = store.proxies();
        let url = store.url_of(proxies.iter().map(Proxy::port));
        let cluster = cluster_option(store);
        let first = rig.leader_on(&(url + &cluster), SOON);
        first.reigns();
        let second = rig.leader_on(&(store.url() + &cluster), SOON);
        let locks = rig.locks(&[&first, &second]);
        let held = hold(&locks, "a");
        proxies.iter().for_each(|proxy| cut(proxy, true));
        second.reigns();
        MutexGuard::check(&held).unwrap();
        first.says("its reign is over: the journal has not confirmed it");
        proxies.iter().for_each(|proxy| cut(proxy, false));
        first.says("it stands by");
        give(held);
        let again = hold(&locks, "b");
        // A busy machine may have moved the reign once more.
        assert!(MutexGuard::token(&again).epoch() >= 2);
        give(again);
    }
}

/// A journal of its own in a store that has another.
fn cluster_option(store: &EngineRig) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, SeqCst);
    match store.kind {
        "etcd" => format!("?prefix=journal{number}/"),
        _ => format!("?cluster=journal{number}"),
    }
}

on!([etcd postgres] an_append_whose_answer_was_lost_is_found_done);
/// The commit has happened and the leader is not told: it sends the same again, in the same reign.
fn an_append_whose_answer_was_lost_is_found_done(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let proxies = store.proxies();
    let url = store.url_of(proxies.iter().map(Proxy::port));
    let leader = rig.leader_on(&url, SLOWLY);
    leader.reigns();
    let locks = rig.locks(&[&leader]);
    for round in 1..=3_usize {
        proxies.iter().for_each(|proxy| proxy.deafen(true));
        let others = rig.locks(&[&leader]);
        let wanted = mutex(&others, "a");
        let mut wait = Hand::new(wanted.lock_async());
        assert!(wait.poll().is_pending());
        until(&format!("session {round} durable"), || rig.sessions() == round);
        // It waits for the answer.
        assert!(wait.poll().is_pending());
        proxies.iter().for_each(Proxy::cut);
        proxies.iter().for_each(|proxy| proxy.deafen(false));
        let guard = wait.finish().unwrap();
        assert_eq!(MutexGuard::token(&guard).epoch(), 1);
        give(guard);
        drop(wanted);
        std::mem::forget(others); // its session stays open
    }
    give(hold(&locks, "a"));
    assert_eq!(rig.epoch(), 1);
}

on!([etcd postgres] a_reign_moves_to_and_fro_by_a_signal);
/// nfs-ganesha#1237, #834, #756, #1143: after a move back the first node's locks were never given back, a
/// lawful lock was refused after grace, and locks were lost at each move.
fn a_reign_moves_to_and_fro_by_a_signal(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let mut reigning = rig.leader(SLOWLY);
    reigning.reigns();
    let mut standby = rig.leader(SLOWLY);
    let fixed: Vec<String> = vec![reigning.address(), standby.address()];
    let locks = rig.locks(&[&reigning, &standby]);
    let held = hold(&locks, "a");
    for _ in 0..2 {
        reigning.signal(Signal::TERM);
        reigning.says("it has handed its reign over");
        standby.reigns();
        assert!(reigning.ended().success());
        MutexGuard::check(&held).unwrap();
        // It comes back under its old address.
        let address = reigning.address();
        let mut command = crate::surroundings::program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", &address, "--journal", &store.url(), "--reign", SLOWLY]);
        let again = Served::start({
            command.arg("--secret-file").arg(rig.secret());
            command
        });
        assert!(fixed.contains(&again.address()));
        again.says("it stands by");
        reigning = std::mem::replace(&mut standby, again);
    }
    let token = MutexGuard::token(&held);
    give(held);
    let others = rig.locks(&[&reigning, &standby]);
    let next = crate::engines::rig::try_hold(&others, "a");
    assert!(MutexGuard::token(&next) > token);
    give(next);
    assert_eq!(rig.epoch(), 3);
}
