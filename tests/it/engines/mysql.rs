//! MariaDB: its server, and other users of `GET_LOCK`. What is MySQL's own is in the statements sent.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tierlock::{LockErrorKind, LockManager, MutexGuard};

use super::{
    daemon::SharedServer,
    on,
    rig::{ENDLESS, EngineRig, EngineServer, give, hold, mutex},
};
use crate::{
    setting::{Hand, until},
    surroundings::program,
};

/// Makes its data.
pub(super) fn set_up(folder: &Path) {
    let mut command = program("mariadb-install-db");
    command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
    command.args(["--innodb-log-file-size=8M", "--skip-name-resolve"]).args(user());
    // Two that run at once have one name for their temporary tables.
    command.arg(format!("--tmpdir={}", folder.display()));
    let output =
        command.arg(format!("--datadir={}", folder.join("data").display())).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}

/// Has one server repeat what the other has written, and take no writes of its own.
pub(super) fn replicate(primary: &EngineServer, replica: &EngineServer) {
    replica.cli(&[&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root', \
         MASTER_USE_GTID=slave_pos; START SLAVE; SET GLOBAL read_only = 1",
        primary.port
    )]);
}

/// Makes it a primary, once it has written all that has reached it.
pub(super) fn promote(replica: &EngineServer) {
    replica.cli(&["STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0"]);
}

pub(super) fn server(folder: &Path, port: &str) -> Command {
    let mut command = program("mariadbd");
    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]).args(user());
    command.arg(format!("--tmpdir={}", folder.display()));
    command.args(["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M"]);
    command.arg(format!("--datadir={}", folder.join("data").display()));
    command.arg(format!("--socket={}", folder.join("socket").display()));
    command
        .arg(format!("--pid-file={}", folder.join("pid").display()))
        .arg(format!("--port={port}"));
    command
}

/// One of several, of which others can be replicas.
pub(super) fn member(folder: &Path, port: &str, number: usize) -> Command {
    let mut command = server(folder, port);
    command.args(["--log-bin=changes", "--binlog-format=row"]);
    command.arg(format!("--server-id={}", number + 1));
    command
}

pub(super) fn client(port: u16, database: &str) -> Command {
    let mut command = program("mysql");
    command.args(["--no-defaults", "-h127.0.0.1", "-uroot", "-N", "-B"]);
    command.arg(format!("-P{port}")).arg(format!("-D{database}")).arg("-e");
    command
}

pub(super) fn answers(port: u16) -> bool {
    client(port, "test").arg("SELECT 1").output().is_ok_and(|output| output.status.success())
}

/// Starts the server that the tests of this process share, unless it runs, and makes a database on it:
/// its port, and the database, which is also what its locks' names begin with.
pub(super) fn new_database() -> (u16, String) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let port = SHARED.get_or_init(|| SharedServer::start(set_up, server, answers)).port;
    let database = format!("test{}", NEXT.fetch_add(1, SeqCst));
    let made = client(port, "test").arg(format!("CREATE DATABASE {database}")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    (port, database)
}

static SHARED: OnceLock<SharedServer> = OnceLock::new();

/// A `mysql` session that is told one statement at a time.
struct MysqlClient {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl MysqlClient {
    fn open(rig: &EngineRig) -> MysqlClient {
        let mut command = program("mysql");
        command.args(["--no-defaults", "-h127.0.0.1", "-uroot", "-N", "-B", "-n"]);
        command.arg(format!("-P{}", rig.servers[0].port));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        MysqlClient { child, to, from }
    }

    fn say(&mut self, sql: &str) {
        writeln!(self.to, "{sql};").unwrap();
    }

    /// The one line that it answers.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "mysql has ended");
        line.trim().to_owned()
    }

    fn ask(&mut self, sql: &str) -> String {
        self.say(sql);
        self.hear()
    }
}

impl Drop for MysqlClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sql(rig: &EngineRig, sql: &str) -> String {
    rig.servers[0].cli(&[sql])
}

/// As the server has the name.
fn key(rig: &EngineRig, name: &str) -> String {
    format!("{}/{name}", rig.servers[0].database)
}

/// How many sessions wait for a lock.
fn waiting(rig: &EngineRig) -> String {
    let key = &rig.servers[0].database;
    sql(
        rig,
        &format!(
            "SELECT count(*) FROM information_schema.processlist WHERE state = 'User lock' \
             AND (db = '{key}' OR info LIKE '%{key}%')"
        ),
    )
}

