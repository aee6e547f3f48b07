//! What is asked by people and by resource servers: `Check`, `List`, `Break`.

use std::collections::BTreeMap;

use super::{Close, Connection, LeaderMachine, Standing};
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        ClientId, ConnectionId, LeaseId, RequestId,
        absence::HeldUp,
        bound::NameHashes,
        lock::{HoldKey, LockKey, PackedId, Recall, Right, SessionKey},
        mistake::{Mistake, planted},
        shares::Shares,
        wire::{HolderInfo, LISTED_HOLDERS_MAX, LISTED_WAITERS_MAX, LeaderMessage, LockInfo, Page},
    },
    time::Time,
    token::Token,
};

/// A `Check` or a `Break` that waits for absent sessions: its holder may come back.
pub(super) struct Question {
    kind: Kind,
    connection: ConnectionId,
    query: RequestId,
    name: Name,
    token: Token,
    client: ClientId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Check,
    Break,
}

/// The questions that wait, and of which clients they are.
pub(super) struct Questions {
    asked: u64,
    waiting: BTreeMap<u64, Question>,
    shares: Shares,
}

impl Default for Questions {
    fn default() -> Questions {
        Questions { asked: 0, waiting: BTreeMap::new(), shares: Shares::new(QUESTIONS_MAX) }
    }
}

impl Questions {
    fn has_room_for(&self, client: ClientId) -> bool {
        self.shares.has_room_for(client)
    }

    /// Has it wait; answers its number. There is room for one more of its client.
    fn add(&mut self, question: Question) -> u64 {
        self.shares.take(question.client);
        self.asked += 1;
        self.waiting.insert(self.asked, question);
        self.asked
    }

    /// It waits no longer, if it does.
    fn take_one(&mut self, number: u64) -> Option<Question> {
        let question = self.waiting.remove(&number)?;
        self.shares.give_back(question.client);
        Some(question)
    }

    /// Those that wait, which do so no longer.
    fn take(&mut self) -> impl Iterator<Item = Question> + use<> {
        self.shares.clear();
        std::mem::take(&mut self.waiting).into_values()
    }
}

/// The breaks that are on their way to the disk. One that takes a shared token from all that bear it
/// waits for the loss of each.
pub(super) struct Breakers {
    asked: u64,
    waiting: BTreeMap<u64, (Breaker, usize)>,
    of: BTreeMap<PackedId, Vec<u64>>,
    pub(super) shares: Shares,
}

/// A session that asked for a break.
#[derive(Clone, Copy)]
struct Breaker {
    connection: ConnectionId,
    client: ClientId,
    query: RequestId,
}

impl Default for Breakers {
    fn default() -> Breakers {
        Breakers {
            asked: 0,
            waiting: BTreeMap::new(),
            of: BTreeMap::new(),
            shares: Shares::new(QUESTIONS_MAX),
        }
    }
}

impl Breakers {
    /// It is answered once the loss of all these leases is durable. There is room for one more of its
    /// client.
    fn add(&mut self, breaker: Breaker, leases: Vec<PackedId>) {
        self.shares.take(breaker.client);
        self.asked += 1;
        self.waiting.insert(self.asked, (breaker, leases.len()));
        for lease in leases {
            self.of.entry(lease).or_default().push(self.asked);
        }
    }

    /// Takes out those that are answered now.
    fn loss_is_durable(&mut self, lease: PackedId) -> Vec<Breaker> {
        let mut answered = Vec::new();
        for number in self.of.remove(&lease).unwrap_or_default() {
            let (breaker, left) = self.waiting.get_mut(&number).expect("it waits for this lease");
            *left -= 1;
            if *left == 0 {
                answered.push(*breaker);
                self.shares.give_back(breaker.client);
                self.waiting.remove(&number);
            }
        }
        answered
    }
}

impl LeaderMachine {
    pub(super) fn check(
        &mut self,
        connection: ConnectionId,
        query: RequestId,
        name: Name,
        token: Token,
        now: Time,
    ) {
        let client = self.client_of(connection);
        let is_awaited = self.over.is_none() && self.is_awaited_for(&name);
        if is_awaited && self.questions.has_room_for(client) {
            let kind = Kind::Check;
            return self.wait_with(Question { kind, connection, query, name, token, client });
        }
        let good = self.is_good(&name, token, now);
        self.messages.push_back((connection, LeaderMessage::Checked { query, good }));
    }

