//! Thread scope: what a lock costs that stays inside the process.

use std::{
    num::NonZero,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use super::{
    case::{Case, Label},
    failure::{Result, check_count},
    grounds::Grounds,
    run::{Contender, Entry},
    stats::{Meter, Share, Tally, Unprotected},
};
use crate::{Mutex, Scope};

pub(crate) fn quiet(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let mutex = Mutex::new(0_u64);
    let mut entries = vec![Entry::new(
        Label::new(Scope::Thread, Case::Quiet),
        Quiet(move || {
            *mutex.lock()? += 1;
            Ok(())
        }),
    )];
    super::peers::thread_quiet(grounds, &mut entries)?;
    Ok(entries)
}

pub(crate) fn threads(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let mutex = Mutex::new(());
    let mut entries = vec![Entry::new(
        threads_label(),
        Threads::new(move |section: &dyn Fn()| {
            let _guard = mutex.lock()?;
            section();
            Ok(())
        }),
    )];
    super::peers::thread_threads(grounds, &mut entries)?;
    Ok(entries)
}

/// The label of [`threads`], with as many threads as it has.
pub(crate) fn threads_label() -> Label {
    let threads = thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 8) as u32;
    Label { threads, clients: threads, ..Label::new(Scope::Thread, Case::Threads) }
}

/// One caller: a closure that locks and unlocks once.
pub(crate) struct Quiet<F>(pub(crate) F);

impl<F: FnMut() -> Result<()>> Contender for Quiet<F> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let mut meter = Meter::start(slice, tally);
        while let Some(cycles) = meter.next() {
            for _ in 0..cycles {
                (self.0)()?;
            }
        }
        Ok(())
    }
}

/// Threads that all want one lock and never pause.
pub(crate) struct Threads<F> {
    with_lock: F,
    count: Arc<Unprotected>,
    expected: u64,
    shares: Vec<Share>,
}

impl<F: Fn(&dyn Fn()) -> Result<()> + Sync> Threads<F> {
    /// `with_lock` runs what it is given under the lock.
    pub(crate) fn new(with_lock: F) -> Threads<F> {
        let threads = threads_label().threads;
        let shares = (0..threads).map(|_| Share::new()).collect();
        Threads { with_lock, count: Arc::default(), expected: 0, shares }
    }
}

impl<F: Fn(&dyn Fn()) -> Result<()> + Sync> Contender for Threads<F> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let barrier = Barrier::new(self.shares.len());
        let (with_lock, count) = (&self.with_lock, &*self.count);
        let started = Instant::now();
        let done: Vec<Result<()>> = thread::scope(|scope| {
            let threads: Vec<_> = self
                .shares
                .iter_mut()
                .map(|share| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        let mut last = Instant::now();
                        let end = last + slice;
                        while last < end {
                            with_lock(&|| count.increment())?;
                            // One reading per cycle, outside the section: a whole cycle.
                            let now = Instant::now();
                            share.add(now - last);
                            last = now;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        tally.wall(started.elapsed());
        done.into_iter().collect::<Result<()>>()?;
        for (client, share) in self.shares.iter_mut().enumerate() {
            self.expected += share.operations();
            tally.absorb(client, share);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        check_count("threads", self.count.get(), self.expected)
    }
}
