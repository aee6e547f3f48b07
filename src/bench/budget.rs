//! Budgets: what tierlock promises to keep, against what the same run measured.

use serde::Serialize;

use super::{
    case::{
        Case,
        Mode::{self, Async, Blocking},
        TIERLOCK,
    },
    human,
    report::{Report, Row},
    scale,
};
use crate::Scope::{self, Host, Process, Thread};

struct Budget {
    scope: Scope,
    what: &'static str,
    unit: Unit,
    target: Target,
    /// What a run measured, if it measured both sides.
    here: fn(&Report) -> Option<f64>,
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
    here: fn(&Report) -> Option<f64>,
) -> Budget {
    Budget { scope, what, unit, target, here }
}

const MS: f64 = 1e6;

const BUDGETS: &[Budget] = &[
    budget(Thread, "thread, quiet: × parking_lot", Unit::Ratio, AtMost(1.25), |run| {
        run.over(p50, Thread, Case::Quiet, Blocking, &[("parking_lot", Blocking)])
    }),
    budget(
        Thread,
        "thread, 200 µs held, re-locked: worst wait",
        Unit::Ns,
        AtMost(5.0 * MS),
        |run| run.ours(worst, Thread, Case::Threads200us, Blocking),
    ),
    budget(Process, "process, quiet: × robust pthread", Unit::Ratio, AtMost(1.3), |run| {
        run.over(p50, Process, Case::Quiet, Blocking, &[("robust-pthread", Blocking)])
    }),
    budget(Process, "process, quiet: flock's time × ours", Unit::Ratio, AtLeast(75.0), |run| {
        Some(1.0 / run.over(p50, Process, Case::Quiet, Blocking, &[("flock", Blocking)])?)
    }),
    budget(
        Process,
        "process, 2, empty: rate × robust pthread",
        Unit::Ratio,
        AtLeast(1.25),
        |run| {
            run.over(rate, Process, Case::ProcessesEmpty, Blocking, &[("robust-pthread", Blocking)])
        },
    ),
    budget(Process, "process, 2, 200 µs: worst wait", Unit::Ns, AtMost(8.0 * MS), |run| {
        run.ours(worst, Process, Case::Processes200us, Blocking)
    }),
    budget(Process, "process, 2, 200 µs: shares", Unit::Ratio, AtLeast(0.95), |run| {
        run.ours(share, Process, Case::Processes200us, Blocking)
    }),
    budget(Process, "process, holder killed: p99", Unit::Ns, AtMost(5.0 * MS), |run| {
        run.ours(p99, Process, Case::HolderKilled, Blocking)
    }),
    budget(Process, "process: disk per name", Unit::Bytes, AtMost(128.0), |run| {
        run.measure(scale::DISK)
    }),
    budget(Host, "host, kept lease", Unit::Ns, AtMost(60.0), |run| {
        run.ours(p50, Host, Case::Kept, Blocking)
    }),
    budget(Host, "host, kept lease, with a directory", Unit::Ns, AtMost(70.0), |run| {
        let kept = run.variant(Host, Case::Kept, TIERLOCK, Blocking, Some("+ dir"))?;
        Some(kept.figures.p50_ns)
    }),
    budget(Host, "host, quiet, blocking: × Redis's faster", Unit::Ratio, AtMost(0.75), |run| {
        run.over(p50, Host, Case::Quiet, Blocking, REDIS)
    }),
    budget(Host, "host, quiet, async: × Redis's faster", Unit::Ratio, AtMost(0.80), |run| {
        run.over(p50, Host, Case::Quiet, Async, REDIS)
    }),
    budget(Host, "host, 32 connections: rate × Redis", Unit::Ratio, AtLeast(1.8), |run| {
        run.over(rate, Host, Case::Connections32, Async, &[("redis", Async)])
    }),
    budget(Host, "host, 256 tasks: rate × bare QUIC echo", Unit::Ratio, AtLeast(0.6), |run| {
        run.over(rate, Host, Case::Tasks256, Async, &[("quic-echo", Async)])
    }),
    budget(Host, "host, 256 tasks: rate × Redis", Unit::Ratio, AtLeast(3.0), |run| {
        run.over(rate, Host, Case::Tasks256, Async, &[("redis", Async)])
    }),
    budget(Host, "host, 8 on one name: rate × PostgreSQL", Unit::Ratio, AtLeast(1.1), |run| {
        run.over(rate, Host, Case::OneName8, Async, &[("postgres", Async)])
    }),
    budget(Host, "host, 8 on one name: shares", Unit::Ratio, AtLeast(0.95), |run| {
        run.ours(share, Host, Case::OneName8, Async)
    }),
    budget(Host, "host, 2 in turns: rate × keeping off", Unit::Ratio, AtLeast(0.95), |run| {
        let off = run.variant(Host, Case::Turns2, TIERLOCK, Blocking, Some("keeping off"))?;
        Some(run.ours(rate, Host, Case::Turns2, Blocking)? / rate(off))
    }),
    budget(Host, "host, 1 % remote: rate × Redis", Unit::Ratio, AtLeast(50.0), |run| {
        run.over(rate, Host, Case::Remote1pct, Blocking, &[("redis-sync", Blocking)])
    }),
    budget(Host, "leader killed, 100 hold: first new grant", Unit::Ns, AtMost(300.0 * MS), |run| {
        run.ours(worst, Host, Case::LeaderKilled, Blocking)
    }),
    budget(Host, "leader killed, 100 hold: held locks lost", Unit::Count, AtMost(0.0), |run| {
        run.row(Host, Case::LeaderKilled, TIERLOCK, Blocking)?.fact(LOCKS_LOST)
    }),
    budget(
        Host,
        "group of 3, leader killed: first grant, p50",
        Unit::Ns,
        AtMost(500.0 * MS),
        |_| None,
    ),
    budget(Host, "group of 3, leader killed: held locks lost", Unit::Count, AtMost(0.0), |_| None),
    budget(Host, "leader's memory per held lock", Unit::Bytes, AtMost(200.0), |run| {
        run.measure(scale::HELD)
    }),
];

