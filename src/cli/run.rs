//! `tierlock run`: a command, and the lock it runs under.

use std::{
    ffi::{OsStr, OsString},
    future::Future,
    io::{self, ErrorKind},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    task::Context,
    thread,
    time::Duration,
};

use rustix::process::Pid;

use super::{
    args::{self, OnLost},
    events::{self, Event, Events},
    failure::{Failure, exit, say},
    guardian::Guardian,
    supervise::{self, Ended, Outcome, Supervision},
    sys::{self, Birth},
    terminal::Terminal,
};
use crate::{
    climb::Keep,
    clock,
    error::{LockError, LockErrorKind},
    guard::MutexGuard,
    manager::LockManager,
    name::Name,
    scope::Scope,
    time::Time,
};

type Guard = MutexGuard<'static, ()>;

/// Takes the lock, runs the command, lets go; the exit status is the command's.
pub(super) fn run(run: args::Run) -> Result<u8, Failure> {
    let conflict = run.conflict_exit_code;
    refuse_to_wait_for_ourselves(&run.name)
        .and_then(|()| take_and_run(run))
        .map_err(|failure| failure.with_conflict_status(conflict))
}

/// Tells the command which lock it runs under: of nested ones, the innermost.
const NAME: &str = "TIERLOCK_NAME";

/// Tells every `tierlock run` below which locks it runs under, the outermost first. Not for the
/// command itself. A line each: names have no control characters.
const NAMES: &str = "TIERLOCK_NAMES";

/// The names of the locks that we already run under are in our environment. Where they are locked
/// is not: a name counts as the same in another directory.
fn refuse_to_wait_for_ourselves(name: &Name) -> Result<(), Failure> {
    let variable = if std::env::var_os(NAME).is_some_and(|outer| outer == name.as_str()) {
        NAME
    } else if outer_names().split(|&byte| byte == b'\n').any(|outer| outer == name.as_bytes()) {
        NAMES
    } else {
        return Ok(());
    };
    let line = format!(
        "lock {name:?}: this command runs under it already ({variable}) and would wait for \
         itself; take it once, in the outermost command"
    );
    Err(Failure::new(exit::CONFLICT, line))
}

fn outer_names() -> Vec<u8> {
    std::env::var_os(NAMES).map(OsString::into_vec).unwrap_or_default()
}

/// The names for those below.
fn names_with(name: &Name) -> OsString {
    let mut names = outer_names();
    if !names.is_empty() {
        names.push(b'\n');
    }
    names.extend_from_slice(name.as_bytes());
    OsString::from_vec(names)
}

