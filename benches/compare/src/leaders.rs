//! Leaders that follow each other, in one run: a single one on a state directory, three that are a group, three
//! over an etcd and over a PostgreSQL; and an etcd of three with its own lock.
//!
//! One after the other is killed, hands over, and is left idle; only the single leader stands beside it all the
//! time, idle too, so that a quiet lock is compared with its in the same seconds.
//!
//! | file | owns |
//! |---|---|
//! | `ours` | leaders of ours: processes of the program |
//! | `under_load` | the clients, and the one that reigns ended again and again |
//! | `shown` | the tables, and the promises that they are held against |

pub(crate) mod ours;
mod shown;
mod under_load;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde::Serialize;

use crate::{
    bench::{
        failure::{BenchFailure, Result},
        machine::MachineInfo,
        progress::Progress,
        run::{Contender, Quiet},
        stats::{Pace, RowTally, median},
    },
    budget::Verdict,
    house,
    peers::{
        etcd::Etcd,
        etcd_members::EtcdMembers,
        field::Field,
        followed::{Followed, ReignClient},
        postgres::Postgres,
        server,
        service::{Missing, Service},
    },
    programs,
};
use ours::{JournalPlace, OurLeaders};
use under_load::{Endings, Holders, Spread, end_again_and_again};

/// What was found out.
#[derive(Serialize)]
pub(crate) struct LeadersReport {
    machine: MachineInfo,
    rows: Vec<LeadersRow>,
    budgets: Vec<Verdict>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Subject {
    Single,
    Group,
    OverEtcd,
    OverPostgres,
    /// Not ours.
    Etcd,
}

const SUBJECTS: [Subject; 5] =
    [Subject::Single, Subject::Group, Subject::OverEtcd, Subject::OverPostgres, Subject::Etcd];

#[derive(Debug, Serialize)]
struct LeadersRow {
    subject: Subject,
    #[serde(flatten)]
    figures: Option<LeadersFigures>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct LeadersFigures {
    /// L.
    reign_lasts_ms: Option<u64>,
    /// A quiet lock and unlock.
    quiet_p50_ns: f64,
    quiet_p99_ns: f64,
    /// Over the single leader's of the same round.
    quiet_ratio: f64,
    /// From a SIGKILL of the one that reigns to the first new grant.
    killed: Spread,
    /// From there to the word of another leader that it reigns: the rest is the clients' way to it.
    followed: Spread,
    /// The longest pause between new grants while a reign was handed over.
    handed_over: Spread,
    held_locks_lost: u64,
    /// The journal's answers to proofs of the reign.
    journal: Option<Spread>,
    /// Of one processor, with no client.
    idle_percent: IdleCost,
    /// The same while clients hold locks.
    idle_with_holders_percent: IdleCost,
}

/// What the one that reigns costs, and the dearest of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct IdleCost {
    reigning: f64,
    standby: Option<f64>,
}

/// Slices of quiet locks, each beside one of the single leader's.
const ROUNDS: u32 = 11;
/// Proofs that are looked at.
const PROOFS: u32 = 20;

/// Ends each leader so often, and takes so many seconds for the rest.
pub(crate) fn run(program: Option<&Path>, kills: u32, seconds: f64) -> Result<LeadersReport> {
    let mut field = Field::new()?;
    let progress = Progress::new(Duration::ZERO);
    let program = match program {
        Some(program) => program.to_owned(),
        None => {
            progress.says("building the program");
            built(&mut field)?
        }
    };
    let each = Duration::from_secs_f64(seconds / SUBJECTS.len() as f64);
    let single = JournalPlace::Alone(field.new_directory("single-leader")?);
    let mut single = OurLeaders::start(&program, &field.grounds.secret_file()?, single)?;
    let mut measured = Measured { kills, each, progress, yardstick: None };
    let mut rows = vec![measured.row(Subject::Single, &mut single)?];
    measured.yardstick = Some(single.client()?);
    for subject in &SUBJECTS[1..] {
        let row = match stand(*subject, &mut field, &program)? {
            Ok(mut standing) => measured.row(*subject, &mut *standing.leaders),
            Err(missing) => {
                Ok(LeadersRow { subject: *subject, figures: None, missing: Some(missing) })
            }
        };
        rows.push(match row {
            // What is only compared with ends no run.
            Err(failure) if *subject == Subject::Etcd => {
                let why = Some(format!("failed: {failure}"));
                let missing = Missing { why, ..Missing::new("etcd", "") };
                LeadersRow { subject: *subject, figures: None, missing: Some(missing) }
            }
            row => row?,
        });
    }
    let budgets = shown::verdicts(&rows);
    Ok(LeadersReport { machine: MachineInfo::this(), rows, budgets })
}

/// A copy of the program that the next build does not replace.
fn built(field: &mut Field) -> Result<PathBuf> {
    let directory = programs::directory()?;
    if server::find("protoc").is_none() {
        let how = "etcd's client is built with `protoc`: apt-get install protobuf-compiler";
        return Err(BenchFailure::other(how));
    }
    programs::build(&directory, &programs::TIERLOCK_WITH_STORES)?;
    let program = field.new_directory("program")?.join("tierlock");
    std::fs::copy(directory.join("tierlock"), &program)
        .map_err(BenchFailure::io("cannot copy tierlock"))?;
    Ok(program)
}

/// Leaders, and the store that they need. Fields are dropped in order.
struct Standing {
    leaders: Box<dyn Followed>,
    _store: Option<Box<dyn std::any::Any>>,
}

fn stand(subject: Subject, field: &mut Field, program: &Path) -> Result<Result<Standing, Missing>> {
    let runtime = field.grounds.runtime()?;
    let secret_file = field.grounds.secret_file()?;
    let directory = field.new_directory("leaders")?;
    let ours = |place| -> Result<Box<dyn Followed>> {
        Ok(Box::new(OurLeaders::start(program, &secret_file, place)?))
    };
    let over = |url, store| -> Result<Result<Standing, Missing>> {
        Ok(Ok(Standing { leaders: ours(JournalPlace::Store(url))?, _store: Some(store) }))
    };
    match subject {
        Subject::Single => {
            let leaders = ours(JournalPlace::Alone(directory))?;
            Ok(Ok(Standing { leaders, _store: None }))
        }
        Subject::Group => {
            let leaders = ours(JournalPlace::Group(directory))?;
            Ok(Ok(Standing { leaders, _store: None }))
        }
        Subject::OverEtcd => match Etcd::start(&directory, &runtime) {
            Ok(etcd) => over(etcd.url(), Box::new(etcd)),
            Err(missing) => Ok(Err(missing)),
        },
        Subject::OverPostgres => match Postgres::start(&runtime) {
            Ok(postgres) => {
                let url = postgres.engine().expect("it is one").url;
                over(url, Box::new(postgres))
            }
            Err(missing) => Ok(Err(missing)),
        },
        Subject::Etcd => Ok(EtcdMembers::start(&directory, &runtime)
            .map(|etcd| Standing { leaders: Box::new(etcd), _store: None })),
    }
}

struct Measured {
    kills: u32,
    /// For what is not staged, per subject.
    each: Duration,
    progress: Progress,
    /// A client of the single leader, once that has been measured itself.
    yardstick: Option<Box<dyn ReignClient>>,
}

impl Measured {
    fn row(&mut self, subject: Subject, leaders: &mut dyn Followed) -> Result<LeadersRow> {
        let mut figures = LeadersFigures::default();
        let says = |progress: &Progress, what: &str| {
            progress.says(&format!("{}: {what}", subject.title()));
        };
        says(&self.progress, "idle");
        figures.idle_percent = self.idle_cost(leaders)?;
        says(&self.progress, "quiet");
        self.quiet(leaders, &mut figures)?;
        says(&self.progress, "taking locks");
        let holders = Holders::start(leaders)?;
        says(&self.progress, "idle, while clients hold");
        figures.idle_with_holders_percent = self.idle_cost(leaders)?;
        let proof = leaders.proof()?;
        figures.reign_lasts_ms = proof.lasts.map(|lasts| lasts.as_millis() as u64);
        if let (Some(lasts), Some(_)) = (proof.lasts, proof.took) {
            says(&self.progress, "its journal");
            figures.journal = Some(journal(leaders, lasts)?);
        }
        let progress = &self.progress;
        let ended = end_again_and_again(leaders, holders, self.kills, |what| says(progress, what))?;
        let Endings { killed, followed, pauses, locks_lost } = ended;
        (figures.killed, figures.followed, figures.handed_over) = (killed, followed, pauses);
        figures.held_locks_lost = locks_lost;
        Ok(LeadersRow { subject, figures: Some(figures), missing: None })
    }

