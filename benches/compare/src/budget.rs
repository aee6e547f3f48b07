//! Budgets: what tierlock promises to keep, against what the same run measured.

use serde::Serialize;

use tierlock::Scope::{self, Host, Process, Thread};

use crate::{
    bench::{
        case::{
            Case, TIERLOCK,
            WaitMode::{self, Async, Blocking},
        },
        human,
        report::{BenchReport, Row},
    },
    measure::{self, Measure},
    reign::LOCKS_LOST,
    scale,
};

struct Budget {
    scope: Scope,
    what: &'static str,
    unit: Unit,
    target: Target,
    /// What a run measured, if it measured both sides.
    here: fn(&Run<'_>) -> Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// One side's figure over another's.
    Ratio,
    /// Nanoseconds.
    Ns,
    Bytes,
    Count,
    /// Of one processor.
    Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}
use Target::{AtLeast, AtMost};

const fn budget(
    scope: Scope,
    what: &'static str,
    unit: Unit,
    target: Target,
    here: fn(&Run<'_>) -> Option<f64>,
) -> Budget {
    Budget { scope, what, unit, target, here }
}

const MS: f64 = 1e6;

const BUDGETS: &[Budget] = &[
    budget(Thread, "thread, quiet: × parking_lot", Unit::Ratio, AtMost(1.1), |run| {
        run.over(p50, Thread, Case::QUIET, Blocking, &[("parking_lot", Blocking)])
    }),
    budget(
        Thread,
        "thread, 200 µs held, re-locked: worst wait",
        Unit::Ns,
        AtMost(5.0 * MS),
        |run| run.ours(worst, Thread, Case::THREADS_200US, Blocking),
    ),
    budget(Process, "process, quiet: × robust pthread", Unit::Ratio, AtMost(0.7), |run| {
        run.over(p50, Process, Case::QUIET, Blocking, &[("robust-pthread", Blocking)])
    }),
    budget(Process, "process, quiet: × thread scope", Unit::Ratio, AtMost(2.0), |run| {
        let thread = run.ours(p50, Thread, Case::QUIET, Blocking)?;
        Some(run.ours(p50, Process, Case::QUIET, Blocking)? / thread)
    }),
    budget(
        Process,
        "process, 2, empty: rate × robust pthread",
        Unit::Ratio,
        AtLeast(1.25),
        |run| {
            let theirs = &[("robust-pthread", Blocking)];
            run.over(rate, Process, Case::PROCESSES_EMPTY, Blocking, theirs)
        },
    ),
    budget(Process, "process, 2, 200 µs: worst wait", Unit::Ns, AtMost(10.0 * MS), |run| {
        run.ours(worst, Process, Case::PROCESSES_200US, Blocking)
    }),
    budget(Process, "process, 2, 200 µs: shares", Unit::Ratio, AtLeast(0.95), |run| {
        run.ours(share, Process, Case::PROCESSES_200US, Blocking)
    }),
    budget(Process, "process, holder killed: p99 × flock", Unit::Ratio, AtMost(1.5), |run| {
        run.over(p99, Process, Case::HOLDER_KILLED, Blocking, &[("flock", Blocking)])
    }),
    budget(Process, "process: disk per name", Unit::Bytes, AtMost(128.0), |run| {
        run.measure(scale::DISK)
    }),
    budget(Host, "host, kept: × (thread + a clock reading)", Unit::Ratio, AtMost(1.4), |run| {
        Some(run.ours(p50, Host, Case::KEPT, Blocking)? / run.thread_and_clock_ns()?)
    }),
    budget(Host, "host, kept, with a directory: the same", Unit::Ratio, AtMost(1.4), |run| {
        let kept = run.variant(Host, Case::KEPT, Blocking, "+ dir")?;
        Some(kept.figures.p50_ns / run.thread_and_clock_ns()?)
    }),
    budget(Host, "host, quiet, blocking: × Redis's faster", Unit::Ratio, AtMost(0.5), |run| {
        run.over(p50, Host, Case::QUIET, Blocking, REDIS)
    }),
    budget(Host, "host, quiet, async: × Redis's faster", Unit::Ratio, AtMost(0.5), |run| {
        run.over(p50, Host, Case::QUIET, Async, REDIS)
    }),
    budget(Host, "host, 32 connections: rate × Redis", Unit::Ratio, AtLeast(1.8), |run| {
        run.over(rate, Host, Case::CONNECTIONS_32, Async, &[("redis", Async)])
    }),
    budget(Host, "host, 256 tasks: rate × bare QUIC echo", Unit::Ratio, AtLeast(0.6), |run| {
        run.over(rate, Host, Case::TASKS_256, Async, &[("quic-echo", Async)])
    }),
    budget(Host, "host, 256 tasks: rate × Redis", Unit::Ratio, AtLeast(3.0), |run| {
        run.over(rate, Host, Case::TASKS_256, Async, &[("redis", Async)])
    }),
    budget(Host, "host, 8 on one name: rate × PostgreSQL", Unit::Ratio, AtLeast(1.1), |run| {
        run.over(rate, Host, Case::ONE_NAME_8, Async, &[("postgres", Async)])
    }),
    budget(Host, "host, 8 on one name: shares", Unit::Ratio, AtLeast(0.95), |run| {
        run.ours(share, Host, Case::ONE_NAME_8, Async)
    }),
    budget(Host, "host, 2 in turns: rate × keeping off", Unit::Ratio, AtLeast(0.95), |run| {
        let off = run.variant(Host, Case::TURNS_2, Blocking, "keeping off")?;
        Some(run.ours(rate, Host, Case::TURNS_2, Blocking)? / rate(off))
    }),
    budget(Host, "host, 1 % remote: rate × Redis", Unit::Ratio, AtLeast(50.0), |run| {
        run.over(rate, Host, Case::REMOTE_1PCT, Blocking, &[("redis-sync", Blocking)])
    }),
    budget(Host, "leader killed, 100 hold: first new grant", Unit::Ns, AtMost(300.0 * MS), |run| {
        run.ours(worst, Host, Case::LEADER_KILLED, Blocking)
    }),
    budget(Host, "leader killed, 100 hold: held locks lost", Unit::Count, AtMost(0.0), |run| {
        let row = run.report.row(Host, Case::LEADER_KILLED, TIERLOCK, Blocking)?;
        row.facts.get(LOCKS_LOST).copied()
    }),
    budget(Host, "leader's memory per held lock", Unit::Bytes, AtMost(200.0), |run| {
        run.measure(scale::HELD)
    }),
];

const REDIS: &[(&str, WaitMode)] = &[("redis", Async), ("redis-sync", Blocking)];

/// A budget beside what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    /// Nothing, if this run did not measure it.
    pub(crate) measured: Option<f64>,
    #[serde(flatten)]
    pub(crate) target: Target,
    pub(crate) met: Option<bool>,
}

/// One measure over another, of the modes.
const OF_MODES: &[(&str, &str, &str, Target)] = &[
    ("thread, read: × the exclusive lock", "quiet_thread_read", "quiet_thread_mutex", AtMost(1.3)),
    (
        "process, read: × the exclusive lock",
        "quiet_process_read",
        "quiet_process_mutex",
        AtMost(1.3),
    ),
    (
        "host, kept read: × the exclusive lock",
        "quiet_host_read_kept",
        "quiet_host_mutex_kept",
        AtMost(1.3),
    ),
    (
        "readers in 2 processes: rate × pthread_rwlock",
        "readers_in_processes",
        "readers_in_processes_pthread_rwlock",
        AtLeast(1.5),
    ),
];

/// What a lock costs through tierlock and through a service's own client.
const OF_ENGINES: &[(&str, &str, &str)] = &[
    ("redis, quiet: × its own client", "redis", "on redis"),
    ("redis-aof-always, quiet: × its own client", "redis-aof-always", "on redis-aof-always"),
    ("redlock-3, quiet: × its own client", "redlock-3", "on redlock-3"),
    ("etcd, quiet: × its own client", "etcd", "on etcd"),
    ("zookeeper, quiet: × its own client", "zookeeper", "on zookeeper"),
    ("postgres, quiet: × its own client", "postgres", "on postgres"),
    ("mariadb, quiet: × its own client", "mariadb", "on mariadb"),
];

/// What was promised of lock services of others, in a run of them.
pub(crate) fn of_engines(report: &BenchReport) -> Vec<Verdict> {
    let run = Run { report, measures: &[] };
    let verdict = |&(what, subject, variant)| {
        let ours = run.variant(Host, Case::QUIET, Async, variant).map(p50);
        let theirs = report.row(Host, Case::QUIET, subject, Async).map(p50);
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        Verdict::of(what, Unit::Ratio, AtMost(1.15), ratio)
    };
    OF_ENGINES.iter().map(verdict).collect()
}

/// What was promised of the modes, beside these measures.
pub(crate) fn of_modes(measures: &[Measure]) -> Vec<Verdict> {
    let verdict = |&(what, ours, over, target)| {
        let ratio = measure::value(measures, ours).zip(measure::value(measures, over));
        Verdict::of(what, Unit::Ratio, target, ratio.map(|(ours, over)| ours / over))
    };
    OF_MODES.iter().map(verdict).collect()
}

/// Every budget of the scopes that were measured.
pub(crate) fn verdicts(report: &BenchReport, measures: &[Measure]) -> Vec<Verdict> {
    let run = Run { report, measures };
    let was_measured = |scope| report.rows.iter().any(|row| row.label.scope == scope);
    let of_this_run = BUDGETS.iter().filter(|budget| was_measured(budget.scope));
    of_this_run.map(|budget| budget.verdict(&run)).collect()
}

impl Budget {
    fn verdict(&self, run: &Run<'_>) -> Verdict {
        Verdict::of(self.what, self.unit, self.target, (self.here)(run))
    }
}

impl Unit {
    /// A figure for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            // Close to a target two digits would hide on which side.
            Unit::Ratio if value < 1.0 => format!("{value:.3}"),
            Unit::Ratio if value < 10.0 => format!("{value:.2}"),
            Unit::Ratio => human::multiple(value),
            Unit::Ns => human::time(value),
            Unit::Bytes => format!("{value:.0} B"),
            Unit::Count => format!("{value:.0}"),
            Unit::Percent => format!("{value:.2} %"),
        }
    }
}

