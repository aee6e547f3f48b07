//! Between callers and one manager's protocol client: requests in, leases out, whatever carries
//! the frames.
//!
//! No network and no thread lives here. Callers lock the state for a moment, put a request to the
//! protocol client and ask the driver to carry it; the driver lends the client its hands with
//! [`Link::drive`], and what comes of that is handed to the callers that wait.

mod aftermath;
mod converting;
mod errors;
mod events;
mod listing;
mod observing;
mod pins;
mod questions;
mod service;
mod settling;
#[cfg(all(test, feature = "host", not(tierlock_loom)))]
mod tests;
mod waiter;
mod waiting;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

#[cfg(feature = "host")]
pub(in crate::host) use self::waiter::expecting;
use self::{
    aftermath::Aftermath,
    converting::UpgradeId,
    events::{LinkLease, Losing},
    listing::{Listing, NextPage},
    observing::ObserverState,
    pins::{CallerPins, PinsMade},
    settling::Settler,
    waiter::{AnswerWaiter, Opens},
    waiting::{Asking, QueryId, Waiting},
};
pub(crate) use self::{
    aftermath::Remember,
    errors::holder_of,
    waiting::{Acquiring, Questioning, Releasing},
};
use crate::{
    alarm::{self},
    clock,
    error::{LockError, LostReason},
    host::{
        lease_word::{LeaseWord, Met, Used},
        service::{LeaseGranted, LeaseMode, LeasePatience, LeaseRequest},
    },
    name::Name,
    proto::{
        LeaseId, RequestId,
        client::Client,
        numbered::{Numbered, sorted},
        wire::{Acquire, Extras, LockInfo, Mode, Wait},
    },
    scope::Scope,
    time::Time,
    token::Token,
    watch::{Deadline, Tell},
};

/// Since when a task waits, and for how long it would have lent its thread.
pub(in crate::host) type Lent = (Instant, Duration);

/// The driver: carries a link's frames.
///
/// None of these is called with the link's lock held.
pub(crate) trait Drive: Send + Sync {
    /// Called before every request: makes sure that a driver runs, or says why none can.
    fn start(&self) -> Result<(), LockError>;

    /// There is something to send, and its answer is waited for.
    fn wake(&self);

    /// As `wake`, by a task that is about to wait and lends its thread for some 50 µs, if it is
    /// likely to be `done` by then. What to tell [`answered`](Self::answered), if anything.
    fn carry_for_task(&self, done: &dyn Fn() -> bool) -> Option<Lent> {
        let _ = done;
        self.wake();
        None
    }

    /// A task has the answer that it lent its thread for.
    fn answered(&self, lent: Lent) {
        let _ = lent;
    }

    /// As `wake`, by a thread that is about to wait and offers its hands until `done`. Returning
    /// early is fine: the caller then parks.
    fn carry(&self, done: &dyn Fn() -> bool) {
        let _ = done;
        self.wake();
    }

    /// There is a release to send. `soon`: others are known to wait for that lock; else it may
    /// go with whatever is sent next, within two milliseconds.
    fn wake_for_release(&self, soon: bool) {
        let _ = soon;
        self.wake();
    }

    /// There is something to send before the process ends. The caller sends it, unless another
    /// thread carries frames just now.
    #[cfg(feature = "host")]
    fn send_ahead(&self) {
        self.wake();
    }

    /// Called now and then by a waiting caller: why no driver runs any more, if so.
    fn attend(&self) -> Result<(), LockError> {
        Ok(())
    }

    /// The client was closed: waits until its goodbye is sent, at most until `until`, and ends
    /// what `start` began.
    fn finish(&self, until: Time);

    /// Has the driver panic at its next turn.
    #[cfg(test)]
    fn break_down(&self) {}

    /// Runs `work` while no thread can carry frames.
    #[cfg(test)]
    fn while_stalled(&self, work: &mut dyn FnMut());
}

/// One manager's way to its leader.
pub(crate) struct Link {
    state: Mutex<LinkState>,
    drive: Arc<dyn Drive>,
    me: Weak<Link>,
    settler: Arc<Settler>,
    /// The session's, the same as in the state: to be read without locking that.
    deadline: Arc<Deadline>,
    /// As it stands in the state.
    unanswered: AtomicUsize,
    /// Tells a forked child from its parent: the child has neither the driver nor the sessions.
    generation: fn() -> u64,
    made_in: u64,
}

