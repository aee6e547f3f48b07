//! `tierlock held`: whether the caller runs under a lock.

use super::{
    args::{self, RunScope},
    failure::Failure,
    possession::Inheritance,
};

/// 0 if it does, else 1.
pub(super) fn held(what: args::HeldArgs) -> Result<u8, Failure> {
    let common = what.common.with_environment()?;
    let leaders = common.leaders();
    // A directory that is not there, or was never used, has no holder.
    let is_there = common.directory().is_some_and(std::path::Path::exists);
    if leaders.is_empty() && !is_there {
        return Ok(1);
    }
    let common =
        if is_there { common.without_unused_directory()? } else { common.without_directory() };
    if leaders.is_empty() && common.directory().is_none() {
        return Ok(1);
    }
    let inheritance = Inheritance::of_this_process();
    let locks = common.into_builder().open()?;
    // The lock that `tierlock run` would take with these settings.
    let is_narrow = match what.scope {
        Some(scope) => scope == RunScope::Process,
        None => leaders.is_empty(),
    };
    let is_held = match is_narrow {
        true => inheritance.has_in_directory(&what.name, &locks),
        false => inheritance.has_from_leader(&what.name, &locks),
    };
    let is_held = is_held.map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
    Ok(if is_held { 0 } else { 1 })
}
