//! Between callers and one manager's protocol client: requests in, leases out, whatever carries
//! the frames.
//!
//! No network and no thread lives here. Callers lock the state for a moment, put a request to the
//! protocol client and ask the driver to carry it; the driver lends the client its hands with
//! [`Link::drive`], and what comes of that is handed to the callers that wait.

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    alarm::{self, contain},
    callbacks, clock,
    error::{Holder, LockError, LockErrorKind, LostReason},
    host::{
        lease_word::{LeaseKey, LeaseWord, Met, Opening, Used, WordWaiter},
        service::{
            LeaseGranted, LeasePatience, LeaseRequest, LeaseService, PendingLease, PendingRelease,
            Settlement,
        },
    },
    name::Name,
    printable::Printable,
    proto::{
        LeaseId, RequestId,
        client::{Client, Event, Failure},
        history,
        numbered::{Numbered, sorted},
        wire::{Acquire, HolderInfo, LockInfo, Mode, NameUse, Refusal, Wait},
    },
    scope::Scope,
    time::Time,
    token::Token,
    watch::{Deadline, Tell, Watch},
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
    /// go with whatever is sent next, within a millisecond.
    fn let_go(&self, soon: bool) {
        let _ = soon;
        self.wake();
    }

    /// There is something to send before the process ends. The caller sends it, unless another
    /// thread carries frames just now.
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
    state: Mutex<State>,
    drive: Arc<dyn Drive>,
    me: Weak<Link>,
    /// The session's, the same as in the state: to be read without locking that.
    deadline: Arc<Deadline>,
    /// As it stands in the state.
    unanswered: AtomicUsize,
    /// Tells a forked child from its parent: the child has neither the driver nor the sessions.
    generation: fn() -> u64,
    made_in: u64,
}

struct State {
    client: Client,
    acquires: Numbered<RequestId, Waiter<LeaseGranted>>,
    releases: Numbered<LeaseId, Waiter<()>>,
    /// Until when releases wait for their answers, the soonest first.
    release_limits: VecDeque<(Time, LeaseId)>,
    queries: Numbered<QueryId, Waiter<QueryAnswer>>,
    /// Granted and not given back yet, lost ones included.
    leases: Numbered<LeaseId, Held>,
    /// The link's, through all its sessions; it moves under this state's lock.
    deadline: Arc<Deadline>,
    /// Waiters without an outcome.
    unanswered: usize,
    closed: bool,
    /// The process is ending: callers that wait are not told that the client is closed.
    is_leaving: bool,
    on_warning: Option<Tell>,
    remember: Option<Remember>,
    aftermath: Aftermath,
}

struct Held {
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests provoke losses"))]
    name: Name,
    /// It is open with this lease, or was until a guard left it for good that has yet to give the
    /// lease back. Then it may be open with another.
    word: Arc<LeaseWord>,
    /// Another session had it when it was asked for, or a process of the directory before: more may
    /// wait.
    is_wanted_by_others: bool,
}

/// How a lease that may be kept looked when it was last looked at.
#[derive(Clone, Copy, Default)]
struct Seen {
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

impl Held {
    /// The word, if it is open with this lease.
    fn open_word(&self, lease: LeaseId) -> Option<&Arc<LeaseWord>> {
        self.word.is_of(lease.into()).then_some(&self.word)
    }

