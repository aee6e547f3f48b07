//! What tierlock is compared with: locks of other makers, and servers started for the purpose.
//!
//! Each is used the way its documentation recommends, its release awaited if that is how it is
//! used, and its caller is like tierlock's: one plain thread, or tasks on the same runtime. What
//! each side does and guarantees stands in `guarantees.txt`.

mod cross;
mod etcd;
mod local;
mod mariadb;
mod postgres;
mod quic_echo;
mod redis;
mod redlock;
mod server;
mod sys;
mod zookeeper;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::runtime::{Builder, Runtime};

pub(crate) use self::{cross::PeerLock, sys::exec};
use self::{
    etcd::Etcd,
    mariadb::MariaDb,
    postgres::Postgres,
    redis::{Durability, Redis},
    redlock::Redlock,
    zookeeper::ZooKeeper,
};
use super::{
    case::{Case, Label, Mode},
    crowd::{Crowd, Wants},
    failure::{Failure, Result},
    grounds::Grounds,
    host::{crowd_label, fleet_label},
    run::Entry,
    stats::Unprotected,
    tasks::{Client, Fleet, QuietAsync},
    thread::{Quiet, Threads},
};
use crate::Scope;

/// Whether there is a comparison, and the servers that it has started.
pub(crate) struct Peers {
    wanted: bool,
    redis: Slot<Redis>,
    redis_aof: Slot<Redis>,
    redlock: Slot<Redlock>,
    etcd: Slot<Etcd>,
    postgres: Slot<Postgres>,
    mariadb: Slot<MariaDb>,
    zookeeper: Slot<ZooKeeper>,
    echo: Option<quic_echo::Server>,
    missing: Vec<Missing>,
}

/// A server that is started when it is first asked for, if it is to be had.
type Slot<S> = Option<Option<Arc<S>>>;

impl Peers {
    pub(crate) fn new(wanted: bool) -> Peers {
        Peers {
            wanted,
            redis: None,
            redis_aof: None,
            redlock: None,
            etcd: None,
            postgres: None,
            mariadb: None,
            zookeeper: None,
            echo: None,
            missing: Vec::new(),
        }
    }

    pub(crate) fn missing(&self) -> Vec<Missing> {
        self.missing.clone()
    }

    /// Something failed in the middle of a heat.
    pub(crate) fn dropped_out(&mut self, label: &Label, failure: &Failure) {
        self.missing.push(Missing {
            program: label.subject,
            package: "",
            why: Some(format!("failed at {}, {}: {failure}", label.scope, label.title())),
        });
    }

    fn keep<S>(&mut self, started: Result<S, Missing>) -> Option<Arc<S>> {
        match started {
            Ok(server) => Some(Arc::new(server)),
            Err(missing) => {
                if !self.missing.contains(&missing) {
                    self.missing.push(missing);
                }
                None
            }
        }
    }
}

/// Something that was not compared with.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Missing {
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) package: &'static str,
    /// If it is not for want of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Missing {
    const fn new(program: &'static str, package: &'static str) -> Missing {
        Missing { program, package, why: None }
    }

    /// It is installed, but this was in the way.
    fn because<E: fmt::Display>(&self) -> impl FnOnce(E) -> Missing + use<E> {
        let missing = self.clone();
        move |error| Missing { why: Some(format!("did not start: {error}")), ..missing }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { program, package, why } = self;
        match why {
            None => write!(f, "{program} is not installed here; `apt-get install {package}`"),
            Some(why) => write!(f, "{program} {why}"),
        }
    }
}

/// A server that hands out clients with a connection each.
pub(crate) trait Service {
    type Client: Client;

    fn subject(&self) -> &'static str;

    /// What a reader must know to compare it.
    fn note(&self) -> &'static str;

    /// A client on a connection of its own: it locks `name`, waiting if it must, counts, unlocks.
    fn client(
        &self,
        name: &str,
        count: Arc<Unprotected>,
    ) -> impl Future<Output = Result<Self::Client>>;

    /// Another client on the same connection, where several may share one.
    fn sharing(&self, _client: &Self::Client, _name: &str) -> Option<Self::Client> {
        None
    }
}

/// What is done with every service; compiled for each.
trait Visitor {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()>;
}

