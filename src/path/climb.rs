//! The slow path: from a mutex to its gate, one step at a time.
//!
//! A climb is one machine with two drivers, one blocking and one async. It asks for one thing at a
//! time ([`Ask`]) and is told what came of it. It touches only what never blocks by itself; dropped
//! before it has arrived, it gives back what it has won and leaves every tier as it was found.
//!
//! ```text
//! begin ─► a try at the slot's word ────────────────────────────────► inside
//!   │          │ taken
//!   └──────────┴─► turnstile ─► slot ─┬─ process scope ─► turnstile released ─► inside
//!                                     └─ host scope ────► lease ─────────────► inside
//! inside: the entry's cell must be empty; else everything goes back, and the climb waits for the
//! guard that is inside.
//! ```

use std::{marker::PhantomData, time::Duration};

#[cfg(any(feature = "host", feature = "testing"))]
use crate::host::link::{self, Lease, Link};
#[cfg(feature = "process")]
use crate::process::{Slot, Taken};
use crate::{
    alarm, clock,
    error::{LockError, Predecessor, Result},
    ground,
    scope::Scope,
    thread,
    time::Time,
    token::Token,
};

use super::{
    Patience,
    named::Named,
    right::{Held, INSIDE, SLOT, THREAD, short},
    take_until_async, timed_out,
};
#[cfg(any(feature = "host", feature = "testing"))]
use super::right::{KEPT, LEASE};

/// A climb under way.
pub(super) struct Climb<'a> {
    named: &'a Named,
    patience: Patience,
    /// The scope it has to reach at least.
    goal: Scope,
    at: At,
    held: Held,
    found: Found,
    /// Another process of the directory has had the name since this one last had it.
    has_moved: bool,
    has_arrived: bool,
}

/// Where a climb stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Begin,
    /// Wins the turnstile, which at thread scope is the gate.
    Turnstile,
    /// Has the turnstile and looks how far it has to go.
    Below,
    Slot,
    Lease,
    /// Has won the gate.
    Gate,
    /// A guard whose right was lost is still inside.
    Cell { looks: u32 },
}

/// How each tier was left by its last holder: what it is left with if the climb ends early.
#[derive(Clone, Copy)]
struct Found {
    thread: Predecessor,
    slot: Predecessor,
    lease: Predecessor,
}

