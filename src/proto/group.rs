//! A group: three or five leaders that keep the journal themselves, without a store.
//!
//! The journal's operations are entries of a Raft log, and their conditions are evaluated when they are
//! applied. Nothing else of the succession changes: the proof of a reign is the answered `renew` (see
//! [`reign`](super::reign)), never the lead of the log, and `read` is this member's applied state, which
//! may be stale. Only the member that leads the log can write: another one's operation is answered
//! [`Unknown`](super::journal::JournalTrouble::Unknown) at once, so its reign lapses, and the log's
//! leader follows it.
//!
//! # How it is driven
//!
//! One thread hands in what has happened (`handle_*`, with the clock read after that), then takes out
//! what is to be done, until each is empty:
//!
//! - [`poll_write`](GroupMachine::poll_write): to the disk, in order. The machine never waits: while a
//!   write is on its way, frames and time go on being handed in. When a write is durable, and all before
//!   it are, [`handle_stored`](GroupMachine::handle_stored) is called with its number; one call for the
//!   last of several is enough. If it fails, the process ends, or makes a new machine of what the
//!   disk has.
//! - [`poll_frame`](GroupMachine::poll_frame): to be sent to that member, or dropped. A frame comes out
//!   only when the writes that it depends on are durable, so it may be sent at once.
//! - [`poll_answer`](GroupMachine::poll_answer), [`poll_notice`](GroupMachine::poll_notice).
//! - [`poll_timeout`](GroupMachine::poll_timeout): when to call
//!   [`handle_timeout`](GroupMachine::handle_timeout) at the latest.
//!
//! A disk is read by [`StoredGroup::remember`]ing its writes in order, and synced before the machine is made
//! of it: a write that a killed process has left in the system's memory can be read, and is not durable. An empty disk is none:
//! `GroupMachine::new(config, None, now)`. Frames and writes spell themselves: [`GroupFrame::encode`],
//! [`GroupWrite::encode`].

mod confirmed;
mod election;
mod entry;
mod frame;
mod leading;
mod meeting;
mod outbox;
mod raft;
mod room;
mod snapshots;
mod standing;
mod state;
mod stored;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use self::{
    confirmed::{ConfirmedDisks, asks_before_vote},
    election::GroupElection,
    leading::GroupLead,
    meeting::MetMember,
    outbox::GroupOutbox,
    raft::{RaftCore, RaftOutput},
    room::KnownRoom,
    snapshots::{AppliedLog, ReceivedSnapshot, SentSnapshot},
};
pub use self::{
    entry::{
        DiskId, GroupCommand, GroupEntry, GroupMembers, GroupSeat, LogPlace, MemberName, VoterId,
    },
    frame::{GROUP_FRAME_BYTES_MAX, GroupBody, GroupFrame},
    room::DiskRoom,
    standing::{GroupAnswer, GroupNotice, GroupStanding, MemberStanding, ReplaceRefusal},
    state::GroupState,
    stored::{GroupSnapshot, GroupWrite, StoredGroup},
};
use super::{
    ClusterId,
    journal::{JournalAnswer, JournalHead, JournalOperation, JournalTerms, ReignKey},
};
use crate::time::Time;

/// What a journal kept by a group can do.
///
/// A renewal has every member's disk synced. It comes less often than at a store, since it gets lost less
/// easily: what a member sends is sent again until it arrives.
pub const GROUP_TERMS: JournalTerms =
    JournalTerms { is_exclusive: false, batch_max: 128, renewals: 4 };

/// How a member takes part in its group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub own: MemberName,
    /// Its disk.
    pub disk: DiskId,
    /// All members, this one too: the same at each of them.
    pub members: Vec<MemberName>,
    /// It may make the group: once, when all members have met and no disk has anything.
    pub init: bool,
    /// For how long at least a leader of the log is not heard of before a member stands.
    pub election_min: Duration,
    /// For how long at most.
    pub election_max: Duration,
    /// How often a leader says that it leads.
    pub heartbeat: Duration,
    /// For how the time until a member stands is drawn.
    pub seed: u64,
    /// What the group calls itself, if it is this member that makes it: random.
    pub cluster: ClusterId,
    /// A log of so many bytes, or a hundredth as many entries, begins anew with a snapshot.
    pub log_bytes_max: usize,
}

