//! ShedLock's table: a row per job, taken until a time, so that Java's ShedLock and `tierlock run` take
//! turns at one job.
//!
//! A row is taken for `at_most`, which is therefore required, and nothing extends it; `at_least` stays
//! in the row after its holder. All times are the database's own, in UTC, as ShedLock's `usingDbTime`
//! has them. Every grant writes another `locked_by`, so nothing that comes late can mean a later run.
//!
//! The table has no room for a token, so a manager has to say `?unfenced=1`; and it tells no end of a
//! lock, so a lock is tried and not waited for.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::{
    EngineSettings,
    engine::{EngineAbilities, EngineFinding, EngineGrant, EngineLock, LockEngine, Renewal},
    fault::EngineFault,
    margin,
    wish::Wish,
};
use crate::{
    clock,
    error::{Holder, LockError, Result},
    host::{random, service_url::ServiceUrl},
    name::Name,
    time::Time,
    token::Token,
};

/// The table in a database.
pub(super) trait ShedTable: Send + Sync + 'static {
    fn shown(&self) -> String;

    /// Takes the row for so long from now on; whether it was free. After an error it may be taken.
    fn take(
        &self,
        name: &str,
        owner: &str,
        lives: Duration,
    ) -> impl Future<Output = Result<bool, EngineFault>> + Send;

    /// Ends an owner's row; it stays taken until so long after it was taken. Whether it was the
    /// owner's.
    fn give(
        &self,
        name: &str,
        owner: &str,
        at_least: Duration,
    ) -> impl Future<Output = Result<bool, EngineFault>> + Send;

    /// The rows that are taken, or that one.
    fn taken(
        &self,
        only: Option<&str>,
    ) -> impl Future<Output = Result<Vec<TakenRow>, EngineFault>> + Send;

    /// How an operator frees a row.
    fn break_advice(&self, name: &Name) -> String;
}

/// A row whose time is not over.
pub(super) struct TakenRow {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) left: Duration,
    pub(super) held: Duration,
}

/// The jobs of one table.
pub(super) struct ShedLockEngine<T> {
    table: Arc<T>,
    is_unfenced: bool,
    time_to_live: Duration,
    /// What `locked_by` begins with.
    holder: String,
}

/// One grant: a row of its own `locked_by`.
#[derive(Clone)]
pub(super) struct ShedHold {
    name: Name,
    owner: String,
    at_least: Duration,
    deadline: Time,
}

/// Takes out the options of a table's URL that its server has not: the table, and whether locks without
/// a token are wanted.
pub(super) fn take_table(url: &mut ServiceUrl) -> Result<(String, bool)> {
    let table = url.take("table")?.unwrap_or_else(|| "shedlock".to_owned());
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.');
    if table.is_empty() || !table.chars().all(is_plain) {
        return Err(url.refuse("the option table must be a name of letters, digits, _ and ."));
    }
    let is_unfenced = url.take_switch("unfenced")?;
    url.finish("password_file, table, unfenced")?;
    Ok((table, is_unfenced))
}

/// The first and the longest pause before a row that may be ours is given up again.
const UNDO_PAUSE: Duration = Duration::from_millis(100);
const UNDO_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A server that has not carried a statement by then is taken to have dropped it with its connection.
const LATEST: Duration = Duration::from_secs(30);
/// `locked_by` has room for so many characters, of which the last are drawn at random.
const HOLDER_MAX: usize = 200;

impl<T: ShedTable> ShedLockEngine<T> {
    pub(super) fn new(table: T, is_unfenced: bool, settings: &EngineSettings) -> Self {
        let identity = &settings.identity;
        let (label, host, pid) = (&identity.label, &identity.host, identity.pid);
        let holder: String =
            format!("{label} on {host} (pid {pid})").chars().take(HOLDER_MAX).collect();
        let time_to_live = settings.time_to_live;
        ShedLockEngine { table: Arc::new(table), is_unfenced, time_to_live, holder }
    }

    /// Gives up what may have been taken, before the next attempt, which would meet it; if it was not there,
    /// again and again: the statement may be carried yet, after its connection has
    /// gone, and the row would be taken for as long as the job may run.
    async fn undo(&self, wish: &Wish, owner: String, lives: Duration) {
        if matches!(self.table.give(wish.name.as_str(), &owner, Duration::ZERO).await, Ok(true)) {
            return;
        }
        wish.may_have_left();
        let (table, name, begun) = (self.table.clone(), wish.name.clone(), clock::now());
        Handle::current().spawn(async move {
            let mut pause = UNDO_PAUSE;
            loop {
                sleep(pause).await;
                let until = match table.give(name.as_str(), &owner, Duration::ZERO).await {
                    Ok(true) => return,
                    Ok(false) => begun + lives.min(LATEST),
                    Err(_) => begun + lives,
                };
                if clock::now() >= until {
                    return;
                }
                pause = (pause * 2).min(UNDO_PAUSE_MAX);
            }
        });
    }
}

