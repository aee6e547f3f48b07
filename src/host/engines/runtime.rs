//! The one background thread of a process that all its engines run on.
//!
//! Callers need no runtime of their own, and lend none. A forked child has a thread of its own as soon
//! as it opens an engine: it never touches what its parent's thread runs.

use tokio::runtime::{Builder, Handle};

use crate::{
    error::{LockError, LockErrorKind, Result},
    fork::{self, Mutex, PerFork},
};

static RUNTIME: PerFork<Mutex<Option<Handle>>> = PerFork::unset();

/// The thread's handle; it is started if it does not run yet.
pub(in crate::host) fn handle() -> Result<Handle> {
    let _ = fork::watch();
    let mut known = RUNTIME.here(Mutex::default).lock();
    if let Some(handle) = &*known {
        return Ok(handle.clone());
    }
    let failed = |error: std::io::Error| {
        let what = "the system cannot start the thread for lock services";
        LockError::new(LockErrorKind::Io, what).with_source(error)
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let serve = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("tierlock-engines".into()).spawn(serve).map_err(failed)?;
    *known = Some(handle.clone());
    Ok(handle)
}
