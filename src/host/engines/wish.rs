//! One request as an engine sees it: how long it may wait, and whether it is still wanted.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use super::fault::EngineFault;
use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind, Result},
    host::service::{LeasePatience, RequestNews},
    name::Name,
    time::Time,
    token::Token,
};

/// A lock that is wished for.
pub(super) struct Wish {
    pub(super) name: Name,
    /// The token that the grant's must exceed.
    pub(super) above: Token,
    pub(super) at_least: Option<Duration>,
    pub(super) at_most: Option<Duration>,
    /// Others may have it, too, if they share it.
    pub(super) is_shared: bool,
    /// What its holder says to observers of an election.
    pub(super) value: Option<Arc<[u8]>>,
    patience: LeasePatience,
    connect_timeout: Duration,
    begun: Time,
    /// The server has answered: from now on the wish outlives outages.
    is_acknowledged: AtomicBool,
    is_stopped: AtomicBool,
    stopped: Notify,
    notes: Mutex<WishNotes>,
    /// An attempt may have left something at the server: its answer was lost.
    may_have_left: AtomicBool,
}

/// What the error says if the time is over.
#[derive(Default)]
struct WishNotes {
    trouble: Option<String>,
    holder: Option<Holder>,
    pause: Option<Duration>,
}

/// The first and the longest pause before a server in trouble is asked again.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// No sleep exceeds this: the clock that sleeps go by stops while a machine is suspended.
const LONGEST_NAP: Duration = Duration::from_millis(100);
/// A server counts as unreachable at the end of a shorter wait, if it was silent for so long.
const SILENCE: Duration = Duration::from_secs(1);
const NO_ANSWER: &str = "the service has not answered";

impl Wish {
    pub(super) fn new(
        name: Name,
        above: Token,
        patience: LeasePatience,
        connect_timeout: Duration,
    ) -> Wish {
        Wish {
            name,
            above,
            at_least: None,
            at_most: None,
            is_shared: false,
            value: None,
            patience,
            connect_timeout,
            begun: clock::now(),
            is_acknowledged: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            stopped: Notify::new(),
            notes: Mutex::default(),
            may_have_left: AtomicBool::new(false),
        }
    }

    /// It is a try: another holder is not waited for.
    pub(super) fn is_try(&self) -> bool {
        self.patience == LeasePatience::No
    }

    /// It is not wanted any longer.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Release);
        self.stopped.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Acquire)
    }

    /// An attempt has come to nothing, and something of it may be at the server still.
    pub(super) fn may_have_left(&self) {
        self.may_have_left.store(true, Release);
    }

    /// What a try is told that the server has refused: what stands in its way may be its own.
    pub(super) fn refused(&self) -> LockError {
        match self.may_have_left.load(Acquire) {
            true => LockError::perhaps_taken(
                "it is taken, and that may be by an attempt of this call that lost its answer: try again",
            ),
            false => LockError::WOULD_BLOCK,
        }
    }

    /// The server has answered, and another holder has it.
    pub(super) fn is_held_by(&self, holder: Option<Holder>) {
        self.acknowledge();
        if holder.is_some() {
            self.notes.lock().holder = holder;
        }
    }

    pub(super) fn acknowledge(&self) {
        self.is_acknowledged.store(true, Release);
        let mut notes = self.notes.lock();
        notes.trouble = None;
        notes.pause = None;
    }

    /// Until when it waits for what it waits for now.
    pub(super) fn until(&self) -> Time {
        let limit = match self.patience {
            LeasePatience::No => Time::NEVER,
            LeasePatience::Until(limit) => limit,
        };
        match self.is_acknowledged.load(Acquire) {
            true => limit,
            false => limit.min(self.begun + self.connect_timeout),
        }
    }

    /// Fails once the time is over or it is not wanted any longer.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(LockError::config("the manager was closed"));
        }
        match clock::now() >= self.until() {
            true => Err(self.over()),
            false => Ok(()),
        }
    }

    /// Waits for `event`, at most for `at_most`; `None` if that is over. The event's future is dropped.
    pub(super) async fn wait<F: Future>(
        &self,
        event: F,
        at_most: Duration,
    ) -> Result<Option<F::Output>> {
        let end = clock::now() + at_most;
        let mut event = pin!(event);
        loop {
            let mut stopped = pin!(self.stopped.notified());
            stopped.as_mut().enable();
            self.check()?;
            let left = end.min(self.until()).since(clock::now());
            if left.is_zero() {
                self.check()?;
                return Ok(None);
            }
            tokio::select! {
                output = &mut event => return Ok(Some(output)),
                () = stopped => {}
                () = sleep(left.min(LONGEST_NAP)) => {}
            }
        }
    }

    /// What the server gives, asked again and again until it does or the time is over.
    pub(super) async fn ask<T, F: Future<Output = Result<T, EngineFault>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T> {
        loop {
            self.check()?;
            match ask().await {
                Ok(given) => return Ok(given),
                Err(fault) => self.weather(fault).await?,
            }
        }
    }

    /// The server could not answer, or not serve: waits before it is asked again.
    pub(super) async fn weather(&self, fault: EngineFault) -> Result<()> {
        let trouble = match fault {
            EngineFault::Final(error) => return Err(error),
            EngineFault::Trouble(trouble) => trouble,
        };
        let pause = {
            let mut notes = self.notes.lock();
            notes.trouble = Some(trouble);
            let pause = notes.pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX));
            notes.pause = Some(pause);
            pause
        };
        self.wait(std::future::pending::<()>(), pause).await.map(|_| ())
    }

    /// Whether the server counts as unreachable, which has not answered yet.
    fn is_silent(&self, waited: Duration, notes: &WishNotes) -> bool {
        waited >= self.connect_timeout.min(SILENCE) || notes.trouble.is_some()
    }

    /// What has come of it so far, for a caller that stands behind this one.
    pub(super) fn news(&self) -> RequestNews {
        let notes = self.notes.lock();
        if self.is_acknowledged.load(Acquire) {
            // It was told a while ago.
            let holder = notes.holder.clone();
            return RequestNews::Waits(
                holder.map(|holder| Holder { held_since_grant: false, ..holder }),
            );
        }
        match self.is_silent(clock::now().since(self.begun), &notes) {
            true => {
                let trouble = notes.trouble.as_deref().unwrap_or(NO_ANSWER);
                RequestNews::Silent(trouble.to_owned())
            }
            false => RequestNews::OnItsWay,
        }
    }

    /// What the caller is told when its time is over.
    fn over(&self) -> LockError {
        let waited = clock::now().since(self.begun);
        let notes = self.notes.lock();
        if self.is_acknowledged.load(Acquire) {
            let error = LockError::timed_out(waited);
            return match &notes.holder {
                None => error.without_holder(true),
                holder => error.with_holder(holder.clone()),
            };
        }
        let trouble = notes.trouble.as_deref().unwrap_or(NO_ANSWER);
        match self.is_silent(waited, &notes) {
            true => LockError::new(LockErrorKind::Unreachable, trouble.to_owned()),
            false => {
                let text = format!("the service did not answer within the wait: {trouble}");
                LockError::new(LockErrorKind::TimedOut, text).without_holder(false)
            }
        }
        .with_waited(waited)
    }
}
