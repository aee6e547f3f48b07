//! Processes to be killed, stopped and counted with: this test binary, started again to run
//! `helper::process` alone.
//!
//! A helper does what it is told line by line, the words of a line parted by tabs, and answers
//! each line with one that begins with `@`. It ends with its standard input, also while it waits
//! for a lock, and is killed when its [`Helper`] is dropped.

mod storm;
mod under_kills;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tierlock::{
    Engine, Leader, LockError, LockManager, LockManagerBuilder, Mutex, MutexBuilder, MutexGuard,
    RwLock, Scope, Semaphore,
    fence::{FileEntry, FileGate},
};

pub(crate) use self::under_kills::{CROWD_PERMITS, may_tell_of};
use crate::{
    setting::{Handle, LONG, stamp},
    surroundings::program,
};

/// Tells the binary that it is a helper.
const HELPER: &str = "TIERLOCK_TEST_HELPER";

pub(crate) struct Helper {
    child: Child,
    handle: Handle,
    to: ChildStdin,
    from: mpsc::Receiver<String>,
    /// Said, and not asked for yet.
    early: Option<String>,
}

/// A lock as a helper got it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) token: u64,
    pub(crate) predecessor: String,
    pub(crate) scope: Scope,
    /// A moment at which it had it.
    pub(crate) at: u64,
}

impl Helper {
    pub(crate) fn start() -> Helper {
        Helper::start_with(|_| {})
    }

    /// One of another user; only root can.
    pub(crate) fn start_as(user: u32) -> Helper {
        Helper::start_with(|command| {
            command.uid(user).gid(user);
        })
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Command)) -> Helper {
        let mut command = program(std::env::current_exe().unwrap());
        command
            .args(["helper::process", "--exact", "--nocapture"])
            .env(HELPER, "yes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let handle = Handle::of(Pid::from_child(&child)).unwrap();
        Helper { child, handle, to, from: lines(from), early: None }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        let early = self.early.take();
        early.unwrap_or_else(|| self.from.recv_timeout(LONG).expect("an answer of the helper"))
    }

    /// Whether there is something to hear.
    pub(crate) fn has_spoken(&mut self) -> bool {
        if self.early.is_none() {
            self.early = self.from.try_recv().ok();
        }
        self.early.is_some()
    }

    pub(crate) fn lock(&mut self, scope: Scope, name: &str) -> Got {
        self.say_lock(scope, name);
        self.hear_lock()
    }

    pub(crate) fn say_lock(&mut self, scope: Scope, name: &str) {
        self.say(&format!("lock\t{scope}\t{name}"));
    }

    pub(crate) fn hear_lock(&mut self) -> Got {
        let answer = self.hear();
        let words: Vec<_> = answer.split('\t').collect();
        let ["held", token, predecessor, scope, at] = words[..] else { panic!("{answer}") };
        Got {
            token: token.parse().unwrap(),
            predecessor: predecessor.into(),
            scope: scope.parse().unwrap(),
            at: at.parse().unwrap(),
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        crate::setting::until("the helper's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it, and waits until it stands still.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        self.until_stopped();
    }

    /// Waits until it stands still.
    pub(crate) fn until_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.id());
        crate::setting::until("a stopped helper", || {
            fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
        });
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.handle.signal(signal).unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The helper's answers, read as they come.
fn lines(from: ChildStdout) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The test runner's own words may stand before it.
            if let Some((_, answer)) = line.split_once('@') {
                let _ = tell.send(answer.to_owned());
            }
        }
    });
    told
}

/// A part of other tests, which start it.
#[test]
fn process() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
        std::process::exit(0);
    });
    let mut state = State::default();
    for line in told {
        let answer = state.obey(&line).unwrap_or_else(|error| {
            format!("error\t{:?}\t{}", error.kind(), error.to_string().replace('\n', " "))
        });
        let mut out = std::io::stdout().lock();
        writeln!(out, "@{answer}").unwrap();
        out.flush().unwrap();
    }
}

#[derive(Default)]
struct State {
    locks: Option<LockManager>,
    /// Of the same directory.
    other: Option<LockManager>,
    leader: Option<Leader>,
    guards: HashMap<String, MutexGuard<'static, ()>>,
    shared: Vec<Box<dyn std::any::Any>>,
    entry: Option<FileEntry>,
}

