//! ShedLock's table on MySQL and MariaDB.

use std::{sync::Arc, time::Duration};

use mysql_async::{Error, Params};

use super::connection::{MysqlAnswer, MysqlConnection, MysqlServer, cell};
use crate::{
    error::Result,
    host::{
        engines::{
            EngineSettings,
            fault::EngineFault,
            patience,
            shedlock::{ShedLockEngine, ShedTable, TakenRow, take_table},
        },
        service_url::ServiceUrl,
    },
    name::Name,
};

/// A table, over one connection that is opened anew when it has ended.
pub(in super::super) struct MysqlShedTable {
    url: ServiceUrl,
    table: String,
    server: MysqlServer,
    connection: tokio::sync::Mutex<Option<Arc<MysqlConnection>>>,
}

/// The database's clock as ShedLock reads it.
const NOW: &str = "UTC_TIMESTAMP(3)";
/// What the column of names has room for; an insert that ignores errors would cut a longer one.
const NAME_MAX: usize = 64;
/// How long its connection may be idle.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// There is no such table.
const NO_TABLE: u16 = 1146;

/// The engine of a `shedlock+mysql://` URL. It touches no network.
pub(in super::super) fn open(
    mut url: ServiceUrl,
    settings: &EngineSettings,
) -> Result<ShedLockEngine<MysqlShedTable>> {
    let server = MysqlServer::new(&mut url, patience(settings.time_to_live))?;
    let (table, is_unfenced) = take_table(&mut url)?;
    let table = MysqlShedTable { url, table, server, connection: tokio::sync::Mutex::new(None) };
    Ok(ShedLockEngine::new(table, is_unfenced, settings))
}

impl MysqlShedTable {
    async fn connection(&self) -> Result<Arc<MysqlConnection>, EngineFault> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = known.as_ref().filter(|known| !known.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Arc::new(self.server.connect(IDLE_MAX, || {}).await?);
        *known = Some(connection.clone());
        Ok(connection)
    }

    async fn ask(&self, sql: &str, given: impl Into<Params>) -> Result<MysqlAnswer, EngineFault> {
        let connection = self.connection().await?;
        let shown = self.server.shown();
        match tokio::time::timeout(self.server.patience(), connection.ask(sql, given)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::Server(told))) if told.code == NO_TABLE => {
                Err(EngineFault::config(format!(
                    "{shown} has no table {table}; make it as ShedLock's documentation does: CREATE \
                     TABLE {table} (name VARCHAR(64) NOT NULL, lock_until TIMESTAMP(3) NOT NULL, \
                     locked_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), \
                     locked_by VARCHAR(255) NOT NULL, PRIMARY KEY (name))",
                    table = self.table
                )))
            }
            Ok(Err(error)) => Err(self.server.fault(&error)),
            Err(_) => {
                // Silent: the next question goes to another connection.
                connection.close();
                Err(EngineFault::Trouble(format!("{shown} did not answer in time")))
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl ShedTable for MysqlShedTable {
    fn shown(&self) -> String {
        format!("{} table {}", self.url.shown(), self.table)
    }

    async fn take(&self, name: &str, owner: &str, lives: Duration) -> Result<bool, EngineFault> {
        if name.chars().count() > NAME_MAX {
            let shown = self.server.shown();
            return Err(EngineFault::config(format!(
                "{shown}: the name is longer than its column"
            )));
        }
        let table = &self.table;
        let until = format!("TIMESTAMPADD(MICROSECOND, ?, {NOW})");
        let insert = format!(
            "INSERT IGNORE INTO {table} (name, lock_until, locked_at, locked_by) \
             VALUES (?, {until}, {NOW}, ?)"
        );
        if self.ask(&insert, (name, micros(lives), owner)).await?.found == 1 {
            return Ok(true);
        }
        let update = format!(
            "UPDATE {table} SET lock_until = {until}, locked_at = {NOW}, locked_by = ? \
             WHERE name = ? AND lock_until <= {NOW}"
        );
        Ok(self.ask(&update, (micros(lives), owner, name)).await?.found == 1)
    }

    async fn give(&self, name: &str, owner: &str, at_least: Duration) -> Result<bool, EngineFault> {
        let table = &self.table;
        let sql = format!(
            "UPDATE {table} SET lock_until = \
             GREATEST({NOW}, TIMESTAMPADD(MICROSECOND, ?, locked_at)) \
             WHERE name = ? AND locked_by = ? AND lock_until > {NOW}"
        );
        Ok(self.ask(&sql, (micros(at_least), name, owner)).await?.found == 1)
    }

    async fn taken(&self, only: Option<&str>) -> Result<Vec<TakenRow>, EngineFault> {
        let table = &self.table;
        let sql = format!(
            "SELECT name, locked_by, TIMESTAMPDIFF(MICROSECOND, {NOW}, lock_until), \
             TIMESTAMPDIFF(MICROSECOND, locked_at, {NOW}) FROM {table} \
             WHERE lock_until > {NOW} AND (? = '' OR name = ?) ORDER BY name"
        );
        let only = only.unwrap_or_default();
        let answer = self.ask(&sql, (only, only)).await?;
        let row = |row: &mysql_async::Row| {
            let span = |column| {
                let micros = cell::<i64>(row, column).unwrap_or(0);
                Duration::from_micros(u64::try_from(micros).unwrap_or(0))
            };
            let (name, owner) = (cell(row, 0)?, cell(row, 1)?);
            Some(TakenRow { name, owner, left: span(2), held: span(3) })
        };
        Ok(answer.rows.iter().filter_map(row).collect())
    }

    fn break_advice(&self, name: &Name) -> String {
        let (table, name) = (&self.table, name.as_str().replace('\'', "''"));
        format!("mysql -e \"UPDATE {table} SET lock_until = {NOW} WHERE name = '{name}'\"")
    }
}
