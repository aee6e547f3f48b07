//! The leader: which session holds and which waits, and until when.
//!
//! A new one keeps the promises of the reigns before it (see `reclaim`): it begins with what the
//! journal recovered, lets the sessions of that come back, and grants nothing new before they have
//! or have run out.
//!
//! All times in here are *attended* ones (see `attended`): a leader that was itself late
//! stops the clock by which it expires others. Every handler ends in `settle`, the one place
//! where a free lock finds its next holder.

mod attended;
#[cfg(feature = "testing")]
mod look;
mod questions;
mod raising;
mod reclaim;
mod report;
mod reserve;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use self::{
    attended::Attended,
    raising::{OtherHistory, Raises},
    report::{Report, Unfinished},
    reserve::Reservations,
};
use super::{
    ClientId, ConnectionId, LeaseId, ProcessMark, ReignId, RequestId, TIME_TO_LIVE, count_long,
    history::{History, Notary, TrustingNotary},
    lock::{
        HoldKey, Holding, LockKey, PackedId, Patience, Recall, Right, SessionKey, Waiter, WaiterKey,
    },
    mistake::{Mistake, planted},
    numbered::Numbered,
    record::{
        Allows, Committed, DurableEpoch, Pending, Record, Recovered, Reserved, TakenAway, Unwritten,
    },
    sessions::{Sessions, Standing},
    shares::{Shares, has_share, largest_share},
    table::{Next, Table},
    timers::Timers,
    wire::{
        Acquire, ClientMessage, HolderInfo, LeaderMessage, Mode, NameUse, Refusal, SHARES, Wait,
    },
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::{AT_LEAST_MAX, Time},
    token::Token,
};

/// What a leader accepts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest time to live it accepts (at most 60 s).
    pub time_to_live_max: Duration,
    pub sessions_max: usize,
    pub leases_per_session_max: usize,
    pub waiters_per_session_max: usize,
    /// How many tokens at once a lease gets that may be kept.
    pub block: u32,
    /// How many leases, waiters and running `at_least` all clients have together. Each takes up to
    /// 700 bytes, with the longest of names.
    pub claims_max: usize,
    /// How many names `at_least` keeps taken at a time, for all clients together.
    pub reservations_max: usize,
    /// Start above this epoch, granting nothing for 60 s × 1.01 (`serve --epoch-above`).
    pub epoch_above: Option<u32>,
    /// For how long its reign is believed without proof, if another leader may follow it.
    pub reign_lasts: Option<Duration>,
    /// The process that it runs in, if that may have sessions with it and takes the state
    /// directory's lock with it when it dies: such sessions are known dead by the next reign.
    pub process: Option<ProcessMark>,
    /// Drawn at random at the leader's start, for this reign and no other.
    pub reign: ReignId,
    /// Vouches for what clients are told of this history, so that they cannot make it up.
    pub notary: Arc<dyn Notary>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            time_to_live_max: *TIME_TO_LIVE.end(),
            sessions_max: 10_000,
            leases_per_session_max: 65_536,
            waiters_per_session_max: 65_536,
            claims_max: 1 << 21,
            reservations_max: 65_536,
            block: BLOCK,
            epoch_above: None,
            reign_lasts: None,
            process: None,
            reign: ReignId(0),
            notary: Arc::new(TrustingNotary),
        }
    }
}

/// Why the driver is to close a connection, told to the peer as the close reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// A newer connection of the same session took over.
    Superseded,
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// Said goodbye, or was ended.
    Ended,
    /// Its report was one of the heaviest of too many that were unfinished. It may come again, and
    /// by then there may be room.
    Crowded,
    /// It reported leases that it cannot have. Its next report will be told so, since then that
    /// is durable.
    Unconfirmed,
    /// Another leader reigns, or this one is about to: the client is to look for it.
    NotLeader,
}

/// Things the driver writes to its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An alarm: a client has seen a later epoch of this cluster, or one of this leader's history
    /// in the reign of another. This state is a copy, or one that was restored from a copy.
    OtherHistory {
        seen: u32,
        own: u32,
        /// For how long nothing new is granted to any client.
        pauses: Duration,
        /// The epoch that this leader takes then, if its bound on raises allows it soon.
        takes: Option<u32>,
    },
    /// An alarm: two sessions reported that they hold this name. The higher token has won.
    Conflict { name: Name, winner: Token, loser: Token },
}

/// Tokens of one block: local locks at full speed use it up in some 50 ms.
pub const BLOCK: u32 = 1 << 20;

pub struct Leader {
    config: Config,
    cluster: super::ClusterId,
    /// The durable epoch; `None` until the first is.
    reign: Option<DurableEpoch>,
    /// The highest epoch on its way to the disk or there.
    epoch_asked: u32,
    raises: Raises,
    /// When the reign was durable.
    began: Time,
    /// What clients have told of another history of this cluster, until its epochs are exceeded.
    other_history: Option<OtherHistory>,
    /// The highest token that this reign has given.
    given: Token,
    /// The reign has ended, and this is what requests are told.
    over: Option<Refusal>,
    clock: Attended,
    /// The highest epoch that an earlier reign can have granted in.
    epoch_before: u32,
    /// The reigns of the epochs, up to this one.
    history: History,
    /// Nothing new is granted, since a session of an earlier reign may hold it.
    in_grace: bool,
    /// Grace lasts until then in any case, for clients that the journal does not know.
    waits_until: Option<Time>,
    sessions: Sessions,
    table: Table,
    connections: Numbered<ConnectionId, Connection>,
    /// The clients of all of them, and of those that are to be closed.
    clients: Numbered<ConnectionId, ClientId>,
    /// Until when connections without a whole report are borne.
    reports: Timers<ConnectionId>,
    unfinished: Unfinished,
    /// What came before the reign was durable, to be read then.
    early: VecDeque<(ConnectionId, ClientMessage)>,
    early_shares: Shares,
    /// Until when waiters wait.
    limits: Timers<WaiterKey>,
    /// When a lease reaches its `at_most`, or when a lost one is past its last promise.
    ends: Timers<HoldKey>,
    /// Until when a lock is not granted that two said they hold.
    disputes: Timers<LockKey>,
    reservations: Reservations,
    /// Which sessions are to be told once the loss of a lease is durable.
    breakers: questions::Breakers,
    questions: questions::Questions,
    /// How many reported leases are on their way to the disk as ones that no session can have.
    refused_claims: usize,
    leases_made: u64,
    places_given: u64,
    /// Locks that may find a new holder or be forgotten.
    unsettled: Vec<LockKey>,
    /// Locks with a next grant that needs a higher epoch, which is on its way to the disk.
    awaiting_epoch: BTreeSet<LockKey>,
    /// Requests that are told their place, unless they are granted first.
    unacknowledged: Vec<(SessionKey, RequestId)>,
    last_record: u64,
    last_committed: u64,
    messages: VecDeque<(ConnectionId, LeaderMessage)>,
    closes: VecDeque<(ConnectionId, Close)>,
    records: VecDeque<Pending>,
    notices: VecDeque<Notice>,
}

