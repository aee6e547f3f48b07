//! What a worker does.

use std::{
    future::Future,
    io::Write,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::*},
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use rustix::process::{Signal, WaitOptions};

use super::super::{
    TableDirectory, TableDrainer, TableSlot,
    step::{Step, disarm, dwell_at, end_at, witness},
};
use super::{
    WorkerPhase,
    board::{Board, INSIDE, NAMES, OTHERS, OUTSIDE},
};
use crate::{
    clock,
    error::{LockError, LockErrorKind, Predecessor},
    mode::{Room, Share, Usage},
    name::Name,
    process::{
        Drain, Options, SlotWish, Taken,
        dir::home::Home,
        sys::testing::{exit_at_once, fork},
    },
    token::Token,
};

/// It waits to be a reader.
const READER: SlotWish = SlotWish { shares: true, permits: 0, arrived: None };

/// What a worker is told, each part after a newline.
pub(super) const ORDERS: &str = "TIERLOCK_KILLS_WORKER";
/// No worker waits longer for a lock that a stopped process may hold.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long it stays at a step that it is to linger at, each time that it comes there.
const LINGER: Duration = Duration::from_millis(1);
/// From so many names on idle ones are forgotten.
const NAMES_MAX: u32 = 60;
/// So many other names a worker keeps for later, when they may have been forgotten.
const KEPT: usize = 12;
/// It widens so many, which then stay.
const WIDE_NAMES: u64 = 40;

/// A worker's orders.
pub(super) struct WorkerOrders {
    pub(super) dir: PathBuf,
    pub(super) worker: usize,
    pub(super) seed: u64,
    /// Does nothing that needs the structural lock, once it has begun.
    pub(super) is_plain: bool,
    /// Believes that a living process is dead, once in so many verdicts; 0 is never.
    pub(super) lied_to: u64,
    /// What it does leads there half of the time; if it is not to end there, it lingers there.
    pub(super) goal: Option<Step>,
    /// Where to end, after how many passes, and by what.
    pub(super) ends: Vec<(Step, u32, Signal)>,
}

impl WorkerOrders {
    pub(super) fn to_line(&self) -> String {
        let mut parts = vec![
            self.dir.to_str().unwrap().to_owned(),
            self.worker.to_string(),
            self.seed.to_string(),
            u8::from(self.is_plain).to_string(),
            self.lied_to.to_string(),
            self.goal.map_or(0, |step| step as usize + 1).to_string(),
        ];
        for (step, passes, signal) in &self.ends {
            parts.push(format!("{} {passes} {}", *step as usize, signal.as_raw()));
        }
        parts.join("\n")
    }

    fn of_line(line: &str) -> WorkerOrders {
        let mut parts = line.split('\n');
        let dir = parts.next().unwrap().into();
        let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
        let (worker, seed, is_plain, lied_to) =
            (number() as usize, number(), number() == 1, number());
        let goal = number().checked_sub(1).map(|step| Step::ALL[step as usize]);
        let ends = parts.map(|end| {
            let numbers: Vec<u32> = end.split(' ').map(|number| number.parse().unwrap()).collect();
            let signal = Signal::from_named_raw(numbers[2] as i32).unwrap();
            (Step::ALL[numbers[0] as usize], numbers[1], signal)
        });
        WorkerOrders { dir, worker, seed, is_plain, lied_to, goal, ends: ends.collect() }
    }
}

pub(super) fn locks(dir: &Path) -> PathBuf {
    dir.join("locks")
}

pub(super) fn board(dir: &Path) -> PathBuf {
    dir.join("board")
}

pub(super) fn violations(dir: &Path) -> PathBuf {
    dir.join("violations")
}

pub(super) fn hot(name: usize) -> Name {
    Name::new(&format!("hot{name}")).unwrap()
}

pub(super) fn open(dir: &Path) -> Result<Arc<TableDirectory>, LockError> {
    let options = Options { label: "worker".into(), ..Options::default() };
    TableDirectory::open(Home::open(&locks(dir), &[])?, &options).map(Arc::new)
}

/// Whether only a hold with `at_least` leads there.
pub(super) fn of_at_least(step: Step) -> bool {
    use Step::*;
    matches!(step, TakeStay | TakeSeeOver | TakeFree | LeaveSeeStay | LeaveStay | ReapStay)
}

static LIED_TO: AtomicU64 = AtomicU64::new(0);

