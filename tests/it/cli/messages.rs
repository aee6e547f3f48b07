//! What is said stays readable: of thousands of names, of arguments of any length, on a narrow terminal, and by
//! a leader that is silent.

use super::*;

/// More names than a reader looks at, and what is said of them.
fn many() -> Vec<String> {
    (0..2_000).map(|number| format!("n{number}")).collect()
}

const SAID: &str = "locks \"n0\", \"n1\", \"n2\" and 1,997 more: ";

#[test]
fn of_many_locks_a_line_names_the_first() {
    let place = Place::new();
    let mut hold = tierlock(&["hold", "--verbose", "--dir"]);
    let held = hold.arg(place.dir()).args(many()).output().unwrap();
    assert_eq!(succeeds(&held).lines().count(), many().len());
    let told = String::from_utf8(held.stderr).unwrap();
    let told: Vec<_> = told.lines().collect();
    let got = format!("tierlock: {SAID}got them at process scope, tokens 1, 1, 1 and 1,997 more");
    // That it waits may be said before.
    assert!(told.iter().all(|line| line.starts_with(&format!("tierlock: {SAID}"))), "{told:?}");
    assert!(told.ends_with(&[&got, &format!("tierlock: {SAID}released")]), "{told:?}");

    // A command that would wait for itself, and a holder that loses them.
    let mut nested = place.run();
    nested.args(many()).args(["--", env!("CARGO_BIN_EXE_tierlock"), "run"]);
    let inner = nested.arg("--dir").arg(place.dir()).args(many()).args(["--", "true"]);
    fails(&inner.output().unwrap(), 75, &[SAID, "take it once"]);
    let mut run = place.run();
    let lost = run.args(["--at-most", "1s"]).args(many()).args(["--", "sleep", "1000"]);
    let lost = lost.output().unwrap();
    assert_eq!(lost.status.code(), Some(76), "{lost:?}");
    assert!(lost.stderr.len() < 1_000, "{}", String::from_utf8_lossy(&lost.stderr));
}

/// Those that it has by now are not what it waits for.
#[test]
fn of_several_locks_the_holder_is_named_that_is_waited_for() {
    let place = Place::new();
    let script = "echo holding; exec sleep 1000";
    let mut holder = Running::script(&mut place.run(), &["--label", "first"], "b", script);
    assert_eq!(holder.line(), "holding");
    let mut hold = tierlock(&["hold", "--verbose", "--dir"]);
    let mut hold = Running::start(hold.arg(place.dir()).args(["a", "b"]));
    let line = hold.error_line();
    assert!(line.starts_with("tierlock: locks \"a\", \"b\": waiting for first on "), "{line}");
}

/// The kernel passes on 128 KiB in one variable.
#[test]
fn more_names_than_a_command_can_be_told_are_said_to_be_the_reason() {
    let place = Place::new();
    let names = (0..1_000).map(|number| format!("{number:0200}"));
    let output = place.run().args(names).args(["--", "true"]).output().unwrap();
    fails(&output, 126, &["1000 locks", "TIERLOCK_NAME", "tierlock hold"]);
    assert!(output.stderr.len() < 1_000, "{output:?}");
}

#[test]
fn an_argument_of_any_length_is_quoted_in_part() {
    let place = Place::new();
    let long = "x".repeat(100_000);
    let mut of_far = tierlock(&["status", "--leader", &format!("{long}:99999"), "--secret-file"]);
    of_far.arg(place.secret());
    let of_run =
        |option: &str| place.run().args([option, &long, "job", "--", "true"]).output().unwrap();
    for (output, status, words) in [
        (of_run("--wait"), 64, ["invalid value 'xxx", "`tierlock run --help` tells more"]),
        (of_run("--scope"), 64, ["invalid value 'xxx", "possible values: process, host"]),
        (of_far.output().unwrap(), 78, ["invalid address \"xxx", "at most 65535"]),
        (of_run("--service"), 78, ["a service is named as", "`://` is missing"]),
        (tierlock(&["why", "--dir", ".", &long]).output().unwrap(), 64, ["'xxx", "at most 255"]),
        (tierlock(&[&long]).output().unwrap(), 64, ["xxx", "`tierlock --help` tells more"]),
        (tierlock(&["secret", &long]).output().unwrap(), 64, ["xxx", "`tierlock secret --help`"]),
    ] {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.len() < 2_000, "{} bytes: {}", told.len(), &told[..500]);
        for word in words {
            assert!(told.contains(word), "{word:?} is not in {told:?}");
        }
        assert_eq!(output.status.code(), Some(status), "{told}");
    }
}

#[test]
fn a_usage_error_names_the_help_of_its_own_command() {
    for (arguments, help) in [
        (&["why"][..], "`tierlock why --help` tells more"),
        (&["watch", "--dir"], "`tierlock watch --help` tells more"),
        (&["secret", "issue", "--xyzzy"], "`tierlock secret issue --help` tells more"),
        (&["journal"], "`tierlock journal --help` tells more"),
        (&["nonsense"], "`tierlock --help` tells more"),
        (&[], "`tierlock --help` tells more"),
    ] {
        let output = tierlock(arguments).output().unwrap();
        fails(&output, 64, &[help]);
        // No tip how the option would be a name.
        assert!(!the_one_line(&output.stderr).contains("tip:"), "{output:?}");
    }
}

#[test]
fn help_that_cannot_be_written_is_74_and_a_closed_pager_is_none() {
    for arguments in [&["--help"][..], &["why", "--help"], &["--version"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        fails(&tierlock(arguments).stdout(full).output().unwrap(), 74, &["output"]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        succeeds(&tierlock(arguments).stdout(writer).output().unwrap());
    }
}

/// A command on a pseudo-terminal of so many columns, which Python brings; what the terminal shows is its output.
fn at_a_terminal(columns: u16, command: &Command) -> Option<Command> {
    const PLAY: &str = "
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, int(sys.argv[1]), 0, 0))
    os.execv(sys.argv[2], sys.argv[2:])
try:
    while text := os.read(fd, 65536):
        os.write(1, text)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    if Command::new("python3").args(["-c", ""]).output().is_err() {
        eprintln!("SKIPPED: no python3 here, so no terminal was played");
        return None;
    }
    let mut python = program("python3");
    python.args(["-c", PLAY, &columns.to_string()]).arg(command.get_program());
    python.args(command.get_args()).stdin(Stdio::null());
    Some(python)
}

#[test]
fn a_narrow_terminal_gets_cells_that_can_be_read() {
    let place = Place::new();
    assert!(place.ran(&["job", "--", "true"]).status.success());
    for columns in [1, 10, 30, 60] {
        let Some(mut status) = at_a_terminal(columns, &place.status()) else { return };
        let text = succeeds(&status.output().unwrap());
        assert!(text.contains("LAST LEFT") && text.contains("free, process"), "{columns}: {text}");
    }
}

#[test]
fn a_leader_that_is_silent_is_told_of_at_a_terminal() {
    let place = Place::new();
    let leader = place.leader();
    for subcommand in ["status", "why", "watch"] {
        let mut command = leader.command(subcommand);
        if subcommand == "why" {
            command.arg("job");
        }
        let Some(mut command) = at_a_terminal(80, &command) else { return };
        leader.process.signal(Signal::STOP);
        let mut waiting = Running::start(&mut command);
        let told = format!("tierlock: waiting for an answer from {}", leader.address);
        assert_eq!(waiting.line().trim_end(), told, "{subcommand}");
        leader.process.signal(Signal::CONT);
        assert!(waiting.line().contains("lock") || subcommand == "why", "{subcommand}");
    }
}
