//! MySQL and MariaDB: named locks of a session, as any user of `GET_LOCK` takes them.
//!
//! The token is a number in a row of the name, raised once the lock is there, and what the holder is
//! called stands beside it. The server releases a lock when its connection ends, and ends one that
//! has been silent for the time to live.
//!
//! Names are the server's own and not a database's. MySQL folds their case and refuses more than 64
//! characters; MariaDB folds nothing. So a name that either would change is a readable beginning and
//! a hash. An empty name is NULL there, and never sent; a wait is a number of seconds, and never -1,
//! which MariaDB answers with NULL at once.
//!
//! What it cannot promise: a fail-over forgets which client holds what, and a cluster of several primaries
//! (Galera) has locks of each node alone.

mod connection;
pub(super) mod shed_table;

use std::time::Duration;

use mysql_async::{Error, Row};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use self::connection::{MysqlAnswer, MysqlConnection, MysqlServer, cell};
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
    host::{net::hex::to_hex, service_url::ServiceUrl},
    name::Name,
    token::Token,
};

/// Locks of one server.
pub(super) struct MysqlDatabase {
    url: ServiceUrl,
    server: MysqlServer,
    prefix: String,
    holder: HolderLine,
    time_to_live: Duration,
    /// A proxy on the way gives each client a server connection of its own.
    is_session_pooled: bool,
    place: Mutex<Option<String>>,
}