struct LinkState {
    client: Client,
    acquires: Numbered<RequestId, AnswerWaiter<LeaseGranted>>,
    releases: Numbered<LeaseId, AnswerWaiter<()>>,
    /// Until when releases wait for their answers, the soonest first.
    release_limits: VecDeque<(Time, LeaseId)>,
    queries: Numbered<QueryId, AnswerWaiter<QueryAnswer>>,
    observers: BTreeMap<RequestId, ObserverState>,
    upgrades: Numbered<UpgradeId, AnswerWaiter<Token>>,
    /// Granted and not given back yet, lost ones included.
    leases: Numbered<LeaseId, LinkLease>,
    /// Requests that have ended, and are settled beside this lock.
    settling: Vec<RequestId>,
    /// The link's, through all its sessions; it moves under this state's lock.
    deadline: Arc<Deadline>,
    /// Waiters without an outcome.
    unanswered: usize,
    closed: bool,
    /// The process is ending: callers that wait are not told that the client is closed.
    is_leaving: bool,
    on_warning: Option<Tell>,
    remember: Option<Remember>,
    pins: CallerPins,
    aftermath: Aftermath,
}

/// How a lease that may be kept looked when it was last looked at.
#[derive(Clone, Copy, Default)]
struct IdleLook {
    /// As [`LeaseWord::idle`] says.
    idle: Option<u64>,
    since: Time,
    /// The leader knows that no guard has it.
    is_told: bool,
}

/// How often a lease that may be kept is looked at, at first and at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(4);
/// A kept lease that was unused for this long goes back, unless it is to be kept always: if
/// this process dies, others wait for its time to live.
const IDLE: Duration = Duration::from_secs(1);

/// What came of a query: each is answered by its own kind, which the protocol client sees to.
enum QueryAnswer {
    Listed { locks: Vec<LockInfo>, more: bool },
    Checked { good: bool },
    Broke { found: bool },
}

