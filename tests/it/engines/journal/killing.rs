//! The reigning leader killed again and again under load, and how soon another grants. Three times here;
//! `TIERLOCK_KILLS=200` with `--nocapture --test-threads=1` is the heavy form, which prints its figures.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tierlock::{LockManager, MutexGuard, fence::Gate};

use super::{JournalRig, Served, first_to_reign};
use crate::{
    engines::{
        on,
        rig::{ENDLESS, EngineRig, give, hold, mutex},
    },
    setting::{LONG, Port, temp_dir, until},
    surroundings::program,
};

/// L, as leaders have it unless they are told otherwise: for a machine that does nothing else. Here it is long
/// enough for one that builds beside.
fn reign() -> &'static str {
    if kills() > 3 { "1s" } else { "3s" }
}

/// When another leader has surely taken over, or the one that was killed did not reign any more.
const LATE: Duration = Duration::from_secs(10);
/// Clients that hold a lock and ask for nothing, in the heavy form.
const IDLE: usize = 18;

fn kills() -> usize {
    std::env::var("TIERLOCK_KILLS").ok().map_or(3, |count| count.parse().unwrap())
}

/// How long each took, in words.
fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    if took.is_empty() {
        return eprintln!("{what}: the reign had moved by itself each time");
    }
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    let (half, most, worst) = (at(50), at(99), took.last().unwrap());
    eprintln!("{what}: {} kills, p50 {half:.0?}, p99 {most:.0?}, worst {worst:.0?}", took.len());
}

impl JournalRig<'_> {
    /// Where the leader of the journal's reign is, by the store's own word.
    fn reigning_at(&self) -> Option<String> {
        let server = &self.store.servers[0];
        let told = match self.store.kind {
            "etcd" => server.cli(&["get", "--print-value-only", "tierlock/head/reign"]),
            _ => server.cli(&["SELECT convert_from(address, 'UTF8') FROM tierlock_head"]),
        };
        told.rsplit(' ').next().filter(|address| address.contains(':')).map(str::to_owned)
    }

    /// The same leader again, under the address that its clients know.
    fn again_at(&self, address: &str) -> Served {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", address, "--journal", &self.store.url()]);
        command.args(["--reign", reign(), "--secret-file"]).arg(self.secret());
        Served::start(command)
    }
}

/// Tells threads to end when this is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The first grant in an epoch above the one that a leader was killed in.
#[derive(Default)]
struct FirstGrant {
    killed_in: AtomicU32,
    at: StdMutex<Option<Instant>>,
}

impl FirstGrant {
    fn granted(&self, epoch: u32) {
        if epoch > self.killed_in.load(SeqCst) {
            self.at.lock().unwrap().get_or_insert_with(Instant::now);
        }
    }

    fn expect(&self, killed_in: u32) {
        self.killed_in.store(killed_in, SeqCst);
        *self.at.lock().unwrap() = None;
    }
}

on!([etcd postgres] leaders_killed_again_and_again_lose_no_lock);
fn leaders_killed_again_and_again_lose_no_lock(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let mut leaders: Vec<Served> = (0..3).map(|_| rig.leader(reign())).collect();
    first_to_reign(&leaders);
    let all: Vec<&Served> = leaders.iter().collect();
    let idle = if kills() > 3 { IDLE } else { 2 };
    let idle: Vec<_> = (0..idle).map(|_| rig.locks(&all)).collect();
    let held =
        idle.iter().enumerate().map(|(number, locks)| hold(locks, &format!("held {number}")));
    let held: Vec<_> = held.collect();
    let tokens: Vec<_> = held.iter().map(MutexGuard::token).collect();
    let busy: Vec<LockManager> = (0..2).map(|_| rig.locks(&all)).collect();
    let (gate, counted, is_over) = (Gate::new(0_u64), AtomicU64::new(0), AtomicBool::new(false));
    let (first, names) = (FirstGrant::default(), AtomicU64::new(0));
    first.expect(u32::MAX);
    let mut took = Vec::new();
    thread::scope(|scope| {
        // However this ends, what runs beside it does.
        let _ends = Ends(&is_over);
        for locks in &busy {
            scope.spawn(|| {
                let counter = mutex(locks, "counter");
                while !is_over.load(SeqCst) {
                    // On a busy machine no leader may answer for long: no lock is lost by that.
                    let Ok(guard) = counter.lock() else { continue };
                    let token = MutexGuard::token(&guard);
                    let read = gate.enter(token).map(|value| *value);
                    let written =
                        read.and_then(|read| gate.enter(token).map(|mut value| *value = read + 1));
                    match written {
                        Ok(()) => drop(counted.fetch_add(1, SeqCst)),
                        // Another holder was granted it since: this one has lost it, and knows.
                        Err(stale) => assert!(MutexGuard::check(&guard).is_err(), "{stale}"),
                    }
                    drop(guard);
                    // And a name that no client has asked for.
                    let name = format!("new {}", names.fetch_add(1, SeqCst));
                    let new = mutex(locks, &name);
                    let Ok(guard) = new.lock() else { continue };
                    first.granted(MutexGuard::token(&guard).epoch());
                }
            });
        }
        for _ in 0..kills() {
            let before = counted.load(SeqCst);
            until("more that is counted", || counted.load(SeqCst) > before + 2);
            let mut address = None;
            until("a leader that reigns", || {
                address = rig.reigning_at();
                address.is_some()
            });
            let address = address.unwrap();
            let is_it = |leader: &Served| leader.address() == address;
            let reigning = leaders.iter().position(is_it).unwrap();
            first.expect(rig.epoch());
            let killed = Instant::now();
            leaders[reigning].kill();
            let mut had_moved = false;
            until("a new grant", || {
                // On a busy machine the reign may move by itself, a moment before the kill.
                let is_late = killed.elapsed() > LATE;
                had_moved = is_late && rig.reigning_at().is_some_and(|other| other != address);
                had_moved || first.at.lock().unwrap().is_some()
            });
            if let (Some(at), false) = (*first.at.lock().unwrap(), had_moved) {
                took.push(at.duration_since(killed));
            }
            first.expect(u32::MAX);
            leaders[reigning] = rig.again_at(&address);
            leaders[reigning].says("it stands by");
        }
    });
    assert_eq!(gate.into_inner(), counted.load(SeqCst), "updates were lost");
    for (guard, token) in held.iter().zip(tokens) {
        assert_eq!(MutexGuard::check(guard).unwrap(), token);
    }
    held.into_iter().for_each(give);
    tell(&format!("first new grant over {}, L = {}", store.kind, reign()), took);
}

