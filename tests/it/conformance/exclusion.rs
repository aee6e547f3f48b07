//! One holder at a time.

use std::{fs, sync::Arc, thread, time::Duration};

use tierlock::{MutexGuard, Scope};
use tokio::runtime::{Builder, Runtime};

use crate::setting::{LONG, Setting, Unprotected, at};

at!(everywhere, threads_lose_no_count);
fn threads_lose_no_count(setting: &Setting) {
    const THREADS: u64 = 4;
    let counter = Unprotected::default();
    thread::scope(|scope| {
        for locks in setting.crowd(THREADS as usize) {
            let counter = &counter;
            scope.spawn(move || {
                let mutex = setting.mutex(&locks, "counter", ());
                for _ in 0..setting.rounds() {
                    let _guard = mutex.lock().unwrap();
                    counter.add();
                }
            });
        }
    });
    assert_eq!(counter.get(), THREADS * setting.rounds());
}

at!(everywhere, threads_share_the_value_of_one_mutex);
fn threads_share_the_value_of_one_mutex(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "counter", 0_u64);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..setting.rounds() {
                    *mutex.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(mutex.into_inner(), 3 * setting.rounds());
}

at!(everywhere, tasks_of_a_current_thread_runtime_lose_no_count);
fn tasks_of_a_current_thread_runtime_lose_no_count(setting: &Setting) {
    tasks_lose_no_count(setting, &Builder::new_current_thread().enable_all().build().unwrap());
}

at!(everywhere, tasks_of_a_multi_thread_runtime_lose_no_count);
fn tasks_of_a_multi_thread_runtime_lose_no_count(setting: &Setting) {
    let mut runtime = Builder::new_multi_thread();
    tasks_lose_no_count(setting, &runtime.worker_threads(2).enable_all().build().unwrap());
}

fn tasks_lose_no_count(setting: &Setting, runtime: &Runtime) {
    const TASKS: u64 = 6;
    let counter = Arc::new(Unprotected::default());
    let rounds = setting.rounds() / 4;
    let tasks: Vec<_> = setting
        .crowd(TASKS as usize)
        .into_iter()
        .map(|locks| {
            let mutex = Arc::new(setting.mutex(&locks, "counter", ()));
            let counter = counter.clone();
            runtime.spawn(async move {
                for _ in 0..rounds {
                    let _guard = mutex.lock_arc_async().await.unwrap();
                    counter.add_async().await;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(counter.get(), TASKS * rounds);
}

at!(everywhere, threads_and_tasks_together_lose_no_count);
fn threads_and_tasks_together_lose_no_count(setting: &Setting) {
    let counter = Arc::new(Unprotected::default());
    let rounds = setting.rounds() / 4;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let [blocking, async_] = [setting.locks(), setting.remote()];
    let task = runtime.spawn({
        let (mutex, counter) = (Arc::new(setting.mutex(&async_, "counter", ())), counter.clone());
        async move {
            for _ in 0..rounds {
                let _guard = mutex.lock_arc_async().await.unwrap();
                counter.add_async().await;
            }
        }
    });
    let mutex = setting.mutex(&blocking, "counter", ());
    for _ in 0..rounds {
        let _guard = mutex.lock().unwrap();
        counter.add();
    }
    runtime.block_on(task).unwrap();
    assert_eq!(counter.get(), 2 * rounds);
}

at!(everywhere, waits_that_end_early_lose_no_count);
/// A wait that times out while it is being served must neither keep the lock nor pass as served.
fn waits_that_end_early_lose_no_count(setting: &Setting) {
    let counter = Unprotected::default();
    let served = Unprotected::default();
    thread::scope(|scope| {
        for (number, locks) in setting.crowd(3).into_iter().enumerate() {
            let (counter, served) = (&counter, &served);
            scope.spawn(move || {
                let mutex = setting.mutex(&locks, "counter", ());
                drop(mutex.lock().unwrap()); // a leader is reached once
                for round in 0..setting.rounds() {
                    let wait = Duration::from_micros(round * 37 % 700 * (number as u64 + 1));
                    match mutex.try_lock_for(wait) {
                        Ok(_guard) => {
                            counter.add();
                            served.add();
                        }
                        Err(error) => {
                            assert!(error.is_contended(), "{error}");
                        }
                    }
                }
            });
        }
    });
    assert_eq!(counter.get(), served.get());
    let last = setting.mutex(&setting.remote(), "counter", ());
    drop(last.try_lock_for(LONG).unwrap());
}

at!(across_processes, processes_lose_no_count);
fn processes_lose_no_count(setting: &Setting) {
    const PROCESSES: u64 = 3;
    let rounds = setting.rounds().min(150);
    let mut helpers = [setting.helper(), setting.helper(), setting.far_helper()];
    let folder = crate::setting::temp_dir();
    for helper in &mut helpers {
        let (scope, folder) = (setting.scope, folder.path().display());
        helper.say(&format!("count\t{scope}\tcounter\t{folder}\t{rounds}"));
    }
    for helper in &mut helpers {
        assert_eq!(helper.hear(), "ok");
    }
    let count = fs::read_to_string(folder.path().join("counter")).unwrap();
    assert_eq!(count, (PROCESSES * rounds).to_string());
}

at!(above_threads, two_managers_in_one_process_exclude_each_other);
/// filelock#485: a second instance in one process blocks itself or gets in.
fn two_managers_in_one_process_exclude_each_other(setting: &Setting) {
    for other in [setting.neighbour(), setting.remote()] {
        let guard = setting.hold(&setting.locks(), "a");
        let other = setting.mutex(&other, "a", ());
        assert!(other.try_lock().unwrap_err().is_contended());
        futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
        drop(other.try_lock().unwrap());
    }
}

at!(above_threads, a_narrow_and_a_wide_mutex_of_one_name_exclude_each_other);
/// fasteners#93: thread and process meaning mixed up.
fn a_narrow_and_a_wide_mutex_of_one_name_exclude_each_other(setting: &Setting) {
    let locks = setting.locks();
    let narrow = locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    let wide = setting.mutex(&locks, "a", ());
    let guard = narrow.lock().unwrap();
    assert!(wide.try_lock().unwrap_err().is_contended());
    drop(guard);
    let guard = wide.lock().unwrap();
    assert!(narrow.try_lock().unwrap_err().is_contended());
    drop(guard);
    drop(narrow.lock().unwrap());
}

at!(everywhere, locking_twice_waits_for_oneself);
fn locking_twice_waits_for_oneself(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let _guard = mutex.lock().unwrap();
    assert!(mutex.try_lock().unwrap_err().is_contended());
    assert!(mutex.try_lock_for(Duration::from_millis(5)).unwrap_err().is_timeout());
}

at!(everywhere, sixty_four_threads_all_get_their_turn);
/// consul#7523: a release wakes one waiter, not the herd; redisson#1763: and none is forgotten.
fn sixty_four_threads_all_get_their_turn(setting: &Setting) {
    let counter = Unprotected::default();
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let first = mutex.lock().unwrap();
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let _guard = mutex.lock().unwrap();
                counter.add();
            });
        }
        drop(first);
    });
    assert_eq!(counter.get(), 64);
}

