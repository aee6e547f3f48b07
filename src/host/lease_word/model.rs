//! The word under loom, which plays every interleaving:
//! `RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --features testing --lib lease_word`
//!
//! Threads enter and leave, the representative claims, waits, asks and gives up, the service opens,
//! recalls, loses and closes, each at any moment. However they meet:
//!
//! - no two guards are in at once;
//! - each lease is given back once, with the last token that was used of it, and no guard enters it
//!   afterwards;
//! - tokens only grow;
//! - a recall or a loss that met a guard or a reservation is given back once those are gone;
//! - no representative sleeps for ever: loom finds a thread that nothing wakes.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    thread,
};

use super::{words::plant, *};
use crate::played;

const EPOCH: u32 = 1;
/// Tokens of a block.
const BLOCK: u64 = 3;

/// One process, its service, and the sessions elsewhere.
struct Scene {
    word: LeaseWord,
    /// A guard is in.
    is_inside: AtomicBool,
    /// The last token that a guard had.
    used: AtomicU64,
    /// The representative waits hungry.
    is_hungry: AtomicBool,
    /// The last token that was reserved for it by a guard that left, and the last that it had.
    reserved: AtomicU64,
    claimed: AtomicU64,
    service: Mutex<Service>,
    keeps: bool,
    /// A mistake: the representative itself opens the word with the lease that it was granted.
    opens_itself: bool,
}

/// What the service knows, under its lock. Each lease is granted, given back, and then the next.
#[derive(Default)]
struct Service {
    granted: u64,
    /// The lease that this session has, as the leader sees it.
    held: Option<u64>,
    /// It is recalled, and is to come back without further ado.
    is_due: bool,
    /// A lease that was lost under its guard: the leader has granted on. It comes back for nothing.
    over: Option<u64>,
}

impl Scene {
    /// With a lease that the first guard is in, with token 1.
    fn new(keeps: bool) -> Arc<Scene> {
        let scene = Scene::closed(keeps, false);
        scene.grant(&mut scene.service.lock());
        let Claim::Entered(entered) = scene.word.claim() else { panic!("it is reserved") };
        scene.come_in(entered);
        scene
    }

    fn closed(keeps: bool, opens_itself: bool) -> Arc<Scene> {
        let [is_inside, is_hungry] = [(); 2].map(|()| AtomicBool::new(false));
        let [used, reserved, claimed] = [(); 3].map(|()| AtomicU64::new(0));
        let service = Mutex::new(Service::default());
        let word = LeaseWord::new();
        Arc::new(Scene {
            word,
            is_inside,
            used,
            is_hungry,
            reserved,
            claimed,
            service,
            keeps,
            opens_itself,
        })
    }

    /// Under the service's lock.
    fn grant(&self, service: &mut Service) {
        let opening = self.next(service);
        self.word.open(opening);
    }

    fn next(&self, service: &mut Service) -> Opening {
        assert_eq!(service.held, None, "the leader grants what it has back");
        service.granted += 1;
        service.held = Some(service.granted);
        service.is_due = false;
        let first = service.granted * 10;
        Opening {
            lease: LeaseKey { high: EPOCH.into(), low: service.granted },
            first: number(first),
            last: number(first + BLOCK - 1),
            predecessor: Predecessor::Clean,
            at_most: None,
            keeps: self.keeps,
            is_shared: false,
        }
    }

    fn come_in(&self, entered: Entered) {
        assert!(!self.is_inside.swap(true, Relaxed), "two are inside");
        let count = entered.token.get() & COUNT;
        assert!(self.used.swap(count, Relaxed) < count, "tokens grow");
    }

    /// The guard with this token leaves.
    fn leave(&self, count: u64) {
        self.is_inside.store(false, Relaxed);
        match self.word.leave(number(count), Predecessor::Clean) {
            Left::GivesBack(used) => {
                self.give_back(&used);
                self.word.wake();
            }
            Left::Wakes => {
                if self.is_hungry.load(Relaxed) {
                    self.reserved.store(count + 1, Relaxed);
                }
                self.word.wake();
            }
            Left::Kept => {}
            Left::Stale => panic!("it was in"),
        }
    }

    fn give_back(&self, used: &Used) {
        self.take_back(&mut self.service.lock(), used);
    }

    fn take_back(&self, service: &mut Service, used: &Used) {
        if service.over == Some(used.lease.low) {
            service.over = None;
            return;
        }
        assert_eq!(service.held, Some(used.lease.low), "given back twice, or another's");
        let count = used.last.get() & COUNT;
        let first = used.lease.low * 10;
        assert!((first - 1..first + BLOCK).contains(&count), "{count} is none of its tokens");
        service.held = None;
    }

    /// A thread that comes by, once.
    fn come_by(&self) {
        match self.word.enter() {
            Entering::Entered(entered) => {
                self.come_in(entered);
                let (reserved, claimed) = (self.reserved.load(Relaxed), self.claimed.load(Relaxed));
                assert!(claimed >= reserved, "it was the representative's");
                self.leave(entered.token.get() & COUNT);
            }
            Entering::UsedUp(used) => self.give_back(&used),
            Entering::Refused => {}
        }
    }

