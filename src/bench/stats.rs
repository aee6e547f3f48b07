//! What was timed: counts, waits, shares.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize, Serializer};

use super::failure::Result;

/// Cycles faster than this are timed in batches: reading the clock would cost as much as they do.
pub(crate) const BATCHED_BELOW: Duration = Duration::from_micros(1);
/// Cycles per batch.
pub(crate) const BATCH: u64 = 1_000;
/// After every batch, this many cycles are timed one by one, for the tail.
const SINGLES: u32 = 16;

/// How the cycles of a quiet row are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    OneByOne,
    Batches,
}

/// What one row has seen so far.
pub(crate) struct RowTally {
    pace: Pace,
    operations: u64,
    busy: Duration,
    waits: Histogram<u64>,
    batch_means_ns: Vec<f64>,
    clients: Vec<u64>,
    worst_of_this_run_ns: u64,
    worst_of_runs_ns: Vec<f64>,
}

impl RowTally {
    pub(crate) fn new(pace: Pace) -> RowTally {
        RowTally {
            pace,
            operations: 0,
            busy: Duration::ZERO,
            waits: histogram(),
            batch_means_ns: Vec::new(),
            clients: Vec::new(),
            worst_of_this_run_ns: 0,
            worst_of_runs_ns: Vec::new(),
        }
    }

    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Another one that is timed alike, to be filled elsewhere and [`add`](RowTally::add)ed, or to
    /// be one of those that worked [side by side](RowTally::side_by_side).
    pub(crate) fn empty(&self) -> RowTally {
        RowTally::new(self.pace)
    }

    /// What another one has seen.
    pub(crate) fn add(&mut self, other: RowTally) {
        self.stretch(other.operations, other.busy);
        self.add_waits(&other.waits);
        self.batch_means_ns.extend(other.batch_means_ns);
    }

    /// What clients have seen in one slice, in which all of them worked at the same time.
    pub(crate) fn side_by_side(&mut self, clients: Vec<RowTally>) {
        let number = clients.len().max(1) as u32;
        for (client, tally) in clients.into_iter().enumerate() {
            self.did(client, tally.operations);
            self.busy += tally.busy / number;
            self.add_waits(&tally.waits);
            self.batch_means_ns.extend(tally.batch_means_ns);
        }
    }

    /// How further cycles should be timed, going by those that were timed one by one.
    pub(crate) fn suited_pace(&self) -> Pace {
        let median = self.waits.value_at_quantile(0.5);
        if !self.waits.is_empty() && u128::from(median) < BATCHED_BELOW.as_nanos() {
            Pace::Batches
        } else {
            Pace::OneByOne
        }
    }

    /// A wait that was timed by itself.
    pub(crate) fn wait(&mut self, wait: Duration) {
        let wait_ns = record(&mut self.waits, wait);
        self.worst_of_this_run_ns = self.worst_of_this_run_ns.max(wait_ns);
    }

    /// Waits that were timed by themselves.
    pub(crate) fn add_waits(&mut self, waits: &Histogram<u64>) {
        self.waits.add(waits).expect("a histogram that resizes takes every value");
        self.worst_of_this_run_ns = self.worst_of_this_run_ns.max(waits.max());
    }

    /// Operations of one of several clients.
    pub(crate) fn did(&mut self, client: usize, operations: u64) {
        if self.clients.len() <= client {
            self.clients.resize(client + 1, 0);
        }
        self.clients[client] += operations;
        self.operations += operations;
    }

    /// Operations done in a stretch of time, for the throughput.
    pub(crate) fn stretch(&mut self, operations: u64, took: Duration) {
        self.operations += operations;
        self.busy += took;
    }

    /// One slice of quiet cycles; how many there were.
    #[inline]
    pub(crate) fn repeat(
        &mut self,
        slice: Duration,
        mut cycle: impl FnMut() -> Result<()>,
    ) -> Result<u64> {
        let mut done = 0;
        let mut meter = Meter::start(slice, self);
        while let Some(cycles) = meter.next() {
            for _ in 0..cycles {
                cycle()?;
            }
            done += cycles;
        }
        Ok(done)
    }

    /// One slice of sections that last, without a pause between; `hold` is told since when it waits.
    /// How many there were.
    pub(crate) fn hold_again_and_again(
        &mut self,
        slice: Duration,
        mut hold: impl FnMut(&mut RowTally, Instant) -> Result<()>,
    ) -> Result<u64> {
        let mut sections = 0;
        let mut last = Instant::now();
        let end = last + slice;
        while last < end {
            let asked = last;
            hold(self, asked)?;
            last = Instant::now();
            self.stretch(1, last - asked);
            sections += 1;
        }
        Ok(sections)
    }

    /// One slice of events that are staged one by one; at least one.
    pub(crate) fn stage(
        &mut self,
        slice: Duration,
        mut event: impl FnMut() -> Result<Duration>,
    ) -> Result<()> {
        let started = Instant::now();
        let mut events = 0;
        loop {
            self.wait(event()?);
            events += 1;
            let took = started.elapsed();
            if took >= slice {
                self.stretch(events, took);
                return Ok(());
            }
        }
    }

    /// Ends a run; the worst waits of all runs are compared.
    pub(crate) fn end_run(&mut self) {
        let worst_ns = std::mem::take(&mut self.worst_of_this_run_ns);
        self.worst_of_runs_ns.push(worst_ns as f64);
    }

