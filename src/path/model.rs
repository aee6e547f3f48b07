//! Turnstile and representative under loom, which plays every interleaving:
//! `RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --features testing --lib path::model`
//!
//! Threads of one process come to one name of host scope: each tries the lease word, else wins the
//! turnstile, waits at the word as its process's one representative, asks the service where the word is
//! closed, enters, and lets go of the turnstile. However they meet:
//!
//! - no two are inside at once, and each sees what the last one wrote;
//! - every thread comes in: one that sleeps at the turnstile or at the word and that nothing wakes is a
//!   deadlock, which loom finds;
//! - every lease is given back once.
//!
//! The turnstile and the word are the product's own; the order between them is that of `climb.rs`.

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    error::Predecessor,
    host::lease_word::{Claim, Entered, Entering, LeaseKey, LeaseWord, Left, Opening, Used},
    thread::ThreadLock,
    time::Time,
    token::Token,
};

const EPOCH: u32 = 1;
const COUNT: u64 = (1 << 32) - 1;

/// A mistake in the order between turnstile and word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnstileMistake {
    /// A thread waits at the word without the turnstile.
    PassedBy,
    /// A representative lets go of the turnstile before it has entered the word.
    LeftEarly,
    /// A representative that has entered keeps the turnstile.
    Kept,
}

/// One process, and the service that grants its leases.
struct TurnstileScene {
    turnstile: ThreadLock,
    word: LeaseWord,
    service: Mutex<Granting>,
    /// Read and written without an order of its own: a holder that does not see what the last one did
    /// counts wrong.
    count: AtomicU64,
    keeps: bool,
    mistake: Option<TurnstileMistake>,
}

#[derive(Default)]
struct Granting {
    granted: u64,
    held: Option<u64>,
}

impl TurnstileScene {
    fn lock(&self) {
        if let Entering::Entered(entered) = self.enter() {
            return self.hold(entered);
        }
        let passes = self.mistake == Some(TurnstileMistake::PassedBy);
        if !passes {
            self.turnstile.take();
        }
        if self.mistake == Some(TurnstileMistake::LeftEarly) {
            self.turnstile.release(Predecessor::Clean);
        }
        let entered = self.represent();
        let stays = passes
            || matches!(self.mistake, Some(TurnstileMistake::LeftEarly | TurnstileMistake::Kept));
        if !stays {
            self.turnstile.release(Predecessor::Clean);
        }
        self.hold(entered);
    }

    fn enter(&self) -> Entering {
        let entering = self.word.enter();
        if let Entering::UsedUp(used) = &entering {
            self.take_back(used);
        }
        entering
    }

    /// Waits at the word until it is entered.
    fn represent(&self) -> Entered {
        loop {
            match self.word.claim() {
                Claim::Entered(entered) => return entered,
                Claim::UsedUp(used) => self.take_back(&used),
                Claim::Held => self.word.sleep(false, Time::NEVER),
                Claim::Closed(_) => {
                    let mut service = self.service.lock().unwrap();
                    if service.held.is_some() {
                        // It is on its way back.
                        drop(service);
                        thread::yield_now();
                        continue;
                    }
                    service.granted += 1;
                    service.held = Some(service.granted);
                    self.word.open(self.opening(service.granted));
                }
            }
        }
    }

    fn opening(&self, lease: u64) -> Opening {
        let number = |count| Token::new(Token::first_of(EPOCH).get() + count).unwrap();
        Opening {
            lease: LeaseKey { high: EPOCH.into(), low: lease },
            first: number(lease * 10),
            last: number(lease * 10 + 5),
            predecessor: Predecessor::Clean,
            at_most: None,
            keeps: self.keeps,
            is_in_use: false,
            is_shared: false,
        }
    }

    /// Inside, and out again.
    fn hold(&self, entered: Entered) {
        let before = self.count.load(Relaxed);
        self.count.store(before + 1, Relaxed);
        match self.word.leave(entered.token, Predecessor::Clean) {
            Left::GivesBack(used) => {
                self.take_back(&used);
                self.word.wake();
            }
            Left::Wakes => self.word.wake(),
            Left::Kept => {}
            Left::Stale => panic!("it was in"),
        }
    }

    fn take_back(&self, used: &Used) {
        let mut service = self.service.lock().unwrap();
        assert_eq!(service.held.take(), Some(used.lease.low), "given back twice, or another's");
        assert_eq!((used.last.get() & COUNT) / 10, used.lease.low, "it is none of its tokens");
    }
}

/// So many threads lock the name, the first of them so often.
fn play(mistake: Option<TurnstileMistake>, keeps: bool, threads: u64, times: u64) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let scene = Arc::new(TurnstileScene {
            turnstile: ThreadLock::new(),
            word: LeaseWord::new(),
            service: Mutex::default(),
            count: AtomicU64::new(0),
            keeps,
            mistake,
        });
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let scene = scene.clone();
                thread::spawn(move || scene.lock())
            })
            .collect();
        (0..times).for_each(|_| scene.lock());
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(scene.count.load(Relaxed), threads - 1 + times, "two were inside");
        if let Some(used) = scene.word.close_idle() {
            scene.take_back(&used);
        }
        assert_eq!(scene.service.lock().unwrap().held, None, "a lease was left behind");
    });
}

#[test]
fn two_threads_come_in_through_one_representative() {
    for keeps in [true, false] {
        play(None, keeps, 2, 2);
    }
}

#[test]
fn three_threads_come_in_through_one_representative() {
    for keeps in [true, false] {
        play(None, keeps, 3, 1);
    }
}

/// loom may end the process that finds a flaw in the middle of it: so it is another.
#[test]
fn mistakes_are_found() {
    let (_, here) = module_path!().split_once("::").expect("a module of a crate");
    for mistake in MISTAKES {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let played = format!("{here}::plays_a_mistake");
        child.args(["--exact", &played, "--ignored", "--nocapture"]);
        child.env("TIERLOCK_TURNSTILE_MISTAKE", format!("{mistake:?}"));
        let output = child.output().unwrap();
        assert!(!output.status.success(), "{mistake:?} is not found: {output:?}");
    }
}

const MISTAKES: [TurnstileMistake; 3] =
    [TurnstileMistake::PassedBy, TurnstileMistake::LeftEarly, TurnstileMistake::Kept];

#[test]
#[ignore = "a mistake, which the test above finds"]
fn plays_a_mistake() {
    let named = std::env::var("TIERLOCK_TURNSTILE_MISTAKE").expect("one is named");
    let mistake = MISTAKES.into_iter().find(|mistake| format!("{mistake:?}") == named);
    play(Some(mistake.expect("a mistake")), false, 3, 1);
}
