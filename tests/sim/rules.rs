//! The rules, checked from outside in true time: by what is said, read, written and believed,
//! never by what the protocol thinks of itself.

use std::{fmt, time::Duration};

use tierlock::{
    LostReason, Time, Token,
    proto::{
        LeaseId, RequestId, SessionId,
        client::RequestFailure,
        wire::{ClientMessage, LeaderMessage, Mode, Refusal, Wait},
    },
};

use crate::{
    clock::{SECOND, Truth, shown},
    leader::Host,
    restored::{Branch, UNSEEN, is_forgiven},
    sharing::Together,
    upgrading::{Converting, HeldPhase, ReadUpgrade},
    users::Task,
    world::{LAST_WORD, Node, Step, TROUBLE, World},
};

/// The rules of a lock; 1 to 4 as the guide's page `protocol` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// 1: at any true moment at most one holder of a name believes in its lease.
    OneHolder,
    /// 2: the tokens of a name only grow.
    TokensGrow,
    /// 3: a waiter that gave up never holds, no waiter is forgotten, first come is first served.
    Queue,
    /// 4: a durable record precedes every reply that depends on it.
    Durable,
    /// What `at_least` promised: no other holder before its end, and the next one after it.
    AtLeast,
    /// Once nothing goes wrong any more, every user gets what it wants, and keeps it.
    Liveness,
    /// Acquire and release happen in some order, each at one moment.
    Linearizable,
    /// A property with a name of its own.
    Property,
    /// A leader acts with proof while the journal is in another's reign.
    TwoReigns,
    /// The code contradicted itself: an assertion of its own.
    Assertion,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) seed: u64,
    pub(crate) rule: Rule,
    pub(crate) at: Truth,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { seed, rule, at, text } = self;
        write!(
            f,
            "seed {seed} breaks {rule:?} at {:?}: {text}\nreplay it: TIERLOCK_SEED={seed} cargo test \
             --all-features --test sim seeds -- --nocapture",
            shown(*at)
        )
    }
}

/// One request for a lock, from the call to the end of what came of it.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) client: usize,
    pub(crate) life: u32,
    pub(crate) task: usize,
    pub(crate) name: usize,
    pub(crate) mode: Mode,
    pub(crate) wait: Wait,
    pub(crate) above: Token,
    pub(crate) last_word: bool,
    pub(crate) limit: Option<Time>,
    pub(crate) at_most_asked: Option<Duration>,
    pub(crate) at_least: Option<Duration>,
    /// Its lease may be kept.
    pub(crate) keep: bool,
    /// It stands in no line of its process: the session asks for what it may have itself.
    pub(crate) goes_around: bool,
    /// The request that it comes after.
    pub(crate) after: Option<RequestId>,
    /// What its client calls it, once it was asked for.
    pub(crate) request: Option<RequestId>,
    pub(crate) invoked: Truth,
    /// Its client heard that it stands in the queue.
    pub(crate) queued: Option<Truth>,
    pub(crate) granted: Option<Truth>,
    /// What its client was granted: the lease, the block of tokens.
    pub(crate) lease: Option<(LeaseId, (Token, Token))>,
    pub(crate) at_most: Option<Time>,
    pub(crate) given_up: Option<Truth>,
    pub(crate) failed: Option<Truth>,
    /// It was refused because another had it.
    pub(crate) busy: bool,
    /// It was refused while an `at_least` kept the name taken.
    pub(crate) met_reservation: bool,
    /// Since when no guard believes in it any more, because its holder released it or was told of its end.
    pub(crate) ended: Option<Truth>,
    /// The release was answered.
    pub(crate) freed: Option<Truth>,
    /// The connection on which the leader, as it is now, told it its place.
    waits_on: Option<usize>,
    /// The leader, as it is now, has read that it is not wanted any more.
    cancel_read: Option<u32>,
    /// Which course of the world granted it.
    pub(crate) branch: Branch,
    /// What it took of a kept lease.
    pub(crate) took: Option<Token>,
    /// What leaders have granted for it, whether or not a client heard of it.
    pub(crate) made: Vec<Made>,
    /// The change of mode that it waits for.
    pub(crate) converting: Option<Converting>,
    /// As what it was held, if that has changed.
    pub(crate) phases: Vec<HeldPhase>,
    /// Its upgrade, as the leader has read it.
    pub(crate) upgrade_read: Option<ReadUpgrade>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Made {
    pub(crate) at: Truth,
    pub(crate) lease: LeaseId,
    pub(crate) token: Token,
    pub(crate) session: SessionId,
}

