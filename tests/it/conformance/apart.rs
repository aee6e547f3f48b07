//! Upgrades and downgrades between machines, and everything that crosses them.

use std::{
    sync::{Arc, mpsc::channel},
    thread,
    time::Duration,
};

use tierlock::{
    Keep, LockErrorKind, LockManager, LostReason, MutexGuard, Permit, RwLock,
    RwLockReadGuard as Read, RwLockUpgradableReadGuard as Upgradable, RwLockWriteGuard as Write,
    Scope,
};

use crate::setting::{Hand, LONG, LONG_LIFE, SHORT_LIFE, Setting, at, until};

fn lock_of<T>(setting: &Setting, locks: &LockManager, value: T) -> RwLock<T> {
    locks.rw_lock("a", value).scope(setting.scope).build().unwrap()
}

/// One lock of this machine and one of another.
fn both(setting: &Setting) -> [RwLock<u64>; 2] {
    [setting.locks(), setting.remote()].map(|locks| lock_of(setting, &locks, 0))
}

at!(with_leader, an_upgrade_asks_what_others_keep_back);
fn an_upgrade_asks_what_others_keep_back(setting: &Setting) {
    let [lock, far] = both(setting);
    for lock in [&lock, &far] {
        drop(lock.read().unwrap());
    }
    let seen = lock.upgradable_read().unwrap();
    // No reader is inside: what both machines keep is in no way for long.
    let writer = Upgradable::try_upgrade(seen).unwrap();
    assert!(far.try_read().unwrap_err().is_contended());
    drop(writer);
    drop(far.try_read_for(LONG).unwrap());
}

at!(with_leader, an_upgrade_that_waits_lets_no_reader_in_and_passes_a_writer);
/// shuttle#351: an upgrade lets a queued writer in between.
fn an_upgrade_that_waits_lets_no_reader_in_and_passes_a_writer(setting: &Setting) {
    let [lock, far] = both(setting);
    let inside = [far.read().unwrap(), lock.read().unwrap()];
    let seen = lock.upgradable_read().unwrap();
    thread::scope(|scope| {
        // Of this process, which has its turnstile, and of another machine.
        let writers = [&lock, &far].map(|lock| scope.spawn(|| *lock.write().unwrap() += 10));
        let mut upgrade = Hand::new(Upgradable::upgrade_async(seen));
        assert!(upgrade.poll().is_pending());
        until("no reader comes in", || far.try_read().is_err() && lock.try_read().is_err());
        drop(inside);
        let mut writer = upgrade.finish().unwrap();
        assert!(writers.iter().all(|writer| !writer.is_finished()));
        assert_eq!(*writer, 0);
        *writer += 1;
        drop(writer);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    assert_eq!(*lock.read().unwrap(), 11);
}

at!(with_leader, an_upgrade_that_is_given_up_leaves_an_upgradable_reader);
fn an_upgrade_that_is_given_up_leaves_an_upgradable_reader(setting: &Setting) {
    const SHORT: Duration = Duration::from_millis(5);
    let [lock, far] = both(setting);
    let inside = far.read().unwrap();
    let seen = lock.upgradable_read().unwrap();
    let mut seen = Upgradable::try_upgrade_for(seen, SHORT).unwrap_err();
    for _ in 0..3 {
        drop(far.try_read_for(LONG).unwrap());
        drop(lock.try_read_for(LONG).unwrap());
        assert!(far.try_upgradable_read().unwrap_err().is_contended());
        seen = Upgradable::try_upgrade(seen).unwrap_err();
        assert!(Upgradable::is_valid(&seen));
    }
    drop(inside);
    let mut writer = Upgradable::try_upgrade_for(seen, LONG).unwrap();
    *writer += 1;
    assert!(Write::is_valid(&writer));
}

at!(with_leader, an_upgrade_whose_future_is_dropped_releases_the_lock);
fn an_upgrade_whose_future_is_dropped_releases_the_lock(setting: &Setting) {
    let [lock, far] = both(setting);
    for is_granted in [false, true] {
        let inside = far.read().unwrap();
        let seen = lock.upgradable_read().unwrap();
        let mut upgrade = Hand::new(Upgradable::upgrade_async(seen));
        assert!(upgrade.poll().is_pending());
        if is_granted {
            // Granted while the future is not polled: by then none else can come in.
            drop(inside);
            until("it is granted", || far.try_read().is_err());
            drop(upgrade);
        } else {
            drop(upgrade);
            drop(far.try_upgradable_read_for(LONG).unwrap());
            drop(inside);
        }
        drop(far.try_write_for(LONG).unwrap());
        drop(lock.try_write_for(LONG).unwrap());
    }
}

at!(with_leader, an_upgrade_outlives_its_leader);
fn an_upgrade_outlives_its_leader(setting: &Setting) {
    let [lock, far] = both(setting);
    let inside = far.read().unwrap();
    let seen = lock.upgradable_read().unwrap();
    let before = Upgradable::token(&seen);
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| Upgradable::upgrade(seen));
        until("the upgrade waits", || far.try_read().is_err());
        setting.stop_leader();
        setting.start_leader();
        // The reader of the other machine comes back, too, and is waited for.
        assert!(Read::is_valid(&inside) && !upgrade.is_finished());
        drop(inside);
        let mut writer = upgrade.join().unwrap().unwrap();
        assert!(Write::token(&writer) > before);
        *writer += 1;
        let reader = Write::downgrade(writer).unwrap();
        drop(far.try_read_for(LONG).unwrap());
        assert_eq!(*reader, 1);
    });
}

