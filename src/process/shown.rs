//! What people are shown of a name.

use std::time::Duration;

use super::dir::{files, keepers};
use crate::{
    error::{Holder, Predecessor},
    name::Name,
    token::Token,
};

/// A name as `status` shows it.
#[derive(Clone, Debug)]
pub(crate) struct NameStatus {
    pub(crate) name: Name,
    pub(crate) token: Token,
    /// `None`: free.
    pub(crate) holder: Option<Holder>,
    /// For how long `at_least` keeps it taken, though it has no holder any more.
    pub(crate) stays_for: Option<Duration>,
    /// While it is held, how the one before the holder left.
    pub(crate) predecessor: Predecessor,
    pub(crate) widened_by: Option<String>,
    /// Of a semaphore: how many permits there are.
    pub(crate) limit: Option<u32>,
    /// Which processes read it, and how many threads and tasks of each; or have permits, and how many.
    pub(crate) sharers: Vec<(Holder, u32)>,
    /// The files with the locks that prove them alive.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "the program alone compares them")
    )]
    pub(crate) share_proofs: Vec<files::FileIdentity>,
    /// The waiters, as far as they are published.
    pub(crate) waiters: Vec<WaiterStatus>,
    /// The file with the lock that proves the holder alive.
    pub(crate) proof: Option<files::FileIdentity>,
    /// The processes that keep it in the place of a holder that has ended; see [`find_survivors`](super::find_survivors).
    pub(crate) survivors: Vec<keepers::Survivor>,
}

/// A waiter for a name.
#[derive(Clone, Debug)]
pub(crate) struct WaiterStatus {
    pub(crate) process: Holder,
    pub(crate) waiting: Duration,
    /// It waits to read.
    pub(crate) shares: bool,
    /// How many permits it wants of a semaphore, if that is known.
    pub(crate) permits: Option<u32>,
}
