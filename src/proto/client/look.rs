//! What the simulator looks at.

use super::{Client, Closing, Hold};
use crate::proto::{
    ConnectionId, LeaseId, RequestId,
    look::{AtClient, ClientSubject, Session},
    wire::LeaderMessage,
};

impl Client {
    pub fn connection_state(&self, connection: ConnectionId) -> AtClient {
        if self.closing == Closing::Closed {
            AtClient::Closed
        } else if self.link.asks(connection) {
            AtClient::Probing
        } else if self.link.reporting_or_serving() != Some(connection) {
            AtClient::Stale
        } else if self.link.is_serving() {
            AtClient::Serving
        } else {
            AtClient::Reporting
        }
    }

    pub fn session_state(&self) -> Session {
        match self.good_until {
            Some(_) => Session::Lives,
            None if self.reports <= 1 => Session::Fresh,
            None => Session::Lapsed,
        }
    }

    /// What a leader's message is about.
    pub fn subject(&self, message: &LeaderMessage) -> ClientSubject {
        match *message {
            LeaderMessage::Welcome { session, .. } | LeaderMessage::Gone { session } => {
                if session == self.session {
                    ClientSubject::SessionOwn
                } else {
                    ClientSubject::SessionOther
                }
            }
            LeaderMessage::Queued { request, .. }
            | LeaderMessage::Granted { request, .. }
            | LeaderMessage::Refused { request, .. }
            | LeaderMessage::Deadlocked { request, .. } => {
                if self.requests.contains_key(&request) {
                    ClientSubject::RequestWaiting
                } else {
                    ClientSubject::RequestGone
                }
            }
            LeaderMessage::Released { lease }
            | LeaderMessage::Recall { lease }
            | LeaderMessage::ToppedUp { lease, .. }
            | LeaderMessage::Converted { lease, .. }
            | LeaderMessage::Lost { lease, .. } => self.lease_subject(lease),
            LeaderMessage::Checked { query, .. }
            | LeaderMessage::Listed { query, .. }
            | LeaderMessage::Leads { query, .. }
            | LeaderMessage::Broke { query, .. } => self.query_subject(query),
            LeaderMessage::Renewed { .. }
            | LeaderMessage::NotLeader { .. }
            | LeaderMessage::NotUnderstood { .. }
            | LeaderMessage::Standing { .. }
            | LeaderMessage::StepsDown { .. }
            | LeaderMessage::Group { .. }
            | LeaderMessage::Replaced { .. }
            | LeaderMessage::Raised { .. } => ClientSubject::None,
        }
    }

    fn lease_subject(&self, lease: LeaseId) -> ClientSubject {
        let mut unheard = self.requests.values().filter_map(|request| request.grant.as_ref());
        match self.leases.get(&lease).map(|lease| lease.hold) {
            Some(Hold::Held) => ClientSubject::LeaseHeld,
            Some(Hold::Losing) => ClientSubject::LeaseLosing,
            Some(Hold::Releasing { .. }) => ClientSubject::LeaseReleasing,
            None if unheard.any(|grant| grant.lease == lease) => ClientSubject::LeaseNotYetGood,
            None => ClientSubject::LeaseUnknown,
        }
    }

    fn query_subject(&self, query: RequestId) -> ClientSubject {
        if self.queries.contains_key(&query) || self.observed.contains_key(&query) {
            ClientSubject::QueryAsked
        } else {
            ClientSubject::QueryGone
        }
    }
}
