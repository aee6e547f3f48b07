//! Several processes at one name: readers beside each other, takers of permits at their limit, a writer
//! under a storm of readers.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tierlock::{LockManager, Scope};

use crate::{
    bench::{
        failure::Result,
        progress::Progress,
        worker::{self, ChildWorker},
    },
    measure::{Measure, Unit},
    peers::{
        field::Field,
        shared::{PosixPermits, PthreadRwLock, SharedFlock},
    },
};

const PROCESSES: [u64; 3] = [2, 4, 8];
/// So many processes take permits, of half as many.
const TAKERS: u64 = 4;
/// Readers without a pause while one writes.
const STORM: u64 = 3;
/// A writer that came in by then is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_WRITES: Duration = Duration::from_millis(2);

/// What a child process does without a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cycle {
    Read,
    ReadPthread,
    ReadFlock,
    Permit,
    PermitPosix,
}

impl Cycle {
    /// What the figure is called.
    const fn what(self) -> &'static str {
        match self {
            Cycle::Read => "readers_in_processes",
            Cycle::ReadPthread => "readers_in_processes_pthread_rwlock",
            Cycle::ReadFlock => "readers_in_processes_flock",
            Cycle::Permit => "permits_in_processes_at_their_limit",
            Cycle::PermitPosix => "permits_in_processes_at_their_limit_sem_t",
        }
    }

    /// The same of a writer's worst wait.
    const fn worst(self) -> &'static str {
        match self {
            Cycle::Read => "writers_worst_wait_under_a_storm_of_readers",
            Cycle::ReadPthread => "writers_worst_wait_under_a_storm_of_readers_pthread_rwlock",
            _ => "writers_worst_wait_under_a_storm_of_readers_flock",
        }
    }
}

/// A child process that reads, or takes permits, for as long as it is ordered to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShareInCrowd {
    crowd_directory: PathBuf,
    cycle: Cycle,
}

impl worker::ChildJob for ShareInCrowd {
    fn work(self) -> Result<()> {
        let mut cycle = self.open()?;
        cycle()?;
        for milliseconds in worker::ready::<u64>() {
            let (begin, mut cycles) = (Instant::now(), 0_u64);
            let end = begin + Duration::from_millis(milliseconds);
            while Instant::now() < end {
                for _ in 0..64 {
                    cycle()?;
                }
                cycles += 64;
            }
            worker::say(cycles as f64 / begin.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

impl ShareInCrowd {
    fn open(&self) -> Result<Box<dyn FnMut() -> Result<()>>> {
        let directory = &self.crowd_directory;
        let locks = || LockManager::builder().directory(directory).open();
        Ok(match self.cycle {
            Cycle::Read => {
                let lock = locks()?.rw_lock("crowd", ()).scope(Scope::Process).build()?;
                Box::new(move || {
                    drop(lock.read()?);
                    Ok(())
                })
            }
            Cycle::Permit => {
                let permits = locks()?.semaphore("permits", TAKERS as u32 / 2);
                let permits = permits.scope(Scope::Process).build()?;
                Box::new(move || {
                    drop(permits.acquire()?);
                    Ok(())
                })
            }
            Cycle::ReadPthread => {
                let lock = PthreadRwLock::open(&directory.join("pthread"))?;
                Box::new(move || lock.read())
            }
            Cycle::ReadFlock => {
                let lock = SharedFlock::open(&directory.join("flock"))?;
                Box::new(move || lock.read())
            }
            Cycle::PermitPosix => {
                let permits = PosixPermits::open(&directory.join("sem_t"))?;
                Box::new(move || permits.cycle())
            }
        })
    }

    fn start(directory: &Path, cycle: Cycle, count: u64) -> Result<Vec<ChildWorker>> {
        let job = ShareInCrowd { crowd_directory: directory.to_owned(), cycle };
        (0..count).map(|_| ChildWorker::start(&job)).collect()
    }
}

pub(super) fn measure(
    field: &mut Field,
    each: Duration,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let directory = field.new_directory("modes-crowd")?;
    PthreadRwLock::create(&directory.join("pthread"))?;
    PosixPermits::create(&directory.join("sem_t"), TAKERS as u32 / 2)?;
    let milliseconds = each.as_millis() as u64;
    let mut together = |cycle: Cycle, count: u64| -> Result<()> {
        progress.says(&format!("{} {count}", cycle.what()));
        let mut crowd = ShareInCrowd::start(&directory, cycle, count)?;
        let paces: Vec<f64> = worker::all(&mut crowd, &milliseconds)?;
        let value = paces.iter().sum();
        measures.push(Measure { what: cycle.what(), at: count, value, unit: Unit::PerSecond });
        Ok(())
    };
    for count in PROCESSES {
        for cycle in [Cycle::Read, Cycle::ReadPthread, Cycle::ReadFlock] {
            together(cycle, count)?;
        }
    }
    for cycle in [Cycle::Permit, Cycle::PermitPosix] {
        together(cycle, TAKERS)?;
    }
    for cycle in [Cycle::Read, Cycle::ReadPthread, Cycle::ReadFlock] {
        progress.says(cycle.worst());
        let value = worst_wait(&directory, cycle, each)?.as_nanos() as f64;
        measures.push(Measure { what: cycle.worst(), at: STORM, value, unit: Unit::Ns });
    }
    Ok(())
}

/// The longest that a writer waited that came again and again; at most [`PATIENCE`].
fn worst_wait(directory: &PathBuf, cycle: Cycle, each: Duration) -> Result<Duration> {
    let mut write: Box<dyn FnMut() -> Result<()>> = match cycle {
        Cycle::Read => {
            let locks = LockManager::builder().directory(directory).open()?;
            let lock = locks.rw_lock("crowd", ()).scope(Scope::Process).build()?;
            Box::new(move || {
                drop(lock.write()?);
                Ok(())
            })
        }
        Cycle::ReadPthread => {
            let lock = PthreadRwLock::open(&directory.join("pthread"))?;
            Box::new(move || lock.write_until(Instant::now() + PATIENCE).map(drop))
        }
        _ => {
            let lock = SharedFlock::open(&directory.join("flock"))?;
            Box::new(move || lock.write())
        }
    };
    let mut storm = ShareInCrowd::start(directory, cycle, STORM)?;
    // It blows for longer than it is written.
    for reader in &mut storm {
        reader.order(&((each + PATIENCE).as_millis() as u64))?;
    }
    let (end, mut worst) = (Instant::now() + each, Duration::ZERO);
    while Instant::now() < end {
        let asked = Instant::now();
        write()?;
        worst = worst.max(asked.elapsed());
        std::thread::sleep(BETWEEN_WRITES);
    }
    Ok(worst)
}
