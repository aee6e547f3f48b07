//! A lease that is to be of another mode: its upgrade waits for the leader, and of its downgrade this
//! session is the first to know.

use super::{Client, Event, Hold};
use crate::{
    proto::{
        LeaseId, RequestId,
        wire::{ClientMessage, Mode, Refusal},
    },
    time::Time,
    token::Token,
};

/// What was asked for, and is asked for again on each connection until it is answered.
pub(super) struct AskedConversion {
    request: RequestId,
    to: Mode,
    last_used: Token,
    tries: bool,
}

impl AskedConversion {
    fn message(&self, lease: LeaseId) -> ClientMessage {
        let AskedConversion { request, to, last_used, tries } = *self;
        match to {
            Mode::Exclusive => ClientMessage::Upgrade { request, lease, tries },
            to => ClientMessage::Downgrade { request, lease, last_used, to },
        }
    }
}

impl Client {
    /// An upgradable lease is to be exclusive, before all that wait. Answered by
    /// [`Event::Converted`]; until then it stays what it is. One that only `tries` is answered by
    /// [`Event::NotConverted`] if another session shares it. `None`: it is not held.
    pub fn upgrade(&mut self, lease: LeaseId, tries: bool, now: Time) -> Option<RequestId> {
        self.convert(lease, Mode::Exclusive, Token::ZERO, tries, now)
    }

    /// An exclusive lease is to be upgradable or shared, or an upgradable one shared; that of an upgrade
    /// which is given up, upgradable. It is seen as that from now on, and bears its old token until
    /// [`Event::Converted`] tells the new one. `None`: it is not held.
    pub fn downgrade(
        &mut self,
        lease: LeaseId,
        to: Mode,
        last_used: Token,
        now: Time,
    ) -> Option<RequestId> {
        let request = self.convert(lease, to, last_used, false, now)?;
        if let Some(held) = self.leases.get_mut(&lease) {
            held.mode = to;
            if last_used > held.grant.first {
                // The rest of its block is none any more.
                held.grant.first = last_used.min(held.grant.last);
            }
            held.grant.last = held.grant.first;
        }
        Some(request)
    }

    fn convert(
        &mut self,
        lease: LeaseId,
        to: Mode,
        last_used: Token,
        tries: bool,
        now: Time,
    ) -> Option<RequestId> {
        self.observe(now);
        if !self.is_held(lease) {
            return None;
        }
        let request = self.next_request();
        let asked = AskedConversion { request, to, last_used, tries };
        self.say(asked.message(lease));
        self.conversions.insert(lease, asked);
        Some(request)
    }

    /// What is asked for on each connection, behind the report.
    pub(super) fn asked_conversions(&self) -> impl Iterator<Item = ClientMessage> + use<'_> {
        self.conversions.iter().map(|(&lease, asked)| asked.message(lease))
    }

    /// Whether it is seen as shared, and has yet to hear the token that readers bear.
    pub(super) fn is_becoming_shared(&self, lease: LeaseId) -> bool {
        self.conversions.get(&lease).is_some_and(|asked| asked.to == Mode::Shared)
    }

    /// A leader has converted it. What is not waited for any more was given up: the leader has read that,
    /// or will.
    pub(super) fn converted(&mut self, request: RequestId, lease: LeaseId, token: Token) {
        let is_waited_for = |asked: &mut AskedConversion| asked.request == request;
        let asked = self.conversions.get_mut(&lease).is_some_and(is_waited_for);
        let Some(asked) = asked.then(|| self.conversions.remove(&lease)).flatten() else { return };
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Held
        {
            held.mode = asked.to;
            (held.grant.first, held.grant.last) = (token, token);
            self.events.push_back(Event::Converted { request, lease, token });
        }
    }

    /// It stays what it is; a lease that is seen as less already stays that.
    pub(super) fn conversion_refused(&mut self, request: RequestId, why: Refusal) -> bool {
        let asked = self.conversions.iter().find(|(_, asked)| asked.request == request);
        let Some((&lease, _)) = asked else { return false };
        self.conversions.remove(&lease);
        self.events.push_back(Event::NotConverted { request, lease, why });
        true
    }
}
