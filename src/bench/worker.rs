//! Child processes: the other processes of a measurement.
//!
//! The bench runs its own program again as `tierlock bench-worker SPEC`. The child says `Ready`,
//! then answers each order (a line of JSON on its standard input) with one reply (a line of JSON
//! on its standard output), and ends with its input or with its parent.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
};
use serde::{Deserialize, Serialize};

use super::{
    cleanup::OwnChild,
    failure::{Failure, Result},
    stats::Share,
};
use crate::{LockManager, Mutex, Scope, clock, time::Time};

/// What a child is for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// It ends with this process.
    parent: i32,
    job: Job,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub(crate) enum Job {
    /// Locks and unlocks without a pause, for as long as each order says.
    Contend { lock: CrossLock, counter: PathBuf, hold_us: u64 },
    /// Locks, sleeps, unlocks, sleeps: so that the lock changes hands each time.
    TakeTurns { lock: CrossLock, hold_us: u64, pause_us: u64 },
    /// Locks, and never lets go.
    Hold { lock: CrossLock },
    /// Becomes another program, which then ends with the bench like any child of it.
    Become { program: PathBuf, arguments: Vec<String> },
}

/// A lock that processes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub(crate) enum CrossLock {
    Tierlock { directory: PathBuf, name: String },
    Flock { file: PathBuf },
}

/// Work from one moment to another; moments are nanoseconds on the clock of this machine, which
/// all its processes share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    start_ns: u64,
    end_ns: u64,
}

impl Order {
    /// For a slice that starts as soon as every child has surely read this.
    pub(crate) fn soon(slice: Duration) -> Order {
        let start = clock::now() + Duration::from_millis(2);
        Order { start_ns: start.as_nanos(), end_ns: (start + slice).as_nanos() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Ready,
    /// What `Contend` did: waits and how often each came; how often it counted.
    Contended {
        waits: Vec<(u64, u64)>,
        counted: u64,
        took_ns: u64,
    },
    /// What `TakeTurns` did.
    TookTurns {
        turns: Vec<Turn>,
    },
    /// `Hold` holds.
    Held,
    Failed {
        code: u8,
        message: String,
    },
}

/// One turn: when the lock was asked for, obtained, and about to be let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) asked_ns: u64,
    pub(crate) locked_ns: u64,
    pub(crate) unlocked_ns: u64,
}

/// A child, as the bench sees it.
pub(crate) struct Worker {
    child: OwnChild,
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a child and waits until it is ready.
    pub(crate) fn start(job: Job) -> Result<Worker> {
        let mut child = OwnChild::start(command(job)?.stdin(Stdio::piped()).stdout(Stdio::piped()))
            .map_err(Failure::io("cannot start a child process"))?;
        let orders = child.get_mut().stdin.take();
        let replies = child.get_mut().stdout.take().expect("it was asked for");
        let mut worker = Worker { child, orders, replies: BufReader::new(replies) };
        match worker.reply()? {
            Reply::Ready => Ok(worker),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.pid()
    }

    pub(crate) fn order(&mut self, order: Order) -> Result<()> {
        let orders = self.orders.as_mut().expect("taken by nobody");
        writeln!(orders, "{}", json(&order)).map_err(Failure::io("a child process ended early"))
    }

    pub(crate) fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.replies
            .read_line(&mut line)
            .map_err(Failure::io("cannot read what a child process says"))?;
        match serde_json::from_str(&line) {
            Ok(Reply::Failed { code, message }) => Err(Failure::Child { code, message }),
            Ok(reply) => Ok(reply),
            Err(_) if line.is_empty() => Err(Failure::Child {
                code: 70,
                message: "a child process of the bench ended early".into(),
            }),
            Err(_) => Err(Failure::Child {
                code: 70,
                message: format!("a child process of the bench said {line:?}"),
            }),
        }
    }
}

/// The error of a reply that belongs to another order.
pub(crate) fn unexpected(reply: &Reply) -> Failure {
    Failure::Child { code: 70, message: format!("a child process of the bench said {reply:?}") }
}

/// The command that starts a child.
pub(crate) fn command(job: Job) -> Result<Command> {
    let program = std::env::current_exe().map_err(Failure::io("cannot find this program"))?;
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let mut command = Command::new(program);
    command.arg("bench-worker").arg(json(&Spec { parent, job }));
    // Ctrl-C is for the bench, which then ends its children.
    command.process_group(0);
    Ok(command)
}

/// The child's side: does what the specification says, and returns the exit status.
pub fn main(spec: String) -> u8 {
    let spec: Spec = match serde_json::from_str(&spec) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("tierlock: bench-worker is a part of `tierlock bench`: {error}");
            return 64;
        }
    };
    match work(spec) {
        Ok(()) => 0,
        Err(failure) => {
            let code = failure.exit_code();
            say(&Reply::Failed { code, message: failure.to_string() });
            code
        }
    }
}

