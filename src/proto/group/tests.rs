//! Groups on a network and on disks that do what a test says.

use std::{collections::VecDeque, sync::Arc};

use super::*;
use crate::proto::{
    ReignId,
    journal::{Appended, JournalTrouble, ReignAttempt, ReignKey, ReignRenewal, Stamp, TakeOver},
    record::Record,
};

/// Members on one clock.
struct TriedGroup {
    seats: Vec<TriedSeat>,
    now: Time,
    asks: u64,
    answers: Vec<(AskId, AskAnswer)>,
    /// What is lost between two seats, in this direction.
    cuts: Vec<(usize, usize)>,
    on_way: VecDeque<(usize, usize, GroupFrame)>,
}

struct TriedSeat {
    machine: Option<GroupMachine>,
    config: GroupConfig,
    disk: StoredGroup,
    unsynced: VecDeque<(WriteId, GroupWrite)>,
    /// Its writes become durable at once.
    syncs: bool,
    notices: Vec<GroupNotice>,
}

const MS: Duration = Duration::from_millis(1);
const REIGN: Duration = Duration::from_millis(400);

impl TriedGroup {
    fn new(count: usize) -> TriedGroup {
        let names: Vec<MemberName> = (0..count).map(name).collect();
        let seat = |at: usize| {
            let disk = DiskId(at as u128 + 1);
            let mut config = GroupConfig::new(name(at), disk, names.clone(), REIGN);
            (config.init, config.seed, config.cluster) = (true, at as u64, ClusterId(7));
            TriedSeat {
                machine: Some(GroupMachine::new(config.clone(), None, Time::ZERO)),
                config,
                disk: StoredGroup::default(),
                unsynced: VecDeque::new(),
                syncs: true,
                notices: Vec::new(),
            }
        };
        TriedGroup {
            seats: (0..count).map(seat).collect(),
            now: Time::ZERO,
            asks: 0,
            answers: Vec::new(),
            cuts: Vec::new(),
            on_way: VecDeque::new(),
        }
    }

    /// A group that is made, with a leader.
    fn made(count: usize) -> TriedGroup {
        let mut table = TriedGroup::new(count);
        table.run_until(|table| table.leader().is_some(), 2000);
        table
    }

    fn leader(&self) -> Option<usize> {
        let leads = |seat: &TriedSeat| seat.machine.as_ref().is_some_and(GroupMachine::is_leading);
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
                let frame = GroupFrame::decode(&frame.encode()).unwrap().unwrap();
                if let Some(machine) = &mut self.seats[to].machine {
                    machine.handle_frame(&name(from), frame, self.now);
                    self.obey(to);
                }
            }
        }
    }

    fn run_until(&mut self, is_so: impl Fn(&mut TriedGroup) -> bool, millis: u64) {
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

    /// A member hears this of another one's disk just now.
    fn hand(&mut self, from: usize, to: usize, body: GroupBody) {
        let [sender, hearer] = [from, to].map(|seat| self.seats[seat].config.disk);
        let cluster = Some(ClusterId(7));
        let frame = GroupFrame { cluster, from: sender, to: Some(hearer), is_low: false, body };
        let now = self.now;
        self.machine(to).handle_frame(&name(from), frame, now);
    }

    /// The process is killed: what its disk has not confirmed is lost.
    fn kill(&mut self, seat: usize) {
        self.seats[seat].machine = None;
        self.seats[seat].unsynced.clear();
    }

    fn start(&mut self, seat: usize) {
        let TriedSeat { config, disk, machine, .. } = &mut self.seats[seat];
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
        let attempt = ReignAttempt::after(&head, ReignKey(reign), REIGN, None, None).unwrap();
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

    /// Waits for a member that leads the log: which one.
    fn next_leader(&mut self, millis: u64) -> usize {
        self.run_until(|table| table.leader().is_some(), millis);
        self.leader().unwrap()
    }

    /// Takes over the journal, which is in this epoch.
    fn follow(&mut self, seat: usize, reign: u128, epoch: u32) {
        let TakeOver::Took(took) = self.take_over(seat, reign) else { panic!() };
        assert_eq!(took.before.epoch, epoch);
    }

    /// Has the new disk of a member admitted, until it has a vote.
    fn admit(&mut self, leader: usize, member: usize, disk: u128) {
        let disk = DiskId(disk);
        assert_eq!(self.replace(leader, member), GroupAnswer::Replaced { disk });
        let admitted = GroupNotice::Admitted { member: name(member), disk };
        self.run_until(|table| table.was_told(leader, |notice| *notice == admitted), 1000);
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
    let mut table = TriedGroup::new(3);
    table.kill(2);
    table.run(1000);
    assert_eq!(table.leader(), None);
    assert!(is_unknown(&table.ask(0, JournalOperation::Read)));
    table.start(2);
    let leader = table.next_leader(1000);
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

/// It may lose its first entry, and then it makes a group of another name.
#[test]
fn a_member_says_nothing_as_one_of_a_group_before_its_disk_has_that() {
    let mut table = TriedGroup::new(3);
    table.seats[0].syncs = false;
    table.run_until(|table| !table.machine(0).is_empty(), 1000);
    table.hand(1, 0, GroupBody::AskConfirmed);
    assert_eq!(table.machine(0).poll_frame(), None);
    table.kill(0);
    table.seats[0].config.cluster = ClusterId(8);
    table.seats[0].syncs = true;
    table.start(0);
    table.next_leader(3000);
    for seat in 0..3 {
        assert_eq!(table.machine(seat).cluster(), Some(ClusterId(8)));
        let is_other = |notice: &GroupNotice| matches!(notice, GroupNotice::OtherCluster { .. });
        assert!(!table.was_told(seat, is_other));
    }
}

#[test]
fn the_log_survives_its_leader_and_a_stop_of_all() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.kill(leader);
    let next = table.next_leader(1000);
    table.follow(next, 6, 1);
    (0..3).for_each(|seat| table.kill(seat));
    (0..3).for_each(|seat| table.start(seat));
    let last = table.next_leader(1000);
    table.follow(last, 7, 2);
}

#[test]
fn a_member_that_was_away_follows_again() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let away = (leader + 1) % 3;
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.kill(away);
    (1..=50).for_each(|number| drop(table.ask(leader, append(5, number))));
    table.start(away);
    table.run_until(|table| table.machine(away).state().map(GroupState::number) == Some(50), 300);
    assert_eq!(table.leader(), Some(leader));
}

/// Only the state is left of what it lacks, in several pieces.
#[test]
fn a_member_that_was_away_for_long_gets_the_state_in_pieces() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let away = (leader + 1) % 3;
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.kill(away);
    for number in 1..=40 {
        let records =
            (0..100).map(|part| reserved(&format!("{}{number}/{part}", "long/".repeat(12))));
        let (reign, records) = (ReignKey(5), records.collect());
        let appended = table.ask(leader, JournalOperation::Append { reign, number, records });
        assert!(matches!(appended, JournalAnswer::Appended(Appended::Committed(..))));
    }
    assert!(table.seats[leader].disk.snapshot.is_some(), "its disk has begun anew");
    for _ in 0..600 {
        table.ask(leader, JournalOperation::Renew(ReignKey(5)));
    }
    table.start(away);
    let state = table.machine(leader).state().cloned();
    table.run_until(|table| table.machine(away).state().cloned() == state, 2000);
    assert_eq!(table.leader(), Some(leader), "the heartbeats went on beside it");
    table.run(100);
    // It has it on its disk, but for what has come since.
    table.kill(away);
    table.start(away);
    let records = |state: Option<&GroupState>| state.map(|state| state.recovered().clone());
    assert_eq!(records(table.machine(away).state()), records(state.as_ref()));
}

