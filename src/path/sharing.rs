//! Readers: their fast path, their wait for what they may share, and a writer's wait for them.
//!
//! | | holds | lets in | waits for |
//! |---|---|---|---|
//! | reader | a count, and no gate | readers, an upgradable one | writers that hold the gate or stand before it |
//! | upgradable reader | the gate, readable | readers | the gate; to upgrade: readers inside |
//! | writer | the gate | none | the gate, then readers inside |
//!
//! A reader that finds the gate taken climbs to it like a writer, so that all stand in one order. At
//! the gate it adds 1 and releases the gate, left as it was found. Where an upgradable reader holds
//! the gate, a reader before which no writer stands comes in beside it.
//!
//! At host scope readers share a lease, and are counted in the lease word. An upgradable reader has a lease
//! of its own, and so has the writer that it becomes, and the reader that either becomes: see `apart`. Where
//! the service grants no such leases an upgradable reader has an exclusive one.

mod apart;
mod plain;

use std::{future::Future, time::Duration};

#[cfg(not(tierlock_loom))]
use event_listener::Listener;

use crate::{
    alarm, clock,
    error::{Holder, LockError, LostReason, Predecessor, Result},
    fork,
    host::service::ReaderMode,
    mode::{Room, Share},
    scope::Scope,
    thread::BellListener,
    time::Time,
    token::Token,
};

#[cfg(feature = "process")]
use crate::process::Drain;

pub(super) use self::plain::StepsOut;
#[cfg(feature = "process")]
use super::right::SLOT;
use super::{
    Core, LockMode, Patience, by,
    ground::GatePlace,
    named::Named,
    right::{Held, INSIDE, LEASE, READABLE, SHARED, SHARED_LEASE, SHARED_SLOT, THREAD, Won, short},
    spans, timed_out_in_front,
};

/// A writer that waits for readers.
#[derive(Default)]
pub(super) struct WriterWait {
    #[cfg(feature = "process")]
    slot: crate::process::Drainer,
    looks: u32,
}

/// What it waits for.
pub(super) enum ReadersInside {
    /// Of this process.
    Here(BellListener),
    /// Of the slot: while its bell is this, at most so long.
    #[cfg(feature = "process")]
    Slot { bell: u32, longest: Duration },
    /// What is not to be waited for.
    Full,
}

/// A task that no bell wakes looks so often, less often later.
const FIRST_LOOK: Duration = Duration::from_micros(200);
const LONGEST_LOOK: Duration = Duration::from_millis(10);
/// What a writer looks for.
const ALONE: (Room, Option<Room>) = (Room::Alone, Some(Room::Alone));

/// No sleep exceeds this: the clock that threads sleep on stops while a machine is suspended.
const LONGEST_NAP: Duration = Duration::from_millis(100);

impl Named {
    /// A read lock that nothing stands in the way of; `None` leaves everything as it was.
    #[inline(never)]
    pub(crate) fn read_quietly(&self) -> Option<Won> {
        if let Some(place) = self.shortcut.here()
            && !self.reach.is_closed()
            && !self.entry.is_at_host_scope()
        {
            let (token, left) = place.read()?;
            return self.has_come_in(token, left, place.generation(), || place.unread());
        }
        self.read_roundabout()
    }

    /// The same without the shortcut.
    #[inline(never)]
    fn read_roundabout(&self) -> Option<Won> {
        let in_force = self.entry.scope_in_force();
        if self.scope() > in_force || self.has_terms {
            return None;
        }
        let generation = fork::generation();
        match in_force {
            Scope::Process if self.reach.is_closed() => None,
            Scope::Process => match self.entry.place(generation) {
                GatePlace::Slot(place) => {
                    let (token, left) = place.read()?;
                    let won = self.has_come_in(token, left, generation, || place.unread())?;
                    if !self.reach.guards_stay {
                        self.entry.shorten(&self.shortcut, generation);
                    }
                    Some(won)
                }
                GatePlace::Unknown => None,
                GatePlace::NoSlot => self.read_past_thread(Scope::Process, generation),
            },
            Scope::Thread => self.read_past_thread(Scope::Thread, generation),
            Scope::Host if self.reach.is_closed() => None,
            Scope::Host => self.read_under_lease(generation),
        }
    }

