//! Why a bench stopped, and the exit status that says so.

use std::{fmt, io};

use crate::{LockError, LockErrorKind};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a bench stopped. It prints as one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The options ask for what this build or machine does not have.
    #[error("{0}")]
    Usage(String),
    /// A lock that should have been taken or given back was not.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The operating system failed a call.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Something that was compared with failed.
    #[cfg(feature = "peers")]
    #[error("{subject}: {message}")]
    Peer { subject: &'static str, message: String },
    /// A child process of the bench failed.
    #[error("{message}")]
    Child { code: u8, message: String },
    /// What was measured did not do its work: the figures would be worthless.
    #[error("WRONG RESULT: {0}")]
    Wrong(String),
}

impl Failure {
    /// An `io::Error` with what was being done.
    pub(crate) fn io<W: Into<String>>(what: W) -> impl FnOnce(io::Error) -> Failure {
        // Made into a string only on failure: this stands on paths that are measured.
        move |source| Failure::Io { what: what.into(), source }
    }

    /// An error of something that was compared with.
    #[cfg(feature = "peers")]
    pub(crate) fn peer<E: fmt::Display>(subject: &'static str) -> impl FnOnce(E) -> Failure {
        move |error| Failure::Peer { subject, message: error.to_string() }
    }

    /// Whether it is only of what was compared with.
    pub(crate) fn is_a_peers(&self) -> bool {
        #[cfg(feature = "peers")]
        return matches!(self, Failure::Peer { .. });
        #[cfg(not(feature = "peers"))]
        false
    }

    /// The exit status (the same numbers as the other commands use).
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 64,
            Failure::Lock(error) => match error.kind() {
                LockErrorKind::Unreachable => 69,
                LockErrorKind::Damaged | LockErrorKind::Io => 74,
                LockErrorKind::WouldBlock | LockErrorKind::TimedOut => 75,
                LockErrorKind::Lost => 76,
                LockErrorKind::Refused => 77,
                LockErrorKind::Config => 78,
            },
            Failure::Io { .. } => 74,
            Failure::Child { code, .. } => *code,
            #[cfg(feature = "peers")]
            Failure::Peer { .. } => 70,
            Failure::Wrong(_) => 70,
        }
    }
}

/// The sentence of a count that does not add up.
pub(crate) fn check_count(what: impl fmt::Display, counted: u64, expected: u64) -> Result<()> {
    if counted == expected {
        return Ok(());
    }
    Err(Failure::Wrong(format!(
        "{what}: {expected} lockings counted to {counted}; the lock did not exclude"
    )))
}