on!([mysql] mysql_and_we_exclude_each_other_in_one_queue);
fn mysql_and_we_exclude_each_other_in_one_queue(rig: &EngineRig) {
    let job = key(rig, "job");
    let (locks, mut theirs) = (rig.locks(), MysqlClient::open(rig));
    let ours = mutex(&locks, "job");
    let guard = ours.lock().unwrap();
    assert_eq!(theirs.ask(&format!("SELECT GET_LOCK('{job}', 0)")), "0");
    theirs.say(&format!("SELECT GET_LOCK('{job}', 600)"));
    until("a queue of one", || waiting(rig) == "1");
    let others = rig.locks();
    let third = mutex(&others, "job");
    let mut wait = Hand::new(third.lock_async());
    assert!(wait.poll().is_pending());
    until("a queue of two", || waiting(rig) == "2");
    give(guard);
    assert_eq!(theirs.hear(), "1");
    assert!(ours.try_lock().unwrap_err().is_contended());
    assert!(wait.poll().is_pending());
    // Killed as it holds the lock: the server releases it.
    theirs.child.kill().unwrap();
    let guard = wait.finish().unwrap();
    let mut theirs = MysqlClient::open(rig);
    assert_eq!(theirs.ask(&format!("SELECT GET_LOCK('{job}', 0)")), "0");
    drop(guard);
    until("a lock that is free", || theirs.ask(&format!("SELECT GET_LOCK('{job}', 0)")) == "1");
    assert!(ours.try_lock().unwrap_err().is_contended());
}

on!([mysql] a_holder_that_is_killed_frees_its_name_for_mysql);
fn a_holder_that_is_killed_frees_its_name_for_mysql(rig: &EngineRig) {
    let mut holder = rig.helper(ENDLESS);
    let token = holder.lock(tierlock::Scope::Host, "a").token;
    let (name, mut theirs) = (key(rig, "a"), MysqlClient::open(rig));
    assert_eq!(theirs.ask(&format!("SELECT GET_LOCK('{name}', 0)")), "0");
    theirs.say(&format!("SELECT GET_LOCK('{name}', 600)"));
    holder.kill();
    assert_eq!(theirs.hear(), "1");
    drop(theirs);
    let guard = hold(&rig.locks(), "a");
    assert!(MutexGuard::token(&guard).get() > token);
}

on!([mysql] a_connection_that_is_killed_is_a_lost_lock);
fn a_connection_that_is_killed_is_a_lost_lock(rig: &EngineRig) {
    let locks = rig.short_locks();
    let guard = hold(&locks, "a");
    let used = sql(rig, &format!("SELECT IS_USED_LOCK('{}')", key(rig, "a")));
    sql(rig, &format!("KILL {used}"));
    let lost = futures::executor::block_on(MutexGuard::lost(&guard));
    assert_eq!(lost, tierlock::LostReason::Forgotten);
    let next = hold(&rig.locks(), "a");
    assert!(futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap_err().is_lost());
    assert!(mutex(&locks, "a").try_lock().unwrap_err().is_contended());
    drop(next);
}

on!([mysql] a_wait_that_is_given_up_as_it_is_granted_leaves_no_lock);
/// Whatever the error says, the session may have the lock (DistributedLock#147).
fn a_wait_that_is_given_up_as_it_is_granted_leaves_no_lock(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let waiter = mutex(&another, "a");
    for round in 0..10_u64 {
        let guard = hold(&one, "a");
        let mut wait = Hand::new(waiter.lock_async());
        assert!(wait.poll().is_pending());
        until("a waiter", || waiting(rig) == "1");
        drop(guard);
        std::thread::sleep(Duration::from_micros(150 * round));
        drop(wait);
        give(hold(&one, "a"));
    }
}

on!([mysql] tokens_grow_above_what_is_known);
fn tokens_grow_above_what_is_known(rig: &EngineRig) {
    let directory = rig.folder().join("locks");
    let locks = rig.builder().directory(&directory).open().unwrap();
    sql(rig, "SELECT 1");
    let token = MutexGuard::token(&hold(&locks, "a"));
    sql(rig, "UPDATE tierlock_locks SET token = 5000000000 WHERE name = 'a'");
    let high = MutexGuard::token(&hold(&locks, "a"));
    assert!(high.get() == 5_000_000_001 && high > token);
    // A fail-over to a replica that lags: its numbers are earlier.
    sql(rig, "UPDATE tierlock_locks SET token = 7 WHERE name = 'a'");
    assert!(MutexGuard::token(&hold(&locks, "a")) > high);
}

on!([mysql] settings_that_mysql_cannot_have_are_told);
fn settings_that_mysql_cannot_have_are_told(rig: &EngineRig) {
    for (option, word) in [
        ("&connections=0", "at least 1"),
        ("&pooler=transaction", "session"),
        ("&key=md5", "prefix"),
    ] {
        let error = LockManager::builder().service(rig.url() + option).open().unwrap_err();
        assert!(
            error.kind() == LockErrorKind::Config && error.to_string().contains(word),
            "{error}"
        );
    }
    let locks = rig.locks();
    let read = locks.rw_lock("a", ()).build().unwrap().read().map(|_| ()).unwrap_err();
    assert_eq!(read.kind(), LockErrorKind::Config, "{read}");
    let absent = rig.url().replace(&format!("/{}", rig.servers[0].database), "/absent");
    let absent = LockManager::builder().service(absent).open().unwrap();
    let error = mutex(&absent, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    sql(rig, "CREATE USER clerk IDENTIFIED BY 'hunter2'");
    let clerk = rig.url().replace("root@", "clerk:wrong@");
    let clerk = LockManager::builder().service(clerk).open().unwrap();
    let error = mutex(&clerk, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}
