//! The lock under loom, which plays every interleaving and every value a load may see:
//! `RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --lib thread::model`
//!
//! Each scene is played with waiters that have all patience, with waiters that have none, so that
//! both kinds of release are seen, and with hand-overs that lapse at once. An overlooked waiter
//! shows as a deadlock.

use std::pin::pin;

use loom::{
    future::block_on,
    sync::{Arc, atomic::AtomicU64},
    thread,
};

use super::{
    sync::{Clock, start},
    *,
};
use crate::{
    mode::{Room, Share},
    scope::Scope,
};

struct ThreadScene {
    lock: ThreadLock,
    /// Read and written without an order of its own: a holder that does not see what
    /// the last holder did counts wrong.
    count: AtomicU64,
}

impl ThreadScene {
    fn play(scene: impl Fn(Arc<ThreadScene>) + Send + Sync + Copy + 'static) {
        let clocks = [Clock::Still, Clock::Hurry, Clock::Restless];
        for clock in clocks {
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(3);
            model.check(move || {
                start(clock);
                let (lock, count) = (ThreadLock::new(), AtomicU64::new(0));
                scene(Arc::new(ThreadScene { lock, count }));
            });
        }
    }

    /// What a holder does.
    fn hold_and_release(&self) {
        let before = self.count.load(Relaxed);
        self.count.store(before + 1, Relaxed);
        self.lock.release(Predecessor::Clean);
    }

    fn thread(scene: &Arc<ThreadScene>) -> thread::JoinHandle<()> {
        let scene = scene.clone();
        thread::spawn(move || {
            scene.lock.take();
            scene.hold_and_release();
        })
    }

    fn task(scene: &Arc<ThreadScene>) -> thread::JoinHandle<()> {
        let scene = scene.clone();
        thread::spawn(move || {
            block_on(scene.lock.take_async());
            scene.hold_and_release();
        })
    }

    /// A thread that may give up, and whether it did.
    fn hurried_thread(scene: &Arc<ThreadScene>) -> thread::JoinHandle<bool> {
        let scene = scene.clone();
        thread::spawn(move || {
            let taken = scene.lock.take_until(Time::ZERO + LONGEST_NAP / 2);
            if taken.is_some() {
                scene.hold_and_release();
            }
            taken.is_none()
        })
    }

    /// A task that is dropped when it is not ready at the second poll, and whether it was.
    fn dropped_task(scene: &Arc<ThreadScene>) -> thread::JoinHandle<bool> {
        let scene = scene.clone();
        thread::spawn(move || {
            let waker = Waker::noop();
            let mut cx = Context::from_waker(waker);
            {
                let mut taking = pin!(scene.lock.take_async());
                if taking.as_mut().poll(&mut cx).is_pending() {
                    thread::yield_now();
                    if taking.as_mut().poll(&mut cx).is_pending() {
                        return true;
                    }
                }
            }
            scene.hold_and_release();
            false
        })
    }

    fn end(&self, holds: u64) {
        assert!(self.lock.try_take().is_some());
        assert_eq!(self.count.load(Relaxed), holds);
        assert_eq!(self.lock.token.load(Relaxed), holds + 1);
        assert_eq!(self.lock.word.load(Relaxed), LOCKED);
        if let Some(queue) = self.lock.queue.so_far() {
            assert_eq!(queue.lock().census(), (0, 0, false));
        }
    }
}

#[test]
fn three_threads() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::thread(&scene), ThreadScene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        two.join().unwrap();
        scene.end(3);
    });
}

#[test]
fn a_thread_and_two_tasks() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::task(&scene), ThreadScene::task(&scene));
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        two.join().unwrap();
        scene.end(3);
    });
}

#[test]
fn a_task_and_two_threads() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::task(&scene), ThreadScene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        two.join().unwrap();
        scene.end(3);
    });
}

#[test]
fn a_thread_gives_up_while_another_waits() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::hurried_thread(&scene), ThreadScene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let gave_up = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(gave_up));
    });
}

#[test]
fn a_thread_gives_up_while_a_task_waits() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::hurried_thread(&scene), ThreadScene::task(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let gave_up = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(gave_up));
    });
}

#[test]
fn a_task_is_dropped_while_a_thread_waits() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::dropped_task(&scene), ThreadScene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let dropped = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(dropped));
    });
}

