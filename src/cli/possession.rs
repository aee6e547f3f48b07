//! Whether a lock is held above us: by a process that waits for us, so that we must not wait for it.
//!
//! A name in the environment proves nothing: environments outlive locks, and go to directories and
//! machines that know another lock of the name. What proves possession is
//! - in a directory: the file with the lock that proves the holder alive is open, and locked through that very
//!   description, in this process or in one above it (a command inherits that from its `tierlock
//!   run`); or
//! - in a directory or at a leader: the lock is held just now with the token that an environment
//!   names for this very directory or cluster, by a process that is above this one and began when the
//!   environment says it did.
//!
//! Processes above this one are those on the way to the first process of the PID namespace. Where
//! /proc tells less (another namespace, another user's descriptors and a cleared environment),
//! possession is not seen.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use super::sys::Inherited;
use crate::{
    api::{manager::LockManager, status::LockStatus},
    error::Holder,
    name::Name,
    process::{self, DirectoryKey, FileIdentity},
    scope::Scope,
    token::Token,
};

/// Tells every `tierlock` below by which processes which locks are held, the outermost first. Not for
/// the command itself. A line each: names have no control characters.
const HELD: &str = "TIERLOCK_HELD";

/// A process, told apart from a later one of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownProcess {
    pid: u32,
    /// In the kernel's ticks since the machine started.
    began: u64,
}

/// Where a lock is: names of one place are the same locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockPlace {
    Directory(DirectoryKey),
    Cluster(u128),
}

/// A lock that a process holds, as the environment claims.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ClaimedHold {
    process: KnownProcess,
    place: LockPlace,
    token: Token,
    name: Name,
}

/// What was inherited that may prove possession.
#[derive(Clone, Debug)]
pub(super) struct Inheritance {
    /// The lock files that this process had open when it had not opened any itself.
    proofs: Vec<FileIdentity>,
    /// This process and those above it, the nearest first.
    above: Vec<KnownProcess>,
    claims: Vec<ClaimedHold>,
}

impl Inheritance {
    /// To be called before this process opens a directory.
    pub(super) fn of_this_process() -> Inheritance {
        Inheritance { proofs: process::proofs_here(), above: ancestors(), claims: claims() }
    }

    /// Whether the lock is held above this process, wherever `locks` reach. What cannot be asked
    /// counts as not held so.
    pub(super) fn has(&self, name: &Name, locks: &LockManager) -> bool {
        self.has_in_directory(name, locks).unwrap_or_default()
            || self.has_from_leader(name, locks).unwrap_or_default()
    }

    /// Whether a process above this one has the directory's lock, or this one inherited it.
    pub(super) fn has_in_directory(&self, name: &Name, locks: &LockManager) -> crate::Result<bool> {
        let Some(key) = locks.directory_key() else { return Ok(false) };
        let found = locks.look_here(Some(name))?;
        let is_inherited = |proof: FileIdentity| {
            let is_kept_by =
                |process: &KnownProcess| proof.is_kept_by(process.pid).unwrap_or(false);
            self.proofs.contains(&proof) || self.above.iter().skip(1).any(is_kept_by)
        };
        let is_shared_above = |proof: &FileIdentity| {
            let shares = |process: &KnownProcess| proof.is_shared_by(process.pid).unwrap_or(false);
            self.above.iter().skip(1).any(shares)
        };
        Ok(found.iter().any(|lock| {
            let is_held = lock.holder.is_some()
                && (lock.proof.is_some_and(is_inherited)
                    || self.claims(LockPlace::Directory(key), lock));
            is_held || lock.share_proofs.iter().any(is_shared_above)
        }))
    }

    /// Whether a process above this one has the lock from the leader, which is asked only where
    /// that is claimed.
    pub(super) fn has_from_leader(&self, name: &Name, locks: &LockManager) -> crate::Result<bool> {
        let is_possible = |claim: &ClaimedHold| {
            let is_there = matches!(claim.place, LockPlace::Cluster(_));
            is_there && claim.name == *name && self.above.contains(&claim.process)
        };
        if locks.widest_scope() < Scope::Host || !self.claims.iter().any(is_possible) {
            return Ok(false);
        }
        let found = locks.look_there(Some(name))?;
        let Some(cluster) = locks.cluster() else { return Ok(false) };
        Ok(found.iter().any(|lock| self.claims(LockPlace::Cluster(cluster), lock)))
    }

    /// Whether a holder of the lock is a process above this one, as is claimed.
    fn claims(&self, place: LockPlace, lock: &LockStatus) -> bool {
        let holders = lock.holder.iter().chain(lock.sharers.iter().map(|sharer| &sharer.holder));
        let is_claimed = |holder: &Holder| {
            self.claims.iter().any(|claim| {
                holder.pid == Some(claim.process.pid)
                    && holder.token == Some(claim.token)
                    && claim.name == lock.name
                    && claim.place == place
                    && self.above.contains(&claim.process)
            })
        };
        holders.into_iter().any(is_claimed)
    }