fn work(spec: Spec) -> Result<()> {
    end_with(spec.parent)?;
    match spec.job {
        Job::Contend { lock, counter, hold_us } => {
            let counter = FileCounter::open(&counter)?;
            let hold = Duration::from_micros(hold_us);
            match lock {
                CrossLock::Tierlock { directory, name } => {
                    contend(Tierlock::open(&directory, &name)?, counter, hold)
                }
                CrossLock::Flock { file } => contend(Flock::open(&file)?, counter, hold),
            }
        }
        Job::TakeTurns { lock, hold_us, pause_us } => {
            let hold = Duration::from_micros(hold_us);
            let pause = Duration::from_micros(pause_us);
            match lock {
                CrossLock::Tierlock { directory, name } => {
                    take_turns(Tierlock::open(&directory, &name)?, hold, pause)
                }
                CrossLock::Flock { file } => take_turns(Flock::open(&file)?, hold, pause),
            }
        }
        Job::Hold { lock } => match lock {
            CrossLock::Tierlock { directory, name } => hold(Tierlock::open(&directory, &name)?),
            CrossLock::Flock { file } => hold(Flock::open(&file)?),
        },
        Job::Become { program, arguments } => {
            let error = Command::new(&program).args(arguments).exec();
            Err(Failure::io(format!("cannot run {}", program.display()))(error))
        }
    }
}

/// Asks for a SIGKILL at the parent's death.
fn end_with(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::io("cannot ask for the parent-death signal")(error.into()))?;
    // It may have died before that.
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
        return Err(Failure::Child { code: 70, message: "the bench is gone".into() });
    }
    Ok(())
}

/// A lock that other processes take too.
pub(crate) trait Cross {
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R>;
}

struct Tierlock {
    mutex: Mutex<()>,
}

impl Tierlock {
    fn open(directory: &Path, name: &str) -> Result<Tierlock> {
        let locks = LockManager::builder().directory(directory).open()?;
        Ok(Tierlock { mutex: locks.mutex(name, ()).scope(Scope::Process).build()? })
    }
}

impl Cross for Tierlock {
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let _guard = self.mutex.lock()?;
        Ok(section())
    }
}

/// `flock(2)` on a file that stays open.
pub(crate) struct Flock {
    file: File,
}

impl Flock {
    pub(crate) fn open(path: &Path) -> Result<Flock> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Failure::io(format!("cannot open {}", path.display())))?;
        Ok(Flock { file })
    }
}

impl Cross for Flock {
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let failed = |error: rustix::io::Errno| Failure::io("flock")(error.into());
        rustix::io::retry_on_intr(|| flock(&self.file, FlockOperation::LockExclusive))
            .map_err(failed)?;
        let result = section();
        flock(&self.file, FlockOperation::Unlock).map_err(failed)?;
        Ok(result)
    }
}

