//! Sessions: what identifies them, what they hold and wait for, and their deadlines.
//!
//! Sends nothing and writes nothing; the leader decides what follows from a deadline.

mod renewal_clock;

pub(super) use self::renewal_clock::RenewalClock;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    ClientId, ConnectionId, LeaseId, ProcessMark, Proof, RequestId, SessionId, TIME_TO_LIVE,
    absence::{AbsentBounds, SessionBound},
    bound::Bound,
    count_long,
    lock::{HoldKey, PackedId, SessionKey, WaiterKey},
    mistake::{Mistake, planted},
    numbered::{Keyed, sorted},
    record::{OpenSession, Opened, TakenAway},
    slab::Slab,
    timers::Timers,
    wire::{Identity, Refusal},
};
use crate::{error::LostReason, time::Time};

pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) proof: Proof,
    /// Fixed at its opening.
    pub(super) time_to_live: Duration,
    pub(super) identity: Identity,
    pub(super) process: ProcessMark,
    /// What its client's release can do, as its newest connection says.
    pub(super) capabilities: u64,
    /// Where its newest connection is from.
    pub(super) at: ClientId,
    /// The client that its newest connection is of; none while an earlier reign's session is away.
    client: Option<ClientKey>,
    /// An earlier reign opened it, and it has not come back yet.
    awaited: bool,
    /// Of the newest connection with a whole report.
    pub(super) count: u64,
    /// That connection, while it lasts.
    pub(super) connection: Option<ConnectionId>,
    pub(super) standing: Standing,
    /// The names that it has asked for, as the journal knows them.
    pub(super) bound: SessionBound,
    /// Since when that was not narrowed.
    pub(super) bound_since: Option<Time>,
    /// Why its requests are refused, whatever they ask.
    pub(super) refusal: Option<Refusal>,
    pub(super) last_request: RequestId,
    /// The one of its requests that was refused last.
    pub(super) last_refused: RequestId,
    /// Since when no renewal has found it with anything to do.
    pub(super) idle_since: Option<Time>,
    pub(super) renewals: RenewalClock,
    deadline: Time,
    /// After a restart their numbers, too, are what the client says.
    leases: Keyed<PackedId, HoldKey>,
    /// What was taken away from it durably, until it answers for that.
    revoked: Losses,
    /// Their numbers are the client's choice, so no weak hash of them will do.
    waiting: BTreeMap<RequestId, WaiterKey>,
    busy: bool,
    /// That it was opened or has come back is told, if such is told.
    pub(super) is_told: bool,
}

/// Leases that were taken away, and why.
type Losses = BTreeMap<PackedId, (LostReason, TakenAway)>;

/// How far a session has come with the journal.
///
/// | from | to | when |
/// |---|---|---|
/// | `New` | `Opening` | its first request |
/// | `Opening` | `Open` | that is durable; a session of an earlier reign begins here |
/// | `Open` | `Idling` | it wanted nothing for a minute |
/// | `Idling` | `New` | that is durable |
/// | `Idling` | `Opening` | a request came before that |
/// | all but `New` | `Ending` | it said goodbye or ran out; final |
///
/// The numbers are those of the records that are awaited.
pub(super) enum Standing {
    /// Nothing is written about it.
    New,
    /// Its opening is on its way to the disk.
    Opening(u64),
    Open(Opened),
    /// The journal is to forget it, for as long as it wants nothing.
    Idling(u64),
    /// Its end is on its way to the disk.
    Ending(u64),
}

/// The time to live that a session asks for, and what bounds it.
pub(super) struct AskedTimeToLive {
    pub(super) asked: Duration,
    /// A shorter one is raised to this.
    pub(super) least: Duration,
    /// The longest that its client may ask for, if its credential says so.
    pub(super) own_max: Option<Duration>,
    /// The longest that its leader has, raised ones among them.
    pub(super) max: Duration,
}

impl AskedTimeToLive {
    /// What is asked for is judged by the credential, and not what the leader makes of it: else a
    /// credential for less than the least would be for nothing.
    fn fits(&self) -> bool {
        let own_max = self.own_max.unwrap_or(*TIME_TO_LIVE.end());
        self.asked >= *TIME_TO_LIVE.start()
            && self.asked <= own_max
            && self.asked.max(self.least) <= self.longest()
    }

