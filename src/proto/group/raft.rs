//! The log's consensus, and the only file that knows the crate it comes from.
//!
//! The crate keeps terms, votes, how far each follower is, and of each entry its kind alone; what the commands say
//! stands in `entries` here, index by index. Two things it leaves to the code around it, which
//! [`RaftCore::drain`] gives what it needs for:
//!
//! - It counts this disk's own entries as stored from the moment they are made. So nothing counts as
//!   committed, and no commit index is told, beyond what the leader's own disk has; and one that leads no
//!   more [forgets](RaftCore::forget_commits) what was counted.
//! - It has no way to step down but a higher term. [`RaftCore::step_down`] does what a restart would.

use std::collections::{BTreeSet, VecDeque};

use noraft::{
    Action, ClusterConfig, Log, LogEntries, LogEntry, LogIndex, LogPosition, Message, Node, NodeId,
    Role, Term,
};

use super::{
    entry::{GroupCommand, GroupEntry, GroupMembers, GroupSeat, LogPlace, VoterId},
    frame::GroupBody,
    stored::{GroupSnapshot, StoredGroup},
};

/// A disk's part in the log.
pub(super) struct RaftCore {
    node: Node,
    /// The entries behind `node.log().snapshot_position()`, and how long each is in bytes.
    entries: VecDeque<(GroupEntry, usize)>,
    /// The members as the log's snapshot has them.
    members_before: Option<GroupMembers>,
    /// The members by the last entry that says so.
    members: Option<GroupMembers>,
    /// Commands and members that were proposed, until the node says where they stand.
    proposed: VecDeque<GroupEntry>,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct RaftOutput {
    /// Its term or vote is another. To be stored before what follows is sent.
    pub(super) vote: Option<(u64, Option<VoterId>)>,
    /// The log is this behind that index.
    pub(super) entries: Option<(u64, Vec<GroupEntry>)>,
    pub(super) sends: Vec<(VoterId, GroupBody)>,
    /// They need a snapshot.
    pub(super) installs: Vec<VoterId>,
    /// A leader was heard, or another has its vote.
    pub(super) is_reset: bool,
}

/// The part that it has in the log just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RaftRole {
    Follower,
    Candidate,
    Leader,
}

impl RaftCore {
    /// What the disk has.
    pub(super) fn new(own: VoterId, stored: &StoredGroup) -> RaftCore {
        let snapshot = stored.snapshot.as_ref();
        let config = snapshot.map(|snapshot| config_of(&snapshot.members)).unwrap_or_default();
        let before = position(stored.snapshot_place());
        let log = Log::new(config, LogEntries::from_iter(before, stored.entries.iter().map(kind)));
        let voted_for = stored.voted_for.map(node_id);
        let is_new = stored == &StoredGroup::default();
        let node = match is_new {
            true => Node::start(node_id(own)),
            false => Node::restart(node_id(own), Term::new(stored.term), voted_for, log),
        };
        let mut core = RaftCore {
            node,
            entries: stored.entries.iter().cloned().map(measured).collect(),
            members_before: snapshot.map(|snapshot| snapshot.members.clone()),
            members: None,
            proposed: VecDeque::new(),
        };
        core.find_members();
        core
    }

    pub(super) fn role(&self) -> RaftRole {
        match self.node.role() {
            Role::Follower => RaftRole::Follower,
            Role::Candidate => RaftRole::Candidate,
            Role::Leader => RaftRole::Leader,
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        self.role() == RaftRole::Leader
    }

    pub(super) fn term(&self) -> u64 {
        self.node.current_term().get()
    }

    /// The members by the last entry that says so, committed or not.
    pub(super) fn members(&self) -> Option<&GroupMembers> {
        self.members.as_ref()
    }

    /// The last entry's place.
    pub(super) fn last(&self) -> LogPlace {
        place(self.node.log().last_position())
    }

    /// The index before the first entry that is here.
    pub(super) fn before(&self) -> u64 {
        self.node.log().snapshot_position().index.get()
    }

    /// What is committed, if this disk has all that it leads.
    pub(super) fn commit_index(&self) -> u64 {
        self.node.commit_index().get()
    }

    /// The term of the entry at this index.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        self.node.log().entries().get_term(LogIndex::new(index)).map(Term::get)
    }

