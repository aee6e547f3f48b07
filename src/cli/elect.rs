//! `tierlock elect`: a command that one candidate of many runs at a time, and which one that is.

use std::io::{self, Write};

use super::{
    args,
    failure::{Failure, exit, say},
    hold,
    run::{self, CommandTerms, UnderLock},
    take::{LockTaking, called},
};
use crate::{elected::ElectedLeader, printable::Printable, scope::Scope};

/// Stands until the command, or standard input, has ended; or observes.
pub(super) fn elect(elect: args::Elect) -> Result<u8, Failure> {
    elect.check()?;
    if elect.observe {
        return observe(elect);
    }
    let conflict = elect.terms.conflict_exit_code;
    stand(elect).map_err(|failure| failure.with_conflict_status(conflict))
}

fn stand(elect: args::Elect) -> Result<u8, Failure> {
    let args::Elect { terms, value, grace, close, name, command, .. } = elect;
    let program = (!command.is_empty()).then(|| run::says_it_runs(&terms, &command));
    let mut taking = LockTaking::begin(vec![name], terms, program)?;
    taking.candidate = Some(value);
    let mut input = None;
    loop {
        let (status, is_lost, lock) = if command.is_empty() {
            let (ended, lock) = hold::keep_under(&taking, &mut input)?;
            match ended {
                Ok(is_lost) => (0, is_lost, lock),
                Err(failure) => {
                    taking.release(lock);
                    return Err(failure);
                }
            }
        } else {
            let under = CommandTerms { command: &command, grace, close };
            let UnderLock { status, is_lost, lock } = run::run_under(&taking, &under)?;
            (status, is_lost, lock)
        };
        if !is_lost {
            taking.release(lock);
            return Ok(status);
        }
        taking.give_back(lock);
        say(format_args!("{}: campaigns again", called(&taking.names)));
    }
}

/// Prints the present leader, and each change.
fn observe(elect: args::Elect) -> Result<u8, Failure> {
    let args::Elect { mut terms, json, name, .. } = elect;
    let common = std::mem::take(&mut terms.common).with_environment()?;
    let locks = common.into_builder().time_to_live(terms.ttl).open()?;
    let scope = terms.scope.map_or(locks.widest_scope(), Scope::from);
    let mut observer = locks.election(&*name).scope(scope).observe()?;
    loop {
        let leader = observer.next().map_err(|error| Failure::from(error.with_name(&name)))?;
        match tell(leader.as_ref(), json) {
            Ok(()) => {}
            // Its reader has ended.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => {
                return Err(Failure::new(
                    exit::IO,
                    format_args!("cannot tell which candidate leads: {error}"),
                ));
            }
        }
    }
}

fn tell(leader: Option<&ElectedLeader>, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (leader, json) {
        (None, false) => writeln!(out, "none")?,
        (Some(leader), false) => {
            let (token, value) = (leader.token(), leader.value_text());
            writeln!(out, "{}", format!("leader {token} {}", Printable(&value)).trim_end())?;
        }
        (leader, true) => {
            let leader = leader.map(|leader| {
                serde_json::json!({ "token": leader.token(), "value": leader.value_text() })
            });
            writeln!(out, "{}", serde_json::json!({ "leader": leader }))?;
        }
    }
    out.flush()
}