fn reserved(name: &str) -> Record {
    let reservation = crate::proto::record::Reservation {
        token: crate::Token::new(1).unwrap(),
        session: crate::proto::SessionId(1),
        request: crate::proto::RequestId(1),
        at_least: Duration::from_secs(1),
        left: Duration::from_secs(1),
    };
    Record::Reserved { name: crate::Name::new(name).unwrap(), reservation }
}

/// A lease that heartbeats keep is none here: what proves a reign is a renewal that is on disks.
#[test]
fn a_leader_whose_disk_does_not_write_proves_nothing_and_another_leads_the_log() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.seats[leader].syncs = false;
    let ask = table.begin(leader, JournalOperation::Renew(ReignKey(5)));
    table.run(600);
    assert_eq!(table.leader(), Some(leader), "its heartbeats are answered");
    assert!(table.answers.is_empty(), "and nothing that it was asked");
    assert!(matches!(table.answer(ask), AskAnswer::Journal(answer) if is_unknown(&answer)));
    table.run_until(|table| table.leader().is_some_and(|now| now != leader), 1500);
    let next = table.leader().unwrap();
    table.follow(next, 6, 1);
    // Its disk writes again: it follows.
    table.seats[leader].syncs = true;
    table.run(300);
    assert_eq!(table.leader(), Some(next));
    assert_eq!(table.machine(leader).head().unwrap().reign, Some(ReignKey(6)));
}

/// A leader is heard by all, and hears too few; of five one still reaches it, the bridge of two halves. How
/// long it takes until another leads.
fn time_until_another_leads(count: usize) -> Duration {
    let mut table = TriedGroup::made(count);
    let leader = table.leader().unwrap();
    let TakeOver::Took(_) = table.take_over(leader, 5) else { panic!() };
    let others: Vec<usize> = (0..count).filter(|seat| *seat != leader).collect();
    table.cuts = others[count / 4..].iter().map(|other| (*other, leader)).collect();
    table.begin(leader, JournalOperation::Renew(ReignKey(5)));
    let begin = table.now;
    table.run_until(|table| table.leader().is_some_and(|now| now != leader), 4000);
    let next = table.leader().unwrap();
    assert!(matches!(table.take_over(next, 6), TakeOver::Took(_)));
    table.now.since(begin)
}

#[test]
fn a_leader_that_a_majority_does_not_answer_is_quiet_and_another_is_elected() {
    for count in [3, 5] {
        let took = time_until_another_leads(count);
        assert!(took < Duration::from_millis(1100), "{took:?}");
    }
}

/// A member is cut off from the leader alone, or for a while from all, and comes back: whether the leader
/// leads on in its term.
fn a_term_lasts(cut: impl Fn(&mut TriedGroup, usize, usize)) -> bool {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let term = table.machine(leader).standing().term;
    cut(&mut table, leader, (leader + 1) % 3);
    table.leader() == Some(leader) && table.machine(leader).standing().term == term
}

fn cut_from_leader(table: &mut TriedGroup, leader: usize, one: usize) {
    table.cut_both(leader, one);
    table.run(2000);
}

fn cut_from_all_for_a_while(table: &mut TriedGroup, _: usize, one: usize) {
    table.isolate(one);
    table.run(3000);
    assert!(table.was_told(one, |notice| *notice == GroupNotice::Leaderless));
    table.cuts.clear();
    table.run(1000);
}

