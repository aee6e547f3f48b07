//! What the passing of time does to a session: what it loses, and what it promises.

use std::time::Duration;

use super::{
    Client, Closing, Due, Event, Hold, Lease, RENEW_EVERY_MIN, RequestFailure, SILENT_MIN,
};
use crate::{
    error::LostReason,
    proto::{
        LeaseId, count_short,
        history::{Attestation, Seen},
        mistake::{Mistake, planted},
        numbered::sorted,
    },
    time::Time,
};

impl Client {
    /// What `now` means before anything else is looked at.
    pub(super) fn observe(&mut self, now: Time) {
        self.looked_at = now;
        if self.closing == Closing::Closed {
            return;
        }
        if self.good_until.is_some_and(|deadline| deadline <= now) {
            self.expire(now);
        }
        if self.warns_at.is_some_and(|warns_at| warns_at <= now) {
            self.warn();
        }
        while let Some(due) = self.timers.pop_due(now) {
            match due {
                Due::Request(request) => self.give_up(request, now),
                Due::Query(query) => {
                    self.queries.remove(&query);
                    self.observed.remove(&query);
                    let failure = RequestFailure::Unreachable(self.link.trouble());
                    self.events.push_back(Event::QueryFailed { query, failure });
                }
                Due::AtMost(lease) => self.lose(lease, LostReason::HeldTooLong),
                // The leader never came back to hear of the last releases.
                Due::Closing if !self.holds() => self.closed(),
                Due::Closing => self.timers.set(due, now + self.config.connect_timeout),
            }
        }
        if self.looks_elsewhere_at().is_some_and(|at| at <= now) {
            let trouble = "it does not answer any more".to_owned();
            self.renewing_since = None;
            self.drop_link(trouble, now);
        }
        if self.link.is_serving() && self.next_renewal <= now && !self.renewal_queued {
            self.next_renewal = now + self.renew_every;
            self.renewal_queued = true;
        }
    }

    /// When a leader that does not answer is left, for another address. A renewal is repeated until
    /// then, at the pace that the leader asks for: a quarter of the time that its reign is believed
    /// without one of its own, if others may follow it. A session that was idle is told a slow one, and counts by that
    /// for as long as it asks for nothing.
    pub(super) fn looks_elsewhere_at(&self) -> Option<Time> {
        let since = self.renewing_since.filter(|_| self.link.is_serving())?;
        let pace = if self.asks() { self.quick_pace } else { self.renew_every };
        self.link.has_elsewhere().then_some(since + (3 * pace).max(SILENT_MIN))
    }

    /// What every handler ends with.
    pub(super) fn finish(&mut self, now: Time) {
        self.step_link(now);
        self.step_closing();
    }

    /// The session's deadline has passed: nothing is held, whatever the network says later. The
    /// leader, which counts longer, is still told how each lease was left.
    fn expire(&mut self, now: Time) {
        (self.good_until, self.warns_at) = (None, None);
        for lease in sorted(&self.leases) {
            self.lose(lease, LostReason::Expired);
            self.release_is_over(lease);
        }
        self.forget_acknowledgements(now);
    }

    /// Nothing was heard for so long that the holders are to know.
    fn warn(&mut self) {
        self.warns_at = None;
        let held = self.leases.values().filter(|lease| lease.hold == Hold::Held).count();
        if let Some(deadline) = self.good_until.filter(|_| held > 0) {
            let trouble = self.link.trouble();
            self.events.push_back(Event::AtRisk { deadline, held, trouble });
        }
    }

    /// No leader is known to keep places any more: a waiter for its turn waits for a leader.
    pub(super) fn forget_acknowledgements(&mut self, now: Time) {
        for request in sorted(&self.requests) {
            if self.requests[&request].acknowledged {
                self.be_patient(request, now);
            }
        }
    }

    /// A release was answered, or its session is over, which releases as well.
    pub(super) fn release_is_over(&mut self, lease: LeaseId) {
        if let Some(Lease { hold: Hold::Releasing { to_be_told, awaited, .. }, .. }) =
            self.leases.get_mut(&lease)
            && std::mem::take(to_be_told)
        {
            *awaited = false;
            self.events.push_back(Event::Released { lease });
        }
    }

    /// The reign has a higher epoch now.
    pub(super) fn raised(&mut self, epoch: u32, attestation: Attestation) {
        if let Some(seen) = self.seen.filter(|seen| seen.epoch < epoch) {
            self.see(Seen { epoch, attestation, ..seen });
        }
    }

    /// This leads now.
    pub(super) fn see(&mut self, seen: Seen) {
        if self.seen.replace(seen) != Some(seen) {
            self.events.push_back(Event::Saw { seen });
        }
    }

    /// The leader's promise. Deadlines only move forward, and none is moved back to life: a
    /// promise that has passed when it arrives changes nothing.
    pub(super) fn promised(&mut self, sent_at: Time, now: Time) {
        let sent_at = if planted(Mistake::DeadlineFromReply) { now } else { sent_at };
        let deadline = sent_at + count_short(self.time_to_live);
        if deadline <= now || self.good_until.is_some_and(|known| known >= deadline) {
            return;
        }
        let revived = self.good_until.replace(deadline).is_none();
        self.warns_at = Some(sent_at + self.time_to_live / 2);
        self.events.push_back(Event::DeadlineMoved { deadline });
        if revived {
            self.requests_live_again();
        }
    }

    /// The session turns out to live: places are still kept, and grants that came when that was
    /// unknown are good.
    fn requests_live_again(&mut self) {
        for request in sorted(&self.requests) {
            let state = &self.requests[&request];
            match state.grant.clone() {
                Some(grant) => self.accept(request, grant),
                None if state.place.is_some() => self.acknowledge(request),
                None => {}
            }
        }
    }

    /// As the leader wishes, within reason: often enough to lose two in a row.
    pub(super) fn renew_every_of(&self, wished: Duration) -> Duration {
        wished.min(self.time_to_live / 3).max(RENEW_EVERY_MIN)
    }

    pub(super) fn lives(&self, now: Time) -> bool {
        self.good_until.is_some_and(|deadline| deadline > now)
    }
}
