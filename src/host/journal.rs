//! What a leader must not forget, on disk: its cluster, its epoch, the reigns before it, the
//! sessions it has to wait for after a restart, the leases it took away, the names that `at_least`
//! keeps taken.
//!
//! It decides nothing and knows no time. A record is either on the disk when [`Journal::commit`]
//! returns, or it says so of what a client adds to it, or the leader's reign is over. Grants without
//! `at_least` and releases are never written, so the file stays as small as the number of open sessions, and of restarts,
//! of which the last [`REIGNS_MAX`] are kept.
//!
//! Damage is refused, never rolled back: a commit is made in two phases, every start reads the whole
//! file and its checksums, and the number of the last commit is kept beside it.

mod commits;
mod exclusive;
mod place;
mod space;

use std::{
    any::Any,
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io, mem,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use redb::{
    Builder, Database, Durability, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageBackend, TableDefinition, backends::FileBackend,
};

use self::{
    commits::Commits,
    place::{
        COMMITS, FileIdentity, JOURNAL, SET_ASIDE, SPARE, UNFINISHED, USED, mark_used,
        read_if_there, sync_parent,
    },
    space::{Health, SPARE_BYTES_MIN, Spare, Watched, is_full},
};
pub(super) use self::{
    exclusive::ExclusiveJournal,
    place::{begin_aside, put_in_place},
};
use crate::{
    error::{LockError, LockErrorKind},
    host::random_bytes,
    proto::{
        ClusterId, ReignId, SessionId, TIME_TO_LIVE,
        history::{History, REIGNS_MAX},
        record::{Record, Recovered},
        wire,
    },
};

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
/// The epoch before which no client's history is judged; see [`History`].
const JUDGED_FROM: &str = "judged_from";
/// How many commits there were.
const NUMBER: &str = "number";
/// Which file it is; see [`FileIdentity`].
const FILE: &str = "file";

const FORMAT_VERSION: u32 = 3;
/// Everything fits; redb's own default would allow it a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

/// Of a session that lives long and loses many leases only the last ones are kept: a reclaim needs
/// those that were not answered for yet.
const REVOKED_PER_SESSION_MAX: usize = 1024;

/// How a journal is to be opened.
#[derive(Clone, Debug, Default)]
pub(super) struct JournalOpening {
    /// It is to be made, and must not be there.
    pub(super) init: bool,
    /// The epoch that its clients have seen, for a journal that is lost, damaged or a copy.
    pub(super) epoch_above: Option<u32>,
    /// File systems that are accepted though they may forget.
    pub(super) accepted_file_systems: Vec<String>,
}

/// A leader's journal, its own for as long as this lives.
pub(super) struct Journal {
    medium: Medium,
    /// `None` once it could not be opened anew.
    open: Option<OpenJournal>,
    /// The number of commits beside the journal.
    commits: Option<Commits>,
    spare: Spare,
    /// No session is opened and no name reserved before there is room set aside again.
    is_full: bool,
    /// Sessions of our own process that the disk may have marked as such. The next leader that
    /// takes the lock knows them dead, so while this process lives it is not free before they are
    /// unmarked.
    embedded: BTreeSet<SessionId>,
    /// The file lock that keeps every other leader out.
    lock: Option<File>,
}

#[cfg(test)]
use crate::proto::record::{CommitAnswer, Pending, Written};

/// Where the journal's file is.
enum Medium {
    File(PathBuf),
    #[cfg(test)]
    Disk(tests::Disk),
}

/// An open journal, whole by its checksums.
struct OpenJournal {
    database: Database,
    health: Arc<Health>,
    /// How many commits there were.
    number: u64,
    /// Which file it was when it was made, or last begun above an epoch.
    made_as: Option<FileIdentity>,
    /// Which file it is.
    is: Option<FileIdentity>,
}

impl Journal {
    /// Takes a state directory for a leader, without a look at what its journal says.
    ///
    /// # Errors
    ///
    /// `Refused` if another leader has it, `Config` if it cannot be one or has no journal though it
    /// is to have one, `Io`.
    pub(super) fn enter(
        directory: &Path,
        opening: JournalOpening,
    ) -> Result<EnteredDirectory, LockError> {
        let lock = place::enter(directory, &opening)?;
        Ok(EnteredDirectory { directory: directory.to_owned(), opening, lock })
    }
}

/// A state directory that no other leader has.
pub(super) struct EnteredDirectory {
    directory: PathBuf,
    opening: JournalOpening,
    lock: File,
}

impl EnteredDirectory {
    /// Opens the journal and reads what an earlier reign left there.
    ///
    /// With `epoch_above` a journal that is lost or cannot be read is replaced by one that knows
    /// that epoch and the longest promise there can be; the damaged file is kept beside it.
    ///
    /// # Errors
    ///
    /// `Damaged` if a file is not what it should be, or is missing from a directory that was used
    /// before, `Config` if the journal is to be made and is there, or is a copy, `Refused` if
    /// another program has it open, `Io`.
    pub(super) fn open(self) -> Result<(Journal, Recovered), LockError> {
        let EnteredDirectory { directory, opening, lock } = self;
        let path = directory.join(JOURNAL);
        let opened = open_or_make(&directory, &opening);
        let (open, commits, recovered) = opened.map_err(|trouble| trouble.at(&path))?;
        let mut journal = Journal {
            medium: Medium::File(path),
            open: Some(open),
            commits: Some(commits),
            spare: Spare::new(directory.join(SPARE)),
            is_full: false,
            embedded: BTreeSet::new(),
            lock: Some(lock),
        };
        journal.set_aside();
        Ok((journal, recovered))
    }
}

impl Journal {
    /// Makes all these records durable at once, but for those of clients that there is no room for:
    /// answers their places. After an error nothing is known about any of them, and the journal is of
    /// no more use.
    pub(super) fn commit_all(&mut self, records: &[Record]) -> io::Result<Vec<usize>> {
        if self.is_full && records.iter().any(Record::may_be_refused) {
            self.is_full = !self.has_room();
        }
        self.mark(records.iter());
        loop {
            let is_full = self.is_full;
            let refused = |record: &Record| is_full && record.may_be_refused();
            let some: Vec<_> = records.iter().filter(|record| !refused(record)).collect();
            let wrote = if some.is_empty() { Ok(()) } else { self.write_once(&some) };
            match wrote {
                Ok(()) => {
                    let places = records.iter().enumerate();
                    let refused = places.filter(|(_, record)| refused(record)).map(|(at, _)| at);
                    let refused = refused.collect();
                    self.set_aside();
                    return Ok(refused);
                }
                Err(trouble) => self.make_room(trouble).map_err(Trouble::into_io)?,
            }
        }
    }

    /// The same, for records that a leader asked for.
    #[cfg(test)]
    pub(super) fn commit(&mut self, records: Vec<Pending>) -> io::Result<Vec<CommitAnswer>> {
        let all: Vec<_> = records.iter().map(|pending| pending.record().clone()).collect();
        let refused = self.commit_all(&all)?;
        Ok(Written::committed(refused).of(records))
    }

    /// The number of its last commit.
    fn number(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.number)
    }

    /// Whether what clients add is refused for want of room.
    #[cfg(test)]
    fn is_full(&self) -> bool {
        self.is_full
    }

    /// What the journal may grow by at once.
    fn growth(&self) -> u64 {
        let bytes = self.open.as_ref().map_or(0, |open| open.health.bytes.load(Relaxed));
        bytes.max(SPARE_BYTES_MIN)
    }

    /// Sets that aside, as far as there is room.
    fn set_aside(&mut self) {
        self.is_full |= self.spare.set_aside(self.growth()).is_err();
    }

    /// Whether the journal can grow, and as much be set aside. A session that finds no room costs
    /// no more than this look.
    fn has_room(&mut self) -> bool {
        let growth = self.growth();
        let has_room = self.spare.set_aside(2 * growth).is_ok();
        self.spare.reduce(growth).is_ok() && has_room
    }

    /// After a write that found no room: what was set aside is given to the next one. Answers the
    /// trouble if it is another, or nothing is set aside.
    fn make_room(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        let open = self.open.take().ok_or_else(Trouble::lost)?;
        let may_help = !open.health.has_lost.load(Relaxed) && self.spare.bytes() > 0;
        if !matches!(&trouble, Trouble::Io(error) if is_full(error) && may_help) {
            return Err(trouble);
        }
        self.spare.release();
        self.is_full = true;
        let OpenJournal { number, .. } = open;
        let _ = catch_unwind(AssertUnwindSafe(|| drop(open.database)));
        let (again, _) = self.medium.open()?;
        if again.number < number {
            return Err(Trouble::rolled_back(again.number, number));
        }
        self.open = Some(again);
        Ok(())
    }

    /// Notes the sessions of our own process, before they may be on the disk.
    fn mark<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        for record in records {
            if let Record::SessionOpened { session, embedded: true, .. } = record {
                self.embedded.insert(*session);
            }
        }
    }

    /// This process may go on without its leader: its sessions are no longer known to be dead.
    fn unmark(&mut self) -> Result<(), Trouble> {
        let records = read_records(&self.database()?.begin_read()?)?;
        let unmarked: Vec<_> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::SessionOpened { session, proof, time_to_live, embedded: true } => {
                    let open =
                        Record::SessionOpened { session, proof, time_to_live, embedded: false };
                    self.embedded.contains(&session).then_some(open)
                }
                _ => None,
            })
            .collect();
        if unmarked.is_empty() { Ok(()) } else { self.write(unmarked.iter()) }
    }

    fn database(&self) -> Result<&Database, Trouble> {
        self.open.as_ref().map(|open| &open.database).ok_or_else(Trouble::lost)
    }

    /// Writes all of them, if need be with what was set aside.
    fn write<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), Trouble> {
        let records: Vec<_> = records.collect();
        match self.write_once(&records) {
            Ok(()) => Ok(()),
            Err(trouble) => {
                self.make_room(trouble)?;
                self.write_once(&records)
            }
        }
    }

    fn write_once(&mut self, records: &[&Record]) -> Result<(), Trouble> {
        let open = self.open.as_mut().ok_or_else(Trouble::lost)?;
        let number = open.number + 1;
        let mut transaction = open.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        {
            let mut about = transaction.open_table(ABOUT)?;
            let mut reigns = transaction.open_table(REIGNS)?;
            let mut sessions = transaction.open_table(SESSIONS)?;
            let mut revoked = transaction.open_table(REVOKED)?;
            about.insert(NUMBER, &number.to_le_bytes()[..])?;
            let mut reserved = transaction.open_table(RESERVED)?;
            let mut losers = BTreeSet::new();
            for record in records {
                let bytes = wire::encode_record(record);
                match record {
                    Record::TookOver { epoch, reign, waits_for, starts_above } => {
                        if let Some(is) = open.is {
                            about.insert(FILE, &is.to_bytes()[..])?;
                        }
                        about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
                        if *starts_above {
                            about.insert(JUDGED_FROM, &epoch.to_le_bytes()[..])?;
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
                    Record::EpochRaised { epoch, starts_above } => {
                        about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
                        if *starts_above {
                            about.insert(JUDGED_FROM, &epoch.to_le_bytes()[..])?;
                        }
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
                            continue; // no client comes back to hear of it
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
        open.number = number;
        if let Some(commits) = &self.commits {
            // It is on the disk by now. Without its number less of what may happen to it is noticed.
            let _ = commits.note(number);
        }
        Ok(())
    }
}

impl Medium {
    fn open(&self) -> Result<(OpenJournal, Recovered), Trouble> {
        match self {
            Medium::File(path) => open_file(path),
            #[cfg(test)]
            Medium::Disk(disk) => open_whole(disk.clone(), None),
        }
    }
}

/// The rows of one session among the revoked leases, the oldest lease first.
fn of_session(session: u128) -> RangeInclusive<(u128, u32, u64)> {
    (session, 0, 0)..=(session, u32::MAX, u64::MAX)
}

impl Drop for Journal {
    fn drop(&mut self) {
        let is_marked = !self.embedded.is_empty();
        // redb answers most damage with an error, but not all of it.
        let mut unmark =
            || catch_unwind(AssertUnwindSafe(|| self.unmark().is_ok())).unwrap_or(false);
        if is_marked && !unmark() {
            // No successor may take our sessions for dead before we are: the lock goes with the
            // process.
            mem::forget(self.lock.take());
        }
    }
}

fn open_or_make(
    directory: &Path,
    opening: &JournalOpening,
) -> Result<(OpenJournal, Commits, Recovered), Trouble> {
    let path = directory.join(JOURNAL);
    let used = read_if_there(&directory.join(USED)).map_err(Trouble::Io)?;
    let is_there = match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(Trouble::Io(error)),
    };
    let epoch_above = opening.epoch_above;
    let found = match (is_there, &used) {
        (true, _) if opening.init => return Err(Trouble::Made),
        (true, _) => open_in(directory),
        (false, Some(_)) => {
            Err(Trouble::Damage("it is missing, though this directory was used before".to_owned()))
        }
        (false, None) => {
            // The maker of the directory may have been killed before its own name was durable.
            sync_parent(directory).map_err(Trouble::Io)?;
            make(directory, random_cluster()?, epoch_above)?;
            open_in(directory)
        }
    };
    let (open, commits, recovered) = match (found, epoch_above) {
        (Err(Trouble::Damage(_)), Some(_)) => {
            if is_there {
                fs::rename(&path, directory.join(SET_ASIDE)).map_err(Trouble::Io)?;
            }
            // Its clients go on with the cluster they know, if we know it, too.
            let known = used.and_then(|text| u128::from_str_radix(text.trim(), 16).ok());
            let cluster = known.map_or_else(random_cluster, |cluster| Ok(ClusterId(cluster)))?;
            make(directory, cluster, epoch_above)?;
            open_in(directory)?
        }
        (found, _) => found?,
    };
    let is_copy = match (open.made_as, open.is) {
        (Some(made_as), Some(is)) => !made_as.is(is),
        _ => false,
    };
    if is_copy && epoch_above.is_none() {
        return Err(Trouble::Copy { epoch: recovered.epoch });
    }
    mark_used(directory, recovered.cluster).map_err(Trouble::Io)?;
    Ok((open, commits, recovered))
}

/// The journal of this directory, and the number of its commits: the two have to agree.
fn open_in(directory: &Path) -> Result<(OpenJournal, Commits, Recovered), Trouble> {
    let (open, recovered) = open_file(&directory.join(JOURNAL))?;
    let found = Commits::open(&directory.join(COMMITS));
    let (commits, noted) = match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Trouble::Damage(format!("the file {COMMITS} beside it is missing")));
        }
        found => found.map_err(Trouble::Io)?,
    };
    agree(&open, noted)?;
    Ok((open, commits, recovered))
}

/// A journal that has fewer commits than were noted has lost some.
fn agree(open: &OpenJournal, noted: Option<u64>) -> Result<(), Trouble> {
    match noted {
        None => Err(Trouble::Damage(format!("the file {COMMITS} beside it is damaged"))),
        Some(noted) if noted > open.number => Err(Trouble::rolled_back(open.number, noted)),
        Some(_) => Ok(()),
    }
}

fn open_file(path: &Path) -> Result<(OpenJournal, Recovered), Trouble> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(Trouble::Io)?;
    // An empty file would be made a journal.
    if file.metadata().map_err(Trouble::Io)?.len() == 0 {
        return Err(Trouble::Damage("it is empty".to_owned()));
    }
    let same = file.try_clone().map_err(Trouble::Io)?;
    open_whole(FileBackend::new(file)?, Some(same))
}

