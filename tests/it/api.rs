//! What the compiler promises users: Send, Sync, `'static`, sizes.

use std::{cell::Cell, future::Future, rc::Rc, sync::Arc, time::Duration};

use static_assertions::{assert_impl_all, assert_not_impl_any};
use tierlock::{
    Keep, LockError, LockErrorKind, LockManager, LockManagerBuilder, Lost, LostReason, Mutex,
    MutexBuilder, MutexGuard, Predecessor, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard,
    RwLockWriteGuard, Scope, Token,
};

assert_impl_all!(Mutex<Cell<u8>>: Send, Sync);
assert_not_impl_any!(Mutex<Rc<u8>>: Send, Sync);
assert_impl_all!(MutexGuard<'static, u8>: Send, Sync, Unpin);
assert_impl_all!(MutexGuard<'static, Cell<u8>>: Send);
assert_not_impl_any!(MutexGuard<'static, Cell<u8>>: Sync);
assert_not_impl_any!(MutexGuard<'static, Rc<u8>>: Send, Sync);
assert_not_impl_any!(MutexGuard<'static, u8>: Clone);
assert_impl_all!(RwLock<u8>: Send, Sync);
assert_impl_all!(RwLock<Cell<u8>>: Send);
assert_not_impl_any!(RwLock<Cell<u8>>: Sync);
assert_not_impl_any!(RwLock<Rc<u8>>: Send, Sync);
assert_impl_all!(RwLockReadGuard<'static, u8>: Send, Sync, Unpin);
assert_not_impl_any!(RwLockReadGuard<'static, u8>: Clone, std::ops::DerefMut);
assert_not_impl_any!(RwLockReadGuard<'static, Cell<u8>>: Send, Sync);
assert_not_impl_any!(RwLockUpgradableReadGuard<'static, Cell<u8>>: Send, Sync, std::ops::DerefMut);
assert_not_impl_any!(RwLockWriteGuard<'static, Cell<u8>>: Send, Sync);
assert_impl_all!(RwLockWriteGuard<'static, u8>: Send, Sync, std::ops::DerefMut);
assert_impl_all!(Lost: Clone, Send, Future<Output = LostReason>);
assert_impl_all!(LockManager: Clone, Send, Sync);
assert_impl_all!(LockManagerBuilder: Clone, Send, Sync);
assert_impl_all!(MutexBuilder<u8>: Send);
assert_impl_all!(LockError: Send, Sync, std::error::Error);
assert_impl_all!(Token: Copy, Ord, std::fmt::Display, std::str::FromStr, std::hash::Hash);

#[test]
fn an_error_is_one_pointer_wide() {
    assert_eq!(size_of::<LockError>(), 8);
}

#[test]
fn a_mutex_is_const() {
    static HITS: Mutex<u64> = Mutex::new(7);
    assert_eq!(*HITS.lock().unwrap(), 7);
    assert_eq!(HITS.scope(), Scope::Thread);
    assert_eq!(HITS.name(), None);
}

#[test]
fn lost_does_not_borrow_the_guard() {
    fn is_static<T: Send + 'static>(_: &T) {}
    let mutex = Mutex::new(1);
    let guard = mutex.lock().unwrap();
    let lost = MutexGuard::lost(&guard);
    is_static(&lost);
    drop(guard);
    drop(mutex);
    drop(lost.clone());
}

#[test]
fn every_future_of_the_api_is_send() {
    fn is_send<T: Send>(_: T) {}
    let mutex = Arc::new(Mutex::new(Cell::new(0)));
    let wait = Duration::from_millis(1);
    is_send(mutex.lock_async());
    is_send(mutex.try_lock_async());
    is_send(mutex.try_lock_for_async(wait));
    is_send(mutex.lock_arc_async());
    is_send(mutex.try_lock_arc_async());
    is_send(mutex.try_lock_arc_for_async(wait));
    is_send(mutex.escalate_async(Scope::Host));
    is_send(MutexGuard::unlock_async(mutex.lock().unwrap()));
    let lock = Arc::new(RwLock::new(0));
    is_send(lock.read_async());
    is_send(lock.write_arc_async());
    is_send(lock.try_upgradable_read_for_async(wait));
    is_send(RwLockUpgradableReadGuard::upgrade_async(lock.upgradable_read().unwrap()));
    let locks = LockManager::builder().open().unwrap();
    is_send(locks.mutex("a", ()).lock_async());
    is_send(locks.mutex("a", ()).try_lock_async());
    is_send(locks.mutex("a", ()).try_lock_for_async(wait));
    is_send(locks.close_async());
    is_send(locks.check_token_async("a", Token::ZERO));
    is_send(locks.break_lock_async("a", Token::ZERO));
}

#[test]
fn a_mutex_may_hold_what_has_no_size() {
    let mutex: &Mutex<[u8]> = &Mutex::new([1, 2, 3]);
    mutex.lock().unwrap()[0] = 9;
    assert_eq!(&*mutex.lock().unwrap(), &[9, 2, 3]);
}

#[test]
fn get_mut_and_into_inner_need_no_lock() {
    let mut mutex = Mutex::from(1);
    *mutex.get_mut() += 1;
    assert_eq!(mutex.into_inner(), 2);
}

#[test]
fn a_part_of_the_data_can_be_guarded() {
    let mutex = Arc::new(Mutex::new((1, "one".to_owned())));
    let number = MutexGuard::map(mutex.lock_arc().unwrap(), |pair| &mut pair.0);
    assert!(mutex.try_lock().is_err());
    drop(number);
    let missing = MutexGuard::try_map(mutex.lock().unwrap(), |pair| pair.1.get_mut(9..));
    let whole = missing.unwrap_err();
    assert_eq!(whole.0, 1);
    drop(whole);
    assert!(mutex.try_lock().is_ok());
}

#[test]
fn a_panic_while_holding_is_told_to_the_next() {
    let mutex = Mutex::new(0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = mutex.lock().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let guard = mutex.lock().unwrap();
    assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Panicked);
    drop(guard);
    assert_eq!(MutexGuard::predecessor(&mutex.lock().unwrap()), Predecessor::Clean);
}

#[test]
fn a_panic_is_told_although_the_name_was_not_used_in_between() {
    let locks = LockManager::builder().open().unwrap();
    let panicked = std::panic::catch_unwind(|| {
        let _guard = locks.mutex("half-done", ()).lock().unwrap();
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    let guard = locks.mutex("half-done", ()).lock().unwrap();
    assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Panicked);
}

#[test]
fn tokens_of_a_forgotten_name_do_not_go_back() {
    let locks = LockManager::builder().open().unwrap();
    let mut last = Token::ZERO;
    for _ in 0..10 {
        // The only mutex of the name goes away each time.
        let guard = locks.mutex("order", ()).lock().unwrap();
        assert!(MutexGuard::token(&guard) > last);
        last = MutexGuard::token(&guard);
    }
}

#[test]
fn clones_of_a_manager_are_one_and_others_are_not() {
    let locks = LockManager::builder().open().unwrap();
    let guard = locks.mutex("a", ()).lock().unwrap();
    assert!(locks.clone().mutex("a", ()).try_lock().unwrap_err().is_contended());
    let other = LockManager::builder().open().unwrap();
    assert!(other.mutex("a", ()).try_lock().is_ok());
    drop(guard);
}

#[test]
fn a_timed_try_reports_the_holder() {
    let locks = LockManager::builder().label("checkout").open().unwrap();
    let _guard = locks.mutex("a", ()).lock().unwrap();
    let busy = locks.mutex("a", ()).try_lock_for(Duration::from_millis(5)).unwrap_err();
    assert!(busy.is_timeout() && busy.is_contended() && busy.is_retryable());
    assert_eq!(busy.name(), Some("a"));
    assert_eq!(busy.scope(), Some(Scope::Thread));
    assert!(busy.waited().unwrap() >= Duration::from_millis(5));
    let holder = busy.holder().unwrap();
    assert_eq!(holder.label, "checkout");
    assert_eq!(holder.pid, Some(std::process::id()));
    assert!(busy.to_string().contains("checkout"), "{busy}");
}

#[test]
fn bad_settings_are_clear_errors() {
    let locks = LockManager::builder().open().unwrap();
    let config = |result: tierlock::Result<Mutex<()>>, word: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
        assert!(error.to_string().contains(word), "{error} lacks {word:?}");
    };
    config(locks.mutex("", ()).build(), "empty");
    config(locks.mutex("a\0b", ()).build(), "control");
    config(locks.mutex("x".repeat(256), ()).build(), "256 bytes");
    config(locks.mutex("a", ()).scope(Scope::Process).build(), "directory");
    config(locks.mutex("a", ()).scope(Scope::Host).build(), "leader");
    config(locks.mutex("a", ()).at_most(Duration::ZERO).build(), "at_most");
    let (long, short) = (Duration::from_secs(2), Duration::from_secs(1));
    config(locks.mutex("a", ()).at_least(long).at_most(short).build(), "longer");
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    assert!(locks.mutex("a", ()).at_least(days(31)).build().is_ok());
    config(locks.mutex("a", ()).at_least(days(32)).build(), "31 days");
    for time_to_live in [Duration::from_millis(999), Duration::from_secs(61)] {
        let error = LockManager::builder().time_to_live(time_to_live).open().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains("1 s to 60 s"), "{error}");
    }
    let unnamed = Mutex::new(()).escalate(Scope::Process).unwrap_err();
    assert_eq!(unnamed.kind(), LockErrorKind::Config);
}

#[test]
fn at_most_ends_the_right_and_not_the_borrow() {
    let locks = LockManager::builder().open().unwrap();
    let mutex = locks.mutex("a", 1).at_most(Duration::from_millis(20)).build().unwrap();
    let mut guard = mutex.lock().unwrap();
    assert!(MutexGuard::remaining(&guard).unwrap() <= Duration::from_millis(20));
    let (tell, told) = std::sync::mpsc::channel();
    MutexGuard::on_lost(&guard, move |reason| tell.send(reason).unwrap());
    assert_eq!(futures::executor::block_on(MutexGuard::lost(&guard)), LostReason::HeldTooLong);
    assert_eq!(told.recv().unwrap(), LostReason::HeldTooLong);
    assert!(!MutexGuard::is_valid(&guard));
    assert!(MutexGuard::check(&guard).unwrap_err().is_lost());
    *guard += 1; // still ours alone
    assert!(mutex.try_lock().unwrap_err().is_contended());
    let error = MutexGuard::unlock(guard).unwrap_err();
    assert!(error.is_lost());
    assert_eq!(error.name(), Some("a"));
    assert_eq!(*mutex.lock().unwrap(), 2);
}

#[test]
fn at_least_outlives_the_guard_and_the_mutex() {
    let locks = LockManager::builder().open().unwrap();
    let start = std::time::Instant::now();
    let at_least = Duration::from_millis(50);
    drop(locks.mutex("a", ()).at_least(at_least).lock().unwrap());
    assert!(locks.mutex("a", ()).try_lock().is_err());
    drop(locks.mutex("a", ()).lock().unwrap());
    assert!(start.elapsed() >= at_least);
    let guard = locks.mutex("a", ()).at_least(at_least).lock().unwrap();
    futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
    assert!(locks.mutex("a", ()).try_lock().is_ok());
}

#[test]
fn terms_are_part_of_the_builder() {
    let locks = LockManager::builder().open().unwrap();
    for keep in [Keep::Adaptive, Keep::Always, Keep::Never] {
        assert!(locks.mutex("a", ()).keep(keep).build().is_ok());
    }
    assert_eq!(locks.mutex("a", ()).build().unwrap().scope(), Scope::Thread);
    assert_eq!(locks.mutex("a", ()).build().unwrap().name(), Some("a"));
}

#[test]
fn scopes_and_tokens_read_what_they_write() {
    for scope in Scope::ALL {
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
    assert!("machine".parse::<Scope>().is_err());
    let token = Token::new(42).unwrap();
    assert_eq!(token.to_string().parse(), Ok(token));
    assert_eq!(Token::new(1 << 63), None);
    assert!("9223372036854775808".parse::<Token>().is_err());
    assert_eq!(Token::MAX.as_i64(), i64::MAX);
}

#[test]
fn an_error_is_cloned_compared_and_becomes_an_io_error() {
    let mutex = Mutex::new(());
    let _guard = mutex.lock().unwrap();
    let busy = || mutex.try_lock().map(drop).unwrap_err();
    assert_eq!(busy(), busy());
    let timed_out = mutex.try_lock_for(Duration::ZERO).map(drop).unwrap_err();
    assert_eq!(timed_out.clone(), timed_out);
    assert_ne!(timed_out, busy());
    let locks = LockManager::builder().open().unwrap();
    let config = || locks.mutex("a\n", ()).build().map(drop).unwrap_err();
    assert_eq!(config(), config());
    assert_eq!(config().to_string(), config().clone().to_string());
    for (error, kind) in [
        (busy(), std::io::ErrorKind::WouldBlock),
        (timed_out, std::io::ErrorKind::TimedOut),
        (config(), std::io::ErrorKind::InvalidInput),
    ] {
        let io = std::io::Error::from(error.clone());
        assert_eq!(io.kind(), kind);
        assert_eq!(io.get_ref().unwrap().downcast_ref(), Some(&error));
    }
    // What the system said keeps its kind.
    let files = tempfile::tempdir().unwrap();
    let missing = files.path().join("missing").join("locks");
    let error = LockManager::builder().directory(missing).open().map(drop).unwrap_err();
    assert!(std::io::Error::from(error.clone()).kind() != std::io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn a_token_is_a_number_in_serde() {
    let token = Token::new(42).unwrap();
    assert_eq!(serde_json::to_string(&token).unwrap(), "42");
    assert_eq!(serde_json::from_str::<Token>("42").unwrap(), token);
    for bad in ["9223372036854775808", "-1", "1.5", "\"42\""] {
        assert!(serde_json::from_str::<Token>(bad).is_err(), "{bad}");
    }
}

/// A waker is foreign code: it may use the manager whenever it is cloned.
#[cfg(feature = "testing")]
#[test]
fn a_waker_may_use_the_manager_when_it_is_cloned() {
    use std::{
        mem::ManuallyDrop,
        pin::pin,
        sync::mpsc,
        task::{Context, RawWaker, RawWakerVTable, Waker},
    };

    type OnClone = Box<dyn Fn() + Send + Sync>;

    unsafe fn clone(it: *const ()) -> RawWaker {
        // SAFETY: `it` came of `into_raw`, and its share is that of the waker that is cloned.
        let its = ManuallyDrop::new(unsafe { Arc::from_raw(it.cast::<OnClone>()) });
        its();
        RawWaker::new(Arc::into_raw(Arc::clone(&its)).cast(), &TABLE)
    }
    unsafe fn give_up(it: *const ()) {
        // SAFETY: as above, and the waker goes.
        drop(unsafe { Arc::from_raw(it.cast::<OnClone>()) });
    }
    const TABLE: RawWakerVTable = RawWakerVTable::new(clone, give_up, |_| (), give_up);

    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let locks = LockManager::in_memory();
        let user = locks.clone();
        let on_clone: OnClone = Box::new(move || drop(user.mutex("b", ()).lock().unwrap()));
        let raw = RawWaker::new(Arc::into_raw(Arc::new(on_clone)).cast(), &TABLE);
        // SAFETY: the functions above keep to what a waker promises.
        let waker = unsafe { Waker::from_raw(raw) };
        let mut observer = locks.election("primary").observe().unwrap();
        for _ in 0..3 {
            let _ = pin!(observer.next_async()).poll(&mut Context::from_waker(&waker));
        }
        let held = locks.mutex("a", ()).lock().unwrap();
        let mutex = locks.mutex("a", ()).build().unwrap();
        let mut waiting = pin!(mutex.lock_async());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(held);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("it is cloned where nothing is locked");
}
