//! Asynchronous locks inside a process.

use crate::{
    Mutex,
    bench::{failure::Result, tasks::Client},
};

/// tierlock's own asynchronous side at thread scope.
pub(crate) struct Ours(pub(crate) Mutex<u64>);

impl Client for Ours {
    async fn cycle(&mut self) -> Result<()> {
        *self.0.lock_async().await? += 1;
        Ok(())
    }
}

pub(crate) struct Tokio(pub(crate) tokio::sync::Mutex<u64>);

impl Client for Tokio {
    async fn cycle(&mut self) -> Result<()> {
        *self.0.lock().await += 1;
        Ok(())
    }
}
