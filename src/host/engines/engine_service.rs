//! An engine as a service of leases: what callers ask, give back and want to know.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    EngineSettings,
    book::{AskedLease, LeasingStage, OpensWord, key},
    engine::{EngineLock, LockEngine},
    fault::EngineFault,
    leasing::{Leasing, broken_down, closed},
    observing::EngineObservation,
    wish::Wish,
};
use crate::{
    blocking,
    elected::ElectedLeader,
    error::{LockError, LockErrorKind, LostReason, Predecessor, Result},
    fork,
    host::{
        exit::{self, LeavesAtExit},
        lease_word::{LeaseWord, Used},
        questions::{
            AnswerInTime, LockQuestions, PendingList, PendingYes, ServedLock, ServedWaiter,
        },
        service::{
            AskedTerms, LeaderNews, LeaseGranted, LeaseMode, LeaseRequest, LeaseService,
            PendingLease, PendingRelease, RequestNews,
        },
    },
    name::Name,
    scope::Scope,
    time::Time,
    token::Token,
    watch::Deadline,
};

/// One manager's leases from an engine.
pub(super) struct EngineService<E: LockEngine> {
    /// Of the process that opened it. A forked child's copy is never touched, nor dropped; `None` only
    /// while it is dropped.
    leasing: Option<Arc<Leasing<E>>>,
    /// The fork generation of that process.
    made_in: u64,
}
impl<E: LockEngine> EngineService<E> {
    /// It touches no network.
    pub(super) fn open(engine: E, settings: EngineSettings) -> Result<Arc<EngineService<E>>> {
        let EngineSettings { connect_timeout, on_warning, .. } = settings;
        let leasing = Leasing::new(engine, connect_timeout, on_warning)?;
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
    ) -> AnswerInTime<T>
    where
        F: Future<Output = Result<T, EngineFault>> + Send + 'static,
    {
        if let Err(error) = self.check_fork() {
            return AnswerInTime::new(std::future::ready(Err(error)));
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
        AnswerInTime::new(async { told.await.unwrap_or_else(|_| Err(broken_down())) })
    }
}

impl<E: LockEngine> Drop for EngineService<E> {
    fn drop(&mut self) {
        if self.is_forked() {
            mem::forget(self.leasing.take());
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
        // A waker is foreign code: it is made and dropped where nothing is locked.
        let waker = cx.waker().clone();
        let mut book = leasing.book.lock();
        let request = book.requests.get_mut(&number).expect("it stays until its outcome is read");
        match request.outcome.take() {
            None => {
                let earlier = request.waker.replace(waker);
                drop(book);
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

/// An observer of an election. Dropped, it ends.
struct ObservingEngine<E: LockEngine> {
    service: Arc<EngineService<E>>,
    name: Name,
    /// `None` before it is asked for, and after an error.
    observation: Option<EngineObservation>,
}

impl<E: LockEngine> LeaderNews for ObservingEngine<E> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ElectedLeader>>> {
        self.service.check_fork()?;
        let observation = self
            .observation
            .get_or_insert_with(|| EngineObservation::begin(self.service.leasing(), &self.name));
        let (change, earlier) = observation.told.take(&mut Some(cx.waker().clone()));
        // A waker is foreign code: dropped where nothing is locked.
        drop(earlier);
        if matches!(change, Some(Err(_))) {
            self.observation = None;
        }
        change.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<E: LockEngine> Drop for ObservingEngine<E> {
    fn drop(&mut self) {
        if let Some(observation) = &self.observation
            && !self.service.is_forked()
        {
            observation.end();
        }
    }
}

impl<E: LockEngine> LeaseService for EngineService<E> {
    fn ask(self: Arc<Self>, request: LeaseRequest) -> Box<dyn PendingLease> {
        let LeaseRequest { name, patience, above, at_most, at_least, .. } = request;
        let LeaseRequest { word, mode, keep, value, settlement, .. } = request;
        // It counts no permits, and is asked for none.
        let is_shared = mode == LeaseMode::Shared;
        let (has_at_least, has_at_most) = (at_least.is_some(), at_most.is_some());
        let terms = AskedTerms { has_at_least, has_at_most, keeps_always: false };
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
        let mut wish = Wish::new(name.clone(), above, patience, leasing.connect_timeout);
        (wish.at_least, wish.at_most, wish.is_shared) = (at_least, at_most, is_shared);
        wish.value = value;
        let mut book = leasing.book.lock();
        if book.closing != LeasingStage::Open {
            drop(book);
            return failed(self, closed());
        }
        let number = book.next;
        book.next += 1;
        let opens = OpensWord { word, at_most, is_shared, keep, settlement };
        let opens = Some(opens);
        let wish = Arc::new(wish);
        book.requests.insert(number, AskedLease { opens, wish, waker: None, outcome: None });
        drop(book);
        let number = Some(number);
        Box::new(PendingEngineLease { service: self, number, is_begun: false, failed: None })
    }

    fn shares(&self) -> bool {
        self.leasing().engine.abilities().shares
    }

    fn carries_values(&self) -> bool {
        self.leasing().engine.abilities().carries_values
    }

    fn observe(self: Arc<Self>, name: &Name) -> Result<Box<dyn LeaderNews>> {
        self.check_fork()?;
        Ok(Box::new(ObservingEngine { service: self, name: name.clone(), observation: None }))
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

    #[cold]
    fn news(&self, name: &Name) -> RequestNews {
        if self.is_forked() {
            return RequestNews::NotAsked;
        }
        let book = self.leasing().book.lock();
        let waits =
            |(_, asked): &(&u64, &AskedLease)| asked.outcome.is_none() && asked.wish.name == *name;
        let news =
            book.requests.iter().filter(waits).map(|(number, asked)| (asked.wish.news(), number));
        let last = news.max_by_key(|(news, number)| (news.weight(), **number));
        last.map_or(RequestNews::NotAsked, |(news, _)| news)
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
        if abilities.needs_at_most && !terms.has_at_most {
            return refused(
                "takes a lock for a time that is said beforehand, and no longer: set at_most \
                 (`tierlock run --at-most 10m`)",
            );
        }
        if terms.keeps_always && !leasing.engine.keeps() {
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

impl<E: LockEngine> LockQuestions for EngineService<E> {
    /// Its limit is the engine's own.
    fn list(self: Arc<Self>, only: Option<&Name>, _: Time) -> Box<dyn PendingList> {
        let known = self.look(only);
        Box::new(AnswerInTime::new(async {
            Ok(known.await?.into_iter().map(ServedLock::from).collect())
        }))
    }

    /// Whether the holder has this token, as the server knows it.
    fn is_good(self: Arc<Self>, name: &Name, token: Token, _: Time) -> Box<dyn PendingYes> {
        let (known, name) = (self.look(Some(name)), name.clone());
        Box::new(AnswerInTime::new(async move {
            let known = known.await;
            let known = known.map_err(|error| error.with_name(&name).with_scope(Scope::Host))?;
            Ok(known.iter().any(|lock| self.is_of(lock, token)))
        }))
    }

    fn why_unbroken(&self, name: &Name) -> Option<LockError> {
        let engine = &self.leasing().engine;
        let (shown, advice) = (engine.shown(), engine.break_advice(name));
        Some(LockError::config(format!(
            "tierlock cannot break a lock at {shown}; the service's own command can: {advice}"
        )))
    }

    fn take_away(self: Arc<Self>, name: &Name, _: Token, _: Time) -> Box<dyn PendingYes> {
        let why = self.why_unbroken(name).expect("no engine breaks locks");
        Box::new(AnswerInTime::new(std::future::ready(Err(why))))
    }

    fn place(&self) -> Option<String> {
        self.leasing().engine.place()
    }

    #[cfg(feature = "cli")]
    fn cluster(&self) -> Option<u128> {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(self.place()?);
        digest.first_chunk().copied().map(u128::from_le_bytes)
    }

    #[cfg(feature = "cli")]
    fn examine(&self) -> Option<AnswerInTime<Vec<super::engine::EngineFinding>>> {
        Some(self.answer(|leasing| async move { leasing.engine.examine().await }))
    }
}

impl<E: LockEngine> EngineService<E> {
    fn look(&self, only: Option<&Name>) -> AnswerInTime<Vec<EngineLock>> {
        let only = only.cloned();
        self.answer(|leasing| async move { leasing.engine.look(only.as_ref()).await })
    }

    /// Whether a token is of the grant that a lock is held by.
    fn is_of(&self, lock: &EngineLock, token: Token) -> bool {
        let first = lock.holder.as_ref().and_then(|holder| holder.token);
        first.is_some_and(|first| (first..=self.leasing().engine.block_end(first)).contains(&token))
    }
}

impl From<EngineLock> for ServedLock {
    fn from(lock: EngineLock) -> ServedLock {
        ServedLock {
            name: lock.name,
            token: lock.token,
            holder: lock.holder,
            sharers: Vec::new(),
            is_kept: false,
            is_reserved: lock.is_reserved,
            limit: None,
            permits_taken: 0,
            remaining: lock.remaining,
            // No engine remembers how the last holder left.
            predecessor: Predecessor::Clean,
            waiters: lock
                .waiters
                .into_iter()
                .map(|waiter| ServedWaiter { waiter, mode: None })
                .collect(),
        }
    }
}
