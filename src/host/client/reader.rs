//! A client's sockets, read by the caller's own tokio runtime.
//!
//! A task that waits for an answer sleeps with its runtime, in the system call that waits for
//! sockets. Where the client's thread reads the answer, that thread has to wake the runtime, which
//! costs as much as the network does; where the runtime reads it, the answer wakes the task itself.
//! So a runtime that was lent to the manager has a task that reads, for as long as tasks ask.

#[cfg(feature = "tokio")]
mod lent;

use std::{net::UdpSocket, sync::Arc};

#[cfg(feature = "tokio")]
pub(crate) use lent::LentReader;

/// What the reading task does at each turn.
pub(crate) trait ReadFrames: Send + Sync + 'static {
    /// Carries what came and what is to go, and writes down which sockets are read from now on.
    /// Whether the task goes on.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "a runtime that lends itself calls it")
    )]
    fn turn(&self, sockets: &mut Vec<Arc<UdpSocket>>) -> AfterTurn;

    /// Whether a task is to read.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "a runtime that lends itself calls it")
    )]
    fn is_wanted(&self) -> bool;
}

/// What the reading task does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterTurn {
    /// Sleeps until there is something to read or to look at.
    Sleep,
    /// Reads on: the sockets had more than was taken.
    Again,
    /// Ends: the thread has taken the sockets back.
    End,
}

/// Without the feature `tokio` no runtime can be lent.
#[cfg(not(feature = "tokio"))]
pub(crate) enum NoReader {}

#[cfg(not(feature = "tokio"))]
pub(crate) type LentReader = NoReader;

#[cfg(not(feature = "tokio"))]
impl NoReader {
    pub(in crate::host) fn ensure<R: ReadFrames>(
        &self,
        _: impl FnOnce() -> Option<Arc<R>>,
    ) -> bool {
        match *self {}
    }

    pub(in crate::host) fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(in crate::host) fn is_like(&self, _: &NoReader) -> bool {
        match *self {}
    }

    pub(in crate::host) fn look(&self) {
        match *self {}
    }
}
