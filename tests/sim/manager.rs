//! A client's process: a driver like the real one, around the real client.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tierlock::{
    Time,
    proto::{
        ConnectionId, LeaseId, RequestId,
        client::{Client, ClientConfig, Ended, Event},
        history::Seen,
        wire::{FrameReader, Identity, LeaderMessage, encode_frame},
    },
};

use crate::{
    clock::{MS, SECOND, Truth},
    keeping::{Keeping, Tier},
    net::{Piece, Wire},
    rules::Query,
    users::Task,
    world::{Node, Step, TROUBLE, Ticket, World, note},
};

pub(crate) struct Manager {
    pub(crate) client: Client,
    inbox: VecDeque<News>,
    readers: BTreeMap<ConnectionId, (usize, FrameReader)>,
    turn: Option<Turn>,
    next_turn: Ticket,
    /// Until when guards believe, as they were told.
    pub(crate) deadline: Option<Time>,
    pub(crate) tasks: Vec<Task>,
    /// By name, where users of one process stand in line.
    pub(crate) tiers: Vec<Tier>,
    pub(crate) keeping: Keeping,
    /// What its machine had seen when it began.
    pub(crate) seen_before: Option<Seen>,
    pub(crate) queries: BTreeMap<RequestId, Query>,
    pub(crate) closing: bool,
}

enum News {
    Connected(ConnectionId),
    Bytes(ConnectionId, Vec<u8>),
    Ended(ConnectionId),
}

/// A turn that was interrupted.
struct Turn {
    news: Vec<News>,
    now: Option<Time>,
    /// The news are told; orders are to be taken.
    told: bool,
}

impl Manager {
    pub(crate) fn is_idle(&self) -> bool {
        let waits = self.tasks.iter().any(|task| !matches!(task, Task::Idle));
        !self.closing && !waits && self.tiers.iter().all(Tier::is_idle)
    }
}

impl World {
    pub(crate) fn start_client(&mut self, client: usize) {
        if self.managers[client].is_some() {
            return;
        }
        self.lives[client] += 1;
        let life = self.lives[client];
        let longer = match self.dice.below(4) {
            0 => self.dice.below(3000),
            _ => self.dice.below(800),
        };
        let seen = self.seen_on_machine(client);
        let config = ClientConfig {
            time_to_live: self.plan.time_to_live_min + Duration::from_millis(longer),
            connect_timeout: Duration::from_secs(3),
            identity: Identity::new(&format!("client {client}"), "here", life, "sim"),
            addresses: self.plan.leaders + usize::from(self.plan.two_addresses),
            process: self.mark(Node::Client(client)),
            seen,
        };
        let keeping = match self.dice.below(10) {
            0..=3 => Keeping::Adaptive,
            4..=6 => Keeping::Always,
            _ => Keeping::Never,
        };
        let now = self.clock(Node::Client(client));
        note!(self, "client {client}.{life} starts");
        self.managers[client] = Some(Manager {
            client: Client::new(config, self.dice.random(), now),
            inbox: VecDeque::new(),
            readers: BTreeMap::new(),
            turn: None,
            next_turn: Ticket::NONE,
            deadline: None,
            tasks: vec![Task::Idle; self.plan.tasks],
            tiers: self.names.iter().map(|_| Tier::new()).collect(),
            keeping,
            seen_before: seen,
            queries: BTreeMap::new(),
            closing: false,
        });
        for task in 0..self.plan.tasks {
            let delay = self.dice.below(500 * MS);
            self.after(delay, Step::Task(client, life, task));
        }
        self.begins_to_observe(client);
    }

    /// The process, or this manager in it, is no more: what it held is believed in by no guard.
    pub(crate) fn remove_client(&mut self, client: usize) {
        let Some(manager) = &self.managers[client] else { return };
        for task in manager.tasks.clone() {
            match task {
                Task::Holding { op } => self.end_hold(op),
                Task::Waiting { op } | Task::InLine { op } | Task::Entering { op, .. } => {
                    self.ops[op].given_up = Some(self.truth);
                }
                Task::Idle | Task::Lost { .. } => {}
            }
        }
        self.managers[client] = None;
        let life = self.lives[client];
        for wire in 0..self.wires.len() {
            let state = &mut self.wires[wire];
            if state.client == client && state.life == life {
                state.to_client.close();
                let learns = self.dice.below(3 * SECOND);
                self.hang_up_on_leader(wire, 20 * MS, learns);
            }
        }
    }

