//! Redis, used as its documentation says for one instance: `SET key token NX PX ttl`, tried again
//! after a random pause while the key is taken, and a script that deletes the key only if it still
//! holds the token.

use std::{hash::Hasher, path::Path, sync::Arc, thread, time::Duration};

use redis::{AsyncConnectionConfig, IntoConnectionInfo, Script, io::tcp::TcpSettings};

use super::{
    server::{self, Become, Server},
    service::{EngineUrl, Missing, Service, of_peer},
};
use crate::bench::{failure::Result, stats::Unprotected, tasks::AsyncCaller};

const LIFETIME_MS: u32 = 30_000;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
const COMPARE_AND_DELETE: &str = r"
    if redis.call('get', KEYS[1]) == ARGV[1] then
        return redis.call('del', KEYS[1])
    else
        return 0
    end";

/// How much of it survives a crash of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Nothing,
    EveryWrite,
}

/// A Redis of this run's own.
pub(crate) struct Redis {
    durability: Durability,
    client: redis::Client,
    server: Server,
}

impl Redis {
    pub(crate) fn start(directory: &Path, durability: Durability) -> Result<Redis, Missing> {
        let missing = Missing::new("redis-server", "redis-server");
        let program = server::find("redis-server").ok_or(missing.clone())?;
        let directory = directory.display().to_string();
        let persistence = match durability {
            Durability::Nothing => ["--appendonly", "no", "--save", ""].as_slice(),
            Durability::EveryWrite => {
                &["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
            }
        };
        let server = Server::start(|port| {
            let port = port.to_string();
            let place = ["--port", &port, "--bind", "127.0.0.1", "--dir", &directory];
            Become::new(&program, place.iter().chain(persistence).copied())
        })
        .map_err(missing.because())?;
        let client = format!("redis://127.0.0.1:{}/", server.port)
            .into_connection_info()
            .map(|address| address.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
            .and_then(redis::Client::open)
            .map_err(missing.because())?;
        Ok(Redis { durability, client, server })
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    pub(super) fn handle(&self) -> redis::Client {
        self.client.clone()
    }

    pub(super) const fn sync_subject(&self) -> &'static str {
        match self.durability {
            Durability::Nothing => "redis-sync",
            Durability::EveryWrite => "redis-aof-always",
        }
    }

    /// A blocking client with a connection of its own, for these names.
    pub(super) fn sync_client<N: AsRef<str>>(&self, names: &[N]) -> Result<SyncClient> {
        let subject = self.sync_subject();
        let connection = self.client.get_connection().map_err(of_peer(subject))?;
        let locks = names.iter().map(|name| Lock::new(name.as_ref())).collect();
        Ok(SyncClient { subject, connection, locks })
    }

    /// What a reader must know to compare a client that waits.
    pub(super) fn note(&self) -> &'static str {
        match self.durability {
            Durability::Nothing => "SET NX PX, compare-and-delete awaited; no disk, order or token",
            Durability::EveryWrite => "the same, every write synced to disk before its answer",
        }
    }
}

impl Service for Redis {
    type Client = Client;

    fn subject(&self) -> &'static str {
        match self.durability {
            Durability::Nothing => "redis",
            Durability::EveryWrite => "redis-aof-always",
        }
    }

    fn note(&self) -> &'static str {
        self.note()
    }

    fn engine(&self) -> Option<EngineUrl> {
        let variant = match self.durability {
            Durability::Nothing => "on redis",
            Durability::EveryWrite => "on redis-aof-always",
        };
        Some(EngineUrl::new(variant, format!("redis://{}", self.address())))
    }

    async fn client(&self, name: &str, count: Arc<Unprotected>) -> Result<Client> {
        let subject = self.subject();
        // One that syncs every write of hundreds of tasks to a busy disk takes longer than the crate waits
        // by itself, and is slow then, not gone.
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config);
        let connection = connection.await.map_err(of_peer(subject))?;
        Ok(Client { subject, connection, lock: Lock::new(name), count })
    }

    fn sharing(&self, client: &Client, name: &str) -> Option<Client> {
        let lock = Lock { script: client.lock.script.clone(), ..Lock::new(name) };
        Some(Client { lock, ..client.clone() })
    }
}

/// One key, and a token that is new for every locking.
#[derive(Clone)]
struct Lock {
    key: String,
    script: Arc<Script>,
    tokens: u64,
}

impl Lock {
    fn new(key: &str) -> Lock {
        // A different start for every lock, even of one name.
        let tokens = std::hash::BuildHasher::build_hasher(&std::hash::RandomState::new()).finish();
        Lock { key: key.into(), script: Arc::new(Script::new(COMPARE_AND_DELETE)), tokens }
    }

    fn next_token(&mut self) -> String {
        // Knuth's MMIX: every state comes once in 2^64 steps.
        self.tokens = self
            .tokens
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", self.tokens)
    }

    fn set(&self, token: &str) -> redis::Cmd {
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(token).arg("NX").arg("PX").arg(LIFETIME_MS);
        set
    }

    /// Up to [`LONGEST_PAUSE`], by the token.
    fn pause(&self) -> Duration {
        LONGEST_PAUSE.mul_f64((self.tokens >> 40) as f64 / (1_u64 << 24) as f64)
    }
}

fn expect_deleted(subject: &'static str, deleted: u32) -> Result<()> {
    if deleted == 1 {
        return Ok(());
    }
    Err(of_peer(subject)("the key was gone before its time"))
}

pub(crate) struct SyncClient {
    subject: &'static str,
    connection: redis::Connection,
    locks: Vec<Lock>,
}

impl SyncClient {
    /// Locks the name of this number, waiting if it must, and unlocks after `section`.
    pub(super) fn cycle(&mut self, name: usize, section: &mut dyn FnMut()) -> Result<()> {
        let SyncClient { subject, connection, locks } = self;
        let failed = || of_peer::<redis::RedisError>(subject);
        let lock = &mut locks[name];
        let token = loop {
            let token = lock.next_token();
            let locked: Option<String> = lock.set(&token).query(connection).map_err(failed())?;
            if locked.is_some() {
                break token;
            }
            thread::sleep(lock.pause());
        };
        section();
        let deleted = lock.script.key(&lock.key).arg(&token).invoke(connection).map_err(failed())?;
        expect_deleted(subject, deleted)
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    subject: &'static str,
    connection: redis::aio::MultiplexedConnection,
    lock: Lock,
    count: Arc<Unprotected>,
}

impl Client {
    async fn lock(&mut self) -> redis::RedisResult<String> {
        loop {
            let token = self.lock.next_token();
            let locked: Option<String> =
                self.lock.set(&token).query_async(&mut self.connection).await?;
            if locked.is_some() {
                return Ok(token);
            }
            tokio::time::sleep(self.lock.pause()).await;
        }
    }
}

impl AsyncCaller for Client {
    async fn cycle(&mut self) -> Result<()> {
        let token = self.lock().await.map_err(of_peer(self.subject))?;
        self.count.increment();
        let deleted = self
            .lock
            .script
            .key(&self.lock.key)
            .arg(&token)
            .invoke_async(&mut self.connection)
            .await
            .map_err(of_peer(self.subject))?;
        expect_deleted(self.subject, deleted)
    }
}
