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
mod beginning;
mod bounding;
mod converting;
mod deadlocks;
mod ends;
mod grants;
#[cfg(feature = "testing")]
mod look;
mod observing;
mod permitting;
mod questions;
mod raising;
mod reclaim;
mod report;
mod requests;
mod reserve;
pub mod tally;
mod telling;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use self::telling::{
    LeaderTells, LockSurvey, LostNames, MachineCounts, MachineEvent, SessionNote,
};
use self::{
    attended::Attended,
    converting::Conversions,
    deadlocks::Deadlocks,
    observing::{Observers, StatedValues},
    raising::{OtherHistory, Raises},
    report::{Report, Unfinished},
    reserve::Reservations,
    telling::LeaderTelling,
};
use super::{
    ConnectionId, ProcessMark, ReignId, RequestId, TIME_TO_LIVE,
    bound::BoundSize,
    count_long,
    history::{History, Notary, TrustingNotary},
    lock::{HoldKey, Holding, LockKey, PackedId, RequestPatience, SessionKey, Waiter, WaiterKey},
    mistake::{Mistake, planted},
    numbered::Numbered,
    record::{Allows, Committed, DurableEpoch, Pending, Record, Recovered, Unwritten},
    rights::ConnectedClient,
    sessions::{Sessions, Standing},
    shares::Shares,
    table::Table,
    timers::Timers,
    wire::{ClientMessage, HolderInfo, LeaderMessage, Refusal},
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

/// What a leader accepts.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
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
    /// What the journal has of the names that a session has asked for.
    pub bound: BoundSize,
    /// How often that is narrowed to what the session still has.
    pub narrows_every: Duration,
    /// Start above this epoch, granting nothing for 60 s × 1.01 (`serve --epoch-above`).
    pub epoch_above: Option<u32>,
    /// For how long its reign is believed without proof, if another leader may follow it.
    pub reign_lasts: Option<Duration>,
    /// Where else clients find a leader of this cluster, as they are told.
    pub members: Vec<String>,
    /// The process that it runs in, if that may have sessions with it and takes the state
    /// directory's lock with it when it dies: such sessions are known dead by the next reign.
    pub process: Option<ProcessMark>,
    /// Drawn at random at the leader's start, for this reign and no other.
    pub reign: ReignId,
    /// Vouches for what clients are told of this history, so that they cannot make it up.
    pub notary: Arc<dyn Notary>,
    /// What of itself it tells.
    pub tells: LeaderTells,
    /// It is known from the start that clients have credentials, which prove their labels.
    pub has_credentials: bool,
}

