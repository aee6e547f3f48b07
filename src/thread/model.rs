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

struct Scene {
    lock: ThreadLock,
    /// Read and written without an order of its own: a holder that does not see what
    /// the last holder did counts wrong.
    count: AtomicU64,
}

impl Scene {
    fn play(scene: impl Fn(Arc<Scene>) + Send + Sync + Copy + 'static) {
        let clocks = [Clock::Still, Clock::Hurry, Clock::Restless];
        for clock in clocks {
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(3);
            model.check(move || {
                start(clock);
                let (lock, count) = (ThreadLock::new(), AtomicU64::new(0));
                scene(Arc::new(Scene { lock, count }));
            });
        }
    }

    /// What a holder does.
    fn hold_and_release(&self) {
        let before = self.count.load(Relaxed);
        self.count.store(before + 1, Relaxed);
        self.lock.release(Predecessor::Clean);
    }

    fn thread(scene: &Arc<Scene>) -> thread::JoinHandle<()> {
        let scene = scene.clone();
        thread::spawn(move || {
            scene.lock.take();
            scene.hold_and_release();
        })
    }

    fn task(scene: &Arc<Scene>) -> thread::JoinHandle<()> {
        let scene = scene.clone();
        thread::spawn(move || {
            block_on(scene.lock.take_async());
            scene.hold_and_release();
        })
    }

    /// A thread that may give up, and whether it did.
    fn hurried_thread(scene: &Arc<Scene>) -> thread::JoinHandle<bool> {
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
    fn dropped_task(scene: &Arc<Scene>) -> thread::JoinHandle<bool> {
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
    Scene::play(|scene| {
        let (one, two) = (Scene::thread(&scene), Scene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        two.join().unwrap();
        scene.end(3);
    });
}

#[test]
fn a_thread_and_two_tasks() {
    Scene::play(|scene| {
        let (one, two) = (Scene::task(&scene), Scene::task(&scene));
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        two.join().unwrap();
        scene.end(3);
    });
}

#[test]
fn a_task_and_two_threads() {
    Scene::play(|scene| {
        let (one, two) = (Scene::task(&scene), Scene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        two.join().unwrap();
        scene.end(3);
    });
}

#[test]
fn a_thread_gives_up_while_another_waits() {
    Scene::play(|scene| {
        let (one, two) = (Scene::hurried_thread(&scene), Scene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let gave_up = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(gave_up));
    });
}

#[test]
fn a_thread_gives_up_while_a_task_waits() {
    Scene::play(|scene| {
        let (one, two) = (Scene::hurried_thread(&scene), Scene::task(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let gave_up = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(gave_up));
    });
}

#[test]
fn a_task_is_dropped_while_a_thread_waits() {
    Scene::play(|scene| {
        let (one, two) = (Scene::dropped_task(&scene), Scene::thread(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let dropped = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(dropped));
    });
}

#[test]
fn a_task_is_dropped_while_a_task_waits() {
    Scene::play(|scene| {
        let (one, two) = (Scene::dropped_task(&scene), Scene::task(&scene));
        scene.lock.take();
        scene.hold_and_release();
        let dropped = one.join().unwrap();
        two.join().unwrap();
        scene.end(3 - u64::from(dropped));
    });
}

#[test]
fn a_thread_that_takes_again_at_once_beside_another() {
    Scene::play(|scene| {
        let one = Scene::thread(&scene);
        scene.lock.take();
        scene.hold_and_release();
        scene.lock.take();
        scene.hold_and_release();
        one.join().unwrap();
        scene.end(3);
    });
}
