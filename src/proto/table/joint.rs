//! Leases of one lock that are held together: any number of shared ones, or permits up to the limit
//! that the first that asked has named.
//!
//! Shared leases bear one token for as long as their holders are inside together. It was counted up
//! when the first of them entered, so that an exclusive holder that lost its lease is below all of
//! them. Each permit has a token of its own, which names it and orders nothing:
//! those of one lease follow on each other, and it bears the last one.

use std::collections::BTreeSet;

use super::Table;
use crate::{
    error::Predecessor,
    proto::{
        lock::{
            HoldKey, Holding, JointLease, JointLeases, LockKey, PackedId, Recall, Right, Waiter,
        },
        mistake::{Mistake, planted},
        wire::{Mode, NameUse},
    },
    token::Token,
};

impl Table {
    /// What the name is used as, for as long as any session holds or waits for it.
    pub(in crate::proto) fn name_use(&self, key: LockKey) -> Option<NameUse> {
        self.unused(key).is_none().then(|| match self.limit(key) {
            0 => NameUse::Lock,
            limit => NameUse::Permits { limit },
        })
    }

    /// From now on an unused name is used like this.
    pub(in crate::proto) fn use_as(&mut self, key: LockKey, mode: Mode) {
        self.drop_limit(key);
        if let NameUse::Permits { limit } = mode.name_use() {
            self.joint_mut(key).limit = limit;
        }
    }

    /// Whether a new request need not queue: no other waits before it, and there is room for it.
    pub(in crate::proto) fn is_open_to(&self, waiter: &Waiter) -> bool {
        let lock = self.lock(waiter.lock);
        let passes = match waiter.mode {
            Mode::Shared => planted(Mistake::ReadersPassWriters),
            Mode::Permits { .. } => planted(Mistake::SmallPassLarge),
            _ => false,
        };
        let is_before_it = self.is_waited_for(waiter.lock) && !passes;
        !lock.is_reserved && !is_before_it && self.has_room(waiter.lock, waiter.mode)
    }

