//! What observers of an election are told of a leader.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{printable::Printable, token::Token};

/// The longest value that a leader may say of itself, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 1024;

/// The leader of an election, as [`Observer`](crate::Observer) tells it: the token of its term, and the
/// value that it campaigned with.
///
/// # Example
/// ```
/// # #[cfg(feature = "testing")] {
/// use tierlock::LockManager;
///
/// let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
/// let leadership = locks.election("primary").campaign("10.0.0.7:8080")?;
/// let leader = locks.election("primary").build()?.leader()?.expect("one leads");
/// assert_eq!(leader.value_text(), "10.0.0.7:8080"); // where to send a request
/// assert_eq!(leader.token(), leadership.token()); // and what to send along
/// # }
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ElectedLeader {
    token: Token,
    value: Arc<[u8]>,
}

impl ElectedLeader {
    pub(crate) fn new(token: Token, value: Arc<[u8]>) -> ElectedLeader {
        ElectedLeader { token, value }
    }

    /// The token of its term: larger than that of every leader before.
    pub fn token(&self) -> Token {
        self.token
    }

    /// What it campaigned with.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The same as text; what is no UTF-8 is replaced.
    pub fn value_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}

/// What an observer was told of an election.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum LeaderTold {
    /// Nothing, or nothing new.
    #[default]
    Nothing,
    /// The present leader; `None`: no candidate leads.
    Now(Option<ElectedLeader>),
}

impl fmt::Debug for ElectedLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElectedLeader")
            .field("token", &self.token)
            .field("value", &format_args!("{}", Printable(&self.value_text())))
            .finish()
    }
}
