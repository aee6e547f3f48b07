//! Readers, writers and permits: which client asks for what, how a manager keeps what it shares, and the rules
//! for leases that are held together.
//!
//! Which worlds have them, and what their users ask for, is drawn from dice of their own: all other
//! worlds have the course that they had without.

use std::collections::BTreeSet;

use tierlock::{
    Predecessor, Token,
    proto::{
        ConnectionId, LeaseId,
        look::{AtLeader, LeaderSubject, Phase},
        wire::{ClientMessage, Mode, NameUse},
    },
};

use crate::{
    clock::{MS, shown},
    dice::Dice,
    keeping::Keeping,
    leader::Host,
    rules::Rule,
    users::Task,
    world::{Node, Plan, Step, TROUBLE, World, note},
};

/// The name that is a semaphore in worlds with shares; the others are read-write locks.
const PERMITS: usize = 2;

/// What a world's users share.
pub(crate) struct Sharing {
    /// `None` in a world without.
    dice: Option<Dice>,
    /// How many permits there are.
    limit: u32,
    /// The highest token of an exclusive grant, by name.
    exclusive: Vec<Token>,
    /// The highest token that the resource behind the lock has seen of a writer, by name.
    written: Vec<Token>,
    /// Leases that were asked back, and on which connection.
    asked_back: BTreeSet<(LeaseId, usize)>,
}

impl Sharing {
    pub(crate) fn new(seed: u64, plan: &Plan, names: usize) -> Sharing {
        let mut dice = Dice::new(seed ^ 0x5EED_0F5A_5EED_0F5A);
        let shares = dice.percent(40) && !plan.restores;
        Sharing {
            limit: 1 + dice.below(4) as u32,
            dice: shares.then_some(dice),
            exclusive: vec![Token::ZERO; names],
            written: vec![Token::ZERO; names],
            asked_back: BTreeSet::new(),
        }
    }

    /// Whether the name is used otherwise than it mostly is. Such a lease is not kept: all others would
    /// be refused.
    pub(crate) fn is_odd(&self, name: usize, mode: Mode) -> bool {
        self.is_on() && name == PERMITS && mode == Mode::Exclusive
    }

    /// What decides what users do with what they share.
    pub(crate) fn dice(&mut self) -> Option<&mut Dice> {
        self.dice.as_mut()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.dice.is_some()
    }
}

/// A shared lease that a manager keeps, or may.
pub(crate) struct KeptShare {
    pub(crate) lease: LeaseId,
    token: Token,
    inside: Vec<usize>,
    is_recalled: bool,
    is_told: bool,
    /// How often it was left, so that an old look finds it used since.
    left: u64,
}

impl KeptShare {
    pub(crate) fn is_idle(&self) -> bool {
        self.inside.is_empty()
    }
}

/// Whether both can be held at one moment; of permits their sum is looked at besides.
fn may_meet(one: Mode, other: Mode) -> bool {
    match (one, other) {
        (Mode::Shared, Mode::Shared | Mode::Upgradable) => true,
        (Mode::Upgradable, Mode::Shared) => true,
        (Mode::Permits { .. }, Mode::Permits { .. }) => one.name_use() == other.name_use(),
        _ => false,
    }
}

/// The holders of one name, one after the other.
#[derive(Clone, Copy, Default)]
pub(crate) struct Together {
    first: Option<(usize, Mode)>,
    permits: u32,
    upgradable: u32,
}

impl Together {
    /// One more; answers one that it cannot be held beside.
    pub(crate) fn add(&mut self, op: usize, mode: Mode) -> Option<usize> {
        let (first, known) = *self.first.get_or_insert((op, mode));
        self.permits += mode.permits();
        let is_over = match mode {
            Mode::Permits { limit, .. } => self.permits > limit,
            Mode::Upgradable => {
                self.upgradable += 1;
                self.upgradable > 1
            }
            _ => false,
        };
        let meets = first == op || may_meet(known, mode);
        (!meets || is_over).then_some(first)
    }
}

