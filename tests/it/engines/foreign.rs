//! The field's own clients on the same names, in both orders.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tierlock::{LockErrorKind, MutexGuard, Scope};

use super::{
    on,
    rig::{EngineRig, SHORT, give, hold, mutex},
};
use crate::{
    setting::{Hand, LONG, until},
    surroundings::program,
};

/// A client that is another program: it answers each line with one.
pub(super) struct ForeignClient {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl ForeignClient {
    fn python(script: &str, arguments: &[&str]) -> Option<ForeignClient> {
        let mut command = program("python3");
        command.args(["-c", script]).args(arguments);
        ForeignClient::start(command, "the Python package")
    }

    /// `None`, and a line that says so, unless it says that it is ready.
    pub(super) fn start(mut command: Command, what: &str) -> Option<ForeignClient> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let client = spawned.ok().and_then(|mut child| {
            let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
            Some(ForeignClient { child, to, from })
        });
        let client = client.and_then(|mut client| (client.hear() == "ready").then_some(client));
        if client.is_none() {
            eprintln!("{what} is not installed: its locks are not tried");
        }
        client
    }

    pub(super) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    pub(super) fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    pub(super) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for ForeignClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const REDIS_PY: &str = r#"
import sys
try:
    import redis
except ImportError:
    print("missing", flush=True); sys.exit()
lock = redis.Redis(port=int(sys.argv[1])).lock(sys.argv[2], timeout=3)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "try":
        print(lock.acquire(blocking=False), flush=True)
    elif line.strip() == "release":
        lock.release(); print("released", flush=True)
"#;

on!([redis redis_plain] redis_py_and_we_exclude_each_other);
fn redis_py_and_we_exclude_each_other(rig: &EngineRig) {
    let port = rig.servers[0].port.to_string();
    let Some(mut theirs) = ForeignClient::python(REDIS_PY, &[&port, "job"]) else { return };
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    let guard = ours.lock().unwrap();
    assert_eq!(theirs.ask("try"), "False");
    give(guard);
    assert_eq!(theirs.ask("try"), "True");
    assert!(ours.try_lock().unwrap_err().is_contended());
    let mut wait = Hand::new(ours.lock_async());
    assert!(wait.poll().is_pending());
    assert_eq!(theirs.ask("release"), "released");
    drop(wait.finish().unwrap());
    let mut holder = rig.helper(SHORT);
    holder.lock(Scope::Host, "job");
    assert_eq!(theirs.ask("try"), "False");
    holder.kill();
    until("redis-py's turn", || theirs.ask("try") == "True");
    assert!(ours.try_lock().unwrap_err().is_contended());
    drop(theirs);
    give(ours.try_lock_for(LONG).unwrap());
}

const REDLOCK_PY: &str = r#"
import sys
try:
    from redlock import Redlock
except ImportError:
    print("missing", flush=True); sys.exit()
locks = Redlock([{"host": "127.0.0.1", "port": int(port)} for port in sys.argv[2:]], retry_count=1)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "try":
        lock = locks.lock(sys.argv[1], 2000)
        print(bool(lock), flush=True)
    elif line.strip() == "release":
        locks.unlock(lock); print("released", flush=True)
"#;

on!([redlock] redlock_py_and_we_exclude_each_other);
fn redlock_py_and_we_exclude_each_other(rig: &EngineRig) {
    let ports: Vec<String> = rig.servers.iter().map(|server| server.port.to_string()).collect();
    let arguments: Vec<&str> =
        ["job"].into_iter().chain(ports.iter().map(|port| &**port)).collect();
    let Some(mut theirs) = ForeignClient::python(REDLOCK_PY, &arguments) else { return };
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    let guard = ours.lock().unwrap();
    assert_eq!(theirs.ask("try"), "False");
    give(guard);
    assert_eq!(theirs.ask("try"), "True");
    assert!(ours.try_lock().unwrap_err().is_contended());
    assert_eq!(theirs.ask("release"), "released");
    give(ours.try_lock_for(LONG).unwrap());
    // Each is killed as it holds the lock, and the other succeeds it after its time.
    let mut holder = rig.helper(SHORT);
    holder.lock(Scope::Host, "job");
    assert_eq!(theirs.ask("try"), "False");
    holder.kill();
    until("redlock-py's turn", || theirs.ask("try") == "True");
    assert!(ours.try_lock().unwrap_err().is_contended());
    drop(theirs);
    give(ours.try_lock_for(LONG).unwrap());
}

/// Redisson's own scripts, of version 3.45: `RedissonLock.tryLockInnerAsync` and `unlockInnerAsync`.
const REDISSON_TAKE: &str = "if ((redis.call('exists', KEYS[1]) == 0) or \
    (redis.call('hexists', KEYS[1], ARGV[2]) == 1)) then \
    redis.call('hincrby', KEYS[1], ARGV[2], 1); redis.call('pexpire', KEYS[1], ARGV[1]); \
    return nil; end; return redis.call('pttl', KEYS[1]);";
const REDISSON_RELEASE: &str = "if (redis.call('hexists', KEYS[1], ARGV[3]) == 0) then return nil; end; \
    local counter = redis.call('hincrby', KEYS[1], ARGV[3], -1); if (counter > 0) then \
    redis.call('pexpire', KEYS[1], ARGV[2]); return 0; else redis.call('del', KEYS[1]); \
    redis.call('publish', KEYS[2], ARGV[1]); return 1; end; return nil;";

on!([redis] redisson_and_we_exclude_each_other);
fn redisson_and_we_exclude_each_other(rig: &EngineRig) {
    let server = &rig.servers[0];
    let owner = "285475da-9152-4c83-822a-67ee2f116a79:52";
    let take = || server.cli(&["EVAL", REDISSON_TAKE, "1", "job", "60000", owner]);
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    let guard = ours.lock().unwrap();
    let left: i64 = take().parse().expect("the time that is left");
    assert!(left > 0);
    give(guard);
    assert_eq!(take(), "");
    assert!(ours.try_lock().unwrap_err().is_contended());
    let mut wait = Hand::new(ours.lock_async());
    assert!(wait.poll().is_pending());
    // Its publication wakes the waiter long before the key would expire.
    let channel = "redisson_lock__channel:{job}";
    let release = ["EVAL", REDISSON_RELEASE, "2", "job", channel, "0", "60000", owner];
    assert_eq!(server.cli(&release), "1");
    drop(wait.finish().unwrap());
    // Each holder ends without a release, and the other succeeds it after its time.
    let mut holder = rig.helper(SHORT);
    holder.lock(Scope::Host, "job");
    assert_ne!(take(), "");
    holder.kill();
    until("Redisson's turn", || take().is_empty());
    server.cli(&["PEXPIRE", "job", "1000"]);
    assert!(ours.try_lock().unwrap_err().is_contended());
    drop(ours.try_lock_for(LONG).unwrap());
}

on!([redis] a_fenced_lock_of_redisson_goes_on_with_our_tokens);
fn a_fenced_lock_of_redisson_goes_on_with_our_tokens(rig: &EngineRig) {
    let server = &rig.servers[0];
    let locks = rig.locks();
    let first = MutexGuard::token(&mutex(&locks, "job").lock().unwrap());
    let theirs: u64 = server.cli(&["INCR", "redisson_lock_token:{job}"]).parse().unwrap();
    assert!(theirs > first.get());
    assert!(MutexGuard::token(&mutex(&locks, "job").lock().unwrap()).get() > theirs);
    // Beyond what Lua's numbers hold exactly.
    server.cli(&["SET", "redisson_lock_token:{job}", "9007199254740993"]);
    let token = MutexGuard::token(&mutex(&locks, "job").lock().unwrap());
    assert_eq!(token.get(), 9_007_199_254_740_994);
    server.cli(&["SET", "redisson_lock_token:{job}", "9223372036854775807"]);
    let full = mutex(&locks, "job").lock().map(|_| ()).unwrap_err();
    assert_eq!(full.kind(), LockErrorKind::Config, "{full}");
}

on!([redis redis_plain] a_name_that_is_something_else_is_refused);
/// redisson#4023: an exclusive lock and a read lock of one name are both held.
fn a_name_that_is_something_else_is_refused(rig: &EngineRig) {
    let server = &rig.servers[0];
    let locks = rig.locks();
    server.cli(&["HSET", "rw", "mode", "read", "285475da-9152-4c83-822a-67ee2f116a79:52", "1"]);
    server.cli(&["RPUSH", "list", "x"]);
    for (name, what) in [("rw", "read-write lock"), ("list", "a list")] {
        let error = mutex(&locks, name).lock().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains(what), "{error}");
    }
}

