use tierlock::Scope;

use super::*;
use crate::bench::case::Case;
use crate::bench::report::tests::{report, row};

fn sample() -> BenchReport {
    let of = |subject, share: f64, cost| {
        let mut row = row(Scope::Host, Case::REMOTE_1PCT, subject, cost);
        row.facts.insert(REMOTE_SHARE, share);
        row
    };
    report(vec![
        of(TIERLOCK, 0.0, 60.0),
        of("redis-sync", 0.0, 132_000.0),
        of(TIERLOCK, 1.0, 200_000.0),
        of("redis-sync", 1.0, 140_000.0),
    ])
}

#[test]
fn picture_has_a_curve_for_each_subject_and_all_shares_below() {
    let mut svg = String::new();
    paint(&sample(), &mut svg).unwrap();
    for text in [TIERLOCK, "redis-sync", "60 ns", "132 µs", "0.1 %", "100 %"] {
        assert!(svg.contains(text), "{text}");
    }
    assert_eq!(svg.matches("<circle").count(), 4);
}

#[test]
fn what_was_not_measured_is_no_figure() {
    let text = text(&Comparison::new(sample(), Field::new().unwrap()));
    assert!(text.lines().any(|line| line.starts_with("0 % ") && line.contains("132 µs")));
    assert!(text.lines().any(|line| line.starts_with("1 % ") && line.contains('?')), "{text}");
}
