//! The log of `tierlock serve`: what it says of clients, for people and for programs.

use std::{
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use serde_json::Value;

use super::*;
use crate::helper::Helper;

/// The lines of a leader's log up to the first one that is looked for.
pub(super) fn lines_until(leader: &mut Leader, found: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = leader.process.error_line();
        lines.push(line.clone());
        if found(&line) {
            return lines;
        }
    }
}

/// The same of a log in JSON: the events up to the first of this kind.
fn events_until(leader: &mut Leader, kind: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let line = leader.process.error_line();
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        events.push(event);
        if events.last().unwrap()["event"] == kind {
            return events;
        }
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn a_leader_says_which_sessions_come_and_go_and_which_client_breaks_a_lock() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "text"]);
    let mut holder = Running::script(
        &mut leader.run(),
        &["--label", "night\u{1b}ly", "--on-lost", "warn"],
        "job",
        "echo $TIERLOCK_TOKEN; exec sleep 1000",
    );
    let token = holder.line();
    let mut command = leader.command("break");
    let operator = command.args(["--label", "operator", "job", "--token", &token]);
    succeeds(&operator.output().unwrap());
    let lines = lines_until(&mut leader, |line| line.contains("lock broken"));
    let all = lines.join("\n");
    assert!(lines.iter().all(|line| line.starts_with("tierlock: ")), "{all}");
    assert!(all.starts_with("tierlock: it reigns from now on, in epoch 1"), "{all}");
    assert!(all.contains("session opened: night\\u{1b}ly on "), "{all}");
    assert!(all.contains("at 127.0.0.1, time to live 5s"), "{all}");
    let broken = lines.last().unwrap();
    let parts = ["job with token ", &token, "taken from night\\u{1b}ly on ", "by operator on "];
    assert!(parts.iter().all(|part| broken.contains(part)), "{broken}");

    holder.signal(Signal::TERM);
    holder.exit();
    lines_until(&mut leader, |line| line.contains("session ended in good order: night"));
}

#[test]
fn a_leader_says_in_json_which_session_has_run_out_and_what_it_held() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "json"]);
    let mut holder = Running::script(
        &mut leader.run(),
        &["--ttl", "1", "--label", "fragile"],
        "job",
        "echo; exec sleep 1000",
    );
    holder.line();
    holder.signal(Signal::KILL);
    let events = events_until(&mut leader, "session_expired");
    assert_eq!(kinds(&events), ["reign", "grace_over", "session_opened", "session_expired"]);
    assert_eq!(events[0]["epoch"], 1);
    let expired = &events[3];
    assert_eq!(
        (expired["level"].as_str(), expired["name"].as_str()),
        (Some("warning"), Some("job"))
    );
    assert_eq!(expired["count"], 1);
    let client = &expired["client"];
    assert_eq!(client["label"], "fragile");
    assert_eq!(client["address"], "127.0.0.1");
    assert_eq!(client["pid"], u64::from(holder.pid().as_raw_nonzero().get() as u32));
    let time = expired["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T' && time.len() <= 24, "{time}");
    assert!(expired.get("token").is_none() && expired.get("by").is_none(), "{expired}");
}

#[test]
fn a_leader_says_which_client_has_reached_a_limit() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "json", "--sessions-max", "1"]);
    let mut holder = Running::script(&mut leader.run(), &[], "job", "echo; exec sleep 1000");
    holder.line();
    let refused = leader.run().args(["--label", "one more", "other", "--", "true"]).output();
    fails(&refused.unwrap(), 77, &["session"]);
    let events = events_until(&mut leader, "limit_reached");
    let limit = events.last().unwrap();
    assert_eq!(limit["reason"], "too_many_sessions");
    assert_eq!(limit["client"]["label"], "one more");
}