/// Opens it, if all of it is as it was committed.
fn open_whole(
    backend: impl StorageBackend,
    file: Option<File>,
) -> Result<(OpenJournal, Recovered), Trouble> {
    let is = file.as_ref().map(FileIdentity::of).transpose().map_err(Trouble::Io)?;
    let health = Arc::new(Health::default());
    let watched = Watched::new(backend, file, health.clone());
    // redb answers most damage with an error, but not all of it.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut database =
            Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(watched)?;
        // Whatever had to be mended was no part of what was committed: that has checksums, and a
        // number.
        database.check_integrity()?;
        let (recovered, number, made_as) = recover(&database)?;
        Ok((OpenJournal { database, health, number, made_as, is }, recovered))
    }));
    opened.unwrap_or_else(|panic| Err(Trouble::panicked(&*panic)))
}

/// Makes a journal under another name and renames it once it is whole.
fn make(directory: &Path, cluster: ClusterId, epoch_above: Option<u32>) -> Result<(), Trouble> {
    let unfinished = directory.join(UNFINISHED);
    Commits::make(&directory.join(COMMITS)).map_err(Trouble::Io)?;
    let file = begin_aside(&unfinished).map_err(Trouble::Io)?;
    let is = FileIdentity::of(&file).map_err(Trouble::Io)?;
    let same = file.try_clone().map_err(Trouble::Io)?;
    let watched = Watched::new(FileBackend::new(file)?, Some(same), Arc::default());
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(watched)?;
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    {
        let mut about = transaction.open_table(ABOUT)?;
        about.insert(FORMAT, &FORMAT_VERSION.to_le_bytes()[..])?;
        about.insert(CLUSTER, &cluster.0.to_le_bytes()[..])?;
        about.insert(NUMBER, &0_u64.to_le_bytes()[..])?;
        about.insert(FILE, &is.to_bytes()[..])?;
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
    put_in_place(&unfinished, JOURNAL).map_err(Trouble::Io)
}

fn random_cluster() -> Result<ClusterId, Trouble> {
    let cluster = random_bytes().map_err(Trouble::Io)?;
    Ok(ClusterId(u128::from_le_bytes(cluster)))
}

/// What it holds, how many commits there were, and which file it was.
fn recover(database: &Database) -> Result<(Recovered, u64, Option<FileIdentity>), Trouble> {
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
    let epoch_in = |key| match about.get(key)? {
        None => Ok(0),
        Some(bytes) => match <[u8; 4]>::try_from(bytes.value()) {
            Ok(bytes) => Ok(u32::from_le_bytes(bytes)),
            Err(_) => Err(Trouble::missing(key)),
        },
    };
    let (epoch, judged_from) = (epoch_in(EPOCH)?, epoch_in(JUDGED_FROM)?);
    let waits_for = match about.get(WAITS_FOR)? {
        None => None,
        Some(bytes) => {
            let nanos = number(bytes.value()).ok_or_else(|| Trouble::missing(WAITS_FOR))?;
            Some(Duration::from_nanos(nanos))
        }
    };
    let history = read_history(&transaction, epoch, judged_from)?;
    let cluster = ClusterId(u128::from_le_bytes(cluster));
    let mut recovered = Recovered { epoch, waits_for, history, ..Recovered::new(cluster) };
    for record in read_records(&transaction)? {
        recovered.remember(&record);
    }
    let commits = about.get(NUMBER)?.and_then(|bytes| number(bytes.value()));
    let commits = commits.ok_or_else(|| Trouble::missing(NUMBER))?;
    let file = about.get(FILE)?.and_then(|bytes| bytes.value().try_into().ok());
    Ok((recovered, commits, file.map(FileIdentity::from_bytes)))
}

/// Which reigns the epochs were of, up to this one.
fn read_history(
    transaction: &redb::ReadTransaction,
    epoch: u32,
    judged_from: u32,
) -> Result<History, Trouble> {
    let mut reigns = Vec::new();
    for row in transaction.open_table(REIGNS)?.iter()? {
        let (first, reign) = row?;
        let first = first.value();
        if first > epoch {
            let text = format!("it knows a reign of epoch {first}, and no epoch above {epoch}");
            return Err(Trouble::Damage(text));
        }
        reigns.push((first, ReignId(reign.value())));
    }
    Ok(History::found(reigns, judged_from))
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
    /// Another program has it open.
    InUse,
    /// It was to be made, and is there.
    Made,
    /// It is a copy of the file that was made, or that was begun above an epoch.
    Copy { epoch: u32 },
}

impl Trouble {
    fn panicked(panic: &(dyn Any + Send)) -> Trouble {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Trouble::Damage(text.unwrap_or("it cannot be read").to_owned())
    }

    /// A write found no room, and then it could not be opened.
    fn lost() -> Trouble {
        Trouble::Io(io::Error::other("the journal is closed after an error"))
    }

    fn rolled_back(found: u64, noted: u64) -> Trouble {
        Trouble::Damage(format!("it has {found} commits, and had {noted}"))
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
            Trouble::Made => LockError::config(format!(
                "the journal {shown} is made; start without --init, which is for a leader's first \
                 start only"
            )),
            Trouble::Copy { epoch } => LockError::config(format!(
                "the journal {shown} is a copy, with epoch {epoch} as its last: a leader that goes \
                 on from it gives tokens that the original may have given too. If the original is \
                 lost, start once with --epoch-above N, N being the highest epoch that its clients \
                 have seen; for a leader beside it, use --init and a directory of its own"
            )),
        }
    }

    fn into_io(self) -> io::Error {
        match self {
            Trouble::Io(error) => error,
            Trouble::Damage(what) | Trouble::Foreign(what) => {
                io::Error::new(io::ErrorKind::InvalidData, what)
            }
            Trouble::InUse => io::ErrorKind::ResourceBusy.into(),
            Trouble::Made | Trouble::Copy { .. } => unreachable!("said of a start only"),
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
mod tests;
