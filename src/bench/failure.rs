//! Why a bench stopped, and the exit status that says so.

use std::{fmt, io};

use tierlock::{LockError, LockErrorKind};

pub(crate) type Result<T, E = BenchFailure> = std::result::Result<T, E>;

/// Why a bench stopped. It prints as one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchFailure {
    /// The options ask for what is not there.
    #[error("{0}")]
    Usage(String),
    /// A lock that should have been taken or given back was not.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The operating system failed a call.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Another program failed: a child process of the bench, or what it was compared with.
    #[error("{message}")]
    Other { code: u8, message: String },
    /// What was measured did not do its work: the figures would be worthless.
    #[error("WRONG RESULT: {0}")]
    Wrong(String),
}

impl BenchFailure {
    /// An `io::Error` with what was being done.
    pub(crate) fn io<W: Into<String>>(what: W) -> impl FnOnce(io::Error) -> BenchFailure {
        // Made into a string only on failure: this stands on paths that are measured.
        move |source| BenchFailure::Io { what: what.into(), source }
    }

    /// What another program did wrong.
    pub(crate) fn other(message: impl Into<String>) -> BenchFailure {
        BenchFailure::Other { code: 70, message: message.into() }
    }

    /// The exit status (the same numbers as the other commands use).
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            BenchFailure::Usage(_) => 64,
            BenchFailure::Lock(error) => status_of(error.kind()),
            BenchFailure::Io { .. } => 74,
            BenchFailure::Other { code, .. } => *code,
            BenchFailure::Wrong(_) => 70,
        }
    }
}

/// A list, not a `match`: outside of the library there may always be further kinds.
fn status_of(kind: LockErrorKind) -> u8 {
    use LockErrorKind::*;
    let known = [
        (Unreachable, 69),
        (Damaged, 74),
        (Io, 74),
        (WouldBlock, 75),
        (TimedOut, 75),
        (Lost, 76),
        (Refused, 77),
        (Config, 78),
    ];
    known.iter().find(|(of, _)| *of == kind).map_or(70, |&(_, status)| status)
}

/// The sentence of a count that does not add up.
pub(crate) fn check_count(what: impl fmt::Display, counted: u64, expected: u64) -> Result<()> {
    if counted == expected {
        return Ok(());
    }
    Err(BenchFailure::Wrong(format!(
        "{what}: {expected} lockings counted to {counted}; the lock did not exclude"
    )))
}
