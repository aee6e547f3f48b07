//! tierlock beside the locks and servers that one could use instead, in one run on one machine.
//!
//! `cargo run --release -p compare` measures what `tierlock bench` measures, with the same files
//! (`src/bench` of the library, compiled into this package: so tierlock is measured as its users
//! build it, through its public API), and others' locks in the same heats.
//!
//! | file | owns |
//! |---|---|
//! | `heats` `field` `lock` `job` | what is compared, what it stands on, what other processes do |
//! | `peers/` | locks of other makers; servers, which it starts itself |
//! | `comparison` `budget` | the result, and the promises it is held against |
//! | `plot` `page` | the picture, and the figures in `benches/RESULTS.md` |
//! | `scale` `names` `house` `measure` `memory` | what names, waiters and sessions cost by their number |
//! | `modes` | read-write locks and semaphores |
//! | `engines` | lock services of others, through tierlock and through their own clients |
//! | `remote` | what a lock costs by how often other clients want it |
//! | `reign` | a leader that is killed |
//! | `leaders` | leaders that follow each other: killed, handing over, idle; beside an etcd of three |
//! | `observing` `caller` | what metrics, log and spans cost |
//! | `programs` | what else cargo builds for a run |
//! | `instructions` | quiet cycles counted in instructions, by valgrind |
//! | `self_check` | the bench's own figures beside a plain loop's |

#[path = "../../../src/bench/mod.rs"]
mod bench;

mod budget;
mod comparison;
mod engines;
mod heats;
mod house;
mod instructions;
mod job;
mod leaders;
mod lock;
mod measure;
mod memory;
mod modes;
mod names;
mod observing;
mod page;
mod peers;
mod plot;
mod programs;
mod reign;
mod remote;
mod scale;
mod self_check;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use tierlock::Scope;

use crate::{
    bench::{
        cleanup,
        failure::Result,
        machine::MachineInfo,
        progress::Progress,
        report::{self, BenchReport},
        run, worker,
    },
    comparison::Comparison,
    heats::HEATS,
    job::Job,
    peers::field::Field,
};

const SECONDS_OF_SELF_CHECK: f64 = 5.0;
const SECONDS_OF_REMOTE_PLOT: f64 = 40.0;
const SECONDS_OF_MODES: f64 = 40.0;
const SECONDS_OF_OBSERVING: f64 = 390.0;
const SECONDS_OF_LEADERS: f64 = 75.0;

/// Measure tierlock beside the locks and servers that one could use instead
///
/// Starts its own Redis, etcd, ZooKeeper, PostgreSQL and MariaDB on loopback from what is installed,
/// says what is missing, and ends what it started.
#[derive(Debug, Parser)]
#[command(name = "compare", version, after_long_help = include_str!("guarantees.txt"))]
struct Args {
    /// Measure only this scope: thread, process or host
    #[arg(long)]
    scope: Option<Scope>,
    /// Measure only this case, by its word in the JSON
    #[arg(long, value_name = "CASE", conflicts_with_all = ["self_check", "scale"])]
    case: Option<String>,
    /// How long to measure in all [default: about 290]
    #[arg(long, value_name = "N", value_parser = run::seconds)]
    seconds: Option<f64>,
    /// Use at most so many MiB of memory, and leave out what takes more [default: what is free]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Also draw the figures
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Also put the figures into this text, between its lines `<!-- figures -->`
    #[arg(long, value_name = "FILE.md")]
    page: Option<PathBuf>,
    /// Instead draw what a lock between machines costs by how often others want it
    #[arg(
        long,
        value_name = "FILE.svg",
        conflicts_with_all = ["scope", "case", "plot", "page", "self_check", "scale"],
    )]
    remote_plot: Option<PathBuf>,
    /// Instead check the bench itself: its own figures beside a plain loop's
    #[arg(long, conflicts_with_all = ["plot", "page"])]
    self_check: bool,
    /// Instead measure read-write locks and semaphores at each scope, beside those of others
    #[arg(long, conflicts_with_all = ["scope", "case", "plot", "page", "self_check", "remote_plot"])]
    modes: bool,
    /// Instead measure what metrics, log and spans cost: builds the program and a client for that
    #[arg(long, conflicts_with_all = ["scope", "case", "plot", "page", "self_check", "remote_plot", "modes", "engines", "scale"])]
    observing: bool,
    /// Instead end the leader that reigns again and again: a single one, and three in a group, over an
    /// etcd and over a PostgreSQL, beside an etcd of three; also what each costs; takes four minutes
    #[arg(
        long,
        conflicts_with_all = ["scope", "case", "plot", "page", "self_check", "remote_plot", "modes", "observing", "engines", "scale"],
    )]
    leaders: bool,
    /// With --leaders: how often each leader is killed, and how often it hands over; 200 for figures that
    /// are to be believed at their 99th percentile
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000), requires = "leaders")]
    kills: u32,
    /// With --leaders: measure this tierlock [default: one that is built for it]
    #[arg(long, value_name = "FILE", requires = "leaders")]
    program: Option<PathBuf>,
    /// Instead measure lock services of others through tierlock, beside clients of their own; takes a
    /// build with --features engines
    #[arg(long, conflicts_with_all = ["scope", "plot", "page", "self_check", "remote_plot", "modes"])]
    engines: bool,
    /// Instead measure how memory, disk and the cost of a grant grow, up to 1,000,000 names and
    /// 2,000 sessions or as many names as are given: takes minutes, and some GB of memory
    #[arg(
        long,
        value_name = "NAMES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1000000",
        value_parser = clap::value_parser!(u64).range(10..=100_000_000),
        conflicts_with_all = ["plot", "page", "self_check", "seconds", "modes"],
    )]
    scale: Option<u64>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let (Some(worker::WORD), Some(spec)) = (arguments.next().as_deref(), arguments.next()) {
        return worker::main::<Job>(&spec).into();
    }
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("compare: {failure}");
            failure.exit_code().into()
        }
    }
}