    fn lose(&self, lease: LeaseId, why: LostReason) -> Losing {
        let Some(word) = self.open_word(lease) else { return Losing::Unwatched { is_new: false } };
        match word.lose(why) {
            Met::Idle(used) => Losing::Idle(word.clone(), used),
            Met::InUse { is_watched: true, is_lost } => match word.watched() {
                // Its guard is leaving, and has the watch in hand.
                watches if watches.is_empty() => Losing::Unwatched { is_new: !is_lost },
                watches => Losing::Watched(watches),
            },
            Met::InUse { is_lost, .. } => Losing::Unwatched { is_new: !is_lost },
            Met::Reserved | Met::Closed => Losing::Unwatched { is_new: false },
        }
    }
}

/// What the loss of a lease meets.
enum Losing {
    /// A guard that is told by this watch, or several readers, each by its own.
    Watched(Vec<Arc<Watch>>),
    /// A guard that asks for itself, or that has left for good just now. It is told by nothing else.
    Unwatched { is_new: bool },
    /// No guard, and none follows: the word is closed.
    Idle(Arc<LeaseWord>, Used),
}

impl From<LeaseId> for LeaseKey {
    fn from(lease: LeaseId) -> LeaseKey {
        LeaseKey { high: lease.epoch.into(), low: lease.count }
    }
}

impl From<LeaseKey> for LeaseId {
    fn from(lease: LeaseKey) -> LeaseId {
        let epoch = lease.high.try_into().expect("it was an epoch");
        LeaseId { epoch, count: lease.low }
    }
}

/// What is to be done once no lock is held: it wakes others, or runs foreign code.
#[derive(Default)]
struct Aftermath {
    answered: usize,
    /// Leases that may be kept, to be looked after.
    opened: Vec<LeaseId>,
    /// Words that were closed while idle: the last of each may be dropped here.
    gone: Vec<Arc<LeaseWord>>,
    wakes: Vec<Wake>,
    /// Those that waited at words which were closed.
    waiters: Vec<WordWaiter>,
    losses: Vec<Loss>,
    warnings: Vec<(Tell, String)>,
    saw: Option<(Remember, history::Seen)>,
}

/// What is called with what a leader has shown.
pub(crate) type Remember = Arc<dyn Fn(history::Seen) + Send + Sync>;

/// A loss to be told, whereupon the leader may hear that no guard believes in the lease.
struct Loss {
    lease: LeaseId,
    /// What to tell it by, but for what another thread has seen first; nothing if no guard asked to be
    /// told.
    tell: Vec<(Arc<Watch>, LostReason)>,
}

/// A caller that waits for an answer. Its outcome stays here until it is fetched.
struct Waiter<T> {
    name: Option<Name>,
    /// What a grant opens.
    opens: Option<Opens>,
    since: Time,
    is_queued: bool,
    /// Until it is answered or queued.
    expecting: Option<Expecting>,
    outcome: Option<Result<T, LockError>>,
    /// The lease that was granted, and the word that it opened.
    granted: Option<(LeaseId, Arc<LeaseWord>)>,
    wake: Wake,
}

/// What a grant opens, and settles.
struct Opens {
    word: Arc<LeaseWord>,
    keep: bool,
    is_in_use: bool,
    is_shared: bool,
    /// As [`LeaseRequest::has_moved`].
    has_moved: bool,
    settlement: Settlement,
}

/// One answer that a caller of this process waits for and that is on its way: not behind another
/// holder.
struct Expecting;

/// All of them, of all links. A forked child starts with its parent's, and is the less eager to look
/// for answers before it sleeps.
static EXPECTING: AtomicUsize = AtomicUsize::new(0);

impl Expecting {
    fn begin() -> Option<Expecting> {
        EXPECTING.fetch_add(1, Relaxed);
        Some(Expecting)
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        EXPECTING.fetch_sub(1, Relaxed);
    }
}

/// How many answers this whole process waits for that are on their way.
#[cfg(feature = "host")]
pub(in crate::host) fn expecting() -> usize {
    EXPECTING.load(Relaxed)
}

enum Wake {
    Nothing,
    Thread(Thread),
    Task(Waker),
}

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
            state: Mutex::new(State {
                client,
                acquires: Numbered::default(),
                releases: Numbered::default(),
                release_limits: VecDeque::new(),
                queries: Numbered::default(),
                leases: Numbered::default(),
                deadline,
                unanswered: 0,
                closed: false,
                is_leaving: false,
                on_warning: None,
                remember: None,
                aftermath: Aftermath::default(),
            }),
            drive: drive(link.clone()),
            me: link.clone(),
            generation,
            made_in: generation(),
        })
    }

    /// Has `warn` called when what is held may soon be lost.
    pub(crate) fn on_warning(&self, warn: Tell) {
        self.state.lock().on_warning = Some(warn);
    }

    /// Has `remember` called with what leaders show of their reigns, before any caller hears of
    /// what they grant in them.
    pub(crate) fn remember(&self, remember: Remember) {
        self.state.lock().remember = Some(remember);
    }

    /// Asks for a lease: see [`LeaseService::ask`].
    pub(crate) fn acquire(self: &Arc<Self>, request: LeaseRequest) -> Acquiring {
        let LeaseRequest { name, patience, above, at_most, at_least, keep, .. } = request;
        let LeaseRequest { word, is_in_use, is_shared, has_moved, settlement, .. } = request;
        if let Err(error) = self.ready() {
            return Acquiring(Waiting::failed(error.with_name(&name).with_scope(Scope::Host)));
        }
        let now = clock::now();
        let (wait, limit) = match patience {
            LeasePatience::No => (Wait::No, None),
            LeasePatience::Until(Time::NEVER) => (Wait::Forever, None),
            LeasePatience::Until(at) => (Wait::For(at.since(now)), Some(at)),
        };
        let asked = Acquire::exclusive(name.clone(), wait);
        let mode = if is_shared { Mode::Shared } else { Mode::Exclusive };
        let acquire = Acquire { at_most, keep, above, at_least, mode, ..asked };
        let opens = Some(Opens { word, keep, is_in_use, is_shared, has_moved, settlement });
        let mut state = self.state.lock();
        let request = state.client.acquire(acquire, limit, now);
        state.acquires.insert(request, Waiter { opens, ..Waiter::new(Some(name), now) });
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
    fn look_after(self: Arc<Self>, lease: LeaseId, mut seen: Seen) {
        let mut state = self.state.lock();
        let State { leases, client, .. } = &mut *state;
        let word = leases.get(&lease).and_then(|held| held.open_word(lease)).cloned();
        let Some(word) = word else { return };
        let idle = word.idle();
        let is_same = idle.is_some() && idle == seen.idle;
        let has_rested = is_same && clock::now().since(seen.since) >= IDLE;
        let used = (has_rested && !word.is_for_good())
            .then(|| word.close_unused(idle.expect("it is idle")))
            .flatten();
        if let Some(used) = used {
            state.give_back_closed(lease, word, used);
            self.settle(state);
            return self.drive.let_go(true);
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
            state.releases.insert(lease, Waiter::new(None, now));
            let limit = now + state.client.connect_timeout();
            state.release_limits.push_back((limit, lease));
            state.unanswered += 1;
        }
        self.settle(state);
        drop(held);
        match used.lost {
            None => Releasing(Waiting::new(self, lease)),
            Some(reason) => {
                self.drive.let_go(true);
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
        while let Some(after) = listing.next() {
            listing.add(self.ask_list(after, limit).wait()?);
        }
        Ok(listing.found)
    }

    /// As [`list`](Link::list) of one name, blocking no thread.
    pub(crate) async fn list_async(
        self: &Arc<Self>,
        only: &Name,
        limit: Option<Time>,
    ) -> Result<Vec<LockInfo>, LockError> {
        let mut listing = Listing::new(Some(only));
        while let Some(after) = listing.next() {
            listing.add(self.ask_list(after, limit).await?);
        }
        Ok(listing.found)
    }

    fn ask_list(self: &Arc<Self>, after: Option<Name>, limit: Option<Time>) -> Asking {
        const PAGE: u32 = 256;
        self.ask(None, |client, now| client.list(after, PAGE, limit, now))
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
        state.queries.insert(key, Waiter::new(name.cloned(), now));
        state.unanswered += 1;
        self.settle(state);
        Asking(Waiting::new(self, key))
    }

    fn begin_closing(&self, mut state: MutexGuard<'_, State>) {
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
        state.client.close(clock::now());
        self.settle(state);
    }

    /// Whether the client has been closed and owes no peer a word.
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
            aftermath.run(&self.me);
        }
    }

    fn loss_is_told(&self, lease: LeaseId) {
        let mut state = self.state.lock();
        state.client.loss_is_told(lease);
        self.settle(state);
        self.drive.let_go(true);
    }

    /// No driver will ever carry frames again: every waiting caller is told `why`, and no lease is
    /// renewed any more, so each of them counts as lost.
    pub(in crate::host) fn abandon(&self, why: impl Fn() -> LockError) {
        let mut state = self.state.lock();
        let State { acquires, releases, queries, leases, aftermath, .. } = &mut *state;
        acquires.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
        releases.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
        queries.values_mut().for_each(|waiter| waiter.abandon(&why, aftermath));
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
        let State { client, leases, aftermath, .. } = &mut *state;
        let mut any = false;
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
            }
            stays
        });
        self.settle(state);
        any
    }

    /// Distributes the client's events, unlocks, and does what had to wait for that.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        state.drain();
        self.count_unanswered(&state);
        let aftermath = state.take_aftermath();
        drop(state);
        if let Some(aftermath) = aftermath {
            aftermath.run(&self.me);
        }
    }

    /// What is seen of it without locking the state.
    fn count_unanswered(&self, state: &State) {
        if self.unanswered.load(Relaxed) != state.unanswered {
            self.unanswered.store(state.unanswered, SeqCst);
        }
    }

    fn ready(&self) -> Result<(), LockError> {
        if self.forked() {
            return Err(LockError::config(
                "this manager was opened before a fork; open another one in the child",
            ));
        }
        self.drive.start()
    }

    fn forked(&self) -> bool {
        (self.generation)() != self.made_in
    }
}

