//! A small world: one leader that is killed, stalled and restarted, clients whose clocks run
//! differently and who are stopped, killed and cut off, and a disk that forgets what it did not
//! confirm. In true time, at every step: at most one believer per name, tokens only grow, no
//! grant to a request that was cancelled; and in the end nobody waits for ever.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    time::Duration,
};

use super::Dice;
use crate::{
    error::Predecessor,
    name::Name,
    proto::{
        ClusterId, ConnectionId, LeaseId, ProcessMark, ReignId, RequestId, SessionId,
        client::{self, Client, Ended, Event, Failure},
        leader::{self, Leader},
        record::{Pending, Recovered},
        wire::{
            Acquire, ClientMessage, FrameReader, Identity, LeaderMessage, Message, Wait,
            decode_record, encode_frame, encode_record,
        },
    },
    time::Time,
    token::Token,
};

#[test]
fn in_a_world_where_everything_fails_there_is_one_believer_and_nobody_waits_for_ever() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds: std::ops::Range<u64> = match number("TIERLOCK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIERLOCK_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = Tally::default();
    for seed in seeds {
        let tally = World::new(seed).run();
        sum.grants += tally.grants;
        sum.losses += tally.losses;
        sum.restarts += tally.restarts;
        sum.gone += tally.gone;
        sum.breaks += tally.breaks;
        sum.reclaims += tally.reclaims;
        sum.kept += tally.kept;
        sum.recalls += tally.recalls;
    }
    // A world in which nothing happens proves nothing.
    assert!(sum.grants > 0, "{sum:?}");
    assert!((sum.kept > 0 && sum.recalls > 0) || sum.restarts < 100, "{sum:?}");
    assert!(sum.reclaims > 0 || sum.restarts < 100, "{sum:?}");
    println!("{sum:?}");
}

const SEEDS: u64 = 300;

const EMBEDDED: ProcessMark = ProcessMark(u128::MAX);

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// Until when faults happen; later everybody must come to an end.
const TROUBLE: u64 = 15 * SECOND;
const END: u64 = 75 * SECOND;

/// How long everybody is watched after the last has come to an end: long enough for every
/// session to run out.
const REST: u64 = 4 * SECOND;

#[derive(Debug, Default)]
struct Tally {
    grants: u64,
    losses: u64,
    restarts: u64,
    gone: u64,
    breaks: u64,
    reclaims: u64,
    /// Locks out of a kept lease, and recalls.
    kept: u64,
    recalls: u64,
}

/// A clock that is up to 1 % off.
#[derive(Clone, Copy)]
struct Clock {
    origin: u64,
    rate: u64, // in millionths
}

impl Clock {
    fn new(dice: &mut Dice) -> Clock {
        let rate = match dice.below(3) {
            0 => 990_000,
            1 => 1_010_000,
            _ => 990_000 + dice.below(20_001),
        };
        Clock { origin: dice.below(1000) * SECOND, rate }
    }

    fn read(&self, truth: u64) -> Time {
        Time::from_nanos(
            self.origin + (u128::from(truth) * u128::from(self.rate) / 1_000_000) as u64,
        )
    }

