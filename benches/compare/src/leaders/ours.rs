//! Leaders of ours that follow each other: processes of the program, on loopback.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex as StdMutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tierlock::{Keep, LockManager, Mutex, MutexGuard, Scope};

use crate::{
    bench::{
        cleanup::OwnChild,
        failure::{BenchFailure, Result},
    },
    peers::{
        followed::{Followed, Proof, ReignClient, Reigning},
        server::{Become, ports_for_long},
    },
};

/// Where their journal is.
pub(crate) enum JournalPlace {
    /// In a state directory, of one leader that no other follows.
    Alone(PathBuf),
    /// In a directory of each member, below this one.
    Group(PathBuf),
    /// In a store, by its URL.
    Store(String),
}

const MEMBERS: [&str; 3] = ["a", "b", "c"];

/// One leader, or three of them.
pub(crate) struct OurLeaders {
    program: PathBuf,
    secret_file: PathBuf,
    place: JournalPlace,
    ports: Vec<LeaderPort>,
    running: Vec<Option<RunningLeader>>,
    heard: Arc<Heard>,
}

impl OurLeaders {
    /// Starts them on a new journal, and waits until one of them reigns and the others stand by.
    pub(crate) fn start(
        program: &Path,
        secret_file: &Path,
        place: JournalPlace,
    ) -> Result<OurLeaders> {
        let count = if matches!(place, JournalPlace::Alone(_)) { 1 } else { MEMBERS.len() };
        let mut leaders = OurLeaders {
            program: program.to_owned(),
            secret_file: secret_file.to_owned(),
            place,
            ports: (0..count).map(|_| LeaderPort::claim()).collect::<Result<_>>()?,
            running: (0..count).map(|_| None).collect(),
            heard: Arc::new(Heard::of(count)),
        };
        // A store's journal is made by the first one, and that of a group by all of them together.
        let one_by_one = matches!(leaders.place, JournalPlace::Store(_));
        for number in 0..count {
            leaders.spawn(number, number == 0 || !one_by_one)?;
            if one_by_one {
                leaders.until_of_use(number)?;
            }
        }
        (0..count).try_for_each(|number| leaders.until_of_use(number))?;
        Ok(leaders)
    }

    fn address(&self, number: usize) -> String {
        self.ports[number].address().to_string()
    }

    fn addresses(&self) -> Vec<String> {
        (0..self.ports.len()).map(|number| self.address(number)).collect()
    }

    /// Starts one, and does not wait for it.
    fn spawn(&mut self, number: usize, init: bool) -> Result<()> {
        let mut arguments: Vec<String> =
            ["serve", "--log", "brief", "--listen"].map(Into::into).into();
        arguments.push(self.address(number));
        arguments.extend(["--secret-file".into(), self.secret_file.display().to_string()]);
        let state_dir = match &self.place {
            JournalPlace::Alone(directory) => Some(directory.clone()),
            JournalPlace::Group(directory) => {
                let member = |(id, address)| format!("{id}={address}");
                let members: Vec<_> =
                    MEMBERS.into_iter().zip(self.addresses()).map(member).collect();
                arguments.extend(["--group".into(), members.join(",")]);
                Some(directory.join(MEMBERS[number]))
            }
            JournalPlace::Store(url) => {
                arguments.extend(["--journal".into(), url.clone()]);
                None
            }
        };
        if let Some(state_dir) = state_dir {
            arguments.extend(["--accept-fs", "tmpfs", "--state-dir"].map(Into::into));
            arguments.push(state_dir.display().to_string());
        }
        if init {
            arguments.push("--init".into());
        }
        self.heard.forget(number);
        let program = Become::new(&self.program, arguments);
        self.running[number] = Some(RunningLeader::start(program, number, &self.heard)?);
        Ok(())
    }

    /// Waits until it reigns, or stands by.
    fn until_of_use(&self, number: usize) -> Result<()> {
        let alone = self.ports.len() == 1;
        let of_use = |told: &Told| {
            let of_it = &told.of[number];
            let reigns = told.reigning.is_some_and(|(_, reigning)| reigning == number);
            of_it.listens && (alone || of_it.stands_by || reigns)
        };
        self.heard.until("neither reigns nor stands by", number, of_use)
    }