impl State {
    fn drain(&mut self) {
        while let Some(event) = self.client.take_event() {
            self.distribute(event);
        }
        self.give_up_releases();
        self.unanswered -= mem::take(&mut self.aftermath.answered);
    }

    /// What is to be done once the state is unlocked, if there is anything.
    fn take_aftermath(&mut self) -> Option<Aftermath> {
        let is_any = !self.aftermath.is_empty();
        is_any.then(|| mem::take(&mut self.aftermath))
    }

    /// Tells the callers of releases that no leader answered in time. The driver looks in at least
    /// every 100 ms.
    fn give_up_releases(&mut self) {
        while let Some((limit, lease)) = self.release_limits.front() {
            if let Some(waiter) = self.releases.get_mut(lease)
                && waiter.outcome.is_none()
            {
                if clock::now() < *limit {
                    return;
                }
                waiter.leave_unanswered(&mut self.aftermath);
            }
            self.release_limits.pop_front();
        }
    }

    fn distribute(&mut self, event: Event) {
        match event {
            Event::Queued { request, .. } => {
                if let Some(waiter) = self.acquires.get_mut(&request) {
                    waiter.is_queued = true;
                    waiter.expecting = None;
                }
            }
            Event::Granted { request, lease, first, last, predecessor, at_most } => {
                let Some(waiter) = self.acquires.get_mut(&request) else {
                    return self.client.cancel(request, clock::now()); // its caller is gone
                };
                let opens = waiter.opens.take().expect("a request is granted once");
                let Opens { word, keep, is_in_use, is_shared, has_moved, settlement } = opens;
                if word.is_retired() {
                    // Its future was leaked, and what it was for is gone.
                    waiter.finish(
                        Err(error_of(Failure::Closed, Duration::ZERO)),
                        &mut self.aftermath,
                    );
                    return self.client.cancel(request, clock::now());
                }
                let had_to_queue = waiter.is_queued;
                // Those that share a lease bear one token.
                let keeps = keep && (first < last || is_shared);
                let opening = Opening {
                    lease: lease.into(),
                    first,
                    last,
                    predecessor,
                    at_most,
                    keeps,
                    is_in_use,
                    is_shared,
                };
                settlement.grant(&word, opening);
                if keeps {
                    self.aftermath.opened.push(lease);
                }
                self.aftermath.waiters.extend(word.take_waiter());
                let name = waiter.name.clone().expect("an acquire has a name");
                let is_wanted_by_others = had_to_queue || has_moved;
                waiter.granted = Some((lease, word.clone()));
                self.leases.insert(lease, Held { name, word, is_wanted_by_others });
                waiter.finish(Ok(LeaseGranted { had_to_queue }), &mut self.aftermath);
            }
            Event::Failed { failure: Failure::Closed, .. }
            | Event::QueryFailed { failure: Failure::Closed, .. }
                if self.is_leaving => {}
            Event::Failed { request, failure, holder } => {
                let Some(waiter) = self.acquires.get_mut(&request) else { return };
                let error = waiter.error(failure, holder);
                waiter.finish(Err(error), &mut self.aftermath);
            }
            Event::Released { lease } => {
                if let Some(waiter) = self.releases.get_mut(&lease) {
                    waiter.finish(Ok(()), &mut self.aftermath);
                }
            }
            Event::LeaseLost { lease, why } => {
                if let Some(waiter) = self.releases.get_mut(&lease) {
                    let error = LockError::lost(why).with_scope(Scope::Host);
                    waiter.finish(Err(error), &mut self.aftermath);
                }
                match self.leases.get(&lease).map(|held| held.lose(lease, why)) {
                    Some(Losing::Watched(watches)) => {
                        self.aftermath.lose(lease, &watches, why);
                    }
                    Some(Losing::Idle(word, used)) => {
                        self.leases.remove(&lease);
                        self.aftermath.close(word, &used);
                        self.client.loss_is_told(lease);
                    }
                    Some(Losing::Unwatched { .. }) | None => self.client.loss_is_told(lease),
                }
            }
            Event::Recalled { lease } => {
                let Some(word) = self.open_word(lease) else {
                    return; // on its way back
                };
                match word.recall() {
                    Met::Idle(used) => self.give_back_closed(lease, word, used),
                    Met::InUse { .. } | Met::Reserved => self.client.is_kept(lease, false),
                    Met::Closed => {} // on its way back
                }
            }
            Event::ToppedUp { lease, last } => {
                if let Some(word) = self.open_word(lease) {
                    word.extend(last);
                }
            }
            Event::AtRisk { deadline, held, trouble } => {
                if let Some(warn) = &self.on_warning {
                    let text = warning(deadline.since(clock::now()), held, &trouble);
                    self.aftermath.warnings.push((warn.clone(), text));
                }
            }
            Event::DeadlineMoved { deadline } => {
                // Whatever ended at the old deadline is marked by now: `LeaseLost` came first.
                self.deadline.set(deadline);
            }
            Event::Listed { query, locks, more } => {
                self.answer(query, QueryAnswer::Listed { locks, more });
            }
            Event::Checked { query, good } => self.answer(query, QueryAnswer::Checked { good }),
            Event::Broke { query, found } => self.answer(query, QueryAnswer::Broke { found }),
            Event::QueryFailed { query, failure } => {
                let Some(waiter) = self.queries.get_mut(&QueryId(query)) else { return };
                let error = waiter.error(failure, None);
                waiter.finish(Err(error), &mut self.aftermath);
            }
            Event::Saw { seen } => {
                self.aftermath.saw = self.remember.clone().map(|remember| (remember, seen));
            }
            Event::Closed => {
                self.closed = true;
                if !self.is_leaving {
                    // No driver looks after these any more.
                    let unanswered = self.releases.values_mut();
                    unanswered.for_each(|waiter| waiter.leave_unanswered(&mut self.aftermath));
                }
            }
        }
    }

