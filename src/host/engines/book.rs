//! What an engine's leases and requests are written down in, under one lock.

use std::{collections::HashMap, sync::Arc, task::Waker, time::Duration};

use super::wish::Wish;
use crate::{
    alarm::{self, contain},
    callbacks,
    error::{LockError, LostReason, Result},
    host::{
        lease_word::{LeaseKey, LeaseWord, Used, WordWaiter},
        service::{LeaseGranted, Settlement},
    },
    time::Time,
    token::Token,
    watch::{Tell, Watch},
};

/// Guarded by one lock.
pub(super) struct LeaseBook<H> {
    pub(super) next: u64,
    pub(super) requests: HashMap<u64, AskedLease>,
    pub(super) leases: HashMap<u64, BookedLease<H>>,
    /// Requests on their way through the server, those that no caller waits for among them.
    pub(super) acquiring: usize,
    /// Releases that no server has answered yet.
    pub(super) releasing: usize,
    pub(super) closing: LeasingStage,
    /// The process is ending: calls that wait are told nothing.
    pub(super) is_leaving: bool,
    pub(super) is_kept: bool,
    pub(super) is_renewing: bool,
    /// The server is asked whether what is shared or kept is wanted.
    pub(super) is_asking: bool,
    /// It may be wanted since then.
    pub(super) asks_again: bool,
    pub(super) renew_at: Time,
    /// It was told that what is held may soon be lost.
    pub(super) is_warned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LeasingStage {
    Open,
    /// No request is taken any more.
    Closed,
    /// The engine is told that nothing will be held any more, or was.
    Parting,
    Parted,
}

/// A request whose caller waits, or has yet to fetch what came of it.
pub(super) struct AskedLease {
    pub(super) opens: Option<OpensWord>,
    pub(super) wish: Arc<Wish>,
    pub(super) waker: Option<Waker>,
    pub(super) outcome: Option<Result<LeaseGranted>>,
}

/// What a grant opens, and settles.
pub(super) struct OpensWord {
    pub(super) word: Arc<LeaseWord>,
    pub(super) at_most: Option<Duration>,
    pub(super) is_shared: bool,
    /// Readers may join while one is in.
    pub(super) keep: bool,
    pub(super) settlement: Settlement,
}

/// A lease between its grant and its release.
pub(super) struct BookedLease<H> {
    pub(super) word: Arc<LeaseWord>,
    pub(super) hold: H,
    pub(super) token: Token,
    pub(super) deadline: Time,
    /// Its own end, by `at_most`.
    pub(super) end: Time,
    pub(super) is_shared: bool,
    /// It may stay after its guard, and what it looked like when the keeper looked last.
    pub(super) kept: Option<IdleLease>,
    /// It was lost, and is given back already: only its guard is still there.
    pub(super) is_over: bool,
}

/// For how long a kept lease looks as it does.
#[derive(Clone, Copy)]
pub(super) struct IdleLease {
    pub(super) seen: Option<u64>,
    pub(super) since: Time,
}

/// What is to be done once the book is unlocked: it wakes others, or runs foreign code.
#[derive(Default)]
pub(super) struct Afterwards {
    pub(super) wakers: Vec<Waker>,
    pub(super) waiters: Vec<WordWaiter>,
    pub(super) losses: Vec<(Arc<Watch>, LostReason)>,
    /// The last of these may be dropped here, and their settlements with them.
    pub(super) gone: Vec<Arc<LeaseWord>>,
    pub(super) warning: Option<(Tell, String)>,
}

impl Afterwards {
    pub(super) fn run(self) {
        for waker in self.wakers {
            contain(|| waker.wake());
        }
        for waiter in self.waiters {
            contain(|| waiter.wake());
        }
        if let Some((warn, text)) = self.warning {
            callbacks::run(move || warn(&text));
        }
        for (watch, why) in self.losses {
            alarm::call_at(Time::ZERO, move || contain(|| watch.tell(why))).detach();
        }
    }
}

/// For so long a lease that is kept may be idle: for that long its keeper's crash may cost others its
/// time to live, though no guard had the lock.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// A lease in its word: the numbers are ours alone.
pub(super) fn key(number: u64) -> LeaseKey {
    LeaseKey { high: 0, low: number }
}
impl<H> LeaseBook<H> {
    pub(super) fn new() -> LeaseBook<H> {
        LeaseBook {
            next: 1,
            requests: HashMap::new(),
            leases: HashMap::new(),
            acquiring: 0,
            releasing: 0,
            closing: LeasingStage::Open,
            is_leaving: false,
            is_kept: false,
            is_renewing: false,
            is_asking: false,
            asks_again: false,
            renew_at: Time::NEVER,
            is_warned: false,
        }
    }
}

impl<H: Clone> LeaseBook<H> {
    /// The leases that are over in time, and which are not told so yet.
    pub(super) fn over(&self, now: Time) -> Vec<u64> {
        let is_over =
            |lease: &BookedLease<H>| !lease.is_over && lease.deadline.min(lease.end) <= now;
        let over = self.leases.iter().filter(|(_, lease)| is_over(lease));
        over.map(|(number, _)| *number).collect()
    }

