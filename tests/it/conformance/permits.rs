//! Permits of semaphores: never more than there are, first come first served, and back from the dead.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::*},
        mpsc,
    },
    thread,
    time::Duration,
};

use tierlock::{
    LockErrorKind, LockManager, LostReason, MutexGuard, OwnedPermit, Permit, Predecessor, Scope,
    Semaphore,
};

use crate::{
    helper::Helper,
    setting::{Hand, LONG, Setting, at, until},
};

/// Where there are permits.
macro_rules! at_each {
    ($situation:ident) => {
        at!(
            [thread process host host_with_directory memory_below_host memory_host]
            $situation
        );
    };
}

const SHORT: Duration = Duration::from_millis(20);

fn semaphore(setting: &Setting, locks: &LockManager, permits: u32) -> Semaphore {
    locks.semaphore("a", permits).scope(setting.scope).build().unwrap()
}

/// One near, one far.
fn two(setting: &Setting, permits: u32) -> [Semaphore; 2] {
    [setting.locks(), setting.remote()].map(|locks| semaphore(setting, &locks, permits))
}

/// Waits until so many are free: what comes back takes a moment to reach a leader.
fn until_free(semaphore: &Semaphore, permits: u32) {
    until("free permits", || semaphore.available().unwrap() == permits);
}

/// Waits until a taker of this semaphore stands in front: then no try gets in.
fn until_in_front(semaphore: &Semaphore) {
    until("a taker in front", || {
        semaphore.try_acquire().map(drop).is_err_and(|error| error.is_contended())
    });
}

at_each!(no_more_permits_are_out_than_there_are);
fn no_more_permits_are_out_than_there_are(setting: &Setting) {
    let [one, other] = two(setting, 3);
    assert_eq!((one.permits(), one.name(), one.scope()), (3, Some("a"), setting.scope));
    let first = one.acquire().unwrap();
    let both = other.try_acquire_many(2).unwrap();
    assert_eq!((Permit::count(&first), Permit::count(&both)), (1, 2));
    assert_eq!(Permit::scope(&both), setting.scope);
    for semaphore in [&one, &other] {
        assert!(semaphore.try_acquire().unwrap_err().is_contended());
        assert!(semaphore.try_acquire_for(SHORT).unwrap_err().is_timeout());
        assert_eq!(semaphore.available().unwrap(), 0);
    }
    drop(first);
    until_free(&other, 1);
    assert!(one.try_acquire_many(2).unwrap_err().is_contended());
    let again = one.try_acquire().unwrap();
    drop(both);
    assert!(other.try_acquire_many(3).unwrap_err().is_contended());
    drop(again);
    until_free(&other, 3);
    let all = other.try_acquire_many(3).unwrap();
    assert!(Permit::is_valid(&all));
    Permit::unlock(all).unwrap();
    Permit::hand_on(one.acquire_many(3).unwrap()).unwrap();
    until_free(&one, 3);
    Permit::unlock_blocking(one.acquire_many(3).unwrap()).unwrap();
    assert_eq!(futures::executor::block_on(other.available_async()).unwrap(), 3);
    assert!(format!("{one:?}").contains("permits: 3"));
}

at_each!(each_permit_has_a_token_of_its_own);
fn each_permit_has_a_token_of_its_own(setting: &Setting) {
    let [one, other] = two(setting, 7);
    let first = Permit::token(&one.acquire().unwrap());
    let mut four = other.acquire_many(4).unwrap();
    assert!(Permit::token(&four).get() >= first.get() + 4);
    let last = Permit::token(&four);
    let two = Permit::split(&mut four, 2).unwrap();
    assert_eq!((Permit::token(&two), Permit::count(&two)), (last, 2));
    assert_eq!((Permit::token(&four).get(), Permit::count(&four)), (last.get() - 2, 2));
    assert!(Permit::split(&mut four, 2).is_none() && Permit::split(&mut four, 0).is_none());
    assert!(Permit::token(&one.acquire().unwrap()) > last);
    drop(two);
    until_free(&one, 5);
    drop(four);
    until_free(&one, 7);
    assert_eq!(Permit::predecessor(&one.acquire().unwrap()), Predecessor::Clean);
}

