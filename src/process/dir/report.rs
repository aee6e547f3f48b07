//! What is found in a directory, as people are told it: one finding on a line. See `checkup`.

use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;

use crate::error::{Holder, LockError, LockErrorKind, Predecessor};

use super::{home::Home, keepers::find_survivors};
use crate::process::NameStatus;

/// How bad it is. In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing. Nothing has to be done.
    Note,
    /// Settings, rights or files that their owner should change.
    Trouble,
    /// Locks, or what is known about them, cannot be relied on.
    Damage,
}

/// One thing that was found, in one line: what it is, and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) text: String,
}

/// What was found so far.
#[derive(Default)]
pub(in crate::process) struct DirectoryReport(Vec<Finding>);

/// Of things of one kind so many are told one by one.
const TOLD: usize = 20;

impl DirectoryReport {
    pub(in crate::process) fn into_findings(self) -> Vec<Finding> {
        self.0
    }

    pub(in crate::process) fn add(&mut self, level: Level, text: impl Into<String>) {
        self.0.push(Finding { level, text: text.into() });
    }

    /// What a caller that uses the directory would be told.
    pub(in crate::process) fn error(&mut self, error: &LockError) {
        self.add(level_of(error), error.to_string());
    }

    /// Things of one kind, of which there may be a million.
    pub(in crate::process) fn list(&mut self, level: Level, what: &str, found: Vec<String>) {
        let more = found.len().saturating_sub(TOLD);
        found.into_iter().take(TOLD).for_each(|text| self.add(level, text));
        if more > 0 {
            self.add(level, format!("{more} more {what}"));
        }
    }

    /// What both engines know about names.
    pub(in crate::process) fn names(&mut self, found: &mut [NameStatus]) {
        find_survivors(found);
        // A process that has a name of host scope here is only on its way to the leader.
        let is_held = |status: &&NameStatus| status.holder.is_some() && status.widened_by.is_none();
        let held = found.iter().filter(is_held).count();
        let names = counted(found.len(), "name", "names");
        self.add(Level::Fine, format!("{names}, {held} of them held just now"));
        let kept = found.iter().flat_map(|status| {
            let of = |holder: &Holder| holder.pid.unwrap_or_default();
            let pid = status.holder.as_ref().map(of).unwrap_or_default();
            status.survivors.iter().map(move |survivor| {
                format!(
                    "{:?} is kept by {survivor}, which inherited it: pid {pid}, which took it, \
                     has ended or released it; it is free when that process has ended (`tierlock \
                     run --close` passes nothing on)",
                    status.name.as_str()
                )
            })
        });
        self.list(Level::Note, "processes that keep what they inherited", kept.collect());
        let stale = found.iter().filter(|status| is_left_by_the_dead(status)).map(|status| {
            format!(
                "{:?} is as a holder that died left it; nothing needs to be done: the next \
                 holder is told so",
                status.name.as_str()
            )
        });
        self.list(Level::Note, "names with a holder that died", stale.collect());
        let wide = found.iter().filter_map(|status| {
            let (name, by) = (status.name.as_str(), status.widened_by.as_deref()?);
            Some(format!(
                "{name:?} was locked at host scope by {by}, and is held at the leader or not: ask \
                 with `tierlock status --leader`; it stays a host-scope lock, and a process without \
                 leaders is refused it; if it is to be a process-scope lock again, stop every \
                 process that uses the directory, on all machines that lock the name, and remove \
                 the directory"
            ))
        });
        self.list(Level::Note, "names of host scope", wide.collect());
    }
}

/// `error`s of users and settings are trouble, those of files damage.
fn level_of(error: &LockError) -> Level {
    match error.kind() {
        LockErrorKind::Damaged | LockErrorKind::Io => Level::Damage,
        _ => Level::Trouble,
    }
}

fn is_left_by_the_dead(status: &NameStatus) -> bool {
    status.holder.is_none() && status.predecessor == Predecessor::Died
}

/// So many of them, in words.
pub(in crate::process) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Something in the directory, or in one inside it, that no engine put there.
pub(in crate::process) fn foreign_entry(name: &str) -> String {
    format!("{name:?} is not tierlock's; move it elsewhere, and keep the directory for locks alone")
}

/// Whether the users of the directory may use this file of it, and no others. `shown` is
/// its path from there.
pub(in crate::process) fn judge_file_rights(
    home: &Home,
    inside: &OwnedFd,
    name: &str,
    shown: &str,
    wanted: u32,
) -> Option<String> {
    // Links and missing files are told where they are opened.
    let found = rustix::fs::statat(inside, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if rustix::fs::FileType::from_raw_mode(found.st_mode).is_symlink() {
        return None;
    }
    // Its type differs between systems.
    #[allow(clippy::useless_conversion)]
    let mode = u32::from(found.st_mode) & 0o777;
    let path = home.path.join(shown);
    let path = path.display();
    if found.st_gid != home.group && home.mode & 0o070 != home.mode << 3 & 0o070 {
        return Some(format!(
            "{shown} belongs to group {}, so that members of the directory's group {} may not \
             use it: chgrp {} {path}",
            found.st_gid, home.group, home.group
        ));
    }
    let missing = wanted & !mode;
    let reach = home.mode & 0o011;
    let beyond = mode & !wanted & (reach << 1);
    match (missing, beyond) {
        (0, 0) => None,
        (0, _) => Some(format!(
            "{shown} has mode {mode:04o}: more users may write it than may write the directory, \
             and they are trusted with every lock in it: chmod {wanted:04o} {path}"
        )),
        _ => Some(format!(
            "{shown} has mode {mode:04o}, so that not every user of the directory may use it: \
             chmod {wanted:04o} {path}"
        )),
    }
}
