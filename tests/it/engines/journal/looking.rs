//! What an operator is told of a journal.

use std::process::Output;

use super::{JournalRig, SOON};
use crate::{
    engines::{
        on,
        rig::{EngineRig, give, hold},
    },
    surroundings::program,
};

fn doctor(store: &EngineRig) -> (Option<i32>, String) {
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    let Output { status, stdout, .. } =
        command.args(["doctor", "--journal", &store.url()]).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned())
}

on!([etcd postgres] the_doctor_tells_which_leader_reigns_and_whether_it_proves_that);
fn the_doctor_tells_which_leader_reigns_and_whether_it_proves_that(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let (status, said) = doctor(store);
    assert!(status == Some(78) && said.contains("there is no journal"), "{said}");
    let leader = rig.leader(SOON);
    leader.reigns();
    let locks = rig.locks(&[&leader]);
    let held = hold(&locks, "a");
    let (status, said) = doctor(store);
    let reigns = format!("the leader at {} reigns", leader.address());
    assert!(said.contains(&reigns) && said.contains("L is 500ms"), "{said}");
    assert!(said.contains("epoch 1; open sessions: 1"), "{said}");
    // Whether the store is slow for this L is the machine's business.
    assert!(matches!(status, Some(0 | 78)), "{status:?} {said}");
    give(held);
    leader.kill();
    let (status, said) = doctor(store);
    assert_eq!(status, Some(78), "{said}");
    assert!(said.contains("has not proven it for longer than L"), "{said}");
}
