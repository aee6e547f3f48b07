//! The client: one manager's session, its requests and its leases.
//!
//! It holds no lock for a caller and wakes none: it says what became of each request and until
//! when leases are good. It first expires, then reads, and what it lost or no longer wants it
//! gives back explicitly. It asks for a connection only once something is wanted, and then
//! re-enters by itself for as long as something is.

mod converting;
mod leases;
mod link;
#[cfg(feature = "testing")]
mod look;
mod observing;
mod passing;
mod permitted;
mod requests;
mod talk;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use self::{converting::AskedConversion, link::SessionLink, observing::ObservedElection};
use super::{
    ClusterId, ConnectionId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId, SessionId,
    history::Seen,
    mistake::{Mistake, planted},
    numbered::{Numbered, sorted},
    rights::Rights,
    timers::Timers,
    wire::{
        Acquire, ClientMessage, DeadlockCircle, HolderInfo, Identity, LeaderMessage, LockInfo,
        Mode, PresentLeader, Refusal,
    },
};
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    time::Time,
    token::Token,
};

#[derive(Clone, Debug)]
pub struct ClientConfig {
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
pub enum RequestFailure {
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
    /// It waited for what cannot come, since those that have it wait for its caller.
    Deadlock(Box<DeadlockCircle>),
}

/// What has come so far of a request that waits.
#[derive(Clone, Debug, PartialEq)]
pub enum NewsOfRequest<'a> {
    /// None waits.
    NotAsked,
    /// No leader has answered yet, and nothing has failed.
    OnItsWay,
    /// No leader is connected, and an attempt to reach one has failed.
    Unanswered,
    /// No leader answers; the last trouble in words.
    Silent(String),
    /// A leader has it in its queue, behind this holder if it has told one.
    Queued(Option<&'a HolderInfo>),
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
        failure: RequestFailure,
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
    /// The present leader of what is observed, or another one than before.
    Leads {
        query: RequestId,
        leader: Option<PresentLeader>,
    },
    /// The lease is of the mode that was asked for, with this token.
    Converted {
        request: RequestId,
        lease: LeaseId,
        token: Token,
    },
    /// The lease stays of the mode that it had.
    NotConverted {
        request: RequestId,
        lease: LeaseId,
        why: Refusal,
    },
    /// A query ended without an answer.
    QueryFailed {
        query: RequestId,
        failure: RequestFailure,
    },
    /// A leader has shown a later reign or a higher epoch than was seen before.
    Saw {
        seen: Seen,
    },
    /// The goodbye is on its way or was not needed: the driver may end once it is sent.
    Closed,
}

pub struct Client {
    config: ClientConfig,
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
    /// The last pace that the leader told this session as one that asks for something, which a leader that others
    /// may follow does at the welcome.
    quick_pace: Duration,
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
    observed: BTreeMap<RequestId, ObservedElection>,
    /// The change of mode that each of these leases waits for.
    conversions: BTreeMap<LeaseId, AskedConversion>,
    leases: Numbered<LeaseId, Lease>,
    timers: Timers<Due>,
    link: SessionLink,
    outgoing: VecDeque<Outgoing>,
    /// When the oldest of these was queued.
    unsaid_since: Option<Time>,
    /// What `now` was last.
    looked_at: Time,
    events: VecDeque<Event>,
    /// How many of the events tell of a loss.
    losses_untold: usize,
    closing: Closing,
    /// What its credential is for, as far as its driver knows: what the leader would refuse need not be
    /// asked, and a report with that would be closed whole.
    rights: Arc<Rights>,
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
    /// What its holder says of itself.
    value: Option<Arc<[u8]>>,
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
    pub fn new(config: ClientConfig, mut random: Random, now: Time) -> Client {
        Client {
            session: SessionId(random()),
            proof: Proof(random()),
            reports: 0,
            good_until: None,
            deadline: None,
            warns_at: None,
            time_to_live: config.time_to_live,
            renew_every: config.time_to_live / 3,
            quick_pace: config.time_to_live / 3,
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
            observed: BTreeMap::new(),
            conversions: BTreeMap::new(),
            leases: Numbered::default(),
            timers: Timers::new(),
            link: SessionLink::new(config.addresses),
            outgoing: VecDeque::new(),
            unsaid_since: None,
            looked_at: now,
            events: VecDeque::new(),
            losses_untold: 0,
            closing: Closing::No,
            // Until it is told otherwise; the leader judges it in any case.
            rights: Arc::new(Rights::everything()),
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
            self.fail(request, RequestFailure::Closed, None);
            return request;
        }
        if !self.rights.may_take(&acquire.name) {
            self.fail(request, RequestFailure::Refused { why: Refusal::NotPermitted }, None);
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
            self.queue(Outgoing::Acquire(request));
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
                self.fail(request, RequestFailure::Closed, None);
            }
            self.fail_everything(&RequestFailure::Closed);
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
        // Leases live by it, so it waits for nothing else. None is due before a report is believed. It says
        // that all from before `sent_at` was sent before it.
        if std::mem::take(&mut self.renewal_queued) {
            self.renewing_since.get_or_insert(now);
            let sent_at = self.unsaid_since.map_or(now, |since| since.min(now));
            return Some((connection, ClientMessage::Renew { sent_at }));
        }
        loop {
            let next = self.outgoing.pop_front();
            if self.outgoing.is_empty() {
                self.unsaid_since = None;
            }
            let message = match next? {
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