fn take_and_run(mut run: args::Run) -> Result<u8, Failure> {
    let common = std::mem::take(&mut run.common).with_environment()?;
    check_terms(&run)?;
    // Before the lock is taken: it is never held for want of a second process.
    let guardian = (!common.leaders().is_empty()).then(Guardian::start).transpose();
    let guardian = guardian.map_err(no_guardian)?;
    let events = Events::listen_for_a_command()
        .map_err(|error| Failure::internal("cannot listen to signals", error))?;
    let common = common.or_label(|| short_name(&run.command[0]));
    let leaders = common.leaders().to_vec();
    let directory = common.directory().map(Path::to_owned);
    let name = run.name.clone();
    // What locks in the directory cannot promise is doctor's to say, and not every run's.
    let is_open = Arc::new(AtomicBool::new(false));
    let warns = is_open.clone();
    let locks = common
        .into_builder()
        .time_to_live(run.ttl)
        .on_warning(move |text| {
            if warns.load(Acquire) {
                warn(&name, text);
            }
        })
        .open()?;
    is_open.store(true, Release);
    let lock = take(&run, &locks, directory, &events);
    let lock = lock.map_err(|failure| failure.naming_leaders(&leaders))?;
    let taken_at = clock::now();
    let is_remembered = leader_remembers(&run, &locks) && MutexGuard::scope(&lock) >= Scope::Host;

    let outcome = {
        let at_host_scope = MutexGuard::scope(&lock) >= Scope::Host;
        let terminal = Terminal::controlling();
        let mut guardian = guardian.filter(|_| at_host_scope);
        let started = watch_over(&run, &lock, guardian.as_mut())
            .and_then(|()| start(&run, &lock, guardian.as_mut(), terminal.as_ref()));
        let command = match started {
            Ok(command) => command,
            Err(failure) => {
                // No command ran: nothing keeps the name taken.
                wait_for_answer(MutexGuard::give_back(lock), &events);
                locks.close();
                return Err(failure);
            }
        };
        supervise::tell_of_loss(&lock, &events);
        Supervision {
            name: &run.name,
            lock: &lock,
            events: &events,
            command,
            guardian: guardian.map(|guardian| guardian.of(command)),
            terminal,
            grace: grace(&run, at_host_scope),
            on_lost: run.on_lost,
            at_most_ends: run.at_most.map(|at_most| taken_at + at_most),
            told_to_run_on: Default::default(),
            stage: Default::default(),
            deadline: Default::default(),
        }
        .run()
    };
    if let Some(at_least) = run.at_least
        && !is_remembered
    {
        stay(taken_at + at_least, &events);
    }
    let status = match outcome.ended {
        _ if outcome.lost => exit::LOST,
        Ended::Status(code) => code,
        Ended::Signal(signal) => exit::SIGNAL.saturating_add(signal),
    };
    let_go(&run.name, lock, locks, &events, &outcome);
    Ok(status)
}

/// Says what endangers the lock. On a thread of its own: a standard error that nobody reads must
/// not keep those waiting who look after the lock.
fn warn(name: &Name, text: &str) {
    let line = format!("lock {name:?}: {text}");
    let _ = thread::Builder::new().name("tierlock-warning".into()).spawn(move || say(line));
}

