//! Users that want two names at once: both are tried for together, the second after the first, and a
//! second that is taken is waited for with the first in hand, in the order of the names.
//!
//! Two tasks of a client are one such user. Dice of their own draw which worlds have them.

use std::collections::BTreeMap;

use tierlock::{
    Token,
    proto::{
        RequestId,
        wire::{Acquire, Extras, Wait},
    },
};

use crate::{
    clock::MS,
    dice::Dice,
    rules::{Op, Rule},
    users::Task,
    world::{Plan, Step, TROUBLE, World},
};

/// A client's user of two names: its first task has the lower one.
const FIRST: usize = 0;
const SECOND: usize = 1;

/// Which users want two names.
pub(crate) struct Pairs {
    /// `None` in a world without.
    dice: Option<Dice>,
    /// By client and life: the operations for the lower name and the higher one.
    wanted: BTreeMap<(usize, u32), (usize, usize)>,
    /// How often each client has wanted two.
    times: BTreeMap<usize, u32>,
}

/// So often in a world: each time more than one thing wakes a task from then on.
const TIMES_MAX: u32 = 4;

impl Pairs {
    pub(crate) fn new(seed: u64, plan: &Plan) -> Pairs {
        let mut dice = Dice::new(seed ^ 0x5EED_A11A_5EED_A11A);
        let has_some = plan.tasks > SECOND && !plan.restores && dice.percent(50);
        Pairs { dice: has_some.then_some(dice), wanted: BTreeMap::new(), times: BTreeMap::new() }
    }
}

impl World {
    /// Asks for two names at once. Answers `false` if it does not.
    pub(crate) fn ask_for_two(&mut self, client: usize) -> bool {
        let (life, names) = (self.lives[client], self.names.len());
        let Some(dice) = &mut self.pairs.dice else { return false };
        let times = self.pairs.times.entry(client).or_default();
        let Some(manager) = &self.managers[client] else { return false };
        let are_idle = manager.tasks.iter().all(|task| matches!(task, Task::Idle));
        let is_over = self.truth >= TROUBLE || self.pairs.wanted.contains_key(&(client, life));
        if !are_idle || is_over || *times == TIMES_MAX || !dice.percent(60) {
            return false;
        }
        *times += 1;
        let higher = 1 + dice.below(names as u64 - 1) as usize;
        let lower = dice.below(higher as u64) as usize;
        let first = self.want_one_of_two(client, FIRST, lower, Wait::No, None);
        let after = self.ops[first].request;
        let second = self.want_one_of_two(client, SECOND, higher, Wait::No, after);
        self.pairs.wanted.insert((client, life), (first, second));
        self.after_call(client);
        true
    }

    fn want_one_of_two(
        &mut self,
        client: usize,
        task: usize,
        name: usize,
        wait: Wait,
        after: Option<RequestId>,
    ) -> usize {
        let (life, op) = (self.lives[client], self.ops.len());
        let mut own = Op::new(client, life, task, name, self.truth, wait, Token::ZERO, false);
        own.mode = self.choose_mode(name, true);
        own.goes_around = true;
        let mode = own.mode;
        own.after = after;
        self.ops.push(own);
        let extras = Extras { after, ..Extras::default() };
        let extras = after.is_some().then(|| Box::new(extras));
        let asked = Acquire::exclusive(self.names[name].clone(), wait);
        let acquire = Acquire { mode, extras, ..asked };
        let request = self.call(client, |client, now| client.acquire(acquire, None, now));
        if let Some(request) = request {
            self.ops[op].request = Some(request);
            self.op_of.insert((client, life, request), op);
            self.set_task(client, task, Task::Waiting { op });
        }
        op
    }

    /// Whether a task goes on as one of two. Answers `false` if it is none, or none any more.
    pub(crate) fn goes_on_as_one_of_two(&mut self, client: usize, task: usize) -> bool {
        let key = (client, self.lives[client]);
        let Some(&(first, second)) = self.pairs.wanted.get(&key) else { return false };
        let Some(manager) = &self.managers[client] else { return false };
        let state = |task: usize| manager.tasks[task];
        let has_first = matches!(state(FIRST), Task::Holding { op } if op == first);
        // One that sleeps for a minute, or has had its last word, is not waited for.
        let comes_again =
            !self.has_slept(client, SECOND) && !self.content.contains(&(client, SECOND));
        let is_refused =
            self.ops[second].failed.is_some() && matches!(state(SECOND), Task::Idle) && comes_again;
        let waits = matches!(state(SECOND), Task::Waiting { op } if op == second);
        match task {
            // It keeps what it has until it has both.
            FIRST if has_first && (waits || is_refused) && !manager.closing => {
                self.after(10 * MS, Step::Task(client, key.1, FIRST));
                true
            }
            SECOND if has_first && is_refused && !manager.closing => {
                let name = self.ops[second].name;
                let again = self.want_one_of_two(client, SECOND, name, Wait::Forever, None);
                self.pairs.wanted.insert(key, (first, again));
                self.after_call(client);
                true
            }
            FIRST => {
                self.pairs.wanted.remove(&key);
                false
            }
            _ => false,
        }
    }

    /// Nothing is granted behind a request that waits or was refused.
    pub(crate) fn check_after(&mut self, op: usize) {
        let Some(after) = self.ops[op].after else { return };
        let (client, life) = (self.ops[op].client, self.ops[op].life);
        let is_had = self.op_of.get(&(client, life, after)).is_some_and(|&before| {
            let before = &self.ops[before];
            !before.made.is_empty() || before.given_up.is_some()
        });
        if !is_had {
            let name = &self.names[self.ops[op].name];
            let text = format!("{name} is granted behind {after:?}, which was not granted");
            self.violate(Rule::Property, text);
        }
    }
}
