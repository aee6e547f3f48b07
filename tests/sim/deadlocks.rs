//! Threads that lock several names in any order: deadlocks are found, and nothing else is taken for one.
//!
//! One leader, a few clients with threads of their own, connections that delay, break and fall silent, and
//! clients that are killed or stopped. A thread has a stack of locks and waits for the next one with those in
//! hand, sometimes with a limit; a task does the same, and may give some of them back while it waits, so it
//! pins nothing, and always has a limit.
//!
//! What holds at every step: a thread that is told of a deadlock waits, and at some moment since it asked it
//! was **stuck**. Stuck are threads of living clients each of which waits, no shorter than it, for a lock
//! that one of them has. In the end every thread of every client that lives has done all its rounds.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tierlock::{
    Name, Predecessor, Time, Token,
    proto::{
        ClientId, ClusterId, ConnectionId, LeaseId, ProcessMark, RequestId,
        client::{Client, ClientConfig, Ended, Event, RequestFailure},
        leader::{LeaderConfig, LeaderMachine},
        mistake::{Mistake, planted},
        record::Recovered,
        wire::{Acquire, ClientMessage, Extras, Identity, LeaderMessage, Wait},
    },
};

use crate::dice::Dice;

const MS: u64 = 1_000_000;
/// Until when clients are killed, stopped and cut off …
const TROUBLED: u64 = 6_000 * MS;
/// … and by when all that live are done.
const ENDS: u64 = 120_000 * MS;
const ROUNDS: u32 = 6;
/// How much earlier or later a limit may end than its client means it to.
const SLACK: u64 = 200 * MS;

/// What many worlds have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeadlockTally {
    pub(crate) told: u64,
    pub(crate) locked: u64,
    pub(crate) timed_out: u64,
    pub(crate) killed: u64,
    pub(crate) cut: u64,
}

struct DeadlockWorld {
    dice: Dice,
    now: u64,
    leader: LeaderMachine,
    clients: Vec<ClientInRing>,
    lines: Vec<LineInRing>,
    names: Vec<Name>,
    tally: DeadlockTally,
    violation: Option<String>,
}

struct ClientInRing {
    /// `None`: killed.
    client: Option<Client>,
    stopped_until: u64,
    threads: Vec<ThreadInRing>,
    by_request: BTreeMap<RequestId, usize>,
}

struct ThreadInRing {
    /// It may give back what it has while it waits.
    is_task: bool,
    held: Vec<(LeaseId, Token, usize)>,
    waits: Option<WaitInRing>,
    /// The names that it wants yet.
    wanted: Vec<usize>,
    rounds: u32,
    moves_at: u64,
}

struct WaitInRing {
    request: RequestId,
    name: usize,
    limit: Option<u64>,
    was_stuck: bool,
}

/// A connection: what is on its way, with when it arrives.
struct LineInRing {
    client: usize,
    at_client: ConnectionId,
    up: VecDeque<(u64, ClientMessage)>,
    down: VecDeque<(u64, LeaderMessage)>,
    /// Each side has been told.
    is_cut: bool,
}

/// Whether nothing was violated, and what was seen.
pub(crate) fn one(seed: u64) -> (DeadlockTally, Result<(), String>) {
    let mut world = DeadlockWorld::new(seed);
    while world.violation.is_none() && !world.is_done() {
        if world.now >= ENDS {
            world.violation = Some(world.stands());
            break;
        }
        world.step();
    }
    let violation = world.violation.map(|text| format!("seed {seed} at {}: {text}", world.now));
    (world.tally, violation.map_or(Ok(()), Err))
}

fn time(truth: u64) -> Time {
    Time::from_nanos(1_000_000 * MS + truth)
}

