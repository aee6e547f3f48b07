//! PostgreSQL: advisory locks of a session, as any user of the same database and key takes them.
//!
//! The token is the next number of a sequence, drawn in the statement that takes the lock, and what
//! the holder is called stands in an unlogged table beside it, which `status` reads.
//!
//! The server releases a lock when its connection ends. Since version 14 it ends one that has been
//! silent for the time to live, so a holder that is stopped or cut off stands in no way for longer.
//!
//! What it cannot promise: a fail-over to a standby forgets which client holds what, and a standby that lags
//! counts tokens from an earlier number (pg_auto_failover#1028).

mod secured;
pub(in crate::host) mod server;
pub(super) mod shed_table;
mod statements;
mod told_pid;

use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::{
    Row, Statement,
    error::SqlState,
    types::{ToSql, Type},
};

use self::{
    server::{PostgresConnection, PostgresServer},
    statements::{KeyDialect, ModeStatements, Statements},
};
use super::{
    EngineSettings,
    advisory::{AdvisoryDatabase, AdvisoryEngine, SessionEnd, WantedKey, take_session_options},
    engine::{EngineFinding, EngineLock},
    fault::EngineFault,
    holder_line::HolderLine,
    patience,
};
use crate::{
    error::{Holder, LockError, Result},
    host::service_url::ServiceUrl,
    name::Name,
    token::Token,
};

/// Locks of one database.
pub(super) struct PostgresDatabase {
    url: ServiceUrl,
    server: PostgresServer,
    dialect: KeyDialect,
    statements: Statements,
    holder: HolderLine,
    /// As the server's list of sessions shows it.
    application: String,
    time_to_live: Duration,
    /// A pooler on the way gives each client a server connection of its own.
    is_session_pooled: bool,
    place: Mutex<Option<String>>,
}

/// A connection that is set up for locks.
pub(super) struct PostgresSession {
    connection: PostgresConnection,
    /// Of locks that one session has, and of those that are shared.
    modes: [PreparedMode; 2],
}

/// What locks of one mode are taken and given up by.
struct PreparedMode {
    take: Statement,
    wait: Statement,
    give: Statement,
}

/// A server's limit for the name of an application, in bytes.
const APPLICATION_MAX: usize = 63;

/// The engine of a `postgres://` URL. It touches no network.
pub(super) fn open(
    mut url: ServiceUrl,
    settings: &EngineSettings,
) -> Result<AdvisoryEngine<PostgresDatabase>> {
    let time_to_live = settings.time_to_live;
    let server = PostgresServer::new(&mut url, patience(time_to_live))?;
    let dialect = KeyDialect::of(url.take("key")?.as_deref()).ok_or_else(|| {
        url.refuse("the option key must be hashtext, with_advisory_lock or number")
    })?;
    let schema = url.take("schema")?.unwrap_or_else(|| "public".to_owned());
    let is_plain = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if schema.is_empty() || !schema.chars().all(is_plain) {
        return Err(url.refuse("the option schema must be a name of letters, digits and _"));
    }
    let (is_session_pooled, connections) = take_session_options(&mut url)?;
    url.finish("ca, connections, key, password_file, pooler, schema, sslmode")?;
    let mut application: String = format!("tierlock {}", settings.identity.label)
        .chars()
        .map(|char| if char.is_ascii_graphic() { char } else { ' ' })
        .collect();
    application.truncate(APPLICATION_MAX);
    let database = PostgresDatabase {
        url,
        server,
        dialect,
        statements: Statements::new(dialect, &schema),
        holder: HolderLine::new(&settings.identity),
        application,
        time_to_live,
        is_session_pooled,
        place: Mutex::new(None),
    };
    Ok(AdvisoryEngine::new(database, time_to_live, connections))
}

impl PostgresDatabase {
    async fn ask(
        &self,
        session: &PostgresSession,
        sql: &str,
        given: &[&str],
    ) -> Result<Vec<Row>, EngineFault> {
        let given = given.iter().map(|given| (given as _, Type::TEXT)).collect::<Vec<_>>();
        self.server.within(session.connection.client.query_typed(sql, &given)).await
    }

