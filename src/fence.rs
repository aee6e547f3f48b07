//! What refuses a stale holder: the resource's half of a fencing token.
//!
//! A lock between machines can be lost while its holder believes in it. The lock cannot help that;
//! what it protects can. Every write brings the [`Token`] of the lock it was made under, and the
//! resource keeps the highest token it has seen and refuses a smaller one. Then a holder that was
//! paused for an hour, wakes up and writes, is told so and does no harm.
//!
//! **What it does not do.** A gate knows tokens, not locks: it believes the first token that it is
//! shown, and until a later holder has come by, an earlier one still gets in. Ask
//! [`LockManager::check_token`](crate::LockManager::check_token) where that is not enough. And
//! looking at a token and acting upon it must be one step, or a later holder comes in between: so
//! these gates are *entered*, one caller at a time, and the protected action is done inside.
//!
//! **Reads bring the token, too.** A caller that reads under a lock, thinks, and writes, enters for the
//! reading as well as for the writing. What was read before the gate had seen the reader's token
//! may still be changed by an earlier holder, and the write would undo that.
//!
//! | what is protected | take |
//! |---|---|
//! | memory of one process, a device behind one server | [`Gate`], or [`Gates`] for many names |
//! | files, or anything else that several processes of one machine touch | [`FileGate`] |
//! | rows of a database | a column and a `WHERE`, below |
//!
//! # In SQL
//! Give the row that is written a column for the token. One statement looks and acts; it changes
//! no row when the token is stale. ([`Token::as_i64`] fits every database's 64-bit integer.)
//!
//! ```
//! # use rusqlite::{Connection, params};
//! # use tierlock::Token;
//! # let (shelf, left) = (12, 99);
//! # let [first, second] = [1, 2].map(|number| Token::new(number).unwrap());
//! # let db = Connection::open_in_memory()?;
//! # db.execute_batch("CREATE TABLE stock (id INTEGER PRIMARY KEY, left INTEGER, \
//! #     token INTEGER NOT NULL DEFAULT 0); INSERT INTO stock (id, left) VALUES (12, 100)")?;
//! # let write = |token: Token| {
//! let written = db.execute(
//!     "UPDATE stock SET left = $1, token = $2 WHERE id = $3 AND token <= $2",
//!     params![left, token.as_i64(), shelf],
//! )?;
//! if written == 0 {
//!     // the token is stale: a later holder has written (or there is no such row)
//! }
//! # Ok::<_, rusqlite::Error>(written) };
//! # assert_eq!([write(first)?, write(second)?, write(second)?, write(first)?], [1, 1, 1, 0]);
//! # Ok::<(), rusqlite::Error>(())
//! ```
//!
//! Where a lock protects several rows or tables, enter a gate by [`SQL_ENTER`] first, in the same
//! transaction as the writes: its row is locked until the transaction ends, so no other caller comes in
//! between. It runs as it stands on SQLite (in a transaction begun with `BEGIN IMMEDIATE`) and on
//! PostgreSQL.
//!
//! ```
//! # use rusqlite::{Connection, TransactionBehavior, params};
//! # use tierlock::Token;
//! use tierlock::fence::{SQL_ENTER, SQL_SEEN, SQL_TABLE, Stale};
//! # let [first, second] = [1, 2].map(|number| Token::new(number).unwrap());
//! # let mut db = Connection::open_in_memory()?;
//!
//! db.execute(SQL_TABLE, [])?; // once
//! # let mut write = |token: Token| {
//! let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
//! if step.execute(SQL_ENTER, params!["stock/12", token.as_i64()])? == 0 {
//!     // Nothing was written. The error names both tokens.
//!     let seen: i64 = step.query_row(SQL_SEEN, ["stock/12"], |row| row.get(0))?;
//!     return Err(Stale::in_sql(token, seen).into());
//! }
//! // … the writes …
//! step.commit()?;
//! # Ok::<_, Box<dyn std::error::Error>>(()) };
//! # let refused = [write(second), write(second), write(first)].map(Result::err);
//! # let [None, None, Some(stale)] = refused else { panic!("{refused:?}") };
//! # assert_eq!(stale.to_string(), "token 1 is stale: a later holder, with token 2, has been here");
//! # Ok::<(), rusqlite::Error>(())
//! ```
//!
//! # Without any lock
//! Where one row of one database is all that is written, a version column is stronger than a lock
//! and one thing less to run: read the row with its version, decide, and write if it is still that
//! version. A caller that changes no row reads again.
//!
//! ```
//! # use rusqlite::{Connection, params};
//! # let db = Connection::open_in_memory()?;
//! # db.execute_batch("CREATE TABLE stock (id INTEGER PRIMARY KEY, left INTEGER, \
//! #     version INTEGER NOT NULL DEFAULT 0); INSERT INTO stock (id, left) VALUES (12, 100)")?;
//! # let mut sell = |left: i64, version: i64| {
//! let written = db.execute(
//!     "UPDATE stock SET left = $1, version = version + 1 WHERE id = 12 AND version = $2",
//!     params![left, version],
//! )?;
//! # Ok::<_, rusqlite::Error>(written) };
//! # assert_eq!([sell(99, 0)?, sell(99, 0)?, sell(98, 1)?], [1, 0, 1]);
//! # Ok::<(), rusqlite::Error>(())
//! ```

