//! Stores as the journal of leaders that follow each other: real leaders, real servers.
//!
//! What is waited for is an event: a line that a leader says, a row or a key in the store, an answer.

mod asking;
mod following;
mod killing;
mod looking;
mod moving;
mod starting;
mod stores;

use std::{
    cell::{Cell, RefCell},
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tierlock::LockManager;

use super::rig::{ENDLESS, EngineRig};
use crate::{
    setting::{LONG, free_address, new_secret, temp_dir},
    surroundings::program,
};

/// L where a leader is to be followed soon.
const SOON: &str = "500ms";
/// Where no reign is to end of itself, however slow the machine is.
const SLOWLY: &str = "10s";

/// A store with a journal in it, and what its leaders and their clients share.
struct JournalRig<'a> {
    store: &'a EngineRig,
    files: TempDir,
    is_made: RefCell<bool>,
}

impl JournalRig<'_> {
    fn new(store: &EngineRig) -> JournalRig<'_> {
        let files = temp_dir();
        new_secret(&files.path().join("secret"));
        JournalRig { store, files, is_made: RefCell::default() }
    }

    fn secret(&self) -> PathBuf {
        self.files.path().join("secret")
    }

    /// The next leader, which makes the journal if it is the first.
    fn leader(&self, reign: &str) -> Served {
        self.leader_on(&self.store.url(), reign)
    }

    /// The same by a way of its own to the store.
    fn leader_on(&self, url: &str, reign: &str) -> Served {
        let is_made = self.is_made.replace(true);
        let leader = self.spawn(url, &["--reign", reign], !is_made);
        leader.address();
        leader
    }

    fn spawn(&self, url: &str, more: &[&str], init: bool) -> Served {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        // One that is started again listens where it did.
        let listen = free_address().to_string();
        command.args(["serve", "--listen", &listen, "--journal", url, "--secret-file"]);
        command.arg(self.secret()).args(more);
        if init {
            command.arg("--init");
        }
        Served::start(command)
    }

    /// A client of these leaders, the locks of which outlive whatever becomes of them.
    fn locks(&self, leaders: &[&Served]) -> LockManager {
        let addresses = leaders.iter().map(|leader| leader.address());
        let builder = LockManager::builder().leaders(addresses).secret_file(self.secret());
        builder.time_to_live(ENDLESS).connect_timeout(LONG).open().unwrap()
    }

    /// How many sessions are open, by the store's own word.
    fn sessions(&self) -> usize {
        let server = &self.store.servers[0];
        match self.store.kind {
            "etcd" => {
                let keys = server.cli(&["get", "--prefix", "--keys-only", "tierlock/s/"]);
                keys.lines().filter(|line| !line.is_empty()).count()
            }
            _ => server.cli(&["SELECT count(*) FROM tierlock_session"]).parse().unwrap(),
        }
    }

    /// The epoch, by the store's own word.
    fn epoch(&self) -> u32 {
        let server = &self.store.servers[0];
        let told = match self.store.kind {
            "etcd" => server.cli(&["get", "--print-value-only", "tierlock/head/epoch"]),
            _ => server.cli(&["SELECT epoch FROM tierlock_head"]),
        };
        told.split(' ').next().unwrap().parse().unwrap()
    }
}

/// `tierlock serve`, and what it says.
pub(super) struct Served {
    child: RefCell<Child>,
    lines: mpsc::Receiver<String>,
    heard: RefCell<Vec<String>>,
    /// As far as its lines were read.
    is_reigning: Cell<bool>,
}

impl Served {
    pub(super) fn start(mut command: Command) -> Served {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
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
        Served {
            child: RefCell::new(child),
            lines,
            heard: RefCell::default(),
            is_reigning: Cell::default(),
        }
    }

    /// Waits until it has said this, after what was waited for before.
    pub(super) fn says(&self, words: &str) -> String {
        self.says_within(words, LONG).unwrap_or_else(|| {
            panic!("it did not say {words:?}, but: {:#?}", self.heard.borrow());
        })
    }

    fn says_within(&self, words: &str, limit: Duration) -> Option<String> {
        loop {
            let line = self.hear(limit)?;
            if line.contains(words) {
                return Some(line);
            }
        }
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

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        let of = |line: &String| line.strip_prefix("listening on ").map(str::to_owned);
        if let Some(known) = self.heard.borrow().iter().find_map(of) {
            return known;
        }
        of(&self.says("listening on ")).unwrap()
    }

    /// Waits until it reigns, by what it has said by now. It listens before it does or after.
    fn reigns(&self) {
        if !self.is_reigning.get() {
            self.says("it reigns from now on");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child.borrow());
        kill_process(pid, signal).unwrap();
    }

    fn kill(&self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits for its end.
    fn ended(&self) -> ExitStatus {
        let mut child = self.child.borrow_mut();
        crate::setting::until("the end of a leader", || child.try_wait().unwrap().is_some());
        child.wait().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Which of them reigns, by all that they have said by now, once one does.
fn first_to_reign(leaders: &[Served]) -> usize {
    let mut found = None;
    crate::setting::until("a leader that reigns", || {
        leaders.iter().for_each(|leader| while leader.hear(Duration::ZERO).is_some() {});
        found = leaders.iter().position(|leader| leader.is_reigning.get());
        found.is_some()
    });
    found.unwrap()
}