    /// Sees to it that the sequence and the table are there.
    async fn found(&self, connection: &PostgresConnection) -> Result<(), EngineFault> {
        let client = &connection.client;
        let there =
            self.server.within(client.query_typed_one(&self.statements.is_founded, &[])).await?;
        if there.get::<_, bool>(0) {
            return Ok(());
        }
        match client.batch_execute(&self.statements.found).await {
            Ok(()) => Ok(()),
            // Another manager does it at the same time.
            Err(error)
                if error.code() == Some(&SqlState::UNIQUE_VIOLATION)
                    || error.code() == Some(&SqlState::DUPLICATE_TABLE)
                    || error.code() == Some(&SqlState::DUPLICATE_OBJECT) =>
            {
                Err(EngineFault::Trouble("another manager sets the database up".to_owned()))
            }
            Err(error) => match self.server.fault(&error) {
                EngineFault::Final(error) => Err(EngineFault::Final(LockError::config(format!(
                    "{error}; have its owner run once: {}",
                    self.statements.found
                )))),
                fault => Err(fault),
            },
        }
    }

    async fn prepare(
        &self,
        connection: &PostgresConnection,
        mode: &ModeStatements,
    ) -> Result<PreparedMode, EngineFault> {
        let three = [Type::TEXT, Type::TEXT, Type::TEXT];
        let client = &connection.client;
        let (take, wait, give) = tokio::join!(
            self.server.within(client.prepare_typed(&mode.take, &three)),
            self.server.within(client.prepare_typed(&mode.wait, &three)),
            self.server.within(client.prepare_typed(&mode.give, &three[..2])),
        );
        Ok(PreparedMode { take: take?, wait: wait?, give: give? })
    }

    fn refuse_pooler(&self) -> EngineFault {
        let shown = self.server.shown();
        EngineFault::config(format!(
            "{shown} is a pooler or another go-between, where a session has no backend of its own: two \
             sessions would get one lock; name the server itself, or say `?pooler=session` if it is a \
             pooler in session mode"
        ))
    }

    async fn learn_place(&self, connection: &PostgresConnection) {
        if self.place.lock().is_some() {
            return;
        }
        let asked = connection.client.query_typed_one(statements::PLACE, &[]);
        if let Ok(row) = self.server.within(asked).await {
            let (system, database): (i64, String) = (row.get(0), row.get(1));
            let schema = &self.statements.schema;
            let key = self.dialect.as_str();
            let place = format!(
                "PostgreSQL system {}, database {database:?}, schema {schema:?}, keys by {key}",
                system as u64
            );
            *self.place.lock() = Some(place);
        }
    }

    /// Draws tokens beyond the one that the machine knows.
    async fn raise(
        &self,
        session: &PostgresSession,
        wanted: &WantedKey,
    ) -> Result<Token, EngineFault> {
        let client = &session.connection.client;
        let above = wanted.above.get();
        let sql = self.statements.raise(above);
        if let Err(error) = self.server.within(client.batch_execute(&sql)).await {
            let shown = self.server.shown();
            let sequence = &self.statements.sequence;
            let EngineFault::Final(error) = error else { return Err(error) };
            return Err(EngineFault::config(format!(
                "the tokens of {shown} are below {above}, which this machine knows of that name, and \
                 only the sequence's owner can raise them: SELECT setval('{sequence}', {above}) \
                 ({error})"
            )));
        }
        let rows = self.ask(session, &self.statements.draw, &[wanted.name.as_str()]).await?;
        let token = rows.first().and_then(token_of).filter(|token| *token > wanted.above);
        token.ok_or_else(|| {
            EngineFault::config(format!("the sequence {} is at its end", self.statements.sequence))
        })
    }
}