    /// Gives a lease back after its word was closed with no guard in it.
    fn give_back_closed(&mut self, lease: LeaseId, word: Arc<LeaseWord>, used: Used) {
        self.leases.remove(&lease);
        self.client.release(lease, used.last, used.how, clock::now());
        self.aftermath.close(word, &used);
    }

    /// The word that is open with this lease.
    fn open_word(&self, lease: LeaseId) -> Option<Arc<LeaseWord>> {
        self.leases.get(&lease)?.open_word(lease).cloned()
    }

    fn answer(&mut self, query: RequestId, answer: QueryAnswer) {
        if let Some(waiter) = self.queries.get_mut(&QueryId(query)) {
            waiter.finish(Ok(answer), &mut self.aftermath);
        }
    }
}

impl Aftermath {
    fn is_empty(&self) -> bool {
        let Aftermath { answered: _, opened, gone, wakes, waiters, losses, warnings, saw } = self;
        wakes.is_empty()
            && waiters.is_empty()
            && opened.is_empty()
            && gone.is_empty()
            && losses.is_empty()
            && warnings.is_empty()
            && saw.is_none()
    }

    /// Marks a lease as lost, to be told; whether this was the first to see it.
    fn lose(&mut self, lease: LeaseId, watches: &[Arc<Watch>], why: LostReason) -> bool {
        let marked = watches.iter().filter(|watch| watch.mark(why));
        let tell: Vec<_> = marked.map(|watch| (watch.clone(), why)).collect();
        let is_first = !tell.is_empty();
        self.losses.push(Loss { lease, tell });
        is_first
    }

