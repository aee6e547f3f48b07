//! `tierlock break`: a lock is taken away from exactly one holder.

use std::path::Path;

use super::{
    args,
    failure::{Failure, exit},
};

/// Takes it away, or says who has it.
pub(super) fn break_lock(what: args::Break) -> Result<u8, Failure> {
    let common = what.common.with_environment()?;
    let leaders = common.leaders().to_vec();
    let given = common.directory().map(Path::to_owned);
    let common = common.without_unused_directory()?;
    if let Some(directory) = given
        && common.directory().is_none()
        && leaders.is_empty()
    {
        return Err(unused(&directory));
    }
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