#[test]
fn a_member_that_hears_its_leader_votes_for_no_other() {
    assert!(a_term_lasts(cut_from_leader));
}

#[test]
fn a_member_that_comes_back_from_a_cut_does_not_end_the_term() {
    assert!(a_term_lasts(cut_from_all_for_a_while));
}

/// What the simulator does not find, since other rules make up for it in the end.
#[cfg(feature = "mistakes")]
#[test]
fn planted_mistakes_that_only_cost_time_or_are_rare_are_found() {
    use crate::mistake::{Mistake, plant};
    plant(&[Mistake::NoQuietRule]);
    assert!(time_until_another_leads(5) > Duration::from_millis(1200));
    plant(&[Mistake::NotSticky]);
    assert!(!a_term_lasts(cut_from_leader));
    plant(&[Mistake::NoPreVote]);
    assert!(!a_term_lasts(cut_from_all_for_a_while));
    plant(&[Mistake::PutBackDiskVotes]);
    assert!(a_disk_put_back_elects_a_member_that_lacks_what_it_has_confirmed());
    plant(&[Mistake::UncommittedUntold]);
    assert!(!is_told_of_what_is_not_committed());
    plant(&[Mistake::LowDiskToldOnce]);
    assert!(!low_leader_is_followed());
    assert!(low_member_is_elected());
    plant(&[]);
}

#[test]
fn a_quiet_leader_leads_on_when_a_majority_answers_again() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    table.isolate(leader);
    // The others could elect one of them, but they do not run.
    (0..3).filter(|seat| *seat != leader).for_each(|seat| table.kill(seat));
    table.run(1000);
    assert_eq!(table.leader(), None);
    assert!(is_unknown(&table.ask(leader, JournalOperation::Renew(ReignKey(5)))));
    table.cuts.clear();
    table.start((leader + 1) % 3);
    table.run_until(|table| table.leader().is_some(), 1000);
}

#[test]
fn the_lead_is_handed_over_at_once() {
    let mut table = TriedGroup::made(5);
    let leader = table.leader().unwrap();
    let now = table.now;
    table.machine(leader).handle_transfer(now);
    table.obey(leader);
    table.run_until(|table| table.leader().is_some_and(|now| now != leader), 20);
}

#[test]
fn a_leader_whose_port_refuses_is_followed_sooner() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    table.run(60);
    table.kill(leader);
    let (killed, now) = (table.now, table.now);
    for seat in (0..3).filter(|seat| *seat != leader) {
        table.machine(seat).handle_peer(&name(leader), false, now);
    }
    table.run_until(|table| table.leader().is_some_and(|now| now != leader), 150);
    assert!(table.now.since(killed) <= Duration::from_millis(150));
}

#[test]
fn nothing_that_depends_on_a_vote_leaves_before_it_is_stored() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    for seat in &mut table.seats {
        seat.syncs = false;
    }
    table.kill(leader);
    table.run(2000);
    assert_eq!(table.leader(), None, "no vote is on a disk");
    for seat in &mut table.seats {
        seat.syncs = true;
    }
    table.run_until(|table| table.leader().is_some(), 1500);
}

#[test]
fn an_emptied_disk_has_no_vote_and_waits_until_it_replaces_the_old_one() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.empty_disk(one, 99);
    let waits = GroupNotice::OwnDiskWaits { cluster: ClusterId(7) };
    table.run_until(|table| table.was_told(one, |notice| *notice == waits), 1000);
    assert!(table.machine(one).standing().own_disk_waits);
    let waiting = GroupNotice::DiskWaits { member: name(one), disk: DiskId(99) };
    assert!(table.was_told(leader, |notice| *notice == waiting));
    // With it there are two, and without its vote only one.
    table.kill(leader);
    table.run(2000);
    assert_eq!(table.leader(), None);
    assert!(matches!(
        table.replace(other, one),
        GroupAnswer::Refused(ReplaceRefusal::NotLeading(_))
    ));
    table.start(leader);
    let leader = table.next_leader(1500);
    let no_disk = GroupAnswer::Refused(ReplaceRefusal::NoDiskWaits);
    assert_eq!(table.replace(leader, leader), no_disk);
    table.run(500);
    table.admit(leader, one, 99);
    assert!(!table.machine(one).standing().own_disk_waits);
    // Now it votes: without one of the old ones the group goes on.
    table.kill(leader);
    let last = table.next_leader(1500);
    table.follow(last, 6, 1);
}

#[test]
fn a_disk_that_was_replaced_is_told_so_when_it_returns() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    let (disk, id) = (table.seats[one].disk.clone(), table.seats[one].config.disk);
    table.empty_disk(one, 99);
    table.run(500);
    table.admit(leader, one, 99);
    table.kill(one);
    table.seats[one].disk = disk;
    table.seats[one].config.disk = id;
    table.start(one);
    let waits = GroupNotice::OwnDiskWaits { cluster: ClusterId(7) };
    table.run_until(|table| table.was_told(one, |notice| *notice == waits), 1000);
    assert_eq!(table.leader(), Some(leader));
}

#[test]
fn a_disk_of_another_member_takes_no_part() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    table.kill(one);
    table.kill(other);
    table.seats[one].disk = table.seats[other].disk.clone();
    table.seats[one].config.disk = table.seats[other].config.disk;
    table.start(one);
    table.run(1500);
    let moved = GroupNotice::DiskOfAnother { member: name(other) };
    assert!(table.was_told(one, |notice| *notice == moved));
    assert_eq!(table.leader(), None);
}

