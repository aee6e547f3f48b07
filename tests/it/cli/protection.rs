//! What protects a command that runs under a lock, and what the lock protects.

use std::{io::Write, os::unix::fs::OpenOptionsExt};

use rustix::process::kill_process;

use super::*;

/// Reads a number, waits a little, writes it back one larger: two at once lose one.
const INCREMENT: &str = "read n < counter; sleep 0.002; echo $((n + 1)) > counter";

fn count_to_twenty(place: &Place, mut run: impl FnMut() -> Command) {
    let counter = place.path("counter");
    std::fs::write(&counter, "0\n").unwrap();
    let copies: Vec<Running> = (0..20)
        .map(|_| {
            let mut run = run();
            run.current_dir(place.root.path());
            Running::script(&mut run, &[], "counter", INCREMENT)
        })
        .collect();
    for mut copy in copies {
        let (status, stderr) = copy.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
    assert_eq!(read(&counter), "20");
}

#[test]
fn twenty_copies_count_to_twenty_at_process_scope() {
    let place = Place::new();
    count_to_twenty(&place, || place.run());
}

#[test]
fn twenty_copies_count_to_twenty_at_host_scope() {
    let place = Place::new();
    let leader = place.leader();
    count_to_twenty(&place, || leader.run());
}

#[test]
fn twenty_copies_count_to_twenty_at_both() {
    let place = Place::new();
    let leader = place.leader();
    count_to_twenty(&place, || {
        let mut run = leader.run();
        run.arg("--dir").arg(place.dir());
        run
    });
}

#[test]
fn the_command_is_told_its_lock() {
    let place = Place::new();
    let script = "echo $TIERLOCK_NAME $TIERLOCK_SCOPE; echo $TIERLOCK_TOKEN";
    let told = |output: &Output| -> (String, u64) {
        let text = succeeds(output);
        let mut lines = text.lines();
        (lines.next().unwrap().to_owned(), lines.next().unwrap().parse().unwrap())
    };
    let (about, first) = told(&place.ran(&["orders/42", "--", "sh", "-c", script]));
    assert_eq!(about, "orders/42 process");
    let (_, second) = told(&place.ran(&["orders/42", "--", "sh", "-c", script]));
    assert!(second > first);

    let leader = place.leader();
    let at_host = leader.run().args(["orders/42", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(told(&at_host).0, "orders/42 host");
}

#[test]
fn the_command_leads_a_process_group_of_its_own() {
    let place = Place::new();
    let script = "echo $$; ps -o pgid= -p $$; read line";
    let mut run = place.run();
    run.stdin(Stdio::piped());
    let mut running = Running::script(&mut run, &[], "job", script);
    let command = running.pid_line();
    assert_eq!(running.pid_line(), command);
    assert_ne!(command, running.pid());
    drop(running.stdin());
    running.exit();
}

#[test]
fn signals_that_reach_tierlock_are_passed_on() {
    let place = Place::new();
    // No process is left in the background: a shell's child that a signal reaches before it has put
    // back the shell's traps hears of it in vain, and would live on with the test's pipes.
    let script =
        "exec 2>&-; for s in HUP INT QUIT TERM USR1 USR2 WINCH; do trap \"echo $s\" $s; done
        trap 'exit 7' ALRM
        echo ready
        while :; do sleep 0.02; done";
    let mut running = Running::script(&mut place.run(), &[], "job", script);
    assert_eq!(running.line(), "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
    ] {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    running.signal(Signal::ALARM);
    assert_eq!(running.exit().code(), Some(7));
}

#[test]
fn a_signal_ends_the_command_and_its_number_is_told() {
    let place = Place::new();
    let mut running = Running::script(&mut place.run(), &[], "job", "echo $$; exec sleep 1000");
    let command = running.pid_line();
    running.signal(Signal::TERM);
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(143), ""));
    assert!(!runs(command));
}

#[test]
fn what_was_ignored_stays_ignored() {
    let place = Place::new();
    // As under nohup.
    let script =
        "trap '' HUP; exec \"$0\" run --dir \"$1\" job -- sh -c 'kill -HUP $$; echo alive'";
    let output = super::script(&place, script).output().unwrap();
    assert_eq!(succeeds(&output), "alive\n");
}

#[test]
fn a_parent_that_ignores_its_children_changes_nothing() {
    let place = Place::new();
    let script = "trap '' CHLD; exec \"$0\" run --dir \"$1\" job -- sh -c 'exit 5'";
    let output = super::script(&place, script).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn a_closed_standard_input_changes_nothing() {
    let place = Place::new();
    let script = "exec \"$0\" run --dir \"$1\" job -- sh -c 'echo ran' <&-";
    let output = super::script(&place, script).output().unwrap();
    assert_eq!(succeeds(&output), "ran\n");
}

#[test]
fn a_signal_ends_the_wait_for_a_lock() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    let leader = place.leader();
    for run in [&mut place.run(), &mut leader.run()] {
        let mut holder = Running::script(run, &[], "job", "echo holding; exec sleep 1000");
        assert_eq!(holder.line(), "holding");
        let mut waiter = Running::start(run.stdin(Stdio::null()));
        // It counts as waiting once it listens to signals.
        eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
        waiter.signal(Signal::TERM);
        let (status, stderr) = waiter.end();
        assert_eq!((status.signal(), stderr.as_str()), (Some(15), ""), "{status}");
    }
}

#[test]
fn a_wait_that_a_signal_ended_leaves_nothing_in_the_directory() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    let leader = place.leader();
    let script = "echo holding; exec sleep 1000";
    let mut holder = Running::script(&mut leader.run(), &[], "job", script);
    assert_eq!(holder.line(), "holding");
    // It has its directory's lock, and waits for its leader's.
    let mut run = leader.run();
    run.arg("--dir").arg(place.dir()).args(["job", "--", "true"]);
    let mut waiter = Running::start(&mut run);
    eventually("it waits at the leader", || {
        let waiters = shown(leader.command("status"))["waiters"].take();
        (waiters[0]["pid"] == waiter.pid().as_raw_nonzero().get()).then_some(())
    });
    eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
    waiter.signal(Signal::TERM);
    let (status, stderr) = waiter.end();
    assert_eq!((status.signal(), stderr.as_str()), (Some(15), ""), "{status}");
    // Whether it is held only the leader knows: in the directory nothing is left of the waiter.
    let left = shown(place.status());
    let (holder, waiters) = (left["holder"].is_null(), left["waiters"].as_array().unwrap());
    assert!(holder && waiters.is_empty() && left["predecessor"] == "clean", "{left}");
}

#[test]
fn a_lock_that_is_granted_while_a_signal_comes_is_given_back() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    let leader = place.leader();
    for round in 0..20 {
        let (mut run, mut next, status): (_, _, &dyn Fn() -> Command) = match round % 2 {
            0 => (place.run(), place.run(), &|| place.status()),
            _ => (leader.run(), leader.run(), &|| leader.command("status")),
        };
        run.stdin(Stdio::piped());
        let mut holder = Running::script(&mut run, &[], "job", "echo holding; read line; exit 0");
        assert_eq!(holder.line(), "holding");
        let mut waiter = Running::start(next.args(["job", "--", "sh", "-c", "echo ran"]));
        eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
        // Stopped, it finds both at once when it is continued: the signal, and a free lock.
        waiter.freeze();
        drop(holder.stdin());
        let (ended, stderr) = holder.end();
        assert_eq!((ended.code(), stderr.as_str()), (Some(0), ""));
        waiter.signal(Signal::TERM);
        waiter.signal(Signal::CONT);
        let (ended, stderr) = waiter.end();
        // If it was so quick that the command ran, the signal was passed on to that.
        let as_expected = ended.signal() == Some(15) || matches!(ended.code(), Some(143 | 0));
        assert!(as_expected && stderr.is_empty(), "{ended} {stderr}");
        let left = shown(status());
        let (state, how) = (&left["state"], &left["predecessor"]);
        assert_eq!((state, how), (&"free".into(), &"clean".into()), "round {round}: {left}");
    }
}

