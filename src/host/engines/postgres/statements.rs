//! What is sent to a PostgreSQL server.

use std::time::Duration;

use crate::{
    error::{LockError, Result},
    name::Name,
};

/// How a name becomes the key of an advisory lock. All other users of the lock do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyDialect {
    /// `pg_advisory_lock(hashtext(NAME))`.
    HashText,
    /// As the Ruby gem `with_advisory_lock`: `pg_advisory_lock(CRC32, 0)`.
    WithAdvisoryLock,
    /// The name is the key, in decimal.
    Number,
}

/// The server's own name of its data, and of the database.
pub(super) const PLACE: &str =
    "SELECT (SELECT system_identifier FROM pg_control_system()), current_database()::text";
/// A primary that was made a standby takes no locks that count.
pub(super) const PING: &str = "SELECT NOT pg_is_in_recovery()";
pub(super) const EXAMINE: &str = "SELECT current_setting('server_version') AS version, \
     (SELECT count(*) FROM pg_stat_replication)::text AS replicas, \
     current_setting('synchronous_standby_names') AS synchronous, \
     current_setting('fsync') AS fsync";

impl KeyDialect {
    pub(super) fn of(text: Option<&str>) -> Option<KeyDialect> {
        match text {
            None | Some("hashtext") => Some(KeyDialect::HashText),
            Some("with_advisory_lock") => Some(KeyDialect::WithAdvisoryLock),
            Some("number") => Some(KeyDialect::Number),
            Some(_) => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            KeyDialect::HashText => "hashtext",
            KeyDialect::WithAdvisoryLock => "with_advisory_lock",
            KeyDialect::Number => "number",
        }
    }

    /// What the statements are given in the place of the key.
    pub(super) fn key(self, name: &Name) -> Result<String> {
        match self {
            KeyDialect::HashText => Ok(name.to_string()),
            KeyDialect::WithAdvisoryLock => {
                Ok((crc32(name.as_str().as_bytes()) & 0x7fff_ffff).to_string())
            }
            KeyDialect::Number => match name.as_str().parse::<i64>() {
                Ok(number) if number.to_string() == name.as_str() => Ok(number.to_string()),
                _ => Err(LockError::config(
                    "with ?key=number a name is a whole number from -2^63 to 2^63 - 1, such as 42",
                )),
            },
        }
    }

    /// The arguments of the lock's functions, of a key's text.
    fn arguments(self, key: &str) -> String {
        match self {
            KeyDialect::HashText => format!("hashtext({key})::int8"),
            KeyDialect::WithAdvisoryLock => format!("({key})::int4, 0"),
            KeyDialect::Number => format!("({key})::int8"),
        }
    }

    /// That a row of `pg_locks` is of this database and key.
    pub(super) fn matches(self, locks: &str, key: &str) -> String {
        let of_key = match self {
            KeyDialect::WithAdvisoryLock => format!(
                "{locks}.objsubid = 2 AND {locks}.classid::int8 = ({key})::int8 AND {locks}.objid = 0"
            ),
            _ => format!(
                "{locks}.objsubid = 1 AND ({locks}.classid::int8 << 32 | {locks}.objid::int8) = {}",
                self.arguments(key)
            ),
        };
        format!(
            "{locks}.locktype = 'advisory' AND {locks}.database = (SELECT oid FROM pg_database WHERE \
             datname = current_database()) AND {of_key}"
        )
    }
}

/// `$1` is the key, `$2` the name, `$3` the holder in words.
pub(super) struct ModeStatements {
    pub(super) take: String,
    pub(super) wait: String,
    pub(super) give: String,
    pub(super) give_alone: String,
}

/// What is asked of one database.
pub(super) struct Statements {
    pub(super) schema: String,
    pub(super) sequence: String,
    pub(super) is_founded: String,
    pub(super) found: String,
    pub(super) tidy: String,
    /// Of locks that one session has, and of those that are shared.
    pub(super) modes: [ModeStatements; 2],
    pub(super) are_wanted: String,
    pub(super) draw: String,
    pub(super) look: String,
    pub(super) look_at: String,
}