/// A question that was asked, and when.
#[derive(Debug)]
pub(crate) struct Query {
    /// Whether the lease of this operation is good.
    pub(crate) check: Option<usize>,
    pub(crate) asked: Truth,
}

impl Op {
    #[expect(clippy::too_many_arguments, reason = "it is what was asked, and by which client")]
    pub(crate) fn new(
        client: usize,
        life: u32,
        task: usize,
        name: usize,
        invoked: Truth,
        wait: Wait,
        above: Token,
        last_word: bool,
    ) -> Op {
        Op {
            client,
            life,
            task,
            name,
            mode: Mode::Exclusive,
            wait,
            above,
            last_word,
            limit: None,
            at_most_asked: None,
            at_least: None,
            keep: false,
            goes_around: false,
            after: None,
            request: None,
            invoked,
            queued: None,
            granted: None,
            lease: None,
            at_most: None,
            given_up: None,
            failed: None,
            busy: false,
            met_reservation: false,
            ended: None,
            freed: None,
            waits_on: None,
            cancel_read: None,
            branch: Branch::First,
            took: None,
            made: Vec::new(),
            converting: None,
            phases: Vec::new(),
            upgrade_read: None,
        }
    }

    /// The connection on which the leader, as it is now, told it its place.
    pub(crate) fn waits_on(&self) -> Option<usize> {
        self.waits_on
    }

    /// No leader serves the connection on which it was told its place any more.
    pub(crate) fn leave_queue(&mut self) {
        self.waits_on = None;
    }

    pub(crate) fn tries(&self) -> bool {
        self.wait == Wait::No
    }
}

// Rule 1.
impl World {
    /// Whether its holder believes in it at this moment, by its own clock.
    pub(crate) fn believes(&self, op: usize) -> bool {
        let state = &self.ops[op];
        if state.lease.is_none() || state.ended.is_some() {
            return false;
        }
        let Some(manager) = &self.managers[state.client] else { return false };
        let now = self.clock(Node::Client(state.client));
        manager.deadline.is_some_and(|deadline| now < deadline)
            && state.at_most.is_none_or(|end| now < end)
    }

    pub(crate) fn check_believers(&mut self) {
        let mut believers = [Together::default(); 8];
        let tasks = self.managers.iter().flatten().flat_map(|manager| &manager.tasks);
        let holding = tasks.filter_map(|task| match *task {
            Task::Holding { op } => Some(op),
            _ => None,
        });
        let mut found = None;
        for op in holding.filter(|op| self.believes(*op)) {
            let Op { name, mode, .. } = self.ops[op];
            if let Some(other) = believers[name].add(op, mode)
                && !is_forgiven(self.ops[op].branch, self.ops[other].branch)
            {
                found = Some((other, op));
            }
        }
        if let Some((one, other)) = found {
            let (one, other) = (&self.ops[one], &self.ops[other]);
            let text = format!(
                "{} has two holders: client {}.{} with {:?}, {:?}, and client {}.{} with {:?}, {:?}",
                self.names[one.name],
                one.client,
                one.life,
                one.lease,
                one.mode,
                other.client,
                other.life,
                other.lease,
                other.mode
            );
            self.violate(Rule::OneHolder, text);
        }
    }

    /// The guards' deadline moves.
    pub(crate) fn heard_deadline(&mut self, client: usize, deadline: Time, now: Time) {
        let Some(manager) = &mut self.managers[client] else { return };
        let old = manager.deadline.replace(deadline);
        let holding = manager.tasks.iter().find_map(|task| match *task {
            Task::Holding { op } => Some(op),
            _ => None,
        });
        if let (Some(op), Some(old)) = (holding, old)
            && old <= now
        {
            let lease = self.ops[op].lease;
            self.violate(
                Rule::OneHolder,
                format!("client {client}: {lease:?} expired at {old:?} and lives again"),
            );
        }
    }

