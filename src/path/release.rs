//! Giving a right back, the gate first.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::*},
    },
};

use crate::{
    alarm::{self, contain},
    clock,
    error::{Predecessor, Result},
    fork,
    host::{lease_word::Left, service::PendingRelease},
    scope::Scope,
    thread::ThreadLock,
    time::Time,
};

#[cfg(feature = "cli")]
use super::right::SHARED_SLOT;
use super::{
    ground::SlotShortcut,
    named::Named,
    quiet::HostTier,
    right::{Held, INSIDE, LEASE, LeasedPermits, SHARED_LEASE, SLOT, THREAD, short},
    spans::ReleaseSpan,
};

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Named {
    pub(super) fn release(&self, held: &mut Held, how: Predecessor) {
        if held.won() == 0 || held.is_forked() {
            return;
        }
        if held.is_only_shared() {
            return self.stop_sharing(held);
        }
        match self.stays_until(held) {
            None => self.release_now(held, how),
            Some(until) => self.release_at(until, held, how, |_| {}),
        }
    }

    /// The same, and what answers it, if anything does. `is_unused`: nothing was done under it.
    pub(super) fn release_answered(
        &self,
        held: &mut Held,
        how: Predecessor,
        is_unused: bool,
    ) -> Option<Answer> {
        if held.is_forked() {
            let _ = held.take();
            return None;
        }
        if is_unused {
            self.remember_until(None, held);
        } else if let Some(until) = self.stays_until(held) {
            let (tell, told) = answer_slot();
            self.release_at(until, held, how, tell);
            return Some(told);
        }
        if held.is_apart() {
            return self.leave_apart_answered(held, how);
        }
        if let Some(tier) = self.lease_of(held)
            && let Some(leased) = held.take_leased()
        {
            return self.return_permits_answered(held, tier, &leased);
        }
        let tier = self.lease_of(held).filter(|_| held.remove(LEASE));
        let Some(tier) = tier else {
            self.release_now(held, how);
            return None;
        };
        self.leave_cell(held);
        // A lease that has ended is lost, told or not.
        let _ = tier.word.lost_by(clock::now);
        let answer = match tier.word.leave(held.token, how) {
            // Of a lease that stays nothing is asked of the service that would have an answer.
            Left::Kept | Left::Stale => None,
            Left::Wakes => {
                tier.word.wake();
                None
            }
            Left::GivesBack(used) => {
                let used = if is_unused { used.without(held.token) } else { used };
                let answer = tier.service.clone().give_back_answered(tier.word, &used);
                tier.word.wake();
                Some(answer)
            }
        };
        self.release_now(held, how);
        Some(self.about_it(answer?))
    }

    /// Permits go back. The leader answers for the last of those that were taken together.
    fn return_permits_answered(
        &self,
        held: &mut Held,
        tier: HostTier<'_>,
        leased: &LeasedPermits,
    ) -> Option<Answer> {
        held.remove(SHARED_LEASE);
        let _ = leased.word.lost_by(clock::now);
        let used = tier.leave_permits_and_close(leased, held.permits());
        let answer = used.map(|used| tier.service.clone().give_back_answered(&leased.word, &used));
        self.release_now(held, Predecessor::Clean);
        answer.map(|answer| self.about_it(answer))
    }

    /// With an error that says what it is about.
    pub(super) fn about_it(&self, answer: PendingRelease) -> Answer {
        let name = self.name().clone();
        Box::pin(async move {
            answer.await.map_err(|error| error.with_name(&name).with_scope(Scope::Host))
        })
    }

    /// Releases at `until`, and passes on the answer to wait for, if there is one.
    #[cold]
    fn release_at(
        &self,
        until: Time,
        held: &mut Held,
        how: Predecessor,
        then: impl FnOnce(Option<Answer>) + Send + 'static,
    ) {
        let how = held.left(how);
        if let Some(tier) = self.lease_of(held) {
            tier.word.end_watch();
        }
        let mut held = held.take();
        // The guard is gone: no holder is left that could be told of a loss.
        let end = held.end_watch();
        let later = self.later();
        let release = move || then(later.release_answered(&mut held, how, false));
        alarm::call_at(until, release).detach();
        drop(end);
    }

    /// This mutex without its data, to release when the mutex itself may be gone.
    pub(super) fn later(&self) -> Named {
        Named {
            shortcut: SlotShortcut::new(),
            entry: self.entry.clone(),
            reach: self.reach.clone(),
            scope: AtomicU8::new(self.scope.load(Relaxed)),
            at_most: self.at_most,
            at_least: None,
            has_terms: self.at_most.is_some(),
            keep: self.keep,
            word: self.word.clone(),
            value: self.value.clone(),
        }
    }

    /// Gives back what was not used: the next holder hears what this one heard, and no `at_least`
    /// keeps the lock.
    pub(super) fn give_back(&self, held: &mut Held) {
        if held.won() != 0 && !held.is_forked() {
            let how = held.predecessor();
            self.remember_until(None, held);
            if let Some(tier) = self.lease_of(held) {
                let end = held.end_watch();
                self.leave_cell(held);
                if held.remove(LEASE) {
                    tier.leave_unused(held.token, how);
                }
                drop(end);
            }
            self.release_now(held, how);
        }
    }

    /// As [`release`](Named::release); at thread scope the first in line has the lock next, however
    /// shortly that has waited. The wider gates keep an order of their own.
    pub(super) fn release_fairly(&self, held: &mut Held, how: Predecessor) {
        let is_gate = held.scope() == Scope::Thread && held.has(THREAD) && !held.is_forked();
        match is_gate && self.stays_until(held).is_none() {
            true => self.release_all(held, how, ThreadLock::release_fairly),
            false => self.release(held, how),
        }
    }

    /// Whatever `at_least` says.
    pub(super) fn release_now(&self, held: &mut Held, how: Predecessor) {
        self.release_all(held, how, ThreadLock::release);
    }

    fn release_all(
        &self,
        held: &mut Held,
        how: Predecessor,
        release_thread: fn(&ThreadLock, Predecessor),
    ) {
        // Ends after all else.
        let _span = ReleaseSpan::begin(self, held, how);
        let how = held.left(how);
        let end = held.end_watch();
        self.leave_apart(held, how);
        self.leave_cell(held);
        self.stop_sharing(held);
        if let Some(tier) = self.lease_of(held) {
            if held.remove(LEASE) {
                tier.leave(held.token, how);
            }
            if held.remove(SHARED_LEASE) {
                tier.leave_shared();
            }
        }
        let mut told = how;
        if held.remove(SLOT) {
            self.entry.release_slot(held.token, how);
            // The slot tells it to the next holder, whichever process that is in.
            told = Predecessor::Clean;
        }
        if held.remove(THREAD) {
            release_thread(self.entry.thread(), told);
        }
        // Foreign code may hang on it: last, when nothing is held. It ends no downgrade, which is not over yet.
        let more = held.take_more();
        contain(|| drop((end, more)));
    }

    /// The guard goes, whatever became of its right; and before another one can come.
    pub(super) fn leave_cell(&self, held: &mut Held) {
        if held.remove(INSIDE) {
            self.entry.cell.leave_apart(short(fork::generation()));
        }
    }

    #[cfg(feature = "cli")]
    pub(crate) fn proof_of_life(
        &self,
        held: &Held,
    ) -> Option<std::io::Result<std::os::fd::OwnedFd>> {
        let slot = self.entry.slot()?;
        match (held.has(SLOT), held.has(SHARED_SLOT)) {
            (true, _) => Some(slot.proof_of_life()),
            (_, true) => Some(slot.proof_of_sharing()),
            _ => None,
        }
    }
}

/// A slot for an answer that becomes known later.
fn answer_slot() -> (impl FnOnce(Option<Answer>) + Send, Answer) {
    let slot = Arc::new((crate::fork::Mutex::new(None), event_listener::Event::new()));
    let told = slot.clone();
    let tell = move |answer: Option<Answer>| {
        *slot.0.lock() = Some(answer);
        slot.1.notify(usize::MAX);
    };
    let answer = async move {
        let answer = loop {
            let listener = told.1.listen();
            if let Some(answer) = told.0.lock().take() {
                break answer;
            }
            listener.await;
        };
        match answer {
            Some(answer) => answer.await,
            None => Ok(()),
        }
    };
    (tell, Box::pin(answer))
}
