//! A cron job on many machines that must run once: the first machine runs it, the others leave.
//!
//! `at_least` keeps the lock for a while though the job is done at once, so that a machine with a
//! clock that is a little behind does not run it again. Without a program of your own, do the same in
//! a crontab line:
//!
//! ```text
//! 0 3 * * *  tierlock run --no-wait --at-least 5m nightly-report -- /usr/bin/report
//! ```
//!
//! Run it: `cargo run --example cron_job`

use std::{
    env,
    error::Error,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use tierlock::{LockManager, MutexGuard};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = env::args_os().nth(1) {
        return job(directory.as_ref());
    }
    let directory = env::temp_dir().join(format!("tierlock-cron-{}", std::process::id()));
    let machines: Vec<_> = (0..3)
        .map(|_| Command::new(env::current_exe()?).arg(&directory).stdout(Stdio::piped()).spawn())
        .collect::<Result<_, _>>()?;
    let mut ran = 0;
    for machine in machines {
        let output = machine.wait_with_output()?;
        assert!(output.status.success());
        print!("{}", String::from_utf8_lossy(&output.stdout));
        ran += usize::from(output.stdout.starts_with(b"report sent"));
    }
    assert_eq!(ran, 1);
    fs::remove_dir_all(directory)?;
    Ok(())
}

fn job(directory: &std::path::Path) -> Result<(), Box<dyn Error>> {
    // In production: LockManager::from_env()? with TIERLOCK_LEADERS set on every machine.
    let locks = LockManager::builder().directory(directory).label("report").open()?;
    let nightly = locks.mutex("nightly-report", ()).at_least(Duration::from_secs(3)).build()?;
    match nightly.try_lock() {
        Ok(guard) => {
            println!("report sent");
            // The lock lives no longer than its process: wait until it is really released.
            futures::executor::block_on(MutexGuard::unlock_async(guard))?;
        }
        Err(taken) if taken.is_contended() => println!("not me: {taken}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
