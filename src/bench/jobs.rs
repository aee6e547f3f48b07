//! What the processes do that share a lock, and how a lock is told to them.

use std::{
    fs::File,
    hint::{black_box, spin_loop},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tierlock::{LockManager, Mutex, MutexGuard, Predecessor, Scope};

use super::{
    failure::{BenchFailure, Result},
    stats::{Meter, Pace, RowTally, SentTally},
    worker,
};

/// A lock that processes share, in words that another process can open it by.
pub(crate) trait SharedLock: Clone + Serialize + DeserializeOwned + 'static {
    /// Opens it and shows it to the visitor.
    fn open<V: Visitor>(&self, visitor: V) -> Result<V::Output>;
}

/// An open lock that other processes take too.
pub(crate) trait OpenLock {
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R>;

    /// Locks and unlocks after a holder was killed, and says when it had the lock.
    fn take_over(&mut self) -> Result<Instant> {
        self.with(Instant::now)
    }
}

/// What is done with an open lock of any kind; compiled for each, so that nothing stands between
/// the measurement and the lock.
pub(crate) trait Visitor {
    type Output;

    fn visit(self, lock: impl OpenLock + 'static) -> Result<Self::Output>;
}

/// A lock of tierlock at process scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OwnLock {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
}

impl SharedLock for OwnLock {
    fn open<V: Visitor>(&self, visitor: V) -> Result<V::Output> {
        let locks = LockManager::builder().directory(&self.directory).open()?;
        visitor.visit(OwnOpenLock(locks.mutex(&self.name, ()).scope(Scope::Process).build()?))
    }
}

struct OwnOpenLock(Mutex<()>);

impl OpenLock for OwnOpenLock {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let _guard = self.0.lock()?;
        Ok(section())
    }

    fn take_over(&mut self) -> Result<Instant> {
        let guard = self.0.lock()?;
        let locked = Instant::now();
        match MutexGuard::predecessor(&guard) {
            Predecessor::Died => Ok(locked),
            other => Err(BenchFailure::Wrong(format!(
                "the killed holder was said to have left the lock {other}, not died"
            ))),
        }
    }
}

/// What a child process does with a lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", bound = "L: SharedLock")]
pub(crate) enum LockJob<L> {
    /// Locks and unlocks without a pause, for as long as each order says; replies [`Contended`].
    Contend { lock: L, counter: PathBuf, hold_us: u64 },
    /// Locks, sleeps, unlocks, sleeps, so that the lock changes hands each time; replies [`TimedTurn`]s.
    TakeTurns { lock: L, hold_us: u64, pause_us: u64 },
    /// Locks with so much memory in use, says so, and never releases.
    Hold { lock: L, resident_mib: u32 },
}

impl<L: SharedLock> worker::ChildJob for LockJob<L> {
    fn work(self) -> Result<()> {
        match self {
            LockJob::Contend { lock, counter, hold_us } => {
                let counter = FileCounter::open(&counter)?;
                lock.open(Contending { counter, hold: Duration::from_micros(hold_us) })
            }
            LockJob::TakeTurns { lock, hold_us, pause_us } => {
                let hold = Duration::from_micros(hold_us);
                lock.open(TakingTurns { hold, pause: Duration::from_micros(pause_us) })
            }
            LockJob::Hold { lock, resident_mib } => {
                // Written to, so that it is there.
                let _resident = black_box(vec![1_u8; (resident_mib as usize) << 20]);
                lock.open(HoldUntilKilled)
            }
        }
    }
}

/// Work from one moment to another; moments are nanoseconds on the clock of this machine, which
/// all its processes share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SliceOrder {
    start_ns: u64,
    end_ns: u64,
    pace: Pace,
}

impl SliceOrder {
    /// For a slice that starts as soon as every child has surely read this.
    pub(crate) fn soon(slice: Duration, pace: Pace) -> SliceOrder {
        let start_ns = now_ns() + 2_000_000;
        SliceOrder { start_ns, end_ns: start_ns + slice.as_nanos() as u64, pace }
    }

