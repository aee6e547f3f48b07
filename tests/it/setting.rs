//! Where the conformance suite runs: one setting per scope and per way to reach it, and the small
//! tools that its tests share.

use std::{
    fs,
    future::Future,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, AtomicU64, Ordering::*},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex as Plain};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use tierlock::{
    Engine, Leader, LockErrorKind, LockManager, LockManagerBuilder, Mutex, MutexGuard, Scope,
};

use crate::helper::Helper;

/// Longer than anything that is going to happen takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// The shortest time to live there is.
pub(crate) const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The longest, for a holder that is to keep a lock on a machine that is busy with something else.
pub(crate) const LONG_LIFE: Duration = Duration::from_secs(60);

/// Makes one test per setting out of a situation: `exclusion::threads_lose_no_count::host`.
///
/// A manager in memory locks at thread scope and at process scope by the thread lock alone, with the code that
/// the settings `thread` and `process` run, too: `memory_below_host` is one of the two, by the situation's name.
macro_rules! at {
    (@test memory_below_host $situation:ident) => {
        #[test]
        fn memory_below_host() {
            let setting = $crate::setting::Setting::memory_below_host(stringify!($situation));
            super::$situation(&setting);
        }
    };
    (@test $setting:ident $situation:ident) => {
        #[test]
        fn $setting() {
            super::$situation(&$crate::setting::Setting::$setting());
        }
    };
    (everywhere, $situation:ident) => {
        $crate::setting::at!(
            [thread process process_file host host_with_directory host_with_file_directory
                memory_below_host memory_host]
            $situation
        );
    };
    (above_threads, $situation:ident) => {
        $crate::setting::at!(
            [process process_file host host_with_directory host_with_file_directory
                memory_process memory_host]
            $situation
        );
    };
    (across_processes, $situation:ident) => {
        $crate::setting::at!(
            [process process_file host host_with_directory host_with_file_directory] $situation
        );
    };
    (with_leader, $situation:ident) => {
        $crate::setting::at!(
            [host host_with_directory host_with_file_directory memory_host] $situation
        );
    };
    ([$($setting:ident)*] $situation:ident) => {
        mod $situation {
            $($crate::setting::at!(@test $setting $situation);)*
        }
    };
}
pub(crate) use at;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Memory,
    /// A directory of the file-lock engine.
    PlainFile,
    Host,
    HostWithDirectory,
    HostWithFileDirectory,
}

impl Kind {
    fn has_leader(self) -> bool {
        matches!(self, Kind::Host | Kind::HostWithDirectory | Kind::HostWithFileDirectory)
    }

    /// At host scope.
    fn has_directories(self) -> bool {
        matches!(self, Kind::HostWithDirectory | Kind::HostWithFileDirectory)
    }
}

fn is_sampled_at_process_scope(situation: &str) -> bool {
    let hashed = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    situation.bytes().fold(0x811c_9dc5, hashed) >> 31 == 1
}

/// One way to have locks of one scope.
pub(crate) struct Setting {
    pub(crate) scope: Scope,
    kind: Kind,
    first: LockManager,
    machines: Plain<Vec<TempDir>>,
    rig: Option<Rig>,
}

impl Setting {
    pub(crate) fn thread() -> Setting {
        Setting::new(Scope::Thread, Kind::Plain)
    }

    pub(crate) fn process() -> Setting {
        Setting::new(Scope::Process, Kind::Plain)
    }

    pub(crate) fn process_file() -> Setting {
        Setting::new(Scope::Process, Kind::PlainFile)
    }

    pub(crate) fn host() -> Setting {
        Setting::new(Scope::Host, Kind::Host)
    }

    pub(crate) fn host_with_directory() -> Setting {
        Setting::new(Scope::Host, Kind::HostWithDirectory)
    }

    pub(crate) fn host_with_file_directory() -> Setting {
        Setting::new(Scope::Host, Kind::HostWithFileDirectory)
    }

    /// At thread scope or at process scope: half of the situations each, and each always the same.
    pub(crate) fn memory_below_host(situation: &str) -> Setting {
        match is_sampled_at_process_scope(situation) {
            true => Setting::memory_process(),
            false => Setting::new(Scope::Thread, Kind::Memory),
        }
    }

    pub(crate) fn memory_process() -> Setting {
        Setting::new(Scope::Process, Kind::Memory)
    }

    pub(crate) fn memory_host() -> Setting {
        Setting::new(Scope::Host, Kind::Memory)
    }

