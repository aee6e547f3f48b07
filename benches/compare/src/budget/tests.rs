use super::*;
use crate::bench::report::tests::{report, row};

fn verdict(what: &str, rows: Vec<Row>) -> Verdict {
    let verdicts = verdicts(&report(rows), &[]);
    verdicts.into_iter().find(|verdict| verdict.what.starts_with(what)).expect(what)
}

#[test]
fn ratio_is_taken_over_the_faster_of_the_others() {
    let sync = row(Host, Case::QUIET, "redis-sync", 120.0);
    let mut asynchronous = row(Host, Case::QUIET, "redis", 150.0);
    asynchronous.label.mode = Async;
    let ours = row(Host, Case::QUIET, TIERLOCK, 48.0);
    let verdict = verdict("host, quiet, blocking", vec![ours, sync, asynchronous]);
    assert_eq!(verdict.measured, Some(0.4));
    assert_eq!(verdict.met, Some(true));
}

#[test]
fn miss_is_a_miss_and_what_was_not_measured_is_neither() {
    let ours = row(Thread, Case::QUIET, TIERLOCK, 7.0);
    let alone = verdict("thread, quiet", vec![ours.clone()]);
    assert_eq!((alone.measured, alone.met), (None, None));
    let theirs = row(Thread, Case::QUIET, "parking_lot", 5.0);
    assert_eq!(verdict("thread, quiet", vec![ours, theirs]).met, Some(false));
}

#[test]
fn modes_are_judged_by_the_first_measure_of_each_kind() {
    let measure = |what, at, value| Measure { what, at, value, unit: measure::Unit::PerSecond };
    let verdicts = of_modes(&[
        measure("readers_in_processes", 2, 3e7),
        measure("readers_in_processes", 8, 1e6),
        measure("readers_in_processes_pthread_rwlock", 2, 2e7),
    ]);
    let met: Vec<_> = verdicts.iter().map(|verdict| (verdict.measured, verdict.met)).collect();
    let unknown = (None, None);
    assert_eq!(met, [unknown, unknown, unknown, (Some(1.5), Some(true))]);
}

#[test]
fn kept_lease_is_measured_by_thread_scope_and_a_clock_reading() {
    let thread = row(Thread, Case::QUIET, TIERLOCK, 10.0);
    let kept = row(Host, Case::KEPT, TIERLOCK, 36.0);
    let clock = Measure { what: scale::CLOCK, at: 1, value: 20.0, unit: measure::Unit::Ns };
    let verdicts = verdicts(&report(vec![thread, kept]), &[clock]);
    let verdict = verdicts.iter().find(|verdict| verdict.what.starts_with("host, kept:"));
    assert_eq!(verdict.unwrap().measured, Some(1.2));
    assert_eq!(verdict.unwrap().met, Some(true));
}

#[test]
fn budgets_without_a_figure_say_their_target_all_the_same() {
    let verdict = verdict("leader's memory", vec![row(Host, Case::QUIET, TIERLOCK, 9.0)]);
    assert_eq!(verdict.target(), "≤ 200 B");
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(json["at_most"], 200.0);
    assert!(json["measured"].is_null() && json["met"].is_null());
}
