//! The word under loom, which plays every interleaving:
//! `RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --features testing --lib wire_word`
//!
//! Callers put requests and come; each carries its frames, or waits for the owner to; the thread owns the
//! connection when it is called, and sleeps on it or leaves. Whichever has read another's answer steps out
//! to tell it. The leader answers what it is sent at once; a look reads one answer, the latest first.
//! Nothing ticks here. However they meet:
//!
//! - every caller has its answer: a request that no owner sends, an answer that none reads, an owner
//!   that is not woken and a thread that is not called are threads that nothing wakes, which loom
//!   finds;
//! - two never own the connection at once.

use loom::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use super::{these::plant, *};

/// Callers of one model.
const CALLERS: usize = 2;

/// One process and the leader.
struct WireScene {
    word: WireWord,
    /// An owner is at it.
    is_owned: AtomicBool,
    wire: Mutex<ModelWire>,
    /// An owner's, which the sockets wake as well.
    bed: ModelBed,
    /// The callers', once another has the connection.
    parked: [ModelBed; CALLERS],
    /// The thread's, while it is not the owner.
    rests: ModelBed,
}

/// What callers have put, what is on its way, and which callers have their answers.
#[derive(Default)]
struct ModelWire {
    put: Vec<usize>,
    /// Sent, and so answered by the leader: an owner that sleeps on the sockets wakes.
    answers: Vec<usize>,
    is_answered: [bool; CALLERS],
    /// Callers that have asked and have no answer.
    waiting: usize,
    ends: bool,
}

/// What one thread sleeps on: woken once for each byte, a byte that came before included.
///
/// It stands for `park` too. loom's own `unpark` makes its thread go on whatever that waits for by then:
/// for one that saw its answer without parking, and now waits for a mutex or for another thread's end,
/// loom fails by itself.
#[derive(Default)]
struct ModelBed {
    has_byte: Mutex<bool>,
    byte: Condvar,
}

impl ModelBed {
    fn wake(&self) {
        *self.has_byte.lock().unwrap() = true;
        self.byte.notify_one();
    }

    fn sleep(&self) {
        let mut has_byte = self.has_byte.lock().unwrap();
        while !*has_byte {
            has_byte = self.byte.wait(has_byte).unwrap();
        }
        *has_byte = false;
    }
}

impl WireScene {
    fn new() -> Arc<WireScene> {
        Arc::new(WireScene {
            word: WireWord::new(),
            is_owned: AtomicBool::new(false),
            wire: Mutex::default(),
            bed: ModelBed::default(),
            parked: Default::default(),
            rests: ModelBed::default(),
        })
    }

    /// One caller's request, from putting it until its answer is here.
    fn ask(&self, caller: usize) {
        let mut found = None;
        if flawed(WireFlaw::CameBeforePut) {
            found = Some(self.word.come(WireWish::Carry));
        }
        {
            let mut wire = self.wire.lock().unwrap();
            wire.put.push(caller);
            wire.waiting += 1;
            wire.is_answered[caller] = false;
        }
        match found.unwrap_or_else(|| self.word.come(WireWish::Carry)) {
            Coming::Mine => self.carry(caller),
            Coming::Heard => {}
            Coming::Asleep => self.wake(),
        }
        while !self.wire.lock().unwrap().is_answered[caller] {
            self.parked[caller].sleep();
        }
    }

    /// As the owner, until its own answer is here.
    fn carry(&self, caller: usize) {
        self.owns(true);
        loop {
            let (_, waiting, told) = self.look(Some(caller));
            if self.wire.lock().unwrap().is_answered[caller] {
                let calls = waiting > 0 && !flawed(WireFlaw::NotCalled);
                if calls && flawed(WireFlaw::CalledEarly) {
                    self.call_thread();
                }
                self.owns(false);
                if !self.word.leave(waiting == 0 || flawed(WireFlaw::SparedCalled)) {
                    self.word.abandon();
                    self.call_thread();
                } else if calls && !flawed(WireFlaw::CalledEarly) {
                    self.call_thread();
                }
                self.wake_told(&told);
                return;
            }
            match self.tell(&told) {
                None => self.rest(),
                Some(true) if flawed(WireFlaw::RestedUnlooked) => self.rest(),
                Some(true) => {}
                Some(false) => return,
            }
        }
    }

    /// Beside the connection: whether it is the teller's again; nothing if it stayed the teller's.
    fn tell(&self, told: &[usize]) -> Option<bool> {
        if told.is_empty() {
            return None;
        }
        self.owns(false);
        self.word.step_out();
        self.wake_told(&told);
        let is_back = self.word.own();
        if is_back {
            self.owns(true);
        }
        Some(is_back)
    }

