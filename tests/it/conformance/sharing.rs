//! Readers beside each other, writers alone, and the ways from one to the other.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
    thread,
    time::{Duration, Instant},
};

use tierlock::{
    LockErrorKind, LockManager, LostReason, MutexGuard, Predecessor, RwLock, RwLockReadGuard,
    RwLockUpgradableReadGuard, RwLockWriteGuard, Scope,
};

use crate::{
    helper::{Helper, may_tell_of},
    setting::{BlockedThread, Hand, LONG, Setting, at, until},
};

/// Below host scope. There an upgradable reader has the name for itself, and readers have a token of
/// their own.
macro_rules! at_each {
    ($situation:ident) => {
        at!([thread process process_file memory_below_host] $situation);
    };
}

/// What the next holder in another place waits at most: a leader hears of a release a little later.
fn soon(setting: &Setting) -> Duration {
    if setting.scope == Scope::Host { LONG } else { Duration::ZERO }
}

fn lock_of<T>(setting: &Setting, locks: &LockManager, value: T) -> RwLock<T> {
    locks.rw_lock("a", value).scope(setting.scope).build().unwrap()
}

at!(everywhere, readers_stand_beside_each_other_and_writers_alone);
fn readers_stand_beside_each_other_and_writers_alone(setting: &Setting) {
    let [one, two] = [setting.locks(), setting.remote()].map(|l| lock_of(setting, &l, ()));
    let (first, second) = (one.read().unwrap(), two.read().unwrap());
    let third = one.try_read().unwrap();
    for lock in [&one, &two] {
        assert!(lock.try_write().unwrap_err().is_contended());
    }
    drop((first, third));
    assert!(one.try_write().unwrap_err().is_contended());
    drop(second);
    let writer = one.try_write_for(soon(setting)).unwrap();
    for lock in [&one, &two] {
        assert!(lock.try_read().unwrap_err().is_contended());
        assert!(lock.try_write().unwrap_err().is_contended());
        assert!(lock.try_upgradable_read().unwrap_err().is_contended());
    }
    drop(writer);
    let again = two.try_read_for(soon(setting)).unwrap();
    assert!(RwLockReadGuard::is_valid(&again));
    assert_eq!(RwLockReadGuard::scope(&again), setting.scope);
}

at!(everywhere, a_mutex_of_the_name_is_a_writer);
/// redisson#4023: an exclusive lock and a read lock of one name are both held.
fn a_mutex_of_the_name_is_a_writer(setting: &Setting) {
    let (lock, locks) = (lock_of(setting, &setting.locks(), ()), setting.remote());
    let mutex = setting.mutex(&locks, "a", ());
    drop(mutex.lock().unwrap());
    let reader = lock.read().unwrap();
    assert!(mutex.try_lock().unwrap_err().is_contended());
    drop(reader);
    let guard = mutex.lock().unwrap();
    assert!(lock.try_read().unwrap_err().is_contended());
    drop(guard);
    for _ in 0..3 {
        drop(lock.try_read_for(soon(setting)).unwrap());
        drop(mutex.try_lock_for(soon(setting)).unwrap());
    }
}

at!(everywhere, a_waiting_writer_holds_new_readers_up_and_comes_next);
/// futures-locks#34: readers without a pause starve writers.
fn a_waiting_writer_holds_new_readers_up_and_comes_next(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let reader = lock.read().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| drop(far.write().unwrap()));
        until("the writer holds readers up", || lock.try_read().is_err());
        let late = scope.spawn(|| drop(lock.read().unwrap()));
        assert!(!writer.is_finished() && !late.is_finished());
        drop(reader);
        writer.join().unwrap();
        late.join().unwrap();
    });
}

at!([thread process process_file host memory_host] a_second_read_lock_behind_a_waiting_writer_times_out);
/// tokio#2849, parking_lot#212: a second read lock of one thread hangs behind a waiting writer. It is
/// documented that it waits; one with a limit ends, and its error says why.
fn a_second_read_lock_behind_a_waiting_writer_times_out(setting: &Setting) {
    const SHORT: Duration = Duration::from_millis(20);
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let reader = lock.read().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| drop(far.write().unwrap()));
        until("the writer holds readers up", || lock.try_read().is_err());
        let error = lock.try_read_for(SHORT).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("not reentrant"), "{error}");
        drop(reader);
        writer.join().unwrap();
    });
    drop(lock.read().unwrap());
}

