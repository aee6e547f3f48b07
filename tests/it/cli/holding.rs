//! `tierlock hold`: a lock for a section of a script.

use super::*;

fn holds(mut command: Command, options: &[&str]) -> Running {
    command.args(options).arg("job").stdin(Stdio::piped());
    Running::start(&mut command)
}

/// A `hold`, a `run -n` and a `status` for every way to reach a lock.
fn everywhere(test: impl Fn(&dyn Fn(&str) -> Command)) {
    let [table, files] = Place::of_each_engine();
    let place = Place::new();
    let leader = place.leader();
    for dir in [table.dir(), files.dir()] {
        test(&|subcommand| {
            let mut command = tierlock(&[subcommand, "--dir"]);
            command.arg(&dir);
            command
        });
        test(&|subcommand| {
            let mut command = leader.command(subcommand);
            command.arg("--dir").arg(&dir);
            command
        });
    }
    test(&|subcommand| leader.command(subcommand));
}

fn is_free(at: &dyn Fn(&str) -> Command) {
    let left = shown(at("status"));
    assert_eq!((&left["state"], &left["predecessor"]), (&"free".into(), &"clean".into()), "{left}");
}

#[test]
fn a_lock_is_held_until_standard_input_ends() {
    everywhere(|at| {
        let mut hold = holds(at("hold"), &["--label", "a script"]);
        let token = hold.line();
        let token: u64 = token.strip_prefix("token ").unwrap().parse().unwrap();
        let lock = shown(at("status"));
        assert_eq!((&lock["state"], &lock["token"]), (&"held".into(), &token.into()));
        assert_eq!(lock["holder"]["label"], "a script");
        fails(&at("run").args(["-n", "job", "--", "true"]).output().unwrap(), 75, &["a script"]);
        fails(&at("hold").args(["-n", "job"]).output().unwrap(), 75, &["a script"]);
        fails(&at("hold").args(["-n", "-E", "3", "job"]).output().unwrap(), 3, &["a script"]);
        let mut input = hold.stdin();
        std::io::Write::write_all(&mut input, b"what is written says nothing\n").unwrap();
        fails(&at("run").args(["-n", "job", "--", "true"]).output().unwrap(), 75, &["a script"]);
        drop(input);
        let (status, stderr) = hold.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        is_free(at);
        let again = at("hold").arg("job").output().unwrap();
        let next: u64 = succeeds(&again).trim().strip_prefix("token ").unwrap().parse().unwrap();
        assert!(next > token, "its input was at its end from the start");
    });
}

#[test]
fn a_signal_releases_what_is_held_and_ends_it() {
    use std::os::unix::process::ExitStatusExt;
    everywhere(|at| {
        let mut hold = holds(at("hold"), &[]);
        hold.line();
        hold.signal(Signal::TERM);
        let (status, stderr) = hold.end();
        assert_eq!((status.signal(), stderr.as_str()), (Some(15), ""), "{status}");
        is_free(at);
    });
}

/// As `run` does, it leaves `--at-least` to what remembers it.
#[test]
fn its_at_least_is_kept_by_the_directory_or_the_leader() {
    let [table, files] = Place::of_each_engine();
    let leader = table.leader();
    let in_directory = |place: &Place| {
        let mut command = tierlock(&["hold", "--dir"]);
        command.arg(place.dir());
        command
    };
    let at_leader = || leader.command("hold");
    let in_table = || in_directory(&table);
    let in_files = || in_directory(&files);
    for at in [&in_table as &dyn Fn() -> Command, &in_files, &at_leader] {
        // Its input is at its end; it does not wait for 700 hours.
        succeeds(&at().args(["--at-least", "700h", "job"]).output().unwrap());
        fails(&at().args(["-n", "job"]).output().unwrap(), 75, &["job"]);
    }
}

#[test]
fn a_lock_that_is_lost_ends_it_with_76() {
    everywhere(|at| {
        let mut hold = holds(at("hold"), &["--at-most", "200ms"]);
        hold.line();
        let (status, stderr) = hold.end();
        assert_eq!(status.code(), Some(76));
        assert!(the_one_line(stderr.as_bytes()).contains("\"job\": lost"), "{stderr}");
    });
    // As was asked for, it goes on without, and says so.
    let place = Place::new();
    let mut command = tierlock(&["hold", "--dir"]);
    command.arg(place.dir());
    let mut hold = holds(command, &["--at-most", "100ms", "--on-lost", "warn"]);
    hold.line();
    assert!(hold.error_line().contains("goes on without it"));
    drop(hold.stdin());
    assert_eq!(hold.exit().code(), Some(76));
}

#[test]
fn a_token_without_a_reader_is_no_lock() {
    let place = Place::new();
    let mut command = tierlock(&["hold", "--dir"]);
    command.arg(place.dir()).arg("job").stdin(Stdio::piped()).stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let hold = command.stdout(writer).spawn().unwrap();
    fails(&hold.wait_with_output().unwrap(), 74, &["token"]);
    let left = shown(place.status());
    assert_eq!((&left["state"], &left["predecessor"]), (&"free".into(), &"clean".into()), "{left}");
}

/// The example of the help text.
#[test]
fn a_bash_script_holds_a_lock_for_one_section() {
    if program("bash").args(["-c", ""]).output().is_err() {
        return eprintln!("SKIPPED: no bash here");
    }
    let place = Place::new();
    let script = "coproc \"$0\" hold --dir \"$1\" deploy
        read -r _ token <&\"${COPROC[0]}\" || exit 9
        \"$0\" run --dir \"$1\" -n deploy -- true; echo $?
        exec {COPROC[1]}>&-
        wait
        \"$0\" run --dir \"$1\" -n deploy -- echo \"$((TIERLOCK_TOKEN + token))\"";
    let mut bash = program("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_tierlock")]).arg(place.dir());
    let output = bash.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "75\n1\n", "{output:?}");
}

#[test]
fn several_locks_are_held_with_a_token_each() {
    everywhere(|at| {
        let mut hold = at("hold");
        hold.args(["b", "a"]).stdin(Stdio::piped());
        let mut hold = Running::start(&mut hold);
        for _ in 0..2 {
            let line = hold.line();
            let token: u64 = line.strip_prefix("token ").unwrap().parse().unwrap();
            assert!(token > 0);
        }
        for name in ["a", "b"] {
            let output = at("run").args(["-n", name, "--", "true"]).output().unwrap();
            fails(&output, 75, &[&format!("{name:?}")]);
        }
        drop(hold.stdin());
        let (status, stderr) = hold.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        let output = at("run").args(["-n", "a", "b", "--", "true"]).output().unwrap();
        succeeds(&output);
    });
}
