//! Gates: a stale holder is refused, in memory, in a file, in a database.

use std::{
    error::Error,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior, params};
use tempfile::TempDir;
use tierlock::{
    LockError, LockErrorKind, LockManager, MutexGuard, Name, Token,
    fence::{FileGate, Gate, Gates, SQL_ENTER, SQL_SEEN, SQL_TABLE, Stale},
};

use crate::{
    helper::Helper,
    setting::{BlockedThread, Hand, temp_dir, until},
};

fn token(number: u64) -> Token {
    Token::new(number).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// redisson#2665, curator#727: the holder pauses past its lease and goes on.
#[test]
fn a_holder_that_lost_its_lock_without_looking_is_refused_by_what_it_writes_to() {
    let locks = LockManager::in_memory();
    let other = locks.in_memory_peer();
    let ledger = Gate::new(vec!["opened"]);
    let unaware = locks.mutex("ledger", ()).lock().unwrap();
    ledger.enter(MutexGuard::token(&unaware)).unwrap().push("the first");
    assert!(locks.lose_lock("ledger"));
    let next = other.mutex("ledger", ()).lock().unwrap();
    ledger.enter(MutexGuard::token(&next)).unwrap().push("the second");
    let stale = ledger.enter(MutexGuard::token(&unaware)).unwrap_err();
    assert_eq!(stale.seen, MutexGuard::token(&next));
    assert_eq!(stale.offered, MutexGuard::token(&unaware));
    assert_eq!(ledger.into_inner(), ["opened", "the first", "the second"]);
}

#[test]
fn a_refusal_names_both_tokens_and_is_a_loss() {
    let gate = Gate::resume((), token(8));
    let stale = gate.enter(token(7)).unwrap_err();
    assert_eq!((stale.seen, stale.offered), (token(8), token(7)));
    let text = stale.to_string();
    assert!(text.contains("token 7 is stale") && text.contains("token 8"), "{text}");
    let error = LockError::from(stale);
    assert!(error.is_lost());
    assert_eq!(error.to_string(), text);
    assert_eq!(stale_source(&error), Some(stale));
}

fn stale_source(error: &LockError) -> Option<Stale> {
    error.source()?.downcast_ref::<Stale>().copied()
}

#[test]
fn one_holder_enters_as_often_as_it_likes() {
    let gate = Gate::new(0);
    for _ in 0..3 {
        *gate.enter(token(5)).unwrap() += 1;
    }
    assert_eq!(gate.seen(), token(5));
    assert!(gate.enter(token(4)).is_err());
    assert_eq!(*gate.enter(token(5)).unwrap(), 3);
}

/// Between the look at a token and the deed no other may come.
#[test]
fn no_caller_enters_while_another_is_inside() {
    let gate = Gate::new(String::new());
    let mut inside = gate.enter(token(1)).unwrap();
    let mut later = Hand::new(gate.enter_async(token(2)));
    assert!(later.poll().is_pending());
    inside.push_str("first ");
    drop(inside);
    later.finish().unwrap().push_str("second");
    assert!(gate.enter(token(1)).is_err());
    assert_eq!(gate.into_inner(), "first second");
}

/// rustfs#2795: a dropped async waiter leaves something behind.
#[test]
fn a_caller_that_stops_waiting_at_a_gate_has_not_been_there() {
    let gate = Gate::new(());
    let inside = gate.enter(token(1)).unwrap();
    let mut later = Hand::new(gate.enter_async(token(9)));
    assert!(later.poll().is_pending());
    drop(later);
    drop(inside);
    assert_eq!(gate.seen(), token(1));
    assert!(gate.enter(token(2)).is_ok());
}

#[test]
fn every_name_has_a_gate_of_its_own() {
    let gates = Gates::new();
    let [a, b] = ["a", "b"].map(name);
    let inside = gates.enter(&a, token(9)).unwrap();
    assert_eq!(inside.token(), token(9));
    // No caller waits for another name.
    drop(gates.enter(&b, token(3)).unwrap());
    let mut later = Hand::new(gates.enter_async(&a, token(10)));
    assert!(later.poll().is_pending());
    drop(inside);
    drop(later.finish().unwrap());
    assert_eq!([gates.seen(&a), gates.seen(&b)], [token(10), token(3)]);
    assert!(gates.enter(&a, token(9)).is_err());
    assert!(gates.enter(&b, token(3)).is_ok());
    assert_eq!(gates.seen(&name("c")), Token::ZERO);
    assert_eq!(gates.len(), 2);
}

/// redisson#6510: one token key per name is kept for ever.
#[test]
fn a_gate_is_forgotten_when_it_is_said_so_or_idle_and_never_under_a_caller() {
    let gates = Gates::new();
    let [a, b] = ["a", "b"].map(name);
    let inside = gates.enter(&a, token(9)).unwrap();
    drop(gates.enter(&b, token(9)).unwrap());
    assert!(!gates.forget(&a));
    assert_eq!(gates.forget_idle(Duration::ZERO), 1);
    assert_eq!((gates.len(), gates.seen(&b)), (1, Token::ZERO));
    drop(inside);
    assert_eq!(gates.forget_idle(Duration::from_secs(3_600)), 0);
    assert!(gates.enter(&a, token(8)).is_err());
    assert!(gates.forget(&a));
    assert!(!gates.forget(&a));
    assert!(gates.is_empty());
    drop(gates.enter(&a, token(8)).unwrap());
}

/// The place of one file gate.
struct Place {
    files: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { files: temp_dir() }
    }

    fn path(&self) -> PathBuf {
        self.files.path().join("gate")
    }

    fn gate(&self) -> FileGate {
        FileGate::open(self.path()).unwrap()
    }

    /// Has another process ask to enter.
    fn say_enter(&self, helper: &mut Helper, token: u64) {
        helper.say(&format!("enter\t{}\t{token}", self.path().display()));
    }

    fn enter(&self, helper: &mut Helper, token: u64) -> String {
        self.say_enter(helper, token);
        helper.hear()
    }
}

