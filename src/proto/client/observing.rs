//! Observing elections: asked for on each connection anew, and told without repetition.

use super::{Client, Closing, Due, Event, RequestFailure};
use crate::{
    name::Name,
    proto::{
        RequestId,
        wire::{ClientMessage, PresentLeader},
    },
    time::Time,
};

/// An election that is observed.
pub(super) struct ObservedElection {
    pub(super) name: Name,
    told: ToldLast,
}

/// What an observer was told last.
#[derive(PartialEq)]
enum ToldLast {
    Nothing,
    Leads(Option<PresentLeader>),
}

impl Client {
    /// Observes the leader: the present leader comes first, then each change, until
    /// [`stop_observing`](Client::stop_observing). With no answer at all by `limit`, or within
    /// `connect_timeout`, it ends as a query does.
    pub fn observe_leader(&mut self, name: Name, limit: Option<Time>, now: Time) -> RequestId {
        self.observe(now);
        let query = self.next_request();
        if self.closing != Closing::No {
            self.events.push_back(Event::QueryFailed { query, failure: RequestFailure::Closed });
            return query;
        }
        let patience = now + self.config.connect_timeout;
        self.timers.set(Due::Query(query), limit.map_or(patience, |limit| limit.min(patience)));
        self.observed
            .insert(query, ObservedElection { name: name.clone(), told: ToldLast::Nothing });
        self.say(ClientMessage::Observe { query, name });
        self.step_link(now);
        query
    }

    /// No caller wants to hear of it any more.
    pub fn stop_observing(&mut self, query: RequestId) {
        self.timers.clear(Due::Query(query));
        self.events
            .retain(|event| !matches!(event, Event::Leads { query: other, .. } if *other == query));
        if self.observed.remove(&query).is_some() {
            self.say(ClientMessage::StopObserving { query });
        }
    }

    /// What is asked for on each connection.
    pub(super) fn observations(&self) -> impl Iterator<Item = ClientMessage> + use<'_> {
        let all = self.observed.iter();
        all.map(|(&query, observed)| ClientMessage::Observe { query, name: observed.name.clone() })
    }

    /// An observation ends with a failure.
    pub(super) fn observation_failed(&mut self, query: RequestId, failure: RequestFailure) -> bool {
        let is_one = self.observed.remove(&query).is_some();
        if is_one {
            self.timers.clear(Due::Query(query));
            self.events.push_back(Event::QueryFailed { query, failure });
        }
        is_one
    }

    /// A leader says which holder leads.
    pub(super) fn leads(&mut self, query: RequestId, leader: Option<PresentLeader>) {
        let Some(observed) = self.observed.get_mut(&query) else { return };
        self.timers.clear(Due::Query(query));
        // The next connection begins with the present leader again.
        let now = ToldLast::Leads(leader.clone());
        if observed.told != now {
            observed.told = now;
            self.events.push_back(Event::Leads { query, leader });
        }
    }
}
