//! From one mode to another: upgrades and downgrades of a lease that is held.
//!
//! An upgradable reader stands beside readers, one at a time. Its upgrade stands before the queue: from
//! then on none is granted the name, readers that keep their leases are asked for them, and once it is
//! alone it is exclusive. So none writes between what it has read and what it writes. (With a gate of its
//! own for upgraders a writer would hold the one and wait for the other.) A downgrade lets readers in at
//! once.
//!
//! Each is answered with a token: an upgraded holder has one of its own, and a downgraded one bears that of
//! the readers inside, above that of the writer that it was. Both are asked for again on a session's
//! next connection, behind its report, which says as what the session sees itself until it is answered.

use std::collections::BTreeMap;

use super::{LeaderMachine, Standing};
use crate::{
    proto::{
        LeaseId, RequestId,
        lock::{HoldKey, LockKey, Right, SessionKey},
        mistake::{Mistake, planted},
        table::Next,
        wire::{LeaderMessage, Mode, Refusal},
    },
    time::Time,
    token::Token,
};

/// The changes of mode that wait: at most one upgrade for each lock, and downgrades of others.
#[derive(Default)]
pub(super) struct Conversions(BTreeMap<HoldKey, Conversion>);

#[derive(Clone, Copy)]
struct Conversion {
    request: RequestId,
    to: Mode,
    /// It is refused if it has to wait for another holder.
    tries: bool,
    /// A writer's that has written, and leaves in good order.
    has_written: bool,
}

impl Conversions {
    /// The lease is another one's by now, or is over.
    pub(super) fn forget(&mut self, hold: HoldKey) {
        self.0.remove(&hold);
    }

    /// Those of a lock, an upgrade last: it waits for the others.
    fn of(&self, lock: LockKey) -> Vec<(HoldKey, Conversion)> {
        let mut all: Vec<_> = self.range(lock).collect();
        all.sort_by_key(|(_, conversion)| conversion.to == Mode::Exclusive);
        all
    }

    fn range(&self, lock: LockKey) -> impl Iterator<Item = (HoldKey, Conversion)> + use<'_> {
        let of_lock = self.0.range(HoldKey::exclusive(lock)..);
        let of_lock = of_lock.take_while(move |(hold, _)| hold.lock == lock);
        of_lock.map(|(hold, conversion)| (*hold, *conversion))
    }

    /// Which lease of the lock waits to become exclusive.
    pub(super) fn upgrading(&self, lock: LockKey) -> Option<HoldKey> {
        let mut of_lock = self.range(lock);
        of_lock.find(|(_, conversion)| conversion.to == Mode::Exclusive).map(|(hold, _)| hold)
    }
}

impl LeaderMachine {
    pub(super) fn upgrade(
        &mut self,
        key: SessionKey,
        request: RequestId,
        lease: LeaseId,
        tries: bool,
    ) {
        let to = Mode::Exclusive;
        self.convert(key, lease, Conversion { request, to, tries, has_written: false });
    }

    /// `last_used`: of an exclusive lease; what is left of its block was never granted.
    pub(super) fn downgrade(
        &mut self,
        key: SessionKey,
        request: RequestId,
        (lease, last_used): (LeaseId, Token),
        to: Mode,
    ) {
        let mut has_written = false;
        if let Some(hold) = self.hold_of_lease(key, lease)
            && hold.joint_key().is_none()
        {
            has_written = last_used >= self.table.tokens(hold).0;
            self.table.give_back(hold, last_used);
        }
        self.convert(key, lease, Conversion { request, to, tries: false, has_written });
    }

    fn convert(&mut self, key: SessionKey, lease: LeaseId, conversion: Conversion) {
        let Conversion { request, to, .. } = conversion;
        // One that is over is told as lost, or was given back.
        let Some(hold) = self.hold_of_lease(key, lease) else { return };
        if !matches!(self.holding(hold).right, Right::Whole) {
            return;
        }
        self.conversions.forget(hold);
        match (self.table.mode(hold), to) {
            // Its answer was not heard.
            (Mode::Exclusive, Mode::Exclusive) => {
                let token = self.table.tokens(hold).1;
                self.tell(key, LeaderMessage::Converted { request, lease, token });
            }
            // An upgrade that was given up, or a downgrade that was not heard: then its token may be that
            // of the writer that it was.
            (Mode::Upgradable, Mode::Exclusive | Mode::Upgradable | Mode::Shared)
            | (Mode::Exclusive, Mode::Upgradable | Mode::Shared)
            | (Mode::Shared, Mode::Shared) => {
                self.conversions.0.insert(hold, conversion);
                self.unsettled.push(hold.lock);
            }
            _ => {
                let why = Refusal::NotSupported;
                self.tell(key, LeaderMessage::Refused { request, why, holder: None });
            }
        }
    }