    /// The entry at this index, and its length in bytes.
    pub(super) fn entry(&self, index: u64) -> Option<&(GroupEntry, usize)> {
        let behind = index.checked_sub(self.before() + 1)?;
        self.entries.get(usize::try_from(behind).ok()?)
    }

    /// The entries behind this index.
    pub(super) fn entries_behind(&self, index: u64) -> Vec<GroupEntry> {
        let skipped = index.saturating_sub(self.before()) as usize;
        self.entries.iter().skip(skipped).map(|(entry, _)| entry.clone()).collect()
    }

    /// The term and the vote.
    pub(super) fn vote(&self) -> (u64, Option<VoterId>) {
        (self.term(), self.node.voted_for().map(|id| VoterId(id.get())))
    }

    /// Up to where a follower's log is known to be this one's.
    pub(super) fn matched(&self, follower: VoterId) -> Option<u64> {
        self.node.follower_match_index(node_id(follower)).map(LogIndex::get)
    }

    /// Makes the group, in an empty log.
    pub(super) fn create(&mut self, members: GroupMembers) {
        let voters: Vec<NodeId> = members.voters.iter().map(voter_node).collect();
        self.proposed.push_back(GroupEntry::Members(members));
        self.node.create_cluster(&voters);
    }

    /// Stands for the lead.
    pub(super) fn elect(&mut self) {
        if !self.is_leader() {
            self.node.handle_election_timeout();
        }
    }

    /// Says that it leads.
    pub(super) fn heartbeat(&mut self) {
        self.node.heartbeat();
    }

    /// A leader that is none any more, as after a restart: in the same term, with the same vote, so that
    /// no other leads in this term.
    pub(super) fn step_down(&mut self) {
        let (term, voted_for) = (self.node.current_term(), self.node.voted_for());
        self.node = Node::restart(self.node.id(), term, voted_for, self.node.log().clone());
        // Of a restart there is only that it counts its time anew.
        self.node.actions_mut().for_each(drop);
    }

    /// One that led forgets what it has counted as committed: its own disk may not have had it, and then it
    /// is not. What is committed it hears from the next leader.
    pub(super) fn forget_commits(&mut self) {
        if !self.is_leader() {
            self.step_down();
        }
    }

    /// Appends a command, if this is the leader.
    pub(super) fn propose(&mut self, command: GroupCommand) -> Option<LogPlace> {
        let at = self.node.propose_command();
        if at.is_invalid() {
            return None;
        }
        self.proposed.push_back(GroupEntry::Command(command));
        Some(place(at))
    }

    /// Appends a change of the members. Once the voters that there will be are committed, the crate itself
    /// appends that they are the voters.
    pub(super) fn propose_members(&mut self, members: GroupMembers) -> Option<LogPlace> {
        let at = self.node.propose_config(config_of(&members));
        if at.is_invalid() {
            return None;
        }
        self.proposed.push_back(GroupEntry::Members(members));
        Some(place(at))
    }