/// Starts what is not running yet, and visits all that can be had.
fn services(grounds: &mut Grounds, visitor: &mut impl Visitor) -> Result<()> {
    if let Some(redis) = redis(grounds, Durability::Nothing)? {
        visitor.visit(&*redis)?;
    }
    if let Some(redis) = redis(grounds, Durability::EveryWrite)? {
        visitor.visit(&*redis)?;
    }
    if grounds.peers.redlock.is_none() {
        let started = Redlock::start(&grounds.directory("redlock")?);
        grounds.peers.redlock = Some(grounds.peers.keep(started));
    }
    if let Some(Some(redlock)) = grounds.peers.redlock.clone() {
        visitor.visit(&*redlock)?;
    }
    let runtime = grounds.runtime()?;
    if grounds.peers.etcd.is_none() {
        let started = Etcd::start(&grounds.directory("etcd")?, &runtime);
        grounds.peers.etcd = Some(grounds.peers.keep(started));
    }
    if let Some(Some(etcd)) = grounds.peers.etcd.clone() {
        visitor.visit(&*etcd)?;
    }
    if grounds.peers.zookeeper.is_none() {
        let started = ZooKeeper::start(&grounds.directory("zookeeper")?, &runtime);
        grounds.peers.zookeeper = Some(grounds.peers.keep(started));
    }
    if let Some(Some(zookeeper)) = grounds.peers.zookeeper.clone() {
        visitor.visit(&*zookeeper)?;
    }
    if grounds.peers.postgres.is_none() {
        let started = Postgres::start(&runtime);
        grounds.peers.postgres = Some(grounds.peers.keep(started));
    }
    if let Some(Some(postgres)) = grounds.peers.postgres.clone() {
        visitor.visit(&*postgres)?;
    }
    if grounds.peers.mariadb.is_none() {
        let started = MariaDb::start(&grounds.directory("mariadb")?, &runtime);
        grounds.peers.mariadb = Some(grounds.peers.keep(started));
    }
    if let Some(Some(mariadb)) = grounds.peers.mariadb.clone() {
        visitor.visit(&*mariadb)?;
    }
    Ok(())
}

fn redis(grounds: &mut Grounds, durability: Durability) -> Result<Option<Arc<Redis>>> {
    let (directory, slot): (_, fn(&mut Peers) -> &mut Slot<Redis>) = match durability {
        Durability::Nothing => ("redis", |peers| &mut peers.redis),
        Durability::EveryWrite => ("redis-aof", |peers| &mut peers.redis_aof),
    };
    if slot(&mut grounds.peers).is_none() {
        let started = Redis::start(&grounds.directory(directory)?, durability);
        let kept = grounds.peers.keep(started);
        *slot(&mut grounds.peers) = Some(kept);
    }
    Ok(slot(&mut grounds.peers).clone().flatten())
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

/// Threads that all want one lock.
pub(crate) fn thread_contended(
    grounds: &mut Grounds,
    label: &Label,
    hold: Duration,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let of = |subject| Label { subject, ..label.clone() };
    let parking_lot = parking_lot::Mutex::new(());
    let with_lock = move |section: &mut dyn FnMut()| {
        let _guard = parking_lot.lock();
        section();
        Ok(())
    };
    entries.push(Entry::new(of("parking_lot"), Threads::new(label, hold, with_lock)));
    let std = std::sync::Mutex::new(());
    let with_lock = move |section: &mut dyn FnMut()| {
        let _guard = std.lock().expect("nobody panics under it");
        section();
        Ok(())
    };
    entries.push(Entry::new(of("std"), Threads::new(label, hold, with_lock)));
    Ok(())
}

/// The locks between processes that are measured in a case.
pub(crate) fn cross_locks(grounds: &Grounds, case: Case) -> Result<Vec<(&'static str, PeerLock)>> {
    if !grounds.peers.wanted {
        return Ok(Vec::new());
    }
    cross::locks(&grounds.directory("peers")?, case)
}

pub(crate) fn host_quiet(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let label = Label::new(Scope::Host, Case::Quiet);
    for durability in [Durability::Nothing, Durability::EveryWrite] {
        if let Some(redis) = redis(grounds, durability)? {
            let mut client = redis.sync_client(&["quiet/sync"])?;
            let (subject, note) = (redis.sync_subject(), Some(redis.note()));
            entries.push(Entry::new(
                Label { subject, note, ..label.clone() },
                Quiet(move || client.cycle(0, &mut || {})),
            ));
        }
    }
    let tasks = Label { note: None, ..fleet_label(Case::Quiet, 1) };
    let runtime = grounds.runtime()?;
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
    let of_echo = Entry::new(of_echo(tasks.clone()), QuietAsync::new(runtime.clone(), client));
    services(grounds, &mut QuietTask { runtime, label: tasks, entries })?;
    entries.push(of_echo);
    Ok(())
}

/// One task, and a connection for it.
struct QuietTask<'a> {
    runtime: Arc<Runtime>,
    label: Label,
    entries: &'a mut Vec<Entry>,
}

