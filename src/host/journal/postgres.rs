//! PostgreSQL as the journal of leaders that follow each other.
//!
//! Each operation is one statement in one message, so a connection that is cut in the middle of it
//! leaves no row locked: the server has either all of it and does it at once, or does not begin. READ
//! COMMITTED is enough, since every write changes the head's stamp and an update that has waited for
//! the row looks at its condition again. A leader's answer that was lost after the commit is unknown
//! to it, and the same statement again finds it done.

mod moving;
mod tables;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use self::tables::JournalTables;
use super::{
    StoreOpening,
    entries::{EpochEntry, FoundEntries, ReignEntries},
    ways::{StoreWays, unknown},
};
use crate::{
    error::{LockError, Result},
    host::{
        engines::{
            fault::EngineFault,
            postgres::server::{PostgresConnection, PostgresServer},
        },
        net::hex::from_hex,
        random,
        service_url::ServiceUrl,
    },
    proto::{
        ClusterId, ReignId,
        journal::{
            Appended, JournalHead, JournalTerms, JournalTrouble, Lane, ReignAttempt, ReignJournal,
            ReignKey, ReignRenewal, Stamp, TakeOver, Took,
        },
        record::{Record, Written},
    },
};

/// The head and the entries of one cluster in a database.
pub(super) struct PostgresJournal {
    server: PostgresServer,
    tables: JournalTables,
    /// What each connection sets for itself.
    settings: String,
    ways: StoreWays<PostgresConnection>,
    entries: Mutex<ReignEntries>,
}

/// The oldest server that has what the statements use.
const VERSION_MIN: i32 = 120_000;
/// A condition that fails though the head meets it was looked at between two writes of others.
const TRIES: usize = 8;
/// What the server shows of its connections.
const APPLICATION: &str = "tierlock journal";

