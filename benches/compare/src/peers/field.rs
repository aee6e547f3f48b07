//! What the heats of a comparison stand on: the bench's grounds, others' servers, what was left out.

use std::path::PathBuf;

use crate::{
    bench::{
        case::{Label, TIERLOCK},
        failure::{BenchFailure, Result},
        grounds::Grounds,
    },
    measure, memory,
    peers::{servers::Servers, service::Missing},
};

/// Fields are dropped in order: servers before their directories.
pub(crate) struct Field {
    pub(crate) servers: Servers,
    pub(crate) grounds: Grounds,
    /// What was not measured for want of memory or time, in sentences.
    pub(crate) left_out: Vec<String>,
    /// So many bytes of memory at most.
    pub(crate) memory_max: u64,
    directories_made: u32,
}

impl Field {
    pub(crate) fn new() -> Result<Field> {
        Ok(Field {
            servers: Servers::default(),
            grounds: Grounds::new()?,
            left_out: Vec::new(),
            memory_max: u64::MAX,
            directories_made: 0,
        })
    }

    /// A directory that was not there before.
    pub(crate) fn new_directory(&mut self, name: &str) -> Result<PathBuf> {
        self.directories_made += 1;
        self.grounds.directory(&format!("{name}-{}", self.directories_made))
    }

    /// Whether so many bytes of memory can be had; if not, `what` is noted as left out.
    pub(crate) fn has_memory_for(&mut self, what: &str, bytes: u64) -> bool {
        let available = memory::available().min(self.memory_max);
        if available >= bytes {
            return true;
        }
        self.left_out.push(format!(
            "{what}: it takes some {} of memory, and {} may be used",
            measure::bytes(bytes as f64),
            measure::bytes(available as f64)
        ));
        false
    }

    /// What is only compared with and fails is out from then on, and named. What fails to do its
    /// work, or is tierlock, ends the run.
    pub(crate) fn on_failure(&mut self, label: &Label, failure: BenchFailure) -> Result<()> {
        if label.subject == TIERLOCK || matches!(failure, BenchFailure::Wrong(_)) {
            return Err(failure);
        }
        self.servers.missing.push(Missing::dropped_out(label, &failure));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
