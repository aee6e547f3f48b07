//! What a server is to the comparison, and why one is not in it.

use std::{fmt, future::Future, sync::Arc};

use crate::bench::{
    case::Label,
    failure::{BenchFailure, Result},
    stats::Unprotected,
    tasks::AsyncCaller,
};

/// Something that was not compared with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Missing {
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) package: &'static str,
    /// If it is not for want of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Missing {
    pub(crate) const fn new(program: &'static str, package: &'static str) -> Missing {
        Missing { program, package, why: None }
    }

    /// It failed in the middle of a heat.
    pub(crate) fn dropped_out(label: &Label, failure: &BenchFailure) -> Missing {
        let why = Some(format!("failed at {}, {}: {failure}", label.scope, label.title()));
        Missing { program: label.subject, package: "", why }
    }

    /// It is installed, but this was in the way.
    pub(crate) fn because<E: fmt::Display>(&self) -> impl FnOnce(E) -> Missing + use<E> {
        let missing = self.clone();
        move |error| Missing { why: Some(format!("did not start: {error}")), ..missing }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { program, package, why } = self;
        match why {
            None => write!(f, "{program} is not installed here; `apt-get install {package}`"),
            Some(why) => write!(f, "{program} {why}"),
        }
    }
}

/// A server that hands out clients with a connection each.
pub(crate) trait Service {
    type Client: AsyncCaller;

    fn subject(&self) -> &'static str;

    /// What a reader must know to compare it.
    fn note(&self) -> &'static str;

    /// A client on a connection of its own: it locks `name`, waiting if it must, counts, unlocks.
    fn client(
        &self,
        name: &str,
        count: Arc<Unprotected>,
    ) -> impl Future<Output = Result<Self::Client>>;

    /// Where tierlock's host scope stands on this very server, and what such a row says of itself.
    fn engine(&self) -> Option<EngineUrl> {
        None
    }

    /// Another client on the same connection, where several may share one.
    fn sharing(&self, _client: &Self::Client, _name: &str) -> Option<Self::Client> {
        None
    }
}

/// A server as tierlock reaches it.
pub(crate) struct EngineUrl {
    pub(crate) url: String,
    pub(crate) variant: &'static str,
    /// Whether its own client awaits a release.
    pub(crate) is_release_awaited: bool,
}

impl EngineUrl {
    pub(crate) fn new(variant: &'static str, url: String) -> EngineUrl {
        EngineUrl { url, variant, is_release_awaited: true }
    }
}

/// What is done with every service; compiled for each.
pub(crate) trait ServiceVisitor {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()>;
}

/// An error of something that is compared with.
pub(crate) fn of_peer<E: fmt::Display>(subject: &'static str) -> impl FnOnce(E) -> BenchFailure {
    move |error| BenchFailure::other(format!("{subject}: {error}"))
}
