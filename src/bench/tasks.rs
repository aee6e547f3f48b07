//! Asynchronous callers: tasks on a multi-threaded runtime.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{runtime::Runtime, task::JoinHandle};

use super::{
    failure::{Result, check_count},
    run::Contender,
    stats::{Meter, RowTally, Unprotected, histogram, record},
};

/// Threads of the runtime that asynchronous callers are measured on.
pub(crate) const RUNTIME_WORKERS: u32 = 2;

/// An asynchronous caller: what it does again and again.
pub(crate) trait AsyncCaller: Send + 'static {
    /// Locks and unlocks once.
    fn cycle(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// One task without another beside it.
pub(crate) struct QuietAsync<C> {
    runtime: Arc<Runtime>,
    client: Option<C>,
}

impl<C: AsyncCaller> QuietAsync<C> {
    pub(crate) fn new(runtime: Arc<Runtime>, client: C) -> QuietAsync<C> {
        QuietAsync { runtime, client: Some(client) }
    }
}

impl<C: AsyncCaller> Contender for QuietAsync<C> {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        let mut client = self.client.take().expect("given back after every slice");
        let mut own = tally.empty();
        // A task of its own: what blocks on a runtime from outside is no task of it.
        let task = self.runtime.spawn(async move {
            let mut meter = Meter::start(slice, &mut own);
            let mut done = Ok(());
            'slice: while let Some(cycles) = meter.next() {
                for _ in 0..cycles {
                    done = client.cycle().await;
                    if done.is_err() {
                        break 'slice;
                    }
                }
            }
            (client, own, done)
        });
        let (client, own, done) = self.runtime.block_on(task).expect("it does not panic");
        self.client = Some(client);
        tally.add(own);
        done
    }
}

/// Tasks that work side by side.
pub(crate) struct Fleet<C> {
    runtime: Arc<Runtime>,
    clients: Vec<Option<C>>,
    waits: Arc<Waits>,
    /// What they all count under one lock, if it is one lock.
    count: Option<Arc<Unprotected>>,
    expected: u64,
}

impl<C: AsyncCaller> Fleet<C> {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        clients: Vec<C>,
        count: Option<Arc<Unprotected>>,
    ) -> Fleet<C> {
        let clients = clients.into_iter().map(Some).collect();
        Fleet { runtime, clients, waits: Arc::default(), count, expected: 0 }
    }

    fn spawn(&mut self, index: usize, slice: Duration) -> JoinHandle<(C, u64, Result<()>)> {
        let mut client = self.clients[index].take().expect("given back after every slice");
        let waits = self.waits.clone();
        self.runtime.spawn(async move {
            let mut cycles = 0;
            let mut last = Instant::now();
            let end = last + slice;
            while last < end {
                if let Err(failure) = client.cycle().await {
                    return (client, cycles, Err(failure));
                }
                let now = Instant::now();
                waits.add(now - last);
                cycles += 1;
                last = now;
            }
            (client, cycles, Ok(()))
        })
    }
}

impl<C: AsyncCaller> Contender for Fleet<C> {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        let started = Instant::now();
        let tasks: Vec<_> = (0..self.clients.len()).map(|index| self.spawn(index, slice)).collect();
        let mut outcome = Ok(());
        for (index, task) in tasks.into_iter().enumerate() {
            let (client, cycles, done) = self.runtime.block_on(task).expect("it does not panic");
            self.expected += cycles;
            tally.did(index, cycles);
            self.clients[index] = Some(client);
            outcome = outcome.and(done);
        }
        // Their operations are in the tally already.
        tally.stretch(0, started.elapsed());
        self.waits.take(tally);
        outcome
    }

    fn check(&mut self) -> Result<()> {
        match &self.count {
            Some(count) => check_count("clients on one name", count.get(), self.expected),
            None => Ok(()),
        }
    }
}

/// Waits of tasks, taken down per thread of the runtime: a histogram per task would be out of the
/// processor's caches by the task's next turn, and cost more than some of what is measured.
struct Waits([Mutex<Histogram<u64>>; RUNTIME_WORKERS as usize]);

impl Default for Waits {
    fn default() -> Waits {
        Waits(std::array::from_fn(|_| Mutex::new(histogram())))
    }
}

impl Waits {
    fn add(&self, wait: Duration) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        // Nearly always no other thread's; which thread's it is does not matter.
        let slot = THREAD.with(|thread| *thread) % self.0.len();
        record(&mut self.0[slot].lock(), wait);
    }

    fn take(&self, tally: &mut RowTally) {
        for waits in &self.0 {
            let mut waits = waits.lock();
            tally.add_waits(&waits);
            waits.reset();
        }
    }
}
