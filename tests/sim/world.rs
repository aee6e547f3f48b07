//! The world: true time, what is due when, and the nodes that live in it.
//!
//! One seed, one thread. A step takes no time; between two steps nothing happens. Whatever has
//! to be chosen, the dice choose.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use tierlock::{
    Name, Time, Token,
    proto::{LeaseId, ProcessMark, RequestId, bound::BoundSize},
};

use crate::{
    clock::{Clock, MS, Pace, SECOND, Truth, shown},
    coverage::Coverage,
    dice::Dice,
    disk::Disk,
    faults::FAULTS_MIN,
    group::GroupWorld,
    history,
    joined::JOINED,
    journal::{Cut, Journal, SEVERAL},
    leader::Host,
    manager::Manager,
    net::Wire,
    observing::Observing,
    pairs::Pairs,
    reserving::Reserving,
    restored::{Branch, Past},
    rules::{Op, Rule, Violation},
    sharing::Sharing,
    tally::{Digest, Tally},
};

/// Until when faults happen.
pub(crate) const TROUBLE: Truth = 20 * SECOND;

/// From then on every user asks once more, without limit: all of these are to be granted.
pub(crate) const LAST_WORD: Truth = 26 * SECOND;

/// A world lives at least as long as this …
const LONG_ENOUGH: Truth = 30 * SECOND;

/// … with so many clients, whatever its seed …
const CLIENTS_MIN: usize = 3;

/// … and by now all have had what they wanted.
const END: Truth = 90 * SECOND;

/// A process: what is paused, killed and started as one, with one clock.
pub(crate) struct Process {
    /// How often it was started.
    pub(crate) starts: u32,
    pub(crate) clock: Clock,
    pub(crate) paused_until: Truth,
    /// Its next turn is interrupted halfway for this long.
    pub(crate) stall: Option<Truth>,
}

impl Process {
    fn new(dice: &mut Dice, pace: Pace) -> Process {
        Process { starts: 1, clock: Clock::new(dice, pace), paused_until: 0, stall: None }
    }
}

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Leader,
    Client(usize),
}

/// When a node's next turn is. Others that were planned before it was brought forward are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    at: Truth,
    number: u64,
}

impl Ticket {
    pub(crate) const NONE: Ticket = Ticket { at: Truth::MAX, number: 0 };
}

pub(crate) enum Step {
    /// A node's driver looks at what has arrived.
    Turn(Node, Ticket),
    /// A client's packets look for the leader.
    Knock(usize),
    ToLeader(usize),
    ToClient(usize),
    /// An operation reaches the journal.
    JournalReads(usize),
    /// What came of it, or this trouble, reaches its leader.
    JournalAnswers(usize, Option<Box<tierlock::proto::journal::JournalAnswer>>),
    DiskDone(u32),
    LeaderCloses(u32, usize),
    LeaderEnds(u32),
    LeaderDies(u32),
    ClientCloses(usize, u32, tierlock::proto::ConnectionId),
    StartLeader(usize),
    /// The operator has read why this reign ended, and starts the leader above what was lost.
    StartAbove(u32),
    StartClient(usize),
    Fault,
    /// A client that said goodbye is gone.
    Leave(usize, u32),
    /// A user's next move: of this client, in this life.
    Task(usize, u32, usize),
    GiveUp(usize, u32, usize, usize),
    /// A lease that may be kept is looked after: of this client, in this life, of this name.
    LookAfter(usize, u32, usize, tierlock::proto::LeaseId),
    /// The guards of a lost lease have been told.
    Told(usize, u32, tierlock::proto::LeaseId),
}

