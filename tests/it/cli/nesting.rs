//! Locks within locks: `run` never waits for itself, and possession alone decides what that is.

use super::*;

const ME: &str = env!("CARGO_BIN_EXE_tierlock");

/// A script that tells its caller's name for a lock, and then runs what it was given.
fn in_shell(words: &str) -> [&str; 4] {
    ["--", "sh", "-c", words]
}

/// Where locks are, as words of a command line.
fn of_directory(place: &Place) -> String {
    format!("--dir {}", place.dir().display())
}

fn of_leader(leader: &Leader) -> String {
    format!("--leader {} --secret-file {}", leader.address, leader.secret.display())
}

/// Every way to reach a lock: both engines, a leader, and a leader with each engine.
fn everywhere(test: impl Fn(&str, bool)) {
    for place in Place::of_each_engine() {
        test(&of_directory(&place), false);
    }
    let place = Place::new();
    let leader = place.leader();
    test(&of_leader(&leader), true);
    for place in Place::of_each_engine() {
        test(&format!("{} {}", of_leader(&leader), of_directory(&place)), true);
    }
}

fn run_at(whereabouts: &str) -> Command {
    let mut command = tierlock(&["run"]);
    command.args(whereabouts.split(' '));
    command
}

#[test]
fn a_run_that_would_wait_for_itself_is_75_at_once() {
    everywhere(|at, _| {
        let nested = |outer: &str, inner: &str| {
            let inner = format!("{ME} run {at} {inner} -- echo inner");
            run_at(at).args([outer]).args(in_shell(&inner)).output().unwrap()
        };
        // With a limit, so that a fault fails the test instead of hanging it.
        fails(&nested("job", "-w 60 job"), 75, &["\"job\"", "wait for itself"]);
        fails(&nested("job", "-n job"), 75, &["\"job\"", "wait for itself"]);
        fails(&nested("job", "-w 100 -E 9 job"), 9, &["\"job\"", "wait for itself"]);
        assert_eq!(succeeds(&nested("job", "step")), "inner\n", "{at}");
        assert_eq!(succeeds(&nested("a b", "b")), "inner\n", "{at}");
    });
}

#[test]
fn however_deep_the_lock_is_held_above() {
    everywhere(|at, _| {
        let script = format!(
            "{ME} run {at} b -- {ME} run {at} 'c d' -- sh -c '{ME} run {at} -w 60 $0 -- true; echo $?'"
        );
        for name in ["a", "b"] {
            let words = script.replace("$0", name);
            let output = run_at(at).arg("a").args(in_shell(&words)).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "75\n", "{output:?}");
        }
        let words = script.replace("$0 -- true", "e -- printenv TIERLOCK_NAME");
        let output = run_at(at).arg("a").args(in_shell(&words)).output().unwrap();
        assert_eq!(succeeds(&output), "e\n0\n", "the innermost is told");
    });
}

/// What the environment forgot, the descriptors tell, and the other way round.
#[test]
fn in_a_directory_either_of_descriptor_and_environment_is_enough() {
    for place in Place::of_each_engine() {
        let dir = of_directory(&place);
        let without_environment = format!("env -i {ME} run {dir} -w 60 job -- true");
        fails(
            &place.ran(&[&["job"], &in_shell(&without_environment)[..]].concat()),
            75,
            &["itself"],
        );
        // The command has no descriptor, and the `run` above it has.
        let options = ["--close", "job"];
        fails(
            &place.ran(&[&options, &in_shell(&without_environment)[..]].concat()),
            75,
            &["itself"],
        );
    }
}

/// The first case: it never ran the job, and exited with 0.
#[test]
fn the_same_name_in_another_directory_is_another_lock() {
    for (one, other) in Place::of_each_engine().into_iter().zip(Place::of_each_engine()) {
        let inner = format!("{ME} run {} -n -E 0 sync -- echo job", of_directory(&other));
        assert_eq!(succeeds(&one.ran(&[&["sync"], &in_shell(&inner)[..]].concat())), "job\n");
        // Held there by another process, it is that one's.
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::script(&mut other.run(), &["--label", "other"], "sync", script);
        assert_eq!(holder.line(), "holding");
        let output = one.ran(&[&["sync"], &in_shell(&inner)[..]].concat());
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b""[..]));
        assert!(the_one_line(&output.stderr).contains("held by other"), "{output:?}");
    }
}