fn token_of(row: &Row) -> Option<Token> {
    let token: Option<i64> = row.try_get(0).ok()?;
    Token::new(u64::try_from(token?).ok()?)
}

impl AdvisoryDatabase for PostgresDatabase {
    type Connection = PostgresSession;

    fn shown(&self) -> String {
        self.url.shown()
    }

    fn shares(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        self.server.patience()
    }

    fn key(&self, name: &Name) -> Result<String> {
        self.dialect.key(name)
    }

    async fn open(&self, end: SessionEnd) -> Result<PostgresSession, EngineFault> {
        let mut connection = self.server.connect(&self.application).await?;
        if let Some(ended) = connection.ended.take() {
            tokio::spawn(async move {
                let _ = ended.await;
                end.tell();
            });
        }
        if connection.is_pooled && !self.is_session_pooled {
            return Err(self.refuse_pooler());
        }
        self.found(&connection).await?;
        let client = &connection.client;
        let (settings, tidy) = (self.statements.settings(self.time_to_live), &self.statements.tidy);
        let setting = format!("{settings}; {tidy}");
        // All of these are on their way at once.
        let [sole, shared] = &self.statements.modes;
        let (set, sole, shared, ()) = tokio::join!(
            self.server.within(client.batch_execute(&setting)),
            self.prepare(&connection, sole),
            self.prepare(&connection, shared),
            self.learn_place(&connection),
        );
        set?;
        let modes = [sole?, shared?];
        Ok(PostgresSession { connection, modes })
    }

    async fn take(
        &self,
        session: &PostgresSession,
        wanted: &WantedKey,
        waits: bool,
    ) -> Result<Option<Token>, EngineFault> {
        let mode = &session.modes[usize::from(wanted.is_shared)];
        let statement = if waits { &mode.wait } else { &mode.take };
        let (key, name, holder) = (&*wanted.key, wanted.name.as_str(), self.holder.text());
        // It takes as long as it takes.
        let asked = session.connection.client.query(statement, &[&key, &name, &holder]).await;
        let rows = asked.map_err(|error| self.server.fault(&error))?;
        let Some(row) = rows.first() else { return Ok(None) };
        match token_of(row) {
            Some(token) if token > wanted.above => Ok(Some(token)),
            _ => self.raise(session, wanted).await.map(Some),
        }
    }

