//! MariaDB's user locks: `GET_LOCK` and `RELEASE_LOCK`, prepared once per connection.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use mysql_async::{Conn, Opts, OptsBuilder, Statement, prelude::Queryable};
use tokio::runtime::Runtime;

use super::{
    server::{self, Become, Server},
    service::{EngineUrl, Missing, Service, of_peer},
};
use crate::bench::{failure::Result, stats::Unprotected, tasks};

const SUBJECT: &str = "mariadb";
/// Where tierlock counts its tokens.
const DATABASE: &str = "bench";

pub(crate) struct MariaDb {
    server: Server,
}

impl MariaDb {
    pub(crate) fn start(directory: &Path, runtime: &Runtime) -> Result<MariaDb, Missing> {
        let missing = Missing::new("mariadbd", "mariadb-server");
        let program = server::find("mariadbd").ok_or(missing.clone())?;
        let directory = directory.display().to_string();
        let server = Server::start(|port| {
            let mut arguments = vec![
                "--no-defaults".to_owned(),
                format!("--datadir={directory}"),
                format!("--tmpdir={directory}"),
                format!("--socket={directory}/socket"),
                format!("--pid-file={directory}/pid"),
                format!("--port={port}"),
                "--bind-address=127.0.0.1".into(),
                // Locks need no accounts and no tables: so nothing is installed into the directory.
                "--skip-grant-tables".into(),
                "--skip-log-bin".into(),
            ];
            if rustix::process::geteuid().is_root() {
                arguments.push("--user=root".into());
            }
            Become::new(&program, arguments)
        })
        .map_err(missing.because())?;
        let mut mariadb = MariaDb { server };
        let options = mariadb.options();
        mariadb
            .server
            .until_ready(|| {
                let ready = async {
                    let mut connection = Conn::new(options.clone()).await?;
                    connection.query_drop(format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")).await
                };
                runtime.block_on(ready).map_err(|error: mysql_async::Error| error.to_string())
            })
            .map_err(missing.because())?;
        Ok(mariadb)
    }

    fn options(&self) -> Opts {
        OptsBuilder::default()
            .ip_or_hostname(Ipv4Addr::LOCALHOST.to_string())
            .tcp_port(self.server.port)
            .user(Some("root"))
            .prefer_socket(false)
            .into()
    }
}

impl Service for MariaDb {
    type Client = Client;

    fn subject(&self) -> &'static str {
        SUBJECT
    }

    fn note(&self) -> &'static str {
        "GET_LOCK, release awaited; gone with the connection; no token"
    }

    fn engine(&self) -> Option<EngineUrl> {
        let url = format!("mysql://root@127.0.0.1:{}/{DATABASE}", self.server.port);
        Some(EngineUrl::new("on mariadb", url))
    }

    async fn client(&self, name: &str, count: Arc<Unprotected>) -> Result<Client> {
        let failed = || of_peer::<mysql_async::Error>(SUBJECT);
        let mut connection = Conn::new(self.options()).await.map_err(failed())?;
        let lock = connection.prep("SELECT GET_LOCK(?, 30)").await.map_err(failed())?;
        let unlock = connection.prep("SELECT RELEASE_LOCK(?)").await.map_err(failed())?;
        Ok(Client { connection, lock, unlock, name: name.into(), count })
    }
}

pub(crate) struct Client {
    connection: Conn,
    lock: Statement,
    unlock: Statement,
    name: String,
    count: Arc<Unprotected>,
}

impl Client {
    /// Asks one of the two, which answer 1 if they did it.
    async fn ask(&mut self, statement: Statement, what: &'static str) -> Result<()> {
        let done: Option<Option<u8>> = self
            .connection
            .exec_first(&statement, (&self.name,))
            .await
            .map_err(of_peer(SUBJECT))?;
        if done.flatten() == Some(1) {
            return Ok(());
        }
        Err(of_peer(SUBJECT)(format!("{what} did not succeed")))
    }
}

impl tasks::AsyncCaller for Client {
    async fn cycle(&mut self) -> Result<()> {
        self.ask(self.lock.clone(), "GET_LOCK").await?;
        self.count.increment();
        self.ask(self.unlock.clone(), "RELEASE_LOCK").await
    }
}