at_each!(a_large_request_is_not_passed_by_small_ones);
fn a_large_request_is_not_passed_by_small_ones(setting: &Setting) {
    let [one, other] = two(setting, 2);
    let held = one.acquire().unwrap();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let large = tell.clone();
        scope.spawn(|| {
            let permit = other.acquire_many(2).unwrap();
            large.send("large").unwrap();
            drop((large, permit));
        });
        until_in_front(&one);
        assert!(one.try_acquire_for(SHORT).unwrap_err().is_timeout());
        scope.spawn(|| {
            let permit = one.acquire().unwrap();
            tell.send("small").unwrap();
            drop((tell, permit));
        });
        assert!(told.recv_timeout(SHORT).is_err());
        drop(held);
        assert_eq!([told.recv().unwrap(), told.recv().unwrap()], ["large", "small"]);
    });
}

at_each!(a_taker_that_gives_up_in_front_lets_the_next_try);
/// cats-effect#403, redisson#7206, embassy#6964: a large request given up keeps a part, or wakes none.
fn a_taker_that_gives_up_in_front_lets_the_next_try(setting: &Setting) {
    let [one, other] = two(setting, 2);
    let held = one.acquire().unwrap();
    thread::scope(|scope| {
        let large = scope.spawn(|| other.try_acquire_many_for(2, 10 * SHORT).map(drop));
        until_in_front(&one);
        // Behind it, and served as soon as that one goes.
        drop(one.acquire().unwrap());
        assert!(large.join().unwrap().unwrap_err().is_timeout());
    });
    let mut wait = Hand::new(other.acquire_many_async(2));
    assert!(wait.poll().is_pending());
    until_in_front(&one);
    drop(wait);
    drop(one.try_acquire_for(LONG).unwrap());
    drop(held);
    until_free(&one, 2);
    drop(other.try_acquire_many(2).unwrap());
}

at_each!(the_limit_in_force_is_told);
fn the_limit_in_force_is_told(setting: &Setting) {
    let (locks, far) = (setting.locks(), setting.remote());
    let four = semaphore(setting, &locks, 4);
    let held = four.acquire().unwrap();
    for locks in [&locks, &far] {
        // Far away a leader tells it, which is asked with the first acquire.
        let asked = locks.semaphore("a", 5).scope(setting.scope).acquire();
        let error = asked.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(
            error.to_string().contains("4 permits") && error.to_string().contains('5'),
            "{error}"
        );
        drop(semaphore(setting, locks, 4).try_acquire().unwrap());
    }
    drop(held);
    let error = four.try_acquire_many(5).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    assert_eq!(four.acquire_many(0).unwrap_err().kind(), LockErrorKind::Config);
    for permits in [0, Semaphore::PERMITS_MAX + 1, u32::MAX] {
        let error = locks.semaphore("b", permits).scope(setting.scope).build().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    }
    let most = locks.semaphore("c", Semaphore::PERMITS_MAX).scope(setting.scope).build().unwrap();
    let all = most.acquire_many(Semaphore::PERMITS_MAX).unwrap();
    assert!(most.try_acquire().unwrap_err().is_contended());
    drop(all);
    until_free(&most, Semaphore::PERMITS_MAX);
}

at_each!(a_name_is_a_lock_or_a_semaphore);
/// redisson#4023: two kinds of lock of one name know nothing of each other.
fn a_name_is_a_lock_or_a_semaphore(setting: &Setting) {
    let (locks, far) = (setting.locks(), setting.remote());
    let permit = semaphore(setting, &locks, 4);
    let permit = permit.acquire().unwrap();
    let guard = setting.hold(&locks, "b");
    for locks in [&locks, &far] {
        let read = |lock: tierlock::RwLock<()>| lock.read().map(drop);
        let errors = [
            locks.mutex("a", ()).scope(setting.scope).lock().map(drop),
            locks.rw_lock("a", ()).scope(setting.scope).build().and_then(read),
        ];
        for error in errors.map(Result::unwrap_err) {
            assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
            assert!(error.to_string().contains("4 permits"), "{error}");
        }
        let error = locks.semaphore("b", 4).scope(setting.scope).acquire().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains("a lock"), "{error}");
    }
    drop(permit);
    MutexGuard::unlock_blocking(guard).unwrap();
    drop(setting.mutex(&locks, "b", ()).try_lock().unwrap());
}

