//! The locks that processes share, of any maker.

use serde::{Deserialize, Serialize};

use crate::{
    bench::{
        case::Case,
        failure::Result,
        jobs::{OwnLock, SharedLock, Visitor},
        process::{self, Subject},
    },
    peers::cross::{self, PeerLock},
    peers::field::Field,
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