fn contend(mut lock: impl Cross, counter: FileCounter, hold: Duration) -> Result<()> {
    let orders = ready();
    let mut share = Share::new();
    for order in orders {
        let end = wait_for(order);
        let mut counted = 0;
        let mut cycles: u64 = 0;
        let started = Instant::now();
        let mut last = started;
        while last < end {
            if hold.is_zero() {
                // Counting takes two system calls: often enough to notice a lock that does not
                // exclude, seldom enough to leave the sections empty.
                if cycles.is_multiple_of(256) {
                    lock.with(|| counter.increment())??;
                    counted += 1;
                } else {
                    lock.with(|| {})?;
                }
                // Outside the section, which stays empty: so this is a whole cycle.
                let now = Instant::now();
                share.add(now - last);
                last = now;
            } else {
                let locked = lock.with(|| {
                    let locked = Instant::now();
                    counter.increment()?;
                    spin_until(locked + hold);
                    Ok::<_, Failure>(locked)
                })??;
                counted += 1;
                share.add(locked - last);
                last = Instant::now();
            }
            cycles += 1;
        }
        let took_ns = (last - started).as_nanos() as u64;
        say(&Reply::Contended { waits: share.waits(), counted, took_ns });
        share = Share::new();
    }
    Ok(())
}

fn take_turns(mut lock: impl Cross, hold: Duration, pause: Duration) -> Result<()> {
    for order in ready() {
        let end = wait_for(order);
        let mut turns = Vec::new();
        while Instant::now() < end {
            let asked_ns = clock::now().as_nanos();
            turns.push(lock.with(|| {
                let locked_ns = clock::now().as_nanos();
                thread::sleep(hold);
                Turn { asked_ns, locked_ns, unlocked_ns: clock::now().as_nanos() }
            })?);
            thread::sleep(pause);
        }
        say(&Reply::TookTurns { turns });
    }
    Ok(())
}

fn hold(mut lock: impl Cross) -> Result<()> {
    let mut orders = ready();
    lock.with(|| {
        say(&Reply::Held);
        // Until it is killed; or until its parent is gone.
        while orders.next().is_some() {}
    })
}

/// Says so, and hands over the orders that follow.
fn ready() -> impl Iterator<Item = Order> {
    say(&Reply::Ready);
    std::io::stdin().lines().map_while(|line| serde_json::from_str(&line.ok()?).ok())
}

/// Waits for the start of an order and returns its end.
fn wait_for(order: Order) -> Instant {
    let start = Time::from_nanos(order.start_ns);
    let to_go = start.since(clock::now());
    thread::sleep(to_go.saturating_sub(Duration::from_micros(500)));
    while clock::now() < start {
        std::hint::spin_loop();
    }
    Instant::now() + Time::from_nanos(order.end_ns).since(start)
}

fn spin_until(end: Instant) {
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn say(reply: &Reply) {
    // A parent that is gone reads nothing: then this process ends too.
    let _ = writeln!(std::io::stdout().lock(), "{}", json(reply));
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// A number in a file, which only a lock protects: increments that overlap are lost.
pub(crate) struct FileCounter(File);

impl FileCounter {
    pub(crate) fn create(path: &Path) -> Result<FileCounter> {
        std::fs::write(path, 0_u64.to_le_bytes())
            .map_err(Failure::io(format!("cannot write {}", path.display())))?;
        FileCounter::open(path)
    }

    fn open(path: &Path) -> Result<FileCounter> {
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map(FileCounter)
            .map_err(Failure::io(format!("cannot open {}", path.display())))
    }

    pub(crate) fn get(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0).map_err(Failure::io("cannot read a counter"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn increment(&self) -> Result<()> {
        let more = self.get()? + 1;
        self.0.write_all_at(&more.to_le_bytes(), 0).map_err(Failure::io("cannot write a counter"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specification_survives_the_command_line() {
        let job = Job::Contend {
            lock: CrossLock::Flock { file: "/tmp/with space/\"quote\"".into() },
            counter: "/c".into(),
            hold_us: 200,
        };
        let text = json(&Spec { parent: 7, job });
        let spec: Spec = serde_json::from_str(&text).unwrap();
        assert_eq!(json(&spec), text);
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        assert_eq!(main("{}".into()), 64);
    }
}
