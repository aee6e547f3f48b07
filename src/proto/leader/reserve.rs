//! `at_least`: names that stay taken, however their holders end.
//!
//! Such a grant is told only once its entry is durable, and its time counts from the telling. The
//! entry is the leader's to keep: it is written anew as the time runs down, so that a later reign
//! knows what is left, and is deleted at the end, by a break, or when the grant was never made use
//! of. The name is free once the deletion is durable.
//!
//! Times in here are the driver's, not attended ones: a leader that was late extends no `at_least`.

use std::{collections::BTreeMap, time::Duration};

use super::{GrantVerdict, LeaderMachine};
use crate::{
    proto::{
        ClientId, ConnectionId, LeaseId, RequestId, SessionId, count_long,
        lock::{HoldKey, LockKey, PackedId, SessionKey, WaiterKey},
        mistake::{Mistake, planted},
        record::{Committed, Record, Recovered, Reservation, Reserved},
        shares::has_share,
        timers::Timers,
        wire::{LeaderMessage, Refusal},
    },
    time::Time,
    token::Token,
};

/// The reservations of a reign.
pub(super) struct Reservations {
    by_lock: BTreeMap<LockKey, RunningStay>,
    by_request: BTreeMap<(SessionId, RequestId), LockKey>,
    /// When each is over or is to be written anew, whichever is sooner.
    times: Timers<LockKey>,
    /// Those with grants that are told with the messages that the driver takes next.
    untold: Vec<LockKey>,
    /// Those with grants that the driver has taken; they count from the first time after this one.
    told: Vec<LockKey>,
    told_at: Time,
    /// Deletions on their way to the disk, by the number of the record.
    deletions: BTreeMap<u64, Deletion>,
    /// The numbers of the same, by the lease that each ends with.
    deletions_by_lease: BTreeMap<PackedId, u64>,
}

/// One name that is reserved, or about to be or to be no more.
#[derive(Clone, Copy)]
struct RunningStay {
    token: Token,
    session: SessionId,
    request: RequestId,
    /// The client that it is a claim of; none while an earlier reign's session is away.
    client: Option<ClientId>,
    at_least: Duration,
    stage: Stage,
}

/// | from | to | when |
/// |---|---|---|
/// | `Writing` | `Running` | its entry is durable and the request still waits: it is granted |
/// | `Running` | `Writing` | its grant was never heard, and is made anew |
/// | `Writing`, `Running` | `Deleting` | the request is gone; its time is over, it was broken or not used |
/// | `Writing` | none, `Deleting` | there is no room for its entry; an earlier one is deleted |
#[derive(Clone, Copy)]
enum Stage {
    /// Its entry is on its way to the disk, for a request that waits on this connection.
    Writing { number: u64, connection: ConnectionId, is_anew: bool },
    Running {
        /// Of the grant, if that was made or confirmed in this reign.
        lease: Option<PackedId>,
        /// `None` until it counts.
        until: Option<Time>,
    },
    /// The deletion of its entry is on its way to the disk.
    Deleting { number: u64 },
}

struct Deletion {
    lock: LockKey,
    lease: Option<PackedId>,
    /// What is told once it is durable.
    answers: Vec<(ConnectionId, LeaderMessage)>,
}

