//! Elections: what holders say of themselves, and which connections are told of them.
//!
//! A name is led by the holder of its exclusive lease, if that has said a value when it asked for it.
//! An observer is told the present leader when it asks, or when grace is over: before that a leader may
//! come back. From then on it is told each change, at the end of the event that made it: where one leader
//! follows on another in one event, nothing in between was so.
//!
//! An observation ends with its connection; the client asks again on the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use super::LeaderMachine;
use crate::{
    name::Name,
    proto::{
        ClientId, ConnectionId, RequestId,
        lock::{HoldKey, LockKey, PackedId, SessionKey, StatedValue},
        mistake::{Mistake, planted},
        shares::{Shares, has_share},
        wire::{LeaderMessage, PresentLeader, Refusal, VALUE_BYTES_MAX},
    },
};

/// The values that there are, counted by what has them.
#[derive(Default)]
pub(super) struct StatedValues {
    all: Arc<()>,
    of: BTreeMap<ClientId, Weak<()>>,
    /// Those of leases.
    led: BTreeMap<PackedId, Arc<StatedValue>>,
}

/// How many values all clients together may have: 64 MiB.
pub(super) const VALUES_MAX: usize = 1 << 16;

impl StatedValues {
    /// Room for one more of this client's. What comes back from an earlier reign was accepted before.
    pub(super) fn accept(
        &mut self,
        client: ClientId,
        bytes: &[u8],
        is_new: bool,
    ) -> Option<Arc<StatedValue>> {
        let own = self.of.get(&client).and_then(Weak::upgrade).unwrap_or_default();
        let (own_count, all) = (Arc::strong_count(&own) - 1, Arc::strong_count(&self.all) - 1);
        let has_room = match is_new {
            true => has_share(own_count, all, VALUES_MAX),
            false => all < 2 * VALUES_MAX,
        };
        if !has_room {
            return None;
        }
        if own_count == 0 {
            self.of.retain(|_, counted| counted.strong_count() > 0);
            self.of.insert(client, Arc::downgrade(&own));
        }
        let _counted = [own, self.all.clone()];
        Some(Arc::new(StatedValue { bytes: bytes.into(), _counted }))
    }

    pub(super) fn lead(&mut self, lease: PackedId, value: Arc<StatedValue>) {
        self.led.insert(lease, value);
    }

    pub(super) fn leave(&mut self, lease: PackedId) {
        self.led.remove(&lease);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        Arc::strong_count(&self.all) - 1
    }
}

/// The observers of all names.
pub(super) struct Observers {
    of: BTreeMap<Name, ObservedName>,
    by: BTreeMap<ConnectionId, (ClientId, BTreeMap<RequestId, Name>)>,
    shares: Shares,
    /// Names that may have another leader.
    changed: BTreeSet<Name>,
}

/// The observers of one name.
#[derive(Default)]
struct ObservedName {
    /// The lease that was told last, to all of them.
    told: Option<PackedId>,
    by: BTreeSet<(ConnectionId, RequestId)>,
    /// Those that were told nothing yet.
    untold: BTreeSet<(ConnectionId, RequestId)>,
}

/// How many observations all clients have together.
const OBSERVATIONS_MAX: usize = 1 << 16;

impl Default for Observers {
    fn default() -> Observers {
        Observers {
            of: BTreeMap::new(),
            by: BTreeMap::new(),
            shares: Shares::new(OBSERVATIONS_MAX),
            changed: BTreeSet::new(),
        }
    }
}

impl Observers {
    fn add(&mut self, name: Name, client: ClientId, at: (ConnectionId, RequestId)) {
        let (connection, query) = at;
        let own = &mut self.by.entry(connection).or_insert_with(|| (client, BTreeMap::new())).1;
        if own.insert(query, name.clone()).is_none() {
            self.shares.take(client);
            self.of.entry(name.clone()).or_default().untold.insert(at);
        }
        self.changed.insert(name);
    }