/// Both leaders are new: they grant the same tokens.
#[test]
fn the_same_name_and_token_at_another_leader_is_another_lock() {
    let (one, other) = (Place::new(), Place::new());
    let (one, other) = (one.leader(), other.leader());
    let token = "echo $TIERLOCK_TOKEN";
    let inner = format!("{token}; {ME} run {} -n sync -- sh -c '{token}'", of_leader(&other));
    let told = succeeds(&one.run().arg("sync").args(in_shell(&inner)).output().unwrap());
    let tokens: Vec<&str> = told.lines().collect();
    assert_eq!(tokens[0], tokens[1], "else this test proves less than it could");
    let inner = format!("{ME} held {} sync; echo $?", of_leader(&other));
    assert_eq!(succeeds(&one.run().arg("sync").args(in_shell(&inner)).output().unwrap()), "1\n");
}

/// The second case: its environment says for ever that it runs under the lock.
#[test]
fn a_daemon_that_outlived_its_lock_may_take_it_again() {
    everywhere(|at, is_wide| {
        let files = tempfile::tempdir().unwrap();
        let (go, out) = (files.path().join("go"), files.path().join("out"));
        assert!(program("mkfifo").arg(&go).status().unwrap().success());
        let daemon = format!(
            "(exec >{out} 2>&1; read -r line <{go}; {ME} held {at} job; echo held $?;
              {ME} run {at} -n job -- echo again; echo done) &",
            go = go.display(),
            out = out.display(),
        );
        let mut run = run_at(at);
        let output = run.args(["--close", "job"]).args(in_shell(&daemon)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr.is_empty(), !is_wide, "{output:?}");
        std::fs::write(&go, "go\n").unwrap();
        let told = eventually("the daemon is done", || {
            std::fs::read_to_string(&out).ok().filter(|text| text.ends_with("done\n"))
        });
        assert_eq!(told, "held 1\nagain\ndone\n", "{at}");
    });
}

/// It has inherited what keeps the lock: nothing frees the lock while it waits.
#[test]
fn a_daemon_that_keeps_the_lock_does_not_wait_for_itself() {
    for place in Place::of_each_engine() {
        let (go, out) = (place.path("go"), place.path("out"));
        assert!(program("mkfifo").arg(&go).status().unwrap().success());
        let at = of_directory(&place);
        let daemon = format!(
            "(exec >{out} 2>&1; read -r line <{go}; {ME} held {at} job; echo held $?;
              {ME} run {at} -w 60 job -- true; echo $?) &",
            go = go.display(),
            out = out.display(),
        );
        succeeds(&place.ran(&[&["job"], &in_shell(&daemon)[..]].concat()));
        std::fs::write(&go, "go\n").unwrap();
        let told = eventually("the daemon is done", || {
            std::fs::read_to_string(&out).ok().filter(|text| text.ends_with("75\n"))
        });
        assert!(told.starts_with("held 0\n"), "{told}");
        assert!(told.contains("would wait for itself"), "{told}");
    }
}

/// The third case: both ran at once, since both found the name in their environment.
#[test]
fn two_scripts_with_the_idiom_exclude_each_other_in_one_environment() {
    everywhere(|at, _| {
        let files = tempfile::tempdir().unwrap();
        let script = files.path().join("deploy");
        let text = format!(
            "#!/bin/sh\n{ME} held {at} deploy || exec {ME} run {at} -n deploy -- sh \"$0\" \"$@\"\n\
             echo \"$1\"; read -r line; exit 0\n"
        );
        std::fs::write(&script, text).unwrap();
        let start = |word: &str| {
            let mut command = program("sh");
            command.arg(&script).arg(word).stdin(Stdio::piped());
            // As whatever was started under that lock, and outlived it, would hand it down.
            command.env("TIERLOCK_NAME", "deploy").env("TIERLOCK_SCOPE", "process");
            command
        };
        let mut first = Running::start(&mut start("first"));
        assert_eq!(first.line(), "first");
        fails(&start("second").stdin(Stdio::null()).output().unwrap(), 75, &["\"deploy\""]);
        drop(first.stdin());
        assert_eq!(first.exit().code(), Some(0));
        let third = start("third").stdin(Stdio::null()).output().unwrap();
        assert_eq!(succeeds(&third), "third\n");
    });
}

