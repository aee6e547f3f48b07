//! A journal that is moved between a state directory and a store.

use std::{path::Path, process::Output};

use rustix::process::Signal;
use tierlock::{LockManager, MutexGuard};

use super::{JournalRig, SLOWLY, SOON, Served};
use crate::{
    engines::{
        on,
        rig::{ENDLESS, EngineRig, give, hold, mutex},
    },
    setting::{LONG, until},
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
    fn leader_in(&self, directory: &Path, listen: &str, init: bool) -> Served {
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

    let leader = rig.leader_in(&one, "127.0.0.1:0", true);
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

on!([etcd] what_an_interrupted_move_has_left_in_a_store_is_no_journal);
/// Of the many transactions that a move takes there some have come, and then none.
fn what_an_interrupted_move_has_left_in_a_store_is_no_journal(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let server = &store.servers[0];
    server.cli(&["put", "tierlock/head/filling", "another"]);
    server.cli(&["put", "tierlock/s/00", "nothing that can be read"]);
    // Nor is one made over what locks may hang on, without a word.
    for init in [false, true] {
        let leader = rig.spawn(&store.url(), &["--reign", SLOWLY], init);
        leader.says("run `tierlock journal move` again with the same two places");
        assert_eq!(leader.ended().code(), Some(78));
    }
    let one = rig.files.path().join("one");
    let leader = rig.leader_in(&one, "127.0.0.1:0", true);
    let address = leader.address();
    leader.signal(Signal::TERM);
    assert!(leader.ended().success());
    moved(one.to_str().unwrap(), &store.url());
    rig.leader_at(&address, SOON).reigns();
    assert_eq!(rig.sessions(), 0);
}

on!([etcd] what_a_move_that_was_given_up_has_left_is_swept);
fn what_a_move_that_was_given_up_has_left_is_swept(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let server = &store.servers[0];
    server.cli(&["put", "tierlock/s/00", "nothing that can be read"]);
    // Its operator has deleted head/filling, as the words say.
    rig.leader(SOON).reigns();
    assert_eq!(rig.sessions(), 0);
}

on!([postgres] a_place_that_takes_no_journal_leaves_the_other_as_it_was);
fn a_place_that_takes_no_journal_leaves_the_other_as_it_was(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let one = rig.files.path().join("one");
    let leader = rig.leader_in(&one, "127.0.0.1:0", true);
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
