//! A pool of workers on several machines, of which four are at work at a time: the leader counts the
//! permits. Here it is embedded, and each manager stands for a machine.
//!
//! A machine that is lost gives its permits back after its time to live.
//!
//! Run it: `cargo run --example pool_of_machines`

use std::{
    env,
    error::Error,
    fs, process,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

use tierlock::{Leader, LockManager, Permit};

const AT_WORK: u32 = 4;
const JOBS: u32 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let place = env::temp_dir().join(format!("tierlock-machines-{}", process::id()));
    fs::create_dir(&place)?;
    let secret = place.join("tierlock.key");
    tierlock::Secret::create(&secret)?;
    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(place.join("state"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(&secret)
        .start()?;
    let machine = |number: u32| {
        LockManager::builder()
            .leaders([leader.local_addr().to_string()])
            .secret_file(&secret)
            .label(format!("machine {number}"))
            .open()
    };
    let machines = (0..3).map(machine).collect::<Result<Vec<_>, _>>()?;
    let (at_work, most) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        let (at_work, most) = (&at_work, &most);
        // Three workers on each.
        let workers = machines.iter().flat_map(|locks| [locks; 3]);
        let workers: Vec<_> =
            workers.map(|locks| scope.spawn(move || work(locks, at_work, most))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    println!("at most {} of {AT_WORK} were at work", most.load(SeqCst));
    assert!(most.into_inner() <= AT_WORK);

    // Work on a larger scale takes several at once, and gives them back as it needs fewer.
    let pool = machines[0].semaphore("thumbnails", AT_WORK).build()?;
    let mut all = pool.acquire_many(AT_WORK)?;
    let rest = Permit::split(&mut all, 1).expect("there are more");
    drop(all);
    let beside = machines[1].semaphore("thumbnails", AT_WORK).build()?;
    drop(beside.try_acquire_many_for(AT_WORK - 1, Duration::from_secs(10))?);
    Permit::unlock(rest)?;

    drop((pool, beside, machines));
    leader.shutdown();
    fs::remove_dir_all(place)?;
    Ok(())
}

fn work(locks: &LockManager, at_work: &AtomicU32, most: &AtomicU32) -> tierlock::Result<()> {
    let pool = locks.semaphore("thumbnails", AT_WORK).build()?;
    for _ in 0..JOBS {
        let permit = pool.acquire()?;
        most.fetch_max(at_work.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::sleep(Duration::from_millis(2)); // the job
        at_work.fetch_sub(1, SeqCst);
        Permit::unlock(permit)?;
    }
    Ok(())
}
