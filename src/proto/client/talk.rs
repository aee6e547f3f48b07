//! What is said and heard on the session's own connection, and how it closes.

use super::{Client, Closing, Due, Event, Grant, Hold, Outgoing, RequestFailure};
use crate::{
    error::LostReason,
    proto::{
        Proof, RequestId, SessionId, count_short,
        mistake::{Mistake, planted},
        numbered::sorted,
        wire::{
            self, ClientMessage, HolderInfo, LeaderMessage, Refusal, WaitingRequest, held_messages,
            waiting_messages,
        },
    },
    time::Time,
    token::Token,
};

impl Client {
    /// Sends, if a report is on its way or believed; otherwise the next report says it.
    pub(super) fn say(&mut self, message: ClientMessage) {
        if self.link.reporting_or_serving().is_some() {
            self.queue(Outgoing::Plain(message));
        }
    }

    pub(super) fn queue(&mut self, outgoing: Outgoing) {
        self.unsaid_since.get_or_insert(self.looked_at);
        self.outgoing.push_back(outgoing);
    }

    /// What is queued goes nowhere any more. A goodbye may be among it, which is then to be said again.
    pub(super) fn forget_unsaid(&mut self) {
        self.outgoing.clear();
        self.unsaid_since = None;
        self.renewal_queued = false;
        if self.closing == Closing::Leaving {
            self.closing = Closing::Asked;
        }
    }

    pub(super) fn hello(&self) -> ClientMessage {
        ClientMessage::Hello {
            version: wire::VERSION,
            capabilities: wire::CAPABILITIES,
            session: self.session,
            proof: self.proof,
            count: self.reports,
            cluster: self.cluster,
            seen: self.seen.map(Box::new),
            time_to_live: self.config.time_to_live,
            identity: self.config.identity.clone(),
            process: self.config.process,
        }
    }

    /// Tells a fresh connection what there is: the leader takes it for the truth. What is being
    /// given back is named, so that how it was left can be said again: else the next holder would
    /// be told what this one was told.
    pub(super) fn report(&mut self, now: Time) {
        self.reports += 1;
        // A goodbye is said again behind this.
        self.forget_unsaid();
        let mut held = Vec::new();
        let mut releases = Vec::new();
        for lease in sorted(&self.leases) {
            let state = &self.leases[&lease];
            let mut reported = state.grant.held(state.name.clone(), state.mode, now);
            reported.kept = state.kept;
            reported.value = state.value.clone();
            if self.is_becoming_shared(lease) {
                // Its token is not that of readers.
                reported.last_used = Token::ZERO;
            }
            if let Hold::Releasing { last_used, how, .. } = state.hold {
                (reported.last_used, reported.leaving) = (last_used, Some(how));
                releases.push(ClientMessage::Release { lease, last_used, how });
            }
            held.push(reported);
        }
        let mut waiting = Vec::new();
        for request in sorted(&self.requests) {
            let state = self.requests.get_mut(&request).expect("it is among the keys");
            state.said = true;
            match &state.grant {
                Some(grant) => {
                    let asked = &state.acquire;
                    let mut reported = grant.held(asked.name.clone(), asked.mode, now);
                    let extras = asked.extras.as_deref();
                    reported.value = extras.and_then(|extras| extras.value.clone());
                    held.push(reported);
                }
                None => waiting.push(WaitingRequest {
                    request,
                    place: state.place,
                    acquire: state.acquire_at(now),
                }),
            }
        }
        let queries = self.queries.values().cloned();
        let again: Vec<_> =
            self.asked_conversions().chain(queries).chain(self.observations()).collect();
        let plain = held_messages(held)
            .chain(waiting_messages(waiting))
            .chain([ClientMessage::Ready])
            .chain(releases)
            .chain(again);
        self.queue(Outgoing::Hello);
        self.outgoing.extend(plain.map(Outgoing::Plain));
    }