/// `nightly.sh` of `/usr/local/bin/nightly.sh`.
fn short_name(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// Waits for the lock as long as was asked for. A signal that would end us ends the wait.
///
/// A thread of its own waits, in the blocking form, which at process scope sleeps in the kernel's
/// queue and polls nothing; the main thread stays free for signals, and starts the command.
fn take(
    run: &args::Run,
    locks: &LockManager,
    directory: Option<PathBuf>,
    events: &Events,
) -> Result<Guard, Failure> {
    let mut mutex = locks.mutex(&*run.name, ()).keep(Keep::Never);
    if let Some(scope) = run.scope {
        mutex = mutex.scope(scope.into());
    }
    if let Some(at_most) = run.at_most {
        mutex = mutex.at_most(at_most);
    }
    // Below host scope we stay ourselves, with the guard. What a mutex keeps there beyond its guard
    // dies with the process, and that is how the lock would be left: as by a holder that died.
    if let Some(at_least) = run.at_least
        && leader_remembers(run, locks)
    {
        mutex = mutex.at_least(at_least);
    }
    let (no_wait, wait) = (run.no_wait, run.wait);
    let (sender, taken) = mpsc::channel();
    let nudge = events.sender();
    let waiting = thread::Builder::new().name("tierlock-waiting".into()).spawn(move || {
        let result = match wait {
            _ if no_wait => mutex.try_lock(),
            Some(wait) => mutex.try_lock_for(wait),
            None => mutex.lock(),
        };
        // If nobody listens any more, the guard is dropped here.
        let _ = sender.send(result);
        let _ = nudge.send(Event::Woken);
    });
    waiting.map_err(|error| Failure::internal("cannot start a thread", error))?;
    loop {
        match events.next(None) {
            Some(Event::Signal(signal)) if events::ends(signal) => {
                give_up(&run.name, locks, directory, &taken, events);
                return Err(Failure::Signal(signal));
            }
            Some(Event::Woken) => {
                if let Ok(result) = taken.try_recv() {
                    return result.map_err(|error| explain(error, run, locks));
                }
            }
            _ => {}
        }
    }
}

/// Whether the leader is told of `--at-least`.
fn leader_remembers(run: &args::Run, locks: &LockManager) -> bool {
    run.scope.map_or(locks.widest_scope(), Scope::from) >= Scope::Host
}

/// Ends the wait for a lock. If it is being granted at this very moment, it is given back, so that
/// nobody hears of a holder that died, when no command ran.
fn give_up(
    name: &Name,
    locks: &LockManager,
    directory: Option<PathBuf>,
    taken: &Receiver<Result<Guard, LockError>>,
    events: &Events,
) {
    // The wait for a leader ends with that, and the waiting thread goes back down the tiers: it
    // has its directory's lock already, and our end would leave that behind.
    locks.close();
    let look = directory.and_then(|dir| LockManager::builder().directory(dir).open().ok());
    let until = clock::now() + ANSWER;
    loop {
        match taken.recv_timeout(SHORT_TICK) {
            Ok(Ok(lock)) => {
                wait_for_answer(MutexGuard::give_back(lock), events);
                return locks.close();
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // While somebody else has it, the thread sleeps in the kernel's queue, which nothing ends
        // but our end, and has nothing to give back. Else it will have the lock in a moment.
        let holder = look.as_ref().and_then(|look| super::status::holder_of(look, name));
        let is_somebody_else = holder.is_some_and(|holder| holder.pid != Some(std::process::id()));
        if is_somebody_else || clock::now() >= until {
            return;
        }
    }
}

/// How often the waiting thread is looked at that is about to end.
const SHORT_TICK: Duration = Duration::from_millis(5);

/// The terms that the mutex is not told of: see `take`.
fn check_terms(run: &args::Run) -> Result<(), Failure> {
    match (run.at_most, run.at_least) {
        (Some(at_most), Some(at_least)) if at_least > at_most => {
            let line = format!("--at-least {at_least:?} is longer than --at-most {at_most:?}");
            Err(Failure::new(exit::CONFIG, line))
        }
        _ => Ok(()),
    }
}

/// The error with whoever is in the way, and what to do next.
fn explain(error: LockError, run: &args::Run, locks: &LockManager) -> Failure {
    let advice = match error.kind() {
        LockErrorKind::WouldBlock => "leave out --no-wait to wait for it",
        LockErrorKind::TimedOut => "give --wait more time",
        _ => return error.with_name(&run.name).into(),
    };
    if let Some(left) = super::status::reserved_for(locks, &run.name) {
        let line = format!(
            "lock {:?} is not held, and reserved for {left} more by the --at-least of its last \
             holder",
            run.name
        );
        return Failure::new(exit::CONFLICT, line).with_advice(advice);
    }
    let unknown = error.holder().is_none();
    let holder = unknown.then(|| super::status::holder_of(locks, &run.name)).flatten();
    let scope = run.scope.map_or(locks.widest_scope(), Scope::from);
    let error = error.with_name(&run.name).with_scope(scope).with_holder(holder);
    Failure::from(error).with_advice(advice)
}

/// Has the guardian look after the command that is about to start.
fn watch_over(
    run: &args::Run,
    lock: &Guard,
    guardian: Option<&mut Guardian>,
) -> Result<(), Failure> {
    let Some(guardian) = guardian else { return Ok(()) };
    guardian.look_after().map_err(no_guardian)?;
    if let Some(left) = MutexGuard::remaining(lock)
        && run.on_lost == OnLost::Kill
    {
        guardian.must_end_by(clock::now() + left);
    }
    Ok(())
}

/// Starts the command in a process group of its own. Called from the main thread: the kernel ends
/// the command when the thread that started it ends.
fn start(
    run: &args::Run,
    lock: &Guard,
    mut guardian: Option<&mut Guardian>,
    terminal: Option<&Terminal>,
) -> Result<Pid, Failure> {
    loop {
        let error = match spawn(run, lock, guardian.as_deref(), terminal)? {
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
            _ => return Err(cannot_start(&run.command[0], &error)),
        }
    }
}

fn no_guardian(error: io::Error) -> Failure {
    Failure::internal("cannot start a guardian", error)
}

fn spawn(
    run: &args::Run,
    lock: &Guard,
    guardian: Option<&Guardian>,
    terminal: Option<&Terminal>,
) -> Result<io::Result<Pid>, Failure> {
    let cannot = |error| Failure::internal("cannot prepare the command", error);
    let (program, arguments) = run.command.split_first().expect("clap asks for a command");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(NAME, &*run.name)
        .env(NAMES, names_with(&run.name))
        .env("TIERLOCK_SCOPE", MutexGuard::scope(lock).as_str())
        .env("TIERLOCK_TOKEN", MutexGuard::token(lock).to_string());
    let birth = Birth {
        parent: rustix::process::getpid(),
        proof: MutexGuard::proof_of_life(lock).transpose().map_err(cannot)?,
        guardian: guardian.map(Guardian::descriptor).transpose().map_err(cannot)?,
        terminal: terminal.filter(|terminal| terminal.is_ours()).and_then(Terminal::descriptor),
    };
    sys::prepare(&mut command, birth);
    Ok(command.spawn().map(|child| Pid::from_child(&child)))
}

fn cannot_start(program: &OsStr, error: &std::io::Error) -> Failure {
    let status = match error.kind() {
        ErrorKind::NotFound => exit::NOT_FOUND,
        // No process could be made; it has nothing to do with the program.
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => exit::INTERNAL,
        _ => exit::CANNOT_EXECUTE,
    };
    let program = program.to_string_lossy();
    let what = match status {
        exit::NOT_FOUND => format!("{program:?} was not found; give a path, or look at PATH"),
        exit::CANNOT_EXECUTE => format!("{program:?} cannot be executed: {error}"),
        _ => format!("no process for {program:?}: {error}"),
    };
    Failure::new(status, what)
}

/// The grace: what was asked for or a second, and at most half of the shortest time for which the
/// lock is good (a quarter, if nothing was asked for), since a lock in good health has down to
/// two thirds of its time to live left when it is renewed.
fn grace(run: &args::Run, at_host_scope: bool) -> Duration {
    let time_to_live = Some(run.ttl).filter(|_| at_host_scope);
    let shortest = time_to_live.into_iter().chain(run.at_most).min();
    let most = |divisor: u32| shortest.map_or(Duration::MAX, |shortest| shortest / divisor);
    match run.grace {
        Some(grace) => grace.min(most(2)),
        None => Duration::from_secs(1).min(most(4)),
    }
}

/// Waits until then; a signal that would end us cuts it short.
fn stay(until: Time, events: &Events) {
    loop {
        let left = until.since(clock::now());
        if left.is_zero() {
            return;
        }
        match events.next(Some(left.min(Duration::from_millis(100)))) {
            Some(Event::Signal(signal)) if events::ends(signal) => return,
            _ => {}
        }
    }
}

/// Lets go. What the command left running keeps a process-scope lock through its proof of life.
fn let_go(name: &Name, lock: Guard, locks: LockManager, events: &Events, outcome: &Outcome) {
    if outcome.leftovers && !outcome.lost && MutexGuard::scope(&lock) >= Scope::Host {
        say(format_args!(
            "lock {name:?} is let go, though processes that the command left run on; end the \
             command with `wait` to cover them"
        ));
    }
    wait_for_answer(MutexGuard::unlock_async(lock), events);
    locks.close();
}

/// How long the leader's answer to the release is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// Waits until the lock is free for whoever runs after us. A leader that does not answer frees it
/// in its time; a signal that would end us has us not wait for that.
fn wait_for_answer(answer: impl Future, events: &Events) {
    let until = clock::now() + ANSWER;
    let mut answer = pin!(answer);
    let waker = events.waker();
    while answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        match events.next(Some(until.since(clock::now()))) {
            None => return,
            Some(Event::Signal(signal)) if events::ends(signal) => return,
            _ => {}
        }
    }
}