    #[inline]
    fn read_under_lease(&self, generation: u64) -> Option<Won> {
        let tier = self.host_tier_in(generation).filter(|_| self.enters_kept())?;
        let (token, left) = tier.read()?;
        // A writer whose right was lost is still inside, perhaps.
        if self.entry.cell.has_writer(short(generation)) {
            tier.leave_shared();
            return None;
        }
        Some(Won::new(token, left, Scope::Host, SHARED_LEASE, generation))
    }

    #[inline]
    fn has_come_in(
        &self,
        token: Token,
        left: Predecessor,
        generation: u64,
        leave: impl FnOnce(),
    ) -> Option<Won> {
        // A writer that lost its right may still be inside.
        if self.entry.cell.has_writer(short(generation)) {
            leave();
            return None;
        }
        Some(Won::new(token, left, Scope::Process, SHARED_SLOT, generation))
    }

    #[inline]
    fn read_past_thread(&self, scope: Scope, generation: u64) -> Option<Won> {
        let (shares, thread) = (self.entry.shares_in(generation), self.entry.thread_in(generation));
        if !shares.read(thread) {
            return None;
        }
        // After the 1 was added: a caller that widens the name meanwhile waits for this reader.
        let is_inside = self.entry.cell.has_writer(short(generation));
        if self.entry.scope_in_force() != scope || is_inside {
            shares.leave(Share::Reader);
            return None;
        }
        let (token, left) = (thread.last_token(), thread.predecessor());
        Some(Won::new(token, left, scope, SHARED, generation))
    }

    /// The same beside an upgradable reader, also past waiters, if none of them is a writer.
    pub(super) fn read_beside(&self) -> Result<Option<Won>> {
        #[cfg(feature = "process")]
        if self.entry.scope_in_force() == Scope::Process
            && let Some(slot) = self.entry.slot()
        {
            slot.look_up();
        }
        if !self.may_read_beside() {
            return Ok(None);
        }
        let generation = fork::generation();
        Ok(match self.entry.scope_in_force() {
            #[cfg(feature = "process")]
            Scope::Process if self.entry.has_slot() => {
                let Some(slot) = self.entry.slot() else { return Ok(None) };
                match slot.read_beside()? {
                    Some((token, left)) => {
                        self.has_come_in(token, left, generation, || slot.unshare(Share::Reader))
                    }
                    None => None,
                }
            }
            Scope::Host => None,
            scope => self.read_past_thread(scope, generation),
        })
    }

    /// Whether an upgradable reader is inside, and no writer is known to wait.
    pub(super) fn may_read_beside(&self) -> bool {
        if self.scope() > self.entry.scope_in_force() || self.reach.is_closed() {
            return false;
        }
        if self.entry.scope_in_force() == Scope::Host {
            return false; // it has the lease for itself
        }
        #[cfg(feature = "process")]
        if let Some(slot) = self.entry.slot()
            && self.entry.scope_in_force() == Scope::Process
        {
            return !self.entry.shares().has_waiting_writers() && slot.may_read_beside();
        }
        self.entry.shares().may_read_beside()
    }

    /// A reader leaves, which has nothing besides. Nothing is done in a forked child, which has but a
    /// copy.
    fn leave_quietly(&self, held: &mut Held) -> bool {
        if let Some(place) = self.shortcut.here()
            && held.take_bare_read(place.generation())
        {
            place.unread();
            return true;
        }
        self.leave_roundabout(held);
        true
    }

