use super::*;
use crate::{bench::machine::MachineInfo, peers::service::Missing};

fn killed(p50_ms: f64, lost: u64) -> LeadersFigures {
    let killed = Spread { times: 3, p50_ns: p50_ms * MS, p99_ns: 900.0 * MS, worst_ns: 900.0 * MS };
    LeadersFigures { killed, held_locks_lost: lost, quiet_ratio: 1.04, ..LeadersFigures::default() }
}

fn row(subject: Subject, figures: LeadersFigures) -> LeadersRow {
    LeadersRow { subject, figures: Some(figures), missing: None }
}

fn met(verdicts: &[Verdict], what: &str) -> Option<bool> {
    verdicts.iter().find(|verdict| verdict.what == what).expect(what).met
}

#[test]
fn a_group_is_held_to_less_than_leaders_over_a_store() {
    let both = [row(Subject::Group, killed(600.0, 0)), row(Subject::OverEtcd, killed(600.0, 1))];
    let verdicts = verdicts(&both);
    assert_eq!(met(&verdicts, "group of 3, leader killed: first grant, p50"), Some(false));
    assert_eq!(met(&verdicts, "over etcd, leader killed: first grant, p50"), Some(true));
    assert_eq!(met(&verdicts, "group of 3: held locks lost"), Some(true));
    assert_eq!(met(&verdicts, "over etcd: held locks lost"), Some(false));
    assert_eq!(met(&verdicts, "over postgres: held locks lost"), None);
}

#[test]
fn tables_have_a_line_for_each_also_for_what_is_not_installed() {
    let missing = Some(Missing::new("postgres", "postgresql"));
    let rows = vec![
        row(Subject::Group, killed(412.0, 0)),
        LeadersRow { subject: Subject::OverPostgres, figures: None, missing },
    ];
    let budgets = verdicts(&rows);
    let report = LeadersReport { machine: MachineInfo::this(), rows, budgets };
    let text = report.text();
    let lines = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("  group of 3   "), TABLES.len(), "{text}");
    assert_eq!(lines("not installed"), TABLES.len() + 1, "{text}");
    assert!(text.contains("412 ms") && text.contains("apt-get install postgresql"), "{text}");
    for line in text.lines().skip(2) {
        assert!(line.chars().count() <= 88, "{line:?}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["rows"][0]["subject"], "group");
    assert_eq!(json["rows"][0]["killed"]["p50_ns"], 412.0 * MS);
    assert_eq!(json["rows"][1]["missing"]["program"], "postgres");
}