at!([process memory_process] a_narrow_semaphore_follows_a_wide_one);
fn a_narrow_semaphore_follows_a_wide_one(setting: &Setting) {
    let locks = setting.locks();
    let narrow = locks.semaphore("a", 2).scope(Scope::Thread).build().unwrap();
    let early = narrow.acquire().unwrap();
    let wide = semaphore(setting, &locks, 2);
    // What came in more narrowly is waited for.
    assert!(wide.try_acquire().unwrap_err().is_contended());
    drop(early);
    let one = wide.acquire().unwrap();
    let other = narrow.acquire().unwrap();
    assert_eq!(Permit::scope(&other), Scope::Process);
    assert!(wide.try_acquire().is_err() && narrow.try_acquire().is_err());
    drop((one, other));
    assert_eq!(wide.available().unwrap(), 2);
}

at_each!(owned_permits_keep_their_semaphore);
fn owned_permits_keep_their_semaphore(setting: &Setting) {
    let semaphore = Arc::new(semaphore(setting, &setting.locks(), 3));
    let far = setting.remote().semaphore("a", 3).scope(setting.scope).build().unwrap();
    let mut permits: Vec<OwnedPermit> = vec![
        semaphore.acquire_arc().unwrap(),
        futures::executor::block_on(semaphore.clone().acquire_owned()).unwrap(),
    ];
    let both = semaphore.clone().try_acquire_many_owned(2);
    assert!(both.unwrap_err().is_contended());
    permits.push(semaphore.try_acquire_arc_for(LONG).unwrap());
    let weak = Arc::downgrade(&semaphore);
    drop(semaphore);
    assert!(weak.upgrade().is_some());
    thread::spawn(move || drop(permits)).join().unwrap();
    assert!(weak.upgrade().is_none());
    until_free(&far, 3);
    drop(setting.remote().semaphore("a", 3).scope(setting.scope).try_acquire().unwrap());
}