impl Reservations {
    pub(super) fn new() -> Reservations {
        Reservations {
            by_lock: BTreeMap::new(),
            by_request: BTreeMap::new(),
            times: Timers::new(),
            untold: Vec::new(),
            told: Vec::new(),
            told_at: Time::ZERO,
            deletions: BTreeMap::new(),
            deletions_by_lease: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_lock.len()
    }

    fn insert(&mut self, lock: LockKey, running: RunningStay) {
        self.by_request.insert((running.session, running.request), lock);
        self.by_lock.insert(lock, running);
    }

    fn remove(&mut self, lock: LockKey) -> Option<RunningStay> {
        self.times.clear(lock);
        self.told.retain(|told| *told != lock);
        self.untold.retain(|untold| *untold != lock);
        let running = self.by_lock.remove(&lock)?;
        self.by_request.remove(&(running.session, running.request));
        Some(running)
    }

    fn add_deletion(&mut self, number: u64, lock: LockKey, lease: Option<PackedId>) {
        if let Some(lease) = lease {
            self.deletions_by_lease.insert(lease, number);
        }
        self.deletions.insert(number, Deletion { lock, lease, answers: Vec::new() });
    }

    /// The deletion of that number ends with this lease, too.
    fn deletes_with(&mut self, number: u64, lease: PackedId) {
        let Some(deletion) = self.deletions.get_mut(&number) else { return };
        if let Some(before) = deletion.lease.replace(lease) {
            self.deletions_by_lease.remove(&before);
        }
        self.deletions_by_lease.insert(lease, number);
    }

    fn take_deletion(&mut self, number: u64) -> Option<Deletion> {
        let deletion = self.deletions.remove(&number)?;
        if let Some(lease) = deletion.lease {
            self.deletions_by_lease.remove(&lease);
        }
        Some(deletion)
    }

    /// From when on a reading of the clock dates what was told.
    pub(super) fn wants_a_time(&self) -> Option<Time> {
        (!self.told.is_empty()).then(|| self.told_at + Duration::from_nanos(1))
    }

    /// The driver has taken all messages, at `now` or after it.
    pub(super) fn messages_are_taken(&mut self, now: Time) {
        if !self.untold.is_empty() {
            self.told.append(&mut self.untold);
            self.told_at = now;
        }
    }
}

// From the queue to the telling.
impl LeaderMachine {
    /// The waiter to be granted a lock without a holder.
    pub(super) fn next_waiter(&self, lock: LockKey) -> Option<WaiterKey> {
        match self.reservations.by_lock.get(&lock) {
            None => self.table.first_present(lock),
            Some(_) => self.waiter_reserved_for(lock),
        }
    }

    /// The request that has never heard that the name was reserved for it: it is granted at once.
    fn waiter_reserved_for(&self, lock: LockKey) -> Option<WaiterKey> {
        let running = self.reservations.by_lock.get(&lock)?;
        let Stage::Running { .. } = running.stage else { return None };
        if planted(Mistake::UnheardNotAnew) {
            return None;
        }
        let key = self.sessions.find(running.session)?;
        let waiter = *self.sessions.get(key).waiting().get(&running.request)?;
        self.table.waiter(waiter).present.then_some(waiter)
    }

    /// Whether the name's reservation keeps this request from it.
    pub(super) fn is_reserved_from(
        &self,
        lock: LockKey,
        request: Option<(SessionKey, RequestId)>,
    ) -> bool {
        let Some(running) = self.reservations.by_lock.get(&lock) else { return false };
        let is_its_own = request.is_some_and(|(key, request)| {
            running.request == request && running.session == self.sessions.get(key).id
        });
        matches!(running.stage, Stage::Running { .. })
            && !is_its_own
            && self.waiter_reserved_for(lock).is_none()
    }

    /// Whether one more name can be reserved, for the client of this session. One that is reserved
    /// for the request already takes no more.
    pub(super) fn may_reserve(&self, lock: LockKey, by: SessionKey) -> Result<(), Refusal> {
        let own = self.sessions.holdings_beside(by);
        let (taken, most) = (self.reservations.len(), self.config.reservations_max);
        if self.reservations.by_lock.contains_key(&lock) {
            Ok(())
        } else if !has_share(own.reservations, taken, most) {
            Err(Refusal::TooManyReservations)
        } else if !has_share(own.claims, self.claims(), self.config.claims_max) {
            Err(Refusal::TooManyClaims)
        } else {
            Ok(())
        }
    }

    /// From now on the name is reserved like this, and by nothing that was before.
    fn keep_reserved(&mut self, lock: LockKey, running: RunningStay) {
        self.drop_reservation(lock);
        self.reservations.insert(lock, running);
        if let Some(client) = running.client {
            self.sessions.add_reservation(client);
        }
    }

    fn drop_reservation(&mut self, lock: LockKey) {
        if let Some(RunningStay { client: Some(client), .. }) = self.reservations.remove(lock) {
            self.sessions.remove_reservation(client);
        }
    }

    /// What a session has reserved, in this reign or before it, is this client's from now on.
    pub(super) fn reservations_belong_to(&mut self, session: SessionId, client: ClientId) {
        let of_session = (session, RequestId(0))..=(session, RequestId(u64::MAX));
        for (_, lock) in self.reservations.by_request.range(of_session) {
            let running = self.reservations.by_lock.get_mut(lock).expect("it is in both");
            if running.client == Some(client) {
                continue;
            }
            if let Some(before) = running.client.replace(client) {
                self.sessions.remove_reservation(before);
            }
            self.sessions.add_reservation(client);
        }
    }

