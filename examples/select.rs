//! `select!` between the work and the loss of its lock: work that can be stopped is stopped.
//!
//! Run it: `cargo run --example select --features testing`

use std::time::Duration;

use tierlock::{LockManager, LostReason, MutexGuard};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tierlock::LockError> {
    let locks = LockManager::in_memory(); // in production: LockManager::from_env()?
    let guard = locks.mutex("nightly", ()).lock_async().await?;
    let lost = MutexGuard::lost(&guard); // does not borrow the guard

    // An operator takes the lock away while the work goes on.
    let saboteur = locks.clone();
    tokio::spawn(async move { saboteur.lose_lock("nightly") });

    let outcome = tokio::select! {
        () = long_work() => Ok(()),
        reason = lost => Err(reason),
    };
    assert_eq!(outcome, Err(LostReason::Provoked));
    assert!(!MutexGuard::is_valid(&guard));
    println!("the work was stopped: {}", outcome.unwrap_err());
    Ok(())
}

async fn long_work() {
    tokio::time::sleep(Duration::from_secs(3600)).await;
}
