//! The statements, and the tables that they are about.
//!
//! Every value is a number, or bytes in hexadecimal digits, so nothing in a statement is to be quoted.

use std::{fmt::Write as _, time::Duration};

use crate::{
    host::{
        journal::{
            STORE_FORMAT,
            entries::{EntryChanges, EpochEntry, FoundEntries},
        },
        net::hex::to_hex,
    },
    name::Name,
    proto::{
        LeaseId, ReignId, SessionId, TIME_TO_LIVE,
        history::REIGNS_MAX,
        journal::{ReignAttempt, ReignKey},
        record::Record,
    },
};

/// How a server keeps what it is told.
pub(super) const EXAMINE: &str = "SELECT current_setting('fsync') AS fsync, \
     current_setting('synchronous_commit') AS commit, \
     (SELECT count(*) FROM pg_stat_replication) AS replicas, \
     current_setting('synchronous_standby_names') AS synchronous";

/// The tables of one schema, and the rows of one cluster in them.
pub(super) struct JournalTables {
    schema: String,
    cluster: String,
}

const TABLES: [&str; 5] = ["head", "session", "revoked", "stays", "history"];

/// What a session sets for itself: a commit is durable when it is answered, and nothing of a leader
/// that is cut off stands in the way of the next one for longer than L.
pub(super) fn settings(lasts: Duration) -> String {
    let half = (lasts / 2).as_millis();
    let look = (lasts / 4).as_millis();
    let seconds = lasts.as_secs().max(1);
    format!(
        "SELECT set_config(s.name, wanted.value, false) FROM (VALUES \
         ('synchronous_commit', 'on'), ('default_transaction_read_only', 'off'), \
         ('default_transaction_isolation', 'read committed'), ('lock_timeout', '{half}'), \
         ('statement_timeout', '{half}'), ('idle_in_transaction_session_timeout', '{half}'), \
         ('idle_session_timeout', '0'), ('client_connection_check_interval', '{look}'), \
         ('tcp_keepalives_idle', '{seconds}'), ('tcp_keepalives_interval', '{seconds}'), \
         ('tcp_keepalives_count', '3')) \
         AS wanted (name, value) JOIN pg_settings s ON s.name = wanted.name"
    )
}