on!([redis redis_plain redlock] a_string_of_another_recipe_is_waited_for);
fn a_string_of_another_recipe_is_waited_for(rig: &EngineRig) {
    rig.each(|server| drop(server.cli(&["SET", "job", "theirs", "NX", "PX", "60000"])));
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    assert!(ours.try_lock().unwrap_err().is_contended());
    let late = ours.try_lock_for(Duration::from_millis(200)).unwrap_err();
    assert!(late.is_timeout());
    rig.each(|server| drop(server.cli(&["DEL", "job"])));
    let guard = ours.try_lock_for(LONG).unwrap();
    rig.each(|server| assert_eq!(server.cli(&["SET", "job", "x", "NX", "PX", "9"]), ""));
    drop(guard);
}

on!(with_sessions, a_key_that_is_deleted_is_a_lock_that_is_lost);
/// The key is gone: by an operator, or a server that has lost its memory.
fn a_key_that_is_deleted_is_a_lock_that_is_lost(rig: &EngineRig) {
    let locks = rig.short_locks();
    let guard = hold(&locks, "job");
    let other = hold(&locks, "other");
    let lost = MutexGuard::lost(&guard);
    rig.take_away("job");
    let next = hold(&rig.locks(), "job");
    assert_eq!(futures::executor::block_on(lost), tierlock::LostReason::Forgotten);
    assert!(MutexGuard::is_valid(&other));
    drop((guard, next));
}