/// How far a connection has come. One that is to be closed is none any more.
enum Connection {
    /// It said nothing yet.
    New,
    /// Its report is not whole yet.
    Reporting(Box<Report>),
    /// It is its session's newest.
    Serving(SessionKey),
    /// Its session is gone; the next thing that counts is a new `Hello`.
    Dismissed,
    /// Client and leader do not belong together: it was told which leader this is, and no more.
    Refused(Refusal),
}

/// How a request comes to the leader, which says what limits it is held to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// This reign has not seen it, and none before it that counts.
    New,
    /// A session brings it back that an earlier reign opened.
    Returning,
    /// This reign granted it and took the lease away again, unheard.
    PutBack,
}

/// What stands between a free lock and its first waiter.
enum Verdict {
    /// Nothing.
    Granted(PackedId, Token),
    /// Something that is to be durable first, or to end.
    Waits,
    /// This epoch is to be durable first.
    NeedsEpoch(u32),
    /// The same, because of an `above` that no token of this reign explains.
    NeedsRaise(u32),
    Refused(Refusal),
    /// Its session has run out.
    Expired,
}

impl Leader {
    /// A new reign over what the journal recovered. The first record it asks for is its `TookOver`.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Leader {
        let before = (recovered.epoch, recovered.waits_for);
        let took_over = Record::take_over(before, config.reign, config.epoch_above);
        let waits_for = match took_over {
            Some(Record::TookOver { waits_for, .. }) => waits_for,
            _ => None,
        };
        let epoch_before = recovered.epoch.max(config.epoch_above.unwrap_or(0));
        let mut leader = Leader {
            reign: None,
            epoch_asked: epoch_before,
            raises: Raises::default(),
            began: now,
            other_history: None,
            given: Token::ZERO,
            table: Table::new(config.block),
            sessions: Sessions::new(config.reign_lasts.map(|lasts| lasts / 4)),
            config,
            cluster: recovered.cluster,
            over: None,
            clock: Attended::new(now),
            epoch_before,
            history: recovered.history.clone(),
            in_grace: true,
            waits_until: waits_for.map(|waits_for| now + count_long(waits_for)),
            connections: Numbered::default(),
            clients: Numbered::default(),
            reports: Timers::new(),
            unfinished: Unfinished::default(),
            early: VecDeque::new(),
            early_shares: Shares::new(EARLY_MAX),
            limits: Timers::new(),
            ends: Timers::new(),
            disputes: Timers::new(),
            reservations: Reservations::new(),
            breakers: questions::Breakers::default(),
            questions: questions::Questions::default(),
            refused_claims: 0,
            leases_made: 0,
            places_given: 0,
            unsettled: Vec::new(),
            awaiting_epoch: BTreeSet::new(),
            unacknowledged: Vec::new(),
            last_record: 0,
            last_committed: 0,
            messages: VecDeque::new(),
            closes: VecDeque::new(),
            records: VecDeque::new(),
            notices: VecDeque::new(),
        };
        if let Some(record @ Record::TookOver { epoch, reign, starts_above, .. }) = took_over {
            leader.epoch_asked = epoch;
            leader.history.begin(epoch, reign, starts_above);
            leader.write(record.clone());
            leader.take_over(&recovered);
            leader.take_over_reservations(&recovered);
            if planted(Mistake::ReignNotDurable) {
                leader.handle_committed(Committed { number: 1, record }, now);
                leader.last_committed = 0;
            }
        } else {
            leader.over = Some(Refusal::Tokens);
        }
        leader
    }

    /// Every event begins with this. Answers the attended time.
    fn attend(&mut self, now: Time) -> Time {
        let now = self.clock.attend(now);
        self.date_reservations();
        now
    }

    /// For so long before `now` the reign was not proven and nothing was handed over: every deadline
    /// moves by that.
    pub fn handle_lapse(&mut self, lapsed: Duration, now: Time) {
        self.clock.skip(lapsed, now);
    }

    /// A connection of this client is there.
    pub fn handle_connected(&mut self, connection: ConnectionId, client: ClientId, now: Time) {
        self.attend(now);
        let before = self.connections.insert(connection, Connection::New);
        assert!(before.is_none(), "a connection's number is used once");
        self.clients.insert(connection, client);
        self.expect_report(connection);
    }

    pub fn handle_message(&mut self, connection: ConnectionId, message: ClientMessage, now: Time) {
        let now = self.attend(now);
        if self.reign.is_some() || self.over.is_some() {
            self.read(connection, message, now);
            self.settle(now);
        } else if self.early_shares.has_room_for(self.client_of(connection)) {
            self.early_shares.take(self.client_of(connection));
            self.early.push_back((connection, message));
        } else {
            self.close(connection, Close::Protocol("too much before the reign began"));
        }
    }

    pub fn handle_disconnected(&mut self, connection: ConnectionId, now: Time) {
        let now = self.attend(now);
        self.reports.clear(connection);
        self.unfinished.clear(connection);
        self.clients.remove(&connection);
        if let Some(Connection::Serving(key)) = self.connections.remove(&connection) {
            if planted(Mistake::CloseIsGoodbye) {
                self.vacate_all(key, Predecessor::Clean);
            }
            self.fall_silent(key);
        }
        self.settle(now);
    }

    pub fn handle_committed(&mut self, committed: Committed, now: Time) {
        let now = self.attend(now);
        assert!(committed.number > self.last_committed, "records are committed in their order");
        self.last_committed = committed.number;
        if self.over.is_some() {
            return;
        }
        match committed.allows() {
            Allows::Reigning(reign) => self.begin_reign(reign, now),
            Allows::Nothing => {}
            Allows::Granting { session, number, opened } => {
                if let Some(key) = self.sessions.find(session)
                    && matches!(self.sessions.get(key).standing, Standing::Opening(n) if n == number)
                {
                    self.sessions.stand(key, Standing::Open(opened));
                    self.unsettle_waiting(key);
                }
            }
            Allows::Freeing { session, number, proof } => {
                if let Some(key) = self.sessions.find(session) {
                    match self.sessions.get(key).standing {
                        Standing::Ending(n) if n == number => self.bury(key, proof),
                        Standing::Idling(n) if n == number => self.forget_idle(key),
                        _ => {} // it wanted something meanwhile, and is opened again
                    }
                }
            }
            Allows::Telling { session, lease, why, proof } => {
                self.refused_claims -= usize::from(why == LostReason::Forgotten);
                if let Some(key) = self.sessions.find(session) {
                    self.lease_is_lost(key, lease, why, proof);
                }
                self.answer_breakers(lease);
            }
            Allows::TellingReserved { name, number, proof } => {
                if let Some(lock) = self.table.find(&name) {
                    self.entry_is_durable(lock, number, proof, now);
                    self.unsettled.push(lock);
                }
            }
            Allows::Unreserving { number } => self.deletion_is_durable(number),
        }
        self.settle(now);
    }

    /// The journal has no room for what a client adds: what waits for it is refused, and the reign
    /// goes on.
    pub fn handle_unwritten(&mut self, unwritten: Unwritten, now: Time) {
        let now = self.attend(now);
        let Unwritten { number, record } = unwritten;
        assert!(number > self.last_committed, "records are answered in their order");
        self.last_committed = number;
        if self.over.is_some() {
            return;
        }
        match record {
            Record::SessionOpened { session, .. } => {
                if let Some(key) = self.sessions.find(session)
                    && matches!(self.sessions.get(key).standing, Standing::Opening(n) if n == number)
                {
                    self.opening_is_unwritten(key, now);
                }
            }
            Record::Reserved { name, .. } => {
                if let Some(lock) = self.table.find(&name) {
                    self.entry_is_unwritten(lock, number, now);
                }
            }
            other => unreachable!("a journal writes this or fails: {other:?}"),
        }
        self.settle(now);
    }

    fn opening_is_unwritten(&mut self, key: SessionKey, now: Time) {
        let waiters: Vec<_> = self.sessions.get(key).waiting().values().copied().collect();
        for waiter in waiters {
            self.refuse_waiter(waiter, Refusal::DiskFull, now);
        }
        self.sessions.stand(key, Standing::New);
        if self.sessions.get(key).connection.is_none() {
            self.sessions.remove(key);
        }
    }

    /// The journal failed: the reign is over; nothing is granted, renewed or expired any more.
    pub fn handle_storage_failed(&mut self, now: Time) {
        let now = self.attend(now);
        self.end_reign(Refusal::Storage);
        self.read_early(now);
    }

    pub fn handle_timeout(&mut self, now: Time) {
        let now = self.attend(now);
        if self.over.is_some() {
            return;
        }
        while let Some(key) = self.sessions.pop_expired(now) {
            self.expire(key);
        }
        while let Some(waiter) = self.limits.pop_due(now) {
            let Waiter { lock, patience, since, session, request, mode, .. } =
                *self.table.waiter(waiter);
            let is_short = now.since(since) < RECALL_LIMIT;
            match patience {
                // It may be free: a short wait gets a free lock as one that only tries does.
                Patience::Some
                    if is_short && !self.is_surely_held(lock, mode, Some((session, request))) =>
                {
                    self.table.lose_patience(waiter);
                    self.limits.set(waiter, now + RECALL_LIMIT);
                }
                Patience::Some => self.refuse_waiter(waiter, Refusal::TimedOut, now),
                Patience::None if self.is_passed_over(waiter) => {
                    self.refuse_waiter(waiter, Refusal::WouldBlock, now)
                }
                // No session has it: it waits for the disk, or for the end of grace.
                Patience::None => self.limits.set(waiter, now + RECALL_LIMIT),
            }
        }
        while let Some(hold) = self.ends.pop_due(now) {
            self.end_hold(hold);
        }
        while self.reign.is_some()
            && let Some(connection) = self.reports.pop_due(now)
        {
            self.close(connection, Close::Protocol("it did not report in time"));
        }
        while let Some(lock) = self.disputes.pop_due(now) {
            self.unsettled.push(lock);
        }
        if self.reign.is_some() && self.waits_until.is_some_and(|until| until <= now) {
            self.waits_until = None;
            self.write(Record::Waited);
        }
        if self.reign.is_some() {
            self.look_at_reservations();
        }
        self.settle(now);
    }

    pub fn poll_message(&mut self) -> Option<(ConnectionId, LeaderMessage)> {
        let message = self.messages.pop_front();
        if message.is_none() {
            self.reservations.messages_are_taken(self.clock.raw());
        }
        message
    }

    pub fn poll_close(&mut self) -> Option<(ConnectionId, Close)> {
        self.closes.pop_front()
    }

    pub fn poll_record(&mut self) -> Option<Pending> {
        self.records.pop_front()
    }

    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When `handle_timeout` is next due. Never more than 100 ms after the last event, so that
    /// the leader can tell its own lateness; `None` while nothing has a deadline.
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.over.is_some() {
            return None;
        }
        let with_reign = [self.waits_until, self.reports.next()];
        let [waits_until, report] = with_reign.map(|at| at.filter(|_| self.reign.is_some()));
        let others =
            [self.limits.next(), self.ends.next(), self.disputes.next(), self.next_raise()];
        [self.sessions.next_deadline(), waits_until, report]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
            .map(|due| self.clock.wake_at(due))
            .into_iter()
            .chain(self.wake_for_reservations())
            .chain(self.reservations.wants_a_time())
            .min()
    }
}

