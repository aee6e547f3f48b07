//! The thread tier beside the locks it stands in for.
//!
//! `quiet` is the one with a budget: at most 1.25 times parking_lot. `relocked` is a thread's wait
//! beside one that holds for 200 µs and takes again at once, where a lock without fairness of its
//! own waits for as long as the scheduler likes.

use std::{
    hint::{black_box, spin_loop},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};

/// What they have in common.
trait Lock: Sync {
    const NAME: &'static str;

    fn new() -> Self;
    fn with<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R;
}

impl Lock for tierlock::Mutex<u64> {
    const NAME: &'static str = "tierlock";

    fn new() -> Self {
        tierlock::Mutex::new(0)
    }

    fn with<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.lock().unwrap())
    }
}

impl Lock for parking_lot::Mutex<u64> {
    const NAME: &'static str = "parking_lot";

    fn new() -> Self {
        parking_lot::Mutex::new(0)
    }

    fn with<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.lock())
    }
}

impl Lock for std::sync::Mutex<u64> {
    const NAME: &'static str = "std";

    fn new() -> Self {
        std::sync::Mutex::new(0)
    }

    fn with<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.lock().unwrap())
    }
}

fn quiet<L: Lock>(c: &mut Criterion) {
    let lock = L::new();
    c.benchmark_group("quiet").bench_function(L::NAME, |bench| {
        bench.iter(|| black_box(&lock).with(|count| *count += 1));
    });
}

/// The time per hold, with as many threads holding for as short as they can.
fn crowd<L: Lock>(c: &mut Criterion) {
    let mut group = c.benchmark_group("crowd");
    for threads in [2, 4] {
        group.bench_function(format!("{}/{threads}", L::NAME), |bench| {
            bench.iter_custom(|iterations| {
                let lock = L::new();
                let start = Barrier::new(threads + 1);
                let share = iterations.div_ceil(threads as u64);
                let (began, done) = thread::scope(|scope| {
                    let holders: Vec<_> = (0..threads)
                        .map(|_| {
                            scope.spawn(|| {
                                start.wait();
                                for _ in 0..share {
                                    lock.with(|count| *count += 1);
                                }
                                Instant::now()
                            })
                        })
                        .collect();
                    start.wait();
                    let began = Instant::now();
                    (began, holders.into_iter().map(|holder| holder.join().unwrap()).max())
                });
                assert_eq!(lock.with(|count| *count), share * threads as u64);
                done.unwrap().saturating_duration_since(began)
            });
        });
    }
}

fn relocked<L: Lock>(c: &mut Criterion) {
    let mut group = c.benchmark_group("relocked");
    group.sample_size(10);
    group.bench_function(L::NAME, |bench| {
        bench.iter_custom(|iterations| {
            let lock = L::new();
            let (start, enough) = (Barrier::new(2), AtomicBool::new(false));
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    while !enough.load(Relaxed) {
                        lock.with(|_| spin_for(Duration::from_micros(200)));
                    }
                });
                start.wait();
                let mut waited = Duration::ZERO;
                for _ in 0..iterations {
                    thread::sleep(Duration::from_micros(100));
                    let asked = Instant::now();
                    waited += lock.with(|_| asked.elapsed());
                }
                enough.store(true, Relaxed);
                waited
            })
        });
    });
}

fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        spin_loop();
    }
}

fn all<L: Lock>(c: &mut Criterion) {
    quiet::<L>(c);
    crowd::<L>(c);
    relocked::<L>(c);
}

criterion_group!(
    benches,
    all::<tierlock::Mutex<u64>>,
    all::<parking_lot::Mutex<u64>>,
    all::<std::sync::Mutex<u64>>
);
criterion_main!(benches);