#[test]
fn a_task_is_dropped_while_a_task_waits() {
    ThreadScene::play(|scene| {
        let (one, two) = (ThreadScene::dropped_task(&scene), ThreadScene::task(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let dropped = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(dropped));
    });
}

#[test]
fn a_thread_that_takes_again_at_once_beside_another() {
    ThreadScene::play(|scene| {
        let one = ThreadScene::thread(&scene);
        scene.lock.take();
        scene.hold_and_release();
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        scene.end(3);
    });
}

/// The release finds CALLED set where the one before left the lock to the waiter that it woke: the first in
/// line comes next all the same.
#[test]
fn a_newcomer_releases_fairly_beside_a_waiter_that_was_called() {
    for wait in [ThreadScene::thread, ThreadScene::task] {
        ThreadScene::play(move |scene| {
            let one = wait(&scene);
            scene.lock.take();
            scene.hold_and_release();
            scene.lock.take();
            let before = scene.count.load(Relaxed);
            scene.count.store(before + 1, Relaxed);
            scene.lock.release_fairly(Predecessor::Clean);
            one.join().unwrap();
            scene.end(3);
        });
    }
}

// ---- widening ----------------------------------------------------------------------------------

/// A name with a gate that moves from the thread lock to a word that stands for a directory's slot.
struct Widening {
    lock: ThreadLock,
    in_force: InForce,
    /// 1: held.
    slot: AtomicU64,
    /// As in [`ThreadScene`].
    count: AtomicU64,
    mistake: Option<ThreadMistake>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ThreadMistake {
    /// A winner of the thread lock does not look again at the scope in force.
    NoSecondLook,
    /// The scope is raised when the thread lock is released.
    RaisedOutside,
}

impl Widening {
    fn play(mistake: Option<ThreadMistake>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            start(Clock::Still);
            let scene = Arc::new(Widening {
                lock: ThreadLock::new(),
                in_force: InForce::new(Scope::Thread),
                slot: AtomicU64::new(0),
                count: AtomicU64::new(0),
                mistake,
            });
            let others = [Widening::lock, Widening::lock].map(|lock| {
                let scene = scene.clone();
                thread::spawn(move || lock(&scene))
            });
            scene.widen();
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(scene.count.load(Relaxed), 3);
            assert_eq!(scene.in_force.get(), Scope::Process);
        });
    }

    /// As a mutex of thread scope locks.
    fn lock(&self) {
        if self.in_force.get() > Scope::Thread && self.try_slot() {
            return self.hold_at_slot();
        }
        self.lock.take();
        let is_gate = self.mistake == Some(ThreadMistake::NoSecondLook)
            || self.in_force.get() == Scope::Thread;
        if is_gate {
            self.hold();
            self.lock.release(Predecessor::Clean);
        } else {
            self.climb();
            self.lock.release(Predecessor::Clean);
            self.hold_at_slot();
        }
    }

    /// As the first mutex of process scope locks.
    fn widen(&self) {
        self.lock.take();
        self.climb();
        if self.mistake == Some(ThreadMistake::RaisedOutside) {
            self.lock.release(Predecessor::Clean);
            self.in_force.raise(Scope::Process);
        } else {
            self.in_force.raise(Scope::Process);
            self.lock.release(Predecessor::Clean);
        }
        self.hold_at_slot();
    }

    fn try_slot(&self) -> bool {
        self.slot.compare_exchange(0, 1, SeqCst, Relaxed).is_ok()
    }

    fn climb(&self) {
        while !self.try_slot() {
            thread::yield_now();
        }
    }

    fn hold(&self) {
        let before = self.count.load(Relaxed);
        self.count.store(before + 1, Relaxed);
    }

    fn hold_at_slot(&self) {
        self.hold();
        self.slot.store(0, Release);
    }
}

#[test]
fn a_name_is_widened_while_two_threads_lock_it() {
    Widening::play(None);
}

#[test]
#[should_panic(expected = "left == right")]
fn found_a_thread_that_does_not_look_again() {
    Widening::play(Some(ThreadMistake::NoSecondLook));
}

#[test]
#[should_panic(expected = "left == right")]
fn found_a_scope_that_is_raised_outside_the_thread_lock() {
    Widening::play(Some(ThreadMistake::RaisedOutside));
}

/// Permits, and what waits for them. Readers are not played: they rest on the one order of SeqCst,
/// which loom takes for less.
struct Seats {
    lock: ThreadLock,
    shares: ThreadShares,
    /// Changed without an order of its own, where there is one permit.
    count: AtomicU64,
}

impl Seats {
    fn play(scene: impl Fn(Arc<Seats>) + Send + Sync + Copy + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            start(Clock::Still);
            let (lock, shares) = (ThreadLock::new(), ThreadShares::new());
            scene(Arc::new(Seats { lock, shares, count: AtomicU64::new(0) }));
        });
    }

    fn acquire(&self, count: u32, limit: u32) {
        assert!(self.lock.wait(Time::NEVER, || false));
        assert!(self.shares.drain(Room::Beside(limit - count), Time::NEVER));
        self.shares.count_permits(count);
        assert!(self.shares.counted() <= limit, "over the limit");
        self.lock.step_out();
    }

    fn release(&self, count: u32) {
        self.shares.leave(Share::Permits(count));
    }

    fn end(&self) {
        assert_eq!(self.shares.counted(), 0);
        assert_eq!(self.lock.word.load(Relaxed), 0);
    }
}

#[test]
fn one_permit_for_two_threads() {
    Seats::play(|seats| {
        let work = |seats: &Seats| {
            seats.acquire(1, 1);
            let before = seats.count.load(Relaxed);
            seats.count.store(before + 1, Relaxed);
            seats.release(1);
        };
        let other = seats.clone();
        let other = thread::spawn(move || work(&other));
        work(&seats);
        other.join().unwrap();
        assert_eq!(seats.count.load(Relaxed), 2);
        seats.end();
    });
}

#[test]
fn all_permits_after_one_of_two_came_back() {
    Seats::play(|seats| {
        seats.acquire(1, 2);
        let other = seats.clone();
        let other = thread::spawn(move || {
            other.acquire(2, 2);
            other.release(1);
            other.release(1);
        });
        seats.release(1);
        other.join().unwrap();
        seats.end();
    });
}