    /// The true time at which it shows `time`, or a little later.
    fn when(&self, time: Time) -> u64 {
        let own = u128::from(time.as_nanos().saturating_sub(self.origin));
        u64::try_from(own * 1_000_000 / u128::from(self.rate) + 1).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Node {
    Leader,
    /// With the life it has: a killed process's successor is another.
    Client(usize, u32),
}

enum Step {
    Wake(Node),
    ToLeader(usize, ClientMessage),
    ToClient(usize, LeaderMessage),
    LeaderSeesConnection(usize),
    ClientSeesConnection(usize),
    LeaderSeesEnd(usize),
    ClientSeesEnd(usize),
    Commit,
    Restart,
    Trouble,
    Task(Node, usize),
    GiveUp(Node, usize, RequestId),
}

struct Scheduled {
    at: u64,
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

/// A connection between a client's life and a leader's.
struct Wire {
    client: Node,
    number: ConnectionId,
    reign: u32,
    /// What is under way arrives up to this time.
    cut_to_leader: u64,
    cut_to_client: u64,
    last_to_leader: u64,
    last_to_client: u64,
    session: Option<SessionId>,
    /// The leases it has reported to the leader.
    reported: Vec<LeaseId>,
    leader_knows: bool,
}

struct Process {
    client: Client,
    life: u32,
    clock: Clock,
    stopped_until: u64,
    wires: BTreeMap<ConnectionId, usize>,
    deadline: Option<Time>,
    tasks: Vec<Task>,
    cancelled: BTreeSet<RequestId>,
    next_wake: u64,
}

#[derive(Clone, Debug)]
enum Task {
    Idle,
    Waiting {
        request: RequestId,
        name: usize,
    },
    Holding {
        lease: LeaseId,
        name: usize,
        token: Token,
        at_most: Option<Time>,
        block: Block,
    },
    /// A lease without a guard; `token` is the last one used.
    Kept {
        lease: LeaseId,
        name: usize,
        token: Token,
        block: Block,
    },
    Lost {
        lease: LeaseId,
    },
}

/// What a lease that may be kept has left.
#[derive(Clone, Copy, Debug)]
struct Block {
    last: Token,
    recalled: bool,
}

struct Host {
    leader: Leader,
    clock: Clock,
    stopped_until: u64,
    pending: VecDeque<(u64, Pending)>,
    failed: bool,
    next_wake: u64,
}

struct World {
    seed: u64,
    dice: Dice,
    truth: u64,
    order: u64,
    steps: BinaryHeap<Reverse<Scheduled>>,
    host: Option<Host>,
    host_clock: Clock,
    reign: u32,
    /// Durable records, as bytes.
    disk: Vec<Vec<u8>>,
    wires: Vec<Wire>,
    processes: Vec<Process>,
    names: Vec<Name>,
    last_token: Vec<Token>,
    tally: Tally,
    telling: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed + 1);
        let names = ["alpha", "beta", "gamma"].map(|name| Name::new(name).unwrap()).to_vec();
        let host_clock = Clock::new(&mut dice);
        let mut world = World {
            seed,
            truth: 0,
            order: 0,
            steps: BinaryHeap::new(),
            host: None,
            host_clock,
            reign: 0,
            disk: Vec::new(),
            wires: Vec::new(),
            processes: Vec::new(),
            last_token: vec![Token::ZERO; names.len()],
            names,
            tally: Tally::default(),
            telling: std::env::var_os("TIERLOCK_SEED").is_some(),
            dice,
        };
        world.restart();
        for index in 0..3 + world.dice.below(2) as usize {
            let process = world.process(index, 0);
            world.processes.push(process);
            world.start(index);
        }
        let first = world.dice.below(2 * SECOND);
        world.after(first, Step::Trouble);
        world
    }

    fn process(&mut self, index: usize, life: u32) -> Process {
        let clock = Clock::new(&mut self.dice);
        let config = client::Config {
            time_to_live: Duration::from_millis(1000 + self.dice.below(1500)),
            connect_timeout: Duration::from_secs(3),
            identity: Identity::new("world", "here", life, "sim"),
            addresses: 1,
            process: if index == 0 && self.embeds() { EMBEDDED } else { ProcessMark(life.into()) },
        };
        let random = self.dice.random();
        Process {
            client: Client::new(config, random, clock.read(self.truth)),
            life,
            clock,
            stopped_until: 0,
            wires: BTreeMap::new(),
            deadline: None,
            tasks: vec![Task::Idle; 2],
            cancelled: BTreeSet::new(),
            next_wake: u64::MAX,
        }
    }

    fn start(&mut self, index: usize) {
        let node = Node::Client(index, self.processes[index].life);
        for task in 0..self.processes[index].tasks.len() {
            let delay = self.dice.below(500 * MS);
            self.after(delay, Step::Task(node, task));
        }
    }

    fn run(mut self) -> Tally {
        let mut idle_since = None;
        while let Some(Reverse(scheduled)) = self.steps.pop() {
            if scheduled.at > END || idle_since.is_some_and(|since| since + REST < scheduled.at) {
                break;
            }
            let idle = scheduled.at > TROUBLE + 2 * SECOND && self.is_idle();
            idle_since = if idle { idle_since.or(Some(scheduled.at)) } else { None };
            self.truth = self.truth.max(scheduled.at);
            if let Some(later) = self.stopped_until(&scheduled.step) {
                self.steps.push(Reverse(Scheduled { at: later, ..scheduled }));
                continue;
            }
            self.step(scheduled.step);
            self.check_believers();
        }
        for (index, process) in self.processes.iter().enumerate() {
            for task in &process.tasks {
                let idle = matches!(task, Task::Idle);
                assert!(idle, "seed {}: in the end client {index} is {task:?}", self.seed);
            }
        }
        let held = self.host.as_ref().expect("the leader is back").leader.held();
        assert_eq!(held, 0, "seed {}: in the end locks are still held", self.seed);
        self.tally
    }

    fn is_idle(&self) -> bool {
        let mut tasks = self.processes.iter().flat_map(|process| &process.tasks);
        tasks.all(|task| matches!(task, Task::Idle))
    }

    /// Until when the node that this step concerns is stopped.
    fn stopped_until(&self, step: &Step) -> Option<u64> {
        let until = match step {
            Step::Wake(Node::Leader)
            | Step::ToLeader(..)
            | Step::LeaderSeesConnection(_)
            | Step::LeaderSeesEnd(_)
            | Step::Commit => self.host.as_ref()?.stopped_until,
            Step::ToClient(wire, _)
            | Step::ClientSeesConnection(wire)
            | Step::ClientSeesEnd(wire) => self.live(self.wires[*wire].client)?.stopped_until,
            Step::Wake(node) | Step::Task(node, _) | Step::GiveUp(node, ..) => {
                self.live(*node)?.stopped_until
            }
            Step::Restart | Step::Trouble => 0,
        };
        (until > self.truth).then_some(until)
    }

    /// Tells what happens when one seed is looked at.
    fn note(&self, text: impl FnOnce() -> String) {
        if self.telling {
            println!("{:?} {}", Duration::from_nanos(self.truth), text());
        }
    }

    fn live(&self, node: Node) -> Option<&Process> {
        let Node::Client(index, life) = node else { return None };
        self.processes.get(index).filter(|process| process.life == life)
    }

    fn after(&mut self, delay: u64, step: Step) {
        self.at(self.truth + delay, step);
    }

    fn at(&mut self, at: u64, step: Step) {
        self.order += 1;
        self.steps.push(Reverse(Scheduled { at, order: self.order, step }));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wake(Node::Leader) => {
                let Some(host) = &mut self.host else { return };
                host.next_wake = u64::MAX;
                self.leader(|leader, now| leader.handle_timeout(now));
            }
            Step::Wake(node) => {
                let Node::Client(index, life) = node else { unreachable!() };
                if self.processes[index].life == life {
                    self.processes[index].next_wake = u64::MAX;
                    self.client(node, |client, now| client.handle_timeout(now));
                }
            }
            Step::ToLeader(wire, message) => self.arrive_at_leader(wire, message),
            Step::ToClient(wire, message) => {
                let Wire { client, number, cut_to_client, .. } = self.wires[wire];
                if self.truth <= cut_to_client {
                    self.note(|| format!("{client:?} reads {message:?}"));
                    if let LeaderMessage::Gone { .. } = message {
                        self.tally.gone += 1;
                    }
                    self.client(client, |client, now| client.handle_message(number, message, now));
                }
            }
            Step::LeaderSeesConnection(wire) => self.leader_sees_connection(wire),
            Step::ClientSeesConnection(wire) => {
                let Wire { client, number, cut_to_client, .. } = self.wires[wire];
                if self.truth <= cut_to_client {
                    self.client(client, |client, now| client.handle_connected(number, now));
                }
            }
            Step::LeaderSeesEnd(wire) => {
                if self.wires[wire].reign == self.reign && self.wires[wire].leader_knows {
                    self.wires[wire].leader_knows = false;
                    let number = ConnectionId(wire as u64);
                    self.leader(|leader, now| leader.handle_disconnected(number, now));
                }
            }
            Step::ClientSeesEnd(wire) => {
                let Wire { client, number, .. } = self.wires[wire];
                let ended = Ended::Disconnected("cut".to_owned());
                self.client(client, |client, now| client.handle_ended(number, ended, now));
            }
            Step::Commit => self.commit(),
            Step::Restart => self.restart(),
            Step::Trouble => self.trouble(),
            Step::Task(node, task) => self.task(node, task),
            Step::GiveUp(node, task, request) => self.give_up(node, task, request),
        }
    }