// What a connection says.
impl Leader {
    fn read(&mut self, connection: ConnectionId, message: ClientMessage, now: Time) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        match state {
            Connection::New => match Report::open(message) {
                Some(report) if planted(Mistake::HelloCountsAlone) => {
                    *state = Connection::Dismissed;
                    self.believe(connection, *report, now);
                }
                Some(report) => {
                    let weight = report.weight;
                    *state = Connection::Reporting(report);
                    self.weigh(connection, weight);
                }
                None => self.close(connection, Close::Protocol("the first frame is no Hello")),
            },
            Connection::Dismissed => {
                // Anything else was said to the session that is gone.
                if let Some(report) = Report::open(message) {
                    let weight = report.weight;
                    *state = Connection::Reporting(report);
                    self.weigh(connection, weight);
                }
            }
            Connection::Reporting(report) => match report.add(message, &self.config) {
                Ok(false) => {
                    let weight = report.weight;
                    self.weigh(connection, weight);
                }
                Ok(true) => {
                    let Connection::Reporting(report) =
                        std::mem::replace(state, Connection::Dismissed)
                    else {
                        unreachable!("it is reporting")
                    };
                    self.unfinished.clear(connection);
                    self.believe(connection, *report, now);
                }
                Err(what) => self.close(connection, Close::Protocol(what)),
            },
            Connection::Serving(key) => {
                let key = *key;
                self.serve(connection, key, message, now);
            }
            Connection::Refused(why) => {
                let why = *why;
                self.refuse_outsider(connection, message, why);
            }
        }
    }

    /// The client that a connection is of. One that has ended is of none that has anything.
    fn client_of(&self, connection: ConnectionId) -> ClientId {
        self.clients.get(&connection).copied().unwrap_or(ClientId(0))
    }

    /// From now on it has a while to report.
    fn expect_report(&mut self, connection: ConnectionId) {
        self.reports.set(connection, self.clock.now() + REPORT_LIMIT);
    }

    fn serve(
        &mut self,
        connection: ConnectionId,
        key: SessionKey,
        message: ClientMessage,
        now: Time,
    ) {
        match message {
            ClientMessage::Acquire { request, acquire } => {
                // One that was read already: it waits, or its answer is on its way.
                if request > self.sessions.get(key).last_request {
                    self.want(key, request, acquire, (None, Arrival::New), now);
                }
            }
            ClientMessage::Cancel { request } => {
                if let Some(&waiter) = self.sessions.get(key).waiting().get(&request)
                    && !planted(Mistake::LostCancel)
                {
                    self.drop_waiter(waiter);
                } else if let Some(lock) = self.request_is_over(key, request) {
                    // What crosses this is handed straight back.
                    self.vacate(HoldKey::exclusive(lock), None);
                }
            }
            ClientMessage::Release { lease, last_used, how } => {
                self.release(key, lease, last_used, how);
            }
            ClientMessage::Use { lease, kept } => self.is_used(key, lease, kept),
            ClientMessage::TopUp { lease } => self.top_up(key, lease),
            ClientMessage::Lower { lease, count } => self.lower(key, lease, count),
            ClientMessage::Renew { sent_at } => self.renew(key, sent_at, now),
            ClientMessage::Goodbye => self.goodbye(connection, key),
            ClientMessage::Check { query, name, token } => {
                self.check(connection, query, name, token, now);
            }
            ClientMessage::List { query, after, limit } => {
                self.list(connection, query, after, limit, now);
            }
            ClientMessage::Break { query, name, token } => {
                self.break_lock(connection, key, query, name, token);
            }
            ClientMessage::Held { .. } | ClientMessage::Waiting { .. } | ClientMessage::Ready
                if planted(Mistake::HelloCountsAlone) => {}
            ClientMessage::Hello { .. }
            | ClientMessage::Held { .. }
            | ClientMessage::Waiting { .. }
            | ClientMessage::Ready => {
                self.close(connection, Close::Protocol("a second report on one connection"));
                self.fall_silent(key);
            }
        }
    }

    fn refuse_outsider(&mut self, connection: ConnectionId, message: ClientMessage, why: Refusal) {
        let answer = match message {
            ClientMessage::Acquire { request, .. } => {
                LeaderMessage::Refused { request, why, holder: None }
            }
            ClientMessage::Check { query, .. } => LeaderMessage::Checked { query, good: false },
            ClientMessage::Release { lease, .. } => LeaderMessage::Released { lease },
            _ => return,
        };
        self.messages.push_back((connection, answer));
    }
}

