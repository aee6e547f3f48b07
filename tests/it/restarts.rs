//! Leaders that are killed and started again while a client holds a lock, or waits for one.
//!
//! The holders report what they hold, and keep it; a waiter keeps its place. At no true moment
//! there are two holders, and tokens only grow.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;
use tierlock::{LockManager, LockManagerBuilder, LostReason, MutexGuard, Scope, Token};

use crate::{
    helper::Helper,
    setting::{Hand, LONG, LONG_LIFE, SHORT_LIFE, free_address, new_secret, temp_dir},
    surroundings::program,
};

/// A leader in a process of its own.
pub(crate) struct Server {
    files: TempDir,
    address: SocketAddr,
    process: Helper,
}

impl Server {
    pub(crate) fn start() -> Server {
        let files = temp_dir();
        new_secret(&files.path().join("secret"));
        for _ in 0..100 {
            let address = free_address();
            let mut process = Helper::start();
            if serve(&mut process, &files, address, "new").starts_with("listening") {
                return Server { files, address, process };
            }
        }
        panic!("no port to be had for a leader");
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn restart(&mut self) {
        self.process = Helper::start();
        let answer = serve(&mut self.process, &self.files, self.address, "again");
        assert_eq!(answer, format!("listening\t{}", self.address));
    }

    /// Stops it, and waits until it stands still.
    pub(crate) fn stop(&self) {
        self.process.stop();
    }

    pub(crate) fn resume(&self) {
        self.process.resume();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A place for files that is there as long as the server.
    pub(crate) fn folder(&self) -> &Path {
        self.files.path()
    }

    fn client(&self) -> Helper {
        self.client_of(1000)
    }

    fn client_of(&self, ttl_ms: u64) -> Helper {
        self.client_through(self.address, Duration::from_millis(ttl_ms))
    }

    /// A client that finds the leader at another address.
    pub(crate) fn client_through(&self, address: SocketAddr, time_to_live: Duration) -> Helper {
        let mut client = Helper::start();
        let secret = self.files.path().join("secret");
        let line = format!(
            "open\tlabel=client\tttl={}\tleaders={address}\tsecret={}",
            time_to_live.as_millis(),
            secret.display()
        );
        assert_eq!(client.ask(&line), "ok");
        client
    }

    /// How many wait for a lock, by what `tierlock status` shows.
    fn waiting(&self, name: &str) -> usize {
        let output = program(env!("CARGO_BIN_EXE_tierlock"))
            .args(["status", "--json", "--leader", &self.address.to_string(), "--secret-file"])
            .arg(self.files.path().join("secret"))
            .arg(name)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        shown["locks"][0]["waiters"].as_array().map_or(0, Vec::len)
    }

    /// The program as a client of this leader.
    fn command(&self, name: &str) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args([name, "--leader", &self.address.to_string(), "--secret-file"]);
        command.arg(self.files.path().join("secret"));
        command
    }

    fn manager(&self) -> LockManager {
        let builder = LockManager::builder().leaders([self.address.to_string()]);
        let builder = builder.secret_file(self.files.path().join("secret"));
        builder.time_to_live(SHORT_LIFE).open().unwrap()
    }
}

fn serve(process: &mut Helper, files: &TempDir, address: SocketAddr, how: &str) -> String {
    let (state, secret) = (files.path().join("state"), files.path().join("secret"));
    process.ask(&format!("serve\t{address}\t{}\t{}\t{how}", state.display(), secret.display()))
}

/// The last moment at which the holder had its lock for sure, and what it heard then.
fn last_moment(holder: &mut Helper) -> (u64, String) {
    let answer = holder.hear();
    let words: Vec<_> = answer.split('\t').collect();
    let ["lost", last, why] = words[..] else { panic!("{answer}") };
    (last.parse().unwrap(), why.to_owned())
}

#[test]
fn at_least_outlives_its_holder_and_its_leader() {
    let mut server = Server::start();
    let terms = ["--at-least", "10h", "--ttl", "1s"];
    let done = server.command("run").args(terms).args(["done", "--", "true"]).status().unwrap();
    assert!(done.success());
    // This one's holder dies with the leader.
    let mut run = server.command("run");
    run.args(terms).args(["both", "--", "sh", "-c", "echo holding; exec sleep 1000"]);
    let mut holder = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "holding\n");
    server.kill();
    holder.kill().unwrap();
    holder.wait().unwrap();
    for _ in 0..2 {
        server.restart();
        for name in ["done", "both"] {
            let tried = server.command("run").args(["-n", name, "--", "true"]).output().unwrap();
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert_eq!(tried.status.code(), Some(75), "{said}");
            assert!(said.contains("reserved for 10 h"), "{said}");
            let shown = server.command("status").args(["--json", name]).output().unwrap();
            let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
            let lock = &shown["locks"][0];
            assert_eq!((&lock["state"], &lock["holder"]), (&"reserved".into(), &Value::Null));
        }
        server.kill();
    }
}

