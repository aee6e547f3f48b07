//! What stands between the users of a manager and its client where leases are kept: the line of
//! each name within the process, and the word that a kept lease's tokens come from. As `climb` and
//! `host/client/link` do it, with the same word.

use std::{collections::VecDeque, time::Duration};

use tierlock::{
    LostReason, Predecessor, Time, Token,
    lease_word::{Claim, Entered, LeaseKey, LeaseWord, Left, Met, Opening, Used},
    proto::LeaseId,
};

use crate::{
    clock::{MS, SECOND},
    restored::{Branch, is_forgiven},
    rules::Rule,
    sharing::KeptShare,
    users::Task,
    world::{Node, Step, TROUBLE, World, note},
};

/// One name within a manager.
pub(crate) struct Tier {
    /// The task that has its turn, by its operation.
    pub(crate) owner: Option<usize>,
    line: VecDeque<usize>,
    word: LeaseWord,
    /// The lease that is open there, as the link has it.
    lease: Option<LeaseId>,
    /// The course of the world in which that was granted: another may have one of that number.
    branch: Branch,
    seen: Seen,
    /// A shared lease, which needs no line.
    pub(crate) share: Option<KeptShare>,
}

/// How a lease that may be kept looked when it was last looked at.
#[derive(Clone, Copy, Default)]
struct Seen {
    idle: Option<u64>,
    since: Time,
    is_told: bool,
}

/// How a manager's users want their leases kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    Adaptive,
    Always,
    Never,
}

impl Tier {
    pub(crate) fn new() -> Tier {
        Tier {
            owner: None,
            line: VecDeque::new(),
            word: LeaseWord::new(),
            lease: None,
            branch: Branch::First,
            seen: Seen::default(),
            share: None,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.owner.is_none() && self.line.is_empty()
    }

    /// Whether it has that lease, and no guard uses it.
    pub(crate) fn keeps(&self, lease: LeaseId) -> bool {
        let is_shared = |share: &KeptShare| share.lease == lease && share.is_idle();
        self.lease == Some(lease) && self.word.idle().is_some()
            || self.share.as_ref().is_some_and(is_shared)
    }
}

// Users.
impl World {
    fn tier(&mut self, client: usize, name: usize) -> Option<&mut Tier> {
        Some(&mut self.managers[client].as_mut()?.tiers[name])
    }

    /// A user wants a lock: first it wins its own process's line.
    pub(crate) fn line_up(&mut self, client: usize, op: usize) {
        let (name, task, tries) = (self.ops[op].name, self.ops[op].task, self.ops[op].tries());
        let Some(tier) = self.tier(client, name) else { return };
        if tier.owner.is_none() {
            tier.owner = Some(op);
            return self.climb(client, op);
        }
        if tries {
            return self.refused_here(client, op);
        }
        tier.line.push_back(op);
        self.set_task(client, task, Task::InLine { op });
        if let Some(limit) = self.ops[op].limit {
            let at = self.when(Node::Client(client), limit).max(self.truth);
            self.at(at, Step::GiveUp(client, self.lives[client], task, op));
        }
    }

    /// It is not had in time, and the leader was never asked.
    fn refused_here(&mut self, client: usize, op: usize) {
        let (task, truth) = (self.ops[op].task, self.truth);
        self.ops[op].failed = Some(truth);
        self.tally.refusals += 1;
        self.set_task(client, task, Task::Idle);
        self.rest(client, task, 50 * MS);
    }

    pub(crate) fn leave_the_line(&mut self, client: usize, op: usize) {
        let name = self.ops[op].name;
        if let Some(tier) = self.tier(client, name) {
            tier.line.retain(|other| *other != op);
        }
    }

    /// The line goes on.
    pub(crate) fn next_in_line(&mut self, client: usize, name: usize) {
        let Some(tier) = self.tier(client, name) else { return };
        tier.owner = tier.line.pop_front();
        if let Some(op) = tier.owner {
            self.climb(client, op);
        }
    }

