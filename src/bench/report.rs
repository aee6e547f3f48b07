//! What a run found out, and its JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    budget::Verdict,
    case::{Case, Label, Mode, TIERLOCK},
    machine::Machine,
    peers::Missing,
    scale::Measure,
    stats::Summary,
};
use crate::Scope;

/// All of it. The JSON's shape is a promise: fields are added, never changed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) measures: Vec<Measure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) budgets: Vec<Verdict>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing: Vec<Missing>,
    /// What this machine has no room for, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

impl Report {
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    /// The row of one subject as it usually is, if it was measured. Of a case that comes in several
    /// sizes (processes, a killed holder's memory) it is the first one.
    pub(crate) fn row(&self, scope: Scope, case: Case, subject: &str, mode: Mode) -> Option<&Row> {
        self.variant(scope, case, subject, mode, None)
    }

    /// The row of one subject that does something else than usual.
    pub(crate) fn variant(
        &self,
        scope: Scope,
        case: Case,
        subject: &str,
        mode: Mode,
        variant: Option<&str>,
    ) -> Option<&Row> {
        let wanted = (scope, case, subject, mode, variant);
        self.rows.iter().find(|row| {
            let Label { scope, case, subject, mode, variant, .. } = row.label;
            (scope, case, subject, mode, variant) == wanted
        })
    }

    /// A figure that is no row.
    pub(crate) fn measure(&self, what: &str) -> Option<f64> {
        Some(self.measures.iter().find(|measure| measure.what == what)?.value)
    }

    /// What tierlock's quiet lock and unlock cost at a scope, in the middle.
    pub(crate) fn quiet_ns(&self, scope: Scope) -> Option<f64> {
        Some(self.row(scope, Case::Quiet, TIERLOCK, Mode::Blocking)?.figures.p50_ns)
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(into = "JsonRow")]
pub(crate) struct Row {
    pub(crate) label: Label,
    pub(crate) figures: Summary,
    /// What else was counted, by the word of the JSON.
    pub(crate) facts: BTreeMap<&'static str, f64>,
}

impl Row {
    pub(crate) fn new(label: &Label, figures: &Summary) -> Row {
        Row { label: label.clone(), figures: *figures, facts: BTreeMap::new() }
    }

    pub(crate) fn fact(&self, word: &str) -> Option<f64> {
        self.facts.get(word).copied()
    }
}

#[derive(Serialize)]
struct JsonRow {
    scope: &'static str,
    case: &'static str,
    subject: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'static str>,
    mode: Mode,
    clients: u32,
    processes: u32,
    threads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_mib: Option<u32>,
    operations: u64,
    ops_per_s: f64,
    p50_ns: f64,
    p99_ns: f64,
    max_ns: f64,
    worst_ns: f64,
    share_min_max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(flatten)]
    facts: BTreeMap<&'static str, f64>,
}

impl From<Row> for JsonRow {
    fn from(Row { label, figures, facts }: Row) -> JsonRow {
        JsonRow {
            scope: label.scope.as_str(),
            case: label.case.as_str(),
            subject: label.subject,
            variant: label.variant,
            mode: label.mode,
            clients: label.clients,
            processes: label.processes,
            threads: label.threads,
            resident_mib: label.resident_mib,
            operations: figures.operations,
            ops_per_s: figures.ops_per_s.round(),
            p50_ns: tenths(figures.p50_ns),
            p99_ns: tenths(figures.p99_ns),
            max_ns: tenths(figures.max_ns),
            worst_ns: tenths(figures.worst_ns),
            share_min_max: (figures.share_min_max * 1_000.0).round() / 1_000.0,
            note: label.note,
            facts,
        }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
pub(crate) mod tests {
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

    pub(crate) fn report(rows: Vec<Row>) -> Report {
        Report {
            machine: Machine::this(),
            rows,
            measures: Vec::new(),
            budgets: Vec::new(),
            missing: Vec::new(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn json_has_the_promised_fields() {
        let report = report(vec![row(Scope::Thread, Case::Quiet, TIERLOCK, 4.94)]);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
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
        assert!(json.get("budgets").is_none(), "only with peers");
    }
}
