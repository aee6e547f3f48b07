//! How memory, disk and the cost of a grant grow with names and sessions.
//!
//! The leader is a process of its own here, so that its memory and its processor time are its.
//! Everything goes through the public API: real sessions, real connections, real grants.

use std::{
    fmt::Write,
    fs,
    future::{Future, poll_fn},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::{runtime::Runtime, sync::Semaphore};

use super::{
    failure::{Failure, Result},
    grounds::Grounds,
    human,
    machine::Machine,
    progress::Progress,
    run::Contender,
    stats::{Pace, Tally},
    thread::Quiet,
    worker::{Job, Reply, Worker, unexpected},
};
use crate::{Keep, LockManager, MutexGuard, Scope};

/// Names at which grants are timed; and at the most there are to be.
const SIZES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
/// How long names may take to be made before the larger sizes are given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The words of the JSON.
pub(super) const HELD: &str = "leader_bytes_per_held_lock";
pub(super) const DISK: &str = "disk_bytes_per_name";
const WAITER: &str = "leader_bytes_per_waiter";
const SESSION: &str = "leader_bytes_per_session";
const RESIDENT: &str = "leader_bytes_with_sessions";
const IDLE_CPU: &str = "leader_cpu_idle_sessions";
const PROCESS_GRANT: &str = "process_grant";
const HOST_GRANT: &str = "host_grant";

/// One figure, and with how many of what it was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Measure {
    pub(crate) what: &'static str,
    pub(crate) at: u64,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Bytes,
    Ns,
    /// Of one processor.
    Percent,
}

#[derive(Serialize)]
pub(super) struct Scale {
    machine: Machine,
    measures: Vec<Measure>,
}

/// Everything, up to so many names.
pub(super) fn run(scope: Option<Scope>, names: u64) -> Result<Scale> {
    let mut grounds = Grounds::new(false)?;
    let progress = Progress::of_unknown_length();
    let mut measures = Vec::new();
    if scope.is_none_or(|scope| scope == Scope::Process) {
        process_grants(&grounds, names, &progress, &mut measures)?;
        measures.push(disk(&grounds, names.min(100_000))?);
    }
    if scope.is_none_or(|scope| scope == Scope::Host) {
        host_grants(&mut grounds, names, &progress, &mut measures)?;
        sessions(&mut grounds, [names / 1_000, names / 500], &progress, &mut measures)?;
    }
    Ok(Scale { machine: Machine::this(), measures })
}

fn sizes(names: u64) -> impl Iterator<Item = u64> {
    SIZES.into_iter().filter(move |&size| size < names).chain([names])
}

/// The two that have a budget.
pub(super) fn budgeted(
    scope: Option<Scope>,
    grounds: &mut Grounds,
    names: u64,
) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    if scope.is_none_or(|scope| scope == Scope::Process) {
        measures.push(disk(grounds, names)?);
    }
    if scope.is_none_or(|scope| scope == Scope::Host) {
        let mut house = House::start(grounds)?;
        // The first request makes what belongs to the session, or to nobody.
        house.hold(0..1)?;
        let before = house.resident()?;
        house.hold(1..names)?;
        measures.push(house.per(HELD, names, before)?);
    }
    Ok(measures)
}

/// Lock and unlock of names made at run time, out of ever more that the directory knows.
fn process_grants(
    grounds: &Grounds,
    names: u64,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let locks = LockManager::builder().directory(grounds.directory("scale")?).open()?;
    let take = |number: u64| -> Result<()> {
        drop(locks.mutex(name(number), ()).scope(Scope::Process).lock()?);
        Ok(())
    };
    let (mut known, started) = (0, Instant::now());
    for size in sizes(names) {
        progress.says(&format!("process: making {size} names"));
        while known < size {
            if started.elapsed() > PATIENCE {
                return Ok(());
            }
            take(known)?;
            known += 1;
        }
        let mut walk = Walk::over(size);
        let value = median_ns(|| take(walk.next()))?;
        measures.push(Measure { what: PROCESS_GRANT, at: size, value, unit: Unit::Ns });
    }
    Ok(())
}

