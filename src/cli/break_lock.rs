//! `tierlock break`: a lock is taken away from exactly one holder, or that holder's process ended.

use super::{args, failure::Failure};
use crate::{
    error::{LockError, LockErrorKind},
    process::{self, Order},
};

/// Takes it away at the leader; in a directory, ends the process that holds it.
pub(super) fn break_lock(what: args::Break) -> Result<u8, Failure> {
    let args::Break { common, name, token, grace } = what;
    let common = common.with_environment()?;
    let leaders = common.leaders().to_vec();
    let directory = common.directory().map(ToOwned::to_owned);
    let mut order = Order { token, grace, asked_leader: false };
    let Some(directory) = directory else {
        return ask_leader(common, &name, &order, &leaders).map(|()| 0).map_err(|(_, said)| said);
    };
    if leaders.is_empty() {
        process::end_holder(&directory, &name, order)?;
        return Ok(0);
    }
    // Nothing is made: a mistyped directory is told before the leader is asked.
    let is_in_use = process::is_in_use(&directory)?;
    let Err((error, said)) = ask_leader(common, &name, &order, &leaders) else { return Ok(0) };
    let Some(error) = error.filter(|error| error.kind() == LockErrorKind::Refused && is_in_use)
    else {
        return Err(said);
    };
    // Perhaps it is one of the directory, or of a process on its way to the leader.
    order.asked_leader = true;
    match process::end_holder(&directory, &name, order) {
        Ok(()) => Ok(0),
        Err(here) if error.holder().is_none() => Err(here.into()),
        Err(_) => Err(said),
    }
}

/// Why it was not broken: the error, and how it is said.
type Unbroken = (Option<LockError>, Failure);

fn ask_leader(
    common: args::Common,
    name: &crate::name::Name,
    order: &Order,
    leaders: &[String],
) -> Result<(), Unbroken> {
    let opened = common.without_directory().into_builder().open();
    let locks = opened.map_err(|error| (None, error.into()))?;
    locks.break_lock(&**name, order.token).map_err(|error| {
        let kind = error.kind();
        let said = Failure::from_ref(&error).naming_leaders(leaders);
        ((kind == LockErrorKind::Refused).then_some(error), said)
    })
}
