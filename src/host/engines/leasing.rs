//! Carries an engine's requests, and keeps what they bring.
//!
//! Each request is a task on the engines' thread that runs to its end, wanted or not: so what a server
//! may have granted is always seen, and given back if its caller is gone. A *keeper* renews what is
//! held, all of it at every third of the time to live, and ends it at its deadline.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::sleep,
};

use super::{
    book::{Afterwards, BookedLease, IdleLease, LeaseBook, LeasingStage, OpensWord, key},
    engine::{EngineGrant, LockEngine, Renewal},
    fault::EngineFault,
    runtime,
    wish::Wish,
};
use crate::{
    clock,
    error::{LockError, LockErrorKind, LostReason, Predecessor, Result},
    host::{
        exit::LeavesAtExit,
        lease_word::{LeaseWord, Met, Opening, Used},
        service::LeaseGranted,
    },
    time::Time,
    watch::Tell,
};

/// One manager's leases from an engine, in the process that opened it.
pub(super) struct Leasing<E: LockEngine> {
    pub(super) engine: E,
    pub(super) runtime: Handle,
    pub(super) connect_timeout: Duration,
    on_warning: Option<Tell>,
    pub(super) book: Mutex<LeaseBook<E::Hold>>,
    /// The book has changed in a way that a thread may wait for.
    changed: Condvar,
    /// Something is held that the keeper does not know of yet.
    has_work: Notify,
    /// The manager is closed: observers hear of nothing more.
    pub(super) closing: Notify,
    me: Weak<Leasing<E>>,
}
/// A task of ours ended before it had said anything.
pub(super) fn broken_down() -> LockError {
    LockError::new(LockErrorKind::Io, "an internal error ended the request; please report it")
}
impl<E: LockEngine> Leasing<E> {
    pub(super) fn new(
        engine: E,
        connect_timeout: Duration,
        on_warning: Option<Tell>,
    ) -> Result<Arc<Leasing<E>>> {
        let runtime = runtime::handle()?;
        Ok(Arc::new_cyclic(|me| Leasing {
            engine,
            runtime,
            connect_timeout,
            on_warning,
            book: Mutex::new(LeaseBook::new()),
            changed: Condvar::new(),
            has_work: Notify::new(),
            closing: Notify::new(),
            me: me.clone(),
        }))
    }

    // ---- requests ----------------------------------------------------------------------------

