//! A lock without a competitor, taken a million times: to be looked at from outside.
//!
//! ```sh
//! cargo build --release --example quiet_cycles
//! strace -f -c target/release/examples/quiet_cycles thread
//! strace -f -c target/release/examples/quiet_cycles process
//! strace -f -c target/release/examples/quiet_cycles process 2000000   # the same number of calls
//! ```
//!
//! Where a scope needs no system call, twice the cycles show as many calls as before.

use tierlock::{LockManager, Mutex, Scope};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let scope: Scope = arguments.next().as_deref().unwrap_or("process").parse()?;
    let cycles: u64 = arguments.next().as_deref().unwrap_or("1000000").parse()?;

    let directory = std::env::temp_dir().join(format!("tierlock-quiet-{}", std::process::id()));
    let mutex = match scope {
        Scope::Thread => Mutex::new(0),
        Scope::Process => {
            let locks = LockManager::builder().directory(&directory).open()?;
            locks.mutex("quiet", 0).scope(Scope::Process).build()?
        }
        _ => return Err("thread or process: host scope needs the network".into()),
    };
    for _ in 0..cycles {
        *mutex.lock()? += 1_u64;
    }
    println!("{scope} scope: counted to {}", mutex.into_inner());
    if scope == Scope::Process {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(())
}
