//! The journal in a state directory: a file that one leader has at a time.
//!
//! It decides nothing and knows no time. A record is either on the disk when [`Journal::commit_all`]
//! returns, or it says so of what a client adds to it, or the leader's reign is over. Grants without
//! `at_least` and releases are never written, so the file stays as small as the number of open sessions, and of restarts,
//! of which the last [`REIGNS_MAX`] are kept.
//!
//! Damage is refused, never rolled back: a commit is made in two phases, every start reads the whole
//! file and its checksums, and the number of the last commit is kept beside it.

mod commits;
#[cfg(any(feature = "etcd", feature = "postgres"))]
mod moved;
mod opening;
mod place;
mod space;
mod trouble;

use std::{
    collections::BTreeSet,
    fs::File,
    io, mem,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};

pub(super) use self::{
    commits::Commits,
    place::{COMMITS, GROUP_LOG, JournalFileId, SPARE, is_used, mark_used},
    space::{SPARE_BYTES_MIN, Spare, is_full},
};
use self::{
    opening::{nanos, open_file, open_or_make, read_records},
    place::JOURNAL,
    space::Health,
    trouble::Trouble,
};
use super::REVOKED_PER_SESSION_MAX;
use crate::{
    error::LockError,
    proto::{
        SessionId,
        history::REIGNS_MAX,
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
/// The epoch before which no client's history is judged.
const JUDGED_FROM: &str = "judged_from";
/// How many commits there were.
const NUMBER: &str = "number";
/// Which file it is; see [`JournalFileId`].
const FILE: &str = "file";

const FORMAT_VERSION: u32 = 3;
/// Everything fits; redb's own default would allow it a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

/// How a journal is to be opened.
#[derive(Clone, Debug, Default)]
pub(in crate::host) struct JournalOpening {
    /// It is to be made, and must not be there.
    pub(in crate::host) init: bool,
    /// The epoch that its clients have seen, for a journal that is lost, damaged or a copy.
    pub(in crate::host) epoch_above: Option<u32>,
    /// Where it is being moved to: a directory that says so may be opened.
    pub(in crate::host) moves_to: Option<String>,
    /// It is the disk of a group's member, and not a journal.
    pub(in crate::host) is_member: bool,
    /// File systems that are accepted though they may forget.
    pub(in crate::host) accepted_file_systems: Vec<String>,
}

/// A leader's journal, its own for as long as this lives.
pub(in crate::host) struct Journal {
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

#[cfg(all(test, any(feature = "etcd", feature = "postgres")))]
pub(super) use self::place::enter_after;
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
    made_as: Option<JournalFileId>,
    /// Which file it is.
    is: Option<JournalFileId>,
}

impl Journal {
    /// Takes a state directory for a leader, without a look at what its journal says.
    ///
    /// # Errors
    ///
    /// `Refused` if another leader has it, `Config` if it cannot be one or has no journal though it
    /// is to have one, `Io`.
    pub(in crate::host) fn enter(
        directory: &Path,
        opening: JournalOpening,
    ) -> Result<EnteredDirectory, LockError> {
        let lock = place::enter(directory, &opening)?;
        Ok(EnteredDirectory { directory: directory.to_owned(), opening, lock })
    }
}

/// A state directory that no other leader has.
pub(in crate::host) struct EnteredDirectory {
    pub(super) directory: PathBuf,
    pub(super) opening: JournalOpening,
    pub(super) lock: File,
}

#[cfg(all(test, any(feature = "etcd", feature = "postgres")))]
impl EnteredDirectory {
    /// A test has taken its lock.
    pub(super) fn locked(
        directory: &Path,
        opening: JournalOpening,
        lock: File,
    ) -> EnteredDirectory {
        EnteredDirectory { directory: directory.to_owned(), opening, lock }
    }
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
    pub(in crate::host) fn open(self) -> Result<(Journal, Recovered), LockError> {
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
            // Of a session that is open already the entry is rewritten, which the room set aside is for.
            let known = if is_full {
                self.known(records).map_err(Trouble::into_io)?
            } else {
                BTreeSet::new()
            };
            let is_known = |record: &Record| matches!(record, Record::SessionOpened { session, .. } if known.contains(session));
            let refused = |record: &Record| is_full && record.may_be_refused() && !is_known(record);
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

    /// The sessions of these records that are open in it.
    fn known(&self, records: &[Record]) -> Result<BTreeSet<SessionId>, Trouble> {
        let sessions = self.database()?.begin_read()?.open_table(SESSIONS)?;
        let mut known = BTreeSet::new();
        for record in records {
            if let Record::SessionOpened { session, .. } = record
                && sessions.get(session.0)?.is_some()
            {
                known.insert(*session);
            }
        }
        Ok(known)
    }

    /// The same, for records that a leader asked for.
    #[cfg(test)]
    pub(super) fn commit(&mut self, records: Vec<Pending>) -> io::Result<Vec<CommitAnswer>> {
        let all: Vec<_> = records.iter().map(|pending| pending.record().clone()).collect();
        let refused = self.commit_all(&all)?;
        Ok(Written::committed(refused).of(records))
    }

    /// The number of its last commit.
    pub(super) fn number(&self) -> u64 {
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
                Record::SessionOpened { session, proof, time_to_live, embedded: true, bound } => {
                    let embedded = false;
                    let open =
                        Record::SessionOpened { session, proof, time_to_live, embedded, bound };
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
            Medium::Disk(disk) => opening::open_whole(disk.clone(), None),
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

#[cfg(test)]
mod tests;
