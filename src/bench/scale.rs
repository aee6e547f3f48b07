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
    names::{self, Walk, median_ns},
    progress::Progress,
    worker::{Job, Reply, Worker, unexpected},
};
use crate::{Keep, LockManager, MutexGuard, Scope};

/// Names at which grants are timed; and at the most there are to be.
const SIZES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];
/// How long names may take to be made before the larger sizes are given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The words of the JSON.
pub(super) const HELD: &str = "leader_bytes_per_held_lock";
pub(super) const DISK: &str = "disk_bytes_per_name";
const WAITER: &str = "leader_bytes_per_waiter";
const SESSION: &str = "leader_bytes_per_session";
const RESIDENT: &str = "leader_bytes_with_sessions";
const RESIDENT_OF_NAMES: &str = "leader_bytes_with_held_locks";
const RESIDENT_OF_NONE: &str = "leader_bytes_without_sessions";
const IDLE_CPU: &str = "leader_cpu_idle_sessions";
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
    /// What was given up, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

/// How long each grant is timed, again and again.
const EACH: Duration = Duration::from_secs(1);
/// What a name that is held or waited for takes here and at the leader, on the safe side.
const BYTES_PER_NAME: u64 = 2_048;
/// What a session takes here and at the leader, on the safe side.
const BYTES_PER_SESSION: u64 = 256 << 10;
/// Below a leader's limit.
const SESSIONS_MAX: u64 = 8_000;

/// A comparison of so many seconds has a million names in a directory, and a tenth where only their
/// size counts; a shorter one has fewer.
const SECONDS_FOR_ALL: f64 = 100.0;
const NAMES_FOR_SIZE: f64 = 100_000.0;

/// Everything, up to so many names.
pub(super) fn run(scope: Option<Scope>, names: u64) -> Result<Scale> {
    let mut grounds = Grounds::new(false)?;
    let progress = Progress::of_unknown_length();
    let mut measures = Vec::new();
    if scope.is_none_or(|scope| scope == Scope::Process) {
        names::measure(&mut grounds, names, EACH, &progress, &mut measures)?;
        progress.says("process: disk per name");
        measures.push(disk(&grounds, names.min(SIZES[SIZES.len() - 1]))?);
    }
    if scope.is_none_or(|scope| scope == Scope::Host) {
        host_grants(&mut grounds, names, &progress, &mut measures)?;
        let most = SESSIONS_MAX.min(names / 500).max(4);
        sessions(&mut grounds, [most / 2, most], &progress, &mut measures)?;
    }
    Ok(Scale { machine: Machine::this(), measures, left_out: grounds.left_out })
}

pub(super) fn sizes(names: u64) -> impl Iterator<Item = u64> {
    SIZES.into_iter().filter(move |&size| size < names).chain([names])
}

/// What a comparison shows of it, in a run of so many seconds: names in a directory, and the two
/// that have a budget.
pub(super) fn in_short(
    scope: Option<Scope>,
    grounds: &mut Grounds,
    seconds: f64,
    progress: &Progress,
) -> Result<Vec<Measure>> {
    let part = (seconds / SECONDS_FOR_ALL).min(1.0);
    let names = ((NAMES_FOR_SIZE * part) as u64).max(10);
    let mut measures = Vec::new();
    if scope.is_none_or(|scope| scope == Scope::Process) {
        let in_a_directory = ((SIZES[SIZES.len() - 1] as f64 * part) as u64).max(10);
        names::measure(grounds, in_a_directory, EACH.mul_f64(part), progress, &mut measures)?;
        progress.says("process: disk per name");
        measures.push(disk(grounds, names)?);
    }
    if scope.is_none_or(|scope| scope == Scope::Host) {
        progress.says("host: memory per held name");
        let mut house = House::start(grounds)?;
        // The first request makes what belongs to the session, or to nobody.
        house.hold(0..1)?;
        let before = house.resident()?;
        house.hold(1..names)?;
        measures.push(house.per(HELD, names, before)?);
    }
    Ok(measures)
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
    median_ns(EACH, &mut cycle)?;
    let before = house.resident()?;
    measures.push(resident_with(0, before));
    for size in sizes(names) {
        progress.says(&format!("host: holding {size} names"));
        if !hold_up_to(size, &mut house, grounds)? {
            break;
        }
        let value = median_ns(EACH, &mut cycle)?;
        measures.push(Measure { what: HOST_GRANT, at: size, value, unit: Unit::Ns });
    }
    if house.held() == 0 {
        return Ok(());
    }
    measures.push(resident_with(house.held(), house.resident()?));
    measures.push(house.per(HELD, house.held(), before)?);

    // All but one, which nobody here waits for: what becomes of a try of it only the leader knows.
    let waiters = (house.held() - 1).min(100_000);
    if !grounds.has_memory_for(&format!("{waiters} waiters"), waiters * BYTES_PER_NAME) {
        return Ok(());
    }
    progress.says(&format!("host: {waiters} waiters"));
    let before = house.resident()?;
    let _waiting = house.wait(waiters)?;
    measures.push(house.per(WAITER, waiters, before)?);
    Ok(())
}