#[test]
fn held_is_true_below_the_holder_and_nowhere_else() {
    everywhere(|at, is_wide| {
        let held = |name: &str| format!("{ME} held {at} {name}; echo $?");
        let below = |words: &str| {
            let output = run_at(at).arg("job").args(in_shell(words)).output().unwrap();
            assert!(output.stderr.is_empty(), "{output:?}");
            succeeds(&output)
        };
        assert_eq!(below(&held("job")), "0\n", "{at}");
        assert_eq!(below(&held("other")), "1\n", "{at}");
        assert_eq!(below(&format!("(sh -c '{}')", held("job"))), "0\n", "{at}");
        // It has no holder any more, and then another process does.
        let output = program("sh").args(["-c", &held("job")]).output().unwrap();
        assert_eq!(succeeds(&output), "1\n", "{at}");
        let mut run = run_at(at);
        let mut holder = Running::script(&mut run, &[], "job", "echo holding; exec sleep 1000");
        assert_eq!(holder.line(), "holding");
        let output = program("sh").args(["-c", &held("job")]).output().unwrap();
        assert_eq!(succeeds(&output), "1\n", "{at}");
        holder.signal(Signal::TERM);
        holder.exit();
        // Without its environment a lock of a leader's is not seen, which is said in the help.
        let bare = format!("env -i {}", held("job"));
        assert_eq!(below(&bare), if is_wide { "1\n" } else { "0\n" }, "{at}");
    });
}

/// A name, or a whole claim, that is copied from elsewhere proves nothing.
#[test]
fn held_believes_no_environment() {
    everywhere(|at, _| {
        let mut run = run_at(at);
        let script = "printenv TIERLOCK_HELD | tr '\\n' ';'; echo; exec sleep 1000";
        let mut holder = Running::script(&mut run, &[], "job", script);
        let claims = holder.line().trim_end_matches(';').replace(';', "\n");
        assert!(claims.contains(" job"), "{claims}");
        let mut held = tierlock(&["held"]);
        held.args(at.split(' '))
            .arg("job")
            .env("TIERLOCK_NAME", "job")
            .env("TIERLOCK_HELD", claims);
        assert_eq!(held.output().unwrap().status.code(), Some(1), "{at}: not its ancestor");
    });
}

/// One name, held in the directory alone, and not at the leader that is known as well.
#[test]
fn held_asks_about_the_lock_that_run_would_take() {
    let place = Place::new();
    let leader = place.leader();
    let at = format!("{} {}", of_leader(&leader), of_directory(&place));
    let words = format!(
        "for s in process host; do {ME} held {at} --scope $s job; echo $?; done
        {ME} held {at} job; echo $?"
    );
    let output = run_at(&at).args(["--scope", "process", "job"]).args(in_shell(&words)).output();
    assert_eq!(succeeds(&output.unwrap()), "0\n1\n1\n");
}

#[test]
fn held_makes_nothing_and_says_what_is_wrong() {
    let place = Place::new();
    let held = |args: &[&str]| tierlock(&["held"]).args(args).output().unwrap();
    let dir = place.dir();
    let dir = dir.to_str().unwrap();
    let output = held(&["--dir", dir, "job"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0), "{output:?}");
    assert!(!place.dir().exists());
    std::fs::create_dir(place.dir()).unwrap();
    assert_eq!(held(&["--dir", dir, "job"]).status.code(), Some(1));
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0);
    fails(&held(&["job"]), 78, &["TIERLOCK_DIR"]);
    fails(&held(&["--dir", dir]), 64, &["NAME"]);
}
