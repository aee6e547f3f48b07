//! What a comparison found out: the bench's report, and what only a comparison has.

use std::fmt::Write;

use serde::Serialize;

use crate::{
    bench::{report::BenchReport, table},
    budget::{self, Verdict},
    instructions,
    measure::Measure,
    names,
    peers::field::Field,
    peers::service::Missing,
};

/// All of it. The JSON's shape is a promise, as the report's is.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    #[serde(flatten)]
    pub(crate) report: BenchReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) measures: Vec<Measure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<Verdict>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<Missing>,
    /// What this machine has no room for, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

impl Comparison {
    pub(crate) fn new(report: BenchReport, field: Field) -> Comparison {
        let (missing, left_out) = (field.servers.missing.clone(), field.left_out);
        Comparison { report, measures: Vec::new(), budgets: Vec::new(), missing, left_out }
    }

    /// With further figures, and how far the promises are kept.
    pub(crate) fn judged(self, measures: Vec<Measure>) -> Comparison {
        let budgets = budget::verdicts(&self.report, &measures);
        Comparison { measures, budgets, ..self }
    }

    /// How far these promises are kept.
    pub(crate) fn with_verdicts(self, budgets: Vec<Verdict>) -> Comparison {
        Comparison { budgets, ..self }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> String {
        self.report.machine.heading()
            + &self.figures()
            + &self.missing_text()
            + &table::advice(&self.report)
    }

    /// What was measured, and how far that keeps what was promised.
    pub(crate) fn figures(&self) -> String {
        let mut text = table::rows(&self.report);
        let instructions = instructions::text(&self.report.rows);
        for part in [instructions, names::table(&self.measures), budgets(&self.budgets)] {
            if !part.is_empty() {
                text += &part;
                text += "\n";
            }
        }
        text + &table::ladder(&self.report)
    }

    pub(crate) fn missing_text(&self) -> String {
        let mut text = String::new();
        for missing in &self.missing {
            let _ = writeln!(text, "Not compared: {missing}");
        }
        for left_out in &self.left_out {
            let _ = writeln!(text, "Left out: {left_out}.");
        }
        if text.is_empty() { text } else { text + "\n" }
    }
}

/// A line for each, under a heading.
pub(crate) fn budgets(budgets: &[Verdict]) -> String {
    if budgets.is_empty() {
        return String::new();
    }
    let mut text = format!("{:<48}{:>9}{:>10}\n", "Budgets", "here", "target");
    for verdict in budgets {
        let _ = writeln!(
            text,
            "  {:<46}{:>9}{:>10}  {}",
            verdict.what,
            verdict.measured.map_or_else(String::new, |measured| verdict.unit.show(measured)),
            verdict.target(),
            match verdict.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "unknown",
            }
        );
    }
    text
}

#[cfg(test)]
mod tests;