at!(everywhere, a_wait_in_vain_leaves_no_trace);
/// llvm#201937: a writer that times out eats the wake of a reader.
fn a_wait_in_vain_leaves_no_trace(setting: &Setting) {
    const SHORT: Duration = Duration::from_millis(20);
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let reader = lock.read().unwrap();
    let error = far.try_write_for(SHORT).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
    drop(far.try_read().unwrap());
    let mut wait = Hand::new(far.write_async());
    assert!(wait.poll().is_pending());
    drop(wait);
    drop(far.try_read().unwrap());
    drop(reader);
    let writer = far.write().unwrap();
    assert!(lock.try_read_for(SHORT).unwrap_err().is_timeout());
    assert!(lock.try_upgradable_read_for(SHORT).unwrap_err().is_timeout());
    let mut wait = Hand::new(lock.read_async());
    assert!(wait.poll().is_pending());
    drop(writer);
    drop(wait.finish().unwrap());
    drop(lock.try_write().unwrap());
}

at!(everywhere, an_upgradable_reader_becomes_a_writer_alone);
fn an_upgradable_reader_becomes_a_writer_alone(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), 0);
    let far = lock_of(setting, &setting.remote(), 0);
    drop(lock.write().unwrap());
    let seen = lock.upgradable_read().unwrap();
    let token = RwLockUpgradableReadGuard::token(&seen);
    assert!(far.try_upgradable_read().unwrap_err().is_contended());
    assert!(far.try_write().unwrap_err().is_contended());
    let beside = [lock.try_read().unwrap(), far.try_read().unwrap()];
    let seen = RwLockUpgradableReadGuard::try_upgrade(seen).unwrap_err();
    let short = Duration::from_millis(5);
    let seen = RwLockUpgradableReadGuard::try_upgrade_for(seen, short).unwrap_err();
    for lock in [&lock, &far] {
        drop(lock.try_read_for(soon(setting)).unwrap());
    }
    drop(beside);
    let mut writer = RwLockUpgradableReadGuard::upgrade(seen).unwrap();
    *writer += 1;
    assert!(RwLockWriteGuard::token(&writer) > token);
    assert!(RwLockWriteGuard::is_valid(&writer));
    for lock in [&lock, &far] {
        assert!(lock.try_read().unwrap_err().is_contended());
    }
    let seen = RwLockWriteGuard::downgrade_to_upgradable(writer).unwrap();
    for lock in [&lock, &far] {
        drop(lock.try_read_for(soon(setting)).unwrap());
        assert!(lock.try_upgradable_read().unwrap_err().is_contended());
    }
    let reader = RwLockUpgradableReadGuard::downgrade(seen).unwrap();
    assert_eq!(*reader, 1);
    for lock in [&lock, &far] {
        drop(lock.try_upgradable_read_for(soon(setting)).unwrap());
        assert!(lock.try_write().unwrap_err().is_contended());
    }
    drop(reader);
    drop(far.try_write_for(soon(setting)).unwrap());
}

at!(everywhere, no_writer_comes_between_reading_and_upgrading);
/// shuttle#351: an upgrade lets a queued writer in between; curator#1138: so does a downgrade.
fn no_writer_comes_between_reading_and_upgrading(setting: &Setting) {
    let value = AtomicU64::new(0);
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let waiting = BlockedThread::default();
    thread::scope(|scope| {
        let seen = lock.upgradable_read().unwrap();
        let writer = scope.spawn(|| {
            waiting.is_this();
            let _guard = far.write().unwrap();
            assert_eq!(value.swap(2, SeqCst), 1);
        });
        waiting.until_blocked();
        assert_eq!(value.load(SeqCst), 0);
        let guard = RwLockUpgradableReadGuard::upgrade(seen).unwrap();
        assert_eq!(value.swap(1, SeqCst), 0);
        let reader = RwLockWriteGuard::downgrade(guard).unwrap();
        waiting.until_blocked();
        assert_eq!(value.load(SeqCst), 1);
        assert!(!writer.is_finished());
        drop(reader);
        writer.join().unwrap();
    });
    assert_eq!(value.load(SeqCst), 2);
}

