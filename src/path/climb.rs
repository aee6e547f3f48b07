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
//! Permits at host scope have a lease of their own, which is claimed in a word of its own, and so has an
//! upgradable reader; a try for permits asks the service past the turnstile, where nothing narrower is taken.
//!
//! inside: the entry's cell must be free; else everything goes back, and the climb waits for the
//! guard that is inside. A writer then waits until no reader is inside; a reader adds its 1, and gives
//! the gate back as it was found; so does a taker of permits, once there are enough.
//! ```

mod ahead;
mod back;
mod host;
mod in_vain;
mod seat;
mod slot;

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

#[cfg(feature = "process")]
use crate::process::{Slot, Taken};
use crate::{
    alarm, clock,
    error::{LockError, Predecessor, Result},
    host::{
        lease_word::{LeaseKey, LeaseWord},
        service::PendingLease,
    },
    mode::Room,
    scope::Scope,
    thread::{InFront, Seat, WaitingWriter},
    time::Time,
    token::Token,
};

use super::{
    LockMode, Patience, Permits, by,
    lapse::GateTurn,
    named::Named,
    right::{Held, LEASE, SHARED, SHARED_LEASE, SHARED_SLOT, SLOT, THREAD},
    sharing::{ReadersInside, WriterWait, unless},
    wait_until_async,
};

