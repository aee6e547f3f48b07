//! The slow path: from a mutex to its gate, one step at a time.
//!
//! A climb is one machine with two drivers, one blocking and one async. It asks for one thing at a
//! time ([`Ask`]) and is told what came of it. It touches only what never blocks by itself; dropped
//! before it has arrived, it gives back what it has won and leaves every tier as it was found.
//!
//! ```text
//! begin ─► a try at the slot's word ──────────────────────────────────────► inside
//!   │          │ taken
//!   └──────────┴─► turnstile ─┬─ thread scope ────────────────────────────► inside
//!                             ├─ process scope ─► slot, turnstile released ─► inside
//!                             └─ host scope ─► lease word ─┬─ open ─► turnstile released ─► inside
//!                                   ▲   ▲                  ├─ in use: waits ─┐
//!                                   │   └──────────────────┼─────────────────┘
//!                                   │                      └─ closed: slot, then asks the service
//!                                   └──────────────────────────────┘
//! inside: the entry's cell must be free; else everything goes back, and the climb waits for the
//! guard that is inside. A writer then waits until no reader is inside; a reader adds its 1, and gives
//! the gate back as it was found; so does a taker of permits, once there are enough.
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use super::ground::Entry;
use crate::{
    alarm, clock,
    error::{LockError, LostReason, Predecessor, Result},
    fork,
    host::{
        lease_word::{Claim, Entered, LeaseWord},
        service::{LeaseGranted, LeasePatience, LeaseRequest, PendingLease, Settlement},
    },
    mode::Room,
    scope::Scope,
    thread::{InFront, Seat, WaitingWriter},
    time::Time,
    token::Token,
};
#[cfg(feature = "process")]
use crate::{
    host::service::Settle,
    process::{Slot, Taken},
};

use super::{
    LockMode, Patience, Permits, by,
    lapse::GateTurn,
    named::{Keep, Named},
    permits::{past_others, permits_at_host_scope},
    quiet::HostTier,
    right::{Held, INSIDE, LEASE, SHARED, SHARED_LEASE, SHARED_SLOT, SLOT, THREAD, short},
    sharing::{ReadersInside, WriterWait, unless},
    timed_out, wait_until_async,
};

/// A climb under way.
pub(super) struct Climb<'a> {
    named: &'a Named,
    patience: Patience,
    mode: LockMode,
    /// The scope it has to reach at least.
    goal: Scope,
    at: At,
    held: Held,
    /// How the thread lock and the slot were left by their last holders: what they are left with if
    /// the climb ends early.
    found_thread: Predecessor,
    found_slot: Predecessor,
    /// The highest token that this machine knows for the name.
    known: Token,
    /// Since when it has waited, at the turnstile or in front.
    since: Option<Time>,
    /// A task's seat while it waits at the gate: its turn lapses if it is woken and not polled.
    seat: Option<Seat>,
    /// A lease was granted: what the slot had to tell is this climb's to pass on.
    has_grant: bool,
    /// So many leases were over, by `at_most`, before they could be claimed.
    lates: u32,
    /// It was the first to lock the name at its scope in this process: what was locked more narrowly
    /// is waited for.
    widens: bool,
    /// The mark of host scope is set, and no reader is inside any more that came before it.
    is_wide: bool,
    drainer: WriterWait,
    /// A task's turn while it waits for readers.
    turn: Option<Arc<GateTurn>>,
    /// What the slot gave, to be shared.
    #[cfg(feature = "process")]
    taken: Option<Taken>,
    /// While it waits, it waits to be a writer.
    writer: Option<WaitingWriter<'a>>,
    /// It holds the gate and waits for permits.
    front: Option<InFront<'a>>,
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
    /// Looks at the lease word.
    Word,
    /// Has won the gate.
    Gate,
    /// A guard that lost its right is still inside.
    Cell {
        looks: u32,
    },
    /// Has the gate, and waits for readers.
    Readers,
    /// Has set the mark of host scope, and waits for readers that came before it.
    Widened {
        has_moved: bool,
    },
    /// Came in beside an upgradable reader.
    Inside,
}

/// What a climb asks its driver for.
enum Ask<'a> {
    /// To wait until the thread lock is won. Answer: [`Climb::turnstile`].
    Turnstile,
    /// To wait until the slot is won. Answer: [`Climb::slot`].
    #[cfg(feature = "process")]
    Slot(&'a Slot),
    /// To wait for the service's answer. Answer: [`Climb::answered`].
    Lease(Box<dyn PendingLease>),
    /// To wait until the lease word changes.
    Word(WordWait<'a>),
    /// To wait until readers may be gone.
    Readers(ReadersInside),
    /// To come again after so long.
    Sleep(Duration),
    /// Nothing: it has arrived.
    Nothing,
}

/// A wait at a lease word that is in use.
struct WordWait<'a> {
    word: &'a LeaseWord,
    is_hungry: bool,
    until: Time,
}