#[test]
fn a_lock_given_back_unused_still_tells_of_a_death() {
    let place = Place::new();
    let mut holder = Running::script(&mut place.run(), &[], "job", "echo holding; exec sleep 1000");
    assert_eq!(holder.line(), "holding");
    let mut waiter = Running::start(place.run().args(["job", "--", "true"]));
    eventually("it catches SIGTERM", || catches_sigterm(waiter.pid()));
    // Else it may have the lock before it is stopped.
    waiter.freeze();
    holder.signal(Signal::KILL);
    holder.exit();
    eventually("the command released the lock too", || {
        (shown(place.status())["state"] == "free").then_some(())
    });
    waiter.signal(Signal::TERM);
    waiter.signal(Signal::CONT);
    if waiter.exit().code().is_none() {
        assert_eq!(shown(place.status())["predecessor"], "died");
    }
}

#[test]
fn at_least_keeps_the_lock_after_the_command() {
    for place in Place::of_each_engine() {
        // The directory remembers it, and no process waits for it.
        succeeds(&place.ran(&["--at-least", "700h", "job", "--", "true"]));
        fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["job", "reserved for", "--at-least"]);
        let left = shown(place.status());
        assert_eq!(left["state"], "reserved", "{left}");
        assert_eq!(left["holder"], serde_json::Value::Null, "{left}");
        let remaining = Duration::from_millis(left["remaining_ms"].as_u64().unwrap());
        assert!(remaining <= Duration::from_secs(700 * 3600), "{left}");
        assert!(remaining > Duration::from_secs(699 * 3600), "{left}");
        let told = succeeds(&place.status().output().unwrap());
        assert!(told.contains("reserved, process") && told.contains(" more"), "{told}");
        let start = Instant::now();
        succeeds(&place.ran(&["--at-least", "400ms", "other", "--", "true"]));
        succeeds(&place.ran(&["other", "--", "true"]));
        assert!(start.elapsed() >= Duration::from_millis(400));
        let start = Instant::now();
        let longer = ["--at-least", "10ms", "third", "--", "sh", "-c", "sleep 0.1; exit 3"];
        assert_eq!(place.ran(&longer).status.code(), Some(3));
        succeeds(&place.ran(&["-n", "third", "--", "true"]));
        assert!(start.elapsed() >= Duration::from_millis(100));
    }
}

