//! What goes wrong.

use tierlock::proto::wire::LeaderMessage;

use crate::{
    clock::{MS, SECOND, Truth, shown},
    leader::End,
    rules::Query,
    users::Task,
    world::{Node, Step, TROUBLE, World, note},
};

/// However lucky a seed, so much goes wrong in it.
pub(crate) const FAULTS_MIN: u64 = 2;

impl World {
    pub(crate) fn fault(&mut self) {
        if self.truth >= TROUBLE && self.tally.faults >= FAULTS_MIN {
            return;
        }
        let mut client = self.dice.below(self.plan.clients as u64) as usize;
        if self.plan.sleeper == Some(client) {
            client = 0; // let it sleep
        }
        let mut pause = match self.dice.below(3) {
            0 => self.dice.below(200 * MS),
            1 => self.dice.below(2 * SECOND),
            _ => self.dice.below(5 * SECOND),
        };
        if self.plan.hard_on_holders
            && let Some(holder) = self.a_holding_client()
        {
            (client, pause) = (self.ops[holder].client, pause + SECOND);
        }
        self.tally.faults += 1;
        if self.plan.leaders > 1 {
            let seat = self.dice.below(self.plan.leaders as u64) as usize;
            self.sit(seat);
            if self.dice.percent(40) {
                self.succession_fault(pause);
                let next = self.dice.below(1500 * MS);
                return self.after(next, Step::Fault);
            }
        }
        let leader = self.process_of(Node::Leader);
        if self.is_to_be_restored() {
            self.kill(leader);
            self.restore();
        }
        match self.dice.below(16) {
            0 | 1 if !self.plan.leader_survives => self.kill(leader),
            2 if self.plan.leaders > 1 => self.hand_over(),
            2 if !self.plan.leader_survives && !self.is_paused(leader) => {
                self.end_leader(End::InOrder)
            }
            3 if self.plan.disk_fails && self.plan.leaders == 1 => {
                if let Some(host) = &mut self.host {
                    host.disk_fails = true;
                }
            }
            4 => self.stop(leader, pause),
            5 => self.stop_midway(leader, pause),
            6 | 7 => self.stop(client, pause),
            8 => self.stop_midway(client, pause),
            9 => self.kill(client),
            10 => self.cut_off(client),
            11 | 12 => self.silence(client, pause),
            13 => self.break_a_lock(client),
            14 if self.plan.disk_fills => {
                note!(self, "the disk has no room");
                self.disk.full_until = self.truth + pause;
            }
            _ => self.close(client),
        }
        let next = self.dice.below(1500 * MS);
        self.after(next, Step::Fault);
    }

    fn stop(&mut self, process: usize, pause: Truth) {
        note!(self, "process {process} stops for {:?}", shown(pause));
        self.tally.pauses += 1;
        self.pause(process, pause);
    }

    /// Stops it when it is in the middle of something.
    pub(crate) fn stop_midway(&mut self, process: usize, pause: Truth) {
        self.processes[process].stall = Some(pause);
    }

    /// A process dies, with all that lives in it.
    fn kill(&mut self, process: usize) {
        if self.is_to_run_on(process) {
            return;
        }
        self.tally.kills += 1;
        self.processes[process].paused_until = 0;
        self.processes[process].stall = None;
        self.processes[process].starts += 1;
        if process < self.plan.clients {
            note!(self, "client {process} is killed");
            self.remove_client(process);
            let delay = self.dice.below(500 * MS);
            self.after(delay, Step::StartClient(process));
        }
        if process == self.process_of(Node::Leader) {
            self.end_leader(End::Killed);
        }
    }

    /// The leader has noticed that its disk failed, and ends. One that cannot even say that its
    /// process lives on keeps the directory until that dies.
    pub(crate) fn leave_the_disk(&mut self) {
        if self.plan.embedded && self.dice.percent(50) {
            self.kill(self.process_of(Node::Leader));
        } else {
            self.end_leader(End::DiskFailed);
        }
    }

    /// The client's connections break, and each side learns of that in its own time.
    fn cut_off(&mut self, client: usize) {
        note!(self, "client {client} is cut off");
        self.tally.cuts += 1;
        for wire in self.wires_of(client) {
            let cut = self.truth + self.dice.below(20 * MS);
            self.cut(wire, cut);
        }
    }

    /// What would arrive at the connection's client after `cut` is lost, and about what its leader
    /// would read then.
    fn cut(&mut self, wire: usize, cut: Truth) {
        let learns = self.dice.below(2 * SECOND);
        self.hang_up_on_leader(wire, 20 * MS, learns);
        let longest = if self.dice.percent(50) { 100 * MS } else { 2 * SECOND };
        let learns = self.truth + self.dice.below(longest);
        self.wires[wire].to_client.cut(cut);
        self.end_at_client(wire, learns);
    }

