//! Groups of leaders that keep their journal themselves: real processes on loopback, each with a disk of
//! its own.
//!
//! What is waited for is an event: a line that a member says, what `status` shows, an answer.

mod disks;
mod failing;
mod killing;
mod starting;

use std::{
    cell::{Cell, RefCell},
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tierlock::{LockManager, MutexGuard, Scope};

use crate::{
    setting::{LONG, LONG_LIFE, Port, new_secret, temp_dir, until},
    surroundings::program,
};

/// L where a member is to be followed soon.
const SOON: &str = "1s";
/// Where no reign is to end of itself, however slow the machine is.
const SLOWLY: &str = "5s";

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What the members of a group and their clients share.
struct GroupRig {
    files: TempDir,
    ports: Vec<Port>,
    reign: &'static str,
}

impl GroupRig {
    /// A group of so many that is not made yet.
    fn new(count: usize, reign: &'static str) -> GroupRig {
        let files = temp_dir();
        new_secret(&files.path().join("secret"));
        let ports = (0..count).map(|_| Port::claim()).collect();
        GroupRig { files, ports, reign }
    }

    /// One of three, made, and one of its members reigns.
    fn of_three(reign: &'static str) -> (GroupRig, Vec<Member>) {
        let rig = GroupRig::new(3, reign);
        let members: Vec<_> = (0..3).map(|number| rig.start(number, &["--init"])).collect();
        first_to_reign(&members);
        (rig, members)
    }

    fn secret(&self) -> PathBuf {
        self.files.path().join("secret")
    }

    fn state(&self, number: usize) -> PathBuf {
        self.files.path().join(NAMES[number])
    }

    fn address(&self, number: usize) -> String {
        self.ports[number].address().to_string()
    }

    /// As `--leader` has them.
    fn addresses(&self) -> String {
        let all: Vec<_> = (0..self.ports.len()).map(|number| self.address(number)).collect();
        all.join(",")
    }

    /// As `--group` has them.
    fn members(&self) -> String {
        let member = |number| format!("{}={}", NAMES[number], self.address(number));
        (0..self.ports.len()).map(member).collect::<Vec<_>>().join(",")
    }

    fn serve(&self, number: usize, more: &[&str]) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", &self.address(number), "--group", &self.members()]);
        command.args(["--reign", self.reign, "--accept-fs", "tmpfs", "--state-dir"]);
        command.arg(self.state(number)).arg("--secret-file").arg(self.secret()).args(more);
        command
    }

    /// Starts a member, and waits until it listens.
    fn start(&self, number: usize, more: &[&str]) -> Member {
        let member = Member::start(self.serve(number, more));
        member.says("listening on ");
        member
    }

    /// A client of the group, the locks of which outlive whatever becomes of its members.
    fn locks(&self) -> LockManager {
        let addresses = (0..self.ports.len()).map(|number| self.address(number));
        let builder = LockManager::builder().leaders(addresses).secret_file(self.secret());
        builder.time_to_live(LONG_LIFE).connect_timeout(LONG).open().unwrap()
    }

    /// The program, as an operator runs it against these leaders.
    fn tierlock(&self, arguments: &[&str]) -> Output {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(arguments).args(["--leader", &self.addresses(), "--secret-file"]);
        command.arg(self.secret()).output().unwrap()
    }

    /// What each member shows of its group, by the word of one of them.
    fn seen_by(&self, number: usize) -> Option<Vec<SeenMember>> {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["doctor", "--leader", &self.address(number), "--secret-file"]);
        let output = command.arg(self.secret()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let members: Vec<_> = text.lines().filter_map(SeenMember::read).collect();
        (!members.is_empty()).then_some(members)
    }

    /// Waits until one of the members says that all of these are there, vote, and lack nothing.
    fn until_whole(&self, count: usize) {
        until("a group that is whole", || {
            (0..self.ports.len()).filter_map(|number| self.seen_by(number)).any(|seen| {
                let is_whole = |member: &SeenMember| {
                    let text = &member.text;
                    member.is_fine && (text.contains("leads") || text.contains("up to date"))
                };
                seen.len() == count && seen.iter().all(is_whole)
            })
        });
    }

    /// All of `status --json`.
    fn status(&self) -> Value {
        let output = self.tierlock(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What a doctor says of a member.
struct SeenMember {
    is_fine: bool,
    text: String,
}

impl SeenMember {
    fn read(line: &str) -> Option<SeenMember> {
        let (level, text) = line.split_once(' ')?;
        let text = text.trim_start();
        text.starts_with("member ")
            .then(|| SeenMember { is_fine: level == "ok:", text: text.to_owned() })
    }
}

/// `tierlock serve`, and what it says.
struct Member {
    child: RefCell<Child>,
    lines: mpsc::Receiver<String>,
    heard: RefCell<Vec<String>>,
    /// As far as its lines were read.
    is_reigning: Cell<bool>,
}

impl Member {
    fn start(mut command: Command) -> Member {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (say, lines) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let say = say.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    let Ok(line) = line else { return };
                    let _ = say.send(line);
                }
            });
        }
        Member {
            child: RefCell::new(child),
            lines,
            heard: RefCell::default(),
            is_reigning: Cell::default(),
        }
    }

    /// Waits until it has said this, after what was waited for before.
    fn says(&self, words: &str) -> String {
        while let Some(line) = self.hear(LONG) {
            if line.contains(words) {
                return line;
            }
        }
        panic!("it did not say {words:?}, but: {:#?}", self.heard.borrow());
    }

    /// Its next line, if that comes so soon.
    fn hear(&self, limit: Duration) -> Option<String> {
        let line = self.lines.recv_timeout(limit).ok()?;
        self.heard.borrow_mut().push(line.clone());
        if line.contains("it reigns from now on") {
            self.is_reigning.set(true);
        } else if ["its reign is over", "hands its reign over", "handed its reign over"]
            .iter()
            .any(|end| line.contains(end))
        {
            self.is_reigning.set(false);
        }
        Some(line)
    }

    /// Whether it has ever said this.
    fn has_said(&self, words: &str) -> bool {
        while self.hear(Duration::ZERO).is_some() {}
        self.heard.borrow().iter().any(|line| line.contains(words))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.borrow()), signal).unwrap();
    }

    /// Ends it as a crash would.
    fn kill(&self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
        self.is_reigning.set(false);
    }

    /// Waits for its end.
    fn ended(&self) -> ExitStatus {
        let mut child = self.child.borrow_mut();
        until("the end of a member", || child.try_wait().unwrap().is_some());
        self.is_reigning.set(false);
        child.wait().unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            while self.hear(Duration::ZERO).is_some() {}
            eprintln!("a member said: {:#?}", self.heard.borrow());
        }
    }
}

/// Which of them reigns, by all that they have said by now, once one does.
fn first_to_reign(members: &[Member]) -> usize {
    let mut found = None;
    until("a member that reigns", || {
        members.iter().for_each(|member| while member.hear(Duration::ZERO).is_some() {});
        found = members.iter().position(|member| member.is_reigning.get());
        found.is_some()
    });
    found.unwrap()
}

fn hold(locks: &LockManager, name: &str) -> MutexGuard<'static, ()> {
    locks.mutex(name, ()).scope(Scope::Host).lock().unwrap()
}

/// Gives it back, and hears that it was held to the end.
fn give(guard: MutexGuard<'static, ()>) {
    MutexGuard::unlock_blocking(guard).unwrap();
}

/// It failed with this status, in words of ours that hold all of these.
#[track_caller]
fn fails(output: &Output, status: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(status), "{text}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A disk that is lost.
fn lose(rig: &GroupRig, number: usize) {
    fs::remove_dir_all(rig.state(number)).unwrap();
}
