//! What is measured: leaders that follow each other, and their clients, ours or a peer's.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::bench::failure::Result;

/// Leaders, one of which reigns.
pub(crate) trait Followed {
    /// A client with a session of its own, which finds the one that reigns by itself.
    fn client(&mut self) -> Result<Box<dyn ReignClient>>;

    /// Which of them reigns, and in which reign, as far as that can be told.
    fn reigning(&mut self) -> Result<Reigning>;

    /// Ends one as a crash does. One that no other follows is started again at once.
    fn kill(&mut self, number: usize) -> Result<()>;

    /// Has one back that was killed, and waits until it may reign again.
    fn restore(&mut self, number: usize) -> Result<()>;

    /// Ends the reign of this one in good order, as before work on its machine, and waits until it may
    /// reign again. An error, if another reigns.
    fn hand_over(&mut self, number: usize) -> Result<()>;

    /// Their processes, by their numbers.
    fn pids(&self) -> Vec<Pid>;

    /// How long a reign lasts without a new proof, and how long its journal took to answer the last one.
    fn proof(&mut self) -> Result<Proof>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reigning {
    pub(crate) number: usize,
    /// As [`ReignClient::grant`] tells it.
    pub(crate) reign: Option<u64>,
    /// When it said that it does.
    pub(crate) since: Option<Instant>,
}

/// What leaders say of the proofs of their reign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// L.
    pub(crate) lasts: Option<Duration>,
    pub(crate) took: Option<Duration>,
}

/// A client of such leaders.
pub(crate) trait ReignClient: Send {
    /// Takes a lock and gives it back: in which reign it was granted, or nothing, if none could be had.
    fn grant(&mut self, name: &str) -> Result<Option<u64>>;

    /// The same, for a client that does nothing else, with one name.
    fn quiet(&mut self) -> Result<()>;

    /// Takes a lock, and keeps it.
    fn hold(&mut self, name: &str) -> Result<()>;

    /// Whether it has what it holds.
    fn holds(&mut self) -> Result<bool>;

    /// Gives it back: whether it was held to the end.
    fn give(&mut self) -> Result<bool>;
}
