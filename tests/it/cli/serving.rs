//! `tierlock serve` and `tierlock secret`.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_leader_says_where_it_listens_and_ends_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut leader = place.leader();
        let port: u16 = leader.address.rsplit_once(':').unwrap().1.parse().unwrap();
        assert_ne!(port, 0);
        assert_eq!(
            succeeds(&leader.run().args(["job", "--", "echo", "ran"]).output().unwrap()),
            "ran\n"
        );
        leader.process.signal(signal);
        let (status, stderr) = leader.process.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_state_directory_has_one_leader() {
    let place = Place::new();
    let _leader = place.leader();
    let output = place.serve("127.0.0.1:0").output().unwrap();
    fails(&output, 77, &["state"]);
    assert!(output.stdout.is_empty(), "it must not say that it listens");
}

#[test]
fn a_leader_without_storage_is_74() {
    let place = Place::new();
    std::fs::write(place.path("file"), "").unwrap();
    let mut leader = tierlock(&["serve", "--listen", "127.0.0.1:0"]);
    leader.arg("--state-dir").arg(place.path("file/state"));
    leader.arg("--secret-file").arg(place.secret());
    fails(&leader.output().unwrap(), 74, &["state"]);
}

#[test]
fn an_address_that_is_none_is_78() {
    let place = Place::new();
    let mut leader = place.serve("127.0.0.1:http:80");
    fails(&leader.arg("--init").output().unwrap(), 78, &["http"]);
    // That made nothing that is in the way of a leader with a better address.
    place.leader();
}

#[test]
fn a_leader_with_a_lost_state_directory_does_not_begin_anew() {
    let place = Place::new();
    let mut leader = place.leader();
    let mut holder =
        Running::script(&mut leader.run(), &["--ttl", "60"], "job", "echo; sleep 1000");
    holder.line();
    leader.stop();
    let state = place.path("state");
    std::fs::remove_dir_all(&state).unwrap();
    let start = || place.serve(&leader.address).output().unwrap();
    fails(&start(), 78, &["state", "--init", "mounted"]);
    // As a volume that is not mounted looks.
    std::fs::create_dir(&state).unwrap();
    fails(&start(), 78, &["state", "--init", "mounted"]);
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
}

#[test]
fn a_journal_is_made_once() {
    let place = Place::new();
    place.leader().stop();
    let again = place.serve("127.0.0.1:0").arg("--init").output().unwrap();
    fails(&again, 78, &["journal", "without --init"]);
    let leader = place.leader();
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
}

#[test]
fn a_state_directory_in_memory_is_refused_unless_it_is_named() {
    let place = Place::new();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let state = memory.path().join("state");
    let serve = |options: &[&str]| {
        let mut leader = tierlock(&["serve", "--listen", "127.0.0.1:0", "--init"]);
        leader.args(options).arg("--state-dir").arg(&state);
        leader.arg("--secret-file").arg(place.secret());
        leader
    };
    let words = ["tmpfs", "--accept-fs tmpfs", "accept_file_system"];
    fails(&serve(&[]).output().unwrap(), 78, &words);
    fails(&serve(&["--accept-fs", "nfs"]).output().unwrap(), 78, &words);
    assert!(!state.exists());
    let mut leader = Running::start(&mut serve(&["--accept-fs", "nfs", "--accept-fs", "tmpfs"]));
    assert!(leader.line().starts_with("listening on "));
}

#[test]
fn a_copied_state_directory_is_refused_until_it_is_told_above_which_epoch_to_start() {
    // etcd#17780
    let place = Place::new();
    let mut leader = place.leader();
    leader.stop();
    let state = place.path("state");
    copy(&state, &place.path("copy"));
    std::fs::rename(&state, place.path("original")).unwrap();
    std::fs::rename(place.path("copy"), &state).unwrap();
    let refused = place.serve(&leader.address).output().unwrap();
    fails(&refused, 78, &["is a copy", "epoch 1 ", "--epoch-above"]);
    let mut leader = place.leader_at(&leader.address, &["--epoch-above", "1"]);
    leader.stop();
    // From then on it is itself the original of its copies.
    place.leader_at(&leader.address, &[]);
}