impl<'a> Climb<'a> {
    /// One that reaches `at_least` this scope, and the one that the mutex asks for.
    pub(super) fn new(
        named: &'a Named,
        patience: Patience,
        at_least: Scope,
        mode: LockMode,
    ) -> Climb<'a> {
        Climb {
            named,
            patience,
            mode,
            goal: at_least.max(named.scope()),
            at: At::Begin,
            held: Held::begin(),
            found_thread: Predecessor::Clean,
            found_slot: Predecessor::Clean,
            known: Token::ZERO,
            since: None,
            seat: None,
            has_grant: false,
            lates: 0,
            widens: false,
            is_wide: false,
            drainer: WriterWait::default(),
            turn: None,
            #[cfg(feature = "process")]
            taken: None,
            writer: None,
            front: None,
            has_arrived: false,
        }
    }

    /// The blocking driver.
    pub(super) fn run(mut self) -> Result<Held> {
        let until = self.patience.until();
        loop {
            match self.next()? {
                Ask::Turnstile => {
                    let is_over = || self.named.is_over(self.goal) || self.may_read_beside();
                    let is_won = self.named.entry.thread().wait(until, is_over);
                    self.turnstile(is_won)?;
                }
                #[cfg(feature = "process")]
                Ask::Slot(slot) => {
                    let is_over = || self.named.reach.is_closed() || self.may_read_beside();
                    let (known, label) = (self.known, self.label());
                    let shares = self.mode.shares();
                    let taken = slot.take_unless(known, label, until, &is_over, shares);
                    self.slot(taken)?;
                }
                Ask::Lease(request) => self.answered(request.wait())?,
                Ask::Word(wait) => wait.word.sleep(wait.is_hungry, wait.until),
                Ask::Readers(readers) => {
                    self.named.sleep_for_readers(readers, &mut self.drainer, until)?;
                }
                Ask::Sleep(nap) => std::thread::sleep(nap),
                Ask::Nothing => return Ok(self.arrive()),
            }
        }
    }

    /// The async driver.
    pub(super) async fn run_async(mut self) -> Result<Held> {
        let (entry, until) = (&self.named.entry, self.patience.until());
        loop {
            let ask = self.next()?;
            match ask {
                Ask::Turnstile => {
                    let (named, mode) = (self.named, self.mode);
                    let wait = wait_until_async(entry.thread(), until);
                    let may_read = || named.may_read_beside();
                    match unless(may_read, mode, wait).await {
                        Some(is_won) => self.turnstile(is_won)?,
                        None => self.begin_again(),
                    }
                }
                #[cfg(feature = "process")]
                Ask::Slot(slot) => {
                    let (named, mode) = (self.named, self.mode);
                    let (known, label) = (self.known, self.label());
                    let wait = async move {
                        let wait = slot.take_async(known, label, until, mode.shares());
                        unless(|| named.may_read_beside(), mode, wait).await
                    };
                    match Seated::new(entry, self.sit_down(), wait).await {
                        Some(Some(taken)) => self.slot(taken)?,
                        Some(None) => self.begin_again(),
                        None => self.come_back().await?,
                    }
                }
                Ask::Lease(request) => match Seated::new(entry, self.sit_down(), request).await {
                    Some(granted) => self.answered(granted)?,
                    None => self.come_back().await?,
                },
                Ask::Word(wait) => {
                    if Seated::new(entry, self.sit_down(), wait.sleep_async()).await.is_none() {
                        self.come_back().await?;
                    }
                }
                Ask::Readers(readers) => {
                    let turn = self.turn();
                    let still_its = {
                        let wait = self.named.await_readers(readers, &mut self.drainer, until);
                        let mut wait = std::pin::pin!(wait);
                        let polled = |cx: &mut Context<'_>| match turn.is_polled() {
                            true => wait.as_mut().poll(cx).map(|()| true),
                            false => Poll::Ready(false),
                        };
                        std::future::poll_fn(polled).await
                    };
                    if !still_its {
                        self.has_lapsed();
                    }
                }
                Ask::Sleep(nap) => alarm::sleep_until(clock::now() + nap).await,
                Ask::Nothing => return Ok(self.arrive()),
            }
        }
    }

    /// Whether it is a reader that need not wait any more.
    fn may_read_beside(&self) -> bool {
        self.mode == LockMode::Shared && self.named.may_read_beside()
    }

    /// Whether it is a reader that stopped waiting in order to look again, before its time was
    /// over.
    fn looks_again(&self) -> bool {
        self.mode == LockMode::Shared && clock::now() < self.patience.until()
    }

    /// A task's turn at the gate, which lapses if it is not polled.
    fn turn(&mut self) -> Arc<GateTurn> {
        let new = || GateTurn::begin(self.named, &self.held, self.found_slot, self.found_thread);
        self.turn.get_or_insert_with(new).clone()
    }

    /// Its turn is over, and the gate was given back for it: it begins anew.
    fn has_lapsed(&mut self) {
        self.turn = None;
        self.front = None;
        self.held.forget();
        self.drainer = WriterWait::default();
        self.get_up();
        self.at = At::Begin;
    }

    /// Whether it has what it won. Its turn does not lapse from now on.
    fn end_turn(&mut self) -> bool {
        self.turn.take().is_none_or(|turn| turn.end())
    }

    /// It leaves where it waits, and comes in past that.
    fn begin_again(&mut self) {
        self.get_up();
        if self.held.remove(THREAD) {
            self.named.entry.thread().release(self.found_thread);
        }
        self.at = At::Begin;
    }

    fn sit_down(&mut self) -> Seat {
        *self.seat.get_or_insert_with(|| self.named.entry.thread().sit_down())
    }

    /// Its turn has lapsed: it waits for the turnstile again, at the head.
    async fn come_back(&mut self) -> Result<()> {
        let seat = self.seat.take().expect("only a task in its seat has a turn that lapses");
        self.held.remove(THREAD);
        let wait = self.named.entry.thread().come_back(seat);
        let is_won = by(self.patience.until(), wait).await;
        self.turnstile(is_won)
    }

    /// Waits no longer, and finds out whether its turn has lapsed.
    fn get_up(&mut self) {
        if let Some(seat) = self.seat.take()
            && !self.named.entry.thread().get_up(seat)
        {
            self.held.remove(THREAD);
        }
    }

    /// Goes on until there is something to wait for.
    fn next(&mut self) -> Result<Ask<'a>> {
        let named = self.named;
        loop {
            match self.at {
                At::Begin => {
                    if self.mode == LockMode::Shared && self.read_beside() {
                        self.at = At::Inside;
                    } else {
                        self.begin()?;
                    }
                }
                At::Inside => return Ok(Ask::Nothing),
                At::Turnstile if named.entry.thread().win_quietly() => self.turnstile(true)?,
                At::Turnstile if self.patience == Patience::No => {
                    if !self.try_turnstile() {
                        return Err(LockError::WOULD_BLOCK);
                    }
                    self.turnstile(true)?;
                }
                At::Turnstile => {
                    self.since.get_or_insert_with(clock::now);
                    if self.mode == LockMode::Exclusive && self.writer.is_none() {
                        self.writer = Some(named.entry.shares().count_writer());
                    }
                    return Ok(Ask::Turnstile);
                }
                At::Below => self.look_up()?,
                #[cfg(feature = "process")]
                At::Slot => {
                    let slot = named.entry.slot().expect("a climb to the slot has one");
                    if self.patience != Patience::No {
                        return Ok(Ask::Slot(slot));
                    }
                    match self.try_slot(slot, self.known).transpose() {
                        Some(taken) => self.slot(taken)?,
                        None => return Err(LockError::WOULD_BLOCK),
                    }
                }
                #[cfg(not(feature = "process"))]
                At::Slot => unreachable!("there are no slots"),
                At::Word => {
                    if let Some(ask) = self.look_at_word()? {
                        return Ok(ask);
                    }
                }
                At::Gate => {
                    if self.enter_cell() {
                        self.enter_gate();
                        continue;
                    }
                    self.go_back();
                    if self.patience == Patience::No {
                        return Err(LockError::WOULD_BLOCK);
                    }
                    self.at = At::Cell { looks: 0 };
                }
                At::Cell { looks } if self.is_cell_taken() => {
                    self.at = At::Cell { looks: looks + 1 };
                    return self.look_later(looks).map(Ask::Sleep);
                }
                At::Cell { .. } => self.at = At::Turnstile,
                At::Readers => match self.look_for_readers()? {
                    Some(ask) => return Ok(ask),
                    None if !self.end_turn() => self.has_lapsed(),
                    None => {
                        self.come_in()?;
                        return Ok(Ask::Nothing);
                    }
                },
                At::Widened { has_moved } => match self.look_for_readers()? {
                    Some(ask) => return Ok(ask),
                    None if !self.end_turn() => self.has_lapsed(),
                    None => {
                        self.is_wide = true;
                        let tier = named.host_tier().expect("it was looked at");
                        return self.ask(tier, has_moved).map(Ask::Lease);
                    }
                },
            }
        }
    }

    // ---- readers -----------------------------------------------------------------------------

    /// Comes in past the gate and past waiters, where an upgradable reader has it.
    fn read_beside(&mut self) -> bool {
        let held = self.named.read_beside();
        let is_in = held.is_some();
        if let Some(held) = held {
            self.held = held;
        }
        is_in
    }

    /// Whether a guard is inside that this one cannot stand beside.
    fn is_cell_taken(&self) -> bool {
        let entry = &self.named.entry;
        let is_readable = self.mode != LockMode::Shared && entry.shares().is_readable();
        is_readable || entry.cell.is_occupied(self.generation())
    }

    /// Has won the gate. The scope in force is what it is now, before readers are looked for.
    fn enter_gate(&mut self) {
        let (entry, scope) = (&self.named.entry, self.held.scope());
        self.writer = None;
        self.step_out();
        self.widens = scope > entry.scope_in_force();
        if scope > Scope::Thread {
            entry.raise_scope(scope);
        }
        self.at = At::Readers;
    }

    /// What to wait for while readers are inside.
    fn look_for_readers(&mut self) -> Result<Option<Ask<'a>>> {
        let named = self.named;
        let is_widening = matches!(self.at, At::Widened { .. });
        // Readers of the same gate stand beside readers.
        if self.mode.shares() && !self.widens && !is_widening {
            return Ok(None);
        }
        let about = named.about(self.held.scope());
        let (rooms, waits) = (self.rooms(), self.patience != Patience::No);
        let looked = named.look_for_readers(&self.held, &mut self.drainer, rooms, waits);
        let Some(readers) = looked.map_err(about)? else { return Ok(None) };
        if !waits {
            return Err(LockError::WOULD_BLOCK);
        }
        if named.is_over(self.goal) {
            return Err(named.closed());
        }
        if clock::now() >= self.patience.until() {
            return Err(self.held_here());
        }
        if let LockMode::Permits(_) = self.mode {
            self.front.get_or_insert_with(|| named.entry.shares().stand_in_front());
        }
        Ok(Some(Ask::Readers(readers)))
    }

    /// No reader is in its way any more.
    fn come_in(&mut self) -> Result<()> {
        let named = self.named;
        match self.mode {
            LockMode::Exclusive => {
                if self.held.has(THREAD) && !self.held.has(SLOT) && !self.held.has(LEASE) {
                    named.entry.thread().has_no_readers();
                }
                Ok(())
            }
            LockMode::Upgradable => named.begin_reading(&mut self.held),
            LockMode::Shared => self.come_in_as_reader(),
            LockMode::Permits(permits) => self.come_in_with(permits),
        }
    }

    /// Adds its 1, and gives the gate back as it was found.
    fn come_in_as_reader(&mut self) -> Result<()> {
        if self.held.has(SHARED_LEASE) {
            return Ok(());
        }
        #[cfg(feature = "process")]
        if self.held.has(SLOT)
            && let Some(slot) = self.named.entry.slot()
            && let Some(taken) = &self.taken
        {
            self.held.token = slot.read_under_the_word(taken, self.widens)?;
            self.held.add(SHARED_SLOT);
            self.release_slot();
        }
        if !self.held.has(SHARED_SLOT) {
            self.named.entry.shares().read_under(self.named.entry.thread());
            self.held.token = self.named.entry.thread().last_token();
            self.held.add(SHARED);
        }
        self.get_up();
        if self.held.remove(THREAD) {
            self.named.entry.thread().release(self.found_thread);
        }
        Ok(())
    }

    /// What it waits for once it has the gate: here, and among the processes. A name that is widened is
    /// left by all that came in at the narrower gate; beside readers of its own gate a reader stands.
    fn rooms(&self) -> (Room, Option<Room>) {
        if matches!(self.at, At::Widened { .. }) {
            return (Room::Alone, Some(Room::Alone));
        }
        let among_processes = (!self.mode.shares()).then(|| self.mode.room());
        match self.widens || self.held.has(SLOT) {
            true => (Room::Alone, among_processes),
            false => (self.mode.room(), among_processes),
        }
    }

    /// Leaves the turnstile, where that is no gate and has nothing to tell: others of this process
    /// take their places at the gate while this one, which has that, waits for room.
    fn step_out(&mut self) {
        let is_turnstile = self.held.scope() == Scope::Process
            && self.named.entry.scope_in_force() == Scope::Process
            && self.held.has(SLOT)
            && self.is_gate_slot()
            && self.found_thread == Predecessor::Clean;
        if is_turnstile {
            self.get_up();
            if self.held.remove(THREAD) {
                self.named.entry.thread().release(Predecessor::Clean);
            }
        }
    }

    /// Counts its permits, and gives the gate back.
    fn come_in_with(&mut self, permits: Permits) -> Result<()> {
        self.named.count_permits(&mut self.held, permits.count)?;
        self.front = None;
        self.release_slot();
        self.get_up();
        if self.held.remove(THREAD) {
            self.named.entry.thread().release(self.found_thread);
        }
        Ok(())
    }

    /// A try at the thread lock.
    fn try_turnstile(&self) -> bool {
        let (thread, shares) = (self.named.entry.thread(), self.named.entry.shares());
        match self.mode {
            LockMode::Permits(_) => past_others(|| thread.try_win(), || shares.is_draining()),
            _ => thread.try_win(),
        }
    }

    /// A try at the slot.
    #[cfg(feature = "process")]
    fn try_slot(&self, slot: &Slot, known: Token) -> Result<Option<Taken>> {
        let take = || slot.try_take(known, self.label()).transpose();
        match self.mode {
            LockMode::Permits(_) => past_others(take, || slot.is_draining()),
            _ => take(),
        }
        .transpose()
    }

    // ---- to the gate -------------------------------------------------------------------------

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
            self.held.set_scope(Scope::Process);
            self.named.check_open(Scope::Process)?;
            match self.try_slot(slot, Token::ZERO) {
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
    fn turnstile(&mut self, is_won: bool) -> Result<()> {
        if !is_won && self.looks_again() && !self.named.is_over(self.goal) {
            self.begin_again();
            return Ok(());
        }
        if !is_won {
            return Err(match self.named.is_over(self.goal) {
                true => self.named.closed(),
                false => self.held_here(),
            });
        }
        self.held.add(THREAD);
        self.at = At::Below;
        Ok(())
    }

    /// The scope in force may have grown while it waited: it shows now.
    fn look_up(&mut self) -> Result<()> {
        let entry = &self.named.entry;
        self.goal = self.goal.max(entry.scope_in_force());
        if self.goal > Scope::Thread {
            self.named.check_open(self.goal)?;
        }
        self.check_mode()?;
        self.found_thread = self.found(entry.thread().predecessor());
        self.tell(self.found_thread);
        self.known = entry.thread().last_token().max(entry.highest_token());
        self.held.set_scope(Scope::Process.min(self.goal));
        self.at = match self.goal {
            // Without a service it is the slot that tells which process widened the name.
            Scope::Host if self.named.reach.has_leader() || !self.named.entry.has_slot() => {
                At::Word
            }
            Scope::Host | Scope::Process if self.named.entry.has_slot() => At::Slot,
            _ => {
                // The thread lock is the gate. A reader counts no token.
                self.held.token = match self.mode {
                    LockMode::Shared => entry.thread().last_token(),
                    _ => entry.thread().count().token,
                };
                At::Gate
            }
        };
        Ok(())
    }

    #[cfg(feature = "process")]
    fn slot(&mut self, taken: Result<Taken>) -> Result<()> {
        let named = self.named;
        let about = named.about(Scope::Process);
        let is_timeout = taken.as_ref().is_err_and(LockError::is_timeout);
        if is_timeout && self.looks_again() && !named.reach.is_closed() {
            self.begin_again();
            return Ok(());
        }
        let taken = taken.map_err(|error| match error.is_timeout() && named.reach.is_closed() {
            true => named.closed(),
            false => about(error),
        })?;
        self.held.add(SLOT);
        self.found_slot = self.found(taken.predecessor);
        self.tell(self.found_slot);
        self.held.token = taken.token;
        if let Some(by) = &taken.widened_by {
            if !named.reach.has_leader() {
                return Err(about(LockError::config(format!(
                    "it is locked at host scope by {by}, and this manager has no leaders: give it \
                     the same leaders"
                ))));
            }
            self.goal = Scope::Host;
        }
        self.taken = Some(taken);
        self.at = if self.goal == Scope::Host { At::Word } else { At::Gate };
        Ok(())
    }

    /// No permits are asked of a leader yet.
    fn check_mode(&self) -> Result<()> {
        match self.mode {
            LockMode::Permits(_) if self.goal >= Scope::Host => {
                Err(self.named.about(Scope::Host)(permits_at_host_scope()))
            }
            _ => Ok(()),
        }
    }

    /// How a gate was left. What a holder of permits does is told to none: they stand for no data.
    fn found(&self, left: Predecessor) -> Predecessor {
        match self.mode {
            LockMode::Permits(_) => Predecessor::Clean,
            _ => left,
        }
    }

    /// At most one guard of a name is inside in this process, also after its right was lost, but for
    /// readers beside each other.
    fn enter_cell(&mut self) -> bool {
        if self.held.scope() == Scope::Thread {
            return true; // a name is widened under the thread lock, which this one has
        }
        if self.mode != LockMode::Exclusive || self.is_cell_taken() {
            return !self.is_cell_taken();
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
            return Err(self.held_here());
        }
        Ok(Duration::from_millis(3 << looks.min(5)).min(CELL_LOOK_MAX).min(left))
    }

    // ---- host scope --------------------------------------------------------------------------

    /// What to do about the lease word: to enter it, to wait at it, or to ask for a lease.
    fn look_at_word(&mut self) -> Result<Option<Ask<'a>>> {
        let named = self.named;
        let about = named.about(Scope::Host);
        let service = named.reach.service().map_err(&about)?;
        let is_reader = self.mode == LockMode::Shared;
        if is_reader && !service.shares() {
            return Err(about(shared_at_host_scope()));
        }
        let Some(tier) = named.host_tier() else {
            return Err(about(LockError::config(
                "this manager was opened before a fork; open another one in the child",
            )));
        };
        let is_of_use = tier.word.is_shared() == is_reader;
        if !is_of_use && let Some(used) = tier.word.refuse_reserved() {
            tier.give_back(&used);
        }
        if (!is_of_use || !named.enters_kept())
            && let Some(used) = service.close_idle(tier.word)
        {
            tier.give_back(&used);
        }
        let claim = match is_reader {
            true => tier.word.claim_shared(named.enters_kept()),
            false => tier.word.claim(),
        };
        match claim {
            Claim::Entered(Entered { token, predecessor, .. }) if is_reader => {
                self.release_slot();
                if let Some((token, predecessor)) = tier.check_shared(token, predecessor) {
                    self.held.add(SHARED_LEASE);
                    self.held.set_scope(Scope::Host);
                    self.held.token = token;
                    self.tell(predecessor);
                    self.at = At::Gate;
                }
            }
            Claim::Entered(entered) => {
                // A process of the directory may have it now; the service excludes it.
                self.release_slot();
                if let Some((token, predecessor)) = tier.check(entered) {
                    self.held.add(LEASE);
                    self.held.set_scope(Scope::Host);
                    self.held.token = token;
                    self.tell(predecessor);
                    self.at = At::Gate;
                }
            }
            Claim::UsedUp(used) => tier.give_back(&used),
            Claim::Held if self.patience == Patience::No => return Err(LockError::WOULD_BLOCK),
            Claim::Held => {
                self.release_slot();
                return self.wait_at(tier.word).map(Some);
            }
            Claim::Closed(Some(LostReason::HeldTooLong)) if self.lates == LATES_MAX => {
                // `at_most` is so short that the next lease would be over again.
                return Err(about(LockError::lost(LostReason::HeldTooLong)));
            }
            Claim::Closed(_) if self.named.entry.has_slot() && !self.held.has(SLOT) => {
                self.at = At::Slot
            }
            Claim::Closed(why) => {
                self.lates += u32::from(why == Some(LostReason::HeldTooLong));
                let has_moved = self.widen_slot()?;
                named.entry.raise_scope(Scope::Host);
                if !self.is_wide {
                    self.at = At::Widened { has_moved };
                    return Ok(None);
                }
                return self.ask(tier, has_moved).map(|request| Some(Ask::Lease(request)));
            }
        }
        Ok(None)
    }

    /// Waits at a word that is in use, as the representative. After 1 ms the word is handed to it.
    fn wait_at(&mut self, word: &'a LeaseWord) -> Result<Ask<'a>> {
        let now = clock::now();
        let until = self.patience.until();
        if now >= until {
            return Err(self.held_here());
        }
        let hungry_at = *self.since.get_or_insert(now) + IMPATIENCE;
        let is_hungry = now >= hungry_at;
        let until = if is_hungry { until } else { until.min(hungry_at) };
        Ok(Ask::Word(WordWait { word, is_hungry, until: until.min(now + NAP_MAX) }))
    }

    /// Asks for a lease, after the name was marked as wide, in the directory and in this process.
    /// Whatever comes of it, the slot is released with it.
    fn ask(&mut self, tier: HostTier<'a>, has_moved: bool) -> Result<Box<dyn PendingLease>> {
        let named = self.named;
        self.at = At::Word;
        let for_good = named.keep == Keep::Always;
        // Threads that wait here get it next, and without the leader: that is keeping, too.
        let is_wanted = || tier.word.is_wanted(for_good) || named.entry.thread().has_waiters();
        let settlement = self.settlement();
        Ok(tier.service.clone().ask(LeaseRequest {
            name: named.name().clone(),
            at_most: named.at_most,
            at_least: named.at_least,
            keep: named.enters_kept() && (self.mode == LockMode::Shared || is_wanted()),
            word: tier.word.clone(),
            is_in_use: false,
            is_shared: self.mode == LockMode::Shared,
            above: self.known,
            has_moved,
            patience: match self.patience {
                Patience::No => LeasePatience::No,
                patience => LeasePatience::Until(patience.until()),
            },
            settlement,
        }))
    }

    /// Marks the name as wide in the directory, if it has the slot. Whether another process has had
    /// the lock since this one.
    fn widen_slot(&mut self) -> Result<bool> {
        #[cfg(feature = "process")]
        if self.held.has(SLOT)
            && let Some(slot) = self.named.entry.slot()
        {
            self.claim_directory()?;
            // Before it asks: a death between grant and mark would leave a holder of process scope
            // beside other machines.
            slot.widen(&self.named.reach.described())?;
            let has_moved = self.held.token > self.known;
            self.known = self.known.max(slot.last_token());
            return Ok(has_moved);
        }
        Ok(false)
    }

    /// From now on the slot is the request's.
    fn settlement(&mut self) -> Settlement {
        #[cfg(feature = "process")]
        if self.held.remove(SLOT)
            && let Some(slot) = self.named.entry.slot()
        {
            let (slot, found) = (slot.clone(), self.found_slot);
            return Settlement::new(Box::new(AskersSlot { slot, found }));
        }
        Settlement::default()
    }

    /// What the service says. The word is open now, unless the lease is over already.
    fn answered(&mut self, granted: Result<LeaseGranted>) -> Result<()> {
        let LeaseGranted { had_to_queue } = granted.map_err(self.named.about(Scope::Host))?;
        if let Some(word) = &self.named.word {
            word.granted(had_to_queue);
        }
        self.has_grant = true;
        // A lease of another service than the directory's is no lock of the directory: it goes back.
        self.claim_directory()
    }

    /// Has the directory belong to the service, as soon as its cluster is known.
    fn claim_directory(&self) -> Result<()> {
        #[cfg(all(feature = "process", any(feature = "host", feature = "testing")))]
        self.named.reach.claim_directory().map_err(self.named.about(Scope::Host))?;
        Ok(())
    }

    // ---- the end -----------------------------------------------------------------------------

    /// Inside: raises the scope in force, steps out of the turnstile, starts the terms, hands over
    /// the right.
    fn arrive(mut self) -> Held {
        self.get_up();
        let named = self.named;
        let is_turnstile = match self.held.scope() {
            Scope::Thread => false,
            Scope::Process => self.held.has(SLOT) && self.is_gate_slot(),
            Scope::Host => true,
        };
        if is_turnstile && self.held.remove(THREAD) {
            // What it had to tell is told.
            named.entry.thread().release(Predecessor::Clean);
        }
        if named.has_terms {
            named.start_terms(&mut self.held);
        }
        self.has_arrived = true;
        self.held.take()
    }

    /// Gives everything back as it was found.
    fn go_back(&mut self) {
        if !self.end_turn() {
            self.held.forget();
        }
        self.get_up();
        let named = self.named;
        if self.held.remove(INSIDE) {
            named.entry.cell.leave();
        }
        named.stop_sharing(&mut self.held);
        if let Some(tier) = named.host_tier() {
            if self.held.remove(SHARED_LEASE) {
                tier.leave_shared();
            } else if self.held.remove(LEASE) {
                tier.leave_unused(self.held.token, self.held.predecessor());
            } else if self.goal == Scope::Host && self.held.has(THREAD) {
                self.give_up_word(tier);
            }
        }
        self.release_slot();
        if self.held.remove(THREAD) {
            named.entry.thread().release(self.found_thread);
        }
    }

    /// The representative goes: it leaves no mark and no reservation at the lease word, and what the
    /// slot had to tell to the next holder.
    fn give_up_word(&self, tier: HostTier<'_>) {
        let has_mark = self.has_grant && self.found_slot != Predecessor::Clean;
        if has_mark {
            match tier.word.claim() {
                Claim::Entered(entered) => {
                    return tier.leave_unused(entered.token, self.found_slot);
                }
                Claim::UsedUp(used) => return tier.give_back(&used),
                Claim::Closed(_) | Claim::Held => {}
            }
        }
        if let Some(used) = tier.word.give_up() {
            tier.give_back(&used);
        }
    }

    fn release_slot(&mut self) {
        if self.held.remove(SLOT) {
            #[cfg(feature = "process")]
            if let Some(slot) = self.named.entry.slot() {
                slot.release(self.found_slot);
            }
        }
    }

    // ---- small things ------------------------------------------------------------------------

    /// Tells how the previous holder left: the widest tier that has something to tell tells it.
    fn tell(&mut self, predecessor: Predecessor) {
        if predecessor != Predecessor::Clean {
            self.held.set_predecessor(predecessor);
        }
    }

    fn label(&self) -> &'a str {
        &self.named.reach.label
    }

    fn generation(&self) -> u32 {
        short(fork::generation())
    }

    fn is_gate_slot(&self) -> bool {
        #[cfg(feature = "process")]
        return self.named.entry.slot().is_some_and(|slot| slot.is_gate());
        #[cfg(not(feature = "process"))]
        false
    }

    /// It timed out in this process: a thread or task of it holds the lock, or waits for the holder
    /// in another process.
    fn held_here(&self) -> LockError {
        let named = self.named;
        let start = self.since.unwrap_or_else(clock::now);
        if let LockMode::Permits(permits) = self.mode {
            return permits.timed_out(start, named.scope()).with_name(named.name());
        }
        let error = timed_out(start, named.scope()).with_name(named.name());
        #[cfg(feature = "process")]
        let error = error.with_holder(named.entry.slot().and_then(|slot| slot.holder()));
        error.with_holder(Some(named.reach.myself()))
    }
}

