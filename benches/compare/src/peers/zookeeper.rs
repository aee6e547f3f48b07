//! ZooKeeper, one node, through its lock recipe: an ephemeral sequential node per locking, with
//! the names that Apache Curator gives them. The crate deletes the node in the background when
//! its guard is dropped, as Curator does not: the release is sent, not awaited.

use std::{fs, net::Ipv4Addr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use tokio::runtime::Runtime;
use zookeeper_client::{Acls, Client as Connection, CreateMode, LockOptions, LockPrefix};

use super::{
    server::{self, Become, Server},
    service::{EngineUrl, Missing, Service, of_peer},
};
use crate::bench::{failure::Result, stats::Unprotected, tasks};

const SUBJECT: &str = "zookeeper";
/// Where Debian puts it.
const JAR: &str = "/usr/share/java/zookeeper.jar";

pub(crate) struct ZooKeeper {
    server: Server,
}

impl ZooKeeper {
    pub(crate) fn start(directory: &Path, runtime: &Runtime) -> Result<ZooKeeper, Missing> {
        let missing = Missing::new("zookeeper", "zookeeper");
        let java = server::find("java").ok_or(missing.clone())?;
        let jar = PathBuf::from(JAR);
        if !jar.is_file() {
            return Err(missing);
        }
        let settings = directory.join("zoo.cfg");
        let server = Server::start(|port| {
            let written = fs::write(&settings, settings_for(directory, port));
            // Then it does not start, and says so.
            drop(written);
            Become::new(
                &java,
                [
                    "-Xmx512m",
                    "-cp",
                    JAR,
                    "org.apache.zookeeper.server.ZooKeeperServerMain",
                    &settings.display().to_string(),
                ],
            )
        })
        .map_err(missing.because())?;
        let mut zookeeper = ZooKeeper { server };
        let address = zookeeper.address();
        zookeeper
            .server
            .until_ready(|| runtime.block_on(connect(&address)).map_err(|error| error.to_string()))
            .map_err(missing.because())?;
        Ok(zookeeper)
    }

    fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.server.port)
    }
}

fn settings_for(directory: &Path, port: u16) -> String {
    format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\n\
         maxClientCnxns=0\nadmin.enableServer=false\n",
        directory.display()
    )
}

async fn connect(address: &str) -> Result<Connection, zookeeper_client::Error> {
    Connection::connector().with_session_timeout(Duration::from_secs(30)).connect(address).await
}

impl Service for ZooKeeper {
    type Client = Client;

    fn subject(&self) -> &'static str {
        SUBJECT
    }

    fn note(&self) -> &'static str {
        "one node, Curator's recipe, release not awaited; synced to disk; in order"
    }

    fn engine(&self) -> Option<EngineUrl> {
        let engine = EngineUrl::new("on zookeeper", format!("zookeeper://{}", self.address()));
        Some(EngineUrl { is_release_awaited: false, ..engine })
    }

    async fn client(&self, name: &str, count: Arc<Unprotected>) -> Result<Client> {
        let connection = connect(&self.address()).await.map_err(of_peer(SUBJECT))?;
        Ok(Client { connection, parent: parent(name), count })
    }

    fn sharing(&self, client: &Client, name: &str) -> Option<Client> {
        Some(Client { parent: parent(name), ..client.clone() })
    }
}

fn parent(name: &str) -> String {
    format!("/locks/{name}")
}

#[derive(Clone)]
pub(crate) struct Client {
    connection: Connection,
    parent: String,
    count: Arc<Unprotected>,
}

impl tasks::AsyncCaller for Client {
    async fn cycle(&mut self) -> Result<()> {
        let failed = || of_peer::<zookeeper_client::Error>(SUBJECT);
        let prefix = LockPrefix::new_curator(&self.parent, "lock-").map_err(failed())?;
        let acls = Acls::anyone_all();
        let options = LockOptions::new(acls)
            .with_ancestor_options(CreateMode::Persistent.with_acls(acls))
            .map_err(failed())?;
        let guard = self.connection.lock(prefix, b"", options).await.map_err(failed())?;
        self.count.increment();
        drop(guard);
        Ok(())
    }
}
