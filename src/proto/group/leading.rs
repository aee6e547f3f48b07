//! What the member does that leads the log.
//!
//! **The quiet rule.** A leader without a majority's answers sends nothing that counts as a heartbeat,
//! entries included: they would keep members from electing another that has a majority. It probes, and
//! leads on as soon as a majority answers. One whose entries are not committed for long, though a majority
//! answers, steps down: its disk, or too many of the others, cannot be written, and another may do better.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    AskAnswer, AskId, GroupMachine,
    entry::{DiskId, GroupCommand, GroupEntry, GroupMembers, GroupSeat, MemberName, VoterId},
    frame::GroupBody,
    raft::{APPEND_BYTES_MAX, length_of},
    standing::{GroupAnswer, GroupNotice, ReplaceRefusal},
};
use crate::{
    proto::{
        journal::{JournalAnswer, JournalTrouble, TakeOver},
        mistake::{Mistake, planted},
    },
    time::Time,
};

/// What a leader of the log knows.
pub(super) struct GroupLead {
    term: u64,
    /// The index of the first entry of its term.
    first: u64,
    /// When each disk has answered last.
    heard: BTreeMap<VoterId, Time>,
    next_heartbeat: Time,
    /// When it has sent entries to all last: they say that it leads.
    appended: Option<Time>,
    /// What was asked for by the entry of an index.
    asks: BTreeMap<u64, AskId>,
    replacing: Option<(AskId, GroupSeat)>,
    handing_over: Option<HandingOver>,
    /// Since when nothing more is committed, though there is something.
    stuck: Option<(Time, u64)>,
    makes: bool,
    /// Up to where the others were told that it is committed.
    told: u64,
    was_quiet: bool,
}

struct HandingOver {
    to: VoterId,
    until: Time,
}

// What it knows.
impl GroupMachine {
    /// Whether it leads the log, and a majority answers.
    pub(super) fn can_lead(&self) -> bool {
        self.lead.is_some() && !self.is_quiet()
    }

    /// Whether it leads the log without a majority's answers.
    pub(super) fn is_quiet(&self) -> bool {
        let (Some(lead), Some(members)) = (&self.lead, self.raft.members()) else { return false };
        if planted(Mistake::NoQuietRule) {
            return false;
        }
        let own = self.config.disk;
        let within = self.config.election_max;
        !members.is_quorum(|disk| disk == own || lead.hears(disk.voter(), within, self.now))
    }

    /// Whether it can write at this moment; else why not.
    pub(super) fn writes(&self) -> Result<(), String> {
        let Some(lead) = &self.lead else {
            return Err(match self.leader().and_then(|leader| self.route(leader)) {
                Some((member, _)) => format!("member {member} leads the group's log"),
                None => "no member leads the group's log".to_owned(),
            });
        };
        if self.is_quiet() {
            return Err("fewer than a majority of the group's members answer".to_owned());
        }
        if lead.handing_over.is_some() {
            return Err("the lead of the group's log is handed over".to_owned());
        }
        match self.is_made() {
            true => Ok(()),
            false => Err("the group's members have not all met yet".to_owned()),
        }
    }

    /// Whether an entry of its own term is committed, and so all before it.
    pub(super) fn has_caught_up(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| self.commit_index() >= lead.first)
    }

    /// By how many entries a disk is behind.
    pub(super) fn lag_of(&self, disk: DiskId) -> Option<u64> {
        self.lead.as_ref()?;
        if disk == self.config.disk {
            return Some(0);
        }
        Some(self.raft.last().index - self.raft.matched(disk.voter())?)
    }

    /// Whether a disk has answered this leader lately.
    pub(super) fn is_heard(&self, disk: DiskId) -> bool {
        let within = self.config.election_max;
        disk == self.config.disk
            || self.lead.as_ref().is_some_and(|lead| lead.hears(disk.voter(), within, self.now))
            || self.leader() == Some(disk.voter())
    }

    /// When a leader has something to do. Where all that it has said is committed and nothing else is under
    /// way, that is once its last entries say no more that it leads.
    pub(super) fn leads_at(&self) -> Option<Time> {
        let lead = self.lead.as_ref()?;
        let is_busy = self.commit_index() < self.raft.last().index
            || !self.sending.is_empty()
            || self.is_low()
            || lead.handing_over.is_some()
            || lead.replacing.is_some();
        let said = lead.appended.filter(|_| !is_busy).map(|at| at + self.config.heartbeat);
        said.max(Some(lead.next_heartbeat))
    }
}

