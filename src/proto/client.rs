//! The client: one manager's session, its requests and its leases.
//!
//! It holds no lock for a caller and wakes none: it says what became of each request and until
//! when leases are good. It first expires, then reads, and what it lost or no longer wants it
//! gives back explicitly. It asks for a connection only once something is wanted, and then
//! re-enters by itself for as long as something is.

mod link;
#[cfg(feature = "testing")]
mod look;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use self::link::Link;
use super::{
    ClusterId, ConnectionId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId, SessionId,
    count_short,
    history::{Attestation, Seen},
    mistake::{Mistake, planted},
    numbered::{Numbered, sorted},
    timers::Timers,
    wire::{
        self, Acquire, ClientMessage, HeldLease, HolderInfo, Identity, LeaderMessage, LockInfo,
        Mode, Refusal, Wait, WaitingRequest, held_messages, waiting_messages,
    },
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

#[derive(Clone, Debug)]
pub struct Config {
    pub time_to_live: Duration,
    pub connect_timeout: Duration,
    pub identity: Identity,
    /// How many addresses the driver knows; the client names them by index.
    pub addresses: usize,
    /// The process that it runs in.
    pub process: ProcessMark,
    /// What others have seen before it, as far as its driver knows.
    pub seen: Option<Seen>,
}

/// Random numbers, passed in, so that a run can be repeated.
pub type Random = Box<dyn FnMut() -> u128 + Send>;

/// What the driver reports when a connection attempt or a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Lost, reset, timed out, could not be made: to be tried again.
    Disconnected(String),
    /// The address refused the packet: nothing listens there. To be tried again.
    NotThere(String),
    /// The handshake was refused: another secret, no tierlock leader. Requests fail at once.
    Refused(String),
}

/// Why a request ended without a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused {
        why: Refusal,
    },
    /// No leader acknowledged it in time; the last trouble in words.
    Unreachable(String),
    /// Its limit ended before a leader answered, too soon to call the leader unreachable.
    Unanswered(String),
    /// The wrong secret, and the like.
    NotAccepted(String),
    /// The addresses are not one group, or the cluster is another than before.
    Config(String),
    /// The manager was closed.
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A leader has it in its queue.
    Queued {
        request: RequestId,
        place: Place,
    },
    Granted {
        request: RequestId,
        lease: LeaseId,
        first: Token,
        last: Token,
        predecessor: Predecessor,
        /// The client's own deadline from `at_most`, if one was set.
        at_most: Option<Time>,
    },
    Failed {
        request: RequestId,
        failure: Failure,
        holder: Option<HolderInfo>,
    },
    /// The release was answered (or its session is over, which releases as well).
    Released {
        lease: LeaseId,
    },
    /// The lease may be kept, and another session waits for it: it is to be given back as soon as no
    /// guard has it; until then [`is_kept`](Client::is_kept) says that one has.
    Recalled {
        lease: LeaseId,
    },
    /// The lease's block goes on to `last`.
    ToppedUp {
        lease: LeaseId,
        last: Token,
    },
    /// The lease is over; its guards are to be told before `DeadlineMoved` is passed on.
    LeaseLost {
        lease: LeaseId,
        why: LostReason,
    },
    /// The session's deadline: until when its leases are good without a further word.
    DeadlineMoved {
        deadline: Time,
    },
    /// Half of the time to live has passed without an answer: unless one comes, what is held is
    /// lost at the deadline. Once per deadline.
    AtRisk {
        deadline: Time,
        held: usize,
        /// Why no leader answers, as far as that is known.
        trouble: String,
    },
    Checked {
        query: RequestId,
        good: bool,
    },
    Listed {
        query: RequestId,
        locks: Vec<LockInfo>,
        more: bool,
    },
    Broke {
        query: RequestId,
        found: bool,
    },
    /// A query ended without an answer.
    QueryFailed {
        query: RequestId,
        failure: Failure,
    },
    /// A leader has shown a later reign or a higher epoch than was seen before.
    Saw {
        seen: Seen,
    },
    /// The goodbye is on its way or was not needed: the driver may end once it is sent.
    Closed,
}

pub struct Client {
    config: Config,
    random: Random,
    session: SessionId,
    proof: Proof,
    /// How many reports this session has made.
    reports: u64,
    /// Until when the session's leases are good; `None` before the first promise and when it has
    /// passed.
    good_until: Option<Time>,
    /// The deadline as the events told it.
    deadline: Option<Time>,
    /// When the holders are to be warned that the deadline comes near.
    warns_at: Option<Time>,
    time_to_live: Duration,
    renew_every: Duration,
    next_renewal: Time,
    renewal_queued: bool,
    /// When the first renewal was sent that is not answered yet.
    renewing_since: Option<Time>,
    /// The cluster that this manager has spoken to.
    cluster: Option<ClusterId>,
    /// What it has seen last, or others before it.
    seen: Option<Seen>,
    /// When a leader was last heard.
    heard: Option<Time>,
    last_request: u64,
    requests: Numbered<RequestId, Request>,
    /// The lease of each request that was granted one, for as long as that is known.
    granted: Numbered<RequestId, LeaseId>,
    queries: BTreeMap<RequestId, ClientMessage>,
    leases: Numbered<LeaseId, Lease>,
    timers: Timers<Due>,
    link: Link,
    outgoing: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    /// How many of the events tell of a loss.
    losses_untold: usize,
    closing: Closing,
}

