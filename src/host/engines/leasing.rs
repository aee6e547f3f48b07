//! An engine as a service of leases: requests in, words opened and lost, leases given back.
//!
//! Each request is a task on the engines' thread that runs to its end, wanted or not: so what a server
//! may have granted is always seen, and given back if its caller is gone. A *keeper* renews what is
//! held, all of it at every third of the time to live, and ends it at its deadline.

use std::{
    collections::HashMap,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};

use super::{
    EngineSettings,
    engine::{
        EngineAnswer, EngineFinding, EngineGrant, EngineLock, EngineQuestions, LockEngine, Renewal,
    },
    fault::EngineFault,
    runtime,
    wish::Wish,
};
use crate::{
    alarm::{self, contain},
    blocking, callbacks, clock,
    error::{LockError, LockErrorKind, LostReason, Result},
    fork,
    host::{
        exit::{self, LeavesAtExit},
        lease_word::{LeaseKey, LeaseWord, Met, Opening, Used, WordWaiter},
        service::{
            AskedTerms, LeaseGranted, LeaseRequest, LeaseService, PendingLease, PendingRelease,
            Settlement,
        },
    },
    name::Name,
    scope::Scope,
    time::Time,
    token::Token,
    watch::{Deadline, Tell, Watch},
};

/// One manager's leases from an engine.
pub(super) struct EngineService<E: LockEngine> {
    /// Of the process that opened it. A forked child's copy is never touched, nor dropped; `None` only
    /// while it is dropped.
    leasing: Option<Arc<Leasing<E>>>,
    /// The fork generation of that process.
    made_in: u64,
}

struct Leasing<E: LockEngine> {
    engine: E,
    runtime: Handle,
    connect_timeout: Duration,
    on_warning: Option<Tell>,
    book: Mutex<LeaseBook<E::Hold>>,
    /// The book has changed in a way that a thread may wait for.
    changed: Condvar,
    /// Something is held that the keeper does not know of yet.
    nudge: Notify,
    me: Weak<Leasing<E>>,
}

