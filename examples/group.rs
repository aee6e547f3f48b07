//! A group of three leaders that keep their journal themselves, without a store: the one that reigns ends,
//! and the lock that it granted is held on. Here all three are in one process; as a rule each is on a
//! machine of its own, embedded or as `tierlock serve --group`.
//!
//! Run it: `cargo run --example group`

use std::{
    env,
    error::Error,
    fs,
    net::UdpSocket,
    process,
    sync::mpsc,
    time::{Duration, Instant},
};

use tierlock::{Leader, LockManager, MutexGuard};

fn main() -> Result<(), Box<dyn Error>> {
    let place = env::temp_dir().join(format!("tierlock-group-{}", process::id()));
    fs::create_dir(&place)?;
    let secret = place.join("tierlock.key");
    tierlock::Secret::create(&secret)?; // once, then copied to every machine

    // The same at each member: every ID, and where it listens.
    let addresses = free_addresses()?;
    let ids = ["a", "b", "c"];
    let members: Vec<_> =
        ids.iter().zip(&addresses).map(|(id, address)| format!("{id}={address}")).collect();
    let members = members.join(",");

    let (say, reigns) = mpsc::channel();
    let start = |number: usize| {
        let say = say.clone();
        Leader::builder()
            .listen(&addresses[number])
            .group(&members)
            .state_dir(place.join(ids[number])) // each has a disk of its own
            .init(true) // the first start of all three makes the group; from then on without
            .accept_file_system("tmpfs") // these leaders are gone before the machine restarts
            .secret_file(&secret)
            .on_change(move |text| {
                if text.starts_with("it reigns") {
                    let _ = say.send(number);
                }
            })
            .start()
    };
    let mut leaders = [Some(start(0)?), Some(start(1)?), Some(start(2)?)];

    let locks = LockManager::builder().leaders(&addresses).secret_file(&secret).open()?;
    let held = locks.mutex("report/2026-11", ()).lock()?;
    let token = MutexGuard::token(&held);
    println!("held with token {token}, in epoch {}", token.epoch());

    let first = reigns.recv_timeout(Duration::from_secs(30))?;
    println!("{} ends", ids[first]);
    let begun = Instant::now();
    leaders[first].take().expect("it runs").shutdown();
    let next = reigns.recv_timeout(Duration::from_secs(30))?;
    println!("{} reigns, {:.0?} later", ids[next], begun.elapsed());

    assert_eq!(MutexGuard::check(&held)?, token);
    println!("the lock is held on");
    let other = locks.mutex("report/2026-12", ()).lock()?;
    println!("and another is granted, in epoch {}", MutexGuard::token(&other).epoch());

    drop((held, other));
    drop(locks);
    leaders.into_iter().flatten().for_each(Leader::shutdown);
    fs::remove_dir_all(place)?;
    Ok(())
}

/// A group's addresses are known before its members start.
fn free_addresses() -> std::io::Result<Vec<String>> {
    let sockets: Vec<_> =
        (0..3).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    sockets.iter().map(|socket| socket.local_addr().map(|address| address.to_string())).collect()
}