    /// A request with `at_least` is next: its entry is written, and it waits for that.
    pub(super) fn reserve(&mut self, waiter: WaiterKey, at_least: Duration, token: Token) {
        let waiter = self.table.waiter(waiter);
        let (lock, request) = (waiter.lock, waiter.request);
        let session = self.sessions.get(waiter.session);
        let (session, connection) = (session.id, session.connection.expect("it is present"));
        let name = self.table.lock(lock).name.clone();
        self.table.reserve(lock, token);
        let reservation = Reservation { token, session, request, at_least, left: at_least };
        let record = Record::Reserved { name, reservation };
        let number = match planted(Mistake::ReservedAtRelease) {
            true => 0,
            false => self.write(record.clone()),
        };
        let is_anew = self.reservations.by_lock.contains_key(&lock);
        let stage = Stage::Writing { number, connection, is_anew };
        let client = Some(self.client_of(connection));
        self.keep_reserved(lock, RunningStay { token, session, request, client, at_least, stage });
        if planted(Mistake::ReservedFromGrant) {
            let end = self.wall() + count_long(at_least);
            self.reservations.times.set(lock, end);
        }
        if planted(Mistake::ReservedToldFirst) || planted(Mistake::ReservedAtRelease) {
            self.pretend_reserved(number, record);
        }
    }

    /// For mistakes: as if the entry were durable.
    fn pretend_reserved(&mut self, number: u64, record: Record) {
        if let super::Allows::TellingReserved { name, number, proof } =
            (Committed { number, record }).allows()
            && let Some(lock) = self.table.find(&name)
        {
            self.entry_is_durable(lock, number, proof, self.clock.now());
        }
    }

    /// The entry is durable: the request that it was written for is granted, if it still waits for
    /// it on the same connection.
    pub(super) fn entry_is_durable(
        &mut self,
        lock: LockKey,
        number: u64,
        proof: Reserved,
        now: Time,
    ) {
        let Some(&RunningStay { token, session, request, stage, .. }) =
            self.reservations.by_lock.get(&lock)
        else {
            return;
        };
        let Stage::Writing { number: awaited, connection, is_anew } = stage else { return };
        if awaited != number {
            return;
        }
        let waiter = self.waiter_of(session, request, connection).filter(|&waiter| {
            // One that came back meanwhile may have been there before it.
            is_anew || self.table.first_present(lock) == Some(waiter)
        });
        let verdict = waiter.map(|waiter| self.judge(self.table.waiter(waiter), now));
        let (Some(key), Some(GrantVerdict::Granted(lease, _))) = (waiter, verdict) else {
            if planted(Mistake::ReservedForNone) {
                return self.run(lock, None);
            }
            self.end_reservation(lock);
            return;
        };
        let waiter = self.take_waiter(key);
        self.run(lock, Some(lease));
        self.reservations.untold.push(lock);
        self.grant_reserved(&waiter, lease, token, now, &proof);
    }

    /// The journal has no room for the entry: the request that it was for is refused.
    pub(super) fn entry_is_unwritten(&mut self, lock: LockKey, number: u64, now: Time) {
        let Some(&RunningStay { session, request, stage, .. }) =
            self.reservations.by_lock.get(&lock)
        else {
            return;
        };
        let Stage::Writing { number: awaited, is_anew, .. } = stage else { return };
        if awaited != number {
            return;
        }
        let key = self.sessions.find(session);
        let waiter = key.and_then(|key| self.sessions.get(key).waiting().get(&request).copied());
        if !is_anew {
            self.drop_reservation(lock);
            self.table.unreserve(lock);
            self.unsettled.push(lock);
            if let Some(waiter) = waiter {
                self.refuse_waiter(waiter, Refusal::DiskFull, now);
            }
            return;
        }
        // The entry of the grant that was never heard is there still. Before its deletion is durable
        // the request may be brought back, and nothing else is to be granted the name.
        let deletion = self.end_reservation(lock).expect("it is reserved");
        if let (Some(key), Some(waiter)) = (key, waiter) {
            self.drop_waiter(waiter);
            if let Some(connection) = self.sessions.get(key).connection {
                let (why, holder) = (Refusal::DiskFull, None);
                let refused = LeaderMessage::Refused { request, why, holder };
                self.tell_when_unreserved(deletion, connection, refused);
            }
        }
    }