    /// Tells callers whose time is over, though the server owes an answer still: what that grants goes
    /// back. When the next one's is.
    pub(super) fn end_overdue(&mut self, after: &mut Afterwards) -> Time {
        let waits = |asked: &&AskedLease| asked.outcome.is_none();
        let overdue = self.requests.iter().filter(|(_, asked)| waits(asked));
        let overdue =
            overdue.filter_map(|(number, asked)| Some((*number, asked.wish.check().err()?)));
        for (number, error) in overdue.collect::<Vec<_>>() {
            self.requests[&number].wish.stop();
            self.fail(number, error, after);
        }
        let left = self.requests.values().filter(waits).map(|asked| asked.wish.until());
        left.min().unwrap_or(Time::NEVER)
    }

    pub(super) fn live(&self) -> Vec<(u64, H)> {
        let live = self.leases.iter().filter(|(_, lease)| !lease.is_over);
        live.map(|(number, lease)| (*number, lease.hold.clone())).collect()
    }

    /// What is shared, and how it is held.
    pub(super) fn shared(&self) -> Vec<(u64, H)> {
        let shared = self.leases.iter().filter(|(_, lease)| lease.is_shared && !lease.is_over);
        shared.map(|(number, lease)| (*number, lease.hold.clone())).collect()
    }

    /// What is kept, and how it is held.
    pub(super) fn kept(&self) -> Vec<(u64, H)> {
        let kept = self.leases.iter().filter(|(_, lease)| lease.kept.is_some() && !lease.is_over);
        kept.map(|(number, lease)| (*number, lease.hold.clone())).collect()
    }

    /// Closes what is kept and was not used for a second.
    pub(super) fn close_rested(&mut self, now: Time) -> Vec<(Arc<LeaseWord>, Used)> {
        let mut rested = Vec::new();
        for (number, lease) in &mut self.leases {
            let Some(kept) = lease.kept.as_mut().filter(|_| !lease.is_over) else { continue };
            let idle = lease.word.idle().filter(|_| lease.word.is_of(key(*number)));
            if idle.is_none() || idle != kept.seen {
                *kept = IdleLease { seen: idle, since: now };
            } else if now.since(kept.since) >= IDLE_MAX && !lease.word.is_kept_always() {
                let used = idle.and_then(|idle| lease.word.close_unused(idle));
                rested.extend(used.map(|used| (lease.word.clone(), used)));
            }
        }
        rested
    }

    /// The first outcome counts.
    pub(super) fn fail(&mut self, number: u64, error: LockError, after: &mut Afterwards) {
        if let Some(request) = self.requests.get_mut(&number)
            && !self.is_leaving
            && request.outcome.is_none()
        {
            request.outcome = Some(Err(error));
            // What was not granted is settled here.
            request.opens = None;
            after.wakers.extend(request.waker.take());
        }
    }
}