    /// A quiet lock, beside the single leader's in turn.
    fn quiet(&mut self, leaders: &mut dyn Followed, figures: &mut LeadersFigures) -> Result<()> {
        let mut client = leaders.client()?;
        let slice = self.each / (4 * ROUNDS);
        quiet_p50(&mut *client, slice)?;
        let mut all = RowTally::new(Pace::OneByOne);
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let (mut own, mut single) = (None, None);
            // Each is the first of as many rounds as the other.
            for at in 0..2 {
                if (round + at) % 2 == 0 {
                    let (p50, tally) = quiet_p50(&mut *client, slice)?;
                    all.add(tally);
                    own = Some(p50);
                } else if let Some(yardstick) = &mut self.yardstick {
                    single = Some(quiet_p50(&mut **yardstick, slice)?.0);
                }
            }
            ratios.push(own.zip(single).map_or(1.0, |(own, single)| own / single));
        }
        let summary = all.summary();
        (figures.quiet_p50_ns, figures.quiet_p99_ns) = (summary.p50_ns, summary.p99_ns);
        figures.quiet_ratio = median(&ratios);
        Ok(())
    }

    fn idle_cost(&self, leaders: &mut dyn Followed) -> Result<IdleCost> {
        let reigning = leaders.reigning()?.number;
        let percents = processor_percents(&leaders.pids(), self.each / 4)?;
        let others = percents.iter().enumerate().filter(|(number, _)| *number != reigning);
        Ok(IdleCost {
            reigning: percents.get(reigning).copied().unwrap_or_default(),
            standby: others.map(|(_, percent)| *percent).max_by(f64::total_cmp),
        })
    }
}