    pub(crate) fn wake_client(&mut self, client: usize, at: Truth) {
        let Some(manager) = &self.managers[client] else { return };
        let ticket = self.plan_turn(Node::Client(client), manager.next_turn, at);
        if let Some(manager) = &mut self.managers[client] {
            manager.next_turn = ticket;
        }
    }

    pub(crate) fn arrive_at_client(&mut self, wire: usize) {
        let Wire { client, life, number, .. } = self.wires[wire];
        loop {
            let piece = match self.wires[wire].to_client.receive(self.truth) {
                Err(later) => return self.at(later, Step::ToClient(wire)),
                Ok(None) => return,
                Ok(Some(piece)) => piece,
            };
            if self.lives[client] != life {
                continue;
            }
            let Some(manager) = &mut self.managers[client] else { continue };
            manager.inbox.push_back(match piece {
                Piece::Opened => News::Connected(number),
                Piece::Bytes(bytes) => News::Bytes(number, bytes),
                Piece::End => News::Ended(number),
            });
            self.wake_client(client, self.truth);
        }
    }

    pub(crate) fn client_turn(&mut self, client: usize, ticket: Ticket) {
        let Some(manager) = &mut self.managers[client] else { return };
        if manager.next_turn != ticket {
            return;
        }
        manager.next_turn = Ticket::NONE;
        let turn = manager.turn.take();
        let turn = turn.unwrap_or_else(|| Turn {
            news: manager.inbox.drain(..).collect(),
            now: None,
            told: false,
        });
        if let Some(turn) = self.client_stages(client, turn) {
            let later = self.processes[client].paused_until;
            if let Some(manager) = &mut self.managers[client] {
                manager.turn = Some(turn);
                self.wake_client(client, later);
            }
            return;
        }
        let Some(manager) = &self.managers[client] else { return };
        let next = manager.client.poll_timeout();
        if !manager.inbox.is_empty() {
            self.wake_client(client, self.truth);
        } else if let Some(next) = next {
            let at = self.when(Node::Client(client), next).max(self.truth + 1);
            self.wake_client(client, at);
        }
    }

    /// Takes what has arrived, reads the clock, tells the client, reads the clock again and does
    /// what is to be done; answers the rest of the turn if the process stops in between.
    fn client_stages(&mut self, client: usize, mut turn: Turn) -> Option<Turn> {
        let node = Node::Client(client);
        if !turn.told {
            if turn.now.is_none() {
                if self.stalls_here(node) {
                    return Some(turn);
                }
                turn.now = Some(self.clock(node));
                if self.stalls_here(node) {
                    return Some(turn);
                }
            }
            let now = turn.now.take().expect("just read");
            for news in std::mem::take(&mut turn.news) {
                self.tell_client(client, news, now);
            }
            let manager = self.managers[client].as_mut()?;
            if manager.client.poll_timeout().is_some_and(|at| at <= now) {
                manager.client.handle_timeout(now);
            }
            self.drain(client, now);
            turn.told = true;
            if self.stalls_here(node) {
                return Some(turn);
            }
        }
        let now = match turn.now {
            Some(now) => now,
            None => {
                let now = self.clock(node);
                turn.now = Some(now);
                if self.stalls_here(node) {
                    return Some(turn);
                }
                now
            }
        };
        self.obey_client(client, now);
        self.drain(client, now);
        None
    }