impl Default for LeaderConfig {
    fn default() -> LeaderConfig {
        LeaderConfig {
            time_to_live_max: *TIME_TO_LIVE.end(),
            sessions_max: 10_000,
            leases_per_session_max: 65_536,
            waiters_per_session_max: 65_536,
            claims_max: 1 << 21,
            reservations_max: 65_536,
            bound: BoundSize::LARGEST,
            narrows_every: Duration::from_secs(60),
            block: BLOCK,
            epoch_above: None,
            reign_lasts: None,
            members: Vec::new(),
            process: None,
            reign: ReignId(0),
            notary: Arc::new(TrustingNotary),
            tells: LeaderTells::default(),
            has_credentials: false,
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
    /// Its credential is not for what it reported.
    NotPermitted,
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
    /// An alarm: a session reported that it holds this name, and the journal knows that it has not
    /// asked for it. It is told that it has lost it.
    NotAskedFor { name: Name, token: Token },
}

/// Tokens of one block: local locks at full speed use it up in some 50 ms.
pub const BLOCK: u32 = 1 << 20;

pub struct LeaderMachine {
    config: LeaderConfig,
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
    /// Some labels are proved: a client has, since this reign began, or the config says so.
    proves_labels: bool,
    table: Table,
    connections: Numbered<ConnectionId, Connection>,
    /// The clients of all of them, and of those that are to be closed.
    clients: Numbered<ConnectionId, ConnectedClient>,
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
    conversions: Conversions,
    deadlocks: Deadlocks,
    observers: Observers,
    values: StatedValues,
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
    telling: LeaderTelling,
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
    Sessionless,
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
enum GrantVerdict {
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

impl LeaderMachine {
    /// A new reign over what the journal recovered. The first record it asks for is its `TookOver`.
    pub fn new(config: LeaderConfig, recovered: Recovered, now: Time) -> LeaderMachine {
        let before = (recovered.epoch, recovered.waits_for);
        let took_over = Record::take_over(before, config.reign, config.epoch_above);
        let waits_for = match took_over {
            Some(Record::TookOver { waits_for, .. }) => waits_for,
            _ => None,
        };
        let epoch_before = recovered.epoch.max(config.epoch_above.unwrap_or(0));
        let mut leader = LeaderMachine {
            reign: None,
            epoch_asked: epoch_before,
            raises: Raises::default(),
            began: now,
            other_history: None,
            given: Token::ZERO,
            table: Table::new(config.block),
            proves_labels: config.has_credentials,
            sessions: Sessions::new(config.reign_lasts.map(|lasts| lasts / 4)),
            telling: LeaderTelling::new(config.tells),
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
            conversions: Conversions::default(),
            deadlocks: Deadlocks::default(),
            observers: Observers::default(),
            values: StatedValues::default(),
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
    pub fn handle_connected(
        &mut self,
        connection: ConnectionId,
        client: impl Into<ConnectedClient>,
        now: Time,
    ) {
        self.attend(now);
        let before = self.connections.insert(connection, Connection::New);
        assert!(before.is_none(), "a connection's number is used once");
        self.clients.insert(connection, client.into());
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
        self.observers.forget(connection);
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
                if let Some(key) = self.sessions.find(session) {
                    self.bound_is_durable(key, number, opened);
                }
            }
            Allows::Freeing { session, number, proof } => {
                if let Some(key) = self.sessions.find(session) {
                    match self.sessions.get(key).standing {
                        Standing::Ending(n) if n == number => self.remove_ended(key, proof),
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
                if let Some(key) = self.sessions.find(session) {
                    self.bound_is_unwritten(key, number, now);
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
                RequestPatience::Some
                    if is_short && !self.is_surely_held(lock, mode, Some((session, request))) =>
                {
                    self.table.lose_patience(waiter);
                    self.limits.set(waiter, now + RECALL_LIMIT);
                }
                RequestPatience::Some => self.refuse_waiter(waiter, Refusal::TimedOut, now),
                RequestPatience::None if self.is_passed_over(waiter) => {
                    self.refuse_waiter(waiter, Refusal::WouldBlock, now)
                }
                // No session has it: it waits for the disk, or for the end of grace.
                RequestPatience::None => self.limits.set(waiter, now + RECALL_LIMIT),
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
            self.sessions.absent.free_all();
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

// Words.
impl LeaderMachine {
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
        self.tell_refused(key, why);
        self.sessions.get_mut(key).last_refused = request;
        self.tell(key, LeaderMessage::Refused { request, why, holder });
    }

    fn close(&mut self, connection: ConnectionId, why: Close) {
        self.connections.remove(&connection);
        self.reports.clear(connection);
        self.unfinished.clear(connection);
        self.observers.forget(connection);
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
        let identity = &self.sessions.get(holding.session).identity;
        HolderInfo {
            claims_label: self.claims_label(identity),
            identity: identity.clone(),
            since: now.since(holding.since),
            token: self.table.tokens(hold).0,
            mode: self.table.mode(hold),
            ahead: None,
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
impl LeaderMachine {
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

    /// How many observations and values there are.
    pub(super) fn observed(&self) -> (usize, usize) {
        (self.observers.count(), self.values.count())
    }

    /// How many requests pin anything, and how many deadlocks are suspected.
    pub(super) fn pinned(&self) -> (usize, usize) {
        self.deadlocks.counts()
    }

    /// How many locks are held.
    pub(super) fn held(&self) -> usize {
        self.table.all().map(|lock| self.table.holds(lock).count()).sum()
    }
}
