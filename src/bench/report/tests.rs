use super::*;

/// A made-up row.
pub(crate) fn row(scope: Scope, case: Case, subject: &'static str, p50_ns: f64) -> Row {
    let label = Label { subject, ..Label::new(scope, case) };
    let figures = Summary {
        operations: 1_000,
        ops_per_s: 1e9 / p50_ns,
        p50_ns,
        p99_ns: p50_ns * 2.0,
        max_ns: p50_ns * 1_000.0,
        worst_ns: p50_ns * 500.0,
        share_min_max: 1.0,
    };
    Row::new(&label, &figures)
}

pub(crate) fn report(rows: Vec<Row>) -> BenchReport {
    BenchReport { machine: MachineInfo::this(), rows }
}

#[test]
fn json_has_the_promised_fields() {
    let report = report(vec![row(Scope::Thread, Case::QUIET, TIERLOCK, 4.94)]);
    let json: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
    let row = &json["rows"][0];
    for field in [
        "scope",
        "case",
        "subject",
        "clients",
        "processes",
        "threads",
        "ops_per_s",
        "p50_ns",
        "p99_ns",
        "max_ns",
        "share_min_max",
    ] {
        assert!(!row[field].is_null(), "{field} is missing in {row}");
    }
    assert_eq!(row["p50_ns"], 4.9);
    assert_eq!(row["mode"], "blocking");
    assert!(json["machine"].is_object());
}