// What users ask for.
impl World {
    /// How much of a name a user asks for.
    pub(crate) fn choose_mode(&mut self, name: usize, last_word: bool) -> Mode {
        let is_odd = self.truth < TROUBLE && !last_word;
        let limit = self.sharing.limit;
        let Some(dice) = &mut self.sharing.dice else { return Mode::Exclusive };
        let count = 1 + dice.below(limit.into()) as u32;
        match name {
            PERMITS if is_odd && dice.percent(4) => Mode::Permits { count, limit: limit + 1 },
            PERMITS if is_odd && dice.percent(4) => Mode::Exclusive,
            PERMITS => Mode::Permits { count, limit },
            _ if is_odd && dice.percent(2) => Mode::Permits { count, limit },
            _ if dice.percent(60) => Mode::Shared,
            _ if dice.percent(35) && !last_word => Mode::Upgradable,
            _ => Mode::Exclusive,
        }
    }

    /// Gives some of its permits back, and keeps the rest. Answers `false` if it keeps all.
    pub(crate) fn give_some_back(&mut self, client: usize, task: usize, op: usize) -> bool {
        let Mode::Permits { count, limit } = self.ops[op].mode else { return false };
        let Some(dice) = &mut self.sharing.dice else { return false };
        if count < 2 || !dice.percent(40) {
            return false;
        }
        let left = 1 + dice.below(u64::from(count) - 1) as u32;
        let rest = dice.below(100 * MS);
        let (lease, _) = self.ops[op].lease.expect("it was granted");
        self.use_the_lock(op);
        self.ops[op].mode = Mode::Permits { count: left, limit };
        self.call(client, |client, _| client.lower(lease, left));
        self.after_call(client);
        self.after(rest, Step::Task(client, self.lives[client], task));
        true
    }

    /// Enters a shared lease that its manager keeps. Answers `false` if there is none.
    pub(crate) fn enter_share(&mut self, client: usize, op: usize) -> bool {
        let (truth, name) = (self.truth, self.ops[op].name);
        let now = self.clock(Node::Client(client));
        let Some(manager) = &mut self.managers[client] else { return false };
        let is_good = manager.deadline.is_some_and(|deadline| now < deadline);
        let Some(share) = &mut manager.tiers[name].share else { return false };
        if share.is_recalled || !is_good || self.ops[op].above >= share.token {
            return false;
        }
        let (lease, token) = (share.lease, share.token);
        if token <= self.sharing.exclusive[name] {
            let text = format!("{lease:?} is shared again with {token}, behind a later writer");
            self.violate(Rule::TokensGrow, text);
            return true;
        }
        let is_told = std::mem::take(&mut share.is_told);
        share.inside.push(op);
        note!(self, "client {client}: {name} shared again, {token} of {lease:?}");
        self.tally.local_grants += 1;
        self.digest.add(token.get());
        if is_told {
            self.call(client, |client, _| client.is_kept(lease, false));
        }
        self.ops[op].branch = self.past.branch;
        self.check_promise(name, op);
        let state = &mut self.ops[op];
        state.granted = Some(truth);
        state.lease = Some((lease, (token, token)));
        state.took = Some(token);
        self.enter(client, op);
        true
    }

    /// Whether a lease is asked for that is kept when the last reader of the process leaves.
    pub(crate) fn wants_to_keep_share(&self, client: usize, op: usize) -> bool {
        let state = &self.ops[op];
        let keeping = self.managers[client].as_ref().map(|manager| manager.keeping);
        self.plan.keeps
            && state.mode == Mode::Shared
            && state.at_most_asked.is_none()
            && !state.goes_around
            && keeping != Some(Keeping::Never)
    }

    /// A shared lease was granted that may be kept.
    pub(crate) fn open_share(&mut self, client: usize, op: usize) {
        let (name, life) = (self.ops[op].name, self.lives[client]);
        let (lease, (token, _)) = self.ops[op].lease.expect("it was granted");
        let Some(manager) = &mut self.managers[client] else { return };
        let share = &mut manager.tiers[name].share;
        if !self.ops[op].keep || share.is_some() {
            return;
        }
        let (inside, is_recalled, is_told, left) = (vec![op], false, false, 0);
        *share = Some(KeptShare { lease, token, inside, is_recalled, is_told, left });
        self.tally.kept_shares += 1;
        self.after(LOOK_EVERY, Step::LookAfter(client, life, name, lease));
    }

