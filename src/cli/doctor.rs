//! `tierlock doctor`: what is wrong with a directory, a lock service, leaders or a journal, and what to do.

use std::fmt;

use super::{
    args,
    failure::{Failure, exit, print},
    leaders::{self, AskingLeaders},
};
use crate::{
    printable::{Printable, few},
    process::{self, Finding, Level},
};

/// Says what it found, one finding on a line, and exits by the worst of it.
pub(super) fn doctor(what: args::Doctor) -> Result<u8, Failure> {
    if let Some(url) = &what.journal {
        args::refuse_password(url)?;
        let found = examine_journal(url)?;
        return say(&found, "the journal");
    }
    let common = what.common.with_environment()?;
    let directory = common.directory().map(ToOwned::to_owned);
    let addresses = common.leader_addresses();
    if directory.is_none() && !common.has_service() && addresses.is_empty() {
        return Err(Failure::new(
            exit::CONFIG,
            "doctor examines a directory, a lock service, leaders or a journal; give --dir, --service, \
             --leader or --journal, or set TIERLOCK_DIR, TIERLOCK_SERVICE or TIERLOCK_LEADERS",
        ));
    }
    let mut about = Vec::new();
    let mut found = Vec::new();
    if let Some(directory) = &directory {
        found.extend(process::examine(directory)?);
        about.push(format!("lock directory {}", directory.display()));
    }
    if !addresses.is_empty() {
        found.extend(leaders::findings(&AskingLeaders::begin(&common)?.end()?));
        about.push(format!("the leaders {}", few(&addresses, ", ")));
    } else if common.has_service() {
        about.extend(common.leaders());
        found.extend(examine_service(common)?);
    }
    say(&found, &about.join(" and "))
}

/// Prints the findings; the exit status of the worst.
fn say(found: &[Finding], about: &str) -> Result<u8, Failure> {
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
            "{about}: standard output has {damage} findings of damage and {trouble} of trouble, with \
             what to do; nothing was repaired",
        ),
    ))
}

/// What a lock service says of itself.
#[cfg(feature = "service")]
fn examine_service(common: args::Common) -> Result<Vec<Finding>, Failure> {
    let asked = common.leaders();
    let locks = common.without_directory().into_builder().open()?;
    let Some(found) = locks.examine_service() else {
        return Err(Failure::new(
            exit::CONFIG,
            "doctor examines directories, lock services and leaders, and this is none",
        ));
    };
    let found = found.map_err(|error| Failure::from(error).naming_leaders(&asked))?;
    Ok(found.into_iter().map(of_service).collect())
}

#[cfg(feature = "service")]
fn of_service(finding: crate::host::engines::EngineFinding) -> Finding {
    use crate::host::engines::FindingKind;
    let level = match finding.kind {
        FindingKind::Fine => Level::Fine,
        FindingKind::Note => Level::Note,
        FindingKind::Trouble => Level::Trouble,
    };
    Finding { level, text: finding.text }
}

/// What the journal of several leaders says of itself.
#[cfg(any(feature = "etcd", feature = "postgres"))]
fn examine_journal(url: &str) -> Result<Vec<Finding>, Failure> {
    let found = crate::host::examine_journal(url)?;
    Ok(found.into_iter().map(of_service).collect())
}

#[cfg(not(any(feature = "etcd", feature = "postgres")))]
fn examine_journal(_: &str) -> Result<Vec<Finding>, Failure> {
    Err(Failure::new(
        exit::USAGE,
        "this tierlock was built without a store for journals: the features `etcd` and `postgres`",
    ))
}

#[cfg(not(feature = "service"))]
fn examine_service(_: args::Common) -> Result<Vec<Finding>, Failure> {
    Err(Failure::new(
        exit::USAGE,
        "this tierlock was built without lock services of other kinds: \
         cargo install tierlock --features cli,engines",
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
