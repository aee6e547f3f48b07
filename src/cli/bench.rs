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
    Heat {
        scope: Scope::Thread,
        case: Case::QUIET,
        weight: 1.0,
        enter: |_| Ok(vec![thread::quiet()]),
    },
    Heat {
        scope: Scope::Thread,
        case: Case::THREADS,
        weight: 1.0,
        enter: |_| Ok(vec![thread::contended(Case::THREADS, Duration::ZERO)]),
    },
    Heat {
        scope: Scope::Thread,
        case: Case::THREADS_200US,
        weight: 1.0,
        enter: |_| Ok(vec![thread::contended(Case::THREADS_200US, Duration::from_micros(200))]),
    },
    Heat {
        scope: Scope::Process,
        case: Case::QUIET,
        weight: 1.0,
        enter: |grounds| process::quiet(vec![process::own(grounds, Case::QUIET)?]),
    },
    Heat {
        scope: Scope::Process,
        case: Case::PROCESSES_EMPTY,
        weight: 1.0,
        enter: |grounds| two_processes(grounds, Case::PROCESSES_EMPTY, Duration::ZERO),
    },
    Heat {
        scope: Scope::Process,
        case: Case::PROCESSES_200US,
        weight: 1.0,
        enter: |grounds| two_processes(grounds, Case::PROCESSES_200US, Duration::from_micros(200)),
    },
    Heat {
        scope: Scope::Process,
        case: Case::HANDOVER,
        weight: 1.0,
        enter: |grounds| process::handover(vec![process::own(grounds, Case::HANDOVER)?]),
    },
    Heat {
        scope: Scope::Process,
        case: Case::HOLDER_KILLED,
        weight: 1.5,
        enter: |grounds| {
            let own = process::own(grounds, Case::HOLDER_KILLED)?;
            process::holder_killed(vec![own], USUAL_RESIDENT_MIB)
        },
    },
    Heat {
        scope: Scope::Process,
        case: Case::NAMES,
        weight: 1.0,
        enter: |grounds| process::names(grounds),
    },
    Heat { scope: Scope::Host, case: Case::QUIET, weight: 4.0, enter: host::quiet },
    Heat {
        scope: Scope::Host,
        case: Case::CONNECTIONS_32,
        weight: 1.0,
        enter: host::connections_32,
    },
    Heat { scope: Scope::Host, case: Case::TASKS_256, weight: 1.0, enter: host::tasks_256 },
    Heat { scope: Scope::Host, case: Case::ONE_NAME_8, weight: 1.0, enter: host::one_name_8 },
    Heat { scope: Scope::Host, case: Case::KEPT, weight: 1.0, enter: host::kept },
    Heat { scope: Scope::Host, case: Case::REMOTE_1PCT, weight: 1.0, enter: host::remote_1pct },
];

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
    #[arg(long, value_name = "N", value_parser = seconds)]
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

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("a number of seconds above 0, at most 86400".into()),
    }
}

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
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "ten", ""] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn default_run_takes_half_a_minute() {
        let all: Vec<_> = HEATS.iter().collect();
        assert!(run::usual_seconds(&all) < 30.0);
    }
}
