//! What a connection says, and what becomes of a session's requests and releases.

use super::{
    Arrival, Close, Connection, GrantVerdict, LeaderConfig, LeaderMachine, RECALL_LIMIT,
    REPORT_LIMIT, after, report::Report,
};
use crate::{
    error::Predecessor,
    proto::{
        ClientId, ConnectionId, LeaseId, RequestId,
        bound::NameHashes,
        lock::{HoldKey, Holding, PackedId, Recall, RequestPatience, Right, SessionKey, Waiter},
        mistake::{Mistake, planted},
        sessions::Standing,
        shares::{has_share, largest_share},
        wire::{Acquire, ClientMessage, LeaderMessage, Refusal, Wait},
    },
    time::{AT_LEAST_MAX, Time},
    token::Token,
};

impl LeaderMachine {
    pub(super) fn read(&mut self, connection: ConnectionId, message: ClientMessage, now: Time) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        match state {
            Connection::New => match Report::open(message) {
                Some(report) if planted(Mistake::HelloCountsAlone) => {
                    *state = Connection::Sessionless;
                    self.believe(connection, *report, now);
                }
                Some(report) => {
                    let weight = report.weight;
                    *state = Connection::Reporting(report);
                    self.weigh(connection, weight);
                }
                None => self.close(connection, Close::Protocol("the first frame is no Hello")),
            },
            Connection::Sessionless => {
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
                        std::mem::replace(state, Connection::Sessionless)
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
    pub(super) fn client_of(&self, connection: ConnectionId) -> ClientId {
        self.clients.get(&connection).map_or(ClientId(0), |client| client.share)
    }

    /// From now on it has a while to report.
    pub(super) fn expect_report(&mut self, connection: ConnectionId) {
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
                } else if let Some(hold) = self.request_is_over(key, request) {
                    // What crosses this is handed straight back.
                    self.vacate(hold, None);
                }
            }
            ClientMessage::Release { lease, last_used, how } => {
                self.release(key, lease, last_used, how);
            }
            ClientMessage::Use { lease, kept } => self.is_used(key, lease, kept),
            ClientMessage::TopUp { lease } => self.top_up(key, lease),
            ClientMessage::Lower { lease, count } => self.lower(key, lease, count),
            ClientMessage::Observe { query, name } => self.observe(connection, query, name),
            ClientMessage::StopObserving { query } => self.stop_observing(connection, query),
            ClientMessage::Upgrade { request, lease, tries } => {
                self.upgrade(key, request, lease, tries);
            }
            ClientMessage::Downgrade { request, lease, last_used, to } => {
                self.downgrade(key, request, (lease, last_used), to);
            }
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
            // What stands around the leader answers them, before they come here.
            ClientMessage::AskStanding { .. }
            | ClientMessage::StepDown { .. }
            | ClientMessage::AskGroup { .. }
            | ClientMessage::Replace { .. } => {}
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
impl LeaderMachine {
    /// A session wants a lock. `place` is the one it was told before, by its own word, if it was;
    /// it gives order and no exemption from limits.
    pub(super) fn want(
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
        let value = acquire.extras.as_deref().and_then(|extras| extras.value.as_deref());
        let value = match self.state_value(key, value, arrival == Arrival::New) {
            Ok(value) => value,
            Err(why) => return self.refuse(key, request, why, None),
        };
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
        self.ask_for(key, NameHashes::of(&self.table.lock(lock).name));
        let is_new = place.is_none();
        let place = place.unwrap_or_else(|| self.next_place());
        let waiter = Waiter {
            lock,
            session: key,
            request,
            place,
            since: now,
            mode,
            patience: if acquire.wait == Wait::No {
                RequestPatience::None
            } else {
                RequestPatience::Some
            },
            at_most: acquire.at_most,
            at_least: acquire.at_least.filter(|at_least| !at_least.is_zero()),
            above: acquire.above,
            keep: acquire.keep,
            present: true,
            value,
        };
        if is_new
            && self.conversions.upgrading(lock).is_none()
            && waiter.at_least.is_none()
            && self.table.is_open_to(&waiter)
            && let GrantVerdict::Granted(lease, token) = self.judge(&waiter, now)
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
        if acquire.wait != Wait::No {
            self.pin(waiter, acquire.extras);
        }
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
        let LeaderConfig {
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
    pub(super) fn claims(&self) -> usize {
        let owed = if self.in_grace { 0 } else { self.sessions.owed() };
        self.sessions.claims() + self.reservations.len() + owed
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
        let session = self.sessions.get_mut(key);
        session.renewals.add(sent_at, now);
        self.deadlocks.has_renewed(session.id);
        self.forget_if_idle(key, now);
        self.narrow_if_due(key, now);
        let renew_every = self.sessions.renew_every(key);
        self.tell(key, LeaderMessage::Renewed { sent_at, renew_every });
    }

    /// Whether a guard has a lease that may be kept.
    fn is_used(&mut self, key: SessionKey, lease: LeaseId, kept: bool) {
        let Some(hold) = self.hold_of_lease(key, lease) else { return };
        self.telling.count(|tally| tally.kept += u64::from(kept));
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

    pub(super) fn lower_hold(&mut self, hold: HoldKey, count: u32) {
        self.table.lower(hold, count);
        self.unsettled.push(hold.lock);
    }

    pub(super) fn hold_of_lease(&self, key: SessionKey, lease: LeaseId) -> Option<HoldKey> {
        self.sessions.get(key).leases().get(&PackedId::of_lease(lease)?).copied()
    }

    fn goodbye(&mut self, connection: ConnectionId, key: SessionKey) {
        self.close(connection, Close::Ended);
        self.sessions.get_mut(key).connection = None;
        // What it had used it has given back before.
        for (lease, hold) in self.sessions.get(key).leases_in_order() {
            self.was_not_used(hold.lock, lease);
        }
        self.tell_goodbye(key);
        self.vacate_all(key, Predecessor::Clean);
        self.end_session(key);
    }

    pub(super) fn vacate_all(&mut self, key: SessionKey, how: Predecessor) {
        for (_, hold) in self.sessions.get(key).leases_in_order() {
            self.vacate(hold, Some(how));
        }
    }
}
