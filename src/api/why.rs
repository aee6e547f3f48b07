//! One lock in sentences: which process has it, what keeps it from being free, what will free it and by
//! when, and which callers wait for it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    api::status::{LockState, LockStatus, WaitingCaller},
    error::{Holder, Predecessor},
    name::Name,
    printable::{Printable, few, in_words, named_of},
    scope::Scope,
};
#[cfg(feature = "process")]
use crate::{identity::this_process, process::is_stopped};

/// Why a lock is not free, and what will free it: that of [`LockManager::why`](crate::LockManager::why).
///
/// It prints as `tierlock why` does: in sentences, one to a line. [`freed_by`](Self::freed_by) and
/// [`at_latest`](Self::at_latest) say the same to programs.
#[derive(Clone, Debug)]
pub struct Explanation {
    status: LockStatus,
    /// The processes that a signal or a debugger has stopped, among those of this machine that have it.
    stopped: Vec<u32>,
    /// From this lock back to it: each holder, and the name that its process waits for.
    ring: Vec<(Holder, Name)>,
}

/// What a lock waits for that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FreedBy {
    /// Nothing: it is free.
    Nothing,
    /// Its holder releases it, or its holder's process ends. At host scope also: the holder's machine is
    /// not heard of until the lease is over.
    Holder,
    /// All that share it release it or end; of a semaphore, as many as have the permits that are wanted.
    Sharers,
    /// The children that have a copy of its ended holder's lock file end too.
    Survivors,
    /// The `at_least` of its last holder is over.
    AtLeast,
    /// Any other client asks: its lease is kept, and no guard is out.
    Request,
    /// Its leader grants it to the process that has it in its directory, which then releases it.
    Grant,
    /// It is not known here: its leader must be asked.
    Unknown,
}

impl Explanation {
    /// What is to be said of the lock, among `all` that are known.
    pub(crate) fn new(status: LockStatus, all: &[LockStatus]) -> Explanation {
        let holders =
            status.holder.iter().chain(status.sharers.iter().map(|sharer| &sharer.holder));
        let stopped = holders.filter_map(stopped_here).collect();
        let ring = ring_through(&status, all).unwrap_or_default();
        Explanation { status, stopped, ring }
    }

    /// Whether its holder waits for a lock that another process has, and so on, until one waits for this one.
    ///
    /// That is a deadlock if each of them waits with all threads that could give back what it has, which is
    /// not seen from outside. What a leader is sure of it tells one of the callers, as
    /// [`Deadlock`](crate::LockErrorKind::Deadlock).
    pub fn may_be_deadlock(&self) -> bool {
        !self.ring.is_empty()
    }

    /// What it is drawn from.
    pub fn status(&self) -> &LockStatus {
        &self.status
    }

    /// What it waits for.
    pub fn freed_by(&self) -> FreedBy {
        match (self.status.state, &self.status.holder) {
            (LockState::Free, _) => FreedBy::Nothing,
            (LockState::Unknown, _) => FreedBy::Unknown,
            (LockState::Reserved, _) => FreedBy::AtLeast,
            (LockState::Kept, Some(_)) => FreedBy::Request,
            (LockState::Climbing, Some(_)) => FreedBy::Grant,
            (_, None) if !self.status.sharers.is_empty() => FreedBy::Sharers,
            #[cfg(feature = "process")]
            _ if !self.status.survivors.is_empty() => FreedBy::Survivors,
            _ => FreedBy::Holder,
        }
    }

    /// After this time it is free, even if its holder is not heard of any more; a holder that lives and
    /// reaches its leader goes on past it. `None`: there is no such time.
    pub fn at_latest(&self) -> Option<Duration> {
        match self.freed_by() {
            FreedBy::Nothing => Some(Duration::ZERO),
            FreedBy::AtLeast | FreedBy::Request => self.status.remaining,
            FreedBy::Holder if self.status.scope == Scope::Host => self.status.remaining,
            _ => None,
        }
    }

    /// The processes of this machine that have it and do not run: a signal or a debugger has stopped
    /// them. `kill -CONT` lets them go on.
    pub fn stopped(&self) -> &[u32] {
        &self.stopped
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = sentences(&self.status, |pid| self.stopped.contains(&pid));
        text.extend(ring_in_words(&self.status.name, &self.ring));
        f.write_str(&text.join("\n"))
    }
}