struct Scheduled {
    at: Truth,
    order: u64,
    step: Step,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What sort of world a seed makes.
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) tasks: usize,
    /// The leader lives in the first client's process.
    pub(crate) embedded: bool,
    /// Clients have two addresses for the one leader.
    pub(crate) two_addresses: bool,
    /// The leader's process survives, so that more happens.
    pub(crate) leader_survives: bool,
    /// The disk fails now and then.
    pub(crate) disk_fails: bool,
    /// It is full now and then.
    pub(crate) disk_fills: bool,
    pub(crate) time_to_live_min: Duration,
    /// Users of one process stand in line, and leases are kept.
    pub(crate) keeps: bool,
    /// A client with users that want nothing for a minute.
    pub(crate) sleeper: Option<usize>,
    /// Many hold a lock for longer than their sessions are promised, and it is mostly those that
    /// are stopped and cut off. Their clocks are slow, and the leader's is fast.
    pub(crate) hard_on_holders: bool,
    /// The state directory is restored from a copy, once.
    pub(crate) restores: bool,
    /// How many leaders there are. More than one follow each other over a journal.
    pub(crate) leaders: usize,
    /// For how long a reign is believed.
    pub(crate) lasts: Duration,
    /// Their journal is a group: they keep it themselves.
    pub(crate) in_group: bool,
    /// The journal takes a good part of that for everything.
    pub(crate) journal_is_far: bool,
    /// What the journal has of the names that a session has asked for.
    pub(crate) bound: BoundSize,
    pub(crate) narrows_every: Duration,
}

/// Where a leader runs, beside others.
#[derive(Default)]
pub(crate) struct Seat {
    /// It, while another is looked at.
    host: Option<Box<Host>>,
    reign: u32,
    pub(crate) cut: Cut,
}

impl Plan {
    fn new(dice: &mut Dice) -> Plan {
        let mut plan = Plan {
            clients: CLIENTS_MIN + dice.below(2) as usize,
            tasks: 1 + dice.below(2) as usize,
            embedded: dice.percent(25),
            two_addresses: dice.percent(10),
            leader_survives: dice.percent(35),
            disk_fails: dice.percent(15),
            disk_fills: dice.percent(15),
            time_to_live_min: Duration::from_millis(1000 + dice.below(1000)),
            keeps: dice.percent(50),
            sleeper: dice.percent(3).then_some(1),
            hard_on_holders: dice.percent(20),
            restores: dice.percent(10),
            leaders: 1,
            lasts: Duration::ZERO,
            in_group: false,
            journal_is_far: false,
            // With three names, so that parents and everything are met, too.
            bound: match dice.below(4) {
                0 => BoundSize { names: 0, parents: dice.below(2) as usize },
                1 => BoundSize { names: 1, parents: 1 },
                2 => BoundSize { names: 2, parents: 0 },
                _ => BoundSize::LARGEST,
            },
            narrows_every: Duration::from_millis(500 + dice.below(8000)),
        };
        if plan.restores {
            // So that a client of a lost reign still believes when the next but one begins.
            plan.hard_on_holders = true;
            plan.time_to_live_min *= 3;
        }
        if plan.sleeper.is_some() {
            // So that its session is not ended otherwise.
            (plan.embedded, plan.leader_survives, plan.disk_fails) = (false, true, false);
            (plan.restores, plan.hard_on_holders) = (false, false);
        }
        plan
    }

    /// The same with several leaders.
    fn of_several(dice: &mut Dice) -> Plan {
        let mut plan = Plan::new(dice);
        plan.leaders = 2 + dice.below(2) as usize;
        plan.lasts = Duration::from_millis(250 + dice.below(3) * 125);
        (plan.embedded, plan.restores, plan.sleeper) = (false, false, None);
        plan.two_addresses = false;
        plan.journal_is_far = dice.percent(20);
        plan.time_to_live_min = plan.time_to_live_min.max(4 * plan.lasts);
        plan
    }

    /// The same, and they are a group.
    fn in_group(dice: &mut Dice) -> Plan {
        let mut plan = Plan::of_several(dice);
        plan.leaders = if dice.percent(70) { 3 } else { 5 };
        (plan.in_group, plan.journal_is_far) = (true, false);
        plan
    }

    /// The first leader's process.
    pub(crate) fn leader(&self) -> usize {
        if self.embedded { 0 } else { self.clients }
    }