    /// What a leader says that has believed the report.
    pub(super) fn served(&mut self, message: LeaderMessage, now: Time) {
        match message {
            LeaderMessage::Queued { request, place, holder } => {
                if let Some(state) = self.requests.get_mut(&request) {
                    (state.place, state.holder) = (Some(place), holder);
                    self.acknowledge(request);
                    self.events.push_back(Event::Queued { request, place });
                }
            }
            LeaderMessage::Granted { request, lease, first, last, predecessor, at_most } => {
                let at_most = at_most.map(|left| now + count_short(left));
                let grant = Grant {
                    lease,
                    reign: self.seen.expect("a welcome came before").reign,
                    first,
                    last,
                    predecessor,
                    at_most,
                    since: now,
                    is_recalled: false,
                };
                self.granted(request, grant, now);
            }
            LeaderMessage::Refused { request, why, holder } => {
                self.any_refused(request, why, holder);
            }
            LeaderMessage::Deadlocked { request, circle } => {
                self.ended(request, RequestFailure::Deadlock(circle), None);
            }
            LeaderMessage::Leads { query, leader } => self.leads(query, leader),
            LeaderMessage::Converted { request, lease, token } => {
                self.converted(request, lease, token);
            }
            LeaderMessage::Released { lease } => self.released(lease),
            LeaderMessage::Lost { lease, why } => self.lost(lease, why, now),
            LeaderMessage::Renewed { sent_at, renew_every } => {
                self.renewing_since = None;
                self.renew_every = self.renew_every_of(renew_every);
                if self.renew_every < self.time_to_live / 3 {
                    self.quick_pace = self.renew_every;
                }
                self.next_renewal = self.next_renewal.min(now + self.renew_every);
                if sent_at <= now {
                    self.promised(sent_at, now);
                }
            }
            LeaderMessage::Checked { query, good } => {
                self.answered(query, Event::Checked { query, good }, now);
            }
            LeaderMessage::Listed { query, locks, more } => {
                self.answered(query, Event::Listed { query, locks, more }, now);
            }
            LeaderMessage::Broke { query, found } => {
                self.answered(query, Event::Broke { query, found }, now);
            }
            LeaderMessage::Recall { .. } if planted(Mistake::RecallIgnored) => {}
            LeaderMessage::Recall { lease } => self.recalled(lease),
            LeaderMessage::ToppedUp { lease, last } => self.topped_up(lease, last),
            LeaderMessage::Raised { epoch, attestation } => self.raised(epoch, attestation),
            LeaderMessage::NotUnderstood { request, .. } => self.not_understood(request),
            // A session asks none of the questions that these answer.
            LeaderMessage::Standing { .. }
            | LeaderMessage::StepsDown { .. }
            | LeaderMessage::Group { .. }
            | LeaderMessage::Replaced { .. } => {}
            LeaderMessage::Welcome { .. }
            | LeaderMessage::NotLeader { .. }
            | LeaderMessage::Gone { .. } => {}
        }
    }

    /// Whichever it was.
    pub(super) fn any_refused(
        &mut self,
        request: RequestId,
        why: Refusal,
        holder: Option<HolderInfo>,
    ) {
        if !self.question_refused(request, why) {
            self.refused(request, why, holder);
        }
    }

    fn refused(&mut self, request: RequestId, why: Refusal, holder: Option<HolderInfo>) {
        let Some(state) = self.requests.get(&request) else { return };
        let known = state.holder.clone();
        let failure = match why {
            // It was asked for without patience since its limit had passed.
            Refusal::WouldBlock if state.limit.is_some() => {
                RequestFailure::Refused { why: Refusal::TimedOut }
            }
            Refusal::OtherCluster => RequestFailure::Config(
                "this leader is not the one that this manager has spoken to before".to_owned(),
            ),
            why => RequestFailure::Refused { why },
        };
        self.ended(request, failure, holder.or(known));
    }

    /// The leader has ended it without a grant.
    fn ended(&mut self, request: RequestId, failure: RequestFailure, holder: Option<HolderInfo>) {
        if !self.requests.contains_key(&request) {
            return; // given up meanwhile
        }
        let state = self.drop_request(request);
        self.fail(request, failure, holder);
        // The leader's word on it may be lost with a connection, and a report of it alone would be
        // granted.
        if let Some(follower) = state.follower.filter(|next| self.requests.contains_key(next)) {
            self.take_back(follower);
            let failure = RequestFailure::Refused { why: Refusal::WouldBlock };
            self.fail(follower, failure, None);
        }
    }

    /// The leader is of an earlier release.
    fn not_understood(&mut self, request: Option<RequestId>) {
        let Some(request) = request else { return };
        self.any_refused(request, Refusal::NotSupported, None);
    }

    /// Whether that was an observation, a change of mode or a question, which is refused.
    fn question_refused(&mut self, request: RequestId, why: Refusal) -> bool {
        let failure = RequestFailure::Refused { why };
        if self.observation_failed(request, failure.clone())
            || self.conversion_refused(request, why)
        {
            return true;
        }
        let is_asked = self.queries.remove(&request).is_some();
        if is_asked {
            self.timers.clear(Due::Query(request));
            self.events.push_back(Event::QueryFailed { query: request, failure });
        }
        is_asked
    }

    /// The leader does not know the session: what it held is over, what it waited for is asked
    /// for again, with its places, by a new one.
    pub(super) fn forget_session(&mut self, now: Time) {
        (self.session, self.proof) = (SessionId((self.random)()), Proof((self.random)()));
        self.reports = 0;
        (self.good_until, self.warns_at) = (None, None);
        for lease in sorted(&self.leases) {
            self.lose(lease, LostReason::Forgotten);
            self.release_is_over(lease);
        }
        self.leases.clear();
        self.conversions.clear();
        self.granted.clear();
        for request in self.requests.values_mut() {
            request.grant = None;
        }
        self.forget_acknowledgements(now);
    }
}

// The end.
impl Client {
    pub(super) fn step_closing(&mut self) {
        if self.closing != Closing::Asked || self.holds() || self.is_awaited() {
            return;
        }
        if self.link.reporting_or_serving().is_some() {
            self.closing = Closing::Leaving;
            self.queue(Outgoing::Goodbye);
        } else if self.leases.is_empty() {
            self.closed();
        }
    }

    pub(super) fn closed(&mut self) {
        if self.closing != Closing::Closed {
            self.closing = Closing::Closed;
            self.timers.clear(Due::Closing);
            self.events.push_back(Event::Closed);
        }
    }
}
