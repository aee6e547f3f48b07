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
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("# a\n{BEGINS}old\n{ENDS}rest\n");
        let once = filled(&page, "new\n").unwrap();
        assert_eq!(once, format!("# a\n{BEGINS}new\n{ENDS}rest\n"));
        assert_eq!(filled(&once, "new\n").unwrap(), once, "again and again");
        assert_eq!(filled("no marks\n", "new\n"), None);
    }

    #[test]
    fn a_page_that_cannot_be_filled_is_refused_before_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page.md");
        assert!(check(&page).unwrap_err().to_string().contains("cannot fill"));
        fs::write(&page, "no marks\n").unwrap();
        assert!(check(&page).unwrap_err().to_string().contains("it has no"));
        let text = format!("# a\n{BEGINS}old\n{ENDS}rest\n");
        fs::write(&page, &text).unwrap();
        check(&page).unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), text, "a look changes nothing");
    }

    #[test]
    fn results_have_the_marks_and_what_each_side_guarantees() {
        let results = include_str!("../../RESULTS.md");
        assert!(filled(results, "").is_some());
        let (_, guarantees) = include_str!("guarantees.txt").split_once("\n\n").unwrap();
        assert!(results.contains(guarantees), "copy guarantees.txt into the results");
    }
}