#[test]
fn a_holder_keeps_its_lock_and_waiters_their_order_while_their_leader_is_killed_and_restarted() {
    // redisson#4706, #5256
    let mut server = Server::start();
    let mut holder = server.client();
    let first = holder.lock(Scope::Host, "a").token;
    let mut waiters = [server.client(), server.client()];
    for (before, waiter) in waiters.iter_mut().enumerate() {
        waiter.say_lock(Scope::Host, "a");
        crate::setting::until("a waiter in the queue", || server.waiting("a") == before + 1);
    }
    for _ in 0..2 {
        server.kill();
        server.restart();
        // What none of them has asked for is open at once, before they are back.
        let free = server.manager().mutex("b", ()).try_lock_for(LONG).map(drop);
        free.unwrap();
        crate::setting::until("both in the queue again", || server.waiting("a") == 2);
        let look = holder.ask("look\ta");
        assert!(look.starts_with("true\tOk("), "{look}");
    }
    let mut last = first;
    for index in 0..2 {
        assert!(!waiters[index].has_spoken());
        let leaving = if index == 0 { &mut holder } else { &mut waiters[index - 1] };
        assert_eq!(leaving.ask("unlock\ta"), "ok");
        let got = waiters[index].hear_lock();
        assert!(got.token > last, "{} after {last}", got.token);
        assert_eq!(got.predecessor, "clean");
        last = got.token;
    }
}

#[test]
fn a_holder_that_died_with_its_leader_is_waited_for_and_no_longer() {
    let mut server = Server::start();
    let mut holder = server.client();
    let old = holder.lock(Scope::Host, "a");
    holder.kill();
    server.kill();
    server.restart();
    let mut next = server.client();
    assert!(next.lock(Scope::Host, "a").token > old.token);
}

#[test]
fn the_locks_of_an_embedded_leaders_own_process_are_free_once_it_is_dead() {
    let mut server = Server::start();
    // The manager in the leader's process has a time to live that no test could wait out.
    let secret = server.files.path().join("secret");
    let settings = format!("leaders={}\tsecret={}", server.address, secret.display());
    assert_eq!(server.process.ask(&format!("open\tlabel=own\tttl=60000\t{settings}")), "ok");
    let old = server.process.lock(Scope::Host, "a");
    server.kill();
    server.restart();
    let mut next = server.client();
    assert!(next.lock(Scope::Host, "a").token > old.token);
}

#[test]
fn a_holder_of_an_absent_leader_is_told_at_its_deadline() {
    let mut server = Server::start();
    let [mut holder, mut waiter] = [server.client(), server.client()];
    let old = holder.lock(Scope::Host, "a");
    waiter.say_lock(Scope::Host, "a");
    holder.say("until-lost\ta");
    server.kill();
    // Without a leader, so that only its own clock can tell.
    let (last, why) = last_moment(&mut holder);
    assert!(why.contains("deadline"), "{why}");
    assert!(!waiter.has_spoken());
    server.restart();
    let got = waiter.hear_lock();
    assert!(last < got.at);
    assert!(got.token > old.token);
}

#[test]
fn a_leader_killed_over_and_over_never_makes_two_holders() {
    let mut server = Server::start();
    let log = server.files.path().join("log");
    let mut clients = [server.client(), server.client()];
    for client in &mut clients {
        client.say(&format!("log\thost\ta\t{}\t3500", log.display()));
    }
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    for _ in 0..2 {
        let before = lines();
        crate::setting::until("some grants", || lines() > before + 3);
        server.kill();
        server.restart();
    }
    for client in &mut clients {
        assert_eq!(client.hear(), "ok");
    }
    let log = fs::read_to_string(&log).unwrap();
    let mut times: Vec<(u64, u64, u64)> = log
        .lines()
        .map(|line| {
            let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            (words[0], words[1], words[2])
        })
        .collect();
    times.sort_unstable();
    for pair in times.windows(2) {
        let [(_, to, token), (from, _, next)] = [pair[0], pair[1]];
        assert!(to < from, "two holders: until {to} and from {from}");
        assert!(next > token, "{next} after {token}");
    }
    assert!(times.len() > 6);
}