    fn in_force(&self) -> Duration {
        self.asked.max(self.least).clamp(*TIME_TO_LIVE.start(), self.longest())
    }

    fn longest(&self) -> Duration {
        self.max.clamp(*TIME_TO_LIVE.start(), *TIME_TO_LIVE.end())
    }
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        proof: Proof,
        asked: AskedTimeToLive,
        identity: Identity,
        process: ProcessMark,
    ) -> Session {
        Session {
            id,
            proof,
            time_to_live: asked.in_force(),
            identity,
            process,
            capabilities: 0,
            at: ClientId(0),
            client: None,
            awaited: false,
            count: 0,
            connection: None,
            standing: Standing::New,
            bound: SessionBound::default(),
            bound_since: None,
            refusal: (!asked.fits()).then_some(Refusal::TimeToLive),
            last_request: RequestId(0),
            last_refused: RequestId(0),
            idle_since: None,
            renewals: RenewalClock::default(),
            deadline: Time::ZERO,
            leases: Keyed::default(),
            revoked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            busy: false,
            is_told: false,
        }
    }

    /// One that an earlier reign opened. What it was promised then is promised still, whatever
    /// this leader accepts from new ones.
    pub(super) fn recovered(id: SessionId, open: &OpenSession) -> Session {
        let (identity, process) = (Identity::default(), ProcessMark(0)); // its report tells
        let asked = AskedTimeToLive {
            asked: open.time_to_live,
            least: Duration::ZERO,
            own_max: None,
            max: *TIME_TO_LIVE.end(),
        };
        let revoked = open.revoked().filter_map(|(lease, why, proof)| {
            PackedId::of_lease(lease).map(|lease| (lease, (why, proof)))
        });
        Session {
            standing: Standing::Open(open.opened()),
            bound: SessionBound::durable(match planted(Mistake::BoundForgotten) {
                true => Bound::NOTHING,
                false => open.bound,
            }),
            awaited: true,
            revoked: revoked.collect(),
            ..Session::new(id, open.proof, asked, identity, process)
        }
    }

    /// Whether an earlier reign opened it and it has not come back yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Why this lease was taken away durably, if it was and the session has not answered.
    pub(super) fn revoked(&self, lease: PackedId) -> Option<(LostReason, TakenAway)> {
        self.revoked.get(&lease).copied()
    }

    /// Whether something was taken away from it durably, and it has not answered.
    pub(super) fn has_lost(&self) -> bool {
        !self.revoked.is_empty()
    }

    /// What it holds, and what was taken away from it without its answer: a session that does not answer
    /// would otherwise have a leader remember losses without end.
    pub(super) fn answerable_for(&self) -> usize {
        self.leases.len() + self.revoked.len()
    }

    /// Until when its leases are promised, counted long.
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) fn leases(&self) -> &Keyed<PackedId, HoldKey> {
        &self.leases
    }

    /// The same, the first granted first.
    pub(super) fn leases_in_order(&self) -> Vec<(PackedId, HoldKey)> {
        let leases = sorted(&self.leases).into_iter();
        leases.map(|lease| (lease, self.leases[&lease])).collect()
    }

    pub(super) fn waiting(&self) -> &BTreeMap<RequestId, WaiterKey> {
        &self.waiting
    }

    fn account(&self) -> Account {
        Account {
            written: usize::from(!matches!(self.standing, Standing::New)),
            claims: self.leases.len() + self.waiting.len(),
            owed: self.revoked.len(),
        }
    }
}

/// What a session counts for, or all of them together.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Whether the journal knows it or is about to.
    written: usize,
    /// Leases and waiters.
    claims: usize,
    /// Losses without its answer.
    owed: usize,
}

impl Account {
    /// What of it is shared out among clients.
    fn holdings(self) -> Holdings {
        Holdings {
            sessions: self.written,
            claims: self.claims + self.owed,
            reservations: 0, // they outlive the session
        }
    }

    /// One of those that are counted had `before`, and has `after`.
    fn count(&mut self, before: Account, after: Account) {
        let Account { written, claims, owed } = self;
        *written = *written - before.written + after.written;
        *claims = *claims - before.claims + after.claims;
        *owed = *owed - before.owed + after.owed;
    }
}

