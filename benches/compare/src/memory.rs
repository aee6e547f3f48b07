//! How much memory is free, so that a run leaves out what does not fit.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Memory that can still be taken before the system, or the control group of this process, takes
/// some away.
pub(crate) fn available() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Nothing is known on a system that says nothing: then it has enough.
    let of_system = available_of(&info).unwrap_or(u64::MAX);
    groups_of(&group).filter_map(|group| left_in(&group)).fold(of_system, u64::min)
}

fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// The directories of this control group and of those above it, which limit it too.
fn groups_of(cgroup: &str) -> impl Iterator<Item = PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = Path::new("/sys/fs/cgroup").join(own);
    let groups: Vec<PathBuf> = own.ancestors().map(Path::to_owned).collect();
    groups.into_iter().take_while(|group| group.starts_with("/sys/fs/cgroup"))
}

/// What a control group has left, if it is limited.
fn left_in(group: &Path) -> Option<u64> {
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests;