    /// The same without the shortcut.
    #[inline(never)]
    fn leave_roundabout(&self, held: &mut Held) {
        let generation = fork::generation();
        if held.is_of_other_than(generation) {
            return;
        }
        if held.has(SHARED_LEASE)
            && let Some(tier) = self.host_tier_in(generation)
        {
            held.forget();
            tier.leave_shared();
            return;
        }
        if held.has(SHARED_SLOT)
            && held.permits() == 0
            && let GatePlace::Slot(place) = self.entry.place(generation)
        {
            held.forget();
            place.unread();
            return;
        }
        self.stop_sharing(held);
    }

    /// Gives back what a reader has, or an upgradable reader besides its gate; or permits.
    #[inline]
    pub(super) fn stop_sharing(&self, held: &mut Held) {
        self.leave_apart(held, held.predecessor());
        if held.remove(SHARED) {
            self.entry.shares().leave(held.share());
        }
        if held.remove(SHARED_SLOT) {
            #[cfg(feature = "process")]
            if let Some(slot) = self.entry.slot() {
                slot.unshare(held.share());
            }
        }
        if held.remove(SHARED_LEASE)
            && let Some(tier) = self.host_tier()
        {
            match held.take_leased() {
                Some(leased) => tier.leave_permits(&leased, held.permits()),
                None => tier.leave_shared(),
            }
        }
        if held.remove(READABLE) {
            self.entry.shares().set_readable(false);
        }
    }

    /// For the holder of the gate: whether there is no room among what is counted `here`, in the entry,
    /// or `there`, in the slot, if that matters; and what to wait for if so. All looks of one wait are
    /// for the same.
    pub(super) fn look_for_readers(
        &self,
        held: &Held,
        drainer: &mut WriterWait,
        (here, there): (Room, Option<Room>),
        waits: bool,
    ) -> Result<Option<ReadersInside>> {
        let shares = self.entry.shares();
        if !waits && shares.is_full(here) {
            return Ok(Some(ReadersInside::Full));
        }
        if let Some(listener) = shares.listen(here) {
            return Ok(Some(ReadersInside::Here(listener)));
        }
        #[cfg(feature = "process")]
        if held.has(SLOT)
            && let Some(room) = there
            && let Some(slot) = self.entry.slot()
        {
            return Ok(match slot.drain(&mut drainer.slot, room, waits)? {
                Drain::Drained => None,
                Drain::Full => Some(ReadersInside::Full),
                Drain::Sleep { bell, longest } => Some(ReadersInside::Slot { bell, longest }),
            });
        }
        let _ = (held, drainer, there);
        Ok(None)
    }

    /// Blocks until readers may be gone, or the time has come.
    pub(super) fn sleep_for_readers(
        &self,
        readers: ReadersInside,
        drainer: &mut WriterWait,
        until: Time,
    ) -> Result<()> {
        let left = until.since(clock::now()).min(LONGEST_NAP);
        match readers {
            ReadersInside::Here(listener) => {
                listener.wait_timeout(left);
                Ok(())
            }
            #[cfg(feature = "process")]
            ReadersInside::Slot { bell, longest } => match self.entry.slot() {
                Some(slot) => slot.sleep_on_bell(&mut drainer.slot, bell, longest.min(left)),
                None => Ok(()),
            },
            ReadersInside::Full => Ok(()),
        }
        .inspect(|()| drainer.looks += 1)
    }

    /// The same, blocking no thread.
    pub(super) async fn await_readers(
        &self,
        readers: ReadersInside,
        drainer: &mut WriterWait,
        until: Time,
    ) {
        let now = clock::now();
        match readers {
            ReadersInside::Here(listener) => {
                by(until.min(now + LONGEST_LOOK * 5), listener).await;
            }
            #[cfg(feature = "process")]
            ReadersInside::Slot { bell, longest } => {
                let rung = self.entry.slot().and_then(|slot| slot.await_bell(bell));
                let is_rung = match rung {
                    Some(rung) => by((now + longest).min(until), rung).await,
                    None => {
                        let nap = (FIRST_LOOK * (1 << drainer.looks.min(8))).min(LONGEST_LOOK);
                        alarm::sleep_until((now + nap).min(until)).await;
                        false
                    }
                };
                drainer.slot.looks_again(is_rung);
            }
            ReadersInside::Full => {}
        }
        drainer.looks += 1;
    }