#[cfg(feature = "process")]
mod file;

use std::{
    collections::HashMap,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "process")]
pub use self::file::{FileEntry, FileGate};
use crate::{
    api::{guard::MutexGuard, mutex::Mutex},
    clock,
    error::{LockError, LockErrorKind, Result},
    name::Name,
    time::Time,
    token::Token,
};

/// Makes the table of [`SQL_ENTER`], unless it is there.
pub const SQL_TABLE: &str = "CREATE TABLE IF NOT EXISTS tierlock_fence \
     (name VARCHAR(255) PRIMARY KEY, token BIGINT NOT NULL)";

/// Enters the gate of a name, `$1`, with a token, `$2`: changes one row, or none if the token is
/// stale. For SQLite and PostgreSQL.
///
/// It counts as long as its transaction: make the writes that the lock protects in the same one.
/// The table keeps a row per name. Delete it with what it protects, not before: a name without a
/// row believes the first token that it is shown.
pub const SQL_ENTER: &str = "INSERT INTO tierlock_fence (name, token) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET token = excluded.token \
     WHERE tierlock_fence.token <= excluded.token";

/// The highest token that the gate of a name, `$1`, has seen: asked for in the same transaction as
/// an [`SQL_ENTER`] that changed no row, it is the other half of a [`Stale`].
pub const SQL_SEEN: &str = "SELECT token FROM tierlock_fence WHERE name = $1";

/// A gate refuses a token that is smaller than one it has seen.
///
/// As a [`LockError`] it is of kind [`Lost`](LockErrorKind::Lost), and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token {offered} is stale: a later holder, with token {seen}, has been here")]
#[non_exhaustive]
pub struct Stale {
    /// The highest token seen.
    pub seen: Token,
    /// The one that was refused.
    pub offered: Token,
}

impl Stale {
    /// What a gate in a database says of a token that it refused, by the highest that it has seen.
    pub fn in_sql(offered: Token, seen: i64) -> Stale {
        let seen = u64::try_from(seen).ok().and_then(Token::new);
        Stale { seen: seen.unwrap_or(Token::ZERO), offered }
    }

    /// Refuses what is smaller than the highest seen.
    fn unless(offered: Token, seen: Token) -> Result<(), Stale> {
        if offered < seen { Err(Stale { seen, offered }) } else { Ok(()) }
    }
}

impl From<Stale> for LockError {
    fn from(stale: Stale) -> LockError {
        LockError::new(LockErrorKind::Lost, stale.to_string()).with_source(stale)
    }
}

