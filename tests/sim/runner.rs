//! Many seeds on all CPUs, each of them in one thread.

use std::{
    any::Any,
    cell::Cell,
    fmt,
    ops::Range,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    coverage::Coverage,
    rules::{Rule, Violation},
    tally::Tally,
    world::{Outcome, World},
};

/// What many seeds have shown.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) seeds: u64,
    pub(crate) tally: Tally,
    /// Of all seeds together, in whatever order they ran.
    pub(crate) digest: u64,
    pub(crate) coverage: Coverage,
    /// Of the lowest seed that has any.
    pub(crate) violation: Option<Violation>,
    took: Duration,
}

impl Run {
    /// Runs all these seeds, or up to the lowest that fails.
    pub(crate) fn of(seeds: Range<u64>, shows_progress: bool) -> Run {
        Run::prepared(seeds, shows_progress, || ())
    }

    /// As many of these seeds as there is time for.
    pub(crate) fn of_as_many(seeds: Range<u64>, limit: Duration) -> Run {
        let begin = Instant::now();
        let mut all = Run::default();
        for first in seeds.clone().step_by(SEEDS_AT_ONCE) {
            let last = seeds.end.min(first + SEEDS_AT_ONCE as u64);
            all.merge(Run::of(first..last, false));
            if all.violation.is_some() || begin.elapsed() >= limit {
                break;
            }
        }
        all.took = begin.elapsed();
        all
    }

    /// As `of`, on threads that have done something before.
    pub(crate) fn prepared(
        seeds: Range<u64>,
        shows_progress: bool,
        prepare: impl Fn() + Sync,
    ) -> Run {
        let begin = Instant::now();
        let next = AtomicU64::new(seeds.start);
        let end = AtomicU64::new(seeds.end);
        let sum = Mutex::new(Run::default());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    prepare();
                    let mut own = Run::default();
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= end.load(Relaxed) {
                            break;
                        }
                        own.add(seed, one(seed, false));
                        if let Some(violation) = &own.violation {
                            end.fetch_min(violation.seed, Relaxed);
                        }
                        let done = seed - seeds.start;
                        if shows_progress && done > 0 && done.is_multiple_of(PROGRESS_EVERY) {
                            eprintln!("{done} seeds, {:.0?}", begin.elapsed());
                        }
                    }
                    sum.lock().expect("no thread panics").merge(own);
                });
            }
        });
        let mut run = sum.into_inner().expect("no thread panics");
        run.took = begin.elapsed();
        run
    }

    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.merge(Run {
            seeds: 1,
            tally: outcome.tally,
            digest: outcome.digest ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            coverage: outcome.coverage,
            violation: outcome.violation,
            took: Duration::ZERO,
        });
    }

    fn merge(&mut self, other: Run) {
        self.seeds += other.seeds;
        self.tally += other.tally;
        self.digest = self.digest.wrapping_add(other.digest);
        self.coverage.add(&other.coverage);
        let both = [self.violation.take(), other.violation].into_iter().flatten();
        self.violation = both.min_by_key(|violation| violation.seed);
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { seeds, tally, digest, coverage, took, .. } = self;
        writeln!(f, "{coverage}")?;
        write!(f, "{seeds} seeds in {took:.1?}: {tally}; digest {digest:016x}")
    }
}

/// One world. A panic in it, of the protocol's own assertions, is a violation as well.
pub(crate) fn one(seed: u64, telling: bool) -> Outcome {
    listen_to_panics();
    IN_A_WORLD.set(!telling);
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, telling).run()));
    IN_A_WORLD.set(false);
    outcome.unwrap_or_else(|panic| Outcome {
        tally: Tally::default(),
        coverage: Coverage::default(),
        digest: 0,
        violation: Some(Violation { seed, rule: Rule::Assertion, at: 0, text: said(&*panic) }),
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

thread_local! {
    static IN_A_WORLD: Cell<bool> = const { Cell::new(false) };
}

/// Panics in a world are reported with its seed, and not besides.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IN_A_WORLD.get() {
                others(panic);
            }
        }));
    });
}

const SEEDS_AT_ONCE: usize = 20;

const PROGRESS_EVERY: u64 = 10_000;