    fn pace(&self, process: usize) -> Pace {
        match self.hard_on_holders {
            true if process >= self.leader() && self.leaders == 1 => Pace::Fast,
            true if process < self.clients => Pace::Slow,
            true => Pace::Any,
            false => Pace::Any,
        }
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) truth: Truth,
    order: u64,
    steps: BinaryHeap<Reverse<Scheduled>>,
    pub(crate) processes: Vec<Process>,
    /// The leader that is looked at, which has this seat; the others are in theirs.
    pub(crate) host: Option<Box<Host>>,
    pub(crate) seat: usize,
    pub(crate) seats: Vec<Seat>,
    /// The one that is looked at, of all that there were.
    pub(crate) reign: u32,
    pub(crate) reigns: u32,
    pub(crate) journal: Journal,
    /// The group that keeps it, if one does.
    pub(crate) group: Option<Box<GroupWorld>>,
    pub(crate) disk: Disk,
    pub(crate) managers: Vec<Option<Manager>>,
    pub(crate) lives: Vec<u32>,
    pub(crate) wires: Vec<Wire>,
    /// Until when nothing of a client's, connections yet to be made included, reaches any peer.
    pub(crate) silent_until: Vec<Truth>,
    pub(crate) names: Vec<Name>,
    /// The highest token granted, by name.
    pub(crate) highest: Vec<Token>,
    /// The highest token that the resource behind the lock has seen.
    pub(crate) stored: Vec<Token>,
    pub(crate) ops: Vec<Op>,
    pub(crate) op_of: BTreeMap<(usize, u32, RequestId), usize>,
    pub(crate) op_of_lease: BTreeMap<(tierlock::proto::LeaseId, usize), usize>,
    /// Leases that no client has any more, as their holders know.
    pub(crate) given_back: BTreeSet<LeaseId>,
    /// Leases of a keeper that has heard that another waits.
    pub(crate) recalled: BTreeSet<LeaseId>,
    /// The last token that a leader has given with each lease.
    pub(crate) ends: BTreeMap<LeaseId, Token>,
    /// The last lease of each name, as its operation.
    pub(crate) last_grant: Vec<Option<usize>>,
    pub(crate) past: Past,
    pub(crate) reserving: Reserving,
    pub(crate) sharing: Sharing,
    pub(crate) observing: Observing,
    pub(crate) pairs: Pairs,
    /// A client's events are being handled.
    pub(crate) drains: bool,
    /// Clients and tasks that have slept.
    pub(crate) rested: BTreeSet<(usize, usize)>,
    /// Those that have looked around since.
    pub(crate) awake: BTreeSet<(usize, usize)>,
    /// Clients and tasks that have had their last word.
    pub(crate) content: BTreeSet<(usize, usize)>,
    pub(crate) violation: Option<Violation>,
    pub(crate) tally: Tally,
    pub(crate) coverage: Coverage,
    pub(crate) digest: Digest,
    pub(crate) telling: bool,
}

/// What became of a seed.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) coverage: Coverage,
    pub(crate) digest: u64,
    pub(crate) violation: Option<Violation>,
}