    /// The representative comes to hold the lock, whatever becomes of it meanwhile.
    fn represent(&self, is_hungry: bool) {
        self.is_hungry.store(is_hungry, Relaxed);
        loop {
            match self.word.claim() {
                Claim::Entered(entered) => {
                    self.come_in(entered);
                    self.claimed.store(entered.token.get() & COUNT, Relaxed);
                    return self.leave(entered.token.get() & COUNT);
                }
                Claim::UsedUp(used) => self.give_back(&used),
                Claim::Closed(_) => self.ask(),
                Claim::Held => self.word.sleep(is_hungry, Time::NEVER),
            }
        }
    }

    /// The grant comes once the lease before is back.
    fn ask(&self) {
        let mut service = self.service.lock();
        if service.held.is_some() {
            drop(service);
            return thread::yield_now();
        }
        if self.opens_itself {
            let opening = self.next(&mut service);
            drop(service);
            return self.word.open(opening);
        }
        self.grant(&mut service);
    }

    /// The representative looks once, waits if that is what there is to do, and goes.
    fn give_up(&self) {
        if let Claim::Entered(entered) = self.word.claim() {
            self.come_in(entered);
            return self.leave(entered.token.get() & COUNT);
        }
        self.word.register(true, std::task::Waker::noop());
        if let Some(used) = self.word.give_up() {
            self.give_back(&used);
        }
    }

    fn meet(&self, lost: Option<LostReason>) {
        let mut service = self.service.lock();
        if service.held.is_none() {
            return;
        }
        let met = match lost {
            None => self.word.recall(),
            Some(why) => self.word.lose(why),
        };
        match met {
            Met::Idle(used) => {
                self.take_back(&mut service, &used);
                let waiter = self.word.take_waiter();
                drop(service);
                waiter.into_iter().for_each(WordWaiter::wake);
            }
            // The leader waits no longer.
            Met::InUse { .. } | Met::Closed if lost.is_some() => service.over = service.held.take(),
            // Closed: by a guard that has yet to give it back.
            Met::InUse { .. } | Met::Reserved | Met::Closed => service.is_due = true,
        }
    }

    /// All are gone: what had to come back did, and what is left is idle.
    fn end(&self) {
        let mut service = self.service.lock();
        assert!(!self.is_inside.load(Relaxed));
        assert_eq!(service.over, None, "its guard gives it back");
        if service.is_due {
            assert_eq!(service.held, None, "it was overlooked");
        }
        assert_eq!(service.held.is_some(), self.word.idle().is_some());
        if let Some(used) = self.word.close_idle() {
            assert_eq!(used.last.get() & COUNT, self.used.load(Relaxed));
            self.take_back(&mut service, &used);
        }
        assert_eq!(self.word.word.load(Acquire), 0);
    }
}

fn number(count: u64) -> Token {
    Token::new(Token::first_of(EPOCH).get() + count).unwrap()
}

/// The first guard leaves, `here` goes on, and the others do what they do meanwhile.
fn play(flaw: Option<Flaw>, keeps: bool, here: Act, others: &'static [Act]) {
    plant(flaw);
    let preemptions = if others.len() > 1 { 3 } else { 5 };
    let here = move |scene: &Scene| {
        scene.leave(10);
        here(scene);
    };
    played::play(preemptions, move || Scene::new(keeps), here, others, Scene::end);
    plant(None);
}

type Act = fn(&Scene);

fn nothing(_: &Scene) {}

fn come_by(scene: &Scene) {
    scene.come_by();
}

fn come_by_twice(scene: &Scene) {
    scene.come_by();
    scene.come_by();
}

fn wait(scene: &Scene) {
    scene.represent(false);
}

fn wait_hungry(scene: &Scene) {
    scene.represent(true);
}

fn wait_twice(scene: &Scene) {
    scene.represent(false);
    scene.represent(true);
}

fn give_up(scene: &Scene) {
    scene.give_up();
}

fn recall(scene: &Scene) {
    scene.meet(None);
}

fn lose(scene: &Scene) {
    scene.meet(Some(LostReason::Broken));
}

fn recall_and_lose(scene: &Scene) {
    scene.meet(None);
    scene.meet(Some(LostReason::Expired));
}

fn close_unused(scene: &Scene) {
    let mut service = scene.service.lock();
    if let Some(seen) = scene.word.idle()
        && let Some(used) = scene.word.close_unused(seen)
    {
        scene.take_back(&mut service, &used);
    }
}

/// Its guard is gone; what is left of it leaves once more.
fn leave_stale(scene: &Scene) {
    if let Left::GivesBack(used) = scene.word.leave(number(9), Predecessor::Clean) {
        scene.give_back(&used);
    }
}

