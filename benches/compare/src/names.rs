//! What a name costs by how many names its directory has: to make one, to lock one by its name, in
//! a process that knows the directory and in a new one.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tierlock::{LockManager, Scope};

use crate::{
    bench::{
        failure::Result,
        human,
        progress::Progress,
        stats::{Pace, RowTally, SentTally, median},
        worker::{self, ChildWorker},
    },
    measure::{Measure, PATIENCE, Unit, Walk, median_ns, name, sizes},
    peers::field::Field,
};

/// The words of the JSON.
const MADE: &str = "process_insertion";
const SAME: &str = "process_grant_same_ten";
pub(crate) const ANY: &str = "process_grant";
const FRESH: &str = "process_grant_fresh";
const FRESH_P99: &str = "process_grant_fresh_p99";
const FIRST: &str = "process_first_lock";

/// All of them, in the order in which they are shown. The title ends a sentence that begins with
/// a number of names that are there.
const TITLES: [(&str, &str); 6] = [
    (MADE, "make one more"),
    (SAME, "lock one of the same ten"),
    (ANY, "lock any"),
    (FRESH, "lock any, new process: p50"),
    (FRESH_P99, "lock any, new process: p99"),
    (FIRST, "new process: to its first lock"),
];

/// New processes per size.
const PROCESSES: u64 = 5;
/// Names that each of them locks, if there are as many.
const LOOK_UPS: u64 = 1_000;

/// Measures all of it with ever more names, some of it for `each` long.
pub(crate) fn measure(
    field: &mut Field,
    names: u64,
    each: Duration,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let directory = field.new_directory("names")?;
    let locks = LockManager::builder().directory(&directory).open()?;
    let (mut known, started) = (0, Instant::now());
    for size in sizes(names) {
        progress.says(&format!("process: making {size} names"));
        let mut making = RowTally::new(Pace::OneByOne);
        while known < size {
            if started.elapsed() > PATIENCE {
                field.left_out.push(format!(
                    "more than {known} names in a directory: making them took over {} s",
                    PATIENCE.as_secs()
                ));
                return Ok(());
            }
            let asked = Instant::now();
            lock(&locks, known)?;
            making.wait(asked.elapsed());
            known += 1;
        }
        let mut of = |what, value| measures.push(Measure { what, at: size, value, unit: Unit::Ns });
        of(MADE, making.summary().p50_ns);

        progress.says(&format!("process: locking one of {size} names"));
        let ten = size.min(10);
        let mut next = 0;
        let same = median_ns(each, || {
            next = (next + 1) % ten;
            lock(&locks, next * (size / ten))
        })?;
        of(SAME, same);
        let mut walk = Walk::over(size);
        of(ANY, median_ns(each, || lock(&locks, walk.next()))?);

        let mut firsts_ns = Vec::new();
        let mut look_ups = RowTally::new(Pace::OneByOne);
        for process in 0..PROCESSES {
            let (first_ns, seen) = new_process(&directory, size, process)?;
            firsts_ns.push(first_ns as f64);
            look_ups.add(seen);
        }
        let look_ups = look_ups.summary();
        of(FRESH, look_ups.p50_ns);
        of(FRESH_P99, look_ups.p99_ns);
        of(FIRST, median(&firsts_ns));
    }
    Ok(())
}

/// What a process sees that has never used the directory: how long its first lock took from opening
/// the directory on, and further ones.
fn new_process(directory: &Path, names: u64, number: u64) -> Result<(u64, RowTally)> {
    let job = Find { directory: directory.to_owned(), names, from: number * LOOK_UPS };
    let Found { first_ns, seen } = ChildWorker::start(&job)?.reply()?;
    Ok((first_ns, RowTally::from_seen(seen)))
}

/// A child process that opens a directory and locks some of its names by their names, once each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Find {
    directory: PathBuf,
    names: u64,
    from: u64,
}

/// What it saw: how long it took from opening the directory to the first lock, and what further ones
/// took.
#[derive(Serialize, Deserialize)]
struct Found {
    first_ns: u64,
    seen: SentTally,
}

impl worker::ChildJob for Find {
    fn work(self) -> Result<()> {
        let _orders = worker::ready::<()>();
        let mut walk = Walk::over(self.names).from(self.from);
        let opened = Instant::now();
        let locks = LockManager::builder().directory(&self.directory).open()?;
        lock(&locks, walk.next())?;
        let first_ns = opened.elapsed().as_nanos() as u64;
        let mut tally = RowTally::new(Pace::OneByOne);
        // None of them twice.
        for _ in 1..LOOK_UPS.min(self.names) {
            let asked = Instant::now();
            lock(&locks, walk.next())?;
            tally.wait(asked.elapsed());
        }
        worker::say(Found { first_ns, seen: tally.to_seen() });
        Ok(())
    }
}

fn lock(locks: &LockManager, number: u64) -> Result<()> {
    drop(locks.mutex(name(number), ()).scope(Scope::Process).lock()?);
    Ok(())
}

/// Whether [`table`] shows this measure.
pub(crate) fn shows(what: &str) -> bool {
    TITLES.iter().any(|(shown, _)| *shown == what)
}

/// The measures for people: a line for each, a column for each number of names, and at last by how
/// much it grows from the fewest to the most. Empty if nothing of it was measured.
pub(crate) fn table(measures: &[Measure]) -> String {
    let of = |what: &'static str| measures.iter().filter(move |measure| measure.what == what);
    let lines = TITLES.iter().filter(|&&(what, _)| of(what).next().is_some());
    let mut text = String::new();
    for &(what, title) in lines {
        let all: Vec<&Measure> = of(what).collect();
        if text.is_empty() {
            text += &line(
                "Names in a directory",
                all.iter().map(|m| human::count(m.at as f64)),
                "growth",
            );
        }
        let growth = all[all.len() - 1].value / all[0].value;
        let growth = format!("{} ×", human::multiple(growth));
        text += &line(&format!("  {title}"), all.iter().map(|m| human::time(m.value)), &growth);
    }
    text
}

fn line(title: &str, cells: impl Iterator<Item = String>, last: &str) -> String {
    let cells: String = cells.map(|cell| format!("{cell:>9}")).collect();
    format!("{title:<34}{cells}{last:>9}\n")
}

#[cfg(test)]
mod tests;