    fn new(scope: Scope, kind: Kind) -> Setting {
        let machine = temp_dir();
        let rig = kind.has_leader().then(Rig::start);
        let first = match kind {
            Kind::Memory => LockManager::in_memory(),
            _ => open_at(scope, kind, machine.path(), rig.as_ref(), |b| b.label("first")),
        };
        Setting { scope, kind, first, machines: Plain::new(vec![machine]), rig }
    }

    /// The first manager.
    pub(crate) fn locks(&self) -> LockManager {
        self.first.clone()
    }

    /// Another manager of the same machine; where only clones share locks, a clone.
    pub(crate) fn neighbour(&self) -> LockManager {
        self.neighbour_with(|builder| builder)
    }

    pub(crate) fn neighbour_with(
        &self,
        settings: impl FnOnce(LockManagerBuilder) -> LockManagerBuilder,
    ) -> LockManager {
        if self.scope == Scope::Thread || self.kind == Kind::Memory {
            return self.first.clone();
        }
        open_at(self.scope, self.kind, &self.directory(), self.rig.as_ref(), |builder| {
            settings(builder.label("neighbour"))
        })
    }

    /// Another manager, as far away as the scope reaches: another machine, if it can be one.
    pub(crate) fn remote(&self) -> LockManager {
        self.remote_with(|builder| builder)
    }

    pub(crate) fn remote_with(
        &self,
        settings: impl FnOnce(LockManagerBuilder) -> LockManagerBuilder,
    ) -> LockManager {
        match (self.kind, self.scope) {
            (Kind::Memory, Scope::Host) => self.first.in_memory_peer(),
            (kind, _) if kind.has_directories() => {
                let machine = self.other_machine();
                open_at(self.scope, self.kind, &machine, self.rig.as_ref(), |builder| {
                    settings(builder.label("remote"))
                })
            }
            _ => self.neighbour_with(|builder| settings(builder.label("remote"))),
        }
    }

    /// That many managers, near and far, the first one among them.
    pub(crate) fn crowd(&self, count: usize) -> Vec<LockManager> {
        let one = |number| match number % 3 {
            0 => self.locks(),
            1 => self.remote(),
            _ => self.neighbour(),
        };
        (0..count).map(one).collect()
    }

    /// A mutex of this setting's scope.
    pub(crate) fn mutex<T>(&self, locks: &LockManager, name: &str, value: T) -> Mutex<T> {
        locks.mutex(name, value).scope(self.scope).build().unwrap()
    }

    /// A guard of this setting's scope.
    pub(crate) fn hold(&self, locks: &LockManager, name: &str) -> MutexGuard<'static, ()> {
        locks.mutex(name, ()).scope(self.scope).lock().unwrap()
    }

    /// Another process on the same machine, with a manager.
    pub(crate) fn helper(&self) -> Helper {
        self.helper_with(&self.directory(), "")
    }

    /// A process of another machine where the scope has others, with a manager the leases of which
    /// outlive its silence by one second only.
    pub(crate) fn far_helper(&self) -> Helper {
        let machine = match self.kind {
            kind if kind.has_directories() => self.other_machine(),
            _ => self.directory(),
        };
        self.helper_with(&machine, "\tttl=1000")
    }

    /// As `helper`, with short-lived leases.
    pub(crate) fn near_helper(&self) -> Helper {
        self.helper_with(&self.directory(), "\tttl=1000")
    }

    /// As `helper`, with the longest-lived leases there are.
    pub(crate) fn helper_with_long_life(&self) -> Helper {
        self.helper_with(&self.directory(), "\tttl=60000")
    }

    /// As `helper`, with a second manager of the same directory.
    pub(crate) fn helper_with_two_managers(&self) -> Helper {
        let mut helper = self.helper();
        let line = format!("open-another\t{}", self.settings_of(&self.directory()));
        assert_eq!(helper.ask(&line), "ok");
        helper
    }

    fn helper_with(&self, machine: &Path, more: &str) -> Helper {
        let mut helper = Helper::start();
        let line = format!("open\t{}{more}", self.settings_of(machine));
        assert_eq!(helper.ask(&line), "ok");
        helper
    }

    fn settings_of(&self, machine: &Path) -> String {
        let mut line = "label=helper".to_owned();
        if self.kind != Kind::Host {
            line += &format!("\tdir={}\tengine={}", machine.display(), engine_word(self.kind));
        }
        if let Some(rig) = &self.rig {
            line += &rig.settings();
        }
        line
    }

    /// The directory of the first machine.
    pub(crate) fn directory(&self) -> PathBuf {
        self.machines.lock()[0].path().to_owned()
    }

    fn other_machine(&self) -> PathBuf {
        let machine = temp_dir();
        let path = machine.path().to_owned();
        self.machines.lock().push(machine);
        path
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.kind == Kind::Memory
    }

    /// Whether the kernel orders its waiters, and does not tell: of the file-lock engine.
    pub(crate) fn has_no_order(&self) -> bool {
        self.kind == Kind::PlainFile
    }

    /// Whether there are permits: the file-lock engine has none.
    pub(crate) fn counts_permits(&self) -> bool {
        self.kind != Kind::PlainFile
    }

    /// Whether managers share a directory below the leader.
    pub(crate) fn has_directory(&self) -> bool {
        matches!(self.kind, Kind::HostWithDirectory | Kind::HostWithFileDirectory)
    }

    /// Stops the leader, as a crash would as far as others can tell.
    pub(crate) fn stop_leader(&self) {
        match &self.rig {
            Some(rig) => rig.stop(),
            None => self.first.stop_leader(),
        }
    }

    pub(crate) fn start_leader(&self) {
        match &self.rig {
            Some(rig) => rig.restart(),
            None => self.first.start_leader(),
        }
    }

    /// A number of rounds that takes about as long in every setting.
    pub(crate) fn rounds(&self) -> u64 {
        match (self.kind, self.scope) {
            (kind, _) if kind.has_leader() => 40,
            (_, Scope::Host) => 200,
            _ => 1_000,
        }
    }

    /// A round trip of this manager to its leader: what it said before has been heard.
    pub(crate) fn until_heard(&self, locks: &LockManager) {
        static TRIPS: AtomicU64 = AtomicU64::new(0);
        if self.scope == Scope::Host {
            let name = format!("round trip {}", TRIPS.fetch_add(1, Relaxed));
            drop(locks.mutex(name, ()).try_lock().unwrap());
        }
    }
}