/// What a client has of what is shared out.
#[derive(Clone, Copy, Default)]
pub(super) struct Holdings {
    /// Sessions that the journal knows or is about to.
    pub(super) sessions: usize,
    /// Leases, waiters, losses that are not answered for, and reservations.
    pub(super) claims: usize,
    /// Names that `at_least` keeps taken.
    pub(super) reservations: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct ClientKey(u32);

/// A client, as long as it has a session or a reservation here.
struct ClientShare {
    id: ClientId,
    sessions: usize,
    holdings: Holdings,
}

pub(super) struct Sessions {
    sessions: Slab<Session>,
    by_id: BTreeMap<SessionId, SessionKey>,
    clients: Slab<ClientShare>,
    clients_by_id: BTreeMap<ClientId, ClientKey>,
    deadlines: Timers<SessionKey>,
    /// How many hold or wait.
    busy: u32,
    /// The most often that a session renews.
    pace: Duration,
    /// Another leader may follow this one at any time.
    is_followed: bool,
    /// What they have together.
    total: Account,
    /// How many are awaited.
    awaited: usize,
    /// The bounds of those.
    pub(super) absent: AbsentBounds,
    /// Those that were told to be gone, the longest ago first, and the same by id.
    gone: VecDeque<SessionId>,
    is_gone: BTreeSet<SessionId>,
}

impl Sessions {
    /// `pace` is the most often that sessions are asked to renew, if it matters that those which the
    /// journal knows miss this leader soon.
    pub(super) fn new(pace: Option<Duration>) -> Sessions {
        Sessions {
            pace: pace.unwrap_or(RENEW_EVERY_MIN).max(RENEW_EVERY_MIN / 2),
            is_followed: pace.is_some(),
            sessions: Slab::new(),
            by_id: BTreeMap::new(),
            clients: Slab::new(),
            clients_by_id: BTreeMap::new(),
            deadlines: Timers::new(),
            busy: 0,
            total: Account::default(),
            awaited: 0,
            absent: AbsentBounds::default(),
            gone: VecDeque::new(),
            is_gone: BTreeSet::new(),
        }
    }

    /// This session is told to be gone: what it said before on some other connection must not
    /// make it anew. Of more than [`GONE_MAX`] the last ones are remembered.
    pub(super) fn mark_gone(&mut self, id: SessionId) {
        if self.is_gone.insert(id) {
            self.gone.push_back(id);
        }
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.is_gone.remove(&oldest);
        }
    }

    pub(super) fn was_told_gone(&self, id: SessionId) -> bool {
        self.is_gone.contains(&id)
    }