    fn tell_client(&mut self, index: usize, news: News, now: Time) {
        let Some(manager) = &mut self.managers[index] else { return };
        let Manager { client, readers, .. } = manager;
        let mut released = Vec::new();
        match news {
            News::Connected(number) => {
                if readers.contains_key(&number) {
                    client.handle_connected(number, now);
                }
            }
            News::Bytes(number, bytes) => {
                let Some((_, reader)) = readers.get_mut(&number) else { return };
                reader.extend(&bytes);
                while let Some(received) = reader.next().expect("leaders write well") {
                    let message = received.known().expect("all are of one release");
                    if self.telling {
                        println!(
                            "{:?} client {index} reads: {message:?}",
                            crate::clock::shown(self.truth)
                        );
                    }
                    if !matches!(message, LeaderMessage::Leads { .. }) {
                        self.coverage.client_meets(client, number, &message);
                    }
                    if let LeaderMessage::Released { lease } = message {
                        released.push(lease);
                    }
                    client.handle_message(number, message, now);
                }
            }
            News::Ended(number) => {
                // A driver may hear of an end before it has read all that came.
                if let Some((wire, _)) = readers.get(&number) {
                    if !self.wires[*wire].to_client.is_busy() {
                        readers.remove(&number);
                    }
                    client.handle_ended(number, Ended::Disconnected("cut".to_owned()), now);
                }
            }
        }
        released.into_iter().for_each(|lease| self.heard_released(index, lease));
    }

    /// Does what the client wants done.
    fn obey_client(&mut self, client: usize, now: Time) {
        loop {
            let Some(manager) = &mut self.managers[client] else { return };
            let Some((number, address)) = manager.client.poll_connect() else { break };
            self.connect(client, number, address);
        }
        let mut frames: BTreeMap<ConnectionId, Vec<u8>> = BTreeMap::new();
        let Some(manager) = &mut self.managers[client] else { return };
        while let Some((number, message)) = manager.client.poll_message(now) {
            let bytes = frames.entry(number).or_default();
            encode_frame(&message, bytes).expect("clients say what fits a frame");
        }
        let mut closes = Vec::new();
        while let Some(number) = manager.client.poll_close() {
            closes.push(number);
        }
        // What is for a connection that has ended goes nowhere.
        let wires = frames.into_iter().filter_map(|(number, bytes)| {
            manager.readers.get(&number).map(|(wire, _)| (*wire, bytes))
        });
        for (wire, bytes) in wires.collect::<Vec<_>>() {
            self.digest.add_bytes(&bytes);
            let mut at = self.truth + self.delay();
            for piece in self.in_pieces(bytes) {
                if let Some(at) = self.wires[wire].to_leader.send(at, Piece::Bytes(piece)) {
                    self.at(at, Step::ToLeader(wire));
                }
                at += self.dice.below(5 * MS);
            }
            if std::mem::take(&mut self.wires[wire].strays) {
                self.stray(wire);
            }
        }
        for number in closes {
            // A driver may be slow to close, and read on.
            if self.dice.percent(30) {
                let later = self.dice.below(300 * MS);
                self.after(later, Step::ClientCloses(client, self.lives[client], number));
            } else {
                self.client_closes(client, number);
            }
        }
    }

    pub(crate) fn client_closes(&mut self, client: usize, number: ConnectionId) {
        let reader = self.managers[client].as_mut().and_then(|m| m.readers.remove(&number));
        if let Some((wire, _)) = reader {
            self.wires[wire].to_client.close();
            let learns = self.dice.below(100 * MS);
            self.hang_up_on_leader(wire, 20 * MS, learns);
        }
    }

    fn connect(&mut self, client: usize, number: ConnectionId, address: usize) {
        let wire = self.wires.len();
        let tried_until = self.truth + 3 * SECOND;
        let mut new = Wire::new(client, self.lives[client], number, tried_until);
        new.seat = address % self.plan.leaders;
        new.strays = self.truth < TROUBLE && self.dice.percent(5);
        self.wires.push(new);
        if let Some(manager) = &mut self.managers[client] {
            manager.readers.insert(number, (wire, FrameReader::new()));
        }
        self.tally.reconnects += 1;
        let silent = self.silent_until[client];
        // A new connection may find another way, while the old one's packets are still held up.
        if silent > self.truth && self.dice.percent(60) {
            self.wires[wire].to_leader.hold(silent);
            self.wires[wire].to_client.hold(silent);
        }
        let delay = self.delay();
        self.after(delay, Step::Knock(wire));
    }

