//! Leaders over a store killed again and again under load, and beside them what a site has without us; see
//! [`killing`](crate::killing).

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;
use tierlock::LockManager;

use super::{JournalRig, Served, first_to_reign};
use crate::{
    engines::{
        on,
        rig::{ENDLESS, EngineRig, mutex},
    },
    killing::{KilledLeaders, is_heavy, kill_again_and_again, kills, tell, tell_idle_cost},
    setting::{LONG, Port, temp_dir, until},
    surroundings::program,
};

/// L, as leaders have it unless they are told otherwise: for a machine that does nothing else. Here it is long
/// enough for one that builds beside.
fn reign() -> &'static str {
    if is_heavy() { "1s" } else { "3s" }
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

/// Three leaders, and the one that is killed.
struct KilledBeside<'a> {
    rig: JournalRig<'a>,
    leaders: Vec<Served>,
    killed: usize,
}

impl KilledLeaders for KilledBeside<'_> {
    fn locks(&self) -> LockManager {
        self.rig.locks(&self.leaders.iter().collect::<Vec<_>>())
    }

    fn kill(&mut self) -> Instant {
        let mut reigning = None;
        until("a leader that reigns", || {
            let address = self.rig.reigning_at();
            let is_it = |leader: &Served| Some(leader.address()) == address;
            reigning = self.leaders.iter().position(is_it);
            reigning.is_some()
        });
        self.killed = reigning.unwrap();
        let killed = Instant::now();
        self.leaders[self.killed].kill();
        killed
    }

    fn had_moved(&self) -> bool {
        let address = self.leaders[self.killed].address();
        self.rig.reigning_at().is_some_and(|other| other != address)
    }

    fn restore(&mut self) {
        let address = self.leaders[self.killed].address();
        self.leaders[self.killed] = self.rig.again_at(&address);
        self.leaders[self.killed].says("it stands by");
    }
}

on!([etcd postgres] leaders_killed_again_and_again_lose_no_lock);
fn leaders_killed_again_and_again_lose_no_lock(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let leaders: Vec<Served> = (0..3).map(|_| rig.leader(reign())).collect();
    first_to_reign(&leaders);
    let what = format!("over {}, L = {}, the leader that reigns killed", store.kind, reign());
    kill_again_and_again(&what, &mut KilledBeside { rig, leaders, killed: 0 });
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
    until("an etcd that is whole", || cluster.leader().is_some());
    let running = cluster.members.iter().filter_map(|member| member.child.as_ref());
    tell_idle_cost("each member of an etcd of three", &running.map(Child::id).collect::<Vec<_>>());
}
