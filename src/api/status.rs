//! What is known of locks: their holders, their waiters, how the last holder left.

use std::time::Duration;

#[cfg(feature = "cli")]
use crate::process::FileIdentity;
#[cfg(feature = "process")]
use crate::process::{NameStatus, Survivor, WaiterStatus, find_survivors};
use crate::{
    clock,
    error::{Holder, Predecessor, Result},
    host::questions::{ServedLock, ServedWaiter},
    mode::WaiterMode,
    name::Name,
    path::ground::Reach,
    scope::Scope,
    token::Token,
};

/// What a [`LockManager`](crate::LockManager) can see of one name: that of
/// [`LockManager::status`](crate::LockManager::status), and of `tierlock status`.
///
/// It is of one moment, and that moment is over: let nothing but people act on it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockStatus {
    /// Which lock this is.
    pub name: Name,
    /// The scope that it was locked at last.
    pub scope: Scope,
    /// What it does just now.
    pub state: LockState,
    /// The largest token that is known of it; while it is held exclusively, the holder's.
    pub token: Token,
    /// The one that holds it exclusively, or as an upgradable reader.
    pub holder: Option<Holder>,
    /// Of a semaphore: how many permits there are.
    pub limit: Option<u32>,
    /// How many permits are taken.
    pub permits_taken: u32,
    /// The processes that read it or have permits of it.
    pub sharers: Vec<Sharer>,
    /// For how long the holder's lease is good without a further word of it, or `at_least` goes on.
    pub remaining: Option<Duration>,
    /// How the one before the holder left, as the holder was told; of a free lock, as the next holder
    /// will be told.
    pub predecessor: Predecessor,
    /// The callers that wait, the one that has waited longest first; in a directory of the file-lock
    /// engine, where waiters leave no trace, none. At host scope those of one directory wait for each
    /// other, and one at a time at the leader.
    pub waiters: Vec<WaitingCaller>,
    /// The processes that keep it in the place of a holder that has ended: children that have a copy
    /// of its lock file.
    #[cfg(feature = "process")]
    pub survivors: Vec<Survivor>,
    /// The files with the locks that prove the sharers alive.
    #[cfg(feature = "cli")]
    pub(crate) share_proofs: Vec<FileIdentity>,
    /// The file with the lock that proves its holder in the directory alive.
    #[cfg(feature = "cli")]
    pub(crate) proof: Option<FileIdentity>,
}

impl LockStatus {
    /// That of a name that was never used: it is free.
    pub(crate) fn free(name: Name, scope: Scope) -> LockStatus {
        LockStatus {
            name,
            scope,
            state: LockState::Free,
            token: Token::ZERO,
            holder: None,
            limit: None,
            permits_taken: 0,
            sharers: Vec::new(),
            remaining: None,
            predecessor: Predecessor::Clean,
            waiters: Vec::new(),
            #[cfg(feature = "process")]
            survivors: Vec::new(),
            #[cfg(feature = "cli")]
            share_proofs: Vec::new(),
            #[cfg(feature = "cli")]
            proof: None,
        }
    }
}

/// What a lock does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockState {
    /// A guard of it is out, or several that share it.
    Held,
    /// No guard is out, and a machine keeps its lease for the next lock there.
    Kept,
    /// The next caller gets it.
    Free,
    /// Taken in its directory, on the way to its lease.
    Climbing,
    /// It has no holder, and the `at_least` of its last one keeps it taken.
    Reserved,
    /// It is a lock of host scope, and its leader was not asked: held there or not.
    Unknown,
}

impl LockState {
    /// The word of `tierlock status --json`, where `null` stands for `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            LockState::Held => "held",
            LockState::Kept => "kept",
            LockState::Free => "free",
            LockState::Climbing => "climbing",
            LockState::Reserved => "reserved",
            LockState::Unknown => "unknown",
        }
    }
}

/// A process that reads a lock, or has permits of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sharer {
    /// Which process.
    pub holder: Holder,
    /// How many of its threads and tasks read, as far as that is known, or how many permits it has.
    pub count: u32,
}

/// A caller that waits for a lock.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitingCaller {
    /// The label of its manager; empty if it gave none.
    pub label: String,
    /// Its manager has proved the label to the leader; see [`Holder::label_is_proved`].
    pub label_is_proved: bool,
    /// As of a [`Holder`].
    pub(crate) claims_label: bool,
    /// The name of its machine.
    pub host: String,
    /// Its process id on that machine (in its own PID namespace).
    pub pid: Option<u32>,
    /// For how long it has waited.
    pub waiting: Duration,
    /// What it waits for, where that is known.
    pub mode: Option<WaiterMode>,
}

/// Whether a label is proved, as it is said in JSON: of none where the leader knows no proved ones.
#[cfg(feature = "cli")]
pub(crate) fn said(label_is_proved: bool, claims_label: bool) -> Option<bool> {
    (label_is_proved || claims_label).then_some(label_is_proved)
}

/// The names of the manager's directory and of its leader, or only one; in order of names.
pub(crate) fn look(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    let found = there(reach, only)?;
    merged(reach, only, found, reach.has_leader())
}

