//! What a manager says of the service that it wants, and what it gets.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{questions::LockQuestions, service::LeaseService};
use crate::watch::Tell;

/// How a manager's service is opened.
#[cfg_attr(not(feature = "host"), expect(dead_code, reason = "no service is there to read it"))]
pub(crate) struct ServiceSettings {
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) label: String,
    pub(crate) time_to_live: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) guards_stay: bool,
    pub(crate) on_warning: Option<Tell>,
    /// Where the processes of a directory write down what they have seen of their leader.
    pub(crate) seen: Option<SeenLeader>,
    /// The runtime that reads the leader's answers for its tasks.
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
}

/// What the processes of a directory have seen of their leader, in one line.
#[cfg_attr(not(feature = "host"), expect(dead_code, reason = "no service is there to read it"))]
pub(crate) struct SeenLeader {
    pub(crate) read: Box<dyn Fn() -> Option<String> + Send + Sync>,
    pub(crate) write: Box<dyn Fn(&str) + Send + Sync>,
}

/// A service that is open: for locks, and for questions about them.
pub(crate) struct OpenedService {
    pub(crate) leases: Arc<dyn LeaseService>,
    pub(crate) questions: Arc<dyn LockQuestions>,
}