// Requests.
impl Leader {
    /// A session wants a lock. `place` is the one it was told before, by its own word, if it was;
    /// it gives order and no exemption from limits.
    fn want(
        &mut self,
        key: SessionKey,
        request: RequestId,
        acquire: Acquire,
        (place, arrival): (Option<PackedId>, Arrival),
        now: Time,
    ) {
        let session = self.sessions.get_mut(key);
        session.last_request = session.last_request.max(request);
        if let Some(why) = self.why_refused(key, &acquire, arrival) {
            return self.refuse(key, request, why, None);
        }
        let after = acquire.extras.as_deref().and_then(|extras| extras.after);
        if after.is_some_and(|after| self.is_not_had(key, after)) {
            return self.refuse(key, request, Refusal::WouldBlock, None);
        }
        let lock = self.table.find_or_add(acquire.name);
        let mode = acquire.mode;
        match self.table.name_use(lock) {
            Some(in_force)
                if in_force != mode.name_use() && !planted(Mistake::LimitNotCompared) =>
            {
                let holder = self.holder(lock, now);
                let why = self.used_as(key, in_force);
                return self.refuse(key, request, why, holder);
            }
            Some(_) => {}
            None => self.table.use_as(lock, mode),
        }
        if acquire.wait == Wait::No && self.is_surely_held(lock, mode, Some((key, request))) {
            let holder = self.holder(lock, now);
            return self.refuse(key, request, Refusal::WouldBlock, holder);
        }
        self.open(key);
        let is_new = place.is_none();
        let place = place.unwrap_or_else(|| self.next_place());
        let waiter = Waiter {
            lock,
            session: key,
            request,
            place,
            since: now,
            mode,
            patience: if acquire.wait == Wait::No { Patience::None } else { Patience::Some },
            at_most: acquire.at_most,
            at_least: acquire.at_least.filter(|at_least| !at_least.is_zero()),
            above: acquire.above,
            keep: acquire.keep,
            present: true,
        };
        if is_new
            && waiter.at_least.is_none()
            && self.table.is_open_to(&waiter)
            && let Verdict::Granted(lease, token) = self.judge(&waiter, now)
        {
            // No waiter was before it, and it need not wait: so it does not queue.
            return self.grant(&waiter, lease, token, now);
        }
        let waiter = self.table.enqueue(waiter);
        match acquire.wait {
            Wait::For(limit) => self.limits.set(waiter, now + limit),
            Wait::No => self.limits.set(waiter, now + RECALL_LIMIT),
            Wait::Forever => {}
        }
        self.sessions.add_waiter(key, request, waiter);
        self.unsettled.push(lock);
        self.unacknowledged.push((key, request));
    }

    /// Whether a request that others come after waits, or was just refused.
    fn is_not_had(&self, key: SessionKey, request: RequestId) -> bool {
        let session = self.sessions.get(key);
        let is_not_had =
            session.last_refused == request || session.waiting().contains_key(&request);
        is_not_had && !planted(Mistake::SentWithoutAfter)
    }

    /// Why a request is refused before its lock is looked at.
    fn why_refused(&self, key: SessionKey, acquire: &Acquire, arrival: Arrival) -> Option<Refusal> {
        let is_too_long = acquire.at_least.is_some_and(|at_least| at_least > AT_LEAST_MAX);
        let why = self.over.or(self.sessions.get(key).refusal);
        why.or((!acquire.is_supported()).then_some(Refusal::NotSupported))
            .or(is_too_long.then_some(Refusal::AtLeastTooLong))
            .or_else(|| match arrival {
                Arrival::New => self.limit_of_new(key),
                Arrival::Returning => self.limit_of_returning(key),
                Arrival::PutBack => None,
            })
    }

    /// The limit that leaves no room for a new request of this session.
    fn limit_of_new(&self, key: SessionKey) -> Option<Refusal> {
        let Config {
            sessions_max,
            leases_per_session_max,
            waiters_per_session_max,
            claims_max,
            ..
        } = self.config;
        let session = self.sessions.get(key);
        let own = self.sessions.holdings_beside(key);
        let is_new = matches!(session.standing, Standing::New);
        if is_new && !has_share(own.sessions, self.sessions.written(), sessions_max) {
            Some(Refusal::TooManySessions)
        } else if session.answerable_for() >= leases_per_session_max {
            Some(Refusal::TooManyLeases)
        } else if session.waiting().len() >= waiters_per_session_max {
            Some(Refusal::TooManyWaiters)
        } else if !has_share(own.claims, self.claims(), claims_max) {
            Some(Refusal::TooManyClaims)
        } else {
            None
        }
    }

    /// The same of one that an earlier reign may have accepted. Its session's report has no more of
    /// them than one session can have been given. That all clients bring back more than there can
    /// have been takes many that were there before and now come from elsewhere.
    fn limit_of_returning(&self, key: SessionKey) -> Option<Refusal> {
        let claims_max = self.config.claims_max;
        let own = self.sessions.holdings_beside(key).claims;
        let is_too_much =
            own >= largest_share(claims_max) || self.claims() >= claims_max.saturating_mul(2);
        is_too_much.then_some(Refusal::TooManyClaims)
    }

