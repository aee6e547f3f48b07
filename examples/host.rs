//! Host scope: a leader issues leases over QUIC. Here it is embedded, and two managers stand for
//! two machines.
//!
//! Run it: `cargo run --example host`

use std::{env, error::Error, fs, process, time::Duration};

use tierlock::{Leader, LockManager, MutexGuard};

fn main() -> Result<(), Box<dyn Error>> {
    let place = env::temp_dir().join(format!("tierlock-host-{}", process::id()));
    fs::create_dir(&place)?;
    let secret = place.join("tierlock.key");
    tierlock::Secret::create(&secret)?; // once, then copied to every machine

    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(place.join("state"))
        .init(true) // the first start makes its journal; from then on without
        .accept_file_system("tmpfs") // this leader is gone before the machine restarts
        .secret_file(&secret)
        .start()?;

    let machine = |label: &str| {
        LockManager::builder()
            .leaders([leader.local_addr().to_string()])
            .secret_file(&secret)
            .label(label)
            .open()
    };
    let (berlin, tokyo) = (machine("berlin")?, machine("tokyo")?);

    let held = berlin.mutex("report/2026-11", ()).lock()?;
    println!("berlin holds it with token {}", MutexGuard::token(&held));

    let busy = tokyo.mutex("report/2026-11", ()).try_lock_for(Duration::from_millis(100));
    println!("tokyo does not get it: {}", busy.expect_err("berlin holds it"));

    drop(held);
    let held = tokyo.mutex("report/2026-11", ()).lock()?;
    println!("tokyo holds it with token {}", MutexGuard::token(&held));

    drop(held);
    drop((berlin, tokyo));
    leader.shutdown();
    fs::remove_dir_all(place)?;
    Ok(())
}
