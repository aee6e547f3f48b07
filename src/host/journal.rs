//! What a leader must not forget, on disk: its cluster, its epoch, the reigns before it, the
//! sessions it has to wait for after a restart, the leases it took away, the names that `at_least`
//! keeps taken.
//!
//! It decides nothing and knows no time. A record is either on the disk when [`Journal::commit`]
//! returns, or the leader's reign is over. Grants and releases are never written, so the file
//! stays as small as the number of open sessions, and of restarts, of which the last
//! [`REIGNS_MAX`] are kept.

use std::{
    any::Any,
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    mem,
    ops::RangeInclusive,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use redb::{
    Builder, Database, Durability, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, TableDefinition,
};

use crate::{
    error::{LockError, LockErrorKind},
    proto::{
        ClusterId, ReignId, SessionId, TIME_TO_LIVE,
        history::{History, REIGNS_MAX},
        record::{Committed, Pending, Record, Recovered},
        wire,
    },
};

/// The journal itself.
const JOURNAL: &str = "journal.redb";
/// Where a journal is made; it gets its name once it is whole.
const UNFINISHED: &str = "journal.new";
/// Where a start above an epoch puts a journal that cannot be read.
const SET_ASIDE: &str = "journal.damaged";
/// The cluster's id, for people and for the case that the journal is lost. It is there before
/// the journal is used, so a directory that has it and no journal has forgotten something.
const USED: &str = "cluster";

/// Single values by name; numbers are little-endian.
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
/// The reigns by the first epoch of each.
const REIGNS: TableDefinition<u32, u64> = TableDefinition::new("reigns");
/// Open sessions by their id: a `SessionOpened` each.
const SESSIONS: TableDefinition<u128, &[u8]> = TableDefinition::new("sessions");
/// Leases taken away from open sessions, by session and lease: a `LeaseRevoked` each.
const REVOKED: TableDefinition<(u128, u32, u64), &[u8]> = TableDefinition::new("revoked");
/// Names that `at_least` keeps taken: a `Reserved` each. Missing in a journal that was made before
/// there were any.
const RESERVED: TableDefinition<&str, &[u8]> = TableDefinition::new("reserved");

const FORMAT: &str = "format";
const CLUSTER: &str = "cluster";
const EPOCH: &str = "epoch";
const WAITS_FOR: &str = "waits_for_ns";

const FORMAT_VERSION: u32 = 2;
/// Everything fits; redb's own default would allow it a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

/// Of a session that lives long and loses many leases only the last ones are kept: a reclaim needs
/// those that were not answered for yet.
const REVOKED_PER_SESSION_MAX: usize = 1024;

/// A leader's journal, its own for as long as this lives.
pub(super) struct Journal {
    database: Database,
    /// Sessions of our own process that the disk may have marked as such. Whoever takes the lock
    /// over knows them dead, so while this process lives it is not free before they are unmarked.
    embedded: Mutex<BTreeSet<SessionId>>,
    /// The file lock that keeps every other leader out.
    lock: Option<File>,
}

impl Journal {
    /// Opens the journal of a state directory, which is made if only it is missing, and reads
    /// what an earlier reign left there.
    ///
    /// With `epoch_above` a journal that is lost or cannot be read is replaced by one that knows
    /// that epoch and the longest promise there can be; the damaged file is kept beside it.
    ///
    /// # Errors
    ///
    /// `Refused` if another leader has it, `Damaged` if a file is not what it should be, or is
    /// missing from a directory that was used before, `Config` if the directory cannot be one,
    /// `Io`.
    pub(super) fn open(
        directory: &Path,
        epoch_above: Option<u32>,
    ) -> Result<(Journal, Recovered), LockError> {
        make_directory(directory)?;
        let lock = lock(&directory.join("lock"))?;
        let path = directory.join(JOURNAL);
        let opened = open_or_make(directory, epoch_above);
        let (database, recovered) = opened.map_err(|trouble| trouble.at(&path))?;
        let embedded = Mutex::new(BTreeSet::new());
        Ok((Journal { database, embedded, lock: Some(lock) }, recovered))
    }

    /// Makes all these records durable at once. After an error nothing is known about any of
    /// them, and the journal is of no more use.
    pub(super) fn commit(&self, records: Vec<Pending>) -> io::Result<Vec<Committed>> {
        self.mark(records.iter().map(Pending::record));
        self.write(records.iter().map(Pending::record)).map_err(Trouble::into_io)?;
        Ok(records.into_iter().map(Pending::committed).collect())
    }

    /// Notes the sessions of our own process, before they may be on the disk.
    fn mark<'a>(&self, records: impl Iterator<Item = &'a Record>) {
        let mut embedded = self.embedded.lock();
        for record in records {
            if let Record::SessionOpened { session, embedded: true, .. } = record {
                embedded.insert(*session);
            }
        }
    }

    /// This process may go on without its leader: its sessions are no longer known to be dead.
    fn unmark(&self) -> Result<(), Trouble> {
        let records = read_records(&self.database.begin_read()?)?;
        let ours = self.embedded.lock();
        let unmarked: Vec<_> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::SessionOpened { session, proof, time_to_live, embedded: true } => {
                    let open =
                        Record::SessionOpened { session, proof, time_to_live, embedded: false };
                    ours.contains(&session).then_some(open)
                }
                _ => None,
            })
            .collect();
        if unmarked.is_empty() { Ok(()) } else { self.write(unmarked.iter()) }
    }

    fn write<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Result<(), Trouble> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut about = transaction.open_table(ABOUT)?;
            let mut reigns = transaction.open_table(REIGNS)?;
            let mut sessions = transaction.open_table(SESSIONS)?;
            let mut revoked = transaction.open_table(REVOKED)?;
            let mut reserved = transaction.open_table(RESERVED)?;
            let mut losers = BTreeSet::new();
            for record in records {
                let bytes = wire::encode_record(record);
                match record {
                    Record::TookOver { epoch, reign, waits_for, starts_above } => {
                        about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
                        if *starts_above {
                            reigns.retain(|_, _| false)?;
                        }
                        reigns.insert(epoch, reign.0)?;
                        while reigns.len()? > REIGNS_MAX as u64 {
                            reigns.pop_first()?;
                        }
                        match waits_for {
                            Some(waits_for) => {
                                about.insert(WAITS_FOR, &nanos(*waits_for).to_le_bytes()[..])?
                            }
                            None => about.remove(WAITS_FOR)?,
                        };
                    }
                    Record::Waited => drop(about.remove(WAITS_FOR)?),
                    Record::EpochRaised { epoch } => {
                        about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
                    }
                    Record::SessionOpened { session, .. } => {
                        sessions.insert(session.0, &bytes[..])?;
                    }
                    Record::SessionEnded { session } => {
                        sessions.remove(session.0)?;
                        revoked.retain_in(of_session(session.0), |_, _| false)?;
                    }
                    Record::LeaseRevoked { session, lease, .. } => {
                        if sessions.get(session.0)?.is_none() {
                            continue; // nobody comes back to hear of it
                        }
                        revoked.insert((session.0, lease.epoch, lease.count), &bytes[..])?;
                        losers.insert(session.0);
                    }
                    Record::Reserved { name, .. } => {
                        reserved.insert(name.as_str(), &bytes[..])?;
                    }
                    Record::ReservationEnded { name, .. } => drop(reserved.remove(name.as_str())?),
                }
            }
            for session in losers {
                let kept = revoked.range(of_session(session))?.count();
                let mut excess = kept.saturating_sub(REVOKED_PER_SESSION_MAX);
                revoked.retain_in(of_session(session), |_, _| {
                    let goes = excess > 0;
                    excess -= usize::from(goes);
                    !goes
                })?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// The rows of one session among the revoked leases, the oldest lease first.
fn of_session(session: u128) -> RangeInclusive<(u128, u32, u64)> {
    (session, 0, 0)..=(session, u32::MAX, u64::MAX)
}

impl Drop for Journal {
    fn drop(&mut self) {
        let is_marked = !self.embedded.lock().is_empty();
        // redb answers most damage with an error, but not all of it.
        let unmark = || catch_unwind(AssertUnwindSafe(|| self.unmark().is_ok())).unwrap_or(false);
        if is_marked && !unmark() {
            // Nobody may take our sessions for dead before we are: the lock goes with the process.
            mem::forget(self.lock.take());
        }
    }
}

fn make_directory(directory: &Path) -> Result<(), LockError> {
    let shown = directory.display();
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if directory.is_dir() {
                return Ok(());
            }
            Err(LockError::config(format!("the state directory {shown} is no directory")))
        }
        Err(error) => {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => LockErrorKind::Config,
                _ => LockErrorKind::Io,
            };
            let text = format!("cannot make the state directory {shown}: {error}");
            Err(LockError::new(kind, text).with_source(error))
        }
    }
}