/// What the directory takes up, by the file system's account.
fn disk(grounds: &Grounds, names: u64) -> Result<Measure> {
    let directory = grounds.directory("scale-disk")?;
    let locks = LockManager::builder().directory(&directory).open()?;
    let take = |number: u64| -> Result<()> {
        // 40 bytes.
        let name = format!("a/name/of/forty/bytes/{number:018}");
        drop(locks.mutex(name, ()).scope(Scope::Process).lock()?);
        Ok(())
    };
    take(names)?;
    let before = taken_up(&directory)?;
    (0..names).try_for_each(take)?;
    let value = taken_up(&directory)?.saturating_sub(before) as f64 / names as f64;
    Ok(Measure { what: DISK, at: names, value, unit: Unit::Bytes })
}

fn taken_up(directory: &Path) -> Result<u64> {
    let failed = || Failure::io(format!("cannot look into {}", directory.display()));
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let about = entry.metadata().map_err(failed())?;
        bytes += about.blocks() * 512;
        if about.is_dir() {
            bytes += taken_up(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Grants with ever more names held, and what these cost the leader's memory.
fn host_grants(
    grounds: &mut Grounds,
    names: u64,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let mut house = House::start(grounds)?;
    let caller = house.connect()?;
    let wanted = (0..1_000)
        .map(|number| {
            let mutex = caller.mutex(format!("wanted/{number}"), ()).scope(Scope::Host);
            Ok(mutex.keep(Keep::Never).build()?)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut walk = Walk::over(wanted.len() as u64);
    let mut cycle = || {
        drop(wanted[walk.next() as usize].lock()?);
        Ok(())
    };
    // What a first use makes belongs to nobody's price.
    median_ns(&mut cycle)?;
    let before = house.resident()?;
    let started = Instant::now();
    for size in sizes(names) {
        progress.says(&format!("host: holding {size} names"));
        if started.elapsed() > PATIENCE {
            break;
        }
        house.hold(house.held()..size)?;
        let value = median_ns(&mut cycle)?;
        measures.push(Measure { what: HOST_GRANT, at: size, value, unit: Unit::Ns });
    }
    measures.push(house.per(HELD, house.held(), before)?);

    // All but one, which nobody here waits for: what becomes of a try of it only the leader knows.
    let waiters = (house.held() - 1).min(100_000);
    progress.says(&format!("host: {waiters} waiters"));
    let before = house.resident()?;
    let _waiting = house.wait(waiters)?;
    measures.push(house.per(WAITER, waiters, before)?);
    Ok(())
}

/// What sessions cost that have taken a lock once and are idle since.
fn sessions(
    grounds: &mut Grounds,
    sizes: [u64; 2],
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let sizes = sizes.map(|size| size.max(2));
    raise_open_files()?;
    let house = House::start(grounds)?;
    let mut sessions = Vec::new();
    let mut resident = Vec::new();
    for size in sizes {
        progress.says(&format!("host: {size} sessions"));
        while (sessions.len() as u64) < size {
            let locks = house.connect()?;
            drop(locks.mutex(format!("session/{}", sessions.len()), ()).scope(Scope::Host).lock()?);
            sessions.push(locks);
        }
        let value = house.resident()? as f64;
        measures.push(Measure { what: RESIDENT, at: size, value, unit: Unit::Bytes });
        resident.push(value);
    }
    let more = (sizes[1] - sizes[0]).max(1) as f64;
    let value = (resident[1] - resident[0]) / more;
    measures.push(Measure { what: SESSION, at: sizes[1], value, unit: Unit::Bytes });

    progress.says("host: leaving the sessions idle");
    let idle_for = Duration::from_millis(5 * sizes[1]).max(Duration::from_millis(500));
    let before = house.processor_ns()?;
    thread::sleep(idle_for);
    let used_ns = house.processor_ns()? - before;
    let value = used_ns as f64 / idle_for.as_nanos() as f64 * 100.0;
    measures.push(Measure { what: IDLE_CPU, at: sizes[1], value, unit: Unit::Percent });
    Ok(())
}

/// A leader in a process of its own, and what is held there.
struct House {
    leader: Worker,
    address: String,
    secret_file: PathBuf,
    runtime: Arc<Runtime>,
    holders: Vec<LockManager>,
    guards: Vec<MutexGuard<'static, ()>>,
}

/// Below a leader's limit per session.
const NAMES_PER_SESSION: u64 = 60_000;
/// Requests under way at the same time.
const IN_FLIGHT: u64 = 256;

impl House {
    fn start(grounds: &mut Grounds) -> Result<House> {
        let secret_file = grounds.secret_file()?;
        let mut leader = Worker::start(Job::Serve {
            listen: "127.0.0.1:0".into(),
            state_dir: grounds.new_directory("scale-leader")?,
            secret_file: secret_file.clone(),
        })?;
        let address = match leader.reply()? {
            Reply::Serving { port } => format!("127.0.0.1:{port}"),
            other => return Err(unexpected(&other)),
        };
        let (runtime, holders, guards) = (grounds.runtime()?, Vec::new(), Vec::new());
        Ok(House { leader, address, secret_file, runtime, holders, guards })
    }

    fn connect(&self) -> Result<LockManager> {
        Ok(LockManager::builder()
            .leaders([&self.address])
            .secret_file(&self.secret_file)
            .label("bench")
            .time_to_live(Duration::from_secs(60))
            .open()?)
    }

    fn held(&self) -> u64 {
        self.guards.len() as u64
    }

    /// Takes these names, of 16 bytes each, and keeps them.
    fn hold(&mut self, names: Range<u64>) -> Result<()> {
        let mut tasks = Vec::new();
        for first in names.clone().step_by(NAMES_PER_SESSION as usize) {
            let locks = self.connect()?;
            self.holders.push(locks.clone());
            let last = (first + NAMES_PER_SESSION).min(names.end);
            for lane in 0..IN_FLIGHT.min(last - first) {
                let locks = locks.clone();
                let mine = (first + lane..last).step_by(IN_FLIGHT as usize);
                tasks.push(self.runtime.spawn(async move {
                    let mut guards = Vec::new();
                    for number in mine {
                        let mutex = locks.mutex(name(number), ()).scope(Scope::Host);
                        guards.push(mutex.keep(Keep::Never).lock_async().await?);
                    }
                    Ok::<_, Failure>(guards)
                }));
            }
        }
        for task in tasks {
            self.guards.extend(self.runtime.block_on(task).expect("it does not panic")?);
        }
        Ok(())
    }

    /// Waits for so many of the held names, in sessions of their own.
    fn wait(&self, waiters: u64) -> Result<Vec<tokio::task::JoinHandle<()>>> {
        let mut waiting = Vec::new();
        for first in (0..waiters).step_by(NAMES_PER_SESSION as usize) {
            let locks = self.connect()?;
            let last = (first + NAMES_PER_SESSION).min(waiters);
            let asked = Arc::new(Semaphore::new(0));
            for number in first..last {
                let (locks, asked) = (locks.clone(), asked.clone());
                waiting.push(self.runtime.spawn(async move {
                    let mutex = locks.mutex(name(number), ()).scope(Scope::Host);
                    let mut lock = pin!(mutex.lock_async());
                    let is_early = poll_fn(|context| Poll::Ready(lock.as_mut().poll(context)));
                    let early = is_early.await.is_ready();
                    asked.add_permits(1);
                    if !early {
                        let _ = lock.await;
                    }
                }));
            }
            let all = (last - first) as u32;
            drop(self.runtime.block_on(asked.acquire_many(all)).expect("it is not closed"));
            // Frames are read in their order: with this answer, all that came before are read.
            let held = locks.mutex(name(self.held() - 1), ()).scope(Scope::Host).build()?;
            match held.try_lock() {
                Err(error) if error.is_contended() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(Failure::Wrong("a held lock was to be had".into())),
            }
        }
        Ok(waiting)
    }

    fn resident(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| Failure::Wrong("a process without memory".into()))? * 1_024)
    }

    /// What a lock, waiter or session costs, given what there was without them.
    fn per(&self, what: &'static str, number: u64, before: u64) -> Result<Measure> {
        let value = self.resident()?.saturating_sub(before) as f64 / number.max(1) as f64;
        Ok(Measure { what, at: number, value, unit: Unit::Bytes })
    }

    fn processor_ns(&self) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.leader.pid().as_raw_nonzero());
        let failed = || Failure::io(format!("cannot read {tasks}"));
        let mut sum_ns = 0;
        for task in fs::read_dir(&tasks).map_err(failed())? {
            let file = task.map_err(failed())?.path().join("schedstat");
            // A thread may end meanwhile.
            let times = fs::read_to_string(file).unwrap_or_default();
            sum_ns += times.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum_ns)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.leader.pid().as_raw_nonzero());
        fs::read_to_string(&path).map_err(Failure::io(format!("cannot read {path}")))
    }
}