/// What one lock protects, behind a gate that refuses stale tokens. In memory.
///
/// One caller at a time is inside, so the token counts until the protected action is done. What the gate knows lives
/// as long as the gate: keep it with what it protects, and if that outlives the process, keep the
/// token there as well and [`resume`](Gate::resume) with it.
///
/// # Fairness
/// As a [`Mutex`] of thread scope.
///
/// # Example
/// ```
/// use tierlock::{LockManager, MutexGuard, fence::Gate};
///
/// let locks = LockManager::builder().open()?;
/// let ledger = Gate::new(Vec::new());
///
/// let early = MutexGuard::token(&locks.mutex("ledger", ()).lock()?);
/// let guard = locks.mutex("ledger", ()).lock()?;
/// ledger.enter(MutexGuard::token(&guard))?.push("a later entry");
///
/// // A holder from before wakes up.
/// let stale = ledger.enter(early).unwrap_err();
/// assert_eq!((stale.offered, stale.seen), (early, MutexGuard::token(&guard)));
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Debug)]
pub struct Gate<T> {
    inside: Mutex<Inside<T>>,
}

#[derive(Debug)]
struct Inside<T> {
    seen: Token,
    value: T,
}

/// A caller is inside a [`Gate`], with the highest token so far; until this is dropped no other
/// gets in.
#[must_use = "the gate is open for others once this is dropped"]
pub struct Entry<'a, T>(MutexGuard<'a, Inside<T>>);

impl<T> Gate<T> {
    /// A gate that has seen no token.
    pub const fn new(value: T) -> Gate<T> {
        Gate::resume(value, Token::ZERO)
    }

    /// A gate that has seen this token: the one that was kept with `value`.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Token, fence::Gate};
    ///
    /// let seen = Token::new(8).unwrap(); // kept on disk, beside the ledger
    /// let ledger = Gate::resume(vec!["an entry"], seen);
    /// assert!(ledger.enter(Token::new(7).unwrap()).is_err()); // stale, also after a restart
    /// assert_eq!(ledger.seen(), seen);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub const fn resume(value: T, seen: Token) -> Gate<T> {
        Gate { inside: Mutex::new(Inside { seen, value }) }
    }

    /// Waits until no caller is inside, and enters.
    ///
    /// # Errors
    /// [`Stale`], if a larger token has been here.
    pub fn enter(&self, token: Token) -> Result<Entry<'_, T>, Stale> {
        Entry::with(self.inside.lock().expect(NEVER_FAILS), token)
    }

    /// As [`enter`](Gate::enter), blocking no thread.
    ///
    /// # Cancel safety
    /// It may be dropped at any point.
    ///
    /// # Errors
    /// As [`enter`](Gate::enter).
    pub async fn enter_async(&self, token: Token) -> Result<Entry<'_, T>, Stale> {
        Entry::with(self.inside.lock_async().await.expect(NEVER_FAILS), token)
    }

    /// The highest token seen.
    pub fn seen(&self) -> Token {
        self.inside.lock().expect(NEVER_FAILS).seen
    }

    /// What it protects, without the gate.
    pub fn into_inner(self) -> T {
        self.inside.into_inner().value
    }
}

impl<'a, T> Entry<'a, T> {
    fn with(mut inside: MutexGuard<'a, Inside<T>>, token: Token) -> Result<Entry<'a, T>, Stale> {
        Stale::unless(token, inside.seen)?;
        inside.seen = token;
        Ok(Entry(inside))
    }

    /// The token it was entered with.
    pub fn token(entry: &Self) -> Token {
        entry.0.seen
    }
}

impl<T> Deref for Entry<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> DerefMut for Entry<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Entry<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("token", &Entry::token(self)).field("value", &**self).finish()
    }
}

/// Gates of many names, in memory: for a server before what `orders/1`, `orders/2`, … protect.
///
/// **Memory.** Every name that was entered costs its own text and some 200 bytes until it is
/// forgotten. Forgetting a name means to believe the next token that comes for it, so
/// [`forget`](Gates::forget) one when what it protects is gone. Where no caller says so,
/// [`forget_idle`](Gates::forget_idle) names that no caller has entered for longer than any holder
/// can have been asleep: a day, not a minute.
///
/// # Example
/// ```
/// use tierlock::{Name, Token, fence::Gates};
///
/// let gates = Gates::new();
/// let order = Name::new("orders/42").unwrap();
/// let [early, late] = [7, 8].map(|number| Token::new(number).unwrap());
/// {
///     let _inside = gates.enter(&order, late)?;
///     // … the protected action …
/// }
/// assert!(gates.enter(&order, early).is_err());
/// assert!(gates.enter(&Name::new("orders/43").unwrap(), early).is_ok());
/// # Ok::<(), tierlock::fence::Stale>(())
/// ```
#[derive(Debug, Default)]
pub struct Gates {
    names: parking_lot::Mutex<HashMap<Name, Arc<Mutex<Inside<Time>>>>>,
}