fn open_at(
    scope: Scope,
    kind: Kind,
    machine: &Path,
    rig: Option<&Rig>,
    settings: impl FnOnce(LockManagerBuilder) -> LockManagerBuilder,
) -> LockManager {
    let mut builder = LockManager::builder();
    if scope == Scope::Process || kind.has_directories() {
        builder = builder.directory(machine).engine(engine(kind));
    }
    if let Some(rig) = rig {
        builder = rig.joined(builder);
    }
    settings(builder).open().unwrap()
}

fn engine(kind: Kind) -> Engine {
    match kind {
        Kind::PlainFile | Kind::HostWithFileDirectory => Engine::FileLock,
        _ => Engine::Table,
    }
}

/// The engine, as helpers are told it.
fn engine_word(kind: Kind) -> &'static str {
    if engine(kind) == Engine::FileLock { "file-lock" } else { "table" }
}

/// A leader in this process that can be stopped and started again on its state.
pub(crate) struct Rig {
    files: TempDir,
    port: Port,
    leader: Plain<Option<Leader>>,
}

impl Rig {
    pub(crate) fn start() -> Rig {
        let files = temp_dir();
        new_secret(&files.path().join("secret"));
        for _ in 0..100 {
            let port = Port::claim();
            if let Ok(leader) = start_leader(files.path(), port.address(), true) {
                return Rig { files, port, leader: Plain::new(Some(leader)) };
            }
        }
        panic!("no port to be had for a leader");
    }

    pub(crate) fn stop(&self) {
        let leader = self.leader.lock().take();
        leader.expect("a leader that runs").shutdown();
    }

