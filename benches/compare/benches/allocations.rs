//! Allocations per cycle on the calling thread, where zero is promised and where it is not.

#[path = "../../../tests/counting/mod.rs"]
mod counting;

use counting::allocations;
use futures::executor::block_on;
use tierlock::{Keep, Leader, LockManager, Mutex, Scope, Secret};

const CYCLES: u64 = 1_000;

fn main() {
    let mutex = Mutex::new(0_u64);
    show("thread, lock", || drop(mutex.lock().unwrap()));
    show("thread, lock_async", || drop(block_on(mutex.lock_async()).unwrap()));
    let held = Mutex::new(());
    let guard = held.lock().unwrap();
    show("thread, try_lock that fails", || drop(held.try_lock().unwrap_err()));
    drop(guard);

    let directory = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(directory.path().join("locks")).open().unwrap();
    let mutex = locks.mutex("quiet", ()).scope(Scope::Process).build().unwrap();
    show("process, lock", || drop(mutex.lock().unwrap()));
    show("process, lock_async", || drop(block_on(mutex.lock_async()).unwrap()));
    show("process, a name made at run time", || {
        drop(locks.mutex("orders/42", ()).scope(Scope::Process).lock().unwrap());
    });

    let secret = directory.path().join("secret");
    Secret::create(&secret).unwrap();
    let leader = Leader::builder().listen("127.0.0.1:0").secret_file(&secret);
    let leader = leader.state_dir(directory.path().join("leader")).init(true);
    let leader = leader.accept_file_system("tmpfs").start().unwrap();
    let locks = LockManager::builder().leaders([leader.local_addr().to_string()]);
    let locks = locks.secret_file(&secret).open().unwrap();
    for keep in [Keep::Never, Keep::Always] {
        let mutex = locks.mutex(format!("quiet/{keep:?}"), ()).scope(Scope::Host).keep(keep);
        let mutex = mutex.build().unwrap();
        show(&format!("host, lock, Keep::{keep:?}"), || drop(mutex.lock().unwrap()));
    }
}

/// Prints it, after as many cycles as first uses need.
fn show(what: &str, mut cycle: impl FnMut()) {
    (0..10).for_each(|_| cycle());
    let made = allocations(|| (0..CYCLES).for_each(|_| cycle()));
    println!("{what:<36}{:>8.3} allocations per cycle", made as f64 / CYCLES as f64);
}