    fn check_believers(&self) {
        for (index, name) in self.names.iter().enumerate() {
            let believers: Vec<_> = self
                .processes
                .iter()
                .enumerate()
                .flat_map(|(who, process)| {
                    process.tasks.iter().map(move |task| (who, process, task))
                })
                .filter_map(|(who, process, task)| match *task {
                    Task::Holding { name, token, at_most, lease, .. } if name == index => {
                        let now = process.clock.read(self.truth);
                        let believes = process.deadline.is_some_and(|deadline| now < deadline)
                            && at_most.is_none_or(|end| now < end);
                        believes.then_some((who, lease, token))
                    }
                    _ => None,
                })
                .collect();
            assert!(
                believers.len() <= 1,
                "seed {}: {name} has the believers {believers:?} at {:?}",
                self.seed,
                Duration::from_nanos(self.truth)
            );
        }
    }
}

// The leader's side.
impl World {
    fn restart(&mut self) {
        let mut recovered = Recovered::new(ClusterId(7));
        for bytes in &self.disk {
            recovered.remember(&decode_record(bytes).unwrap());
        }
        let config = leader::Config {
            time_to_live_max: Duration::from_secs(60),
            sessions_max: 1000,
            leases_per_session_max: 1000,
            waiters_per_session_max: 1000,
            block: leader::BLOCK,
            claims_max: 100_000,
            epoch_above: None,
            process: self.embeds().then_some(EMBEDDED),
            reign: ReignId(u64::from(self.reign) + 1),
        };
        self.reign += 1;
        let clock = self.host_clock;
        self.host = Some(Host {
            leader: Leader::new(config, recovered, clock.read(self.truth)),
            clock,
            stopped_until: 0,
            pending: VecDeque::new(),
            failed: false,
            next_wake: u64::MAX,
        });
        self.leader(|leader, now| leader.handle_timeout(now));
    }