    // ---- from one mode to another --------------------------------------------------------------

    /// An upgradable reader comes in: others may come in beside it.
    pub(super) fn begin_reading(&self, held: &mut Held) -> Result<()> {
        self.entry.shares().set_readable(true);
        held.add(READABLE);
        // Above thread scope the gate can be lost: then the cell alone keeps a writer of this process out.
        if held.scope() > Scope::Thread && !held.has(INSIDE) {
            self.enter_apart(held);
        }
        self.mark_readable(held, Some(held.predecessor()))?;
        self.entry.thread().wake_all();
        Ok(())
    }

    fn mark_readable(&self, held: &Held, readable: Option<Predecessor>) -> Result<()> {
        #[cfg(feature = "process")]
        if held.has(SLOT)
            && let Some(slot) = self.entry.slot()
        {
            return slot.set_readable(readable);
        }
        let _ = (held, readable);
        Ok(())
    }

    /// Lets no more readers in beside an upgradable reader, which then waits for those inside.
    fn begin_upgrade(&self, held: &mut Held) -> Result<()> {
        self.mark_readable(held, None)?;
        self.entry.shares().set_readable(false);
        if held.remove(READABLE) && held.has(INSIDE) {
            // It is the only one that is marked there: a second one waits until this one is not readable.
            self.entry.cell.upgrade(short(fork::generation()));
        }
        Ok(())
    }

    /// No reader is inside any more: it is a writer from now on, with a token of its own.
    fn end_upgrade(&self, held: &mut Held) -> Result<()> {
        if held.has(LEASE) {
            return Ok(()); // it has had the lease for itself all the time
        }
        #[cfg(feature = "process")]
        if held.has(SLOT)
            && let Some(slot) = self.entry.slot()
        {
            let next = held.token.next();
            held.token = next.ok_or_else(|| self.about(held.scope())(exhausted()))?;
            slot.raise_token(held.token);
            return Ok(());
        }
        held.token = self.entry.thread().count().token;
        self.entry.thread().has_no_readers();
        Ok(())
    }

    /// It waits no longer: an upgradable reader as before.
    fn undo_upgrade(&self, held: &mut Held) {
        if held.has(INSIDE) {
            self.entry.cell.downgrade(short(fork::generation()));
        }
        // If it is lost, its next use finds out.
        let _ = self.begin_reading(held);
    }

    pub(crate) fn upgrade(&self, held: &mut Held, patience: Patience) -> Result<()> {
        if held.is_apart() {
            return self.upgrade_apart(held, patience);
        }
        let (start, until) = (clock::now(), patience.until());
        self.begin_upgrade(held)?;
        let mut drainer = WriterWait::default();
        loop {
            let waits = patience != Patience::No;
            let ended = match self.look_for_readers(held, &mut drainer, ALONE, waits) {
                Ok(None) => return self.end_upgrade(held),
                Ok(Some(_)) if !waits => Err(LockError::WOULD_BLOCK),
                Ok(Some(_)) if clock::now() >= until => Err(self.timed_out_since(start)),
                Ok(Some(readers)) => self.sleep_for_readers(readers, &mut drainer, until),
                Err(error) => Err(error),
            };
            ended.inspect_err(|_| self.undo_upgrade(held))?;
        }
    }

