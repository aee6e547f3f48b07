//! Lock services that a site runs already, behind the same leases as our own leaders.
//!
//! Each engine is one file that speaks its server's field-standard recipe, so that the server's usual
//! clients and this library exclude each other on one name. What all of them need stands beside them:
//!
//! | file | owns |
//! |---|---|
//! | `engine` | what an engine has to know: acquire, renew, release, look |
//! | `engine_service` | the engine as a [`LeaseService`](super::service::LeaseService), and its questions |
//! | `leasing` | requests that run to their end, releases, renewals, deadlines |
//! | `book` | what those are written down in |
//! | `wish` | one request as the engine sees it: how long it may wait, and whether it is still wanted |
//! | `observing` `teller` | observers of elections, and where an engine tells them |
//! | `fault` | what can go wrong on the way to a server |
//! | `store_tls` | TLS on the way to a server |
//! | `tls_connection` | a connection by it |
//! | `runtime` | the one background thread of a process that all its engines run on |
//! | `holder_line` | a holder in one line, as servers have room for it |
//! | `session_life` | until when what hangs on a session is good |
//! | `slots` | one attempt of a name at a time |
//! | `shedlock` | ShedLock's table in a database |
//! | `advisory` | locks that belong to a session of a database |
//! | `etcd` `mysql` `postgres` `redis` `redlock` `zookeeper` | the engines |

#[cfg(any(feature = "mysql", feature = "postgres"))]
mod advisory;
mod book;
mod engine;
mod engine_service;
#[cfg(feature = "etcd")]
pub(super) mod etcd;
pub(super) mod fault;
mod holder_line;
mod leasing;
#[cfg(feature = "mysql")]
mod mysql;
mod observing;
#[cfg(feature = "postgres")]
pub(super) mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redlock;
pub(super) mod runtime;
#[cfg(any(feature = "etcd", feature = "mysql", feature = "postgres", feature = "zookeeper"))]
mod session_life;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod shedlock;
#[cfg(any(feature = "etcd", feature = "mysql", feature = "postgres"))]
mod slots;
#[cfg(feature = "service")]
pub(super) mod store_tls;
mod teller;
#[cfg(any(feature = "redis", feature = "zookeeper"))]
mod tls_connection;
mod wish;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{sync::Arc, time::Duration};

use self::engine_service::EngineService;
#[cfg(feature = "cli")]
pub(crate) use super::questions::{EngineFinding, FindingKind};
use super::{
    service_url::{ServiceKind, ServiceUrl},
    settings::OpenedService,
};
use crate::{error::Result, proto::wire::Identity, watch::Tell};

/// What every engine is opened with.
pub(crate) struct EngineSettings {
    pub(crate) time_to_live: Duration,
    pub(crate) connect_timeout: Duration,
    /// How holders are shown.
    pub(crate) identity: Identity,
    pub(crate) on_warning: Option<Tell>,
}

/// Opens the engine of a service that is not our own. It touches no network.
pub(crate) fn open(url: ServiceUrl, settings: EngineSettings) -> Result<OpenedService> {
    match url.kind {
        #[cfg(feature = "etcd")]
        ServiceKind::Etcd => {
            let engine = etcd::EtcdEngine::new(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "mysql")]
        ServiceKind::Mysql => {
            let engine = mysql::open(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "mysql")]
        ServiceKind::ShedLockMysql => {
            let engine = mysql::shed_table::open(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "postgres")]
        ServiceKind::Postgres => {
            let engine = postgres::open(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "postgres")]
        ServiceKind::ShedLockPostgres => {
            let engine = postgres::shed_table::open(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "redis")]
        ServiceKind::Redis => {
            let engine = redis::RedisEngine::new(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "redis")]
        ServiceKind::Redlock => {
            let engine = redlock::RedlockEngine::new(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        #[cfg(feature = "zookeeper")]
        ServiceKind::Zookeeper => {
            let engine = zookeeper::ZookeeperEngine::new(url, &settings)?;
            opened(EngineService::open(engine, settings)?)
        }
        kind => {
            let (feature, _) = kind.feature();
            Err(url.refuse(format_args!("this build of tierlock lacks the feature `{feature}`")))
        }
    }
}

fn opened<E: engine::LockEngine>(service: Arc<EngineService<E>>) -> Result<OpenedService> {
    Ok(OpenedService { leases: service.clone(), questions: service })
}

/// How long an answer is waited for, by the time that locks outlive a silence.
pub(super) fn patience(time_to_live: Duration) -> Duration {
    (time_to_live / 3).clamp(Duration::from_millis(300), Duration::from_secs(2))
}

/// What a client's clock and the server's may differ by while a lease runs: 1 % of it, and what it
/// takes to look at a clock.
pub(super) fn margin(time_to_live: Duration) -> Duration {
    time_to_live / 100 + Duration::from_millis(10)
}
