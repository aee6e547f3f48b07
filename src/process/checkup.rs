//! What is wrong with a directory, for the operator that has to put it right.
//!
//! It repairs nothing, makes nothing, takes no lock that a process waits for, and writes nowhere:
//! what the engines heal by themselves it leaves to them, and says so. What it finds may be a
//! moment old, so it looks again at whatever others may just be changing before it calls that
//! damage.

use std::path::Path;

use rustix::{
    fs::{Access, AtFlags, Dir},
    io::Errno,
};

use crate::{error::LockError, filesystem};

use super::{
    EngineKind,
    dir::{
        elections::ELECTIONS,
        home::{self, Home},
        leader::LEADER,
        report::{DirectoryReport, Finding, Level, counted, foreign_entry, judge_file_rights},
        wide::{self, WIDE, WideNames},
    },
    flock, table,
};

/// Looks at everything in the directory. An error: it cannot even be opened.
pub(crate) fn examine(path: &Path) -> Result<Vec<Finding>, LockError> {
    let home = Home::find(path)?;
    let mut report = DirectoryReport::default();
    judge_file_system(&home, &mut report);
    judge_rights(&home, &mut report);
    match judge_format(&home, &mut report) {
        Some(EngineKind::File) => flock::examine(home, &mut report),
        Some(EngineKind::Table) => table::examine(home, &mut report),
        None => {}
    }
    Ok(report.into_findings())
}

// ---- the directory -----------------------------------------------------------------------------

fn judge_file_system(home: &Home, report: &mut DirectoryReport) {
    let kind = filesystem::kind_of(&home.fd);
    if let Err(error) = filesystem::judge(kind, &[]) {
        return report.error(&home.about(error));
    }
    let name = filesystem::name_of(kind);
    match filesystem::caveat(kind) {
        Some(caveat) => report.add(Level::Note, format!("it is on {name}: {caveat}")),
        None => report.add(Level::Fine, format!("it is on {name}")),
    }
}

fn judge_rights(home: &Home, report: &mut DirectoryReport) {
    let (path, mode) = (home.path.display(), home.mode);
    let (all, sticky) = (mode & 0o002 != 0, mode & 0o1000 != 0);
    match (all, sticky) {
        (true, false) => report.add(
            Level::Trouble,
            format!(
                "its mode is {mode:04o}: every user of the machine may remove its files, and the \
                 locks of others with them; let in only a group (chmod 2770 {path}), or at least \
                 keep others from removing what is not theirs (chmod +t {path})"
            ),
        ),
        (true, true) => report.add(
            Level::Note,
            format!(
                "its mode is {mode:04o}: every user of the machine may take its locks, and is \
                 trusted to write nothing else into its files; after a reboot it must be opened \
                 first by the owner of its files"
            ),
        ),
        (false, _) => report.add(Level::Fine, format!("its mode is {mode:04o}")),
    }
    let needed = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let asked = rustix::fs::accessat(&home.fd, ".", needed, AtFlags::EACCESS);
    if let Err(Errno::ACCESS | Errno::ROFS) = asked {
        report.add(
            Level::Trouble,
            "this user may not take its locks: that needs the right to read, write and search it; \
             change owner, group or mode, or examine it as a user of the locks",
        );
    }
}

/// Which engine it is in, if any that can be examined.
fn judge_format(home: &Home, report: &mut DirectoryReport) -> Option<EngineKind> {
    let found = match home.read_format() {
        Ok(found) => found,
        Err(error) => {
            report.error(&error);
            return None;
        }
    };
    let Some(found) = found else {
        judge_missing_format(home, report);
        return None;
    };
    let Some(engine) = EngineKind::of_format(&found) else {
        let ours = if table::IS_HERE { table::FORMAT } else { flock::FORMAT };
        if let Err(error) = home::judge_format(&found, ours) {
            report.error(&home.about(error));
        }
        return None;
    };
    report.add(Level::Fine, format!("its format is {:?}", found.trim_end()));
    let own: &[&str] = match engine {
        EngineKind::File => &["format", flock::LOCKS, flock::READERS, LEADER, WIDE, ELECTIONS],
        EngineKind::Table => &["format", "table", "tokens", "presence", LEADER, WIDE, ELECTIONS],
    };
    judge_entries(home, own, report);
    judge_wide(home, report);
    Some(engine)
}

/// Which service it belongs to, and whether what stands there can be read.
fn judge_wide(home: &Home, report: &mut DirectoryReport) {
    let found = match WideNames::default().read(home) {
        Ok(found) => found,
        Err(error) => return report.error(&error),
    };
    let how = wide::how_to_change(home);
    if let Some(service) = &found.service {
        report.add(Level::Fine, format!("its names of host scope are locked at {service}; {how}"));
    }
    if !found.service_is_whole {
        let text = format!("{WIDE} does not say which service the directory belongs to; {how}");
        report.add(Level::Damage, text);
    }
    if found.damaged > 0 {
        report.add(
            Level::Note,
            format!(
                "{} of {WIDE} {} cut short, as by a loss of power; nothing needs to be done: a \
                 name is not locked at host scope before its line is whole",
                counted(found.damaged, "line", "lines"),
                if found.damaged == 1 { "is" } else { "are" }
            ),
        );
    }
}

fn judge_missing_format(home: &Home, report: &mut DirectoryReport) {
    let there = |name: &str| rustix::fs::statat(&home.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    // Tokens alone may have been put there for the first to open it, to start above.
    let used = [flock::LOCKS, "table", "presence"].into_iter().find(|name| there(name));
    match used {
        Some(name) => report.add(
            Level::Damage,
            format!(
                "its file format is missing although there is {name}; stop every process that \
                 uses the directory and remove it, or choose another"
            ),
        ),
        None => report.add(
            Level::Note,
            "it has not been used for locks yet; the first process that opens it makes it ready",
        ),
    }
    judge_entries(
        home,
        &[flock::LOCKS, "table", "tokens", "presence", LEADER, WIDE, ELECTIONS],
        report,
    );
}

/// What does not belong there, and which users of the directory lack rights to what does.
fn judge_entries(home: &Home, own: &[&str], report: &mut DirectoryReport) {
    let entries = match Dir::read_from(&home.fd) {
        Ok(entries) => entries,
        Err(e) => return report.error(&home.failed("cannot list it", e.into())),
    };
    let (mut foreign, mut aside) = (Vec::new(), Vec::new());
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        match &*text {
            // The second comes with some file systems.
            "." | ".." | "lost+found" => {}
            text if own.contains(&text) => {}
            text if home::is_aside(text) => {
                aside.extend(home::is_old(&home.fd, name).then(|| left_aside(text)));
            }
            text => foreign.push(foreign_entry(text)),
        }
    }
    report.list(Level::Trouble, "entries that are not tierlock's", foreign);
    report.list(Level::Note, "files left half made by a process that died", aside);
    let [files, directories] = [0o666, 0o777].map(|bits| home.mode & bits);
    let rights = own.iter().filter_map(|name| {
        let wanted = if ["presence", flock::LOCKS, flock::READERS, ELECTIONS].contains(name) {
            directories
        } else {
            files
        };
        judge_file_rights(home, &home.fd, name, name, wanted)
    });
    report.list(Level::Trouble, "of its files", rights.collect());
}

fn left_aside(name: &str) -> String {
    format!(
        "{name:?} was left by a process that died while it made a file; it does no harm and may \
         be removed"
    )
}