at!(with_leader, a_downgrade_lets_readers_in_at_once_and_no_writer);
/// curator#1138, #796: a downgrade lets a queued writer in beside the new reader.
fn a_downgrade_lets_readers_in_at_once_and_no_writer(setting: &Setting) {
    let [lock, far] = both(setting);
    let third = lock_of(setting, &setting.remote(), 0);
    let writer = lock.write().unwrap();
    let written = Write::token(&writer);
    let mut waits = [Hand::new(lock.read_async()), Hand::new(far.read_async())];
    assert!(waits.iter_mut().all(|wait| wait.poll().is_pending()));
    let mut late = Hand::new(third.write_async());
    let reader = Write::downgrade(writer).unwrap();
    let beside = waits.map(|wait| wait.finish().unwrap());
    assert!(late.poll().is_pending());
    // Readers are above the writer that one of them was, which hears of that a little later.
    assert!(beside.iter().all(|reader| Read::token(reader) > written));
    until("it has the token of readers", || Read::token(&reader) > written);
    assert!(late.poll().is_pending());
    drop((reader, beside));
    drop(late.finish().unwrap());
}

at!([memory_host] the_loss_of_a_lease_ends_its_upgrade);
fn the_loss_of_a_lease_ends_its_upgrade(setting: &Setting) {
    let locks = setting.locks();
    let (lock, far) = (lock_of(setting, &locks, 0), lock_of(setting, &setting.remote(), 0));
    for is_try in [false, true] {
        let inside = far.read().unwrap();
        let seen = lock.upgradable_read().unwrap();
        let lost = Upgradable::lost(&seen);
        let (tell, told) = channel();
        Upgradable::on_lost(&seen, move |reason| tell.send(reason).unwrap());
        let mut upgrade = Hand::new(Upgradable::upgrade_async(seen));
        assert!(upgrade.poll().is_pending());
        if is_try {
            drop(upgrade);
            assert_eq!(told.recv().ok(), None, "it was released in good order");
            continue;
        }
        assert!(locks.lose_lock("a"));
        assert!(upgrade.finish().unwrap_err().is_lost());
        assert_eq!(Hand::new(lost).finish(), LostReason::Provoked);
        assert_eq!(told.iter().collect::<Vec<_>>(), [LostReason::Provoked]);
        assert!(!Read::is_valid(&inside));
        drop(inside);
        drop(far.write().unwrap());
    }
    drop(lock.write().unwrap());
}

at!([host] an_upgrade_ends_with_its_session);
fn an_upgrade_ends_with_its_session(setting: &Setting) {
    let short = setting.neighbour_with(|builder| builder.time_to_live(SHORT_LIFE));
    let lock = lock_of(setting, &short, 0);
    let far = lock_of(setting, &setting.remote_with(|builder| builder.time_to_live(LONG_LIFE)), 0);
    let inside = far.read().unwrap();
    let seen = lock.upgradable_read().unwrap();
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| Upgradable::upgrade(seen).map(drop));
        until("the upgrade waits", || far.try_read().is_err());
        setting.stop_leader();
        assert!(upgrade.join().unwrap().unwrap_err().is_lost());
        setting.start_leader();
    });
    assert!(Read::is_valid(&inside));
    drop(inside);
    drop(lock.try_write_for(LONG).unwrap());
}

