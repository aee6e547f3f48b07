//! Which processes keep a lock alive, as far as /proc tells.
//!
//! A command that inherits a lock's proof of life keeps the lock beyond the process that took it.
//! What the directory says of its holder then is the name of a process that has ended. Only the
//! kernel knows which processes have the proof: all that have the locked description open.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::printable::Printable;

use super::files::FileIdentity;
use crate::process::NameStatus;

/// A process that keeps a lock which another one took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survivor {
    /// Its process id.
    pub pid: u32,
    /// Its program's name.
    pub command: String,
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", Printable(&self.command), self.pid)
    }
}

/// As the proof of a holder's life: the file that is locked for as long as it lives.
impl FileIdentity {
    /// Whether the process has it open and locked. An error: that is not to be seen.
    #[cfg(feature = "cli")]
    pub(crate) fn is_kept_by(self, pid: u32) -> io::Result<bool> {
        self.is_kept_in(&Path::new("/proc").join(pid.to_string()))
    }

    /// Whether the process has it open and locked, alone or beside others: as a reader.
    #[cfg(feature = "cli")]
    pub(crate) fn is_shared_by(self, pid: u32) -> io::Result<bool> {
        let process = Path::new("/proc").join(pid.to_string());
        Ok(!locked_as(&process, |file| file == self, &["READ", "WRITE"])?.is_empty())
    }

    #[cfg(feature = "cli")]
    fn is_kept_in(self, process: &Path) -> io::Result<bool> {
        Ok(!locked_by(process, |file| file == self)?.is_empty())
    }

    /// The processes that have it open and locked, and how many could not be looked into.
    #[cfg(all(feature = "cli", target_os = "linux"))]
    pub(in crate::process) fn keepers(self) -> (Vec<u32>, usize) {
        let (mut keepers, mut hidden) = (Vec::new(), 0);
        for (pid, process) in processes() {
            match self.is_kept_in(&process) {
                Ok(true) => keepers.push(pid),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden += 1,
                Ok(false) | Err(_) => {}
            }
        }
        (keepers, hidden)
    }
}

/// The proofs that this process has open and locked, of any holder.
#[cfg(feature = "cli")]
pub(crate) fn proofs_here() -> Vec<FileIdentity> {
    locked_by(Path::new("/proc/self"), |_| true).unwrap_or_default()
}

/// Finds the processes that keep locks after their holders have ended or given theirs back.
pub(crate) fn find_survivors(names: &mut [NameStatus]) {
    // Each process is looked into once: one may hold thousands of names, each by a file of its own.
    let mut proofs: HashMap<u32, HashSet<FileIdentity>> = HashMap::new();
    for (proof, pid) in names.iter().filter_map(proof_and_pid) {
        proofs.entry(pid).or_default().insert(proof);
    }
    let mut orphans: HashMap<FileIdentity, (u32, Vec<Survivor>)> = HashMap::new();
    for (pid, proofs) in proofs {
        let process = Path::new("/proc").join(pid.to_string());
        // Where that is not to be seen, the holder is believed.
        let Ok(kept) = locked_by(&process, |file| proofs.contains(&file)) else { continue };
        let kept = HashSet::<_>::from_iter(kept);
        orphans.extend(proofs.difference(&kept).map(|&proof| (proof, (pid, Vec::new()))));
    }
    if orphans.is_empty() {
        return;
    }
    for (pid, process) in processes() {
        let kept = locked_by(&process, |file| orphans.contains_key(&file));
        for proof in kept.unwrap_or_default() {
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

fn proof_and_pid(status: &NameStatus) -> Option<(FileIdentity, u32)> {
    Some((status.proof?, status.holder.as_ref()?.pid?))
}

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// Those of the files `asked_for` that a process has open and locked exclusively as a whole.
fn locked_by(
    process: &Path,
    asked_for: impl Fn(FileIdentity) -> bool,
) -> io::Result<Vec<FileIdentity>> {
    locked_as(process, asked_for, &["WRITE"])
}

/// The same of these kinds of lock, in the kernel's words.
fn locked_as(
    process: &Path,
    asked_for: impl Fn(FileIdentity) -> bool,
    kinds: &[&str],
) -> io::Result<Vec<FileIdentity>> {
    let entries = match fs::read_dir(process.join("fd")) {
        Ok(entries) => entries,
        // It has ended.
        Err(e) if e.kind() == io::ErrorKind::NotFound && Path::new("/proc/self").exists() => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let file = |entry: fs::DirEntry| {
        let found = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        let file = FileIdentity::of_metadata(&found);
        (asked_for(file) && is_locked(process, &entry, kinds)).then_some(file)
    };
    Ok(entries.flatten().filter_map(file).collect())
}

/// Whether the open file description of this descriptor holds such a `flock`. Waiters have the file
/// open too, and probers lock it, shared.
fn is_locked(process: &Path, descriptor: &fs::DirEntry, kinds: &[&str]) -> bool {
    let info = process.join("fdinfo").join(descriptor.file_name());
    let info = fs::read_to_string(info).unwrap_or_default();
    info.lines().filter(|line| line.starts_with("lock:")).any(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        words.contains(&"FLOCK") && kinds.iter().any(|kind| words.contains(kind))
    })
}

/// Whether the process has this number in a PID namespace of its own: a holder in a container, as
/// it names itself.
fn is_called(process: &Path, pid: u32) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let innermost = numbers.and_then(|numbers| numbers.split_whitespace().last());
    innermost.is_some_and(|number| number.parse() == Ok(pid))
}
