//! The bench: what each scope costs on this machine, beside what else one could use.
//!
//! A run is a list of heats (`run::Heat`): one case in one scope, with its contenders. tierlock is
//! a contender in every heat; with `--peers` others join it, and slices of all are measured in
//! turn. A new case is a line in `HEATS` and a function that makes its contenders; a new subject
//! is one more contender in the functions of `peers`.
//!
//! It measures on loopback, on one machine, with the leader in this process: a network between
//! machines adds its round trip to host scope, and nothing else changes.

mod budget;
mod case;
mod cleanup;
mod crowd;
mod failure;
mod grounds;
mod host;
mod human;
mod machine;
mod names;
mod page;
#[cfg(feature = "peers")]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "without_peers.rs"]
mod peers;
mod plot;
mod process;
mod progress;
mod reign;
mod remote;
mod report;
mod run;
mod scale;
mod self_check;
mod stats;
mod table;
mod tasks;
mod thread;
pub mod worker;

use std::{path::PathBuf, time::Duration};

use self::{
    case::{Case, USUAL_RESIDENT_MIB},
    failure::{Failure, Result},
    grounds::Grounds,
    machine::Machine,
    progress::Progress,
    report::Report,
    run::Heat,
};
use crate::Scope;

/// Everything that can be measured, in the table's order. Of a case that comes in several sizes the
/// first is the one that budgets are about.
const HEATS: &[Heat] = &[
    Heat {
        scope: Scope::Thread,
        case: Case::Quiet,
        weight: 1.0,
        weight_of_peers: 4.0,
        enter: thread::quiet,
    },
    Heat {
        scope: Scope::Thread,
        case: Case::Threads,
        weight: 1.0,
        weight_of_peers: 2.0,
        enter: thread::threads,
    },
    Heat {
        scope: Scope::Thread,
        case: Case::Threads200us,
        weight: 1.0,
        weight_of_peers: 8.0,
        enter: thread::threads_200us,
    },
    Heat {
        scope: Scope::Process,
        case: Case::Quiet,
        weight: 1.0,
        weight_of_peers: 6.0,
        enter: process::quiet,
    },
    Heat {
        scope: Scope::Process,
        case: Case::ProcessesEmpty,
        weight: 1.0,
        weight_of_peers: 6.0,
        enter: |grounds| process::processes_empty(grounds, 2),
    },
    Heat {
        scope: Scope::Process,
        case: Case::ProcessesEmpty,
        weight: 0.0,
        weight_of_peers: 5.0,
        enter: |grounds| process::processes_empty(grounds, 4),
    },
    Heat {
        scope: Scope::Process,
        case: Case::ProcessesEmpty,
        weight: 0.0,
        weight_of_peers: 5.0,
        enter: |grounds| process::processes_empty(grounds, 8),
    },
    Heat {
        scope: Scope::Process,
        case: Case::Processes200us,
        weight: 1.0,
        weight_of_peers: 20.0,
        enter: |grounds| process::processes_200us(grounds, 2),
    },
    Heat {
        scope: Scope::Process,
        case: Case::Processes200us,
        weight: 0.0,
        weight_of_peers: 14.0,
        enter: |grounds| process::processes_200us(grounds, 4),
    },
    Heat {
        scope: Scope::Process,
        case: Case::Processes200us,
        weight: 0.0,
        weight_of_peers: 14.0,
        enter: |grounds| process::processes_200us(grounds, 8),
    },
    Heat {
        scope: Scope::Process,
        case: Case::Handover,
        weight: 1.0,
        weight_of_peers: 6.0,
        enter: process::handover,
    },
    Heat {
        scope: Scope::Process,
        case: Case::HolderKilled,
        weight: 1.5,
        weight_of_peers: 9.0,
        enter: |grounds| process::holder_killed(grounds, USUAL_RESIDENT_MIB),
    },
    Heat {
        scope: Scope::Process,
        case: Case::HolderKilled,
        weight: 0.0,
        weight_of_peers: 6.0,
        enter: |grounds| process::holder_killed(grounds, 0),
    },
    Heat {
        scope: Scope::Process,
        case: Case::HolderKilled,
        weight: 0.0,
        weight_of_peers: 12.0,
        enter: |grounds| process::holder_killed(grounds, 256),
    },
    Heat {
        scope: Scope::Process,
        case: Case::HolderKilled,
        weight: 0.0,
        weight_of_peers: 24.0,
        enter: |grounds| process::holder_killed(grounds, 1_024),
    },
    Heat {
        scope: Scope::Process,
        case: Case::Names,
        weight: 1.0,
        weight_of_peers: 0.0,
        enter: process::names,
    },
    Heat {
        scope: Scope::Host,
        case: Case::Quiet,
        weight: 4.0,
        weight_of_peers: 12.0,
        enter: host::quiet,
    },
    Heat {
        scope: Scope::Host,
        case: Case::Connections32,
        weight: 1.0,
        weight_of_peers: 8.0,
        enter: host::connections_32,
    },
    Heat {
        scope: Scope::Host,
        case: Case::Tasks256,
        weight: 1.0,
        weight_of_peers: 6.0,
        enter: host::tasks_256,
    },
    Heat {
        scope: Scope::Host,
        case: Case::OneName8,
        weight: 1.0,
        weight_of_peers: 20.0,
        enter: host::one_name_8,
    },
    Heat {
        scope: Scope::Host,
        case: Case::OneName64,
        weight: 1.0,
        weight_of_peers: 1.0,
        enter: host::one_name_64,
    },
    Heat {
        scope: Scope::Host,
        case: Case::Kept,
        weight: 1.0,
        weight_of_peers: 0.0,
        enter: host::kept,
    },
    Heat {
        scope: Scope::Host,
        case: Case::Turns2,
        weight: 2.0,
        weight_of_peers: 0.0,
        enter: host::turns_2,
    },
    Heat {
        scope: Scope::Host,
        case: Case::Remote1pct,
        weight: 1.0,
        weight_of_peers: 1.0,
        enter: host::remote_1pct,
    },
    Heat {
        scope: Scope::Host,
        case: Case::LeaderKilled,
        weight: 0.0,
        weight_of_peers: 4.0,
        enter: reign::leader_killed,
    },
];