impl Verdict {
    pub(crate) fn of(
        what: &'static str,
        unit: Unit,
        target: Target,
        measured: Option<f64>,
    ) -> Verdict {
        let measured = measured.filter(|measured| measured.is_finite());
        let measured = measured.map(|measured| (measured * 1_000.0).round() / 1_000.0);
        let met = measured.map(|measured| match target {
            AtMost(most) => measured <= most,
            AtLeast(least) => measured >= least,
        });
        Verdict { what, unit, measured, target, met }
    }

    pub(crate) fn target(&self) -> String {
        match self.target {
            AtMost(most) => format!("≤ {}", self.unit.show(most)),
            AtLeast(least) => format!("≥ {}", self.unit.show(least)),
        }
    }
}

type Figure = fn(&Row) -> f64;

fn p50(row: &Row) -> f64 {
    row.figures.p50_ns
}

fn p99(row: &Row) -> f64 {
    row.figures.p99_ns
}

fn worst(row: &Row) -> f64 {
    row.figures.worst_ns
}

fn rate(row: &Row) -> f64 {
    row.figures.ops_per_s
}

fn share(row: &Row) -> f64 {
    row.figures.share_min_max
}

/// What budgets are judged by.
struct Run<'a> {
    report: &'a BenchReport,
    measures: &'a [Measure],
}

