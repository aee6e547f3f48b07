//! Unnamed read-write locks, of one process.

use super::unless;
use crate::{
    clock,
    error::{LockError, Predecessor, Result},
    mode::Room,
    path::{
        InVain, LockMode, Patience, Plain, by,
        right::{Held, READABLE, SHARED, THREAD, Won},
        timed_out_in_front,
    },
    scope::Scope,
    thread::ThreadLock,
    time::Time,
};

impl Plain {
    #[inline]
    fn shared(&self) -> Won {
        let (token, left) = (self.lock.last_token(), self.lock.predecessor());
        Won::of_plain_reader(token, left)
    }

    #[inline]
    pub(super) fn read_quietly(&self) -> Option<Won> {
        self.shares.read(&self.lock).then(|| self.shared())
    }

    /// For the winner of the lock.
    fn come_in(&self, mode: LockMode) -> Held {
        if mode == LockMode::Shared {
            self.shares.read_under(&self.lock);
            let won = self.shared();
            self.lock.step_out();
            return won.into();
        }
        let mut held = Held::plain(self.lock.count_or_unlock());
        self.shares.set_readable(true);
        self.lock.wake_all();
        held.add(READABLE);
        held
    }

    /// Comes in as a writer, once no reader is inside.
    fn come_in_alone(&self) -> Held {
        self.lock.has_no_readers();
        Held::plain(self.lock.count_or_unlock())
    }

    /// A write lock that nothing stands in the way of.
    fn write_quietly(&self) -> Option<Held> {
        if !self.lock.try_win() {
            return None;
        }
        if self.shares.is_full(Room::Alone) {
            self.lock.step_out();
            return None;
        }
        Some(Held::plain(self.lock.count_or_unlock()))
    }

    pub(super) fn lock_as(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        if let LockMode::Permits(permits) = mode {
            return self.acquire(permits, patience);
        }
        if mode == LockMode::Exclusive
            && let Some(held) = self.write_quietly()
        {
            return Ok(held);
        }
        let (start, until) = (clock::now(), patience.until());
        let writer = (mode == LockMode::Exclusive).then(|| self.shares.count_writer());
        let may_read = || mode == LockMode::Shared && self.shares.may_read_beside();
        loop {
            if mode == LockMode::Shared
                && let Some(won) = self.read_quietly()
            {
                return Ok(won.into());
            }
            let is_won = match patience {
                Patience::No => self.lock.try_win() || self.lock.take_lapsed(),
                _ => self.lock.wait(until, may_read),
            };
            match is_won {
                true => break,
                false if patience == Patience::No => return Err(LockError::WOULD_BLOCK),
                false if clock::now() >= until => return Err(self.timed_out(start)),
                false => {}
            }
        }
        drop(writer);
        if mode != LockMode::Exclusive {
            return Ok(self.come_in(mode));
        }
        match self.shares.drain(Room::Alone, until) {
            true => Ok(self.come_in_alone()),
            false => {
                self.lock.step_out();
                Err(match patience {
                    Patience::No => LockError::WOULD_BLOCK,
                    _ => timed_out_in_front(start, Scope::Thread),
                })
            }
        }
    }

    pub(super) async fn lock_as_async(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        if patience == Patience::No {
            return self.lock_as(mode, patience);
        }
        if let LockMode::Permits(permits) = mode {
            return self.acquire_async(permits, patience).await;
        }
        let (start, until) = (clock::now(), patience.until());
        let writer = (mode == LockMode::Exclusive).then(|| self.shares.count_writer());
        let may_read = || mode == LockMode::Shared && self.shares.may_read_beside();
        loop {
            if mode == LockMode::Shared
                && let Some(won) = self.read_quietly()
            {
                return Ok(won.into());
            }
            if mode == LockMode::Exclusive {
                break;
            }
            match unless(may_read, mode, by(until, self.lock.wait_async())).await {
                Some(true) => return Ok(self.come_in(mode)),
                Some(false) => return Err(self.timed_out(start)),
                None => {}
            }
        }
        let won = self.await_room(Room::Alone, until).await;
        drop(writer);
        match won {
            Ok(won) => {
                won.keep();
                Ok(self.come_in_alone())
            }
            Err(InVain::AtLock) => Err(self.timed_out(start)),
            Err(InVain::InFront) => Err(timed_out_in_front(start, Scope::Thread)),
        }
    }

    pub(super) fn upgrade(&self, held: &mut Held, patience: Patience) -> Result<()> {
        let start = clock::now();
        self.shares.set_readable(false);
        if self.shares.drain(Room::Alone, patience.until()) {
            self.upgraded(held);
            return Ok(());
        }
        Err(self.upgrade_ended(start, patience))
    }

    pub(super) async fn upgrade_async(&self, held: &mut Held, patience: Patience) -> Result<()> {
        if patience == Patience::No {
            return self.upgrade(held, patience);
        }
        let start = clock::now();
        self.shares.set_readable(false);
        if by(patience.until(), self.shares.drain_async(Room::Alone)).await {
            self.upgraded(held);
            return Ok(());
        }
        Err(self.upgrade_ended(start, patience))
    }

    /// An upgradable reader as before.
    fn upgrade_ended(&self, start: Time, patience: Patience) -> LockError {
        self.shares.set_readable(true);
        self.lock.wake_all();
        match patience {
            Patience::No => LockError::WOULD_BLOCK,
            _ => timed_out_in_front(start, Scope::Thread),
        }
    }

    fn upgraded(&self, held: &mut Held) {
        // Nothing that its release needs.
        *held = Held::NOTHING;
        self.lock.count();
        self.lock.has_no_readers();
    }

    pub(super) fn downgrade_to_upgradable(&self, held: &mut Held) {
        held.add(READABLE);
        held.set_predecessor(Predecessor::Clean);
        self.shares.set_readable(true);
        self.lock.wake_all();
    }

    pub(super) fn downgrade(&self, held: &mut Held, how: Predecessor) -> Held {
        self.shares.read_under(&self.lock);
        let shared = self.shared();
        self.release(held, how);
        shared.into()
    }

    /// Whether a waiter stands behind the holder of the lock, or behind a reader beside it.
    pub(in crate::path) fn may_be_waited_for(&self, shares: bool) -> bool {
        let is_drained = || self.lock.is_locked() && !self.shares.is_readable();
        self.lock.has_waiters() || shares && is_drained()
    }

    #[inline]
    pub(in crate::path) fn release(&self, held: &mut Held, how: Predecessor) {
        self.release_as(held, how, ThreadLock::release);
    }

    #[inline]
    pub(in crate::path) fn release_as(
        &self,
        held: &mut Held,
        how: Predecessor,
        release: fn(&ThreadLock, Predecessor),
    ) {
        if held.remove(SHARED) {
            return self.shares.leave(held.share());
        }
        if held.remove(READABLE) {
            self.shares.set_readable(false);
        }
        held.remove(THREAD);
        release(&self.lock, how);
    }
}

/// Steps out of a lock that was won, unless it is kept.
pub(in crate::path) struct StepsOut<'a>(pub(in crate::path) &'a ThreadLock);

impl Drop for StepsOut<'_> {
    fn drop(&mut self) {
        self.0.step_out();
    }
}