impl DeadlockWorld {
    fn new(seed: u64) -> DeadlockWorld {
        let mut dice = Dice::new(seed ^ 0xDEAD_10C0_DEAD_10C0);
        let config = LeaderConfig::default();
        let recovered = Recovered::new(ClusterId(1));
        let leader = LeaderMachine::new(config, recovered, time(0));
        let names = 2 + dice.below(3);
        let names = (0..names).map(|at| Name::new(&format!("name-{at}")).unwrap()).collect();
        let clients = 2 + dice.below(3);
        let clients = (0..clients).map(|at| {
            let config = ClientConfig {
                time_to_live: Duration::from_millis(1_000 + dice.below(1_500)),
                connect_timeout: Duration::from_secs(10),
                identity: Identity::new(&format!("client-{at}"), "host", at as u32, "sim"),
                addresses: 1,
                process: ProcessMark(at.into()),
                seen: None,
            };
            let thread = |dice: &mut Dice| ThreadInRing {
                is_task: dice.percent(25),
                held: Vec::new(),
                waits: None,
                wanted: Vec::new(),
                rounds: 0,
                moves_at: dice.below(100 * MS),
            };
            let threads = (0..1 + dice.below(3)).map(|_| thread(&mut dice)).collect();
            ClientInRing {
                client: Some(Client::new(config, dice.random(), time(0))),
                stopped_until: 0,
                threads,
                by_request: BTreeMap::new(),
            }
        });
        let clients = clients.collect();
        DeadlockWorld {
            dice,
            now: 0,
            leader,
            clients,
            lines: Vec::new(),
            names,
            tally: DeadlockTally::default(),
            violation: None,
        }
    }

    fn is_done(&self) -> bool {
        let living = self.clients.iter().filter(|client| client.client.is_some());
        living.flat_map(|client| &client.threads).all(|thread| thread.rounds == ROUNDS)
    }

    /// What is not done in the end.
    fn stands(&self) -> String {
        let threads = self.clients.iter().enumerate().flat_map(|(at, client)| {
            client.threads.iter().map(move |thread| {
                let held: Vec<_> = thread.held.iter().map(|(_, _, name)| name).collect();
                let waits = thread.waits.as_ref().map(|wait| (wait.name, wait.limit));
                format!("{at}: round {}, has {held:?}, waits {waits:?}", thread.rounds)
            })
        });
        format!("not all are done: {}", threads.collect::<Vec<_>>().join("; "))
    }

    fn step(&mut self) {
        self.now += MS;
        self.trouble();
        self.leader.handle_timeout(time(self.now));
        self.carry();
        for at in 0..self.clients.len() {
            let is_up = self.clients[at].stopped_until <= self.now;
            if is_up && self.clients[at].client.is_some() {
                self.turn(at);
                (0..self.clients[at].threads.len()).for_each(|thread| self.act(at, thread));
                self.send(at);
            }
        }
        self.look_which_are_stuck();
    }

    fn trouble(&mut self) {
        if self.now >= TROUBLED || !self.dice.percent(1) {
            return;
        }
        let at = self.dice.below(self.clients.len() as u64) as usize;
        match self.dice.below(10) {
            // Its connection says nothing of that.
            0 if self.clients.iter().filter(|client| client.client.is_some()).count() > 1 => {
                self.tally.killed += u64::from(self.clients[at].client.take().is_some());
                self.clients[at].threads.clear();
            }
            1..5 => {
                self.clients[at].stopped_until = self.now + self.dice.below(3_000) * MS;
            }
            _ => {
                self.tally.cut += 1;
                let own = |line: &&mut LineInRing| line.client == at && !line.is_cut;
                if let Some(line) = self.lines.iter_mut().rev().find(own) {
                    line.is_cut = true;
                    let (number, connection) = (at, line.at_client);
                    let wire = self.wire_of(number, connection);
                    self.leader.handle_disconnected(wire, time(self.now));
                    if let Some(client) = &mut self.clients[at].client {
                        let ended = Ended::Disconnected("cut".to_owned());
                        client.handle_ended(connection, ended, time(self.now));
                    }
                }
            }
        }
    }