/// A copy of production is started as staging, and a client of both has one directory.
#[test]
fn a_status_from_a_copy_stops_no_production() {
    let production = Place::new();
    let mut leader = production.leader();
    leader.stop();
    let staging = Place::new();
    copy(&production.path("state"), &staging.path("state"));
    std::fs::copy(production.secret(), staging.secret()).unwrap();
    staging.is_made.set(true);
    let there = staging.leader_with(&["--epoch-above", "1"]);
    let mut there = staging.leader_at(
        &{
            let mut there = there;
            there.stop();
            there.address
        },
        &[],
    );
    let here = |leader: &Leader, command: &str| {
        let mut command = leader.command(command);
        command.arg("--dir").arg(production.dir());
        command
    };
    succeeds(&here(&there, "run").args(["job", "--", "true"]).output().unwrap());
    there.stop();
    // Production has never seen those epochs. It is younger than the longest promise, which the run
    // at the other leader has outlasted.
    leader = production.leader_at(&leader.address, &[]);
    let mut job =
        Running::script(&mut leader.run(), &["--ttl", "60"], "job", "echo; exec sleep 1000");
    job.line();
    let refused = here(&leader, "status").output().unwrap();
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("does not know the history"), "{text}");
    let alarm = leader.process.error_line();
    assert!(alarm.contains("ALARM") && alarm.contains("takes epoch"), "{alarm}");
    // It goes on serving those that have not seen them either, and its job is not disturbed.
    let shown = succeeds(&leader.command("status").output().unwrap());
    assert!(shown.contains("held"), "{shown}");
    assert!(leader.process.child.try_wait().unwrap().is_none());
    assert!(job.child.try_wait().unwrap().is_none());
}

#[test]
fn a_state_directory_restored_from_yesterday_is_found_out_and_says_how_it_goes_on() {
    // etcd#17780
    let place = Place::new();
    let (mut leader, _holder, above) = restored(&place, 2, 0);
    leader.stop();
    // Started above what was seen, it waits for every client that may hold something.
    leader = place.leader_at(&leader.address, &["--epoch-above", &above]);
    let waits = leader.run().args(["-w", "1", "other", "--", "true"]).output().unwrap();
    fails(&waits, 75, &["other"]);
    // Killed meanwhile, it waits all the same when it is started without.
    leader.stop();
    let leader = place.leader_at(&leader.address, &[]);
    let waits = leader.run().args(["-w", "1", "other", "--", "true"]).output().unwrap();
    fails(&waits, 75, &["other"]);
}

#[test]
fn a_state_directory_from_before_the_last_start_is_detected_though_it_counts_the_same_epoch() {
    restored(&Place::new(), 0, 0);
}

#[test]
fn a_restored_state_directory_is_detected_though_it_has_come_to_the_lost_epoch_or_past_it() {
    // etcd#17780
    for unseen in [1, 3] {
        restored(&Place::new(), 1, unseen);
    }
}

#[test]
fn a_restored_state_directory_is_detected_by_a_table_without_users() {
    // etcd#17780
    let place = Place::new();
    let here = |leader: &Leader| {
        let mut command = leader.run();
        command.arg("--dir").arg(place.dir());
        command
    };
    let mut leader = place.leader();
    leader.stop();
    let (state, yesterday) = (place.path("state"), place.path("yesterday"));
    copy(&state, &yesterday);
    leader = place.leader_at(&leader.address, &[]);
    succeeds(&here(&leader).args(["job", "--", "true"]).output().unwrap());
    succeeds(&tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap());
    leader.stop();

    restore(&yesterday, &state);
    let mut old = place.leader_at(&leader.address, &[]);
    // From another machine, which has not seen what was lost.
    succeeds(&old.run().args(["job", "--", "true"]).output().unwrap());
    let refused = here(&old).args(["-w", "1", "other", "--", "true"]).output().unwrap();
    assert!(!refused.status.success());
    assert!(old.process.error_line().contains("ALARM"));
    // It grants nothing new to any client now, and lives.
    let waits = old.run().args(["-w", "1", "other", "--", "true"]).output().unwrap();
    fails(&waits, 75, &["other"]);
}