#[test]
fn members_of_two_groups_tell_each_other_apart() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    let mut strange = TriedGroup::new(3);
    strange.seats.iter_mut().enumerate().for_each(|(at, seat)| {
        seat.config.cluster = ClusterId(8);
        seat.config.disk = DiskId(at as u128 + 11);
        seat.machine = Some(GroupMachine::new(seat.config.clone(), None, Time::ZERO));
    });
    strange.run_until(|table| table.leader().is_some(), 2000);
    table.kill(one);
    table.seats[one].disk = strange.seats[one].disk.clone();
    table.seats[one].config.disk = strange.seats[one].config.disk;
    table.start(one);
    table.run(1000);
    assert_eq!(table.leader(), Some(leader));
    let other = |notice: &GroupNotice| matches!(notice, GroupNotice::OtherCluster { .. });
    assert!(table.was_told(leader, other) || table.was_told(one, other));
}

#[test]
fn a_command_in_flight_when_the_lead_is_lost_is_unknown_and_may_still_be_written() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    // Its entries arrive, and the answers do not.
    table.cuts = (0..3).filter(|seat| *seat != leader).map(|other| (other, leader)).collect();
    let ask = table.begin(leader, append(5, 1));
    table.run(20);
    table.isolate(leader);
    table.run_until(|table| table.leader().is_some_and(|now| now != leader), 2000);
    table.cuts.clear();
    assert!(matches!(table.answer(ask), AskAnswer::Journal(answer) if is_unknown(&answer)));
    let next = table.leader().unwrap();
    // The reign goes on there: its batch of that number is committed already.
    let appended = table.ask(next, append(5, 1));
    assert!(matches!(appended, JournalAnswer::Appended(Appended::Committed(Stamp(2), _))));
}

/// A member leads before it knows that the reign's last renewal is committed, and attempts to follow what it
/// has read: whether the attempt is answered as raced.
fn attempt_on_a_stale_head_is_raced() -> bool {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(20);
    // The renewal arrives at the others, and that it is committed does not.
    table.begin(leader, JournalOperation::Renew(ReignKey(5)));
    table.cuts = (0..3).filter(|seat| *seat != leader).map(|other| (other, leader)).collect();
    table.run(1);
    table.kill(leader);
    let writes = |table: &TriedGroup| {
        let mut seats = table.seats.iter();
        seats.position(|seat| seat.machine.as_ref().is_some_and(|its| its.writes().is_ok()))
    };
    table.run_until(|table| writes(table).is_some(), 1500);
    let next = writes(&table).unwrap();
    match table.take_over(next, 6) {
        TakeOver::Raced(head) => {
            assert_eq!((head.reign, head.stamp), (Some(ReignKey(5)), Stamp(2)));
            true
        }
        TakeOver::Took(_) => false,
    }
}

#[test]
fn the_condition_of_a_take_over_is_evaluated_when_it_is_applied() {
    assert!(attempt_on_a_stale_head_is_raced());
}

#[cfg(feature = "mistakes")]
#[test]
fn a_condition_that_is_evaluated_when_it_is_proposed_is_found() {
    use crate::mistake::{Mistake, plant};
    plant(&[Mistake::ConditionAtProposal]);
    let is_raced = attempt_on_a_stale_head_is_raced();
    plant(&[]);
    assert!(!is_raced);
}

#[test]
fn every_frame_of_a_long_log_has_room() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    let away = (leader + 1) % 3;
    table.isolate(away);
    for number in 1..=8 {
        let records = (0..GROUP_TERMS.batch_max).map(|part| {
            reserved(&format!("{}{number}/{part}", "l".repeat(crate::Name::MAX_BYTES - 8)))
        });
        let (reign, records) = (ReignKey(5), records.collect());
        let appended = table.ask(leader, JournalOperation::Append { reign, number, records });
        assert!(matches!(appended, JournalAnswer::Appended(Appended::Committed(..))), "{number}");
    }
    table.cuts.clear();
    // Each frame is read as it would be from the wire, which refuses one that is too long.
    table.run_until(|table| table.machine(away).state().map(GroupState::number) == Some(8), 1000);
}

/// One of the others has it, and its own disk does not: that is no majority, whatever it becomes.
#[test]
fn a_leader_that_leads_no_more_does_not_apply_what_its_disk_does_not_have() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    table.isolate(other);
    table.seats[leader].syncs = false;
    table.begin(leader, JournalOperation::Renew(ReignKey(5)));
    table.run(10);
    assert_eq!(table.machine(leader).head().unwrap().stamp, Stamp(1));
    let term = table.machine(leader).standing().term + 1;
    let (last, from) = (table.machine(leader).raft.last(), table.seats[one].config.disk);
    let (to, now) = (Some(table.seats[leader].config.disk), table.now);
    let body = GroupBody::Appended { term, last };
    let frame = GroupFrame { cluster: Some(ClusterId(7)), from, to, is_low: false, body };
    table.machine(leader).handle_frame(&name(one), frame, now);
    assert!(!table.machine(leader).raft.is_leader());
    assert_eq!(table.machine(leader).head().unwrap().stamp, Stamp(1));
}

#[test]
fn a_disk_that_was_put_in_by_mistake_and_taken_out_again_replaces_nothing() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    let (disk, id) = (table.seats[one].disk.clone(), table.seats[one].config.disk);
    table.empty_disk(one, 99);
    table.run(500);
    assert_eq!(table.machine(leader).standing().members[one].waiting_disk, Some(DiskId(99)));
    table.kill(one);
    (table.seats[one].disk, table.seats[one].config.disk) = (disk, id);
    table.start(one);
    table.run(300);
    assert_eq!(table.machine(leader).standing().members[one].waiting_disk, None);
    let no_disk = GroupAnswer::Refused(ReplaceRefusal::NoDiskWaits);
    assert_eq!(table.replace(leader, one), no_disk);
}