    fn leader(&mut self, act: impl FnOnce(&mut Leader, Time)) {
        let Some(host) = &mut self.host else { return };
        act(&mut host.leader, host.clock.read(self.truth));
        self.drive_leader();
    }

    fn drive_leader(&mut self) {
        let Some(mut host) = self.host.take() else { return };
        while let Some(pending) = host.leader.poll_record() {
            let last = host.pending.back().map_or(0, |(at, _)| *at);
            let slow = if self.dice.percent(5) { 300 } else { 10 };
            let at = last.max(self.truth + self.dice.below(slow * MS));
            host.pending.push_back((at, pending));
            self.at(at, Step::Commit);
        }
        while let Some((connection, message)) = host.leader.poll_message() {
            self.send_to_client(connection.0 as usize, message);
        }
        while let Some((connection, why)) = host.leader.poll_close() {
            assert!(
                !matches!(why, leader::Close::Protocol(_)),
                "seed {}: the leader closes with {why:?}",
                self.seed
            );
            let wire = connection.0 as usize;
            self.wires[wire].leader_knows = false;
            let cut = self.truth + self.dice.below(20 * MS);
            let wire_state = &mut self.wires[wire];
            wire_state.cut_to_leader = 0;
            wire_state.cut_to_client = wire_state.cut_to_client.min(cut);
            self.at(cut + 1, Step::ClientSeesEnd(wire));
        }
        assert_eq!(host.leader.poll_notice(), None, "seed {}", self.seed);
        if let Some(next) = host.leader.poll_timeout() {
            let at = host.clock.when(next).max(self.truth + 1);
            if at < host.next_wake {
                host.next_wake = at;
                self.at(at, Step::Wake(Node::Leader));
            }
        }
        self.host = Some(host);
    }

    fn arrive_at_leader(&mut self, wire: usize, message: ClientMessage) {
        let Wire { reign, cut_to_leader, leader_knows, session, .. } = &self.wires[wire];
        let (reign, cut_to_leader, leader_knows, session) =
            (*reign, *cut_to_leader, *leader_knows, *session);
        if reign != self.reign || self.truth > cut_to_leader || !leader_knows {
            return;
        }
        self.note(|| format!("leader, from {:?}: {message:?}", self.wires[wire].client));
        match &message {
            ClientMessage::Hello { session, .. } => self.wires[wire].session = Some(*session),
            ClientMessage::Held { leases } => {
                let leases = leases.iter().filter(|held| held.leaving.is_none());
                self.wires[wire].reported.extend(leases.map(|held| held.lease));
            }
            _ => {}
        }
        let is_whole = message == ClientMessage::Ready;
        let cancelled = match message {
            ClientMessage::Cancel { request } => Some(request),
            _ => None,
        };
        let connection = ConnectionId(wire as u64);
        self.leader(|leader, now| leader.handle_message(connection, message, now));
        if let (Some(request), Some(session), Some(host)) = (cancelled, session, &self.host) {
            let newest = host.leader.connection_of(session) == Some(connection);
            let waits = newest && host.leader.waits(session, request);
            assert!(!waits, "seed {}: {request:?} waits after its cancel", self.seed);
        }
        if let (true, Some(session), Some(host)) = (is_whole, session, &self.host) {
            let reported = std::mem::take(&mut self.wires[wire].reported);
            let reclaimed = |lease: &&LeaseId| host.leader.reclaimed(session, **lease);
            self.tally.reclaims += reported.iter().filter(reclaimed).count() as u64;
        }
    }

