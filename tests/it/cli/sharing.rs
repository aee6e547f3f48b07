//! `run --shared`: commands beside each other, and none beside one that runs alone.

use rustix::process::kill_process;
use serde_json::json;

use super::*;

const HOLD: &str = "echo holding; exec sleep 1000";

fn reader(place: &Place, options: &[&str]) -> Running {
    let mut reader = Running::script(&mut place.run(), &[&["-s"], options].concat(), "job", HOLD);
    assert_eq!(reader.line(), "holding");
    reader
}

#[test]
fn commands_that_share_run_beside_each_other() {
    for place in Place::of_each_engine() {
        let (mut one, mut two) = (reader(&place, &[]), reader(&place, &["--label", "two"]));
        succeeds(&place.ran(&["--shared", "-n", "job", "--", "true"]));
        for alone in [&["-n"][..], &["-x", "-n"], &["-w", "50ms"], &["-s", "-x", "-n"]] {
            fails(&place.ran(&[alone, &["job", "--", "true"]].concat()), 75, &["\"job\""]);
        }
        one.signal(Signal::TERM);
        one.exit();
        fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["\"job\""]);
        two.signal(Signal::TERM);
        two.exit();
        let script = "echo holding; exec sleep 1000";
        let mut writer = Running::script(&mut place.run(), &["-w", "60"], "job", script);
        assert_eq!(writer.line(), "holding");
        fails(&place.ran(&["-s", "-n", "job", "--", "true"]), 75, &["\"job\""]);
        fails(&place.ran(&["-s", "-w", "50ms", "job", "--", "true"]), 75, &["\"job\""]);
        drop(writer);
        succeeds(&place.ran(&["-x", "-s", "-w", "60", "job", "--", "true"]));
    }
}

#[test]
fn the_last_of_flocks_spellings_counts() {
    let place = Place::new();
    let _reader = reader(&place, &[]);
    succeeds(&place.ran(&["-x", "-s", "-n", "job", "--", "true"]));
    fails(&place.ran(&["-s", "-e", "-n", "job", "--", "true"]), 75, &[]);
}

#[test]
fn killing_tierlock_ends_its_command_and_its_share() {
    for place in Place::of_each_engine() {
        let script = "echo $$; exec sleep 1000";
        let mut reader = Running::script(&mut place.run(), &["-s"], "job", script);
        let command = reader.pid_line();
        reader.signal(Signal::KILL);
        reader.exit();
        gone(command);
        succeeds(&place.ran(&["-w", "60", "job", "--", "true"]));
    }
}

#[test]
fn what_the_command_leaves_keeps_the_share() {
    for place in Place::of_each_engine() {
        let leave = "sleep 1000 >/dev/null 2>&1 & echo $!; exit 0";
        let mut run = Running::script(&mut place.run(), &["-s"], "job", leave);
        let left = run.pid_line();
        assert_eq!(run.exit().code(), Some(0));
        fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["\"job\""]);
        succeeds(&place.ran(&["-s", "-n", "job", "--", "true"]));
        kill_process(left, Signal::KILL).unwrap();
        succeeds(&place.ran(&["-w", "60", "job", "--", "true"]));

        let mut run = Running::script(&mut place.run(), &["-s", "--close"], "job", leave);
        let left = run.pid_line();
        assert_eq!(run.exit().code(), Some(0));
        succeeds(&place.ran(&["-n", "job", "--", "true"]));
        kill_process(left, Signal::KILL).unwrap();
    }
}

#[test]
fn a_run_that_would_wait_for_its_own_share_is_75_at_once() {
    for place in Place::of_each_engine() {
        let nested = |options: &str| {
            let me = env!("CARGO_BIN_EXE_tierlock");
            let dir = place.dir();
            let inner = format!("{me} run --dir {} {options} job -- echo inner", dir.display());
            place.ran(&["-s", "job", "--", "sh", "-c", &inner])
        };
        // With a limit, so that a fault fails the test instead of hanging it.
        fails(&nested("-w 60"), 75, &["\"job\"", "wait for itself"]);
        assert_eq!(succeeds(&nested("-s -n")), "inner\n");
        let me = env!("CARGO_BIN_EXE_tierlock");
        let held = format!("{me} held --dir {} job", place.dir().display());
        succeeds(&place.ran(&["-s", "job", "--", "sh", "-c", &held]));
    }
}

#[test]
fn shares_are_shown_with_their_mode_and_count() {
    let place = Place::new();
    let one = reader(&place, &["--label", "one"]);
    let _two = reader(&place, &["--label", "two"]);
    let lock = shown(place.status());
    assert_eq!((&lock["mode"], &lock["limit"]), (&json!("shared"), &json!(null)), "{lock}");
    let holders = lock["holders"].as_array().unwrap();
    assert_eq!(holders.len(), 2, "{lock}");
    let pid = one.pid().as_raw_nonzero().get();
    let is_one = |holder: &&serde_json::Value| holder["label"] == "one" && holder["pid"] == pid;
    assert!(holders.iter().any(|holder| is_one(&holder)), "{lock}");
    let waiter = Running::start(place.run().args(["--label", "writer", "job", "--", "true"]));
    let line = fails_with(&place.ran(&["-n", "job", "--", "true"]));
    assert!(line.contains("one") || line.contains("two") || line.contains("writer"), "{line}");
    drop(waiter);
}

