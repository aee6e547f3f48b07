//! Budgets: ratios that tierlock promises to keep, against what the same run measured.

use serde::Serialize;

use super::{
    case::{Case, Mode, TIERLOCK},
    report::Report,
};
use crate::Scope;

/// tierlock's median in one row, over the best of others' in the same case.
struct Budget {
    what: &'static str,
    scope: Scope,
    case: Case,
    mode: Mode,
    over: &'static [(&'static str, Mode)],
    at_most: f64,
}

const REDIS: &[(&str, Mode)] = &[("redis", Mode::Async), ("redis-sync", Mode::Blocking)];

const BUDGETS: &[Budget] = &[
    Budget {
        what: "thread, quiet: × parking_lot",
        scope: Scope::Thread,
        case: Case::Quiet,
        mode: Mode::Blocking,
        over: &[("parking_lot", Mode::Blocking)],
        at_most: 1.25,
    },
    Budget {
        what: "host, quiet, blocking: × Redis's faster client",
        scope: Scope::Host,
        case: Case::Quiet,
        mode: Mode::Blocking,
        over: REDIS,
        at_most: 0.85,
    },
    Budget {
        what: "host, quiet, async: × Redis's faster client",
        scope: Scope::Host,
        case: Case::Quiet,
        mode: Mode::Async,
        over: REDIS,
        at_most: 0.85,
    },
];

/// A budget beside what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) ratio: f64,
    pub(crate) at_most: f64,
    pub(crate) met: bool,
}

/// Every budget whose two sides were both measured.
pub(crate) fn verdicts(report: &Report) -> Vec<Verdict> {
    BUDGETS.iter().filter_map(|budget| verdict(budget, report)).collect()
}

fn verdict(budget: &Budget, report: &Report) -> Option<Verdict> {
    let median_ns = |subject, mode| {
        report.row(budget.scope, budget.case, subject, mode).map(|row| row.figures.p50_ns)
    };
    let ours = median_ns(TIERLOCK, budget.mode)?;
    let theirs = budget
        .over
        .iter()
        .filter_map(|&(subject, mode)| median_ns(subject, mode))
        .min_by(f64::total_cmp)?;
    let ratio = (ours / theirs * 1_000.0).round() / 1_000.0;
    Some(Verdict {
        what: budget.what,
        ratio,
        at_most: budget.at_most,
        met: ratio <= budget.at_most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{report, row};

    #[test]
    fn ratio_is_taken_over_the_faster_of_the_others() {
        let mut sync = row(Scope::Host, Case::Quiet, "redis-sync", 120.0);
        sync.label.mode = Mode::Blocking;
        let mut asynchronous = row(Scope::Host, Case::Quiet, "redis", 150.0);
        asynchronous.label.mode = Mode::Async;
        let ours = row(Scope::Host, Case::Quiet, TIERLOCK, 96.0);
        let verdicts = verdicts(&report(vec![ours, sync, asynchronous]));
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        assert_eq!(verdicts[0].ratio, 0.8);
        assert!(verdicts[0].met);
    }

    #[test]
    fn miss_is_a_miss_and_what_was_not_measured_is_left_out() {
        let ours = row(Scope::Thread, Case::Quiet, TIERLOCK, 7.0);
        assert_eq!(verdicts(&report(vec![ours.clone()])), []);
        let theirs = row(Scope::Thread, Case::Quiet, "parking_lot", 5.0);
        let verdicts = verdicts(&report(vec![ours, theirs]));
        assert!(!verdicts[0].met, "{verdicts:?}");
    }
}
