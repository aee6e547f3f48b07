//! Which process a pid means: process ids are used again, and every pid namespace has its own.
//!
//! It decides nothing about locks. It is written down where a holder is described, and read by a
//! caller that is to end exactly that process.

use std::fs;

use crate::fork::{self, PerFork};

/// One process of this boot, told apart from every other that has or had its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) struct Birth {
    pub(in crate::process) pid: u32,
    /// The pid namespace in which it has this pid: the inode of `/proc/self/ns/pid`.
    pub(in crate::process) namespace: u64,
    /// When it was started, in ticks since the boot.
    pub(in crate::process) started: u64,
}

impl Birth {
    /// This process's own, read once. `None` where there is no `/proc` of its pid namespace.
    pub(in crate::process) fn of_this_process() -> Option<Birth> {
        static OWN: PerFork<Option<Birth>> = PerFork::unset();
        match fork::watch() {
            Ok(()) => *OWN.here(Birth::read_own),
            // A child would not be told apart.
            Err(_) => Birth::read_own(),
        }
    }

    fn read_own() -> Option<Birth> {
        let pid = std::process::id();
        let shown: u32 = fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()?;
        // Another namespace's `/proc` shows this process under another number.
        let namespace = (shown == pid).then(own_namespace)??;
        Some(Birth { pid, namespace, started: started(pid)? })
    }

    /// What stands in three numbers; `None` where they are not known.
    pub(in crate::process) fn from_parts(pid: u32, namespace: u64, started: u64) -> Option<Birth> {
        (pid != 0 && namespace != 0 && started != 0).then_some(Birth { pid, namespace, started })
    }

    /// Namespace and start as they are written down: zeros where they are not known.
    pub(in crate::process) fn parts(birth: Option<Birth>) -> [u64; 2] {
        birth.map_or([0; 2], |birth| [birth.namespace, birth.started])
    }
}

/// Which pid namespace this process lives in.
fn own_namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// When the process that has this pid now was started, in ticks since the boot.
pub(in crate::process) fn started(pid: u32) -> Option<u64> {
    parent_and_start(pid).map(|(_, started)| started)
}

/// Which process started the one that has this pid now, and when.
pub(crate) fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let fields = stat(pid)?;
    let mut fields = fields.split_ascii_whitespace();
    Some((fields.nth(4 - 3)?.parse().ok()?, fields.nth(22 - 5)?.parse().ok()?))
}

/// The process group of the process that has this pid now.
#[cfg(feature = "cli")]
pub(crate) fn group_of(pid: u32) -> Option<u32> {
    stat(pid)?.split_ascii_whitespace().nth(5 - 3)?.parse().ok()
}

/// Whether a signal or a debugger has stopped the process that has this pid now.
pub(crate) fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.starts_with(['T', 't']))
}

/// What `/proc` says of a process from field 3 on.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything.
    Some(stat.rsplit_once(')')?.1.trim_start().to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