#[test]
fn a_disk_that_was_admitted_by_an_entry_that_is_lost_waits_again() {
    let mut table = TriedGroup::made(5);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 5;
    let waits = |table: &mut TriedGroup, leader: usize| {
        table.machine(leader).standing().members[one].waiting_disk == Some(DiskId(99))
    };
    table.empty_disk(one, 99);
    table.run_until(|table| waits(table, leader), 500);
    // The entry comes to the new disk alone.
    (2..5).for_each(|behind| table.cut_both(leader, (leader + behind) % 5));
    let now = table.now;
    table.machine(leader).handle_replace(AskId(1000), name(one), now);
    table.obey(leader);
    let is_admitted = |table: &mut TriedGroup| {
        let members = table.machine(one).raft.members();
        members.is_some_and(|members| members.seat_of(DiskId(99)).is_some())
    };
    table.run_until(is_admitted, 100);
    table.kill(leader);
    table.cuts.clear();
    let next = table.next_leader(2000);
    // What it said before it was admitted counts no more.
    table.run(3000);
    assert!(waits(&mut table, next));
    table.admit(next, one, 99);
}

#[test]
fn a_disk_that_is_lost_while_the_group_is_made_is_replaced() {
    let mut table = TriedGroup::new(3);
    table.run_until(|table| !table.machine(0).is_empty(), 1000);
    // The third has not got the log.
    table.empty_disk(2, 99);
    table.run(1500);
    assert_eq!(table.leader(), None, "the journal is not used before every disk has the log");
    let leads = |seat: &TriedSeat| seat.machine.as_ref().is_some_and(GroupMachine::can_lead);
    let leader = table.seats.iter().position(leads).unwrap();
    assert_eq!(table.replace(leader, 2), GroupAnswer::Replaced { disk: DiskId(99) });
    table.run_until(|table| table.leader().is_some(), 1000);
}

#[test]
fn before_there_is_a_log_no_disk_is_replaced_and_no_member_that_was_not_met_counts() {
    let mut table = TriedGroup::new(3);
    table.kill(2);
    table.run(1000);
    let not_made = GroupAnswer::Refused(ReplaceRefusal::NotMade);
    assert_eq!((table.replace(0, 2), table.replace(0, 1)), (not_made.clone(), not_made));
    let standing = table.machine(0).standing();
    assert!(!standing.is_made && standing.leader.is_none() && !standing.own_disk_waits);
    let heard: Vec<bool> = standing.members.iter().map(|member| member.is_heard).collect();
    assert_eq!(heard, [true, true, false]);
    // A member that was met and is gone counts for as long as its hello.
    table.kill(1);
    table.run(2500);
    table.start(2);
    table.run(1500);
    assert!((0..3).filter(|seat| *seat != 1).all(|seat| table.machine(seat).is_empty()));
    table.start(1);
    table.next_leader(1000);
}

#[test]
fn a_frame_of_a_term_that_no_group_comes_to_changes_nothing() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let (from, to) = (table.seats[(leader + 1) % 3].config.disk, table.seats[leader].config.disk);
    let (last, now) = (LogPlace { term: u64::MAX, index: 5 }, table.now);
    let body = GroupBody::AskVote { term: u64::MAX, last, is_transfer: true };
    let frame = GroupFrame { cluster: Some(ClusterId(7)), from, to: Some(to), is_low: false, body };
    table.machine(leader).handle_frame(&name((leader + 1) % 3), frame, now);
    table.run(300);
    assert_eq!(table.leader(), Some(leader));
}

/// Leader, a member that it reaches, the other one, which it does not reach; and the disk of the first member then.
fn cut_to_a_bare_majority() -> (TriedGroup, [usize; 3], StoredGroup) {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(100);
    let before = table.seats[one].disk.clone();
    table.cut_both(leader, other);
    (table, [leader, one, other], before)
}

/// A member that the leader reaches and another does not, and its disk as it was before the reign's last
/// writes: leader, that member, the other one.
fn put_back_by_some_writes() -> (TriedGroup, usize, usize, usize) {
    let (mut table, [leader, one, other], before) = cut_to_a_bare_majority();
    (1..=3).for_each(|number| drop(table.ask(leader, append(5, number))));
    table.run(20);
    table.kill(one);
    table.seats[one].disk = before;
    (table, leader, one, other)
}

/// Whether what the leader has committed is lost by the vote of a disk that was put back.
fn a_disk_put_back_elects_a_member_that_lacks_what_it_has_confirmed() -> bool {
    let (mut table, leader, one, other) = put_back_by_some_writes();
    table.start(one);
    // Its first question reaches the leader, and the leader's heartbeats not yet the disk.
    let asks = |table: &mut TriedGroup| {
        table.obey(one);
        table.on_way.retain(|(from, ..)| *from == one);
        table.run(1);
    };
    asks(&mut table);
    let (from, to) = (table.seats[other].config.disk, Some(table.seats[one].config.disk));
    let last = table.machine(other).raft.last();
    let term = table.machine(leader).raft.term() + 1;
    let body = GroupBody::AskVote { term, last, is_transfer: false };
    let frame = GroupFrame { cluster: Some(ClusterId(7)), from, to, is_low: false, body };
    let now = table.now;
    table.machine(one).handle_frame(&name(other), frame, now);
    table.machine(one).raft.term() == term
}