/// Says what happens, when one seed is looked at.
macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.telling {
            println!("{:?} {}", $crate::clock::shown($world.truth), format_args!($($text)*));
        }
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(seed: u64, telling: bool) -> World {
        let mut dice = Dice::new(seed);
        let plan = match seed {
            JOINED.. => Plan::in_group(&mut dice),
            SEVERAL.. => Plan::of_several(&mut dice),
            _ => Plan::new(&mut dice),
        };
        let names: Vec<_> =
            ["eu/alpha", "eu/beta", "gamma"].map(|name| Name::new(name).unwrap()).to_vec();
        let processes = plan.clients + if plan.embedded { 0 } else { plan.leaders };
        let mut world = World {
            seed,
            truth: 0,
            order: 0,
            steps: BinaryHeap::new(),
            processes: (0..processes)
                .map(|process| Process::new(&mut dice, plan.pace(process)))
                .collect(),
            host: None,
            seat: 0,
            seats: (0..plan.leaders).map(|_| Seat::default()).collect(),
            reign: 0,
            reigns: 0,
            journal: Journal::new(plan.lasts),
            group: None,
            disk: Disk::default(),
            managers: (0..plan.clients).map(|_| None).collect(),
            lives: vec![0; plan.clients],
            wires: Vec::new(),
            silent_until: vec![0; plan.clients],
            highest: vec![Token::ZERO; names.len()],
            stored: vec![Token::ZERO; names.len()],
            last_grant: vec![None; names.len()],
            names,
            ops: Vec::new(),
            op_of: BTreeMap::new(),
            op_of_lease: BTreeMap::new(),
            given_back: BTreeSet::new(),
            recalled: BTreeSet::new(),
            ends: BTreeMap::new(),
            past: Past::default(),
            reserving: Reserving::default(),
            sharing: Sharing::new(seed, &plan, 3),
            observing: Observing::new(seed, &plan),
            pairs: Pairs::new(seed, &plan),
            drains: false,
            rested: BTreeSet::new(),
            awake: BTreeSet::new(),
            content: BTreeSet::new(),
            violation: None,
            tally: Tally::default(),
            coverage: Coverage::default(),
            digest: Digest::default(),
            telling,
            plan,
            dice,
        };
        if world.plan.in_group {
            world.found_group();
        }
        for seat in 0..world.plan.leaders {
            world.start_leader(seat);
        }
        for client in 0..world.plan.clients {
            world.start_client(client);
        }
        let first = world.dice.below(3 * SECOND);
        world.after(first, Step::Fault);
        world
    }

    pub(crate) fn run(mut self) -> Outcome {
        let mut has_lived = false;
        while self.violation.is_none() {
            if self.group_goes_first() {
                self.step_group();
                continue;
            }
            let Some(Reverse(scheduled)) = self.steps.pop() else { break };
            has_lived = scheduled.at > LONG_ENOUGH;
            if has_lived && self.is_at_rest() {
                break;
            }
            if scheduled.at > self.end() {
                self.complain();
                break;
            }
            self.truth = scheduled.at;
            self.sit_for(&scheduled.step);
            if let Some(later) = self.paused_until(&scheduled.step) {
                self.at(later, scheduled.step);
                continue;
            }
            self.tally.steps += 1;
            self.step(scheduled.step);
            self.check_believers();
        }
        if self.violation.is_none() {
            self.check_histories();
            self.judge_group();
            assert!(
                has_lived && self.plan.clients >= CLIENTS_MIN && self.tally.faults >= FAULTS_MIN
            );
        }
        self.count_group();
        Outcome {
            digest: self.digest.value(),
            tally: self.tally,
            coverage: self.coverage,
            violation: self.violation,
        }
    }

    /// By now all have had what they wanted: after a restore the leader may have waited twice
    /// for the longest promise.
    fn end(&self) -> Truth {
        if self.plan.restores { END + 150 * SECOND } else { END }
    }

    /// From now on this leader is looked at.
    pub(crate) fn sit(&mut self, seat: usize) {
        if seat == self.seat {
            return;
        }
        let World { seats, host, reign, .. } = self;
        seats[self.seat] = Seat { host: host.take(), reign: *reign, cut: seats[self.seat].cut };
        (*host, *reign) = (seats[seat].host.take(), seats[seat].reign);
        self.seat = seat;
    }

    /// The leader that a step concerns is looked at.
    fn sit_for(&mut self, step: &Step) {
        if self.plan.leaders == 1 {
            return;
        }
        let seat = match step {
            Step::Turn(Node::Leader, ticket) => (0..self.plan.leaders).find(|&seat| {
                self.sit(seat);
                self.host.as_ref().is_some_and(|host| host.has_turn(*ticket))
            }),
            Step::LeaderCloses(reign, _) | Step::LeaderDies(reign) => {
                (0..self.plan.leaders).find(|&seat| {
                    self.sit(seat);
                    self.reign == *reign
                })
            }
            Step::Knock(wire) | Step::ToLeader(wire) => Some(self.wires[*wire].seat),
            Step::StartLeader(seat) => Some(*seat),
            _ => None,
        };
        if let Some(seat) = seat {
            self.sit(seat);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Turn(Node::Leader, ticket) => self.leader_turn(ticket),
            Step::JournalReads(number) => self.journal_reads(number),
            Step::JournalAnswers(number, trouble) => self.journal_answers(number, trouble),
            Step::Turn(Node::Client(client), ticket) => self.client_turn(client, ticket),
            Step::Knock(wire) => self.knock(wire),
            Step::ToLeader(wire) => self.arrive_at_leader(wire),
            Step::ToClient(wire) => self.arrive_at_client(wire),
            Step::DiskDone(reign) if reign == self.reign => self.disk_done(),
            Step::LeaderCloses(reign, wire) if reign == self.reign => self.leader_closes(wire),
            Step::LeaderEnds(reign) if reign == self.reign => self.leave_the_disk(),
            Step::LeaderDies(reign) if reign == self.reign => self.leader_dies(),
            Step::DiskDone(_) | Step::LeaderCloses(..) => {}
            Step::LeaderEnds(_) | Step::LeaderDies(_) => {}
            Step::ClientCloses(client, life, number) if life == self.lives[client] => {
                self.client_closes(client, number);
            }
            Step::StartLeader(seat) => self.start_leader(seat),
            Step::StartAbove(reign) if reign == self.reign => self.start_above(),
            Step::StartAbove(_) => {}
            Step::StartClient(client) => self.start_client(client),
            Step::Fault => self.fault(),
            Step::Task(client, life, task) if life == self.lives[client] => {
                self.task(client, task);
            }
            Step::GiveUp(client, life, task, op) if life == self.lives[client] => {
                self.give_up(client, task, op);
            }
            Step::LookAfter(client, life, name, lease) if life == self.lives[client] => {
                self.look_after(client, name, lease);
            }
            Step::Told(client, life, lease) if life == self.lives[client] => {
                self.told(client, lease);
            }
            Step::Leave(client, life) if life == self.lives[client] => self.leave(client),
            Step::ClientCloses(..) => {}
            Step::Task(..) | Step::GiveUp(..) | Step::Told(..) | Step::Leave(..) => {}
            Step::LookAfter(..) => {}
        }
    }

    pub(crate) fn after(&mut self, delay: Truth, step: Step) {
        self.at(self.truth + delay, step);
    }

    pub(crate) fn at(&mut self, at: Truth, step: Step) {
        self.order += 1;
        self.steps.push(Reverse(Scheduled { at, order: self.order, step }));
    }

    /// When something is due next.
    pub(crate) fn next_at(&self) -> Truth {
        self.steps.peek().map_or(Truth::MAX, |Reverse(scheduled)| scheduled.at)
    }

    /// Plans a turn for then, unless there is one before that.
    pub(crate) fn plan_turn(&mut self, node: Node, ticket: Ticket, at: Truth) -> Ticket {
        if ticket.at <= at {
            return ticket;
        }
        let ticket = Ticket { at, number: self.order + 1 };
        self.at(at, Step::Turn(node, ticket));
        ticket
    }

    /// Until when the process that this step concerns is paused. The network goes on: what it
    /// brings waits in the node's own buffers.
    fn paused_until(&self, step: &Step) -> Option<Truth> {
        let process = match step {
            Step::Turn(node, _) => self.process_of(*node),
            Step::Task(client, ..)
            | Step::GiveUp(client, ..)
            | Step::Told(client, ..)
            | Step::LookAfter(client, ..) => self.process_of(Node::Client(*client)),
            _ => return None,
        };
        let until = self.processes[process].paused_until;
        (until > self.truth).then_some(until)
    }

    pub(crate) fn process_of(&self, node: Node) -> usize {
        match node {
            Node::Client(client) => client,
            Node::Leader => self.plan.leader() + self.seat,
        }
    }

    /// Which process it is, and which run of it.
    pub(crate) fn mark(&self, node: Node) -> ProcessMark {
        let process = self.process_of(node);
        ProcessMark((process as u128) << 32 | u128::from(self.processes[process].starts))
    }

    /// The node's own time.
    pub(crate) fn clock(&self, node: Node) -> Time {
        self.processes[self.process_of(node)].clock.read(self.truth)
    }

    pub(crate) fn when(&self, node: Node, time: Time) -> Truth {
        self.processes[self.process_of(node)].clock.when(time)
    }

    /// Pauses the process for a while; whether it was in the middle of a turn decides the caller.
    pub(crate) fn pause(&mut self, process: usize, pause: Truth) {
        if self.is_to_run_on(process) {
            return;
        }
        let until = &mut self.processes[process].paused_until;
        *until = (*until).max(self.truth + pause);
        let until = *until;
        self.pause_member(process, until);
    }

    /// Whether this turn is to be interrupted here.
    pub(crate) fn stalls_here(&mut self, node: Node) -> bool {
        let process = self.process_of(node);
        let may_stall = self.processes[process].stall.is_some() && !self.is_to_run_on(process);
        if !may_stall || !self.dice.percent(40) {
            return false;
        }
        let stall = self.processes[process].stall.take().expect("just seen");
        note!(self, "{node:?} stalls in the middle of a turn for {:?}", shown(stall));
        self.pause(process, stall);
        self.tally.stalls += 1;
        true
    }

    pub(crate) fn violate(&mut self, rule: Rule, text: String) {
        if self.violation.is_none() {
            note!(self, "VIOLATION of {rule:?}: {text}");
            let at = self.truth;
            self.violation = Some(Violation { seed: self.seed, rule, at, text });
        }
    }

    /// All have had what they wanted, and nothing is left over.
    fn is_at_rest(&self) -> bool {
        let all = self.plan.clients * self.plan.tasks;
        self.content.len() == all
            && self
                .managers
                .iter()
                .all(|manager| manager.as_ref().is_some_and(|manager| manager.is_idle()))
            && self.leftovers().is_empty()
    }

    /// What the leader still has, though no user wants anything and no client keeps it.
    fn leftovers(&self) -> Vec<String> {
        let hosts = self.seats.iter().filter_map(|seat| seat.host.as_ref()).chain(&self.host);
        let reigning = self.journal.head.reign;
        let mut hosts = hosts.filter(|host| host.is_of(reigning));
        let Some(host) = hosts.next() else { return vec!["there is no leader".to_owned()] };
        let is_kept = |lease: LeaseId| {
            let tiers = self.managers.iter().flatten().flat_map(|manager| &manager.tiers);
            tiers.into_iter().any(|tier| tier.keeps(lease))
        };
        host.leader
            .locks()
            .filter(|(_, leases, waiters)| *waiters > 0 || leases.iter().any(|l| !is_kept(*l)))
            .map(|(name, leases, waiters)| format!("{name}: {leases:?} and {waiters} waiters"))
            .collect()
    }

    /// The end has come, and a user still waits.
    fn complain(&mut self) {
        let mut trouble = Vec::new();
        for (client, manager) in self.managers.iter().enumerate() {
            match manager {
                None => trouble.push(format!("client {client} is gone")),
                Some(manager) if !manager.is_idle() => {
                    trouble.push(format!("client {client}: {:?}", manager.tasks));
                }
                Some(_) => {}
            }
            for task in 0..self.plan.tasks {
                if !self.content.contains(&(client, task)) {
                    trouble.push(format!("task {task} of client {client} had no last word"));
                }
            }
        }
        trouble.extend(self.leftovers());
        self.violate(Rule::Liveness, trouble.join("; "));
    }

    fn check_histories(&mut self) {
        if self.past.branch == Branch::Restored {
            return;
        }
        for name in 0..self.names.len() {
            let history = history::of(&self.ops, name, self.past.branch);
            if let Err(text) = history::check(&history) {
                for entry in &history {
                    note!(self, "{}: {entry:?}", self.names[name]);
                }
                let name = self.names[name].clone();
                self.violate(Rule::Linearizable, format!("{name}: {text}"));
            }
        }
    }

    /// How long a packet takes.
    pub(crate) fn delay(&mut self) -> Truth {
        match self.dice.below(20) {
            0 => self.dice.below(600 * MS),
            1..=3 => self.dice.below(50 * MS),
            _ => self.dice.below(3 * MS),
        }
    }
}