    /// The client's side is closed: of what is under way some arrives, and the leader learns.
    pub(crate) fn hang_up_on_leader(&mut self, wire: usize, arrives: Truth, learns: Truth) {
        let arrives = if self.dice.percent(20) { 2 * SECOND } else { arrives };
        let cut = self.truth + self.dice.below(arrives);
        let truth = self.truth;
        let state = &mut self.wires[wire];
        state.to_leader.cut(cut);
        if let Some(at) = state.to_leader.end(truth + learns) {
            self.at(at, Step::ToLeader(wire));
        }
    }

    /// A user's thread calls the client. It may have read the clock and been kept waiting.
    pub(crate) fn call<R>(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, Time) -> R,
    ) -> Option<R> {
        let waited = if self.dice.percent(5) { self.dice.below(30 * MS) } else { 0 };
        let clock = self.processes[client].clock;
        let now = clock.read(self.truth.saturating_sub(waited));
        let manager = self.managers[client].as_mut()?;
        let result = act(&mut manager.client, now);
        let soon = if self.dice.percent(30) { self.dice.below(MS) } else { 0 };
        self.wake_client(client, self.truth + soon);
        Some(result)
    }

    /// What came of it. A caller that drains already goes on to what its own doing brings.
    pub(crate) fn drain(&mut self, client: usize, now: Time) {
        if std::mem::replace(&mut self.drains, true) {
            return;
        }
        while let Some(event) = self.managers[client].as_mut().and_then(|m| m.client.take_event()) {
            note!(self, "client {client}: {event:?}");
            self.event(client, event, now);
        }
        self.drains = false;
    }

    /// The guards of a lost lease know.
    pub(crate) fn told(&mut self, client: usize, lease: LeaseId) {
        if let Some(manager) = &mut self.managers[client] {
            manager.client.loss_is_told(lease);
            let now = self.clock(Node::Client(client));
            self.drain(client, now);
            self.wake_client(client, self.truth);
        }
    }

    fn event(&mut self, client: usize, event: Event, now: Time) {
        match event {
            Event::Queued { request, .. } => self.heard_queued(client, request),
            Event::Granted { request, lease, first, last, at_most, .. } => {
                self.heard_granted(client, request, lease, (first, last), at_most);
            }
            Event::Failed { request, failure, .. } => self.heard_failed(client, request, failure),
            Event::Released { .. } => {}
            Event::Recalled { lease } => self.heard_recalled(client, lease),
            Event::ToppedUp { lease, last } => self.heard_topped_up(client, lease, last),
            Event::AtRisk { .. } => self.tally.warnings += 1,
            Event::LeaseLost { lease, why } => self.heard_lost(client, lease, why),
            Event::DeadlineMoved { deadline } => self.heard_deadline(client, deadline, now),
            Event::Checked { query, good } => self.heard_checked(client, query, good),
            Event::Broke { query, found } => self.heard_broke(client, query, found),
            Event::Listed { query, .. } | Event::QueryFailed { query, .. } => {
                if let Some(manager) = &mut self.managers[client] {
                    manager.queries.remove(&query);
                }
                self.observation_failed(client, query);
            }
            Event::Converted { request, lease, token } => {
                self.heard_converted(client, request, lease, token);
            }
            Event::NotConverted { request, lease, why } => {
                self.heard_not_converted(client, request, lease, why);
            }
            Event::Leads { leader, .. } => self.heard_leads(client, leader),
            Event::Saw { seen } => self.remember_seen(client, seen),
            Event::Closed => self.heard_closed(client),
        }
    }

    /// The goodbye is on its way, or was not needed: soon the manager is gone, and later another
    /// one comes.
    fn heard_closed(&mut self, client: usize) {
        self.tally.goodbyes += 1;
        let soon = self.dice.below(100 * MS);
        self.after(soon, Step::Leave(client, self.lives[client]));
    }

    pub(crate) fn leave(&mut self, client: usize) {
        self.remove_client(client);
        let later = self.dice.below(500 * MS);
        self.after(later, Step::StartClient(client));
    }
}
