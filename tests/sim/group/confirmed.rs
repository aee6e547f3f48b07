//! What disks have confirmed to other members, and whether they have it.
//!
//! By what was sent and what was committed in truth, and not by what any member remembers: a member is
//! out if its disk has less, but a rule must hold of the disk itself.

use std::collections::BTreeMap;

use tierlock::proto::group::{DiskId, GroupBody, GroupEntry, GroupMachine, LogPlace, StoredGroup};

use super::{GroupWorld, members::MemberProcess};

/// What each disk has confirmed.
#[derive(Default)]
pub(crate) struct ConfirmedPlaces {
    sent: BTreeMap<DiskId, ConfirmedByDisk>,
    /// What of it others have heard and counted: which process of which member.
    arrived: BTreeMap<(usize, u32), BTreeMap<DiskId, ConfirmedByDisk>>,
    /// The last index of each term that was applied by any member. The log of one term has one maker: what
    /// stands there in that term, up to this index, is committed.
    applied: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct ConfirmedByDisk {
    term: u64,
    /// The last index of each term.
    last: BTreeMap<u64, u64>,
}

impl ConfirmedByDisk {
    /// Its member says this of it.
    fn says(&mut self, body: &GroupBody) {
        let (term, last) = match *body {
            GroupBody::Vote { term, is_granted: true } => (term, LogPlace::default()),
            GroupBody::Appended { term, last } => (term, last),
            _ => return,
        };
        self.term = self.term.max(term);
        let index = self.last.entry(last.term).or_default();
        *index = (*index).max(last.index);
    }
}

impl ConfirmedPlaces {
    pub(super) fn applied(&mut self, place: LogPlace) {
        let index = self.applied.entry(place.term).or_default();
        *index = (*index).max(place.index);
    }

    /// A process of a member has heard this of a disk. Only one that leads counts how long a log is, and only what is
    /// committed does it know later.
    pub(super) fn arrived(
        &mut self,
        by: (usize, u32),
        machine: &GroupMachine,
        disk: DiskId,
        body: &GroupBody,
    ) {
        if let GroupBody::Appended { term, last } = *body {
            let (is_leading, committed) = (machine.is_leading(), machine.applied().index);
            if !is_leading || machine.standing().term != term || committed < last.index {
                return;
            }
        }
        self.arrived.entry(by).or_default().entry(disk).or_default().says(body);
    }

    /// What a disk lacks of what it has confirmed, and what is committed.
    pub(super) fn lacking(&self, disk: DiskId, stored: &StoredGroup) -> Option<String> {
        self.lacking_of(self.sent.get(&disk)?, stored)
    }

    /// What a disk lacks of what these processes have heard that it has confirmed. They know of no other
    /// that it was put back.
    pub(super) fn lacking_for(
        &self,
        mut processes: impl Iterator<Item = (usize, u32)>,
        disk: DiskId,
        stored: &StoredGroup,
    ) -> Option<String> {
        processes
            .find_map(|process| self.lacking_of(self.arrived.get(&process)?.get(&disk)?, stored))
    }

    fn lacking_of(&self, confirmed: &ConfirmedByDisk, stored: &StoredGroup) -> Option<String> {
        if stored.term < confirmed.term {
            return Some(format!("the term {}, and it is in {}", confirmed.term, stored.term));
        }
        let places = confirmed.last.iter().filter_map(|(&term, &last)| {
            let index = last.min(*self.applied.get(&term)?);
            Some(LogPlace { term, index })
        });
        let mut places = places.filter(|place| !has(stored, *place));
        places.next().map(|place| format!("{place:?}"))
    }
}

/// Whether the place is in the log of this disk, or in its snapshot.
fn has(stored: &StoredGroup, place: LogPlace) -> bool {
    let before = stored.snapshot_place();
    let Some(behind) = place.index.checked_sub(before.index + 1) else { return true };
    let Some(entries) = stored.entries.get(..=behind as usize) else { return false };
    let of = |entry: &GroupEntry| match entry {
        GroupEntry::Term(term) => Some(*term),
        _ => None,
    };
    entries.iter().rev().find_map(of).unwrap_or(before.term) == place.term
}

impl GroupWorld {
    /// A frame leaves a member.
    pub(super) fn check_frame(&mut self, at: usize, process: &MemberProcess, body: &GroupBody) {
        let votes = match body {
            GroupBody::Vote { is_granted, .. } => *is_granted,
            GroupBody::AskVote { .. } => true,
            _ => false,
        };
        if let Some(what) = process.lacks.as_ref().filter(|_| votes) {
            self.rules.violate(format!("{at} votes on a disk that was put back, and lacks {what}"));
        }
        let disk = self.seats[at].disk.id;
        self.rules.confirmed.sent.entry(disk).or_default().says(body);
    }
}
