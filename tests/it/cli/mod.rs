//! The program, as real processes: exit statuses, what protects a command, the terminal, the
//! leader, what is shown.
//!
//! Nothing here hopes that a time was long enough: tests wait for lines on pipes, for processes
//! to be gone, for exit statuses. The one limit, [`PATIENCE`], is there so that a fault fails a
//! test instead of hanging it.

mod breaking;
mod browser;
mod checking;
mod deadlocks;
mod electing;
mod escaping;
mod explaining;
mod holding;
mod installing;
mod leftovers;
mod limits;
mod logging;
mod manual;
mod messages;
mod nesting;
mod page;
mod protection;
mod roles;
mod serving;
mod sharing;
mod showing;
mod signals;
mod spellings;
mod statuses;
mod telling;
mod terminal;

use std::{
    cell::{Cell, RefCell},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use tierlock::{Engine, LockManager};

use crate::{
    setting::{Handle, Port},
    surroundings::{copy_program, program, signals_of},
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the locks of one test live.
struct Place {
    root: tempfile::TempDir,
    /// Those of its leaders, which may come back to them.
    ports: RefCell<Vec<Port>>,
    /// A leader has been started here, and made its journal.
    is_made: Cell<bool>,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        Place { root, ports: RefCell::default(), is_made: Cell::new(false) }
    }

    /// One for each engine of a directory.
    fn of_each_engine() -> [Place; 2] {
        [Engine::Table, Engine::FileLock].map(|engine| {
            let place = Place::new();
            let builder = LockManager::builder().directory(place.dir()).engine(engine);
            drop(builder.open().unwrap());
            place
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The directory of the process-scope locks.
    fn dir(&self) -> PathBuf {
        self.path("locks")
    }

    /// A `tierlock status` at process scope.
    fn status(&self) -> Command {
        let mut command = tierlock(&["status", "--dir"]);
        command.arg(self.dir());
        command
    }

    /// A `tierlock run` at process scope.
    fn run(&self) -> Command {
        let mut command = tierlock(&["run", "--dir"]);
        command.arg(self.dir());
        command
    }

    /// Runs `args` after `tierlock run --dir DIR`.
    fn ran(&self, args: &[&str]) -> Output {
        self.run().args(args).output().unwrap()
    }

    fn secret(&self) -> PathBuf {
        let file = self.path("secret");
        if !file.exists() {
            let made = tierlock(&["secret", "new"]).arg(&file).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        file
    }

    /// A `tierlock serve` on the place's state directory, in a temporary directory of whatever kind.
    fn serve(&self, address: &str) -> Command {
        let mut command = tierlock(&["serve", "--listen", address, "--accept-fs", "tmpfs"]);
        command.arg("--state-dir").arg(self.path("state"));
        command.arg("--secret-file").arg(self.secret());
        // Tests of something else look at alarms only.
        command.args(["--log", "brief"]);
        command
    }

    /// A leader of its own, on a free port.
    fn leader(&self) -> Leader {
        self.leader_with(&[])
    }

    fn leader_with(&self, options: &[&str]) -> Leader {
        let port = Port::claim();
        let address = port.address().to_string();
        self.ports.borrow_mut().push(port);
        self.leader_at(&address, options)
    }

    /// The same there, with further options: one that is started again, perhaps.
    fn leader_at(&self, address: &str, options: &[&str]) -> Leader {
        let secret = self.secret();
        let mut command = self.serve(address);
        if !self.is_made.replace(true) {
            command.arg("--init");
        }
        let mut process = Running::start(command.args(options));
        let line = process.line();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        Leader { address: address.to_owned(), secret, process }
    }
}

/// A running `tierlock serve`.
struct Leader {
    address: String,
    secret: PathBuf,
    process: Running,
}

impl Leader {
    /// A `tierlock run` at host scope, without a directory.
    fn run(&self) -> Command {
        self.command("run")
    }

    /// Kills it, and waits until it is gone.
    fn stop(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.exit();
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = tierlock(&[subcommand, "--leader", &self.address, "--secret-file"]);
        command.arg(&self.secret);
        command
    }
}

/// The program, with none of our own settings in its environment, nor signals that it ignores.
fn tierlock(args: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A shell script: `$0` is the program and `$1` the directory of the locks.
fn script(place: &Place, script: &str) -> Command {
    let mut command = program("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_tierlock")]).arg(place.dir());
    command.stdin(Stdio::null());
    command
}

/// A process with a standard output that is read line by line. Dropped, it is killed.
struct Running {
    child: Child,
    handle: Handle,
    lines: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let stderr = lines_of(child.stderr.take().unwrap());
        let handle = Handle::of(Pid::from_child(&child)).unwrap();
        Running { child, handle, lines, stderr }
    }

    /// A shell script run by `run` as the holder of the lock `name`.
    fn script(run: &mut Command, options: &[&str], name: &str, script: &str) -> Running {
        Running::start(run.args(options).args([name, "--", "sh", "-c", script]))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("the test pipes standard input")
    }

    fn line(&mut self) -> String {
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
            let _ = self.child.kill();
            // What it has left behind may never close it.
            let stderr: Vec<_> = self.stderr.try_iter().collect();
            panic!("no line came; standard error: {stderr:?}")
        };
        line
    }

    fn error_line(&mut self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("a line of standard error comes")
    }

    /// The next line as a process id.
    fn pid_line(&mut self) -> Pid {
        let line = self.line();
        Pid::from_raw(line.trim().parse().unwrap_or_else(|_| panic!("no pid: {line}"))).unwrap()
    }

    fn signal(&self, signal: Signal) {
        self.handle.signal(signal).unwrap();
    }

    /// Stops it, and waits until none of its threads runs any more: a signal is not everywhere at
    /// once.
    fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        eventually("all of it is stopped", || {
            let mut tasks = std::fs::read_dir(&tasks).unwrap();
            tasks.all(|task| state_of(&task.unwrap().path()).starts_with('T')).then_some(())
        });
    }

    fn exit(&mut self) -> ExitStatus {
        eventually("the process exits", || self.child.try_wait().unwrap())
    }

    /// The exit status, and what is left of standard error once all have closed it.
    fn end(&mut self) -> (ExitStatus, String) {
        let status = self.exit();
        let mut text = String::new();
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => text = text + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => return (status, text),
                Err(RecvTimeoutError::Timeout) => panic!("standard error is never closed"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines();
        lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

/// Whether the process runs: it exists and is no zombie.
fn runs(pid: Pid) -> bool {
    let state = state_of(Path::new(&format!("/proc/{}", pid.as_raw_nonzero())));
    !(state.is_empty() || state.starts_with(['Z', 'X']))
}

/// What /proc tells of a process or a thread from its state on; nothing of one that is gone.
fn state_of(task: &Path) -> String {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").map(|(_, state)| state.to_owned()).unwrap_or_default()
}

fn gone(pid: Pid) {
    eventually("the process is gone", || (!runs(pid)).then_some(()));
}

/// What `tierlock status --json JOB` of a directory or of a leader shows of the one lock `job`.
fn shown(status: Command) -> serde_json::Value {
    shown_name(status, "job")
}

fn shown_name(mut status: Command, name: &str) -> serde_json::Value {
    let output = status.args(["--json", name]).output().unwrap();
    let mut shown: serde_json::Value = serde_json::from_str(&succeeds(&output)).unwrap();
    shown["locks"][0].take()
}

/// Whether the process listens to SIGTERM, which /proc tells.
fn catches_sigterm(pid: Pid) -> Option<()> {
    (signals_of(pid, "SigCgt:")? >> 14 & 1 == 1).then_some(())
}

/// Looks until there is something to see.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Exactly one line, and it is ours.
#[track_caller]
fn the_one_line(stderr: &[u8]) -> String {
    let text = std::str::from_utf8(stderr).unwrap();
    assert!(text.starts_with("tierlock: "), "{text:?}");
    assert_eq!(text.lines().count(), 1, "{text:?}");
    text.trim_end().to_owned()
}

/// The last line; the others are ours, too.
#[track_caller]
fn the_last_line(stderr: &str) -> &str {
    assert!(stderr.lines().all(|line| line.starts_with("tierlock: ")), "{stderr:?}");
    stderr.lines().last().expect("a line of standard error")
}

/// It failed with this status, in one line that holds all of `words`.
#[track_caller]
fn fails(output: &Output, status: i32, words: &[&str]) {
    let line = the_one_line(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}
