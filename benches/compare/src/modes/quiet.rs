//! One caller, and nothing in its way.

use std::time::Duration;

use tierlock::{LockManager, Mutex, RwLock, Scope, Semaphore};

use crate::{
    bench::{failure::Result, progress::Progress},
    house::House,
    measure::{Measure, Unit, median_ns},
    peers::{
        field::Field,
        shared::{PosixPermits, PthreadRwLock, SharedFlock},
    },
};

pub(super) fn measure(
    field: &mut Field,
    each: Duration,
    progress: &Progress,
    measures: &mut Vec<Measure>,
) -> Result<()> {
    let mut time = |what, cycle: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        progress.says(what);
        let value = median_ns(each, cycle)?;
        measures.push(Measure { what, at: 1, value, unit: Unit::Ns });
        Ok(())
    };

    let (mutex, lock, permits) = (Mutex::new(()), RwLock::new(()), Semaphore::new(2));
    time("quiet_thread_mutex", &mut || {
        drop(mutex.lock()?);
        Ok(())
    })?;
    time("quiet_thread_read", &mut || {
        drop(lock.read()?);
        Ok(())
    })?;
    time("quiet_thread_write", &mut || {
        drop(lock.write()?);
        Ok(())
    })?;
    time("quiet_thread_permit", &mut || {
        drop(permits.acquire()?);
        Ok(())
    })?;
    let peer = parking_lot::RwLock::new(());
    time("quiet_thread_read_parking_lot", &mut || {
        drop(peer.read());
        Ok(())
    })?;
    let peer = std::sync::RwLock::new(());
    time("quiet_thread_read_std", &mut || {
        drop(peer.read().expect("no writer panics"));
        Ok(())
    })?;

    let directory = field.new_directory("modes")?;
    let locks = LockManager::builder().directory(&directory).open()?;
    let (mutex, lock, permits) = build(&locks, Scope::Process)?;
    time("quiet_process_mutex", &mut || {
        drop(mutex.lock()?);
        Ok(())
    })?;
    time("quiet_process_read", &mut || {
        drop(lock.read()?);
        Ok(())
    })?;
    time("quiet_process_write", &mut || {
        drop(lock.write()?);
        Ok(())
    })?;
    time("quiet_process_permit", &mut || {
        drop(permits.acquire()?);
        Ok(())
    })?;
    let file = directory.join("pthread");
    PthreadRwLock::create(&file)?;
    let peer = PthreadRwLock::open(&file)?;
    time("quiet_process_read_pthread_rwlock", &mut || peer.read())?;
    let peer = SharedFlock::open(&directory.join("flock"))?;
    time("quiet_process_read_flock", &mut || peer.read())?;
    let file = directory.join("sem_t");
    PosixPermits::create(&file, 2)?;
    let peer = PosixPermits::open(&file)?;
    time("quiet_process_permit_sem_t", &mut || peer.cycle())?;

    let house = House::start(field)?;
    let locks = house.connect()?;
    let (mutex, lock, permits) = build(&locks, Scope::Host)?;
    time("quiet_host_mutex_kept", &mut || {
        drop(mutex.lock()?);
        Ok(())
    })?;
    time("quiet_host_read_kept", &mut || {
        drop(lock.read()?);
        Ok(())
    })?;
    // All machines read: each keeps a lease of its own.
    let others = (0..3).map(|_| house.connect()).collect::<Result<Vec<_>>>()?;
    let readers = others
        .iter()
        .map(|locks| Ok(locks.rw_lock("quiet/lock", ()).scope(Scope::Host).read()?))
        .collect::<Result<Vec<_>>>()?;
    time("quiet_host_read_kept_while_all_machines_read", &mut || {
        drop(lock.read()?);
        Ok(())
    })?;
    drop(readers);
    time("quiet_host_permit_one_round_trip", &mut || {
        drop(permits.acquire()?);
        Ok(())
    })?;
    Ok(())
}

fn build(locks: &LockManager, scope: Scope) -> Result<(Mutex<()>, RwLock<()>, Semaphore)> {
    Ok((
        locks.mutex("quiet/mutex", ()).scope(scope).build()?,
        locks.rw_lock("quiet/lock", ()).scope(scope).build()?,
        locks.semaphore("quiet/permits", 2).scope(scope).build()?,
    ))
}