// What it does.
impl GroupMachine {
    /// Begins or ends to lead, as the log says.
    pub(super) fn note_role(&mut self) {
        let term = self.raft.term();
        let is_leader = self.raft.is_leader();
        if self.lead.as_ref().is_some_and(|lead| !is_leader || lead.term != term) {
            self.end_lead();
        }
        if is_leader && self.lead.is_none() {
            let heard = self.raft.members().into_iter().flat_map(GroupMembers::seats);
            self.lead = Some(GroupLead {
                term,
                first: self.raft.last().index,
                heard: heard.map(|seat| (seat.disk.voter(), self.now)).collect(),
                next_heartbeat: self.now + self.config.heartbeat,
                appended: None,
                asks: BTreeMap::new(),
                replacing: None,
                handing_over: None,
                stuck: None,
                makes: false,
                told: 0,
                was_quiet: false,
            });
            self.forget_leader();
            self.is_known(); // by the disks that have voted for it
            self.notices.push_back(GroupNotice::Leads { term });
        }
    }

    fn end_lead(&mut self) {
        let Some(lead) = self.lead.take() else { return };
        self.sending.clear();
        self.raft.forget_commits();
        let words = "this member leads the group's log no more".to_owned();
        for ask in lead.asks.into_values() {
            self.answer_unknown(ask, words.clone());
        }
        if let Some((ask, _)) = lead.replacing {
            self.answer_replace_unknown(ask, &words);
        }
        self.wait_anew();
    }

    fn answer_replace_unknown(&mut self, ask: AskId, words: &str) {
        let answer = GroupAnswer::Unknown(words.to_owned());
        self.answers.push_back((ask, AskAnswer::Group(answer)));
    }

    pub(super) fn answer_unknown(&mut self, ask: AskId, words: String) {
        let answer = JournalAnswer::Trouble(JournalTrouble::Unknown(words));
        self.answers.push_back((ask, AskAnswer::Journal(answer)));
    }

    /// Appends an operation that is answered once it is applied.
    pub(super) fn propose(&mut self, ask: AskId, command: GroupCommand) {
        if let Err(words) = self.writes() {
            return self.answer_unknown(ask, words);
        }
        let length = length_of(&GroupEntry::Command(command.clone()));
        if length > APPEND_BYTES_MAX {
            return self.answer_unknown(ask, format!("an operation of {length} bytes is too long"));
        }
        if planted(Mistake::ConditionAtProposal)
            && let GroupCommand::TakeOver(attempt) = &command
            && let Some(head) = self.head().filter(|head| head.stamp != attempt.seen)
        {
            let answer = JournalAnswer::TakeOver(TakeOver::Raced(head));
            return self.answers.push_back((ask, AskAnswer::Journal(answer)));
        }
        if let Some(at) = self.raft.propose(command) {
            let lead = self.lead.as_mut().expect("it writes");
            lead.asks.insert(at.index, ask);
            lead.appended = Some(self.now);
        }
        self.settle();
    }

    /// The entry at that index has been applied, and is answered so.
    pub(super) fn answer_applied(&mut self, index: u64, answer: JournalAnswer) {
        if let Some(ask) = self.lead.as_mut().and_then(|lead| lead.asks.remove(&index)) {
            self.answers.push_back((ask, AskAnswer::Journal(answer)));
        }
    }

