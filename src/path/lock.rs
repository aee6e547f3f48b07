//! The ways in: a lock is tried quietly and then climbed for, and a name is widened by such a climb.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::atomic::Ordering::*,
    task::Poll,
};

use crate::{
    clock,
    error::{LockError, Result},
    scope::Scope,
    thread_number::thread_number,
    time::Time,
    token::Token,
};

use super::{
    LockMode, Patience,
    climb::Climb,
    named::{Named, QuietCaller},
    right::Held,
    spans::AcquireSpan,
};

impl Named {
    pub(crate) fn lock(&self, patience: Patience) -> Result<Held> {
        match self.lock_quietly(QuietCaller::Thread) {
            Some(won) => Ok(won.into()),
            None => self.lock_slow(patience),
        }
    }

    /// What this token was got with stays with the calling thread, if that is promised.
    #[cold]
    pub(super) fn stays_here(&self, token: Token) {
        if !self.reach.guards_stay {
            return;
        }
        if let (Some(tier), Some(number)) = (self.host_tier(), thread_number()) {
            tier.word.stays_with(token, number);
        }
    }

    /// After [`lock_quietly`](Named::lock_quietly) in vain.
    #[cold]
    pub(crate) fn lock_slow(&self, patience: Patience) -> Result<Held> {
        let held = self.climb(patience, Scope::Thread, LockMode::Exclusive)?;
        self.stays_here(held.token);
        Ok(held)
    }

    /// As a mode of a lock with readers.
    pub(crate) fn lock_as(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        self.check_mode(mode)?;
        match mode {
            LockMode::Exclusive => self.lock(patience),
            _ => self.climb(patience, Scope::Thread, mode),
        }
    }

    pub(crate) async fn lock_as_async(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        self.check_mode(mode)?;
        match mode {
            LockMode::Exclusive => self.lock_async(patience).await,
            _ => self.climb_async(patience, Scope::Thread, mode).await,
        }
    }

    /// Whether what is asked for can ever be had of this name.
    fn check_mode(&self, mode: LockMode) -> Result<()> {
        match mode {
            LockMode::Permits(permits) => self.check_permits(permits),
            _ => Ok(()),
        }
    }

    /// Dropping the future gives back what it was to receive.
    pub(crate) async fn lock_async(&self, patience: Patience) -> Result<Held> {
        match self.lock_quietly(QuietCaller::Task) {
            Some(won) => Ok(won.into()),
            None => self.climb_async(patience, Scope::Thread, LockMode::Exclusive).await,
        }
    }

    /// Widens the name to `to`: acquires it there, which marks it, and gives it back. So at no
    /// moment do a narrow and a wide holder exist.
    pub(crate) fn escalate(&self, to: Scope) -> Result<()> {
        if self.must_widen(to)? {
            let held = self.climb(Patience::Forever, to, LockMode::Exclusive)?;
            self.has_widened(held, to);
        }
        Ok(())
    }

    pub(crate) async fn escalate_async(&self, to: Scope) -> Result<()> {
        if self.must_widen(to)? {
            let held = self.climb_async(Patience::Forever, to, LockMode::Exclusive).await?;
            self.has_widened(held, to);
        }
        Ok(())
    }

    fn must_widen(&self, to: Scope) -> Result<bool> {
        if to <= self.scope() {
            return Ok(false);
        }
        self.reach.check(to).map_err(|error| error.with_name(self.name()))?;
        self.entry.prepare(to).map_err(|error| error.with_name(self.name()))?;
        Ok(true)
    }

    fn has_widened(&self, mut held: Held, to: Scope) {
        self.scope.fetch_max(to as u8, Relaxed);
        self.entry.stay_wide();
        self.give_back(&mut held);
    }

    fn climb(&self, patience: Patience, at_least: Scope, mode: LockMode) -> Result<Held> {
        let start = matches!(patience, Patience::Until(_)).then(clock::now);
        let mut span = AcquireSpan::begin(self, mode);
        let held = Climb::new(self, patience, at_least, mode).run();
        let mut won = held.map_err(|error| error.with_wait_since(start));
        span.end(self, &mut won);
        won
    }

    async fn climb_async(
        &self,
        patience: Patience,
        at_least: Scope,
        mode: LockMode,
    ) -> Result<Held> {
        let start = matches!(patience, Patience::Until(_)).then(clock::now);
        let mut span = AcquireSpan::begin(self, mode);
        let mut climb = pin!(Climb::new(self, patience, at_least, mode).run_async());
        let held = match poll_fn(|cx| Poll::Ready(climb.as_mut().poll(cx))).await {
            Poll::Ready(held) => held,
            // It waits: until it arrives, or its manager is closed.
            Poll::Pending => self.until_closed(at_least, climb).await,
        };
        let mut won = held.map_err(|error| error.with_wait_since(start));
        span.end(self, &mut won);
        won
    }

    /// Ends a wait early if the manager is closed meanwhile. Dropped then, the climb goes back down.
    async fn until_closed(
        &self,
        at_least: Scope,
        mut climb: Pin<&mut impl Future<Output = Result<Held>>>,
    ) -> Result<Held> {
        event_listener::listener!(self.reach.closing => closing);
        let (mut is_new, mut is_told) = (true, false);
        poll_fn(|cx| {
            // It was polled just now, and may have been closed before there was a listener.
            if !mem::take(&mut is_new)
                && let Poll::Ready(held) = climb.as_mut().poll(cx)
            {
                return Poll::Ready(held);
            }
            is_told = is_told || Pin::new(&mut closing).poll(cx).is_ready();
            match self.is_over(at_least) {
                true => Poll::Ready(Err(self.closed())),
                false => Poll::Pending,
            }
        })
        .await
    }
}

impl LockError {
    /// A tier knows only how long its own wait took.
    #[cold]
    fn with_wait_since(self, start: Option<Time>) -> LockError {
        match (start, self.waited()) {
            (Some(start), Some(_)) => self.with_waited(clock::now().since(start)),
            _ => self,
        }
    }
}
