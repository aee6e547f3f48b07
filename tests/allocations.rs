//! Where no allocation is promised, none is made.

mod counting;

use counting::allocations;
use tierlock::Mutex;

const CYCLES: u64 = 1_000;

/// `cycle` once, for what is made at the first use, and then as often as it may not allocate.
fn assert_allocates_nothing(mut cycle: impl FnMut()) {
    cycle();
    assert_eq!(allocations(|| (0..CYCLES).for_each(|_| cycle())), 0, "in {CYCLES} cycles");
}

#[test]
fn what_allocates_is_counted() {
    let made = allocations(|| (0..CYCLES).for_each(|cycle| drop(Box::new(cycle))));
    assert_eq!(made, CYCLES);
}

#[test]
fn quiet_lock_and_unlock_at_thread_scope_allocate_nothing() {
    let mutex = Mutex::new(0_u64);
    assert_allocates_nothing(|| *mutex.lock().unwrap() += 1);
    assert_eq!(mutex.into_inner(), CYCLES + 1);
}

#[test]
fn quiet_async_lock_at_thread_scope_allocates_nothing() {
    let mutex = Mutex::new(0_u64);
    assert_allocates_nothing(|| {
        *futures::executor::block_on(mutex.lock_async()).unwrap() += 1;
    });
}

#[test]
fn failed_try_at_thread_scope_allocates_nothing() {
    let mutex = Mutex::new(());
    let _guard = mutex.lock().unwrap();
    assert_allocates_nothing(|| assert!(mutex.try_lock().unwrap_err().is_contended()));
}

#[cfg(feature = "process")]
mod process {
    use tierlock::{LockManager, Scope};

    use super::*;

    #[test]
    fn quiet_lock_and_unlock_at_process_scope_allocate_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let locks = LockManager::builder().directory(directory.path()).open().unwrap();
        let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Process).build().unwrap();
        assert_allocates_nothing(|| *mutex.lock().unwrap() += 1);
    }

    #[test]
    fn quiet_async_lock_at_process_scope_allocates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let locks = LockManager::builder().directory(directory.path()).open().unwrap();
        let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Process).build().unwrap();
        assert_allocates_nothing(|| {
            *futures::executor::block_on(mutex.lock_async()).unwrap() += 1;
        });
    }

    /// Where another process is in the way, `tests/quiet.rs` counts.
    #[test]
    fn failed_try_behind_this_process_at_process_scope_allocates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let locks = LockManager::builder().directory(directory.path()).open().unwrap();
        let mutex = locks.mutex("held", ()).scope(Scope::Process).build().unwrap();
        let _guard = mutex.lock().unwrap();
        assert_allocates_nothing(|| assert!(mutex.try_lock().unwrap_err().is_contended()));
    }
}

/// While a lease is kept here, a lock between machines is as quiet as one of this machine.
#[cfg(feature = "host")]
mod host {
    use tempfile::TempDir;
    use tierlock::{Keep, Leader, LockManager, LockManagerBuilder, MutexGuard, Scope, Secret};

    use super::*;

    /// A leader on loopback, and a mutex of a manager of it that keeps its lease.
    struct Keeper {
        mutex: Mutex<u64>,
        _leader: Leader,
        _place: TempDir,
    }

    impl Keeper {
        fn new(and: impl FnOnce(LockManagerBuilder, &TempDir) -> LockManagerBuilder) -> Keeper {
            let place = tempfile::tempdir().unwrap();
            let secret = place.path().join("secret");
            Secret::create(&secret).unwrap();
            let leader = Leader::builder().listen("127.0.0.1:0").secret_file(&secret);
            let leader = leader.state_dir(place.path().join("leader")).init(true);
            let leader = leader.accept_file_system("tmpfs").start().unwrap();
            let locks = LockManager::builder().leaders([leader.local_addr().to_string()]);
            let locks = and(locks.secret_file(&secret), &place).open().unwrap();
            let mutex = locks.mutex("kept", 0).scope(Scope::Host).keep(Keep::Always);
            Keeper { mutex: mutex.build().unwrap(), _leader: leader, _place: place }
        }

        fn assert_allocates_nothing(&self) {
            let before = *self.mutex.lock().unwrap();
            assert_allocates_nothing(|| *self.mutex.lock().unwrap() += 1);
            assert_allocates_nothing(|| *self.mutex.try_lock().unwrap() += 1);
            assert_allocates_nothing(|| {
                *futures::executor::block_on(self.mutex.lock_async()).unwrap() += 1;
            });
            let guard = self.mutex.lock().unwrap();
            assert_eq!(MutexGuard::scope(&guard), Scope::Host);
            assert_eq!(*guard, before + 3 * (CYCLES + 1));
        }
    }

    #[test]
    fn locks_of_a_kept_lease_allocate_nothing() {
        Keeper::new(|locks, _| locks).assert_allocates_nothing();
    }

    #[cfg(feature = "process")]
    #[test]
    fn locks_of_a_kept_lease_with_a_directory_allocate_nothing() {
        let with_directory = |locks: LockManagerBuilder, place: &TempDir| {
            locks.directory(place.path().join("locks"))
        };
        Keeper::new(with_directory).assert_allocates_nothing();
    }

    #[test]
    fn a_failed_try_behind_a_kept_lease_in_use_allocates_nothing() {
        let keeper = Keeper::new(|locks, _| locks);
        let _guard = keeper.mutex.lock().unwrap();
        assert_allocates_nothing(|| assert!(keeper.mutex.try_lock().unwrap_err().is_contended()));
    }
}
