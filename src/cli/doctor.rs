//! `tierlock doctor`: what is wrong with a directory, and what to do.

use std::fmt;

use super::{
    args,
    failure::{Failure, exit, print},
};
use crate::{
    printable::Printable,
    process::{self, Finding, Level},
};

/// Says what it found, one finding on a line, and exits by the worst of it.
pub(super) fn doctor(what: args::Doctor) -> Result<u8, Failure> {
    let common = what.common.with_environment()?;
    let Some(directory) = common.directory() else {
        return Err(Failure::new(
            exit::CONFIG,
            "doctor examines a directory; give --dir, or set TIERLOCK_DIR",
        ));
    };
    let found = process::examine(directory)?;
    let text: String = found.iter().map(line).collect();
    print(&text)?;
    let count = |level| found.iter().filter(|finding| finding.level == level).count();
    let status = match (count(Level::Damage), count(Level::Trouble)) {
        (0, 0) => return Ok(0),
        (0, _) => exit::CONFIG,
        (_, _) => exit::IO,
    };
    let (damage, trouble) = (count(Level::Damage), count(Level::Trouble));
    Err(Failure::new(
        status,
        format_args!(
            "lock directory {}: {damage} of damage and {trouble} of trouble, on standard output \
             with what to do; nothing was repaired",
            directory.display()
        ),
    ))
}

fn line(finding: &Finding) -> String {
    // Names of files may hold anything.
    let text = Printable(&finding.text);
    format!("{:<8} {text}\n", format!("{}:", finding.level))
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Fine => "ok",
            Level::Note => "note",
            Level::Trouble => "trouble",
            Level::Damage => "damage",
        })
    }
}
