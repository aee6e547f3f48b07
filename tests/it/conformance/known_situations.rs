//! The situations of parking_lot's and tokio's own tests of their read-write locks that ours can be in,
//! written anew. Those of semaphores stand with the permits.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::*},
        mpsc,
    },
    thread,
    time::Duration,
};

use tierlock::{
    Predecessor, RwLock, RwLockReadGuard as Read, RwLockUpgradableReadGuard as Upgradable,
    RwLockWriteGuard as Write,
};

use crate::setting::{BlockedThread, Hand, LONG, until};

const SHORT: Duration = Duration::from_millis(10);

/// Runs to a panic that the test means.
fn panics(act: impl FnOnce()) {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        act();
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(ended.is_err());
}

mod parking_lot {
    use super::*;

    #[test]
    fn readers_writers_and_upgradable_readers_mix_at_random() {
        const THREADS: u64 = 6;
        const ROUNDS: u64 = 400;
        let lock = Arc::new(RwLock::new(0_u64));
        let writes = AtomicUsize::new(0);
        thread::scope(|scope| {
            for seed in 1..=THREADS {
                let (lock, writes) = (&lock, &writes);
                scope.spawn(move || {
                    let mut random = seed;
                    for _ in 0..ROUNDS {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        match (random >> 33) % 4 {
                            0 => *lock.write().unwrap() += 1,
                            1 => {
                                let seen = lock.upgradable_read().unwrap();
                                let before = *seen;
                                let mut writing = Upgradable::upgrade(seen).unwrap();
                                assert_eq!(*writing, before, "a writer came in between");
                                *writing += 1;
                                let reading = Write::downgrade(writing).unwrap();
                                assert_eq!(*reading, before + 1, "a writer came in between");
                            }
                            _ => {
                                let _ = *lock.read().unwrap();
                                continue;
                            }
                        }
                        writes.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(*lock.read().unwrap(), writes.load(SeqCst) as u64);
    }

    /// No panic shuts a lock: it is told, by writers alone.
    #[test]
    fn a_panic_of_each_kind_of_guard_leaves_the_lock_usable() {
        let lock = RwLock::new(1);
        panics(|| drop(lock.read().unwrap()));
        let told = |lock: &RwLock<i32>| Read::predecessor(&lock.read().unwrap());
        for (act, expected) in
            [(0, Predecessor::Clean), (1, Predecessor::Clean), (2, Predecessor::Panicked)]
        {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let held = match act {
                    0 => (Some(lock.read().unwrap()), None, None),
                    1 => (None, Some(lock.upgradable_read().unwrap()), None),
                    _ => (None, None, Some(lock.write().unwrap())),
                };
                let _held = held;
                resume_unwind(Box::new("on purpose"));
            }));
            assert!(panicked.is_err());
            assert_eq!(told(&lock), expected);
            assert_eq!(*lock.try_upgradable_read().unwrap(), 1);
        }
        drop(lock.write().unwrap());
        assert_eq!(told(&lock), Predecessor::Clean);
    }

    #[test]
    fn a_lock_is_used_while_its_thread_unwinds() {
        struct Unwinding(Arc<RwLock<i32>>);

        impl Drop for Unwinding {
            fn drop(&mut self) {
                *self.0.write().unwrap() += 1;
            }
        }

        let lock = Arc::new(RwLock::new(1));
        let inner = lock.clone();
        panics(move || {
            let _unwinding = Unwinding(inner);
            resume_unwind(Box::new("on purpose"));
        });
        assert_eq!(*lock.read().unwrap(), 2);
    }

    #[test]
    fn a_lock_of_a_slice_is_read_and_written() {
        let lock: &RwLock<[i32]> = &RwLock::new([1, 2, 3]);
        {
            let slice = &mut *lock.write().unwrap();
            (slice[0], slice[2]) = (4, 5);
        }
        assert_eq!(&*lock.read().unwrap(), &[4, 2, 5]);
    }

    #[test]
    fn what_a_try_gets_beside_each_kind_of_guard() {
        let lock = RwLock::new(0);
        let allowed = |lock: &RwLock<i32>| {
            [
                lock.try_read().map(drop).is_ok(),
                lock.try_upgradable_read().map(drop).is_ok(),
                lock.try_write().map(drop).is_ok(),
            ]
        };
        assert_eq!(allowed(&lock), [true, true, true]);
        let reading = lock.read().unwrap();
        assert_eq!(allowed(&lock), [true, true, false]);
        drop(reading);
        let seen = lock.upgradable_read().unwrap();
        assert_eq!(allowed(&lock), [true, false, false]);
        let reading = lock.read().unwrap();
        let seen = Upgradable::try_upgrade(seen).unwrap_err();
        let seen = Upgradable::try_upgrade_for(seen, SHORT).unwrap_err();
        drop(reading);
        let writing = Upgradable::try_upgrade(seen).unwrap();
        assert_eq!(allowed(&lock), [false, false, false]);
        let seen = Write::downgrade_to_upgradable(writing).unwrap();
        assert_eq!(allowed(&lock), [true, false, false]);
        drop(Upgradable::downgrade(seen).unwrap());
        assert_eq!(allowed(&lock), [true, true, true]);
    }

    #[test]
    fn the_data_comes_out_once_and_is_dropped_once() {
        struct Counted(Arc<AtomicUsize>);

        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }

        let drops = Arc::new(AtomicUsize::new(0));
        let mut lock = RwLock::new(Counted(drops.clone()));
        assert_eq!(lock.get_mut().0.load(SeqCst), 0);
        let inner = lock.into_inner();
        assert_eq!(drops.load(SeqCst), 0);
        drop(inner);
        assert_eq!(drops.load(SeqCst), 1);
        drop(RwLock::new(Counted(drops.clone())));
        assert_eq!(drops.load(SeqCst), 2);
        let lock = RwLock::new(Cell::new(4)); // no `Sync`, and no other thread
        lock.write().unwrap().set(5);
        assert_eq!(lock.into_inner().get(), 5);
    }

    /// parking_lot#203: a guard that stands in a thread's own storage is dropped with its thread.
    #[test]
    fn a_reader_in_a_threads_own_storage_leaves_with_the_thread() {
        static LOCK: RwLock<()> = RwLock::new(());
        thread_local! {
            static HELD: RefCell<Option<Read<'static, ()>>> = const { RefCell::new(None) };
        }
        let reader = thread::spawn(|| HELD.set(Some(LOCK.read().unwrap())));
        reader.join().unwrap();
        drop(LOCK.try_write_for(LONG).unwrap());
    }

    #[test]
    fn a_writer_waits_out_readers_that_come_one_after_the_other() {
        let (lock, waiting) = (RwLock::new(0), BlockedThread::default());
        thread::scope(|scope| {
            let reading = lock.read().unwrap();
            let writer = scope.spawn(|| {
                waiting.is_this();
                *lock.write().unwrap() += 1;
            });
            waiting.until_blocked();
            until("no reader passes it", || lock.try_read().is_err());
            assert!(lock.try_read_for(SHORT).unwrap_err().is_timeout());
            drop(reading);
            writer.join().unwrap();
        });
        assert_eq!(*lock.read().unwrap(), 1);
    }
}

mod tokio {
    use super::*;

    #[test]
    fn readers_are_ready_at_the_first_poll_and_a_writer_after_them() {
        let lock = RwLock::new(100);
        let mut first = Hand::new(lock.read_async());
        assert!(first.poll().is_ready());
        let (one, two) = (lock.read().unwrap(), Hand::new(lock.read_async()).finish().unwrap());
        let mut writer = Hand::new(lock.write_async());
        assert!(writer.poll().is_pending());
        // A reader that comes behind a writer that waits comes after it.
        let mut late = Hand::new(lock.read_async());
        assert!(late.poll().is_pending());
        drop(one);
        assert!(writer.poll().is_pending());
        drop(two);
        let guard = writer.finish().unwrap();
        assert!(late.poll().is_pending());
        drop(guard);
        drop(late.finish().unwrap());
    }

    #[test]
    fn a_writer_that_is_dropped_while_it_waits_lets_readers_in() {
        let lock = RwLock::new(100);
        let reading = lock.read().unwrap();
        let mut writer = Hand::new(lock.write_async());
        assert!(writer.poll().is_pending());
        let mut reader = Hand::new(lock.read_async());
        assert!(reader.poll().is_pending());
        drop(writer);
        drop((reader.finish().unwrap(), reading));
        drop(lock.try_write().unwrap());
    }

    #[test]
    fn writers_come_in_in_order() {
        let lock = RwLock::new(Vec::new());
        let mut held = lock.write().unwrap();
        let mut first = Hand::new(lock.write_async());
        let mut second = Hand::new(lock.write_async());
        assert!(first.poll().is_pending() && second.poll().is_pending());
        held.push(1);
        Write::unlock_fair(held).unwrap();
        assert!(second.poll().is_pending());
        first.finish().unwrap().push(2);
        second.finish().unwrap().push(3);
        assert_eq!(*lock.read().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn owned_guards_of_tasks_count_together() {
        let lock = Arc::new(RwLock::new(0));
        let (tell, told) = mpsc::channel();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let (lock, tell) = (lock.clone(), tell.clone());
                thread::spawn(move || {
                    for _ in 0..50 {
                        match task % 2 {
                            0 => *Hand::new(lock.clone().write_owned()).finish().unwrap() += 2,
                            _ => drop(Hand::new(lock.clone().read_owned()).finish().unwrap()),
                        }
                    }
                    tell.send(task).unwrap();
                })
            })
            .collect();
        drop(tell);
        assert_eq!(told.iter().count(), 8);
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(*lock.read().unwrap(), 400);
    }

    #[test]
    fn parts_of_the_data_are_guarded_and_come_back() {
        let lock = RwLock::new((7, "seven"));
        let part = Read::map(lock.read().unwrap(), |pair| &pair.1);
        assert_eq!(*part, "seven");
        drop(Read::try_map(part, |text| text.get(9..)).map(drop).unwrap_err());
        let mut part = Write::map(lock.write().unwrap(), |pair| &mut pair.0);
        *part = 8;
        drop(Write::downgrade(part).unwrap());
        assert_eq!(lock.into_inner(), (8, "seven"));
    }
}