impl PostgresJournal {
    /// The way to it; nothing is asked yet.
    pub(super) fn new(mut url: ServiceUrl, lasts: Duration) -> Result<PostgresJournal> {
        let schema = url.take("schema")?.unwrap_or_else(|| "public".to_owned());
        let cluster = url.take("cluster")?.unwrap_or_else(|| "default".to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for (option, value) in [("schema", &schema), ("cluster", &cluster)] {
            if value.is_empty() || !value.chars().all(is_plain) {
                return Err(url.refuse(format_args!(
                    "the option {option} is a name of letters, digits and _"
                )));
            }
        }
        let limit = lasts / 2;
        // An address that is silent leaves time for the next one.
        let patience = limit / (url.addresses.len() as u32 + 1);
        let server = PostgresServer::new(&mut url, patience)?;
        url.finish("ca, cluster, password_file, plaintext, schema, sslmode")?;
        Ok(PostgresJournal {
            server,
            tables: JournalTables::new(&schema, &cluster),
            settings: tables::settings(lasts),
            ways: StoreWays::new(limit)?,
            entries: Mutex::new(ReignEntries::none()),
        })
    }

    /// Looks whether the server keeps what it is told, and whether the journal is there, or makes it:
    /// what an operator should know.
    pub(super) fn open(&self, opening: &StoreOpening) -> Result<Vec<String>> {
        let opened = self.ways.run(opening.patience, self.examine(opening));
        opened.unwrap_or_else(|| {
            Err(EngineFault::silent(self.server.shown(), opening.patience).into_error())
        })
    }

    async fn examine(&self, opening: &StoreOpening) -> Result<Vec<String>> {
        let connection = loop {
            let asked = Instant::now();
            match self.connect().await {
                // It is busy, and not gone: what is asked at a start may take longer.
                Err(EngineFault::Trouble(_)) if asked.elapsed() >= self.server.patience() => {}
                connected => break connected.map_err(EngineFault::into_error)?,
            }
        };
        let ask = async |sql: &str| {
            let asked = connection.client.simple_query(sql).await;
            asked.map(rows).map_err(|error| self.server.fault(&error).into_error())
        };
        // What is asked at a start may take longer.
        ask("SET statement_timeout = 0").await?;
        let warnings = self.judge_server(ask(tables::EXAMINE).await?.first())?;
        let are_made = ask(&self.tables.are_made()).await?;
        if are_made.first().and_then(|row| row.get(0)) != Some("t") {
            if !opening.init {
                return Err(self.not_made());
            }
            ask(&self.tables.make()).await?;
        }
        if opening.init {
            let made = ask(&self.tables.begin(random(), opening.epoch_above)).await?;
            if made.is_empty() {
                return Err(self.refuse(
                    "the journal is made; start without --init, which is for the first start of the \
                     first leader only",
                ));
            }
        }
        match ask(&self.tables.read()).await?.first() {
            Some(row) => match head_of(row) {
                Ok(_) => Ok(warnings),
                Err(trouble) => Err(self.refuse(text_of(&trouble))),
            },
            None => Err(self.not_made()),
        }
    }

    /// Whether the server keeps what it is told: what an operator should know.
    fn judge_server(&self, about: Option<&SimpleQueryRow>) -> Result<Vec<String>> {
        let about = about.expect("it is one row");
        let text = |column| about.get(column).unwrap_or_default();
        let mut warnings = Vec::new();
        if text("fsync") == "off" {
            return Err(self.refuse(
                "the server has fsync = off: it forgets what it has confirmed when its machine fails, \
                 and then one lock has two holders. Set fsync = on",
            ));
        }
        if text("commit") == "off" {
            return Err(self.refuse("its sessions cannot set synchronous_commit = on"));
        }
        if text("replicas") != "0" && text("synchronous").is_empty() {
            warnings.push(format!(
                "{}: it has replicas and none is synchronous (synchronous_standby_names): after a \
                 fail-over to one of them start every leader with --epoch-above",
                self.server.shown()
            ));
        }
        Ok(warnings)
    }

    /// Server, database and cluster, without a login.
    pub(super) fn shown(&self) -> String {
        self.tables.shown_in(self.server.shown())
    }

    fn not_made(&self) -> LockError {
        self.refuse(format_args!(
            "there is no journal of the cluster {:?}: the first leader is started once with --init \
             (init(true)), which makes one. If there was one, look whether this is its database; if \
             that is lost, start once with --init --epoch-above N, N being the highest epoch that its \
             clients have seen",
            self.tables.cluster()
        ))
    }

    fn refuse(&self, what: impl std::fmt::Display) -> LockError {
        LockError::config(format!("the journal {}: {what}", self.server.shown()))
    }

    async fn connect(&self) -> Result<PostgresConnection, EngineFault> {
        let connection = self.server.connect(APPLICATION).await?;
        if connection.is_pooled {
            return Err(EngineFault::config(format!(
                "{} is a pooler: a journal needs connections of its own to the server, since its time \
                 limits are a session's",
                self.server.shown()
            )));
        }
        if connection.version < VERSION_MIN {
            return Err(EngineFault::config(format!(
                "{} is older than PostgreSQL 12, the oldest that a journal can be in",
                self.server.shown()
            )));
        }
        let set = connection.client.simple_query(&self.settings).await;
        set.map_err(|error| self.server.fault(&error))?;
        Ok(connection)
    }

    fn ask<T>(
        &self,
        lane: Lane,
        ask: impl AsyncFnOnce(JournalQuery<'_>) -> Result<T, JournalTrouble>,
    ) -> Result<T, JournalTrouble> {
        self.ways.ask(
            lane,
            async || self.connect().await,
            async |connection| ask(JournalQuery { journal: self, connection }).await,
        )
    }

    /// Writes if the condition in the statement holds; else the head, and the number of its reign's last
    /// batch, say why not. `None`: it does hold by now.
    fn write_if<T>(
        &self,
        lane: Lane,
        sql: &str,
        done: impl Fn(&[SimpleQueryRow]) -> Result<T, JournalTrouble>,
        refused: impl Fn(JournalHead, u64) -> Option<T>,
    ) -> Result<T, JournalTrouble> {
        self.ask(lane, async |asked| {
            for _ in 0..TRIES {
                let rows = asked.rows(sql).await?;
                if !rows.is_empty() {
                    return done(&rows);
                }
                let (head, number) = asked.head().await?;
                if let Some(answer) = refused(head, number) {
                    return Ok(answer);
                }
            }
            Err(JournalTrouble::Unknown("its head does not stand still".to_owned()))
        })
    }
}

/// One operation's use of a connection.
struct JournalQuery<'a> {
    journal: &'a PostgresJournal,
    connection: &'a PostgresConnection,
}

impl JournalQuery<'_> {
    async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, JournalTrouble> {
        let asked = self.connection.client.simple_query(sql).await;
        asked.map(rows).map_err(|error| unknown(self.journal.server.fault(&error)))
    }

