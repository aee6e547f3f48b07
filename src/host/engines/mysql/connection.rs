//! The way to a MySQL or MariaDB server, and one connection to it.

use std::{future::Future, path::PathBuf, time::Duration};

use mysql_async::{
    Conn, DriverError, Error, Opts, OptsBuilder, Params, Row, SslOpts,
    prelude::{FromValue, Queryable},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    error::Result,
    host::{
        engines::{
            fault::EngineFault,
            store_tls::{NO_TLS, StoreTls, handshake_trouble, use_ring_by_default},
        },
        service_url::{Password, ServiceUrl},
    },
};

/// A server.
pub(super) struct MysqlServer {
    shown: String,
    address: (String, u16),
    database: String,
    user: Option<String>,
    password: Option<Password>,
    password_file: Option<PathBuf>,
    tls: Option<StoreTls>,
    /// How long an answer is waited for.
    patience: Duration,
}

/// A connection. It ends when this is dropped, whatever the server is doing for it.
pub(in super::super) struct MysqlConnection {
    questions: mpsc::UnboundedSender<MysqlQuestion>,
    task: AbortHandle,
    /// The server's number of it.
    id: u32,
}

/// One statement on its way, and where its answer goes.
struct MysqlQuestion {
    sql: String,
    given: Params,
    tell: oneshot::Sender<Result<MysqlAnswer, Error>>,
}

/// What a statement did.
pub(super) struct MysqlAnswer {
    pub(super) rows: Vec<Row>,
    /// Rows that it found or made.
    pub(super) found: u64,
    pub(super) last_id: u64,
}

impl MysqlAnswer {
    /// A column of the first row.
    pub(super) fn first<T: FromValue>(&self, column: usize) -> Option<T> {
        self.rows.first().and_then(|row| cell(row, column))
    }
}

/// What stands there; `None` for `NULL`.
pub(super) fn cell<T: FromValue>(row: &Row, column: usize) -> Option<T> {
    row.get_opt::<Option<T>, usize>(column)?.ok()?
}

/// Tells on its drop, however the task ends.
struct EndTold<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for EndTold<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

impl MysqlServer {
    pub(super) fn new(url: &mut ServiceUrl, patience: Duration) -> Result<MysqlServer> {
        let tls = StoreTls::take(url)?;
        let password_file = url.take_password_file()?;
        let from_file = password_file.as_deref().map(Password::read).transpose()?;
        let [address] = &*url.addresses else {
            return Err(url.refuse("locks are on one server: name the primary alone"));
        };
        let address = url.host_and_port(address, 3306)?;
        if url.path.is_empty() || url.path.contains('/') {
            return Err(url.refuse("the path is the database: mysql://HOST/DATABASE"));
        }
        let password = url.password.clone().or(from_file);
        let (shown, database, user) = (url.shown(), url.path.clone(), url.user.clone());
        Ok(MysqlServer { shown, address, database, user, password, password_file, tls, patience })
    }

