//! What a command leaves running, and what it inherits.

use rustix::process::kill_process;

use super::*;

/// Leaves a process that goes on, and says its number.
const LEAVE: &str = "sleep 1000 >/dev/null 2>&1 & echo $!; exit 0";

/// ceph-qa-suite#583: a daemon keeps the lock, and the holder that is shown has ended.
#[test]
fn a_process_that_keeps_the_lock_is_named() {
    for place in Place::of_each_engine() {
        let mut run = Running::script(&mut place.run(), &["--label", "starter"], "job", LEAVE);
        let left = run.pid_line();
        let (status, stderr) = run.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        let pid = left.as_raw_nonzero().get();
        // It has the lock's file open as well, and keeps nothing.
        let waiter = Running::start(place.run().args(["job", "--", "true"]));
        eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
        let lock = shown(place.status());
        assert_eq!(lock["holder"]["label"], "starter");
        let survivor = serde_json::json!([{"pid": pid, "command": "sleep"}]);
        assert_eq!(lock["holder"]["survivors"], survivor, "{lock}");
        let (named, run_pid) = (format!("sleep (pid {pid})"), run.pid().to_string());
        let table = succeeds(&place.status().output().unwrap());
        assert!(table.contains("kept alive by") && table.contains(&named), "{table}");
        let doctor = tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap();
        let told = succeeds(&doctor);
        let words = ["note", "\"job\" is kept by", &named, &run_pid, "--close"];
        let is_it = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(told.lines().any(is_it), "{told}");
        fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["starter", &named]);
        kill_process(left, Signal::KILL).unwrap();
        let mut waiter = waiter;
        assert_eq!(waiter.exit().code(), Some(0));
        succeeds(&place.ran(&["-w", "50", "job", "--", "true"]));
        assert_eq!(shown(place.status())["holder"], serde_json::Value::Null);
    }
}

#[test]
fn a_holder_that_lives_keeps_its_lock_itself() {
    for place in Place::of_each_engine() {
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::script(&mut place.run(), &[], "job", script);
        assert_eq!(holder.line(), "holding");
        // It has the lock's file open as well.
        let waiter = Running::start(place.run().args(["job", "--", "true"]));
        eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
        let lock = shown(place.status());
        assert!(lock["holder"].get("survivors").is_none(), "{lock}");
        let doctor = tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap();
        assert!(!succeeds(&doctor).contains("is kept by"));
    }
}

#[test]
fn with_close_what_is_left_keeps_nothing() {
    for place in Place::of_each_engine() {
        for close in ["-o", "--close"] {
            let mut run = Running::script(&mut place.run(), &[close], "job", LEAVE);
            let left = run.pid_line();
            let (status, stderr) = run.end();
            assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
            assert!(runs(left));
            let lock = shown(place.status());
            assert_eq!((&lock["state"], &lock["predecessor"]), (&"free".into(), &"clean".into()));
            succeeds(&place.ran(&["-n", "job", "--", "true"]));
            kill_process(left, Signal::KILL).unwrap();
        }
    }
}

/// While the command itself runs, the lock is held as ever, and freed with tierlock's own end.
#[test]
fn with_close_tierlock_alone_keeps_the_lock() {
    for place in Place::of_each_engine() {
        let script = "echo $$; exec sleep 1000";
        let mut holder = Running::script(&mut place.run(), &["-o"], "job", script);
        let command = holder.pid_line();
        fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["job"]);
        holder.signal(Signal::KILL);
        holder.exit();
        gone(command);
        succeeds(&place.ran(&["-w", "50", "job", "--", "true"]));
    }
}

/// libsystemd-rs#155, cri-o#1300: the sockets are the command's, and the number was tierlock's.
#[test]
fn sockets_that_are_handed_over_reach_the_command() {
    let place = Place::new();
    let leader = place.leader();
    let at_leader =
        format!("--leader {} --secret-file {}", leader.address, leader.secret.display());
    let at_directory = format!("--dir {}", place.dir().display());
    for at in [at_leader, at_directory] {
        let told = |before: &str, program: &str| {
            let script = format!(
                "{before} export LISTEN_PID LISTEN_FDS LISTEN_PIDFDID
                 exec \"$0\" run {at} job -- {program} -c 'echo $LISTEN_PID $LISTEN_FDS $$ $TIERLOCK_NAME \
                 ${{LISTEN_PIDFDID-none}}; read line <&3; echo $line' 3</etc/hostname"
            );
            succeeds(&super::script(&place, &script).output().unwrap())
        };
        let hostname = std::fs::read_to_string("/etc/hostname").unwrap();
        for program in ["sh", "/bin/sh"] {
            let text = told("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_PIDFDID=4711;", program);
            let words: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
            assert_eq!(words[0], words[2], "{text}");
            assert_eq!(words[1..], ["1", words[2], "job", "none"], "{text}");
            assert_eq!(text.lines().nth(1), hostname.lines().next());
        }
        // Meant for another process.
        let text = told("LISTEN_PID=1 LISTEN_FDS=1 LISTEN_PIDFDID=4711;", "sh");
        let words: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
        assert_eq!((words[0], words[4]), ("1", "4711"), "{text}");
    }
    let script = "LISTEN_PID=$$; export LISTEN_PID; exec \"$0\" run --dir \"$1\" job -- ./none";
    fails(&super::script(&place, script).output().unwrap(), 127, &["none", "not found"]);
}
