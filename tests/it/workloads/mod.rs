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
mod shop;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};
use tierlock::{LockError, LockManager, MutexGuard, Scope, Token, fence::FileGate};

#[cfg(feature = "service")]
pub(crate) use self::shop::WorkedService;
pub(crate) use self::shop::{Fault, Shop};
use self::{
    register::{Operation, What, is_linearizable},
    shop::{EVERYTHING, NETWORK, WORKERS},
};
use crate::{helper::wait_for_stop, restarts::Server, setting::stamp};

#[test]
fn a_register_behind_a_gate_is_linearizable_whatever_happens() {
    let logs = suffer("register", &EVERYTHING);
    let operations: Vec<_> = logs.iter().flat_map(Log::operations).collect();
    let known = operations.iter().filter(|one| one.completed.is_some()).count();
    eprintln!("{known} operations, and {} of unknown outcome", operations.len() - known);
    assert!(is_linearizable(&operations), "{operations:#?}");
    no_worker_believed_beside_another(&logs);
}

#[test]
fn an_unprotected_set_loses_no_update_while_no_worker_is_stopped() {
    let faults = [Fault::KillWorker, Fault::KillLeader];
    let logs = suffer("set", &[&faults[..], &NETWORK].concat());
    no_update_is_lost(&logs);
    no_worker_believed_beside_another(&logs);
}

#[test]
fn a_set_that_checks_tokens_never_loses_an_update() {
    let logs = suffer("fenced-set", &EVERYTHING);
    no_update_is_lost(&logs);
    no_worker_believed_beside_another(&logs);
}

#[test]
fn a_set_that_checks_tokens_never_loses_an_update_in_a_bad_network() {
    let logs = suffer("fenced-set", &NETWORK);
    no_update_is_lost(&logs);
    no_worker_believed_beside_another(&logs);
}

/// The reason for tokens, and that these workloads can fail.
#[test]
fn a_worker_stopped_between_its_last_look_and_its_write_undoes_others_updates() {
    let logs = stop_one("set");
    assert_eq!(logs[0].deeds[0].done.map(|_| "done"), Some("done"));
    assert!(!lost_updates(&logs).is_empty(), "the later holder's updates are there");
}

/// etcd#10811, redisson#2665, curator#727.
#[test]
fn a_worker_stopped_between_its_last_look_and_its_write_is_refused_by_a_gate() {
    let logs = stop_one("fenced-set");
    assert!(logs[0].deeds[0].refused);
    no_update_is_lost(&logs);
}

/// Has a leader's workers suffer.
fn suffer(workload: &'static str, faults: &[Fault]) -> Vec<Log> {
    Shop::open(Server::start(), workload).suffer(faults)
}

fn stop_one(workload: &'static str) -> Vec<Log> {
    Shop::empty(Server::start(), workload).stop_one_before_its_write()
}

/// Every update that a worker was sure of is there, none that was refused is, and they were made
/// in the order of their tokens.
pub(crate) fn no_update_is_lost(logs: &[Log]) {
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
pub(crate) struct Log {
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

/// How long the leases of workers at a leader outlive their silence.
const LIFE: Duration = Duration::from_secs(1);
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
        drop(guard);
        // A service that serves in no order gives the lock to the last holder each time, if that comes at once.
        think();
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
