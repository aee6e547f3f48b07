//! A member: its process with machine and reign, its disk, and what it appends.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tierlock::{
    Name, Time, Token,
    proto::{
        ClusterId, RequestId, SessionId,
        group::{
            AskAnswer, AskId, DiskId, DiskRoom, GROUP_TERMS, GroupBody, GroupConfig, GroupFrame,
            GroupMachine, GroupNotice, GroupWrite, StoredGroup, WriteId,
        },
        journal::{Appended, JournalAnswer, JournalOperation, ReignKey, TakeOver},
        record::{Record, Reservation},
        reign::{Reign, ReignConfig, ReignEvent},
    },
};

use super::{
    GroupEvent, GroupStep, GroupWorld, name_of, rules::AskedWrite, seat_of, serving::GroupAsker,
    tell,
};
use crate::clock::{Clock, MS, Pace, Truth};

/// The place of a member in the world.
pub(crate) struct GroupSeatInWorld {
    pub(super) clock: Clock,
    pub(super) disk: MemberDisk,
    /// A disk that was taken out of it.
    pub(super) old_disk: Option<MemberDisk>,
    /// The old one is in it, for a while.
    pub(super) has_old: bool,
    pub(super) process: Option<Box<MemberProcess>>,
    pub(super) starts: u32,
    pub(super) paused_until: Truth,
    /// Until then writes take long.
    pub(super) slow_until: Truth,
    /// Until then its disk is full but for what was set aside.
    pub(super) low_until: Truth,
    /// It writes just now; what comes meanwhile is written at once behind that.
    is_writing: bool,
    count: usize,
}

/// A disk: what it has for certain, and what it was told and has not confirmed.
#[derive(Clone)]
pub(crate) struct MemberDisk {
    pub(super) id: DiskId,
    pub(super) stored: StoredGroup,
    unsynced: VecDeque<(WriteId, GroupWrite)>,
    /// It was put back to an earlier state.
    pub(super) is_put_back: bool,
}

/// A process that runs.
pub(crate) struct MemberProcess {
    pub(super) machine: GroupMachine,
    /// Its reign, unless that is played by the world above.
    pub(super) reign: Option<Reign>,
    asks: u64,
    /// What was asked for.
    pub(super) asked: BTreeMap<AskId, (GroupAsker, AskedWrite)>,
    /// What goes to the disk next.
    writes: VecDeque<(WriteId, GroupWrite)>,
    pub(super) writer: Option<Writer>,
    pub(super) replacing: bool,
    wakes_at: Option<Truth>,
    /// What its disk lacked of what it has confirmed, when the process started on it.
    pub(super) lacks: Option<String>,
}

/// What a reign appends, one after the other.
pub(crate) struct Writer {
    reign: ReignKey,
    number: u64,
    records: Arc<[Record]>,
    flight: Option<(AskId, AskedWrite)>,
    next: Time,
}

impl GroupWorld {
    pub(super) fn seat(&mut self, count: usize) -> GroupSeatInWorld {
        let clock = Clock::new(&mut self.dice, Pace::Any);
        GroupSeatInWorld {
            clock,
            disk: self.new_disk(),
            old_disk: None,
            has_old: false,
            process: None,
            starts: 0,
            paused_until: 0,
            slow_until: 0,
            low_until: 0,
            is_writing: false,
            count,
        }
    }

