//! Holders, waiters, how the last holder left: for people and for `tierlock status`.

use std::time::Duration;

use crate::{
    error::{Holder, Predecessor, Result},
    host::client::link::holder_of,
    name::Name,
    path::ground::Reach,
    process::{FileIdentity, NameStatus, Survivor, WaiterStatus, find_survivors},
    proto::wire::{HolderInfo, Mode},
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
    /// Of a semaphore: how many permits there are.
    pub(crate) limit: Option<u32>,
    /// How many permits are taken.
    pub(crate) permits_taken: u32,
    /// Which processes read it, and how many threads and tasks of each; or have permits, and how many.
    pub(crate) sharers: Vec<(Holder, u32)>,
    /// The files with the locks that prove those alive.
    pub(crate) share_proofs: Vec<FileIdentity>,
    /// For how long the holder's lease is good without a further word, or `at_least` runs on.
    pub(crate) remaining: Option<Duration>,
    pub(crate) predecessor: Predecessor,
    pub(crate) waiters: Vec<WaitingCaller>,
    /// The file with the lock that proves its holder in the directory alive.
    pub(crate) proof: Option<FileIdentity>,
    /// The processes that keep it in the place of a holder that has ended.
    pub(crate) survivors: Vec<Survivor>,
}

impl LockStatus {
    /// That of a name that was never used: it is free.
    pub(crate) fn free(name: Name, scope: Scope) -> LockStatus {
        LockStatus {
            name,
            scope,
            state: State::Free,
            token: Token::ZERO,
            holder: None,
            limit: None,
            permits_taken: 0,
            sharers: Vec::new(),
            share_proofs: Vec::new(),
            remaining: None,
            predecessor: Predecessor::Clean,
            waiters: Vec::new(),
            proof: None,
            survivors: Vec::new(),
        }
    }
}

/// What a name's lock does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    /// The lease is kept although no guard holds the lock.
    Kept,
    Free,
    /// Taken in its directory, on the way to its lease.
    Climbing,
    /// It has no holder, and the `at_least` of its last one keeps it taken.
    Reserved,
    /// It is a lock of host scope, and its leader was not asked: held there or not.
    Unknown,
}

/// A caller that waits.
#[derive(Clone, Debug)]
pub(crate) struct WaitingCaller {
    pub(crate) label: String,
    pub(crate) host: String,
    pub(crate) pid: Option<u32>,
    pub(crate) waiting: Duration,
}

/// The names of the manager's directory and of its leader, or only one; in order of names.
pub(crate) fn look(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    let found = there(reach, only)?;
    merged(reach, only, found, reach.has_leader())
}

/// The names of the manager's directory as the directory knows them.
pub(crate) fn here(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    merged(reach, only, Vec::new(), false)
}

/// The names of the manager's leader as the leader knows them.
pub(crate) fn there(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    #[cfg(feature = "service")]
    if let Some(engine) = &reach.engine {
        let found = crate::blocking::wait_for(engine.look(only))?;
        return Ok(found.into_iter().map(at_an_engine).collect());
    }
    let Some(link) = &reach.link else { return Ok(Vec::new()) };
    let limit = crate::clock::now() + reach.connect_timeout;
    Ok(link.list(only, Some(limit))?.into_iter().map(at_the_leader).collect())
}