at_each!(readers_come_in_beside_an_upgradable_reader_while_another_waits);
/// parking_lot#101: a second upgradable reader that waits shuts out plain readers.
fn readers_come_in_beside_an_upgradable_reader_while_another_waits(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let waiting = BlockedThread::default();
    thread::scope(|scope| {
        let seen = lock.upgradable_read().unwrap();
        let second = scope.spawn(|| {
            waiting.is_this();
            drop(far.upgradable_read().unwrap());
        });
        waiting.until_blocked();
        // At first it stands in no order, and then it does.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(10) {
            for lock in [&lock, &far] {
                drop(lock.try_read_for(LONG).unwrap());
                drop(Hand::new(lock.read_async()).finish().unwrap());
            }
        }
        assert!(!second.is_finished());
        drop(seen);
        second.join().unwrap();
    });
}

at_each!(tokens_are_counted_by_writers_and_borne_by_readers);
fn tokens_are_counted_by_writers_and_borne_by_readers(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let mut last = RwLockWriteGuard::token(&lock.write().unwrap());
    for round in 0..3 {
        let (one, two) = (lock.read().unwrap(), far.read().unwrap());
        assert_eq!(RwLockReadGuard::token(&one), last);
        assert_eq!(RwLockReadGuard::check(&two).unwrap(), last);
        drop((one, two));
        let writer = if round % 2 == 0 { lock.write() } else { far.write() };
        let token = RwLockWriteGuard::token(&writer.unwrap());
        assert!(token > last);
        last = token;
    }
}

at!(everywhere, a_writer_that_panicked_is_told_until_another_has_left_in_good_order);
fn a_writer_that_panicked_is_told_until_another_has_left_in_good_order(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.write().unwrap();
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    for lock in [&lock, &far, &lock] {
        let reader = lock.read().unwrap();
        assert_eq!(RwLockReadGuard::predecessor(&reader), Predecessor::Panicked);
        drop(reader);
        let seen = lock.upgradable_read().unwrap();
        assert_eq!(RwLockUpgradableReadGuard::predecessor(&seen), Predecessor::Panicked);
    }
    let writer = far.write().unwrap();
    assert_eq!(RwLockWriteGuard::predecessor(&writer), Predecessor::Panicked);
    drop(writer);
    assert_eq!(RwLockReadGuard::predecessor(&lock.read().unwrap()), Predecessor::Clean);
}

at!(everywhere, guards_own_their_lock_and_show_parts_of_its_data);
fn guards_own_their_lock_and_show_parts_of_its_data(setting: &Setting) {
    let lock = Arc::new(lock_of(setting, &setting.locks(), (1, 2)));
    let one = RwLockReadGuard::map(lock.read_arc().unwrap(), |pair| &pair.0);
    let two = lock.try_read_arc().unwrap();
    let two = RwLockReadGuard::try_map(two, |pair| Some(&pair.1)).unwrap();
    assert_eq!((*one, *two), (1, 2));
    thread::spawn(move || drop(one)).join().unwrap();
    assert!(lock.try_write_arc().is_err());
    drop(two);
    let mut part = RwLockWriteGuard::map(lock.write_arc().unwrap(), |pair| &mut pair.1);
    *part = 7;
    drop(part);
    let seen = lock.upgradable_read_arc().unwrap();
    let weak = Arc::downgrade(&lock);
    drop(lock);
    let reader = RwLockUpgradableReadGuard::downgrade(seen).unwrap();
    assert_eq!(*reader, (1, 7));
    assert!(weak.upgrade().is_some());
    drop(reader);
    assert!(weak.upgrade().is_none());
}

