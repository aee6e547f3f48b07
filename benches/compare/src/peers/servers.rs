//! The servers of a run, each started when it is first asked for.

use std::sync::Arc;

use super::{
    etcd::Etcd,
    mariadb::MariaDb,
    postgres::Postgres,
    quic_echo,
    redis::{Durability, Redis},
    redlock::Redlock,
    service::{Missing, ServiceVisitor},
    zookeeper::ZooKeeper,
};
use crate::bench::{failure::Result, grounds::Grounds};

/// The servers that this run has started, and what it could not start.
#[derive(Default)]
pub(crate) struct Servers {
    redis: Slot<Redis>,
    redis_aof: Slot<Redis>,
    redlock: Slot<Redlock>,
    etcd: Slot<Etcd>,
    postgres: Slot<Postgres>,
    mariadb: Slot<MariaDb>,
    zookeeper: Slot<ZooKeeper>,
    echo: Option<quic_echo::Server>,
    pub(crate) missing: Vec<Missing>,
}

/// A server that is started when it is first asked for, if it is to be had.
type Slot<S> = Option<Option<Arc<S>>>;

impl Servers {
    /// The echo of this run.
    pub(crate) fn echo(&mut self) -> Result<&quic_echo::Server> {
        if self.echo.is_none() {
            self.echo = Some(quic_echo::Server::start()?);
        }
        Ok(self.echo.as_ref().expect("made above"))
    }

    /// What is in a slot; started now, if it was never asked for.
    fn get<S>(
        &mut self,
        slot: fn(&mut Servers) -> &mut Slot<S>,
        start: impl FnOnce() -> Result<S, Missing>,
    ) -> Option<Arc<S>> {
        if slot(self).is_none() {
            let started = match start() {
                Ok(server) => Some(Arc::new(server)),
                Err(missing) => {
                    if !self.missing.contains(&missing) {
                        self.missing.push(missing);
                    }
                    None
                }
            };
            *slot(self) = Some(started);
        }
        slot(self).clone().flatten()
    }
}

/// Starts what is not running yet, and visits all that can be had.
pub(crate) fn services(
    servers: &mut Servers,
    grounds: &mut Grounds,
    visitor: &mut impl ServiceVisitor,
) -> Result<()> {
    let runtime = &*grounds.runtime()?;
    for durability in [Durability::Nothing, Durability::EveryWrite] {
        if let Some(redis) = redis(servers, grounds, durability)? {
            visitor.visit(&*redis)?;
        }
    }
    let directory = grounds.directory("redlock")?;
    if let Some(redlock) = servers.get(|all| &mut all.redlock, || Redlock::start(&directory)) {
        visitor.visit(&*redlock)?;
    }
    let directory = grounds.directory("etcd")?;
    if let Some(etcd) = servers.get(|all| &mut all.etcd, || Etcd::start(&directory, runtime)) {
        visitor.visit(&*etcd)?;
    }
    let directory = grounds.directory("zookeeper")?;
    let start = || ZooKeeper::start(&directory, runtime);
    if let Some(zookeeper) = servers.get(|all| &mut all.zookeeper, start) {
        visitor.visit(&*zookeeper)?;
    }
    if let Some(postgres) = servers.get(|all| &mut all.postgres, || Postgres::start(runtime)) {
        visitor.visit(&*postgres)?;
    }
    let directory = grounds.directory("mariadb")?;
    let start = || MariaDb::start(&directory, runtime);
    if let Some(mariadb) = servers.get(|all| &mut all.mariadb, start) {
        visitor.visit(&*mariadb)?;
    }
    Ok(())
}

pub(crate) fn etcd(servers: &mut Servers, grounds: &mut Grounds) -> Result<Option<Arc<Etcd>>> {
    let (runtime, directory) = (grounds.runtime()?, grounds.directory("etcd")?);
    Ok(servers.get(|all| &mut all.etcd, || Etcd::start(&directory, &runtime)))
}

pub(crate) fn redis(
    servers: &mut Servers,
    grounds: &Grounds,
    durability: Durability,
) -> Result<Option<Arc<Redis>>> {
    let (directory, slot): (_, fn(&mut Servers) -> &mut Slot<Redis>) = match durability {
        Durability::Nothing => ("redis", |all| &mut all.redis),
        Durability::EveryWrite => ("redis-aof", |all| &mut all.redis_aof),
    };
    let directory = grounds.directory(directory)?;
    Ok(servers.get(slot, || Redis::start(&directory, durability)))
}