    /// And the number of its reign's last batch.
    async fn head(&self) -> Result<(JournalHead, u64), JournalTrouble> {
        let rows = self.rows(&self.journal.tables.read()).await?;
        let row =
            rows.first().ok_or_else(|| JournalTrouble::Unknown("it has no head".to_owned()))?;
        Ok((head_of(row)?, number_in(row, "number")? as u64))
    }
}

impl ReignJournal for PostgresJournal {
    fn terms(&self) -> JournalTerms {
        JournalTerms { is_exclusive: false, batch_max: super::BATCH_MAX, renewals: super::RENEWALS }
    }

    fn read(&self) -> Result<JournalHead, JournalTrouble> {
        self.ask(Lane::Watching, async |asked| Ok(asked.head().await?.0))
    }

    fn take_over(&self, attempt: &ReignAttempt) -> Result<TakeOver, JournalTrouble> {
        let took = self.write_if(
            Lane::Writing,
            &self.tables.take_over(attempt),
            |rows| found_of(rows).map(Ok),
            |head, _| (head.stamp != attempt.seen).then_some(Err(head)),
        )?;
        let (stamp, found) = match took {
            Ok(found) => found,
            Err(head) => return Ok(TakeOver::Raced(head)),
        };
        let epochs = found.epochs.begun(&attempt.took_over);
        let before = found.recovered()?;
        *self.entries.lock() = ReignEntries::begin(attempt.reign, &before, epochs);
        let written = Written::committed(Vec::new());
        Ok(TakeOver::Took(Box::new(Took { stamp, before, written })))
    }

    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Result<Appended, JournalTrouble> {
        let changes = self.entries.lock().changes(reign, number, records);
        let changes = changes.ok_or_else(|| super::out_of_turn(number))?;
        let committed = |stamp| Appended::Committed(stamp, Written::committed(Vec::new()));
        self.write_if(
            Lane::Writing,
            &self.tables.append(reign, number, &changes),
            |rows| stamp_of(&rows[0]).map(committed),
            |head, found| match head.reign == Some(reign) {
                true if found == number => Some(committed(head.stamp)), // by an earlier try
                true if found + 1 == number => None,
                _ => Some(Appended::Deposed(head)),
            },
        )
    }

    fn renew(&self, reign: ReignKey) -> Result<ReignRenewal, JournalTrouble> {
        self.write_if(
            Lane::Renewing,
            &self.tables.renew(reign),
            |rows| stamp_of(&rows[0]).map(ReignRenewal::Renewed),
            |head, _| (head.reign != Some(reign)).then_some(ReignRenewal::Deposed(head)),
        )
    }

    fn resign(&self, reign: ReignKey) -> Result<(), JournalTrouble> {
        self.ask(Lane::Writing, async |asked| asked.rows(&self.tables.resign(reign)).await)?;
        Ok(())
    }
}

// What it answers. A row that is not as it was written ends the leader: asking again helps nothing.

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<SimpleQueryRow> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

fn damaged(what: &str) -> JournalTrouble {
    JournalTrouble::Failed(format!("its {what} cannot be read"))
}

fn text_of(trouble: &JournalTrouble) -> &str {
    match trouble {
        JournalTrouble::Failed(text) | JournalTrouble::Unknown(text) => text,
    }
}

