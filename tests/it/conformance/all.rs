//! Several locks at once: all or none, and no circle of callers that wait for each other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::*},
        mpsc,
    },
    thread,
    time::Duration,
};

use tierlock::{
    AllBuilder, AllRequest, LockErrorKind, LockManager, LostReason, MutexGuard, Predecessor, Scope,
};

use crate::setting::{Hand, LONG, Setting, at, until};

const SHORT: Duration = Duration::from_millis(20);

fn all<const N: usize>(setting: &Setting, locks: &LockManager, names: [&str; N]) -> AllBuilder {
    locks.all(names).scope(setting.scope)
}

/// Whether the name is free for another caller.
fn is_free(setting: &Setting, locks: &LockManager, name: &str) -> bool {
    match setting.mutex(locks, name, ()).try_lock() {
        Ok(guard) => {
            MutexGuard::hand_on(guard).unwrap();
            true
        }
        Err(error) => {
            assert!(error.is_contended(), "{error}");
            false
        }
    }
}

at!(everywhere, several_locks_are_had_together_or_not_at_all);
fn several_locks_are_had_together_or_not_at_all(setting: &Setting) {
    let (near, far) = (setting.locks(), setting.remote());
    let held = all(setting, &near, ["c", "a", "b"]).lock().unwrap();
    assert_eq!(held.len(), 3);
    let tokens: Vec<_> = held.tokens().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(tokens, ["c", "a", "b"]);
    for name in ["a", "b", "c"] {
        assert!(held.token(name).unwrap() > tierlock::Token::ZERO);
        assert_eq!(held.scope(name), Some(setting.scope));
        assert_eq!(held.predecessor(name), Some(Predecessor::Clean));
        assert!(!is_free(setting, &far, name));
    }
    assert_eq!((held.token("d"), held.scope("d")), (None, None));
    held.check().unwrap();
    // One of them is taken: the other is not had either.
    for names in [["0", "b"], ["b", "d"], ["d", "b"]] {
        let error = all(setting, &far, names).try_lock().unwrap_err();
        assert!(error.is_contended(), "{error}");
        assert_eq!(error.name(), Some("b"));
        let error = all(setting, &far, names).try_lock_for(SHORT).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(error.to_string().contains("\"b\""), "{error}");
        for name in names.into_iter().filter(|name| *name != "b") {
            until("a free name", || is_free(setting, &near, name));
        }
    }
    let before = held.token("a").unwrap();
    held.unlock().unwrap();
    let next = all(setting, &far, ["a", "b", "c"]).try_lock_for(LONG).unwrap();
    assert!(next.token("a").unwrap() > before);
    next.unlock_blocking().unwrap();
    assert!(is_free(setting, &near, "a") && is_free(setting, &near, "c"));
}

at!(everywhere, what_cannot_be_had_together_is_refused);
fn what_cannot_be_had_together_is_refused(setting: &Setting) {
    let locks = setting.locks();
    let error = all(setting, &locks, ["a", "b", "a"]).lock().unwrap_err();
    assert_eq!((error.kind(), error.name()), (LockErrorKind::Config, Some("a")), "{error}");
    assert!(error.to_string().contains("twice"), "{error}");
    let both = [AllRequest::exclusive("a"), AllRequest::shared("a")];
    let error = locks.all(both).scope(setting.scope).try_lock().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert_eq!(all(setting, &locks, []).lock().unwrap_err().kind(), LockErrorKind::Config);
    let error = all(setting, &locks, ["a", "b\n"]).lock().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(is_free(setting, &locks, "a"));
    // As a semaphore it is no lock, and what was taken before it goes back.
    if setting.scope == Scope::Thread {
        let _semaphore = locks.semaphore("b", 1).scope(setting.scope).build().unwrap();
        let error = all(setting, &locks, ["a", "b"]).lock().unwrap_err();
        assert_eq!((error.kind(), error.name()), (LockErrorKind::Config, Some("b")), "{error}");
        assert!(is_free(setting, &locks, "a"));
    }
}

at!(everywhere, readers_of_several_names_are_beside_each_other);
fn readers_of_several_names_are_beside_each_other(setting: &Setting) {
    let (near, far) = (setting.locks(), setting.remote());
    let requests = || [AllRequest::shared("a"), AllRequest::shared("b")];
    let read = |locks: &LockManager| locks.all(requests()).scope(setting.scope).lock().unwrap();
    let both = [read(&near), read(&far)];
    let writes = [AllRequest::shared("a"), AllRequest::exclusive("b")];
    let error = far.all(writes.clone()).scope(setting.scope).try_lock().unwrap_err();
    assert!(error.is_contended() && error.name() == Some("b"), "{error}");
    drop(both);
    let writer = far.all(writes).scope(setting.scope).try_lock_for(LONG).unwrap();
    assert!(!is_free(setting, &near, "a") && !is_free(setting, &near, "b"));
    drop(near.rw_lock("a", ()).scope(setting.scope).build().unwrap().read().unwrap());
    writer.hand_on().unwrap();
}