    fn leader_sees_connection(&mut self, wire: usize) {
        let up = self.host.is_some() && self.wires[wire].reign == self.reign;
        if !up || self.truth > self.wires[wire].cut_to_leader {
            return self.at(self.truth + 1, Step::ClientSeesEnd(wire));
        }
        self.wires[wire].leader_knows = true;
        let number = ConnectionId(wire as u64);
        self.leader(|leader, now| leader.handle_connected(number, now));
        let delay = self.dice.below(3 * MS);
        let arrival = self.truth + delay;
        self.wires[wire].last_to_client = arrival;
        self.at(arrival, Step::ClientSeesConnection(wire));
    }

    fn send_to_client(&mut self, wire: usize, message: LeaderMessage) {
        if self.truth > self.wires[wire].cut_to_client {
            return;
        }
        let delay = self.delay();
        let arrival = (self.truth + delay).max(self.wires[wire].last_to_client);
        self.wires[wire].last_to_client = arrival;
        self.at(arrival, Step::ToClient(wire, over_the_wire(&message)));
    }

    fn commit(&mut self) {
        let Some(host) = &mut self.host else { return };
        if host.failed || host.pending.front().is_none_or(|(at, _)| *at > self.truth) {
            return;
        }
        let (_, pending) = host.pending.pop_front().unwrap();
        self.disk.push(encode_record(pending.record()));
        let committed = pending.committed();
        self.leader(|leader, now| leader.handle_committed(committed, now));
    }

    /// Whether the leader runs in the process of the first client.
    fn embeds(&self) -> bool {
        self.seed.is_multiple_of(3)
    }

    /// Dead at once. What was on its way to the disk may have reached it.
    fn kill_leader(&mut self) {
        let Some(host) = self.host.take() else { return };
        if self.embeds() {
            self.end_client(0);
        }
        self.tally.restarts += 1;
        let reached = self.dice.below(host.pending.len() as u64 + 1) as usize;
        for (_, pending) in host.pending.into_iter().take(reached) {
            self.disk.push(encode_record(pending.record()));
        }
        for wire in 0..self.wires.len() {
            if self.wires[wire].reign == self.reign {
                self.cut(wire, true);
            }
        }
        // Mostly at once: then most holders come back while they believe.
        let longest = if self.dice.percent(70) { 100 * MS } else { 1500 * MS };
        let delay = self.dice.below(longest);
        self.after(delay, Step::Restart);
    }
}

/// Nothing reaches the other side but bytes.
fn over_the_wire<M: Message>(message: &M) -> M {
    let mut bytes = Vec::new();
    encode_frame(message, &mut bytes).unwrap();
    let mut reader = FrameReader::new();
    reader.extend(&bytes);
    reader.next().unwrap().unwrap()
}

// The clients' side.
impl World {
    fn client(&mut self, node: Node, act: impl FnOnce(&mut Client, Time)) {
        let Node::Client(index, life) = node else { unreachable!() };
        let now = {
            let Some(process) = self.processes.get(index).filter(|p| p.life == life) else {
                return;
            };
            process.clock.read(self.truth)
        };
        act(&mut self.processes[index].client, now);
        self.drive_client(index, now);
    }

    fn drive_client(&mut self, index: usize, now: Time) {
        let node = Node::Client(index, self.processes[index].life);
        while let Some(event) = self.processes[index].client.poll_event() {
            self.event(index, event);
        }
        while let Some((number, _)) = self.processes[index].client.poll_connect() {
            self.connect(index, number);
        }
        while let Some((number, message)) = self.processes[index].client.poll_message(now) {
            if let Some(&wire) = self.processes[index].wires.get(&number) {
                self.send_to_leader(wire, message);
            }
        }
        // What was said with `now` may have had events.
        while let Some(event) = self.processes[index].client.poll_event() {
            self.event(index, event);
        }
        while let Some(number) = self.processes[index].client.poll_close() {
            if let Some(wire) = self.processes[index].wires.remove(&number) {
                self.cut(wire, false);
            }
        }
        let process = &mut self.processes[index];
        if let Some(next) = process.client.poll_timeout() {
            let at = process.clock.when(next).max(self.truth + 1);
            if at < process.next_wake {
                process.next_wake = at;
                self.at(at, Step::Wake(node));
            }
        }
    }