    pub(super) fn answer_questions(&mut self, now: Time) {
        for question in self.questions.take() {
            self.ask_again(question, now);
        }
    }

    /// The absent session that the question waited for has come back or ended; there may be others.
    pub(super) fn answer_question(&mut self, number: u64, now: Time) {
        if let Some(question) = self.questions.take_one(number) {
            self.ask_again(question, now);
        }
    }

    fn wait_with(&mut self, question: Question) {
        let name = NameHashes::of(&question.name);
        let number = self.questions.add(question);
        self.sessions.absent.hold_up(name, HeldUp::Question(number));
    }

    fn ask_again(&mut self, question: Question, now: Time) {
        let Question { kind, connection, query, name, token, .. } = question;
        match (kind, self.connections.get(&connection)) {
            (Kind::Check, _) => self.check(connection, query, name, token, now),
            (Kind::Break, Some(&Connection::Serving(key))) => {
                self.break_lock(connection, key, query, name, token);
            }
            (Kind::Break, _) => {} // it is asked again on the next connection
        }
    }

    pub(super) fn refuse_questions(&mut self) {
        for Question { kind, connection, query, .. } in self.questions.take() {
            let refused = match kind {
                Kind::Check => LeaderMessage::Checked { query, good: false },
                Kind::Break => LeaderMessage::Broke { query, found: false },
            };
            self.messages.push_back((connection, refused));
        }
    }

    /// Whether this token's lease holds: its session lives and it is not being taken away.
    fn is_good(&self, name: &Name, token: Token, now: Time) -> bool {
        self.over.is_none()
            && !self.is_awaited_for(name)
            && self.holds_of(name, token).any(|hold| {
                let holding = self.holding(hold);
                let session = self.sessions.get(holding.session);
                matches!(holding.right, Right::Whole)
                    && matches!(session.standing, Standing::Open(_))
                    && session.deadline() > now
            })
    }

    pub(super) fn list(
        &mut self,
        connection: ConnectionId,
        query: RequestId,
        after: Option<Name>,
        limit: u32,
        now: Time,
    ) {
        let mut page = Page::default();
        let mut more = false;
        self.table.put_names_in_order();
        let rights = self.rights_of(connection);
        let names =
            rights.iter().flat_map(|rights| self.table.names_seen_by(rights, after.as_ref()));
        for (listed, lock) in names.enumerate() {
            // At least one, so that a caller that asks for the next page gets on.
            more = listed >= limit.max(1) as usize || !page.add(self.describe(lock, now));
            if more {
                break;
            }
        }
        let listed = LeaderMessage::Listed { query, locks: page.into_locks(), more };
        self.messages.push_back((connection, listed));
    }

    pub(super) fn describe(&self, key: LockKey, now: Time) -> LockInfo {
        let lock = self.table.lock(key);
        // Of several holders the last that may go.
        let remaining = self.table.holds(key).map(|hold| {
            let promised = self.sessions.get(self.holding(hold).session).deadline();
            self.ends.get(hold).map_or(promised, |end| end.min(promised)).since(now)
        });
        let remaining = remaining.max().or_else(|| self.reserved_for(key));
        let waiters = self.table.first_waiters(key, LISTED_WAITERS_MAX);
        let mut holds = self.table.holds(key);
        let holder = holds.next().map(|hold| self.describe_holder(hold, now));
        let others = holds.take(LISTED_HOLDERS_MAX - 1);
        let others: Vec<_> = others.map(|hold| self.describe_holder(hold, now)).collect();
        let is_kept = |hold| self.holding(hold).recall == Recall::Kept;
        LockInfo {
            name: lock.name.clone(),
            token: lock.first(),
            reserved: holder.is_none() && self.reserved_for(key).is_some(),
            kept: holder.is_some() && self.table.holds(key).all(is_kept),
            holder,
            others,
            holders: self.table.holds(key).count() as u32,
            permits: self.table.permits_taken(key),
            remaining,
            predecessor: lock.predecessor,
            waiters: waiters
                .into_iter()
                .map(|waiter| {
                    let waiter = self.table.waiter(waiter);
                    let identity = &self.sessions.get(waiter.session).identity;
                    HolderInfo {
                        claims_label: self.claims_label(identity),
                        identity: identity.clone(),
                        since: now.since(waiter.since),
                        token: Token::ZERO,
                        mode: waiter.mode,
                        ahead: None,
                    }
                })
                .collect(),
        }
    }

