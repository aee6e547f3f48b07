//! What is known of locks, as data: `status`, `holder`, `why`.

use tierlock::{FreedBy, LockErrorKind, LockState, MutexGuard, Scope};

use crate::setting::{Hand, Setting, at, until};

at!([process host host_with_directory memory_host] a_holder_and_its_waiters_are_known_as_data);
fn a_holder_and_its_waiters_are_known_as_data(setting: &Setting) {
    let (locks, others) = (setting.locks(), setting.remote());
    let never = others.status_of("never").unwrap();
    assert_eq!((never.state, never.scope), (LockState::Free, setting.scope));
    assert!(never.holder.is_none() && never.waiters.is_empty());

    let guard = setting.hold(&locks, "a");
    let held = others.status_of("a").unwrap();
    assert_eq!((held.state, held.token), (LockState::Held, MutexGuard::token(&guard)));
    let holder = others.holder("a").unwrap().expect("it is held");
    assert_eq!(holder.pid, Some(std::process::id()));
    assert_eq!(held.remaining.is_some(), setting.scope == Scope::Host);
    let why = others.why("a").unwrap();
    assert_eq!(why.freed_by(), FreedBy::Holder);
    assert_eq!(why.at_latest().is_some(), setting.scope == Scope::Host);
    assert!(why.stopped().is_empty());
    assert!(why.to_string().starts_with("a is held by "), "{why}");

    let waiter = setting.mutex(&others, "a", ());
    let mut wait = Hand::new(waiter.lock_async());
    assert!(wait.poll().is_pending());
    until("a waiter in the status", || {
        // A process's waiter is shown once it stands in the order of waits.
        let _ = wait.poll();
        let status = locks.status_of("a").unwrap();
        status.waiters.len() == 1 && status.waiters[0].pid == Some(std::process::id())
    });
    let all = locks.status().unwrap();
    assert_eq!(all.iter().map(|lock| lock.name.as_str()).collect::<Vec<_>>(), ["a"]);
    drop(guard);
    drop(wait.finish().unwrap());
    until("the end of it", || {
        matches!(others.why("a").unwrap().freed_by(), FreedBy::Nothing | FreedBy::Request)
    });
    assert!(others.status_of("a").unwrap().waiters.is_empty());
}

at!([process host] what_shares_a_lock_is_known_as_data);
fn what_shares_a_lock_is_known_as_data(setting: &Setting) {
    let (locks, others) = (setting.locks(), setting.remote());
    let lock = locks.rw_lock("a", ()).scope(setting.scope).build().unwrap();
    let permits = locks.semaphore("b", 3).scope(setting.scope).build().unwrap();
    let (reader, two) = (lock.read().unwrap(), permits.acquire_many(2).unwrap());
    let read = others.why("a").unwrap();
    assert_eq!((read.freed_by(), read.at_latest()), (FreedBy::Sharers, None));
    assert_eq!(read.status().sharers[0].holder.pid, Some(std::process::id()));
    assert!(others.holder("a").unwrap().is_none());
    let counted = others.status_of("b").unwrap();
    assert_eq!((counted.limit, counted.permits_taken), (Some(3), 2));
    assert_eq!(counted.sharers.iter().map(|sharer| sharer.count).sum::<u32>(), 2);
    drop((reader, two));
    let names = others.status().unwrap();
    assert!(names.is_sorted_by_key(|lock| lock.name.as_str().to_owned()));
}

at!([thread process] a_status_of_no_name_is_refused_in_words);
fn a_status_of_no_name_is_refused_in_words(setting: &Setting) {
    let error = setting.locks().status_of("").unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    assert_eq!(setting.locks().why("\n").unwrap_err().kind(), LockErrorKind::Config);
}