at_each!(a_holder_that_panics_returns_its_permit);
fn a_holder_that_panics_returns_its_permit(setting: &Setting) {
    let [one, other] = two(setting, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _permit = one.acquire().unwrap();
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    let permit = other.try_acquire_for(LONG).unwrap();
    assert_eq!(Permit::predecessor(&permit), Predecessor::Clean);
}

at_each!(a_permit_held_for_too_long_is_lost_and_counts_until_it_is_dropped);
fn a_permit_held_for_too_long_is_lost_and_counts_until_it_is_dropped(setting: &Setting) {
    let locks = setting.locks();
    let short = locks.semaphore("a", 2).scope(setting.scope).at_most(SHORT).build().unwrap();
    let mut both = short.acquire_many(2).unwrap();
    let one = Permit::split(&mut both, 1).unwrap();
    assert!(Permit::remaining(&one).unwrap() <= SHORT);
    for permit in [&both, &one] {
        let why = futures::executor::block_on(Permit::lost(permit));
        assert_eq!(why, LostReason::HeldTooLong);
        assert!(Permit::check(permit).unwrap_err().is_lost());
    }
    if setting.scope < Scope::Host {
        assert!(short.try_acquire().unwrap_err().is_contended());
    }
    drop(one);
    let again = short.try_acquire_for(LONG).unwrap();
    drop((both, again));
    until_free(&short, 2);
}

at_each!(tasks_take_permits_without_blocking_threads);
fn tasks_take_permits_without_blocking_threads(setting: &Setting) {
    let [near, far] = two(setting, 3).map(Arc::new);
    let (inside, worst) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8_u32)
            .map(|number| {
                let semaphore = if number % 2 == 0 { near.clone() } else { far.clone() };
                let (inside, worst) = (inside.clone(), worst.clone());
                tokio::spawn(async move {
                    for round in 0..15 {
                        let count = 1 + (number + round) % 3;
                        let permit = semaphore.acquire_many_arc_async(count).await.unwrap();
                        let now = inside.fetch_add(count, SeqCst) + count;
                        worst.fetch_max(now, SeqCst);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(count, SeqCst);
                        drop(permit);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(worst.load(SeqCst) <= 3);
    until_free(&near, 3);
}

at_each!(threads_never_hold_more_than_there_are);
/// helix#2515: room is checked in one step and taken in another.
fn threads_never_hold_more_than_there_are(setting: &Setting) {
    let rounds = setting.rounds().min(200) as u32;
    const LIMIT: u32 = 3;
    let (inside, total) = (AtomicU32::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for (number, locks) in setting.crowd(4).into_iter().enumerate() {
            let (inside, total) = (&inside, &total);
            let semaphore = semaphore(setting, &locks, LIMIT);
            scope.spawn(move || {
                for round in 0..rounds {
                    let count = 1 + (number as u32 + round) % LIMIT;
                    let permit = match round % 4 {
                        0 => semaphore.try_acquire_many_for(count, LONG).unwrap(),
                        1 => Hand::new(semaphore.acquire_many_async(count)).finish().unwrap(),
                        2 => match semaphore.try_acquire_many(count) {
                            Ok(permit) => permit,
                            Err(_) => continue,
                        },
                        _ => semaphore.acquire_many(count).unwrap(),
                    };
                    let now = inside.fetch_add(count, SeqCst) + count;
                    assert!(now <= LIMIT, "{now} are out");
                    if round % 16 == 0 {
                        thread::yield_now();
                    }
                    inside.fetch_sub(count, SeqCst);
                    drop(permit);
                    total.fetch_add(1, Relaxed);
                }
            });
        }
    });
    assert!(total.into_inner() >= 4 * u64::from(rounds) * 3 / 4);
    until_free(&semaphore(setting, &setting.locks(), LIMIT), LIMIT);
}

at_each!(a_leaked_taker_in_front_holds_up_none);
/// tokio#6450: permits go to a waiter of the same task that is not polled.
fn a_leaked_taker_in_front_holds_up_none(setting: &Setting) {
    let semaphore = Arc::new(semaphore(setting, &setting.locks(), 2));
    let far = setting.remote().semaphore("a", 2).scope(setting.scope).build().unwrap();
    leak_in_front(&semaphore);
    drop(far.try_acquire_for(LONG).unwrap());
    drop(semaphore.acquire().unwrap());
}

/// A future that waits for both permits, and is not polled again, while one is held and comes back.
fn leak_in_front(semaphore: &Arc<Semaphore>) {
    let held = semaphore.acquire().unwrap();
    let mut leaked = Box::pin(semaphore.acquire_many_arc_async(2));
    let waker = std::task::Waker::noop();
    let polled = leaked.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(polled.is_pending());
    std::mem::forget(leaked);
    drop(held);
}

at_each!(a_closed_manager_ends_the_wait_for_permits);
fn a_closed_manager_ends_the_wait_for_permits(setting: &Setting) {
    if setting.scope == Scope::Thread {
        return; // thread scope outlives its manager
    }
    let locks = setting.neighbour();
    let semaphore = semaphore(setting, &locks, 1);
    let held = semaphore.acquire().unwrap();
    thread::scope(|scope| {
        let front = scope.spawn(|| semaphore.acquire().map(drop));
        until_in_front(&semaphore);
        locks.close();
        assert_eq!(front.join().unwrap().unwrap_err().kind(), LockErrorKind::Config);
    });
    drop(held);
}

// ---- other processes ---------------------------------------------------------------------------

at!([process] permits_of_a_killed_process_come_back);
/// redisson#4462: permits of a crashed client never come back.
fn permits_of_a_killed_process_come_back(setting: &Setting) {
    let semaphore = semaphore(setting, &setting.locks(), 3);
    let mine = semaphore.acquire().unwrap();
    let mut other = setting.helper();
    other.ask(&format!("permits\t{}\ta\t3\t2", setting.scope));
    assert!(semaphore.try_acquire().unwrap_err().is_contended());
    assert_eq!(semaphore.available().unwrap(), 0);
    other.kill();
    // A try asks whether the holders live, once it is to fail.
    let again = semaphore.try_acquire_many(2).unwrap();
    assert!(semaphore.try_acquire().unwrap_err().is_contended());
    drop((mine, again));
    assert_eq!(semaphore.available().unwrap(), 3);
}

at!([process] a_taker_killed_in_front_lets_the_next_try);
fn a_taker_killed_in_front_lets_the_next_try(setting: &Setting) {
    let semaphore = semaphore(setting, &setting.locks(), 2);
    let held = semaphore.acquire().unwrap();
    let mut other = setting.helper();
    other.say(&format!("permits\t{}\ta\t2\t2", setting.scope));
    until_in_front(&semaphore);
    other.kill();
    drop(semaphore.try_acquire_for(LONG).unwrap());
    drop(held);
    drop(semaphore.try_acquire_many_for(2, LONG).unwrap());
}

at!([process] a_waiter_is_woken_by_another_process_and_by_its_death);
fn a_waiter_is_woken_by_another_process_and_by_its_death(setting: &Setting) {
    let semaphore = semaphore(setting, &setting.locks(), 2);
    for how in ["returned", "killed"] {
        let mut other = setting.helper();
        other.ask(&format!("permits\t{}\ta\t2\t2", setting.scope));
        let mut task = Hand::new(semaphore.acquire_async());
        assert!(task.poll().is_pending());
        until_in_front(&semaphore);
        match how {
            "returned" => drop(other.ask("return permits")),
            _ => other.kill(),
        }
        drop(task.finish().unwrap());
        drop(semaphore.acquire_many(2).unwrap());
    }
}

at!([process] a_limit_lasts_as_long_as_a_process_uses_it);
fn a_limit_lasts_as_long_as_a_process_uses_it(setting: &Setting) {
    let locks = setting.locks();
    let mut other = setting.helper();
    other.ask(&format!("permits\t{}\ta\t3\t1", setting.scope));
    let asked = || locks.semaphore("a", 5).scope(setting.scope).build();
    let error = asked().unwrap_err();
    assert!(error.to_string().contains("semaphore of 3 permits"), "{error}");
    other.kill();
    let five = asked().unwrap();
    // The dead process's one is struck once it is missed.
    drop(five.try_acquire_many(5).unwrap());
    let mut other = setting.helper();
    let answer = other.ask(&format!("permits\t{}\ta\t3\t1", setting.scope));
    assert!(answer.contains("semaphore of 5 permits"), "{answer}");
    let mutex = locks.mutex("a", ()).scope(setting.scope).build();
    assert_eq!(mutex.unwrap_err().kind(), LockErrorKind::Config);
}

at!([process] no_kill_lets_more_in_than_there_are_permits);
/// Takers of several processes that are killed at any time. Each that has permits also locks as many
/// of the files that there are, one for each permit: the kernel's locks end with their process.
fn no_kill_lets_more_in_than_there_are_permits(setting: &Setting) {
    crowd_under_kills(setting, 15);
}

/// `cargo test --all-features --test it many_kills -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn many_kills_let_no_more_in_than_there_are_permits() {
    crowd_under_kills(&Setting::process(), 1_000);
}

fn crowd_under_kills(setting: &Setting, kills: u64) {
    let folder = setting.directory().join("permits of a");
    std::fs::create_dir(&folder).unwrap();
    let start = |seed: u64| {
        let mut helper = setting.helper();
        helper.say(&format!("crowd\t{}\ta\t{}\t{seed}", setting.scope, folder.display()));
        helper
    };
    let rounds = || std::fs::metadata(folder.join("rounds")).map_or(0, |found| found.len());
    let mut helpers: Vec<Helper> = (0..3).map(start).collect();
    for kill in 0..kills {
        let before = rounds();
        until("more rounds", || rounds() > before + 20);
        for helper in &mut helpers {
            assert!(!helper.has_spoken(), "{}", helper.hear());
        }
        let victim = (kill * 7 % 3) as usize;
        helpers[victim].kill();
        helpers[victim] = start(3 + kill);
    }
    helpers.iter_mut().for_each(Helper::kill);
    let semaphore = semaphore(setting, &setting.locks(), crate::helper::CROWD_PERMITS);
    drop(semaphore.try_acquire_many_for(crate::helper::CROWD_PERMITS, LONG).unwrap());
}

// ---- between machines --------------------------------------------------------------------------

/// What a name's permits are as a leader knows them.
macro_rules! at_leaders {
    ($situation:ident) => {
        at!([host host_with_directory memory_host] $situation);
    };
}

at_leaders!(parted_permits_come_back_one_by_one);
fn parted_permits_come_back_one_by_one(setting: &Setting) {
    let [one, other] = two(setting, 4);
    let mut all = one.acquire_many(4).unwrap();
    let mut parts = vec![Permit::split(&mut all, 1).unwrap(), Permit::split(&mut all, 2).unwrap()];
    let inner = Permit::split(&mut parts[1], 1).unwrap();
    for (part, free) in [all, parts.remove(0), inner, parts.remove(0)].into_iter().zip(1..) {
        assert_eq!(Permit::check(&part).unwrap(), Permit::token(&part));
        let taken = other.try_acquire_many(free).unwrap_err();
        assert!(taken.is_contended(), "{taken}");
        drop(part);
        until_free(&other, free);
        drop(other.try_acquire_many_for(free, LONG).unwrap());
        until_free(&other, free);
    }
}

at_leaders!(permits_are_held_through_a_restart_of_the_leader);
/// redisson#4462, and the report that brings them back: also what came back while it was away.
fn permits_are_held_through_a_restart_of_the_leader(setting: &Setting) {
    let [one, other] = two(setting, 4);
    let mut three = one.acquire_many(3).unwrap();
    let token = Permit::token(&three);
    let far = other.acquire().unwrap();
    setting.stop_leader();
    let returned = Permit::split(&mut three, 1).unwrap();
    drop(returned);
    setting.start_leader();
    let again = other.try_acquire_for(LONG).unwrap();
    assert!(Permit::token(&again) > token && Permit::is_valid(&three) && Permit::is_valid(&far));
    assert!(one.try_acquire().unwrap_err().is_contended());
    assert_eq!(one.available().unwrap(), 0);
    drop((three, far, again));
    until_free(&one, 4);
}

at_leaders!(a_wait_for_permits_goes_on_through_a_restart_of_the_leader);
fn a_wait_for_permits_goes_on_through_a_restart_of_the_leader(setting: &Setting) {
    let [one, other] = two(setting, 2);
    let held = one.acquire().unwrap();
    thread::scope(|scope| {
        let large = scope.spawn(|| other.acquire_many(2).map(drop));
        until_in_front(&one);
        setting.stop_leader();
        setting.start_leader();
        until_in_front(&one);
        drop(held);
        large.join().unwrap().unwrap();
    });
}

at_leaders!(a_broken_permit_is_lost_with_those_taken_beside_it);
fn a_broken_permit_is_lost_with_those_taken_beside_it(setting: &Setting) {
    let (locks, far) = (setting.locks(), setting.remote());
    let [one, other] = [&locks, &far].map(|locks| semaphore(setting, locks, 3));
    let mut both = one.acquire_many(2).unwrap();
    let part = Permit::split(&mut both, 1).unwrap();
    let beside = other.acquire().unwrap();
    let (tell, told) = mpsc::channel();
    Permit::on_lost(&part, move |why| tell.send(why).unwrap());
    far.check_token("a", Permit::token(&part)).unwrap();
    far.break_lock("a", Permit::token(&part)).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), LostReason::Broken);
    for permit in [&both, &part] {
        let why = futures::executor::block_on(Permit::lost(permit));
        assert_eq!(why, LostReason::Broken);
    }
    assert!(Permit::is_valid(&beside));
    assert!(Permit::unlock_blocking(part).unwrap_err().is_lost());
    drop(other.try_acquire_many_for(2, LONG).unwrap());
    drop((both, beside));
    until_free(&other, 3);
}

at!([memory_host] permits_that_are_lost_are_told);
fn permits_that_are_lost_are_told(setting: &Setting) {
    let locks = setting.locks();
    let permit = semaphore(setting, &locks, 2);
    let permit = permit.acquire_many(2).unwrap();
    assert!(locks.lose_lock("a"));
    assert_eq!(Permit::check(&permit).unwrap_err().kind(), LockErrorKind::Lost);
    drop(permit);
    until_free(&semaphore(setting, &locks, 2), 2);
}

at!([host host_with_directory] permits_of_a_killed_session_come_back);
/// redisson#4462: permits of a crashed client never come back.
fn permits_of_a_killed_session_come_back(setting: &Setting) {
    let semaphore = semaphore(setting, &setting.locks(), 3);
    let mine = semaphore.acquire().unwrap();
    let mut other = setting.far_helper();
    other.ask(&format!("permits\t{}\ta\t3\t2", setting.scope));
    assert!(semaphore.try_acquire().unwrap_err().is_contended());
    other.kill();
    drop(semaphore.try_acquire_many_for(2, LONG).unwrap());
    assert!(Permit::is_valid(&mine));
}

at_leaders!(tries_of_one_process_do_not_fail_each_other);
fn tries_of_one_process_do_not_fail_each_other(setting: &Setting) {
    let locks = setting.locks();
    let semaphore = semaphore(setting, &locks, 8);
    // From then on the name is a leader's.
    drop(semaphore.acquire().unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    drop(semaphore.try_acquire_many(2).unwrap());
                    setting.until_heard(&locks);
                }
            });
        }
    });
}