    fn connect(&mut self, index: usize, number: ConnectionId) {
        let client = Node::Client(index, self.processes[index].life);
        let wire = self.wires.len();
        self.wires.push(Wire {
            client,
            number,
            reign: self.reign,
            cut_to_leader: u64::MAX,
            cut_to_client: u64::MAX,
            last_to_leader: 0,
            last_to_client: 0,
            session: None,
            reported: Vec::new(),
            leader_knows: false,
        });
        self.processes[index].wires.insert(number, wire);
        let delay = self.delay();
        if self.host.is_some() {
            self.after(delay, Step::LeaderSeesConnection(wire));
        } else {
            self.after(delay, Step::ClientSeesEnd(wire));
        }
    }

    fn send_to_leader(&mut self, wire: usize, message: ClientMessage) {
        if self.truth > self.wires[wire].cut_to_leader {
            return;
        }
        let delay = self.delay();
        let arrival = (self.truth + delay).max(self.wires[wire].last_to_leader);
        self.wires[wire].last_to_leader = arrival;
        self.at(arrival, Step::ToLeader(wire, over_the_wire(&message)));
    }

    /// A connection breaks: some of what is under way arrives, and each side learns of it later.
    fn cut(&mut self, wire: usize, client_soon: bool) {
        let (to_leader, to_client) =
            (self.truth + self.dice.below(20 * MS), self.truth + self.dice.below(20 * MS));
        let state = &mut self.wires[wire];
        state.cut_to_leader = state.cut_to_leader.min(to_leader);
        state.cut_to_client = state.cut_to_client.min(to_client);
        let longest = if client_soon && self.dice.percent(70) { 30 * MS } else { 2 * SECOND };
        let (leader_learns, client_learns) =
            (self.dice.below(2 * SECOND), self.dice.below(longest));
        self.at(to_leader + 1 + leader_learns, Step::LeaderSeesEnd(wire));
        self.at(to_client + 1 + client_learns, Step::ClientSeesEnd(wire));
    }

