//! The process tier beside `flock(2)`: quiet lock and unlock.

use std::{fs::File, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use rustix::fs::{FlockOperation, flock};
use tierlock::{LockManager, Scope};

fn quiet(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("process/quiet");

    let locks = LockManager::builder().directory(directory.path().join("locks")).open().unwrap();
    let mutex = locks.mutex("quiet", 0_u64).scope(Scope::Process).build().unwrap();
    group.bench_function("tierlock", |bench| {
        bench.iter(|| *black_box(&mutex).lock().unwrap() += 1);
    });

    let file = File::create(directory.path().join("quiet.flock")).unwrap();
    group.bench_function("flock", |bench| {
        bench.iter(|| {
            flock(black_box(&file), FlockOperation::LockExclusive).unwrap();
            flock(&file, FlockOperation::Unlock).unwrap();
        });
    });
}

/// A name made at run time: built, locked, unlocked and dropped each time.
fn name_made_at_run_time(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(directory.path()).open().unwrap();
    let mut next = 0_u32;
    c.bench_function("process/names", |bench| {
        bench.iter(|| {
            next = (next + 1) % 100;
            let name = format!("orders/{next}");
            drop(locks.mutex(name, ()).scope(Scope::Process).lock().unwrap());
        });
    });
}

criterion_group!(benches, quiet, name_made_at_run_time);
criterion_main!(benches);