    /// No guard believes in it from now on, or since its deadline has passed.
    pub(crate) fn end_hold(&mut self, op: usize) {
        let state = &self.ops[op];
        let node = Node::Client(state.client);
        let deadline = self.managers[state.client].as_ref().and_then(|manager| manager.deadline);
        let ends = [deadline, state.at_most].into_iter().flatten();
        let until = ends.map(|end| self.when(node, end)).min().unwrap_or(Truth::MAX);
        // It may have run out before its holder heard of it.
        let since = self.truth.min(until.max(state.invoked));
        self.ops[op].ended.get_or_insert(since);
    }

    /// A holder does what the lock is for. The resource keeps the highest token it has seen.
    pub(crate) fn use_the_lock(&mut self, op: usize) {
        self.check_believers();
        if !self.believes(op) || !self.has_its_token(op) {
            return;
        }
        let name = self.ops[op].name;
        let (_, (token, _)) = self.ops[op].lease.expect("it is held");
        let before = self.stored[name];
        let is_restored = self.past.branch > Branch::First;
        if token < before && is_restored && self.ops[op].branch < Branch::Above {
            return; // the resource refuses it
        }
        if self.is_refused_by_resource(name, self.ops[op].mode, token) {
            let name = &self.names[name];
            let text = format!("the resource of {name} saw {before}, and its holder has {token}");
            return self.violate(Rule::TokensGrow, text);
        }
        self.stored[name] = token.max(before);
    }
}

// What clients hear.
impl World {
    fn op(&self, client: usize, request: RequestId) -> Option<usize> {
        self.op_of.get(&(client, self.lives[client], request)).copied()
    }

    pub(crate) fn heard_queued(&mut self, client: usize, request: RequestId) {
        let truth = self.truth;
        if let Some(op) = self.op(client, request) {
            self.ops[op].queued.get_or_insert(truth);
        }
    }

    pub(crate) fn heard_granted(
        &mut self,
        client: usize,
        request: RequestId,
        lease: LeaseId,
        block: (Token, Token),
        at_most: Option<Time>,
    ) {
        let truth = self.truth;
        let Some(op) = self.op(client, request) else {
            return self.violate(Rule::Queue, format!("{request:?} was granted and never asked"));
        };
        let state = &mut self.ops[op];
        if state.given_up.is_some() || state.failed.is_some() || state.granted.is_some() {
            let text = format!("{request:?} was granted after its end: {state:?}");
            return self.violate(Rule::Queue, text);
        }
        if block.0 > block.1 || block.0 <= state.above {
            let text = format!("{block:?} was granted above {}", state.above);
            return self.violate(Rule::TokensGrow, text);
        }
        state.granted = Some(truth);
        state.lease = Some((lease, block));
        state.at_most = at_most;
        self.tally.grants += 1;
        self.digest.add(block.0.get());
        self.digest.add(truth);
        let before = self.op_of_lease.insert((lease, client), op);
        let others = self.op_of_lease.range((lease, 0)..=(lease, usize::MAX)).map(|(_, &op)| op);
        let branch = self.ops[op].branch;
        let is_of_other = |other: usize| other != op && self.ops[other].branch == branch;
        if others.chain(before).any(is_of_other) {
            let text = format!("{lease:?} was granted to two requests");
            self.violate(Rule::TokensGrow, text);
        }
        if self.ops[op].at_least.is_some() && self.truth < TROUBLE && self.dice.percent(10) {
            return self.refuse_granted(client, op, lease);
        }
        self.heard_promise(op, lease, block.0);
        if self.lines_up(op) {
            self.open_kept(client, op);
        } else {
            self.open_share(client, op);
        }
        self.enter(client, op);
    }