#[test]
fn what_was_free_is_granted_again_after_a_restart() {
    let mut server = Server::start();
    let locks = server.manager();
    let first = MutexGuard::token(&locks.mutex("a", ()).lock().unwrap());
    server.kill();
    // redisson#4216: a caller that asks meanwhile asks on until there is a leader.
    let waiting = thread::spawn({
        let locks = locks.clone();
        move || MutexGuard::token(&locks.mutex("a", ()).try_lock_for(LONG).unwrap())
    });
    server.restart();
    assert!(waiting.join().unwrap() > first);
}

#[test]
fn a_stopped_leader_is_not_a_dead_one() {
    let server = Server::start();
    let locks = server.manager();
    let guard = locks.mutex("a", ()).lock().unwrap();
    server.stop();
    let wait = |millis| locks.mutex("b", ()).try_lock_for(Duration::from_millis(millis));
    // Too soon to call it unreachable, and no session is known to have the lock.
    let error = wait(50).unwrap_err();
    assert!(error.is_timeout() && !error.is_contended(), "{error}");
    assert!(wait(1_500).unwrap_err().is_unreachable());
    // etcd#15247: when it goes on it has been late, and takes no session for dead at once.
    Hand::new(MutexGuard::lost(&guard)).finish();
    server.resume();
    drop(locks.mutex("b", ()).try_lock_for(LONG).unwrap());
    assert!(!MutexGuard::is_valid(&guard));
    drop(guard);
    drop(locks.mutex("a", ()).try_lock_for(LONG).unwrap());
}

#[test]
fn a_silent_leader_is_warned_of_while_the_lock_is_still_good() {
    // redisson#5698; dynamodb-lock-client#6
    let server = Server::start();
    let (warn, warned) = std::sync::mpsc::channel();
    let builder = LockManager::builder().leaders([server.address.to_string()]);
    let builder = builder.secret_file(server.files.path().join("secret"));
    let locks = builder.on_warning(move |text| warn.send(text.to_owned()).unwrap()).open().unwrap();
    let mutex = locks.mutex("a", ()).build().unwrap();
    let mut guard = mutex.lock().unwrap();
    server.process.stop();
    let text = warned.recv_timeout(LONG).unwrap();
    assert!(text.contains("1 held lock is lost in"), "{text}");
    assert!(MutexGuard::is_valid(&guard));
    assert_eq!(Hand::new(MutexGuard::lost(&guard)).finish(), LostReason::Expired);
    server.process.resume();
    // What was told is not told again of the next one.
    drop(guard);
    guard = mutex.try_lock_for(LONG).unwrap();
    assert!(MutexGuard::is_valid(&guard));
    assert!(warned.try_recv().is_err());
}

/// What it has said to be durable is, at whatever moment it is killed; and it always starts again.
#[test]
fn a_leader_killed_while_it_writes_forgets_nothing_that_it_said() {
    const ROUNDS: u32 = 8;
    let mut server = Served::start();
    let steady = server.manager();
    let held = steady.mutex("steady", ()).lock().unwrap();
    let (stop, broken) = (AtomicBool::new(false), AtomicU32::new(0));
    // Sessions come and go, and leases are taken away: all of that is written.
    let busy = |name: &str, place: &Place| {
        let mut last = Token::ZERO;
        while !stop.load(Relaxed) {
            let locks = place.builder().time_to_live(SHORT_LIFE).open().unwrap();
            let guard = locks.mutex(name, ()).try_lock_for(LONG).unwrap();
            let token = MutexGuard::token(&guard);
            assert!(token > last, "{name}: {token} after {last}");
            last = token;
            match steady.break_lock(name, token) {
                // However often the leader is killed after this, the loss stays.
                Ok(()) => {
                    broken.fetch_add(1, Relaxed);
                    let why = Hand::new(MutexGuard::lost(&guard)).finish();
                    assert!(!MutexGuard::is_valid(&guard), "{name}: {why:?}");
                }
                // It is not known whether it is broken, or it was and the answer did not come.
                Err(error) => assert!(!error.is_contended(), "{error}"),
            }
        }
    };
    let place = server.place();
    thread::scope(|scope| {
        let busy = &busy;
        let all: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let place = place.clone();
                scope.spawn(move || busy(name, &place))
            })
            .into();
        for round in 0..ROUNDS {
            let before = broken.load(Relaxed);
            crate::setting::until("some losses", || {
                broken.load(Relaxed) > before || all.iter().any(|one| one.is_finished())
            });
            // Any moment will do.
            thread::sleep(Duration::from_micros(crate::setting::stamp() % 20_000));
            server.kill();
            server.restart();
            assert!(MutexGuard::is_valid(&held), "round {round}");
        }
        stop.store(true, Relaxed);
    });
    let held = MutexGuard::check(&held).unwrap();
    steady.check_token("steady", held).unwrap();
}

