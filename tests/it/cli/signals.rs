//! Signals that were blocked or ignored when tierlock was started.

use super::*;
use crate::surroundings::signals_in;

/// What env(1) of GNU coreutils does to signals before it executes a program; or it says that there is
/// none here.
fn env_with(options: &[&str]) -> Option<Command> {
    let mut env = program("env");
    env.args(options).stdin(Stdio::null());
    let can = program("env").args(options).arg("true").output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("SKIPPED: no env(1) here that can set signals");
    }
    can.then_some(env)
}

/// The `run`s of every way to reach a lock.
fn everywhere(test: impl Fn(&[&std::ffi::OsStr])) {
    let [table, files] = Place::of_each_engine();
    let place = Place::new();
    let leader = place.leader();
    let me = env!("CARGO_BIN_EXE_tierlock").as_ref();
    let (run, job) = ("run".as_ref(), "job".as_ref());
    for dir in [table.dir(), files.dir()] {
        test(&[me, run, "--dir".as_ref(), dir.as_os_str(), job]);
    }
    let (address, secret) = (leader.address.as_ref(), leader.secret.as_os_str());
    test(&[me, run, "--leader".as_ref(), address, "--secret-file".as_ref(), secret, job]);
}

const SIGNALS: [&str; 20] = [
    "HUP", "INT", "QUIT", "TRAP", "ABRT", "USR1", "USR2", "PIPE", "ALRM", "TERM", "CHLD", "CONT",
    "TSTP", "TTIN", "TTOU", "XCPU", "XFSZ", "PROF", "WINCH", "SYS",
];

/// rpm#1479, plan9port#6: with SIGCHLD blocked it never ended.
#[test]
fn whatever_was_blocked_or_ignored_the_command_runs_and_ends() {
    everywhere(|run| {
        for signal in SIGNALS {
            for how in ["block", "ignore"] {
                let Some(mut env) = env_with(&[&format!("--{how}-signal={signal}")]) else {
                    return;
                };
                let mut run = Running::start(env.args(run).args(["--", "sh", "-c", "exit 5"]));
                let (status, stderr) = run.end();
                assert_eq!((status.code(), stderr.as_str()), (Some(5), ""), "{how} {signal}");
            }
        }
    });
}

#[test]
fn the_command_gets_the_signals_that_tierlock_got() {
    let of = |command: &mut Command, dashes: &[&str]| {
        let output = command.args(dashes).args(["cat", "/proc/self/status"]).output().unwrap();
        let status = succeeds(&output);
        // 32 and 33 are the C library's own.
        let programs = |set: u64| set & !(0b11 << 31);
        let sets = ["SigBlk:", "SigIgn:", "SigCgt:"];
        sets.map(|title| programs(signals_in(&status, title).unwrap()))
    };
    everywhere(|run| {
        let each = SIGNALS.map(|signal| [format!("--block-signal={signal}")]);
        let ignored = SIGNALS.map(|signal| [format!("--ignore-signal={signal}")]);
        let all = [vec!["--block-signal".to_owned()], vec!["--ignore-signal".to_owned()]];
        let default = [vec!["--default-signal".to_owned()]];
        let sets = each.into_iter().chain(ignored).map(Vec::from).chain(all).chain(default);
        for options in sets {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let Some(mut plain) = env_with(&options) else { return };
            let direct = of(&mut plain, &[]);
            let mut env = env_with(&options).unwrap();
            assert_eq!(of(env.args(run), &["--"]), direct, "{options:?}");
        }
    });
}

/// Python, for one, ignores it, and a program that it executes is to find it so.
#[test]
fn a_sigpipe_that_was_ignored_is_an_error_for_the_command_and_else_its_end() {
    let place = Place::new();
    let script = "(sleep 0; \"$0\" run --dir \"$1\" job -- sh -c 'kill -PIPE $$; exit 3'; echo $?)";
    assert_eq!(succeeds(&super::script(&place, script).output().unwrap()), "141\n");
    let script = format!("trap '' PIPE; {script}");
    assert_eq!(succeeds(&super::script(&place, &script).output().unwrap()), "3\n");
}

#[test]
fn a_blocked_signal_still_ends_the_wait_and_reaches_the_command() {
    use std::os::unix::process::ExitStatusExt;
    everywhere(|run| {
        let Some(mut holder) = env_with(&["--block-signal"]) else { return };
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::start(holder.args(run).args(["--", "sh", "-c", script]));
        assert_eq!(holder.line(), "holding");
        let mut waiter =
            Running::start(env_with(&["--block-signal"]).unwrap().args(run).args(["--", "true"]));
        eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
        waiter.signal(Signal::TERM);
        let (status, stderr) = waiter.end();
        assert_eq!((status.signal(), stderr.as_str()), (Some(15), ""), "{status}");
        // To the command it is passed on, which has it blocked as it was.
        holder.signal(Signal::TERM);
        let pid = holder.pid().as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let is_pending = |child: &str| {
            let status = std::fs::read_to_string(format!("/proc/{child}/status")).ok()?;
            let waiting = signals_in(&status, "ShdPnd:")?;
            (status.starts_with("Name:\tsleep") && waiting >> 14 & 1 == 1).then_some(())
        };
        eventually("the command has it pending", || {
            children.split_whitespace().find_map(is_pending)
        });
    });
}

#[test]
fn a_leader_that_was_started_with_all_signals_blocked_ends_in_good_order() {
    let place = Place::new();
    let Some(mut env) = env_with(&["--block-signal"]) else { return };
    env.arg(env!("CARGO_BIN_EXE_tierlock")).args([
        "serve",
        "--init",
        "--accept-fs",
        "tmpfs",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
    ]);
    env.arg(place.path("state")).arg("--secret-file").arg(place.secret());
    let mut leader = Running::start(&mut env);
    assert!(leader.line().starts_with("listening on "));
    leader.signal(Signal::TERM);
    assert_eq!(leader.exit().code(), Some(0));
}
