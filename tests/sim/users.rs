//! The users: tasks that want locks, hold them, give them back, give up, and ask questions.

use std::time::Duration;

use tierlock::{
    Predecessor, Token,
    proto::{
        RequestId,
        wire::{Acquire, Wait},
    },
};

use crate::{
    clock::{MS, SECOND},
    rules::{Op, Query},
    world::{LAST_WORD, Node, Step, TROUBLE, World},
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    Idle,
    Waiting {
        op: usize,
    },
    Holding {
        op: usize,
    },
    /// Its lock is lost, and it has yet to notice.
    Lost {
        op: usize,
    },
}

impl World {
    /// The next move of a task.
    pub(crate) fn task(&mut self, client: usize, task: usize) {
        let Some(manager) = &self.managers[client] else { return };
        let (closing, state) = (manager.closing, manager.tasks[task]);
        match state {
            Task::Idle if closing => {}
            Task::Idle if self.truth < LAST_WORD => self.ask(client, task, false),
            Task::Idle if !self.content.contains(&(client, task)) => self.ask(client, task, true),
            Task::Idle | Task::Waiting { .. } => {}
            Task::Holding { op } => self.leave_the_lock(client, task, op),
            Task::Lost { op } => {
                self.set_task(client, task, Task::Idle);
                let (lease, _) = self.ops[op].lease.expect("it was granted");
                self.call(client, |client, now| {
                    client.release(lease, Token::ZERO, Predecessor::Clean, now);
                });
                self.after_call(client);
                self.rest(client, task, 20 * MS);
            }
        }
    }

    fn leave_the_lock(&mut self, client: usize, task: usize, op: usize) {
        self.use_the_lock(op);
        self.set_task(client, task, Task::Idle);
        let (lease, (_, last)) = self.ops[op].lease.expect("it was granted");
        let panicked = self.dice.percent(10);
        let how = if panicked { Predecessor::Panicked } else { Predecessor::Clean };
        let awaited = self.dice.percent(20);
        let is_good = self.believes(op);
        self.let_go(op);
        if self.ops[op].last_word && is_good {
            self.content.insert((client, task));
        }
        self.call(client, |client, now| {
            if awaited {
                client.release_awaited(lease, last, how, now);
            } else {
                client.release(lease, last, how, now);
            }
        });
        self.after_call(client);
        self.rest(client, task, 100 * MS);
    }

    fn after_call(&mut self, client: usize) {
        let now = self.clock(Node::Client(client));
        self.drain(client, now);
    }

    fn rest(&mut self, client: usize, task: usize, longest: u64) {
        let rest = self.dice.below(longest);
        self.after(rest, Step::Task(client, self.lives[client], task));
    }

    fn set_task(&mut self, client: usize, task: usize, state: Task) {
        if let Some(manager) = &mut self.managers[client] {
            manager.tasks[task] = state;
        }
    }

    /// Asks for a lock. In the end everybody asks for one without any limit.
    fn ask(&mut self, client: usize, task: usize, last_word: bool) {
        let name = self.dice.below(self.names.len() as u64) as usize;
        let plain = last_word || self.dice.percent(50);
        let patience = self.dice.below(3000);
        let (wait, limit) = match self.dice.below(10) {
            _ if plain => (Wait::Forever, None),
            0..=3 => (Wait::No, None),
            4..=7 => {
                let limit = Duration::from_millis(patience);
                (Wait::For(limit), Some(limit))
            }
            _ => (Wait::Forever, None),
        };
        let at_most = !plain && self.dice.percent(30);
        let at_most = at_most.then(|| Duration::from_millis(self.dice.below(800)));
        let above = if plain { Token::ZERO } else { self.known_token(name) };
        let acquire = Acquire { name: self.names[name].clone(), wait, at_most, keep: false, above };
        let request = self.call(client, |client, now| {
            client.acquire(acquire, limit.map(|limit| now + limit), now)
        });
        let Some(request) = request else { return };
        let life = self.lives[client];
        let op = self.ops.len();
        self.ops.push(Op::new(client, life, task, name, self.truth, wait, above, last_word));
        self.op_of.insert((client, life, request), op);
        self.set_task(client, task, Task::Waiting { op });
        self.after_call(client);
        if !plain && self.dice.percent(50) {
            let longest = [0, MS, 20 * MS, 400 * MS, 2 * SECOND][self.dice.below(5) as usize];
            let patience = self.dice.below(longest + 1);
            self.after(patience, Step::GiveUp(client, life, task, request));
        }
    }

    /// A token that the task's machine says it knows of.
    fn known_token(&mut self, name: usize) -> Token {
        let highest = self.highest[name];
        let epoch = |epoch: u32| u64::from(epoch) << Token::COUNT_BITS;
        let number = match self.dice.below(60) {
            0 => highest.get() + self.dice.below(1 << 41),
            1 => epoch(highest.epoch() + 1),
            2 => epoch(highest.epoch() + 1) - 1,
            3 => epoch(1 << 22) + self.dice.below(1 << 41),
            4..10 => highest.get(),
            _ => 0,
        };
        Token::new(number).expect("far below the end")
    }

    /// The caller does not want it any more, whatever has become of it.
    pub(crate) fn give_up(&mut self, client: usize, task: usize, request: RequestId) {
        let Some(manager) = &self.managers[client] else { return };
        let Task::Waiting { op } = manager.tasks[task] else { return };
        if self.op_of.get(&(client, self.lives[client], request)) != Some(&op) {
            return;
        }
        self.ops[op].given_up = Some(self.truth);
        self.tally.cancels += 1;
        self.set_task(client, task, Task::Idle);
        self.call(client, |client, now| client.cancel(request, now));
        self.after_call(client);
        self.rest(client, task, 20 * MS);
    }

    /// The task has it now.
    pub(crate) fn enter(&mut self, client: usize, op: usize) {
        let task = self.ops[op].task;
        self.set_task(client, task, Task::Holding { op });
        self.use_the_lock(op);
        let longest = match self.dice.below(20) {
            _ if self.truth >= LAST_WORD => 100,
            0 => 4000,
            1..=5 => 600,
            _ => 150,
        };
        let hold = self.dice.below(longest * MS);
        self.after(hold, Step::Task(client, self.lives[client], task));
        if self.truth < TROUBLE && self.dice.percent(15) {
            self.inquire(op);
        }
    }

    /// Asks whether a lease is still good, or who has what.
    fn inquire(&mut self, op: usize) {
        let who = self.dice.below(self.plan.clients as u64) as usize;
        if self.managers[who].as_ref().is_none_or(|m| m.closing) || self.is_paused(who) {
            return;
        }
        let (name, (_, (first, _))) = (self.ops[op].name, self.ops[op].lease.expect("granted"));
        let text = self.names[name].clone();
        let list = self.dice.percent(25);
        let query = self.call(who, |client, now| match list {
            true => client.list(None, 2, None, now),
            false => client.check(text, first, None, now),
        });
        let (asked, kind) = (self.truth, if list { None } else { Some(op) });
        if let (Some(query), Some(manager)) = (query, &mut self.managers[who]) {
            manager.queries.insert(query, Query { check: kind, asked });
        }
        self.after_call(who);
    }

    pub(crate) fn is_paused(&self, process: usize) -> bool {
        self.processes[process].paused_until > self.truth
    }
}
