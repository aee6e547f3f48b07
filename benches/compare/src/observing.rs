//! What it costs to observe: a leader with metrics, log and scrapes beside one without, and clients with the
//! library's spans beside one that is built without them.
//!
//! Each subject is a pair of a leader and a client of its own. All pairs run at the same time, and one of them
//! works at a time, in turn: so what else the machine does meets all alike. A process is faster or slower for as
//! long as it lives, by where its memory and its threads came to be: so all pairs are started anew, several times,
//! and of the starts the middle one counts. There are two plain pairs. The others are compared with the mean of
//! these, and the two with one another: how far they seem to differ is noise, and so is what is as little.
//!
//! What is off costs nothing by construction: without `--http` a leader has no counters to add to, and without
//! the feature `tracing` the library has no code for spans.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde::Serialize;
use tierlock::Scope;

use crate::{
    bench::{
        cleanup::OwnChild,
        failure::{BenchFailure, Result},
        human,
        machine::MachineInfo,
        progress::Progress,
        stats::median,
    },
    budget::{Target, Unit, Verdict},
    comparison,
    peers::field::Field,
    programs,
};

#[derive(Serialize)]
pub(crate) struct Observing {
    machine: MachineInfo,
    rows: Vec<ObservedRow>,
    /// How far rates of equal pairs seem to be apart, in the order of [`CALLERS`].
    noise: [f64; CALLERS.len()],
    budgets: Vec<Verdict>,
}

#[derive(Serialize)]
struct ObservedRow {
    /// Which callers: `connections` or `tasks`.
    callers: &'static str,
    subject: &'static str,
    ops_per_s: f64,
    /// Over the plain ones' of the same round.
    rate: f64,
    /// Half of the starts are from here to there.
    quartiles: [f64; 2],
    /// The processor time of client and leader for each, over the plain ones'.
    processor: f64,
}

/// The kinds of callers, as `caller` has them.
const CALLERS: [&str; 2] = ["connections", "tasks"];

