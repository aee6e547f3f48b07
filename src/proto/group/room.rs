//! Room on the members' disks.
//!
//! A member with a disk that is full but for what was set aside writes on for a while, and then no more. So as long
//! as its disk is *low*, it leaves the lead to others: it looks for votes when they had time to be elected, and
//! when it leads, it hands over as soon as another could lead at once. It is put off and not kept
//! out: it votes, it is elected where no other can be, and where all are low the one that leads goes on.
//!
//! That a disk is low is a state, which every frame of its member says. Said once, where it begins, it would be
//! lost on a member that becomes leader later, and a hand-over that came to nothing would be the only one.

use std::{collections::BTreeSet, time::Duration};

use super::{GroupMachine, entry::VoterId, standing::GroupNotice};
use crate::{
    proto::{
        journal::{JournalOperation, ReignKey},
        mistake::{Mistake, planted},
    },
    time::Time,
};

/// How much room a member's disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskRoom {
    #[default]
    Plenty,
    /// It is full, and writes what was set aside for that.
    Low,
    /// It can write nothing more.
    Full,
}

/// What a member knows of the room on disks.
pub(super) struct KnownRoom {
    own: DiskRoom,
    /// The other disks that are, as their members said last.
    low: BTreeSet<VoterId>,
    /// The reign that this process's own leader has asked for last, or in.
    own_reign: Option<ReignKey>,
    /// It does not try to hand over before that.
    next_try: Time,
}

impl KnownRoom {
    pub(super) fn new(now: Time) -> KnownRoom {
        KnownRoom { own: DiskRoom::Plenty, low: BTreeSet::new(), own_reign: None, next_try: now }
    }
}

impl GroupMachine {
    /// Whether its own disk is low, or even full.
    pub(super) fn is_low(&self) -> bool {
        self.room.own != DiskRoom::Plenty
    }

    /// Whether a disk has room, as far as this member has heard.
    pub(super) fn has_room(&self, disk: VoterId) -> bool {
        !self.room.low.contains(&disk)
    }

    /// The member of a disk has said whether that is low.
    pub(super) fn note_room(&mut self, disk: VoterId, is_low: bool) {
        match is_low {
            true => self.room.low.insert(disk),
            false => self.room.low.remove(&disk),
        };
    }

    /// This process's leader asks for a reign, or for something in it.
    pub(super) fn note_own_reign(&mut self, operation: &JournalOperation) {
        match operation {
            JournalOperation::TakeOver(attempt) => self.room.own_reign = Some(attempt.reign),
            JournalOperation::Renew(reign) | JournalOperation::Append { reign, .. } => {
                self.room.own_reign = Some(*reign);
            }
            JournalOperation::Read | JournalOperation::Resign(_) => {}
        }
    }

    pub(super) fn change_room(&mut self, room: DiskRoom) {
        let was_low = self.is_low();
        if std::mem::replace(&mut self.room.own, room) == room {
            return;
        }
        if !was_low {
            self.wait_longer(self.room_delay());
        }
        self.room.next_try = self.now;
        self.try_to_step_aside();
    }

    /// By how much later than others it looks for votes: as long as the slowest of them takes to.
    pub(super) fn room_delay(&self) -> Duration {
        match self.is_low() && !planted(Mistake::LowDiskToldOnce) {
            true => self.config.election_max,
            false => Duration::ZERO,
        }
    }

    /// It leads, and looks whether another should.
    pub(super) fn step_aside_if_low(&mut self) {
        if !planted(Mistake::LowDiskToldOnce) {
            self.try_to_step_aside();
        }
    }

    /// The pause lets an attempt that came to nothing pass: this process reigns again until the next.
    fn try_to_step_aside(&mut self) {
        if !self.is_low() || self.now < self.room.next_try || self.better_leader().is_none() {
            return;
        }
        self.room.next_try = self.now + self.config.election_max * PAUSE;
        let reign = self.head().and_then(|head| head.reign);
        let reigns = reign.is_some() && reign == self.room.own_reign;
        match reigns && self.room.own == DiskRoom::Low {
            // The log follows behind its resignation, so that the next leader finds a journal without a reign.
            // On a full disk that is not written any more.
            true => self.notices.push_back(GroupNotice::StepsAside),
            false => self.hand_over(),
        }
    }
}

/// How long it waits before it hands over again, in the longest times until an election.
const PAUSE: u32 = 8;