    /// A reader leaves. Answers `false` if its lease is none that may be kept.
    pub(crate) fn leave_share(&mut self, client: usize, op: usize) -> bool {
        let name = self.ops[op].name;
        let Some((lease, _)) = self.ops[op].lease else { return false };
        let Some(manager) = &mut self.managers[client] else { return false };
        let Some(share) = &mut manager.tiers[name].share else { return false };
        if share.lease != lease || !share.inside.contains(&op) {
            return false;
        }
        share.inside.retain(|inside| *inside != op);
        share.left += 1;
        if share.is_idle() && share.is_recalled {
            self.give_share_back(client, name);
        }
        true
    }

    fn give_share_back(&mut self, client: usize, name: usize) {
        let Some(manager) = &mut self.managers[client] else { return };
        let Some(KeptShare { lease, token, .. }) = manager.tiers[name].share.take() else { return };
        self.given_back.insert(lease);
        self.call(client, |client, now| client.release(lease, token, Predecessor::Clean, now));
    }

    fn name_of_share(&self, client: usize, lease: LeaseId) -> Option<usize> {
        let manager = self.managers[client].as_ref()?;
        let is_it = |tier: &crate::keeping::Tier| {
            tier.share.as_ref().is_some_and(|share| share.lease == lease)
        };
        manager.tiers.iter().position(is_it)
    }

    /// A writer waits. Answers `false` if this is no shared lease that may be kept.
    pub(crate) fn share_recalled(&mut self, client: usize, lease: LeaseId) -> bool {
        let Some(name) = self.name_of_share(client, lease) else { return false };
        self.tally.recalls += 1;
        let Some(manager) = &mut self.managers[client] else { return true };
        let Some(share) = &mut manager.tiers[name].share else { return true };
        share.is_recalled = true;
        if share.is_idle() {
            self.give_share_back(client, name);
        } else {
            self.call(client, |client, _| client.is_kept(lease, false));
        }
        true
    }

    /// The lease is lost: answers its readers, which are to be told.
    pub(crate) fn lose_share(&mut self, client: usize, lease: LeaseId) -> Option<Vec<usize>> {
        let name = self.name_of_share(client, lease)?;
        let manager = self.managers[client].as_mut()?;
        manager.tiers[name].share.take().map(|share| share.inside)
    }

    /// No shared lease is kept beyond its manager's end.
    pub(crate) fn close_share(&mut self, client: usize, name: usize) {
        let Some(manager) = &mut self.managers[client] else { return };
        if let Some(share) = &mut manager.tiers[name].share {
            share.is_recalled = true;
            if share.is_idle() {
                self.give_share_back(client, name);
            }
        }
    }

    /// Tells the leader that no guard has it, and gives it back after a while without use. Answers
    /// `false` if this is no shared lease that may be kept.
    pub(crate) fn look_after_share(&mut self, client: usize, name: usize, lease: LeaseId) -> bool {
        if self.name_of_share(client, lease) != Some(name) {
            return false;
        }
        let Some(dice) = &mut self.sharing.dice else { return false };
        let (tells, gives_back) = (dice.percent(50), dice.percent(15));
        let Some(manager) = &mut self.managers[client] else { return true };
        let keeping = manager.keeping;
        let Some(share) = &mut manager.tiers[name].share else { return true };
        if share.is_idle() && gives_back && keeping != Keeping::Always {
            self.tally.idle_returns += 1;
            self.give_share_back(client, name);
            return true;
        }
        if share.is_idle() && tells && !share.is_told {
            share.is_told = true;
            self.call(client, |client, _| client.is_kept(lease, true));
        }
        self.after(LOOK_EVERY, Step::LookAfter(client, self.lives[client], name, lease));
        true
    }
}

