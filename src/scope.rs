//! Which other callers a lock excludes.

use std::{fmt, str::FromStr};

/// Which other callers a lock excludes: the promise of a mutex, ordered from narrow to wide.
///
/// Every variant exists under every feature; a scope that a build or a manager cannot reach
/// is an error when the mutex is built, never a narrower lock.
///
/// # Example
/// ```
/// use tierlock::Scope;
///
/// assert!(Scope::Thread < Scope::Process && Scope::Process < Scope::Host);
/// assert_eq!("host".parse::<Scope>(), Ok(Scope::Host));
/// assert_eq!(Scope::Host.to_string(), "host");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Scope {
    /// The threads and tasks of this process.
    Thread = 0,
    /// All processes of this machine that use the same directory.
    Process = 1,
    /// All machines that use the same leader.
    Host = 2,
}

impl Scope {
    /// Every scope, from narrow to wide.
    pub const ALL: [Scope; 3] = [Scope::Thread, Scope::Process, Scope::Host];

    /// The lower-case word for this scope, as the command line and the JSON use it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Thread => "thread",
            Scope::Process => "process",
            Scope::Host => "host",
        }
    }

    /// The scope stored as `scope as u8`.
    #[inline]
    pub(crate) fn from_u8(value: u8) -> Scope {
        match value {
            0 => Scope::Thread,
            1 => Scope::Process,
            // No other is stored. A check here would cost each lock a branch.
            _ => Scope::Host,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What [`Scope::from_str`] answers to a word that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid scope {0:?}: it must be thread, process or host")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Scope::ALL
            .into_iter()
            .find(|scope| scope.as_str() == s)
            .ok_or_else(|| ParseScopeError(s.to_owned()))
    }
}
