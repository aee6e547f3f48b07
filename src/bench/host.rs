//! Host scope: what a lock costs that machines share, with a leader in this process on loopback.
//!
//! Unless a row says otherwise, every lease is given back after every cycle (keeping is off), and
//! the release is sent, not awaited, as a dropped guard does it.

use std::{num::NonZero, sync::Arc, thread};

use tierlock::{Keep, LockManager, Mutex, MutexGuard, Scope};

use super::{
    case::{Case, Label, WaitMode},
    crowd::{Crowd, Dice, own_or_others},
    failure::Result,
    grounds::Grounds,
    run::{Contender, Entrant, Quiet},
    stats::Unprotected,
    tasks::{AsyncCaller, Fleet, QuietAsync, RUNTIME_WORKERS},
};

/// What every row of tierlock says here, unless it says another thing.
const NOTE: &str = "release sent, not awaited; keeping off; FIFO, with tokens";
const AWAITED: &str = "release awaited";
const KEPT: &str = "Keep::Always: the lease stays with the session";
/// Where leases are kept as they are if nothing is said.
pub(crate) const ADAPTIVE: &str = "Keep::Adaptive";

pub(crate) fn quiet(grounds: &mut Grounds) -> Result<Vec<Entrant>> {
    let label = Label { note: Some(NOTE), ..Label::new(Scope::Host, Case::QUIET) };
    let awaited = |label| Label { variant: Some("awaited"), note: Some(AWAITED), ..label };
    let mut entries = Vec::new();

    let blocking = mutex(&grounds.leader()?.connect()?, "quiet/blocking", Keep::Never)?;
    entries.push(Entrant::new(label.clone(), locking(blocking)));
    let blocking = mutex(&grounds.leader()?.connect()?, "quiet/blocking/awaited", Keep::Never)?;
    entries.push(Entrant::new(
        awaited(label.clone()),
        Quiet(move || Ok(MutexGuard::unlock(blocking.lock()?)?)),
    ));

    let runtime = grounds.runtime()?;
    let label = Label { mode: WaitMode::Async, threads: RUNTIME_WORKERS, ..label };
    let locks = grounds.leader()?.connect_on(&runtime)?;
    let client = Tierlock::new(&locks, "quiet/async", Arc::default())?;
    entries.push(Entrant::new(label.clone(), QuietAsync::new(runtime.clone(), client)));
    let locks = grounds.leader()?.connect_on(&runtime)?;
    let client = Awaiting(mutex(&locks, "quiet/async/awaited", Keep::Never)?);
    entries.push(Entrant::new(awaited(label), QuietAsync::new(runtime, client)));

    Ok(entries)
}

pub(crate) fn connections_32(grounds: &mut Grounds) -> Result<Vec<Entrant>> {
    connections(grounds, Case::CONNECTIONS_32, 32, None, |client| format!("own/{client}"))
}

pub(crate) fn one_name_8(grounds: &mut Grounds) -> Result<Vec<Entrant>> {
    let count = Arc::new(Unprotected::default());
    connections(grounds, Case::ONE_NAME_8, 8, Some(count), |_| "one/name".into())
}

/// Tasks with a connection each; `count` is what they count under one lock, if it is one lock.
fn connections(
    grounds: &mut Grounds,
    case: Case,
    number: u32,
    count: Option<Arc<Unprotected>>,
    name: fn(u32) -> String,
) -> Result<Vec<Entrant>> {
    let runtime = grounds.runtime()?;
    let mut clients = Vec::new();
    for client in 0..number {
        let locks = grounds.leader()?.connect_on(&runtime)?;
        clients.push(Tierlock::new(&locks, &name(client), count.clone().unwrap_or_default())?);
    }
    Ok(vec![Entrant::new(fleet_label(case, number), Fleet::new(runtime, clients, count))])
}

pub(crate) fn tasks_256(grounds: &mut Grounds) -> Result<Vec<Entrant>> {
    let runtime = grounds.runtime()?;
    let locks = grounds.leader()?.connect_on(&runtime)?;
    let clients = (0..256)
        .map(|task| Tierlock::new(&locks, &format!("task/{task}"), Arc::default()))
        .collect::<Result<Vec<_>>>()?;
    Ok(vec![Entrant::new(fleet_label(Case::TASKS_256, 256), Fleet::new(runtime, clients, None))])
}