impl GroupConfig {
    /// A member of a group whose reigns last so long without a proof. Where that is long, the machine may
    /// be slow: a member that is late by less is no reason for an election, which would end the reign.
    pub fn new(
        own: MemberName,
        disk: DiskId,
        members: Vec<MemberName>,
        reign_lasts: Duration,
    ) -> GroupConfig {
        GroupConfig {
            own,
            disk,
            members,
            init: false,
            // A machine that is late by a sixth of a reign's time is not taken for a leader that is gone.
            election_min: reign_lasts * 29 / 64,
            election_max: reign_lasts * 3 / 4,
            // A little more than the quarter after which a reign renews itself: while one lasts, its entries
            // are all the heartbeats there are.
            heartbeat: reign_lasts * 17 / 64,
            seed: 0,
            cluster: ClusterId(0),
            log_bytes_max: 256 * 1024,
        }
    }
}

/// A write to the disk, numbered from 1 in the order in which they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// What was asked for; its answer bears the same number. The driver numbers them as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// The answer to what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum AskAnswer {
    /// To [`handle_operation`](GroupMachine::handle_operation).
    Journal(JournalAnswer),
    /// To [`handle_replace`](GroupMachine::handle_replace).
    Group(GroupAnswer),
}

/// What a member has seen of reigns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SeenReign {
    Of(ReignKey),
    /// There is none.
    Free {
        is_ours_to_take: bool,
    },
}

/// One member of a group.
pub struct GroupMachine {
    config: GroupConfig,
    raft: RaftCore,
    applied: Option<AppliedLog>,
    outbox: GroupOutbox,
    election: GroupElection,
    lead: Option<GroupLead>,
    /// Snapshots on their way to members that are behind, and one that comes.
    sending: BTreeMap<VoterId, SentSnapshot>,
    receiving: Option<ReceivedSnapshot>,
    /// The members as they said hello last.
    met: BTreeMap<MemberName, MetMember>,
    /// Disks that the group does not know, by the member that has them now.
    waiting: BTreeMap<MemberName, DiskId>,
    /// The clusters that members of other groups have named.
    other_clusters: BTreeMap<MemberName, ClusterId>,
    /// Where each disk was heard of last.
    routes: BTreeMap<VoterId, (MemberName, DiskId)>,
    confirmed: ConfirmedDisks,
    room: KnownRoom,
    /// The group that this disk is not in.
    own_disk_waits: Option<ClusterId>,
    next_hello: Time,
    /// What the log said up to there is no news.
    told_to: u64,
    /// The reign that this process's own leader was told of last.
    told_reign: Option<SeenReign>,
    /// What it hears just now wants no answer.
    is_silent: bool,
    /// It takes no part.
    is_out: bool,
    answers: VecDeque<(AskId, AskAnswer)>,
    notices: VecDeque<GroupNotice>,
    /// When it looked last.
    now: Time,
}

impl GroupMachine {
    /// A member that starts. `stored`: what its disk has, `None` if that is empty.
    pub fn new(config: GroupConfig, stored: Option<StoredGroup>, now: Time) -> GroupMachine {
        let stored = stored.unwrap_or_default();
        let mut config = config;
        // Not all members write their state at the same entry: commits would wait for all of them.
        config.log_bytes_max += config.log_bytes_max / 32 * (config.seed % 16) as usize;
        let raft = RaftCore::new(config.disk.voter(), &stored);
        let election = GroupElection::new(config.seed ^ config.disk.voter().0, now);
        let others = config.members.iter().filter(|member| **member != config.own);
        let asks = asks_before_vote(&config);
        let mut machine = GroupMachine {
            confirmed: ConfirmedDisks::new(others.cloned().collect(), asks, now),
            outbox: GroupOutbox::new(raft.last().index),
            applied: stored.snapshot.map(|snapshot| {
                let bytes = snapshot.encode().len();
                AppliedLog::of(snapshot, bytes)
            }),
            config,
            raft,
            election,
            lead: None,
            sending: BTreeMap::new(),
            receiving: None,
            met: BTreeMap::new(),
            waiting: BTreeMap::new(),
            other_clusters: BTreeMap::new(),
            routes: BTreeMap::new(),
            room: KnownRoom::new(now),
            own_disk_waits: None,
            next_hello: now,
            told_to: 0,
            told_reign: None,
            is_silent: false,
            is_out: false,
            answers: VecDeque::new(),
            notices: VecDeque::new(),
            now,
        };
        machine.told_to = machine.raft.last().index;
        machine.check_own_seat();
        machine.wait_anew();
        machine.greet_if_due();
        machine.ask_confirmed_if_due();
        machine
    }