/// Whether this verdict is to be a false one.
pub(in super::super) fn is_lied_to() -> bool {
    static VERDICTS: AtomicU64 = AtomicU64::new(0);
    let every = LIED_TO.load(Relaxed);
    every != 0 && VERDICTS.fetch_add(1, Relaxed) % every == every - 1
}

#[test]
#[ignore = "a part of other tests, which start it"]
fn worker() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders = WorkerOrders::of_line(&orders);
    let board = Arc::new(Board::open(&board(&orders.dir)));
    let (seen, worker) = (board.clone(), orders.worker);
    witness(move |step| seen.set_phase(worker, step as u64 + 1));
    LIED_TO.store(orders.lied_to, Relaxed);
    if let (Some(goal), true) = (orders.goal, orders.ends.is_empty()) {
        dwell_at(goal, LINGER);
    }
    for (step, passes, signal) in &orders.ends {
        end_at(*step, *passes, *signal);
        match step {
            // The holder is to leave for good while it is asked for.
            Step::TakeRecheck => dwell_at(Step::TakeJudge, Duration::from_millis(3)),
            // The wait that was found is to give up before it is looked at again.
            Step::HandReload => dwell_at(Step::HandSeeRecord, Duration::from_millis(4)),
            // It is to be passed over, and to go on.
            Step::TakeReturn => dwell_at(Step::TakeClaim, Duration::from_millis(8)),
            _ => {}
        }
    }
    let dir = orders.dir.clone();
    if let Err(violation) = Worker::work(orders, board) {
        let file = std::fs::File::options().append(true).create(true).open(violations(&dir));
        writeln!(file.unwrap(), "worker {worker}: {violation}").unwrap();
        std::process::exit(1);
    }
}

struct Worker {
    orders: WorkerOrders,
    board: Arc<Board>,
    all: Arc<TableDirectory>,
    slots: Vec<TableSlot>,
    /// Of names that come and go.
    kept: Vec<(usize, TableSlot)>,
    random: u64,
}

/// What goes wrong that may not.
type Sound<T = ()> = Result<T, String>;

/// An error is a violation, unless a stopped process was in the way.
fn sound<T>(result: Result<T, LockError>) -> Sound<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == LockErrorKind::TimedOut => Ok(None),
        Err(error) => Err(format!("{:?}: {error}", error.kind())),
    }
}

