//! ZooKeeper: its server, its faults, and Curator on the same names.

mod curator;
mod raw;

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tierlock::{LockErrorKind, LockManager, LostReason, MutexGuard};

pub(super) use self::raw::RawClient;
use self::raw::{EPHEMERAL_SEQUENTIAL, NODE_EXISTS, PERSISTENT};
use super::{
    daemon::SharedServer,
    on,
    proxy::Proxy,
    rig::{ENDLESS, EngineRig, SHORT, give, hold, mutex},
};
use crate::{
    setting::{Hand, LONG, private_file, until},
    surroundings::program,
};

// ---- the server -----------------------------------------------------------------------------------

/// Where Debian has Java's libraries.
const JARS: &str = "/usr/share/java";

pub(super) fn is_installed() -> bool {
    let has_java = Command::new("java").arg("-version").output().is_ok();
    has_java && Path::new(JARS).join("zookeeper.jar").exists()
}

/// Each names what it needs of others by itself.
fn class_path(jars: &[&str]) -> String {
    let paths = jars.iter().map(|jar| format!("{JARS}/{jar}.jar"));
    paths.collect::<Vec<_>>().join(":")
}

/// Java as quick to start as it can be. Without its own signals: what ends others ends it.
fn java() -> Command {
    let mut command = program("java");
    command.args(["-Xrs", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx160m"]);
    command
}

pub(super) fn set_up(_: &Path) {}

/// It does not wait for the disk: processes are killed here, and machines are not.
pub(super) fn server(folder: &Path, port: &str) -> Command {
    member(folder, port, &[], 0)
}

/// One of an ensemble, if it has several.
pub(super) fn member(folder: &Path, port: &str, members: &[[u16; 2]], number: usize) -> Command {
    let data = folder.join("data");
    let mut settings = format!(
        "tickTime=100\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
         minSessionTimeout=200\nmaxSessionTimeout=120000\nadmin.enableServer=false\n\
         maxClientCnxns=0\nforceSync=no\n4lw.commands.whitelist=srvr,dump\n",
        data.display()
    );
    if members.len() > 1 {
        settings += "initLimit=100\nsyncLimit=50\n";
        for (at, [port, election]) in members.iter().enumerate() {
            settings += &format!("server.{at}=127.0.0.1:{port}:{election}\n");
        }
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("myid"), number.to_string()).unwrap();
    }
    let file = folder.join("zoo.cfg");
    std::fs::write(&file, settings).unwrap();
    let mut command = java();
    // What its TLS needs beyond what it names by itself.
    let netty = ["netty-codec", "netty-resolver", "netty-transport-native-unix-common"];
    command.args(["-cp", &class_path(&[&["zookeeper", "slf4j-nop"][..], &netty].concat())]);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(file);
    command
}

pub(super) fn answers(port: u16) -> bool {
    RawClient::try_connect(port).is_some()
}

/// Asks the server for what it says of itself.
fn ask(port: u16, word: &str) -> Option<String> {
    let mut line = TcpStream::connect(("127.0.0.1", port)).ok()?;
    line.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    line.write_all(word.as_bytes()).ok()?;
    let mut told = String::new();
    line.read_to_string(&mut told).ok()?;
    Some(told)
}

/// Starts the server that the tests of this process share, unless it runs, and makes a chroot on it:
/// its port, and the chroot.
pub(super) fn new_chroot() -> (u16, String) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let port = SHARED.get_or_init(|| SharedServer::start(set_up, server, answers)).port;
    let chroot = format!("test{}", NEXT.fetch_add(1, SeqCst));
    make_chroot(port, &chroot);
    (port, chroot)
}

static SHARED: OnceLock<SharedServer> = OnceLock::new();

/// It may be there already.
pub(super) fn make_chroot(port: u16, chroot: &str) {
    let made = RawClient::connect(port).create(&format!("/{chroot}"), b"", PERSISTENT);
    assert!(made.is_ok() || made == Err(NODE_EXISTS), "{made:?}");
}

/// Whether a session has a node of a lock's.
pub(super) fn is_taken(port: u16, chroot: &str, name: &str) -> bool {
    ask(port, "dump").unwrap().contains(&format!("/{chroot}/{name}/"))
}