    /// A disk has answered.
    pub(super) fn hear_answer(&mut self, from: VoterId, term: u64) {
        let was_quiet = self.is_quiet();
        if let Some(lead) = &mut self.lead
            && lead.term == term
        {
            lead.heard.insert(from, self.now);
        }
        if was_quiet && !self.is_quiet() {
            // What it has not sent meanwhile follows from the answers.
            self.raft.heartbeat();
            self.settle();
        }
    }

    /// Says that it leads, or looks for a majority.
    pub(super) fn lead_if_due(&mut self) {
        let Some(lead) = &mut self.lead else { return };
        if self.now < lead.next_heartbeat {
            return;
        }
        lead.next_heartbeat = self.now + self.config.heartbeat;
        lead.handing_over.take_if(|over| over.until <= self.now);
        if self.is_stuck() {
            self.raft.step_down();
            self.note_role();
            return self.wait_for_others();
        }
        let is_quiet = self.is_quiet();
        let lead = self.lead.as_mut().expect("just seen");
        if is_quiet && !std::mem::replace(&mut lead.was_quiet, is_quiet) {
            self.notices.push_back(GroupNotice::Quiet);
        }
        let replacing = lead.replacing.take_if(|_| is_quiet);
        if let Some((ask, _)) = replacing {
            // It may yet come about: but perhaps never, so its operator is not kept waiting.
            self.answer_replace_unknown(ask, "fewer than a majority of the group's members answer");
        }
        match is_quiet {
            true => self.probe(),
            false => {
                self.say_that_it_leads();
                self.send_pieces_again();
                self.step_aside_if_low();
            }
        }
    }

    /// Unless its entries have said so within a heartbeat's time.
    fn say_that_it_leads(&mut self) {
        let Some(lead) = &mut self.lead else { return };
        match lead.appended.map(|at| at + self.config.heartbeat) {
            Some(due) if due > self.now => lead.next_heartbeat = due,
            _ => {
                self.raft.heartbeat();
                self.settle();
            }
        }
    }

    fn probe(&mut self) {
        let term = self.raft.term();
        for disk in self.other_disks() {
            self.send(disk.voter(), GroupBody::Probe { term });
        }
    }

    pub(super) fn other_disks(&self) -> BTreeSet<DiskId> {
        let seats = self.raft.members().into_iter().flat_map(GroupMembers::seats);
        seats.map(|seat| seat.disk).filter(|disk| *disk != self.config.disk).collect()
    }

    /// Whether for long nothing was committed of what it has appended.
    fn is_stuck(&mut self) -> bool {
        let (committed, last) = (self.commit_index(), self.raft.last().index);
        let limit = self.config.election_max * STUCK;
        let now = self.now;
        let is_quiet = self.is_quiet();
        let Some(lead) = &mut self.lead else { return false };
        match &mut lead.stuck {
            // Without a majority nothing is committed, and it is quiet already.
            stuck if committed == last || is_quiet => *stuck = None,
            Some((_, before)) if *before == committed => {}
            stuck => *stuck = Some((now, committed)),
        }
        lead.stuck.is_some_and(|(since, _)| since + limit <= now)
    }

    /// What follows from the answers of the others.
    pub(super) fn tend(&mut self) {
        if !self.can_lead() {
            return;
        }
        self.make_if_all_have_it();
        self.promote_if_caught_up();
        self.hand_over_if_caught_up();
        self.tell_committed();
    }

