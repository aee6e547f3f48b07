//! How memory, disk and the cost of a grant grow with names and sessions.
//!
//! The leader is a process of its own here, so that its memory and its processor time are its.
//! Everything goes through the public API: real sessions, real connections, real grants.

use std::{
    fmt::Write,
    fs,
    hint::black_box,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tierlock::{Keep, LockManager, Scope};

use crate::{
    bench::{
        failure::{BenchFailure, Result},
        human,
        machine::MachineInfo,
        progress::Progress,
    },
    house::{House, NAMES_PER_SESSION},
    measure::{self, Measure, PATIENCE, SIZES, Unit, Walk, median_ns, sizes},
    names,
    peers::field::Field,
};

/// The words of the JSON.
pub(crate) const CLOCK: &str = "clock_reading";
pub(crate) const HELD: &str = "leader_bytes_per_held_lock";
pub(crate) const DISK: &str = "disk_bytes_per_name";
const WAITER: &str = "leader_bytes_per_waiter";
const SESSION: &str = "leader_bytes_per_session";
const RESIDENT: &str = "leader_bytes_with_sessions";
const RESIDENT_OF_NAMES: &str = "leader_bytes_with_held_locks";
const RESIDENT_OF_NONE: &str = "leader_bytes_without_sessions";
const IDLE_CPU: &str = "leader_cpu_idle_sessions";
const HOST_GRANT: &str = "host_grant";

#[derive(Serialize)]
pub(crate) struct Scale {
    machine: MachineInfo,
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
pub(crate) fn run(scope: Option<Scope>, names: u64) -> Result<Scale> {
    let mut field = Field::new()?;
    let progress = Progress::new(Duration::ZERO);
    let mut measures = Vec::new();
    if scope.is_none_or(|scope| scope == Scope::Process) {
        names::measure(&mut field, names, EACH, &progress, &mut measures)?;
        progress.says("process: disk per name");
        measures.push(disk(&field, names.min(SIZES[SIZES.len() - 1]))?);
    }
    if scope.is_none_or(|scope| scope == Scope::Host) {
        host_grants(&mut field, names, &progress, &mut measures)?;
        let most = SESSIONS_MAX.min(names / 500).max(4);
        sessions(&mut field, [most / 2, most], &progress, &mut measures)?;
    }
    Ok(Scale { machine: MachineInfo::this(), measures, left_out: field.left_out })
}

/// What a comparison shows of it, in a run of so many seconds: names in a directory, and what
/// budgets are about.
pub(crate) fn in_short(
    scope: Option<Scope>,
    field: &mut Field,
    seconds: f64,
    progress: &Progress,
) -> Result<Vec<Measure>> {
    let part = (seconds / SECONDS_FOR_ALL).min(1.0);
    let names = ((NAMES_FOR_SIZE * part) as u64).max(10);
    let mut measures = Vec::new();
    if scope.is_none_or(|scope| scope == Scope::Process) {
        let in_a_directory = ((SIZES[SIZES.len() - 1] as f64 * part) as u64).max(10);
        names::measure(field, in_a_directory, EACH.mul_f64(part), progress, &mut measures)?;
        progress.says("process: disk per name");
        measures.push(disk(field, names)?);
    }
    if scope.is_none_or(|scope| scope == Scope::Host) {
        progress.says("host: reading the clock");
        let value = median_ns(EACH.mul_f64(part / 4.0), || {
            black_box(Instant::now());
            Ok(())
        })?;
        measures.push(Measure { what: CLOCK, at: 1, value, unit: Unit::Ns });
        progress.says("host: memory per held name");
        let mut house = House::start(field)?;
        // The first request makes what belongs to the session, or to the leader.
        house.hold(0..1)?;
        let before = house.resident()?;
        house.hold(1..names)?;
        measures.push(house.per(HELD, names, before)?);
    }
    Ok(measures)
}

/// What the directory takes up, by the file system's account.
fn disk(field: &Field, names: u64) -> Result<Measure> {
    let directory = field.grounds.directory("scale-disk")?;
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
    let failed = || BenchFailure::io(format!("cannot look into {}", directory.display()));
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
    field: &mut Field,
    names: u64,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let mut house = House::start(field)?;
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
    // What a first use makes is no name's price.
    median_ns(EACH, &mut cycle)?;
    let before = house.resident()?;
    measures.push(resident_with(0, before));
    for size in sizes(names) {
        progress.says(&format!("host: holding {size} names"));
        if !hold_up_to(size, &mut house, field)? {
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

    // All but one, which no task here waits for: what becomes of a try of it only the leader knows.
    let waiters = (house.held() - 1).min(100_000);
    if !field.has_memory_for(&format!("{waiters} waiters"), waiters * BYTES_PER_NAME) {
        return Ok(());
    }
    progress.says(&format!("host: {waiters} waiters"));
    let before = house.resident()?;
    let _waiting = house.wait(waiters)?;
    measures.push(house.per(WAITER, waiters, before)?);
    Ok(())
}

/// Holds so many names, unless memory does not suffice or it takes too long, which is noted.
fn hold_up_to(size: u64, house: &mut House, field: &mut Field) -> Result<bool> {
    let more = size - house.held();
    if !field.has_memory_for(&format!("{size} names held"), more * BYTES_PER_NAME) {
        return Ok(false);
    }
    let started = Instant::now();
    while house.held() < size {
        let held = house.held();
        if started.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            let slow = format!("more than {held} names held: taking them took over {seconds} s");
            field.left_out.push(slow);
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
    field: &mut Field,
    sizes: [u64; 2],
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let most = sizes[1];
    if !field.has_memory_for(&format!("{most} sessions"), most * BYTES_PER_SESSION) {
        return Ok(());
    }
    let allowed = raise_open_files()?;
    let house = House::start(field)?;
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
        field.left_out.push(format!(
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

/// Every session has a socket or more. Says how many files may be open now, if there is a limit.
fn raise_open_files() -> Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| BenchFailure::io("cannot raise the limit of open files")(error.into()))?;
    Ok(maximum)
}

fn open_files() -> Result<u64> {
    let files =
        fs::read_dir("/proc/self/fd").map_err(BenchFailure::io("cannot list open files"))?;
    Ok(files.count() as u64)
}

impl Scale {
    pub(crate) fn text(&self) -> String {
        let mut text = self.machine.heading();
        let names = names::table(&self.measures);
        if !names.is_empty() {
            text += &names;
            text += "\n";
        }
        let others = self.measures.iter().filter(|measure| !names::shows(measure.what));
        for Measure { what, at, value, unit } in others {
            let value = match unit {
                Unit::Bytes => measure::bytes(*value),
                Unit::Ns => human::time(*value),
                Unit::PerSecond => format!("{}/s", human::count(*value)),
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
mod tests;