    pub(crate) async fn upgrade_async(&self, held: &mut Held, patience: Patience) -> Result<()> {
        if held.is_apart() {
            return self.upgrade_apart_async(held, patience).await;
        }
        let (start, until) = (clock::now(), patience.until());
        self.begin_upgrade(held)?;
        let mut drainer = WriterWait::default();
        loop {
            let waits = patience != Patience::No;
            let ended = match self.look_for_readers(held, &mut drainer, ALONE, waits) {
                Ok(None) => return self.end_upgrade(held),
                Ok(Some(_)) if !waits => Err(LockError::WOULD_BLOCK),
                Ok(Some(_)) if clock::now() >= until => Err(self.timed_out_since(start)),
                Ok(Some(readers)) => {
                    self.await_readers(readers, &mut drainer, until).await;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            ended.inspect_err(|_| self.undo_upgrade(held))?;
        }
    }

    /// An upgrade waited for readers all the time.
    fn timed_out_since(&self, start: Time) -> LockError {
        let scope = self.scope().max(self.entry.scope_in_force());
        let error = timed_out_in_front(start, scope).with_name(self.name());
        error.with_holder(self.reader_in_the_way())
    }

    /// Which process reads it, or has permits of it, as far as that is known: another one first,
    /// since the caller knows the guards of its own.
    pub(super) fn reader_in_the_way(&self) -> Option<Holder> {
        // A name that was just widened has readers of the narrower gates, which are waited for.
        #[cfg(feature = "process")]
        if let Some(slot) = self.entry.slot()
            && let Some(sharer) = slot.sharer()
        {
            return Some(sharer);
        }
        (self.entry.shares().counted() > 0).then(|| self.reach.myself())
    }

    /// A writer becomes an upgradable reader.
    pub(crate) fn downgrade_to_upgradable(&self, held: &mut Held) -> Result<()> {
        if self.becomes_reader_apart(held, ReaderMode::Upgradable)? {
            held.set_predecessor(Predecessor::Clean);
            return Ok(());
        }
        if held.has(INSIDE) {
            self.entry.cell.downgrade(short(fork::generation()));
        }
        // What it had to tell is repaired.
        held.set_predecessor(Predecessor::Clean);
        self.begin_reading(held)
    }

    /// A holder of the gate becomes a reader: it adds 1, and then releases the gate.
    pub(crate) fn downgrade(&self, held: &mut Held, how: Predecessor) -> Result<Held> {
        if self.becomes_reader_apart(held, ReaderMode::Shared)? {
            return Ok(held.take());
        }
        let generation = fork::generation();
        if held.has(LEASE) {
            // It stays alone: no shared lease is got without letting a writer in between.
            self.stop_sharing(held);
            return Ok(held.take());
        }
        let added = self.share_under_gate(held)?;
        let shared = Won::new(held.token, held.predecessor(), held.scope(), added, generation);
        self.release(held, how);
        let mut shared = shared.into();
        spans::hold(self, &mut shared);
        Ok(shared)
    }

    /// Comes in as a reader beside the gate that it holds: what it has to give back for that.
    fn share_under_gate(&self, held: &Held) -> Result<u8> {
        #[cfg(feature = "process")]
        if held.has(SLOT)
            && let Some(slot) = self.entry.slot()
        {
            slot.share_beside()?;
            return Ok(SHARED_SLOT);
        }
        if !held.has(THREAD) {
            return Err(self.about(held.scope())(LockError::lost(LostReason::Broken)));
        }
        self.entry.shares().read_under(self.entry.thread());
        Ok(SHARED)
    }
}

#[cfg(feature = "process")]
fn exhausted() -> LockError {
    LockError::new(
        crate::error::LockErrorKind::Refused,
        "its tokens are exhausted: all below 2^63 were granted; choose another name",
    )
}

/// Waits until the future is ready, or until a reader `may_read` beside an upgradable one: then
/// `None`. It looks every so often, and less often later.
pub(super) async fn unless<F: Future>(
    may_read: impl Fn() -> bool,
    mode: LockMode,
    wait: F,
) -> Option<F::Output> {
    if mode != LockMode::Shared {
        return Some(wait.await);
    }
    let mut wait = std::pin::pin!(wait);
    let mut nap = FIRST_LOOK;
    loop {
        let mut sleep = std::pin::pin!(alarm::sleep_until(clock::now() + nap));
        let ended = std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(output) = wait.as_mut().poll(cx) {
                return std::task::Poll::Ready(Some(output));
            }
            sleep.as_mut().poll(cx).map(|()| None)
        });
        match ended.await {
            Some(output) => return Some(output),
            None if may_read() => return None,
            None => nap = (nap * 2).min(LONGEST_NAP),
        }
    }
}

