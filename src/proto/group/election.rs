//! When a member stands for the log's lead, and which one it would have.
//!
//! It first asks whether it would have a majority, which changes nothing at the members that it asks, and
//! stands only then: a member that comes back from a cut does not end a leader's term. A member
//! that has heard of a leader just now gives no vote to another (*sticky*), but to one that the leader
//! itself has told to stand.

use std::{collections::BTreeSet, time::Duration};

use super::{
    GroupMachine,
    entry::{DiskId, LogPlace, MemberName, VoterId},
    frame::GroupBody,
    raft::RaftRole,
    standing::GroupNotice,
};
use crate::{
    proto::mistake::{Mistake, planted},
    time::Time,
};

/// What a member knows of elections.
pub(super) struct GroupElection {
    dice: u64,
    /// When it looks for votes, unless a leader is heard of.
    stands_at: Time,
    /// When a leader was heard of last, and which.
    heard: Option<Time>,
    leader: Option<(u64, VoterId)>,
    /// The disks that would vote for it.
    poll: Option<(u64, BTreeSet<VoterId>)>,
    /// The leader's port refuses what it is sent.
    is_leader_gone: bool,
    /// The term in which it was told to stand.
    told_term: Option<u64>,
    is_leaderless: bool,
}

impl GroupElection {
    pub(super) fn new(seed: u64, now: Time) -> GroupElection {
        let dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        GroupElection {
            dice,
            stands_at: now,
            heard: None,
            leader: None,
            poll: None,
            is_leader_gone: false,
            told_term: None,
            is_leaderless: false,
        }
    }

    fn draw(&mut self, from: Duration, to: Duration) -> Duration {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let part = (self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 44) as u32;
        from + to.saturating_sub(from) / (1 << 20) * part
    }
}

impl GroupMachine {
    /// Begins to wait anew before it stands.
    pub(super) fn wait_anew(&mut self) {
        let (from, to) = (self.config.election_min, self.config.election_max);
        self.election.stands_at = self.now + self.election.draw(from, to) + self.room_delay();
    }

    /// The same, so long that others come first.
    pub(super) fn wait_for_others(&mut self) {
        self.wait_anew();
        self.election.stands_at = self.election.stands_at + self.config.election_max;
    }

    /// Of those that wait already it comes that much later.
    pub(super) fn wait_longer(&mut self, by: Duration) {
        self.election.stands_at = self.election.stands_at + by;
    }

    /// When it stands, if it can.
    pub(super) fn stands_at(&self) -> Option<Time> {
        let members = self.raft.members()?;
        let is_voter = members.is_voter(self.config.disk);
        (is_voter && !self.raft.is_leader()).then_some(self.election.stands_at)
    }

    /// The leader of the log in this term, as far as one was heard of lately.
    pub(super) fn leader(&self) -> Option<VoterId> {
        if self.raft.is_leader() {
            return Some(self.config.disk.voter());
        }
        let (term, leader) = self.election.leader?;
        (term == self.raft.term() && self.hears_leader(self.config.election_max)).then_some(leader)
    }

    /// Until when a leader that was heard of is one that leads yet.
    pub(super) fn believes_in_leader_until(&self) -> Option<Time> {
        self.election.heard.map(|heard| heard + self.config.election_max)
    }

    fn hears_leader(&self, within: Duration) -> bool {
        self.election.heard.is_some_and(|heard| self.now < heard + within)
    }

    /// The leader of this term was heard of.
    pub(super) fn hear_leader(&mut self, leader: VoterId) {
        let election = &mut self.election;
        election.heard = Some(self.now);
        election.poll = None;
        election.is_leader_gone = false;
        let is_new = election.leader.replace((self.raft.term(), leader)).map(|(_, its)| its)
            != Some(leader)
            || std::mem::take(&mut election.is_leaderless);
        if is_new && let Some((leader, _)) = self.route(leader) {
            self.notices.push_back(GroupNotice::Follows { leader });
        }
    }

    /// This member leads.
    pub(super) fn forget_leader(&mut self) {
        (self.election.leader, self.election.poll) = (None, None);
        self.election.is_leaderless = false;
    }

    /// The port of a member refuses what it is sent. If that one leads, an election may begin: but as soon as
    /// it is heard of again it leads on.
    pub(super) fn handle_refused(&mut self, peer: &MemberName) {
        let leads = |leader| self.route(leader).is_some_and(|(member, _)| member == *peer);
        if self.raft.is_leader() || !self.leader().is_some_and(leads) {
            return;
        }
        let Some(heard) = self.election.heard else { return };
        self.election.is_leader_gone = true;
        let soon = self.election.draw(Duration::ZERO, self.config.heartbeat / 2);
        let at = self.now.max(heard + self.missed_heartbeat()) + soon + self.room_delay();
        self.election.stands_at = self.election.stands_at.min(at);
    }

