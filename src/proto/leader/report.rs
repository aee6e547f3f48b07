//! A connection's report: it counts only whole, and then it is the truth.
//!
//! Until it is whole it takes memory on the leader's account alone. So all unfinished ones
//! together weigh no more than a budget, whichever client sends them.

use std::{collections::BTreeMap, mem::size_of, time::Duration};

use super::{Arrival, Close, Connection, LeaderConfig, LeaderMachine};
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        ClientId, ClusterId, ConnectionId, LeaseId, Place, ProcessMark, Proof, RequestId,
        SessionId,
        history::{Attestation, Seen},
        lock::{HoldKey, PackedId, Recall, Right, SessionKey},
        mistake::{Mistake, planted},
        rights::ConnectedClient,
        sessions::{AskedTimeToLive, Session, Standing},
        shares::largest_share,
        wire::{
            self, Acquire, ClientMessage, HeldLease, Identity, LeaderMessage, Refusal,
            WaitingRequest,
        },
    },
    time::Time,
    token::Token,
};

/// What was reported so far.
pub(super) struct Report {
    version: u32,
    capabilities: u64,
    session: SessionId,
    proof: Proof,
    count: u64,
    cluster: Option<ClusterId>,
    seen: Option<Seen>,
    time_to_live: Duration,
    identity: Identity,
    process: ProcessMark,
    pub(super) held: BTreeMap<LeaseId, HeldLease>,
    waiting: BTreeMap<RequestId, Wish>,
    /// Requests beyond what any session may have.
    beyond: Vec<RequestId>,
    /// The bytes that all of this takes, counted high.
    pub(super) weight: usize,
}

impl Report {
    /// A report begins with `Hello`.
    pub(super) fn open(message: ClientMessage) -> Option<Box<Report>> {
        let ClientMessage::Hello {
            version,
            capabilities,
            session,
            proof,
            count,
            cluster,
            seen,
            time_to_live,
            identity,
            process,
        } = message
        else {
            return None;
        };
        Some(Box::new(Report {
            version,
            capabilities,
            session,
            proof,
            count,
            cluster,
            seen: seen.map(|seen| *seen),
            time_to_live,
            identity,
            process,
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            beyond: Vec::new(),
            weight: size_of::<Report>() + 3 * Identity::TEXT_BYTES_MAX,
        }))
    }

    /// What an operator is told of it.
    pub(super) fn note(&self, client: &ConnectedClient) -> (SessionId, Identity) {
        let label = client.label.as_ref().map(|label| self.identity.with_proved_label(&label.text));
        (self.session, label.unwrap_or_else(|| self.identity.clone()))
    }

    /// With the label that its client has proved, and the proof that a session of that label is known
    /// by.
    fn prove(&mut self, client: &ConnectedClient) {
        self.proof = client.bind(self.proof);
        self.identity = self.note(client).1;
    }

    /// Adds a part; answers whether the report is whole now.
    pub(super) fn add(
        &mut self,
        message: ClientMessage,
        config: &LeaderConfig,
    ) -> Result<bool, &'static str> {
        match message {
            ClientMessage::Held { leases } => {
                for held in leases {
                    PackedId::of_lease(held.lease).ok_or("no leader made such a lease")?;
                    if !held.mode.is_granted() {
                        return Err("no leader grants leases of this mode");
                    }
                    if held.weight_of_value() > wire::VALUE_BYTES_MAX {
                        return Err("no leader grants leases with such a value");
                    }
                    self.weight +=
                        weight_of::<(LeaseId, HeldLease)>(&held.name) + held.weight_of_value();
                    self.held.insert(held.lease, held);
                }
                if self.held.len() > most_held(config) {
                    return Err("a report of more leases than a session may have");
                }
            }
            ClientMessage::Waiting { requests } => {
                let most = most_waiting(config);
                for WaitingRequest { request, place, acquire } in requests {
                    if self.waiting.len() < most {
                        self.weight += weight_of::<(RequestId, Wish)>(&acquire.name)
                            + acquire.weight_of_extras();
                        self.waiting.insert(request, (acquire, place));
                    } else if self.beyond.len() < BEYOND_MAX {
                        self.weight += 2 * size_of::<RequestId>();
                        self.beyond.push(request);
                    } else {
                        return Err("a report without end");
                    }
                }
            }
            ClientMessage::Ready => return Ok(true),
            _ => return Err("something else within a report"),
        }
        Ok(false)
    }
}

