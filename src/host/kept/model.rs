//! The word under loom, which plays every interleaving:
//! `RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --features testing --lib model`
//!
//! Whoever has won the tiers below enters and leaves; the driver recalls or loses the lease at any
//! time. However they meet, exactly one of them gives the lease back, nobody enters afterwards, and
//! what is given back names the last token that was used. Holders leave by an exchange, or by a
//! store behind that of the tier below.

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    thread,
};

use super::*;

const LEASE: LeaseId = LeaseId { epoch: 1, count: 1 };

struct Scene {
    kept: Kept,
    /// How often it was given back, and the last token that was named then.
    given_back: AtomicU64,
    last: AtomicU64,
    /// The last token that a holder had.
    used: AtomicU64,
    /// A recall or a loss met a guard, which is to give it back.
    has_met_guard: AtomicBool,
    /// The tier below, if holders leave behind that: whether it is held.
    below: Option<AtomicBool>,
    /// The last holder makes way: it closes what it has just left.
    makes_way: bool,
}

impl Scene {
    fn new(is_behind: bool, makes_way: bool) -> Arc<Scene> {
        let kept = Kept::new();
        kept.open(LEASE, number(1), number(9));
        let [given_back, last, used] = [0, 0, 1].map(AtomicU64::new);
        let below = is_behind.then(|| AtomicBool::new(true));
        let has_met_guard = AtomicBool::new(false);
        Arc::new(Scene { kept, given_back, last, used, has_met_guard, below, makes_way })
    }

    fn give_back(&self, used: &Used) {
        assert_eq!(self.given_back.fetch_add(1, AcqRel), 0, "given back twice");
        self.last.store(used.last.get() & COUNT, Release);
    }

    /// The first holder leaves, and locks again as often as it can, `times` at most.
    fn hold(&self, times: u32) {
        let mut left = times;
        loop {
            if let Some(used) = self.leave() {
                return self.give_back(&used);
            }
            if left == 0 {
                let used = if self.makes_way { self.kept.take_idle() } else { None };
                return used.iter().for_each(|used| self.give_back(used));
            }
            left -= 1;
            let Some(entered) = self.enter() else { return };
            assert_eq!(self.given_back.load(Acquire), 0, "entered after it was given back");
            self.used.store(entered.token.get() & COUNT, Release);
        }
    }

    fn enter(&self) -> Option<Entered> {
        let Some(below) = &self.below else { return self.kept.enter(Token::ZERO) };
        let seen = self.kept.idle()?;
        let (won, entered) = self.kept.enter_behind(seen, || {
            assert!(!below.swap(true, AcqRel), "it was let go of");
            Some(Token::ZERO)
        });
        assert_eq!(won, Some(Token::ZERO));
        entered
    }

    fn leave(&self) -> Option<Used> {
        if let Some(below) = &self.below {
            let token = number(self.used.load(Acquire));
            let let_go = self.kept.leave_behind(token, || below.swap(false, AcqRel));
            if let_go == LetGo::All {
                return None;
            }
            assert_eq!(let_go, LetGo::Some, "nobody is in the way below");
        }
        self.kept.leave(Predecessor::Clean)
    }

    fn meet(&self, met: Met) {
        match met {
            Met::Idle(used) => self.give_back(&used),
            Met::InUse { .. } => self.has_met_guard.store(true, Release),
            Met::Closed => {}
        }
    }

    /// Whoever is left closes it; then it was given back once, with the last token used. The guard
    /// that was met has left by now.
    fn end(&self) {
        if self.has_met_guard.load(Acquire) {
            assert_eq!(self.given_back.load(Acquire), 1, "the guard overlooked it");
        }
        if let Some(used) = self.kept.take_idle() {
            self.give_back(&used);
        }
        assert_eq!(self.given_back.load(Acquire), 1, "it was given back");
        assert_eq!(self.last.load(Acquire), self.used.load(Acquire));
    }
}

fn number(count: u64) -> Token {
    Token::new(Token::first_of(1).get() + count).unwrap()
}

fn play(driver: impl Fn(&Scene) + Copy + Send + Sync + 'static) {
    for (is_behind, makes_way) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = is_behind.then_some(3);
        model.check(move || {
            let scene = Scene::new(is_behind, makes_way);
            let theirs = scene.clone();
            let other = thread::spawn(move || driver(&theirs));
            scene.hold(2);
            other.join().unwrap();
            scene.end();
        });
    }
}

#[test]
fn a_recall_at_any_moment_ends_it_once() {
    play(|scene| scene.meet(scene.kept.recall()));
}

#[test]
fn a_loss_at_any_moment_ends_it_once() {
    play(|scene| scene.meet(scene.kept.lose(LostReason::Broken)));
}

#[test]
fn a_recall_and_a_loss_end_it_once() {
    play(|scene| {
        scene.meet(scene.kept.recall());
        scene.meet(scene.kept.lose(LostReason::Expired));
    });
}

#[test]
fn who_finds_it_idle_and_unused_ends_it_once() {
    play(|scene| {
        if let Some(seen) = scene.kept.idle()
            && let Some(used) = scene.kept.take_unused(seen)
        {
            scene.give_back(&used);
        }
    });
}

/// A watch that the guard asks for while the lease is being lost is told, by one of them.
#[test]
fn a_watch_made_while_it_is_lost_is_told() {
    loom::model(|| {
        let scene = Scene::new(false, false);
        let theirs = scene.clone();
        let driver = thread::spawn(move || match theirs.kept.lose(LostReason::Broken) {
            Met::InUse { is_watched: true } => {
                let watch = theirs.kept.watched().expect("it was asked for");
                let _ = watch.mark(LostReason::Broken);
            }
            Met::InUse { is_watched: false } => {}
            met => panic!("a guard is in, and not {met:?}"),
        });
        let watch = scene.kept.watch(|| Watch::new(None, None));
        driver.join().unwrap();
        assert!(watch.is_told());
    });
}
