//! Child processes: the other processes of a measurement.
//!
//! The bench runs its own program again as `… bench-worker SPEC`. The child says that it is ready,
//! then answers each order (a line of JSON on its standard input) with one reply (a line of JSON on
//! its standard output), and ends with its input or with its parent.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    cleanup::OwnChild,
    failure::{BenchFailure, Result},
};

/// The word that makes the program a child of the bench.
pub(crate) const WORD: &str = "bench-worker";

/// What a child is for.
pub(crate) trait ChildJob: DeserializeOwned {
    /// The child's side: does it to the end.
    fn work(self) -> Result<()>;
}

#[derive(Serialize, Deserialize)]
struct Spec<J> {
    /// It ends with this process.
    parent: i32,
    job: J,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply<R> {
    Ready,
    Said(R),
    Failed { code: u8, message: String },
}

/// A child, as the bench sees it.
pub(crate) struct ChildWorker {
    child: OwnChild,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl ChildWorker {
    /// Starts a child and waits until it is ready.
    pub(crate) fn start(job: &impl Serialize) -> Result<ChildWorker> {
        let mut command = command(job)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = OwnChild::start(&mut command, Signal::KILL)
            .map_err(BenchFailure::io("cannot start a child process"))?;
        let orders = child.get_mut().stdin.take().expect("it was asked for");
        let replies = child.get_mut().stdout.take().expect("it was asked for");
        let mut worker = ChildWorker { child, orders, replies: BufReader::new(replies) };
        match worker.next::<()>()? {
            Reply::Ready => Ok(worker),
            _ => Err(BenchFailure::other("a child process of the bench spoke too early")),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.pid()
    }

    pub(crate) fn order(&mut self, order: &impl Serialize) -> Result<()> {
        writeln!(self.orders, "{}", json(order))
            .map_err(BenchFailure::io("a child process ended early"))
    }

    pub(crate) fn reply<R: DeserializeOwned>(&mut self) -> Result<R> {
        match self.next()? {
            Reply::Said(said) => Ok(said),
            _ => Err(BenchFailure::other("a child process of the bench was ready twice")),
        }
    }

    fn next<R: DeserializeOwned>(&mut self) -> Result<Reply<R>> {
        let mut line = String::new();
        self.replies
            .read_line(&mut line)
            .map_err(BenchFailure::io("cannot read what a child process says"))?;
        if line.is_empty() {
            return Err(BenchFailure::other("a child process of the bench ended early"));
        }
        match serde_json::from_str(&line) {
            Ok(Reply::Failed { code, message }) => Err(BenchFailure::Other { code, message }),
            Ok(reply) => Ok(reply),
            Err(_) => {
                Err(BenchFailure::other(format!("a child process of the bench said {line:?}")))
            }
        }
    }
}

/// Gives the same order to all of them, then awaits their replies.
pub(crate) fn all<R: DeserializeOwned>(
    workers: &mut [ChildWorker],
    order: &impl Serialize,
) -> Result<Vec<R>> {
    for worker in &mut *workers {
        worker.order(order)?;
    }
    workers.iter_mut().map(ChildWorker::reply).collect()
}

/// The command that starts a child.
pub(crate) fn command(job: &impl Serialize) -> Result<Command> {
    let program = std::env::current_exe().map_err(BenchFailure::io("cannot find this program"))?;
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let mut command = Command::new(program);
    command.arg(WORD).arg(json(&Spec { parent, job }));
    // Ctrl-C is for the bench, which then ends its children.
    command.process_group(0);
    Ok(command)
}

/// The child's side: does what the specification says, and returns the exit status.
pub(crate) fn main<J: ChildJob>(spec: &str) -> u8 {
    let spec: Spec<J> = match serde_json::from_str(spec) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("tierlock: {WORD} is a part of the bench: {error}");
            return 64;
        }
    };
    match end_with(spec.parent).and_then(|()| spec.job.work()) {
        Ok(()) => 0,
        Err(failure) => {
            let code = failure.exit_code();
            write(&Reply::<()>::Failed { code, message: failure.to_string() });
            code
        }
    }
}

/// Says that the work may begin, and hands over the orders that follow.
pub(crate) fn ready<O: DeserializeOwned>() -> impl Iterator<Item = O> {
    write(&Reply::<()>::Ready);
    std::io::stdin().lines().map_while(|line| serde_json::from_str(&line.ok()?).ok())
}

pub(crate) fn say(what: impl Serialize) {
    write(&Reply::Said(what));
}

/// Asks for a SIGKILL at the parent's death.
fn end_with(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        BenchFailure::io("cannot ask for the parent-death signal")(error.into())
    })?;
    // It may have died before that.
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
        return Err(BenchFailure::other("the bench is gone"));
    }
    Ok(())
}

fn write<R: Serialize>(reply: &Reply<R>) {
    // A parent that is gone reads nothing: then this process ends too.
    let _ = writeln!(std::io::stdout().lock(), "{}", json(reply));
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

#[cfg(test)]
mod tests;