/// A way from the lock back to it: the process of a holder waits for the next name.
fn ring_through(start: &LockStatus, all: &[LockStatus]) -> Option<Vec<(Holder, Name)>> {
    /// A process, as far as others tell it apart.
    fn key(host: &str, pid: Option<u32>) -> Option<(&str, u32)> {
        pid.map(|pid| (host, pid))
    }
    let mut wanted: BTreeMap<(&str, u32), Vec<&Name>> = BTreeMap::new();
    for lock in all {
        for waiter in &lock.waiters {
            if let Some(process) = key(&waiter.host, waiter.pid) {
                wanted.entry(process).or_default().push(&lock.name);
            }
        }
    }
    let locks: BTreeMap<&Name, &LockStatus> = all.iter().map(|lock| (&lock.name, lock)).collect();
    // By which holder of which name each was come to.
    let mut ways: BTreeMap<&Name, (&Name, &Holder)> = BTreeMap::new();
    let mut open = VecDeque::from([&start.name]);
    while let Some(name) = open.pop_front() {
        let Some(lock) = locks.get(name) else { continue };
        let sharers = lock.sharers.iter().map(|sharer| &sharer.holder);
        for holder in lock.holder.iter().chain(sharers) {
            let waits = key(&holder.host, holder.pid).and_then(|process| wanted.get(&process));
            for &next in waits.into_iter().flatten().filter(|next| **next != name) {
                if ways.contains_key(next) {
                    continue;
                }
                ways.insert(next, (name, holder));
                open.push_back(next);
            }
        }
    }
    let mut ring = Vec::new();
    let mut at = &start.name;
    loop {
        let &(before, holder) = ways.get(at)?;
        ring.push((holder.clone(), at.clone()));
        at = before;
        if *at == start.name {
            ring.reverse();
            return Some(ring);
        }
    }
}

fn ring_in_words(name: &Name, ring: &[(Holder, Name)]) -> Option<String> {
    ring.first()?;
    let mut has = name;
    let named = named_of(ring.len());
    let steps = ring.iter().take(named).map(|(holder, next)| {
        let step =
            format!("{} has {} and waits for {}", shown(holder), Printable(has), Printable(next));
        has = next;
        step
    });
    let mut steps = steps.collect::<Vec<_>>().join("; ");
    if ring.len() > named {
        let _ = write!(steps, "; {} more wait for each other", ring.len() - named);
    }
    Some(format!(
        "It may be a deadlock: {steps}. If these processes have no other threads that give back what they \
         hold, none of it comes free by itself."
    ))
}

/// The process number of a process of this machine that a signal or a debugger has stopped.
#[cfg(feature = "process")]
fn stopped_here(holder: &Holder) -> Option<u32> {
    let is_here = holder.host == this_process().host;
    holder.pid.filter(|&pid| is_here && is_stopped(pid))
}

#[cfg(not(feature = "process"))]
fn stopped_here(_: &Holder) -> Option<u32> {
    None
}

/// What there is to say, from what matters most. `is_stopped` tells of a process whether a signal keeps it
/// from running.
fn sentences(lock: &LockStatus, is_stopped: impl Fn(u32) -> bool) -> Vec<String> {
    let name = Printable(lock.name.as_str()).to_string();
    let mut text = Vec::new();
    match (lock.state, &lock.holder) {
        (LockState::Free, _) => {
            text.push(match lock.limit {
                None => format!("{name} is free."),
                Some(limit) => format!("All {limit} permits of {name} are free."),
            });
            text.extend(last_left(lock.predecessor));
        }
        (LockState::Unknown, _) => text.push(format!(
            "{name} is a lock of host scope, and only its leader knows whether it is held: give \
             --leader to ask it."
        )),
        (LockState::Reserved, _) => text.extend(reserved(&name, lock)),
        (LockState::Kept, Some(holder)) => text.extend(kept(&name, lock, holder)),
        (LockState::Climbing, Some(holder)) => {
            text.push(format!(
                "{name} is being taken by {}, which has it on this machine and waits for its leader \
                 to grant it.",
                shown(holder)
            ));
            text.extend(stopped(holder, &is_stopped));
        }
        (_, Some(holder)) => text.extend(held(&name, lock, holder, &is_stopped)),
        (_, None) if lock.limit.is_some() => text.extend(permits(&name, lock, &is_stopped)),
        (_, None) if !lock.sharers.is_empty() => text.extend(read(&name, lock, &is_stopped)),
        (_, None) => text.push(format!("{name} is held; its holder has not said what it is.")),
    }
    text.extend(waiting(lock));
    text
}

