//! The rung of host scope: the lease word, and the service behind it.

use std::{sync::Arc, time::Duration};

use super::{
    Ask, At, CELL_LOOK_MAX, Climb, IMPATIENCE, LATES_MAX, NAP_MAX, WordWait, opened_before_fork,
    shared_at_host_scope,
};
use crate::{
    clock,
    error::{LockError, LostReason, Result},
    host::{
        lease_word::{Claim, Entered, LeaseWord},
        service::{LeaseGranted, LeaseMode, LeasePatience, LeaseRequest, PendingLease, Settlement},
    },
    path::{
        LockMode, Patience, Permits,
        named::Keep,
        permits::permits_at_host_scope,
        quiet::HostTier,
        right::{LEASE, LeasedPermits, SHARED_LEASE, SLOT, THREAD},
    },
    scope::Scope,
};

#[cfg(feature = "process")]
use crate::{
    error::Predecessor,
    host::service::Settle,
    process::{Slot, Taken},
    token::Token,
};

impl<'a> Climb<'a> {
    /// How long to wait before the next look at the cell: 3 to 100 ms, and not past the time.
    pub(super) fn look_later(&self, looks: u32) -> Result<Duration> {
        let left = self.patience.until().since(clock::now());
        if left.is_zero() {
            return Err(self.held_here());
        }
        Ok(Duration::from_millis(3 << looks.min(5)).min(CELL_LOOK_MAX).min(left))
    }

    // ---- host scope --------------------------------------------------------------------------

