//! Takes the place of `opening.rs` in builds without host scope: a manager that is given leaders or a
//! service is refused.

use super::settings::{OpenedService, ServiceSettings};
use crate::error::{LockError, Result};

/// The service that a manager wants: here none.
pub(crate) struct WantedService(());

impl WantedService {
    /// # Errors
    /// `Config`, if leaders are named or a service is.
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

    /// No manager gets here that wants one.
    pub(crate) fn open(self, settings: ServiceSettings) -> Result<Option<OpenedService>> {
        drop(settings);
        Ok(None)
    }
}

/// The service's URL without secrets: nothing here knows which part of it is one.
pub(crate) fn shown(_: &str) -> String {
    "…".to_owned()
}
