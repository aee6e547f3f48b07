//! What is wrong with a directory of the file-lock engine. See `process::checkup`.

use super::super::dir::{
    home::Home,
    report::{DirectoryReport, Level, foreign_entry, judge_file_rights},
    wide::WideNames,
};
use super::{FileDirectory, LOCKS, READERS, open_locks};

/// Looks at every lock file.
pub(in super::super) fn examine(home: Home, report: &mut DirectoryReport) {
    let locks = match open_locks(&home) {
        Ok(locks) => locks,
        Err(error) => return report.error(&error),
    };
    let directory = FileDirectory {
        locks_path: home.path.join(LOCKS),
        home,
        locks,
        label: String::new(),
        wide: WideNames::default(),
    };
    let found = match directory.inspect() {
        Ok(found) => found,
        Err(error) => return report.error(&error),
    };
    let (mut names, mut damaged) = (Vec::new(), Vec::new());
    for status in found {
        match status {
            Ok(status) => names.push(status),
            Err(error) => damaged.push(format!(
                "{error}; if it is no lock file, remove it; else stop every process that uses the \
                 lock and remove it then"
            )),
        }
    }
    report.names(&mut names);
    report.list(Level::Damage, "files that are no sound lock files", damaged);
    examine_files(&directory, report);
}

/// Their rights, and what is hidden among them.
fn examine_files(FileDirectory { home, locks, .. }: &FileDirectory, report: &mut DirectoryReport) {
    // `inspect` could list them.
    let Ok(entries) = rustix::fs::Dir::read_from(locks) else { return };
    let (mut rights, mut foreign) = (Vec::new(), Vec::new());
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name().to_string_lossy();
        let shown = format!("{LOCKS}/{name}");
        match &*name {
            "." | ".." => {}
            name if name.starts_with('.') => foreign.push(foreign_entry(&shown)),
            name => rights.extend(judge_file_rights(home, locks, name, &shown, home.file_mode())),
        }
    }
    // Made when a name is read for the first time.
    if let Ok(readers) = home.open_inside(READERS, "readers")
        && let Ok(entries) = rustix::fs::Dir::read_from(&readers)
    {
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name().to_string_lossy();
            let shown = format!("{READERS}/{name}");
            match &*name {
                "." | ".." => {}
                name if name.starts_with('.') => foreign.push(foreign_entry(&shown)),
                name => {
                    let mode = home.file_mode();
                    rights.extend(judge_file_rights(home, &readers, name, &shown, mode));
                }
            }
        }
    }
    report.list(Level::Trouble, "of its lock files", rights);
    report.list(Level::Trouble, "entries among its lock files that are not tierlock's", foreign);
}