at!(with_leader, a_crowd_on_one_machine_waits_as_one);
/// A machine sends one request for all its threads and tasks, so that another machine gets its
/// turn after one of them and not after all.
fn a_crowd_on_one_machine_waits_as_one(setting: &Setting) {
    let (crowded, quiet) = (setting.locks(), setting.remote());
    let holder = setting.remote();
    let crowd: Vec<_> = (0..64).map(|_| setting.mutex(&crowded, "a", "crowd")).collect();
    let lonely = setting.mutex(&quiet, "a", "lonely");
    let guard = setting.hold(&holder, "a");
    let mut order = Vec::new();
    let order = std::cell::RefCell::new(&mut order);
    let turn = async |mutex: &tierlock::Mutex<&'static str>| {
        let guard = mutex.lock_async().await.unwrap();
        order.borrow_mut().push(*guard);
        MutexGuard::unlock_async(guard).await.unwrap();
    };
    let mut waits: Vec<_> = crowd.iter().map(|mutex| Box::pin(turn(mutex))).collect();
    let mut noop = std::task::Context::from_waker(std::task::Waker::noop());
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut noop).is_pending());
    }
    setting.until_heard(&crowded);
    let mut last = Box::pin(turn(&lonely));
    assert!(last.as_mut().poll(&mut noop).is_pending());
    setting.until_heard(&quiet);
    waits.push(last);
    drop(guard);
    futures::executor::block_on(futures::future::join_all(waits));
    let order = order.into_inner();
    assert_eq!(order.iter().position(|name| *name == "lonely"), Some(1), "{order:?}");
    assert_eq!(order.len(), 65);
}

at!(with_leader, sessions_are_served_first_come_first_served);
/// python-redis-lock#58: newcomers overtake at hand-over.
fn sessions_are_served_first_come_first_served(setting: &Setting) {
    let guard = setting.hold(&setting.locks(), "a");
    let order = std::cell::RefCell::new(Vec::new());
    let managers: Vec<_> = (0..6).map(|_| setting.remote()).collect();
    let mutexes: Vec<_> = managers.iter().map(|locks| setting.mutex(locks, "a", ())).collect();
    let turn = async |number: usize| {
        let guard = mutexes[number].lock_async().await.unwrap();
        order.borrow_mut().push(number);
        MutexGuard::unlock_async(guard).await.unwrap();
    };
    let mut waits = Vec::new();
    for (number, locks) in managers.iter().enumerate() {
        let mut wait = Box::pin(turn(number));
        let mut noop = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(wait.as_mut().poll(&mut noop).is_pending());
        setting.until_heard(locks);
        waits.push(wait);
    }
    drop(guard);
    futures::executor::block_on(futures::future::join_all(waits));
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4, 5]);
}

at!(with_leader, a_first_use_from_many_threads_at_once_opens_one_session);
/// hazelcast-nodejs-client#898: two sessions of one client exclude each other for ever.
fn a_first_use_from_many_threads_at_once_opens_one_session(setting: &Setting) {
    for _ in 0..5 {
        let locks = setting.remote();
        let start = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for number in 0..4 {
                let (locks, start) = (&locks, &start);
                scope.spawn(move || {
                    let mutex = setting.mutex(locks, &format!("n{number}"), ());
                    start.wait();
                    drop(mutex.try_lock_for(LONG).unwrap());
                });
            }
        });
    }
}