impl Worker {
    fn work(orders: WorkerOrders, board: Arc<Board>) -> Sound {
        let parent = std::os::unix::process::parent_id();
        let (all, slots) = loop {
            let all = sound(open(&orders.dir))?.expect("no worker waits for that");
            let slots: Result<Vec<_>, _> = (0..NAMES).map(|n| all.slot(&hot(n))).collect();
            match sound(slots)? {
                Some(slots) => break (all, slots),
                None => continue,
            }
        };
        if let Ok(member) = all.member() {
            member.table.header().names_max.store(NAMES_MAX, Relaxed);
        }
        let random = orders.seed;
        let mut worker = Worker { orders, board, all, slots, kept: Vec::new(), random };
        while !worker.board.is_over() && std::os::unix::process::parent_id() == parent {
            worker.board.set_phase(worker.orders.worker, OUTSIDE);
            worker.turn()?;
        }
        Ok(())
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    fn turn(&mut self) -> Sound {
        let name = self.random(NAMES as u64) as usize;
        if self.random(2) == 0
            && let Some(goal) = self.orders.goal
            && let Some(went) = self.go_to(goal, name)
        {
            return went;
        }
        let job = if self.orders.is_plain { self.random(60) } else { self.random(100) };
        match job {
            0..20 => self.wait(name, PATIENCE),
            20..28 => self.wait(name, Duration::from_micros(700 * job)),
            28..40 => self.wait_async(name),
            40..50 => self.wait_shortly(name),
            50..55 => self.try_it(name),
            55..60 => self.two_threads(name),
            60..74 => self.enter(),
            74..78 => self.widen(WIDE_NAMES),
            78..82 => self.hand_on(name),
            82..86 => self.reserve(name),
            86..92 => self.visit(name),
            92..96 => self.sweep(),
            96..98 => self.share(),
            98 => self.acquire(),
            _ => self.stay(),
        }
    }

    /// Does what leads to this step.
    fn go_to(&mut self, step: Step, name: usize) -> Option<Sound> {
        Some(match (step, WorkerPhase::of(step)) {
            (Step::TakeFindReservation | Step::HandReload, _) => self.wait_shortly(name),
            (Step::ReapSettle | Step::ReapWake, _) => self.follow_a_dead_forgetter(),
            (Step::TakeFree, _) => self.stay_and_await(),
            (Step::TakeStay | Step::ReapStay, _) => self.die_and_stay(),
            (step, _) if of_at_least(step) => self.stay(),
            (Step::NameSeen | Step::TextPlaced | Step::WidenMark, _) => self.widen(1 << 30),
            (Step::RenameSwap, _) => self.hand_on(name),
            (Step::ShareReserved | Step::ShareFilled | Step::ShareLinked, _) => self.first_share(),
            (Step::UnreadRing | Step::UnreadWake | Step::DrainWant | Step::DrainSleep, _) => {
                self.share_by_two_threads()
            }
            (Step::DrainMark, _) => self.acquire_by_two_threads(),
            (Step::DrainJudge | Step::DrainStrike, _) if name == 0 => self.outlive_permits(),
            (Step::DrainJudge | Step::DrainStrike, _) => self.outlive_a_reader(),
            (Step::ReadableMark | Step::ReadableClear, _) => self.upgrade(&shared_name()),
            (_, WorkerPhase::Sharing) => self.share(),
            (_, WorkerPhase::Growing) => self.grow(),
            (_, WorkerPhase::Entering | WorkerPhase::Forgetting) => self.enter(),
            (_, WorkerPhase::Reserving) => self.reserve(name),
            (_, WorkerPhase::Sweeping) => self.leave_a_dead_one().and_then(|()| self.sweep()),
            (_, WorkerPhase::ComingAndGoing) => self.visit(name),
            _ => return None,
        })
    }

    fn wait(&mut self, name: usize, longest: Duration) -> Sound {
        let taken = self.slots[name].take(Token::ZERO, clock::now() + longest);
        self.inside(name, sound(taken)?)
    }

    /// Gives up, often as the one that is next in line.
    fn wait_shortly(&mut self, name: usize) -> Sound {
        let longest = Duration::from_micros(self.random(4_000));
        self.wait(name, longest)
    }

    fn try_it(&mut self, name: usize) -> Sound {
        let taken = sound(self.slots[name].try_take(Token::ZERO))?;
        self.inside(name, taken.flatten())
    }

    /// Waits, while another thread tries: they write one id.
    fn two_threads(&mut self, name: usize) -> Sound {
        let (slot, board) = (&self.slots[name], &*self.board);
        let worker = self.orders.worker;
        let pass = |taken: Option<Taken>| -> Sound {
            let Some(taken) = taken else { return Ok(()) };
            board.enter(name, worker, &taken)?;
            board.count(name, worker, thread::yield_now)?;
            board.leave(name, Predecessor::Clean);
            slot.release(Predecessor::Clean);
            Ok(())
        };
        thread::scope(|scope| {
            let tries =
                || (0..4).try_for_each(|_| pass(sound(slot.try_take(Token::ZERO))?.flatten()));
            let other = scope.spawn(tries);
            let waited = pass(sound(slot.take(Token::ZERO, clock::now() + PATIENCE))?);
            other.join().expect("it does not panic").and(waited)
        })
    }

    /// Holds a lock for at least a moment, and leaves it before that is over.
    fn stay(&mut self) -> Sound {
        let Some(slot) = self.staying_slot()? else { return Ok(()) };
        if sound(slot.take(Token::ZERO, clock::now() + PATIENCE))?.is_some() {
            slot.keep_until(Some(clock::now() + Duration::from_millis(3)));
            slot.release(Predecessor::Clean);
            self.is_kept(&slot)?;
        }
        Ok(())
    }

    /// No taker comes in before the end.
    fn is_kept(&self, slot: &TableSlot) -> Sound {
        if sound(slot.try_take(Token::ZERO))?.flatten().is_some() {
            slot.release(Predecessor::Clean);
        }
        Ok(())
    }

    /// Awaits what stays for a moment more.
    fn stay_and_await(&mut self) -> Sound {
        let Some(slot) = self.staying_slot()? else { return Ok(()) };
        if sound(slot.try_take(Token::ZERO))?.flatten().is_none() {
            return Ok(());
        }
        slot.keep_until(Some(clock::now() + Duration::from_millis(1)));
        slot.release(Predecessor::Clean);
        let wait = slot.take_async(Token::ZERO, clock::now() + PATIENCE, SlotWish::default());
        if sound(futures::executor::block_on(wait))?.is_some() {
            slot.release(Predecessor::Clean);
        }
        Ok(())
    }

    /// Finds a holder that died before the end, as a taker or as a sweeper.
    fn die_and_stay(&mut self) -> Sound {
        let text = format!("stay{}", self.random(8));
        let Some(child) = fork() else {
            disarm();
            let slot = open(&self.orders.dir).and_then(|all| all.slot(&Name::new(&text).unwrap()));
            let _ = slot.map(|slot| {
                if slot.try_take(Token::ZERO).is_ok_and(|taken| taken.is_some()) {
                    slot.keep_until(Some(clock::now() + Duration::from_millis(30)));
                }
                std::mem::forget(slot);
            });
            exit_at_once();
        };
        let child = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(child, WaitOptions::empty()).map_err(|e| e.to_string())?;
        if self.orders.goal == Some(Step::ReapStay) {
            return self.sweep();
        }
        let Some(slot) = sound(self.all.slot(&Name::new(&text).unwrap()))? else { return Ok(()) };
        self.is_kept(&slot)
    }

    /// Finishes what a child began that died while it was forgetting a name.
    fn follow_a_dead_forgetter(&mut self) -> Sound {
        let name = Name::new(&format!("forgotten{}", self.random(8))).unwrap();
        let Some(child) = fork() else {
            disarm();
            let all = open(&self.orders.dir);
            let _ = all.and_then(|all| {
                let member = all.member()?;
                let found = member.find(&name)?;
                end_at(Step::ForgetIntended, 0, Signal::KILL);
                member.change(|changing| changing.forget(found.number, &*member))
            });
            exit_at_once();
        };
        let child = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(child, WaitOptions::empty()).map_err(|e| e.to_string())?;
        let Some(slot) = sound(self.all.slot(&name))? else { return Ok(()) };
        self.is_kept(&slot)?;
        self.enter()
    }

    fn staying_slot(&mut self) -> Sound<Option<TableSlot>> {
        let text = format!("stay{}", self.random(3));
        sound(self.all.slot(&Name::new(&text).unwrap()))
    }

    /// Drops the future after a while, sometimes.
    fn wait_async(&mut self, name: usize) -> Sound {
        let drops = self.random(3) == 0;
        let pause = Duration::from_micros(self.random(3_000));
        let taken = {
            let until = clock::now() + PATIENCE;
            let mut wait =
                pin!(self.slots[name].take_async(Token::ZERO, until, SlotWish::default()));
            let first = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match first {
                std::task::Poll::Ready(taken) => sound(taken)?,
                std::task::Poll::Pending if drops => {
                    thread::sleep(pause);
                    None
                }
                std::task::Poll::Pending => sound(futures::executor::block_on(wait))?,
            }
        };
        self.inside(name, taken)
    }

    /// Counts, if it has the lock, and releases it.
    fn inside(&mut self, name: usize, taken: Option<Taken>) -> Sound {
        let Some(taken) = taken else { return Ok(()) };
        let how = self.count(name, &taken)?;
        self.slots[name].release(how);
        Ok(())
    }

    fn count(&mut self, name: usize, taken: &Taken) -> Sound<Predecessor> {
        let worker = self.orders.worker;
        self.board.set_phase(worker, INSIDE);
        self.board.enter(name, worker, taken)?;
        // Half of the workers stay, often enough for others to come, and sometimes long enough for
        // them to want it next.
        let dwell = match self.random(10) {
            _ if self.orders.seed.is_multiple_of(2) => None,
            0 => Some(Duration::from_micros(2_500)),
            1..4 => Some(Duration::from_micros(200)),
            4..6 => Some(Duration::ZERO),
            _ => None,
        };
        self.board.count(name, worker, || match dwell {
            None => {}
            Some(Duration::ZERO) => thread::yield_now(),
            Some(dwell) => thread::sleep(dwell),
        })?;
        let panics = self.random(20) == 0;
        let how = if panics { Predecessor::Panicked } else { Predecessor::Clean };
        self.board.leave(name, how);
        Ok(how)
    }

    // ---- readers -------------------------------------------------------------------------------

    /// Reads, writes, or upgrades.
    fn share(&mut self) -> Sound {
        let name = shared_name();
        match self.random(4) {
            0 => self.write(&name),
            1 => self.upgrade(&name),
            _ => self.read(&name, Duration::ZERO),
        }
    }

    /// A name that is read for the first time.
    fn first_share(&mut self) -> Sound {
        let text = format!("shared{}", self.random(u64::MAX >> 33));
        let Some(slot) = sound(self.all.slot(&Name::new(&text).unwrap()))? else { return Ok(()) };
        sound(slot.prepare_to_read()).map(drop)
    }

    fn read(&self, name: &Name, dwell: Duration) -> Sound {
        let Some(slot) = sound(self.all.slot(name))? else { return Ok(()) };
        read(&self.board, &slot, dwell)
    }

    fn write(&mut self, name: &Name) -> Sound {
        let Some(slot) = sound(self.all.slot(name))? else { return Ok(()) };
        write(&self.board, &slot)
    }

    /// One thread reads for a while, and another one writes then.
    fn share_by_two_threads(&mut self) -> Sound {
        let Some(slot) = sound(self.all.slot(&shared_name()))? else { return Ok(()) };
        let board = &*self.board;
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(board, &slot, Duration::from_millis(2)));
            thread::sleep(Duration::from_micros(500));
            let wrote = write(board, &slot);
            reader.join().expect("it does not panic").and(wrote)
        })
    }

    fn upgrade(&mut self, name: &Name) -> Sound {
        let Some(slot) = sound(self.all.slot(name))? else { return Ok(()) };
        let until = clock::now() + PATIENCE;
        let Some(taken) = sound(slot.take_unless(Token::ZERO, until, &|| false, READER))? else {
            return Ok(());
        };
        let told = taken.predecessor;
        if slot.set_readable(Some(told)).is_err() {
            return Err("an upgradable reader lost its word".to_owned());
        }
        self.board.see_pair(told)?;
        if slot.set_readable(None).is_err() {
            return Err("an upgradable reader lost its word".to_owned());
        }
        let upgraded = is_drained(&slot)?;
        if upgraded {
            self.board.change_pair(told, thread::yield_now)?;
        }
        slot.release(if upgraded { Predecessor::Clean } else { told });
        Ok(())
    }

    /// Writes where a child reads and dies.
    fn outlive_a_reader(&mut self) -> Sound {
        let Some(child) = fork() else {
            disarm();
            let slot = open(&self.orders.dir).and_then(|all| all.slot(&shared_name()));
            let _ = slot.map(|slot| {
                let until = clock::now() + PATIENCE;
                if let Ok(taken) = slot.take_unless(Token::ZERO, until, &|| false, READER) {
                    let _ = slot.read_under_the_word(&taken, false);
                    slot.release(taken.predecessor);
                }
                std::mem::forget(slot);
            });
            exit_at_once();
        };
        let child = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(child, WaitOptions::empty()).map_err(|e| e.to_string())?;
        self.write(&shared_name())
    }

    // ---- permits -------------------------------------------------------------------------------

    /// Takes one permit, or some, or all.
    fn acquire(&mut self) -> Sound {
        let count = 1 + self.random(PERMITS.into()) as u32;
        let Some(slot) = self.permits()? else { return Ok(()) };
        acquire(&self.orders.dir, &slot, count, Duration::ZERO)
    }

    /// One thread has all permits for a while, and another one waits for one.
    fn acquire_by_two_threads(&mut self) -> Sound {
        let Some(slot) = self.permits()? else { return Ok(()) };
        let dir = &*self.orders.dir;
        thread::scope(|scope| {
            let all = scope.spawn(|| acquire(dir, &slot, PERMITS, Duration::from_millis(2)));
            thread::sleep(Duration::from_micros(500));
            let one = acquire(dir, &slot, 1, Duration::ZERO);
            all.join().expect("it does not panic").and(one)
        })
    }

    /// Takes all permits where a child had some and died.
    fn outlive_permits(&mut self) -> Sound {
        let Some(child) = fork() else {
            disarm();
            let slot = open(&self.orders.dir)
                .and_then(|all| all.slot_for(&permits_name(), Usage::Permits(PERMITS)));
            let _ = slot.map(|slot| {
                if slot.take(Token::ZERO, clock::now() + PATIENCE).is_ok() {
                    if has_room(&slot, Room::Beside(0)).is_ok_and(|has_room| has_room) {
                        let _ = slot.count_permits(PERMITS);
                    }
                    slot.release(Predecessor::Clean);
                }
                std::mem::forget(slot);
            });
            exit_at_once();
        };
        let child = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(child, WaitOptions::empty()).map_err(|e| e.to_string())?;
        let Some(slot) = self.permits()? else { return Ok(()) };
        acquire(&self.orders.dir, &slot, PERMITS, Duration::ZERO)
    }

    fn permits(&self) -> Sound<Option<TableSlot>> {
        sound(self.all.slot_for(&permits_name(), Usage::Permits(PERMITS)))
    }

    /// Enters a name that may be there or forgotten, or comes back to one.
    fn enter(&mut self) -> Sound {
        if self.random(8) == 0 {
            // Its place is longer than any that is free.
            let text = format!("once{:0100}", self.random(u64::MAX >> 33));
            return sound(self.all.slot(&Name::new(&text).unwrap())).map(drop);
        }
        if self.kept.len() < KEPT || self.random(3) == 0 {
            let other = self.random(OTHERS as u64) as usize;
            let slot = self.all.slot(&Name::new(&format!("other{other}")).unwrap());
            let Some(slot) = sound(slot)? else { return Ok(()) };
            self.kept.push((other, slot));
            if self.kept.len() > KEPT {
                self.kept.swap_remove(self.random as usize % KEPT);
            }
        }
        let at = self.random(self.kept.len() as u64) as usize;
        let (other, slot) = &self.kept[at];
        if let Some(taken) = sound(slot.try_take(Token::ZERO))?.flatten() {
            self.board.visit(*other, self.orders.worker, &taken)?;
            slot.release(Predecessor::Clean);
        }
        Ok(())
    }

    /// Enters more names than the table has room for.
    fn grow(&mut self) -> Sound {
        if let Ok(member) = self.all.member() {
            member.table.header().names_max.store(u32::MAX, Relaxed);
        }
        for _ in 0..100 {
            let text = format!("more{}", self.random(u64::MAX >> 33));
            sound(self.all.slot(&Name::new(&text).unwrap()))?;
        }
        Ok(())
    }

    /// Once per name, for good: one of so many names that no worker counts under.
    fn widen(&mut self, names: u64) -> Sound {
        let text = format!("wide{}", self.random(names));
        let Some(slot) = sound(self.all.slot(&Name::new(&text).unwrap()))? else { return Ok(()) };
        if sound(slot.try_take(Token::ZERO))?.flatten().is_some() {
            slot.widen("worker").unwrap();
            slot.release(Predecessor::Clean);
        }
        Ok(())
    }

    /// Holds it under an id that another process could inherit.
    fn hand_on(&mut self, name: usize) -> Sound {
        let Some(taken) = sound(self.slots[name].take(Token::ZERO, clock::now() + PATIENCE))?
        else {
            return Ok(());
        };
        let proof = self.slots[name].proof_of_life();
        let how = self.count(name, &taken)?;
        drop(proof);
        self.slots[name].release(how);
        Ok(())
    }

    /// Comes near the end of what tokens are reserved.
    fn reserve(&mut self, name: usize) -> Sound {
        const STEP: u64 = 1 << 32;
        let Some(limit) = self.all.member().ok().and_then(|member| member.table.limit().ok())
        else {
            return Ok(());
        };
        let above = Token::new(limit.get() - STEP / 4).expect("far below the end");
        let taken = self.slots[name].take(above, clock::now() + PATIENCE);
        self.inside(name, sound(taken)?)
    }

    /// As another process that stays for one lock only.
    fn visit(&mut self, name: usize) -> Sound {
        let all = sound(open(&self.orders.dir))?.expect("no worker waits for that");
        let Some(slot) = sound(all.slot(&hot(name)))? else { return Ok(()) };
        let taken = sound(slot.take(Token::ZERO, clock::now() + PATIENCE))?;
        if let Some(taken) = taken {
            let how = self.count(name, &taken)?;
            slot.release(how);
        }
        Ok(())
    }

    /// A child that holds a lock and ends.
    fn leave_a_dead_one(&mut self) -> Sound {
        let text = format!("grave{}", self.random(8));
        let Some(child) = fork() else {
            disarm();
            let slot = open(&self.orders.dir).and_then(|all| all.slot(&Name::new(&text).unwrap()));
            // If it could not be had, there is one dead less.
            let _ =
                slot.and_then(|slot| slot.try_take(Token::ZERO).map(|_| std::mem::forget(slot)));
            exit_at_once();
        };
        let child = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(child, WaitOptions::empty()).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Looks after the dead: so does every 64th that joins.
    fn sweep(&mut self) -> Sound {
        if let Ok(member) = self.all.member() {
            member.table.header().joined.store(0, Relaxed);
        }
        let another = sound(open(&self.orders.dir))?.expect("no worker waits for that");
        // One that could not join, for a stopped process was in the way, joins later.
        another.member().map(drop).or_else(|error| sound(Err(error)).map(|_: Option<()>| ()))
    }
}