    pub(crate) fn heard_failed(
        &mut self,
        client: usize,
        request: RequestId,
        failure: RequestFailure,
    ) {
        let Some(op) = self.op(client, request) else { return };
        self.tally.refusals += 1;
        let truth = self.truth;
        let state = &mut self.ops[op];
        state.failed = Some(truth);
        // Of one that comes after another it says nothing of its own name.
        state.busy = failure == RequestFailure::Refused { why: Refusal::WouldBlock }
            && state.after.is_none();
        let (task, last_word) = (state.task, state.last_word);
        if state.wait == Wait::Forever
            && matches!(
                failure,
                RequestFailure::Refused { why: Refusal::WouldBlock | Refusal::TimedOut }
            )
        {
            let text = format!("{request:?} was to wait for ever, and: {failure:?}");
            self.violate(Rule::Queue, text);
        }
        let is_calm = !self.plan.restores;
        if is_calm
            && last_word
            && self.truth > LAST_WORD + CALM
            && failure != RequestFailure::Closed
        {
            self.violate(Rule::Liveness, format!("in calm, {request:?} failed: {failure:?}"));
        }
        if let Some(manager) = &mut self.managers[client]
            && matches!(manager.tasks[task], Task::Waiting { op: own } if own == op)
        {
            manager.tasks[task] = Task::Idle;
            let rest = self.dice.below(50_000_000);
            self.after(rest, Step::Task(client, self.lives[client], task));
            self.left(client, op);
        }
    }

    pub(crate) fn heard_lost(&mut self, client: usize, lease: LeaseId, why: LostReason) {
        self.tally.losses += 1;
        self.tally.expiries += u64::from(why == LostReason::Expired);
        self.tally.gone += u64::from(why == LostReason::Forgotten);
        self.given_back.insert(lease);
        if self.plan.keeps && self.lose_kept(client, lease, why) {
            return self.told(client, lease);
        }
        let shared = self.lose_share(client, lease);
        let is_idle = shared.as_ref().is_some_and(Vec::is_empty);
        if is_idle {
            return self.told(client, lease);
        }
        let holder = self.op_of_lease.get(&(lease, client)).map(|&op| vec![op]);
        for op in shared.or(holder).unwrap_or_default() {
            self.end_hold(op);
            let task = self.ops[op].task;
            if let Some(manager) = &mut self.managers[client]
                && matches!(manager.tasks[task], Task::Holding { op: own } if own == op)
            {
                manager.tasks[task] = Task::Lost { op };
            }
            if !self.plan.restores && self.ops[op].invoked > LAST_WORD + CALM {
                let text = format!("in calm, client {client} lost {lease:?}: {why:?}");
                self.violate(Rule::Liveness, text);
            }
        }
        // Callbacks run first, and may take a while.
        let delay = match self.dice.below(10) {
            0 => self.dice.below(2_000_000_000),
            1..=3 => self.dice.below(20_000_000),
            _ => 0,
        };
        self.after(delay, Step::Told(client, self.lives[client], lease));
    }

    /// The leader answers a release: it has read that no guard holds this lease any more.
    pub(crate) fn heard_released(&mut self, client: usize, lease: LeaseId) {
        let truth = self.truth;
        if let Some(&op) = self.op_of_lease.get(&(lease, client))
            && self.ops[op].ended.is_some()
        {
            self.ops[op].freed.get_or_insert(truth);
        }
    }

    pub(crate) fn heard_checked(&mut self, client: usize, query: RequestId, good: bool) {
        self.tally.checks += 1;
        let query = self.managers[client].as_mut().and_then(|m| m.queries.remove(&query));
        let Some(Query { check: Some(op), asked }) = query else { return };
        if good
            && self.past.branch != Branch::Restored
            && self.past.branch == self.ops[op].branch
            && let Some(ended) = self.ops[op].ended
            && self.superseded(op, asked)
        {
            let text = format!(
                "a token released at {:?} and superseded before {:?} was called good",
                shown(ended),
                shown(asked)
            );
            self.violate(Rule::Property, text);
        }
    }

    /// Whether a later grant of the name was known somewhere at that moment.
    fn superseded(&self, op: usize, at: Truth) -> bool {
        let Op { name, mode, lease: Some((_, (token, _))), .. } = &self.ops[op] else {
            return false;
        };
        self.ops.iter().any(|other| {
            other.name == *name
                && self.is_overtaken_by(*mode, other.mode)
                && other.branch == self.ops[op].branch
                && other.granted.is_some_and(|granted| granted < at)
                && other.lease.is_some_and(|(_, (first, _))| first > *token)
        })
    }