/// A cron job that is killed early is not run again before its time, whatever its machine does.
#[test]
fn a_leader_remembers_at_least_however_the_command_or_its_supervisor_ends() {
    let place = Place::new();
    let leader = place.leader();
    let reserved = |name: &str| {
        let left = shown_name(leader.command("status"), name);
        assert_eq!(
            (&left["state"], &left["holder"]),
            (&"reserved".into(), &serde_json::Value::Null),
            "{left}"
        );
        let again = leader.run().args(["-n", name, "--", "true"]).output().unwrap();
        fails(&again, 75, &["reserved for", "--at-least"]);
    };
    let options = ["--at-least", "10h", "--ttl", "1s"];
    // The command ends, and so does run.
    let done = leader.run().args(options).args(["ended", "--", "sh", "-c", "exit 3"]).output();
    assert_eq!(done.unwrap().status.code(), Some(3));
    reserved("ended");
    for (name, signal) in [("terminated", Signal::TERM), ("killed", Signal::KILL)] {
        let mut run = leader.run();
        let mut running = Running::script(&mut run, &options, name, "echo $$; exec sleep 1000");
        let command = running.pid_line();
        running.signal(signal);
        running.exit();
        gone(command);
        eventually("the lease is over", || {
            (shown_name(leader.command("status"), name)["state"] == "reserved").then_some(())
        });
        reserved(name);
    }
    // One that could not be started has not run.
    let none = leader.run().args(options).args(["none", "--", "tierlock-no-such-command"]).output();
    fails(&none.unwrap(), 127, &["not found"]);
    succeeds(&leader.run().args(["-n", "none", "--", "true"]).output().unwrap());
}