impl State {
    fn obey(&mut self, line: &str) -> Result<String, LockError> {
        let words: Vec<_> = line.split('\t').collect();
        match words[..] {
            ["open", ref settings @ ..] => self.locks = Some(open(settings)?),
            ["open-another", ref settings @ ..] => self.other = Some(open(settings)?),
            ["open-from-environment"] => self.locks = Some(LockManager::from_env()?),
            ["serve", address, state, secret, how] => {
                let leader = Leader::builder().listen(address).state_dir(state);
                let leader = leader.init(how == "new").accept_file_system("tmpfs");
                let leader = leader.secret_file(secret).start()?;
                let answer = format!("listening\t{}", leader.local_addr());
                self.leader = Some(leader);
                return Ok(answer);
            }
            ["lock", scope, name] => {
                let guard = self.mutex(scope, name).lock()?;
                return Ok(self.keep(name, guard));
            }
            ["try", scope, name] => {
                let guard = self.mutex(scope, name).try_lock()?;
                return Ok(self.keep(name, guard));
            }
            ["try-for", scope, name, millis] => {
                let wait = Duration::from_millis(millis.parse().unwrap());
                let guard = self.mutex(scope, name).try_lock_for(wait)?;
                return Ok(self.keep(name, guard));
            }
            ["read", scope, name] => {
                self.shared.push(Box::new(self.rw_lock(scope, name)?.read_arc()?));
            }
            ["upgradable", scope, name] => {
                self.shared.push(Box::new(self.rw_lock(scope, name)?.upgradable_read_arc()?));
            }
            ["write", scope, name] => {
                self.shared.push(Box::new(self.rw_lock(scope, name)?.write_arc()?));
            }
            ["campaign", scope, name, value] => {
                let election = self.locks.as_ref().unwrap().election(name);
                let leadership = election.scope(scope.parse().unwrap()).campaign(value)?;
                let answer = format!("elected\t{}", leadership.token());
                self.shared.push(Box::new(leadership));
                return Ok(answer);
            }
            ["permits", scope, name, permits, count] => {
                let semaphore = self.semaphore(scope, name, permits.parse().unwrap())?;
                self.shared.push(Box::new(semaphore.acquire_many_arc(count.parse().unwrap())?));
            }
            ["return permits"] => self.shared.clear(),
            ["crowd", scope, name, folder, seed] => {
                let semaphore = self.semaphore(scope, name, CROWD_PERMITS)?;
                return under_kills::crowd(&semaphore, Path::new(folder), seed.parse().unwrap());
            }
            ["storm", name, folder, seed] => {
                let managers = [&self.locks, &self.other].map(|locks| locks.as_ref().unwrap());
                return storm::storm(managers, name, Path::new(folder), seed.parse().unwrap());
            }
            ["pair", scope, name, folder, seed, seats] => {
                let seats = match seats {
                    "" => None,
                    seats => Some(self.semaphore(scope, seats, CROWD_PERMITS)?),
                };
                let lock = self.rw_lock(scope, name)?;
                let (folder, seed) = (Path::new(folder), seed.parse().unwrap());
                return under_kills::pair(&lock, seats.as_deref(), folder, seed);
            }
            ["unlock", name] => {
                let guard = self.guards.remove(name).unwrap();
                futures::executor::block_on(MutexGuard::unlock_async(guard))?;
            }
            ["look", name] => {
                let guard = &self.guards[name];
                let is_valid = MutexGuard::is_valid(guard);
                let checked = MutexGuard::check(guard).map_err(|error| error.kind());
                return Ok(format!("{is_valid}\t{checked:?}"));
            }
            ["look-after-stop", how, name] => {
                // The stop may come as soon as that is said.
                let before = stamp();
                println!("@waiting");
                wait_for_stop(before);
                let guard = &self.guards[name];
                let is_lost = match how {
                    "check" => MutexGuard::check(guard).is_err_and(|error| error.is_lost()),
                    _ => !MutexGuard::is_valid(guard),
                };
                return Ok(format!("lost\t{is_lost}"));
            }
            ["hear-lost", name] => {
                let why = futures::executor::block_on(MutexGuard::lost(&self.guards[name]));
                return Ok(format!("lost\t{why:?}"));
            }
            ["until-lost", name] => return Ok(until_lost(&self.guards[name])),
            ["panic", name] => {
                let guard = self.guards.remove(name).unwrap();
                let panicked = thread::spawn(move || {
                    let _guard = guard;
                    std::panic::resume_unwind(Box::new("on purpose"));
                });
                assert!(panicked.join().is_err());
            }
            ["enter", gate, token] => {
                self.entry = Some(FileGate::open(gate)?.enter(token.parse().unwrap())?);
            }
            ["leave"] => self.entry = None,
            ["enter-on-and-on", gate, first] => return enter_on_and_on(gate, first),
            ["work", workload, folder, id] => {
                crate::workloads::work(self.locks.as_ref().unwrap(), workload, folder, id)?;
            }
            ["exit-with-a-static-manager", scope, count] => {
                static LOCKS: std::sync::OnceLock<LockManager> = std::sync::OnceLock::new();
                let locks = LOCKS.get_or_init(|| self.locks.take().unwrap());
                let scope = scope.parse().unwrap();
                let names = (0..count.parse().unwrap()).map(|number| format!("lock {number}"));
                let guards: Result<Vec<_>, _> =
                    names.map(|name| locks.mutex(name, ()).scope(scope).lock()).collect();
                drop(guards?);
                // This one it has to the end.
                std::mem::forget(locks.mutex(format!("held by {count}"), ()).scope(scope).lock()?);
                std::process::exit(0);
            }
            ["close"] => self.locks.take().unwrap().close(),
            ["count", scope, name, folder, times] => {
                let mutex = self.mutex(scope, name).build()?;
                return count(&mutex, Path::new(folder), times.parse().unwrap());
            }
            ["log", scope, name, file, millis] => {
                let mutex = self.mutex(scope, name).build()?;
                let end = stamp() + millis.parse::<u64>().unwrap() * 1_000_000;
                return log(&mutex, Path::new(file), end);
            }
            _ => panic!("what is {line:?}?"),
        }
        Ok("ok".into())
    }

