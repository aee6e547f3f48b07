//! A leader and its client, in processes of their own.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    process::Signal,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::Serialize;

use super::{Place, Spans, Subject};
use crate::{
    bench::{
        cleanup::OwnChild,
        failure::{BenchFailure, Result},
    },
    peers::{field::Field, processor_time},
    programs,
};

/// What is observed, in a directory of this run.
pub(super) struct Programs {
    tierlock: PathBuf,
    without_spans: PathBuf,
    with_spans: PathBuf,
}

impl Programs {
    /// Builds them beside this program, as this one was built.
    pub(super) fn build(field: &mut Field) -> Result<Programs> {
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

/// One of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Leader,
    Client,
}

/// Has callgrind count the instructions of one of a pair.
pub(super) struct Counter<'a> {
    pub(super) valgrind: &'a Path,
    pub(super) of: Part,
    /// What it says at its end.
    pub(super) said: &'a Path,
}

/// The program, or what runs it as this part of a pair.
fn command(program: &Path, part: Part, counter: Option<&Counter<'_>>) -> Command {
    let Some(Counter { valgrind, said, .. }) = counter.filter(|counter| counter.of == part) else {
        return Command::new(program);
    };
    let mut log = OsString::from("--log-file=");
    log.push(said);
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--fair-sched=yes"]);
    command.arg(log).arg(program);
    command
}

/// A leader, and where its metrics are, if it is observed.
struct ObservedLeader {
    address: String,
    metrics: Option<String>,
    secret_file: PathBuf,
    child: OwnChild,
}

impl ObservedLeader {
    fn start(
        field: &mut Field,
        program: &Path,
        is_observed: bool,
        counter: Option<&Counter<'_>>,
    ) -> Result<ObservedLeader> {
        let secret_file = field.grounds.secret_file()?;
        let folder = field.new_directory("observed-leader")?;
        let mut command = command(program, Part::Leader, counter);
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
pub(super) struct Pair {
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    // Ends before its leader.
    client: OwnChild,
    leader: ObservedLeader,
    /// What each lock costs the client besides.
    planted: Duration,
}

impl Pair {
    pub(super) fn start(
        field: &mut Field,
        programs: &Programs,
        callers: &str,
        place: Place,
        subject: &Subject,
    ) -> Result<Pair> {
        place.start(|| Pair::start_here(field, programs, callers, subject, None))
    }

    /// Where the calling thread may be.
    pub(super) fn start_here(
        field: &mut Field,
        programs: &Programs,
        callers: &str,
        subject: &Subject,
        counter: Option<&Counter<'_>>,
    ) -> Result<Pair> {
        let is_observed = subject.is_leader_observed;
        let leader = ObservedLeader::start(field, &programs.tierlock, is_observed, counter)?;
        let program = match subject.spans {
            Spans::NotBuilt => &programs.without_spans,
            Spans::Unwanted | Spans::Wanted => &programs.with_spans,
        };
        let mut command = command(program, Part::Client, counter);
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
        Ok(Pair { orders, replies, client, leader, planted: Duration::ZERO })
    }

    /// Has both end in good order: what counts them says so then.
    pub(super) fn end(self) -> Result<()> {
        let Pair { orders, mut client, leader, .. } = self;
        drop(orders);
        client.get_mut().wait().map_err(BenchFailure::io("cannot wait for a client"))?;
        drop((client, leader));
        Ok(())
    }

    /// From now on each lock costs the client so much besides, in parts of what it costs both now.
    pub(super) fn plant(&mut self, loss: f64, slice: Duration) -> Result<()> {
        let of_now = self.work(slice)?;
        self.planted = Duration::from_secs_f64(loss * (of_now.client + of_now.leader));
        Ok(())
    }

    /// Has it lock and unlock for so long.
    pub(super) fn work(&mut self, slice: Duration) -> Result<Slice> {
        self.work_while(slice, |_| ())
    }

    /// The same; its leader's metrics are read meanwhile, if it has some.
    pub(super) fn work_and_read_metrics(&mut self, slice: Duration) -> Result<Slice> {
        // One that fails is missing from no figure.
        self.work_while(slice, |metrics| drop(scrape(metrics)))
    }

    fn work_while(&mut self, slice: Duration, meanwhile: impl Fn(&str) + Sync) -> Result<Slice> {
        let millis = slice.as_millis().max(1) as u64;
        let before = self.times()?;
        writeln!(self.orders, "{millis} {}", self.planted.as_nanos())
            .map_err(BenchFailure::io("a client ended early"))?;
        let replies = &mut self.replies;
        let metrics = self.leader.metrics.as_deref();
        let counted = thread::scope(|scope| {
            if let Some(metrics) = metrics {
                let meanwhile = &meanwhile;
                scope.spawn(move || meanwhile(metrics));
            }
            said(replies, "")
        })?;
        let ops = counted.parse::<f64>();
        let ops = ops.map_err(|_| BenchFailure::other("a client said no number"))?;
        let after = self.times()?;
        let [client, leader] = [0, 1].map(|of| (after[of] - before[of]).as_secs_f64() / ops);
        Ok(Slice { ops, ops_per_s: ops * 1e3 / millis as f64, client, leader })
    }

    /// The processor time so far of client and leader.
    fn times(&self) -> Result<[Duration; 2]> {
        let failed = || BenchFailure::io("cannot read the processor time of a child");
        let time = |child: &OwnChild| processor_time(child.pid()).map_err(failed());
        Ok([time(&self.client)?, time(&self.leader.child)?])
    }
}

/// What a pair did in one go.
pub(super) struct Slice {
    /// How often it locked and unlocked.
    pub(super) ops: f64,
    pub(super) ops_per_s: f64,
    /// The client's processor time for each lock, in seconds.
    pub(super) client: f64,
    /// The leader's.
    pub(super) leader: f64,
}

/// Reads the metrics as Prometheus does.
fn scrape(metrics: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(metrics)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {metrics}\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())
}

impl Place {
    /// Starts something there: children are where the thread that starts them is.
    fn start<R>(self, start: impl FnOnce() -> Result<R>) -> Result<R> {
        let failed = || BenchFailure::io("cannot choose a processor");
        let everywhere = sched_getaffinity(None).map_err(|error| failed()(error.into()))?;
        let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| everywhere.is_set(cpu));
        let (Place::OneProcessor, Some(last)) = (self, last) else { return start() };
        let mut one = CpuSet::new();
        one.set(last);
        sched_setaffinity(None, &one).map_err(|error| failed()(error.into()))?;
        let started = start();
        sched_setaffinity(None, &everywhere).map_err(|error| failed()(error.into()))?;
        started
    }
}
