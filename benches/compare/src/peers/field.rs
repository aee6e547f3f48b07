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
mod tests {
    use tierlock::Scope;

    use super::*;
    use crate::bench::case::Case;

    #[test]
    fn what_does_not_fit_into_memory_is_left_out_with_a_sentence() {
        let mut field = Field::new().unwrap();
        assert!(field.has_memory_for("little", 1));
        assert!(field.left_out.is_empty());
        assert!(!field.has_memory_for("killed, 8 EiB", 1 << 63));
        field.memory_max = 1_000;
        assert!(!field.has_memory_for("killed, 2 kB", 2_000));
        let [much, more] = &field.left_out[..] else { panic!("{:?}", field.left_out) };
        assert!(much.starts_with("killed, 8 EiB: it takes some "), "{much}");
        assert_eq!(more, "killed, 2 kB: it takes some 2.0 kB of memory, and 1.0 kB may be used");
    }

    #[test]
    fn only_what_is_compared_with_may_fail_and_only_by_not_answering() {
        let mut field = Field::new().unwrap();
        let label = |subject| Label { subject, ..Label::new(Scope::Host, Case::QUIET) };
        let gone = || BenchFailure::other("its server is gone");
        field.on_failure(&label("etcd"), gone()).unwrap();
        let missing = field.servers.missing[0].to_string();
        assert_eq!(missing, "etcd failed at host, quiet: its server is gone");
        assert!(field.on_failure(&label(TIERLOCK), gone()).is_err());
        let wrong = BenchFailure::Wrong("two held it".into());
        assert!(field.on_failure(&label("etcd"), wrong).is_err());
    }
}
