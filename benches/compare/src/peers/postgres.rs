//! PostgreSQL's advisory locks: `pg_advisory_lock` and `pg_advisory_unlock`, prepared once per
//! connection.

use std::{fs, net::Ipv4Addr, os::unix::fs::chown, sync::Arc};

use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio_postgres::{Config, NoTls, Statement};

use super::{
    server::{self, Become, Server},
    service::{EngineUrl, Missing, Service, of_peer},
};
use crate::bench::{
    cleanup::Scratch,
    failure::{BenchFailure, Result},
    stats::Unprotected,
    tasks,
};

const SUBJECT: &str = "postgres";

/// A PostgreSQL of this run's own. Fields are dropped in order.
pub(crate) struct Postgres {
    server: Server,
    _data: Scratch,
}

impl Postgres {
    pub(crate) fn start(runtime: &Runtime) -> Result<Postgres, Missing> {
        let missing = Missing::new("postgres", "postgresql");
        let program = server::find("postgres").ok_or(missing.clone())?;
        let initdb = server::find("initdb").ok_or(missing.clone())?;
        // It refuses to run as root.
        let user = if rustix::process::geteuid().is_root() {
            let accounts = fs::read_to_string("/etc/passwd").map_err(missing.because())?;
            let user = account(&accounts, "postgres").or_else(|| account(&accounts, "nobody"));
            Some(user.ok_or_else(|| missing.because()("no user `postgres` or `nobody`"))?)
        } else {
            None
        };
        let data = Scratch::new().map_err(missing.because())?;
        if let Some((uid, gid)) = user {
            give(&data, uid, gid).map_err(missing.because())?;
        }
        let directory = data.path().display().to_string();
        let initdb = Become::new(
            &initdb,
            ["-D", &directory, "-U", "bench", "-A", "trust", "--no-sync", "--no-locale"],
        );
        initdb.by(user).run().map_err(missing.because())?;
        let server = Server::start(|port| {
            let port = port.to_string();
            let settings = [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "dynamic_shared_memory_type=mmap",
            ];
            let settings = settings.into_iter().flat_map(|setting| ["-c", setting]);
            let place = ["-D", &directory, "-p", &port].into_iter();
            // Ended at once, but not before it has given back its shared memory.
            Become::new(&program, place.chain(settings)).by(user).ended_by(Signal::QUIT)
        })
        .map_err(missing.because())?;
        let mut postgres = Postgres { server, _data: data };
        let config = postgres.config();
        // It listens before it serves.
        postgres
            .server
            .until_ready(|| {
                let connected = runtime.block_on(config.connect(NoTls));
                connected.map(drop).map_err(|error| error.to_string())
            })
            .map_err(missing.because())?;
        Ok(postgres)
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host(Ipv4Addr::LOCALHOST.to_string())
            .port(self.server.port)
            .user("bench")
            .dbname("postgres");
        config
    }
}

impl Service for Postgres {
    type Client = Client;

    fn subject(&self) -> &'static str {
        SUBJECT
    }

    fn note(&self) -> &'static str {
        "advisory locks, release awaited; gone with the connection; in order; no token"
    }

    fn engine(&self) -> Option<EngineUrl> {
        let url = format!("postgres://bench@127.0.0.1:{}/postgres", self.server.port);
        Some(EngineUrl::new("on postgres", url))
    }

    async fn client(&self, name: &str, count: Arc<Unprotected>) -> Result<Client> {
        let failed = || of_peer::<tokio_postgres::Error>(SUBJECT);
        let (client, connection) = self.config().connect(NoTls).await.map_err(failed())?;
        tokio::spawn(connection);
        let lock = client.prepare("SELECT pg_advisory_lock($1)").await.map_err(failed())?;
        let unlock = client.prepare("SELECT pg_advisory_unlock($1)").await.map_err(failed())?;
        Ok(Client { client, lock, unlock, key: key(name), count })
    }
}

pub(crate) struct Client {
    client: tokio_postgres::Client,
    lock: Statement,
    unlock: Statement,
    key: i64,
    count: Arc<Unprotected>,
}

impl tasks::AsyncCaller for Client {
    async fn cycle(&mut self) -> Result<()> {
        let failed = || of_peer::<tokio_postgres::Error>(SUBJECT);
        self.client.query_one(&self.lock, &[&self.key]).await.map_err(failed())?;
        self.count.increment();
        let unlocked = self.client.query_one(&self.unlock, &[&self.key]).await.map_err(failed())?;
        if unlocked.get::<_, bool>(0) {
            return Ok(());
        }
        Err(of_peer(SUBJECT)("a held lock was not held"))
    }
}

/// PostgreSQL's names are numbers (FNV-1a of ours).
fn key(name: &str) -> i64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
        .cast_signed()
}

/// Makes a directory another user's.
fn give(directory: &Scratch, uid: u32, gid: u32) -> Result<()> {
    let path = directory.path();
    chown(path, Some(uid), Some(gid))
        .map_err(BenchFailure::io(format!("cannot give {} away", path.display())))
}

/// Number and group of a user.
fn account(accounts: &str, user: &str) -> Option<(u32, u32)> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(user))?;
    let mut numbers = line.split(':').skip(2);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
