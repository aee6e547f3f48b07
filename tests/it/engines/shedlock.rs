//! ShedLock's table, with ShedLock's own statements in both orders.

use std::{thread, time::Duration};

use tierlock::{LockErrorKind, LockManager, LostReason, MutexGuard};

use super::{on, rig::EngineRig};
use crate::{setting::until, surroundings::program};

const LONG_RUN: Duration = Duration::from_secs(60);

/// What ShedLock sends to one kind of database.
struct ShedDialect {
    /// As ShedLock's documentation has it.
    table: &'static str,
    now: &'static str,
    until: &'static str,
    /// Its `usingDbTime`, with `NOW` and `UNTIL` for what these are.
    take: &'static str,
}

const POSTGRES: ShedDialect = ShedDialect {
    table: "CREATE TABLE shedlock (name VARCHAR(64) NOT NULL, lock_until TIMESTAMP NOT NULL, \
        locked_at TIMESTAMP NOT NULL, locked_by VARCHAR(255) NOT NULL, PRIMARY KEY (name))",
    now: "timezone('utc', CURRENT_TIMESTAMP)",
    until: "timezone('utc', CURRENT_TIMESTAMP) + cast('60 seconds' as interval)",
    take: "WITH taken AS (INSERT INTO shedlock(name, lock_until, locked_at, locked_by) \
        VALUES('NAME', UNTIL, NOW, 'java-host') ON CONFLICT (name) DO UPDATE \
        SET lock_until = UNTIL, locked_at = NOW, locked_by = 'java-host' \
        WHERE shedlock.name = 'NAME' AND shedlock.lock_until <= NOW RETURNING 1) \
        SELECT count(*) FROM taken",
};

const MYSQL: ShedDialect = ShedDialect {
    table: "CREATE TABLE shedlock (name VARCHAR(64) NOT NULL, lock_until TIMESTAMP(3) NOT NULL, \
        locked_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), \
        locked_by VARCHAR(255) NOT NULL, PRIMARY KEY (name))",
    now: "UTC_TIMESTAMP(3)",
    until: "TIMESTAMPADD(MICROSECOND, 60000000, UTC_TIMESTAMP(3))",
    take: "INSERT IGNORE INTO shedlock(name, lock_until, locked_at, locked_by) \
        VALUES('NAME', UNTIL, NOW, 'java-host'); SET @made = ROW_COUNT(); \
        UPDATE shedlock SET lock_until = UNTIL, locked_at = NOW, locked_by = 'java-host' \
        WHERE name = 'NAME' AND lock_until <= NOW; SELECT ROW_COUNT() + @made",
};

fn dialect(rig: &EngineRig) -> ShedDialect {
    if rig.kind == "shedlock+mysql" { MYSQL } else { POSTGRES }
}

fn sql(rig: &EngineRig, sql: &str) -> String {
    let dialect = dialect(rig);
    let sql = sql.replace("UNTIL", dialect.until).replace("NOW", dialect.now);
    rig.servers[0].cli(&[&sql])
}

fn make_table(rig: &EngineRig) {
    sql(rig, dialect(rig).table);
}

/// What ShedLock sends with `usingDbTime`: how many rows it took.
fn take(rig: &EngineRig, name: &str) -> usize {
    sql(rig, &dialect(rig).take.replace("NAME", name)).parse().unwrap()
}

/// What it sends with the clock of its own machine, once a row is there: whether it took that.
fn take_by_own_clock(rig: &EngineRig, name: &str) -> bool {
    let now = sql(rig, "SELECT NOW");
    sql(
        rig,
        &format!(
            "UPDATE shedlock SET lock_until = UNTIL, locked_at = '{now}', locked_by = 'java-clock' \
             WHERE name = '{name}' AND lock_until <= '{now}'"
        ),
    );
    sql(rig, &format!("SELECT locked_by FROM shedlock WHERE name = '{name}'")) == "java-clock"
}

fn unlock(rig: &EngineRig, name: &str) {
    let unlock = format!(
        "UPDATE shedlock SET lock_until = NOW WHERE name = '{name}' AND locked_by = 'java-host'"
    );
    sql(rig, &unlock);
}

fn locks(rig: &EngineRig) -> LockManager {
    rig.builder().open().unwrap()
}