fn quiet_p50(client: &mut dyn ReignClient, slice: Duration) -> Result<(f64, RowTally)> {
    let mut tally = RowTally::new(Pace::OneByOne);
    Quiet(|| client.quiet()).run(slice, &mut tally)?;
    Ok((tally.summary().p50_ns, tally))
}

/// What part of a processor each takes meanwhile.
fn processor_percents(pids: &[Pid], meanwhile: Duration) -> Result<Vec<f64>> {
    let spent = || pids.iter().map(|pid| house::processor_ns(*pid)).collect::<Result<Vec<_>>>();
    let (before, begun) = (spent()?, Instant::now());
    // It is what is measured, and nothing is waited for.
    thread::sleep(meanwhile);
    let took_ns = begun.elapsed().as_nanos() as f64;
    let used = spent()?.into_iter().zip(before);
    Ok(used.map(|(after, before)| (after - before) as f64 / took_ns * 100.0).collect())
}

/// How long its journal takes to answer, looked at as often as a reign is proven.
fn journal(leaders: &mut dyn Followed, lasts: Duration) -> Result<Spread> {
    let mut took = Vec::new();
    for _ in 0..PROOFS {
        thread::sleep(lasts / 6);
        took.extend(leaders.proof()?.took);
    }
    Ok(Spread::of(took))
}