    /// What all clients have together. What is owed from earlier reigns is not known before all
    /// of their sessions are back.
    fn claims(&self) -> usize {
        let owed = if self.in_grace { 0 } else { self.sessions.owed() };
        self.sessions.claims() + self.reservations.len() + owed
    }

    /// Writes about the session with its first request, not before: what only looks around
    /// leaves no session to wait for after a restart.
    fn open(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        session.idle_since = None;
        if !matches!(session.standing, Standing::New | Standing::Idling(_)) {
            return;
        }
        let record = Record::SessionOpened {
            session: session.id,
            proof: session.proof,
            time_to_live: session.time_to_live,
            embedded: self.config.process == Some(session.process),
        };
        let number = self.write(record);
        self.sessions.stand(key, Standing::Opening(number));
    }

    fn release(&mut self, key: SessionKey, lease: LeaseId, last_used: Token, how: Predecessor) {
        let id = PackedId::of_lease(lease);
        if let Some(id) = id {
            self.sessions.answer_for(key, id);
        }
        if let Some(hold) = id.and_then(|id| self.sessions.get(key).leases().get(&id).copied()) {
            let lock = hold.lock;
            let how = match self.holding(hold).right {
                Right::Ended(why, _) => after(why),
                Right::Whole | Right::Ending => how,
            };
            let is_unused = last_used < self.table.tokens(hold).0;
            let lease = self.holding(hold).lease;
            self.table.give_back(hold, last_used);
            if planted(Mistake::ReservedAtRelease) {
                self.reserve_at_release(lock);
            }
            if is_unused {
                self.was_not_used(lock, lease);
            }
            if planted(Mistake::ReservationEndsWithHolder) {
                self.end_reservation(lock);
            }
            if planted(Mistake::ReaderEndsAll) && hold.joint_key().is_some() {
                let all: Vec<_> = self.table.holds(lock).filter(|other| *other != hold).collect();
                for other in all {
                    self.vacate(other, None);
                }
            }
            self.vacate(hold, Some(how));
        }
        if let Some(number) = self.deletion_of(lease)
            && let Some(connection) = self.sessions.get(key).connection
        {
            // So that it is given back again, should this not become durable.
            let released = LeaderMessage::Released { lease };
            return self.tell_when_unreserved(number, connection, released);
        }
        // A stale one is answered as well, and ignored: it names a lease, not a name.
        self.tell(key, LeaderMessage::Released { lease });
    }

    fn renew(&mut self, key: SessionKey, sent_at: Time, now: Time) {
        if self.over.is_some() {
            return;
        }
        self.sessions.promise(key, now);
        self.forget_if_idle(key, now);
        let renew_every = self.sessions.renew_every(key);
        self.tell(key, LeaderMessage::Renewed { sent_at, renew_every });
    }

    /// Whether a guard has a lease that may be kept.
    fn is_used(&mut self, key: SessionKey, lease: LeaseId, kept: bool) {
        let Some(hold) = self.hold_of_lease(key, lease) else { return };
        let next = match (self.holding(hold).recall, kept) {
            (Recall::No | Recall::Kept, true) => Recall::Kept,
            (Recall::No | Recall::Kept, false) => Recall::No,
            (Recall::Asked | Recall::InUse, false) => Recall::InUse,
            (recall, true) => recall, // it is on its way back
        };
        self.table.recalled(hold, next);
        self.unsettled.push(hold.lock);
    }

    /// A lease that no other session wants is kept on, with more tokens.
    fn top_up(&mut self, key: SessionKey, lease: LeaseId) {
        let Some(hold) = self.hold_of_lease(key, lease) else { return };
        let Holding { right, recall, .. } = *self.holding(hold);
        if self.over.is_none()
            && hold.joint_key().is_none()
            && matches!(right, Right::Whole)
            && matches!(recall, Recall::No | Recall::Kept)
        {
            let last = self.table.top_up(hold.lock);
            self.given = self.given.max(last);
            self.tell(key, LeaderMessage::ToppedUp { lease, last });
        }
    }

    /// Some of a lease's permits are given back.
    fn lower(&mut self, key: SessionKey, lease: LeaseId, count: u32) {
        if let Some(hold) = self.hold_of_lease(key, lease) {
            self.lower_hold(hold, count);
        }
    }

    fn lower_hold(&mut self, hold: HoldKey, count: u32) {
        self.table.lower(hold, count);
        self.unsettled.push(hold.lock);
    }

    fn hold_of_lease(&self, key: SessionKey, lease: LeaseId) -> Option<HoldKey> {
        self.sessions.get(key).leases().get(&PackedId::of_lease(lease)?).copied()
    }

    fn goodbye(&mut self, connection: ConnectionId, key: SessionKey) {
        self.close(connection, Close::Ended);
        self.sessions.get_mut(key).connection = None;
        // What it had used it has given back before.
        for (lease, hold) in self.sessions.get(key).leases_in_order() {
            self.was_not_used(hold.lock, lease);
        }
        self.vacate_all(key, Predecessor::Clean);
        self.end_session(key);
    }

    fn vacate_all(&mut self, key: SessionKey, how: Predecessor) {
        for (_, hold) in self.sessions.get(key).leases_in_order() {
            self.vacate(hold, Some(how));
        }
    }
}

// Sessions come to an end.
impl Leader {
    /// Its deadline has passed without a word.
    fn expire(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if let Some(connection) = session.connection {
            let id = session.id;
            self.sessions.get_mut(key).connection = None;
            self.dismiss(connection, id);
        }
        self.end_session(key);
    }

    /// Hands its end to the journal, final from now on. Its requests stop waiting at once;
    /// what it holds is free when the end is durable.
    fn end_session(&mut self, key: SessionKey) {
        let waiters: Vec<_> = self.sessions.get(key).waiting().values().copied().collect();
        for waiter in waiters {
            self.drop_waiter(waiter);
        }
        let session = self.sessions.get(key);
        match session.standing {
            Standing::New => drop(self.sessions.remove(key)),
            Standing::Ending(_) => unreachable!("a session ends once"),
            Standing::Idling(number) => self.sessions.stand(key, Standing::Ending(number)),
            Standing::Opening(_) | Standing::Open(_) => {
                let number = self.write(Record::SessionEnded { session: session.id });
                self.sessions.stand(key, Standing::Ending(number));
                if planted(Mistake::ExpiryNotDurable) {
                    self.vacate_all(key, Predecessor::Expired);
                }
            }
        }
    }

    /// A session that wanted nothing for long is ended in the journal, so that no later reign
    /// waits for it. It lives on, and its next request opens it again.
    fn forget_if_idle(&mut self, key: SessionKey, now: Time) {
        let session = self.sessions.get_mut(key);
        if session.is_busy() {
            session.idle_since = None;
            return;
        }
        let since = *session.idle_since.get_or_insert(now);
        if now.since(since) >= IDLE_LIMIT
            && let Standing::Open(_) = session.standing
        {
            let session = session.id;
            let number = self.write(Record::SessionEnded { session });
            self.sessions.stand(key, Standing::Idling(number));
        }
    }