#[test]
fn a_reserved_lock_is_free_once_its_at_least_is_over() {
    let place = Place::new();
    let leader = place.leader();
    let start = Instant::now();
    succeeds(&leader.run().args(["--at-least", "2s", "job", "--", "true"]).output().unwrap());
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[test]
fn what_cannot_be_started_does_not_stay() {
    let place = Place::new();
    let options = ["--at-least", "700h", "job", "--", "tierlock-no-such-command"];
    fails(&place.ran(&options), 127, &["not found"]);
    let left = shown(place.status());
    assert_eq!((&left["state"], &left["predecessor"]), (&"free".into(), &"clean".into()));
}

// ── loss ────────────────────────────────────────────────────────────────────────────────────────

/// Says its pid, ignores the order to stop, and never ends. The shell's own reports of children
/// that did stop would only disturb.
const STUBBORN: &str = "exec 2>&-; trap 'echo asked' TERM; echo $$; while :; do sleep 0.02; done";

#[test]
fn a_stubborn_command_is_dead_when_its_time_is_up() {
    let place = Place::new();
    let options = ["--at-most", "600ms", "--grace", "200ms"];
    let mut running = Running::script(&mut place.run(), &options, "job", STUBBORN);
    let command = running.pid_line();
    assert_eq!(running.line(), "asked");
    let (status, stderr) = running.end();
    assert!(the_one_line(stderr.as_bytes()).contains("--at-most"));
    assert_eq!(status.code(), Some(76));
    assert!(!runs(command));
    succeeds(&place.ran(&["-n", "job", "--", "true"]));
}

#[test]
fn a_command_that_stops_in_time_is_asked_first() {
    let place = Place::new();
    let script = "trap 'echo tidy; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let options = ["--at-most", "2s", "--grace", "1s"];
    let mut running = Running::script(&mut place.run(), &options, "job", script);
    assert_eq!(running.line(), "ready");
    assert_eq!(running.line(), "tidy");
    // It was cut short, whatever it says itself.
    assert_eq!(running.exit().code(), Some(76));
}

#[test]
fn what_a_command_started_is_dead_too() {
    let place = Place::new();
    let script = "exec 2>&-; (trap '' TERM; exec sleep 1000) & echo $!; wait";
    let options = ["--at-most", "600ms", "--grace", "200ms"];
    let mut running = Running::script(&mut place.run(), &options, "job", script);
    let grandchild = running.pid_line();
    assert_eq!(running.exit().code(), Some(76));
    gone(grandchild);
}

#[test]
fn with_on_lost_warn_the_command_runs_on() {
    let place = Place::new();
    let options = ["--at-most", "100ms", "--on-lost", "warn"];
    let mut run = place.run();
    run.stdin(Stdio::piped());
    let script = "read go; echo went; exit 0";
    let mut running = Running::script(&mut run, &options, "job", script);
    let line = running.error_line();
    for words in ["tierlock: ", "\"job\"", "--at-most"] {
        assert!(line.contains(words), "{words:?} is not in {line:?}");
    }
    drop(running.stdin());
    assert_eq!(running.line(), "went");
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(76), ""));
}

#[test]
fn a_lost_leader_ends_a_stubborn_command() {
    for how in [Signal::STOP, Signal::KILL] {
        let place = Place::new();
        let leader = place.leader();
        let mut running = Running::script(&mut leader.run(), &["--ttl", "1s"], "job", STUBBORN);
        let command = running.pid_line();
        leader.process.signal(how);
        assert_eq!(running.line(), "asked");
        let (status, stderr) = running.end();
        // It may have been warned before.
        let line = the_last_line(&stderr);
        assert_eq!(status.code(), Some(76), "{line}");
        assert!(!runs(command));
        if how == Signal::STOP {
            // The leader is back, and the lock comes free with no command running under it.
            leader.process.signal(Signal::CONT);
            let next = leader.run().args(["-w", "50", "job", "--", "true"]).output().unwrap();
            succeeds(&next);
        }
    }
}

