//! Upgradable readers: which of them upgrade, give up, downgrade, and the rules for that.

use tierlock::{
    Token,
    proto::{
        ConnectionId, LeaseId, RequestId,
        look::{AtLeader, LeaderSubject},
        wire::{ClientMessage, Mode, Refusal},
    },
};

use crate::{
    clock::{MS, SECOND, Truth},
    leader::Host,
    rules::{Made, Rule},
    users::Task,
    world::{Step, World},
};

/// A change of mode that a user waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Converting {
    request: RequestId,
    to: Mode,
    /// It is refused if another shares the lease.
    tries: bool,
    asked: Truth,
}

/// As what a lease was held, from when to when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldPhase {
    pub(crate) mode: Mode,
    pub(crate) token: Token,
    pub(crate) call: Truth,
    pub(crate) returned: Option<Truth>,
    pub(crate) left: Option<Truth>,
    pub(crate) freed: Option<Truth>,
}

/// What the leader, as it is now, has read of an upgrade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadUpgrade {
    wire: usize,
    reign: u32,
    request: RequestId,
    lease: LeaseId,
}

impl World {
    /// Asks for another mode, in place of leaving. Answers `false` if it stays what it is.
    pub(crate) fn asks_to_convert(&mut self, client: usize, task: usize, op: usize) -> bool {
        let mode = self.ops[op].mode;
        let Some((lease, (token, _))) = self.ops[op].lease else { return false };
        if self.ops[op].converting.is_some() {
            return self.waits_to_convert(client, task, op, lease);
        }
        let was_upgraded = !self.ops[op].phases.is_empty();
        if mode != Mode::Upgradable && !(mode == Mode::Exclusive && was_upgraded) {
            return false;
        }
        let Some(dice) = self.sharing.dice() else { return false };
        let to = match (mode, dice.below(10)) {
            (Mode::Upgradable, 0..6) => Mode::Exclusive,
            (Mode::Upgradable, 6) | (_, 0..3) => Mode::Shared,
            (Mode::Exclusive, 3..5) => Mode::Upgradable,
            _ => return false,
        };
        let longest = [MS, 50 * MS, SECOND][dice.below(3) as usize];
        let rest = dice.below(longest);
        let tries = to == Mode::Exclusive && dice.percent(30);
        self.use_the_lock(op);
        let asked = self.call(client, |client, now| match to {
            Mode::Exclusive => client.upgrade(lease, tries, now),
            to => client.downgrade(lease, to, token, now),
        });
        let Some(request) = asked.flatten() else { return false };
        let truth = self.truth;
        self.tally.conversions += 1;
        let state = &mut self.ops[op];
        if state.phases.is_empty() {
            state.phases.push(HeldPhase {
                mode,
                token,
                call: state.invoked,
                returned: state.granted,
                left: None,
                freed: None,
            });
        }
        state.converting = Some(Converting { request, to, tries, asked: truth });
        if to != Mode::Exclusive {
            // Its session sees it as that from now on.
            state.mode = to;
            state.phases.last_mut().expect("it has one").left = Some(truth);
        }
        self.after_call(client);
        self.after(rest, Step::Task(client, self.lives[client], task));
        true
    }

    /// It waits for an answer: an upgrade may be given up, and then it leaves like any other.
    fn waits_to_convert(&mut self, client: usize, task: usize, op: usize, lease: LeaseId) -> bool {
        let Some(Converting { to, .. }) = self.ops[op].converting else { return false };
        let Some(dice) = self.sharing.dice() else { return false };
        let (leaves, gives_up) = (dice.percent(15), dice.percent(40));
        let rest = dice.below(SECOND);
        if leaves {
            return false;
        }
        if to == Mode::Exclusive && gives_up {
            self.tally.cancels += 1;
            self.call(client, |client, now| {
                client.downgrade(lease, Mode::Upgradable, Token::ZERO, now)
            });
            self.ops[op].converting = None;
            self.after_call(client);
        }
        self.after(rest, Step::Task(client, self.lives[client], task));
        true
    }

    /// Whether it has the token of what it is by now.
    pub(crate) fn has_its_token(&self, op: usize) -> bool {
        self.ops[op].converting.is_none_or(|converting| converting.to == Mode::Exclusive)
    }

    pub(crate) fn heard_converted(
        &mut self,
        client: usize,
        request: RequestId,
        lease: LeaseId,
        token: Token,
    ) {
        let Some(&op) = self.op_of_lease.get(&(lease, client)) else { return };
        let truth = self.truth;
        let state = &mut self.ops[op];
        let Some(Converting { to, asked, .. }) =
            state.converting.filter(|converting| converting.request == request)
        else {
            return; // it gave up, or has left
        };
        state.converting = None;
        state.mode = to;
        state.lease = Some((lease, (token, token)));
        state.granted = Some(truth);
        let before = state.phases.last_mut().expect("it was asked for");
        before.left.get_or_insert(asked);
        before.freed = Some(truth);
        state.phases.push(HeldPhase {
            mode: to,
            token,
            call: asked,
            returned: Some(truth),
            left: None,
            freed: None,
        });
        let task = state.task;
        let is_holding = self.managers[client].as_ref().is_some_and(
            |manager| matches!(manager.tasks[task], Task::Holding { op: own } if own == op),
        );
        if is_holding {
            self.use_the_lock(op);
        }
    }