    /// A frame of another disk.
    ///
    /// # Errors
    ///
    /// The two logs differ where both are committed: one of the disks has lost what it had stored.
    pub(super) fn step(
        &mut self,
        from: VoterId,
        body: GroupBody,
    ) -> Result<RaftOutput, &'static str> {
        let from = node_id(from);
        let (message, entries, after) = match body {
            GroupBody::AskVote { term, last, .. } => {
                let last_position = position(last);
                let term = Term::new(term);
                (Message::RequestVoteCall { from, term, last_position }, Vec::new(), 0)
            }
            GroupBody::Vote { term, is_granted } => {
                let (term, vote_granted) = (Term::new(term), is_granted);
                (Message::RequestVoteReply { from, term, vote_granted }, Vec::new(), 0)
            }
            GroupBody::Append { term, commit, after, entries } => {
                let kinds = LogEntries::from_iter(position(after), entries.iter().map(kind));
                let (term, commit_index) = (Term::new(term), LogIndex::new(commit));
                let call = Message::AppendEntriesCall { from, term, commit_index, entries: kinds };
                (call, entries, after.index)
            }
            GroupBody::Appended { term, last } => {
                let (term, last_position) = (Term::new(term), position(last));
                (Message::AppendEntriesReply { from, term, last_position }, Vec::new(), 0)
            }
            _ => return Ok(RaftOutput::default()),
        };
        self.node.handle_message(&message).map_err(|_| "the log differs from the leader's log")?;
        Ok(self.drain_with(&entries, after))
    }

    /// What is to be done after anything but a frame.
    pub(super) fn drain(&mut self) -> RaftOutput {
        self.drain_with(&[], 0)
    }

    /// `received`: the entries of the frame that has led to it, which stand behind the index `after`.
    fn drain_with(&mut self, received: &[GroupEntry], after: u64) -> RaftOutput {
        let mut output = RaftOutput::default();
        let mut messages = Vec::new();
        let actions: Vec<Action> = self.node.actions_mut().collect();
        for action in actions {
            match action {
                Action::SetElectionTimeout => output.is_reset = true,
                Action::SaveCurrentTerm | Action::SaveVotedFor => output.vote = Some(self.vote()),
                Action::AppendLogEntries(entries) => {
                    let before = entries.prev_position().index.get();
                    let new = self.found(&entries, received, after);
                    self.replace_behind(before, new.clone());
                    output.entries = Some((before, new));
                }
                Action::BroadcastMessage(message) => {
                    let all: Vec<NodeId> = self.node.peers().collect();
                    messages.extend(all.into_iter().map(|to| (to, message.clone())));
                }
                Action::SendMessage(to, message) => messages.push((to, message)),
                Action::InstallSnapshot(to) => output.installs.push(VoterId(to.get())),
            }
        }
        self.proposed.clear();
        self.cut_behind_last();
        for (to, message) in messages {
            output.sends.push((VoterId(to.get()), self.body_of(message)));
        }
        output
    }

    /// What the entries of these kinds say: they are those of the frame, or were proposed here.
    fn found(
        &mut self,
        entries: &LogEntries,
        received: &[GroupEntry],
        after: u64,
    ) -> Vec<GroupEntry> {
        let mut all = Vec::with_capacity(entries.len());
        for (at, kind) in entries.iter_with_positions() {
            let behind = at.index.get().checked_sub(after + 1).map(|behind| behind as usize);
            all.push(match (behind.and_then(|behind| received.get(behind)), kind) {
                (Some(entry), _) => entry.clone(),
                (None, LogEntry::Term(term)) => GroupEntry::Term(term.get()),
                (None, LogEntry::Command) => self.proposed.pop_front().expect("it was proposed"),
                (None, LogEntry::ClusterConfig(config)) => match self.proposed.pop_front() {
                    Some(entry) => entry,
                    None => GroupEntry::Members(self.members_of(&config)),
                },
            });
        }
        all
    }

    /// The members of a configuration that the crate has made of the last one.
    fn members_of(&self, config: &ClusterConfig) -> GroupMembers {
        let members = self.members.as_ref().expect("a configuration follows another");
        let of = |ids: &BTreeSet<NodeId>| {
            let seats = members.seats().filter(|seat| ids.contains(&voter_node(seat)));
            seats.cloned().collect::<Vec<_>>()
        };
        GroupMembers {
            cluster: members.cluster,
            voters: of(&config.voters),
            new_voters: of(&config.new_voters),
            learners: of(&config.non_voters),
        }
    }

    fn replace_behind(&mut self, before: u64, new: Vec<GroupEntry>) {
        let kept = before.saturating_sub(self.before()) as usize;
        let is_member = |entry: &GroupEntry| matches!(entry, GroupEntry::Members(_));
        let changes = kept < self.entries.len() || new.iter().any(is_member);
        self.entries.truncate(kept);
        self.entries.extend(new.into_iter().map(measured));
        if changes {
            self.find_members();
        }
    }

    /// A follower forgets entries that its leader does not have before it knows what stands there.
    fn cut_behind_last(&mut self) {
        let length = (self.last().index - self.before()) as usize;
        if length < self.entries.len() {
            self.entries.truncate(length);
            self.find_members();
        }
    }

    fn find_members(&mut self) {
        let last = self.entries.iter().rev().find_map(|(entry, _)| match entry {
            GroupEntry::Members(members) => Some(members.clone()),
            _ => None,
        });
        self.members = last.or_else(|| self.members_before.clone());
    }

    /// A snapshot takes the place of the log up to there. `false`: the log has more by now.
    pub(super) fn install(&mut self, snapshot: &GroupSnapshot) -> bool {
        let (before, at) = (self.before(), position(snapshot.place));
        if !self.node.handle_snapshot_installed(at, config_of(&snapshot.members)) {
            return false;
        }
        self.members_before = Some(snapshot.members.clone());
        let dropped = (snapshot.place.index - before) as usize;
        match self.last().index > snapshot.place.index {
            true => drop(self.entries.drain(..dropped)),
            false => self.entries.clear(),
        }
        self.find_members();
        true
    }

    /// Forgets the entries up to this index, which is committed and stored with what it has led to.
    pub(super) fn forget_up_to(&mut self, index: u64) {
        let before = self.before();
        let log = self.node.log();
        let Some((at, config)) = log.get_position_and_config(LogIndex::new(index)) else { return };
        let config = config.clone();
        let mut members = self.members_before.take();
        if !self.node.handle_snapshot_installed(at, config) {
            self.members_before = members;
            return;
        }
        for (entry, _) in self.entries.drain(..(index - before) as usize) {
            if let GroupEntry::Members(newer) = entry {
                members = Some(newer);
            }
        }
        self.members_before = members;
    }

    /// A message as members say it: with what the entries have, as far as there is room.
    fn body_of(&self, message: Message) -> GroupBody {
        match message {
            Message::RequestVoteCall { term, last_position, .. } => {
                let last = place(last_position);
                GroupBody::AskVote { term: term.get(), last, is_transfer: false }
            }
            Message::RequestVoteReply { term, vote_granted, .. } => {
                GroupBody::Vote { term: term.get(), is_granted: vote_granted }
            }
            Message::AppendEntriesReply { term, last_position, .. } => {
                GroupBody::Appended { term: term.get(), last: place(last_position) }
            }
            Message::AppendEntriesCall { term, commit_index, entries, .. } => {
                let (after, last) = (entries.prev_position(), entries.last_position());
                let mut bytes = 0;
                let of = (after.index.get() + 1..=last.index.get()).map_while(|index| {
                    let (entry, length) = self.entry(index)?;
                    bytes += length;
                    (bytes <= APPEND_BYTES_MAX).then(|| entry.clone())
                });
                let (entries, after) = (of.collect(), place(after));
                GroupBody::Append { term: term.get(), commit: commit_index.get(), after, entries }
            }
        }
    }
}