// The rules.
impl World {
    /// Whether a grant of this token may come now. Readers inside together bear one token, above that
    /// of every writer before them.
    pub(crate) fn check_token(&mut self, name: usize, op: usize, (first, last): (Token, Token)) {
        let mode = self.ops[op].mode;
        let shown = self.names[name].clone();
        let is_higher = first > self.highest[name];
        if mode == Mode::Shared {
            let is_above = first > self.sharing.exclusive[name];
            let others = self.ops.iter().enumerate().filter(|&(other, state)| {
                other != op && state.name == name && state.mode == Mode::Shared
            });
            let borne = others.flat_map(|(_, state)| &state.made).filter(|m| m.token == first);
            let leases: Vec<_> = borne.map(|made| made.lease).collect();
            let is_borne = !leases.is_empty();
            if !is_above || !(is_higher || is_borne) {
                let text = format!("{shown}: a reader enters with {first}, which no other bears");
                return self.violate(Rule::TokensGrow, text);
            }
            if leases.iter().any(|lease| self.disk.known.broken.contains(lease)) {
                let text = format!("{shown}: a reader enters with {first}, which was broken");
                return self.violate(Rule::Property, text);
            }
        } else if !is_higher {
            let text = format!("{shown}: after {} comes {first}", self.highest[name]);
            return self.violate(Rule::TokensGrow, text);
        }
        if mode == Mode::Exclusive {
            self.sharing.exclusive[name] = first;
        }
        // Each of several permits has a token.
        let highest = if mode.permits() > 0 { last } else { first };
        self.highest[name] = highest.max(self.highest[name]);
    }

    /// What the resource behind the name makes of the token that its user shows.
    pub(crate) fn is_refused_by_resource(&mut self, name: usize, mode: Mode, token: Token) -> bool {
        let (stored, written) = (self.stored[name], self.sharing.written[name]);
        if mode == Mode::Exclusive {
            self.sharing.written[name] = token.max(written);
        }
        match mode {
            Mode::Exclusive => token < stored,
            // Another reader may have known of a higher one.
            Mode::Shared | Mode::Upgradable => token <= written,
            Mode::Permits { .. } => false,
        }
    }

    /// Those that were granted the name before and leave no room have given it back, or it was durably
    /// taken away.
    pub(crate) fn check_room(&mut self, name: usize, op: usize) {
        let mode = self.ops[op].mode;
        let mut together = Together::default();
        let _ = together.add(op, mode);
        let mut found = None;
        for (other, state) in self.ops.iter().enumerate() {
            if other == op || state.name != name || state.took.is_some() {
                continue;
            }
            let Some(made) = state.made.last() else { continue };
            let is_told = state.lease.is_some_and(|(lease, _)| lease == made.lease);
            let is_there = is_told
                && self.lives[state.client] == state.life
                && !self.given_back.contains(&made.lease)
                && !self.disk.known.revoked.contains(&made.lease)
                && !self.disk.known.ended.contains(&made.session);
            if is_there && together.add(other, state.mode).is_some() {
                found = Some(other);
            }
        }
        if let Some(other) = found {
            let (one, other) = (&self.ops[op], &self.ops[other]);
            let text = format!(
                "{}: client {} is granted {mode:?} beside {:?} of client {}, which was neither given \
                 back nor durably taken away",
                self.names[name], one.client, other.mode, other.client
            );
            self.violate(Rule::Durable, text);
        }
    }