    fn remove(&mut self, connection: ConnectionId, query: RequestId) {
        let Some((client, own)) = self.by.get_mut(&connection) else { return };
        let Some(name) = own.remove(&query) else { return };
        self.shares.give_back(*client);
        if own.is_empty() {
            self.by.remove(&connection);
        }
        let observed = self.of.get_mut(&name).expect("it is observed");
        observed.by.remove(&(connection, query));
        observed.untold.remove(&(connection, query));
        if observed.by.is_empty() && observed.untold.is_empty() {
            self.of.remove(&name);
        }
    }

    /// The connection is no more.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        let own = self.by.get(&connection).map(|(_, own)| own.keys().copied().collect::<Vec<_>>());
        for query in own.unwrap_or_default() {
            self.remove(connection, query);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.shares.taken()
    }
}

impl LeaderMachine {
    pub(super) fn observe(&mut self, connection: ConnectionId, query: RequestId, name: Name) {
        let client = self.client_of(connection);
        if !self.observers.shares.has_room_for(client) {
            let (request, why) = (query, Refusal::TooManyClaims);
            let refused = LeaderMessage::Refused { request, why, holder: None };
            return self.messages.push_back((connection, refused));
        }
        self.observers.add(name, client, (connection, query));
    }

    pub(super) fn stop_observing(&mut self, connection: ConnectionId, query: RequestId) {
        self.observers.remove(connection, query);
    }

    /// What a request or a report says of its session's holder; the error: no room for it.
    pub(super) fn state_value(
        &mut self,
        key: SessionKey,
        value: Option<&[u8]>,
        is_new: bool,
    ) -> Result<Option<Arc<StatedValue>>, Refusal> {
        let Some(bytes) = value else { return Ok(None) };
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(Refusal::NotSupported);
        }
        let client = self.sessions.client_of(key);
        let accepted = self.values.accept(client, bytes, is_new);
        accepted.map(Some).ok_or(Refusal::TooManyClaims)
    }

    /// The exclusive lease of this name is another's than before, or none's.
    pub(super) fn may_lead_otherwise(&mut self, hold: HoldKey) {
        if hold.joint_key().is_none() && !self.observers.of.is_empty() {
            let name = &self.table.lock(hold.lock).name;
            if self.observers.of.contains_key(name) {
                self.observers.changed.insert(name.clone());
            }
        }
    }

    /// Grace is over: all are told.
    pub(super) fn observers_may_be_told(&mut self) {
        self.observers.changed.extend(self.observers.of.keys().cloned());
    }

    /// Tells what has changed. What each event ends with.
    pub(super) fn tell_observers(&mut self) {
        let in_grace = self.in_grace && !planted(Mistake::ObserversToldInGrace);
        if self.observers.changed.is_empty() || in_grace || self.over.is_some() {
            return;
        }
        for name in std::mem::take(&mut self.observers.changed) {
            let lock = self.table.find(&name);
            let leads = lock.and_then(|lock| self.leads(lock));
            let Some(observed) = self.observers.of.get_mut(&name) else { continue };
            let lease = leads.as_ref().map(|(lease, _)| *lease);
            let mut told: Vec<_> = std::mem::take(&mut observed.untold).into_iter().collect();
            observed.by.extend(told.iter().copied());
            let is_other = std::mem::replace(&mut observed.told, lease) != lease;
            if is_other && !(lease.is_none() && planted(Mistake::EndOfLeadershipUntold)) {
                told = observed.by.iter().copied().collect();
            }
            let leader = leads.map(|(_, leader)| leader);
            for (connection, query) in told {
                let leader = leader.clone();
                self.messages.push_back((connection, LeaderMessage::Leads { query, leader }));
            }
        }
    }

    /// The leader of a name, if that is its election's.
    fn leads(&self, lock: LockKey) -> Option<(PackedId, PresentLeader)> {
        let lease = self.table.lock(lock).holding.as_ref()?.lease;
        let value = self.values.led.get(&lease)?.bytes.clone();
        let (token, _) = self.table.tokens(HoldKey::exclusive(lock));
        Some((lease, PresentLeader { token, value }))
    }
}