#[track_caller]
fn damaged(result: tierlock::Result<impl std::fmt::Debug>, path: &Path, word: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
    for word in [path.to_str().unwrap(), word] {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
}

#[test]
fn processes_share_a_gate_in_a_file() {
    let place = Place::new();
    let [mut one, mut other] = [(); 2].map(|()| Helper::start());
    assert_eq!(place.enter(&mut one, 7), "ok");
    assert!(place.gate().try_enter(token(9)).unwrap_err().is_contended());
    place.say_enter(&mut other, 9);
    assert!(!other.has_spoken());
    assert_eq!(one.ask("leave"), "ok");
    assert_eq!(other.hear(), "ok");
    assert_eq!(other.ask("leave"), "ok");
    let refused = place.enter(&mut one, 8);
    assert!(refused.starts_with("error\tLost\t"), "{refused}");
    assert!(refused.contains("token 8") && refused.contains("token 9"), "{refused}");
    assert!(refused.contains(place.path().to_str().unwrap()), "{refused}");
    let gate = place.gate();
    assert_eq!(gate.seen().unwrap(), token(9));
    let stale = stale_source(&gate.enter(token(8)).unwrap_err()).unwrap();
    assert_eq!((stale.seen, stale.offered), (token(9), token(8)));
    assert_eq!(gate.enter(token(9)).unwrap().token(), token(9));
}

#[test]
fn threads_of_one_process_exclude_each_other_at_a_file_too() {
    let place = Place::new();
    let gate = Arc::new(place.gate());
    let counter = place.files.path().join("counter");
    fs::write(&counter, "0").unwrap();
    let threads = [(); 4].map(|()| {
        let (gate, counter) = (gate.clone(), counter.clone());
        thread::spawn(move || {
            for _ in 0..50 {
                let _inside = gate.enter(token(1)).unwrap();
                let count: u64 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                fs::write(&counter, (count + 1).to_string()).unwrap();
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(fs::read_to_string(counter).unwrap(), "200");
}

#[test]
fn a_caller_that_dies_inside_leaves_the_gate_open_and_its_token_behind() {
    let place = Place::new();
    let mut holder = Helper::start();
    assert_eq!(place.enter(&mut holder, 7), "ok");
    holder.kill();
    assert!(place.gate().enter(token(6)).unwrap_err().is_lost());
    assert!(place.gate().enter(token(7)).is_ok());
}

/// A stopped process inside has looked at its token and not yet acted.
#[test]
fn a_caller_stopped_inside_keeps_all_others_out_until_it_is_killed() {
    let place = Place::new();
    let mut holder = Helper::start();
    assert_eq!(place.enter(&mut holder, 7), "ok");
    holder.stop();
    for _ in 0..20 {
        assert!(place.gate().try_enter(token(8)).unwrap_err().is_contended());
    }
    holder.resume();
    assert_eq!(holder.ask("leave"), "ok");
    assert!(place.gate().enter(token(8)).is_ok());
    assert!(place.enter(&mut holder, 7).starts_with("error\tLost"));
}

#[test]
fn a_gate_outlives_kills_at_any_moment_and_never_goes_back() {
    let place = Place::new();
    let mut last = 0;
    for round in 1..=20_u32 {
        let mut holder = Helper::start();
        holder.say(&format!("enter-on-and-on\t{}\t{}", place.path().display(), last + 1));
        for _ in 0..round {
            last = holder.hear().parse().unwrap();
        }
        holder.kill();
        let seen = place.gate().seen().unwrap().get();
        assert!(seen >= last, "{seen} after {last}");
        last = seen;
    }
}

#[test]
fn a_gate_in_a_file_has_one_size_for_ever_and_can_be_read() {
    let place = Place::new();
    let gate = place.gate();
    let mut sizes = Vec::new();
    for number in [1, 2, 1 << 62, Token::MAX.get()] {
        drop(gate.enter(token(number)).unwrap());
        sizes.push(fs::metadata(place.path()).unwrap().len());
        let text = fs::read_to_string(place.path()).unwrap();
        assert!(text.starts_with("tierlock fence 1") && text.contains(&number.to_string()));
    }
    assert_eq!(sizes, [1_536; 4]);
}

/// filelock#574: two processes lock one path and two files.
#[test]
fn a_gate_with_a_removed_or_replaced_file_lets_no_caller_in() {
    let place = Place::new();
    let (gate, path) = (place.gate(), place.path());
    drop(gate.enter(token(5)).unwrap());
    let aside = place.files.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    damaged(gate.enter(token(6)), &path, "removed");
    // A process that opens it now makes another.
    drop(place.gate().enter(token(1)).unwrap());
    damaged(gate.enter(token(6)), &path, "replaced");
    fs::rename(&aside, &path).unwrap();
    assert_eq!(gate.seen().unwrap(), token(5));
    drop(gate.enter(token(6)).unwrap());
}

#[test]
fn a_gate_file_that_falls_back_is_noticed_by_a_caller_that_knows_better() {
    let place = Place::new();
    let (gate, path) = (place.gate(), place.path());
    drop(gate.enter(token(5)).unwrap());
    let old = fs::read(&path).unwrap();
    drop(gate.enter(token(6)).unwrap());
    let restore = |bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
    };
    for bytes in [old.as_slice(), b""] {
        restore(bytes);
        damaged(gate.enter(token(7)), &path, "fell back");
    }
}

#[test]
fn what_is_no_gate_is_left_as_it_is() {
    let place = Place::new();
    let path = place.path();
    for text in ["precious", &"x".repeat(1_536), &"\0".repeat(1_537)] {
        fs::write(&path, text).unwrap();
        damaged(FileGate::open(&path), &path, "not what a gate writes");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    // CVE-2025-68146: a symbolic link leads to another user's file.
    let target = place.files.path().join("target");
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    damaged(FileGate::open(&path), &path, "symbolic link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    damaged(FileGate::open(&path), &path, "directory");
    let nowhere = FileGate::open(place.files.path().join("no/gate")).unwrap_err();
    assert_eq!(nowhere.kind(), LockErrorKind::Config);
    let elsewhere = FileGate::open("/proc/self/comm").unwrap_err();
    assert_eq!(elsewhere.kind(), LockErrorKind::Config, "{elsewhere}");
    assert!(elsewhere.to_string().contains("file system"), "{elsewhere}");
}

/// A database that two processes write to.
struct Shop {
    files: TempDir,
}

impl Shop {
    fn new() -> Shop {
        let shop = Shop { files: temp_dir() };
        let db = shop.connect();
        db.execute(SQL_TABLE, []).unwrap();
        db.execute(SQL_TABLE, []).unwrap();
        db.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, left INTEGER)", []).unwrap();
        db.execute("INSERT INTO stock VALUES (12, 0)", []).unwrap();
        shop
    }

    fn connect(&self) -> Connection {
        let db = Connection::open(self.files.path().join("shop")).unwrap();
        db.busy_timeout(crate::setting::LONG).unwrap();
        db
    }
}

fn sold(db: &Connection) -> i64 {
    db.query_row("SELECT left FROM stock WHERE id = 12", [], |row| row.get(0)).unwrap()
}

/// Reads, decides and writes in a transaction behind the gate, if it gets in.
fn try_sell(db: &mut Connection, token: Token, meanwhile: impl FnOnce()) -> Result<(), Stale> {
    let step = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    if step.execute(SQL_ENTER, params!["stock/12", token.as_i64()]).unwrap() == 0 {
        let seen = step.query_row(SQL_SEEN, ["stock/12"], |row| row.get(0)).unwrap();
        return Err(Stale::in_sql(token, seen));
    }
    let before = sold(&step);
    meanwhile();
    step.execute("UPDATE stock SET left = $1 WHERE id = 12", [before + 1]).unwrap();
    step.commit().unwrap();
    Ok(())
}

/// Whether it got in.
fn sell(db: &mut Connection, token: Token, meanwhile: impl FnOnce()) -> bool {
    try_sell(db, token, meanwhile).is_ok()
}

#[test]
fn a_stale_holder_changes_no_row() {
    let shop = Shop::new();
    let [mut one, mut other] = [(); 2].map(|()| shop.connect());
    assert!(sell(&mut one, token(7), || ()));
    assert!(sell(&mut other, token(8), || ()));
    assert!(!sell(&mut one, token(7), || ()));
    assert!(sell(&mut other, token(8), || ()));
    assert!(sell(&mut one, Token::MAX, || ()));
    assert_eq!(sold(&one), 4);
    let stale = try_sell(&mut other, token(8), || ()).unwrap_err();
    assert_eq!((stale.offered, stale.seen), (token(8), Token::MAX));
}

#[test]
fn no_writer_comes_between_the_gate_of_a_database_and_the_write() {
    let shop = Shop::new();
    let (mut early, mut late) = (shop.connect(), shop.connect());
    let done = std::cell::Cell::new(None);
    assert!(sell(&mut early, token(7), || {
        // It cannot enter before the one inside has written.
        let waiting = Arc::new(BlockedThread::default());
        let that = waiting.clone();
        let later = thread::spawn(move || {
            that.is_this();
            assert!(sell(&mut late, token(8), || ()));
            late
        });
        waiting.until_blocked();
        assert!(!later.is_finished());
        done.set(Some(later));
    }));
    let late = done.take().unwrap().join().unwrap();
    assert_eq!(sold(&late), 2);
    assert!(!sell(&mut early, token(7), || ()));
}

#[test]
fn idle_names_are_those_not_entered_for_so_long() {
    let gates = Gates::new();
    let [old, young] = ["old", "young"].map(name);
    drop(gates.enter(&old, token(1)).unwrap());
    let start = std::time::Instant::now();
    let idle = Duration::from_millis(20);
    until("the idle time of one name", || start.elapsed() > idle);
    drop(gates.enter(&young, token(1)).unwrap());
    let forgotten = gates.forget_idle(idle);
    assert!(forgotten >= 1, "the older one is forgotten");
    assert_eq!(gates.seen(&old), Token::ZERO);
}
