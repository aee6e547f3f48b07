//! Lock services of others, through tierlock and through clients of their own: the same servers, in the
//! same run. Both sides are tasks with a connection each.

use std::sync::Arc;

use tierlock::{LockManager, Mutex, MutexGuard, Scope};
use tokio::runtime::Runtime;

use crate::{
    bench::{
        case::{Case, Label},
        failure::{BenchFailure, Result},
        host::fleet_label,
        machine::MachineInfo,
        report::BenchReport,
        run::{self, Entrant, Heat, Quiet},
        stats::Unprotected,
        tasks::{AsyncCaller, Fleet, QuietAsync},
    },
    budget,
    comparison::Comparison,
    peers::{
        field::Field,
        servers::{self, services},
        service::{EngineUrl, Service, ServiceVisitor},
    },
};

impl Case {
    /// One connection each, one name for both: nearly every cycle is a hand-over.
    const ONE_NAME_2: Case = Case::new("one_name_2", "2 on one name");
}

const HEATS: &[Heat<Field>] = &[
    Heat::new(Scope::Host, Case::QUIET, 14.0, |field| both(field, Case::QUIET, 1)),
    Heat::new(Scope::Host, Case::ONE_NAME_2, 14.0, |field| both(field, Case::ONE_NAME_2, 2)),
    Heat::new(Scope::Host, Case::ONE_NAME_8, 14.0, |field| both(field, Case::ONE_NAME_8, 8)),
    Heat::new(Scope::Host, Case::KEPT, 1.0, kept),
];

/// All of them, or one case, in about so many seconds.
pub(crate) fn run(case: Option<&str>, seconds: Option<f64>) -> Result<Comparison> {
    if !cfg!(feature = "engines") {
        let how = "build it with --features engines, which takes `protoc` (protobuf-compiler)";
        return Err(BenchFailure::Usage(how.into()));
    }
    let heats = run::chosen(HEATS, None, case)?;
    let seconds = seconds.unwrap_or_else(|| run::usual_seconds(&heats));
    let mut field = Field::new()?;
    let rows = run::measure(&heats, &mut field, seconds, Field::on_failure)?;
    let report = BenchReport { machine: MachineInfo::this(), rows };
    let verdicts = budget::of_engines(&report);
    Ok(Comparison::new(report, field).with_verdicts(verdicts))
}

/// So many clients of each service, on one name; and as many of tierlock on it.
fn both(field: &mut Field, case: Case, clients: u32) -> Result<Vec<Entrant>> {
    let (runtime, label) = (field.grounds.runtime()?, fleet_label(case, clients));
    let mut both = Both { runtime, label, entries: Vec::new() };
    services(&mut field.servers, &mut field.grounds, &mut both)?;
    Ok(both.entries)
}

struct Both {
    runtime: Arc<Runtime>,
    label: Label,
    entries: Vec<Entrant>,
}

impl ServiceVisitor for Both {
    fn visit<S: Service>(&mut self, service: &S) -> Result<()> {
        let Some(engine) = service.engine() else { return Ok(()) };
        let name = format!("theirs/{}", self.label.case.word);
        let count = Arc::<Unprotected>::default();
        let theirs = (0..self.label.clients)
            .map(|_| self.runtime.block_on(service.client(&name, count.clone())))
            .collect::<Result<Vec<_>>>()?;
        let (subject, note) = (service.subject(), Some(service.note()));
        self.enter(Label { subject, note, ..self.label.clone() }, theirs, count);

        let name = format!("ours/{}", self.label.case.word);
        let count = Arc::<Unprotected>::default();
        let ours = (0..self.label.clients)
            .map(|_| Through::new(&engine, &name, count.clone()))
            .collect::<Result<Vec<_>>>()?;
        let note = match engine.is_release_awaited {
            true => "through tierlock, release awaited",
            false => "through tierlock, release not awaited",
        };
        let (variant, note) = (Some(engine.variant), Some(note));
        self.enter(Label { variant, note, ..self.label.clone() }, ours, count);
        Ok(())
    }
}

impl Both {
    fn enter<C: AsyncCaller>(
        &mut self,
        label: Label,
        mut clients: Vec<C>,
        count: Arc<Unprotected>,
    ) {
        let runtime = self.runtime.clone();
        let entrant = match clients.len() {
            1 => Entrant::new(label, QuietAsync::new(runtime, clients.remove(0))),
            _ => Entrant::new(label, Fleet::new(runtime, clients, Some(count))),
        };
        self.entries.push(entrant);
    }
}

/// A client of a service, through tierlock.
struct Through {
    mutex: Mutex<()>,
    count: Arc<Unprotected>,
    awaits: bool,
}

impl Through {
    fn new(engine: &EngineUrl, name: &str, count: Arc<Unprotected>) -> Result<Through> {
        let mutex = on(&engine.url, name)?;
        Ok(Through { mutex, count, awaits: engine.is_release_awaited })
    }
}

fn on(url: &str, name: &str) -> Result<Mutex<()>> {
    let locks = LockManager::builder().service(url).open()?;
    Ok(locks.mutex(name, ()).scope(Scope::Host).build()?)
}

impl AsyncCaller for Through {
    async fn cycle(&mut self) -> Result<()> {
        let guard = self.mutex.lock_async().await?;
        self.count.increment();
        match self.awaits {
            true => Ok(MutexGuard::unlock_async(guard).await?),
            false => Ok(()),
        }
    }
}

/// A lease of etcd that no other client wants, and that stays on this machine.
fn kept(field: &mut Field) -> Result<Vec<Entrant>> {
    let Some(etcd) = servers::etcd(&mut field.servers, &mut field.grounds)? else {
        return Ok(Vec::new());
    };
    let mutex = on(&format!("{}?keep=1", etcd.url()), "kept/name")?;
    let label = Label {
        variant: Some("on etcd, kept"),
        note: Some("the prefix is watched; another client's key is the recall"),
        ..Label::new(Scope::Host, Case::KEPT)
    };
    let cycle = move || {
        drop(mutex.lock()?);
        Ok(())
    };
    Ok(vec![Entrant::new(label, Quiet(cycle))])
}