    /// The journal has forgotten it.
    fn forget_idle(&mut self, key: SessionKey) {
        self.sessions.stand(key, Standing::New);
        if self.sessions.get(key).connection.is_none() {
            self.sessions.remove(key);
        }
    }

    /// Its end is durable: what it held is free.
    fn bury(&mut self, key: SessionKey, _proof: TakenAway) {
        for (_, hold) in self.sessions.get(key).leases_in_order() {
            let how = match self.holding(hold).right {
                Right::Ended(why, _) => after(why),
                Right::Whole | Right::Ending => Predecessor::Expired,
            };
            if planted(Mistake::BlockReused) {
                self.table.give_back(hold, Token::ZERO);
            }
            self.vacate(hold, Some(how));
        }
        self.sessions.remove(key);
    }

    /// A session's connection is no more. That is silence, not a goodbye: it keeps what it has.
    fn fall_silent(&mut self, key: SessionKey) {
        self.sessions.get_mut(key).connection = None;
        if let Standing::New = self.sessions.get(key).standing {
            self.sessions.remove(key);
            return;
        }
        for &waiter in self.sessions.get(key).waiting().values() {
            self.table.set_present(waiter, false);
            self.unsettled.push(self.table.waiter(waiter).lock);
        }
    }
}

// Locks change hands.
impl Leader {
    /// Gives every lock that may have become free to the next in its queue, and tells those that
    /// go on waiting their places.
    fn settle(&mut self, now: Time) {
        if self.in_grace {
            self.end_grace_if_over(now);
        }
        self.step_raise(now);
        while let Some(lock) = self.unsettled.pop() {
            self.settle_lock(lock, now);
        }
        let mut unacknowledged = std::mem::take(&mut self.unacknowledged);
        for (key, request) in unacknowledged.drain(..) {
            if let Some(&waiter) = self.sessions.get(key).waiting().get(&request) {
                let Waiter { lock, place, .. } = *self.table.waiter(waiter);
                let (place, holder) = (place.place(), self.holder(lock, now));
                self.tell(key, LeaderMessage::Queued { request, place, holder });
            }
        }
        self.unacknowledged = unacknowledged; // its room is used again
    }

    fn settle_lock(&mut self, lock: LockKey, now: Time) {
        if self.table.get(lock).is_none() {
            return; // forgotten meanwhile
        }
        while let Some(waiter) = self.next_waiter(lock)
            && self.table.has_room(lock, self.table.waiter(waiter).mode)
            && self.try_grant(waiter, now)
        {
            if planted(Mistake::OneGrantPerEvent) && self.table.is_held(lock) {
                break;
            }
        }
        self.recall_if_wanted(lock);
        self.refuse_impatient(lock, now);
        if self.disputes.get(lock).is_none() {
            self.table.forget_if_unused(lock);
        }
    }

    /// Tells those that only try that it is held, as soon as that is sure.
    fn refuse_impatient(&mut self, lock: LockKey, now: Time) {
        let mut impatient: Vec<_> = self.table.impatient_of(lock).collect();
        impatient.retain(|&waiter| {
            let Waiter { mode, .. } = *self.table.waiter(waiter);
            self.is_surely_held(lock, mode, None)
        });
        for waiter in impatient {
            self.refuse_waiter(waiter, Refusal::WouldBlock, now);
        }
    }

    /// Another session waits: a lease that may be kept and is in its way is asked back, once per
    /// connection of its session for as long as that is so.
    fn recall_if_wanted(&mut self, lock: LockKey) {
        let Some(waiter) = self.table.first_present(lock) else { return };
        let mode = self.table.waiter(waiter).mode;
        let in_the_way: Vec<_> = self.table.in_the_way(lock, mode).collect();
        for hold in in_the_way {
            let holding = *self.holding(hold);
            if self.table.is_keepable(hold)
                && matches!(holding.recall, Recall::No | Recall::Kept)
                && self.sessions.get(holding.session).connection.is_some()
                && !(planted(Mistake::SharedNotRecalled)
                    && mode == Mode::Exclusive
                    && hold.joint_key().is_some())
            {
                self.table.recalled(hold, Recall::Asked);
                let lease = holding.lease.lease();
                self.tell(holding.session, LeaderMessage::Recall { lease });
                if planted(Mistake::OneKeeperRecalled) {
                    break;
                }
            }
        }
    }

    /// Whether a try in this mode can be told that it is held. Of a lease that may be kept that
    /// is known once its session has answered a recall, or cannot.
    /// Of a reserved name that is so for all but the request that has never heard of its grant.
    fn is_surely_held(
        &self,
        lock: LockKey,
        mode: Mode,
        by: Option<(SessionKey, RequestId)>,
    ) -> bool {
        if self.in_grace {
            return false;
        }
        let mut in_the_way = self.table.in_the_way(lock, mode).peekable();
        if in_the_way.peek().is_some() {
            return in_the_way.any(|hold| !self.may_come(hold));
        }
        if !self.table.is_held(lock) {
            return self.is_reserved_from(lock, by);
        }
        // There is room beside its holders. It is held by the first that waits for them to leave.
        let Some(first) = self.table.first_present(lock) else { return false };
        let Waiter { mode, session, request, .. } = *self.table.waiter(first);
        by != Some((session, request))
            && self.table.in_the_way(lock, mode).any(|hold| !self.may_come(hold))
    }

    /// Whether a lease may be kept without a guard, so that its session gives it back when asked.
    fn may_come(&self, hold: HoldKey) -> bool {
        let holding = self.holding(hold);
        self.table.is_keepable(hold)
            && holding.recall != Recall::InUse
            && self.sessions.get(holding.session).connection.is_some()
    }

    /// Whether a waiter stands behind holders or other waiters, not only behind the disk.
    fn is_passed_over(&self, waiter: WaiterKey) -> bool {
        let Waiter { lock, mode, .. } = *self.table.waiter(waiter);
        let is_next = self.table.first_present(lock) == Some(waiter);
        let is_free = !self.table.is_held(lock) || (is_next && self.table.has_room(lock, mode));
        !self.in_grace && !is_free
    }

    /// What a session is told of a name that others use in another way.
    fn used_as(&self, key: SessionKey, in_force: NameUse) -> Refusal {
        match self.sessions.get(key).capabilities & SHARES {
            0 => Refusal::NotSupported,
            _ => Refusal::UsedAs(in_force),
        }
    }