impl Run<'_> {
    fn measure(&self, what: &str) -> Option<f64> {
        measure::value(self.measures, what)
    }

    /// The quiet cycle of thread scope, and the reading of the clock that a deadline asks for.
    fn thread_and_clock_ns(&self) -> Option<f64> {
        let thread = self.ours(p50, Thread, Case::QUIET, Blocking)?;
        Some(thread + self.measure(scale::CLOCK)?)
    }

    /// Our row that does something else than usual.
    fn variant(&self, scope: Scope, case: Case, mode: WaitMode, variant: &str) -> Option<&Row> {
        self.report.rows.iter().find(|row| {
            let of = &row.label;
            of.variant == Some(variant)
                && (of.scope, of.case, of.subject, of.mode) == (scope, case, TIERLOCK, mode)
        })
    }

    fn ours(&self, figure: Figure, scope: Scope, case: Case, mode: WaitMode) -> Option<f64> {
        Some(figure(self.report.row(scope, case, TIERLOCK, mode)?))
    }

    /// Ours over the smallest of theirs in the same case.
    fn over(
        &self,
        figure: Figure,
        scope: Scope,
        case: Case,
        mode: WaitMode,
        theirs: &[(&str, WaitMode)],
    ) -> Option<f64> {
        let ours = self.ours(figure, scope, case, mode)?;
        let theirs = theirs
            .iter()
            .filter_map(|&(subject, mode)| {
                Some(figure(self.report.row(scope, case, subject, mode)?))
            })
            .min_by(f64::total_cmp)?;
        Some(ours / theirs)
    }
}

#[cfg(test)]
mod tests;