/// What is waited for, at which place.
type Wish = (Acquire, Option<Place>);

/// A node of a map may be half empty, and a text has some words before it.
fn weight_of<T>(name: &Name) -> usize {
    2 * size_of::<T>() + name.len() + 32
}

/// What the reports weigh that are not whole yet.
#[derive(Default)]
pub(super) struct Unfinished {
    weights: BTreeMap<ConnectionId, usize>,
    total: usize,
}

impl Unfinished {
    fn set(&mut self, connection: ConnectionId, weight: usize) {
        let before = self.weights.insert(connection, weight).unwrap_or(0);
        self.total = self.total - before + weight;
    }

    /// The connection has no unfinished report any more, if it had one.
    pub(super) fn clear(&mut self, connection: ConnectionId) {
        self.total -= self.weights.remove(&connection).unwrap_or(0);
    }

    /// Which report is given up if all together weigh more than `most`: the heaviest, so that
    /// many small ones are never kept out by a few that are huge. Of several that are huge in
    /// good faith one has to get through, so the oldest is spared.
    fn excess(&self, most: usize) -> Option<ConnectionId> {
        let younger = self.weights.iter().skip(1).filter(|_| self.total > most);
        younger.max_by_key(|(_, weight)| **weight).map(|(&connection, _)| connection)
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total
    }
}

impl LeaderMachine {
    /// The unfinished report of this connection weighs so much by now.
    pub(super) fn weigh(&mut self, connection: ConnectionId, weight: usize) {
        self.unfinished.set(connection, weight);
        while let Some(excess) = self.unfinished.excess(unfinished_bytes_max(&self.config)) {
            self.close(excess, Close::Crowded);
        }
    }

    /// Acts on a whole report. The connection is `Sessionless` until something better is known.
    pub(super) fn believe(&mut self, connection: ConnectionId, mut report: Report, now: Time) {
        if let Some(client) = self.clients.get(&connection) {
            report.prove(client);
            self.proves_labels |= client.label.is_some();
        }
        if report.seen.is_some_and(|seen| seen.epoch > Token::MAX_EPOCH) {
            return self.close(connection, Close::Protocol("no such epoch"));
        }
        if report.version < wire::VERSION_OLDEST {
            return self.turn_away(connection, &report, Refusal::TooOld);
        }
        if report.cluster.is_some_and(|cluster| cluster != self.cluster) {
            return self.turn_away(connection, &report, Refusal::OtherCluster);
        }
        let other_history = self.of_another_history(report.seen);
        if let Some(why) = self.over {
            // Once shown the epoch of this history the client would forget what it has seen of the
            // other, and the next reign would not hear of that.
            return match other_history {
                Some(_) if self.reign.is_some() => self.lead_elsewhere(connection),
                _ => self.turn_away(connection, &report, why),
            };
        }
        if let Some(seen) = other_history {
            self.meet_history(seen.epoch, now);
            return self.lead_elsewhere(connection);
        }
        let Some(key) = self.session_of(connection, &report) else { return };
        let client = self.client_of(connection);
        let is_back = self.sessions.get(key).is_awaited();
        if is_back && self.brings_too_much(client, &report) {
            let what = "a report of more leases than one client can have been given";
            return self.close(connection, Close::Protocol(what));
        }
        if !self.reclaim(key, &report, now) {
            return self.send_away(connection, key);
        }
        self.sessions.belongs_to(key, client);
        self.reservations_belong_to(report.session, client);
        self.serve_session(connection, key, &report);
        if is_back {
            self.tell_returned(key, self.sessions.get(key).leases().len());
        }
        let found = self.compare_leases(key, &report);
        let told = if planted(Mistake::LossNotToldAgain) { &[] } else { &found.lost[..] };
        if planted(Mistake::WelcomeBeforeLost) {
            self.welcome_back(key, &report, now);
        }
        for &(lease, why) in told {
            // Before the welcome: what that promises is not for lost leases.
            self.tell(key, LeaderMessage::Lost { lease, why });
        }
        if !planted(Mistake::WelcomeBeforeLost) {
            self.welcome_back(key, &report, now);
        }
        let arrival = if is_back { Arrival::Returning } else { Arrival::New };
        self.compare_requests(key, (report.waiting, arrival), found, now);
        for request in report.beyond {
            self.refuse(key, request, Refusal::TooManyWaiters, None);
        }
    }