    /// Grants a free lock to the first in its queue, or throws out a first that may not have it.
    /// Answers `false` if both have to wait for something durable.
    fn try_grant(&mut self, key: WaiterKey, now: Time) -> bool {
        let waiter = self.table.waiter(key);
        let (lock, session) = (waiter.lock, waiter.session);
        match self.judge(waiter, now) {
            Verdict::Granted(lease, token) => match waiter.at_least {
                None => {
                    let waiter = self.take_waiter(key);
                    self.grant(&waiter, lease, token, now);
                }
                Some(at_least) => match self.may_reserve(lock, session) {
                    Ok(()) => {
                        self.reserve(key, at_least, token);
                        return false;
                    }
                    Err(why) => self.refuse_waiter(key, why, now),
                },
            },
            Verdict::Waits => return false,
            Verdict::NeedsEpoch(needed) if self.ask_epoch(needed) => {
                self.awaiting_epoch.insert(lock);
                return false;
            }
            Verdict::NeedsEpoch(_) => self.refuse_waiter(key, Refusal::Tokens, now),
            Verdict::NeedsRaise(needed) => match self.ask_raise(needed, now) {
                Ok(()) => {
                    self.awaiting_epoch.insert(lock);
                    return false;
                }
                Err(why) => self.refuse_waiter(key, why, now),
            },
            Verdict::Refused(why) => self.refuse_waiter(key, why, now),
            Verdict::Expired => self.expire(session),
        }
        true
    }

    /// Whether a free lock can be granted to its first waiter.
    fn judge(&self, waiter: &Waiter, now: Time) -> Verdict {
        let Some(reign) = &self.reign else { return Verdict::Waits };
        let in_grace = self.in_grace && !planted(Mistake::NoGrace);
        let waits = in_grace || self.is_paused() || self.disputes.get(waiter.lock).is_some();
        if self.over.is_some() || waits {
            return Verdict::Waits;
        }
        let epoch = reign.epoch();
        let session = self.sessions.get(waiter.session);
        match &session.standing {
            Standing::Open(_opened) => {}
            Standing::Opening(_) if planted(Mistake::ReplyBeforeRecord) => {}
            _ => return Verdict::Waits,
        }
        if session.deadline() <= now {
            // Nothing is granted on a session that is over: etcd#11456.
            return Verdict::Expired;
        }
        if session.answerable_for() >= self.config.leases_per_session_max {
            return Verdict::Refused(Refusal::TooManyLeases);
        }
        if let Some(needed) = self.raise_for(waiter.above, epoch) {
            return Verdict::NeedsRaise(needed);
        }
        let lease = PackedId::new(epoch, self.leases_made + 1);
        match (self.table.next_token(waiter.lock, waiter.mode, waiter.above, epoch), lease) {
            (Some(Next::Token(token)), Some(lease)) => Verdict::Granted(lease, token),
            (Some(Next::Token(_)), None) => Verdict::NeedsEpoch(epoch + 1),
            (Some(Next::Epoch(needed)), _) => Verdict::NeedsEpoch(needed),
            (None, _) => Verdict::Refused(Refusal::Tokens),
        }
    }

    /// As `grant`, with `at_least`.
    fn grant_reserved(
        &mut self,
        waiter: &Waiter,
        lease: PackedId,
        token: Token,
        now: Time,
        _proof: &Reserved,
    ) {
        self.give(waiter, lease, token, now);
    }

    fn grant(&mut self, waiter: &Waiter, lease: PackedId, token: Token, now: Time) {
        assert!(waiter.at_least.is_none(), "its entry is to be durable first");
        self.give(waiter, lease, token, now);
    }

    fn give(&mut self, waiter: &Waiter, lease: PackedId, token: Token, now: Time) {
        self.leases_made += 1;
        let hold = self.table.grant(waiter, lease, token, now);
        self.given = self.given.max(self.table.tokens(hold).1);
        self.sessions.add_lease(waiter.session, lease, hold);
        if let Some(at_most) = waiter.at_most {
            self.ends.set(hold, now + count_long(at_most));
        }
        self.tell_granted(hold, waiter.at_most);
    }

    fn tell_granted(&mut self, hold: HoldKey, at_most: Option<Duration>) {
        let Holding { lease, request, session, .. } = *self.holding(hold);
        let predecessor = self.table.lock(hold.lock).predecessor;
        let (first, last) = self.table.tokens(hold);
        let granted = LeaderMessage::Granted {
            request,
            lease: lease.lease(),
            first,
            last,
            predecessor,
            at_most,
        };
        self.tell(session, granted);
    }

    /// A lease is over: its holder says so, or a durable record allows it.
    fn vacate(&mut self, hold: HoldKey, how: Option<Predecessor>) -> Holding {
        let holding = self.table.vacate(hold, how);
        self.sessions.remove_lease(holding.session, holding.lease);
        self.ends.clear(hold);
        if planted(Mistake::LeaseIdReused)
            && holding.lease.lease() == (LeaseId { epoch: self.epoch(), count: self.leases_made })
        {
            self.leases_made -= 1;
        }
        if !(planted(Mistake::LostWakeUp) && how == Some(Predecessor::Panicked)) {
            self.unsettled.push(hold.lock);
        }
        holding
    }

    /// The time of a hold is over: it reached its `at_most`, or the last promise its loser had.
    fn end_hold(&mut self, hold: HoldKey) {
        match self.holding(hold).right {
            Right::Whole => self.take_away(hold, LostReason::HeldTooLong),
            Right::Ending => unreachable!("it waits for the disk, not for a time"),
            Right::Ended(why, _) => drop(self.vacate(hold, Some(after(why)))),
        }
    }

    /// Begins to take a lease away. Its holder is told once that is durable.
    fn take_away(&mut self, hold: HoldKey, why: LostReason) {
        let Holding { lease, session, .. } = *self.holding(hold);
        if let Standing::Ending(_) = self.sessions.get(session).standing {
            return; // it is being taken away with all the others
        }
        let record = Record::LeaseRevoked {
            session: self.sessions.get(session).id,
            lease: lease.lease(),
            name: self.table.lock(hold.lock).name.clone(),
            token: self.table.tokens(hold).1,
            why,
        };
        self.ends.clear(hold);
        self.table.take_away(hold);
        self.write(record);
    }

    /// The loss is durable: its holder is told. The name is free when the holder has answered,
    /// or when what the holder was promised last has passed.
    fn lease_is_lost(
        &mut self,
        key: SessionKey,
        lease: LeaseId,
        why: LostReason,
        proof: TakenAway,
    ) {
        let id = PackedId::of_lease(lease).expect("one of ours");
        let Some(&hold) = self.sessions.get(key).leases().get(&id) else {
            // Given back meanwhile, or one that was never confirmed.
            if why == LostReason::Forgotten {
                self.sessions.revoke(key, id, why, proof);
                self.tell(key, LeaderMessage::Lost { lease, why });
            }
            return;
        };
        self.sessions.revoke(key, id, why, proof);
        self.table.taken_away(hold, why, proof);
        if planted(Mistake::BreakAtOnce) {
            self.vacate(hold, Some(after(why)));
            return self.tell(key, LeaderMessage::Lost { lease, why });
        }
        // What is promised later is promised after `Lost`, on the same connection or the next.
        self.ends.set(hold, self.sessions.get(key).deadline());
        self.tell(key, LeaderMessage::Lost { lease, why });
    }

    fn take_waiter(&mut self, key: WaiterKey) -> Waiter {
        let waiter = self.table.dequeue(key);
        self.limits.clear(key);
        self.sessions.remove_waiter(waiter.session, waiter.request);
        waiter
    }

