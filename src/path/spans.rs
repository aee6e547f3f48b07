//! Spans for [`tracing`](https://docs.rs/tracing), with the feature of that name, at the level `DEBUG` and
//! with the target `tierlock`.
//!
//! | span | from | to | fields |
//! |---|---|---|---|
//! | `acquire` | a call | its lock or error | `name`, `scope`, `mode`, `token`, `outcome` |
//! | `hold` | the grant | the end of its release | `name`, `scope`, `token`, `predecessor` |
//! | `release` | the drop of a guard, or what stands for it | its end | `name`, `scope`, `token`, `how` |
//!
//! Where a subscriber wants them, the three of a lock take some thousand instructions of their caller, a
//! fifteenth of a lock at host scope, and what the subscriber does besides; the leader takes no part in it.
//!
//! A subscriber is foreign code. It runs while its caller's lock is held, as any code of the caller does, and
//! if it panics the span ends and the lock goes on.

#[cfg(feature = "tracing")]
pub(super) use self::told::{AcquireSpan, ReleaseSpan, are_wanted, hold};
#[cfg(not(feature = "tracing"))]
pub(super) use self::untold::{
    NoAcquireSpan as AcquireSpan, NoReleaseSpan as ReleaseSpan, are_wanted, hold,
};

#[cfg(feature = "tracing")]
mod told;
#[cfg(not(feature = "tracing"))]
mod untold;