/// The names of the manager's directory as the directory knows them.
#[cfg(feature = "cli")]
pub(crate) fn here(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    merged(reach, only, Vec::new(), false)
}

/// The names of the manager's leader as the leader knows them.
pub(crate) fn there(reach: &Reach, only: Option<&Name>) -> Result<Vec<LockStatus>> {
    let Some(questions) = reach.questions.clone() else { return Ok(Vec::new()) };
    let found = questions.list(only, clock::now() + reach.connect_timeout).wait()?;
    Ok(found.into_iter().map(at_the_service).collect())
}

/// Adds what the directory knows to what the leader said, if it was asked.
fn merged(
    reach: &Reach,
    only: Option<&Name>,
    mut found: Vec<LockStatus>,
    leader_asked: bool,
) -> Result<Vec<LockStatus>> {
    #[cfg(not(feature = "process"))]
    let _ = (reach, only, leader_asked);
    #[cfg(feature = "process")]
    if let Some(directory) = reach.ground.directory() {
        let mut known = match only {
            Some(only) => Vec::from_iter(directory.look(only)?),
            None => directory.survey()?,
        };
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

/// A lock as its leader shows it.
#[cfg(feature = "cli")]
pub(crate) fn at_the_leader(lock: crate::proto::wire::LockInfo) -> LockStatus {
    at_the_service(lock.into())
}

fn at_the_service(lock: ServedLock) -> LockStatus {
    let is_held = lock.holder.is_some() || !lock.sharers.is_empty();
    let state = match (is_held, lock.is_kept) {
        (false, _) if lock.is_reserved => LockState::Reserved,
        (false, _) => LockState::Free,
        (true, true) => LockState::Kept,
        (true, false) => LockState::Held,
    };
    let waiters = lock.waiters.into_iter().map(|ServedWaiter { waiter, mode }| WaitingCaller {
        label: waiter.label,
        label_is_proved: waiter.label_is_proved,
        claims_label: waiter.claims_label,
        host: waiter.host,
        pid: waiter.pid,
        waiting: waiter.held.unwrap_or_default(),
        mode,
    });
    LockStatus {
        state,
        token: lock.token,
        holder: lock.holder,
        limit: lock.limit,
        permits_taken: lock.permits_taken,
        sharers: lock.sharers.into_iter().map(|(holder, count)| Sharer { holder, count }).collect(),
        remaining: lock.remaining,
        predecessor: lock.predecessor,
        waiters: waiters.collect(),
        ..LockStatus::free(lock.name, Scope::Host)
    }
}

/// Adds what the directory knows. Of a name that was locked at host scope the leader knows more;
/// the directory knows which process is on the way, and its waiters: of one directory only one at a time
/// waits at the leader. `same`: where the leader's word on the name is among those found.
#[cfg(feature = "process")]
fn merge(found: &mut Vec<LockStatus>, same: Option<usize>, status: NameStatus, leader_asked: bool) {
    let wide = status.widened_by.is_some();
    if wide && let Some(known) = same.map(|at| &mut found[at]) {
        let is_unheld = matches!(known.state, LockState::Free | LockState::Reserved);
        if is_unheld && status.holder.is_some() {
            known.state = LockState::Climbing;
            known.holder = status.holder;
            known.survivors = status.survivors;
        }
        // Of one that is free the leader has none.
        known.limit = known.limit.or(status.limit);
        let is_limited = known.limit.is_some();
        known.waiters.extend(in_the_directory(status.waiters, is_limited));
        // Each side's come in order; where one has waited as long as the other, the leader's come first.
        known.waiters.sort_by_key(|waiter| std::cmp::Reverse(waiter.waiting));
        return;
    }
    let state = match (&status.holder, status.stays_for) {
        // The holder of a name of host scope has no lock in the directory.
        (Some(_), _) if wide => LockState::Climbing,
        (Some(_), _) => LockState::Held,
        (None, _) if !status.sharers.is_empty() => LockState::Held,
        (None, Some(_)) => LockState::Reserved,
        (None, None) if wide && !leader_asked => LockState::Unknown,
        (None, None) => LockState::Free,
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
        sharers: status
            .sharers
            .into_iter()
            .map(|(holder, count)| Sharer { holder, count })
            .collect(),
        #[cfg(feature = "cli")]
        share_proofs: status.share_proofs,
        predecessor: status.predecessor,
        waiters: in_the_directory(status.waiters, status.limit.is_some()).collect(),
        #[cfg(feature = "cli")]
        proof: status.proof,
        survivors: status.survivors,
    });
}

#[cfg(feature = "process")]
fn in_the_directory(
    waiters: Vec<WaiterStatus>,
    is_limited: bool,
) -> impl Iterator<Item = WaitingCaller> {
    waiters.into_iter().map(move |waiter| {
        let WaiterStatus { process, waiting, shares, permits } = waiter;
        let mode = match (is_limited, shares) {
            (true, _) => permits.map(WaiterMode::Permits),
            (false, true) => Some(WaiterMode::Shared),
            (false, false) => Some(WaiterMode::Exclusive),
        };
        let Holder { label, host, pid, .. } = process;
        WaitingCaller {
            label,
            label_is_proved: false,
            claims_label: false,
            host,
            pid,
            waiting,
            mode,
        }
    })
}
