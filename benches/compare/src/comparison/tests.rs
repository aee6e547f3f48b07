use tierlock::Scope;

use super::*;
use crate::bench::{
    case::{Case, TIERLOCK},
    report::tests::{report, row},
};

#[test]
fn every_line_fits_in_80_columns_and_a_miss_is_said() {
    let mut report = report(vec![
        row(Scope::Thread, Case::QUIET, TIERLOCK, 5.4),
        row(Scope::Thread, Case::QUIET, "parking_lot", 3.3),
        row(Scope::Host, Case::CONNECTIONS_32, "redis-aof-always", 188_000_000.0),
    ]);
    // What the machine calls itself is as long as it is.
    report.machine.cpu = "a CPU".into();
    let comparison = Comparison::new(report, Field::new().unwrap()).judged(Vec::new());
    let text = comparison.text();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?}\n{text}");
    }
    assert!(text.contains("MISSED") && text.contains("unknown"), "{text}");
}
