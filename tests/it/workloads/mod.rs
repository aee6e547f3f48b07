//! The lock workloads that Jepsen ran on etcd, with real processes over real QUIC: while workers
//! work under one lock, they and their leader are killed and stopped, and their networks cut, or made
//! to lose, delay, repeat and reorder what they carry.
//!
//! 1. A register behind the lock: what was done to it is linearizable, and no two workers ever
//!    believed in the lock at once.
//! 2. A set that is read, changed and written under the lock and nothing else: no update is lost
//!    while no worker is stopped. (A worker stopped between its last look at the lock and its write
//!    writes when it goes on. No lock can help that; 3 does.)
//! 3. The same with the token checked by the store: no update is ever lost, whatever happens.
//!
//! Each takes a few seconds. `TIERLOCK_LONG=300 cargo test --all-features --test it workloads`
//! runs each for five minutes. A seed makes the order of the faults repeat: `TIERLOCK_SEED=7`.

mod register;
mod relay;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, getpid, kill_process};
use tierlock::{LockError, LockManager, MutexGuard, Scope, Token, fence::FileGate};

use self::{
    register::{Operation, What, is_linearizable},
    relay::{Relay, Weather},
};
use crate::{
    helper::{Helper, wait_for_stop},
    restarts::Server,
    setting::{stamp, until},
};

#[test]
fn a_register_behind_a_gate_is_linearizable_whatever_happens() {
    let logs = Shop::suffer("register", &EVERYTHING);
    let operations: Vec<_> = logs.iter().flat_map(Log::operations).collect();
    let known = operations.iter().filter(|one| one.completed.is_some()).count();
    eprintln!("{known} operations, and {} of unknown outcome", operations.len() - known);
    assert!(is_linearizable(&operations), "{operations:#?}");
    no_worker_believed_beside_another(&logs);
}

#[test]
fn an_unprotected_set_loses_no_update_while_no_worker_is_stopped() {
    let faults = [Fault::KillWorker, Fault::KillLeader];
    let logs = Shop::suffer("set", &[&faults[..], &NETWORK].concat());
    no_update_is_lost(&logs);
    no_worker_believed_beside_another(&logs);
}

#[test]
fn a_set_that_checks_tokens_never_loses_an_update() {
    let logs = Shop::suffer("fenced-set", &EVERYTHING);
    no_update_is_lost(&logs);
    no_worker_believed_beside_another(&logs);
}

#[test]
fn a_set_that_checks_tokens_never_loses_an_update_in_a_bad_network() {
    let logs = Shop::suffer("fenced-set", &NETWORK);
    no_update_is_lost(&logs);
    no_worker_believed_beside_another(&logs);
}

/// The reason for tokens, and that these workloads can fail.
#[test]
fn a_worker_stopped_between_its_last_look_and_its_write_undoes_others_updates() {
    let logs = Shop::stop_one_before_its_write("set");
    assert_eq!(logs[0].deeds[0].done.map(|_| "done"), Some("done"));
    assert!(!lost_updates(&logs).is_empty(), "the later holder's updates are there");
}

/// etcd#10811, redisson#2665, curator#727.
#[test]
fn a_worker_stopped_between_its_last_look_and_its_write_is_refused_by_a_gate() {
    let logs = Shop::stop_one_before_its_write("fenced-set");
    assert!(logs[0].deeds[0].refused);
    no_update_is_lost(&logs);
}

/// What happens to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillWorker,
    StopWorker,
    KillLeader,
    StopLeader,
    /// One worker is cut off.
    Cut,
    /// One worker's network loses a third of everything.
    Lose,
    /// Nothing from one worker reaches the leader, and all that the leader says reaches it.
    CutTowardsLeader,
    /// The other way round.
    CutTowardsWorker,
    /// One worker's network takes a good part of a lease's life.
    Delay,
    /// It brings half of everything twice.
    Duplicate,
    /// A third of everything is overtaken by what is sent after it.
    Reorder,
    /// All of that at once, a little.
    Storm,
}

