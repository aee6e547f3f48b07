//! A link as a lease service, and how it leaves.

use std::sync::Arc;
#[cfg(feature = "host")]
use std::{thread, time::Duration};

use super::{Link, errors::holder_of};
use crate::{
    clock,
    error::{Holder, Result},
    host::{
        lease_word::{LeaseWord, Used},
        service::{
            ConvertsLeases, LeaderNews, LeaseRequest, LeaseService, PendingLease, PendingRelease,
            RequestNews,
        },
    },
    name::Name,
    proto::client::NewsOfRequest,
    time::Time,
    watch::Deadline,
};

impl LeaseService for Link {
    fn ask(self: Arc<Self>, request: LeaseRequest) -> Box<dyn PendingLease> {
        Box::new(self.acquire(request))
    }

    fn shares(&self) -> bool {
        true
    }

    fn conversions(self: Arc<Self>) -> Option<Arc<dyn ConvertsLeases>> {
        Some(self)
    }

    fn counts(&self) -> bool {
        true
    }

    fn carries_values(&self) -> bool {
        true
    }

    fn observe(self: Arc<Self>, name: &Name) -> Result<Box<dyn LeaderNews>> {
        self.observe_leader(name)
    }

    fn lower(&self, word: &LeaseWord, left: u32) {
        if self.forked() {
            return;
        }
        let mut state = self.state.lock();
        state.client.lower(word.lease().into(), left);
        self.settle(state);
        self.drive.wake_for_release(true);
    }

    fn give_back(&self, word: &LeaseWord, used: &Used) {
        if let Some(soon) = self.queue_release(word, used) {
            self.drive.wake_for_release(soon || used.is_recalled);
        }
    }

    fn give_back_answered(self: Arc<Self>, word: &LeaseWord, used: &Used) -> PendingRelease {
        Box::pin(self.release_answered(word, used))
    }

    fn close_idle(&self, word: &LeaseWord) -> Option<Used> {
        if self.forked() {
            return None;
        }
        let _state = self.state.lock();
        word.close_idle()
    }

    fn retire(&self, word: &LeaseWord) -> Option<Used> {
        if self.forked() {
            return None;
        }
        let _state = self.state.lock();
        word.retire()
    }

    #[cold]
    fn top_up(&self, word: &LeaseWord) {
        let mut state = self.state.lock();
        state.client.top_up(word.lease().into());
        self.settle(state);
        self.drive.wake_for_release(true);
    }

    #[cold]
    fn news(&self, name: &Name) -> RequestNews {
        if self.forked() {
            return RequestNews::NotAsked;
        }
        let state = self.state.lock();
        match state.client.news_of(name, clock::now()) {
            NewsOfRequest::NotAsked => RequestNews::NotAsked,
            NewsOfRequest::OnItsWay => RequestNews::OnItsWay,
            NewsOfRequest::Unanswered => RequestNews::Unanswered,
            NewsOfRequest::Silent(trouble) => RequestNews::Silent(trouble),
            // It was told a while ago.
            NewsOfRequest::Queued(holder) => RequestNews::Waits(
                holder.cloned().map(|told| Holder { held_since_grant: false, ..holder_of(told) }),
            ),
        }
    }

    fn word_deadline(&self) -> Arc<Deadline> {
        self.deadline.clone()
    }

    fn made_in(&self) -> u64 {
        self.made_in
    }

    fn is_forked(&self) -> bool {
        self.forked()
    }

    fn close(&self, until: Time) {
        if self.forked() {
            return;
        }
        self.begin_closing(self.state.lock());
        self.drive.finish(until);
    }
}

#[cfg(feature = "host")]
impl crate::host::exit::LeavesAtExit for Link {
    /// As [`close`](LeaseService::close), while the process ends: other threads run on for a moment
    /// and are not to see their waits fail. Whether there is a goodbye to wait for with
    /// [`finish_leaving`](Link::finish_leaving); what guards hold keeps it from being said.
    fn leave(&self, until: Time) -> bool {
        if self.forked() {
            return false;
        }
        let state = self.state.try_lock_for(until.since(clock::now()));
        let Some(mut state) = state else { return false };
        state.is_leaving = true;
        self.begin_closing(state);
        self.drive.send_ahead();
        let is_flushed = || self.state.lock().client.is_flushed();
        while self.state.lock().client.holds() && !is_flushed() && clock::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        !self.state.lock().client.holds()
    }

    /// Waits until the goodbye is sent, at most until `until`.
    fn finish_leaving(&self, until: Time) {
        self.drive.finish(until);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.forked() {
            self.drive.finish(Time::ZERO);
        }
    }
}