/// Deletes the nodes of a lock, as an operator does.
pub(super) fn clear(port: u16, chroot: &str, name: &str) {
    let mut operator = RawClient::connect(port);
    let path = format!("/{chroot}/{name}");
    for child in operator.children(&path) {
        let _ = operator.delete(&format!("{path}/{child}"));
    }
}

fn path(rig: &EngineRig, name: &str) -> String {
    format!("/{}/{name}", rig.servers[0].database)
}

fn raw(rig: &EngineRig) -> RawClient {
    RawClient::connect(rig.servers[0].port)
}

/// The nodes of a lock, in their order.
fn nodes(rig: &EngineRig, name: &str) -> Vec<String> {
    raw(rig).children(&path(rig, name))
}

// ---- what is this engine's own ------------------------------------------------------------------------

on!([zookeeper] a_node_has_curators_form_and_says_what_its_holder_is_called);
fn a_node_has_curators_form_and_says_what_its_holder_is_called(rig: &EngineRig) {
    let locks = rig.locks();
    let guard = hold(&locks, "orders/42");
    let found = nodes(rig, "orders%2F42");
    let [node] = &*found else { panic!("{found:?}") };
    let (id, number) = node.strip_prefix("_c_").unwrap().split_once("-lock-").unwrap();
    assert_eq!((id.len(), number), (36, "0000000000"));
    give(guard);
    assert!(nodes(rig, "orders%2F42").is_empty());
    // The node of the lock itself is the server's to delete, once it is empty.
    give(hold(&locks, "orders/42"));
}

on!([zookeeper] a_waiter_whose_node_is_deleted_begins_anew);
/// etcd#11456 of a waiter that is not in its queue any more.
fn a_waiter_whose_node_is_deleted_begins_anew(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let guard = hold(&one, "job");
    let waiter = mutex(&another, "job");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    until("a queue of two", || nodes(rig, "job").len() == 2);
    let waiting = nodes(rig, "job").pop().unwrap();
    raw(rig).delete(&format!("{}/{waiting}", path(rig, "job"))).unwrap();
    give(guard);
    let guard = wait.finish().unwrap();
    let left = nodes(rig, "job");
    assert!(left.len() == 1 && left[0] != waiting, "{left:?}");
    assert!(MutexGuard::is_valid(&guard));
    assert!(mutex(&one, "job").try_lock().unwrap_err().is_contended());
}

on!([zookeeper] a_waiter_wakes_for_the_node_ahead_alone);
fn a_waiter_wakes_for_the_node_ahead_alone(rig: &EngineRig) {
    let managers: Vec<LockManager> = (0..4).map(|_| rig.locks()).collect();
    let guard = hold(&managers[0], "job");
    let mutexes: Vec<_> = managers[1..].iter().map(|locks| mutex(locks, "job")).collect();
    let mut waits = Vec::new();
    for (number, waiter) in mutexes.iter().enumerate() {
        let mut wait = Hand::new(waiter.lock_async());
        assert!(wait.poll().is_pending());
        until("a place in the queue", || nodes(rig, "job").len() == number + 2);
        waits.push(wait);
    }
    // The one in the middle leaves: the last one looks again, and goes on waiting.
    drop(waits.remove(1));
    until("a queue of three", || nodes(rig, "job").len() == 3);
    assert!(waits[1].poll().is_pending());
    give(guard);
    let first = waits.remove(0).finish().unwrap();
    assert!(waits[0].poll().is_pending());
    let token = MutexGuard::token(&first);
    give_borrowed(first);
    assert!(MutexGuard::token(&waits.remove(0).finish().unwrap()) > token);
}

fn give_borrowed(guard: MutexGuard<'_, ()>) {
    futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
}