    pub(crate) fn heard_broke(&mut self, client: usize, query: RequestId, found: bool) {
        self.tally.breaks += u64::from(found);
        if let Some(manager) = &mut self.managers[client] {
            manager.queries.remove(&query);
        }
    }
}

// What the leader reads, says and writes.
impl World {
    fn op_on(&self, wire: usize, request: RequestId) -> Option<usize> {
        let wire = &self.wires[wire];
        self.op_of.get(&(wire.client, wire.life, request)).copied()
    }

    pub(crate) fn heard_by_leader(&mut self, wire: usize, message: &ClientMessage) {
        self.heard_of_reserved(wire, message);
        self.heard_of_upgrades(wire, message);
        self.heard_of_observers(wire, message);
        if let ClientMessage::Cancel { request } = *message
            && let Some(op) = self.op_on(wire, request)
        {
            let reign = self.reign;
            let state = &mut self.ops[op];
            if state.waits_on == Some(wire) {
                state.waits_on = None;
                state.cancel_read = Some(reign);
            }
        }
    }

    /// A connection that the leader does not serve any more.
    pub(crate) fn leader_forgets(&mut self, wire: usize) {
        for manager in self.managers.iter().flatten() {
            for task in &manager.tasks {
                if let Task::Waiting { op } = *task
                    && self.ops[op].waits_on == Some(wire)
                {
                    self.ops[op].waits_on = None;
                }
            }
        }
    }

    pub(crate) fn said_by_leader(&mut self, host: &mut Host, wire: usize, message: &LeaderMessage) {
        self.said_of_reserved(wire, message);
        self.said_to_observers(wire, message);
        match *message {
            LeaderMessage::Welcome { time_to_live, .. } if !time_to_live.is_zero() => {
                self.check_welcome(host, wire);
            }
            LeaderMessage::Queued { request, .. } => {
                self.told_to_wait(host, wire, request);
                if let Some(op) = self.op_on(wire, request) {
                    self.ops[op].waits_on = Some(wire);
                }
            }
            LeaderMessage::Refused { request, .. } => {
                self.leader_refuses(host, wire, request);
                if let Some(op) = self.op_on(wire, request) {
                    let is_reserved = self.is_reserved(host, self.ops[op].name);
                    self.ops[op].met_reservation |= is_reserved;
                    self.ops[op].waits_on = None;
                }
            }
            LeaderMessage::Gone { .. } => self.leader_forgets(wire),
            LeaderMessage::Recall { lease } => self.said_recall(wire, lease),
            LeaderMessage::Converted { request, lease, token } => {
                self.leader_converts(host, wire, (request, lease), token);
            }
            LeaderMessage::ToppedUp { lease, last } => drop(self.ends.insert(lease, last)),
            LeaderMessage::Granted { request, lease, first, last, .. } => {
                self.leader_grants(host, wire, request, lease, (first, last));
            }
            LeaderMessage::Lost { lease, .. } if !self.disk.known.revoked.contains(&lease) => {
                let text = format!("{lease:?} is told as lost before that is durable");
                self.violate(Rule::Durable, text);
            }
            _ => {}
        }
    }