/// redisson#5698: no holder is told before it is too late.
#[test]
fn a_silent_leader_is_told_of_while_the_command_runs() {
    let place = Place::new();
    let leader = place.leader();
    let mut run = leader.run();
    run.stdin(Stdio::piped());
    let script = "echo holding; read line; exit 3";
    let mut running = Running::script(&mut run, &["--ttl", "20s"], "job", script);
    assert_eq!(running.line(), "holding");
    leader.process.signal(Signal::STOP);
    let line = running.error_line();
    for words in ["tierlock: lock \"job\": ", "1 held lock is lost in"] {
        assert!(line.contains(words), "{words:?} is not in {line:?}");
    }
    leader.process.signal(Signal::CONT);
    drop(running.stdin());
    let (status, stderr) = running.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(3), ""));
}

#[test]
fn a_restarted_leader_gives_no_lock_away_that_is_still_used() {
    let place = Place::new();
    let mut leader = place.leader();
    let mut running = Running::script(&mut leader.run(), &["--ttl", "2s"], "job", STUBBORN);
    let command = running.pid_line();
    leader.stop();
    let again = place.leader_at(&leader.address, &[]);
    assert_eq!(again.address, leader.address);
    fails(&leader.run().args(["-n", "job", "--", "true"]).output().unwrap(), 75, &["job"]);
    assert!(runs(command), "the leader's restart cost it its lock");
    running.signal(Signal::KILL);
    running.exit();
    finds_no_process(&leader, &[command]);
}

// ── tierlock itself is killed ───────────────────────────────────────────────────────────────────

/// Says the pids of a child and of itself, and never ends.
const FAMILY: &str = "sleep 1000 & echo $!; echo $$; wait";

/// The next holder looks as the first thing it does: none of `others` runs.
fn finds_no_process(leader: &Leader, others: &[Pid]) {
    let look = "for pid in \"$@\"; do
            case $(cut -d' ' -f3 /proc/$pid/stat 2>/dev/null) in ''|Z|X) ;; *) exit 1 ;; esac
        done";
    let mut next = leader.run();
    next.args(["-w", "50", "job", "--", "sh", "-c", look, "sh"]);
    let next = next.args(others.iter().map(Pid::to_string)).output().unwrap();
    assert_eq!(next.status.code(), Some(0), "{next:?}");
}

#[test]
fn at_process_scope_a_grandchild_keeps_the_lock_of_a_killed_tierlock() {
    let place = Place::new();
    let mut running = Running::script(&mut place.run(), &[], "job", FAMILY);
    let (grandchild, command) = (running.pid_line(), running.pid_line());
    running.signal(Signal::KILL);
    running.exit();
    gone(command);
    assert!(runs(grandchild));
    fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["job"]);
    kill_process(grandchild, Signal::KILL).unwrap();
    succeeds(&place.ran(&["-w", "50", "job", "--", "true"]));
}

#[test]
fn at_host_scope_nothing_of_a_killed_tierlocks_command_lives_on() {
    let place = Place::new();
    let leader = place.leader();
    let mut running = Running::script(&mut leader.run(), &["--ttl", "1s"], "job", FAMILY);
    let (grandchild, command) = (running.pid_line(), running.pid_line());
    running.signal(Signal::KILL);
    finds_no_process(&leader, &[grandchild, command]);
}

#[test]
fn a_stopped_tierlock_loses_its_command_before_its_lock() {
    let place = Place::new();
    let leader = place.leader();
    let mut running = Running::script(&mut leader.run(), &["--ttl", "3s"], "job", FAMILY);
    let (grandchild, command) = (running.pid_line(), running.pid_line());
    running.signal(Signal::STOP);
    finds_no_process(&leader, &[grandchild, command]);
    running.signal(Signal::CONT);
    let (status, stderr) = running.end();
    the_last_line(&stderr);
    assert_eq!(status.code(), Some(76));
}

fn guardian_of(running: &Running) -> Option<Pid> {
    let me = running.pid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let line = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
        line.starts_with(b"lock-guard").then(|| Pid::from_raw(child.parse().unwrap()).unwrap())
    })
}