    /// Now and then what the leader is about to say is lost, with all behind it. Some of it is
    /// missed by none, but by a leader that is not the one that said it.
    pub(crate) fn may_lose(&mut self, wire: usize, message: &LeaderMessage) {
        let per_mille = match message {
            LeaderMessage::Lost { .. } | LeaderMessage::Recall { .. } => 50,
            LeaderMessage::Released { lease } if self.recalled.contains(lease) => 100,
            LeaderMessage::ToppedUp { .. } => 10,
            LeaderMessage::Released { .. } | LeaderMessage::Granted { .. } => 2,
            _ => return,
        };
        if self.truth >= TROUBLE || self.dice.below(1000) >= per_mille {
            return;
        }
        note!(self, "that is lost");
        self.tally.cuts += 1;
        self.cut(wire, self.truth);
        if !self.plan.leader_survives && self.dice.percent(50) {
            let later = self.dice.below(30 * MS);
            self.after(later, Step::LeaderDies(self.reign));
        }
    }

    pub(crate) fn leader_dies(&mut self) {
        self.kill(self.process_of(Node::Leader));
    }

    /// What a client has just sent takes a detour: the client hears of an end and makes another
    /// connection, and what was sent on this one may arrive when that is long in use.
    pub(crate) fn stray(&mut self, wire: usize) {
        note!(self, "what was sent on connection {wire} takes a detour");
        let arrives = self.truth + 100 * MS + self.dice.below(2 * SECOND);
        self.wires[wire].to_leader.hold(arrives);
        let learns = arrives + self.dice.below(2 * SECOND);
        if let Some(at) = self.wires[wire].to_leader.end(learns) {
            self.at(at, Step::ToLeader(wire));
        }
        let learns = self.truth + self.dice.below(200 * MS);
        self.end_at_client(wire, learns);
    }

    /// Nothing from or to the client arrives for a while: then all that was sent does, or, if
    /// a user lost patience meanwhile, nothing.
    fn silence(&mut self, client: usize, pause: Truth) {
        note!(self, "client {client} is silent for {:?}", shown(pause));
        self.tally.silences += 1;
        let until = self.truth + pause;
        self.silent_until[client] = self.silent_until[client].max(until);
        let dies = pause > 2 * SECOND && self.dice.percent(50);
        for wire in self.wires_of(client) {
            let both = self.dice.percent(70);
            let one = self.dice.percent(50);
            let state = &mut self.wires[wire];
            if both || one {
                state.to_leader.hold(until);
            }
            if both || !one {
                state.to_client.hold(until);
            }
            if dies {
                // The most patient one reads at last what the other had sent.
                let learns = self.truth + SECOND + self.dice.below(pause);
                self.end_at_client(wire, learns);
                let learns = self.truth + SECOND + self.dice.below(pause);
                if let Some(at) = self.wires[wire].to_leader.end(learns) {
                    self.at(at, Step::ToLeader(wire));
                }
            }
        }
    }

    fn a_holding_client(&self) -> Option<usize> {
        let mut tasks = self.managers.iter().flatten().flat_map(|manager| &manager.tasks);
        tasks.find_map(|task| match *task {
            Task::Holding { op } => Some(op),
            _ => None,
        })
    }

    fn break_a_lock(&mut self, mut client: usize) {
        let held = self.a_holding_client();
        let holder = held.map(|op| self.ops[op].client);
        if holder == Some(client) && self.dice.percent(70) {
            client = (client + 1) % self.plan.clients;
        }
        let ready = self.managers[client].as_ref().is_some_and(|manager| !manager.closing);
        let Some(op) = held.filter(|_| ready && !self.is_paused(client)) else { return };
        let name = self.names[self.ops[op].name].clone();
        let (_, (first, _)) = self.ops[op].lease.expect("it is held");
        if let Some(holder) = holder
            && holder != client
            && self.dice.percent(50)
        {
            self.cut_off(holder);
        }
        note!(self, "client {client} breaks {name} of {first}");
        let query = self.call(client, |client, now| client.break_lock(name, first, None, now));
        let asked = self.truth;
        if let (Some(query), Some(manager)) = (query, &mut self.managers[client]) {
            manager.queries.insert(query, Query { check: None, asked });
        }
        if !self.plan.leader_survives && self.dice.percent(30) {
            let later = self.dice.below(20 * MS);
            self.after(later, Step::LeaderDies(self.reign));
        }
        let now = self.clock(Node::Client(client));
        self.drain(client, now);
    }

    /// The manager is closed in good order: guards are dropped, a goodbye is said.
    pub(crate) fn close(&mut self, client: usize) {
        if self.is_paused(client) {
            return;
        }
        let Some(manager) = &mut self.managers[client] else { return };
        if std::mem::replace(&mut manager.closing, true) {
            return;
        }
        note!(self, "client {client} closes");
        self.close_kept(client);
        self.call(client, |client, now| client.close(now));
        let now = self.clock(Node::Client(client));
        self.drain(client, now);
    }

    fn wires_of(&self, client: usize) -> Vec<usize> {
        let life = self.lives[client];
        (0..self.wires.len())
            .filter(|wire| {
                let state = &self.wires[*wire];
                state.client == client && state.life == life && state.is_wanted()
            })
            .collect()
    }
}