fn shared_at_host_scope() -> LockError {
    LockError::config(
        "what grants its leases grants no shared ones: read it at process scope, with \
         .scope(Scope::Process), under a name that nothing locks at host scope",
    )
}

/// So often a lease is asked for again that was over before it was claimed.
const LATES_MAX: u32 = 8;
/// After so long a waiter is handed the gate.
const IMPATIENCE: Duration = Duration::from_millis(1);
/// No sleep exceeds this: the clock that threads sleep on stops while a machine is suspended.
const NAP_MAX: Duration = Duration::from_millis(100);
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

impl WordWait<'_> {
    /// Ready once the word may have changed, or the time has come.
    async fn sleep_async(self) {
        let mut sleep = std::pin::pin!(alarm::sleep_until(self.until));
        let mut is_registered = false;
        std::future::poll_fn(|cx: &mut Context<'_>| {
            // Woken: the word is for the climb to look at. It may also have been polled for another
            // reason, and then looks in vain.
            if std::mem::replace(&mut is_registered, true)
                || !self.word.register(self.is_hungry, cx.waker())
            {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(cx)
        })
        .await
    }
}

/// A task's wait in its seat at the turnstile; `None` once its turn has lapsed.
struct Seated<'a, F> {
    entry: &'a Arc<Entry>,
    seat: Seat,
    wait: Pin<Box<F>>,
    waker: Option<(Waker, Waker)>,
}

