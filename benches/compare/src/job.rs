//! What the child processes of a comparison do.

use serde::{Deserialize, Serialize};

use crate::{
    bench::{failure::Result, jobs, worker},
    house::Serve,
    instructions::Cycles,
    lock::AnyLock,
    modes::crowd::ShareInCrowd,
    names::Find,
    peers::server::Become,
};

/// What a child process is for. Each kind has fields of its own, which tell it from the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Job {
    Share(jobs::LockJob<AnyLock>),
    Serve(Serve),
    Find(Find),
    Cycles(Cycles),
    Crowd(ShareInCrowd),
    Become(Become),
}

impl worker::ChildJob for Job {
    fn work(self) -> Result<()> {
        match self {
            Job::Share(job) => job.work(),
            Job::Serve(job) => job.work(),
            Job::Find(job) => job.work(),
            Job::Cycles(job) => job.work(),
            Job::Crowd(job) => job.work(),
            Job::Become(job) => job.work(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::jobs::OwnLock;

    #[test]
    fn every_job_is_read_as_what_it_was_written_as() {
        let read = |text: String| -> Job { serde_json::from_str(&text).unwrap() };
        let lock = AnyLock::Own(OwnLock { directory: "/d".into(), name: "a/b".into() });
        let share = jobs::LockJob::Hold { lock, resident_mib: 1 };
        assert!(matches!(read(serde_json::to_string(&share).unwrap()), Job::Share(_)));
        let become_other = Become::new("/bin/true".as_ref(), ["a"]);
        assert!(matches!(read(serde_json::to_string(&become_other).unwrap()), Job::Become(_)));
        let serve = Serve { state_dir: "/s".into(), secret_file: "/k".into(), port: 0 };
        assert!(matches!(read(serde_json::to_string(&serve).unwrap()), Job::Serve(_)));
    }
}