fn number_in(row: &SimpleQueryRow, column: &str) -> Result<i64, JournalTrouble> {
    let number = row.get(column).and_then(|text| text.parse().ok());
    number.ok_or_else(|| damaged(column))
}

fn bytes_in<const N: usize>(
    row: &SimpleQueryRow,
    column: &str,
) -> Result<Option<[u8; N]>, JournalTrouble> {
    let Some(text) = row.get(column) else { return Ok(None) };
    from_hex(text.as_bytes()).map(Some).ok_or_else(|| damaged(column))
}

fn stamp_of(row: &SimpleQueryRow) -> Result<Stamp, JournalTrouble> {
    Ok(Stamp(number_in(row, "stamp")? as u64))
}

fn all_bytes(text: &str, what: &str) -> Result<Vec<u8>, JournalTrouble> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| from_hex::<1>(pair).map(|[byte]| byte);
    pairs.map(byte).collect::<Option<_>>().ok_or_else(|| damaged(what))
}

fn head_of(row: &SimpleQueryRow) -> Result<JournalHead, JournalTrouble> {
    // It was moved: no leader starts here.
    if let Some(moved) = row.get("moved_to") {
        let to = String::from_utf8_lossy(&all_bytes(moved, "moved_to")?).into_owned();
        return Err(super::moved_to(&to));
    }
    let format = number_in(row, "format")?;
    if format != i64::from(super::STORE_FORMAT) {
        return Err(super::other_format(format));
    }
    let cluster = bytes_in(row, "id")?.ok_or_else(|| damaged("id"))?;
    let waits_for = row.get("waits_for_ns").map(|_| number_in(row, "waits_for_ns")).transpose()?;
    let address = row.get("address").map(|text| all_bytes(text, "address")).transpose()?;
    Ok(JournalHead {
        cluster: ClusterId(u128::from_be_bytes(cluster)),
        reign: bytes_in(row, "reign")?.map(|bytes| ReignKey(u128::from_be_bytes(bytes))),
        lasts: Duration::from_nanos(number_in(row, "lasts_ns")? as u64),
        stamp: stamp_of(row)?,
        epoch: number_in(row, "epoch")? as u32,
        waits_for: waits_for.map(|nanos| Duration::from_nanos(nanos as u64)),
        address: address.and_then(|bytes| String::from_utf8(bytes).ok()),
    })
}

/// All that a take-over found, and its own stamp.
fn found_of(rows: &[SimpleQueryRow]) -> Result<(Stamp, FoundEntries), JournalTrouble> {
    let kind =
        |wanted: &'static str| rows.iter().filter(move |row| row.get("kind") == Some(wanted));
    let head = kind("head").next().ok_or_else(|| damaged("head"))?;
    let took = kind("took").next().ok_or_else(|| damaged("stamp"))?;
    let cluster = bytes_in(head, "key")?.ok_or_else(|| damaged("id"))?;
    let waits_for =
        head.get("waits_for_ns").map(|_| number_in(head, "waits_for_ns")).transpose()?;
    let epochs = EpochEntry {
        epoch: number_in(head, "number")? as u32,
        judged_from: number_in(head, "judged_from")? as u32,
        waits_for: waits_for.map(|nanos| Duration::from_nanos(nanos as u64)),
    };
    let mut found = FoundEntries::of(ClusterId(u128::from_be_bytes(cluster)), epochs);
    for row in kind("reign") {
        let reign = bytes_in(row, "key")?.ok_or_else(|| damaged("history"))?;
        let reign = ReignId(u64::from_be_bytes(reign));
        found.reigns.push((number_in(row, "number")? as u32, reign));
    }
    for (name, records) in [
        ("session", &mut found.sessions),
        ("revoked", &mut found.revoked),
        ("stays", &mut found.stays),
    ] {
        for row in kind(name) {
            records.push(all_bytes(row.get("record").unwrap_or_default(), name)?);
        }
    }
    Ok((Stamp(number_in(took, "number")? as u64), found))
}
