//! Observers of an election: what a leader tells them, and what they hear of it over connections and
//! reigns.
//!
//! Which worlds have them is drawn from dice of their own: all others have the course that they had
//! without. In those the first name is an election as well: a holder that locks it alone says which operation
//! of the world that is, and every client observes it from its start on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tierlock::{
    Token,
    proto::{
        ConnectionId, RequestId,
        look::{AtLeader, Phase},
        wire::{ClientMessage, LeaderMessage, Mode, PresentLeader},
    },
};

use crate::{
    dice::Dice,
    leader::Host,
    rules::Rule,
    world::{Plan, World},
};

/// The name that is an election.
const ELECTION: usize = 0;

/// What a world's observers see.
pub(crate) struct Observing {
    is_on: bool,
    /// The operations that say a value.
    stated: BTreeSet<usize>,
    /// What each client asked as, by its life.
    asked: BTreeMap<(usize, u32), RequestId>,
    /// The token that each of them heard of last, and the highest.
    heard: BTreeMap<(usize, u32), HeardOfLeaders>,
    /// Which connections have asked this reign, and what they were told last.
    told: BTreeMap<usize, Option<Option<usize>>>,
}

/// The token of the last leader, or that there was none, once anything was heard; the highest token.
type HeardOfLeaders = (Option<Option<Token>>, Token);

impl Observing {
    pub(crate) fn new(seed: u64, plan: &Plan) -> Observing {
        let mut dice = Dice::new(seed ^ 0x0B5E_4E45_0B5E_4E45);
        Observing {
            is_on: dice.percent(30) && !plan.restores,
            stated: BTreeSet::new(),
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }
}

/// Whether it is said to or by observers alone: what those say meets no case of its own.
pub(crate) fn is_of_observer(message: &ClientMessage) -> bool {
    matches!(message, ClientMessage::Observe { .. } | ClientMessage::StopObserving { .. })
}

impl World {
    /// What a holder of the name says of itself.
    pub(crate) fn said_value(&mut self, op: usize) -> Option<Arc<[u8]>> {
        let state = &self.ops[op];
        let leads = self.observing.is_on && state.name == ELECTION && state.mode == Mode::Exclusive;
        leads.then(|| {
            self.observing.stated.insert(op);
            Arc::from((op as u64).to_le_bytes())
        })
    }

    /// A client observes from now on.
    pub(crate) fn begins_to_observe(&mut self, client: usize) {
        if !self.observing.is_on {
            return;
        }
        let name = self.names[ELECTION].clone();
        let query = self.call(client, |client, now| client.observe_leader(name, None, now));
        if let Some(query) = query {
            let key = (client, self.lives[client]);
            self.observing.asked.insert(key, query);
            self.observing.heard.remove(&key);
        }
        self.after_call(client);
    }

    /// An observation has ended: no leader has answered in time. It begins anew.
    pub(crate) fn observation_failed(&mut self, client: usize, query: RequestId) {
        let is_its = self.observing.asked.get(&(client, self.lives[client])) == Some(&query);
        let is_open = self.managers[client].as_ref().is_some_and(|manager| !manager.closing);
        if is_its && is_open {
            self.begins_to_observe(client);
        }
    }

    /// A client hears which candidate leads: never one twice in a row, and none that led before the last.
    pub(crate) fn heard_leads(&mut self, client: usize, leader: Option<PresentLeader>) {
        let key = (client, self.lives[client]);
        let token = leader.as_ref().map(|leader| leader.token);
        let (last, highest) = *self.observing.heard.entry(key).or_insert((None, Token::ZERO));
        self.tally.told_observers += 1;
        if last == Some(token) {
            self.violate(Rule::Property, format!("client {client} is told {leader:?} twice"));
        }
        if token.is_some_and(|token| token <= highest) {
            let text = format!("client {client} is told {leader:?} after one with {highest}");
            self.violate(Rule::Property, text);
        }
        self.observing.heard.insert(key, (Some(token), token.unwrap_or(highest)));
    }

    pub(crate) fn heard_of_observers(&mut self, wire: usize, message: &ClientMessage) {
        match message {
            // What came before it on this connection was of a session that is gone, and was not heard.
            ClientMessage::Hello { .. } => drop(self.observing.told.remove(&wire)),
            ClientMessage::Observe { .. } => drop(self.observing.told.insert(wire, None)),
            _ => {}
        }
    }

    pub(crate) fn said_to_observers(&mut self, wire: usize, message: &LeaderMessage) {
        let LeaderMessage::Leads { leader, .. } = message else { return };
        let op = leader.as_ref().map(op_of);
        if let (Some(op), Some(leader)) = (op, leader) {
            let is_granted = self.ops[op].made.iter().any(|made| made.token == leader.token);
            if self.ops[op].name != ELECTION || !is_granted {
                self.violate(Rule::Property, format!("{leader:?} leads and was never granted"));
            }
        }
        self.observing.told.insert(wire, Some(op));
    }

    /// After each turn of a leader past its grace: each that observes has been told the present
    /// leader, or that there is none.
    pub(crate) fn check_observers(&mut self, host: &Host) {
        if !self.observing.is_on || host.leader.phase() != Phase::Open {
            return;
        }
        let of_name = host.leader.locks().find(|(name, _, _)| **name == self.names[ELECTION]);
        let leases: BTreeSet<_> = of_name.into_iter().flat_map(|(_, leases, _)| leases).collect();
        let leads = self.observing.stated.iter().rev().copied().find(|&op| {
            let made = self.ops[op].made.last();
            made.is_some_and(|made| leases.contains(&made.lease))
        });
        let is_served = |wire: usize| {
            let state = host.leader.connection_state(ConnectionId(wire as u64));
            matches!(
                state,
                AtLeader::ServingNew
                    | AtLeader::ServingOpening
                    | AtLeader::ServingOpen
                    | AtLeader::ServingIdling
            )
        };
        let reign = Some(self.reign);
        let untold = self.observing.told.iter().find(|&(&wire, told)| {
            self.wires[wire].reign == reign && is_served(wire) && *told != Some(leads)
        });
        if let Some((&wire, told)) = untold {
            let text = format!("{} was told {told:?}, and {leads:?} leads", self.wire_shown(wire));
            self.violate(Rule::Property, text);
        }
    }
}

fn op_of(leader: &PresentLeader) -> usize {
    let bytes = leader.value[..].try_into().expect("users say numbers");
    u64::from_le_bytes(bytes) as usize
}