struct LeaseBook<H> {
    next: u64,
    requests: HashMap<u64, AskedLease>,
    leases: HashMap<u64, BookedLease<H>>,
    /// Requests on their way through the server, those that no caller waits for among them.
    acquiring: usize,
    /// Releases that no server has answered yet.
    releasing: usize,
    closing: LeasingStage,
    /// The process is ending: calls that wait are told nothing.
    is_leaving: bool,
    is_kept: bool,
    is_renewing: bool,
    renew_at: Time,
    /// It was told that what is held may soon be lost.
    is_warned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LeasingStage {
    Open,
    /// No request is taken any more.
    Closed,
    /// The engine is told that nothing will be held any more, or was.
    Parting,
    Parted,
}

/// A request whose caller waits, or has yet to fetch what came of it.
struct AskedLease {
    opens: Option<OpensWord>,
    wish: Arc<Wish>,
    waker: Option<Waker>,
    outcome: Option<Result<LeaseGranted>>,
}

/// What a grant opens, and settles.
struct OpensWord {
    word: Arc<LeaseWord>,
    at_most: Option<Duration>,
    is_in_use: bool,
    settlement: Settlement,
}

/// A lease between its grant and its release.
struct BookedLease<H> {
    word: Arc<LeaseWord>,
    hold: H,
    token: Token,
    deadline: Time,
    /// Its own end, by `at_most`.
    end: Time,
    /// It was lost, and is given back already: only its guard is still there.
    is_over: bool,
}

/// What is to be done once the book is unlocked: it wakes others, or runs foreign code.
#[derive(Default)]
struct Afterwards {
    wakers: Vec<Waker>,
    waiters: Vec<WordWaiter>,
    losses: Vec<(Arc<Watch>, LostReason)>,
    /// The last of these may be dropped here, and their settlements with them.
    gone: Vec<Arc<LeaseWord>>,
    warning: Option<(Tell, String)>,
}

impl Afterwards {
    fn run(self) {
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

/// A lease in its word: the numbers are ours alone.
fn key(number: u64) -> LeaseKey {
    LeaseKey { high: 0, low: number }
}

impl<E: LockEngine> EngineService<E> {
    /// It touches no network.
    pub(super) fn open(engine: E, settings: EngineSettings) -> Result<Arc<EngineService<E>>> {
        let EngineSettings { connect_timeout, on_warning, .. } = settings;
        let book = LeaseBook {
            next: 1,
            requests: HashMap::new(),
            leases: HashMap::new(),
            acquiring: 0,
            releasing: 0,
            closing: LeasingStage::Open,
            is_leaving: false,
            is_kept: false,
            is_renewing: false,
            renew_at: Time::NEVER,
            is_warned: false,
        };
        let runtime = runtime::handle()?;
        let leasing = Arc::new_cyclic(|me| Leasing {
            engine,
            runtime,
            connect_timeout,
            on_warning,
            book: Mutex::new(book),
            changed: Condvar::new(),
            nudge: Notify::new(),
            me: me.clone(),
        });
        let leaving: Arc<dyn LeavesAtExit> = leasing.clone();
        exit::look_after(&Arc::downgrade(&leaving));
        Ok(Arc::new(EngineService { leasing: Some(leasing), made_in: fork::generation() }))
    }

    fn leasing(&self) -> &Arc<Leasing<E>> {
        self.leasing.as_ref().expect("it is there until it is dropped")
    }

    fn check_fork(&self) -> Result<()> {
        match self.is_forked() {
            true => Err(LockError::config(
                "this manager was opened before a fork; open another one in the child",
            )),
            false => Ok(()),
        }
    }

    /// Has an engine's thread find an answer.
    fn answer<T: Send + 'static, F>(
        &self,
        ask: impl FnOnce(Arc<Leasing<E>>) -> F,
    ) -> EngineAnswer<T>
    where
        F: Future<Output = Result<T, EngineFault>> + Send + 'static,
    {
        if let Err(error) = self.check_fork() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let leasing = self.leasing();
        let (limit, shown) = (leasing.connect_timeout, leasing.engine.shown());
        let (tell, told) = oneshot::channel();
        let asked = ask(leasing.clone());
        leasing.runtime.spawn(async move {
            let answer = match timeout(limit, asked).await {
                Ok(answer) => answer.map_err(EngineFault::into_error),
                Err(_) => {
                    let what = format!("{shown} did not answer within {limit:.1?}");
                    Err(LockError::new(LockErrorKind::Unreachable, what))
                }
            };
            let _ = tell.send(answer);
        });
        Box::pin(async { told.await.unwrap_or_else(|_| Err(broken_down())) })
    }
}

impl<E: LockEngine> Drop for EngineService<E> {
    fn drop(&mut self) {
        if self.is_forked() {
            mem::forget(self.leasing.take());
        }
    }
}

/// A task of ours ended before it had said anything.
fn broken_down() -> LockError {
    LockError::new(LockErrorKind::Io, "an internal error ended the request; please report it")
}

impl<E: LockEngine> Leasing<E> {
    // ---- requests ----------------------------------------------------------------------------

    /// Has the request carried: by a task that runs to its end.
    fn begin(self: &Arc<Self>, number: u64) {
        let mut book = self.book.lock();
        let Some(request) = book.requests.get(&number).filter(|asked| asked.outcome.is_none())
        else {
            return;
        };
        let wish = request.wish.clone();
        book.acquiring += 1;
        self.keep_up(&mut book);
        drop(book);
        let acquisition = Acquisition { leasing: self.clone(), number, is_settled: false };
        self.runtime.spawn(acquisition.run(wish));
    }

    /// A request came to its end at the server.
    fn settle(self: &Arc<Self>, number: u64, outcome: Result<EngineGrant<E::Hold>>) {
        let mut after = Afterwards::default();
        let mut book = self.book.lock();
        book.acquiring -= 1;
        match outcome {
            Ok(grant) => self.granted(&mut book, number, grant, &mut after),
            Err(error) => book.fail(number, error, &mut after),
        }
        self.part_if_done(&mut book);
        drop(book);
        self.changed.notify_all();
        after.run();
    }