impl Core {
    /// A reader leaves, if that takes no more than to take back its 1; whether it does.
    #[inline]
    pub(crate) fn leave_quietly(&self, held: &mut Held) -> bool {
        match self {
            _ if !held.is_only_shared() => false,
            Core::Plain(plain) => {
                plain.shares.leave(held.share());
                held.forget();
                true
            }
            Core::Named(named) => named.leave_quietly(held),
        }
    }

    /// Comes in in this mode of a lock with readers.
    // Compiled into the caller: a right that comes back through memory takes longer than to win it.
    #[inline(always)]
    pub(crate) fn enter(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        let held = match self.read_quietly(mode) {
            Some(won) => Held::from(won),
            None => self.lock_as(mode, patience)?,
        };
        Ok(held)
    }

    /// The same, blocking no thread.
    pub(crate) async fn enter_async(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        match self.read_quietly(mode) {
            Some(won) => Ok(won.into()),
            None => self.lock_as_async(mode, patience).await,
        }
    }

    #[inline(always)]
    fn read_quietly(&self, mode: LockMode) -> Option<Won> {
        match self {
            _ if mode != LockMode::Shared => None,
            Core::Named(_) if spans::are_wanted() => None,
            Core::Plain(plain) => plain.read_quietly(),
            Core::Named(named) => named.read_quietly(),
        }
    }

    #[inline(never)]
    fn lock_as(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        match self {
            Core::Plain(plain) => plain.lock_as(mode, patience),
            Core::Named(named) => named.lock_as(mode, patience),
        }
    }

    async fn lock_as_async(&self, mode: LockMode, patience: Patience) -> Result<Held> {
        match self {
            Core::Plain(plain) => plain.lock_as_async(mode, patience).await,
            Core::Named(named) => named.lock_as_async(mode, patience).await,
        }
    }

    /// An upgradable reader becomes a writer. Failed, it is what it was.
    pub(crate) fn upgrade(&self, held: &mut Held, patience: Patience) -> Result<()> {
        match self {
            Core::Plain(plain) => plain.upgrade(held, patience),
            Core::Named(named) => named.upgrade(held, patience),
        }
    }

    pub(crate) async fn upgrade_async(&self, held: &mut Held, patience: Patience) -> Result<()> {
        match self {
            Core::Plain(plain) => plain.upgrade_async(held, patience).await,
            Core::Named(named) => named.upgrade_async(held, patience).await,
        }
    }

    pub(crate) fn downgrade_to_upgradable(&self, held: &mut Held) -> Result<()> {
        match self {
            Core::Plain(plain) => {
                plain.downgrade_to_upgradable(held);
                Ok(())
            }
            Core::Named(named) => named.downgrade_to_upgradable(held),
        }
    }

    /// A holder of the gate becomes a reader. Failed, it is what it was.
    pub(crate) fn downgrade(&self, held: &mut Held, how: Predecessor) -> Result<Held> {
        match self {
            Core::Plain(plain) => Ok(plain.downgrade(held, how)),
            Core::Named(named) => named.downgrade(held, how),
        }
    }
}

#[cfg(all(test, feature = "process", not(tierlock_loom)))]
mod tests;
