//! Deadlocks of real processes and of threads that are said to keep their guards.
//!
//! Without libtest's harness: it is its own helper.

use std::{
    any::Any,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tierlock::{Leader, LockError, LockErrorKind, LockManager, LockManagerBuilder, Secret};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, address, secret, has, wants] = &arguments[..] {
        let locks = builder(address, Path::new(secret)).label(has);
        return locks_two(locks.guards_stay(word == "stay"), [has, wants]);
    }
    three_processes_in_a_ring();
    processes_that_make_no_promise_go_on_waiting();
    threads_that_keep_their_guards();
    threads_that_have_several_locks_at_once();
    a_thread_that_has_the_first_of_several_and_waits_for_the_next();
    threads_that_make_no_promise_go_on_waiting();
}

fn builder(address: &str, secret: &Path) -> LockManagerBuilder {
    let builder = LockManager::builder().leaders([address]).secret_file(secret);
    builder.time_to_live(Duration::from_secs(2))
}

/// A leader, and how it is reached.
struct Town {
    directory: tempfile::TempDir,
    leader: Leader,
}

impl Town {
    fn new() -> Town {
        let directory = tempfile::tempdir().unwrap();
        Secret::create(directory.path().join("key")).unwrap();
        let leader = Leader::builder()
            .listen("127.0.0.1:0")
            .state_dir(directory.path().join("state"))
            .init(true)
            .accept_file_system("tmpfs")
            .secret_file(directory.path().join("key"))
            .start()
            .unwrap();
        Town { directory, leader }
    }