impl JournalTables {
    pub(super) fn new(schema: &str, cluster: &str) -> JournalTables {
        JournalTables { schema: schema.to_owned(), cluster: cluster.to_owned() }
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The cluster's rows at that server.
    pub(super) fn shown_in(&self, server: &str) -> String {
        format!("{server}, schema {}, cluster {}", self.schema, self.cluster)
    }

    fn table(&self, name: &str) -> String {
        format!("\"{}\".tierlock_{name}", self.schema)
    }

    fn of_cluster(&self) -> String {
        format!("cluster = '{}'", self.cluster)
    }

    pub(super) fn are_made(&self) -> String {
        let is_there = |name| format!("to_regclass('{}') IS NOT NULL", self.table(name));
        format!("SELECT {}", TABLES.map(is_there).join(" AND "))
    }

    pub(super) fn make(&self) -> String {
        let [head, session, revoked, stays, history] = TABLES.map(|name| self.table(name));
        format!(
            "CREATE TABLE IF NOT EXISTS {head} (cluster text PRIMARY KEY, format int4 NOT NULL, \
             id bytea NOT NULL, reign bytea, lasts_ns int8 NOT NULL, address bytea, \
             stamp int8 NOT NULL, number int8 NOT NULL, epoch int4 NOT NULL, \
             judged_from int4 NOT NULL, waits_for_ns int8, moved_to bytea) WITH (fillfactor = 50); \
             CREATE TABLE IF NOT EXISTS {session} (cluster text, id bytea, record bytea NOT NULL, \
             PRIMARY KEY (cluster, id)); \
             CREATE TABLE IF NOT EXISTS {revoked} (cluster text, session bytea, lease bytea, \
             record bytea NOT NULL, PRIMARY KEY (cluster, session, lease)); \
             CREATE TABLE IF NOT EXISTS {stays} (cluster text, name bytea, record bytea NOT NULL, \
             PRIMARY KEY (cluster, name)); \
             CREATE TABLE IF NOT EXISTS {history} (cluster text, epoch int4, reign bytea NOT NULL, \
             PRIMARY KEY (cluster, epoch))"
        )
    }

    /// An empty journal, unless there is one; answers a row if it was made.
    pub(super) fn begin(&self, cluster: u128, epoch_above: Option<u32>) -> String {
        let (head, name, id) = (self.table("head"), &self.cluster, bytes(&cluster.to_be_bytes()));
        let epoch = epoch_above.unwrap_or(0);
        let waits = nanos(epoch_above.map(|_| *TIME_TO_LIVE.end()));
        format!(
            "INSERT INTO {head} (cluster, format, id, lasts_ns, stamp, number, epoch, judged_from, \
             waits_for_ns) VALUES ('{name}', {STORE_FORMAT}, {id}, 0, 1, 0, {epoch}, {epoch}, \
             {waits}) ON CONFLICT DO NOTHING RETURNING stamp"
        )
    }

    pub(super) fn read(&self) -> String {
        format!(
            "SELECT format, encode(id, 'hex') AS id, encode(reign, 'hex') AS reign, lasts_ns, \
             encode(address, 'hex') AS address, stamp, number, epoch, waits_for_ns, \
             encode(moved_to, 'hex') AS moved_to FROM {} WHERE {}",
            self.table("head"),
            self.of_cluster()
        )
    }

    pub(super) fn renew(&self, reign: ReignKey) -> String {
        let (head, of_cluster, reign) = (self.table("head"), self.of_cluster(), key(reign));
        format!(
            "UPDATE {head} SET stamp = stamp + 1 WHERE {of_cluster} AND reign = {reign} \
             RETURNING stamp"
        )
    }

    pub(super) fn resign(&self, reign: ReignKey) -> String {
        let (head, of_cluster, reign) = (self.table("head"), self.of_cluster(), key(reign));
        format!(
            "UPDATE {head} SET reign = NULL, address = NULL, stamp = stamp + 1 \
             WHERE {of_cluster} AND reign = {reign}"
        )
    }

    /// All parts see what was there before, and the rows are those of the stamp that is the
    /// condition: had another write come between, the update would have found another one.
    pub(super) fn take_over(&self, attempt: &ReignAttempt) -> String {
        let [head, session, revoked, stays, history] = TABLES.map(|name| self.table(name));
        let (of_cluster, name) = (self.of_cluster(), &self.cluster);
        let Record::TookOver { epoch, reign: id, waits_for, starts_above } = attempt.took_over
        else {
            unreachable!("a reign begins with it")
        };
        let (reign, id) = (key(attempt.reign), bytes(&id.0.to_be_bytes()));
        let lasts = attempt.lasts.as_nanos();
        let waits = nanos(waits_for);
        let address = match &attempt.address {
            Some(address) => bytes(address.as_bytes()),
            None => "NULL".to_owned(),
        };
        let judged = if starts_above { format!(", judged_from = {epoch}") } else { String::new() };
        let seen = attempt.seen.0;
        let kept = REIGNS_MAX - 1;
        let rows = |kind: &str, table: &str| {
            format!(
                "UNION ALL SELECT '{kind}', NULL, NULL, e.record, NULL, NULL FROM {table} e, took \
                 WHERE e.{of_cluster}"
            )
        };
        format!(
            "WITH took AS (UPDATE {head} SET reign = {reign}, lasts_ns = {lasts}, \
             address = {address}, stamp = stamp + 1, number = 0, epoch = {epoch}, \
             waits_for_ns = {waits}{judged} WHERE {of_cluster} AND stamp = {seen} RETURNING stamp), \
             begun AS (INSERT INTO {history} (cluster, epoch, reign) SELECT '{name}', {epoch}, {id} \
             FROM took), \
             trimmed AS (DELETE FROM {history} h USING took WHERE h.{of_cluster} AND h.epoch <= \
             (SELECT o.epoch FROM {history} o WHERE o.{of_cluster} ORDER BY o.epoch DESC \
             OFFSET {kept} LIMIT 1)), \
             found (kind, number, key, record, judged_from, waits_for_ns) AS ( \
             SELECT 'took', took.stamp, NULL::bytea, NULL::bytea, NULL::int4, NULL::int8 FROM took \
             UNION ALL SELECT 'head', h.epoch::int8, h.id, NULL, h.judged_from, h.waits_for_ns \
             FROM {head} h, took WHERE h.{of_cluster} \
             UNION ALL SELECT 'reign', y.epoch::int8, y.reign, NULL, NULL, NULL \
             FROM {history} y, took WHERE y.{of_cluster} {} {} {}) \
             SELECT kind, number, encode(key, 'hex') AS key, encode(record, 'hex') AS record, \
             judged_from, waits_for_ns FROM found",
            rows("session", &session),
            rows("revoked", &revoked),
            rows("stays", &stays),
        )
    }

    /// All of it at one moment, as a take-over answers it.
    pub(super) fn survey(&self) -> String {
        let [head, session, revoked, stays, history] = TABLES.map(|name| self.table(name));
        let of_cluster = self.of_cluster();
        let rows = |kind: &str, table: &str| {
            format!(
                "UNION ALL SELECT '{kind}', NULL, NULL, record, NULL, NULL FROM {table} \
                 WHERE {of_cluster}"
            )
        };
        format!(
            "WITH found (kind, number, key, record, judged_from, waits_for_ns) AS ( \
             SELECT 'took', stamp, NULL::bytea, NULL::bytea, NULL::int4, NULL::int8 FROM {head} \
             WHERE {of_cluster} \
             UNION ALL SELECT 'head', epoch::int8, id, NULL, judged_from, waits_for_ns FROM {head} \
             WHERE {of_cluster} \
             UNION ALL SELECT 'reign', epoch::int8, reign, NULL, NULL, NULL FROM {history} \
             WHERE {of_cluster} {} {} {}) \
             SELECT kind, number, encode(key, 'hex') AS key, encode(record, 'hex') AS record, \
             judged_from, waits_for_ns FROM found",
            rows("session", &session),
            rows("revoked", &revoked),
            rows("stays", &stays),
        )
    }

    /// Ends the reign and says where the journal is now, if the stamp is this one; answers a row then.
    pub(super) fn mark_moved(&self, seen: u64, to: &str) -> String {
        let (head, of_cluster, to) = (self.table("head"), self.of_cluster(), bytes(to.as_bytes()));
        format!(
            "UPDATE {head} SET moved_to = {to}, reign = NULL, address = NULL, stamp = stamp + 1 \
             WHERE {of_cluster} AND stamp = {seen} AND moved_to IS NULL RETURNING stamp"
        )
    }

    /// A whole journal, unless there is one; answers a row if it was made.
    pub(super) fn fill(&self, entries: &FoundEntries, records: &[(Record, &[u8])]) -> String {
        let [head, session, revoked, stays, history] = TABLES.map(|name| self.table(name));
        let (name, id) = (&self.cluster, bytes(&entries.cluster.0.to_be_bytes()));
        let EpochEntry { epoch, judged_from, waits_for } = entries.epochs;
        let waits = nanos(waits_for);
        let mut sql = format!(
            "WITH moved AS (INSERT INTO {head} (cluster, format, id, lasts_ns, stamp, number, epoch, \
             judged_from, waits_for_ns) VALUES ('{name}', {STORE_FORMAT}, {id}, 0, 1, 0, {epoch}, \
             {judged_from}, {waits}) ON CONFLICT DO NOTHING RETURNING stamp)"
        );
        let [mut open, mut lost, mut kept] = [const { Vec::new() }; 3];
        for (record, value) in records {
            let value = bytes(value);
            match record {
                Record::SessionOpened { session, .. } => open.push((session_key(*session), value)),
                Record::LeaseRevoked { session, lease, .. } => {
                    lost.push((format!("{}, {}", session_key(*session), lease_key(*lease)), value));
                }
                Record::Reserved { name, .. } => {
                    kept.push((bytes(name.as_str().as_bytes()), value));
                }
                _ => {}
            }
        }
        write_rows(&mut sql, "session", &session, name, "id", &open);
        write_rows(&mut sql, "revoked", &revoked, name, "session, lease", &lost);
        write_rows(&mut sql, "stays", &stays, name, "name", &kept);
        if !entries.reigns.is_empty() {
            let row = |(epoch, reign): &(u32, ReignId)| {
                format!("({epoch}, {})", bytes(&reign.0.to_be_bytes()))
            };
            let rows: Vec<_> = entries.reigns.iter().map(row).collect();
            let _ = write!(
                sql,
                ", history AS (INSERT INTO {history} AS t (cluster, epoch, reign) SELECT '{name}', \
                 e.epoch, e.reign FROM moved, (VALUES {}) AS e (epoch, reign) ON CONFLICT (cluster, \
                 epoch) DO UPDATE SET reign = excluded.reign)",
                rows.join(", ")
            );
        }
        sql.push_str(" SELECT stamp FROM moved");
        sql
    }

    /// What an earlier journal of this name has left, if it has no head any more.
    pub(super) fn sweep(&self) -> String {
        let (head, of_cluster) = (self.table("head"), self.of_cluster());
        let deletion = |name: &&str| {
            format!(
                "DELETE FROM {} WHERE {of_cluster} AND NOT EXISTS (SELECT FROM {head} WHERE \
                 {of_cluster})",
                self.table(name)
            )
        };
        TABLES[1..].iter().map(deletion).collect::<Vec<_>>().join("; ")
    }

    /// One condition, and all that hangs on it.
    pub(super) fn append(&self, reign: ReignKey, number: u64, changes: &EntryChanges) -> String {
        let [head, session, revoked, stays, _] = TABLES.map(|name| self.table(name));
        let (of_cluster, name) = (self.of_cluster(), &self.cluster);
        let mut epochs = String::new();
        if let Some(entry) = changes.epochs {
            let (epoch, judged_from) = (entry.epoch, entry.judged_from);
            let waits = nanos(entry.waits_for);
            epochs =
                format!(", epoch = {epoch}, judged_from = {judged_from}, waits_for_ns = {waits}");
        }
        let mut sql = format!(
            "WITH moved AS (UPDATE {head} SET stamp = stamp + 1, number = {number}{epochs} \
             WHERE {of_cluster} AND reign = {} AND number = {} RETURNING stamp)",
            key(reign),
            number - 1
        );
        let [put, gone] = both(&changes.sessions, |id| session_key(*id));
        write_rows(&mut sql, "session", &session, name, "id", &put);
        write_deletion(&mut sql, "session_gone", &session, &of_cluster, "id", &gone);

        let [put, gone] = both(&changes.revoked, |(of, lease)| {
            format!("{}, {}", session_key(*of), lease_key(*lease))
        });
        write_rows(&mut sql, "revoked", &revoked, name, "session, lease", &put);
        write_deletion(&mut sql, "revoked_gone", &revoked, &of_cluster, "(session, lease)", &gone);
        if !changes.cleared.is_empty() {
            let sessions: Vec<_> = changes.cleared.iter().map(|id| session_key(*id)).collect();
            let kept: Vec<_> = put.iter().map(|(key, _)| format!("({key})")).collect();
            let but = match kept.is_empty() {
                true => String::new(),
                false => format!(" AND (session, lease) NOT IN ({})", kept.join(", ")),
            };
            let _ = write!(
                sql,
                ", cleared AS (DELETE FROM {revoked} USING moved WHERE {of_cluster} AND session IN \
                 ({}){but})",
                sessions.join(", ")
            );
        }

        let [put, gone] = both(&changes.stays, |name: &Name| bytes(name.as_str().as_bytes()));
        write_rows(&mut sql, "stays", &stays, name, "name", &put);
        write_deletion(&mut sql, "stays_gone", &stays, &of_cluster, "name", &gone);
        sql.push_str(" SELECT stamp FROM moved");
        sql
    }
}

/// What is put, as a key and a record, and what is deleted.
fn both<K>(
    entries: &std::collections::BTreeMap<K, Option<Vec<u8>>>,
    key: impl Fn(&K) -> String,
) -> [Vec<(String, String)>; 2] {
    let (put, gone): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, value)| value.is_some());
    [put, gone].map(|entries| {
        let entry = |(known, value): (&K, &Option<Vec<u8>>)| {
            (key(known), value.as_deref().map_or_else(String::new, bytes))
        };
        entries.into_iter().map(entry).collect()
    })
}

