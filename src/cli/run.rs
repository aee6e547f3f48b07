//! `tierlock run`: a command, and the lock it runs under.

use std::{
    ffi::{OsStr, OsString},
    io::{self, ErrorKind},
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::process::Pid;

use super::{
    args::{self, OnLost, Terms},
    failure::{Failure, exit, say},
    guardian::Guardian,
    supervise::{self, CommandEnd, CommandOutcome, Supervision},
    sys::{self, CommandBirth, Inherited, Listener},
    take::{Guard, LockTaking, called},
    terminal::Terminal,
};
use crate::{clock, identity, name::Name, scope::Scope};

/// Takes the lock, runs the command, releases it; the exit status is the command's.
pub(super) fn run(mut run: args::Run) -> Result<u8, Failure> {
    let conflict = run.terms.conflict_exit_code;
    // Before the command is asked for: a caller that says -s is told of that first.
    run.terms.check()?;
    let arguments: Vec<_> = std::env::args_os().collect();
    let (names, command) = run.names_and_command(&arguments)?;
    take_and_run(run, names, &command).map_err(|failure| failure.with_conflict_status(conflict))
}

/// Tells the command which lock it runs under, or which locks, a line each: of nested ones, the
/// innermost.
const NAME: &str = "TIERLOCK_NAME";

fn take_and_run(run: args::Run, names: Vec<Name>, command: &[OsString]) -> Result<u8, Failure> {
    let args::Run { terms, grace, close, .. } = run;
    let program = says_it_runs(&terms, command);
    let taking = LockTaking::begin(names, terms, Some(program))?;
    let UnderLock { status, lock, .. } =
        run_under(&taking, &CommandTerms { command, grace, close })?;
    taking.release(lock);
    Ok(status)
}

/// Has this process be shown as the command; answers what that is called.
pub(super) fn says_it_runs(terms: &Terms, command: &[OsString]) -> String {
    let program = short_name(&command[0]);
    identity::says_it_runs(match terms.show_command {
        true => command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
        false => program.clone(),
    });
    program
}

/// A command that is run under a lock.
pub(super) struct CommandTerms<'a> {
    pub(super) command: &'a [OsString],
    pub(super) grace: Option<Duration>,
    pub(super) close: bool,
}

/// What came of it.
pub(super) struct UnderLock {
    pub(super) status: u8,
    /// The lock was lost while the command ran.
    pub(super) is_lost: bool,
    /// To be released.
    pub(super) lock: Guard,
}

/// Takes the lock and runs the command under it.
pub(super) fn run_under(
    taking: &LockTaking,
    &CommandTerms { command, grace, close }: &CommandTerms<'_>,
) -> Result<UnderLock, Failure> {
    let (ttl, on_lost, at_most) = (taking.terms.ttl, taking.terms.on_lost, taking.terms.at_most);
    // Before the lock is taken: it is never held for want of a second process.
    let guardian = (taking.locks.widest_scope() >= Scope::Host).then(Guardian::start).transpose();
    let guardian = guardian.map_err(no_guardian)?;
    let lock = taking.take()?;
    let taken_at = clock::now();

    let outcome = {
        let at_host_scope = lock.scope() >= Scope::Host;
        let terminal = Terminal::controlling();
        let mut guardian = guardian.filter(|_| at_host_scope);
        if let Some(guardian) = &mut guardian {
            guardian.look_after().map_err(no_guardian)?;
            if let Some(left) = lock.remaining()
                && on_lost == OnLost::Kill
            {
                guardian.must_end_by(clock::now() + left);
            }
        }
        let start = Start { command, close, taking, lock: &lock };
        let command = match start.process(guardian.as_mut(), terminal.as_ref()) {
            Ok(command) => command,
            Err(failure) => {
                // No command ran under it.
                taking.hand_on(lock);
                return Err(failure);
            }
        };
        supervise::tell_of_loss(&lock, &taking.events);
        Supervision {
            name: called(&taking.names),
            lock: &lock,
            events: &taking.events,
            command,
            guardian: guardian.map(|guardian| guardian.of(command)),
            terminal,
            grace: longest_grace(grace, at_most, at_host_scope.then_some(ttl)),
            on_lost,
            at_most_ends: at_most.map(|at_most| taken_at + at_most),
            told_to_run_on: Default::default(),
            stage: Default::default(),
            deadline: Default::default(),
        }
        .run()
    };
    let status = match outcome.ended {
        _ if outcome.lost => exit::LOST,
        CommandEnd::Status(code) => code,
        CommandEnd::Signal(signal) => exit::SIGNAL.saturating_add(signal),
    };
    tell_of_leftovers(taking, &lock, close, &outcome);
    Ok(UnderLock { status, is_lost: outcome.lost, lock })
}

/// What the command left running keeps a process-scope lock through its proof of life, or runs
/// without the lock.
fn tell_of_leftovers(taking: &LockTaking, lock: &Guard, close: bool, outcome: &CommandOutcome) {
    if !outcome.leftovers || outcome.lost {
        return;
    }
    let name = called(&taking.names);
    if lock.scope() >= Scope::Host {
        say(format_args!(
            "{name}: released, though processes that the command left run on; end the \
             command with `wait` to cover them"
        ));
    } else if !close {
        taking.tell("processes that the command left keep it");
    }
}

