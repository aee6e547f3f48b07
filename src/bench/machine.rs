//! Where it was measured.

use std::{fs, num::NonZero, thread};

use serde::Serialize;

/// What figures depend on and a reader cannot guess.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineInfo {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) system: String,
    pub(crate) version: &'static str,
    /// `release` or `debug`; the figures of a debug build mean nothing.
    pub(crate) build: &'static str,
}

impl MachineInfo {
    pub(crate) fn this() -> MachineInfo {
        let name = rustix::system::uname();
        let system = format!(
            "{} {} {}",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy(),
            name.machine().to_string_lossy(),
        );
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        MachineInfo {
            cpu: cpu_of(&info).unwrap_or("unknown processor").to_owned(),
            cpus: thread::available_parallelism().map_or(1, NonZero::get),
            system,
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

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

fn cpu_of(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests;
