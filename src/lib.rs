//! One layered `Mutex<T>` over three scopes (skeleton; the real page follows).

#[cfg(any(feature = "host", feature = "testing"))]
#[doc(hidden)]
pub mod proto;

mod alarm;
mod clock;
mod error;
#[cfg(any(feature = "host", feature = "testing"))]
mod host;
mod name;
#[cfg(feature = "process")]
mod process;
mod scope;
mod thread;
mod time;
mod token;
mod watch;

pub use error::{Holder, LockError, LockErrorKind, LostReason, Predecessor};
pub use name::{InvalidName, Name};
pub use scope::{ParseScopeError, Scope};
pub use token::{ParseTokenError, Token};
pub use watch::Lost;

/// A mutex's result.
pub type Result<T, E = LockError> = std::result::Result<T, E>;