    fn delay(&mut self) -> u64 {
        match self.dice.below(20) {
            0 => self.dice.below(600 * MS),
            1..=3 => self.dice.below(50 * MS),
            _ => self.dice.below(3 * MS),
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        self.note(|| format!("client {index}: {event:?}"));
        let process = &mut self.processes[index];
        let node = Node::Client(index, process.life);
        let waiting = |tasks: &[Task], wanted: RequestId| {
            tasks.iter().position(
                |task| matches!(task, Task::Waiting { request, .. } if *request == wanted),
            )
        };
        match event {
            Event::Granted { request, lease, first, last, at_most, .. } => {
                let seed = self.seed;
                assert!(
                    !process.cancelled.contains(&request),
                    "seed {seed}: {request:?} is granted though cancelled"
                );
                assert!(first <= last);
                let task = waiting(&process.tasks, request).expect("a grant was asked for");
                let Task::Waiting { name, .. } = process.tasks[task] else { unreachable!() };
                let before = std::mem::replace(&mut self.last_token[name], first);
                assert!(before < first, "seed {seed}: after token {before} comes {first}");
                let block = Block { last, recalled: false };
                process.tasks[task] = Task::Holding { lease, name, token: first, at_most, block };
                self.tally.grants += 1;
                let long = if self.dice.percent(15) { 4000 } else { 300 };
                let hold = self.dice.below(long * MS);
                self.after(hold, Step::Task(node, task));
            }
            Event::Failed { request, failure, .. } => {
                assert!(
                    matches!(failure, Failure::Refused { .. } | Failure::Unreachable(_)),
                    "seed {}: {failure:?}",
                    self.seed
                );
                let task = waiting(&process.tasks, request).expect("a failure was asked for");
                process.tasks[task] = Task::Idle;
                let rest = self.dice.below(300 * MS);
                self.after(rest, Step::Task(node, task));
            }
            Event::LeaseLost { lease: lost, .. } => {
                self.tally.losses += 1;
                for task in &mut process.tasks {
                    if matches!(
                        task, Task::Holding { lease, .. } | Task::Kept { lease, .. } if *lease == lost
                    ) {
                        *task = Task::Lost { lease: lost };
                    }
                }
            }
            Event::Recalled { lease: recalled } => {
                self.tally.recalls += 1;
                let mut given_back = None;
                for task in &mut process.tasks {
                    match task {
                        Task::Holding { lease, block, .. } if *lease == recalled => {
                            block.recalled = true;
                            process.client.is_kept(recalled, false);
                        }
                        Task::Kept { lease, token, .. } if *lease == recalled => {
                            given_back = Some(*token);
                            *task = Task::Idle;
                        }
                        _ => {}
                    }
                }
                if let Some(token) = given_back {
                    self.client(node, |client, now| {
                        client.release(recalled, token, Predecessor::Clean, now);
                    });
                }
            }
            Event::ToppedUp { lease: more, last } => {
                for task in &mut process.tasks {
                    if let Task::Holding { lease, block, .. } | Task::Kept { lease, block, .. } =
                        task
                        && *lease == more
                    {
                        block.last = last;
                    }
                }
            }
            Event::DeadlineMoved { deadline } => process.deadline = Some(deadline),
            Event::Broke { found, .. } => self.tally.breaks += u64::from(found),
            Event::AtRisk { .. }
            | Event::Queued { .. }
            | Event::Released { .. }
            | Event::Checked { .. }
            | Event::Listed { .. }
            | Event::QueryFailed { .. }
            | Event::Closed => {}
        }
    }

    fn task(&mut self, node: Node, task: usize) {
        let Some(process) = self.live(node) else { return };
        let Node::Client(index, _) = node else { unreachable!() };
        match process.tasks[task].clone() {
            Task::Idle if self.truth < TROUBLE + 2 * SECOND => self.ask(node, index, task),
            Task::Idle | Task::Waiting { .. } => {}
            Task::Holding { lease, name, token, block, .. }
                if token < block.last && !block.recalled && self.dice.percent(60) =>
            {
                self.processes[index].tasks[task] = Task::Kept { lease, name, token, block };
                if self.dice.percent(30) {
                    self.client(node, |client, _| client.is_kept(lease, true));
                }
                let rest = self.dice.below(200 * MS);
                self.after(rest, Step::Task(node, task));
            }
            Task::Kept { lease, name, token, block } => {
                self.enter_kept(node, index, task, (lease, name, token, block));
            }
            Task::Holding { lease, token, .. } => {
                self.processes[index].tasks[task] = Task::Idle;
                let how =
                    if self.dice.percent(10) { Predecessor::Panicked } else { Predecessor::Clean };
                self.client(node, |client, now| client.release(lease, token, how, now));
                let rest = self.dice.below(100 * MS);
                self.after(rest, Step::Task(node, task));
            }
            Task::Lost { lease } => {
                self.processes[index].tasks[task] = Task::Idle;
                self.client(node, |client, now| {
                    client.release(lease, Token::ZERO, Predecessor::Clean, now);
                });
                self.after(MS, Step::Task(node, task));
            }
        }
    }

    /// Takes the next token of a kept lease, if its deadline has not passed, or gives it back.
    fn enter_kept(
        &mut self,
        node: Node,
        index: usize,
        task: usize,
        (lease, name, token, block): (LeaseId, usize, Token, Block),
    ) {
        let process = &self.processes[index];
        let now = process.clock.read(self.truth);
        let is_good = process.deadline.is_some_and(|deadline| now < deadline);
        let goes_on = self.truth < TROUBLE + 2 * SECOND && self.dice.percent(70);
        if !(goes_on && is_good && token < block.last) {
            self.processes[index].tasks[task] = Task::Idle;
            self.client(node, |client, now| {
                client.release(lease, token, Predecessor::Clean, now);
            });
            return self.after(MS, Step::Task(node, task));
        }
        let token = token.next().expect("a block ends before tokens do");
        let before = std::mem::replace(&mut self.last_token[name], token);
        assert!(before < token, "seed {}: after token {before} comes a kept {token}", self.seed);
        self.tally.kept += 1;
        let at_most = None;
        self.processes[index].tasks[task] = Task::Holding { lease, name, token, at_most, block };
        if self.dice.percent(10) {
            self.client(node, |client, _| client.top_up(lease));
        }
        let hold = self.dice.below(100 * MS);
        self.after(hold, Step::Task(node, task));
    }

    fn ask(&mut self, node: Node, index: usize, task: usize) {
        let name = self.dice.below(self.names.len() as u64) as usize;
        let limit = match self.dice.below(3) {
            0 => Some(Duration::from_millis(20 + self.dice.below(3000))),
            _ => None,
        };
        let wait = if self.dice.percent(15) { Wait::No } else { Wait::Forever };
        let at_most = self.dice.percent(15).then(|| Duration::from_millis(self.dice.below(800)));
        let above = match self.dice.below(50) {
            0 => Token::new(self.last_token[name].get() + self.dice.below(1 << 41)).unwrap(),
            1 => Token::first_of(self.last_token[name].epoch() + 1),
            _ => Token::ZERO,
        };
        let keep = self.dice.percent(50);
        let acquire = Acquire { name: self.names[name].clone(), wait, at_most, keep, above };
        let process = &mut self.processes[index];
        let now = process.clock.read(self.truth);
        let request = process.client.acquire(acquire, limit.map(|limit| now + limit), now);
        process.tasks[task] = Task::Waiting { request, name };
        self.drive_client(index, now);
        if self.dice.percent(20) {
            let patience = self.dice.below(400 * MS);
            self.after(patience, Step::GiveUp(node, task, request));
        }
    }

    fn give_up(&mut self, node: Node, task: usize, request: RequestId) {
        let Some(process) = self.live(node) else { return };
        let Node::Client(index, _) = node else { unreachable!() };
        if matches!(process.tasks[task], Task::Waiting { request: own, .. } if own == request) {
            self.processes[index].tasks[task] = Task::Idle;
            self.processes[index].cancelled.insert(request);
            self.client(node, |client, now| client.cancel(request, now));
            self.after(10 * MS, Step::Task(node, task));
        }
    }
}

// What goes wrong.
impl World {
    fn trouble(&mut self) {
        if self.truth >= TROUBLE {
            return;
        }
        let index = self.dice.below(self.processes.len() as u64) as usize;
        let pause = match self.dice.below(3) {
            0 => self.dice.below(200 * MS),
            1 => self.dice.below(2 * SECOND),
            _ => self.dice.below(5 * SECOND),
        };
        // In every other world the leader survives, so that more happens.
        let first = 2 * (self.seed % 2);
        match first + self.dice.below(11 - first) {
            0 | 1 => self.kill_leader(),
            2 => self.stop_leader(pause),
            3..=5 if index == 0 && self.embeds() => self.stop_leader(pause),
            3..=5 => {
                let until = &mut self.processes[index].stopped_until;
                *until = (*until).max(self.truth + pause);
            }
            6 => self.kill_client(index),
            7..=9 => {
                let wires: Vec<_> = self.processes[index].wires.values().copied().collect();
                for wire in wires {
                    self.cut(wire, false);
                }
            }
            _ => self.break_somebody(index),
        }
        if self.seed.is_multiple_of(8) && self.dice.percent(10) {
            self.fail_disk();
        }
        let next = self.dice.below(1200 * MS);
        self.after(next, Step::Trouble);
    }