    /// Waits for its start and returns its length.
    fn wait(self) -> Duration {
        let to_go = Duration::from_nanos(self.start_ns.saturating_sub(now_ns()));
        thread::sleep(to_go.saturating_sub(Duration::from_micros(500)));
        while now_ns() < self.start_ns {
            spin_loop();
        }
        Duration::from_nanos(self.end_ns - self.start_ns)
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What a process saw that contends, and how often it counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Contended {
    pub(crate) seen: SentTally,
    pub(crate) counted: u64,
}

/// One turn: when the lock was asked for, obtained, and about to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TimedTurn {
    pub(crate) asked_ns: u64,
    pub(crate) locked_ns: u64,
    pub(crate) unlocked_ns: u64,
}

struct Contending {
    counter: FileCounter,
    hold: Duration,
}

impl Visitor for Contending {
    type Output = ();

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<()> {
        for order in worker::ready::<SliceOrder>() {
            let mut tally = RowTally::new(order.pace);
            let slice = order.wait();
            let counted = if self.hold.is_zero() {
                self.without_sections(slice, &mut tally, &mut lock)?
            } else {
                self.with_sections(slice, &mut tally, &mut lock)?
            };
            worker::say(Contended { seen: tally.to_seen(), counted });
        }
        Ok(())
    }
}

impl Contending {
    /// One slice with empty sections; returns how often it counted.
    fn without_sections(
        &self,
        slice: Duration,
        tally: &mut RowTally,
        lock: &mut impl OpenLock,
    ) -> Result<u64> {
        let (mut counted, mut until_counting) = (0, 0_u64);
        let mut meter = Meter::start(slice, tally);
        while let Some(cycles) = meter.next() {
            // Counting takes two system calls: often enough to notice a lock that does not
            // exclude, seldom enough, and not timed, to leave the sections empty.
            until_counting = until_counting.saturating_sub(cycles);
            if until_counting == 0 {
                until_counting = COUNTING_EVERY;
                lock.with(|| self.counter.increment())??;
                counted += 1;
                meter.resume();
            }
            for _ in 0..cycles {
                lock.with(|| {})?;
            }
        }
        Ok(counted)
    }

    /// One slice with sections that last; returns how often it counted.
    fn with_sections(
        &self,
        slice: Duration,
        tally: &mut RowTally,
        lock: &mut impl OpenLock,
    ) -> Result<u64> {
        tally.hold_again_and_again(slice, |tally, asked| {
            let locked = lock.with(|| {
                let locked = Instant::now();
                self.counter.increment()?;
                spin_until(locked + self.hold);
                Ok::<_, BenchFailure>(locked)
            })??;
            tally.wait(locked - asked);
            Ok(())
        })
    }
}

/// Cycles with empty sections between two that count.
const COUNTING_EVERY: u64 = 256;

/// Works for so long without giving up the processor.
pub(crate) fn spin_until(end: Instant) {
    while Instant::now() < end {
        spin_loop();
    }
}

struct TakingTurns {
    hold: Duration,
    pause: Duration,
}

impl Visitor for TakingTurns {
    type Output = ();

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<()> {
        for order in worker::ready::<SliceOrder>() {
            let slice = order.wait();
            let end = Instant::now() + slice;
            let mut turns = Vec::new();
            while Instant::now() < end {
                let asked_ns = now_ns();
                turns.push(lock.with(|| {
                    let locked_ns = now_ns();
                    thread::sleep(self.hold);
                    TimedTurn { asked_ns, locked_ns, unlocked_ns: now_ns() }
                })?);
                thread::sleep(self.pause);
            }
            worker::say(turns);
        }
        Ok(())
    }
}

struct HoldUntilKilled;

impl Visitor for HoldUntilKilled {
    type Output = ();

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<()> {
        let mut orders = worker::ready::<()>();
        lock.with(|| {
            worker::say(());
            // Until it is killed; or until its parent is gone.
            while orders.next().is_some() {}
        })
    }
}

/// A number in a file, which only a lock protects: increments that overlap are lost.
pub(crate) struct FileCounter(File);

impl FileCounter {
    pub(crate) fn create(path: &Path) -> Result<FileCounter> {
        std::fs::write(path, 0_u64.to_le_bytes())
            .map_err(BenchFailure::io(format!("cannot write {}", path.display())))?;
        FileCounter::open(path)
    }

    fn open(path: &Path) -> Result<FileCounter> {
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map(FileCounter)
            .map_err(BenchFailure::io(format!("cannot open {}", path.display())))
    }

    pub(crate) fn get(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0).map_err(BenchFailure::io("cannot read a counter"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn increment(&self) -> Result<()> {
        let more = self.get()? + 1;
        self.0
            .write_all_at(&more.to_le_bytes(), 0)
            .map_err(BenchFailure::io("cannot write a counter"))
    }
}