/// `etcdctl`, until it is interrupted.
pub(super) struct Etcdctl {
    child: Child,
    from: BufReader<ChildStdout>,
}

impl Etcdctl {
    pub(super) fn lock(rig: &EngineRig, name: &str) -> Etcdctl {
        Etcdctl::start(rig, &["lock", "--ttl=2", name])
    }

    /// `etcdctl elect`, which leads with a value, or without one listens.
    pub(super) fn elect(rig: &EngineRig, arguments: &[&str]) -> Etcdctl {
        Etcdctl::start(rig, &[&["elect"], arguments].concat())
    }

    fn start(rig: &EngineRig, arguments: &[&str]) -> Etcdctl {
        let mut command = rig.servers[0].etcdctl();
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Etcdctl { child, from }
    }

    /// Waits until it has the lock: the key that it has. With `elect` the value is the next line.
    pub(super) fn key(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(super) fn unlock(mut self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Etcdctl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The keys of a lock, the oldest first.
pub(super) fn keys(rig: &EngineRig, name: &str) -> Vec<String> {
    let prefix = format!("{name}/");
    let list = ["get", "--prefix", "--keys-only", "--sort-by=CREATE", &prefix];
    rig.servers[0].cli(&list).lines().filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

on!([etcd] etcdctl_and_we_exclude_each_other_in_one_queue);
fn etcdctl_and_we_exclude_each_other_in_one_queue(rig: &EngineRig) {
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    let guard = ours.lock().unwrap();
    let mut theirs = Etcdctl::lock(rig, "job");
    until("a queue of two", || keys(rig, "job").len() == 2);
    let queue = keys(rig, "job");
    let others = rig.locks();
    let third = mutex(&others, "job");
    let mut wait = Hand::new(third.lock_async());
    assert!(wait.poll().is_pending());
    until("a queue of three", || keys(rig, "job").len() == 3);
    give(guard);
    assert_eq!(theirs.key(), queue[1]);
    assert!(ours.try_lock().unwrap_err().is_contended());
    assert!(wait.poll().is_pending());
    theirs.unlock();
    let guard = wait.finish().unwrap();
    // The token is what old clients fence with.
    let found = rig.servers[0].cli(&["get", "--prefix", "job/", "-w", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let revision = found["kvs"][0]["create_revision"].as_u64().unwrap();
    assert_eq!(MutexGuard::token(&guard).get(), revision);
}

on!([etcd] a_killed_holder_is_succeeded_by_etcdctl_and_a_killed_etcdctl_by_us);
fn a_killed_holder_is_succeeded_by_etcdctl_and_a_killed_etcdctl_by_us(rig: &EngineRig) {
    let mut holder = rig.helper(SHORT);
    holder.lock(Scope::Host, "job");
    let mut theirs = Etcdctl::lock(rig, "job");
    until("a queue of two", || keys(rig, "job").len() == 2);
    holder.kill();
    assert!(theirs.key().starts_with("job/"));
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    assert!(ours.try_lock().unwrap_err().is_contended());
    drop(theirs);
    give(ours.try_lock_for(LONG).unwrap());
}

on!([etcd] a_name_and_the_names_below_it_are_locks_of_their_own);
fn a_name_and_the_names_below_it_are_locks_of_their_own(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let below: Vec<_> = (0..150).map(|number| hold(&one, &format!("a/{number}"))).collect();
    let guard = hold(&another, "a");
    assert!(mutex(&one, "a").try_lock().unwrap_err().is_contended());
    give(guard);
    drop(below);
}

on!([etcd] a_waiter_whose_lease_has_run_out_is_not_granted);
/// etcd#11456: the waiter's key is gone, and its queue looks empty.
fn a_waiter_whose_lease_has_run_out_is_not_granted(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let guard = hold(&one, "job");
    let waiter = mutex(&another, "job");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    until("a queue of two", || keys(rig, "job").len() == 2);
    let waiting = keys(rig, "job").pop().unwrap();
    rig.servers[0].cli(&["lease", "revoke", waiting.rsplit('/').next().unwrap()]);
    assert_eq!(keys(rig, "job").len(), 1);
    give(guard);
    let guard = wait.finish().unwrap();
    // It has queued anew, under a lease that lives.
    assert_ne!(keys(rig, "job"), [waiting]);
    assert_eq!(keys(rig, "job").len(), 1);
    assert!(MutexGuard::is_valid(&guard));
    assert!(mutex(&one, "job").try_lock().unwrap_err().is_contended());
}

on!([etcd] a_lease_that_is_revoked_takes_its_locks_with_it);
fn a_lease_that_is_revoked_takes_its_locks_with_it(rig: &EngineRig) {
    let locks = rig.short_locks();
    let guards = [hold(&locks, "a"), hold(&locks, "b")];
    let lease = keys(rig, "a").pop().unwrap();
    rig.servers[0].cli(&["lease", "revoke", lease.rsplit('/').next().unwrap()]);
    for guard in &guards {
        let lost = futures::executor::block_on(MutexGuard::lost(guard));
        assert_eq!(lost, tierlock::LostReason::Forgotten);
    }
    drop(guards);
    drop(hold(&locks, "a"));
}

on!([etcd] a_manager_that_closes_leaves_no_key);
fn a_manager_that_closes_leaves_no_key(rig: &EngineRig) {
    let locks = rig.locks();
    drop(hold(&locks, "job"));
    locks.close();
    until("an empty server", || {
        rig.servers[0].cli(&["get", "--prefix", "", "--keys-only"]).is_empty()
    });
}

on!([etcd] a_token_below_the_one_that_is_known_is_refused_with_both);
fn a_token_below_the_one_that_is_known_is_refused_with_both(rig: &EngineRig) {
    let directory = rig.folder().join("locks");
    let leader = crate::setting::Rig::start();
    let locks = leader.builder().directory(&directory).open().unwrap();
    let known = MutexGuard::token(&hold(&locks, "job"));
    drop(locks);
    // Moving to another service is a decision: the directory names the old one until it is told.
    let locks = rig.builder().directory(&directory).open().unwrap();
    let error = locks.mutex("job", ()).lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains(&known.to_string()) || text.contains("cluster"), "{text}");
}
