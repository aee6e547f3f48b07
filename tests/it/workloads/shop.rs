//! Workers at a lock, and what happens to them, to their service and to the network between.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Dice, ENOUGH, LIFE, Log, PAUSE, SHARED, number,
    relay::{Relay, Weather},
};
use crate::{
    helper::Helper,
    restarts::Server,
    setting::{stamp, until},
};

/// What happens to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
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

pub(super) const NETWORK: [Fault; 8] = [
    Fault::Cut,
    Fault::Lose,
    Fault::CutTowardsLeader,
    Fault::CutTowardsWorker,
    Fault::Delay,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Storm,
];

pub(super) const EVERYTHING: [Fault; 12] = [
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

pub(super) const WORKERS: usize = 4;
/// What has the workers' lock, and the network between.
pub(crate) trait WorkedService {
    /// One worker's network.
    type Way;

    /// How long the leases of workers outlive their silence.
    fn life(&self) -> Duration;
    /// A place for files that is there as long as it is.
    fn folder(&self) -> &Path;
    fn new_way(&self) -> Self::Way;
    /// A process with a manager of locks.
    fn client(&self, way: &Self::Way) -> Helper;
    /// From now on a way is out of order as a fault has it.
    fn disturb(&self, way: &Self::Way, fault: Fault);
    fn repair(&self, way: &Self::Way);
    fn kill(&mut self);
    fn restart(&mut self);
    /// Has it stand still.
    fn stop(&self);
    fn resume(&self);
}

impl WorkedService for Server {
    type Way = Relay;

    fn life(&self) -> Duration {
        LIFE
    }

    fn folder(&self) -> &Path {
        Server::folder(self)
    }

    fn new_way(&self) -> Relay {
        Relay::to(self.address())
    }

    fn client(&self, way: &Relay) -> Helper {
        self.client_through(way.address(), LIFE)
    }

    fn disturb(&self, way: &Relay, fault: Fault) {
        way.set(fault.weather());
    }

    fn repair(&self, way: &Relay) {
        way.set(Weather::default());
    }

    fn kill(&mut self) {
        Server::kill(self);
    }

    fn restart(&mut self) {
        Server::restart(self);
    }

    fn stop(&self) {
        Server::stop(self);
    }

    fn resume(&self) {
        Server::resume(self);
    }
}

/// A service, and workers that share a lock of it.
pub(crate) struct Shop<S: WorkedService> {
    service: S,
    workload: &'static str,
    folder: PathBuf,
    workers: Vec<Worker<S::Way>>,
    hired: u32,
}

/// A worker's process, and its network.
struct Worker<W> {
    id: u32,
    process: Helper,
    way: W,
}

impl<S: WorkedService> Shop<S> {
    /// Has the workload done while these faults happen, and until all get on again after
    /// the last of them. What it left is what all wrote down.
    pub(crate) fn suffer(mut self, faults: &[Fault]) -> Vec<Log> {
        let seconds = number("TIERLOCK_LONG").unwrap_or(4);
        let seed = number("TIERLOCK_SEED").unwrap_or_else(|| stamp() % 1_000);
        eprintln!("TIERLOCK_SEED={seed}");
        let mut dice = Dice(seed);
        let life = self.service.life();
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let fault = faults[dice.below(faults.len() as u64) as usize];
            let any = dice.below(WORKERS as u64) as usize;
            // Where it hurts, mostly.
            let victim = self.at_work().filter(|_| dice.below(3) > 0).unwrap_or(any);
            // Some are over before a lease is, some are not.
            let length = life * dice.below(18) as u32 / 10;
            self.happen(fault, victim, length);
            thread::sleep(life * dice.below(5) as u32 / 10);
        }
        self.all_get_on();
        self.close()
    }

    /// Has two do the workload, one of which is stopped after its last look at the lock and before
    /// its write, for longer than its lease lasts.
    pub(super) fn stop_one_before_its_write(mut self) -> Vec<Log> {
        File::create(self.folder.join(PAUSE)).unwrap();
        self.add_worker();
        self.workers[0].process.until_stopped();
        fs::remove_file(self.folder.join(PAUSE)).unwrap();
        self.add_worker();
        let later = self.workers[1].id;
        until("an update of the next holder", || self.has_done_since(later, 0));
        self.workers[0].process.resume();
        until("the end of the first one's deed", || {
            let log = Log::read(&self.folder, self.workers[0].id).unwrap();
            log.deeds[0].refused || log.deeds[0].done.is_some()
        });
        self.close()
    }

    pub(crate) fn open(service: S, workload: &'static str) -> Shop<S> {
        let mut shop = Shop::empty(service, workload);
        for _ in 0..WORKERS {
            shop.add_worker();
        }
        shop.all_get_on();
        shop
    }

    pub(super) fn empty(service: S, workload: &'static str) -> Shop<S> {
        let folder = service.folder().join("shared");
        fs::create_dir(&folder).unwrap();
        Shop { service, workload, folder, workers: Vec::new(), hired: 0 }
    }

    fn add_worker(&mut self) {
        let way = self.service.new_way();
        let (id, process) = self.hire(&way);
        self.workers.push(Worker { id, process, way });
    }

    fn hire(&mut self, way: &S::Way) -> (u32, Helper) {
        let mut process = self.service.client(way);
        self.hired += 1;
        let folder = self.folder.display();
        process.say(&format!("work\t{}\t{folder}\t{}", self.workload, self.hired));
        (self.hired, process)
    }

    fn happen(&mut self, fault: Fault, victim: usize, length: Duration) {
        let worker = &self.workers[victim];
        match fault {
            Fault::KillWorker => {
                let mut worker = self.workers.remove(victim);
                worker.process.kill();
                (worker.id, worker.process) = self.hire(&worker.way);
                self.workers.push(worker);
            }
            Fault::StopWorker => {
                worker.process.stop();
                thread::sleep(length);
                worker.process.resume();
            }
            Fault::KillLeader => {
                self.service.kill();
                thread::sleep(length / 4);
                self.service.restart();
            }
            Fault::StopLeader => {
                self.service.stop();
                thread::sleep(length);
                self.service.resume();
            }
            of_the_network => {
                self.service.disturb(&worker.way, of_the_network);
                thread::sleep(length);
                self.service.repair(&worker.way);
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
