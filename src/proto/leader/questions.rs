//! What is asked by people and by resource servers: `Check`, `List`, `Break`.

use std::collections::BTreeMap;

use super::{Close, Connection, Leader, Standing};
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        ClientId, ConnectionId, LeaseId, RequestId,
        lock::{LockKey, PackedId, Recall, Right, SessionKey},
        mistake::{Mistake, planted},
        shares::Shares,
        wire::{HolderInfo, LISTED_WAITERS_MAX, LeaderMessage, LockInfo, Mode, Page},
    },
    time::Time,
    token::Token,
};

/// A `Check` or a `Break` that waits for the end of grace: until then its holder may come back.
pub(super) struct Question {
    kind: Kind,
    connection: ConnectionId,
    query: RequestId,
    name: Name,
    token: Token,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Check,
    Break,
}

/// The questions that wait, and of which clients they are.
pub(super) struct Questions {
    waiting: Vec<Question>,
    shares: Shares,
}

impl Default for Questions {
    fn default() -> Questions {
        Questions { waiting: Vec::new(), shares: Shares::new(QUESTIONS_MAX) }
    }
}

impl Questions {
    fn has_room_for(&self, client: ClientId) -> bool {
        self.shares.has_room_for(client)
    }

    /// Has it wait. There is room for one more of this client.
    fn add(&mut self, question: Question, client: ClientId) {
        self.shares.take(client);
        self.waiting.push(question);
    }

    /// Those that wait, which do so no longer.
    fn take(&mut self) -> Vec<Question> {
        self.shares.clear();
        std::mem::take(&mut self.waiting)
    }
}

/// The sessions that asked for breaks that are on their way to the disk, by the lease.
pub(super) struct Breakers {
    of: BTreeMap<PackedId, Vec<(ConnectionId, ClientId, RequestId)>>,
    pub(super) shares: Shares,
}

impl Default for Breakers {
    fn default() -> Breakers {
        Breakers { of: BTreeMap::new(), shares: Shares::new(QUESTIONS_MAX) }
    }
}

impl Leader {
    pub(super) fn check(
        &mut self,
        connection: ConnectionId,
        query: RequestId,
        name: Name,
        token: Token,
        now: Time,
    ) {
        let client = self.client_of(connection);
        let waits = self.over.is_none() && self.in_grace && self.questions.has_room_for(client);
        if waits {
            let question = Question { kind: Kind::Check, connection, query, name, token };
            self.questions.add(question, client);
            return;
        }
        let good = self.is_good(&name, token, now);
        self.messages.push_back((connection, LeaderMessage::Checked { query, good }));
    }

    pub(super) fn answer_questions(&mut self, now: Time) {
        for question in self.questions.take() {
            let Question { kind, connection, query, name, token } = question;
            match (kind, self.connections.get(&connection)) {
                (Kind::Check, _) => self.check(connection, query, name, token, now),
                (Kind::Break, Some(&Connection::Serving(key))) => {
                    self.break_lock(connection, key, query, name, token);
                }
                (Kind::Break, _) => {} // it is asked again on the next connection
            }
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
            && !self.in_grace
            && self.lock_of(name, token).is_some_and(|lock| {
                let holding = self.holding(lock);
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
        for (listed, lock) in self.table.names_after(after.as_ref()).enumerate() {
            // At least one, so that a caller that asks for the next page gets on.
            more = listed >= limit.max(1) as usize || !page.add(self.describe(lock, now));
            if more {
                break;
            }
        }
        let listed = LeaderMessage::Listed { query, locks: page.into_locks(), more };
        self.messages.push_back((connection, listed));
    }

    fn describe(&self, key: LockKey, now: Time) -> LockInfo {
        let lock = self.table.lock(key);
        let remaining = lock.holding.map(|holding| {
            let promised = self.sessions.get(holding.session).deadline();
            self.ends.get(key).map_or(promised, |end| end.min(promised)).since(now)
        });
        let remaining = remaining.or_else(|| self.reserved_for(key));
        let waiters = self.table.first_waiters(key, LISTED_WAITERS_MAX);
        LockInfo {
            name: lock.name.clone(),
            token: lock.first(),
            holder: self.holder(key, now),
            reserved: lock.holding.is_none() && self.reserved_for(key).is_some(),
            kept: lock.holding.is_some_and(|holding| holding.recall == Recall::Kept),
            remaining,
            predecessor: lock.predecessor,
            waiters: waiters
                .into_iter()
                .map(|waiter| {
                    let waiter = self.table.waiter(waiter);
                    HolderInfo {
                        identity: self.sessions.get(waiter.session).identity.clone(),
                        since: now.since(waiter.since),
                        token: Token::ZERO,
                        mode: Mode::Exclusive,
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
        let is_held = self.lock_of(&name, token).is_some();
        let client = self.client_of(connection);
        if self.in_grace && !is_held && self.questions.has_room_for(client) {
            // The holder may not have reported yet.
            let question = Question { kind: Kind::Break, connection, query, name, token };
            return self.questions.add(question, client);
        }
        // Written first: an answered break leaves neither lease nor reservation.
        let reserved = self.table.find(&name).filter(|&lock| self.is_reserved_by(lock, token));
        let deletion = reserved
            .filter(|_| !planted(Mistake::ReservationOutlivesBreak))
            .and_then(|lock| self.end_reservation(lock));
        let Some(lock) = self.lock_of(&name, token) else {
            return match deletion {
                Some(number) => self.tell_when_unreserved(number, connection, answer(true)),
                None => self.messages.push_back((connection, answer(false))),
            };
        };
        let was_whole = matches!(self.holding(lock).right, Right::Whole);
        if was_whole {
            self.take_away(lock, LostReason::Broken);
        }
        match (self.holding(lock).right, deletion) {
            // Its loss was handed to the journal before the deletion was.
            (_, Some(number)) if !was_whole => {
                self.tell_when_unreserved(number, connection, answer(true));
            }
            // Answered when it is durable.
            (Right::Ending, _) if self.breakers.shares.has_room_for(client) => {
                let lease = self.holding(lock).lease;
                if planted(Mistake::BreakAnsweredFirst) {
                    return self.messages.push_back((connection, answer(true)));
                }
                self.breakers.shares.take(client);
                self.breakers.of.entry(lease).or_default().push((connection, client, query));
            }
            (Right::Ending, _) => {
                self.close(connection, Close::Protocol("it asks for too many breaks at once"));
                self.fall_silent(key);
            }
            // Being taken away already, with or without the rest of its session.
            (Right::Whole | Right::Ended(..), _) => {
                self.tell_when_unreserved(deletion.unwrap_or(0), connection, answer(true));
            }
        }
    }

    pub(super) fn answer_breakers(&mut self, lease: LeaseId) {
        let breakers = PackedId::of_lease(lease).and_then(|id| self.breakers.of.remove(&id));
        for (connection, client, query) in breakers.unwrap_or_default() {
            self.breakers.shares.give_back(client);
            self.messages.push_back((connection, LeaderMessage::Broke { query, found: true }));
        }
    }
}

/// How many questions wait for the end of grace, and how many breaks for the disk. More of the first
/// are answered at once, as far as is known; a client that asks for more of the second has not waited
/// for its answers.
const QUESTIONS_MAX: usize = 65_536;
