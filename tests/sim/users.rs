//! The users: tasks that want locks, hold them, give them back, give up, and ask questions.

use std::time::Duration;

use tierlock::{
    Predecessor, Token,
    lease_word::Entered,
    proto::{
        LeaseId,
        wire::{Acquire, Extras, Mode, Wait},
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
    /// Others of its process are before it.
    InLine {
        op: usize,
    },
    /// It has a token of a kept lease, and has yet to look whether that is still good.
    Entering {
        op: usize,
        entered: Entered,
    },
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
        if self.goes_on_as_one_of_two(client, task) {
            return;
        }
        match state {
            Task::Idle if closing => {}
            Task::Idle if self.is_tired(client, task) => {
                self.rested.insert((client, task));
                let rest = 60 * SECOND + self.dice.below(2 * SECOND);
                self.after(rest, Step::Task(client, self.lives[client], task));
            }
            Task::Idle if self.has_slept(client, task) => {
                self.awake.insert((client, task));
                self.look_around(client);
                self.rest(client, task, SECOND);
            }
            Task::Idle if self.truth < LAST_WORD && self.ask_for_two(client) => {}
            Task::Idle if self.truth < LAST_WORD => self.ask(client, task, false),
            Task::Idle if !self.content.contains(&(client, task)) => self.ask(client, task, true),
            Task::Idle | Task::Waiting { .. } | Task::InLine { .. } => {}
            Task::Entering { op, entered } => self.enter_kept(client, op, entered),
            Task::Holding { op } if self.give_some_back(client, task, op) => {}
            Task::Holding { op } if self.asks_to_convert(client, task, op) => {}
            Task::Holding { op } => self.leave_the_lock(client, task, op),
            Task::Lost { op } => {
                self.set_task(client, task, Task::Idle);
                let (lease, (token, _)) = self.ops[op].lease.expect("it was granted");
                // A user that never used it may say so.
                let token = if self.dice.percent(20) { Token::ZERO } else { token };
                if !self.leave_share(client, op) && !self.leave_kept(client, op, Predecessor::Clean)
                {
                    self.call(client, |client, now| {
                        client.release(lease, token, Predecessor::Clean, now);
                    });
                }
                self.left(client, op);
                self.rest(client, task, 20 * MS);
            }
        }
    }

    fn is_tired(&self, client: usize, task: usize) -> bool {
        self.plan.sleeper == Some(client)
            && self.truth > 5 * SECOND
            && !self.rested.contains(&(client, task))
    }

    pub(crate) fn has_slept(&self, client: usize, task: usize) -> bool {
        self.rested.contains(&(client, task)) && !self.awake.contains(&(client, task))
    }

    /// A user that wakes may want something else than a lock.
    fn look_around(&mut self, client: usize) {
        let (name, token) = (self.names[0].clone(), self.highest[0]);
        let query = match self.dice.below(10) {
            0 => self.call(client, |client, now| client.list(None, 2, None, now)),
            1 => self.call(client, |client, now| client.check(name, token, None, now)),
            2 => self.call(client, |client, now| client.break_lock(name, Token::ZERO, None, now)),
            3 => return self.close(client),
            _ => return,
        };
        let asked = self.truth;
        if let (Some(query), Some(manager)) = (query, &mut self.managers[client]) {
            manager.queries.insert(query, Query { check: None, asked });
        }
        self.after_call(client);
    }

    fn leave_the_lock(&mut self, client: usize, task: usize, op: usize) {
        self.use_the_lock(op);
        self.set_task(client, task, Task::Idle);
        let (lease, (token, _)) = self.ops[op].lease.expect("it was granted");
        let panicked = self.dice.percent(10);
        let how = if panicked { Predecessor::Panicked } else { Predecessor::Clean };
        let awaited = self.dice.percent(20);
        let is_good = self.believes(op);
        self.end_hold(op);
        if self.ops[op].last_word && is_good {
            self.content.insert((client, task));
        }
        if !self.leave_share(client, op) && !self.leave_kept(client, op, how) {
            self.given_back.insert(lease);
            self.call(client, |client, now| {
                if awaited {
                    client.release_awaited(lease, token, how, now);
                } else {
                    client.release(lease, token, how, now);
                }
            });
        }
        self.left(client, op);
        self.rest(client, task, 100 * MS);
    }

    /// Whether it has to win its own process's line first.
    pub(crate) fn lines_up(&self, op: usize) -> bool {
        let state = &self.ops[op];
        self.plan.keeps && !state.goes_around && state.mode == Mode::Exclusive
    }

    /// Its turn is over.
    pub(crate) fn left(&mut self, client: usize, op: usize) {
        self.after_call(client);
        if self.lines_up(op) {
            self.next_in_line(client, self.ops[op].name);
        }
    }

    pub(crate) fn after_call(&mut self, client: usize) {
        let now = self.clock(Node::Client(client));
        self.drain(client, now);
    }

    pub(crate) fn rest(&mut self, client: usize, task: usize, longest: u64) {
        let rest = self.dice.below(longest);
        self.after(rest, Step::Task(client, self.lives[client], task));
    }

    pub(crate) fn set_task(&mut self, client: usize, task: usize, state: Task) {
        if let Some(manager) = &mut self.managers[client] {
            manager.tasks[task] = state;
        }
    }

    /// Asks for a lock. In the end every user asks for one without any limit.
    fn ask(&mut self, client: usize, task: usize, last_word: bool) {
        let name = if self.plan.keeps && self.dice.percent(60) {
            client % self.names.len() // mostly its own
        } else {
            self.dice.below(self.names.len() as u64) as usize
        };
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
        let at_least = (at_most.is_none() && !plain || self.dice.percent(5)) && !last_word;
        let at_least = (at_least && self.dice.percent(40))
            .then(|| Duration::from_millis(1 + self.dice.below(3000)));
        let above = if plain { Token::ZERO } else { self.known_token(name) };
        let life = self.lives[client];
        let op = self.ops.len();
        let limit = limit.map(|limit| self.clock(Node::Client(client)) + limit);
        let mut own = Op::new(client, life, task, name, self.truth, wait, above, last_word);
        (own.limit, own.at_most_asked) = (limit, at_most);
        own.mode = self.choose_mode(name, last_word);
        own.at_least = at_least.filter(|_| own.mode == Mode::Exclusive);
        own.goes_around = self.plan.keeps && self.dice.percent(5);
        own.goes_around |= self.sharing.is_odd(name, own.mode) || own.mode == Mode::Upgradable;
        self.ops.push(own);
        if self.lines_up(op) {
            self.line_up(client, op);
        } else if !(self.wants_to_keep_share(client, op) && self.enter_share(client, op)) {
            self.request(client, op);
        }
        if !plain && self.dice.percent(50) {
            let longest = [0, MS, 20 * MS, 400 * MS, 2 * SECOND][self.dice.below(5) as usize];
            let patience = self.dice.below(longest + 1);
            self.after(patience, Step::GiveUp(client, life, task, op));
        }
    }

    /// Asks the leader for it.
    pub(crate) fn request(&mut self, client: usize, op: usize) {
        let Op { name, task, wait, at_most_asked: at_most, at_least, above, limit, mode, .. } =
            self.ops[op];
        let keep = self.lines_up(op) && at_least.is_none() && self.wants_to_keep(client, op)
            || self.wants_to_keep_share(client, op);
        let value = self.said_value(op);
        let keep = keep && value.is_none();
        self.ops[op].keep = keep;
        let name = self.names[name].clone();
        let asked = Acquire::exclusive(name, wait);
        let extras =
            value.map(|value| Box::new(Extras { value: Some(value), ..Extras::default() }));
        let acquire = Acquire { at_most, keep, above, at_least, mode, extras, ..asked };
        let request = self.call(client, |client, now| client.acquire(acquire, limit, now));
        let Some(request) = request else { return };
        self.ops[op].request = Some(request);
        self.op_of.insert((client, self.lives[client], request), op);
        self.set_task(client, task, Task::Waiting { op });
        self.after_call(client);
    }

    /// A token that the task's machine says it knows of.
    fn known_token(&mut self, name: usize) -> Token {
        let highest = self.remembered(name);
        let epoch = |epoch: u32| u64::from(epoch) << Token::COUNT_BITS;
        let number = match self.dice.below(60) {
            0 => highest.get() + self.dice.below(1 << 41),
            1 => epoch(highest.epoch() + 1),
            2 => epoch(highest.epoch() + 1) - 1 - self.dice.below(20),
            3 => epoch(1 << 22) + self.dice.below(1 << 41),
            4..10 => highest.get(),
            _ => 0,
        };
        Token::new(number).expect("far below the end")
    }

    /// The caller does not want it any more, whatever has become of it.
    pub(crate) fn give_up(&mut self, client: usize, task: usize, op: usize) {
        let Some(manager) = &self.managers[client] else { return };
        let state = manager.tasks[task];
        let waits = matches!(state, Task::Waiting { op: own } if own == op);
        let is_in_line = matches!(state, Task::InLine { op: own } if own == op);
        if !waits && !is_in_line {
            return;
        }
        self.ops[op].given_up = Some(self.truth);
        self.tally.cancels += 1;
        self.set_task(client, task, Task::Idle);
        if waits {
            let request = self.ops[op].request.expect("it was asked for");
            self.call(client, |client, now| client.cancel(request, now));
            self.left(client, op);
        } else {
            self.leave_the_line(client, op);
        }
        self.rest(client, task, 20 * MS);
    }

    /// The caller has given up at the very moment of the grant: it is handed back unused.
    pub(crate) fn refuse_granted(&mut self, client: usize, op: usize, lease: LeaseId) {
        let (task, request) = (self.ops[op].task, self.ops[op].request.expect("it was granted"));
        self.tally.cancels += 1;
        self.ops[op].ended = Some(self.truth);
        self.given_back.insert(lease);
        self.set_task(client, task, Task::Idle);
        self.call(client, |client, now| client.cancel(request, now));
        self.left(client, op);
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
            1..=5 if self.plan.hard_on_holders => 6000,
            1..=5 => 600,
            _ => 150,
        };
        let hold = self.dice.below(longest * MS);
        self.after(hold, Step::Task(client, self.lives[client], task));
        if self.truth < TROUBLE && self.dice.percent(15) {
            self.inquire(op);
        }
    }

    /// Asks whether a lease is still good, or for all holders.
    fn inquire(&mut self, op: usize) {
        let client = self.dice.below(self.plan.clients as u64) as usize;
        if self.managers[client].as_ref().is_none_or(|m| m.closing) || self.is_paused(client) {
            return;
        }
        let (name, (_, (first, _))) = (self.ops[op].name, self.ops[op].lease.expect("granted"));
        let text = self.names[name].clone();
        let list = self.dice.percent(25);
        let query = self.call(client, |client, now| match list {
            true => client.list(None, 2, None, now),
            false => client.check(text, first, None, now),
        });
        let (asked, kind) = (self.truth, if list { None } else { Some(op) });
        if let (Some(query), Some(manager)) = (query, &mut self.managers[client]) {
            manager.queries.insert(query, Query { check: kind, asked });
        }
        self.after_call(client);
    }

    pub(crate) fn is_paused(&self, process: usize) -> bool {
        self.processes[process].paused_until > self.truth
    }
}
