//! Leaders that are a group: each leader's process is a member, with its disk and its part in the log, and
//! the journal is what the log applies to.
//!
//! The members, their disks and their network are those of `group`; clients, users and rules are those of
//! every world. What the journal truly is, the modelled one says: it does what each entry of the log asks
//! for, at the moment when the first member applies it. Every member has to come to the same.

use tierlock::proto::{
    group::GroupCommand,
    journal::{JournalHead, JournalOperation, Stamp},
    record::Recovered,
};

use crate::{
    clock::{MS, Truth},
    group::{GroupEvent, GroupTally, GroupWorld},
    rules::Rule,
    world::{Node, Step, TROUBLE, World, note},
};

/// From this seed on the leaders of worlds are a group.
pub(crate) const JOINED: u64 = 1 << 41;

impl World {
    /// The group of the leaders that there will be.
    pub(crate) fn found_group(&mut self) {
        let first = self.plan.leader();
        let of = first..first + self.plan.leaders;
        let clocks: Vec<_> = self.processes[of].iter().map(|process| process.clock).collect();
        let (seed, lasts) = (self.dice.next(), self.plan.lasts);
        let group = GroupWorld::for_leaders(seed, self.telling, lasts, &clocks, TROUBLE);
        self.group = Some(Box::new(group));
        // That of a group that was just made.
        self.journal.head.stamp = Stamp::default();
    }

