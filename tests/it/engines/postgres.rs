//! PostgreSQL: its server, its faults, and other users of its advisory locks.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tierlock::{LockErrorKind, LockManager, LostReason, MutexGuard};

use super::{
    daemon::SharedServer,
    on,
    proxy::Proxy,
    rig::{ENDLESS, EngineRig, give, hold, mutex, told_of_holder},
};
use crate::{
    setting::{Hand, LONG, Port, until},
    surroundings::program as plain_program,
};

// ---- the server -----------------------------------------------------------------------------------

/// A program of the server, which Debian has outside of the path.
pub(super) fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name));
    found.filter(|path| path.exists()).max().unwrap_or_else(|| name.into())
}

/// A program of the server as a user that it runs as: it refuses root.
fn as_user(name: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return plain_program(program(name));
    }
    let mut command = plain_program("setpriv");
    command.args(["--reuid=nobody", "--clear-groups", "--"]).arg(program(name));
    command
}

/// Makes its data.
pub(super) fn set_up(folder: &Path) {
    own(folder);
    let mut command = as_user("initdb");
    command.args(["--username=postgres", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8"]);
    let data = folder.join("data");
    let output = command.arg("-D").arg(data).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Gives a folder to the user that the server runs as.
fn own(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::{PermissionsExt, chown};
        chown(folder, Some(65534), None).unwrap();
        for above in folder.ancestors().skip(1).take(1) {
            std::fs::set_permissions(above, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}

/// Copies a running server's data, for a standby of it.
pub(super) fn copy_for_standby(port: u16, folder: &Path) {
    own(folder);
    let mut command = as_user("pg_basebackup");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        "postgres",
        "-R",
        "-c",
        "fast",
    ]);
    command.arg("--no-sync").arg("-D").arg(folder.join("data"));
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub(super) fn server(folder: &Path) -> Command {
    let mut command = as_user("postgres");
    command.arg("-D").arg(folder.join("data")).current_dir("/");
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    command.args(["-c", "shared_buffers=16MB", "-c", "max_connections=60"]);
    command
}

/// Starts the server that the tests of this process share, unless it runs, and makes a database on it:
/// its port, and the database.
pub(super) fn new_database() -> (u16, String) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let start = || {
        SharedServer::start(
            set_up,
            |folder, port| {
                let mut command = server(folder);
                command.args(["-p", port]);
                command
            },
            answers,
        )
    };
    let port = SHARED.get_or_init(start).port;
    let database = format!("test{}", NEXT.fetch_add(1, SeqCst));
    let made = psql(port, "postgres").arg(format!("CREATE DATABASE {database}")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    (port, database)
}

static SHARED: OnceLock<SharedServer> = OnceLock::new();

pub(super) fn psql(port: u16, database: &str) -> Command {
    let mut command = plain_program("psql");
    let place = format!("host=127.0.0.1 port={port} user=postgres dbname={database}");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &place, "-c"]);
    command
}

pub(super) fn answers(port: u16) -> bool {
    psql(port, "postgres").arg("SELECT 1").output().is_ok_and(|output| output.status.success())
}

/// The processes whose parent this is.
pub(super) fn children(parent: u32) -> Vec<Pid> {
    let list = std::fs::read_dir("/proc").unwrap().flatten();
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_whitespace().nth(1) == Some(&*parent.to_string())
    };
    let pids = list.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

// ---- other users of the locks -----------------------------------------------------------------------

/// A `psql` session that is told one statement at a time.
pub(super) struct Psql {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Psql {
    pub(super) fn open(rig: &EngineRig) -> Psql {
        let mut command = plain_program("psql");
        let (port, database) = (rig.servers[0].port, &rig.servers[0].database);
        let place = format!("host=127.0.0.1 port={port} user=postgres dbname={database}");
        command.args(["-X", "-q", "-A", "-t", "-d", &place]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Psql { child, to, from }
    }

    fn say(&mut self, sql: &str) {
        writeln!(self.to, "{sql};\n\\echo done").unwrap();
    }

    /// What it answered to one statement.
    fn hear(&mut self) -> String {
        let mut heard = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "psql has ended: {heard}");
            if line.trim() == "done" {
                return heard.trim().to_owned();
            }
            heard.push_str(&line);
        }
    }

    pub(super) fn ask(&mut self, sql: &str) -> String {
        self.say(sql);
        self.hear()
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sql(rig: &EngineRig, sql: &str) -> String {
    rig.servers[0].cli(&[sql])
}

/// The sessions of this database with advisory locks, in pg_locks.
const LOCKS: &str = "pg_locks WHERE locktype = 'advisory' AND database = \
     (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Asks how many sessions have, or wait for, an advisory lock of one number.
pub(super) fn count(which: &str, key: &str) -> String {
    let key = format!("objsubid = 1 AND objid::int8 = {key}::int8 & 4294967295");
    format!("SELECT count(*) FROM {LOCKS} AND {which} AND {key}")
}

/// How many sessions wait for an advisory lock.
fn waiting(rig: &EngineRig) -> String {
    sql(rig, &format!("SELECT count(*) FROM {LOCKS} AND NOT granted"))
}

on!([postgres] psql_and_we_exclude_each_other_in_one_queue);
fn psql_and_we_exclude_each_other_in_one_queue(rig: &EngineRig) {
    let dialects = [
        ("", "job", "hashtext('job')"),
        ("?key=with_advisory_lock", "job", "2077810936, 0"),
        ("?key=number", "-42", "-42"),
    ];
    for (options, name, key) in dialects {
        let open = || {
            let builder = LockManager::builder().service(rig.url() + options);
            builder.time_to_live(ENDLESS).open().unwrap()
        };
        let (locks, mut theirs) = (open(), Psql::open(rig));
        let ours = mutex(&locks, name);
        let guard = ours.lock().unwrap();
        assert_eq!(theirs.ask(&format!("SELECT pg_try_advisory_lock({key})")), "f", "{options}");
        theirs.say(&format!("SELECT pg_advisory_lock({key})"));
        until("a queue of one", || waiting(rig) == "1");
        let others = open();
        let third = mutex(&others, name);
        let mut wait = Hand::new(third.lock_async());
        assert!(wait.poll().is_pending());
        until("a queue of two", || waiting(rig) == "2");
        give(guard);
        assert_eq!(theirs.hear(), "");
        assert!(ours.try_lock().unwrap_err().is_contended());
        assert!(wait.poll().is_pending());
        // Killed as it holds the lock: the server releases it.
        theirs.child.kill().unwrap();
        let guard = wait.finish().unwrap();
        let mut theirs = Psql::open(rig);
        assert_eq!(theirs.ask(&format!("SELECT pg_try_advisory_lock({key})")), "f");
        drop(guard);
        until("a lock that is free", || {
            theirs.ask(&format!("SELECT pg_try_advisory_lock({key})")) == "t"
        });
        assert!(ours.try_lock().unwrap_err().is_contended());
    }
}

on!([postgres] a_holder_that_is_killed_is_succeeded_at_once);
/// The connection ends with its process, and the server releases the lock.
fn a_holder_that_is_killed_is_succeeded_at_once(rig: &EngineRig) {
    let mut holder = rig.helper(ENDLESS);
    let token = holder.lock(tierlock::Scope::Host, "a").token;
    let mut theirs = Psql::open(rig);
    assert_eq!(theirs.ask("SELECT pg_try_advisory_lock(hashtext('a'))"), "f");
    theirs.say("SELECT pg_advisory_lock(hashtext('a'))");
    holder.kill();
    assert_eq!(theirs.hear(), "");
    drop(theirs);
    let guard = hold(&rig.locks(), "a");
    assert!(MutexGuard::token(&guard).get() > token);
}

on!([postgres] a_session_that_an_operator_ends_is_told_at_once);
/// DistributedLock#123: a holder whose connection has ended does not notice.
fn a_session_that_an_operator_ends_is_told_at_once(rig: &EngineRig) {
    let (locks, begin) = (rig.locks(), Instant::now());
    let guards = [hold(&locks, "a"), hold(&locks, "b")];
    let holders = format!("(SELECT DISTINCT pid FROM {LOCKS} AND granted) h");
    sql(rig, &format!("SELECT pg_terminate_backend(pid) FROM {holders}"));
    for guard in &guards {
        until("a loss that is told", || !MutexGuard::is_valid(guard));
        assert!(begin.elapsed() < ENDLESS / 3, "the next renewal has told it");
        let lost = futures::executor::block_on(MutexGuard::lost(guard));
        assert_eq!(lost, LostReason::Forgotten);
    }
    drop(guards);
    drop(hold(&locks, "a"));
}

on!([postgres] a_cut_connection_is_a_lost_lock_and_told_at_once);
fn a_cut_connection_is_a_lost_lock_and_told_at_once(rig: &EngineRig) {
    let proxies = rig.proxies();
    let (locks, begin) = (rig.proxied(&proxies, ENDLESS), Instant::now());
    let guard = hold(&locks, "a");
    proxies.iter().for_each(Proxy::cut);
    until("a loss that is told", || !MutexGuard::is_valid(&guard));
    assert!(begin.elapsed() < ENDLESS / 3, "the next renewal has told it");
    let lost = futures::executor::block_on(MutexGuard::lost(&guard));
    assert_eq!(lost, LostReason::Forgotten);
    let next = hold(&rig.locks(), "a");
    // The first guard's release is of a session that is gone.
    assert!(futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap_err().is_lost());
    assert!(mutex(&locks, "a").try_lock().unwrap_err().is_contended());
    assert!(MutexGuard::is_valid(&next));
}

on!([postgres] limits_that_a_user_is_set_to_end_no_wait);
/// DistributedLock#147: `lock_timeout` ends a wait with an error, although it has the lock.
fn limits_that_a_user_is_set_to_end_no_wait(rig: &EngineRig) {
    for set in ["lock_timeout = 50", "statement_timeout = 60"] {
        sql(rig, &format!("ALTER DATABASE {} SET {set}", rig.servers[0].database));
    }
    let [one, another] = [rig.locks(), rig.locks()];
    let guard = hold(&one, "a");
    let waiter = mutex(&another, "a");
    let late = waiter.try_lock_for(Duration::from_millis(300)).unwrap_err();
    assert_eq!(late.kind(), LockErrorKind::TimedOut, "{late}");
    give(guard);
    give(hold(&another, "a"));
    give(hold(&one, "a"));
}

on!([postgres] a_wait_that_is_given_up_as_it_is_granted_leaves_no_lock);
/// DistributedLock#147, again: whatever the error says, the session may have the lock.
fn a_wait_that_is_given_up_as_it_is_granted_leaves_no_lock(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let waiter = mutex(&another, "a");
    for round in 0..15_u64 {
        let guard = hold(&one, "a");
        let mut wait = Hand::new(waiter.lock_async());
        assert!(wait.poll().is_pending());
        until("a waiter", || waiting(rig) == "1");
        // Its release goes on its way, and meets the end of the wait anywhere.
        drop(guard);
        std::thread::sleep(Duration::from_micros(150 * round));
        drop(wait);
        give(hold(&one, "a"));
    }
}

on!([postgres] an_error_after_the_lock_was_taken_leaves_no_lock);
/// DistributedLock#147: the statement has taken the lock, and fails for another reason.
fn an_error_after_the_lock_was_taken_leaves_no_lock(rig: &EngineRig) {
    let locks = rig.locks();
    drop(hold(&locks, "warm"));
    sql(rig, "ALTER TABLE tierlock_holders ADD CONSTRAINT no CHECK (name <> 'a')");
    let error = mutex(&locks, "a").try_lock_for(Duration::from_millis(300)).unwrap_err();
    assert!(!error.is_contended() || error.is_timeout(), "{error}");
    let mut theirs = Psql::open(rig);
    until("a lock that is free", || {
        theirs.ask("SELECT pg_try_advisory_lock(hashtext('a'))") == "t"
    });
    sql(rig, "ALTER TABLE tierlock_holders DROP CONSTRAINT no");
    theirs.ask("SELECT pg_advisory_unlock_all()");
    give(hold(&locks, "a"));
    // It was given up as often as it was taken.
    assert_eq!(theirs.ask("SELECT pg_try_advisory_lock(hashtext('a'))"), "t");
}

on!([postgres_alone] tokens_grow_through_a_killed_server_and_above_what_is_known);
fn tokens_grow_through_a_killed_server_and_above_what_is_known(rig: &EngineRig) {
    let directory = rig.folder().join("locks");
    let open = || rig.builder().directory(&directory).open().unwrap();
    let locks = open();
    let token = MutexGuard::token(&hold(&locks, "a"));
    rig.servers[0].kill();
    rig.servers[0].start();
    let after = MutexGuard::token(&hold(&locks, "a"));
    assert!(after > token, "{after} after {token}");
    sql(rig, "SELECT setval('tierlock_token', 5000000000)");
    let high = MutexGuard::token(&hold(&locks, "a"));
    assert!(high.get() > 5_000_000_000);
    // A fail-over to a standby that lags (pg_auto_failover#1028): its numbers are earlier.
    sql(rig, "SELECT setval('tierlock_token', 7)");
    let raised = MutexGuard::token(&hold(&locks, "a"));
    assert!(raised > high, "{raised} after {high}");
    let other = MutexGuard::token(&hold(&rig.locks(), "b"));
    assert!(other > raised);
}

on!([postgres] more_waiters_than_connections_are_all_served);
fn more_waiters_than_connections_are_all_served(rig: &EngineRig) {
    let url = rig.url() + "?connections=2";
    let locks = LockManager::builder().service(url).time_to_live(ENDLESS).open().unwrap();
    let others = rig.locks();
    let names = ["a", "b", "c", "d"];
    let guards = names.map(|name| hold(&others, name));
    let mutexes = names.map(|name| mutex(&locks, name));
    let mut waits: Vec<_> = mutexes.iter().map(|mutex| Hand::new(mutex.lock_async())).collect();
    assert!(waits.iter_mut().all(|wait| wait.poll().is_pending()));
    until("one that waits at the server", || waiting(rig) == "1");
    let count = "SELECT count(*) FROM pg_stat_activity WHERE \
         application_name LIKE 'tierlock%' AND datname = current_database()";
    let connections: u32 = sql(rig, count).parse().unwrap();
    assert!(connections <= 3, "{connections}");
    guards.into_iter().for_each(give);
    let guards: Vec<_> = waits.into_iter().map(|wait| wait.finish().unwrap()).collect();
    assert!(guards.iter().all(MutexGuard::is_valid));
}

on!([postgres] the_queue_is_shown_with_its_foreign_clients);
fn the_queue_is_shown_with_its_foreign_clients(rig: &EngineRig) {
    let mut theirs = Psql::open(rig);
    theirs.ask("SELECT pg_advisory_lock(hashtext('job'))");
    let waiting_locks = rig.builder().label("night").time_to_live(ENDLESS).open().unwrap();
    let waiter = mutex(&waiting_locks, "job");
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    until("a waiter", || waiting(rig) == "1");
    let third = rig.locks();
    give(hold(&third, "warm"));
    assert_eq!(told_of_holder(&mutex(&third, "job")).label, "psql");
    let mut status = plain_program(env!("CARGO_BIN_EXE_tierlock"));
    let output = status.args(["status", "--service", &rig.url(), "job"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("psql") && told.contains("night"), "{told}");
}

on!([postgres] settings_that_postgres_cannot_have_are_told);
fn settings_that_postgres_cannot_have_are_told(rig: &EngineRig) {
    for (option, word) in [
        ("?key=md5", "hashtext"),
        ("?schema=a.b", "letters"),
        ("?connections=0", "at least 1"),
        ("?pooler=transaction", "session"),
        ("?sslmode=prefer", "sslmode"),
        ("?ca=none.pem", "verify-full"),
    ] {
        let error = LockManager::builder().service(rig.url() + option).open().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains(word), "{error}");
    }
    let numbers = LockManager::builder().service(rig.url() + "?key=number").open().unwrap();
    let error = mutex(&numbers, "job").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    let absent = rig.url().rsplit_once('/').unwrap().0.to_owned() + "/absent";
    let absent = LockManager::builder().service(absent).open().unwrap();
    let error = mutex(&absent, "job").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    // A user that may not make the sequence is told what to have made.
    sql(rig, "CREATE ROLE clerk LOGIN");
    let clerk = rig.url().replace("postgres@", "clerk@");
    let clerk = LockManager::builder().service(clerk).open().unwrap();
    let error = mutex(&clerk, "job").lock().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("CREATE SEQUENCE"), "{error}");
    drop(hold(&rig.locks(), "job"));
    sql(
        rig,
        "GRANT USAGE ON SEQUENCE tierlock_token TO clerk; GRANT ALL ON tierlock_holders TO clerk",
    );
    drop(mutex(&clerk, "job").try_lock_for(LONG).unwrap());
}

/// A server that ends with its test, however that ends.
pub(super) struct TestServer(Child);

impl Drop for TestServer {
    fn drop(&mut self) {
        for worker in children(self.0.id()) {
            let _ = rustix::process::kill_process(worker, rustix::process::Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// pgbouncer in a mode, in front of a server: its port, and its process.
pub(super) fn pooler(rig: &EngineRig, mode: &str) -> Option<(u16, TestServer)> {
    let (folder, port) = (rig.folder().join(mode), Port::claim().address().port());
    let (server, database) = (rig.servers[0].port, &rig.servers[0].database);
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("pgbouncer.ini");
    let settings = format!(
        "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
         pool_mode = {mode}\nunix_socket_dir =\n\
         [databases]\n{database} = host=127.0.0.1 port={server} user=postgres\n"
    );
    std::fs::write(&file, settings).unwrap();
    own(&folder);
    let mut command = plain_program("pgbouncer");
    if rustix::process::geteuid().is_root() {
        command = plain_program("setpriv");
        command.args(["--reuid=nobody", "--clear-groups", "--", "pgbouncer"]);
    }
    command.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    let child = match plain_program("pgbouncer").arg("--version").output() {
        Ok(_) => TestServer(command.spawn().unwrap()),
        Err(_) => {
            eprintln!("pgbouncer is not installed: poolers are not tried");
            return None;
        }
    };
    let asks = || psql(port, database).arg("SELECT 1").output().unwrap().status.success();
    until("an answer through pgbouncer", asks);
    Some((port, child))
}

on!([postgres] a_pooler_is_refused_unless_each_session_has_a_backend);
/// pgbouncer#418: in transaction mode two sessions get one lock, of one backend.
fn a_pooler_is_refused_unless_each_session_has_a_backend(rig: &EngineRig) {
    let Some((port, child)) = pooler(rig, "transaction") else { return };
    let url = rig.url_of([port].into_iter());
    let locks = LockManager::builder().service(url).open().unwrap();
    let error = mutex(&locks, "a").lock().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    assert!(error.to_string().contains("pooler"), "{error}");
    drop(child);
    let Some((port, _child)) = pooler(rig, "session") else { return };
    let url = rig.url_of([port].into_iter()) + "?pooler=session";
    let locks = LockManager::builder().service(url).time_to_live(ENDLESS).open().unwrap();
    let guard = hold(&locks, "a");
    assert!(mutex(&rig.locks(), "a").try_lock().unwrap_err().is_contended());
    // The pooler gives a connection back to no other client before it has forgotten the lock.
    drop((guard, locks));
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
}

on!([postgres_alone] a_standby_is_passed_over_and_told_of);
/// A standby takes advisory locks, which no other server knows.
fn a_standby_is_passed_over_and_told_of(rig: &EngineRig) {
    let (data, port) = (rig.folder().join("standby"), Port::claim().address().port());
    std::fs::create_dir(&data).unwrap();
    own(&data);
    let primary = format!("host=127.0.0.1 port={} user=postgres", rig.servers[0].port);
    let mut copy = as_user("pg_basebackup");
    copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &primary, "-D"]);
    assert!(copy.arg(data.join("data")).current_dir("/").status().unwrap().success());
    let standby =
        server(&data).args(["-p", &port.to_string()]).stderr(Stdio::null()).spawn().unwrap();
    let _standby = TestServer(standby);
    until("a standby", || answers(port));
    let url = rig.url().replace("127.0.0.1", &format!("127.0.0.1:{port},127.0.0.1"));
    let locks = LockManager::builder().service(url).time_to_live(ENDLESS).open().unwrap();
    let guard = hold(&locks, "a");
    assert!(mutex(&rig.locks(), "a").try_lock().unwrap_err().is_contended());
    drop(guard);
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let patience = Duration::from_millis(300);
    let alone = LockManager::builder().service(url).connect_timeout(patience).open().unwrap();
    let error = mutex(&alone, "a").lock().map(|_| ()).unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("standby"), "{error}");
    let mut doctor = plain_program(env!("CARGO_BIN_EXE_tierlock"));
    let told = doctor.args(["doctor", "--service", &rig.url()]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("synchronous_standby_names"), "{told}");
}

on!([postgres] readers_of_several_managers_share_and_writers_do_not);
fn readers_of_several_managers_share_and_writers_do_not(rig: &EngineRig) {
    let [one, another, third] = [rig.locks(), rig.locks(), rig.locks()];
    let open = |locks: &LockManager| std::sync::Arc::new(locks.rw_lock("a", 0).build().unwrap());
    let [one, another, third] = [open(&one), open(&another), open(&third)];
    let (first, beside, second) =
        (one.read().unwrap(), one.read().unwrap(), another.read().unwrap());
    assert!(third.try_write().unwrap_err().is_contended());
    assert!(one.try_write().unwrap_err().is_contended());
    // psql shares, too, and takes it for none but itself.
    let mut theirs = Psql::open(rig);
    assert_eq!(theirs.ask("SELECT pg_try_advisory_lock(hashtext('a'))"), "f");
    assert_eq!(theirs.ask("SELECT pg_try_advisory_lock_shared(hashtext('a'))"), "t");
    assert_eq!(theirs.ask("SELECT pg_advisory_unlock_shared(hashtext('a'))"), "t");
    drop((first, beside, second));
    let writer = third.write().unwrap();
    assert!(one.try_read().unwrap_err().is_contended());
    assert_eq!(theirs.ask("SELECT pg_try_advisory_lock_shared(hashtext('a'))"), "f");
    drop(writer);
    drop(one.try_read_for(LONG).unwrap());
    assert_eq!(theirs.ask("SELECT pg_advisory_lock_shared(hashtext('a'))"), "");
    drop(one.try_read_for(LONG).unwrap());
    assert!(third.try_write().unwrap_err().is_contended());
    theirs.ask("SELECT pg_advisory_unlock_shared(hashtext('a'))");
    drop(third.try_write_for(LONG).unwrap());
}

on!([postgres] a_writer_elsewhere_has_its_turn_between_readers_that_follow_each_other);
fn a_writer_elsewhere_has_its_turn_between_readers_that_follow_each_other(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let (readers, writer) =
        (one.rw_lock("a", ()).build().unwrap(), another.rw_lock("a", ()).build().unwrap());
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // At every moment one of them reads.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let guard = readers.read().unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                    drop(guard);
                }
            });
        }
        until("a reader", || writer.try_write().is_err());
        let written = writer.try_write_for(LONG);
        is_over.store(true, SeqCst);
        drop(written.unwrap());
    });
}

on!([postgres] a_lost_share_is_told_to_every_reader);
fn a_lost_share_is_told_to_every_reader(rig: &EngineRig) {
    let locks = rig.locks();
    let shared = locks.rw_lock("a", ()).build().unwrap();
    let readers = [shared.read().unwrap(), shared.read().unwrap()];
    let holders = format!("(SELECT DISTINCT pid FROM {LOCKS} AND granted) h");
    sql(rig, &format!("SELECT pg_terminate_backend(pid) FROM {holders}"));
    for reader in &readers {
        until("a loss", || !tierlock::RwLockReadGuard::is_valid(reader));
    }
    drop(readers);
    drop(shared.try_write_for(LONG).unwrap());
}