    /// Its number at the leader.
    fn wire_of(&self, client: usize, at_client: ConnectionId) -> ConnectionId {
        let is_it = |line: &LineInRing| line.client == client && line.at_client == at_client;
        ConnectionId(self.lines.iter().position(is_it).expect("it was made") as u64)
    }

    /// What has arrived is read, and what the leader says goes out.
    fn carry(&mut self) {
        let now = self.now;
        for at in 0..self.lines.len() {
            while !self.lines[at].is_cut
                && self.lines[at].up.front().is_some_and(|(due, _)| *due <= now)
            {
                let (_, message) = self.lines[at].up.pop_front().expect("it is the first");
                self.leader.handle_message(ConnectionId(at as u64), message, time(now));
                self.answer();
            }
        }
        self.answer();
        for at in 0..self.lines.len() {
            let client = self.lines[at].client;
            while !self.lines[at].is_cut
                && self.clients[client].stopped_until <= now
                && self.lines[at].down.front().is_some_and(|(due, _)| *due <= now)
            {
                let (_, message) = self.lines[at].down.pop_front().expect("it is the first");
                if let Some(own) = &mut self.clients[client].client {
                    own.handle_message(self.lines[at].at_client, message, time(now));
                }
            }
        }
    }

    fn answer(&mut self) {
        while let Some(pending) = self.leader.poll_record() {
            self.leader.handle_committed(pending.committed(), time(self.now));
        }
        while let Some((connection, message)) = self.leader.poll_message() {
            let at = connection.0 as usize;
            if let LeaderMessage::Deadlocked { request, .. } = &message {
                self.check(self.lines[at].client, *request);
            }
            let due = self.arrival(self.lines[at].down.back().map(|(due, _)| *due));
            self.lines[at].down.push_back((due, message));
        }
        while let Some((connection, _)) = self.leader.poll_close() {
            let line = &mut self.lines[connection.0 as usize];
            if !std::mem::replace(&mut line.is_cut, true) {
                let (at, own) = (line.client, line.at_client);
                self.leader.handle_disconnected(connection, time(self.now));
                if let Some(client) = &mut self.clients[at].client {
                    let ended = Ended::Disconnected("closed".to_owned());
                    client.handle_ended(own, ended, time(self.now));
                }
            }
        }
        while self.leader.poll_notice().is_some() {}
    }

    /// Behind what was sent before.
    fn arrival(&mut self, before: Option<u64>) -> u64 {
        let longest = [1, 5, 60][self.dice.below(3) as usize];
        let due = self.now + MS + self.dice.below(longest * MS);
        due.max(before.unwrap_or(0))
    }

    /// The client's driver.
    fn turn(&mut self, at: usize) {
        let now = time(self.now);
        let Some(client) = &mut self.clients[at].client else { return };
        client.handle_timeout(now);
        if let Some((at_client, _)) = client.poll_connect() {
            let wire = ConnectionId(self.lines.len() as u64);
            let (up, down) = (VecDeque::new(), VecDeque::new());
            self.lines.push(LineInRing { client: at, at_client, up, down, is_cut: false });
            self.leader.handle_connected(wire, ClientId(at as u128), now);
            client.handle_connected(at_client, now);
        }
        while let Some(event) = self.clients[at].client.as_mut().and_then(Client::take_event) {
            self.hear(at, event);
        }
    }