    /// A frame from another member, which has proven that it is one of the group's.
    pub fn handle_frame(&mut self, from: &MemberName, frame: GroupFrame, now: Time) {
        self.now = now;
        let is_member = *from != self.config.own && self.config.members.contains(from);
        if self.is_out || !is_member || self.is_of_another_group(from, &frame) {
            return;
        }
        let GroupFrame { cluster, from: disk, to, is_low, body } = frame;
        if body.is_beyond(self.raft.term()) {
            return;
        }
        let voter = disk.voter();
        let seat = self.raft.members().and_then(|members| members.seat_of(disk));
        if seat.is_some_and(|seat| seat.member == *from) {
            // It has its disk: another that was there meanwhile waits no more.
            self.waiting.remove(from);
        }
        self.routes.insert(voter, (from.clone(), disk));
        self.note_room(voter, is_low);
        if let GroupBody::Hello { is_empty, init } = body {
            return self.meet(from, disk, is_empty, init);
        }
        if let GroupBody::AskConfirmed = body {
            return self.tell_confirmed(voter);
        }
        if to != Some(self.config.disk) {
            return;
        }
        if let GroupBody::UnknownDisk = body {
            return self.is_unknown_to(cluster);
        }
        self.tell_if_unknown(from, disk);
        self.handle_body(voter, body);
    }

    /// A connection to a member was made, or its port refuses every datagram.
    pub fn handle_peer(&mut self, peer: &MemberName, is_reachable: bool, now: Time) {
        self.now = now;
        match is_reachable {
            // What a heartbeat or a hello finds out is found out at once.
            true => {
                self.next_hello = self.next_hello.min(now);
                self.greet_if_due();
                self.ask_confirmed_anew(peer);
            }
            false => self.handle_refused(peer),
        }
    }

    /// This write and all before it are durable.
    pub fn handle_stored(&mut self, write: WriteId, now: Time) {
        self.now = now;
        if self.is_out {
            return;
        }
        self.outbox.handle_stored(write);
        self.settle();
    }

    /// An operation of this process's own leader. Its answer comes as [`AskAnswer::Journal`], once, and
    /// at the latest when this member leads the log no more.
    pub fn handle_operation(&mut self, ask: AskId, operation: JournalOperation, now: Time) {
        self.now = now;
        self.note_own_reign(&operation);
        match GroupCommand::of(operation) {
            Some(command) => self.propose(ask, command),
            None => match self.head() {
                Some(head) => {
                    let answer = AskAnswer::Journal(JournalAnswer::Head(head));
                    self.answers.push_back((ask, answer));
                }
                None => self.answer_unknown(ask, self.unused()),
            },
        }
    }

    /// A member has another disk, which the group does not know: it is to take the place of the one that
    /// the group knows. Its answer comes as [`AskAnswer::Group`].
    pub fn handle_replace(&mut self, ask: AskId, member: MemberName, now: Time) {
        self.now = now;
        self.replace(ask, member);
    }

    /// Hands over the log's lead, if this member has it, to the one that has most of it. To be called
    /// once its reign has resigned. Until another leads the log, or this one again after as long as an
    /// election takes, operations that write are answered *unknown*.
    pub fn handle_transfer(&mut self, now: Time) {
        self.now = now;
        self.hand_over();
    }

    /// How much room the disk has. To be called at each change, and for a machine that starts on a disk that
    /// has not [`Plenty`](DiskRoom::Plenty): as long as it has not, the member leaves the lead to others that
    /// have.
    pub fn handle_room(&mut self, room: DiskRoom, now: Time) {
        self.now = now;
        self.change_room(room);
    }