    pub(crate) fn summary(&self) -> Summary {
        let p99 = self.waits.value_at_quantile(0.99) as f64;
        let max = self.waits.max() as f64;
        let p50 = if self.batch_means_ns.is_empty() {
            self.waits.value_at_quantile(0.5) as f64
        } else {
            median(&self.batch_means_ns)
        };
        let busy = self.busy.as_secs_f64();
        Summary {
            operations: self.operations,
            ops_per_s: if busy > 0.0 { self.operations as f64 / busy } else { 0.0 },
            p50_ns: p50,
            // The two ways of timing may differ by a nanosecond or two.
            p99_ns: p99.max(p50),
            max_ns: max.max(p50),
            worst_ns: median(&self.worst_of_runs_ns).max(p50),
            share_min_max: share_min_max(&self.clients),
        }
    }

    /// For the way from one process to another.
    pub(crate) fn to_seen(&self) -> SentTally {
        SentTally {
            operations: self.operations,
            busy_ns: self.busy.as_nanos() as u64,
            waits: self
                .waits
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
            batch_means_ns: self.batch_means_ns.clone(),
        }
    }

    /// What another process has seen.
    pub(crate) fn from_seen(seen: SentTally) -> RowTally {
        let mut tally = RowTally::new(Pace::OneByOne);
        tally.stretch(seen.operations, Duration::from_nanos(seen.busy_ns));
        for (wait_ns, count) in seen.waits {
            tally.waits.record_n(wait_ns.max(1), count).expect("a histogram that resizes");
        }
        tally.batch_means_ns = seen.batch_means_ns;
        tally
    }
}

/// A tally of one slice between processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentTally {
    operations: u64,
    busy_ns: u64,
    /// Waits in nanoseconds, and how often each came.
    waits: Vec<(u64, u64)>,
    batch_means_ns: Vec<f64>,
}

/// A row's figures. In the JSON they are rounded: further digits are no news.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) operations: u64,
    #[serde(serialize_with = "whole")]
    pub(crate) ops_per_s: f64,
    #[serde(serialize_with = "tenths")]
    pub(crate) p50_ns: f64,
    #[serde(serialize_with = "tenths")]
    pub(crate) p99_ns: f64,
    #[serde(serialize_with = "tenths")]
    pub(crate) max_ns: f64,
    /// The median over runs of each run's longest wait.
    #[serde(serialize_with = "tenths")]
    pub(crate) worst_ns: f64,
    #[serde(serialize_with = "thousandths")]
    pub(crate) share_min_max: f64,
}

fn whole<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.round())
}

fn tenths<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 10.0).round() / 10.0)
}

fn thousandths<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1_000.0).round() / 1_000.0)
}

/// Times the quiet cycles of one slice: says how many to do next, until the slice is over.
///
/// ```text
/// let mut meter = Meter::start(slice, tally);
/// while let Some(cycles) = meter.next() {
///     for _ in 0..cycles { … }
/// }
/// ```
pub(crate) struct Meter<'a> {
    tally: &'a mut RowTally,
    ends: Instant,
    cycles: u64,
    singles_left: u32,
    started: Instant,
}

impl Meter<'_> {
    pub(crate) fn start(slice: Duration, tally: &mut RowTally) -> Meter<'_> {
        let started = Instant::now();
        Meter { tally, ends: started + slice, cycles: 0, singles_left: 0, started }
    }

    /// Takes down what the cycles it last asked for took, and says how many to do now.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let now = Instant::now();
        let took = (now - self.started).saturating_sub(clock_cost());
        match (self.cycles, self.tally.pace) {
            (0, _) => {}
            (1, Pace::OneByOne) => {
                self.tally.wait(took);
                self.tally.stretch(1, took);
            }
            (1, Pace::Batches) => self.tally.wait(took),
            (cycles, _) => {
                self.tally.batch_means_ns.push(took.as_nanos() as f64 / cycles as f64);
                self.tally.stretch(cycles, took);
            }
        }
        if now >= self.ends && self.cycles > 0 {
            return None;
        }
        self.cycles = match self.tally.pace {
            Pace::Batches if self.singles_left == 0 => {
                self.singles_left = SINGLES;
                BATCH
            }
            Pace::Batches => {
                self.singles_left -= 1;
                1
            }
            Pace::OneByOne => 1,
        };
        self.started = Instant::now();
        Some(self.cycles)
    }

    /// What was done since [`next`](Self::next) is no part of the cycles.
    pub(crate) fn resume(&mut self) {
        self.started = Instant::now();
    }
}

/// A number that only a lock protects: increments that overlap are lost.
#[derive(Debug, Default)]
pub(crate) struct Unprotected(AtomicU64);

impl Unprotected {
    pub(crate) fn increment(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        self.0.store(seen + 1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What reading the clock twice in a row shows, which is no part of what is timed in between.
fn clock_cost() -> Duration {
    static COST: OnceLock<Duration> = OnceLock::new();
    *COST.get_or_init(|| {
        let mut costs: Vec<Duration> = (0..2_001)
            .map(|_| {
                let before = Instant::now();
                Instant::now() - before
            })
            .collect();
        let (_, median, _) = costs.select_nth_unstable(1_000);
        *median
    })
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 significant digits are allowed")
}

pub(crate) fn record(waits: &mut Histogram<u64>, wait: Duration) -> u64 {
    let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX >> 1).max(1);
    waits.record(wait_ns).expect("a histogram that resizes takes every value");
    wait_ns
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The smallest client's share over the largest's; 1 for a single client.
fn share_min_max(clients: &[u64]) -> f64 {
    match (clients.iter().min(), clients.iter().max()) {
        (Some(&min), Some(&max)) if max > 0 => min as f64 / max as f64,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests;
