//! What it costs to observe: a leader with metrics, log and scrapes beside one without, and clients with the
//! library's spans beside one that is built without them.
//!
//! All four pairs of leader and client run at the same time, and one of them works at a time, in turn: so what
//! else the machine does meets all alike. Each is compared with the plain one of the same round, and of the
//! rounds the middle one counts.
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
    budgets: Vec<Verdict>,
}

#[derive(Serialize)]
struct ObservedRow {
    /// Which callers: `connections` or `tasks`.
    callers: &'static str,
    subject: &'static str,
    ops_per_s: f64,
    /// Over the plain one's of the same round.
    rate: f64,
}

/// The kinds of callers, as `caller` has them.
const CALLERS: [&str; 2] = ["connections", "tasks"];
/// What is compared; the first one is plain.
const SUBJECTS: [&str; 4] = [
    "nothing observed",
    "leader: metrics, log",
    "client: spans, unwanted",
    "client: spans, wanted",
];
const ROUNDS: u32 = 15;
/// What observing may cost.
const RATE: Target = Target::AtLeast(0.97);
/// Fifteen times as often as Prometheus does by default.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);

/// Measures all of it, in so many seconds and the time to build what is observed.
pub(crate) fn run(seconds: f64) -> Result<Observing> {
    let mut field = Field::new()?;
    let progress = Progress::new(Duration::ZERO);
    progress.says("building the program, and a client with and without spans");
    let programs = Programs::build(&mut field)?;
    let plain = ObservedLeader::start(&mut field, &programs.tierlock, false)?;
    let observed = ObservedLeader::start(&mut field, &programs.tierlock, true)?;
    let slice = seconds / f64::from(ROUNDS) / (CALLERS.len() * SUBJECTS.len()) as f64;
    let slice = Duration::from_secs_f64(slice);
    let mut rows = Vec::new();
    for callers in CALLERS {
        let mut pairs = [
            Pair::start(&plain, &programs.without_spans, callers, false)?,
            Pair::start(&observed, &programs.without_spans, callers, false)?,
            Pair::start(&plain, &programs.with_spans, callers, false)?,
            Pair::start(&plain, &programs.with_spans, callers, true)?,
        ];
        for pair in &mut pairs {
            pair.ops_per_s(slice.min(WARM_UP))?;
        }
        let mut rates = [const { Vec::new() }; SUBJECTS.len()];
        let mut ops = [const { Vec::new() }; SUBJECTS.len()];
        for round in 0..ROUNDS as usize {
            let mut of_round = [0.0; SUBJECTS.len()];
            // Each is the first of as many rounds as any other.
            for at in 0..SUBJECTS.len() {
                let subject = (round + at) % SUBJECTS.len();
                progress.says(&format!("{callers}: {}, round {round}", SUBJECTS[subject]));
                of_round[subject] = pairs[subject].ops_per_s(slice)?;
            }
            for (subject, ops_per_s) in of_round.into_iter().enumerate() {
                ops[subject].push(ops_per_s);
                rates[subject].push(ops_per_s / of_round[0]);
            }
        }
        let figures = SUBJECTS.into_iter().zip(ops.iter().zip(&rates));
        rows.extend(figures.map(|(subject, (ops, rates))| ObservedRow {
            callers,
            subject,
            ops_per_s: median(ops),
            rate: median(rates),
        }));
    }
    let budgets = rows.iter().filter_map(ObservedRow::verdict).collect();
    Ok(Observing { machine: MachineInfo::this(), rows, budgets })
}

const WARM_UP: Duration = Duration::from_millis(500);

impl ObservedRow {
    fn verdict(&self) -> Option<Verdict> {
        let what = match (self.callers, self.subject) {
            (_, subject) if subject == SUBJECTS[0] => return None,
            ("connections", subject) if subject == SUBJECTS[1] => "leader observed, connections",
            (_, subject) if subject == SUBJECTS[1] => "leader observed, tasks",
            ("connections", subject) if subject == SUBJECTS[2] => "spans unwanted, connections",
            (_, subject) if subject == SUBJECTS[2] => "spans unwanted, tasks",
            ("connections", _) => "spans wanted, connections",
            _ => "spans wanted, tasks",
        };
        Some(Verdict::of(what, Unit::Ratio, RATE, Some(self.rate)))
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
    _child: OwnChild,
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
        Ok(ObservedLeader { address, metrics, secret_file, _child: child })
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
struct Pair<'a> {
    leader: &'a ObservedLeader,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    _child: OwnChild,
}

impl<'a> Pair<'a> {
    fn start(
        leader: &'a ObservedLeader,
        program: &Path,
        callers: &str,
        wanted: bool,
    ) -> Result<Pair<'a>> {
        let mut command = Command::new(program);
        command.arg(&leader.address).arg(&leader.secret_file).arg(callers);
        if wanted {
            command.arg("wanted");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = OwnChild::start(&mut command, Signal::KILL)
            .map_err(BenchFailure::io("cannot start a client"))?;
        let orders = child.get_mut().stdin.take().expect("it was asked for");
        let replies = child.get_mut().stdout.take().expect("it was asked for");
        let mut replies = BufReader::new(replies);
        said(&mut replies, "ready")?;
        Ok(Pair { leader, orders, replies, _child: child })
    }

    /// How often it locks and unlocks in a second, measured for so long.
    fn ops_per_s(&mut self, slice: Duration) -> Result<f64> {
        let millis = slice.as_millis().max(1);
        let failed = BenchFailure::io("a client ended early");
        writeln!(self.orders, "{millis}").map_err(failed)?;
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
        let count = count.map_err(|_| BenchFailure::other("a client said no number"))?;
        Ok(count * 1e3 / millis as f64)
    }
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
        let _ = writeln!(text, "{:<14}{:<30}{:>14}{:>10}", "callers", "", "per second", "rate");
        for ObservedRow { callers, subject, ops_per_s, rate } in &self.rows {
            let ops = human::count(*ops_per_s);
            let _ = writeln!(text, "{callers:<14}{subject:<30}{ops:>14}{rate:>10.3}");
        }
        text += "\n";
        text += &comparison::budgets(&self.budgets);
        let _ = writeln!(text, "At {} scope; what is off costs nothing.", Scope::Host);
        text
    }
}
