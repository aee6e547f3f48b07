//! One Redis server: a connection for commands, made anew when it breaks.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisResult, ScriptInvocation,
    ServerErrorKind,
    aio::{MultiplexedConnection, PubSub},
    io::tcp::TcpSettings,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    error::Result,
    host::{
        engines::{
            fault::EngineFault,
            store_tls::{StoreTls, handshake_trouble},
            tls_connection,
        },
        service_url::{Password, ServiceUrl},
    },
};

/// One server, and how it is logged in to.
pub(in super::super) struct RedisNode {
    host: String,
    port: u16,
    login: RedisLogin,
    /// How long an answer is waited for.
    patience: Duration,
    /// One attempt to connect at a time.
    connecting: tokio::sync::Mutex<()>,
    connection: Mutex<Option<MultiplexedConnection>>,
    /// What moves the bytes of a connection by TLS; without TLS the connection has it.
    task: Mutex<Option<ConnectionTask>>,
    /// Answers in a row that did not come in time. A command stays in order on its connection, so
    /// that is kept until it looks dead.
    silences: AtomicU32,
}

/// A task that ends with this.
struct ConnectionTask(AbortHandle);

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many commands are carried at once.
const AT_ONCE: usize = 100;

/// So many answers in a row that do not come end a connection.
const SILENCES_MAX: u32 = 3;

/// How one logs in.
#[derive(Clone)]
pub(in super::super) struct RedisLogin {
    user: Option<String>,
    password: Option<Password>,
    password_file: Option<PathBuf>,
    database: i64,
    tls: Option<StoreTls>,
}

impl RedisLogin {
    pub(in super::super) fn new(url: &mut ServiceUrl) -> Result<RedisLogin> {
        let tls = StoreTls::take(url)?;
        let password_file = url.take_password_file()?;
        let from_file = password_file.as_deref().map(Password::read).transpose()?;
        let database = match url.path.as_str() {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|number| *number >= 0)
                .ok_or_else(|| url.refuse("the path is the number of the database"))?,
        };
        let (user, password) = (url.user.clone(), url.password.clone().or(from_file));
        Ok(RedisLogin { user, password, password_file, database, tls })
    }

    /// The password as it is now: a file may have been exchanged.
    fn password(&self) -> Option<Password> {
        let read = self.password_file.as_deref().and_then(|file| Password::read(file).ok());
        read.or_else(|| self.password.clone())
    }
}

impl RedisNode {
    pub(in super::super) fn new(
        url: &ServiceUrl,
        address: &str,
        login: RedisLogin,
        patience: Duration,
    ) -> Result<RedisNode> {
        let (host, port) = url.host_and_port(address, 6379)?;
        Ok(RedisNode {
            host,
            port,
            login,
            patience,
            connecting: tokio::sync::Mutex::new(()),
            connection: Mutex::new(None),
            task: Mutex::new(None),
            silences: AtomicU32::new(0),
        })
    }

    pub(in super::super) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn settings(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default().set_db(self.login.database);
        if let Some(user) = &self.login.user {
            login = login.set_username(user);
        }
        if let Some(password) = self.login.password() {
            login = login.set_password(password.reveal());
        }
        login
    }

    fn client(&self) -> Result<Client, EngineFault> {
        let tcp = TcpSettings::default().set_nodelay(true);
        let address = ConnectionAddr::Tcp(self.host.clone(), self.port);
        let info = address.into_connection_info().map_err(|error| self.fault(&error))?;
        let info = info.set_redis_settings(self.settings()).set_tcp_settings(tcp);
        Client::open(info).map_err(|error| self.fault(&error))
    }