/// What a leader and its client have, and what that is called.
struct Subject {
    text: &'static str,
    is_leader_observed: bool,
    spans: Spans,
    /// Its budgets, in the order of [`CALLERS`].
    budgets: Option<[&'static str; 2]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spans {
    NotBuilt,
    Unwanted,
    Wanted,
}

const fn plain(text: &'static str) -> Subject {
    Subject { text, is_leader_observed: false, spans: Spans::NotBuilt, budgets: None }
}

/// What is compared: two plain ones first.
const SUBJECTS: [Subject; 5] = [
    plain("nothing observed"),
    plain("nothing observed, again"),
    Subject {
        is_leader_observed: true,
        budgets: Some(["leader observed, connections", "leader observed, tasks"]),
        ..plain("leader: metrics, log")
    },
    Subject {
        spans: Spans::Unwanted,
        budgets: Some(["spans unwanted, connections", "spans unwanted, tasks"]),
        ..plain("client: spans, unwanted")
    },
    Subject {
        spans: Spans::Wanted,
        budgets: Some(["spans wanted, connections", "spans wanted, tasks"]),
        ..plain("client: spans, wanted")
    },
];
const STARTS: usize = 12;
/// Of each start.
const ROUNDS: usize = 3;
/// What observing has to leave of the rate.
const LEAST: f64 = 0.97;
/// Fifteen times as often as Prometheus does by default.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(250);

/// Measures all of it, in so many seconds and the time to build and to start what is observed.
pub(crate) fn run(seconds: f64) -> Result<Observing> {
    let mut field = Field::new()?;
    let progress = Progress::new(Duration::ZERO);
    progress.says("building the program, and a client with and without spans");
    let programs = Programs::build(&mut field)?;
    let slice = seconds / (CALLERS.len() * SUBJECTS.len() * STARTS * ROUNDS) as f64;
    let slice = Duration::from_secs_f64(slice);
    let (mut rows, mut budgets, mut noise) = (Vec::new(), Vec::new(), [0.0; CALLERS.len()]);
    for (kind, callers) in CALLERS.into_iter().enumerate() {
        let mut tallies = SUBJECTS.map(|_| Tally::default());
        for start in 0..STARTS {
            progress.says(&format!("{callers}: start {start}"));
            let of_start = OneStart::run(&mut field, &programs, callers, start, slice)?;
            for (tally, rounds) in tallies.iter_mut().zip(of_start.rates()) {
                tally.rates.push(median(&rounds));
            }
            for (tally, slices) in tallies.iter_mut().zip(of_start.slices) {
                tally.slices.extend(slices);
            }
        }
        noise[kind] = tallies[1].noise();
        let both_plain = (tallies[0].processor() + tallies[1].processor()) / 2.0;
        for (subject, tally) in SUBJECTS.into_iter().zip(&tallies) {
            let row = ObservedRow {
                callers,
                subject: subject.text,
                ops_per_s: median(&tally.slices.iter().map(Slice::ops_per_s).collect::<Vec<_>>()),
                rate: median(&tally.rates),
                quartiles: quartiles(&tally.rates),
                processor: tally.processor() / both_plain,
            };
            let verdict = |of_callers: [_; 2]| row.verdict(of_callers[kind], noise[kind]);
            budgets.extend(subject.budgets.map(verdict));
            rows.push(row);
        }
    }
    Ok(Observing { machine: MachineInfo::this(), rows, noise, budgets })
}

impl ObservedRow {
    /// Unknown if it is as near to the target as equal pairs seem to be apart.
    fn verdict(&self, what: &'static str, noise: f64) -> Verdict {
        let verdict = Verdict::of(what, Unit::Ratio, Target::AtLeast(LEAST), Some(self.rate));
        match (self.rate - LEAST).abs() < noise {
            true => Verdict { met: None, ..verdict },
            false => verdict,
        }
    }
}

/// What was measured of a subject.
#[derive(Default)]
struct Tally {
    /// Of each start.
    rates: Vec<f64>,
    slices: Vec<Slice>,
}

impl Tally {
    /// Processor time for each lock, in ticks.
    fn processor(&self) -> f64 {
        let ticks: u64 = self.slices.iter().map(|slice| slice.ticks).sum();
        let ops: f64 = self.slices.iter().map(|slice| slice.ops).sum();
        ticks as f64 / ops
    }

    /// Of what is equal to what it is compared with: how far it seems to be apart, or how far the middle of
    /// so many starts is apart by chance.
    fn noise(&self) -> f64 {
        let [low, high] = quartiles(&self.rates);
        let by_chance = (high - low) / (self.rates.len() as f64).sqrt();
        by_chance.max((median(&self.rates) - 1.0).abs())
    }
}

fn quartiles(values: &[f64]) -> [f64; 2] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    [sorted[quarter], sorted[sorted.len() - 1 - quarter]]
}

/// The slices of all subjects from one start to the end of its processes.
struct OneStart {
    slices: [Vec<Slice>; SUBJECTS.len()],
}

impl OneStart {
    fn run(
        field: &mut Field,
        programs: &Programs,
        callers: &str,
        start: usize,
        slice: Duration,
    ) -> Result<OneStart> {
        // Each is the first as often as any other, of those that start and of those that work.
        let in_turn =
            |first: usize| (0..SUBJECTS.len()).map(move |at| (first + at) % SUBJECTS.len());
        let mut pairs = [const { None }; SUBJECTS.len()];
        for subject in in_turn(start) {
            let mut pair = Pair::start(field, programs, callers, &SUBJECTS[subject])?;
            pair.work(slice.min(WARM_UP))?;
            pairs[subject] = Some(pair);
        }
        let mut slices = [const { Vec::new() }; SUBJECTS.len()];
        for round in 0..ROUNDS {
            for subject in in_turn(start + round) {
                let pair = pairs[subject].as_mut().expect("all have started");
                slices[subject].push(pair.work(slice)?);
            }
        }
        Ok(OneStart { slices })
    }

    /// Those of each round, by subject.
    fn rates(&self) -> [Vec<f64>; SUBJECTS.len()] {
        let [first, again, ..] = &self.slices;
        std::array::from_fn(|subject| {
            let rate = |(round, slice): (usize, &Slice)| {
                let (first, again) = (first[round].ops_per_s(), again[round].ops_per_s());
                // The second plain one is compared with the first.
                let plain = if subject < 2 { first } else { (first + again) / 2.0 };
                slice.ops_per_s() / plain
            };
            self.slices[subject].iter().enumerate().map(rate).collect()
        })
    }
}

