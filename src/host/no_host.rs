//! Stands in for [`opening`](super) in builds without host scope: whatever asks for a service is refused.

use super::settings::{OpenedService, ServiceSettings};
use crate::error::{LockError, Result};

/// The service that a manager wants: here none.
pub(crate) struct WantedService(());

impl WantedService {
    /// # Errors
    /// `Config` if there is anything.
    pub(crate) fn of(leaders: Vec<String>, service: Option<&str>) -> Result<WantedService> {
        let what = match (leaders.is_empty(), service) {
            (true, None) => return Ok(WantedService(())),
            (true, Some(_)) => "a service is set",
            (false, _) => "leaders are set",
        };
        Err(LockError::config(format!(
            "{what}, but this build of tierlock lacks the feature `host`: enable it in Cargo.toml"
        )))
    }

    pub(crate) fn open(self, settings: ServiceSettings) -> Result<Option<OpenedService>> {
        drop(settings);
        Ok(None)
    }
}

/// The service's URL without secrets: nothing here knows which part of it is one.
pub(crate) fn shown(_: &str) -> String {
    "…".to_owned()
}