/// Adds what the directory knows to what the leader said, if it was asked.
fn merged(
    reach: &Reach,
    only: Option<&Name>,
    mut found: Vec<LockStatus>,
    leader_asked: bool,
) -> Result<Vec<LockStatus>> {
    if let Some(directory) = reach.ground.directory() {
        let mut known = directory.survey()?;
        known.retain(|status| only.is_none_or(|only| *only == status.name));
        find_survivors(&mut known);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let told = found.len();
        for status in known {
            let same = found[..told].binary_search_by(|known| known.name.cmp(&status.name));
            merge(&mut found, same.ok(), status, leader_asked);
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
    let waiters = lock.waiters.into_iter().map(|waiter| WaitingCaller {
        label: waiter.identity.label.clone(),
        host: waiter.identity.host.clone(),
        pid: Some(waiter.identity.pid),
        waiting: waiter.since,
    });
    let mode = lock.holder.as_ref().map(|holder| holder.mode);
    let limit = match mode {
        Some(Mode::Permits { limit, .. }) => Some(limit),
        _ => None,
    };
    let is_alone = matches!(mode, Some(Mode::Exclusive | Mode::Upgradable));
    // What readers a manager has among its threads the leader does not count.
    let counted = |holder: HolderInfo| (holder.mode.permits().max(1), holder_of(holder));
    let mut holders = lock.holder.into_iter().chain(lock.others).map(counted);
    let holder = is_alone.then(|| holders.next()).flatten().map(|(_, holder)| holder);
    let sharers = holders.map(|(count, holder)| (holder, count)).collect();
    LockStatus {
        state,
        token: lock.token,
        holder,
        limit,
        permits_taken: lock.permits,
        sharers,
        remaining: lock.remaining,
        predecessor: lock.predecessor,
        waiters: waiters.collect(),
        ..LockStatus::free(lock.name, Scope::Host)
    }
}

#[cfg(feature = "service")]
fn at_an_engine(lock: crate::host::engines::EngineLock) -> LockStatus {
    let state = match &lock.holder {
        Some(_) => State::Held,
        None if lock.is_reserved => State::Reserved,
        None => State::Free,
    };
    let waiters = lock.waiters.into_iter().map(|waiter| WaitingCaller {
        label: waiter.label,
        host: waiter.host,
        pid: waiter.pid,
        waiting: waiter.held.unwrap_or_default(),
    });
    // No engine remembers how the last holder left.
    LockStatus {
        state,
        token: lock.token,
        holder: lock.holder,
        remaining: lock.remaining,
        waiters: waiters.collect(),
        ..LockStatus::free(lock.name, Scope::Host)
    }
}

/// Adds what the directory knows. Of a name that was locked at host scope the leader knows more;
/// the directory knows which process is on the way, and its waiters: of one directory only one at a time
/// waits at the leader. `same`: where the leader's word on the name is among those found.
fn merge(found: &mut Vec<LockStatus>, same: Option<usize>, status: NameStatus, leader_asked: bool) {
    let wide = status.widened_by.is_some();
    if wide && let Some(known) = same.map(|at| &mut found[at]) {
        let is_unheld = matches!(known.state, State::Free | State::Reserved);
        if is_unheld && status.holder.is_some() {
            known.state = State::Climbing;
            known.holder = status.holder;
            known.survivors = status.survivors;
        }
        // Of one that is free the leader has none.
        known.limit = known.limit.or(status.limit);
        known.waiters.extend(status.waiters.into_iter().map(in_the_directory));
        return;
    }
    let state = match (&status.holder, status.stays_for) {
        // The holder of a name of host scope has no lock in the directory.
        (Some(_), _) if wide => State::Climbing,
        (Some(_), _) => State::Held,
        (None, _) if !status.sharers.is_empty() => State::Held,
        (None, Some(_)) => State::Reserved,
        (None, None) if wide && !leader_asked => State::Unknown,
        (None, None) => State::Free,
    };
    found.push(LockStatus {
        name: status.name,
        scope: if wide { Scope::Host } else { Scope::Process },
        state,
        token: status.token,
        holder: status.holder,
        remaining: status.stays_for,
        limit: status.limit,
        permits_taken: status.sharers.iter().map(|(_, count)| count).sum(),
        sharers: status.sharers,
        share_proofs: status.share_proofs,
        predecessor: status.predecessor,
        waiters: status.waiters.into_iter().map(in_the_directory).collect(),
        proof: status.proof,
        survivors: status.survivors,
    });
}

fn in_the_directory(waiter: WaiterStatus) -> WaitingCaller {
    let WaiterStatus { who, waiting } = waiter;
    WaitingCaller { label: who.label, host: who.host, pid: who.pid, waiting }
}