    fn rw_lock(&self, scope: &str, name: &str) -> Result<Arc<RwLock<()>>, LockError> {
        let locks = self.locks.as_ref().unwrap();
        locks.rw_lock(name, ()).scope(scope.parse().unwrap()).build().map(Arc::new)
    }

    fn semaphore(
        &self,
        scope: &str,
        name: &str,
        permits: u32,
    ) -> Result<Arc<Semaphore>, LockError> {
        let locks = self.locks.as_ref().unwrap();
        locks.semaphore(name, permits).scope(scope.parse().unwrap()).build().map(Arc::new)
    }

    fn mutex(&self, scope: &str, name: &str) -> MutexBuilder<()> {
        self.locks.as_ref().unwrap().mutex(name, ()).scope(scope.parse().unwrap())
    }

    fn keep(&mut self, name: &str, guard: MutexGuard<'static, ()>) -> String {
        let (token, scope) = (MutexGuard::token(&guard), MutexGuard::scope(&guard));
        let predecessor = MutexGuard::predecessor(&guard);
        let answer = format!("held\t{token}\t{predecessor}\t{scope}\t{}", stamp());
        self.guards.insert(name.to_owned(), guard);
        answer
    }
}

fn open(settings: &[&str]) -> Result<LockManager, LockError> {
    let set = |builder: LockManagerBuilder, setting: &&str| {
        let millis = |text: &str| Duration::from_millis(text.parse().unwrap());
        match setting.split_once('=').unwrap() {
            ("dir", dir) => builder.directory(dir),
            ("engine", "file-lock") => builder.engine(Engine::FileLock),
            ("engine", "table") => builder.engine(Engine::Table),
            ("leaders", leaders) => builder.leaders(leaders.split(',')),
            ("service", url) => builder.service(url),
            ("secret", file) => builder.secret_file(file),
            ("label", label) => builder.label(label),
            ("ttl", text) => builder.time_to_live(millis(text)),
            ("connect", text) => builder.connect_timeout(millis(text)),
            other => panic!("what is {other:?}?"),
        }
    };
    settings.iter().fold(LockManager::builder(), set).open()
}

/// Returns at once when this process goes on after a stop that began after `last`. It spins, so
/// that no other thread of this process has to run before the caller's next instruction.
pub(crate) fn wait_for_stop(mut last: u64) {
    loop {
        let now = stamp();
        if now - last > 500_000_000 {
            return;
        }
        last = now;
    }
}

/// Looks at the guard until it is lost, and tells the last moment at which it was not.
fn until_lost(guard: &MutexGuard<'static, ()>) -> String {
    let mut last = 0;
    loop {
        let now = stamp();
        if !MutexGuard::is_valid(guard) {
            let why = MutexGuard::check(guard).unwrap_err();
            return format!("lost\t{last}\t{why}");
        }
        last = now;
        thread::sleep(Duration::from_millis(1));
    }
}

/// Adds to a counter that nothing else protects, and marks the place while it is there.
fn count(mutex: &Mutex<()>, folder: &Path, times: u64) -> Result<String, LockError> {
    let (counter, marker) = (folder.join("counter"), folder.join("marker"));
    for _ in 0..times {
        let guard = mutex.lock()?;
        if File::create_new(&marker).is_err() {
            return Ok("another thread is here".into());
        }
        let old: u64 = fs::read_to_string(&counter).unwrap_or_default().parse().unwrap_or_default();
        fs::write(&counter, (old + 1).to_string()).unwrap();
        fs::remove_file(&marker).unwrap();
        MutexGuard::unlock(guard)?;
    }
    Ok("ok".into())
}

/// Enters with one token after the other, and tells of each that got in.
fn enter_on_and_on(gate: &str, first: &str) -> Result<String, LockError> {
    let gate = FileGate::open(gate)?;
    let mut token: tierlock::Token = first.parse().unwrap();
    loop {
        drop(gate.enter(token)?);
        println!("@{token}");
        token = token.next().unwrap();
    }
}

/// Locks over and over until `end`, and writes down from when to when it surely had the lock, and
/// its token.
fn log(mutex: &Mutex<()>, file: &Path, end: u64) -> Result<String, LockError> {
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    while stamp() < end {
        let guard = mutex.lock()?;
        let from = stamp();
        thread::sleep(Duration::from_millis(20));
        let to = stamp();
        if MutexGuard::is_valid(&guard) {
            let line = format!("{from} {to} {}\n", MutexGuard::token(&guard));
            file.write_all(line.as_bytes()).unwrap();
        }
    }
    Ok("ok".into())
}
