//! Who holds what, who waits, how the last holder left: for people and for `tierlock status`.

use std::time::Duration;

use crate::{
    error::{Holder, Predecessor, Result},
    ground::Reach,
    name::Name,
    scope::Scope,
    token::Token,
};

/// One name, as far as this manager can see it.
#[derive(Clone, Debug)]
pub(crate) struct LockStatus {
    pub(crate) name: Name,
    pub(crate) scope: Scope,
    pub(crate) state: State,
    pub(crate) token: Token,
    pub(crate) holder: Option<Holder>,
    /// For how long the holder's lease is good without a further word, or `at_least` runs on.
    pub(crate) remaining: Option<Duration>,
    pub(crate) predecessor: Predecessor,
    pub(crate) waiters: Vec<Waiter>,
}

/// What a name's lock does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    /// The lease is kept although nobody holds the lock (sticky leases).
    Kept,
    Free,
    /// Taken in its directory, on the way to its lease.
    Climbing,
    /// It has no holder, and the `at_least` of its last one keeps it taken.
    Reserved,
}

/// Somebody who waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) label: String,
    pub(crate) host: String,
    pub(crate) pid: Option<u32>,
    pub(crate) waiting: Duration,
}

/// The names of the manager's directory and of its leader, or only one; in order of names.
pub(crate) fn look(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    let mut found = Vec::new();
    if let Some(link) = &reach.link {
        let limit = crate::clock::now() + reach.connect_timeout;
        let listed = link.list(only, Some(limit))?;
        found.extend(listed.into_iter().map(at_the_leader));
    }
    if let Some(directory) = reach.ground.directory() {
        for status in directory.survey()? {
            if only.is_none_or(|only| *only == status.name) {
                merge(&mut found, status, reach.has_leader());
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn at_the_leader(lock: crate::proto::wire::LockInfo) -> LockStatus {
    let state = match (&lock.holder, lock.kept) {
        (None, _) if lock.reserved => State::Reserved,
        (None, _) => State::Free,
        (Some(_), true) => State::Kept,
        (Some(_), false) => State::Held,
    };
    let waiters = lock.waiters.into_iter().map(|waiter| Waiter {
        label: waiter.identity.label.clone(),
        host: waiter.identity.host.clone(),
        pid: Some(waiter.identity.pid),
        waiting: waiter.since,
    });
    LockStatus {
        name: lock.name,
        scope: Scope::Host,
        state,
        token: lock.token,
        holder: lock.holder.map(crate::host::link::holder_of),
        remaining: lock.remaining,
        predecessor: lock.predecessor,
        waiters: waiters.collect(),
    }
}

/// Adds what the directory knows. Of a name that was locked at host scope the leader knows more;
/// the directory knows who is on the way, and who waits to be: of one directory only one at a time
/// waits at the leader.
fn merge(found: &mut Vec<LockStatus>, status: crate::process::NameStatus, leader_asked: bool) {
    let wide = status.widened_by.is_some();
    if wide && let Some(known) = found.iter_mut().find(|known| known.name == status.name) {
        let is_unheld = matches!(known.state, State::Free | State::Reserved);
        if is_unheld && status.holder.is_some() {
            known.state = State::Climbing;
            known.holder = status.holder;
        }
        known.waiters.extend(status.waiters.into_iter().map(in_the_directory));
        return;
    }
    let state = match (&status.holder, wide && leader_asked) {
        (None, _) => State::Free,
        (Some(_), true) => State::Climbing,
        (Some(_), false) => State::Held,
    };
    found.push(LockStatus {
        name: status.name,
        scope: if wide { Scope::Host } else { Scope::Process },
        state,
        token: status.token,
        holder: status.holder,
        remaining: None,
        predecessor: status.predecessor,
        waiters: status.waiters.into_iter().map(in_the_directory).collect(),
    });
}

fn in_the_directory(waiter: crate::process::WaiterStatus) -> Waiter {
    let crate::process::WaiterStatus { who, waiting } = waiter;
    Waiter { label: who.label, host: who.host, pid: who.pid, waiting }
}