at!([host host_with_directory memory_host] readers_that_keep_nothing_stand_beside_each_other);
fn readers_that_keep_nothing_stand_beside_each_other(setting: &Setting) {
    let locks = setting.locks();
    let made = || locks.rw_lock("a", 0).scope(setting.scope);
    let kept = made().build().unwrap();
    let never = made().keep(Keep::Never).build().unwrap();
    let ending = made().at_most(LONG).build().unwrap();
    for first in [&kept, &never, &ending] {
        let inside = first.read().unwrap();
        let beside = [&kept, &never, &ending].map(|lock| lock.try_read_for(LONG).unwrap());
        assert!(beside.iter().all(Read::is_valid) && Read::is_valid(&inside));
        assert!(kept.try_write().unwrap_err().is_contended());
    }
    drop(kept.try_write_for(LONG).unwrap());
}

at!([memory_host] a_guard_that_lost_its_lease_keeps_its_process_out_until_it_goes);
fn a_guard_that_lost_its_lease_keeps_its_process_out_until_it_goes(setting: &Setting) {
    let locks = setting.locks();
    let (lock, far) = (lock_of(setting, &locks, 0), lock_of(setting, &setting.remote(), 0));
    let lose = || assert!(locks.lose_lock("a"));
    // An upgradable reader: readers beside it, no writer and no other upgradable one.
    let seen = lock.upgradable_read().unwrap();
    lose();
    drop(far.write().unwrap());
    drop(lock.try_read().unwrap());
    assert!(lock.try_write().unwrap_err().is_contended());
    assert!(lock.try_upgradable_read().unwrap_err().is_contended());
    drop(far.try_write().unwrap());
    let seen = Upgradable::try_upgrade(seen).unwrap_err();
    assert!(Upgradable::downgrade(seen).unwrap_err().is_lost());
    // The writer that it became: none.
    let writer = Upgradable::upgrade(lock.upgradable_read().unwrap()).unwrap();
    lose();
    assert!(lock.try_read().unwrap_err().is_contended());
    assert!(lock.try_write().unwrap_err().is_contended());
    drop(far.try_write().unwrap());
    drop(writer);
    // The reader that a writer became: readers and an upgradable one, no writer.
    let reader = Write::downgrade(lock.write().unwrap()).unwrap();
    lose();
    drop(lock.try_read().unwrap());
    let seen = lock.try_upgradable_read().unwrap();
    assert!(lock.try_write().unwrap_err().is_contended());
    // Nor does a lease of its own make a writer of one that it stands beside.
    let seen = Upgradable::try_upgrade(seen).unwrap_err();
    drop(far.try_read().unwrap());
    drop(reader);
    drop(Upgradable::try_upgrade(seen).unwrap());
    // A reader that came in by the lease that the process shares: likewise.
    let reader = lock.read().unwrap();
    lose();
    let seen = lock.try_upgradable_read().unwrap();
    let seen = Upgradable::try_upgrade(seen).unwrap_err();
    drop(reader);
    drop(Upgradable::upgrade(seen).unwrap());
    drop(lock.try_write().unwrap());
}

at!([memory_host] a_promise_to_tell_a_loss_moves_with_the_guard);
fn a_promise_to_tell_a_loss_moves_with_the_guard(setting: &Setting) {
    let locks = setting.locks();
    let lock = lock_of(setting, &locks, 0);
    let begin = || {
        let writer = lock.write().unwrap();
        let lost = Write::lost(&writer);
        let seen = Write::downgrade_to_upgradable(writer).unwrap();
        (lost, Upgradable::lost(&seen), Upgradable::downgrade(seen).unwrap())
    };
    let (writers, upgradables, reader) = begin();
    let own = Read::lost(&reader);
    assert!(locks.lose_lock("a"));
    for lost in [writers, upgradables, own] {
        assert_eq!(Hand::new(lost).finish(), LostReason::Provoked);
    }
    drop(reader);
    let (writers, upgradables, reader) = begin();
    drop(reader);
    locks.lose_lock("a");
    for lost in [writers, upgradables] {
        assert!(Hand::new(lost).poll().is_pending(), "it was released in good order");
    }
}

