use std::process::Command;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::*;
use crate::fork::testing::fork;

#[test]
fn two_processes_have_two_births_and_each_keeps_its_own() {
    let own = Birth::of_this_process().unwrap();
    assert_eq!(Birth::of_this_process(), Some(own));
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    let its = started(child.id()).unwrap();
    assert!(its >= own.started);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(started(child.id()), None);
}

/// It is read once, and a forked child has not been born as its parent was.
#[test]
fn a_forked_child_has_a_birth_of_its_own() {
    let own = Birth::of_this_process().unwrap();
    let Some(child) = fork() else {
        let its = Birth::of_this_process();
        let is_its = its.is_some_and(|its| its.pid == std::process::id() && its != own);
        std::process::exit(if is_its { 0 } else { 1 });
    };
    let child = Pid::from_raw(child).unwrap();
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
    assert_eq!(Birth::of_this_process(), Some(own));
}

#[test]
fn what_is_not_known_is_no_birth() {
    assert_eq!(Birth::from_parts(7, 0, 5), None);
    assert_eq!(Birth::from_parts(0, 3, 5), None);
    let birth = Birth::from_parts(7, 3, 5);
    assert_eq!(Birth::parts(birth), [3, 5]);
    assert_eq!(Birth::parts(None), [0, 0]);
}
