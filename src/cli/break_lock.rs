//! `tierlock break`: a lock is taken away from exactly one holder, or that holder's process ended.

use super::{args, failure::Failure, leaders::SilenceTeller};
use crate::{
    error::{LockError, LockErrorKind},
    name::Name,
    process::{self, Order},
};

/// Takes it away at the leader; in a directory, ends the process that holds it.
pub(super) fn break_lock(what: args::Break) -> Result<u8, Failure> {
    let args::Break { common, name, token, grace } = what;
    let common = common.with_environment()?;
    let leaders = common.leaders();
    let directory = common.directory().map(ToOwned::to_owned);
    let mut order = Order { token, grace, asked_leader: false };
    let _silence = SilenceTeller::begin(&leaders);
    let Some(directory) = directory else {
        let asked = ask_leader(common, &name, &order);
        asked.map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
        return Ok(0);
    };
    if leaders.is_empty() {
        process::end_holder(&directory, &name, order)?;
        return Ok(0);
    }
    // Nothing is made: a mistyped directory is told before the leader is asked.
    let is_in_use = process::is_in_use(&directory)?;
    let Err(error) = ask_leader(common, &name, &order) else { return Ok(0) };
    if error.kind() == LockErrorKind::Refused && is_in_use {
        // Perhaps it is one of the directory, or of a process on its way to the leader.
        order.asked_leader = true;
        match process::end_holder(&directory, &name, order) {
            Ok(()) => return Ok(0),
            Err(here) if error.holder().is_none() => return Err(here.into()),
            Err(_) => {}
        }
    }
    Err(Failure::from(error).naming_leaders(&leaders))
}

fn ask_leader(common: args::Common, name: &Name, order: &Order) -> Result<(), LockError> {
    let locks = common.without_directory().into_builder().open()?;
    locks.break_lock(&**name, order.token)
}
