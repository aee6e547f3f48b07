//! Leases, from the grant to the leader's knowledge that they are over.

use super::{Client, Due, Event, Grant, Hold, Lease};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    proto::{
        LeaseId, RequestId,
        mistake::{Mistake, planted},
        wire::{Acquire, ClientMessage, HeldLease, Mode},
    },
    time::Time,
    token::Token,
};

impl Client {
    pub(super) fn granted(&mut self, request: RequestId, grant: Grant, now: Time) {
        if self.leases.contains_key(&grant.lease) {
            return;
        }
        let lives = self.lives(now);
        match self.requests.get_mut(&request) {
            // Its caller gave up, or was told that it failed.
            None => self.refuse_unknown(grant),
            Some(_) if lives => self.accept(request, grant),
            Some(state) => state.grant = Some(grant),
        }
    }

    pub(super) fn accept(&mut self, request: RequestId, grant: Grant) {
        self.timers.clear(Due::Request(request));
        let state = self.requests.remove(&request).expect("a request that waits");
        let Grant { lease, first, last, predecessor, at_most, is_recalled, .. } = grant;
        if let Some(end) = at_most {
            self.timers.set(Due::AtMost(lease), end);
        }
        let Acquire { name, mode, extras, .. } = state.acquire;
        let value = extras.and_then(|extras| extras.value);
        let hold = Hold::Held;
        self.insert_lease(lease, Lease { name, mode, value, request, grant, hold, kept: false });
        let granted = Event::Granted { request, lease, first, last, predecessor, at_most };
        self.events.push_back(granted);
        if is_recalled {
            self.events.push_back(Event::Recalled { lease });
        }
    }

    fn insert_lease(&mut self, lease: LeaseId, state: Lease) {
        self.granted.insert(state.request, lease);
        self.leases.insert(lease, state);
    }

    fn remove_lease(&mut self, lease: LeaseId) {
        if let Some(state) = self.leases.remove(&lease) {
            self.granted.remove(&state.request);
            self.conversions.remove(&lease);
        }
    }

    /// Hands back a grant that no guard entered: the next holder's predecessor is still the last
    /// one that did.
    pub(super) fn refuse_grant(&mut self, request: RequestId, asked: &Acquire, grant: Grant) {
        let (lease, hold, name, mode) = (grant.lease, Hold::Held, asked.name.clone(), asked.mode);
        let value = None; // it goes back
        self.insert_lease(lease, Lease { name, mode, value, request, grant, hold, kept: false });
        self.hand_back(lease);
    }

    /// As `refuse_grant`, where even the name is forgotten. It need not be repeated: the next
    /// report does not name it.
    fn refuse_unknown(&mut self, grant: Grant) {
        let Grant { lease, predecessor: how, .. } = grant;
        self.say(ClientMessage::Release { lease, last_used: before(grant.first), how });
    }

    pub(super) fn is_held(&self, lease: LeaseId) -> bool {
        self.leases.get(&lease).is_some_and(|held| held.hold == Hold::Held)
    }

    /// Another session waits. The leader says so once, also of a grant that is not good yet.
    pub(super) fn recalled(&mut self, lease: LeaseId) {
        let mut unheard = self.requests.values_mut().filter_map(|request| request.grant.as_mut());
        if let Some(grant) = unheard.find(|grant| grant.lease == lease) {
            grant.is_recalled = true; // told once it is good
        } else if self.is_held(lease) {
            self.events.push_back(Event::Recalled { lease });
        }
    }

    /// Of a block it is the end that moves, and only on.
    pub(super) fn topped_up(&mut self, lease: LeaseId, last: Token) {
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Held
            // It may have become a reader's meanwhile, which needs none.
            && held.mode == Mode::Exclusive
            && last > held.grant.last
            && last.epoch() == held.grant.last.epoch()
        {
            held.grant.last = last;
            self.events.push_back(Event::ToppedUp { lease, last });
        }
    }

    pub(super) fn hand_back(&mut self, lease: LeaseId) {
        let held = self.leases.get_mut(&lease).expect("a lease that is held");
        // It used none: what the leader reserves for an unused grant ends with it.
        let (last_used, how) = (before(held.grant.first), held.grant.predecessor);
        held.hold = Hold::Releasing { last_used, how, to_be_told: false, awaited: false };
        self.give_back(lease);
    }

    pub(super) fn lose(&mut self, lease: LeaseId, why: LostReason) {
        self.timers.clear(Due::AtMost(lease));
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Held
        {
            held.hold = Hold::Losing;
            self.losses_untold += 1;
            self.events.push_back(Event::LeaseLost { lease, why });
        }
    }

    /// The guards know: now the leader may hear that no guard believes in the lease any more.
    pub fn loss_is_told(&mut self, lease: LeaseId) {
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Losing
        {
            let (last_used, how) = (held.grant.last, Predecessor::Expired);
            held.hold = Hold::Releasing { last_used, how, to_be_told: false, awaited: false };
            self.give_back(lease);
            self.step_closing();
        }
    }

    pub(super) fn give_back(&mut self, lease: LeaseId) {
        let Lease { hold, grant, .. } = &self.leases[&lease];
        if grant.at_most.is_some() {
            self.timers.clear(Due::AtMost(lease));
        }
        if let Hold::Releasing { last_used, how, .. } = *hold {
            self.say(ClientMessage::Release { lease, last_used, how });
        }
    }

    pub(super) fn released(&mut self, lease: LeaseId) {
        if let Some(Lease { hold: Hold::Releasing { .. }, .. }) = self.leases.get(&lease) {
            self.release_is_over(lease);
            self.remove_lease(lease);
        }
    }

    /// The leader took a lease away, and waits to hear that no guard believes in it any more.
    pub(super) fn lost(&mut self, lease: LeaseId, why: LostReason, now: Time) {
        let unheard =
            self.requests.values_mut().find(|r| r.grant.as_ref().is_some_and(|g| g.lease == lease));
        if let Some(request) = unheard {
            // It was never good. The next report asks for it again, at its place.
            request.grant = None;
            return self.drop_link("a lease was lost before it was good".to_owned(), now);
        }
        match self.leases.get(&lease).map(|held| held.hold) {
            Some(Hold::Held) => self.lose(lease, why),
            Some(Hold::Losing | Hold::Releasing { .. }) => {} // the answer is on its way
            None => {
                let (last_used, how) = (Token::ZERO, Predecessor::Expired);
                self.say(ClientMessage::Release { lease, last_used, how });
            }
        }
    }

    /// Whether a caller waits for the answer to a release.
    pub(super) fn is_awaited(&self) -> bool {
        self.leases
            .values()
            .any(|lease| matches!(lease.hold, Hold::Releasing { awaited: true, .. }))
    }

    /// Whether anything is held and not on its way back.
    pub fn holds(&self) -> bool {
        self.leases.values().any(|lease| !matches!(lease.hold, Hold::Releasing { .. }))
    }
}

impl Grant {
    pub(super) fn held(&self, name: Name, mode: Mode, now: Time) -> HeldLease {
        let mode = if planted(Mistake::ModeNotReported) { Mode::Exclusive } else { mode };
        HeldLease {
            lease: self.lease,
            name,
            first: self.first,
            last: self.last,
            last_used: self.last,
            at_most: self.at_most.map(|end| end.since(now)),
            kept: false,
            since: now.since(self.since),
            leaving: None,
            reign: self.reign,
            mode,
            value: None,
        }
    }
}

/// The token before this one: the last used of a block that begins with this one and was not used.
pub(super) fn before(first: Token) -> Token {
    Token::new(first.get().saturating_sub(1)).unwrap_or(Token::ZERO)
}
