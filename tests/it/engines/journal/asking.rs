//! What operators ask of leaders that follow each other, and having one step down.

use std::process::Output;

use serde_json::Value;
use tierlock::MutexGuard;

use super::{JournalRig, SLOWLY, Served};
use crate::{
    engines::{
        on,
        rig::{EngineRig, give, hold, mutex, try_hold},
    },
    setting::{Hand, new_secret},
    surroundings::program,
};

impl JournalRig<'_> {
    fn ask(&self, what: &str, leaders: &[&Served], more: &[&str]) -> Output {
        let addresses: Vec<_> = leaders.iter().map(|leader| leader.address()).collect();
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.arg(what).args(["--leader", &addresses.join(","), "--secret-file"]);
        command.arg(self.secret()).args(more).output().unwrap()
    }

    /// The first reigns, and the second stands by.
    fn two_leaders(&self) -> [Served; 2] {
        let first = self.leader(SLOWLY);
        first.reigns();
        let second = self.leader(SLOWLY);
        second.says("it stands by");
        [first, second]
    }

    fn status(&self, leaders: &[&Served]) -> Value {
        let output = self.ask("status", leaders, &["--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

on!([etcd postgres] a_leader_steps_down_and_held_locks_stay_held);
fn a_leader_steps_down_and_held_locks_stay_held(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leaders = rig.two_leaders();
    let all = [&leaders[0], &leaders[1]];
    let (locks, others) = (rig.locks(&all), rig.locks(&all));
    let held = hold(&locks, "a");
    let waiting_for = mutex(&others, "a");
    let mut waiting = Hand::new(waiting_for.lock_async());
    assert!(waiting.poll().is_pending());
    // To and fro: the one that has stepped down is followed, and follows once it takes part again.
    for (from, to) in [(0, 1), (1, 0)] {
        let epoch = rig.epoch() + 1;
        let output = rig.ask("step-down", &all, &[]);
        let said = text(&output.stdout);
        let [old, new] = [from, to].map(|number: usize| leaders[number].address());
        assert_eq!(said, format!("{old} has stepped down; {new} reigns, in epoch {epoch}\n"));
        assert!(output.status.success());
        leaders[from].says("it was asked to step down, and hands its reign over");
        leaders[from].says("it has handed its reign over, and stands by");
        leaders[to].reigns();
        leaders[from].says(&format!("it stands by: {new} reigns"));
        MutexGuard::check(&held).unwrap();
    }
    let token = MutexGuard::token(&held);
    give(held);
    let next = waiting.finish().unwrap();
    assert!(MutexGuard::token(&next) > token && MutexGuard::token(&next).epoch() == 3);
    give(next);
}

on!([postgres] a_leader_without_another_steps_down_and_reigns_again);
fn a_leader_without_another_steps_down_and_reigns_again(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(super::SOON);
    leader.reigns();
    let locks = rig.locks(&[&leader]);
    let held = hold(&locks, "a");
    let output = rig.ask("step-down", &[&leader], &[]);
    assert!(output.status.success(), "{output:?}");
    leader.says("hands its reign over");
    leader.reigns();
    MutexGuard::check(&held).unwrap();
    give(held);
    give(try_hold(&locks, "b"));
}

on!([etcd postgres] status_shows_which_leader_reigns_and_which_stand_by);
fn status_shows_which_leader_reigns_and_which_stand_by(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let [first, second] = rig.two_leaders();
    let locks = rig.locks(&[&first]);
    let held = hold(&locks, "a");
    let gone = rig.spawn(&store.url(), &["--reign", SLOWLY], false);
    gone.address();
    gone.kill();
    let shown = rig.status(&[&second, &first, &gone]);
    assert_eq!(shown["locks"][0]["state"], "held", "{shown}");
    let [standby, reigning, silent] = [0, 1, 2].map(|number| &shown["leaders"][number]);
    assert_eq!((&reigning["rank"], &standby["rank"]), (&"reigns".into(), &"stands by".into()));
    for leader in [reigning, standby] {
        assert_eq!(leader["epoch"], 1, "{shown}");
        assert_eq!(leader["reign_lasts_ms"], 10_000);
        assert_eq!(leader["reigning_at"], first.address());
        assert!(leader["proven_ms"].as_u64().unwrap() < 20_000, "{shown}");
        assert!(leader["journal_us"].is_u64() && leader["trouble"].is_null(), "{shown}");
    }
    assert_eq!(reigning["reign"], standby["reign"]);
    assert_eq!(reigning["cluster"], standby["cluster"]);
    assert!(reigning["lag_ms"].is_null() && standby["lag_ms"].is_u64(), "{shown}");
    assert!(silent["rank"].is_null() && silent["trouble"].is_string(), "{shown}");

    let said = text(&rig.ask("status", &[&first, &second], &[]).stdout);
    assert!(said.contains(&format!("leader {}: reigns in epoch 1", first.address())), "{said}");
    let stands_by = format!("leader {}: stands by for {}", second.address(), first.address());
    assert!(said.contains(&stands_by), "{said}");
    give(held);
}

on!([postgres] standbys_alone_say_what_they_are);
/// They know of no lock, and say which leader does.
fn standbys_alone_say_what_they_are(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let [first, second] = rig.two_leaders();
    let output = rig.ask("status", &[&second], &[]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains(&format!("stands by for {}", first.address())), "{said}");
    let shown = rig.status(&[&second]);
    assert!(shown["locks"].is_null(), "{shown}");
    assert_eq!(shown["leaders"][0]["reigning_at"], first.address());
    let output = rig.ask("step-down", &[&second], &[]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(text(&output.stderr).contains("no leader reigns"), "{output:?}");
    assert_eq!(rig.epoch(), 1);
}

on!([postgres] a_leader_is_not_asked_with_another_secret_nor_beside_one_of_another_cluster);
fn a_leader_is_not_asked_with_another_secret_nor_beside_one_of_another_cluster(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leader = rig.leader(SLOWLY);
    leader.reigns();
    let secret = rig.files.path().join("another secret");
    new_secret(&secret);
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    command.args(["step-down", "--leader", &leader.address(), "--secret-file"]).arg(secret);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let other = rig.leader_in(&rig.files.path().join("other"), "127.0.0.1:0", true);
    let output = rig.ask("step-down", &[&leader, &other], &[]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(text(&output.stderr).contains("more than one cluster"), "{output:?}");
    assert_eq!(rig.epoch(), 1);
}

on!([etcd postgres] the_doctor_looks_at_leaders);
fn the_doctor_looks_at_leaders(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let [first, second] = rig.two_leaders();
    let output = rig.ask("doctor", &[&first, &second], &[]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("reigns in epoch 1"), "{output:?}");
    assert!(said.contains("stands by for"), "{said}");
    let output = rig.ask("doctor", &[&first], &[]);
    assert!(text(&output.stdout).contains("when this one fails, none follows"), "{output:?}");
    first.kill();
    let output = rig.ask("doctor", &[&first, &second], &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("silent (") && said.contains("no leader reigns that answers"), "{said}");
}
