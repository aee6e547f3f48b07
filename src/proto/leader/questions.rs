//! What is asked by people and by resource servers: `Check`, `List`, `Break`.

use std::collections::BTreeMap;

use super::{Close, Leader, Standing};
use crate::{
    error::LostReason,
    name::Name,
    proto::{
        ClientId, ConnectionId, LeaseId, RequestId,
        shares::Shares,
        table::{LockKey, PackedId, Recall, Right, SessionKey},
        wire::{HolderInfo, LISTED_WAITERS_MAX, LeaderMessage, LockInfo, Page},
    },
    time::Time,
    token::Token,
};

/// A `Check` that waits for the end of grace.
pub(super) struct Check {
    connection: ConnectionId,
    query: RequestId,
    name: Name,
    token: Token,
}

pub(super) struct Checks {
    waiting: Vec<Check>,
    shares: Shares,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { waiting: Vec::new(), shares: Shares::new(QUESTIONS_MAX) }
    }
}

impl Checks {
    /// Those that wait, which do so no longer.
    fn take(&mut self) -> Vec<Check> {
        self.shares.clear();
        std::mem::take(&mut self.waiting)
    }
}

/// Who asked for breaks that are on their way to the disk, by the lease.
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
        if self.over.is_none() && self.in_grace && self.checks.shares.has_room_for(client) {
            self.checks.shares.take(client);
            self.checks.waiting.push(Check { connection, query, name, token });
            return;
        }
        let good = self.is_good(&name, token, now);
        self.messages.push_back((connection, LeaderMessage::Checked { query, good }));
    }

    pub(super) fn answer_checks(&mut self, now: Time) {
        for Check { connection, query, name, token } in self.checks.take() {
            self.check(connection, query, name, token, now);
        }
    }

    pub(super) fn refuse_checks(&mut self) {
        for Check { connection, query, .. } in self.checks.take() {
            self.messages.push_back((connection, LeaderMessage::Checked { query, good: false }));
        }
    }

    /// Whether this token's lease holds: its session lives and nobody is taking it away.
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
            // At least one, so that whoever asks for the next page gets on.
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
        let waiters = self.table.first_waiters(key, LISTED_WAITERS_MAX);
        LockInfo {
            name: lock.name.clone(),
            token: lock.first(),
            holder: self.holder(key, now),
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
        let lock = self.lock_of(&name, token).filter(|_| self.over.is_none());
        let Some(lock) = lock else {
            let broke = LeaderMessage::Broke { query, found: false };
            return self.messages.push_back((connection, broke));
        };
        if let Right::Whole = self.holding(lock).right {
            self.take_away(lock, LostReason::Broken);
        }
        let client = self.client_of(connection);
        match self.holding(lock).right {
            // Answered when it is durable.
            Right::Ending if self.breakers.shares.has_room_for(client) => {
                let lease = self.holding(lock).lease;
                self.breakers.shares.take(client);
                self.breakers.of.entry(lease).or_default().push((connection, client, query));
            }
            Right::Ending => {
                self.close(connection, Close::Protocol("it asks for too many breaks at once"));
                self.fall_silent(key);
            }
            // Being taken away already, with or without the rest of its session.
            Right::Whole | Right::Ended(..) => {
                let broke = LeaderMessage::Broke { query, found: true };
                self.messages.push_back((connection, broke));
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

/// How many checks wait for the end of grace, and how many breaks for the disk. More checks are
/// answered `false`, the safe side; who asks for more breaks has not waited for its answers.
const QUESTIONS_MAX: usize = 65_536;