at!(everywhere, no_reader_sees_a_write_half_done);
fn no_reader_sees_a_write_half_done(setting: &Setting) {
    const ROUNDS: u64 = 300;
    let (one, other) = (AtomicU64::new(0), AtomicU64::new(0));
    let add = || {
        let before = one.load(Relaxed);
        one.store(before + 1, Relaxed);
        thread::yield_now();
        other.store(before + 1, Relaxed);
    };
    let see = || assert_eq!(one.load(Relaxed), other.load(Relaxed));
    thread::scope(|scope| {
        for (number, locks) in setting.crowd(4).into_iter().enumerate() {
            let (add, see) = (&add, &see);
            let lock = lock_of(setting, &locks, ());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    match (number as u64 + round) % 4 {
                        0 => {
                            let _guard = lock.write().unwrap();
                            add();
                        }
                        1 => {
                            let seen = lock.upgradable_read().unwrap();
                            see();
                            let guard = RwLockUpgradableReadGuard::upgrade(seen).unwrap();
                            add();
                            let reader = RwLockWriteGuard::downgrade(guard).unwrap();
                            see();
                            drop(reader);
                        }
                        2 => {
                            let _guard = Hand::new(lock.read_async()).finish().unwrap();
                            see();
                        }
                        _ => {
                            let _guard = lock.read().unwrap();
                            see();
                        }
                    }
                }
            });
        }
    });
    assert_eq!(one.load(Relaxed), 4 * ROUNDS / 2);
}