const NETWORK: [Fault; 8] = [
    Fault::Cut,
    Fault::Lose,
    Fault::CutTowardsLeader,
    Fault::CutTowardsWorker,
    Fault::Delay,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Storm,
];

const EVERYTHING: [Fault; 12] = [
    Fault::KillWorker,
    Fault::StopWorker,
    Fault::KillLeader,
    Fault::StopLeader,
    NETWORK[0],
    NETWORK[1],
    NETWORK[2],
    NETWORK[3],
    NETWORK[4],
    NETWORK[5],
    NETWORK[6],
    NETWORK[7],
];

impl Fault {
    /// What becomes of one worker's network.
    fn weather(self) -> Weather {
        let calm = Weather::default();
        match self {
            Fault::KillWorker | Fault::StopWorker | Fault::KillLeader | Fault::StopLeader => calm,
            Fault::Cut => Weather { lost: [1_000, 1_000], ..calm },
            Fault::Lose => Weather { lost: [333, 333], ..calm },
            Fault::CutTowardsLeader => Weather { lost: [1_000, 0], ..calm },
            Fault::CutTowardsWorker => Weather { lost: [0, 1_000], ..calm },
            Fault::Delay => Weather { delay: LIFE / 5, ..calm },
            Fault::Duplicate => Weather { duplicated: 500, ..calm },
            Fault::Reorder => Weather { reordered: 333, ..calm },
            Fault::Storm => {
                Weather { lost: [100, 100], delay: LIFE / 50, duplicated: 200, reordered: 200 }
            }
        }
    }
}

const WORKERS: usize = 4;
/// How long the leases of workers outlive their silence.
const LIFE: Duration = Duration::from_secs(1);

/// A leader, and workers that share a lock.
struct Shop {
    server: Server,
    workload: &'static str,
    folder: PathBuf,
    workers: Vec<Worker>,
    hired: u32,
}

/// A worker's process, and its network.
struct Worker {
    id: u32,
    process: Helper,
    relay: Relay,
}