    /// The session that reports, new if it says so; `None` if the report does not count.
    fn session_of(&mut self, connection: ConnectionId, report: &Report) -> Option<SessionKey> {
        let Some(key) = self.sessions.find(report.session) else {
            // One that was here before, in this reign or another, is not made anew: it may
            // believe in leases that are another session's by now.
            let is_new = !self.sessions.was_told_gone(report.session);
            if is_new && report.count == 1 && report.held.is_empty() {
                let own_max = self.rights_of(connection)?.time_to_live_max();
                return Some(self.sessions.add(Session::new(
                    report.session,
                    report.proof,
                    AskedTimeToLive {
                        asked: report.time_to_live,
                        // So that a lease outlives a change of reign.
                        least: 4 * self.config.reign_lasts.unwrap_or_default(),
                        own_max,
                        max: self.config.time_to_live_max,
                    },
                    report.identity.clone(),
                    report.process,
                )));
            }
            self.tell_gone(connection, report.session);
            return None;
        };
        let session = self.sessions.get(key);
        if session.proof != report.proof {
            let what =
                "the proof is not this session's, or the session belongs to another credential";
            self.close(connection, Close::Protocol(what));
        } else if let Standing::Ending(_) = session.standing {
            self.tell_gone(connection, report.session);
        } else if report.count <= session.count && !planted(Mistake::NoConnectionCount) {
            self.close(connection, Close::Superseded);
        } else {
            return Some(key);
        }
        None
    }

    /// A session reported leases that it cannot have.
    fn send_away(&mut self, connection: ConnectionId, key: SessionKey) {
        match self.sessions.get(key).standing {
            // One that the journal does not know has nothing, and nothing need be written of it.
            Standing::New | Standing::Idling(_) => {
                let session = self.sessions.get(key).id;
                self.expire(key);
                self.tell_gone(connection, session);
            }
            _ => self.close(connection, Close::Unconfirmed),
        }
    }

    pub(super) fn tell_gone(&mut self, connection: ConnectionId, session: SessionId) {
        self.sessions.mark_gone(session);
        self.observers.forget(connection);
        self.connections.insert(connection, Connection::Sessionless);
        self.expect_report(connection);
        self.messages.push_back((connection, LeaderMessage::Gone { session }));
    }

    /// The connection is its session's newest: nothing an older one says counts any more.
    fn serve_session(&mut self, connection: ConnectionId, key: SessionKey, report: &Report) {
        let at = self.address_of(connection);
        let session = self.sessions.get_mut(key);
        session.count = report.count;
        // The journal does not identify it.
        session.capabilities = report.capabilities;
        session.at = at;
        (session.identity, session.process) = (report.identity.clone(), report.process);
        if let Some(older) = session.connection.replace(connection) {
            self.close(older, Close::Superseded);
        }
        self.connections.insert(connection, Connection::Serving(key));
        self.reports.clear(connection);
    }

