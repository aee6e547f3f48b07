//! A lock without a competitor, taken a million times: to be looked at from outside.
//!
//! ```sh
//! cargo build --release --example quiet_cycles
//! strace -f -c target/release/examples/quiet_cycles thread
//! strace -f -c target/release/examples/quiet_cycles process
//! strace -f -c target/release/examples/quiet_cycles process 2000000   # the same number of calls
//! valgrind --tool=callgrind target/release/examples/quiet_cycles thread 1000000 read
//! ```
//!
//! Where a scope needs no system call, twice the cycles show as many calls as before.

use tierlock::{LockManager, Mutex, RwLock, Scope, Semaphore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let scope: Scope = arguments.next().as_deref().unwrap_or("process").parse()?;
    let cycles: u64 = arguments.next().as_deref().unwrap_or("1000000").parse()?;
    let mode = arguments.next().unwrap_or("mutex".into());

    let directory = std::env::temp_dir().join(format!("tierlock-quiet-{}", std::process::id()));
    let (mutex, lock, permits) = match scope {
        Scope::Thread => (Mutex::new(0), RwLock::new(0), Semaphore::new(2)),
        Scope::Process => {
            let locks = LockManager::builder().directory(&directory).open()?;
            (
                locks.mutex("quiet/mutex", 0).scope(scope).build()?,
                locks.rw_lock("quiet/lock", 0).scope(scope).build()?,
                locks.semaphore("quiet/permits", 2).scope(scope).build()?,
            )
        }
        _ => return Err("thread or process: host scope needs the network".into()),
    };
    let mut counted = 0_u64;
    for _ in 0..cycles {
        match mode.as_str() {
            "mutex" => {
                *mutex.lock()? += 1;
                counted += 1;
            }
            "read" => counted += 1 + *lock.read()?,
            "write" => {
                *lock.write()? += 1;
                counted += 1;
            }
            "permit" => {
                let permit = permits.acquire()?;
                counted += 1;
                drop(permit);
            }
            other => return Err(format!("mutex, read, write or permit, not {other}").into()),
        }
    }
    println!("{scope} scope, {mode}: counted to {counted}");
    if scope == Scope::Process {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}
