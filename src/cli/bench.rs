//! `tierlock bench`: what each scope costs on this machine.

use std::time::Duration;

use crate::{
    Scope,
    bench::{
        case::{Case, USUAL_RESIDENT_MIB},
        cleanup,
        failure::{BenchFailure, Result},
        grounds::Grounds,
        host,
        jobs::{LockJob, OwnLock},
        machine::MachineInfo,
        process,
        report::{self, BenchReport},
        run::{self, Heat},
        table, thread, worker,
    },
};

/// Everything that can be measured, in the table's order.
const HEATS: &[Heat<Grounds>] = &[
    Heat::new(Scope::Thread, Case::QUIET, 1.0, |_| Ok(vec![thread::quiet()])),
    Heat::new(Scope::Thread, Case::THREADS, 1.0, |_| {
        Ok(vec![thread::contended(Case::THREADS, Duration::ZERO)])
    }),
    Heat::new(Scope::Thread, Case::THREADS_200US, 1.0, |_| {
        Ok(vec![thread::contended(Case::THREADS_200US, HELD)])
    }),
    Heat::new(Scope::Process, Case::QUIET, 1.0, |grounds| {
        process::quiet(vec![process::own(grounds, Case::QUIET)?])
    }),
    Heat::new(Scope::Process, Case::PROCESSES_EMPTY, 1.0, |grounds| {
        two_processes(grounds, Case::PROCESSES_EMPTY, Duration::ZERO)
    }),
    Heat::new(Scope::Process, Case::PROCESSES_200US, 1.0, |grounds| {
        two_processes(grounds, Case::PROCESSES_200US, HELD)
    }),
    Heat::new(Scope::Process, Case::HANDOVER, 1.0, |grounds| {
        process::handover(vec![process::own(grounds, Case::HANDOVER)?])
    }),
    Heat::new(Scope::Process, Case::HOLDER_KILLED, 1.5, |grounds| {
        let own = process::own(grounds, Case::HOLDER_KILLED)?;
        process::holder_killed(vec![own], USUAL_RESIDENT_MIB)
    }),
    Heat::new(Scope::Process, Case::NAMES, 1.0, |grounds| process::names(grounds)),
    Heat::new(Scope::Host, Case::QUIET, 4.0, host::quiet),
    Heat::new(Scope::Host, Case::CONNECTIONS_32, 1.0, host::connections_32),
    Heat::new(Scope::Host, Case::TASKS_256, 1.0, host::tasks_256),
    Heat::new(Scope::Host, Case::ONE_NAME_8, 1.0, host::one_name_8),
    Heat::new(Scope::Host, Case::KEPT, 1.0, host::kept),
    Heat::new(Scope::Host, Case::REMOTE_1PCT, 1.0, host::remote_1pct),
];

const HELD: Duration = Duration::from_micros(200);

fn two_processes(grounds: &mut Grounds, case: Case, hold: Duration) -> Result<Vec<run::Entrant>> {
    process::contending(vec![process::own(grounds, case)?], grounds, case, 2, hold)
}

/// The options of `tierlock bench`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Measure only this scope: thread, process or host
    #[arg(long)]
    scope: Option<Scope>,
    /// Measure only this case, by its word in the JSON
    #[arg(long, value_name = "CASE", hide = true)]
    case: Option<String>,
    /// How long to measure in all [default: about 25]
    #[arg(long, value_name = "N", value_parser = run::seconds)]
    seconds: Option<f64>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Says how other locks are compared
    #[arg(long, hide = true)]
    peers: bool,
}

const PEERS: &str = "this program measures its own locks only; other locks are compared with them in \
     the source tree: `cargo run --release -p compare`";

/// Runs `tierlock bench` and returns its exit status.
pub(super) fn main(args: &Args) -> u8 {
    match bench(args) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("tierlock: {failure}");
            failure.exit_code()
        }
    }
}

/// The child processes' side; returns the exit status.
pub(super) fn worker(spec: &str) -> u8 {
    worker::main::<LockJob<OwnLock>>(spec)
}

fn bench(args: &Args) -> Result<()> {
    if args.peers {
        return Err(BenchFailure::Usage(PEERS.into()));
    }
    let heats = run::chosen(HEATS, args.scope, args.case.as_deref())?;
    cleanup::on_every_way_out()?;
    let mut grounds = Grounds::new()?;
    let seconds = args.seconds.unwrap_or_else(|| run::usual_seconds(&heats));
    let rows = run::measure(&heats, &mut grounds, seconds, |_, _, failure| Err(failure))?;
    let report = BenchReport { machine: MachineInfo::this(), rows };
    report::print(&if args.json { report::json(&report) } else { text(&report) })
}

fn text(report: &BenchReport) -> String {
    report.machine.heading()
        + &table::rows(report)
        + &table::ladder(report)
        + &table::advice(report)
}

#[cfg(test)]
mod tests;