    fn granted(
        self: &Arc<Self>,
        book: &mut LeaseBook<E::Hold>,
        number: u64,
        grant: EngineGrant<E::Hold>,
        after: &mut Afterwards,
    ) {
        let is_open = book.closing == LeasingStage::Open;
        let request = book.requests.get_mut(&number);
        let opens = request.and_then(|request| request.opens.take().zip(Some(request)));
        let EngineGrant { hold, token, predecessor, sent, deadline, had_to_queue } = grant;
        let Some((opens, request)) = opens.filter(|(opens, _)| is_open && !opens.word.is_retired())
        else {
            // Its caller is gone.
            book.fail(number, closed(), after);
            return self.release(book, hold, true, deadline, None);
        };
        let OpensWord { word, at_most, is_in_use, settlement } = opens;
        let end = at_most.map(|at_most| sent + at_most);
        word.set_deadline(deadline);
        let opening = Opening {
            lease: key(number),
            first: token,
            last: token,
            predecessor,
            at_most: end,
            keeps: false,
            is_in_use,
        };
        settlement.grant(&word, opening);
        after.waiters.extend(word.take_waiter());
        request.outcome = Some(Ok(LeaseGranted { had_to_queue }));
        after.wakers.extend(request.waker.take());
        let end = end.unwrap_or(Time::NEVER);
        book.leases
            .insert(number, BookedLease { word, hold, token, deadline, end, is_over: false });
        self.keep_up(book);
    }

    // ---- releases ----------------------------------------------------------------------------

    /// Has a lock given up at the server, again and again until that has answered or the lock has
    /// ended there by itself, `deadline` being our end of it.
    fn release(
        self: &Arc<Self>,
        book: &mut LeaseBook<E::Hold>,
        hold: E::Hold,
        is_unused: bool,
        deadline: Time,
        tell: Option<oneshot::Sender<Result<()>>>,
    ) {
        book.releasing += 1;
        let leasing = self.clone();
        self.runtime.spawn(async move {
            leasing.release_until(&hold, is_unused, deadline, tell).await;
            let mut book = leasing.book.lock();
            book.releasing -= 1;
            leasing.part_if_done(&mut book);
            drop(book);
            leasing.changed.notify_all();
        });
    }

    async fn release_until(
        &self,
        hold: &E::Hold,
        is_unused: bool,
        deadline: Time,
        mut tell: Option<oneshot::Sender<Result<()>>>,
    ) {
        let begun = clock::now();
        let end = deadline.max(begun) + self.engine.time_to_live() / 2;
        let mut pause = RELEASE_PAUSE;
        // A release whose answer was lost may have been done.
        let mut is_repeated = false;
        loop {
            let answer = self.engine.release(hold, is_unused).await;
            let trouble = match answer {
                Ok(is_held) if is_held || is_repeated => break say(&mut tell, Ok(())),
                Ok(_) => {
                    break say(&mut tell, Err(LockError::lost(LostReason::Forgotten)));
                }
                Err(EngineFault::Final(error)) => break say(&mut tell, Err(error)),
                Err(EngineFault::Trouble(trouble)) => trouble,
            };
            is_repeated = true;
            let now = clock::now();
            if now >= begun + self.connect_timeout || now >= end {
                let what = format!(
                    "the service has not confirmed the release, which ends by itself: {trouble}"
                );
                say(&mut tell, Err(LockError::new(LockErrorKind::Unreachable, what)));
            }
            if now >= end {
                return;
            }
            sleep(pause.min(end.since(now))).await;
            pause = (pause * 2).min(RELEASE_PAUSE_MAX);
        }
    }

    /// Takes a lease out of the book, to be given up unless it is over already.
    fn take_back(
        self: &Arc<Self>,
        book: &mut LeaseBook<E::Hold>,
        used: &Used,
        mut tell: Option<oneshot::Sender<Result<()>>>,
    ) -> Option<BookedLease<E::Hold>> {
        let lease = book.leases.remove(&used.lease.low)?;
        if lease.is_over {
            say(&mut tell, Err(LockError::lost(used.lost.unwrap_or(LostReason::Expired))));
            self.part_if_done(book);
        } else {
            let is_unused = used.last < lease.token;
            self.release(book, lease.hold.clone(), is_unused, lease.deadline, tell);
        }
        Some(lease)
    }

    // ---- the keeper --------------------------------------------------------------------------

    /// Something is held or waited for: has the keeper look after it.
    fn keep_up(self: &Arc<Self>, book: &mut LeaseBook<E::Hold>) {
        if book.is_kept {
            return self.nudge.notify_one();
        }
        book.is_kept = true;
        book.renew_at = clock::now() + self.engine.time_to_live() / 3;
        self.runtime.spawn(keep(Arc::downgrade(self)));
    }