    /// Has the request carried: by a task that runs to its end.
    pub(super) fn begin(self: &Arc<Self>, number: u64) {
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
        let EngineGrant { hold, token, sent, deadline, had_to_queue } = grant;
        let Some((opens, request)) = opens.filter(|(opens, _)| is_open && !opens.word.is_retired())
        else {
            // Its caller is gone.
            book.fail(number, closed(), after);
            return self.release(book, hold, true, deadline, None);
        };
        let OpensWord { word, at_most, is_shared, keep, settlement } = opens;
        let end = at_most.map(|at_most| sent + at_most);
        word.set_deadline(deadline);
        let keeps = keep && (is_shared || self.engine.keeps());
        let kept = (keeps && !is_shared).then(|| IdleLease { seen: None, since: clock::now() });
        let opening = Opening {
            lease: key(number),
            first: token,
            last: if kept.is_some() { self.engine.block_end(token) } else { token },
            // No service of another kind remembers how the last holder left.
            predecessor: Predecessor::Clean,
            at_most: end,
            // A shared one goes once no reader is in, or another session wants it: the keeper looks.
            keeps,
            is_shared,
        };
        settlement.grant(&word, opening);
        after.waiters.extend(word.take_waiter());
        request.outcome = Some(Ok(LeaseGranted { had_to_queue }));
        after.wakers.extend(request.waker.take());
        let end = end.unwrap_or(Time::NEVER);
        let (is_over, is_kept) = (false, kept.is_some());
        let lease = BookedLease { word, hold, token, deadline, end, is_shared, kept, is_over };
        book.leases.insert(number, lease);
        self.keep_up(book);
        if is_kept {
            // Others may want it since before it was listened for.
            self.ask_wanted(book);
        }
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
    pub(super) fn take_back(
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
            return self.has_work.notify_one();
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
            let lease = &book.leases[&number];
            // What came first, however late this looks.
            let why = match lease.deadline < lease.end {
                true => LostReason::Expired,
                false => LostReason::HeldTooLong,
            };
            self.lose(&mut book, number, why, &mut after);
        }
        self.end_idle_shares(&mut book, &mut after);
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

    /// Gives back what is shared and has no reader and what is kept and rests, and asks whether the rest
    /// is wanted elsewhere.
    fn end_idle_shares(self: &Arc<Self>, book: &mut LeaseBook<E::Hold>, after: &mut Afterwards) {
        let shared = book.shared();
        for (number, _) in &shared {
            let word = book.leases[number].word.clone();
            let used = if word.is_of(key(*number)) { word.close_idle() } else { None };
            if let Some(used) = used {
                self.take_back_idle(book, word, &used, after);
            }
        }
        let is_shared = !shared.is_empty() && !book.shared().is_empty();
        for (word, used) in book.close_rested(clock::now()) {
            self.take_back_idle(book, word, &used, after);
        }
        if is_shared && !book.is_asking {
            self.ask_wanted(book);
        }
    }

    /// Has the server asked whether another session waits for what is shared or kept here.
    fn ask_wanted(self: &Arc<Self>, book: &mut LeaseBook<E::Hold>) {
        let asked = [book.shared(), book.kept()].concat();
        book.asks_again = book.is_asking && !asked.is_empty();
        if !book.is_asking && !asked.is_empty() {
            book.is_asking = true;
            self.runtime.spawn(self.clone().recall_wanted(asked));
        }
    }

    /// Lets no further guard into what another session waits for: the last one gives it back.
    async fn recall_wanted(self: Arc<Self>, asked: Vec<(u64, E::Hold)>) {
        let (numbers, holds): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let mut answers = self.engine.are_wanted(&holds).await;
        let are_some_left = || {
            let book = self.book.lock();
            numbers.iter().any(|number| book.leases.contains_key(number))
        };
        while answers.is_none() && are_some_left() {
            // What was heard is heard once, and a waiter need not say it again.
            sleep(RETRY_MAX).await;
            answers = self.engine.are_wanted(&holds).await;
        }
        let mut after = Afterwards::default();
        let mut book = self.book.lock();
        book.is_asking = false;
        let wanted = numbers.into_iter().zip(answers.unwrap_or_default());
        for (number, _) in wanted.filter(|(_, is_wanted)| *is_wanted) {
            self.recall(&mut book, number, &mut after);
        }
        if book.asks_again {
            self.ask_wanted(&mut book);
        }
        drop(book);
        after.run();
    }

    /// A lease is not kept any longer: it goes back at once, or with the guard that has it.
    fn recall(
        self: &Arc<Self>,
        book: &mut LeaseBook<E::Hold>,
        number: u64,
        after: &mut Afterwards,
    ) {
        let lease = book.leases.get(&number).filter(|lease| !lease.is_over);
        let Some(word) = lease.map(|lease| lease.word.clone()) else { return };
        if word.is_of(key(number))
            && let Met::Idle(used) = word.recall()
        {
            self.take_back_idle(book, word, &used, after);
        }
    }

    /// A word was closed while no guard was in.
    fn take_back_idle(
        self: &Arc<Self>,
        book: &mut LeaseBook<E::Hold>,
        word: Arc<LeaseWord>,
        used: &Used,
        after: &mut Afterwards,
    ) {
        after.waiters.extend(word.take_waiter());
        word.gone(used);
        let lease = self.take_back(book, used, None);
        after.gone.extend(lease.map(|lease| lease.word));
        after.gone.push(word);
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
        self.has_work.notify_one();
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
                    let watch = word.watched().into_iter().filter(|watch| watch.mark(why));
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
    pub(super) fn begin_closing(self: &Arc<Self>, tells: bool) {
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
        for (number, _) in book.kept() {
            self.recall(&mut book, number, &mut after);
        }
        self.part_if_done(&mut book);
        drop(book);
        self.closing.notify_waiters();
        after.run();
    }

    pub(super) fn is_open(&self) -> bool {
        self.book.lock().closing == LeasingStage::Open
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

    pub(super) fn wait_for_parting(&self, until: Time) {
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

pub(super) fn closed() -> LockError {
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
            () = leasing.has_work.notified() => {}
            () = leasing.engine.heard() => leasing.book.lock().renew_at = Time::ZERO,
            () = leasing.engine.wanted() => leasing.ask_wanted(&mut leasing.book.lock()),
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