    /// What the leader reads of an upgrade, or of its end.
    pub(crate) fn heard_of_upgrades(&mut self, wire: usize, message: &ClientMessage) {
        let (lease, read) = match *message {
            ClientMessage::Upgrade { request, lease, .. } => {
                (lease, Some(ReadUpgrade { wire, reign: self.reign, request, lease }))
            }
            ClientMessage::Downgrade { lease, .. } | ClientMessage::Release { lease, .. } => {
                (lease, None)
            }
            _ => return,
        };
        let client = self.wires[wire].client;
        if let Some(&op) = self.op_of_lease.get(&(lease, client)) {
            self.ops[op].upgrade_read = read;
        }
    }

    /// The leader has converted a lease: its token, and what it is beside.
    pub(crate) fn leader_converts(
        &mut self,
        host: &mut Host,
        wire: usize,
        (request, lease): (RequestId, LeaseId),
        token: Token,
    ) {
        let client = self.wires[wire].client;
        let Some(&op) = self.op_of_lease.get(&(lease, client)) else {
            return self
                .violate(Rule::Queue, format!("{lease:?} is converted and was not granted"));
        };
        self.ops[op].upgrade_read = None;
        if self.ops[op].made.iter().any(|made| made.lease == lease && made.token == token) {
            return; // told again
        }
        let name = self.ops[op].name;
        let end = self.ends.entry(lease).or_insert(token);
        *end = token.max(*end);
        let asked = self.ops[op].converting.filter(|asked| asked.request == request);
        let Some(Converting { to, .. }) = asked else {
            // Given up meanwhile; its token was counted all the same.
            self.highest[name] = token.max(self.highest[name]);
            return;
        };
        let session = host.sessions[&wire];
        self.ops[op].made.push(Made { at: self.truth, lease, token, session });
        if token.epoch() > self.disk.known.epoch {
            let text = format!("{token} of {lease:?} while epoch {} is durable", token.epoch());
            self.violate(Rule::Durable, text);
        }
        let seen_as = std::mem::replace(&mut self.ops[op].mode, to);
        self.check_token(name, op, (token, token));
        self.check_room(name, op);
        self.ops[op].mode = seen_as;
    }

    /// The leader refuses something: an upgrade only because another shares the lock.
    pub(crate) fn leader_refuses(&mut self, host: &Host, wire: usize, request: RequestId) {
        let is_it = |read: ReadUpgrade| read.wire == wire && read.request == request;
        let upgrade = self.ops.iter().position(|state| state.upgrade_read.is_some_and(is_it));
        let Some(op) = upgrade else { return };
        self.ops[op].upgrade_read = None;
        let name = &self.names[self.ops[op].name];
        let of_name = host.leader.locks().find(|(known, _, _)| *known == name);
        if of_name.is_none_or(|(_, leases, _)| leases.len() < 2) {
            let text = format!("an upgrade of {name} is refused though no other shares it");
            self.violate(Rule::Queue, text);
        }
    }

    /// It stays upgradable. Only one that tries is refused.
    pub(crate) fn heard_not_converted(
        &mut self,
        client: usize,
        request: RequestId,
        lease: LeaseId,
        why: Refusal,
    ) {
        let op = self.op_of_lease.get(&(lease, client)).copied();
        let asked = op.and_then(|op| self.ops[op].converting);
        let Some(asked) = asked.filter(|converting| converting.request == request) else { return };
        if !asked.tries || why != Refusal::WouldBlock {
            return self.violate(Rule::Queue, format!("{lease:?} was not converted: {why:?}"));
        }
        self.tally.refused_upgrades += 1;
        self.ops[op.expect("it was found")].converting = None;
    }

    /// While an upgrade waits none is granted the name. One of a lease that is being taken away, or was,
    /// waits for nothing any more.
    pub(crate) fn check_upgrades(&mut self, host: &Host, name: usize, op: usize) {
        let may_come = |read: ReadUpgrade| {
            let connection = ConnectionId(read.wire as u64);
            let ReadUpgrade { request, lease, .. } = read;
            let upgrade = ClientMessage::Upgrade { request, lease, tries: false };
            host.leader.connection_state(connection) == AtLeader::ServingOpen
                && host.leader.subject(connection, &upgrade) == LeaderSubject::LeaseHeld
        };
        let waits = self.ops.iter().enumerate().find(|&(other, state)| {
            other != op
                && state.name == name
                && state.ended.is_none()
                && self.lives[state.client] == state.life
                && state.upgrade_read.is_some_and(|read| read.reign == self.reign && may_come(read))
        });
        if let Some((_, other)) = waits {
            let text = format!(
                "client {} is granted {} while the upgrade of client {} waits",
                self.ops[op].client, self.names[name], other.client
            );
            self.violate(Rule::Queue, text);
        }
    }
}