    /// Takes the next token of a kept lease, or asks the leader.
    fn climb(&mut self, client: usize, op: usize) {
        let (name, task) = (self.ops[op].name, self.ops[op].task);
        if self.ops[op].at_least.is_some() {
            return self.request(client, op);
        }
        let Some(tier) = self.tier(client, name) else { return };
        let lease = tier.lease;
        let entered = match tier.word.claim() {
            Claim::Entered(entered) => entered,
            Claim::UsedUp(used) => {
                self.give_back(client, name, &used);
                return self.request(client, op);
            }
            Claim::Closed(_) => return self.request(client, op),
            Claim::Held => unreachable!("guards of this process own the tier"),
        };
        let is_doubtful = self.past.branch == Branch::Restored; // leases have two meanings
        if let Some(lease) = lease.filter(|lease| self.recalled.contains(lease) && !is_doubtful) {
            let text = format!("{lease:?} is entered by {:?} after its recall", self.ops[op]);
            self.violate(Rule::Queue, text);
        }
        self.set_task(client, task, Task::Entering { op, entered });
        if self.truth < TROUBLE && self.dice.percent(2) {
            let pause = self.dice.below(5 * SECOND);
            self.stop_midway(client, pause);
        }
        if self.stalls_here(Node::Client(client)) {
            let later = self.processes[client].paused_until;
            return self.at(later, Step::Task(client, self.lives[client], task));
        }
        self.enter_kept(client, op, entered);
    }

    /// Looks at the deadline, once the token is taken.
    pub(crate) fn enter_kept(&mut self, client: usize, op: usize, entered: Entered) {
        let name = self.ops[op].name;
        let now = self.clock(Node::Client(client));
        let Some(manager) = &mut self.managers[client] else { return };
        let (deadline, tier) = (manager.deadline, &mut manager.tiers[name]);
        if !deadline.is_some_and(|deadline| tier.word.is_good(deadline, now)) {
            let used = tier.word.leave_and_close(entered.token, entered.predecessor);
            let used = used.expect("it is in");
            self.give_back(client, name, &used);
            return self.request(client, op);
        }
        let (lease, branch) = (lease_id(tier.word.lease()), tier.branch);
        self.took_kept(op, (lease, branch), entered.token);
        if entered.is_running_short {
            self.call(client, |client, _| client.top_up(lease));
        }
        self.enter(client, op);
    }

    /// Rules 1 and 2 for a lock that the leader knows nothing of.
    fn took_kept(&mut self, op: usize, (lease, branch): (LeaseId, Branch), token: Token) {
        let (truth, name, client) = (self.truth, self.ops[op].name, self.ops[op].client);
        note!(self, "client {}: {} again, {token} of {lease:?}", self.ops[op].client, name);
        self.tally.local_grants += 1;
        self.digest.add(token.get());
        self.ops[op].branch = branch;
        let is_of_now = self.ops[op].branch == self.past.branch;
        if is_of_now && token <= self.highest[name] {
            let text = format!("{}: after {} comes {token}", self.names[name], self.highest[name]);
            return self.violate(Rule::TokensGrow, text);
        }
        if self.ends.get(&lease).is_none_or(|end| token > *end) {
            let text = format!("{token} is beyond what was granted with {lease:?}");
            return self.violate(Rule::TokensGrow, text);
        }
        if is_forgiven(self.ops[op].branch, self.past.branch) {
            self.took_before_restore(name, token);
        } else {
            self.highest[name] = self.highest[name].max(token);
        }
        self.check_promise(name, op);
        self.op_of_lease.insert((lease, client), op);
        let state = &mut self.ops[op];
        state.granted = Some(truth);
        state.lease = Some((lease, (token, token)));
        state.took = Some(token);
    }

    /// A lease was granted: whether it is open, to be kept.
    pub(crate) fn open_kept(&mut self, client: usize, op: usize) {
        let (name, keep, branch) = (self.ops[op].name, self.ops[op].keep, self.ops[op].branch);
        let (lease, (first, last)) = self.ops[op].lease.expect("it was granted");
        let (life, had_to_queue) = (self.lives[client], self.ops[op].queued.is_some());
        let Some(tier) = self.tier(client, name) else { return };
        tier.word.granted(had_to_queue);
        if !keep || first >= last {
            return;
        }
        tier.word.open(Opening {
            lease: lease.into(),
            first,
            last,
            predecessor: Predecessor::Clean,
            at_most: None,
            keeps: true,
            is_shared: false,
        });
        assert!(matches!(tier.word.claim(), Claim::Entered(entered) if entered.token == first));
        (tier.lease, tier.branch, tier.seen) = (Some(lease), branch, Seen::default());
        self.tally.keeps += 1;
        self.after(LOOK_EVERY, Step::LookAfter(client, life, name, lease));
    }

    /// Whether to ask for a lease that may be kept.
    pub(crate) fn wants_to_keep(&mut self, client: usize, op: usize) -> bool {
        let name = self.ops[op].name;
        let Some(manager) = &mut self.managers[client] else { return false };
        let keeping = manager.keeping;
        let is_wanted = manager.tiers[name].word.is_wanted(keeping == Keeping::Always);
        keeping != Keeping::Never && is_wanted
    }