    fn stop_leader(&mut self, pause: u64) {
        let Some(host) = &mut self.host else { return };
        host.stopped_until = host.stopped_until.max(self.truth + pause);
        if self.embeds() {
            self.processes[0].stopped_until = self.host.as_ref().unwrap().stopped_until;
        }
    }

    fn kill_client(&mut self, index: usize) {
        if index == 0 && self.embeds() {
            return self.kill_leader();
        }
        self.end_client(index);
    }

    fn end_client(&mut self, index: usize) {
        let life = self.processes[index].life + 1;
        let wires: Vec<_> = self.processes[index].wires.values().copied().collect();
        for wire in wires {
            self.cut(wire, false);
        }
        self.processes[index] = self.process(index, life);
        self.start(index);
    }

    fn break_somebody(&mut self, index: usize) {
        let held =
            self.processes.iter().flat_map(|process| &process.tasks).find_map(|task| match *task {
                Task::Holding { name, token, .. } => Some((self.names[name].clone(), token)),
                _ => None,
            });
        let node = Node::Client(index, self.processes[index].life);
        if let Some((name, token)) = held
            && self.processes[index].stopped_until <= self.truth
        {
            self.client(node, |client, now| {
                client.break_lock(name, token, None, now);
            });
        }
    }

    fn fail_disk(&mut self) {
        let Some(host) = &mut self.host else { return };
        if host.stopped_until <= self.truth && !host.failed {
            host.failed = true;
            self.leader(|leader, now| leader.handle_storage_failed(now));
            self.kill_leader();
        }
    }
}