/// Characters that a lock's name has room for.
const KEY_MAX: usize = 64;
/// What is left of a name before its hash, and how much of that there is.
const READABLE_MAX: usize = 31;
const HASH_BYTES: usize = 16;
/// The longest wait that is asked for at once: ten days. A number without a sign is never -1.
const WAIT_SECONDS: u32 = 864_000;
/// What is wrong with a server that takes no writes.
const READ_ONLY: &str = "read-only, as replicas are: locks are on the primary alone";
/// So many names are asked about at once.
const KEYS_MAX: usize = 1_000;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS tierlock_locks (name VARBINARY(255) PRIMARY KEY, \
     lock_key VARCHAR(64) NOT NULL, token BIGINT NOT NULL, holder TEXT NOT NULL, \
     connection BIGINT UNSIGNED NOT NULL, since DATETIME(6) NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";
/// Draws the next token of a name above one, and says which session has it.
const DRAW: &str = "INSERT INTO tierlock_locks (name, lock_key, token, holder, connection, since) \
     VALUES (?, ?, LAST_INSERT_ID(? + 1), ?, CONNECTION_ID(), UTC_TIMESTAMP(6)) \
     ON DUPLICATE KEY UPDATE token = LAST_INSERT_ID(GREATEST(token, ?) + 1), \
     lock_key = VALUES(lock_key), holder = VALUES(holder), connection = VALUES(connection), \
     since = VALUES(since)";
const ABOUT: &str = "token, holder, connection, \
     TIMESTAMPDIFF(MICROSECOND, since, UTC_TIMESTAMP(6)) / 1000000";

/// The engine of a `mysql://` URL. It touches no network.
pub(super) fn open(
    mut url: ServiceUrl,
    settings: &EngineSettings,
) -> Result<AdvisoryEngine<MysqlDatabase>> {
    let time_to_live = settings.time_to_live;
    let server = MysqlServer::new(&mut url, patience(time_to_live))?;
    let prefix = url.take("prefix")?.unwrap_or_default();
    let (is_session_pooled, connections) = take_session_options(&mut url)?;
    url.finish("ca, connections, password_file, pooler, prefix")?;
    let holder = HolderLine::new(&settings.identity);
    let place = Mutex::new(None);
    let database =
        MysqlDatabase { url, server, prefix, holder, time_to_live, is_session_pooled, place };
    Ok(AdvisoryEngine::new(database, time_to_live, connections))
}

/// A name as the server has it, which no kind of server changes or refuses.
fn key_of(name: &str) -> String {
    let is_kept = name.to_lowercase() == name
        && name.trim() == name
        && !name.chars().any(char::is_control)
        && name.chars().count() <= KEY_MAX;
    if is_kept {
        return name.to_owned();
    }
    let plain = |char: char| if char.is_ascii_graphic() { char.to_ascii_lowercase() } else { '_' };
    let readable: String = name.chars().map(plain).take(READABLE_MAX).collect();
    let hash = digest(&SHA256, name.as_bytes());
    format!("{readable}#{}", to_hex(&hash.as_ref()[..HASH_BYTES]))
}

impl MysqlDatabase {
    /// As [`AdvisoryDatabase::look`], of rows with the name first.
    fn seen(row: &Row, is_ours: bool, used: u64) -> Option<EngineLock> {
        let name = String::from_utf8(cell(row, 0)?).ok()?;
        let token = Token::new(cell::<u64>(row, 1)?).unwrap_or(Token::ZERO);
        let line: String = cell(row, 2)?;
        let holder = match HolderLine::parse(&line).filter(|_| is_ours) {
            Some(holder) => {
                let held = cell::<f64>(row, 4).map(|held| Duration::from_secs_f64(held.max(0.0)));
                Holder { token: Some(token), held, held_since_grant: true, ..holder }
            }
            None => foreign(used),
        };
        let token = if is_ours { token } else { Token::ZERO };
        Some(lock_of(Name::new(&name).ok()?, token, holder))
    }

    async fn learn_place(&self, connection: &MysqlConnection) {
        if self.place.lock().is_some() {
            return;
        }
        // Where a server has no id of its own, its address is what there is.
        let asked = connection.ask("SELECT @@hostname, @@port", ());
        if let Ok(answer) = self.server.within(asked).await {
            let (host, port): (Option<String>, Option<u64>) = (answer.first(0), answer.first(1));
            let (prefix, database) = (&self.prefix, &self.url.path);
            let (host, port) = (host.unwrap_or_default(), port.unwrap_or(0));
            *self.place.lock() = Some(format!(
                "MySQL server {host}:{port}, tokens in {database:?}, prefix {prefix:?}"
            ));
        }
    }
}

fn foreign(connection: u64) -> Holder {
    let label = format!("another client of MySQL, connection {connection}");
    Holder { label, ..Holder::default() }
}

fn lock_of(name: Name, token: Token, holder: Holder) -> EngineLock {
    let (holder, waiters) = (Some(holder), Vec::new());
    EngineLock { name, token, holder, is_reserved: false, remaining: None, waiters }
}

impl AdvisoryDatabase for MysqlDatabase {
    type Connection = MysqlConnection;

    fn shown(&self) -> String {
        self.url.shown()
    }

    /// Its locks are of one session each.
    fn shares(&self) -> bool {
        false
    }

    fn patience(&self) -> Duration {
        self.server.patience()
    }

    fn key(&self, name: &Name) -> Result<String> {
        Ok(key_of(&format!("{}{name}", self.prefix)))
    }

    async fn open(&self, end: SessionEnd) -> Result<MysqlConnection, EngineFault> {
        let connection = self.server.connect(self.time_to_live, move || end.tell()).await?;
        let asked = connection.ask("SELECT CONNECTION_ID(), @@global.read_only", ());
        let answer = self.server.within(asked).await?;
        let shown = self.server.shown();
        if answer.first::<u64>(0) != Some(connection.id().into()) && !self.is_session_pooled {
            return Err(EngineFault::config(format!(
                "{shown} is a proxy, where a session may have no server connection of its own: two \
                 sessions would get one lock; name the server itself, or say `?pooler=session` if the \
                 proxy gives each client a connection"
            )));
        }
        // It would give locks to users that may write there all the same, beside those of the primary.
        if answer.first::<i64>(1) != Some(0) {
            return Err(EngineFault::Trouble(format!("{shown} is {READ_ONLY}")));
        }
        if let Err(fault) = self.server.within(connection.ask(TABLE, ())).await {
            let EngineFault::Final(error) = fault else { return Err(fault) };
            // It may be there, made by its owner.
            let there = connection.ask("SELECT 1 FROM tierlock_locks LIMIT 1", ());
            if self.server.within(there).await.is_err() {
                return Err(EngineFault::Final(LockError::config(format!(
                    "{error}; have its owner run once: {TABLE}"
                ))));
            }
        }
        self.learn_place(&connection).await;
        Ok(connection)
    }

    async fn take(
        &self,
        connection: &MysqlConnection,
        wanted: &WantedKey,
        waits: bool,
    ) -> Result<Option<Token>, EngineFault> {
        let fault = |error: Error| self.server.fault(&error);
        let seconds = if waits { WAIT_SECONDS } else { 0 };
        // It takes as long as it takes.
        let asked = connection.ask("SELECT GET_LOCK(?, ?)", (&wanted.key, seconds));
        match asked.await.map_err(fault)?.first::<i64>(0) {
            Some(1) => {}
            Some(_) => return Ok(None),
            None => {
                let shown = self.server.shown();
                let what = format!("{shown} gave up the wait for {:?}", wanted.key);
                return Err(EngineFault::Trouble(what));
            }
        }
        let (name, above) = (wanted.name.as_str().as_bytes(), wanted.above.get());
        let given = (name, &wanted.key, above, self.holder.text(), above);
        let drawn = connection.ask(DRAW, given).await.map_err(fault)?;
        let token = Token::new(drawn.last_id).filter(|token| *token > wanted.above);
        token.map(Some).ok_or_else(|| {
            EngineFault::config("the name's token in tierlock_locks is at its end: lower it")
        })
    }

    async fn give(
        &self,
        connection: &MysqlConnection,
        wanted: &WantedKey,
    ) -> Result<bool, EngineFault> {
        let asked = connection.ask("SELECT RELEASE_LOCK(?)", (&wanted.key,));
        let answer = asked.await.map_err(|error| self.server.fault(&error))?;
        Ok(answer.first::<i64>(0) == Some(1))
    }

    async fn are_wanted(
        &self,
        _: &MysqlConnection,
        held: &[WantedKey],
    ) -> Result<Vec<bool>, EngineFault> {
        Ok(vec![false; held.len()])
    }

    async fn ping(&self, connection: &MysqlConnection) -> Result<bool, EngineFault> {
        // A primary that was demoted is made read-only.
        let answer = self.server.within(connection.ask("SELECT @@global.read_only", ())).await?;
        Ok(answer.first::<i64>(0) == Some(0))
    }

    async fn interrupt(&self, connection: &MysqlConnection) {
        if let Ok(other) = self.server.connect(self.time_to_live, || {}).await {
            let kill = format!("KILL QUERY {}", connection.id());
            let _ = self.server.within(other.ask(&kill, ())).await;
        }
    }

    fn close(&self, connection: &MysqlConnection) {
        connection.close();
    }

    async fn look(
        &self,
        connection: &MysqlConnection,
        only: Option<&Name>,
    ) -> Result<Vec<EngineLock>, EngineFault> {
        let Some(name) = only else {
            let sql = format!(
                "SELECT name, {ABOUT} FROM tierlock_locks \
                 WHERE IS_USED_LOCK(lock_key) = connection ORDER BY name LIMIT {KEYS_MAX}"
            );
            let answer = self.server.within(connection.ask(&sql, ())).await?;
            return Ok(answer.rows.iter().filter_map(|row| Self::seen(row, true, 0)).collect());
        };
        let key = self.key(name).map_err(EngineFault::Final)?;
        let used = self.server.within(connection.ask("SELECT IS_USED_LOCK(?)", (&key,))).await?;
        let Some(used) = used.first::<u64>(0) else { return Ok(Vec::new()) };
        let sql = format!("SELECT name, {ABOUT} FROM tierlock_locks WHERE name = ?");
        let given = (name.as_str().as_bytes(),);
        let row: MysqlAnswer = self.server.within(connection.ask(&sql, given)).await?;
        let known = row
            .rows
            .first()
            .and_then(|row| Self::seen(row, cell::<u64>(row, 3) == Some(used), used));
        let unknown = || lock_of(name.clone(), Token::ZERO, foreign(used));
        Ok(vec![known.unwrap_or_else(unknown)])
    }

    async fn examine(
        &self,
        connection: &MysqlConnection,
    ) -> Result<Vec<EngineFinding>, EngineFault> {
        let sql = "SELECT @@version, @@global.read_only, @@innodb_flush_log_at_trx_commit";
        let answer = self.server.within(connection.ask(sql, ())).await?;
        let version: String = answer.first(0).unwrap_or_default();
        let shown = self.server.shown();
        let mut found = vec![EngineFinding::fine(format!("{shown} answers: {version}"))];
        if answer.first::<i64>(1) != Some(0) {
            found.push(EngineFinding::trouble(format!("it is {READ_ONLY}")));
        }
        if answer.first::<i64>(2) != Some(1) {
            found.push(EngineFinding::note(
                "innodb_flush_log_at_trx_commit is not 1: a crash can take the last tokens back",
            ));
        }
        let asked = connection.ask("SHOW STATUS LIKE 'wsrep_cluster_size'", ());
        let cluster = self.server.within(asked).await?;
        let size = cluster.first::<String>(1).and_then(|size| size.parse::<u32>().ok());
        if size.is_some_and(|size| size > 1) {
            found.push(EngineFinding::trouble(
                "it is a node of a Galera cluster, and GET_LOCK is of one node alone: have every \
                 client lock at the same node",
            ));
        }
        found.push(EngineFinding::note(
            "a fail-over to a replica forgets which client holds what; the tokens of one that lags go back",
        ));
        Ok(found)
    }

    fn place(&self) -> Option<String> {
        self.place.lock().clone()
    }

    fn break_advice(&self, name: &Name) -> String {
        let key = self.key(name).unwrap_or_default().replace('\'', "''");
        format!(
            "mysql -e \"SELECT IS_USED_LOCK('{key}')\", then mysql -e \"KILL\" with that number"
        )
    }
}

#[cfg(test)]
mod tests;
