//! In place of `peers/` in a build without the feature `peers`: nobody to compare with.

use std::{fmt, time::Duration};

use super::{
    case::{Case, Label},
    crowd::Wants,
    failure::{Failure, Result},
    grounds::Grounds,
    run::Entry,
    worker::Visitor,
};

/// Nobody.
pub(crate) struct Peers;

impl Peers {
    pub(crate) fn new(_wanted: bool) -> Peers {
        Peers
    }

    pub(crate) fn missing(&self) -> Vec<Missing> {
        Vec::new()
    }

    pub(crate) fn dropped_out(&mut self, _: &Label, _: &Failure) {}
}

/// Nobody can be missing.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) enum Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Nobody's lock.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum PeerLock {}

impl PeerLock {
    pub(crate) fn open<V: Visitor>(&self, _: V) -> Result<V::Output> {
        match *self {}
    }
}

pub(crate) fn thread_quiet(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn thread_contended(
    _: &mut Grounds,
    _: &Label,
    _: Duration,
    _: &mut Vec<Entry>,
) -> Result<()> {
    Ok(())
}

pub(crate) fn cross_locks(_: &Grounds, _: Case) -> Result<Vec<(&'static str, PeerLock)>> {
    Ok(Vec::new())
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

pub(crate) fn host_one_name_64(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}

pub(crate) fn host_remote(
    _: &mut Grounds,
    _: u32,
    _: &[String],
    _: Wants,
    _: &mut Vec<Entry>,
) -> Result<()> {
    Ok(())
}

pub(crate) fn host_one_name_8(_: &mut Grounds, _: &mut Vec<Entry>) -> Result<()> {
    Ok(())
}
