//! Stores that are killed, stopped, locked, or restored from a copy, under leaders that live.

use rustix::process::Signal;
use tierlock::MutexGuard;

use super::{JournalRig, SLOWLY, SOON, first_to_reign};
use crate::{
    engines::{
        on,
        postgres::Psql,
        proxy::Proxy,
        rig::{EngineRig, EngineServer, give, hold, mutex},
    },
    setting::{Hand, until},
};

on!([etcd postgres_alone] a_store_that_was_away_costs_no_lock);
/// Killed, then stopped, each time for longer than a reign lasts.
fn a_store_that_was_away_costs_no_lock(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leaders = [rig.leader(SOON), rig.leader(SOON)];
    let mut reigning = first_to_reign(&leaders);
    let locks = rig.locks(&leaders.iter().collect::<Vec<_>>());
    let held = hold(&locks, "a");
    type Act = fn(&EngineServer);
    let killed: (Act, Act) = (EngineServer::kill, EngineServer::start);
    let stopped: (Act, Act) = (EngineServer::stop, EngineServer::resume);
    for (leave, return_) in [killed, stopped] {
        let others = rig.locks(&leaders.iter().collect::<Vec<_>>());
        let wanted = mutex(&others, "b");
        store.each(leave);
        leaders[reigning].says("its reign is over: the journal has not confirmed it");
        // Nothing is granted without proof.
        let mut wait = Hand::new(wanted.lock_async());
        assert!(wait.poll().is_pending());
        assert!(MutexGuard::is_valid(&held));
        store.each(return_);
        reigning = first_to_reign(&leaders);
        give(wait.finish().unwrap());
        MutexGuard::check(&held).unwrap();
    }
    give(held);
}

on!([etcd postgres_alone] a_store_that_was_away_for_a_moment_costs_no_reign);
fn a_store_that_was_away_for_a_moment_costs_no_reign(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SLOWLY);
    leader.reigns();
    let locks = rig.locks(&[&leader]);
    give(hold(&locks, "a"));
    store.each(EngineServer::kill);
    store.each(EngineServer::start);
    let others = rig.locks(&[&leader]);
    let guard = hold(&others, "b");
    assert_eq!((MutexGuard::token(&guard).epoch(), rig.epoch()), (1, 1));
    give(guard);
}

on!([etcd postgres_alone] a_store_restored_under_a_living_leader_ends_its_reign);
/// A backup, put back: what was confirmed since then is missing, so nothing of it may be gone on with.
fn a_store_restored_under_a_living_leader_ends_its_reign(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SLOWLY);
    leader.reigns();
    store.each(EngineServer::kill);
    store.each(EngineServer::back_up);
    store.each(EngineServer::start);
    let locks = rig.locks(&[&leader]);
    give(hold(&locks, "a"));
    until("a session that is durable", || rig.sessions() == 1);
    store.each(EngineServer::kill);
    store.each(EngineServer::restore);
    store.each(EngineServer::start);
    leader.says("--epoch-above");
    assert_eq!(leader.ended().code(), Some(74));
    // And so it begins again.
    let again = rig.spawn(&store.url(), &["--epoch-above", "7"], false);
    again.address();
    again.reigns();
    assert_eq!(rig.epoch(), 8);
}

on!([etcd] no_lease_of_the_store_is_proof);
/// etcd#15247: an old leader of the store went on answering keep-alives.
fn no_lease_of_the_store_is_proof(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SOON);
    leader.reigns();
    give(hold(&rig.locks(&[&leader]), "a"));
    assert_eq!(store.servers[0].cli(&["lease", "list"]), "found 0 leases");
}

on!([postgres] a_row_that_another_has_locked_ends_the_reign_and_not_the_journal);
/// A session that was cut off in the middle of a transaction, as long as the server believes in it.
fn a_row_that_another_has_locked_ends_the_reign_and_not_the_journal(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SOON);
    leader.reigns();
    let locks = rig.locks(&[&leader]);
    let held = hold(&locks, "a");
    let mut session = Psql::open(store);
    session.ask("BEGIN");
    session.ask("SELECT stamp FROM tierlock_head FOR UPDATE");
    leader.says("its reign is over: the journal has not confirmed it");
    session.ask("ROLLBACK");
    leader.reigns();
    MutexGuard::check(&held).unwrap();
    give(held);
}

on!([postgres] a_leader_that_is_cut_off_leaves_no_row_locked);
fn a_leader_that_is_cut_off_leaves_no_row_locked(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let proxies = store.proxies();
    let first = rig.leader_on(&store.url_of(proxies.iter().map(Proxy::port)), SOON);
    first.reigns();
    // Its statements go through, and their answers do not; then nothing goes through.
    proxies.iter().for_each(|proxy| proxy.deafen(true));
    first.signal(Signal::STOP);
    proxies.iter().for_each(|proxy| proxy.mute(true));
    let mut session = Psql::open(store);
    session.ask("SET lock_timeout = '10s'");
    assert_eq!(session.ask("SELECT count(*) FROM (SELECT FROM tierlock_head FOR UPDATE) h"), "1");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tierlock journal' \
         AND state LIKE 'idle in transaction%'";
    assert_eq!(session.ask(open), "0");
    rig.leader(SOON).reigns();
}

on!([postgres] a_journal_that_is_renewed_and_cannot_be_written_grants_nothing_new);
/// cockroachdb/docs#19755: a lease was kept by heartbeats beside a log that could not be written. What
/// depends on no record goes on; what does, waits.
fn a_journal_that_is_renewed_and_cannot_be_written_grants_nothing_new(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SOON);
    leader.reigns();
    let locks = rig.locks(&[&leader]);
    give(hold(&locks, "a"));
    let mut session = Psql::open(store);
    session.ask("BEGIN");
    session.ask("LOCK TABLE tierlock_session IN EXCLUSIVE MODE");
    let others = rig.locks(&[&leader]);
    let wanted = mutex(&others, "b");
    let mut wait = Hand::new(wanted.lock_async());
    assert!(wait.poll().is_pending());
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    let mut watch = Psql::open(store);
    until("an append that waits", || watch.ask(waits) != "0");
    // Renewals go by another connection, and an open session needs no record.
    give(hold(&locks, "a"));
    assert!(wait.poll().is_pending());
    session.ask("ROLLBACK");
    give(wait.finish().unwrap());
}