fn held(
    name: &str,
    lock: &LockStatus,
    holder: &Holder,
    is_stopped: &impl Fn(u32) -> bool,
) -> Vec<String> {
    let token = lock.token;
    let since = holder.held.filter(|held| !held.is_zero()).map(|held| {
        let least = if holder.held_since_grant { "" } else { "at least " };
        format!(" for {least}{}", in_words(held))
    });
    let since = since.unwrap_or_default();
    let mut text = vec![format!("{name} is held by {}{since}, with token {token}.", shown(holder))];
    #[cfg(feature = "process")]
    if !lock.survivors.is_empty() {
        let ends =
            if lock.survivors.len() == 1 { "that process ends" } else { "all of these have ended" };
        let all = few(&lock.survivors, " and ");
        text.push(format!(
            "The process that took it has ended or released it: {all}, which it started, keeps it. \
             It comes free when {ends}."
        ));
        return text;
    }
    text.extend(stopped(holder, is_stopped));
    match (lock.scope, lock.remaining) {
        (Scope::Host, Some(left)) => text.push(format!(
            "It comes free when its holder releases it. Should the holder's process end or be cut off \
             from the leader, it comes free in {} at the latest; while it lives, it renews that.",
            in_words(left)
        )),
        (Scope::Host, None) => text.push(
            "It comes free when its holder releases it, or is not heard of any more.".to_owned(),
        ),
        (_, left) => {
            text.push(
                "It comes free when that process releases it or ends, however it ends; there is no \
                 time by which that must be."
                    .to_owned(),
            );
            text.extend(left.map(|left| {
                format!("Its at_least keeps it taken for {} more, whatever happens.", in_words(left))
            }));
        }
    }
    text.push(match lock.scope {
        Scope::Host => format!("`tierlock break {name} --token {token}` takes it away."),
        _ => format!("`tierlock break {name} --token {token}` ends that process."),
    });
    text
}

fn read(name: &str, lock: &LockStatus, is_stopped: &impl Fn(u32) -> bool) -> Vec<String> {
    let readers = lock.sharers.iter().map(|reader| match reader.count {
        1 => shown(&reader.holder),
        count => format!("{} ({count} times)", shown(&reader.holder)),
    });
    let mut text = vec![format!("{name} is read by {}.", few(readers, ", "))];
    for reader in &lock.sharers {
        text.extend(stopped(&reader.holder, is_stopped));
    }
    text.push(
        "A writer gets it once all of them have left or ended; there is no time by which that must \
         be. Readers that come behind a waiting writer wait too."
            .to_owned(),
    );
    text
}

fn permits(name: &str, lock: &LockStatus, is_stopped: &impl Fn(u32) -> bool) -> Vec<String> {
    let limit = lock.limit.unwrap_or_default();
    let taken = lock.permits_taken;
    let holders =
        lock.sharers.iter().map(|sharer| format!("{} by {}", sharer.count, shown(&sharer.holder)));
    let mut text = vec![format!(
        "{taken} of the {limit} permits of {name} are taken: {}.",
        few(holders, ", ")
    )];
    for sharer in &lock.sharers {
        text.extend(stopped(&sharer.holder, is_stopped));
    }
    text.push(
        "A permit comes free when its holder releases it or ends, however it ends; there is no time \
         by which that must be."
            .to_owned(),
    );
    text
}

fn reserved(name: &str, lock: &LockStatus) -> Vec<String> {
    let left = lock.remaining.map(|left| format!(" for {} more", in_words(left)));
    let left = left.unwrap_or_default();
    let token = lock.token;
    vec![
        format!("No process holds {name}: the at_least of its last holder keeps it taken{left}."),
        format!("It comes free then; `tierlock break {name} --token {token}` frees it earlier."),
    ]
}

fn kept(name: &str, lock: &LockStatus, holder: &Holder) -> Vec<String> {
    let latest = lock.remaining.map(|left| format!(", or after {} without it", in_words(left)));
    let latest = latest.unwrap_or_default();
    vec![format!(
        "No caller holds {name}: {} keeps its lease for the next lock there. It comes free as soon as \
         another client asks: that machine's answer is waited for{latest}.",
        shown(holder)
    )]
}

fn last_left(how: Predecessor) -> Option<String> {
    let what = match how {
        Predecessor::Clean => return None,
        Predecessor::Panicked => "panicked while it held it",
        Predecessor::Died => "died while it held it",
        Predecessor::Expired => "lost it at a deadline",
        Predecessor::Broken => "lost it to an operator",
    };
    Some(format!(
        "Its last holder {what}, which the next one is told: what it protects may be half done."
    ))
}

fn stopped(holder: &Holder, is_stopped: &impl Fn(u32) -> bool) -> Option<String> {
    let pid = holder.pid.filter(|&pid| is_stopped(pid))?;
    Some(format!("That process is stopped: `kill -CONT {pid}` lets it go on."))
}

fn waiting(lock: &LockStatus) -> Vec<String> {
    let mut text = match lock.waiters.len() {
        0 => return Vec::new(),
        1 => vec!["1 caller waits for it:".to_owned()],
        count => vec![format!("{count} callers wait for it, and are served in this order:")],
    };
    text.extend(lock.waiters.iter().enumerate().map(|(at, waiter)| {
        format!("  {}. {}, for {}", at + 1, shown_waiter(waiter), in_words(waiter.waiting))
    }));
    text
}

/// The holder without its time, which has a place of its own.
pub(crate) fn shown(holder: &Holder) -> String {
    Holder { held: None, ..holder.clone() }.to_string()
}

pub(crate) fn shown_waiter(waiter: &WaitingCaller) -> String {
    let WaitingCaller { label, claims_label, host, pid, .. } = waiter.clone();
    Holder { label, claims_label, host, pid, ..Holder::default() }.to_string()
}

#[cfg(test)]
mod tests;