#[test]
fn a_disk_that_was_put_back_is_told_so_and_takes_no_part() {
    let (mut table, leader, one, _) = put_back_by_some_writes();
    let term = table.machine(leader).standing().term;
    table.start(one);
    let is_put_back = |notice: &GroupNotice| match notice {
        GroupNotice::OwnDiskPutBack { had, has } => had.0 == term && has.1 < had.1,
        _ => false,
    };
    table.run_until(|table| table.was_told(one, is_put_back), 100);
    assert_eq!(table.machine(one).poll_timeout(), None);
    // It begins anew as another disk, and is admitted.
    table.cuts.clear();
    table.empty_disk(one, 99);
    table.run(500);
    table.admit(leader, one, 99);
    assert_eq!(table.leader(), Some(leader));
    let appended = table.ask(leader, append(5, 4));
    assert!(matches!(appended, JournalAnswer::Appended(Appended::Committed(..))));
}

/// It has confirmed what was committed without it, and nothing more is committed.
#[test]
fn a_disk_that_came_late_and_was_put_back_is_told_so() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(100);
    let before = table.seats[one].disk.clone();
    table.cut_both(leader, one);
    assert!(matches!(table.ask(leader, append(5, 1)), JournalAnswer::Appended(_)));
    table.run(20);
    table.cuts.clear();
    let last = table.machine(leader).raft.last();
    table.run_until(|table| table.machine(one).raft.last() == last, 500);
    // Its answer arrives.
    table.run(5);
    table.kill(one);
    table.seats[one].disk = before;
    table.start(one);
    let is_put_back = |notice: &GroupNotice| matches!(notice, GroupNotice::OwnDiskPutBack { .. });
    table.run_until(|table| table.was_told(one, is_put_back), 100);
}

/// A follower has acknowledged an entry that its leader's own disk has not yet, and was put back to before it: leader,
/// that member, the other one, which does not reach the leader.
fn put_back_before_an_uncommitted_entry() -> (TriedGroup, usize, usize, usize) {
    let (mut table, [leader, one, other], before) = cut_to_a_bare_majority();
    let committed = table.machine(leader).commit_index();
    table.seats[leader].syncs = false;
    table.begin(leader, append(5, 1));
    let last = table.machine(leader).raft.last();
    let voter = table.seats[one].config.disk.voter();
    let counts = |table: &mut TriedGroup| table.machine(leader).raft.matched(voter);
    table.run_until(|table| counts(table) == Some(last.index), 100);
    assert_eq!(table.machine(leader).commit_index(), committed);
    table.kill(one);
    table.seats[one].disk = before;
    (table, leader, one, other)
}

fn is_told_of_what_is_not_committed() -> bool {
    let (mut table, leader, one, _) = put_back_before_an_uncommitted_entry();
    table.start(one);
    let last = table.machine(leader).raft.last();
    // Its first question arrives, and the leader's entries not yet.
    table.obey(one);
    table.on_way.retain(|(from, ..)| *from == one);
    table.run(1);
    table.obey(leader);
    let is_put_back = |notice: &GroupNotice| match notice {
        GroupNotice::OwnDiskPutBack { had, has } => {
            *had == (last.term, last.index) && has.1 < last.index
        }
        _ => false,
    };
    for _ in 0..20 {
        table.run(1);
        if table.was_told(one, is_put_back) {
            return true;
        }
    }
    false
}

/// Else the leader commits the entry when its disk has it, and another does so with a different one.
#[test]
fn a_disk_put_back_before_an_entry_that_is_not_committed_is_told_so() {
    assert!(is_told_of_what_is_not_committed());
}

/// It has heard of a later term: the entry may have been overwritten by rights, so it is not out.
#[test]
fn a_disk_that_lacks_an_uncommitted_entry_of_an_earlier_term_votes_as_if_it_had_it() {
    let (mut table, leader, one, other) = put_back_before_an_uncommitted_entry();
    let acknowledged = table.machine(leader).raft.last();
    table.seats[one].disk.term += 1;
    table.start(one);
    let shorter = table.machine(one).raft.last();
    let none = LogPlace::default();
    let term = acknowledged.term;
    table.hand(leader, one, GroupBody::Confirmed { term, place: shorter, acknowledged });
    table.hand(other, one, GroupBody::Confirmed { term, place: none, acknowledged: none });
    assert!(!table.machine(one).is_unsure());
    assert!(table.machine(one).poll_timeout().is_some(), "it is not out");
    let vote_in = |term, last| GroupBody::AskVote { term, last, is_transfer: true };
    table.hand(other, one, vote_in(term + 2, shorter));
    assert_eq!(table.machine(one).raft.term(), term + 1);
    table.hand(other, one, vote_in(term + 3, LogPlace { term: term + 1, index: shorter.index }));
    assert_eq!(table.machine(one).raft.term(), term + 3);
}

/// All that it asked had answered, and it was elected, before the leader's path to it was back.
#[test]
fn a_member_that_stands_stops_when_it_hears_that_its_log_ends_before_what_it_has_acknowledged() {
    let (mut table, leader, one, other) = put_back_before_an_uncommitted_entry();
    let acknowledged = table.machine(leader).raft.last();
    table.start(one);
    let (none, term) = (LogPlace::default(), acknowledged.term);
    for sender in [leader, other] {
        let body = GroupBody::Confirmed { term: 0, place: none, acknowledged: none };
        table.hand(sender, one, body);
    }
    let machine = table.machine(one);
    let asks = |machine: &mut GroupMachine| {
        let frames = std::iter::from_fn(|| machine.poll_frame());
        frames.into_iter().any(|(_, frame)| matches!(frame.body, GroupBody::AskPreVote { .. }))
    };
    while !asks(machine) {
        let at = machine.poll_timeout().unwrap();
        machine.handle_timeout(at);
    }
    table.hand(other, one, GroupBody::PreVote { term: term + 1 });
    assert_eq!(table.machine(one).raft.role(), super::raft::RaftRole::Candidate);
    table.hand(leader, one, GroupBody::Confirmed { term, place: none, acknowledged });
    assert_eq!(table.machine(one).raft.role(), super::raft::RaftRole::Follower);
    // A vote that was on its way elects it no more, and it stands no more.
    table.hand(other, one, GroupBody::Vote { term: term + 1, is_granted: true });
    assert!(!table.machine(one).raft.is_leader());
    assert!(table.machine(one).poll_timeout().is_some(), "it is not out");
}