/// `EFBIG` stands for every way in which a disk has no room.
#[test]
fn a_leader_on_a_full_disk_says_so_and_grants_nothing_that_it_could_not_write() {
    let mut server = Served::start();
    // Longer than anything here takes.
    let builder = server.place().builder().time_to_live(Duration::from_secs(60));
    let steady = builder.connect_timeout(Duration::from_secs(1)).open().unwrap();
    let held = steady.mutex("steady", ()).lock().unwrap();
    let token = MutexGuard::token(&held);
    let take = |name: &str| steady.mutex(name, ()).try_lock_for(LONG).unwrap();
    let (lost, unbroken) = (take("lost"), take("unbroken"));
    steady.break_lock("lost", MutexGuard::token(&lost)).unwrap();
    // From now on it finds no room for another page.
    server.limit_files(4096);
    let error = steady.break_lock("unbroken", MutexGuard::token(&unbroken)).unwrap_err();
    assert!(!error.is_contended(), "{error}");
    let newcomer = server.place().manager();
    let refused = newcomer.mutex("new", ()).try_lock_for(Duration::from_millis(200)).unwrap_err();
    assert!(!refused.is_contended(), "{refused}");
    let (status, stderr) = server.end();
    assert_eq!(status, Some(74), "{stderr}");
    assert!(stderr.contains("state directory cannot be written"), "{stderr}");
    // With room again it goes on: what was lost is, and what was not is not.
    server.restart();
    drop(newcomer.mutex("new", ()).try_lock_for(LONG).unwrap());
    assert_eq!(MutexGuard::check(&held).unwrap(), token);
    assert!(!MutexGuard::is_valid(&lost));
    assert!(MutexGuard::is_valid(&unbroken));
}

/// Room is set aside at each start. Where a mount is permitted the disk is really full; elsewhere
/// what is in the way of the file `spare` stands for that.
#[test]
fn a_full_disk_refuses_new_sessions_in_words_and_ends_no_reign() {
    let mut server = Served::stopped();
    let state = server.files.path().join("state");
    fs::create_dir(&state).unwrap();
    let mount = Mount::of_mib(8, &state);
    server.start_with(&["--init"]);
    let steady = server.place().builder().time_to_live(Duration::from_secs(60)).open().unwrap();
    let held = steady.mutex("steady", ()).lock().unwrap();
    let breaks = |name: &str| {
        let guard = steady.mutex(name, ()).try_lock_for(LONG).unwrap();
        steady.break_lock(name, MutexGuard::token(&guard)).unwrap();
    };
    if mount.is_some() {
        // Full from one moment to the next: what is set aside is there, and nothing is refused.
        fill(&state);
        breaks("a");
        drop(server.place().manager().mutex("b", ()).try_lock_for(LONG).unwrap());
        make_room(&state);
    }
    // Started on a full disk it has nothing to set aside.
    server.kill();
    let spare = state.join("spare");
    fs::remove_file(&spare).unwrap();
    if mount.is_some() {
        fill(&state)
    } else {
        fs::create_dir(&spare).unwrap()
    }
    server.restart();
    let newcomer = server.place().manager();
    let error = newcomer.mutex("new", ()).try_lock_for(LONG).unwrap_err();
    assert_eq!(error.kind(), tierlock::LockErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("no room for one more session"), "{error}");
    // As the command says it.
    let run = program(env!("CARGO_BIN_EXE_tierlock"))
        .args(["run", "-n", "new", "--leader", &server.address, "--secret-file"])
        .arg(server.files.path().join("secret"))
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(77), "{run:?}");
    // Sessions that are open go on, and a loss is durable before it is told.
    breaks("c");
    assert!(MutexGuard::is_valid(&held));
    steady.check_token("steady", MutexGuard::token(&held)).unwrap();
    if mount.is_some() {
        make_room(&state);
    } else {
        fs::remove_dir(&spare).unwrap();
    }
    drop(newcomer.mutex("new", ()).try_lock_for(LONG).unwrap());
    drop(held);
    server.kill();
}

/// Gives back what [`fill`] took. A child that is just being started may have the file open yet: so its
/// room is freed, not only its name.
pub(crate) fn make_room(directory: &Path) {
    let filler = directory.join("filler");
    fs::File::create(&filler).unwrap();
    fs::remove_file(filler).unwrap();
}