at!(everywhere, callers_in_any_order_never_wait_in_a_circle);
/// redisson#4050: several locks at once deadlock, or are left behind in part.
fn callers_in_any_order_never_wait_in_a_circle(setting: &Setting) {
    let rounds = setting.rounds().min(60) as usize;
    let inside: [AtomicU32; 3] = Default::default();
    thread::scope(|scope| {
        for (number, locks) in setting.crowd(4).into_iter().enumerate() {
            let inside = &inside;
            scope.spawn(move || {
                for round in 0..rounds {
                    let first = (number + round) % 3;
                    let second = (first + 1 + round % 2) % 3;
                    let names = [first, second].map(|name| ["a", "b", "c"][name]);
                    let several = all(setting, &locks, names);
                    let held = match round % 3 {
                        0 => several.lock().unwrap(),
                        1 => futures::executor::block_on(several.lock_async()).unwrap(),
                        _ => several.try_lock_for(LONG).unwrap(),
                    };
                    for name in [first, second] {
                        assert_eq!(inside[name].fetch_add(1, SeqCst), 0);
                    }
                    for name in [first, second] {
                        inside[name].fetch_sub(1, SeqCst);
                    }
                    drop(held);
                }
            });
        }
    });
}

at!(everywhere, a_caller_of_single_locks_in_the_same_order_is_not_held_up);
/// It has the first name and asks for the second, which the caller of both must not keep from it while
/// that waits for the first.
fn a_caller_of_single_locks_in_the_same_order_is_not_held_up(setting: &Setting) {
    let others = [setting.locks(), setting.neighbour(), setting.remote()];
    for round in 0..12_usize {
        let (one, other) = (setting.locks(), &others[round % 3]);
        thread::scope(|scope| {
            let first = setting.hold(&one, "a");
            let both = scope.spawn(|| all(setting, other, ["b", "a"]).lock().map(drop));
            (0..round * 20).for_each(|_| thread::yield_now());
            let second = setting.mutex(&one, "b", ()).try_lock_for(LONG).map(drop);
            drop(first);
            second.unwrap();
            both.join().unwrap().unwrap();
        });
    }
}

at!(everywhere, one_that_waits_has_those_before_it_and_none_behind_it);
fn one_that_waits_has_those_before_it_and_none_behind_it(setting: &Setting) {
    let (near, far) = (setting.locks(), setting.remote());
    let middle = setting.hold(&near, "b");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| all(setting, &far, ["a", "b", "c"]).lock().unwrap());
        until("the first of them held", || !is_free(setting, &near, "a"));
        assert!(is_free(setting, &near, "c"));
        drop(middle);
        let held = waiting.join().unwrap();
        assert!(!is_free(setting, &near, "c"));
        held.unlock_blocking().unwrap();
    });
    // A task that is dropped gives them back.
    let middle = setting.hold(&near, "b");
    let mut waiting = Hand::new(all(setting, &far, ["a", "b"]).lock_async());
    until("the first of them held", || {
        assert!(waiting.poll().is_pending());
        !is_free(setting, &near, "a")
    });
    drop(waiting);
    until("a free name", || is_free(setting, &near, "a"));
    drop(middle);
    let task = Hand::new(all(setting, &far, ["a", "b"]).try_lock_for_async(LONG));
    drop(task.finish().unwrap());
    drop(Hand::new(near.lock_all_async(["x"])));
}

at!(everywhere, a_holder_of_several_that_panics_is_told_of_each);
fn a_holder_of_several_that_panics_is_told_of_each(setting: &Setting) {
    let locks = setting.locks();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = all(setting, &locks, ["a", "b"]).lock().unwrap();
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    let next = all(setting, &locks, ["a", "b"]).try_lock_for(LONG).unwrap();
    for name in ["a", "b"] {
        assert_eq!(next.predecessor(name), Some(Predecessor::Panicked));
    }
}

at!(with_leader, the_loss_of_one_is_the_loss_of_all);
fn the_loss_of_one_is_the_loss_of_all(setting: &Setting) {
    let (locks, far) = (setting.locks(), setting.remote());
    let held = all(setting, &locks, ["b", "a"]).lock().unwrap();
    let (tell, told) = mpsc::channel();
    held.on_lost(move |why| tell.send(why).unwrap());
    let lost = held.lost();
    assert!(held.remaining().unwrap() > Duration::ZERO && held.is_valid());
    far.break_lock("b", held.token("b").unwrap()).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), LostReason::Broken);
    assert_eq!(futures::executor::block_on(lost), LostReason::Broken);
    assert!(!held.is_valid());
    let error = held.check().unwrap_err();
    assert!(error.is_lost() && error.name() == Some("b"), "{error}");
    // The other is held until it goes.
    assert!(!is_free(setting, &far, "a"));
    far.check_token("a", held.token("a").unwrap()).unwrap();
    assert!(held.unlock_blocking().unwrap_err().is_lost());
    assert!(told.try_recv().is_err(), "it is told once");
    assert!(is_free(setting, &far, "a"));
}

at!(with_leader, several_are_held_and_waited_for_through_a_restart_of_the_leader);
fn several_are_held_and_waited_for_through_a_restart_of_the_leader(setting: &Setting) {
    let (near, far) = (setting.locks(), Arc::new(setting.remote()));
    let held = all(setting, &near, ["a", "b"]).lock().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| all(setting, &far, ["b", "0"]).lock().map(drop));
        until("the first of them held", || !is_free(setting, &near, "0"));
        setting.stop_leader();
        setting.start_leader();
        held.check().unwrap();
        assert!(!is_free(setting, &near, "0"));
        held.unlock().unwrap();
        waiting.join().unwrap().unwrap();
    });
}