/// What a climb asks its driver for.
enum Ask<'a> {
    /// To wait until the thread lock is won. Answer: [`Climb::turnstile`].
    Turnstile,
    /// To wait until the slot is won. Answer: [`Climb::slot`].
    #[cfg(feature = "process")]
    Slot(&'a Slot),
    /// To wait for the service's answer. Answer: [`Climb::lease`].
    #[cfg(any(feature = "host", feature = "testing"))]
    Lease(&'a std::sync::Arc<Link>, link::Want),
    /// To come again after so long.
    Sleep(Duration),
    /// It has arrived.
    Nothing(PhantomData<&'a ()>),
}

impl<'a> Climb<'a> {
    /// One that reaches `at_least` this scope, and the one that the mutex asks for.
    pub(super) fn new(named: &'a Named, patience: Patience, at_least: Scope) -> Climb<'a> {
        let clean = Predecessor::Clean;
        Climb {
            named,
            patience,
            goal: at_least.max(named.scope()),
            at: At::Begin,
            held: Held::begin(),
            found: Found { thread: clean, slot: clean, lease: clean },
            has_moved: false,
            has_arrived: false,
        }
    }

    /// The blocking driver.
    pub(super) fn run(mut self) -> Result<Held> {
        let (label, until) = (&self.named.reach.label, self.patience.until());
        loop {
            match self.next()? {
                Ask::Turnstile => {
                    let start = clock::now();
                    let won = self.named.entry.thread().take_until(until);
                    self.turnstile(won, start)?;
                }
                #[cfg(feature = "process")]
                Ask::Slot(slot) => self.slot(slot.take(self.above(), label, until))?,
                #[cfg(any(feature = "host", feature = "testing"))]
                Ask::Lease(link, want) => self.lease(link.acquire(want).wait())?,
                Ask::Sleep(nap) => std::thread::sleep(nap),
                Ask::Nothing(_) => return Ok(self.arrive()),
            }
            let _ = label;
        }
    }

    /// The async driver.
    pub(super) async fn run_async(mut self) -> Result<Held> {
        let (label, until) = (&self.named.reach.label, self.patience.until());
        loop {
            match self.next()? {
                Ask::Turnstile => {
                    let start = clock::now();
                    let won = take_until_async(self.named.entry.thread(), until).await;
                    self.turnstile(won, start)?;
                }
                #[cfg(feature = "process")]
                Ask::Slot(slot) => self.slot(slot.take_async(self.above(), label, until).await)?,
                #[cfg(any(feature = "host", feature = "testing"))]
                Ask::Lease(link, want) => self.lease(link.acquire(want).await)?,
                Ask::Sleep(nap) => alarm::sleep_until(clock::now() + nap).await,
                Ask::Nothing(_) => return Ok(self.arrive()),
            }
            let _ = label;
        }
    }

    /// Goes on until there is something to wait for.
    fn next(&mut self) -> Result<Ask<'a>> {
        let named = self.named;
        loop {
            match self.at {
                At::Begin => self.begin()?,
                At::Turnstile if self.patience == Patience::No => {
                    let won = named.entry.thread().try_take().ok_or(LockError::WOULD_BLOCK)?;
                    self.turnstile_won(won);
                }
                At::Turnstile => match named.entry.thread().take_quietly() {
                    Some(won) => self.turnstile_won(won),
                    None => return Ok(Ask::Turnstile),
                },
                At::Below => self.look_up()?,
                #[cfg(feature = "process")]
                At::Slot => {
                    let slot = named.entry.slot().expect("a climb to the slot has one");
                    match self.patience {
                        Patience::No => {
                            match slot.try_take(self.above(), &named.reach.label).transpose() {
                                Some(taken) => self.slot(taken)?,
                                None => return Err(LockError::WOULD_BLOCK),
                            }
                        }
                        _ => return Ok(Ask::Slot(slot)),
                    }
                }
                #[cfg(not(feature = "process"))]
                At::Slot => unreachable!("there are no slots"),
                #[cfg(any(feature = "host", feature = "testing"))]
                At::Lease => match self.enter_kept() {
                    true => self.at = At::Gate,
                    false => return Ok(Ask::Lease(self.link()?, self.want())),
                },
                #[cfg(not(any(feature = "host", feature = "testing")))]
                At::Lease => named.reach.check(Scope::Host)?,
                At::Gate => {
                    if self.enter_cell() {
                        return Ok(Ask::Nothing(PhantomData));
                    }
                    self.go_back();
                    if self.patience == Patience::No {
                        return Err(LockError::WOULD_BLOCK);
                    }
                    self.at = At::Cell { looks: 0 };
                }
                At::Cell { looks } if named.entry.cell.is_occupied(self.generation()) => {
                    self.at = At::Cell { looks: looks + 1 };
                    return self.look_later(looks).map(Ask::Sleep);
                }
                At::Cell { .. } => self.at = At::Turnstile,
            }
        }
    }

    // ---- the steps ---------------------------------------------------------------------------

    /// A try at the slot's word where that is the gate: any thread may make it, turnstile or not.
    fn begin(&mut self) -> Result<()> {
        self.at = At::Turnstile;
        #[cfg(feature = "process")]
        if self.goal <= Scope::Process
            && self.named.entry.scope_in_force() == Scope::Process
            && let Some(slot) = self.named.entry.slot()
            && slot.is_gate()
        {
            self.goal = Scope::Process;
            self.named.check_open(Scope::Process)?;
            match slot.try_take(Token::ZERO, &self.named.reach.label) {
                Ok(None) if self.patience == Patience::No => return Err(LockError::WOULD_BLOCK),
                Ok(None) => {}
                Ok(Some(taken)) if taken.widened_by.is_none() => self.slot(Ok(taken))?,
                // Host scope is reached through the turnstile.
                Ok(Some(taken)) => slot.release(taken.predecessor),
                Err(error) => self.slot(Err(error))?,
            }
        }
        Ok(())
    }

    /// What came of the wait for the turnstile.
    fn turnstile(&mut self, won: Option<thread::Taken>, start: Time) -> Result<()> {
        match won {
            Some(won) => self.turnstile_won(won),
            None => return Err(self.held_here(start)),
        }
        Ok(())
    }

    fn turnstile_won(&mut self, won: thread::Taken) {
        self.held.add(THREAD);
        self.held.token = won.token;
        self.found.thread = won.predecessor;
        self.held.set_predecessor(won.predecessor);
        self.at = At::Below;
    }

    /// The scope in force may have grown while it waited: it shows now.
    fn look_up(&mut self) -> Result<()> {
        self.goal = self.goal.max(self.named.entry.scope_in_force());
        self.at = At::Gate;
        if self.goal > Scope::Thread {
            self.named.check_open(self.goal)?;
            self.held.set_scope(Scope::Process.min(self.goal));
            if self.goal == Scope::Host {
                self.at = At::Lease;
            }
            #[cfg(feature = "process")]
            if self.named.entry.slot().is_some() {
                self.at = At::Slot;
            }
        }
        Ok(())
    }

    #[cfg(feature = "process")]
    fn slot(&mut self, taken: Result<Taken>) -> Result<()> {
        let named = self.named;
        let about = |error: LockError| error.with_name(named.name()).with_scope(Scope::Process);
        let taken = taken.map_err(about)?;
        self.held.add(SLOT);
        self.found.slot = taken.predecessor;
        self.has_moved = taken.token > self.held.token;
        self.held.token = taken.token;
        self.held.set_scope(Scope::Process);
        self.tell(taken.predecessor);
        if let Some(by) = &taken.widened_by {
            if !named.reach.has_leader() {
                return Err(LockError::config(format!(
                    "it is locked at host scope by {by}, and this manager has no leaders: give it \
                     the same leaders"
                ))
                .with_name(named.name())
                .with_scope(Scope::Process));
            }
            self.goal = Scope::Host;
        }
        if self.held.has(THREAD) {
            named.entry.thread().raise_token(taken.token);
        }
        self.at = if self.goal == Scope::Host { At::Lease } else { At::Gate };
        Ok(())
    }

    /// At most one guard of a name is inside in this process, also after its right was lost.
    fn enter_cell(&mut self) -> bool {
        if self.held.scope() == Scope::Thread {
            return true; // a name that is widened is drained under the thread lock
        }
        let is_free = self.named.entry.cell.enter(self.generation());
        if is_free {
            self.held.add(INSIDE);
        }
        is_free
    }

    /// How long to wait before the next look at the cell: 3 to 100 ms, and not past the time.
    fn look_later(&self, looks: u32) -> Result<Duration> {
        let left = self.patience.until().since(clock::now());
        if left.is_zero() {
            return Err(self.held_here(clock::now()));
        }
        Ok(Duration::from_millis(3 << looks.min(5)).min(CELL_LOOK_MAX).min(left))
    }

    // ---- host scope --------------------------------------------------------------------------

    #[cfg(any(feature = "host", feature = "testing"))]
    fn want(&self) -> link::Want {
        let for_good = self.named.keep == super::Keep::Always;
        // Whoever waits here gets it next, and without the leader: that is keeping, too.
        let has_next = self.named.entry.thread().has_waiters();
        link::Want {
            name: self.named.name().clone(),
            at_most: self.named.at_most,
            keep: self.named.kept.clone().filter(|kept| kept.is_wanted(for_good) || has_next),
            above: self.above(),
            has_moved: self.has_moved,
            patience: match self.patience {
                Patience::No => link::Patience::No,
                patience => link::Patience::Until(patience.until()),
            },
        }
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn link(&self) -> Result<&'a std::sync::Arc<Link>> {
        self.named.reach.link().map_err(|error| error.with_name(self.named.name()))
    }

    /// Takes the next token of a lease that was kept; whether there was one that is good.
    #[cfg(any(feature = "host", feature = "testing"))]
    fn enter_kept(&mut self) -> bool {
        let named = self.named;
        let (Some(kept), Some(link)) = (&named.kept, &named.reach.link) else { return false };
        if link.is_forked() {
            return false;
        }
        let deadline = link.deadline();
        let entered = kept.idle().and_then(|seen| kept.enter_as_seen(seen, self.held.token));
        let entered = entered.filter(|entered| {
            let is_good = kept.is_good(link.deadline().min(deadline), clock::now());
            if !is_good {
                link.give_back(kept, &kept.leave_for_good(entered.predecessor));
            }
            is_good
        });
        let Some(entered) = entered else {
            if let Some(used) = kept.take_idle() {
                // It has no token for this holder any more.
                link.give_back(kept, &used);
            }
            return false;
        };
        if entered.is_running_short {
            link.top_up(kept);
        }
        self.held.add(KEPT);
        self.held.set_scope(Scope::Host);
        self.found.lease = entered.predecessor;
        self.tell(entered.predecessor);
        if entered.token != self.held.token {
            self.held.token = entered.token;
            named.entry.thread().raise_token(entered.token);
            named.entry.raise_slot(entered.token);
        }
        true
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn lease(&mut self, lease: Result<Lease>) -> Result<()> {
        let named = self.named;
        let lease = lease.map_err(|error| error.with_name(named.name()).with_scope(Scope::Host))?;
        if let Some(kept) = &named.kept {
            kept.granted(lease.had_to_queue);
        }
        self.found.lease = lease.predecessor;
        self.held.token = lease.token;
        self.held.set_scope(Scope::Host);
        self.tell(lease.predecessor);
        if lease.may_be_kept {
            self.held.add(KEPT);
        } else {
            self.held.add(LEASE);
            let more = self.held.more_mut();
            more.lease = Some(lease.id);
            more.watch = Some(lease.watch);
        }
        named.entry.thread().raise_token(lease.token);
        #[cfg(feature = "process")]
        if let Some(slot) = named.entry.slot() {
            slot.raise_token(lease.token);
            slot.widen(&named.reach.described());
        }
        self.at = At::Gate;
        Ok(())
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Inside: raises the scope in force, starts the terms, hands over the right.
    fn arrive(mut self) -> Held {
        let (named, held) = (self.named, &mut self.held);
        if held.scope() > Scope::Thread {
            named.entry.raise_scope(held.scope());
        }
        if held.scope() == Scope::Process && held.has(SLOT) && self.is_gate_slot() {
            // From now on the thread lock is a turnstile. What it had to tell is told.
            if self.held.remove(THREAD) {
                named.entry.thread().release(Predecessor::Clean);
            }
        }
        if named.has_terms {
            named.start_terms(&mut self.held);
        }
        self.has_arrived = true;
        self.held.take()
    }

    fn is_gate_slot(&self) -> bool {
        #[cfg(feature = "process")]
        return self.named.entry.slot().is_some_and(Slot::is_gate);
        #[cfg(not(feature = "process"))]
        false
    }

    /// Gives everything back as it was found.
    fn go_back(&mut self) {
        let named = self.named;
        #[cfg(any(feature = "host", feature = "testing"))]
        if self.held.remove(KEPT)
            && let (Some(kept), Some(link)) = (&named.kept, &named.reach.link)
            && let Some(used) = kept.leave(self.found.lease)
        {
            link.give_back(kept, &used);
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if self.held.remove(LEASE)
            && let Some(link) = &named.reach.link
            && let Some(lease) = self.held.more_mut().lease.take()
        {
            link.release(lease, self.held.token, self.found.lease);
        }
        #[cfg(feature = "process")]
        if self.held.remove(SLOT)
            && let Some(slot) = named.entry.slot()
        {
            slot.release(self.found.slot);
        }
        if self.held.remove(THREAD) {
            named.entry.thread().release(self.found.thread);
        }
    }

    // ---- small things ------------------------------------------------------------------------

    /// The highest token known below the one that was just counted here.
    fn above(&self) -> Token {
        Token::new(self.held.token.get().saturating_sub(1)).unwrap_or(Token::ZERO)
    }

    /// Tells how the previous holder left: the widest tier that has something to tell tells it.
    fn tell(&mut self, predecessor: Predecessor) {
        if predecessor != Predecessor::Clean {
            self.held.set_predecessor(predecessor);
        }
    }

    fn generation(&self) -> u32 {
        short(ground::generation())
    }

    /// It timed out in this process: a thread or task of it holds the lock, or waits for the holder
    /// in another process.
    fn held_here(&self, start: Time) -> LockError {
        let named = self.named;
        let error = timed_out(start, named.scope()).with_name(named.name());
        #[cfg(feature = "process")]
        let error = error.with_holder(named.entry.slot().and_then(Slot::holder));
        error.with_holder(Some(named.reach.myself()))
    }
}

/// The longest pause between two looks at the cell.
const CELL_LOOK_MAX: Duration = Duration::from_millis(100);

impl Drop for Climb<'_> {
    fn drop(&mut self) {
        // A fork's copy of its parent's climb gives nothing back.
        if !self.has_arrived && !self.held.is_forked() {
            self.go_back();
            drop(self.held.take_more());
        }
    }
}
