//! What the clients of connections may do, as far as the leader asks beside [`Rights::permit`].

use std::sync::Arc;

use super::{Close, Connection, LeaderMachine};
use crate::{
    proto::{
        ClientId, ConnectionId,
        rights::{Forbidden, Rights},
        wire::{LeaderMessage, Refusal},
    },
    time::Time,
};

impl LeaderMachine {
    /// A connection has said what its client may not say. Nothing of that is looked at.
    pub fn handle_forbidden(&mut self, connection: ConnectionId, said: Forbidden, now: Time) {
        let now = self.attend(now);
        let serving = match self.connections.get(&connection) {
            None => return,
            Some(Connection::Serving(key)) => Some(*key),
            Some(_) => None,
        };
        match (said, serving) {
            (Forbidden::Report, key) => {
                if let Some(Connection::Reporting(report)) = self.connections.get(&connection)
                    && let Some(client) = self.clients.get(&connection)
                {
                    let (session, identity) = report.note(client);
                    self.tell_turned_away(connection, (session, &identity), Refusal::NotPermitted);
                }
                self.close(connection, Close::NotPermitted);
                key.into_iter().for_each(|key| self.fall_silent(key));
            }
            (Forbidden::Acquire(request), Some(key)) => {
                // One that comes after it is refused as well.
                let session = self.sessions.get_mut(key);
                session.last_request = session.last_request.max(request);
                self.refuse(key, request, Refusal::NotPermitted, None);
            }
            (Forbidden::Acquire(request) | Forbidden::Question(request), key) => {
                let (why, holder) = (Refusal::NotPermitted, None);
                key.into_iter().for_each(|key| self.tell_refused(key, why));
                self.messages
                    .push_back((connection, LeaderMessage::Refused { request, why, holder }));
            }
        }
        self.settle(now);
    }

    /// Where that client is.
    pub(super) fn address_of(&self, connection: ConnectionId) -> ClientId {
        self.clients.get(&connection).map_or(ClientId(0), |client| client.at)
    }

    /// What the client of a connection may do; none: nothing.
    pub(super) fn rights_of(&self, connection: ConnectionId) -> Option<Arc<Rights>> {
        self.clients.get(&connection)?.rights.clone()
    }
}
