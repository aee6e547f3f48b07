//! A group that is the journal of leaders which another world plays: that world asks and is answered, and
//! hears what becomes of the members' processes, which are those of its leaders.
//!
//! What the group's journal truly says is told by its log: each entry, once, when the first member applies it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tierlock::{
    Time,
    proto::{
        group::{DiskId, GroupCommand, GroupEntry, GroupMachine, GroupWrite},
        journal::{JournalAnswer, JournalHead, JournalOperation},
        record::Recovered,
        reign::OperationId,
    },
};

use super::{GroupStep, GroupTally, GroupWorld, members::MemberProcess};
use crate::{
    clock::{Clock, MS, SECOND, Truth},
    dice::Dice,
};

/// What the world above hears of its group, in the order in which it happens.
pub(crate) enum GroupEvent {
    /// The first member applies this.
    Applied(GroupCommand),
    /// With that it has come to this head, and number of the last batch; and to these records, which are
    /// looked at as often as reigns change.
    Stands(JournalHead, u64, Option<Box<Recovered>>),
    /// What was asked by this number.
    Answered(usize, JournalAnswer),
    /// The process of this seat was killed, or was started.
    Crashed(usize),
    Started(usize),
    /// It does nothing until then.
    StandsStill(usize, Truth),
    /// Its leader does well to look at the journal.
    ReignChanged(usize),
    /// The operator has it hand over.
    IsToHandOver(usize),
}

/// What has asked a member, and is answered.
pub(super) enum GroupAsker {
    Reign(OperationId),
    Above(usize),
}

/// What is kept for the world above.
#[derive(Default)]
pub(super) struct GroupAbove {
    events: VecDeque<GroupEvent>,
    /// What each disk was told last to have at an index of the log.
    logs: BTreeMap<DiskId, BTreeMap<u64, GroupEntry>>,
}

impl GroupAbove {
    pub(super) fn note_write(&mut self, disk: DiskId, write: &GroupWrite) {
        let log = self.logs.entry(disk).or_default();
        let (after, entries) = match write {
            GroupWrite::Vote { .. } => return,
            GroupWrite::Entries { after, entries } => (*after, entries),
            GroupWrite::Whole(whole) => (whole.snapshot_place().index, &whole.entries),
        };
        log.extend((after + 1..).zip(entries.iter().cloned()));
    }
}

impl GroupWorld {
    /// The journal of as many leaders as there are clocks. Its members are to be started.
    pub(crate) fn for_leaders(
        seed: u64,
        telling: bool,
        lasts: Duration,
        clocks: &[Clock],
        trouble: Truth,
    ) -> GroupWorld {
        let count = clocks.len();
        let mut world = GroupWorld::of(seed, telling, Dice::new(seed), count);
        (world.lasts, world.above) = (lasts, Some(GroupAbove::default()));
        for clock in clocks {
            let mut seat = world.seat(count);
            seat.clock = *clock;
            world.seats.push(seat);
        }
        let first = world.dice.below(3 * SECOND);
        world.at(first, GroupStep::Trouble);
        world.at(500 * MS, GroupStep::Operator);
        world.at(trouble, GroupStep::Heals);
        world
    }

    /// When something happens next by itself.
    pub(crate) fn next_at(&self) -> Truth {
        self.steps.first_key_value().map_or(Truth::MAX, |((at, _), _)| *at)
    }

    /// Does that.
    pub(crate) fn step(&mut self) {
        if let Some(((truth, _), step)) = self.steps.pop_first() {
            self.truth = self.truth.max(truth);
            self.perform(step);
        }
    }

    /// Time goes on in the world above.
    pub(crate) fn is_now(&mut self, truth: Truth) {
        self.truth = self.truth.max(truth);
    }

    pub(crate) fn poll_event(&mut self) -> Option<GroupEvent> {
        self.above.as_mut()?.events.pop_front()
    }

    pub(crate) fn tally(&self) -> GroupTally {
        self.tally
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.rules.violation()
    }

    /// Judges the members, at the end of a world in which nothing has been broken for long.
    pub(crate) fn judged(&mut self) -> Option<&str> {
        self.judge_members();
        self.violation()
    }

    /// The process of this seat is started, if it does not run.
    pub(crate) fn start_member(&mut self, seat: usize) {
        self.starts(seat);
    }

    /// The process of this seat is killed, if it runs.
    pub(crate) fn kill_member(&mut self, seat: usize) {
        self.crash(seat);
    }

    /// The process of this seat does nothing until then.
    pub(crate) fn pause_member(&mut self, seat: usize, until: Truth) {
        let paused = &mut self.seats[seat].paused_until;
        *paused = (*paused).max(until);
    }

    /// Whether no member may be killed or paused: what one of them knows is needed.
    pub(crate) fn is_calm(&self, truth: Truth) -> bool {
        truth < self.calm_until
    }

    /// Until when it does nothing.
    pub(crate) fn is_paused_until(&self, seat: usize) -> Truth {
        self.seats[seat].paused_until
    }

    /// The leader of this seat asks the journal.
    pub(crate) fn ask_member(&mut self, seat: usize, number: usize, operation: JournalOperation) {
        let now = self.clock(seat);
        let write = self.rules.asked(&operation);
        let Some(process) = &mut self.seats[seat].process else { return };
        let ask = process.ask(operation, now);
        process.asked.insert(ask, (GroupAsker::Above(number), write));
        self.pump(seat);
    }

    pub(super) fn answer_above(
        &mut self,
        number: usize,
        answer: JournalAnswer,
        process: &mut MemberProcess,
        now: Time,
    ) {
        if answer == JournalAnswer::Resigned {
            // As production does: the member that takes the log's lead finds a journal without a reign.
            self.tally.transfers += 1;
            process.machine.handle_transfer(now);
        }
        self.tell_above(GroupEvent::Answered(number, answer));
    }

    pub(super) fn tell_above(&mut self, event: GroupEvent) {
        if let Some(above) = &mut self.above {
            above.events.push_back(event);
        }
    }

    /// This member is the first to have applied what stands behind `before`.
    pub(super) fn tell_applied(&mut self, at: usize, before: u64, machine: &GroupMachine) {
        let Some(above) = &mut self.above else { return };
        let (applied, disk) = (machine.applied().index, self.seats[at].disk.id);
        let mut is_new = false;
        for index in before + 1..=applied {
            match above.logs.get(&disk).and_then(|log| log.get(&index)) {
                Some(GroupEntry::Command(command)) => {
                    is_new |= matches!(command, GroupCommand::TakeOver(_));
                    above.events.push_back(GroupEvent::Applied(command.clone()));
                }
                Some(_) => {}
                None => {
                    let text =
                        format!("{at} has applied {index}, and its disk was never told of it");
                    return self.rules.violate(text);
                }
            }
        }
        above.logs.values_mut().for_each(|log| *log = log.split_off(&(applied + 1)));
        if let Some(state) = machine.state() {
            let records = is_new.then(|| Box::new(state.recovered().clone()));
            let stands = GroupEvent::Stands(state.head(), state.number(), records);
            above.events.push_back(stands);
        }
    }
}
