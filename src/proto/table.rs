//! The table of names: holders, queues, tokens.
//!
//! Decides nothing about sessions, time or the disk; it keeps what the leader tells it and
//! refuses to contradict itself. Every change of a lock's holder goes through `grant`, `confirm`,
//! `take_away`, `taken_away` and `vacate`.
//!
//! It is counted in bytes: a held lock costs its `Lock`, its entries in `names`, the name's own
//! text and an entry in its session. So waiters, times and leases held together (see `joint`), which
//! most locks have not, are kept beside it.

mod joint;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    lock::{
        HoldKey, Holding, JointLease, JointLeases, Lock, LockKey, PackedId, Recall,
        RequestPatience, Right, Waiter, WaiterKey,
    },
    mistake::{Mistake, planted},
    names::Names,
    record::TakenAway,
    rights::Rights,
    slab::Slab,
    wire::{Mode, PERMITS_MAX},
};
use crate::{
    error::{AHEAD_MAX, LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

pub(super) struct Table {
    names: Names,
    locks: Slab<Lock>,
    waiters: Slab<Waiter>,
    /// Leases held together, of all locks.
    joint: Slab<JointLease>,
    /// Which of them each lock has that `is_joint`.
    joint_of: BTreeMap<LockKey, JointLeases>,
    /// Reports of earlier reigns are taken in.
    in_grace: bool,
    /// The highest token that an exclusive holder is known to have left with, until that is over.
    left_with: BTreeMap<LockKey, Token>,
    /// Waiters that can be granted, per lock by place.
    present: BTreeSet<QueueEntry>,
    /// Waiters that are passed over.
    absent: BTreeSet<QueueEntry>,
    /// Those of `present` and `absent` without patience.
    impatient: BTreeSet<(LockKey, WaiterKey)>,
    /// The highest token of forgotten names.
    floor: Token,
    /// Names kept for what their next holder is to be told, the longest kept first. Some may
    /// have been taken again or forgotten since.
    kept: VecDeque<LockKey>,
    /// Tokens of one block.
    block: u64,
}

type QueueEntry = (LockKey, PackedId, WaiterKey);

impl Table {
    pub(super) fn new(block: u32) -> Table {
        Table {
            names: Names::new(),
            locks: Slab::new(),
            waiters: Slab::new(),
            joint: Slab::new(),
            joint_of: BTreeMap::new(),
            in_grace: true,
            left_with: BTreeMap::new(),
            present: BTreeSet::new(),
            absent: BTreeSet::new(),
            impatient: BTreeSet::new(),
            floor: Token::ZERO,
            kept: VecDeque::new(),
            block: block.into(),
        }
    }

    pub(super) fn find(&self, name: &Name) -> Option<LockKey> {
        self.names.find(name, &self.locks)
    }

    pub(super) fn find_or_add(&mut self, name: Name) -> LockKey {
        let hash = self.names.hash_of(&name);
        if let Some(key) = self.names.find_hashed(hash, &name, &self.locks) {
            return key;
        }
        let key = LockKey(self.locks.insert(Lock {
            name,
            token: Token::ZERO,
            holding: None,
            predecessor: Predecessor::Clean,
            is_reserved: false,
            is_joint: false,
        }));
        self.names.add(key, hash, &self.locks);
        key
    }

    /// The lock, unless its name was forgotten meanwhile.
    pub(super) fn get(&self, key: LockKey) -> Option<&Lock> {
        self.locks.get(key.0)
    }

    pub(super) fn lock(&self, key: LockKey) -> &Lock {
        &self.locks[key.0]
    }

    pub(super) fn waiter(&self, key: WaiterKey) -> &Waiter {
        &self.waiters[key.0]
    }

    /// Sees to it that `names_after` leaves none out.
    pub(super) fn put_names_in_order(&mut self) {
        self.names.put_in_order(&self.locks);
    }

    /// Names in order, from the one after `after`.
    pub(super) fn names_after(
        &self,
        after: Option<&Name>,
    ) -> impl Iterator<Item = LockKey> + use<'_> {
        self.names.after(after)
    }

    /// Those of them that a client with these rights may see.
    pub(super) fn names_seen_by<'a>(
        &'a self,
        rights: &'a Rights,
        after: Option<&'a Name>,
    ) -> Box<dyn Iterator<Item = LockKey> + 'a> {
        match rights.names() {
            [] => Box::new(self.names_after(after)),
            // They are in order, and none stands for a name of another.
            known => {
                Box::new(known.iter().flat_map(move |known| self.names.reached_by(known, after)))
            }
        }
    }

    /// Every lock; for the one moment when a reign opens.
    pub(super) fn all(&self) -> impl Iterator<Item = LockKey> + use<'_> {
        self.locks.iter().map(|(key, _)| LockKey(key))
    }

    /// The token of the lock's next grant in this mode, or the epoch that must be durable before there
    /// is one; `None` if there is none any more.
    pub(super) fn next_token(
        &self,
        key: LockKey,
        mode: Mode,
        above: Token,
        epoch: u32,
    ) -> Option<Next> {
        if let Some(token) = self.token_beside(key, mode, above) {
            return Some(Next::Token(token));
        }
        let past = self.lock(key).token.max(self.floor).max(above).max(Token::first_of(epoch));
        let next = past.next()?;
        let last = Token::new(next.get() + u64::from(mode.spread()))?;
        let fits = last.epoch() == epoch || planted(Mistake::AboveBeyondEpoch);
        Some(if fits { Next::Token(next) } else { Next::Epoch(last.epoch()) })
    }

    /// Grants a lock that has room. If an exclusive lease may be kept and no other session waits, the
    /// grant is a block of many tokens, of which `token` is the first.
    pub(super) fn grant(
        &mut self,
        waiter: &Waiter,
        lease: PackedId,
        token: Token,
        now: Time,
    ) -> HoldKey {
        assert!(self.has_room(waiter.lock, waiter.mode), "a lock is granted only with room");
        assert!(token > waiter.above || planted(Mistake::ReaderNotAbove));
        let has_terms = waiter.at_most.is_some() || waiter.at_least.is_some();
        let may_keep = waiter.keep && !has_terms;
        let holding = Holding {
            lease,
            request: waiter.request,
            place: waiter.place,
            since: now,
            session: waiter.session,
            right: Right::Whole,
            spread: 0,
            recall: Recall::No,
        };
        let lock = &self.locks[waiter.lock.0];
        let is_next = token > lock.token && token > self.floor;
        if waiter.mode != Mode::Exclusive {
            let is_beside = self.token_beside(waiter.lock, waiter.mode, waiter.above);
            assert!(is_next || is_beside == Some(token));
            let keeps = may_keep && waiter.mode == Mode::Shared;
            let spread = waiter.mode.spread();
            let last = Token::new(token.get() + u64::from(spread)).expect("it was looked for");
            let holding = Holding { spread, ..holding };
            let is_borne = waiter.mode == Mode::Shared;
            let lease = JointLease { holding, token: last, mode: waiter.mode, keeps, is_borne };
            self.locks[waiter.lock.0].token = lock.token.max(last);
            return self.add_joint(waiter.lock, lease);
        }
        assert!(is_next || (lock.is_reserved && token == lock.token));
        let is_keepable = may_keep && self.first_present(waiter.lock).is_none();
        let last = if is_keepable { end_of_block(token, self.block) } else { token };
        let lock = &mut self.locks[waiter.lock.0];
        lock.token = last;
        let spread = (lock.token.get() - token.get()) as u32;
        lock.holding = Some(Holding { spread, ..holding });
        HoldKey::exclusive(waiter.lock)
    }

    /// This token is taken for a grant with its entry on the way to the disk.
    pub(super) fn reserve(&mut self, key: LockKey, token: Token) {
        self.raise(key, token);
        self.locks[key.0].is_reserved = true;
    }

    /// Nothing keeps the name any more once its holder has left.
    pub(super) fn unreserve(&mut self, key: LockKey) {
        self.locks[key.0].is_reserved = false;
    }

    /// The name was granted with this token before.
    pub(super) fn raise(&mut self, key: LockKey, token: Token) {
        let lock = &mut self.locks[key.0];
        lock.token = lock.token.max(token);
    }

    /// The holder's block goes on: answers its new last token.
    /// What of it lies further back than a block was used long ago.
    pub(super) fn top_up(&mut self, key: LockKey) -> Token {
        let lock = &mut self.locks[key.0];
        let before = lock.token;
        lock.token = end_of_block(before, self.block);
        let more = lock.token.get() - before.get();
        let holding = lock.holding.as_mut().expect("a held lock");
        holding.spread = (u64::from(holding.spread).min(self.block) + more) as u32;
        lock.token
    }

    /// A holder of an earlier reign has come back, with this block of tokens. `is_borne`: if it is a
    /// reader, its token is that of readers.
    pub(super) fn confirm(
        &mut self,
        key: LockKey,
        holding: Holding,
        (mode, is_borne): (Mode, bool),
        (first, last): (Token, Token),
    ) -> HoldKey {
        assert!(self.has_room(key, mode), "a lock is confirmed only with room");
        if mode != Mode::Exclusive {
            let lock = &mut self.locks[key.0];
            lock.token = lock.token.max(last);
            let keeps = mode == Mode::Shared;
            // Of its permits some may be given back by now.
            let spread = (last.get() - first.get()).min(PERMITS_MAX.into()) as u32;
            let holding = Holding { spread, ..holding };
            let is_borne = is_borne && mode == Mode::Shared;
            return self.add_joint(key, JointLease { holding, token: last, mode, keeps, is_borne });
        }
        let lock = &mut self.locks[key.0];
        lock.token = lock.token.max(last);
        let spread = lock.token.get().saturating_sub(first.get()).min(2 * self.block) as u32;
        lock.holding = Some(Holding { spread, ..holding });
        HoldKey::exclusive(key)
    }

    /// An exclusive holder of an earlier reign says how it left, and no later one is known.
    pub(super) fn left(&mut self, key: LockKey, token: Token, how: Predecessor) {
        if token > self.known_exclusive(key) {
            self.left_with.insert(key, token);
            let lock = &mut self.locks[key.0];
            (lock.token, lock.predecessor) = (lock.token.max(token), how);
        }
    }

    /// The lease is being taken away; its holder does not know yet.
    pub(super) fn take_away(&mut self, hold: HoldKey) {
        self.holding_mut(hold).right = Right::Ending;
    }

    /// The loss is durable: its holder may be told.
    pub(super) fn taken_away(&mut self, hold: HoldKey, why: LostReason, proof: TakenAway) {
        self.holding_mut(hold).right = Right::Ended(why, proof);
    }

    /// An exclusive holder gives it back and says what it used of its block: the rest was never
    /// granted. What others share is not taken back.
    pub(super) fn give_back(&mut self, hold: HoldKey, last_used: Token) {
        let lowers = planted(Mistake::ShareLowersTokens);
        let lock = &mut self.locks[hold.lock.0];
        if hold.joint_key().is_none() {
            lock.token = last_used.clamp(lock.first(), lock.token);
        } else if lowers {
            lock.token = last_used.min(lock.token);
        }
    }

    pub(super) fn recalled(&mut self, hold: HoldKey, recall: Recall) {
        self.holding_mut(hold).recall = recall;
    }

    /// It is held no more. `how` stays as it was where the leaving holder left no word, and where it
    /// was not the only one: what is guarded was not changed by it.
    pub(super) fn vacate(&mut self, hold: HoldKey, how: Option<Predecessor>) -> Holding {
        if let Some(key) = hold.joint_key() {
            return self.remove_joint(hold.lock, key).holding;
        }
        if self.in_grace {
            self.remember_exclusive(hold.lock, self.lock(hold.lock).token);
        }
        let lock = &mut self.locks[hold.lock.0];
        lock.predecessor = how.unwrap_or(lock.predecessor);
        lock.holding.take().expect("only a held lock is vacated")
    }

    pub(super) fn enqueue(&mut self, waiter: Waiter) -> WaiterKey {
        let (lock, place, patience) = (waiter.lock, waiter.place, waiter.patience);
        let present = waiter.present;
        let key = WaiterKey(self.waiters.insert(waiter));
        self.queue(present).insert((lock, place, key));
        if patience == RequestPatience::None {
            self.impatient.insert((lock, key));
        }
        key
    }

    /// From now on it only tries.
    pub(super) fn lose_patience(&mut self, key: WaiterKey) {
        let waiter = &mut self.waiters[key.0];
        waiter.patience = RequestPatience::None;
        self.impatient.insert((waiter.lock, key));
    }

    pub(super) fn dequeue(&mut self, key: WaiterKey) -> Waiter {
        let waiter = self.waiters.remove(key.0);
        let was_there = self.queue(waiter.present).remove(&(waiter.lock, waiter.place, key));
        assert!(was_there, "a waiter stands in one queue");
        self.impatient.remove(&(waiter.lock, key));
        waiter
    }

    pub(super) fn set_present(&mut self, key: WaiterKey, present: bool) {
        let waiter = &mut self.waiters[key.0];
        let (before, entry) = (waiter.present, (waiter.lock, waiter.place, key));
        waiter.present = present;
        self.queue(before).remove(&entry);
        self.queue(present).insert(entry);
    }

    /// The next to be granted.
    pub(super) fn first_present(&self, lock: LockKey) -> Option<WaiterKey> {
        if planted(Mistake::LastComeFirstServed) {
            return self.present.range(of_lock(lock)).next_back().map(|&(_, _, waiter)| waiter);
        }
        self.present.range(of_lock(lock)).next().map(|&(_, _, waiter)| waiter)
    }

    /// The waiters without patience for it.
    pub(super) fn impatient_of(&self, lock: LockKey) -> impl Iterator<Item = WaiterKey> + use<'_> {
        let all = (lock, WaiterKey(0))..=(lock, WaiterKey(u32::MAX));
        self.impatient.range(all).map(|&(_, waiter)| waiter)
    }

    /// All waiters without patience.
    pub(super) fn impatient(&self) -> impl Iterator<Item = WaiterKey> + use<'_> {
        self.impatient.iter().map(|&(_, waiter)| waiter)
    }

    /// The waiters, first come first, at most `count`.
    pub(super) fn first_waiters(&self, lock: LockKey, count: usize) -> Vec<WaiterKey> {
        let first = |queue: &BTreeSet<QueueEntry>| {
            queue.range(of_lock(lock)).take(count).copied().collect::<Vec<_>>()
        };
        let mut entries = [first(&self.present), first(&self.absent)].concat();
        entries.sort_unstable();
        entries.into_iter().take(count).map(|(_, _, waiter)| waiter).collect()
    }

    /// How many waiters stand before this one, at most [`AHEAD_MAX`].
    pub(super) fn waiters_before(&self, key: WaiterKey) -> u32 {
        let Waiter { lock, place, .. } = *self.waiter(key);
        let (first, own) = ((lock, PackedId::ZERO, WaiterKey(0)), (lock, place, key));
        let count = |queue: &BTreeSet<QueueEntry>| {
            queue.range(first..own).take(AHEAD_MAX as usize).count() as u32
        };
        (count(&self.present) + count(&self.absent)).min(AHEAD_MAX)
    }

    /// Forgets a name that no session holds, waits for or is losing. The floor keeps its tokens from
    /// going back. How the last holder left, if otherwise than clean, is kept for the next one,
    /// for the [`PREDECESSORS_KEPT`] names that were last left so.
    pub(super) fn forget_if_unused(&mut self, key: LockKey) {
        if self.unused(key).is_none() {
            return;
        }
        self.drop_limit(key);
        let lock = self.lock(key);
        if lock.predecessor == Predecessor::Clean {
            return self.forget(key);
        }
        self.kept.push_back(key);
        if self.kept.len() > PREDECESSORS_KEPT
            && let Some(oldest) = self.kept.pop_front()
            && self.unused(oldest).is_some()
        {
            self.forget(oldest);
        }
    }

    /// Of what was reported in this reign's grace nothing need be remembered any more.
    pub(super) fn grace_is_over(&mut self) {
        self.in_grace = false;
        self.left_with.clear();
    }

    /// How many requests wait, for all names.
    pub(super) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    /// The names that are waited for, each with how many do, as far as the first `most` of those that
    /// can be granted and of those that are passed over tell.
    pub(super) fn queues(&self, most: usize) -> Vec<(LockKey, usize)> {
        let mut queues: Vec<(LockKey, usize)> = Vec::new();
        for queue in [&self.present, &self.absent] {
            for &(lock, _, _) in queue.iter().take(most) {
                match queues.last_mut() {
                    Some((last, queued)) if *last == lock => *queued += 1,
                    _ => queues.push((lock, 1)),
                }
            }
        }
        // Of some locks some are present and others not.
        queues.sort_unstable_by_key(|(lock, _)| *lock);
        queues.dedup_by(|(lock, more), (kept, queued)| {
            let is_same = lock == kept;
            *queued += if is_same { *more } else { 0 };
            is_same
        });
        queues
    }

    /// How many names it knows.
    pub(super) fn len(&self) -> usize {
        self.locks.len()
    }

    fn unused(&self, key: LockKey) -> Option<&Lock> {
        let is_left = |lock: &&Lock| !self.is_held(key) && !lock.is_reserved;
        let lock = self.get(key).filter(is_left)?;
        (!self.is_waited_for(key)).then_some(lock)
    }

    /// Whether any request waits for it, present or not.
    pub(super) fn is_waited_for(&self, key: LockKey) -> bool {
        let queues = [&self.present, &self.absent];
        queues.into_iter().any(|queue| queue.range(of_lock(key)).next().is_some())
    }

    fn forget(&mut self, key: LockKey) {
        self.drop_limit(key);
        let lock = self.locks.remove(key.0);
        self.names.remove(key, &lock.name);
        self.left_with.remove(&key);
        if !planted(Mistake::NoFloor) {
            self.floor = self.floor.max(lock.token);
        }
    }

    pub(super) fn holding(&self, hold: HoldKey) -> &Holding {
        match hold.joint_key() {
            Some(key) => &self.joint[key].holding,
            None => self.lock(hold.lock).holding.as_ref().expect("a held lock"),
        }
    }

    /// The lease at this place, if there is one.
    pub(super) fn find_holding(&self, hold: HoldKey) -> Option<&Holding> {
        match hold.joint_key() {
            Some(key) => self.joint.get(key).map(|joint| &joint.holding),
            None => self.get(hold.lock)?.holding.as_ref(),
        }
    }

    fn holding_mut(&mut self, hold: HoldKey) -> &mut Holding {
        match hold.joint_key() {
            Some(key) => &mut self.joint[key].holding,
            None => self.locks[hold.lock.0].holding.as_mut().expect("a held lock"),
        }
    }

    fn queue(&mut self, present: bool) -> &mut BTreeSet<QueueEntry> {
        if present { &mut self.present } else { &mut self.absent }
    }
}

/// What the next grant of a name needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Token(Token),
    /// This epoch must be durable first.
    Epoch(u32),
}

/// The last token of the block that begins with or goes on after `token`, within its epoch.
fn end_of_block(token: Token, block: u64) -> Token {
    let last_of_epoch = token.get() | ((1 << Token::COUNT_BITS) - 1);
    let end = token.get().saturating_add(block - 1).min(last_of_epoch);
    Token::new(end).expect("an epoch's tokens are tokens")
}

fn of_lock(lock: LockKey) -> std::ops::RangeInclusive<QueueEntry> {
    let first = (lock, PackedId::ZERO, WaiterKey(0));
    let last = (lock, PackedId::MAX, WaiterKey(u32::MAX));
    first..=last
}

/// Beyond this many, the next holder of the name left longest ago is told `Clean`.
const PREDECESSORS_KEPT: usize = 16_384;