// ---- beside it ---------------------------------------------------------------------------------------

/// Three members of an etcd.
pub(super) struct EtcdCluster {
    files: TempDir,
    pub(super) members: Vec<EtcdMember>,
    peers: String,
}

pub(super) struct EtcdMember {
    pub(super) port: u16,
    peer: u16,
    child: Option<Child>,
}

impl EtcdCluster {
    pub(super) fn start() -> Option<EtcdCluster> {
        drop(EngineRig::etcd()?); // which says whether it is installed
        let port = || Port::claim().address().port();
        let members: Vec<_> =
            (0..3).map(|_| EtcdMember { port: port(), peer: port(), child: None }).collect();
        let peers = members.iter().enumerate();
        let peers =
            peers.map(|(number, member)| format!("m{number}=http://127.0.0.1:{}", member.peer));
        let peers = peers.collect::<Vec<_>>().join(",");
        let mut cluster = EtcdCluster { files: temp_dir(), members, peers };
        (0..3).for_each(|number| cluster.begin(number));
        until("an etcd of three", || cluster.leader().is_some());
        Some(cluster)
    }

    pub(super) fn begin(&mut self, number: usize) {
        let EtcdMember { port, peer, .. } = self.members[number];
        let (client, peer) =
            (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut command = program("etcd");
        command
            .args(["--name", &format!("m{number}"), "--initial-cluster", &self.peers])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(self.files.path().join(number.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.members[number].child = Some(command.spawn().unwrap());
    }

    pub(super) fn etcdctl(&self, endpoints: &[u16]) -> Command {
        let endpoints: Vec<_> = endpoints.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = program("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
        command
    }

    /// The member that leads, once all of them say the same.
    pub(super) fn leader(&self) -> Option<usize> {
        let mut led = Vec::new();
        for member in &self.members {
            TcpStream::connect(("127.0.0.1", member.port)).ok()?;
            let mut asking = self.etcdctl(&[member.port]);
            let output = asking.args(["endpoint", "status", "-w", "json"]).output().unwrap();
            let told: Value = serde_json::from_slice(&output.stdout).ok()?;
            let status = &told[0]["Status"];
            led.push((status["header"]["member_id"].clone(), status["leader"].clone()));
        }
        let leader = led[0].1.clone();
        let agree = led.iter().all(|(_, of)| *of == leader);
        led.iter().position(|(member, _)| agree && *member == leader)
    }

    pub(super) fn url(&self) -> String {
        let addresses = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port));
        format!("etcd://{}", addresses.collect::<Vec<_>>().join(","))
    }

    /// A client of all members, which takes locks by etcd's own recipe, as `etcdctl lock` does.
    fn locks(&self) -> LockManager {
        LockManager::builder().service(self.url()).time_to_live(ENDLESS).open().unwrap()
    }
}

impl EtcdMember {
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(EtcdMember::kill);
    }
}

/// What a site has without us: its own lock in an etcd of three, the leader of which is killed likewise.
#[test]
fn an_etcd_of_three_killed_likewise_grants_its_own_lock() {
    let Some(mut cluster) = EtcdCluster::start() else { return };
    let (mut took, mut quiet) = (Vec::new(), Vec::new());
    let locks = cluster.locks();
    let lock = |name: String| mutex(&locks, &name).try_lock_for(LONG).map(drop).is_ok();
    for number in 0..kills() {
        let mut leader = None;
        until("an etcd that is whole", || {
            leader = cluster.leader();
            leader.is_some()
        });
        let begun = Instant::now();
        assert!(lock(format!("before {number}")));
        quiet.push(begun.elapsed());
        let killed = Instant::now();
        cluster.members[leader.unwrap()].kill();
        until("a lock of etcd's own", || lock(format!("after {number}")));
        took.push(killed.elapsed());
        cluster.begin(leader.unwrap());
    }
    tell("first new lock of an etcd of three, its leader killed", took);
    tell("the same without a kill", quiet);
}