    async fn give(
        &self,
        session: &PostgresSession,
        wanted: &WantedKey,
    ) -> Result<bool, EngineFault> {
        let (key, name) = (&*wanted.key, wanted.name.as_str());
        let (client, mode) = (&session.connection.client, usize::from(wanted.is_shared));
        let rows = match client.query(&session.modes[mode].give, &[&key, &name]).await {
            Ok(rows) => rows,
            // What it is called can stay in the table: the lock is what counts.
            Err(error) if error.as_db_error().is_some() => {
                self.ask(session, &self.statements.modes[mode].give_alone, &[key]).await?
            }
            Err(error) => return Err(self.server.fault(&error)),
        };
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn are_wanted(
        &self,
        session: &PostgresSession,
        held: &[WantedKey],
    ) -> Result<Vec<bool>, EngineFault> {
        let keys: Vec<&str> = held.iter().map(|held| &*held.key).collect();
        let client = &session.connection.client;
        let given: [(&(dyn ToSql + Sync), Type); 1] = [(&keys, Type::TEXT_ARRAY)];
        let asked = client.query_typed(&self.statements.are_wanted, &given);
        Ok(self.server.within(asked).await?.iter().map(|row| row.get(0)).collect())
    }

    async fn ping(&self, session: &PostgresSession) -> Result<bool, EngineFault> {
        let rows = self.ask(session, statements::PING, &[]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn interrupt(&self, session: &PostgresSession) {
        let _ = self.server.cancel(&session.connection).await;
    }

    fn close(&self, session: &PostgresSession) {
        session.connection.close();
    }

    async fn look(
        &self,
        session: &PostgresSession,
        only: Option<&Name>,
    ) -> Result<Vec<EngineLock>, EngineFault> {
        let rows = match only {
            Some(name) => {
                let key = self.key(name).map_err(EngineFault::Final)?;
                self.ask(session, &self.statements.look_at, &[&key, name.as_str()]).await?
            }
            None => self.ask(session, &self.statements.look, &[]).await?,
        };
        let mut found: Vec<EngineLock> = Vec::new();
        for row in &rows {
            let name = match only {
                Some(name) => name.clone(),
                None => match Name::new(row.get::<_, &str>("name")) {
                    Ok(name) => name,
                    Err(_) => continue,
                },
            };
            let (is_granted, holder) = seen(row);
            let token = holder.token.unwrap_or(Token::ZERO);
            // Each that shares it is shown as a holder of its own.
            match found.iter_mut().find(|lock| lock.name == name) {
                Some(lock) if !is_granted => lock.waiters.push(holder),
                _ => {
                    let (holder, waiters) = match is_granted {
                        true => (Some(holder), Vec::new()),
                        false => (None, vec![holder]),
                    };
                    let (is_reserved, remaining) = (false, None);
                    found.push(EngineLock { name, token, holder, is_reserved, remaining, waiters });
                }
            }
        }
        Ok(found)
    }

    async fn examine(&self, session: &PostgresSession) -> Result<Vec<EngineFinding>, EngineFault> {
        let rows = self.ask(session, statements::EXAMINE, &[]).await?;
        let row = rows.first().ok_or_else(|| EngineFault::Trouble("no answer".to_owned()))?;
        let text = |column: &str| row.get::<_, Option<String>>(column).unwrap_or_default();
        let shown = self.server.shown();
        let mut found =
            vec![EngineFinding::fine(format!("{shown} answers: PostgreSQL {}", text("version")))];
        if session.connection.version < 140_000 {
            found.push(EngineFinding::note(
                "before version 14 it ends no session that has gone silent: a holder that is stopped, \
                 or cut off in silence, keeps its lock until TCP gives up",
            ));
        }
        if session.connection.is_pooled {
            found.push(EngineFinding::note(
                "it is reached through a pooler, which has to be in session mode",
            ));
        }
        if text("replicas") != "0" && text("synchronous").is_empty() {
            found.push(EngineFinding::note(
                "it has replicas and none is synchronous (synchronous_standby_names): a fail-over takes \
                 tokens back, and forgets which client holds what",
            ));
        }
        if text("fsync") != "on" {
            found.push(EngineFinding::trouble("fsync is off: a crash can take tokens back"));
        }
        Ok(found)
    }

    fn place(&self) -> Option<String> {
        self.place.lock().clone()
    }

    fn break_advice(&self, name: &Name) -> String {
        let key = self.dialect.key(name).unwrap_or_default();
        format!(
            "psql -c \"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE granted AND {}\"",
            self.dialect.matches("pg_locks", &format!("'{}'", key.replace('\'', "''")))
        )
    }
}

/// A session that has a lock, or waits for it.
fn seen(row: &Row) -> (bool, Holder) {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let written = text("holder").and_then(|line| HolderLine::parse(&line));
    let holder = written.unwrap_or_else(|| {
        let application = text("application").filter(|text| !text.is_empty());
        let label = application.unwrap_or_else(|| "another client of PostgreSQL".to_owned());
        // A waiter of ours is not written down yet.
        let label = label.strip_prefix("tierlock ").unwrap_or(&label).to_owned();
        Holder { label, host: text("address").unwrap_or_default(), ..Holder::default() }
    });
    let token = row.get::<_, Option<i64>>("token").and_then(|token| u64::try_from(token).ok());
    let held = row.get::<_, Option<f64>>("held").map(|held| Duration::from_secs_f64(held.max(0.0)));
    let holder = Holder {
        token: token.and_then(Token::new),
        held,
        held_since_grant: held.is_some(),
        ..holder
    };
    (row.get("granted"), holder)
}
