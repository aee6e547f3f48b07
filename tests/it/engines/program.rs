//! The program with `--service`.

use std::process::Output;

use super::{
    on,
    rig::{EngineRig, give, hold},
};
use crate::surroundings::program;

fn tierlock(arguments: &[&str]) -> std::process::Command {
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

on!(all, a_command_runs_under_the_lock_and_is_shown);
fn a_command_runs_under_the_lock_and_is_shown(rig: &EngineRig) {
    let url = &*rig.url();
    let tool = env!("CARGO_BIN_EXE_tierlock");
    let script = format!("{tool} status --service '{url}' job && echo token=$TIERLOCK_TOKEN");
    let run = ["run", "--service", url, "--label", "night", "job", "--", "sh", "-c", &script];
    let output = tierlock(&run).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(told.contains("held") && told.contains("night"), "{told}");
    assert!(told.contains("token="), "{told}");
    let locks = rig.locks();
    let guard = hold(&locks, "job");
    let output = tierlock(&["run", "--service", url, "-n", "job", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    give(guard);
    let mut command = tierlock(&["run", "job", "--", "true"]);
    let output = command.env("TIERLOCK_SERVICE", url).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

on!(with_tokens, a_run_that_would_wait_for_itself_is_told);
fn a_run_that_would_wait_for_itself_is_told(rig: &EngineRig) {
    let url = &*rig.url();
    let tool = env!("CARGO_BIN_EXE_tierlock");
    let script =
        format!("{tool} held job && ! {tool} held other && {tool} run job -- true; echo status=$?");
    let mut command = tierlock(&["run", "job", "--", "sh", "-c", &script]);
    let output = command.env("TIERLOCK_SERVICE", url).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("status=75"), "{told} {}", said(&output));
}

on!(alone, a_doctor_asks_the_server);
fn a_doctor_asks_the_server(rig: &EngineRig) {
    let url = &*rig.url();
    let output = tierlock(&["doctor", "--service", url]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(told.contains("answers"), "{told}");
    rig.each(super::rig::EngineServer::kill);
    let output = tierlock(&["doctor", "--service", url]).output().unwrap();
    assert!(matches!(output.status.code(), Some(69 | 78)), "{output:?}");
}

on!([redis] settings_that_do_not_fit_are_told_and_no_password_is_shown);
fn settings_that_do_not_fit_are_told_and_no_password_is_shown(rig: &EngineRig) {
    let url = &*rig.url();
    let secret = url.replace("redis://", "redis://:hunter2@");
    let output = tierlock(&["status", "--service", &secret]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("password") && !said(&output).contains("hunter2"));
    // From the environment it is taken, and the server refuses it.
    let mut command = tierlock(&["run", "job", "--", "true"]);
    let output = command.env("TIERLOCK_SERVICE", &secret).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(!said(&output).contains("hunter2"));
    let mut command = tierlock(&["status"]);
    command.env("TIERLOCK_SERVICE", url).env("TIERLOCK_LEADERS", "127.0.0.1");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let mut command = tierlock(&["status", "--service", url]);
    command.env("TIERLOCK_SERVICE", "redis://192.0.2.1").env("TIERLOCK_LEADERS", "127.0.0.1");
    assert!(command.output().unwrap().status.success(), "an argument hides both");
    let bad = url.to_owned() + "?as=nonsense";
    let output = tierlock(&["status", "--service", &bad]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let output = tierlock(&["run", "--service", url, "--leader", "h", "a", "--", "true"]).output();
    assert_eq!(output.unwrap().status.code(), Some(64));
    rig.each(super::rig::EngineServer::kill);
    let output =
        tierlock(&["run", "--service", url, "-w", "1", "a", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(said(&output).contains("redis://"), "{}", said(&output));
}

on!([redis] a_password_is_read_from_a_file);
fn a_password_is_read_from_a_file(rig: &EngineRig) {
    rig.servers[0].cli(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let file = rig.folder().join("password");
    crate::setting::private_file(&file, "hunter2\n");
    let url = format!("{}?password_file={}", rig.url(), file.display());
    let output = tierlock(&["run", "--service", &url, "job", "--", "true"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = tierlock(&["run", "--service", &rig.url(), "job", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}