    /// Whether the group has something to do before anything else happens.
    pub(crate) fn group_goes_first(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.next_at() <= self.next_at())
    }

    pub(crate) fn step_group(&mut self) {
        if let Some(group) = &self.group {
            self.truth = self.truth.max(group.next_at());
        }
        self.with_group(GroupWorld::step);
    }

    /// Has the group do something, and takes in what follows from it. Not in the middle of a leader's turn:
    /// its process may be killed by it.
    fn with_group(&mut self, act: impl FnOnce(&mut GroupWorld)) {
        let Some(group) = &mut self.group else { return };
        group.is_now(self.truth);
        act(group);
        while let Some(event) = self.group.as_mut().and_then(|group| group.poll_event()) {
            self.follow_group(event);
        }
        let broken = self.group.as_ref().and_then(|group| group.violation());
        if let Some(text) = broken.map(str::to_owned) {
            self.violate(Rule::Property, text);
        }
    }

    fn follow_group(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Applied(command) => self.journal_applies(command),
            GroupEvent::Stands(head, number, records) => {
                self.compare_journals(&head, number, records.as_deref());
            }
            GroupEvent::Answered(number, answer) => {
                if let Some(asked) = &mut self.journal.asked[number] {
                    asked.answer = Some(answer);
                    let delay = self.delay_in_process();
                    self.after(delay, Step::JournalAnswers(number, None));
                }
            }
            GroupEvent::Crashed(seat) => self.member_is_killed(seat),
            GroupEvent::Started(seat) => self.start_leader(seat),
            GroupEvent::StandsStill(seat, until) => {
                let process = self.plan.leader() + seat;
                self.tally.pauses += 1;
                self.pause(process, until - self.truth);
            }
            GroupEvent::ReignChanged(seat) => {
                self.sit(seat);
                self.look_at_journal();
            }
            GroupEvent::IsToHandOver(seat) => {
                self.sit(seat);
                self.hand_over();
            }
        }
    }

    /// The journal does what an entry of the log asks for.
    fn journal_applies(&mut self, command: GroupCommand) {
        let operation = match command {
            GroupCommand::TakeOver(attempt) => JournalOperation::TakeOver(attempt),
            GroupCommand::Renew(reign) => JournalOperation::Renew(reign),
            GroupCommand::Append { reign, number, records } => {
                JournalOperation::Append { reign, number, records }
            }
            GroupCommand::Resign(reign) => JournalOperation::Resign(reign),
            GroupCommand::Made => return,
        };
        note!(self, "the journal applies {operation:?}");
        self.journal_does(&operation);
    }

    /// What the log has led to at a member is what the journal has come to.
    fn compare_journals(&mut self, head: &JournalHead, number: u64, records: Option<&Recovered>) {
        let own = &self.journal.head;
        let has = (own.cluster, own.reign, own.stamp, own.epoch, self.journal.number);
        let stands = (head.cluster, head.reign, head.stamp, head.epoch, number);
        if has != stands {
            let text = format!("a member has come to {stands:?}, and the journal to {has:?}");
            return self.violate(Rule::Property, text);
        }
        if let Some(records) = records
            && *records != self.disk.recover()
        {
            let text = format!("a member has other records than the journal: {records:?}");
            self.violate(Rule::Property, text);
        }
    }

    /// An operation goes from a leader to its own member.
    pub(crate) fn ask_own_member(&mut self, number: usize) {
        let delay = self.delay_in_process();
        self.after(delay, Step::JournalReads(number));
    }

    /// From thread to thread it takes no time, but for a machine that is busy.
    fn delay_in_process(&mut self) -> Truth {
        match self.dice.below(100) {
            0 => self.dice.below(30 * MS),
            _ => self.dice.below(MS / 5),
        }
    }

    pub(crate) fn member_is_asked(&mut self, number: usize) {
        let Some(asked) = &self.journal.asked[number] else { return };
        let (seat, start, operation) = (asked.seat, asked.start, asked.operation.clone());
        let paused = self.group.as_ref().map_or(0, |group| group.is_paused_until(seat));
        if paused > self.truth {
            return self.at(paused, Step::JournalReads(number));
        }
        if self.processes[self.plan.leader() + seat].starts == start {
            self.with_group(|group| group.ask_member(seat, number, operation));
        }
    }

    /// The leader of a seat is started, and its member with it.
    pub(crate) fn start_member(&mut self, seat: usize) {
        self.with_group(|group| group.start_member(seat));
    }

    /// The leader that is looked at is killed, and its member with it.
    pub(crate) fn kill_member(&mut self) {
        let seat = self.seat;
        self.with_group(|group| group.kill_member(seat));
        self.sit(seat);
    }

    /// A process is paused: a leader's is a member's.
    pub(crate) fn pause_member(&mut self, process: usize, until: Truth) {
        if let Some(group) = &mut self.group
            && let Some(seat) = process.checked_sub(self.plan.leader())
        {
            group.pause_member(seat, until);
        }
    }

    /// Whether the process is a member's that is to run on.
    pub(crate) fn is_to_run_on(&self, process: usize) -> bool {
        let is_calm = self.group.as_ref().is_some_and(|group| group.is_calm(self.truth));
        is_calm && process >= self.plan.leader()
    }

    /// A member's process is no more: its leader was in it. It is started again with the member.
    fn member_is_killed(&mut self, seat: usize) {
        self.sit(seat);
        let process = self.process_of(Node::Leader);
        self.processes[process].paused_until = 0;
        self.processes[process].stall = None;
        self.processes[process].starts += 1;
        self.tally.members_killed += 1;
        if self.host.take().is_some() {
            note!(self, "leader {seat} is killed with its member");
            self.tally.restarts += 1;
            self.hang_up_on_all(self.reign);
        }
    }

    pub(crate) fn count_group(&mut self) {
        let Some(group) = &self.group else { return };
        let GroupTally { writes_lost, leads, snapshots, admitted, told_put_back, .. } =
            group.tally();
        self.tally.writes_lost += writes_lost;
        self.tally.log_leads += leads;
        self.tally.snapshots += snapshots;
        self.tally.disks_admitted += admitted;
        self.tally.disks_put_back += told_put_back;
    }

    /// At the end every member follows.
    pub(crate) fn judge_group(&mut self) {
        let Some(group) = &mut self.group else { return };
        if let Some(text) = group.judged().map(str::to_owned) {
            self.violate(Rule::Liveness, text);
        }
    }
}
