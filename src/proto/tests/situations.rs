//! Situations, one by one. A name after a test's comment is the public issue of a project that
//! met it before.

mod bounds;
mod deadlocks;
mod elections;
mod holders;
mod leaders;
mod limits;
mod managers;
mod reservations;
mod restarts;
mod shares;
mod telling;
mod upgrades;
mod waiters;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    name::Name,
    proto::{
        ClientId, ClusterId, ConnectionId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId,
        SessionId,
        bound::{Bound, BoundSize, NameHashes},
        history::{Attestation, History, Notary, REIGNS_MAX, Seen},
        leader::{BLOCK, Close, LeaderConfig, LeaderMachine, LeaderTells, Notice},
        record::{Pending, Record, Recovered, Reservation},
        wire::{
            Acquire, CAPABILITIES, ClientMessage, Extras, HeldLease, Identity, LeaderMessage, Mode,
            Refusal, VERSION, VERSION_OLDEST, Wait, WaitingRequest,
        },
    },
    time::Time,
    token::Token,
};

const REIGN: ReignId = ReignId(1);
const TTL: Duration = Duration::from_secs(5);
/// What a leader counts of [`TTL`], and a little more.
const LONG: Duration = Duration::from_millis(5060);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn acquire(text: &str) -> Acquire {
    Acquire::exclusive(name(text), Wait::Forever)
}

fn try_acquire(text: &str) -> Acquire {
    Acquire { wait: Wait::No, ..acquire(text) }
}

/// A leader, its disk and its clock, talked to frame by frame.
struct ReignScene {
    leader: LeaderMachine,
    config: LeaderConfig,
    now: Time,
    /// Whether the disk answers at once.
    disk_answers: bool,
    pending: VecDeque<Pending>,
    written: Vec<Record>,
    durable: Recovered,
    heard: Vec<(ConnectionId, LeaderMessage)>,
    closed: Vec<(ConnectionId, Close)>,
    notices: Vec<Notice>,
}

/// A session, as its client would name it.
#[derive(Clone, Copy)]
struct Speaker {
    connection: ConnectionId,
    session: u128,
    count: u64,
}

fn config() -> LeaderConfig {
    LeaderConfig {
        time_to_live_max: Duration::from_secs(60),
        sessions_max: 3,
        leases_per_session_max: 4,
        waiters_per_session_max: 4,
        block: BLOCK,
        claims_max: 8_000,
        reservations_max: 6,
        bound: BoundSize::LARGEST,
        narrows_every: Duration::from_secs(60),
        epoch_above: None,
        reign_lasts: None,
        members: Vec::new(),
        process: None,
        reign: REIGN,
        notary: Arc::new(TestNotary),
        // It changes nothing else, whatever the situation.
        tells: LeaderTells { events: true, counts: true },
        has_credentials: false,
    }
}

/// Codes that a test can tell from made up ones.
#[derive(Debug)]
struct TestNotary;

impl Notary for TestNotary {
    fn attest(&self, cluster: ClusterId, epoch: u32, reign: ReignId) -> Attestation {
        Attestation(cluster.0 << 96 ^ u128::from(epoch) << 64 ^ u128::from(reign.0) ^ 1 << 90)
    }
}

/// What the leader of this reign told its clients.
fn seen_in(cluster: ClusterId, epoch: u32, reign: ReignId) -> Seen {
    Seen { cluster, epoch, reign, attestation: TestNotary.attest(cluster, epoch, reign) }
}

fn fresh() -> Recovered {
    Recovered::new(ClusterId(1))
}

fn begin() -> ReignScene {
    ReignScene::new(config(), fresh())
}

impl ReignScene {
    fn new(config: LeaderConfig, recovered: Recovered) -> ReignScene {
        let now = Time::ZERO + Duration::from_secs(1000);
        let mut reign = ReignScene {
            leader: LeaderMachine::new(config.clone(), recovered.clone(), now),
            config,
            now,
            disk_answers: true,
            pending: VecDeque::new(),
            written: Vec::new(),
            durable: recovered,
            heard: Vec::new(),
            closed: Vec::new(),
            notices: Vec::new(),
        };
        reign.drive();
        reign
    }

    fn drive(&mut self) {
        loop {
            self.pending.extend(std::iter::from_fn(|| self.leader.poll_record()));
            self.heard.extend(std::iter::from_fn(|| self.leader.poll_message()));
            self.closed.extend(std::iter::from_fn(|| self.leader.poll_close()));
            self.notices.extend(std::iter::from_fn(|| self.leader.poll_notice()));
            if !self.disk_answers || !self.commit_one() {
                return;
            }
        }
    }

