//! What tierlock is compared with: locks of other makers, and servers started for the purpose.
//!
//! Each is used the way its documentation recommends, its release awaited if that is how it is
//! used, and its caller is like tierlock's: one plain thread, or tasks on the same runtime.

mod local;
mod quic_echo;
mod redis;
mod server;

use std::{fmt, path::Path};

use tokio::runtime::Builder;

use super::{
    case::{Case, Label, Mode},
    failure::{Failure, Result},
    grounds::Grounds,
    host::fleet_label,
    run::Entry,
    tasks::{Client, Fleet, QuietAsync},
    thread::{Quiet, Threads, threads_label},
    worker::CrossLock,
};
use crate::Scope;

/// Whether there is a comparison, and the servers that it has started.
pub(crate) struct Peers {
    wanted: bool,
    redis: Option<redis::Server>,
    echo: Option<quic_echo::Server>,
    missing: Vec<Missing>,
}

impl Peers {
    pub(crate) fn new(wanted: bool) -> Peers {
        Peers { wanted, redis: None, echo: None, missing: Vec::new() }
    }

    pub(crate) fn missing(&self) -> Vec<Missing> {
        self.missing.clone()
    }
}

/// Something that was not compared with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Missing {
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { program, package } = self;
        write!(f, "{program} is not installed here; `apt-get install {package}`")
    }
}

pub(crate) fn thread_quiet(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let label = Label::new(Scope::Thread, Case::Quiet);
    let of = |subject| Label { subject, ..label.clone() };
    let parking_lot = parking_lot::Mutex::new(0_u64);
    entries.push(Entry::new(
        of("parking_lot"),
        Quiet(move || {
            *parking_lot.lock() += 1;
            Ok(())
        }),
    ));
    let std = std::sync::Mutex::new(0_u64);
    entries.push(Entry::new(
        of("std"),
        Quiet(move || {
            *std.lock().expect("nobody panics under it") += 1;
            Ok(())
        }),
    ));
    let runtime = grounds.runtime()?;
    let label = Label { mode: Mode::Async, ..label };
    let ours = local::Ours(crate::Mutex::new(0));
    entries.push(Entry::new(label.clone(), QuietAsync::new(runtime.clone(), ours)));
    let tokio = local::Tokio(tokio::sync::Mutex::new(0));
    entries.push(Entry::new(Label { subject: "tokio", ..label }, QuietAsync::new(runtime, tokio)));
    Ok(())
}

pub(crate) fn thread_threads(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let of = |subject| Label { subject, ..threads_label() };
    let parking_lot = parking_lot::Mutex::new(());
    entries.push(Entry::new(
        of("parking_lot"),
        Threads::new(move |section| {
            let _guard = parking_lot.lock();
            section();
            Ok(())
        }),
    ));
    let std = std::sync::Mutex::new(());
    entries.push(Entry::new(
        of("std"),
        Threads::new(move |section| {
            let _guard = std.lock().expect("nobody panics under it");
            section();
            Ok(())
        }),
    ));
    Ok(())
}

pub(crate) fn process_quiet(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let flock = local::flock(&grounds.directory("peers")?.join("quiet.flock"))?;
    let label = Label { subject: "flock", ..Label::new(Scope::Process, Case::Quiet) };
    entries.push(Entry::new(label, Quiet(flock)));
    Ok(())
}

/// The locks that child processes are measured with.
pub(crate) fn cross_locks(
    grounds: &Grounds,
    directory: &Path,
    case: Case,
) -> Vec<(&'static str, CrossLock)> {
    if !grounds.peers.wanted {
        return Vec::new();
    }
    let file = directory.with_file_name(format!("{}.flock", case.as_str()));
    vec![("flock", CrossLock::Flock { file })]
}

const REDIS_NOTE: &str = "SET NX PX and compare-and-delete, both awaited; nothing on disk";

pub(crate) fn host_quiet(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let label = Label::new(Scope::Host, Case::Quiet);
    let tasks = Label { mode: Mode::Async, ..fleet_label(Case::Quiet, 1) };
    let runtime = grounds.runtime()?;
    if let Some(server) = redis::server(grounds)? {
        let mut sync = server.sync_client("quiet/sync")?;
        entries.push(Entry::new(
            Label { subject: "redis-sync", note: Some(REDIS_NOTE), ..label.clone() },
            Quiet(move || sync.cycle()),
        ));
        let client = server.client(&runtime, "quiet/async")?;
        entries.push(Entry::new(
            Label { subject: "redis", note: Some(REDIS_NOTE), ..tasks.clone() },
            QuietAsync::new(runtime.clone(), client),
        ));
    }
    let echo = quic_echo::server(grounds)?;
    let of_echo = |label| Label { subject: "quic-echo", note: Some(quic_echo::NOTE), ..label };
    // A plain thread that drives its connection itself: no runtime is faster for one caller.
    let own = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot start a runtime"))?;
    let mut client = echo.quiet(&own)?;
    entries.push(Entry::new(of_echo(label), Quiet(move || own.block_on(client.cycle()))));
    let client = echo.quiet(&runtime)?;
    entries.push(Entry::new(of_echo(tasks), QuietAsync::new(runtime, client)));
    Ok(())
}

pub(crate) fn host_connections_32(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let label = fleet_label(Case::Connections32, 32);
    let runtime = grounds.runtime()?;
    if let Some(server) = redis::server(grounds)? {
        let clients = (0..32)
            .map(|client| server.client(&runtime, &format!("own/{client}")))
            .collect::<Result<Vec<_>>>()?;
        entries.push(Entry::new(
            Label { subject: "redis", note: Some(REDIS_NOTE), ..label },
            Fleet::new(runtime, clients, None),
        ));
    }
    Ok(())
}

pub(crate) fn host_tasks_256(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let label = fleet_label(Case::Tasks256, 256);
    let runtime = grounds.runtime()?;
    if let Some(server) = redis::server(grounds)? {
        let first = server.client(&runtime, "task/0")?;
        let clients = (0..256).map(|task| first.sharing(&format!("task/{task}"))).collect();
        entries.push(Entry::new(
            Label { subject: "redis", note: Some(REDIS_NOTE), ..label.clone() },
            Fleet::new(runtime.clone(), clients, None),
        ));
    }
    let clients = quic_echo::server(grounds)?.sharing(&runtime, 256)?;
    entries.push(Entry::new(
        Label { subject: "quic-echo", note: Some(quic_echo::NOTE), ..label },
        Fleet::new(runtime, clients, None),
    ));
    Ok(())
}
