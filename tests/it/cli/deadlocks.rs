//! Runs within runs that wait for each other.

use std::io::Write;

use super::*;

const ME: &str = env!("CARGO_BIN_EXE_tierlock");

/// A run of `outer` with a command that, told to by a line, does what `inner` says; `RUN` in it is a run at the
/// same leader.
fn script(leader: &Leader, outer: &[&str], inner: &str) -> Running {
    let at = format!("--leader {} --secret-file {}", leader.address, leader.secret.display());
    let inner = inner.replace("RUN", &format!("{ME} run {at}"));
    let words = format!("echo holds; read -r line; {inner}");
    let mut run = leader.run();
    let mut running =
        Running::start(run.args(outer).args(["--", "sh", "-c", &words]).stdin(Stdio::piped()));
    assert_eq!(running.line(), "holds");
    running
}

fn go_on(script: &mut Running) {
    let to = script.child.stdin.as_mut().expect("the test pipes standard input");
    to.write_all(b"go on\n").unwrap();
}

fn seen(leader: &Leader, name: &str) -> serde_json::Value {
    shown_name(leader.command("status"), name)
}

fn is_waited_for(leader: &Leader, name: &str) {
    eventually("it is waited for", || {
        let waiters = seen(leader, name)["waiters"].as_array().map_or(0, Vec::len);
        (waiters > 0).then_some(())
    });
}

/// Until what the name's holder was promised has been moved so often.
fn is_renewed(leader: &Leader, name: &str, times: usize) {
    let (mut before, mut moved) = (u64::MAX, 0);
    eventually("it is renewed", || {
        let now = seen(leader, name)["remaining_ms"].as_u64().unwrap();
        moved += usize::from(now > before);
        before = now;
        (moved >= times).then_some(())
    });
}

#[test]
fn the_youngest_of_a_ring_of_three_is_75_with_the_ring_and_the_others_go_on() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--http", "127.0.0.1:0"]);
    let page = super::page::page_of(&mut leader.process);
    let deadlocks = || super::page::metrics(page)["tierlock_deadlocks_total"];
    assert_eq!(deadlocks(), 0.0);
    let names = ["a", "b", "c"];
    let inner = |next: &str| format!("RUN --label step-{next} {next} -- echo inner; echo $?");
    let mut scripts: Vec<_> =
        (0..3).map(|at| script(&leader, &[names[at]], &inner(names[(at + 1) % 3]))).collect();
    for (at, running) in scripts.iter_mut().enumerate() {
        go_on(running);
        if at < 2 {
            is_waited_for(&leader, names[at + 1]);
        }
    }
    let mut last = scripts.pop().unwrap();
    assert_eq!(last.line(), "75");
    let (status, stderr) = last.end();
    assert_eq!(status.code(), Some(0));
    let line = the_one_line(stderr.as_bytes());
    let ring = [
        "\"a\"",
        "deadlock",
        "this caller has \"c\" and waits for \"a\"",
        "step-b on",
        "has \"a\" and waits for \"b\"",
        "step-c on",
        "has \"b\" and waits for \"c\"",
    ];
    for word in ring {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    // What it had goes to the one before it, and so on.
    for running in scripts.iter_mut().rev() {
        assert_eq!((running.line().as_str(), running.line().as_str()), ("inner", "0"));
        let (status, stderr) = running.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
    super::page::becomes(page, "tierlock_deadlocks_total", 1.0);
}

#[test]
fn whose_limit_ends_first_is_told_and_may_choose_its_exit_status() {
    let place = Place::new();
    let leader = place.leader();
    let mut first = script(&leader, &["a"], "RUN -w 1000 -E 9 b -- echo inner; echo $?");
    let mut second = script(&leader, &["b"], "RUN a -- echo inner; echo $?");
    go_on(&mut first);
    is_waited_for(&leader, "b");
    go_on(&mut second);
    assert_eq!(first.line(), "9");
    let (_, stderr) = first.end();
    assert!(the_one_line(stderr.as_bytes()).contains("deadlock"), "{stderr}");
    assert_eq!((second.line().as_str(), second.line().as_str()), ("inner", "0"));
}

#[test]
fn one_that_takes_several_has_the_first_of_them_while_it_waits() {
    let place = Place::new();
    let leader = place.leader();
    let mut first = script(&leader, &["b"], "RUN a -- echo inner; echo $?");
    let mut several = leader.run();
    let mut several = Running::start(several.args(["a", "b", "--", "echo", "both"]));
    is_waited_for(&leader, "b");
    go_on(&mut first);
    assert_eq!(first.line(), "75");
    let (_, stderr) = first.end();
    let line = the_one_line(stderr.as_bytes());
    assert!(line.contains("has \"a\" and waits for \"b\""), "{line}");
    assert_eq!(several.line(), "both");
}

#[test]
fn a_command_under_several_locks_waits_with_all_of_them() {
    let place = Place::new();
    let leader = place.leader();
    let mut several = script(&leader, &["a", "b"], "RUN c -- echo inner; echo $?");
    let mut other = script(&leader, &["c"], "RUN b -- echo inner; echo $?");
    go_on(&mut several);
    is_waited_for(&leader, "c");
    go_on(&mut other);
    assert_eq!(other.line(), "75");
    let (_, stderr) = other.end();
    let line = the_one_line(stderr.as_bytes());
    assert!(line.contains("has \"b\" and waits for \"c\""), "{line}");
    assert_eq!((several.line().as_str(), several.line().as_str()), ("inner", "0"));
}

#[test]
fn what_runs_in_the_background_holds_no_lock_above_it() {
    let place = Place::new();
    let leader = place.leader();
    let inner = "RUN b -- echo background & echo started; read -r line; echo done";
    let mut first = script(&leader, &["a"], inner);
    let mut second = script(&leader, &["b"], "RUN a -- echo inner; echo $?");
    go_on(&mut first);
    assert_eq!(first.line(), "started");
    is_waited_for(&leader, "b");
    go_on(&mut second);
    is_waited_for(&leader, "a");
    for name in ["a", "b"] {
        is_renewed(&leader, name, 12);
    }
    // The script above goes on, and what it held is free.
    go_on(&mut first);
    assert_eq!(first.line(), "done");
    assert_eq!((second.line().as_str(), second.line().as_str()), ("inner", "0"));
    assert_eq!(first.line(), "background");
}

#[test]
fn what_a_limit_of_its_own_ends_holds_no_lock_above_it() {
    let place = Place::new();
    let leader = place.leader();
    let mut first = script(&leader, &["a"], "timeout 1000 RUN b -- echo inner; echo $?");
    let mut second = script(&leader, &["b"], "RUN a -- echo inner; echo $?");
    go_on(&mut first);
    is_waited_for(&leader, "b");
    go_on(&mut second);
    is_waited_for(&leader, "a");
    for name in ["a", "b"] {
        is_renewed(&leader, name, 12);
    }
    // Only what ends it makes the other go on.
    drop(first);
    assert_eq!((second.line().as_str(), second.line().as_str()), ("inner", "0"));
}
