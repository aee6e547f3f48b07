//! The program: what `tierlock` does on the command line.
//!
//! | file | owns |
//! |---|---|
//! | `args` | what may be said, and the help |
//! | `failure` | one line and an exit status for whatever goes wrong |
//! | `run` `hold` | a command, or a section of a script, and the lock it runs under |
//! | `elect` | the same again and again, by the one that is elected; and observing which one leads |
//! | `take` | taking a lock as it was asked for, telling the holder it waits for, releasing it |
//! | `possession` `held` | whether a lock is held above this process |
//! | `supervise` `events` | the command while it runs: signals, its group, the lock's deadline |
//! | `terminal` | lending the terminal to the command |
//! | `guardian` | the second process, which ends the command when we cannot |
//! | `sys` | what happens between fork and exec; the island of `unsafe` |
//! | `leaders` `step_down` | what leaders say of themselves, and having one step down |
//! | `group` `replace` | what the members of a group say of it, and having a new disk admitted |
//! | `manual` | completions for shells, and manual pages |
//! | `serve` `status` `watch` `why` `break_lock` `doctor` `secret` `bench` | the other subcommands |

mod args;
mod bench;
mod break_lock;
mod doctor;
mod elect;
mod events;
mod failure;
mod group;
mod guardian;
mod held;
mod hold;
mod journal;
mod leaders;
mod manual;
mod possession;
mod replace;
mod run;
mod secret;
mod serve;
mod status;
mod step_down;
mod supervise;
mod sys;
mod take;
mod terminal;
mod watch;
mod why;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use self::{
    args::{Cli, Command, JournalCommand},
    failure::{Failure, exit, say},
};

/// The program.
pub fn main() -> ExitCode {
    sys::Inherited::get();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if guardian::is_asked_for(&arguments) {
        return guardian::main();
    }
    end_on_panic();
    match obey(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(Failure::Said { status, line }) => {
            say(line);
            ExitCode::from(status)
        }
        Err(Failure::Signal(signal)) => end_by(signal),
    }
}

fn obey(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return Err(args::usage_failure(&error, &arguments)),
        Err(help) => {
            return failure::written(help.print()).map(|()| 0);
        }
    };
    match cli.command {
        Command::Run(run) => run::run(*run),
        Command::Hold(hold) => hold::hold(*hold),
        Command::Elect(elect) => elect::elect(*elect),
        Command::Held(what) => held::held(what),
        Command::Serve(serve) => serve::serve(serve),
        Command::Status(status) => status::status(status),
        Command::Watch(what) => watch::watch(what),
        Command::Why(what) => why::why(what),
        Command::Break(what) => break_lock::break_lock(what),
        Command::Doctor(what) => doctor::doctor(what),
        Command::StepDown(what) => step_down::step_down(what),
        Command::Replace(what) => replace::replace(what),
        Command::Bench(bench) => Ok(bench::main(&bench)),
        Command::BenchWorker { spec } => Ok(bench::worker(&spec)),
        Command::Journal(JournalCommand::Move(what)) => journal::move_to(&what),
        Command::Secret(command) => secret::secret(command),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::manual(&directory),
    }
}

/// A panic anywhere ends the program at once, in one line: unwinding would release a lock under a
/// command that is still running. What ends the command then is what does so when we are killed.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        say(format_args!("internal error, please report it: {panic}"));
        std::process::exit(exit::INTERNAL.into());
    }));
}

/// Ends by `signal`, as the waiting parent would see it had we not caught it.
fn end_by(signal: i32) -> ExitCode {
    // The kernel shields the first process of a container from its own signals.
    if std::process::id() != 1 {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    ExitCode::from(exit::SIGNAL.saturating_add(signal as u8))
}