fn write_rows(
    sql: &mut String,
    part: &str,
    table: &str,
    cluster: &str,
    columns: &str,
    put: &[(String, String)],
) {
    if put.is_empty() {
        return;
    }
    let rows: Vec<_> = put.iter().map(|(key, record)| format!("({key}, {record})")).collect();
    let _ = write!(
        sql,
        ", {part} AS (INSERT INTO {table} AS t (cluster, {columns}, record) SELECT '{cluster}', \
         {columns}, record FROM moved, (VALUES {}) AS e ({columns}, record) \
         ON CONFLICT (cluster, {columns}) DO UPDATE SET record = excluded.record)",
        rows.join(", ")
    );
}

fn write_deletion(
    sql: &mut String,
    part: &str,
    table: &str,
    of_cluster: &str,
    columns: &str,
    gone: &[(String, String)],
) {
    if gone.is_empty() {
        return;
    }
    let keys: Vec<_> = gone.iter().map(|(key, _)| format!("({key})")).collect();
    let _ = write!(
        sql,
        ", {part} AS (DELETE FROM {table} USING moved WHERE {of_cluster} AND {columns} IN ({}))",
        keys.join(", ")
    );
}

fn nanos(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "NULL".to_owned(), |duration| duration.as_nanos().to_string())
}

fn bytes(bytes: &[u8]) -> String {
    format!("decode('{}', 'hex')", to_hex(bytes))
}

fn key(reign: ReignKey) -> String {
    bytes(&reign.0.to_be_bytes())
}

fn session_key(session: SessionId) -> String {
    bytes(&session.0.to_be_bytes())
}

fn lease_key(lease: LeaseId) -> String {
    let mut key = lease.epoch.to_be_bytes().to_vec();
    key.extend(lease.count.to_be_bytes());
    bytes(&key)
}