#[test]
fn a_leader_says_where_a_client_is_that_has_another_secret() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "json"]);
    let other = place.path("other");
    succeeds(&tierlock(&["secret", "new"]).arg(&other).output().unwrap());
    let mut other_secret = tierlock(&["run", "--leader", &leader.address, "--secret-file"]);
    let refused = other_secret.arg(&other).args(["job", "--", "true"]).output().unwrap();
    fails(&refused, 77, &["secret"]);
    let refused = events_until(&mut leader, "session_refused").pop().unwrap();
    assert_eq!(
        (&refused["reason"], &refused["level"]),
        (&"other_secret".into(), &"warning".into())
    );
    assert_eq!(refused["client"]["address"], "127.0.0.1");
}

#[test]
fn a_leader_says_that_a_client_does_not_answer_for_a_lease_that_it_keeps() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "json"]);
    let mut keeper = Helper::start();
    let (address, secret) = (&leader.address, leader.secret.display());
    let open = format!("open\tlabel=keeper\tttl=60000\tleaders={address}\tsecret={secret}");
    assert_eq!(keeper.ask(&open), "ok");
    // The lease of a reader may be kept from the first one on.
    assert_eq!(keeper.ask("read\thost\tkept"), "ok");
    keeper.stop();
    let mut waiter = Running::start(leader.run().args(["kept", "--", "echo", "ran"]));
    let late = events_until(&mut leader, "recall_late").pop().unwrap();
    assert_eq!(late["name"], "kept");
    assert_eq!(late["client"]["label"], "keeper");
    assert!(late["seconds"].as_f64().unwrap() >= 0.5, "{late}");
    keeper.resume();
    assert_eq!(keeper.ask("return permits"), "ok");
    assert_eq!(waiter.line(), "ran");
}

/// It is read on terminals, and line by line.
#[test]
fn a_log_in_json_spells_out_what_misleads_and_says_the_same() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "json"]);
    let label = "night\u{2028}\u{202e}ly\u{9b}2J";
    let held = leader.run().args(["--label", label, "job", "--", "true"]).output();
    succeeds(&held.unwrap());
    let line = loop {
        let line = leader.process.error_line();
        if line.contains("session_opened") {
            break line;
        }
    };
    assert!(line.is_ascii() && line.contains("night\\u2028\\u202ely\\u009b2J"), "{line}");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["client"]["label"], label);
}

#[test]
fn an_alarm_is_an_event_of_the_log_too() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "json"]);
    std::fs::write(place.secret(), "damaged").unwrap();
    leader.process.signal(Signal::HUP);
    let alarm = events_until(&mut leader, "alarm").pop().unwrap();
    assert_eq!(alarm["level"], "alarm");
    assert!(alarm["text"].as_str().unwrap().contains("64 hexadecimal digits"), "{alarm}");
}

#[test]
fn a_brief_log_has_no_sessions() {
    let place = Place::new();
    let mut leader = place.leader();
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    leader.process.signal(Signal::TERM);
    let (status, stderr) = leader.process.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

/// A leader with its log going there.
fn logging_to(place: &Place, stderr: Stdio) -> (Child, String) {
    let mut command = place.serve("127.0.0.1:0");
    command.args(["--init", "--log", "text"]).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().unwrap();
    let address = lines_of(child.stdout.take().unwrap()).recv_timeout(PATIENCE).unwrap();
    let address = address.strip_prefix("listening on ").unwrap().to_owned();
    (child, address)
}

#[test]
fn a_log_whose_reader_stands_still_holds_up_no_client() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    // Another way to the pipe, by which it is filled up.
    let way = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut filler =
        std::fs::OpenOptions::new().write(true).custom_flags(nonblock).open(way).unwrap();
    while filler.write(&[b'x'; 4096]).is_ok() {}
    while filler.write(b"x").is_ok() {}
    let (mut child, address) = logging_to(&place, writer.into());
    let leader =
        Leader { address, secret: place.secret(), process: Running::start(&mut program("true")) };
    for _ in 0..3 {
        succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    }
    // It ends in good order, too.
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(reader);
}

#[test]
fn a_log_that_is_not_read_holds_up_no_client() {
    let place = Place::new();
    let (mut child, address) = logging_to(&place, Stdio::piped());
    drop(child.stderr.take());
    let leader =
        Leader { address, secret: place.secret(), process: Running::start(&mut program("true")) };
    for _ in 0..3 {
        succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
