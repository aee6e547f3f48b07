//! `tierlock break`: a lock is taken away from exactly one holder.

use std::path::Path;

use super::{
    args,
    failure::{Failure, exit},
};
use crate::process;

/// Takes it away, or says who has it.
pub(super) fn break_lock(what: args::Break) -> Result<u8, Failure> {
    let common = what.common.with_environment()?;
    let leaders = common.leaders().to_vec();
    // Taking away makes nothing: neither a directory that was mistyped, nor a new one's files.
    let is_in_use = common.directory().map(process::is_in_use).transpose()?.unwrap_or_default();
    let common = match common.directory() {
        Some(directory) if !is_in_use && leaders.is_empty() => return Err(unused(directory)),
        _ if is_in_use => common,
        _ => common.without_directory(),
    };
    let locks = common.into_builder().open()?;
    locks
        .break_lock(&*what.name, what.token)
        .map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
    Ok(0)
}

fn unused(directory: &Path) -> Failure {
    let directory = directory.display();
    Failure::new(
        exit::CONFIG,
        format_args!(
            "lock directory {directory}: nobody has used it yet, and nothing was broken; give the \
             one that the holder uses"
        ),
    )
}