pub(crate) fn kept(grounds: &mut Grounds) -> Result<Vec<Entrant>> {
    let label = Label { note: Some(KEPT), ..Label::new(Scope::Host, Case::KEPT) };
    let directory = grounds.directory("kept")?;
    let without = mutex(&grounds.leader()?.connect()?, "kept", Keep::Always)?;
    let with = mutex(&grounds.leader()?.connect_with(&directory)?, "kept/with", Keep::Always)?;
    Ok(vec![
        Entrant::new(label.clone(), locking(without)),
        Entrant::new(Label { variant: Some("+ dir"), ..label }, locking(with)),
    ])
}

/// A plain thread that locks and drops the guard.
fn locking(mutex: Mutex<()>) -> impl Contender {
    Quiet(move || {
        drop(mutex.lock()?);
        Ok(())
    })
}

pub(crate) fn remote_1pct(grounds: &mut Grounds) -> Result<Vec<Entrant>> {
    let wants = own_or_others(0.01, remote_clients() as usize);
    Ok(vec![remote(grounds, &remote_names("1pct"), wants)?])
}

/// Clients with a name each, which want other names as well.
pub(crate) fn remote(
    grounds: &mut Grounds,
    names: &[String],
    wants: impl Fn(usize, &mut Dice) -> usize + Sync + 'static,
) -> Result<Entrant> {
    let count = remote_clients();
    let mut clients = Vec::new();
    for _ in 0..count {
        let locks = grounds.leader()?.connect()?;
        let mutexes: Vec<_> =
            names.iter().map(|name| mutex(&locks, name, Keep::Adaptive)).collect::<Result<_>>()?;
        clients.push(move |name: usize, section: &mut dyn FnMut()| {
            let _guard = mutexes[name].lock()?;
            section();
            Ok(())
        });
    }
    let label = Label { note: Some(ADAPTIVE), ..crowd_label(Case::REMOTE_1PCT, count) };
    Ok(Entrant::new(label, Crowd::new(clients, wants)))
}

/// More than the machine runs at once would measure its scheduler.
pub(crate) fn remote_clients() -> u32 {
    thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 8) as u32
}

/// A name for each client, and one more.
pub(crate) fn remote_names(kind: &str) -> Vec<String> {
    (0..=remote_clients()).map(|name| format!("remote/{kind}/{name}")).collect()
}

/// The label of plain threads with a client each.
pub(crate) fn crowd_label(case: Case, clients: u32) -> Label {
    Label { clients, threads: clients, ..Label::new(Scope::Host, case) }
}

/// The label of tasks on the runtime.
pub(crate) fn fleet_label(case: Case, clients: u32) -> Label {
    Label {
        mode: WaitMode::Async,
        clients,
        threads: RUNTIME_WORKERS,
        note: Some(NOTE),
        ..Label::new(Scope::Host, case)
    }
}

pub(crate) fn mutex(locks: &LockManager, name: &str, keep: Keep) -> Result<Mutex<()>> {
    Ok(locks.mutex(name, ()).scope(Scope::Host).keep(keep).build()?)
}

struct Tierlock {
    mutex: Mutex<()>,
    count: Arc<Unprotected>,
}

impl Tierlock {
    fn new(locks: &LockManager, name: &str, count: Arc<Unprotected>) -> Result<Tierlock> {
        Ok(Tierlock { mutex: mutex(locks, name, Keep::Never)?, count })
    }
}

impl AsyncCaller for Tierlock {
    async fn cycle(&mut self) -> Result<()> {
        let guard = self.mutex.lock_async().await?;
        self.count.increment();
        drop(guard);
        Ok(())
    }
}

/// A caller that waits for the answer to its release.
struct Awaiting(Mutex<()>);

impl AsyncCaller for Awaiting {
    async fn cycle(&mut self) -> Result<()> {
        Ok(MutexGuard::unlock_async(self.0.lock_async().await?).await?)
    }
}