impl Visitor for QuietTask<'_> {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()> {
        let client = self.runtime.block_on(service.client("quiet/async", Arc::default()))?;
        self.entries.push(Entry::new(
            label_of(service, &self.label),
            QuietAsync::new(self.runtime.clone(), client),
        ));
        Ok(())
    }
}

fn label_of(service: &impl Service, label: &Label) -> Label {
    Label { subject: service.subject(), note: Some(service.note()), ..label.clone() }
}

pub(crate) fn host_connections_32(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let (runtime, label) = (grounds.runtime()?, fleet_label(Case::Connections32, 32));
    services(grounds, &mut Connections { runtime, label, entries, name: None })
}

pub(crate) fn host_one_name_8(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let (runtime, label) = (grounds.runtime()?, fleet_label(Case::OneName8, 8));
    services(grounds, &mut Connections { runtime, label, entries, name: Some("one/name") })
}

pub(crate) fn host_one_name_64(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    redis_crowd(grounds, crowd_label(Case::OneName64, 64), &["one/64"], Wants::TheSame, entries)
}

pub(crate) fn host_remote(
    grounds: &mut Grounds,
    clients: u32,
    names: &[String],
    wants: Wants,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let label = crowd_label(Case::Remote1pct, clients);
    redis_crowd(grounds, label, names, wants, entries)
}

/// Threads with a connection to Redis each.
fn redis_crowd(
    grounds: &mut Grounds,
    label: Label,
    names: &[impl AsRef<str>],
    wants: Wants,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let Some(redis) = redis(grounds, Durability::Nothing)? else { return Ok(()) };
    let mut clients = Vec::new();
    for _ in 0..label.clients {
        let mut client = redis.sync_client(names)?;
        clients.push(move |name: usize, section: &mut dyn FnMut()| client.cycle(name, section));
    }
    let label = Label { subject: redis.sync_subject(), note: Some(redis.note()), ..label };
    entries.push(Entry::new(label, Crowd::new(clients, wants)));
    Ok(())
}

/// Tasks with a connection each, and one name for all or one each.
struct Connections<'a> {
    runtime: Arc<Runtime>,
    label: Label,
    name: Option<&'static str>,
    entries: &'a mut Vec<Entry>,
}

impl Visitor for Connections<'_> {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()> {
        let common = Arc::<Unprotected>::default();
        let mut clients = Vec::new();
        for client in 0..self.label.clients {
            let client = match self.name {
                Some(name) => self.runtime.block_on(service.client(name, common.clone())),
                None => {
                    let name = format!("own/{client}");
                    self.runtime.block_on(service.client(&name, Arc::default()))
                }
            };
            clients.push(client?);
        }
        let common = self.name.is_some().then_some(common);
        self.entries.push(Entry::new(
            label_of(service, &self.label),
            Fleet::new(self.runtime.clone(), clients, common),
        ));
        Ok(())
    }
}

pub(crate) fn host_tasks_256(grounds: &mut Grounds, entries: &mut Vec<Entry>) -> Result<()> {
    if !grounds.peers.wanted {
        return Ok(());
    }
    let label = fleet_label(Case::Tasks256, 256);
    let runtime = grounds.runtime()?;
    services(
        grounds,
        &mut OneConnection { runtime: runtime.clone(), label: label.clone(), entries },
    )?;
    let clients = quic_echo::server(grounds)?.sharing(&runtime, 256)?;
    entries.push(Entry::new(
        Label { subject: "quic-echo", note: Some(quic_echo::NOTE), ..label },
        Fleet::new(runtime, clients, None),
    ));
    Ok(())
}

/// Tasks on one connection, with a name each.
struct OneConnection<'a> {
    runtime: Arc<Runtime>,
    label: Label,
    entries: &'a mut Vec<Entry>,
}

impl Visitor for OneConnection<'_> {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()> {
        let first = self.runtime.block_on(service.client("task/0", Arc::default()))?;
        let others: Option<Vec<_>> = (1..self.label.clients)
            .map(|task| service.sharing(&first, &format!("task/{task}")))
            .collect();
        // Where a connection is one holder, tasks cannot share it.
        if let Some(mut clients) = others {
            clients.push(first);
            self.entries.push(Entry::new(
                label_of(service, &self.label),
                Fleet::new(self.runtime.clone(), clients, None),
            ));
        }
        Ok(())
    }
}
