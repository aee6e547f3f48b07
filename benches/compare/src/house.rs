//! A leader in a process of its own, so that its memory and its processor time are its.

use std::{
    fs,
    future::{Future, poll_fn},
    ops::Range,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tierlock::{Keep, Leader, LockManager, MutexGuard, Scope};
use tokio::{runtime::Runtime, sync::Semaphore};

use crate::{
    bench::{
        failure::{BenchFailure, Result},
        worker::{self, ChildWorker},
    },
    measure::{Measure, Unit, name},
    peers::field::Field,
};

/// A child process that is a leader.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Serve {
    pub(crate) state_dir: PathBuf,
    pub(crate) secret_file: PathBuf,
    /// With 0 it is a new one, on any port.
    pub(crate) port: u16,
}

impl Serve {
    /// Starts it and waits until it serves, on the port that it says.
    pub(crate) fn start(&self) -> Result<(ChildWorker, u16)> {
        let mut leader = ChildWorker::start(self)?;
        let port = leader.reply()?;
        Ok((leader, port))
    }
}

impl worker::ChildJob for Serve {
    fn work(self) -> Result<()> {
        let leader = Leader::builder()
            .listen(format!("127.0.0.1:{}", self.port))
            .secret_file(self.secret_file)
            .state_dir(self.state_dir)
            .init(self.port == 0)
            .accept_file_system("tmpfs")
            // One address has all the bench's clients, and half of what there is.
            .sessions_max(1 << 15)
            .claims_max(1 << 23)
            .start()?;
        let orders = worker::ready::<()>();
        worker::say(leader.local_addr().port());
        orders.for_each(drop);
        Ok(())
    }
}

/// A leader in a process of its own, and what is held there.
pub(crate) struct House {
    leader: ChildWorker,
    address: String,
    secret_file: PathBuf,
    runtime: Arc<Runtime>,
    holders: Vec<LockManager>,
    guards: Vec<MutexGuard<'static, ()>>,
}

/// Below a leader's limit per session.
pub(crate) const NAMES_PER_SESSION: u64 = 60_000;
/// Requests under way at the same time.
const IN_FLIGHT: u64 = 256;

impl House {
    pub(crate) fn start(field: &mut Field) -> Result<House> {
        let secret_file = field.grounds.secret_file()?;
        let state_dir = field.new_directory("scale-leader")?;
        let (leader, port) =
            Serve { state_dir, port: 0, secret_file: secret_file.clone() }.start()?;
        let address = format!("127.0.0.1:{port}");
        let (runtime, holders, guards) = (field.grounds.runtime()?, Vec::new(), Vec::new());
        Ok(House { leader, address, secret_file, runtime, holders, guards })
    }

    pub(crate) fn connect(&self) -> Result<LockManager> {
        Ok(LockManager::builder()
            .leaders([&self.address])
            .secret_file(&self.secret_file)
            .label("bench")
            .time_to_live(Duration::from_secs(60))
            .open()?)
    }

    pub(crate) fn held(&self) -> u64 {
        self.guards.len() as u64
    }

    /// Takes these names, of 16 bytes each, and keeps them.
    pub(crate) fn hold(&mut self, names: Range<u64>) -> Result<()> {
        let mut tasks = Vec::new();
        for first in names.clone().step_by(NAMES_PER_SESSION as usize) {
            let locks = self.connect()?;
            self.holders.push(locks.clone());
            let last = (first + NAMES_PER_SESSION).min(names.end);
            for lane in 0..IN_FLIGHT.min(last - first) {
                let locks = locks.clone();
                let mine = (first + lane..last).step_by(IN_FLIGHT as usize);
                tasks.push(self.runtime.spawn(async move {
                    let mut guards = Vec::new();
                    for number in mine {
                        let mutex = locks.mutex(name(number), ()).scope(Scope::Host);
                        guards.push(mutex.keep(Keep::Never).lock_async().await?);
                    }
                    Ok::<_, BenchFailure>(guards)
                }));
            }
        }
        for task in tasks {
            self.guards.extend(self.runtime.block_on(task).expect("it does not panic")?);
        }
        Ok(())
    }

    /// Waits for so many of the held names, in sessions of their own.
    pub(crate) fn wait(&self, waiters: u64) -> Result<Vec<tokio::task::JoinHandle<()>>> {
        let mut waiting = Vec::new();
        for first in (0..waiters).step_by(NAMES_PER_SESSION as usize) {
            let locks = self.connect()?;
            let last = (first + NAMES_PER_SESSION).min(waiters);
            let asked = Arc::new(Semaphore::new(0));
            for number in first..last {
                let (locks, asked) = (locks.clone(), asked.clone());
                waiting.push(self.runtime.spawn(async move {
                    let mutex = locks.mutex(name(number), ()).scope(Scope::Host);
                    let mut lock = pin!(mutex.lock_async());
                    let is_early = poll_fn(|context| Poll::Ready(lock.as_mut().poll(context)));
                    let early = is_early.await.is_ready();
                    asked.add_permits(1);
                    if !early {
                        let _ = lock.await;
                    }
                }));
            }
            let all = (last - first) as u32;
            drop(self.runtime.block_on(asked.acquire_many(all)).expect("it is not closed"));
            // Frames are read in their order: with this answer, all that came before are read.
            let held = locks.mutex(name(self.held() - 1), ()).scope(Scope::Host).build()?;
            match held.try_lock() {
                Err(error) if error.is_contended() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(BenchFailure::Wrong("a held lock was to be had".into())),
            }
        }
        Ok(waiting)
    }

    pub(crate) fn resident(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| BenchFailure::Wrong("a process without memory".into()))? * 1_024)
    }

    /// What a lock, waiter or session costs, given what there was without them.
    pub(crate) fn per(&self, what: &'static str, number: u64, before: u64) -> Result<Measure> {
        let value = self.resident()?.saturating_sub(before) as f64 / number.max(1) as f64;
        Ok(Measure { what, at: number, value, unit: Unit::Bytes })
    }

    /// What part of a processor the leader uses meanwhile.
    pub(crate) fn processor_percent(&self, meanwhile: Duration) -> Result<f64> {
        let before = processor_ns(self.leader.pid())?;
        thread::sleep(meanwhile);
        let used_ns = processor_ns(self.leader.pid())? - before;
        Ok(used_ns as f64 / meanwhile.as_nanos() as f64 * 100.0)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.leader.pid().as_raw_nonzero());
        fs::read_to_string(&path).map_err(BenchFailure::io(format!("cannot read {path}")))
    }
}

/// What time on a processor a process has had so far.
pub(crate) fn processor_ns(pid: Pid) -> Result<u64> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let failed = || BenchFailure::io(format!("cannot read {tasks}"));
    let mut sum_ns = 0;
    for task in fs::read_dir(&tasks).map_err(failed())? {
        let file = task.map_err(failed())?.path().join("schedstat");
        // A thread may end meanwhile.
        let times = fs::read_to_string(file).unwrap_or_default();
        sum_ns += times.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum_ns)
}