/// Takes the directory's lock file and writes our process id into it, for people.
///
/// No other program inherits the lock, but a child that this process forks without executing one
/// does: as long as it lives, a successor on the directory is refused, on the safe side.
fn lock(path: &Path) -> Result<File, LockError> {
    let shown = path.display();
    let trouble = |error: io::Error| {
        let text = format!("cannot lock {shown}: {error}");
        LockError::new(LockErrorKind::Io, text).with_source(error)
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let mut file = options.open(path).map_err(trouble)?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => {}
        Err(fs4::TryLockError::Error(error)) => return Err(trouble(error)),
        Err(fs4::TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut owner);
            let owner = match owner.trim() {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            let directory = path.parent().unwrap_or(path).display();
            let text = format!(
                "another leader{owner} runs on the state directory {directory}; \
                 stop it first, or give this one a directory of its own"
            );
            return Err(LockError::new(LockErrorKind::Refused, text));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(trouble)?;
    Ok(file)
}

fn open_or_make(
    directory: &Path,
    epoch_above: Option<u32>,
) -> Result<(Database, Recovered), Trouble> {
    let path = directory.join(JOURNAL);
    let used = read_if_there(&directory.join(USED))?;
    let is_there = match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Trouble::Io(error)),
    };
    let found = if is_there {
        open_database(&path)
    } else if used.is_some() {
        Err(Trouble::Damage("it is missing, though this directory was used before".to_owned()))
    } else {
        // Whoever made the directory may have been killed before its own name was durable.
        sync_parent(directory).map_err(Trouble::Io)?;
        make(directory, random_cluster()?, epoch_above)?;
        open_database(&path)
    };
    let (database, recovered) = match (found, epoch_above) {
        (Err(Trouble::Damage(_)), Some(_)) => {
            if is_there {
                fs::rename(&path, directory.join(SET_ASIDE)).map_err(Trouble::Io)?;
            }
            // Its clients go on with the cluster they know, if we know it, too.
            let known = used.and_then(|text| u128::from_str_radix(text.trim(), 16).ok());
            let cluster = known.map_or_else(random_cluster, |cluster| Ok(ClusterId(cluster)))?;
            make(directory, cluster, epoch_above)?;
            open_database(&path)?
        }
        (found, _) => found?,
    };
    mark_used(directory, recovered.cluster).map_err(Trouble::Io)?;
    Ok((database, recovered))
}

