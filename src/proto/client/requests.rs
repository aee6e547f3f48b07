//! Requests, from the asking to an answer or the giving up.

use super::{
    ANSWER_MIN, ANSWER_PREFERRED, Client, Closing, Due, Event, NewsOfRequest, Request,
    RequestFailure, SILENCE,
};
use crate::{
    name::Name,
    proto::{
        RequestId,
        numbered::sorted,
        wire::{Acquire, ClientMessage, HolderInfo, Refusal, Wait},
    },
    time::Time,
};

impl Client {
    pub(super) fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// What has come so far of the requests for this name: of the latest that was told of a holder, or of
    /// the latest of all.
    pub fn news_of(&self, name: &Name, now: Time) -> NewsOfRequest<'_> {
        let its = self.requests.iter().filter(|(_, state)| state.acquire.name == *name);
        let told = |state: &Request| (state.holder.is_some(), state.acknowledged);
        let Some((_, state)) = its.max_by_key(|(request, state)| (told(state), **request)) else {
            return NewsOfRequest::NotAsked;
        };
        if state.acknowledged || state.holder.is_some() {
            return NewsOfRequest::Queued(state.holder.as_ref());
        }
        if self.link.is_refused_everywhere() || self.is_silent(state, now) {
            return NewsOfRequest::Silent(self.link.trouble());
        }
        match self.link.reporting_or_serving().is_none() && self.link.has_trouble() {
            true => NewsOfRequest::Unanswered,
            false => NewsOfRequest::OnItsWay,
        }
    }

    /// Whether no leader was heard for so long that one which waits for this request's answer may give up.
    fn is_silent(&self, state: &Request, now: Time) -> bool {
        let silent_since = self.heard.map_or(state.since, |heard| heard.max(state.since));
        now.since(silent_since) >= SILENCE
    }

    /// No leader has acknowledged it: how long to wait for that.
    pub(super) fn be_patient(&mut self, request: RequestId, now: Time) {
        let state = self.requests.get_mut(&request).expect("a request that waits");
        state.acknowledged = false;
        state.since = now;
        let patience = now + self.config.connect_timeout;
        let until = state.limit.map_or(patience, |limit| limit.min(patience));
        self.timers.set(Due::Request(request), until);
    }

    /// A leader has it in its queue: it waits for as long as its caller, and for the leader's own
    /// answer a little longer.
    pub(super) fn acknowledge(&mut self, request: RequestId) {
        let state = self.requests.get_mut(&request).expect("a request that waits");
        state.acknowledged = true;
        match state.limit {
            Some(limit) => {
                let answered = limit.max(state.asked + ANSWER_MIN) + ANSWER_PREFERRED;
                self.timers.set(Due::Request(request), answered);
            }
            None => self.timers.clear(Due::Request(request)),
        }
    }

    /// Its time is over without an answer.
    pub(super) fn give_up(&mut self, request: RequestId, now: Time) {
        let Some(state) = self.requests.get(&request) else { return };
        let patience = state.since + self.config.connect_timeout;
        let is_silent = self.is_silent(state, now);
        let is_long = state.limit.is_none_or(|limit| limit.since(state.since) >= SILENCE);
        let is_refused = self.link.is_refused_everywhere();
        let failure = if state.acknowledged {
            RequestFailure::Refused { why: Refusal::TimedOut }
        } else if now >= patience || is_refused || (is_silent && is_long) {
            RequestFailure::Unreachable(self.link.trouble())
        } else if now < state.since + ANSWER_MIN {
            // The limit is for other holders; the answer takes its time on the way.
            return self.timers.set(Due::Request(request), patience.min(state.since + ANSWER_MIN));
        } else {
            RequestFailure::Unanswered(self.link.trouble())
        };
        let holder = self.take_back(request).holder;
        self.fail(request, failure, holder);
    }

    /// Nothing listens at any address: requests past their limit wait for no answer.
    pub(super) fn give_up_refused(&mut self, now: Time) {
        if !self.link.is_refused_everywhere() {
            return;
        }
        for request in sorted(&self.requests) {
            let state = &self.requests[&request];
            if !state.acknowledged && state.limit.is_some_and(|limit| limit <= now) {
                self.give_up(request, now);
            }
        }
    }

    pub(super) fn fail(
        &mut self,
        request: RequestId,
        failure: RequestFailure,
        holder: Option<HolderInfo>,
    ) {
        self.events.push_back(Event::Failed { request, failure, holder });
    }

    /// Nothing that waits can be answered.
    pub(super) fn fail_everything(&mut self, failure: &RequestFailure) {
        for request in sorted(&self.requests) {
            self.drop_request(request);
            self.fail(request, failure.clone(), None);
        }
        for (query, _) in std::mem::take(&mut self.queries) {
            self.timers.clear(Due::Query(query));
            self.events.push_back(Event::QueryFailed { query, failure: failure.clone() });
        }
        for query in self.observed.keys().copied().collect::<Vec<_>>() {
            self.observation_failed(query, failure.clone());
        }
    }

    /// No caller waits for it any more. A grant that is not good yet goes back.
    pub(super) fn drop_request(&mut self, request: RequestId) -> Request {
        self.timers.clear(Due::Request(request));
        let mut state = self.requests.remove(&request).expect("a request that waits");
        if let Some(grant) = state.grant.take() {
            self.refuse_grant(request, &state.acquire, grant);
        }
        state
    }

    /// As `drop_request`, and tells the leader, if that may know it.
    pub(super) fn take_back(&mut self, request: RequestId) -> Request {
        let state = self.drop_request(request);
        if state.said {
            self.say(ClientMessage::Cancel { request });
        }
        state
    }

    pub(super) fn ask(
        &mut self,
        limit: Option<Time>,
        now: Time,
        message: impl FnOnce(RequestId) -> ClientMessage,
    ) -> RequestId {
        self.observe(now);
        let query = self.next_request();
        if self.closing != Closing::No {
            self.events.push_back(Event::QueryFailed { query, failure: RequestFailure::Closed });
            return query;
        }
        let patience = now + self.config.connect_timeout;
        self.timers.set(Due::Query(query), limit.map_or(patience, |limit| limit.min(patience)));
        let message = message(query);
        self.queries.insert(query, message.clone());
        self.say(message);
        self.step_link(now);
        query
    }

    /// A query was answered. One without a caller that waits is ignored; an answer to another
    /// question than was asked shows a leader that cannot be believed.
    pub(super) fn answered(&mut self, query: RequestId, event: Event, now: Time) {
        let Some(asked) = self.queries.get(&query) else { return };
        match (asked, &event) {
            (ClientMessage::Check { .. }, Event::Checked { .. })
            | (ClientMessage::List { .. }, Event::Listed { .. })
            | (ClientMessage::Break { .. }, Event::Broke { .. }) => {
                self.queries.remove(&query);
                self.timers.clear(Due::Query(query));
                self.events.push_back(event);
            }
            _ => self.drop_link("it answered another question than was asked".to_owned(), now),
        }
    }
}

impl Request {
    /// What is asked for at `now`: the wait is what is left of the limit.
    pub(super) fn acquire_at(&self, now: Time) -> Acquire {
        let wait = match (self.acquire.wait, self.limit) {
            (Wait::No, _) => Wait::No,
            (_, Some(limit)) if limit <= now => Wait::No,
            (_, Some(limit)) => Wait::For(limit.since(now)),
            (_, None) => Wait::Forever,
        };
        Acquire { wait, ..self.acquire.clone() }
    }
}

impl Event {
    pub(super) fn request(&self) -> Option<RequestId> {
        match self {
            Event::Queued { request, .. }
            | Event::Granted { request, .. }
            | Event::Failed { request, .. } => Some(*request),
            _ => None,
        }
    }
}
