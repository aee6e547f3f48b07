//! Groups on a network and on disks that do what a test says.

use std::{collections::VecDeque, sync::Arc};

use super::*;
use crate::proto::{
    ReignId,
    journal::{Appended, JournalTrouble, ReignAttempt, ReignKey, ReignRenewal, Stamp, TakeOver},
    record::Record,
};

/// Members on one clock.
struct Table {
    seats: Vec<TableSeat>,
    now: Time,
    asks: u64,
    answers: Vec<(AskId, AskAnswer)>,
    /// What is lost between two seats, in this direction.
    cuts: Vec<(usize, usize)>,
    on_way: VecDeque<(usize, usize, GroupFrame)>,
}

struct TableSeat {
    machine: Option<GroupMachine>,
    config: GroupConfig,
    disk: StoredGroup,
    unsynced: VecDeque<(WriteId, GroupWrite)>,
    /// Its writes become durable at once.
    syncs: bool,
    notices: Vec<GroupNotice>,
}

const MS: Duration = Duration::from_millis(1);

impl Table {
    fn new(count: usize) -> Table {
        let names: Vec<MemberName> = (0..count).map(name).collect();
        let seat = |at: usize| {
            let disk = DiskId(at as u128 + 1);
            let mut config = GroupConfig::new(name(at), disk, names.clone());
            (config.init, config.seed, config.cluster) = (true, at as u64, ClusterId(7));
            TableSeat {
                machine: Some(GroupMachine::new(config.clone(), None, Time::ZERO)),
                config,
                disk: StoredGroup::default(),
                unsynced: VecDeque::new(),
                syncs: true,
                notices: Vec::new(),
            }
        };
        Table {
            seats: (0..count).map(seat).collect(),
            now: Time::ZERO,
            asks: 0,
            answers: Vec::new(),
            cuts: Vec::new(),
            on_way: VecDeque::new(),
        }
    }

    /// A group that is made, with a leader.
    fn made(count: usize) -> Table {
        let mut table = Table::new(count);
        table.run_until(|table| table.leader().is_some(), 2000);
        table
    }

    fn leader(&self) -> Option<usize> {
        let leads = |seat: &TableSeat| seat.machine.as_ref().is_some_and(GroupMachine::is_leading);
        self.seats.iter().position(leads)
    }

    fn machine(&mut self, seat: usize) -> &mut GroupMachine {
        self.seats[seat].machine.as_mut().expect("it runs")
    }