    /// Time passes.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        if self.is_out {
            return;
        }
        self.lead_if_due();
        self.stand_if_due();
        self.greet_if_due();
        self.ask_confirmed_if_due();
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Option<Time> {
        let all = [self.leads_at(), self.stands_at(), self.greets_at(), self.asks_confirmed_at()];
        all.into_iter().flatten().min().filter(|_| !self.is_out)
    }

    /// A write to the disk.
    pub fn poll_write(&mut self) -> Option<(WriteId, GroupWrite)> {
        self.outbox.poll_write()
    }

    /// A frame to another member.
    pub fn poll_frame(&mut self) -> Option<(MemberName, GroupFrame)> {
        self.outbox.poll_frame()
    }

    /// An answer.
    pub fn poll_answer(&mut self) -> Option<(AskId, AskAnswer)> {
        self.answers.pop_front()
    }

    /// Something an operator may want to know.
    pub fn poll_notice(&mut self) -> Option<GroupNotice> {
        self.notices.pop_front()
    }

    /// The journal's head as far as this member has applied the log: what a `read` is answered. `None`
    /// until the group is made.
    pub fn head(&self) -> Option<JournalHead> {
        self.state().filter(|state| state.is_made()).map(GroupState::head)
    }

    /// The state as far as this member has applied the log.
    pub fn state(&self) -> Option<&GroupState> {
        self.applied.as_ref().map(|applied| &applied.state)
    }

    /// The place up to where this member has applied the log.
    pub fn applied(&self) -> LogPlace {
        self.applied.as_ref().map_or(LogPlace::default(), |applied| applied.place)
    }

    /// Whether this member leads the log, a majority answers it, and it has applied all that leaders before
    /// it have committed: only then can it write, and what it reads is not out of date.
    pub fn is_leading(&self) -> bool {
        self.writes().is_ok() && self.has_caught_up()
    }

    /// Whether no change of the members is under way, as far as this member knows.
    pub fn is_settled(&self) -> bool {
        self.settled_members().is_some_and(|members| members.learners.is_empty())
    }

    /// How the group stands, as this member sees it.
    pub fn standing(&self) -> GroupStanding {
        let name_of = |voter| self.route(voter).map(|(member, _)| member);
        GroupStanding {
            own: self.config.own.clone(),
            cluster: self.cluster().or(self.own_disk_waits),
            leader: self.leader().and_then(name_of),
            is_leading: self.is_leading(),
            is_made: self.is_made(),
            own_disk_waits: self.own_disk_waits.is_some(),
            term: self.raft.term(),
            applied: self.applied().index,
            last: self.raft.last().index,
            members: self.config.members.iter().map(|member| self.member(member)).collect(),
        }
    }

    fn member(&self, member: &MemberName) -> MemberStanding {
        let members = self.raft.members();
        // While one is replaced it is the new one.
        let disk = members.and_then(|members| members.disks_of(member).last());
        MemberStanding {
            member: member.clone(),
            disk,
            votes: disk.is_some_and(|disk| members.is_some_and(|members| members.is_voter(disk))),
            is_heard: match disk {
                _ if *member == self.config.own => true,
                Some(disk) => self.is_heard(disk),
                None => self.has_met_lately(member),
            },
            lag: disk.and_then(|disk| self.lag_of(disk)),
            waiting_disk: self.waiting_now(member),
        }
    }
}

