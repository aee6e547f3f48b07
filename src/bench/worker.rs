//! Child processes: the other processes of a measurement.
//!
//! The bench runs its own program again as `tierlock bench-worker SPEC`. The child says `Ready`,
//! then answers each order (a line of JSON on its standard input) with one reply (a line of JSON
//! on its standard output), and ends with its input or with its parent.

use std::{
    fs::File,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::FileExt, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::{
    cleanup::OwnChild,
    failure::{Failure, Result},
    names,
    peers::PeerLock,
    stats::{Meter, Pace, Seen, Tally},
    thread::spin_until,
};
use crate::{Leader, LockManager, Mutex, MutexGuard, Predecessor, Scope, clock, time::Time};

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
    /// Locks with so much memory in use, and never lets go.
    Hold { lock: CrossLock, resident_mib: u32 },
    /// Opens a directory and locks some of its names by their names, once each.
    Find { directory: PathBuf, names: u64, from: u64 },
    /// Is a leader.
    Serve { listen: String, state_dir: PathBuf, init: bool, secret_file: PathBuf },
    /// Becomes another program, which then ends with the bench like any child of it.
    #[cfg(feature = "peers")]
    Become(Become),
}

/// A program to become.
#[cfg(feature = "peers")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Become {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The user and the group that it runs as, if not ours.
    pub(crate) user: Option<(u32, u32)>,
    /// The signal that ends it.
    pub(crate) end_with: i32,
}

#[cfg(feature = "peers")]
impl Become {
    pub(crate) fn new(program: &Path, arguments: impl IntoIterator<Item: Into<String>>) -> Become {
        Become {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            user: None,
            end_with: Signal::KILL.as_raw(),
        }
    }
}

/// A lock that processes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub(crate) enum CrossLock {
    Tierlock { directory: PathBuf, name: String },
    Peer { lock: PeerLock },
}

impl CrossLock {
    /// Opens it and shows it to the visitor.
    pub(crate) fn open<V: Visitor>(&self, visitor: V) -> Result<V::Output> {
        match self {
            CrossLock::Tierlock { directory, name } => {
                visitor.visit(Tierlock::open(directory, name)?)
            }
            CrossLock::Peer { lock } => lock.open(visitor),
        }
    }
}

/// A lock that other processes take too.
pub(crate) trait Cross {
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R>;

    /// Locks and unlocks after a holder was killed, and says when it had the lock.
    fn take_over(&mut self) -> Result<Instant> {
        self.with(Instant::now)
    }
}

/// What is done with an open lock of any kind; compiled for each, so that nothing stands between
/// the measurement and the lock.
pub(crate) trait Visitor {
    type Output;

    fn visit(self, lock: impl Cross + 'static) -> Result<Self::Output>;
}

/// Work from one moment to another; moments are nanoseconds on the clock of this machine, which
/// all its processes share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    start_ns: u64,
    end_ns: u64,
    pace: Pace,
}

impl Order {
    /// For a slice that starts as soon as every child has surely read this.
    pub(crate) fn soon(slice: Duration, pace: Pace) -> Order {
        let start = clock::now() + Duration::from_millis(2);
        Order { start_ns: start.as_nanos(), end_ns: (start + slice).as_nanos(), pace }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Ready,
    /// What `Contend` saw, and how often it counted.
    Contended {
        seen: Seen,
        counted: u64,
    },
    /// What `TakeTurns` did.
    TookTurns {
        turns: Vec<Turn>,
    },
    /// `Hold` holds.
    Held,
    /// What `Find` saw: how long it took from opening the directory to the first lock, and what
    /// further ones took.
    Found {
        first_ns: u64,
        seen: Seen,
    },
    /// `Serve` answers on this port.
    Serving {
        port: u16,
    },
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
            lock.open(Contending { counter, hold: Duration::from_micros(hold_us) })
        }
        Job::TakeTurns { lock, hold_us, pause_us } => {
            let hold = Duration::from_micros(hold_us);
            lock.open(TakingTurns { hold, pause: Duration::from_micros(pause_us) })
        }
        Job::Hold { lock, resident_mib } => {
            // Written to, so that it is there.
            let _resident = black_box(vec![1_u8; (resident_mib as usize) << 20]);
            lock.open(Holding)
        }
        Job::Find { directory, names, from } => {
            say(&Reply::Ready);
            say(&names::find(&directory, names, from)?);
            Ok(())
        }
        Job::Serve { listen, state_dir, init, secret_file } => {
            let leader = Leader::builder().listen(listen).secret_file(secret_file);
            let leader = leader.state_dir(state_dir).init(init).accept_file_system("tmpfs");
            // One address has all the bench's clients, and half of what there is.
            let leader = leader.sessions_max(1 << 15).claims_max(1 << 23).start()?;
            let orders = ready();
            say(&Reply::Serving { port: leader.local_addr().port() });
            orders.for_each(drop);
            Ok(())
        }
        #[cfg(feature = "peers")]
        Job::Become(other) => {
            let mut command = Command::new(&other.program);
            command.args(&other.arguments);
            if let Some((uid, gid)) = other.user {
                command.uid(uid).gid(gid);
            }
            let signal = Signal::from_named_raw(other.end_with).unwrap_or(Signal::KILL);
            let error = super::peers::exec(&mut command, signal);
            Err(Failure::io(format!("cannot run {}", other.program.display()))(error))
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
    #[inline]
    fn with<R>(&mut self, section: impl FnOnce() -> R) -> Result<R> {
        let _guard = self.mutex.lock()?;
        Ok(section())
    }

    fn take_over(&mut self) -> Result<Instant> {
        let guard = self.mutex.lock()?;
        let locked = Instant::now();
        match MutexGuard::predecessor(&guard) {
            Predecessor::Died => Ok(locked),
            other => Err(Failure::Wrong(format!(
                "the killed holder was said to have left the lock {other}, not died"
            ))),
        }
    }
}

struct Contending {
    counter: FileCounter,
    hold: Duration,
}

impl Visitor for Contending {
    type Output = ();

