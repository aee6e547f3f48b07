//! ShedLock's table on PostgreSQL.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Row, error::SqlState, types::Type};

use super::server::{PostgresConnection, PostgresServer};
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
pub(in super::super) struct PostgresShedTable {
    url: ServiceUrl,
    table: String,
    server: PostgresServer,
    connection: tokio::sync::Mutex<Option<Arc<PostgresConnection>>>,
}

/// The engine of a `shedlock+postgres://` URL. It touches no network.
pub(in super::super) fn open(
    mut url: ServiceUrl,
    settings: &EngineSettings,
) -> Result<ShedLockEngine<PostgresShedTable>> {
    let server = PostgresServer::new(&mut url, patience(settings.time_to_live))?;
    let (table, is_unfenced) = take_table(&mut url)?;
    let connection = tokio::sync::Mutex::new(None);
    let table = PostgresShedTable { url, table, server, connection };
    Ok(ShedLockEngine::new(table, is_unfenced, settings))
}

/// The database's clock as ShedLock reads it.
const NOW: &str = "timezone('utc', CURRENT_TIMESTAMP)";

impl PostgresShedTable {
    async fn connection(&self) -> Result<Arc<PostgresConnection>, EngineFault> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = known.as_ref().filter(|known| !known.client.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Arc::new(self.server.connect("tierlock shedlock").await?);
        *known = Some(connection.clone());
        Ok(connection)
    }

    async fn ask(&self, sql: &str, given: &[&str]) -> Result<Vec<Row>, EngineFault> {
        let connection = self.connection().await?;
        let given = given.iter().map(|given| (given as _, Type::TEXT)).collect::<Vec<_>>();
        let asked = tokio::time::timeout(
            self.server.patience(),
            connection.client.query_typed(sql, &given),
        );
        let error = match asked.await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => error,
            Err(_) => {
                // Silent: the next question goes to another connection.
                connection.close();
                let shown = self.server.shown();
                return Err(EngineFault::Trouble(format!("{shown} did not answer in time")));
            }
        };
        let shown = self.server.shown();
        match error.code() {
            Some(code) if *code == SqlState::UNDEFINED_TABLE => Err(EngineFault::config(format!(
                "{shown} has no table {table}; make it as ShedLock's documentation does: CREATE \
                     TABLE {table} (name VARCHAR(64) PRIMARY KEY, lock_until TIMESTAMP NOT NULL, \
                     locked_at TIMESTAMP NOT NULL, locked_by VARCHAR(255) NOT NULL)",
                table = self.table
            ))),
            Some(code) if *code == SqlState::STRING_DATA_RIGHT_TRUNCATION => {
                Err(EngineFault::config(format!("{shown}: the name is longer than its column")))
            }
            _ => Err(self.server.fault(&error)),
        }
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn seconds(row: &Row, column: &str) -> Duration {
    Duration::try_from_secs_f64(row.get::<_, f64>(column)).unwrap_or_default()
}

impl ShedTable for PostgresShedTable {
    fn shown(&self) -> String {
        format!("{} table {}", self.url.shown(), self.table)
    }

    async fn take(&self, name: &str, owner: &str, lives: Duration) -> Result<bool, EngineFault> {
        let table = &self.table;
        let until = format!("{NOW} + ($3 || ' milliseconds')::interval");
        let sql = format!(
            "INSERT INTO {table} AS known (name, lock_until, locked_at, locked_by) \
             VALUES ($1, {until}, {NOW}, $2) ON CONFLICT (name) DO UPDATE SET lock_until = {until}, \
             locked_at = {NOW}, locked_by = $2 WHERE known.lock_until <= {NOW} RETURNING 1"
        );
        Ok(!self.ask(&sql, &[name, owner, &millis(lives)]).await?.is_empty())
    }

    async fn give(&self, name: &str, owner: &str, at_least: Duration) -> Result<bool, EngineFault> {
        let table = &self.table;
        let sql = format!(
            "UPDATE {table} SET lock_until = \
             greatest({NOW}, locked_at + ($3 || ' milliseconds')::interval) \
             WHERE name = $1 AND locked_by = $2 AND lock_until > {NOW} RETURNING 1"
        );
        Ok(!self.ask(&sql, &[name, owner, &millis(at_least)]).await?.is_empty())
    }

    async fn taken(&self, only: Option<&str>) -> Result<Vec<TakenRow>, EngineFault> {
        let table = &self.table;
        let sql = format!(
            "SELECT name, locked_by, extract(epoch FROM lock_until - {NOW})::float8 AS left_over, \
             extract(epoch FROM {NOW} - locked_at)::float8 AS held FROM {table} \
             WHERE lock_until > {NOW} AND ($1 = '' OR name = $1) ORDER BY name"
        );
        let rows = self.ask(&sql, &[only.unwrap_or_default()]).await?;
        let row = |row: &Row| TakenRow {
            name: row.get("name"),
            owner: row.get("locked_by"),
            left: seconds(row, "left_over"),
            held: seconds(row, "held"),
        };
        Ok(rows.iter().map(row).collect())
    }

    fn break_advice(&self, name: &Name) -> String {
        let (table, name) = (&self.table, name.as_str().replace('\'', "''"));
        format!("psql -c \"UPDATE {table} SET lock_until = {NOW} WHERE name = '{name}'\"")
    }
}