on!([zookeeper] a_session_that_is_replaced_in_silence_is_lost_before_another_holds);
/// ClickHouse#116690: a server gives a client that comes back another session and says nothing.
fn a_session_that_is_replaced_in_silence_is_lost_before_another_holds(rig: &EngineRig) {
    let proxies = rig.proxies();
    let behind = rig.proxied(&proxies, Duration::from_secs(6));
    let other = rig.locks();
    let held = hold(&behind, "a");
    let waiter = mutex(&other, "a");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    proxies[0].forget_sessions();
    proxies[0].cut();
    // The session that has the node ends at the server, though its client is there.
    let next = wait.finish().unwrap();
    assert!(!MutexGuard::is_valid(&held), "two believe in it");
    drop(held);
    give_borrowed(next);
    // What is wished for on a session that is replaced is not believed in either.
    give(hold(&behind, "b"));
    proxies[0].cut();
    let again = hold(&behind, "b");
    let token = MutexGuard::token(&again);
    assert!(mutex(&other, "b").try_lock().unwrap_err().is_contended());
    give(again);
    assert!(MutexGuard::token(&hold(&other, "b")) > token);
}

on!([zookeeper] an_orphan_of_a_lost_answer_is_found_again_by_its_id);
/// go-zookeeper#237, curator#1121: a creation without an answer leaves a node that blocks all.
fn an_orphan_of_a_lost_answer_is_found_again_by_its_id(rig: &EngineRig) {
    let proxies = rig.proxies();
    let behind = rig.proxied(&proxies, ENDLESS);
    give(hold(&behind, "a"));
    for cut_again in [false, true] {
        proxies[0].deafen(true);
        let wanted = mutex(&behind, "a");
        let mut wait = Hand::new(wanted.lock_async());
        assert!(wait.poll().is_pending());
        until("a node at the server", || nodes(rig, "a").len() == 1);
        proxies[0].cut();
        if cut_again {
            proxies[0].cut();
        }
        proxies[0].deafen(false);
        let guard = wait.finish().unwrap();
        assert_eq!(nodes(rig, "a").len(), 1, "an orphan is left");
        drop(guard);
        until("an empty queue", || nodes(rig, "a").is_empty());
    }
}

on!([zookeeper] a_session_that_ends_is_told_at_once_and_takes_all_its_locks);
/// curator#1169 of a client that believes in a session that was lost and found again.
fn a_session_that_ends_is_told_at_once_and_takes_all_its_locks(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.proxied(&proxies, SHORT);
    let guards = [hold(&locks, "a"), hold(&locks, "b")];
    proxies[0].stall(true);
    until("an end at the server", || nodes(rig, "a").is_empty() && nodes(rig, "b").is_empty());
    for guard in &guards {
        assert!(!MutexGuard::is_valid(guard), "the server has ended it, and it is believed in");
    }
    proxies[0].stall(false);
    for guard in &guards {
        let lost = futures::executor::block_on(MutexGuard::lost(guard));
        assert!(matches!(lost, LostReason::Expired | LostReason::Forgotten), "{lost:?}");
    }
    drop(guards);
    // The next session is another.
    drop(mutex(&locks, "a").try_lock_for(LONG).unwrap());
}

on!([zookeeper] a_manager_that_closes_leaves_no_node_and_no_session);
fn a_manager_that_closes_leaves_no_node_and_no_session(rig: &EngineRig) {
    let locks = rig.locks();
    let guard = hold(&locks, "job");
    assert!(is_taken(rig.servers[0].port, &rig.servers[0].database, "job"));
    drop(guard);
    locks.close();
    until("an empty queue", || nodes(rig, "job").is_empty());
    until("no session", || {
        !ask(rig.servers[0].port, "dump").unwrap().contains(&rig.servers[0].database)
    });
}