impl<T: ShedTable> LockEngine for ShedLockEngine<T> {
    type Hold = ShedHold;

    fn abilities(&self) -> EngineAbilities {
        EngineAbilities {
            has_tokens: self.is_unfenced,
            reserves: true,
            needs_at_most: true,
            ..EngineAbilities::default()
        }
    }

    fn shown(&self) -> String {
        self.table.shown()
    }

    fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    async fn acquire(&self, wish: &Wish) -> Result<EngineGrant<ShedHold>> {
        if !wish.is_try() {
            return Err(LockError::config(format!(
                "{} does not tell waiters when a lock is free, so it can only be tried: use \
                 try_lock, or `tierlock run --no-wait`",
                self.shown()
            )));
        }
        let at_most = wish.at_most.ok_or_else(|| LockError::config("at_most is missing"))?;
        let at_least = wish.at_least.unwrap_or(Duration::ZERO);
        // The row ends after we do, also where its clock runs a little faster.
        let lives = (at_most + margin(at_most)).max(at_least);
        loop {
            wish.check()?;
            let owner = format!("{} {:032x}", self.holder, random());
            let sent = clock::now();
            match self.table.take(wish.name.as_str(), &owner, lives).await {
                Ok(false) => {
                    wish.acknowledge();
                    return Err(wish.refused());
                }
                Err(fault) => {
                    self.undo(wish, owner, lives).await;
                    wish.weather(fault).await?;
                }
                Ok(true) => {
                    wish.acknowledge();
                    // Its own end comes first, which is `at_most`.
                    let deadline = sent + at_most + margin(at_most) / 2;
                    let hold = ShedHold { name: wish.name.clone(), owner, at_least, deadline };
                    let token = Token::ZERO;
                    let had_to_queue = false;
                    return Ok(EngineGrant { hold, token, sent, deadline, had_to_queue });
                }
            }
        }
    }

    /// Extends nothing: looks whether the rows are ours still.
    async fn renew(&self, holds: &[ShedHold]) -> Vec<Renewal> {
        let mut answers = Vec::new();
        for hold in holds {
            answers.push(match self.table.taken(Some(hold.name.as_str())).await {
                Ok(rows) if rows.iter().any(|row| row.owner == hold.owner) => {
                    Renewal::Until(hold.deadline)
                }
                Ok(_) => Renewal::Gone,
                Err(_) => Renewal::Unknown,
            });
        }
        answers
    }

    async fn release(&self, hold: &ShedHold, is_unused: bool) -> Result<bool, EngineFault> {
        let at_least = if is_unused { Duration::ZERO } else { hold.at_least };
        self.table.give(hold.name.as_str(), &hold.owner, at_least).await
    }

    async fn look(&self, only: Option<&Name>) -> Result<Vec<EngineLock>, EngineFault> {
        let rows = self.table.taken(only.map(Name::as_str)).await?;
        let lock = |row: TakenRow| {
            // The drawn part says nothing to a reader.
            let drawn = row.owner.rsplit_once(' ').filter(|(_, drawn)| drawn.len() == 32);
            let label = drawn.map_or(&*row.owner, |(holder, _)| holder).to_owned();
            let (held, held_since_grant) = (Some(row.held), true);
            Some(EngineLock {
                name: Name::new(&row.name).ok()?,
                token: Token::ZERO,
                holder: Some(Holder { label, held, held_since_grant, ..Holder::default() }),
                is_reserved: false,
                remaining: Some(row.left),
                waiters: Vec::new(),
            })
        };
        Ok(rows.into_iter().filter_map(lock).collect())
    }

    async fn examine(&self) -> Result<Vec<EngineFinding>, EngineFault> {
        let (shown, count) = (self.shown(), self.table.taken(None).await?.len());
        Ok(vec![
            EngineFinding::fine(format!("{shown} answers: {count} rows are taken")),
            EngineFinding::note(
                "its clock decides when a row is free, and the table has no token: these locks are \
                 for efficiency, not for correctness",
            ),
        ])
    }

    async fn part(&self) {}

    fn place(&self) -> Option<String> {
        Some(self.table.shown())
    }

    fn break_advice(&self, name: &Name) -> String {
        self.table.break_advice(name)
    }
}