const SECONDS_OF_SELF_CHECK: f64 = 5.0;
const SECONDS_OF_REMOTE_PLOT: f64 = 40.0;

/// Without `--seconds`, this long per unit of weight.
const SECONDS_PER_WEIGHT: f64 = 1.3;

/// The options of `tierlock bench`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = include_str!("guarantees.txt"))]
pub(crate) struct Args {
    /// Measure only this scope: thread, process or host
    #[arg(long)]
    scope: Option<Scope>,
    /// Measure only this case, by its word in the JSON
    #[arg(long, value_name = "CASE", hide = true, conflicts_with_all = ["self_check", "scale"])]
    case: Option<String>,
    /// How long to measure in all [default: about 25; about 280 with --peers]
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<f64>,
    /// Compare with other locks, in the same run (needs a build with the feature `peers`)
    #[arg(long)]
    peers: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Also draw the figures
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Also put the figures into this text, between its lines `<!-- figures -->`
    #[arg(long, value_name = "FILE.md", hide = true)]
    readme: Option<PathBuf>,
    /// Instead draw what a lock between machines costs by how often others want it
    #[arg(
        long,
        value_name = "FILE.svg",
        conflicts_with_all = ["scope", "case", "plot", "readme", "self_check", "scale"],
    )]
    remote_plot: Option<PathBuf>,
    /// Check the bench itself: its own figures beside a plain loop's
    #[arg(long, conflicts_with_all = ["peers", "plot", "readme"])]
    self_check: bool,
    /// Measure how memory, disk and the cost of a grant grow, up to 1,000,000 names and 2,000
    /// sessions or as many names as are given: takes minutes, and some GB of memory
    #[arg(
        long,
        value_name = "NAMES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1000000",
        value_parser = clap::value_parser!(u64).range(10..=100_000_000),
        conflicts_with_all = ["peers", "plot", "readme", "self_check", "seconds"],
    )]
    scale: Option<u64>,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("a number of seconds above 0, at most 86400".into()),
    }
}

/// Runs `tierlock bench` and returns its exit status.
pub(crate) fn main(args: Args) -> u8 {
    match bench(&args) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("tierlock: {failure}");
            failure.exit_code()
        }
    }
}

