//! How sessions come to an end, and what becomes of what they had.

use super::{IDLE_LIMIT, LeaderMachine, after};
use crate::{
    error::Predecessor,
    proto::{
        lock::{Right, SessionKey},
        mistake::{Mistake, planted},
        record::{Record, TakenAway},
        sessions::Standing,
    },
    time::Time,
    token::Token,
};

impl LeaderMachine {
    /// Its deadline has passed without a word.
    pub(super) fn expire(&mut self, key: SessionKey) {
        self.tell_expired(key);
        let session = self.sessions.get(key);
        if let Some(connection) = session.connection {
            let id = session.id;
            self.sessions.get_mut(key).connection = None;
            self.tell_gone(connection, id);
        }
        self.end_session(key);
    }

    /// Hands its end to the journal, final from now on. Its requests stop waiting at once;
    /// what it holds is free when the end is durable.
    pub(super) fn end_session(&mut self, key: SessionKey) {
        let waiters: Vec<_> = self.sessions.get(key).waiting().values().copied().collect();
        for waiter in waiters {
            self.drop_waiter(waiter);
        }
        let session = self.sessions.get(key);
        match session.standing {
            Standing::New => drop(self.sessions.remove(key)),
            Standing::Ending(_) => unreachable!("a session ends once"),
            Standing::Idling(number) => self.sessions.stand(key, Standing::Ending(number)),
            Standing::Opening(_) | Standing::Open(_) => {
                let number = self.write(Record::SessionEnded { session: session.id });
                self.sessions.stand(key, Standing::Ending(number));
                if planted(Mistake::ExpiryNotDurable) {
                    self.vacate_all(key, Predecessor::Expired);
                }
            }
        }
    }

    /// A session that wanted nothing for long is ended in the journal, so that no later reign
    /// waits for it. It lives on, and its next request opens it again.
    pub(super) fn forget_if_idle(&mut self, key: SessionKey, now: Time) {
        let session = self.sessions.get_mut(key);
        if session.is_busy() {
            session.idle_since = None;
            return;
        }
        let since = *session.idle_since.get_or_insert(now);
        if now.since(since) >= IDLE_LIMIT
            && let Standing::Open(_) = session.standing
        {
            let session = session.id;
            let number = self.write(Record::SessionEnded { session });
            self.sessions.stand(key, Standing::Idling(number));
        }
    }

    /// The journal has forgotten it.
    pub(super) fn forget_idle(&mut self, key: SessionKey) {
        self.sessions.stand(key, Standing::New);
        if self.sessions.get(key).connection.is_none() {
            self.sessions.remove(key);
        }
    }

    /// Its end is durable: what it held is free.
    pub(super) fn remove_ended(&mut self, key: SessionKey, _proof: TakenAway) {
        for (_, hold) in self.sessions.get(key).leases_in_order() {
            let how = match self.holding(hold).right {
                Right::Ended(why, _) => after(why),
                Right::Whole | Right::Ending => Predecessor::Expired,
            };
            if planted(Mistake::BlockReused) {
                self.table.give_back(hold, Token::ZERO);
            }
            self.vacate(hold, Some(how));
        }
        self.sessions.remove(key);
    }

    /// A session's connection is no more. That is silence, not a goodbye: it keeps what it has.
    pub(super) fn fall_silent(&mut self, key: SessionKey) {
        self.sessions.get_mut(key).connection = None;
        self.forget_conversions(key);
        if let Standing::New = self.sessions.get(key).standing {
            self.sessions.remove(key);
            return;
        }
        for &waiter in self.sessions.get(key).waiting().values() {
            self.table.set_present(waiter, false);
            self.unsettled.push(self.table.waiter(waiter).lock);
        }
    }
}