    fn commit_one(&mut self) -> bool {
        let Some(pending) = self.pending.pop_front() else { return false };
        self.durable.remember(pending.record());
        self.written.push(pending.record().clone());
        self.leader.handle_committed(pending.committed(), self.now);
        true
    }

    /// The leader is killed and started again on what its disk has.
    fn restart(&mut self) {
        self.pending.clear();
        self.written.clear();
        self.leader = LeaderMachine::new(self.config.clone(), self.durable.clone(), self.now);
        self.drive();
        self.heard.clear();
        self.closed.clear();
    }

    /// The disk answers everything it was asked so far.
    fn commit(&mut self) {
        while self.commit_one() {}
        self.drive();
    }

    fn say(&mut self, speaker: Speaker, message: ClientMessage) {
        self.leader.handle_message(speaker.connection, message, self.now);
        self.drive();
    }

    /// Time passes, and the leader is awake all the time.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.leader.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.leader.handle_timeout(self.now);
            self.drive();
        }
        self.now = end;
    }

    fn connect(&mut self, number: u64) -> ConnectionId {
        let connection = ConnectionId(number);
        // A session's connections have its number times a hundred, and more.
        self.connect_from(ClientId((number / 100).into()), connection)
    }

    fn connect_from(&mut self, client: ClientId, connection: ConnectionId) -> ConnectionId {
        self.leader.handle_connected(connection, client, self.now);
        connection
    }

    fn disconnect(&mut self, speaker: Speaker) {
        self.leader.handle_disconnected(speaker.connection, self.now);
        self.drive();
    }

    /// A new session, welcomed.
    fn session(&mut self, number: u64) -> Speaker {
        let connection = self.connect(number * 100);
        let speaker = Speaker { connection, session: number.into(), count: 1 };
        self.report(speaker, &[], Vec::new());
        assert!(self.take(speaker).iter().any(|m| matches!(m, LeaderMessage::Welcome { .. })));
        speaker
    }

    /// The same as one of this client's.
    fn session_of(&mut self, client: u128, number: u64) -> Speaker {
        let connection = self.connect_from(ClientId(client), ConnectionId(number * 100));
        let speaker = Speaker { connection, session: number.into(), count: 1 };
        self.report(speaker, &[], Vec::new());
        assert!(self.take(speaker).iter().any(|m| matches!(m, LeaderMessage::Welcome { .. })));
        speaker
    }

    /// The session comes back on another connection of this client.
    fn again_from(&mut self, client: u128, speaker: Speaker) -> Speaker {
        let connection = ConnectionId(speaker.connection.0 + 1);
        let connection = self.connect_from(ClientId(client), connection);
        Speaker { connection, count: speaker.count + 1, ..speaker }
    }

    /// The session comes back on another connection.
    fn again(&mut self, speaker: Speaker) -> Speaker {
        let connection = self.connect(speaker.connection.0 + 1);
        Speaker { connection, count: speaker.count + 1, ..speaker }
    }

    fn report(&mut self, speaker: Speaker, held: &[LeaseId], requests: Vec<WaitingRequest>) {
        self.report_held(speaker, held.iter().map(|&lease| held_lease(lease)).collect(), requests);
    }

    fn report_held(
        &mut self,
        speaker: Speaker,
        leases: Vec<HeldLease>,
        requests: Vec<WaitingRequest>,
    ) {
        self.say(speaker, hello(speaker));
        self.say(speaker, ClientMessage::Held { leases });
        self.say(speaker, ClientMessage::Waiting { requests });
        self.say(speaker, ClientMessage::Ready);
    }

    fn acquire(&mut self, speaker: Speaker, request: u64, acquire: Acquire) {
        self.say(speaker, ClientMessage::Acquire { request: RequestId(request), acquire });
    }

    /// The journal knows that the session has asked for this name, which is free.
    fn has_asked_for(&mut self, speaker: Speaker, request: u64, text: &str) {
        self.acquire(speaker, request, acquire(text));
        let grant = self.granted(speaker, request);
        self.release(speaker, grant.lease);
        self.take(speaker);
    }

    fn cancel(&mut self, speaker: Speaker, request: u64) {
        self.say(speaker, ClientMessage::Cancel { request: RequestId(request) });
    }

    fn release(&mut self, speaker: Speaker, lease: LeaseId) {
        let how = crate::error::Predecessor::Clean;
        self.say(speaker, ClientMessage::Release { lease, last_used: Token::ZERO, how });
    }

    fn renew(&mut self, speaker: Speaker) {
        self.say(speaker, ClientMessage::Renew { sent_at: self.now });
    }

    /// What this connection heard since the last look.
    fn take(&mut self, speaker: Speaker) -> Vec<LeaderMessage> {
        let (own, others) = std::mem::take(&mut self.heard)
            .into_iter()
            .partition(|(at, _)| *at == speaker.connection);
        self.heard = others;
        let own: Vec<(ConnectionId, LeaderMessage)> = own;
        own.into_iter().map(|(_, message)| message).collect()
    }

    /// The grant this connection has heard, as lease, token and the predecessor.
    fn granted(&mut self, speaker: Speaker, request: u64) -> HeardGrant {
        self.try_granted(speaker, request).unwrap_or_else(|other| panic!("no grant, but {other:?}"))
    }

    fn try_granted(
        &mut self,
        speaker: Speaker,
        wanted: u64,
    ) -> Result<HeardGrant, Vec<LeaderMessage>> {
        let heard = self.take(speaker);
        let grant = heard.iter().find_map(|message| match *message {
            LeaderMessage::Granted { request, lease, first, predecessor, at_most, .. } => {
                let wanted = request == RequestId(wanted);
                wanted.then_some(HeardGrant { lease, token: first, predecessor, at_most })
            }
            _ => None,
        });
        grant.ok_or(heard)
    }

    /// The block that this connection was granted, as its holder reports it.
    fn block(&mut self, speaker: Speaker, wanted: u64) -> (LeaseId, HeldLease) {
        let heard = self.take(speaker);
        let block = heard.iter().find_map(|message| match *message {
            LeaderMessage::Granted { request, lease, first, last, .. } => {
                let block = HeldLease { first, last, last_used: last, ..held_lease(lease) };
                (request == RequestId(wanted)).then_some((lease, block))
            }
            _ => None,
        });
        block.unwrap_or_else(|| panic!("no grant, but {heard:?}"))
    }

    fn refused(&mut self, speaker: Speaker, wanted: u64) -> Option<Refusal> {
        self.take(speaker).into_iter().find_map(|message| match message {
            LeaderMessage::Refused { request, why, .. } => {
                (request == RequestId(wanted)).then_some(why)
            }
            _ => None,
        })
    }

    fn place(&mut self, speaker: Speaker, wanted: u64) -> Place {
        let heard = self.take(speaker);
        let place = heard.iter().find_map(|message| match message {
            LeaderMessage::Queued { request, place, .. } => {
                (*request == RequestId(wanted)).then_some(*place)
            }
            _ => None,
        });
        place.unwrap_or_else(|| panic!("not queued, but {heard:?}"))
    }

    fn closed(&mut self, speaker: Speaker) -> Option<Close> {
        let found = self.closed.iter().find(|(connection, _)| *connection == speaker.connection);
        found.map(|(_, why)| *why)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct HeardGrant {
    lease: LeaseId,
    token: Token,
    predecessor: crate::error::Predecessor,
    at_most: Option<Duration>,
}

fn hello(speaker: Speaker) -> ClientMessage {
    ClientMessage::Hello {
        version: VERSION,
        capabilities: CAPABILITIES,
        session: SessionId(speaker.session),
        proof: Proof(speaker.session + 1),
        count: speaker.count,
        cluster: None,
        seen: None,
        time_to_live: TTL,
        identity: Identity::new(&format!("session {}", speaker.session), "host", 1, "cmd"),
        process: ProcessMark(speaker.session),
    }
}

fn held_lease(lease: LeaseId) -> HeldLease {
    HeldLease {
        lease,
        name: name("whatever"),
        first: Token::ZERO,
        last: Token::ZERO,
        last_used: Token::ZERO,
        at_most: None,
        kept: false,
        since: Duration::ZERO,
        leaving: None,
        reign: REIGN,
        mode: Mode::Exclusive,
        value: None,
    }
}

/// What its holder reports of a grant.
fn held(text: &str, grant: HeardGrant) -> HeldLease {
    let HeardGrant { lease, token, .. } = grant;
    HeldLease { name: name(text), first: token, last: token, last_used: token, ..held_lease(lease) }
}

fn waiting(request: u64, acquire: Acquire, place: Option<Place>) -> WaitingRequest {
    WaitingRequest { request: RequestId(request), acquire, place }
}
