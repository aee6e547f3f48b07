//! What users touch: the locks, their guards, the manager of names, and questions about other
//! holders' locks.

pub(crate) mod all;
pub(crate) mod condvar;
pub(crate) mod election;
pub(crate) mod guard;
pub(crate) mod manager;
pub(crate) mod mutex;
pub(crate) mod question;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
pub(crate) mod status;
#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
pub(crate) mod why;