    fn waiter_of(
        &self,
        session: SessionId,
        request: RequestId,
        connection: ConnectionId,
    ) -> Option<WaiterKey> {
        let session = self.sessions.get(self.sessions.find(session)?);
        let waiter = *session.waiting().get(&request)?;
        (session.connection == Some(connection)).then_some(waiter)
    }

    fn run(&mut self, lock: LockKey, lease: Option<PackedId>) {
        let running = self.reservations.by_lock.get_mut(&lock).expect("it is reserved");
        running.stage = Stage::Running { lease, until: None };
    }

    /// For mistakes: a report is answered with a grant before its entry is durable.
    pub(super) fn answer_early(&mut self, key: SessionKey, request: RequestId) {
        let session = self.sessions.get(key);
        let (id, connection) = (session.id, session.connection);
        if let Some(&lock) = self.reservations.by_request.get(&(id, request))
            && let Some(running) = self.reservations.by_lock.get_mut(&lock)
            && let (Stage::Writing { number, connection: on, .. }, Some(connection)) =
                (&mut running.stage, connection)
        {
            *on = connection;
            let (number, RunningStay { token, session, at_least, .. }) = (*number, *running);
            let name = self.table.lock(lock).name.clone();
            let reservation = Reservation { token, session, request, at_least, left: at_least };
            self.pretend_reserved(number, Record::Reserved { name, reservation });
        }
    }
}

// Time.
impl LeaderMachine {
    /// The driver's time of the last event.
    pub(super) fn wall(&self) -> Time {
        if planted(Mistake::LateLoopExtends) { self.clock.now() } else { self.clock.raw() }
    }

    /// When to wake for what is next to be done about reservations.
    pub(super) fn wake_for_reservations(&self) -> Option<Time> {
        let due = self.reservations.times.next()?;
        Some(match planted(Mistake::LateLoopExtends) {
            true => self.clock.wake_at(due),
            false => self.clock.wake_at_raw(due),
        })
    }

    /// What earlier reigns reserved.
    pub(super) fn take_over_reservations(&mut self, recovered: &Recovered) {
        if planted(Mistake::NoReservationAfterRestart) {
            return;
        }
        for (name, reservation) in &recovered.reservations {
            let Reservation { token, session, request, at_least, left } = *reservation;
            let lock = self.table.find_or_add(name.clone());
            self.table.reserve(lock, Token::ZERO);
            let stage = Stage::Running { lease: None, until: Some(Time::ZERO + left) };
            let client = None;
            self.keep_reserved(
                lock,
                RunningStay { token, session, request, client, at_least, stage },
            );
        }
    }

    /// The reign is durable: what was left counts from now.
    pub(super) fn date_recovered_reservations(&mut self) {
        let now = self.wall();
        let locks: Vec<_> = self.reservations.by_lock.keys().copied().collect();
        for lock in locks {
            let running = self.reservations.by_lock.get_mut(&lock).expect("just seen");
            let at_least = running.at_least;
            if let Stage::Running { until: until @ Some(_), .. } = &mut running.stage {
                let left = until.expect("just seen").since(Time::ZERO);
                let left = if planted(Mistake::CountedAnew) { at_least } else { left };
                *until = Some(now + count_long(left));
            }
            self.set_reservation_time(lock);
        }
    }

    /// Grace is over: holders of reserved names have reported, and their tokens are known.
    pub(super) fn raise_reserved_tokens(&mut self) {
        for (&lock, running) in &self.reservations.by_lock {
            if !self.table.is_held(lock) {
                self.table.raise(lock, running.token);
            }
        }
    }

    /// Those that were told before this reading of the clock count from it.
    pub(super) fn date_reservations(&mut self) {
        let now = self.wall();
        if self.reservations.told.is_empty() || self.clock.raw() <= self.reservations.told_at {
            return;
        }
        for lock in std::mem::take(&mut self.reservations.told) {
            if let Some(running) = self.reservations.by_lock.get_mut(&lock)
                && let Stage::Running { until: until @ None, .. } = &mut running.stage
            {
                *until = Some(match self.reservations.times.get(lock) {
                    Some(end) => end, // a mistake
                    None => now + count_long(running.at_least),
                });
                self.set_reservation_time(lock);
            }
        }
    }

    fn set_reservation_time(&mut self, lock: LockKey) {
        let running = &self.reservations.by_lock[&lock];
        if let Stage::Running { until: Some(until), .. } = running.stage {
            let next = self.wall() + step(running.at_least);
            self.reservations.times.set(lock, until.min(next));
        }
    }

