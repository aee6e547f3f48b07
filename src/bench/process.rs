//! Process scope: what a lock costs that is shared by the processes of a machine.

use std::{
    hint::black_box,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use super::{
    case::{Case, Label, TIERLOCK},
    failure::{Failure, Result, check_count},
    grounds::Grounds,
    run::{Contender, Entry},
    stats::Tally,
    thread::Quiet,
    worker::{Cross, CrossLock, FileCounter, Job, Order, Reply, Turn, Visitor, Worker, unexpected},
};
use crate::{LockManager, Scope};

pub(crate) fn quiet(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    subjects(grounds, Case::Quiet)?
        .into_iter()
        .map(|(subject, lock)| {
            let label = Label::new(Scope::Process, Case::Quiet);
            let label = Label { subject, note: guarantees(subject), ..label };
            Ok(Entry { label, contender: lock.open(QuietVisitor)? })
        })
        .collect()
}

/// One caller of the lock in this process, which counts under it.
struct QuietVisitor;

impl Visitor for QuietVisitor {
    type Output = Box<dyn Contender>;

    fn visit(self, mut lock: impl Cross + 'static) -> Result<Box<dyn Contender>> {
        let mut count = 0_u64;
        Ok(Box::new(Quiet(move || lock.with(|| count = black_box(count + 1)))))
    }
}

pub(crate) fn processes_empty(grounds: &mut Grounds, count: u32) -> Result<Vec<Entry>> {
    contending(grounds, Case::ProcessesEmpty, count, Duration::ZERO)
}

pub(crate) fn processes_200us(grounds: &mut Grounds, count: u32) -> Result<Vec<Entry>> {
    contending(grounds, Case::Processes200us, count, Duration::from_micros(200))
}

fn contending(grounds: &mut Grounds, case: Case, count: u32, hold: Duration) -> Result<Vec<Entry>> {
    let directory = grounds.directory("process")?;
    subjects(grounds, case)?
        .into_iter()
        .map(|(subject, lock)| {
            let counter = directory.join(format!("{}-{count}-{subject}.count", case.as_str()));
            let note = guarantees(subject);
            let label = Label { subject, note, ..processes(case, count) };
            Ok(Entry::new(label, Processes::start(lock, count, &counter, hold)?))
        })
        .collect()
}

pub(crate) fn handover(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    subjects(grounds, Case::Handover)?
        .into_iter()
        .map(|(subject, lock)| {
            let note = guarantees(subject);
            let label = Label { subject, note, ..processes(Case::Handover, 2) };
            Ok(Entry::new(label, TakingTurns::start(lock)?))
        })
        .collect()
}

/// The holder has so much memory in use: the kernel frees it before it closes the holder's files.
pub(crate) fn holder_killed(grounds: &mut Grounds, resident_mib: u32) -> Result<Vec<Entry>> {
    let label = Label {
        resident_mib: Some(resident_mib),
        note: Some("from a holder's SIGKILL to the waiter's lock; 64 MiB in use if not said"),
        ..processes(Case::HolderKilled, 2)
    };
    // The holder before may still be on its way out.
    if !grounds.has_memory_for(&label.title(), (u64::from(resident_mib) << 20) * 2) {
        return Ok(Vec::new());
    }
    subjects(grounds, Case::HolderKilled)?
        .into_iter()
        .map(|(subject, lock)| {
            let label = Label { subject, ..label.clone() };
            let contender = lock.open(HolderKilledVisitor(lock.clone(), resident_mib))?;
            Ok(Entry { label, contender })
        })
        .collect()
}

fn processes(case: Case, count: u32) -> Label {
    Label { clients: count, processes: count, ..Label::new(Scope::Process, case) }
}

pub(crate) fn names(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let locks = open(&grounds.directory("process-names")?)?;
    let mut next = 0_u32;
    Ok(vec![Entry::new(
        Label {
            note: Some("10,000 names made at run time: build, lock, unlock, drop"),
            ..Label::new(Scope::Process, Case::Names)
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

fn open(directory: &Path) -> Result<LockManager> {
    Ok(LockManager::builder().directory(directory).label("bench").open()?)
}

/// The locks that are measured in a case: ours, and what it is compared with.
fn subjects(grounds: &mut Grounds, case: Case) -> Result<Vec<(&'static str, CrossLock)>> {
    let name = case.as_str().to_owned();
    let ours = CrossLock::Tierlock { directory: grounds.directory("process")?, name };
    let theirs = super::peers::cross_locks(grounds, case)?;
    let theirs = theirs.into_iter().map(|(subject, lock)| (subject, CrossLock::Peer { lock }));
    Ok([(TIERLOCK, ours)].into_iter().chain(theirs).collect())
}

/// What a reader must know who compares its row with others: `guarantees.txt` says more.
fn guarantees(subject: &str) -> Option<&'static str> {
    match subject {
        TIERLOCK => {
            Some("in order for who waited over 1 ms; with tokens; tells how the last one left")
        }
        "robust-pthread" => Some("no order, no token; tells that its last holder died"),
        "posix-semaphore" => Some("no order, no token; once its holder is killed, locked for ever"),
        "flock" | "ofd" | "named-lock" | "fd-lock" => {
            Some("no order, no token; freed when its holder dies, and nobody is told")
        }
        _ => None,
    }
}

/// Child processes that want one lock and never pause.
struct Processes {
    workers: Vec<Worker>,
    counter: FileCounter,
    counted: u64,
}

impl Processes {
    fn start(lock: CrossLock, count: u32, counter: &Path, hold: Duration) -> Result<Processes> {
        let file = FileCounter::create(counter)?;
        let job =
            Job::Contend { lock, counter: counter.to_owned(), hold_us: hold.as_micros() as u64 };
        let workers = (0..count).map(|_| Worker::start(job.clone())).collect::<Result<_>>()?;
        Ok(Processes { workers, counter: file, counted: 0 })
    }
}

impl Contender for Processes {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let order = Order::soon(slice, tally.pace());
        for worker in &mut self.workers {
            worker.order(order)?;
        }
        let mut tallies = Vec::new();
        for worker in &mut self.workers {
            match worker.reply()? {
                Reply::Contended { seen, counted } => {
                    tallies.push(Tally::from_seen(seen));
                    self.counted += counted;
                }
                other => return Err(unexpected(&other)),
            }
        }
        tally.side_by_side(tallies);
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        check_count(format!("{} processes", self.workers.len()), self.counter.get()?, self.counted)
    }
}

/// Two processes that hand a lock to and fro.
struct TakingTurns {
    workers: [Worker; 2],
}

impl TakingTurns {
    /// Held for longer than the pause, so that the other always waits when it is let go.
    const HOLD: Duration = Duration::from_millis(3);
    const PAUSE: Duration = Duration::from_millis(2);

    fn start(lock: CrossLock) -> Result<TakingTurns> {
        let job = Job::TakeTurns {
            lock,
            hold_us: TakingTurns::HOLD.as_micros() as u64,
            pause_us: TakingTurns::PAUSE.as_micros() as u64,
        };
        Ok(TakingTurns { workers: [Worker::start(job.clone())?, Worker::start(job)?] })
    }
}

impl Contender for TakingTurns {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        // A few turns each, however short the slice.
        let slice = slice.max(TakingTurns::HOLD * 5);
        let order = Order::soon(slice, tally.pace());
        for worker in &mut self.workers {
            worker.order(order)?;
        }
        let mut turns = Vec::new();
        for (client, worker) in self.workers.iter_mut().enumerate() {
            match worker.reply()? {
                Reply::TookTurns { turns: of_one } => {
                    turns.extend(of_one.into_iter().map(|turn| (client, turn)));
                }
                other => return Err(unexpected(&other)),
            }
        }
        let waits = handovers(turns)?;
        tally.stretch(waits.len() as u64, slice);
        waits.into_iter().for_each(|wait| tally.wait(wait));
        Ok(())
    }
}

/// From each unlock to the lock of the other, where that was waiting already.
fn handovers(mut turns: Vec<(usize, Turn)>) -> Result<Vec<Duration>> {
    turns.sort_by_key(|(_, turn)| turn.locked_ns);
    let mut waits = Vec::new();
    for pair in turns.windows(2) {
        let [(giver, gave), (taker, took)] = pair else { unreachable!("windows of two") };
        if took.locked_ns < gave.unlocked_ns {
            return Err(Failure::Wrong("two processes held one lock at the same time".into()));
        }
        if giver != taker && took.asked_ns < gave.unlocked_ns {
            waits.push(Duration::from_nanos(took.locked_ns - gave.unlocked_ns));
        }
    }
    Ok(waits)
}

/// A waiter here, a holder in a child process that is killed.
struct HolderKilled<L> {
    waiter: L,
    holder: CrossLock,
    resident_mib: u32,
}

struct HolderKilledVisitor(CrossLock, u32);

impl Visitor for HolderKilledVisitor {
    type Output = Box<dyn Contender>;

    fn visit(self, waiter: impl Cross + 'static) -> Result<Box<dyn Contender>> {
        Ok(Box::new(HolderKilled { waiter, holder: self.0, resident_mib: self.1 }))
    }
}

impl<L: Cross> Contender for HolderKilled<L> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let started = Instant::now();
        let mut kills = 0;
        loop {
            tally.wait(self.kill_one()?);
            kills += 1;
            let took = started.elapsed();
            if took >= slice {
                tally.stretch(kills, took);
                return Ok(());
            }
        }
    }
}

impl<L: Cross> HolderKilled<L> {
    fn kill_one(&mut self) -> Result<Duration> {
        let (lock, resident_mib) = (self.holder.clone(), self.resident_mib);
        let mut holder = Worker::start(Job::Hold { lock, resident_mib })?;
        match holder.reply()? {
            Reply::Held => {}
            other => return Err(unexpected(&other)),
        }
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
            .map_err(|error| Failure::io("cannot kill a holder")(error.into()))?;
        if locked < killed {
            return Err(Failure::Wrong("a lock was obtained while another process held it".into()));
        }
        Ok(locked - killed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(asked_ns: u64, locked_ns: u64, unlocked_ns: u64) -> Turn {
        Turn { asked_ns, locked_ns, unlocked_ns }
    }

    #[test]
    fn handover_counts_only_where_the_other_was_waiting() {
        let turns = vec![
            (0, turn(0, 1, 10)),
            (1, turn(5, 12, 20)),  // waited since 5: 2 ns after the unlock
            (1, turn(21, 22, 30)), // took it twice
            (0, turn(35, 36, 40)), // did not wait
        ];
        assert_eq!(handovers(turns).unwrap(), [Duration::from_nanos(2)]);
    }

    #[test]
    fn overlapping_turns_are_a_failure() {
        let turns = vec![(0, turn(0, 1, 10)), (1, turn(5, 9, 20))];
        let failure = handovers(turns).unwrap_err();
        assert_eq!(failure.exit_code(), 70);
    }
}