const REDIS: &[(&str, Mode)] = &[("redis", Async), ("redis-sync", Blocking)];

/// How many locks that were held were lost, as a row says it.
pub(crate) const LOCKS_LOST: &str = "held_locks_lost";

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

/// Every budget of the scopes that were measured.
pub(crate) fn verdicts(report: &Report) -> Vec<Verdict> {
    let was_measured = |scope| report.rows.iter().any(|row| row.label.scope == scope);
    let of_this_run = BUDGETS.iter().filter(|budget| was_measured(budget.scope));
    of_this_run.map(|budget| budget.verdict(report)).collect()
}

impl Budget {
    fn verdict(&self, report: &Report) -> Verdict {
        let measured = (self.here)(report).filter(|measured| measured.is_finite());
        let measured = measured.map(|measured| (measured * 1_000.0).round() / 1_000.0);
        Verdict {
            what: self.what,
            unit: self.unit,
            measured,
            target: self.target,
            met: measured.map(|measured| match self.target {
                AtMost(most) => measured <= most,
                AtLeast(least) => measured >= least,
            }),
        }
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
        }
    }
}

impl Verdict {
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

impl Report {
    fn ours(&self, figure: Figure, scope: Scope, case: Case, mode: Mode) -> Option<f64> {
        Some(figure(self.row(scope, case, TIERLOCK, mode)?))
    }

    /// Ours over the smallest of theirs in the same case.
    fn over(
        &self,
        figure: Figure,
        scope: Scope,
        case: Case,
        mode: Mode,
        theirs: &[(&str, Mode)],
    ) -> Option<f64> {
        let ours = self.ours(figure, scope, case, mode)?;
        let theirs = theirs
            .iter()
            .filter_map(|&(subject, mode)| Some(figure(self.row(scope, case, subject, mode)?)))
            .min_by(f64::total_cmp)?;
        Some(ours / theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{report, row};

    fn verdict(what: &str, rows: Vec<Row>) -> Verdict {
        let verdicts = verdicts(&report(rows));
        verdicts.into_iter().find(|verdict| verdict.what.starts_with(what)).expect(what)
    }

    #[test]
    fn ratio_is_taken_over_the_faster_of_the_others() {
        let sync = row(Host, Case::Quiet, "redis-sync", 120.0);
        let mut asynchronous = row(Host, Case::Quiet, "redis", 150.0);
        asynchronous.label.mode = Async;
        let ours = row(Host, Case::Quiet, TIERLOCK, 84.0);
        let verdict = verdict("host, quiet, blocking", vec![ours, sync, asynchronous]);
        assert_eq!(verdict.measured, Some(0.7));
        assert_eq!(verdict.met, Some(true));
    }

    #[test]
    fn miss_is_a_miss_and_what_was_not_measured_is_neither() {
        let ours = row(Thread, Case::Quiet, TIERLOCK, 7.0);
        let alone = verdict("thread, quiet", vec![ours.clone()]);
        assert_eq!((alone.measured, alone.met), (None, None));
        let theirs = row(Thread, Case::Quiet, "parking_lot", 5.0);
        assert_eq!(verdict("thread, quiet", vec![ours, theirs]).met, Some(false));
    }

    #[test]
    fn times_as_fast_counts_the_other_way_round() {
        let ours = row(Process, Case::Quiet, TIERLOCK, 10.0);
        let flock = row(Process, Case::Quiet, "flock", 800.0);
        let verdict = verdict("process, quiet: flock", vec![ours, flock]);
        assert_eq!((verdict.measured, verdict.met), (Some(80.0), Some(true)));
    }

    #[test]
    fn budgets_without_a_figure_say_their_target_all_the_same() {
        let verdict = verdict("leader's memory", vec![row(Host, Case::Quiet, TIERLOCK, 9.0)]);
        assert_eq!(verdict.target(), "≤ 200 B");
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["at_most"], 200.0);
        assert!(json["measured"].is_null() && json["met"].is_null());
    }
}