/// 16 bytes.
fn name(number: u64) -> String {
    format!("name/{number:011}")
}

/// Visits all numbers below a size, in an order that no cache likes.
struct Walk {
    at: u64,
    size: u64,
    step: u64,
}

impl Walk {
    fn over(size: u64) -> Walk {
        // A prime that no power of ten has as a factor.
        Walk { at: 0, size, step: 618_033_989 % size.max(1) }
    }

    fn next(&mut self) -> u64 {
        self.at = (self.at + self.step) % self.size;
        self.at
    }
}

/// What one cycle costs in the middle.
fn median_ns(cycle: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut quiet = Quiet(cycle);
    let mut warm_up = Tally::new(Pace::OneByOne);
    quiet.run(Duration::from_millis(50), &mut warm_up)?;
    let mut tally = Tally::new(warm_up.suited_pace());
    quiet.run(Duration::from_secs(1), &mut tally)?;
    Ok(tally.summary().p50_ns)
}

/// Every session has a socket or more.
fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| Failure::io("cannot raise the limit of open files")(error.into()))
}

impl Scale {
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.machine.heading();
        for Measure { what, at, value, unit } in &self.measures {
            let value = match unit {
                Unit::Bytes => human::bytes(*value),
                Unit::Ns => human::time(*value),
                Unit::Percent => format!("{value:.1} %"),
            };
            let at = human::count(*at as f64);
            let _ = writeln!(text, "{:<52}{at:>8}{value:>12}", title(what));
        }
        text += "\n";
        for what in [PROCESS_GRANT, HOST_GRANT] {
            if let Some(growth) = self.growth(what) {
                let _ = writeln!(
                    text,
                    "{}: growth {} × (goal ≤ 2)",
                    title(what),
                    human::multiple(growth)
                );
            }
        }
        text
    }

    /// The figure at the largest size over that at the smallest.
    fn growth(&self, what: &str) -> Option<f64> {
        let mut of_it = self.measures.iter().filter(|measure| measure.what == what);
        let (first, last) = (of_it.next()?, of_it.next_back()?);
        Some(last.value / first.value)
    }
}

