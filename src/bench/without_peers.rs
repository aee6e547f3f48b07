//! In place of `peers/` in a build without the feature `peers`: nobody to compare with.

use std::{fmt, path::Path};

use super::{case::Case, failure::Result, grounds::Grounds, run::Entry, worker::CrossLock};

/// Nobody.
pub(crate) struct Peers;

impl Peers {
    pub(crate) fn new(_wanted: bool) -> Peers {
        Peers
    }

    pub(crate) fn missing(&self) -> Vec<Missing> {
        Vec::new()
    }
}

/// Nobody can be missing.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) enum Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) fn thread_quiet(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn thread_threads(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn process_quiet(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn cross_locks(_: &Grounds, _: &Path, _: Case) -> Vec<(&'static str, CrossLock)> {
    Vec::new()
}

pub(crate) fn host_quiet(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn host_connections_32(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn host_tasks_256(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}