impl Shop {
    /// Has the workload done while these faults happen, and until all get on again after
    /// the last of them. What it left is what all wrote down.
    fn suffer(workload: &'static str, faults: &[Fault]) -> Vec<Log> {
        let seconds = number("TIERLOCK_LONG").unwrap_or(4);
        let seed = number("TIERLOCK_SEED").unwrap_or_else(|| stamp() % 1_000);
        eprintln!("TIERLOCK_SEED={seed}");
        let mut dice = Dice(seed);
        let mut shop = Shop::open(workload);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let fault = faults[dice.below(faults.len() as u64) as usize];
            let any = dice.below(WORKERS as u64) as usize;
            // Where it hurts, mostly.
            let victim = shop.at_work().filter(|_| dice.below(3) > 0).unwrap_or(any);
            // Some are over before a lease is, some are not.
            let length = LIFE * dice.below(18) as u32 / 10;
            shop.happen(fault, victim, length);
            thread::sleep(LIFE * dice.below(5) as u32 / 10);
        }
        shop.all_get_on();
        shop.close()
    }

    /// Has two do the workload, one of which is stopped after its last look at the lock and before
    /// its write, for longer than its lease lasts.
    fn stop_one_before_its_write(workload: &'static str) -> Vec<Log> {
        let mut shop = Shop::empty(workload);
        File::create(shop.folder.join(PAUSE)).unwrap();
        shop.add_worker();
        shop.workers[0].process.until_stopped();
        fs::remove_file(shop.folder.join(PAUSE)).unwrap();
        shop.add_worker();
        let later = shop.workers[1].id;
        until("an update of the next holder", || shop.has_done_since(later, 0));
        shop.workers[0].process.resume();
        until("the end of the first one's deed", || {
            let log = Log::read(&shop.folder, shop.workers[0].id).unwrap();
            log.deeds[0].refused || log.deeds[0].done.is_some()
        });
        shop.close()
    }

    fn open(workload: &'static str) -> Shop {
        let mut shop = Shop::empty(workload);
        for _ in 0..WORKERS {
            shop.add_worker();
        }
        shop.all_get_on();
        shop
    }

    fn empty(workload: &'static str) -> Shop {
        let server = Server::start();
        let folder = server.folder().join("shared");
        fs::create_dir(&folder).unwrap();
        Shop { server, workload, folder, workers: Vec::new(), hired: 0 }
    }

    fn add_worker(&mut self) {
        let relay = Relay::to(self.server.address());
        let (id, process) = self.hire(&relay);
        self.workers.push(Worker { id, process, relay });
    }

    fn hire(&mut self, relay: &Relay) -> (u32, Helper) {
        let mut process = self.server.client_through(relay.address(), LIFE);
        self.hired += 1;
        let folder = self.folder.display();
        process.say(&format!("work\t{}\t{folder}\t{}", self.workload, self.hired));
        (self.hired, process)
    }

    fn happen(&mut self, fault: Fault, victim: usize, length: Duration) {
        let worker = &mut self.workers[victim];
        match fault {
            Fault::KillWorker => {
                worker.process.kill();
                let mut worker = self.workers.remove(victim);
                (worker.id, worker.process) = self.hire(&worker.relay);
                self.workers.push(worker);
            }
            Fault::StopWorker => {
                worker.process.stop();
                thread::sleep(length);
                worker.process.resume();
            }
            Fault::KillLeader => {
                self.server.kill();
                thread::sleep(length / 4);
                self.server.restart();
            }
            Fault::StopLeader => {
                self.server.stop();
                thread::sleep(length);
                self.server.resume();
            }
            of_the_network => {
                worker.relay.set(of_the_network.weather());
                thread::sleep(length);
                worker.relay.set(Weather::default());
            }
        }
    }

    /// No fault lasts: every worker does something to the end.
    fn all_get_on(&self) {
        let now = stamp();
        for worker in &self.workers {
            until("a worker that gets something done", || self.has_done_since(worker.id, now));
        }
    }

    fn has_done_since(&self, worker: u32, time: u64) -> bool {
        let log = Log::read(&self.folder, worker);
        log.is_some_and(|log| log.deeds.iter().any(|deed| deed.done > Some(time)))
    }

    /// Which worker has the lock just now, by what it wrote down.
    fn at_work(&self) -> Option<usize> {
        self.workers.iter().position(|worker| {
            let log = Log::read(&self.folder, worker.id);
            let deed = log.and_then(|mut log| log.deeds.pop());
            deed.is_some_and(|deed| deed.done.is_none() && !deed.refused)
        })
    }

    fn close(mut self) -> Vec<Log> {
        File::create(self.folder.join(ENOUGH)).unwrap();
        for worker in &mut self.workers {
            assert_eq!(worker.process.hear(), "ok");
        }
        let mut logs: Vec<_> =
            (1..=self.hired).filter_map(|id| Log::read(&self.folder, id)).collect();
        logs[0].shared = fs::read_to_string(self.folder.join(SHARED)).unwrap();
        logs
    }
}

/// Every update that a worker was sure of is there, none that was refused is, and they were made
/// in the order of their tokens.
fn no_update_is_lost(logs: &[Log]) {
    assert_eq!(lost_updates(logs), Vec::<&str>::new());
    let there: HashSet<&str> = logs[0].shared.lines().collect();
    let (mut refused, mut tokens) = (0, HashMap::new());
    for (element, deed) in updates(logs) {
        tokens.insert(element, deed.token);
        refused += u32::from(deed.refused);
        assert!(!deed.refused || !there.contains(element), "{element} was refused and is there");
    }
    let order: Vec<_> = logs[0].shared.lines().map(|element| tokens[element]).collect();
    assert_eq!(there.len(), order.len(), "an update was made twice");
    assert!(order.is_sorted(), "an earlier holder came later: {order:?}");
    eprintln!("{} updates, {refused} refused", order.len());
}