on!([zookeeper] a_name_that_is_used_as_another_kind_of_lock_is_refused);
/// Curator's mutex and its read-write lock of one path ignore each other; so do kazoo's and a semaphore.
fn a_name_that_is_used_as_another_kind_of_lock_is_refused(rig: &EngineRig) {
    let locks = rig.locks();
    let read_write = rig.url() + "?as=read-write";
    let read_write = LockManager::builder().service(read_write).open().unwrap();
    let mut client = raw(rig);
    let kinds = [
        ("curator-rw", "_c_5-__WRIT__", "?as=read-write", true),
        ("curator-mutex", "_c_5-lock-", "leave `?as=read-write` out", false),
        ("kazoo", "5d__lock__", "kazoo", true),
        ("kazoo", "5d__lock__", "kazoo", false),
        ("latch", "_c_5-latch-", "leader latch", true),
    ];
    for (name, node, hint, is_mutex) in kinds {
        give(hold(&locks, "make"));
        let _ = client.create(&path(rig, name), b"", PERSISTENT);
        client.create(&format!("{}/{node}", path(rig, name)), b"", EPHEMERAL_SEQUENTIAL).unwrap();
        let error = match is_mutex {
            true => mutex(&locks, name).lock().map(|_| ()).unwrap_err(),
            false => read_write.rw_lock(name, ()).build().unwrap().write().map(|_| ()).unwrap_err(),
        };
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains(hint), "{error}");
    }
    client.create(&path(rig, "pool"), b"", PERSISTENT).unwrap();
    for part in ["leases", "locks"] {
        client.create(&format!("{}/{part}", path(rig, "pool")), b"", PERSISTENT).unwrap();
    }
    let error = mutex(&locks, "pool").lock().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("semaphore"), "{error}");
    // What was refused is not left in the queue.
    until("an empty queue", || nodes(rig, "pool").len() == 2);
}

on!([zookeeper] a_mutex_is_not_shared_unless_the_names_are_read_write_locks);
fn a_mutex_is_not_shared_unless_the_names_are_read_write_locks(rig: &EngineRig) {
    let plain = rig.locks().rw_lock("a", ()).build().unwrap();
    let refused = plain.read().map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Config, "{refused}");
    let url = rig.url() + "?as=read-write";
    let open = || LockManager::builder().service(&url).time_to_live(ENDLESS).open().unwrap();
    let [one, another, third] = [open(), open(), open()];
    let lock = |locks: &LockManager| locks.rw_lock("a", ()).build().unwrap();
    let [one, another, third] = [lock(&one), lock(&another), lock(&third)];
    let (first, beside, second) =
        (one.read().unwrap(), one.read().unwrap(), another.read().unwrap());
    assert!(third.try_write().unwrap_err().is_contended());
    drop((first, beside, second));
    let writer = third.try_write_for(LONG).unwrap();
    assert!(one.try_read().unwrap_err().is_contended());
    drop(writer);
    // A writer elsewhere has its turn between readers that follow each other.
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let guard = one.read().unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                    drop(guard);
                }
            });
        }
        until("a reader", || another.try_write().is_err());
        let written = another.try_write_for(LONG);
        is_over.store(true, SeqCst);
        drop(written.unwrap());
    });
}

on!([zookeeper] a_name_with_slashes_is_a_folder_where_a_site_has_them);
fn a_name_with_slashes_is_a_folder_where_a_site_has_them(rig: &EngineRig) {
    let url = rig.url() + "?parents=1";
    let open = || LockManager::builder().service(&url).time_to_live(ENDLESS).open().unwrap();
    let [one, another] = [open(), open()];
    let guards = [hold(&one, "a"), hold(&one, "a/b"), hold(&one, "a/b/c")];
    assert_eq!(nodes(rig, "a/b/c").len(), 1);
    for name in ["a", "a/b", "a/b/c"] {
        assert!(mutex(&another, name).try_lock().unwrap_err().is_contended());
    }
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    let told = command.args(["status", "--service", &url]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("a/b/c") && told.contains("a/b "), "{told}");
    guards.into_iter().for_each(give);
    let error = mutex(&one, "a//b").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
}

