//! `tierlock secret`.

use std::path::Path;

use super::failure::Failure;

/// Writes a new secret to a file that must not exist yet.
pub(super) fn new(file: &Path) -> Result<u8, Failure> {
    crate::host::Secret::create(file)?;
    Ok(0)
}
