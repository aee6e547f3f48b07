//! Rules for `at_least`, and for what an operator took away: checked from outside in true time, as
//! those of `rules` are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tierlock::{
    Token,
    proto::{
        LeaseId, RequestId,
        look::Phase,
        record::{Record, Reservation},
        wire::{ClientMessage, LeaderMessage},
    },
};

use crate::{
    clock::{MS, Truth, shown},
    leader::Host,
    restored::Branch,
    rules::Rule,
    world::World,
};

/// What the world knows of reservations and breaks.
#[derive(Default)]
pub(crate) struct Reserving {
    /// The last grant with `at_least` of each name of which its client has heard.
    promises: BTreeMap<usize, Promise>,
    /// Grants with `at_least` that were told: their names and tokens.
    told: BTreeMap<LeaseId, (usize, Token)>,
    /// Until when a reservation may run at the latest, once that is known.
    latest: BTreeMap<(usize, Token), Latest>,
    /// Leases of which the leader has read that they were given back unused.
    unused: BTreeSet<LeaseId>,
    /// What was to be broken, by connection and query.
    asked: BTreeMap<(usize, RequestId), (usize, Token)>,
    /// Leases with a break that was answered.
    broken: BTreeSet<LeaseId>,
}

/// No other request is granted the name before this is over.
#[derive(Clone, Copy)]
struct Promise {
    op: usize,
    token: Token,
    until: Truth,
    branch: Branch,
}

/// When a reservation ends at the latest, by the newest reign that counts it.
#[derive(Clone, Copy)]
struct Latest {
    /// The reading of a clock that it is counted from.
    from: Truth,
    until: Truth,
}

impl Reserving {
    /// A reign counts `left` from a reading of its clock. Turns come late: one that stood still behind its
    /// reading ends when later reigns have counted anew, and theirs is what holds.
    fn counts(&mut self, name: usize, token: Token, from: Truth, left: Duration) {
        let latest = Latest { from, until: end_of(from, left) };
        let counted = self.latest.entry((name, token)).or_insert(latest);
        if counted.from <= from {
            *counted = latest;
        }
    }

    fn latest(&self, name: usize, token: Token) -> Option<Truth> {
        self.latest.get(&(name, token)).map(|latest| latest.until)
    }
}

impl World {
    pub(crate) fn number_of(&self, name: &tierlock::Name) -> usize {
        self.names.iter().position(|own| own == name).expect("one of ours")
    }

    fn has_two_courses(&self) -> bool {
        self.past.branch == Branch::Restored
    }

    /// Its holder has heard of a grant: the promise counts from when that was told.
    pub(crate) fn heard_promise(&mut self, op: usize, lease: LeaseId, token: Token) {
        let state = &self.ops[op];
        let Some(at_least) = state.at_least else { return };
        let Some(made) = state.made.iter().rfind(|made| made.lease == lease) else { return };
        let (until, branch) = (made.at + at_least.as_nanos() as Truth, state.branch);
        let promise = Promise { op, token, until, branch };
        self.reserving.promises.insert(state.name, promise);
        self.tally.reservations += 1;
    }

    /// The name is granted, by the leader or out of a kept lease.
    pub(crate) fn check_promise(&mut self, name: usize, op: usize) {
        let Some(promise) = self.reserving.promises.get(&name) else { return };
        let is_of_now = promise.branch == self.past.branch && !self.has_two_courses();
        if promise.op != op && is_of_now && self.truth < promise.until {
            let text = format!(
                "{} is granted to client {} at {:?}, and was promised to client {} until {:?}",
                self.names[name],
                self.ops[op].client,
                shown(self.truth),
                self.ops[promise.op].client,
                shown(promise.until),
            );
            self.violate(Rule::AtLeast, text);
        }
    }

    /// A grant with `at_least` is told: its entry is durable.
    pub(crate) fn told_reserved(
        &mut self,
        host: &mut Host,
        op: usize,
        lease: LeaseId,
        first: Token,
    ) {
        let Some(at_least) = self.ops[op].at_least else { return };
        let name = self.ops[op].name;
        let entry = self.disk.known.reserved.get(&self.names[name]);
        if entry.is_none_or(|entry| entry.token != first) {
            let text =
                format!("{first} of {} is told, and its entry is {entry:?}", self.names[name]);
            return self.violate(Rule::Durable, text);
        }
        self.reserving.told.insert(lease, (name, first));
        host.undated.push((name, first, at_least, self.truth));
    }

    /// The leader has read its clock: what was told before counts from then at the latest, unless another
    /// reign's entry has counted since.
    pub(crate) fn date_told(&mut self, host: &mut Host) {
        let read_at = host.read_at;
        let is_deposed = !host.is_of(self.journal.reign_at(read_at));
        for (name, token, at_least, told) in std::mem::take(&mut host.undated) {
            if told < read_at {
                if !is_deposed {
                    self.reserving.counts(name, token, read_at, at_least);
                }
            } else {
                host.undated.push((name, token, at_least, told));
            }
        }
    }

    /// What the leader hands to the disk.
    pub(crate) fn check_entry(&mut self, host: &Host, record: &Record) {
        let Record::Reserved { name, reservation } = record else { return };
        let Reservation { token, left, .. } = *reservation;
        let name = self.number_of(name);
        if let Some(latest) = self.reserving.latest(name, token)
            && end_of(host.read_at, left) > latest + 2 * SLACK
            && !self.has_two_courses()
        {
            let text = format!(
                "at {:?} the entry of {token} says that {left:?} are left, and it ends at {:?}",
                shown(host.read_at),
                shown(latest)
            );
            self.violate(Rule::AtLeast, text);
        }
    }

