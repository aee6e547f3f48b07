//! `tierlock break`.

use super::*;

const HOLD: &str = "echo $TIERLOCK_TOKEN; exec sleep 1000";

fn break_it(leader: &Leader, token: &str) -> Output {
    leader.command("break").args(["job", "--token", token]).output().unwrap()
}

#[test]
fn a_lock_is_taken_away_from_exactly_the_holder_of_a_token() {
    let place = Place::new();
    let leader = place.leader();
    let mut holder = Running::script(&mut leader.run(), &["--label", "first"], "job", HOLD);
    let token = holder.line();
    let mut waiter = Running::script(&mut leader.run(), &["--label", "second"], "job", HOLD);

    // live-mutex#131: break removes the wrong holder.
    let wrong = (token.parse::<u64>().unwrap() + 1).to_string();
    let refused = break_it(&leader, &wrong);
    fails(&refused, 77, &["\"job\"", &token, &wrong, "first", "nothing was broken"]);
    assert!(runs(holder.pid()));

    assert_eq!(succeeds(&break_it(&leader, &token)), "");
    let (status, stderr) = holder.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
    assert!(stderr.contains("broke"), "{stderr}");
    let next = waiter.line();
    assert!(next.parse::<u64>().unwrap() > token.parse().unwrap());
    assert_eq!(shown(leader.command("status"))["predecessor"], "broken");

    // The one that came after it is left alone, however often.
    fails(&break_it(&leader, &token), 77, &[&token, &next, "second"]);
    assert!(runs(waiter.pid()));
}

#[test]
fn a_free_lock_cannot_be_taken_away() {
    let place = Place::new();
    let leader = place.leader();
    fails(&break_it(&leader, "7"), 77, &["\"job\"", "it is not held"]);
}

fn break_here(place: &Place, token: &str, more: &[&str]) -> Output {
    let mut command = tierlock(&["break", "job", "--token", token, "--dir"]);
    command.arg(place.dir()).args(more).output().unwrap()
}

#[test]
fn a_lock_of_a_directory_ends_with_the_process_of_exactly_the_holder_of_a_token() {
    for place in Place::of_each_engine() {
        let mut holder = Running::script(&mut place.run(), &["--label", "first"], "job", HOLD);
        let token = holder.line();
        let mut waiter = Running::script(&mut place.run(), &["--label", "second"], "job", HOLD);
        let wrong = (token.parse::<u64>().unwrap() + 1).to_string();
        let refused = break_here(&place, &wrong, &[]);
        fails(&refused, 77, &["\"job\"", &token, &wrong, "first", "nothing was broken"]);
        assert!(runs(holder.pid()));

        assert_eq!(succeeds(&break_here(&place, &token, &[])), "");
        // Its own way to end: the command got the signal too.
        assert_eq!(holder.end().0.code(), Some(128 + 15));
        let next = waiter.line();
        assert!(next.parse::<u64>().unwrap() > token.parse().unwrap());

        // Also where there is a leader, which knows nothing of it.
        let leader = place.leader();
        let with_leader =
            ["--leader", &leader.address, "--secret-file", leader.secret.to_str().unwrap()];
        fails(&break_here(&place, &token, &with_leader), 77, &[&token, &next, "second"]);
        assert!(runs(waiter.pid()));
        assert_eq!(succeeds(&break_here(&place, &next, &with_leader)), "");
        assert_eq!(waiter.end().0.code(), Some(128 + 15));
        fails(&break_here(&place, &next, &[]), 77, &["\"job\"", "it is not held"]);
    }
}

#[test]
fn a_lock_that_at_least_keeps_is_free_once_the_stay_of_exactly_its_token_is_broken() {
    for place in Place::of_each_engine() {
        let script = ["--at-least", "700h", "job", "--", "sh", "-c", "echo $TIERLOCK_TOKEN"];
        let token = succeeds(&place.ran(&script)).trim().to_owned();
        let wrong = (token.parse::<u64>().unwrap() + 1).to_string();
        fails(&break_here(&place, &wrong, &[]), 77, &["\"job\"", "it is not held"]);
        assert_eq!(shown(place.status())["state"], "reserved");
        let mut waiter = Running::script(&mut place.run(), &[], "job", HOLD);
        assert_eq!(succeeds(&break_here(&place, &token, &[])), "");
        assert!(waiter.line().parse::<u64>().unwrap() > token.parse().unwrap());
        assert!(runs(waiter.pid()));
    }
}

/// A holder of host scope has no lock in the directory: only the leader knows it.
#[test]
fn a_directory_alone_says_that_it_does_not_know_whether_a_name_of_host_scope_is_held() {
    for place in Place::of_each_engine() {
        let leader = place.leader();
        let mut run = leader.run();
        let mut holder = Running::script(run.arg("--dir").arg(place.dir()), &[], "job", HOLD);
        let token = holder.line();
        let lock = shown(place.status());
        assert_eq!(lock["scope"], "host", "{lock}");
        assert_eq!(lock["state"], serde_json::Value::Null, "{lock}");
        assert_eq!(lock["holder"], serde_json::Value::Null, "{lock}");
        let told = succeeds(&place.status().output().unwrap());
        assert!(told.contains("unknown, host") && told.contains("ask with --leader"), "{told}");
        let words = ["\"job\"", "at host scope", "held at the leader or not", "--leader"];
        fails(&break_here(&place, &token, &[]), 78, &words);
        assert!(runs(holder.pid()));
        let mut both = leader.command("status");
        both.arg("--dir").arg(place.dir());
        assert_eq!(shown(both)["state"], "held");
    }
}

