//! What flock and sh users type is understood, or refused with the spelling that works.

use std::os::unix::{fs::MetadataExt, process::CommandExt};

use super::*;

#[test]
fn a_command_may_be_one_string_for_the_shell() {
    let place = Place::new();
    let token = "echo $TIERLOCK_NAME; exit 3";
    for args in [&["job", "-c", token][..], &["-c", token, "job"], &["job", "--command", token]] {
        let output = place.ran(args);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(output.stdout, b"job\n");
    }
    let shell = place.run().env("SHELL", "/bin/echo").args(["job", "-c", "x y"]).output().unwrap();
    assert_eq!(succeeds(&shell), "-c x y\n");
    // A string that begins so is one all the same.
    let dashed = place.run().env("SHELL", "/bin/echo").args(["job", "-c", "-x"]).output().unwrap();
    assert_eq!(succeeds(&dashed), "-c -x\n");
}

#[test]
fn a_missing_double_dash_is_64_with_the_spelling_that_works() {
    let place = Place::new();
    let dir = place.dir();
    let line = format!("tierlock run --dir {} -n job -- sh -c 'exit 3'", dir.display());
    fails(&place.ran(&["-n", "job", "sh", "-c", "exit 3"]), 64, &["`--` is missing", &line]);
    assert!(!dir.exists(), "nothing was begun");
}

#[test]
fn a_name_may_begin_with_a_dash() {
    let place = Place::new();
    fails(&place.ran(&["-job", "--", "true"]), 64, &["-- -job -- true"]);
    let output = place.ran(&["-n", "--", "-job", "--", "printenv", "TIERLOCK_NAME"]);
    assert_eq!(succeeds(&output), "-job\n");
    let table = place.status().args(["--", "-job"]).output().unwrap();
    assert!(succeeds(&table).contains("-job"));
    let output = place.ran(&["-c", "printenv TIERLOCK_NAME", "--", "-job"]);
    assert_eq!(succeeds(&output), "-job\n");
}

/// The tip was `--at-most`, which would have killed the job.
#[test]
fn flocks_spellings_of_waiting_mean_waiting() {
    for place in Place::of_each_engine() {
        let mut holder =
            Running::script(&mut place.run(), &[], "job", "echo holding; exec sleep 1000");
        assert_eq!(holder.line(), "holding");
        for wait in [
            &["--timeout", "0.05"][..],
            &["--timeout=50ms"],
            &["-w", ".05"],
            &["--nb"],
            &["--nonblock"],
            &["-xn"],
            &["-e", "-n"],
        ] {
            fails(&place.ran(&[wait, &["job", "--", "true"]].concat()), 75, &["\"job\""]);
        }
    }
    let place = Place::new();
    succeeds(&place.ran(&["-s", "job", "--", "true"]));
    for long in ["1d", "1h30m", "2d12h"] {
        succeeds(&place.ran(&["-w", long, "--at-most", long, "job", "--", "true"]));
    }
}

#[test]
fn a_directory_made_under_any_umask_is_usable_by_its_maker() {
    let is_root = rustix::process::geteuid().is_root();
    for umask in ["177", "777", "077", "000"] {
        let place = Place::new();
        let copy = place.path("tierlock");
        copy_program(&copy);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(place.root.path(), mode).unwrap();
        for round in 0..2 {
            let mut shell = program("sh");
            let words = format!("umask {umask}; exec \"$0\" run --dir \"$1\" job -- echo $2");
            shell.args(["-c", &words]).arg(&copy).arg(place.dir()).arg("ran");
            if is_root {
                // Root may use anything.
                shell.uid(65534).gid(65534);
            }
            let output = shell.current_dir("/").output().unwrap();
            assert_eq!(succeeds(&output), "ran\n", "umask {umask}, round {round}: {output:?}");
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&place.dir()), 0o700, "umask {umask}");
        for entry in std::fs::read_dir(place.dir()).unwrap() {
            let path = entry.unwrap().path();
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), wanted, "umask {umask}: {}", path.display());
        }
    }
}

#[test]
fn a_leaders_directory_made_under_any_umask_is_usable_by_its_maker() {
    let place = Place::new();
    let script = "umask 177; exec \"$0\" \"$@\"";
    let mut shell = program("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_tierlock"), "serve", "--init"]);
    shell.args(["--accept-fs", "tmpfs"]);
    shell.args(["--listen", "127.0.0.1:0"]);
    shell.arg("--state-dir").arg(place.path("state")).arg("--secret-file").arg(place.secret());
    let mut leader = Running::start(&mut shell);
    assert!(leader.line().starts_with("listening on "));
    assert_eq!(std::fs::metadata(place.path("state")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn that_no_lock_was_used_is_said_only_where_it_is_true() {
    let says = |mut status: Command| succeeds(&status.output().unwrap());
    let place = Place::new();
    std::fs::create_dir(place.dir()).unwrap();
    assert_eq!(says(place.status()), "no lock has been used here yet\n");
    let leader = place.leader();
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    // It forgets a name without a holder, sooner or later; another has used it all the same.
    let place = Place::new();
    let other = place.leader();
    assert_eq!(says(other.command("status")), "no lock is held, and none is remembered\n");
    for place in Place::of_each_engine() {
        assert_eq!(says(place.status()), "no lock is held, and none is remembered\n");
    }
}

#[test]
fn that_no_leader_answered_is_said_once() {
    let place = Place::new();
    let mut leader = place.leader();
    leader.stop();
    let output = leader.run().args(["-w", "1", "job", "--", "true"]).output().unwrap();
    fails(&output, 69, &[&leader.address, "tierlock serve"]);
    let line = the_one_line(&output.stderr);
    assert_eq!(line.matches("answered").count(), 1, "{line}");
    // Of several, each is to answer once.
    let mut run = leader.run();
    let output = run.args(["--leader", "127.0.0.1:9", "-w", "1", "job", "--", "true"]).output();
    let line = the_one_line(&output.unwrap().stderr);
    assert_eq!(line.matches("no leader answered").count(), 1, "{line}");
}