at!(everywhere, tasks_read_and_write_without_blocking_threads);
fn tasks_read_and_write_without_blocking_threads(setting: &Setting) {
    let lock = Arc::new(lock_of(setting, &setting.locks(), 0_u64));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..6)
            .map(|number| {
                let lock = lock.clone();
                tokio::spawn(async move {
                    for _ in 0..20 {
                        if number % 2 == 0 {
                            let guard = lock.read_arc_async().await.unwrap();
                            tokio::task::yield_now().await;
                            drop(guard);
                        } else {
                            let seen = lock.upgradable_read_async().await.unwrap();
                            let seen = RwLockUpgradableReadGuard::upgrade_async(seen);
                            *seen.await.unwrap() += 1;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(*lock.read().unwrap(), 60);
}

at!([process process_file] a_process_that_comes_later_reads_beside_the_others);
fn a_process_that_comes_later_reads_beside_the_others(setting: &Setting) {
    for how in ["read", "upgradable"] {
        let mut first = setting.helper();
        first.ask(&format!("{how}\t{}\t{how}", setting.scope));
        let locks = setting.locks();
        let lock = locks.rw_lock(how, ()).scope(setting.scope).build().unwrap();
        // The first lock of the name in this process.
        let reader = lock.try_read_for(LONG).unwrap();
        let mut third = setting.helper();
        third.ask(&format!("read\t{}\t{how}", setting.scope));
        assert!(lock.try_write().unwrap_err().is_contended());
        drop(reader);
    }
}

at!([process process_file] a_killed_reader_blocks_no_writer);
/// apcu#632: a reader killed in shared memory blocks every writer for ever.
fn a_killed_reader_blocks_no_writer(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    for how in ["read", "upgradable"] {
        let mut reader = setting.helper();
        reader.ask(&format!("{how}\t{}\ta", setting.scope));
        assert!(lock.try_write().unwrap_err().is_contended());
        reader.kill();
        let writer = lock.try_write_for(LONG).unwrap();
        if how == "read" {
            assert_eq!(RwLockWriteGuard::predecessor(&writer), Predecessor::Clean);
        }
    }
    let mut reader = setting.helper();
    reader.ask(&format!("read\t{}\ta", setting.scope));
    reader.kill();
    let mutex = setting.mutex(&setting.remote(), "a", ());
    let guard = mutex.try_lock_for(LONG).unwrap();
    assert!(MutexGuard::is_valid(&guard));
}

at!([process process_file] a_killed_writer_is_told_to_readers_until_a_writer_has_left);
fn a_killed_writer_is_told_to_readers_until_a_writer_has_left(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let mut writer = setting.helper();
    writer.ask(&format!("write\t{}\ta", setting.scope));
    assert!(lock.try_read().unwrap_err().is_contended());
    writer.kill();
    for _ in 0..2 {
        let reader = lock.try_read_for(LONG).unwrap();
        assert_eq!(RwLockReadGuard::predecessor(&reader), Predecessor::Died);
    }
    let writer = lock.write().unwrap();
    assert_eq!(RwLockWriteGuard::predecessor(&writer), Predecessor::Died);
    drop(writer);
    assert_eq!(RwLockReadGuard::predecessor(&lock.read().unwrap()), Predecessor::Clean);
}

at!([process process_file] a_writer_killed_while_it_waits_for_readers_blocks_no_reader);
fn a_writer_killed_while_it_waits_for_readers_blocks_no_reader(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let reader = lock.read().unwrap();
    let mut writer = setting.helper();
    writer.say(&format!("write\t{}\ta", setting.scope));
    until("the writer holds readers up", || lock.try_read().is_err());
    writer.kill();
    drop(lock.try_read_for(LONG).unwrap());
    drop(reader);
    drop(lock.try_write_for(LONG).unwrap());
}

at!([process process_file] no_kill_shows_a_reader_a_write_half_done);
/// Readers, writers and upgrading readers of several processes that are killed at any time, over two
/// numbers that only a writer makes differ, and takers of permits. Each exclusive holder is told of a death
/// after a writer's, and of none after a reader's or where none was.
fn no_kill_shows_a_reader_a_write_half_done(setting: &Setting) {
    pair_under_kills(setting, 15);
}

/// `cargo test --all-features --test it many_kills -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn many_kills_show_no_reader_a_write_half_done() {
    pair_under_kills(&Setting::process(), 1_000);
    pair_under_kills(&Setting::process_file(), 300);
}

fn pair_under_kills(setting: &Setting, kills: u64) {
    let folder = setting.directory().join("numbers");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("pair"), [0; 24]).unwrap();
    // The file-lock engine has no permits.
    let seats = if setting.counts_permits() { "seats" } else { "" };
    let start = |seed: u64| {
        let mut helper = setting.helper();
        let folder = folder.display();
        helper.say(&format!("pair\t{}\ta\t{folder}\t{seed}\t{seats}", setting.scope));
        (seed, helper)
    };
    let mut helpers: Vec<(u64, Helper)> = (0..3).map(start).collect();
    // So many have died of which an exclusive holder may be told.
    let mut deaths = 0;
    let mut kill_one = |(seed, helper): &mut (u64, Helper)| {
        helper.kill();
        deaths += u64::from(may_tell_of(&folder, *seed));
    };
    for kill in 0..kills {
        let before = rounds(&folder);
        until("more rounds", || rounds(&folder) > before + 20);
        for (_, helper) in &mut helpers {
            assert!(!helper.has_spoken(), "{}", helper.hear());
        }
        let victim = (kill * 7 % 3) as usize;
        kill_one(&mut helpers[victim]);
        helpers[victim] = start(3 + kill);
    }
    helpers.iter_mut().for_each(kill_one);
    let lock = lock_of(setting, &setting.locks(), ());
    let last = lock.try_write_for(LONG).unwrap();
    let is_told = RwLockWriteGuard::predecessor(&last) == Predecessor::Died;
    let told = std::fs::metadata(folder.join("told")).map_or(0, |found| found.len());
    let told = told + u64::from(is_told);
    assert!(told <= deaths, "{told} exclusive holders were told of {deaths} deaths at the gate");
    drop(last);
    drop(lock.try_read().unwrap());
}

fn rounds(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("rounds")).map_or(0, |found| found.len())
}

at!([thread process process_file memory_process] a_leaked_writer_holds_up_no_other);
/// tokio#6450, and what a future does that is never polled again.
fn a_leaked_writer_holds_up_no_other(setting: &Setting) {
    let lock = Arc::new(lock_of(setting, &setting.locks(), ()));
    let far = lock_of(setting, &setting.remote(), ());
    let reader = lock.read().unwrap();
    let mut leaked = Box::pin(lock.write_arc_async());
    let waker = std::task::Waker::noop();
    let polled = leaked.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending());
    std::mem::forget(leaked);
    drop(far.try_read_for(LONG).unwrap());
    drop(reader);
    drop(far.try_write_for(LONG).unwrap());
}

at!([process process_file memory_below_host] a_downgrade_ends_well_though_what_hangs_on_the_writer_panics);
fn a_downgrade_ends_well_though_what_hangs_on_the_writer_panics(setting: &Setting) {
    struct PanicsAtItsEnd;
    impl Drop for PanicsAtItsEnd {
        fn drop(&mut self) {
            resume_unwind(Box::new("on purpose"));
        }
    }
    // The guard alone keeps the lock alive.
    let locks = setting.locks();
    let lock = locks.rw_lock("a", 7).scope(setting.scope).at_most(LONG);
    let writer = lock.write().unwrap();
    let bomb = PanicsAtItsEnd;
    RwLockWriteGuard::on_lost(&writer, move |_| drop(bomb));
    let reader = RwLockWriteGuard::downgrade(writer).unwrap();
    assert_eq!(*reader, 7);
    let other = lock_of(setting, &setting.locks(), ());
    assert!(other.try_write().unwrap_err().is_contended());
    drop(other.try_read_for(LONG).unwrap());
    drop(reader);
    drop(other.try_write_for(LONG).unwrap());
}

at!([process process_file] a_writer_whose_turn_has_lapsed_comes_in_once_it_is_polled);
fn a_writer_whose_turn_has_lapsed_comes_in_once_it_is_polled(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let reader = lock.read().unwrap();
    let mut late = Hand::new(lock.write_async());
    assert!(late.poll().is_pending());
    until("its turn lapses", || lock.try_read().is_ok());
    assert!(late.poll().is_pending());
    drop(reader);
    let guard = late.finish().unwrap();
    assert!(lock.try_read().unwrap_err().is_contended());
    drop(guard);
    drop(lock.try_read().unwrap());
}

at!(with_leader, readers_of_all_machines_bear_one_token_above_the_last_writers);
fn readers_of_all_machines_bear_one_token_above_the_last_writers(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let far = lock_of(setting, &setting.remote(), ());
    let mut last = RwLockWriteGuard::token(&lock.write().unwrap());
    for round in 0..3 {
        let (one, two) = (lock.read().unwrap(), far.read().unwrap());
        let token = RwLockReadGuard::check(&one).unwrap();
        assert!(token > last);
        if !setting.has_directory() {
            assert_eq!(RwLockReadGuard::check(&two).unwrap(), token);
        }
        drop((one, two));
        let writer = if round % 2 == 0 { lock.write() } else { far.write() };
        last = RwLockWriteGuard::token(&writer.unwrap());
        assert!(last > token);
    }
}

at!([memory_host] a_loss_is_told_to_each_reader_that_is_inside);
fn a_loss_is_told_to_each_reader_that_is_inside(setting: &Setting) {
    let locks = setting.locks();
    let lock = lock_of(setting, &locks, ());
    let [one, two, gone] = [(), (), ()].map(|()| lock.read().unwrap());
    let lost = [&one, &two].map(RwLockReadGuard::lost);
    let (tell, told) = std::sync::mpsc::channel();
    for (number, reader) in [&one, &gone].into_iter().enumerate() {
        let tell = tell.clone();
        RwLockReadGuard::on_lost(reader, move |reason| tell.send((number, reason)).unwrap());
    }
    let mut of_gone = Hand::new(RwLockReadGuard::lost(&gone));
    assert!(of_gone.poll().is_pending());
    drop((gone, tell));
    assert!(locks.lose_lock("a"));
    for lost in lost {
        assert_eq!(Hand::new(lost).finish(), LostReason::Provoked);
    }
    // Each of those that are inside once; then no other is left to be told.
    assert_eq!(told.iter().collect::<Vec<_>>(), [(0, LostReason::Provoked)]);
    assert!(of_gone.poll().is_pending(), "it had left in good order");
    assert!(!RwLockReadGuard::is_valid(&one));
    assert!(RwLockReadGuard::check(&two).unwrap_err().is_lost());
    // What they have is theirs until they leave.
    assert!(lock.try_write().unwrap_err().is_contended());
    drop((one, two));
    drop(lock.write().unwrap());
    assert!(RwLockReadGuard::is_valid(&lock.read().unwrap()));
}

at!(with_leader, a_shared_lease_is_kept_until_a_writer_asks);
fn a_shared_lease_is_kept_until_a_writer_asks(setting: &Setting) {
    let lock = lock_of(setting, &setting.locks(), ());
    let token = |lock: &RwLock<()>| RwLockReadGuard::token(&lock.read().unwrap());
    let first = token(&lock);
    setting.stop_leader();
    for _ in 0..100 {
        assert_eq!(token(&lock), first, "no leader is asked");
    }
    setting.start_leader();
    let far = lock_of(setting, &setting.remote(), ());
    drop(far.write().unwrap());
    assert!(token(&lock) > first);
}

at!(everywhere, habits_of_std_and_tokio);
fn habits_of_std_and_tokio(setting: &Setting) {
    let lock = Arc::new(lock_of(setting, &setting.locks(), 7));
    assert!(format!("{lock:?}").contains("data: 7"), "{lock:?}");
    let writer = futures::executor::block_on(lock.clone().write_owned()).unwrap();
    assert!(format!("{lock:?}").contains("<locked>"), "{lock:?}");
    assert!(lock.clone().try_read_owned().unwrap_err().is_contended());
    assert!(lock.is_locked());
    drop(writer);
    let reader = futures::executor::block_on(lock.clone().read_owned()).unwrap();
    assert!(lock.is_locked());
    assert!(lock.clone().try_write_owned().unwrap_err().is_contended());
    assert!(format!("{lock:?}").contains("data: 7"), "{lock:?}");
    drop(reader);
    drop(lock.clone().try_write_owned().unwrap());
    assert!(!lock.is_locked());
    let seen = lock.upgradable_read().unwrap();
    assert!(lock.is_locked());
    let soon = std::time::Instant::now() + LONG;
    drop(RwLockUpgradableReadGuard::try_upgrade_until(seen, soon).unwrap());
}

at!([process process_file host host_with_directory memory_below_host memory_host] a_lock_made_at_run_time_is_owned_by_its_guard);
fn a_lock_made_at_run_time_is_owned_by_its_guard(setting: &Setting) {
    let locks = setting.locks();
    let made = || locks.rw_lock("made", 7).scope(setting.scope);
    let (one, two) = (made().read().unwrap(), Hand::new(made().read_async()).finish().unwrap());
    assert_eq!(*one + *two, 14);
    assert!(made().try_write().unwrap_err().is_contended());
    drop((one, two));
    let seen = made().try_upgradable_read_for(LONG).unwrap();
    assert!(Hand::new(made().try_upgradable_read_async()).finish().unwrap_err().is_contended());
    let writer = RwLockUpgradableReadGuard::upgrade(seen).unwrap();
    assert!(made().try_read().unwrap_err().is_contended());
    drop(writer);
    drop(Hand::new(made().try_write_for_async(LONG)).finish().unwrap());
    drop(made().keep(tierlock::Keep::Never).try_read_for(LONG).unwrap());
}

#[test]
fn an_unnamed_lock_needs_nothing() {
    static STOCK: RwLock<u64> = RwLock::new(7);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    assert!(*STOCK.read().unwrap() >= 7);
                }
            });
        }
        for _ in 0..100 {
            *STOCK.write().unwrap() += 1;
            let seen = STOCK.upgradable_read().unwrap();
            let mut guard = RwLockUpgradableReadGuard::upgrade(seen).unwrap();
            *guard += 1;
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(*STOCK.read().unwrap(), 207);
}