fn open_database(path: &Path) -> Result<(Database, Recovered), Trouble> {
    // redb answers most damage with an error, but not all of it.
    let opened = catch_unwind(|| {
        let database = Builder::new().set_cache_size(CACHE_BYTES).open(path)?;
        let recovered = recover(&database)?;
        Ok((database, recovered))
    });
    opened.unwrap_or_else(|panic| Err(Trouble::panicked(&*panic)))
}

/// Makes a journal under another name and renames it once it is whole, so that whoever finds one
/// finds a whole one, whenever its maker was killed.
fn make(directory: &Path, cluster: ClusterId, epoch_above: Option<u32>) -> Result<(), Trouble> {
    let unfinished = directory.join(UNFINISHED);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Trouble::Io(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&unfinished).map_err(Trouble::Io)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file)?;
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        about.insert(FORMAT, &FORMAT_VERSION.to_le_bytes()[..])?;
        about.insert(CLUSTER, &cluster.0.to_le_bytes()[..])?;
        if let Some(epoch) = epoch_above {
            about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
            let longest = nanos(*TIME_TO_LIVE.end());
            about.insert(WAITS_FOR, &longest.to_le_bytes()[..])?;
        }
        transaction.open_table(REIGNS)?;
        transaction.open_table(SESSIONS)?;
        transaction.open_table(REVOKED)?;
        transaction.open_table(RESERVED)?;
    }
    transaction.commit()?;
    drop(database);
    let durable = || {
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, directory.join(JOURNAL))?;
        sync_directory(directory)
    };
    durable().map_err(Trouble::Io)
}

/// Says durably that the journal is used from now on.
fn mark_used(directory: &Path, cluster: ClusterId) -> io::Result<()> {
    let path = directory.join(USED);
    let text = format!("{:032x}\n", cluster.0);
    if fs::read_to_string(&path).is_ok_and(|found| found == text) {
        // Whoever wrote it may have been killed before it was durable.
        File::open(&path)?.sync_all()?;
    } else {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    sync_directory(directory)
}

fn read_if_there(path: &Path) -> Result<Option<String>, Trouble> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Trouble::Io(error)),
    }
}

fn random_cluster() -> Result<ClusterId, Trouble> {
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster).map_err(|error| Trouble::Io(error.into()))?;
    Ok(ClusterId(u128::from_le_bytes(cluster)))
}