    /// Runs the program against all of them.
    fn tierlock(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--leader").arg(self.addresses().join(","));
        command.arg("--secret-file").arg(&self.secret_file).stdin(Stdio::null());
        let output = command.output().map_err(BenchFailure::io("cannot run tierlock"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(BenchFailure::other(format!("{}: {}", arguments.join(" "), text.trim())))
    }
}

impl Followed for OurLeaders {
    fn client(&mut self) -> Result<Box<dyn ReignClient>> {
        let builder = LockManager::builder().leaders(self.addresses()).label("bench");
        let locks = builder.secret_file(&self.secret_file).open()?;
        let quiet = mutex(&locks, "quiet")?;
        Ok(Box::new(OurClient { locks, quiet, held: None }))
    }

    fn reigning(&mut self) -> Result<Reigning> {
        if self.ports.len() == 1 {
            return Ok(Reigning { number: 0, reign: None, since: None });
        }
        self.heard.until("does not reign", 0, |told| told.reigning.is_some())?;
        let told = self.heard.told();
        let (epoch, number) = told.reigning.expect("it was waited for");
        Ok(Reigning { number, reign: Some(epoch.into()), since: told.since })
    }

    fn kill(&mut self, number: usize) -> Result<()> {
        // Killed and reaped.
        self.running[number] = None;
        if self.ports.len() == 1 { self.spawn(number, false) } else { Ok(()) }
    }

    fn restore(&mut self, number: usize) -> Result<()> {
        if self.running[number].is_none() {
            self.spawn(number, false)?;
        }
        self.until_of_use(number)
    }

    fn hand_over(&mut self, number: usize) -> Result<()> {
        if self.ports.len() > 1 {
            self.heard.stands_by_no_more(number);
            self.tierlock(&["step-down"])?;
            return self.until_of_use(number);
        }
        if let Some(leader) = &mut self.running[number] {
            leader.end_in_order()?;
        }
        self.kill(number)?;
        self.restore(number)
    }

    fn pids(&self) -> Vec<Pid> {
        self.running.iter().flatten().map(|leader| leader.child.pid()).collect()
    }

    fn proof(&mut self) -> Result<Proof> {
        let told = self.tierlock(&["status", "--json"])?;
        let told: Value = serde_json::from_slice(&told)
            .map_err(|error| BenchFailure::other(format!("status --json: {error}")))?;
        Ok(proof(&told))
    }
}

/// What `status --json` says of the one that reigns.
fn proof(status: &Value) -> Proof {
    let mut leaders = status["leaders"].as_array().into_iter().flatten();
    let Some(leader) = leaders.find(|leader| leader["rank"] == "reigns") else {
        return Proof::default();
    };
    Proof {
        lasts: leader["reign_lasts_ms"].as_u64().map(Duration::from_millis),
        took: leader["journal_us"].as_u64().map(Duration::from_micros),
    }
}

struct OurClient {
    locks: LockManager,
    quiet: Mutex<()>,
    held: Option<MutexGuard<'static, ()>>,
}

fn mutex(locks: &LockManager, name: &str) -> Result<Mutex<()>> {
    Ok(locks.mutex(name, ()).scope(Scope::Host).keep(Keep::Never).build()?)
}

impl ReignClient for OurClient {
    fn grant(&mut self, name: &str) -> Result<Option<u64>> {
        let mutex = mutex(&self.locks, name)?;
        // On a busy machine no leader may answer for long.
        let guard = mutex.lock().ok();
        Ok(guard.map(|guard| MutexGuard::token(&guard).epoch().into()))
    }

    fn quiet(&mut self) -> Result<()> {
        drop(self.quiet.lock()?);
        Ok(())
    }

    fn hold(&mut self, name: &str) -> Result<()> {
        // A guard that has lost its lock keeps its process out until it goes.
        self.held = None;
        let mutex = self.locks.mutex(name, ()).scope(Scope::Host).keep(Keep::Never);
        self.held = Some(mutex.lock()?);
        Ok(())
    }

    fn holds(&mut self) -> Result<bool> {
        Ok(self.held.as_ref().is_some_and(MutexGuard::is_valid))
    }

    fn give(&mut self) -> Result<bool> {
        // What the leader answers counts, not what is believed here.
        Ok(self.held.take().is_some_and(|guard| MutexGuard::unlock_blocking(guard).is_ok()))
    }
}

/// `tierlock serve`, and the threads that read what it says.
struct RunningLeader {
    child: OwnChild,
    readers: Vec<JoinHandle<()>>,
}

impl RunningLeader {
    fn start(program: Become, number: usize, heard: &Arc<Heard>) -> Result<RunningLeader> {
        let mut child = program.start_heard()?;
        let (out, err) = (child.get_mut().stdout.take(), child.get_mut().stderr.take());
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(out.expect("it was asked for")), Box::new(err.expect("it was asked for"))];
        let readers = streams.map(|stream| {
            let heard = heard.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    let Ok(line) = line else { break };
                    heard.hear(number, line);
                }
                heard.ended(number);
            })
        });
        Ok(RunningLeader { child, readers: readers.into() })
    }

    /// As an operator stops it.
    fn end_in_order(&mut self) -> Result<()> {
        let failed =
            |error: rustix::io::Errno| BenchFailure::io("cannot stop a leader")(error.into());
        kill_process(self.child.pid(), Signal::TERM).map_err(failed)?;
        let patience = Instant::now() + PATIENCE;
        while self.child.ended().is_none() {
            if Instant::now() > patience {
                return Err(BenchFailure::other("a leader did not end when it was asked to"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for RunningLeader {
    fn drop(&mut self) {
        if self.child.ended().is_none() {
            let _ = self.child.get_mut().kill();
            let _ = self.child.get_mut().wait();
            let _ = self.child.ended();
        }
        // What it has said last counts for none that is started after it.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// What leaders have said of themselves so far.
struct Heard {
    told: StdMutex<Told>,
    changed: Condvar,
}

#[derive(Default)]
struct Told {
    /// The highest epoch that one of them has said to reign in, and its number.
    reigning: Option<(u32, usize)>,
    /// When that was heard.
    since: Option<Instant>,
    of: Vec<ToldByOne>,
}

#[derive(Default)]
struct ToldByOne {
    listens: bool,
    stands_by: bool,
    has_ended: bool,
    last_words: VecDeque<String>,
}

const LAST_WORDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

impl Told {
    fn hear(&mut self, number: usize, line: String) {
        let of_it = &mut self.of[number];
        if let Some((_, epoch)) = line.split_once("it reigns from now on, in epoch ") {
            of_it.stands_by = false;
            let epoch = epoch.trim().parse().unwrap_or(0);
            if self.reigning.is_none_or(|(highest, _)| epoch > highest) {
                (self.reigning, self.since) = (Some((epoch, number)), Some(Instant::now()));
            }
        } else if line.contains("it stands by: ") {
            of_it.stands_by = true;
        } else if line.starts_with("listening on ") {
            of_it.listens = true;
        }
        let of_it = &mut self.of[number];
        if of_it.last_words.len() == LAST_WORDS {
            of_it.last_words.pop_front();
        }
        of_it.last_words.push_back(line);
    }
}

impl Heard {
    fn of(count: usize) -> Heard {
        let of = (0..count).map(|_| ToldByOne::default()).collect();
        let told = Told { of, ..Told::default() };
        Heard { told: StdMutex::new(told), changed: Condvar::new() }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, number: usize, line: String) {
        self.told().hear(number, line);
        self.changed.notify_all();
    }

    fn ended(&self, number: usize) {
        self.told().of[number].has_ended = true;
        self.changed.notify_all();
    }

    /// Before it is started anew.
    fn forget(&self, number: usize) {
        self.told().of[number] = ToldByOne::default();
    }

    fn stands_by_no_more(&self, number: usize) {
        self.told().of[number].stands_by = false;
    }

    /// Waits until so much has been told, or one has ended that was waited for.
    fn until(&self, why_not: &str, number: usize, is_so: impl Fn(&Told) -> bool) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        let mut told = self.told();
        while !is_so(&told) {
            let left = patience.saturating_duration_since(Instant::now());
            if told.of[number].has_ended || left.is_zero() {
                let words = Vec::from_iter(told.of[number].last_words.iter().cloned());
                let words = words.join("; ");
                return Err(BenchFailure::other(format!("a leader {why_not}: {words:?}")));
            }
            let waited = self.changed.wait_timeout(told, left);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

/// A port for a leader, also while it is away. Leaders listen on UDP; the TCP port of the number is claimed
/// for it.
struct LeaderPort(TcpListener);

impl LeaderPort {
    fn claim() -> Result<LeaderPort> {
        let claimed = ports_for_long().find_map(LeaderPort::claim_this);
        claimed.ok_or_else(|| BenchFailure::other("no port is free"))
    }

    fn claim_this(port: u16) -> Option<LeaderPort> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = LeaderPort(TcpListener::bind(address).ok()?);
        UdpSocket::bind(address).is_ok().then_some(port)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }
}

#[cfg(test)]
mod tests;