    /// A guard is dropped: the lease stays, or goes back. Answers `false` if it is none that may
    /// be kept.
    pub(crate) fn leave_kept(&mut self, client: usize, op: usize, how: Predecessor) -> bool {
        let name = self.ops[op].name;
        let Some((lease, (token, _))) = self.ops[op].lease else { return false };
        let Some(tier) = self.tier(client, name) else { return false };
        if tier.lease != Some(lease) {
            return false;
        }
        match tier.word.leave(token, how) {
            Left::GivesBack(used) => self.give_back(client, name, &used),
            Left::Kept => {}
            left => unreachable!("it is in, and nothing waits: {left:?}"),
        }
        true
    }

    fn give_back(&mut self, client: usize, name: usize, used: &Used) {
        let Some(tier) = self.tier(client, name) else { return };
        tier.word.gone(used);
        let lease = lease_id(used.lease);
        if tier.lease == Some(lease) {
            tier.lease = None;
        }
        self.given_back.insert(lease);
        let Used { last, how, .. } = *used;
        self.call(client, |client, now| client.release(lease, last, how, now));
    }
}

// The link.
impl World {
    /// Where a lease is that may be kept.
    fn keeper_of(&self, client: usize, lease: LeaseId) -> Option<usize> {
        let manager = self.managers[client].as_ref()?;
        manager.tiers.iter().position(|tier| tier.lease == Some(lease))
    }

    pub(crate) fn heard_recalled(&mut self, client: usize, lease: LeaseId) {
        if self.share_recalled(client, lease) {
            return;
        }
        let Some(name) = self.keeper_of(client, lease) else { return };
        self.tally.recalls += 1;
        self.recalled.insert(lease);
        let Some(tier) = self.tier(client, name) else { return };
        match tier.word.recall() {
            Met::Idle(used) => self.give_back(client, name, &used),
            Met::InUse { .. } | Met::Reserved => {
                self.call(client, |client, _| client.is_kept(lease, false));
            }
            Met::Closed => {}
        }
    }

    pub(crate) fn heard_topped_up(&mut self, client: usize, lease: LeaseId, last: Token) {
        self.tally.top_ups += 1;
        if let Some(name) = self.keeper_of(client, lease)
            && let Some(tier) = self.tier(client, name)
        {
            tier.word.extend(last);
        }
    }

    /// The lease is lost. Answers whether it has no guard to be told.
    pub(crate) fn lose_kept(&mut self, client: usize, lease: LeaseId, why: LostReason) -> bool {
        let Some(name) = self.keeper_of(client, lease) else { return false };
        let Some(tier) = self.tier(client, name) else { return false };
        let Met::Idle(used) = tier.word.lose(why) else { return false };
        tier.word.gone(&used);
        tier.lease = None;
        true
    }

    /// No lease is kept beyond the manager's end.
    pub(crate) fn close_kept(&mut self, client: usize) {
        for name in 0..self.names.len() {
            self.close_share(client, name);
            let Some(tier) = self.tier(client, name) else { return };
            if let Met::Idle(used) = tier.word.recall() {
                self.give_back(client, name, &used);
            }
        }
    }

    /// Tells the leader whether a guard has it, and gives it back if no guard has used it for long.
    pub(crate) fn look_after(&mut self, client: usize, name: usize, lease: LeaseId) {
        if self.look_after_share(client, name, lease) {
            return;
        }
        let now = self.clock(Node::Client(client));
        let Some(manager) = &mut self.managers[client] else { return };
        let (keeping, tier) = (manager.keeping, &mut manager.tiers[name]);
        if tier.lease != Some(lease) {
            return;
        }
        let idle = tier.word.idle();
        let is_same = idle.is_some() && idle == tier.seen.idle;
        let has_rested = is_same && now.since(tier.seen.since) >= IDLE;
        if has_rested && keeping != Keeping::Always {
            let used = tier.word.close_unused(idle.expect("it is idle"));
            if let Some(used) = used {
                self.tally.idle_returns += 1;
                return self.give_back(client, name, &used);
            }
        }
        let tells = idle.is_some() != tier.seen.is_told && (is_same || idle.is_none());
        if tells {
            tier.seen.is_told = idle.is_some();
        }
        if !is_same {
            (tier.seen.idle, tier.seen.since) = (idle, now);
        }
        if tells {
            self.call(client, |client, _| client.is_kept(lease, idle.is_some()));
        }
        self.after(LOOK_EVERY, Step::LookAfter(client, self.lives[client], name, lease));
    }
}

fn lease_id(key: LeaseKey) -> LeaseId {
    LeaseId { epoch: key.high.try_into().expect("it was an epoch"), count: key.low }
}

const LOOK_EVERY: u64 = 250 * MS;
const IDLE: Duration = Duration::from_secs(1);