/// So many permits there are.
const PERMITS: u32 = 3;

fn permits_name() -> Name {
    Name::new("permits").unwrap()
}

/// Takes so many permits, if it has them in time, and with each locks one of as many files as there
/// are: the kernel's locks end with their process, and are never too many.
fn acquire(dir: &Path, slot: &TableSlot, count: u32, dwell: Duration) -> Sound {
    if sound(slot.prepare_to_read())?.is_none()
        || sound(slot.take(Token::ZERO, clock::now() + PATIENCE))?.is_none()
    {
        return Ok(());
    }
    let counted = match has_room(slot, Room::Beside(PERMITS - count))? {
        true => sound(slot.count_permits(count))?.is_some(),
        false => false,
    };
    slot.release(Predecessor::Clean);
    if !counted {
        return Ok(());
    }
    let files: Result<Vec<_>, _> = (0..PERMITS)
        .map(|number| {
            let path = dir.join(format!("permit {number}"));
            std::fs::File::options().create(true).append(true).open(path)
        })
        .collect();
    let files = files.map_err(|error| error.to_string())?;
    // A killed process's files are closed one after the other.
    let (until, mut locked) = (clock::now() + Duration::from_secs(30), Vec::new());
    while locked.len() < count as usize {
        if clock::now() > until {
            return Err(format!("{} of {count} permits are there", locked.len()));
        }
        let is_new = |number: &usize, locked: &[usize]| !locked.contains(number);
        for (number, file) in files.iter().enumerate() {
            let wanted = locked.len() < count as usize && is_new(&number, &locked);
            if wanted && fs4::FileExt::try_lock(file).is_ok() {
                locked.push(number);
            }
        }
    }
    thread::sleep(dwell);
    drop(files);
    slot.unshare(Share::Permits(count));
    Ok(())
}