    /// Shows which leader this is, promising nothing: the client sees for itself that it does not
    /// belong here. `Gone` would make it drop leases that its own leader keeps for it.
    fn turn_away(&mut self, connection: ConnectionId, report: &Report, why: Refusal) {
        self.tell_turned_away(connection, (report.session, &report.identity), why);
        self.connections.insert(connection, Connection::Refused(why));
        self.reports.clear(connection);
        if self.reign.is_some() {
            let card = self.welcome(report, Duration::ZERO, report.time_to_live / 3);
            self.messages.push_back((connection, card));
        }
        for &request in report.waiting.keys().chain(&report.beyond) {
            let refused = LeaderMessage::Refused { request, why, holder: None };
            self.messages.push_back((connection, refused));
        }
    }

    /// Tells a session that its report is believed, and what it is promised.
    fn welcome_back(&mut self, key: SessionKey, report: &Report, now: Time) {
        self.sessions.promise(key, now);
        let time_to_live = self.sessions.get(key).time_to_live;
        self.tell(key, self.welcome(report, time_to_live, self.sessions.quick_pace(key)));
    }

    fn welcome(
        &self,
        report: &Report,
        time_to_live: Duration,
        renew_every: Duration,
    ) -> LeaderMessage {
        LeaderMessage::Welcome {
            version: report.version.min(wire::VERSION),
            capabilities: report.capabilities & wire::CAPABILITIES,
            session: report.session,
            time_to_live,
            epoch: self.epoch(),
            reign: self.config.reign,
            cluster: self.cluster,
            members: self.config.members.clone(),
            renew_every,
            attestation: self.attest(self.epoch()),
        }
    }

    /// The code under this epoch of the reign.
    pub(super) fn attest(&self, epoch: u32) -> Attestation {
        self.config.notary.attest(self.cluster, epoch, self.config.reign)
    }

    /// The client knows of another history: it is not served before the epoch is above that.
    fn lead_elsewhere(&mut self, connection: ConnectionId) {
        self.connections.insert(connection, Connection::Sessionless);
        self.expect_report(connection);
        let (cluster, epoch) = (self.cluster, Some(self.epoch()));
        let answer = LeaderMessage::NotLeader { try_next: None, cluster, epoch };
        self.messages.push_back((connection, answer));
    }

    /// Releases what the report does not name, and answers what is to be said of the rest.
    fn compare_leases(&mut self, key: SessionKey, report: &Report) -> Comparison {
        let known = self.sessions.get(key).leases_in_order();
        let mut found = Comparison {
            lost: self.sessions.still_revoked(key, |lease| report.held.contains_key(&lease)),
            ..Comparison::default()
        };
        for (id, hold) in known {
            let (lock, holding) = (hold.lock, *self.holding(hold));
            let named = report.held.get(&id.lease());
            let unheard = named.is_none() && report.waiting.contains_key(&holding.request);
            if (named.is_some() || unheard) && !planted(Mistake::RecallLostInReconnect) {
                // If it was asked back, then on a connection that is no more.
                let is_kept = named.is_some_and(|held| held.kept);
                let recall = if is_kept { Recall::Kept } else { Recall::No };
                self.table.recalled(hold, recall);
                self.unsettled.push(lock);
            }
            if let Some(held) = named {
                self.lower_hold(hold, held.mode.permits());
                if matches!(holding.right, Right::Whole) {
                    self.is_reported_as(hold, held.mode, (held.first, held.last));
                }
            }
            match holding.right {
                Right::Whole if unheard && !self.is_reserved_with(lock, id) => {
                    found.granted.push((holding.request, hold));
                }
                _ if named.is_some() => {}
                _ if planted(Mistake::HelloNotAuthoritative) => {}
                _ => {
                    // It left without a word of how, or never entered: the next holder is told
                    // what this one was told.
                    if unheard {
                        self.was_not_heard(lock, id);
                    } else {
                        self.was_not_used(lock, id);
                    }
                    self.vacate(hold, None);
                    if unheard {
                        found.put_back.insert(holding.request, holding.place);
                    }
                }
            }
        }
        found
    }