    pub(super) fn new_disk(&mut self) -> MemberDisk {
        let id = DiskId(u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
        let (stored, unsynced) = (StoredGroup::default(), VecDeque::new());
        MemberDisk { id, stored, unsynced, is_put_back: false }
    }

    pub(super) fn clock(&self, seat: usize) -> Time {
        self.seats[seat].clock.read(self.truth)
    }

    pub(super) fn starts(&mut self, at: usize) {
        if self.seats[at].process.is_some() {
            return;
        }
        let now = self.clock(at);
        let seed = self.dice.next();
        let random = self.dice.random();
        let cluster = ClusterId(u128::from(self.dice.next()));
        let seat = &mut self.seats[at];
        let members = (0..seat.count).map(name_of).collect();
        let mut config = GroupConfig::new(name_of(at), seat.disk.id, members);
        (config.init, config.seed, config.cluster) = (true, seed, cluster);
        config.log_bytes_max = self.log_bytes_max;
        // As production has them.
        config.heartbeat = self.lasts / 8;
        (config.election_min, config.election_max) = (self.lasts * 3 / 8, self.lasts * 3 / 4);
        if self.above.is_some() {
            config.cluster = CLUSTER;
        }
        let stored = &seat.disk.stored;
        let stored = (*stored != StoredGroup::default()).then(|| stored.clone());
        let mut machine = GroupMachine::new(config, stored, now);
        if seat.low_until > self.truth {
            machine.handle_room(DiskRoom::Low, now);
        }
        let (disk, is_put_back) = (seat.disk.id, seat.disk.is_put_back);
        let lacks = if is_put_back {
            // What has arrived nowhere, or where it is forgotten, counts for nothing and is told by none.
            let others = self.seats.iter().enumerate().filter(|(_, other)| other.process.is_some());
            let others = others.map(|(other, seat)| (other, seat.starts));
            self.rules.confirmed.lacking_for(others, disk, &self.seats[at].disk.stored)
        } else {
            self.rules.confirmed.lacking(disk, &seat.disk.stored)
        };
        let seat = &mut self.seats[at];
        if let Some(what) = lacks.as_ref().filter(|_| !is_put_back) {
            self.rules
                .violate(format!("the disk of {at} has confirmed what it does not have: {what}"));
        }
        let terms = GROUP_TERMS;
        let reign = ReignConfig { lasts: self.lasts, address: None, epoch_above: None, terms };
        let reign = self.above.is_none().then(|| Reign::new(reign, random, now));
        seat.starts += 1;
        (seat.is_writing, seat.paused_until) = (false, 0);
        seat.process = Some(Box::new(MemberProcess {
            machine,
            reign,
            asks: 0,
            asked: BTreeMap::new(),
            writes: VecDeque::new(),
            writer: None,
            replacing: false,
            wakes_at: None,
            lacks,
        }));
        tell!(self, "{at} starts on {:?}", self.seats[at].disk.id);
        self.tell_above(GroupEvent::Started(at));
        self.pump(at);
    }

    /// The process is killed: of what the disk was told last, some of the first may be on it.
    pub(super) fn crash(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if seat.process.take().is_none() {
            return;
        }
        self.tally.crashes += 1;
        let reached = self.dice.below(seat.disk.unsynced.len() as u64 + 1) as usize;
        let lost = seat.disk.unsynced.len() - reached;
        self.tally.writes_lost += lost as u64;
        for (_, write) in std::mem::take(&mut seat.disk.unsynced).into_iter().take(reached) {
            seat.disk.stored.remember(write).expect("writes are in order");
        }
        tell!(self, "{at} is killed, and loses {lost} writes");
        self.tell_above(GroupEvent::Crashed(at));
    }

    pub(super) fn stored(&mut self, at: usize, start: u32, write: WriteId) {
        if self.defers(at, || GroupStep::Stored { seat: at, start, write }) {
            return;
        }
        let now = self.clock(at);
        let seat = &mut self.seats[at];
        let Some(process) = seat.process.as_mut().filter(|_| seat.starts == start) else { return };
        while let Some((id, _)) = seat.disk.unsynced.front()
            && *id <= write
        {
            let (_, write) = seat.disk.unsynced.pop_front().expect("just seen");
            seat.disk.stored.remember(write).expect("writes are in order");
        }
        seat.is_writing = false;
        process.machine.handle_stored(write, now);
        self.write_next(at);
        self.pump(at);
    }

    fn defers(&mut self, seat: usize, step: impl FnOnce() -> GroupStep) -> bool {
        let until = self.seats[seat].paused_until;
        if until > self.truth {
            self.at(until, step());
            return true;
        }
        false
    }

    pub(super) fn wakes(&mut self, at: usize, start: u32) {
        if self.defers(at, || GroupStep::Wakes { seat: at, start }) {
            return;
        }
        let truth = self.truth;
        let seat = &mut self.seats[at];
        if let Some(process) = seat.process.as_mut().filter(|_| seat.starts == start) {
            process.wakes_at.take_if(|at| *at <= truth);
            self.pump(at);
        }
    }

    pub(super) fn refused(&mut self, at: usize, start: u32, peer: usize) {
        if self.defers(at, || GroupStep::Refused { seat: at, start, peer }) {
            return;
        }
        let now = self.clock(at);
        let seat = &mut self.seats[at];
        if let Some(process) = seat.process.as_mut().filter(|_| seat.starts == start) {
            process.machine.handle_peer(&name_of(peer), false, now);
            self.pump(at);
        }
    }

    pub(super) fn hand_frame(&mut self, to: usize, from: usize, frame: GroupFrame) {
        let now = self.clock(to);
        let starts = self.seats[to].starts;
        if let Some(process) = &mut self.seats[to].process {
            let (disk, body) = (frame.from, frame.body.clone());
            process.machine.handle_frame(&name_of(from), frame, now);
            self.rules.confirmed.arrived((to, starts), &process.machine, disk, &body);
            self.pump(to);
        }
    }

    /// Does all that a member has to do at this moment.
    pub(super) fn pump(&mut self, at: usize) {
        let now = self.clock(at);
        let Some(mut process) = self.seats[at].process.take() else { return };
        if process.machine.poll_timeout().is_some_and(|due| due <= now) {
            process.machine.handle_timeout(now);
        }
        self.check_applied(at, &mut process);
        loop {
            let mut is_done = true;
            while let Some((id, operation)) =
                process.reign.as_mut().and_then(|reign| reign.poll_operation(now))
            {
                is_done = false;
                let write = self.rules.asked(&operation);
                let ask = process.ask(operation, now);
                process.asked.insert(ask, (GroupAsker::Reign(id), write));
            }
            self.write_on(&mut process, now);
            self.check_applied(at, &mut process);
            while let Some((ask, answer)) = process.machine.poll_answer() {
                is_done = false;
                match answer {
                    AskAnswer::Group(answer) => {
                        tell!(self, "{at} is answered {answer:?}");
                        process.replacing = false;
                    }
                    AskAnswer::Journal(answer) => self.answered(at, &mut process, ask, answer),
                }
            }
            while let Some(event) = process.reign.as_mut().and_then(Reign::poll_event) {
                self.reign_event(at, &mut process, event);
            }
            while let Some(notice) = process.machine.poll_notice() {
                match (&notice, &mut process.reign) {
                    (GroupNotice::ReignChanged, Some(reign)) => {
                        is_done = false;
                        reign.look_again(now);
                    }
                    _ => self.noticed(at, &notice),
                }
            }
            if is_done {
                break;
            }
        }
        self.take_writes(at, &mut process);
        for (id, write) in std::mem::take(&mut process.writes) {
            self.write_to_disk(at, id, write);
        }
        let mut has_voted = false;
        while let Some((to, frame)) = process.machine.poll_frame() {
            has_voted |= matches!(frame.body, GroupBody::Vote { is_granted: true, .. });
            self.check_frame(at, &process, &frame.body);
            self.carry(at, seat_of(&to), frame);
        }
        let of_reign = process.reign.as_ref().and_then(Reign::poll_timeout);
        let due = [process.machine.poll_timeout(), of_reign, process.writes_at()];
        if let Some(due) = due.into_iter().flatten().min() {
            let clock = self.seats[at].clock;
            let due = clock.when(due.max(now)).max(self.truth + 1);
            if process.wakes_at.is_none_or(|wakes| due < wakes || wakes <= self.truth) {
                process.wakes_at = Some(due);
                let start = self.seats[at].starts;
                self.at(due, GroupStep::Wakes { seat: at, start });
            }
        }
        self.seats[at].process = Some(process);
        // It may be killed after any step, and be back before anything else happens.
        let odds = if has_voted { 50 } else { 5000 };
        if !self.is_well && self.truth >= self.calm_until && self.dice.below(odds) == 0 {
            let pause = self.dice.below(4 * MS);
            self.crash(at);
            self.after(pause, GroupStep::Starts { seat: at });
        }
    }

    /// Takes what goes to the disk, before what it leads to is looked at.
    fn take_writes(&mut self, at: usize, process: &mut MemberProcess) {
        while let Some((id, write)) = process.machine.poll_write() {
            let disk = self.seats[at].disk.id;
            if let Some(above) = &mut self.above {
                above.note_write(disk, &write);
            }
            process.writes.push_back((id, write));
        }
    }

    fn write_to_disk(&mut self, at: usize, id: WriteId, write: GroupWrite) {
        if let GroupWrite::Whole(_) = &write {
            self.tally.snapshots += 1;
        }
        let read = GroupWrite::decode(&write.encode()).expect("writes can be read");
        assert_eq!(read, write, "writes are read as they were written");
        self.seats[at].disk.unsynced.push_back((id, read));
        self.write_next(at);
    }

    fn write_next(&mut self, at: usize) {
        let took = match self.dice.below(100) {
            _ if self.seats[at].slow_until > self.truth => self.dice.below(1500 * MS),
            0 => self.dice.below(100 * MS),
            _ => self.dice.below(2 * MS),
        };
        let seat = &mut self.seats[at];
        if let Some((write, _)) = seat.disk.unsynced.back().filter(|_| !seat.is_writing) {
            let (write, start) = (*write, seat.starts);
            seat.is_writing = true;
            self.after(took, GroupStep::Stored { seat: at, start, write });
        }
    }

    fn answered(
        &mut self,
        at: usize,
        process: &mut MemberProcess,
        ask: AskId,
        answer: JournalAnswer,
    ) {
        let now = self.clock(at);
        if let Some((asker, write)) = process.asked.remove(&ask) {
            tell!(self, "{at} is answered {}", short(&answer));
            self.rules.answered(&write, &answer);
            return match (asker, &mut process.reign) {
                (GroupAsker::Reign(id), Some(reign)) => reign.handle_answer(id, answer, now),
                (GroupAsker::Reign(_), None) => {}
                (GroupAsker::Above(number), _) => self.answer_above(number, answer, process, now),
            };
        }
        let Some(writer) = &mut process.writer else { return };
        let Some((_, write)) = writer.flight.take_if(|(its, _)| *its == ask) else { return };
        self.rules.answered(&write, &answer);
        if let JournalAnswer::Appended(Appended::Committed(..)) = answer {
            self.tally.appends += 1;
            self.rules.committed(&writer.records);
            writer.number += 1;
            let pause = Duration::from_nanos(self.dice.below(60 * MS));
            writer.next = now + pause;
            writer.records = records_of(writer.reign, writer.number);
        } else {
            writer.next = now + Duration::from_millis(20);
        }
    }

    /// Its reign appends on, and sends again what was not answered.
    fn write_on(&mut self, process: &mut MemberProcess, now: Time) {
        let Some(writer) = &process.writer else { return };
        if writer.flight.is_some() || now < writer.next {
            return;
        }
        let (reign, number, records) = (writer.reign, writer.number, writer.records.clone());
        let operation = JournalOperation::Append { reign, number, records };
        let write = self.rules.asked(&operation);
        let ask = process.ask(operation, now);
        let writer = process.writer.as_mut().expect("just seen");
        writer.flight = Some((ask, write));
    }

    fn reign_event(&mut self, at: usize, process: &mut MemberProcess, event: ReignEvent) {
        match event {
            ReignEvent::Began { reign, took, .. } => {
                tell!(self, "{at} reigns in {reign:?}");
                self.tally.reigns += 1;
                self.rules.took(reign, &took);
                process.writer = Some(Writer {
                    reign,
                    number: 1,
                    records: records_of(reign, 1),
                    flight: None,
                    next: self.clock(at),
                });
            }
            ReignEvent::Ended(ending) => {
                tell!(self, "the reign of {at} has ended: {ending:?}");
                self.tally.deposed += 1;
                process.writer = None;
                if process.reign.as_ref().is_some_and(Reign::is_over) {
                    self.rules.violate(format!("the reign of {at} is over: {ending:?}"));
                }
            }
            ReignEvent::Answered(_) | ReignEvent::Regained { .. } => {}
        }
    }

    fn noticed(&mut self, at: usize, notice: &GroupNotice) {
        tell!(self, "{at}: {notice:?}");
        match notice {
            GroupNotice::Leads { term } => {
                self.tally.leads += 1;
                self.rules.leads(*term, self.seats[at].disk.id);
            }
            GroupNotice::Quiet => self.tally.quiet += 1,
            GroupNotice::Replaced { .. } => self.tally.replaced += 1,
            GroupNotice::Admitted { .. } => self.tally.admitted += 1,
            GroupNotice::OwnDiskWaits { .. } | GroupNotice::DiskOfAnother { .. } => {
                self.tally.strange_disks += 1;
            }
            GroupNotice::OwnDiskPutBack { .. } => {
                if !self.seats[at].disk.is_put_back {
                    let text =
                        format!("{at} has all that it has confirmed, and is out: {notice:?}");
                    self.rules.violate(text);
                }
                let start = self.seats[at].starts;
                self.after(0, GroupStep::BecomesAnother { seat: at, start });
            }
            GroupNotice::StepsAside => {
                let start = self.seats[at].starts;
                self.after(0, GroupStep::StepsAside { seat: at, start });
            }
            GroupNotice::ReignChanged => self.tell_above(GroupEvent::ReignChanged(at)),
            GroupNotice::Made { cluster } => self.rules.made(*cluster),
            GroupNotice::Failed(text) => self.rules.violate(format!("{at} failed: {text}")),
            GroupNotice::OtherCluster { member, cluster } => {
                self.rules.violate(format!("{at} meets {member} of {cluster:?}"));
            }
            _ => {}
        }
    }

    fn check_applied(&mut self, at: usize, process: &mut MemberProcess) {
        self.take_writes(at, process);
        let Some(state) = process.machine.state() else { return };
        self.rules.confirmed.applied(process.machine.applied());
        let (applied, highest) = (process.machine.applied().index, self.rules.highest());
        let changed = self.rules.applied(at, applied, state);
        let Some((before, now)) = changed else { return };
        self.tell_applied(at, highest, &process.machine);
        self.note(now.stamp.0 ^ applied << 32);
        if before != now.reign
            && let Some(before) = before
        {
            self.check_proofs(before);
        }
    }

    /// The journal is in this reign no more: it is not proven at this moment.
    fn check_proofs(&mut self, reign: ReignKey) {
        for at in 0..self.seats.len() {
            let now = self.clock(at);
            let Some(process) = &self.seats[at].process else { continue };
            let Some(own) = &process.reign else { continue };
            if own.reigning() == Some(reign) && own.has_proof(now) {
                self.rules
                    .violate(format!("{reign:?} of {at} is proven, and the journal is not in it"));
            }
        }
    }
}

impl MemberProcess {
    pub(super) fn ask(&mut self, operation: JournalOperation, now: Time) -> AskId {
        self.asks += 1;
        let ask = AskId(self.asks);
        self.machine.handle_operation(ask, operation, now);
        ask
    }

    pub(super) fn next_ask(&mut self) -> AskId {
        self.asks += 1;
        AskId(self.asks)
    }

    fn writes_at(&self) -> Option<Time> {
        self.writer.as_ref().filter(|writer| writer.flight.is_none()).map(|writer| writer.next)
    }
}

/// What a group calls itself that leaders of another world use.
const CLUSTER: ClusterId = ClusterId(7);

/// A record that is in the journal for good, and that no other append has; some more make it long.
fn records_of(reign: ReignKey, number: u64) -> Arc<[Record]> {
    let count = if number.is_multiple_of(7) { 20 } else { 1 };
    let record = |part: u64| Record::Reserved {
        name: Name::new(&format!("{:08x}/{number}/{part}", reign.0 as u32)).expect("a good name"),
        reservation: Reservation {
            token: Token::new(number).expect("a small number"),
            session: SessionId(reign.0),
            request: RequestId(number),
            at_least: Duration::from_secs(1),
            left: Duration::from_secs(1),
        },
    };
    (0..count).map(record).collect()
}

fn short(answer: &JournalAnswer) -> String {
    match answer {
        JournalAnswer::TakeOver(TakeOver::Took(took)) => format!("Took {:?}", took.stamp),
        other => format!("{other:?}"),
    }
}
