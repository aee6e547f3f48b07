//! Locks between machines: servers on loopback, and the floor below them.

use std::sync::Arc;

use tierlock::Scope;
use tokio::runtime::{Builder, Runtime};

use super::{
    quic_echo,
    redis::Durability,
    servers::{redis, services},
    service::{Service, ServiceVisitor},
};
use crate::{
    bench::{
        case::{Case, Label},
        crowd::{Crowd, Dice},
        failure::{BenchFailure, Result},
        host::{crowd_label, fleet_label},
        run::{Entrant, Quiet},
        stats::Unprotected,
        tasks::{AsyncCaller, Fleet, QuietAsync},
    },
    peers::field::Field,
};

pub(crate) fn quiet(field: &mut Field, entries: &mut Vec<Entrant>) -> Result<()> {
    let label = Label::new(Scope::Host, Case::QUIET);
    for durability in [Durability::Nothing, Durability::EveryWrite] {
        if let Some(redis) = redis(&mut field.servers, &field.grounds, durability)? {
            let mut client = redis.sync_client(&["quiet/sync"])?;
            let (subject, note) = (redis.sync_subject(), Some(redis.note()));
            entries.push(Entrant::new(
                Label { subject, note, ..label.clone() },
                Quiet(move || client.cycle(0, &mut || {})),
            ));
        }
    }
    let tasks = Label { note: None, ..fleet_label(Case::QUIET, 1) };
    let runtime = field.grounds.runtime()?;
    let echo = field.servers.echo()?;
    let of_echo = |label| Label { subject: "quic-echo", note: Some(quic_echo::NOTE), ..label };
    // A plain thread that drives its connection itself: no runtime is faster for one caller.
    let own = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchFailure::io("cannot start a runtime"))?;
    let mut client = echo.quiet(&own)?;
    entries.push(Entrant::new(of_echo(label), Quiet(move || own.block_on(client.cycle()))));
    let client = echo.quiet(&runtime)?;
    let of_echo = Entrant::new(of_echo(tasks.clone()), QuietAsync::new(runtime.clone(), client));
    services(
        &mut field.servers,
        &mut field.grounds,
        &mut QuietTask { runtime, label: tasks, entries },
    )?;
    entries.push(of_echo);
    Ok(())
}

/// One task, and a connection for it.
struct QuietTask<'a> {
    runtime: Arc<Runtime>,
    label: Label,
    entries: &'a mut Vec<Entrant>,
}

impl ServiceVisitor for QuietTask<'_> {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()> {
        let client = self.runtime.block_on(service.client("quiet/async", Arc::default()))?;
        self.entries.push(Entrant::new(
            label_of(service, &self.label),
            QuietAsync::new(self.runtime.clone(), client),
        ));
        Ok(())
    }
}

fn label_of(service: &impl Service, label: &Label) -> Label {
    Label { subject: service.subject(), note: Some(service.note()), ..label.clone() }
}

pub(crate) fn connections_32(field: &mut Field, entries: &mut Vec<Entrant>) -> Result<()> {
    let (runtime, label) = (field.grounds.runtime()?, fleet_label(Case::CONNECTIONS_32, 32));
    services(
        &mut field.servers,
        &mut field.grounds,
        &mut Connections { runtime, label, entries, name: None },
    )
}

pub(crate) fn one_name_8(field: &mut Field, entries: &mut Vec<Entrant>) -> Result<()> {
    let (runtime, label) = (field.grounds.runtime()?, fleet_label(Case::ONE_NAME_8, 8));
    services(
        &mut field.servers,
        &mut field.grounds,
        &mut Connections { runtime, label, entries, name: Some("one/name") },
    )
}

pub(crate) fn one_name_64(field: &mut Field, entries: &mut Vec<Entrant>) -> Result<()> {
    redis_crowd(field, crowd_label(Case::ONE_NAME_64, 64), &["one/64"], |_, _| 0, entries)
}

pub(crate) fn remote(
    field: &mut Field,
    clients: u32,
    names: &[String],
    wants: impl Fn(usize, &mut Dice) -> usize + Sync + 'static,
    entries: &mut Vec<Entrant>,
) -> Result<()> {
    let label = crowd_label(Case::REMOTE_1PCT, clients);
    redis_crowd(field, label, names, wants, entries)
}

/// Threads with a connection to Redis each.
fn redis_crowd(
    field: &mut Field,
    label: Label,
    names: &[impl AsRef<str>],
    wants: impl Fn(usize, &mut Dice) -> usize + Sync + 'static,
    entries: &mut Vec<Entrant>,
) -> Result<()> {
    let Some(redis) = redis(&mut field.servers, &field.grounds, Durability::Nothing)? else {
        return Ok(());
    };
    let mut clients = Vec::new();
    for _ in 0..label.clients {
        let mut client = redis.sync_client(names)?;
        clients.push(move |name: usize, section: &mut dyn FnMut()| client.cycle(name, section));
    }
    let label = Label { subject: redis.sync_subject(), note: Some(redis.note()), ..label };
    entries.push(Entrant::new(label, Crowd::new(clients, wants)));
    Ok(())
}

/// Tasks with a connection each, and one name for all or one each.
struct Connections<'a> {
    runtime: Arc<Runtime>,
    label: Label,
    name: Option<&'static str>,
    entries: &'a mut Vec<Entrant>,
}

impl ServiceVisitor for Connections<'_> {
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
        self.entries.push(Entrant::new(
            label_of(service, &self.label),
            Fleet::new(self.runtime.clone(), clients, common),
        ));
        Ok(())
    }
}

pub(crate) fn tasks_256(field: &mut Field, entries: &mut Vec<Entrant>) -> Result<()> {
    let label = fleet_label(Case::TASKS_256, 256);
    let runtime = field.grounds.runtime()?;
    services(
        &mut field.servers,
        &mut field.grounds,
        &mut OneConnection { runtime: runtime.clone(), label: label.clone(), entries },
    )?;
    let clients = field.servers.echo()?.sharing(&runtime, 256)?;
    entries.push(Entrant::new(
        Label { subject: "quic-echo", note: Some(quic_echo::NOTE), ..label },
        Fleet::new(runtime, clients, None),
    ));
    Ok(())
}

/// Tasks on one connection, with a name each.
struct OneConnection<'a> {
    runtime: Arc<Runtime>,
    label: Label,
    entries: &'a mut Vec<Entrant>,
}

impl ServiceVisitor for OneConnection<'_> {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()> {
        let first = self.runtime.block_on(service.client("task/0", Arc::default()))?;
        let others: Option<Vec<_>> = (1..self.label.clients)
            .map(|task| service.sharing(&first, &format!("task/{task}")))
            .collect();
        // Where a connection is one holder, tasks cannot share it.
        if let Some(mut clients) = others {
            clients.push(first);
            self.entries.push(Entrant::new(
                label_of(service, &self.label),
                Fleet::new(self.runtime.clone(), clients, None),
            ));
        }
        Ok(())
    }
}
