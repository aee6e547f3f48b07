//! How members meet: the group is made once, and a disk that it does not know waits.

use super::{
    GroupMachine,
    entry::{DiskId, GroupMembers, GroupSeat, MemberName},
    frame::{GroupBody, GroupFrame},
    standing::GroupNotice,
};
use crate::{proto::ClusterId, time::Time};

/// A member, as it said hello.
pub(super) struct MetMember {
    pub(super) disk: DiskId,
    is_empty: bool,
    init: bool,
    at: Time,
}

impl GroupMachine {
    /// Whether this disk has nothing of a group.
    pub(super) fn is_empty(&self) -> bool {
        self.raft.members().is_none()
    }

    /// The group that this disk belongs to.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.raft.members().map(|members| members.cluster)
    }

    /// Says hello, if that is due: until this disk is in a group, while it is not, and while it hears of no leader
    /// though it has no vote.
    pub(super) fn greet_if_due(&mut self) {
        if self.now < self.next_hello || !self.greets() {
            return;
        }
        let pace = if self.is_empty() && self.own_disk_waits.is_none() { 2 } else { 8 };
        self.next_hello = self.now + self.config.heartbeat * pace;
        let (is_empty, init) = (self.is_empty(), self.config.init);
        for member in self.others() {
            self.send_to(&member, None, GroupBody::Hello { is_empty, init });
        }
    }

    /// When it says hello next, unless it hears of a leader until then.
    pub(super) fn greets_at(&self) -> Option<Time> {
        if self.greets() {
            return Some(self.next_hello);
        }
        let until = self.believes_in_leader_until()?;
        self.is_learner().then(|| self.next_hello.max(until))
    }

    /// The entry that admits a disk may have come to this disk alone, and be lost with its leader. Then the members
    /// count another one as this member's, say nothing to this one, and it stands for no election by which
    /// a leader would hear of it.
    fn greets(&self) -> bool {
        let is_left_alone = self.is_learner() && self.leader().is_none();
        self.is_empty() || self.own_disk_waits.is_some() || is_left_alone
    }

    fn is_learner(&self) -> bool {
        self.raft.members().is_some_and(|members| !members.is_voter(self.config.disk))
    }

    pub(super) fn others(&self) -> Vec<MemberName> {
        let others = self.config.members.iter().filter(|member| **member != self.config.own);
        others.cloned().collect()
    }

    /// A member says hello.
    pub(super) fn meet(&mut self, from: &MemberName, disk: DiskId, is_empty: bool, init: bool) {
        let met = MetMember { disk, is_empty, init, at: self.now };
        self.met.insert(from.clone(), met);
        match self.raft.members() {
            None => self.make_if_all_have_met(),
            Some(members) if members.seat_of(disk).is_none() => {
                if self.waiting.insert(from.clone(), disk) != Some(disk) {
                    let member = from.clone();
                    self.notices.push_back(GroupNotice::DiskWaits { member, disk });
                }
                self.tell_if_unknown(from, disk);
            }
            Some(_) => {}
        }
    }

    /// Whether a member has said hello just now.
    pub(super) fn has_met_lately(&self, member: &MemberName) -> bool {
        let recent = self.now - self.config.heartbeat * HELLO_COUNTS;
        self.met.get(member).is_some_and(|met| met.at >= recent)
    }

    /// The disk that a member has now and that the group does not know.
    pub(super) fn waiting_now(&self, member: &MemberName) -> Option<DiskId> {
        let disk = *self.waiting.get(member)?;
        let is_there = self.met.get(member).is_some_and(|met| met.disk == disk);
        (is_there && self.has_met_lately(member)).then_some(disk)
    }

    /// The first of the members makes the group, once every member has an empty disk and was heard of just
    /// now. Should that be an old hello of a disk that is not empty any more, no journal comes of it:
    /// it is used only once every one of these disks has its log, and a disk has one log in its life.
    fn make_if_all_have_met(&mut self) {
        let own = &self.config.own;
        if !self.config.init || self.config.members.iter().min() != Some(own) {
            return;
        }
        let mut voters = vec![GroupSeat { member: own.clone(), disk: self.config.disk }];
        for member in self.others() {
            match self.met.get(&member) {
                Some(met) if met.is_empty && met.init && self.has_met_lately(&member) => {
                    voters.push(GroupSeat { member, disk: met.disk });
                }
                _ => return,
            }
        }
        voters.sort();
        let cluster = self.config.cluster;
        let (new_voters, learners) = (Vec::new(), Vec::new());
        self.raft.create(GroupMembers { cluster, voters, new_voters, learners });
        self.settle();
    }

    /// The leader of the log tells a disk that it is not of the group.
    pub(super) fn tell_if_unknown(&mut self, member: &MemberName, disk: DiskId) {
        let is_known = |members: &GroupMembers| members.seat_of(disk).is_some();
        if self.raft.members().is_some_and(|members| !is_known(members)) && self.can_lead() {
            self.send_to(member, Some(disk), GroupBody::UnknownDisk);
        }
    }

    /// A leader of the log says that this disk is not of the group.
    pub(super) fn is_unknown_to(&mut self, cluster: Option<ClusterId>) {
        let Some(cluster) = cluster else { return };
        if self.leader().is_some() {
            return; // it came late: a leader counts this disk by now
        }
        if self.own_disk_waits.replace(cluster).is_none() {
            self.notices.push_back(GroupNotice::OwnDiskWaits { cluster });
        }
    }

    /// A leader counts this disk among the group's.
    pub(super) fn is_known(&mut self) {
        self.own_disk_waits = None;
    }

    /// Looks whether this disk is this member's.
    pub(super) fn check_own_seat(&mut self) {
        let seat = self.raft.members().and_then(|members| members.seat_of(self.config.disk));
        if let Some(seat) = seat
            && seat.member != self.config.own
            && !self.is_out
        {
            let member = seat.member.clone();
            self.leave();
            self.notices.push_back(GroupNotice::DiskOfAnother { member });
        }
    }

    /// Whether the frame is of another group than this disk's.
    pub(super) fn is_of_another_group(&mut self, from: &MemberName, frame: &GroupFrame) -> bool {
        let (Some(own), Some(cluster)) = (self.cluster(), frame.cluster) else { return false };
        if own != cluster && self.other_clusters.insert(from.clone(), cluster) != Some(cluster) {
            let member = from.clone();
            self.notices.push_back(GroupNotice::OtherCluster { member, cluster });
        }
        own != cluster
    }
}

/// For so many heartbeats a hello counts.
const HELLO_COUNTS: u32 = 20;