    /// Ends what is over, and renews the rest when it is time. How long there is nothing to do; `None`
    /// once nothing is held.
    fn keep_once(self: &Arc<Self>) -> Option<Duration> {
        let mut after = Afterwards::default();
        let mut book = self.book.lock();
        let now = clock::now();
        for number in book.over(now) {
            let why = match book.leases[&number].deadline <= now {
                true => LostReason::Expired,
                false => LostReason::HeldTooLong,
            };
            self.lose(&mut book, number, why, &mut after);
        }
        let due = book.end_overdue(&mut after);
        let live = book.leases.values().filter(|lease| !lease.is_over);
        let next = live.map(|lease| lease.deadline.min(lease.end)).min();
        // What waits may hang on a session that is to be renewed.
        let is_busy = next.is_some() || book.acquiring > 0;
        let nap = is_busy.then(|| {
            let next = next.unwrap_or(Time::NEVER).min(due);
            if now >= book.renew_at && !book.is_renewing {
                book.is_renewing = true;
                self.runtime.spawn(self.clone().renew(book.live()));
            }
            let next = if book.is_renewing { next } else { next.min(book.renew_at) };
            next.since(now).min(LONGEST_NAP)
        });
        book.is_kept = nap.is_some();
        self.warn_if_late(&mut book, now, &mut after);
        self.part_if_done(&mut book);
        drop(book);
        after.run();
        nap
    }

    async fn renew(self: Arc<Self>, live: Vec<(u64, E::Hold)>) {
        let (numbers, holds): (Vec<_>, Vec<_>) = live.into_iter().unzip();
        let sent = clock::now();
        let answers = self.engine.renew(&holds).await;
        let mut after = Afterwards::default();
        let mut book = self.book.lock();
        let now = clock::now();
        let mut is_complete = answers.len() == numbers.len();
        for (number, answer) in numbers.into_iter().zip(answers) {
            let Some(lease) = book.leases.get_mut(&number).filter(|lease| !lease.is_over) else {
                continue;
            };
            match answer {
                // What has ended is lost, however late it was renewed: the keeper tells.
                Renewal::Until(_) if now >= lease.deadline.min(lease.end) => {}
                Renewal::Until(deadline) if deadline > lease.deadline => {
                    lease.deadline = deadline;
                    if lease.word.is_of(key(number)) {
                        lease.word.set_deadline(deadline);
                    }
                }
                Renewal::Until(_) => {}
                Renewal::Gone => self.lose(&mut book, number, LostReason::Forgotten, &mut after),
                Renewal::Unknown => is_complete = false,
            }
        }
        let time_to_live = self.engine.time_to_live();
        book.is_renewing = false;
        book.renew_at = match is_complete {
            true => (sent + time_to_live / 3).max(now),
            false => now + (time_to_live / 10).min(RETRY_MAX),
        };
        book.is_warned &= !is_complete;
        drop(book);
        self.nudge.notify_one();
        after.run();
    }

    /// The right to a lock has ended: its guard is told, and others may have it.
    fn lose(
        self: &Arc<Self>,
        book: &mut LeaseBook<E::Hold>,
        number: u64,
        why: LostReason,
        after: &mut Afterwards,
    ) {
        let Some(lease) = book.leases.get_mut(&number) else { return };
        lease.is_over = true;
        let (word, hold, deadline) = (lease.word.clone(), lease.hold.clone(), lease.deadline);
        if word.is_of(key(number)) {
            match word.lose(why) {
                Met::InUse { is_watched: true, .. } => {
                    // Else its guard is leaving, and has the watch in hand.
                    let watch = word.watched().filter(|watch| watch.mark(why));
                    after.losses.extend(watch.map(|watch| (watch, why)));
                }
                Met::Idle(used) => {
                    book.leases.remove(&number);
                    after.waiters.extend(word.take_waiter());
                    word.gone(&used);
                }
                Met::InUse { .. } | Met::Reserved | Met::Closed => {}
            }
        }
        after.gone.push(word);
        self.release(book, hold, false, deadline, None);
    }

    /// Tells once that what is held may soon be lost.
    fn warn_if_late(&self, book: &mut LeaseBook<E::Hold>, now: Time, after: &mut Afterwards) {
        let live = book.leases.values().filter(|lease| !lease.is_over);
        let Some(soonest) = live.map(|lease| lease.deadline).min() else { return };
        let left = soonest.since(now);
        if book.is_warned || left > self.engine.time_to_live() / 2 {
            return;
        }
        book.is_warned = true;
        if let Some(warn) = &self.on_warning {
            let held = book.live().len();
            let locks = match held {
                1 => "1 held lock is".to_owned(),
                held => format!("{held} held locks are"),
            };
            let shown = self.engine.shown();
            let text = format!(
                "{shown} has not confirmed a renewal lately; {locks} lost in {left:.1?} unless it does"
            );
            after.warning = Some((warn.clone(), text));
        }
    }

