//! Permits of a semaphore: a taker wins the gate, looks whether there is room, counts its own, and
//! gives the gate back. Permits come back past the gate.
//!
//! A taker for which there is no room keeps the gate and waits there, so no smaller request passes a
//! larger one; one that gives up, or dies, lets the next try. No permit is held in part.
//!
//! Each permit has a token of its own. A guard of several bears the last one's: theirs follow on each
//! other, and no other permit has one of them.

use std::{sync::Arc, time::Duration};

use crate::{
    alarm, blocking, clock,
    error::{LockError, LockErrorKind, LostReason, Result},
    mode::{PERMITS_MAX, Room, Usage, too_few_permits},
    scope::Scope,
    thread::InSeat,
    time::Time,
    token::Token,
    watch::Watch,
};

#[cfg(feature = "process")]
use super::right::{SHARED_SLOT, SLOT};
use super::{
    Core, InVain, Patience, Permits, Plain, by,
    named::Named,
    right::{Held, SHARED},
    sharing::StepsOut,
    spans, waiters_before,
};

/// A try that finds the gate taken by one that is about to leave it looks again for so long.
const PASSING: Duration = Duration::from_micros(20);
/// Between two of its looks.
const PAUSES: u32 = 16;
/// A task in front is polled so often, so that one that is never polled again is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Permits {
    /// # Errors
    /// `Config`, if they can never be had.
    pub(crate) fn check(self) -> Result<()> {
        let Permits { count, limit } = self;
        match count {
            0 => Err(LockError::config("no permit was asked for: ask for at least one")),
            _ if count > limit => Err(LockError::config(format!(
                "{count} permits were asked for, and there are {limit}: it would wait for ever"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn room(self) -> Room {
        Room::Beside(self.limit.saturating_sub(self.count))
    }

    pub(super) fn timed_out(self, start: Time, scope: Scope) -> LockError {
        let Permits { count, limit } = self;
        LockError::new(LockErrorKind::TimedOut, too_few_permits(count, limit))
            .with_waited(clock::now().since(start))
            .with_scope(scope)
    }
}

/// Checks how many permits a semaphore is to have.
pub(crate) fn check_limit(limit: u32) -> Result<()> {
    match limit {
        0 => {
            Err(LockError::config("a semaphore without permits lets none in: give it at least one"))
        }
        _ if limit > PERMITS_MAX => Err(LockError::config(format!(
            "{limit} permits are more than can be counted; the most is {PERMITS_MAX}"
        ))),
        _ => Ok(()),
    }
}

/// What is said where what grants the leases grants no permits.
pub(crate) fn permits_at_host_scope() -> LockError {
    LockError::config(
        "this manager's lock service grants no permits: use tierlock's own leaders, or process \
         scope, with .scope(Scope::Process), under a name that nothing locks at host scope",
    )
}

/// Tries until it is won, or another waits in front and so does not leave at once, or some
/// microseconds are over: two tries must not fail each other where there is room for both.
pub(super) fn past_others<R: Tried>(
    mut attempt: impl FnMut() -> R,
    waits_in_front: impl Fn() -> bool,
) -> R {
    let tried = attempt();
    if tried.is_over() || waits_in_front() {
        return tried;
    }
    let end = clock::now() + PASSING;
    loop {
        (0..PAUSES).for_each(|_| std::hint::spin_loop());
        let tried = attempt();
        if tried.is_over() || waits_in_front() || clock::now() >= end {
            return tried;
        }
    }
}

/// What came of a try.
pub(super) trait Tried {
    /// Whether it is not to be made again.
    fn is_over(&self) -> bool;
}

impl Tried for bool {
    fn is_over(&self) -> bool {
        *self
    }
}

impl<T> Tried for Option<T> {
    fn is_over(&self) -> bool {
        self.is_some()
    }
}

fn exhausted() -> LockError {
    LockError::new(
        LockErrorKind::Refused,
        "its tokens are exhausted: all below 2^63 were granted; choose another name",
    )
}

/// The token of the last of so many permits, the first of which has this one.
fn last_of(first: Token, count: u32) -> Result<Token> {
    let last = first.get().checked_add(u64::from(count) - 1).and_then(Token::new);
    last.ok_or_else(exhausted)
}

// ---- named semaphores --------------------------------------------------------------------------

impl Named {
    /// Counts permits, for the holder of the gate, which has found room for them: they are what it
    /// shares then.
    pub(super) fn count_permits(&self, held: &mut Held, count: u32) -> Result<()> {
        #[cfg(feature = "process")]
        if held.has(SLOT)
            && let Some(slot) = self.entry.slot()
        {
            held.token = slot.count_permits(count)?;
            held.add(SHARED_SLOT);
            held.set_permits(count);
            return Ok(());
        }
        let last = last_of(held.token, count).map_err(self.about(held.scope()))?;
        self.entry.thread().raise_token(last);
        self.entry.shares().count_permits(count);
        held.token = last;
        held.add(SHARED);
        held.set_permits(count);
        Ok(())
    }

    /// Whether they can be had: in a forked child the name may be used for something else by now.
    pub(super) fn check_permits(&self, permits: Permits) -> Result<()> {
        let checked =
            permits.check().and_then(|()| self.entry.check_usage(Usage::Permits(permits.limit)));
        checked.map_err(self.about(self.scope()))
    }

    /// How many permits are taken, as far as one look shows.
    fn permits_taken(&self) -> Result<u32> {
        if self.asks_for_permits() {
            return blocking::wait_for(self.permits_taken_at_host_scope());
        }
        self.permits_taken_here()
    }

    /// The same, at the gates of this machine.
    pub(super) fn permits_taken_here(&self) -> Result<u32> {
        #[cfg(feature = "process")]
        if self.entry.scope_in_force() > Scope::Thread
            && let Some(slot) = self.entry.slot()
        {
            let taken = slot.permits_taken()?;
            return Ok(match self.entry.scope_in_force() {
                Scope::Host => taken.saturating_add(self.entry.shares().counted()),
                _ => taken,
            });
        }
        Ok(self.entry.shares().counted())
    }

    /// Why its permits are lost, if they are: this process was taken for dead while it lived.
    pub(super) fn uncounted(&self, held: &Held) -> Option<LostReason> {
        #[cfg(feature = "process")]
        if held.has(SHARED_SLOT)
            && let Some(slot) = self.entry.slot()
        {
            return (!slot.is_counted()).then_some(LostReason::Broken);
        }
        let _ = held;
        None
    }

    /// Whether permits of the name are a leader's, as far as this process knows.
    fn asks_for_permits(&self) -> bool {
        self.scope().max(self.entry.scope_in_force()) == Scope::Host
    }

    async fn permits_taken_at_host_scope(&self) -> Result<u32> {
        let about = self.about(Scope::Host);
        self.check_open(Scope::Host)?;
        if self.reach.service.as_ref().is_some_and(|service| service.counts())
            && let Some(questions) = self.reach.questions.clone()
        {
            let limit = clock::now() + self.reach.connect_timeout;
            let found = questions.list(Some(self.name()), limit).await.map_err(&about)?;
            // What is still out at a narrower scope counts, too: it is waited for.
            let here = self.permits_taken_here()?;
            return Ok(found.first().map_or(0, |lock| lock.permits_taken).saturating_add(here));
        }
        Err(about(permits_at_host_scope()))
    }

    /// The last so many of the permits that are held, for a guard of their own, which loses them when
    /// this one would.
    fn split(&self, held: &mut Held, count: u32) -> Held {
        let mut split = held.split_off(count);
        if let Some(leased) = held.leased() {
            leased.word.read_beside();
            split.more_mut().leased = Some(leased.clone());
        }
        if let Some(end) = held.watch().map(|watch| watch.deadline()) {
            let watch = Arc::new(Watch::new(None, Some(end)));
            let told = watch.clone();
            let more = split.more_mut();
            more.alarm = Some(alarm::call_at(end, move || {
                told.lost();
            }));
            more.watch = Some(watch);
        }
        spans::hold(self, &mut split);
        split
    }
}

impl Core {
    pub(crate) fn split(&self, held: &mut Held, count: u32) -> Held {
        match self {
            Core::Plain(_) => held.split_off(count),
            Core::Named(named) => named.split(held, count),
        }
    }

    /// How many permits are taken, as far as one look shows. At host scope it blocks until the leader
    /// has answered.
    pub(crate) fn permits_taken(&self) -> Result<u32> {
        match self {
            Core::Plain(plain) => Ok(plain.shares.counted()),
            Core::Named(named) => named.permits_taken(),
        }
    }

    /// The same, blocking no thread.
    pub(crate) async fn permits_taken_async(&self) -> Result<u32> {
        match self {
            Core::Named(named) if named.asks_for_permits() => {
                named.permits_taken_at_host_scope().await
            }
            core => core.permits_taken(),
        }
    }

    /// Whether that is known without a question to a leader.
    pub(crate) fn knows_permits_taken(&self) -> bool {
        match self {
            Core::Plain(_) => true,
            Core::Named(named) => !named.asks_for_permits(),
        }
    }
}

// ---- unnamed semaphores ------------------------------------------------------------------------

impl Plain {
    pub(super) fn acquire(&self, permits: Permits, patience: Patience) -> Result<Held> {
        permits.check()?;
        if self.lock.win_quietly() {
            let _won = StepsOut(&self.lock);
            if !self.shares.is_full(permits.room()) {
                return self.come_in_with(permits);
            }
        }
        let (start, until) = (clock::now(), patience.until());
        let is_won = match patience {
            Patience::No => {
                let is_won = past_others(|| self.lock.try_win(), || self.shares.is_draining());
                is_won || self.lock.take_lapsed()
            }
            _ => self.lock.wait(until, || false),
        };
        let in_vain = |at| match patience {
            Patience::No => LockError::WOULD_BLOCK,
            _ => self.permits_timed_out(permits, start, at),
        };
        if !is_won {
            return Err(in_vain(InVain::AtLock));
        }
        let _won = StepsOut(&self.lock);
        if self.shares.is_full(permits.room()) {
            let _front = (patience != Patience::No).then(|| self.shares.stand_in_front());
            if !self.shares.drain(permits.room(), until) {
                return Err(in_vain(InVain::InFront));
            }
        }
        self.come_in_with(permits)
    }

    /// What a caller is told that has waited since `start`, and was there when its time came.
    #[cold]
    fn permits_timed_out(&self, permits: Permits, start: Time, at: InVain) -> LockError {
        let ahead = match at {
            InVain::AtLock => waiters_before(&self.lock, &self.shares, start),
            InVain::InFront => 0,
        };
        permits.timed_out(start, Scope::Thread).with_waiters_ahead(Some(ahead))
    }

    pub(super) async fn acquire_async(&self, permits: Permits, patience: Patience) -> Result<Held> {
        permits.check()?;
        let (start, until) = (clock::now(), patience.until());
        match self.await_room(permits.room(), until).await {
            Ok(_won) => self.come_in_with(permits),
            Err(at) => Err(self.permits_timed_out(permits, start, at)),
        }
    }

    /// Waits for the lock and then for room, blocking no thread; or where it was when the time came. What
    /// is returned has the lock, and gives it back. A task whose turn it is, and that is not polled,
    /// loses it.
    pub(super) async fn await_room(
        &self,
        room: Room,
        until: Time,
    ) -> std::result::Result<InSeat<'_>, InVain> {
        if !by(until, self.lock.wait_async()).await {
            return Err(InVain::AtLock);
        }
        let mut won = InSeat::of(&self.lock);
        loop {
            let is_its = match self.shares.listen(room) {
                None if won.get_up() => return Ok(won),
                None => false,
                Some(_) if clock::now() >= until => return Err(InVain::InFront),
                Some(listener) => {
                    let _front = room.is_for_permits().then(|| self.shares.stand_in_front());
                    won.wait(by((clock::now() + LOOK_EVERY).min(until), listener)).await
                }
            };
            if !is_its && !by(until, won.come_back()).await {
                return Err(InVain::AtLock);
            }
        }
    }

    /// Counts them, for the holder of the lock, which has found room for them.
    fn come_in_with(&self, permits: Permits) -> Result<Held> {
        let last = last_of(self.lock.count().token, permits.count)?;
        self.lock.raise_token(last);
        self.shares.count_permits(permits.count);
        Ok(Held::plain_permits(last, permits.count))
    }
}

#[cfg(all(test, not(tierlock_loom)))]
mod tests;