pub(super) use self::ahead::AheadClimb;
use self::seat::Seated;

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
    /// It has the turnstile, and has noted in the entry where it is on its way to.
    is_ahead: bool,
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
    /// A lease of its own was asked of the service: the word that the grant opens.
    asked_word: Option<Arc<LeaseWord>>,
    /// The lease that was granted to it, where another's is of no use.
    own_lease: Option<LeaseKey>,
    /// A task climbs.
    is_task: bool,
    /// As [`LeaseRequest::after`] and [`LeaseRequest::answer_by`].
    after: Option<u64>,
    answer_by: Option<Time>,
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
            is_ahead: false,
            widens: false,
            is_wide: false,
            drainer: WriterWait::default(),
            turn: None,
            #[cfg(feature = "process")]
            taken: None,
            writer: None,
            front: None,
            asked_word: None,
            own_lease: None,
            is_task: false,
            after: None,
            answer_by: None,
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
                    let taken = slot.take_unless(known, label, until, &is_over, self.wish());
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
        self.is_task = true;
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
                    let (known, label, wish) = (self.known, self.label(), self.wish());
                    let wait = async move {
                        let wait = slot.take_async(known, label, until, wish);
                        unless(|| named.may_read_beside(), mode, wait).await
                    };
                    match Seated::new(entry, self.sit_down(), wait).await {
                        Some(Some(taken)) => self.slot(taken)?,
                        Some(None) => self.begin_again(),
                        None => self.come_back().await?,
                    }
                }
                // It asked past the turnstile, and has no turn there to lose.
                Ask::Lease(request) if !self.held.has(THREAD) => {
                    let granted = request.await;
                    self.answered(granted)?;
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

    /// A task's turn at the gate, which lapses if it is not polled. The turnstile goes with it: a seat
    /// that was left standing there would lapse once more, when another has the turnstile.
    fn turn(&mut self) -> Arc<GateTurn> {
        if self.turn.is_none() {
            self.get_up();
        }
        let new = || GateTurn::begin(self.named, &self.held, self.found_slot, self.found_thread);
        self.turn.get_or_insert_with(new).clone()
    }

    /// Its turn is over, and the gate was given back for it: it begins anew.
    fn has_lapsed(&mut self) {
        self.turn = None;
        self.front = None;
        self.is_ahead = false;
        self.held.forget();
        self.drainer = WriterWait::default();
        // What was granted, and the mark of host scope that it waited behind, are others' by now.
        self.has_grant = false;
        self.own_lease = None;
        self.is_wide = false;
        self.get_up();
        self.at = At::Begin;
    }

    /// Whether it has what it won. Its turn does not lapse from now on.
    fn end_turn(&mut self) -> bool {
        self.turn.take().is_none_or(|turn| turn.end())
    }

    /// It leaves where it waits, and comes in past that.
    fn begin_again(&mut self) {
        self.leave_turnstile(self.found_thread);
        self.at = At::Begin;
    }

    /// Releases the turnstile, if it has it, and takes back first what it has noted there: the next one may
    /// be on its way to another scope.
    fn leave_turnstile(&mut self, how: Predecessor) {
        self.get_up();
        if self.held.has(THREAD) {
            self.forget_goal();
            self.held.remove(THREAD);
            self.named.entry.thread().release(how);
        }
    }

    /// It is not on its way any more.
    fn forget_goal(&mut self) {
        if std::mem::take(&mut self.is_ahead) {
            self.named.entry.climbs_to(Scope::Thread);
        }
    }

    /// Its turnstile was taken from it, with what it has noted there.
    fn lose_turnstile(&mut self) {
        self.is_ahead = false;
        self.held.remove(THREAD);
    }

    fn sit_down(&mut self) -> Seat {
        *self.seat.get_or_insert_with(|| self.named.entry.thread().sit_down())
    }

    /// Its turn has lapsed: it waits for the turnstile again, at the head.
    async fn come_back(&mut self) -> Result<()> {
        let seat = self.seat.take().expect("only a task in its seat has a turn that lapses");
        // Its request gave back what it was granted.
        self.asked_word = None;
        self.lose_turnstile();
        let wait = self.named.entry.thread().come_back(seat);
        let is_won = by(self.patience.until(), wait).await;
        self.turnstile(is_won)
    }

    /// Waits no longer, and finds out whether its turn has lapsed.
    fn get_up(&mut self) {
        if let Some(seat) = self.seat.take()
            && !self.named.entry.thread().get_up(seat)
        {
            self.lose_turnstile();
        }
    }

    /// Goes on until there is something to wait for.
    fn next(&mut self) -> Result<Ask<'a>> {
        let named = self.named;
        loop {
            match self.at {
                At::Begin => {
                    if self.mode == LockMode::Shared && self.read_beside()? {
                        self.at = At::Inside;
                    } else if self.may_ask_at_once() {
                        return self.ask_past_turnstile().map(Ask::Lease);
                    } else {
                        self.begin()?;
                    }
                }
                At::Inside => return Ok(Ask::Nothing),
                At::Turnstile if named.entry.thread().win_quietly() => self.turnstile(true)?,
                At::Turnstile if self.patience == Patience::No => {
                    if !self.try_turnstile() {
                        return Err(self.refused());
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
                        None => return Err(self.refused()),
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
    fn read_beside(&mut self) -> Result<bool> {
        let won = self.named.read_beside()?;
        if let Some(won) = won {
            self.held = won.into();
        }
        Ok(won.is_some())
    }

    /// Whether a guard is inside that this one cannot stand beside.
    fn is_cell_taken(&self) -> bool {
        let entry = &self.named.entry;
        let is_readable = self.mode != LockMode::Shared && entry.shares().is_readable();
        is_readable
            || match self.mode {
                LockMode::Exclusive => entry.cell.is_occupied(self.generation()),
                _ => entry.cell.has_writer(self.generation()),
            }
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
        self.leave_turnstile(self.found_thread);
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
            self.leave_turnstile(Predecessor::Clean);
        }
    }

    /// Counts its permits, and gives the gate back.
    fn come_in_with(&mut self, permits: Permits) -> Result<()> {
        self.named.count_permits(&mut self.held, permits.count)?;
        self.front = None;
        self.release_slot();
        self.leave_turnstile(self.found_thread);
        Ok(())
    }

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
        if is_turnstile {
            // What it had to tell is told.
            self.leave_turnstile(Predecessor::Clean);
        }
        self.forget_goal();
        if named.has_terms {
            named.start_terms(&mut self.held);
        }
        self.has_arrived = true;
        self.held.take()
    }

    fn is_gate_slot(&self) -> bool {
        #[cfg(feature = "process")]
        return self.named.entry.slot().is_some_and(|slot| slot.is_gate());
        #[cfg(not(feature = "process"))]
        false
    }
}

fn opened_before_fork() -> LockError {
    LockError::config("this manager was opened before a fork; open another one in the child")
}

fn shared_at_host_scope() -> LockError {
    LockError::config(
        "this manager's lock service grants no shared locks: read it at process scope, with \
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