/// What a pair did in one go.
struct Slice {
    took: Duration,
    /// How often it locked and unlocked.
    ops: f64,
    /// Processor time of both, in ticks of the system's clock.
    ticks: u64,
}

impl Slice {
    fn ops_per_s(&self) -> f64 {
        self.ops / self.took.as_secs_f64()
    }
}

/// What is observed, in a directory of this run.
struct Programs {
    tierlock: PathBuf,
    without_spans: PathBuf,
    with_spans: PathBuf,
}

impl Programs {
    /// Builds them beside this program, as this one was built.
    fn build(field: &mut Field) -> Result<Programs> {
        let folder = field.new_directory("observed")?;
        let built = programs::directory()?;
        let made = |name: &str, built_as: &str, arguments: &[&str]| -> Result<PathBuf> {
            programs::build(&built, arguments)?;
            let to = folder.join(name);
            // The next build of the same name replaces it.
            fs::copy(built.join(built_as), &to)
                .map_err(BenchFailure::io(format!("cannot copy {built_as}")))?;
            Ok(to)
        };
        let caller = ["-p", "compare", "--bin", "caller"];
        let with_spans = [&caller[..], &["--features", "spans"]].concat();
        Ok(Programs {
            tierlock: made("tierlock", "tierlock", &programs::TIERLOCK)?,
            with_spans: made("caller-with-spans", "caller", &with_spans)?,
            without_spans: made("caller", "caller", &caller)?,
        })
    }
}

/// A leader, and where its metrics are, if it is observed.
struct ObservedLeader {
    address: String,
    metrics: Option<String>,
    secret_file: PathBuf,
    child: OwnChild,
}

