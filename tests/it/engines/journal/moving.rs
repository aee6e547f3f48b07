//! A journal that is moved between a state directory and a store.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use rustix::process::Signal;
use tierlock::{LockManager, MutexGuard};

use super::{JournalRig, SLOWLY, SOON, Served, killing::EtcdCluster};
use crate::{
    engines::{
        on,
        rig::{ENDLESS, EngineRig, give, hold, mutex},
    },
    setting::{LONG, free_address, until},
    surroundings::program,
};

/// The file system that tests may stand on.
const ANY: [&str; 2] = ["--accept-fs", "tmpfs"];

fn move_journal(from: &str, to: &str) -> Output {
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    command.args(["journal", "move", from, to]).args(ANY).output().unwrap()
}

fn moved(from: &str, to: &str) {
    let output = move_journal(from, to);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with("moved, with "), "{output:?}");
}

/// Its exit status, and what it says.
fn refused(from: &str, to: &str, status: i32, words: &str) {
    let output = move_journal(from, to);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(words), "{said}");
}

impl JournalRig<'_> {
    /// A leader on a state directory, where one was before if so.
    pub(super) fn leader_in(&self, directory: &Path, listen: &str, init: bool) -> Served {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", listen, "--secret-file"]).arg(self.secret());
        command.arg("--state-dir").arg(directory).args(ANY);
        if init {
            command.arg("--init");
        }
        Served::start(command)
    }

    fn leader_at(&self, listen: &str, reign: &str) -> Served {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", listen, "--journal", &self.store.url()]);
        command.args(["--reign", reign, "--secret-file"]).arg(self.secret());
        Served::start(command)
    }
}

on!([etcd postgres] a_journal_is_moved_to_a_store_and_back_and_held_locks_stay_held);
fn a_journal_is_moved_to_a_store_and_back_and_held_locks_stay_held(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let [one, two] = ["one", "two"].map(|name| rig.files.path().join(name));
    let [from, back] = [&one, &two].map(|path| path.to_str().unwrap());
    let url = store.url();
    refused(from, &url, 78, "does not exist");

    let leader = rig.leader_in(&one, &free_address().to_string(), true);
    let address = leader.address();
    let builder = LockManager::builder().leaders([&address]).secret_file(rig.secret());
    let locks = builder.time_to_live(ENDLESS).connect_timeout(LONG).open().unwrap();
    let first = hold(&locks, "first");
    refused(from, &url, 77, "another leader");
    leader.signal(Signal::TERM);
    assert!(leader.ended().success());
    moved(from, &url);

    // It is there and nowhere else.
    let old = rig.leader_in(&one, &address, false);
    old.says("was moved to");
    assert_eq!(old.ended().code(), Some(78));
    let leader = rig.leader_at(&address, SOON);
    leader.reigns();
    let second = hold(&locks, "second");
    MutexGuard::check(&first).unwrap();
    assert!(mutex(&locks, "first").try_lock().is_err());
    refused(&url, back, 77, "a leader reigns");
    // One that was killed is waited for as a standby waits.
    leader.kill();
    moved(&url, back);
    // Made again it finds that it is done.
    moved(&url, back);
    let old = rig.leader_at(&address, SOON);
    old.says("was moved to");
    assert_eq!(old.ended().code(), Some(78));

    let leader = rig.leader_in(&two, &address, false);
    leader.address();
    let tokens = [&first, &second].map(|guard| MutexGuard::check(guard).unwrap());
    for (name, guard, token) in [("first", first, tokens[0]), ("second", second, tokens[1])] {
        assert!(mutex(&locks, name).try_lock().is_err(), "{name}");
        give(guard);
        let next = hold(&locks, name);
        assert!(MutexGuard::token(&next) > token, "{name}");
        give(next);
    }
    refused(&url, from, 78, "was moved to");
}

on!([etcd postgres] a_leader_that_slept_while_its_journal_was_moved_does_not_go_on);
fn a_leader_that_slept_while_its_journal_was_moved_does_not_go_on(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SOON);
    leader.reigns();
    let other = rig.files.path().join("other");
    leader.signal(Signal::STOP);
    // What it sent last the store may do a little later.
    until("a move of what stands still", || {
        let output = move_journal(&store.url(), other.to_str().unwrap());
        output.status.success() || {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("nothing was moved"), "{said}");
            false
        }
    });
    leader.signal(Signal::CONT);
    leader.says("was moved to");
    assert!(!leader.ended().success());
}

impl JournalRig<'_> {
    /// A directory with the journal of a leader that was stopped, and where it listened.
    fn left_directory(&self, name: &str) -> (PathBuf, String) {
        let path = self.files.path().join(name);
        let leader = self.leader_in(&path, &free_address().to_string(), true);
        let address = leader.address();
        leader.signal(Signal::TERM);
        assert!(leader.ended().success());
        (path, address)
    }

    fn is_refused_to_begin(&self, words: &str) {
        let leader = self.spawn(&self.store.url(), &["--reign", SLOWLY], true);
        leader.says(words);
        assert_eq!(leader.ended().code(), Some(78));
    }
}