    /// What is committed is told at once, unless more is on its way: a member that stands by counts from
    /// when it sees the reign's last write, and with the next heartbeat that would be later.
    fn tell_committed(&mut self) {
        let (term, commit, last) = (self.raft.term(), self.commit_index(), self.raft.last());
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.told < commit) else { return };
        if commit < last.index {
            return;
        }
        lead.told = commit;
        for disk in self.other_disks() {
            self.send(disk.voter(), GroupBody::Commit { term, commit, last });
        }
    }

    /// Once every member has the log, the journal can be used: before that, another group could yet be made
    /// of the disks that have nothing.
    fn make_if_all_have_it(&mut self) {
        let (Some(lead), Some(members)) = (&self.lead, self.raft.members()) else { return };
        if self.is_made() || lead.makes {
            return;
        }
        let has_it = |disk: DiskId| {
            disk == self.config.disk
                || self.raft.matched(disk.voter()).is_some_and(|at| at >= lead.first)
        };
        if members.seats().all(|seat| has_it(seat.disk)) && self.commit_index() >= lead.first {
            self.lead.as_mut().expect("just seen").makes = true;
            self.raft.propose(GroupCommand::Made);
            self.drain();
        }
    }

    /// A new disk that has caught up votes.
    fn promote_if_caught_up(&mut self) {
        let Some(members) = self.settled_members() else { return };
        let last = self.raft.last().index;
        let within = self.config.election_max;
        let Some(lead) = &self.lead else { return };
        let caught_up = members.learners.iter().find(|seat| {
            let matched = self.raft.matched(seat.disk.voter());
            matched.is_some_and(|at| at >= lead.first && at + CAUGHT_UP >= last)
                && lead.hears(seat.disk.voter(), within, self.now)
        });
        let Some(seat) = caught_up.cloned() else { return };
        let mut next = members.clone();
        next.learners.retain(|learner| *learner != seat);
        next.new_voters = next.voters.clone();
        next.new_voters.push(seat);
        next.new_voters.sort();
        self.raft.propose_members(next);
        self.drain();
    }

    /// The members, if no change of them is under way.
    pub(super) fn settled_members(&self) -> Option<&GroupMembers> {
        let members = self.raft.members()?;
        let applied = &self.applied.as_ref()?.members;
        (members.new_voters.is_empty() && applied == members).then_some(members)
    }
}

// What it is asked for.
impl GroupMachine {
    pub(super) fn replace(&mut self, ask: AskId, member: MemberName) {
        match self.replacement_of(&member) {
            Err(why) => {
                let answer = AskAnswer::Group(GroupAnswer::Refused(why));
                self.answers.push_back((ask, answer));
            }
            Ok((next, seat)) => {
                if self.raft.propose_members(next).is_none() {
                    return self.answer_replace_unknown(ask, "the change could not be proposed");
                }
                self.lead.as_mut().expect("it leads").replacing = Some((ask, seat));
                self.settle();
            }
        }
    }

    fn replacement_of(
        &self,
        member: &MemberName,
    ) -> Result<(GroupMembers, GroupSeat), ReplaceRefusal> {
        if self.is_empty() {
            return Err(ReplaceRefusal::NotMade);
        }
        if !self.can_lead() {
            let leader = self.leader().filter(|leader| *leader != self.config.disk.voter());
            let leader = leader.and_then(|leader| self.route(leader));
            return Err(ReplaceRefusal::NotLeading(leader.map(|(member, _)| member)));
        }
        if !self.config.members.contains(member) {
            return Err(ReplaceRefusal::NoSuchMember);
        }
        // The disk that the member has now, and not one that was put in by mistake and taken out again.
        let Some(disk) = self.waiting_now(member) else {
            return Err(ReplaceRefusal::NoDiskWaits);
        };
        // Until an entry of its own term is committed, a leader does not know what the last change was.
        let members = match self.settled_members() {
            Some(members) if self.has_caught_up() => members,
            _ => return Err(ReplaceRefusal::Changing),
        };
        if members.seat_of(disk).is_some() || *member == self.config.own {
            return Err(ReplaceRefusal::NoDiskWaits);
        }
        let seat = GroupSeat { member: member.clone(), disk };
        let mut next = members.clone();
        next.learners.retain(|learner| learner.member != *member);
        next.learners.push(seat.clone());
        let stays: Vec<_> = next.voters.iter().filter(|seat| seat.member != *member).collect();
        if stays.len() < next.voters.len() {
            next.new_voters = stays.into_iter().cloned().collect();
        }
        Ok((next, seat))
    }

