//! Process scope: what a lock costs that is shared by the processes of a machine.

use std::{
    hint::black_box,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};
use tierlock::{LockManager, Scope};

use super::{
    case::{Case, Label, TIERLOCK},
    failure::{BenchFailure, Result, check_count},
    grounds::Grounds,
    jobs::{
        Contended, FileCounter, LockJob, OpenLock, OwnLock, SharedLock, SliceOrder, TimedTurn,
        Visitor,
    },
    run::{Contender, Entrant, Quiet},
    stats::RowTally,
    worker::{self, ChildWorker},
};

/// A lock under its project's name, with what a reader must know to compare it.
pub(crate) struct Subject<L> {
    pub(crate) name: &'static str,
    pub(crate) note: &'static str,
    pub(crate) lock: L,
}

/// tierlock's lock, under a name of its own in each case.
pub(crate) fn own(grounds: &Grounds, case: Case) -> Result<Subject<OwnLock>> {
    let directory = grounds.directory("process")?;
    Ok(Subject {
        name: TIERLOCK,
        note: "FIFO for waiters older than 1 ms; with tokens; tells how the last holder left",
        lock: OwnLock { directory, name: case.word.to_owned() },
    })
}

pub(crate) fn quiet<L: SharedLock>(subjects: Vec<Subject<L>>) -> Result<Vec<Entrant>> {
    entrants(subjects, Case::QUIET, 1, |_, lock| lock.open(QuietVisitor))
}

/// One entrant for each subject, under its label.
fn entrants<L>(
    subjects: Vec<Subject<L>>,
    case: Case,
    processes: u32,
    start: impl Fn(&'static str, L) -> Result<Box<dyn Contender>>,
) -> Result<Vec<Entrant>> {
    let entrant = |Subject { name, note, lock }| {
        let label = Label::new(Scope::Process, case);
        let label = Label { subject: name, clients: processes, processes, ..label };
        Ok(Entrant { label: Label { note: Some(note), ..label }, contender: start(name, lock)? })
    };
    subjects.into_iter().map(entrant).collect()
}

/// One caller of the lock in this process, which counts under it.
struct QuietVisitor;

impl Visitor for QuietVisitor {
    type Output = Box<dyn Contender>;

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<Box<dyn Contender>> {
        let mut count = 0_u64;
        Ok(Box::new(Quiet(move || lock.with(|| count = black_box(count + 1)))))
    }
}

/// So many processes that want one lock and hold it for so long.
pub(crate) fn contending<L: SharedLock>(
    subjects: Vec<Subject<L>>,
    grounds: &Grounds,
    case: Case,
    count: u32,
    hold: Duration,
) -> Result<Vec<Entrant>> {
    let directory = grounds.directory("process")?;
    entrants(subjects, case, count, |name, lock| {
        let counter = directory.join(format!("{}-{count}-{name}.count", case.word));
        Ok(Box::new(Processes::start(lock, count, &counter, hold)?))
    })
}

pub(crate) fn handover<L: SharedLock>(subjects: Vec<Subject<L>>) -> Result<Vec<Entrant>> {
    entrants(subjects, Case::HANDOVER, 2, |_, lock| Ok(Box::new(TurnPair::start(lock)?)))
}

/// The holder has so much memory in use: the kernel frees it before it closes the holder's files.
pub(crate) fn holder_killed<L: SharedLock>(
    subjects: Vec<Subject<L>>,
    resident_mib: u32,
) -> Result<Vec<Entrant>> {
    let mut entrants = entrants(subjects, Case::HOLDER_KILLED, 2, |_, lock| {
        lock.open(HolderKilledVisitor(lock.clone(), resident_mib))
    })?;
    for Entrant { label, .. } in &mut entrants {
        label.resident_mib = Some(resident_mib);
        label.note =
            Some("from a holder's SIGKILL to the waiter's lock; 64 MiB in use if not said");
    }
    Ok(entrants)
}

pub(crate) fn names(grounds: &Grounds) -> Result<Vec<Entrant>> {
    let directory = grounds.directory("process-names")?;
    let locks = LockManager::builder().directory(directory).label("bench").open()?;
    let mut next = 0_u32;
    Ok(vec![Entrant::new(
        Label {
            note: Some("10,000 names made at run time: build, lock, unlock, drop"),
            ..Label::new(Scope::Process, Case::NAMES)
        },
        Quiet(move || {
            // Visits every name, in an order that no cache likes.
            next = (next + 7_919) % NAMES;
            let guard = locks.mutex(format!("orders/{next}"), ()).scope(Scope::Process).lock()?;
            drop(guard);
            Ok(())
        }),
    )])
}

const NAMES: u32 = 10_000;

/// Child processes that want one lock and never pause.
struct Processes {
    workers: Vec<ChildWorker>,
    counter: FileCounter,
    counted: u64,
}

impl Processes {
    fn start<L: SharedLock>(
        lock: L,
        count: u32,
        counter: &Path,
        hold: Duration,
    ) -> Result<Processes> {
        let file = FileCounter::create(counter)?;
        let job = LockJob::Contend {
            lock,
            counter: counter.to_owned(),
            hold_us: hold.as_micros() as u64,
        };
        let workers = (0..count).map(|_| ChildWorker::start(&job)).collect::<Result<_>>()?;
        Ok(Processes { workers, counter: file, counted: 0 })
    }
}

impl Contender for Processes {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        let mut tallies = Vec::new();
        let order = SliceOrder::soon(slice, tally.pace());
        for Contended { seen, counted } in worker::all(&mut self.workers, &order)? {
            tallies.push(RowTally::from_seen(seen));
            self.counted += counted;
        }
        tally.side_by_side(tallies);
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        check_count(format!("{} processes", self.workers.len()), self.counter.get()?, self.counted)
    }
}

