//! What a journal's file has, as entries that a store could have, and the other way round.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::{
    ABOUT, EPOCH, EnteredDirectory, JOURNAL, JUDGED_FROM, Journal, REIGNS, RESERVED, REVOKED,
    SESSIONS, WAITS_FOR,
    opening::{make_aside, nanos, read_records},
    place,
    trouble::Trouble,
};
use crate::{
    error::Result,
    host::{
        durable::{begin_aside, put_in_place},
        journal::entries::{EpochEntry, FoundEntries},
    },
    proto::{
        ReignId,
        record::{Record, Recovered},
        wire,
    },
};

impl Journal {
    /// Whether a directory has a journal, or had one.
    pub(in crate::host::journal) fn is_made_in(directory: &Path) -> bool {
        place::is_made(directory)
    }

    /// Where the journal of a directory was moved to, if it was.
    pub(in crate::host::journal) fn moved_to(directory: &Path) -> Result<Option<String>> {
        place::moved_to(directory)
    }

    /// All that is in it.
    pub(in crate::host::journal) fn entries(&self, recovered: &Recovered) -> Result<FoundEntries> {
        self.read_entries(recovered).map_err(|trouble| trouble.at(Path::new(JOURNAL)))
    }

    fn read_entries(&self, recovered: &Recovered) -> Result<FoundEntries, Trouble> {
        let epochs = EpochEntry {
            epoch: recovered.epoch,
            judged_from: recovered.history.judged_from(),
            waits_for: recovered.waits_for,
        };
        let mut found = FoundEntries::of(recovered.cluster, epochs);
        let transaction = self.database()?.begin_read()?;
        for row in transaction.open_table(REIGNS)?.iter()? {
            let (epoch, reign) = row?;
            found.reigns.push((epoch.value(), ReignId(reign.value())));
        }
        for record in read_records(&transaction)? {
            let bytes = wire::encode_record(&record);
            match record {
                Record::SessionOpened { .. } => found.sessions.push(bytes),
                Record::LeaseRevoked { .. } => found.revoked.push(bytes),
                _ => found.stays.push(bytes),
            }
        }
        Ok(found)
    }

    /// No leader starts here any more: its journal is elsewhere.
    pub(in crate::host::journal) fn mark_moved(&self, directory: &Path, to: &str) -> Result<()> {
        let unfinished = directory.join(MOVED_UNFINISHED);
        let written = begin_aside(&unfinished).and_then(|mut file| writeln!(file, "{to}"));
        let marked = written.and_then(|()| put_in_place(&unfinished, place::MOVED));
        marked.map_err(|error| Trouble::Io(error).at(directory))
    }
}

/// Where the mark is written before it is whole.
const MOVED_UNFINISHED: &str = "moved.new";

impl EnteredDirectory {
    /// Shows that there is room for all this, and that it may be written here. Nothing but an empty
    /// directory is left, and the file that is locked in it.
    pub(in crate::host::journal) fn prepare(self, entries: &FoundEntries) -> Result<()> {
        let made = self.make_aside(entries).map(drop);
        if place::is_made(&self.directory) {
            return made;
        }
        let removed = [place::UNFINISHED, place::COMMITS].map(|name| {
            let path = self.directory.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Trouble::Io(error).at(&path))
                }
                _ => Ok(()),
            }
        });
        made.and_then(|()| removed.into_iter().collect())
    }

    /// Makes the journal with all this, whole or not at all.
    pub(in crate::host::journal) fn fill(self, entries: &FoundEntries) -> Result<()> {
        let made = self.make_aside(entries)?;
        let marked = put_in_place(&made, JOURNAL)
            .and_then(|()| place::mark_used(&self.directory, entries.cluster));
        marked.map_err(|error| Trouble::Io(error).at(&self.directory.join(JOURNAL)))
    }

    /// Makes it under another name; its path.
    fn make_aside(&self, entries: &FoundEntries) -> Result<PathBuf> {
        if place::is_made(&self.directory) {
            // Since it was looked at, before the lock was had.
            return Err(Trouble::Made.at(&self.directory));
        }
        let records = entries.records()?;
        let made = make_aside(&self.directory, entries.cluster, |transaction| {
            let EpochEntry { epoch, judged_from, waits_for } = entries.epochs;
            let mut about = transaction.open_table(ABOUT)?;
            about.insert(EPOCH, &epoch.to_le_bytes()[..])?;
            about.insert(JUDGED_FROM, &judged_from.to_le_bytes()[..])?;
            if let Some(waits_for) = waits_for {
                about.insert(WAITS_FOR, &nanos(waits_for).to_le_bytes()[..])?;
            }
            let mut reigns = transaction.open_table(REIGNS)?;
            for (epoch, reign) in &entries.reigns {
                reigns.insert(epoch, reign.0)?;
            }
            let mut sessions = transaction.open_table(SESSIONS)?;
            let mut revoked = transaction.open_table(REVOKED)?;
            let mut reserved = transaction.open_table(RESERVED)?;
            for (record, bytes) in &records {
                match record {
                    Record::SessionOpened { session, .. } => {
                        sessions.insert(session.0, &bytes[..])?;
                    }
                    Record::LeaseRevoked { session, lease, .. } => {
                        revoked.insert((session.0, lease.epoch, lease.count), &bytes[..])?;
                    }
                    Record::Reserved { name, .. } => {
                        reserved.insert(name.as_str(), &bytes[..])?;
                    }
                    _ => {}
                }
            }
            Ok(())
        });
        made.map_err(|trouble| trouble.at(&self.directory.join(JOURNAL)))
    }
}
