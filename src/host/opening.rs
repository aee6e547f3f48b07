//! How a manager's service is opened: our own leaders, or a lock service of another kind.

use std::sync::Arc;

#[cfg(feature = "tokio")]
use super::client::LentReader;
#[cfg(feature = "service")]
use super::engines::{self, EngineSettings};
use super::{
    client::{connect, link::Link},
    identity_of,
    net::client_keys::ClientKeys,
    process_mark,
    service_url::{ServiceKind, ServiceUrl},
    settings::{OpenedService, SeenLeader, ServiceSettings},
};
use crate::{
    error::{LockError, Result},
    fork,
    proto::{client::ClientConfig, history::Seen},
};

/// The service that a manager wants.
pub(crate) enum WantedService {
    None,
    /// Our own leaders, at these addresses.
    Leaders(Vec<String>),
    #[cfg(feature = "service")]
    Engine(ServiceUrl),
}

impl WantedService {
    /// # Errors
    /// `Config` if there are two, or the URL is none, or of a kind that this build lacks.
    pub(crate) fn of(leaders: Vec<String>, service: Option<&str>) -> Result<WantedService> {
        let Some(text) = service else {
            return Ok(match leaders.is_empty() {
                true => WantedService::None,
                false => WantedService::Leaders(leaders),
            });
        };
        if !leaders.is_empty() {
            return Err(LockError::config(
                "both leaders and a service are set, but locks are granted by one service: leave \
                 one out",
            ));
        }
        let url = ServiceUrl::parse(text)?;
        match (url.kind, url.kind.feature()) {
            (ServiceKind::Tierlock, _) => {
                url.finish("none (secret_file names the leaders' secret)")?;
                if url.user.is_some() || url.password.is_some() || !url.path.is_empty() {
                    return Err(
                        url.refuse("leaders are addresses alone; secret_file names their secret")
                    );
                }
                Ok(WantedService::Leaders(url.addresses))
            }
            #[cfg(feature = "service")]
            (_, (_, true)) => Ok(WantedService::Engine(url)),
            (_, (feature, _)) => {
                Err(url
                    .refuse(format_args!("this build of tierlock lacks the feature `{feature}`")))
            }
        }
    }

    /// Opens it; it touches no network.
    pub(crate) fn open(self, settings: ServiceSettings) -> Result<Option<OpenedService>> {
        match self {
            WantedService::None => Ok(None),
            WantedService::Leaders(leaders) => {
                let link = open_link(&leaders, settings)?;
                Ok(Some(OpenedService { leases: link.clone(), questions: link }))
            }
            #[cfg(feature = "service")]
            WantedService::Engine(url) => {
                let settings = EngineSettings {
                    time_to_live: settings.time_to_live,
                    connect_timeout: settings.connect_timeout,
                    identity: identity_of(&settings.label),
                    on_warning: settings.on_warning,
                };
                engines::open(url, settings).map(Some)
            }
        }
    }
}

fn open_link(leaders: &[String], settings: ServiceSettings) -> Result<Arc<Link>> {
    let Some(secret_file) = &settings.secret_file else {
        return Err(LockError::config(
            "leaders are set without a secret file: make one with `tierlock secret new FILE` \
             and give it to the leader and to all clients",
        ));
    };
    let secret = ClientKeys::read(secret_file)?;
    let config = ClientConfig {
        time_to_live: settings.time_to_live,
        connect_timeout: settings.connect_timeout,
        identity: identity_of(&settings.label),
        addresses: leaders.len(),
        process: process_mark(),
        seen: settings.seen.as_ref().and_then(seen_in),
    };
    #[cfg(feature = "tokio")]
    let reader = settings.runtime.map(LentReader::new).transpose()?;
    #[cfg(not(feature = "tokio"))]
    let reader = None;
    let link = connect(leaders, secret, config, reader, fork::generation)?;
    if let Some(memory) = settings.seen {
        // From now on what this link sees of its leader is known to the directory, too.
        link.remember(Arc::new(move |seen| {
            if seen.is_news_to(seen_in(&memory)) {
                (memory.write)(&seen.to_line());
            }
        }));
    }
    link.guards_stay(settings.guards_stay);
    if let Some(warn) = settings.on_warning {
        link.on_warning(warn);
    }
    Ok(link)
}

/// What the processes of this directory have seen of their leader.
fn seen_in(memory: &SeenLeader) -> Option<Seen> {
    Seen::from_line(&(memory.read)()?)
}

/// The service's URL without secrets.
pub(crate) fn shown(text: &str) -> String {
    ServiceUrl::parse(text).map_or_else(|_| "…".to_owned(), |url| url.shown())
}