    /// Whether a session that comes back brings more leases than its client can have been given,
    /// and more than any single session can.
    fn brings_too_much(&self, client: ClientId, report: &Report) -> bool {
        let all = self.sessions.holdings_of(client).claims + report.held.len();
        all > largest_share(self.config.claims_max).max(most_held(&self.config))
    }

    /// Drops what is not waited for any more, and answers every request that is.
    fn compare_requests(
        &mut self,
        key: SessionKey,
        (mut reported, arrival): (BTreeMap<RequestId, Wish>, Arrival),
        found: Comparison,
        now: Time,
    ) {
        let waiting: Vec<_> =
            self.sessions.get(key).waiting().iter().map(|(&r, &w)| (r, w)).collect();
        for (request, waiter) in waiting {
            if reported.remove(&request).is_some() {
                self.table.set_present(waiter, true);
                self.deadlocks.look_again(waiter);
                self.unsettled.push(self.table.waiter(waiter).lock);
                self.unacknowledged.push((key, request));
                if planted(Mistake::ReportAnsweredEarly) {
                    self.answer_early(key, request);
                }
            } else {
                self.drop_waiter(waiter);
            }
        }
        for (request, hold) in found.granted {
            reported.remove(&request);
            let at_most = self.ends.get(hold).map(|end| end.since(now));
            self.tell_granted(hold, at_most);
        }
        let mut wanted = Vec::new();
        for (request, (acquire, place)) in reported {
            let place = place.filter(|_| !planted(Mistake::PlaceForgotten));
            let place = place.and_then(|place| self.given_place(place));
            let came = match found.put_back.get(&request) {
                Some(&place) => (Some(place), Arrival::PutBack),
                None => (place, arrival),
            };
            wanted.push((request, acquire, came));
        }
        // What was accepted before comes before what may be new, as long as there is room.
        wanted.sort_by_key(|(_, _, (place, _))| place.is_none());
        for (request, acquire, came) in wanted {
            self.want(key, request, acquire, came, now);
        }
    }

    /// A reported place, if this or an earlier reign can have given it.
    fn given_place(&self, place: Place) -> Option<PackedId> {
        let last = Place { epoch: self.epoch(), count: self.places_given };
        PackedId::of_place(place).filter(|_| place <= last)
    }
}

/// What a report says about what the leader knows.
#[derive(Default)]
struct Comparison {
    /// To be told as lost before anything else.
    lost: Vec<(LeaseId, LostReason)>,
    /// Granted without the session having heard of it.
    granted: Vec<(RequestId, HoldKey)>,
    /// Lost before the session had heard of the grant: back to where they stood.
    put_back: BTreeMap<RequestId, PackedId>,
}

/// How many leases a session can believe in, or wait to have given back: it may have been granted
/// as many again without having heard that it is rid of the first.
fn most_held(config: &LeaderConfig) -> usize {
    config.leases_per_session_max.saturating_mul(2)
}

/// How many requests a session can have waiting in its own eyes: it may not have heard of any of
/// its grants.
pub(super) fn most_waiting(config: &LeaderConfig) -> usize {
    config.leases_per_session_max.saturating_add(config.waiters_per_session_max)
}

/// What all unfinished reports may weigh together. One alone may weigh more: no limit keeps a
/// session out that comes back with what it was given.
pub(super) fn unfinished_bytes_max(config: &LeaderConfig) -> usize {
    config.claims_max.saturating_mul(REPORT_BYTES_PER_CLAIM).max(REPORT_BYTES_MIN)
}

/// Reports are whole within milliseconds, so that few of them are under way at any moment.
const REPORT_BYTES_PER_CLAIM: usize = 128;

/// So much there is in any case.
const REPORT_BYTES_MIN: usize = 1 << 20;

/// How many requests beyond that are refused one by one.
const BEYOND_MAX: usize = 1 << 18;
