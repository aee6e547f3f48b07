//! What a run found out, and its JSON.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Write},
};

use serde::Serialize;
use tierlock::Scope;

use super::{
    case::{Case, Label, TIERLOCK, WaitMode},
    failure::{BenchFailure, Result},
    machine::MachineInfo,
    stats::Summary,
};

/// All of it. The JSON's shape is a promise: fields are added, never changed.
#[derive(Debug, Serialize)]
pub(crate) struct BenchReport {
    pub(crate) machine: MachineInfo,
    pub(crate) rows: Vec<Row>,
}

impl BenchReport {
    /// The row of one subject as it usually is, if it was measured. Of a case that comes in several
    /// sizes (processes, a killed holder's memory) it is the first one.
    pub(crate) fn row(
        &self,
        scope: Scope,
        case: Case,
        subject: &str,
        mode: WaitMode,
    ) -> Option<&Row> {
        self.rows.iter().find(|row| {
            let of = &row.label;
            of.variant.is_none()
                && (of.scope, of.case, of.subject, of.mode) == (scope, case, subject, mode)
        })
    }

    /// What tierlock's quiet lock and unlock cost at a scope, in the middle.
    pub(crate) fn quiet_ns(&self, scope: Scope) -> Option<f64> {
        Some(self.row(scope, Case::QUIET, TIERLOCK, WaitMode::Blocking)?.figures.p50_ns)
    }
}

pub(crate) fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report).expect("plain data") + "\n"
}

pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(BenchFailure::io("cannot print the result")),
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) label: Label,
    #[serde(flatten)]
    pub(crate) figures: Summary,
    /// What else was counted, by the word of the JSON.
    #[serde(flatten)]
    pub(crate) facts: BTreeMap<&'static str, f64>,
}

impl Row {
    pub(crate) fn new(label: &Label, figures: &Summary) -> Row {
        Row { label: label.clone(), figures: *figures, facts: BTreeMap::new() }
    }
}

#[cfg(test)]
pub(crate) mod tests;