at!(with_leader, a_closed_manager_ends_its_upgrades);
fn a_closed_manager_ends_its_upgrades(setting: &Setting) {
    let locks = setting.neighbour();
    let lock = Arc::new(lock_of(setting, &locks, 0));
    let far = lock_of(setting, &setting.remote(), 0);
    let inside = far.read().unwrap();
    let seen = lock.upgradable_read_arc().unwrap();
    let upgrade = thread::spawn(move || Upgradable::upgrade(seen).map(drop));
    until("the upgrade waits", || far.try_read().is_err());
    locks.close();
    assert_eq!(upgrade.join().unwrap().unwrap_err().kind(), LockErrorKind::Config);
    drop(inside);
    drop(far.try_write_for(LONG).unwrap());
}

at!(with_leader, an_upgrade_of_a_closed_manager_is_given_up_though_its_guard_stays);
fn an_upgrade_of_a_closed_manager_is_given_up_though_its_guard_stays(setting: &Setting) {
    let locks = setting.neighbour();
    let lock = Arc::new(lock_of(setting, &locks, 7));
    let far = lock_of(setting, &setting.remote(), 0);
    let inside = far.read().unwrap();
    let seen = lock.upgradable_read_arc().unwrap();
    let upgrade = thread::spawn(move || Upgradable::try_upgrade_for(seen, LONG).map(drop));
    until("the upgrade waits", || far.try_read().is_err());
    locks.close();
    let seen = upgrade.join().unwrap().unwrap_err();
    assert_eq!(*seen, 7);
    // It reads still, and holds no reader up.
    drop(far.try_read_for(LONG).unwrap());
    assert!(far.try_write().is_err());
    drop((seen, inside));
    drop(far.try_write_for(LONG).unwrap());
}

at!([host memory_host] a_name_begins_above_the_tokens_of_guards_that_stood_apart);
fn a_name_begins_above_the_tokens_of_guards_that_stood_apart(setting: &Setting) {
    let narrow = |locks: &LockManager, name: &str| {
        MutexGuard::token(&locks.mutex(name, ()).scope(Scope::Thread).lock().unwrap())
    };
    let locks = setting.locks();
    let lock = lock_of(setting, &locks, 0);
    let seen = lock.upgradable_read().unwrap();
    let reading = Upgradable::token(&seen);
    drop(seen);
    let writing = Upgradable::upgrade(lock.upgradable_read().unwrap()).unwrap();
    let written = Write::token(&writing);
    let reader = Write::downgrade(writing).unwrap();
    assert!(written > reading);
    drop(reader);
    drop(lock);
    assert!(narrow(&locks, "a") > written);
    let seats = locks.semaphore("b", 5).scope(Scope::Host).build().unwrap();
    let permits = seats.acquire_many(5).unwrap();
    let last = Permit::token(&permits);
    drop(permits);
    drop(seats);
    assert!(narrow(&locks, "c") > last, "also a name that is new");
}

at!([host memory_host] a_name_begins_above_the_token_of_a_reader_that_was_a_writer_and_is_forgotten);
fn a_name_begins_above_the_token_of_a_reader_that_was_a_writer_and_is_forgotten(setting: &Setting) {
    let locks = setting.locks();
    let lock = lock_of(setting, &locks, 0);
    let writing = Upgradable::upgrade(lock.upgradable_read().unwrap()).unwrap();
    let written = Write::token(&writing);
    let reader = Write::downgrade(writing).unwrap();
    until("its lease has the readers' token", || Read::token(&reader) > written);
    let last = Read::token(&reader);
    std::mem::forget(reader);
    drop(lock);
    let narrow = locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    assert!(MutexGuard::token(&narrow.lock().unwrap()) > last);
}

at!([host host_with_directory host_with_file_directory] processes_of_a_machine_read_beside_an_upgradable_one);
fn processes_of_a_machine_read_beside_an_upgradable_one(setting: &Setting) {
    let mut helper = setting.far_helper();
    helper.ask(&format!("upgradable\t{}\ta", setting.scope));
    let mut neighbour = setting.helper();
    neighbour.ask(&format!("upgradable\t{}\tb", setting.scope));
    let [lock, far] = both(setting);
    for lock in [&lock, &far] {
        drop(lock.try_read_for(LONG).unwrap());
        assert!(lock.try_write().unwrap_err().is_contended());
        assert!(lock.try_upgradable_read().unwrap_err().is_contended());
    }
    let locks = setting.locks();
    let beside = locks.rw_lock("b", ()).scope(setting.scope).build().unwrap();
    drop(beside.try_read_for(LONG).unwrap());
    assert!(beside.try_write().unwrap_err().is_contended());
    helper.kill();
    // Its session ends, and with it what it held.
    let writer = lock.try_write_for(LONG).unwrap();
    assert!(Write::is_valid(&writer));
}