    fn visit(self, mut lock: impl Cross + 'static) -> Result<()> {
        for order in ready() {
            let mut tally = Tally::new(order.pace);
            let slice = wait_for(order);
            let counted = if self.hold.is_zero() {
                self.without_sections(slice, &mut tally, &mut lock)?
            } else {
                self.with_sections(slice, &mut tally, &mut lock)?
            };
            say(&Reply::Contended { seen: tally.to_seen(), counted });
        }
        Ok(())
    }
}

impl Contending {
    /// One slice with empty sections; returns how often it counted.
    fn without_sections(
        &self,
        slice: Duration,
        tally: &mut Tally,
        lock: &mut impl Cross,
    ) -> Result<u64> {
        let (mut counted, mut until_counting) = (0, 0_u64);
        let mut meter = Meter::start(slice, tally);
        while let Some(cycles) = meter.next() {
            // Counting takes two system calls: often enough to notice a lock that does not
            // exclude, seldom enough, and not timed, to leave the sections empty.
            until_counting = until_counting.saturating_sub(cycles);
            if until_counting == 0 {
                until_counting = COUNTING_EVERY;
                lock.with(|| self.counter.increment())??;
                counted += 1;
                meter.resume();
            }
            for _ in 0..cycles {
                lock.with(|| {})?;
            }
        }
        Ok(counted)
    }

    /// One slice with sections that last; returns how often it counted.
    fn with_sections(
        &self,
        slice: Duration,
        tally: &mut Tally,
        lock: &mut impl Cross,
    ) -> Result<u64> {
        let mut counted = 0;
        let mut last = Instant::now();
        let end = last + slice;
        while last < end {
            let asked = last;
            let locked = lock.with(|| {
                let locked = Instant::now();
                self.counter.increment()?;
                spin_until(locked + self.hold);
                Ok::<_, Failure>(locked)
            })??;
            last = Instant::now();
            tally.wait(locked - asked);
            tally.stretch(1, last - asked);
            counted += 1;
        }
        Ok(counted)
    }
}

/// Cycles with empty sections between two that count.
const COUNTING_EVERY: u64 = 256;

struct TakingTurns {
    hold: Duration,
    pause: Duration,
}

impl Visitor for TakingTurns {
    type Output = ();

    fn visit(self, mut lock: impl Cross + 'static) -> Result<()> {
        for order in ready() {
            let slice = wait_for(order);
            let end = Instant::now() + slice;
            let mut turns = Vec::new();
            while Instant::now() < end {
                let asked_ns = clock::now().as_nanos();
                turns.push(lock.with(|| {
                    let locked_ns = clock::now().as_nanos();
                    thread::sleep(self.hold);
                    Turn { asked_ns, locked_ns, unlocked_ns: clock::now().as_nanos() }
                })?);
                thread::sleep(self.pause);
            }
            say(&Reply::TookTurns { turns });
        }
        Ok(())
    }
}

struct Holding;

impl Visitor for Holding {
    type Output = ();

    fn visit(self, mut lock: impl Cross + 'static) -> Result<()> {
        let mut orders = ready();
        lock.with(|| {
            say(&Reply::Held);
            // Until it is killed; or until its parent is gone.
            while orders.next().is_some() {}
        })
    }
}

/// Says so, and hands over the orders that follow.
fn ready() -> impl Iterator<Item = Order> {
    say(&Reply::Ready);
    std::io::stdin().lines().map_while(|line| serde_json::from_str(&line.ok()?).ok())
}

/// Waits for the start of an order and returns its length.
fn wait_for(order: Order) -> Duration {
    let start = Time::from_nanos(order.start_ns);
    let to_go = start.since(clock::now());
    thread::sleep(to_go.saturating_sub(Duration::from_micros(500)));
    while clock::now() < start {
        std::hint::spin_loop();
    }
    Time::from_nanos(order.end_ns).since(start)
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
        let directory = "/tmp/with space/\"quote\"".into();
        let lock = CrossLock::Tierlock { directory, name: "a/b".into() };
        let job = Job::Contend { lock, counter: "/c".into(), hold_us: 200 };
        let text = json(&Spec { parent: 7, job });
        let spec: Spec = serde_json::from_str(&text).unwrap();
        assert_eq!(json(&spec), text);
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        assert_eq!(main("{}".into()), 64);
    }
}