impl GroupMachine {
    /// A frame for this disk.
    fn handle_body(&mut self, from: VoterId, body: GroupBody) {
        match body {
            GroupBody::Hello { .. } | GroupBody::UnknownDisk | GroupBody::AskConfirmed => {}
            GroupBody::Confirmed { term, place, acknowledged } => {
                self.handle_confirmed(from, term, place, acknowledged);
            }
            GroupBody::AskPreVote { term, last, is_leader_gone } => {
                self.handle_ask_pre_vote(from, term, last, is_leader_gone);
            }
            GroupBody::PreVote { term } => self.handle_pre_vote(from, term),
            GroupBody::AskVote { last, is_transfer, .. } => {
                if self.may_vote(last, is_transfer) {
                    self.step(from, body);
                }
            }
            GroupBody::Vote { term, is_granted } => {
                if is_granted {
                    self.note_term(from, term);
                }
                self.step(from, body);
            }
            GroupBody::Append { term, .. } => {
                self.step(from, body);
                if term == self.raft.term() && !self.raft.is_leader() {
                    self.is_known();
                    self.hear_leader(from);
                    if self.outbox.is_log_awaited() {
                        self.send(from, GroupBody::Heard { term });
                    }
                }
            }
            GroupBody::Commit { term, commit, last } => {
                if term == self.raft.term() && self.raft.term_at(last.index) == Some(last.term) {
                    self.hear_leader(from);
                    self.is_silent = true;
                    let entries = Vec::new();
                    self.step(from, GroupBody::Append { term, commit, after: last, entries });
                    self.is_silent = false;
                }
            }
            GroupBody::Appended { term, last } => {
                self.hear_answer(from, term);
                self.note_term(from, term);
                self.step(from, body);
                self.note_confirmed_by(from);
                self.tell_confirmed_if_less(from, last.index);
            }
            // Whatever this one's term: a leader that is heard goes on, and learns of a later term then.
            GroupBody::Probe { term } => self.send(from, GroupBody::Heard { term }),
            GroupBody::Heard { term } => self.hear_answer(from, term),
            GroupBody::Piece { term, place, whole, at, bytes } => {
                if term == self.raft.term() && !self.raft.is_leader() {
                    self.hear_leader(from);
                    self.wait_anew();
                    self.handle_piece(from, (place, whole, at), &bytes);
                }
            }
            GroupBody::HasPieces { term, place, bytes } => {
                self.hear_answer(from, term);
                if term == self.raft.term() && self.raft.is_leader() {
                    self.handle_has_pieces(from, place, bytes);
                }
            }
            GroupBody::Stand { term } => self.handle_stand(from, term),
        }
    }

    fn step(&mut self, from: VoterId, body: GroupBody) {
        match self.raft.step(from, body) {
            Ok(output) => self.perform(output),
            Err(words) => return self.fail(words),
        }
        self.settle();
    }

    /// What cannot be has been seen: another step could make it worse.
    fn fail(&mut self, words: &str) {
        self.leave();
        self.notices.push_back(GroupNotice::Failed(words.to_owned()));
    }

    /// Takes no part any more. Nothing leaves it from here on: what waits for the disk is said in the name of one
    /// that does not count, or that must not be written.
    fn leave(&mut self) {
        self.is_out = true;
        self.raft.step_down();
        self.note_role();
        self.outbox.close();
    }

    /// Does what follows from what has happened.
    fn settle(&mut self) {
        self.drain();
        self.note_role();
        self.apply_committed();
        self.note_confirmed();
        self.tend();
        self.tell_if_reign_changed();
    }

    /// A hand-over is as short as its steps are, if no leader comes upon them by its next read, nor tries to
    /// take over where it cannot write yet.
    fn tell_if_reign_changed(&mut self) {
        let Some(state) = self.state().filter(|state| state.is_made()) else { return };
        let seen = match state.reign() {
            Some(reign) => SeenReign::Of(reign),
            None => SeenReign::Free { is_ours_to_take: self.writes().is_ok() },
        };
        if self.told_reign.replace(seen) != Some(seen) {
            self.notices.push_back(GroupNotice::ReignChanged);
        }
    }

    fn drain(&mut self) {
        let output = self.raft.drain();
        self.perform(output);
    }

    fn perform(&mut self, output: RaftOutput) {
        let RaftOutput { vote, entries, sends, installs, is_reset } = output;
        if let Some((term, voted_for)) = vote {
            self.outbox.write_vote(term, voted_for);
        }
        if let Some((after, entries)) = entries {
            self.outbox.write_entries(after, entries);
            self.check_own_seat();
        }
        self.outbox.cut(self.raft.last().index);
        if is_reset {
            self.wait_anew();
        }
        let is_quiet = self.is_quiet();
        for (to, mut body) in sends {
            match &mut body {
                GroupBody::Append { .. } if is_quiet => continue,
                GroupBody::Appended { .. } if self.is_silent => continue,
                GroupBody::Append { commit, .. } => *commit = self.commit_index().min(*commit),
                GroupBody::AskVote { term, is_transfer, .. } => *is_transfer = self.is_told(*term),
                _ => {}
            }
            self.send(to, body);
        }
        for to in installs.into_iter().filter(|_| !is_quiet) {
            self.begin_sending(to);
        }
    }