    fn secret(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    fn address(&self) -> String {
        self.leader.local_addr().to_string()
    }

    fn manager(&self, label: &str) -> LockManagerBuilder {
        builder(&self.address(), &self.secret()).label(label)
    }

    /// A process that has one name and is to lock another when it is told so.
    fn process(&self, word: &str, has: &str, wants: &str) -> LockingChild {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([word, &self.address()]).arg(self.secret()).args([has, wants]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut child = LockingChild { child, to, from: BufReader::new(from) };
        assert_eq!(child.line(), "has it");
        child
    }
}

struct LockingChild {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl LockingChild {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go_on(&mut self) {
        writeln!(self.to, "go on").unwrap();
    }
}

impl Drop for LockingChild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a child does.
fn locks_two(locks: LockManagerBuilder, [has, wants]: [&str; 2]) {
    let locks = locks.open().unwrap();
    let (has, wants) =
        (locks.mutex(has, ()).build().unwrap(), locks.mutex(wants, ()).build().unwrap());
    let guard = has.lock().unwrap();
    println!("has it");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match wants.lock() {
        Ok(both) => {
            println!("got both");
            drop(both);
        }
        Err(error) => println!("{:?} {error}", error.kind()),
    }
    drop(guard);
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn is_waited_for(asking: &LockManager, name: &str) {
    eventually("it is waited for", || !asking.status_of(name).unwrap().waiters.is_empty());
}

/// Until both holders have been promised more so often that a deadlock would have been told.
fn are_renewed(asking: &LockManager, names: [&str; 2]) {
    for name in names {
        let (mut before, mut moved) = (Duration::MAX, 0);
        eventually("it is renewed", || {
            let now = asking.status_of(name).unwrap().remaining.unwrap();
            moved += usize::from(now > before);
            before = now;
            moved > 12
        });
    }
}

fn three_processes_in_a_ring() {
    let town = Town::new();
    let asking = town.manager("asking").open().unwrap();
    let names = ["a", "b", "c"];
    let mut all: Vec<_> =
        (0..3).map(|at| town.process("stay", names[at], names[(at + 1) % 3])).collect();
    for (at, process) in all.iter_mut().enumerate() {
        process.go_on();
        if at < 2 {
            is_waited_for(&asking, names[at + 1]);
        }
    }
    let told = all[2].line();
    assert!(told.starts_with("Deadlock host lock \"a\": deadlock: "), "{told}");
    let steps = [
        "this caller has \"c\" and waits for \"a\"; a on ",
        "has \"a\" and waits for \"b\"; b on ",
        "has \"b\" and waits for \"c\"; give up what you hold",
    ];
    for step in steps {
        assert!(told.contains(step), "{step:?} is not in {told}");
    }
    assert_eq!([all[1].line(), all[0].line()], ["got both", "got both"]);
}

/// Another thread may have been sent the guard.
fn processes_that_make_no_promise_go_on_waiting() {
    let town = Town::new();
    let asking = town.manager("asking").open().unwrap();
    let mut first = town.process("move", "a", "b");
    let mut second = town.process("move", "b", "a");
    first.go_on();
    is_waited_for(&asking, "b");
    second.go_on();
    is_waited_for(&asking, "a");
    are_renewed(&asking, ["a", "b"]);
    drop(first);
    assert_eq!(second.line(), "got both");
}

/// What a thread is told that has one name and locks another.
type Told = Result<(), LockError>;

/// How a thread locks what it has while it waits.
type LockFirst = fn(&LockManager, &'static str) -> Box<dyn Any>;

fn lock_one(locks: &LockManager, name: &'static str) -> Box<dyn Any> {
    Box::new(locks.mutex(name, ()).lock().unwrap())
}

/// With another one that no other thread locks.
fn lock_several(locks: &LockManager, name: &'static str) -> Box<dyn Any> {
    let beside = if name == "a" { "a/beside" } else { "ab/beside" };
    Box::new(locks.lock_all([name, beside]).unwrap())
}

/// Two threads with a manager each, which have a name each and then lock the other's.
fn cross(town: &Town, guards_stay: bool, lock_first: LockFirst) -> [thread::JoinHandle<Told>; 2] {
    let asking = town.manager("asking").open().unwrap();
    let begin = |has: &'static str, wants: &'static str| {
        let locks = town.manager(has).guards_stay(guards_stay).open().unwrap();
        let (held, is_held) = mpsc::channel();
        let (go, told) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let _guard = lock_first(&locks, has);
            held.send(()).unwrap();
            told.recv().unwrap();
            let wants = locks.mutex(wants, ()).build()?;
            let _both = wants.lock()?;
            Ok(())
        });
        is_held.recv().unwrap();
        (go, thread)
    };
    let (first, second) = (begin("a", "b"), begin("b", "a"));
    first.0.send(()).unwrap();
    is_waited_for(&asking, "b");
    second.0.send(()).unwrap();
    [first.1, second.1]
}

fn threads_that_keep_their_guards() {
    let town = Town::new();
    let [first, second] = cross(&town, true, lock_one);
    let told = second.join().unwrap().unwrap_err();
    assert_eq!(told.kind(), LockErrorKind::Deadlock);
    assert!(told.is_contended() && told.is_retryable() && !told.is_timeout());
    assert_eq!(std::io::Error::from(told).kind(), std::io::ErrorKind::Deadlock);
    first.join().unwrap().unwrap();
}

/// The guard of several locks is a guard of each.
fn threads_that_have_several_locks_at_once() {
    let town = Town::new();
    let [first, second] = cross(&town, true, lock_several);
    let told = second.join().unwrap().unwrap_err();
    assert_eq!(told.kind(), LockErrorKind::Deadlock, "{told}");
    first.join().unwrap().unwrap();
}

fn a_thread_that_has_the_first_of_several_and_waits_for_the_next() {
    let town = Town::new();
    let asking = town.manager("asking").open().unwrap();
    let one = town.manager("one").guards_stay(true).open().unwrap();
    let has = one.mutex("b", ()).lock().unwrap();
    let several = town.manager("several").guards_stay(true).open().unwrap();
    let several = thread::spawn(move || several.lock_all(["b", "a"]).map(drop));
    is_waited_for(&asking, "b");
    let told = one.mutex("a", ()).lock().map(drop).unwrap_err();
    assert_eq!(told.kind(), LockErrorKind::Deadlock, "{told}");
    drop(has);
    several.join().unwrap().unwrap();
}

fn threads_that_make_no_promise_go_on_waiting() {
    let town = Town::new();
    let threads = cross(&town, false, lock_several);
    let asking = town.manager("asking").open().unwrap();
    is_waited_for(&asking, "a");
    are_renewed(&asking, ["a", "b"]);
    assert!(threads.iter().all(|thread| !thread.is_finished()));
    // An operator ends it.
    let token = asking.status_of("a").unwrap().token;
    asking.break_lock("a", token).unwrap();
    let [first, second] = threads;
    second.join().unwrap().unwrap();
    first.join().unwrap().unwrap();
}