at_leaders!(a_tasks_try_leaves_the_turn_of_one_that_waits);
/// A try asks past the turnstile, which the task that waits has.
fn a_tasks_try_leaves_the_turn_of_one_that_waits(setting: &Setting) {
    let [one, other] = two(setting, 2);
    let held = other.acquire_many(2).unwrap();
    let mut waiting = Hand::new(one.acquire_async());
    assert!(waiting.poll().is_pending());
    for _ in 0..3 {
        let tried = Hand::new(one.try_acquire_async()).finish();
        assert!(tried.unwrap_err().is_contended());
        let mut dropped = Hand::new(one.try_acquire_async());
        let _ = dropped.poll();
        drop(dropped);
    }
    drop(held);
    let got = waiting.finish().unwrap();
    // One that is never polled again has its permit back.
    let mut leaked = Box::pin(Arc::new(semaphore(setting, &setting.locks(), 2)).acquire_owned());
    let waker = std::task::Waker::noop();
    let _ = leaked.as_mut().poll(&mut std::task::Context::from_waker(waker));
    std::mem::forget(leaked);
    drop(got);
    drop(other.try_acquire_many_for(2, LONG).unwrap());
}

// ---- where there are none ----------------------------------------------------------------------

at!([process_file host_with_file_directory] file_locks_count_no_permits);
fn file_locks_count_no_permits(setting: &Setting) {
    let error = setting.locks().semaphore("a", 2).scope(setting.scope).build().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("Engine::Table"), "{error}");
    let threads = setting.locks().semaphore("b", 2).scope(Scope::Thread).build().unwrap();
    drop(threads.acquire_many(2).unwrap());
}