    fn hear(&mut self, at: usize, event: Event) {
        match event {
            Event::Granted { request, lease, first, .. } => {
                let Some(thread) = self.clients[at].by_request.remove(&request) else { return };
                let rest = self.dice.below(60) * MS;
                let state = &mut self.clients[at].threads[thread];
                let name = state.waits.take().expect("it waits for that").name;
                state.held.push((lease, first, name));
                state.moves_at = self.now + rest;
                self.tally.locked += 1;
            }
            Event::Failed { request, failure, .. } => {
                let Some(thread) = self.clients[at].by_request.remove(&request) else { return };
                match failure {
                    RequestFailure::Deadlock(_) => self.tally.told += 1,
                    _ => self.tally.timed_out += 1,
                }
                self.clients[at].threads[thread].waits = None;
                self.begin_anew(at, thread);
            }
            Event::LeaseLost { lease, .. } => {
                for state in &mut self.clients[at].threads {
                    state.held.retain(|(own, ..)| *own != lease);
                }
                if let Some(client) = &mut self.clients[at].client {
                    client.loss_is_told(lease);
                }
            }
            _ => {}
        }
    }

    /// It gives back all that it has, and tries again later.
    fn begin_anew(&mut self, at: usize, thread: usize) {
        let rest = self.dice.below(80) * MS;
        let now = time(self.now);
        let state = &mut self.clients[at].threads[thread];
        state.wanted.clear();
        state.moves_at = self.now + rest;
        for (lease, token, _) in std::mem::take(&mut state.held) {
            if let Some(client) = &mut self.clients[at].client {
                client.release(lease, token, Predecessor::Clean, now);
            }
        }
    }

    /// A thread's next move.
    fn act(&mut self, at: usize, thread: usize) {
        let state = &self.clients[at].threads[thread];
        if state.waits.is_some() {
            if state.is_task && !state.held.is_empty() && self.dice.percent(1) {
                let (lease, token, _) = self.clients[at].threads[thread].held.remove(0);
                let client = self.clients[at].client.as_mut().expect("it lives");
                client.release(lease, token, Predecessor::Clean, time(self.now));
            }
            return;
        }
        if state.moves_at > self.now || state.rounds == ROUNDS {
            return;
        }
        if state.held.is_empty() && state.wanted.is_empty() {
            let mut all: Vec<_> = (0..self.names.len()).collect();
            let count = 1 + self.dice.below(all.len().min(3) as u64);
            let wanted = (0..count)
                .map(|_| all.swap_remove(self.dice.below(all.len() as u64) as usize))
                .collect();
            self.clients[at].threads[thread].wanted = wanted;
        }
        let Some(name) = self.clients[at].threads[thread].wanted.pop() else {
            self.clients[at].threads[thread].rounds += 1;
            return self.begin_anew(at, thread);
        };
        let is_timed = self.clients[at].threads[thread].is_task || self.dice.percent(30);
        let limit = is_timed.then(|| self.now + (300 + self.dice.below(4_000)) * MS);
        let holds = self.pins(at, thread);
        let extras = Extras { holds, ..Extras::default() };
        let asked = Acquire::exclusive(self.names[name].clone(), Wait::Forever);
        let acquire = Acquire { extras: Some(Box::new(extras)), ..asked };
        let ClientInRing { client, threads, by_request, .. } = &mut self.clients[at];
        let client = client.as_mut().expect("it lives");
        let request = client.acquire(acquire, limit.map(time), time(self.now));
        by_request.insert(request, thread);
        threads[thread].waits = Some(WaitInRing { request, name, limit, was_stuck: false });
    }

    /// What a thread says that nothing gives back while it waits.
    fn pins(&self, at: usize, thread: usize) -> Vec<LeaseId> {
        let threads = &self.clients[at].threads;
        let leases = |thread: &ThreadInRing| {
            thread.held.iter().map(|(lease, ..)| *lease).collect::<Vec<_>>()
        };
        match () {
            () if planted(Mistake::SessionPins) => threads.iter().flat_map(leases).collect(),
            () if threads[thread].is_task => Vec::new(),
            () => leases(&threads[thread]),
        }
    }

    fn send(&mut self, at: usize) {
        loop {
            let Some(client) = &mut self.clients[at].client else { return };
            while client.poll_close().is_some() {}
            let Some((connection, message)) = client.poll_message(time(self.now)) else { return };
            let line = self.wire_of(at, connection).0 as usize;
            if !self.lines[line].is_cut {
                let due = self.arrival(self.lines[line].up.back().map(|(due, _)| *due));
                self.lines[line].up.push_back((due, message));
            }
        }
    }