/// Takes all the room there is.
pub(crate) fn fill(directory: &Path) {
    let mut filler = fs::File::create(directory.join("filler")).unwrap();
    let error = loop {
        match std::io::Write::write_all(&mut filler, &[1; 4096]) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

/// A small file system in memory; unmounted when it is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `None` where mounting is not permitted.
    pub(crate) fn of_mib(mib: u32, at: &Path) -> Option<Mount> {
        let mut mount = program("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at);
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        is_mounted.then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Also if a failed test left a leader on it.
        let _ = program("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A measurement: how long after its leader was killed, and started again at once, a client is
/// granted a new lock, while 100 clients hold one each.
/// `TIERLOCK_KILLS=100 cargo test --release --all-features --test it restart_speed -- --ignored
/// --nocapture`
#[test]
#[ignore = "a measurement"]
fn restart_speed() {
    const CLIENTS: usize = 100;
    let kills = std::env::var("TIERLOCK_KILLS").map_or(5, |text| text.parse().unwrap());
    let mut server = Served::start();
    let managers: Vec<_> = (0..CLIENTS).map(|_| server.manager()).collect();
    let guards: Vec<_> = managers
        .iter()
        .enumerate()
        .map(|(client, locks)| locks.mutex(format!("held/{client}"), ()).lock().unwrap())
        .collect();
    let mut waits: Vec<_> = (0..kills)
        .map(|kill| {
            let since = Instant::now();
            server.kill();
            thread::scope(|scope| {
                let granted = scope.spawn(|| {
                    drop(managers[kill % CLIENTS].mutex("new", ()).lock().unwrap());
                    since.elapsed()
                });
                server.restart();
                let listening = since.elapsed();
                let granted = granted.join().unwrap();
                println!("kill {kill}: listening after {listening:?}, granted after {granted:?}");
                granted
            })
        })
        .collect();
    assert!(guards.iter().all(MutexGuard::is_valid), "a restart cost a lock");
    waits.sort_unstable();
    println!(
        "first new grant after a kill, {CLIENTS} clients, {kills} kills: median {:?}, worst {:?}",
        waits[kills / 2],
        waits[kills - 1],
    );
}

/// `tierlock serve`, as a process of its own.
pub(crate) struct Served {
    files: TempDir,
    address: String,
    process: Option<Child>,
}

impl Served {
    pub(crate) fn start() -> Served {
        let mut server = Served::stopped();
        server.start_with(&["--init"]);
        server
    }

    fn stopped() -> Served {
        let files = temp_dir();
        new_secret(&files.path().join("secret"));
        Served { files, address: free_address().to_string(), process: None }
    }

    fn start_with(&mut self, options: &[&str]) {
        let (process, address) = Served::serve(&self.files, &self.address, options);
        (self.process, self.address) = (Some(process), address);
    }

    fn serve(files: &TempDir, address: &str, options: &[&str]) -> (Child, String) {
        // A file beyond its limit is to be an error for it, and not its end.
        let mut process = program("sh")
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tierlock")])
            .args(["serve", "--listen", address, "--accept-fs", "tmpfs", "--log", "brief"])
            .args(options)
            .arg("--state-dir")
            .arg(files.path().join("state"))
            .arg("--secret-file")
            .arg(files.path().join("secret"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect("it listens");
        (process, address.to_owned())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.start_with(&[]);
    }

    /// No file of it may be longer any more.
    fn limit_files(&self, bytes: u64) {
        let process = Pid::from_child(self.process.as_ref().expect("it runs"));
        let limit = Rlimit { current: Some(bytes), maximum: None };
        prlimit(Some(process), Resource::Fsize, limit).unwrap();
    }

    /// Waits until it ends by itself: its exit status and what it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        let process = self.process.as_mut().expect("it runs");
        process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (process.wait().unwrap().code(), stderr)
    }

    fn manager(&self) -> LockManager {
        self.place().manager()
    }

    /// A client, the locks of which outlive whatever becomes of the leader.
    pub(crate) fn locks_for_long(&self) -> LockManager {
        self.place().builder().time_to_live(LONG_LIFE).connect_timeout(LONG).open().unwrap()
    }

    fn place(&self) -> Place {
        Place { address: self.address.clone(), secret: self.files.path().join("secret") }
    }
}

/// Where to find a leader, and what to show it.
#[derive(Clone)]
struct Place {
    address: String,
    secret: PathBuf,
}

impl Place {
    fn manager(&self) -> LockManager {
        self.builder().open().unwrap()
    }

    fn builder(&self) -> LockManagerBuilder {
        LockManager::builder().leaders([self.address.clone()]).secret_file(&self.secret)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}
