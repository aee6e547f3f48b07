//! Process scope: several processes of one machine share a directory.
//!
//! Run it: `cargo run --example process`

use std::{env, error::Error, fs, process::Command};

use tierlock::{LockManager, MutexGuard, Scope};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = env::args_os().nth(1) {
        return work(directory.as_ref());
    }
    let directory = env::temp_dir().join(format!("tierlock-process-{}", std::process::id()));
    fs::create_dir(&directory)?;
    fs::write(directory.join("counter"), "0")?;
    let workers: Vec<_> = (0..4)
        .map(|_| Command::new(env::current_exe()?).arg(&directory).spawn())
        .collect::<Result<_, _>>()?;
    for mut worker in workers {
        assert!(worker.wait()?.success());
    }
    let count = fs::read_to_string(directory.join("counter"))?;
    println!("4 processes counted to {count}");
    assert_eq!(count, "400");
    fs::remove_dir_all(directory)?;
    Ok(())
}

/// One process: counts to 100 in a file that nothing else protects.
fn work(directory: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let locks = LockManager::builder().directory(directory.join("locks")).open()?;
    let counter = locks.mutex("counter", directory.join("counter")).build()?;
    for _ in 0..100 {
        let file = counter.lock()?;
        assert_eq!(MutexGuard::scope(&file), Scope::Process);
        let count: u64 = fs::read_to_string(&*file)?.parse()?;
        fs::write(&*file, (count + 1).to_string())?;
    }
    Ok(())
}
