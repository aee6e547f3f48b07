//! `tierlock break`: a lock is taken away from exactly one holder.

use super::{args, failure::Failure};

/// Takes it away, or says who has it.
pub(super) fn break_lock(what: args::Break) -> Result<u8, Failure> {
    let common = what.common.with_environment()?;
    let leaders = common.leaders().to_vec();
    let locks = common.into_builder().open()?;
    locks
        .break_lock(&*what.name, what.token)
        .map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
    Ok(0)
}