/// The length of an entry in bytes.
pub(super) fn length_of(entry: &GroupEntry) -> usize {
    entry.encode().len()
}

fn measured(entry: GroupEntry) -> (GroupEntry, usize) {
    let length = length_of(&entry);
    (entry, length)
}

fn kind(entry: &GroupEntry) -> LogEntry {
    match entry {
        GroupEntry::Term(term) => LogEntry::Term(Term::new(*term)),
        GroupEntry::Members(members) => LogEntry::ClusterConfig(config_of(members)),
        GroupEntry::Command(_) => LogEntry::Command,
    }
}

fn config_of(members: &GroupMembers) -> ClusterConfig {
    let mut config = ClusterConfig::new();
    config.voters = members.voters.iter().map(voter_node).collect();
    config.new_voters = members.new_voters.iter().map(voter_node).collect();
    config.non_voters = members.learners.iter().map(voter_node).collect();
    config
}

fn voter_node(seat: &GroupSeat) -> NodeId {
    node_id(seat.disk.voter())
}

fn node_id(voter: VoterId) -> NodeId {
    NodeId::new(voter.0)
}

fn place(position: LogPosition) -> LogPlace {
    LogPlace { term: position.term.get(), index: position.index.get() }
}

fn position(place: LogPlace) -> LogPosition {
    LogPosition::new(Term::new(place.term), LogIndex::new(place.index))
}

/// How long all entries of a frame are together at most, and so each of them: a frame has a head besides.
pub(super) const APPEND_BYTES_MAX: usize = 58 * 1024;