    fn drop_waiter(&mut self, key: WaiterKey) -> Waiter {
        let waiter = self.take_waiter(key);
        self.unsettled.push(waiter.lock);
        // One that is over without having heard of its grant has nothing reserved.
        self.request_is_over(waiter.session, waiter.request);
        waiter
    }

    fn refuse_waiter(&mut self, waiter: WaiterKey, why: Refusal, now: Time) {
        let waiter = self.drop_waiter(waiter);
        let holder = self.holder(waiter.lock, now);
        self.refuse(waiter.session, waiter.request, why, holder);
    }

    fn unsettle_waiting(&mut self, key: SessionKey) {
        for &waiter in self.sessions.get(key).waiting().values() {
            self.unsettled.push(self.table.waiter(waiter).lock);
        }
    }
}

// The reign.
impl Leader {
    fn begin_reign(&mut self, reign: DurableEpoch, now: Time) {
        if self.reign.as_ref().is_some_and(|own| own.epoch() >= reign.epoch()) {
            return;
        }
        self.history.raise(reign.epoch(), reign.starts_above());
        if self.reign.replace(reign).is_none() {
            self.began = now;
            self.begin_grace(now);
        } else {
            self.tell_raised();
        }
        (self.leases_made, self.places_given) = (0, 0);
        self.unsettled.extend(std::mem::take(&mut self.awaiting_epoch));
        self.read_early(now);
    }

    /// What came before there was an answer to it.
    fn read_early(&mut self, now: Time) {
        self.early_shares.clear();
        for (connection, message) in std::mem::take(&mut self.early) {
            self.read(connection, message, now);
            self.settle(now);
        }
    }

    fn end_reign(&mut self, why: Refusal) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(why);
        let waiting: Vec<_> =
            self.table.all().flat_map(|lock| self.table.first_waiters(lock, usize::MAX)).collect();
        for waiter in waiting {
            let Waiter { session, request, .. } = self.take_waiter(waiter);
            self.refuse(session, request, why, None);
        }
        self.refuse_questions();
    }

    fn epoch(&self) -> u32 {
        self.reign.as_ref().map_or(0, DurableEpoch::epoch)
    }

    /// Asks for a higher epoch to be made durable; `false` if there is none that high.
    fn ask_epoch(&mut self, epoch: u32) -> bool {
        if epoch > Token::MAX_EPOCH {
            return false;
        }
        if epoch > self.epoch_asked {
            self.epoch_asked = epoch;
            self.write(Record::EpochRaised { epoch, starts_above: false });
        }
        true
    }

    fn next_place(&mut self) -> PackedId {
        // Halfway the next epoch is asked for, long before the count could be exhausted.
        if self.places_given == PLACES_MAX / 2 {
            self.ask_epoch(self.epoch() + 1);
        }
        self.places_given = PLACES_MAX.min(self.places_given + 1);
        PackedId::new(self.epoch(), self.places_given).expect("both are within their bounds")
    }
}

// Words.
impl Leader {
    fn tell(&mut self, key: SessionKey, message: LeaderMessage) {
        if let Some(connection) = self.sessions.get(key).connection {
            self.messages.push_back((connection, message));
        }
    }

    fn refuse(
        &mut self,
        key: SessionKey,
        request: RequestId,
        why: Refusal,
        holder: Option<HolderInfo>,
    ) {
        self.sessions.get_mut(key).last_refused = request;
        self.tell(key, LeaderMessage::Refused { request, why, holder });
    }

    fn close(&mut self, connection: ConnectionId, why: Close) {
        self.connections.remove(&connection);
        self.reports.clear(connection);
        self.unfinished.clear(connection);
        self.closes.push_back((connection, why));
    }

    /// Asks for a record to be made durable; answers its number.
    fn write(&mut self, record: Record) -> u64 {
        self.last_record += 1;
        self.records.push_back(Pending { number: self.last_record, record });
        self.last_record
    }

    fn holding(&self, hold: HoldKey) -> &Holding {
        self.table.holding(hold)
    }

    /// The holder of a lock, or of several the one that has been there the longest.
    fn holder(&self, lock: LockKey, now: Time) -> Option<HolderInfo> {
        let first = self.table.holds(lock).next();
        first.map(|hold| self.describe_holder(hold, now))
    }

    fn describe_holder(&self, hold: HoldKey, now: Time) -> HolderInfo {
        let holding = self.holding(hold);
        HolderInfo {
            identity: self.sessions.get(holding.session).identity.clone(),
            since: now.since(holding.since),
            token: self.table.tokens(hold).0,
            mode: self.table.mode(hold),
        }
    }

    /// The leases of this name that have this token.
    fn holds_of(&self, name: &Name, token: Token) -> impl Iterator<Item = HoldKey> + use<'_> {
        let holds = self.table.find(name).into_iter().flat_map(|lock| self.table.holds(lock));
        // Any token of its block is the holder's.
        holds.filter(move |&hold| {
            let (first, last) = self.table.tokens(hold);
            (first..=last).contains(&token)
        })
    }
}

/// What the next holder is told of one that lost the lock.
fn after(why: LostReason) -> Predecessor {
    match why {
        LostReason::Broken => Predecessor::Broken,
        _ => Predecessor::Expired,
    }
}

const PLACES_MAX: u64 = (1 << Token::COUNT_BITS) - 1;

/// How long a try waits for the answer to a recall.
const RECALL_LIMIT: Duration = Duration::from_millis(500);

/// How long a session wants nothing before the journal forgets it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection may take to report its session and what that has.
const REPORT_LIMIT: Duration = Duration::from_secs(10);

/// How many messages are kept while the reign's own record is on its way to the disk.
const EARLY_MAX: usize = 65_536;

// What tests look at.
#[cfg(test)]
impl Leader {
    pub(super) fn waits(&self, session: super::SessionId, request: RequestId) -> bool {
        let key = self.sessions.find(session);
        key.is_some_and(|key| self.sessions.get(key).waiting().contains_key(&request))
    }

    /// What the unfinished reports weigh, and what they may.
    pub(super) fn unfinished(&self) -> (usize, usize) {
        (self.unfinished.total(), report::unfinished_bytes_max(&self.config))
    }

    /// For how many losses its sessions have not answered, or will not have.
    pub(super) fn owed(&self) -> usize {
        self.sessions.owed() + self.refused_claims
    }

    /// How many wait to hear that a lock is broken.
    pub(super) fn breaks_awaited(&self) -> usize {
        self.breakers.shares.taken()
    }

    /// How many names it knows.
    pub(super) fn names(&self) -> usize {
        self.table.len()
    }

    /// How many locks wait for a higher epoch.
    pub(super) fn awaiting_epoch(&self) -> usize {
        self.awaiting_epoch.len()
    }

    /// How many locks are held.
    pub(super) fn held(&self) -> usize {
        self.table.all().map(|lock| self.table.holds(lock).count()).sum()
    }
}
