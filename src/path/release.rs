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
    alarm,
    error::{Predecessor, Result},
    time::Time,
};
#[cfg(any(feature = "host", feature = "testing"))]
use crate::{proto::LeaseId, scope::Scope};

use super::{
    named::Named,
    right::{Held, INSIDE, SLOT, THREAD},
};
#[cfg(any(feature = "host", feature = "testing"))]
use super::right::{KEPT, LEASE};

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Named {
    pub(super) fn release(&self, held: &mut Held, how: Predecessor) {
        if held.won() == 0 || held.is_forked() {
            return;
        }
        match self.stays_until(held) {
            None => self.release_now(held, how),
            Some(until) => self.release_at(until, held, how, |_| {}),
        }
    }

    /// The same, and what answers it, if anything does.
    pub(super) fn release_answered(&self, held: &mut Held, how: Predecessor) -> Option<Answer> {
        if held.is_forked() {
            let _ = held.take();
            return None;
        }
        if let Some(until) = self.stays_until(held) {
            let (tell, told) = answer_slot();
            self.release_at(until, held, how, tell);
            return Some(told);
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let (Some(link), Some(lease)) = (&self.reach.link, take_lease(held)) {
            let answer = link.release_answered(lease, held.token, how);
            if self.is_waited_for_below(held) {
                link.send_ahead();
            }
            self.release_below(held, TOLD_BY_THE_LEADER);
            let name = self.name().clone();
            return Some(Box::pin(async move {
                answer.await.map_err(|error| error.with_name(&name).with_scope(Scope::Host))
            }));
        }
        // Of a kept lease nothing is asked of the leader that would have an answer.
        self.release_now(held, how);
        None
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
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some((kept, _)) = self.kept_of(held) {
            kept.end_watch();
        }
        let mut held = held.take();
        // The guard is gone: no holder is left that could be told of a loss.
        let end = held.end_watch();
        let later = self.later();
        let release = move || then(later.release_answered(&mut held, how));
        alarm::call_at(until, release).detach();
        drop(end);
    }

    /// This mutex without its data, to release when the mutex itself may be gone.
    fn later(&self) -> Named {
        Named {
            entry: self.entry.clone(),
            reach: self.reach.clone(),
            scope: AtomicU8::new(self.scope.load(Relaxed)),
            at_most: self.at_most,
            at_least: None,
            has_terms: self.at_most.is_some(),
            keep: self.keep,
            #[cfg(any(feature = "host", feature = "testing"))]
            kept: self.kept.clone(),
        }
    }

    /// Whatever `at_least` says.
    pub(super) fn release_now(&self, held: &mut Held, how: Predecessor) {
        #[cfg(any(feature = "host", feature = "testing"))]
        if held.remove(KEPT) {
            // The lease stays, unless it is waited for, here or at the leader.
            if let Some(kept) = &self.kept {
                match kept.leave(how) {
                    Some(used) => self.give_used_back(kept, &used),
                    None => self.make_way(),
                }
            }
            return self.release_below(held, TOLD_BY_THE_LEADER);
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let (Some(link), Some(lease)) = (&self.reach.link, take_lease(held)) {
            if self.is_waited_for_below(held) {
                link.release_ahead(lease, held.token, how);
            } else {
                link.release(lease, held.token, how);
            }
            return self.release_below(held, TOLD_BY_THE_LEADER);
        }
        let how = held.left(how);
        self.release_below(held, how);
    }

    /// Whether a sibling process may ask the leader as soon as the slot is released.
    #[cfg(any(feature = "host", feature = "testing"))]
    fn is_waited_for_below(&self, held: &Held) -> bool {
        #[cfg(feature = "process")]
        if held.has(SLOT) {
            return self.entry.slot().is_some_and(crate::process::Slot::is_waited_for);
        }
        let _ = held;
        false
    }

    /// Everything below the lease.
    fn release_below(&self, held: &mut Held, how: Predecessor) {
        let end = held.end_watch();
        // The guard goes, whatever became of its right; and before another one can come.
        if held.remove(INSIDE) {
            self.entry.cell.leave();
        }
        if held.remove(SLOT) {
            self.entry.release_slot_left(held.token, how);
        }
        if held.remove(THREAD) {
            self.entry.thread().release(how);
        }
        // Foreign code may hang on it: last, when nothing is held.
        drop((end, held.take_more()));
    }

    #[cfg(feature = "cli")]
    pub(crate) fn proof_of_life(
        &self,
        held: &Held,
    ) -> Option<std::io::Result<std::os::fd::OwnedFd>> {
        held.has(SLOT).then(|| self.entry.slot()?.proof_of_life().into()).flatten()
    }
}

/// How the tiers below a lease are left. The leader tells the next holder how this one left; what
/// they told in its stead would be told to this machine's next holder although others, which have
/// heard it, came in between.
#[cfg(any(feature = "host", feature = "testing"))]
const TOLD_BY_THE_LEADER: Predecessor = Predecessor::Clean;

#[cfg(any(feature = "host", feature = "testing"))]
fn take_lease(held: &mut Held) -> Option<LeaseId> {
    held.remove(LEASE).then(|| held.more_mut().lease.take()).flatten()
}

/// A slot for an answer that becomes known later.
fn answer_slot() -> (impl FnOnce(Option<Answer>) + Send, Answer) {
    let slot = Arc::new((parking_lot::Mutex::new(None), event_listener::Event::new()));
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