    /// What is due by now: ends, and entries that say too much.
    pub(super) fn look_at_reservations(&mut self) {
        let now = self.wall();
        while let Some(lock) = self.reservations.times.pop_due(now) {
            match self.reservations.by_lock.get(&lock).map(|running| running.stage) {
                Some(Stage::Running { until: Some(until), .. }) if until <= now => {
                    self.end_reservation(lock);
                }
                Some(Stage::Running { until: Some(_), .. }) => {
                    self.rewrite(lock);
                    self.set_reservation_time(lock);
                }
                Some(Stage::Deleting { .. }) if planted(Mistake::RewrittenBehindDeletion) => {
                    self.rewrite(lock);
                }
                _ => {}
            }
        }
    }

    /// Writes what is left.
    fn rewrite(&mut self, lock: LockKey) {
        let running = &self.reservations.by_lock[&lock];
        let &RunningStay { token, session, request, at_least, stage, .. } = running;
        let left = match stage {
            Stage::Running { until: Some(until), .. } if !planted(Mistake::CountedAnew) => {
                count_back(until.since(self.wall()))
            }
            _ => at_least,
        };
        let name = self.table.lock(lock).name.clone();
        let reservation = Reservation { token, session, request, at_least, left };
        self.write(Record::Reserved { name, reservation });
    }

    /// The leader stops in good order: the entries say what is left just now.
    pub fn handle_stop(&mut self, now: Time) {
        self.attend(now);
        if self.reign.is_none() || self.over.is_some() {
            return;
        }
        let is_running =
            |running: &RunningStay| matches!(running.stage, Stage::Running { until: Some(_), .. });
        let all = self.reservations.by_lock.iter();
        let running: Vec<_> =
            all.filter(|(_, running)| is_running(running)).map(|(&lock, _)| lock).collect();
        running.into_iter().for_each(|lock| self.rewrite(lock));
    }
}

// The end.
impl LeaderMachine {
    /// Has the entry of this name deleted; the name is free once that is durable. Answers the
    /// number of the record.
    pub(super) fn end_reservation(&mut self, lock: LockKey) -> Option<u64> {
        let running = self.reservations.by_lock.get(&lock)?;
        let (token, stage) = (running.token, running.stage);
        if let Stage::Deleting { number } = stage {
            return Some(number);
        }
        let name = self.table.lock(lock).name.clone();
        let number = self.write(Record::ReservationEnded { name, token });
        let lease = match stage {
            Stage::Running { lease, .. } => lease,
            _ => None,
        };
        if planted(Mistake::RewrittenBehindDeletion) {
            let now = self.wall();
            self.reservations.times.set(lock, now);
        } else {
            self.reservations.times.clear(lock);
        }
        let running = self.reservations.by_lock.get_mut(&lock).expect("just seen");
        running.stage = Stage::Deleting { number };
        self.reservations.add_deletion(number, lock, lease);
        Some(number)
    }

    /// The deletion is durable.
    pub(super) fn deletion_is_durable(&mut self, number: u64) {
        let Some(deletion) = self.reservations.take_deletion(number) else { return };
        self.drop_reservation(deletion.lock);
        self.table.unreserve(deletion.lock);
        self.unsettled.push(deletion.lock);
        self.messages.extend(deletion.answers);
    }

    /// This is told once the deletion of that number is durable.
    pub(super) fn tell_when_unreserved(
        &mut self,
        number: u64,
        connection: ConnectionId,
        message: LeaderMessage,
    ) {
        match self.reservations.deletions.get_mut(&number) {
            Some(deletion) => deletion.answers.push((connection, message)),
            None => self.messages.push_back((connection, message)),
        }
    }

    /// For mistakes: the entry is written when the holder leaves, and not before.
    pub(super) fn reserve_at_release(&mut self, lock: LockKey) {
        if self.reservations.by_lock.contains_key(&lock) {
            self.rewrite(lock);
        }
    }

    /// A lease of this name is given back or taken away as one that was never entered: nothing is
    /// reserved for it. Answers the number of the deletion, if there is one.
    pub(super) fn was_not_used(&mut self, lock: LockKey, lease: PackedId) -> Option<u64> {
        let running = self.reservations.by_lock.get(&lock)?;
        match running.stage {
            Stage::Running { lease: Some(own), .. }
                if own == lease && !planted(Mistake::UnusedReserved) =>
            {
                self.end_reservation(lock)
            }
            _ => None,
        }
    }