    /// Has the server prove which one it is, by its name; one without TLS is told nothing.
    fn secured(&self) -> Option<SslOpts> {
        let tls = self.tls.as_ref()?;
        // The client makes its own configuration, out of what the process has.
        use_ring_by_default();
        let roots = tls.certificates().iter().map(|root| root.to_vec().into()).collect();
        Some(SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(true))
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Connects; `on_end` is called once the connection has ended. A session that is silent for
    /// `time_to_live` is ended by the server.
    pub(super) async fn connect(
        &self,
        time_to_live: Duration,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<MysqlConnection, EngineFault> {
        let read = self.password_file.as_deref().and_then(|file| Password::read(file).ok());
        let password = read.as_ref().or(self.password.as_ref());
        let seconds = time_to_live.as_millis().div_ceil(1000).max(1) as usize;
        let (host, port) = &self.address;
        let options: Opts = OptsBuilder::default()
            .ip_or_hostname(host.clone())
            .tcp_port(*port)
            .user(self.user.clone())
            .pass(password.map(|password| password.reveal().to_owned()))
            .db_name(Some(self.database.clone()))
            .ssl_opts(self.secured())
            .prefer_socket(false)
            .tcp_nodelay(true)
            // A wait for a lock is silent for as long as it takes: the kernel asks whether the
            // server's machine is still there.
            .tcp_keepalive(Some(self.patience.max(Duration::from_secs(1))))
            .client_found_rows(true)
            .wait_timeout(Some(seconds))
            .into();
        let connecting = timeout(self.patience, Conn::new(options)).await;
        let connected = connecting.map_err(|_| self.silent())?;
        let conn = connected.map_err(|error| self.fault(&error))?;
        let id = conn.id();
        let (questions, asked) = mpsc::unbounded_channel();
        let told = EndTold(Some(on_end));
        let task = tokio::spawn(carry(conn, asked, told)).abort_handle();
        let connection = MysqlConnection { questions, task, id };
        // A limit of a statement's time would end a wait.
        let version = self.within(connection.ask("SELECT @@version", ())).await?;
        let is_mariadb = version.first(0).is_some_and(|text: String| text.contains("MariaDB"));
        let limit = if is_mariadb { "max_statement_time" } else { "max_execution_time" };
        let set = format!("SET SESSION wait_timeout = {seconds}, SESSION {limit} = 0");
        self.within(connection.ask(&set, ())).await?;
        Ok(connection)
    }

    /// Its answer, if one comes in time. The server may do it all the same if none does.
    pub(super) async fn within(
        &self,
        asked: impl Future<Output = Result<MysqlAnswer, Error>>,
    ) -> Result<MysqlAnswer, EngineFault> {
        match timeout(self.patience, asked).await {
            Ok(answer) => answer.map_err(|error| self.fault(&error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> EngineFault {
        EngineFault::silent(&self.shown, self.patience)
    }

    pub(super) fn fault(&self, error: &Error) -> EngineFault {
        let shown = &self.shown;
        let Error::Server(told) = error else {
            if matches!(error, Error::Driver(DriverError::NoClientSslFlagFromServer)) {
                return EngineFault::refused(format!("{shown}: {NO_TLS}"));
            }
            if let Some(trouble) = handshake_trouble(error) {
                return EngineFault::refused(format!("{shown}: {trouble}"));
            }
            return EngineFault::Trouble(format!("{shown}: {error}"));
        };
        let text = &told.message;
        match told.code {
            // Access denied, to the server or to a database; a plugin of the login that is missing.
            1044 | 1045 | 1698 => {
                EngineFault::refused(format!("{shown} refused the login: {text}"))
            }
            1142 | 1143 | 1227 | 1370 => {
                EngineFault::refused(format!("{shown} does not let this user do that: {text}"))
            }
            // No such database; the lock's name is refused.
            1049 | 3057 | 4163 => EngineFault::config(format!("{shown}: {text}")),
            code => EngineFault::Trouble(format!("{shown}: {text} ({code})")),
        }
    }
}

impl MysqlConnection {
    /// Sends a statement; it is carried out whether its answer is waited for or not.
    pub(super) fn ask<P: Into<Params>>(
        &self,
        sql: &str,
        given: P,
    ) -> impl Future<Output = Result<MysqlAnswer, Error>> + Send + use<P> {
        let (tell, told) = oneshot::channel();
        let question = MysqlQuestion { sql: sql.to_owned(), given: given.into(), tell };
        let _ = self.questions.send(question);
        let gone = || Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into());
        async move { told.await.unwrap_or_else(|_| Err(gone())) }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Ends it at once: its server releases all that it holds.
    pub(super) fn close(&self) {
        self.task.abort();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.questions.is_closed()
    }
}

impl Drop for MysqlConnection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Carries one statement after the other, until the connection has ended.
async fn carry<F: FnOnce()>(
    mut conn: Conn,
    mut asked: mpsc::UnboundedReceiver<MysqlQuestion>,
    _told: EndTold<F>,
) {
    while let Some(MysqlQuestion { sql, given, tell }) = asked.recv().await {
        let answer = match conn.exec::<Row, _, _>(sql, given).await {
            Ok(rows) => {
                let (found, last_id) = (conn.affected_rows(), conn.last_insert_id().unwrap_or(0));
                Ok(MysqlAnswer { rows, found, last_id })
            }
            Err(error) => Err(error),
        };
        let is_over = matches!(&answer, Err(Error::Io(_) | Error::Driver(_) | Error::Other(_)));
        let _ = tell.send(answer);
        if is_over {
            return;
        }
    }
}