/// A state directory is restored: the reign that a client still knows is lost, and so many before
/// it. A leader is started on it so many times where no client comes, then where that one does: the
/// leader has sounded the alarm and serves on. Above which epoch its operator may start it, too.
fn restored(place: &Place, lost: u32, unseen: u32) -> (Leader, Running, String) {
    let mut leader = place.leader();
    leader.stop();
    let (state, yesterday) = (place.path("state"), place.path("yesterday"));
    copy(&state, &yesterday);
    for _ in 0..lost {
        leader = place.leader_at(&leader.address, &[]);
        succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
        leader.stop();
    }
    leader = place.leader_at(&leader.address, &[]);
    let mut holder = Running::script(
        &mut leader.run(),
        &["--ttl", "60"],
        "job",
        "echo $TIERLOCK_TOKEN; exec sleep 1000",
    );
    let token: u64 = holder.line().parse().unwrap();
    leader.stop();

    restore(&yesterday, &state);
    for _ in 0..unseen {
        place.leader().stop();
    }
    let mut old = place.leader_at(&leader.address, &[]);
    let alarm = old.process.error_line();
    let (seen, own) = (token >> 40, u64::from(1 + unseen + 1));
    assert!(alarm.contains("ALARM") && alarm.contains(&format!("epoch {seen} ")), "{alarm}");
    assert!(alarm.contains(&format!("takes epoch {}", (seen + 16).max(own + 1))), "{alarm}");
    let waits = old.run().args(["-w", "1", "other", "--", "true"]).output().unwrap();
    fails(&waits, 75, &["other"]);
    succeeds(&old.command("status").output().unwrap());
    (old, holder, seen.max(own).to_string())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    restore(from, to);
}

