//! `tierlock why`: one lock in sentences.

use super::{
    args,
    failure::{Failure, print},
    leaders::SilenceTeller,
};

/// Explains one lock.
pub(super) fn why(asked: args::Why) -> Result<u8, Failure> {
    let common = asked.common.with_environment()?;
    let leaders = common.leaders();
    let locks = common.without_unused_directory()?.into_builder().open()?;
    let silence = SilenceTeller::begin(&leaders);
    let why = locks.why(asked.name.as_str());
    drop(silence);
    let why = why.map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
    print(&format!("{why}\n"))?;
    Ok(0)
}