    /// The thread, until all is over.
    fn serve(&self) {
        loop {
            if self.word.own_at_tick() {
                self.owns(true);
                let mut would_carry = false;
                loop {
                    let (signs, waiting, told) = self.look(None);
                    would_carry |= signs.would_carry();
                    match self.tell(&told) {
                        None => {}
                        Some(true) => continue,
                        Some(false) => break,
                    }
                    if self.wire.lock().unwrap().ends {
                        self.owns(false);
                        self.word.abandon();
                        return;
                    }
                    if would_carry && waiting == 0 {
                        self.owns(false);
                        if self.word.leave(false) {
                            break;
                        }
                        self.owns(true);
                    } else {
                        self.rest();
                    }
                }
            }
            self.rests.sleep();
        }
    }

    fn wake_told(&self, told: &[usize]) {
        told.iter().for_each(|&caller| self.parked[caller].wake());
    }

    /// What had come, how many callers wait, and which other is to be told that it has its answer.
    fn look(&self, me: Option<usize>) -> (WireSigns, usize, Vec<usize>) {
        let early = (!flawed(WireFlaw::BegunLate)).then(|| self.word.begin());
        let mut wire = self.wire.lock().unwrap();
        let ModelWire { put, answers, is_answered, waiting, .. } = &mut *wire;
        let mut told = Vec::new();
        if let Some(caller) = answers.pop() {
            is_answered[caller] = true;
            *waiting -= 1;
            told.extend(Some(caller).filter(|_| me != Some(caller)));
        }
        answers.append(put);
        let waiting = *waiting;
        drop(wire);
        (early.unwrap_or_else(|| self.word.begin()), waiting, told)
    }

    fn rest(&self) {
        if !self.word.lie_down(false) {
            return;
        }
        // Only an owner sends, and this one sleeps: nothing is answered meanwhile.
        let is_ready = !self.wire.lock().unwrap().answers.is_empty();
        if !is_ready {
            self.bed.sleep();
        }
        self.word.get_up();
    }

    fn wake(&self) {
        if !flawed(WireFlaw::NotWoken) {
            self.bed.wake();
        }
    }

    fn call_thread(&self) {
        self.rests.wake();
    }

    fn owns(&self, is_owned: bool) {
        assert_ne!(self.is_owned.swap(is_owned, Relaxed), is_owned, "two own it");
    }

    fn end(&self) {
        self.wire.lock().unwrap().ends = true;
        match self.word.come(WireWish::Send) {
            Coming::Mine => {
                self.word.abandon();
                self.call_thread();
            }
            Coming::Heard => {}
            Coming::Asleep => self.wake(),
        }
        // It may have been about to rest: its owner left before this came.
        self.call_thread();
    }
}

/// So many callers ask once; the second of them so often.
fn play(flaw: Option<WireFlaw>, callers: usize, rounds: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        plant(flaw);
        let scene = WireScene::new();
        let driver = {
            let scene = scene.clone();
            thread::spawn(move || scene.serve())
        };
        let others: Vec<_> = (1..callers)
            .map(|caller| {
                let scene = scene.clone();
                thread::spawn(move || (0..rounds).for_each(|_| scene.ask(caller)))
            })
            .collect();
        scene.ask(0);
        for other in others {
            other.join().unwrap();
        }
        scene.end();
        driver.join().unwrap();
    });
    plant(None);
}

#[test]
fn one_caller_is_answered() {
    play(None, 1, 1);
}

#[test]
fn two_callers_are_answered() {
    play(None, 2, 1);
}

#[test]
fn a_caller_that_asks_again_is_answered() {
    play(None, 2, 2);
}

/// loom ends the process that finds a deadlock in the middle of it: so it is another.
#[test]
fn mistakes_are_found() {
    let (_, here) = module_path!().split_once("::").expect("a module of a crate");
    for flaw in FLAWS {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let played = format!("{here}::plays_a_mistake");
        child.args(["--exact", &played, "--ignored", "--nocapture"]);
        let output = child.env("TIERLOCK_WIRE_FLAW", format!("{flaw:?}")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("deadlock"), "{flaw:?}: {output:?}");
    }
}

const FLAWS: [WireFlaw; 9] = [
    WireFlaw::SleptUnasked,
    WireFlaw::LeftUnasked,
    WireFlaw::NotWoken,
    WireFlaw::BegunLate,
    WireFlaw::CameBeforePut,
    WireFlaw::NotCalled,
    WireFlaw::CalledEarly,
    WireFlaw::RestedUnlooked,
    WireFlaw::SparedCalled,
];

#[test]
#[ignore = "a mistake, which the test above finds"]
fn plays_a_mistake() {
    let named = std::env::var("TIERLOCK_WIRE_FLAW").expect("one is named");
    let flaw = FLAWS.into_iter().find(|flaw| format!("{flaw:?}") == named);
    // The last one takes an answer read by another that came meanwhile.
    let rounds = if flaw == Some(WireFlaw::RestedUnlooked) { 2 } else { 1 };
    play(Some(flaw.expect("a flaw")), CALLERS, rounds);
}