    pub(crate) fn restart(&self) {
        let mut leader = self.leader.lock();
        assert!(leader.is_none(), "it runs already");
        let begin = Instant::now();
        *leader = Some(loop {
            match start_leader(self.files.path(), self.port.address(), false) {
                Ok(leader) => break leader,
                // A child that another test is about to start has the lock until it executes.
                Err(error) if error.kind() == LockErrorKind::Refused && begin.elapsed() < LONG => {
                    thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        });
    }

    pub(crate) fn address(&self) -> String {
        self.port.address().to_string()
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.files.path().join("secret")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.files.path().join("state")
    }

    /// Settings with which a manager has this leader.
    pub(crate) fn joined(&self, builder: LockManagerBuilder) -> LockManagerBuilder {
        builder.leaders([self.address()]).secret_file(self.secret())
    }

    pub(crate) fn builder(&self) -> LockManagerBuilder {
        self.joined(LockManager::builder())
    }

    /// The same for a helper.
    pub(crate) fn settings(&self) -> String {
        format!("\tleaders={}\tsecret={}", self.address(), self.secret().display())
    }
}

fn start_leader(files: &Path, address: SocketAddr, is_new: bool) -> tierlock::Result<Leader> {
    Leader::builder()
        .listen(address)
        .state_dir(files.join("state"))
        .init(is_new)
        .accept_file_system("tmpfs")
        .secret_file(files.join("secret"))
        .start()
}

/// A port for a leader, and for no other test of this machine, in whatever process, until this is
/// dropped: also while the leader is away. It is below those that the system gives out.
///
/// Leaders listen on UDP; the owner of the TCP port of the number has claimed it.
pub(crate) struct Port(TcpListener);

impl Port {
    pub(crate) fn claim() -> Port {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = std::process::id() as u16 % 1_000 * 20;
        let mut ports = (0..20_000).map(|_| {
            let offset = start.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 20_000;
            Port::claim_this(SocketAddr::from(([127, 0, 0, 1], 10_000 + offset)))
        });
        ports.find_map(|port| port).expect("a free port")
    }

    fn claim_this(address: SocketAddr) -> Option<Port> {
        let port = Port(TcpListener::bind(address).ok()?);
        UdpSocket::bind(address).is_ok().then_some(port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

#[test]
fn the_port_of_a_leader_that_is_away_is_claimed_by_no_other() {
    let rig = Rig::start();
    let address = rig.port.address();
    assert!(Port::claim_this(address).is_none());
    rig.stop();
    assert!(Port::claim_this(address).is_none(), "another test's leader may start there");
    rig.restart();
}

/// The address of a port that is claimed as long as this process lives.
pub(crate) fn free_address() -> SocketAddr {
    static CLAIMED: Plain<Vec<Port>> = Plain::new(Vec::new());
    let port = Port::claim();
    let address = port.address();
    CLAIMED.lock().push(port);
    address
}

/// A secret like those that `tierlock secret new` makes.
pub(crate) fn new_secret(path: &Path) {
    tierlock::Secret::create(path).unwrap();
}

/// A file of this text for its owner only.
pub(crate) fn private_file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("tierlock-it-").tempdir().unwrap()
}

/// A counter that loses counts when two count at once.
#[derive(Default)]
pub(crate) struct Unprotected(AtomicU64);

impl Unprotected {
    pub(crate) fn add(&self) {
        let count = self.0.load(Relaxed);
        thread::yield_now();
        self.0.store(count + 1, Relaxed);
    }

    pub(crate) async fn add_async(&self) {
        let count = self.0.load(Relaxed);
        tokio::task::yield_now().await;
        self.0.store(count + 1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A future polled by hand.
pub(crate) struct Hand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes {
    woken: Plain<bool>,
    changed: Condvar,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_all();
    }
}

impl<'a, T> Hand<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'a) -> Hand<'a, T> {
        Hand { future: Box::pin(future), wakes: Arc::default() }
    }

    pub(crate) fn poll(&mut self) -> Poll<T> {
        *self.wakes.woken.lock() = false;
        let waker = Waker::from(self.wakes.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Whether it was woken since the last poll, or is within this time.
    pub(crate) fn woken_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut woken = self.wakes.woken.lock();
        while !*woken {
            if self.wakes.changed.wait_until(&mut woken, until).timed_out() {
                return *woken;
            }
        }
        true
    }

    /// Polls until it is ready.
    pub(crate) fn finish(mut self) -> T {
        loop {
            if let Poll::Ready(output) = self.poll() {
                return output;
            }
            assert!(self.woken_within(LONG), "it was not woken");
        }
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A thread of this process that is to block.
#[derive(Default)]
pub(crate) struct BlockedThread(OnceLock<Pid>);

impl BlockedThread {
    /// Said by the thread itself, before the call that blocks.
    pub(crate) fn is_this(&self) {
        self.0.set(rustix::thread::gettid()).expect("one thread says so, once");
    }

    /// Waits until the thread sleeps in the kernel.
    pub(crate) fn until_blocked(&self) {
        until("a thread that sleeps", || {
            let Some(thread) = self.0.get() else { return false };
            let path = format!("/proc/self/task/{thread}/stat");
            // After the thread's name, which may hold anything.
            let stat = fs::read_to_string(path).unwrap();
            stat.rsplit_once(')').unwrap().1.trim_start().starts_with('S')
        });
    }
}

/// What a signal is for: one process and, once that is gone, none. Its number may be another
/// process's by then.
pub(crate) struct Handle(OwnedFd);

impl Handle {
    pub(crate) fn of(process: Pid) -> rustix::io::Result<Handle> {
        pidfd_open(process, PidfdFlags::empty()).map(Handle)
    }

    pub(crate) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        pidfd_send_signal(&self.0, signal)
    }
}

/// A time that processes of this machine can compare, in nanoseconds.
pub(crate) fn stamp() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
