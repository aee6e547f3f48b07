//! Read-write locks and semaphores, beside those of others: quiet, in several processes, between
//! machines.
//!
//! | file | measures |
//! |---|---|
//! | `quiet` | one caller, nothing in its way, at each scope |
//! | `crowd` | readers, and takers of permits, in several processes; a writer under a storm of readers |
//! | `remote` | eight clients of one name between machines, 95 % of them readers |

pub(crate) mod crowd;
mod quiet;
mod remote;

use std::{fmt::Write, time::Duration};

use serde::Serialize;

use crate::{
    bench::{failure::Result, human, machine::MachineInfo, progress::Progress},
    budget::{self, Verdict},
    comparison,
    measure::{Measure, Unit},
    peers::field::Field,
};

#[derive(Serialize)]
pub(crate) struct Modes {
    machine: MachineInfo,
    measures: Vec<Measure>,
    budgets: Vec<Verdict>,
    /// What was given up, or was not there, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

/// All of it, in about so many seconds.
pub(crate) fn run(seconds: f64) -> Result<Modes> {
    let mut field = Field::new()?;
    let progress = Progress::new(Duration::ZERO);
    let each = Duration::from_secs_f64(seconds / PARTS);
    let mut measures = Vec::new();
    quiet::measure(&mut field, each, &progress, &mut measures)?;
    crowd::measure(&mut field, each, &progress, &mut measures)?;
    remote::measure(&mut field, each, &progress, &mut measures)?;
    let mut left_out = field.left_out;
    left_out.extend(field.servers.missing.iter().map(ToString::to_string));
    let budgets = budget::of_modes(&measures);
    Ok(Modes { machine: MachineInfo::this(), measures, budgets, left_out })
}

/// How many figures there are, about.
const PARTS: f64 = 36.0;

impl Modes {
    pub(crate) fn text(&self) -> String {
        let mut text = self.machine.heading();
        for Measure { what, at, value, unit } in &self.measures {
            let value = match unit {
                Unit::PerSecond => format!("{}/s", human::count(*value)),
                _ => human::time(*value),
            };
            let at = if *at == 1 { String::new() } else { format!("{at}") };
            let _ = writeln!(text, "{:<60}{at:>4}{value:>14}", what.replace('_', " "));
        }
        text += "\n";
        text += &comparison::budgets(&self.budgets);
        for left_out in &self.left_out {
            let _ = writeln!(text, "Left out: {left_out}.");
        }
        text
    }
}
