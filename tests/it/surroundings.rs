//! What the tests' own processes inherit, made the same everywhere: in a shell that ignores SIGINT
//! (`nohup … &`), and in an environment with settings for tierlock.

use std::{
    process::Command,
    sync::{Arc, Once},
};

use rustix::process::{Pid, Signal};

/// A copy of the program under test, which may be run at once: another process makes it. A child of
/// another test, until it runs its program, would have this one's file open to write, and a file that
/// is open to write cannot be run.
pub(crate) fn copy_program(to: &std::path::Path) {
    let status = Command::new("cp").arg(env!("CARGO_BIN_EXE_tierlock")).arg(to).status().unwrap();
    assert!(status.success());
}

/// `program`, with no settings of ours in its environment, and none of the signals ignored that this
/// process was started to ignore.
pub(crate) fn program(program: impl AsRef<std::ffi::OsStr>) -> Command {
    hand_down_no_ignored_signal();
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIERLOCK_") || name == "LISTEN_PID" {
            command.env_remove(name);
        }
    }
    // What ps and the shell say is compared.
    command.env("LC_ALL", "C").env_remove("SHELL").env_remove("ENV").env_remove("BASH_ENV");
    command
}

/// Has this process handle what it was started to ignore, by doing nothing, so that what it starts
/// begins with the default. `tierlock run` ignores what it was started to ignore: below `nohup`, or
/// in the background of a shell that is no terminal's, it would rightly pass on none of these.
fn hand_down_no_ignored_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ignored = signals_of(Pid::from_raw(std::process::id() as i32).unwrap(), "SigIgn:");
        let ignored = ignored.expect("/proc tells");
        for signal in [
            Signal::HUP,
            Signal::INT,
            Signal::QUIT,
            Signal::TERM,
            Signal::USR1,
            Signal::USR2,
            Signal::ALARM,
            Signal::CHILD,
            Signal::WINCH,
            Signal::TSTP,
            Signal::TTIN,
            Signal::TTOU,
        ] {
            if ignored >> (signal.as_raw() - 1) & 1 == 1 {
                signal_hook::flag::register(signal.as_raw(), Arc::default()).unwrap();
            }
        }
    });
}

/// The set of signals that /proc tells of a process under this title; bit 0 is signal 1.
pub(crate) fn signals_of(pid: Pid, title: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    signals_in(&status, title)
}

/// The same out of what /proc tells.
pub(crate) fn signals_in(status: &str, title: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix(title))?;
    Some(u64::from_str_radix(set.trim(), 16).unwrap())
}

/// As in the background of a script, under nohup, and with settings that lead nowhere.
#[test]
fn the_tests_set_the_signals_and_the_environment_that_they_rely_on() {
    let script = "trap '' HUP INT QUIT TERM USR1 USR2 ALRM CHLD; exec \"$0\" --exact \"$@\"";
    let tests = [
        "cli::protection::signals_that_reach_tierlock_are_passed_on",
        "cli::protection::a_signal_ends_the_command_and_its_number_is_told",
        "cli::protection::a_signal_ends_the_wait_for_a_lock",
        "cli::protection::what_was_ignored_stays_ignored",
        "cli::protection::a_parent_that_ignores_its_children_changes_nothing",
        "cli::statuses::a_signal_that_ends_the_command_is_128_and_its_number",
        "cli::statuses::settings_that_do_not_fit_are_78",
        "cli::terminal::job_control_at_process_scope",
        "cli::terminal::job_control_at_host_scope",
        "cli::serving::settings_come_from_the_environment_too",
        "bench::interrupted_bench_leaves_nothing_behind",
        "kills::a_killed_holder_is_succeeded::process",
        "kills::a_killed_holder_is_succeeded::host",
    ];
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(std::env::current_exe().unwrap()).args(tests);
    for (name, value) in [
        ("TIERLOCK_DIR", "/nonexistent/locks"),
        ("TIERLOCK_LEADERS", "192.0.2.1"),
        ("TIERLOCK_SECRET_FILE", "/nonexistent/secret"),
        ("TIERLOCK_LABEL", "stray"),
        ("TIERLOCK_NAME", "job"),
        ("TIERLOCK_HELD", "1 2 dir:3:4 5 job"),
        ("SHELL", "/bin/false"),
    ] {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains(&format!("{} passed", tests.len())), "{told}");
}