at!([process] a_second_writer_is_told_of_the_reader_that_the_first_waits_for);
/// The first one has the gate, and stands in front: it was named as the holder.
fn a_second_writer_is_told_of_the_reader_that_the_first_waits_for(setting: &Setting) {
    let mut helper = setting.helper();
    helper.ask(&format!("read\t{}\ta", setting.scope));
    let lock = lock_of(setting, &setting.locks(), ());
    let mut first = Hand::new(lock.write_async());
    assert!(first.poll().is_pending());
    let soon = Duration::from_millis(30);
    let error = lock.try_write_for(soon).unwrap_err();
    assert!(error.is_timeout() && error.is_contended(), "{error}");
    assert_eq!(error.holder().and_then(|holder| holder.pid), Some(helper.id()), "{error}");
    assert!(first.poll().is_pending());
    helper.kill();
    drop(first.finish().unwrap());
}

at!([process] a_writer_that_widens_a_name_is_told_of_the_readers_of_the_narrower_gate);
fn a_writer_that_widens_a_name_is_told_of_the_readers_of_the_narrower_gate(setting: &Setting) {
    let locks = setting.locks();
    let narrow = locks.rw_lock("a", ()).scope(Scope::Thread).build().unwrap();
    let wide = lock_of(setting, &locks, ());
    let reader = narrow.read().unwrap();
    let error = wide.try_write_for(Duration::from_millis(30)).unwrap_err();
    assert!(error.is_timeout() && error.is_contended(), "{error}");
    let holder = error.holder().and_then(|holder| holder.pid);
    assert_eq!(holder, Some(std::process::id()), "{error}");
    drop(reader);
    drop(wide.try_write_for(LONG).unwrap());
}