    // ---- the end -----------------------------------------------------------------------------

    /// No request is taken any more. The calls that wait are told, unless the process ends.
    fn begin_closing(self: &Arc<Self>, tells: bool) {
        let mut after = Afterwards::default();
        let mut book = self.book.lock();
        if book.closing == LeasingStage::Open {
            book.closing = LeasingStage::Closed;
        }
        book.is_leaving |= !tells;
        let waiting: Vec<u64> = book.requests.keys().copied().collect();
        for number in waiting {
            let request = &book.requests[&number];
            request.wish.stop();
            book.fail(number, closed(), &mut after);
        }
        for lease in book.leases.values() {
            after.waiters.extend(lease.word.take_waiter());
        }
        self.part_if_done(&mut book);
        drop(book);
        after.run();
    }

    /// Says goodbye once nothing is held and nothing can be granted any more.
    fn part_if_done(self: &Arc<Self>, book: &mut LeaseBook<E::Hold>) {
        let is_done = book.leases.is_empty() && book.releasing == 0 && book.acquiring == 0;
        if book.closing != LeasingStage::Closed || !is_done {
            return;
        }
        book.closing = LeasingStage::Parting;
        let leasing = self.clone();
        self.runtime.spawn(async move {
            leasing.engine.part().await;
            leasing.book.lock().closing = LeasingStage::Parted;
            leasing.changed.notify_all();
        });
    }

    fn wait_for_parting(&self, until: Time) {
        let mut book = self.book.lock();
        let has_said = |book: &LeaseBook<E::Hold>| {
            book.closing == LeasingStage::Parted
                || !book.leases.is_empty() && book.releasing == 0 && book.acquiring == 0
        };
        while !has_said(&book) {
            let left = until.since(clock::now());
            if left.is_zero() {
                return;
            }
            self.changed.wait_for(&mut book, left.min(LONGEST_NAP));
        }
    }
}

/// No sleep exceeds this: the clock that sleeps go by stops while a machine is suspended.
const LONGEST_NAP: Duration = Duration::from_millis(100);
/// The first and the longest pause before a release is sent again.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);
const RELEASE_PAUSE_MAX: Duration = Duration::from_millis(500);
/// The longest pause before a renewal is sent again.
const RETRY_MAX: Duration = Duration::from_millis(500);

fn closed() -> LockError {
    LockError::config("the manager was closed")
}

fn say(tell: &mut Option<oneshot::Sender<Result<()>>>, outcome: Result<()>) {
    if let Some(tell) = tell.take() {
        let _ = tell.send(outcome);
    }
}

async fn keep<E: LockEngine>(leasing: Weak<Leasing<E>>) {
    while let Some(leasing) = leasing.upgrade() {
        let Some(nap) = leasing.keep_once() else { return };
        tokio::select! {
            () = sleep(nap) => {}
            () = leasing.nudge.notified() => {}
        }
    }
}

impl<H: Clone> LeaseBook<H> {
    /// The leases whose time is over, and which are not told so yet.
    fn over(&self, now: Time) -> Vec<u64> {
        let is_over =
            |lease: &BookedLease<H>| !lease.is_over && lease.deadline.min(lease.end) <= now;
        let over = self.leases.iter().filter(|(_, lease)| is_over(lease));
        over.map(|(number, _)| *number).collect()
    }