    /// The same of a lease with a guard that did not ask to be told.
    fn lose_unwatched(&mut self, lease: LeaseId) {
        self.losses.push(Loss { lease, tell: Vec::new() });
    }

    /// An idle word was closed. A representative may have been about to wait there.
    fn close(&mut self, word: Arc<LeaseWord>, used: &Used) {
        self.waiters.extend(word.take_waiter());
        word.gone(used);
        self.gone.push(word);
    }

    /// Remembers and wakes first; then tells the losses, on the alarm thread, each before the
    /// leader hears of it. Callbacks run on threads of their own and delay none of this.
    fn run(self, link: &Weak<Link>) {
        if let Some((remember, seen)) = self.saw {
            contain(|| remember(seen));
        }
        for lease in self.opened {
            let link = link.clone();
            alarm::call_at(clock::now() + LOOK_EVERY, move || {
                if let Some(link) = link.upgrade() {
                    link.look_after(lease, Seen::default());
                }
            })
            .detach();
        }
        for wake in self.wakes {
            contain(|| wake.wake());
        }
        for waiter in self.waiters {
            contain(|| waiter.wake());
        }
        for (warn, text) in self.warnings {
            callbacks::run(move || warn(&text));
        }
        for Loss { lease, tell } in self.losses {
            let link = link.clone();
            let tell = move || {
                for (watch, why) in tell {
                    contain(|| watch.tell(why));
                }
                if let Some(link) = link.upgrade() {
                    link.loss_is_told(lease);
                }
            };
            alarm::call_at(Time::ZERO, tell).detach();
        }
    }
}

impl<T> Waiter<T> {
    fn new(name: Option<Name>, since: Time) -> Waiter<T> {
        Waiter {
            name,
            opens: None,
            since,
            is_queued: false,
            expecting: Expecting::begin(),
            outcome: None,
            granted: None,
            wake: Wake::Nothing,
        }
    }

    /// The first outcome counts.
    fn finish(&mut self, outcome: Result<T, LockError>, aftermath: &mut Aftermath) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(outcome);
        self.expecting = None;
        // What was not granted is settled here.
        self.opens = None;
        aftermath.answered += 1;
        match mem::replace(&mut self.wake, Wake::Nothing) {
            Wake::Nothing => {}
            wake => aftermath.wakes.push(wake),
        }
    }

    fn abandon(&mut self, why: &impl Fn() -> LockError, aftermath: &mut Aftermath) {
        let error = why().with_scope(Scope::Host);
        let error = match &self.name {
            Some(name) => error.with_name(name),
            None => error,
        };
        self.finish(Err(error), aftermath);
    }

    fn error(&self, failure: Failure, holder: Option<HolderInfo>) -> LockError {
        let waited = clock::now().since(self.since);
        let is_answered = !matches!(failure, Failure::Unanswered(_));
        let error = error_of(failure, waited).with_scope(Scope::Host);
        // Without a name it may be free: the leader waited for others to report, or did not answer.
        let error = match holder {
            None if error.kind() == LockErrorKind::TimedOut => error.without_holder(is_answered),
            holder => error.with_holder(holder.map(holder_of)),
        };
        match &self.name {
            Some(name) => error.with_name(name),
            None => error,
        }
    }
}

impl Waiter<()> {
    /// No answer to this release came, and none is waited for any longer.
    fn leave_unanswered(&mut self, aftermath: &mut Aftermath) {
        let error = LockError::new(LockErrorKind::Unreachable, UNANSWERED);
        let error = error.with_waited(clock::now().since(self.since)).with_scope(Scope::Host);
        self.finish(Err(error), aftermath);
    }
}

impl Wake {
    fn wake(self) {
        match self {
            Wake::Nothing => {}
            Wake::Thread(thread) => thread.unpark(),
            Wake::Task(waker) => waker.wake(),
        }
    }
}

