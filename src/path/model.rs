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
//! - every lease is given back once, also one that is lost under its guard.
//!
//! The cell is played in [`cell`].
//!
//! The turnstile and the word are the product's own; the order between them is that of `climb.rs`.

mod cell;

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    error::{LostReason, Predecessor},
    host::lease_word::{Claim, Entered, Entering, LeaseKey, LeaseWord, Left, Met, Opening, Used},
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
    /// A try asks the service without the turnstile, beside the representative.
    TryBeside,
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
    /// A lease that was lost under its guard: others were granted the name. It comes back for nothing.
    over: Option<u64>,
}

impl TurnstileScene {
    fn new(mistake: Option<TurnstileMistake>, keeps: bool) -> TurnstileScene {
        TurnstileScene {
            turnstile: ThreadLock::new(),
            word: LeaseWord::new(),
            service: Mutex::default(),
            count: AtomicU64::new(0),
            keeps,
            mistake,
        }
    }

    /// All are gone.
    fn end(&self) {
        if let Some(used) = self.word.close_idle() {
            self.take_back(&used);
        }
        let service = self.service.lock().unwrap();
        assert_eq!((service.held, service.over), (None, None), "a lease was left behind");
    }

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
                Claim::Closed(_) => self.ask(),
            }
        }
    }

    /// Asks while the word is closed; whatever happens meanwhile, the grant opens it.
    fn ask(&self) {
        while !self.is_granted() {
            // The last one is on its way back.
            thread::yield_now();
        }
    }

    fn is_granted(&self) -> bool {
        let mut service = self.service.lock().unwrap();
        if service.held.is_some() {
            return false;
        }
        service.granted += 1;
        service.held = Some(service.granted);
        self.word.open(self.opening(service.granted));
        true
    }

    /// Only tries; whether it was in.
    fn try_lock(&self) -> bool {
        if let Entering::Entered(entered) = self.enter() {
            self.hold(entered);
            return true;
        }
        let passes = self.mistake == Some(TurnstileMistake::TryBeside);
        if !passes && !self.turnstile.try_win() {
            return false;
        }
        let entered = self.try_word();
        if entered.is_none()
            && let Some(used) = self.word.give_up_reserved()
        {
            self.take_back(&used);
        }
        if !passes {
            self.turnstile.release(Predecessor::Clean);
        }
        entered.map(|entered| self.hold(entered)).is_some()
    }

    fn try_word(&self) -> Option<Entered> {
        let claim = match self.word.claim() {
            Claim::Closed(_) if self.is_granted() => self.word.claim(),
            claim => claim,
        };
        match claim {
            Claim::Entered(entered) => Some(entered),
            Claim::UsedUp(used) => {
                self.take_back(&used);
                None
            }
            Claim::Held | Claim::Closed(_) => None,
        }
    }

    /// What lease there is, is lost.
    fn lose(&self) {
        let mut service = self.service.lock().unwrap();
        let Some(lease) = service.held else { return };
        match self.word.lose(LostReason::Broken) {
            Met::Idle(_) => {
                service.held = None;
                let waiter = self.word.take_waiter();
                drop(service);
                waiter.into_iter().for_each(|waiter| waiter.wake());
            }
            // The guard that is in, or has just closed it, gives it back.
            Met::InUse { .. } | Met::Closed => {
                service.held = None;
                service.over = Some(lease);
            }
            Met::Reserved => panic!("a loss closes what is reserved"),
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
        if service.over == Some(used.lease.low) {
            service.over = None;
            return;
        }
        assert_eq!(service.held.take(), Some(used.lease.low), "given back twice, or another's");
        let (count, first) = (used.last.get() & COUNT, used.lease.low * 10);
        assert!((first - 1..=first + 5).contains(&count), "{count} is none of its tokens");
    }
}

/// So many threads lock the name, the first of them so often.
fn play(mistake: Option<TurnstileMistake>, keeps: bool, threads: u64, times: u64) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let scene = Arc::new(TurnstileScene::new(mistake, keeps));
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let scene = scene.clone();
                thread::spawn(move || scene.lock())
            })
            .collect();
        (0..times).for_each(|_| scene.lock());
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(scene.count.load(Relaxed), threads - 1 + times, "two were inside");
        scene.end();
    });
}

/// A thread locks while another tries, and the lease is lost at any moment.
fn play_try(mistake: Option<TurnstileMistake>, keeps: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let scene = Arc::new(TurnstileScene::new(mistake, keeps));
        let theirs = scene.clone();
        let tries = thread::spawn(move || theirs.try_lock());
        let theirs = scene.clone();
        let loses = thread::spawn(move || theirs.lose());
        scene.lock();
        let was_in = tries.join().unwrap();
        loses.join().unwrap();
        assert_eq!(scene.count.load(Relaxed), 1 + u64::from(was_in), "two were inside");
        scene.end();
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

#[test]
fn a_try_beside_a_representative_while_the_lease_is_lost() {
    for keeps in [true, false] {
        play_try(None, keeps);
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
        // Found, and not ended by what is no finding: the test was there, and began.
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("running 1 test"), "{mistake:?} was not played: {output:?}");
        assert!(!output.status.success(), "{mistake:?} is not found: {output:?}");
    }
}

const MISTAKES: [TurnstileMistake; 4] = [
    TurnstileMistake::PassedBy,
    TurnstileMistake::LeftEarly,
    TurnstileMistake::Kept,
    TurnstileMistake::TryBeside,
];

#[test]
#[ignore = "a mistake, which the test above finds"]
fn plays_a_mistake() {
    let named = std::env::var("TIERLOCK_TURNSTILE_MISTAKE").expect("one is named");
    let mistake = MISTAKES.into_iter().find(|mistake| format!("{mistake:?}") == named);
    match mistake.expect("a mistake") {
        TurnstileMistake::TryBeside => play_try(mistake, false),
        _ => play(mistake, false, 3, 1),
    }
}