/// `nightly.sh` of `/usr/local/bin/nightly.sh`.
fn short_name(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// What a command is started with.
struct Start<'a> {
    command: &'a [OsString],
    /// It inherits nothing that keeps the lock.
    close: bool,
    taking: &'a LockTaking,
    lock: &'a Guard,
}

impl Start<'_> {
    /// Starts the command in a process group of its own. Called from the main thread: the kernel
    /// ends the command when the thread that started it ends.
    fn process(
        &self,
        mut guardian: Option<&mut Guardian>,
        terminal: Option<&Terminal>,
    ) -> Result<Pid, Failure> {
        loop {
            let error = match self.spawn(guardian.as_deref(), terminal)? {
                Ok(command) => return Ok(command),
                Err(error) => error,
            };
            if let Some(terminal) = terminal {
                // The command's process may have had it already.
                terminal.take_back_from(rustix::process::getpgrp());
            }
            match &mut guardian {
                // It was killed a moment ago.
                Some(guardian) if sys::has_no_guardian(&error) => {
                    guardian.replace().map_err(no_guardian)?;
                }
                _ => {
                    let several = Some(self.taking.names.len()).filter(|&count| count > 1);
                    return Err(cannot_start(&self.command[0], &error, several));
                }
            }
        }
    }

    fn spawn(
        &self,
        guardian: Option<&Guardian>,
        terminal: Option<&Terminal>,
    ) -> Result<io::Result<Pid>, Failure> {
        let cannot = |error| Failure::internal("cannot prepare the command", error);
        let Start { taking, lock, .. } = *self;
        let (program, arguments) = self.command.split_first().expect("there is a command");
        let (held, claims) = taking.inheritance.with(taking.holds(lock), &taking.locks);
        let names: Vec<_> = taking.names.iter().map(|name| name.as_str()).collect();
        let tokens: Vec<_> = lock.tokens().iter().map(|token| token.to_string()).collect();
        let about = [
            (NAME, names.join("\n").into()),
            (held, claims),
            ("TIERLOCK_SCOPE", lock.scope().as_str().into()),
            ("TIERLOCK_TOKEN", tokens.join("\n").into()),
        ];
        let proofs = match self.close {
            true => Vec::new(),
            false => lock.proofs_of_life().map_err(cannot)?,
        };
        let birth = CommandBirth {
            parent: rustix::process::getpid(),
            proofs,
            guardian: guardian.map(Guardian::descriptor).transpose().map_err(cannot)?,
            terminal: terminal.filter(|terminal| terminal.is_ours()).and_then(Terminal::descriptor),
            inherited: Inherited::get(),
            listener: self.listener(&about),
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(about);
        sys::prepare(&mut command, birth);
        Ok(command.spawn().map(|child| Pid::from_child(&child)))
    }

    /// Sockets that were handed over to this process are meant for the command, which is another
    /// process.
    fn listener(&self, about: &[(&str, OsString)]) -> Option<Listener> {
        let named = std::env::var("LISTEN_PID").ok()?;
        if named.parse() != Ok(std::process::id()) {
            return None;
        }
        let is_about = |name: &OsStr| about.iter().any(|(ours, _)| name == *ours);
        let others = std::env::vars_os().filter(|(name, _)| !is_about(name));
        let about = about.iter().map(|(name, value)| (OsString::from(name), value.clone()));
        Listener::new(self.command, others.chain(about))
    }
}

fn no_guardian(error: io::Error) -> Failure {
    Failure::internal("cannot start a guardian", error)
}

/// `several`: so many names are told to it.
fn cannot_start(program: &OsStr, error: &io::Error, several: Option<usize>) -> Failure {
    let status = match error.kind() {
        ErrorKind::NotFound => exit::NOT_FOUND,
        // No process could be made; it has nothing to do with the program.
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => exit::INTERNAL,
        _ => exit::CANNOT_EXECUTE,
    };
    let program = program.to_string_lossy();
    if let Some(count) = several
        && error.kind() == ErrorKind::ArgumentListTooLong
    {
        let what = format!(
            "{program:?} cannot be executed: the names and tokens of {count} locks in its environment \
             ({NAME} and others) are more than the system passes on; take fewer, or have a script take \
             them by `tierlock hold`"
        );
        return Failure::new(status, what);
    }
    let what = match status {
        exit::NOT_FOUND => format!("{program:?} was not found; give a path, or look at PATH"),
        exit::CANNOT_EXECUTE => format!("{program:?} cannot be executed: {error}"),
        _ => format!("cannot start {program:?}: {error}"),
    };
    Failure::new(status, what)
}

/// The grace: what was asked for or a second, and at most half of the shortest time for which the
/// lock is good (a quarter, if nothing was asked for), since a lock in good health has down to
/// two thirds of its time to live left when it is renewed.
fn longest_grace(
    asked: Option<Duration>,
    at_most: Option<Duration>,
    time_to_live: Option<Duration>,
) -> Duration {
    let shortest = time_to_live.into_iter().chain(at_most).min();
    let most = |divisor: u32| shortest.map_or(Duration::MAX, |shortest| shortest / divisor);
    match asked {
        Some(grace) => grace.min(most(2)),
        None => Duration::from_secs(1).min(most(4)),
    }
}
