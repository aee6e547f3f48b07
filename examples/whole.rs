//! A whole program: several processes, an embedded leader, and a store that checks tokens.
//!
//! 1. Three workers append to the store, one at a time.
//! 2. One is killed in its critical section: the next gets the lock and is told so.
//! 3. One is stopped past its lease and wakes up believing nothing has happened. It is told at
//!    its first look; and when it writes all the same, the store refuses its token.
//!
//! Run it: `cargo run --example whole`

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tierlock::{Leader, LockManager, MutexGuard, Predecessor, Token, fence::Gate};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("worker") => work(&args[2], &args[3], &args[4], Path::new(&args[5])),
        _ => tell_the_story(),
    }
}

fn tell_the_story() -> Outcome {
    let place = env::temp_dir().join(format!("tierlock-whole-{}", std::process::id()));
    fs::create_dir(&place)?;
    let secret = place.join("tierlock.key");
    tierlock::Secret::create(&secret)?;
    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(place.join("state"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(&secret)
        .start()?;
    let store = Store::open()?;
    let start = |label: &str| Worker::start(label, &leader, &store, &secret);

    println!("-- three workers append, one at a time");
    let mut workers = [start("ada")?, start("bob")?, start("cyd")?];
    for worker in &mut workers {
        worker.ask("lock", "locked, predecessor clean")?;
        worker.ask("write", "written")?;
        worker.ask("unlock", "unlocked in good order")?;
    }

    println!("-- ada is killed in her critical section");
    let [mut ada, mut bob, mut cyd] = workers;
    ada.ask("lock", "locked, predecessor clean")?;
    bob.tell("lock")?;
    ada.child.kill()?;
    ada.child.wait()?;
    println!("   ada was killed; bob waits for her time to live (1 s)");
    bob.expect("locked, predecessor expired")?;
    bob.ask("write", "written")?;

    println!("-- bob is stopped past his lease, and cyd takes over");
    let pid = Pid::from_child(&bob.child);
    kill_process(pid, Signal::STOP)?;
    cyd.ask("lock", "locked, predecessor expired")?;
    cyd.ask("write", "written")?;
    kill_process(pid, Signal::CONT)?;
    bob.ask("look", "the lock is lost")?;
    bob.ask("write", "refused")?;
    bob.ask("unlock", "was not held to the end")?;
    cyd.ask("unlock", "unlocked in good order")?;

    drop((bob, cyd));
    leader.shutdown();
    fs::remove_dir_all(place)?;
    println!("-- every write that the store took came from the holder of its time");
    Ok(())
}

/// The resource, in a process of its own in real life. A gate keeps the highest token it has seen
/// and refuses a smaller one.
struct Store {
    address: String,
}

impl Store {
    fn open() -> Outcome<Store> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        thread::spawn(move || {
            let entries = Gate::new(0);
            for stream in listener.incoming() {
                let _ = Store::serve(&entries, stream);
            }
        });
        Ok(Store { address })
    }

    fn serve(entries: &Gate<u32>, stream: std::io::Result<TcpStream>) -> Outcome {
        let mut stream = BufReader::new(stream?);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let token: Token = line.trim().parse()?;
        let answer = match entries.enter(token) {
            Err(stale) => format!("refused: {stale}"),
            Ok(mut count) => {
                *count += 1;
                format!("written as entry {} with token {token}", *count)
            }
        };
        writeln!(stream.get_mut(), "{answer}")?;
        Ok(())
    }
}

/// A worker process, told what to do line by line.
struct Worker {
    label: String,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(label: &str, leader: &Leader, store: &Store, secret: &PathBuf) -> Outcome<Worker> {
        let mut child = Command::new(env::current_exe()?)
            .args(["worker", label, &leader.local_addr().to_string(), &store.address])
            .arg(secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it was piped"));
        Ok(Worker { label: label.to_owned(), child, orders, answers })
    }

    fn tell(&mut self, order: &str) -> Outcome {
        writeln!(self.orders.as_mut().expect("still open"), "{order}")?;
        Ok(())
    }

    fn expect(&mut self, wanted: &str) -> Outcome {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        println!("   {}: {}", self.label, answer.trim());
        match answer.contains(wanted) {
            true => Ok(()),
            false => Err(format!("{}: {answer:?} instead of {wanted:?}", self.label).into()),
        }
    }

    fn ask(&mut self, order: &str, wanted: &str) -> Outcome {
        self.tell(order)?;
        self.expect(wanted)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.orders.take()); // the worker ends when its orders do
        let _ = self.child.wait();
    }
}

/// The worker's side.
fn work(label: &str, leader: &str, store: &str, secret: &Path) -> Outcome {
    let locks = LockManager::builder()
        .leaders([leader])
        .secret_file(secret)
        .label(label)
        .time_to_live(Duration::from_secs(1))
        .open()?;
    let ledger = locks.mutex("ledger", ()).build()?;
    let mut held: Option<MutexGuard<'_, ()>> = None;
    for order in std::io::stdin().lines() {
        let guard = held.as_ref();
        match (order?.as_str(), guard) {
            ("lock", None) => {
                let guard = held.insert(ledger.lock()?);
                let left: Predecessor = MutexGuard::predecessor(guard);
                println!("locked, predecessor {left}");
            }
            ("look", Some(guard)) => match MutexGuard::check(guard) {
                Ok(token) => println!("still held, token {token}"),
                Err(lost) if lost.is_lost() => println!("the lock is lost ({lost})"),
                Err(error) => return Err(error.into()),
            },
            ("write", Some(guard)) => {
                // On purpose without a look at `check`: the store does not rely on us.
                let mut stream = BufReader::new(TcpStream::connect(store)?);
                writeln!(stream.get_mut(), "{}", MutexGuard::token(guard))?;
                let mut answer = String::new();
                stream.read_line(&mut answer)?;
                print!("{answer}");
            }
            ("unlock", Some(_)) => match MutexGuard::unlock(held.take().expect("just seen")) {
                Ok(()) => println!("unlocked in good order"),
                Err(lost) => println!("was not held to the end ({lost})"),
            },
            (order, _) => return Err(format!("cannot {order} now").into()),
        }
    }
    Ok(())
}
