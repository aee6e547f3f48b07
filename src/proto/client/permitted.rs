//! What a client does not ask for, since its credential is not for it.
//!
//! The leader would refuse it in any case. But a request that waits for a connection goes with the report
//! of that, and a report with a foreign name is closed whole.

use std::sync::Arc;

use super::{Client, Event, RequestFailure};
use crate::{
    name::Name,
    proto::{RequestId, numbered::sorted, rights::Rights, wire::Refusal},
    time::Time,
};

impl Client {
    /// From now on it presents a credential with these: what waits and is not permitted by them fails.
    pub fn change_rights(&mut self, rights: Arc<Rights>, now: Time) {
        self.observe(now);
        self.rights = rights;
        for request in sorted(&self.requests) {
            if !self.rights.may_take(&self.requests[&request].acquire.name) {
                self.take_back(request);
                self.fail(request, RequestFailure::Refused { why: Refusal::NotPermitted }, None);
            }
        }
        self.finish(now);
    }

    /// Whether its credential is for this name.
    pub fn may_see(&self, name: &Name) -> bool {
        self.rights.may_see(name)
    }

    /// A question that its credential is not for.
    pub fn refuse_question(&mut self, now: Time) -> RequestId {
        self.observe(now);
        let query = self.next_request();
        let failure = RequestFailure::Refused { why: Refusal::NotPermitted };
        self.events.push_back(Event::QueryFailed { query, failure });
        query
    }
}
