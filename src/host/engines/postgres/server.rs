//! The way to a PostgreSQL server: where it is, as which user, and what its errors mean.
//!
//! It knows nothing of locks. Of several addresses the first that takes writes is the server.

use std::{future::Future, path::PathBuf, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tokio_postgres::{Client, Config, Connection, NoTls, config::SslMode, error::SqlState};

use super::{
    secured::{self, RustlsConnect, TellingHandshake},
    told_pid::{ToldPid, ToldPidStream},
};
use crate::{
    error::Result,
    host::{
        engines::{
            fault::EngineFault,
            store_tls::{StoreTls, certificate_trouble},
        },
        service_url::{Password, ServiceUrl},
    },
};

/// A server, or several of which one takes writes.
pub(in crate::host) struct PostgresServer {
    shown: String,
    addresses: Vec<(String, u16)>,
    database: Option<String>,
    user: Option<String>,
    password: Option<Password>,
    password_file: Option<PathBuf>,
    tls: Option<StoreTls>,
    /// How long an answer is waited for.
    patience: Duration,
}

/// A connection to one. It ends when this is dropped, whatever the server is doing for it.
pub(in crate::host) struct PostgresConnection {
    pub(in crate::host) client: Client,
    address: (String, u16),
    /// As `server_version_num`.
    pub(in crate::host) version: i32,
    /// It came through something that answers for the server.
    pub(in crate::host) is_pooled: bool,
    driver: AbortHandle,
    /// Ready once the connection has ended, from either side.
    pub(in crate::host) ended: Option<JoinHandle<()>>,
}

/// What a new connection asks, to know where it has come to.
const WHERE: &str = "SELECT pg_is_in_recovery(), pg_backend_pid(), \
     current_setting('server_version_num')::int4";

/// The kernel counts these in whole seconds.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

impl PostgresServer {
    pub(in crate::host) fn new(url: &mut ServiceUrl, patience: Duration) -> Result<PostgresServer> {
        let password_file = url.take_password_file()?;
        let from_file = password_file.as_deref().map(Password::read).transpose()?;
        let addresses = url.addresses.iter().map(|address| url.host_and_port(address, 5432));
        if url.path.contains('/') {
            return Err(url.refuse("the path is the database: postgres://HOST/DATABASE"));
        }
        Ok(PostgresServer {
            shown: url.shown(),
            addresses: addresses.collect::<Result<_>>()?,
            database: Some(url.path.clone()).filter(|path| !path.is_empty()),
            user: url.user.clone(),
            password: url.password.clone().or(from_file),
            password_file,
            tls: StoreTls::take(url)?,
            patience,
        })
    }

    pub(in crate::host) fn shown(&self) -> &str {
        &self.shown
    }

    pub(in crate::host) fn patience(&self) -> Duration {
        self.patience
    }

    /// Connects to the first address whose server takes writes. `application` is what the server
    /// shows of it.
    pub(in crate::host) async fn connect(
        &self,
        application: &str,
    ) -> Result<PostgresConnection, EngineFault> {
        let mut trouble = None;
        for address in &self.addresses {
            match self.connect_to(address, application).await {
                Ok(connection) => return Ok(connection),
                // What will not change is told before what may.
                Err(fault) => match &trouble {
                    Some(EngineFault::Final(_)) => {}
                    _ => trouble = Some(fault),
                },
            }
        }
        Err(trouble.expect("a service has an address"))
    }

    async fn connect_to(
        &self,
        address: &(String, u16),
        application: &str,
    ) -> Result<PostgresConnection, EngineFault> {
        let mut config = Config::new();
        config.application_name(application);
        if let Some(user) = &self.user {
            config.user(user);
        }
        if let Some(database) = &self.database {
            config.dbname(database);
        }
        let read = self.password_file.as_deref().and_then(|file| Password::read(file).ok());
        if let Some(password) = read.as_ref().or(self.password.as_ref()) {
            config.password(password.reveal());
        }
        let (stream, told) = (self.stream_to(address).await?, ToldPid::new());
        let (client, driving) = match &self.tls {
            None => {
                let stream = ToldPidStream::new(stream, told.clone());
                config.ssl_mode(SslMode::Disable);
                self.started(config.connect_raw(stream, NoTls)).await?
            }
            Some(tls) => {
                let inner = self.handshake(tls, &address.0)?;
                let handshake = TellingHandshake { inner, told: told.clone() };
                config.ssl_mode(SslMode::Require);
                self.started(config.connect_raw(stream, handshake)).await?
            }
        };
        let mut connection = PostgresConnection {
            client,
            address: address.clone(),
            version: 0,
            is_pooled: false,
            driver: driving.abort_handle(),
            ended: Some(driving),
        };
        let row = self.within(connection.client.query_typed_one(WHERE, &[])).await?;
        let (is_standby, pid, version): (bool, i32, i32) = (row.get(0), row.get(1), row.get(2));
        if is_standby {
            let (host, port) = address;
            return Err(EngineFault::Trouble(format!(
                "{host}:{port} is a standby, whose locks no other server knows: name the primary too"
            )));
        }
        connection.version = version;
        connection.is_pooled = told.pid() != Some(pid);
        Ok(connection)
    }

    /// A connection that is made in time, and driven.
    async fn started<S, T>(
        &self,
        connecting: impl Future<Output = Result<(Client, Connection<S, T>), tokio_postgres::Error>>,
    ) -> Result<(Client, JoinHandle<()>), EngineFault>
    where
        Connection<S, T>: Future + Send + 'static,
    {
        let connected = timeout(self.patience, connecting).await.map_err(|_| self.silent())?;
        let (client, connection) = connected.map_err(|error| self.fault(&error))?;
        let driving = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok((client, driving))
    }

    fn handshake(&self, tls: &StoreTls, host: &str) -> Result<RustlsConnect, EngineFault> {
        let begun = secured::handshake(tls, host);
        begun.map_err(|error| EngineFault::config(format!("{}: {error}", self.shown)))
    }

    async fn stream_to(&self, address: &(String, u16)) -> Result<TcpStream, EngineFault> {
        let (host, port) = address;
        let trouble = |what: String| EngineFault::Trouble(format!("{host}:{port}: {what}"));
        let opened = timeout(self.patience, TcpStream::connect((&**host, *port))).await;
        let stream = opened
            .map_err(|_| trouble(format!("no connection within {:.1?}", self.patience)))?
            .map_err(|error| trouble(error.to_string()))?;
        // A wait for a lock is silent for as long as it takes: the kernel asks whether the server's
        // machine is still there.
        let pause = self.patience.max(KEEPALIVE_MIN);
        let keepalive = TcpKeepalive::new().with_time(pause).with_interval(pause);
        let kept = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        kept.and_then(|()| stream.set_nodelay(true)).map_err(|error| trouble(error.to_string()))?;
        Ok(stream)
    }

    /// Asks the server to end what a connection is doing. It may have ended before.
    pub(in crate::host) async fn cancel(
        &self,
        connection: &PostgresConnection,
    ) -> Result<(), EngineFault> {
        let token = connection.client.cancel_token();
        let stream = self.stream_to(&connection.address).await?;
        match &self.tls {
            None => self.within(token.cancel_query_raw(stream, NoTls)).await,
            Some(tls) => {
                let handshake = self.handshake(tls, &connection.address.0)?;
                self.within(token.cancel_query_raw(stream, handshake)).await
            }
        }
    }

    /// Its answer, if one comes in time. The server may do it all the same if none does.
    pub(in crate::host) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, EngineFault> {
        match timeout(self.patience, call).await {
            Ok(answer) => answer.map_err(|error| self.fault(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> EngineFault {
        EngineFault::silent(&self.shown, self.patience)
    }

    pub(in crate::host) fn fault(&self, error: &tokio_postgres::Error) -> EngineFault {
        let shown = &self.shown;
        let Some(told) = error.as_db_error() else {
            if let Some(trouble) = certificate_trouble(error) {
                return EngineFault::refused(format!("{shown}: {trouble}"));
            }
            // Its causes say more than itself.
            let cause = std::error::Error::source(error);
            let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
            let text = format!("{shown}: {error}{cause}");
            return match text.contains("password missing") || text.contains("no password") {
                true => EngineFault::refused(format!("{shown} wants a password: ?password_file=")),
                false => EngineFault::Trouble(text),
            };
        };
        let text = told.message();
        match told.code() {
            code if *code == SqlState::INVALID_PASSWORD
                || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                EngineFault::refused(format!("{shown} refused the login: {text}"))
            }
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                EngineFault::refused(format!("{shown} does not let this user do that: {text}"))
            }
            code if *code == SqlState::INVALID_CATALOG_NAME => {
                EngineFault::config(format!("{shown}: {text}"))
            }
            code => EngineFault::Trouble(format!("{shown}: {text} ({})", code.code())),
        }
    }
}

impl PostgresConnection {
    /// Ends it at once: its server releases all that it holds.
    pub(in crate::host) fn close(&self) {
        self.driver.abort();
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        self.close();
    }
}