/// Overwrites each file where it is, as `cp` does: that makes no other file of it.
fn restore(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_secret_is_one_line_for_its_owner_and_never_overwritten() {
    let place = Place::new();
    let file = place.secret();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1);
    let hex = text.trim_end();
    assert_eq!(hex.len(), 64, "{text:?}");
    assert!(hex.chars().all(|digit| digit.is_ascii_hexdigit()), "{text:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let again = tierlock(&["secret", "new"]).arg(&file).output().unwrap();
    fails(&again, 78, &["exists"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    let other = place.path("other");
    succeeds(&tierlock(&["secret", "new"]).arg(&other).output().unwrap());
    assert_ne!(std::fs::read_to_string(other).unwrap(), text);
}

#[test]
fn settings_come_from_the_environment_too() {
    let place = Place::new();
    let leader = place.leader();
    let mut run = tierlock(&["run", "job", "--", "sh", "-c", "echo $TIERLOCK_SCOPE"]);
    run.env("TIERLOCK_LEADERS", format!(" {} ,", leader.address));
    run.env("TIERLOCK_SECRET_FILE", &leader.secret);
    assert_eq!(succeeds(&run.output().unwrap()), "host\n");
}

/// Repeats a command until it does what is expected: what it waits for has no other sign.
fn at_last(what: &str, mut command: impl FnMut() -> Command, is_so: impl Fn(&Output) -> bool) {
    eventually(what, || {
        let output = command().output().unwrap();
        is_so(&output).then_some(())
    });
}

#[test]
fn a_hangup_has_the_secret_file_read_again_and_ends_nothing() {
    let place = Place::new();
    let mut leader = place.leader();
    let file = leader.secret.clone();
    let [old, new] = ["old", "new"].map(|name| place.path(name));
    succeeds(&tierlock(&["secret", "new"]).arg(&new).output().unwrap());
    std::fs::copy(&file, &old).unwrap();
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let with = |secret: &Path, args: &[&str]| {
        let mut command = tierlock(&["run", "--leader", &leader.address, "--secret-file"]);
        command.arg(secret).args(args);
        command
    };
    let run = |secret: &Path| with(secret, &["job", "--", "true"]);
    let mut holder =
        Running::start(&mut with(&old, &["held", "--", "sh", "-c", "echo on; exec sleep 1000"]));
    assert_eq!(holder.line(), "on");
    fails(&run(&new).output().unwrap(), 77, &["secret"]);

    // The new one is accepted beside the old one.
    std::fs::write(&file, text(&old) + &text(&new)).unwrap();
    leader.process.signal(Signal::HUP);
    let both = place.path("both");
    std::fs::copy(&file, &both).unwrap();
    std::fs::write(&both, text(&new) + &text(&old)).unwrap();
    at_last("both are accepted", || run(&both), |output| output.status.success());
    succeeds(&run(&old).output().unwrap());

    // A file that cannot be used changes nothing, and is told.
    for (damage, word) in [(Some("damaged"), "64 hexadecimal digits"), (None, "no secret file")] {
        match damage {
            Some(damage) => std::fs::write(&file, damage).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        leader.process.signal(Signal::HUP);
        let alarm = leader.process.error_line();
        assert!(alarm.starts_with("tierlock: ALARM") && alarm.contains(word), "{alarm}");
        succeeds(&run(&old).output().unwrap());
    }

    // The old one is accepted no longer: its holder is silent from then on.
    std::fs::copy(&new, &file).unwrap();
    leader.process.signal(Signal::HUP);
    at_last("the new one is presented", || run(&new), |output| output.status.success());
    fails(&run(&old).output().unwrap(), 77, &["secret"]);
    let (status, _) = holder.end();
    assert_eq!(status.code(), Some(76));
    at_last(
        "its lock is free",
        || with(&new, &["-n", "held", "--", "true"]),
        |output| output.status.success(),
    );
    leader.process.signal(Signal::TERM);
    let (status, stderr) = leader.process.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_leader_with_a_damaged_or_missing_secret_at_its_start_is_78() {
    let place = Place::new();
    let serve = |secret: &Path| {
        let mut leader = tierlock(&["serve", "--listen", "127.0.0.1:0"]);
        leader.arg("--state-dir").arg(place.path("state")).arg("--secret-file").arg(secret);
        leader.output().unwrap()
    };
    fails(&serve(&place.path("none")), 78, &["tierlock secret new"]);
    let damaged = place.path("damaged");
    crate::setting::private_file(&damaged, "damaged");
    fails(&serve(&damaged), 78, &["64 hexadecimal digits"]);
    // A pipe that nothing is written to is not waited for.
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg("-m600").arg(&pipe).status().unwrap().success());
    fails(&serve(&pipe), 78, &["pipe", "writer"]);
}

#[test]
fn a_secret_may_come_through_the_pipe_of_a_shell() {
    if !Path::new("/bin/bash").exists() {
        return eprintln!("SKIPPED: no bash, and this is about its `<(…)`");
    }
    let place = Place::new();
    let shell = |script: &str| {
        let mut shell = program("/bin/bash");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_tierlock")]).arg(place.secret());
        shell
    };
    let mut serve = shell(
        r#"exec "$0" serve --init --log brief --accept-fs tmpfs --listen 127.0.0.1:0 --state-dir "$2" \
            --secret-file <(cat "$1")"#,
    );
    let mut leader = Running::start(serve.arg(place.path("state")));
    let address = leader.line().strip_prefix("listening on ").unwrap().to_owned();
    let mut run =
        shell(r#"exec "$0" run --leader "$2" --secret-file <(sleep .1; cat "$1") job -- echo ran"#);
    assert_eq!(succeeds(&run.arg(&address).output().unwrap()), "ran\n");
    // What asks both the manager's leader and each address reads it once, too.
    for what in ["status", "doctor"] {
        let script = format!(r#"exec "$0" {what} --leader "$2" --secret-file <(cat "$1")"#);
        let output = shell(&script).arg(&address).output().unwrap();
        succeeds(&output);
        // Its leaders are not asked then, which is said.
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("leaders are not asked"), what == "status", "{said}");
    }
    // It cannot be read again, which is said, and the leader goes on.
    leader.signal(Signal::HUP);
    let alarm = leader.error_line();
    assert!(alarm.contains("pipe") && alarm.contains("restart"), "{alarm}");
    succeeds(&run.output().unwrap());
}

#[test]
fn a_port_alone_listens_at_every_address_of_the_machine() {
    let place = Place::new();
    let mut leader = Running::start(place.serve(":0").arg("--init"));
    let line = leader.line();
    let port = line.strip_prefix("listening on ").unwrap().rsplit_once(':').unwrap().1;
    for host in ["127.0.0.1", "127.0.0.5"] {
        let address = format!("{host}:{port}");
        let mut run = tierlock(&["run", "--leader", &address, "--secret-file"]);
        let run = run.arg(place.secret()).args(["job", "--", "true"]);
        succeeds(&run.output().unwrap());
    }
}

#[test]
fn a_leader_with_a_state_directory_does_not_step_down_and_says_why() {
    let place = Place::new();
    let leader = place.leader();
    let output = leader.command("step-down").output().unwrap();
    fails(&output, 78, &[&leader.address, "state directory for itself", "journal move"]);
    assert_eq!(
        succeeds(&leader.run().args(["job", "--", "echo", "ran"]).output().unwrap()),
        "ran\n"
    );
    let said = succeeds(&leader.command("doctor").output().unwrap());
    assert!(said.contains("reigns in epoch 1, with its journal for itself"), "{said}");
    fails(&tierlock(&["step-down", "--dir"]).arg(place.dir()).output().unwrap(), 78, &["--leader"]);
}