    pub(super) fn break_lock(
        &mut self,
        connection: ConnectionId,
        key: SessionKey,
        query: RequestId,
        name: Name,
        token: Token,
    ) {
        let answer = |found| LeaderMessage::Broke { query, found };
        if self.over.is_some() {
            return self.messages.push_back((connection, answer(false)));
        }
        let is_known = self.is_known_whole(&name, token);
        let client = self.client_of(connection);
        let is_awaited = !is_known && self.is_awaited_for(&name);
        if is_awaited && self.questions.has_room_for(client) {
            // A holder may not have reported yet.
            let kind = Kind::Break;
            return self.wait_with(Question { kind, connection, query, name, token, client });
        }
        // Written first: an answered break leaves neither lease nor reservation.
        let reserved = self.table.find(&name).filter(|&lock| self.is_reserved_by(lock, token));
        let deletion = reserved
            .filter(|_| !planted(Mistake::ReservationOutlivesBreak))
            .and_then(|lock| self.end_reservation(lock));
        let mut holds: Vec<_> = self.holds_of(&name, token).collect();
        if planted(Mistake::BreakTakesOne) {
            holds.truncate(1);
        }
        let is_whole = |hold: &HoldKey| matches!(self.holding(*hold).right, Right::Whole);
        let whole: Vec<_> = holds.iter().copied().filter(is_whole).collect();
        // One that asks for what is being broken already breaks nothing.
        if !whole.is_empty() || deletion.is_some() {
            self.tell_broken(&name, token, holds.first().copied(), key);
        }
        if holds.is_empty() {
            return match deletion {
                Some(number) => self.tell_when_unreserved(number, connection, answer(true)),
                None => self.messages.push_back((connection, answer(false))),
            };
        }
        let was_whole = !whole.is_empty();
        for hold in whole {
            self.take_away(hold, LostReason::Broken);
        }
        let is_ending = |hold: &&HoldKey| matches!(self.holding(**hold).right, Right::Ending);
        let ending = holds.iter().filter(is_ending).map(|&hold| self.holding(hold).lease);
        let ending: Vec<_> = ending.collect();
        match deletion {
            // Its loss was handed to the journal before the deletion was.
            Some(number) if !was_whole => {
                self.tell_when_unreserved(number, connection, answer(true));
            }
            // Answered when it is durable.
            _ if !ending.is_empty() && self.breakers.shares.has_room_for(client) => {
                if planted(Mistake::BreakAnsweredFirst) {
                    return self.messages.push_back((connection, answer(true)));
                }
                self.breakers.add(Breaker { connection, client, query }, ending);
            }
            _ if !ending.is_empty() => {
                self.close(connection, Close::Protocol("it asks for too many breaks at once"));
                self.fall_silent(key);
            }
            // Being taken away already, with or without the rest of its session.
            _ => self.tell_when_unreserved(deletion.unwrap_or(0), connection, answer(true)),
        }
    }

    /// Whether all leases of this token are known, though reports may be missing: an exclusive one is
    /// alone.
    fn is_known_whole(&self, name: &Name, token: Token) -> bool {
        let mut holds = self.holds_of(name, token);
        if planted(Mistake::BreakInGrace) {
            return holds.next().is_some();
        }
        holds.any(|hold| hold.joint_key().is_none())
    }

    pub(super) fn answer_breakers(&mut self, lease: LeaseId) {
        let Some(lease) = PackedId::of_lease(lease) else { return };
        for Breaker { connection, query, .. } in self.breakers.loss_is_durable(lease) {
            self.messages.push_back((connection, LeaderMessage::Broke { query, found: true }));
        }
    }
}

/// How many questions wait for the end of grace, and how many breaks for the disk. More of the first
/// are answered at once, as far as is known; a client that asks for more of the second has not waited
/// for its answers.
const QUESTIONS_MAX: usize = 65_536;
