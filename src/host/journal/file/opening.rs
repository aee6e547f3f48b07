//! How a journal's file is opened, or made, and what is read from it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redb::{
    Builder, Database, Durability, ReadableDatabase as _, ReadableTable as _, StorageBackend,
    WriteTransaction, backends::FileBackend,
};

use super::{
    ABOUT, CACHE_BYTES, CLUSTER, EPOCH, FILE, FORMAT, FORMAT_VERSION, JUDGED_FROM, JournalOpening,
    NUMBER, OpenJournal, REIGNS, RESERVED, REVOKED, SESSIONS, WAITS_FOR,
    commits::Commits,
    place::{
        COMMITS, JOURNAL, JournalFileId, SET_ASIDE, UNFINISHED, USED, mark_used, read_if_there,
        sync_parent,
    },
    space::{Health, Watched},
    trouble::Trouble,
};
use crate::{
    host::{
        durable::{begin_aside, put_in_place},
        random_bytes,
    },
    proto::{
        ClusterId, ReignId, TIME_TO_LIVE,
        history::History,
        record::{Record, Recovered},
        wire,
    },
};

pub(super) fn open_or_make(
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
pub(super) fn agree(open: &OpenJournal, noted: Option<u64>) -> Result<(), Trouble> {
    match noted {
        None => Err(Trouble::Damage(format!("the file {COMMITS} beside it is damaged"))),
        Some(noted) if noted > open.number => Err(Trouble::rolled_back(open.number, noted)),
        Some(_) => Ok(()),
    }
}

pub(super) fn open_file(path: &Path) -> Result<(OpenJournal, Recovered), Trouble> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(Trouble::Io)?;
    // An empty file would be made a journal.
    if file.metadata().map_err(Trouble::Io)?.len() == 0 {
        return Err(Trouble::Damage("it is empty".to_owned()));
    }
    let same = file.try_clone().map_err(Trouble::Io)?;
    open_whole(FileBackend::new(file)?, Some(same))
}

/// Opens it, if all of it is as it was committed.
pub(super) fn open_whole(
    backend: impl StorageBackend,
    file: Option<File>,
) -> Result<(OpenJournal, Recovered), Trouble> {
    let is = file.as_ref().map(JournalFileId::of).transpose().map_err(Trouble::Io)?;
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

/// Makes an empty journal.
fn make(directory: &Path, cluster: ClusterId, epoch_above: Option<u32>) -> Result<(), Trouble> {
    let made = make_aside(directory, cluster, |transaction| {
        let Some(epoch) = epoch_above else { return Ok(()) };
        let mut about = transaction.open_table(ABOUT)?;
        about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
        let longest = nanos(*TIME_TO_LIVE.end());
        about.insert(WAITS_FOR, &longest.to_le_bytes()[..])?;
        Ok(())
    })?;
    put_in_place(&made, JOURNAL).map_err(Trouble::Io)
}

/// Makes a journal under another name, of which it is to get its own once it is whole; its path.
pub(super) fn make_aside(
    directory: &Path,
    cluster: ClusterId,
    fill: impl FnOnce(&WriteTransaction) -> Result<(), Trouble>,
) -> Result<PathBuf, Trouble> {
    let unfinished = directory.join(UNFINISHED);
    Commits::make(&directory.join(COMMITS)).map_err(Trouble::Io)?;
    let file = begin_aside(&unfinished).map_err(Trouble::Io)?;
    let is = JournalFileId::of(&file).map_err(Trouble::Io)?;
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
        transaction.open_table(REIGNS)?;
        transaction.open_table(SESSIONS)?;
        transaction.open_table(REVOKED)?;
        transaction.open_table(RESERVED)?;
    }
    fill(&transaction)?;
    transaction.commit()?;
    drop(database);
    Ok(unfinished)
}

fn random_cluster() -> Result<ClusterId, Trouble> {
    let cluster = random_bytes().map_err(Trouble::Io)?;
    Ok(ClusterId(u128::from_le_bytes(cluster)))
}

/// What it holds, how many commits there were, and which file it was.
pub(super) fn recover(
    database: &Database,
) -> Result<(Recovered, u64, Option<JournalFileId>), Trouble> {
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
    Ok((recovered, commits, file.map(JournalFileId::from_bytes)))
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
pub(super) fn read_records(transaction: &redb::ReadTransaction) -> Result<Vec<Record>, Trouble> {
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

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}