    /// A connection of its own for messages.
    pub(super) async fn listen(&self) -> Result<PubSub, EngineFault> {
        let listening = match &self.login.tls {
            Some(tls) => {
                let stream = self.secured(tls).await?;
                timeout(self.patience, PubSub::new(&self.settings(), stream)).await
            }
            None => timeout(self.patience, self.client()?.get_async_pubsub()).await,
        };
        match listening {
            Ok(listening) => listening.map_err(|error| self.fault(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    async fn secured(
        &self,
        tls: &StoreTls,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, EngineFault> {
        let connecting = tls_connection::connect(tls, &self.host, self.port);
        match timeout(self.patience, connecting).await {
            Ok(connected) => {
                connected.map_err(|error| tls_connection::fault(&self.shown(), &error))
            }
            Err(_) => Err(tls_connection::silent(&self.shown(), self.patience)),
        }
    }

    /// The client library's own TLS takes none but the process's cryptography.
    async fn secured_connection(
        &self,
        tls: &StoreTls,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, EngineFault> {
        let (stream, settings) = (self.secured(tls).await?, self.settings());
        let making = MultiplexedConnection::new_with_config(&settings, stream, config);
        let made = timeout(self.patience, making).await.map_err(|_| self.silent())?;
        let (connection, task) = made.map_err(|error| self.fault(&error))?;
        *self.task.lock() = Some(ConnectionTask(tokio::spawn(task).abort_handle()));
        Ok(connection)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, EngineFault> {
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = &*self.connection.lock() {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience));
        let connection = match &self.login.tls {
            Some(tls) => self.secured_connection(tls, config).await?,
            None => self
                .client()?
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| self.fault(&error))?,
        };
        self.silences.store(0, Relaxed);
        *self.connection.lock() = Some(connection.clone());
        Ok(connection)
    }

    /// Runs a script; what it did is unknown after an error.
    pub(in super::super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, EngineFault> {
        let mut connection = self.connection().await?;
        let answer = script.invoke_async(&mut connection).await;
        self.judge(answer)
    }

    /// Has a command carried.
    pub(in super::super) async fn send<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<T, EngineFault> {
        let mut connection = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        self.judge(answer)
    }

    /// Has a command for each of many things carried, a part of them at a time, since the answers to a
    /// part have to come within the patience. Those up to the first part that had none.
    pub(in super::super) async fn send_each<H, T: FromRedisValue>(
        &self,
        all: &[H],
        add: impl Fn(&mut Pipeline, &H),
    ) -> Vec<T> {
        let mut answers = Vec::with_capacity(all.len());
        for part in all.chunks(AT_ONCE) {
            let mut commands = redis::pipe();
            part.iter().for_each(|one| add(&mut commands, one));
            let Ok(mut connection) = self.connection().await else { break };
            let answered = self.judge(commands.query_async::<Vec<T>>(&mut connection).await);
            match answered {
                Ok(answered) if answered.len() == part.len() => answers.extend(answered),
                _ => break,
            }
        }
        answers
    }

    fn judge<T>(&self, answer: RedisResult<T>) -> Result<T, EngineFault> {
        let error = match answer {
            Ok(answer) => {
                self.silences.store(0, Relaxed);
                return Ok(answer);
            }
            Err(error) => error,
        };
        let is_dead = match error.is_timeout() {
            true => self.silences.fetch_add(1, Relaxed) + 1 >= SILENCES_MAX,
            false => error.is_io_error() || error.is_unrecoverable_error(),
        };
        if is_dead {
            *self.connection.lock() = None;
        }
        Err(self.fault(&error))
    }

    fn silent(&self) -> EngineFault {
        EngineFault::silent(self.shown(), self.patience)
    }

    fn fault(&self, error: &RedisError) -> EngineFault {
        use ServerErrorKind::{Ask, CrossSlot, Moved, NoPerm};
        let shown = self.shown();
        if error.is_timeout() {
            return self.silent();
        }
        // A server that wants a client's certificate says so after the handshake.
        if let Some(trouble) = self.login.tls.as_ref().and_then(|_| handshake_trouble(error)) {
            return EngineFault::refused(format!("{shown}: {trouble}"));
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => {
                EngineFault::refused(format!("{shown} refused the login: {error}"))
            }
            ErrorKind::InvalidClientConfig => EngineFault::config(format!("{shown}: {error}")),
            ErrorKind::Server(Moved | Ask | CrossSlot) => EngineFault::config(format!(
                "{shown} is a node of a Redis Cluster, which is not supported: name a server of its \
                 own"
            )),
            ErrorKind::Server(NoPerm) => {
                EngineFault::refused(format!("{shown} does not let this user do that: {error}"))
            }
            _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => {
                EngineFault::refused(format!("{shown} refused the login: {error}"))
            }
            _ => EngineFault::Trouble(format!("{shown}: {error}")),
        }
    }
}
