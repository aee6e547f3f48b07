//! Moving a journal from or to a PostgreSQL.

use std::time::Duration;

use super::{
    APPLICATION, PostgresJournal, VERSION_MIN, bytes_in, damaged, found_of, number_in, rows,
    stamp_of, tables, text_of,
};
use crate::{
    error::{LockError, LockErrorKind, Result},
    host::{
        engines::{fault::EngineFault, postgres::server::PostgresConnection},
        journal::{
            entries::FoundEntries,
            moving::{JournalSurvey, MovableStore},
        },
    },
    proto::journal::{JournalTrouble, ReignKey, Stamp},
};

use tokio_postgres::SimpleQueryRow;

/// One look may be interrupted by a write; a journal that is to be moved stands still.
const LOOKS: usize = 8;

impl PostgresJournal {
    /// Does something on a connection of its own.
    fn once<T>(&self, doing: impl AsyncFnOnce(&PostgresConnection) -> Result<T>) -> Result<T> {
        let done = self.ways.run(super::super::MOVING_TAKES, async {
            let connection = self.connect().await.map_err(EngineFault::into_error)?;
            debug_assert!(connection.version >= VERSION_MIN, "{APPLICATION} is refused others");
            doing(&connection).await
        });
        done.unwrap_or_else(|| {
            let text =
                format!("{} did not answer in time; look there, and move it again", self.shown());
            Err(EngineFault::Trouble(text).into_error())
        })
    }

    async fn query(&self, on: &PostgresConnection, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        let asked = on.client.simple_query(sql).await;
        asked.map(rows).map_err(|error| self.server.fault(&error).into_error())
    }

    /// Where a journal can be, on a server that keeps what it is told.
    async fn make_room(&self, on: &PostgresConnection) -> Result<()> {
        self.query(on, "SET statement_timeout = 0").await?;
        self.judge_server(self.query(on, tables::EXAMINE).await?.first())?;
        if !self.are_tables_made(on).await? {
            self.query(on, &self.tables.make()).await?;
        }
        self.query(on, &self.tables.sweep()).await?;
        Ok(())
    }

    async fn are_tables_made(&self, on: &PostgresConnection) -> Result<bool> {
        let made = self.query(on, &self.tables.are_made()).await?;
        Ok(made.first().and_then(|row| row.get(0)) == Some("t"))
    }

    fn read_survey(&self, head: &SimpleQueryRow) -> Result<HeadOfSurvey, JournalTrouble> {
        let moved = head.get("moved_to").map(|text| super::all_bytes(text, "moved_to"));
        let format = number_in(head, "format")?;
        if format != i64::from(super::super::STORE_FORMAT) {
            return Err(super::super::other_format(format));
        }
        Ok(HeadOfSurvey {
            reign: bytes_in(head, "reign")?.map(|bytes| ReignKey(u128::from_be_bytes(bytes))),
            lasts: Duration::from_nanos(number_in(head, "lasts_ns")? as u64),
            stamp: stamp_of(head)?,
            moved_to: moved.transpose()?.and_then(|bytes| String::from_utf8(bytes).ok()),
        })
    }
}

struct HeadOfSurvey {
    reign: Option<ReignKey>,
    lasts: Duration,
    stamp: Stamp,
    moved_to: Option<String>,
}

impl MovableStore for PostgresJournal {
    fn survey(&self) -> Result<Option<JournalSurvey>> {
        let damaged_here = |trouble: JournalTrouble| {
            let text = format!("the journal {}: {}", self.shown(), text_of(&trouble));
            LockError::new(LockErrorKind::Damaged, text)
        };
        self.once(async |on| {
            if !self.are_tables_made(on).await? {
                return Ok(None);
            }
            for _ in 0..LOOKS {
                let read = self.query(on, &self.tables.read()).await?;
                let Some(head) = read.first() else { return Ok(None) };
                let head = self.read_survey(head).map_err(damaged_here)?;
                let all = self.query(on, &self.tables.survey()).await?;
                let (stamp, entries) = found_of(&all).map_err(damaged_here)?;
                if stamp == head.stamp {
                    let HeadOfSurvey { reign, lasts, stamp, moved_to } = head;
                    return Ok(Some(JournalSurvey { reign, lasts, stamp, moved_to, entries }));
                }
            }
            Err(damaged_here(damaged("head, which does not stand still,")))
        })
    }

    fn mark_moved(&self, seen: Stamp, to: &str) -> Result<bool> {
        self.once(async |on| {
            Ok(!self.query(on, &self.tables.mark_moved(seen.0, to)).await?.is_empty())
        })
    }

    fn prepare(&self, entries: &FoundEntries) -> Result<()> {
        let records = entries.records()?;
        self.once(async |on| {
            // All of it is written as it will be, and taken back: after an error with the connection.
            self.query(on, "BEGIN").await?;
            self.make_room(on).await?;
            let filled = self.query(on, &self.tables.fill(entries, &records)).await?.is_empty();
            self.query(on, "ROLLBACK").await?;
            match filled {
                false => Ok(()),
                true => Err(self.refuse("another journal was made there meanwhile")),
            }
        })
    }

    fn fill(&self, entries: &FoundEntries) -> Result<()> {
        let records = entries.records()?;
        self.once(async |on| {
            self.make_room(on).await?;
            match self.query(on, &self.tables.fill(entries, &records)).await?.is_empty() {
                false => Ok(()),
                true => Err(self.refuse("another journal was made there meanwhile")),
            }
        })
    }
}