fn error_of(failure: Failure, waited: Duration) -> LockError {
    use LockErrorKind::{Config, Io, Refused, Unreachable};
    let (kind, text) = match failure {
        Failure::Refused { why: Refusal::WouldBlock } => return LockError::WOULD_BLOCK,
        Failure::Refused { why: Refusal::TimedOut } => {
            return LockError::new(LockErrorKind::TimedOut, "another holder had it all the time")
                .with_waited(waited);
        }
        Failure::Unanswered(trouble) => {
            let text = format!("no leader answered within the wait: {trouble}");
            return LockError::new(LockErrorKind::TimedOut, text).with_waited(waited);
        }
        Failure::Refused { why: Refusal::UsedAs(in_force) } => {
            return LockError::new(Config, used_as(in_force));
        }
        Failure::Refused { why } => refused(why),
        Failure::Unreachable(trouble) if trouble.is_empty() => {
            return LockError::new(Unreachable, "no leader answered").with_waited(waited);
        }
        Failure::Unreachable(trouble) => {
            return LockError::new(Unreachable, trouble).with_waited(waited);
        }
        Failure::NotAccepted(why) => return LockError::new(Refused, why),
        Failure::Config(why) => return LockError::new(Config, why),
        Failure::Closed => (Config, "the manager was closed"),
    };
    return LockError::new(kind, text);

    fn refused(why: Refusal) -> (LockErrorKind, &'static str) {
        match why {
            Refusal::WouldBlock | Refusal::TimedOut => unreachable!("another session holds it"),
            Refusal::UsedAs(_) => unreachable!("it is told in words of its own"),
            Refusal::TooManySessions => (
                Refused,
                "the leader has no room for another session of this client (one address gets at most \
                 as many as it leaves free for others); close managers that are not needed, or \
                 start the leader with a larger --sessions-max",
            ),
            Refusal::TooManyLeases => (
                Refused,
                "this manager holds as many leases as the leader allows one session; \
                 unlock some, or open another manager",
            ),
            Refusal::TooManyWaiters => (
                Refused,
                "this manager waits for as many locks as the leader allows one session; \
                 wait for fewer at a time, or open another manager",
            ),
            Refusal::TooManyClaims => (
                Refused,
                "this client holds, waits for and keeps taken by at_least as many locks as the leader \
                 has room for (one address gets at most as many as it leaves free for others); \
                 unlock some, or start the leader with a larger --claims-max",
            ),
            Refusal::TooManyReservations => (
                Refused,
                "as many names are kept taken by at_least as the leader remembers (65,536, of which \
                 one address gets at most as many as it leaves free for others); lock without \
                 at_least, or with a shorter one",
            ),
            Refusal::AtLeastTooLong => (
                Config,
                "at_least is longer than a leader remembers; at host scope it is at most 31 days",
            ),
            Refusal::TimeToLive => (
                Refused,
                "the leader does not accept this manager's time_to_live; \
                 choose a shorter one, or start the leader with a larger --ttl-max",
            ),
            Refusal::OtherCluster => (
                Refused,
                "the leader is not the one this manager has spoken to before (its state \
                 directory is another one); point the manager at its own leader, or open it anew",
            ),
            Refusal::NotSupported => (
                Refused,
                "the leader is of an earlier release and does not know what is asked for; update it",
            ),
            Refusal::TooOld => (Refused, "this program is too old for the leader; update it"),
            Refusal::TooFarAbove => (
                Refused,
                "the highest token that this machine knows for the name lies further above the \
                 leader's tokens than it goes in a day (1,024 epochs); its operator starts it once \
                 with --epoch-above, if that token is real",
            ),
            Refusal::Tokens => (
                Refused,
                "the highest token known for this name leaves the leader no room above it",
            ),
            Refusal::DiskFull => (
                Refused,
                "the leader's disk has no room for one more session or at_least; it serves those \
                 that it has until its operator makes room in its state directory",
            ),
            Refusal::Storage => (
                Io,
                "the leader cannot write to its state directory; its operator finds the reason there",
            ),
        }
    }
}

/// What the name is used as by its other holders and waiters.
fn used_as(in_force: NameUse) -> String {
    match in_force {
        NameUse::Lock => "the name is in use as a lock (a Mutex or an RwLock), and not as a \
             semaphore; choose another name for one of them"
            .to_owned(),
        NameUse::Permits { limit } => format!(
            "the name is in use as a semaphore with {limit} permits; use it with the same number \
             everywhere, or choose another name"
        ),
    }
}

fn warning(left: Duration, held: usize, trouble: &str) -> String {
    let locks =
        if held == 1 { "1 held lock is".to_owned() } else { format!("{held} held locks are") };
    let trouble = Printable(trouble);
    format!("{trouble}; {locks} lost in {left:.1?} unless one answers before")
}

const UNANSWERED: &str = "no leader has confirmed the release; it is repeated until one does";

/// What the leader tells about a holder, as callers see it.
pub(crate) fn holder_of(info: HolderInfo) -> Holder {
    let HolderInfo { identity, since, token, mode: _ } = info;
    Holder {
        label: identity.label.clone(),
        host: identity.host.clone(),
        pid: (identity.pid != 0).then_some(identity.pid),
        command: identity.command.clone(),
        held: Some(since),
        held_since_grant: true,
        token: (token != Token::ZERO).then_some(token),
    }
}

