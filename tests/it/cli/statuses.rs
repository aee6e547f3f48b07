//! Every exit status is reachable, and every failure of ours is one line.

use super::*;

#[test]
fn a_commands_own_status_is_passed_on() {
    let place = Place::new();
    for status in [0, 1, 3, 64, 75, 255] {
        let output = place.ran(&["job", "--", "sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_signal_that_ends_the_command_is_128_and_its_number() {
    let place = Place::new();
    for (signal, status) in [("TERM", 143), ("KILL", 137), ("INT", 130), ("USR1", 138)] {
        let output = place.ran(&["job", "--", "sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(output.status.code(), Some(status));
    }
}

#[test]
fn usage_errors_are_64() {
    for args in [
        &[][..],
        &["run"],
        &["run", "job"],
        &["run", "job", "--"],
        &["run", "job", "true"],
        &["run", "--wait", "soon", "job", "--", "true"],
        &["run", "--ttl", "-1", "job", "--", "true"],
        &["run", "--ttl", "0", "job", "--", "true"],
        &["run", "--ttl", "100ms", "job", "--", "true"],
        &["run", "--shared", "--at-least", "5m", "job", "--", "true"],
        &["hold"],
        &["held"],
        &["run", "-n", "-w", "1", "job", "--", "true"],
        &["run", "--scope", "thread", "job", "--", "true"],
        &["run", "--on-lost", "shrug", "job", "--", "true"],
        &["run", "-E", "256", "job", "--", "true"],
        &["run", "", "--", "true"],
        &["run", "a\nb", "--", "true"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["secret"],
        &["secret", "new"],
        &["walk"],
    ] {
        fails(&tierlock(args).output().unwrap(), 64, &[]);
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["run", "--help"],
        &["serve", "--help"],
        &["status", "--help"],
        &["secret", "new", "--help"],
    ] {
        let output = tierlock(args).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        succeeds(&output);
    }
}

#[test]
fn what_cannot_be_started_is_126_or_127() {
    let place = Place::new();
    fails(&place.ran(&["job", "--", "tierlock-no-such-command"]), 127, &["not found"]);
    fails(&place.ran(&["job", "--", "/etc/passwd"]), 126, &["/etc/passwd"]);
    fails(&place.ran(&["job", "--", "/"]), 126, &[]);
    // The lock is free again.
    succeeds(&place.ran(&["-n", "job", "--", "true"]));
}

#[test]
fn a_held_lock_is_75_or_what_was_asked_for() {
    let place = Place::new();
    let mut holder = Running::script(&mut place.run(), &[], "job", "echo holding; exec sleep 1000");
    assert_eq!(holder.line(), "holding");
    let pid = format!("pid {}", holder.pid().as_raw_nonzero());

    fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["job", &pid]);
    fails(&place.ran(&["--no-wait", "job", "--", "true"]), 75, &["job", &pid]);
    fails(&place.ran(&["-w", "0.05", "job", "--", "true"]), 75, &["job", &pid]);
    fails(&place.ran(&["-n", "-E", "9", "job", "--", "true"]), 9, &["job"]);
    let custom = place.ran(&["--wait", "10ms", "--conflict-exit-code", "0", "job", "--", "true"]);
    fails(&custom, 0, &["job"]);
    succeeds(&place.ran(&["-n", "another", "--", "true"]));
}

#[test]
fn a_label_names_the_holder() {
    let place = Place::new();
    let mut holder = Running::script(
        &mut place.run(),
        &["--label", "nightly export"],
        "job",
        "echo holding; exec sleep 1000",
    );
    assert_eq!(holder.line(), "holding");
    fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["nightly export"]);
}

#[test]
fn settings_that_do_not_fit_are_78() {
    let place = Place::new();
    let run = |args: &[&str]| tierlock(&["run"]).args(args).output().unwrap();
    fails(&run(&["job", "--", "true"]), 78, &["TIERLOCK_DIR"]);
    fails(&run(&["--leader", "127.0.0.1", "job", "--", "true"]), 78, &["secret"]);
    fails(&place.ran(&["--scope", "host", "job", "--", "true"]), 78, &["leader"]);
    let terms = ["--at-most", "1", "--at-least", "2", "job", "--", "true"];
    fails(&place.ran(&terms), 78, &["at-least", "at-most"]);
    fails(&place.ran(&["--at-least", "745h", "job", "--", "true"]), 78, &["at-least", "31 days"]);
    fails(&tierlock(&["status"]).output().unwrap(), 78, &["TIERLOCK_DIR"]);
    let empty = tierlock(&["run", "job", "--", "true"]).env("TIERLOCK_DIR", "").output().unwrap();
    fails(&empty, 78, &["TIERLOCK_DIR"]);
}

#[test]
fn a_service_is_one_and_its_password_is_no_argument() {
    let status = |args: &[&str]| tierlock(&["status"]).args(args).output().unwrap();
    // What this build lacks is told by its feature.
    #[cfg(not(feature = "redis"))]
    fails(&status(&["--service", "redis://h"]), 64, &["redis", "feature"]);
    #[cfg(not(feature = "etcd"))]
    fails(&status(&["--service", "etcd://h"]), 64, &["etcd", "feature"]);
    fails(&status(&["--service", "consul://h"]), 78, &["consul"]);
    fails(&status(&["--service", "tierlocks://h"]), 78, &["encrypted always"]);
    fails(&status(&["--service", "tierlock://h", "--leader", "h"]), 64, &["--leader"]);
    let secret = status(&["--service", "redis://u:hunter2@h"]);
    fails(&secret, 78, &["password_file"]);
    assert!(!String::from_utf8_lossy(&secret.stderr).contains("hunter2"));
    let mut both = tierlock(&["status"]);
    both.env("TIERLOCK_SERVICE", "tierlock://h").env("TIERLOCK_LEADERS", "h");
    fails(&both.output().unwrap(), 78, &["TIERLOCK_LEADERS", "TIERLOCK_SERVICE"]);
    // Leaders by either name need their secret.
    fails(&status(&["--service", "tierlock://127.0.0.1"]), 78, &["secret"]);
}

#[test]
fn a_damaged_directory_is_74() {
    let place = Place::new();
    std::fs::create_dir(place.dir()).unwrap();
    std::fs::write(place.dir().join("format"), "garbage").unwrap();
    fails(&place.ran(&["job", "--", "true"]), 74, &["locks", "garbage"]);
}

#[test]
fn a_system_that_gives_nothing_is_70() {
    let place = Place::new();
    let script = "ulimit -n 4; exec \"$0\" run --dir \"$1\" job -- true";
    let output = super::script(&place, script).output().unwrap();
    fails(&output, 70, &[]);
}

#[test]
fn time_that_is_up_is_76() {
    let place = Place::new();
    let output = place.ran(&["--at-most", "300ms", "job", "--", "sleep", "1000"]);
    fails(&output, 76, &["job", "at-most"]);
}

#[test]
fn no_leader_is_69() {
    let place = Place::new();
    let secret = place.secret();
    // Bound, so that no other socket answers there, and silent.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let run = |wait: &[&str]| {
        let mut command = tierlock(&["run", "--leader", &address, "--secret-file"]);
        command.arg(&secret).args(wait).args(["job", "--", "true"]).output().unwrap()
    };
    fails(&run(&["-w", "300ms"]), 69, &[&address]);
}

#[test]
fn a_wrong_secret_is_77() {
    let (ours, theirs) = (Place::new(), Place::new());
    let leader = ours.leader();
    let mut command = tierlock(&["run", "--leader", &leader.address, "--secret-file"]);
    let output = command.arg(theirs.secret()).args(["-w", "20", "job", "--", "true"]).output();
    fails(&output.unwrap(), 77, &["secret"]);
}

#[test]
fn a_wait_of_any_length_runs_behind_a_free_lock_of_a_healthy_leader() {
    let place = Place::new();
    let leader = place.leader();
    for wait in ["0", ".000001", ".00002", ".001"] {
        succeeds(&leader.run().args(["-w", wait, "job", "--", "true"]).output().unwrap());
    }
    let mut holder = Running::script(&mut leader.run(), &[], "job", "echo here; sleep 1000");
    assert_eq!(holder.line(), "here");
    for wait in ["0", ".000001", ".00002", ".001"] {
        let output = leader.run().args(["-w", wait, "job", "--", "true"]).output().unwrap();
        fails(&output, 75, &["job", "sh"]);
    }
}

#[test]
fn a_command_that_cannot_start_takes_no_mark_of_a_dead_holder_away() {
    let place = Place::new();
    let script = "echo here; exec sleep 1000";
    let mut holder = Running::script(&mut place.run(), &[], "job", script);
    assert_eq!(holder.line(), "here");
    holder.signal(Signal::KILL);
    holder.exit();
    // The lock is free once what it ran has ended, too.
    fails(&place.ran(&["-w", "50", "job", "--", "no-such-program"]), 127, &["no-such-program"]);
    let locks = tierlock::LockManager::builder().directory(place.dir()).open().unwrap();
    let guard = locks.mutex("job", ()).try_lock_for(PATIENCE).unwrap();
    let told = tierlock::MutexGuard::predecessor(&guard);
    assert_eq!(told, tierlock::Predecessor::Died);
}
