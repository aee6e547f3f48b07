//! `tierlock elect`: a command that one candidate runs at a time, and observers of that.

use serde_json::{Value, json};

use super::*;

/// A candidate or an observer, in each way to reach an election.
fn everywhere(test: impl Fn(&dyn Fn() -> Command)) {
    let [table, files] = Place::of_each_engine();
    let leader = table.leader();
    for dir in [table.dir(), files.dir()] {
        test(&|| {
            let mut command = tierlock(&["elect", "--dir"]);
            command.arg(&dir);
            command
        });
    }
    test(&|| leader.command("elect"));
}

fn observer(at: &dyn Fn() -> Command) -> Running {
    Running::start(at().args(["primary", "--observe"]))
}

fn token_of(line: &str) -> u64 {
    line.strip_prefix("token ").unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

#[test]
fn the_command_of_the_one_that_is_elected_runs_and_observers_are_told() {
    everywhere(|at| {
        let mut observer = observer(at);
        assert_eq!(observer.line(), "none");
        let script = "echo $TIERLOCK_NAME $TIERLOCK_TOKEN; exec sleep 1000";
        let mut one = at();
        one.args(["primary", "--value", "10.0.0.7:8080", "--", "sh", "-c", script]);
        let mut one = Running::start(&mut one);
        let line = one.line();
        let token: u64 = line.strip_prefix("primary ").unwrap().parse().unwrap();
        assert_eq!(observer.line(), format!("leader {token} 10.0.0.7:8080"));
        fails(&at().args(["-n", "primary", "--", "true"]).output().unwrap(), 75, &["\"primary\""]);
        fails(
            &at().args(["-w", "50ms", "-E", "3", "primary", "--", "true"]).output().unwrap(),
            3,
            &["\"primary\""],
        );
        let mut two = at();
        two.args(["primary", "--value", "a \u{202e}b", "--", "sh", "-c", "read line"]);
        let mut two = Running::start(two.stdin(Stdio::piped()));
        one.signal(Signal::TERM);
        one.exit();
        // Where a leader follows on another at once, that none led may be told or not.
        let told = match observer.line() {
            none if none == "none" => observer.line(),
            told => told,
        };
        let (what, value) = told.split_at(told.rfind(" a ").unwrap_or_else(|| panic!("{told}")));
        assert!(what.strip_prefix("leader ").unwrap().parse::<u64>().unwrap() > token);
        assert_eq!(value, " a \\u{202e}b", "it is escaped where people read it");
        // It resigns with its command, whose status it has.
        drop(two.stdin());
        assert_eq!(two.exit().code(), Some(1));
        assert_eq!(observer.line(), "none");
    });
}

#[test]
fn without_a_command_it_leads_until_standard_input_ends() {
    everywhere(|at| {
        let mut leader = Running::start(at().arg("primary").stdin(Stdio::piped()));
        let token = token_of(&leader.line());
        let mut observer = Running::start(at().args(["primary", "--observe", "--json"]));
        let told = |line: String| serde_json::from_str::<Value>(&line).unwrap();
        assert_eq!(told(observer.line()), json!({"leader": {"token": token, "value": ""}}));
        drop(leader.stdin());
        let (status, stderr) = leader.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        assert_eq!(told(observer.line()), json!({"leader": null}));
        observer.signal(Signal::TERM);
        observer.exit();
    });
}

#[test]
fn one_that_loses_its_election_ends_its_command_and_stands_again() {
    let place = Place::new();
    let leader = place.leader();
    let mut candidate = leader.command("elect");
    let script = "echo $TIERLOCK_TOKEN; exec sleep 1000";
    candidate.args(["primary", "--value", "one", "--", "sh", "-c", script]);
    let mut candidate = Running::start(&mut candidate);
    let first = candidate.line();
    let mut with_input = leader.command("elect");
    let mut with_input = Running::start(with_input.arg("second").stdin(Stdio::piped()));
    let token = token_of(&with_input.line());
    for (name, token) in [("primary", &first), ("second", &token.to_string())] {
        succeeds(&leader.command("break").args([name, "--token", token]).output().unwrap());
    }
    let again = candidate.line();
    assert!(again.parse::<u64>().unwrap() > first.parse().unwrap(), "its command was started anew");
    assert!(token_of(&with_input.line()) > token);
    candidate.signal(Signal::TERM);
    candidate.exit();
    drop(with_input.stdin());
    let (status, stderr) = with_input.end();
    assert_eq!(status.code(), Some(0));
    assert!(
        stderr.contains("an operator broke it") && stderr.contains("campaigns again"),
        "{stderr}"
    );
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let place = Place::new();
    let elect = |args: &[&str]| {
        let mut command = tierlock(&["elect", "--dir"]);
        command.arg(place.dir()).args(args).output().unwrap()
    };
    fails(&elect(&["-s", "primary", "--", "true"]), 64, &["--shared"]);
    let long = "x".repeat(1025);
    fails(&elect(&["primary", "--value", &long, "--", "true"]), 64, &["1025 bytes"]);
    fails(&elect(&["primary", "--observe", "--", "true"]), 64, &["--observe"]);
    fails(&elect(&["primary", "--json", "--", "true"]), 64, &["--observe"]);
    fails(&elect(&["primary", "--at-most", "1s", "--at-least", "2s", "--", "true"]), 78, &[]);
    let nowhere = tierlock(&["elect", "primary", "--observe"]).output().unwrap();
    fails(&nowhere, 78, &["--dir"]);
    // `doctor` knows the files of elections.
    succeeds(&elect(&["primary", "--value", "one", "--", "true"]));
    let doctor = tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap();
    assert!(!succeeds(&doctor).contains("elections"));
}