    /// Up to where the log is committed. A leader counts its own disk only for what that has, and what it has
    /// counted too soon it forgets when it leads no more. Until its disk has an entry of its own term it counts
    /// nothing new: an entry of an earlier term is committed only by one of its own behind it, and alone on a
    /// majority it may yet be overwritten by a member that has one of a term between.
    fn commit_index(&self) -> u64 {
        let durable = self.outbox.durable();
        let committed = match &self.lead {
            Some(lead) if durable >= lead.first() => self.raft.commit_index().min(durable),
            Some(_) => 0,
            None if self.raft.is_leader() => 0,
            None => self.raft.commit_index(),
        };
        committed.max(self.applied().index)
    }

    fn apply_committed(&mut self) {
        let committed = self.commit_index();
        let mut index = self.applied().index;
        while index < committed {
            index += 1;
            let (Some(term), Some((entry, bytes))) =
                (self.raft.term_at(index), self.raft.entry(index))
            else {
                return self.fail("an entry of the log that is committed is not there");
            };
            let (place, entry, bytes) = (LogPlace { term, index }, entry.clone(), *bytes);
            self.apply(place, entry, bytes);
        }
        self.compact_if_long();
    }

    fn apply(&mut self, place: LogPlace, entry: GroupEntry, bytes: usize) {
        match &entry {
            GroupEntry::Term(_) => {}
            GroupEntry::Members(members) => {
                let before = self.applied.as_ref().map(|applied| applied.members.clone());
                match &mut self.applied {
                    Some(applied) => applied.members = members.clone(),
                    None => {
                        let state = GroupState::new(members.cluster);
                        let (place, members) = (LogPlace::default(), members.clone());
                        let snapshot = GroupSnapshot { place, members, state };
                        self.applied = Some(AppliedLog::of(snapshot, 0));
                    }
                }
                self.note_members(place.index, before.as_ref(), members);
            }
            GroupEntry::Command(command) => {
                let Some(applied) = &mut self.applied else {
                    return self.fail("the log does not begin with the group's members");
                };
                match applied.state.apply(command) {
                    Some(answer) => self.answer_applied(place.index, answer),
                    None => {
                        let cluster = applied.members.cluster;
                        self.tell(place.index, GroupNotice::Made { cluster });
                    }
                }
            }
        }
        match &mut self.applied {
            Some(applied) => applied.count(place, bytes),
            None => self.fail("the log does not begin with the group's members"),
        }
    }

    /// News by the entry at that index, unless it was on the disk when this member started.
    fn tell(&mut self, index: u64, notice: GroupNotice) {
        if index > self.told_to {
            self.notices.push_back(notice);
        }
    }

    fn is_made(&self) -> bool {
        self.state().is_some_and(GroupState::is_made)
    }

    /// Why the journal is not used yet.
    fn unused(&self) -> String {
        match self.own_disk_waits {
            Some(_) => format!(
                "the disk of member {} is not in the group: it waits for `tierlock replace {}`",
                self.config.own, self.config.own
            ),
            None => "the group's members have not all met yet".to_owned(),
        }
    }

    /// Where a disk is.
    fn route(&self, voter: VoterId) -> Option<(MemberName, DiskId)> {
        if voter == self.config.disk.voter() {
            return Some((self.config.own.clone(), self.config.disk));
        }
        let mut seats = self.raft.members().into_iter().flat_map(GroupMembers::seats);
        let seat = seats.find(|seat| seat.disk.voter() == voter);
        let seat = seat.map(|seat| (seat.member.clone(), seat.disk));
        seat.or_else(|| self.routes.get(&voter).cloned())
    }

    fn send(&mut self, to: VoterId, body: GroupBody) {
        if let Some((member, disk)) = self.route(to) {
            self.send_to(&member, Some(disk), body);
        }
    }

    fn send_to(&mut self, to: &MemberName, disk: Option<DiskId>, body: GroupBody) {
        let (cluster, from, is_low) = (self.cluster(), self.config.disk, self.is_low());
        self.outbox.send(to.clone(), GroupFrame { cluster, from, to: disk, is_low, body });
    }
}

#[cfg(test)]
mod tests;
