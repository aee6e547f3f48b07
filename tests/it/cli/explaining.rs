//! `why` and `watch`: what keeps a lock from being free, and what has changed.

use std::io::Write;

use super::*;

fn why(mut asked: Command, name: &str) -> String {
    succeeds(&asked.arg(name).output().unwrap())
}

/// A holder that ends with a line on its standard input, and its process id.
fn holder(mut run: Command) -> Running {
    run.args(["--label", "first"]).stdin(Stdio::piped());
    let mut holder =
        Running::script(&mut run, &[], "job", "echo $TIERLOCK_TOKEN; read line; exit 0");
    holder.line();
    holder
}

fn at_the_directory(place: &Place, subcommand: &str) -> Command {
    let mut command = tierlock(&[subcommand, "--dir"]);
    command.arg(place.dir());
    command
}

#[test]
fn why_tells_the_holder_and_what_frees_the_lock() {
    for place in Place::of_each_engine() {
        let at = |subcommand: &str| at_the_directory(&place, subcommand);
        assert_eq!(why(at("why"), "job"), "job is free.\n");
        let mut holder = holder(at("run"));
        let pid = holder.pid().as_raw_nonzero();
        let text = why(at("why"), "job");
        assert!(text.starts_with("job is held by first on "), "{text}");
        for word in [format!("pid {pid}"), "no time by which".into(), "tierlock break job".into()] {
            assert!(text.contains(&word), "{word:?} is not in\n{text}");
        }
        holder.freeze();
        let text = why(at("why"), "job");
        assert!(text.contains(&format!("kill -CONT {pid}")), "{text}");
        holder.signal(Signal::CONT);
        writeln!(holder.stdin(), "end").unwrap();
        holder.exit();
        assert_eq!(why(at("why"), "job"), "job is free.\n");
    }
}

#[test]
fn why_tells_of_what_the_command_has_left_behind() {
    let place = Place::new();
    let mut run = at_the_directory(&place, "run");
    let mut first = Running::script(&mut run, &[], "job", "sleep 1000 & echo $!");
    let pid = first.pid_line();
    first.exit();
    let text = why(at_the_directory(&place, "why"), "job");
    assert!(
        text.contains("keeps it") && text.contains(&pid.as_raw_nonzero().to_string()),
        "{text}"
    );
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    gone(pid);
    let text = why(at_the_directory(&place, "why"), "job");
    assert!(text.starts_with("job is free."), "{text}");
}

#[test]
fn why_tells_by_when_a_lease_is_free_and_which_callers_wait() {
    let place = Place::new();
    let leader = place.leader();
    let _holder = holder(leader.run());
    let _waiters = ["second", "third"].map(|label| {
        let mut run = leader.run();
        run.args(["--label", label]);
        let waiter = Running::script(&mut run, &[], "job", "true");
        let mut waiting = leader.command("why");
        waiting.arg("job");
        eventually("it waits", || {
            let text = succeeds(&waiting.output().unwrap());
            text.contains(&format!(" {label} on ")).then_some(())
        });
        waiter
    });
    let text = why(leader.command("why"), "job");
    assert!(text.contains("at the latest; while it lives, it renews that"), "{text}");
    let (before, waiting) = text.split_once("2 callers wait for it").expect(&text);
    assert!(before.starts_with("job is held by first on "), "{text}");
    let (second, third) = (waiting.find("1. second on "), waiting.find("2. third on "));
    assert!(second.is_some() && second < third, "{text}");
}

#[test]
fn why_without_its_leader_is_69() {
    let place = Place::new();
    let mut leader = place.leader();
    leader.stop();
    fails(&leader.command("why").arg("job").output().unwrap(), 69, &[&leader.address]);
}

#[test]
fn watch_marks_what_has_changed() {
    let place = Place::new();
    succeeds(&place.ran(&["other", "--", "true"]));
    let mut command = at_the_directory(&place, "watch");
    let mut watch = Running::start(command.args(["--every", "20ms"]));
    let mut table = || {
        let lines = std::iter::from_fn(|| Some(watch.line()).filter(|line| !line.is_empty()));
        lines.collect::<Vec<_>>().join("\n")
    };
    let first = table();
    assert!(first.contains("other") && !first.contains('*'), "{first}");
    let mut holder = holder(at_the_directory(&place, "run"));
    // A name may be seen before its holder is.
    let held = std::iter::repeat_with(&mut table).find(|text| text.contains("held, process"));
    let held = held.unwrap();
    assert!(held.contains("* job") && held.contains("  other"), "{held}");
    writeln!(holder.stdin(), "end").unwrap();
    holder.exit();
    let free = std::iter::repeat_with(&mut table).find(|text| !text.contains("held, process"));
    assert!(free.unwrap().contains("* job"));
    // Without a reader it ends, and that is no failure.
    drop(watch);
    let mut unread = at_the_directory(&place, "watch");
    unread.args(["--every", "20ms"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut unread = unread.spawn().unwrap();
    drop(unread.stdout.take());
    let output = unread.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