    /// What leaders' locks are claimed of processes above this one, which wait for it to end, by cluster: with
    /// the token and the holder's number.
    pub(super) fn held_until_we_end(&self) -> Vec<(u128, Name, Token, u32)> {
        let waiting = self.waiting_for_us();
        let claims = self.claims.iter().filter(|claim| waiting.contains(&claim.process));
        let held = claims.filter_map(|claim| match claim.place {
            LockPlace::Cluster(id) => {
                Some((id, claim.name.clone(), claim.token, claim.process.pid))
            }
            LockPlace::Directory(_) => None,
        });
        held.collect()
    }

    /// The holders above that wait for this process to end, the nearest first: each `run` waits for its command,
    /// which leads a process group of its own. What is still in that group is waited for by the command,
    /// but for what a script's `&` has put into the background, which ignores SIGINT. A job of an
    /// interactive shell and the command of `timeout` are in other groups: what started them may go on.
    fn waiting_for_us(&self) -> Vec<KnownProcess> {
        let mut waiting = Vec::new();
        if Inherited::get().ignores(libc::SIGINT) {
            return waiting;
        }
        let mut below = std::process::id();
        for &holder in self.above.iter().skip(1) {
            if self.claims.iter().all(|claim| claim.process != holder) {
                continue;
            }
            let command = process::group_of(below);
            let parent = command.and_then(process::parent_and_start).map(|(parent, _)| parent);
            if parent != Some(holder.pid) {
                break;
            }
            waiting.push(holder);
            below = holder.pid;
        }
        waiting
    }

    /// What those below are told: what is claimed of processes above, and this process's own lock.
    pub(super) fn with(
        &self,
        holds: Vec<(Name, Scope, Token)>,
        locks: &LockManager,
    ) -> (&'static str, OsString) {
        let mut claims = self.claims.clone();
        claims.retain(|claim| self.above.contains(&claim.process));
        for (name, scope, token) in holds {
            // A holder of host scope has no lock in the directory.
            let place = match scope {
                Scope::Host => locks.cluster().map(LockPlace::Cluster),
                Scope::Process | Scope::Thread => locks.directory_key().map(LockPlace::Directory),
            };
            let claim =
                |(&process, place)| ClaimedHold { process, place, token, name: name.clone() };
            claims.extend(self.above.first().zip(place).map(claim));
        }
        let lines: Vec<String> = claims.iter().map(ClaimedHold::to_line).collect();
        (HELD, OsString::from_vec(lines.join("\n").into_bytes()))
    }
}

/// What the environment claims; lines that say nothing are left out.
fn claims() -> Vec<ClaimedHold> {
    let text = std::env::var_os(HELD).unwrap_or_default();
    let lines = text.as_bytes().split(|&byte| byte == b'\n');
    lines.filter_map(|line| ClaimedHold::from_line(str::from_utf8(line).ok()?)).collect()
}

impl ClaimedHold {
    fn to_line(&self) -> String {
        let ClaimedHold { process: KnownProcess { pid, began }, place, token, name } = self;
        let place = match place {
            LockPlace::Directory(DirectoryKey { device, inode }) => {
                format!("dir:{device:x}:{inode:x}")
            }
            LockPlace::Cluster(id) => format!("cluster:{id:x}"),
        };
        format!("{pid} {began} {place} {token} {name}")
    }

    fn from_line(line: &str) -> Option<ClaimedHold> {
        // The name is the last: it may hold blanks.
        let mut words = line.splitn(5, ' ');
        let pid = words.next()?.parse().ok()?;
        let began = words.next()?.parse().ok()?;
        let (kind, id) = words.next()?.split_once(':')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let place = match (kind, id.split_once(':')) {
            ("dir", Some((device, inode))) => {
                LockPlace::Directory(DirectoryKey { device: hex(device)?, inode: hex(inode)? })
            }
            ("cluster", None) => LockPlace::Cluster(u128::from_str_radix(id, 16).ok()?),
            _ => return None,
        };
        let token = words.next()?.parse().ok()?;
        let name = Name::new(words.next()?).ok()?;
        Some(ClaimedHold { process: KnownProcess { pid, began }, place, token, name })
    }
}

/// This process and those above it, the nearest first.
fn ancestors() -> Vec<KnownProcess> {
    let mut found: Vec<KnownProcess> = Vec::new();
    let mut next = Some(std::process::id());
    while let Some(pid) = next.filter(|&pid| pid > 0 && found.iter().all(|known| known.pid != pid))
    {
        let Some((parent, began)) = process::parent_and_start(pid) else { break };
        found.push(KnownProcess { pid, began });
        next = Some(parent);
    }
    found
}

#[cfg(test)]
mod tests;