fn lost_updates(logs: &[Log]) -> Vec<&str> {
    let there: HashSet<&str> = logs[0].shared.lines().collect();
    let sure = updates(logs).filter(|(_, deed)| deed.done.is_some());
    sure.map(|(element, _)| element).filter(|element| !there.contains(element)).collect()
}

fn updates(logs: &[Log]) -> impl Iterator<Item = (&str, &Deed)> {
    let deeds = logs.iter().flat_map(|log| &log.deeds);
    deeds.filter_map(|deed| Some((deed.what.first()?.as_str(), deed)))
}

/// redisson#2665: whenever two were sure of the lock, it was one after the other, the larger token
/// later.
fn no_worker_believed_beside_another(logs: &[Log]) {
    let mut beliefs: Vec<_> = logs.iter().flat_map(|log| &log.beliefs).collect();
    beliefs.sort_unstable();
    for pair in beliefs.windows(2) {
        let [(_, to, token), (from, _, next)] = [*pair[0], *pair[1]];
        assert!(to < from, "two holders: until {to} and from {from}");
        assert!(token < next, "{next} after {token}");
    }
    assert!(beliefs.len() > WORKERS, "only {} were sure of the lock", beliefs.len());
}

/// What one worker wrote down.
#[derive(Default)]
struct Log {
    deeds: Vec<Deed>,
    /// From when to when it was sure of the lock, and its token.
    beliefs: Vec<(u64, u64, u64)>,
    /// What is left in the shared file; only of the first.
    shared: String,
}

#[derive(Default)]
struct Deed {
    begun: u64,
    token: u64,
    /// What it was about to do to the shared file, written down before it did.
    what: Vec<String>,
    done: Option<u64>,
    /// It did nothing, and knows.
    refused: bool,
}

impl Log {
    fn read(folder: &Path, id: u32) -> Option<Log> {
        let text = fs::read_to_string(folder.join(format!("log.{id}"))).ok()?;
        // A worker killed in the middle of a line has not written it.
        let (whole, _) = text.rsplit_once('\n')?;
        let mut log = Log::default();
        for line in whole.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            if words[0] == "begun" {
                log.deeds.push(Deed { begun: number(1), token: number(2), ..Deed::default() });
                continue;
            }
            let last = log.deeds.last_mut().unwrap();
            match words[0] {
                "about" => last.what = words[1..].iter().map(|word| word.to_string()).collect(),
                "done" => last.done = Some(number(1)),
                "refused" => last.refused = true,
                "sure" => log.beliefs.push((number(1), number(2), number(3))),
                other => panic!("what is {other:?}?"),
            }
        }
        Some(log)
    }

    /// What it did to the register, or may have done.
    fn operations(&self) -> impl Iterator<Item = Operation> {
        self.deeds.iter().filter(|deed| !deed.refused).filter_map(|deed| {
            let numbers: Vec<u64> =
                deed.what.iter().skip(1).map(|word| word.parse().unwrap()).collect();
            let what = match (deed.what.first()?.as_str(), &numbers[..]) {
                ("read", [found]) => What::Read(*found),
                ("write", [left]) => What::Write(*left),
                ("replace", [found, left]) => What::Replace(*found, *left),
                other => panic!("what is {other:?}?"),
            };
            // A read that did not come back has changed nothing.
            let is_known = deed.done.is_some() || !matches!(what, What::Read(_));
            is_known.then_some(Operation { invoked: deed.begun, completed: deed.done, what })
        })
    }
}

const SHARED: &str = "shared";
const ENOUGH: &str = "enough";
/// While it is there, a worker about to write stops itself.
const PAUSE: &str = "pause";

