//! What users touch: the locks, their guards, the manager of names, and questions about other
//! holders' locks.

pub(crate) mod all;
pub(crate) mod election;
pub(crate) mod guard;
pub(crate) mod manager;
pub(crate) mod mutex;
pub(crate) mod question;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
#[cfg(feature = "cli")]
pub(crate) mod status;