/// What has to be killed leaves its proof of life to what it started, which is found and ended too.
#[test]
fn a_holder_that_ignores_sigterm_is_killed_after_its_grace_and_what_it_left_with_it() {
    for place in Place::of_each_engine() {
        let script = "trap '' TERM; sleep 1000 & echo $TIERLOCK_TOKEN; echo $!; wait";
        let mut holder = Running::script(&mut place.run(), &[], "job", script);
        let (token, left) = (holder.line(), holder.pid_line());
        let mut waiter = Running::script(&mut place.run(), &[], "job", HOLD);
        succeeds(&break_here(&place, &token, &["--grace", "50ms"]));
        gone(left);
        gone(holder.pid());
        waiter.line();
        let shown = shown(place.status());
        assert_eq!((&shown["state"], &shown["predecessor"]), (&"held".into(), &"died".into()));
    }
}

/// ceph-qa-suite#583: a daemon that was started under the lock keeps it.
#[test]
fn a_daemon_that_has_the_lock_from_a_command_that_ended_is_ended() {
    for place in Place::of_each_engine() {
        let script = "setsid sleep 1000 > /dev/null 2>&1 & echo $TIERLOCK_TOKEN; echo $!";
        let mut holder = Running::script(&mut place.run(), &[], "job", script);
        let (token, daemon) = (holder.line(), holder.pid_line());
        assert!(holder.exit().success());
        assert_eq!(shown(place.status())["state"], "held");
        // A process that only waits has the file open too, and is none of its holders.
        let mut waiter = Running::script(&mut place.run(), &[], "job", HOLD);
        eventually("it waits for the lock", || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", waiter.pid())).ok()?;
            let mut paths = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            paths.any(|path| path.starts_with(place.dir())).then_some(())
        });
        assert!(runs(daemon));
        succeeds(&break_here(&place, &token, &[]));
        gone(daemon);
        waiter.line();
        assert!(runs(waiter.pid()));
    }
}

#[test]
fn a_stopped_holder_is_killed() {
    for place in Place::of_each_engine() {
        let mut holder = Running::script(&mut place.run(), &[], "job", HOLD);
        let token = holder.line();
        holder.freeze();
        succeeds(&break_here(&place, &token, &["--grace", "0"]));
        gone(holder.pid());
    }
}

#[test]
fn what_runs_under_the_lock_does_not_break_it() {
    for place in Place::of_each_engine() {
        let program = env!("CARGO_BIN_EXE_tierlock");
        let dir = place.dir();
        let script = format!(
            "{program} break job --token $TIERLOCK_TOKEN --dir '{}'; echo $?; exec sleep 1000",
            dir.display()
        );
        let mut holder = Running::script(&mut place.run(), &[], "job", &script);
        assert_eq!(holder.line(), "77");
        assert!(holder.error_line().contains("runs under that lock itself"));
        assert!(runs(holder.pid()));
    }
}

#[test]
fn a_holder_of_another_pid_namespace_or_user_is_left_alone_and_the_line_says_what_to_do() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for place in Place::of_each_engine() {
        // As for a group of users: those that may lock may look.
        let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(place.root.path()).status();
        assert!(opened.unwrap().success());
        let program = env!("CARGO_BIN_EXE_tierlock");
        let hold = |namespace: &[&str]| {
            let mut command = crate::surroundings::program("unshare");
            command.args(namespace).args([program, "run", "--dir"]).arg(place.dir());
            Running::script(&mut command, &[], "job", HOLD)
        };
        let mut holder = hold(&["--pid", "--fork", "--kill-child", "--mount-proc"]);
        let token = holder.line();
        fails(&break_here(&place, &token, &[]), 77, &["another pid namespace", "inside"]);
        assert!(runs(holder.pid()));
        drop(holder);

        let mut holder = Running::script(&mut place.run(), &[], "job", HOLD);
        let token = holder.line();
        let again = Command::new("chmod").args(["-R", "a+rwX"]).arg(place.root.path()).status();
        assert!(again.unwrap().success());
        let mut as_other = crate::surroundings::program("setpriv");
        as_other.args(["--reuid", "65534", "--clear-groups", "--bounding-set", "-all"]);
        as_other.args([program, "break", "job", "--token", &token, "--dir"]).arg(place.dir());
        fails(&as_other.output().unwrap(), 77, &["another user's", "as root"]);
        assert!(runs(holder.pid()));
    }
}

/// It was mistyped, perhaps.
#[test]
fn a_directory_that_holds_no_locks_is_left_as_it_is() {
    let place = Place::new();
    let leader = place.leader();
    let with_leader =
        ["--leader", &leader.address, "--secret-file", leader.secret.to_str().unwrap()];
    for more in [&[][..], &with_leader] {
        fails(&break_here(&place, "7", more), 78, &["locks", "does not exist"]);
        assert!(!place.dir().exists(), "it was made");
    }
    std::fs::create_dir(place.dir()).unwrap();
    fails(
        &break_here(&place, "7", &[]),
        78,
        &["locks", "no process has used it", "nothing was broken"],
    );
    fails(&break_here(&place, "7", &with_leader), 77, &["\"job\"", "it is not held"]);
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0, "something was made in it");
}

#[test]
fn without_a_leader_to_ask_it_is_69() {
    let place = Place::new();
    let mut leader = place.leader();
    leader.process.signal(Signal::TERM);
    leader.process.end();
    let mut command = leader.command("break");
    let output = command.args(["job", "--token", "7"]).output().unwrap();
    fails(&output, 69, &[&leader.address, "tierlock serve"]);
}

#[test]
fn a_break_without_a_token_or_with_none_is_64() {
    for args in [&["job"][..], &["job", "--token", "x"], &["job", "--token", "9223372036854775808"]]
    {
        let output = tierlock(&["break", "--dir", "/tmp"]).args(args).output().unwrap();
        fails(&output, 64, &["--token"]);
    }
}