    /// Tells callers whose time is over, though the server owes an answer still: what that grants goes
    /// back. When the next one's is.
    fn end_overdue(&mut self, after: &mut Afterwards) -> Time {
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

    fn live(&self) -> Vec<(u64, H)> {
        let live = self.leases.iter().filter(|(_, lease)| !lease.is_over);
        live.map(|(number, lease)| (*number, lease.hold.clone())).collect()
    }

    /// The first outcome counts.
    fn fail(&mut self, number: u64, error: LockError, after: &mut Afterwards) {
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

/// A request on its way through the server, to be settled whatever becomes of it.
struct Acquisition<E: LockEngine> {
    leasing: Arc<Leasing<E>>,
    number: u64,
    is_settled: bool,
}

impl<E: LockEngine> Acquisition<E> {
    async fn run(mut self, wish: Arc<Wish>) {
        let leasing = self.leasing.clone();
        let outcome = loop {
            match leasing.engine.acquire(&wish).await {
                // Its answer came so late that it is over: what may be left of it goes back.
                Ok(grant) if clock::now() >= grant.deadline => {
                    leasing.release_until(&grant.hold, true, grant.deadline, None).await;
                    if let Err(error) = wish.check() {
                        break Err(error);
                    }
                }
                outcome => break outcome,
            }
        };
        self.is_settled = true;
        leasing.settle(self.number, outcome);
    }
}

impl<E: LockEngine> Drop for Acquisition<E> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.leasing.settle(self.number, Err(broken_down()));
        }
    }
}

/// A request under way. Dropping it takes it back.
struct PendingEngineLease<E: LockEngine> {
    service: Arc<EngineService<E>>,
    /// Its number; `None` once its outcome was read.
    number: Option<u64>,
    is_begun: bool,
    failed: Option<LockError>,
}

impl<E: LockEngine> Future for PendingEngineLease<E> {
    type Output = Result<LeaseGranted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if let Err(error) = self.service.check_fork() {
            return Poll::Ready(Err(error));
        }
        let number = self.number.expect("not polled after its end");
        if !std::mem::replace(&mut self.is_begun, true) {
            self.service.leasing().begin(number);
        }
        let leasing = self.service.leasing().clone();
        let mut book = leasing.book.lock();
        let request = book.requests.get_mut(&number).expect("it stays until its outcome is read");
        match request.outcome.take() {
            None => {
                let earlier = request.waker.replace(cx.waker().clone());
                drop(book);
                // A waker is foreign code.
                drop(earlier);
                Poll::Pending
            }
            Some(outcome) => {
                let request = book.requests.remove(&number);
                drop(book);
                drop(request);
                self.number = None;
                Poll::Ready(outcome)
            }
        }
    }
}

impl<E: LockEngine> PendingLease for PendingEngineLease<E> {
    fn wait(self: Box<Self>) -> Result<LeaseGranted> {
        blocking::wait_for(*self)
    }
}

impl<E: LockEngine> Drop for PendingEngineLease<E> {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        if self.service.is_forked() {
            return;
        }
        let leasing = self.service.leasing();
        let mut book = leasing.book.lock();
        let Some(mut request) = book.requests.remove(&number) else { return };
        request.wish.stop();
        // Taken out of the book under its lock, and settled by that.
        request.opens = None;
        // The grant is here: what is still reserved is given up.
        let granted = request.outcome.as_ref().is_some_and(Result::is_ok);
        let word = book.leases.get(&number).filter(|_| granted).map(|lease| lease.word.clone());
        let word = word.filter(|word| word.is_of(key(number)));
        let given_up = word.and_then(|word| word.give_up_reserved().zip(Some(word)));
        let lease = given_up.as_ref().and_then(|(used, word)| {
            word.gone(used);
            leasing.take_back(&mut book, used, None)
        });
        drop(book);
        // What hangs on these may be foreign code.
        drop((request, given_up, lease));
    }
}

impl<E: LockEngine> LeaseService for EngineService<E> {
    fn ask(self: Arc<Self>, request: LeaseRequest) -> Box<dyn PendingLease> {
        let LeaseRequest { name, patience, above, at_most, at_least, .. } = request;
        let LeaseRequest { word, is_in_use, settlement, .. } = request;
        let terms = AskedTerms { has_at_least: at_least.is_some(), keeps_always: false };
        let checked = self.check_fork().and_then(|()| self.accepts(&terms));
        let failed = |service, error: LockError| {
            let error = error.with_name(&name).with_scope(Scope::Host);
            let failed = Some(error);
            Box::new(PendingEngineLease { service, number: None, is_begun: true, failed })
        };
        if let Err(error) = checked {
            return failed(self, error);
        }
        let leasing = self.leasing().clone();
        let wish = Wish::new(name.clone(), above, at_least, patience, leasing.connect_timeout);
        let mut book = leasing.book.lock();
        if book.closing != LeasingStage::Open {
            drop(book);
            return failed(self, closed());
        }
        let number = book.next;
        book.next += 1;
        let opens = Some(OpensWord { word, at_most, is_in_use, settlement });
        let wish = Arc::new(wish);
        book.requests.insert(number, AskedLease { opens, wish, waker: None, outcome: None });
        drop(book);
        let number = Some(number);
        Box::new(PendingEngineLease { service: self, number, is_begun: false, failed: None })
    }