    /// Lets time pass, a millisecond at a time.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + MS;
            for seat in 0..self.seats.len() {
                let now = self.now;
                if let Some(machine) = &mut self.seats[seat].machine
                    && machine.poll_timeout().is_some_and(|at| at <= now)
                {
                    machine.handle_timeout(now);
                }
                self.obey(seat);
            }
            for _ in 0..self.on_way.len() {
                let (from, to, frame) = self.on_way.pop_front().expect("counted");
                let frame = GroupFrame::decode(&frame.encode()).unwrap();
                if let Some(machine) = &mut self.seats[to].machine {
                    machine.handle_frame(&name(from), frame, self.now);
                    self.obey(to);
                }
            }
        }
    }

    fn run_until(&mut self, is_so: impl Fn(&mut Table) -> bool, millis: u64) {
        for _ in 0..millis {
            if is_so(self) {
                return;
            }
            self.run(1);
        }
        let standings: Vec<_> = self
            .seats
            .iter()
            .map(|seat| seat.machine.as_ref().map(GroupMachine::standing))
            .collect();
        panic!("not within {millis} ms: {standings:#?}");
    }

    fn obey(&mut self, at: usize) {
        let now = self.now;
        let seat = &mut self.seats[at];
        let Some(machine) = &mut seat.machine else { return };
        while let Some(write) = machine.poll_write() {
            seat.unsynced.push_back(write);
        }
        if seat.syncs && !seat.unsynced.is_empty() {
            let last = seat.unsynced.back().expect("just seen").0;
            for (_, write) in seat.unsynced.drain(..) {
                let write = GroupWrite::decode(&write.encode()).unwrap();
                seat.disk.remember(write).unwrap();
            }
            machine.handle_stored(last, now);
        }
        while let Some(write) = machine.poll_write() {
            seat.unsynced.push_back(write);
        }
        while let Some((to, frame)) = machine.poll_frame() {
            let to = (0..5).find(|seat| name(*seat) == to).unwrap();
            if !self.cuts.contains(&(at, to)) {
                self.on_way.push_back((at, to, frame));
            }
        }
        seat.notices.extend(std::iter::from_fn(|| machine.poll_notice()));
        self.answers.extend(std::iter::from_fn(|| machine.poll_answer()));
    }

    fn cut_both(&mut self, one: usize, other: usize) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    fn isolate(&mut self, seat: usize) {
        (0..self.seats.len())
            .filter(|other| *other != seat)
            .for_each(|other| self.cut_both(seat, other));
    }

    /// The process is killed: what its disk has not confirmed is lost.
    fn kill(&mut self, seat: usize) {
        self.seats[seat].machine = None;
        self.seats[seat].unsynced.clear();
    }

    fn start(&mut self, seat: usize) {
        let TableSeat { config, disk, machine, .. } = &mut self.seats[seat];
        let stored = (*disk != StoredGroup::default()).then(|| disk.clone());
        *machine = Some(GroupMachine::new(config.clone(), stored, self.now));
    }

    /// A new disk takes the place of the seat's.
    fn empty_disk(&mut self, seat: usize, disk: u128) {
        self.kill(seat);
        self.seats[seat].disk = StoredGroup::default();
        self.seats[seat].config.disk = DiskId(disk);
        self.start(seat);
    }

    /// Asks a member, and waits for the answer.
    fn ask(&mut self, seat: usize, operation: JournalOperation) -> JournalAnswer {
        let ask = self.begin(seat, operation);
        match self.answer(ask) {
            AskAnswer::Journal(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self, seat: usize, operation: JournalOperation) -> AskId {
        self.asks += 1;
        let (ask, now) = (AskId(self.asks), self.now);
        self.machine(seat).handle_operation(ask, operation, now);
        self.obey(seat);
        ask
    }

    fn answer(&mut self, ask: AskId) -> AskAnswer {
        self.run_until(|table| table.answers.iter().any(|(its, _)| *its == ask), 2000);
        let at = self.answers.iter().position(|(its, _)| *its == ask).expect("just seen");
        self.answers.remove(at).1
    }

    fn take_over(&mut self, seat: usize, reign: u128) -> TakeOver {
        let JournalAnswer::Head(head) = self.ask(seat, JournalOperation::Read) else { panic!() };
        let lasts = Duration::from_millis(400);
        let attempt = ReignAttempt::after(&head, ReignKey(reign), lasts, None, None).unwrap();
        match self.ask(seat, JournalOperation::TakeOver(Arc::new(attempt))) {
            JournalAnswer::TakeOver(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn replace(&mut self, at: usize, member: usize) -> GroupAnswer {
        self.asks += 1;
        let (ask, now) = (AskId(self.asks), self.now);
        self.machine(at).handle_replace(ask, name(member), now);
        self.obey(at);
        match self.answer(ask) {
            AskAnswer::Group(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn was_told(&self, seat: usize, is_it: impl Fn(&GroupNotice) -> bool) -> bool {
        self.seats[seat].notices.iter().any(is_it)
    }
}

fn name(seat: usize) -> MemberName {
    MemberName::new(["a", "b", "c", "d", "e"][seat])
}

fn append(reign: u128, number: u64) -> JournalOperation {
    JournalOperation::Append { reign: ReignKey(reign), number, records: [Record::Waited].into() }
}

fn is_unknown(answer: &JournalAnswer) -> bool {
    matches!(answer, JournalAnswer::Trouble(JournalTrouble::Unknown(_)))
}

#[test]
fn three_members_make_a_group_once_all_have_met_and_keep_a_journal() {
    let mut table = Table::new(3);
    table.kill(2);
    table.run(1000);
    assert_eq!(table.leader(), None);
    assert!(is_unknown(&table.ask(0, JournalOperation::Read)));
    table.start(2);
    table.run_until(|table| table.leader().is_some(), 1000);
    let leader = table.leader().unwrap();
    let TakeOver::Took(took) = table.take_over(leader, 5) else { panic!() };
    assert_eq!((took.stamp, took.before.epoch), (Stamp(1), 0));
    let renewed = JournalAnswer::Renewal(ReignRenewal::Renewed(Stamp(2)));
    assert_eq!(table.ask(leader, JournalOperation::Renew(ReignKey(5))), renewed);
    let appended = table.ask(leader, append(5, 1));
    assert!(matches!(appended, JournalAnswer::Appended(Appended::Committed(Stamp(3), _))));
    // Its answer was lost: it writes nothing.
    assert_eq!(table.ask(leader, append(5, 1)), appended);
    let jumped = table.ask(leader, append(5, 3));
    assert!(matches!(jumped, JournalAnswer::Appended(Appended::Deposed(_))));
    table.run(100);
    for seat in 0..3 {
        let JournalAnswer::Head(head) = table.ask(seat, JournalOperation::Read) else { panic!() };
        let epoch = head.epoch;
        assert_eq!(
            (head.cluster, head.reign, head.stamp, epoch),
            (ClusterId(7), Some(ReignKey(5)), Stamp(3), 1)
        );
        let history: Vec<_> =
            table.machine(seat).state().unwrap().recovered().history.reigns().collect();
        assert_eq!(history, [(1, ReignId(5))]);
    }
    let other = (leader + 1) % 3;
    assert!(is_unknown(&table.ask(other, JournalOperation::Renew(ReignKey(5)))));
}

#[test]
fn the_log_survives_its_leader_and_a_stop_of_all() {
    let mut table = Table::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.kill(leader);
    table.run_until(|table| table.leader().is_some(), 1000);
    let next = table.leader().unwrap();
    let TakeOver::Took(took) = table.take_over(next, 6) else { panic!() };
    assert_eq!(took.before.epoch, 1);
    (0..3).for_each(|seat| table.kill(seat));
    (0..3).for_each(|seat| table.start(seat));
    table.run_until(|table| table.leader().is_some(), 1000);
    let last = table.leader().unwrap();
    let TakeOver::Took(took) = table.take_over(last, 7) else { panic!() };
    assert_eq!(took.before.epoch, 2);
}