fn title(what: &'static str) -> &'static str {
    match what {
        HELD => "leader's memory per held lock (16-byte names)",
        WAITER => "leader's memory per waiter",
        SESSION => "leader's memory per session (slope)",
        RESIDENT => "leader's memory with idle sessions",
        IDLE_CPU => "leader's processor with idle sessions",
        DISK => "disk per name at process scope (40-byte names)",
        PROCESS_GRANT => "process: lock and unlock by name, among names",
        HOST_GRANT => "host: lock and unlock, beside names held",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn walk_visits_every_number() {
        for size in SIZES {
            let mut walk = Walk::over(size);
            let visited: BTreeSet<u64> = (0..size.min(1_000)).map(|_| walk.next()).collect();
            assert_eq!(visited.len() as u64, size.min(1_000));
            assert!(visited.iter().all(|&number| number < size));
        }
    }

    #[test]
    fn names_have_the_length_that_is_promised() {
        assert_eq!(name(0).len(), 16);
        assert_eq!(name(1_000_000).len(), 16);
    }

    #[test]
    fn growth_is_that_of_the_outermost_sizes() {
        let measure = |at, value| Measure { what: HOST_GRANT, at, value, unit: Unit::Ns };
        let scale = Scale {
            machine: Machine::this(),
            measures: vec![measure(10, 5.0), measure(1_000, 50.0), measure(100_000, 10.0)],
        };
        assert_eq!(scale.growth(HOST_GRANT), Some(2.0));
        assert_eq!(scale.growth(PROCESS_GRANT), None);
    }
}