fn bench(args: &Args) -> Result<()> {
    if args.peers && !cfg!(feature = "peers") {
        return Err(Failure::Usage(
            "this build has nothing to compare with; `cargo install tierlock --features peers` \
             has, or in the source tree `cargo run --release --features peers -- bench --peers`"
                .into(),
        ));
    }
    if let Some(file) = args.plot.as_ref().or(args.remote_plot.as_ref()) {
        // Before the minute is spent, not after.
        plot::check_target(file)?;
    }
    cleanup::on_every_way_out()?;
    if args.self_check {
        let check = self_check::run(args.scope, args.seconds.unwrap_or(SECONDS_OF_SELF_CHECK))?;
        return print(&if args.json { check.json() + "\n" } else { check.text() });
    }
    if let Some(names) = args.scale {
        let scale = scale::run(args.scope, names)?;
        return print(&if args.json { scale.json() + "\n" } else { scale.text() });
    }
    if let Some(file) = &args.remote_plot {
        let report = remote::measure(args.peers, args.seconds.unwrap_or(SECONDS_OF_REMOTE_PLOT))?;
        remote::draw(&report, file)?;
        return print(&if args.json { report.json() + "\n" } else { remote::text(&report) });
    }
    let report = measure(args)?;
    if let Some(file) = &args.plot {
        plot::draw(&report, file)?;
    }
    if let Some(file) = &args.readme {
        page::fill(&report, file)?;
    }
    let text = if args.json { report.json() + "\n" } else { table::text(&report) };
    print(&text)
}

fn measure(args: &Args) -> Result<Report> {
    let heats: Vec<&Heat> = HEATS
        .iter()
        .filter(|heat| args.scope.is_none_or(|scope| heat.scope == scope))
        .filter(|heat| args.case.as_ref().is_none_or(|case| heat.case.as_str() == case))
        .filter(|heat| heat.weight(args.peers) > 0.0)
        .collect();
    if heats.is_empty() {
        return Err(Failure::Usage("no such case here; the table's JSON has the words".into()));
    }
    let weights: f64 = heats.iter().map(|heat| heat.weight(args.peers)).sum();
    let seconds = args.seconds.unwrap_or(weights * SECONDS_PER_WEIGHT);
    let progress = Progress::new(Duration::from_secs_f64(seconds));
    let mut grounds = Grounds::new(args.peers)?;
    let mut report = Report {
        machine: Machine::this(),
        rows: Vec::new(),
        measures: Vec::new(),
        budgets: Vec::new(),
        missing: Vec::new(),
        left_out: Vec::new(),
    };
    for heat in heats {
        let budget = Duration::from_secs_f64(seconds * heat.weight(args.peers) / weights);
        report.rows.extend(heat.run(&mut grounds, budget, &progress)?);
    }
    report.missing = grounds.missing();
    if args.peers && args.case.is_none() {
        report.measures = scale::in_short(args.scope, &mut grounds, seconds, &progress)?;
    }
    report.left_out = std::mem::take(&mut grounds.left_out);
    if args.peers {
        report.budgets = budget::verdicts(&report);
    }
    Ok(report)
}

fn print(text: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Failure::io("cannot print the result")),
    }
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
    fn options_are_those_of_the_design() {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            args: Args,
        }
        let line = "bench --scope process --seconds 2 --peers --json --plot out.svg";
        let Program { args } = Program::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(args.scope, Some(Scope::Process));
        assert_eq!(args.seconds, Some(2.0));
        assert!(args.peers && args.json);
        assert_eq!(args.plot, Some("out.svg".into()));
        assert!(Program::try_parse_from(["bench", "--scope", "galaxy"]).is_err());
    }

    #[test]
    fn default_run_takes_half_a_minute_and_with_peers_a_few() {
        for peers in [false, true] {
            let weights: f64 = HEATS.iter().map(|heat| heat.weight(peers)).sum();
            let minutes = if peers { 5.0 } else { 0.5 };
            assert!(weights * SECONDS_PER_WEIGHT < 60.0 * minutes, "{weights}");
        }
    }

    #[cfg(not(feature = "peers"))]
    #[test]
    fn peers_without_the_feature_is_a_usage_error() {
        let args = Args {
            scope: None,
            case: None,
            seconds: None,
            peers: true,
            json: false,
            plot: None,
            readme: None,
            remote_plot: None,
            self_check: false,
            scale: None,
        };
        let failure = bench(&args).unwrap_err();
        assert_eq!(failure.exit_code(), 64);
        assert!(failure.to_string().contains("--features peers"), "{failure}");
    }
}