fn fails_with(output: &Output) -> String {
    fails(output, 75, &["\"job\""]);
    the_one_line(&output.stderr)
}

#[test]
fn permits_are_shown_with_their_limit() {
    let place = Place::new();
    let locks = LockManager::builder().directory(place.dir()).label("workers").open().unwrap();
    let workers = locks.semaphore("job", 4).build().unwrap();
    let three = workers.acquire_many(3).unwrap();
    let lock = shown(place.status());
    assert_eq!((&lock["mode"], &lock["limit"]), (&json!("permits"), &json!(4)), "{lock}");
    assert_eq!((&lock["state"], &lock["holder"]), (&json!("held"), &json!(null)), "{lock}");
    assert_eq!(lock["holders"][0]["count"], 3, "{lock}");
    let table = succeeds(&place.status().output().unwrap());
    assert!(table.contains("3 of 4 permits") && table.contains("has 3 permits"), "{table}");
    fails(&place.ran(&["-n", "job", "--", "true"]), 78, &["semaphore of 4 permits"]);
    drop(three);
    let lock = shown(place.status());
    assert_eq!((&lock["state"], &lock["holders"]), (&json!("free"), &json!([])), "{lock}");
    let doctor = tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap();
    succeeds(&doctor);
}

#[test]
fn doctor_knows_what_readers_leave() {
    for (place, has_counts) in Place::of_each_engine().into_iter().zip([true, false]) {
        let reader = reader(&place, &["--close"]);
        let doctor =
            || succeeds(&tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap());
        assert!(!doctor().contains("not tierlock's"), "{}", doctor());
        drop(reader);
        let told = doctor();
        assert!(!told.contains("damage"), "{told}");
        let counted = told.contains("counts 1 of process") && told.contains("which died");
        assert_eq!(counted, has_counts, "{told}");
        succeeds(&place.ran(&["-w", "60", "job", "--", "true"]));
        assert!(!doctor().contains("counts 1 of process"), "{}", doctor());
    }
}

#[test]
fn commands_share_a_lock_of_several_machines() {
    let place = Place::new();
    let leader = place.leader();
    let mut reader = Running::script(&mut leader.run(), &["-s"], "job", HOLD);
    assert_eq!(reader.line(), "holding");
    let ran = |args: &[&str]| leader.run().args(args).output().unwrap();
    succeeds(&ran(&["--shared", "-n", "job", "--", "true"]));
    fails(&ran(&["-n", "job", "--", "true"]), 75, &["\"job\""]);
    reader.signal(Signal::TERM);
    reader.exit();
    succeeds(&ran(&["-w", "60", "job", "--", "true"]));
    fails(&ran(&["-s", "--at-least", "5m", "job", "--", "true"]), 64, &["--shared"]);
}

#[test]
fn several_names_are_taken_together_or_not_at_all() {
    let place = Place::new();
    several_names_are_taken(&|| place.run());
    let leader = place.leader();
    several_names_are_taken(&|| leader.run());
    // Under them a command would wait for itself.
    let inner = format!(
        "{} run --dir {} -w 60 a x -- true",
        env!("CARGO_BIN_EXE_tierlock"),
        place.dir().display()
    );
    fails(&place.ran(&["c", "a", "--", "sh", "-c", &inner]), 75, &["\"a\", \"x\"", "itself"]);
}

fn several_names_are_taken(run: &dyn Fn() -> Command) {
    let ran = |args: &[&str]| run().args(args).output().unwrap();
    let script = "printenv TIERLOCK_NAME; echo -; printenv TIERLOCK_TOKEN; exec sleep 1000";
    let mut both = Running::start(run().args(["b", "a", "--", "sh", "-c", script]));
    let said: Vec<String> = (0..5).map(|_| both.line()).collect();
    assert_eq!(said[..3], ["b", "a", "-"]);
    assert!(said[3..].iter().all(|token| token.parse::<u64>().unwrap() > 0), "{said:?}");
    for name in ["a", "b"] {
        fails(&ran(&["-n", name, "--", "true"]), 75, &[&format!("{name:?}")]);
    }
    fails(&ran(&["-n", "b", "c", "--", "true"]), 75, &["\"b\"", "--no-wait"]);
    fails(&ran(&["-s", "-w", "50ms", "c", "a", "--", "true"]), 75, &["\"a\"", "--wait"]);
    succeeds(&ran(&["-n", "c", "--", "true"]));
    both.signal(Signal::TERM);
    both.exit();
    succeeds(&ran(&["-s", "-w", "60", "a", "b", "--", "true"]));
    fails(&ran(&["a", "a", "--", "true"]), 78, &["\"a\"", "twice"]);
}
