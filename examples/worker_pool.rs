//! A pool of workers in several processes, of which four are at work at a time.
//!
//! A worker that is killed gives its permit back with its life. Each permit has a token, which names the
//! job in logs.
//!
//! Run it: `cargo run --example worker_pool`

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::ErrorKind,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use tierlock::{LockManager, Permit, Scope};

const AT_WORK: u32 = 4;
const JOBS: u32 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = env::args_os().nth(1) {
        return work(directory.as_ref());
    }
    let directory = env::temp_dir().join(format!("tierlock-pool-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let mut workers: Vec<_> = (0..7)
        .map(|_| Command::new(env::current_exe()?).arg(&directory).spawn())
        .collect::<Result<_, _>>()?;
    // One of them crashes: its permit, if it has one, comes back.
    let mut crashed = workers.pop().expect("there are seven");
    thread::sleep(Duration::from_millis(20));
    let killed = crashed.kill();
    crashed.wait()?;
    killed?;
    for mut worker in workers {
        assert!(worker.wait()?.success(), "more than {AT_WORK} were at work");
    }
    let locks = LockManager::builder().directory(directory.join("locks")).open()?;
    let pool = locks.semaphore("thumbnails", AT_WORK).scope(Scope::Process).build()?;
    drop(pool.acquire_many(AT_WORK)?); // all of them are free again
    println!("never more than {AT_WORK} at work");
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// As another process.
fn work(directory: &Path) -> Result<(), Box<dyn Error>> {
    let locks = LockManager::builder().directory(directory.join("locks")).label("worker").open()?;
    let pool = locks.semaphore("thumbnails", AT_WORK).scope(Scope::Process).build()?;
    for _ in 0..JOBS {
        let permit = pool.acquire()?;
        // What shows that there are no more: a desk for each, and one for the worker that crashes.
        let desks = (0..=AT_WORK).map(|number| directory.join(format!("desk {number}")));
        let desk = desks.into_iter().find_map(|desk| match File::create_new(&desk) {
            Ok(_) => Some(Ok(desk)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
            Err(error) => Some(Err(error)),
        });
        let desk = desk.ok_or("no desk is free")??;
        thread::sleep(Duration::from_millis(2)); // the job
        fs::remove_file(desk)?;
        Permit::unlock(permit)?;
    }
    Ok(())
}
