//! The figures of a page (`benches/RESULTS.md`): the text between two marks, replaced by one run's.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use crate::{
    bench::failure::{BenchFailure, Result},
    comparison::Comparison,
};

const BEGINS: &str = "<!-- figures -->\n";
const ENDS: &str = "<!-- /figures -->\n";

/// Whether a file can be filled: it is there, has the marks and may be written.
pub(crate) fn check(file: &Path) -> Result<()> {
    replace(file, None)
}

/// Puts the run's figures between the marks of a file.
pub(crate) fn fill(comparison: &Comparison, file: &Path) -> Result<()> {
    replace(file, Some(&block(comparison)))
}

fn replace(file: &Path, block: Option<&str>) -> Result<()> {
    let failed = || BenchFailure::io(format!("cannot fill {}", file.display()));
    let page = fs::read_to_string(file).map_err(failed())?;
    let filled = filled(&page, block.unwrap_or_default())
        .ok_or_else(|| failed()(io::Error::other(format!("it has no {}", BEGINS.trim()))))?;
    match block {
        Some(_) => fs::write(file, filled).map_err(failed()),
        None => OpenOptions::new().append(true).open(file).map(drop).map_err(failed()),
    }
}

fn block(comparison: &Comparison) -> String {
    let machine = &comparison.report.machine;
    format!(
        "Measured on {} × {}, {}, with tierlock {} ({} build).\n\n```text\n{}```\n",
        machine.cpus,
        machine.cpu,
        machine.system,
        machine.version,
        machine.build,
        comparison.figures()
    )
}

/// The page with another text between its marks, if it has them.
fn filled(page: &str, block: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGINS)?;
    let (_, after) = rest.split_once(ENDS)?;
    Some(format!("{before}{BEGINS}{block}{ENDS}{after}"))
}

#[cfg(test)]
mod tests;