on!([etcd] what_an_interrupted_move_has_left_in_a_store_is_no_journal);
/// Of the many transactions that a move takes there some have come, and then none.
fn what_an_interrupted_move_has_left_in_a_store_is_no_journal(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let (server, url) = (&store.servers[0], store.url());
    let (one, address) = rig.left_directory("one");
    let (other, _) = rig.left_directory("other");
    let [one, other] = [&one, &other].map(|path| path.to_str().unwrap());
    moved(one, &url);
    // As it was before its last write.
    let cluster = server.cli(&["get", "--print-value-only", "tierlock/head/cluster"]);
    let (_, cluster) = cluster.split_once(' ').unwrap();
    server.cli(&["del", "--prefix", "tierlock/head/"]);
    server.cli(&["put", "tierlock/head/filling", &format!("{cluster} of a move")]);
    server.cli(&["put", "tierlock/s/00", "nothing that can be read"]);
    // Nor is one made over what locks may hang on, without a word; nor is another moved there.
    for _ in 0..2 {
        let leader = rig.spawn(&url, &["--reign", SLOWLY], false);
        leader.says("run `tierlock journal move` again with the same two places");
        assert_eq!(leader.ended().code(), Some(78));
        rig.is_refused_to_begin("run `tierlock journal move` again with the same two places");
        refused(other, &url, 78, "the journal of another cluster was being moved");
    }
    let mut doctor = program(env!("CARGO_BIN_EXE_tierlock"));
    let output = doctor.args(["doctor", "--journal", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(78) && said.contains("half filled"), "{output:?}");
    moved(one, &url);
    rig.leader_at(&address, SOON).reigns();
    assert_eq!(rig.sessions(), 0);
    assert_eq!(server.cli(&["get", "tierlock/head/filling"]), "");
}

on!([etcd] keys_that_others_have_where_a_journals_would_be_are_left_alone);
/// They may be locks: a service of etcd has its names wherever its prefix says.
fn keys_that_others_have_where_a_journals_would_be_are_left_alone(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let server = &store.servers[0];
    let (one, _) = rig.left_directory("one");
    for key in ["tierlock/s/00", "tierlock/head/other"] {
        server.cli(&["put", key, "of another"]);
        rig.is_refused_to_begin("a key where its own would be");
        refused(one.to_str().unwrap(), &store.url(), 78, "a key where its own would be");
        assert_eq!(server.cli(&["get", "--print-value-only", key]), "of another");
        server.cli(&["del", key]);
    }
    rig.leader(SOON).reigns();
}

/// The library connects when it is first asked: a dead address shows by no other sign.
#[test]
fn a_journal_is_moved_to_an_etcd_of_three_whichever_member_is_down_and_back() {
    let Some(mut cluster) = EtcdCluster::start() else { return };
    let store = EngineRig::etcd().unwrap();
    let rig = JournalRig::new(&store);
    let (mut from, address) = rig.left_directory("state");
    for down in 0..3 {
        cluster.members[down].kill();
        let others = cluster.members.iter().enumerate().filter(|(number, _)| *number != down);
        let others: Vec<_> = others.map(|(_, member)| member.port).collect();
        until("an etcd that serves without one", || {
            let mut asking = cluster.etcdctl(&others);
            asking.args(["endpoint", "health"]).output().unwrap().status.success()
        });
        let url = format!("{}?prefix=journal{down}/", cluster.url());
        let back = rig.files.path().join(format!("back {down}"));
        moved(from.to_str().unwrap(), &url);
        // Made again it finds that it is done.
        moved(from.to_str().unwrap(), &url);
        moved(&url, back.to_str().unwrap());
        from = back;
        cluster.begin(down);
        until("an etcd that is whole", || cluster.leader().is_some());
    }
    rig.leader_in(&from, &address, false).address();
}

on!([postgres] a_place_that_takes_no_journal_leaves_the_other_as_it_was);
fn a_place_that_takes_no_journal_leaves_the_other_as_it_was(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let one = rig.files.path().join("one");
    let leader = rig.leader_in(&one, &free_address().to_string(), true);
    let address = leader.address();
    leader.signal(Signal::TERM);
    assert!(leader.ended().success());
    // One that may look and not write.
    let server = &store.servers[0];
    let role = format!("reader_of_{}", server.database);
    server.cli(&[&format!("CREATE ROLE {role} LOGIN")]);
    server.cli(&["REVOKE CREATE ON SCHEMA public FROM PUBLIC"]);
    let url = store.url().replace("postgres@", &format!("{role}@"));
    refused(one.to_str().unwrap(), &url, 77, "does not let this user do that");
    rig.leader_in(&one, &address, false).address();
}