on!([shedlock_postgres shedlock_mysql] shedlock_and_we_exclude_each_other);
fn shedlock_and_we_exclude_each_other(rig: &EngineRig) {
    make_table(rig);
    let locks = locks(rig);
    let ours = locks.mutex("report", ()).at_most(LONG_RUN).build().unwrap();
    let guard = ours.try_lock().unwrap();
    assert_eq!((take(rig, "report"), take_by_own_clock(rig, "report")), (0, false));
    assert!(MutexGuard::remaining(&guard).unwrap() <= LONG_RUN);
    MutexGuard::unlock(guard).unwrap();
    assert_eq!(take(rig, "report"), 1);
    assert!(ours.try_lock().unwrap_err().is_contended());
    unlock(rig, "report");
    drop(ours.try_lock().unwrap());
    until("a row that is free", || take_by_own_clock(rig, "report"));
    assert!(ours.try_lock().unwrap_err().is_contended());
}

on!([shedlock_postgres shedlock_mysql] a_killed_run_keeps_its_row_for_at_most);
fn a_killed_run_keeps_its_row_for_at_most(rig: &EngineRig) {
    make_table(rig);
    let url = &*rig.url();
    let mut run = program(env!("CARGO_BIN_EXE_tierlock"));
    run.args(["run", "--service", url, "-n", "--at-most", "3s", "report", "--"]);
    let mut run = run.args(["sleep", "60"]).spawn().unwrap();
    until("a row that is taken", || sql(rig, "SELECT count(*) FROM shedlock") == "1");
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(take(rig, "report"), 0);
    until("the end of the row", || take(rig, "report") == 1);
}

on!([shedlock_postgres shedlock_mysql] at_least_stays_in_the_row);
fn at_least_stays_in_the_row(rig: &EngineRig) {
    make_table(rig);
    let locks = locks(rig);
    let at_least = Duration::from_secs(3);
    let begin = std::time::Instant::now();
    let job = || locks.mutex("report", ()).at_most(LONG_RUN).at_least(at_least);
    MutexGuard::unlock(job().try_lock().unwrap()).unwrap();
    assert_eq!(take(rig, "report"), 0);
    assert!(job().try_lock().unwrap_err().is_contended());
    until("the end of the row", || take(rig, "report") == 1);
    assert!(begin.elapsed() >= at_least);
}

on!([shedlock_postgres shedlock_mysql] a_stale_unlock_frees_no_later_run);
/// `locked_by` is another for every run of one machine.
fn a_stale_unlock_frees_no_later_run(rig: &EngineRig) {
    make_table(rig);
    let [one, another] = [locks(rig), locks(rig)];
    let early = one.mutex("report", ()).at_most(Duration::from_millis(300)).try_lock().unwrap();
    let lost = futures::executor::block_on(MutexGuard::lost(&early));
    assert_eq!(lost, LostReason::HeldTooLong);
    let late = loop {
        match another.mutex("report", ()).at_most(LONG_RUN).try_lock() {
            Ok(guard) => break guard,
            Err(error) if error.is_contended() => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(futures::executor::block_on(MutexGuard::unlock_async(early)).unwrap_err().is_lost());
    assert_eq!(take(rig, "report"), 0);
    assert!(MutexGuard::is_valid(&late));
}

on!([shedlock_postgres shedlock_mysql] what_a_table_cannot_do_is_told);
fn what_a_table_cannot_do_is_told(rig: &EngineRig) {
    let locks = locks(rig);
    let error = locks.mutex("report", ()).build().unwrap_err();
    assert!(
        error.kind() == LockErrorKind::Config && error.to_string().contains("at_most"),
        "{error}"
    );
    let job = locks.mutex("report", ()).at_most(LONG_RUN).build().unwrap();
    let error = job.lock().map(|_| ()).unwrap_err();
    assert!(error.kind() == LockErrorKind::Config && error.to_string().contains("try"), "{error}");
    // No table is made for it.
    let error = job.try_lock().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("CREATE TABLE shedlock"), "{error}");
    make_table(rig);
    drop(job.try_lock().unwrap());
    let long = "x".repeat(65);
    let long = locks.mutex(&long, ()).at_most(LONG_RUN).try_lock().map(|_| ()).unwrap_err();
    assert_eq!(long.kind(), LockErrorKind::Config, "{long}");
    let fenced = rig.url().replace("?unfenced=1", "?table=jobs.shedlock");
    let fenced = LockManager::builder().service(fenced).open().unwrap();
    let error = fenced.mutex("report", ()).at_most(LONG_RUN).build().unwrap_err();
    assert!(error.to_string().contains("unfenced"), "{error}");
    let mut status = program(env!("CARGO_BIN_EXE_tierlock"));
    let guard = job.try_lock().unwrap();
    let output = status.args(["status", "--service", &rig.url()]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("report") && told.contains("held"), "{told} {output:?}");
    drop(guard);
}
