//! Thread scope: nothing to set up, and the cost of `parking_lot`.
//!
//! Run it: `cargo run --example thread`

use std::thread;

use tierlock::{LockError, Mutex, MutexGuard};

static HITS: Mutex<u64> = Mutex::new(0);

fn main() -> Result<(), LockError> {
    let workers: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| -> Result<(), LockError> {
                for _ in 0..10_000 {
                    *HITS.lock()? += 1;
                }
                Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("no worker panics")?;
    }
    let hits = HITS.lock()?;
    println!("4 threads counted to {} under {} locks", *hits, MutexGuard::token(&hits));
    assert_eq!(*hits, 40_000);
    Ok(())
}
