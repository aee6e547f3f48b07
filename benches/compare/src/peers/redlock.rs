//! Redlock over three Redis, through the crate rslock with its own defaults: a try every 200 ms at
//! most while the lock is taken.

use std::{path::Path, sync::Arc, time::Duration};

use rslock::LockManager;

use super::{
    redis::{Durability, Redis},
    service::{EngineUrl, Missing, Service, of_peer},
};
use crate::bench::{failure::Result, stats::Unprotected, tasks};

const LIFETIME: Duration = Duration::from_secs(30);

pub(crate) struct Redlock {
    servers: Vec<Redis>,
}

impl Redlock {
    pub(crate) fn start(directory: &Path) -> Result<Redlock, Missing> {
        let one = |number| {
            let directory = directory.join(format!("{number}"));
            std::fs::create_dir_all(&directory)
                .map_err(Missing::new("redis-server", "redis-server").because())?;
            Redis::start(&directory, Durability::Nothing)
        };
        Ok(Redlock { servers: (0..3).map(one).collect::<Result<_, _>>()? })
    }
}

impl Service for Redlock {
    type Client = Client;

    fn subject(&self) -> &'static str {
        "redlock-3"
    }

    fn note(&self) -> &'static str {
        "three Redis without disk, crate rslock; release awaited; no order, no token"
    }

    fn engine(&self) -> Option<EngineUrl> {
        let servers: Vec<_> = self.servers.iter().map(Redis::address).collect();
        let url = format!("redlock://{}?unfenced=1", servers.join(","));
        Some(EngineUrl::new("on redlock-3", url))
    }

    async fn client(&self, name: &str, count: Arc<Unprotected>) -> Result<Client> {
        let mut locks = LockManager::from_clients(self.servers.iter().map(Redis::handle).collect());
        locks.set_retry(u32::MAX, Duration::from_millis(200));
        Ok(Client { locks, name: name.into(), count })
    }
}

pub(crate) struct Client {
    locks: LockManager,
    name: String,
    count: Arc<Unprotected>,
}

impl tasks::AsyncCaller for Client {
    async fn cycle(&mut self) -> Result<()> {
        let lock =
            self.locks.lock(self.name.as_str(), LIFETIME).await.map_err(of_peer("redlock-3"))?;
        self.count.increment();
        self.locks.unlock(&lock).await;
        Ok(())
    }
}
