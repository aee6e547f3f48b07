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

use std::{
    collections::HashMap,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};
#[cfg(feature = "process")]
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::*},
};

#[cfg(feature = "process")]
use crate::process::{FileTurn, TurnFile};
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

/// A gate in a file, for what the processes of one machine share: a device, a directory of files,
/// a program that checks no tokens.
///
/// One caller at a time is inside, of all threads and processes that use the file; the kernel lets the
/// next one in when the caller inside leaves or dies, however that happens. **A process that is
/// stopped inside keeps all others out** until it goes on or is killed: with a resource that cannot
/// look at tokens itself there is no other way to keep it from acting later. So enter late and
/// leave early. A process forked from one inside is not inside.
///
/// **Durable.** A token is on the disk before its holder is inside: no crash of a process or of
/// the machine takes it back. That costs one sync of the disk per new token. (Tokens of process
/// scope may go back by a few after a power failure; then the gate refuses them until they have
/// caught up.)
///
/// **The file** is two lines of text under a heading, of one size for ever. It is made if it is
/// missing, for this user only (`chmod` it for others), on a local file system. A user that removes it
/// makes the gate forget: remove it together with what it protects, when no process uses it.
///
/// # Example
/// ```
/// use tierlock::{LockErrorKind, Token, fence::FileGate};
///
/// # let place = std::env::temp_dir().join(format!("tierlock-doc-gate-{}", std::process::id()));
/// # std::fs::create_dir(&place).unwrap();
/// let gate = FileGate::open(place.join("export.fence"))?;
/// # let [early, late] = [7, 8].map(|number| Token::new(number).unwrap());
/// {
///     let _inside = gate.enter(late)?; // e.g. MutexGuard::token(&guard)
///     std::fs::write(place.join("export"), "the later holder's").unwrap();
/// }
/// let refused = gate.enter(early).unwrap_err();
/// assert_eq!(refused.kind(), LockErrorKind::Lost);
/// # std::fs::remove_dir_all(place).unwrap();
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[cfg(feature = "process")]
pub struct FileGate {
    file: TurnFile,
    /// The highest token that this process knows to be on the disk.
    synced: AtomicU64,
}

/// A caller is inside a [`FileGate`], with the highest token so far; until this is dropped no other
/// caller of the machine gets in.
#[cfg(feature = "process")]
#[must_use = "the gate is open for others once this is dropped"]
pub struct FileEntry {
    token: Token,
    _turn: FileTurn,
}

#[cfg(feature = "process")]
impl FileGate {
    /// Opens the gate in this file, or makes it. Never waits.
    ///
    /// # Errors
    /// `Config`: its directory is missing, or not on a local file system. `Refused` or `Io`: it
    /// cannot be made, read or written. `Damaged`: it is another file than this makes.
    pub fn open(path: impl AsRef<Path>) -> Result<FileGate> {
        let path = path.as_ref();
        let file = TurnFile::open(path).map_err(|error| about(path, error))?;
        let gate = FileGate { file, synced: AtomicU64::new(0) };
        // If a caller is inside, it has looked.
        if let Some(turn) = gate.file.try_take().map_err(|error| gate.about(error))? {
            GatePage::of(turn.file()).map_err(|error| gate.about(error))?;
        }
        Ok(gate)
    }

    /// Waits until no caller is inside, and enters. Blocks the thread, without limit if the caller
    /// inside does not leave.
    ///
    /// # Errors
    /// `Lost`, with [`Stale`] as its source, if a larger token has been here. `Damaged`: the file
    /// was removed, replaced, or written by another program. `Refused` or `Io`: it cannot be read or
    /// written. After each of them no caller is inside.
    pub fn enter(&self, token: Token) -> Result<FileEntry> {
        self.file.take().and_then(|turn| self.pass(turn, token)).map_err(|e| self.about(e))
    }

    /// Enters, if no caller is inside.
    ///
    /// # Errors
    /// `WouldBlock`, if one is; else as [`enter`](FileGate::enter).
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::{Token, fence::FileGate};
    ///
    /// let gate = FileGate::open("/var/lib/shop/export.fence")?;
    /// # let token = Token::new(7).unwrap();
    /// match gate.try_enter(token) {
    ///     Ok(_inside) => println!("alone with the device"),
    ///     Err(error) if error.is_contended() => println!("another process is at it"),
    ///     Err(error) => return Err(error), // a stale token among others
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_enter(&self, token: Token) -> Result<FileEntry> {
        match self.file.try_take() {
            Ok(Some(turn)) => self.pass(turn, token).map_err(|e| self.about(e)),
            Ok(None) => Err(LockError::new(
                LockErrorKind::WouldBlock,
                format!("gate {}: another caller is inside", self.file.path().display()),
            )),
            Err(error) => Err(self.about(error)),
        }
    }

    /// The highest token seen. Waits until no caller is inside.
    ///
    /// # Errors
    /// As [`enter`](FileGate::enter), except `Lost`.
    pub fn seen(&self) -> Result<Token> {
        let read = |turn: FileTurn| GatePage::of(turn.file()).and_then(|page| self.highest(&page));
        self.file.take().and_then(read).map_err(|error| self.about(error))
    }

    fn pass(&self, turn: FileTurn, token: Token) -> Result<FileEntry> {
        let page = GatePage::of(turn.file())?;
        let seen = self.highest(&page)?;
        Stale::unless(token, seen)?;
        if page.highest() != Some(token) {
            page.write(token, turn.file()).map_err(cannot_write)?;
        }
        // Also for one that is there already: its writer may have died before it was on the disk.
        if token.get() > self.synced.load(Relaxed) {
            turn.file().sync_data().map_err(cannot_write)?;
            self.synced.fetch_max(token.get(), Relaxed);
        }
        Ok(FileEntry { token, _turn: turn })
    }

