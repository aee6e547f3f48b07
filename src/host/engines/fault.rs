//! What can go wrong on the way to a server.

use std::{fmt, time::Duration};

use crate::error::{LockError, LockErrorKind};

/// Why a server did not do what it was asked.
#[derive(Debug)]
pub(in crate::host) enum EngineFault {
    /// No answer, or one that says that it cannot serve just now. It may have done what it was asked.
    Trouble(String),
    /// It will not, however often it is asked: wrong credentials, a name that is something else.
    Final(LockError),
}

impl EngineFault {
    /// No answer came in time.
    pub(in crate::host) fn silent(shown: impl fmt::Display, patience: Duration) -> EngineFault {
        EngineFault::Trouble(format!("{shown} did not answer within {patience:.1?}"))
    }

    pub(in crate::host) fn refused(what: impl Into<String>) -> EngineFault {
        EngineFault::Final(LockError::new(LockErrorKind::Refused, what.into()))
    }

    pub(in crate::host) fn config(what: impl Into<String>) -> EngineFault {
        EngineFault::Final(LockError::config(what.into()))
    }

    /// For a caller that asks once.
    pub(in crate::host) fn into_error(self) -> LockError {
        match self {
            EngineFault::Trouble(trouble) => LockError::new(LockErrorKind::Unreachable, trouble),
            EngineFault::Final(error) => error,
        }
    }
}
