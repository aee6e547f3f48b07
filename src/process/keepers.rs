//! Which processes keep a lock alive, as far as /proc tells.
//!
//! A command that inherits a lock's proof of life keeps the lock beyond the process that took it.
//! What the directory says of its holder then is the name of a process that has ended. Who has the
//! proof is known to the kernel only: every process that has the locked description open.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, path::Path};

use super::NameStatus;

/// The file whose lock proves that a holder is alive: device, inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proof(u64, u64);

/// A process that keeps a lock which another one took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survivor {
    pub(crate) pid: u32,
    /// Its program's name.
    pub(crate) command: String,
}

impl Proof {
    // Their types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    pub(super) fn of(found: &rustix::fs::Stat) -> Proof {
        Proof(found.st_dev as u64, found.st_ino as u64)
    }

    /// Whether the process has it open and locked. `None`: nobody tells us.
    pub(crate) fn is_kept_by(self, pid: u32) -> Option<bool> {
        locked_by(&Path::new("/proc").join(pid.to_string())).map(|files| files.contains(&self))
    }
}

/// The proofs that this process has open and locked, of whomever.
pub(crate) fn proofs_here() -> Vec<Proof> {
    locked_by(Path::new("/proc/self")).unwrap_or_default()
}

/// Finds who keeps the locks whose holders have ended or given theirs back.
pub(crate) fn find_survivors(names: &mut [NameStatus]) {
    let mut kept: HashMap<(Proof, u32), bool> = HashMap::new();
    let mut orphans: HashMap<Proof, (u32, Vec<Survivor>)> = HashMap::new();
    for (proof, pid) in names.iter().filter_map(proof_and_pid) {
        // Where nobody tells, the holder is believed.
        let ask = || proof.is_kept_by(pid).unwrap_or(true);
        if !*kept.entry((proof, pid)).or_insert_with(ask) {
            orphans.insert(proof, (pid, Vec::new()));
        }
    }
    if orphans.is_empty() {
        return;
    }
    for (pid, process) in processes() {
        for proof in locked_by(&process).unwrap_or_default() {
            if let Some((holder, survivors)) = orphans.get_mut(&proof)
                && !is_called(&process, *holder)
            {
                let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
                survivors.push(Survivor { pid, command: command.trim_end().to_owned() });
            }
        }
    }
    for status in names {
        if let Some((proof, _)) = proof_and_pid(status)
            && let Some((_, survivors)) = orphans.get(&proof)
        {
            status.survivors.clone_from(survivors);
        }
    }
}

fn proof_and_pid(status: &NameStatus) -> Option<(Proof, u32)> {
    Some((status.proof?, status.holder.as_ref()?.pid?))
}

fn processes() -> impl Iterator<Item = (u32, std::path::PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// The files that a process has open and locked as a whole; `None` where that is not to be seen.
fn locked_by(process: &Path) -> Option<Vec<Proof>> {
    let entries = match fs::read_dir(process.join("fd")) {
        Ok(entries) => entries,
        // It has ended.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && Path::new("/proc/self").exists() => {
            return Some(Vec::new());
        }
        Err(_) => return None,
    };
    let locked = |name: &std::ffi::OsStr| {
        // Others have lock files open too, to wait for them.
        let about = fs::read_to_string(process.join("fdinfo").join(name)).unwrap_or_default();
        about.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"))
    };
    let file = |entry: fs::DirEntry| {
        let found = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        locked(&entry.file_name()).then(|| Proof(found.dev(), found.ino()))
    };
    Some(entries.flatten().filter_map(file).collect())
}

/// Whether the process has this number in a PID namespace of its own: a holder in a container, as
/// it names itself.
fn is_called(process: &Path, pid: u32) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let innermost = numbers.and_then(|numbers| numbers.split_whitespace().last());
    innermost.is_some_and(|number| number.parse() == Ok(pid))
}
