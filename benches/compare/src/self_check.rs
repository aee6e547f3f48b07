//! Whether the bench can be trusted: its own figure beside a plain loop's for the same thing.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use serde::Serialize;

use tierlock::{Keep, LockManager, Mutex, Scope};

use crate::bench::{
    failure::Result,
    grounds::Grounds,
    machine::MachineInfo,
    run::{Contender, Quiet},
    stats::{Pace, RowTally, median},
};

/// Turns of each way of measuring.
const TURNS: u32 = 5;

#[derive(Serialize)]
pub(crate) struct SelfCheck {
    machine: MachineInfo,
    self_check: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    bench_ns: f64,
    loop_ns: f64,
    /// The bench's figure over the loop's.
    ratio: f64,
}

/// Measures quiet locks both ways, in turn.
pub(crate) fn run(scope: Option<Scope>, seconds: f64) -> Result<SelfCheck> {
    let mut grounds = Grounds::new()?;
    let is_wanted = |other| scope.is_none_or(|scope| scope == other);
    let mut subjects: Vec<(&'static str, Cycle)> = Vec::new();
    if is_wanted(Scope::Thread) {
        let mutex = std::sync::Mutex::new(0_u64);
        subjects.push((
            "std::sync::Mutex, quiet",
            Box::new(move || {
                *mutex.lock().expect("no holder panics") += 1;
                Ok(())
            }),
        ));
        let mutex = Mutex::new(0_u64);
        subjects.push(("tierlock, thread, quiet", counting(mutex)));
    }
    if is_wanted(Scope::Process) {
        let locks = LockManager::builder().directory(grounds.directory("process")?).open()?;
        let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Process).build()?;
        subjects.push(("tierlock, process, quiet", counting(mutex)));
    }
    if is_wanted(Scope::Host) {
        let locks = grounds.leader()?.connect()?;
        let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Host).keep(Keep::Never).build()?;
        subjects.push(("tierlock, host, quiet", counting(mutex)));
    }
    let slice = Duration::from_secs_f64(seconds) / (2 * TURNS * subjects.len() as u32);
    let self_check = subjects
        .into_iter()
        .map(|(what, cycle)| compare(what, cycle, slice))
        .collect::<Result<_>>()?;
    Ok(SelfCheck { machine: MachineInfo::this(), self_check })
}

/// Both ways call it through the same pointer, so that they time the same thing.
type Cycle = Box<dyn FnMut() -> Result<()>>;

fn counting(mutex: Mutex<u64>) -> Cycle {
    Box::new(move || {
        *mutex.lock()? += 1;
        Ok(())
    })
}

fn compare(what: &'static str, mut cycle: Cycle, slice: Duration) -> Result<Line> {
    let mut warm_up = RowTally::new(Pace::OneByOne);
    Quiet(&mut cycle).run(slice.min(Duration::from_millis(20)), &mut warm_up)?;
    let estimate_ns = warm_up.summary().p50_ns.max(1.0);
    let cycles = (slice.as_nanos() as f64 / estimate_ns).max(1.0) as u64;
    let (mut benches_ns, mut loops_ns) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut tally = RowTally::new(warm_up.suited_pace());
        Quiet(&mut cycle).run(slice, &mut tally)?;
        benches_ns.push(1e9 / tally.summary().ops_per_s);
        let started = Instant::now();
        for _ in 0..cycles {
            cycle()?;
        }
        loops_ns.push(started.elapsed().as_nanos() as f64 / cycles as f64);
    }
    // A loop knows only its mean, so means are compared.
    let (bench_ns, loop_ns) = (median(&benches_ns), median(&loops_ns));
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let ratio = (bench_ns / loop_ns * 1_000.0).round() / 1_000.0;
    Ok(Line { what, bench_ns: tenths(bench_ns), loop_ns: tenths(loop_ns), ratio })
}

impl SelfCheck {
    pub(crate) fn text(&self) -> String {
        let mut text = self.machine.heading();
        let _ = writeln!(text, "{:<28}{:>12}{:>14}{:>16}", "mean", "bench", "plain loop", "ratio");
        for Line { what, bench_ns, loop_ns, ratio } in &self.self_check {
            let [bench, plain] = [*bench_ns, *loop_ns].map(|ns| format!("{ns:.1} ns"));
            let _ = writeln!(text, "{what:<28}{bench:>12}{plain:>14}{ratio:>16.3}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