#[test]
fn a_disk_that_was_put_back_gives_no_vote_before_it_is_told() {
    assert!(!a_disk_put_back_elects_a_member_that_lacks_what_it_has_confirmed());
}

/// It is read before the answers, and before the process looks at the time.
#[test]
fn a_disk_that_was_put_back_gives_no_vote_after_its_process_has_stood_still() {
    let (mut table, leader, one, other) = put_back_by_some_writes();
    table.start(one);
    table.obey(one);
    table.on_way.clear();
    table.now = table.now + Duration::from_secs(5);
    let (from, to) = (table.seats[other].config.disk, Some(table.seats[one].config.disk));
    let last = table.machine(other).raft.last();
    let (now, before) = (table.now, table.machine(one).raft.term());
    let term = before + 1;
    for body in [
        GroupBody::AskPreVote { term, last, is_leader_gone: true },
        GroupBody::AskVote { term, last, is_transfer: false },
    ] {
        let frame = GroupFrame { cluster: Some(ClusterId(7)), from, to, is_low: false, body };
        table.machine(one).handle_frame(&name(other), frame, now);
    }
    assert_eq!(table.machine(one).raft.term(), before);
    let is_put_back = |notice: &GroupNotice| matches!(notice, GroupNotice::OwnDiskPutBack { .. });
    table.run_until(|table| table.was_told(one, is_put_back), 100);
    assert_eq!(table.machine(leader).raft.term(), before);
}

/// It has the log, and has forgotten the term in which it has voted.
#[test]
fn a_disk_that_has_forgotten_its_vote_is_told_so() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.kill(leader);
    let before = table.seats[one].disk.term;
    let next = table.next_leader(1500);
    let [forgets] =
        [0, 1, 2].into_iter().filter(|seat| ![next, leader].contains(seat)).collect::<Vec<_>>()[..]
    else {
        panic!()
    };
    table.run(100);
    table.kill(forgets);
    let disk = &mut table.seats[forgets].disk;
    (disk.term, disk.voted_for) = (before, None);
    // It asks at once: the leader's next heartbeat would bring it to the term again.
    table.start(forgets);
    table.run_until(
        |table| {
            table.was_told(forgets, |notice| matches!(notice, GroupNotice::OwnDiskPutBack { .. }))
        },
        100,
    );
}

#[test]
fn a_disk_that_is_as_it_was_is_told_nothing_and_votes_when_all_have_answered() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    for seat in 0..3 {
        table.kill(seat);
        table.start(seat);
        assert!(table.machine(seat).is_unsure());
        table.run(50);
        assert!(!table.machine(seat).is_unsure());
    }
    table.next_leader(1000);
    // A member that does not run keeps none waiting for long.
    let leader = table.leader().unwrap();
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    table.kill(leader);
    table.kill(one);
    table.start(one);
    let next = table.next_leader(2000);
    assert!([one, other].contains(&next));
    let told = |notice: &GroupNotice| matches!(notice, GroupNotice::OwnDiskPutBack { .. });
    assert!((0..3).all(|seat| !table.was_told(seat, told)));
}

/// An entry of an earlier term is on the disks of a majority, and the one of its own term behind it not on the
/// leader's: a member with an entry of a term between may yet be elected, and overwrite the first.
#[test]
fn a_leader_commits_nothing_of_an_earlier_term_before_its_disk_has_an_entry_of_its_own() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(100);
    // Its disk alone gets the renewal, in a term that then ends.
    table.isolate(leader);
    table.begin(leader, JournalOperation::Renew(ReignKey(5)));
    table.kill(leader);
    table.kill(other);
    table.cuts.clear();
    table.start(leader);
    let stands = |table: &mut TriedGroup| {
        table.machine(leader).raft.role() == super::raft::RaftRole::Candidate
    };
    table.run_until(stands, 3000);
    table.seats[leader].syncs = false;
    table.run(20);
    let last = table.machine(leader).raft.last().index;
    assert!(table.machine(leader).raft.is_leader());
    assert_eq!(table.machine(leader).raft.commit_index(), last, "as if its disk had all of it");
    let stamps = |table: &mut TriedGroup| {
        [leader, one].map(|seat| table.machine(seat).head().map(|head| head.stamp))
    };
    assert_eq!(stamps(&mut table), [None, Some(Stamp(1))], "it has started, and applied nothing");
    table.seats[leader].syncs = true;
    table.run(20);
    assert_eq!(stamps(&mut table), [Some(Stamp(2)); 2]);
}