impl<'a, F: Future> Seated<'a, F> {
    fn new(entry: &'a Arc<Entry>, seat: Seat, wait: F) -> Seated<'a, F> {
        Seated { entry, seat, wait: Box::pin(wait), waker: None }
    }
}

impl<F: Future> Future for Seated<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Seated { entry, seat, wait, waker } = &mut *self;
        if !entry.thread().poll_seat(*seat) {
            return Poll::Ready(None);
        }
        if waker.as_ref().is_none_or(|(task, _)| !task.will_wake(cx.waker())) {
            let (entry, task) = (Arc::downgrade(entry), cx.waker().clone());
            let call = SeatCall { entry, seat: *seat, task: task.clone() };
            *waker = Some((task, Waker::from(Arc::new(call))));
        }
        let (_, waker) = waker.as_ref().expect("it was just made");
        wait.as_mut().poll(&mut Context::from_waker(waker)).map(Some)
    }
}

/// Wakes the task in a seat. Its turn can lapse from then on.
struct SeatCall {
    entry: Weak<Entry>,
    seat: Seat,
    task: Waker,
}

impl Wake for SeatCall {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(entry) = self.entry.upgrade() {
            entry.thread().wake_seat(self.seat);
        }
        self.task.wake_by_ref();
    }
}

/// The slot that an asker has won. It holds nothing of the name's entry, which may go meanwhile.
#[cfg(feature = "process")]
struct AskersSlot {
    slot: Arc<Slot>,
    found: Predecessor,
}

#[cfg(feature = "process")]
impl Settle for AskersSlot {
    fn raise(&mut self, block_end: Token) {
        self.slot.raise_token(block_end);
        // What it had to tell, the asker tells.
        self.found = Predecessor::Clean;
    }

    fn release(self: Box<Self>) {
        self.slot.release(self.found);
    }
}
