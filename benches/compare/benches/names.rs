//! What making and finding a name costs by how many names there are: process scope, one directory.
//!
//! `NAMES=1000000 cargo bench -p compare --bench names` goes on to a million. Each name is built, locked,
//! unlocked and dropped: any of them, in an order that no cache foresees; and ten of them again
//! and again, which caches know, so that what is left is the way through the index. All of them were
//! there before. What a new process pays shows `cargo run --release -p compare -- --scale`.

use std::{fs, hint::black_box, os::unix::fs::MetadataExt, path::Path, time::Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tierlock::{LockManager, Scope};

const SIZES: [usize; 3] = [10, 1_000, 100_000];
/// Coprime to every size, so that the walk passes every name.
const STEP: usize = 7_919;

fn find_one_of_many(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(directory.path()).open().unwrap();
    let lock = |name: &str| drop(locks.mutex(name, ()).scope(Scope::Process).lock().unwrap());
    let empty = bytes_in(directory.path());
    let more = std::env::var("NAMES").ok().map(|names| names.parse().expect("NAMES is a number"));
    let mut names: Vec<String> = Vec::new();
    let mut group = c.benchmark_group("names");
    for size in SIZES.into_iter().chain(more) {
        let (before, started) = (names.len(), Instant::now());
        while names.len() < size {
            names.push(format!("orders/{:09}", names.len()));
            lock(&names[names.len() - 1]);
        }
        let made = (size - before).max(1) as f64;
        let each_ns = started.elapsed().as_nanos() as f64 / made;
        let bytes = bytes_in(directory.path()).saturating_sub(empty);
        println!(
            "{size} names: {each_ns:.0} ns to make each, {:.1} bytes on disk",
            bytes as f64 / size as f64
        );
        let mut next = 0;
        group.bench_function(format!("build, lock, unlock, drop one of {size}"), |bench| {
            bench.iter(|| {
                next = (next + STEP) % size;
                lock(black_box(&names[next]));
            });
        });
        group.bench_function(format!("the same ten of {size}"), |bench| {
            bench.iter(|| {
                next = (next + 1) % 10;
                lock(black_box(&names[next * (size / 10)]));
            });
        });
        let mutex = locks.mutex(&names[size / 2], ()).scope(Scope::Process).build().unwrap();
        group.bench_function(format!("lock, unlock one of {size} that is at hand"), |bench| {
            bench.iter(|| drop(black_box(&mutex).lock().unwrap()));
        });
    }
}

/// What the files of a directory take up, by the file system's account.
fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let below = if metadata.is_dir() { bytes_in(&entry.path()) } else { 0 };
            below + metadata.blocks() * 512
        })
        .sum()
}

criterion_group!(benches, find_one_of_many);
criterion_main!(benches);