    /// How long no leader is heard of where a heartbeat was lost, or it is gone.
    fn missed_heartbeat(&self) -> Duration {
        self.config.heartbeat * 3 / 2
    }

    /// Looks for votes, if that is due.
    pub(super) fn stand_if_due(&mut self) {
        if self.stands_at().is_none_or(|at| self.now < at) {
            return;
        }
        self.wait_anew();
        if !self.may_stand() {
            return;
        }
        // One election that comes to nothing is no news.
        if !self.hears_leader(self.config.election_max * 2)
            && !std::mem::replace(&mut self.election.is_leaderless, true)
        {
            self.notices.push_back(GroupNotice::Leaderless);
        }
        let (term, last) = (self.raft.term() + 1, self.raft.last());
        if planted(Mistake::NoPreVote) {
            return self.stand();
        }
        self.election.poll = Some((term, BTreeSet::new()));
        let is_leader_gone = self.election.is_leader_gone;
        for disk in self.other_voters() {
            self.send(disk.voter(), GroupBody::AskPreVote { term, last, is_leader_gone });
        }
    }

    fn other_voters(&self) -> Vec<DiskId> {
        let Some(members) = self.raft.members() else { return Vec::new() };
        let disks = members.seats().map(|seat| seat.disk);
        disks.filter(|disk| *disk != self.config.disk && members.is_voter(*disk)).collect()
    }

    /// Whether it keeps to the leader that it has heard of.
    fn is_sticky(&self, is_leader_gone: bool) -> bool {
        if planted(Mistake::NotSticky) {
            return false;
        }
        let within = match is_leader_gone || self.election.is_leader_gone {
            true => self.missed_heartbeat(),
            false => self.config.election_min,
        };
        self.can_lead() || (!self.raft.is_leader() && self.hears_leader(within))
    }

    /// A member asks whether it would have the vote. The term says nothing: one that is behind learns of it
    /// when it stands.
    pub(super) fn handle_ask_pre_vote(
        &mut self,
        from: VoterId,
        term: u64,
        last: LogPlace,
        is_gone: bool,
    ) {
        if self.may_give_vote(last) && !self.is_sticky(is_gone) && last >= self.raft.last() {
            self.send(from, GroupBody::PreVote { term });
        }
    }

    /// A member would have this one.
    pub(super) fn handle_pre_vote(&mut self, from: VoterId, term: u64) {
        let Some((asked, granted)) = &mut self.election.poll else { return };
        if *asked != term || self.raft.is_leader() {
            return;
        }
        granted.insert(from);
        let own = self.config.disk;
        let is_granted = |disk: DiskId| disk == own || granted.contains(&disk.voter());
        let members = self.raft.members();
        if members.is_some_and(|members| members.is_quorum(is_granted)) && self.may_stand() {
            self.stand();
        }
    }

    /// It has heard that its log ends before what it is counted for: it stands or leads no more.
    pub(super) fn stop_standing(&mut self) {
        if self.has_acknowledged(self.raft.last()) || self.raft.role() == RaftRole::Follower {
            return;
        }
        self.election.poll = None;
        self.raft.step_down();
        self.settle();
    }

    fn stand(&mut self) {
        self.election.poll = None;
        self.raft.elect();
        self.settle();
    }

    /// Whether this one's vote is to be asked for at all.
    pub(super) fn may_vote(&self, last: LogPlace, is_transfer: bool) -> bool {
        self.may_give_vote(last) && (is_transfer || !self.is_sticky(false))
    }

    /// Whether this disk is good for a vote, to a log that ends there.
    fn may_give_vote(&self, last: LogPlace) -> bool {
        !self.is_unsure() && self.has_acknowledged(last)
    }

    /// Its own is the first that it has.
    fn may_stand(&self) -> bool {
        self.may_give_vote(self.raft.last())
    }

    /// Whether it stands in this term because the leader before it has told it to.
    pub(super) fn is_told(&self, term: u64) -> bool {
        self.election.told_term == Some(term)
    }

    /// The leader hands over to this member.
    pub(super) fn handle_stand(&mut self, from: VoterId, term: u64) {
        if term == self.raft.term() && self.leader() == Some(from) && self.may_stand() {
            self.election.told_term = Some(term + 1);
            self.stand();
        }
    }
}