    pub(super) fn find(&self, id: SessionId) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, key: SessionKey) -> &Session {
        &self.sessions[key.0]
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.sessions[key.0]
    }

    pub(super) fn written(&self) -> usize {
        self.total.written
    }

    pub(super) fn claims(&self) -> usize {
        self.total.claims
    }

    pub(super) fn owed(&self) -> usize {
        self.total.owed
    }

    /// From now on it counts as this client's.
    pub(super) fn belongs_to(&mut self, key: SessionKey, id: ClientId) {
        self.leave_client(key);
        let client = self.find_or_add_client(id);
        self.clients[client.0].sessions += 1;
        self.sessions[key.0].client = Some(client);
        let holdings = self.sessions[key.0].account().holdings();
        self.count(Some(client), Holdings::default(), holdings);
    }

    /// The client that it counts as one of.
    pub(super) fn client_of(&self, key: SessionKey) -> ClientId {
        let client = self.sessions[key.0].client;
        client.map_or(ClientId(0), |client| self.clients[client.0].id)
    }

    fn leave_client(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key.0];
        let Some(client) = session.client.take() else { return };
        let holdings = session.account().holdings();
        self.count(Some(client), holdings, Holdings::default());
        self.clients[client.0].sessions -= 1;
        self.forget_client_if_unused(client);
    }

    fn find_or_add_client(&mut self, id: ClientId) -> ClientKey {
        let clients = &mut self.clients;
        *self.clients_by_id.entry(id).or_insert_with(|| {
            ClientKey(clients.insert(ClientShare {
                id,
                sessions: 0,
                holdings: Holdings::default(),
            }))
        })
    }

    fn forget_client_if_unused(&mut self, client: ClientKey) {
        let ClientShare { id, sessions, holdings } = &self.clients[client.0];
        if *sessions == 0 && holdings.reservations == 0 {
            self.clients_by_id.remove(id);
            self.clients.remove(client.0);
        }
    }

    /// One more name is reserved by this client.
    pub(super) fn add_reservation(&mut self, id: ClientId) {
        let client = self.find_or_add_client(id);
        self.count(Some(client), Holdings::default(), ONE_RESERVATION);
    }

    /// One less is, that was added before.
    pub(super) fn remove_reservation(&mut self, id: ClientId) {
        let client = self.clients_by_id[&id];
        self.count(Some(client), ONE_RESERVATION, Holdings::default());
        self.forget_client_if_unused(client);
    }

    /// One of a client's sessions had `before`, and has `after`.
    fn count(&mut self, client: Option<ClientKey>, before: Holdings, after: Holdings) {
        let Some(client) = client else { return };
        let Holdings { sessions, claims, reservations } = &mut self.clients[client.0].holdings;
        *sessions = *sessions - before.sessions + after.sessions;
        *claims = *claims - before.claims + after.claims;
        *reservations = *reservations - before.reservations + after.reservations;
    }

    /// What this client has, with all its sessions.
    pub(super) fn holdings_of(&self, client: ClientId) -> Holdings {
        let client = self.clients_by_id.get(&client);
        client.map(|client| self.clients[client.0].holdings).unwrap_or_default()
    }

    /// The same of the client that this session belongs to.
    pub(super) fn holdings_beside(&self, key: SessionKey) -> Holdings {
        let client = self.sessions[key.0].client;
        client.map(|client| self.clients[client.0].holdings).unwrap_or_default()
    }

    /// Every session; for the few moments of a reign that concern them all.
    pub(super) fn all(&self) -> impl Iterator<Item = SessionKey> + use<'_> {
        self.by_id.values().copied()
    }

    /// Whether any session of an earlier reign has neither come back nor ended durably.
    pub(super) fn awaits_any(&self) -> bool {
        self.awaited > 0
    }

    /// How many of these there are.
    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    /// The session has come back.
    pub(super) fn returned(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key.0];
        if std::mem::take(&mut session.awaited) {
            self.awaited -= 1;
            self.absent.remove(&session.bound.handed());
        }
    }

    pub(super) fn add(&mut self, session: Session) -> SessionKey {
        let id = session.id;
        self.total.count(Account::default(), session.account());
        if session.awaited {
            self.awaited += 1;
            self.absent.add(&session.bound.handed());
        }
        let key = SessionKey(self.sessions.insert(session));
        let before = self.by_id.insert(id, key);
        assert!(before.is_none(), "{id:?} is added once");
        key
    }

    /// Its end is done, or there was nothing to end.
    pub(super) fn remove(&mut self, key: SessionKey) -> Session {
        self.returned(key);
        self.leave_client(key);
        let session = self.sessions.remove(key.0);
        assert!(session.leases.is_empty() && session.waiting.is_empty());
        self.by_id.remove(&session.id);
        self.deadlines.clear(key);
        self.total.count(session.account(), Account::default());
        session
    }

    /// Its standing with the journal changes.
    pub(super) fn stand(&mut self, key: SessionKey, standing: Standing) {
        if let Standing::Ending(_) = standing {
            self.deadlines.clear(key);
            if planted(Mistake::EndNotAwaited) {
                self.returned(key);
            }
        }
        self.change(key, |session| {
            let before = std::mem::replace(&mut session.standing, standing);
            assert!(!matches!(before, Standing::Ending(_)), "an end is final");
        });
    }

    /// Promises one more time to live from `now`: the only door through which a deadline moves.
    pub(super) fn promise(&mut self, key: SessionKey, now: Time) {
        let session = &mut self.sessions[key.0];
        assert!(!matches!(session.standing, Standing::Ending(_)), "an end is final");
        session.deadline = session.deadline.max(now + count_long(session.time_to_live));
        self.deadlines.set(key, session.deadline);
    }

    pub(super) fn pop_expired(&mut self, now: Time) -> Option<SessionKey> {
        self.deadlines.pop_due(now)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    pub(super) fn add_lease(&mut self, key: SessionKey, lease: PackedId, hold: HoldKey) {
        self.change(key, |session| assert!(session.leases.insert(lease, hold).is_none()));
    }

    /// The lease stands elsewhere in the table from now on.
    pub(super) fn move_lease(&mut self, key: SessionKey, lease: PackedId, hold: HoldKey) {
        self.change(key, |session| assert!(session.leases.insert(lease, hold).is_some()));
    }

    pub(super) fn remove_lease(&mut self, key: SessionKey, lease: PackedId) {
        self.change(key, |session| assert!(session.leases.remove(&lease).is_some()));
    }

    pub(super) fn add_waiter(&mut self, key: SessionKey, request: RequestId, waiter: WaiterKey) {
        self.change(key, |session| assert!(session.waiting.insert(request, waiter).is_none()));
    }

    pub(super) fn remove_waiter(&mut self, key: SessionKey, request: RequestId) {
        self.change(key, |session| assert!(session.waiting.remove(&request).is_some()));
    }

    /// This lease is taken away from it durably, until it answers for that.
    pub(super) fn revoke(
        &mut self,
        key: SessionKey,
        lease: PackedId,
        why: LostReason,
        proof: TakenAway,
    ) {
        self.change(key, |session| session.revoked.insert(lease, (why, proof)));
    }

    /// What it still believes in of what was taken away from it. The rest is forgotten: whatever
    /// it does not report it does not believe in.
    pub(super) fn still_revoked(
        &mut self,
        key: SessionKey,
        is_reported: impl Fn(LeaseId) -> bool,
    ) -> Vec<(LeaseId, LostReason)> {
        self.change(key, |session| {
            session.revoked.retain(|id, _| is_reported(id.lease()));
            session.revoked.iter().map(|(id, (why, _))| (id.lease(), *why)).collect()
        })
    }

    /// It has answered for the loss.
    pub(super) fn answer_for(&mut self, key: SessionKey, lease: PackedId) {
        self.change(key, |session| session.revoked.remove(&lease));
    }

    /// How often this session is to renew: those that hold or wait notice a lost leader at the
    /// next packet, so the fewer they are the more often; idle ones only to stay alive.
    pub(super) fn renew_every(&self, key: SessionKey) -> Duration {
        let session = self.get(key);
        let is_known = !matches!(session.standing, Standing::New);
        match session.busy || (self.is_followed && is_known) {
            true => self.busy_pace(session),
            false => session.time_to_live / 3,
        }
    }

    /// The same as a leader that others may follow tells it at the welcome: a client judges by it how long the leader
    /// may be silent, as soon as it asks for anything.
    pub(super) fn quick_pace(&self, key: SessionKey) -> Duration {
        match self.is_followed {
            true => self.busy_pace(self.get(key)),
            false => self.renew_every(key),
        }
    }

    fn busy_pace(&self, session: &Session) -> Duration {
        (RENEWAL_COST * self.busy).max(self.pace).min(session.time_to_live / 3)
    }

    /// The one way to change what a session counts for.
    fn change<T>(&mut self, key: SessionKey, change: impl FnOnce(&mut Session) -> T) -> T {
        let session = &mut self.sessions[key.0];
        let before = session.account();
        let result = change(session);
        let after = session.account();
        let busy = after.claims > 0;
        if busy != session.busy {
            session.busy = busy;
            if busy { self.busy += 1 } else { self.busy -= 1 }
        }
        self.total.count(before, after);
        let client = session.client;
        self.count(client, before.holdings(), after.holdings());
        result
    }
}

const ONE_RESERVATION: Holdings = Holdings { sessions: 0, claims: 1, reservations: 1 };

const GONE_MAX: usize = 16_384;

/// The most often that a session renews.
const RENEW_EVERY_MIN: Duration = Duration::from_millis(100);

/// With many sessions all renewals together are one per this time.
const RENEWAL_COST: Duration = Duration::from_millis(1);