/// A helper's part: works until there is enough.
pub(crate) fn work(
    locks: &LockManager,
    workload: &str,
    folder: &str,
    id: &str,
) -> Result<(), LockError> {
    let folder = PathBuf::from(folder);
    let log = folder.join(format!("log.{id}"));
    let log = OpenOptions::new().append(true).create(true).open(log).unwrap();
    let gate = FileGate::open(folder.join("gate"))?;
    let mutex = locks.mutex("workload", ()).scope(Scope::Host).build()?;
    let mut job = Job { id: id.parse().unwrap(), folder, gate, log, count: 0 };
    while !job.folder.join(ENOUGH).exists() {
        // Outages are a part of it.
        let Ok(guard) = mutex.try_lock_for(2 * LIFE) else { continue };
        let (from, token) = (stamp(), MutexGuard::token(&guard));
        job.note(format_args!("begun {from} {token}"));
        job.count += 1;
        let done = match workload {
            "register" => job.use_register(token),
            "fenced-set" => job.add_to_fenced_set(token),
            "set" => job.add_to_set(&guard),
            other => panic!("what is {other:?}?"),
        };
        match done {
            Ok(true) => job.note(format_args!("done {}", stamp())),
            Ok(false) => job.note(format_args!("refused")),
            Err(error) if error.is_lost() => job.note(format_args!("refused")),
            Err(error) => return Err(error),
        }
        let to = stamp();
        if MutexGuard::is_valid(&guard) {
            job.note(format_args!("sure {from} {to} {token}"));
        }
    }
    Ok(())
}

/// A worker.
struct Job {
    id: u64,
    folder: PathBuf,
    gate: FileGate,
    log: File,
    count: u64,
}

impl Job {
    /// In one write, so that a line is there or not.
    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.log.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn use_register(&mut self, token: Token) -> Result<bool, LockError> {
        let new = self.id << 32 | self.count;
        let inside = self.gate.enter(token)?;
        let found: u64 = match self.read().as_str() {
            "" => 0,
            text => text.parse().unwrap(),
        };
        match self.count % 3 {
            0 => self.note(format_args!("about read {found}")),
            1 => {
                self.note(format_args!("about write {new}"));
                think();
                self.write(&new.to_string());
            }
            _ => {
                drop(inside);
                think();
                self.note(format_args!("about replace {found} {new}"));
                think();
                let _inside = self.gate.enter(token)?;
                self.write(&new.to_string());
            }
        }
        Ok(true)
    }

    fn add_to_fenced_set(&mut self, token: Token) -> Result<bool, LockError> {
        // What is read counts only if no earlier holder writes after it.
        let inside = self.gate.enter(token)?;
        let set = self.read();
        drop(inside);
        think();
        let element = format!("{}.{}", self.id, self.count);
        self.note(format_args!("about {element}"));
        think();
        self.stop_if_told();
        let _inside = self.gate.enter(token)?;
        self.write(&format!("{set}{element}\n"));
        Ok(true)
    }

    /// Whether it was still sure enough of its lock.
    fn add_to_set(&mut self, guard: &MutexGuard<'_, ()>) -> Result<bool, LockError> {
        MutexGuard::check(guard)?;
        let set = self.read();
        think();
        let element = format!("{}.{}", self.id, self.count);
        self.note(format_args!("about {element}"));
        think();
        MutexGuard::check(guard)?;
        // It is not stopped, and half a time to live is enough for a write.
        if MutexGuard::remaining(guard).is_some_and(|remaining| remaining < LIFE / 2) {
            return Ok(false);
        }
        self.stop_if_told();
        self.write(&format!("{set}{element}\n"));
        Ok(true)
    }

    fn stop_if_told(&self) {
        if self.folder.join(PAUSE).exists() {
            let before = stamp();
            kill_process(getpid(), Signal::STOP).unwrap();
            // This thread may run on until the signal has come round.
            wait_for_stop(before);
        }
    }

    fn read(&self) -> String {
        fs::read_to_string(self.folder.join(SHARED)).unwrap_or_default()
    }

    /// Whole or not at all.
    fn write(&self, text: &str) {
        let new = self.folder.join(format!("new.{}", self.id));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.join(SHARED)).unwrap();
    }
}

/// Time for faults to happen in.
fn think() {
    thread::sleep(Duration::from_millis(3));
}

/// Repeats itself from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}