/// The pages of a list, joined.
struct Listing<'a> {
    only: Option<&'a Name>,
    found: Vec<LockInfo>,
    /// Where the next page starts; `None` if there is none.
    next: Option<Option<Name>>,
}

impl<'a> Listing<'a> {
    fn new(only: Option<&'a Name>) -> Listing<'a> {
        Listing { only, found: Vec::new(), next: Some(only.and_then(shortly_before)) }
    }

    fn next(&mut self) -> Option<Option<Name>> {
        self.next.take()
    }

    fn add(&mut self, answer: QueryAnswer) {
        let QueryAnswer::Listed { locks, more } = answer else {
            unreachable!("a list was asked for")
        };
        let last = locks.last().map(|lock| lock.name.clone());
        let passed = self.only.is_some_and(|only| last.as_ref().is_some_and(|last| last >= only));
        if more && !passed && last.is_some() {
            self.next = Some(last);
        }
        let wanted = |lock: &LockInfo| self.only.is_none_or(|only| lock.name == *only);
        self.found.extend(locks.into_iter().filter(wanted));
    }
}

/// A name before this one with little in between, to start a list at.
fn shortly_before(name: &Name) -> Option<Name> {
    let mut text = name.as_str().to_owned();
    text.pop();
    Name::new(&text).ok()
}

/// An acquire under way: wait for it, or poll it.
///
/// Dropping it takes the request back, and a grant that is or comes in is handed straight back.
#[must_use = "an acquire that is dropped is taken back"]
pub(crate) struct Acquiring(Waiting<RequestId>);

impl Acquiring {
    /// Blocks the calling thread. Works in and outside any async runtime.
    pub(crate) fn wait(mut self) -> Result<LeaseGranted, LockError> {
        self.0.wait()
    }
}

impl Future for Acquiring {
    type Output = Result<LeaseGranted, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl PendingLease for Acquiring {
    fn wait(self: Box<Self>) -> Result<LeaseGranted, LockError> {
        Acquiring::wait(*self)
    }
}

/// A release under way. Dropping it does not take it back.
#[must_use = "only its answer tells whether the lease was still good"]
pub(crate) struct Releasing(Waiting<LeaseId>);

impl Future for Releasing {
    type Output = Result<(), LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

/// A query under way.
#[must_use = "only its answer tells anything"]
struct Asking(Waiting<QueryId>);

impl Asking {
    fn wait(mut self) -> Result<QueryAnswer, LockError> {
        self.0.wait()
    }
}

impl Future for Asking {
    type Output = Result<QueryAnswer, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

/// A query that is answered by yes or no.
#[must_use = "only its answer tells anything"]
pub(crate) struct Questioning(Asking);

impl Questioning {
    /// Blocks the calling thread. Works in and outside any async runtime.
    pub(crate) fn wait(self) -> Result<bool, LockError> {
        self.0.wait().map(QueryAnswer::yes)
    }
}

impl Future for Questioning {
    type Output = Result<bool, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(QueryAnswer::yes)
    }
}

impl QueryAnswer {
    fn yes(self) -> bool {
        match self {
            QueryAnswer::Checked { good: yes } | QueryAnswer::Broke { found: yes } => yes,
            QueryAnswer::Listed { .. } => unreachable!("it was asked for yes or no"),
        }
    }
}

/// The one state machine behind the futures above.
struct Waiting<K: Awaited> {
    /// What waits at the link; `None` once its outcome was read, or if it never got there.
    asked: Option<(Arc<Link>, K)>,
    carried: bool,
    lent: Option<Lent>,
    failed: Option<LockError>,
}

/// What can be waited for: where its waiter stands, and what to do if it is not wanted any more.
trait Awaited: Copy + Eq + std::hash::Hash + Unpin {
    type Output;
    fn waiters(state: &mut State) -> &mut Numbered<Self, Waiter<Self::Output>>;
    /// Its waiter is gone.
    fn give_up(self, waiter: &mut Waiter<Self::Output>, state: &mut State) {
        let _ = (waiter, state);
    }
}

/// Acquires.
impl Awaited for RequestId {
    type Output = LeaseGranted;

    fn waiters(state: &mut State) -> &mut Numbered<RequestId, Waiter<LeaseGranted>> {
        &mut state.acquires
    }

    fn give_up(self, waiter: &mut Waiter<LeaseGranted>, state: &mut State) {
        // Taken out of the table under its lock, and settled by that.
        waiter.opens = None;
        match waiter.granted.take() {
            None => state.client.cancel(self, clock::now()),
            // The grant is here: what is still reserved is given up.
            Some((lease, word)) if word.is_of(lease.into()) => {
                if let Some(used) = word.give_up_reserved() {
                    state.give_back_closed(lease, word, used);
                }
            }
            Some(_) => {}
        }
    }
}

/// Releases; one that was asked for goes on without its waiter.
impl Awaited for LeaseId {
    type Output = ();