#[test]
fn a_guardian_killed_while_the_command_starts_is_replaced() {
    let place = Place::new();
    let leader = place.leader();
    for _ in 0..10 {
        let mut run = leader.run();
        run.stdin(Stdio::piped());
        let mut holder = Running::script(&mut run, &[], "job", "echo holding; read line");
        assert_eq!(holder.line(), "holding");
        let mut next = Running::script(&mut leader.run(), &[], "job", "echo ran");
        let guardian = eventually("there is a guardian", || Handle::of(guardian_of(&next)?).ok());
        drop(holder.stdin());
        // It is needed from about now on; at which of its next steps it dies, chance decides.
        holder.exit();
        let _ = guardian.signal(Signal::KILL);
        assert_eq!(next.line(), "ran");
        let (status, stderr) = next.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_guardian_that_cannot_be_told_anything_is_replaced() {
    let place = Place::new();
    let leader = place.leader();
    let mut running = Running::script(&mut leader.run(), &["--ttl", "3s"], "job", FAMILY);
    let (grandchild, command) = (running.pid_line(), running.pid_line());
    let stopped = eventually("there is a guardian", || guardian_of(&running));
    kill_process(stopped, Signal::STOP).unwrap();
    // As after many minutes of renewals that it did not read.
    let pipe = format!("/proc/{}/fd/0", stopped.as_raw_nonzero());
    let flags = libc::O_NONBLOCK;
    let mut pipe = std::fs::File::options().write(true).custom_flags(flags).open(pipe).unwrap();
    // One by one: a longer message finds no room where a shorter one does.
    while pipe.write(&[0]).is_ok() {}
    drop(pipe);
    let next = || guardian_of(&running).filter(|&pid| pid != stopped);
    eventually("there is another guardian", next);
    gone(stopped);
    // All that the stopped one knew of was an old deadline; the command is past it.
    assert!(runs(command) && runs(grandchild));
    running.signal(Signal::KILL);
    gone(grandchild);
}

#[test]
fn the_commands_number_stays_its_own_while_its_group_may_be_signalled() {
    let place = Place::new();
    let leader = place.leader();
    // It ends when it is told to, and leaves one that does not.
    let script = "exec 2>&-; (trap '' TERM; exec sleep 1000) & echo $!; echo $$
        trap 'exit 0' TERM; while :; do sleep 0.02; done";
    let options = ["--at-most", "10s", "--grace", "5s"];
    let mut running = Running::script(&mut leader.run(), &options, "job", script);
    let (grandchild, command) = (running.pid_line(), running.pid_line());
    gone(command);
    let guardian = guardian_of(&running).expect("the grandchild is guarded");
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", command.as_raw_nonzero()));
    assert!(
        stat().is_ok_and(|stat| stat.contains(") Z ")),
        "it is not reaped while {guardian:?} is"
    );
    assert!(runs(grandchild));
    running.signal(Signal::KILL);
    gone(grandchild);
}

#[test]
fn a_killed_guardian_is_replaced() {
    let place = Place::new();
    let leader = place.leader();
    let mut running = Running::script(&mut leader.run(), &["--ttl", "1s"], "job", FAMILY);
    let (grandchild, _command) = (running.pid_line(), running.pid_line());
    let guardian = || guardian_of(&running);
    let first = eventually("there is a guardian", guardian);
    kill_process(first, Signal::KILL).unwrap();
    eventually("there is another guardian", || guardian().filter(|&pid| pid != first));
    running.signal(Signal::KILL);
    gone(grandchild);
}

#[test]
fn what_a_command_leaves_running_keeps_the_lock_at_process_scope() {
    let place = Place::new();
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!; exit 4";
    let output = place.ran(&["job", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(4));
    let left = String::from_utf8(output.stdout).unwrap();
    let left = Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    fails(&place.ran(&["-n", "job", "--", "true"]), 75, &["job"]);
    kill_process(left, Signal::KILL).unwrap();
    succeeds(&place.ran(&["-w", "50", "job", "--", "true"]));
}

#[test]
fn what_a_command_leaves_running_at_host_scope_is_told() {
    let place = Place::new();
    let leader = place.leader();
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!; exit 4";
    let output = leader.run().args(["job", "--", "sh", "-c", script]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(the_one_line(&output.stderr).contains("wait"));
    let left = String::from_utf8(output.stdout).unwrap();
    kill_process(Pid::from_raw(left.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    succeeds(&leader.run().args(["-n", "job", "--", "true"]).output().unwrap());
}
