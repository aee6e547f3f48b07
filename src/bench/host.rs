//! Host scope: what a lock costs that machines share, with a leader in this process on loopback.
//!
//! Every lease is given back after every cycle (keeping is off), and the release is sent, not
//! awaited, as a dropped guard does it.

use std::sync::Arc;

use super::{
    case::{Case, Label, Mode},
    failure::Result,
    grounds::{Grounds, RUNTIME_WORKERS},
    run::Entry,
    stats::Unprotected,
    tasks::{Client, Fleet, QuietAsync},
    thread::Quiet,
};
use crate::{Keep, LockManager, Mutex, Scope};

/// What every row of tierlock says here.
const NOTE: &str = "release sent, not awaited; keeping off";

pub(crate) fn quiet(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let label = Label { note: Some(NOTE), ..Label::new(Scope::Host, Case::Quiet) };
    let blocking = mutex(&grounds.leader()?.connect()?, "quiet/blocking")?;
    let mut entries = vec![Entry::new(
        label.clone(),
        Quiet(move || {
            drop(blocking.lock()?);
            Ok(())
        }),
    )];
    let runtime = grounds.runtime()?;
    let locks = grounds.leader()?.connect_on(&runtime)?;
    let client = Tierlock::new(&locks, "quiet/async", Arc::default())?;
    entries.push(Entry::new(
        Label { mode: Mode::Async, threads: RUNTIME_WORKERS, ..label },
        QuietAsync::new(runtime, client),
    ));
    super::peers::host_quiet(grounds, &mut entries)?;
    Ok(entries)
}

pub(crate) fn connections_32(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let runtime = grounds.runtime()?;
    let mut clients = Vec::new();
    for client in 0..32 {
        let locks = grounds.leader()?.connect_on(&runtime)?;
        clients.push(Tierlock::new(&locks, &format!("own/{client}"), Arc::default())?);
    }
    let mut entries =
        vec![Entry::new(fleet_label(Case::Connections32, 32), Fleet::new(runtime, clients, None))];
    super::peers::host_connections_32(grounds, &mut entries)?;
    Ok(entries)
}

pub(crate) fn tasks_256(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let runtime = grounds.runtime()?;
    let locks = grounds.leader()?.connect_on(&runtime)?;
    let clients = (0..256)
        .map(|task| Tierlock::new(&locks, &format!("task/{task}"), Arc::default()))
        .collect::<Result<Vec<_>>>()?;
    let mut entries =
        vec![Entry::new(fleet_label(Case::Tasks256, 256), Fleet::new(runtime, clients, None))];
    super::peers::host_tasks_256(grounds, &mut entries)?;
    Ok(entries)
}

pub(crate) fn one_name_8(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let runtime = grounds.runtime()?;
    let count = Arc::new(Unprotected::default());
    let mut clients = Vec::new();
    for _ in 0..8 {
        let locks = grounds.leader()?.connect_on(&runtime)?;
        clients.push(Tierlock::new(&locks, "one/name", count.clone())?);
    }
    Ok(vec![Entry::new(fleet_label(Case::OneName8, 8), Fleet::new(runtime, clients, Some(count)))])
}

/// The label of tasks on the runtime.
pub(crate) fn fleet_label(case: Case, clients: u32) -> Label {
    Label {
        mode: Mode::Async,
        clients,
        threads: RUNTIME_WORKERS,
        note: Some(NOTE),
        ..Label::new(Scope::Host, case)
    }
}

fn mutex(locks: &LockManager, name: &str) -> Result<Mutex<()>> {
    Ok(locks.mutex(name, ()).scope(Scope::Host).keep(Keep::Never).build()?)
}

struct Tierlock {
    mutex: Mutex<()>,
    count: Arc<Unprotected>,
}

impl Tierlock {
    fn new(locks: &LockManager, name: &str, count: Arc<Unprotected>) -> Result<Tierlock> {
        Ok(Tierlock { mutex: mutex(locks, name)?, count })
    }
}

impl Client for Tierlock {
    async fn cycle(&mut self) -> Result<()> {
        let guard = self.mutex.lock_async().await?;
        self.count.increment();
        drop(guard);
        Ok(())
    }
}