    /// What of a lock waits to change, if it may now; whether the lock's queue may be granted then.
    pub(super) fn convert_if_due(&mut self, lock: LockKey, now: Time) -> bool {
        if self.conversions.0.is_empty() {
            return true;
        }
        let all = self.conversions.of(lock);
        all.into_iter().all(|(hold, conversion)| self.convert_one(hold, conversion, now))
    }

    /// The same of one of them.
    fn convert_one(&mut self, hold: HoldKey, conversion: Conversion, now: Time) -> bool {
        let (lock, Conversion { request, to, .. }) = (hold.lock, conversion);
        let is_upgrade = to == Mode::Exclusive;
        let passes = planted(Mistake::ReadersEnterBesideUpgrade);
        if is_upgrade && !self.may_be_upgraded(hold, now) {
            return passes;
        }
        let epoch = self.epoch();
        let token = match self.table.next_token(lock, to, Token::ZERO, epoch) {
            Some(Next::Token(token)) => token,
            Some(Next::Epoch(needed)) if self.ask_epoch(needed) => {
                self.awaiting_epoch.insert(lock);
                return !is_upgrade;
            }
            // Without a token above all that were granted it stays what it is.
            Some(Next::Epoch(_)) | None => {
                self.conversions.forget(hold);
                let (session, why) = (self.holding(hold).session, Refusal::Tokens);
                self.tell(session, LeaderMessage::Refused { request, why, holder: None });
                return true;
            }
        };
        self.conversions.forget(hold);
        // One that was upgraded and has written nothing hides from the next writer how the last one left.
        if hold.joint_key().is_none() && conversion.has_written {
            self.table.left_well(lock);
        }
        let hold = self.become_mode(hold, to, token, true);
        self.given = self.given.max(token);
        let (session, lease) = (self.holding(hold).session, self.holding(hold).lease.lease());
        self.tell(session, LeaderMessage::Converted { request, lease, token });
        true
    }

    /// Tells an upgrade that only tries that others share the lock, as soon as that is sure.
    pub(super) fn refuse_impatient_upgrade(&mut self, lock: LockKey) {
        let Some(hold) = self.conversions.upgrading(lock) else { return };
        let Conversion { request, tries, .. } = self.conversions.0[&hold];
        if tries && self.is_surely_held(lock, Mode::Shared, None) {
            self.conversions.forget(hold);
            self.unsettled.push(lock);
            let (session, why) = (self.holding(hold).session, Refusal::WouldBlock);
            self.tell(session, LeaderMessage::Refused { request, why, holder: None });
        }
    }

    /// Whether it is alone, as far as this reign can know.
    fn may_be_upgraded(&self, hold: HoldKey, now: Time) -> bool {
        let lock = hold.lock;
        let in_grace = self.is_awaited(lock) && !planted(Mistake::UpgradedInGrace);
        let waits = in_grace || self.is_paused() || self.disputes.get(lock).is_some();
        let session = self.sessions.get(self.holding(hold).session);
        let lives = matches!(session.standing, Standing::Open(_)) && session.deadline() > now;
        let is_alone = self.table.holds(lock).all(|other| other == hold)
            || planted(Mistake::UpgradedBesideReaders);
        self.reign.is_some() && self.over.is_none() && !waits && lives && is_alone
    }

    /// The lease is of this mode from now on, with this token. `others_bear` it too, if it is shared.
    fn become_mode(&mut self, hold: HoldKey, to: Mode, token: Token, others_bear: bool) -> HoldKey {
        let (session, lease) = (self.holding(hold).session, self.holding(hold).lease);
        let end = self.ends.get(hold);
        self.ends.clear(hold);
        self.may_lead_otherwise(hold);
        let hold = self.table.convert(hold, to, token, others_bear);
        self.sessions.move_lease(session, lease, hold);
        if let Some(end) = end {
            self.ends.set(hold, end);
        }
        self.unsettled.push(hold.lock);
        hold
    }

    /// A session reports a lease as this mode, with this token, and had not heard that it is exclusive, or
    /// has come to see itself as less than was known.
    pub(super) fn is_reported_as(
        &mut self,
        hold: HoldKey,
        to: Mode,
        (first, last): (Token, Token),
    ) {
        // What it waited for it asks for again.
        self.conversions.forget(hold);
        let known = self.table.mode(hold);
        let is_less = matches!(
            (known, to),
            (Mode::Exclusive, Mode::Upgradable | Mode::Shared) | (Mode::Upgradable, Mode::Shared)
        );
        if is_less {
            if known == Mode::Exclusive {
                self.table.give_back(hold, last);
            }
            self.become_mode(hold, to, first, false);
        }
    }

    /// The session's connection is no more: what it waits for it asks for again on the next one.
    pub(super) fn forget_conversions(&mut self, key: SessionKey) {
        if self.conversions.0.is_empty() {
            return;
        }
        for (_, hold) in self.sessions.get(key).leases_in_order() {
            self.conversions.forget(hold);
            self.unsettled.push(hold.lock);
        }
    }
}