on!([zookeeper] a_chroot_that_is_missing_is_not_made_in_silence);
fn a_chroot_that_is_missing_is_not_made_in_silence(rig: &EngineRig) {
    let wrong = rig.url().replace(&rig.servers[0].database, "slip");
    let locks = LockManager::builder().service(wrong).open().unwrap();
    let error = mutex(&locks, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("zkCli.sh create /slip"), "{error}");
    // One that is deleted under a manager's feet, too.
    let locks = rig.locks();
    give(hold(&locks, "a"));
    let mut operator = raw(rig);
    operator.delete(&path(rig, "a")).unwrap();
    operator.delete(path(rig, "").trim_end_matches('/')).unwrap();
    let error = mutex(&locks, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    make_chroot(rig.servers[0].port, &rig.servers[0].database);
    give(hold(&locks, "a"));
}

on!([zookeeper] the_node_of_a_lock_may_go_between_its_holders);
fn the_node_of_a_lock_may_go_between_its_holders(rig: &EngineRig) {
    let locks = rig.locks();
    let first = hold(&locks, "a");
    let token = MutexGuard::token(&first);
    give(first);
    // As the server does with a container that is empty: numbers begin anew, and tokens do not.
    raw(rig).delete(&path(rig, "a")).unwrap();
    let second = hold(&locks, "a");
    assert!(nodes(rig, "a")[0].ends_with("0000000000"));
    assert!(MutexGuard::token(&second) > token);
}

on!([zookeeper] a_login_keeps_clients_without_it_out);
fn a_login_keeps_clients_without_it_out(rig: &EngineRig) {
    let file = rig.folder().join("password");
    private_file(&file, "hunter2\n");
    let login = rig.url().replace("zookeeper://", "zookeeper://shop@");
    let url = format!("{login}?password_file={}", file.display());
    let locks = LockManager::builder().service(&url).time_to_live(ENDLESS).open().unwrap();
    let guard = hold(&locks, "a");
    let node = format!("{}/{}", path(rig, "a"), {
        let mut shop = raw(rig);
        shop.log_in("shop:hunter2");
        shop.children(&path(rig, "a")).pop().unwrap()
    });
    assert!(raw(rig).delete(&node).is_err(), "a client without the login has deleted it");
    assert!(MutexGuard::is_valid(&guard));
    let error = mutex(&rig.locks(), "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
    private_file(&file, "wrong\n");
    let wrong = LockManager::builder().service(&url).open().unwrap();
    let error = mutex(&wrong, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let alone = LockManager::builder().service(&login).open().map(|_| ()).unwrap_err();
    assert_eq!(alone.kind(), LockErrorKind::Config, "{alone}");
}

on!([zookeeper] a_release_that_the_server_does_not_confirm_is_done_by_its_end);
/// curator#1193: the outcome of a release is unknown, and the client and the server disagree for good.
fn a_release_that_the_server_does_not_confirm_is_done_by_its_end(rig: &EngineRig) {
    let proxies: Vec<Proxy> = rig.proxies();
    let builder = LockManager::builder().service(rig.url_of(proxies.iter().map(Proxy::port)));
    let patience = Duration::from_millis(500);
    let locks = builder.time_to_live(ENDLESS).connect_timeout(patience).open().unwrap();
    let (guard, other) = (hold(&locks, "a"), hold(&locks, "b"));
    // Half open: the deletion goes nowhere, for longer than its caller waits for it.
    proxies[0].mute(true);
    let released = futures::executor::block_on(MutexGuard::unlock_async(guard));
    assert!(released.is_err(), "it was confirmed by nothing");
    assert_eq!(nodes(rig, "a").len(), 1);
    proxies[0].mute(false);
    until("an empty queue", || nodes(rig, "a").is_empty());
    assert!(MutexGuard::is_valid(&other));
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
    drop(other);
}

on!([zookeeper] settings_that_it_cannot_have_are_told);
fn settings_that_it_cannot_have_are_told(rig: &EngineRig) {
    let refused = |more: &str| {
        let url = rig.url() + more;
        LockManager::builder().service(url).open().map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused("?as=semaphore").contains("mutex or read-write"));
    assert!(refused("?acl=creator").contains("login"));
    assert!(refused("?acl=mine").contains("open or creator"));
    assert!(refused("?prefix=a").contains("acl, as, ca, parents, password_file"));
    let refused = rig.locks().mutex("a", ()).at_least(SHORT).build().unwrap_err();
    assert_eq!(refused.kind(), LockErrorKind::Config);
}

on!([zookeeper] a_doctor_tells_what_the_server_is);
fn a_doctor_tells_what_the_server_is(rig: &EngineRig) {
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    let told = command.args(["doctor", "--service", &rig.url()]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("answers: 3."), "{told}");
    assert!(told.contains("one server") && told.contains("acl=creator"), "{told}");
}