    /// Notes of each thread whether it is stuck just now.
    fn look_which_are_stuck(&mut self) {
        for at in 0..self.clients.len() {
            for thread in 0..self.clients[at].threads.len() {
                let state = &self.clients[at].threads[thread];
                let waits = state.waits.as_ref().filter(|wait| !wait.was_stuck);
                let Some(limit) = waits.map(|wait| wait.limit) else { continue };
                let is_stuck = self.stuck_until(limit.unwrap_or(u64::MAX)).contains(&(at, thread));
                let wait = self.clients[at].threads[thread].waits.as_mut();
                wait.expect("it waits").was_stuck = is_stuck;
            }
        }
    }

    /// Of the threads that wait at least until then, those that wait for each other.
    fn stuck_until(&self, until: u64) -> Vec<(usize, usize)> {
        let living = self.clients.iter().enumerate().filter(|(_, client)| client.client.is_some());
        let all = living.flat_map(|(at, client)| {
            client.threads.iter().enumerate().filter_map(move |(number, thread)| {
                let wait = thread.waits.as_ref().filter(|_| !thread.is_task)?;
                let limit = wait.limit.unwrap_or(u64::MAX);
                (limit.saturating_add(SLACK) >= until).then_some((at, number))
            })
        });
        let mut stuck: Vec<_> = all.collect();
        loop {
            let held =
                stuck.iter().flat_map(|&(at, thread)| &self.clients[at].threads[thread].held);
            let held: Vec<_> = held.map(|(.., name)| *name).collect();
            let before = stuck.len();
            stuck.retain(|&(at, thread)| {
                let wait = self.clients[at].threads[thread].waits.as_ref().expect("it waits");
                held.contains(&wait.name)
            });
            if stuck.len() == before {
                return stuck;
            }
        }
    }

    /// The leader says that this request is one of a deadlock.
    fn check(&mut self, at: usize, request: RequestId) {
        let Some(&thread) = self.clients[at].by_request.get(&request) else {
            return; // it has given up, and has not been heard yet
        };
        let Some(state) = self.clients[at].threads.get(thread) else { return };
        let is_it = |wait: &&WaitInRing| wait.request == request;
        if state.waits.as_ref().filter(is_it).is_some_and(|wait| !wait.was_stuck) {
            let text =
                format!("thread {thread} of client {at} is told of a deadlock and was in none");
            self.violation = Some(format!("{text}; {}", self.stands()));
        }
    }
}

#[test]
fn seeds_of_deadlocks() {
    let (first, seeds) = match (crate::number("TIERLOCK_SEED"), crate::number("TIERLOCK_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, seeds) => (0, seeds.unwrap_or(60)),
    };
    let mut tally = DeadlockTally::default();
    for seed in first..first + seeds {
        let (seen, outcome) = one(seed);
        outcome.unwrap_or_else(|violation| panic!("{violation}"));
        tally.told += seen.told;
        tally.locked += seen.locked;
        tally.timed_out += seen.timed_out;
        tally.killed += seen.killed;
        tally.cut += seen.cut;
    }
    println!("{seeds} seeds: {tally:?}");
    assert!(seeds < 60 || tally.told > seeds / 2, "{tally:?}");
}

#[cfg(feature = "mistakes")]
#[test]
fn a_wrong_word_on_a_deadlock_is_found() {
    use tierlock::proto::mistake::plant;
    for mistake in [Mistake::SessionPins, Mistake::DeadlockOfTheDead] {
        plant(&[mistake]);
        let found = (0..2_000).find_map(|seed| one(seed).1.err());
        plant(&[]);
        let found = found.unwrap_or_else(|| panic!("{mistake:?} is not found"));
        println!("{mistake:?}: {found}");
    }
}