/// The name of a directory is durable only with its own directory.
fn sync_parent(directory: &Path) -> io::Result<()> {
    match sync_directory(&parent(directory)?) {
        // Somebody else's directory, and then somebody else made ours in it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// Where the directory's name stands, also if that is given as `state`, `..` or by a link.
fn parent(directory: &Path) -> io::Result<PathBuf> {
    let directory = directory.canonicalize()?;
    Ok(directory.parent().unwrap_or(&directory).to_owned())
}

/// The names of files are durable only with their directory.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn recover(database: &Database) -> Result<Recovered, Trouble> {
    let transaction = database.begin_read()?;
    let about = transaction.open_table(ABOUT)?;
    let format = about.get(FORMAT)?;
    let format = format.and_then(|bytes| <[u8; 4]>::try_from(bytes.value()).ok());
    match format.map(u32::from_le_bytes) {
        Some(FORMAT_VERSION) => {}
        Some(other) => {
            return Err(Trouble::Foreign(format!(
                "it has format {other}, and this program knows format {FORMAT_VERSION}"
            )));
        }
        None => return Err(Trouble::missing(FORMAT)),
    }
    let cluster = about.get(CLUSTER)?;
    let cluster = cluster.and_then(|bytes| <[u8; 16]>::try_from(bytes.value()).ok());
    let cluster = cluster.ok_or_else(|| Trouble::missing(CLUSTER))?;
    let epoch = match about.get(EPOCH)? {
        None => 0,
        Some(bytes) => match <[u8; 4]>::try_from(bytes.value()) {
            Ok(bytes) => u32::from_le_bytes(bytes),
            Err(_) => return Err(Trouble::missing(EPOCH)),
        },
    };
    let waits_for = match about.get(WAITS_FOR)? {
        None => None,
        Some(bytes) => {
            let nanos = number(bytes.value()).ok_or_else(|| Trouble::missing(WAITS_FOR))?;
            Some(Duration::from_nanos(nanos))
        }
    };
    let history = read_history(&transaction, epoch)?;
    let cluster = ClusterId(u128::from_le_bytes(cluster));
    let mut recovered = Recovered { epoch, waits_for, history, ..Recovered::new(cluster) };
    for record in read_records(&transaction)? {
        recovered.remember(&record);
    }
    Ok(recovered)
}

/// Whose the epochs were, up to this one.
fn read_history(transaction: &redb::ReadTransaction, epoch: u32) -> Result<History, Trouble> {
    let mut history = History::default();
    for row in transaction.open_table(REIGNS)?.iter()? {
        let (first, reign) = row?;
        let first = first.value();
        if first > epoch {
            let text = format!("it knows a reign of epoch {first}, and no epoch above {epoch}");
            return Err(Trouble::Damage(text));
        }
        history.begin(first, ReignId(reign.value()), false);
    }
    Ok(history)
}

/// Open sessions first, then what was taken away from them, then what is reserved.
fn read_records(transaction: &redb::ReadTransaction) -> Result<Vec<Record>, Trouble> {
    let mut records = Vec::new();
    for row in transaction.open_table(SESSIONS)?.iter()? {
        let (key, bytes) = row?;
        match wire::decode_record(bytes.value()) {
            Ok(record @ Record::SessionOpened { session, .. }) if session.0 == key.value() => {
                records.push(record);
            }
            other => return Err(Trouble::row("session", other)),
        }
    }
    for row in transaction.open_table(REVOKED)?.iter()? {
        let (key, bytes) = row?;
        match wire::decode_record(bytes.value()) {
            Ok(record @ Record::LeaseRevoked { session, lease, .. })
                if (session.0, lease.epoch, lease.count) == key.value() =>
            {
                records.push(record);
            }
            other => return Err(Trouble::row("revoked lease", other)),
        }
    }
    let reserved = match transaction.open_table(RESERVED) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(records),
        reserved => reserved?,
    };
    for row in reserved.iter()? {
        let (key, bytes) = row?;
        match wire::decode_record(bytes.value()) {
            Ok(record @ Record::Reserved { .. }) if matches!(&record, Record::Reserved { name, .. } if name.as_str() == key.value()) =>
            {
                records.push(record);
            }
            other => return Err(Trouble::row("reservation", other)),
        }
    }
    Ok(records)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// What can go wrong with the file.
#[derive(Debug)]
enum Trouble {
    /// It is not what it should be.
    Damage(String),
    /// It is whole, and another program's.
    Foreign(String),
    /// The system failed a call.
    Io(io::Error),
    /// Somebody else has it open.
    InUse,
}

impl Trouble {
    fn panicked(panic: &(dyn Any + Send)) -> Trouble {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Trouble::Damage(text.unwrap_or("it cannot be read").to_owned())
    }

    fn missing(what: &str) -> Trouble {
        Trouble::Damage(format!("its {what} is missing or malformed"))
    }

    fn row(what: &str, found: Result<Record, wire::WireError>) -> Trouble {
        Trouble::Damage(match found {
            Ok(record) => format!("a {what} has another's row: {record:?}"),
            Err(error) => format!("a {what} cannot be read: {error}"),
        })
    }

    fn at(self, path: &Path) -> LockError {
        let shown = path.display();
        match self {
            Trouble::Damage(what) => LockError::new(
                LockErrorKind::Damaged,
                format!(
                    "the journal {shown} is damaged: {what}; restore it from a copy, or start \
                     once with `tierlock serve --epoch-above N` on this directory, N being the \
                     highest epoch that its clients have seen",
                ),
            ),
            Trouble::Foreign(what) => LockError::new(
                LockErrorKind::Damaged,
                format!("the journal {shown} is of no use to this program: {what}"),
            ),
            Trouble::Io(error) => LockError::new(
                LockErrorKind::Io,
                format!("cannot use the journal {shown}: {error}"),
            )
            .with_source(error),
            Trouble::InUse => LockError::new(
                LockErrorKind::Refused,
                format!("another program has the journal {shown} open; stop it first"),
            ),
        }
    }

    fn into_io(self) -> io::Error {
        match self {
            Trouble::Io(error) => error,
            Trouble::Damage(what) | Trouble::Foreign(what) => {
                io::Error::new(io::ErrorKind::InvalidData, what)
            }
            Trouble::InUse => io::ErrorKind::ResourceBusy.into(),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        match error.into() {
            redb::Error::Io(error) => match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Trouble::Damage(error.to_string())
                }
                _ => Trouble::Io(error),
            },
            redb::Error::DatabaseAlreadyOpen => Trouble::InUse,
            other => Trouble::Damage(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt as _, sync::Arc};

    use super::*;
    use crate::{
        error::LostReason,
        name::Name,
        proto::{LeaseId, Proof, RequestId, SessionId, record::Reservation},
        token::Token,
    };

    const TOOK_OVER: Record = took_over(9, None);

    const fn took_over(epoch: u32, waits_for: Option<Duration>) -> Record {
        let reign = ReignId(epoch as u64 * 11);
        Record::TookOver { epoch, reign, waits_for, starts_above: false }
    }

    fn opened(session: u128, seconds: u64) -> Record {
        Record::SessionOpened {
            session: SessionId(session),
            proof: Proof(session * 7),
            time_to_live: Duration::from_secs(seconds),
            embedded: false,
        }
    }

    fn revoked(session: u128, count: u64) -> Record {
        Record::LeaseRevoked {
            session: SessionId(session),
            lease: LeaseId { epoch: 1, count },
            name: Name::new("orders/42").unwrap(),
            token: Token::first_of(1),
            why: LostReason::Broken,
        }
    }

    fn reserved(name: &str, token: u64, left_s: u64) -> Record {
        let reservation = Reservation {
            token: Token::new(token).unwrap(),
            session: SessionId(1),
            request: RequestId(7),
            at_least: Duration::from_secs(60),
            left: Duration::from_secs(left_s),
        };
        Record::Reserved { name: Name::new(name).unwrap(), reservation }
    }

    fn reservation_ended(name: &str, token: u64) -> Record {
        let name = Name::new(name).unwrap();
        Record::ReservationEnded { name, token: Token::new(token).unwrap() }
    }

    fn ended(session: u128) -> Record {
        Record::SessionEnded { session: SessionId(session) }
    }

    fn open(directory: &Path) -> Result<(Journal, Recovered), LockError> {
        Journal::open(directory, None)
    }

    fn records(journal: &Journal) -> Vec<Record> {
        read_records(&journal.database.begin_read().unwrap()).unwrap()
    }

    #[test]
    fn what_was_committed_is_recovered_and_what_ended_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let (journal, first) = open(&state).unwrap();
        assert_eq!(first, Recovered::new(first.cluster));
        let [a, b] = [opened(1, 60), opened(2, 5)];
        let [of_a, of_b] = [revoked(1, 10), revoked(2, 11)];
        let [begun, raised] = [took_over(1, None), Record::EpochRaised { epoch: 3 }];
        journal.write([&begun, &raised, &a, &b, &of_a, &of_b].into_iter()).unwrap();
        assert_eq!(records(&journal), [a, b.clone(), of_a, of_b.clone()]);
        journal.write([&ended(1)].into_iter()).unwrap();
        drop(journal);

        let (journal, again) = open(&state).unwrap();
        assert_eq!(again.cluster, first.cluster);
        assert_eq!(again.epoch, 3);
        assert_eq!(records(&journal), [b.clone(), of_b.clone()]);
        let mut remembered = Recovered::new(first.cluster);
        [begun, raised, b, of_b].iter().for_each(|record| remembered.remember(record));
        assert_eq!(again, remembered);
    }

    #[test]
    fn a_journal_recovers_what_its_contract_says() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, mut remembered) = open(directory.path()).unwrap();
        let waits_for = Some(Duration::from_secs(60));
        for record in [
            took_over(3, None),
            took_over(4, waits_for),
            opened(1, 5),
            opened(2, 6),
            revoked(1, 10),
            revoked(2, 11),
            Record::EpochRaised { epoch: 6 },
            ended(2),
            opened(2, 7),
            Record::Waited,
            revoked(1, 12),
            opened(1, 5),
            took_over(7, None),
            revoked(3, 1),
            Record::TookOver { epoch: 10, reign: ReignId(8), waits_for, starts_above: true },
            took_over(11, waits_for),
            reserved("orders/42", 1, 20),
            reserved("nightly", 2, 30),
            reserved("orders/42", 1, 15),
            reserved("orders/43", 3, 15),
            reservation_ended("nightly", 2),
        ] {
            journal.write([&record].into_iter()).unwrap();
            remembered.remember(&record);
            let recovered = recover(&journal.database).unwrap();
            assert_eq!(recovered, remembered, "after {record:?}");
        }
        // Nothing is left of a session that is over, but what it reserved.
        journal.write([&ended(1), &ended(2), &revoked(1, 13)].into_iter()).unwrap();
        assert_eq!(records(&journal), [reserved("orders/42", 1, 15), reserved("orders/43", 3, 15)]);
        let ends = [reservation_ended("orders/42", 1), reservation_ended("orders/43", 3)];
        journal.write(ends.iter()).unwrap();
        assert_eq!(records(&journal), []);
    }

    #[test]
    fn a_journal_made_before_names_were_reserved_is_opened_and_can_reserve_them() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        journal.write([&TOOK_OVER].into_iter()).unwrap();
        let transaction = journal.database.begin_write().unwrap();
        transaction.delete_table(RESERVED).unwrap();
        transaction.commit().unwrap();
        drop(journal);
        let (journal, recovered) = open(directory.path()).unwrap();
        assert!(recovered.reservations.is_empty());
        journal.write([&reserved("nightly", 2, 30)].into_iter()).unwrap();
        drop(journal);
        let (_, recovered) = open(directory.path()).unwrap();
        assert_eq!(recovered.reservations.len(), 1);
    }

    #[test]
    fn of_more_reigns_than_are_remembered_the_last_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, mut remembered) = open(directory.path()).unwrap();
        let begun: Vec<_> =
            (1..=REIGNS_MAX as u32 + 100).map(|epoch| took_over(epoch, None)).collect();
        begun.iter().for_each(|record| remembered.remember(record));
        journal.write(begun.iter()).unwrap();
        drop(journal);
        assert!(fs::metadata(directory.path().join(JOURNAL)).unwrap().len() < 8 << 20);
        let (_, again) = open(directory.path()).unwrap();
        assert!(again == remembered);
    }

    #[test]
    fn a_reign_beyond_the_last_epoch_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        journal.write([&TOOK_OVER].into_iter()).unwrap();
        let transaction = journal.database.begin_write().unwrap();
        transaction.open_table(REIGNS).unwrap().insert(10, 1).unwrap();
        transaction.commit().unwrap();
        drop(journal);
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged);
        assert!(error.to_string().contains("a reign of epoch 10"), "{error}");
    }

    #[test]
    fn sessions_of_our_own_process_are_not_left_as_dead_while_it_lives() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let Record::SessionOpened { session, proof, time_to_live, .. } = opened(1, 5) else {
            unreachable!()
        };
        let own = Record::SessionOpened { session, proof, time_to_live, embedded: true };
        let all = [own, opened(2, 5), revoked(1, 10)];
        journal.mark(all.iter());
        journal.write(all.iter()).unwrap();
        // Killed now, it is known dead.
        assert!(recover(&journal.database).unwrap().sessions[&session].embedded);
        drop(journal);
        let (_, again) = open(directory.path()).unwrap();
        assert!(!again.sessions[&session].embedded);
        assert_eq!(again.sessions[&session].revoked.len(), 1);
        assert_eq!(again.sessions.len(), 2);
    }

    #[test]
    fn a_journal_that_cannot_unmark_its_own_process_keeps_the_lock_until_that_dies() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let Record::SessionOpened { session, proof, time_to_live, .. } = opened(1, 5) else {
            unreachable!()
        };
        let own = Record::SessionOpened { session, proof, time_to_live, embedded: true };
        journal.mark([&own].into_iter());
        journal.write([&own].into_iter()).unwrap();
        let transaction = journal.database.begin_write().unwrap();
        transaction.delete_table(REVOKED).unwrap();
        transaction.commit().unwrap();
        drop(journal);
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Refused);
    }

    #[test]
    fn two_directories_are_two_clusters() {
        let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (_journal, a) = open(a.path()).unwrap();
        let (_journal, b) = open(b.path()).unwrap();
        assert_ne!(a.cluster, b.cluster);
    }

    // gajae-code#4704
    #[test]
    fn a_second_leader_on_one_state_directory_is_refused_and_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Refused);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(journal);
        open(directory.path()).unwrap();
    }

    #[test]
    fn a_state_directory_that_cannot_be_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let kind = |path: &Path| open(path).map(drop).unwrap_err().kind();
        assert_eq!(kind(&file), LockErrorKind::Config);
        assert_eq!(kind(&directory.path().join("a/b")), LockErrorKind::Config);
    }

    #[test]
    fn a_foreign_or_newer_file_is_named_as_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.redb");
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged);
        assert!(error.to_string().contains("journal.redb"), "{error}");

        std::fs::remove_file(&path).unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let transaction = journal.database.begin_write().unwrap();
        transaction.open_table(ABOUT).unwrap().insert(FORMAT, &9_u32.to_le_bytes()[..]).unwrap();
        transaction.commit().unwrap();
        drop(journal);
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged);
        assert!(error.to_string().contains("it has format 9"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error_or_harmless_but_never_a_panic_or_a_lower_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let many: Vec<_> = (0..100).map(|session| opened(session, 5)).collect();
        journal.write([&TOOK_OVER].into_iter()).unwrap();
        journal.write(many.iter()).unwrap();
        drop(journal);
        let path = directory.path().join("journal.redb");
        let good = std::fs::read(&path).unwrap();
        let mut noticed = 0;
        let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in (0..used).step_by(used / 200) {
            std::fs::write(&path, &good).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[!good[at]; 16], at as u64).unwrap();
            match open(directory.path()) {
                Ok((_, recovered)) => assert_eq!(recovered.epoch, 9, "damage at {at}"),
                Err(error) => {
                    noticed += 1;
                    assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
                }
            }
        }
        assert!(noticed > 0);
    }

    #[test]
    fn a_used_directory_whose_journal_is_lost_or_cut_short_is_damaged_until_told_the_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, first) = open(directory.path()).unwrap();
        journal.write([&TOOK_OVER, &opened(1, 5)].into_iter()).unwrap();
        drop(journal);
        let path = directory.path().join(JOURNAL);
        let good = fs::read(&path).unwrap();
        let lengths = [0, 1, 100, good.len() / 2, good.len() - 1].map(Some);
        for length in lengths.into_iter().chain([None]) {
            match length {
                Some(length) => fs::write(&path, &good[..length]).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            for _ in 0..2 {
                let error = open(directory.path()).map(drop).unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::Damaged, "{length:?}: {error}");
                let text = error.to_string();
                assert!(text.contains("journal.redb"), "{text}");
                assert!(text.contains("--epoch-above"), "{text}");
            }
            let (journal, above) = Journal::open(directory.path(), Some(40)).unwrap();
            drop(journal);
            // Also if the leader is killed before its own first record.
            let (_, again) = open(directory.path()).unwrap();
            assert_eq!(above, again, "{length:?}");
            assert_eq!((again.cluster, again.epoch), (first.cluster, 40), "{length:?}");
            assert_eq!(again.waits_for, Some(*TIME_TO_LIVE.end()), "{length:?}");
        }
        assert_eq!(fs::read(directory.path().join(SET_ASIDE)).unwrap(), &good[..good.len() - 1]);
    }

    #[test]
    fn a_leader_killed_while_it_made_its_first_journal_starts_again() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        drop(journal);
        let good = fs::read(directory.path().join(JOURNAL)).unwrap();
        let half_made = [&[][..], &good[..1], &good[..good.len() / 2], &good];
        for bytes in half_made {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("lock"), "").unwrap();
            fs::write(directory.path().join(UNFINISHED), bytes).unwrap();
            let (_, first) = open(directory.path()).unwrap();
            assert_eq!(first, Recovered::new(first.cluster));
            assert!(!directory.path().join(UNFINISHED).exists());
        }
        // Renamed and not yet marked as used.
        fs::remove_file(directory.path().join(USED)).unwrap();
        let (journal, before) = open(directory.path()).unwrap();
        drop(journal);
        fs::remove_file(directory.path().join(JOURNAL)).unwrap();
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged);
        // A mark cut short still says that the directory was used.
        let text = fs::read_to_string(directory.path().join(USED)).unwrap();
        assert_eq!(text.trim(), format!("{:032x}", before.cluster.0));
        fs::write(directory.path().join(USED), "").unwrap();
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged);
    }

    /// A disk that remembers what was done to it since a commit, and may be full.
    #[derive(Clone, Debug, Default)]
    struct Disk(Arc<Mutex<Platter>>);

    #[derive(Debug, Default)]
    struct Platter {
        bytes: Vec<u8>,
        done: Vec<Done>,
        length_max: Option<u64>,
    }

    #[derive(Clone, Debug)]
    enum Done {
        Length(u64),
        Write(u64, Vec<u8>),
        Sync,
    }

    impl Done {
        /// Does it again, or as much of it as a crash has left.
        fn again(&self, bytes: &mut Vec<u8>, part: usize) {
            match self {
                Done::Length(length) => bytes.resize(*length as usize, 0),
                Done::Write(offset, data) => {
                    let data = &data[..part.min(data.len())];
                    let end = *offset as usize + data.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0); // its growth was lost, or came later
                    }
                    bytes[*offset as usize..end].copy_from_slice(data);
                }
                Done::Sync => {}
            }
        }
    }

    impl Disk {
        fn holding(bytes: Vec<u8>) -> Disk {
            Disk(Arc::new(Mutex::new(Platter { bytes, ..Platter::default() })))
        }

        fn database(&self) -> Result<Database, Trouble> {
            let mut builder = Builder::new();
            Ok(builder.set_cache_size(CACHE_BYTES).create_with_backend(self.clone())?)
        }

        fn act(&self, done: Done) {
            let mut platter = self.0.lock();
            done.again(&mut platter.bytes, usize::MAX);
            platter.done.push(done);
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().bytes.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let platter = self.0.lock();
            let at = offset as usize;
            let found =
                platter.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(found);
            Ok(())
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            if self.0.lock().length_max.is_some_and(|max| length > max) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.act(Done::Length(length));
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            self.act(Done::Sync);
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.act(Done::Write(offset, data.to_vec()));
            Ok(())
        }
    }

    /// An empty journal on such a disk, whole and synced.
    fn on_disk() -> (Disk, Journal, Recovered) {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()).unwrap());
        let disk = Disk::holding(fs::read(directory.path().join(JOURNAL)).unwrap());
        let database = disk.database().unwrap();
        let recovered = recover(&database).unwrap();
        (disk, Journal { database, embedded: Mutex::default(), lock: None }, recovered)
    }

    fn history() -> Vec<Vec<Record>> {
        let mut history = vec![vec![TOOK_OVER], vec![opened(1, 5)]];
        history.push((2..40).map(|session| opened(session, 5)).collect());
        for session in 2..8 {
            history.push(vec![revoked(session, 3), opened(100 + session, 60)]);
            history.push(vec![ended(session), Record::EpochRaised { epoch: 10 + session as u32 }]);
        }
        history
    }

    #[test]
    fn whenever_it_is_killed_or_loses_power_there_is_all_that_was_committed_and_nothing_torn() {
        let (disk, journal, mut before) = on_disk();
        // Numbers that look random; any will do.
        let mut state = 1_u64;
        let mut dice = move |end: usize| {
            state =
                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            (state >> 33) as usize % end
        };
        let mut crashes = 0;
        for records in history() {
            let base = {
                let mut platter = disk.0.lock();
                platter.done.clear();
                platter.bytes.clone()
            };
            journal.write(records.iter()).unwrap();
            let done = disk.0.lock().done.clone();
            let mut after = before.clone();
            records.iter().for_each(|record| after.remember(record));
            for until in 0..=done.len() {
                let (all, next) = done.split_at(until);
                // Killed: what was done is there, and perhaps a part of what was not.
                let mut killed = base.clone();
                all.iter().for_each(|done| done.again(&mut killed, usize::MAX));
                if let Some(next @ Done::Write(_, data)) = next.first() {
                    next.again(&mut killed, dice(data.len()));
                }
                // Without power: what was synced is there, and any part of what was done since.
                let synced = all.iter().rposition(|done| matches!(done, Done::Sync));
                let (synced, since) = all.split_at(synced.map_or(0, |at| at + 1));
                let mut dark = base.clone();
                synced.iter().for_each(|done| done.again(&mut dark, usize::MAX));
                for done in since {
                    match dice(4) {
                        0 => done.again(&mut dark, dice(4096)),
                        1 => done.again(&mut dark, usize::MAX),
                        _ => {} // lost
                    }
                }
                for bytes in [killed, dark] {
                    let found = recover(&Disk::holding(bytes).database().unwrap()).unwrap();
                    let is_whole = found == after || (until < done.len() && found == before);
                    assert!(is_whole, "{found:?} after {until} of {}: {records:?}", done.len());
                    crashes += 1;
                }
            }
            before = after;
        }
        assert!(crashes > 100, "{crashes}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_costs_nothing_that_was_committed() {
        let (disk, journal, mut known) = on_disk();
        let length = disk.0.lock().bytes.len() as u64;
        disk.0.lock().length_max = Some(length + 4096);
        let mut count = 0;
        let error = loop {
            let records: Vec<_> =
                (0..500).map(|session| opened(count * 500 + session, 5)).collect();
            match journal.write(records.iter()) {
                Ok(()) => records.iter().for_each(|record| known.remember(record)),
                Err(trouble) => break trouble.into_io(),
            }
            count += 1;
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(journal.write([&opened(1, 5)].into_iter()).is_err(), "it is of no more use");
        let bytes = disk.0.lock().bytes.clone();
        assert_eq!(recover(&Disk::holding(bytes).database().unwrap()).unwrap(), known);
    }

    #[test]
    fn a_newer_journal_is_left_alone_also_when_told_the_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let transaction = journal.database.begin_write().unwrap();
        transaction.open_table(ABOUT).unwrap().insert(FORMAT, &9_u32.to_le_bytes()[..]).unwrap();
        transaction.commit().unwrap();
        drop(journal);
        let error = Journal::open(directory.path(), Some(7)).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged);
        assert!(error.to_string().contains("it has format 9"), "{error}");
    }

    #[test]
    fn the_name_of_a_new_state_directory_is_made_durable_however_it_is_given() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let state = top.join("state");
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::symlink(&state, top.join("link")).unwrap();
        for given in [state.clone(), top.join("state/"), top.join("link"), state.join("../state/.")]
        {
            assert_eq!(parent(&given).unwrap(), top, "{given:?}");
            sync_parent(&given).unwrap();
        }
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(parent(Path::new("src")).unwrap(), here);
        assert_eq!(parent(Path::new("/")).unwrap(), Path::new("/"));
    }

    #[test]
    fn of_a_session_that_loses_leases_without_end_the_last_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = open(directory.path()).unwrap();
        let [a, b, of_b] = [opened(1, 5), opened(2, 5), revoked(2, 1)];
        journal.write([&a, &b, &of_b].into_iter()).unwrap();
        let lost: Vec<_> = (0..2500).map(|count| revoked(1, count)).collect();
        for some in lost.chunks(700) {
            journal.write(some.iter()).unwrap();
        }
        let last = &lost[lost.len() - REVOKED_PER_SESSION_MAX..];
        assert_eq!(
            records(&journal),
            [&[a, b.clone()], last, std::slice::from_ref(&of_b)].concat()
        );
        journal.write([&ended(1)].into_iter()).unwrap();
        assert_eq!(records(&journal), [b, of_b]);
    }
}
