//! What observing costs in instructions, which nothing else on the machine changes.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use serde::Serialize;

use super::{
    PLAIN, SUBJECTS, Spans, Subject,
    pairs::{Counter, Pair, Part, Programs},
};
use crate::{
    bench::{
        failure::{BenchFailure, Result},
        progress::Progress,
    },
    instructions::collected,
    peers::{field::Field, server},
};

/// Instructions for each lock, without the kernel's.
#[derive(Serialize)]
pub(super) struct Counted {
    of: Part,
    subject: &'static str,
    each: f64,
}

/// The callers that most often share a frame, so that what a lock itself takes is the larger part.
const CALLERS: &str = "tasks";
/// The short run makes everything ready, and the long one locks as well.
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(4);

/// Counts one of each pair, beside another that runs as usual. Nothing, if valgrind is not installed.
pub(super) fn count(
    field: &mut Field,
    programs: &Programs,
    progress: &Progress,
) -> Result<Vec<Counted>> {
    let Some(valgrind) = server::find("valgrind") else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for of in [Part::Leader, Part::Client] {
        for subject in SUBJECTS.iter().filter(|subject| subject.is_counted(of)) {
            progress.says(&format!("counting instructions: {}", subject.text));
            let mut run = |slice| instructions(field, programs, &valgrind, of, subject, slice);
            let ((short, few), (long, many)) = (run(SHORT)?, run(LONG)?);
            let each = (long.saturating_sub(short) as f64 / (many - few).max(1.0)).round();
            all.push(Counted { of, subject: subject.text, each });
        }
    }
    Ok(all)
}

impl Subject {
    fn is_counted(&self, of: Part) -> bool {
        self.text == PLAIN
            || match of {
                Part::Leader => self.is_leader_observed,
                Part::Client => self.spans != Spans::NotBuilt,
            }
    }
}

/// Those of a whole run, and how many locks there were in it.
fn instructions(
    field: &mut Field,
    programs: &Programs,
    valgrind: &Path,
    of: Part,
    subject: &Subject,
    slice: Duration,
) -> Result<(u64, f64)> {
    let said = field.new_directory("counted")?.join("said");
    let counter = Counter { valgrind, of, said: &said };
    let mut pair = Pair::start_here(field, programs, CALLERS, subject, Some(&counter))?;
    let ops = pair.work(slice)?.ops;
    pair.end()?;
    let said = fs::read_to_string(&said).map_err(BenchFailure::io("cannot read a count"))?;
    let all = collected(&said);
    let all =
        all.ok_or_else(|| BenchFailure::other(format!("valgrind counted nothing: {said}")))?;
    Ok((all, ops))
}

/// A line for each part of a pair. Empty if nothing was counted.
pub(super) fn text(counted: &[Counted]) -> String {
    let mut text = String::new();
    for (of, word) in [(Part::Leader, "leader"), (Part::Client, "client")] {
        let of_part: Vec<_> = counted.iter().filter(|counted| counted.of == of).collect();
        let Some(plain) = of_part.first() else { continue };
        let show = |counted: &&Counted| {
            let Counted { subject, each, .. } = counted;
            let more = (each / plain.each - 1.0) * 100.0;
            match *subject {
                PLAIN => format!("{subject} {each}"),
                _ => format!("{subject} {each} ({more:+.1} %)"),
            }
        };
        let shown: Vec<String> = of_part.iter().map(show).collect();
        let _ = writeln!(text, "  {word:<9}{}", shown.join("   "));
    }
    match text.is_empty() {
        true => text,
        false => format!(
            "Instructions for each lock of {CALLERS}, without the kernel's; a percent or two is how many locks \
             come to a frame\n{text}\n"
        ),
    }
}

#[cfg(test)]
mod tests;