/// Two processes that hand a lock to and fro.
struct TurnPair {
    workers: [ChildWorker; 2],
}

impl TurnPair {
    /// Held for longer than the pause, so that the other process always waits at the release.
    const HOLD: Duration = Duration::from_millis(3);
    const PAUSE: Duration = Duration::from_millis(2);

    fn start<L: SharedLock>(lock: L) -> Result<TurnPair> {
        let job = LockJob::TakeTurns {
            lock,
            hold_us: TurnPair::HOLD.as_micros() as u64,
            pause_us: TurnPair::PAUSE.as_micros() as u64,
        };
        Ok(TurnPair { workers: [ChildWorker::start(&job)?, ChildWorker::start(&job)?] })
    }
}

impl Contender for TurnPair {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        // A few turns each, however short the slice.
        let slice = slice.max(TurnPair::HOLD * 5);
        let order = SliceOrder::soon(slice, tally.pace());
        let replies: Vec<Vec<TimedTurn>> = worker::all(&mut self.workers, &order)?;
        let mut turns = Vec::new();
        for (client, of_one) in replies.into_iter().enumerate() {
            turns.extend(of_one.into_iter().map(|turn| (client, turn)));
        }
        let waits = handovers(turns)?;
        tally.stretch(waits.len() as u64, slice);
        waits.into_iter().for_each(|wait| tally.wait(wait));
        Ok(())
    }
}

/// From each unlock to the lock of the other, where that was waiting already.
fn handovers(mut turns: Vec<(usize, TimedTurn)>) -> Result<Vec<Duration>> {
    turns.sort_by_key(|(_, turn)| turn.locked_ns);
    let mut waits = Vec::new();
    for pair in turns.windows(2) {
        let [(giver, gave), (taker, took)] = pair else { unreachable!("windows of two") };
        if took.locked_ns < gave.unlocked_ns {
            return Err(BenchFailure::Wrong("two processes held one lock at the same time".into()));
        }
        if giver != taker && took.asked_ns < gave.unlocked_ns {
            waits.push(Duration::from_nanos(took.locked_ns - gave.unlocked_ns));
        }
    }
    Ok(waits)
}

/// A waiter here, a holder in a child process that is killed.
struct HolderKilled<W, L> {
    waiter: W,
    holder: LockJob<L>,
}

struct HolderKilledVisitor<L>(L, u32);

impl<L: SharedLock> Visitor for HolderKilledVisitor<L> {
    type Output = Box<dyn Contender>;

    fn visit(self, waiter: impl OpenLock + 'static) -> Result<Box<dyn Contender>> {
        let holder = LockJob::Hold { lock: self.0, resident_mib: self.1 };
        Ok(Box::new(HolderKilled { waiter, holder }))
    }
}

impl<W: OpenLock, L: SharedLock> Contender for HolderKilled<W, L> {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        tally.stage(slice, || self.kill_one())
    }
}

impl<W: OpenLock, L: SharedLock> HolderKilled<W, L> {
    fn kill_one(&mut self) -> Result<Duration> {
        let mut holder = ChildWorker::start(&self.holder)?;
        let () = holder.reply()?;
        let pid = holder.pid();
        let killer = thread::spawn(move || {
            // By then the waiter waits in earnest.
            thread::sleep(Duration::from_millis(5));
            let killed = Instant::now();
            kill_process(pid, Signal::KILL).map(|()| killed)
        });
        let locked = self.waiter.take_over()?;
        let killed = killer
            .join()
            .expect("it does not panic")
            .map_err(|error| BenchFailure::io("cannot kill a holder")(error.into()))?;
        if locked < killed {
            return Err(BenchFailure::Wrong(
                "a lock was obtained while another process held it".into(),
            ));
        }
        Ok(locked - killed)
    }
}

#[cfg(test)]
mod tests;