    /// What to do about the lease word: to enter it, to wait at it, or to ask for a lease.
    pub(super) fn look_at_word(&mut self) -> Result<Option<Ask<'a>>> {
        let named = self.named;
        let about = named.about(Scope::Host);
        let service = named.reach.service().map_err(&about)?;
        let is_reader = self.mode == LockMode::Shared;
        if is_reader && !service.shares() {
            return Err(about(shared_at_host_scope()));
        }
        let Some(tier) = named.host_tier() else {
            return Err(about(opened_before_fork()));
        };
        match self.mode {
            LockMode::Permits(_) if !tier.service.counts() => {
                return Err(about(permits_at_host_scope()));
            }
            LockMode::Permits(_) => return self.look_for_own(tier),
            LockMode::Upgradable if self.stands_apart(tier) => {
                return match self.leaves_room_apart(tier) {
                    true => self.look_for_own(tier),
                    false if self.patience == Patience::No => Err(LockError::WOULD_BLOCK),
                    false => {
                        self.release_slot();
                        self.wait_at(tier.word).map(Some)
                    }
                };
            }
            _ => {}
        }
        // What is said of a holder is said of its own lease.
        let is_own = named.value.is_none() || self.own_lease == Some(tier.word.lease());
        let is_of_use = tier.word.is_shared() == is_reader && is_own;
        if !is_of_use && let Some(used) = tier.word.refuse_reserved() {
            tier.give_back(&used);
        }
        if (!is_of_use || !named.enters_kept())
            && let Some(used) = service.close_idle(tier.word)
        {
            tier.give_back(&used);
        }
        if is_reader && (self.asked_word.is_some() || self.reads_apart(tier)) {
            return self.look_for_own(tier);
        }
        let claim = match is_reader {
            true => tier.word.claim_shared(named.enters_kept()),
            false => tier.word.claim(),
        };
        match claim {
            Claim::Entered(Entered { token, predecessor, .. }) if is_reader => {
                self.release_slot();
                if let Some((token, predecessor)) = tier.check_shared(token, predecessor) {
                    self.held.add(SHARED_LEASE);
                    self.held.set_scope(Scope::Host);
                    self.held.token = token;
                    self.tell(predecessor);
                    self.at = At::Gate;
                }
            }
            Claim::Entered(entered) => {
                // A process of the directory may have it now; the service excludes it.
                self.release_slot();
                if let Some((token, predecessor)) = tier.check(entered) {
                    self.held.add(LEASE);
                    self.held.set_scope(Scope::Host);
                    self.held.token = token;
                    self.tell(predecessor);
                    self.at = At::Gate;
                }
            }
            Claim::UsedUp(used) => tier.give_back(&used),
            Claim::Held if self.patience == Patience::No => return Err(LockError::WOULD_BLOCK),
            Claim::Held => {
                self.release_slot();
                return self.wait_at(tier.word).map(Some);
            }
            Claim::Closed(Some(LostReason::HeldTooLong)) if self.lates == LATES_MAX => {
                // `at_most` is so short that the next lease would be over again.
                return Err(about(LockError::lost(LostReason::HeldTooLong)));
            }
            Claim::Closed(_) if self.named.entry.has_slot() && !self.held.has(SLOT) => {
                self.at = At::Slot
            }
            Claim::Closed(why) => {
                self.lates += u32::from(why == Some(LostReason::HeldTooLong));
                let has_moved = self.widen_slot()?;
                named.entry.raise_scope(Scope::Host);
                if !self.is_wide {
                    self.at = At::Widened { has_moved };
                    return Ok(None);
                }
                return self.ask(tier, has_moved).map(|request| Some(Ask::Lease(request)));
            }
        }
        Ok(None)
    }

    /// Whether the service grants an upgradable reader a lease beside those of readers.
    fn stands_apart(&self, tier: HostTier<'a>) -> bool {
        self.mode == LockMode::Upgradable && tier.service.clone().conversions().is_some()
    }

    /// Whether a reader has a lease of its own, since readers of this process are inside under one that was
    /// asked back, or is of no use to it. A reader that waited for them would stand behind all that have come
    /// meanwhile; and what asked for their lease may have given up.
    fn reads_apart(&self, tier: HostTier<'a>) -> bool {
        let is_inside = match self.named.enters_kept() {
            true => tier.word.is_asked_back(),
            false => tier.word.is_read(),
        };
        is_inside && tier.service.clone().conversions().is_some()
    }

    /// Whether no guard of this process is in the name's word alone, which is closed then, or readers'.
    /// None comes to be: it would be asked for by this one's turnstile.
    fn leaves_room_apart(&self, tier: HostTier<'a>) -> bool {
        if let Some(used) = tier.word.refuse_reserved() {
            tier.give_back(&used);
        }
        if !tier.word.is_shared()
            && let Some(used) = tier.service.close_idle(tier.word)
        {
            tier.give_back(&used);
        }
        tier.word.is_closed() || tier.word.is_shared()
    }

    /// Claims the lease of its own that was granted, or asks for one.
    fn look_for_own(&mut self, tier: HostTier<'a>) -> Result<Option<Ask<'a>>> {
        if let Some(word) = self.asked_word.take() {
            let lost = match self.claim_own(tier, &word) {
                Ok(()) => return Ok(None),
                Err(lost) => lost,
            };
            // It was over before it was claimed.
            if lost == Some(LostReason::HeldTooLong) {
                self.lates += 1;
                if self.lates > LATES_MAX {
                    return Err(self.named.about(Scope::Host)(LockError::lost(
                        LostReason::HeldTooLong,
                    )));
                }
            }
            if !self.held.has(THREAD) {
                self.at = At::Begin; // it asked past the turnstile
                return Ok(None);
            }
        }
        if self.named.entry.has_slot() && !self.held.has(SLOT) {
            self.at = At::Slot;
            return Ok(None);
        }
        let has_moved = self.widen_slot()?;
        self.named.entry.raise_scope(Scope::Host);
        if !self.is_wide {
            self.at = At::Widened { has_moved };
            return Ok(None);
        }
        self.ask(tier, has_moved).map(|request| Some(Ask::Lease(request)))
    }

    /// Permits were granted, or an upgradable lease: they are its own now, unless their lease is over.
    fn claim_own(
        &mut self,
        tier: HostTier<'a>,
        word: &Arc<LeaseWord>,
    ) -> std::result::Result<(), Option<LostReason>> {
        let entered = match word.claim_shared(false) {
            Claim::Entered(entered) => entered,
            Claim::Closed(lost) => return Err(lost),
            Claim::UsedUp(_) | Claim::Held => unreachable!("no other has this word"),
        };
        let own = HostTier { word, ..tier };
        if own.check_shared(entered.token, entered.predecessor).is_none() {
            return Err(word.lost());
        }
        self.held.set_scope(Scope::Host);
        self.held.token = word.block_end();
        self.named.entry.remember_token(self.held.token);
        if let LockMode::Permits(Permits { count, .. }) = self.mode {
            self.held.add(SHARED_LEASE);
            self.held.set_permits(count);
            self.held.more_mut().leased = Some(LeasedPermits::new(word.clone(), count));
            self.at = At::Inside;
        } else {
            self.tell(entered.predecessor);
            self.held.stand_apart(word.clone());
            self.named.entry.watch_apart(word);
            self.at = At::Gate;
        }
        Ok(())
    }

    /// A try for permits of a name that is locked at host scope, with none taken more narrowly, need
    /// not win what orders the waiters of this machine: else two tries fail each other though there is
    /// room. The leader lets it pass no waiter.
    pub(super) fn may_ask_at_once(&self) -> bool {
        let named = self.named;
        matches!(self.mode, LockMode::Permits(_))
            && self.patience == Patience::No
            && named.entry.scope_in_force() == Scope::Host
            && named.reach.has_leader()
            && named.permits_taken_here().is_ok_and(|taken| taken == 0)
    }

    pub(super) fn ask_past_turnstile(&mut self) -> Result<Box<dyn PendingLease>> {
        let named = self.named;
        let about = named.about(Scope::Host);
        self.goal = Scope::Host;
        named.check_open(Scope::Host)?;
        let Some(tier) = named.host_tier() else { return Err(about(opened_before_fork())) };
        if !tier.service.counts() {
            return Err(about(permits_at_host_scope()));
        }
        self.known = named.entry.thread().last_token().max(named.entry.highest_token());
        self.ask(tier, false)
    }

    /// Waits at a word that is in use, as the representative. After 1 ms the word is handed to it.
    fn wait_at(&mut self, word: &'a LeaseWord) -> Result<Ask<'a>> {
        let now = clock::now();
        let until = self.patience.until();
        if now >= until {
            return Err(self.held_here());
        }
        let hungry_at = *self.since.get_or_insert(now) + IMPATIENCE;
        let is_hungry = now >= hungry_at;
        let until = if is_hungry { until } else { until.min(hungry_at) };
        Ok(Ask::Word(WordWait { word, is_hungry, until: until.min(now + NAP_MAX) }))
    }

    /// Asks for a lease, after the name was marked as wide, in the directory and in this process.
    /// Whatever comes of it, the slot is released with it.
    pub(super) fn ask(
        &mut self,
        tier: HostTier<'a>,
        has_moved: bool,
    ) -> Result<Box<dyn PendingLease>> {
        let named = self.named;
        self.at = At::Word;
        let always = named.keep == Keep::Always;
        // Threads that wait here get it next, and without the leader: that is keeping, too.
        let is_wanted = || tier.word.is_wanted(always) || named.entry.thread().has_waiters();
        let settlement = self.settlement();
        // One that has been closed stays so, for the representative; one that has not may have lost its
        // readers since it was looked at, and is open all the same.
        let is_apart =
            self.stands_apart(tier) || self.mode == LockMode::Shared && !tier.word.is_closed();
        let mode = match self.mode {
            LockMode::Upgradable if self.stands_apart(tier) => LeaseMode::Upgradable,
            LockMode::Exclusive | LockMode::Upgradable => LeaseMode::Exclusive,
            LockMode::Shared => LeaseMode::Shared,
            LockMode::Permits(Permits { count, limit }) => LeaseMode::Permits { count, limit },
        };
        let keep = named.enters_kept()
            && match mode {
                LeaseMode::Exclusive => is_wanted(),
                LeaseMode::Shared => !is_apart,
                LeaseMode::Upgradable | LeaseMode::Permits { .. } => false,
            };
        let is_own = is_apart || matches!(mode, LeaseMode::Permits { .. });
        let word = match is_own {
            true => {
                let (deadline, made_in) = (tier.service.word_deadline(), tier.word.made_in());
                self.asked_word.insert(Arc::new(LeaseWord::of(deadline, made_in))).clone()
            }
            false => tier.word.clone(),
        };
        Ok(tier.service.clone().ask(LeaseRequest {
            name: named.name().clone(),
            at_most: named.at_most,
            at_least: named.at_least,
            keep,
            word,
            mode,
            value: named.value.clone(),
            blocks: !self.is_task,
            lapses: is_own && self.is_task,
            after: self.after,
            answer_by: self.answer_by,
            above: self.known,
            has_moved,
            patience: match self.patience {
                Patience::No => LeasePatience::No,
                patience => LeasePatience::Until(patience.until()),
            },
            settlement,
        }))
    }

    /// Marks the name as wide in the directory, if it has the slot. Whether another process has had
    /// the lock since this one.
    fn widen_slot(&mut self) -> Result<bool> {
        #[cfg(feature = "process")]
        if self.held.has(SLOT)
            && let Some(slot) = self.named.entry.slot()
        {
            self.claim_directory()?;
            // Before it asks: a death between grant and mark would leave a holder of process scope
            // beside other machines.
            slot.widen(&self.named.reach.described())?;
            let has_moved = self.held.token > self.known;
            let last = slot.last_token();
            // Of a name that was not wide before, this climb has counted one token, which no guard
            // has had: a leader that had to exceed it would take a higher epoch for each new name.
            let is_own = |taken: &Taken| taken.widened_by.is_none() && taken.token == last;
            let unused = u64::from(self.taken.as_ref().is_some_and(is_own));
            let known = Token::new(last.get() - unused).expect("below a token are tokens");
            self.known = self.known.max(known);
            return Ok(has_moved);
        }
        Ok(false)
    }

    /// From now on the slot is the request's.
    fn settlement(&mut self) -> Settlement {
        #[cfg(feature = "process")]
        if self.held.remove(SLOT)
            && let Some(slot) = self.named.entry.slot()
        {
            let (slot, found) = (slot.clone(), self.found_slot);
            return Settlement::new(Box::new(AskersSlot { slot, found }));
        }
        Settlement::default()
    }

    /// What the service says. The word is open now, unless the lease is over already.
    pub(super) fn answered(&mut self, granted: Result<LeaseGranted>) -> Result<()> {
        let LeaseGranted { had_to_queue } = granted.map_err(self.named.about(Scope::Host))?;
        if let Some(word) = &self.named.word
            && self.asked_word.is_none()
        {
            word.granted(had_to_queue);
            self.own_lease = Some(word.lease());
        }
        self.has_grant = true;
        // A lease of another service than the directory's is no lock of the directory: it goes back.
        self.claim_directory()
    }

    /// Has the directory belong to the service, as soon as its cluster is known.
    fn claim_directory(&self) -> Result<()> {
        #[cfg(feature = "process")]
        self.named.reach.claim_directory().map_err(self.named.about(Scope::Host))?;
        Ok(())
    }
}

/// The slot that an asker has won. It holds nothing of the name's entry, which may go meanwhile.
#[cfg(feature = "process")]
struct AskersSlot {
    slot: Arc<Slot>,
    found: Predecessor,
}

#[cfg(feature = "process")]
impl Settle for AskersSlot {
    fn may_block(&self, block_end: Option<Token>) -> bool {
        self.slot.may_block(block_end)
    }

    fn raise(&mut self, block_end: Token) {
        self.slot.raise_token(block_end);
    }

    fn pass_on(&mut self) {
        self.found = Predecessor::Clean;
    }

    fn release(self: Box<Self>) {
        self.slot.release(self.found);
    }
}