/// A caller is inside the gate of one name ([`Gates`]), with the highest token so far; until this
/// is dropped no other gets in there.
#[must_use = "the gate is open for others once this is dropped"]
#[derive(Debug)]
pub struct NamedEntry(Entry<'static, Time>);

impl Gates {
    /// Gates that have seen no token.
    pub fn new() -> Gates {
        Gates::default()
    }

    /// Waits until no caller is inside this name's gate, and enters.
    ///
    /// # Errors
    /// [`Stale`], if a larger token has been here.
    pub fn enter(&self, name: &Name, token: Token) -> Result<NamedEntry, Stale> {
        NamedEntry::with(self.gate(name).lock_arc().expect(NEVER_FAILS), token)
    }

    /// As [`enter`](Gates::enter), blocking no thread.
    ///
    /// # Cancel safety
    /// It may be dropped at any point.
    ///
    /// # Errors
    /// As [`enter`](Gates::enter).
    pub async fn enter_async(&self, name: &Name, token: Token) -> Result<NamedEntry, Stale> {
        let gate = self.gate(name);
        NamedEntry::with(gate.lock_arc_async().await.expect(NEVER_FAILS), token)
    }

    /// The highest token seen of this name; [`Token::ZERO`], if it is not known.
    pub fn seen(&self, name: &Name) -> Token {
        let gate = self.names.lock().get(name).cloned();
        gate.map_or(Token::ZERO, |gate| gate.lock().expect(NEVER_FAILS).seen)
    }

    /// Forgets a name; what it protects is gone. `false`, if a caller is at its gate just now, or
    /// it is not known.
    pub fn forget(&self, name: &Name) -> bool {
        let mut names = self.names.lock();
        let unused = names.get(name).is_some_and(|gate| Arc::strong_count(gate) == 1);
        if unused {
            names.remove(name);
        }
        unused
    }

    /// Forgets the names that no caller has entered for at least so long; how many those were.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use tierlock::{Name, Token, fence::Gates};
    ///
    /// let gates = Gates::new();
    /// let _ = gates.enter(&Name::new("orders/42").unwrap(), Token::new(7).unwrap())?;
    /// assert_eq!(gates.forget_idle(Duration::from_secs(86_400)), 0); // once an hour, say
    /// assert_eq!(gates.len(), 1);
    /// # Ok::<(), tierlock::fence::Stale>(())
    /// ```
    pub fn forget_idle(&self, idle: Duration) -> usize {
        let now = clock::now();
        let mut names = self.names.lock();
        let before = names.len();
        // A caller at a gate has a share in it.
        names.retain(|_, gate| {
            Arc::get_mut(gate).is_none_or(|gate| now.since(gate.get_mut().value) < idle)
        });
        before - names.len()
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.names.lock().len()
    }

    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn gate(&self, name: &Name) -> Arc<Mutex<Inside<Time>>> {
        let mut names = self.names.lock();
        if let Some(gate) = names.get(name) {
            return gate.clone();
        }
        let gate = Arc::new(Mutex::new(Inside { seen: Token::ZERO, value: clock::now() }));
        names.insert(name.clone(), gate.clone());
        gate
    }
}

impl NamedEntry {
    fn with(inside: MutexGuard<'static, Inside<Time>>, token: Token) -> Result<NamedEntry, Stale> {
        let mut entry = Entry::with(inside, token)?;
        *entry = clock::now();
        Ok(NamedEntry(entry))
    }

    /// The token it was entered with.
    pub fn token(&self) -> Token {
        Entry::token(&self.0)
    }
}

const NEVER_FAILS: &str = "a mutex of thread scope never fails";
