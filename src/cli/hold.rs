//! `tierlock hold`: a lock that lasts as long as standard input.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use super::{
    args::{self, OnLost},
    events::{self, CliEvent, Events},
    failure::{Failure, exit, say},
    supervise,
    take::{Guard, LockTaking, called},
};

/// Takes the locks, prints their tokens, and releases them when standard input ends.
pub(super) fn hold(hold: args::HoldArgs) -> Result<u8, Failure> {
    let conflict = hold.terms.conflict_exit_code;
    hold.terms.check()?;
    take_and_keep(hold).map_err(|failure| failure.with_conflict_status(conflict))
}

fn take_and_keep(hold: args::HoldArgs) -> Result<u8, Failure> {
    let args::HoldArgs { terms, names } = hold;
    let taking = LockTaking::begin(names, terms, None)?;
    let (ended, lock) = keep_under(&taking, &mut None)?;
    taking.release(lock);
    ended.map(|is_lost| if is_lost { exit::LOST } else { 0 })
}

/// Takes the lock, tells its tokens, and waits until standard input ends, or it is lost: whether it was
/// lost, and the lock, to be released. `input`: as it was left the last time.
pub(super) fn keep_under(
    taking: &LockTaking,
    input: &mut Option<Input>,
) -> Result<(Result<bool, Failure>, Guard), Failure> {
    let lock = taking.take()?;
    // Before the token is told: its reader may end the input at once.
    let watched = match input {
        Some(_) => Ok(()),
        None => Input::watch(&taking.events).map(|watched| *input = Some(watched)),
    };
    let told = watched.and_then(|()| {
        let mut out = io::stdout().lock();
        lock.tokens().iter().try_for_each(|token| writeln!(out, "token {token}"))?;
        out.flush()
    });
    supervise::tell_of_loss(&lock, &taking.events);
    let told = told
        .map_err(|error| Failure::new(exit::IO, format_args!("cannot tell the token: {error}")));
    let ended = told.and_then(|()| match input {
        Some(input) if input.has_ended() => Ok(false),
        _ => {
            let (ended, is_lost) = keep(taking, &lock, taking.terms.on_lost);
            ended.map(|()| is_lost)
        }
    });
    Ok((ended, lock))
}

/// Waits until standard input ends, or the lock is lost, or a signal comes; and whether it was lost.
fn keep(taking: &LockTaking, lock: &Guard, on_lost: OnLost) -> (Result<(), Failure>, bool) {
    let mut is_lost = false;
    loop {
        match taking.events.next(None) {
            Some(CliEvent::InputEnded) => return (Ok(()), is_lost),
            Some(CliEvent::Signal(signal)) if events::ends(signal) => {
                return (Err(Failure::Signal(signal)), is_lost);
            }
            Some(CliEvent::Lost(reason)) if lock.why_lost().is_some() => {
                is_lost = true;
                let why = format!("{} {}: {reason}", lock.scope(), called(&taking.names));
                if on_lost == OnLost::Kill {
                    say(why);
                    return (Ok(()), is_lost);
                }
                say(format_args!("{why}; this goes on without it"));
            }
            _ => {}
        }
    }
}

/// Standard input, the end of which is told.
pub(super) struct Input(Arc<AtomicBool>);

impl Input {
    /// The thread is not ended: it goes with the process.
    fn watch(events: &Events) -> io::Result<Input> {
        let sender = events.sender();
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = ended.clone();
        let read = move || {
            let mut buffer = [0; 4096];
            let mut input = io::stdin().lock();
            loop {
                match input.read(&mut buffer) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // What cannot be read any more has ended, too.
                    Ok(0) | Err(_) => break,
                }
            }
            has_ended.store(true, Release);
            let _ = sender.send(CliEvent::InputEnded);
        };
        thread::Builder::new().name("tierlock-input".into()).spawn(read)?;
        Ok(Input(ended))
    }

    /// Whether it ended, perhaps while nothing waited for that.
    fn has_ended(&self) -> bool {
        self.0.load(Acquire)
    }
}
