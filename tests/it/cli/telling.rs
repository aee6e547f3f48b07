//! What people are told while they wait, and of what cannot be asked. A terminal is played with in
//! `terminal`.

use super::*;

/// `run` and `status` at both engines and a leader; at which scope that is, and whether it is known
/// there when a lock was acquired.
fn everywhere(test: impl Fn(&dyn Fn(&str) -> Command, &str, bool)) {
    let [table, files] = Place::of_each_engine();
    for (dir, is_known) in [(table.dir(), false), (files.dir(), true)] {
        let at = |subcommand: &str| {
            let mut command = tierlock(&[subcommand, "--dir"]);
            command.arg(&dir);
            command
        };
        test(&at, "process", is_known);
    }
    let place = Place::new();
    let leader = place.leader();
    test(&|subcommand| leader.command(subcommand), "host", true);
}

fn holder(at: &dyn Fn(&str) -> Command) -> Running {
    let mut run = at("run");
    run.args(["--label", "first"]).stdin(Stdio::piped());
    let mut holder =
        Running::script(&mut run, &[], "job", "echo $TIERLOCK_TOKEN; read line; exit 0");
    let _ = holder.line();
    holder
}

#[test]
fn verbose_tells_the_course_of_things() {
    everywhere(|at, scope, _| {
        let mut holder = holder(at);
        let pid = format!("pid {}", holder.pid().as_raw_nonzero());
        for verbose in ["-v", "--verbose"] {
            let mut run = at("run");
            let script = "echo $TIERLOCK_TOKEN";
            let mut waiter = Running::script(&mut run, &[verbose, "-w", "50"], "job", script);
            let line = waiter.error_line();
            assert!(line.starts_with("tierlock: lock \"job\": waiting for first on "), "{line}");
            assert!(line.contains(&pid), "{line}");
            if verbose == "--verbose" {
                // The other one has ended with its time.
                drop(holder.stdin());
                let token = waiter.line();
                let got = format!("tierlock: lock \"job\": got it at {scope} scope, token {token}");
                assert_eq!(waiter.error_line(), got);
                assert_eq!(waiter.error_line(), "tierlock: lock \"job\": released");
                assert_eq!(waiter.exit().code(), Some(0));
            } else {
                waiter.signal(Signal::TERM);
                waiter.exit();
            }
        }
    });
}

#[test]
fn verbose_tells_how_the_holder_before_left_and_what_a_loss_was() {
    let place = Place::new();
    let mut holder = holder(&|subcommand| {
        let mut command = tierlock(&[subcommand, "--dir"]);
        command.arg(place.dir());
        command
    });
    holder.signal(Signal::KILL);
    holder.exit();
    let output = place.ran(&["-v", "-w", "50", "--at-most", "100ms", "job", "--", "sleep", "1000"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(76), "{text}");
    for words in ["; the holder before: died\n", "--at-most", "\"job\": released\n"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[test]
fn without_a_terminal_and_verbose_a_wait_says_nothing() {
    everywhere(|at, _, _| {
        let mut holder = holder(at);
        let waiter = at("run").args(["-w", "1.5", "job", "--", "true"]).output().unwrap();
        fails(&waiter, 75, &["first"]);
        drop(holder.stdin());
    });
}

/// A leader that has stopped, and a holder of the directory alone.
fn silent_leader(place: &Place) -> (Leader, Running) {
    let leader = place.leader();
    let script = "echo holding; exec sleep 1000";
    let mut holder = Running::script(&mut place.run(), &["--label", "near"], "job", script);
    assert_eq!(holder.line(), "holding");
    leader.process.signal(Signal::STOP);
    (leader, holder)
}

/// It is shown before anything is known of the leader, which answers after all.
#[test]
fn what_the_directory_knows_does_not_wait_for_the_leader() {
    for place in Place::of_each_engine() {
        let (leader, _holder) = silent_leader(&place);
        let mut status = leader.command("status");
        let mut people = Running::start(status.arg("--dir").arg(place.dir()));
        assert!(people.line().starts_with("NAME"));
        assert!(people.line().contains("near"));
        leader.process.signal(Signal::CONT);
        let told = std::iter::repeat_with(|| people.line());
        let told: Vec<String> = told.take_while(|line| !line.starts_with("NAME")).collect();
        assert_eq!(told, ["", "with the leader's answer:"]);
        assert!(people.line().contains("near"));
        assert_eq!(people.exit().code(), Some(0));
    }
}

/// terraform#28710: a status of a dead leader shows nothing of what it knows.
#[test]
fn a_silent_leader_hides_nothing_of_the_directory() {
    for place in Place::of_each_engine() {
        let (leader, _holder) = silent_leader(&place);
        let status = || {
            let mut command = leader.command("status");
            command.arg("--dir").arg(place.dir());
            command
        };
        let mut people = Running::start(&mut status());
        let mut programs = status();
        let programs = Running::start(programs.args(["--json", "job"]));
        assert!(people.line().starts_with("NAME"));
        let row = people.line();
        assert!(row.contains("held, process") && row.contains("near"), "{row}");
        let (status, stderr) = people.end();
        assert_eq!(status.code(), Some(69));
        assert!(the_one_line(stderr.as_bytes()).contains(&leader.address), "{stderr}");
        let mut programs = programs;
        assert_eq!(programs.exit().code(), Some(69));
        let json: String = programs.lines.iter().collect();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["locks"][0]["holder"]["label"], "near", "{json}");
        assert_eq!(json["locks"].as_array().unwrap().len(), 1);
        leader.process.signal(Signal::CONT);
    }
}

#[test]
fn a_row_is_one_line_where_no_terminal_is() {
    everywhere(|at, scope, _| {
        let name = format!("warehouse/{}", "bay-".repeat(40));
        let label = "a label that is rather on the long side of things ".repeat(2);
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::script(&mut at("run"), &["--label", &label], &name, script);
        assert_eq!(holder.line(), "holding");
        for columns in ["20", "80"] {
            let table = succeeds(&at("status").env("COLUMNS", columns).output().unwrap());
            assert_eq!(table.lines().count(), 2, "{table}");
            let row = table.lines().nth(1).unwrap();
            assert!(row.starts_with(&name) && row.contains(label.trim()), "{table}");
            assert!(row.contains(&format!("held, {scope}")), "{table}");
        }
    });
}

/// A file's holder and a leader's is known since its grant.
#[test]
fn an_age_that_is_known_is_no_bound() {
    everywhere(|at, _, is_known| {
        let mut holder = holder(at);
        let text =
            String::from_utf8(at("run").args(["-n", "job", "--", "true"]).output().unwrap().stderr)
                .unwrap();
        assert!(!text.contains("at least 0"), "{text}");
        let table = || succeeds(&at("status").output().unwrap());
        let is_exact = text.contains(" so far)");
        assert!(is_exact || !is_known, "{text}");
        let seen = table();
        assert!(!seen.contains("≥ 0"), "{seen}");
        assert!(!is_exact || !seen.contains('≥'), "{seen}");
        let held = || shown(at("status"))["holder"]["held_ms"].as_u64().unwrap();
        let first = held();
        eventually("its time grows by a second", || (held() > first + 1_000).then_some(()));
        let row = table();
        assert!(row.contains(" s  ") && !row.contains("≥ 0"), "{row}");
        drop(holder.stdin());
    });
}