/// Something that was asked for and not granted yet.
struct Request {
    acquire: Acquire,
    /// The request that comes after it, and is refused with it.
    follower: Option<RequestId>,
    limit: Option<Time>,
    asked: Time,
    /// Since when a leader's word on it is waited for: it was asked for then, or the word that
    /// there was counts no more.
    since: Time,
    /// It was sent, or stands in a report: a leader may know it.
    said: bool,
    /// A leader has it in its queue, in a session that lives.
    acknowledged: bool,
    place: Option<Place>,
    /// The holder when it was queued.
    holder: Option<HolderInfo>,
    /// It came when the session's deadline had passed: good only once that has moved.
    grant: Option<Grant>,
}

#[derive(Clone)]
struct Grant {
    lease: LeaseId,
    /// The reign that made it.
    reign: ReignId,
    first: Token,
    last: Token,
    predecessor: Predecessor,
    at_most: Option<Time>,
    /// When it was heard of.
    since: Time,
    /// It was asked back before it was good.
    is_recalled: bool,
}

struct Lease {
    name: Name,
    mode: Mode,
    request: RequestId,
    grant: Grant,
    hold: Hold,
    /// No guard has it, as far as the leader was told.
    kept: bool,
}

/// How far the end of a lease has come. It only moves down this list.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hold {
    Held,
    /// Lost, and its guards do not know yet: the leader must not hear of it before them.
    Losing,
    /// Given back, and not answered yet.
    Releasing {
        last_used: Token,
        how: Predecessor,
        to_be_told: bool,
        /// A caller waits for the answer: a goodbye comes after it.
        awaited: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Due {
    Request(RequestId),
    Query(RequestId),
    AtMost(LeaseId),
    Closing,
}

/// What goes out; those with a time in them get it when they are taken.
enum Outgoing {
    Hello,
    Goodbye,
    /// Unless it was given up before it is taken.
    Acquire(RequestId),
    Plain(ClientMessage),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Closing {
    No,
    /// As soon as nothing is held.
    Asked,
    /// The goodbye waits to be taken.
    Leaving,
    Closed,
}

impl Client {
    pub fn new(config: Config, mut random: Random, now: Time) -> Client {
        Client {
            session: SessionId(random()),
            proof: Proof(random()),
            reports: 0,
            good_until: None,
            deadline: None,
            warns_at: None,
            time_to_live: config.time_to_live,
            renew_every: config.time_to_live / 3,
            next_renewal: now,
            renewal_queued: false,
            renewing_since: None,
            cluster: None,
            seen: config.seen.filter(|_| !planted(Mistake::MachineForgets)),
            heard: None,
            last_request: 0,
            requests: Numbered::default(),
            granted: Numbered::default(),
            queries: BTreeMap::new(),
            leases: Numbered::default(),
            timers: Timers::new(),
            link: Link::new(config.addresses),
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            losses_untold: 0,
            closing: Closing::No,
            config,
            random,
        }
    }

    /// The cluster of the leader that has answered, once one has.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// How long to wait for an answer when none comes.
    pub fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout
    }

    /// Asks for a lock. `limit` says until when the caller waits for another holder; an answer is
    /// waited for at least [`ANSWER_MIN`], however soon the limit is. When it passes with no word
    /// from a leader the request fails as `Unreachable` or `Unanswered`, afterwards as
    /// `Refusal::TimedOut`. `acquire.wait` is derived from it at each sending.
    pub fn acquire(&mut self, acquire: Acquire, limit: Option<Time>, now: Time) -> RequestId {
        self.observe(now);
        let request = self.next_request();
        if self.closing != Closing::No {
            self.fail(request, Failure::Closed, None);
            return request;
        }
        if self.requests.is_empty() && self.leases.is_empty() {
            // The next answer tells how often a waiting session is to renew.
            self.next_renewal = self.next_renewal.min(now + RENEW_SOON);
        }
        let after = acquire.extras.as_deref().and_then(|extras| extras.after);
        if let Some(before) = after.and_then(|after| self.requests.get_mut(&after)) {
            before.follower = Some(request);
        }
        let state = Request {
            acquire,
            follower: None,
            limit,
            asked: now,
            since: now,
            said: false,
            acknowledged: false,
            place: None,
            holder: None,
            grant: None,
        };
        self.requests.insert(request, state);
        self.be_patient(request, now);
        if self.link.reporting_or_serving().is_some() {
            self.outgoing.push_back(Outgoing::Acquire(request));
        }
        self.step_link(now);
        request
    }

    /// The caller gave up. If the grant is already here or arrives later it is handed straight
    /// back. No event follows.
    pub fn cancel(&mut self, request: RequestId, now: Time) {
        self.observe(now);
        // Drivers leave few of them: they look after each call.
        self.events.retain(|event| event.request() != Some(request));
        if self.requests.contains_key(&request) {
            self.take_back(request);
        } else if let Some(&lease) = self.granted.get(&request)
            && self.leases[&lease].hold == Hold::Held
        {
            self.hand_back(lease);
        }
        self.finish(now);
    }

    /// Gives a lease back. Repeated over reconnects until answered. A lost one is given back
    /// once its loss is told, as lost, and is `Released` at once.
    pub fn release(&mut self, lease: LeaseId, last_used: Token, how: Predecessor, now: Time) {
        self.release_as(lease, last_used, how, false, now);
    }

    /// As [`release`](Client::release), by a caller that waits for `Released`: a goodbye is not
    /// said before that.
    pub fn release_awaited(
        &mut self,
        lease: LeaseId,
        last_used: Token,
        how: Predecessor,
        now: Time,
    ) {
        self.release_as(lease, last_used, how, true, now);
    }

    fn release_as(
        &mut self,
        lease: LeaseId,
        last_used: Token,
        how: Predecessor,
        awaited: bool,
        now: Time,
    ) {
        self.observe(now);
        match self.leases.get_mut(&lease).map(|held| &mut held.hold) {
            Some(Hold::Losing | Hold::Releasing { .. }) | None => {
                self.events.push_back(Event::Released { lease });
            }
            Some(hold @ Hold::Held) => {
                *hold = Hold::Releasing { last_used, how, to_be_told: true, awaited };
                self.give_back(lease);
            }
        }
        self.finish(now);
    }

    /// Whether a lease that may be kept is kept just now, without a guard. That a guard has it
    /// answers a recall.
    pub fn is_kept(&mut self, lease: LeaseId, kept: bool) {
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Held
        {
            held.kept = kept;
            self.say(ClientMessage::Use { lease, kept });
        }
    }

    /// Asks for more tokens for a lease that is kept.
    pub fn top_up(&mut self, lease: LeaseId) {
        if self.is_held(lease) {
            self.say(ClientMessage::TopUp { lease });
        }
    }

    /// Of a lease of several permits so many are left. Said again with the next report.
    pub fn lower(&mut self, lease: LeaseId, count: u32) {
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Held
            && count < held.mode.permits()
        {
            held.mode = held.mode.lowered(count);
            self.say(ClientMessage::Lower { lease, count });
        }
    }

    pub fn check(&mut self, name: Name, token: Token, limit: Option<Time>, now: Time) -> RequestId {
        self.ask(limit, now, |query| ClientMessage::Check { query, name, token })
    }

    pub fn list(
        &mut self,
        after: Option<Name>,
        count: u32,
        limit: Option<Time>,
        now: Time,
    ) -> RequestId {
        self.ask(limit, now, |query| ClientMessage::List { query, after, limit: count })
    }

    pub fn break_lock(
        &mut self,
        name: Name,
        token: Token,
        limit: Option<Time>,
        now: Time,
    ) -> RequestId {
        self.ask(limit, now, |query| ClientMessage::Break { query, name, token })
    }

    /// No more requests; says goodbye once no lease is held.
    pub fn close(&mut self, now: Time) {
        self.observe(now);
        if self.closing == Closing::No {
            for request in sorted(&self.requests) {
                self.take_back(request);
                self.fail(request, Failure::Closed, None);
            }
            self.fail_everything(&Failure::Closed);
            self.closing = Closing::Asked;
            self.timers.set(Due::Closing, now + self.config.connect_timeout);
        }
        self.finish(now);
    }

    /// The connection is made: the report goes out.
    pub fn handle_connected(&mut self, connection: ConnectionId, now: Time) {
        self.observe(now);
        self.link_connected(connection, now);
        self.finish(now);
    }

    pub fn handle_message(&mut self, connection: ConnectionId, message: LeaderMessage, now: Time) {
        self.heard = Some(now);
        // First expire, then read: what comes too late must not look as if it came in time.
        if !planted(Mistake::RevivedLease) {
            self.observe(now);
        }
        if self.closing != Closing::Closed {
            self.link_message(connection, message, now);
        }
        self.finish(now);
    }

    /// A connection, or the attempt to make it, ended.
    pub fn handle_ended(&mut self, connection: ConnectionId, ended: Ended, now: Time) {
        self.observe(now);
        self.link_ended(connection, ended, now);
        self.give_up_refused(now);
        self.finish(now);
    }

    pub fn handle_timeout(&mut self, now: Time) {
        self.observe(now);
        self.finish(now);
    }

    /// A connection to make: to the address with this index.
    pub fn poll_connect(&mut self) -> Option<(ConnectionId, usize)> {
        self.link.take_connect(self.config.connect_timeout)
    }

    /// A connection to close: superseded, or not needed any more.
    pub fn poll_close(&mut self) -> Option<ConnectionId> {
        self.link.take_close()
    }

    /// What is to be sent. `now` is read before the bytes are written: the deadline of a session
    /// counts from there.
    pub fn poll_message(&mut self, now: Time) -> Option<(ConnectionId, ClientMessage)> {
        self.observe(now);
        if let Some(message) = self.link.take_probe_message() {
            return Some(message);
        }
        let connection = self.link.reporting_or_serving()?;
        // Leases live by it, so it waits for nothing else. None is due before a report is believed.
        if std::mem::take(&mut self.renewal_queued) {
            self.renewing_since.get_or_insert(now);
            return Some((connection, ClientMessage::Renew { sent_at: now }));
        }
        loop {
            let message = match self.outgoing.pop_front()? {
                Outgoing::Plain(message) => message,
                Outgoing::Acquire(request) => match self.requests.get_mut(&request) {
                    Some(state) => {
                        state.said = true;
                        ClientMessage::Acquire { request, acquire: state.acquire_at(now) }
                    }
                    None => continue, // it is not wanted any more
                },
                Outgoing::Hello => {
                    self.link.hello_sent(now);
                    self.hello()
                }
                Outgoing::Goodbye => {
                    self.closed();
                    ClientMessage::Goodbye
                }
            };
            return Some((connection, message));
        }
    }

    /// As [`take_event`](Client::take_event), for guards that know at once.
    #[cfg(test)]
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.take_event()?;
        if let Event::LeaseLost { lease, .. } = event {
            self.loss_is_told(lease);
        }
        Some(event)
    }

    /// What became of something. A loss is to be answered for with
    /// [`loss_is_told`](Client::loss_is_told).
    pub fn take_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match event {
            Event::LeaseLost { .. } => self.losses_untold -= 1,
            Event::DeadlineMoved { deadline } => self.deadline = Some(deadline),
            _ => {}
        }
        Some(event)
    }

    pub fn poll_timeout(&self) -> Option<Time> {
        // These wait for nothing but to be polled, whatever the driver polled last; once a loss
        // is told there is something to send.
        let closed = self.closing == Closing::Closed;
        if self.losses_untold > 0 || (closed && !self.events.is_empty()) {
            return Some(Time::ZERO);
        }
        if closed {
            return None;
        }
        let serving = self.link.is_serving() && !self.renewal_queued;
        [
            self.good_until,
            self.warns_at,
            serving.then_some(self.next_renewal),
            self.timers.next(),
            self.looks_elsewhere_at(),
            self.link.next_time(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether everything that could be sent has been taken to be sent.
    pub fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Until when the session's leases are good without a further word, as far as
    /// [`take_event`](Client::take_event) has told it; `None` before the first.
    #[cfg(test)]
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }
}

// Time passes.
impl Client {
    /// What `now` means before anything else is looked at.
    fn observe(&mut self, now: Time) {
        if self.closing == Closing::Closed {
            return;
        }
        if self.good_until.is_some_and(|deadline| deadline <= now) {
            self.expire(now);
        }
        if self.warns_at.is_some_and(|warns_at| warns_at <= now) {
            self.warn();
        }
        while let Some(due) = self.timers.pop_due(now) {
            match due {
                Due::Request(request) => self.give_up(request, now),
                Due::Query(query) => {
                    self.queries.remove(&query);
                    let failure = Failure::Unreachable(self.link.trouble());
                    self.events.push_back(Event::QueryFailed { query, failure });
                }
                Due::AtMost(lease) => self.lose(lease, LostReason::HeldTooLong),
                // The leader never came back to hear of the last releases.
                Due::Closing if !self.holds() => self.closed(),
                Due::Closing => self.timers.set(due, now + self.config.connect_timeout),
            }
        }
        if self.looks_elsewhere_at().is_some_and(|at| at <= now) {
            let trouble = "it does not answer any more".to_owned();
            self.renewing_since = None;
            self.drop_link(trouble, now);
        }
        if self.link.is_serving() && self.next_renewal <= now && !self.renewal_queued {
            self.next_renewal = now + self.renew_every;
            self.renewal_queued = true;
        }
    }

    /// When a leader that does not answer is left, for another address. A renewal is repeated until
    /// then, at the pace that the leader asks for: a quarter of the time that its reign is believed
    /// without one of its own, if others may follow it.
    fn looks_elsewhere_at(&self) -> Option<Time> {
        let since = self.renewing_since.filter(|_| self.link.is_serving())?;
        self.link.has_elsewhere().then_some(since + (3 * self.renew_every).max(SILENT_MIN))
    }

    /// What every handler ends with.
    fn finish(&mut self, now: Time) {
        self.step_link(now);
        self.step_closing();
    }

    /// The session's deadline has passed: nothing is held, whatever the network says later. The
    /// leader, which counts longer, is still told how each lease was left.
    fn expire(&mut self, now: Time) {
        (self.good_until, self.warns_at) = (None, None);
        for lease in sorted(&self.leases) {
            self.lose(lease, LostReason::Expired);
            self.release_is_over(lease);
        }
        self.forget_acknowledgements(now);
    }

    /// Nothing was heard for so long that the holders are to know.
    fn warn(&mut self) {
        self.warns_at = None;
        let held = self.leases.values().filter(|lease| lease.hold == Hold::Held).count();
        if let Some(deadline) = self.good_until.filter(|_| held > 0) {
            let trouble = self.link.trouble();
            self.events.push_back(Event::AtRisk { deadline, held, trouble });
        }
    }

    /// No leader is known to keep places any more: a waiter for its turn waits for a leader.
    fn forget_acknowledgements(&mut self, now: Time) {
        for request in sorted(&self.requests) {
            if self.requests[&request].acknowledged {
                self.be_patient(request, now);
            }
        }
    }

    /// A release was answered, or its session is over, which releases as well.
    fn release_is_over(&mut self, lease: LeaseId) {
        if let Some(Lease { hold: Hold::Releasing { to_be_told, awaited, .. }, .. }) =
            self.leases.get_mut(&lease)
            && std::mem::take(to_be_told)
        {
            *awaited = false;
            self.events.push_back(Event::Released { lease });
        }
    }

    /// The reign has a higher epoch now.
    fn raised(&mut self, epoch: u32, attestation: Attestation) {
        if let Some(seen) = self.seen.filter(|seen| seen.epoch < epoch) {
            self.see(Seen { epoch, attestation, ..seen });
        }
    }

    /// This leads now.
    fn see(&mut self, seen: Seen) {
        if self.seen.replace(seen) != Some(seen) {
            self.events.push_back(Event::Saw { seen });
        }
    }

    /// The leader's promise. Deadlines only move forward, and none is moved back to life: a
    /// promise that has passed when it arrives changes nothing.
    fn promised(&mut self, sent_at: Time, now: Time) {
        let sent_at = if planted(Mistake::DeadlineFromReply) { now } else { sent_at };
        let deadline = sent_at + count_short(self.time_to_live);
        if deadline <= now || self.good_until.is_some_and(|known| known >= deadline) {
            return;
        }
        let revived = self.good_until.replace(deadline).is_none();
        self.warns_at = Some(sent_at + self.time_to_live / 2);
        self.events.push_back(Event::DeadlineMoved { deadline });
        if revived {
            self.requests_live_again();
        }
    }

    /// The session turns out to live: places are still kept, and grants that came when that was
    /// unknown are good.
    fn requests_live_again(&mut self) {
        for request in sorted(&self.requests) {
            let state = &self.requests[&request];
            match state.grant.clone() {
                Some(grant) => self.accept(request, grant),
                None if state.place.is_some() => self.acknowledge(request),
                None => {}
            }
        }
    }

    /// As the leader wishes, within reason: often enough to lose two in a row.
    fn renew_every_of(&self, wished: Duration) -> Duration {
        wished.min(self.time_to_live / 3).max(RENEW_EVERY_MIN)
    }

    fn lives(&self, now: Time) -> bool {
        self.good_until.is_some_and(|deadline| deadline > now)
    }
}

// Requests.
impl Client {
    fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// No leader has acknowledged it: how long to wait for that.
    fn be_patient(&mut self, request: RequestId, now: Time) {
        let state = self.requests.get_mut(&request).expect("a request that waits");
        state.acknowledged = false;
        state.since = now;
        let patience = now + self.config.connect_timeout;
        let until = state.limit.map_or(patience, |limit| limit.min(patience));
        self.timers.set(Due::Request(request), until);
    }

    /// A leader has it in its queue: it waits for as long as its caller, and for the leader's own
    /// answer a little longer.
    fn acknowledge(&mut self, request: RequestId) {
        let state = self.requests.get_mut(&request).expect("a request that waits");
        state.acknowledged = true;
        match state.limit {
            Some(limit) => {
                let answered = limit.max(state.asked + ANSWER_MIN) + ANSWER_PREFERRED;
                self.timers.set(Due::Request(request), answered);
            }
            None => self.timers.clear(Due::Request(request)),
        }
    }

    /// Its time is over without an answer.
    fn give_up(&mut self, request: RequestId, now: Time) {
        let Some(state) = self.requests.get(&request) else { return };
        let patience = state.since + self.config.connect_timeout;
        let silent_since = self.heard.map_or(state.since, |heard| heard.max(state.since));
        let is_silent = now.since(silent_since) >= SILENCE;
        let is_long = state.limit.is_none_or(|limit| limit.since(state.since) >= SILENCE);
        let is_refused = self.link.is_refused_everywhere();
        let failure = if state.acknowledged {
            Failure::Refused { why: Refusal::TimedOut }
        } else if now >= patience || is_refused || (is_silent && is_long) {
            Failure::Unreachable(self.link.trouble())
        } else if now < state.since + ANSWER_MIN {
            // The limit is for other holders; the answer takes its time on the way.
            return self.timers.set(Due::Request(request), patience.min(state.since + ANSWER_MIN));
        } else {
            Failure::Unanswered(self.link.trouble())
        };
        let holder = self.take_back(request).holder;
        self.fail(request, failure, holder);
    }

    /// Nothing listens at any address: requests past their limit wait for no answer.
    fn give_up_refused(&mut self, now: Time) {
        if !self.link.is_refused_everywhere() {
            return;
        }
        for request in sorted(&self.requests) {
            let state = &self.requests[&request];
            if !state.acknowledged && state.limit.is_some_and(|limit| limit <= now) {
                self.give_up(request, now);
            }
        }
    }

    fn fail(&mut self, request: RequestId, failure: Failure, holder: Option<HolderInfo>) {
        self.events.push_back(Event::Failed { request, failure, holder });
    }

    /// Nothing that waits can be answered.
    fn fail_everything(&mut self, failure: &Failure) {
        for request in sorted(&self.requests) {
            self.drop_request(request);
            self.fail(request, failure.clone(), None);
        }
        for (query, _) in std::mem::take(&mut self.queries) {
            self.timers.clear(Due::Query(query));
            self.events.push_back(Event::QueryFailed { query, failure: failure.clone() });
        }
    }

    /// No caller waits for it any more. A grant that is not good yet goes back.
    fn drop_request(&mut self, request: RequestId) -> Request {
        self.timers.clear(Due::Request(request));
        let mut state = self.requests.remove(&request).expect("a request that waits");
        if let Some(grant) = state.grant.take() {
            self.refuse_grant(request, &state.acquire, grant);
        }
        state
    }

    /// As `drop_request`, and tells the leader, if that may know it.
    fn take_back(&mut self, request: RequestId) -> Request {
        let state = self.drop_request(request);
        if state.said {
            self.say(ClientMessage::Cancel { request });
        }
        state
    }

    fn ask(
        &mut self,
        limit: Option<Time>,
        now: Time,
        message: impl FnOnce(RequestId) -> ClientMessage,
    ) -> RequestId {
        self.observe(now);
        let query = self.next_request();
        if self.closing != Closing::No {
            self.events.push_back(Event::QueryFailed { query, failure: Failure::Closed });
            return query;
        }
        let patience = now + self.config.connect_timeout;
        self.timers.set(Due::Query(query), limit.map_or(patience, |limit| limit.min(patience)));
        let message = message(query);
        self.queries.insert(query, message.clone());
        self.say(message);
        self.step_link(now);
        query
    }

    /// A query was answered. One without a caller that waits is ignored; an answer to another
    /// question than was asked shows a leader that cannot be believed.
    fn answered(&mut self, query: RequestId, event: Event, now: Time) {
        let Some(asked) = self.queries.get(&query) else { return };
        match (asked, &event) {
            (ClientMessage::Check { .. }, Event::Checked { .. })
            | (ClientMessage::List { .. }, Event::Listed { .. })
            | (ClientMessage::Break { .. }, Event::Broke { .. }) => {
                self.queries.remove(&query);
                self.timers.clear(Due::Query(query));
                self.events.push_back(event);
            }
            _ => self.drop_link("it answered another question than was asked".to_owned(), now),
        }
    }
}

// Leases.
impl Client {
    fn granted(&mut self, request: RequestId, grant: Grant, now: Time) {
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

    fn accept(&mut self, request: RequestId, grant: Grant) {
        self.timers.clear(Due::Request(request));
        let state = self.requests.remove(&request).expect("a request that waits");
        let Grant { lease, first, last, predecessor, at_most, is_recalled, .. } = grant;
        if let Some(end) = at_most {
            self.timers.set(Due::AtMost(lease), end);
        }
        let Acquire { name, mode, .. } = state.acquire;
        let hold = Hold::Held;
        self.insert_lease(lease, Lease { name, mode, request, grant, hold, kept: false });
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
        }
    }

    /// Hands back a grant that no guard entered: the next holder's predecessor is still the last
    /// one that did.
    fn refuse_grant(&mut self, request: RequestId, asked: &Acquire, grant: Grant) {
        let (lease, hold, name, mode) = (grant.lease, Hold::Held, asked.name.clone(), asked.mode);
        self.insert_lease(lease, Lease { name, mode, request, grant, hold, kept: false });
        self.hand_back(lease);
    }

    /// As `refuse_grant`, where even the name is forgotten. It need not be repeated: the next
    /// report does not name it.
    fn refuse_unknown(&mut self, grant: Grant) {
        let Grant { lease, predecessor: how, .. } = grant;
        self.say(ClientMessage::Release { lease, last_used: before(grant.first), how });
    }

    fn is_held(&self, lease: LeaseId) -> bool {
        self.leases.get(&lease).is_some_and(|held| held.hold == Hold::Held)
    }

    /// Another session waits. The leader says so once, also of a grant that is not good yet.
    fn recalled(&mut self, lease: LeaseId) {
        let mut unheard = self.requests.values_mut().filter_map(|request| request.grant.as_mut());
        if let Some(grant) = unheard.find(|grant| grant.lease == lease) {
            grant.is_recalled = true; // told once it is good
        } else if self.is_held(lease) {
            self.events.push_back(Event::Recalled { lease });
        }
    }

    /// Of a block it is the end that moves, and only on.
    fn topped_up(&mut self, lease: LeaseId, last: Token) {
        if let Some(held) = self.leases.get_mut(&lease)
            && held.hold == Hold::Held
            && last > held.grant.last
            && last.epoch() == held.grant.last.epoch()
        {
            held.grant.last = last;
            self.events.push_back(Event::ToppedUp { lease, last });
        }
    }

    fn hand_back(&mut self, lease: LeaseId) {
        let held = self.leases.get_mut(&lease).expect("a lease that is held");
        // It used none: what the leader reserves for an unused grant ends with it.
        let (last_used, how) = (before(held.grant.first), held.grant.predecessor);
        held.hold = Hold::Releasing { last_used, how, to_be_told: false, awaited: false };
        self.give_back(lease);
    }

    fn lose(&mut self, lease: LeaseId, why: LostReason) {
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

    fn give_back(&mut self, lease: LeaseId) {
        let Lease { hold, grant, .. } = &self.leases[&lease];
        if grant.at_most.is_some() {
            self.timers.clear(Due::AtMost(lease));
        }
        if let Hold::Releasing { last_used, how, .. } = *hold {
            self.say(ClientMessage::Release { lease, last_used, how });
        }
    }

    fn released(&mut self, lease: LeaseId) {
        if let Some(Lease { hold: Hold::Releasing { .. }, .. }) = self.leases.get(&lease) {
            self.release_is_over(lease);
            self.remove_lease(lease);
        }
    }

    /// The leader took a lease away, and waits to hear that no guard believes in it any more.
    fn lost(&mut self, lease: LeaseId, why: LostReason, now: Time) {
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
    fn is_awaited(&self) -> bool {
        self.leases
            .values()
            .any(|lease| matches!(lease.hold, Hold::Releasing { awaited: true, .. }))
    }

    /// Whether anything is held and not on its way back.
    pub fn holds(&self) -> bool {
        self.leases.values().any(|lease| !matches!(lease.hold, Hold::Releasing { .. }))
    }
}

// What is said and heard on the session's own connection.
impl Client {
    /// Sends, if a report is on its way or believed; otherwise the next report says it.
    fn say(&mut self, message: ClientMessage) {
        if self.link.reporting_or_serving().is_some() {
            self.outgoing.push_back(Outgoing::Plain(message));
        }
    }

    fn hello(&self) -> ClientMessage {
        ClientMessage::Hello {
            version: wire::VERSION,
            capabilities: wire::CAPABILITIES,
            session: self.session,
            proof: self.proof,
            count: self.reports,
            cluster: self.cluster,
            seen: self.seen.map(Box::new),
            time_to_live: self.config.time_to_live,
            identity: self.config.identity.clone(),
            process: self.config.process,
        }
    }

    /// Tells a fresh connection what there is: the leader takes it for the truth. What is being
    /// given back is named, so that how it was left can be said again: else the next holder would
    /// be told what this one was told.
    fn report(&mut self, now: Time) {
        self.reports += 1;
        self.outgoing.clear();
        self.renewal_queued = false;
        if self.closing == Closing::Leaving {
            // The goodbye was among them: it is said again behind this.
            self.closing = Closing::Asked;
        }
        let mut held = Vec::new();
        let mut releases = Vec::new();
        for lease in sorted(&self.leases) {
            let state = &self.leases[&lease];
            let mut reported = state.grant.held(state.name.clone(), state.mode, now);
            reported.kept = state.kept;
            if let Hold::Releasing { last_used, how, .. } = state.hold {
                (reported.last_used, reported.leaving) = (last_used, Some(how));
                releases.push(ClientMessage::Release { lease, last_used, how });
            }
            held.push(reported);
        }
        let mut waiting = Vec::new();
        for request in sorted(&self.requests) {
            let state = self.requests.get_mut(&request).expect("it is among the keys");
            state.said = true;
            match &state.grant {
                Some(grant) => {
                    held.push(grant.held(state.acquire.name.clone(), state.acquire.mode, now));
                }
                None => waiting.push(WaitingRequest {
                    request,
                    place: state.place,
                    acquire: state.acquire_at(now),
                }),
            }
        }
        let plain = held_messages(held)
            .chain(waiting_messages(waiting))
            .chain([ClientMessage::Ready])
            .chain(releases)
            .chain(self.queries.values().cloned());
        self.outgoing.push_back(Outgoing::Hello);
        self.outgoing.extend(plain.map(Outgoing::Plain));
    }

    /// What a leader says that has believed the report.
    fn served(&mut self, message: LeaderMessage, now: Time) {
        match message {
            LeaderMessage::Queued { request, place, holder } => {
                if let Some(state) = self.requests.get_mut(&request) {
                    (state.place, state.holder) = (Some(place), holder);
                    self.acknowledge(request);
                    self.events.push_back(Event::Queued { request, place });
                }
            }
            LeaderMessage::Granted { request, lease, first, last, predecessor, at_most } => {
                let at_most = at_most.map(|left| now + count_short(left));
                let grant = Grant {
                    lease,
                    reign: self.seen.expect("a welcome came before").reign,
                    first,
                    last,
                    predecessor,
                    at_most,
                    since: now,
                    is_recalled: false,
                };
                self.granted(request, grant, now);
            }
            LeaderMessage::Refused { request, why, holder } => self.refused(request, why, holder),
            LeaderMessage::Released { lease } => self.released(lease),
            LeaderMessage::Lost { lease, why } => self.lost(lease, why, now),
            LeaderMessage::Renewed { sent_at, renew_every } => {
                self.renewing_since = None;
                self.renew_every = self.renew_every_of(renew_every);
                self.next_renewal = self.next_renewal.min(now + self.renew_every);
                if sent_at <= now {
                    self.promised(sent_at, now);
                }
            }
            LeaderMessage::Checked { query, good } => {
                self.answered(query, Event::Checked { query, good }, now);
            }
            LeaderMessage::Listed { query, locks, more } => {
                self.answered(query, Event::Listed { query, locks, more }, now);
            }
            LeaderMessage::Broke { query, found } => {
                self.answered(query, Event::Broke { query, found }, now);
            }
            LeaderMessage::Recall { .. } if planted(Mistake::RecallIgnored) => {}
            LeaderMessage::Recall { lease } => self.recalled(lease),
            LeaderMessage::ToppedUp { lease, last } => self.topped_up(lease, last),
            LeaderMessage::Raised { epoch, attestation } => self.raised(epoch, attestation),
            LeaderMessage::NotUnderstood { request, .. } => self.not_understood(request),
            LeaderMessage::Welcome { .. }
            | LeaderMessage::NotLeader { .. }
            | LeaderMessage::Gone { .. } => {}
        }
    }

    fn refused(&mut self, request: RequestId, why: Refusal, holder: Option<HolderInfo>) {
        if self.requests.contains_key(&request) {
            let state = self.drop_request(request);
            let known = state.holder;
            let failure = match why {
                // It was asked for without patience since its limit had passed.
                Refusal::WouldBlock if state.limit.is_some() => {
                    Failure::Refused { why: Refusal::TimedOut }
                }
                Refusal::OtherCluster => Failure::Config(
                    "this leader is not the one that this manager has spoken to before".to_owned(),
                ),
                why => Failure::Refused { why },
            };
            self.fail(request, failure, holder.or(known));
            // The leader's word on it may be lost with a connection, and a report of it alone would be
            // granted.
            if let Some(follower) = state.follower.filter(|next| self.requests.contains_key(next)) {
                self.take_back(follower);
                let failure = Failure::Refused { why: Refusal::WouldBlock };
                self.fail(follower, failure, None);
            }
        }
    }

    /// The leader is of an earlier release.
    fn not_understood(&mut self, request: Option<RequestId>) {
        let Some(request) = request else { return };
        if self.queries.remove(&request).is_some() {
            self.timers.clear(Due::Query(request));
            let failure = Failure::Refused { why: Refusal::NotSupported };
            self.events.push_back(Event::QueryFailed { query: request, failure });
        } else {
            self.refused(request, Refusal::NotSupported, None);
        }
    }

    /// The leader does not know the session: what it held is over, what it waited for is asked
    /// for again, with its places, by a new one.
    fn forget_session(&mut self, now: Time) {
        (self.session, self.proof) = (SessionId((self.random)()), Proof((self.random)()));
        self.reports = 0;
        (self.good_until, self.warns_at) = (None, None);
        for lease in sorted(&self.leases) {
            self.lose(lease, LostReason::Forgotten);
            self.release_is_over(lease);
        }
        self.leases.clear();
        self.granted.clear();
        for request in self.requests.values_mut() {
            request.grant = None;
        }
        self.forget_acknowledgements(now);
    }
}

// The end.
impl Client {
    fn step_closing(&mut self) {
        if self.closing != Closing::Asked || self.holds() || self.is_awaited() {
            return;
        }
        if self.link.reporting_or_serving().is_some() {
            self.closing = Closing::Leaving;
            self.outgoing.push_back(Outgoing::Goodbye);
        } else if self.leases.is_empty() {
            self.closed();
        }
    }

    fn closed(&mut self) {
        if self.closing != Closing::Closed {
            self.closing = Closing::Closed;
            self.timers.clear(Due::Closing);
            self.events.push_back(Event::Closed);
        }
    }
}

impl Request {
    /// What is asked for at `now`: the wait is what is left of the limit.
    fn acquire_at(&self, now: Time) -> Acquire {
        let wait = match (self.acquire.wait, self.limit) {
            (Wait::No, _) => Wait::No,
            (_, Some(limit)) if limit <= now => Wait::No,
            (_, Some(limit)) => Wait::For(limit.since(now)),
            (_, None) => Wait::Forever,
        };
        Acquire { wait, ..self.acquire.clone() }
    }
}

impl Grant {
    fn held(&self, name: Name, mode: Mode, now: Time) -> HeldLease {
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
            value: Box::default(),
        }
    }
}

impl Event {
    fn request(&self) -> Option<RequestId> {
        match self {
            Event::Queued { request, .. }
            | Event::Granted { request, .. }
            | Event::Failed { request, .. } => Some(*request),
            _ => None,
        }
    }
}

/// The token before this one: the last used of a block that begins with this one and was not used.
fn before(first: Token) -> Token {
    Token::new(first.get().saturating_sub(1)).unwrap_or(Token::ZERO)
}

/// How long an answer is waited for at least, however soon the caller's limit is: so that a free
/// lock is got with every limit.
const ANSWER_MIN: Duration = Duration::from_secs(1);

/// With several addresses: how long a leader may take at least for an answer to a renewal.
const SILENT_MIN: Duration = Duration::from_millis(150);

/// A leader that was silent for this long counts as unreachable once the caller's limit is over.
const SILENCE: Duration = Duration::from_secs(1);

/// How long the leader's own `TimedOut`, which names the holder, is waited for.
const ANSWER_PREFERRED: Duration = Duration::from_millis(20);

/// When a session that was idle, or has just come, asks how often to renew now.
const RENEW_SOON: Duration = Duration::from_millis(100);

/// A leader cannot make a client renew more often.
const RENEW_EVERY_MIN: Duration = Duration::from_millis(50);
