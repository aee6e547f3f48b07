//! Redis, used as its documentation says for one instance: `SET key token NX PX ttl`, and a script
//! that deletes the key only if it still holds the token.

use std::sync::Arc;

use redis::{IntoConnectionInfo, Script, io::tcp::TcpSettings};
use tokio::runtime::Runtime;

use super::{Missing, server};
use crate::bench::{
    cleanup::OwnChild,
    failure::{Failure, Result},
    grounds::Grounds,
    tasks::Client as AsyncClient,
};

const LIFETIME_MS: u32 = 30_000;
const COMPARE_AND_DELETE: &str = r"
    if redis.call('get', KEYS[1]) == ARGV[1] then
        return redis.call('del', KEYS[1])
    else
        return 0
    end";

/// A Redis of this run's own.
pub(crate) struct Server {
    _child: OwnChild,
    client: redis::Client,
}

/// The Redis of this run, if there is one to be had.
pub(crate) fn server(grounds: &mut Grounds) -> Result<Option<&Server>> {
    if grounds.peers.redis.is_none() {
        let Some(program) = server::find("redis-server") else {
            let missing = Missing { program: "redis-server", package: "redis-server" };
            if !grounds.peers.missing.contains(&missing) {
                grounds.peers.missing.push(missing);
            }
            return Ok(None);
        };
        let directory = grounds.directory("redis")?;
        let (child, port) = server::start("redis", &program, |port| {
            let directory = directory.display().to_string();
            let port = port.to_string();
            [
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--dir",
                &directory,
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
            ]
            .map(str::to_owned)
            .into()
        })?;
        let address = format!("redis://127.0.0.1:{port}/")
            .into_connection_info()
            .map_err(Failure::peer("redis"))?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = redis::Client::open(address).map_err(Failure::peer("redis"))?;
        grounds.peers.redis = Some(Server { _child: child, client });
    }
    Ok(grounds.peers.redis.as_ref())
}

impl Server {
    /// A blocking client with a connection of its own.
    pub(crate) fn sync_client(&self, key: &str) -> Result<SyncClient> {
        let connection = self.client.get_connection().map_err(Failure::peer("redis-sync"))?;
        Ok(SyncClient { connection, lock: Lock::new(key) })
    }

    /// An asynchronous client with a multiplexed connection of its own.
    pub(crate) fn client(&self, runtime: &Runtime, key: &str) -> Result<Client> {
        let connection = runtime
            .block_on(self.client.get_multiplexed_async_connection())
            .map_err(Failure::peer("redis"))?;
        Ok(Client { connection, lock: Lock::new(key) })
    }
}

/// One key, and a token that is new for every locking.
struct Lock {
    key: String,
    script: Arc<Script>,
    count: u64,
}

impl Lock {
    fn new(key: &str) -> Lock {
        Lock { key: key.into(), script: Arc::new(Script::new(COMPARE_AND_DELETE)), count: 0 }
    }

    fn next_token(&mut self) -> String {
        self.count += 1;
        format!("{:08x}{:08x}", std::process::id(), self.count)
    }

    fn set(&self, token: &str) -> redis::Cmd {
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(token).arg("NX").arg("PX").arg(LIFETIME_MS);
        set
    }
}

fn expect(subject: &'static str, locked: Option<String>, deleted: u32) -> Result<()> {
    match (locked.is_some(), deleted) {
        (true, 1) => Ok(()),
        (false, _) => Err(Failure::Peer { subject, message: "the key was taken".into() }),
        (true, _) => Err(Failure::Peer { subject, message: "the key was gone".into() }),
    }
}

pub(crate) struct SyncClient {
    connection: redis::Connection,
    lock: Lock,
}

impl SyncClient {
    pub(crate) fn cycle(&mut self) -> Result<()> {
        let token = self.lock.next_token();
        let failed = Failure::peer("redis-sync");
        let locked = self
            .lock
            .set(&token)
            .query(&mut self.connection)
            .map_err(Failure::peer("redis-sync"))?;
        let deleted = self
            .lock
            .script
            .key(&self.lock.key)
            .arg(&token)
            .invoke(&mut self.connection)
            .map_err(failed)?;
        expect("redis-sync", locked, deleted)
    }
}

pub(crate) struct Client {
    connection: redis::aio::MultiplexedConnection,
    lock: Lock,
}

impl Client {
    /// Another key over the same connection.
    pub(crate) fn sharing(&self, key: &str) -> Client {
        let lock = Lock { script: self.lock.script.clone(), ..Lock::new(key) };
        Client { connection: self.connection.clone(), lock }
    }
}

impl AsyncClient for Client {
    async fn cycle(&mut self) -> Result<()> {
        let token = self.lock.next_token();
        let locked = self
            .lock
            .set(&token)
            .query_async(&mut self.connection)
            .await
            .map_err(Failure::peer("redis"))?;
        let deleted = self
            .lock
            .script
            .key(&self.lock.key)
            .arg(&token)
            .invoke_async(&mut self.connection)
            .await
            .map_err(Failure::peer("redis"))?;
        expect("redis", locked, deleted)
    }
}
