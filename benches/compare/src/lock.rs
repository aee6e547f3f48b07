//! The locks that processes share, of any maker, and what the child processes of a comparison do.

use serde::{Deserialize, Serialize};

use crate::{
    bench::{
        case::Case,
        failure::Result,
        jobs::{self, OwnLock, SharedLock, Visitor},
        process::{self, Subject},
        worker,
    },
    field::Field,
    house::Serve,
    names::Find,
    peers::{
        cross::{self, PeerLock},
        server::Become,
    },
};

/// A lock between processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnyLock {
    Own(OwnLock),
    Peer(PeerLock),
}

impl SharedLock for AnyLock {
    fn open<V: Visitor>(&self, visitor: V) -> Result<V::Output> {
        match self {
            AnyLock::Own(lock) => lock.open(visitor),
            AnyLock::Peer(lock) => lock.open(visitor),
        }
    }
}

/// The locks that are measured in a case: ours, and what it is compared with.
pub(crate) fn subjects(field: &Field, case: Case) -> Result<Vec<Subject<AnyLock>>> {
    let own = process::own(&field.grounds, case)?;
    let peers = cross::locks(&field.grounds.directory("peers")?, case)?;
    let own = Subject { name: own.name, note: own.note, lock: AnyLock::Own(own.lock) };
    let peers = peers.into_iter().map(|Subject { name, note, lock }| Subject {
        name,
        note,
        lock: AnyLock::Peer(lock),
    });
    Ok([own].into_iter().chain(peers).collect())
}

/// What a child process is for. Each kind has fields of its own, which tell it from the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Job {
    Share(jobs::Job<AnyLock>),
    Serve(Serve),
    Find(Find),
    Become(Become),
}

impl worker::Job for Job {
    fn work(self) -> Result<()> {
        match self {
            Job::Share(job) => job.work(),
            Job::Serve(job) => job.work(),
            Job::Find(job) => job.work(),
            Job::Become(job) => job.work(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_read_as_what_it_was_written_as() {
        let read = |text: String| -> Job { serde_json::from_str(&text).unwrap() };
        let lock = AnyLock::Own(OwnLock { directory: "/d".into(), name: "a/b".into() });
        let share = jobs::Job::Hold { lock, resident_mib: 1 };
        assert!(matches!(read(serde_json::to_string(&share).unwrap()), Job::Share(_)));
        let become_other = Become::new("/bin/true".as_ref(), ["a"]);
        assert!(matches!(read(serde_json::to_string(&become_other).unwrap()), Job::Become(_)));
        let serve = Serve { state_dir: "/s".into(), secret_file: "/k".into(), port: 0 };
        assert!(matches!(read(serde_json::to_string(&serve).unwrap()), Job::Serve(_)));
    }
}