    fn waiters(state: &mut State) -> &mut Numbered<LeaseId, Waiter<()>> {
        &mut state.releases
    }
}

/// The number of a query, which is no acquire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct QueryId(RequestId);

/// Queries; an answer that no caller waits for is ignored.
impl Awaited for QueryId {
    type Output = QueryAnswer;

    fn waiters(state: &mut State) -> &mut Numbered<QueryId, Waiter<QueryAnswer>> {
        &mut state.queries
    }
}

impl<K: Awaited> Waiting<K> {
    /// Blocks until the outcome is here.
    fn wait(&mut self) -> Result<K::Output, LockError> {
        /// No caller waits longer for a driver that is gone, however that came about.
        const LONGEST_SLEEP: Duration = Duration::from_millis(100);
        loop {
            if let Some(outcome) = self.fetch(Wake::Thread(thread::current())) {
                return outcome;
            }
            if self.carry_once(|link, key| link.drive.carry(&|| link.has_outcome(key))) {
                continue;
            }
            if let Some(error) = self.abandoned() {
                // It may have been answered just before.
                return self.fetch(Wake::Nothing).unwrap_or(Err(error));
            }
            thread::park_timeout(LONGEST_SLEEP);
        }
    }

    fn abandoned(&self) -> Option<LockError> {
        let (link, _) = self.asked.as_ref()?;
        if link.state.lock().is_leaving {
            return None;
        }
        link.drive.attend().err().map(|error| error.with_scope(Scope::Host))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<K::Output, LockError>> {
        // Before a waker is left: no thread need wake a task that has its answer by then.
        let mut lent = None;
        let carry = |link: &Link, key| {
            lent = link.drive.carry_for_task(&|| link.has_outcome(key));
        };
        let is_carried = self.carry_once(carry);
        self.lent = self.lent.or(lent);
        if let Some(outcome) = self.fetch(Wake::Task(cx.waker().clone())) {
            return Poll::Ready(outcome);
        }
        if is_carried && let Some(error) = self.abandoned() {
            // It may have been answered just before.
            return Poll::Ready(self.fetch(Wake::Nothing).unwrap_or(Err(error)));
        }
        Poll::Pending
    }

    /// The outcome, if it is here; else `wake` is used once it is.
    fn fetch(&mut self, wake: Wake) -> Option<Result<K::Output, LockError>> {
        let Some((link, key)) = &self.asked else {
            return Some(Err(self.failed.take().expect("not polled after its end")));
        };
        let mut state = link.state.lock();
        let waiters = K::waiters(&mut state);
        let waiter = waiters.get_mut(key).expect("a waiter stays until its outcome is read");
        if waiter.outcome.is_none() {
            let earlier = mem::replace(&mut waiter.wake, wake);
            drop(state);
            // A waker is foreign code: it may be its task's last, and that task may own a lock.
            drop(earlier);
            return None;
        }
        let waiter = waiters.remove(key);
        drop(state);
        if let (Some((link, _)), Some(lent)) = (self.asked.take(), self.lent.take()) {
            link.drive.answered(lent);
        }
        waiter.and_then(|waiter| waiter.outcome)
    }

    /// Has the request carried, the first time; whether it was.
    fn carry_once(&mut self, carry: impl FnOnce(&Link, K)) -> bool {
        match &self.asked {
            Some((link, key)) if !self.carried => {
                self.carried = true;
                carry(link, *key);
                true
            }
            _ => false,
        }
    }

    fn new(link: &Arc<Link>, key: K) -> Waiting<K> {
        Waiting { asked: Some((link.clone(), key)), carried: false, lent: None, failed: None }
    }

    fn failed(error: LockError) -> Waiting<K> {
        Waiting { asked: None, carried: true, lent: None, failed: Some(error) }
    }
}

impl<K: Awaited> Drop for Waiting<K> {
    fn drop(&mut self) {
        let Some((link, key)) = &self.asked else { return };
        if link.forked() {
            return;
        }
        let mut state = link.state.lock();
        // What is removed is dropped once the state is unlocked: it may own foreign code.
        let mut waiter = K::waiters(&mut state).remove(key);
        if let Some(waiter) = &mut waiter {
            state.unanswered -= usize::from(waiter.outcome.is_none());
            key.give_up(waiter, &mut state);
        }
        link.settle(state);
        drop(waiter);
        link.drive.let_go(true);
    }
}

impl Link {
    fn has_outcome<K: Awaited>(&self, key: K) -> bool {
        let mut state = self.state.lock();
        K::waiters(&mut state).get(&key).is_none_or(|waiter| waiter.outcome.is_some())
    }
}

impl LeaseService for Link {
    fn ask(self: Arc<Self>, request: LeaseRequest) -> Box<dyn PendingLease> {
        Box::new(self.acquire(request))
    }

    fn shares(&self) -> bool {
        true
    }

    fn give_back(&self, word: &LeaseWord, used: &Used) {
        if let Some(soon) = self.queue_release(word, used) {
            self.drive.let_go(soon || used.is_recalled);
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
        self.drive.let_go(true);
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