impl ObservedLeader {
    fn start(field: &mut Field, program: &Path, is_observed: bool) -> Result<ObservedLeader> {
        let secret_file = field.grounds.secret_file()?;
        let folder = field.new_directory("observed-leader")?;
        let mut command = Command::new(program);
        command.args(["serve", "--init", "--listen", "127.0.0.1:0", "--accept-fs", "tmpfs"]);
        command.arg("--state-dir").arg(folder.join("state")).arg("--secret-file").arg(&secret_file);
        // One address has all the clients, and half of what there is.
        command.args(["--sessions-max", "1000"]);
        match is_observed {
            true => command.args(["--log", "json", "--http", "127.0.0.1:0"]),
            false => command.args(["--log", "brief"]),
        };
        let log = fs::File::create(folder.join("log"))
            .map_err(BenchFailure::io("cannot make a leader's log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = OwnChild::start(&mut command, Signal::TERM)
            .map_err(BenchFailure::io("cannot start a leader"))?;
        let mut lines = BufReader::new(child.get_mut().stdout.take().expect("it was asked for"));
        let address = said(&mut lines, "listening on ")?;
        let page = is_observed.then(|| said(&mut lines, "shown at http://")).transpose()?;
        let metrics = page.map(|page| page.trim_end_matches('/').to_owned());
        Ok(ObservedLeader { address, metrics, secret_file, child })
    }
}

/// What a child says behind these words.
fn said(lines: &mut impl BufRead, words: &str) -> Result<String> {
    let mut line = String::new();
    lines.read_line(&mut line).map_err(BenchFailure::io("cannot read what a child says"))?;
    let rest = line.trim_end().strip_prefix(words).map(str::to_owned);
    rest.ok_or_else(|| BenchFailure::other(format!("{words:?} was expected of a child: {line:?}")))
}

/// A client, and its leader.
struct Pair {
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    // Ends before its leader.
    client: OwnChild,
    leader: ObservedLeader,
}

impl Pair {
    fn start(
        field: &mut Field,
        programs: &Programs,
        callers: &str,
        subject: &Subject,
    ) -> Result<Pair> {
        let leader = ObservedLeader::start(field, &programs.tierlock, subject.is_leader_observed)?;
        let mut command = Command::new(match subject.spans {
            Spans::NotBuilt => &programs.without_spans,
            Spans::Unwanted | Spans::Wanted => &programs.with_spans,
        });
        command.arg(&leader.address).arg(&leader.secret_file).arg(callers);
        if subject.spans == Spans::Wanted {
            command.arg("wanted");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = OwnChild::start(&mut command, Signal::KILL)
            .map_err(BenchFailure::io("cannot start a client"))?;
        let orders = client.get_mut().stdin.take().expect("it was asked for");
        let replies = client.get_mut().stdout.take().expect("it was asked for");
        let mut replies = BufReader::new(replies);
        said(&mut replies, "ready")?;
        Ok(Pair { orders, replies, client, leader })
    }

    /// Has it lock and unlock for so long.
    fn work(&mut self, slice: Duration) -> Result<Slice> {
        let took = Duration::from_millis(slice.as_millis().max(1) as u64);
        let before = self.ticks()?;
        let failed = BenchFailure::io("a client ended early");
        writeln!(self.orders, "{}", took.as_millis()).map_err(failed)?;
        let (done, is_done) = mpsc::channel::<()>();
        let replies = &mut self.replies;
        let metrics = self.leader.metrics.as_deref();
        let count = thread::scope(|scope| {
            if let Some(metrics) = metrics {
                scope.spawn(move || scrape_until(metrics, &is_done));
            }
            let reply = said(replies, "");
            drop(done);
            reply
        })?;
        let count = count.parse::<f64>();
        let ops = count.map_err(|_| BenchFailure::other("a client said no number"))?;
        Ok(Slice { took, ops, ticks: self.ticks()? - before })
    }

    /// The processor time of both so far.
    fn ticks(&self) -> Result<u64> {
        Ok(ticks(&self.client)? + ticks(&self.leader.child)?)
    }
}

/// The processor time of a process so far, of its threads that have ended, too.
fn ticks(child: &OwnChild) -> Result<u64> {
    let path = format!("/proc/{}/stat", child.pid().as_raw_nonzero());
    let stat = fs::read_to_string(&path);
    let stat = stat.map_err(BenchFailure::io(format!("cannot read {path}")))?;
    // Behind the program's name, which ends with the last parenthesis, the 12th and 13th: in itself, and in
    // the system.
    let behind_name = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let times = behind_name.skip(11).take(2).map(str::parse::<u64>);
    times
        .sum::<std::result::Result<u64, _>>()
        .map_err(|_| BenchFailure::other(format!("{path} has no times")))
}

/// Reads the metrics as Prometheus does, again and again.
fn scrape_until(metrics: &str, is_done: &mpsc::Receiver<()>) {
    loop {
        // One that fails is missing from no figure.
        let _ = scrape(metrics);
        match is_done.recv_timeout(SCRAPED_EVERY) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}

fn scrape(metrics: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(metrics)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {metrics}\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())
}

impl Observing {
    pub(crate) fn text(&self) -> String {
        let mut text = self.machine.heading();
        let _ = writeln!(
            text,
            "{:<14}{:<26}{:>12}{:>9}{:>18}{:>12}",
            "callers", "", "per second", "rate", "half of starts", "processor"
        );
        for row in &self.rows {
            let ObservedRow { callers, subject, ops_per_s, rate, quartiles, processor } = row;
            let (ops, [low, high]) = (human::count(*ops_per_s), quartiles);
            let half = format!("{low:.3} to {high:.3}");
            let _ = writeln!(
                text,
                "{callers:<14}{subject:<26}{ops:>12}{rate:>9.3}{half:>18}{processor:>12.3}"
            );
        }
        let [connections, tasks] = self.noise;
        let _ = writeln!(
            text,
            "\nRates of equal pairs seem to be {connections:.3} apart for connections, {tasks:.3} for tasks: \
             what is as near to its target is unknown.\nprocessor: the time of client and leader for each \
             lock.\n"
        );
        text += &comparison::budgets(&self.budgets);
        let _ = writeln!(text, "At {} scope; what is off costs nothing.", Scope::Host);
        text
    }
}