    /// What the file says, which never falls behind what this process wrote there.
    fn highest(&self, page: &GatePage) -> Result<Token> {
        let found = page.highest().unwrap_or_default();
        if found.get() < self.synced.load(Relaxed) {
            return Err(damaged(
                "it fell back behind what this process wrote there; another program has put an older or \
                 an empty file in its place",
            ));
        }
        Ok(found)
    }

    fn about(&self, error: LockError) -> LockError {
        about(self.file.path(), error)
    }
}

#[cfg(feature = "process")]
impl FileEntry {
    /// The token it was entered with.
    pub fn token(&self) -> Token {
        self.token
    }
}

#[cfg(feature = "process")]
impl fmt::Debug for FileGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileGate").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

#[cfg(feature = "process")]
impl fmt::Debug for FileEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileEntry").field("token", &self.token).finish_non_exhaustive()
    }
}

/// What stands in a gate's file: a heading, then two lines with a token each, every one of the
/// three in a sector of its own. A new token replaces the smaller one of the two, so that a power
/// failure in the middle of it leaves the larger one. A line says its token twice; where the two
/// differ it was torn, and does not count.
#[cfg(feature = "process")]
struct GatePage {
    /// `None` for a line that was torn, or never written.
    lines: [Option<Token>; 2],
    /// Its first writer came to the end.
    is_whole: bool,
}

#[cfg(feature = "process")]
impl GatePage {
    /// What the file says, read by the caller that has the turn.
    fn of(file: &File) -> Result<GatePage> {
        let mut bytes = [0; 3 * SECTOR + 1];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("cannot read it", error)),
            }
        }
        GatePage::parse(&bytes, length).ok_or_else(not_ours)
    }

    /// Zeros stand where its maker died before it was written, or before that was on the disk.
    fn parse(bytes: &[u8; 3 * SECTOR + 1], length: usize) -> Option<GatePage> {
        let ([heading, lines @ ..], [_]) = bytes.as_chunks::<SECTOR>() else { return None };
        if length > 3 * SECTOR || ![line(HEADING), [0; SECTOR]].contains(heading) {
            return None;
        }
        let tokens = [token_of(&lines[0]), token_of(&lines[1])];
        if tokens == [None; 2] && lines.as_flattened().iter().any(|byte| *byte != 0) {
            return None;
        }
        let is_whole = *heading == line(HEADING) && tokens != [None; 2];
        Some(GatePage { lines: tokens, is_whole })
    }

    fn highest(&self) -> Option<Token> {
        self.lines.into_iter().flatten().max()
    }

    /// Writes a token that is larger than the highest.
    fn write(&self, token: Token, file: &File) -> io::Result<()> {
        if !self.is_whole {
            let whole = [line(HEADING), line_of(token), line_of(Token::ZERO)];
            return file.write_all_at(whole.as_flattened(), 0);
        }
        let smaller = if self.lines[0] < self.lines[1] { 0 } else { 1 };
        file.write_all_at(&line_of(token), ((1 + smaller) * SECTOR) as u64)
    }
}

/// What a disk writes whole or not at all.
#[cfg(feature = "process")]
const SECTOR: usize = 512;

#[cfg(feature = "process")]
const HEADING: &str = "tierlock fence 1: the highest token seen of a lock; remove this file only \
                       together with what it protects, when no process uses it";

/// A text in a sector of its own.
#[cfg(feature = "process")]
fn line(text: &str) -> [u8; SECTOR] {
    let mut line = [b' '; SECTOR];
    line[..text.len()].copy_from_slice(text.as_bytes());
    line[SECTOR - 1] = b'\n';
    line
}

#[cfg(feature = "process")]
fn line_of(token: Token) -> [u8; SECTOR] {
    line(&format!("token {token:020} {token:020}"))
}

#[cfg(feature = "process")]
fn token_of(line: &[u8; SECTOR]) -> Option<Token> {
    let text = std::str::from_utf8(line).ok()?;
    let token = text.split(' ').nth(1)?.parse().ok()?;
    (*line == line_of(token)).then_some(token)
}

#[cfg(feature = "process")]
fn not_ours() -> LockError {
    damaged(
        "it is not what a gate writes; choose another file, or, if no holder can have an old token \
         any more, stop every process that uses it and remove it",
    )
}

#[cfg(feature = "process")]
fn damaged(what: &'static str) -> LockError {
    LockError::new(LockErrorKind::Damaged, what)
}

#[cfg(feature = "process")]
fn cannot_write(error: io::Error) -> LockError {
    failed("cannot write it", error)
}

#[cfg(feature = "process")]
fn failed(what: &str, error: io::Error) -> LockError {
    LockError::new(LockErrorKind::Io, format!("{what}: {error}")).with_source(error)
}

/// Whatever went wrong with a gate's file names that.
#[cfg(feature = "process")]
fn about(path: &Path, error: LockError) -> LockError {
    use std::error::Error;
    let text = format!("gate {}: {error}", path.display());
    let about = LockError::new(error.kind(), text);
    // A caller that asks for the source asks what kind of refusal it was.
    match error.source().and_then(|source| source.downcast_ref::<Stale>()).copied() {
        Some(stale) => about.with_source(stale),
        None => about.with_source(error),
    }
}

#[cfg(all(test, feature = "process"))]
mod tests;