fn compare(args: &Args) -> Result<()> {
    if let Some(file) = args.plot.as_ref().or(args.remote_plot.as_ref()) {
        // Before the minutes are spent, not after.
        plot::check_target(file)?;
    }
    if let Some(file) = &args.page {
        page::check(file)?;
    }
    cleanup::on_every_way_out()?;
    if args.self_check {
        let check = self_check::run(args.scope, args.seconds.unwrap_or(SECONDS_OF_SELF_CHECK))?;
        return report::print(&if args.json { report::json(&check) } else { check.text() });
    }
    if args.modes {
        let modes = modes::run(args.seconds.unwrap_or(SECONDS_OF_MODES))?;
        return report::print(&if args.json { report::json(&modes) } else { modes.text() });
    }
    if args.observing {
        let observing = observing::run(args.seconds.unwrap_or(SECONDS_OF_OBSERVING))?;
        let text = if args.json { report::json(&observing) } else { observing.text() };
        return report::print(&text);
    }
    if args.leaders {
        let seconds = args.seconds.unwrap_or(SECONDS_OF_LEADERS);
        let leaders = leaders::run(args.program.as_deref(), args.kills, seconds)?;
        return report::print(&if args.json { report::json(&leaders) } else { leaders.text() });
    }
    if let Some(names) = args.scale {
        let scale = scale::run(args.scope, names)?;
        return report::print(&if args.json { report::json(&scale) } else { scale.text() });
    }
    if let Some(file) = &args.remote_plot {
        let remote = remote::measure(args.seconds.unwrap_or(SECONDS_OF_REMOTE_PLOT))?;
        remote::draw(&remote.report, file)?;
        let text = if args.json { report::json(&remote) } else { remote::text(&remote) };
        return report::print(&text);
    }
    if args.engines {
        let comparison = engines::run(args.case.as_deref(), args.seconds)?;
        return report::print(&if args.json {
            report::json(&comparison)
        } else {
            comparison.text()
        });
    }
    let comparison = measure_all(args)?;
    if let Some(file) = &args.plot {
        plot::draw(&comparison.report, file)?;
    }
    if let Some(file) = &args.page {
        page::fill(&comparison, file)?;
    }
    report::print(&if args.json { report::json(&comparison) } else { comparison.text() })
}

fn measure_all(args: &Args) -> Result<Comparison> {
    let heats = run::chosen(HEATS, args.scope, args.case.as_deref())?;
    let seconds = args.seconds.unwrap_or_else(|| run::usual_seconds(&heats));
    let mut field = Field::new()?;
    if let Some(mib) = args.memory {
        field.memory_max = u64::from(mib) << 20;
    }
    let mut rows = run::measure(&heats, &mut field, seconds, Field::on_failure)?;
    instructions::count(&mut rows, &mut field)?;
    let measures = if args.case.is_none() {
        scale::in_short(args.scope, &mut field, seconds, &Progress::new(Duration::ZERO))?
    } else {
        Vec::new()
    };
    let report = BenchReport { machine: MachineInfo::this(), rows };
    Ok(Comparison::new(report, field).judged(measures))
}

#[cfg(test)]
mod tests;