    /// What is held of a lock, the first granted first.
    pub(in crate::proto) fn holds(&self, key: LockKey) -> impl Iterator<Item = HoldKey> + use<'_> {
        let lock = self.lock(key);
        let exclusive = lock.holding.iter().map(move |_| HoldKey::exclusive(key));
        let joint = self.joint_leases(key).into_iter().flat_map(|joint| &joint.leases);
        exclusive.chain(joint.map(move |&(_, joint)| HoldKey::joint(key, joint)))
    }

    /// Whether any session has a lease of it.
    pub(in crate::proto) fn is_held(&self, key: LockKey) -> bool {
        self.get(key).is_some_and(|lock| lock.holding.is_some())
            || self.joint_leases(key).is_some_and(|joint| !joint.leases.is_empty())
    }

    /// What is held of a lock and leaves no room for one more lease of this mode.
    pub(in crate::proto) fn in_the_way(
        &self,
        key: LockKey,
        mode: Mode,
    ) -> impl Iterator<Item = HoldKey> + use<'_> {
        let is_full = match mode {
            Mode::Permits { count, limit } => !self.has_permits(key, count, limit),
            _ => false,
        };
        self.holds(key).filter(move |&hold| match mode {
            Mode::Exclusive => true,
            Mode::Shared => !matches!(self.mode(hold), Mode::Shared | Mode::Upgradable),
            Mode::Upgradable => self.mode(hold) != Mode::Shared,
            // A name has one limit: permits of another are in the way, as a lock is.
            Mode::Permits { limit, .. } => {
                let is_alike = match self.mode(hold) {
                    Mode::Permits { limit: own, .. } => {
                        own == limit || planted(Mistake::LimitNotCompared)
                    }
                    _ => false,
                };
                is_full || !is_alike
            }
        })
    }

    /// Whether one more lease of this mode can be granted beside what is held.
    pub(in crate::proto) fn has_room(&self, key: LockKey, mode: Mode) -> bool {
        self.in_the_way(key, mode).next().is_none()
    }

    fn has_permits(&self, key: LockKey, count: u32, limit: u32) -> bool {
        let taken = self.permits_taken(key);
        let count = if planted(Mistake::PermitsUncounted) { 1 } else { count };
        taken.checked_add(count).is_some_and(|all| all <= limit)
    }

    pub(in crate::proto) fn mode(&self, hold: HoldKey) -> Mode {
        hold.joint_key().map_or(Mode::Exclusive, |key| self.joint[key].mode)
    }

    /// The first and the last token of a lease.
    pub(in crate::proto) fn tokens(&self, hold: HoldKey) -> (Token, Token) {
        match hold.joint_key() {
            Some(key) => {
                let JointLease { token, holding, .. } = &self.joint[key];
                let first = Token::new(token.get().saturating_sub(holding.spread.into()));
                (first.expect("below a token are tokens"), *token)
            }
            None => (self.lock(hold.lock).first(), self.lock(hold.lock).token),
        }
    }

    /// Whether a lease may be kept.
    pub(in crate::proto) fn is_keepable(&self, hold: HoldKey) -> bool {
        matches!(self.holding(hold).right, Right::Whole)
            && match hold.joint_key() {
                Some(key) => self.joint[key].keeps,
                None => self.lock(hold.lock).is_block(),
            }
    }

    /// The token of those that share the lock now, if one more of this mode may bear it too. One that
    /// was taken away is borne by no other.
    pub(super) fn token_beside(&self, key: LockKey, mode: Mode, above: Token) -> Option<Token> {
        if mode != Mode::Shared {
            return None;
        }
        let token = self.lock(key).token;
        if planted(Mistake::ReadersBearWritersToken) && token > above && token > Token::ZERO {
            return Some(token);
        }
        let mut latest = self.joint_leases(key)?.leases.iter().rev();
        let is_borne = latest.any(|&(_, joint)| {
            let JointLease { holding, token: own, is_borne, .. } = self.joint[joint];
            let is_whole = matches!(holding.right, Right::Whole);
            let is_readers = is_borne || planted(Mistake::DowngradedTokenBorne);
            own == token && is_readers && (is_whole || planted(Mistake::BrokenTokenBorneAgain))
        });
        let exceeds = token > above || planted(Mistake::ReaderNotAbove);
        (is_borne && exceeds).then_some(token)
    }

    /// The highest token of an exclusive lease of this name, as far as reports tell.
    pub(in crate::proto) fn known_exclusive(&self, key: LockKey) -> Token {
        let lock = self.lock(key);
        let held = if lock.holding.is_some() { lock.token } else { Token::ZERO };
        self.left_with.get(&key).map_or(held, |&left| left.max(held))
    }

    /// An exclusive lease of this name ended with this token.
    pub(super) fn remember_exclusive(&mut self, key: LockKey, token: Token) {
        let known = self.left_with.entry(key).or_insert(token);
        *known = token.max(*known);
    }

    pub(super) fn add_joint(&mut self, key: LockKey, lease: JointLease) -> HoldKey {
        let joint = self.joint.insert(lease);
        let of_lock = self.joint_mut(key);
        of_lock.leases.insert((lease.holding.lease, joint));
        if let Mode::Permits { count, limit } = lease.mode {
            let is_compared = !planted(Mistake::LimitNotCompared);
            assert!(of_lock.limit == limit || !is_compared, "a name has one limit");
            of_lock.taken += count;
        }
        HoldKey::joint(key, joint)
    }

    pub(super) fn remove_joint(&mut self, key: LockKey, joint: u32) -> JointLease {
        let lease = self.joint.remove(joint);
        let of_lock = self.joint_mut(key);
        let was_there = of_lock.leases.remove(&(lease.holding.lease, joint));
        assert!(was_there, "a lease is its lock's");
        if let Mode::Permits { count, .. } = lease.mode {
            of_lock.taken -= count;
        } else if of_lock.leases.is_empty() {
            self.drop_limit(key);
        }
        lease
    }

    /// A lease is of this mode from now on, with this token. `others_bear` it too, if it is shared.
    pub(in crate::proto) fn convert(
        &mut self,
        hold: HoldKey,
        to: Mode,
        token: Token,
        others_bear: bool,
    ) -> HoldKey {
        let key = hold.lock;
        let holding = match hold.joint_key() {
            Some(joint) => self.remove_joint(key, joint).holding,
            None => {
                if self.in_grace {
                    self.remember_exclusive(key, self.lock(key).token);
                }
                self.locks[key.0].holding.take().expect("a held lock")
            }
        };
        let holding = Holding { spread: 0, recall: Recall::No, ..holding };
        self.raise(key, token);
        if to == Mode::Exclusive {
            self.locks[key.0].holding = Some(holding);
            return HoldKey::exclusive(key);
        }
        let is_borne = others_bear && to == Mode::Shared;
        self.add_joint(key, JointLease { holding, token, mode: to, keeps: false, is_borne })
    }

    /// A writer that goes on as a reader has left in good order, as far as others are told.
    pub(in crate::proto) fn left_well(&mut self, key: LockKey) {
        self.locks[key.0].predecessor = Predecessor::Clean;
    }

    /// So many of a lease's permits are left, if it had more.
    pub(in crate::proto) fn lower(&mut self, hold: HoldKey, left: u32) {
        let Some(joint) = hold.joint_key() else { return };
        let before = self.joint[joint].mode;
        let after = match planted(Mistake::LoweredByTheRest) {
            true => before.lowered(before.permits().saturating_sub(left)),
            false => before.lowered(left),
        };
        self.joint[joint].mode = after;
        self.joint_mut(hold.lock).taken -= before.permits() - after.permits();
    }

    /// How many permits are held.
    pub(in crate::proto) fn permits_taken(&self, key: LockKey) -> u32 {
        self.joint_leases(key).map_or(0, |joint| joint.taken)
    }

    /// No session holds anything of it together with others.
    pub(super) fn drop_limit(&mut self, key: LockKey) {
        let is_joint = &mut self.locks[key.0].is_joint;
        if std::mem::take(is_joint) {
            let joint = self.joint_of.remove(&key).expect("it is joint");
            assert!(joint.leases.is_empty());
        }
    }

    fn limit(&self, key: LockKey) -> u32 {
        self.joint_leases(key).map_or(0, |joint| joint.limit)
    }

    fn joint_leases(&self, key: LockKey) -> Option<&JointLeases> {
        self.get(key).filter(|lock| lock.is_joint)?;
        self.joint_of.get(&key)
    }

    fn joint_mut(&mut self, key: LockKey) -> &mut JointLeases {
        self.locks[key.0].is_joint = true;
        self.joint_of.entry(key).or_insert_with(|| JointLeases {
            limit: 0,
            taken: 0,
            leases: BTreeSet::<(PackedId, u32)>::new(),
        })
    }
}