impl Statements {
    pub(super) fn new(dialect: KeyDialect, schema: &str) -> Statements {
        let sequence = format!("\"{schema}\".tierlock_token");
        let table = format!("\"{schema}\".tierlock_holders");
        let key = dialect.arguments("$1");
        // A data-modifying part of a statement runs to its end, read or not.
        let noted = format!(
            "noted AS (INSERT INTO {table} (name, pid, key, token, holder, since) \
             SELECT $2, pg_backend_pid(), $1, token, $3, clock_timestamp() FROM taken \
             ON CONFLICT (name, pid) DO UPDATE SET key = excluded.key, token = excluded.token, \
             holder = excluded.holder, since = excluded.since) SELECT token FROM taken"
        );
        let about = "h.token, h.holder, extract(epoch FROM clock_timestamp() - h.since)::float8 AS held, \
             a.application_name AS application, host(a.client_addr) AS address";
        Statements {
            is_founded: format!(
                "SELECT to_regclass('{sequence}') IS NOT NULL AND to_regclass('{table}') IS NOT NULL"
            ),
            found: format!(
                "CREATE SEQUENCE IF NOT EXISTS {sequence}; CREATE UNLOGGED TABLE IF NOT EXISTS {table} \
                 (name text, pid int4, key text NOT NULL, token int8 NOT NULL, holder text NOT NULL, \
                 since timestamptz NOT NULL, PRIMARY KEY (name, pid))"
            ),
            // What sessions have left that are gone, or had this number before.
            tidy: format!(
                "DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} WHERE \
                 pid = pg_backend_pid() OR pid NOT IN (SELECT pid FROM pg_stat_activity) \
                 FOR UPDATE SKIP LOCKED)"
            ),
            modes: ["", "_shared"].map(|mode| ModeStatements {
                take: format!(
                    "WITH taken AS MATERIALIZED (SELECT nextval('{sequence}') AS token \
                     WHERE pg_try_advisory_lock{mode}({key})), {noted}"
                ),
                wait: format!(
                    "WITH locked AS MATERIALIZED (SELECT pg_advisory_lock{mode}({key})), \
                     taken AS MATERIALIZED (SELECT nextval('{sequence}') AS token FROM locked), {noted}"
                ),
                give: format!(
                    "WITH gone AS (DELETE FROM {table} WHERE name = $2 AND pid = pg_backend_pid()) \
                     SELECT pg_advisory_unlock{mode}({key})"
                ),
                give_alone: format!("SELECT pg_advisory_unlock{mode}({key})"),
            }),
            are_wanted: format!(
                "SELECT EXISTS (SELECT FROM pg_locks l WHERE NOT l.granted AND {}) \
                 FROM unnest($1) WITH ORDINALITY AS held (key, number) ORDER BY number",
                dialect.matches("l", "held.key")
            ),
            draw: format!(
                "WITH taken AS MATERIALIZED (SELECT nextval('{sequence}') AS token) \
                 UPDATE {table} h SET token = taken.token FROM taken \
                 WHERE h.name = $1 AND h.pid = pg_backend_pid() RETURNING h.token"
            ),
            look: format!(
                "SELECT h.name, l.granted, {about} FROM {table} h \
                 JOIN pg_locks l ON l.pid = h.pid AND {} \
                 LEFT JOIN pg_stat_activity a ON a.pid = h.pid WHERE l.granted ORDER BY h.name",
                dialect.matches("l", "h.key")
            ),
            // Version 14 tells since when a session waits.
            look_at: format!(
                "SELECT l.granted, {about} FROM pg_locks l \
                 LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
                 LEFT JOIN {table} h ON h.name = $2 AND h.pid = l.pid AND l.granted \
                 WHERE {} ORDER BY l.granted DESC, to_jsonb(l)->>'waitstart', l.pid",
                dialect.matches("l", "$1")
            ),
            schema: schema.to_owned(),
            sequence,
        }
    }

    /// What a session is set to, whatever its user or database are set to: limits of waits end none of
    /// ours, and silence for the time to live ends the session. A version sets what it has.
    pub(super) fn settings(&self, time_to_live: Duration) -> String {
        let lives = time_to_live.as_millis().clamp(1, i32::MAX as u128);
        let seconds = (time_to_live.as_secs() / 3).max(1);
        let look = (time_to_live / 3).as_millis().clamp(100, 10_000);
        format!(
            "SELECT set_config(s.name, wanted.value, false) FROM (VALUES \
             ('lock_timeout', '0'), ('statement_timeout', '0'), ('transaction_timeout', '0'), \
             ('idle_session_timeout', '{lives}'), ('client_connection_check_interval', '{look}'), \
             ('default_transaction_read_only', 'off'), ('synchronous_commit', 'on'), \
             ('default_transaction_isolation', 'read committed'), \
             ('tcp_keepalives_idle', '{seconds}'), ('tcp_keepalives_interval', '{seconds}'), \
             ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '{lives}')) \
             AS wanted (name, value) JOIN pg_settings s ON s.name = wanted.name"
        )
    }

    /// Has the sequence go on above a token. While it is altered no number is drawn of it, so none is
    /// drawn twice.
    pub(super) fn raise(&self, above: u64) -> String {
        let sequence = &self.sequence;
        format!(
            "DO $$ DECLARE known int8; BEGIN ALTER SEQUENCE {sequence} INCREMENT BY 1; \
             SELECT last_value INTO known FROM {sequence}; \
             IF known < {above} THEN PERFORM setval('{sequence}', {above}); END IF; END $$"
        )
    }
}

/// As zlib counts it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}