    /// This request is over without having heard of a grant. Answers by what the name is still held
    /// for it, as a grant that is on its way.
    pub(super) fn request_is_over(
        &mut self,
        key: SessionKey,
        request: RequestId,
    ) -> Option<HoldKey> {
        let session = self.sessions.get(key);
        let lock = *self.reservations.by_request.get(&(session.id, request))?;
        match self.reservations.by_lock[&lock].stage {
            Stage::Running { lease, .. } => {
                // It may have become a reader's.
                let held = lease.and_then(|lease| session.leases().get(&lease).copied());
                if lease.is_none() || held.is_some() {
                    self.end_reservation(lock);
                }
                held
            }
            Stage::Writing { .. } | Stage::Deleting { .. } => None,
        }
    }

    /// The deletion that the release of this lease waits for, if it was given back before.
    pub(super) fn deletion_of(&self, lease: LeaseId) -> Option<u64> {
        let lease = PackedId::of_lease(lease)?;
        self.reservations.deletions_by_lease.get(&lease).copied()
    }

    /// Whether the name is reserved by the grant of this token.
    pub(super) fn is_reserved_by(&self, lock: LockKey, token: Token) -> bool {
        let running = self.reservations.by_lock.get(&lock);
        running.is_some_and(|running| {
            running.token == token && matches!(running.stage, Stage::Running { .. })
        })
    }

    /// A holder of an earlier reign reports the grant that the reservation is of. While the deletion is on
    /// its way the entry is there still, and the grant given back waits for it as any other does.
    pub(super) fn claim_reservation(
        &mut self,
        lock: LockKey,
        session: SessionKey,
        token: Token,
        id: PackedId,
    ) {
        let session = self.sessions.get(session).id;
        let Some(running) = self.reservations.by_lock.get_mut(&lock) else { return };
        if (running.session, running.token) != (session, token) {
            return;
        }
        match &mut running.stage {
            Stage::Writing { .. } => {}
            Stage::Running { lease, .. } => *lease = Some(id),
            &mut Stage::Deleting { number } => self.reservations.deletes_with(number, id),
        }
    }

    /// Whether the lease of a name is the one that its reservation is of.
    pub(super) fn is_reserved_with(&self, lock: LockKey, lease: PackedId) -> bool {
        self.reservations.by_lock.get(&lock).is_some_and(
            |running| matches!(running.stage, Stage::Running { lease: Some(own), .. } if own == lease),
        )
    }

    /// The grant was never heard: the name is reserved for its request still, which is granted it
    /// anew.
    pub(super) fn was_not_heard(&mut self, lock: LockKey, id: PackedId) {
        if let Some(running) = self.reservations.by_lock.get_mut(&lock)
            && let Stage::Running { lease, .. } = &mut running.stage
            && *lease == Some(id)
        {
            *lease = None;
        }
    }

    /// What is left of the reservation that keeps a name without a holder taken.
    pub(super) fn reserved_for(&self, lock: LockKey) -> Option<Duration> {
        let running = self.reservations.by_lock.get(&lock)?;
        match running.stage {
            Stage::Running { until: Some(until), .. } => Some(until.since(self.wall())),
            Stage::Running { until: None, .. } => Some(running.at_least),
            Stage::Writing { .. } | Stage::Deleting { .. } => None,
        }
    }
}

#[cfg(feature = "testing")]
impl LeaderMachine {
    /// Each name that is reserved durably, its token, session and request.
    pub fn reserved(
        &self,
    ) -> impl Iterator<Item = (&crate::name::Name, Token, SessionId, RequestId)> {
        let running = self.reservations.by_lock.iter();
        running.filter(|(_, running)| matches!(running.stage, Stage::Running { .. })).map(
            |(&lock, running)| {
                let name = &self.table.lock(lock).name;
                (name, running.token, running.session, running.request)
            },
        )
    }
}

/// How long an entry goes on saying the same: what the name may come free too late by after a
/// change of reign.
fn step(at_least: Duration) -> Duration {
    (at_least / 10).clamp(STEP_MIN, STEP_MAX)
}

/// What is written of a time that this reign counts, so that another counts the same.
fn count_back(left: Duration) -> Duration {
    let nanos = left.as_nanos() * 100 / 101;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(1))
}

const STEP_MIN: Duration = Duration::from_millis(100);
const STEP_MAX: Duration = Duration::from_secs(60);
