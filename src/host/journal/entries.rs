//! What a reign's records come to in a store of entries: each entry is put or deleted once.
//!
//! A store that is shared has no log. An open session, a lease that was taken away and a name that
//! `at_least` keeps are an entry each, and what has ended is deleted. A batch of records is one
//! transaction there, in which no entry may be named twice and a session's losses go with it. So what
//! the entries are is known here from `Took` on, and a batch that is sent again comes to the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::REVOKED_PER_SESSION_MAX;
use crate::{
    error::{LockError, LockErrorKind},
    name::Name,
    proto::{
        ClusterId, LeaseId, ReignId, SessionId,
        history::History,
        journal::{JournalTrouble, ReignKey},
        record::{Record, Recovered},
        wire,
    },
};

/// What the head says of epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EpochEntry {
    pub(super) epoch: u32,
    /// No epoch before this one is judged; see [`History`].
    pub(super) judged_from: u32,
    /// How long a reign waits for clients that the journal does not know.
    pub(super) waits_for: Option<Duration>,
}

/// The entries of a store, as one reign has left them so far.
pub(super) struct ReignEntries {
    reign: ReignKey,
    /// The number of its last batch, and what that came to.
    number: u64,
    changes: Arc<EntryChanges>,
    epochs: EpochEntry,
    /// The open sessions, and what was taken away from each.
    sessions: BTreeMap<SessionId, BTreeSet<LeaseId>>,
}

/// What a batch comes to: what is to be put, and (as `None`) what is to be deleted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct EntryChanges {
    pub(super) epochs: Option<EpochEntry>,
    pub(super) sessions: BTreeMap<SessionId, Option<Vec<u8>>>,
    /// All that was taken away from these is deleted, but what is put.
    pub(super) cleared: BTreeSet<SessionId>,
    pub(super) revoked: BTreeMap<(SessionId, LeaseId), Option<Vec<u8>>>,
    pub(super) stays: BTreeMap<Name, Option<Vec<u8>>>,
}

impl EpochEntry {
    /// After a record.
    fn after(mut self, record: &Record) -> EpochEntry {
        let (epoch, starts_above) = match *record {
            Record::TookOver { epoch, waits_for, starts_above, .. } => {
                self.waits_for = waits_for;
                (epoch, starts_above)
            }
            Record::EpochRaised { epoch, starts_above } => (epoch, starts_above),
            Record::Waited => {
                self.waits_for = None;
                return self;
            }
            _ => return self,
        };
        self.epoch = epoch;
        if starts_above {
            self.judged_from = epoch;
        }
        self
    }

    /// What a reign begins with that follows this.
    pub(super) fn begun(self, took_over: &Record) -> EpochEntry {
        self.after(took_over)
    }
}

impl ReignEntries {
    /// None of any reign yet.
    pub(super) fn none() -> ReignEntries {
        ReignEntries::begin(ReignKey(0), &Recovered::new(ClusterId(0)), EpochEntry::default())
    }

    /// What a reign has found, and the epochs as its beginning has left them.
    pub(super) fn begin(reign: ReignKey, before: &Recovered, epochs: EpochEntry) -> ReignEntries {
        let sessions = before.sessions.iter();
        let sessions =
            sessions.map(|(id, open)| (*id, open.revoked.keys().copied().collect())).collect();
        ReignEntries { reign, number: 0, changes: Arc::default(), epochs, sessions }
    }

    /// What the batch of this number comes to; its repetition the same. `None` for one that cannot
    /// be the reign's next or last.
    pub(super) fn changes(
        &mut self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Option<Arc<EntryChanges>> {
        if reign != self.reign || number == 0 {
            return None;
        }
        if number == self.number + 1 {
            let mut changes = EntryChanges::default();
            records.iter().for_each(|record| self.take_in(record, &mut changes));
            (self.number, self.changes) = (number, Arc::new(changes));
        }
        (number == self.number).then(|| self.changes.clone())
    }

    fn take_in(&mut self, record: &Record, changes: &mut EntryChanges) {
        let bytes = || Some(wire::encode_record(record));
        match record {
            Record::TookOver { .. } => unreachable!("a reign over a store begins by taking over"),
            Record::Waited | Record::EpochRaised { .. } => {
                self.epochs = self.epochs.after(record);
                changes.epochs = Some(self.epochs);
            }
            Record::SessionOpened { session, .. } => {
                self.sessions.entry(*session).or_default();
                changes.sessions.insert(*session, bytes());
            }
            Record::SessionEnded { session } => {
                self.sessions.remove(session);
                changes.sessions.insert(*session, None);
                changes.cleared.insert(*session);
                changes.revoked.retain(|(of, _), _| of != session);
            }
            Record::LeaseRevoked { session, lease, .. } => {
                // Of a session that has ended no client comes back to hear of it.
                let Some(revoked) = self.sessions.get_mut(session) else { return };
                revoked.insert(*lease);
                changes.revoked.insert((*session, *lease), bytes());
                if revoked.len() > REVOKED_PER_SESSION_MAX
                    && let Some(oldest) = revoked.pop_first()
                {
                    match changes.cleared.contains(session) {
                        true => changes.revoked.remove(&(*session, oldest)),
                        false => changes.revoked.insert((*session, oldest), None),
                    };
                }
            }
            Record::Reserved { name, .. } => {
                changes.stays.insert(name.clone(), bytes());
            }
            Record::ReservationEnded { name, .. } => {
                changes.stays.insert(name.clone(), None);
            }
        }
    }
}

/// What was read of a store's entries, in whatever order.
#[derive(Clone)]
pub(super) struct FoundEntries {
    pub(super) cluster: ClusterId,
    pub(super) epochs: EpochEntry,
    pub(super) reigns: Vec<(u32, ReignId)>,
    pub(super) sessions: Vec<Vec<u8>>,
    pub(super) revoked: Vec<Vec<u8>>,
    pub(super) stays: Vec<Vec<u8>>,
}

impl FoundEntries {
    pub(super) fn of(cluster: ClusterId, epochs: EpochEntry) -> FoundEntries {
        FoundEntries {
            cluster,
            epochs,
            reigns: Vec::new(),
            sessions: Vec::new(),
            revoked: Vec::new(),
            stays: Vec::new(),
        }
    }

    /// Each entry, and its record.
    pub(super) fn records(&self) -> Result<Vec<(Record, &[u8])>, LockError> {
        let all = self.sessions.iter().chain(&self.revoked).chain(&self.stays);
        let record = |bytes: &'_ Vec<u8>| wire::decode_record(bytes);
        all.map(|bytes| match record(bytes) {
            Ok(record) => Ok((record, &bytes[..])),
            Err(error) => {
                let text = format!("an entry of the journal cannot be read: {error}");
                Err(LockError::new(LockErrorKind::Damaged, text))
            }
        })
        .collect()
    }

    /// As a reign is to know it.
    pub(super) fn recovered(self) -> Result<Recovered, JournalTrouble> {
        let FoundEntries { cluster, epochs, reigns, sessions, revoked, stays } = self;
        let history = History::found(reigns, epochs.judged_from);
        let EpochEntry { epoch, waits_for, .. } = epochs;
        let mut recovered = Recovered { epoch, waits_for, history, ..Recovered::new(cluster) };
        for bytes in sessions.iter().chain(&revoked).chain(&stays) {
            let record = wire::decode_record(bytes).map_err(|error| {
                let text = format!(
                    "an entry cannot be read, which a later release may have written: {error}"
                );
                JournalTrouble::Failed(text)
            })?;
            recovered.remember(&record);
        }
        Ok(recovered)
    }
}

#[cfg(test)]
mod tests;