// ---- unnamed -----------------------------------------------------------------------------------

#[test]
fn an_unnamed_semaphore_needs_nothing() {
    static SEATS: Semaphore = Semaphore::new(2);
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        for number in 0..4 {
            let inside = &inside;
            scope.spawn(move || {
                for round in 0..300 {
                    let permit = match (number + round) % 3 {
                        0 => SEATS.acquire().unwrap(),
                        1 => futures::executor::block_on(SEATS.acquire_async()).unwrap(),
                        _ => match SEATS.try_acquire() {
                            Ok(permit) => permit,
                            Err(_) => continue,
                        },
                    };
                    assert!(inside.fetch_add(1, SeqCst) < 2);
                    inside.fetch_sub(1, SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(SEATS.available().unwrap(), 2);
    assert!(SEATS.try_acquire_many_for(3, SHORT).unwrap_err().kind() == LockErrorKind::Config);
}

/// The situations of tokio's tests of its semaphore that ours can be in.
mod tokio_situations {
    use super::*;

    #[test]
    fn a_permit_that_is_free_is_had_at_the_first_poll() {
        let semaphore = Semaphore::new(100);
        let mut one = Hand::new(semaphore.acquire_async());
        assert!(one.poll().is_ready());
        let many = Hand::new(semaphore.acquire_many_async(5)).finish().unwrap();
        assert_eq!(Permit::count(&many), 5);
    }

    #[test]
    fn waiters_are_served_in_order_as_permits_come_back() {
        let semaphore = Semaphore::new(5);
        let first = semaphore.try_acquire().unwrap();
        let rest = semaphore.try_acquire_many(4).unwrap();
        let mut two = Hand::new(semaphore.acquire_many_async(5));
        let mut three = Hand::new(semaphore.acquire_async());
        assert!(two.poll().is_pending() && three.poll().is_pending());
        drop(first);
        // Not enough for the first one, and the second one is not served before it.
        assert!(two.poll().is_pending() && three.poll().is_pending());
        drop(rest);
        let all = two.finish().unwrap();
        assert!(three.poll().is_pending());
        drop(all);
        drop(three.finish().unwrap());
    }

    #[test]
    fn a_cancelled_acquire_gives_its_turn_and_its_permits_back() {
        let semaphore = Semaphore::new(10);
        let held = semaphore.try_acquire_many(3).unwrap();
        let mut large = Hand::new(semaphore.acquire_many_async(8));
        let mut small = Hand::new(semaphore.acquire_many_async(1));
        assert!(large.poll().is_pending() && small.poll().is_pending());
        drop(large);
        drop(small.finish().unwrap());
        assert_eq!(semaphore.available().unwrap(), 7);
        drop(held);
        let permit = semaphore.try_acquire_many(8).unwrap();
        drop(permit);
        assert_eq!(semaphore.available().unwrap(), 10);
    }

    #[test]
    fn permits_come_back_when_they_are_dropped_in_any_order() {
        let semaphore = Semaphore::new(2);
        let one = semaphore.try_acquire().unwrap();
        let two = semaphore.try_acquire().unwrap();
        drop(one);
        assert_eq!(semaphore.available().unwrap(), 1);
        let again = semaphore.try_acquire().unwrap();
        drop((two, again));
        assert_eq!(semaphore.available().unwrap(), 2);
    }

    /// Leaked with its borrow, it stays out for good.
    #[test]
    fn a_forgotten_permit_is_gone() {
        let semaphore = Semaphore::new(2);
        std::mem::forget(semaphore.acquire().unwrap());
        assert_eq!(semaphore.available().unwrap(), 1);
        assert!(semaphore.try_acquire_many(2).unwrap_err().is_contended());
    }

    #[test]
    fn many_tasks_on_many_threads() {
        let semaphore = Arc::new(Semaphore::new(5));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..200)
                .map(|_| {
                    let semaphore = semaphore.clone();
                    tokio::spawn(async move {
                        let _permit = semaphore.acquire_async().await.unwrap();
                        tokio::task::yield_now().await;
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert!(semaphore.try_acquire_many(5).is_ok());
    }

    #[test]
    fn a_future_that_is_not_polled_again_loses_its_turn() {
        let semaphore = Arc::new(Semaphore::new(2));
        leak_in_front(&semaphore);
        drop(semaphore.try_acquire_for(LONG).unwrap());
        let next = Hand::new(semaphore.acquire_many_async(2)).finish().unwrap();
        drop(next);
    }
}