    /// The members have changed, by a committed entry.
    pub(super) fn note_members(
        &mut self,
        index: u64,
        before: Option<&GroupMembers>,
        now: &GroupMembers,
    ) {
        if !now.new_voters.is_empty() {
            return;
        }
        let known =
            |members: &GroupMembers, seat: &GroupSeat| members.seats().any(|its| its == seat);
        self.waiting.retain(|_, disk| now.seat_of(*disk).is_none());
        self.sending.retain(|to, _| now.seats().any(|seat| seat.disk.voter() == *to));
        for seat in now.seats() {
            let GroupSeat { member, disk } = seat.clone();
            let did_vote = before.is_none_or(|before| before.voters.contains(seat));
            match now.is_voter(disk) {
                true if !did_vote => self.tell(index, GroupNotice::Admitted { member, disk }),
                true => {}
                false => self.tell(index, GroupNotice::Replaced { member, disk }),
            }
        }
        let Some(lead) = &mut self.lead else { return };
        if let Some((ask, seat)) = lead.replacing.take_if(|(_, seat)| known(now, seat)) {
            let answer = GroupAnswer::Replaced { disk: seat.disk };
            self.answers.push_back((ask, AskAnswer::Group(answer)));
        }
    }

    /// Hands over to the voter that has most of the log; of those that lack little, to one with room on its disk.
    pub(super) fn hand_over(&mut self) {
        let Some(most) = self.next_in_lead() else { return };
        let until = self.now + self.config.election_max * 2;
        let over = HandingOver { to: most.voter(), until };
        self.lead.as_mut().expect("just seen").handing_over = Some(over);
        self.raft.heartbeat();
        self.settle();
    }

    fn next_in_lead(&self) -> Option<DiskId> {
        let (lead, members) = (self.lead.as_ref()?, self.raft.members()?);
        let votes = |disk: &DiskId| members.voters.iter().any(|seat| seat.disk == *disk);
        let hears = |disk: &DiskId| lead.hears(disk.voter(), self.config.election_min, self.now);
        let others = self.other_disks().into_iter().filter(votes).filter(hears);
        let rank = |disk: &DiskId| {
            let disk = disk.voter();
            (self.has_most(disk), self.has_room(disk), self.raft.matched(disk))
        };
        others.max_by_key(rank).filter(|_| self.can_lead())
    }

    /// Whether a disk lacks little of the log.
    fn has_most(&self, disk: VoterId) -> bool {
        let last = self.raft.last().index;
        self.raft.matched(disk).is_some_and(|matched| matched + CAUGHT_UP >= last)
    }

    /// The one that could lead at once in this one's place, with room on its disk.
    pub(super) fn better_leader(&self) -> Option<DiskId> {
        let is_handed_over = self.lead.as_ref()?.handing_over.is_some();
        let could = |disk: VoterId| self.has_most(disk) && self.has_room(disk);
        let next = self.next_in_lead().filter(|next| could(next.voter()));
        next.filter(|_| !is_handed_over && self.has_caught_up())
    }

    fn hand_over_if_caught_up(&mut self) {
        let Some(HandingOver { to, .. }) =
            self.lead.as_ref().and_then(|lead| lead.handing_over.as_ref())
        else {
            return;
        };
        let (to, term) = (*to, self.raft.term());
        if self.raft.matched(to) == Some(self.raft.last().index) {
            self.send(to, GroupBody::Stand { term });
        }
    }
}

impl GroupLead {
    /// The index of the first entry of its term.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    fn hears(&self, disk: VoterId, within: Duration, now: Time) -> bool {
        self.heard.get(&disk).is_some_and(|heard| now < *heard + within)
    }
}

/// For so many of the longest times until an election nothing may be committed.
const STUCK: u32 = 4;

/// A disk that is behind by so many entries at most has caught up.
const CAUGHT_UP: u64 = 16;
