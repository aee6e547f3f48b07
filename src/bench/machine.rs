//! Where it was measured.

use std::{
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    thread,
};

use serde::Serialize;

/// What figures depend on and a reader cannot guess.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) system: String,
    pub(crate) version: &'static str,
    /// `release`, or `debug`, whose figures mean nothing.
    pub(crate) build: &'static str,
}

impl Machine {
    pub(crate) fn this() -> Machine {
        let name = rustix::system::uname();
        let system = format!(
            "{} {} {}",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy(),
            name.machine().to_string_lossy(),
        );
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine {
            cpu: cpu_of(&info).unwrap_or("unknown processor").to_owned(),
            cpus: thread::available_parallelism().map_or(1, NonZero::get),
            system,
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

impl Machine {
    /// The lines above a table.
    pub(crate) fn heading(&self) -> String {
        let cpus = if self.cpus == 1 { "CPU" } else { "CPUs" };
        let mut heading = format!(
            "tierlock {} on {} {cpus} ({})\n{}\n",
            self.version, self.cpus, self.cpu, self.system
        );
        if self.build == "debug" {
            heading += "A debug build: these figures mean nothing. Use `cargo run --release`.\n";
        }
        heading + "\n"
    }
}

/// Memory that can still be taken before the system, or the control group of this process, takes
/// some away.
pub(crate) fn memory_available() -> u64 {
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

fn cpu_of(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_is_read_from_the_system() {
        assert_eq!(cpu_of("processor: 0\nmodel name\t: AMD EPYC 7B13\n"), Some("AMD EPYC 7B13"));
        assert_eq!(cpu_of("Hardware : something else\n"), None);
        assert!(Machine::this().cpus >= 1);
    }

    #[test]
    fn memory_is_limited_by_the_system_and_by_every_group_above() {
        assert_eq!(available_of("MemFree: 7 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available_of(""), None);
        let groups: Vec<_> = groups_of("0::/a/b\n").collect();
        assert_eq!(
            groups,
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"].map(PathBuf::from)
        );
        assert!(memory_available() > 0);
    }
}