#[test]
fn a_recall_or_a_loss_at_any_moment_ends_a_lease_once() {
    for other in [&[recall as Act] as &'static [Act], &[lose], &[recall_and_lose], &[close_unused]]
    {
        play(None, true, come_by_twice, other);
    }
}

#[test]
fn threads_that_enter_an_open_word_exclude_each_other() {
    play(None, true, come_by, &[come_by, come_by]);
    play(None, true, come_by_twice, &[come_by_twice]);
    play(None, true, come_by, &[come_by, recall]);
}

#[test]
fn a_representative_that_waits_is_served() {
    for keeps in [true, false] {
        play(None, keeps, nothing, &[wait]);
        play(None, keeps, nothing, &[wait_hungry]);
        play(None, keeps, come_by, &[wait_hungry]);
        play(None, keeps, come_by, &[wait]);
        play(None, keeps, nothing, &[wait_twice]);
    }
}

#[test]
fn a_representative_is_served_through_recalls_and_losses() {
    for keeps in [true, false] {
        for end in [[wait as Act, recall], [wait, lose], [wait_hungry, recall], [wait_hungry, lose]]
        {
            let others: &'static [Act] = Box::leak(Box::new(end));
            play(None, keeps, nothing, others);
        }
    }
}

#[test]
fn a_guard_that_is_not_in_changes_nothing() {
    play(None, true, come_by, &[leave_stale, recall]);
}

#[test]
fn a_representative_that_gives_up_leaves_nothing_behind() {
    play(None, true, nothing, &[give_up]);
    play(None, true, come_by, &[give_up, recall]);
    play(None, true, come_by, &[give_up, lose]);
    play(None, false, nothing, &[give_up, recall]);
}

/// Granted and not yet claimed, while the service hears the next about it.
#[test]
fn a_recall_or_a_loss_between_grant_and_claim_is_met() {
    for driver in [recall as Act, lose, recall_and_lose] {
        plant(None);
        loom::model(move || claim_anew(driver, false));
    }
}

fn claim_anew(driver: Act, opens_itself: bool) {
    let scene = Scene::closed(true, opens_itself);
    let theirs = scene.clone();
    let other = thread::spawn(move || driver(&theirs));
    scene.represent(false);
    other.join().unwrap();
    scene.end();
}

/// A watch that the guard asks for while the lease is being lost is told, by one of them.
#[test]
fn a_watch_made_while_it_is_lost_is_told() {
    plant(None);
    loom::model(|| {
        let scene = Scene::new(true);
        let theirs = scene.clone();
        let driver = thread::spawn(move || match theirs.word.lose(LostReason::Broken) {
            Met::InUse { is_watched: true, .. } => {
                let watch = theirs.word.watched().pop().expect("it was asked for");
                let _ = watch.mark(LostReason::Broken);
            }
            Met::InUse { is_watched: false, .. } => {}
            met => panic!("a guard is in, and not {met:?}"),
        });
        let watch = scene.word.watch();
        driver.join().unwrap();
        assert!(watch.told().is_some());
    });
}

// Each of these mistakes is found.

#[test]
#[should_panic(expected = "it was overlooked")]
fn found_opened_by_the_representative() {
    loom::model(|| claim_anew(recall, true));
}

#[test]
#[should_panic(expected = "is none of its tokens")]
fn found_a_lease_read_after_the_exchange_that_closes() {
    play_flawed(Flaw::LeaseReadAfterClosing, true, nothing, &[wait, lose]);
}

#[test]
#[should_panic(expected = "it was the representative's")]
fn found_a_reservation_claimed_by_others() {
    play_flawed(Flaw::EnteredUnreserved, true, come_by, &[wait_hungry]);
}

#[test]
#[should_panic(expected = "it was in")]
fn found_a_guard_that_leaves_without_its_own_count() {
    play_flawed(Flaw::LeftWithoutOwnCount, true, nothing, &[leave_stale, come_by]);
}

#[test]
fn found_a_representative_that_sleeps_unmarked() {
    ends_in_a_deadlock("a_representative_that_sleeps_unmarked");
}

#[test]
#[ignore = "a mistake, which the test above finds"]
fn a_representative_that_sleeps_unmarked() {
    play(Some(Flaw::SleptUnmarked), true, nothing, &[wait]);
}

/// The guard that leaves between the two finds none to wake.
#[test]
fn found_a_waker_that_is_put_up_after_the_mark() {
    ends_in_a_deadlock("a_waker_that_is_put_up_after_the_mark");
}

#[test]
#[ignore = "a mistake, which the test above finds"]
fn a_waker_that_is_put_up_after_the_mark() {
    play(Some(Flaw::SeatedAfterMark), true, nothing, &[wait]);
}

/// loom ends the process that finds a deadlock in the middle of it: so it is another.
fn ends_in_a_deadlock(test: &str) {
    let (_, here) = module_path!().split_once("::").expect("a module of a crate");
    let played = format!("{here}::{test}");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &played, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("deadlock"), "{output:?}");
}

fn play_flawed(flaw: Flaw, keeps: bool, here: Act, others: &'static [Act]) {
    let found = std::panic::catch_unwind(|| play(Some(flaw), keeps, here, others));
    plant(None);
    if let Err(panic) = found {
        std::panic::resume_unwind(panic);
    }
}