    /// What is true whenever the leader has done what it had to do.
    pub(crate) fn check_reserved(&mut self, host: &mut Host) {
        let phase = host.leader.phase();
        if phase == Phase::Starting || phase == Phase::Over {
            return;
        }
        // What was left counts from the take-over.
        for (name, entry) in std::mem::take(&mut host.entries_before) {
            let name = self.number_of(&name);
            self.reserving.counts(name, entry.token, host.read_at, entry.left);
        }
        let reserved: Vec<_> =
            host.leader.reserved().map(|(name, token, ..)| (self.number_of(name), token)).collect();
        for (name, token) in reserved {
            let shown_name = self.names[name].clone();
            let is_told = self.reserving.told.values().any(|told| *told == (name, token));
            if token.epoch() > host.epoch_before && !is_told {
                let text = format!("{shown_name} is reserved for {token}, which was never told");
                self.violate(Rule::AtLeast, text);
            }
            if let Some(latest) = self.reserving.latest(name, token)
                && host.read_at > latest
                && !self.has_two_courses()
            {
                let text = format!(
                    "{shown_name} is reserved by {token} at {:?}, and that ended at {:?}",
                    shown(host.read_at),
                    shown(latest)
                );
                self.violate(Rule::AtLeast, text);
            }
        }
    }

    /// A request that waits though the name is reserved for it.
    pub(crate) fn told_to_wait(&mut self, host: &Host, wire: usize, request: RequestId) {
        let session = host.sessions.get(&wire).copied();
        let is_its_own =
            host.leader.reserved().any(|(_, _, of, own)| Some(of) == session && own == request);
        if is_its_own && host.leader.phase() == Phase::Open && self.past.branch == Branch::First {
            let text = format!("{request:?} is to wait for what is reserved for it");
            self.violate(Rule::AtLeast, text);
        }
    }

    /// Whether an `at_least` keeps this name taken.
    pub(crate) fn is_reserved(&self, host: &Host, name: usize) -> bool {
        host.leader.reserved().any(|(reserved, ..)| *reserved == self.names[name])
    }

    pub(crate) fn heard_of_reserved(&mut self, wire: usize, message: &ClientMessage) {
        match message {
            ClientMessage::Release { lease, last_used, .. } => {
                if let Some((_, first)) = self.reserving.told.get(lease)
                    && last_used < first
                {
                    self.reserving.unused.insert(*lease);
                }
            }
            ClientMessage::Break { query, name, token } => {
                let name = self.number_of(name);
                self.reserving.asked.insert((wire, *query), (name, *token));
                if let Some(promise) = self.reserving.promises.get(&name)
                    && promise.token == *token
                {
                    self.reserving.promises.remove(&name);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn said_of_reserved(&mut self, wire: usize, message: &LeaderMessage) {
        match *message {
            LeaderMessage::Released { lease } if self.reserving.unused.contains(&lease) => {
                let (name, token) = self.reserving.told[&lease];
                self.check_unreserved(name, token, "given back unused");
            }
            LeaderMessage::Broke { query, found: true } => {
                let Some(&(name, token)) = self.reserving.asked.get(&(wire, query)) else { return };
                self.check_unreserved(name, token, "broken");
                let made = self.ops.iter().filter(|op| op.name == name).flat_map(|op| &op.made);
                let leases = made.filter(|made| made.token == token).map(|made| made.lease);
                self.reserving.broken.extend(leases.collect::<Vec<_>>());
            }
            _ => {}
        }
    }

    /// It is answered: no entry of it is left for another reign to read.
    fn check_unreserved(&mut self, name: usize, token: Token, what: &str) {
        let entry = self.disk.known.reserved.get(&self.names[name]);
        if entry.is_some_and(|entry| entry.token == token) && !self.has_two_courses() {
            let text = format!("{token} of {} is {what}, and reserved", self.names[name]);
            self.violate(Rule::Durable, text);
        }
    }

    /// The leader welcomes a session that reported leases: lost ones are told before that.
    pub(crate) fn check_welcome(&mut self, host: &Host, wire: usize) {
        if self.past.branch > Branch::First {
            return; // leases may have two meanings
        }
        let Some(reported) = host.reported.get(&wire) else { return };
        if let Some(lease) = reported.iter().find(|lease| host.lost_known.contains(lease)) {
            let text = format!("{lease:?} was taken away, and its session is welcomed with it");
            return self.violate(Rule::Property, text);
        }
        if let Some(lease) = reported.iter().find(|lease| self.reserving.broken.contains(lease)) {
            let text = format!("the break of {lease:?} was answered, and it is confirmed again");
            self.violate(Rule::Durable, text);
        }
    }
}

/// When a leader that counts from `from` is through with it at the latest, however its clock runs.
fn end_of(from: Truth, at_least: Duration) -> Truth {
    let nanos = at_least.as_nanos() as Truth;
    from + nanos + nanos / 40 + SLACK
}

/// What a reading of a clock, and the rounding of what is written, may make of it.
const SLACK: Truth = 20 * MS;