/// An answer waits for a disk of which it comes out meanwhile that it was put back.
#[test]
fn nothing_leaves_a_member_that_is_out() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(100);
    table.seats[one].syncs = false;
    drop(table.ask(leader, append(5, 1)));
    table.run(20);
    assert!(!table.seats[one].unsynced.is_empty());
    let (from, to) = (table.seats[leader].config.disk, Some(table.seats[one].config.disk));
    let LogPlace { term, index } = table.machine(one).raft.last();
    let body = GroupBody::Confirmed {
        term,
        place: LogPlace { term, index: index + 1 },
        acknowledged: LogPlace::default(),
    };
    let now = table.now;
    let frame = GroupFrame { cluster: Some(ClusterId(7)), from, to, is_low: false, body };
    let machine = table.machine(one);
    machine.handle_frame(&name(leader), frame, now);
    machine.handle_stored(WriteId(u64::MAX), now);
    assert!(machine.poll_frame().is_none() && machine.poll_write().is_none());
    machine.handle_peer(&name(leader), true, now);
    assert!(machine.poll_frame().is_none());
}

/// A disk that was put back, and has got other entries since, is as long as it was.
#[test]
fn a_disk_with_another_entry_at_a_place_that_it_has_confirmed_is_out() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let one = (leader + 1) % 3;
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(100);
    let (from, to) = (table.seats[leader].config.disk, Some(table.seats[one].config.disk));
    let term = table.machine(one).raft.term();
    let now = table.now;
    let last = table.machine(one).raft.last();
    let is_out = |table: &mut TriedGroup, place| {
        let body = GroupBody::Confirmed { term, place, acknowledged: LogPlace::default() };
        let frame = GroupFrame { cluster: Some(ClusterId(7)), from, to, is_low: false, body };
        table.machine(one).handle_frame(&name(leader), frame, now);
        table.machine(one).poll_timeout().is_none()
    };
    assert!(!is_out(&mut table, LogPlace::default()));
    assert!(!is_out(&mut table, last));
    assert!(is_out(&mut table, LogPlace { term: last.term - 1, ..last }));
}

fn be_low(table: &mut TriedGroup, seat: usize, is_low: bool) {
    let now = table.now;
    let room = if is_low { DiskRoom::Low } else { DiskRoom::Plenty };
    table.machine(seat).handle_room(room, now);
    table.obey(seat);
}

/// The disk of the leader is low at a time when those of the others are, too, and then they have room: whether
/// one of them leads in the end.
fn low_leader_is_followed() -> bool {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for low in [others[0], others[1], leader] {
        be_low(&mut table, low, true);
        table.run(100);
    }
    assert_eq!(table.leader(), Some(leader));
    others.into_iter().for_each(|seat| be_low(&mut table, seat, false));
    table.run(3000);
    table.leader().is_some_and(|now| now != leader)
}

#[test]
fn a_leader_on_a_low_disk_hands_over_once_another_has_room() {
    assert!(low_leader_is_followed());
}

/// Both that are left would be elected, by the chance of which stands first: the low one never is.
fn low_member_is_elected() -> bool {
    (0..8).any(|seed| {
        let mut table = TriedGroup::new(3);
        for (at, seat) in table.seats.iter_mut().enumerate() {
            seat.config.seed = seed * 3 + at as u64;
        }
        (0..3).for_each(|seat| table.start(seat));
        let leader = table.next_leader(2000);
        let low = (leader + 1) % 3;
        table.run(100);
        be_low(&mut table, low, true);
        table.kill(leader);
        table.next_leader(2000) == low
    })
}

#[test]
fn a_member_on_a_low_disk_is_elected_only_where_no_other_can_be() {
    assert!(!low_member_is_elected());
    // Both that are left are low: one of them leads, and goes on.
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    (0..3).filter(|seat| *seat != leader).for_each(|seat| be_low(&mut table, seat, true));
    table.kill(leader);
    let next = table.next_leader(2000);
    table.run(5000);
    assert_eq!(table.leader(), Some(next));
    // Until one with room is back, and has what it lacked.
    table.start(leader);
    table.run_until(|table| table.leader() == Some(leader), 3000);
}

#[test]
fn a_reign_on_a_low_disk_is_asked_again_and_again_to_hand_over() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    let asked = |table: &TriedGroup| {
        let notices = &table.seats[leader].notices;
        notices.iter().filter(|notice| **notice == GroupNotice::StepsAside).count()
    };
    // No other could lead: all are low.
    for low in [(leader + 1) % 3, (leader + 2) % 3, leader] {
        be_low(&mut table, low, true);
        table.run(100);
    }
    table.run(3000);
    assert_eq!((asked(&table), table.leader()), (0, Some(leader)));
    be_low(&mut table, (leader + 1) % 3, false);
    table.run(200);
    assert_eq!(asked(&table), 1);
    table.run(3000);
    assert_eq!((asked(&table), table.leader()), (2, Some(leader)), "its reign was not handed over");
    // It resigns: the log follows to the one that has room.
    let resigned = table.ask(leader, JournalOperation::Resign(ReignKey(5)));
    assert_eq!(resigned, JournalAnswer::Resigned);
    let now = table.now;
    table.machine(leader).handle_transfer(now);
    table.obey(leader);
    table.run_until(|table| table.leader() == Some((leader + 1) % 3), 20);
}

#[test]
fn a_reign_on_a_full_disk_does_not_wait_for_its_resignation() {
    let mut table = TriedGroup::made(3);
    let leader = table.leader().unwrap();
    assert!(matches!(table.take_over(leader, 5), TakeOver::Took(_)));
    table.run(100);
    table.seats[leader].syncs = false;
    table.begin(leader, JournalOperation::Renew(ReignKey(5)));
    let now = table.now;
    table.machine(leader).handle_room(DiskRoom::Full, now);
    table.obey(leader);
    table.run_until(|table| table.leader().is_some_and(|now| now != leader), 20);
}