fn shared_name() -> Name {
    Name::new("shared").unwrap()
}

/// Comes in as a reader, quietly or behind those that wait, and looks at the pair.
fn read(board: &Board, slot: &TableSlot, dwell: Duration) -> Sound {
    if sound(slot.prepare_to_read())?.is_none() {
        return Ok(());
    }
    let quiet = slot.found(crate::fork::generation()).and_then(|found| found.read(false));
    let told = match quiet {
        Some((_, told)) => told,
        None => {
            let until = clock::now() + PATIENCE;
            let Some(taken) = sound(slot.take_unless(Token::ZERO, until, &|| false, READER))?
            else {
                return Ok(());
            };
            sound(slot.read_under_the_word(&taken, false))?;
            slot.release(taken.predecessor);
            taken.predecessor
        }
    };
    board.see_pair(told)?;
    thread::sleep(dwell);
    board.see_pair(told)?;
    slot.unshare(Share::Reader);
    Ok(())
}

fn write(board: &Board, slot: &TableSlot) -> Sound {
    let Some(taken) = sound(slot.take(Token::ZERO, clock::now() + PATIENCE))? else {
        return Ok(());
    };
    let told = taken.predecessor;
    if !is_drained(slot)? {
        slot.release(told);
        return Ok(());
    }
    board.change_pair(told, thread::yield_now)?;
    slot.release(Predecessor::Clean);
    Ok(())
}

/// Waits for readers, for a while.
fn is_drained(slot: &TableSlot) -> Sound<bool> {
    has_room(slot, Room::Alone)
}

/// Waits until there is room, for a while.
fn has_room(slot: &TableSlot, room: Room) -> Sound<bool> {
    let (until, mut drainer) = (clock::now() + PATIENCE, TableDrainer::default());
    loop {
        match sound(slot.drain(&mut drainer, room, true))? {
            Some(Drain::Drained) => return Ok(true),
            Some(Drain::Sleep { bell, longest }) if clock::now() < until => {
                sound(slot.sleep_on_bell(&mut drainer, bell, longest))?;
            }
            _ => return Ok(false),
        }
    }
}