    fn give_back(&self, word: &LeaseWord, used: &Used) {
        if self.is_forked() {
            return;
        }
        word.gone(used);
        let lease = self.leasing().take_back(&mut self.leasing().book.lock(), used, None);
        drop(lease);
    }

    fn give_back_answered(self: Arc<Self>, word: &LeaseWord, used: &Used) -> PendingRelease {
        if let Err(error) = self.check_fork() {
            return Box::pin(std::future::ready(Err(error)));
        }
        word.gone(used);
        let (tell, told) = oneshot::channel();
        let lease = self.leasing().take_back(&mut self.leasing().book.lock(), used, Some(tell));
        let is_known = lease.is_some();
        drop(lease);
        let lost = used.lost.or((!is_known).then_some(LostReason::Expired));
        Box::pin(async move {
            match lost {
                Some(reason) => Err(LockError::lost(reason)),
                None => told.await.unwrap_or_else(|_| Err(broken_down())),
            }
        })
    }

    fn close_idle(&self, word: &LeaseWord) -> Option<Used> {
        if self.is_forked() {
            return None;
        }
        let _book = self.leasing().book.lock();
        word.close_idle()
    }

    fn retire(&self, word: &LeaseWord) -> Option<Used> {
        if self.is_forked() {
            return None;
        }
        let _book = self.leasing().book.lock();
        word.retire()
    }

    /// Leases that are not kept have one token.
    fn top_up(&self, _: &LeaseWord) {}

    fn word_deadline(&self) -> Arc<Deadline> {
        Arc::new(Deadline::new(Time::ZERO))
    }

    fn accepts(&self, terms: &AskedTerms) -> Result<()> {
        self.check_fork()?;
        let leasing = self.leasing();
        let (abilities, shown) = (leasing.engine.abilities(), leasing.engine.shown());
        let refused = |what: &str| Err(LockError::config(format!("{shown} {what}")));
        if !abilities.has_tokens {
            return refused(
                "gives no fencing tokens, so that a resource cannot refuse a holder that has lost \
                 its lock: use one server (redis://) or etcd, or say `?unfenced=1` if double work is \
                 a waste and no harm",
            );
        }
        if terms.has_at_least && !abilities.reserves {
            return refused(
                "does not remember at_least after its holder: leave at_least out, or lock by \
                 redis:// or tierlock's own leaders",
            );
        }
        if terms.keeps_always {
            return refused(
                "tells no holder that others wait, so a lease cannot be kept for them to ask for: \
                 leave Keep::Always out, or lock by tierlock's own leaders",
            );
        }
        Ok(())
    }

    fn made_in(&self) -> u64 {
        self.made_in
    }

    fn is_forked(&self) -> bool {
        fork::generation() != self.made_in
    }

    fn close(&self, until: Time) {
        if self.is_forked() {
            return;
        }
        self.leasing().begin_closing(true);
        self.leasing().wait_for_parting(until);
    }
}

impl<E: LockEngine> LeavesAtExit for Leasing<E> {
    fn leave(&self, _: Time) -> bool {
        match self.me.upgrade() {
            Some(me) => {
                me.begin_closing(false);
                true
            }
            None => false,
        }
    }

    fn finish_leaving(&self, until: Time) {
        self.wait_for_parting(until);
    }
}

impl<E: LockEngine> EngineQuestions for EngineService<E> {
    fn look(&self, only: Option<&Name>) -> EngineAnswer<Vec<EngineLock>> {
        let only = only.cloned();
        self.answer(|leasing| async move { leasing.engine.look(only.as_ref()).await })
    }

    fn examine(&self) -> EngineAnswer<Vec<EngineFinding>> {
        self.answer(|leasing| async move { leasing.engine.examine().await })
    }

    fn place(&self) -> Option<String> {
        self.leasing().engine.place()
    }

    fn shown(&self) -> String {
        self.leasing().engine.shown()
    }

    fn break_advice(&self, name: &Name) -> String {
        self.leasing().engine.break_advice(name)
    }
}