/// Holds so many names, unless memory does not suffice or it takes too long, which is noted.
fn hold_up_to(size: u64, house: &mut House, grounds: &mut Grounds) -> Result<bool> {
    let more = size - house.held();
    if !grounds.has_memory_for(&format!("{size} names held"), more * BYTES_PER_NAME) {
        return Ok(false);
    }
    let started = Instant::now();
    while house.held() < size {
        let held = house.held();
        if started.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            let slow = format!("more than {held} names held: taking them took over {seconds} s");
            grounds.left_out.push(slow);
            return Ok(false);
        }
        house.hold(held..size.min(held + NAMES_PER_SESSION))?;
    }
    Ok(true)
}

fn resident_with(names: u64, bytes: u64) -> Measure {
    Measure { what: RESIDENT_OF_NAMES, at: names, value: bytes as f64, unit: Unit::Bytes }
}

/// What sessions cost that have taken a lock once and are idle since.
fn sessions(
    grounds: &mut Grounds,
    sizes: [u64; 2],
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let most = sizes[1];
    if !grounds.has_memory_for(&format!("{most} sessions"), most * BYTES_PER_SESSION) {
        return Ok(());
    }
    let allowed = raise_open_files()?;
    let house = House::start(grounds)?;
    let mut sessions = Vec::new();
    let mut open_session = || -> Result<()> {
        let locks = house.connect()?;
        drop(locks.mutex(format!("session/{}", sessions.len()), ()).scope(Scope::Host).lock()?);
        sessions.push(locks);
        Ok(())
    };
    // The second one opens what each has, the first one also what they share.
    open_session()?;
    let before = open_files()?;
    open_session()?;
    let files = open_files()? + open_files()?.saturating_sub(before) * most;
    if let Some(allowed) = allowed
        && files > allowed
    {
        grounds.left_out.push(format!(
            "{most} sessions: they take {files} open files, and {allowed} are allowed (`ulimit -Hn`)"
        ));
        return Ok(());
    }
    let mut resident = Vec::new();
    let mut opened = 2;
    for size in sizes {
        progress.says(&format!("host: {size} sessions"));
        for _ in opened..size {
            open_session()?;
        }
        opened = size;
        let value = house.resident()? as f64;
        measures.push(Measure { what: RESIDENT, at: size, value, unit: Unit::Bytes });
        resident.push(value);
    }
    // The line through both.
    let more = (sizes[1] - sizes[0]).max(1) as f64;
    let slope = (resident[1] - resident[0]) / more;
    let none = resident[0] - slope * sizes[0] as f64;
    measures.push(Measure { what: RESIDENT_OF_NONE, at: 0, value: none, unit: Unit::Bytes });
    measures.push(Measure { what: SESSION, at: most, value: slope, unit: Unit::Bytes });

    progress.says("host: leaving the sessions idle");
    let idle_for = Duration::from_millis(5 * most).max(Duration::from_millis(500));
    let value = house.processor_percent(idle_for)?;
    measures.push(Measure { what: IDLE_CPU, at: most, value, unit: Unit::Percent });
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
            init: true,
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

    /// What part of a processor the leader uses meanwhile.
    fn processor_percent(&self, meanwhile: Duration) -> Result<f64> {
        let before = self.processor_ns()?;
        thread::sleep(meanwhile);
        let used_ns = self.processor_ns()? - before;
        Ok(used_ns as f64 / meanwhile.as_nanos() as f64 * 100.0)
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
pub(super) fn name(number: u64) -> String {
    format!("name/{number:011}")
}

/// Every session has a socket or more. Says how many files may be open now, if there is a limit.
fn raise_open_files() -> Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| Failure::io("cannot raise the limit of open files")(error.into()))?;
    Ok(maximum)
}

fn open_files() -> Result<u64> {
    let files = fs::read_dir("/proc/self/fd").map_err(Failure::io("cannot list open files"))?;
    Ok(files.count() as u64)
}

impl Scale {
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.machine.heading();
        let names = names::table(&self.measures);
        if !names.is_empty() {
            text += &names;
            text += "\n";
        }
        let others = self.measures.iter().filter(|measure| !names::shows(measure.what));
        for Measure { what, at, value, unit } in others {
            let value = match unit {
                Unit::Bytes => human::bytes(*value),
                Unit::Ns => human::time(*value),
                Unit::Percent => format!("{value:.1} %"),
            };
            let at = if *at == 0 { "0".into() } else { human::count(*at as f64) };
            let _ = writeln!(text, "{:<52}{at:>8}{value:>12}", title(what));
        }
        text += "\n";
        for (what, title) in [(names::ANY, "process: lock any"), (HOST_GRANT, title(HOST_GRANT))] {
            if let Some(growth) = self.growth(what) {
                let _ = writeln!(text, "{title}: growth {} × (goal ≤ 2)", human::multiple(growth));
            }
        }
        for left_out in &self.left_out {
            let _ = writeln!(text, "Left out: {left_out}.");
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
        RESIDENT_OF_NONE => "leader's memory without any (the line through both)",
        RESIDENT_OF_NAMES => "leader's memory with names held",
        IDLE_CPU => "leader's processor with idle sessions",
        DISK => "disk per name at process scope (40-byte names)",
        HOST_GRANT => "host: lock and unlock, beside names held",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            left_out: Vec::new(),
        };
        assert_eq!(scale.growth(HOST_GRANT), Some(2.0));
        assert_eq!(scale.growth(names::ANY), None);
    }
}