    fn leader_grants(
        &mut self,
        host: &mut Host,
        wire: usize,
        request: RequestId,
        lease: LeaseId,
        (first, last): (Token, Token),
    ) {
        let Some(op) = self.op_on(wire, request) else {
            return self.violate(Rule::Queue, format!("{request:?} is granted and was not asked"));
        };
        let session = host.sessions[&wire];
        let made = Made { at: self.truth, lease, token: first, session };
        if self.ops[op].made.iter().any(|made| made.lease == lease && made.token == first) {
            return; // told again
        }
        self.ops[op].made.push(made);
        // After a restore one number may name two leases.
        let end = self.ends.entry(lease).or_insert(last);
        *end = last.max(*end);
        self.recalled.remove(&lease);
        self.given_back.remove(&lease);
        self.ops[op].waits_on = None;
        self.ops[op].branch = self.past.branch;
        if let Some(met) = host.met_lost {
            self.check_above_lost(host, met, first);
        }
        if self.ops[op].cancel_read == Some(self.reign) {
            let text = format!("{request:?} is granted after its Cancel was read");
            self.violate(Rule::Queue, text);
        }
        let name = self.ops[op].name;
        let shown = self.names[name].clone();
        self.check_after(op);
        self.check_token(name, op, (first, last));
        if first.epoch() > self.disk.known.epoch || last.epoch() != first.epoch() {
            let text = format!(
                "{shown}: tokens {first} to {last} while epoch {} is durable",
                self.disk.known.epoch
            );
            self.violate(Rule::Durable, text);
        }
        if !self.disk.known.opened.contains(&session) || self.disk.known.ended.contains(&session) {
            let text = format!("{shown} is granted to {session:?}, which is not durably open");
            self.violate(Rule::Durable, text);
        }
        self.told_reserved(host, op, lease, first);
        self.check_promise(name, op);
        match self.sharing.is_on() {
            true => {
                self.check_room(name, op);
                self.check_upgrades(host, name, op);
            }
            false => self.check_predecessor(name, op),
        }
        // A request that never heard of its grant is granted anew, ahead of all others; so is one with
        // a grant of which an earlier reign came no further than the durable entry.
        let is_anew =
            self.ops[op].made.len() > 1 || host.reserved_before.contains(&(session, request));
        if self.ops[op].at_least.is_none() || !is_anew {
            self.check_turn(name, op);
        }
        self.last_grant[name] = Some(op);
    }

    /// A leader that has met a lost reign grants nothing before its own is as old as any promise,
    /// and then well above what was seen of that.
    fn check_above_lost(&mut self, host: &Host, met: u32, token: Token) {
        let age = self.truth - host.started;
        if age < 60 * SECOND || token.epoch() < met + UNSEEN {
            let text = format!(
                "{token} is granted {:?} after a start by a leader that has met epoch {met} of a lost reign",
                shown(age)
            );
            self.violate(Rule::TokensGrow, text);
        }
    }

    /// The holder of the name before has given it back, or it was durably taken away.
    fn check_predecessor(&mut self, name: usize, op: usize) {
        let Some(before) = self.last_grant[name] else { return };
        let state = &self.ops[before];
        let Some(&Made { lease, session, .. }) = state.made.last() else { return };
        if state.branch != self.past.branch || state.branch == Branch::Restored {
            return;
        }
        let told = state.lease.is_some() && !self.given_back.contains(&lease);
        let alive = self.lives[state.client] == state.life;
        if before != op
            && told
            && alive
            && !self.disk.known.revoked.contains(&lease)
            && !self.disk.known.ended.contains(&session)
        {
            let text = format!(
                "{} goes from client {} to client {} while {lease:?} was neither given back nor \
                 durably taken away",
                self.names[name], state.client, self.ops[op].client
            );
            self.violate(Rule::Durable, text);
        }
    }

    /// No waiter that is there has waited since before this one asked.
    fn check_turn(&mut self, name: usize, op: usize) {
        if self.past.branch > Branch::First {
            return; // places were told twice
        }
        let invoked = self.ops[op].invoked;
        let tasks = self.managers.iter().flatten().flat_map(|manager| &manager.tasks);
        let overtaken = tasks
            .filter_map(|task| match *task {
                Task::Waiting { op } => Some(op),
                _ => None,
            })
            .find(|&other| {
                let state = &self.ops[other];
                state.name == name
                    && other != op
                    && state.waits_on.is_some()
                    && state.queued.is_some_and(|queued| queued < invoked)
            });
        if let Some(other) = overtaken {
            let (one, other) = (&self.ops[op], &self.ops[other]);
            let text = format!(
                "client {} was granted {}, asked for at {:?}; client {} has stood in the queue \
                 since {:?}",
                one.client,
                self.names[name],
                shown(one.invoked),
                other.client,
                shown(other.queued.expect("it is"))
            );
            self.violate(Rule::Queue, text);
        }
    }
}

/// How long after the last fault nothing is lost and nothing fails any more.
const CALM: Truth = 8_000_000_000;