    /// Readers in a row enter together: none waits beside readers inside, with no other request
    /// before it.
    pub(crate) fn check_readers(&mut self, host: &Host) {
        if !self.sharing.is_on() || host.leader.phase() != Phase::Open {
            return;
        }
        for name in 0..self.names.len() {
            if self.is_reserved(host, name) {
                continue;
            }
            let tasks = self.managers.iter().flatten().flat_map(|manager| &manager.tasks);
            let waiting = tasks.filter_map(|task| match *task {
                Task::Waiting { op } if self.ops[op].name == name => Some(op),
                _ => None,
            });
            let waiting: Vec<_> = waiting.collect();
            let is_next = |op: usize| {
                let state = &self.ops[op];
                let connection = state.waits_on().map(|wire| ConnectionId(wire as u64));
                let is_open =
                    |connection| host.leader.connection_state(connection) == AtLeader::ServingOpen;
                // A higher epoch, or a session's opening, may be on its way to the disk.
                let waits_for_disk =
                    state.above > Token::ZERO || connection.is_some_and(|at| !is_open(at));
                state.mode == Mode::Shared && !waits_for_disk
            };
            if !waiting.iter().copied().all(is_next) {
                continue;
            }
            let left_out = waiting.into_iter().filter(|&op| self.ops[op].waits_on().is_some());
            let left_out: Vec<_> = left_out.collect();
            let Some(&op) = left_out.first() else { continue };
            let leases = host.leader.locks().find(|(own, ..)| **own == self.names[name]);
            let Some((_, leases, waiters)) = leases else { continue };
            if waiters > left_out.len() {
                continue; // it has yet to read that one gave up
            }
            let is_shared = |lease: &LeaseId| {
                self.ops.iter().any(|state| {
                    let is_reader = state.mode == Mode::Shared && state.converting.is_none();
                    is_reader && state.made.iter().any(|m| m.lease == *lease)
                })
            };
            if !leases.is_empty() && leases.iter().all(is_shared) {
                let text = format!(
                    "{}: client {} asked to share it at {:?} and waits beside those that do",
                    self.names[name],
                    self.ops[op].client,
                    shown(self.ops[op].invoked)
                );
                return self.violate(Rule::Queue, text);
            }
        }
    }

    /// The leader asks for a lease that may be kept.
    pub(crate) fn said_recall(&mut self, wire: usize, lease: LeaseId) {
        self.sharing.asked_back.insert((lease, wire));
    }

    /// All that keep a shared lease are asked for it as soon as a writer is next.
    pub(crate) fn check_keepers(&mut self, host: &Host) {
        if !self.sharing.is_on() || host.leader.phase() != Phase::Open {
            return;
        }
        let mut forgotten = None;
        for (name, leases, waiters) in host.leader.locks().filter(|(_, _, waiters)| *waiters > 0) {
            let tasks = self.managers.iter().flatten().flat_map(|manager| &manager.tasks);
            let waiting = tasks.filter(|task| match **task {
                Task::Waiting { op } => {
                    let state = &self.ops[op];
                    let is_writer = state.mode == Mode::Exclusive;
                    self.names[state.name] == *name && is_writer && state.waits_on().is_some()
                }
                _ => false,
            });
            if waiting.count() < waiters {
                continue; // the next may be a reader
            }
            forgotten = leases.into_iter().find(|&lease| {
                let made = self.ops.iter().filter(|op| op.mode == Mode::Shared && op.keep);
                let mut made = made.flat_map(|op| &op.made).filter(|made| made.lease == lease);
                let Some(made) = made.next() else { return false };
                let wires = host.sessions.iter().filter(|(_, session)| **session == made.session);
                wires.into_iter().any(|(&wire, _)| {
                    let connection = ConnectionId(wire as u64);
                    let about = ClientMessage::Use { lease, kept: true };
                    host.leader.connection_state(connection) == AtLeader::ServingOpen
                        && host.leader.subject(connection, &about) == LeaderSubject::LeaseHeld
                        && !self.sharing.asked_back.contains(&(lease, wire))
                })
            });
            if forgotten.is_some() {
                break;
            }
        }
        if let Some(lease) = forgotten {
            self.violate(Rule::Queue, format!("a writer waits, and {lease:?} is not asked for"));
        }
    }

    /// Whether a token that was released cannot be good any more once this other was granted.
    pub(crate) fn is_overtaken_by(&self, mode: Mode, other: Mode) -> bool {
        match mode {
            Mode::Exclusive => true,
            Mode::Shared | Mode::Upgradable => other == Mode::Exclusive,
            Mode::Permits { .. } => other.name_use() == NameUse::Lock,
        }
    }
}

const LOOK_EVERY: u64 = 250 * MS;