impl Link {
    /// A link around a client, carried by what `drive` makes.
    pub(in crate::host) fn new<D: Drive + 'static>(
        client: Client,
        generation: fn() -> u64,
        drive: impl FnOnce(Weak<Link>) -> Arc<D>,
    ) -> Arc<Link> {
        let deadline = Arc::new(Deadline::new(Time::ZERO));
        Arc::new_cyclic(|link| Link {
            deadline: deadline.clone(),
            unanswered: AtomicUsize::new(0),
            state: Mutex::new(LinkState {
                client,
                acquires: Numbered::default(),
                releases: Numbered::default(),
                release_limits: VecDeque::new(),
                queries: Numbered::default(),
                observers: BTreeMap::new(),
                upgrades: Numbered::default(),
                leases: Numbered::default(),
                settling: Vec::new(),
                deadline,
                unanswered: 0,
                closed: false,
                is_leaving: false,
                on_warning: None,
                remember: None,
                pins: CallerPins::default(),
                aftermath: Aftermath::default(),
            }),
            drive: drive(link.clone()),
            me: link.clone(),
            settler: Settler::new(link.clone()),
            generation,
            made_in: generation(),
        })
    }

    /// Has `warn` called when what is held may soon be lost.
    #[cfg(feature = "host")]
    pub(crate) fn on_warning(&self, warn: Tell) {
        self.state.lock().on_warning = Some(warn);
    }

    /// Has `remember` called with what leaders show of their reigns, before any caller hears of
    /// what they grant in them.
    #[cfg(feature = "host")]
    pub(crate) fn remember(&self, remember: Remember) {
        self.state.lock().remember = Some(remember);
    }

    /// Asks for a lease: see [`LeaseService::ask`].
    pub(crate) fn acquire(self: &Arc<Self>, request: LeaseRequest) -> Acquiring {
        let LeaseRequest { name, patience, above, at_most, at_least, keep, .. } = request;
        let LeaseRequest { word, mode, lapses, has_moved, settlement, .. } = request;
        let LeaseRequest { after: comes_after, answer_by, value, blocks, .. } = request;
        if let Err(error) = self.ready() {
            return Acquiring(Waiting::failed(error.with_name(&name).with_scope(Scope::Host)));
        }
        let now = clock::now();
        let (wait, limit) = match patience {
            LeasePatience::No => (Wait::No, answer_by),
            LeasePatience::Until(Time::NEVER) => (Wait::Forever, None),
            LeasePatience::Until(at) => (Wait::For(at.since(now)), Some(at)),
        };
        let asked = Acquire::exclusive(name.clone(), wait);
        let asked_mode = match mode {
            LeaseMode::Exclusive => Mode::Exclusive,
            LeaseMode::Shared => Mode::Shared,
            LeaseMode::Upgradable => Mode::Upgradable,
            LeaseMode::Permits { count, limit } => Mode::Permits { count, limit },
        };
        let after = comes_after.map(RequestId);
        let pins = match blocks && patience != LeasePatience::No {
            true => self.pins(),
            false => PinsMade::default(),
        };
        let extras = Extras { after, holds: pins.holds, value, above: pins.above };
        let extras = (extras != Extras::default()).then(|| Box::new(extras));
        let acquire = Acquire { at_most, keep, above, at_least, mode: asked_mode, extras, ..asked };
        let opens = Some(Opens { word, keep, mode, lapses, has_moved, settlement });
        let mut state = self.state.lock();
        let request = state.client.acquire(acquire, limit, now);
        state
            .acquires
            .insert(request, AnswerWaiter { opens, ..AnswerWaiter::new(Some(name), now) });
        state.unanswered += 1;
        self.settle(state);
        Acquiring(Waiting::new(self, request))
    }

    /// Queues the release. Whether others may wait for the lock at the leader. `None`: it is not ours
    /// to release.
    fn queue_release(&self, word: &LeaseWord, used: &Used) -> Option<bool> {
        if self.forked() {
            return None;
        }
        word.gone(used);
        let lease = used.lease.into();
        let mut state = self.state.lock();
        let held = state.leases.remove(&lease);
        state.client.release(lease, used.last, used.how, clock::now());
        self.settle(state);
        Some(held.is_none_or(|held| held.is_wanted_by_others))
    }

    /// The cluster of the leader that has answered, once one has.
    pub(crate) fn cluster(&self) -> Option<crate::proto::ClusterId> {
        self.state.lock().client.cluster()
    }

    /// Looks at a lease that may be kept, again and again until it is given back: tells the leader
    /// whether a guard has it, and gives it back if it was unused for [`IDLE`].
    fn look_after(self: Arc<Self>, lease: LeaseId, mut seen: IdleLook) {
        let mut state = self.state.lock();
        let LinkState { leases, client, .. } = &mut *state;
        let word = leases.get(&lease).and_then(|held| held.open_word(lease)).cloned();
        let Some(word) = word else { return };
        let idle = word.idle();
        let is_same = idle.is_some() && idle == seen.idle;
        let has_rested = is_same && clock::now().since(seen.since) >= IDLE;
        let used = (has_rested && !word.is_kept_always())
            .then(|| word.close_unused(idle.expect("it is idle")))
            .flatten();
        if let Some(used) = used {
            state.give_back_closed(lease, word, used);
            self.settle(state);
            return self.drive.wake_for_release(true);
        }
        if idle.is_some() != seen.is_told && (is_same || idle.is_none()) {
            seen.is_told = idle.is_some();
            client.is_kept(lease, seen.is_told);
        }
        if !is_same {
            (seen.idle, seen.since) = (idle, clock::now());
        }
        self.settle(state);
        let rest = clock::now().since(seen.since).clamp(LOOK_EVERY, LOOK_EVERY_MAX);
        let me = Arc::downgrade(&self);
        drop(self);
        alarm::call_at(clock::now() + rest, move || {
            if let Some(link) = me.upgrade() {
                link.look_after(lease, seen);
            }
        })
        .detach();
    }

    /// A lease that was granted to a task goes back if that has not claimed it: it may never be polled
    /// again.
    fn give_up_unclaimed(&self, lease: LeaseId) {
        let mut state = self.state.lock();
        let Some(word) = state.open_word(lease) else { return };
        if let Some(used) = word.give_up_reserved() {
            state.give_back_closed(lease, word, used);
        }
        self.settle(state);
        self.drive.wake_for_release(true);
    }

    /// Gives a lease back, with an answer: see [`LeaseService::give_back_answered`].
    pub(crate) fn release_answered(self: &Arc<Self>, word: &LeaseWord, used: &Used) -> Releasing {
        if let Err(error) = self.ready() {
            return Releasing(Waiting::failed(error));
        }
        word.gone(used);
        let now = clock::now();
        let lease = used.lease.into();
        let mut state = self.state.lock();
        let held = state.leases.remove(&lease);
        state.client.release_awaited(lease, used.last, used.how, now);
        if used.lost.is_none() {
            state.releases.insert(lease, AnswerWaiter::new(None, now));
            let limit = now + state.client.connect_timeout();
            state.release_limits.push_back((limit, lease));
            state.unanswered += 1;
        }
        self.settle(state);
        drop(held);
        match used.lost {
            None => Releasing(Waiting::new(self, lease)),
            Some(reason) => {
                self.drive.wake_for_release(true);
                Releasing(Waiting::failed(LockError::lost(reason).with_scope(Scope::Host)))
            }
        }
    }

    /// All names the leader knows (pages are joined), or one. Blocks.
    pub(crate) fn list(
        self: &Arc<Self>,
        only: Option<&Name>,
        limit: Option<Time>,
    ) -> Result<Vec<LockInfo>, LockError> {
        let mut listing = Listing::new(only);
        while let NextPage::Behind(after) = listing.next() {
            listing.add(self.ask_list(only, after, limit).wait()?);
        }
        Ok(listing.found)
    }

    /// As [`list`](Link::list), blocking no thread.
    pub(crate) async fn list_async(
        self: &Arc<Self>,
        only: Option<&Name>,
        limit: Option<Time>,
    ) -> Result<Vec<LockInfo>, LockError> {
        let mut listing = Listing::new(only);
        while let NextPage::Behind(after) = listing.next() {
            listing.add(self.ask_list(only, after, limit).await?);
        }
        Ok(listing.found)
    }

    fn ask_list(
        self: &Arc<Self>,
        only: Option<&Name>,
        after: Option<Name>,
        limit: Option<Time>,
    ) -> Asking {
        const PAGE: u32 = 256;
        self.ask(None, |client, now| match only {
            // The leader would leave it out, which looks as if it were free.
            Some(only) if !client.may_see(only) => client.refuse_question(now),
            _ => client.list(after, PAGE, limit, now),
        })
    }

    /// Asks whether this token's lease still holds.
    pub(crate) fn check(
        self: &Arc<Self>,
        name: &Name,
        token: Token,
        limit: Option<Time>,
    ) -> Questioning {
        let query = |client: &mut Client, now| client.check(name.clone(), token, limit, now);
        Questioning(self.ask(Some(name), query))
    }

    /// Has the lock taken away from the holder of this token; whether it had that.
    pub(crate) fn break_lock(
        self: &Arc<Self>,
        name: &Name,
        token: Token,
        limit: Option<Time>,
    ) -> Questioning {
        let query = |client: &mut Client, now| client.break_lock(name.clone(), token, limit, now);
        Questioning(self.ask(Some(name), query))
    }

    fn ask(
        self: &Arc<Self>,
        name: Option<&Name>,
        query: impl FnOnce(&mut Client, Time) -> RequestId,
    ) -> Asking {
        if let Err(error) = self.ready() {
            return Asking(Waiting::failed(error));
        }
        let now = clock::now();
        let mut state = self.state.lock();
        let key = QueryId(query(&mut state.client, now));
        state.queries.insert(key, AnswerWaiter::new(name.cloned(), now));
        state.unanswered += 1;
        self.settle(state);
        Asking(Waiting::new(self, key))
    }

    fn begin_closing(&self, mut state: MutexGuard<'_, LinkState>) {
        for lease in sorted(&state.leases) {
            let Some(word) = state.open_word(lease) else { continue };
            match word.recall() {
                Met::Idle(used) => {
                    // No other session asked for it.
                    state.give_back_closed(lease, word, Used { is_recalled: false, ..used });
                }
                Met::InUse { .. } | Met::Reserved | Met::Closed => {
                    state.aftermath.waiters.extend(word.take_waiter());
                }
            }
        }
        state.recall_settling();
        // While the process ends its threads are to see no wait fail.
        if !state.is_leaving {
            state.close_upgrades();
        }
        state.client.close(clock::now());
        self.settle(state);
    }

    /// Whether the client has been closed and owes no peer a word.
    #[cfg(feature = "host")]
    pub(in crate::host) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// How many callers wait for an answer that is not here yet.
    #[cfg(feature = "host")]
    pub(in crate::host) fn unanswered(&self) -> usize {
        self.unanswered.load(SeqCst)
    }

    /// Runs `work` while no thread carries frames, as if the process had been stopped.
    #[cfg(test)]
    pub(in crate::host) fn while_stalled<R>(&self, work: impl FnOnce() -> R) -> R {
        let (mut work, mut result) = (Some(work), None);
        self.drive.while_stalled(&mut || result = work.take().map(|work| work()));
        result.expect("it ran")
    }

    /// Has the driver panic at its next turn.
    #[cfg(test)]
    pub(in crate::host) fn break_down(&self) {
        self.drive.break_down();
    }

    /// For the driver: hands what happened to the client, notes for callers what came of it,
    /// and takes what is to be done now. No caller is told before [`follow_up`](Link::follow_up).
    pub(in crate::host) fn drive<C, H, R>(
        &self,
        hands: &mut C,
        happened: impl FnOnce(&mut C, &mut Client) -> H,
        to_do: impl FnOnce(&mut C, &mut Client, H) -> R,
    ) -> R {
        let mut state = self.state.lock();
        let happened = happened(hands, &mut state.client);
        // Before anything is taken to be sent: a loss is told to guards before the leader hears
        // that they know.
        state.drain();
        let result = to_do(hands, &mut state.client, happened);
        state.drain();
        self.count_unanswered(&state);
        result
    }

    /// For the driver, once it holds no lock: tells callers what came of its turn.
    pub(in crate::host) fn follow_up(&self) {
        let aftermath = self.state.lock().take_aftermath();
        if let Some(aftermath) = aftermath {
            aftermath.run(self);
        }
    }

    /// The same for a driver that others may wait for, unless it runs foreign code; whether nothing is
    /// left to be told.
    #[cfg(feature = "host")]
    pub(in crate::host) fn follow_up_shortly(&self) -> bool {
        let mut state = self.state.lock();
        if state.aftermath.is_foreign() {
            return false;
        }
        let aftermath = state.take_aftermath();
        drop(state);
        if let Some(aftermath) = aftermath {
            aftermath.run(self);
        }
        true
    }

    /// Whether what is to be told runs foreign code.
    #[cfg(feature = "host")]
    pub(in crate::host) fn tells_foreign(&self) -> bool {
        self.state.lock().aftermath.is_foreign()
    }

    fn loss_is_told(&self, lease: LeaseId) {
        let mut state = self.state.lock();
        state.client.loss_is_told(lease);
        self.settle(state);
        self.drive.wake_for_release(true);
    }

    /// No driver will ever carry frames again: every waiting caller is told `why`, and no lease is
    /// renewed any more, so each of them counts as lost.
    #[cfg(feature = "host")]
    pub(in crate::host) fn abandon(&self, why: impl Fn() -> LockError) {
        let mut state = self.state.lock();
        let LinkState {
            acquires, releases, queries, upgrades, observers, leases, aftermath, ..
        } = &mut *state;
        observers.values_mut().for_each(|observer| observer.abandon(why(), aftermath));
        acquires.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
        releases.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
        queries.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
        upgrades.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
        for (&lease, held) in leases {
            match held.lose(lease, LostReason::Expired) {
                Losing::Watched(watches) => {
                    aftermath.lose(lease, &watches, LostReason::Expired);
                }
                Losing::Unwatched { .. } => aftermath.lose_unwatched(lease),
                Losing::Idle(word, _) => aftermath.waiters.extend(word.take_waiter()),
            }
        }
        self.settle(state);
    }

    /// Takes the lock of this name away, as the leader would; whether it was held here.
    #[cfg(feature = "testing")]
    pub(in crate::host) fn provoke(&self, name: &Name) -> bool {
        let mut state = self.state.lock();
        let LinkState { client, leases, aftermath, .. } = &mut *state;
        let (mut any, mut lost) = (false, Vec::new());
        leases.retain(|&lease, held| {
            if held.name != *name {
                return true;
            }
            let (is_new, stays) = match held.lose(lease, LostReason::Provoked) {
                Losing::Watched(watches) => {
                    (aftermath.lose(lease, &watches, LostReason::Provoked), true)
                }
                Losing::Unwatched { is_new } => {
                    aftermath.lose_unwatched(lease);
                    (is_new, true)
                }
                Losing::Idle(word, used) => {
                    aftermath.close(word, &used);
                    (true, false)
                }
            };
            if is_new {
                // Whatever was used of its block: the leader cuts the number to the block's end.
                client.release(lease, Token::MAX, crate::error::Predecessor::Broken, clock::now());
                any = true;
                lost.push(lease);
            }
            stays
        });
        lost.into_iter().for_each(|lease| state.end_upgrade(lease, LostReason::Provoked));
        self.settle(state);
        any
    }

    /// Distributes the client's events, unlocks, and does what had to wait for that.
    fn settle(&self, mut state: MutexGuard<'_, LinkState>) {
        state.drain();
        self.count_unanswered(&state);
        let aftermath = state.take_aftermath();
        drop(state);
        if let Some(aftermath) = aftermath {
            aftermath.run(self);
        }
    }

    /// What is seen of it without locking the state.
    fn count_unanswered(&self, state: &LinkState) {
        if self.unanswered.load(Relaxed) != state.unanswered {
            self.unanswered.store(state.unanswered, SeqCst);
        }
    }

    fn ready(&self) -> Result<(), LockError> {
        self.check_fork()?;
        self.drive.start()
    }

    fn check_fork(&self) -> Result<(), LockError> {
        if self.forked() {
            return Err(LockError::config(
                "this manager was opened before a fork; open another one in the child",
            ));
        }
        Ok(())
    }

    fn forked(&self) -> bool {
        (self.generation)() != self.made_in
    }
}
