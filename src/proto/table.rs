//! The table of names: holders, queues, tokens.
//!
//! Decides nothing about sessions, time or the disk; it keeps what the leader tells it and
//! refuses to contradict itself. Every change of a lock's holder goes through `grant`, `confirm`,
//! `take_away`, `taken_away` and `vacate`.
//!
//! It is counted in bytes: a held lock costs its `Lock`, its entries in `names`, the name's own
//! text and an entry in its session. So waiters and times, which most locks have not, are kept
//! beside it.

use std::collections::{BTreeSet, VecDeque};

use super::{
    lock::{Holding, Lock, LockKey, PackedId, Patience, Recall, Right, Waiter, WaiterKey},
    mistake::{Mistake, planted},
    names::Names,
    record::TakenAway,
    slab::Slab,
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

pub(super) struct Table {
    names: Names,
    locks: Slab<Lock>,
    waiters: Slab<Waiter>,
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

    /// Every lock; for the one moment when a reign opens.
    pub(super) fn all(&self) -> impl Iterator<Item = LockKey> + use<'_> {
        self.locks.iter().map(|(key, _)| LockKey(key))
    }

    /// The token of the lock's next grant, or the epoch that must be durable before there is
    /// one; `None` if there is none any more.
    pub(super) fn next_token(&self, key: LockKey, above: Token, epoch: u32) -> Option<Next> {
        let past = self.lock(key).token.max(self.floor).max(above).max(Token::first_of(epoch));
        let next = past.next()?;
        let fits = next.epoch() == epoch || planted(Mistake::AboveBeyondEpoch);
        Some(if fits { Next::Token(next) } else { Next::Epoch(next.epoch()) })
    }

    /// Grants a free lock, with the block that begins with `token`: one of many tokens if the
    /// lease may be kept and no other session waits.
    pub(super) fn grant(&mut self, waiter: &Waiter, lease: PackedId, token: Token, now: Time) {
        let has_terms = waiter.at_most.is_some() || waiter.at_least.is_some();
        let is_keepable = waiter.keep && !has_terms && self.first_present(waiter.lock).is_none();
        let last = if is_keepable { end_of_block(token, self.block) } else { token };
        let lock = &mut self.locks[waiter.lock.0];
        assert!(lock.holding.is_none(), "{} is granted only when free", lock.name);
        let is_next = token > lock.token && token > self.floor;
        assert!(is_next || (lock.is_reserved && token == lock.token));
        assert!(token > waiter.above);
        lock.token = last;
        lock.holding = Some(Holding {
            lease,
            request: waiter.request,
            place: waiter.place,
            since: now,
            session: waiter.session,
            right: Right::Whole,
            spread: (lock.token.get() - token.get()) as u32,
            recall: Recall::No,
        });
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

    /// A holder of an earlier reign has come back; `token` is the last of its block.
    pub(super) fn confirm(
        &mut self,
        key: LockKey,
        holding: Holding,
        (first, last): (Token, Token),
    ) {
        let lock = &mut self.locks[key.0];
        assert!(lock.holding.is_none(), "{} is confirmed only when free", lock.name);
        lock.token = lock.token.max(last);
        let spread = lock.token.get().saturating_sub(first.get()).min(2 * self.block) as u32;
        lock.holding = Some(Holding { spread, ..holding });
    }

    /// A holder of an earlier reign says how it left, and no later one is known.
    pub(super) fn left(&mut self, key: LockKey, token: Token, how: Predecessor) {
        let lock = &mut self.locks[key.0];
        if token > lock.token {
            (lock.token, lock.predecessor) = (token, how);
        }
    }

    /// The lease is being taken away; its holder does not know yet.
    pub(super) fn take_away(&mut self, key: LockKey) {
        self.holding_mut(key).right = Right::Ending;
    }

    /// The loss is durable: its holder may be told.
    pub(super) fn taken_away(&mut self, key: LockKey, why: LostReason, proof: TakenAway) {
        self.holding_mut(key).right = Right::Ended(why, proof);
    }

    /// The holder gives it back and says what it used of its block: the rest was never granted.
    pub(super) fn give_back(&mut self, key: LockKey, last_used: Token) {
        let lock = &mut self.locks[key.0];
        lock.token = last_used.clamp(lock.first(), lock.token);
    }

    pub(super) fn recalled(&mut self, key: LockKey, recall: Recall) {
        self.holding_mut(key).recall = recall;
    }

    /// It has no holder any more. `how` stays as it was where the leaving holder left no word.
    pub(super) fn vacate(&mut self, key: LockKey, how: Option<Predecessor>) -> Holding {
        let lock = &mut self.locks[key.0];
        lock.predecessor = how.unwrap_or(lock.predecessor);
        lock.holding.take().expect("only a held lock is vacated")
    }

    pub(super) fn enqueue(&mut self, waiter: Waiter) -> WaiterKey {
        let (lock, place, patience) = (waiter.lock, waiter.place, waiter.patience);
        let present = waiter.present;
        let key = WaiterKey(self.waiters.insert(waiter));
        self.queue(present).insert((lock, place, key));
        if patience == Patience::None {
            self.impatient.insert((lock, key));
        }
        key
    }

    /// From now on it only tries.
    pub(super) fn lose_patience(&mut self, key: WaiterKey) {
        let waiter = &mut self.waiters[key.0];
        waiter.patience = Patience::None;
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

    /// A waiter without patience for it.
    pub(super) fn first_impatient(&self, lock: LockKey) -> Option<WaiterKey> {
        let all = (lock, WaiterKey(0))..=(lock, WaiterKey(u32::MAX));
        self.impatient.range(all).next().map(|&(_, waiter)| waiter)
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

    /// Forgets a name that no session holds, waits for or is losing. The floor keeps its tokens from
    /// going back. How the last holder left, if otherwise than clean, is kept for the next one,
    /// for the [`PREDECESSORS_KEPT`] names that were last left so.
    pub(super) fn forget_if_unused(&mut self, key: LockKey) {
        let Some(lock) = self.unused(key) else { return };
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

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether it has neither holder nor waiter.
    pub(super) fn is_unused(&self, key: LockKey) -> bool {
        self.unused(key).is_some()
    }

    fn unused(&self, key: LockKey) -> Option<&Lock> {
        let is_left = |lock: &&Lock| lock.holding.is_none() && !lock.is_reserved;
        let lock = self.get(key).filter(is_left)?;
        let waited_for = [&self.present, &self.absent]
            .into_iter()
            .any(|queue| queue.range(of_lock(key)).next().is_some());
        (!waited_for).then_some(lock)
    }

    fn forget(&mut self, key: LockKey) {
        let lock = self.locks.remove(key.0);
        self.names.remove(key, &lock.name);
        if !planted(Mistake::NoFloor) {
            self.floor = self.floor.max(lock.token);
        }
    }

    fn holding_mut(&mut self, key: LockKey) -> &mut Holding {
        self.locks[key.0].holding.as_mut().expect("a held lock")
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
