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
mod tests;
